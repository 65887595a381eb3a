//! The key under which a back end may repeat a publish that it got no answer to: the header
//! `Idempotency-Key`, or an event's own field `idempotency_key`.
//!
//! Source: the IETF draft "The Idempotency-Key HTTP Header Field", whose value is a quoted string
//! (RFC 8941 section 3.3.3). The bare text that most who use it send is taken too: `"a"` and `a` are
//! one key.

use std::borrow::Cow;

use super::refusal::ApiError;

/// Bytes of a key. With what tells the events of a batch apart it has to fit 255.
pub const KEY_BYTES_MAX: usize = 200;

/// Reads the value of the header.
pub fn key_of_header(value: &[u8]) -> Result<Cow<'_, str>, ApiError> {
    let refused = || ApiError::bad_request("The header Idempotency-Key is no key: \"...\" or bare");
    let text = str::from_utf8(value).map_err(|_| refused())?;
    let Some(quoted) = text.strip_prefix('"') else {
        return checked(text.into());
    };
    let inner = quoted.strip_suffix('"').ok_or_else(refused)?;
    if !inner.contains(['"', '\\']) {
        return checked(inner.into());
    }
    let (mut key, mut characters) = (String::new(), inner.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => return Err(refused()),
            '\\' => match characters.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                Some(_) | None => return Err(refused()),
            },
            other => key.push(other),
        }
    }
    checked(key.into())
}

/// The key, if it is one.
pub fn checked(key: Cow<'_, str>) -> Result<Cow<'_, str>, ApiError> {
    let is_printable = |byte: u8| (b' '..=b'~').contains(&byte);
    if key.is_empty() || !key.bytes().all(is_printable) {
        return Err(ApiError::bad_request(
            "An idempotency key is of printable ASCII characters, at least one",
        ));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(ApiError::bad_request(format!(
            "The idempotency key is longer than {KEY_BYTES_MAX} bytes"
        )));
    }
    Ok(key)
}

/// The key of the event at this place of a batch that has one. Nobody can give it to an event: it is
/// not printable.
pub fn key_in_batch(key: &str, place: usize) -> String {
    format!("{key}\n{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_quoted_or_bare() {
        for (value, key) in [
            (&b"order-7"[..], "order-7"),
            (br#""order-7""#, "order-7"),
            (br#""a \"b\" \\""#, r#"a "b" \"#),
            (b"a b", "a b"),
            (br#"a"b"#, r#"a"b"#),
        ] {
            assert_eq!(key_of_header(value).unwrap(), key);
        }
        for value in [
            &b""[..],
            br#""""#,
            br#"""#,
            br#""a"#,
            br#""a\""#,
            br#""a\b""#,
            br#""a"b""#,
            br#""a";b"#,
            b"\xc3\xa4",
            b"\xff",
            b"a\tb",
        ] {
            assert_eq!(key_of_header(value).unwrap_err().status, 400, "{value:?}");
        }
    }

    #[test]
    fn a_key_is_of_some_length() {
        let longest = "k".repeat(KEY_BYTES_MAX);
        assert!(checked(longest.as_str().into()).is_ok());
        assert!(key_in_batch(&longest, 255).len() <= usize::from(u8::MAX));
        let error = checked(format!("{longest}k").into()).unwrap_err();
        assert_eq!(
            (error.status, &*error.message),
            (400, "The idempotency key is longer than 200 bytes")
        );
    }
}
