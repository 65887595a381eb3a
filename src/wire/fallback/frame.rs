//! The lines that a session receives, each as one HTTP chunk.
//!
//! ```text
//! 0000001e\r\n
//! a["{\"event\":\"pusher:pong\"}"]\n
//! \r\n
//! ```
//!
//! The size has always eight digits (RFC 9112, section 7.1, allows zeros in front), so that the
//! framing of a frame has one length.

/// What a chunk has around its body: eight digits and two line ends.
pub const FRAMING_BYTES: usize = SIZE_DIGITS + 2 * LINE_END.len();

/// Characters of a body after which pusher-js asks for another stream (`MAX_BUFFER_LENGTH`): once
/// it has more than this and a whole last line. A stream that stops behind the first frame that
/// crosses this bound loses nothing when it does.
pub const STREAM_BODY_BYTES_MAX: u64 = 256 * 1024;

/// The first chunk of a stream: 2048 times `h`, for browsers that show nothing before.
pub const PRELUDE: &[u8] = &prelude();

/// The session is open.
pub const OPEN: &[u8] = b"00000004\r\no{}\n\r\n";

/// A sign of life.
pub const HEARTBEAT: &[u8] = b"00000002\r\nh\n\r\n";

/// Appends one message, `a["..."]`.
pub fn encode_message(message: &str, out: &mut Vec<u8>) {
    let start = begin(out);
    out.extend_from_slice(MESSAGE_START);
    for piece in escaped(message) {
        piece.append(out);
    }
    out.extend_from_slice(MESSAGE_END);
    end(start, out);
}

/// Bytes that [`encode_message`] appends.
pub fn message_length(message: &str) -> usize {
    let text: usize = escaped(message).map(|piece| piece.length()).sum();
    FRAMING_BYTES + MESSAGE_START.len() + text + MESSAGE_END.len()
}

/// Appends the end of a session, `c[code,"reason"]`.
pub fn encode_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let start = begin(out);
    out.extend_from_slice(format!("c[{code},\"").as_bytes());
    for piece in escaped(reason) {
        piece.append(out);
    }
    out.extend_from_slice(b"\"]\n");
    end(start, out);
}

/// The lengths of frames that lie one after the other, which this module or its neighbour for
/// events encoded.
///
/// # Panics
/// If they are anything else: frames are never read from a peer.
pub fn frame_lengths(mut frames: &[u8]) -> impl Iterator<Item = usize> + Clone {
    std::iter::from_fn(move || {
        if frames.is_empty() {
            return None;
        }
        let digits = frames.first_chunk::<SIZE_DIGITS>().expect("a whole frame");
        let size = digits.iter().fold(0, |size, digit| {
            let value = char::from(*digit).to_digit(16);
            size << 4 | value.expect("a size in hexadecimal") as usize
        });
        let length = FRAMING_BYTES + size;
        frames = &frames[length..];
        Some(length)
    })
}

/// Appends the framing before a body, and returns where it begins.
pub(super) fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[b'0'; SIZE_DIGITS]);
    out.extend_from_slice(LINE_END);
    start
}

/// Ends the frame that begins at `start`: writes the size of what was appended since.
pub(super) fn end(start: usize, out: &mut Vec<u8>) {
    let body = out.len() - start - SIZE_DIGITS - LINE_END.len();
    let size = u32::try_from(body).expect("a message is below 4 GiB");
    out[start..start + SIZE_DIGITS].copy_from_slice(&hexadecimal(size));
    out.extend_from_slice(LINE_END);
}

const SIZE_DIGITS: usize = 8;
const LINE_END: &[u8] = b"\r\n";
const MESSAGE_START: &[u8] = b"a[\"";
const MESSAGE_END: &[u8] = b"\"]\n";

fn hexadecimal(number: u32) -> [u8; SIZE_DIGITS] {
    std::array::from_fn(|place| b"0123456789abcdef"[(number >> (28 - 4 * place) & 0xf) as usize])
}

const PRELUDE_BYTES: usize = 2048;
const PRELUDE_CHUNK_BYTES: usize = PRELUDE_BYTES + 1 + FRAMING_BYTES;

const fn prelude() -> [u8; PRELUDE_CHUNK_BYTES] {
    let mut chunk = [b'h'; PRELUDE_CHUNK_BYTES];
    let (size, ends) = (b"00000801\r\n", b"\n\r\n");
    let mut place = 0;
    while place < size.len() {
        chunk[place] = size[place];
        place += 1;
    }
    place = 0;
    while place < ends.len() {
        chunk[PRELUDE_CHUNK_BYTES - ends.len() + place] = ends[place];
        place += 1;
    }
    chunk
}

