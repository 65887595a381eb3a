//! A request's body, gathered in the bytes that it arrived in.
//!
//! Chunks are moved together as they arrive, so that a decoded body lies in one piece right behind
//! its head, and what is not decoded yet lies right behind that. The connection's input therefore
//! never holds more than the body so far and one unfinished line, however small the chunks are.

use super::Refusal;

/// Chunk extensions and trailers of one body, in bytes. They are read and forgotten. No client of
/// the API sends any; the bound is what a proxy might add for tracing, doubled.
const EXTRAS_BYTES_MAX: usize = 1024;

/// Digits of a chunk's size, leading zeros included: enough for any 64-bit size.
const SIZE_DIGITS_MAX: usize = 16;

/// How the end of the body is found, and how much of it has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes; no body is a body of none.
    Length(usize),
    Chunked(Chunks),
}

/// What is known of the body after a look at the bytes behind the head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gathered {
    /// The body goes on. The first `keep` bytes are needed again, the rest is spent.
    Partial { keep: usize },
    /// The body is the first `body_bytes`; the next request begins after `consumed`.
    Whole { body_bytes: usize, consumed: usize },
}

impl Framing {
    /// Looks at everything that has arrived behind the head.
    pub(super) fn gather(
        &mut self,
        input: &mut [u8],
        body_bytes_max: usize,
    ) -> Result<Gathered, Refusal> {
        match self {
            Framing::Length(bytes) if input.len() < *bytes => {
                Ok(Gathered::Partial { keep: input.len() })
            }
            Framing::Length(bytes) => Ok(Gathered::Whole {
                body_bytes: *bytes,
                consumed: *bytes,
            }),
            Framing::Chunked(chunks) => chunks.gather(input, body_bytes_max),
        }
    }
}

/// The chunked coding of RFC 9112 section 7.1, part way through.
///
/// The first `body_bytes` of the input are decoded and are not looked at again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunks {
    expects: Expects,
    body_bytes: usize,
    extras_bytes: usize,
}

/// What comes next: Size -> Data -> DataEnd -> Size ... Size (of 0) -> Trailer -> (whole).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expects {
    #[default]
    Size,
    Data {
        left: usize,
    },
    DataEnd,
    Trailer,
}

impl Chunks {
    fn gather(&mut self, input: &mut [u8], body_bytes_max: usize) -> Result<Gathered, Refusal> {
        let mut at = self.body_bytes;
        loop {
            let unread = &input[at..];
            match self.expects {
                Expects::Size => {
                    let Some(line) = self.line(unread)? else {
                        break;
                    };
                    at += line.len() + 2;
                    let (size, extension_bytes) = chunk_size(line)?;
                    self.count_extras(extension_bytes)?;
                    self.expects = match size {
                        0 => Expects::Trailer,
                        _ => Expects::Data {
                            left: admit(size, body_bytes_max.saturating_sub(self.body_bytes))?,
                        },
                    };
                }
                Expects::Data { left } => {
                    let taken = left.min(unread.len());
                    input.copy_within(at..at + taken, self.body_bytes);
                    at += taken;
                    self.body_bytes += taken;
                    if taken < left {
                        self.expects = Expects::Data { left: left - taken };
                        break;
                    }
                    self.expects = Expects::DataEnd;
                }
                Expects::DataEnd => match unread {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        self.expects = Expects::Size;
                    }
                    [] | [b'\r'] => break,
                    _ => return Err(Refusal::Chunk),
                },
                Expects::Trailer => {
                    let Some(line) = self.line(unread)? else {
                        break;
                    };
                    at += line.len() + 2;
                    if line.is_empty() {
                        return Ok(Gathered::Whole {
                            body_bytes: self.body_bytes,
                            consumed: at,
                        });
                    }
                    check_trailer(line)?;
                    self.count_extras(line.len() + 2)?;
                }
            }
        }
        let unread_bytes = input.len() - at;
        input.copy_within(at.., self.body_bytes);
        Ok(Gathered::Partial {
            keep: self.body_bytes + unread_bytes,
        })
    }

    /// The next line without its end; `None` when it has not all arrived. Since a line is bounded
    /// by what is left for extras, looking at an unfinished one again costs a bounded amount.
    fn line<'a>(&self, unread: &'a [u8]) -> Result<Option<&'a [u8]>, Refusal> {
        let line_bytes_max = SIZE_DIGITS_MAX + (EXTRAS_BYTES_MAX - self.extras_bytes) + 2;
        let window = &unread[..unread.len().min(line_bytes_max)];
        let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
            return match window.len() < line_bytes_max {
                true => Ok(None),
                false => Err(Refusal::ChunkExtrasTooLarge),
            };
        };
        match window[..end].strip_suffix(b"\r") {
            Some(line) if !line.iter().any(|&byte| is_control(byte)) => Ok(Some(line)),
            Some(_) | None => Err(Refusal::Chunk),
        }
    }

    fn count_extras(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.extras_bytes += bytes;
        match self.extras_bytes <= EXTRAS_BYTES_MAX {
            true => Ok(()),
            false => Err(Refusal::ChunkExtrasTooLarge),
        }
    }
}

/// An announced number of bytes, if there is room for so many.
pub(super) fn admit(bytes: u64, room_bytes: usize) -> Result<usize, Refusal> {
    match usize::try_from(bytes) {
        Ok(bytes) if bytes <= room_bytes => Ok(bytes),
        Ok(_) | Err(_) => Err(Refusal::BodyTooLarge),
    }
}

