//! Bytes to messages: what one client sends, in whatever pieces its socket gives them.
//!
//! A frame that lies whole in what was received, and is a whole message, is unmasked where it lies
//! and handed out from there: nothing is copied or allocated. Everything else goes through
//! [`Partial`], which exists only while something is unfinished. What was compressed is handed out
//! from the [`Inflater`], which the caller lends.

use super::deflate::{Inflater, deflated_bytes_max};
use super::frame::{FrameHeader, HeaderStart, Opcode, unmask};
use super::message::{Assembly, Kind, Message};
use super::violation::Violation;

/// What one connection has received and not finished. A word, and nothing behind it, between
/// messages: a server holds a million connections that wait.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

/// What a client may send. The caller owns them, so that connections share one.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest message, its fragments together. The memory held for one connection is bounded
    /// by about twice this, because a growing buffer doubles. How many fragments there are, and how
    /// many of them are empty, is not limited: that costs the client time, which the caller bounds
    /// by [`Decoder::is_mid_message`].
    pub message_bytes_max: usize,
    /// Messages may be compressed: permessage-deflate was negotiated. What one comes to is held
    /// against `message_bytes_max` while it is inflated; as it comes it may be somewhat longer
    /// ([`deflated_bytes_max`]), because some messages cannot be compressed.
    pub takes_compressed: bool,
}

impl Limits {
    fn received_bytes_max(&self, is_compressed: bool) -> usize {
        match is_compressed {
            true => deflated_bytes_max(self.message_bytes_max),
            false => self.message_bytes_max,
        }
    }
}

impl Decoder {
    /// Takes bytes from the front of `input`, unmasking them in place; returns how many it took and
    /// the message that they complete. To be called again with the rest as long as there is a
    /// message; without one, it took them all.
    ///
    /// Control frames between a message's fragments come out when they come, before the message.
    /// After a violation the connection is over, and its decoder must not be asked again.
    pub fn decode<'a>(
        &'a mut self,
        input: &'a mut [u8],
        limits: &Limits,
        inflater: &'a mut Inflater,
    ) -> Result<(usize, Option<Message<'a>>), Violation> {
        let input_bytes = input.len();
        let mut rest = input;
        // Out of its place while it is worked on: a violation on the way drops it.
        let mut partial = self.partial.take().and_then(Partial::without_delivered);
        loop {
            let Some(frame) = next_frame(&mut partial, &mut rest, limits)? else {
                self.partial = partial;
                return Ok((input_bytes, None));
            };
            if frame.stands_alone
                && let Some(payload) = rest.split_off_mut(..frame.missing_bytes)
            {
                unmask(payload, frame.mask);
                let payload = match frame.is_compressed {
                    true => inflater.inflate(payload, limits.message_bytes_max)?,
                    false => payload,
                };
                let message = Message::read(frame.kind, payload)?;
                self.partial = partial.and_then(Partial::without_header);
                return Ok((input_bytes - rest.len(), Some(message)));
            }
            let mut unfinished = partial.unwrap_or_default();
            let piece = split_off_up_to(&mut rest, frame.missing_bytes);
            match unfinished.absorb(frame, piece)? {
                Progress::Message => {
                    let partial = self.partial.insert(unfinished);
                    let bytes_max = limits.message_bytes_max;
                    let message = partial.deliver(frame.kind, inflater, bytes_max)?;
                    return Ok((input_bytes - rest.len(), Some(message)));
                }
                Progress::Fragment => partial = Some(unfinished),
                Progress::Piece => {
                    self.partial = Some(unfinished);
                    return Ok((input_bytes, None));
                }
            }
        }
    }

    /// Whether the client owes the rest of something: a frame or a fragmented message has begun and
    /// not ended. The caller bounds by time how long that may last.
    pub fn is_mid_message(&self) -> bool {
        self.partial.as_deref().is_some_and(Partial::is_unfinished)
    }

    /// Memory that this decoder holds besides itself. 0 between messages, once
    /// [`Decoder::decode`] has answered that there is none.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_deref().map_or(0, Partial::held_bytes)
    }
}

