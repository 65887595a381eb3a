//! NATS as clients speak it over WebSocket: lines, and messages of a length that their line tells.
//!
//! Source: docs.nats.io, "Client Protocol". The server fills WebSocket frames with whatever is to be sent: a
//! frame may hold many messages, or a piece of one.
//! A client has one subscription.
//!
//! Stages of a [`Speaker`]: [`UPGRADING`], [`GREETING`] until the pong behind `CONNECT`, [`GREETED`] until the pong
//! behind `SUB`, then [`SUBSCRIBED`].

use std::net::SocketAddr;

use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::frames::append_masked;
use super::{Dialect, Fault, Heard, Speaker, pipe, upgrade};

const UPGRADING: u8 = 0;
const GREETING: u8 = 1;
const GREETED: u8 = 2;
const SUBSCRIBED: u8 = 3;

/// The one subscription of a client, as the server names it back.
const SUBSCRIPTION: &str = "1";
/// What a client is: one that wants no `+OK`, and speaks the protocol of 2.0.
const CONNECT: &str =
    r#"CONNECT {"verbose":false,"pedantic":false,"lang":"rust","version":"1.0","protocol":1}"#;
/// A line is no longer than this: what `INFO` takes, and more.
const LINE_BYTES_MAX: usize = 64 * 1024;
const END: &[u8] = b"\r\n";

pub struct Nats {
    request: String,
}

impl Nats {
    pub fn new(path: &str, host: SocketAddr) -> Nats {
        Nats {
            request: upgrade::request(path, host, None),
        }
    }
}

impl Dialect for Nats {
    /// Frames are as long as what is to be sent just then.
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
            return upgrade::take(speaker, bytes, GREETING, Heard::Nothing);
        }
        pipe::take(speaker, bytes, out, packet_bytes, heard)
    }

    fn subscribe(&self, _: &mut Speaker, channel: &str, out: &mut Vec<u8>) {
        append(out, &format!("SUB {channel} {SUBSCRIPTION}\r\nPING\r\n"));
    }

    fn unsubscribe(&self, _: &mut Speaker, _: &str, out: &mut Vec<u8>) {
        append(out, &format!("UNSUB {SUBSCRIPTION}\r\n"));
    }

    fn ask(&self, _: &mut Speaker, out: &mut Vec<u8>) {
        append(out, "PING\r\n");
    }

    fn heartbeat(&self, out: &mut Vec<u8>) {
        append(out, "PONG\r\n");
    }

    fn publish(&self, channel: &str, data: &str, out: &mut Vec<u8>) {
        append(out, &format!("PUB {channel} {}\r\n{data}\r\n", data.len()));
    }
}

fn append(out: &mut Vec<u8>, text: &str) {
    append_masked(out, OpCode::Data(Data::Binary), text.as_bytes());
}

fn packet_bytes(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    Ok(said(bytes)?.map(|(_, length)| length))
}

fn heard<'a>(
    speaker: &mut Speaker,
    packet: &'a [u8],
    out: &mut Vec<u8>,
) -> Result<Heard<'a>, Fault> {
    let said = said(packet)?.map(|(said, _)| said);
    Ok(
        match said.expect("the packet is whole: its length was told") {
            Said::Info if speaker.stage == GREETING => {
                append(out, &format!("{CONNECT}\r\nPING\r\n"));
                Heard::Nothing
            }
            // A server tells again what has changed.
            Said::Info | Said::Ok => Heard::Nothing,
            Said::Ping => {
                append(out, "PONG\r\n");
                Heard::Nothing
            }
            Said::Pong => match speaker.stage {
                GREETING => {
                    speaker.stage = GREETED;
                    Heard::Greeted
                }
                GREETED => {
                    speaker.stage = SUBSCRIBED;
                    Heard::Subscribed
                }
                _ => Heard::Answered,
            },
            Said::Message => Heard::Message(packet),
            Said::Error(why) => return Err(Fault(why.escape_ascii().to_string())),
        },
    )
}

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said<'a> {
    /// What it is and can; the first that it says.
    Info,
    Ping,
    /// All that was asked before has been carried out.
    Pong,
    Message,
    /// Good, to something that wanted to hear it.
    Ok,
    Error(&'a [u8]),
}

/// The first thing that is said in `bytes`, and its length; none while it is not all there. The error says what is
/// no NATS.
fn said(bytes: &[u8]) -> Result<Option<(Said<'_>, usize)>, Fault> {
    let Some(line_bytes) = bytes.windows(END.len()).position(|end| end == END) else {
        return match bytes.len() > LINE_BYTES_MAX {
            true => Err(Fault("a line without end".to_owned())),
            false => Ok(None),
        };
    };
    let line = &bytes[..line_bytes];
    let after = line_bytes + END.len();
    let (word, rest) = match line.iter().position(|byte| *byte == b' ') {
        Some(space) => (&line[..space], &line[space + 1..]),
        None => (line, &line[line_bytes..]),
    };
    let said = match word {
        b"MSG" => return message(bytes, rest, after),
        b"PING" => Said::Ping,
        b"PONG" => Said::Pong,
        b"INFO" => Said::Info,
        b"+OK" => Said::Ok,
        b"-ERR" => Said::Error(rest),
        other => {
            let word = other.escape_ascii();
            return Err(Fault(format!("`{word}` is no word of NATS")));
        }
    };
    Ok(Some((said, after)))
}

