//! The naked cost of writing one message to N connected sockets: the floor under every server.
//!
//! Four ways to the kernel send the same log to the same kind of sockets, paced (one message a
//! visit) and flat out (all that arrived since the last visit, in one send), both to many sockets
//! whose memory is cold when they are visited, and hot: one message a visit, and the next visit to
//! the same socket at once.

use std::io;

use clap::Parser;

#[path = "../generator/mod.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod generator;
mod senders;

use generator::Generator;
use generator::figures::Spread;
use generator::report::Report;
use outpour::load::orders::Command;
use senders::{Method, Schedule, Sender, Tally};

/// Measures naked sends to many connected sockets.
#[derive(Parser)]
struct Options {
    /// Sockets and messages a second, one visit a message.
    #[arg(long, value_delimiter = ',', default_value = "2000x20")]
    paced: Vec<String>,
    /// Sockets and messages a second, as many messages a visit as have arrived.
    #[arg(long, value_delimiter = ',', default_value = "1000x5000")]
    flat_out: Vec<String>,
    /// Sockets that are visited again and again, one message a visit.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    hot: Vec<usize>,
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Method::ALL)]
    methods: Vec<Method>,
    /// The event's data, in bytes; the frame around it takes 43 to 51 more.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "64,128,512,2048,8192,65536"
    )]
    data_bytes: Vec<usize>,
    /// Length of a run.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The core of the sender.
    #[arg(long, default_value_t = 0)]
    core: usize,
    #[command(flatten)]
    generator: Generator,
}

/// A log that would be longer is cut: it lies in memory as a whole.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// What one run sends at most, so that runs with large messages end.
const RUN_BYTES_MAX: u64 = 4 << 30;
/// A paced run with larger messages has fewer of them a second, or it would not keep its pace.
const PACED_BYTES_PER_SECOND_MAX: f64 = 256e6;
/// Messages of a hot run, each of them due when it begins.
const HOT_MESSAGES: u64 = 50_000;

/// What is sent to how many sockets.
#[derive(Clone, Copy)]
struct Load {
    sockets: usize,
    pace: Pace,
}

#[derive(Clone, Copy)]
enum Pace {
    /// So many messages a second arrive, so slowly that each visit takes one.
    Paced(f64),
    /// So many messages a second arrive, and a visit takes all that have.
    FlatOut(f64),
    /// Everything has arrived, and a visit takes one message.
    Hot,
}

impl Load {
    fn schedule(&self, data_bytes: usize, seconds: u64) -> Schedule {
        let (data, sockets) = (data_bytes as u64, self.sockets as u64);
        let scheduled = |per_second: f64| (per_second * seconds as f64).max(1.0) as u64;
        let (messages, per_second) = match self.pace {
            Pace::Paced(per_second) => {
                let most = PACED_BYTES_PER_SECOND_MAX / (data * sockets) as f64;
                let per_second = per_second.min(most);
                (scheduled(per_second), per_second)
            }
            Pace::FlatOut(per_second) => (scheduled(per_second), per_second),
            Pace::Hot => (HOT_MESSAGES, 1e9),
        };
        let most = (LOG_BYTES_MAX / data).min(RUN_BYTES_MAX / (data * sockets));
        Schedule {
            messages: messages.min(most.max(1)),
            per_second,
            data_bytes,
            one_a_visit: match self.pace {
                Pace::Paced(_) | Pace::FlatOut(_) => false,
                Pace::Hot => true,
            },
        }
    }
}

fn main() -> io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some(outpour::load::orders::ROLE) => return outpour::load::clients::serve(),
        Some(senders::ROLE) => return senders::serve(),
        Some(_) | None => {}
    }
    let options = Options::parse();
    let mut report = options.generator.begin("roofline")?;
    for load in &options.paced {
        let (sockets, per_second) = parse(load)?;
        let pace = Pace::Paced(per_second);
        measure(&options, "paced", Load { sockets, pace }, &mut report)?;
    }
    for load in &options.flat_out {
        let (sockets, per_second) = parse(load)?;
        let pace = Pace::FlatOut(per_second);
        measure(&options, "flat out", Load { sockets, pace }, &mut report)?;
    }
    for sockets in &options.hot {
        let load = Load {
            sockets: *sockets,
            pace: Pace::Hot,
        };
        measure(&options, "hot", load, &mut report)?;
    }
    report.finish()
}

