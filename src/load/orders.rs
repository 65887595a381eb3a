//! What a coordinator and its clients say to each other, as lines of JSON.
//!
//! A *unit* of clients is one process with a thread and a ring for every [`CLIENTS_PER_RING`] clients. It is told
//! [`Orders`] first and answers [`Answer::Settled`]; then it is told one [`Command`] after the other, and answers
//! each of them once, in order. Only [`Command::Glance`] jumps the queue: it is answered at once, while another
//! command is still being carried out. Several units share the work by [`Orders::first_client`]; each of their
//! answers can be added to the others' ([`Settled::add`], [`Glance::add`], [`Count::add`]).
//!
//! A run, as a coordinator leads it:
//!
//! ```text
//! Open      -> Settled   clients connect, are greeted, and subscribe
//!              a few messages as a warm-up: the unit learns how long a message is on the wire
//! Begin     -> Settled   messages of the run are numbered from 0, on each channel
//! Glance    -> Glance    again and again: live figures, and whether everything has arrived
//! Report    -> Count     all that is known of the run; counting goes on
//! ```
//!
//! All times are nanoseconds of CLOCK_MONOTONIC, one clock for all processes of the machine.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::result::LatencyHistogram;

mod column;
mod count;
mod reached;

pub use column::Column;
pub use count::{Churned, Count, EVIDENCE_MAX, Evidence, Order, Receipts, Stalled, Thread, Wrong};
pub use reached::Reached;

/// The hidden first argument that makes the program a unit of clients.
pub const ROLE: &str = "bench-clients";

/// Clients of one ring. The process's limit of open files is also the limit of a ring's table, 20,000 where
/// nobody raised it; a lower limit makes rings smaller and more.
pub const CLIENTS_PER_RING: usize = 19_000;

/// Clients that are on their way at once where nobody said how many: far below any listener's backlog.
pub const OPENING_MAX: usize = 512;

/// What a unit is told first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Orders {
    pub target: SocketAddr,
    /// Where the clients connect from, in turn. Each address has some 28,000 ports of its own towards one target.
    /// Empty leaves the choice to the kernel, which has one address to choose from.
    pub sources: Vec<IpAddr>,
    pub speech: Speech,
    pub channels: Channels,
    /// The cores of the unit's threads, in turn. One thread for each is started at least. Empty is the first core that
    /// the process may run on.
    pub cores: Vec<usize>,
    /// The number of its first client, where several units share the work. Channels, users and source addresses
    /// follow from a client's number.
    pub first_client: u64,
    /// The most clients that will ever be open at once, those of [`Command::Churn`] included.
    pub clients_max: usize,
    /// Clients that are on their way at once, from SYN to subscription, guests not counted: the next one leaves when one
    /// of them is in. Each of the unit's threads has its share of them, and one at least.
    pub opening_max: usize,
    pub sample: Sample,
    /// The receive buffer (SO_RCVBUF) of every client, where it shall not be the kernel's own choice: a reader that
    /// stalls is only seen by the server when its buffer is full.
    pub receive_buffer_bytes: Option<u32>,
}

/// Which clients decode every frame and check the order of messages, while the others only count bytes. Those that
/// only count need messages of one length; where the lengths differ, all clients decode whatever is said here.
///
/// At a client that only counts a message is seen that it lacks or that came twice. Messages in another order are not,
/// nor one that it lacks while another came twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sample {
    All,
    /// So many of the unit's clients, spread evenly, but at least one of each thread.
    Clients(usize),
}

