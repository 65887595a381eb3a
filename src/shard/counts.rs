//! How many subscribers a channel has, as its home knows it, and who is told when that changes.
//!
//! Shards report the number of theirs once a turn, and homes look at it once a turn, so what is told
//! is the state then and not every step on the way.

use crate::hub::notice::Kind;
use crate::wire::channel;
use crate::wire::pusher::user::WatchedState;

use super::Engine;

impl Engine {
    /// Subscribers on all shards of a channel whose home is here.
    pub(super) fn subscribers(&self, channel: u32) -> u32 {
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
    pub(super) fn review_counts(&mut self) {
        while let Some(home) = self.recounts.pop() {
            if let Some(channel) = self.channels.resolve(home) {
                self.review_count(channel);
                self.drop_home_if_unused(channel);
            }
        }
    }

    /// Tells whom it concerns how many subscribers a channel has, if that is not what they know.
    fn review_count(&mut self, channel: u32) {
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
}
