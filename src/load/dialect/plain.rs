//! WebSocket and nothing in it: who is connected is subscribed, to the channel that the path names if it names one, and
//! each message is a frame.
//!
//! Servers that one writes oneself speak so, and nchan and pushpin do.

use std::net::SocketAddr;

use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::frames;
use super::{Dialect, Fault, Heard, Speaker, pipe, upgrade};

/// What stands in a path for the channel's name.
const CHANNEL: &str = "{channel}";
const UPGRADING: u8 = 0;
const LISTENING: u8 = 1;

pub struct Plain {
    path: String,
    host: SocketAddr,
}

impl Plain {
    pub fn new(path: &str, host: SocketAddr) -> Plain {
        Plain {
            path: path.to_owned(),
            host,
        }
    }
}

impl Dialect for Plain {
    /// The upgrade itself subscribes.
    fn is_greeted_at_once(&self) -> bool {
        true
    }

    fn is_even(&self) -> bool {
        true
    }

    fn names_channels(&self) -> bool {
        false
    }

    fn open(&self, speaker: &mut Speaker, _: &mut Vec<u8>) {
        speaker.stage = UPGRADING;
    }

    fn take<'a>(
        &self,
        speaker: &mut Speaker,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<(usize, Heard<'a>)>, Fault> {
        if speaker.stage == UPGRADING {
            return upgrade::take(speaker, bytes, LISTENING, Heard::Subscribed);
        }
        let Some(frame) = frames::first(bytes)? else {
            return Ok(None);
        };
        let heard = match frame.opcode {
            OpCode::Data(Data::Text | Data::Binary) => Heard::Message(frame.payload),
            OpCode::Data(Data::Continue | Data::Reserved(_)) | OpCode::Control(_) => {
                pipe::beside_messages(&frame, out)?
            }
        };
        Ok(Some((frame.length, heard)))
    }

    fn subscribe(&self, _: &mut Speaker, channel: &str, out: &mut Vec<u8>) {
        let path = self.path.replace(CHANNEL, channel);
        out.extend_from_slice(upgrade::request(&path, self.host, None).as_bytes());
    }

    fn unsubscribe(&self, _: &mut Speaker, _: &str, _: &mut Vec<u8>) {
        unreachable!("a client without a protocol has one channel, and keeps it");
    }

    fn ask(&self, _: &mut Speaker, _: &mut Vec<u8>) {
        unreachable!("nothing is asked without a protocol");
    }

    fn publish(&self, _: &str, _: &str, _: &mut Vec<u8>) {
        unreachable!("without a protocol, publishing is another connection's: HTTP");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::websocket::{Opcode, encode_frame};

    #[test]
    fn a_client_asks_for_its_channel_is_subscribed_and_hears_frames() {
        let plain = Plain::new("/subscribe?channel={channel}", ([127, 0, 0, 1], 80).into());
        let (mut speaker, mut out) = (Speaker::default(), Vec::new());
        plain.open(&mut speaker, &mut out);
        assert!(out.is_empty() && plain.is_greeted_at_once());
        plain.subscribe(&mut speaker, "room", &mut out);
        assert!(out.starts_with(b"GET /subscribe?channel=room HTTP/1.1\r\nHost: 127.0.0.1:80\r\n"));
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            upgrade::PROOF
        );
        let mut bytes = head.into_bytes();
        for opcode in [Opcode::Text, Opcode::Binary, Opcode::Ping, Opcode::Close] {
            encode_frame(opcode, b"\x03\xe8!", &mut bytes);
        }
        out.clear();
        let (mut heard, mut rest) = (Vec::new(), bytes.as_slice());
        while let Some((length, next)) = plain.take(&mut speaker, rest, &mut out).unwrap() {
            heard.push(next);
            rest = &rest[length..];
        }
        let message = || Heard::Message(b"\x03\xe8!");
        let goodbye = Heard::Goodbye("close 1000 !".to_owned());
        assert_eq!(
            heard,
            [
                Heard::Subscribed,
                message(),
                message(),
                Heard::Nothing,
                goodbye
            ]
        );
        assert_eq!(out, b"\x8a\x83\0\0\0\0\x03\xe8!");
    }

    #[test]
    fn a_refusal_is_a_fault_in_the_servers_words() {
        let plain = Plain::new("", ([127, 0, 0, 1], 80).into());
        let refusal = b"HTTP/1.1 404 Not Found\r\n\r\n";
        let fault = plain.take(&mut Speaker::default(), refusal, &mut Vec::new());
        assert!(fault.unwrap_err().0.contains("404"));
    }
}
