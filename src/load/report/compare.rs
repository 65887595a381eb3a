//! `outpour bench compare`: runs of two sides and more, the same scenario against the same scenario.
//!
//! Each figure is the median of a side's runs with its lowest and highest. A difference counts where the two ranges
//! do not touch and the medians are further apart than [`DIFFERENCE_MIN`]; all else is noise. Figures that depend on
//! the load (latencies, CPU per delivery) are judged only where both sides had the same, and what the generator set on the
//! side that looks worse is not judged at all: that side may be the better one.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::load::result::{Results, Scenario, Verdict};

use super::figure::{Better, Figure, Unit};
use super::grid::{Column, grid};
use super::{numbers, table};

/// Medians that are closer than this are the same, however narrow their ranges.
const DIFFERENCE_MIN: f64 = 0.01;
/// What a verdict speaks of. The more figures are judged, the more of them differ by chance; the others are shown.
const TELLING: &[&str] = &[
    "rate",
    "deliveries",
    "cpu",
    "p50",
    "p99",
    "last.p99",
    "handshakes",
    "subscribed",
    "memory.server",
];
/// With fewer runs a side there is no spread to speak of.
const RUNS_MIN: usize = 2;
/// Offered loads that differ by less are the same.
const LOAD_DIFFERENCE_MAX: f64 = 0.001;

/// Runs that belong together: of one server, in one state.
#[derive(Clone, Debug)]
pub struct Side {
    pub name: String,
    pub runs: Vec<Run>,
}

#[derive(Clone, Debug)]
pub struct Run {
    /// The file's name.
    pub name: String,
    pub results: Results,
}

/// What a comparison came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// For the terminal, verdicts included.
    pub text: String,
    /// One for each scenario and side but the first, in the order of the text.
    pub verdicts: Vec<SideVerdict>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SideVerdict {
    Faster,
    Slower,
    /// Better in some figures and worse in others.
    Mixed,
    Same,
    /// Too few runs to tell from noise.
    Unknown,
    NotComparable,
}

/// Two files are two sides, `A` and `B`; of more files each server's are one side, in the order of their first.
pub fn sides(runs: Vec<Run>) -> Vec<Side> {
    let is_pair = runs.len() == 2;
    let mut sides: Vec<Side> = Vec::new();
    for run in runs {
        let name = match is_pair {
            true => ["A", "B"][sides.len()].to_owned(),
            false => run.results.target.name.clone(),
        };
        match sides.iter_mut().find(|side| side.name == name) {
            Some(side) => side.runs.push(run),
            None => sides.push(Side {
                name,
                runs: vec![run],
            }),
        }
    }
    sides
}

/// Each side against the first.
pub fn compare(sides: &[Side]) -> Comparison {
    let mut comparison = Comparison {
        text: String::new(),
        verdicts: Vec::new(),
    };
    let say = |comparison: &mut Comparison, line: &str| {
        writeln!(comparison.text, "{line}").expect("a string takes all");
    };
    for side in sides {
        let files: Vec<&str> = side.runs.iter().map(|run| run.name.as_str()).collect();
        let servers: BTreeSet<&str> = side
            .runs
            .iter()
            .map(|run| run.results.target.name.as_str())
            .collect();
        let servers: Vec<&str> = servers.into_iter().collect();
        say(
            &mut comparison,
            &format!(
                "{}  {} ({})",
                side.name,
                servers.join(", "),
                files.join(", ")
            ),
        );
    }
    let Some((first, others)) = sides.split_first() else {
        return comparison;
    };
    for scenario in scenarios(sides) {
        say(&mut comparison, "");
        say(&mut comparison, &format!("{}", Title(scenario)));
        for other in others {
            let (text, verdict) = pair(first, other, scenario);
            comparison.text.push_str(&text);
            comparison.verdicts.push(verdict);
        }
    }
    comparison
}

/// A scenario with its parameters.
struct Title<'a>(&'a Scenario);

impl std::fmt::Display for Title<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.name)?;
        for (index, (name, value)) in self.0.parameters.iter().enumerate() {
            let before = if index == 0 { ": " } else { ", " };
            write!(f, "{before}{name} {}", table::parameter(value))?;
        }
        Ok(())
    }
}

