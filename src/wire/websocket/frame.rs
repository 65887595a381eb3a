//! One client frame as it lies on the wire: its header read and judged, its payload unmasked.
//!
//! Knows no message: which frame may follow which is the decoder's business.

use super::CONTROL_PAYLOAD_BYTES_MAX;
use super::violation::Violation;

/// The longest header of a client's frame: 2 bytes, a length of 8, a mask of 4.
const HEADER_BYTES_MAX: usize = 14;

/// The first reserved bit, as permessage-deflate uses it (RFC 7692, section 6).
pub const COMPRESSED: u8 = 0x40;

/// What a frame carries (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xA,
}

impl Opcode {
    pub fn is_control(self) -> bool {
        match self {
            Opcode::Continuation | Opcode::Text | Opcode::Binary => false,
            Opcode::Close | Opcode::Ping | Opcode::Pong => true,
        }
    }

    /// Whether it is the first of a message's frames, which says that the message is compressed.
    fn begins_message(self) -> bool {
        match self {
            Opcode::Text | Opcode::Binary => true,
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => false,
        }
    }

    fn read(nibble: u8) -> Result<Opcode, Violation> {
        match nibble {
            0x0 => Ok(Opcode::Continuation),
            0x1 => Ok(Opcode::Text),
            0x2 => Ok(Opcode::Binary),
            0x8 => Ok(Opcode::Close),
            0x9 => Ok(Opcode::Ping),
            0xA => Ok(Opcode::Pong),
            _ => Err(Violation::ReservedOpcode),
        }
    }
}

/// The header of a client's frame; it could have been sent by a correct client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub opcode: Opcode,
    /// The last frame of its message.
    pub is_final: bool,
    /// The first frame of a message that is compressed.
    pub is_compressed: bool,
    /// Below 2^63; not yet held against any limit.
    pub payload_bytes: u64,
    pub mask: [u8; 4],
    /// Where the payload begins.
    pub header_bytes: usize,
}

impl FrameHeader {
    /// Reads the header that `bytes` begin with; `None` if it goes on behind them. Judges each
    /// field as soon as it is there. A full [`HeaderStart`] always holds a whole header. Messages
    /// are only compressed if that was negotiated.
    pub fn read(bytes: &[u8], takes_compressed: bool) -> Result<Option<FrameHeader>, Violation> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let is_compressed = first & COMPRESSED != 0;
        if first & 0b0011_0000 != 0 || (is_compressed && !takes_compressed) {
            return Err(Violation::ReservedBit);
        }
        let is_final = first & 0x80 != 0;
        let opcode = Opcode::read(first & 0x0F)?;
        if is_compressed && !opcode.begins_message() {
            return Err(Violation::ReservedBit);
        }
        if opcode.is_control() && !is_final {
            return Err(Violation::FragmentedControl);
        }

        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        if second & 0x80 == 0 {
            return Err(Violation::UnmaskedFrame);
        }
        let short_length = second & 0x7F;
        if opcode.is_control() && usize::from(short_length) > CONTROL_PAYLOAD_BYTES_MAX {
            return Err(Violation::LongControl);
        }

        let Some((payload_bytes, after_length)) = read_length(short_length, &bytes[2..])? else {
            return Ok(None);
        };
        let Some((&mask, payload)) = after_length.split_first_chunk() else {
            return Ok(None);
        };
        Ok(Some(FrameHeader {
            opcode,
            is_final,
            is_compressed,
            payload_bytes,
            mask,
            header_bytes: bytes.len() - payload.len(),
        }))
    }
}

/// Reads a payload's length: the 7 bits that came with the mask bit, or, behind 126 and 127, the
/// 2 or 8 bytes that `bytes` begin with. Gives what follows it; `None` if there are too few bytes.
fn read_length(short_length: u8, bytes: &[u8]) -> Result<Option<(u64, &[u8])>, Violation> {
    let (length, shortest, rest) = match short_length {
        126 => {
            let Some((length, rest)) = bytes.split_first_chunk() else {
                return Ok(None);
            };
            (u64::from(u16::from_be_bytes(*length)), 126, rest)
        }
        127 => {
            let Some((length, rest)) = bytes.split_first_chunk() else {
                return Ok(None);
            };
            (u64::from_be_bytes(*length), 1 << 16, rest)
        }
        length => (u64::from(length), 0, bytes),
    };
    if length < shortest {
        return Err(Violation::PaddedLength);
    }
    if length >= 1 << 63 {
        return Err(Violation::LengthOutOfRange);
    }
    Ok(Some((length, rest)))
}

/// The first bytes of a header: all of them, or as many as came.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeaderStart {
    bytes: [u8; HEADER_BYTES_MAX],
    length: u8,
}

