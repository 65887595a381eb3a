//! Thresholds: `--require 'p99<50ms,lost=0'` sets the exit code.
//!
//! ```text
//! requirements = requirement *("," requirement)
//! requirement  = figure ("<" / "<=" / ">" / ">=" / "=") number [unit]
//! figure       = a name of `figure::Figure::ALL`
//! unit         = "us" / "µs" / "ms" / "s"      for times, which need one
//!              / "B" / "KiB" / "MiB"           for memory
//!              / "k" / "M" / "G"               for counts and rates
//! ```

use std::fmt;

use crate::load::result::Results;

use super::figure::{Figure, Unit};
use super::verdict;

/// One threshold. Its limit is in the figure's own unit: microseconds, bytes, a second, or as counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Requirement {
    pub figure: &'static Figure,
    pub operator: Operator,
    pub limit: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
}

/// What a requirement came to in a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    pub requirement: Requirement,
    /// None where the run did not measure it, or says nothing because its generator was saturated.
    pub seen: Option<f64>,
    /// The generator set it: the server may do better.
    pub is_bound: bool,
    pub is_met: bool,
}

/// Why a text is no requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequirementError {
    NoOperator {
        text: String,
    },
    UnknownFigure {
        name: String,
        nearest: &'static str,
    },
    NoNumber {
        figure: &'static str,
        text: String,
    },
    /// A time without a unit, or a unit of something else.
    Unit {
        figure: &'static str,
        unit: String,
        accepted: &'static str,
    },
}

/// All requirements of a text. A part between commas that is empty is an error too: it was meant to be one.
pub fn parse(text: &str) -> Result<Vec<Requirement>, RequirementError> {
    text.split(',').map(|part| parse_one(part.trim())).collect()
}

/// A requirement on a figure that was not measured is not met.
pub fn judge(requirements: &[Requirement], results: &Results) -> Vec<Judgement> {
    let is_measured = verdict::is_measured(results);
    let judged = requirements.iter().map(|requirement| {
        let seen = requirement.figure.of(results).filter(|_| is_measured);
        Judgement {
            requirement: *requirement,
            seen,
            is_bound: requirement.figure.is_bound(results),
            is_met: seen.is_some_and(|seen| requirement.operator.holds(seen, requirement.limit)),
        }
    });
    judged.collect()
}

fn parse_one(text: &str) -> Result<Requirement, RequirementError> {
    let at = text
        .find(['<', '>', '='])
        .ok_or_else(|| RequirementError::NoOperator {
            text: text.to_owned(),
        })?;
    let (name, rest) = text.split_at(at);
    let name = name.trim_end();
    let figure = Figure::named(name).ok_or_else(|| RequirementError::UnknownFigure {
        name: name.to_owned(),
        nearest: nearest(name),
    })?;
    let (operator, value) = Operator::split_off(rest);
    Ok(Requirement {
        figure,
        operator,
        limit: parse_limit(figure, value.trim())?,
    })
}

fn parse_limit(figure: &'static Figure, text: &str) -> Result<f64, RequirementError> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: Option<f64> = digits.replace('_', "").parse().ok();
    let number =
        number
            .filter(|number| number.is_finite())
            .ok_or_else(|| RequirementError::NoNumber {
                figure: figure.name,
                text: text.to_owned(),
            })?;
    let unit = unit.trim();
    // Nothing is nothing in every unit.
    let is_bare_zero = unit.is_empty() && number == 0.0;
    let factor = if is_bare_zero {
        Some(1.0)
    } else {
        figure.unit.factor(unit)
    };
    let factor = factor.ok_or_else(|| RequirementError::Unit {
        figure: figure.name,
        unit: unit.to_owned(),
        accepted: figure.unit.accepted(),
    })?;
    Ok(number * factor)
}

fn nearest(name: &str) -> &'static str {
    let names = Figure::ALL.iter().map(|figure| figure.name);
    let nearest = names.max_by(|one, other| {
        strsim::jaro_winkler(name, one).total_cmp(&strsim::jaro_winkler(name, other))
    });
    nearest.expect("there are figures")
}

