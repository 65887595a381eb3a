//! The connections of one shard: a record for every slot of the ring's file table.
//!
//! Invariant: a slot is `direct` exactly if a frame of its one subscription may be sent straight
//! from the log: it is open, has one subscription, takes bytes, and has nothing else to send.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::{Index, IndexMut};

use smallvec::SmallVec;

use crate::base::limits;
use crate::base::slots::SlotSet;
use crate::base::socket::{GENERATION_BITS, Socket};
use crate::hub::letter::Publication;
use crate::hub::session::Session;
use crate::hub::users::SignIn;
use crate::hub::variant::Variant;
use crate::wire::http::Progress;
use crate::wire::websocket::Decoder;

/// One connection, or the slot of one to come.
pub struct Connection {
    pub generation: u32,
    pub heard_s: u32,
    pub state: State,
    pub is_receiving: bool,
    /// The socket was full when it was last sent to, and has not said that it takes bytes again.
    pub is_blocked: bool,
    pub was_pinged: bool,
    /// A message was incomplete when the connection was last looked at.
    pub was_mid_message: bool,
    /// The timer that is set is the one that looks for silence.
    pub has_activity_timer: bool,
    /// The peer has ended its side.
    pub has_ended: bool,
    /// Runs of frames that this connection does not get and has not passed.
    pub exceptions: u32,
    pub peer: IpAddr,
    /// In which form it gets channels' frames.
    pub variant: Variant,
    pub protocol: Protocol,
    pub subscriptions: SmallVec<[Subscription; 2]>,
    pub outbox: Option<Box<Outbox>>,
    pub waiting: Option<Box<Waiting>>,
}

/// ```text
/// Free -- accept pushed --> Accepting -- accepted --> Open
/// Open -- last words written --> Flushing -- sent --> Lingering -- peer ended, or time --> Ending
/// Open, Flushing -- broken --> Ending
/// Ending -- receive ended --> Closing -- closed --> Free
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Free,
    Accepting,
    Open,
    Flushing,
    Lingering,
    Ending,
    Closing,
}

pub enum Protocol {
    Http(Box<Http>),
    WebSocket {
        decoder: Decoder,
        session: Session,
    },
    Echo {
        decoder: Decoder,
    },
    /// Taken out while its bytes are read, or closed.
    Absent,
}

#[derive(Default)]
pub struct Http {
    pub progress: Progress,
    /// When the current request began to arrive.
    pub begun_ms: Option<u64>,
}

/// A channel that the connection is subscribed to, and its place there.
#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    pub channel: u32,
    pub index: u32,
}

/// What goes to this connection alone, before any channel's frames: the rest of a frame that was
/// sent in part, and replies. Full of replies: the connection is closed.
#[derive(Default)]
pub struct Outbox {
    pub bytes: Vec<u8>,
    pub sent: usize,
    /// Where the rest of a frame ends, which is no reply.
    rest_end: usize,
}

impl Outbox {
    /// Keeps the rest of a frame, behind all that is here and has been sent.
    pub fn keep_rest(&mut self, rest: &[u8]) {
        assert_eq!(self.sent, self.bytes.len(), "the outbox goes before frames");
        self.bytes.extend_from_slice(rest);
        self.rest_end = self.bytes.len();
    }

    /// Bytes of replies that have not been sent.
    pub fn replies_bytes(&self) -> usize {
        self.bytes.len() - self.sent.max(self.rest_end)
    }
}

/// A connection whose request is not answered yet, and the bytes that came after it.
#[derive(Default)]
pub struct Waiting {
    /// Bytes that were not read yet. Beyond `READ_AHEAD_BYTES_MAX` the receive is stopped.
    pub input: Vec<u8>,
    /// Events that could not be posted yet.
    pub parked: Vec<Publication>,
    pub parked_until_ms: u64,
    /// Confirmations and answers of homes that have not come yet.
    pub receipts: u32,
    pub persistence_closes: bool,
    /// What is to be done when the last of them came, if it is not simply to go on.
    pub pending: Option<Pending>,
}

/// What a connection waits for answers for.
#[derive(Debug)]
pub enum Pending {
    SignIn(Box<SignIn>),
}

impl Waiting {
    pub fn is_waiting(&self) -> bool {
        self.receipts > 0 || !self.parked.is_empty()
    }
}

/// All slots. Memory is touched as slots come into use.
pub struct Connections {
    records: Vec<Connection>,
    free: Vec<u32>,
    slots: u32,
    pub direct: SlotSet,
}

impl Connections {
    pub fn new(slots: u32) -> Connections {
        assert!(slots <= limits::SLOTS_MAX);
        Connections {
            records: Vec::with_capacity(slots as usize),
            free: Vec::new(),
            slots,
            direct: SlotSet::new(slots),
        }
    }

    /// A slot for a connection to come; nothing if all are in use.
    pub fn take_slot(&mut self) -> Option<Socket> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.records.len() < self.slots as usize => {
                self.records.push(Connection::new(0));
                (self.records.len() - 1) as u32
            }
            None => return None,
        };
        self.records[slot as usize].state = State::Accepting;
        Some(self.socket(slot))
    }

    /// The slot is empty again.
    pub fn free_slot(&mut self, slot: u32) {
        let generation = self.records[slot as usize].generation + 1;
        self.records[slot as usize] = Connection::new(generation % (1 << GENERATION_BITS));
        self.free.push(slot);
    }

    pub fn socket(&self, slot: u32) -> Socket {
        Socket {
            slot,
            generation: self[slot].generation,
        }
    }

    /// Whether the socket is the one that its slot holds now.
    pub fn is_current(&self, socket: Socket) -> bool {
        let record = self.records.get(socket.slot as usize);
        record.is_some_and(|connection| {
            connection.generation == socket.generation && connection.state != State::Free
        })
    }

    pub fn refresh_direct(&mut self, slot: u32) {
        let connection = &self.records[slot as usize];
        let is_direct = connection.state == State::Open
            && connection.subscriptions.len() == 1
            && !connection.is_blocked
            && connection.outbox.is_none()
            && connection.exceptions == 0;
        self.direct.set(slot, is_direct);
    }

    pub fn slots_in_use(&self) -> u32 {
        self.records.len() as u32
    }
}

impl Connection {
    fn new(generation: u32) -> Connection {
        Connection {
            generation,
            heard_s: 0,
            state: State::Free,
            is_receiving: false,
            is_blocked: false,
            was_pinged: false,
            was_mid_message: false,
            has_activity_timer: false,
            has_ended: false,
            exceptions: 0,
            peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            variant: Variant::Plain,
            protocol: Protocol::Absent,
            subscriptions: SmallVec::new(),
            outbox: None,
            waiting: None,
        }
    }

    pub fn is_waiting(&self) -> bool {
        self.waiting
            .as_ref()
            .is_some_and(|waiting| waiting.is_waiting())
    }
}

impl Index<u32> for Connections {
    type Output = Connection;

    fn index(&self, slot: u32) -> &Connection {
        &self.records[slot as usize]
    }
}

impl IndexMut<u32> for Connections {
    fn index_mut(&mut self, slot: u32) -> &mut Connection {
        &mut self.records[slot as usize]
    }
}