/// A frame that is allowed where it stands, and how much of it is still to come.
#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    is_final: bool,
    /// It is of a compressed message.
    is_compressed: bool,
    /// It is a whole message, and none of its payload has been taken yet.
    stands_alone: bool,
    /// Turned so that it begins with the next byte of the payload.
    mask: [u8; 4],
    missing_bytes: usize,
}

/// The frame that the front of `rest` belongs to: the one under way, or the one whose header ends
/// there. `None` when `rest` ended before the header did.
fn next_frame(
    partial: &mut Option<Box<Partial>>,
    rest: &mut &mut [u8],
    limits: &Limits,
) -> Result<Option<Frame>, Violation> {
    let (stage, open) = match partial.as_deref() {
        Some(partial) => (partial.stage, partial.open.as_ref()),
        None => (Stage::default(), None),
    };
    let held = match stage {
        Stage::Payload(frame) => return Ok(Some(frame)),
        Stage::Header(held) => held,
        Stage::Delivered(_) => unreachable!("what was delivered is dropped first"),
    };
    let joined = held.followed_by(rest);
    if let Some(header) = FrameHeader::read(joined.as_ref(), limits.takes_compressed)? {
        let frame = admit(header, open, limits)?;
        split_off_up_to(rest, header.header_bytes - held.as_ref().len());
        return Ok(Some(frame));
    }
    if !rest.is_empty() {
        partial.get_or_insert_default().stage = Stage::Header(joined);
    }
    Ok(None)
}

/// Whether this frame may stand here: after what is open of a message, and within the limits.
fn admit(
    header: FrameHeader,
    open: Option<&Assembly>,
    limits: &Limits,
) -> Result<Frame, Violation> {
    let kind = match (header.opcode, open) {
        (Opcode::Ping, _) => Kind::Ping,
        (Opcode::Pong, _) => Kind::Pong,
        (Opcode::Close, _) => Kind::Close,
        (Opcode::Text, None) => Kind::Text,
        (Opcode::Binary, None) => Kind::Binary,
        (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Violation::InterruptedMessage),
        (Opcode::Continuation, Some(assembly)) => assembly.kind(),
        (Opcode::Continuation, None) => return Err(Violation::StrayContinuation),
    };
    let continues = open.filter(|_| !kind.is_control());
    let is_compressed = header.is_compressed || continues.is_some_and(Assembly::is_compressed);
    let bytes_max = if kind.is_control() {
        usize::MAX
    } else {
        let received_bytes = continues.map_or(0, Assembly::bytes);
        limits
            .received_bytes_max(is_compressed)
            .saturating_sub(received_bytes)
    };
    let payload_bytes = usize::try_from(header.payload_bytes)
        .ok()
        .filter(|&payload_bytes| payload_bytes <= bytes_max)
        .ok_or(Violation::LongMessage)?;
    Ok(Frame {
        kind,
        is_final: header.is_final,
        is_compressed,
        stands_alone: kind.is_control() || (header.is_final && open.is_none()),
        mask: header.mask,
        missing_bytes: payload_bytes,
    })
}

/// What is unfinished: a header, a payload, a message between two of its fragments.
#[derive(Debug, Default)]
struct Partial {
    stage: Stage,
    /// The payload of a control frame under way, or delivered; at most 125 bytes.
    control: Vec<u8>,
    /// The message under way, or delivered.
    open: Option<Assembly>,
}

/// Where in the stream the connection stands.
///
/// ```text
/// Header -> Payload             a header is complete
/// Payload -> Header             a fragment is complete, its message is not
/// Header, Payload -> Delivered  a message or control frame is complete and was handed out
/// Delivered -> Header           the next call
/// ```
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Between frames, if empty.
    Header(HeaderStart),
    Payload(Frame),
    Delivered(Kind),
}

impl Default for Stage {
    fn default() -> Stage {
        Stage::Header(HeaderStart::default())
    }
}

/// How far a piece of payload brought its message.
enum Progress {
    /// Complete, to be delivered.
    Message,
    /// One of its frames is complete, and it goes on.
    Fragment,
    /// The frame goes on.
    Piece,
}

