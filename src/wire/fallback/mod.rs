//! Channels over plain HTTP, for clients that cannot open a WebSocket: XHR streaming and polling,
//! SockJS over the same, and Server-Sent Events.
//!
//! A session of XHR or SockJS lives longer than its connections: one request at a time receives
//! (a stream, or one poll after the other), others send. What is received is a body of lines:
//!
//! ```text
//! hhh..h          a prelude that browsers need before they show a stream; polls have none
//! o{}             the session is open: once, at its beginning
//! a["message"]    messages
//! h               a sign of life
//! c[4001,"why"]   the session is over
//! ```
//!
//! Each line is encoded as one HTTP chunk ([`frame`]), so that a log of such frames is a run of
//! chunks, and any part of it between two frames can be sent as it lies there.
//!
//! Invariants:
//! - The body of a frame is ASCII: what else a message holds is escaped. So the bytes of a body are
//!   the characters that a client counts before it asks for another stream.
//! - The framing around a body has one length, [`frame::FRAMING_BYTES`], so that the body's length
//!   follows from that of the chunk.
//!
//! Sources: pusher-js 8.6 (`core/http`), sockjs-client 1.6 and the SockJS protocol 0.3.3, the HTML
//! standard's "Server-sent events".

mod cors;
mod frame;
mod path;
mod sockjs;
mod sse;
mod upload;

pub use cors::{Cors, PREFLIGHT_STATUS};
pub use frame::{
    FRAMING_BYTES, HEARTBEAT, OPEN, PRELUDE, STREAM_BODY_BYTES_MAX, encode_close, encode_message,
    frame_lengths, message_length,
};
pub use path::{Call, Route, SESSION_NAME_BYTES_MAX, SessionName, route};
pub use sockjs::{GREETING, SOCKJS_BODY_BYTES_MAX, encode_info, parse_first_message};
pub use sse::{SSE_HEARTBEAT, encode_event, event_length, event_stream_channel};
pub use upload::{UPLOAD_MESSAGES_MAX, UploadRefusal, parse_upload};
