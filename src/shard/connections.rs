//! The connections of one shard: a record for every slot of the ring's file table.
//!
//! Invariant: a slot is `direct` exactly if a frame of its one subscription may be sent straight
//! from the log: it is open, has one subscription, takes bytes, has nothing else to send or to get
//! first, and has a socket of its own.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::{Index, IndexMut};

use smallvec::SmallVec;

use crate::base::limits;
use crate::base::slots::SlotSet;
use crate::base::socket::{GENERATION_BITS, Socket};
use crate::hub::fallback::Transfer;
use crate::hub::letter::{Publication, Refusal};
use crate::hub::query::{Poll, Query};
use crate::hub::session::Session;
use crate::hub::users::SignIn;
use crate::hub::variant::Variant;
use crate::wire::http::Progress;
use crate::wire::websocket::Decoder;

use super::backlog::Backlog;
use super::fallback::sessions::Fallback;
use super::fallback::transfer::Departure;
use super::http::Answer;

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
    /// Some of its subscriptions get retained events before live ones.
    pub is_behind: bool,
    /// Runs of frames that this connection does not get and has not passed.
    pub exceptions: u32,
    pub peer: PeerAddress,
    /// In which form it gets channels' frames.
    pub variant: Variant,
    /// The app in whose quota it counts.
    pub counted_for: Option<u16>,
    pub protocol: Protocol,
    pub subscriptions: SmallVec<[Subscription; 2]>,
    pub outbox: Option<Box<Outbox>>,
    pub waiting: Option<Box<Waiting>>,
}

/// Who connected, in 18 bytes, for the log: an IPv4 address is kept as the IPv6 one that stands
/// for it (RFC 4291, section 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    ip: Ipv6Addr,
    port: u16,
}

impl PeerAddress {
    const UNKNOWN: PeerAddress = PeerAddress {
        ip: Ipv6Addr::UNSPECIFIED,
        port: 0,
    };
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> PeerAddress {
        let ip = match address {
            SocketAddr::V4(address) => address.ip().to_ipv6_mapped(),
            SocketAddr::V6(address) => *address.ip(),
        };
        let port = address.port();
        PeerAddress { ip, port }
    }
}

impl From<PeerAddress> for SocketAddr {
    fn from(peer: PeerAddress) -> SocketAddr {
        SocketAddr::new(peer.ip.to_canonical(), peer.port)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(formatter)
    }
}

/// ```text
/// Free -- accept pushed --> Accepting -- accepted --> Open
/// Open -- last words written --> Flushing -- sent --> Lingering -- peer ended, or time --> Ending
/// Open, Flushing -- broken --> Ending
/// Ending -- receive ended --> Closing -- closed --> Free
/// Open -- a session elsewhere is called --> Departing -- all at rest --> Moving -- moved --> Free
/// Free -- a connection comes from elsewhere --> Arriving -- arrived --> Open, or stays --> Free
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
    Departing,
    Moving,
    Arriving,
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
    /// A session over HTTP, which has no socket of its own.
    Fallback(Box<Fallback>),
    /// An HTTP connection whose answer is what the session is sent.
    Receiver {
        session: Socket,
    },
    /// An HTTP connection whose answer is a channel's events.
    EventStream,
    Departing(Box<Departure>),
    Arriving(Box<Transfer>),
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
    fn keep_rest(&mut self, rest: &[u8]) {
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
    pub parked: SmallVec<[Publication; 1]>,
    pub parked_until_ms: u64,
    /// Confirmations and answers of homes that have not come yet.
    pub receipts: u32,
    /// One of the homes refused.
    pub refusal: Option<Refusal>,
    /// When the request began to wait.
    pub since_us: Option<u64>,
    pub persistence_closes: bool,
    /// Its next request is read when the answers to those before have gone.
    pub is_flushing: bool,
    /// The answer has no body.
    pub is_head: bool,
    /// What is to be done when the last of them came, if it is not simply to go on.
    pub pending: Option<Pending>,
    /// It is a publish, and nothing can refuse it any more: the next may be read.
    pub is_certain: bool,
    /// Such publishes that came before the request that waits. They are answered ahead of it.
    pub ahead: u32,
    /// The client of the next request sends its body when it is told to.
    pub owes_continue: bool,
}

/// What a connection waits for answers for.
#[derive(Debug)]
pub enum Pending {
    SignIn(Box<SignIn>),
    Query(Box<Query>),
    /// To refuse a subscription to this channel, which was asked for again before the first was
    /// answered.
    Repeat(Box<str>),
    /// Only for the answers to those ahead of it.
    Turn(Box<Answer>),
}

impl Waiting {
    pub fn is_waiting(&self) -> bool {
        self.receipts > 0 || !self.parked.is_empty() || self.is_flushing
    }

    /// Whether a call of the API may be carried out before the one that waits is answered.
    pub fn lets_follow(&self) -> bool {
        self.is_certain
            && !self.persistence_closes
            && !self.is_flushing
            && self.ahead < limits::PUBLISHES_AHEAD_MAX
    }

