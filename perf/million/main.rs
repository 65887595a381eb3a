//! As many real connections as the machine holds, both ends on it, subscribed to one channel, and what a publish to
//! all of them takes.
//!
//! A ring's file table is bounded by the process's hard limit of open files, so the server runs with more shards than
//! cores, and the clients with as many rings. Connections open in steps; after each, memory is looked at, and opening
//! ends before the machine runs short. The price of a delivery is taken at the first step too, from the same server
//! in the same run, so that the two can be compared.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use outpour::load::clients::{self, Clients};
use outpour::load::machine::{self as facts, monotonic_ns};
use outpour::load::orders::{
    self, Access, Channels, Command, OPENING_MAX, Orders, Pusher, Sample, Speech,
};
use outpour::load::publisher::http::Form;
use outpour::load::publisher::schedule::Schedule;
use outpour::load::publisher::{Http, Publisher};

#[path = "../generator/mod.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod generator;
#[path = "../serving/mod.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod serving;
mod tuning;

use generator::Generator;
use generator::figures::Spread;
use generator::report::Report;
use outpour::load::server::{Server, built_in_app};

/// The price of a delivery is compared with that at so many connections.
const CONNECTIONS_AT_FIRST: usize = 10_000;
/// How much dearer it may be.
const RATIO_MAX: f64 = 1.5;
/// Connections that open between two looks at the machine's memory.
const STEP: usize = 25_000;
/// Connections per source address: the kernel searches for free ports in steps, and slows down by a factor of ten when
/// half of an address's 28,000 are taken.
const CONNECTIONS_PER_ADDRESS: usize = 4_000;
/// Connections that a shard gets on average. The kernel spreads them by a hash, so some shards get 2 % more.
const CONNECTIONS_PER_SHARD: usize = 18_200;
/// How long nothing may arrive before a publish counts as incomplete.
const PATIENCE_MS: u64 = 20_000;
const CHANNEL: &str = "million";

/// Holds as many connections as the machine's memory allows, and publishes to all of them.
#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 1_000_000)]
    connections: usize,
    /// Shards of the server; by default as many as the hard limit of open files needs.
    #[arg(long)]
    shards: Option<usize>,
    /// The server's cores.
    #[arg(long, default_value = "0")]
    cores: String,
    #[command(flatten)]
    binary: serving::Binary,
    /// Messages that are published one by one to all.
    #[arg(long, default_value_t = 5)]
    messages: usize,
    #[arg(long, default_value_t = 128)]
    data_bytes: usize,
    /// Memory that is left to others, in MiB: opening ends before less is available.
    #[arg(long, default_value_t = 1536)]
    memory_floor_mib: u64,
    /// Set kernel settings that bound or slow down so many connections, and put them back. Needs root.
    #[arg(long)]
    tune: bool,
    #[command(flatten)]
    generator: Generator,
}

/// Memory at one size.
#[derive(Clone, Copy)]
struct Reading {
    server: u64,
    clients: u64,
    slab: Option<u64>,
    available: u64,
}

/// One message to all.
struct Publish {
    first_ms: f64,
    median_ms: f64,
    last_ms: f64,
    cpu_us_per_delivery: f64,
}

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some(orders::ROLE) {
        return clients::serve();
    }
    let options = Options::parse();
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&is_interrupted))?;
    }
    // Put back when it is dropped: once a namespace was made from it, and at the end otherwise.
    let tune = |settings| tuning::tune(settings, options.connections, options.tune);
    let mut tuned = vec![tune(tuning::OF_THE_MACHINE)?];
    let mut report = options.generator.begin("million")?;
    if options.generator.netns {
        tuned.push(tune(tuning::OF_THE_NAMESPACE)?);
    }
    for line in tuned.iter().flat_map(|tuned| &tuned.said) {
        report.say(line);
    }
    measure(&options, &is_interrupted, &mut report)?;
    drop(tuned);
    report.finish()
}

