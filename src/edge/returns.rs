//! Departures that wait a while, because clients come back: a page that is loaded anew leaves its
//! channels and joins them a moment later, and nobody outside needs to hear of either.
//!
//! ```text
//! gone                -- departure --> waiting
//! waiting             -- return in time --> neither is told
//! waiting             -- time is up --> the departure is told
//! ```
//!
//! Invariant: per channel (and user) at most one departure waits.

use std::collections::{BTreeMap, HashMap};

use crate::base::limits;
use crate::hub::notice::{Kind, Notice};

/// A notice and when it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    pub notice: Notice,
    /// Milliseconds since 1970.
    pub time_ms: u64,
}

/// What is to be done about news.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    Now(News),
    /// Later, if nobody returns.
    Waits,
    /// Neither this return nor the departure that waited.
    Cancelled,
}

#[derive(Debug)]
pub struct Returns {
    wait_ms: u64,
    /// In the order in which their time is up.
    waiting: BTreeMap<Due, (Who, News)>,
    places: HashMap<Who, Due>,
    sequence: u64,
}

/// The moment, and a number that keeps what falls on it in order.
type Due = (u64, u64);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Who {
    app: u16,
    channel: Box<str>,
    user_id: Option<Box<str>>,
}

impl Returns {
    pub fn new(wait_ms: u64) -> Returns {
        Returns {
            wait_ms,
            waiting: BTreeMap::new(),
            places: HashMap::new(),
            sequence: 0,
        }
    }

    pub fn handle(&mut self, now_ms: u64, news: News) -> Told {
        let (user_id, is_departure) = match &news.notice.kind {
            Kind::ChannelOccupied => (None, false),
            Kind::ChannelVacated => (None, true),
            Kind::MemberAdded { user_id } => (Some(user_id.clone()), false),
            Kind::MemberRemoved { user_id } => (Some(user_id.clone()), true),
            Kind::ClientEvent { .. } | Kind::CacheMiss | Kind::SubscriptionCount { .. } => {
                return Told::Now(news);
            }
        };
        let who = Who {
            app: news.notice.app,
            channel: news.notice.channel.clone(),
            user_id,
        };
        if is_departure {
            return self.depart(now_ms, who, news);
        }
        match self.places.remove(&who) {
            Some(due) => {
                self.waiting.remove(&due);
                Told::Cancelled
            }
            None => Told::Now(news),
        }
    }

    /// A departure whose time is up.
    pub fn next_due(&mut self, now_ms: u64) -> Option<News> {
        let entry = self.waiting.first_entry()?;
        if entry.key().0 > now_ms {
            return None;
        }
        let (who, news) = entry.remove();
        self.places.remove(&who);
        Some(news)
    }

    /// From now on nobody waits: every departure is due.
    pub fn end_waits(&mut self) {
        self.wait_ms = 0;
        let waiting = std::mem::take(&mut self.waiting);
        for ((_, sequence), (who, news)) in waiting {
            self.places.insert(who.clone(), (0, sequence));
            self.waiting.insert((0, sequence), (who, news));
        }
    }

    pub fn next_ms(&self) -> Option<u64> {
        self.waiting
            .first_key_value()
            .map(|((due_ms, _), _)| *due_ms)
    }

    pub fn length(&self) -> usize {
        self.waiting.len()
    }

    fn depart(&mut self, now_ms: u64, who: Who, news: News) -> Told {
        // With that many waiting, what comes is told at once instead of being lost.
        if self.wait_ms == 0 || self.waiting.len() >= limits::DEPARTURES_WAITING_MAX {
            return Told::Now(news);
        }
        self.sequence += 1;
        let due = (now_ms + self.wait_ms, self.sequence);
        // Two departures without a return between them: a notice between them was dropped.
        if let Some(earlier) = self.places.insert(who.clone(), due) {
            self.waiting.remove(&earlier);
        }
        self.waiting.insert(due, (who, news));
        Told::Waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(channel: &str, kind: Kind<&str>, time_ms: u64) -> News {
        News {
            notice: Notice {
                app: 0,
                channel: channel.into(),
                kind: kind.into_owned(),
            },
            time_ms,
        }
    }

    #[test]
    fn a_return_in_time_cancels_the_departure_and_itself() {
        let mut returns = Returns::new(3000);
        let vacated = news("a", Kind::ChannelVacated, 0);
        let occupied = news("a", Kind::ChannelOccupied, 0);
        assert_eq!(returns.handle(0, vacated.clone()), Told::Waits);
        assert_eq!(returns.handle(2999, occupied.clone()), Told::Cancelled);
        assert_eq!((returns.next_due(9000), returns.next_ms()), (None, None));
        assert_eq!(returns.handle(9000, vacated.clone()), Told::Waits);
        assert_eq!(returns.next_ms(), Some(12_000));
        assert_eq!(returns.next_due(11_999), None);
        assert_eq!(returns.next_due(12_000), Some(vacated));
        assert_eq!(
            returns.handle(12_000, occupied.clone()),
            Told::Now(occupied)
        );
        assert_eq!(returns.places.len(), 0);
    }

    #[test]
    fn each_user_of_each_channel_departs_alone() {
        let mut returns = Returns::new(3000);
        let removed =
            |channel: &str, user_id: &str| news(channel, Kind::MemberRemoved { user_id }, 0);
        let added = |channel: &str, user_id: &str| news(channel, Kind::MemberAdded { user_id }, 0);
        for (channel, user_id) in [("a", "1"), ("a", "2"), ("b", "1")] {
            assert_eq!(returns.handle(0, removed(channel, user_id)), Told::Waits);
        }
        assert_eq!(returns.handle(1, added("a", "2")), Told::Cancelled);
        let other = added("b", "2");
        assert_eq!(returns.handle(1, other.clone()), Told::Now(other));
        assert_eq!(returns.next_due(3000), Some(removed("a", "1")));
        assert_eq!(returns.next_due(3000), Some(removed("b", "1")));
        assert_eq!(returns.next_due(3000), None);
    }

    #[test]
    fn a_drain_waits_for_nobody_and_keeps_the_order() {
        let mut returns = Returns::new(3000);
        let told = [
            news("a", Kind::MemberRemoved { user_id: "1" }, 0),
            news("a", Kind::ChannelVacated, 1),
        ];
        for (now_ms, news) in told.iter().enumerate() {
            assert_eq!(returns.handle(now_ms as u64, news.clone()), Told::Waits);
        }
        returns.end_waits();
        assert_eq!(returns.next_due(2).as_ref(), Some(&told[0]));
        assert_eq!(returns.next_due(2).as_ref(), Some(&told[1]));
        let late = news("b", Kind::ChannelVacated, 2);
        assert_eq!(returns.handle(2, late.clone()), Told::Now(late));
    }

    #[test]
    fn the_latest_of_two_departures_counts() {
        let mut returns = Returns::new(3000);
        let later = news("a", Kind::ChannelVacated, 2);
        assert_eq!(
            returns.handle(0, news("a", Kind::ChannelVacated, 1)),
            Told::Waits
        );
        assert_eq!(returns.handle(5, later.clone()), Told::Waits);
        assert_eq!(returns.next_due(9000), Some(later));
        assert_eq!(returns.next_due(9000), None);
        assert_eq!(returns.length(), 0);
    }
}
