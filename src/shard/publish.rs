//! An event's way into its channel's order: routed home, sequenced, encoded once, appended.
//!
//! The whole path of a message, of which the later steps are in `membership` and `sweep`:
//!
//! ```text
//! route      its home is elsewhere: post it there
//! sequence   at home: a position, one encode, the frame to this shard's log and to the others'
//! deliver    the frames of another home, to this shard's log
//! sweep      for each subscriber behind the head: one visit, from its cursor to the head
//! settle     after the system call: cursors of short sends go back, those sockets are waited for
//! ```

use crate::base::metrics::Metric;
use crate::base::socket::{Address, Socket};
use crate::hub::audience::Exception;
use crate::hub::letter::{Event, Letter, Publication};
use crate::wire::websocket::{self, Opcode};

use super::Engine;

/// What became of events that were to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// So many homes elsewhere will confirm; the others have.
    Posted { receipts: u32 },
    /// Nothing was published: the engine is behind, or a lane has no room.
    Behind,
}

impl Engine {
    pub(super) fn home_of(&self, hash: u64) -> u16 {
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

    pub(super) fn is_behind(&mut self, events: &[Event<'_>]) -> bool {
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
    pub(super) fn log_bytes_everywhere(&self) -> usize {
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

    pub(super) fn append(
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

    pub(super) fn except(&mut self, channel: u32, exception: Exception) {
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

    /// The engine is behind in a channel when a sweep somewhere is: its publishers are to wait.
    pub(super) fn review_congestion(&mut self, channel: u32) {
        let record = &self.channels[channel];
        let Some(home) = record.home.as_ref() else {
            return;
        };
        let swept = if home.is_local {
            self.channels.floor(channel).min(home.swept_elsewhere())
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
}

/// The one encode of an event: a text frame with its envelope.
fn encode(event: &Event<'_>, frame: &mut Vec<u8>) {
    let length = crate::wire::pusher::event_length(event.name, event.channel, event.data);
    frame.extend_from_slice(websocket::header(Opcode::Text, length).as_ref());
    crate::wire::pusher::encode_event_tokens(frame, event.name, event.channel, event.data);
}