/// A size line's size, and the bytes of what follows it. `httparse::parse_chunk_size` is not used,
/// because it takes a line without digits for the last chunk and allows a line feed in an
/// extension: both have been used to smuggle requests.
fn chunk_size(line: &[u8]) -> Result<(u64, usize), Refusal> {
    let digits_count = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let (digits, extras) = line.split_at(digits_count);
    let is_extension = extras.trim_ascii_start().starts_with(b";");
    if !(1..=SIZE_DIGITS_MAX).contains(&digits_count) || !(extras.is_empty() || is_extension) {
        return Err(Refusal::Chunk);
    }
    let digits = str::from_utf8(digits).map_err(|_| Refusal::Chunk)?;
    let size = u64::from_str_radix(digits, 16).map_err(|_| Refusal::Chunk)?;
    Ok((size, extras.len()))
}

/// A trailer has to look like a header line, though its value means nothing here.
fn check_trailer(line: &[u8]) -> Result<(), Refusal> {
    let name_bytes = line.iter().position(|&byte| byte == b':');
    match name_bytes {
        Some(bytes) if bytes > 0 && line[..bytes].iter().all(u8::is_ascii_graphic) => Ok(()),
        Some(_) | None => Err(Refusal::Chunk),
    }
}

fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather_whole(coded: &[u8]) -> Result<(Vec<u8>, usize), Refusal> {
        let mut input = coded.to_vec();
        match Chunks::default().gather(&mut input, 100)? {
            Gathered::Whole {
                body_bytes,
                consumed,
            } => Ok((input[..body_bytes].to_vec(), consumed)),
            Gathered::Partial { .. } => panic!("{:?} is not whole", coded.escape_ascii()),
        }
    }

    #[track_caller]
    fn refused(coded: &[u8], refusal: Refusal) {
        assert_eq!(
            gather_whole(coded),
            Err(refusal),
            "{}",
            coded.escape_ascii()
        );
    }

    #[test]
    fn chunks_are_moved_together() {
        let coded = b"4\r\nRust\r\n00b\r\n, no copies\r\n0\r\n\r\nGET";
        assert_eq!(
            gather_whole(coded),
            Ok((b"Rust, no copies".to_vec(), coded.len() - 3))
        );
    }

    #[test]
    fn extensions_and_trailers_are_read_and_forgotten() {
        let coded =
            b"2;a=b;c=\"d e\"\r\nhi\r\n1 ; x\r\n!\r\n0;last\r\nExpires: never\r\nX:\r\n\r\n";
        assert_eq!(gather_whole(coded), Ok((b"hi!".to_vec(), coded.len())));
    }

    #[test]
    fn a_size_line_is_digits_and_nothing_else() {
        for line in [
            "",
            ";x",
            " 1",
            "1 ",
            "1\t",
            "+1",
            "-1",
            "0x1",
            "1,",
            "1 1",
            "g",
            "1\r",
            "1;\0",
            "1;\r",
            "00000000000000001",
        ] {
            refused(
                format!("{line}\r\nx\r\n0\r\n\r\n").as_bytes(),
                Refusal::Chunk,
            );
        }
    }

    #[test]
    fn a_bare_line_feed_ends_no_line() {
        refused(b"1\nx\r\n0\r\n\r\n", Refusal::Chunk);
        refused(b"1;\nx\r\nx\r\n0\r\n\r\n", Refusal::Chunk);
        refused(b"1\r\nx\n0\r\n\r\n", Refusal::Chunk);
        refused(b"0\r\n\n", Refusal::Chunk);
        refused(b"0\r\nA: b\n\r\n", Refusal::Chunk);
    }

    #[test]
    fn a_trailer_looks_like_a_header_line() {
        for line in ["GET / HTTP/1.1", ": x", "a b: c", " folded", "a:\x01"] {
            refused(format!("0\r\n{line}\r\n\r\n").as_bytes(), Refusal::Chunk);
        }
    }

    #[test]
    fn a_chunk_ends_where_its_size_says() {
        refused(b"1\r\nxy\r\n0\r\n\r\n", Refusal::Chunk);
        refused(b"3\r\nxy\r\n0\r\n\r\n", Refusal::Chunk);
    }

    #[test]
    fn a_body_too_large_is_refused_at_its_size_line() {
        refused(b"65\r\n", Refusal::BodyTooLarge);
        refused(b"ffffffffffffffff\r\n", Refusal::BodyTooLarge);
        let mut input = [b"64\r\n".as_slice(), &[b'x'; 100], b"\r\n1\r\n"].concat();
        assert_eq!(
            Chunks::default().gather(&mut input, 100),
            Err(Refusal::BodyTooLarge)
        );
    }

    #[test]
    fn extras_are_bounded_together_and_alone() {
        let long = "e".repeat(EXTRAS_BYTES_MAX);
        refused(
            format!("1;{long}\r\nx\r\n0\r\n\r\n").as_bytes(),
            Refusal::ChunkExtrasTooLarge,
        );
        refused(
            format!("0\r\n{long}{long}").as_bytes(),
            Refusal::ChunkExtrasTooLarge,
        );
        let short = "e".repeat(EXTRAS_BYTES_MAX / 50);
        let chunk = format!("1;{short}\r\nx\r\n");
        refused(chunk.repeat(60).as_bytes(), Refusal::ChunkExtrasTooLarge);
    }

    #[test]
    fn tiny_chunks_take_no_more_memory_than_their_body() {
        let mut chunks = Chunks::default();
        let mut input = Vec::new();
        for _ in 0..100 {
            for piece in [b"1;".as_slice(), b"ee\r", b"\nx\r", b"\n"] {
                input.extend_from_slice(piece);
                let gathered = chunks.gather(&mut input, 100);
                let Ok(Gathered::Partial { keep }) = gathered else {
                    panic!("{gathered:?}");
                };
                input.truncate(keep);
                assert!(input.len() <= chunks.body_bytes + 8);
            }
        }
        assert_eq!(input, [b'x'; 100]);
    }
}
