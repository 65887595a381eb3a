//! A reader that is dropped and comes back: bytes in, serials checked one by one.
//!
//! ```text
//! Upgrading --101--> Greeting --greeted, subscribes--> Subscribing --its answer--> Reading
//!                                                                   cut: Upgrading again, and it resumes
//! ```
//!
//! An event is recognised by its exact beginning and its exact end, `,"serial":N}`; everything else
//! is parsed. Whatever is not the next event, or the answer that is due, is a fault: an announced
//! gap too.

use outpour::load::dialect::{Fault, frames, upgrade};
use outpour::load::stamp::Stamp;
use serde::Deserialize;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::rolling::{History, Rolling};

/// What all readers have in common.
pub struct Subject {
    pub channel: String,
    /// How the text of every event begins.
    beginning: Vec<u8>,
}

impl Subject {
    pub fn new(channel: &str, event: &str) -> Subject {
        let beginning = format!(r#"{{"event":"{event}","channel":"{channel}","data":""#);
        Subject {
            channel: channel.to_owned(),
            beginning: beginning.into_bytes(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Upgrading,
    Greeting,
    Subscribing,
    Reading,
}

/// One reader, over all its connections.
#[derive(Debug)]
pub struct Reader {
    pub stage: Stage,
    /// The serial of the last event that it has, and of the last before it began.
    pub serial: u64,
    pub began_at: u64,
    pub checksum: Rolling,
    pub events: u64,
    epoch: Option<String>,
}

/// How far some bytes were read.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    pub bytes: usize,
    /// What is to be sent.
    pub say: Option<Vec<u8>>,
    /// It has the event up to which it was to read; the bytes behind that are not read.
    pub is_there: bool,
}

impl Reader {
    pub fn new() -> Reader {
        Reader {
            stage: Stage::Upgrading,
            serial: 0,
            began_at: 0,
            checksum: Rolling::default(),
            events: 0,
            epoch: None,
        }
    }

    /// Its connection was cut.
    pub fn cut(&mut self) {
        self.stage = Stage::Upgrading;
    }

    /// Reads whole frames, up to the event with the serial `up_to`. The reader whose history is kept
    /// checks the publisher's own numbers too.
    pub fn read(
        &mut self,
        bytes: &[u8],
        subject: &Subject,
        up_to: u64,
        mut history: Option<&mut Numbered>,
    ) -> Result<Read, Fault> {
        let mut read = Read {
            bytes: 0,
            say: None,
            is_there: false,
        };
        if self.stage == Stage::Upgrading {
            let Some(head) = upgrade::agreed(bytes)? else {
                return Ok(read);
            };
            self.stage = Stage::Greeting;
            read.bytes = head;
        }
        while let Some(frame) = frames::first(&bytes[read.bytes..])? {
            read.bytes += frame.length;
            if frame.opcode != OpCode::Data(Data::Text) {
                return Err(Fault(format!("a frame of kind {:?}", frame.opcode)));
            }
            let text = frame.payload;
            if self.stage == Stage::Reading && text.starts_with(&subject.beginning) {
                self.take(text)?;
                if let Some(history) = history.as_deref_mut() {
                    history.take(text)?;
                }
                if self.serial == up_to {
                    read.is_there = true;
                    return Ok(read);
                }
            } else if let Some(say) = self.converse(text, subject)? {
                read.say = Some(say);
            }
        }
        Ok(read)
    }

    /// An event, which must be the next.
    fn take(&mut self, text: &[u8]) -> Result<(), Fault> {
        let serial = serial_of(text).ok_or_else(|| unexpected(text))?;
        if serial != self.serial + 1 {
            let last = self.serial;
            return Err(Fault(format!("serial {serial} behind {last}")));
        }
        self.serial = serial;
        self.events += 1;
        self.checksum.push(text);
        Ok(())
    }

    /// The greeting, or the answer to the subscription; gives what is to be said to it.
    fn converse(&mut self, text: &[u8], subject: &Subject) -> Result<Option<Vec<u8>>, Fault> {
        let message: Message =
            serde_json::from_slice(text).map_err(|error| Fault(error.to_string()))?;
        match (self.stage, message.event) {
            (Stage::Greeting, "pusher:connection_established") => {
                self.stage = Stage::Subscribing;
                Ok(Some(self.subscription(subject)))
            }
            (Stage::Subscribing, "pusher_internal:subscription_succeeded") => {
                let at: Position = serde_json::from_str(&message.data)
                    .map_err(|error| Fault(error.to_string()))?;
                self.begin(at)?;
                self.stage = Stage::Reading;
                Ok(None)
            }
            (_, _) => Err(unexpected(text)),
        }
    }

    /// Where it begins, or goes on.
    fn begin(&mut self, at: Position) -> Result<(), Fault> {
        let Some(epoch) = &self.epoch else {
            (self.serial, self.began_at) = (at.serial, at.serial);
            self.epoch = Some(at.epoch);
            return Ok(());
        };
        let is_resumed = at.recovered == Some(true) && at.serial == self.serial;
        if !is_resumed || at.epoch != *epoch {
            return Err(Fault(format!(
                "it came back to {at:?}, and was at {} of {epoch}",
                self.serial
            )));
        }
        Ok(())
    }

    fn subscription(&self, subject: &Subject) -> Vec<u8> {
        let resume = self.epoch.as_ref().map_or(String::new(), |epoch| {
            format!(
                r#","resume":{{"epoch":"{epoch}","serial":{}}}"#,
                self.serial
            )
        });
        let text = format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":"{}"{resume}}}}}"#,
            subject.channel
        );
        let mut frame = Vec::new();
        frames::append_masked(&mut frame, OpCode::Data(Data::Text), text.as_bytes());
        frame
    }
}

/// The history of the reader that gets everything; each event carries the number that its publisher
/// gave it, which begins with 0 in every run of the publisher's.
#[derive(Debug, Default)]
pub struct Numbered {
    pub history: History,
    sequence: Option<u64>,
}

impl Numbered {
    fn take(&mut self, text: &[u8]) -> Result<(), Fault> {
        let stamp = Stamp::find(text).ok_or_else(|| unexpected(text))?;
        let next = self.sequence.map_or(0, |sequence| sequence + 1);
        if stamp.sequence != next && stamp.sequence != 0 {
            let sequence = stamp.sequence;
            return Err(Fault(format!(
                "the publisher's number {sequence}, not {next}"
            )));
        }
        self.sequence = Some(stamp.sequence);
        self.history.push(text);
        Ok(())
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    event: &'a str,
    #[serde(default)]
    data: String,
}

#[derive(Debug, Deserialize)]
struct Position {
    epoch: String,
    serial: u64,
    recovered: Option<bool>,
}

/// The serial at an event's very end.
fn serial_of(text: &[u8]) -> Option<u64> {
    const BEFORE: &[u8] = br#","serial":"#;
    let text = text.strip_suffix(b"}")?;
    let digits = text
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (before, digits) = text.split_at(text.len() - digits);
    if !before.ends_with(BEFORE) || digits.is_empty() || digits.len() > 19 || digits[0] == b'0' {
        return None;
    }
    let digits = digits.iter();
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

fn unexpected(text: &[u8]) -> Fault {
    Fault(format!("unexpected: {}", String::from_utf8_lossy(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"event":"pusher:connection_established","data":"{}"}"#;

    fn frame(text: &str) -> Vec<u8> {
        let length = text.len() as u16;
        let mut frame = vec![0x81];
        match length {
            0..126 => frame.push(length as u8),
            126.. => {
                frame.push(126);
                frame.extend(length.to_be_bytes());
            }
        }
        frame.extend(text.as_bytes());
        frame
    }

    fn answer(serial: u64, more: &str) -> Vec<u8> {
        let data = format!(r#"{{\"epoch\":\"e\",\"serial\":{serial}{more}}}"#);
        frame(&format!(
            r#"{{"event":"pusher_internal:subscription_succeeded","channel":"fan","data":"{data}"}}"#
        ))
    }

    fn event(serial: u64) -> Vec<u8> {
        let data = Stamp {
            sequence: serial - 1,
            due_ns: 1,
        }
        .data(40);
        frame(&format!(
            r#"{{"event":"m","channel":"fan","data":"{data}","serial":{serial}}}"#
        ))
    }

    /// A reader that was told all this.
    fn told(parts: &[Vec<u8>]) -> (Reader, Result<Read, Fault>) {
        let mut reader = Reader::new();
        reader.stage = Stage::Greeting;
        let bytes = [frame(GREETING), parts.concat()].concat();
        let read = reader.read(&bytes, &Subject::new("fan", "m"), u64::MAX, None);
        (reader, read)
    }

    #[test]
    fn events_are_taken_one_after_the_other() {
        let (reader, read) = told(&[answer(4, ""), event(5), event(6), vec![0x81, 9]]);
        assert_eq!((reader.serial, reader.began_at, reader.events), (6, 4, 2));
        let read = read.unwrap();
        assert!(!read.is_there);
        let say = String::from_utf8_lossy(read.say.as_deref().unwrap_or_default()).into_owned();
        assert!(say.ends_with(r#"{"event":"pusher:subscribe","data":{"channel":"fan"}}"#));
    }

    #[test]
    fn what_is_not_the_next_event_is_a_fault() {
        let gap = frame(r#"{"event":"outpour:gap","channel":"fan","data":"{}"}"#);
        let unnumbered = frame(r#"{"event":"m","channel":"fan","data":"x"}"#);
        for wrong in [event(7), event(5), event(4), gap, unnumbered, answer(5, "")] {
            let (_, read) = told(&[answer(4, ""), event(5), wrong]);
            assert!(read.is_err(), "{read:?}");
        }
        assert!(told(&[event(1)]).1.is_err(), "before the answer");
    }

    #[test]
    fn one_who_comes_back_says_where_it_was_and_must_be_there() {
        let subject = Subject::new("fan", "m");
        for (serial, more, is_right) in [
            (5, r#",\"recovered\":true"#, true),
            (6, r#",\"recovered\":true"#, false),
            (5, r#",\"recovered\":false"#, false),
            (5, "", false),
        ] {
            let (mut reader, _) = told(&[answer(4, ""), event(5)]);
            reader.cut();
            reader.stage = Stage::Greeting;
            let bytes = [frame(GREETING), answer(serial, more), event(6)].concat();
            let read = reader.read(&bytes, &subject, u64::MAX, None);
            assert_eq!(read.is_ok(), is_right, "{read:?}");
            if let Ok(read) = read {
                let say = read.say.unwrap();
                assert!(say.ends_with(br#""resume":{"epoch":"e","serial":5}}}"#));
                assert_eq!((reader.serial, reader.events), (6, 2));
            }
        }
    }

    #[test]
    fn it_reads_no_further_than_it_is_to() {
        let (mut reader, _) = told(&[answer(4, "")]);
        let bytes = [event(5), event(6), event(7)].concat();
        let mut numbered = Numbered::default();
        let read = reader.read(&bytes, &Subject::new("fan", "m"), 6, Some(&mut numbered));
        assert!(read.is_err(), "the publisher's numbers begin with 0");
        let (mut reader, _) = told(&[answer(4, "")]);
        let read = reader.read(&bytes, &Subject::new("fan", "m"), 6, None);
        assert_eq!(read.unwrap().bytes, event(5).len() + event(6).len());
    }

    #[test]
    fn a_serial_stands_at_the_very_end() {
        let of = |text: &str| serial_of(text.as_bytes());
        assert_eq!(of(r#"{"data":"","serial":120}"#), Some(120));
        for wrong in [
            r#"{"data":"","serial":12} "#,
            r#"{"data":"","serial":}"#,
            r#"{"data":"","serial":012}"#,
            r#"{"data":"","serial":-1}"#,
            r#"{"data":"12}"#,
            r#"{"data":"\"serial\":12"}"#,
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
