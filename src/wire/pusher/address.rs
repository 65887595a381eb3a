//! What a connection's address says: the application's key and the version of the protocol.

use super::close::CloseCode;
use super::socket_id::is_digits;

/// The protocol version that a connection's `protocol` parameter asks for, 4 to 7.
///
/// A connection without the parameter is refused. Pusher documents that it guesses a version from
/// the library's and falls back on protocol 1, which it no longer serves, and that it will answer
/// 4008 one day.
pub fn check_protocol(protocol: Option<&str>) -> Result<u8, CloseCode> {
    let protocol = protocol.ok_or(CloseCode::ProtocolMissing)?;
    if !is_digits(protocol) {
        return Err(CloseCode::InvalidVersionFormat);
    }
    match protocol.parse() {
        Ok(version @ 4..=7) => Ok(version),
        Ok(0..=3 | 8..) | Err(_) => Err(CloseCode::UnsupportedProtocol),
    }
}

/// The application's key in a connection's path, `{prefix}/app/{key}`. The prefix is the configured
/// one, empty or `/like/this`.
pub fn app_key<'path>(path: &'path str, prefix: &str) -> Result<&'path str, CloseCode> {
    path.strip_prefix(prefix)
        .and_then(|path| path.strip_prefix("/app/"))
        .filter(|key| !key.is_empty() && !key.contains('/'))
        .ok_or(CloseCode::PathNotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn protocols_four_to_seven_are_spoken() {
        for (protocol, answer) in [
            (Some("7"), Ok(7)),
            (Some("4"), Ok(4)),
            (Some("3"), Err(CloseCode::UnsupportedProtocol)),
            (Some("0"), Err(CloseCode::UnsupportedProtocol)),
            (Some("8"), Err(CloseCode::UnsupportedProtocol)),
            (Some("99"), Err(CloseCode::UnsupportedProtocol)),
            (Some("999999999999"), Err(CloseCode::UnsupportedProtocol)),
            (Some("abc"), Err(CloseCode::InvalidVersionFormat)),
            (Some("7.1"), Err(CloseCode::InvalidVersionFormat)),
            (Some("-7"), Err(CloseCode::InvalidVersionFormat)),
            (Some("+7"), Err(CloseCode::InvalidVersionFormat)),
            (Some(""), Err(CloseCode::InvalidVersionFormat)),
            (None, Err(CloseCode::ProtocolMissing)),
        ] {
            assert_eq!(check_protocol(protocol), answer, "{protocol:?}");
        }
    }

    #[test]
    fn a_path_holds_the_key_behind_the_prefix() {
        for (path, prefix, answer) in [
            ("/app/key", "", Ok("key")),
            ("/ws/app/key", "/ws", Ok("key")),
            ("/app/key", "/ws", Err(CloseCode::PathNotFound)),
            ("/app/", "", Err(CloseCode::PathNotFound)),
            ("/app", "", Err(CloseCode::PathNotFound)),
            ("/app/key/more", "", Err(CloseCode::PathNotFound)),
            ("/apps/key", "", Err(CloseCode::PathNotFound)),
        ] {
            assert_eq!(app_key(path, prefix), answer, "{path}");
        }
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text in any::<String>()) {
            check_protocol(Some(&text)).ok();
            app_key(&text, "").ok();
        }
    }
}
