//! Signed-in users: the channels that are theirs, and what a sign-in waits for.
//!
//! A user's connections are the subscribers of the channel `#server-to-user-ID`: what is published
//! there reaches all of them, and a user is online as long as it has any. Who watches the user is a
//! subscriber of `#watch-ID`, a name that no client can say. Both have the same home, so that a
//! watcher is told of the state and of its changes in one order.

use crate::wire::channel::SERVER_TO_USER_PREFIX;

/// Whom a connection has signed in as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    pub id: Box<str>,
    /// A JSON token.
    pub user_info: Option<Box<str>>,
}

/// A sign-in that waits for the homes of its user and of those whom it watches.
#[derive(Debug)]
pub struct SignIn {
    pub id: Box<str>,
    /// The text that was signed, which the acknowledgement repeats.
    pub user_data: Box<str>,
    pub watched: Vec<Watched>,
    /// The watchlist was longer than it may be.
    pub is_watchlist_cut: bool,
}

/// A user that is watched.
#[derive(Debug)]
pub struct Watched {
    pub id: Box<str>,
    pub is_online: bool,
}

const WATCH_PREFIX: &str = "#watch-";

/// The channel of a user's own connections.
pub fn own_channel(id: &str) -> String {
    format!("{SERVER_TO_USER_PREFIX}{id}")
}

/// The channel of those who watch a user.
pub fn watch_channel(id: &str) -> String {
    format!("{WATCH_PREFIX}{id}")
}

/// The user whose watchers' channel this is.
pub fn watched_id(channel: &str) -> Option<&str> {
    channel.strip_prefix(WATCH_PREFIX)
}