impl Unit {
    /// How many of the figure's own unit one of `unit` is.
    fn factor(self, unit: &str) -> Option<f64> {
        let factors: &[(&str, f64)] = match self {
            Unit::Time => &[("us", 1.0), ("µs", 1.0), ("ms", 1e3), ("s", 1e6)],
            Unit::Bytes => &[
                ("", 1.0),
                ("B", 1.0),
                ("KiB", 1_024.0),
                ("MiB", 1_048_576.0),
            ],
            Unit::Count | Unit::Rate => &[("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)],
        };
        factors
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor)
    }

    fn accepted(self) -> &'static str {
        match self {
            Unit::Time => "us, ms or s",
            Unit::Bytes => "B, KiB or MiB",
            Unit::Count | Unit::Rate => "none, k, M or G",
        }
    }
}

impl Operator {
    const ALL: [Operator; 5] = [
        // The longer first, so that `<=` is not taken for `<`.
        Operator::LessOrEqual,
        Operator::GreaterOrEqual,
        Operator::Less,
        Operator::Greater,
        Operator::Equal,
    ];

    fn split_off(text: &str) -> (Operator, &str) {
        let found = Operator::ALL.into_iter().find_map(|operator| {
            text.strip_prefix(operator.sign())
                .map(|rest| (operator, rest))
        });
        found.expect("the text begins with a sign")
    }

    pub fn sign(self) -> &'static str {
        match self {
            Operator::Less => "<",
            Operator::LessOrEqual => "<=",
            Operator::Greater => ">",
            Operator::GreaterOrEqual => ">=",
            Operator::Equal => "=",
        }
    }

    pub fn holds(self, seen: f64, limit: f64) -> bool {
        match self {
            Operator::Less => seen < limit,
            Operator::LessOrEqual => seen <= limit,
            Operator::Greater => seen > limit,
            Operator::GreaterOrEqual => seen >= limit,
            Operator::Equal => seen == limit,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.figure.text(self.limit);
        write!(f, "{} {} {limit}", self.figure.name, self.operator.sign())
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_met { "met" } else { "MISSED" };
        let seen = self.seen.map(|seen| self.requirement.figure.text(seen));
        let seen = seen.as_deref().unwrap_or("not measured");
        let whose = if self.is_bound && self.seen.is_some() {
            ", by the generator's limit: the server may do better"
        } else {
            ""
        };
        write!(f, "{}: {verdict} ({seen}{whose})", self.requirement)
    }
}

impl fmt::Display for RequirementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequirementError::NoOperator { text } => {
                write!(
                    f,
                    "`{text}` is no requirement: write one as p99<50ms, with <, <=, >, >= or ="
                )
            }
            RequirementError::UnknownFigure { name, nearest } => {
                let names: Vec<&str> = Figure::ALL.iter().map(|figure| figure.name).collect();
                write!(
                    f,
                    "no figure is called `{name}`; did you mean `{nearest}`? There are {}",
                    names.join(", ")
                )
            }
            RequirementError::NoNumber { figure, text } => {
                write!(f, "`{text}` is no number to compare {figure} with")
            }
            RequirementError::Unit {
                figure,
                unit,
                accepted,
            } if unit.is_empty() => {
                write!(f, "{figure} needs a unit: {accepted}")
            }
            RequirementError::Unit {
                figure,
                unit,
                accepted,
            } => {
                write!(f, "`{unit}` is no unit of {figure}: {accepted}")
            }
        }
    }
}

