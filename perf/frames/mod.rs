//! What a measured message looks like: a stamp inside an event's data, and the frame around it.
//!
//! The stamp is `@SEQUENCE@DUE@`, both as 16 hexadecimal digits: every message of a run has the
//! same length, and a reader finds the stamp without reading JSON. The naked loop sends exactly
//! the bytes that a server of the Pusher protocol would.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

pub const CHANNEL: &str = "fan";
pub const EVENT: &str = "m";
/// `@`, 16 digits, `@`, 16 digits, `@`.
pub const STAMP_BYTES: usize = 35;

/// When a message was meant to be sent, and its place in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub sequence: u64,
    pub due_ns: u64,
}

/// An event's data of `length` bytes (at least [`STAMP_BYTES`]) that carries a stamp.
pub fn data(stamp: Stamp, length: usize) -> String {
    assert!(length >= STAMP_BYTES, "a stamp takes {STAMP_BYTES} bytes");
    let mut data = format!("@{:016x}@{:016x}@", stamp.sequence, stamp.due_ns);
    data.extend(std::iter::repeat_n('x', length - STAMP_BYTES));
    data
}

/// The stamp in a frame's payload, if it carries one.
pub fn stamp(payload: &[u8]) -> Option<Stamp> {
    let start = payload.iter().position(|byte| *byte == b'@')?;
    let stamp = payload.get(start..start + STAMP_BYTES)?;
    if stamp[17] != b'@' || stamp[34] != b'@' {
        return None;
    }
    let number = |digits| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    Some(Stamp {
        sequence: number(&stamp[1..17])?,
        due_ns: number(&stamp[18..34])?,
    })
}

/// A whole server frame for one event, as it goes on the wire.
pub fn event_frame(data: &str) -> Vec<u8> {
    let text = format!(r#"{{"event":"{EVENT}","channel":"{CHANNEL}","data":"{data}"}}"#);
    let mut frame = Vec::with_capacity(text.len() + 4);
    append(&mut frame, OpCode::Data(Data::Text), None, text.as_bytes());
    frame
}

/// A client's frame. Its mask is zero, so that masking costs the client nothing; the server has
/// to unmask it all the same.
pub fn append_masked(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    append(out, opcode, Some([0; 4]), payload);
}

/// The first frame in `bytes`: its opcode, where its payload starts, and where it ends.
/// `None` while it is incomplete.
pub fn first_frame(bytes: &[u8]) -> Option<(OpCode, usize, usize)> {
    let mut cursor = Cursor::new(bytes);
    let (header, length) = FrameHeader::parse(&mut cursor).expect("the server frames correctly")?;
    let start = cursor.position() as usize;
    let end = start + length as usize;
    (end <= bytes.len()).then_some((header.opcode, start, end))
}

fn append(out: &mut Vec<u8>, opcode: OpCode, mask: Option<[u8; 4]>, payload: &[u8]) {
    let header = FrameHeader {
        opcode,
        mask,
        ..FrameHeader::default()
    };
    header
        .format(payload.len() as u64, out)
        .expect("a vector takes every write");
    out.extend_from_slice(payload);
}
