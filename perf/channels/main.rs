//! What a channel costs: a million of them with one subscriber each, and none of them afterwards.
//!
//! A few hundred connections hold all subscriptions, so that channels are what grows. What one
//! of them takes is the slope over several sizes.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser;

#[path = "../generator/mod.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod generator;
#[path = "../serving/mod.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod serving;

use generator::Generator;
use generator::figures::slope;
use generator::report::Report;
use outpour::load::orders::{Access, Channels, Command};
use outpour::load::publisher::http;
use outpour::load::server::{Server, built_in_app};

/// The server's own memory per channel with its one subscription, connections aside.
const BYTES_MAX: f64 = 400.0;
/// The server's memory is read so long after the last change.
const SETTLE: Duration = Duration::from_secs(2);

/// Measures the memory of channels with one subscriber each.
#[derive(Parser)]
struct Options {
    /// Numbers of channels at which memory is read, ascending.
    #[arg(long, value_delimiter = ',', default_value = "100000,500000,1000000")]
    channels: Vec<usize>,
    /// Connections that share the subscriptions evenly.
    #[arg(long, default_value_t = 500)]
    connections: usize,
    /// Numbers of shards, each with a server of its own on as many cores from core 0 on.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    shard_counts: Vec<usize>,
    /// How long the fall after the last subscriber is watched.
    #[arg(long, default_value_t = 10)]
    watch_seconds: u64,
    #[command(flatten)]
    binary: serving::Binary,
    #[command(flatten)]
    generator: Generator,
}

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some(outpour::load::orders::ROLE) {
        return outpour::load::clients::serve();
    }
    let options = Options::parse();
    let mut report = options.generator.begin("channels")?;
    for shards in &options.shard_counts {
        measure(&options, *shards, &mut report)?;
    }
    report.finish()
}

fn measure(options: &Options, shards: usize, report: &mut Report) -> io::Result<()> {
    let cores: Vec<String> = (0..shards).map(|core| core.to_string()).collect();
    let server = (serving::Options {
        binary: options.binary.clone(),
        shards,
        cores: cores.join(","),
        settings: Vec::new(),
    })
    .start()?;
    let most = options.channels.iter().copied().max().unwrap_or(0);
    let own = Channels::Own {
        access: Access::Public,
        name: "own".to_owned(),
        per_client_max: most.div_ceil(options.connections) as u64,
    };
    let (address, connections) = (server.address, options.connections);
    let generator = &options.generator;
    let mut readers = generator.start_pusher(address, &built_in_app().key, own, connections, 1)?;
    readers.carry_out(Command::Open {
        clients: connections,
        per_second: None,
    })?;
    // One subscription each and none again: what a connection allocates once is then there.
    readers.carry_out(Command::Subscribe { per_client: 1 })?;
    readers.carry_out(Command::Subscribe { per_client: 0 })?;
    std::thread::sleep(SETTLE);

    report.say(format_args!(
        "{shards} shards on cores {}, {} connections",
        cores.join(","),
        options.connections
    ));
    report.say(
        "channels  by the server's count  server RSS KB  B/channel since the last  subscribed in s",
    );
    let mut points = vec![(0.0, server.resident_bytes()? as f64)];
    say_point(&points, &server, 0.0, report)?;
    for channels in &options.channels {
        let per_connection = channels / options.connections;
        let per_client = per_connection as u64;
        let subscribed = readers.carry_out(Command::Subscribe { per_client })?;
        let seconds = subscribed.seconds();
        std::thread::sleep(SETTLE);
        let count = per_connection * options.connections;
        points.push((count as f64, server.resident_bytes()? as f64));
        say_point(&points, &server, seconds, report)?;
    }
    let bytes = slope(&points[1..]);
    let verdict = if bytes < BYTES_MAX { "met" } else { "MISSED" };
    report.say(format_args!(
        "server: {bytes:.0} bytes of RSS a channel with one subscription; under {BYTES_MAX:.0}: {verdict}"
    ));
    list(&server, report)?;
    let left = readers.carry_out(Command::Subscribe { per_client: 0 })?;
    let seconds = left.seconds();
    report.say(format_args!("all unsubscribed in {seconds:.1} s"));
    watch_the_fall(options, &server, report)?;
    report.say("");
    Ok(())
}

/// All channels by the API, while somebody else asks for a single one again and again: a list stops
/// nobody, if those answers come as quickly as without it.
fn list(server: &Server, report: &mut Report) -> io::Result<()> {
    let address = server.address;
    let (alone, _) = answers_until(address, |start| start.elapsed() > SETTLE)?;
    let listing = std::thread::spawn(move || {
        let start = Instant::now();
        http::get(address, &built_in_app(), "channels").map(|body| (body.len(), start.elapsed()))
    });
    let cpu = server.cpu_ns()?;
    let (meanwhile, answers) = answers_until(address, |_| listing.is_finished())?;
    let cpu = (server.cpu_ns()? - cpu) as f64 / 1e9;
    let (bytes, took) = listing
        .join()
        .map_err(|_| io::Error::other("the list panicked"))??;
    report.say(format_args!(
        "GET /channels: {bytes} bytes in {:.3} s, server CPU {cpu:.3} s; {answers} other answers meanwhile, the slowest after {:.1} ms (without the list {:.1} ms)",
        took.as_secs_f64(),
        meanwhile.as_secs_f64() * 1e3,
        alone.as_secs_f64() * 1e3,
    ));
    Ok(())
}

/// The slowest answer about one channel, and how many there were.
fn answers_until(
    address: SocketAddr,
    is_over: impl Fn(Instant) -> bool,
) -> io::Result<(Duration, u64)> {
    let start = Instant::now();
    let (mut slowest, mut answers) = (Duration::ZERO, 0);
    while !is_over(start) {
        let asked = Instant::now();
        http::get(address, &built_in_app(), "channels/nobody")?;
        slowest = slowest.max(asked.elapsed());
        answers += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok((slowest, answers))
}

fn say_point(
    points: &[(f64, f64)],
    server: &Server,
    seconds: f64,
    report: &mut Report,
) -> io::Result<()> {
    let (channels, resident) = points[points.len() - 1];
    let since = match points {
        [.., before, last] => format!("{:.0}", (last.1 - before.1) / (last.0 - before.0)),
        _ => "-".to_owned(),
    };
    report.say(format_args!(
        "{channels:>8}  {:>21}  {:>13.0}  {since:>24}  {seconds:>15.1}",
        server.metrics()?.sum("outpour_channels"),
        resident / 1024.0,
    ));
    Ok(())
}

/// Memory after the last subscriber has left; logs may have to expire first.
fn watch_the_fall(options: &Options, server: &Server, report: &mut Report) -> io::Result<()> {
    let start = Instant::now();
    let mut wait = Duration::from_millis(500);
    while start.elapsed() < Duration::from_secs(options.watch_seconds) {
        std::thread::sleep(wait);
        wait *= 2;
        report.say(format_args!(
            "{:>5.1} s later: {} channels, RSS {} KB",
            start.elapsed().as_secs_f64(),
            server.metrics()?.sum("outpour_channels"),
            server.resident_bytes()? / 1024
        ));
    }
    Ok(())
}
