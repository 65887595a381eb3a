//! The table that a run ends with on the terminal.
//!
//! Where the generator was saturated there are words instead of figures, so that none can be quoted.

use std::fmt::Write;

use serde_json::Value;

use crate::load::result::{Outcome, Results, Started, Step, StepKind, Storm, ThreadCpu};

use super::figure::Series;
use super::grid::{Column, grid};
use super::{numbers, verdict};

pub fn text(results: &Results) -> String {
    let mut text = facts(results);
    let mut section = |part: String| {
        if !part.is_empty() {
            text.push('\n');
            text.push_str(&part);
        }
    };
    section(steps(results));
    section(latencies(results));
    if verdict::is_measured(results) {
        section(storms(results));
        section(memory(results));
    }
    section(beside(results));
    section(threads(results));
    section(outcome(results));
    text
}

/// What a figure means nothing without, each fact with its name.
pub fn named_facts(results: &Results) -> Vec<(&'static str, String)> {
    let machine = &results.machine;
    let [one, five, fifteen] = machine.load_average;
    let commit = results
        .outpour
        .commit
        .as_deref()
        .unwrap_or("commit unknown");
    let target = &results.target;
    let started = match &target.started {
        Started::Embedded {
            command_line,
            cores,
        } => {
            let cores: Vec<String> = cores.iter().map(u32::to_string).collect();
            format!(
                "started as `{}` on cores {}",
                command_line.join(" "),
                cores.join(",")
            )
        }
        Started::Elsewhere { pids } if pids.is_empty() => "started elsewhere".to_owned(),
        Started::Elsewhere { pids } => {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            format!("started elsewhere, process {}", pids.join(", "))
        }
    };
    vec![
        ("began", results.began_utc.clone()),
        ("command", results.command_line.join(" ")),
        ("scenario", scenario(results)),
        (
            "target",
            format!("{} at {}, {started}", target.name, target.url),
        ),
        (
            "machine",
            format!(
                "{} cores, {}, {}, {}; load average before {one:.2} {five:.2} {fifteen:.2}",
                machine.cores,
                machine.cpu_model,
                numbers::bytes(machine.memory_bytes as f64),
                machine.kernel
            ),
        ),
        (
            "network",
            format!("{}: {}", results.network.name(), results.network.remark()),
        ),
        (
            "generator",
            format!("outpour {}, {commit}", results.outpour.version),
        ),
    ]
}

/// How a step is called: `search`, `at 95 % of the knee`.
pub fn step_name(kind: StepKind) -> String {
    match kind {
        StepKind::Search => "search".to_owned(),
        StepKind::Confirm => "confirm".to_owned(),
        StepKind::Fixed => "fixed".to_owned(),
        StepKind::Share { of_knee } => format!("{} of knee", numbers::share(of_knee)),
    }
}

/// `1,200`, or `flat out`.
pub fn offered(step: &Step) -> String {
    step.offered_per_s
        .map_or_else(|| "flat out".to_owned(), numbers::decimal)
}

/// `12,315`, or `≥ 12,315` where the generator was the limit.
pub fn handshakes_per_s(storm: &Storm) -> String {
    let rate = numbers::decimal(storm.handshakes_per_s);
    match storm.is_lower_bound() {
        true => format!("≥ {rate}"),
        false => rate,
    }
}

/// What is said of a step beside its name: whether it is the knee, or what was sustained.
pub fn mark(results: &Results, index: usize) -> Option<&'static str> {
    let is = |marked: Option<usize>| marked == Some(index);
    match (is(results.knee), is(results.sustained)) {
        (true, _) if results.knee_is_lower_bound => Some("knee at least"),
        (true, _) => Some("knee"),
        (false, true) if results.sustained_is_lower_bound => Some("sustained at least"),
        (false, true) => Some("sustained"),
        (false, false) => None,
    }
}