impl Partial {
    /// Takes the next piece of the payload of `frame`.
    fn absorb(&mut self, mut frame: Frame, piece: &mut [u8]) -> Result<Progress, Violation> {
        unmask(piece, frame.mask);
        if frame.kind.is_control() {
            self.control.extend_from_slice(piece);
        } else {
            self.open
                .get_or_insert_with(|| Assembly::new(frame.kind, frame.is_compressed))
                .push(piece)?;
        }
        frame.stands_alone = false;
        frame.mask.rotate_left(piece.len() % 4);
        frame.missing_bytes -= piece.len();

        if frame.missing_bytes > 0 {
            self.stage = Stage::Payload(frame);
            Ok(Progress::Piece)
        } else if frame.is_final {
            self.stage = Stage::Delivered(frame.kind);
            Ok(Progress::Message)
        } else {
            self.stage = Stage::default();
            Ok(Progress::Fragment)
        }
    }

    /// What has just become complete.
    fn deliver<'a>(
        &'a self,
        kind: Kind,
        inflater: &'a mut Inflater,
        bytes_max: usize,
    ) -> Result<Message<'a>, Violation> {
        match &self.open {
            Some(assembly) if !kind.is_control() => assembly.as_message(inflater, bytes_max),
            _ => Message::read(kind, &self.control),
        }
    }

    /// Drops what the caller was handed, and all of it if nothing else is left.
    fn without_delivered(mut self: Box<Self>) -> Option<Box<Self>> {
        if let Stage::Delivered(kind) = self.stage {
            self.stage = Stage::default();
            if kind.is_control() {
                self.control = Vec::new();
            } else {
                self.open = None;
            }
        }
        self.is_unfinished().then_some(self)
    }

    /// Drops the header of a frame that was handed out without passing through here.
    fn without_header(mut self: Box<Self>) -> Option<Box<Self>> {
        self.stage = Stage::default();
        self.is_unfinished().then_some(self)
    }

    fn is_unfinished(&self) -> bool {
        match &self.stage {
            Stage::Header(held) => !held.as_ref().is_empty() || self.open.is_some(),
            Stage::Payload(_) => true,
            Stage::Delivered(kind) => kind.is_control() && self.open.is_some(),
        }
    }

    fn held_bytes(&self) -> usize {
        size_of::<Partial>()
            + self.control.capacity()
            + self.open.as_ref().map_or(0, Assembly::held_bytes)
    }
}

/// Takes `length` bytes off the front of `rest`, or all of them if there are fewer.
fn split_off_up_to<'a>(rest: &mut &'a mut [u8], length: usize) -> &'a mut [u8] {
    let length = length.min(rest.len());
    rest.split_off_mut(..length)
        .expect("no more than there are")
}

#[cfg(test)]
mod tests {
    use super::super::client::{LIMITS, Owned, decode_at_once, decode_in_pieces, frame, streams};
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    fn text(text: &str) -> Owned {
        Owned::Text(text.into())
    }

    /// These frames, at once and byte by byte, are these messages and then this end.
    fn check(frames: &[Vec<u8>], messages: &[Owned], end: Result<(), Violation>) {
        let bytes = frames.concat();
        let expected = (messages.to_vec(), end);
        assert_eq!(decode_at_once(&bytes), expected, "{bytes:02x?}");
        let in_bytes = decode_in_pieces(&mut Decoder::default(), &bytes, &[1], &LIMITS);
        assert_eq!(in_bytes, expected, "byte by byte: {bytes:02x?}");
    }

    #[test]
    fn an_idle_connection_costs_one_word() {
        assert_eq!(size_of::<Decoder>(), size_of::<usize>());
        assert_eq!(Decoder::default().held_bytes(), 0);
    }

    #[test]
    fn the_examples_of_section_5_7() {
        let hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec();
        check(&[hello], &[text("Hello")], Ok(()));
        let pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec();
        check(&[pong], &[Owned::Pong(b"Hello".into())], Ok(()));
        check(
            &[frame(0x01, MASK, b"Hel"), frame(0x80, MASK, b"lo")],
            &[text("Hello")],
            Ok(()),
        );
        for length in [256, 65_536] {
            let payload = vec![7; length];
            check(
                &[frame(0x82, MASK, &payload)],
                &[Owned::Binary(payload)],
                Ok(()),
            );
        }
        check(
            &[b"\x81\x05Hello".to_vec()],
            &[],
            Err(Violation::UnmaskedFrame),
        );
    }

