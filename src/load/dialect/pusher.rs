//! The Pusher Channels protocol, version 7, over WebSocket.
//!
//! Stages of a [`Speaker`]: [`UPGRADING`] until the answer to the upgrade has come, then [`TALKING`].
//!
//! A client may name its first channel in its address. It is then greeted at once, as far as the others can tell: its
//! upgrade is its subscription.

use std::net::SocketAddr;

use serde::Deserialize;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::frames::{self, append_masked};
use super::{Dialect, Fault, Heard, Speaker, upgrade};
use crate::load::orders::{Access, Channels, Pusher};
use crate::load::stamp::Stamp;
use crate::wire::signature::Signer;

const UPGRADING: u8 = 0;
const TALKING: u8 = 1;

pub struct PusherDialect {
    /// What every client asks for that subscribes by a message.
    request: String,
    path: String,
    host: SocketAddr,
    subscribes_in_address: bool,
    key: String,
    signer: Option<Signer>,
    access: Access,
}

/// As much of an event as a client has to know.
#[derive(Deserialize)]
struct Event<'a> {
    event: &'a str,
    data: Option<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
struct Established {
    socket_id: String,
}

impl PusherDialect {
    pub fn new(pusher: &Pusher, host: SocketAddr, channels: &Channels) -> PusherDialect {
        let access = channels.access();
        let has_first = matches!(channels, Channels::Shared { .. });
        PusherDialect {
            request: upgrade::request(&pusher.path, host, None),
            path: pusher.path.clone(),
            host,
            subscribes_in_address: pusher.subscribes_in_address
                && has_first
                && access == Access::Public,
            key: pusher.key.clone(),
            signer: pusher
                .secret
                .as_ref()
                .map(|secret| Signer::new(secret.as_bytes())),
            access,
        }
    }

    fn event<'a>(
        &self,
        speaker: &mut Speaker,
        payload: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Heard<'a>, Fault> {
        if Stamp::find(payload).is_some() {
            return Ok(Heard::Message(payload));
        }
        let said = || Fault(String::from_utf8_lossy(payload).into_owned());
        let event: Event<'_> = serde_json::from_slice(payload).map_err(|_| said())?;
        Ok(match event.event {
            "pusher:connection_established" if self.subscribes_in_address => Heard::Nothing,
            "pusher:connection_established" => {
                if self.access != Access::Public {
                    let established = established(event.data).ok_or_else(said)?;
                    speaker.name = Some(established.socket_id.into());
                }
                Heard::Greeted
            }
            "pusher_internal:subscription_succeeded" => Heard::Subscribed,
            "pusher:pong" => Heard::Answered,
            "pusher:ping" => {
                append_text(out, r#"{"event":"pusher:pong","data":{}}"#);
                Heard::Nothing
            }
            "pusher:error" | "pusher:subscription_error" => return Err(said()),
            other if other.starts_with("pusher") => Heard::Nothing,
            _ => Heard::Message(payload),
        })
    }