/// A parameter's value as people write it.
pub fn parameter(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_u64() {
            Some(number) => numbers::count(number),
            None => number.to_string(),
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn facts(results: &Results) -> String {
    let mut text = String::new();
    for (name, fact) in named_facts(results) {
        writeln!(text, "{name:<10} {fact}").expect("a string takes all");
    }
    text
}

fn scenario(results: &Results) -> String {
    let scenario = &results.scenario;
    let parameters: Vec<String> = scenario
        .parameters
        .iter()
        .map(|(name, value)| format!("{name} {}", parameter(value)))
        .collect();
    match parameters.is_empty() {
        true => scenario.name.clone(),
        false => format!("{}: {}", scenario.name, parameters.join(", ")),
    }
}

fn steps(results: &Results) -> String {
    if results.steps.is_empty() {
        return String::new();
    }
    let columns = [
        Column::Words("load"),
        Column::Numbers("messages/s"),
        Column::Numbers("deliveries/s"),
        Column::Numbers("CPU/delivery"),
        Column::Numbers("p50"),
        Column::Numbers("p99"),
        Column::Numbers("refused"),
        Column::Numbers("lost"),
        Column::Words("outcome"),
    ];
    let rows = results.steps.iter().enumerate().map(|(index, step)| {
        let name = step_name(step.kind);
        let name = match mark(results, index) {
            Some(mark) => format!("{name} ({mark})"),
            None => name,
        };
        let mut row = vec![name, offered(step)];
        if verdict::has_figures(results, step) {
            let cpu = step
                .server
                .as_ref()
                .map(|server| server.cpu_us_per_delivery);
            let quantile = |quantile| {
                numbers::duration_us_or_dash(step.latency.delivery.quantile_us(quantile))
            };
            row.extend([
                numbers::short(step.deliveries_per_s),
                cpu.map_or_else(|| "-".to_owned(), numbers::duration_us),
                quantile(0.5),
                quantile(0.99),
                numbers::count(step.refused),
                numbers::count(step.disorder.lost),
            ]);
        } else {
            row.extend(std::iter::repeat_n("-".to_owned(), 6));
        }
        row.push(step_outcome(step));
        row
    });
    grid(&columns, rows.collect())
}

fn step_outcome(step: &Step) -> String {
    match &step.outcome {
        Outcome::Kept => "kept".to_owned(),
        Outcome::Missed { why } => format!("missed: {why}"),
        Outcome::Invalid { why } => format!("invalid: {why}"),
    }
}

/// Of the step that counts, where there is one.
fn latencies(results: &Results) -> String {
    let [step] = results.steps_that_count() else {
        return String::new();
    };
    if !verdict::has_figures(results, step) {
        return String::new();
    }
    let columns = [
        Column::Words("latency"),
        Column::Numbers("p50"),
        Column::Numbers("p90"),
        Column::Numbers("p99"),
        Column::Numbers("p99.9"),
        Column::Numbers("p99.99"),
        Column::Numbers("longest"),
        Column::Numbers("count"),
    ];
    let series = [
        ("first subscriber", Series::First),
        ("median subscriber", Series::Median),
        ("last subscriber", Series::Last),
        ("delivery", Series::Delivery),
        ("generator's slip", Series::Slip),
    ];
    let rows = series.iter().map(|(name, series)| {
        let latencies = series.of(step);
        let quantiles = [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];
        let quantiles =
            quantiles.map(|quantile| numbers::duration_us_or_dash(latencies.quantile_us(quantile)));
        let mut row = vec![(*name).to_owned()];
        row.extend(quantiles);
        row.push(numbers::count(latencies.count()));
        row
    });
    grid(&columns, rows.collect())
}

/// p50 and p99 are those of single clients, each from its own SYN; the times of all begin with the storm.
fn storms(results: &Results) -> String {
    if results.storms.is_empty() {
        return String::new();
    }
    let columns = [
        Column::Words("storm"),
        Column::Numbers("connections"),
        Column::Numbers("failed"),
        Column::Numbers("handshakes/s"),
        Column::Numbers("all upgraded"),
        Column::Numbers("95 % subscribed"),
        Column::Numbers("all subscribed"),
        Column::Numbers("p50"),
        Column::Numbers("p99"),
        Column::Numbers("CPU/handshake"),
        Column::Numbers("generator busy"),
        Column::Numbers("server busy"),
    ];
    let rows = results.storms.iter().map(|storm| {
        let cpu = storm.server_cpu_us_per_handshake;
        let time = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), numbers::duration_us);
        let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), numbers::share);
        vec![
            storm.kind.name().to_owned(),
            numbers::count(storm.connections),
            numbers::count(storm.failed),
            handshakes_per_s(storm),
            numbers::duration_us(storm.all_upgraded_ms * 1e3),
            time(storm.most_subscribed_ms.map(|ms| ms * 1e3)),
            numbers::duration_us(storm.all_subscribed_ms * 1e3),
            numbers::duration_us_or_dash(storm.latency.quantile_us(0.5)),
            numbers::duration_us_or_dash(storm.latency.quantile_us(0.99)),
            time(cpu),
            share(storm.generator_busy_share),
            share(storm.server_busy_share),
        ]
    });
    grid(&columns, rows.collect())
}

