//! Which charts a result has, and what is in them.

use crate::load::result::{LatencyHistogram, Outcome, Results, Second, Step, StepKind};

use super::chart::{Axis, Band, Chart, Mark, Scale, Series};
use super::heat;
use crate::load::report::figure::Series as Latency;
use crate::load::report::{numbers, table, verdict};

/// Lines of so many cores can be told apart; more are a map.
const CORE_LINES_MAX: usize = 6;
/// Seconds of a timeline that are further apart are of different steps.
const SECOND_GAP: f64 = 1.6;
/// What memory is drawn in, so that its axis has round numbers.
const MIB: f64 = 1_048_576.0;
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// All charts that have something to show, in the order of the page.
pub fn all(results: &Results) -> String {
    if !verdict::is_measured(results) {
        return String::new();
    }
    let mut charts = String::new();
    charts.push_str(&latency_by_percentile(results).draw());
    charts.push_str(&loads(results).draw());
    charts.push_str(&throughput(results).draw());
    charts.push_str(
        &over_time(
            results,
            "lag",
            "Lag over time",
            "deliveries due and not made",
            numbers::short,
            &[("behind", |second| Some(second.lag_deliveries as f64))],
        )
        .draw(),
    );
    charts.push_str(
        &over_time(
            results,
            "latency-time",
            "Latency over time",
            "of the deliveries of each second",
            numbers::duration_us,
            &[
                ("p50", |second| second.p50_us.map(|us| us as f64)),
                ("p99", |second| second.p99_us.map(|us| us as f64)),
            ],
        )
        .draw(),
    );
    charts.push_str(&cores(results));
    charts.push_str(&storms(results).draw());
    charts.push_str(&storm_latency(results).draw());
    charts.push_str(&memory(results).draw());
    charts
}

/// Of the step that counts; where several count, of the last.
fn latency_by_percentile(results: &Results) -> Chart {
    let step = results
        .steps_that_count()
        .iter()
        .rfind(|step| verdict::has_figures(results, step));
    let named = [
        ("first subscriber", Latency::First),
        ("median subscriber", Latency::Median),
        ("last subscriber", Latency::Last),
        ("delivery", Latency::Delivery),
    ];
    let series = named.iter().enumerate().map(|(colour, (name, latency))| {
        percentiles(name, colour, step.map(|step| latency.of(step)))
    });
    let at = step.map_or_else(String::new, |step| {
        format!(" at {} messages a second", table::offered(step))
    });
    percentile_chart(
        "latency",
        format!("Latency by percentile{at}"),
        series.collect(),
    )
}

fn percentile_chart(id: &'static str, title: String, series: Vec<Series>) -> Chart {
    let nines = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999];
    let ticks = nines.map(|quantile| (distance(quantile), percent(quantile)));
    Chart {
        id,
        title,
        description:
            "Latency from the due time of a publish, by the share of events that took no longer; \
                      the axis is 1/(1-share), logarithmic"
                .to_owned(),
        x: Axis {
            label: "share of events that took no longer".to_owned(),
            scale: Scale::Fit,
            text: |distance| percent(1.0 - 10_f64.powf(-distance)),
            ticks: Some(ticks.to_vec()),
        },
        y: duration_axis("latency", Scale::Log),
        series,
        bands: Vec::new(),
        gap: f64::INFINITY,
        limit: None,
    }
}

