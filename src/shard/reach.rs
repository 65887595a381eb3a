//! How many subscribers have an event: what a publish is told that asks for it.
//!
//! ```text
//! audiences      the home, which has sequenced the event: who listens, and where its events end
//! ask_reach      whoever publishes: each of those shards is asked about its subscribers
//! begin_count    a shard that listens: the count waits
//! count_reached  after the turn's sends: the sweep has passed the position, or too long was waited
//! note_reached   whoever publishes: another part of the sum
//! ```
//!
//! A subscriber has the event when its cursor is past it and its socket has taken the rest of every
//! frame that it took in part. Nothing is noted while frames are sent: whoever asks looks at cursors,
//! some ten thousand in a turn. While a count waits or goes on nothing is under way between the two
//! shards, so it takes no credit from publishes.
//!
//! A count of very many takes some turns, so one who moves in the array meanwhile, for another has
//! left, may be missed or counted twice. One who came behind the event stands past it too.

use crate::base::limits;
use crate::base::socket::{Address, Socket};
use crate::hub::ask::{Ask, Audience, Content, Question, Reach};
use crate::hub::audience::Standing;
use crate::hub::channels::Membership;
use crate::hub::letter::{Outcome, Requester};
use crate::hub::variant::Variant;

use super::Engine;
use super::home::hold::Conclusion;

/// ```text
/// waits   -- the sweep has passed the position, or its time is over --> counts
/// counts  -- all were looked at --> told          counts -- its time is over --> told nothing
/// ```
#[derive(Debug)]
pub struct Count {
    requester: Address,
    reach: Reach,
    /// Until when it waits for the sweep.
    until_ms: u64,
    /// The next to be looked at.
    next: usize,
    subscribers: u32,
}

impl Engine {
    /// Where the events end of a channel whose home is here, for each who listens.
    pub(super) fn audiences(&self, app: u16, name: &str) -> Vec<Audience> {
        let channel = self.channels.find(app, name, Variant::Plain);
        let home = channel.and_then(|channel| self.channels[channel].home.as_ref());
        let mut audiences = Vec::new();
        for stream in home.iter().flat_map(|home| &home.streams) {
            let position = stream.head;
            audiences.extend(stream.local.map(|local| Audience {
                shard: self.index,
                key: self.channels.key_of(local),
                position,
            }));
            let elsewhere = stream.interests.iter();
            audiences.extend(elsewhere.map(|interest| Audience {
                shard: interest.shard,
                key: interest.audience,
                position,
            }));
        }
        audiences
    }

    /// Has every shard that listens count who has the event.
    pub(super) fn ask_reach(
        &mut self,
        slot: u32,
        app: u16,
        channel: &str,
        excluded: Option<Address>,
        place: u16,
        audiences: &[Audience],
    ) {
        for audience in audiences {
            let excluded = excluded.filter(|address| address.shard == audience.shard);
            let reach = Reach {
                place,
                audience: audience.key,
                position: audience.position,
                excluded: excluded.map(|address| address.socket),
            };
            let ask = Ask {
                requester: self.connections.socket(slot),
                app,
                channel: channel.into(),
                question: Question::Reached(reach),
            };
            self.ask_shard(audience.shard, ask);
        }
    }

    pub(super) fn begin_count(&mut self, requester: Address, reach: Reach) -> Content {
        let count = Count {
            requester,
            reach,
            until_ms: self.now_ms + limits::REACH_WAIT_MS,
            next: 0,
            subscribers: 0,
        };
        match self.reach_counts.len() < limits::REACH_COUNTS_MAX {
            true => self.reach_counts.push(count),
            false => self.conclude_count(&count, None),
        }
        Content::Waits
    }

    /// Goes on with the counts, after the turn's sends are settled: who is past a position then has
    /// what is before it.
    pub(super) fn count_reached(&mut self) {
        if self.reach_counts.is_empty() {
            return;
        }
        let mut looks = limits::REACH_LOOKS_PER_TURN;
        let mut counts = std::mem::take(&mut self.reach_counts);
        counts.retain_mut(|count| {
            let is_over = self.count_on(count, &mut looks);
            let is_late = self.now_ms >= count.until_ms + limits::REACH_COUNT_MS;
            if is_over {
                self.conclude_count(count, Some(count.subscribers));
            } else if is_late {
                self.conclude_count(count, None);
            }
            !is_over && !is_late
        });
        self.reach_counts = counts;
    }

    /// True if all were looked at.
    fn count_on(&self, count: &mut Count, looks: &mut usize) -> bool {
        let Some(channel) = self.channels.resolve(count.reach.audience) else {
            return true;
        };
        let record = &self.channels[channel];
        match record.membership {
            Membership::Joined | Membership::Local => {}
            // Those who were there have left.
            Membership::Absent
            | Membership::JoinDue
            | Membership::Joining
            | Membership::LeaveDue => return true,
        }
        let Reach {
            position, excluded, ..
        } = count.reach;
        if self.channels.floor(channel) < position && self.now_ms < count.until_ms {
            return false;
        }
        let excluded = excluded.filter(|socket| self.connections.is_current(*socket));
        let excluded = excluded.map(|Socket { slot, .. }| slot);
        while let Some(subscriber) = record.subscribers.get(count.next) {
            if *looks == 0 {
                return false;
            }
            *looks -= 1;
            count.next += 1;
            let slot = subscriber.slot;
            if subscriber.standing(position) != Standing::AtHead || excluded == Some(slot) {
                continue;
            }
            // Of most the record, which lies in no cache, need not be read.
            let is_counted = self.connections.direct.contains(slot) || {
                *looks = looks.saturating_sub(limits::REACH_LOOKS_PER_RECORD);
                self.has_sent_all(slot, channel)
            };
            count.subscribers += u32::from(is_counted);
        }
        true
    }

    /// Whether the socket of one at the head has taken the rest of a frame that it took in part, and
    /// the retained events that go before live ones.
    fn has_sent_all(&self, slot: u32, channel: u32) -> bool {
        let outbox = self.connections[slot].outbox.as_ref();
        outbox.is_none_or(|outbox| outbox.sent == outbox.bytes.len())
            && self.connections.backlog(slot, channel).is_none()
    }

    fn conclude_count(&mut self, count: &Count, subscribers: Option<u32>) {
        let Address { shard, socket } = count.requester;
        let place = count.reach.place;
        self.conclusions.push_back(Conclusion {
            shard,
            requester: Requester { socket, place },
            outcome: Outcome::Reached(subscribers),
        });
    }
}
