//! What a client says: a message that is complete, and one that is assembled from pieces.

use std::str;

use super::deflate::Inflater;
use super::is_close_code;
use super::text::Text;
use super::violation::Violation;

/// One message, in the received bytes, in the decoder or in the inflater, until the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// To be answered by a pong with the same payload, of at most 125 bytes.
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The code, which [`is_close_code`] allows, and the reason; `None` for an empty payload.
    /// Nothing that follows means anything: the caller stops decoding.
    Close(Option<(u16, &'a str)>),
}

impl<'a> Message<'a> {
    pub(super) fn read(kind: Kind, payload: &'a [u8]) -> Result<Message<'a>, Violation> {
        match kind {
            Kind::Text => Ok(Message::Text(read_text(payload)?)),
            Kind::Binary => Ok(Message::Binary(payload)),
            Kind::Ping => Ok(Message::Ping(payload)),
            Kind::Pong => Ok(Message::Pong(payload)),
            Kind::Close => Ok(Message::Close(read_close(payload)?)),
        }
    }
}

/// What a frame's payload is part of. Where opcodes say "continuation", this says of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
    Ping,
    Pong,
    Close,
}

impl Kind {
    pub fn is_control(self) -> bool {
        match self {
            Kind::Text | Kind::Binary => false,
            Kind::Ping | Kind::Pong | Kind::Close => true,
        }
    }
}

/// A data message, as much of it as came. A compressed one is kept as it came: inflating begins
/// when it is whole, so that no connection owns a window.
#[derive(Debug)]
pub enum Assembly {
    Text(Text),
    Binary(Vec<u8>),
    Compressed { kind: Kind, bytes: Vec<u8> },
}

impl Assembly {
    pub fn new(kind: Kind, is_compressed: bool) -> Assembly {
        match kind {
            Kind::Text | Kind::Binary if is_compressed => Assembly::Compressed {
                kind,
                bytes: Vec::new(),
            },
            Kind::Text => Assembly::Text(Text::default()),
            Kind::Binary => Assembly::Binary(Vec::new()),
            Kind::Ping | Kind::Pong | Kind::Close => {
                unreachable!("a control frame is not assembled")
            }
        }
    }

    pub fn push(&mut self, piece: &[u8]) -> Result<(), Violation> {
        match self {
            Assembly::Text(text) => text.push(piece),
            Assembly::Binary(bytes) | Assembly::Compressed { bytes, .. } => {
                bytes.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    /// The message, which is inflated to no more than `bytes_max` bytes.
    pub fn as_message<'a>(
        &'a self,
        inflater: &'a mut Inflater,
        bytes_max: usize,
    ) -> Result<Message<'a>, Violation> {
        match self {
            Assembly::Text(text) => Ok(Message::Text(text.as_whole()?)),
            Assembly::Binary(bytes) => Ok(Message::Binary(bytes)),
            Assembly::Compressed { kind, bytes } => {
                Message::read(*kind, inflater.inflate(bytes, bytes_max)?)
            }
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Assembly::Text(_) => Kind::Text,
            Assembly::Binary(_) => Kind::Binary,
            Assembly::Compressed { kind, .. } => *kind,
        }
    }

    pub fn is_compressed(&self) -> bool {
        match self {
            Assembly::Text(_) | Assembly::Binary(_) => false,
            Assembly::Compressed { .. } => true,
        }
    }

    /// How many bytes came.
    pub fn bytes(&self) -> usize {
        match self {
            Assembly::Text(text) => text.bytes(),
            Assembly::Binary(bytes) | Assembly::Compressed { bytes, .. } => bytes.len(),
        }
    }

    pub fn held_bytes(&self) -> usize {
        match self {
            Assembly::Text(text) => text.held_bytes(),
            Assembly::Binary(bytes) | Assembly::Compressed { bytes, .. } => bytes.capacity(),
        }
    }
}

fn read_text(payload: &[u8]) -> Result<&str, Violation> {
    str::from_utf8(payload).map_err(|_| Violation::NotUtf8)
}

/// RFC 6455, section 5.5.1: nothing, or a code and a reason.
fn read_close(payload: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    if payload.is_empty() {
        return Ok(None);
    }
    let (code, reason) = payload
        .split_first_chunk()
        .ok_or(Violation::HalfCloseCode)?;
    let code = u16::from_be_bytes(*code);
    if !is_close_code(code) {
        return Err(Violation::CloseCode);
    }
    Ok(Some((code, read_text(reason)?)))
}
