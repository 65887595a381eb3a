//! A ring over a network that exists only in memory, so that shards run under faults drawn from a
//! seed and every run can be had again.
//!
//! All rings of a [`Network`] live on one thread and share it. Faults are drawn from one stream of
//! random numbers for each kind, so that a new kind of fault does not disturb the others.
//!
//! Invariants, asserted as the shard asks for things:
//! - A slot takes no operation between its close and its `Closed`, and no second receive or poll
//!   while one waits.
//! - A close comes after a shutdown if a receive or a poll still waits.
//! - A connection moves while neither waits, into a slot that is empty there.
//!
//! A ring that is entered to sleep returns at once, like any other. Whoever runs the shard has it
//! sleep by asking [`SimulatedRing::rest`] until something has completed or the time is over, and
//! only then ends the turn.

mod draws;
mod network;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::{Buffer, Completion, End, Operation, Ring, Sends, ShortSend, Tally, Wait};
use crate::base::socket::Socket;

pub use draws::Random;
pub use network::{AMPLE_BYTES, Network, Peer, Read};
use network::{EPIPE, State};

/// Errnos of Linux, by name in `libc`; only their numbers matter to a shard.
const ECONNRESET: i32 = libc::ECONNRESET;
const ECANCELED: i32 = libc::ECANCELED;
const EMFILE: i32 = libc::EMFILE;
const ENOMEM: i32 = libc::ENOMEM;

/// Receive buffers of one ring: few, so that they run out.
const BUFFERS: usize = 8;
const BUFFER_BYTES: usize = 4096;
/// One shard's ring.
pub struct SimulatedRing {
    network: Network,
    shard: u16,
    pushed: Vec<Operation>,
    slots: BTreeMap<u32, Slot>,
    accepts: VecDeque<Socket>,
    buffers: Vec<Option<Vec<u8>>>,
    short_sends: Vec<ShortSend>,
    completions: Vec<Completion>,
    tally: Tally,
}

struct Slot {
    socket: Socket,
    peer: Peer,
    is_receiving: bool,
    is_stopping: bool,
    is_polling: bool,
    is_shut: bool,
    is_closing: bool,
    moves_to: Option<(u16, Socket)>,
}

impl Slot {
    fn new(socket: Socket, peer: Peer) -> Slot {
        Slot {
            socket,
            peer,
            is_receiving: false,
            is_stopping: false,
            is_polling: false,
            is_shut: false,
            is_closing: false,
            moves_to: None,
        }
    }
}

