//! The grammar of `Sec-WebSocket-Extensions` (RFC 6455, section 9.1): extensions and parameters.

use std::borrow::Cow;
use std::str;

/// One member of the list: an extension, and the parameters with which it is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer<'a> {
    pub name: &'a str,
    pub parameters: Vec<(&'a str, Option<Cow<'a, str>>)>,
}

/// The members of one line; nothing if it does not follow the grammar. Empty members are passed
/// over, as in every list of HTTP (RFC 9110, section 5.6.1.2).
pub fn parse(line: &[u8]) -> Option<Vec<Offer<'_>>> {
    let mut reader = Reader { rest: line };
    let mut offers = Vec::new();
    loop {
        reader.skip_space();
        if !matches!(reader.rest.first(), None | Some(b',')) {
            offers.push(reader.offer()?);
        }
        if reader.rest.is_empty() {
            return Some(offers);
        }
        reader.take(b',')?;
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// `token *( ";" parameter )`, and the space behind it.
    fn offer(&mut self) -> Option<Offer<'a>> {
        let name = self.token()?;
        let mut parameters = Vec::new();
        self.skip_space();
        while self.take(b';').is_some() {
            self.skip_space();
            parameters.push(self.parameter()?);
            self.skip_space();
        }
        Some(Offer { name, parameters })
    }

    /// `token [ "=" ( token / quoted-string ) ]`
    fn parameter(&mut self) -> Option<(&'a str, Option<Cow<'a, str>>)> {
        let name = self.token()?;
        self.skip_space();
        if self.take(b'=').is_none() {
            return Some((name, None));
        }
        self.skip_space();
        let value = match self.take(b'"') {
            Some(()) => self.quoted_rest()?,
            None => Cow::Borrowed(self.token()?),
        };
        Some((name, Some(value)))
    }

    /// What is left of a quoted string whose first quote is taken. Unquoted it must be a token.
    fn quoted_rest(&mut self) -> Option<Cow<'a, str>> {
        let mut unquoted = Cow::Borrowed("");
        loop {
            if let Some(piece) = self.token() {
                unquoted += piece;
            }
            match self.rest.split_first()? {
                (b'"', rest) => {
                    self.rest = rest;
                    return (!unquoted.is_empty()).then_some(unquoted);
                }
                (b'\\', rest) => {
                    let (byte, rest) = rest.split_first()?;
                    if !is_token_byte(*byte) {
                        return None;
                    }
                    unquoted.to_mut().push(char::from(*byte));
                    self.rest = rest;
                }
                (_, _) => return None,
            }
        }
    }

    fn token(&mut self) -> Option<&'a str> {
        let is_behind = |byte: &u8| !is_token_byte(*byte);
        let length = self.rest.iter().position(is_behind);
        let (token, rest) = self.rest.split_at(length.unwrap_or(self.rest.len()));
        self.rest = rest;
        let token = str::from_utf8(token).expect("the bytes of a token are ASCII");
        (!token.is_empty()).then_some(token)
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.rest = self.rest.strip_prefix(&[byte])?;
        Some(())
    }

    fn skip_space(&mut self) {
        while let Some((b' ' | b'\t', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }
}

/// RFC 9110, section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The line as it was understood, written without space and quotes.
    fn check(line: &str, expected: Option<&str>) {
        let written = parse(line.as_bytes()).map(|offers| {
            let written = offers.iter().map(|offer| {
                let parameters = offer.parameters.iter().map(|(name, value)| match value {
                    Some(value) => format!(";{name}={value}"),
                    None => format!(";{name}"),
                });
                format!("{}{}", offer.name, parameters.collect::<String>())
            });
            written.collect::<Vec<_>>().join(",")
        });
        assert_eq!(written.as_deref(), expected, "{line}");
    }

    #[test]
    fn lists_of_extensions_with_parameters() {
        check("foo", Some("foo"));
        check("foo, bar; baz=2", Some("foo,bar;baz=2"));
        check(" foo ;\ta ; b = \"c\" , bar", Some("foo;a;b=c,bar"));
        check("foo;a=\"b\\c\\d\"", Some("foo;a=bcd"));
        check(", foo,, bar ,", Some("foo,bar"));
        check("", Some(""));
    }

    #[test]
    fn what_the_grammar_does_not_have() {
        for line in [
            "foo bar",
            "foo;",
            "foo;;a",
            "foo;a=",
            "foo;=a",
            "foo;a=\"",
            "foo;a=\"\"",
            "foo;a=\"b c\"",
            "foo;a=\"b",
            "foo;a=\"b\"c",
            "foo;a=\"\\",
            "foo;a=\"\\ \"",
            "foo=a",
            "\"foo\"",
            "foo;a b",
            "foo;\u{e9}",
            "foo/1",
        ] {
            check(line, None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(line: Vec<u8>, likely in "[a-c;,=\"\\\\ ]{0,12}") {
            for line in [&line[..], likely.as_bytes()] {
                for offer in parse(line).unwrap_or_default() {
                    prop_assert!(offer.name.bytes().all(is_token_byte));
                }
            }
        }
    }
}
