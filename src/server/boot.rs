//! From options to running shards, and back.
//!
//! Each shard has a thread, on which its ring is made, for the kernel takes submissions from no
//! other. The threads meet once: each hands its ring's descriptor and waker to the boot thread, and
//! gets all descriptors when every ring is there. If one fails, nobody gets them and all return.
//!
//! Invariants:
//! - No shard runs before every shard has a ring and a listener.
//! - A [`Running`] that is dropped has no threads left.
//! - No ring is closed before every shard has returned: until then another shard may wake it, and
//!   a file that came to have its number would get the wake.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use core_affinity::CoreId;
use crossbeam::sync::WaitGroup;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};
use tracing::warn;

use super::Event;
use super::edge_thread::{self, EdgeThread, Prepared};
use super::listener::listeners;
use crate::base::limits;
use crate::base::metrics::Metrics;
use crate::edge::TrustError;
use crate::edge::journal::JournalError;
use crate::edge::journal::restore::Restored;
use crate::hub::apps::Apps;
use crate::hub::channels::Channels;
use crate::options::{Automatic, Cores, Options};
use crate::ring::kernel::{KernelRing, RingError, Settings, Waker};
use crate::shard::mesh::meshes;
use crate::shard::{self, Control, Engine, Setup, Shard};

/// Why there is no server.
#[derive(Debug)]
pub enum ServeError {
    /// The cores that the process may run on cannot be read.
    Affinity(io::Error),
    /// A core is listed that the process may not run on.
    Core { core: usize, allowed: Vec<usize> },
    /// More connections are asked for than the process may have open files.
    OpenFiles { connections: u32, allowed: u32 },
    /// The address cannot be listened on.
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    /// No randomness.
    Seed(io::Error),
    /// No thread for a shard.
    Thread { shard: u16, source: io::Error },
    /// No ring for a shard.
    Ring { shard: u16, source: RingError },
    /// A webhook cannot be reached as its URL says.
    Edge(TrustError),
    /// The journal cannot be read or gone on with.
    Journal(JournalError),
    /// No thread for the edge, or no event to wake it by.
    EdgeThread(io::Error),
    /// A shard's thread ended before it said why.
    Lost,
}

/// Starts the shards; returns when all of them serve. Does not probe the machine, touches no signal
/// and prints nothing, so that a test may run several servers in one process.
pub fn start(options: Options) -> Result<Running, ServeError> {
    if let Err(error) = raise_open_files() {
        warn!("the soft limit of open files stays as it is: {error}");
    }
    let plan = Plan::new(&options)?;
    let address = options.address;
    let (address, listeners) = listeners(&options, plan.shards)
        .map_err(|source| ServeError::Listen { address, source })?;
    let seed = seed().map_err(ServeError::Seed)?;
    let metrics: Arc<[Metrics]> = (0..plan.shards).map(|_| Metrics::default()).collect();
    let options = Arc::new(options);
    let apps = Arc::new(Apps::new(&options));

    let (events_sender, events) = channel();
    let edge = edge_thread::prepare(&options, &apps, plan.shards, seed, events_sender.clone())?;
    let (edge, links, restored) = match edge {
        Some(edge) => (Some(edge.prepared), edge.links, edge.restored),
        None => (None, Vec::new(), Vec::new()),
    };
    let mut links = links.into_iter();
    let mut restored = by_home(restored, seed, plan.shards);
    let mut running = Running {
        address,
        options: Arc::clone(&options),
        metrics: Arc::clone(&metrics),
        control: Arc::new(Control::default()),
        wakers: Vec::new(),
        threads: Vec::new(),
        edge: None,
        events,
        events_sender,
        plan,
    };
    let (ready_sender, ready) = channel();
    let mut peers = Vec::new();
    let meshes = meshes(usize::from(running.plan.shards));
    let returned = WaitGroup::new();
    for (index, (mesh, listener)) in (0..).zip(meshes.into_iter().zip(listeners)) {
        let (peers_sender, peers_receiver) = channel();
        let seat = Seat {
            core: running.plan.core(index),
            listener,
            control: Arc::clone(&running.control),
            edge: edge.as_ref().map(Prepared::waker),
            restored: std::mem::take(&mut restored[usize::from(index)]),
            ready: ready_sender.clone(),
            peers: peers_receiver,
            ended: Ended {
                shard: index,
                events: running.events_sender.clone(),
            },
            returned: returned.clone(),
            setup: Setup {
                index,
                options: Arc::clone(&options),
                apps: Arc::clone(&apps),
                seed,
                connections_max: running.plan.connections_max,
                mesh,
                edge: links.next(),
                metrics: Arc::clone(&metrics),
            },
        };
        let thread = thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(move || seat.run());
        peers.push(peers_sender);
        match thread {
            Ok(thread) => running.threads.push(thread),
            Err(source) => {
                // The threads that are there wait for their peers: now nobody answers.
                drop(peers);
                return Err(ServeError::Thread {
                    shard: index,
                    source,
                });
            }
        }
    }
    drop(ready_sender);
    drop(returned);
    // On failure `peers` is dropped before `running`, which joins.
    let (descriptors, wakers) = meet(&ready, peers.len()).inspect_err(|_| peers.clear())?;
    let edge = edge.map(|edge| edge.start(wakers.clone()));
    running.edge = edge.transpose().inspect_err(|_| peers.clear())?;
    running.wakers = wakers;
    for sender in peers {
        sender
            .send(descriptors.clone())
            .map_err(|_| ServeError::Lost)?;
    }
    Ok(running)
}

