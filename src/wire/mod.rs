//! Bytes to values and back: HTTP, WebSocket and the Pusher protocol, without I/O.

pub mod api;
pub mod channel;
pub mod fallback;
pub mod http;
pub mod json;
pub mod pusher;
pub mod signature;
pub mod websocket;
