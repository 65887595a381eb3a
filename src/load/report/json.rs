//! The file that holds a result whole: `--json FILE` writes it, `outpour bench compare` reads it.

use std::fmt;

use serde::Deserialize;

use crate::load::result::{FORMAT, Results};

/// How many connections of a storm were on their way at once before that could be told. Stated in what is read, so that it
/// compares with a storm of today.
const AT_ONCE_BEFORE_IT_WAS_TOLD: u64 = 512;
const SCENARIOS_OF_STORMS: [&str; 2] = ["connect", "idle"];

/// Why a text is not a result that this version reads.
#[derive(Debug)]
pub enum ReadError {
    /// Not JSON, or not of a result.
    Malformed(serde_json::Error),
    /// Of another version.
    Format(u32),
    /// Of a result, and with a figure that has no meaning.
    Inconsistent(&'static str),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Malformed(error) => write!(f, "not a result of outpour bench: {error}"),
            ReadError::Format(format) => write!(
                f,
                "a result in format {format}; this version of outpour reads format {FORMAT}"
            ),
            ReadError::Inconsistent(what) => write!(f, "not a result of outpour bench: {what}"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Indented, since people look into it too, with a newline at the end.
///
/// Errors: a floating-point figure that is no number, which JSON cannot say.
pub fn write(results: &Results) -> Result<String, ReadError> {
    let mut text = serde_json::to_string_pretty(results).map_err(ReadError::Malformed)?;
    // serde_json writes `null` for a float that is no number; a file that nobody can read is no file.
    read(&text)?;
    text.push('\n');
    Ok(text)
}

pub fn read(text: &str) -> Result<Results, ReadError> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    // The version first: what another version calls a field is unknown here.
    let Versioned { format } = serde_json::from_str(text).map_err(ReadError::Malformed)?;
    if format != FORMAT {
        return Err(ReadError::Format(format));
    }
    let mut results: Results = serde_json::from_str(text).map_err(ReadError::Malformed)?;
    if SCENARIOS_OF_STORMS.contains(&results.scenario.name.as_str()) {
        let parameters = &mut results.scenario.parameters;
        let at_once = parameters.entry("at_once".to_owned());
        at_once.or_insert_with(|| AT_ONCE_BEFORE_IT_WAS_TOLD.into());
    }
    let marked = [results.knee, results.sustained];
    if marked
        .iter()
        .flatten()
        .any(|step| *step >= results.steps.len())
    {
        return Err(ReadError::Inconsistent("the knee is no step of it"));
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::result::samples;
    use crate::load::result::{Outcome, StepKind, Verdict};

    #[test]
    fn what_is_written_is_read_again() {
        let mut failed = samples::fanout();
        failed.verdict = Verdict::Failed {
            evidence: vec![samples::evidence()],
        };
        failed.steps[0].outcome = Outcome::Invalid {
            why: "late".to_owned(),
        };
        failed.steps[1].kind = StepKind::Share { of_knee: 0.95 };
        failed.steps[2].server = None;
        for results in [
            samples::fanout(),
            samples::connect(),
            samples::idle(),
            failed,
        ] {
            assert_eq!(read(&write(&results).unwrap()).unwrap(), results);
        }
    }

    #[test]
    fn a_result_that_was_kept_is_read() {
        let kept = include_str!("../../../tests/clients/result.json");
        let results = read(kept).unwrap();
        assert_eq!(
            (results.steps.len(), results.storms.len(), results.knee),
            (5, 2, Some(4))
        );
    }

    #[test]
    fn a_result_of_a_version_that_watched_less_is_read() {
        // It was written before a run watched its storms, and before it told who ended a search.
        let kept = include_str!("../../../tests/clients/result.json");
        for later in ["generator_busy_share", "is_lower_bound"] {
            assert!(!kept.contains(later));
        }
        let results = read(kept).unwrap();
        assert!(!results.knee_is_lower_bound && !results.sustained_is_lower_bound);
        assert!(!results.storms.is_empty());
        for storm in &results.storms {
            assert_eq!(storm.generator_busy_share, None);
            assert!(!storm.is_lower_bound());
        }
    }

    #[test]
    fn a_storm_of_a_version_that_did_not_say_how_many_came_at_once_had_512() {
        for (mut results, told) in [(samples::connect(), 10_000), (samples::idle(), 512)] {
            let parameters = &mut results.scenario.parameters;
            parameters.insert("at_once".to_owned(), told.into());
            assert_eq!(read(&write(&results).unwrap()).unwrap(), results);
            results.scenario.parameters.remove("at_once");
            let read = read(&write(&results).unwrap()).unwrap();
            assert_eq!(read.scenario.parameters["at_once"], 512);
        }
        let fanout = read(&write(&samples::fanout()).unwrap()).unwrap();
        assert!(!fanout.scenario.parameters.contains_key("at_once"));
    }

    #[test]
    fn another_format_is_named_and_an_unknown_field_refused() {
        let text = write(&samples::idle()).unwrap();
        let later = text.replace("\"format\": 1", "\"format\": 2");
        let error = read(&later).unwrap_err().to_string();
        assert!(
            error.contains("format 2") && error.contains("reads format 1"),
            "{error}"
        );
        let stranger = text.replacen("\"kernel\"", "\"colour\": 1, \"kernel\"", 1);
        let error = read(&stranger).unwrap_err().to_string();
        assert!(error.contains("unknown field `colour`"), "{error}");
    }

    #[test]
    fn a_knee_that_is_no_step_is_refused() {
        let text = write(&samples::fanout()).unwrap();
        assert!(read(&text.replace("\"knee\": 7", "\"knee\": 8")).is_err());
    }

    #[test]
    fn a_figure_that_is_no_number_is_not_written() {
        let mut results = samples::fanout();
        results.steps[0].deliveries_per_s = f64::NAN;
        assert!(write(&results).is_err());
    }
}
