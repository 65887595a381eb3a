//! Shows what is in a journal, without changing anything: it may be one that a server writes to.

use std::io::{self, Write};
use std::path::Path;

use super::JournalError;
use super::continuity::{Continuity, Order};
use super::record::{Content, Entry};
use super::recovery::{jump, loss};
use super::scan::Found;
use super::walk::{self, Segment};
use crate::hub::letter::Origin;
use crate::wire::json::write_string;

/// Writes a line for each segment and for all damage, with its file and offset. True if there is none.
pub fn verify(directory: &Path, out: &mut impl Write) -> Result<bool, JournalError> {
    let mut continuity = Continuity::default();
    let (mut segments, mut records, mut damages) = (0_u64, 0_u64, 0_u64);
    let mut counted = Counted::default();
    walk::walk(directory, |segment, found| {
        match found {
            Found::Record { offset, record } => {
                records += 1;
                counted.see(record.sequence);
                match record.content {
                    Content::Event(entry) => {
                        if let (_, Order::Jumps { expected }) = continuity.see(&entry) {
                            damages += 1;
                            say(out, segment, offset, &jump(&entry, expected))?;
                        }
                    }
                    Content::Lost { next } => {
                        continuity.see_lost();
                        let what = loss(record.sequence, next);
                        say(out, segment, offset, &format!("repaired: {what}"))?;
                    }
                    Content::End => {}
                }
            }
            Found::Damage {
                offset, lost, next, ..
            } => {
                damages += 1;
                // The channels' events may jump here, which is the same damage.
                continuity.see_lost();
                say(out, segment, offset, &loss(lost, next))?;
            }
            Found::Foreign { .. } => unreachable!("the walk ends with it"),
            Found::Torn { offset } => {
                let bytes = segment.bytes - offset as u64;
                let what = format!("{bytes} bytes of a write that is not finished or was cut off");
                say(out, segment, offset, &what)?;
            }
            Found::End { .. } => {}
        }
        if let Found::Torn { .. } | Found::End { .. } = found {
            segments += 1;
            let counted = std::mem::take(&mut counted);
            written(writeln!(out, "{}: {counted}", segment.path.display()))?;
        }
        Ok(())
    })?;
    let channels = continuity.channels();
    written(writeln!(
        out,
        "{segments} segments, {records} records, {channels} channels, {damages} damaged places"
    ))?;
    Ok(damages == 0)
}

/// Writes each event as a line of JSON.
pub fn dump(directory: &Path, out: &mut impl Write) -> Result<(), JournalError> {
    let mut line = Vec::new();
    walk::walk(directory, |segment, found| {
        match found {
            Found::Record { record, .. } => {
                line.clear();
                let sequence = record.sequence;
                write_line(&mut line, sequence, &record.content);
                line.push(b'\n');
                written(out.write_all(&line))?;
            }
            Found::Damage {
                offset, lost, next, ..
            } => {
                return Err(JournalError::Damaged {
                    directory: directory.into(),
                    path: segment.path.clone(),
                    offset: offset as u64,
                    what: loss(lost, next),
                });
            }
            Found::Foreign { .. } => unreachable!("the walk ends with it"),
            Found::Torn { .. } | Found::End { .. } => {}
        }
        Ok(())
    })?;
    Ok(())
}

fn write_line(line: &mut Vec<u8>, sequence: u64, content: &Content<'_>) {
    line.extend_from_slice(format!("{{\"sequence\":{sequence}").as_bytes());
    match content {
        Content::Event(entry) => write_event(line, entry),
        Content::Lost { next } => {
            line.extend_from_slice(format!(",\"lost_until\":{next}").as_bytes());
        }
        Content::End => line.extend_from_slice(b",\"end\":true"),
    }
    line.push(b'}');
}

fn write_event(line: &mut Vec<u8>, entry: &Entry<'_>) {
    let origin = match entry.origin {
        Origin::Api => "api",
        Origin::Client => "client",
        Origin::Server => "server",
        Origin::Message => "message",
    };
    let Entry {
        epoch,
        serial,
        time_ms,
        ..
    } = entry;
    let numbers = format!(
        ",\"epoch\":{epoch},\"serial\":{serial},\"time_ms\":{time_ms},\"origin\":\"{origin}\""
    );
    line.extend_from_slice(numbers.as_bytes());
    let texts = [
        ("app_id", entry.app_id),
        ("channel", entry.channel),
        ("idempotency_key", entry.idempotency_key),
    ];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        line.extend_from_slice(format!(",\"{name}\":").as_bytes());
        write_string(text, line);
    }
    let tokens = [
        ("event", entry.name),
        ("user_id", entry.user_id),
        ("data", entry.data),
    ];
    for (name, token) in tokens.into_iter().filter(|(_, token)| !token.is_empty()) {
        line.extend_from_slice(format!(",\"{name}\":").as_bytes());
        line.extend_from_slice(token.as_bytes());
    }
}

/// The records of a segment.
#[derive(Default)]
struct Counted {
    records: u64,
    first: u64,
    last: u64,
}

impl Counted {
    fn see(&mut self, sequence: u64) {
        if self.records == 0 {
            self.first = sequence;
        }
        self.records += 1;
        self.last = sequence;
    }
}

impl std::fmt::Display for Counted {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.records {
            0 => out.write_str("no records"),
            1 => write!(out, "record {}", self.first),
            records => write!(out, "{records} records, {} to {}", self.first, self.last),
        }
    }
}

fn say(
    out: &mut impl Write,
    segment: &Segment,
    offset: usize,
    what: &str,
) -> Result<(), JournalError> {
    let path = segment.path.display();
    written(writeln!(out, "{path}, byte {offset}: {what}"))
}

fn written(result: io::Result<()>) -> Result<(), JournalError> {
    result.map_err(|error| JournalError::io("write to", Path::new("the output"), error))
}
