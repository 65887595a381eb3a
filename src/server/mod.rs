//! The process: boots the shards, waits for signals or for the shards' end, and takes them down.
//!
//! ```text
//! serving  -- first SIGTERM or SIGINT --> draining
//! draining -- every shard has returned, and then the edge --> exit 0
//! draining -- drain_timeout_ms has passed --> shards are told to stop --> exit 0
//! draining -- second signal --> exit 128 + signal, at once
//! serving  -- a shard or the edge has returned --> the others are told to stop --> exit 1
//! ```

mod banner;
mod boot;
mod doctor;
mod edge_thread;
mod journal;
mod listener;

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{error, info, warn};

pub use boot::{Running, ServeError, start};
pub use doctor::doctor;
pub use journal::journal;

use crate::base::metrics::Metric;
use crate::options::Options;
use crate::ring::probe::{self, Report, State};

/// What the main thread waits for.
enum Event {
    Signal(i32),
    /// The shard's thread has nothing more to do.
    Ended {
        shard: u16,
    },
    /// Nor has the edge's.
    EdgeEnded,
}

/// Who has ended.
#[derive(Default)]
struct Gone {
    shards: BTreeSet<u16>,
    is_edge_gone: bool,
}

/// Serves until a signal ends it.
pub fn serve(options: Options) -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(options.log_level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    if let Err(error) = boot::raise_open_files() {
        warn!("the soft limit of open files stays as it is: {error}");
    }
    let report = probe::probe();
    if report.is_fatal() {
        refuse(&report);
        return ExitCode::FAILURE;
    }
    for check in report
        .checks
        .iter()
        .filter(|check| check.state == State::Slow)
    {
        info!("{}: {}; {}", check.name, check.found, check.remedy);
    }

    let drain_timeout = Duration::from_millis(options.drain_timeout_ms);
    let running = match start(options) {
        Ok(running) => running,
        Err(error) => {
            error!("{error}");
            eprintln!("outpour: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = forward_signals(running.events_sender()) {
        eprintln!("outpour: signals cannot be received: {error}");
        return ExitCode::FAILURE;
    }
    let text = banner::banner(&running, &report.limits);
    if let Err(error) = io::stdout().write_all(text.as_bytes()) {
        warn!("nobody reads standard output: {error}");
    }
    supervise(running, drain_timeout)
}

fn refuse(report: &Report) {
    eprintln!("outpour: this machine cannot serve");
    for check in report.fatal() {
        eprintln!("  {}: {}\n    {}", check.name, check.found, check.remedy);
    }
}

/// Waits on a thread of its own, so that the main thread can wait for signals and shards at once.
///
/// Shards do not mask the signals, for that takes unsafe code. A shard that the kernel picks to run
/// the handler has its system call restarted or ended with EINTR, and its ring takes that for an
/// ordinary end of the call.
fn forward_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let wait = move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("signals".to_string())
        .spawn(wait)?;
    Ok(())
}

/// What shards get to return in once they are told to stop, before the process ends without them.
const STOP_GRACE: Duration = Duration::from_secs(2);

fn supervise(running: Running, drain_timeout: Duration) -> ExitCode {
    let mut gone = Gone::default();
    match running.events().recv() {
        Ok(Event::Signal(signal)) => info!("signal {signal}: draining"),
        Ok(Event::Ended { shard }) => {
            error!("shard {shard} has ended, so the server ends");
            gone.shards.insert(shard);
            return leave(running, &mut gone, EXIT_FAILURE);
        }
        Ok(Event::EdgeEnded) => {
            error!("the edge has ended, so the server ends");
            gone.is_edge_gone = true;
            return leave(running, &mut gone, EXIT_FAILURE);
        }
        Err(_) => unreachable!("the server holds a sender of its own"),
    }
    let end = Instant::now() + drain_timeout;
    running.drain();
    if !await_shards(&running, &mut gone, end) {
        let metrics = running.metrics().iter();
        let cut: u64 = metrics.map(|shard| shard.read(Metric::Connections)).sum();
        warn!("drain_timeout_ms has passed: {cut} connections are cut");
    } else if running.drain_edge() && !await_all(&running, &mut gone, end, |gone| gone.is_edge_gone)
    {
        warn!("drain_timeout_ms has passed: the edge is cut off");
    } else {
        info!("drained");
    }
    leave(running, &mut gone, EXIT_SUCCESS)
}

const EXIT_SUCCESS: u8 = 0;
const EXIT_FAILURE: u8 = 1;

/// What a shell adds to the signal that ended a process.
const EXIT_SIGNAL: i32 = 128;

/// Stops what still runs, and goes without a shard that does not return.
fn leave(running: Running, gone: &mut Gone, code: u8) -> ExitCode {
    running.halt();
    if !await_shards(&running, gone, Instant::now() + STOP_GRACE) {
        warn!("a shard does not stop: the process ends without it");
        std::process::exit(code.into());
    }
    running.stop();
    ExitCode::from(code)
}

fn await_shards(running: &Running, gone: &mut Gone, end: Instant) -> bool {
    let shards = running.metrics().len();
    await_all(running, gone, end, |gone| gone.shards.len() == shards)
}

/// Whether all that are asked for were gone in time. A signal meanwhile ends the process.
fn await_all(
    running: &Running,
    gone: &mut Gone,
    end: Instant,
    are_gone: impl Fn(&Gone) -> bool,
) -> bool {
    while !are_gone(gone) {
        let left = end.saturating_duration_since(Instant::now());
        match running.events().recv_timeout(left) {
            Ok(Event::Ended { shard }) => {
                gone.shards.insert(shard);
            }
            Ok(Event::EdgeEnded) => gone.is_edge_gone = true,
            Ok(Event::Signal(signal)) => std::process::exit(EXIT_SIGNAL + signal),
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => {
                unreachable!("the server holds a sender of its own")
            }
        }
    }
    true
}
