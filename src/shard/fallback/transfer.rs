//! Connections that go to another shard, because the session that they call has its home there.
//!
//! ```text
//! here                                   there
//! depart: no more is received
//! try_depart: and all is sent
//!         ---- Transfer ---------------> on_transfer: a slot is kept
//! on_room <--- Room --------------------
//! Move    ==== the connection =========> on_arrived: it is served like one that was accepted
//! on_moved: the slot is free
//!         ---- Stays, if it failed ----> on_stays: the slot is free
//! ```
//!
//! Each connection has at most one of these letters under way, which bounds them.

use crate::base::metrics::Metric;
use crate::base::socket::Socket;
use crate::hub::fallback::{Place, SessionCall, Transfer};
use crate::hub::letter::Letter;
use crate::ring::{End, Operation};
use crate::wire::http::Persistence;
use crate::wire::pusher::CloseCode;

use crate::shard::Engine;
use crate::shard::connections::{Http, Protocol, State};

/// A connection on its way to another shard.
pub struct Departure {
    home: u16,
    /// While it is not under way.
    call: Option<SessionCall>,
    pub input: Vec<u8>,
    /// The slot that is kept for it.
    there: Option<Socket>,
}

impl Engine {
    pub(in crate::shard) fn depart(&mut self, slot: u32, home: u16, call: SessionCall) -> Protocol {
        self.wheel.clear(slot);
        self.connections[slot].state = State::Departing;
        if self.connections[slot].is_receiving {
            let socket = self.connections.socket(slot);
            self.operations.push(Operation::StopReceiving { socket });
        }
        Protocol::Departing(Box::new(Departure {
            home,
            call: Some(call),
            input: Vec::new(),
            there: None,
        }))
    }

    /// Bytes that came before the receive was stopped.
    pub(in crate::shard) fn keep_for_departure(&mut self, slot: u32, bytes: &[u8]) {
        if let Protocol::Departing(departure) = &mut self.connections[slot].protocol {
            departure.input.extend_from_slice(bytes);
        }
    }

    pub(in crate::shard) fn on_departing_receive_ended(&mut self, slot: u32, why: End) {
        match why {
            End::Broken(_) => return self.end(slot),
            End::EndOfStream => self.connections[slot].has_ended = true,
            End::Rearm => {}
        }
        self.try_depart(slot);
    }

    /// Asks for a slot there, once nothing of the connection is under way here.
    pub(in crate::shard) fn try_depart(&mut self, slot: u32) {
        let from = self.connections.socket(slot);
        let connection = &mut self.connections[slot];
        let is_at_rest =
            !connection.is_receiving && !connection.is_blocked && connection.outbox.is_none();
        if connection.state != State::Departing || !is_at_rest {
            return;
        }
        let Protocol::Departing(departure) = &mut connection.protocol else {
            return;
        };
        let Some(call) = departure.call.take() else {
            return;
        };
        connection.state = State::Moving;
        let transfer = Transfer {
            from,
            peer: connection.peer.into(),
            call,
            input: std::mem::take(&mut departure.input),
            has_ended: connection.has_ended,
        };
        let letter = Letter::Transfer(Box::new(transfer));
        self.transfers.push_back((departure.home, letter));
    }

    /// A connection of another shard wants to come.
    pub(in crate::shard) fn on_transfer(&mut self, from: u16, transfer: Box<Transfer>) {
        let socket = transfer.from;
        let place = match self.connections.take_slot() {
            Some(there) => {
                let connection = &mut self.connections[there.slot];
                connection.state = State::Arriving;
                connection.peer = transfer.peer.into();
                connection.has_ended = transfer.has_ended;
                connection.protocol = Protocol::Arriving(transfer);
                Place::Kept(there)
            }
            None => Place::Full(transfer),
        };
        self.transfers
            .push_back((from, Letter::Room { socket, place }));
    }

    pub(in crate::shard) fn on_room(&mut self, socket: Socket, place: Place) {
        let slot = socket.slot;
        let Protocol::Departing(departure) = &mut self.connections[slot].protocol else {
            unreachable!("a connection that moves does nothing else");
        };
        let shard = departure.home;
        match place {
            Place::Kept(there) => {
                departure.there = Some(there);
                self.operations.push(Operation::Move {
                    socket,
                    shard,
                    there,
                });
            }
            Place::Full(transfer) => self.stay(slot, transfer.call),
        }
    }

    pub(in crate::shard) fn on_moved(&mut self, socket: Socket, outcome: Result<(), i32>) {
        let slot = socket.slot;
        if outcome.is_ok() {
            self.metrics.subtract(Metric::Connections, 1);
            return self.connections.free_slot(slot);
        }
        let Protocol::Departing(departure) = &self.connections[slot].protocol else {
            unreachable!("a connection that moves does nothing else");
        };
        if let Some(there) = departure.there {
            let letter = Letter::Stays { there };
            self.transfers.push_back((departure.home, letter));
        }
        // What it came for is gone there with it.
        let connection = &mut self.connections[slot];
        connection.state = State::Open;
        self.end(slot);
    }

    /// There is no place for it there: the client is told so.
    fn stay(&mut self, slot: u32, call: SessionCall) {
        let connection = &mut self.connections[slot];
        connection.state = State::Open;
        connection.protocol = Protocol::Http(Box::<Http>::default());
        let call = SessionCall {
            persistence: Persistence::Close,
            ..call
        };
        self.turn_away(slot, &call, CloseCode::OverCapacity);
    }

    /// The connection that a slot was kept for does not come.
    pub(in crate::shard) fn on_stays(&mut self, there: Socket) {
        self.connections.free_slot(there.slot);
    }

    /// A connection came from another shard.
    pub(in crate::shard) fn on_arrived(&mut self, socket: Socket) {
        let slot = socket.slot;
        self.metrics.add(Metric::Connections, 1);
        self.metrics.add(Metric::Transfers, 1);
        let connection = &mut self.connections[slot];
        connection.state = State::Open;
        connection.heard_s = self.now_s;
        let http = Protocol::Http(Box::<Http>::default());
        let protocol = std::mem::replace(&mut connection.protocol, http);
        let Protocol::Arriving(mut transfer) = protocol else {
            unreachable!("the slot was kept for what a transfer says");
        };
        if let Some(protocol) = self.on_session_call(slot, &transfer.call)
            && self.connections[slot].state == State::Open
        {
            self.connections[slot].protocol = protocol;
        }
        self.refresh_timer(slot);
        if !transfer.input.is_empty() {
            self.on_received(slot, &mut transfer.input);
        }
        let connection = &self.connections[slot];
        if connection.state == State::Open && !connection.is_receiving {
            match connection.has_ended {
                true => self.on_ended(slot),
                false => self.receive(slot),
            }
        }
    }

    pub(in crate::shard) fn post_transfers(&mut self) {
        for _ in 0..self.transfers.len() {
            let Some((shard, letter)) = self.transfers.pop_front() else {
                break;
            };
            if self.mesh.has_room(shard) {
                self.mesh.post(shard, letter);
            } else {
                self.transfers.push_back((shard, letter));
            }
        }
    }
}
