//! Server-Sent Events: a channel for whoever can read a line of text.
//!
//! An event's message is the `data` of one Server-Sent Event, again as one HTTP chunk:
//!
//! ```text
//! id: 00c0ffee00c0ffee:41\n
//! data: {"event":"my-event","channel":"room","data":"{}","serial":41}\n
//! \n
//! ```
//!
//! Where the channel has no serials, there is no id.

use super::frame;
use crate::wire::pusher::delivery::Serial;

/// A comment, which keeps proxies and readers from taking silence for an end.
pub const SSE_HEARTBEAT: &[u8] = b"00000003\r\n:\n\n\r\n";

/// Appends one message as an event. JSON has line ends only where it may have blanks, so they
/// become blanks: the message stays one line.
pub fn encode_event(message: &str, id: Option<Serial>, out: &mut Vec<u8>) {
    let start = frame::begin(out);
    if let Some(id) = id {
        out.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    out.extend_from_slice(DATA);
    let text = out.len();
    out.extend_from_slice(message.as_bytes());
    for byte in &mut out[text..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(END);
    frame::end(start, out);
}

/// Bytes that [`encode_event`] appends without an id.
pub fn event_length(message: &str) -> usize {
    frame::FRAMING_BYTES + DATA.len() + message.len() + END.len()
}

/// The channel, escapes and all, of a path below `/apps/{id}`: `/channels/{name}/events`.
pub fn event_stream_channel(call: &str) -> Option<&str> {
    let name = call.strip_prefix("/channels/")?.strip_suffix("/events")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

const DATA: &[u8] = b"data: ";
const END: &[u8] = b"\n\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_event_of_one_line() {
        let mut out = Vec::new();
        let message = "{\"event\":\"a\",\r\n\"data\":{\"x\":\n1}}";
        encode_event(message, None, &mut out);
        let body = "data: {\"event\":\"a\",  \"data\":{\"x\": 1}}\n\n";
        let expected = format!("{:08x}\r\n{body}\r\n", body.len());
        assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
        assert_eq!(out.len(), event_length(message));
        encode_event("{}", None, &mut out);
        out.extend_from_slice(SSE_HEARTBEAT);
        let lengths: Vec<usize> = frame::frame_lengths(&out).collect();
        assert_eq!(lengths, [event_length(message), event_length("{}"), 15]);
        out.clear();
        let id = Serial {
            epoch: 255,
            number: 7,
        };
        encode_event("{}", Some(id), &mut out);
        let body = "id: 00000000000000ff:7\ndata: {}\n\n";
        let expected = format!("{:08x}\r\n{body}\r\n", body.len());
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_path_names_the_channel() {
        assert_eq!(event_stream_channel("/channels/room/events"), Some("room"));
        assert_eq!(
            event_stream_channel("/channels/a%20b/events"),
            Some("a%20b")
        );
        for call in [
            "/channels//events",
            "/channels/a/b/events",
            "/channels/room",
            "/events",
        ] {
            assert_eq!(event_stream_channel(call), None, "{call}");
        }
    }
}
