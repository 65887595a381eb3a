//! What `outpour bench` does with results that were kept: `report` shows one again, `compare` sets them against
//! each other.
//!
//! ```text
//! outpour bench report RESULT.json [--report FILE.html] [--hgrm FILE] [--require LIST]
//! outpour bench compare A.json B.json [MORE.json...]
//! outpour bench compare --a FILE... --b FILE...
//! ```
//!
//! | exit status | meaning |
//! |---|---|
//! | 0 | shown, and what was required holds; compared |
//! | 1 | a file that cannot be read or written, a requirement that does not hold, nothing to compare |
//! | 2 | a wrong command line |

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::load::result::Results;

use super::compare::{self, Run, Side, SideVerdict};
use super::requirement::{self, Requirement};
use super::{hgrm, html, json, table};

/// Shows a kept result again.
#[derive(Parser)]
#[command(name = "outpour bench report", bin_name = "outpour bench report")]
struct Report {
    /// A result that --json kept
    result: PathBuf,
    /// Write a page with pictures: one HTML file that needs nothing else
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the latencies as HdrHistogram's text, a file for each series
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// What has to hold for exit status 0: 'p99<50ms,lost=0'
    #[arg(long, value_name = "LIST", value_parser = requirements)]
    require: Option<Requirements>,
}

/// Sets results of the same scenario against each other: medians, spreads, ratios and a verdict. Two files are two
/// sides; of more files each server's are one side, unless --a and --b say otherwise.
#[derive(Parser)]
#[command(name = "outpour bench compare", bin_name = "outpour bench compare")]
struct Compare {
    /// Results that --json kept
    #[arg(required_unless_present = "a", conflicts_with_all = ["a", "b"])]
    results: Vec<PathBuf>,
    /// Runs of the first side
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "b")]
    a: Vec<PathBuf>,
    /// Runs of the second side
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "a")]
    b: Vec<PathBuf>,
}

#[derive(Clone)]
struct Requirements(Vec<Requirement>);

/// `words` are those after `report`.
pub fn report(words: &[OsString]) -> ExitCode {
    run("report", words, |asked: Report| {
        let results = read(&asked.result)?;
        if let Some(path) = &asked.report {
            keep(path, &html::page(&results))?;
        }
        if let (Some(path), Some(step)) = (&asked.hgrm, results.steps_that_count().last()) {
            for (path, text) in hgrm::files(step, path) {
                keep(&path, &text)?;
            }
        }
        io::stdout().write_all(table::text(&results).as_bytes())?;
        let required = asked
            .require
            .map_or_else(Vec::new, |Requirements(required)| required);
        let judgements = requirement::judge(&required, &results);
        for judgement in &judgements {
            eprintln!("{judgement}");
        }
        Ok(judgements.iter().all(|judgement| judgement.is_met))
    })
}

/// `words` are those after `compare`.
pub fn compare(words: &[OsString]) -> ExitCode {
    run("compare", words, |asked: Compare| {
        let sides = match asked.results.is_empty() {
            true => vec![side("A", &asked.a)?, side("B", &asked.b)?],
            false => compare::sides(runs(&asked.results)?),
        };
        if sides.len() < 2 {
            return Err(io::Error::other(
                "all results are of one side; --a and --b say which are of which",
            ));
        }
        let comparison = compare::compare(&sides);
        io::stdout().write_all(comparison.text.as_bytes())?;
        let mut verdicts = comparison.verdicts.iter();
        Ok(verdicts.any(|verdict| *verdict != SideVerdict::NotComparable))
    })
}

/// Parses, acts, and makes an exit status of what came of it.
fn run<Asked: Parser>(
    name: &str,
    words: &[OsString],
    act: impl FnOnce(Asked) -> io::Result<bool>,
) -> ExitCode {
    let line = std::iter::once(OsString::from(name)).chain(words.iter().cloned());
    let asked = match Asked::try_parse_from(line) {
        Ok(asked) => asked,
        Err(help_or_error) => help_or_error.exit(),
    };
    match act(asked) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("outpour bench {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn requirements(text: &str) -> Result<Requirements, requirement::RequirementError> {
    requirement::parse(text).map(Requirements)
}

fn side(name: &str, files: &[PathBuf]) -> io::Result<Side> {
    Ok(Side {
        name: name.to_owned(),
        runs: runs(files)?,
    })
}

fn runs(files: &[PathBuf]) -> io::Result<Vec<Run>> {
    let run = |file: &PathBuf| {
        Ok(Run {
            name: file.display().to_string(),
            results: read(file)?,
        })
    };
    files.iter().map(run).collect()
}

fn read(file: &Path) -> io::Result<Results> {
    let text = fs::read_to_string(file).map_err(|error| at(file, &error))?;
    json::read(&text).map_err(|error| at(file, &error))
}

fn keep(file: &Path, text: &str) -> io::Result<()> {
    fs::write(file, text).map_err(|error| at(file, &error))
}

fn at(file: &Path, error: &dyn Display) -> io::Error {
    io::Error::other(format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn clap_finds_no_fault() {
        Report::command().debug_assert();
        Compare::command().debug_assert();
    }

    #[test]
    fn sides_are_named_or_follow_from_the_files() {
        let parsed = |words: &[&str]| {
            Compare::try_parse_from(std::iter::once("compare").chain(words.iter().copied()))
        };
        let asked = parsed(&["--a", "1.json", "2.json", "--b", "3.json", "--b", "4.json"]).unwrap();
        assert_eq!((asked.a.len(), asked.b.len()), (2, 2));
        assert_eq!(
            parsed(&["1.json", "2.json", "3.json"])
                .unwrap()
                .results
                .len(),
            3
        );
        assert!(parsed(&[]).is_err());
        assert!(parsed(&["--a", "1.json"]).is_err());
        assert!(parsed(&["1.json", "--a", "2.json", "--b", "3.json"]).is_err());
    }

    #[test]
    fn a_requirement_that_is_none_is_refused_with_its_words() {
        let error = Report::try_parse_from(["report", "x.json", "--require", "p99<5"]);
        let words = error.err().expect("no unit").to_string();
        assert!(words.contains("p99 needs a unit: us, ms or s"), "{words}");
    }
}
