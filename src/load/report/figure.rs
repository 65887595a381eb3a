//! The figures that can be named: in `--require`, and one to a row in a comparison.
//!
//! A figure speaks of the run's knee, or, where none was looked for, of the worst of its steps. Disorder is summed
//! over all steps: an order that breaks beyond the knee is broken too. So are attempts that failed.
//!
//! A figure that the generator set and not the server is a bound ([`Figure::is_bound`]): the server may do better.

use crate::load::result::{LatencyHistogram, Memory, Results, Step, Storm};

use super::numbers;

#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// As it is typed: `p99`, `last.p99`, `lost`.
    pub name: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    pub unit: Unit,
    pub better: Better,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Values are in microseconds.
    Time,
    Count,
    /// Events a second.
    Rate,
    Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Lower,
    Higher,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Quantile(Series, f64),
    OfStep(fn(&Step) -> Option<f64>),
    OfRun(fn(&Results) -> Option<f64>),
    OfStorm(fn(&Storm) -> f64),
    OfMemory(fn(&Memory) -> Option<f64>),
}

/// The latencies that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    Delivery,
    First,
    Median,
    Last,
    Slip,
}

impl Series {
    pub fn of(self, step: &Step) -> &LatencyHistogram {
        match self {
            Series::Delivery => &step.latency.delivery,
            Series::First => &step.latency.first,
            Series::Median => &step.latency.median,
            Series::Last => &step.latency.last,
            Series::Slip => &step.slip,
        }
    }
}

impl Figure {
    /// The most telling ones first.
    pub const ALL: &[Figure] = &[
        step(
            "rate",
            "messages a second",
            Unit::Rate,
            Better::Higher,
            |step| Some(step.accepted as f64 / step.lasted_s).filter(|rate| rate.is_finite()),
        ),
        step(
            "deliveries",
            "deliveries a second",
            Unit::Rate,
            Better::Higher,
            |step| Some(step.deliveries_per_s),
        ),
        step(
            "cpu",
            "CPU per delivery",
            Unit::Time,
            Better::Lower,
            |step| {
                step.server
                    .as_ref()
                    .map(|server| server.cpu_us_per_delivery)
            },
        ),
        quantile("p50", "delivery p50", Series::Delivery, 0.5),
        quantile("p90", "delivery p90", Series::Delivery, 0.9),
        quantile("p99", "delivery p99", Series::Delivery, 0.99),
        quantile("p99.9", "delivery p99.9", Series::Delivery, 0.999),
        quantile("p99.99", "delivery p99.99", Series::Delivery, 0.9999),
        quantile("max", "delivery longest", Series::Delivery, 1.0),
        quantile("first.p50", "first subscriber p50", Series::First, 0.5),
        quantile("first.p99", "first subscriber p99", Series::First, 0.99),
        quantile("median.p50", "median subscriber p50", Series::Median, 0.5),
        quantile("median.p99", "median subscriber p99", Series::Median, 0.99),
        quantile("last.p50", "last subscriber p50", Series::Last, 0.5),
        quantile("last.p99", "last subscriber p99", Series::Last, 0.99),
        quantile("slip.p99", "generator's slip p99", Series::Slip, 0.99),
        run("lost", "lost", |results| disorder(results, 0)),
        run("repeated", "repeated", |results| disorder(results, 1)),
        run("reordered", "reordered", |results| disorder(results, 2)),
        run("unannounced", "gaps not announced", |results| {
            disorder(results, 3)
        }),
        run("garbled", "garbled", |results| disorder(results, 4)),
        run("closed", "connections ended by the server", |results| {
            disorder(results, 5)
        }),
        step(
            "refused",
            "publishes refused",
            Unit::Count,
            Better::Lower,
            |step| Some(step.refused as f64),
        ),
        storm(
            "handshakes",
            "handshakes a second",
            Unit::Rate,
            Better::Higher,
            |storm| storm.handshakes_per_s,
        ),
        storm(
            "subscribed",
            "time to all subscribed",
            Unit::Time,
            Better::Lower,
            |storm| storm.all_subscribed_ms * 1e3,
        ),
        run("failed", "attempts of clients that failed", |results| {
            results.failed_attempts().map(|failed| failed as f64)
        }),
        memory("memory.server", "server's memory a connection", |memory| {
            memory.server_bytes_per_connection
        }),
        memory(
            "memory.generator",
            "generator's memory a connection",
            |memory| Some(memory.generator_bytes_per_connection),
        ),
        memory("memory.kernel", "kernel's slab a connection", |memory| {
            memory.kernel_slab_bytes_per_connection
        }),
    ];

