//! The edge: one thread for what is rare or slow and reads best as async code.
//!
//! It runs on tokio-uring, which is tokio's current-thread runtime with io_uring behind its files;
//! sockets and timers are tokio's. What it decides stands in [`webhooks`], [`returns`] and
//! [`queue`], which know neither socket nor clock; this file and [`target`] carry it out.
//!
//! ```text
//! a shard  -- lane of notices, doorbell --> read_lanes -> Webhooks::handle
//!                                           Webhooks::next_delivery -> a task: Target::post
//!                                           the task ends -> Webhooks::settle
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
mod queue;
mod returns;
mod target;
mod trust;
mod turn;
mod webhooks;

use self::target::{Settings, Target};
pub use self::trust::TrustError;
use self::turn::Turn;
use self::webhooks::listed;
use crate::base::lane::Receiver;
use crate::base::limits;
use crate::base::metrics::Metrics;
use crate::base::sleep::Doorbell;
use crate::hub::apps::Apps;
use crate::hub::notice::ToEdge;
use crate::options::Options;

/// What the edge is made of.
pub struct Setup {
    pub options: Arc<Options>,
    pub apps: Arc<Apps>,
    /// From the shards, by index.
    pub lanes: Vec<Receiver<ToEdge>>,
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

/// Whether any app needs the edge.
pub fn is_needed(options: &Options) -> bool {
    listed(options).next().is_some()
}

/// The edge, ready to be run on a thread of its own.
pub struct Edge {
    setup: Setup,
    targets: Vec<Target>,
}

impl Edge {
    /// Finds out whether every URL can be served.
    pub fn new(setup: Setup) -> Result<Edge, TrustError> {
        let options = &setup.options;
        let is_https = listed(options).any(|(_, webhook)| webhook.url.is_https());
        let trust = is_https.then(trust::trust).transpose()?;
        let targets = listed(options).map(|(app, webhook)| {
            let settings = Settings {
                url: &webhook.url,
                headers: &webhook.headers,
                timeout_ms: options.webhook_timeout_ms,
                answer_bytes_max: limits::WEBHOOK_ANSWER_BYTES_MAX,
            };
            Target::new(settings, setup.apps.app(app), trust.as_ref())
        });
        let targets = targets.collect::<Result<_, _>>()?;
        Ok(Edge { setup, targets })
    }

    /// Runs until it is drained or told to stop.
    pub fn run(self) {
        let served = tokio_uring::start(self.serve());
        // Without its event the thread could not be woken.
        served.expect("the runtime polls an event");
    }

    async fn serve(self) -> io::Result<()> {
        let Edge { setup, targets } = self;
        let wakes = pipe::Receiver::from_owned_fd(setup.wakes)?;
        let mut turn = Turn::new(
            &setup.options,
            setup.seed,
            &setup.metrics,
            targets,
            setup.lanes,
        );
        let mut phase_before = Control::SERVING;
        loop {
            let phase = setup.control.phase.load(Ordering::Acquire);
            if phase != phase_before {
                phase_before = phase;
                turn.end_waits();
            }
            turn.read_lanes();
            turn.start_deliveries();
            let is_drained = phase == Control::DRAINING && turn.is_done();
            if is_drained || phase == Control::STOPPED {
                turn.give_up();
                return Ok(());
            }
            setup.doorbell.announce();
            let is_quiet = turn.is_quiet() && setup.control.phase.load(Ordering::Acquire) == phase;
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
            setup.doorbell.withdraw();
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