    #[test]
    fn a_control_frame_between_fragments_comes_out_first() {
        check(
            &[
                frame(0x01, MASK, b"Hel"),
                frame(0x89, MASK, b"there?"),
                frame(0x8A, MASK, b""),
                frame(0x80, MASK, b"lo"),
            ],
            &[
                Owned::Ping(b"there?".into()),
                Owned::Pong(vec![]),
                text("Hello"),
            ],
            Ok(()),
        );
    }

    #[test]
    fn a_whole_frame_is_handed_out_where_it_lies() {
        let mut bytes = frame(0x81, MASK, b"Hello");
        let place = bytes[6..].as_ptr();
        let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
        let (taken_bytes, message) = decoder.decode(&mut bytes, &LIMITS, &mut inflater).unwrap();
        assert_eq!((taken_bytes, message), (11, Some(Message::Text("Hello"))));
        assert!(matches!(message, Some(Message::Text(text)) if text.as_ptr() == place));
        assert_eq!(decoder.held_bytes(), 0);
    }

    #[test]
    fn a_whole_frame_behind_a_split_header_is_handed_out_where_it_lies() {
        let mut bytes = frame(0x82, MASK, b"Hello");
        let place = bytes[6..].as_ptr();
        let (front, back) = bytes.split_at_mut(4);
        let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
        assert_eq!(decoder.decode(front, &LIMITS, &mut inflater), Ok((4, None)));
        assert!(decoder.is_mid_message());
        let (_, message) = decoder.decode(back, &LIMITS, &mut inflater).unwrap();
        assert!(matches!(message, Some(Message::Binary(payload)) if payload.as_ptr() == place));
        assert_eq!(decoder.held_bytes(), 0);
    }

    #[test]
    fn what_follows_a_message_is_left_for_the_next_call() {
        let mut bytes = [frame(0x81, MASK, b"one"), frame(0x82, MASK, b"two")].concat();
        let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
        let (one_bytes, one) = decoder.decode(&mut bytes, &LIMITS, &mut inflater).unwrap();
        assert_eq!((one_bytes, one), (9, Some(Message::Text("one"))));
        let (two_bytes, two) = decoder
            .decode(&mut bytes[9..], &LIMITS, &mut inflater)
            .unwrap();
        assert_eq!((two_bytes, two), (9, Some(Message::Binary(b"two"))));
        assert_eq!(
            decoder.decode(&mut [], &LIMITS, &mut inflater),
            Ok((0, None))
        );
    }

    #[test]
    fn fragments_follow_their_message_and_nothing_else() {
        check(
            &[frame(0x80, MASK, b"lo")],
            &[],
            Err(Violation::StrayContinuation),
        );
        check(
            &[frame(0x00, MASK, b"lo")],
            &[],
            Err(Violation::StrayContinuation),
        );
        for first in [0x81, 0x01, 0x82, 0x02] {
            check(
                &[frame(0x01, MASK, b"Hel"), frame(first, MASK, b"lo")],
                &[],
                Err(Violation::InterruptedMessage),
            );
        }
        check(
            &[
                frame(0x01, MASK, b"Hel"),
                frame(0x80, MASK, b"lo"),
                frame(0x80, MASK, b"!"),
            ],
            &[text("Hello")],
            Err(Violation::StrayContinuation),
        );
    }

    #[test]
    fn text_is_refused_at_the_byte_that_spoils_it() {
        let bytes = frame(0x81, MASK, b"\xCE\xBA\xF4\x90\x80\x80edited");
        let mut decoder = Decoder::default();
        let up_to_there = decode_in_pieces(&mut decoder, &bytes[..9], &[2], &LIMITS);
        assert_eq!(up_to_there, (vec![], Ok(())));
        let spoilt = decode_in_pieces(&mut decoder, &bytes[9..10], &[1], &LIMITS);
        assert_eq!(spoilt, (vec![], Err(Violation::NotUtf8)));
        assert_eq!(decoder.held_bytes(), 0);
    }