fn measure(options: &Options, is_interrupted: &AtomicBool, report: &mut Report) -> io::Result<()> {
    let shards = options
        .shards
        .unwrap_or_else(|| options.connections.div_ceil(CONNECTIONS_PER_SHARD));
    let server = (serving::Options {
        binary: options.binary.clone(),
        shards,
        cores: options.cores.clone(),
        // Pings between clients and server are another measurement.
        settings: vec!["--activity-timeout-s".to_owned(), "86400".to_owned()],
    })
    .start()?;
    let mut clients = Clients::start(&orders(options, &server))?;
    report.say(format_args!(
        "server    {shards} shards on cores {}, up to {} connections and one channel",
        options.cores, options.connections
    ));
    let before = read(&server, &clients)?;
    report.say("");
    report
        .say("connections  opened/s  server RSS MB  clients RSS MB  kernel slab MB  available MB");
    say_reading(report, 0, 0.0, &before);

    let first = options.connections.min(CONNECTIONS_AT_FIRST);
    let bound = open(first, options, &mut clients, is_interrupted, report)?;
    if let Some(why) = bound {
        return Err(io::Error::other(why));
    }
    say_reading(report, first, 0.0, &read(&server, &clients)?);
    // The clients learn from it how long a message is.
    publish(options, &mut clients, &server, first)?;
    let few = publish_all(options, &mut clients, &server, first)?;

    let opening_ns = monotonic_ns();
    let opened = open(
        options.connections,
        options,
        &mut clients,
        is_interrupted,
        report,
    )?;
    let seconds = (monotonic_ns() - opening_ns) as f64 / 1e9;
    let held = clients.glance()?.clients as usize;
    let after = read(&server, &clients)?;
    say_reading(report, held, (held - first) as f64 / seconds, &after);
    report.say("");
    report.say(match opened {
        None => format!("held: {held} connections, all that were asked for"),
        Some(why) => format!("held: {held} connections; bounded by {why}"),
    });
    say_memory(report, held, &before, &after);

    report.say("");
    report.say(
        "one message to all: ms from its due time to the first, the median and the last subscriber",
    );
    report.say("connections    first   median     last  CPU us/delivery of the server");
    say_publishes(report, first, &few);
    let all = publish_all(options, &mut clients, &server, held)?;
    say_publishes(report, held, &all);
    let cpu = |publishes: &[Publish]| {
        let figures: Vec<f64> = publishes
            .iter()
            .map(|one| one.cpu_us_per_delivery)
            .collect();
        Spread::of(&figures).median
    };
    let ratio = cpu(&all) / cpu(&few);
    let verdict = if ratio <= RATIO_MAX { "met" } else { "MISSED" };
    report.say(format_args!(
        "a delivery at {held} costs {ratio:.2} times one at {first}, by medians; at most {RATIO_MAX}: {verdict}"
    ));
    Ok(())
}

fn orders(options: &Options, server: &Server) -> Orders {
    let addresses = options.connections.div_ceil(CONNECTIONS_PER_ADDRESS) as u32;
    let source = |number| {
        IpAddr::V4(Ipv4Addr::from(
            u32::from(Ipv4Addr::new(127, 1, 0, 1)) + number,
        ))
    };
    Orders {
        target: server.address,
        sources: (0..addresses).map(source).collect(),
        speech: Speech::Pusher(Pusher::new(&built_in_app().key, None)),
        channels: Channels::Shared {
            access: Access::Public,
            name: CHANNEL.to_owned(),
            count: 1,
        },
        cores: vec![options.generator.readers_core],
        first_client: 0,
        clients_max: options.connections,
        opening_max: OPENING_MAX,
        sample: Sample::Clients(1),
        receive_buffer_bytes: None,
    }
}

/// Opens connections until there are so many, or until something else ends it, which it tells.
fn open(
    connections: usize,
    options: &Options,
    clients: &mut Clients,
    is_interrupted: &AtomicBool,
    report: &mut Report,
) -> io::Result<Option<String>> {
    let floor = options.memory_floor_mib << 20;
    let mut held = clients.glance()?.clients as usize;
    while held < connections {
        let available = facts::available_bytes()?;
        // A step takes less than 400 MB: both ends, and what the kernel keeps for them.
        if available < floor + (400 << 20) {
            return Ok(Some(format!("memory: {} MB available", available >> 20)));
        }
        if is_interrupted.load(Ordering::Relaxed) {
            return Ok(Some("a signal".to_owned()));
        }
        let next = (held + STEP).min(connections);
        let settled = clients.carry_out(Command::Open {
            clients: next,
            per_second: None,
        })?;
        if settled.failures > 0 {
            report.say(format_args!(
                "{} attempts failed and were made again",
                settled.failures
            ));
        }
        held = settled.clients as usize;
        progress(held, connections, available);
    }
    Ok(None)
}

