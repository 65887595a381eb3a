//! The forms in which one event goes on the wire, each with a log of its own.
//!
//! A subscription belongs to one variant, that of its connection. A publish is encoded once for
//! each variant that somebody is subscribed in, when it is sequenced, and never again.

use crate::hub::letter::{Event, Origin};
use crate::wire::pusher;
use crate::wire::websocket::{self, Opcode};

/// How a subscriber gets a channel's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// WebSocket text messages as they are.
    Plain,
}

/// What encoding an event takes besides the event: memory that is used again.
#[derive(Debug, Default)]
pub struct Encoder {}

impl Encoder {
    /// Appends the event's frame in this variant.
    pub fn encode(&mut self, variant: Variant, event: &Event<'_>, frame: &mut Vec<u8>) {
        match variant {
            Variant::Plain => {
                let length = text_length(event);
                frame.extend_from_slice(websocket::header(Opcode::Text, length).as_ref());
                encode_text(event, frame);
            }
        }
    }
}

impl Variant {
    /// The lengths of frames that lie one after the other.
    pub fn frame_lengths(self, frames: &[u8]) -> impl Iterator<Item = usize> + Clone + '_ {
        let mut rest = frames;
        std::iter::from_fn(move || {
            let length = match self {
                Variant::Plain => websocket::frame_lengths(rest).next()?,
            };
            rest = &rest[length..];
            Some(length)
        })
    }
}

/// Appends the message that every variant carries.
pub fn encode_text(event: &Event<'_>, text: &mut Vec<u8>) {
    let (name, channel, data) = (event.name, event.channel, event.data);
    match event.origin {
        Origin::Message => text.extend_from_slice(data.as_bytes()),
        Origin::Api | Origin::Client | Origin::Server => {
            pusher::encode_client_event_tokens(text, name, channel, data, event.user_id);
        }
    }
}

fn text_length(event: &Event<'_>) -> usize {
    let (name, channel, data) = (event.name, event.channel, event.data);
    match event.origin {
        Origin::Message => data.len(),
        Origin::Api | Origin::Client | Origin::Server => {
            pusher::client_event_length(name, channel, data, event.user_id)
        }
    }
}