    #[test]
    fn characters_may_be_cut_by_frames_but_not_by_the_message() {
        let crab = "\u{1F980}".as_bytes();
        check(
            &[
                frame(0x01, MASK, &crab[..3]),
                frame(0x89, MASK, b""),
                frame(0x80, MASK, &crab[3..]),
            ],
            &[Owned::Ping(vec![]), text("\u{1F980}")],
            Ok(()),
        );
        check(
            &[frame(0x81, MASK, &crab[..3])],
            &[],
            Err(Violation::NotUtf8),
        );
        check(
            &[frame(0x01, MASK, &crab[..3]), frame(0x80, MASK, b"")],
            &[],
            Err(Violation::NotUtf8),
        );
    }

    #[test]
    fn a_close_has_nothing_or_a_code_and_a_reason() {
        let close = |payload: &[u8]| frame(0x88, MASK, payload);
        check(&[close(b"")], &[Owned::Close(None)], Ok(()));
        check(&[close(b"\x03")], &[], Err(Violation::HalfCloseCode));
        check(
            &[close(b"\x03\xE8bye")],
            &[Owned::Close(Some((1000, "bye".into())))],
            Ok(()),
        );
        check(&[close(b"\x03\xE8\xF4\x90")], &[], Err(Violation::NotUtf8));
        check(&[close(b"\x03\xE8\xF0\x9F")], &[], Err(Violation::NotUtf8));
        let long = [b"\x03\xE8", &[b'*'; 123][..]].concat();
        assert_eq!(decode_at_once(&close(&long)).1, Ok(()));
    }

    #[test]
    fn a_close_has_a_code_that_frames_carry() {
        let allowed: Vec<u16> = (0..=u16::MAX)
            .filter(|code| {
                let (_, end) = decode_at_once(&frame(0x88, MASK, &code.to_be_bytes()));
                assert!(end.is_ok() || end == Err(Violation::CloseCode));
                end.is_ok()
            })
            .collect();
        let expected: Vec<u16> = [1000, 1001, 1002, 1003]
            .into_iter()
            .chain(1007..=1014)
            .chain(3000..=4999)
            .collect();
        assert_eq!(allowed, expected);
    }

    #[test]
    fn a_message_is_bounded_with_all_its_fragments() {
        let limits = Limits {
            message_bytes_max: 10,
            ..LIMITS
        };
        let decode = |frames: &[Vec<u8>]| {
            decode_in_pieces(&mut Decoder::default(), &frames.concat(), &[3], &limits)
        };
        let ten = frame(0x82, MASK, &[7; 10]);
        assert_eq!(decode(&[ten.clone(), ten]).0.len(), 2);
        // The header alone says it.
        let eleven = frame(0x82, MASK, &[7; 11]);
        assert_eq!(
            decode(&[eleven[..6].to_vec()]).1,
            Err(Violation::LongMessage)
        );

        let six = frame(0x02, MASK, &[7; 6]);
        let ping = frame(0x89, MASK, &[7; 125]);
        let four = frame(0x80, MASK, &[7; 4]);
        let (messages, end) = decode(&[six.clone(), ping.clone(), four]);
        assert_eq!((messages.len(), end), (2, Ok(())));
        let five = frame(0x80, MASK, &[7; 5]);
        let (messages, end) = decode(&[six, ping, five]);
        assert_eq!((messages.len(), end), (1, Err(Violation::LongMessage)));
        // A begun character counts.
        let text = frame(0x01, MASK, "aaaaaaaa\u{20AC}"[..].as_bytes().split_at(10).0);
        let rest = frame(0x80, MASK, "\u{20AC}".as_bytes().split_at(2).1);
        assert_eq!(decode(&[text, rest]).1, Err(Violation::LongMessage));
    }