    /// The peer has sent as much ahead as it may.
    pub fn is_full(&self) -> bool {
        self.is_waiting() && self.input.len() > limits::READ_AHEAD_BYTES_MAX
    }
}

/// All slots. Memory is touched as slots come into use.
pub struct Connections {
    records: Vec<Connection>,
    free: Vec<u32>,
    /// Emptied, with their memory, for the next reply and the next request that waits.
    #[expect(
        clippy::vec_box,
        reason = "a connection holds the box, and it moves there and back"
    )]
    spare_outboxes: Vec<Box<Outbox>>,
    #[expect(clippy::vec_box, reason = "likewise")]
    spare_waits: Vec<Box<Waiting>>,
    /// Of the connections that are behind, by slot: few of many, so that the others pay nothing.
    backlogs: HashMap<u32, SmallVec<[Backlog; 1]>>,
    slots: u32,
    pub direct: SlotSet,
}

impl Connections {
    pub fn new(slots: u32) -> Connections {
        assert!(slots <= limits::SLOTS_MAX);
        Connections {
            records: Vec::with_capacity(slots as usize),
            free: Vec::new(),
            spare_outboxes: Vec::new(),
            spare_waits: Vec::new(),
            backlogs: HashMap::new(),
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
            && connection.exceptions == 0
            && !connection.is_behind
            && connection.variant != Variant::Xhr;
        self.direct.set(slot, is_direct);
    }

    /// The connection's outbox, which it is given if it has none.
    pub fn outbox(&mut self, slot: u32) -> &mut Outbox {
        let outbox = &mut self.records[slot as usize].outbox;
        outbox.get_or_insert_with(|| self.spare_outboxes.pop().unwrap_or_default())
    }

    /// Keeps the rest of a frame that the connection's socket took in part, in no more memory than it
    /// takes: many sockets may be full at once, and for long.
    pub fn keep_rest(&mut self, slot: u32, rest: &[u8]) {
        match self.records[slot as usize].outbox.as_mut() {
            Some(outbox) => outbox.keep_rest(rest),
            None => {
                let outbox = Outbox {
                    bytes: rest.to_vec(),
                    sent: 0,
                    rest_end: rest.len(),
                };
                self.records[slot as usize].outbox = Some(Box::new(outbox));
            }
        }
    }

    /// Everything that was in the outbox is sent, or need not be.
    pub fn empty_outbox(&mut self, slot: u32) {
        let Some(mut outbox) = self.records[slot as usize].outbox.take() else {
            return;
        };
        if self.spare_outboxes.len() < limits::SPARE_OUTBOXES_MAX
            && outbox.bytes.capacity() <= limits::SPARE_OUTBOX_BYTES_MAX
        {
            outbox.bytes.clear();
            (outbox.sent, outbox.rest_end) = (0, 0);
            self.spare_outboxes.push(outbox);
        }
    }

    /// What the connection keeps while its request waits, which it is given if it has none.
    pub fn waiting(&mut self, slot: u32) -> &mut Waiting {
        let waiting = &mut self.records[slot as usize].waiting;
        waiting.get_or_insert_with(|| self.spare_waits.pop().unwrap_or_default())
    }

    /// What a connection kept is not needed any more.
    pub fn put_back(&mut self, mut waiting: Box<Waiting>) {
        if self.spare_waits.len() < limits::SPARE_WAITS_MAX
            && waiting.input.capacity() <= limits::SPARE_WAIT_BYTES_MAX
            && !waiting.parked.spilled()
        {
            let mut input = std::mem::take(&mut waiting.input);
            input.clear();
            *waiting = Waiting {
                input,
                ..Waiting::default()
            };
            self.spare_waits.push(waiting);
        }
    }

    /// What a connection still has to get of a channel before live events, if it is behind there.
    pub fn backlog(&self, slot: u32, channel: u32) -> Option<&Backlog> {
        if !self[slot].is_behind {
            return None;
        }
        let mut backlogs = self.backlogs.get(&slot)?.iter();
        backlogs.find(|backlog| backlog.channel == channel)
    }

    pub fn backlog_mut(&mut self, slot: u32, channel: u32) -> Option<&mut Backlog> {
        if !self[slot].is_behind {
            return None;
        }
        let mut backlogs = self.backlogs.get_mut(&slot)?.iter_mut();
        backlogs.find(|backlog| backlog.channel == channel)
    }

    /// All that a connection still has to get before live events, channel by channel.
    pub fn backlogs(&self, slot: u32) -> &[Backlog] {
        match self[slot].is_behind {
            true => self.backlogs.get(&slot).map_or(&[], SmallVec::as_slice),
            false => &[],
        }
    }

    pub fn is_anybody_behind(&self) -> bool {
        !self.backlogs.is_empty()
    }

    pub fn fall_behind(&mut self, slot: u32, backlog: Backlog) {
        self.backlogs.entry(slot).or_default().push(backlog);
        self[slot].is_behind = true;
        self.refresh_direct(slot);
    }

    /// Keeps those of a connection's backlogs for which `is_kept` says so.
    pub fn retain_backlogs(&mut self, slot: u32, is_kept: impl FnMut(&mut Backlog) -> bool) {
        if let Some(backlogs) = self.backlogs.get_mut(&slot) {
            backlogs.retain(is_kept);
            if backlogs.is_empty() {
                self.backlogs.remove(&slot);
                self[slot].is_behind = false;
                self.refresh_direct(slot);
            }
        }
    }

    /// The slot whose socket carries what is sent to a connection: its own, but a session's is that
    /// of its receiver.
    pub fn carrier(&self, slot: u32) -> u32 {
        match &self[slot].protocol {
            Protocol::Fallback(fallback) => {
                let receiver = fallback.receiver.as_ref();
                receiver.map_or(slot, |receiver| receiver.socket.slot)
            }
            Protocol::Http(_)
            | Protocol::WebSocket { .. }
            | Protocol::Echo { .. }
            | Protocol::Receiver { .. }
            | Protocol::EventStream
            | Protocol::Departing(_)
            | Protocol::Arriving(_)
            | Protocol::Absent => slot,
        }
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
            is_behind: false,
            exceptions: 0,
            peer: PeerAddress::UNKNOWN,
            variant: Variant::Plain,
            counted_for: None,
            protocol: Protocol::Absent,
            subscriptions: SmallVec::new(),
            outbox: None,
            waiting: None,
        }
    }

