//! What is timed (`benches/`) and counted (`perf/icount`): the same inputs for both.

pub mod envelope;
pub mod event;
pub mod frame;
pub mod request;
pub mod world;
