//! From cursors to sends, and what the sends left.
//!
//! A turn plans its sends as plain data and resolves them to bytes while the ring executes them;
//! afterwards the short ones are taken back, before anything else can move a place that they name.

use crate::base::limits;
use crate::base::metrics::Metric;
use crate::hub::audience::Visit;
use crate::hub::channels::{Channels, Membership};
use crate::ring::{Operation, PIECES_MAX, Sends, ShortSend};

use super::Engine;
use super::connections::{Connections, Protocol, State};

/// One send of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Planned {
    /// Straight from the log to a subscriber of one channel.
    Direct {
        channel: u32,
        visit: Visit,
        end: u64,
    },
    /// Everything that a connection is to get, from several places: its outbox first.
    Gathered { slot: u32, first: u32, count: u32 },
}

/// Where bytes for a connection come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Outbox,
    Channel(u32),
    /// What was fetched for one who catches up in the channel.
    Backlog(u32),
}

/// A run of bytes of a gathered send: positions in a channel's log, or offsets in the outbox or in
/// what was fetched.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub(super) source: Source,
    pub(super) index: u32,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// The sends of a turn, as plain data that is resolved to bytes when the ring asks.
pub struct Batch<'a> {
    planned: &'a [Planned],
    pieces: &'a [Piece],
    channels: &'a Channels,
    connections: &'a Connections,
}

impl Sends for Batch<'_> {
    fn count(&self) -> usize {
        self.planned.len()
    }

    fn slot(&self, index: usize) -> u32 {
        match self.planned[index] {
            Planned::Direct { visit, .. } => visit.slot,
            Planned::Gathered { slot, .. } => self.connections.carrier(slot),
        }
    }

    fn piece(&self, index: usize, piece: usize) -> Option<&[u8]> {
        match self.planned[index] {
            Planned::Direct {
                channel,
                visit,
                end,
            } => (piece == 0).then(|| {
                let sweep = self
                    .channels
                    .sweep(channel)
                    .expect("a visited channel has a log");
                sweep.log.slice(visit.start, end)
            }),
            Planned::Gathered {
                slot, first, count, ..
            } => {
                if piece >= count as usize {
                    return None;
                }
                let piece = &self.pieces[first as usize + piece];
                Some(match piece.source {
                    Source::Channel(channel) => {
                        let sweep = self.channels.sweep(channel);
                        let sweep = sweep.expect("a visited channel has a log");
                        sweep.log.slice(piece.start, piece.end)
                    }
                    Source::Backlog(channel) => {
                        let backlog = self.connections.backlog(slot, channel);
                        let backlog = backlog.expect("a planned backlog is there");
                        &backlog.frames()[piece.start as usize..piece.end as usize]
                    }
                    Source::Outbox => {
                        let outbox = self.connections[slot].outbox.as_ref();
                        let outbox = outbox.expect("a planned outbox is there");
                        &outbox.bytes[piece.start as usize..piece.end as usize]
                    }
                })
            }
        }
    }
}

