//! The channels of one shard: those that have subscribers here, and those whose home is here.
//!
//! A quiet channel is a record of some 80 bytes and its name. What a channel needs only while its
//! frames move, the log and the sweep, is taken from a pool when its head moves and goes back when
//! everybody has everything.
//!
//! A channel has a record for each variant that it has subscribers in here. What the home of a channel
//! keeps hangs on the record of its plain variant, whether or not that has subscribers.
//!
//! Invariants:
//! - A record exists exactly as long as somebody needs it: a subscriber, another shard, a sweep, or
//!   a letter that is still to be posted.
//! - `head` is the position up to which this shard has the channel's frames; with a sweep it is
//!   the head of the sweep's log.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::audience::{self, Moved, Subscriber, Subscribers, Sweep};
use super::home::Home;
use super::users;
use super::variant::Variant;
use crate::base::limits;
use crate::base::slab::{Key, Slab};
use crate::wire::websocket::Inflater;

/// One channel in one variant, as its shard knows it.
#[derive(Debug)]
pub struct Channel {
    pub name: Box<str>,
    pub subscribers: Subscribers,
    pub head: u64,
    /// The last serial that was given before the head when the last log was given back; 0 on a
    /// channel without serials.
    serial: u64,
    /// How far the home was told that this shard's sweep has come.
    pub reported: u64,
    /// How many subscribers the home was told of.
    pub subscribers_reported: u32,
    /// If this shard is the channel's home and there is something to keep of it.
    pub home: Option<Box<Home>>,
    /// The channel at its home, once joined there.
    pub home_key: Key,
    sweep: Option<Box<ActiveSweep>>,
    pub app: u16,
    pub variant: Variant,
    pub membership: Membership,
    /// Whether the channel stands in the queue of those with letters to post.
    pub is_owing: bool,
}

/// Whether this shard gets the frames of a channel.
///
/// ```text
/// Absent   -- first subscriber, home elsewhere --> JoinDue
/// Absent   -- first subscriber, home here --> Local
/// JoinDue  -- posted --> Joining            JoinDue  -- last subscriber left --> Absent
/// Joining  -- Joined arrived --> Joined, or LeaveDue if nobody is left
/// Joined   -- last subscriber left --> LeaveDue
/// Local    -- last subscriber left --> Absent
/// LeaveDue -- posted --> Absent             LeaveDue -- new subscriber --> Joined
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    Absent,
    JoinDue,
    Joining,
    Joined,
    LeaveDue,
    /// It is the home itself that appends the frames.
    Local,
}

impl Membership {
    /// Whether what the home posts now is for those who are subscribed now. What comes otherwise was
    /// on its way when the last of those before them left.
    pub fn takes_frames(self) -> bool {
        match self {
            Membership::Joined | Membership::LeaveDue => true,
            Membership::Absent | Membership::JoinDue | Membership::Joining => false,
            Membership::Local => unreachable!("a home posts frames to other shards"),
        }
    }
}

/// Where a channel stands, by name. The tag stands in for the name when the table grows, so that
/// growing touches no names.
#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: u32,
    channel: u32,
}

/// The channels of a shard, by number and by name.
#[derive(Debug)]
pub struct Channels {
    hasher: FixedState,
    by_name: HashTable<Entry>,
    records: Slab<Channel>,
    /// Sweeps, with the memory of their logs, for the next channels that move.
    #[expect(
        clippy::vec_box,
        reason = "a record holds the box, and it moves there and back"
    )]
    spare: Vec<Box<ActiveSweep>>,
    /// Channels whose sweep is not done, in the order of their turns.
    moving: VecDeque<u32>,
    /// Channels whose sweep is done but for subscribers that were held back.
    held: Vec<u32>,
    log_bytes: usize,
}

#[derive(Debug, Default)]
struct ActiveSweep {
    sweep: Sweep,
    is_moving: bool,
    is_held: bool,
}

