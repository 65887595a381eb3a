//! Who gets a channel's frames on this shard: subscriptions, and what homes elsewhere are told and
//! tell of them.
//!
//! Letters that carry state are not queued: a channel that owes one is looked at again each turn
//! until the lane has room. The other side of these letters is in `home`.

use crate::base::limits;
use crate::base::metrics::Metric;
use crate::base::slab::Key;
use crate::base::slow::Slow;
use crate::base::socket::Socket;
use crate::hub::audience::{Exception, Subscriber, WAITING};
use crate::hub::channels::Membership;
use crate::hub::letter::{Exit, Join, Letter};
use crate::hub::variant::Variant;
use crate::wire::channel::ChannelKind;

use super::Engine;
use super::connections::Subscription;

/// Whether a new subscriber gets the channel's frames already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// From the head on: it can be told so.
    Stands,
    /// The home's answer is awaited.
    Waits,
}

impl Engine {
    /// Adds a subscription. Where the kind of channel has the home decide on each subscriber, it
    /// waits until it is let in.
    pub fn subscribe(&mut self, slot: u32, app: u16, name: &str) -> Standing {
        let variant = self.connections[slot].variant;
        let channel = self.channels.find_or_insert(app, name, variant);
        match self.channels[channel].membership {
            Membership::Absent => self.join(channel),
            Membership::LeaveDue => self.channels[channel].membership = Membership::Joined,
            Membership::JoinDue | Membership::Joining | Membership::Joined | Membership::Local => {}
        }
        let record = &self.channels[channel];
        let is_joined = matches!(record.membership, Membership::Joined | Membership::Local);
        let stands = is_joined && !self.enters(app, name);
        let cursor = if stands { record.head } else { WAITING };
        let slow = self.slow_of(app, name, variant);
        let subscriber = Subscriber { cursor, slot, slow };
        let index = self.channels.join(channel, subscriber);
        let held = &mut self.connections[slot].subscriptions;
        held.push(Subscription { channel, index });
        self.connections.refresh_direct(slot);
        self.metrics.add(Metric::Subscriptions, 1);
        self.count_changed(channel);
        if stands {
            Standing::Stands
        } else {
            Standing::Waits
        }
    }

    /// What becomes of a subscriber that is slow. One over HTTP is closed wherever it is: it comes back by
    /// itself, and a reader of Server-Sent Events resumes then.
    fn slow_of(&self, app: u16, name: &str, variant: Variant) -> Slow {
        match variant.is_websocket() {
            true => self.apps.app(app).slow_of(name),
            false => Slow::Disconnect,
        }
    }

    /// The subscription has said what is to become of it when it is slow.
    pub(super) fn choose_slow(&mut self, slot: u32, app: u16, name: &str, slow: Slow) {
        if let Some(place) = self.place_of(slot, app, name)
            && self.connections[slot].variant.is_websocket()
        {
            let held = self.connections[slot].subscriptions[place];
            self.channels[held.channel].subscribers[held.index as usize].slow = slow;
        }
    }

    /// The first subscriber comes: the channel's frames are wanted here.
    fn join(&mut self, channel: u32) {
        let record = &self.channels[channel];
        let hash = self.channels.hash(record.app, &record.name);
        if self.home_of(hash) == self.index {
            self.join_at_home(channel);
        } else {
            self.channels[channel].membership = Membership::JoinDue;
            self.owe(channel);
        }
    }

    /// Takes away the `place`-th subscription of the connection.
    pub fn unsubscribe(&mut self, slot: u32, place: usize) {
        let held = self.connections[slot].subscriptions[place];
        self.connections[slot].subscriptions.swap_remove(place);
        if let Some((sweep, _)) = self.channels.sweep_mut(held.channel) {
            let before = sweep.exceptions.len();
            sweep.exceptions.retain(|exception| exception.slot != slot);
            self.connections[slot].exceptions -= (before - sweep.exceptions.len()) as u32;
        }
        self.drop_backlog(slot, held.channel);
        for (moved, index) in self.channels.leave(held.channel, held.index) {
            let subscriptions = &mut self.connections[moved].subscriptions;
            let other = subscriptions
                .iter_mut()
                .find(|other| other.channel == held.channel);
            other.expect("who moved is subscribed").index = index;
        }
        self.connections.refresh_direct(slot);
        self.metrics.subtract(Metric::Subscriptions, 1);
        let record = &self.channels[held.channel];
        if self.enters(record.app, &record.name) {
            self.exit(slot, held.channel);
        }
        self.count_changed(held.channel);
        let record = &mut self.channels[held.channel];
        if record.subscribers.is_empty() {
            match record.membership {
                Membership::JoinDue => record.membership = Membership::Absent,
                Membership::Local => return self.leave_home(held.channel),
                Membership::Joined => {
                    record.membership = Membership::LeaveDue;
                    self.owe(held.channel);
                }
                Membership::Joining | Membership::LeaveDue | Membership::Absent => {}
            }
            self.channels.remove_if_unused(held.channel);
        }
    }

