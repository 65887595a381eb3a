//! What clients and server say of serials: where a subscription begins, where it stands, and what
//! is missing. No client of the protocol knows these members, and all of them pass over them.
//!
//! ```text
//! -> {"event":"pusher:subscribe","data":{"channel":"room","resume":{"epoch":"00c0ffee00c0ffee","serial":41}}}
//! <- {"event":"pusher_internal:subscription_succeeded","channel":"room",
//!     "data":"{\"epoch\":\"00c0ffee00c0ffee\",\"serial\":41,\"recovered\":true}"}
//! <- {"event":"my-event","channel":"room","data":"{}","serial":42}
//! ```

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::socket_id::SocketId;
use crate::wire::json::RawString;

/// The number of an event in its channel. Serials of one epoch are contiguous and begin with 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial {
    pub epoch: u64,
    pub number: u64,
}

/// From where on a subscriber wants a channel's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// From now on.
    #[default]
    Head,
    /// `"resume":{"epoch":"..","serial":N,"socket_id":".."}`: after the last one that it has. The socket id
    /// may be left out; it is that of the connection over which it had it, whose exceptions still hold.
    After(Serial, Option<SocketId>),
    /// `"rewind":N`: so many events back.
    Messages(u64),
    /// `"rewind":"2m"`: so far back.
    Seconds(u32),
}

/// Where a subscriber stands: its next event is the one after this serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub serial: Serial,
    /// If it resumed: what became of that.
    pub recovery: Option<Recovery>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// It misses nothing.
    Whole,
    /// The events from this one on are lost to it: up to a serial, or, of an epoch that is over, all.
    Missed { from: Serial, to: Option<u64> },
}

/// The digits of an epoch.
pub const EPOCH_DIGITS: usize = 16;

/// Reads an epoch: 16 hexadecimal digits.
pub fn parse_epoch(text: &str) -> Option<u64> {
    let is_digits = text.len() == EPOCH_DIGITS && text.bytes().all(|c| c.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_digits)
}

/// The fields of a subscription that say where it begins.
#[derive(Deserialize)]
pub(super) struct ResumeFields<'a> {
    #[serde(borrow)]
    epoch: RawString<'a>,
    serial: u64,
    #[serde(borrow)]
    socket_id: Option<RawString<'a>>,
}

/// Nothing if they do not say that.
pub(super) fn parse_begin(
    resume: Option<&ResumeFields<'_>>,
    rewind: Option<&RawValue>,
) -> Option<Begin> {
    if let Some(resume) = resume {
        let serial = Serial {
            epoch: parse_epoch(&resume.epoch.decoded())?,
            number: resume.serial,
        };
        let formerly = match &resume.socket_id {
            Some(id) => Some(id.decoded().parse().ok()?),
            None => None,
        };
        return Some(Begin::After(serial, formerly));
    }
    let Some(rewind) = rewind else {
        return Some(Begin::Head);
    };
    match rewind.get() {
        "null" => Some(Begin::Head),
        text if text.starts_with('"') => {
            let text = RawString::from_value(rewind).ok()?;
            parse_time(&text.decoded()).map(Begin::Seconds)
        }
        number => number.parse().ok().map(Begin::Messages),
    }
}

/// Reads what a [`Serial`] is written as where it stands alone: `EPOCH:NUMBER`.
pub fn parse_serial(text: &str) -> Option<Serial> {
    let (epoch, number) = text.split_once(':')?;
    let is_digits = number.bytes().all(|byte| byte.is_ascii_digit());
    Some(Serial {
        epoch: parse_epoch(epoch)?,
        number: number.parse().ok().filter(|_| is_digits)?,
    })
}

/// Reads a number of events or a time.
pub fn parse_rewind(text: &str) -> Option<Begin> {
    match text.parse() {
        Ok(messages) => Some(Begin::Messages(messages)),
        Err(_) => parse_time(text).map(Begin::Seconds),
    }
}

/// `90s`, `2m`, `1h`, `3d`: in seconds.
pub fn parse_time(text: &str) -> Option<u32> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_s: u32 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let is_digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = number.parse().ok().filter(|_| is_digits)?;
    number.checked_mul(unit_s)
}

impl fmt::Display for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}:{}", self.epoch, self.number)
    }
}