    /// `KEY:signature`, and the user where the channel has members.
    fn proof(&self, speaker: &Speaker, channel: &str) -> (String, Option<String>) {
        let (Some(signer), Some(name)) = (&self.signer, &speaker.name) else {
            return (String::new(), None);
        };
        let user = match self.access {
            Access::Public | Access::Private => None,
            Access::Presence { users } => {
                let user = speaker.client % users.max(1);
                Some(format!(r#"{{"user_id":"user-{user:07}"}}"#))
            }
        };
        let mut signed = format!("{name}:{channel}");
        if let Some(user) = &user {
            signed.push(':');
            signed.push_str(user);
        }
        let signature = signer.sign(&[signed.as_bytes()]);
        let signature = String::from_utf8_lossy(&signature).into_owned();
        (format!("{}:{signature}", self.key), user)
    }
}

impl Dialect for PusherDialect {
    fn is_greeted_at_once(&self) -> bool {
        self.subscribes_in_address
    }

    /// News of members are of another length than messages.
    fn is_even(&self) -> bool {
        !matches!(self.access, Access::Presence { .. })
    }

    fn open(&self, speaker: &mut Speaker, out: &mut Vec<u8>) {
        speaker.stage = UPGRADING;
        if !self.subscribes_in_address {
            out.extend_from_slice(self.request.as_bytes());
        }
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
            OpCode::Data(Data::Text) => self.event(speaker, frame.payload, out)?,
            OpCode::Control(Control::Ping) => {
                append_masked(out, OpCode::Control(Control::Pong), frame.payload);
                Heard::Nothing
            }
            OpCode::Control(Control::Pong) => Heard::Nothing,
            OpCode::Control(Control::Close) => Heard::Goodbye(frames::close_words(frame.payload)),
            OpCode::Data(Data::Continue | Data::Binary | Data::Reserved(_))
            | OpCode::Control(Control::Reserved(_)) => {
                return Err(Fault(format!("an unexpected frame: {:?}", frame.opcode)));
            }
        };
        Ok(Some((frame.length, heard)))
    }

    fn subscribe(&self, speaker: &mut Speaker, channel: &str, out: &mut Vec<u8>) {
        if self.subscribes_in_address {
            let separator = if self.path.contains('?') { '&' } else { '?' };
            let path = format!("{}{separator}subscribe={channel}", self.path);
            out.extend_from_slice(upgrade::request(&path, self.host, None).as_bytes());
            return;
        }
        let (auth, user) = self.proof(speaker, channel);
        let user = user.map_or(String::new(), |user| {
            format!(r#","channel_data":{}"#, serde_json::Value::String(user))
        });
        append_text(
            out,
            &format!(
                r#"{{"event":"pusher:subscribe","data":{{"auth":"{auth}","channel":"{channel}"{user}}}}}"#
            ),
        );
    }

    fn unsubscribe(&self, _: &mut Speaker, channel: &str, out: &mut Vec<u8>) {
        append_text(
            out,
            &format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{channel}"}}}}"#),
        );
    }

    fn ask(&self, _: &mut Speaker, out: &mut Vec<u8>) {
        append_text(out, r#"{"event":"pusher:ping","data":{}}"#);
    }

    fn publish(&self, channel: &str, data: &str, out: &mut Vec<u8>) {
        append_text(
            out,
            &format!(r#"{{"event":"client-m","channel":"{channel}","data":"{data}"}}"#),
        );
    }
}

/// `data` is a text with JSON in it; some servers send the object itself.
fn established(data: Option<&serde_json::value::RawValue>) -> Option<Established> {
    let data = data?.get();
    match serde_json::from_str::<String>(data) {
        Ok(text) => serde_json::from_str(&text).ok(),
        Err(_) => serde_json::from_str(data).ok(),
    }
}

fn append_text(out: &mut Vec<u8>, text: &str) {
    append_masked(out, OpCode::Data(Data::Text), text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::upgrade::PROOF;
    use super::*;
    use crate::wire::websocket::{Opcode, encode_frame};

    fn dialect(access: Access) -> PusherDialect {
        speaking(&Pusher::new("key", Some("7ad3773142a6692b25b8")), access)
    }

    fn speaking(pusher: &Pusher, access: Access) -> PusherDialect {
        let channels = Channels::Shared {
            access,
            name: "a".to_owned(),
            count: 1,
        };
        PusherDialect::new(pusher, ([127, 0, 0, 1], 80).into(), &channels)
    }

    fn text(text: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        encode_frame(Opcode::Text, text.as_bytes(), &mut frame);
        frame
    }

    /// What a client hears when these bytes come one by one, and what it answers.
    fn heard(
        dialect: &PusherDialect,
        speaker: &mut Speaker,
        bytes: &[u8],
    ) -> (Vec<String>, Vec<u8>) {
        let (mut unread, mut out, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for byte in bytes {
            unread.push(*byte);
            let taken = dialect.take(speaker, &unread, &mut out).unwrap();
            if let Some((length, heard)) = taken {
                all.push(format!("{heard:?}").chars().take(10).collect());
                unread.drain(..length);
            }
        }
        assert!(unread.is_empty());
        (all, out)
    }

    #[test]
    fn a_client_is_greeted_subscribed_and_hears_messages_however_the_bytes_are_cut() {
        let dialect = dialect(Access::Public);
        let mut speaker = Speaker::default();
        let mut bytes =
            format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {PROOF}\r\n\r\n")
                .into_bytes();
        bytes.extend(text(
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\"}"}"#,
        ));
        bytes.extend(text(
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"a","data":"{}"}"#,
        ));
        let stamp = Stamp {
            sequence: 1,
            due_ns: 2,
        };
        let data = stamp.data(64);
        bytes.extend(text(&format!(
            r#"{{"event":"m","channel":"a","data":"{data}"}}"#
        )));
        bytes.extend(text(r#"{"event":"pusher:ping","data":{}}"#));
        bytes.extend(text(r#"{"event":"pusher:pong","data":{}}"#));
        bytes.extend([0x88, 2, 0x10, 0x04]);
        let (all, out) = heard(&dialect, &mut speaker, &bytes);
        let expected = [
            "Nothing",
            "Greeted",
            "Subscribed",
            "Message([1",
            "Nothing",
            "Answered",
            "Goodbye(\"c",
        ];
        assert_eq!(
            all,
            expected.map(|text| text.chars().take(10).collect::<String>())
        );
        assert!(out.ends_with(br#"{"event":"pusher:pong","data":{}}"#));
    }

    #[test]
    fn a_client_that_subscribes_in_its_address_says_no_more_and_is_subscribed() {
        let mut pusher = Pusher::new("key", None);
        pusher.subscribes_in_address = true;
        let dialect = speaking(&pusher, Access::Public);
        let (mut speaker, mut out) = (Speaker::default(), Vec::new());
        dialect.open(&mut speaker, &mut out);
        assert!(out.is_empty() && dialect.is_greeted_at_once());
        dialect.subscribe(&mut speaker, "a", &mut out);
        let asked = String::from_utf8(out).unwrap();
        assert!(asked.starts_with("GET /app/key?protocol=7&"), "{asked}");
        assert!(asked.contains("&subscribe=a HTTP/1.1\r\n"), "{asked}");
        let mut bytes =
            format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {PROOF}\r\n\r\n")
                .into_bytes();
        for event in [
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\"}"}"#,
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"a","data":"{}"}"#,
        ] {
            bytes.extend(text(event));
        }
        let (all, out) = heard(&dialect, &mut speaker, &bytes);
        assert_eq!(all, ["Nothing", "Nothing", "Subscribed"]);
        assert!(out.is_empty());
        // What is signed needs the greeting first.
        assert!(!speaking(&pusher, Access::Private).is_greeted_at_once());
    }

    #[test]
    fn what_the_server_refuses_is_a_fault_in_its_words() {
        let mut speaker = Speaker {
            stage: TALKING,
            ..Speaker::default()
        };
        let frame = text(r#"{"event":"pusher:error","data":{"code":4001,"message":"no app"}}"#);
        let fault = dialect(Access::Public).take(&mut speaker, &frame, &mut Vec::new());
        assert!(fault.unwrap_err().0.contains("no app"));
        speaker.stage = UPGRADING;
        let fault =
            dialect(Access::Public).take(&mut speaker, b"HTTP/1.1 404\r\n\r\n", &mut Vec::new());
        assert!(fault.unwrap_err().0.contains("404"));
    }

    /// The vector of the documentation's "Auth signatures".
    #[test]
    fn private_channels_are_signed_as_documented() {
        let dialect = dialect(Access::Private);
        let mut speaker = Speaker {
            name: Some("1234.1234".into()),
            ..Speaker::default()
        };
        let mut out = Vec::new();
        dialect.subscribe(&mut speaker, "private-foobar", &mut out);
        let said = String::from_utf8_lossy(&out);
        assert!(
            said.contains(
                "\"key:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4\""
            )
        );
    }
}
