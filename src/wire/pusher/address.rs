//! What a connection's address says: the application's key, the version of the protocol, and what
//! to subscribe to at once.

use super::close::CloseCode;
use super::socket_id::is_digits;
use crate::wire::http::query_pairs;
use crate::wire::json;

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

/// The subscriptions that a connection's query asks for, in its order, each as the message that the
/// client would have sent: the value of `subscribe` is the name of a channel, or the `data` of a
/// `pusher:subscribe` event, which begins with a brace as no channel's name may.
pub fn subscriptions(query: &str) -> impl Iterator<Item = Vec<u8>> {
    let asked = query_pairs(query).filter(|(name, _)| name == "subscribe");
    asked.map(|(_, value)| {
        let mut message = br#"{"event":"pusher:subscribe","data":"#.to_vec();
        if value.starts_with('{') {
            message.extend_from_slice(value.as_bytes());
        } else {
            message.extend_from_slice(br#"{"channel":"#);
            json::write_string(&value, &mut message);
            message.push(b'}');
        }
        message.push(b'}');
        message
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pusher::{ClientMessage, parse_client_message};
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

    #[test]
    fn a_query_asks_for_channels_by_name_or_by_the_data_of_a_subscription() {
        let query = "protocol=7&subscribe=room-1&client=js&subscribe=a%2Cb&\
                     subscribe=%7B%22channel%22%3A%22ticker%22%2C%22rewind%22%3A5%7D&subscribe=";
        let messages: Vec<_> = subscriptions(query)
            .map(|message| String::from_utf8(message).unwrap())
            .collect();
        assert_eq!(
            messages,
            [
                r#"{"event":"pusher:subscribe","data":{"channel":"room-1"}}"#,
                r#"{"event":"pusher:subscribe","data":{"channel":"a,b"}}"#,
                r#"{"event":"pusher:subscribe","data":{"channel":"ticker","rewind":5}}"#,
                r#"{"event":"pusher:subscribe","data":{"channel":""}}"#,
            ]
        );
        assert_eq!(subscriptions("protocol=7").count(), 0);
    }

    fn percent_encode(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02X}")).collect()
    }

    proptest! {
        #[test]
        fn a_name_is_subscribed_to_as_it_is(name in "[^{].*") {
            let query = format!("subscribe={}", percent_encode(&name));
            let message = subscriptions(&query).next().unwrap();
            let message = parse_client_message(str::from_utf8(&message).unwrap()).unwrap();
            let ClientMessage::Subscribe { channel, .. } = message else {
                panic!("{message:?}");
            };
            prop_assert_eq!(channel, name);
        }

        #[test]
        fn random_text_never_panics(text in any::<String>()) {
            subscriptions(&text).count();
            check_protocol(Some(&text)).ok();
            app_key(&text, "").ok();
        }
    }
}
