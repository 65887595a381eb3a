//! Paced: every message is a visit to every subscriber, and naked sends do the same beside it.
//!
//! Both senders are on the same core with all their sockets open the whole time, and take turns,
//! so that what changes on the machine changes for both. The server's figure holds all that it
//! does: HTTP, signatures, encoding, the sweep.

use std::io;

use crate::generator::figures::Spread;
use crate::generator::report::Report;
use crate::senders::{self, Method, Schedule, Sender};
use crate::{Common, Load, begin, schedule as scheduled, subscribe};
use outpour::load::clients::Clients;
use outpour::load::orders::{Command, Count};
use outpour::load::publisher::Publisher;
use outpour::load::server::Server;

/// The server's CPU time per delivery may be so many times that of naked sends.
const RATIO_MAX: f64 = 1.05;

struct Round {
    cpu_us: f64,
    messages_per_visit: f64,
    count: Count,
}

pub fn measure(
    common: &Common,
    loads: &[Load],
    rounds: usize,
    seconds: u64,
    report: &mut Report,
) -> io::Result<()> {
    for load in loads {
        let per_second = load
            .per_second
            .ok_or_else(|| io::Error::other("a paced load needs a pace"))?;
        let schedule = Schedule {
            messages: (per_second * seconds as f64).max(1.0) as u64,
            per_second,
            data_bytes: common.data_bytes,
            one_a_visit: false,
        };
        compare(common, load.subscribers, &schedule, rounds, report)?;
    }
    Ok(())
}

fn compare(
    common: &Common,
    subscribers: usize,
    schedule: &Schedule,
    rounds: usize,
    report: &mut Report,
) -> io::Result<()> {
    report.say(format_args!(
        "paced: {subscribers} subscribers, {} messages a second, {} bytes of data, {rounds} rounds of {:.0} s, \
         {} shards on cores {}",
        schedule.per_second,
        schedule.data_bytes,
        schedule.messages as f64 / schedule.per_second,
        common.server.shards,
        common.server.cores,
    ));
    report.say(
        "round  sender  CPU us/delivery  messages/visit  bytes/message  p50 ms  p99 ms  max ms  wrong  ratio",
    );
    let server = common.server.start()?;
    let mut subscribed = subscribe(common, &server, subscribers)?;
    let mut publisher = crate::publisher(common, &server, 1, 32)?;
    let (mut sender, mut naked_readers) = naked(common, subscribers)?;

    let mut naked_us = Vec::new();
    let mut served_us = Vec::new();
    let mut ratios = Vec::new();
    // Round 0 warms both up and counts for nothing.
    for round in 0..=rounds {
        subscribed.carry_out(Command::Heartbeat)?;
        let naked = naked_round(&mut sender, &mut naked_readers, schedule)?;
        let served = served_round(&server, &mut publisher, &mut subscribed, schedule)?;
        let ratio = served.cpu_us / naked.cpu_us;
        report.say(line(round, "naked", &naked, schedule));
        let served_line = line(round, "server", &served, schedule);
        report.say(format_args!("{served_line}  {ratio:>5.3}"));
        if round > 0 {
            naked_us.push(naked.cpu_us);
            served_us.push(served.cpu_us);
            ratios.push(ratio);
        }
    }

    let (naked, served) = (Spread::of(&naked_us), Spread::of(&served_us));
    let pairs = Spread::of(&ratios);
    let ratio = served.median / naked.median;
    report.say(format_args!(
        "naked   {:.3} us ({:.3} to {:.3})   server  {:.3} us ({:.3} to {:.3})",
        naked.median, naked.lowest, naked.highest, served.median, served.lowest, served.highest
    ));
    report.say(format_args!(
        "ratio   {ratio:.3} of the medians; round by round {:.3} ({:.3} to {:.3}); at most {RATIO_MAX}: {}",
        pairs.median,
        pairs.lowest,
        pairs.highest,
        if ratio <= RATIO_MAX { "met" } else { "MISSED" }
    ));
    report.say("");
    Ok(())
}

/// Naked sends from the server's (first) core, and their readers.
pub fn naked(common: &Common, sockets: usize) -> io::Result<(Sender, Clients)> {
    let core = common.server.core_numbers()?[0];
    let mut sender = Sender::start(&senders::Orders {
        method: Method::Ring,
        core,
        sockets,
    })?;
    let readers = common
        .generator
        .silent(sender.address, sockets, common.sample)?;
    sender.accepted()?;
    Ok((sender, readers))
}

fn naked_round(
    sender: &mut Sender,
    readers: &mut Clients,
    schedule: &Schedule,
) -> io::Result<Round> {
    readers.carry_out(begin(schedule.data_bytes))?;
    let tally = sender.run(schedule)?;
    Ok(Round {
        cpu_us: tally.cpu_us_per_delivery(),
        messages_per_visit: tally.messages_per_visit(),
        count: readers.drained(schedule.messages, 5_000)?,
    })
}

fn served_round(
    server: &Server,
    publisher: &mut Publisher,
    readers: &mut Clients,
    schedule: &Schedule,
) -> io::Result<Round> {
    readers.carry_out(begin(schedule.data_bytes))?;
    let metrics = server.metrics()?;
    let cpu_before_ns = server.cpu_ns()?;
    let seconds = schedule.messages as f64 / schedule.per_second;
    publisher.run(scheduled(Some(schedule.per_second), seconds))?;
    let count = readers.drained(schedule.messages, 5_000)?;
    let cpu_ns = server.cpu_ns()? - cpu_before_ns;
    let after = server.metrics()?;
    let grown = |name: &str| after.sum(name) - metrics.sum(name);
    Ok(Round {
        cpu_us: cpu_ns as f64 / 1e3 / count.messages.max(1) as f64,
        messages_per_visit: grown("outpour_deliveries_total") / grown("outpour_sends_total"),
        count,
    })
}

fn line(round: usize, sender: &str, figures: &Round, schedule: &Schedule) -> String {
    let deliveries = &figures.count.deliveries;
    let latency_ms = |at| deliveries.quantile_us(at).unwrap_or(0) as f64 / 1e3;
    format!(
        "{round:>5}  {sender:<6}  {:>15.3}  {:>14.1}  {:>13}  {:>6.1}  {:>6.1}  {:>6.1}  {:>5}",
        figures.cpu_us,
        figures.messages_per_visit,
        figures.count.frame_bytes.unwrap_or(0),
        latency_ms(0.5),
        latency_ms(0.99),
        latency_ms(1.0),
        figures.count.wrong(schedule.messages),
    )
}
