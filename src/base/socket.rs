//! The identity of a connection on its shard.

/// A connected socket: a direct descriptor's slot, and which of the sockets that ever used that
/// slot it is. Whatever names an earlier one is stale and is dropped by whoever compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Socket {
    pub slot: u32,
    /// Counts the uses of the slot, modulo 2^24.
    pub generation: u32,
}

/// Bits of a generation that are kept.
pub const GENERATION_BITS: u32 = 24;

/// A connection anywhere in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub shard: u16,
    pub socket: Socket,
}