/// The dialect that clients speak, with what it has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speech {
    /// Connect and read: a client is open when it is connected.
    Bytes,
    /// The Pusher Channels protocol over WebSocket: open is greeted and subscribed.
    Pusher(Pusher),
    /// WebSocket and nothing in it. `{channel}` in the path stands for the channel.
    Plain { path: String },
    /// NATS over WebSocket.
    Nats { path: String },
    /// MQTT 3.1.1 over WebSocket, messages at most once.
    Mqtt { path: String },
    /// socket.io over WebSocket, channels as rooms. A path without a query stands before the server's own.
    SocketIo { path: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pusher {
    /// The request's path and query, `/app/KEY?protocol=7`.
    pub path: String,
    pub key: String,
    /// Signs subscriptions to private and presence channels, and is needed for them alone.
    pub secret: Option<String>,
    /// Clients ask for the channel that they open with in their address (`&subscribe=CHANNEL`, as outpour takes it),
    /// and not by a message after the greeting. Only for a public one: the others are signed for a socket id, which
    /// the greeting tells.
    pub subscribes_in_address: bool,
}

impl Pusher {
    /// As servers have it by default.
    pub fn new(key: &str, secret: Option<&str>) -> Pusher {
        Pusher {
            path: format!("/app/{key}?protocol=7&client=outpour-bench&version=1.0"),
            key: key.to_owned(),
            secret: secret.map(str::to_owned),
            subscribes_in_address: false,
        }
    }
}

/// What clients subscribe to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    /// Nothing: who is connected receives.
    None,
    /// `count` channels between all units; client `k` subscribes to channel `k % count` when it opens.
    Shared {
        access: Access,
        name: String,
        count: u64,
    },
    /// Each client has up to `per_client_max` of its own, and starts with none: see [`Command::Subscribe`].
    Own {
        access: Access,
        name: String,
        per_client_max: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    Public,
    Private,
    /// Client `k` is user `k % users`. News of members have another length than messages, so all clients decode.
    Presence {
        users: u64,
    },
}

impl Access {
    /// What names of such channels begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Access::Public => "",
            Access::Private => "private-",
            Access::Presence { .. } => "presence-",
        }
    }
}

impl Channels {
    /// The name of channel `index`, as clients subscribe and publishers publish to it: the given one if there is but
    /// one, else the given one with a number behind it. All names of a run are of one length.
    pub fn name(&self, index: u64) -> String {
        match self {
            Channels::None => String::new(),
            Channels::Shared {
                access,
                name,
                count: 1,
            } => format!("{}{name}", access.prefix()),
            Channels::Shared { access, name, .. } | Channels::Own { access, name, .. } => {
                format!("{}{name}-{index:07}", access.prefix())
            }
        }
    }

    /// The channel that a client subscribes to when it opens.
    pub fn at_first(&self, client: u64) -> Option<u64> {
        match self {
            Channels::None | Channels::Own { .. } => None,
            Channels::Shared { count, .. } => Some(client % count),
        }
    }

    /// The `place`-th channel of a client's own.
    pub fn own(&self, client: u64, place: u64) -> Option<u64> {
        match self {
            Channels::None | Channels::Shared { .. } => None,
            Channels::Own { per_client_max, .. } => {
                (place < *per_client_max).then_some(client * per_client_max + place)
            }
        }
    }

    /// How many channels carry messages whose receipts are told one by one.
    pub fn shared(&self) -> u64 {
        match self {
            Channels::None => 1,
            Channels::Shared { count, .. } => *count,
            Channels::Own { .. } => 0,
        }
    }

    pub fn access(&self) -> Access {
        match self {
            Channels::None => Access::Public,
            Channels::Shared { access, .. } | Channels::Own { access, .. } => *access,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Open clients until the unit has `clients`, at a pace or as fast as the server accepts. Settled when each of
    /// them is greeted and subscribed.
    Open {
        clients: usize,
        per_second: Option<f64>,
    },
    /// Close the last ones until `clients` are left.
    Close { clients: usize, manner: Manner },
    /// Close the last `clients` abruptly, all at once, and open them again: a storm.
    Reconnect {
        clients: usize,
        per_second: Option<f64>,
    },
    /// From now on the last `clients` read so many bytes a second each (0 is none), and leave the rest in their
    /// sockets. They belong to no run that is counted: see [`Count::stalled`].
    Stall {
        clients: usize,
        bytes_per_second: u64,
    },
    /// All read as fast as they can. Those that were stalled come back into the count with the next
    /// [`Command::Begin`].
    Unstall,
    /// From now on `per_second` guests come and as many leave: they connect, subscribe, stay until `guests` are there,
    /// and then the oldest leaves for each that comes. They belong to no run that is counted: see [`Count::churn`]. A
    /// rate of 0 ends it and closes those that are left.
    Churn { per_second: f64, guests: usize },
    /// Subscribe to, or unsubscribe from, own channels until each client has so many.
    Subscribe { per_client: u64 },
    /// Forget what was counted: from now on messages of a new run arrive, numbered from 0 on each channel. Nothing
    /// of an earlier run may be under way. `frame_bytes` is the length of each message on the wire, if it is known;
    /// otherwise what was learnt from messages before is taken, and a unit that saw none decodes with all clients.
    Begin { frame_bytes: Option<u64> },
    /// Live figures, at once.
    Glance,
    /// All that was counted since [`Command::Begin`].
    Report,
    /// A sign of life on every connection, so that a server does not take a silent client for a dead one. Clients that
    /// only count do not see a server's pings: where a run takes longer than a server is patient (two minutes for the
    /// Pusher protocol), this is to be said in time.
    Heartbeat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// As the dialect says goodbye, then an end of stream.
    Orderly,
    /// The socket is closed, whatever is under way.
    Abrupt,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The command is carried out on every client.
    Settled(Settled),
    Glance(Glance),
    Count(Box<Count>),
    /// The command cannot be carried out; the unit ends.
    Failed(String),
}

/// What it took to carry out a command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    /// Clients that are open, guests not counted.
    pub clients: u64,
    pub subscriptions: u64,
    /// When it began, and when the last client had done it.
    pub from_ns: u64,
    pub until_ns: u64,
    /// When the last of those that opened was greeted (for WebSocket, upgraded); 0 if none opened.
    pub greeted_ns: u64,
    /// Clients that opened meanwhile.
    pub handshakes: u64,
    /// Attempts to open that failed and were made again.
    pub failures: u64,
    /// From the SYN of each of them to the confirmation of its subscription (its greeting where it subscribes to
    /// nothing).
    pub opened: LatencyHistogram,
    /// The same from the moment that the command was begun.
    pub joined: LatencyHistogram,
    /// What the unit's threads took to carry it out.
    pub efforts: Vec<Effort>,
}

impl Settled {
    pub fn seconds(&self) -> f64 {
        self.until_ns.saturating_sub(self.from_ns) as f64 / 1e9
    }

