//! Bytes to values and back: the protocols as they stand on the wire, without sockets or clocks.
pub mod websocket;