impl std::error::Error for RequirementError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::load::result::{Verdict, samples};

    proptest! {
        #[test]
        fn what_is_written_out_is_read(
            figure in prop::sample::select(Figure::ALL),
            operator in prop::sample::select(Operator::ALL.to_vec()),
            number in 0u32..1_000_000,
            unit in 0usize..3,
            space in prop::sample::select(vec!["", " "]),
        ) {
            let (unit, factor) = match figure.unit {
                Unit::Time => [("us", 1.0), ("ms", 1e3), ("s", 1e6)],
                Unit::Bytes => [("", 1.0), ("B", 1.0), ("KiB", 1_024.0)],
                Unit::Count | Unit::Rate => [("", 1.0), ("k", 1e3), ("M", 1e6)],
            }[unit];
            let text = format!("{}{space}{}{space}{number}{space}{unit}", figure.name, operator.sign());
            let expected = Requirement { figure: Figure::named(figure.name).unwrap(), operator, limit: f64::from(number) * factor };
            prop_assert_eq!(parse(&text).unwrap(), vec![expected]);
            prop_assert_eq!(parse(&format!("{text},{text}")).unwrap(), vec![expected; 2]);
        }

        #[test]
        fn no_text_is_a_panic(text in "[a-z0-9.<>=, µ%_-]{0,24}|\\PC{0,24}") {
            if let Err(error) = parse(&text) {
                prop_assert!(!error.to_string().is_empty());
            }
        }

        #[test]
        fn of_each_pair_of_opposites_one_holds(seen in 0u32..10, limit in 0u32..10) {
            let holds = |operator: Operator| operator.holds(f64::from(seen), f64::from(limit));
            prop_assert_ne!(holds(Operator::Less), holds(Operator::GreaterOrEqual));
            prop_assert_ne!(holds(Operator::Greater), holds(Operator::LessOrEqual));
            let is_within = holds(Operator::LessOrEqual) && holds(Operator::GreaterOrEqual);
            prop_assert_eq!(holds(Operator::Equal), is_within);
        }
    }

    #[test]
    fn errors_say_what_to_write() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(
            error("p99"),
            "`p99` is no requirement: write one as p99<50ms, with <, <=, >, >= or ="
        );
        assert!(
            error("pp99<5ms")
                .starts_with("no figure is called `pp99`; did you mean `p99`? There are rate,")
        );
        assert_eq!(error("p99<50"), "p99 needs a unit: us, ms or s");
        assert_eq!(error("p99<50m"), "`m` is no unit of p99: us, ms or s");
        assert_eq!(
            error("lost=0ms"),
            "`ms` is no unit of lost: none, k, M or G"
        );
        assert_eq!(
            error("lost=none"),
            "`none` is no number to compare lost with"
        );
        assert_eq!(error("lost==0"), "`=0` is no number to compare lost with");
        assert!(error("lost=0,").starts_with("`` is no requirement"));
    }

    #[test]
    fn a_requirement_that_the_generator_missed_says_so() {
        let mut results = samples::connect_at_the_limit();
        results.storms.remove(0);
        let requirements = parse("handshakes>20k,handshakes>10k,failed=0").unwrap();
        let told: Vec<String> = judge(&requirements, &results)
            .iter()
            .map(Judgement::to_string)
            .collect();
        let expected = [
            "handshakes > 20.0 k: MISSED (15.3 k, by the generator's limit: the server may do better)",
            "handshakes > 10.0 k: met (15.3 k, by the generator's limit: the server may do better)",
            "failed = 0: met (0)",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn requirements_are_judged_and_told() {
        let mut results = samples::fanout();
        let requirements = parse("p99<100ms,last.p99<=1ms,lost=0,rate>=1k,handshakes>0").unwrap();
        let told: Vec<String> = judge(&requirements, &results)
            .iter()
            .map(Judgement::to_string)
            .collect();
        let expected = [
            "p99 < 100 ms: met (70.5 ms)",
            "last.p99 <= 1.00 ms: MISSED (76.4 ms)",
            "lost = 0: met (0)",
            "rate >= 1,000: met (1,194)",
            "handshakes > 0: MISSED (not measured)",
        ];
        assert_eq!(told, expected);
        results.verdict = Verdict::Invalid { why: vec![] };
        assert!(
            judge(&requirements, &results)
                .iter()
                .all(|judgement| !judgement.is_met)
        );
    }
}
