//! What every layer uses: bounds, metrics, and the containers that the engine is built of.

mod atomics;
/// Whose shapes and limits are served.
pub mod dialect;
pub mod lag;
/// Letters from one shard to one other.
pub mod lane;
pub mod latency;
pub mod limits;
pub mod memory;
pub mod metrics;
/// Entries with stable indexes, and keys that go stale.
pub mod slab;
/// How a shard sleeps without missing a letter.
pub mod sleep;
pub mod slots;
pub mod slow;
/// Who a connection is.
pub mod socket;
/// How other threads wake one that sleeps in the kernel.
pub mod waker;
/// One deadline for each connection.
pub mod wheel;
pub mod worst;
