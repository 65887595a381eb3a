//! Decisions: channels and their logs, sessions, the API. No sockets, threads or clocks.

pub mod audience;
pub mod channels;
pub mod home;
pub mod letter;
pub mod log;
