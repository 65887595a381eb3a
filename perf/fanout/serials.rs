//! What serials, history and retention cost: a channel without them and one with them, on one server,
//! each with its own subscribers, who are connected the whole time. Rounds alternate.
//!
//! Names and data have one length, so what differs on the wire is the serial. It has six digits all
//! the time, and the channel retains as many events as it may from the first round on, so that each
//! event that comes evicts one.

use std::io;

use crate::generator::figures::Spread;
use crate::generator::report::Report;
use crate::{Common, Load, publisher_to, schedule};
use outpour::load::clients::Clients;
use outpour::load::orders::{Access, Channels, Command, Count};
use outpour::load::publisher::Publisher;
use outpour::load::publisher::http::BATCH_MAX;
use outpour::load::publisher::schedule::Schedule;
use outpour::load::server::{Server, built_in_app};

/// CPU time per delivery with serials may be so many times that without.
const RATIO_MAX: f64 = 1.05;
/// Events before the first round: those that follow have serials of six digits, 900,000 of them.
const BEFORE: u64 = 100_000;
/// From so many messages a second on, calls carry as many as they may.
const FLOOD_PER_SECOND: f64 = 1_000.0;

/// The channels, by one length.
const PLAIN: &str = "plain";
const SERIAL: &str = "seria";

/// One channel with its subscribers.
struct Side {
    name: &'static str,
    clients: Clients,
    publisher: Publisher,
    cpu_us: Vec<f64>,
    frame_bytes: u64,
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
            .ok_or_else(|| io::Error::other("a load with serials needs a pace"))?;
        compare(
            common,
            load.subscribers,
            (per_second, seconds as f64),
            rounds,
            report,
        )?;
    }
    Ok(())
}

fn compare(
    common: &Common,
    subscribers: usize,
    (per_second, seconds): (f64, f64),
    rounds: usize,
    report: &mut Report,
) -> io::Result<()> {
    let batch = match per_second < FLOOD_PER_SECOND {
        true => 1,
        false => BATCH_MAX,
    };
    report.say(format_args!(
        "serials: {subscribers} subscribers each, {per_second} messages a second, {} bytes of data, {batch} a call, \
         {rounds} rounds of {seconds:.0} s, {} shards on cores {}",
        common.data_bytes, common.server.shards, common.server.cores,
    ));
    report.say("round  channel  CPU us/delivery  messages/visit  bytes/message  p50 ms  p99 ms  max ms  wrong  ratio");
    let mut options = common.server.clone();
    options.settings = ["--retained-channels", SERIAL].map(str::to_owned).to_vec();
    let server = options.start()?;
    fill(common, &server)?;
    let mut sides = [
        side(PLAIN, common, &server, subscribers, batch)?,
        side(SERIAL, common, &server, subscribers, batch)?,
    ];
    let mut ratios = Vec::new();
    // Round 0 warms both up and counts for nothing.
    for round in 0..=rounds {
        let mut of_round = [0.0; 2];
        // Neither is always the first.
        for place in [round % 2, 1 - round % 2] {
            let side = &mut sides[place];
            side.clients.carry_out(Command::Heartbeat)?;
            let (cpu_us, line) = run(side, &server, round, (per_second, seconds))?;
            report.say(line);
            of_round[place] = cpu_us;
        }
        let ratio = of_round[1] / of_round[0];
        if round > 0 {
            ratios.push(ratio);
            for (side, cpu_us) in sides.iter_mut().zip(of_round) {
                side.cpu_us.push(cpu_us);
            }
        }
        report.say(format_args!("{:>88}  {ratio:>5.3}", ""));
    }
    say_result(&sides, &ratios, report);
    Ok(())
}

/// Gives the channel with serials as many events as their digits need.
fn fill(common: &Common, server: &Server) -> io::Result<()> {
    let mut publisher = publisher_to(SERIAL, common, server, BATCH_MAX, 32)?;
    let tally = publisher.run(Schedule {
        per_second: Some(1e6),
        length_ns: BEFORE * 1_000,
        ..schedule(None, 0.0)
    })?;
    match tally.accepted {
        BEFORE => Ok(()),
        accepted => Err(io::Error::other(format!("{accepted} of {BEFORE} accepted"))),
    }
}