impl Engine {
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            planned: &self.planned,
            pieces: &self.pieces,
            channels: &self.channels,
            connections: &self.connections,
        }
    }

    /// Plans the sends of this turn: channels that moved in turn, then connections that get more
    /// than one thing.
    pub fn sweep(&mut self) {
        let planned = self.pace.visits();
        let mut looks = limits::LOOKS_PER_TURN;
        let (mut visits, mut delivered) = (0, 0);
        while looks > 0 {
            let share = match planned.saturating_sub(visits) {
                0 if delivered >= limits::DELIVERIES_PER_TURN_LEAST => break,
                0 => limits::VISITS_PER_TURN_LEAST,
                left => left,
            };
            let share = share
                .min(limits::VISITS_PER_TURN_MOST - visits)
                .min(limits::VISITS_PER_CHANNEL);
            if share == 0 {
                break;
            }
            let Some(channel) = self.channels.next_moving() else {
                break;
            };
            self.visits.clear();
            self.indirect.clear();
            let direct = &self.connections.direct;
            let (sweep, subscribers) = self
                .channels
                .sweep_mut(channel)
                .expect("a moving channel has a sweep");
            let progress = sweep.run(
                subscribers,
                direct,
                share,
                &mut self.visits,
                &mut self.indirect,
            );
            let end = sweep.log.head();
            let (mut deliveries, mut bytes) = (0, 0);
            // Neighbours mostly stand at one cursor, so that what lies before them is counted once.
            let (mut start, mut frames) = (end, 0);
            for &visit in &self.visits {
                if visit.start != start {
                    start = visit.start;
                    frames = sweep.log.frames_between(start, end);
                }
                deliveries += frames;
                bytes += end - start;
                self.planned.push(Planned::Direct {
                    channel,
                    visit,
                    end,
                });
            }
            self.metrics.add(Metric::Deliveries, deliveries);
            self.metrics.add(Metric::SentBytes, bytes);
            for &index in &self.indirect {
                self.gather
                    .push((subscribers[index as usize].slot, channel + 1));
            }
            self.laps.extend(progress.lap);
            if !sweep.is_done() {
                sweep.begin_lap(subscribers.len(), self.now_us);
                self.channels.requeue(channel);
            }
            self.swept.push(channel);
            visits += progress.handed_out;
            delivered += deliveries + self.indirect.len() as u64;
            looks = looks.saturating_sub(progress.looked_at);
        }
        self.backlog_room = match visits {
            0 => limits::BACKLOG_BYTES_PER_TURN,
            _ => limits::BACKLOG_BYTES_BESIDE_VISITS,
        };
        self.plan_gathered();
        let sends = self.planned.len() as u64;
        self.metrics.add(Metric::Sends, sends);
    }

    pub(super) fn plan_gathered(&mut self) {
        let mut gather = std::mem::take(&mut self.gather);
        gather.sort_unstable();
        gather.dedup();
        for group in gather.chunk_by(|one, other| one.0 == other.0) {
            let slot = group[0].0;
            let first = self.pieces.len() as u32;
            for &(_, place) in group {
                match place.checked_sub(1) {
                    None => self.plan_outbox(slot),
                    Some(channel) => self.plan_channel(slot, channel, first as usize),
                }
            }
            let count = self.pieces.len() as u32 - first;
            if count == 0 {
                continue;
            }
            self.planned.push(Planned::Gathered { slot, first, count });
        }
        gather.clear();
        gather.append(&mut self.gather_later);
        self.gather = gather;
    }

    pub(super) fn plan_outbox(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        let is_sending = matches!(
            connection.state,
            State::Open | State::Flushing | State::Departing
        );
        if !is_sending || connection.is_blocked {
            return;
        }
        if let Some(outbox) = connection.outbox.as_mut()
            && outbox.sent < outbox.bytes.len()
        {
            let (start, end) = (outbox.sent as u64, outbox.bytes.len() as u64);
            outbox.sent = outbox.bytes.len();
            self.metrics.add(Metric::SentBytes, end - start);
            self.pieces.push(Piece {
                source: Source::Outbox,
                index: 0,
                start,
                end,
            });
        }
    }

    pub(super) fn plan_channel(&mut self, slot: u32, channel: u32, first: usize) {
        let connection = &mut self.connections[slot];
        let held = connection
            .subscriptions
            .iter()
            .find(|held| held.channel == channel);
        let Some(index) = held.map(|held| held.index) else {
            return;
        };
        if self.connections.backlog(slot, channel).is_some() {
            return self.plan_backlog(slot, channel, index, first);
        }
        if let Some(after) = self.channels[channel].subscribers[index as usize].parked_at() {
            return self.take_up(slot, channel, after);
        }
        let connection = &mut self.connections[slot];
        let is_early = connection.is_signing_in() && self.channels[channel].name.starts_with('#');
        let Some((sweep, subscribers)) = self.channels.sweep_mut(channel) else {
            return;
        };
        let subscriber = &mut subscribers[index as usize];
        let head = sweep.log.head();
        if subscriber.cursor >= head {
            return;
        }
        if subscriber.cursor < sweep.log.tail() {
            self.doomed.push(slot);
            return;
        }
        let pieces = sweep.pieces(slot, subscriber.cursor);
        if connection.is_blocked || is_early {
            sweep.hold_back(subscriber.cursor);
            return;
        }
        if self.pieces.len() - first + pieces.len() > PIECES_MAX {
            sweep.hold_back(subscriber.cursor);
            self.gather_later.push((slot, channel + 1));
            return;
        }
        let mut reached = head;
        let pieces = match &mut connection.protocol {
            Protocol::Fallback(fallback) => {
                let (pieces, cut) = fallback.cut(&sweep.log, pieces, head);
                reached = cut;
                pieces
            }
            Protocol::Http(_)
            | Protocol::WebSocket { .. }
            | Protocol::Echo { .. }
            | Protocol::Receiver { .. }
            | Protocol::EventStream
            | Protocol::Departing(_)
            | Protocol::Arriving(_)
            | Protocol::Absent => pieces,
        };
        if reached < head {
            sweep.hold_back(reached);
        }
        let delivered: u64 = pieces
            .iter()
            .map(|(start, end)| sweep.log.frames_between(*start, *end))
            .sum();
        let bytes = pieces.iter().map(|(start, end)| end - start).sum();
        self.metrics.add(Metric::Deliveries, delivered);
        self.metrics.add(Metric::SentBytes, bytes);
        subscriber.cursor = reached;
        let pieces = pieces.into_iter();
        self.pieces.extend(pieces.map(|(start, end)| Piece {
            source: Source::Channel(channel),
            index,
            start,
            end,
        }));
        self.swept.push(channel);
    }

    /// After the system call: takes back what sockets did not take, and frees what everyone has.
    pub fn settle(&mut self, short_sends: &[ShortSend]) {
        for short in short_sends {
            self.on_short_send(*short);
        }
        let planned = std::mem::take(&mut self.planned);
        for send in &planned {
            if let Planned::Gathered { slot, .. } = *send {
                self.on_gathered_sent(slot);
            }
        }
        self.planned = planned;
        self.planned.clear();
        self.pieces.clear();
        let mut swept = std::mem::take(&mut self.swept);
        swept.sort_unstable();
        swept.dedup();
        for channel in swept.drain(..) {
            self.channels.settle(channel, &mut self.passed);
            let record = &self.channels[channel];
            match record.membership {
                Membership::Joined => self.owe_progress(channel),
                Membership::Local => self.review_congestion(record.home_key.index),
                Membership::Absent
                | Membership::JoinDue
                | Membership::Joining
                | Membership::LeaveDue => {}
            }
            self.remove_if_live(channel);
        }
        self.swept = swept;
        self.forget_passed();
    }

    pub(super) fn forget_passed(&mut self) {
        let mut passed = std::mem::take(&mut self.passed);
        for slot in passed.drain(..) {
            self.connections[slot].exceptions -= 1;
            self.connections.refresh_direct(slot);
        }
        self.passed = passed;
    }

    pub(super) fn on_short_send(&mut self, short: ShortSend) {
        self.metrics.add(Metric::ShortSends, 1);
        let taken = u64::from(short.taken.unwrap_or(0));
        let slot = match self.planned[short.index as usize] {
            Planned::Direct {
                channel,
                visit,
                end,
            } => {
                self.take_back(visit.slot, channel, visit.index, visit.start + taken, end);
                visit.slot
            }
            Planned::Gathered { slot, first, count } => {
                let mut left = taken;
                for place in first..first + count {
                    let piece = self.pieces[place as usize];
                    let got = left.min(piece.end - piece.start);
                    left -= got;
                    if got == piece.end - piece.start {
                        continue;
                    }
                    match piece.source {
                        Source::Channel(channel) => {
                            let position = piece.start + got;
                            self.take_back(slot, channel, piece.index, position, piece.end);
                        }
                        Source::Backlog(channel) => {
                            self.take_back_backlog(slot, piece, channel, got);
                        }
                        Source::Outbox => {
                            let outbox = self.connections[slot].outbox.as_mut();
                            outbox.expect("it was just sent from").sent =
                                (piece.start + got) as usize;
                            let untaken = piece.end - piece.start - got;
                            self.metrics.subtract(Metric::SentBytes, untaken);
                        }
                    }
                }
                slot
            }
        };
        match short.taken {
            Ok(_) => {
                let carrier = self.connections.carrier(slot);
                self.connections[slot].is_blocked = true;
                self.connections[carrier].is_blocked = true;
                let socket = self.connections.socket(carrier);
                self.operations.push(Operation::AwaitWritable { socket });
            }
            Err(_) => self.broken.push(self.connections.carrier(slot)),
        }
        self.connections.refresh_direct(slot);
    }

    /// The socket took nothing from `position` on. If that lies within a frame, the frame's rest is
    /// kept in the outbox: a cursor stands between frames, so that whatever becomes of the log or
    /// of the subscription, no frame is cut short. A socket that is full holds far more than that.
    fn take_back(&mut self, slot: u32, channel: u32, index: u32, position: u64, end: u64) {
        let (sweep, subscribers) = self
            .channels
            .sweep_mut(channel)
            .expect("it was just sent from");
        let next = match sweep.log.frame_end_after(position) {
            Some(frame_end) => {
                let rest = sweep.log.slice(position, frame_end);
                self.connections.keep_rest(slot, rest);
                frame_end
            }
            None => position,
        };
        let subscriber = &mut subscribers[index as usize];
        subscriber.cursor = subscriber.cursor.min(next);
        sweep.hold_back(next);
        let untaken = sweep.log.frames_between(next, end);
        if let Protocol::Fallback(fallback) = &mut self.connections[slot].protocol
            && next < end
        {
            fallback.take_back(end - next, untaken);
        }
        self.metrics.subtract(Metric::Deliveries, untaken);
        self.metrics.subtract(Metric::SentBytes, end - position);
    }

    /// A blocked socket takes bytes again: it is visited for everything that it is behind with.
    pub fn on_writable(&mut self, slot: u32) {
        self.connections[slot].is_blocked = false;
        self.connections.refresh_direct(slot);
        self.gather.push((slot, 0));
        for held in &self.connections[slot].subscriptions {
            self.gather.push((slot, held.channel + 1));
        }
        self.review_lag(slot);
        self.review_backlogs(slot);
        let connection = &self.connections[slot];
        if let Protocol::Receiver { session } = connection.protocol
            && connection.outbox.is_none()
        {
            self.on_writable(session.slot);
        }
    }

    /// Moves what the connection has not been sent of its channels into its outbox, where it comes
    /// before a close frame. Beyond half of an outbox, what is left of a channel is left out whole;
    /// and so it is of a channel in which the connection still gets retained events, which come
    /// first.
    pub fn catch_up(&mut self, slot: u32) {
        let mut frames = std::mem::take(&mut self.frame);
        frames.clear();
        for held in &self.connections[slot].subscriptions {
            let Some((sweep, subscribers)) = self.channels.sweep_mut(held.channel) else {
                continue;
            };
            if self.connections.backlog(slot, held.channel).is_some() {
                continue;
            }
            let subscriber = &mut subscribers[held.index as usize];
            let (cursor, head) = (subscriber.cursor, sweep.log.head());
            let room = (limits::OUTBOX_BYTES_MAX / 2).saturating_sub(frames.len()) as u64;
            if cursor >= head || cursor < sweep.log.tail() || head - cursor > room {
                continue;
            }
            subscriber.cursor = head;
            for (start, end) in sweep.pieces(slot, cursor) {
                frames.extend_from_slice(sweep.log.slice(start, end));
                let delivered = sweep.log.frames_between(start, end);
                self.metrics.add(Metric::Deliveries, delivered);
            }
        }
        if self.connections[slot].is_session() {
            self.take_frames(slot, &frames);
        } else if !frames.is_empty() {
            self.reply_bytes(slot, &frames);
        }
        self.frame = frames;
    }

    /// Looks once a second through the channels that keep frames for blocked subscribers, and drops
    /// those that are too old.
    pub fn review_held(&mut self) {
        self.evict_held(self.now_ms.saturating_sub(self.options.log_age_ms_max));
    }

    /// Where logs together hold more than they may, blocked subscribers lose what is kept for them
    /// alone, the oldest first: they make no publisher wait.
    pub fn relieve_logs(&mut self) {
        let mut age_ms = self.options.log_age_ms_max;
        while self.channels.log_bytes() > self.options.log_bytes_per_shard_max {
            age_ms = match age_ms / 2 {
                half if half < limits::LOG_AGE_STEP_MS => 0,
                half => half,
            };
            self.evict_held((self.now_ms + limits::LOG_AGE_STEP_MS).saturating_sub(age_ms));
            if age_ms == 0 {
                return;
            }
        }
    }

    /// Drops frames that came before `before_ms` and that only blocked subscribers lack.
    fn evict_held(&mut self, before_ms: u64) {
        let mut reviewed = std::mem::take(&mut self.reviewed);
        let (passed, inflater) = (&mut self.passed, &mut self.inflater);
        let parked = self
            .channels
            .review_held(before_ms, passed, &mut reviewed, inflater);
        self.metrics.add(Metric::SlowParked, parked);
        for channel in reviewed.drain(..) {
            if let Some((sweep, subscribers)) = self.channels.sweep_mut(channel) {
                let tail = sweep.log.tail();
                let behind = subscribers
                    .iter()
                    .filter(|subscriber| subscriber.cursor < tail);
                self.doomed.extend(behind.map(|subscriber| subscriber.slot));
            }
            self.channels.remove_if_unused(channel);
        }
        self.reviewed = reviewed;
        self.forget_passed();
    }
}
