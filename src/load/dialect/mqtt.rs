//! MQTT 3.1.1 as clients speak it over WebSocket, messages at most once (QoS 0).
//!
//! Source: the OASIS standard "MQTT Version 3.1.1"; sections are named below. A packet is a byte for its kind, its
//! length in one to four bytes, and so many bytes. WebSocket frames are no borders of packets (section 6).
//!
//! Stages of a [`Speaker`]: [`UPGRADING`] until the answer to the upgrade has come, then [`TALKING`].

use std::net::SocketAddr;

use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::frames::{append_close, append_masked};
use super::{Dialect, Fault, Heard, Speaker, pipe, upgrade};

const UPGRADING: u8 = 0;
const TALKING: u8 = 1;

/// The WebSocket subprotocol (section 6).
const SUBPROTOCOL: &str = "mqtt";

pub struct Mqtt {
    request: String,
}

impl Mqtt {
    pub fn new(path: &str, host: SocketAddr) -> Mqtt {
        Mqtt {
            request: upgrade::request(path, host, Some(SUBPROTOCOL)),
        }
    }
}

impl Dialect for Mqtt {
    /// Frames may hold many packets, or a piece of one.
    fn is_even(&self) -> bool {
        false
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
            let taken = upgrade::take(speaker, bytes, TALKING, Heard::Nothing)?;
            if taken.is_some() {
                append(out, &connect());
            }
            return Ok(taken);
        }
        pipe::take(speaker, bytes, out, packet_bytes, heard)
    }

    fn subscribe(&self, _: &mut Speaker, channel: &str, out: &mut Vec<u8>) {
        append(out, &subscribe(channel));
    }

    fn unsubscribe(&self, _: &mut Speaker, channel: &str, out: &mut Vec<u8>) {
        let mut body = PACKET_NUMBER.to_vec();
        body.extend(text(channel));
        append(out, &packet(0xa2, &body));
    }

    fn ask(&self, _: &mut Speaker, out: &mut Vec<u8>) {
        append(out, &packet(0xc0, &[]));
    }

    fn goodbye(&self, out: &mut Vec<u8>) {
        append(out, &packet(0xe0, &[]));
        append_close(out);
    }

    fn publish(&self, channel: &str, data: &str, out: &mut Vec<u8>) {
        append(out, &publish(channel, data));
    }
}

fn append(out: &mut Vec<u8>, packet: &[u8]) {
    append_masked(out, OpCode::Data(Data::Binary), packet);
}

/// Packets that want an answer have a number. There is one such packet at a time.
const PACKET_NUMBER: [u8; 2] = [0, 1];

/// A clean session without a keep-alive, so that an idle client stays, and without a name, so that the server gives
/// each its own (section 3.1.3.1): who comes with the name of another takes its place.
fn connect() -> Vec<u8> {
    let mut body = text("MQTT");
    let level = 4;
    let clean_session = 0b10;
    body.extend([level, clean_session, 0, 0]);
    body.extend(text(""));
    packet(0x10, &body)
}

/// One subscription at most once (section 3.8).
fn subscribe(channel: &str) -> Vec<u8> {
    let at_most_once = 0;
    let mut body = PACKET_NUMBER.to_vec();
    body.extend(text(channel));
    body.push(at_most_once);
    packet(0x82, &body)
}

/// At most once: no number, and no answer (section 3.3).
fn publish(channel: &str, data: &str) -> Vec<u8> {
    let mut body = text(channel);
    body.extend_from_slice(data.as_bytes());
    packet(0x30, &body)
}

fn packet_bytes(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let Some((_, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let length = length(rest)?.map(|(length, length_bytes)| 1 + length_bytes + length);
    Ok(length.filter(|length| *length <= bytes.len()))
}

/// What a whole packet says.
fn heard<'a>(_: &mut Speaker, packet: &'a [u8], _: &mut Vec<u8>) -> Result<Heard<'a>, Fault> {
    let (_, length_bytes) =
        length(&packet[1..])?.expect("the packet is whole: its length was told");
    let body = &packet[1 + length_bytes..];
    Ok(match (packet[0] >> 4, body) {
        (2, [_, 0]) => Heard::Greeted,
        (2, [_, code]) => return Err(Fault(format!("the connection was refused: code {code}"))),
        (9, [_, _, 0..=2]) => Heard::Subscribed,
        (9, [_, _, _]) => return Err(Fault("the subscription was refused".to_owned())),
        (3, _) if packet[0] & 0b0110 == 0 => Heard::Message(body),
        (3, _) => return Err(Fault("a message that wants an answer".to_owned())),
        // An unsubscription is confirmed, and what is asked behind it too.
        (11, [_, _]) => Heard::Nothing,
        (13, []) => Heard::Answered,
        (kind, body) => {
            let bytes = body.len();
            return Err(Fault(format!("a packet of kind {kind}, {bytes} bytes")));
        }
    })
}

