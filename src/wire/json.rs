//! JSON strings as they came: a token is kept with its quotes, and copied into a frame verbatim.
//!
//! An event's name and data go from the publisher's body to every subscriber without being decoded
//! and encoded again. What must be known of them (the length that a limit speaks of, the text of a
//! short name) is read from the token.
//!
//! Invariants:
//! - A [`RawString`] is one complete JSON string (RFC 8259, section 7) whose escapes name Unicode
//!   scalar values. The grammar lets a lone surrogate through ("\ud800"); strict receivers refuse
//!   the frame that holds one, so it is refused where it comes in.
//! - What [`write_string`] writes is such a token too.

use std::borrow::Cow;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A JSON string token, quotes included. Two are equal when they are spelled alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawString<'a> {
    token: Cow<'a, str>,
}

impl<'a> RawString<'a> {
    /// The token that `value` is, if it is a string.
    pub fn from_value(value: &'a RawValue) -> Result<Self, NotAString> {
        let token = value.get();
        if !token.starts_with('"') {
            return Err(NotAString::OtherType);
        }
        if has_lone_surrogate(token) {
            return Err(NotAString::LoneSurrogate);
        }
        Ok(Self {
            token: Cow::Borrowed(token),
        })
    }

    /// The token of a text that is not JSON yet.
    pub fn encode(text: &str) -> RawString<'static> {
        let mut token = Vec::with_capacity(string_length(text));
        write_string(text, &mut token);
        RawString {
            token: Cow::Owned(String::from_utf8(token).expect("escaping keeps UTF-8")),
        }
    }

    /// As it goes into a frame: escapes as they came, quotes included.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The text that the token stands for; borrowed when nothing in it is escaped.
    pub fn decoded(&self) -> Cow<'_, str> {
        decode_body(body(&self.token))
    }

    /// Like [`RawString::decoded`], for as long as the bytes that the token came in.
    pub fn into_decoded(self) -> Cow<'a, str> {
        match self.token {
            Cow::Borrowed(token) => decode_body(body(token)),
            Cow::Owned(token) => Cow::Owned(decode_body(body(&token)).into_owned()),
        }
    }

    /// Bytes of the decoded text in UTF-8, without decoding it.
    pub fn decoded_length(&self) -> usize {
        let body = body(&self.token);
        if !body.contains('\\') {
            return body.len();
        }
        Pieces { rest: body }
            .map(|piece| match piece {
                Piece::Plain(text) => text.len(),
                Piece::Escaped(character) => character.len_utf8(),
                Piece::LoneSurrogate => unreachable!("refused where the token came in"),
            })
            .sum()
    }

    /// The same token, no longer tied to the bytes it came in.
    pub fn into_owned(self) -> RawString<'static> {
        RawString {
            token: Cow::Owned(self.token.into_owned()),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawString<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = <&'de RawValue>::deserialize(deserializer)?;
        RawString::from_value(value).map_err(D::Error::custom)
    }
}

/// Why a JSON value is not a [`RawString`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAString {
    OtherType,
    LoneSurrogate,
}

impl fmt::Display for NotAString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::OtherType => "expected a string",
            Self::LoneSurrogate => "a string holds a lone surrogate",
        })
    }
}

impl std::error::Error for NotAString {}

/// Whether a string anywhere in this JSON text holds an escape that names no character. In valid
/// JSON a backslash occurs only inside strings, so the text of a whole value can be asked.
pub fn has_lone_surrogate(json: &str) -> bool {
    // "\u" is rare, and looking for it costs a fraction of a walk from escape to escape.
    json.contains("\\u") && Pieces { rest: json }.any(|piece| piece == Piece::LoneSurrogate)
}

/// Parses a JSON object into `T`. serde alone would read the fields of a struct from an array too.
pub fn parse_object<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, serde_json::Error> {
    if !json.trim_start().starts_with('{') {
        return Err(serde_json::Error::custom("expected an object"));
    }
    serde_json::from_str(json)
}