impl SimulatedRing {
    fn new(network: Network, shard: u16) -> SimulatedRing {
        SimulatedRing {
            network,
            shard,
            pushed: Vec::new(),
            slots: BTreeMap::new(),
            accepts: VecDeque::new(),
            buffers: (0..BUFFERS).map(|_| None).collect(),
            short_sends: Vec::new(),
            completions: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Whether no slot is in use and every buffer is home.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.buffers.iter().all(Option::is_none)
    }

    /// Lets the shard sleep on in the `enter` that it is in. True if something has completed.
    pub fn rest(&mut self) -> bool {
        let network = self.network.clone();
        if self.completions.is_empty() {
            self.complete(&mut network.0.borrow_mut());
        }
        !self.completions.is_empty()
    }

    fn slot(&mut self, socket: Socket) -> &mut Slot {
        let slot = self
            .slots
            .get_mut(&socket.slot)
            .expect("an operation's slot is in use");
        assert_eq!(
            slot.socket, socket,
            "an operation names its slot's present socket"
        );
        assert!(
            !slot.is_closing && slot.moves_to.is_none(),
            "a slot that closes or moves takes no other operation"
        );
        slot
    }

    fn send(&mut self, sends: &impl Sends, index: usize, state: &mut State) {
        let slot = self
            .slots
            .get(&sends.slot(index))
            .expect("a send's slot is in use");
        let stays = !slot.is_closing && slot.moves_to.is_none();
        assert!(stays, "a slot that closes or moves takes no sends");
        let pieces = (0..).map_while(|piece| sends.piece(index, piece));
        let mut bytes = Vec::new();
        for (count, piece) in pieces.enumerate() {
            assert!(
                !piece.is_empty() && count < super::PIECES_MAX,
                "pieces are few and not empty"
            );
            bytes.extend_from_slice(piece);
        }
        assert!(!bytes.is_empty(), "a send has a piece");
        let link = &mut state.links[slot.peer.0];
        let taken = match slot.is_shut {
            true => Err(EPIPE),
            false => link.room(bytes.len(), &mut state.draws.send),
        };
        if let Ok(taken) = taken {
            link.to_peer.extend(&bytes[..taken]);
        }
        state.note(1, taken.unwrap_or(usize::MAX) as u64);
        if taken != Ok(bytes.len()) {
            let taken = taken.map(|taken| taken as u32);
            self.short_sends.push(ShortSend {
                index: index as u32,
                taken,
            });
        }
    }

    fn carry_out(&mut self, operation: Operation, state: &mut State) {
        match operation {
            Operation::Accept { socket } => {
                assert!(
                    !self.slots.contains_key(&socket.slot),
                    "an accept's slot is empty"
                );
                self.accepts.push_back(socket);
            }
            Operation::StopAccepting => {
                for socket in std::mem::take(&mut self.accepts) {
                    let peer = Err(io::Error::from_raw_os_error(ECANCELED));
                    self.completions.push(Completion::Accepted { socket, peer });
                }
            }
            Operation::Receive { socket } => {
                let slot = self.slot(socket);
                assert!(!slot.is_receiving, "a socket has one receive");
                slot.is_receiving = true;
                slot.is_stopping = false;
            }
            Operation::StopReceiving { socket } => self.slot(socket).is_stopping = true,
            Operation::AwaitWritable { socket } => {
                let slot = self.slot(socket);
                assert!(!slot.is_polling, "a socket has one poll");
                slot.is_polling = true;
            }
            Operation::ShutdownWrite { socket } => {
                let peer = self.slot(socket).peer;
                state.links[peer.0].has_server_ended = true;
            }
            Operation::Shutdown { socket } => {
                let slot = self.slot(socket);
                slot.is_shut = true;
                state.links[slot.peer.0].has_server_ended = true;
            }
            Operation::Close { socket } => {
                let slot = self.slot(socket);
                let waits = slot.is_receiving || slot.is_polling;
                assert!(!waits || slot.is_shut, "a shutdown comes before the close");
                slot.is_closing = true;
            }
            Operation::Wake { shard } => state.shards[usize::from(shard)].is_woken = true,
            Operation::Move {
                socket,
                shard,
                there,
            } => {
                let slot = self.slot(socket);
                let waits = slot.is_receiving || slot.is_polling;
                assert!(
                    !waits && !slot.is_shut,
                    "a connection that moves is at rest"
                );
                slot.moves_to = Some((shard, there));
            }
            Operation::WakeEdge => state.note(10, 0),
            Operation::Connect { .. }
            | Operation::Skim { .. }
            | Operation::StopSkimming { .. }
            | Operation::SkimSome { .. } => panic!("there is nobody to connect to"),
        }
    }

    fn accept(&mut self, state: &mut State) {
        let port = usize::from(self.shard);
        while !self.accepts.is_empty() && !state.shards[port].backlog.is_empty() {
            if state.draws.delay.one_in(4) {
                return;
            }
            let socket = self.accepts.pop_front().expect("one was just seen");
            if state.draws.accept.one_in(16) {
                let peer = Err(io::Error::from_raw_os_error(EMFILE));
                self.completions.push(Completion::Accepted { socket, peer });
                continue;
            }
            let peer = state.shards[port]
                .backlog
                .pop_front()
                .expect("one was just seen");
            self.slots.insert(socket.slot, Slot::new(socket, peer));
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1024 + (peer.0 % 60_000) as u16));
            self.completions.push(Completion::Accepted {
                socket,
                peer: Ok(address),
            });
        }
    }

    /// Takes the connections that other rings gave.
    fn take_arrivals(&mut self, state: &mut State) {
        let port = usize::from(self.shard);
        while !state.shards[port].arrivals.is_empty() && !state.draws.transfer.one_in(3) {
            let first = state.shards[port].arrivals.pop_front();
            let (socket, peer) = first.expect("one was just seen");
            let before = self.slots.insert(socket.slot, Slot::new(socket, peer));
            assert!(before.is_none(), "the slot was kept empty");
            self.completions.push(Completion::Arrived { socket });
        }
    }

    /// What became of the move of one slot.
    fn look_at_move(&mut self, number: u32, state: &mut State) {
        let slot = self.slots.get_mut(&number).expect("it was just listed");
        let Some((shard, there)) = slot.moves_to else {
            return;
        };
        let (socket, peer) = (slot.socket, slot.peer);
        if state.draws.transfer.one_in(3) {
            return;
        }
        let outcome = match state.draws.transfer.one_in(8) {
            true => Err(ENOMEM),
            false => Ok(()),
        };
        match outcome {
            Ok(()) => {
                let port = &mut state.shards[usize::from(shard)];
                port.arrivals.push_back((there, peer));
                self.slots.remove(&number);
            }
            Err(_) => slot.moves_to = None,
        }
        self.completions.push(Completion::Moved { socket, outcome });
    }

    /// What completed by now.
    fn complete(&mut self, state: &mut State) {
        let before = self.completions.len();
        self.accept(state);
        self.take_arrivals(state);
        let mut numbers: Vec<u32> = self.slots.keys().copied().collect();
        if !numbers.is_empty() {
            let first = state.draws.delay.below(numbers.len());
            numbers.rotate_left(first);
        }
        for number in numbers {
            self.look_at(number, state);
            if self.slots.contains_key(&number) {
                self.look_at_move(number, state);
            }
        }
        let port = &mut state.shards[usize::from(self.shard)];
        if port.is_woken && !state.draws.wake.one_in(3) {
            port.is_woken = false;
            self.completions.push(Completion::Woken);
        }
        self.tally.completions += (self.completions.len() - before) as u64;
        for completion in &self.completions[before..] {
            let (what, about) = match completion {
                Completion::Accepted { socket, .. } => (2, socket.slot),
                Completion::Received { buffer, .. } => (3, buffer.length),
                Completion::ReceiveEnded { socket, .. } => (4, socket.slot),
                Completion::Writable { socket } => (5, socket.slot),
                Completion::Closed { socket } => (6, socket.slot),
                Completion::Woken => (7, 0),
                Completion::Moved { socket, .. } => (8, socket.slot),
                Completion::Arrived { socket } => (9, socket.slot),
                Completion::Connected { socket, .. } => (11, socket.slot),
                Completion::Skimmed { bytes, .. } => (12, *bytes),
            };
            state.note(what, u64::from(about));
        }
    }

    /// What became of the receive, the poll and the close of one slot.
    fn look_at(&mut self, number: u32, state: &mut State) {
        let slot = self.slots.get_mut(&number).expect("it was just listed");
        let (socket, link) = (slot.socket, &mut state.links[slot.peer.0]);
        let draws = &mut state.draws;
        let is_over = link.is_broken || slot.is_shut;
        let half = link.capacity / 2;
        if slot.is_polling && (is_over || link.to_peer.len() <= half) && !draws.delay.one_in(4) {
            slot.is_polling = false;
            self.completions.push(Completion::Writable { socket });
        }
        while slot.is_receiving && !draws.delay.one_in(3) {
            let is_full = self.buffers.iter().all(Option::is_some);
            let has_bytes = !link.to_server.is_empty();
            let why = match (link.is_broken, has_bytes) {
                (true, _) => Some(End::Broken(ECONNRESET)),
                (false, true) if is_full => Some(End::Rearm),
                (false, _) if slot.is_stopping || draws.rearm.one_in(24) => Some(End::Rearm),
                (false, true) => None,
                (false, false) if link.has_peer_ended || slot.is_shut => Some(End::EndOfStream),
                (false, false) => break,
            };
            if let Some(why) = why {
                slot.is_receiving = false;
                self.completions
                    .push(Completion::ReceiveEnded { socket, why });
                break;
            }
            let most = if draws.chop.one_in(3) {
                1 + draws.chop.below(16)
            } else {
                BUFFER_BYTES
            };
            let length = 1 + draws.chop.below(most.min(link.to_server.len()));
            let id = self
                .buffers
                .iter()
                .position(Option::is_none)
                .expect("one is home");
            self.buffers[id] = Some(link.to_server.drain(..length).collect());
            let buffer = Buffer {
                id: id as u16,
                length: length as u32,
            };
            self.completions
                .push(Completion::Received { socket, buffer });
        }
        if slot.is_closing && !slot.is_receiving && !slot.is_polling && !draws.delay.one_in(3) {
            // A close with bytes unread, or that are still to come, resets the connection.
            if !link.to_server.is_empty() {
                link.break_off();
            }
            link.has_server_ended = true;
            self.slots.remove(&number);
            self.completions.push(Completion::Closed { socket });
        }
    }
}

