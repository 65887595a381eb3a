//! A channel at its home: the one place that puts its events in order.
//!
//! The home knows which shards have subscribers, gives each event its position, and keeps the
//! encoded frames only until they are posted to those shards. It counts how far each shard's
//! sweep has come; when one stays too far behind, the channel is congested and publishers wait.

use smallvec::SmallVec;

use super::audience::Exception;
use crate::base::slab::Key;

/// What a home keeps of a channel in which somebody is interested.
#[derive(Debug, Default)]
pub struct Home {
    /// The position of the next event.
    pub head: u64,
    /// Shards with subscribers, but for this one.
    pub interests: SmallVec<[Interest; 1]>,
    /// Frames on their way to other shards.
    pub outgoing: Option<Box<Outgoing>>,
    /// This shard has subscribers.
    pub is_local: bool,
    pub is_congested: bool,
}

/// Another shard's interest.
#[derive(Clone, Copy, Debug)]
pub struct Interest {
    /// The channel on that shard.
    pub audience: Key,
    /// The position up to which frames were posted.
    pub posted: u64,
    /// The position up to which that shard said its sweep has come.
    pub swept: u64,
    pub shard: u16,
    /// The shard does not know yet that it has joined.
    pub owes_joined: bool,
}

/// Frames that at least one shard has not been posted yet.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// The position of the first byte.
    pub base: u64,
    pub frames: Vec<u8>,
    /// What single connections on other shards do not get.
    pub exceptions: Vec<(u16, u32, Exception)>,
}

impl Home {
    pub fn is_unused(&self) -> bool {
        self.interests.is_empty() && !self.is_local && !self.is_congested
    }

    /// The position up to which every other shard's sweep has come.
    pub fn swept_elsewhere(&self) -> u64 {
        self.interests
            .iter()
            .map(|interest| interest.swept)
            .min()
            .unwrap_or(self.head)
    }

    /// Keeps a frame that other shards are to be posted.
    pub fn keep_outgoing(&mut self, frame: &[u8], start: u64) {
        let outgoing = self.outgoing.get_or_insert_default();
        if outgoing.frames.is_empty() {
            outgoing.base = start;
        }
        outgoing.frames.extend_from_slice(frame);
    }
}