/// In the order in which they first occur.
fn scenarios(sides: &[Side]) -> Vec<&Scenario> {
    let mut scenarios: Vec<&Scenario> = Vec::new();
    for run in sides.iter().flat_map(|side| &side.runs) {
        if !scenarios.contains(&&run.results.scenario) {
            scenarios.push(&run.results.scenario);
        }
    }
    scenarios
}

fn pair(first: &Side, other: &Side, scenario: &Scenario) -> (String, SideVerdict) {
    let (one, another) = match (Rounds::of(first, scenario), Rounds::of(other, scenario)) {
        (Ok(one), Ok(another)) => (one, another),
        (Err(why), _) | (_, Err(why)) => {
            return (
                format!("not comparable: {why}\n"),
                SideVerdict::NotComparable,
            );
        }
    };
    let mut text = String::new();
    for remark in one.remarks.iter().chain(&another.remarks) {
        writeln!(text, "{remark}").expect("a string takes all");
    }
    let is_same_load = is_same_load(&one, &another);
    let rows: Vec<Row> = Figure::ALL
        .iter()
        .filter_map(|figure| Row::of(figure, &one, &another, is_same_load))
        .collect();
    text.push_str(&rows_text(first, other, &rows));
    let (sentence, verdict) = match difference_of_circumstances(&one, &another) {
        Some(why) => (format!("not comparable: {why}"), SideVerdict::NotComparable),
        None => judge(&other.name, &rows, one.runs.len(), another.runs.len()),
    };
    writeln!(text, "{sentence}").expect("a string takes all");
    (text, verdict)
}

/// The runs of a side that count, and what has to be said about the others.
struct Rounds<'a> {
    runs: Vec<&'a Results>,
    remarks: Vec<String>,
}

impl<'a> Rounds<'a> {
    fn of(side: &'a Side, scenario: &Scenario) -> Result<Rounds<'a>, String> {
        let mut rounds = Rounds {
            runs: Vec::new(),
            remarks: Vec::new(),
        };
        for run in side
            .runs
            .iter()
            .filter(|run| run.results.scenario == *scenario)
        {
            match &run.results.verdict {
                Verdict::Valid => rounds.runs.push(&run.results),
                Verdict::Invalid { .. } => rounds.remarks.push(format!(
                    "{} of {} is left out: its generator was saturated",
                    run.name, side.name
                )),
                Verdict::Failed { .. } => {
                    return Err(format!(
                        "{} of {} failed: what breaks its promise has no speed",
                        run.name, side.name
                    ));
                }
            }
        }
        match rounds.runs.is_empty() {
            true if rounds.remarks.is_empty() => {
                Err(format!("{} has no run of this scenario", side.name))
            }
            true => Err(format!("{} has no valid run of this scenario", side.name)),
            false => Ok(rounds),
        }
    }
}

/// Median, lowest and highest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    lowest: f64,
    highest: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            count if count % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Spread {
            median,
            lowest: values[0],
            highest: values[values.len() - 1],
        })
    }

    fn touches(&self, other: &Spread) -> bool {
        self.lowest <= other.highest && other.lowest <= self.highest
    }

    fn text(&self, figure: &Figure) -> String {
        let median = figure.text(self.median);
        match self.lowest == self.highest {
            true => median,
            false => format!(
                "{median} ({}..{})",
                figure.text(self.lowest),
                figure.text(self.highest)
            ),
        }
    }
}

struct Row {
    figure: &'static Figure,
    one: Spread,
    another: Spread,
    /// Why a difference would say nothing, if so.
    not_judged: Option<&'static str>,
}