/// Raises the soft limit of open files, which also bounds the direct descriptors of a ring, to the
/// hard one.
pub fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if raised != limit {
        setrlimit(Resource::Nofile, raised)?;
    }
    Ok(())
}

/// How the options come out on this machine.
#[derive(Clone, Debug)]
pub struct Plan {
    pub shards: u16,
    /// Connections that each shard serves.
    pub connections_max: u32,
    /// Empty if shards are not pinned.
    cores: Vec<usize>,
}

impl Plan {
    pub fn new(options: &Options) -> Result<Plan, ServeError> {
        let allowed = cores_allowed().map_err(ServeError::Affinity)?;
        let shards = options.shard_count(allowed.len());
        let cores = match &options.cores {
            Cores::All => allowed,
            Cores::Unpinned => Vec::new(),
            Cores::Listed(cores) => match cores.iter().find(|core| !allowed.contains(core)) {
                Some(&core) => return Err(ServeError::Core { core, allowed }),
                None => cores.clone(),
            },
        };
        let most = connections_allowed(getrlimit(Resource::Nofile).maximum);
        let connections_max = match options.connections_per_shard_max {
            Automatic::Auto => most,
            Automatic::Exactly(connections) if connections <= most => connections,
            Automatic::Exactly(connections) => {
                return Err(ServeError::OpenFiles {
                    connections,
                    allowed: most,
                });
            }
        };
        Ok(Plan {
            shards,
            connections_max,
            cores,
        })
    }

    fn core(&self, shard: u16) -> Option<usize> {
        let mut cores = self.cores.iter().cycle();
        cores.nth(usize::from(shard)).copied()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan {
            shards,
            connections_max,
            ..
        } = self;
        write!(
            formatter,
            "{shards} shards, {connections_max} connections each, "
        )?;
        let pins = (0..*shards).filter_map(|shard| self.core(shard));
        let pins: Vec<String> = pins.map(|core| core.to_string()).collect();
        match pins.is_empty() {
            true => formatter.write_str("not pinned"),
            false => write!(formatter, "on cores {}", pins.join(" ")),
        }
    }
}

/// Files that the process opens besides its connections: standard streams, rings, listeners.
const FILES_RESERVED: u64 = 64;

/// As many direct descriptors as the kernel lets one ring have (IORING_MAX_FIXED_FILES, 6.1).
const FILE_SLOTS_MAX: u64 = 1 << 20;

/// The limit bounds the process's files, and also the table of each ring.
fn connections_allowed(open_files_hard: Option<u64>) -> u32 {
    let files = open_files_hard.unwrap_or(FILE_SLOTS_MAX);
    let reserved = FILES_RESERVED + u64::from(limits::RESERVE_SLOTS);
    let most = FILE_SLOTS_MAX - u64::from(limits::RESERVE_SLOTS);
    let connections = files.saturating_sub(reserved).clamp(1, most);
    u32::try_from(connections).expect("the clamp is below 2^32")
}

fn cores_allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    let cores = 0..CpuSet::MAX_CPU;
    Ok(cores.filter(|core| set.is_set(*core)).collect())
}

fn seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The channels for each shard.
fn by_home(restored: Vec<Restored>, seed: u64, shards: u16) -> Vec<Vec<Restored>> {
    let channels = Channels::new(seed);
    let mut shares: Vec<Vec<Restored>> = (0..shards).map(|_| Vec::new()).collect();
    for restored in restored {
        let hash = channels.hash(restored.app, &restored.channel);
        shares[usize::from(shard::home_of(hash, usize::from(shards)))].push(restored);
    }
    shares
}

