//! What is agreed on with whom, and both directions against an independent inflate.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::client::{LIMITS, Stream, compressed_streams, decode_in_pieces, frame};
use super::super::frame::COMPRESSED;
use super::super::{Decoder, Limits, Opcode, Violation, encode_frame};
use super::*;

const COMPRESSED_TOO: Limits = Limits {
    takes_compressed: true,
    ..LIMITS
};

fn windows() -> impl Iterator<Item = WindowBits> {
    (0..=u8::MAX).filter_map(WindowBits::new)
}

/// These lines of offers are answered by this; nothing for a handshake that fails.
fn check_offers(lines: &[&str], expected: Option<&str>) {
    let headers = lines
        .iter()
        .map(|line| ("Sec-WebSocket-Extensions", line.as_bytes()));
    let answer = agree(headers)
        .ok()
        .map(|agreement| agreement.map_or(String::new(), Agreement::answer));
    assert_eq!(answer.as_deref(), expected, "{lines:?}");
}

const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

#[test]
fn an_offer_is_answered_without_takeover_and_with_the_window_asked_for() {
    let windowed = |bits| format!("{PLAIN}; server_max_window_bits={bits}");
    check_offers(&["permessage-deflate"], Some(PLAIN));
    // Chromium and Firefox, Safari, npm ws.
    check_offers(&["permessage-deflate; client_max_window_bits"], Some(PLAIN));
    check_offers(&["x-webkit-deflate-frame, permessage-deflate"], Some(PLAIN));
    check_offers(
        &[
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits=9",
        ],
        Some(PLAIN),
    );
    for bits in 9..=15 {
        let offer = format!("permessage-deflate; server_max_window_bits={bits}");
        check_offers(&[&offer], Some(&windowed(bits)));
    }
    check_offers(
        &["permessage-deflate; client_max_window_bits=\"10\"; server_max_window_bits=\"1\\2\""],
        Some(&windowed(12)),
    );
}

#[test]
fn an_offer_that_is_not_as_defined_is_declined() {
    for parameters in [
        "server_max_window_bits",
        "server_max_window_bits=8",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=09",
        "server_max_window_bits=+9",
        "server_max_window_bits=9; server_max_window_bits=9",
        "client_max_window_bits=7",
        "client_max_window_bits=a",
        "client_max_window_bits; client_max_window_bits=9",
        "server_no_context_takeover=1",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover=true",
        "SERVER_NO_CONTEXT_TAKEOVER",
        "unknown",
        "unknown=1",
    ] {
        check_offers(&[&format!("permessage-deflate; {parameters}")], Some(""));
        let second = format!("permessage-deflate; {parameters}, permessage-deflate");
        check_offers(&[&second], Some(PLAIN));
    }
    check_offers(&["permessage-bzip2", "deflate-frame"], Some(""));
    check_offers(&[], Some(""));
}

#[test]
fn the_first_offer_that_can_be_taken_is_and_lines_are_one_list() {
    let windowed = |bits| format!("{PLAIN}; server_max_window_bits={bits}");
    let lines = [
        "foo; bar=1, permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=10, permessage-deflate",
    ];
    check_offers(&lines, Some(&windowed(10)));
}

#[test]
fn a_list_that_is_none_fails_the_handshake() {
    check_offers(
        &["permessage-deflate; server_max_window_bits=\"1 0\""],
        None,
    );
    check_offers(&["permessage-deflate", "permessage-deflate;"], None);
}

/// Inflates with a window of exactly so many bits; a reference further back is an error.
fn inflate_elsewhere(deflated: &[u8], window: WindowBits) -> Result<Vec<u8>, TINFLStatus> {
    let input = [deflated, &TAIL].concat();
    let mut inflater = DecompressorOxide::new();
    let mut window = vec![0; 1 << window.bits()];
    let (mut taken, mut at, mut payload) = (0, 0, Vec::new());
    loop {
        let (status, taken_bytes, bytes) = decompress(
            &mut inflater,
            &input[taken..],
            &mut window,
            at,
            TINFL_FLAG_HAS_MORE_INPUT,
        );
        payload.extend(&window[at..at + bytes]);
        taken += taken_bytes;
        at = (at + bytes) % window.len();
        match status {
            TINFLStatus::HasMoreOutput => {}
            TINFLStatus::NeedsMoreInput if taken == input.len() => return Ok(payload),
            failed => return Err(failed),
        }
    }
}

