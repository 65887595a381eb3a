//! One thread: a ring, the connections that it owns, and the turn that moves everything.
//!
//! The [`Engine`] holds the state and decides what is to be sent; it never enters the kernel. The
//! turn in [`run`] hands its batch to the ring and brings back what completed.
//!
//! | about | files |
//! |---|---|
//! | the turn | `turn`, `pace` (how long it takes), `liveness` (timers), `drain`, `mesh` (lanes), `edge_link` |
//! | connections | `connections`, `intake` (bytes that came), `upgrade` (opening WebSockets) |
//! | the path of an event | `publish`, [`home`] (what a channel's home does first), `membership` (letters in, subscriptions), `sweep` |
//! | questions to homes | `ask` |
//! | who is behind | `lag` (the look, and the metrics' survey), `backlog` (who catches up), `reach` (how many have an event) |
//! | HTTP | [`http`]: requests, the API's calls |
//! | HTTP instead of WebSockets | [`fallback`] |

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize};

use bytes::BytesMut;

use crate::base::latency::Latencies;
use crate::base::limits;
use crate::base::metrics::Metrics;
use crate::base::slab::Key;
use crate::base::socket::Socket;
use crate::base::wheel::Wheel;
use crate::hub::apps::Apps;
use crate::hub::ask::Ask;
use crate::hub::audience::{Exception, Visit};
use crate::hub::channels::Channels;
use crate::hub::durable::Waiting;
use crate::hub::held::{Held, Lines};
use crate::hub::holdings::Holdings;
use crate::hub::hook::Action;
use crate::hub::letter::{Exit, Letter};
use crate::hub::variant::Encoder;
use crate::options::Options;
use crate::ring::Operation;
use crate::wire::websocket::{Deflater, Inflater};

pub mod ask;
pub mod backlog;
pub mod connections;
pub mod drain;
pub mod edge_link;
pub mod fallback;
pub mod home;
pub mod http;
pub mod intake;
pub mod lag;
pub mod liveness;
pub mod membership;
pub mod mesh;
pub mod pace;
pub mod publish;
pub mod reach;
pub mod sweep;
pub mod turn;
pub mod upgrade;

pub use publish::home_of;
pub use turn::{BEGIN_MS, Shard, run};

use connections::Connections;
use edge_link::EdgeLink;
use home::hold::Conclusion;
use lag::Survey;
use mesh::Mesh;
use pace::Pace;
use reach::Count;
use sweep::{Piece, Planned};

/// What a shard is made of.
pub struct Setup {
    pub index: u16,
    pub options: Arc<Options>,
    pub apps: Arc<Apps>,
    /// The same for all shards of a process, and another for every process.
    pub seed: u64,
    /// Connections that are served. The ring's file table has [`limits::RESERVE_SLOTS`] more slots.
    pub connections_max: u32,
    pub mesh: Mesh,
    /// Nothing if no app needs the edge thread.
    pub edge: Option<EdgeLink>,
    /// Of all shards, by index.
    pub metrics: Arc<[Metrics]>,
}

/// What the main thread tells all shards.
#[derive(Debug, Default)]
pub struct Control {
    /// One of the constants here; it only grows.
    pub phase: AtomicU8,
    /// Shards that have no connections any more and owe no letters.
    pub drained: AtomicUsize,
}

impl Control {
    pub const SERVING: u8 = 0;
    /// Accept no more, finish what was accepted, close clients, then end.
    pub const DRAINING: u8 = 1;
    /// End now.
    pub const STOPPED: u8 = 2;
}