/// Reads a field whose null is a value, and not the same as a field that is absent.
pub fn value_even_if_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Appends `text` as a JSON string token.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    write_string_body(text, out);
    out.push(b'"');
}

/// Appends `text` escaped, without quotes: a piece of a string that the caller opened. JSON that
/// travels inside a JSON string is written through here.
pub fn write_string_body(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escape = match byte {
            b'"' => *b"\\\"",
            b'\\' => *b"\\\\",
            b'\n' => *b"\\n",
            b'\r' => *b"\\r",
            b'\t' => *b"\\t",
            0x08 => *b"\\b",
            0x0c => *b"\\f",
            0x00..0x20 => *b"\\u",
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..at]);
        out.extend_from_slice(&escape);
        if escape == *b"\\u" {
            let digit = b"0123456789abcdef"[usize::from(byte & 0xf)];
            out.extend_from_slice(&[b'0', b'0', b'0' + (byte >> 4), digit]);
        }
        copied = at + 1;
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// Bytes that [`write_string`] appends for `text`.
pub fn string_length(text: &str) -> usize {
    let escapes: usize = text
        .bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
            0x00..0x20 => 5,
            _ => 0,
        })
        .sum();
    text.len() + escapes + 2
}

/// What is between the quotes.
fn body(token: &str) -> &str {
    &token[1..token.len() - 1]
}

fn decode_body(body: &str) -> Cow<'_, str> {
    if !body.contains('\\') {
        return Cow::Borrowed(body);
    }
    let mut text = String::with_capacity(body.len());
    for piece in (Pieces { rest: body }) {
        match piece {
            Piece::Plain(plain) => text.push_str(plain),
            Piece::Escaped(character) => text.push(character),
            Piece::LoneSurrogate => unreachable!("refused where the token came in"),
        }
    }
    Cow::Owned(text)
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Plain(&'a str),
    Escaped(char),
    LoneSurrogate,
}

/// Walks text whose escapes have passed serde_json's grammar.
struct Pieces<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        match self.rest.bytes().position(|byte| byte == b'\\') {
            None if self.rest.is_empty() => None,
            None => Some(Piece::Plain(std::mem::take(&mut self.rest))),
            Some(0) => Some(self.escape()),
            Some(at) => {
                let (plain, rest) = self.rest.split_at(at);
                self.rest = rest;
                Some(Piece::Plain(plain))
            }
        }
    }
}

impl<'a> Pieces<'a> {
    /// Takes the escape at the front; of a surrogate pair, both.
    fn escape(&mut self) -> Piece<'a> {
        let letter = self.rest.as_bytes()[1];
        if letter == b'u' {
            return self.unicode_escape();
        }
        self.rest = &self.rest[2..];
        Piece::Escaped(match letter {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            quoted => char::from(quoted),
        })
    }

    fn unicode_escape(&mut self) -> Piece<'a> {
        let first = code_unit(self.rest).expect("the grammar wants four digits");
        self.rest = &self.rest[6..];
        let second = match first {
            0xd800..0xdc00 => code_unit(self.rest),
            _ => None,
        };
        let units = std::iter::once(first).chain(second);
        match char::decode_utf16(units).next() {
            Some(Ok(character)) => {
                if character.len_utf16() == 2 {
                    self.rest = &self.rest[6..];
                }
                Piece::Escaped(character)
            }
            _ => Piece::LoneSurrogate,
        }
    }
}

