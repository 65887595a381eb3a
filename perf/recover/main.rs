//! Subscribers that were dropped come back, all at once, while others go on: what they get, how long
//! it takes, and what that does to the others and to the server's memory.
//!
//! ```text
//! deep readers come, are dropped one by one      behind them the whole backlog is published,
//! returning readers come, are dropped likewise   behind them the last part of it
//! live subscribers come                          events at a pace, without and with those who
//! all readers come back                          catch up: the delay of the live ones
//! ```
//!
//! Every reader checks every serial, over both of its connections, and a checksum over all that it
//! got, against one who was there from the first event on.

use std::io;
use std::thread;
use std::time::Duration;

use clap::Parser;
use outpour::load::clients::Clients;
use outpour::load::companion::Companion;
use outpour::load::machine::monotonic_ns;
use outpour::load::orders::{self, Command as Order, Count};
use outpour::load::publisher::http::{BATCH_MAX, Form};
use outpour::load::publisher::schedule::Schedule;
use outpour::load::publisher::{self, Publisher, State, Tally};
use outpour::load::result::LatencyHistogram;
use outpour::load::server::{Server, built_in_app};

#[path = "../generator/mod.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod generator;
mod loopback;
mod reader;
mod returning;
mod rolling;
#[path = "../serving/mod.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod serving;

use generator::Generator;
use generator::report::Report;
use returning::{Answer, Command, Compared, Returned};

/// The server's memory may grow by so much while readers catch up.
const MEMORY_RATIO_MAX: f64 = 1.05;
/// The delay of live subscribers, at 99 %, may be so many times that without readers.
const DELAY_RATIO_MAX: f64 = 1.5;
/// Subscribers and backlog of the case that the targets speak of.
const FULL_RETURNING: u64 = 2_000;
const FULL_BACKLOG: u64 = 1_000_000;

/// Events during which a group's readers are dropped, each behind another one.
const SPREAD: u64 = 100;
/// The server's memory is looked at as often as this.
const LOOK: Duration = Duration::from_millis(250);
const MIB: f64 = (1 << 20) as f64;

/// Drops subscribers and lets them catch up.
#[derive(Parser)]
struct Options {
    /// Subscribers that stay.
    #[arg(long, default_value_t = 8_000)]
    live: usize,
    /// Subscribers that are dropped, and come back against the last part of the backlog.
    #[arg(long, default_value_t = 2_000)]
    returning: usize,
    /// Events that each of those has missed, at least.
    #[arg(long, default_value_t = 200_000)]
    missed: u64,
    /// Subscribers that were dropped before the backlog, and come back against all of it.
    #[arg(long, default_value_t = 20)]
    deep: usize,
    /// Events that are published while they are away. --missed 1000000 --deep 0 lets all that come
    /// back miss as many: 350 GiB over loopback, and six minutes or more.
    #[arg(long, default_value_t = 1_000_000)]
    backlog: u64,
    /// Events a second to the live subscribers.
    #[arg(long, default_value_t = 5.0)]
    pace: f64,
    /// How long the delay without readers is measured.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The event's data, in bytes.
    #[arg(long, default_value_t = 128)]
    data_bytes: usize,
    /// Live subscribers whose every frame is decoded and checked.
    #[arg(long, default_value_t = 64)]
    sample: usize,
    #[command(flatten)]
    server: serving::Options,
    #[command(flatten)]
    generator: Generator,
}

fn main() -> io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some(orders::ROLE) => return outpour::load::clients::serve(),
        Some(returning::ROLE) => return returning::serve(),
        Some(_) | None => {}
    }
    let options = Options::parse();
    let mut report = options.generator.begin("recover")?;
    let core = options.server.core_numbers()?[0];
    let sockets = (options.returning + options.deep).max(1);
    let loopback = loopback::bytes_per_second(core, options.generator.readers_core, sockets, 5)?;
    report.say(format_args!(
        "loopback alone: {:.0} MiB a second over {sockets} sockets, 64 KiB a write, no frames, nothing checked",
        loopback / MIB
    ));
    let mut stand = Stand::new(options)?;
    stand.fill(&mut report)?;
    let live = stand.live(&mut report)?;
    stand.catch_up(live, loopback, &mut report)?;
    report.finish()
}

struct Stand {
    options: Options,
    server: Server,
    readers: Companion,
    batches: Publisher,
    published: u64,
}

