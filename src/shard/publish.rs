//! The path of a message: from the event that arrived to the bytes in every subscriber's socket.
//!
//! ```text
//! route      its home is elsewhere: post it there
//! sequence   at home: a position, one encode, the frame to this shard's log and to the others'
//! deliver    the frames of another home, to this shard's log
//! sweep      for each subscriber behind the head: one visit, from its cursor to the head
//! settle     after the system call: cursors of short sends go back, those sockets are waited for
//! ```

use crate::base::limits;
use crate::base::metrics::Metric;
use crate::base::slab::Key;
use crate::base::socket::{Address, Socket};
use crate::hub::audience::{Exception, Visit, WAITING};
use crate::hub::channels::{Channels, Membership};
use crate::hub::home::Interest;
use crate::hub::letter::{Event, Join, Letter, Publication};
use crate::ring::{Operation, PIECES_MAX, Sends, ShortSend};
use crate::wire::websocket::{self, Opcode};

use super::Engine;
use super::connections::{Connections, Source, State};

/// One send of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Planned {
    /// Straight from the log to a subscriber of one channel.
    Direct {
        channel: u32,
        visit: Visit,
        end: u64,
    },
    /// Everything that a connection is to get, from several places.
    /// `unfinished` is what it begins with the rest of.
    Gathered {
        slot: u32,
        first: u32,
        count: u32,
        unfinished: Source,
    },
}

/// A run of bytes of a gathered send: positions in a channel's log, or offsets in the outbox.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    source: Source,
    index: u32,
    start: u64,
    end: u64,
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
            Planned::Gathered { slot, .. } => slot,
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
                    Source::Outbox | Source::Nothing => {
                        let outbox = self.connections[slot].outbox.as_ref();
                        let outbox = outbox.expect("a planned outbox is there");
                        &outbox.bytes[piece.start as usize..piece.end as usize]
                    }
                })
            }
        }
    }
}