/// Sockets, and messages a second.
fn parse(text: &str) -> io::Result<(usize, f64)> {
    let load = text
        .split_once('x')
        .and_then(|(sockets, per_second)| Some((sockets.parse().ok()?, per_second.parse().ok()?)));
    load.ok_or_else(|| io::Error::other(format!("{text}: SOCKETSxPER_SECOND, please")))
}

fn measure(options: &Options, title: &str, load: Load, report: &mut Report) -> io::Result<()> {
    let pace = match load.pace {
        Pace::Paced(per_second) | Pace::FlatOut(per_second) => {
            format!("{per_second} messages a second")
        }
        Pace::Hot => "one message a visit, visit after visit".to_owned(),
    };
    report.say(format_args!(
        "{title}: {} sockets, {pace}, {} rounds of {} s",
        load.sockets, options.rounds, options.seconds
    ));
    report.say(
        " bytes  method       CPU us/delivery  (lowest highest)  deliveries/s  messages/visit  \
         calls/delivery  lap max ms  p50 ms  p99 ms  wrong",
    );
    for data_bytes in &options.data_bytes {
        let schedule = load.schedule(*data_bytes, options.seconds);
        for method in &options.methods {
            let line = measure_method(options, *method, load.sockets, &schedule)?;
            report.say(format_args!("{data_bytes:>6}  {line}"));
        }
    }
    report.say("");
    Ok(())
}

fn measure_method(
    options: &Options,
    method: Method,
    sockets: usize,
    schedule: &Schedule,
) -> io::Result<String> {
    let mut sender = Sender::start(&senders::Orders {
        method,
        core: options.core,
        sockets,
    })?;
    let mut readers = options.generator.silent(sender.address, sockets, 16)?;
    sender.accepted()?;

    let mut runs: Vec<Tally> = Vec::new();
    let mut wrong = 0;
    let (mut p50_us, mut p99_us) = (0, 0);
    for _ in 0..options.rounds {
        readers.carry_out(Command::Begin {
            frame_bytes: Some(senders::frame_bytes(schedule.data_bytes)),
        })?;
        runs.push(sender.run(schedule)?);
        let count = readers.drained(schedule.messages, 5_000)?;
        wrong += count.wrong(schedule.messages);
        let latency_us = |at| count.deliveries.quantile_us(at).unwrap_or(0);
        p50_us = p50_us.max(latency_us(0.5));
        p99_us = p99_us.max(latency_us(0.99));
    }

    let of = |figure: fn(&Tally) -> f64| Spread::of(&runs.iter().map(figure).collect::<Vec<_>>());
    let cpu = of(Tally::cpu_us_per_delivery);
    let calls = match runs.iter().map(|run| run.system_calls).sum::<Option<u64>>() {
        Some(calls) => {
            let deliveries: u64 = runs.iter().map(|run| run.deliveries).sum();
            format!("{:.4}", calls as f64 / deliveries as f64)
        }
        None => "unseen".to_owned(),
    };
    let lap_us_max = runs.iter().map(|run| run.lap_us_max).max().unwrap_or(0);
    Ok(format!(
        "{:<12} {:>15.3}  ({:>6.3} {:>7.3})  {:>12.0}  {:>14.1}  {calls:>14}  {:>10.1}  {:>6.1}  {:>6.1}  {wrong:>5}",
        method.name(),
        cpu.median,
        cpu.lowest,
        cpu.highest,
        of(Tally::deliveries_per_second).median,
        of(Tally::messages_per_visit).median,
        lap_us_max as f64 / 1e3,
        p50_us as f64 / 1e3,
        p99_us as f64 / 1e3,
    ))
}
