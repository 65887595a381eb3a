//! What becomes of a subscriber whose socket does not take a channel's frames as fast as they come.

/// A channel without serials knows nothing but `Disconnect`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slow {
    /// It is closed when its next frame has left its shard's log.
    #[default]
    Disconnect,
    /// It catches up from what is retained, and is told of a gap where that has gone.
    Lag,
}
