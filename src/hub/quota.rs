//! What an app may take of the server, counted over all shards.
//!
//! The counters are shared, and touched only where a connection comes or goes, and by publishes of
//! apps that have a limit.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;

/// One app's quota; 0 is no limit.
#[derive(Debug)]
pub struct Quota {
    connections_max: u32,
    events_per_second_max: u32,
    connections: CachePadded<AtomicU32>,
    /// The second that is counted, and the events of it.
    events: CachePadded<AtomicU64>,
}

impl Quota {
    pub fn new(connections_max: u32, events_per_second_max: u32) -> Quota {
        Quota {
            connections_max,
            events_per_second_max,
            connections: CachePadded::default(),
            events: CachePadded::default(),
        }
    }

    /// Counts a connection, if there may be one more.
    pub fn take_connection(&self) -> bool {
        let before = self.connections.fetch_add(1, Relaxed);
        let is_admitted = self.connections_max == 0 || before < self.connections_max;
        if !is_admitted {
            self.give_connection_back();
        }
        is_admitted
    }

    pub fn give_connection_back(&self) {
        let before = self.connections.fetch_sub(1, Relaxed);
        assert!(before > 0, "what is given back was taken");
    }

    /// Counts so many events of one second, if there may be as many more, all or none.
    pub fn take_events(&self, events: u32, now_s: u32) -> bool {
        if self.events_per_second_max == 0 {
            return true;
        }
        let taken = self.events.fetch_update(Relaxed, Relaxed, |state| {
            let (second, count) = ((state >> 32) as u32, state as u32);
            // Another shard's clock may be ahead: its second counts then.
            let (second, count) = if now_s > second {
                (now_s, 0)
            } else {
                (second, count)
            };
            let count = count.checked_add(events)?;
            (count <= self.events_per_second_max)
                .then_some(u64::from(second) << 32 | u64::from(count))
        });
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_bounded_and_come_back() {
        let quota = Quota::new(2, 0);
        assert!(quota.take_connection() && quota.take_connection());
        assert!(!quota.take_connection());
        quota.give_connection_back();
        assert!(quota.take_connection());
        assert!((0..1000).all(|_| Quota::new(0, 0).take_connection()));
    }

    #[test]
    fn events_are_bounded_in_each_second_and_taken_all_or_none() {
        let quota = Quota::new(0, 5);
        assert!(quota.take_events(3, 10));
        assert!(!quota.take_events(3, 10));
        assert!(quota.take_events(2, 10));
        assert!(!quota.take_events(1, 9), "a slower clock gains nothing");
        assert!(quota.take_events(5, 11));
        assert!(Quota::new(0, 0).take_events(u32::MAX, 1));
    }
}
