//! Words that every layer uses; imports nothing of ours.

mod atomics;
/// Letters from one shard to one other.
pub mod lane;
/// How a shard sleeps without missing a letter.
pub mod sleep;
/// One deadline for each connection.
pub mod wheel;