fn memory(results: &Results) -> String {
    let Some(memory) = &results.memory else {
        return String::new();
    };
    let columns = [
        Column::Numbers("connections"),
        Column::Numbers("server RSS"),
        Column::Numbers("generator RSS"),
        Column::Numbers("kernel slab"),
    ];
    let whole = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
    let size = |bytes: Option<f64>| bytes.map_or_else(|| "-".to_owned(), numbers::bytes);
    let mut rows: Vec<Vec<String>> = memory
        .readings
        .iter()
        .map(|reading| {
            vec![
                numbers::count(reading.connections),
                size(whole(reading.server_rss_bytes)),
                size(Some(reading.generator_rss_bytes as f64)),
                size(whole(reading.kernel_slab_bytes)),
            ]
        })
        .collect();
    rows.push(vec![
        "each".to_owned(),
        size(memory.server_bytes_per_connection),
        size(Some(memory.generator_bytes_per_connection)),
        size(memory.kernel_slab_bytes_per_connection),
    ]);
    let mut text = grid(&columns, rows);
    if let Some(busy) = memory.idle_busy_share {
        writeln!(
            text,
            "silent, the server takes {} of a core",
            numbers::share(busy)
        )
        .expect("a string takes all");
    }
    text
}

/// Slow readers and guests of the steps that count, a line each.
pub fn beside(results: &Results) -> String {
    results.steps_that_count().iter().map(beside_step).collect()
}

fn beside_step(step: &Step) -> String {
    let mut text = String::new();
    if let Some(stalled) = &step.stalled {
        writeln!(
            text,
            "stalled    {} readers received {} and {} of them were closed",
            numbers::count(stalled.clients),
            numbers::bytes(stalled.received_bytes as f64),
            numbers::count(stalled.closed)
        )
        .expect("a string takes all");
        if let Some(bytes) = stalled.server_bytes_each {
            writeln!(
                text,
                "           the server's memory grew by {bytes} bytes for each of them, its logs included"
            )
            .expect("a string takes all");
        }
    }
    if let Some(churn) = &step.churn {
        writeln!(
            text,
            "churn      {} joined (p50 {}, p99 {}), {} left, {} failed",
            numbers::count(churn.joins),
            numbers::duration_us_or_dash(churn.joined.quantile_us(0.5)),
            numbers::duration_us_or_dash(churn.joined.quantile_us(0.99)),
            numbers::count(churn.leaves),
            numbers::count(churn.failures)
        )
        .expect("a string takes all");
    }
    text
}

