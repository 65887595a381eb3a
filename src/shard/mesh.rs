//! One shard's lanes to all the others, and the doorbells to wake them with.

use std::sync::Arc;

use crate::base::lane::{self, Receiver, Sender};
use crate::base::limits;
use crate::base::sleep::Doorbell;
use crate::hub::letter::Letter;

/// A shard's end of every lane that it has a part in.
pub struct Mesh {
    index: usize,
    peers: Vec<Option<Peer>>,
    doorbells: Arc<[Doorbell]>,
}

struct Peer {
    sender: Sender<Letter>,
    receiver: Receiver<Letter>,
    /// Publishes posted whose receipt has not come back.
    under_way: u32,
    was_posted_to: bool,
}

/// The meshes of `shards` shards, one for each.
pub fn meshes(shards: usize) -> Vec<Mesh> {
    let doorbells: Arc<[Doorbell]> = (0..shards).map(|_| Doorbell::default()).collect();
    let mut senders: Vec<Vec<_>> = (0..shards)
        .map(|_| (0..shards).map(|_| None).collect())
        .collect();
    let mut receivers: Vec<Vec<_>> = (0..shards)
        .map(|_| (0..shards).map(|_| None).collect())
        .collect();
    for from in 0..shards {
        for to in (0..shards).filter(|to| *to != from) {
            let (sender, receiver) = lane::lane(limits::LANE_LETTERS);
            senders[from][to] = Some(sender);
            receivers[to][from] = Some(receiver);
        }
    }
    let ends = senders.into_iter().zip(receivers).enumerate();
    ends.map(|(index, (senders, receivers))| {
        let peers = senders
            .into_iter()
            .zip(receivers)
            .map(|(sender, receiver)| {
                Some(Peer {
                    sender: sender?,
                    receiver: receiver?,
                    under_way: 0,
                    was_posted_to: false,
                })
            });
        Mesh {
            index,
            peers: peers.collect(),
            doorbells: doorbells.clone(),
        }
    })
    .collect()
}

impl Mesh {
    pub fn shards(&self) -> usize {
        self.peers.len()
    }

    fn peer(&mut self, shard: u16) -> &mut Peer {
        self.peers[usize::from(shard)]
            .as_mut()
            .expect("a shard posts no letters to itself")
    }

    /// Whether so many publishes may be posted to that home now.
    pub fn has_credit(&mut self, shard: u16, publishes: u32) -> bool {
        self.peer(shard).under_way + publishes <= limits::PUBLISHES_UNDER_WAY_MAX
    }

    /// Posts a publish, for which there is credit.
    pub fn post_publish(&mut self, shard: u16, letter: Letter) {
        let peer = self.peer(shard);
        peer.under_way += 1;
        peer.was_posted_to = true;
        assert!(
            peer.sender.push(letter).is_ok(),
            "publishes with credit have room"
        );
    }

    /// Posts the receipt of a publish, for which its credit keeps room.
    pub fn post_receipt(&mut self, shard: u16, letter: Letter) {
        let peer = self.peer(shard);
        peer.was_posted_to = true;
        assert!(
            peer.sender.push(letter).is_ok(),
            "every publish under way has room for its receipt"
        );
    }

    /// A receipt came: one more publish may be posted.
    pub fn receipt_came(&mut self, shard: u16) {
        self.peer(shard).under_way -= 1;
    }

    /// Whether a letter that can be offered again has room now.
    pub fn has_room(&mut self, shard: u16) -> bool {
        self.peer(shard).sender.has_room(limits::LANE_RESERVE + 1)
    }

    /// Posts a letter after [`Mesh::has_room`] said that there is room.
    pub fn post(&mut self, shard: u16, letter: Letter) {
        let peer = self.peer(shard);
        peer.was_posted_to = true;
        assert!(peer.sender.push(letter).is_ok(), "the lane has room");
    }

    /// The next letter from that shard.
    pub fn pop(&mut self, shard: u16) -> Option<Letter> {
        self.peers[usize::from(shard)].as_mut()?.receiver.pop()
    }

    /// Shards that sleep with letters of this turn before them, each named once for every sleep.
    pub fn take_sleepers(&mut self, sleepers: &mut Vec<u16>) {
        for (shard, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            if std::mem::take(&mut peer.was_posted_to) && self.doorbells[shard].ring() {
                sleepers.push(shard as u16);
            }
        }
    }

    /// Whether there is a letter to read.
    pub fn has_letters(&mut self) -> bool {
        let mut peers = self.peers.iter_mut().flatten();
        peers.any(|peer| !peer.receiver.is_empty())
    }

    /// Announces sleep. False, and awake again, if a letter came before.
    pub fn try_sleep(&mut self) -> bool {
        self.doorbells[self.index].announce();
        let is_quiet = !self.has_letters();
        if !is_quiet {
            self.doorbells[self.index].withdraw();
        }
        is_quiet
    }

    pub fn wake_up(&mut self) {
        self.doorbells[self.index].withdraw();
    }
}
