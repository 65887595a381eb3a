//! Subscribers that get retained events before live ones: who was away, or goes back in time.
//!
//! ```text
//! let in, behind the head --> Due
//! Due      -- the home is asked --> Asked
//! Asked    -- a chunk came --> Sending
//! Sending  -- all of it was sent --> Due, or, after the last chunk, gone
//! ```
//!
//! The home answers with a share of the memory in which it retains the events, one segment at a time,
//! so that the memory of those who catch up is a position and a share, however far they have to go
//! and however many they are. Meanwhile their cursors are past every head ([`CATCHING_UP`]), and the
//! sweep passes them over: what comes is retained too. The answer with the last chunk takes its
//! place between the live frames like every answer to one who comes: it arrives behind those that it
//! covers and ahead of those that follow it. So the subscriber stands at its shard's head then, and
//! nothing is missing or sent twice at the seam. While that chunk is still to be sent it is a
//! subscriber that is held back, with what that means for the log.
//!
//! A subscriber that was parked ([`hub::parking`](crate::hub::parking)) falls behind in the same way when
//! its socket takes bytes again. So does one whose frames leave the log while its last chunk is sent.
//!
//! What a turn sends to them is bounded in bytes, and more closely while a sweep is under way: those who
//! are live come first. Whoever has to wait is served before anybody gets the next segment.
//!
//! Where frames are not a WebSocket's, a chunk is encoded anew into the outbox, and is a short one.

use bytes::Bytes;

use crate::base::lag::Lag;
use crate::base::limits;
use crate::base::metrics::Metric;
use crate::base::slow::Slow;
use crate::base::socket::Socket;
use crate::hub::ask::{Ask, Behind, Content, Fetch, Fetched, Question, ROSTER_UNKNOWN};
use crate::hub::audience::{CATCHING_UP, Subscriber};
use crate::hub::letter::Letter;
use crate::hub::variant::{Encoder, Variant};
use crate::ring::PIECES_MAX;
use crate::wire::pusher::delivery::{self, Reason, Serial};
use crate::wire::websocket;

use super::Engine;
use super::connections::{Connection, Protocol, State};
use super::sweep::{Piece, Source};

/// How far one subscription has caught up.
#[derive(Debug)]
pub struct Backlog {
    pub channel: u32,
    /// Names the question, so that an answer to another subscription is none to this.
    number: u32,
    /// What the subscriber has, or has been given here.
    behind: Behind,
    phase: Phase,
    /// The last serial of the channel when its home was last asked, and the second in which the oldest
    /// event came that the subscriber lacked then.
    head: u64,
    since_s: u32,
}

#[derive(Debug)]
enum Phase {
    Due,
    Asked,
    Sending {
        frames: Bytes,
        sent: usize,
        is_last: bool,
    },
}

impl Backlog {
    /// The frames that are being sent.
    pub fn frames(&self) -> &[u8] {
        match &self.phase {
            Phase::Due | Phase::Asked => &[],
            Phase::Sending { frames, .. } => frames,
        }
    }

    /// The events that it was not given up to the serial `head`, or up to a later one that is known
    /// here. Nothing while the home was not asked, which says how old they are.
    pub fn lag(&self, head: u64, now_s: u32) -> Lag {
        let unsent = match &self.phase {
            Phase::Due | Phase::Asked => 0,
            Phase::Sending { frames, sent, .. } => {
                websocket::frame_lengths(&frames[*sent..]).count() as u64
            }
        };
        let to_fetch = head.max(self.head).saturating_sub(self.behind.after);
        let age_s = match self.since_s {
            0 => 0,
            since_s => now_s.saturating_sub(since_s),
        };
        Lag {
            messages: unsent + to_fetch,
            bytes: None,
            ms: u64::from(age_s) * 1000,
        }
    }
}

impl Connection {
    /// Whether nothing waits to be sent to it alone.
    fn has_no_replies(&self) -> bool {
        let is_held = match &self.protocol {
            Protocol::Fallback(fallback) => !fallback.backlog.is_empty(),
            Protocol::Http(_)
            | Protocol::WebSocket { .. }
            | Protocol::Echo { .. }
            | Protocol::Receiver { .. }
            | Protocol::EventStream
            | Protocol::Departing(_)
            | Protocol::Arriving(_)
            | Protocol::Absent => false,
        };
        self.outbox.is_none() && !is_held
    }
}

