//! The body of `xhr_send`: a JSON array of messages, each a string.

use std::fmt;

/// Messages of one upload. pusher-js sends one at a time; SockJS gathers what was sent while its
/// last upload was under way.
pub const UPLOAD_MESSAGES_MAX: usize = 1024;

/// Why an upload says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadRefusal {
    /// SockJS: "Payload expected."
    Empty,
    /// Not an array of strings.
    Malformed,
    TooMany,
}

/// The messages of an upload in their order. `[]` has none: it is a sign of life.
pub fn parse_upload(body: &[u8]) -> Result<Vec<String>, UploadRefusal> {
    if body.is_empty() {
        return Err(UploadRefusal::Empty);
    }
    let text = std::str::from_utf8(body).map_err(|_| UploadRefusal::Malformed)?;
    let messages: Vec<String> = match text.trim_ascii_start().starts_with('"') {
        // SockJS allows a single message without the array.
        true => vec![serde_json::from_str(text).map_err(|_| UploadRefusal::Malformed)?],
        false => serde_json::from_str(text).map_err(|_| UploadRefusal::Malformed)?,
    };
    if messages.len() > UPLOAD_MESSAGES_MAX {
        return Err(UploadRefusal::TooMany);
    }
    Ok(messages)
}

impl fmt::Display for UploadRefusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            UploadRefusal::Empty => "Payload expected.",
            UploadRefusal::Malformed => "Broken JSON encoding.",
            UploadRefusal::TooMany => "Too many messages at once.",
        })
    }
}

impl std::error::Error for UploadRefusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_keep_their_order_and_none_is_a_sign_of_life() {
        assert_eq!(parse_upload(b"[]"), Ok(vec![]));
        let two = parse_upload(br#" ["{\"event\":\"a\"}","b"] "#);
        assert_eq!(two, Ok(vec![r#"{"event":"a"}"#.into(), "b".into()]));
        assert_eq!(parse_upload(br#""one""#), Ok(vec!["one".into()]));
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(parse_upload(b""), Err(UploadRefusal::Empty));
        let others: [&[u8]; 8] = [
            b"[",
            b"{}",
            b"null",
            b"[1]",
            b"[\"a\",{}]",
            b"[\"\\ud800\"]",
            b"[\"\xff\"]",
            b"[\"a\"]x",
        ];
        for body in others {
            assert_eq!(parse_upload(body), Err(UploadRefusal::Malformed));
        }
    }

    #[test]
    fn an_upload_is_bounded() {
        let body = |count: usize| format!("[{}\"\"]", "\"\",".repeat(count - 1));
        assert!(parse_upload(body(UPLOAD_MESSAGES_MAX).as_bytes()).is_ok());
        let more = body(UPLOAD_MESSAGES_MAX + 1);
        assert_eq!(parse_upload(more.as_bytes()), Err(UploadRefusal::TooMany));
    }

    proptest! {
        #[test]
        fn what_clients_write_reads_back(texts in prop::collection::vec(any::<String>(), 0..5)) {
            let body = serde_json::to_vec(&texts).unwrap();
            prop_assert_eq!(parse_upload(&body), Ok(texts));
        }
    }
}