/// The UTF-16 code unit that the escape at the front names, if one is there.
fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(json: &str) -> Result<RawString<'_>, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn a_token_keeps_its_escapes_as_they_came() {
        let json = r#" "caf\u00e9 \/ \ud83d\ude00 \"q\"" "#;
        let string = parse(json).unwrap();
        assert_eq!(string.token(), json.trim());
        assert_eq!(string.decoded(), "café / 😀 \"q\"");
        assert_eq!(string.decoded_length(), "café / 😀 \"q\"".len());
    }

    #[test]
    fn a_string_without_escapes_is_decoded_without_a_copy() {
        let string = parse(r#""plain é""#).unwrap();
        assert_eq!(string.decoded_length(), "plain é".len());
        assert!(matches!(string.into_decoded(), Cow::Borrowed("plain é")));
    }

    #[test]
    fn a_lone_surrogate_is_refused_wherever_it_stands() {
        for json in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800x""#,
            r#""\ud800\n""#,
            r#""\ud800\u0041""#,
            r#""\ud800\ud800\udc00""#,
            r#""\udc00\ud800""#,
        ] {
            assert!(parse(json).is_err(), "{json}");
            assert!(has_lone_surrogate(json), "{json}");
        }
        assert!(has_lone_surrogate(r#"{"a":["\ud83d","\ude00"]}"#));
    }

    #[test]
    fn an_escaped_backslash_before_a_u_is_no_escape_of_a_character() {
        assert_eq!(parse(r#""\\ud800""#).unwrap().decoded(), "\\ud800");
        assert!(!has_lone_surrogate(r#"{"a":"\\ud800"}"#));
    }

    #[test]
    fn other_types_are_not_strings() {
        for json in ["1", "{}", "[]", "null", "true"] {
            assert!(parse(json).is_err(), "{json}");
        }
    }

    #[test]
    fn an_object_is_not_read_from_an_array() {
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let named: Named = parse_object(r#" {"name":"a"} "#).unwrap();
        assert_eq!(named.name, "a");
        for json in [r#"["a"]"#, "\"a\"", "", "{", "{}"] {
            assert!(parse_object::<Named>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_piece_inside_an_open_string_is_escaped_once() {
        let mut out = b"\"{".to_vec();
        write_string_body("\"a\":1", &mut out);
        out.extend_from_slice(b"}\"");
        assert_eq!(out, br#""{\"a\":1}""#);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(&text, &mut out);
            prop_assert_eq!(out.len(), string_length(&text));
            prop_assert_eq!(&serde_json::from_slice::<String>(&out).unwrap(), &text);
            let string = RawString::encode(&text);
            prop_assert_eq!(string.token().as_bytes(), &out[..]);
            prop_assert_eq!(string.decoded(), &text[..]);
            prop_assert_eq!(string.decoded_length(), text.len());
        }

        #[test]
        fn control_characters_read_back_the_same(text in "[\\x00-\\x7f]{0,40}") {
            let string = RawString::encode(&text);
            prop_assert_eq!(&serde_json::from_str::<String>(string.token()).unwrap(), &text);
            prop_assert_eq!(string.token().len(), string_length(&text));
        }

        #[test]
        fn escapes_are_read_as_serde_json_reads_them(
            body in proptest::collection::vec(
                prop_oneof![
                    any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
                    (0xd7f0u16..0xe010).prop_map(|unit| format!("\\u{unit:04X}")),
                    Just("\\n".to_owned()), Just("\\\\".to_owned()), Just("\\\"".to_owned()),
                    Just("u".to_owned()), Just("é".to_owned()), Just("d800".to_owned()),
                ],
                0..8,
            )
        ) {
            let token = format!("\"{}\"", body.concat());
            match (serde_json::from_str::<String>(&token), parse(&token)) {
                (Ok(text), Ok(string)) => {
                    prop_assert_eq!(string.decoded_length(), text.len());
                    prop_assert_eq!(string.into_decoded(), text);
                }
                (Err(_), Err(_)) => {}
                (theirs, ours) => prop_assert!(false, "{:?} {:?}", theirs, ours),
            }
        }

        #[test]
        fn random_text_never_panics(text in any::<String>()) {
            if let Ok(string) = parse(&text) {
                string.decoded_length();
                string.into_decoded();
            }
            if let Ok(value) = serde_json::from_str::<&RawValue>(&text) {
                has_lone_surrogate(value.get());
            }
        }
    }
}