    /// Whether it waits to be refused what it asked for twice.
    pub fn repeats(&self, channel: &str) -> bool {
        let pending = self
            .waiting
            .as_ref()
            .and_then(|waiting| waiting.pending.as_ref());
        matches!(pending, Some(Pending::Repeat(name)) if **name == *channel)
    }

    /// Whether it is a session over HTTP.
    pub fn is_session(&self) -> bool {
        self.variant == Variant::Xhr
    }

    /// It has published what could not be taken yet.
    pub fn is_parked(&self) -> bool {
        let waiting = self.waiting.as_ref();
        waiting.is_some_and(|waiting| !waiting.parked.is_empty())
    }

    pub fn is_waiting(&self) -> bool {
        self.waiting
            .as_ref()
            .is_some_and(|waiting| waiting.is_waiting())
    }

    /// Whether nothing is received that should be.
    pub fn lacks_receive(&self) -> bool {
        let is_full = self
            .waiting
            .as_ref()
            .is_some_and(|waiting| waiting.is_full());
        self.state == State::Open && !self.is_receiving && !self.has_ended && !is_full
    }

    /// The page whose first event it waits for, or asks for.
    pub fn poll(&self) -> Option<&Poll> {
        match self.waiting.as_ref()?.pending.as_ref()? {
            Pending::Query(query) => match &**query {
                Query::Page(poll) => Some(poll),
                Query::One(_) | Query::List { .. } | Query::Laggards { .. } | Query::Publish(_) => {
                    None
                }
            },
            Pending::SignIn(_) | Pending::Repeat(_) | Pending::Turn(_) => None,
        }
    }

    /// Its sign-in is not answered yet.
    pub fn is_signing_in(&self) -> bool {
        let waiting = self.waiting.as_ref();
        waiting.is_some_and(|waiting| matches!(waiting.pending, Some(Pending::SignIn(_))))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_told_as_it_connected() {
        for text in ["192.0.2.7:50123", "[2001:db8::7]:50123"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(PeerAddress::from(address).to_string(), text);
        }
    }

    #[test]
    fn what_is_rare_costs_a_websocket_nothing() {
        assert!(size_of::<Protocol>() <= size_of::<(u64, Decoder, Session)>());
        assert!(size_of::<Connection>() <= 128, "two cache lines");
    }

    #[test]
    fn the_rest_of_a_frame_takes_no_more_memory_than_it_has_bytes() {
        let mut connections = Connections::new(2);
        let slots = [(); 2].map(|()| connections.take_slot().unwrap().slot);
        connections.outbox(slots[0]).keep_rest(&[7; 10_000]);
        connections.empty_outbox(slots[0]);
        connections.keep_rest(slots[1], &[8; 90]);
        let outbox = connections[slots[1]].outbox.as_ref().unwrap();
        assert_eq!((outbox.bytes.capacity(), outbox.replies_bytes()), (90, 0));
    }

    #[test]
    fn an_outbox_is_given_again_empty_and_with_its_memory() {
        let mut connections = Connections::new(2);
        let slots = [(); 2].map(|()| connections.take_slot().unwrap().slot);
        connections.outbox(slots[0]).keep_rest(&[7; 100]);
        connections.outbox(slots[0]).sent = 100;
        connections.outbox(slots[0]).keep_rest(&[8]);
        connections.outbox(slots[0]).sent = 101;
        connections.empty_outbox(slots[0]);
        assert!(connections[slots[0]].outbox.is_none());
        let again = connections.outbox(slots[1]);
        assert_eq!(again.replies_bytes(), 0);
        assert_eq!((again.bytes.len(), again.sent), (0, 0));
        assert_eq!(again.replies_bytes(), 0);
        assert!(again.bytes.capacity() >= 100);
    }
}
