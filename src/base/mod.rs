//! What every layer uses: bounds, metrics, and the containers that the engine is built of.

pub mod limits;
pub mod metrics;
pub mod slots;
