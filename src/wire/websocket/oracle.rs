//! The codec against tungstenite: what either lays out, the other reads.

use std::io::{Cursor, Read, Result, Write};

use proptest::collection::vec;
use proptest::prelude::*;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocket, WebSocketConfig};

use super::client::{LIMITS, Owned, decode_at_once, decode_in_pieces, streams};
use super::{Decoder, encode_close, encode_frame};

/// A socket whose peer has said everything already.
#[derive(Default)]
struct Socket {
    received: Cursor<Vec<u8>>,
    sent: Vec<u8>,
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.received.read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.sent.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

fn tungstenite(role: Role, received: Vec<u8>) -> WebSocket<Socket> {
    let socket = Socket {
        received: Cursor::new(received),
        sent: Vec::new(),
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMITS.message_bytes_max))
        .max_frame_size(Some(LIMITS.message_bytes_max));
    WebSocket::from_raw_socket(socket, role, Some(config))
}

impl From<tungstenite::Message> for Owned {
    fn from(message: tungstenite::Message) -> Owned {
        match message {
            tungstenite::Message::Text(text) => Owned::Text(text.as_str().into()),
            tungstenite::Message::Binary(bytes) => Owned::Binary(bytes.into()),
            tungstenite::Message::Ping(payload) => Owned::Ping(payload.into()),
            tungstenite::Message::Pong(payload) => Owned::Pong(payload.into()),
            tungstenite::Message::Close(close) => {
                Owned::Close(close.map(|close| (close.code.into(), close.reason.as_str().into())))
            }
            tungstenite::Message::Frame(frame) => panic!("a raw frame was read: {frame}"),
        }
    }
}

impl From<Owned> for tungstenite::Message {
    fn from(message: Owned) -> tungstenite::Message {
        match message {
            Owned::Text(text) => tungstenite::Message::Text(text.into()),
            Owned::Binary(bytes) => tungstenite::Message::Binary(bytes.into()),
            Owned::Ping(payload) => tungstenite::Message::Ping(payload.into()),
            Owned::Pong(payload) => tungstenite::Message::Pong(payload.into()),
            Owned::Close(close) => {
                tungstenite::Message::Close(close.map(|(code, reason)| CloseFrame {
                    code: CloseCode::from(code),
                    reason: reason.into(),
                }))
            }
        }
    }
}

/// All that tungstenite reads, up to the end, a close or an error.
fn read_all(role: Role, received: Vec<u8>) -> Vec<Owned> {
    let mut peer = tungstenite(role, received);
    let mut messages = Vec::new();
    while let Ok(message) = peer.read() {
        messages.push(message.into());
    }
    messages
}

fn closes() -> impl Strategy<Value = Owned> {
    let code = prop_oneof![Just(1000), Just(1001), Just(1011), 3000..5000_u16];
    proptest::option::of((code, "[a-z\u{20ac}]{0,41}")).prop_map(Owned::Close)
}

proptest! {
    #[test]
    fn what_a_tungstenite_client_sends_is_read(
        stream in streams(),
        close in closes(),
        piece_lengths in vec(1..5000_usize, 1..8),
    ) {
        let sent = [stream.messages, vec![close]].concat();
        let mut client = tungstenite(Role::Client, Vec::new());
        for message in &sent {
            client.send(message.clone().into()).unwrap();
        }
        let mut decoder = Decoder::default();
        let bytes = &client.get_ref().sent;
        let (messages, end) = decode_in_pieces(&mut decoder, bytes, &piece_lengths, &LIMITS);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(messages, sent);
    }

    #[test]
    fn a_tungstenite_client_reads_what_is_sent(stream in streams(), close in closes()) {
        let mut bytes = Vec::new();
        for message in &stream.messages {
            encode_frame(message.opcode(), &message.payload(), &mut bytes);
        }
        match &close {
            Owned::Close(Some((code, reason))) => encode_close(*code, reason, &mut bytes),
            none => encode_frame(none.opcode(), &[], &mut bytes),
        }
        prop_assert_eq!(read_all(Role::Client, bytes), [stream.messages, vec![close]].concat());
    }

    /// Bytes that are right or nearly right. tungstenite takes lengths in more bytes than they need
    /// and is not asked about what comes after a close; else it reads whatever is read here.
    #[test]
    fn a_tungstenite_server_reads_the_same(
        mut stream in streams(),
        flips in vec((any::<prop::sample::Index>(), 0..8_u32), 0..3),
    ) {
        stream.bytes.extend(b"\x82\x80\x00\x00\x00\x00");
        for (at, bit) in flips {
            *at.get_mut(&mut stream.bytes) ^= 1 << bit;
        }
        let (mut messages, _) = decode_at_once(&stream.bytes);
        let is_close = |message: &Owned| matches!(message, Owned::Close(_));
        if let Some(close) = messages.iter().position(is_close) {
            messages.truncate(close + 1);
        }
        let theirs = read_all(Role::Server, stream.bytes);
        prop_assert!(theirs.starts_with(&messages), "{theirs:?}\n{messages:?}");
    }
}
