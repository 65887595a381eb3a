//! outpour: one publish, encoded once, to every subscriber.
pub mod base;
pub mod hub;
pub mod ring;
pub mod shard;
pub mod wire;
