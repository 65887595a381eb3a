//! How many subscribers a channel has, as its home knows it, and who is told when that changes.
//!
//! Shards report the number of theirs once a turn, and homes look at it once a turn, so what is told
//! is the state then and not every step on the way.

use crate::base::limits;
use crate::hub::notice::Kind;
use crate::hub::variant::Variant;
use crate::wire::channel::{self, ChannelKind};
use crate::wire::pusher::announcement::{SUBSCRIPTION_COUNT, subscription_count_data};
use crate::wire::pusher::user::WatchedState;

use crate::shard::Engine;

impl Engine {
    /// Subscribers on all shards of a channel whose home is here.
    pub(in crate::shard) fn subscribers(&self, channel: u32) -> u32 {
        let Some(home) = self.channels[channel].home.as_ref() else {
            return 0;
        };
        let counts = home.streams.iter().map(|stream| {
            let local = stream.local.map(|local| &self.channels[local].subscribers);
            let elsewhere = stream.interests.iter().map(|interest| interest.subscribers);
            local.map_or(0, |local| local.len() as u32) + elsewhere.sum::<u32>()
        });
        counts.sum()
    }

    /// Looks at the channels whose count may have changed in this turn.
    pub(in crate::shard) fn review_counts(&mut self) {
        while let Some(home) = self.recounts.pop() {
            if let Some(channel) = self.channels.resolve(home) {
                self.review_occupied(channel);
                self.review_told_count(channel, self.subscribers(channel));
                self.drop_home_if_unused(channel);
            }
        }
    }

    /// Looks at a channel at once, where what is told next must come after its being occupied. How
    /// many there are waits for the end of the turn: whoever is just let in is to be told as well.
    pub(in crate::shard) fn review_occupied_of(&mut self, app: u16, name: &str) {
        if let Some(channel) = self.channels.find(app, name, Variant::Plain) {
            self.review_occupied(channel);
        }
    }

    /// Tells whom it concerns whether a channel has subscribers, if that is not what they know.
    fn review_occupied(&mut self, channel: u32) {
        let now = self.subscribers(channel);
        let record = &mut self.channels[channel];
        let Some(home) = record.home.as_mut() else {
            return;
        };
        let told = std::mem::replace(&mut home.subscribers_told, now);
        if (told > 0) == (now > 0) {
            return;
        }
        let kind = match now {
            0 => Kind::ChannelVacated,
            _ => Kind::ChannelOccupied,
        };
        self.notify_of(channel, kind);
        let record = &self.channels[channel];
        if let Some(id) = channel::server_to_user_id(&record.name) {
            let (app, id) = (record.app, Box::<str>::from(id));
            let state = if now > 0 {
                WatchedState::Online
            } else {
                WatchedState::Offline
            };
            self.tell_watchers(app, &id, state);
        }
    }

    /// Subscribers are told how many they are, where the app wants that: at once while they are few,
    /// else every so often.
    fn review_told_count(&mut self, channel: u32, now: u32) {
        let record = &self.channels[channel];
        let (app, name) = (record.app, record.name.clone());
        let is_told = self.apps.app(app).tells_counts
            && !ChannelKind::of(&name).is_presence()
            && !name.starts_with('#');
        let home = record.home.as_ref();
        let kept = home.and_then(|home| home.kept.as_ref());
        // Nothing is kept of a channel that nobody was told of.
        if !is_told || kept.map_or(0, |kept| kept.counted.told) == now {
            return;
        }
        let (app, name) = (record.app, record.name.clone());
        let now_s = self.now_s;
        let counted = &mut self.kept(app, &name).counted;
        if counted.is_due {
            return;
        }
        let is_crowd = now > limits::COUNTED_AT_ONCE_MAX && counted.told > 0;
        if is_crowd && now_s < counted.at_s + limits::COUNTED_EVERY_S {
            counted.is_due = true;
            let home = self.channels.key_of(channel);
            return self.counts_due.push(home);
        }
        (counted.told, counted.at_s) = (now, now_s);
        if now == 0 {
            if let Some(home) = self.channels[channel].home.as_mut() {
                home.forget_over(now_s);
            }
            return;
        }
        let count = u64::from(now);
        self.notify(app, &name, Kind::SubscriptionCount { count });
        self.tell_all(
            app,
            &name,
            SUBSCRIPTION_COUNT,
            &subscription_count_data(count),
        );
    }

    /// Tells the counts for which it was too early.
    pub(in crate::shard) fn tell_due_counts(&mut self) {
        for home in std::mem::take(&mut self.counts_due) {
            let Some(channel) = self.channels.resolve(home) else {
                continue;
            };
            let kept = self.channels[channel].home.as_mut();
            if let Some(kept) = kept.and_then(|home| home.kept.as_mut()) {
                kept.counted.is_due = false;
            }
            self.review_told_count(channel, self.subscribers(channel));
            self.drop_home_if_unused(channel);
        }
    }
}
