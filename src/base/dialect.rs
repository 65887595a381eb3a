//! Whose answers the server gives where servers of the same protocol differ.

/// A dialect decides on shapes and on default limits, never on what is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// The vendor's documentation and acceptance tests.
    #[default]
    Pusher,
    /// soketi's answers, limits and status endpoints.
    Soketi,
}