impl Position {
    /// The members that tell it, without braces, as they stand in a string.
    pub fn escaped_members(&self) -> String {
        let Serial { epoch, number } = self.serial;
        let mut text = format!(r#""epoch":"{epoch:016x}","serial":{number}"#);
        match self.recovery {
            None => {}
            Some(Recovery::Whole) => text.push_str(r#","recovered":true"#),
            Some(Recovery::Missed { from, to }) => {
                let to = to.map_or("null".to_string(), |to| to.to_string());
                text.push_str(&format!(
                    r#","recovered":false,"missed":{{"epoch":"{:016x}","from":{},"to":{to}}}"#,
                    from.epoch, from.number
                ));
            }
        }
        text.replace('"', r#"\""#)
    }
}

/// Appends the acknowledgement of a subscription to a channel with serials. The channel's name must
/// be a checked one.
pub fn encode_subscription_succeeded_at(out: &mut Vec<u8>, channel: &str, position: &Position) {
    out.extend_from_slice(br#"{"event":"pusher_internal:subscription_succeeded","channel":""#);
    out.extend_from_slice(channel.as_bytes());
    out.extend_from_slice(br#"","data":"{"#);
    out.extend_from_slice(position.escaped_members().as_bytes());
    out.extend_from_slice(br#"}"}"#);
}

/// Events that a subscriber does not get: those with these serials and all between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub first: u64,
    pub last: u64,
    pub reason: Reason,
}

/// Why it does not get them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// They are not retained any more.
    Evicted,
    /// It was too far behind, and goes on with the newest.
    Latest,
    /// It was too far behind, and there are newer events with the same keys.
    Superseded,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Reason::Evicted => "evicted",
            Reason::Latest => "latest",
            Reason::Superseded => "superseded",
        }
    }
}

/// Appends what a subscriber is told of a gap. The channel's name must be a checked one.
pub fn encode_gap(out: &mut Vec<u8>, channel: &str, epoch: u64, gap: Gap) {
    let (from, to, reason) = (gap.first, gap.last, gap.reason.text());
    let data = format!(r#"{{"epoch":"{epoch:016x}","from":{from},"to":{to},"reason":"{reason}"}}"#);
    let data = data.replace('"', r#"\""#);
    let text = format!(r#"{{"event":"{GAP}","channel":"{channel}","data":"{data}"}}"#);
    out.extend_from_slice(text.as_bytes());
}

/// The event that tells of a gap. It is none of Pusher's, so no client takes it for something else.
pub const GAP: &str = "outpour:gap";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn inner(text: &[u8]) -> (Value, Value) {
        let outer: Value = serde_json::from_slice(text).unwrap();
        let data = serde_json::from_str(outer["data"].as_str().unwrap()).unwrap();
        (outer, data)
    }

    #[test]
    fn a_position_says_what_is_missing() {
        let serial = |epoch, number| Serial { epoch, number };
        let data_of = |recovery| {
            let position = Position {
                serial: serial(0xC0FFEE, 41),
                recovery,
            };
            let mut text = Vec::new();
            encode_subscription_succeeded_at(&mut text, "room", &position);
            let (outer, data) = inner(&text);
            assert_eq!(outer["event"], "pusher_internal:subscription_succeeded");
            assert_eq!(outer["channel"], "room");
            data
        };
        let mut expected = json!({"epoch": "0000000000c0ffee", "serial": 41});
        assert_eq!(data_of(None), expected);
        expected["recovered"] = true.into();
        assert_eq!(data_of(Some(Recovery::Whole)), expected);
        expected["recovered"] = false.into();
        expected["missed"] = json!({"epoch": "0000000000000007", "from": 3, "to": 41});
        let missed = |to| {
            data_of(Some(Recovery::Missed {
                from: serial(7, 3),
                to,
            }))
        };
        assert_eq!(missed(Some(41)), expected);
        expected["missed"]["to"] = Value::Null;
        assert_eq!(missed(None), expected);
    }

    #[test]
    fn a_gap_names_the_first_and_the_last_that_is_missing() {
        let mut text = Vec::new();
        let gap = Gap {
            first: 5,
            last: 9,
            reason: Reason::Evicted,
        };
        encode_gap(&mut text, "room", 1, gap);
        let (outer, data) = inner(&text);
        assert_eq!(
            (&outer["event"], &outer["channel"]),
            (&json!(GAP), &json!("room"))
        );
        let expected =
            json!({"epoch": "0000000000000001", "from": 5, "to": 9, "reason": "evicted"});
        assert_eq!(data, expected);
    }

    #[test]
    fn times_and_epochs_are_read_strictly() {
        for (text, seconds) in [("90s", 90), ("2m", 120), ("1h", 3600), ("3d", 259_200)] {
            assert_eq!(parse_time(text), Some(seconds));
        }
        for text in ["", "m", "2", "-2m", "+2m", "2 m", "2w", "9999999d", "é"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(parse_rewind("12"), Some(Begin::Messages(12)));
        assert_eq!(parse_rewind("12m"), Some(Begin::Seconds(720)));
        assert_eq!(parse_rewind("-1"), None);
        let serial = Serial {
            epoch: 255,
            number: 12,
        };
        assert_eq!(serial.to_string(), "00000000000000ff:12");
        assert_eq!(parse_serial("00000000000000ff:12"), Some(serial));
        for text in ["", ":", "ff:12", "00000000000000ff:", "00000000000000ff:+1"] {
            assert_eq!(parse_serial(text), None, "{text}");
        }
        assert_eq!(parse_epoch("00000000000000fF"), Some(255));
        for text in ["", "ff", "+0000000000000ff", "000000000000000000ff"] {
            assert_eq!(parse_epoch(text), None, "{text}");
        }
    }
}
