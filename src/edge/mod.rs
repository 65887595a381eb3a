//! The edge: one thread for what is rare or slow and reads best as async code: webhooks, hooks and the
//! journal.
//!
//! It runs on tokio-uring, which is tokio's current-thread runtime with io_uring behind its files;
//! sockets and timers are tokio's. What it decides stands in [`webhooks`], [`returns`], [`queue`]
//! and [`consults`], which know neither socket nor clock; [`turn`] and [`target`] carry it out.
//!
//! ```text
//! a shard  -- lane of notices, doorbell --> read_lanes -> Webhooks::handle
//!                                           Webhooks::next_delivery -> a task: Target::post
//!                                           the task ends -> Webhooks::settle
//! a channel's home  -- the same lane -----> Consults::handle -> Consults::next -> a task
//!                   <- lane of words -----  the task ends -> Consults::settle
//! a channel's home  -- the same lane -----> Desk::append -> Desk::next_task -> a task: write, sync
//!                   <- lane of words -----  the task ends -> Desk::settle
//! ```
//!
//! Invariants:
//! - Nothing here holds up a shard: a full lane drops what comes and counts it.
//! - A receiver that hangs holds at most `webhook_connections_max` tasks, each for at most
//!   `webhook_timeout_ms`, and the room of its own queue.
//! - With nothing to do the thread sleeps until a doorbell, a timer or an answer.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::net::unix::pipe;

mod backoff;
mod consults;
pub mod journal;
mod queue;
mod returns;
mod target;
mod trust;
mod turn;
mod webhooks;

use self::consults::Consults;
use self::journal::desk::Opened;
use self::target::Targets;
pub use self::trust::TrustError;
use self::turn::{Deciders, Homes, Turn};
use self::webhooks::Webhooks;
use crate::base::lane::{Receiver, Sender};
use crate::base::metrics::Metrics;
use crate::base::sleep::Doorbell;
use crate::base::waker::Waker;
use crate::hub::apps::Apps;
use crate::hub::notice::{FromEdge, ToEdge};
use crate::options::Options;

/// What the edge is made of.
pub struct Setup {
    pub options: Arc<Options>,
    pub apps: Arc<Apps>,
    /// From the shards, by index.
    pub lanes: Vec<Receiver<ToEdge>>,
    /// To the shards, by index.
    pub words: Vec<Sender<FromEdge>>,
    pub journal: Option<Opened>,
    pub doorbell: Arc<Doorbell>,
    /// The end of a pipe that whoever rang the doorbell, or changed `control`, writes to.
    pub wakes: OwnedFd,
    pub control: Arc<Control>,
    pub metrics: Metrics,
    pub seed: u64,
}

/// What the main thread tells the edge.
#[derive(Debug, Default)]
pub struct Control {
    /// One of the constants here; it only grows.
    pub phase: AtomicU8,
}

impl Control {
    pub const SERVING: u8 = 0;
    /// The shards have ended: deliver what there is, then end.
    pub const DRAINING: u8 = 1;
    /// End now.
    pub const STOPPED: u8 = 2;
}

/// Whether any app needs the edge, or a journal is written.
pub fn is_needed(options: &Options) -> bool {
    webhooks::listed(options).next().is_some()
        || consults::listed(options).next().is_some()
        || options.journal_directory.is_some()
}

/// The edge, ready to be run on a thread of its own.
pub struct Edge {
    setup: Setup,
    targets: Targets,
}

impl Edge {
    /// Finds out whether every URL can be served.
    pub fn new(setup: Setup) -> Result<Edge, TrustError> {
        let targets = Targets::new(&setup.options, &setup.apps)?;
        Ok(Edge { setup, targets })
    }

    /// Runs until it is drained or told to stop. `wakers` are those of the shards, by index.
    pub fn run(self, wakers: Vec<Waker>) {
        let served = tokio_uring::start(self.serve(wakers));
        // Without its event the thread could not be woken.
        served.expect("the runtime polls an event");
    }

    async fn serve(self, wakers: Vec<Waker>) -> io::Result<()> {
        let Edge { setup, targets } = self;
        let (control, doorbell) = (setup.control, setup.doorbell);
        let wakes = pipe::Receiver::from_owned_fd(setup.wakes)?;
        let homes = Homes::new(setup.words, wakers);
        let (webhooks, consults) = (
            Webhooks::new(&setup.options, setup.seed, setup.metrics.clone()),
            Consults::new(&setup.options, setup.metrics.clone()),
        );
        let deciders = Deciders {
            webhooks,
            consults,
            journal: setup.journal.map(Opened::into_desk),
        };
        let mut turn = Turn::new(deciders, targets, setup.lanes, homes, setup.apps);
        let mut phase_before = Control::SERVING;
        loop {
            let phase = control.phase.load(Ordering::Acquire);
            if phase != phase_before {
                phase_before = phase;
                turn.end_waits();
            }
            turn.read_lanes();
            turn.start_deliveries();
            turn.ask_hooks();
            if phase == Control::DRAINING {
                turn.end_journal();
            }
            turn.write_journal();
            let is_drained = phase == Control::DRAINING && turn.is_done();
            if is_drained || phase == Control::STOPPED {
                turn.give_up(&setup.metrics);
                return Ok(());
            }
            doorbell.announce();
            let is_quiet = turn.is_quiet() && control.phase.load(Ordering::Acquire) == phase;
            if is_quiet {
                tokio::select! {
                    ready = wakes.readable() => {
                        ready?;
                        clear(&wakes)?;
                    }
                    () = turn.sleep() => {}
                }
            } else {
                tokio::task::yield_now().await;
            }
            doorbell.withdraw();
            turn.settle_finished();
        }
    }
}

/// Reads all wakes, so that the next one is noticed.
fn clear(wakes: &pipe::Receiver) -> io::Result<()> {
    let mut bytes = [0; 512];
    loop {
        match wakes.try_read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