    pub fn named(name: &str) -> Option<&'static Figure> {
        Figure::ALL.iter().find(|figure| figure.name == name)
    }

    /// Its value in a run; none where the run did not measure it.
    pub fn of(&self, results: &Results) -> Option<f64> {
        match self.source {
            Source::Quantile(series, quantile) => self.worst(
                results
                    .steps_that_count()
                    .iter()
                    .filter_map(|step| series.of(step).quantile_us(quantile).map(|us| us as f64)),
            ),
            Source::OfStep(value) => {
                self.worst(results.steps_that_count().iter().filter_map(value))
            }
            Source::OfRun(value) => value(results),
            Source::OfStorm(value) => self.worst(results.storms.iter().map(value)),
            Source::OfMemory(value) => results.memory.as_ref().and_then(value),
        }
    }

    /// Whether its value in a run is the best that the generator could get, and perhaps not the server's best.
    pub fn is_bound(&self, results: &Results) -> bool {
        match self.source {
            Source::OfStep(_) => {
                self.unit == Unit::Rate && results.knee.is_some() && results.knee_is_lower_bound
            }
            Source::OfStorm(value) => {
                let storms = results.storms.iter();
                let mut bounds = storms.filter(|storm| storm.is_lower_bound()).map(value);
                let worst = self.of(results);
                bounds.any(|bound| Some(bound) == worst)
            }
            Source::Quantile(..) | Source::OfRun(_) | Source::OfMemory(_) => false,
        }
    }

    /// Its value in a run with its unit, and a sign where that is a bound; none where the run did not measure it.
    pub fn text_of(&self, results: &Results) -> Option<String> {
        let text = self.text(self.of(results)?);
        Some(match (self.is_bound(results), self.better) {
            (true, Better::Higher) => format!("≥ {text}"),
            (true, Better::Lower) => format!("≤ {text}"),
            (false, _) => text,
        })
    }

    /// Whether its value is another one under another load, whatever the server.
    pub fn depends_on_load(&self) -> bool {
        match self.source {
            Source::Quantile(..) => true,
            Source::OfStep(_) => self.unit != Unit::Rate,
            Source::OfRun(_) | Source::OfStorm(_) | Source::OfMemory(_) => false,
        }
    }

    /// A value with its unit.
    pub fn text(&self, value: f64) -> String {
        match self.unit {
            Unit::Time => numbers::duration_us(value),
            Unit::Count => numbers::count(value as u64),
            Unit::Rate => numbers::short(value),
            Unit::Bytes => numbers::bytes(value),
        }
    }

    fn worst(&self, values: impl Iterator<Item = f64>) -> Option<f64> {
        match self.better {
            Better::Lower => values.reduce(f64::max),
            Better::Higher => values.reduce(f64::min),
        }
    }
}

impl PartialEq for Figure {
    fn eq(&self, other: &Figure) -> bool {
        self.name == other.name
    }
}

const fn quantile(
    name: &'static str,
    title: &'static str,
    series: Series,
    quantile: f64,
) -> Figure {
    Figure {
        name,
        title,
        unit: Unit::Time,
        better: Better::Lower,
        source: Source::Quantile(series, quantile),
    }
}

const fn step(
    name: &'static str,
    title: &'static str,
    unit: Unit,
    better: Better,
    value: fn(&Step) -> Option<f64>,
) -> Figure {
    Figure {
        name,
        title,
        unit,
        better,
        source: Source::OfStep(value),
    }
}

const fn run(
    name: &'static str,
    title: &'static str,
    value: fn(&Results) -> Option<f64>,
) -> Figure {
    Figure {
        name,
        title,
        unit: Unit::Count,
        better: Better::Lower,
        source: Source::OfRun(value),
    }
}