/// How busy whose threads were, in the step that counts.
fn threads(results: &Results) -> String {
    let [step] = results.steps_that_count() else {
        return String::new();
    };
    let listed = |threads: &[ThreadCpu]| -> String {
        let threads = threads.iter().map(|thread| {
            let core = thread
                .core
                .map_or_else(String::new, |core| format!(" (core {core})"));
            format!(
                "{}{core} {}",
                thread.name,
                numbers::share(thread.busy_share)
            )
        });
        threads.collect::<Vec<_>>().join(", ")
    };
    let server = step
        .server
        .as_ref()
        .map_or_else(String::new, |server| listed(&server.shards));
    let mut text = String::new();
    for (whose, threads) in [("server", server), ("generator", listed(&step.generator))] {
        if !threads.is_empty() {
            writeln!(text, "busy       {whose}: {threads}").expect("a string takes all");
        }
    }
    if let Some(share) = others_share(step).filter(|share| *share > OTHERS_SHARE_MAX) {
        let share = numbers::share(share);
        writeln!(
            text,
            "busy       others: {share} of one core, on the same cores; all delays hold their disturbance"
        )
        .expect("a string takes all");
    }
    text
}

/// Work of others on the watched cores that is worth a line.
const OTHERS_SHARE_MAX: f64 = 0.1;

/// What was busy on the watched cores and is neither the server nor the generator, in cores. None
/// where the server's threads are not known.
fn others_share(step: &Step) -> Option<f64> {
    let server = &step.server.as_ref()?.shards;
    let cores = step
        .timeline
        .iter()
        .map(|second| second.core_busy_shares.iter().sum::<f64>());
    let seconds = step.timeline.len().max(1) as f64;
    let all = cores.sum::<f64>() / seconds;
    let threads = server.iter().chain(&step.generator);
    let own: f64 = threads.map(|thread| thread.busy_share).sum();
    Some(all - own)
}