/// A line on the terminal that the next one overwrites; no part of the report.
fn progress(held: usize, wanted: usize, available: u64) {
    let share = held * 40 / wanted.max(1);
    let end = if held == wanted { "\n" } else { "" };
    eprint!(
        "\r[{}{}] {held} of {wanted} connections, {} MB available {end}",
        "#".repeat(share),
        ".".repeat(40 - share.min(40)),
        available >> 20
    );
}

fn start_publisher(options: &Options, server: &Server) -> io::Result<Publisher> {
    Publisher::start(outpour::load::publisher::Orders {
        core: Some(options.generator.readers_core),
        channels: vec![CHANNEL.to_owned()],
        event: "m".to_owned(),
        data_bytes: options.data_bytes,
        http: Some(Http {
            address: server.address,
            form: Form::Pusher {
                prefix: String::new(),
                app: built_in_app(),
                keys: 0,
            },
            connections: 1,
            window: 1,
            batch: 1,
        }),
        events: None,
    })
}

fn publish_all(
    options: &Options,
    clients: &mut Clients,
    server: &Server,
    subscribers: usize,
) -> io::Result<Vec<Publish>> {
    (0..options.messages)
        .map(|_| publish(options, clients, server, subscribers))
        .collect()
}

/// Publishes one message, and waits until all have it. Over a connection of its own: between two messages there may
/// be minutes, and a server keeps no idle connection for so long.
fn publish(
    options: &Options,
    clients: &mut Clients,
    server: &Server,
    subscribers: usize,
) -> io::Result<Publish> {
    let mut publisher = start_publisher(options, server)?;
    clients.carry_out(Command::Begin { frame_bytes: None })?;
    let cpu_before_ns = server.cpu_ns()?;
    let start_ns = monotonic_ns() + 10_000_000;
    let tally = publisher.run(Schedule {
        start_ns,
        per_second: Some(1.0),
        length_ns: 1_000_000_000,
        channels: 1,
        publishers: 1,
    })?;
    if tally.accepted != 1 {
        return Err(io::Error::other(format!(
            "the server took no message: {tally:?}"
        )));
    }
    let count = clients.drained(1, PATIENCE_MS)?;
    let wrong = count.wrong(1);
    let receipts = count.receipts.first();
    let (Some(receipts), 0) = (receipts, wrong) else {
        return Err(io::Error::other(format!(
            "{wrong} signs that not all of {subscribers} subscribers got the message once: {count:?}"
        )));
    };
    let after_ms = |column: &[u64]| (column[0].saturating_sub(start_ns)) as f64 / 1e6;
    Ok(Publish {
        first_ms: after_ms(&receipts.first_ns.0),
        median_ms: after_ms(&receipts.median_ns.0),
        last_ms: after_ms(&receipts.last_ns.0),
        cpu_us_per_delivery: (server.cpu_ns()? - cpu_before_ns) as f64 / 1e3 / subscribers as f64,
    })
}

fn read(server: &Server, clients: &Clients) -> io::Result<Reading> {
    Ok(Reading {
        server: server.resident_bytes()?,
        clients: facts::resident_bytes(clients.process())?,
        slab: facts::slab_bytes(),
        available: facts::available_bytes()?,
    })
}

fn say_reading(report: &mut Report, connections: usize, per_second: f64, reading: &Reading) {
    let slab = match reading.slab {
        Some(slab) => (slab >> 20).to_string(),
        None => "-".to_owned(),
    };
    report.say(format_args!(
        "{connections:>11}  {per_second:>8.0}  {:>13}  {:>14}  {slab:>14}  {:>12}",
        reading.server >> 20,
        reading.clients >> 20,
        reading.available >> 20
    ));
}

fn say_memory(report: &mut Report, held: usize, before: &Reading, after: &Reading) {
    let each = |before: u64, after: u64| (after as f64 - before as f64) / held as f64;
    report.say(format_args!(
        "bytes a connection: server {:.0}, clients {:.0}, kernel slab for both ends {}, of available memory {:.0}",
        each(before.server, after.server),
        each(before.clients, after.clients),
        match (before.slab, after.slab) {
            (Some(before), Some(after)) => format!("{:.0}", each(before, after)),
            (None, _) | (_, None) => "unseen (only root may look)".to_owned(),
        },
        each(after.available, before.available),
    ));
}

fn say_publishes(report: &mut Report, connections: usize, publishes: &[Publish]) {
    for one in publishes {
        report.say(format_args!(
            "{connections:>11}  {:>7.1}  {:>7.1}  {:>7.1}  {:>15.2}",
            one.first_ms, one.median_ms, one.last_ms, one.cpu_us_per_delivery
        ));
    }
}
