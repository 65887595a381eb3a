//! Who gets a channel's frames: subscriptions here, and the letters that join shards to homes.
//!
//! Letters that carry state are not queued: a channel that owes one is looked at again each turn
//! until the lane has room.

use crate::base::limits;
use crate::base::metrics::Metric;
use crate::base::slab::Key;
use crate::base::socket::Socket;
use crate::hub::audience::{Exception, WAITING};
use crate::hub::channels::Membership;
use crate::hub::home::Interest;
use crate::hub::letter::{Join, Letter};
use crate::wire::websocket::{self};

use super::Engine;

impl Engine {
    /// Has the channel's letters posted at the end of this turn, or of the first with room.
    pub fn owe(&mut self, channel: u32) {
        let record = &mut self.channels[channel];
        if !record.is_owing {
            record.is_owing = true;
            self.owing.push_back(channel);
        }
    }

    pub(super) fn note_congestion(&mut self, hash: u64, is_congested: bool) {
        if is_congested {
            self.congested.insert(hash);
        } else {
            self.congested.remove(&hash);
            self.has_relief = true;
        }
    }

    pub(super) fn drop_home_if_unused(&mut self, channel: u32) {
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

    pub(super) fn on_joined(&mut self, audience: Key, home: Key, position: u64) {
        let Some(channel) = self.channels.resolve(audience) else {
            return;
        };
        let record = &mut self.channels[channel];
        record.head = position;
        record.reported = position;
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
        for _ in 0..self.owing.len().min(limits::OWING_PER_TURN) {
            let Some(channel) = self.owing.pop_front() else {
                break;
            };
            if self.post_as_audience(channel) & self.post_as_home(channel) {
                self.channels[channel].is_owing = false;
                self.drop_home_if_unused(channel);
            } else {
                self.owing.push_back(channel);
            }
        }
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
    pub(super) fn post_as_audience(&mut self, channel: u32) -> bool {
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
                if self.has_progress(channel) {
                    if !self.mesh.has_room(home_shard) {
                        return false;
                    }
                    let position = self.channels.floor(channel);
                    self.channels[channel].reported = position;
                    self.mesh.post(home_shard, Letter::Swept { home, position });
                }
            }
            Membership::Absent | Membership::Joining => {}
        }
        true
    }

    /// Confirmations and frames for the shards that listen. True if nothing is left to post.
    pub(super) fn post_as_home(&mut self, channel: u32) -> bool {
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

    pub(super) fn remove_if_live(&mut self, channel: u32) {
        if self.channels.is_live(channel) {
            self.channels.remove_if_unused(channel);
        }
    }

    /// Has the home told how far the sweep has come, if that is worth a letter.
    pub(super) fn owe_progress(&mut self, channel: u32) {
        if self.has_progress(channel) {
            self.owe(channel);
        }
    }

    /// Whether the home thinks that this shard is further back than it is, by so much that it
    /// matters to the congestion of the channel.
    fn has_progress(&self, channel: u32) -> bool {
        let step = (self.options.log_bytes_max / 8) as u64;
        self.channels.floor(channel) - self.channels[channel].reported >= step
    }
}
