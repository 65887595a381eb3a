//! What becomes of a subscriber whose socket does not take a channel's frames as fast as they come.

/// A channel without serials knows nothing but `Disconnect`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slow {
    /// It is closed when its next frame has left its shard's log.
    #[default]
    Disconnect,
    /// It catches up from what is retained, and is told of a gap where that has gone.
    Lag,
    /// Where it is behind by too many events, it goes on with the newest, and is told which it does not
    /// get.
    Latest,
    /// Where it is behind by too many events, those of which there is a newer one with the same key are
    /// left out, and it is told which.
    LatestPerKey,
}

/// Each with its name, as options and clients have it.
pub const SLOW_POLICIES: &[(&str, Slow)] = &[
    ("lag", Slow::Lag),
    ("latest", Slow::Latest),
    ("latest-per-key", Slow::LatestPerKey),
    ("disconnect", Slow::Disconnect),
];