impl Ring for SimulatedRing {
    fn push(&mut self, operation: Operation) {
        self.pushed.push(operation);
    }

    fn enter(&mut self, sends: &impl Sends, _: Wait) -> io::Result<()> {
        assert!(
            self.short_sends.is_empty(),
            "short sends were taken after the last enter"
        );
        let network = self.network.clone();
        let state = &mut *network.0.borrow_mut();
        self.tally.enters += 1;
        for index in 0..sends.count() {
            self.send(sends, index, state);
        }
        let mut pushed = std::mem::take(&mut self.pushed);
        for operation in pushed.drain(..) {
            self.carry_out(operation, state);
        }
        self.pushed = pushed;
        self.complete(state);
        Ok(())
    }

    fn take_short_sends(&mut self) -> Vec<ShortSend> {
        std::mem::take(&mut self.short_sends)
    }

    fn put_short_sends(&mut self, mut spent: Vec<ShortSend>) {
        spent.clear();
        self.short_sends = spent;
    }

    fn take_completions(&mut self) -> Vec<Completion> {
        std::mem::take(&mut self.completions)
    }

    fn put_completions(&mut self, mut spent: Vec<Completion>) {
        spent.clear();
        self.completions = spent;
    }

    fn received(&mut self, buffer: &Buffer) -> &mut [u8] {
        let bytes = self.buffers[usize::from(buffer.id)].as_mut();
        bytes.expect("a buffer on loan has its bytes")
    }