impl Stand {
    fn new(options: Options) -> io::Result<Stand> {
        if options.missed == 0 || options.missed > options.backlog {
            let why = "what readers have missed is some of the backlog, or all of it";
            return Err(io::Error::other(why));
        }
        let mut server = options.server.clone();
        server.settings = settings(&options);
        let server = server.start()?;
        let mut readers = Companion::start(returning::ROLE)?;
        readers.tell(&returning::Orders {
            target: server.address,
            key: built_in_app().key,
            channel: generator::CHANNEL.to_owned(),
            event: generator::EVENT.to_owned(),
            groups: vec![options.deep, options.returning],
            spread: SPREAD,
        })?;
        settled(&mut readers)?;
        let batches = publisher(&options, &server, BATCH_MAX)?;
        Ok(Stand {
            options,
            server,
            readers,
            batches,
            published: 0,
        })
    }

    /// Publishes the backlog; meanwhile the readers come and are dropped.
    fn fill(&mut self, report: &mut Report) -> io::Result<()> {
        let Options {
            backlog, missed, ..
        } = self.options;
        let start_ns = monotonic_ns();
        self.drop_group(0)?;
        self.publish(backlog - missed)?;
        self.drop_group(1)?;
        self.publish(missed)?;
        let seconds = (monotonic_ns() - start_ns) as f64 / 1e9;
        let retained = self.server.metrics()?.sum("outpour_retained_bytes");
        report.say(format_args!(
            "backlog: {} events, {:.0} MiB retained, {:.0} B each; published in {seconds:.1} s",
            self.published,
            retained / MIB,
            retained / self.published as f64,
        ));
        report.say(format_args!(
            "dropped: {} subscribers with {} to {} events before them, and {} with {missed} to {}",
            self.options.deep,
            backlog + SPREAD,
            backlog + 2 * SPREAD,
            self.options.returning,
            missed + SPREAD,
        ));
        Ok(())
    }

    /// A group comes, and each reader is dropped in the midst of events.
    fn drop_group(&mut self, group: usize) -> io::Result<()> {
        self.readers.tell(&Command::Come { group })?;
        settled(&mut self.readers)?;
        self.publish(SPREAD)?;
        self.readers.tell(&Command::Dropped { group })?;
        settled(&mut self.readers)
    }

    /// As fast as the server takes them.
    fn publish(&mut self, events: u64) -> io::Result<()> {
        if events == 0 {
            return Ok(());
        }
        let tally = self.batches.run(Schedule {
            length_ns: events * 1_000,
            ..schedule(1e6)
        })?;
        self.account(&tally)
    }

    fn account(&mut self, tally: &Tally) -> io::Result<()> {
        self.published += tally.accepted;
        if tally.accepted != tally.published {
            let why = format!("the server did not take every event: {tally:?}");
            return Err(io::Error::other(why));
        }
        Ok(())
    }

    /// The live subscribers come, and their delay is measured while nobody catches up.
    fn live(&mut self, report: &mut Report) -> io::Result<Live> {
        let options = &self.options;
        let mut clients = options.generator.start_pusher(
            self.server.address,
            &built_in_app().key,
            generator::shared(),
            options.live,
            options.sample,
        )?;
        clients.carry_out(Order::Open {
            clients: options.live,
            per_second: None,
        })?;
        let mut publisher = publisher(options, &self.server, 1)?;
        // The unit learns how long an event is, which holds while its serial has as many digits.
        let tally = publisher.run(Schedule {
            length_ns: 1_000_000_000,
            ..schedule(self.options.pace)
        })?;
        self.account(&tally)?;
        clients.quiet(500)?;
        let before = self.published;
        clients.carry_out(Order::Begin { frame_bytes: None })?;
        let tally = publisher.run(Schedule {
            length_ns: self.options.seconds * 1_000_000_000,
            ..schedule(self.options.pace)
        })?;
        self.account(&tally)?;
        let count = clients.drained(tally.accepted, 5_000)?;
        report.say("");
        report.say(format_args!(
            "live: {} subscribers, {} events a second, from each event's due time to its receipt",
            self.options.live, self.options.pace
        ));
        report.say("readers       events   p50 ms   p99 ms   max ms  wrong");
        say_delay(report, "none", tally.accepted, &count);
        if before.ilog10() != (self.published + 100_000).ilog10() {
            report.say(
                "serials get another digit in this run: live subscribers that only count miscount",
            );
        }
        Ok(Live {
            clients,
            publisher,
            delay: count.deliveries,
        })
    }

