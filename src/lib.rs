//! outpour: one publish, encoded once, to every subscriber.
pub mod base;
pub mod hub;
pub mod options;
pub mod ring;
pub mod server;
pub mod shard;
pub mod wire;