type Ready = (u16, Result<(RawFd, Waker), RingError>);

/// Waits until every shard has a ring, or for the first one that gets none.
fn meet(ready: &Receiver<Ready>, shards: usize) -> Result<(Vec<RawFd>, Vec<Waker>), ServeError> {
    let mut arrived = Vec::new();
    while arrived.len() < shards {
        let (shard, ring) = ready.recv().map_err(|_| ServeError::Lost)?;
        let (descriptor, waker) = ring.map_err(|source| ServeError::Ring { shard, source })?;
        arrived.push((shard, descriptor, waker));
    }
    arrived.sort_by_key(|(shard, ..)| *shard);
    let rings = arrived.into_iter();
    Ok(rings.map(|(_, ring, waker)| (ring, waker)).unzip())
}

/// What a shard's thread starts from.
struct Seat {
    core: Option<usize>,
    listener: TcpListener,
    control: Arc<Control>,
    /// Wakes the edge, if there is one.
    edge: Option<Waker>,
    /// The channels whose home it is that the journal has.
    restored: Vec<Restored>,
    ready: Sender<Ready>,
    peers: Receiver<Vec<RawFd>>,
    ended: Ended,
    returned: WaitGroup,
    setup: Setup,
}

impl Seat {
    fn run(self) {
        let Seat {
            core,
            listener,
            control,
            edge,
            restored,
            ready,
            peers,
            ended,
            returned,
            setup,
        } = self;
        if let Some(id) = core
            && !core_affinity::set_for_current(CoreId { id })
        {
            warn!("shard {} is not pinned to core {id}", setup.index);
        }
        let index = setup.index;
        let mut ring = match KernelRing::new(settings(setup.connections_max)) {
            Ok(ring) => ring,
            Err(error) => return tell(&ready, (index, Err(error))),
        };
        ring.listen(listener);
        if let Some(edge) = edge {
            ring.set_edge(edge);
        }
        tell(&ready, (index, Ok((ring.descriptor(), ring.waker()))));
        // Boot notices a thread that ended without a word by `ready` having no sender left.
        drop(ready);
        // Without an answer another shard got no ring, and there is nothing to serve.
        if let Ok(descriptors) = peers.recv() {
            ring.set_peers(descriptors);
            let mut engine = Engine::new(setup, shard::BEGIN_MS);
            for channel in restored {
                engine.restore(channel.app, &channel.channel, channel.retained);
            }
            let mut berth = Berth::new(Shard { ring, engine }, returned);
            // It leaves before the berth, also by panic: boot learns of it and has the others return.
            let _ended = ended;
            shard::run(&mut berth.kept, &control);
        }
    }
}

/// Keeps what a shard runs with until every shard has returned or panicked.
struct Berth<T> {
    kept: T,
    returned: Option<WaitGroup>,
}

impl<T> Berth<T> {
    fn new(kept: T, returned: WaitGroup) -> Berth<T> {
        Berth {
            kept,
            returned: Some(returned),
        }
    }
}

impl<T> Drop for Berth<T> {
    fn drop(&mut self) {
        self.returned.take().expect("it leaves once").wait();
    }
}

fn tell(ready: &Sender<Ready>, news: Ready) {
    if ready.send(news).is_err() {
        warn!("the boot thread has given up already");
    }
}

fn settings(connections_max: u32) -> Settings {
    Settings {
        file_slots: connections_max + limits::RESERVE_SLOTS,
        submission_entries: limits::SUBMISSION_ENTRIES,
        completion_entries: limits::COMPLETION_ENTRIES,
        receive_buffers: limits::RECEIVE_BUFFERS,
        receive_buffer_bytes: limits::RECEIVE_BUFFER_BYTES,
        accepts: limits::ACCEPTS_WAITING,
        skims: 0,
    }
}

/// Reports the end of a shard's thread, by return or by panic.
struct Ended {
    shard: u16,
    events: Sender<Event>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let event = Event::Ended { shard: self.shard };
        if self.events.send(event).is_err() {
            warn!("nobody waits for shard {}", self.shard);
        }
    }
}

/// The values of [`Control::phase`]; 0 is serving.
const PHASE_DRAINING: u8 = 1;
const PHASE_STOPPED: u8 = 2;

/// Shards that serve. Dropping it stops them and waits for them.
pub struct Running {
    address: SocketAddr,
    options: Arc<Options>,
    metrics: Arc<[Metrics]>,
    control: Arc<Control>,
    wakers: Vec<Waker>,
    threads: Vec<JoinHandle<()>>,
    /// Dropped after the shards were joined, as fields are dropped after `drop`.
    edge: Option<EdgeThread>,
    events: Receiver<Event>,
    events_sender: Sender<Event>,
    plan: Plan,
}

