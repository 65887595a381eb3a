//! The upgrade request: whether a client may leave HTTP for WebSocket (RFC 6455, section 4.2.1).
//!
//! tungstenite judges and derives. What is ours here is to read a request as HTTP allows it to be
//! written: tungstenite looks at the first line of each header and at one token of `Upgrade`.

use std::str;

use tungstenite::error::{Error, ProtocolError};
use tungstenite::handshake;
use tungstenite::http::{HeaderName, HeaderValue, Method, Request, Version, header};

/// An upgrade request that is to be answered with status 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// What [`accept_key`] takes.
    pub key: &'a [u8],
    /// The first `Sec-WebSocket-Protocol`: subprotocols, the preferred first, separated by commas.
    /// Further lines of it are offers that are not taken.
    pub protocols: Option<&'a str>,
}

/// Why a request is not an upgrade, as the response says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The method is not GET.
    Method,
    /// HTTP/1.0.
    HttpVersion,
    /// `Connection` or `Upgrade` do not ask for it: a plain request.
    NotAnUpgrade,
    /// `Sec-WebSocket-Version` is missing, repeated or not 13.
    WebSocketVersion,
    /// `Sec-WebSocket-Key` is missing, repeated or not 16 bytes in base64.
    Key,
    /// `Sec-WebSocket-Extensions` is not a list of extensions.
    Extensions,
}

impl Refusal {
    /// The status of the response.
    pub fn status(self) -> u16 {
        match self {
            Refusal::HttpVersion | Refusal::Key | Refusal::Extensions => 400,
            Refusal::Method => 405,
            Refusal::NotAnUpgrade | Refusal::WebSocketVersion => 426,
        }
    }

    /// The headers that come with this status (RFC 9110, sections 15.5.6 and 15.5.22; RFC 6455,
    /// section 4.4). A 426 names `Upgrade`, which HTTP/1.1 wants named in `Connection` too.
    pub fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Refusal::HttpVersion | Refusal::Key | Refusal::Extensions => &[],
            Refusal::Method => &[("Allow", "GET")],
            Refusal::NotAnUpgrade | Refusal::WebSocketVersion => &[
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
            ],
        }
    }

    /// For the response's body and the log.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Method => "a WebSocket begins with GET",
            Refusal::HttpVersion => "a WebSocket begins with HTTP/1.1",
            Refusal::NotAnUpgrade => "this is a WebSocket's place: ask for an upgrade",
            Refusal::WebSocketVersion => "this is WebSocket version 13",
            Refusal::Key => "Sec-WebSocket-Key is not 16 bytes in base64",
            Refusal::Extensions => "Sec-WebSocket-Extensions is not a list of extensions",
        }
    }
}

/// The `Sec-WebSocket-Accept` that answers this `Sec-WebSocket-Key`.
pub fn accept_key(key: &[u8]) -> String {
    handshake::derive_accept_key(key)
}

/// Judges a request by its method, the minor of its HTTP/1 version and its headers: names in any
/// case, values without the space around them. Extensions are [`agree`](super::agree)'s. Who asks, from where (`Host`, `Origin`) and for what
/// is the caller's to judge.
pub fn check_upgrade<'a>(
    method: &str,
    minor_version: u8,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<Upgrade<'a>, Refusal> {
    let mut asks_for_upgrade = false;
    let mut asks_for_websocket = false;
    let mut version = Once::Never;
    let mut key = Once::Never;
    let mut protocols = None;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("connection") {
            asks_for_upgrade |= lists(value, "upgrade");
        } else if name.eq_ignore_ascii_case("upgrade") {
            asks_for_websocket |= lists(value, "websocket");
        } else if name.eq_ignore_ascii_case("sec-websocket-version") {
            version = version.and(value);
        } else if name.eq_ignore_ascii_case("sec-websocket-key") {
            key = key.and(value);
        } else if name.eq_ignore_ascii_case("sec-websocket-protocol") {
            protocols = protocols.or(str::from_utf8(value).ok());
        }
    }

    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::Method)?;
    *request.version_mut() = match minor_version {
        0 => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let mut says = |name: HeaderName, value: &[u8]| {
        // A value that no header can have is one that the request does not have.
        if let Ok(value) = HeaderValue::from_bytes(value) {
            request.headers_mut().insert(name, value);
        }
    };
    if asks_for_upgrade {
        says(header::CONNECTION, b"upgrade");
    }
    if asks_for_websocket {
        says(header::UPGRADE, b"websocket");
    }
    if let Once::One(version) = version {
        says(header::SEC_WEBSOCKET_VERSION, version);
    }
    if let Once::One(key) = key {
        says(header::SEC_WEBSOCKET_KEY, key);
    }
    handshake::server::create_response(&request).map_err(refusal)?;

    let Once::One(key) = key else {
        return Err(Refusal::Key);
    };
    Ok(Upgrade { key, protocols })
}

/// The lines of a header that a request has once (RFC 6455, sections 11.3.1 and 11.3.5).
enum Once<'a> {
    Never,
    One(&'a [u8]),
    Often,
}

