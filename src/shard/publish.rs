//! An event's way into its channel's order: routed home, sequenced, encoded once, appended.
//!
//! The whole path of a message, of which the later steps are in `membership` and `sweep`:
//!
//! ```text
//! route      its home is elsewhere: post it there
//! take_in    at home: an app's hook may have to see it first
//! persist    at home: a repeat ends here; on a durable channel an event is on disk first
//! sequence   a position, one encode a variant, the frame to this shard's log and the others'
//! deliver    the frames of another home, to this shard's log
//! sweep      for each subscriber behind the head: one visit, from its cursor to the head
//! settle     after the system call: cursors of short sends go back, those sockets are waited for
//! ```

use crate::base::metrics::Metric;
use crate::base::socket::{Address, Socket};
use crate::hub::audience::Exception;
use crate::hub::letter::{Event, Fate, Letter, Origin, Outcome, Publication, Requester};
use crate::hub::notice::Kind;
use crate::hub::variant::Variant;
use crate::wire::channel::ChannelKind;
use crate::wire::pusher::delivery::Serial;

use super::Engine;
use super::home::hold::Conclusion;

/// What became of events that were to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// So many are still to be confirmed, by homes elsewhere, an app's hook or the journal.
    Posted { receipts: u32 },
    /// Nothing was published: the engine is behind, or a lane has no room.
    Behind,
}

/// The home of the channel with this hash, among so many shards.
pub fn home_of(hash: u64, shards: usize) -> u16 {
    ((hash >> 32) % shards as u64) as u16
}

impl Engine {
    pub(super) fn home_of(&self, hash: u64) -> u16 {
        home_of(hash, self.mesh.shards())
    }

    /// Publishes all of the events, or none of them.
    pub fn route(&mut self, events: &[Event<'_>], requester: Option<Socket>) -> Routed {
        if self.is_behind(events) {
            return Routed::Behind;
        }
        let mut receipts = 0;
        for (place, event) in (0..).zip(events) {
            let requester = requester.map(|socket| Requester { socket, place });
            self.metrics.add(Metric::Publishes, 1);
            let home = self.home_of(self.channels.hash(event.app, event.channel));
            if home == self.index {
                let fate = self.take_in(event, requester, home);
                let Some(requester) = requester else { continue };
                match fate {
                    Fate::Sequenced(serial) => self.note_serial(requester, serial),
                    Fate::Dropped => self.note_dropped(requester),
                    Fate::Held => receipts += 1,
                    Fate::Refused(refusal) => {
                        receipts += 1;
                        self.conclusions.push_back(Conclusion {
                            shard: home,
                            requester,
                            outcome: Outcome::Refused(refusal),
                        });
                    }
                }
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
        self.look_at_logs();
        if self.are_logs_full {
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

    /// Looks whether the logs of any shard hold as much as they may: once a millisecond at most, for
    /// every look takes a cache line from each of the others.
    fn look_at_logs(&mut self) {
        if std::mem::replace(&mut self.logs_seen_ms, self.now_ms) == self.now_ms {
            return;
        }
        let most = self.options.log_bytes_per_shard_max as u64;
        let mut all = self.all_metrics.iter();
        self.are_logs_full = all.any(|metrics| metrics.read(Metric::LogBytes) > most);
    }

    /// Gives the event its place in its channel's order and encodes it, once for each variant. Tells
    /// its serial, if it has one.
    pub fn sequence(&mut self, event: &Event<'_>) -> Option<Serial> {
        if event.origin == Origin::Api && ChannelKind::of(event.channel).is_cache() {
            self.cache(event);
        }
        let has_serial = self.gives_serial(event);
        let channel = self.channels.find(event.app, event.channel, Variant::Plain);
        let channel = channel?;
        let mut home = self.channels[channel].home.take()?;
        // Of an event that waited for the disk it was found before.
        let user_id = match event.user_id.is_empty() {
            true => home.user_id_of(event),
            false => Some(event.user_id.to_string()),
        };
        let retained = home.retained.as_deref_mut().filter(|_| has_serial);
        let event = &Event {
            user_id: user_id.as_deref().unwrap_or(""),
            serial: retained.as_ref().map(|retained| retained.next()),
            ..*event
        };
        let mut frame = std::mem::take(&mut self.frame);
        let (mut owes, mut encoded) = (false, None);
        if let Some(retained) = retained {
            self.encode(Variant::Plain, event, &mut frame);
            if !event.idempotency_key.is_empty() {
                retained.note_key(event.idempotency_key, self.now_s);
            }
            if !event.key.is_empty() {
                retained.key_next(event.key);
            }
            retained.append(&frame, event.excluded, self.now_s);
            if !retained.waiters.is_empty() {
                self.wake_waiters(std::mem::take(&mut retained.waiters));
            }
            encoded = Some(Variant::Plain);
        }
        let serial = home.serial();
        for stream in &mut home.streams {
            if encoded != Some(stream.variant) {
                self.encode(stream.variant, event, &mut frame);
                encoded = Some(stream.variant);
            }
            let start = stream.sequence(&frame);
            owes |= !stream.interests.is_empty();
            if let Some(local) = stream.local {
                self.append(local, &frame, serial);
            }
            if let Some(Address { shard, socket }) = event.excluded {
                let slot = socket.slot;
                let exception = Exception {
                    slot,
                    start,
                    end: stream.head,
                };
                if shard != self.index {
                    if let Some(outgoing) = stream.outgoing.as_mut() {
                        let generation = socket.generation;
                        outgoing.exceptions.push((shard, generation, exception));
                    }
                } else if let Some(local) = stream.local
                    && self.connections.is_current(socket)
                {
                    self.except(local, exception);
                }
            }
        }
        self.frame = frame;
        self.channels[channel].home = Some(home);
        if has_serial {
            self.weigh(channel);
        }
        if let (Origin::Client, Some(sender)) = (event.origin, event.excluded) {
            let kind = Kind::ClientEvent {
                event: event.name,
                data: event.data,
                socket_id: self.socket_id_at(sender),
                user_id: user_id.as_deref(),
            };
            self.notify(event.app, event.channel, kind);
        }
        if owes {
            self.owe(channel);
        }
        self.review_congestion(channel);
        event.serial
    }

    fn encode(&mut self, variant: Variant, event: &Event<'_>, frame: &mut Vec<u8>) {
        frame.clear();
        let is_compressed = self.encoder.encode(variant, event, frame);
        self.metrics.add(Metric::Encodes, 1);
        self.metrics.add(Metric::Deflates, u64::from(is_compressed));
    }

    /// Appends frames to the log of a channel that has subscribers here. `serial` is the last one that
    /// was given up to their end, if the channel has serials.
    pub(super) fn append(&mut self, channel: u32, frames: &[u8], serial: Option<u64>) {
        let lengths = self.channels[channel].variant.frame_lengths(frames);
        self.metrics
            .add(Metric::Appends, lengths.clone().count() as u64);
        self.channels
            .append(channel, frames, lengths, serial, self.now_ms);
        let (bytes_max, inflater) = (self.options.log_bytes_max, &mut self.inflater);
        let parked = self.channels.evict_beyond(channel, bytes_max, inflater);
        self.metrics.add(Metric::SlowParked, parked);
        if let Some((sweep, subscribers)) = self.channels.sweep_mut(channel) {
            sweep.begin_lap(subscribers.len(), self.now_us);
        }
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
}