impl Row {
    /// None where neither side has the figure, or both have nothing to count.
    fn of(
        figure: &'static Figure,
        one: &Rounds<'_>,
        another: &Rounds<'_>,
        is_same_load: bool,
    ) -> Option<Row> {
        let spread = |rounds: &Rounds<'_>| {
            Spread::of(
                rounds
                    .runs
                    .iter()
                    .filter_map(|results| figure.of(results))
                    .collect(),
            )
        };
        let is_bound = |rounds: &Rounds<'_>| {
            let mut runs = rounds.runs.iter();
            runs.any(|results| figure.is_bound(results))
        };
        let bounds = (is_bound(one), is_bound(another));
        let (one, another) = (spread(one)?, spread(another)?);
        let is_nothing = figure.unit == Unit::Count && one.highest == 0.0 && another.highest == 0.0;
        let is_one_worse = (one.median < another.median) == (figure.better == Better::Higher);
        let is_worse_bound = if is_one_worse { bounds.0 } else { bounds.1 };
        let not_judged = if !is_same_load && figure.depends_on_load() {
            Some("under another load")
        } else {
            is_worse_bound.then_some("the generator's limit")
        };
        (!is_nothing).then_some(Row {
            figure,
            one,
            another,
            not_judged,
        })
    }

    fn ratio(&self) -> Option<f64> {
        (self.one.median != 0.0).then(|| self.another.median / self.one.median)
    }

    /// Whether the other side is better, where there is a difference at all.
    fn is_better(&self) -> Option<bool> {
        let is_apart = self
            .ratio()
            .is_none_or(|ratio| (ratio - 1.0).abs() >= DIFFERENCE_MIN);
        if !is_apart || self.one.touches(&self.another) {
            return None;
        }
        let is_lower = self.another.median < self.one.median;
        Some(is_lower == (self.figure.better == Better::Lower))
    }

    /// `CPU per delivery 12 % lower`.
    fn difference(&self) -> String {
        let way = if self.another.median < self.one.median {
            "lower"
        } else {
            "higher"
        };
        match self.ratio() {
            Some(ratio) if ratio >= 2.0 => format!(
                "{} {} times as high",
                self.figure.title,
                numbers::decimal(ratio)
            ),
            Some(ratio) => {
                let percent = (ratio - 1.0).abs() * 100.0;
                format!("{} {percent:.0} % {way}", self.figure.title)
            }
            None => format!(
                "{} {} instead of 0",
                self.figure.title,
                self.figure.text(self.another.median)
            ),
        }
    }
}

fn rows_text(first: &Side, other: &Side, rows: &[Row]) -> String {
    let columns = [
        Column::Words("figure"),
        Column::Numbers(&first.name),
        Column::Numbers(&other.name),
        Column::Numbers("ratio"),
        Column::Words(""),
    ];
    let rows = rows.iter().map(|row| {
        let mark = match (row.not_judged, row.is_better()) {
            (Some(why), _) => why,
            (None, Some(true)) => "better",
            (None, Some(false)) => "worse",
            (None, None) => "",
        };
        vec![
            row.figure.title.to_owned(),
            row.one.text(row.figure),
            row.another.text(row.figure),
            row.ratio()
                .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            mark.to_owned(),
        ]
    });
    grid(&columns, rows.collect())
}

/// Whether all runs offered the same loads in the steps that count.
fn is_same_load(one: &Rounds<'_>, another: &Rounds<'_>) -> bool {
    let loads = |results: &Results| -> Vec<Option<f64>> {
        results
            .steps_that_count()
            .iter()
            .map(|step| step.offered_per_s)
            .collect()
    };
    let same = |one: &Option<f64>, another: &Option<f64>| match (one, another) {
        (Some(one), Some(another)) => (one - another).abs() <= LOAD_DIFFERENCE_MAX * one.abs(),
        // Flat out is whatever the server makes of it.
        (None, _) | (_, None) => false,
    };
    let first = loads(one.runs[0]);
    one.runs.iter().chain(&another.runs).all(|results| {
        let loads = loads(results);
        loads.len() == first.len()
            && loads
                .iter()
                .zip(&first)
                .all(|(load, first)| same(first, load))
    })
}

