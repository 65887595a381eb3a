//! Words that every layer uses; imports nothing of ours.

mod atomics;
/// Letters from one shard to one other.
pub mod lane;
/// Entries with stable indexes, and keys that go stale.
pub mod slab;
/// How a shard sleeps without missing a letter.
pub mod sleep;
/// One deadline for each connection.
pub mod wheel;