/// Where a quantile lies on the axis: one unit further for each nine.
fn distance(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

fn percent(quantile: f64) -> String {
    let percent = format!("{:.4}", quantile * 100.0);
    format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
}

fn percentiles(name: &str, colour: usize, latencies: Option<&LatencyHistogram>) -> Series {
    let mut points = Vec::new();
    if let Some(latencies) = latencies.filter(|latencies| !latencies.is_empty()) {
        // The longest has a place too: one in all of them.
        let end = (latencies.count() as f64).log10();
        for step in latencies.values().iter_quantiles(TICKS_PER_HALF_DISTANCE) {
            let at = distance(step.quantile_iterated_to()).min(end);
            points.push((at, step.value_iterated_to() as f64));
        }
    }
    Series {
        name: name.to_owned(),
        colour,
        points,
        mark: Mark::Line,
        words: Vec::new(),
    }
}

/// Every step: its load and its p99, kept or not.
fn loads(results: &Results) -> Chart {
    let mut measured: Vec<(usize, &Step)> = results
        .steps
        .iter()
        .enumerate()
        .filter(|(_, step)| step.offered_per_s.is_some() && verdict::has_figures(results, step))
        .collect();
    // One load alone is no curve.
    if measured.len() < 2 {
        measured.clear();
    }
    let series = |name: &str, colour, mark, wanted: &dyn Fn(usize, &Step) -> bool| {
        let mut points = Vec::new();
        let mut words = Vec::new();
        for (index, step) in &measured {
            let place = step
                .offered_per_s
                .zip(step.latency.delivery.quantile_us(0.99));
            if let (true, Some((rate, p99_us))) = (wanted(*index, step), place) {
                points.push((rate, p99_us as f64));
                words.push(format!(
                    "step {} ({}), p99 {}",
                    index + 1,
                    table::step_name(step.kind),
                    numbers::duration_us(p99_us as f64)
                ));
            }
        }
        Series {
            name: name.to_owned(),
            colour,
            points,
            mark,
            words,
        }
    };
    let is_kept = |step: &Step| step.outcome == Outcome::Kept;
    let limit = results
        .scenario
        .parameters
        .get("p99_ms_max")
        .and_then(serde_json::Value::as_f64);
    let is_search = results
        .steps
        .iter()
        .any(|step| step.kind == StepKind::Search);
    let title = match is_search {
        true => "The search for the knee: load and p99 of each step",
        false => "Load and p99 of each step",
    };
    Chart {
        id: "loads",
        title: title.to_owned(),
        description:
            "The steps of the run: messages a second that were offered, and p99 of the deliveries"
                .to_owned(),
        x: Axis {
            label: "messages a second, offered".to_owned(),
            scale: Scale::Log,
            text: numbers::short,
            ticks: None,
        },
        y: duration_axis("p99 of deliveries", Scale::Log),
        series: vec![
            series("kept", 0, Mark::Dots, &|_, step| is_kept(step)),
            series("missed", 1, Mark::Crosses, &|_, step| !is_kept(step)),
            series("knee", 2, Mark::Rings, &|index, _| {
                results.knee == Some(index)
            }),
        ],
        bands: Vec::new(),
        gap: f64::INFINITY,
        limit: limit.map(|ms| {
            (
                ms * 1e3,
                format!("at most {}", numbers::duration_us(ms * 1e3)),
            )
        }),
    }
}

/// What was delivered, beside what was due: where the two part, the server was behind.
fn throughput(results: &Results) -> Chart {
    let mut chart = over_time(
        results,
        "throughput",
        "Throughput over time",
        "deliveries a second",
        numbers::short,
        &[("delivered", |second| Some(second.delivered as f64))],
    );
    let measured = results
        .steps
        .iter()
        .filter(|step| verdict::has_figures(results, step));
    let due = measured.flat_map(|step| {
        // Publishes go round the channels, so each has the mean number of subscribers.
        let each = step.subscribers as f64 / step.channels.max(1) as f64;
        let seconds = step.timeline.iter();
        seconds.map(move |second| (second.at_s, second.published as f64 * each))
    });
    chart.series.push(Series {
        name: "due".to_owned(),
        colour: 1,
        points: due.collect(),
        mark: Mark::Line,
        words: Vec::new(),
    });
    chart
}

type OfSecond = fn(&Second) -> Option<f64>;

fn over_time(
    results: &Results,
    id: &'static str,
    title: &str,
    label: &str,
    text: fn(f64) -> String,
    named: &[(&str, OfSecond)],
) -> Chart {
    let series = named
        .iter()
        .enumerate()
        .map(|(colour, (name, value))| Series {
            name: (*name).to_owned(),
            colour,
            points: seconds(results)
                .filter_map(|second| Some((second.at_s, value(second)?)))
                .collect(),
            mark: Mark::Line,
            words: Vec::new(),
        });
    Chart {
        id,
        title: title.to_owned(),
        description: format!("{title}: {label}, second by second; bands are the steps of the run"),
        x: time_axis(),
        y: Axis {
            label: label.to_owned(),
            scale: Scale::Zero,
            text,
            ticks: None,
        },
        series: series.collect(),
        bands: bands(results),
        gap: SECOND_GAP,
        limit: None,
    }
}

fn cores(results: &Results) -> String {
    if results.cores.len() > CORE_LINES_MAX {
        return heat::draw(results);
    }
    let series = results
        .cores
        .iter()
        .enumerate()
        .map(|(index, core)| Series {
            name: format!("core {} ({})", core.number, core.role.name()),
            colour: index,
            points: seconds(results)
                .filter_map(|second| Some((second.at_s, *second.core_busy_shares.get(index)?)))
                .collect(),
            mark: Mark::Line,
            words: Vec::new(),
        });
    let chart = Chart {
        id: "cores",
        title: "CPU by core over time".to_owned(),
        description: "How busy each core was, second by second".to_owned(),
        x: time_axis(),
        y: Axis {
            label: "busy".to_owned(),
            scale: Scale::Between(0.0, 1.0),
            text: numbers::share,
            ticks: None,
        },
        series: series.collect(),
        bands: bands(results),
        gap: SECOND_GAP,
        limit: None,
    };
    chart.draw()
}

fn storms(results: &Results) -> Chart {
    let series = results
        .storms
        .iter()
        .enumerate()
        .map(|(colour, storm)| Series {
            name: storm.kind.name().to_owned(),
            colour: colour % 6,
            points: storm
                .progress
                .iter()
                .map(|joined| (joined.at_ms, joined.subscribed as f64))
                .collect(),
            mark: Mark::Line,
            words: Vec::new(),
        });
    Chart {
        id: "storms",
        title: "Connection storms: subscribed clients over time".to_owned(),
        description: "How many connections were open and subscribed, since the storm began"
            .to_owned(),
        x: Axis {
            label: "since the storm began".to_owned(),
            scale: Scale::Zero,
            text: |ms| numbers::duration_us(ms * 1e3),
            ticks: None,
        },
        y: Axis {
            label: "subscribed".to_owned(),
            scale: Scale::Zero,
            text: numbers::short,
            ticks: None,
        },
        series: series.collect(),
        bands: Vec::new(),
        gap: f64::INFINITY,
        limit: None,
    }
}

fn storm_latency(results: &Results) -> Chart {
    let series =
        results.storms.iter().enumerate().map(|(colour, storm)| {
            percentiles(storm.kind.name(), colour % 6, Some(&storm.latency))
        });
    let title = "Time from a connection's start to its subscription".to_owned();
    percentile_chart("storm-latency", title, series.collect())
}

/// Growth since the first reading: what was there before is of nobody's connections.
fn memory(results: &Results) -> Chart {
    let readings = results
        .memory
        .iter()
        .flat_map(|memory| memory.readings.iter());
    let series =
        |name: &str, colour, bytes: &dyn Fn(&crate::load::result::MemoryReading) -> Option<u64>| {
            let all: Vec<(f64, f64)> = readings
                .clone()
                .filter_map(|reading| Some((reading.connections as f64, bytes(reading)? as f64)))
                .collect();
            let first = all.first().map_or(0.0, |(_, bytes)| *bytes);
            Series {
                name: name.to_owned(),
                colour,
                points: all
                    .into_iter()
                    .map(|(at, bytes)| (at, (bytes - first) / MIB))
                    .collect(),
                mark: Mark::Line,
                words: Vec::new(),
            }
        };
    Chart {
        id: "memory",
        title: "Memory of idle connections".to_owned(),
        description: "Growth of memory since the first reading, by the number of connections"
            .to_owned(),
        x: Axis {
            label: "connections".to_owned(),
            scale: Scale::Fit,
            text: numbers::short,
            ticks: None,
        },
        y: Axis {
            label: "grown since the first reading".to_owned(),
            scale: Scale::Zero,
            text: |mib| numbers::bytes(mib * MIB),
            ticks: None,
        },
        series: vec![
            series("server", 0, &|reading| reading.server_rss_bytes),
            series("generator", 1, &|reading| Some(reading.generator_rss_bytes)),
            series("kernel, both ends", 2, &|reading| reading.kernel_slab_bytes),
        ],
        bands: Vec::new(),
        gap: f64::INFINITY,
        limit: None,
    }
}

fn seconds(results: &Results) -> impl Iterator<Item = &Second> {
    let measured = results
        .steps
        .iter()
        .filter(|step| verdict::has_figures(results, step));
    measured.flat_map(|step| step.timeline.iter())
}

/// The steps, where there are several.
fn bands(results: &Results) -> Vec<Band> {
    if results.steps.len() < 2 {
        return Vec::new();
    }
    let steps = results.steps.iter().enumerate().map(|(index, step)| Band {
        from: step.began_s,
        to: step.began_s + step.lasted_s,
        label: format!("{}/s", table::offered(step)),
        is_marked: results.knee == Some(index),
    });
    steps.collect()
}

pub fn time_axis() -> Axis {
    Axis {
        label: "since the run began".to_owned(),
        scale: Scale::Fit,
        text: |seconds| format!("{seconds:.0} s"),
        ticks: None,
    }
}

fn duration_axis(label: &str, scale: Scale) -> Axis {
    Axis {
        label: label.to_owned(),
        scale,
        text: numbers::duration_us,
        ticks: None,
    }
}