/// Of one that was slow, and is told anew what has no serials.
fn slow_behind(after: u64) -> Behind {
    Behind {
        after,
        formerly: None,
        roster_changes: ROSTER_UNKNOWN,
        is_slow: true,
    }
}

impl Engine {
    /// The subscriber was let in, and has to catch up first.
    pub(super) fn fall_behind(&mut self, slot: u32, place: usize, behind: Behind) {
        let held = self.connections[slot].subscriptions[place];
        let subscribers = &mut self.channels[held.channel].subscribers;
        subscribers[held.index as usize].cursor = CATCHING_UP;
        self.fetch_number = self.fetch_number.wrapping_add(1);
        let backlog = Backlog {
            channel: held.channel,
            number: self.fetch_number,
            behind,
            phase: Phase::Due,
            head: behind.after,
            since_s: 0,
        };
        self.connections.fall_behind(slot, backlog);
        let socket = self.connections.socket(slot);
        self.fetches.push_back((socket, held.channel));
    }

    /// One that was parked goes on, if its socket takes bytes.
    pub(super) fn take_up(&mut self, slot: u32, channel: u32, after: u64) {
        let connection = &self.connections[slot];
        let mut held = connection.subscriptions.iter();
        let place = held.position(|held| held.channel == channel);
        if let Some(place) = place
            && !connection.is_blocked
        {
            self.fall_behind(slot, place, slow_behind(after));
        }
    }

    /// The socket takes bytes again: what is too much of a channel for it is left out, where that is the
    /// policy. The home knows what that is.
    pub(super) fn review_lag(&mut self, slot: u32) {
        for place in 0..self.connections[slot].subscriptions.len() {
            let held = self.connections[slot].subscriptions[place];
            let record = &self.channels[held.channel];
            let subscriber = record.subscribers[held.index as usize];
            match subscriber.slow {
                Slow::Disconnect | Slow::Lag => continue,
                Slow::Latest | Slow::LatestPerKey => {}
            }
            let Some(sweep) = self.channels.sweep(held.channel) else {
                continue;
            };
            let (cursor, head) = (subscriber.cursor, sweep.log.head());
            if cursor >= head || self.connections.backlog(slot, held.channel).is_some() {
                continue;
            }
            let most = self.apps.app(record.app).slow_messages_max(&record.name);
            if sweep.log.frames_between(cursor, head) > most {
                let after = sweep.log.serial_at(cursor, &mut self.inflater);
                self.fall_behind(slot, place, slow_behind(after));
            }
        }
    }

    /// The subscription ends.
    pub(super) fn drop_backlog(&mut self, slot: u32, channel: u32) {
        self.connections
            .retain_backlogs(slot, |backlog| backlog.channel != channel);
    }

    /// Asks homes for what comes next for those who can take it, some of them in each turn.
    pub(super) fn fetch_backlogs(&mut self) {
        // Whoever has a segment is sent it before anybody gets the next one: so nobody waits for long.
        if std::mem::take(&mut self.is_backlog_full) {
            return;
        }
        for _ in 0..self.fetches.len().min(limits::FETCHES_PER_TURN) {
            let Some((socket, channel)) = self.fetches.pop_front() else {
                break;
            };
            if !self.connections.is_current(socket) {
                continue;
            }
            let variant = self.connections[socket.slot].variant;
            let bytes_max = match variant {
                Variant::Plain | Variant::Deflated { .. } => limits::SEGMENT_BYTES,
                Variant::Sse => limits::ENCODED_CHUNK_BYTES,
                // Beside what waits for the session already.
                Variant::Xhr => {
                    limits::ENCODED_CHUNK_BYTES.min(self.options.fallback_backlog_bytes_max / 4)
                }
            };
            let backlog = self.connections.backlog(socket.slot, channel);
            if !backlog.is_some_and(|backlog| matches!(backlog.phase, Phase::Due)) {
                continue;
            }
            let record = &self.channels[channel];
            let (app, name) = (record.app, record.name.clone());
            let home = self.home_of(self.channels.hash(app, &name));
            let is_posted =
                home == self.index || self.mesh.has_credit(home, limits::FETCH_CREDIT_RESERVE);
            if !is_posted {
                self.fetches.push_back((socket, channel));
                continue;
            }
            let subscriber = self.subscriber(socket.slot, channel).slow;
            let slow_messages_max = self.apps.app(app).slow_messages_max(&name);
            let backlog = self.connections.backlog_mut(socket.slot, channel);
            let backlog = backlog.expect("it was just there");
            backlog.phase = Phase::Asked;
            let slow = match backlog.behind.is_slow {
                true => subscriber,
                false => Slow::Lag,
            };
            let mut ask = Ask {
                requester: socket,
                app,
                channel: name,
                question: Question::Fetch(Fetch {
                    variant,
                    number: backlog.number,
                    after: backlog.behind.after,
                    formerly: backlog.behind.formerly,
                    roster_changes: backlog.behind.roster_changes,
                    slow,
                    slow_messages_max,
                    bytes_max,
                }),
            };
            if home == self.index {
                let content = self.consider(home, &mut ask);
                self.on_answer(*ask.answer(content));
            } else {
                self.mesh.post_publish(home, Letter::Ask(Box::new(ask)));
            }
        }
    }