/// What makes figures of two sides mean different things.
fn difference_of_circumstances(one: &Rounds<'_>, another: &Rounds<'_>) -> Option<String> {
    let first = one.runs[0];
    one.runs.iter().chain(&another.runs).find_map(|results| {
        let (a, b) = (&first.machine, &results.machine);
        if (&a.cpu_model, a.cores) != (&b.cpu_model, b.cores) {
            return Some(format!(
                "measured on different machines ({} x {}, {} x {})",
                a.cores, a.cpu_model, b.cores, b.cpu_model
            ));
        }
        if a.kernel != b.kernel {
            return Some(format!(
                "measured on different kernels ({}, {})",
                a.kernel, b.kernel
            ));
        }
        (first.network != results.network).then(|| {
            format!(
                "measured over different networks ({}, {})",
                first.network.name(),
                results.network.name()
            )
        })
    })
}

fn judge(other: &str, rows: &[Row], runs: usize, other_runs: usize) -> (String, SideVerdict) {
    let apart = |wanted: bool| -> Vec<String> {
        let telling = rows.iter().filter(|row| TELLING.contains(&row.figure.name));
        let rows =
            telling.filter(|row| row.not_judged.is_none() && row.is_better() == Some(wanted));
        rows.map(Row::difference).collect()
    };
    let (better, worse) = (apart(true), apart(false));
    if runs < RUNS_MIN || other_runs < RUNS_MIN {
        let seen: Vec<String> = better.into_iter().chain(worse).collect();
        let seen = match seen.is_empty() {
            true => "no difference was seen".to_owned(),
            false => format!("{other} showed {}", seen.join(", ")),
        };
        return (
            format!(
                "no verdict: one run shows no spread, take three of each side and more; {seen}"
            ),
            SideVerdict::Unknown,
        );
    }
    let (sentence, verdict) = match (better.is_empty(), worse.is_empty()) {
        (true, true) => {
            let sentence = "no difference beyond the spread".to_owned();
            return (sentence, SideVerdict::Same);
        }
        (false, true) => (
            format!("{other} is faster: {}", better.join(", ")),
            SideVerdict::Faster,
        ),
        (true, false) => (
            format!("{other} is slower: {}", worse.join(", ")),
            SideVerdict::Slower,
        ),
        (false, false) => (
            format!(
                "{other} is better in some and worse in others: {}; {}",
                better.join(", "),
                worse.join(", ")
            ),
            SideVerdict::Mixed,
        ),
    };
    let chance = chance(runs, other_runs);
    (format!("{chance}\n{sentence}, beyond the spread"), verdict)
}