impl Channels {
    /// All shards of a process are made with one seed, so that they agree on every channel's home.
    pub fn new(seed: u64) -> Channels {
        Channels {
            hasher: FixedState::with_seed(seed),
            by_name: HashTable::new(),
            records: Slab::new(),
            spare: Vec::new(),
            moving: VecDeque::new(),
            held: Vec::new(),
            log_bytes: 0,
        }
    }

    /// A user's watchers have the hash of the user's own channel, so that they share its home.
    pub fn hash(&self, app: u16, name: &str) -> u64 {
        match users::watched_id(name) {
            Some(id) => self.hasher.hash_one((app, &*users::own_channel(id))),
            None => self.hasher.hash_one((app, name)),
        }
    }

    /// A number for the serials of a channel, another for each `number`.
    pub fn epoch(&self, app: u16, name: &str, number: u64) -> u64 {
        self.hasher.hash_one((app, name, number))
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of frames that the logs of this shard hold.
    pub fn log_bytes(&self) -> usize {
        self.log_bytes
    }

    pub fn find(&self, app: u16, name: &str, variant: Variant) -> Option<u32> {
        let tag = tag(self.hash(app, name));
        let records = &self.records;
        let is_it = |entry: &Entry| {
            let channel = &records[entry.channel];
            entry.tag == tag
                && (channel.app, channel.variant) == (app, variant)
                && *channel.name == *name
        };
        self.by_name
            .find(spread(tag), is_it)
            .map(|entry| entry.channel)
    }

    pub fn find_or_insert(&mut self, app: u16, name: &str, variant: Variant) -> u32 {
        if let Some(channel) = self.find(app, name, variant) {
            return channel;
        }
        let channel = self.records.insert(Channel {
            name: name.into(),
            subscribers: Subscribers::new(),
            head: 0,
            serial: 0,
            reported: 0,
            subscribers_reported: 0,
            home: None,
            home_key: Key {
                index: 0,
                generation: 0,
            },
            sweep: None,
            app,
            variant,
            membership: Membership::Absent,
            is_owing: false,
        });
        let tag = tag(self.hash(app, name));
        let entry = Entry {
            tag,
            channel: channel.index,
        };
        self.by_name
            .insert_unique(spread(tag), entry, |entry| spread(entry.tag));
        channel.index
    }

    /// Forgets the channel if nobody needs it.
    pub fn remove_if_unused(&mut self, channel: u32) {
        let record = &self.records[channel];
        let is_used = !record.subscribers.is_empty()
            || record.home.is_some()
            || record.membership != Membership::Absent
            || record.sweep.is_some()
            || record.is_owing;
        if is_used {
            return;
        }
        let tag = tag(self.hash(record.app, &record.name));
        let entry = self
            .by_name
            .find_entry(spread(tag), |entry| entry.channel == channel);
        entry.expect("every record is in the table").remove();
        self.records.remove(self.records.key_of(channel));
        if self.by_name.len() * 8 < self.by_name.capacity() {
            self.by_name
                .shrink_to(self.by_name.len() * 2, |entry| spread(entry.tag));
        }
    }

    /// The records with numbers from `from` on, of `count` places, and the number behind them if
    /// there may be more.
    pub fn page(
        &self,
        from: u32,
        count: u32,
    ) -> (impl Iterator<Item = (u32, &Channel)>, Option<u32>) {
        let end = self.records.end().min(from.saturating_add(count));
        let live = (from..end).filter(|index| self.records.is_live(*index));
        let records = live.map(|index| (index, &self.records[index]));
        (records, (end < self.records.end()).then_some(end))
    }

    pub fn key_of(&self, channel: u32) -> Key {
        self.records.key_of(channel)
    }

    /// The channel that a letter names, unless it is gone.
    pub fn resolve(&self, key: Key) -> Option<u32> {
        self.records.get(key).map(|_| key.index)
    }

    /// The first subscribers come, and get the frames from `position` on. A sweep that those before
    /// them left behind is over.
    pub fn stand_at(&mut self, channel: u32, position: u64) {
        let record = &mut self.records[channel];
        (record.head, record.reported) = (position, position);
        if let Some(active) = record.sweep.as_mut() {
            self.log_bytes -= active.sweep.log.length();
            active.sweep.restart(position);
        }
    }

    /// Appends frames to the channel's log and begins or prolongs its sweep. `serial` is the last one
    /// that was given up to the last of them, where events have serials.
    pub fn append(
        &mut self,
        channel: u32,
        frames: &[u8],
        lengths: impl Iterator<Item = usize>,
        serial: Option<u64>,
        now_ms: u64,
    ) {
        let record = &mut self.records[channel];
        let active = record.sweep.get_or_insert_with(|| {
            let mut active = self.spare.pop().unwrap_or_default();
            active.sweep.restart(record.head);
            active
        });
        let before = record.head;
        let log = &mut active.sweep.log;
        log.append(frames, lengths, now_ms);
        log.reach(serial);
        record.head = log.head();
        self.log_bytes += frames.len();
        active.sweep.head_moved(record.subscribers.len(), before);
        if !active.is_moving {
            active.is_moving = true;
            self.moving.push_back(channel);
        }
    }

    /// Evicts the frames beyond so many bytes that no subscriber held back can wait for any longer.
    /// Returns how many of those were parked.
    pub fn evict_beyond(
        &mut self,
        channel: u32,
        log_bytes_max: usize,
        inflater: &mut Inflater,
    ) -> u64 {
        let record = &mut self.records[channel];
        let Some(active) = record.sweep.as_mut() else {
            return 0;
        };
        let held = active.sweep.log.length();
        if held <= log_bytes_max {
            return 0;
        }
        let position = record.head - log_bytes_max as u64;
        let parked = active
            .sweep
            .evict(position, &mut record.subscribers, inflater);
        self.log_bytes -= held - active.sweep.log.length();
        parked
    }

    /// The channel's sweep and its subscribers, while there is something to read in its log.
    pub fn sweep_mut(&mut self, channel: u32) -> Option<(&mut Sweep, &mut Subscribers)> {
        let record = &mut self.records[channel];
        let active = record.sweep.as_mut()?;
        Some((&mut active.sweep, &mut record.subscribers))
    }

    pub fn sweep(&self, channel: u32) -> Option<&Sweep> {
        self.records[channel]
            .sweep
            .as_ref()
            .map(|active| &active.sweep)
    }

    /// The last serial that was given before the head, as far as is known here; 0 on a channel without
    /// serials.
    pub fn serial(&self, channel: u32) -> u64 {
        let sweep = self.sweep(channel);
        let serial = sweep.and_then(|sweep| sweep.log.serial());
        serial.unwrap_or(self.records[channel].serial)
    }

    /// The position up to which everyone here who takes bytes has the channel's frames.
    pub fn floor(&self, channel: u32) -> u64 {
        self.sweep(channel)
            .map_or(self.records[channel].head, Sweep::floor)
    }

    /// The channel whose turn it is to be swept.
    pub fn next_moving(&mut self) -> Option<u32> {
        let channel = self.moving.pop_front()?;
        let active = self.records[channel].sweep.as_mut();
        active.expect("a moving channel has a sweep").is_moving = false;
        Some(channel)
    }

    /// The channel's sweep is not done: its turn comes again.
    pub fn requeue(&mut self, channel: u32) {
        let active = self.records[channel]
            .sweep
            .as_mut()
            .expect("it was just swept");
        if !active.is_moving {
            active.is_moving = true;
            self.moving.push_back(channel);
        }
    }

    /// Adds the channels in which anybody can be behind its log: those whose sweep is not done, and
    /// those with subscribers that were held back.
    pub fn list_unsettled(&self, channels: &mut Vec<u32>) {
        channels.extend(&self.moving);
        channels.extend(self.held.iter().filter(|channel| {
            let active = self.records[**channel].sweep.as_ref();
            active.is_some_and(|active| !active.is_moving)
        }));
    }

    /// Gives back the memory of queues beyond so many channels, as far as they are not full.
    pub fn shrink_queues(&mut self, channels: usize) {
        self.moving.shrink_to(channels);
        self.held.shrink_to(channels);
    }

    pub fn is_moving(&self) -> bool {
        !self.moving.is_empty()
    }

    /// After a sweep: frees the frames that everyone has, and the sweep itself if that is all of
    /// them. Adds to `passed` the slots of exceptions that are over, one for each.
    pub fn settle(&mut self, channel: u32, passed: &mut Vec<u32>) {
        let record = &mut self.records[channel];
        let Some(active) = record.sweep.as_mut() else {
            return;
        };
        let before = active.sweep.log.length();
        let floor = active.sweep.floor_of_all();
        active.sweep.log.trim(floor);
        active.sweep.forget_passed_exceptions(passed);
        self.log_bytes -= before - active.sweep.log.length();
        if !active.sweep.is_done() || active.is_moving {
            return;
        }
        if floor < record.head {
            if !active.is_held {
                active.is_held = true;
                self.held.push(channel);
            }
        } else if !active.is_held {
            let spent = record.sweep.take().expect("it was just read");
            record.serial = spent.sweep.log.serial().unwrap_or(record.serial);
            if self.spare.len() < limits::SPARE_LOGS_MAX
                && spent.sweep.log.capacity() <= limits::SPARE_LOG_BYTES_MAX
            {
                self.spare.push(spent);
            }
        }
    }

    /// Looks through the channels with subscribers that were held back: forgets frames that came
    /// before `before_ms` and frames that nobody needs any more. Returns how many subscribers
    /// were parked.
    pub fn review_held(
        &mut self,
        before_ms: u64,
        passed: &mut Vec<u32>,
        reviewed: &mut Vec<u32>,
        inflater: &mut Inflater,
    ) -> u64 {
        let mut parked = 0;
        reviewed.append(&mut self.held);
        for &channel in reviewed.iter() {
            let record = &mut self.records[channel];
            let active = record.sweep.as_mut().expect("a held channel has a sweep");
            active.is_held = false;
            let before = active.sweep.log.length();
            let position = active.sweep.log.older_than(before_ms);
            let subscribers = &mut record.subscribers;
            parked += active.sweep.evict(position, subscribers, inflater);
            self.log_bytes -= before - active.sweep.log.length();
            active.sweep.audit(&record.subscribers);
            self.settle(channel, passed);
        }
        parked
    }
}

impl Index<u32> for Channels {
    type Output = Channel;

    fn index(&self, channel: u32) -> &Channel {
        &self.records[channel]
    }
}

impl IndexMut<u32> for Channels {
    fn index_mut(&mut self, channel: u32) -> &mut Channel {
        &mut self.records[channel]
    }
}

/// The part of a hash that is kept in the table.
fn tag(hash: u64) -> u32 {
    hash as u32
}

/// Spreads a tag over the bits that the table looks at (Fibonacci hashing).
fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Channels {
    /// Adds a subscriber, and returns its place.
    pub fn join(&mut self, channel: u32, subscriber: Subscriber) -> u32 {
        let record = &mut self.records[channel];
        let sweep = record.sweep.as_mut().map(|active| &mut active.sweep);
        audience::join(&mut record.subscribers, sweep, subscriber)
    }

    /// Takes a subscriber out, and returns who moved where.
    pub fn leave(&mut self, channel: u32, index: u32) -> SmallVec<[Moved; 2]> {
        let record = &mut self.records[channel];
        let sweep = record.sweep.as_mut().map(|active| &mut active.sweep);
        audience::leave(&mut record.subscribers, sweep, index)
    }

    pub fn is_live(&self, channel: u32) -> bool {
        self.records.is_live(channel)
    }
}