/// What became of events that were to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// So many homes elsewhere will confirm; the others have.
    Posted { receipts: u32 },
    /// Nothing was published: the engine is behind, or a lane has no room.
    Behind,
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

    fn home_of(&self, hash: u64) -> u16 {
        ((hash >> 32) % self.mesh.shards() as u64) as u16
    }

    /// Publishes all of the events, or none of them.
    pub fn route(&mut self, events: &[Event<'_>], requester: Option<Socket>) -> Routed {
        if self.is_behind(events) {
            return Routed::Behind;
        }
        let mut receipts = 0;
        for event in events {
            self.metrics.add(Metric::Publishes, 1);
            let home = self.home_of(self.channels.hash(event.app, event.channel));
            if home == self.index {
                self.sequence(event);
            } else {
                let publication = Publication::new(event, requester, &mut self.arena);
                self.mesh.post_publish(home, Letter::Publish(publication));
                self.metrics.add(Metric::Letters, 1);
                receipts += 1;
            }
        }
        Routed::Posted { receipts }
    }

    fn is_behind(&mut self, events: &[Event<'_>]) -> bool {
        if self.log_bytes_everywhere() > self.options.log_bytes_per_shard_max {
            return true;
        }
        let mut wanted = std::mem::take(&mut self.wanted_credit);
        wanted.clear();
        let mut is_behind = false;
        for event in events {
            let hash = self.channels.hash(event.app, event.channel);
            is_behind |= self.congested.contains(&hash);
            let home = self.home_of(hash);
            if home != self.index {
                match wanted.iter_mut().find(|(shard, _)| *shard == home) {
                    Some((_, count)) => *count += 1,
                    None => wanted.push((home, 1)),
                }
            }
        }
        for (home, count) in &wanted {
            is_behind |= !self.mesh.has_credit(*home, *count);
        }
        self.wanted_credit = wanted;
        is_behind
    }

    /// The most that any shard's logs hold.
    fn log_bytes_everywhere(&self) -> usize {
        let held = self
            .all_metrics
            .iter()
            .map(|metrics| metrics.read(Metric::LogBytes));
        held.max().unwrap_or(0) as usize
    }

    /// Gives the event its place in its channel's order and encodes it, once.
    pub fn sequence(&mut self, event: &Event<'_>) {
        let Some(channel) = self.channels.find(event.app, event.channel) else {
            return;
        };
        if self.channels[channel].home.is_none() {
            return;
        }
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        encode(event, &mut frame);
        self.metrics.add(Metric::Encodes, 1);
        let home = self.channels[channel]
            .home
            .as_mut()
            .expect("it was just seen");
        let start = home.head;
        home.head += frame.len() as u64;
        let end = home.head;
        let is_local = home.is_local;
        if !home.interests.is_empty() {
            home.keep_outgoing(&frame, start);
        }
        if let Some(Address { shard, socket }) = event.excluded {
            let exception = Exception {
                slot: socket.slot,
                start,
                end,
            };
            if shard != self.index {
                if let Some(outgoing) = home.outgoing.as_mut() {
                    outgoing
                        .exceptions
                        .push((shard, socket.generation, exception));
                }
            } else if is_local && self.connections.is_current(socket) {
                self.excluded_now.push(exception);
            }
        }
        let owes = !home.interests.is_empty();
        if is_local {
            self.append(channel, &frame, std::iter::once(frame.len()));
            while let Some(exception) = self.excluded_now.pop() {
                self.except(channel, exception);
            }
        }
        if owes {
            self.owe(channel);
        }
        self.frame = frame;
        self.review_congestion(channel);
    }

    fn append(
        &mut self,
        channel: u32,
        frames: &[u8],
        lengths: impl Iterator<Item = usize> + Clone,
    ) {
        self.metrics
            .add(Metric::Appends, lengths.clone().count() as u64);
        let log_bytes_max = self.options.log_bytes_max;
        self.channels
            .append(channel, frames, lengths, self.now_s, log_bytes_max);
    }

    fn except(&mut self, channel: u32, exception: Exception) {
        let connection = &mut self.connections[exception.slot];
        if !connection
            .subscriptions
            .iter()
            .any(|held| held.channel == channel)
        {
            return;
        }
        if let Some((sweep, _)) = self.channels.sweep_mut(channel)
            && sweep.except(exception)
        {
            connection.exceptions += 1;
            self.connections.refresh_direct(exception.slot);
        }
    }

    /// Has the channel's letters posted at the end of this turn, or of the first with room.
    pub fn owe(&mut self, channel: u32) {
        let record = &mut self.channels[channel];
        if !record.is_owing {
            record.is_owing = true;
            self.owing.push(channel);
        }
    }

    /// The engine is behind in a channel when a sweep somewhere is: its publishers are to wait.
    fn review_congestion(&mut self, channel: u32) {
        let record = &self.channels[channel];
        let Some(home) = record.home.as_ref() else {
            return;
        };
        let floor = self
            .channels
            .sweep(channel)
            .map_or(home.head, |sweep| sweep.floor());
        let swept = if home.is_local {
            floor.min(home.swept_elsewhere())
        } else {
            home.swept_elsewhere()
        };
        let behind = home.head - swept;
        let bound = self.options.log_bytes_max as u64;
        let is_congested = if home.is_congested {
            behind > bound / 2
        } else {
            behind > bound
        };
        if is_congested == home.is_congested {
            return;
        }
        let hash = self.channels.hash(record.app, &record.name);
        let home = self.channels[channel]
            .home
            .as_mut()
            .expect("it was just seen");
        home.is_congested = is_congested;
        self.note_congestion(hash, is_congested);
        for shard in (0..self.mesh.shards() as u16).filter(|shard| *shard != self.index) {
            self.congestion_news
                .retain(|(to, about, _)| (*to, *about) != (shard, hash));
            self.congestion_news.push((shard, hash, is_congested));
        }
        self.drop_home_if_unused(channel);
    }

    fn note_congestion(&mut self, hash: u64, is_congested: bool) {
        if is_congested {
            self.congested.insert(hash);
        } else {
            self.congested.remove(&hash);
            self.has_relief = true;
        }
    }

    fn drop_home_if_unused(&mut self, channel: u32) {
        if self.channels[channel]
            .home
            .as_ref()
            .is_some_and(|home| home.is_unused())
        {
            self.channels[channel].home = None;
        }
        self.channels.remove_if_unused(channel);
    }

    /// Adds a subscription. True if the channel is joined, so that it can be confirmed now.
    pub fn subscribe(&mut self, slot: u32, app: u16, name: &str) -> bool {
        let channel = self.channels.find_or_insert(app, name);
        let hash = self.channels.hash(app, name);
        if self.channels[channel].membership == Membership::Absent {
            if self.home_of(hash) == self.index {
                let record = &mut self.channels[channel];
                let home = record.home.get_or_insert_default();
                home.is_local = true;
                record.head = home.head;
                record.membership = Membership::Joined;
            } else {
                self.channels[channel].membership = Membership::JoinDue;
                self.owe(channel);
            }
        } else if self.channels[channel].membership == Membership::LeaveDue {
            self.channels[channel].membership = Membership::Joined;
        }
        let is_joined = self.channels[channel].membership == Membership::Joined;
        let cursor = if is_joined {
            self.channels[channel].head
        } else {
            WAITING
        };
        let index = self.channels.join(channel, slot, cursor);
        let held = &mut self.connections[slot].subscriptions;
        held.push(super::connections::Subscription { channel, index });
        self.connections.refresh_direct(slot);
        self.metrics.add(Metric::Subscriptions, 1);
        is_joined
    }

    /// Takes away the `place`-th subscription of the connection.
    pub fn unsubscribe(&mut self, slot: u32, place: usize) {
        let held = self.connections[slot].subscriptions[place];
        self.finish_frame(slot, held.channel);
        self.connections[slot].subscriptions.swap_remove(place);
        if let Some((sweep, _)) = self.channels.sweep_mut(held.channel) {
            let before = sweep.exceptions.len();
            sweep.exceptions.retain(|exception| exception.slot != slot);
            self.connections[slot].exceptions -= (before - sweep.exceptions.len()) as u32;
        }
        for (moved, index) in self.channels.leave(held.channel, held.index) {
            let subscriptions = &mut self.connections[moved].subscriptions;
            let other = subscriptions
                .iter_mut()
                .find(|other| other.channel == held.channel);
            other.expect("who moved is subscribed").index = index;
        }
        self.connections.refresh_direct(slot);
        self.metrics.subtract(Metric::Subscriptions, 1);
        let record = &mut self.channels[held.channel];
        if record.subscribers.is_empty() {
            match record.membership {
                Membership::JoinDue => record.membership = Membership::Absent,
                Membership::Joined => match record.home.as_mut() {
                    Some(home) => {
                        home.is_local = false;
                        record.membership = Membership::Absent;
                        self.review_congestion(held.channel);
                        if self.channels.is_live(held.channel) {
                            self.drop_home_if_unused(held.channel);
                        }
                        return;
                    }
                    None => {
                        record.membership = Membership::LeaveDue;
                        self.owe(held.channel);
                    }
                },
                Membership::Joining | Membership::LeaveDue | Membership::Absent => {}
            }
            self.channels.remove_if_unused(held.channel);
        }
    }

    /// If a frame of the channel went out in part, its rest goes before anything else: it moves to
    /// the front of the outbox, and the log is not needed for it any more.
    pub fn finish_frame(&mut self, slot: u32, channel: u32) {
        if self.connections[slot].unfinished != Source::Channel(channel) {
            return;
        }
        let held = self.connections[slot]
            .subscriptions
            .iter()
            .find(|held| held.channel == channel);
        let index = held.expect("what is unfinished is subscribed").index as usize;
        let cursor = self.channels[channel].subscribers[index].cursor;
        let connection = &mut self.connections[slot];
        connection.unfinished = Source::Nothing;
        if let Some((sweep, subscribers)) = self.channels.sweep_mut(channel)
            && cursor >= sweep.log.tail()
            && let Some(end) = sweep.log.frame_end_after(cursor)
        {
            let rest = sweep.log.slice(cursor, end);
            let outbox = connection.outbox.get_or_insert_default();
            outbox
                .bytes
                .splice(outbox.sent..outbox.sent, rest.iter().copied());
            subscribers[index].cursor = end;
            connection.unfinished = Source::Outbox;
            self.connections.refresh_direct(slot);
        }
    }

    /// Reads the letters of one shard, as many as are there.
    pub fn read_letter(&mut self, from: u16, letter: Letter) {
        match letter {
            Letter::Publish(publication) => {
                self.sequence(&publication.event());
                let receipt = Letter::Published {
                    requester: publication.requester,
                };
                self.mesh.post_receipt(from, receipt);
            }
            Letter::Published { requester } => {
                self.mesh.receipt_came(from);
                self.has_relief = true;
                if let Some(requester) = requester {
                    self.on_receipt(requester);
                }
            }
            Letter::Join(join) => {
                let channel = self.channels.find_or_insert(join.app, &join.name);
                let home = self.channels[channel].home.get_or_insert_default();
                home.interests.push(Interest {
                    audience: join.audience,
                    posted: home.head,
                    swept: home.head,
                    shard: from,
                    owes_joined: true,
                });
                self.owe(channel);
            }
            Letter::Joined {
                audience,
                home,
                position,
            } => self.on_joined(audience, home, position),
            Letter::Leave { home } => {
                let Some(channel) = self.channels.resolve(home) else {
                    return;
                };
                if let Some(home) = self.channels[channel].home.as_mut() {
                    home.interests.retain(|interest| interest.shard != from);
                    if home.interests.is_empty() {
                        home.outgoing = None;
                    }
                    self.owe(channel);
                    self.review_congestion(channel);
                }
            }
            Letter::Except {
                audience,
                socket,
                start,
                end,
            } => {
                if let Some(channel) = self.channels.resolve(audience)
                    && self.connections.is_current(socket)
                {
                    self.early_exceptions.push((
                        channel,
                        Exception {
                            slot: socket.slot,
                            start,
                            end,
                        },
                    ));
                }
            }
            Letter::Deliver {
                audience,
                position,
                frames,
            } => {
                let Some(channel) = self.channels.resolve(audience) else {
                    return;
                };
                assert_eq!(
                    position, self.channels[channel].head,
                    "frames come without a gap"
                );
                self.append(channel, &frames, websocket::frame_lengths(&frames));
                let early = std::mem::take(&mut self.early_exceptions);
                for &(_, exception) in early.iter().filter(|(about, _)| *about == channel) {
                    self.except(channel, exception);
                }
                self.early_exceptions = early;
                self.early_exceptions.retain(|(about, _)| *about != channel);
            }
            Letter::Swept { home, position } => {
                let Some(channel) = self.channels.resolve(home) else {
                    return;
                };
                if let Some(home) = self.channels[channel].home.as_mut() {
                    for interest in home.interests.iter_mut().filter(|at| at.shard == from) {
                        interest.swept = position;
                    }
                    self.review_congestion(channel);
                }
            }
            Letter::Congested {
                channel,
                is_congested,
            } => self.note_congestion(channel, is_congested),
        }
    }

    fn on_joined(&mut self, audience: Key, home: Key, position: u64) {
        let Some(channel) = self.channels.resolve(audience) else {
            return;
        };
        let record = &mut self.channels[channel];
        record.head = position;
        record.home_key = home;
        record.membership = Membership::Joined;
        for subscriber in &mut record.subscribers {
            subscriber.cursor = position;
        }
        if record.subscribers.is_empty() {
            record.membership = Membership::LeaveDue;
            self.owe(channel);
        }
        let name = self.channels[channel].name.clone();
        for place in 0..self.channels[channel].subscribers.len() {
            let slot = self.channels[channel].subscribers[place].slot;
            self.confirm_subscription(slot, &name);
        }
    }

    /// Posts what channels owe other shards, as far as there is room.
    pub fn post_owed(&mut self) {
        let mut owing = std::mem::take(&mut self.owing);
        for channel in owing.drain(..) {
            if self.post_as_audience(channel) & self.post_as_home(channel) {
                self.channels[channel].is_owing = false;
                self.drop_home_if_unused(channel);
            } else {
                self.still_owing.push(channel);
            }
        }
        assert!(self.owing.is_empty(), "posting makes no channel owe");
        self.owing = std::mem::replace(&mut self.still_owing, owing);
        let (mesh, news) = (&mut self.mesh, &mut self.congestion_news);
        news.retain(|&(shard, channel, is_congested)| {
            let has_room = mesh.has_room(shard);
            if has_room {
                mesh.post(
                    shard,
                    Letter::Congested {
                        channel,
                        is_congested,
                    },
                );
            }
            !has_room
        });
    }

    /// Joins, leaves and progress. True if nothing is left to post.
    fn post_as_audience(&mut self, channel: u32) -> bool {
        let audience = self.channels.key_of(channel);
        let record = &self.channels[channel];
        let home_shard = self.home_of(self.channels.hash(record.app, &record.name));
        if home_shard == self.index {
            return true;
        }
        match record.membership {
            Membership::JoinDue => {
                if !self.mesh.has_room(home_shard) {
                    return false;
                }
                let join = Join {
                    app: record.app,
                    name: record.name.clone(),
                    audience,
                };
                self.mesh.post(home_shard, Letter::Join(Box::new(join)));
                self.channels[channel].membership = Membership::Joining;
            }
            Membership::LeaveDue => {
                if !self.mesh.has_room(home_shard) {
                    return false;
                }
                let home = record.home_key;
                self.mesh.post(home_shard, Letter::Leave { home });
                self.channels[channel].membership = Membership::Absent;
            }
            Membership::Joined => {
                let home = record.home_key;
                let step = (self.options.log_bytes_max / 8) as u64;
                if let Some((sweep, _)) = self.channels.sweep_mut(channel)
                    && sweep.floor() - sweep.reported >= step
                {
                    if !self.mesh.has_room(home_shard) {
                        return false;
                    }
                    sweep.reported = sweep.floor();
                    let position = sweep.reported;
                    self.mesh.post(home_shard, Letter::Swept { home, position });
                }
            }
            Membership::Absent | Membership::Joining => {}
        }
        true
    }

    /// Confirmations and frames for the shards that listen. True if nothing is left to post.
    fn post_as_home(&mut self, channel: u32) -> bool {
        let home_key = self.channels.key_of(channel);
        let Some(home) = self.channels[channel].home.as_mut() else {
            return true;
        };
        let (mut is_done, mut lowest) = (true, home.head);
        let mut shared: Option<(u64, bytes::Bytes)> = None;
        for interest in &mut home.interests {
            let audience = interest.audience;
            if interest.owes_joined {
                if !self.mesh.has_room(interest.shard) {
                    (is_done, lowest) = (false, lowest.min(interest.posted));
                    continue;
                }
                interest.owes_joined = false;
                let position = interest.posted;
                self.mesh.post(
                    interest.shard,
                    Letter::Joined {
                        audience,
                        home: home_key,
                        position,
                    },
                );
            }
            let Some(outgoing) = home
                .outgoing
                .as_mut()
                .filter(|_| interest.posted < home.head)
            else {
                continue;
            };
            let mesh = &mut self.mesh;
            outgoing
                .exceptions
                .retain(|&(shard, generation, Exception { slot, start, end })| {
                    if shard != interest.shard || !mesh.has_room(shard) {
                        return true;
                    }
                    let socket = Socket { slot, generation };
                    mesh.post(
                        shard,
                        Letter::Except {
                            audience,
                            socket,
                            start,
                            end,
                        },
                    );
                    false
                });
            let has_all = !outgoing
                .exceptions
                .iter()
                .any(|(shard, _, _)| *shard == interest.shard);
            if !has_all || !self.mesh.has_room(interest.shard) {
                (is_done, lowest) = (false, lowest.min(interest.posted));
                continue;
            }
            let position = interest.posted;
            let frames = match &shared {
                Some((from, frames)) if *from == position => frames.clone(),
                _ => {
                    let offset = (position - outgoing.base) as usize;
                    self.arena.extend_from_slice(&outgoing.frames[offset..]);
                    let frames = self.arena.split().freeze();
                    shared = Some((position, frames.clone()));
                    frames
                }
            };
            interest.posted = home.head;
            self.metrics.add(Metric::Letters, 1);
            self.mesh.post(
                interest.shard,
                Letter::Deliver {
                    audience,
                    position,
                    frames,
                },
            );
        }
        if let Some(outgoing) = home.outgoing.as_mut()
            && is_done
        {
            // Whoever was excluded on a shard that does not listen cannot be subscribed there.
            outgoing.exceptions.clear();
            outgoing.frames.clear();
            if outgoing.frames.capacity() > limits::ARENA_BYTES || home.interests.is_empty() {
                home.outgoing = None;
            }
        }
        is_done
    }

    /// Plans the sends of this turn: channels that moved in turn, then connections that get more
    /// than one thing.
    pub fn sweep(&mut self) {
        let mut budget = limits::VISITS_PER_TURN;
        let mut looks = limits::LOOKS_PER_TURN;
        while budget > 0 && looks > 0 {
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
            let share = budget.min(limits::VISITS_PER_CHANNEL);
            let progress = sweep.run(
                subscribers,
                direct,
                share,
                &mut self.visits,
                &mut self.indirect,
            );
            let end = sweep.log.head();
            let mut deliveries = 0;
            for &visit in &self.visits {
                deliveries += sweep.log.frames_between(visit.start, end);
                self.planned.push(Planned::Direct {
                    channel,
                    visit,
                    end,
                });
            }
            self.metrics.add(Metric::Deliveries, deliveries);
            for &index in &self.indirect {
                self.gather
                    .push((subscribers[index as usize].slot, channel + 1));
            }
            if !sweep.is_done() {
                self.channels.requeue(channel);
            }
            self.swept.push(channel);
            budget -= progress.handed_out.min(budget);
            looks = looks.saturating_sub(progress.looked_at);
        }
        self.plan_gathered();
        let sends = self.planned.len() as u64;
        self.metrics.add(Metric::Sends, sends);
    }

    fn plan_gathered(&mut self) {
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
            if self.doomed.last() == Some(&slot) {
                // The rest of its frame is lost: nothing may follow, and the next turn closes it.
                self.pieces.truncate(first as usize);
                continue;
            }
            let count = self.pieces.len() as u32 - first;
            if count == 0 {
                continue;
            }
            let unfinished = self.connections[slot].unfinished;
            let pieces = &mut self.pieces[first as usize..];
            pieces.sort_by_key(|piece| piece.source != unfinished);
            self.connections[slot].unfinished = Source::Nothing;
            self.planned.push(Planned::Gathered {
                slot,
                first,
                count,
                unfinished,
            });
        }
        gather.clear();
        gather.append(&mut self.gather_later);
        self.gather = gather;
    }

    fn plan_outbox(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        let is_sending = matches!(connection.state, State::Open | State::Flushing);
        if !is_sending || connection.is_blocked {
            return;
        }
        if let Some(outbox) = connection.outbox.as_mut()
            && outbox.sent < outbox.bytes.len()
        {
            let (start, end) = (outbox.sent as u64, outbox.bytes.len() as u64);
            outbox.sent = outbox.bytes.len();
            self.pieces.push(Piece {
                source: Source::Outbox,
                index: 0,
                start,
                end,
            });
        }
    }

    fn plan_channel(&mut self, slot: u32, channel: u32, first: usize) {
        let connection = &self.connections[slot];
        let held = connection
            .subscriptions
            .iter()
            .find(|held| held.channel == channel);
        let Some(index) = held.map(|held| held.index) else {
            return;
        };
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
        if connection.is_blocked {
            sweep.hold_back(subscriber.cursor);
            return;
        }
        if self.pieces.len() - first + pieces.len() > PIECES_MAX {
            sweep.hold_back(subscriber.cursor);
            self.gather_later.push((slot, channel + 1));
            return;
        }
        let delivered: u64 = pieces
            .iter()
            .map(|(start, end)| sweep.log.frames_between(*start, *end))
            .sum();
        self.metrics.add(Metric::Deliveries, delivered);
        subscriber.cursor = head;
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
            if record.home.is_none() && record.membership == Membership::Joined {
                self.owe_progress(channel);
            } else {
                self.review_congestion(channel);
            }
            self.remove_if_live(channel);
        }
        self.swept = swept;
        self.forget_passed();
    }

    fn remove_if_live(&mut self, channel: u32) {
        if self.channels.is_live(channel) {
            self.channels.remove_if_unused(channel);
        }
    }

    /// Has the home told how far the sweep has come, if that is worth a letter.
    fn owe_progress(&mut self, channel: u32) {
        let step = (self.options.log_bytes_max / 8) as u64;
        let owes = self
            .channels
            .sweep(channel)
            .is_some_and(|sweep| sweep.floor() - sweep.reported >= step);
        if owes {
            self.owe(channel);
        }
    }

    fn forget_passed(&mut self) {
        let mut passed = std::mem::take(&mut self.passed);
        for slot in passed.drain(..) {
            self.connections[slot].exceptions -= 1;
            self.connections.refresh_direct(slot);
        }
        self.passed = passed;
    }

    fn on_short_send(&mut self, short: ShortSend) {
        self.metrics.add(Metric::ShortSends, 1);
        let taken = u64::from(short.taken.unwrap_or(0));
        let slot = match self.planned[short.index as usize] {
            Planned::Direct {
                channel,
                visit,
                end,
            } => {
                self.take_back(channel, visit.index, visit.start + taken, end);
                if taken > 0 {
                    self.connections[visit.slot].unfinished = Source::Channel(channel);
                }
                visit.slot
            }
            Planned::Gathered {
                slot,
                first,
                count,
                unfinished,
            } => {
                let mut left = taken;
                if taken == 0 {
                    self.connections[slot].unfinished = unfinished;
                }
                for place in first..first + count {
                    let piece = self.pieces[place as usize];
                    let got = left.min(piece.end - piece.start);
                    left -= got;
                    if got == piece.end - piece.start {
                        continue;
                    }
                    match piece.source {
                        Source::Channel(channel) => {
                            self.take_back(channel, piece.index, piece.start + got, piece.end);
                        }
                        Source::Outbox | Source::Nothing => {
                            let outbox = self.connections[slot].outbox.as_mut();
                            outbox.expect("it was just sent from").sent =
                                (piece.start + got) as usize;
                        }
                    }
                    if got > 0 {
                        self.connections[slot].unfinished = piece.source;
                    }
                }
                slot
            }
        };
        match short.taken {
            Ok(_) => {
                self.connections[slot].is_blocked = true;
                let socket = self.connections.socket(slot);
                self.operations.push(Operation::AwaitWritable { socket });
            }
            Err(_) => self.broken.push(slot),
        }
        self.connections.refresh_direct(slot);
    }

    /// The subscriber did not get the frames from `position` on.
    fn take_back(&mut self, channel: u32, index: u32, position: u64, end: u64) {
        let (sweep, subscribers) = self
            .channels
            .sweep_mut(channel)
            .expect("it was just sent from");
        let subscriber = &mut subscribers[index as usize];
        let untaken = sweep.log.frames_between(position, end);
        subscriber.cursor = subscriber.cursor.min(position);
        sweep.hold_back(position);
        self.metrics.subtract(Metric::Deliveries, untaken);
    }

    /// A blocked socket takes bytes again: it is visited for everything that it is behind with.
    pub fn on_writable(&mut self, slot: u32) {
        self.connections[slot].is_blocked = false;
        self.connections.refresh_direct(slot);
        self.gather.push((slot, 0));
        for held in &self.connections[slot].subscriptions {
            self.gather.push((slot, held.channel + 1));
        }
    }

    /// Looks once a second through the channels that keep frames for blocked subscribers.
    pub fn review_held(&mut self) {
        let mut reviewed = std::mem::take(&mut self.reviewed);
        let since_s = self
            .now_s
            .saturating_sub((self.options.log_age_ms_max / 1000) as u32);
        self.channels
            .review_held(since_s, &mut self.passed, &mut reviewed);
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

/// The one encode of an event: a text frame with its envelope.
fn encode(event: &Event<'_>, frame: &mut Vec<u8>) {
    let length = crate::wire::pusher::event_length(event.name, event.channel, event.data);
    frame.extend_from_slice(websocket::header(Opcode::Text, length).as_ref());
    crate::wire::pusher::encode_event_tokens(frame, event.name, event.channel, event.data);
}
