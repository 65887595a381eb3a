//! What a query and a path segment say once their escapes are undone.
//!
//! Nothing is ever replaced by a stand-in character. A signature is computed over the text that is
//! given here, and the call then acts on that same text; so whatever the spelling was, the text
//! that was verified is the text that is used.

use std::borrow::Cow;

/// The pairs of a query in their order, as forms encode them (the URL standard's
/// `application/x-www-form-urlencoded`): `+` is a space and `%41` is `A`. A piece without `=` is a
/// key with an empty value; an empty piece is nothing.
///
/// A `%` that two hexadecimal digits do not follow stands for itself. A key or a value whose bytes
/// are not UTF-8 once decoded is given as it was received, escapes and all: no bytes are lost, and
/// two such spellings never become equal. (Decoded, `%25ff` and the undecodable `%ff` are the same
/// text, `%ff`.)
pub fn query_pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    pieces.map(|piece| {
        let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
        (form_decode(key), form_decode(value))
    })
}

/// One segment of a path, decoded; `+` stands for itself. `None` if an escape is not one, or if
/// the bytes are not UTF-8: such a name exists nowhere.
pub fn percent_decode(path_segment: &str) -> Option<Cow<'_, str>> {
    if !path_segment.contains('%') {
        return Some(Cow::Borrowed(path_segment));
    }
    let (bytes, is_exact) = unescape(path_segment, b'+');
    let text = String::from_utf8(bytes).ok()?;
    is_exact.then_some(Cow::Owned(text))
}

fn form_decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let (bytes, _is_exact) = unescape(text, b' ');
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The bytes behind the escapes, and whether every `%` began one.
fn unescape(text: &str, plus: u8) -> (Vec<u8>, bool) {
    let mut bytes = Vec::with_capacity(text.len());
    let mut is_exact = true;
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                bytes.push(hex_value(*high) << 4 | hex_value(*low));
                rest = after;
            }
            (b'%', _) => {
                bytes.push(b'%');
                is_exact = false;
            }
            (b'+', _) => bytes.push(plus),
            (&byte, _) => bytes.push(byte),
        }
    }
    (bytes, is_exact)
}

/// The value of a hexadecimal digit.
fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(query: &str, expected: &[(&str, &str)]) {
        let pairs: Vec<_> = query_pairs(query).collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|&(key, value)| (Cow::Borrowed(key), Cow::Borrowed(value)))
            .collect();
        assert_eq!(pairs, expected);
    }

    #[test]
    fn pairs_come_decoded_and_in_order() {
        check("", &[]);
        check("a=1&b=2&a=3", &[("a", "1"), ("b", "2"), ("a", "3")]);
        check("&&a&=&b=", &[("a", ""), ("", ""), ("b", "")]);
        check("a=b=c", &[("a", "b=c")]);
        check("channels%5B%5D=a%2Cb", &[("channels[]", "a,b")]);
        check("a+b=c%20d%2b", &[("a b", "c d+")]);
        check("n=%C3%a9&m=é", &[("n", "é"), ("m", "é")]);
    }

    #[test]
    fn an_escape_that_is_none_stands_for_itself() {
        check(
            "a=%&b=%4&c=%zz&d=%%41&e=%4%41",
            &[
                ("a", "%"),
                ("b", "%4"),
                ("c", "%zz"),
                ("d", "%A"),
                ("e", "%4A"),
            ],
        );
    }

    #[test]
    fn what_is_not_text_once_decoded_stays_as_received() {
        check("a=%ff+%41&%80=b", &[("a", "%ff+%41"), ("%80", "b")]);
    }

    #[test]
    fn text_without_escapes_is_not_copied() {
        let (key, value) = query_pairs("key=value").next().unwrap();
        assert!(matches!(key, Cow::Borrowed("key")));
        assert!(matches!(value, Cow::Borrowed("value")));
        assert!(matches!(percent_decode("a+b"), Some(Cow::Borrowed("a+b"))));
    }

    #[test]
    fn a_path_segment_is_decoded_exactly_or_not_at_all() {
        assert_eq!(
            percent_decode("presence-a%2Fb%00+").unwrap(),
            "presence-a/b\0+"
        );
        assert_eq!(percent_decode("%E2%82%AC").unwrap(), "€");
        for segment in ["%", "a%4", "%zz", "%+1", "%ff", "%E2%82"] {
            assert_eq!(percent_decode(segment), None, "{segment}");
        }
    }

    proptest! {
        #[test]
        fn any_text_survives_being_escaped(text in any::<String>()) {
            let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(percent_decode(&escaped).unwrap(), text.as_str());
            let query = format!("{escaped}={escaped}");
            for (key, value) in query_pairs(&query) {
                prop_assert_eq!(&key, &text);
                prop_assert_eq!(&value, &text);
            }
        }

        #[test]
        fn any_query_is_read(query in any::<String>()) {
            prop_assert!(query_pairs(&query).count() <= query.len());
            let _decoded = percent_decode(&query);
        }
    }
}
