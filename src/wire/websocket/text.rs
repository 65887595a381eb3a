//! A text that arrives in pieces, which end anywhere, checked as it comes.

use std::str;

use super::violation::Violation;

/// The characters that came whole, and the first bytes of the one that has not.
///
/// Each byte is checked when it comes, so that a text that cannot become UTF-8 is refused at the
/// byte that spoils it, and is not read again when the text is handed out.
#[derive(Debug, Default)]
pub struct Text {
    whole: String,
    /// The first bytes of a character, of which a valid one can still come; at most 3.
    begun: [u8; 4],
    begun_bytes: usize,
}

impl Text {
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Violation> {
        let piece = self.finish_character(piece)?;
        let whole_bytes = match str::from_utf8(piece) {
            Ok(whole) => {
                self.whole.push_str(whole);
                return Ok(());
            }
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(Violation::NotUtf8),
        };
        // The piece ends inside a character. Reading its whole part twice costs less than what it
        // takes to keep from it: a piece is a received buffer, which is in the nearest cache.
        let (whole, begun) = piece.split_at(whole_bytes);
        self.whole
            .push_str(str::from_utf8(whole).expect("valid up to here"));
        self.begun[..begun.len()].copy_from_slice(begun);
        self.begun_bytes = begun.len();
        Ok(())
    }

    /// The text, if it does not end inside a character.
    pub fn as_whole(&self) -> Result<&str, Violation> {
        if self.begun_bytes > 0 {
            return Err(Violation::NotUtf8);
        }
        Ok(&self.whole)
    }

    /// How many bytes came.
    pub fn bytes(&self) -> usize {
        self.whole.len() + self.begun_bytes
    }

    /// How many bytes of memory they take.
    pub fn held_bytes(&self) -> usize {
        self.whole.capacity()
    }

    /// Moves what is missing of the begun character from the front of `piece`; gives the rest.
    fn finish_character<'a>(&mut self, mut piece: &'a [u8]) -> Result<&'a [u8], Violation> {
        while self.begun_bytes > 0
            && let Some((&byte, rest)) = piece.split_first()
        {
            self.begun[self.begun_bytes] = byte;
            self.begun_bytes += 1;
            piece = rest;
            match str::from_utf8(&self.begun[..self.begun_bytes]) {
                Ok(character) => {
                    self.whole.push_str(character);
                    self.begun_bytes = 0;
                }
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Violation::NotUtf8),
            }
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How many bytes are taken, one at a time, before one is refused.
    fn taken_bytes(bytes: &[u8]) -> usize {
        let mut text = Text::default();
        bytes
            .iter()
            .take_while(|&&byte| text.push(&[byte]).is_ok())
            .count()
    }

    #[test]
    fn the_byte_that_spoils_a_character_is_refused() {
        // Past U+10FFFF, a surrogate, an overlong slash, a byte that never occurs, a stray
        // continuation: each is refused before its sequence is complete.
        assert_eq!(taken_bytes(b"\xCE\xBA\xF4\x90\x80\x80"), 3);
        assert_eq!(taken_bytes(b"a\xED\xA0\x80"), 2);
        assert_eq!(taken_bytes(b"a\xE0\x80\xAF"), 2);
        assert_eq!(taken_bytes(b"a\xFE"), 1);
        assert_eq!(taken_bytes(b"a\x80"), 1);
    }

    #[test]
    fn a_text_that_ends_inside_a_character_is_not_whole() {
        let mut text = Text::default();
        text.push(b"\xF0\x9F\xA6").expect("may still become a crab");
        assert_eq!(text.as_whole(), Err(Violation::NotUtf8));
        assert_eq!(text.bytes(), 3);
        text.push(b"\x80").expect("became one");
        assert_eq!(text.as_whole(), Ok("\u{1F980}"));
    }

    proptest! {
        #[test]
        fn any_text_in_any_pieces_is_that_text(text: String, piece_bytes in 1..9_usize) {
            let mut pieces = Text::default();
            for piece in text.as_bytes().chunks(piece_bytes) {
                pieces.push(piece).expect("a part of a text");
            }
            prop_assert_eq!(pieces.as_whole(), Ok(&text[..]));
        }

        #[test]
        fn nothing_is_taken_that_the_standard_library_has_given_up(
            text: String,
            tail in proptest::collection::vec(prop_oneof![any::<u8>(), 0x80..=0xC0_u8, 0xE0..=0xF5_u8], 0..8),
        ) {
            let bytes = [text.as_bytes(), &tail].concat();
            let spoilt_at = (0..bytes.len()).find(|&at| {
                str::from_utf8(&bytes[..=at]).is_err_and(|error| error.error_len().is_some())
            });
            prop_assert_eq!(taken_bytes(&bytes), spoilt_at.unwrap_or(bytes.len()));
        }
    }
}
