//! How far clients of one channel came: how many clients got how many messages.
//!
//! A sum over clients hides the message that one lacks behind one that another got twice. Here each client is held
//! against what it should have, and what several units or threads say still adds up. While nothing is wrong, all
//! clients of a channel are one entry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Clients by the messages that they got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reached(BTreeMap<u64, u64>);

impl Reached {
    /// A client got so many messages. What a client that decodes got twice counts once: that is told by itself.
    pub fn note(&mut self, messages: u64) {
        *self.0.entry(messages).or_insert(0) += 1;
    }

    /// What clients lack, all together, if each of them should have so many messages.
    pub fn lacking(&self, messages: u64) -> u64 {
        let behind = self.0.range(..messages);
        behind
            .map(|(got, clients)| (messages - got) * clients)
            .sum()
    }

    /// What clients have above that, all together.
    pub fn surplus(&self, messages: u64) -> u64 {
        let ahead = self.0.range(messages..);
        ahead.map(|(got, clients)| (got - messages) * clients).sum()
    }

    /// Takes in other clients.
    pub fn add(&mut self, other: &Reached) {
        for (messages, clients) in &other.0 {
            *self.0.entry(*messages).or_insert(0) += clients;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reached(got: &[u64]) -> Reached {
        let mut reached = Reached::default();
        got.iter().for_each(|messages| reached.note(*messages));
        reached
    }

    #[test]
    fn what_one_got_twice_is_nothing_to_another_that_lacks_it() {
        let reached = reached(&[10, 9, 11, 10]);
        assert_eq!((reached.lacking(10), reached.surplus(10)), (1, 1));
        assert_eq!((reached.lacking(0), reached.surplus(20)), (0, 0));
    }

    #[test]
    fn it_crosses_between_processes() {
        let reached = reached(&[10, 9, 9]);
        let text = serde_json::to_string(&reached).unwrap();
        assert_eq!(text, r#"{"9":2,"10":1}"#);
        assert_eq!(serde_json::from_str::<Reached>(&text).unwrap(), reached);
    }

    proptest! {
        #[test]
        fn parts_add_up_to_a_look_at_each_client(
            one in prop::collection::vec(0_u64..9, 0..9),
            another in prop::collection::vec(0_u64..9, 0..9),
            due in 0_u64..9,
        ) {
            let mut sum = reached(&one);
            sum.add(&reached(&another));
            let all = || one.iter().chain(&another);
            let lacking: u64 = all().map(|got| due.saturating_sub(*got)).sum();
            let surplus: u64 = all().map(|got| got.saturating_sub(due)).sum();
            prop_assert_eq!((sum.lacking(due), sum.surplus(due)), (lacking, surplus));
        }
    }
}
