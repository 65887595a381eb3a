//! What Pusher clients send and what they are sent: the text of each message, and what a
//! connection's address says.
//!
//! | file | reason |
//! |---|---|
//! | `address` | which application a connection asks for, which version of the protocol, and which channels |
//! | `announcement` | what the server tells the subscribers of a channel |
//! | `client` | what clients say |
//! | `delivery` | serials: where a subscription begins and stands, and what is missing |
//! | `event` | the one encode of a publish |
//! | `library` | the file with which pusher-js resumes |
//! | `member` | who is in a presence channel |
//! | `reply` | what the server says to one client |
//! | `close` | why a connection ends |
//! | `socket_id` | the name of a connection |
//! | `user` | signed-in users and those they watch |
//!
//! Decoders turn one text message into a [`ClientMessage`]; encoders append one JSON message to a
//! buffer, without a WebSocket header. [`encode_event_tokens`] is the one encode of a publish, and
//! [`event_length`] says beforehand what it will append, so that the header can be written first.
//!
//! Invariants:
//! - Event names, data and user ids from outside appear in a message only as JSON tokens that were
//!   parsed or escaped. A channel name is copied bare only where it has passed
//!   [`check_channel_name`](super::channel::check_channel_name), whose characters need no escaping.
//! - `data` of an event is a JSON string (that holds JSON), of an error an object, as the
//!   documentation's examples show them.
//!
//! Source: Pusher Channels documentation, "WebSocket protocol", version 7. What deployed clients
//! and servers do beyond it is said where it matters.

mod address;
pub mod announcement;
mod client;
mod close;
pub mod delivery;
mod event;
pub mod library;
pub mod member;
mod reply;
mod socket_id;
pub mod user;

pub use address::{app_key, check_protocol, subscriptions};
pub use client::{ClientMessage, Malformed, parse_client_message};
pub use close::CloseCode;
pub use event::{
    client_event_length, encode_client_event_tokens, encode_event_tokens, event_length, serial_of,
};
pub use reply::{
    CLIENT_EVENT_REJECTED, WATCHLIST_LIMIT_EXCEEDED, encode_connection_established, encode_error,
    encode_pong, encode_subscription_error, encode_subscription_succeeded,
};
pub use socket_id::{InvalidSocketId, SocketId};
