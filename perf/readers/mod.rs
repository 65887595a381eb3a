//! The other end of every measurement: one process that holds thousands of connections and reads
//! what they are sent as cheaply as it can.
//!
//! It speaks either nothing (it connects and reads) or the Pusher protocol (handshake,
//! subscriptions, pongs). Once told to count, it has the kernel throw bytes away unread
//! (`MSG_TRUNC`) and only adds up lengths; a sample of the connections is still decoded frame by
//! frame, and its stamps are checked for gaps, repeats, reorders and delay. All messages of a run
//! have one length, so the sample's frames tell how many messages the counted bytes are.

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::companion::Companion;

mod connection;
mod process;
mod sample;

pub use process::serve;

/// The hidden first argument that makes a program this process.
pub const ROLE: &str = "readers";

/// What the process is told first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    pub address: SocketAddr,
    pub core: usize,
    pub speech: Speech,
    /// How many connections of all are decoded while the others are counted.
    pub sample: usize,
    /// The number of its first connection, where several processes share the work: source
    /// addresses and channel names come from numbers.
    pub first_number: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Speech {
    /// Connect and read.
    Bytes,
    /// The Pusher protocol with this application key.
    Pusher { key: String, channels: Channels },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Channels {
    /// Everybody subscribes to this one.
    Shared { name: String },
    /// Each connection has up to so many of its own, and starts with none.
    Own { per_connection_max: usize },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Open connections until there are so many, each greeted and subscribed.
    Connect { connections: usize },
    /// Close the last ones until so many are left.
    Disconnect { connections: usize },
    /// Subscribe to, or unsubscribe from, own channels until each connection has so many.
    Subscribe { per_connection: usize },
    /// Forget what was counted; from now on messages of a new run arrive, from sequence 0.
    Count,
    /// Say what was counted.
    Report,
    /// Send an unasked pong on every connection, as a sign of life.
    Heartbeat,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The command is carried out on every connection.
    Settled {
        connections: usize,
        subscriptions: usize,
        seconds: f64,
    },
    Counted(Box<Count>),
    Failed(String),
}

/// What was read since [`Command::Count`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Count {
    pub connections: usize,
    /// Connections that ended.
    pub closed: usize,
    pub bytes: u64,
    pub receives: u64,
    /// CPU time of the reader process.
    pub cpu_ns: u64,
    /// The length of a message on the wire, if the sample saw one length only.
    pub frame_bytes: Option<u64>,
    pub messages: u64,
    /// The connection that got the fewest, and the one that got the most.
    pub messages_min: u64,
    pub messages_max: u64,
    /// Connections whose bytes are no whole number of messages.
    pub uneven: usize,
    pub sample: SampleCount,
}

impl Count {
    /// Signs that not every connection got exactly `messages`, once each and in order.
    pub fn wrong(&self, messages: u64) -> u64 {
        let lost = (messages * self.connections as u64).abs_diff(self.messages);
        let sample = &self.sample;
        let disorder = sample.missing + sample.repeated + sample.reordered;
        lost + disorder + self.uneven as u64 + self.closed as u64
    }
}

/// What the decoded connections saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SampleCount {
    pub connections: usize,
    pub messages: u64,
    /// Places where a sequence number was left out, and how many numbers are still missing.
    pub gaps: u64,
    pub missing: u64,
    pub repeated: u64,
    pub reordered: u64,
    /// The longest time between two arrivals on one connection: a lap of the sender's sweep.
    pub arrival_gap_us_max: u64,
    /// From the stamp's due time to the moment the bytes were read.
    pub latency_us: Latency,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// The handle of whoever started the process.
pub struct Readers {
    companion: Companion,
}

impl Readers {
    pub fn start(orders: &Orders) -> io::Result<Readers> {
        let mut companion = Companion::start(ROLE)?;
        companion.tell(orders)?;
        let mut readers = Readers { companion };
        readers.settled()?;
        Ok(readers)
    }

    /// Gives a command; its answer is read with [`Readers::settled`] or [`Readers::count`].
    pub fn tell(&mut self, command: Command) -> io::Result<()> {
        self.companion.tell(&command)
    }

    /// Waits until the command is carried out; returns how many seconds that took.
    pub fn settled(&mut self) -> io::Result<f64> {
        match self.companion.hear()? {
            Answer::Settled { seconds, .. } => Ok(seconds),
            Answer::Failed(why) => Err(io::Error::other(why)),
            Answer::Counted(_) => Err(io::Error::other("a count that nobody asked for")),
        }
    }

    pub fn carry_out(&mut self, command: Command) -> io::Result<f64> {
        self.tell(command)?;
        self.settled()
    }

    pub fn count(&mut self) -> io::Result<Count> {
        self.tell(Command::Report)?;
        match self.companion.hear()? {
            Answer::Counted(count) => Ok(*count),
            Answer::Failed(why) => Err(io::Error::other(why)),
            Answer::Settled { .. } => Err(io::Error::other("an answer to no command")),
        }
    }

    /// Waits until nothing has arrived for a while: all that comes later belongs to a run.
    pub fn quiet(&mut self, still_ms: u64) -> io::Result<()> {
        self.drained(u64::MAX, still_ms).map(drop)
    }

    /// Waits until every connection has got `messages`, or until nothing has arrived for
    /// `patience_ms`, and returns the last count.
    pub fn drained(&mut self, messages: u64, patience_ms: u64) -> io::Result<Count> {
        let mut last = self.count()?;
        let mut still_ms = 0;
        while last.messages_min < messages && still_ms < patience_ms {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let next = self.count()?;
            still_ms = if next.bytes == last.bytes {
                still_ms + 20
            } else {
                0
            };
            last = next;
        }
        Ok(last)
    }
}
