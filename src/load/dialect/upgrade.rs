//! From HTTP to WebSocket, as a client asks for it. Source: RFC 6455, section 4.1.

use std::net::SocketAddr;

use super::{Fault, Heard, Speaker};

/// The handshake's key, and the server's proof for it, from RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const PROOF: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// The request. The path may have a query; the subprotocol is what is spoken inside, where that has a name.
pub fn request(path: &str, host: SocketAddr, subprotocol: Option<&str>) -> String {
    let path = if path.is_empty() { "/" } else { path };
    let subprotocol = subprotocol.map_or(String::new(), |name| {
        format!("Sec-WebSocket-Protocol: {name}\r\n")
    });
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{subprotocol}\r\n"
    )
}

/// Takes the answer off what a client was sent: the client is then at its next stage, and has heard this.
pub fn take<'a>(
    speaker: &mut Speaker,
    bytes: &[u8],
    stage: u8,
    heard: Heard<'a>,
) -> Result<Option<(usize, Heard<'a>)>, Fault> {
    let head = agreed(bytes)?;
    Ok(head.map(|length| {
        speaker.stage = stage;
        (length, heard)
    }))
}

/// The length of the answer's head, if all of it is there and it agrees.
pub fn agreed(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end else {
        let is_long = bytes.len() > HEAD_BYTES_MAX;
        return match is_long {
            true => Err(Fault("the answer to the upgrade does not end".to_owned())),
            false => Ok(None),
        };
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    if !head.starts_with("HTTP/1.1 101") || !head.contains(PROOF) {
        return Err(Fault(format!("no WebSocket upgrade: {head}")));
    }
    Ok(Some(end + 4))
}
