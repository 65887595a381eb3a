//! Signed-in users: what a sign-in waits for and is told, and what watchers are told of a user.

use crate::hub::letter::{Event, Origin};
use crate::hub::users::{self, SignIn};
use crate::hub::variant::Variant;
use crate::wire::pusher;
use crate::wire::pusher::delivery::Begin;
use crate::wire::pusher::user::{self, WatchedState};

use crate::shard::Engine;
use crate::shard::connections::Pending;

impl Engine {
    /// The connection joins its user's channel, and those of the users that it watches.
    pub(in crate::shard) fn on_sign_in(&mut self, slot: u32, app: u16, sign_in: Box<SignIn>) {
        self.come_in(
            slot,
            app,
            &users::own_channel(&sign_in.id),
            None,
            Begin::Head,
        );
        for watched in &sign_in.watched {
            let channel = users::watch_channel(&watched.id);
            self.come_in(slot, app, &channel, None, Begin::Head);
        }
        let waiting = self.connections.waiting(slot);
        waiting.pending = Some(Pending::SignIn(sign_in));
    }

    /// The home of a watched user said whether it is there.
    pub(in crate::shard) fn on_watching(&mut self, slot: u32, channel: &str, is_online: bool) {
        let waiting = self.connections[slot].waiting.as_mut();
        let pending = waiting.and_then(|waiting| waiting.pending.as_mut());
        let id = users::watched_id(channel).expect("only the watched are asked for");
        if let Some(Pending::SignIn(sign_in)) = pending {
            let mut watched = sign_in.watched.iter_mut();
            let watched = watched.find(|watched| *watched.id == *id);
            watched.expect("it was asked for").is_online = is_online;
        }
    }

    /// All homes have answered.
    pub(in crate::shard) fn conclude_sign_in(&mut self, slot: u32, sign_in: &SignIn) {
        let mut text = Vec::new();
        user::encode_signin_success(&mut text, &sign_in.user_data);
        self.reply_text(slot, &text);
        text.clear();
        let of = |is_online: bool| {
            let watched = sign_in.watched.iter();
            watched.filter(move |watched| watched.is_online == is_online)
        };
        user::encode_watchlist_events(
            &mut text,
            of(true).map(|watched| &*watched.id),
            of(false).map(|watched| &*watched.id),
        );
        if !text.is_empty() {
            self.reply_text(slot, &text);
        }
        if sign_in.is_watchlist_cut {
            text.clear();
            let error = user::watchlist_limit_exceeded(sign_in.watched.len());
            let code = Some(pusher::WATCHLIST_LIMIT_EXCEEDED);
            pusher::encode_error(&mut text, &error, code, None);
            self.reply_text(slot, &text);
        }
        // What its user and those whom it watches were sent meanwhile was held for this answer.
        for held in &self.connections[slot].subscriptions {
            self.gather.push((slot, held.channel + 1));
        }
    }

    /// Whether a user whose home is here is signed in, as its watchers were told.
    pub(in crate::shard) fn is_online(&self, app: u16, id: &str) -> bool {
        let own_channel = users::own_channel(id);
        let channel = self.channels.find(app, &own_channel, Variant::Plain);
        let home = channel.and_then(|channel| self.channels[channel].home.as_ref());
        home.is_some_and(|home| home.subscribers_told > 0)
    }

    /// A user's first connection came, or its last one went.
    pub(in crate::shard) fn tell_watchers(&mut self, app: u16, id: &str, state: WatchedState) {
        let mut message = Vec::new();
        user::encode_watchlist_transition(&mut message, id, state);
        let message = String::from_utf8(message).expect("JSON of text is text");
        self.sequence(&Event {
            app,
            origin: Origin::Message,
            channel: &users::watch_channel(id),
            name: "",
            data: &message,
            key: "",
            user_id: "",
            idempotency_key: "",
            excluded: None,
            serial: None,
        });
    }
}
