//! What the home of a channel does: lets shards and subscribers in, posts frames to the shards that
//! listen, and watches how far their sweeps are.
//!
//! The other side of these letters is in `membership`.
//!
//! | file | what happens there |
//! |---|---|
//! | `hold` | what an app's hook sees waits for its answer |
//! | `repeat` | a publish that is known by its key |
//! | `durable` | what is to be on disk waits for it |
//! | `retention` | what is retained, read by those who missed it |
//! | `entry` | who is let in: presence, caches, serials |
//! | `counts` | how many subscribe |
//! | `users` | who is signed in, and who watches |

pub mod counts;
pub mod durable;
pub mod entry;
pub mod hold;
pub mod repeat;
pub mod retention;
pub mod users;

use crate::base::limits;
use crate::base::metrics::Metric;
use crate::base::slab::Key;
use crate::base::socket::Socket;
use crate::hub::audience::Exception;
use crate::hub::channels::Membership;
use crate::hub::home::{Interest, Outgoing, Stream};
use crate::hub::letter::{Fate, Join, Letter, Outcome};
use crate::hub::variant::Variant;

use super::Engine;

/// Frames between two positions, as they were cut for the shard before.
type SharedFrames = (u64, u64, bytes::Bytes);

impl Engine {
    /// Reads a letter of another shard.
    pub fn read_letter(&mut self, from: u16, letter: Letter) {
        match letter {
            Letter::Publish(publication) => {
                let requester = publication.requester;
                let fate = self.take_in(&publication.event(), requester, from);
                self.mesh
                    .post_receipt(from, Letter::Published { requester, fate });
            }
            Letter::Published { requester, fate } => {
                self.mesh.receipt_came(from);
                self.has_relief = true;
                if let Some(requester) = requester.filter(|_| fate != Fate::Held) {
                    self.on_conclusion(requester, Outcome::of(fate));
                }
            }
            Letter::Concluded { requester, outcome } => self.on_conclusion(requester, outcome),
            Letter::Ask(ask) => self.on_ask(from, ask),
            Letter::Answer(answer) => {
                self.mesh.receipt_came(from);
                self.has_relief = true;
                self.on_answer(*answer);
            }
            Letter::Join(join) => self.on_join(from, &join),
            Letter::Joined {
                audience,
                home,
                position,
            } => self.on_joined(audience, home, position),
            Letter::Leave { home, variant } => self.on_leave(from, home, variant),
            Letter::Exit(exit) => self.on_exit(from, &exit),
            Letter::Except {
                audience,
                socket,
                start,
                end,
            } => self.on_except(audience, socket, start, end),
            Letter::Deliver {
                audience,
                position,
                serial,
                frames,
            } => self.on_deliver(audience, position, serial, &frames),
            Letter::Progress {
                home,
                variant,
                subscribers,
                position,
            } => self.on_progress(from, home, variant, subscribers, position),
            Letter::End { audience } => {
                if let Some(channel) = self.channels.resolve(audience) {
                    self.end_audience(channel);
                }
            }
            Letter::Congested {
                channel,
                is_congested,
            } => self.note_congestion(channel, is_congested),
            Letter::Transfer(transfer) => self.on_transfer(from, transfer),
            Letter::Room { socket, place } => self.on_room(socket, place),
            Letter::Stays { there } => self.on_stays(there),
        }
    }

    /// The channel's first subscriber in its variant on this shard, which is its home.
    pub(super) fn join_at_home(&mut self, channel: u32) {
        let record = &self.channels[channel];
        let variant = record.variant;
        let home_channel = match variant {
            Variant::Plain => channel,
            Variant::Deflated { .. } | Variant::Xhr | Variant::Sse => {
                let (app, name) = (record.app, record.name.clone());
                self.channels.find_or_insert(app, &name, Variant::Plain)
            }
        };
        let home = self.channels[home_channel].home.get_or_insert_default();
        let stream = home.stream(variant);
        stream.local = Some(channel);
        let head = stream.head;
        let home_key = self.channels.key_of(home_channel);
        self.channels.stand_at(channel, head);
        let record = &mut self.channels[channel];
        record.home_key = home_key;
        record.membership = Membership::Local;
    }

    /// The last subscriber of this shard, which is the channel's home, has left.
    pub(super) fn leave_home(&mut self, channel: u32) {
        let record = &mut self.channels[channel];
        record.membership = Membership::Absent;
        let (variant, home_channel) = (record.variant, record.home_key.index);
        let home = self.channels[home_channel].home.as_mut();
        let home = home.expect("whoever is local has a home");
        home.stream(variant).local = None;
        home.forget_unheard();
        self.channels.remove_if_unused(channel);
        self.review_congestion(home_channel);
    }