impl Running {
    /// Where it listens, with the port that the kernel chose if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// By shard.
    pub fn metrics(&self) -> &[Metrics] {
        &self.metrics
    }

    /// Begins to close clients, over `drain_ms`. Shards return when theirs are gone.
    pub fn drain(&self) {
        self.enter_phase(PHASE_DRAINING);
    }

    /// Stops the shards and waits for them. Panics if one of them did.
    pub fn stop(self) {}

    /// Tells the shards to return now, and does not wait for it.
    pub(super) fn halt(&self) {
        self.enter_phase(PHASE_STOPPED);
    }

    /// Tells the edge that the shards have ended: it delivers what is left. False if there is none.
    pub(super) fn drain_edge(&self) -> bool {
        self.edge.as_ref().inspect(|edge| edge.drain()).is_some()
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    pub(super) fn events_sender(&self) -> Sender<Event> {
        self.events_sender.clone()
    }

    fn enter_phase(&self, phase: u8) {
        self.control.phase.fetch_max(phase, Ordering::AcqRel);
        for waker in &self.wakers {
            waker.wake();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.halt();
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join()
                && !thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Affinity(source) => {
                write!(formatter, "the allowed cores cannot be read: {source}")
            }
            ServeError::Core { core, allowed } => {
                write!(
                    formatter,
                    "core {core} is not among those that this process may run on: {allowed:?}"
                )
            }
            ServeError::OpenFiles {
                connections,
                allowed,
            } => write!(
                formatter,
                "connections_per_shard_max is {connections}, and the limit of open files allows {allowed}: \
                 ulimit -n 1048576; in systemd LimitNOFILE=1048576"
            ),
            ServeError::Listen { address, source } => {
                write!(formatter, "cannot listen on {address}: {source}")
            }
            ServeError::Seed(source) => write!(formatter, "/dev/urandom cannot be read: {source}"),
            ServeError::Thread { shard, source } => {
                write!(formatter, "no thread for shard {shard}: {source}")
            }
            ServeError::Ring { shard, source } => write!(formatter, "shard {shard}: {source}"),
            ServeError::Edge(source) => source.fmt(formatter),
            ServeError::Journal(source) => source.fmt(formatter),
            ServeError::EdgeThread(source) => write!(formatter, "no thread for the edge: {source}"),
            ServeError::Lost => formatter.write_str("a shard ended while it started"),
        }
    }
}

impl std::error::Error for ServeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_server_starts_on_a_free_port_and_stops() {
        let running = start(Options {
            address: "127.0.0.1:0".parse().expect("an address"),
            shards: Automatic::Exactly(3),
            connections_per_shard_max: Automatic::Exactly(100),
            cores: Cores::Unpinned,
            ..Options::default()
        });
        let running = running.unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(running.address().port(), 0);
        assert_eq!(running.metrics().len(), 3);
        running.drain();
        running.stop();
    }

    #[test]
    fn nothing_is_closed_before_all_have_returned_also_if_one_panics() {
        struct Ring(Sender<&'static str>);

        impl Drop for Ring {
            fn drop(&mut self) {
                self.0.send("closed").expect("the test listens");
            }
        }
        let (said, heard) = channel();
        let returned = WaitGroup::new();
        let second = Berth::new(Ring(said.clone()), returned.clone());
        let first = {
            let said = said.clone();
            thread::spawn(move || {
                let _berth = Berth::new(Ring(said.clone()), returned);
                said.send("the first panics").expect("the test listens");
                std::panic::resume_unwind(Box::new("a shard's own fault"));
            })
        };
        assert_eq!(heard.recv(), Ok("the first panics"));
        assert!(heard.recv_timeout(Duration::from_millis(50)).is_err());
        said.send("the second returns").expect("the test listens");
        drop(second);
        assert!(first.join().is_err());
        let order: Vec<_> = heard.try_iter().collect();
        assert_eq!(order, ["the second returns", "closed", "closed"]);
    }

    #[test]
    fn connections_follow_the_limit_of_open_files() {
        assert_eq!(connections_allowed(Some(1024)), 1024 - 64 - 64);
        assert_eq!(connections_allowed(Some(3)), 1);
        assert_eq!(connections_allowed(None), (1 << 20) - 64 - 64);
        assert_eq!(connections_allowed(Some(1 << 30)), (1 << 20) - 64);
    }
}