    /// One who had asked to be let in has left: a home that keeps a roster is told, unless the
    /// question never went.
    fn exit(&mut self, slot: u32, channel: u32) {
        let socket = self.connections.socket(slot);
        let record = &self.channels[channel];
        let (app, name) = (record.app, record.name.clone());
        if self.withdraw_ask(socket, &name) || !ChannelKind::of(&name).is_presence() {
            return;
        }
        let home = self.home_of(self.channels.hash(app, &name));
        let exit = Exit {
            app,
            channel: name,
            socket,
        };
        if home == self.index {
            self.on_exit(home, &exit);
        } else {
            self.exits.push_back((home, Box::new(exit)));
        }
    }

    /// How many subscribers there are matters to the channel's home.
    fn count_changed(&mut self, channel: u32) {
        match self.channels[channel].membership {
            Membership::Local => self.recounts.push(self.channels[channel].home_key),
            Membership::Joined => self.owe(channel),
            Membership::Absent
            | Membership::JoinDue
            | Membership::Joining
            | Membership::LeaveDue => {}
        }
    }

    /// Has the channel's letters posted at the end of this turn, or of the first with room.
    pub fn owe(&mut self, channel: u32) {
        let record = &mut self.channels[channel];
        if !record.is_owing {
            record.is_owing = true;
            self.owing.push_back(channel);
        }
    }

    /// The home sends frames from this position on.
    pub(super) fn on_joined(&mut self, audience: Key, home: Key, position: u64) {
        let Some(channel) = self.channels.resolve(audience) else {
            return;
        };
        self.channels.stand_at(channel, position);
        let record = &mut self.channels[channel];
        record.home_key = home;
        record.membership = Membership::Joined;
        self.owe(channel);
        let record = &self.channels[channel];
        let enters = self.enters(record.app, &record.name);
        let record = &mut self.channels[channel];
        if record.subscribers.is_empty() {
            record.membership = Membership::LeaveDue;
            return;
        }
        if enters {
            return;
        }
        for subscriber in &mut record.subscribers {
            subscriber.cursor = position;
        }
        let name = record.name.clone();
        for place in 0..self.channels[channel].subscribers.len() {
            let slot = self.channels[channel].subscribers[place].slot;
            self.confirm_subscription(slot, &name);
        }
        // Who goes on reading may leave, so that they are found before.
        let subscribers = self.channels[channel].subscribers.iter();
        let repeating = subscribers.filter(|one| self.connections[one.slot].repeats(&name));
        let repeating: Vec<Socket> = repeating
            .map(|one| self.connections.socket(one.slot))
            .collect();
        for socket in repeating {
            self.on_receipt(socket);
        }
    }

    /// A connection here does not get a frame that will come.
    pub(super) fn on_except(&mut self, audience: Key, socket: Socket, start: u64, end: u64) {
        if let Some(channel) = self.channels.resolve(audience)
            && self.channels[channel].membership.takes_frames()
            && self.connections.is_current(socket)
        {
            let slot = socket.slot;
            let exception = Exception { slot, start, end };
            self.early_exceptions.push((channel, exception));
        }
    }

    /// Frames from the channel's home.
    pub(super) fn on_deliver(
        &mut self,
        audience: Key,
        position: u64,
        serial: Option<u64>,
        frames: &[u8],
    ) {
        let Some(channel) = self.channels.resolve(audience) else {
            return;
        };
        let record = &self.channels[channel];
        if !record.membership.takes_frames() {
            // They were on their way when the last subscriber left.
            return;
        }
        assert_eq!(position, record.head, "frames come without a gap");
        self.append(channel, frames, serial);
        let head = self.channels[channel].head;
        let mut early = std::mem::take(&mut self.early_exceptions);
        // Exceptions of a home come first, its frames perhaps in several letters.
        early.retain(|&(about, exception)| {
            let is_due = about == channel && exception.start < head;
            if is_due {
                self.except(channel, exception);
            }
            !is_due
        });
        self.early_exceptions = early;
    }

