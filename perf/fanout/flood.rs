//! Flooded: messages come faster than every subscriber can be visited for each of them.
//!
//! The wall time and the CPU time run from the first publish until the last subscriber has the
//! last message. Lost is what was accepted and did not arrive; what the server refused (503) was
//! never accepted and is counted beside it.

use std::fmt::Write as _;
use std::io;

use crate::generator::report::Report;
use crate::paced::naked;
use crate::senders::Schedule;
use crate::{Common, Load, begin, schedule, subscribe};
use outpour::load::machine::{monotonic_ns, threads};
use outpour::load::orders::Count;
use outpour::load::server::{Metrics, Server};

/// CPU time per delivery that the server may take, by number of subscribers.
const TARGETS_US: &[(usize, f64)] = &[(1_000, 0.3), (5_000, 0.25)];
/// Readers may be silent for so long before what is missing counts as lost.
const PATIENCE_MS: u64 = 5_000;

#[derive(Clone, Copy)]
pub struct Manner {
    pub seconds: u64,
    /// Events in one call.
    pub batch: usize,
    /// Calls that may be unanswered at once.
    pub window: usize,
}

/// What one flood took.
pub struct Figures {
    sender: &'static str,
    pub cpu_ns: f64,
    wall_ns: f64,
    accepted: u64,
    refused: u64,
    messages_per_visit: f64,
    pub count: Count,
}

impl Figures {
    fn cpu_us_per_delivery(&self) -> f64 {
        self.cpu_ns / 1e3 / self.count.messages.max(1) as f64
    }
}

/// A flood of a server: its figures, its counters before and after, and its threads' CPU time.
pub struct Run {
    pub figures: Figures,
    pub before: Metrics,
    pub after: Metrics,
    pub threads: String,
}

pub fn measure(
    common: &Common,
    loads: &[Load],
    manner: Manner,
    report: &mut Report,
) -> io::Result<()> {
    for load in loads {
        let pace = match load.per_second {
            Some(per_second) => format!("{per_second} messages a second"),
            None => "as many messages as the server takes".to_owned(),
        };
        report.say(format_args!(
            "flood: {} subscribers, {pace}, {} bytes of data, {} s, {} a call, {} shards on cores {}",
            load.subscribers,
            common.data_bytes,
            manner.seconds,
            manner.batch,
            common.server.shards,
            common.server.cores,
        ));
        report.say(
            "sender  CPU us/delivery  deliveries/s  messages/visit  published  refused  lost  disorder  \
             longest lap ms  p50 ms  p99 ms  max ms  readers' CPU",
        );
        let naked = match load.per_second {
            Some(per_second) => Some(flood_naked(common, load.subscribers, per_second, manner)?),
            None => None,
        };
        if let Some(naked) = &naked {
            report.say(line(naked));
        }
        let run = flood_server(common, load, manner)?;
        report.say(line(&run.figures));
        if let Some(naked) = &naked {
            report.say(format_args!(
                "ratio   {:.3} of one run each; their messages a visit differ, and a visit's price is shared by these",
                run.figures.cpu_us_per_delivery() / naked.cpu_us_per_delivery()
            ));
        }
        say_counters(&run.before, &run.after, report);
        report.say(format_args!("threads: {}", run.threads));
        say_verdict(load.subscribers, &run.figures, report);
        report.say("");
    }
    Ok(())
}

fn flood_naked(
    common: &Common,
    sockets: usize,
    per_second: f64,
    manner: Manner,
) -> io::Result<Figures> {
    let (mut sender, mut readers) = naked(common, sockets)?;
    readers.carry_out(begin(common.data_bytes))?;
    let messages = (per_second * manner.seconds as f64) as u64;
    let tally = sender.run(&Schedule {
        messages,
        per_second,
        data_bytes: common.data_bytes,
        one_a_visit: false,
    })?;
    Ok(Figures {
        sender: "naked",
        cpu_ns: tally.cpu_ns as f64,
        wall_ns: tally.wall_ns as f64,
        accepted: messages,
        refused: 0,
        messages_per_visit: tally.messages_per_visit(),
        count: readers.drained(messages, PATIENCE_MS)?,
    })
}

