//! Answers as bytes.
//!
//! There is no Date header: this layer knows no clock. A caller that has one may add the line as
//! any other (RFC 9110 section 6.6.1).

use std::io::Write;

use super::{Persistence, Refusal};

/// The answer to [`super::Parsed::Partial`]'s `continue_wanted`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What follows the head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// These bytes. An answer with status 1xx or 204 has none, and then no Content-Length either
    /// (RFC 9110 section 8.6).
    Bytes(&'a [u8]),
    /// None, because the request was HEAD; with GET there would be so many bytes.
    Omitted { bytes: usize },
    /// Pieces of [`encode_chunk`], until [`encode_last_chunk`]. Not for an HTTP/1.0 client.
    Chunked,
    /// Bytes until the connection closes, for an HTTP/1.0 client.
    UntilClose,
}

/// Appends an answer to `out`: the status line, `headers` as they are, the headers that tell where
/// the body ends and what becomes of the connection, and the body.
///
/// The caller gives no Content-Length, Transfer-Encoding or Connection; but with status 101 it
/// gives `Connection: Upgrade` and `Upgrade`, and then `persistence` means nothing.
///
/// # Panics
/// If a header contains a line end or a NUL, or if the status admits no body and there is one:
/// either would let a caller's mistake become another answer on the wire.
pub fn encode_response(
    status: u16,
    headers: &[(&str, &str)],
    body: Body<'_>,
    persistence: Persistence,
    out: &mut Vec<u8>,
) {
    append(
        out,
        format_args!("HTTP/1.1 {status:03} {}\r\n", reason_phrase(status)),
    );
    for (name, value) in headers {
        assert!(
            is_one_line(name) && is_one_line(value),
            "a header is one line"
        );
        append(out, format_args!("{name}: {value}\r\n"));
    }
    let admits_body = status >= 200 && status != 204;
    match body {
        Body::Bytes(bytes) if !admits_body => assert!(bytes.is_empty(), "{status} has no body"),
        Body::Bytes(bytes) => append(out, format_args!("Content-Length: {}\r\n", bytes.len())),
        Body::Omitted { bytes } if admits_body => {
            append(out, format_args!("Content-Length: {bytes}\r\n"));
        }
        Body::Omitted { bytes } => assert!(bytes == 0, "{status} has no body"),
        Body::Chunked => {
            assert!(admits_body, "{status} has no body");
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        Body::UntilClose => assert!(admits_body, "{status} has no body"),
    }
    match (persistence, body) {
        _ if status < 200 => {}
        (Persistence::Close, _) | (_, Body::UntilClose) => {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        (Persistence::OpenAnnounced, _) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (Persistence::Open, _) => {}
    }
    out.extend_from_slice(b"\r\n");
    if let Body::Bytes(bytes) = body {
        out.extend_from_slice(bytes);
    }
}

/// Appends the answer to a request that was refused. The connection closes behind it.
pub fn encode_refusal(refusal: Refusal, out: &mut Vec<u8>) {
    encode_response(
        refusal.status(),
        &[("Content-Type", "text/plain")],
        Body::Bytes(refusal.reason().as_bytes()),
        Persistence::Close,
        out,
    );
}

/// Appends one chunk of a [`Body::Chunked`]. No bytes are no chunk: an empty one would end the
/// body.
pub fn encode_chunk(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    append(out, format_args!("{:x}\r\n", bytes.len()));
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a [`Body::Chunked`].
pub fn encode_last_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

/// The phrases of the statuses that the server answers with (RFC 9110 section 15, RFC 6585). A
/// status line may go without one.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

fn is_one_line(text: &str) -> bool {
    !text.contains(['\r', '\n', '\0'])
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes every byte");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, body: Body<'_>, persistence: Persistence, expected: &str) {
        let mut out = b"before".to_vec();
        encode_response(status, &[("A", "b")], body, persistence, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("before{expected}"));
    }

    #[test]
    fn an_answer_says_how_long_its_body_is() {
        check(
            200,
            Body::Bytes(b"{}"),
            Persistence::Open,
            "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\n{}",
        );
        check(
            404,
            Body::Bytes(b""),
            Persistence::Open,
            "HTTP/1.1 404 Not Found\r\nA: b\r\nContent-Length: 0\r\n\r\n",
        );
    }

    #[test]
    fn an_answer_says_what_becomes_of_the_connection_when_the_version_does_not() {
        check(
            413,
            Body::Bytes(b"no"),
            Persistence::Close,
            "HTTP/1.1 413 Content Too Large\r\nA: b\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
        );
        check(
            200,
            Body::Bytes(b"{}"),
            Persistence::OpenAnnounced,
            "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n{}",
        );
    }

    #[test]
    fn an_answer_to_head_has_the_length_and_not_the_bytes() {
        check(
            200,
            Body::Omitted { bytes: 17 },
            Persistence::Open,
            "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 17\r\n\r\n",
        );
    }

    #[test]
    fn statuses_without_a_body_have_no_length() {
        check(
            204,
            Body::Bytes(b""),
            Persistence::Close,
            "HTTP/1.1 204 No Content\r\nA: b\r\nConnection: close\r\n\r\n",
        );
        check(
            101,
            Body::Bytes(b""),
            Persistence::Close,
            "HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n",
        );
    }

    #[test]
    fn a_stream_is_chunked_or_ends_with_the_connection() {
        check(
            200,
            Body::Chunked,
            Persistence::Open,
            "HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        check(
            200,
            Body::UntilClose,
            Persistence::OpenAnnounced,
            "HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\n\r\n",
        );
        let mut out = Vec::new();
        encode_chunk(b"o{}\n", &mut out);
        encode_chunk(b"", &mut out);
        encode_chunk(&[b'h'; 26], &mut out);
        encode_last_chunk(&mut out);
        assert_eq!(
            out,
            b"4\r\no{}\n\r\n1a\r\nhhhhhhhhhhhhhhhhhhhhhhhhhh\r\n0\r\n\r\n"
        );
    }

    #[test]
    fn a_refusal_closes_the_connection() {
        let mut out = Vec::new();
        encode_refusal(Refusal::Version, &mut out);
        assert_eq!(
            out,
            b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\n\
              Content-Length: 42\r\nConnection: close\r\n\r\n\
              only HTTP/1.1 and HTTP/1.0 are spoken here"
        );
    }

    #[test]
    #[should_panic(expected = "a header is one line")]
    fn a_header_cannot_become_two() {
        let headers = [("A", "b\r\nC: d")];
        encode_response(
            200,
            &headers,
            Body::Bytes(b""),
            Persistence::Open,
            &mut Vec::new(),
        );
    }

    #[test]
    #[should_panic(expected = "204 has no body")]
    fn no_body_follows_where_none_is_read() {
        check(204, Body::Bytes(b"x"), Persistence::Open, "");
    }
}
