//! The network that simulated rings share: connections as their peers see them, and what waits for each shard.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::SimulatedRing;
use super::draws::{Draws, Random, mix};
use crate::base::socket::Socket;

/// A peer or a server that sends into a broken connection.
pub(super) const EPIPE: i32 = libc::EPIPE;

/// Bytes that a peer's socket holds before it has to read.
const CAPACITY_BYTES_MAX: usize = 16 * 1024;

/// A socket that holds so much takes all that there is room for: its peer is never slow by chance.
pub const AMPLE_BYTES: usize = 1 << 20;

/// A connection as its peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer(pub(super) usize);

/// What a peer's read gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Any number of bytes, none if none wait.
    Bytes(Vec<u8>),
    /// The server sends no more.
    EndOfStream,
    /// The connection is broken.
    Broken,
}

/// The network that the rings of one thread share.
#[derive(Clone)]
pub struct Network(pub(super) Rc<RefCell<State>>);

pub(super) struct State {
    pub(super) links: Vec<Link>,
    pub(super) shards: Vec<Port>,
    pub(super) draws: Draws,
    pub(super) trace: u64,
}

/// What waits for one shard.
#[derive(Default)]
pub(super) struct Port {
    pub(super) backlog: VecDeque<Peer>,
    /// Connections that other rings gave, and the slots that they are for.
    pub(super) arrivals: VecDeque<(Socket, Peer)>,
    pub(super) is_woken: bool,
}

pub(super) struct Link {
    pub(super) to_server: VecDeque<u8>,
    pub(super) to_peer: VecDeque<u8>,
    pub(super) capacity: usize,
    pub(super) has_peer_ended: bool,
    pub(super) has_server_ended: bool,
    pub(super) is_broken: bool,
}

impl Network {
    pub fn new(seed: u64, shards: u16) -> Network {
        let shards = (0..shards).map(|_| Port::default()).collect();
        Network(Rc::new(RefCell::new(State {
            links: Vec::new(),
            shards,
            draws: Draws::new(seed),
            trace: seed,
        })))
    }

    pub fn ring(&self, shard: u16) -> SimulatedRing {
        SimulatedRing::new(self.clone(), shard)
    }

    /// A connection that waits for the shard to accept it.
    pub fn connect(&self, shard: u16) -> Peer {
        let capacity = 64 + self.0.borrow_mut().draws.capacity.below(CAPACITY_BYTES_MAX);
        self.connect_with_capacity(shard, capacity)
    }

    /// The same, with a socket that holds so many bytes before the peer has to read.
    pub fn connect_with_capacity(&self, shard: u16, capacity: usize) -> Peer {
        let state = &mut *self.0.borrow_mut();
        let peer = Peer(state.links.len());
        state.links.push(Link {
            to_server: VecDeque::new(),
            to_peer: VecDeque::new(),
            capacity,
            has_peer_ended: false,
            has_server_ended: false,
            is_broken: false,
        });
        state.shards[usize::from(shard)].backlog.push_back(peer);
        peer
    }

    /// Bytes from the peer to the server.
    pub fn write(&self, peer: Peer, bytes: &[u8]) {
        let link = &mut self.0.borrow_mut().links[peer.0];
        if !link.is_broken && !link.has_peer_ended {
            link.to_server.extend(bytes);
        }
    }

    /// At most so many of the bytes that came for the peer.
    pub fn read(&self, peer: Peer, bytes_max: usize) -> Read {
        let state = &mut *self.0.borrow_mut();
        let link = &mut state.links[peer.0];
        let bytes: Vec<u8> = link
            .to_peer
            .drain(..bytes_max.min(link.to_peer.len()))
            .collect();
        if !bytes.is_empty() {
            for byte in &bytes {
                state.trace = (state.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
            }
            return Read::Bytes(bytes);
        }
        match (link.is_broken, link.has_server_ended) {
            (true, _) => Read::Broken,
            (false, true) if link.to_peer.is_empty() => Read::EndOfStream,
            (false, _) => Read::Bytes(bytes),
        }
    }

    /// The peer sends no more.
    pub fn end(&self, peer: Peer) {
        self.0.borrow_mut().links[peer.0].has_peer_ended = true;
    }

    /// The peer breaks the connection.
    pub fn reset(&self, peer: Peer) {
        self.0.borrow_mut().links[peer.0].break_off();
    }

    /// Wakes a shard as the main thread does.
    pub fn wake(&self, shard: u16) {
        self.0.borrow_mut().shards[usize::from(shard)].is_woken = true;
    }

    /// Whether a wake is on its way to the shard.
    pub fn is_waking(&self, shard: u16) -> bool {
        self.0.borrow().shards[usize::from(shard)].is_woken
    }

    /// A hash of everything that happened, in its order.
    pub fn trace(&self) -> u64 {
        self.0.borrow().trace
    }
}

impl State {
    pub(super) fn note(&mut self, what: u64, about: u64) {
        self.trace = mix(self.trace ^ mix(what << 48 ^ about));
    }
}

impl Link {
    pub(super) fn break_off(&mut self) {
        self.is_broken = true;
        self.to_server.clear();
        self.to_peer.clear();
    }

    /// How many bytes of a send the socket takes, or how it is broken.
    pub(super) fn room(&self, wanted: usize, draw: &mut Random) -> Result<usize, i32> {
        if self.is_broken || self.has_server_ended {
            return Err(EPIPE);
        }
        let room = wanted.min(self.capacity.saturating_sub(self.to_peer.len()));
        Ok(if draw.one_in(4) && self.capacity < AMPLE_BYTES {
            draw.below(room + 1)
        } else {
            room
        })
    }
}