/// The payload of one unmasked frame, and whether it is compressed.
fn open(frame: &[u8]) -> (bool, &[u8]) {
    let start = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    (frame[0] & COMPRESSED != 0, &frame[start..])
}

/// Each window's frame of this payload is read elsewhere, and read here as its own; it is the
/// compressed one if that is shorter.
fn check_round_trip(deflater: &mut Deflater, opcode: Opcode, payload: &[u8]) {
    for window in windows() {
        let mut always = b"before".to_vec();
        deflater.encode_compressed_frame(opcode, payload, window, &mut always);
        let always = always.strip_prefix(b"before").expect("only appended to");
        let (is_compressed, body) = open(always);
        assert!(is_compressed);
        assert_eq!(inflate_elsewhere(body, window), Ok(payload.to_vec()));
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(body, payload.len()), Ok(payload));

        let mut chosen = b"before".to_vec();
        let is_compressed = deflater.encode_frame(opcode, payload, window, &mut chosen);
        let chosen = chosen.strip_prefix(b"before").expect("only appended to");
        if is_compressed {
            assert!(body.len() < payload.len());
            assert_eq!(chosen, always);
        } else {
            let mut plain = Vec::new();
            encode_frame(opcode, payload, &mut plain);
            assert_eq!(chosen, plain);
        }
    }
}

/// Text that repeats itself at every distance up to the largest window and beyond.
fn repetitive(bytes: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let mut word = 1_u32;
    while text.len() < bytes {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend(format!("{{\"id\":{},\"name\":\"member\"}}", word % 997).bytes());
    }
    text.truncate(bytes);
    text
}

#[test]
fn no_window_is_exceeded_at_any_level() {
    let payload = repetitive(150_000);
    for level in 1..=9 {
        check_round_trip(&mut Deflater::new(level, 0), Opcode::Text, &payload);
    }
}

#[test]
fn the_window_that_a_client_has_matters() {
    let payload = repetitive(150_000);
    let mut frame = Vec::new();
    let [least, .., most] = windows().collect::<Vec<_>>()[..] else {
        panic!("there are several windows");
    };
    assert!(Deflater::new(6, 0).encode_frame(Opcode::Text, &payload, most, &mut frame));
    assert!(inflate_elsewhere(open(&frame).1, least).is_err());
}

#[test]
fn short_payloads_control_frames_and_what_does_not_get_shorter_are_left_alone() {
    let mut deflater = Deflater::new(6, 100);
    let window = WindowBits::new(15).unwrap();
    let mut check = |opcode, payload: &[u8], expected| {
        let is_compressed = deflater.encode_frame(opcode, payload, window, &mut Vec::new());
        assert_eq!(
            is_compressed,
            expected,
            "{opcode:?}, {} bytes",
            payload.len()
        );
    };
    check(Opcode::Text, &[b'a'; 99], false);
    check(Opcode::Text, &[b'a'; 100], true);
    check(Opcode::Binary, &[b'a'; 100], true);
    check(Opcode::Ping, &[b'a'; 100], false);
    check(Opcode::Close, &[b'a'; 100], false);
    let mut state = 1_u32;
    let random = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    });
    let random: Vec<u8> = random.take(1000).collect();
    check(Opcode::Binary, &random, false);
    let mut eager = Deflater::new(6, 0);
    assert!(!eager.encode_frame(Opcode::Text, b"", window, &mut Vec::new()));
}

