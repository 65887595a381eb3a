//! What slow readers cost the others, and the server: half of the subscribers of a channel read at a
//! tenth of the rate at which is published.
//!
//! Under each policy the fast half is measured without the slow one and with it, in turns. The server's
//! memory is read while all are subscribed and read, and again when the slow ones are stuck; what its
//! logs and its retained events have grown by meanwhile, by its own count, is theirs and not the
//! subscribers'. Some slow readers decode, and account for every serial.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

#[path = "../generator/mod.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod generator;
#[path = "../serving/mod.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod serving;
mod witness;

use generator::Generator;
use generator::figures::Spread;
use generator::report::Report;
use outpour::load::clients::Clients;
use outpour::load::machine::monotonic_ns;
use outpour::load::orders::{Command, Count, Manner};
use outpour::load::publisher::http::Form;
use outpour::load::publisher::schedule::Schedule;
use outpour::load::publisher::{self, Publisher};
use outpour::load::server::{Server, built_in_app};
use witness::{Seen, Witnesses};

/// The fast half's p99 may be so many times that without the slow half.
const RATIO_MAX: f64 = 1.2;
/// The server's own memory per blocked subscriber, above that of one that is idle.
const BYTES_MAX: f64 = 64.0;
/// Events that go ahead, so that all serials of a run have as many digits and all messages one length.
const EVENTS_AHEAD: f64 = 1_000.0;
/// Keys that events have in turns, fewer than the events by which a subscriber may be behind by default.
const KEYS: u32 = 50;
/// Memory is read so long after the last change.
const SETTLE: Duration = Duration::from_secs(2);
/// This share of the slow ones is behind before anything is measured.
const BEHIND_SHARE: f64 = 0.9;
/// They are waited for so long.
const FILL_MAX: Duration = Duration::from_secs(120);

/// Measures what slow readers cost.
#[derive(Parser)]
struct Options {
    /// What the server does about slow consumers, by its setting `slow`; `as-is` is a server without that
    /// setting.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "lag,latest,latest-per-key,disconnect"
    )]
    policies: Vec<String>,
    /// Subscribers of the one channel.
    #[arg(long, default_value_t = 10_000)]
    subscribers: usize,
    /// The share of them that is slow.
    #[arg(long, default_value_t = 0.5)]
    slow_share: f64,
    /// What a slow one reads of what is published.
    #[arg(long, default_value_t = 0.1)]
    slow_rate: f64,
    /// Events a second.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    #[arg(long, default_value_t = 1000)]
    data_bytes: usize,
    /// Measurements of each kind, one with and one without in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of a measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Fast readers that decode.
    #[arg(long, default_value_t = 200)]
    sample: usize,
    /// Slow readers that decode, each on a thread.
    #[arg(long, default_value_t = 8)]
    witnesses: usize,
    /// Receive buffer of slow readers: the server sees one when it is full.
    #[arg(long, default_value_t = 4096)]
    receive_buffer_bytes: u32,
    /// What the kernel may hold unsent of a socket, with --netns; by itself it is megabytes.
    #[arg(long, default_value_t = 65_536)]
    send_buffer_bytes: u32,
    #[command(flatten)]
    server: serving::Options,
    #[command(flatten)]
    generator: Generator,
}

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some(outpour::load::orders::ROLE) {
        return outpour::load::clients::serve();
    }
    let options = Options::parse();
    let mut report = options.generator.begin("slow")?;
    match options.generator.netns {
        true => bound_send_buffers(options.send_buffer_bytes)?,
        false => report.say(
            "without --netns: the kernel may hold megabytes for a slow reader before it is behind",
        ),
    }
    report.say(format_args!(
        "{} subscribers, {} of them read at {} of the rate; {} events a second of {} bytes, {} rounds of {} s",
        options.subscribers,
        options.slow(),
        options.slow_rate,
        options.rate,
        options.data_bytes,
        options.rounds,
        options.seconds,
    ));
    for policy in &options.policies {
        report.say("");
        Run::start(&options, policy)?.measure(policy, &mut report)?;
    }
    report.finish()
}

impl Options {
    fn slow(&self) -> usize {
        (self.subscribers as f64 * self.slow_share).round() as usize
    }

    fn fast(&self) -> usize {
        self.subscribers - self.slow()
    }
}

/// In our own namespace a socket's send buffer grows to so many bytes and no further (tcp_wmem, tcp(7)).
fn bound_send_buffers(bytes: u32) -> io::Result<()> {
    let first = bytes.min(16_384);
    std::fs::write(
        "/proc/sys/net/ipv4/tcp_wmem",
        format!("4096 {first} {bytes}"),
    )
}

