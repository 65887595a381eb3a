//! Messages to bytes: a server's frames, whole and unmasked, so one encoding serves every client.

use super::frame::{COMPRESSED, Opcode};
use super::{CONTROL_PAYLOAD_BYTES_MAX, is_close_code};

/// The longest reason that a close frame takes behind its code.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;

/// The header of a frame that is a whole message: 2, 4 or 10 bytes, to stand before its payload.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    bytes: [u8; 10],
    length: u8,
}

impl AsRef<[u8]> for Header {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl Header {
    /// The same for a payload that is compressed. Panics for a control frame, which never is.
    pub fn compressed(mut self) -> Header {
        assert!(self.bytes[0] & 0x08 == 0, "a compressed control frame");
        self.bytes[0] |= COMPRESSED;
        self
    }
}

/// The header before `payload_bytes` bytes of payload (RFC 6455, section 5.2). Panics for a control
/// frame of more than 125 bytes.
pub fn header(opcode: Opcode, payload_bytes: usize) -> Header {
    assert!(
        !opcode.is_control() || payload_bytes <= CONTROL_PAYLOAD_BYTES_MAX,
        "a control frame of {payload_bytes} bytes"
    );
    let mut bytes = [0; 10];
    bytes[0] = 0x80 | opcode as u8;
    let length = if payload_bytes < 126 {
        bytes[1] = payload_bytes as u8;
        2
    } else if let Ok(payload_bytes) = u16::try_from(payload_bytes) {
        bytes[1] = 126;
        bytes[2..4].copy_from_slice(&payload_bytes.to_be_bytes());
        4
    } else {
        bytes[1] = 127;
        bytes[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
        10
    };
    Header { bytes, length }
}

/// The lengths of the frames that lie one after the other in `frames`, which this server encoded.
pub fn frame_lengths(mut frames: &[u8]) -> impl Iterator<Item = usize> + Clone {
    std::iter::from_fn(move || {
        let length = match *frames.get(1)? {
            126 => 4 + usize::from(u16::from_be_bytes([frames[2], frames[3]])),
            127 => {
                let mut length = [0; 8];
                length.copy_from_slice(&frames[2..10]);
                10 + usize::try_from(u64::from_be_bytes(length)).expect("it is in memory")
            }
            length => 2 + usize::from(length),
        };
        frames = &frames[length..];
        Some(length)
    })
}

/// The payload of a frame that this server encoded from text and did not compress.
pub fn text_of(frame: &[u8]) -> &str {
    std::str::from_utf8(payload_of(frame)).expect("it was encoded from text")
}

/// Whether the payload of a frame that this server encoded is compressed.
pub fn is_compressed(frame: &[u8]) -> bool {
    frame[0] & COMPRESSED != 0
}

/// The payload of a frame that this server encoded.
pub fn payload_of(frame: &[u8]) -> &[u8] {
    let header_bytes = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    &frame[header_bytes..]
}

/// Appends one frame that is a whole message. A close without a code is one of `Opcode::Close` with
/// no payload. Panics like [`header`].
pub fn encode_frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let header = header(opcode, payload.len());
    out.reserve(header.as_ref().len() + payload.len());
    out.extend_from_slice(header.as_ref());
    out.extend_from_slice(payload);
}

/// Appends one frame that is a whole message, as a client would have sent it: under a mask, of zeros.
/// Panics like [`header`].
pub fn encode_as_client(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let mut header = header(opcode, payload.len());
    header.bytes[1] |= 0x80;
    out.extend_from_slice(header.as_ref());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// Appends a close frame with this code and as many whole characters of the reason as fit (RFC 6455,
/// section 5.5.1). Panics for a code that no frame may carry.
pub fn encode_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    assert!(is_close_code(code), "no close frame carries {code}");
    let mut reason_bytes = reason.len().min(CLOSE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(reason_bytes) {
        reason_bytes -= 1;
    }
    out.extend_from_slice(header(Opcode::Close, 2 + reason_bytes).as_ref());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..reason_bytes]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_section_5_7() {
        let mut out = Vec::new();
        encode_frame(Opcode::Text, b"Hello", &mut out);
        assert_eq!(out, b"\x81\x05Hello");

        out.clear();
        encode_frame(Opcode::Ping, b"Hello", &mut out);
        assert_eq!(out, b"\x89\x05Hello");

        out.clear();
        encode_as_client(Opcode::Text, b"Hello", &mut out);
        assert_eq!(out, b"\x81\x85\0\0\0\0Hello");

        assert_eq!(header(Opcode::Binary, 256).as_ref(), b"\x82\x7E\x01\x00");
        assert_eq!(
            header(Opcode::Binary, 65_536).as_ref(),
            b"\x82\x7F\x00\x00\x00\x00\x00\x01\x00\x00"
        );
    }

    #[test]
    fn a_length_takes_no_more_bytes_than_it_needs() {
        let header_bytes = |payload_bytes| header(Opcode::Text, payload_bytes).as_ref().len();
        assert_eq!([0, 125].map(header_bytes), [2, 2]);
        assert_eq!([126, 65_535].map(header_bytes), [4, 4]);
        assert_eq!([65_536, usize::MAX >> 1].map(header_bytes), [10, 10]);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut out = Vec::new();
        encode_close(4200, &"\u{20AC}".repeat(60), &mut out);
        assert_eq!(&out[..4], b"\x88\x7D\x10\x68");
        assert_eq!(&out[4..], "\u{20AC}".repeat(41).as_bytes());

        out.clear();
        encode_close(1001, &format!("a{}", "\u{20AC}".repeat(60)), &mut out);
        assert_eq!(out.len(), 2 + 2 + 1 + 40 * 3);
    }

    #[test]
    #[should_panic(expected = "no close frame carries 1005")]
    fn a_code_that_means_its_absence_is_not_encoded() {
        encode_close(1005, "", &mut Vec::new());
    }

    #[test]
    #[should_panic(expected = "a control frame of 126 bytes")]
    fn a_long_control_frame_is_not_encoded() {
        header(Opcode::Pong, 126);
    }
}