/// The state of a shard, all of it its own.
pub struct Engine {
    index: u16,
    options: Arc<Options>,
    apps: Arc<Apps>,
    seed: u64,
    metrics: Metrics,
    all_metrics: Arc<[Metrics]>,
    connections_max: u32,
    pub connections: Connections,
    pub channels: Channels,
    mesh: Mesh,
    edge: Option<EdgeLink>,
    wheel: Wheel,
    /// The time since the shard began, in three units, as it was when the turn began.
    now_us: u64,
    now_ms: u64,
    now_s: u32,
    /// Seconds since 1970, for the timestamps of signed requests.
    wall_s: u64,
    latencies: Latencies,
    pace: Pace,
    /// The visits of the turn before, if it did something: its end is the beginning of the next.
    last_turn: Option<usize>,
    /// When the laps began that this turn ends.
    laps: Vec<u64>,
    is_draining: bool,
    accepts_waiting: u32,
    accepts_paused_until_ms: u64,
    is_table_full: bool,
    housekeeping_ms: u64,
    /// Operations and sends of this turn.
    operations: Vec<Operation>,
    planned: Vec<Planned>,
    pieces: Vec<Piece>,
    /// Connections and what they are to get besides direct visits: 0 for the outbox, else a
    /// channel plus one. At most one entry for each subscription, once a turn sorts it.
    gather: Vec<(u32, u32)>,
    gather_later: Vec<(u32, u32)>,
    /// Bytes that this turn may still plan for those who catch up, and whether some of them have to
    /// wait for the next one.
    backlog_room: usize,
    is_backlog_full: bool,
    /// Channels that were sent from in this turn.
    swept: Vec<u32>,
    /// Channels with letters to post: each at most once.
    owing: VecDeque<u32>,
    /// What other shards have not been told of congestion: one entry for each shard and channel.
    congestion_news: Vec<(u16, u64, bool)>,
    /// Channels, by hash, in which the engine is behind.
    congested: HashSet<u64>,
    /// Connections with a request that waits, and until when it does; each request at most once.
    parked: VecDeque<(Socket, u64)>,
    has_relief: bool,
    /// Connections whose answers have gone and whose next requests were kept, once each.
    flushed: Vec<Socket>,
    /// The logs of some shard held as much as they may, when that was last looked at.
    are_logs_full: bool,
    logs_seen_ms: u64,
    /// Connections that are to be closed after the turn's completions were read.
    doomed: Vec<u32>,
    broken: Vec<u32>,
    /// Sessions over HTTP, by name: at most `fallback_sessions_per_shard_max`.
    sessions: HashMap<Box<str>, u32>,
    /// Sessions that were sent from in the last turn, once each.
    delivered: Vec<u32>,
    /// Slots of sessions that ended in this turn.
    vacated: Vec<u32>,
    /// Letters about connections that move: at most one for each of them.
    transfers: VecDeque<(u16, Letter)>,
    /// Exceptions that came before their frames, which come in the same turn's letters or the next.
    early_exceptions: Vec<(u32, Exception)>,
    /// Questions for which there was no credit yet, or whose channel is still to be joined: at most
    /// as many as connections wait for.
    asks: VecDeque<(u16, Box<Ask>)>,
    /// Questions to this shard's own homes, for the next turn.
    own_asks: VecDeque<Box<Ask>>,
    /// Questions of other shards about what there is, for the next turn: the credit of those who ask
    /// bounds them.
    queries: VecDeque<(u16, Box<Ask>)>,
    /// Counts of subscribers who have an event, up to [`limits::REACH_COUNTS_MAX`].
    reach_counts: Vec<Count>,
    /// Those who left after they had asked to be let in, at most one for each question.
    exits: VecDeque<(u16, Box<Exit>)>,
    /// Homes whose count of subscribers may have changed in this turn.
    recounts: Vec<Key>,
    /// Homes that have to tell how many subscribers there are, once each.
    counts_due: Vec<Key>,
    /// Events that wait for an app's hook.
    held: Lines,
    /// Those who wait for such events and are to be told: at most one for each.
    conclusions: VecDeque<Conclusion>,
    released: Vec<(Held, Action)>,
    /// Events that wait for the disk.
    durable: Waiting,
    /// Homes that keep an event, once each, by the second when it will be over.
    caching: BinaryHeap<Reverse<(u32, Key)>>,
    /// Homes that retain events, once each, by the second in which there is something to forget.
    retaining: BinaryHeap<Reverse<(u32, Key)>>,
    holdings: Holdings,
    /// How many epochs have begun here.
    epochs: u64,
    /// Subscriptions that are to fetch what comes next for them, at most once each.
    fetches: VecDeque<(Socket, u32)>,
    fetch_number: u32,
    survey: Survey,
    arena: BytesMut,
    encoder: Encoder,
    inflater: Inflater,
    /// Scratch, kept for its memory.
    frame: Vec<u8>,
    text: Vec<u8>,
    visits: Vec<Visit>,
    indirect: Vec<u32>,
    due: Vec<u32>,
    passed: Vec<u32>,
    reviewed: Vec<u32>,
    sleepers: Vec<u16>,
    wanted_credit: Vec<(u16, u32)>,
}

