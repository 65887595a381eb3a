//! The load generator: what it measures and how it says so.

pub mod clients;
pub mod companion;
pub mod dialect;
pub mod machine;
pub mod orders;
pub mod report;
pub mod result;
pub mod stamp;
pub mod view;