    #[test]
    fn what_is_announced_reserves_nothing() {
        let limits = Limits {
            message_bytes_max: usize::MAX,
            ..LIMITS
        };
        let mut bytes = [
            b"\x82\xFF",
            &(1_u64 << 62).to_be_bytes()[..],
            &MASK,
            b"begun",
        ]
        .concat();
        let mut decoder = Decoder::default();
        assert_eq!(
            decoder.decode(&mut bytes, &limits, &mut Inflater::default()),
            Ok((19, None))
        );
        assert!(decoder.is_mid_message());
        assert!(decoder.held_bytes() < 256, "{}", decoder.held_bytes());
    }

    #[test]
    fn lengths_that_add_up_past_a_word_are_too_long() {
        let limits = Limits {
            message_bytes_max: usize::MAX,
            ..LIMITS
        };
        let most = u64::MAX >> 1;
        let begun = frame(0x02, MASK, b"begun");
        let rest = [b"\x80\xFF", &most.to_be_bytes()[..], &MASK].concat();
        let bytes = [begun, rest].concat();
        let decode = |limits| decode_in_pieces(&mut Decoder::default(), &bytes, &[7], limits).1;
        assert_eq!(decode(&limits), Ok(()));
        assert_eq!(decode(&LIMITS), Err(Violation::LongMessage));
    }

    #[test]
    fn sixty_five_thousand_fragments_are_one_message() {
        for (payload, length) in [(&b"x"[..], 65_537), (b"", 0)] {
            let mut bytes = frame(0x01, MASK, payload);
            bytes.extend(frame(0x00, MASK, payload).repeat(65_535));
            bytes.extend(frame(0x80, MASK, payload));
            let mut decoder = Decoder::default();
            let decoded = decode_in_pieces(&mut decoder, &bytes, &[4096, 1], &LIMITS);
            assert_eq!(decoded, (vec![text(&"x".repeat(length))], Ok(())));
            assert_eq!(decoder.held_bytes(), 0);
        }
    }

    #[test]
    fn memory_follows_the_bytes_and_leaves_with_the_message() {
        let bytes = frame(0x82, MASK, &[7; 100_000]);
        let mut decoder = Decoder::default();
        let (front, back) = bytes.split_at(1000);
        decode_in_pieces(&mut decoder, front, &[1000], &LIMITS)
            .1
            .unwrap();
        assert!(
            (1000..2500).contains(&decoder.held_bytes()),
            "{}",
            decoder.held_bytes()
        );
        let (messages, _) = decode_in_pieces(&mut decoder, back, &[1000], &LIMITS);
        assert_eq!(messages.len(), 1);
        assert_eq!(decoder.held_bytes(), 0);
        assert!(!decoder.is_mid_message());
    }

    proptest! {
        #[test]
        fn any_messages_in_any_pieces_are_those_messages(
            stream in streams(),
            piece_lengths in prop_oneof![vec(1..40_usize, 1..8), vec(1..5000_usize, 1..8)],
        ) {
            let mut decoder = Decoder::default();
            let (messages, end) = decode_in_pieces(&mut decoder, &stream.bytes, &piece_lengths, &LIMITS);
            prop_assert_eq!(end, Ok(()));
            prop_assert_eq!(messages, stream.messages);
            prop_assert_eq!(decoder.held_bytes(), 0);
        }

        #[test]
        fn how_bytes_are_cut_changes_nothing(
            mut stream in streams(),
            flips in vec((any::<prop::sample::Index>(), 0..8_u32), 0..4),
            piece_lengths in vec(1..40_usize, 1..8),
        ) {
            stream.bytes.push(0x81);
            for (at, bit) in flips {
                *at.get_mut(&mut stream.bytes) ^= 1 << bit;
            }
            let (messages, end) = decode_at_once(&stream.bytes);
            let (in_pieces, pieces_end) = decode_in_pieces(&mut Decoder::default(), &stream.bytes, &piece_lengths, &LIMITS);
            prop_assert_eq!(&in_pieces, &messages);
            prop_assert_eq!(pieces_end, end);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, piece_lengths in vec(1..9_usize, 1..4)) {
            let in_pieces = decode_in_pieces(&mut Decoder::default(), &bytes, &piece_lengths, &LIMITS);
            prop_assert_eq!(in_pieces, decode_at_once(&bytes));
        }
    }
}
