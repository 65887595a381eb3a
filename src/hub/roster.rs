//! Who is in a presence channel, as its home knows it.
//!
//! A member is a user; a user may be there with any number of connections, on any shards, and the
//! others hear of the first that comes and of the last that goes.
//!
//! Invariant: every connection in `connections` is counted in exactly one member, and a member is
//! there exactly as long as it has connections.

use std::collections::{BTreeMap, HashMap};

use crate::base::socket::Address;
use crate::wire::pusher::delivery::Position;
use crate::wire::pusher::member::{self, MemberText};

#[derive(Debug, Default)]
pub struct Roster {
    /// By [`MemberText::id_escaped`].
    members: BTreeMap<Box<str>, Present>,
    connections: HashMap<Address, Box<str>>,
    /// How often a member came or went.
    changes: u64,
}

#[derive(Debug)]
struct Present {
    text: MemberText,
    connections: u32,
}

/// What a connection's coming means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Its user was not there: the others are to be told.
    First,
    Again,
    /// There are as many members as there may be, and the connection is not one of them.
    Full,
}

impl Roster {
    /// A connection comes as this member, unless there are `members_max` others.
    pub fn enter(&mut self, address: Address, member: MemberText, members_max: usize) -> Entry {
        let id: Box<str> = member.id_escaped().into();
        let is_full = self.members.len() >= members_max;
        let entry = match self.members.get_mut(&id) {
            Some(present) => {
                present.connections += 1;
                Entry::Again
            }
            None if is_full => return Entry::Full,
            None => {
                let present = Present {
                    text: member,
                    connections: 1,
                };
                self.members.insert(id.clone(), present);
                self.changes += 1;
                Entry::First
            }
        };
        let before = self.connections.insert(address, id);
        assert!(
            before.is_none(),
            "a connection leaves before it comes again"
        );
        entry
    }

    /// A connection goes. Returns its member if that was its user's last one.
    pub fn exit(&mut self, address: Address) -> Option<MemberText> {
        let id = self.connections.remove(&address)?;
        let present = self.members.get_mut(&id);
        let present = present.expect("a connection's member is there");
        present.connections -= 1;
        if present.connections > 0 {
            return None;
        }
        self.changes += 1;
        self.members.remove(&id).map(|present| present.text)
    }

    /// How often a member came or went: whoever was told the roster at this number knows it.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The member that a connection came as.
    pub fn member_of(&self, address: Address) -> Option<&MemberText> {
        let id = self.connections.get(&address)?;
        self.members.get(id).map(|present| &present.text)
    }

    /// How many users are there.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All members, by id.
    pub fn members(&self) -> impl Iterator<Item = &MemberText> + Clone {
        self.members.values().map(|present| &present.text)
    }

    /// Appends the acknowledgement of a subscription.
    pub fn acknowledge(&self, channel: &str, position: Option<&Position>, text: &mut Vec<u8>) {
        let runs = self
            .members()
            .map(|member| (member.id_escaped(), member.hash_entry_escaped()));
        member::encode_presence_succeeded(text, channel, self.len(), runs, position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::socket::Socket;
    use crate::wire::pusher::member::{Member, MemberLimits};
    use proptest::prelude::*;

    const LIMITS: MemberLimits = MemberLimits {
        user_bytes_max: 100,
        id_characters_max: 10,
    };

    fn address(shard: u16, slot: u32) -> Address {
        let socket = Socket {
            slot,
            generation: 0,
        };
        Address { shard, socket }
    }

    fn user(id: u8) -> MemberText {
        let data = format!(r#"{{"user_id":{id}}}"#);
        MemberText::new(&Member::parse(&data, &LIMITS).unwrap())
    }

    #[test]
    fn beyond_the_limit_only_those_who_are_there_come_again() {
        let mut roster = Roster::default();
        assert_eq!(roster.enter(address(0, 1), user(1), 2), Entry::First);
        assert_eq!(roster.enter(address(0, 2), user(2), 2), Entry::First);
        assert_eq!(roster.enter(address(0, 3), user(3), 2), Entry::Full);
        assert_eq!(roster.enter(address(0, 4), user(1), 2), Entry::Again);
        assert_eq!(roster.exit(address(0, 3)), None);
        assert_eq!(roster.len(), 2);
    }

    proptest! {
        /// Against a list of who is connected as whom.
        #[test]
        fn the_others_hear_of_the_first_and_of_the_last(
            steps in prop::collection::vec((0u16..3, 0u32..4, 0u8..5, any::<bool>()), 0..200),
        ) {
            let mut roster = Roster::default();
            let mut naive: Vec<(Address, u8)> = Vec::new();
            for (shard, slot, id, comes) in steps {
                let address = address(shard, slot);
                let held = naive.iter().position(|(at, _)| *at == address);
                match (comes, held) {
                    (true, None) => {
                        let was_there = naive.iter().any(|(_, other)| *other == id);
                        let entry = if was_there { Entry::Again } else { Entry::First };
                        prop_assert_eq!(roster.enter(address, user(id), 10), entry);
                        naive.push((address, id));
                    }
                    (false, Some(place)) => {
                        let (_, id) = naive.remove(place);
                        let is_last = naive.iter().all(|(_, other)| *other != id);
                        prop_assert_eq!(roster.exit(address), is_last.then(|| user(id)));
                    }
                    (true, Some(_)) => {}
                    (false, None) => prop_assert_eq!(roster.exit(address), None),
                }
                let mut ids: Vec<u8> = naive.iter().map(|(_, id)| *id).collect();
                ids.sort_unstable();
                ids.dedup();
                let ids: Vec<MemberText> = ids.into_iter().map(user).collect();
                prop_assert_eq!(roster.members().cloned().collect::<Vec<_>>(), ids);
            }
        }
    }
}
