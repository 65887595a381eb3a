//! (being written)
use std::process::ExitCode;

use crate::options::Options;

pub fn serve(_options: Options) -> ExitCode {
    eprintln!("outpour: serve is being written");
    ExitCode::FAILURE
}

pub fn doctor(_options: &Options) -> ExitCode {
    eprintln!("outpour: doctor is being written");
    ExitCode::FAILURE
}
