//! What a connection costs while nothing happens: memory by size, and the CPU time of silence.
//!
//! Every connection has one subscription to one shared channel. What one of them takes is the
//! slope over several sizes, so that what the server holds anyway, and what its allocator keeps
//! from the warm-up, is in none of it.

use std::io;
use std::time::Duration;

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
use outpour::load::clients::Clients;
use outpour::load::machine;
use outpour::load::orders::{Command, Manner};
use outpour::load::server::{Server, built_in_app};

/// The server's own memory per idle connection with one subscription.
const BYTES_MAX: f64 = 256.0;
/// Share of a core that an idle server may use.
const CORE_PERCENT_MAX: f64 = 1.0;
/// The server's memory is read so long after the last change.
const SETTLE: Duration = Duration::from_secs(2);

/// Measures the memory and the CPU time of idle connections.
#[derive(Parser)]
struct Options {
    /// Numbers of connections at which memory is read, ascending.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "2500,5000,9000,14000,19000"
    )]
    connections: Vec<usize>,
    /// Connections that come and go before the first reading.
    #[arg(long, default_value_t = 500)]
    warm_up: usize,
    /// How long the silence is listened to, with all connections open.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    #[command(flatten)]
    server: serving::Options,
    #[command(flatten)]
    generator: Generator,
}

/// Memory at one size.
#[derive(Clone, Copy)]
struct Reading {
    connections: usize,
    resident: u64,
    available: u64,
    slab: Option<u64>,
}

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some(outpour::load::orders::ROLE) {
        return outpour::load::clients::serve();
    }
    let options = Options::parse();
    let mut report = options.generator.begin("idle")?;
    measure(&options, &mut report)?;
    report.finish()
}

fn measure(options: &Options, report: &mut Report) -> io::Result<()> {
    let server = options.server.start()?;
    let most = options.connections.iter().copied().max().unwrap_or(0);
    let channels = generator::shared();
    let most_at_once = most.max(options.warm_up);
    let mut clients = options.generator.start_pusher(
        server.address,
        &built_in_app().key,
        channels,
        most_at_once,
        1,
    )?;
    open(&mut clients, options.warm_up)?;
    close(&mut clients)?;
    std::thread::sleep(SETTLE);

    report.say("connections  server RSS KB  B/connection since the last  slab KB  available KB");
    let mut readings = vec![read(&server, 0)?];
    say_reading(&readings, report);
    for connections in &options.connections {
        open(&mut clients, *connections)?;
        std::thread::sleep(SETTLE);
        readings.push(read(&server, *connections)?);
        say_reading(&readings, report);
    }
    say_slopes(&readings, report);
    listen_to_silence(options, &server, most, report)?;

    close(&mut clients)?;
    std::thread::sleep(SETTLE);
    let after = read(&server, 0)?;
    report.say(format_args!(
        "after all have left: RSS {} KB, {} connections by the server's own count",
        after.resident / 1024,
        server.metrics()?.sum("outpour_connections")
    ));
    Ok(())
}

/// Opens connections until there are so many in all.
fn open(clients: &mut Clients, connections: usize) -> io::Result<()> {
    let command = Command::Open {
        clients: connections,
        per_second: None,
    };
    clients.carry_out(command).map(drop)
}

fn close(clients: &mut Clients) -> io::Result<()> {
    let command = Command::Close {
        clients: 0,
        manner: Manner::Abrupt,
    };
    clients.carry_out(command).map(drop)
}

fn read(server: &Server, connections: usize) -> io::Result<Reading> {
    Ok(Reading {
        connections,
        resident: server.resident_bytes()?,
        available: machine::available_bytes()?,
        slab: machine::slab_bytes(),
    })
}

fn say_reading(readings: &[Reading], report: &mut Report) {
    let last = readings[readings.len() - 1];
    let since = match readings {
        [.., before, last] => format!(
            "{:.0}",
            (last.resident as f64 - before.resident as f64)
                / (last.connections - before.connections) as f64
        ),
        _ => "-".to_owned(),
    };
    let slab = match last.slab {
        Some(slab) => (slab / 1024).to_string(),
        None => "-".to_owned(),
    };
    report.say(format_args!(
        "{:>11}  {:>13}  {since:>27}  {slab:>7}  {:>12}",
        last.connections,
        last.resident / 1024,
        last.available / 1024,
    ));
}

/// The first reading has no connections and an allocator with room to spare; it is left out.
fn say_slopes(readings: &[Reading], report: &mut Report) {
    let along = |figure: &dyn Fn(&Reading) -> f64| {
        let points: Vec<_> = readings[1..]
            .iter()
            .map(|reading| (reading.connections as f64, figure(reading)))
            .collect();
        slope(&points)
    };
    let resident = along(&|reading| reading.resident as f64);
    let verdict = if resident <= BYTES_MAX {
        "met"
    } else {
        "MISSED"
    };
    report.say(format_args!(
        "server: {resident:.0} bytes of RSS a connection with one subscription; at most {BYTES_MAX:.0}: {verdict}"
    ));
    if readings.iter().all(|reading| reading.slab.is_some()) {
        let slab = along(&|reading| reading.slab.unwrap_or(0) as f64);
        report.say(format_args!(
            "kernel: {slab:.0} bytes of slab a connection, for the sockets of both ends and what waits on them in both rings"
        ));
    }
    let taken = -along(&|reading| reading.available as f64);
    report.say(format_args!(
        "machine: {taken:.0} bytes of available memory a connection, for all of it, the clients' own memory too"
    ));
}

fn listen_to_silence(
    options: &Options,
    server: &Server,
    connections: usize,
    report: &mut Report,
) -> io::Result<()> {
    let cpu_before_ns = server.cpu_ns()?;
    let start_ns = machine::monotonic_ns();
    std::thread::sleep(Duration::from_secs(options.seconds));
    let cpu_ns = server.cpu_ns()? - cpu_before_ns;
    let wall_ns = machine::monotonic_ns() - start_ns;
    let percent = cpu_ns as f64 / wall_ns as f64 * 100.0;
    let verdict = if percent < CORE_PERCENT_MAX {
        "met"
    } else {
        "MISSED"
    };
    report.say(format_args!(
        "silence: {:.3} ms of CPU in {} s with {connections} connections, {percent:.4} % of a core; \
         under {CORE_PERCENT_MAX} %: {verdict}",
        cpu_ns as f64 / 1e6,
        options.seconds
    ));
    Ok(())
}