#[test]
fn the_examples_of_section_7_2_3() {
    let hello = |message: &[u8]| {
        let mut inflater = Inflater::default();
        assert_eq!(
            inflater.inflate(message, 100),
            Ok(&b"Hello"[..]),
            "{message:02x?}"
        );
    };
    // One block, none compressed, a last block and an empty one, and two blocks.
    hello(b"\xf2\x48\xcd\xc9\xc9\x07\x00");
    hello(b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00");
    hello(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00");
    hello(b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00");
    // A stream that ends with its message, as compressors that cannot flush leave it.
    hello(b"\xf3\x48\xcd\xc9\xc9\x07\x00");
    assert_eq!(Inflater::default().inflate(b"\x00", 0), Ok(&b""[..]));
    assert_eq!(Inflater::default().inflate(b"", 0), Ok(&b""[..]));
    // A message that refers to the one before it, which is what was ruled out.
    let mut inflater = Inflater::default();
    inflater
        .inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", 100)
        .unwrap();
    assert_eq!(
        inflater.inflate(b"\xf2\x00\x11\x00\x00", 100),
        Err(Violation::NotDeflate)
    );
}

#[test]
fn a_message_without_its_end_is_refused() {
    let mut frame = Vec::new();
    let window = WindowBits::new(15).unwrap();
    Deflater::new(6, 0).encode_frame(Opcode::Text, &repetitive(5000), window, &mut frame);
    let (_, deflated) = open(&frame);
    for length in 1..deflated.len() {
        // Where a cut message happens to end as a whole one does, it is shorter.
        if let Ok(payload) = Inflater::default().inflate(&deflated[..length], 5000) {
            assert!(repetitive(5000).starts_with(payload), "cut at {length}");
        }
    }
}

/// A message of a few bytes that comes to so many.
fn bomb(bytes: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let window = WindowBits::new(15).unwrap();
    Deflater::new(9, 0).encode_frame(Opcode::Binary, &vec![0; bytes], window, &mut frame);
    open(&frame).1.to_vec()
}

#[test]
fn a_bomb_is_stopped_with_bounded_memory() {
    let bomb = bomb(64 << 20);
    assert!(bomb.len() < 70_000);
    for bytes_max in [0, 1, 1000, 1 << 20] {
        let mut inflater = Inflater::default();
        assert_eq!(
            inflater.inflate(&bomb, bytes_max),
            Err(Violation::LongInflated)
        );
        assert!(
            inflater.held_bytes() <= bytes_max + 1,
            "{}",
            inflater.held_bytes()
        );
        // What is left of it goes with the next message.
        assert_eq!(
            inflater.inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", 5),
            Ok(&b"Hello"[..])
        );
        assert!(inflater.held_bytes() <= crate::base::limits::SPARE_INFLATED_BYTES_MAX);
    }
}

#[test]
fn a_message_may_have_exactly_its_limit() {
    let message = bomb(100_000);
    let mut inflater = Inflater::default();
    assert_eq!(
        inflater.inflate(&message, 100_000).map(<[u8]>::len),
        Ok(100_000)
    );
    assert_eq!(
        inflater.inflate(&message, 99_999),
        Err(Violation::LongInflated)
    );
}

#[test]
fn a_message_may_be_made_of_any_number_of_streams() {
    let mut inflater = Inflater::default();
    let hello = b"\xf3\x48\xcd\xc9\xc9\x07\x00".repeat(10_000);
    let inflated = inflater.inflate(&hello, 50_000);
    assert_eq!(inflated, Ok(&b"Hello".repeat(10_000)[..]));
    assert_eq!(inflater.inflate(&[3, 0].repeat(10_000), 0), Ok(&b""[..]));
}

#[test]
fn a_shard_that_inflated_nothing_holds_nothing() {
    assert_eq!(size_of::<Inflater>(), size_of::<usize>());
    assert_eq!(Inflater::default().held_bytes(), 0);
}

#[test]
fn text_is_checked_when_it_is_inflated() {
    let window = WindowBits::new(15).unwrap();
    let mut encoded = Vec::new();
    let mut spoilt = repetitive(1000);
    spoilt.push(0xFF);
    assert!(Deflater::new(6, 0).encode_frame(Opcode::Text, &spoilt, window, &mut encoded));
    for (opcode, expected) in [(0xC1, Err(Violation::NotUtf8)), (0xC2, Ok(()))] {
        let bytes = frame(opcode, [1, 2, 3, 4], open(&encoded).1);
        let mut decoder = Decoder::default();
        let (_, end) = decode_in_pieces(&mut decoder, &bytes, &[bytes.len()], &COMPRESSED_TOO);
        assert_eq!(end, expected);
    }
}

#[test]
fn a_bomb_in_frames_is_a_violation_of_its_own() {
    let limits = Limits {
        message_bytes_max: 5000,
        ..COMPRESSED_TOO
    };
    let decode = |frames: &[Vec<u8>]| {
        decode_in_pieces(&mut Decoder::default(), &frames.concat(), &[100], &limits).1
    };
    let mask = [9, 8, 7, 6];
    let bomb = bomb(1 << 20);
    let (front, back) = bomb.split_at(bomb.len() / 2);
    assert_eq!(
        decode(&[frame(0xC2, mask, &bomb)]),
        Err(Violation::LongInflated)
    );
    let fragments = [frame(0x42, mask, front), frame(0x80, mask, back)];
    assert_eq!(decode(&fragments), Err(Violation::LongInflated));
    // What is long as it comes is not waited for.
    let long = deflated_bytes_max(5000) + 1;
    let header = frame(0xC2, mask, &vec![0; long])[..8].to_vec();
    assert_eq!(decode(&[header]), Err(Violation::LongMessage));
    let fragments = [
        frame(0x42, mask, &[0; 4000]),
        frame(0x00, mask, &vec![0; long - 4000]),
    ];
    assert_eq!(decode(&fragments), Err(Violation::LongMessage));
}

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..300),
        "[ab]{0,2000}".prop_map(String::into_bytes),
        vec("[a-f]{1,6}", 0..9000).prop_map(|words| words.concat().into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_compressed_is_read_by_every_window(
        payloads in vec(payloads(), 1..3),
        level in 1..=9_u8,
        bytes_min in 0..100_usize,
    ) {
        let mut deflater = Deflater::new(level, bytes_min);
        for payload in payloads {
            check_round_trip(&mut deflater, Opcode::Binary, &payload);
        }
    }

    #[test]
    fn any_compressed_messages_in_any_pieces_are_those_messages(
        stream in compressed_streams(),
        piece_lengths in prop_oneof![vec(1..40_usize, 1..8), vec(1..5000_usize, 1..8)],
    ) {
        let Stream { bytes, messages } = stream;
        let mut decoder = Decoder::default();
        let (decoded, end) = decode_in_pieces(&mut decoder, &bytes, &piece_lengths, &COMPRESSED_TOO);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(decoded, messages);
        prop_assert_eq!(decoder.held_bytes(), 0);
    }

    #[test]
    fn how_spoilt_bytes_are_cut_changes_nothing(
        stream in compressed_streams(),
        flips in vec((any::<prop::sample::Index>(), 0..8_u32), 1..4),
        piece_lengths in vec(1..40_usize, 1..8),
    ) {
        let mut bytes = stream.bytes;
        bytes.push(0x81);
        for (at, bit) in flips {
            *at.get_mut(&mut bytes) ^= 1 << bit;
        }
        let decode = |lengths: &[usize]| decode_in_pieces(&mut Decoder::default(), &bytes, lengths, &COMPRESSED_TOO);
        prop_assert_eq!(decode(&piece_lengths), decode(&[bytes.len()]));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_or_come_to_more_than_they_may(message: Vec<u8>, bytes_max in 0..200_usize) {
        let mut inflater = Inflater::default();
        match inflater.inflate(&message, bytes_max) {
            Ok(payload) => prop_assert!(payload.len() <= bytes_max),
            Err(violation) => prop_assert!(matches!(violation, Violation::NotDeflate | Violation::LongInflated)),
        }
        prop_assert!(inflater.held_bytes() <= bytes_max + 1);
        let mut again = Inflater::default();
        again.inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", 5).unwrap();
        let again = again.inflate(&message, bytes_max).map(<[u8]>::to_vec);
        prop_assert_eq!(again, inflater.inflate(&message, bytes_max).map(<[u8]>::to_vec));
    }

    #[test]
    fn no_list_of_offers_panics(line: Vec<u8>, parameters in "(permessage-deflate|; ?|server_max_window_bits|=|1[0-9]|\"|, ){0,12}") {
        for line in [&line[..], parameters.as_bytes()] {
            if let Ok(Some(agreement)) = agree([("sec-websocket-extensions", line)].into_iter()) {
                prop_assert!(agreement.answer().starts_with(PLAIN));
            }
        }
    }
}