    pub fn handshakes_per_second(&self) -> f64 {
        self.handshakes as f64 / self.seconds().max(1e-9)
    }

    /// Takes in what another unit or thread did at the same time.
    pub fn add(&mut self, other: &Settled) {
        self.clients += other.clients;
        self.subscriptions += other.subscriptions;
        self.from_ns = match (self.from_ns, other.from_ns) {
            (0, from_ns) | (from_ns, 0) => from_ns,
            (one, another) => one.min(another),
        };
        self.until_ns = self.until_ns.max(other.until_ns);
        self.greeted_ns = self.greeted_ns.max(other.greeted_ns);
        self.handshakes += other.handshakes;
        self.failures += other.failures;
        self.opened.add(&other.opened);
        self.joined.add(&other.joined);
        self.efforts.extend_from_slice(&other.efforts);
    }
}

/// CPU time that one thread took to carry out a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effort {
    pub core: usize,
    pub cpu_ns: u64,
}

/// Live figures, cheap enough to ask for many times a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Glance {
    /// Clients that are open, and those that are on their way.
    pub clients: u64,
    pub opening: u64,
    /// Clients that the server ended since [`Command::Begin`].
    pub closed: u64,
    /// Since [`Command::Begin`], by the clients that count.
    pub bytes: u64,
    pub messages: u64,
    /// Clients that take part in the run and are open.
    pub counted: u64,
    /// What the one of them that is furthest behind has received, and the one that is furthest ahead. On several
    /// channels these are messages of one of them.
    pub messages_min: u64,
    pub messages_max: u64,
    /// Signs of disorder so far: gaps, repeats, reorders and frames that are none.
    pub disorder: u64,
    /// Deliveries to the sample since the last glance, each from its due time.
    pub deliveries: LatencyHistogram,
    /// CPU time of the unit's process since it was started.
    pub cpu_ns: u64,
    /// When it was taken.
    pub at_ns: u64,
}

impl Glance {
    /// Takes in what another unit or thread saw.
    pub fn add(&mut self, other: &Glance) {
        if other.counted > 0 {
            let is_first = self.counted == 0;
            self.messages_min = match is_first {
                true => other.messages_min,
                false => self.messages_min.min(other.messages_min),
            };
            self.messages_max = self.messages_max.max(other.messages_max);
        }
        self.counted += other.counted;
        self.clients += other.clients;
        self.opening += other.opening;
        self.closed += other.closed;
        self.bytes += other.bytes;
        self.messages += other.messages;
        self.disorder += other.disorder;
        self.deliveries.add(&other.deliveries);
        self.cpu_ns += other.cpu_ns;
        self.at_ns = self.at_ns.max(other.at_ns);
    }
}
