//! The edge thread as the server holds it: there before the shards, and gone after them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

use tracing::warn;

use super::{Event, ServeError};
use crate::base::lane;
use crate::base::limits;
use crate::base::metrics::Metrics;
use crate::base::sleep::Doorbell;
use crate::base::waker::Waker;
use crate::edge::{self, Control, Edge};
use crate::hub::apps::Apps;
use crate::options::Options;
use crate::shard::edge_link::EdgeLink;

/// The thread. Dropping it stops it and waits for it.
pub struct EdgeThread {
    control: Arc<Control>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// Starts the thread if an app needs it, and gives it with one link for each shard.
pub fn start(
    options: &Arc<Options>,
    apps: &Arc<Apps>,
    shards: u16,
    seed: u64,
    events: Sender<Event>,
) -> Result<Option<(EdgeThread, Vec<EdgeLink>)>, ServeError> {
    if !edge::is_needed(options) {
        return Ok(None);
    }
    let doorbell = Arc::new(Doorbell::default());
    let (waker, wakes) = Waker::piped().map_err(ServeError::EdgeThread)?;
    let (control, metrics) = (Arc::new(Control::default()), Metrics::default());
    let (lanes, links) = (0..shards)
        .map(|_| {
            let (sender, receiver) = lane::lane(limits::EDGE_LANE_LETTERS);
            let link = EdgeLink::new(sender, Arc::clone(&doorbell), metrics.clone());
            (receiver, link)
        })
        .unzip();
    let edge = Edge::new(edge::Setup {
        options: Arc::clone(options),
        apps: Arc::clone(apps),
        lanes,
        doorbell,
        wakes,
        control: Arc::clone(&control),
        metrics,
        seed,
    })
    .map_err(ServeError::Edge)?;
    let ended = Ended { events };
    let run = move || {
        let _ended = ended;
        edge.run();
    };
    let thread = thread::Builder::new().name("edge".to_string()).spawn(run);
    let thread = EdgeThread {
        control,
        waker,
        thread: Some(thread.map_err(ServeError::EdgeThread)?),
    };
    Ok(Some((thread, links)))
}

impl EdgeThread {
    /// Wakes the edge after its doorbell was rung.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The shards have ended: deliver what there is, then end.
    pub fn drain(&self) {
        self.enter_phase(Control::DRAINING);
    }

    fn enter_phase(&self, phase: u8) {
        self.control.phase.fetch_max(phase, Ordering::AcqRel);
        self.waker.wake();
    }
}

impl Drop for EdgeThread {
    fn drop(&mut self) {
        self.enter_phase(Control::STOPPED);
        let thread = self.thread.take();
        if let Some(Err(panic)) = thread.map(JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Reports the end of the edge's thread, by return or by panic.
struct Ended {
    events: Sender<Event>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if self.events.send(Event::EdgeEnded).is_err() {
            warn!("nobody waits for the edge");
        }
    }
}