    fn on_join(&mut self, from: u16, join: &Join) {
        let channel = self
            .channels
            .find_or_insert(join.app, &join.name, Variant::Plain);
        let home = self.channels[channel].home.get_or_insert_default();
        let stream = home.stream(join.variant);
        stream.interests.push(Interest {
            audience: join.audience,
            posted: stream.head,
            swept: stream.head,
            subscribers: join.subscribers,
            shard: from,
            owes_joined: true,
            owes_end: false,
        });
        self.owe(channel);
        self.recounts.push(self.channels.key_of(channel));
    }

    fn on_leave(&mut self, from: u16, key: Key, variant: Variant) {
        let Some(channel) = self.channels.resolve(key) else {
            return;
        };
        let Some(home) = self.channels[channel].home.as_mut() else {
            return;
        };
        if let Some(stream) = home.stream_mut(variant) {
            stream.leave(from);
        }
        home.forget_unheard();
        self.owe(channel);
        self.recounts.push(key);
        self.review_congestion(channel);
    }

    fn on_progress(
        &mut self,
        from: u16,
        key: Key,
        variant: Variant,
        subscribers: u32,
        position: u64,
    ) {
        let Some(channel) = self.channels.resolve(key) else {
            return;
        };
        let home = self.channels[channel].home.as_mut();
        let Some(stream) = home.and_then(|home| home.stream_mut(variant)) else {
            return;
        };
        for interest in stream.interests.iter_mut().filter(|at| at.shard == from) {
            interest.swept = position;
            interest.subscribers = subscribers;
        }
        self.recounts.push(key);
        self.review_congestion(channel);
    }

    /// Confirmations, frames and answers for the shards that listen. True if nothing is left to post.
    pub(super) fn post_as_home(&mut self, channel: u32) -> bool {
        let home_key = self.channels.key_of(channel);
        let Some(mut home) = self.channels[channel].home.take() else {
            return true;
        };
        let mut is_done = true;
        let serial = home.serial();
        for stream in &mut home.streams {
            is_done &= self.post_stream(home_key, serial, stream);
        }
        home.forget_unheard();
        self.channels[channel].home = Some(home);
        is_done
    }

    fn post_stream(&mut self, home: Key, serial: Option<u64>, stream: &mut Stream) -> bool {
        let (mut is_done, mut shared) = (true, None);
        for interest in &mut stream.interests {
            is_done &= self.post_joined(home, interest)
                && self.post_end(interest)
                && match stream.outgoing.as_deref_mut() {
                    Some(outgoing) => {
                        let head = (stream.head, serial);
                        self.post_outgoing(head, interest, outgoing, &mut shared)
                    }
                    None => true,
                };
        }
        let Some(outgoing) = stream.outgoing.as_mut() else {
            return is_done;
        };
        let interests = &stream.interests;
        let listens = |shard| interests.iter().any(|interest| interest.shard == shard);
        for due in outgoing.answers.extract_if(.., |due| !listens(due.shard)) {
            self.mesh
                .post_receipt(due.shard, Letter::Answer(due.answer));
        }
        if is_done {
            // Whoever was excluded on a shard that does not listen cannot be subscribed there.
            outgoing.exceptions.clear();
            outgoing.frames.clear();
            if outgoing.frames.capacity() > limits::ARENA_BYTES || interests.is_empty() {
                stream.outgoing = None;
            }
        }
        is_done
    }

    fn post_joined(&mut self, home: Key, interest: &mut Interest) -> bool {
        if !interest.owes_joined {
            return true;
        }
        if !self.mesh.has_room(interest.shard) {
            return false;
        }
        interest.owes_joined = false;
        let joined = Letter::Joined {
            audience: interest.audience,
            home,
            position: interest.posted,
        };
        self.mesh.post(interest.shard, joined);
        true
    }

    fn post_end(&mut self, interest: &mut Interest) -> bool {
        if !interest.owes_end {
            return true;
        }
        if !self.mesh.has_room(interest.shard) {
            return false;
        }
        interest.owes_end = false;
        let audience = interest.audience;
        self.mesh.post(interest.shard, Letter::End { audience });
        true
    }