impl Engine {
    /// Whether other shards have posted what this one has not read.
    pub fn has_letters(&mut self) -> bool {
        self.mesh.has_letters()
    }

    pub fn new(setup: Setup, now_ms: u64) -> Engine {
        let slots = setup.connections_max + limits::RESERVE_SLOTS;
        let options = &setup.options;
        let deflater = Deflater::new(options.compression_level, options.compression_bytes_min);
        Engine {
            index: setup.index,
            metrics: setup.metrics[usize::from(setup.index)].clone(),
            all_metrics: setup.metrics,
            options: setup.options,
            apps: setup.apps,
            seed: setup.seed,
            connections_max: setup.connections_max,
            connections: Connections::new(slots),
            channels: Channels::new(setup.seed),
            mesh: setup.mesh,
            wheel: Wheel::new(slots, limits::TIMER_TICK_MS, now_ms),
            edge: setup.edge,
            now_us: now_ms * 1000,
            now_ms,
            now_s: (now_ms / 1000) as u32,
            wall_s: 0,
            latencies: Latencies::new((now_ms / 1000) as u32),
            pace: Pace::default(),
            last_turn: None,
            laps: Vec::new(),
            is_draining: false,
            accepts_waiting: 0,
            accepts_paused_until_ms: 0,
            is_table_full: false,
            housekeeping_ms: now_ms,
            operations: Vec::new(),
            planned: Vec::new(),
            pieces: Vec::new(),
            gather: Vec::new(),
            gather_later: Vec::new(),
            backlog_room: 0,
            is_backlog_full: false,
            swept: Vec::new(),
            owing: VecDeque::new(),
            congestion_news: Vec::new(),
            congested: HashSet::new(),
            parked: VecDeque::new(),
            has_relief: false,
            flushed: Vec::new(),
            are_logs_full: false,
            logs_seen_ms: u64::MAX,
            doomed: Vec::new(),
            broken: Vec::new(),
            sessions: HashMap::new(),
            delivered: Vec::new(),
            vacated: Vec::new(),
            transfers: VecDeque::new(),
            early_exceptions: Vec::new(),
            asks: VecDeque::new(),
            own_asks: VecDeque::new(),
            queries: VecDeque::new(),
            reach_counts: Vec::new(),
            exits: VecDeque::new(),
            recounts: Vec::new(),
            counts_due: Vec::new(),
            held: Lines::default(),
            conclusions: VecDeque::new(),
            released: Vec::new(),
            durable: Waiting::default(),
            caching: BinaryHeap::new(),
            retaining: BinaryHeap::new(),
            holdings: Holdings::default(),
            epochs: 0,
            fetches: VecDeque::new(),
            fetch_number: 0,
            survey: Survey::default(),
            encoder: Encoder::new(deflater),
            arena: BytesMut::with_capacity(limits::ARENA_BYTES),
            inflater: Inflater::default(),
            frame: Vec::new(),
            text: Vec::new(),
            visits: Vec::new(),
            indirect: Vec::new(),
            due: Vec::new(),
            passed: Vec::new(),
            reviewed: Vec::new(),
            sleepers: Vec::new(),
            wanted_credit: Vec::new(),
        }
    }
}