    /// Gives back what a burst of letters left behind.
    pub(super) fn shrink_queues(&mut self) {
        self.owing.shrink_to(limits::OWING_PER_TURN);
        self.channels.shrink_queues(limits::OWING_PER_TURN);
    }

    /// Posts what channels owe other shards, as far as there is room.
    pub fn post_owed(&mut self) {
        self.post_exits();
        for _ in 0..self.owing.len().min(limits::OWING_PER_TURN) {
            let Some(channel) = self.owing.pop_front() else {
                break;
            };
            if self.post_as_audience(channel) & self.post_as_home(channel) {
                self.channels[channel].is_owing = false;
                self.drop_home_if_unused(channel);
            } else {
                self.owing.push_back(channel);
            }
        }
        self.post_asks();
        self.post_conclusions();
        self.post_transfers();
        self.post_congestion();
    }

    fn post_exits(&mut self) {
        for _ in 0..self.exits.len() {
            let Some((home, exit)) = self.exits.pop_front() else {
                break;
            };
            if self.mesh.has_room(home) {
                self.mesh.post(home, Letter::Exit(exit));
            } else {
                self.exits.push_back((home, exit));
            }
        }
    }

    /// Joins, leaves and progress. True if nothing is left to post.
    fn post_as_audience(&mut self, channel: u32) -> bool {
        let audience = self.channels.key_of(channel);
        let record = &self.channels[channel];
        let (variant, home) = (record.variant, record.home_key);
        let subscribers = record.subscribers.len() as u32;
        let (letter, next) = match record.membership {
            Membership::JoinDue => {
                let join = Join {
                    app: record.app,
                    variant,
                    subscribers,
                    name: record.name.clone(),
                    audience,
                };
                (Letter::Join(Box::new(join)), Membership::Joining)
            }
            Membership::LeaveDue => (Letter::Leave { home, variant }, Membership::Absent),
            Membership::Joined if self.has_progress(channel) => {
                let position = self.channels.floor(channel);
                let progress = Letter::Progress {
                    home,
                    variant,
                    subscribers,
                    position,
                };
                (progress, Membership::Joined)
            }
            Membership::Joined | Membership::Local | Membership::Absent | Membership::Joining => {
                return true;
            }
        };
        let home_shard = self.home_of(self.channels.hash(record.app, &record.name));
        if !self.mesh.has_room(home_shard) {
            return false;
        }
        self.mesh.post(home_shard, letter);
        if next == Membership::Absent {
            // Their frames are not for those who come next, whose positions may begin anew.
            self.early_exceptions.retain(|(about, _)| *about != channel);
        }
        let floor = self.channels.floor(channel);
        let record = &mut self.channels[channel];
        record.subscribers_reported = subscribers;
        record.reported = floor;
        record.membership = next;
        true
    }

    pub(super) fn remove_if_live(&mut self, channel: u32) {
        if self.channels.is_live(channel) {
            self.channels.remove_if_unused(channel);
        }
    }

    /// Has the home told how far the sweep has come, if that is worth a letter.
    pub(super) fn owe_progress(&mut self, channel: u32) {
        if self.has_progress(channel) {
            self.owe(channel);
        }
    }

    /// Whether the home counts other subscribers than there are, or thinks that this shard is
    /// further back than it is, by so much that it matters to the congestion of the channel.
    fn has_progress(&self, channel: u32) -> bool {
        let record = &self.channels[channel];
        let step = (self.options.log_bytes_max / 8) as u64;
        record.subscribers_reported != record.subscribers.len() as u32
            || self.channels.floor(channel) - record.reported >= step
    }

    /// Whether the home decides on each subscriber of a channel with this name, and has something
    /// to tell it.
    pub(super) fn enters(&self, app: u16, name: &str) -> bool {
        let kind = ChannelKind::of(name);
        kind.is_presence()
            || kind.is_cache()
            || name.starts_with('#')
            || self.apps.app(app).retention_of(name).is_some()
    }
}