/// A piece of a string's body as it stands in a frame.
enum Piece<'a> {
    Plain(&'a str),
    Escape(char),
}

/// The pieces of `text` inside a JSON string, in ASCII.
fn escaped(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let plain = rest
            .bytes()
            .position(|byte| !is_plain(byte))
            .unwrap_or(rest.len());
        let (piece, after) = match plain {
            0 => (Piece::Escape(first), &rest[first.len_utf8()..]),
            length => (Piece::Plain(&rest[..length]), &rest[length..]),
        };
        rest = after;
        Some(piece)
    })
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..0x7f) && byte != b'"' && byte != b'\\'
}

impl Piece<'_> {
    fn append(&self, out: &mut Vec<u8>) {
        match self {
            Piece::Plain(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Escape(character @ ('"' | '\\')) => {
                out.extend_from_slice(&[b'\\', *character as u8]);
            }
            Piece::Escape(character) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let digits = hexadecimal(u32::from(*unit));
                    out.extend_from_slice(b"\\u");
                    out.extend_from_slice(&digits[4..]);
                }
            }
        }
    }

    fn length(&self) -> usize {
        match self {
            Piece::Plain(text) => text.len(),
            Piece::Escape('"' | '\\') => 2,
            Piece::Escape(character) => 6 * character.len_utf16(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bodies of a run of chunks, as any HTTP client reads them.
    fn bodies(mut chunks: &[u8]) -> Vec<Vec<u8>> {
        let mut bodies = Vec::new();
        while !chunks.is_empty() {
            let line = chunks.windows(2).position(|two| two == b"\r\n").unwrap();
            let digits = std::str::from_utf8(&chunks[..line]).unwrap();
            let size = usize::from_str_radix(digits, 16).unwrap();
            bodies.push(chunks[line + 2..line + 2 + size].to_vec());
            assert_eq!(&chunks[line + 2 + size..line + 4 + size], b"\r\n");
            chunks = &chunks[line + 4 + size..];
        }
        bodies
    }

    /// What pusher-js reads from a line.
    fn messages(body: &[u8]) -> Vec<String> {
        let line = std::str::from_utf8(body).unwrap();
        assert_eq!(line.find('\n'), Some(line.len() - 1), "one line");
        serde_json::from_str(line.strip_prefix('a').unwrap()).unwrap()
    }

    #[test]
    fn the_constants_are_chunks_of_one_line() {
        assert_eq!(bodies(OPEN), [b"o{}\n"]);
        assert_eq!(bodies(HEARTBEAT), [b"h\n"]);
        let prelude = bodies(PRELUDE);
        assert_eq!(prelude, [[vec![b'h'; 2048], b"\n".to_vec()].concat()]);
    }

    #[test]
    fn a_message_is_an_array_of_one_string() {
        let mut out = Vec::new();
        let text = r#"{"event":"a","data":"{\"x\":1}"}"#;
        encode_message(text, &mut out);
        let body = br#"a["{\"event\":\"a\",\"data\":\"{\\\"x\\\":1}\"}"]"#;
        assert_eq!(bodies(&out), [[&body[..], b"\n"].concat()]);
        assert_eq!(out.len(), message_length(text));
    }

    #[test]
    fn the_end_names_code_and_reason() {
        let mut out = Vec::new();
        encode_close(4001, "no \"app\" é", &mut out);
        let expected = "c[4001,\"no \\\"app\\\" \\u00e9\"]\n";
        assert_eq!(bodies(&out), [expected.as_bytes()]);
    }

    #[test]
    #[should_panic(expected = "a whole frame")]
    fn half_a_frame_is_our_fault() {
        frame_lengths(b"0000").count();
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_and_is_ascii(texts in prop::collection::vec(any::<String>(), 0..6)) {
            let mut out = Vec::new();
            let mut lengths = Vec::new();
            for text in &texts {
                let before = out.len();
                encode_message(text, &mut out);
                lengths.push(out.len() - before);
                prop_assert_eq!(out.len() - before, message_length(text));
            }
            prop_assert!(out.is_ascii());
            prop_assert_eq!(frame_lengths(&out).collect::<Vec<usize>>(), lengths.clone());
            let bodies = bodies(&out);
            for ((text, body), length) in texts.iter().zip(&bodies).zip(lengths) {
                prop_assert_eq!(&messages(body), std::slice::from_ref(text));
                prop_assert_eq!(body.len(), length - FRAMING_BYTES);
            }
        }
    }
}