/// A server with one policy, and its clients.
struct Run<'a> {
    options: &'a Options,
    server: Server,
    publisher: Publisher,
    fast: Clients,
    slow: Clients,
}

/// What the fast half saw.
struct Fast {
    p50_ms: f64,
    p99_ms: f64,
    wrong: u64,
    frame_bytes: u64,
}

/// What the server holds.
#[derive(Clone, Copy)]
struct Memory {
    resident: f64,
    logs: f64,
    retained: f64,
}

impl<'a> Run<'a> {
    fn start(options: &'a Options, policy: &str) -> io::Result<Run<'a>> {
        let mut server = options.server.clone();
        server.settings = vec!["--retained-channels".to_owned(), "*".to_owned()];
        if policy != "as-is" {
            server
                .settings
                .extend(["--slow".to_owned(), policy.to_owned()]);
        }
        let server = server.start()?;
        let mut publisher = Publisher::start(publisher::Orders {
            core: Some(options.generator.readers_core),
            channels: vec![generator::CHANNEL.to_owned()],
            event: generator::EVENT.to_owned(),
            data_bytes: options.data_bytes,
            http: Some(publisher::Http {
                address: server.address,
                form: Form::Pusher {
                    prefix: String::new(),
                    app: built_in_app(),
                    keys: KEYS,
                },
                connections: 1,
                window: 32,
                batch: 1,
            }),
            events: None,
        })?;
        publisher.run(schedule(EVENTS_AHEAD, 1.0))?;
        let key = built_in_app().key;
        let generator = &options.generator;
        let (address, channels) = (server.address, generator::shared());
        let mut fast = generator.start_pusher(
            address,
            &key,
            channels.clone(),
            options.fast(),
            options.sample,
        )?;
        open(&mut fast, options.fast())?;
        let slow = generator.start_narrow(
            address,
            &key,
            channels,
            options.slow().max(1),
            options.receive_buffer_bytes,
        )?;
        Ok(Run {
            options,
            server,
            publisher,
            fast,
            slow,
        })
    }

    fn measure(mut self, policy: &str, report: &mut Report) -> io::Result<()> {
        report.say(format_args!("policy {policy}"));
        report.say(
            "round  readers       p50 ms  p99 ms  wrong  behind  closed  memory B/slow reader, but for logs and retained",
        );
        // Nothing of a round is the first of its kind.
        self.publish(self.options.rate, 2.0)?;
        let (mut without, mut with, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        let mut all_seen = Seen::default();
        for round in 1..=self.options.rounds {
            let fast = self.fast_alone()?;
            report.say(format_args!(
                "{round:>5}  fast alone  {:>8.2}  {:>6.2}  {:>5}",
                fast.p50_ms, fast.p99_ms, fast.wrong
            ));
            without.push(fast.p99_ms);

            let before = self.bring_slow_ones()?;
            let bytes_per_second =
                (fast.frame_bytes as f64 * self.options.rate * self.options.slow_rate).ceil()
                    as u64;
            let witnesses = self.slow_down(bytes_per_second)?;
            self.fill()?;
            let fast = self.fast_alone()?;
            let after = self.memory()?;
            let behind = self.behind()?;
            let stalled = self.slow.count()?.stalled;
            all_seen.add(witnesses.end()?);
            let grown = after.resident - before.resident;
            let shared = after.logs - before.logs + after.retained - before.retained;
            let slow = self.options.slow().max(1) as f64;
            let each = (grown - shared) / slow;
            report.say(format_args!(
                "{round:>5}  with slow   {:>8.2}  {:>6.2}  {:>5}  {behind:>6.0}  {:>6}  {:>20.0}  {each:>26.0}",
                fast.p50_ms,
                fast.p99_ms,
                fast.wrong,
                stalled.closed,
                grown / slow,
            ));
            with.push(fast.p99_ms);
            bytes.push(each);
            self.send_slow_ones_away()?;
        }
        conclude(&without, &with, &bytes, &all_seen, report);
        Ok(())
    }

    /// What the fast half sees of so many seconds.
    fn fast_alone(&mut self) -> io::Result<Fast> {
        self.slow.carry_out(Command::Begin { frame_bytes: None })?;
        let count = self.publish(self.options.rate, self.options.seconds as f64)?;
        let ms = |at| count.deliveries.quantile_us(at).unwrap_or(0) as f64 / 1e3;
        let messages = (self.options.rate * self.options.seconds as f64) as u64;
        let frame_bytes = count.frame_bytes.ok_or_else(|| {
            io::Error::other("the events are not of one length: fewer rounds or seconds, please")
        })?;
        Ok(Fast {
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            wrong: count.wrong(messages),
            frame_bytes,
        })
    }

    fn publish(&mut self, per_second: f64, seconds: f64) -> io::Result<Count> {
        for clients in [&mut self.fast, &mut self.slow] {
            clients.carry_out(Command::Heartbeat)?;
        }
        self.fast.carry_out(Command::Begin { frame_bytes: None })?;
        let schedule = schedule(per_second, seconds);
        let messages = schedule.messages().unwrap_or(0);
        self.publisher.run(schedule)?;
        self.fast.drained(messages, 5_000)
    }

    /// All are subscribed, read everything and have settled: the memory that this takes.
    fn bring_slow_ones(&mut self) -> io::Result<Memory> {
        open(&mut self.slow, self.options.slow())?;
        self.publish(self.options.rate, 2.0)?;
        thread::sleep(SETTLE);
        self.memory()
    }

    fn slow_down(&mut self, bytes_per_second: u64) -> io::Result<Witnesses> {
        self.slow.carry_out(Command::Stall {
            clients: self.options.slow(),
            bytes_per_second,
        })?;
        Witnesses::start(
            self.options.witnesses,
            self.server.address,
            &built_in_app().key,
            generator::CHANNEL,
            bytes_per_second,
            self.options.receive_buffer_bytes as usize,
        )
    }

    /// Publishes until the slow ones are behind.
    fn fill(&mut self) -> io::Result<()> {
        let wanted = self.options.slow() as f64 * BEHIND_SHARE;
        let start = Instant::now();
        while self.behind()? < wanted {
            if start.elapsed() > FILL_MAX {
                return Err(io::Error::other(format!(
                    "only {} subscribers are behind: more --data-bytes, please",
                    self.behind()?
                )));
            }
            self.publish(self.options.rate, 2.0)?;
        }
        Ok(())
    }

    fn send_slow_ones_away(&mut self) -> io::Result<()> {
        self.slow.carry_out(Command::Unstall)?;
        self.slow.carry_out(Command::Close {
            clients: 0,
            manner: Manner::Abrupt,
        })?;
        thread::sleep(SETTLE);
        Ok(())
    }

    /// Subscribers that are behind, by the server's own count of the last second.
    fn behind(&self) -> io::Result<f64> {
        Ok(self.server.metrics()?.sum("outpour_subscribers_behind"))
    }

    fn memory(&self) -> io::Result<Memory> {
        let metrics = self.server.metrics()?;
        Ok(Memory {
            resident: self.server.resident_bytes()? as f64,
            logs: metrics.sum("outpour_log_bytes"),
            retained: metrics.sum("outpour_retained_bytes"),
        })
    }
}

fn conclude(without: &[f64], with: &[f64], bytes: &[f64], seen: &Seen, report: &mut Report) {
    let verdict = |is_met| if is_met { "met" } else { "MISSED" };
    let (without, with, bytes) = (Spread::of(without), Spread::of(with), Spread::of(bytes));
    let ratio = with.median / without.median;
    report.say(format_args!(
        "p99 of the fast half: {:.2} ms ({:.2} to {:.2}) alone, {:.2} ms ({:.2} to {:.2}) with the slow half: \
         {ratio:.2} times; at most {RATIO_MAX}: {}",
        without.median,
        without.lowest,
        without.highest,
        with.median,
        with.lowest,
        with.highest,
        verdict(ratio <= RATIO_MAX)
    ));
    report.say(format_args!(
        "server: {:.0} bytes ({:.0} to {:.0}) for each slow reader above an idle one; at most {BYTES_MAX:.0}: {}",
        bytes.median,
        bytes.lowest,
        bytes.highest,
        verdict(bytes.median <= BYTES_MAX)
    ));
    report.say(format_args!(
        "serials: {} slow readers decoded {} events, were told of {} gaps with {} events, and {} were closed; \
         not told of: {}: {}",
        seen.readers,
        seen.events,
        seen.gaps,
        seen.told,
        seen.closed,
        seen.unannounced,
        verdict(seen.unannounced == 0)
    ));
}

fn open(clients: &mut Clients, count: usize) -> io::Result<()> {
    clients
        .carry_out(Command::Open {
            clients: count,
            per_second: None,
        })
        .map(drop)
}

fn schedule(per_second: f64, seconds: f64) -> Schedule {
    Schedule {
        start_ns: monotonic_ns() + 10_000_000,
        per_second: Some(per_second),
        length_ns: (seconds * 1e9) as u64,
        channels: 1,
        publishers: 1,
    }
}
