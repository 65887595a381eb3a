//! What a request's path asks for.
//!
//! ```text
//! {base}                                              SockJS: is anybody there?
//! {base}/info                                         SockJS: what is offered
//! {base}/{server}/{session}/{call}                    SockJS
//! {base}/app/{key}/{server}/{session}/{call}          pusher-js
//! ```
//!
//! `server` is a number that load balancers may look at; it says nothing here.

use crate::wire::http::percent_decode;
use std::borrow::Cow;

/// Characters of a session's name; pusher-js and sockjs-client draw 8.
pub const SESSION_NAME_BYTES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    Greeting,
    Info,
    Session {
        name: SessionName<'a>,
        call: Call,
    },
    /// Below the base, but nothing that is served.
    Unknown,
}

/// What tells one session from another: the name that its client drew, and for pusher-js the key
/// of its app, which a SockJS session names only in its first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionName<'a> {
    pub key: Option<Cow<'a, str>>,
    pub drawn: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Receive, in an answer that goes on.
    Stream,
    /// Receive, in an answer that ends as soon as there was something.
    Poll,
    /// Send.
    Upload,
}

/// The route of a path; nothing if it is not below `base`, which is `/like/this`.
pub fn route<'a>(path: &'a str, base: &str) -> Option<Route<'a>> {
    let rest = path.strip_prefix(base)?;
    if matches!(rest, "" | "/") {
        return Some(Route::Greeting);
    }
    let rest = rest.strip_prefix('/')?;
    let route = match rest.split_once('/') {
        None if rest == "info" => Some(Route::Info),
        None => None,
        Some(("app", rest)) => {
            let key_and_rest = rest.split_once('/');
            key_and_rest.and_then(|(key, rest)| {
                let key = percent_decode(key).filter(|key| !key.is_empty())?;
                session(Some(key), rest)
            })
        }
        Some(_) => session(None, rest),
    };
    Some(route.unwrap_or(Route::Unknown))
}

/// `{server}/{session}/{call}`
fn session<'a>(key: Option<Cow<'a, str>>, rest: &'a str) -> Option<Route<'a>> {
    let (server, rest) = rest.split_once('/')?;
    let (drawn, call) = rest.split_once('/')?;
    let call = match call {
        "xhr_streaming" => Call::Stream,
        "xhr" => Call::Poll,
        "xhr_send" => Call::Upload,
        _ => return None,
    };
    // SockJS protocol 0.3.3, "Session URLs": neither is empty or holds a dot.
    let is_segment = |text: &str| {
        (1..=SESSION_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_name_byte)
    };
    let name = SessionName { key, drawn };
    (is_segment(server) && is_segment(drawn)).then_some(Route::Session { name, call })
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'~' | b'=' | b'@')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session_of(
        key: Option<&'static str>,
        drawn: &'static str,
        call: Call,
    ) -> Option<Route<'static>> {
        let key = key.map(Cow::Borrowed);
        Some(Route::Session {
            name: SessionName { key, drawn },
            call,
        })
    }

    #[test]
    fn paths_of_both_clients_are_told_apart() {
        let route = |path| route(path, "/pusher");
        let key = Some("app-key");
        for (path, expected) in [
            ("/pusher", Some(Route::Greeting)),
            ("/pusher/", Some(Route::Greeting)),
            ("/pusher/info", Some(Route::Info)),
            (
                "/pusher/app/app-key/17/0a1b2c3d/xhr_streaming",
                session_of(key, "0a1b2c3d", Call::Stream),
            ),
            (
                "/pusher/app/app-key/17/0a1b2c3d/xhr",
                session_of(key, "0a1b2c3d", Call::Poll),
            ),
            (
                "/pusher/app/app-key/0/v/xhr_send",
                session_of(key, "v", Call::Upload),
            ),
            (
                "/pusher/app/a%2Db/0/v/xhr",
                session_of(Some("a-b"), "v", Call::Poll),
            ),
            (
                "/pusher/123/abcdefgh/xhr_streaming",
                session_of(None, "abcdefgh", Call::Stream),
            ),
            (
                "/pusher/123/abcdefgh/xhr",
                session_of(None, "abcdefgh", Call::Poll),
            ),
            (
                "/pusher/123/abcdefgh/xhr_send",
                session_of(None, "abcdefgh", Call::Upload),
            ),
            ("/pusher/123/abcdefgh/websocket", Some(Route::Unknown)),
            ("/pusher/123/abcdefgh/xhr/", Some(Route::Unknown)),
            ("/pusher/123/abc.defg/xhr", Some(Route::Unknown)),
            ("/pusher/1.3/abcdefgh/xhr", Some(Route::Unknown)),
            ("/pusher/123//xhr", Some(Route::Unknown)),
            ("/pusher//abcdefgh/xhr", Some(Route::Unknown)),
            ("/pusher/app/app-key", Some(Route::Unknown)),
            ("/pusher/app//0/v/xhr", Some(Route::Unknown)),
            ("/pusher/app/%ff/0/v/xhr", Some(Route::Unknown)),
            ("/pusher/info/", Some(Route::Unknown)),
            ("/pushers", None),
            ("/app/app-key", None),
            ("/", None),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
    }

    #[test]
    fn a_name_is_bounded() {
        let path = |length| format!("/p/0/{}/xhr", "a".repeat(length));
        let longest = path(SESSION_NAME_BYTES_MAX);
        assert!(matches!(route(&longest, "/p"), Some(Route::Session { .. })));
        let longer = path(SESSION_NAME_BYTES_MAX + 1);
        assert_eq!(route(&longer, "/p"), Some(Route::Unknown));
    }

    proptest! {
        #[test]
        fn any_path_has_a_route_or_none(path in "(/pusher)?(/|app|info|xhr|[a-z0-9%.]{0,3}){0,9}") {
            if let Some(Route::Session { name, .. }) = route(&path, "/pusher") {
                prop_assert!(!name.drawn.is_empty() && !name.drawn.contains(['/', '.']));
            }
        }
    }
}