/// `SUBJECT SUBSCRIPTION [REPLY-TO] BYTES`, and behind the line so many bytes and a line end.
fn message<'a>(
    bytes: &[u8],
    line: &[u8],
    after: usize,
) -> Result<Option<(Said<'a>, usize)>, Fault> {
    let wrong = || Fault(format!("`MSG {}` tells no length", line.escape_ascii()));
    let last = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let length = std::str::from_utf8(last).map_err(|_| wrong())?;
    let length: usize = length.parse().map_err(|_| wrong())?;
    let end = after.saturating_add(length);
    let Some(ending) = bytes.get(end..end.saturating_add(END.len())) else {
        return Ok(None);
    };
    if ending != END {
        return Err(Fault("a message is longer than its line says".to_owned()));
    }
    Ok(Some((Said::Message, end + END.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::websocket::{Opcode, encode_frame};

    /// What a client hears of a server that says this in one frame after the upgrade, and what it says itself.
    fn talk(speaker: &mut Speaker, said: &[u8]) -> (Vec<String>, Vec<u8>) {
        let nats = Nats::new("/", ([127, 0, 0, 1], 80).into());
        let (mut wire, mut out, mut all) = (Vec::new(), Vec::new(), Vec::new());
        encode_frame(Opcode::Binary, said, &mut wire);
        let mut rest = wire.as_slice();
        while let Some((length, heard)) = nats.take(speaker, rest, &mut out).unwrap() {
            all.push(format!("{heard:?}"));
            rest = &rest[length..];
        }
        (all, out)
    }

    fn speaker(stage: u8) -> Speaker {
        Speaker {
            stage,
            ..Speaker::default()
        }
    }

    #[test]
    fn a_client_is_greeted_by_the_first_pong_and_subscribed_by_the_second() {
        let mut speaker = speaker(GREETING);
        let (heard, out) = talk(&mut speaker, b"INFO {\"max_payload\":1048576}\r\n");
        assert_eq!(heard, ["Nothing", "Nothing"]);
        assert!(out.ends_with(b"}\r\nPING\r\n"));
        let (heard, _) = talk(&mut speaker, b"PONG\r\n");
        assert_eq!(heard, ["Nothing", "Greeted"]);
        let (heard, out) = talk(&mut speaker, b"PONG\r\nPING\r\nPONG\r\nINFO {}\r\n");
        assert_eq!(
            heard,
            ["Nothing", "Subscribed", "Nothing", "Answered", "Nothing"]
        );
        assert_eq!(out, b"\x82\x86\0\0\0\0PONG\r\n");
    }

    #[test]
    fn many_messages_of_one_frame_are_heard_one_by_one_with_their_channel() {
        let said = b"MSG room 1 5\r\nhel\r\n\r\nMSG room 1 reply 0\r\n\r\n";
        let (heard, _) = talk(&mut speaker(SUBSCRIBED), said);
        let message = |bytes: &[u8]| format!("{:?}", Heard::Message(bytes));
        let first = message(b"MSG room 1 5\r\nhel\r\n\r\n");
        let second = message(b"MSG room 1 reply 0\r\n\r\n");
        assert_eq!(heard, ["Nothing", &first, &second]);
    }

    #[test]
    fn a_message_is_whole_when_its_last_byte_is_there() {
        let whole = b"MSG room 1 4\r\nabcd\r\n";
        for length in 0..whole.len() {
            assert_eq!(said(&whole[..length]), Ok(None), "{length} bytes");
        }
        assert_eq!(said(whole), Ok(Some((Said::Message, whole.len()))));
    }

    #[test]
    fn an_error_and_what_is_no_nats_are_faults() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\n"[..],
            b"MSG room 1 many\r\n",
            b"MSG\r\n",
            b"MSG room 1 2\r\nabcd\r\n",
            b"\r\n",
            &[b'x'; LINE_BYTES_MAX + 1],
        ] {
            assert!(said(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        assert_eq!(said(b"MSG room 1 18446744073709551615\r\nab\r\n"), Ok(None));
        let fault = heard(
            &mut speaker(SUBSCRIBED),
            b"-ERR 'Slow Consumer'\r\n",
            &mut Vec::new(),
        );
        assert_eq!(fault, Err(Fault("\\'Slow Consumer\\'".to_owned())));
    }

    #[test]
    fn a_publish_tells_its_length() {
        let mut out = Vec::new();
        Nats::new("/", ([127, 0, 0, 1], 80).into()).publish("room", "hello", &mut out);
        assert!(out.ends_with(b"PUB room 5\r\nhello\r\n"));
    }
}