    /// The subscription of the connection to a channel.
    fn subscriber(&self, slot: u32, channel: u32) -> Subscriber {
        let mut held = self.connections[slot].subscriptions.iter();
        let held = held.find(|held| held.channel == channel);
        let held = held.expect("whoever catches up is subscribed");
        self.channels[channel].subscribers[held.index as usize]
    }

    /// The home of a channel, on another shard, is asked for events: only with the last of them the
    /// answer has its place between the live frames.
    pub(super) fn answer_fetch(&mut self, from: u16, mut ask: Box<Ask>, variant: Variant) {
        let content = self.consider(from, &mut ask);
        let is_last = matches!(&content, Content::Fetched(fetched) if fetched.chunk.is_last);
        let channel = self.channels.find(ask.app, &ask.channel, Variant::Plain);
        let channel = channel.expect("whoever catches up is subscribed");
        let answer = ask.answer(content);
        if !is_last {
            return self.mesh.post_receipt(from, Letter::Answer(answer));
        }
        let home = self.channels[channel].home.as_mut();
        let home = home.expect("whoever catches up is subscribed");
        let serial = home.serial();
        home.stream(variant).answer(from, serial, answer);
        self.owe(channel);
    }

    /// What the home gave.
    pub(super) fn on_fetched(&mut self, requester: Socket, app: u16, name: &str, fetched: Fetched) {
        let slot = requester.slot;
        let Some(place) = self.place_of(slot, app, name) else {
            return;
        };
        let held = self.connections[slot].subscriptions[place];
        let backlog = self.connections.backlog_mut(slot, held.channel);
        let Some(backlog) = backlog.filter(|backlog| backlog.number == fetched.number) else {
            return;
        };
        let chunk = fetched.chunk;
        backlog.behind.after = chunk.reached;
        (backlog.head, backlog.since_s) = (chunk.head, chunk.since_s);
        let epoch = fetched.epoch;
        if chunk.is_last {
            let record = &mut self.channels[held.channel];
            record.subscribers[held.index as usize].cursor = record.head;
        }
        if let Some(gap) = chunk.missed {
            let mut text = Vec::new();
            delivery::encode_gap(&mut text, name, epoch, gap);
            self.reply_text(slot, &text);
            let metric = match gap.reason {
                Reason::Evicted => Metric::Gaps,
                Reason::Latest => Metric::GapsLatest,
                Reason::Superseded => Metric::GapsSuperseded,
            };
            self.metrics.add(metric, 1);
        }
        for reply in &fetched.replies {
            self.reply_text(slot, reply);
        }
        let first = Serial {
            epoch,
            number: chunk.first,
        };
        let frames = self.encode_backlog(slot, first, chunk.frames);
        if let Some(backlog) = self.connections.backlog_mut(slot, held.channel) {
            backlog.phase = Phase::Sending {
                frames,
                sent: 0,
                is_last: chunk.is_last,
            };
        }
        self.gather.push((slot, held.channel + 1));
        self.review_backlogs(slot);
    }

