//! (being written)
pub mod channel;
pub mod json;
pub mod pusher;
pub mod signature;
