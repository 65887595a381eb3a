//! The process: boots the shards, waits for signals or for the shards' end, and takes them down.
//!
//! ```text
//! serving  -- first SIGTERM or SIGINT --> draining
//! draining -- every shard has returned --> exit 0
//! draining -- drain_timeout_ms has passed --> shards are told to stop --> exit 0
//! draining -- second signal --> exit 128 + signal, at once
//! serving  -- a shard has returned --> the others are told to stop --> exit 1
//! ```

mod banner;
mod boot;
mod doctor;
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
    let mut ended = BTreeSet::new();
    match running.events().recv() {
        Ok(Event::Signal(signal)) => info!("signal {signal}: draining"),
        Ok(Event::Ended { shard }) => {
            error!("shard {shard} has ended, so the server ends");
            ended.insert(shard);
            return leave(running, &mut ended, EXIT_FAILURE);
        }
        Err(_) => unreachable!("the server holds a sender of its own"),
    }
    running.drain();
    if await_shards(&running, &mut ended, drain_timeout) {
        info!("drained");
    } else {
        let metrics = running.metrics().iter();
        let cut: u64 = metrics.map(|shard| shard.read(Metric::Connections)).sum();
        warn!("drain_timeout_ms has passed: {cut} connections are cut");
    }
    leave(running, &mut ended, EXIT_SUCCESS)
}

const EXIT_SUCCESS: u8 = 0;
const EXIT_FAILURE: u8 = 1;

/// What a shell adds to the signal that ended a process.
const EXIT_SIGNAL: i32 = 128;

/// Stops what still runs, and goes without a shard that does not return.
fn leave(running: Running, ended: &mut BTreeSet<u16>, code: u8) -> ExitCode {
    running.halt();
    if !await_shards(&running, ended, STOP_GRACE) {
        warn!("a shard does not stop: the process ends without it");
        std::process::exit(code.into());
    }
    running.stop();
    ExitCode::from(code)
}

/// Whether every shard returned in time. A signal meanwhile ends the process.
fn await_shards(running: &Running, ended: &mut BTreeSet<u16>, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    while ended.len() < running.metrics().len() {
        let left = end.saturating_duration_since(Instant::now());
        match running.events().recv_timeout(left) {
            Ok(Event::Ended { shard }) => {
                ended.insert(shard);
            }
            Ok(Event::Signal(signal)) => std::process::exit(EXIT_SIGNAL + signal),
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => {
                unreachable!("the server holds a sender of its own")
            }
        }
    }
    true
}