/// A remaining length and how many bytes it takes: seven bits each, the lowest first (section 2.2.3).
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
    let mut length = 0;
    for (place, byte) in bytes.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((length, place + 1)));
        }
    }
    match bytes.len() < 4 {
        true => Ok(None),
        false => Err(Fault("a length of more than four bytes".to_owned())),
    }
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut left = body.len();
    loop {
        let low = (left & 0x7f) as u8;
        left >>= 7;
        if left == 0 {
            packet.push(low);
            break;
        }
        packet.push(low | 0x80);
    }
    packet.extend_from_slice(body);
    packet
}

/// A text with its length before it (section 1.5.3). Names of channels and clients are far from 64 KiB.
fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a name of less than 64 KiB");
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::websocket::{Opcode, encode_frame};

    #[test]
    fn a_client_says_what_the_standard_shows() {
        assert_eq!(connect(), b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00");
        assert_eq!(subscribe("room"), b"\x82\x09\x00\x01\x00\x04room\x00");
        assert_eq!(publish("room", "hi"), b"\x30\x08\x00\x04roomhi");
    }

    #[test]
    fn a_client_connects_after_the_upgrade_is_greeted_and_subscribed_and_hears_messages() {
        let mqtt = Mqtt::new("/mqtt", ([127, 0, 0, 1], 80).into());
        let (mut speaker, mut out) = (Speaker::default(), Vec::new());
        mqtt.open(&mut speaker, &mut out);
        let request = String::from_utf8_lossy(&out).into_owned();
        assert!(
            request.contains("Sec-WebSocket-Protocol: mqtt\r\n"),
            "{request}"
        );
        out.clear();
        let head = format!(
            "HTTP/1.1 101 \r\nSec-WebSocket-Accept: {}\r\n\r\n",
            upgrade::PROOF
        );
        let mut wire = head.into_bytes();
        let mut packets = b"\x20\x02\x00\x00\x90\x03\x00\x01\x00".to_vec();
        packets.extend(publish("room", "hello"));
        packets.extend(b"\xb0\x02\x00\x01\xd0\x00");
        encode_frame(Opcode::Binary, &packets, &mut wire);
        let (mut all, mut rest) = (Vec::new(), wire.as_slice());
        while let Some((length, heard)) = mqtt.take(&mut speaker, rest, &mut out).unwrap() {
            all.push(heard);
            rest = &rest[length..];
        }
        let expected = [
            Heard::Nothing,
            Heard::Nothing,
            Heard::Greeted,
            Heard::Subscribed,
            Heard::Message(b"\x00\x04roomhello"),
            Heard::Nothing,
            Heard::Answered,
        ];
        assert_eq!(all, expected);
        assert!(rest.is_empty());
        assert!(out.ends_with(&connect()));
    }

    #[test]
    fn a_refusal_and_what_is_no_mqtt_are_faults() {
        for packet in [
            &b"\x20\x02\x00\x05"[..],
            b"\x90\x03\x00\x01\x80",
            b"\x32\x08\x00\x04room\x00\x01",
            b"\x40\x02\x00\x01",
        ] {
            let fault = heard(&mut Speaker::default(), packet, &mut Vec::new());
            assert!(fault.is_err(), "{}", packet.escape_ascii());
        }
        assert!(packet_bytes(b"\x30\xff\xff\xff\xff\x01").is_err());
    }

    proptest! {
        #[test]
        fn a_packet_is_whole_when_its_last_byte_is_there(data in "[a-z]{0,300}", cut in 0_usize..300) {
            let whole = publish("room", &data);
            prop_assert_eq!(packet_bytes(&whole), Ok(Some(whole.len())));
            prop_assert_eq!(packet_bytes(&whole[..cut.min(whole.len() - 1)]), Ok(None));
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(Some(length)) = packet_bytes(&bytes) {
                prop_assert!(length <= bytes.len());
                let heard = heard(&mut Speaker::default(), &bytes[..length], &mut Vec::new());
                prop_assert!(heard.is_ok() || heard.is_err());
            }
        }
    }
}
