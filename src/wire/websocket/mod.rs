//! The WebSocket protocol (RFC 6455) as a server speaks it: bytes to messages and messages to bytes.
//!
//! A connection begins with [`check_upgrade`], then owns one [`Decoder`] and gives it what its
//! socket received. What goes out is laid down once by [`encode_frame`], or behind a [`header`],
//! and is the same for every client, because a server does not mask.
//!
//! Invariants:
//! - A connection that waits for its next message costs one machine word here.
//! - What a client announces reserves nothing: memory follows the bytes that came.
//! - A field of a header, and a byte of a text, is judged when it comes, not when its frame is
//!   complete; the [`Violation`] knows the close code. Whether a frame may stand where it does, and
//!   its length within the limit, is judged when its header is complete; a close, when all of it is.
//!
//! permessage-deflate (RFC 7692) begins with [`agree`]; what it needs besides is of the shard, an
//! [`Inflater`] and a [`Deflater`], so that compression costs a connection one byte.

mod decoder;
mod deflate;
mod encoder;
mod frame;
mod handshake;
mod message;
mod text;
mod violation;

#[cfg(test)]
mod client;
#[cfg(test)]
mod oracle;

pub use decoder::{Decoder, Limits};
pub use deflate::{Agreement, Deflater, Inflater, WindowBits, agree};
pub use encoder::{
    Header, encode_as_client, encode_close, encode_frame, frame_lengths, header, is_compressed,
    payload_of, text_of,
};
pub use frame::{Opcode, unmask};
pub use handshake::{Refusal, Upgrade, accept_key, check_upgrade};
pub use message::Message;
pub use violation::Violation;

/// The longest payload of a ping, a pong or a close (RFC 6455, section 5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// Whether a close frame may carry this code. RFC 6455, section 7.4, and IANA's registry of close
/// codes, where 1012 to 1014 came later; 1004 means nothing, 1005, 1006 and 1015 stand for things
/// that no frame says, and the rest below 3000 waits for a standard.
pub fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