    /// The readers come back while events are published to the live subscribers.
    fn catch_up(&mut self, live: Live, loopback: f64, report: &mut Report) -> io::Result<()> {
        let Live {
            mut clients,
            mut publisher,
            delay: without,
        } = live;
        clients.carry_out(Order::Begin { frame_bytes: None })?;
        let mut memory = Memory::begin(&self.server)?;
        let cpu_from_ns = self.server.cpu_ns()?;
        publisher.begin(Schedule {
            length_ns: 3_600_000_000_000,
            ..schedule(self.options.pace)
        })?;
        self.readers.tell(&Command::Return)?;
        let (server, readers) = (&self.server, &mut self.readers);
        let returned = thread::scope(|scope| {
            let hearing = scope.spawn(|| readers.hear::<Answer>());
            while !hearing.is_finished() {
                if let State::Done(tally) = publisher.wait(LOOK)? {
                    let why = format!("the publisher ended early: {tally:?}");
                    return Err(io::Error::other(why));
                }
                memory.look(server)?;
            }
            hearing.join().expect("it does not panic")
        })?;
        let server_cpu_ns = self.server.cpu_ns()? - cpu_from_ns;
        let Answer::Returned(returned) = returned else {
            return Err(unexpected(returned));
        };
        publisher.stop()?;
        let tally = loop {
            if let State::Done(tally) = publisher.wait(LOOK)? {
                break tally;
            }
        };
        self.account(&tally)?;
        let count = clients.drained(tally.accepted, 10_000)?;
        say_delay(report, "catch up", tally.accepted, &count);
        say_delay_ratio(report, &without, &count.deliveries);

        self.say_returned(report, &returned, loopback, server_cpu_ns);
        memory.look(&self.server)?;
        memory.say(report);
        let serial = self.published;
        self.readers.tell(&Command::Compare { serial })?;
        match self.readers.hear()? {
            Answer::Compared(compared) => say_compared(report, &compared),
            other => return Err(unexpected(other)),
        }
        let metrics = self.server.metrics()?;
        report.say(format_args!(
            "server: {:.0} resumed, {:.0} of them too late, {:.0} gaps, {:.0} closed as slow, longest turn {:.1} ms",
            metrics.sum("outpour_resumes_recovered_total"),
            metrics.sum("outpour_resumes_late_total"),
            metrics.sum("outpour_gaps_total"),
            metrics.sum("outpour_slow_closed_total"),
            metrics.highest("outpour_longest_turn_us") / 1e3,
        ));
        Ok(())
    }

    fn say_returned(
        &self,
        report: &mut Report,
        returned: &Returned,
        loopback: f64,
        server_cpu_ns: u64,
    ) {
        report.say("");
        report.say("caught up        readers    missed  first s  p50 s  p99 s  last s");
        let Options {
            missed, backlog, ..
        } = self.options;
        let groups = [("after all of it", backlog), ("after a part", missed)];
        for ((name, missed), times) in groups.into_iter().zip(&returned.caught_up) {
            let s = |quantile| times.quantile_us(quantile).unwrap_or(0) as f64 / 1e6;
            report.say(format_args!(
                "{name:<15}  {:>7}  {missed:>8}  {:>7.2}  {:>5.2}  {:>5.2}  {:>6.2}",
                times.count(),
                s(0.0),
                s(0.5),
                s(0.99),
                s(1.0)
            ));
        }
        let seconds = returned.wall_ns as f64 / 1e9;
        let rate = returned.bytes as f64 / seconds;
        report.say(format_args!(
            "read: {:.0} MiB, {} events in {seconds:.1} s: {:.0} MiB and {:.0} events a second; {:.0} % of loopback's rate",
            returned.bytes as f64 / MIB,
            returned.events,
            rate / MIB,
            returned.events as f64 / seconds,
            rate / loopback * 100.0
        ));
        report.say(format_args!(
            "CPU meanwhile: server {:.0} %, with the live subscribers' events; readers, who check everything, {:.0} %",
            server_cpu_ns as f64 / returned.wall_ns as f64 * 100.0,
            returned.cpu_ns as f64 / returned.wall_ns as f64 * 100.0,
        ));
        let bytes_each = returned.bytes as f64 / returned.events.max(1) as f64;
        let full = FULL_RETURNING as f64 * FULL_BACKLOG as f64 * bytes_each;
        report.say(format_args!(
            "estimate, not measured: {FULL_RETURNING} readers with {FULL_BACKLOG} events each are {:.0} GiB, at this \
             rate {:.0} s; loopback alone would take {:.0} s",
            full / MIB / 1024.0,
            full / rate,
            full / loopback
        ));
    }
}

/// The live subscribers, and who publishes to them.
struct Live {
    clients: Clients,
    publisher: Publisher,
    /// Their delay while nobody catches up.
    delay: LatencyHistogram,
}

/// The server's resident memory, before the readers come back and while they catch up.
struct Memory {
    before: u64,
    most: u64,
    looks: u64,
    looked_ns: u64,
}

