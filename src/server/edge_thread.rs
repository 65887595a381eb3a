//! The edge thread as the server holds it: it starts when the shards have rings, and ends after them.

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
use crate::edge::journal::restore::{self, Restored};
use crate::edge::{self, Control, Edge};
use crate::hub::apps::Apps;
use crate::options::Options;
use crate::shard::edge_link::EdgeLink;

/// The edge before it runs, which it can when the shards have rings: it wakes them.
pub struct Prepared {
    edge: Edge,
    control: Arc<Control>,
    waker: Waker,
    ended: Ended,
}

/// The thread. Dropping it stops it and waits for it.
pub struct EdgeThread {
    control: Arc<Control>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// What [`prepare`] gives.
pub struct Preparation {
    pub prepared: Prepared,
    /// One for each shard.
    pub links: Vec<EdgeLink>,
    /// The channels that the journal has, if there is one.
    pub restored: Vec<Restored>,
}

/// The edge if it is needed, one link for each shard, and what the journal has.
pub fn prepare(
    options: &Arc<Options>,
    apps: &Arc<Apps>,
    shards: u16,
    seed: u64,
    events: Sender<Event>,
) -> Result<Option<Preparation>, ServeError> {
    if !edge::is_needed(options) {
        return Ok(None);
    }
    let doorbell = Arc::new(Doorbell::default());
    let (waker, wakes) = Waker::piped().map_err(ServeError::EdgeThread)?;
    let (control, metrics) = (Arc::new(Control::default()), Metrics::default());
    let (journal, restored) = match restore::open(options, apps, shards, &metrics) {
        Ok(Some((journal, restored))) => (Some(journal), restored),
        Ok(None) => (None, Vec::new()),
        Err(error) => return Err(ServeError::Journal(error)),
    };
    let (mut lanes, mut words, mut links) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..shards {
        let (sender, lane) = lane::lane(limits::EDGE_LANE_LETTERS);
        let (word, words_of_shard) = lane::lane(limits::EDGE_WORDS);
        lanes.push(lane);
        words.push(word);
        let (doorbell, metrics) = (Arc::clone(&doorbell), metrics.clone());
        links.push(EdgeLink::new(sender, words_of_shard, doorbell, metrics));
    }
    let edge = Edge::new(edge::Setup {
        options: Arc::clone(options),
        apps: Arc::clone(apps),
        lanes,
        words,
        journal,
        doorbell,
        wakes,
        control: Arc::clone(&control),
        metrics,
        seed,
    })
    .map_err(ServeError::Edge)?;
    let prepared = Prepared {
        edge,
        control,
        waker,
        ended: Ended { events },
    };
    Ok(Some(Preparation {
        prepared,
        links,
        restored,
    }))
}

impl Prepared {
    /// Wakes the edge after its doorbell was rung.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Starts the thread, with the wakers of the shards.
    pub fn start(self, wakers: Vec<Waker>) -> Result<EdgeThread, ServeError> {
        let Prepared {
            edge,
            control,
            waker,
            ended,
        } = self;
        let run = move || {
            let _ended = ended;
            edge.run(wakers);
        };
        let thread = thread::Builder::new().name("edge".to_string()).spawn(run);
        Ok(EdgeThread {
            control,
            waker,
            thread: Some(thread.map_err(ServeError::EdgeThread)?),
        })
    }
}

impl EdgeThread {
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