impl HeaderStart {
    /// As many bytes of `rest` behind these as the longest header has.
    pub fn followed_by(mut self, rest: &[u8]) -> HeaderStart {
        let free = &mut self.bytes[usize::from(self.length)..];
        let taken_bytes = free.len().min(rest.len());
        free[..taken_bytes].copy_from_slice(&rest[..taken_bytes]);
        self.length += taken_bytes as u8;
        self
    }
}

impl AsRef<[u8]> for HeaderStart {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Takes the mask off `payload`, which begins where `mask` does (RFC 6455, section 5.3). Eight bytes
/// at a time, which the compiler widens to vectors.
pub fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide_mask = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide_mask).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], expected: Result<Option<(Opcode, u64, usize)>, Violation>) {
        let read = FrameHeader::read(bytes, false).map(|header| {
            header.map(|header| (header.opcode, header.payload_bytes, header.header_bytes))
        });
        assert_eq!(read, expected, "{bytes:02x?}");
    }

    /// A header with this first byte and this length field, masked.
    fn header(first: u8, short_length: u8, long_length: &[u8]) -> Vec<u8> {
        [&[first, 0x80 | short_length], long_length, &[1, 2, 3, 4]].concat()
    }

    #[test]
    fn the_lengths_of_section_5_2() {
        let long = |length: u64| length.to_be_bytes();
        check(&header(0x82, 0, &[]), Ok(Some((Opcode::Binary, 0, 6))));
        check(&header(0x82, 125, &[]), Ok(Some((Opcode::Binary, 125, 6))));
        check(
            &header(0x82, 126, &[0, 126]),
            Ok(Some((Opcode::Binary, 126, 8))),
        );
        check(
            &header(0x82, 126, &[255; 2]),
            Ok(Some((Opcode::Binary, 65_535, 8))),
        );
        check(
            &header(0x82, 127, &long(65_536)),
            Ok(Some((Opcode::Binary, 65_536, 14))),
        );
        check(
            &header(0x82, 127, &long(u64::MAX >> 1)),
            Ok(Some((Opcode::Binary, u64::MAX >> 1, 14))),
        );
        check(&header(0x82, 126, &[0, 125]), Err(Violation::PaddedLength));
        check(
            &header(0x82, 127, &long(65_535)),
            Err(Violation::PaddedLength),
        );
        check(
            &header(0x82, 127, &long(1 << 63)),
            Err(Violation::LengthOutOfRange),
        );
        check(
            &header(0x82, 127, &[255; 8]),
            Err(Violation::LengthOutOfRange),
        );
    }

    #[test]
    fn every_field_is_judged_as_soon_as_it_is_there() {
        for reserved in [0x40, 0x20, 0x10, 0x70] {
            check(&[0x81 | reserved], Err(Violation::ReservedBit));
        }
        for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
            check(&[0x80 | opcode], Err(Violation::ReservedOpcode));
        }
        for opcode in [0x8, 0x9, 0xA] {
            check(&[opcode], Err(Violation::FragmentedControl));
            check(&[0x80 | opcode, 0xFE], Err(Violation::LongControl));
            check(&[0x80 | opcode, 0xFF], Err(Violation::LongControl));
        }
        check(&[0x81, 0x05], Err(Violation::UnmaskedFrame));
        check(&[0x81, 0xFE, 0, 125], Err(Violation::PaddedLength));
        check(
            &[0x81, 0xFF, 255, 0, 0, 0, 0, 0, 0, 0],
            Err(Violation::LengthOutOfRange),
        );
    }

    #[test]
    fn the_first_frame_of_a_message_says_that_it_is_compressed() {
        let read = |first| {
            let header = FrameHeader::read(&header(first, 0, &[]), true)?;
            Ok(header.is_some_and(|header| header.is_compressed))
        };
        for first in [0x81, 0x01, 0x82, 0x02] {
            assert_eq!(read(first), Ok(false));
            assert_eq!(read(first | COMPRESSED), Ok(true));
            assert_eq!(read(first | COMPRESSED | 0x20), Err(Violation::ReservedBit));
        }
        for first in [0x80, 0x00, 0x88, 0x89, 0x8A] {
            assert_eq!(read(first), Ok(false));
            assert_eq!(read(first | COMPRESSED), Err(Violation::ReservedBit));
        }
        assert_eq!(read(0x83 | COMPRESSED), Err(Violation::ReservedOpcode));
    }

    #[test]
    fn a_header_cut_anywhere_is_not_there_yet() {
        for whole in [
            header(0x81, 5, &[]),
            header(0x81, 126, &[1, 0]),
            header(0x02, 127, &[0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            for length in 0..whole.len() {
                check(&whole[..length], Ok(None));
            }
        }
    }

    proptest! {
        #[test]
        fn unmasking_words_is_unmasking_bytes(payload: Vec<u8>, mask: [u8; 4]) {
            let mut unmasked = payload.clone();
            unmask(&mut unmasked, mask);
            let naive: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
            prop_assert_eq!(unmasked, naive);
        }
    }
}