impl Memory {
    fn begin(server: &Server) -> io::Result<Memory> {
        let before = server.resident_bytes()?;
        Ok(Memory {
            before,
            most: before,
            looks: 0,
            looked_ns: monotonic_ns(),
        })
    }

    fn look(&mut self, server: &Server) -> io::Result<()> {
        if monotonic_ns() - self.looked_ns > LOOK.as_nanos() as u64 {
            self.looked_ns = monotonic_ns();
            self.looks += 1;
            self.most = self.most.max(server.resident_bytes()?);
        }
        Ok(())
    }

    fn say(&self, report: &mut Report) {
        let ratio = self.most as f64 / self.before as f64;
        report.say(format_args!(
            "memory: {:.1} MiB before, at most {:.1} MiB in {} looks: {ratio:.3} times, at most {MEMORY_RATIO_MAX}: {}",
            self.before as f64 / MIB,
            self.most as f64 / MIB,
            self.looks,
            verdict(ratio <= MEMORY_RATIO_MAX)
        ));
    }
}

/// Room for everything that is published, and for what the live ones get.
fn settings(options: &Options) -> Vec<String> {
    let events = options.backlog + 1_000_000;
    let bytes = events * (options.data_bytes as u64 + 200);
    [
        ("--retained-channels", generator::CHANNEL.to_owned()),
        ("--retention-messages-max", events.to_string()),
        ("--retention-bytes-max", bytes.to_string()),
        ("--retention-bytes-per-shard-max", bytes.to_string()),
        ("--retention-age-s", "86400".to_owned()),
        // Nobody here answers pings.
        ("--activity-timeout-s", "86400".to_owned()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect()
}

/// A back end that publishes over one connection, so that its events are in order.
fn publisher(options: &Options, server: &Server, batch: usize) -> io::Result<Publisher> {
    Publisher::start(publisher::Orders {
        core: Some(options.generator.readers_core),
        channels: vec![generator::CHANNEL.to_owned()],
        event: generator::EVENT.to_owned(),
        data_bytes: options.data_bytes,
        http: Some(publisher::Http {
            address: server.address,
            form: Form::Pusher {
                prefix: String::new(),
                app: built_in_app(),
                keys: 0,
            },
            connections: 1,
            window: 32,
            batch,
        }),
        events: None,
    })
}

/// What one publisher sends to one channel, from now on; its length is the caller's.
fn schedule(per_second: f64) -> Schedule {
    Schedule {
        start_ns: monotonic_ns() + 10_000_000,
        per_second: Some(per_second),
        length_ns: 0,
        channels: 1,
        publishers: 1,
    }
}

fn settled(readers: &mut Companion) -> io::Result<()> {
    match readers.hear()? {
        Answer::Settled => Ok(()),
        other => Err(unexpected(other)),
    }
}

fn unexpected(answer: Answer) -> io::Error {
    match answer {
        Answer::Failed(why) => io::Error::other(why),
        Answer::Settled | Answer::Returned(_) | Answer::Compared(_) => {
            io::Error::other("the readers' answer is one to another command")
        }
    }
}

fn say_delay(report: &mut Report, readers: &str, events: u64, count: &Count) {
    let ms = |quantile| count.deliveries.quantile_us(quantile).unwrap_or(0) as f64 / 1e3;
    report.say(format_args!(
        "{readers:<11}  {events:>7}  {:>7.1}  {:>7.1}  {:>7.1}  {:>5}",
        ms(0.5),
        ms(0.99),
        ms(1.0),
        count.wrong(events)
    ));
}

fn say_delay_ratio(report: &mut Report, without: &LatencyHistogram, with: &LatencyHistogram) {
    let us = |delay: &LatencyHistogram| delay.quantile_us(0.99).unwrap_or(0) as f64;
    let ratio = us(with) / us(without).max(1.0);
    report.say(format_args!(
        "p99 with readers that catch up: {ratio:.2} times that without, at most {DELAY_RATIO_MAX}: {}",
        verdict(ratio <= DELAY_RATIO_MAX)
    ));
}

fn say_compared(report: &mut Report, compared: &Compared) {
    report.say(format_args!(
        "checked: {} readers, {} events, each serial and all checksums; wrong: {}, must be 0: {}",
        compared.readers,
        compared.events,
        compared.wrong,
        verdict(compared.wrong == 0)
    ));
    for fault in &compared.faults {
        report.say(format_args!("  {fault}"));
    }
}

fn verdict(is_met: bool) -> &'static str {
    match is_met {
        true => "met",
        false => "MISSED",
    }
}
