//! When which message is due, and who publishes it: fixed before the first one leaves.
//!
//! Message `i` of a run goes to channel `i % channels` and is number `i / channels` there. A channel
//! has one publisher, `channel % publishers`, because the order of what two of them send is nobody's.
//! Nothing here moves when a publisher is late: a stall shows as delay, not as a thinner schedule.

/// The messages of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    pub start_ns: u64,
    /// Messages a second, over all channels. `None` is as many as are taken: each is then due when
    /// it is written.
    pub per_second: Option<f64>,
    /// No message is due at or after this long from the start.
    pub length_ns: u64,
    pub channels: u64,
    pub publishers: u64,
}

/// A message's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub channel: u64,
    pub sequence: u64,
}

impl Schedule {
    /// How many messages there are; without a rate there is no telling.
    pub fn messages(&self) -> Option<u64> {
        let per_second = self.per_second?;
        let exact = per_second * self.length_ns as f64 / 1e9;
        // 0.1 of a second at 30 a second is 3, not 3.0000000000000004 and so 4.
        Some((exact - 1e-6).ceil().max(0.0) as u64)
    }

    /// When message `index` is due; without a rate, from the start on.
    pub fn due_ns(&self, index: u64) -> u64 {
        let after_ns = self
            .per_second
            .map_or(0.0, |per_second| index as f64 * 1e9 / per_second);
        self.start_ns + after_ns as u64
    }

    pub fn end_ns(&self) -> u64 {
        self.start_ns + self.length_ns
    }

    pub fn place(&self, index: u64) -> Place {
        Place {
            channel: index % self.channels,
            sequence: index / self.channels,
        }
    }

    /// The first message of a publisher; `None` if it has no channel.
    pub fn first(&self, publisher: u64) -> Option<u64> {
        (publisher < self.channels.min(self.publishers)).then_some(publisher)
    }

    /// The publisher's message after message `index`.
    pub fn next(&self, publisher: u64, index: u64) -> u64 {
        let channel = index % self.channels;
        if channel + self.publishers < self.channels {
            index + self.publishers
        } else {
            index - channel + self.channels + publisher
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(channels: u64, publishers: u64) -> Schedule {
        Schedule {
            start_ns: 5_000,
            per_second: Some(30.0),
            length_ns: 100_000_000,
            channels,
            publishers,
        }
    }

    #[test]
    fn a_run_holds_the_messages_that_are_due_before_its_end() {
        let schedule = schedule(1, 1);
        assert_eq!(schedule.messages(), Some(3));
        assert_eq!(schedule.due_ns(0), 5_000);
        assert!(schedule.due_ns(2) < schedule.end_ns());
        assert!(schedule.due_ns(3) >= schedule.end_ns());
        let unpaced = Schedule {
            per_second: None,
            ..schedule
        };
        assert_eq!((unpaced.messages(), unpaced.due_ns(7)), (None, 5_000));
    }

    #[test]
    fn publishers_share_all_messages_and_no_channel() {
        for (channels, publishers) in [(1, 1), (1, 4), (7, 3), (6, 3), (3, 5), (10, 1)] {
            let schedule = schedule(channels, publishers);
            let mut by = vec![None; 60];
            for publisher in 0..publishers {
                let mut next = schedule.first(publisher);
                while let Some(index) = next.filter(|index| *index < 60) {
                    assert_eq!(by[index as usize], None, "{channels} {publishers} {index}");
                    by[index as usize] = Some(publisher);
                    next = Some(schedule.next(publisher, index));
                }
            }
            for (index, publisher) in by.iter().enumerate() {
                let channel = schedule.place(index as u64).channel;
                assert_eq!(
                    *publisher,
                    Some(channel % publishers),
                    "{channels} {publishers} {index}"
                );
            }
        }
    }
}