    fn recycle(&mut self, buffer: Buffer) {
        let bytes = self.buffers[usize::from(buffer.id)].take();
        assert!(bytes.is_some(), "a buffer goes back once");
    }

    fn tally(&self) -> Tally {
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Sends for Nothing {
        fn count(&self) -> usize {
            0
        }

        fn slot(&self, _: usize) -> u32 {
            unreachable!("there are no sends")
        }

        fn piece(&self, _: usize, _: usize) -> Option<&[u8]> {
            None
        }
    }

    const SOCKET: Socket = Socket {
        slot: 7,
        generation: 1,
    };

    fn next(ring: &mut SimulatedRing) -> Vec<Completion> {
        ring.enter(&Nothing, Wait::Poll).expect("it works");
        ring.take_completions()
    }

    #[test]
    fn a_connection_moves_or_stays_and_its_bytes_with_it() {
        let (mut moves, mut stays, mut broken) = (0, 0, 0);
        for seed in 0..200 {
            let network = Network::new(seed, 2);
            let (mut one, mut other) = (network.ring(0), network.ring(1));
            let peer = network.connect(0);
            network.write(peer, b"unread");
            one.push(Operation::Accept { socket: SOCKET });
            while !one.slots.contains_key(&SOCKET.slot) {
                if next(&mut one).iter().any(|completion| {
                    matches!(completion, Completion::Accepted { peer: Err(_), .. })
                }) {
                    one.push(Operation::Accept { socket: SOCKET });
                }
            }
            next(&mut one);
            one.push(Operation::Move {
                socket: SOCKET,
                shard: 1,
                there: SOCKET,
            });
            let outcome = loop {
                if seed % 5 == 0 {
                    network.reset(peer);
                }
                if let Some(Completion::Moved { outcome, .. }) = next(&mut one).pop() {
                    break outcome;
                }
            };
            if outcome.is_err() {
                stays += 1;
                assert!(one.slots.contains_key(&SOCKET.slot) && other.is_empty());
                continue;
            }
            assert!(one.is_empty());
            while !matches!(
                next(&mut other)[..],
                [Completion::Arrived { socket: SOCKET }]
            ) {}
            other.push(Operation::Receive { socket: SOCKET });
            let mut bytes = Vec::new();
            let mut is_broken = false;
            while bytes != b"unread" && !is_broken {
                for completion in next(&mut other) {
                    match completion {
                        Completion::Received { buffer, .. } => {
                            bytes.extend_from_slice(other.received(&buffer));
                            other.recycle(buffer);
                        }
                        Completion::ReceiveEnded {
                            why: End::Rearm, ..
                        } => other.push(Operation::Receive { socket: SOCKET }),
                        Completion::ReceiveEnded { why, .. } => {
                            assert_eq!(why, End::Broken(ECONNRESET));
                            is_broken = true;
                        }
                        completion => panic!("{completion:?}"),
                    }
                }
            }
            broken += usize::from(is_broken);
            moves += 1;
        }
        assert!(moves > 100 && stays > 10 && broken > 10);
    }
}