impl<'a> Once<'a> {
    fn and(self, value: &'a [u8]) -> Once<'a> {
        match self {
            Once::Never => Once::One(value),
            Once::One(_) | Once::Often => Once::Often,
        }
    }
}

/// Whether a line of a list header has this token, in any case.
fn lists(value: &[u8], token: &str) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|member| member.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// tungstenite's finding, in the words of a response.
fn refusal(error: Error) -> Refusal {
    match error {
        Error::Protocol(ProtocolError::WrongHttpMethod) => Refusal::Method,
        Error::Protocol(ProtocolError::WrongHttpVersion) => Refusal::HttpVersion,
        Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader,
        ) => Refusal::NotAnUpgrade,
        Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => {
            Refusal::WebSocketVersion
        }
        Error::Protocol(
            ProtocolError::MissingSecWebSocketKey | ProtocolError::InvalidSecWebSocketKey,
        ) => Refusal::Key,
        // The check has no other findings today. A new one refuses the request; it is no
        // reason to fall over it.
        _ => Refusal::NotAnUpgrade,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    /// The request of section 1.2.
    const CORRECT: [(&str, &str); 4] = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ];

    fn upgrade<'a>(
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Upgrade<'a>, Refusal> {
        let headers = headers.into_iter();
        check_upgrade(
            "GET",
            1,
            headers.map(|(name, value)| (name, value.as_bytes())),
        )
    }

    /// The correct request with the lines of one header replaced by these.
    fn check(name: &str, lines: &[&str], expected: Result<(), Refusal>) {
        let others = CORRECT
            .into_iter()
            .filter(|(other, _)| !other.eq_ignore_ascii_case(name));
        let headers = others.chain(lines.iter().map(|line| (name, *line)));
        assert_eq!(upgrade(headers).map(|_| ()), expected, "{name}: {lines:?}");
    }

    #[test]
    fn the_key_of_section_1_3() {
        assert_eq!(accept_key(KEY.as_bytes()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_correct_request_is_an_upgrade() {
        let offers = [
            ("sec-websocket-protocol", "chat, superchat"),
            ("Sec-WebSocket-Protocol", "later"),
        ];
        assert_eq!(
            upgrade(CORRECT.into_iter().chain(offers)),
            Ok(Upgrade {
                key: KEY.as_bytes(),
                protocols: Some("chat, superchat"),
            })
        );
    }

    #[test]
    fn lists_are_read_as_http_writes_them() {
        check("connection", &["keep-alive, Upgrade"], Ok(()));
        check("CONNECTION", &["keep-alive", "x,\tUPGRADE ,y"], Ok(()));
        check("Upgrade", &["h2c", "foo, WebSocket"], Ok(()));
        check("Connection", &["keep-alive"], Err(Refusal::NotAnUpgrade));
        check("Connection", &["upgraded"], Err(Refusal::NotAnUpgrade));
        check("Connection", &[], Err(Refusal::NotAnUpgrade));
        check("Upgrade", &["websockets"], Err(Refusal::NotAnUpgrade));
        check("Upgrade", &[], Err(Refusal::NotAnUpgrade));
    }

    #[test]
    fn the_version_is_13() {
        let name = "Sec-WebSocket-Version";
        check(name, &[], Err(Refusal::WebSocketVersion));
        check(name, &["8"], Err(Refusal::WebSocketVersion));
        check(name, &["13, 8"], Err(Refusal::WebSocketVersion));
        check(name, &["13", "13"], Err(Refusal::WebSocketVersion));
        assert_eq!(Refusal::WebSocketVersion.status(), 426);
        assert!(Refusal::WebSocketVersion.headers().contains(&(name, "13")));
    }

    #[test]
    fn the_key_is_16_bytes_in_base64() {
        let name = "Sec-WebSocket-Key";
        check(name, &["AAAAAAAAAAAAAAAAAAAAAA=="], Ok(()));
        check(name, &[], Err(Refusal::Key));
        check(name, &[""], Err(Refusal::Key));
        check(name, &[KEY, KEY], Err(Refusal::Key));
        check(name, &["dGhlIHNhbXBsZSBub25jZQ="], Err(Refusal::Key));
        check(name, &["dGhlIHNhbXBsZSBub25jZS0="], Err(Refusal::Key));
        check(name, &["dGhlIHNhbXBsZSBub25jZS0t"], Err(Refusal::Key));
        check(name, &["dGhlIHNhbXBsZSBub25jZ*=="], Err(Refusal::Key));
        check(name, &["\u{1}GhlIHNhbXBsZSBub25jZQ=="], Err(Refusal::Key));
    }

    #[test]
    fn the_request_line_is_get_and_http_1_1() {
        let with = |method, minor_version| {
            let headers = CORRECT.map(|(name, value)| (name, value.as_bytes()));
            check_upgrade(method, minor_version, headers.into_iter()).map(|_| ())
        };
        assert_eq!(with("GET", 1), Ok(()));
        assert_eq!(with("POST", 1), Err(Refusal::Method));
        assert_eq!(with("get", 1), Err(Refusal::Method));
        assert_eq!(with("G T", 1), Err(Refusal::Method));
        assert_eq!(with("GET", 0), Err(Refusal::HttpVersion));
    }
}
