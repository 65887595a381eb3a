//! Whether the events of each channel follow each other, as they are read from a journal.
//!
//! ```text
//! unknown       -- any --> known
//! known         -- the next serial --> known              Follows
//! known         -- another epoch --> known                Begins
//! known         -- other serial, a repair since --> known Begins
//! known         -- other serial, no repair since          Jumps: this is damage
//! ```
//!
//! After a repair nobody knows what a channel lost until its next event says it: one that has none
//! may have lost its newest, so its serials must not be given again, and it begins anew.

use super::names::Names;
use super::record::Entry;

/// What is known of every channel.
#[derive(Debug, Default)]
pub struct Continuity {
    names: Names,
    channels: Vec<Last>,
    repairs: u32,
}

/// The last event of a channel.
#[derive(Clone, Copy, Debug)]
struct Last {
    epoch: u64,
    serial: u64,
    /// Repairs that were seen before it.
    repairs: u32,
}

/// How an event stands to the one before it in its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Follows,
    /// Nothing that came before belongs to the same run.
    Begins,
    Jumps {
        expected: u64,
    },
}

impl Continuity {
    /// The channel's number and the event's place in it.
    pub fn see(&mut self, entry: &Entry<'_>) -> (u32, Order) {
        let number = self.names.number(entry.app_id, entry.channel);
        let last = Last {
            epoch: entry.epoch,
            serial: entry.serial,
            repairs: self.repairs,
        };
        let Some(before) = self.channels.get_mut(number as usize) else {
            self.channels.push(last);
            return (number, Order::Begins);
        };
        let before = std::mem::replace(before, last);
        let expected = before.serial.saturating_add(1);
        let order = match before.epoch == entry.epoch {
            true if entry.serial == expected => Order::Follows,
            true if before.repairs == self.repairs => Order::Jumps { expected },
            true | false => Order::Begins,
        };
        (number, order)
    }

    /// Records of any channel were lost here.
    pub fn see_lost(&mut self) {
        self.repairs += 1;
    }

    /// The channels that may have lost their newest events: app id and name.
    pub fn uncertain(&self) -> impl Iterator<Item = (&str, &str)> {
        let channels = (0..).zip(&self.channels);
        let uncertain = channels.filter(|(_, last)| last.repairs < self.repairs);
        uncertain.map(|(number, _)| self.names.name(number))
    }

    pub fn channels(&self) -> usize {
        self.channels.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::letter::Origin;

    fn see(continuity: &mut Continuity, channel: &str, epoch: u64, serial: u64) -> Order {
        let entry = Entry {
            app_id: "1",
            channel,
            epoch,
            serial,
            time_ms: 0,
            origin: Origin::Api,
            name: "",
            data: "",
            user_id: "",
            idempotency_key: "",
        };
        continuity.see(&entry).1
    }

    #[test]
    fn a_serial_is_missed_in_its_channel_and_epoch() {
        let mut continuity = Continuity::default();
        let mut see = |channel, epoch, serial| see(&mut continuity, channel, epoch, serial);
        assert_eq!(see("a", 1, 5), Order::Begins);
        assert_eq!(see("b", 1, 9), Order::Begins);
        assert_eq!(see("a", 1, 6), Order::Follows);
        assert_eq!(see("b", 1, 9), Order::Jumps { expected: 10 });
        assert_eq!(see("a", 2, 1), Order::Begins);
        assert_eq!(see("a", 2, 3), Order::Jumps { expected: 2 });
        assert_eq!(see("a", 2, 4), Order::Follows);
    }

    #[test]
    fn after_a_repair_a_channel_goes_on_where_it_says_and_is_uncertain_until_then() {
        let mut continuity = Continuity::default();
        for channel in ["kept", "cut", "ended"] {
            assert_eq!(see(&mut continuity, channel, 1, 1), Order::Begins);
        }
        continuity.see_lost();
        assert_eq!(see(&mut continuity, "kept", 1, 2), Order::Follows);
        assert_eq!(see(&mut continuity, "cut", 1, 4), Order::Begins);
        assert_eq!(
            see(&mut continuity, "cut", 1, 9),
            Order::Jumps { expected: 5 }
        );
        let uncertain: Vec<_> = continuity.uncertain().collect();
        assert_eq!(uncertain, [("1", "ended")]);
    }
}
