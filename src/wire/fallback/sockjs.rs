//! What SockJS adds: a greeting, what the server offers, and which app a session is for.

use std::borrow::Cow;

use serde::Deserialize;

use crate::wire::json;
use crate::wire::pusher;

/// The answer to a GET of the base (SockJS protocol 0.3.3, "Greeting url").
pub const GREETING: &str = "Welcome to SockJS!\n";

/// Bytes of a stream's body after which it ends, and sockjs-client opens the next: what it received
/// stays in the browser's memory until then. SockJS's own server has the same bound.
pub const SOCKJS_BODY_BYTES_MAX: u64 = 128 * 1024;

/// The answer to `/info`: no WebSocket, for who comes here has none, and nothing that needs the
/// same server again. `entropy` is any number that changes.
pub fn encode_info(entropy: u32) -> String {
    format!(r#"{{"websocket":false,"origins":["*:*"],"cookie_needed":false,"entropy":{entropy}}}"#)
}

/// The key and the query of a session's first message, `{"path":"/app/KEY?protocol=7&..."}`;
/// nothing if it says anything else.
pub fn parse_first_message(text: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct First<'a> {
        #[serde(borrow)]
        path: Cow<'a, str>,
    }
    let First { path } = json::parse_object(text).ok()?;
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    let key = pusher::app_key(path, "").ok()?;
    Some((key.to_string(), query.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_names_the_app() {
        let text = r#"{"path":"/app/app-key?protocol=7&client=js&version=8.6.0"}"#;
        let (key, query) = parse_first_message(text).unwrap();
        assert_eq!(key, "app-key");
        assert_eq!(query, "protocol=7&client=js&version=8.6.0");
        let (_, query) = parse_first_message(r#"{"path":"\/app\/k"}"#).unwrap();
        assert_eq!(query, "");
    }

    #[test]
    fn any_other_first_message_names_none() {
        for text in [
            "",
            "{}",
            r#"{"path":1}"#,
            r#"{"path":"/apps/1"}"#,
            r#"["/app/k"]"#,
            r#"{"event":"pusher:ping"}"#,
        ] {
            assert_eq!(parse_first_message(text), None, "{text}");
        }
    }

    #[test]
    fn the_offer_is_json_without_a_websocket() {
        let info: serde_json::Value = serde_json::from_str(&encode_info(7)).unwrap();
        assert_eq!(info["websocket"], false);
        assert_eq!(info["cookie_needed"], false);
        assert_eq!(info["entropy"], 7);
    }
}
