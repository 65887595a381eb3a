//! The command line of `outpour bench`: words and scenario file to a run, its results to files and
//! an exit status.
//!
//! ```text
//! outpour bench [SCENARIO] [FLAGS]          fanout if no scenario is named
//! outpour bench --scenario FILE.toml [FLAGS]
//! outpour bench report FILE.json, outpour bench compare FILE.json...
//! ```
//!
//! | exit status | meaning |
//! |---|---|
//! | 0 | measured, and what was required holds |
//! | 1 | the server broke its promise, a requirement does not hold, no knee was found, or nothing could be measured |
//! | 2 | a wrong command line or scenario file |
//! | 3 | invalid: the generator was saturated |

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::Value;

use super::report::requirement::{self, Judgement, Requirement};
use super::report::{self, hgrm, html, json, table, verdict};
use super::result::{self, Results, Verdict};
use super::scenario::file::ScenarioFile;
use super::scenario::settings::{LOAD, Output};
use super::scenario::{DEFAULTS, Scenario};

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_INVALID: u8 = 3;

/// What is run if no scenario is named.
const CANONICAL: &str = "fanout";
/// The flag of the scenario file.
const SCENARIO_FLAG: &str = "--scenario";

/// Measures a server under load. Without arguments: starts one on the first half of the cores, has
/// 10,000 clients subscribe to one channel, and finds the highest publish rate that keeps p99 of
/// deliveries under 100 ms.
#[derive(Parser)]
#[command(
    name = "outpour bench",
    bin_name = "outpour bench",
    disable_help_subcommand = true,
    override_usage = "outpour bench [SCENARIO] [FLAGS]\n       outpour bench --scenario FILE.toml [FLAGS]",
    after_help = "Every flag of a scenario is a key of a scenario file too, with _ for -; \
                  the key `scenario` names it: outpour bench --scenario FILE.toml"
)]
struct Line {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    #[command(flatten)]
    Scenario(Box<Scenario>),
    /// Show a result again that --json kept
    #[command(disable_help_flag = true)]
    Report(Words),
    /// Compare results that --json kept
    #[command(disable_help_flag = true)]
    Compare(Words),
}