pub fn flood_server(common: &Common, load: &Load, manner: Manner) -> io::Result<Run> {
    let server = common.server.start()?;
    let mut readers = subscribe(common, &server, load.subscribers)?;
    let mut publisher = crate::publisher(common, &server, manner.batch, manner.window)?;
    // A few messages, so that nothing of the run is the first of its kind.
    publisher.run(schedule(Some(1_000.0), 0.02))?;
    readers.quiet(300)?;

    readers.carry_out(begin(common.data_bytes))?;
    let before = server.metrics()?;
    let cpu_before_ns = server.cpu_ns()?;
    let start_ns = monotonic_ns();
    let tally = publisher.run(schedule(load.per_second, manner.seconds as f64))?;
    let count = readers.drained(tally.accepted, PATIENCE_MS)?;
    let wall_ns = monotonic_ns() - start_ns;
    let cpu_ns = server.cpu_ns()? - cpu_before_ns;
    let after = server.metrics()?;

    let grown = |name: &str| after.sum(name) - before.sum(name);
    let figures = Figures {
        sender: "server",
        cpu_ns: cpu_ns as f64,
        wall_ns: wall_ns as f64,
        accepted: tally.accepted,
        refused: tally.refused + tally.failed,
        messages_per_visit: grown("outpour_deliveries_total") / grown("outpour_sends_total"),
        count,
    };
    Ok(Run {
        figures,
        before,
        after,
        threads: cpu_by_thread(&server)?,
    })
}

/// What each thread has used: equal shards show equal figures.
fn cpu_by_thread(server: &Server) -> io::Result<String> {
    let mut text = String::new();
    for thread in threads(server.pid())? {
        let seconds = thread.cpu_ns as f64 / 1e9;
        write!(text, "{} {seconds:.2} s  ", thread.name).map_err(io::Error::other)?;
    }
    Ok(text)
}

fn line(figures: &Figures) -> String {
    let count = &figures.count;
    let deliveries = count.messages.max(1) as f64;
    let lost = count.lacking(figures.accepted);
    let order = &count.order;
    let latency_ms = |at| count.deliveries.quantile_us(at).unwrap_or(0) as f64 / 1e3;
    // Numbers of refused events are missing by right; any other missing one shows in `lost`.
    let too_many = count.surplus(figures.accepted) + order.repeated;
    let disorder = too_many + order.reordered + count.uneven + count.closed;
    format!(
        "{:<6}  {:>15.3}  {:>12.0}  {:>14.1}  {:>9}  {:>7}  {:>4}  {:>8}  {:>14.1}  {:>6.1}  {:>6.1}  {:>6.1}  {:>11.0}%",
        figures.sender,
        figures.cpu_us_per_delivery(),
        deliveries / (figures.wall_ns / 1e9),
        figures.messages_per_visit,
        figures.accepted,
        figures.refused,
        lost,
        disorder,
        count.arrival_gap_us_max as f64 / 1e3,
        latency_ms(0.5),
        latency_ms(0.99),
        latency_ms(1.0),
        count.cpu_ns as f64 / figures.wall_ns * 100.0,
    )
}

fn say_counters(before: &Metrics, after: &Metrics, report: &mut Report) {
    let grown = |name: &str| after.sum(name) - before.sum(name);
    let deliveries = grown("outpour_deliveries_total").max(1.0);
    report.say(format_args!(
        "counted: {:.3} enters and {:.3} completions per 1,000 deliveries, {:.2} encodes a publish, {} short sends, \
         {} slow closed, {} parked, {} letters, {} wakes, turns {:.1} ms in the median, {:.1} ms at 99 %, \
         {:.1} ms at most",
        grown("outpour_enters_total") / deliveries * 1e3,
        grown("outpour_completions_total") / deliveries * 1e3,
        grown("outpour_encodes_total") / grown("outpour_publishes_total").max(1.0),
        grown("outpour_short_sends_total"),
        grown("outpour_slow_closed_total"),
        grown("outpour_publishes_parked_total"),
        grown("outpour_letters_total"),
        grown("outpour_wakes_total"),
        after.quantile("outpour_turn_seconds", "0.5") * 1e3,
        after.quantile("outpour_turn_seconds", "0.99") * 1e3,
        after.highest("outpour_longest_turn_us") / 1e3,
    ));
}

fn say_verdict(subscribers: usize, figures: &Figures, report: &mut Report) {
    let target = TARGETS_US.iter().find(|target| target.0 == subscribers);
    let Some((_, target_us)) = target else {
        return;
    };
    let cpu_us = figures.cpu_us_per_delivery();
    let verdict = if cpu_us <= *target_us {
        "met"
    } else {
        "MISSED"
    };
    report.say(format_args!(
        "at most {target_us} us a delivery: {cpu_us:.3}, {verdict}"
    ));
}
