//! socket.io as clients speak it over WebSocket: Engine.IO protocol 4 below, socket.io protocol 5 above.
//!
//! Source: socket.io/docs/v4/engine-io-protocol and socket-io-protocol. A WebSocket text message is one packet; its
//! first digit is Engine.IO's kind, the second socket.io's. Channels are rooms, which are the server's own: it has to
//! know three events, and acknowledge the first two of them: `subscribe` (a room), `ask`, `publish` (a room and data,
//! which all in the room get as an event of the room's name).
//!
//! Stages of a [`Speaker`]: [`UPGRADING`] until the answer to the upgrade has come, then [`TALKING`].

use std::net::SocketAddr;

use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::frames::{self, append_masked};
use super::{Dialect, Fault, Heard, Speaker, pipe, upgrade};

const UPGRADING: u8 = 0;
const TALKING: u8 = 1;

/// Where a server listens, unless it was told otherwise, and the query that asks for WebSocket from the start.
const PATH: &str = "/socket.io/?EIO=4&transport=websocket";
/// Into the main namespace, please.
const CONNECT: &str = "40";
const PONG: &str = "3";

pub struct SocketIo {
    request: String,
}

impl SocketIo {
    /// A path without a query stands before the server's own.
    pub fn new(path: &str, host: SocketAddr) -> SocketIo {
        let path = match path.contains('?') {
            true => path.to_owned(),
            false => format!("{}{PATH}", path.trim_end_matches('/')),
        };
        SocketIo {
            request: upgrade::request(&path, host, None),
        }
    }
}

impl Dialect for SocketIo {
    fn is_even(&self) -> bool {
        true
    }

    fn open(&self, speaker: &mut Speaker, out: &mut Vec<u8>) {
        speaker.stage = UPGRADING;
        out.extend_from_slice(self.request.as_bytes());
    }

    fn take<'a>(
        &self,
        speaker: &mut Speaker,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<(usize, Heard<'a>)>, Fault> {
        if speaker.stage == UPGRADING {
            return upgrade::take(speaker, bytes, TALKING, Heard::Nothing);
        }
        let Some(frame) = frames::first(bytes)? else {
            return Ok(None);
        };
        let heard = match frame.opcode {
            OpCode::Data(Data::Text) => heard(frame.payload, out)?,
            OpCode::Data(Data::Binary | Data::Continue | Data::Reserved(_))
            | OpCode::Control(_) => pipe::beside_messages(&frame, out)?,
        };
        Ok(Some((frame.length, heard)))
    }

    fn subscribe(&self, _: &mut Speaker, channel: &str, out: &mut Vec<u8>) {
        append(out, &format!(r#"420["subscribe","{channel}"]"#));
    }

    fn unsubscribe(&self, _: &mut Speaker, channel: &str, out: &mut Vec<u8>) {
        append(out, &format!(r#"42["unsubscribe","{channel}"]"#));
    }

    fn ask(&self, _: &mut Speaker, out: &mut Vec<u8>) {
        append(out, r#"421["ask"]"#);
    }

    fn publish(&self, channel: &str, data: &str, out: &mut Vec<u8>) {
        append(out, &format!(r#"42["publish","{channel}","{data}"]"#));
    }
}

fn append(out: &mut Vec<u8>, text: &str) {
    append_masked(out, OpCode::Data(Data::Text), text.as_bytes());
}

fn heard<'a>(packet: &'a [u8], out: &mut Vec<u8>) -> Result<Heard<'a>, Fault> {
    Ok(match packet {
        [b'0', ..] => {
            append(out, CONNECT);
            Heard::Nothing
        }
        [b'2'] => {
            append(out, PONG);
            Heard::Nothing
        }
        [b'4', b'0', ..] => Heard::Greeted,
        [b'4', b'2', ..] => Heard::Message(packet),
        [b'4', b'3', b'0', ..] => Heard::Subscribed,
        [b'4', b'3', b'1', ..] => Heard::Answered,
        [b'4', b'4', why @ ..] => {
            return Err(Fault(format!("the server refused: {}", why.escape_ascii())));
        }
        other => {
            let packet = other.escape_ascii();
            return Err(Fault(format!("`{packet}` is no packet of socket.io")));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::websocket::{Opcode, encode_frame};

    #[test]
    fn a_client_connects_is_subscribed_and_hears_messages() {
        let socketio = SocketIo::new("/", ([127, 0, 0, 1], 80).into());
        let (mut speaker, mut out) = (Speaker::default(), Vec::new());
        socketio.open(&mut speaker, &mut out);
        assert!(out.starts_with(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"));
        out.clear();
        let head = format!(
            "HTTP/1.1 101 \r\nSec-WebSocket-Accept: {}\r\n\r\n",
            upgrade::PROOF
        );
        let mut wire = head.into_bytes();
        let event = r#"42["room","hi"]"#;
        for packet in [
            r#"0{"sid":"a","upgrades":[],"pingInterval":3600000,"pingTimeout":20000}"#,
            r#"40{"sid":"b"}"#,
            "430[]",
            event,
            "2",
            "431[]",
        ] {
            encode_frame(Opcode::Text, packet.as_bytes(), &mut wire);
        }
        let (mut all, mut rest) = (Vec::new(), wire.as_slice());
        while let Some((length, heard)) = socketio.take(&mut speaker, rest, &mut out).unwrap() {
            all.push(heard);
            rest = &rest[length..];
        }
        let expected = [
            Heard::Nothing,
            Heard::Nothing,
            Heard::Greeted,
            Heard::Subscribed,
            Heard::Message(event.as_bytes()),
            Heard::Nothing,
            Heard::Answered,
        ];
        assert_eq!(all, expected);
        assert_eq!(out, b"\x81\x82\0\0\0\x0040\x81\x81\0\0\0\x003");
    }

    #[test]
    fn a_refusal_and_what_is_no_socketio_are_faults() {
        for packet in [
            &br#"44{"message":"no"}"#[..],
            b"",
            b"41",
            b"2probe",
            b"hello",
        ] {
            assert!(
                heard(packet, &mut Vec::new()).is_err(),
                "{}",
                packet.escape_ascii()
            );
        }
    }
}