/// Runs what the words after `outpour bench` ask for.
pub fn run(words: Vec<OsString>) -> ExitCode {
    let asked = match read(&words) {
        Ok(asked) => asked,
        Err(Refusal::Clap(error)) => error.exit(),
        Err(Refusal::Words(words)) => {
            eprintln!("outpour bench: {words}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let run = match asked {
        Asked::Run(run) => run,
        Asked::Report(words) => return report::command_line::report(&words),
        Asked::Compare(words) => return report::command_line::compare(&words),
    };
    let outcome = run
        .scenario
        .run(run.description, run.command_line)
        .and_then(|results| show(&run.scenario.common().output, &run.required, &results));
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("outpour bench: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// What kept results are wanted for; read by [`report::command_line`].
#[derive(Args)]
struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

enum Asked {
    Run(Box<Run>),
    Report(Vec<OsString>),
    Compare(Vec<OsString>),
}

/// A scenario to be run.
struct Run {
    scenario: Scenario,
    description: result::Scenario,
    command_line: Vec<String>,
    required: Vec<Requirement>,
}

enum Refusal {
    /// Help too; it knows where to print itself and which status to exit with.
    Clap(clap::Error),
    Words(String),
}

impl From<clap::Error> for Refusal {
    fn from(error: clap::Error) -> Refusal {
        Refusal::Clap(error)
    }
}

fn read(words: &[OsString]) -> Result<Asked, Refusal> {
    let mut command_line = vec!["outpour".to_owned(), "bench".to_owned()];
    let typed = words.iter().map(|word| word.to_string_lossy().into_owned());
    command_line.extend(typed);

    let (file, mut words) = take_file(words.to_vec())?;
    let named = words
        .first()
        .and_then(|word| word.to_str())
        .filter(|word| is_named(word))
        .map(str::to_owned);
    if named.is_some() {
        words.remove(0);
    } else if words.iter().any(|word| word == "--help" || word == "-h") {
        return Err(command()
            .try_get_matches_from(["outpour bench", "--help"])
            .err()
            .map_or_else(|| Refusal::Words("no help".to_owned()), Refusal::Clap));
    }
    let scenario = match (&file, named) {
        (None, named) => named.unwrap_or_else(|| CANONICAL.to_owned()),
        (Some((_, file)), named) => {
            let of_file = file.scenario.clone();
            if let (Some(named), Some(of_file)) = (&named, &of_file)
                && named != of_file
            {
                return Err(Refusal::Words(format!(
                    "the file is of scenario {of_file}, not {named}"
                )));
            }
            named.or(of_file).unwrap_or_else(|| CANONICAL.to_owned())
        }
    };
    let mut line: Vec<OsString> = vec!["outpour bench".into(), scenario.clone().into()];
    if let Some((path, file)) = &file {
        check_file(path, file, &scenario).map_err(Refusal::Words)?;
        line.extend(file.words().map(OsString::from));
    }
    line.extend(words);
    let matches = command().try_get_matches_from(line)?;
    let description = describe(&matches);
    let scenario = match Line::from_arg_matches(&matches)?.what {
        What::Scenario(scenario) => *scenario,
        What::Report(Words { words }) => return Ok(Asked::Report(words)),
        What::Compare(Words { words }) => return Ok(Asked::Compare(words)),
    };
    let required = match &scenario.common().output.require {
        Some(text) => requirement::parse(text)
            .map_err(|error| Refusal::Words(format!("--require: {error}")))?,
        None => Vec::new(),
    };
    Ok(Asked::Run(Box::new(Run {
        scenario,
        description,
        command_line,
        required,
    })))
}

/// The command with the defaults of each scenario; of a flag that is given twice the last wins, so
/// that what is typed wins over a file.
fn command() -> clap::Command {
    let mut command = Line::command();
    for (scenario, flag, value) in DEFAULTS {
        command = command.mut_subcommand(scenario, |scenario| {
            scenario.mut_arg(flag, |flag| flag.default_value(value))
        });
    }
    let names: Vec<String> = command
        .get_subcommands()
        .map(|scenario| scenario.get_name().to_owned())
        .collect();
    for name in names {
        command = command.mut_subcommand(name, |scenario| scenario.args_override_self(true));
    }
    command
}

fn is_named(word: &str) -> bool {
    What::has_subcommand(word)
}

fn is_scenario(word: &str) -> bool {
    Scenario::has_subcommand(word)
}

/// A scenario file, and where it is.
type File = (String, ScenarioFile);

/// Takes `--scenario FILE` or `--scenario=FILE` out of the words, and reads the file.
fn take_file(mut words: Vec<OsString>) -> Result<(Option<File>, Vec<OsString>), Refusal> {
    let place = words.iter().position(|word| {
        let word = word.to_string_lossy();
        word == SCENARIO_FLAG || word.starts_with(&format!("{SCENARIO_FLAG}="))
    });
    let Some(place) = place else {
        return Ok((None, words));
    };
    let word = words.remove(place).to_string_lossy().into_owned();
    let path = match word.split_once('=') {
        Some((_, path)) => path.to_owned(),
        None if place < words.len() => words.remove(place).to_string_lossy().into_owned(),
        None => return Err(Refusal::Words(format!("{SCENARIO_FLAG} takes a file"))),
    };
    let text =
        fs::read_to_string(&path).map_err(|error| Refusal::Words(format!("{path}: {error}")))?;
    let file =
        ScenarioFile::parse(&text).map_err(|error| Refusal::Words(format!("{path}: {error}")))?;
    Ok((Some((path, file)), words))
}

/// Each setting of a file by itself, so that an error names its key.
fn check_file(path: &str, file: &ScenarioFile, scenario: &str) -> Result<(), String> {
    if !is_scenario(scenario) {
        return Err(format!("{path}: there is no scenario `{scenario}`"));
    }
    for setting in &file.settings {
        let line = ["outpour bench", scenario].map(str::to_owned);
        let line = line.iter().chain(&setting.words);
        let Err(error) = command().try_get_matches_from(line) else {
            continue;
        };
        let key = &setting.key;
        return Err(match error.kind() {
            ErrorKind::UnknownArgument => {
                let near = match error.get(ContextKind::SuggestedArg) {
                    Some(ContextValue::String(flag)) => {
                        let name = flag.trim_start_matches('-').replace('-', "_");
                        format!("; is `{name}` meant?")
                    }
                    Some(_) | None => String::new(),
                };
                format!("{path}: `{key}` is no setting of {scenario}{near}")
            }
            _ => {
                let words = error.render().to_string();
                let first = words.lines().next().unwrap_or_default();
                format!("{path}: `{key}`: {}", first.trim_start_matches("error: "))
            }
        });
    }
    Ok(())
}

/// All that shapes the load, defaults included.
fn describe(matches: &ArgMatches) -> result::Scenario {
    let (name, matches) = matches.subcommand().expect("clap insists on a scenario");
    let command = command();
    let scenario = command
        .find_subcommand(name)
        .expect("clap knows what it found");
    let mut parameters = BTreeMap::new();
    for flag in scenario.get_arguments() {
        if flag.get_help_heading() != Some(LOAD) {
            continue;
        }
        let id = flag.get_id().as_str();
        let Ok(Some(values)) = matches.try_get_raw(id) else {
            continue;
        };
        let values: Vec<String> = values
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        parameters.insert(id.to_owned(), parameter(&values));
    }
    result::Scenario {
        name: name.to_owned(),
        parameters,
    }
}

fn parameter(values: &[String]) -> Value {
    let one = |text: &String| match text.parse::<u64>() {
        Ok(number) => Value::from(number),
        Err(_) => match text.parse::<f64>() {
            Ok(number) => Value::from(number),
            Err(_) => Value::from(text.clone()),
        },
    };
    match values {
        [value] => one(value),
        several => several.iter().map(one).collect(),
    }
}

/// Prints and keeps results; gives the exit status.
fn show(output: &Output, required: &[Requirement], results: &Results) -> io::Result<u8> {
    let is_json_printed = output.json.as_deref() == Some(Path::new("-"));
    let mut out = io::stdout().lock();
    if let Some(path) = &output.json {
        let text = json::write(results).map_err(io::Error::other)?;
        match is_json_printed {
            true => out.write_all(text.as_bytes())?,
            false => keep(path, &text)?,
        }
    }
    if !is_json_printed {
        out.write_all(table::text(results).as_bytes())?;
    }
    if let (Some(path), Some(step)) = (&output.hgrm, results.steps_that_count().last()) {
        for (path, text) in hgrm::files(step, path) {
            keep(&path, &text)?;
        }
    }
    if let Some(path) = &output.report {
        keep(path, &html::page(results))?;
    }
    let judgements = requirement::judge(required, results);
    for judgement in &judgements {
        eprintln!("{judgement}");
    }
    if is_json_printed && results.is_knee_missing() {
        eprintln!("{}", verdict::NO_KNEE);
    }
    Ok(status(results, &judgements))
}

/// The exit status, as the table above has it.
fn status(results: &Results, judgements: &[Judgement]) -> u8 {
    let is_met = judgements.iter().all(|judgement| judgement.is_met);
    match results.verdict {
        Verdict::Failed { .. } => EXIT_FAILED,
        Verdict::Invalid { .. } => EXIT_INVALID,
        Verdict::Valid if is_met && !results.is_knee_missing() => 0,
        Verdict::Valid => EXIT_FAILED,
    }
}

fn keep(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::result::samples;
    use crate::load::scenario::settings::Rate;

    fn asked(words: &[&str]) -> Run {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        match read(&words) {
            Ok(Asked::Run(run)) => *run,
            Ok(Asked::Report(_) | Asked::Compare(_)) => panic!("{words:?} runs nothing"),
            Err(Refusal::Clap(error)) => panic!("{error}"),
            Err(Refusal::Words(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn clap_finds_no_fault_with_the_flags() {
        command().debug_assert();
    }

    #[test]
    fn without_words_it_is_the_canonical_run() {
        let run = asked(&[]);
        let Scenario::Fanout(fanout) = run.scenario else {
            panic!("{:?}", run.scenario);
        };
        assert_eq!((fanout.load.channels, fanout.load.subscribers), (1, 10_000));
        assert_eq!(fanout.pace.rate, [Rate::Knee]);
        assert_eq!(fanout.search.p99_ms_max, 100.0);
        assert_eq!(fanout.common.target.target, None);
        assert_eq!(run.description.parameters["subscribers"], 10_000);
        assert_eq!(run.description.parameters["rate"], "knee");
        assert!(!run.description.parameters.contains_key("json"));
        assert_eq!(run.command_line, ["outpour", "bench"]);
    }

    #[test]
    fn a_scenario_has_defaults_of_its_own() {
        assert_eq!(
            asked(&["slow"]).description.parameters["subscribers"],
            2_000
        );
        let presence = asked(&["presence", "--subscribers", "7"])
            .description
            .parameters;
        assert_eq!(
            (&presence["channels"], &presence["subscribers"]),
            (&10.into(), &7.into())
        );
        let shares = &asked(&["latency"]).description.parameters["shares"];
        assert_eq!(shares.as_array().unwrap().len(), 6);
    }

    #[test]
    fn storms_say_how_many_are_on_their_way_at_once() {
        for scenario in ["connect", "idle"] {
            assert_eq!(asked(&[scenario]).description.parameters["at_once"], 512);
            let run = asked(&[scenario, "--at-once", "10000"]);
            assert_eq!(run.description.parameters["at_once"], 10_000);
            for wrong in ["0", "19001"] {
                let words = [scenario, "--at-once", wrong].map(OsString::from);
                assert!(matches!(read(&words), Err(Refusal::Clap(_))));
            }
        }
    }

    /// The exit status of results with a requirement.
    fn status_of(results: &Results, required: &str) -> u8 {
        let required = requirement::parse(required).unwrap();
        status(results, &requirement::judge(&required, results))
    }

    #[test]
    fn the_exit_status_says_whether_the_figures_stand_and_hold() {
        let mut results = samples::fanout();
        assert_eq!(status(&results, &[]), 0);
        assert_eq!(status_of(&results, "p99<100ms,lost=0"), 0);
        assert_eq!(status_of(&results, "p99<100ms,p99<1ms"), EXIT_FAILED);
        assert_eq!(status_of(&results, "handshakes>1"), EXIT_FAILED);
        results.verdict = Verdict::Invalid { why: Vec::new() };
        assert_eq!(status(&results, &[]), EXIT_INVALID);
        assert_eq!(status_of(&results, "p99<1ms"), EXIT_INVALID);
        results.verdict = Verdict::Failed {
            evidence: vec![samples::evidence()],
        };
        assert_eq!(status(&results, &[]), EXIT_FAILED);
        assert_eq!(status_of(&results, "p99<100ms"), EXIT_FAILED);
    }

    #[test]
    fn a_knee_that_was_looked_for_and_not_found_is_a_failure() {
        let parameters = |results: &mut Results, words: &[&str]| {
            results.scenario = asked(words).description;
        };
        let mut results = samples::fanout();
        for words in [
            &["fanout"][..],
            &["fanout", "--rate", "20,knee"],
            &["latency"],
        ] {
            parameters(&mut results, words);
            results.knee = Some(7);
            assert_eq!(status(&results, &[]), 0, "{words:?}");
            results.knee = None;
            assert_eq!(status(&results, &[]), EXIT_FAILED, "{words:?}");
            results.verdict = Verdict::Invalid { why: Vec::new() };
            assert_eq!(status(&results, &[]), EXIT_INVALID, "{words:?}");
            results.verdict = Verdict::Valid;
        }
        for words in [
            &["fanout", "--rate", "20"][..],
            &["latency", "--knee", "200"],
            &["connect"],
            &["slow"],
        ] {
            parameters(&mut results, words);
            assert_eq!(status(&results, &[]), 0, "{words:?}");
        }
    }

    #[test]
    fn attempts_that_failed_fail_a_run_that_requires_none() {
        let mut results = samples::connect();
        assert_eq!(status_of(&results, "failed=0"), 0);
        results.storms[0].failed = 1;
        assert_eq!(status(&results, &[]), 0);
        assert_eq!(status_of(&results, "failed=0"), EXIT_FAILED);
        let mut results = samples::fanout();
        results.steps[0].churn = Some(samples::churn());
        assert_eq!(status_of(&results, "failed=0"), EXIT_FAILED);
        assert_eq!(status_of(&results, "failed<=3"), 0);
    }

    #[test]
    fn words_about_kept_results_go_through() {
        let words = ["compare", "--a", "a.json", "--help"].map(OsString::from);
        assert!(matches!(read(&words), Ok(Asked::Compare(rest)) if rest == words[1..]));
        let words = ["report", "a.json"].map(OsString::from);
        assert!(matches!(read(&words), Ok(Asked::Report(rest)) if rest == words[1..]));
    }
}
