//! The checklist of what this machine lets the server do.

use std::io::{self, Write};
use std::process::ExitCode;

use super::boot;
use crate::options::Options;
use crate::ring::probe::{self, Report, State};

/// Prints every check, what to do about those that fail, and what the options come to here. Fails
/// if the server could not run.
pub fn doctor(options: &Options) -> ExitCode {
    let raised = boot::raise_open_files();
    let report = probe::probe();
    let mut text = checklist(&report);
    if let Err(error) = raised {
        text += &format!("slow   open files: the soft limit stays as it is: {error}\n");
    }
    let is_planned = match boot::Plan::new(options) {
        Ok(plan) => {
            text += &format!("\n{plan}\n");
            true
        }
        Err(error) => {
            text += &format!("FATAL  {error}\n");
            false
        }
    };
    let is_printed = io::stdout().write_all(text.as_bytes()).is_ok();
    match is_printed && is_planned && !report.is_fatal() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn checklist(report: &Report) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let state = match check.state {
            State::Ok => "ok   ",
            State::Slow => "slow ",
            State::Fatal => "FATAL",
        };
        text += &format!("{state}  {}: {}\n", check.name, check.found);
        if !check.remedy.is_empty() {
            text += &format!("       -> {}\n", check.remedy);
        }
    }
    text
}