fn side(
    name: &'static str,
    common: &Common,
    server: &Server,
    subscribers: usize,
    batch: usize,
) -> io::Result<Side> {
    let channels = Channels::Shared {
        access: Access::Public,
        name: name.to_owned(),
        count: 1,
    };
    let mut clients = common.generator.start_pusher(
        server.address,
        &built_in_app().key,
        channels,
        subscribers,
        common.sample,
    )?;
    clients.carry_out(Command::Open {
        clients: subscribers,
        per_second: None,
    })?;
    let mut publisher = publisher_to(name, common, server, batch, 32)?;
    // The clients learn how long a message is.
    publisher.run(schedule(Some(100.0), 0.1))?;
    clients.quiet(300)?;
    Ok(Side {
        name,
        clients,
        publisher,
        cpu_us: Vec::new(),
        frame_bytes: 0,
    })
}

/// One round on one channel: CPU time per delivery, and the line that tells it.
fn run(
    side: &mut Side,
    server: &Server,
    round: usize,
    (per_second, seconds): (f64, f64),
) -> io::Result<(f64, String)> {
    side.clients
        .carry_out(Command::Begin { frame_bytes: None })?;
    let before = server.metrics()?;
    let cpu_before_ns = server.cpu_ns()?;
    let tally = side.publisher.run(schedule(Some(per_second), seconds))?;
    let count = side.clients.drained(tally.accepted, 5_000)?;
    let cpu_ns = server.cpu_ns()? - cpu_before_ns;
    let after = server.metrics()?;
    let grown = |name: &str| after.sum(name) - before.sum(name);
    let visits = grown("outpour_deliveries_total") / grown("outpour_sends_total").max(1.0);
    side.frame_bytes = count.frame_bytes.unwrap_or(0);
    let cpu_us = cpu_ns as f64 / 1e3 / count.messages.max(1) as f64;
    Ok((
        cpu_us,
        line(round, side, cpu_us, visits, &count, tally.accepted),
    ))
}

fn line(
    round: usize,
    side: &Side,
    cpu_us: f64,
    messages_per_visit: f64,
    count: &Count,
    accepted: u64,
) -> String {
    let latency_ms = |at| count.deliveries.quantile_us(at).unwrap_or(0) as f64 / 1e3;
    format!(
        "{round:>5}  {:<7}  {cpu_us:>15.3}  {messages_per_visit:>14.1}  {:>13}  {:>6.1}  {:>6.1}  {:>6.1}  {:>5}",
        side.name,
        side.frame_bytes,
        latency_ms(0.5),
        latency_ms(0.99),
        latency_ms(1.0),
        count.wrong(accepted),
    )
}

fn say_result(sides: &[Side; 2], ratios: &[f64], report: &mut Report) {
    let [plain, serial] = [0, 1].map(|place: usize| Spread::of(&sides[place].cpu_us));
    let pairs = Spread::of(ratios);
    let ratio = serial.median / plain.median;
    report.say(format_args!(
        "plain   {:.3} us ({:.3} to {:.3})   serials {:.3} us ({:.3} to {:.3})",
        plain.median, plain.lowest, plain.highest, serial.median, serial.lowest, serial.highest
    ));
    report.say(format_args!(
        "ratio   {ratio:.3} of the medians; round by round {:.3} ({:.3} to {:.3}); at most {RATIO_MAX}: {}",
        pairs.median,
        pairs.lowest,
        pairs.highest,
        if ratio <= RATIO_MAX { "met" } else { "MISSED" }
    ));
    let [plain, serial] = [0, 1].map(|place: usize| sides[place].frame_bytes);
    report.say(format_args!(
        "wire    {serial} bytes a message with a serial of six digits, {plain} without: {:.1} % more",
        (serial as f64 / plain.max(1) as f64 - 1.0) * 100.0
    ));
    report.say("");
}
