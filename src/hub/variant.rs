//! The forms in which one event goes on the wire, each with a log of its own.
//!
//! A subscription belongs to one variant, that of its connection. A publish is encoded once for
//! each variant that somebody is subscribed in, when it is sequenced, and never again.

use crate::hub::letter::{Event, Origin};
use crate::wire::fallback;
use crate::wire::pusher;
use crate::wire::pusher::delivery::Serial;
use crate::wire::websocket::{self, Deflater, Opcode, WindowBits};

/// How a subscriber gets a channel's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// WebSocket text messages as they are.
    Plain,
    /// The same, compressed for a window of this size where that is worth it.
    Deflated { window: WindowBits },
    /// Lines of a session over HTTP, as chunks.
    Xhr,
    /// Server-Sent Events, as chunks.
    Sse,
}

/// What encoding an event takes besides the event: memory that is used again.
#[derive(Debug)]
pub struct Encoder {
    pub deflater: Deflater,
    text: Vec<u8>,
}

impl Encoder {
    pub fn new(deflater: Deflater) -> Encoder {
        Encoder {
            deflater,
            text: Vec::new(),
        }
    }

    /// Appends the event of a plain frame as this variant has it.
    pub fn encode_again(variant: Variant, plain: &[u8], serial: Serial, frame: &mut Vec<u8>) {
        match variant {
            Variant::Plain | Variant::Deflated { .. } => frame.extend_from_slice(plain),
            Variant::Xhr => fallback::encode_message(websocket::text_of(plain), frame),
            Variant::Sse => {
                fallback::encode_event(websocket::text_of(plain), Some(serial), frame);
            }
        }
    }

    /// Appends the event's frame in this variant. Tells whether it was compressed.
    pub fn encode(&mut self, variant: Variant, event: &Event<'_>, frame: &mut Vec<u8>) -> bool {
        match variant {
            Variant::Plain => {
                let length = text_length(event);
                frame.extend_from_slice(websocket::header(Opcode::Text, length).as_ref());
                encode_text(event, frame);
                false
            }
            Variant::Deflated { window } => {
                self.text.clear();
                encode_text(event, &mut self.text);
                self.deflater
                    .encode_frame(Opcode::Text, &self.text, window, frame)
            }
            Variant::Xhr => {
                fallback::encode_message(self.text(event), frame);
                false
            }
            Variant::Sse => {
                fallback::encode_event(self.text(event), event.serial, frame);
                false
            }
        }
    }

    fn text(&mut self, event: &Event<'_>) -> &str {
        self.text.clear();
        encode_text(event, &mut self.text);
        std::str::from_utf8(&self.text).expect("it was put together from text")
    }
}

impl Variant {
    /// Whether its frames are a WebSocket's, as what is retained is.
    pub fn is_websocket(self) -> bool {
        match self {
            Variant::Plain | Variant::Deflated { .. } => true,
            Variant::Xhr | Variant::Sse => false,
        }
    }

    /// The window of what may be compressed for a connection; nothing if compression was not
    /// negotiated.
    pub fn window(self) -> Option<WindowBits> {
        match self {
            Variant::Plain | Variant::Xhr | Variant::Sse => None,
            Variant::Deflated { window } => Some(window),
        }
    }

    /// The lengths of frames that lie one after the other.
    pub fn frame_lengths(self, frames: &[u8]) -> impl Iterator<Item = usize> + Clone + '_ {
        let mut rest = frames;
        std::iter::from_fn(move || {
            let length = match self {
                Variant::Plain | Variant::Deflated { .. } => {
                    websocket::frame_lengths(rest).next()?
                }
                Variant::Xhr | Variant::Sse => fallback::frame_lengths(rest).next()?,
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
            let serial = event.serial.map_or(0, |serial| serial.number);
            let user_id = event.user_id;
            pusher::encode_client_event_tokens(text, name, channel, data, user_id, serial);
        }
    }
}

fn text_length(event: &Event<'_>) -> usize {
    let (name, channel, data) = (event.name, event.channel, event.data);
    match event.origin {
        Origin::Message => data.len(),
        Origin::Api | Origin::Client | Origin::Server => {
            let serial = event.serial.map_or(0, |serial| serial.number);
            pusher::client_event_length(name, channel, data, event.user_id, serial)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::websocket::Inflater;
    use proptest::prelude::*;

    const LONG_BYTES: usize = 100;

    fn variants() -> impl Iterator<Item = Variant> {
        let windows = (0..=u8::MAX).filter_map(WindowBits::new);
        std::iter::once(Variant::Plain).chain(windows.map(|window| Variant::Deflated { window }))
    }

    fn event(data: &str) -> Event<'_> {
        Event {
            app: 0,
            origin: Origin::Api,
            channel: "room",
            name: "\"tick\"",
            data,
            key: "",
            user_id: "",
            idempotency_key: "",
            excluded: None,
            serial: None,
        }
    }

    /// The event's text, from its one frame in a variant, and whether it was compressed.
    fn text_in(encoder: &mut Encoder, variant: Variant, event: &Event<'_>) -> (bool, Vec<u8>) {
        let mut frame = Vec::new();
        let is_compressed = encoder.encode(variant, event, &mut frame);
        let lengths: Vec<usize> = variant.frame_lengths(&frame).collect();
        assert_eq!(lengths, [frame.len()]);
        let payload = &frame[if frame[1] < 126 { 2 } else { 4 }..];
        match is_compressed {
            true => {
                let mut inflater = Inflater::default();
                let text = inflater.inflate(payload, 1 << 20);
                (true, text.expect("it was just compressed").to_vec())
            }
            false => (false, payload.to_vec()),
        }
    }

    #[test]
    fn a_variant_costs_a_connection_one_byte() {
        assert_eq!(size_of::<Variant>(), 1);
    }

    #[test]
    fn a_short_event_is_the_same_bytes_in_every_variant() {
        let mut encoder = Encoder::new(Deflater::new(6, LONG_BYTES));
        let mut plain = Vec::new();
        encoder.encode(Variant::Plain, &event("\"short\""), &mut plain);
        for variant in variants() {
            let mut frame = Vec::new();
            assert!(!encoder.encode(variant, &event("\"short\""), &mut frame));
            assert_eq!(frame, plain, "{variant:?}");
        }
    }

    proptest! {
        #[test]
        fn every_variant_says_the_same(data in "[a-z]{1,10}", times in 1..50_usize) {
            let data = format!("\"{}\"", data.repeat(times));
            let mut encoder = Encoder::new(Deflater::new(6, LONG_BYTES));
            let mut text = Vec::new();
            encode_text(&event(&data), &mut text);
            for variant in variants() {
                let (is_compressed, said) = text_in(&mut encoder, variant, &event(&data));
                prop_assert_eq!(&said, &text);
                let is_due = variant != Variant::Plain && text.len() >= LONG_BYTES;
                prop_assert_eq!(is_compressed, is_due);
            }
        }
    }
}
