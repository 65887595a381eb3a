//! Decisions: channels and their logs, sessions, the API. No sockets, threads or clocks.

pub mod apps;
pub mod ask;
pub mod audience;
pub mod channels;
pub mod durable;
pub mod fallback;
pub mod held;
pub mod holdings;
pub mod home;
pub mod hook;
pub mod keys;
pub mod lag;
pub mod letter;
pub mod log;
pub mod notice;
pub mod parking;
pub mod query;
pub mod quota;
pub mod repeats;
pub mod retained;
pub mod roster;
pub mod session;
pub mod users;
pub mod variant;