const fn storm(
    name: &'static str,
    title: &'static str,
    unit: Unit,
    better: Better,
    value: fn(&Storm) -> f64,
) -> Figure {
    Figure {
        name,
        title,
        unit,
        better,
        source: Source::OfStorm(value),
    }
}

const fn memory(
    name: &'static str,
    title: &'static str,
    value: fn(&Memory) -> Option<f64>,
) -> Figure {
    Figure {
        name,
        title,
        unit: Unit::Bytes,
        better: Better::Lower,
        source: Source::OfMemory(value),
    }
}

/// One kind of disorder, in the order of `Disorder::kinds`; a run without deliveries has none to be counted.
fn disorder(results: &Results, kind: usize) -> Option<f64> {
    (!results.steps.is_empty()).then(|| results.disorder().kinds()[kind].1 as f64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::load::result::samples;

    #[test]
    fn names_are_unique_and_kinds_of_disorder_are_where_they_are_looked_for() {
        let names: BTreeSet<&str> = Figure::ALL.iter().map(|figure| figure.name).collect();
        assert_eq!(names.len(), Figure::ALL.len());
        let mut results = samples::fanout();
        for (kind, (name, _)) in results.disorder().kinds().into_iter().enumerate() {
            results.steps[0].disorder.lost = 0;
            let figure = Figure::named(name).unwrap();
            assert_eq!(figure.of(&results), disorder(&results, kind), "{name}");
        }
        results.steps[0].disorder.unannounced = 7;
        assert_eq!(
            Figure::named("unannounced").unwrap().of(&results),
            Some(7.0)
        );
        assert_eq!(Figure::named("lost").unwrap().of(&results), Some(0.0));
    }

    #[test]
    fn figures_are_the_knees_or_the_worst_steps() {
        let mut results = samples::fanout();
        let p99 = Figure::named("p99").unwrap();
        let knee_us = results.steps[7].latency.delivery.quantile_us(0.99).unwrap();
        assert_eq!(p99.of(&results), Some(knee_us as f64));
        results.knee = None;
        assert!(p99.of(&results).unwrap() > 160_000.0);
        let rate = Figure::named("deliveries").unwrap();
        assert_eq!(rate.of(&results), Some(results.steps[0].deliveries_per_s));
    }

    #[test]
    fn failed_attempts_are_those_of_all_storms_and_all_guests() {
        let failed = Figure::named("failed").unwrap();
        let mut results = samples::fanout();
        assert_eq!(failed.of(&results), None);
        results.steps[0].churn = Some(samples::churn());
        results.steps[1].churn = Some(samples::churn());
        assert_eq!(failed.of(&results), Some(6.0));
        results.storms = samples::connect().storms;
        results.storms[1].failed = 4;
        assert_eq!(failed.of(&results), Some(10.0));
    }

    #[test]
    fn a_figure_is_a_bound_where_the_storm_that_it_is_of_is_one() {
        let text = |name: &str, results: &Results| Figure::named(name).unwrap().text_of(results);
        let mut results = samples::connect_at_the_limit();
        assert_eq!(text("handshakes", &results).unwrap(), "12.3 k");
        assert_eq!(text("failed", &results).unwrap(), "0");
        results.storms[0].generator_busy_share = Some(0.96);
        assert_eq!(text("handshakes", &results).unwrap(), "≥ 12.3 k");
        assert_eq!(text("subscribed", &results).unwrap(), "≤ 812 ms");
        let mut results = samples::fanout();
        assert_eq!(text("rate", &results).unwrap(), "1,194");
        results.knee_is_lower_bound = true;
        assert_eq!(text("rate", &results).unwrap(), "≥ 1,194");
        assert_eq!(text("p99", &results).unwrap(), "70.5 ms");
    }

    #[test]
    fn what_a_run_did_not_measure_has_no_figure() {
        let results = samples::idle();
        for name in ["p99", "lost", "cpu", "handshakes"] {
            assert_eq!(Figure::named(name).unwrap().of(&results), None, "{name}");
        }
        assert_eq!(
            Figure::named("memory.server").unwrap().of(&results),
            Some(100.4)
        );
    }
}