    /// The frames that are still to be sent from here: none where they went into the outbox, in
    /// the form of the connection.
    fn encode_backlog(&mut self, slot: u32, first: Serial, frames: Bytes) -> Bytes {
        let variant = self.connections[slot].variant;
        match variant {
            Variant::Plain | Variant::Deflated { .. } => return frames,
            Variant::Xhr | Variant::Sse => {}
        }
        let mut encoded = Vec::new();
        let (mut rest, mut count) = (&frames[..], 0);
        let Serial { epoch, number } = first;
        for length in websocket::frame_lengths(&frames) {
            let (frame, behind) = rest.split_at(length);
            let number = number + count;
            Encoder::encode_again(variant, frame, Serial { epoch, number }, &mut encoded);
            rest = behind;
            count += 1;
        }
        self.metrics.add(Metric::Encodes, count);
        self.metrics.add(Metric::Deliveries, count);
        match variant {
            Variant::Xhr => self.take_frames(slot, &encoded),
            Variant::Sse | Variant::Plain | Variant::Deflated { .. } => {
                self.reply_bytes(slot, &encoded);
            }
        }
        Bytes::new()
    }

    /// Plans to send what was fetched; what is live waits for that.
    pub(super) fn plan_backlog(&mut self, slot: u32, channel: u32, index: u32, first: usize) {
        if let Some((sweep, subscribers)) = self.channels.sweep_mut(channel) {
            let cursor = subscribers[index as usize].cursor;
            if cursor < sweep.log.tail() {
                return self.doomed.push(slot);
            }
            if cursor < sweep.log.head() {
                sweep.hold_back(cursor);
            }
        }
        let connection = &self.connections[slot];
        if connection.is_blocked || connection.state != State::Open {
            return;
        }
        let is_full = self.pieces.len() - first >= PIECES_MAX;
        let Some(Backlog {
            phase: Phase::Sending { frames, sent, .. },
            ..
        }) = self.connections.backlog_mut(slot, channel)
        else {
            return;
        };
        if *sent == frames.len() {
            return;
        }
        let has_room = self.backlog_room > 0;
        self.is_backlog_full |= !has_room;
        if is_full || !has_room {
            return self.gather_later.push((slot, channel + 1));
        }
        let run = &frames[*sent..];
        self.backlog_room = self.backlog_room.saturating_sub(run.len());
        self.metrics.add(
            Metric::Deliveries,
            websocket::frame_lengths(run).count() as u64,
        );
        self.metrics.add(Metric::SentBytes, run.len() as u64);
        let start = *sent as u64;
        *sent = frames.len();
        self.pieces.push(Piece {
            source: Source::Backlog(channel),
            index,
            start,
            end: start + run.len() as u64,
        });
    }

    /// The socket took `got` bytes of a piece of the backlog. A frame that it took in part is kept
    /// whole for it, as with live frames.
    pub(super) fn take_back_backlog(&mut self, slot: u32, piece: Piece, channel: u32, got: u64) {
        let Some(Backlog {
            phase: Phase::Sending { frames, sent, .. },
            ..
        }) = self.connections.backlog_mut(slot, channel)
        else {
            return;
        };
        let (start, end) = (piece.start as usize, piece.end as usize);
        let taken = start + got as usize;
        let frames = frames.clone();
        let lengths = websocket::frame_lengths(&frames[start..end]);
        let mut ends = lengths.scan(start, |end, length| {
            *end += length;
            Some(*end)
        });
        let next = match got {
            0 => start,
            _ => ends
                .find(|end| *end >= taken)
                .expect("the run consists of frames"),
        };
        *sent = next;
        let untaken = websocket::frame_lengths(&frames[next..end]).count();
        self.metrics.subtract(Metric::Deliveries, untaken as u64);
        self.metrics
            .subtract(Metric::SentBytes, (end - taken) as u64);
        if next > taken {
            self.connections.keep_rest(slot, &frames[taken..next]);
        }
    }

    /// Goes on for those whose chunk was sent.
    pub(super) fn review_backlogs(&mut self, slot: u32) {
        let socket = self.connections.socket(slot);
        let connection = &self.connections[slot];
        let is_quiet = !connection.is_blocked && connection.has_no_replies();
        if !connection.is_behind || !is_quiet {
            return;
        }
        let (gather, fetches) = (&mut self.gather, &mut self.fetches);
        let mut is_up = false;
        self.connections.retain_backlogs(slot, |backlog| {
            let Phase::Sending {
                frames,
                sent,
                is_last,
            } = &backlog.phase
            else {
                return true;
            };
            if *sent < frames.len() {
                return true;
            }
            if *is_last {
                gather.push((slot, backlog.channel + 1));
                is_up = true;
                return false;
            }
            fetches.push_back((socket, backlog.channel));
            backlog.phase = Phase::Due;
            true
        });
        if is_up {
            self.review_lag(slot);
        }
    }
}
