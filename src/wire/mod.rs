//! (being written)
pub mod api;
pub mod channel;
pub mod json;
pub mod pusher;
pub mod signature;