    /// Frames and answers for one shard, in the order in which they came about.
    fn post_outgoing(
        &mut self,
        head: (u64, Option<u64>),
        interest: &mut Interest,
        outgoing: &mut Outgoing,
        shared: &mut Option<SharedFrames>,
    ) -> bool {
        if !self.post_exceptions(interest, outgoing) {
            return false;
        }
        loop {
            let mut answers = outgoing.answers.iter();
            let due = answers.position(|due| due.shard == interest.shard);
            let end = due.map_or(head, |place| {
                let due = &outgoing.answers[place];
                (due.position, due.serial)
            });
            if interest.posted < end.0 && !self.post_frames(end, interest, outgoing, shared) {
                return false;
            }
            let Some(place) = due else { return true };
            let answer = outgoing.answers.remove(place).answer;
            self.mesh
                .post_receipt(interest.shard, Letter::Answer(answer));
        }
    }

    fn post_exceptions(&mut self, interest: &Interest, outgoing: &mut Outgoing) -> bool {
        let (shard, audience, mesh) = (interest.shard, interest.audience, &mut self.mesh);
        let mut is_done = true;
        outgoing
            .exceptions
            .retain(|&(of, generation, Exception { slot, start, end })| {
                if of != shard {
                    return true;
                }
                if !mesh.has_room(shard) {
                    is_done = false;
                    return true;
                }
                let socket = Socket { slot, generation };
                let except = Letter::Except {
                    audience,
                    socket,
                    start,
                    end,
                };
                mesh.post(shard, except);
                false
            });
        is_done
    }

    /// The frames that the shard has not been posted, up to the position where the given serial is
    /// the last.
    fn post_frames(
        &mut self,
        (end, serial): (u64, Option<u64>),
        interest: &mut Interest,
        outgoing: &Outgoing,
        shared: &mut Option<SharedFrames>,
    ) -> bool {
        if !self.mesh.has_room(interest.shard) {
            return false;
        }
        let position = interest.posted;
        let frames = match shared {
            Some((start, to, frames)) if (*start, *to) == (position, end) => frames.clone(),
            Some(_) | None => {
                let run = (position - outgoing.base) as usize..(end - outgoing.base) as usize;
                self.arena.extend_from_slice(&outgoing.frames[run]);
                let frames = self.arena.split().freeze();
                *shared = Some((position, end, frames.clone()));
                frames
            }
        };
        interest.posted = end;
        self.metrics.add(Metric::Letters, 1);
        let deliver = Letter::Deliver {
            audience: interest.audience,
            position,
            serial,
            frames,
        };
        self.mesh.post(interest.shard, deliver);
        true
    }

    pub(super) fn drop_home_if_unused(&mut self, channel: u32) {
        let record = &mut self.channels[channel];
        if record.home.as_ref().is_some_and(|home| home.is_unused()) {
            record.home = None;
        }
        self.channels.remove_if_unused(channel);
    }

    pub(super) fn note_congestion(&mut self, hash: u64, is_congested: bool) {
        if is_congested {
            self.congested.insert(hash);
        } else {
            self.congested.remove(&hash);
            self.has_relief = true;
        }
    }

    /// The engine is behind in a channel when a sweep somewhere is: its publishers are to wait.
    pub(super) fn review_congestion(&mut self, channel: u32) {
        let record = &self.channels[channel];
        let Some(home) = record.home.as_ref() else {
            return;
        };
        let behind = home.streams.iter().map(|stream| {
            let swept = stream.swept_elsewhere();
            let local = stream.local.map(|local| self.channels.floor(local));
            stream.head - local.unwrap_or(stream.head).min(swept)
        });
        let behind = behind.max().unwrap_or(0);
        let bound = self.options.log_bytes_max as u64;
        let is_congested = if home.is_congested {
            behind > bound / 2
        } else {
            behind > bound
        };
        if is_congested != home.is_congested {
            let hash = self.channels.hash(record.app, &record.name);
            let home = self.channels[channel].home.as_mut();
            home.expect("it was just seen").is_congested = is_congested;
            self.note_congestion(hash, is_congested);
            for shard in (0..self.mesh.shards() as u16).filter(|shard| *shard != self.index) {
                self.congestion_news
                    .retain(|(to, about, _)| (*to, *about) != (shard, hash));
                self.congestion_news.push((shard, hash, is_congested));
            }
        }
        self.drop_home_if_unused(channel);
    }

    pub(super) fn post_congestion(&mut self) {
        let (mesh, news) = (&mut self.mesh, &mut self.congestion_news);
        news.retain(|&(shard, channel, is_congested)| {
            let has_room = mesh.has_room(shard);
            if has_room {
                let congested = Letter::Congested {
                    channel,
                    is_congested,
                };
                mesh.post(shard, congested);
            }
            !has_room
        });
    }
}