fn outcome(results: &Results) -> String {
    let words = verdict::words(results);
    let mut text = format!("{}\n", words.headline.to_uppercase());
    for sentence in words.sentences {
        text.push_str(&sentence);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::result::{Verdict, samples};

    /// The sections of a table, without the facts above them.
    fn sections(results: &Results) -> String {
        let text = text(results);
        text.split_once("\n\n")
            .expect("facts and more")
            .1
            .to_owned()
    }

    #[test]
    fn facts_stand_above_the_figures() {
        let expected = "\
began      2026-11-25T16:47:06Z
command    outpour bench
scenario   fanout: channels 1, data_bytes 128, p99_ms_max 100, publishers http, subscribers 10,000
target     outpour 0.1.0 at ws://127.0.0.1:40001, started as `outpour serve --cores 0` on cores 0
machine    2 cores, AMD EPYC, 24.0 GiB, Linux 6.18.44; load average before 0.42 0.67 1.01
network    loopback: the receiver's TCP work runs inside the sender's call, on the sender's CPU: \
the server's CPU time holds both ends
generator  outpour 0.1.0, 08faa1234b6a31cd8747326419341409ace0ae23
";
        assert_eq!(facts(&samples::fanout()), expected);
    }

    #[test]
    fn a_canonical_run_ends_with_its_table() {
        let mut results = samples::fanout();
        results.steps.drain(1..5);
        results.knee = Some(3);
        let expected = "\
load            messages/s  deliveries/s  CPU/delivery      p50      p99  refused  lost  outcome
──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
search                 100         976 k      0.280 µs  19.8 ms  44.9 ms        0     0  kept
search               1,200        11.7 M      0.097 µs  31.1 ms  70.7 ms        0     0  kept
search               1,400        13.7 M      0.094 µs  74.8 ms   170 ms        0     0  missed: p99 189 ms, more than 100 ms
confirm (knee)       1,200        11.9 M      0.097 µs  31.1 ms  70.5 ms        0     0  kept

latency                p50      p90      p99    p99.9   p99.99  longest    count
─────────────────────────────────────────────────────────────────────────────────
first subscriber    723 µs   818 µs   823 µs   964 µs  1.28 ms  1.28 ms   24,000
median subscriber  33.2 ms  38.0 ms  38.2 ms  45.2 ms  60.9 ms  61.0 ms   24,000
last subscriber    66.4 ms  75.9 ms  76.4 ms  90.4 ms   122 ms   122 ms   24,000
delivery           31.1 ms  57.3 ms  70.5 ms  71.7 ms  93.1 ms   114 ms  384,000
generator's slip    219 µs   379 µs   415 µs   419 µs   419 µs   419 µs   24,000

busy       server: shard 0 (core 0) 92 %
busy       generator: publisher (core 1) 7.0 %, clients 0 (core 1) 65 %

VALID
outpour 0.1.0 kept 1,200 messages a second for 10,000 subscribers of one channel: 11.9 million deliveries a second.
99 % of them came within 70.5 ms of the time that their publish was due; nothing was lost, repeated or reordered.
1,400 a second were too many: p99 189 ms, more than 100 ms.
";
        assert_eq!(sections(&results), expected);
    }

    #[test]
    fn storms_and_memory_have_tables_of_their_own() {
        let mut results = samples::connect_at_the_limit();
        results.memory = samples::idle().memory;
        let expected = "\
storm      connections  failed  handshakes/s  all upgraded  95 % subscribed  all subscribed     p50     p99  CPU/handshake  generator busy  server busy
────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
connect         10,000       0        12,315        788 ms           771 ms          812 ms  151 ms  298 ms        31.0 µs            61 %         88 %
reconnect       10,000       0      ≥ 15,267        635 ms           622 ms          655 ms  151 ms  298 ms        31.0 µs            97 %         88 %

connections  server RSS  generator RSS  kernel slab
────────────────────────────────────────────────────
      3,000    23.2 MiB       9.48 MiB      110 MiB
      6,000    23.5 MiB       10.4 MiB      134 MiB
      9,000    23.7 MiB       11.3 MiB      158 MiB
     12,000    24.0 MiB       12.2 MiB      182 MiB
     15,000    24.3 MiB       13.0 MiB      206 MiB
       each       100 B          312 B     8.21 KiB
silent, the server takes 0.04 % of a core

VALID
10,000 connections were connected and subscribed after 812 ms: 12,315 handshakes a second.
10,000 connections that were dropped were back and subscribed after 655 ms: at least 15,267 handshakes a second, \
for the generator's core was 97 % busy (the server's busiest thread 88 %).
An idle connection takes 100 B of the server, 131 B of the server with what it takes for the first of them, 8.21 KiB of the kernel for both ends, 312 B of the generator.
";
        assert_eq!(sections(&results), expected);
    }

    #[test]
    fn a_knee_that_is_a_lower_bound_is_marked_so_and_guests_are_told_of_every_step() {
        let mut results = samples::fanout();
        results.knee_is_lower_bound = true;
        assert!(text(&results).contains("\nconfirm (knee at least)  "));
        results.knee = None;
        results.steps.truncate(2);
        results.steps[1].churn = Some(samples::churn());
        let told = "churn      200 joined (p50 4.00 ms, p99 4.00 ms), 190 left, 3 failed\n";
        assert_eq!(beside(&results), told);
    }

    #[test]
    fn a_saturated_generator_leaves_no_figure_to_quote() {
        let mut results = samples::fanout();
        results.steps.truncate(1);
        results.knee = None;
        results.verdict = Verdict::Invalid {
            why: vec!["core 1 was busy for 97 %".to_owned()],
        };
        results.steps[0].outcome = Outcome::Invalid {
            why: "core 1 was busy for 97 %".to_owned(),
        };
        let expected = "\
load    messages/s  deliveries/s  CPU/delivery  p50  p99  refused  lost  outcome
───────────────────────────────────────────────────────────────────────────────────────────────────────────
search         100             -             -    -    -        -     -  invalid: core 1 was busy for 97 %

busy       server: shard 0 (core 0) 7.7 %
busy       generator: publisher (core 1) 7.0 %, clients 0 (core 1) 5.4 %

INVALID: GENERATOR SATURATED
The load generator did not keep up, so this run says nothing about the server.
Core 1 was busy for 97 %.
";
        assert_eq!(sections(&results), expected);
    }
}