/// How often the ranges of two sides that do not differ lie apart: in 2 of all the orders of their runs.
fn chance(runs: usize, other_runs: usize) -> String {
    let mut orders = 1.0;
    for index in 1..=other_runs {
        orders *= (runs + index) as f64 / index as f64;
    }
    format!(
        "of figures that do not differ, {runs} and {other_runs} runs tell one in {} apart by chance",
        numbers::count((orders / 2.0_f64).round() as u64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::result::{Network, samples};

    fn side(name: &str, factors: &[f64]) -> Side {
        let runs = factors.iter().enumerate().map(|(round, factor)| Run {
            name: format!("{name}{round}.json"),
            results: samples::fanout_times(*factor),
        });
        Side {
            name: name.to_owned(),
            runs: runs.collect(),
        }
    }

    fn last_line(comparison: &Comparison) -> &str {
        comparison
            .text
            .lines()
            .last()
            .expect("a comparison has lines")
    }

    #[test]
    fn a_side_that_is_faster_beyond_the_spread_is_told_by_how_much() {
        let comparison = compare(&[
            side("A", &[1.0, 1.02, 0.99]),
            side("B", &[0.85, 0.88, 0.89]),
        ]);
        let expected = "\
A  outpour 0.1.0 (A0.json, A1.json, A2.json)
B  outpour 0.1.0 (B0.json, B1.json, B2.json)

fanout: channels 1, data_bytes 128, p99_ms_max 100, publishers http, subscribers 10,000
figure                                             A                              B  ratio
───────────────────────────────────────────────────────────────────────────────────────────────────
messages a second                              1,194                          1,194   1.00
deliveries a second          11.9 M (11.7 M..12.1 M)        13.6 M (13.4 M..14.0 M)   1.14  better
CPU per delivery       0.097 µs (0.096 µs..0.099 µs)  0.085 µs (0.082 µs..0.086 µs)   0.88  better
delivery p50              31.1 ms (30.8 ms..31.7 ms)     27.4 ms (26.4 ms..27.7 ms)   0.88  better
delivery p90              57.3 ms (56.8 ms..58.5 ms)     50.5 ms (48.8 ms..51.0 ms)   0.88  better
delivery p99              70.5 ms (69.8 ms..72.0 ms)     62.1 ms (60.0 ms..62.8 ms)   0.88  better
delivery p99.9            71.7 ms (71.0 ms..73.2 ms)     63.1 ms (60.9 ms..63.8 ms)   0.88  better
delivery p99.99           93.1 ms (92.2 ms..95.0 ms)     81.9 ms (79.1 ms..82.9 ms)   0.88  better
delivery longest             114 ms (113 ms..117 ms)       101 ms (97.3 ms..102 ms)   0.88  better
first subscriber p50                          723 µs                         723 µs   1.00
first subscriber p99                          823 µs                         823 µs   1.00
median subscriber p50                        33.2 ms                        33.2 ms   1.00
median subscriber p99                        38.2 ms                        38.2 ms   1.00
last subscriber p50                          66.4 ms                        66.4 ms   1.00
last subscriber p99                          76.4 ms                        76.4 ms   1.00
generator's slip p99                          415 µs                         415 µs   1.00
of figures that do not differ, 3 and 3 runs tell one in 10 apart by chance
B is faster: deliveries a second 14 % higher, CPU per delivery 12 % lower, delivery p50 12 % lower, delivery p99 12 % lower, beyond the spread
";
        assert_eq!(comparison.text, expected);
        assert_eq!(comparison.verdicts, [SideVerdict::Faster]);
    }

    #[test]
    fn ranges_that_touch_are_no_difference() {
        let comparison = compare(&[side("A", &[1.0, 1.1]), side("B", &[0.8, 1.05])]);
        assert_eq!(last_line(&comparison), "no difference beyond the spread");
        assert_eq!(comparison.verdicts, [SideVerdict::Same]);
        let comparison = compare(&[side("A", &[1.0, 1.0]), side("B", &[1.005, 1.005])]);
        assert_eq!(comparison.verdicts, [SideVerdict::Same]);
        let comparison = compare(&[side("A", &[1.0, 1.01]), side("B", &[1.3, 1.4])]);
        assert_eq!(comparison.verdicts, [SideVerdict::Slower]);
    }

    #[test]
    fn two_single_runs_are_shown_and_not_judged() {
        let runs = [side("x", &[1.0]), side("y", &[0.5])].map(|side| side.runs[0].clone());
        let sides = sides(runs.to_vec());
        assert_eq!(
            sides
                .iter()
                .map(|side| side.name.as_str())
                .collect::<Vec<_>>(),
            ["A", "B"]
        );
        let comparison = compare(&sides);
        assert_eq!(comparison.verdicts, [SideVerdict::Unknown]);
        let text = last_line(&comparison);
        assert!(
            text.starts_with("no verdict: one run shows no spread"),
            "{text}"
        );
        assert!(
            text.contains(
                "B showed deliveries a second 2.00 times as high, CPU per delivery 50 % lower, delivery p50 50 % lower"
            ),
            "{text}"
        );
    }

    #[test]
    fn latencies_under_different_loads_are_not_judged() {
        let (one, mut another) = (side("A", &[1.0, 1.0]), side("B", &[0.8, 0.8]));
        for run in &mut another.runs {
            let knee = run.results.knee.unwrap();
            run.results.steps[knee].offered_per_s = Some(1_500.0);
        }
        let comparison = compare(&[one, another]);
        let text = last_line(&comparison);
        assert!(
            text.starts_with("B is faster: deliveries a second 25 % higher, beyond the spread"),
            "{text}"
        );
        assert!(
            comparison.text.contains("under another load"),
            "{}",
            comparison.text
        );
    }

    #[test]
    fn a_rate_is_not_judged_where_the_generator_set_the_worse_one() {
        let side = |name: &str, ms: f64, busy: f64| {
            let runs = [0.99, 1.0, 1.01].map(|factor| {
                let mut results = samples::connect();
                for storm in &mut results.storms {
                    storm.handshakes_per_s = 1e7 / (ms * factor);
                    storm.all_subscribed_ms = ms * factor;
                    storm.generator_busy_share = Some(busy);
                }
                Run {
                    name: format!("{name}.json"),
                    results,
                }
            });
            Side {
                name: name.to_owned(),
                runs: runs.to_vec(),
            }
        };
        let slow_bound = compare(&[side("A", 800.0, 0.97), side("B", 600.0, 0.5)]);
        assert_eq!(slow_bound.verdicts, [SideVerdict::Same]);
        assert!(slow_bound.text.contains("the generator's limit"));
        let both_bound = compare(&[side("A", 600.0, 0.97), side("B", 800.0, 0.98)]);
        assert_eq!(both_bound.verdicts, [SideVerdict::Same]);
        // The slower is the server's own, and the faster is at least so fast.
        let fast_bound = compare(&[side("A", 800.0, 0.5), side("B", 600.0, 0.97)]);
        assert_eq!(fast_bound.verdicts, [SideVerdict::Faster]);
    }

    #[test]
    fn what_cannot_be_compared_is_not() {
        let one = side("A", &[1.0, 1.0]);
        let because = |change: &dyn Fn(&mut Results)| {
            let mut another = side("B", &[0.5, 0.5]);
            for run in &mut another.runs {
                change(&mut run.results);
            }
            let comparison = compare(&[one.clone(), another]);
            assert!(
                comparison.verdicts.contains(&SideVerdict::NotComparable),
                "{}",
                comparison.text
            );
            last_line(&comparison).to_owned()
        };
        assert_eq!(
            because(&|results| results.network = Network::Remote),
            "not comparable: measured over different networks (loopback, network)"
        );
        assert_eq!(
            because(&|results| results.machine.cores = 64),
            "not comparable: measured on different machines (2 x AMD EPYC, 64 x AMD EPYC)"
        );
        assert_eq!(
            because(&|results| results.scenario.name = "slow".to_owned()),
            "not comparable: A has no run of this scenario"
        );
        assert_eq!(
            because(&|results| results.verdict = Verdict::Failed {
                evidence: Vec::new()
            }),
            "not comparable: B0.json of B failed: what breaks its promise has no speed"
        );
        assert_eq!(
            because(&|results| results.verdict = Verdict::Invalid { why: Vec::new() }),
            "not comparable: B has no valid run of this scenario"
        );
    }

    #[test]
    fn a_run_that_is_invalid_is_left_out_and_named() {
        let mut another = side("B", &[0.5, 0.5, 7.0]);
        another.runs[2].results.verdict = Verdict::Invalid { why: Vec::new() };
        let comparison = compare(&[side("A", &[1.0, 1.0]), another]);
        assert!(
            comparison.text.contains("B2.json of B is left out"),
            "{}",
            comparison.text
        );
        assert_eq!(comparison.verdicts, [SideVerdict::Faster]);
    }

    #[test]
    fn of_more_files_each_server_is_a_side() {
        let mut runs = side("x", &[1.0, 1.1, 0.5, 0.6]).runs;
        for run in &mut runs[2..] {
            run.results.target.name = "other".to_owned();
        }
        let sides = sides(runs);
        let sizes: Vec<(&str, usize)> = sides
            .iter()
            .map(|side| (side.name.as_str(), side.runs.len()))
            .collect();
        assert_eq!(sizes, [("outpour 0.1.0", 2), ("other", 2)]);
    }

    #[test]
    fn sides_that_do_not_differ_lie_apart_by_chance_in_two_of_their_orders() {
        // 3 and 3 runs have 20 orders, 1 and 1 have 2: always apart.
        assert!(chance(3, 3).contains("one in 10 "));
        assert!(chance(2, 2).contains("one in 3 "));
        assert!(chance(5, 5).contains("one in 126 "));
    }
}
