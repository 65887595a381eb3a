//! Rules of requests, one a sentence, and that no cut of the stream changes what it means.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const LIMITS: Limits = Limits {
    head_bytes_max: 1000,
    body_bytes_max: 100,
};

/// A request that outlives its input.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    method: String,
    target: String,
    minor_version: u8,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    persistence: Persistence,
}

impl Owned {
    fn from(request: &Request<'_>) -> Owned {
        Owned {
            method: request.method().to_owned(),
            target: request.target().to_owned(),
            minor_version: request.minor_version(),
            headers: request
                .headers()
                .map(|(name, value)| (name.to_owned(), value.to_vec()))
                .collect(),
            body: request.body().to_vec(),
            persistence: request.persistence(),
        }
    }
}

/// A connection as a shard keeps one: its unconsumed input, and what it has been told.
#[derive(Default)]
struct Connection {
    input: Vec<u8>,
    progress: Progress,
    requests: Vec<Owned>,
    continues: usize,
    refusal: Option<Refusal>,
}

impl Connection {
    fn receive(&mut self, piece: &[u8], limits: &Limits) {
        self.input.extend_from_slice(piece);
        while self.refusal.is_none() && !self.input.is_empty() {
            match parse(&mut self.input, &mut self.progress, limits) {
                Ok(Parsed::Whole { request, consumed }) => {
                    self.requests.push(Owned::from(&request));
                    self.input.drain(..consumed);
                }
                Ok(Parsed::Partial {
                    keep,
                    continue_wanted,
                }) => {
                    self.continues += usize::from(continue_wanted);
                    self.input.truncate(keep);
                    return;
                }
                Err(refusal) => self.refusal = Some(refusal),
            }
        }
    }
}

/// What a stream means when it arrives in these pieces.
fn receive_in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Connection {
    let mut connection = Connection::default();
    for piece in pieces {
        connection.receive(piece, &LIMITS);
    }
    connection
}

fn receive(stream: &[u8]) -> Connection {
    let whole = receive_in_pieces([stream]);
    let bytewise = receive_in_pieces(stream.chunks(1));
    assert_eq!(whole.requests, bytewise.requests);
    assert_eq!(whole.refusal, bytewise.refusal);
    whole
}

#[track_caller]
fn one(stream: &str) -> Owned {
    let connection = receive(stream.as_bytes());
    assert_eq!(connection.refusal, None, "{stream:?}");
    assert_eq!(connection.input, b"", "{stream:?}");
    let [request] = connection.requests.as_slice() else {
        panic!("{stream:?} is {:?}", connection.requests);
    };
    request.clone()
}

/// The first request of the stream is refused.
#[track_caller]
fn refused(stream: &str, refusal: Refusal) {
    let connection = receive(stream.as_bytes());
    assert_eq!(connection.requests, [], "{stream:?}");
    assert_eq!(connection.refusal, Some(refusal), "{stream:?}");
}

/// A POST with these header lines, each with its end, and what follows the head.
fn post(lines: &str, rest: &str) -> String {
    format!("POST /apps/1/events HTTP/1.1\r\nHost: a\r\n{lines}\r\n{rest}")
}

/// What one request without cuts is lent as.
#[track_caller]
fn with_request(stream: &str, check: impl FnOnce(Request<'_>)) {
    let mut input = stream.as_bytes().to_vec();
    match parse(&mut input, &mut Progress::default(), &LIMITS) {
        Ok(Parsed::Whole { request, .. }) => check(request),
        other => panic!("{stream:?} is {other:?}"),
    }
}

#[test]
fn a_whole_request_is_lent_from_the_input() {
    let stream = post(
        "Content-Length: 2\r\nX-Empty:\r\nx-b: \t c  d \r\n",
        "{}GET",
    );
    let mut input = stream.clone().into_bytes();
    let range = input.as_ptr_range();
    let parsed = parse(&mut input, &mut Progress::default(), &LIMITS);
    let Ok(Parsed::Whole { request, consumed }) = parsed else {
        panic!("{parsed:?}");
    };
    assert_eq!(consumed, stream.len() - 3);
    assert_eq!((request.method(), request.minor_version()), ("POST", 1));
    assert_eq!(request.path(), "/apps/1/events");
    assert_eq!(request.body(), b"{}");
    assert!(range.contains(&request.body().as_ptr()));
    assert_eq!(request.header("X-B"), Some(b"c  d".as_slice()));
    assert_eq!(request.header("x-empty"), Some(b"".as_slice()));
    assert_eq!(request.header("x"), None);
    assert_eq!(request.headers().count(), 4);
}

#[test]
fn pipelined_requests_come_one_at_a_time() {
    let stream = [
        post("Content-Length: 2\r\n", "{}"),
        post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
        "GET /b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "\r\n\r\nGET /c HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ];
    let connection = receive(stream.concat().as_bytes());
    let bodies: Vec<_> = connection
        .requests
        .iter()
        .map(|request| &request.body[..])
        .collect();
    assert_eq!(bodies, [b"{}".as_slice(), b"abc", b"", b""]);
    assert_eq!(connection.requests[3].target, "/c");
    assert_eq!((connection.refusal, connection.input), (None, Vec::new()));
}

#[test]
fn a_target_is_a_path_or_a_url_or_an_asterisk() {
    for (target, path, query) in [
        ("/", "/", None),
        ("/a?", "/a", Some("")),
        ("/a%20b?c=d?e&f", "/a%20b", Some("c=d?e&f")),
        ("//a/b", "//a/b", None),
        ("http://a", "/", None),
        ("http://a:80?b", "/", Some("b")),
        ("HTTPS://[::1]:80/b?c", "/b", Some("c")),
    ] {
        with_request(
            &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
            |request| {
                assert_eq!(request.target(), target);
                assert_eq!((request.path(), request.query()), (path, query), "{target}");
            },
        );
    }
    assert_eq!(one("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target, "*");
    for target in [
        "*",
        "a",
        "a/b",
        "ftp://a/",
        "http:///b",
        "http://c@a/",
        "http:/",
        "/a#b",
    ] {
        refused(
            &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
            Refusal::Target,
        );
    }
    refused("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::Connect);
}

#[test]
fn a_request_line_has_three_parts_and_a_known_version() {
    for line in [
        "GET",
        "GET /",
        "GET  / HTTP/1.1",
        " GET / HTTP/1.1",
        "G(T / HTTP/1.1",
        "\0",
    ] {
        let connection = receive(format!("{line}\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(
            connection.refusal.map(Refusal::status),
            Some(400),
            "{line:?}"
        );
    }
    for version in [
        "HTTP/2.0",
        "HTTP/1.2",
        "HTTP/0.9",
        "HTTP/1.10",
        "http/1.1",
        "ICY/1.1",
    ] {
        let connection = receive(format!("GET / {version}\r\nHost: a\r\n\r\n").as_bytes());
        let status = connection.refusal.map(Refusal::status);
        assert!(matches!(status, Some(505 | 400)), "{version}: {status:?}");
    }
    refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refusal::Version);
}

#[test]
fn a_client_of_another_protocol_is_refused_at_its_first_byte() {
    let connection = receive(b"\x16");
    assert_eq!(connection.refusal, Some(Refusal::RequestLine));
}

#[test]
fn a_header_line_has_one_reading() {
    for line in [
        "A : b",
        " A: b",
        "\tA: b",
        "A",
        ": b",
        "A: b\rC: d",
        "A: \0",
        "A: \x7f",
        "A\0: b",
    ] {
        refused(&post(&format!("{line}\r\n"), ""), Refusal::HeaderLine);
    }
    refused(&post("A: b\r\n folded\r\n", ""), Refusal::HeaderLine);
    refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refusal::HeaderLine);
}

#[test]
fn every_line_ends_with_both_bytes() {
    refused("GET / HTTP/1.1\nHost: a\r\n\r\n", Refusal::LineEnding);
    refused("GET / HTTP/1.1\r\nHost: a\n\r\n", Refusal::LineEnding);
    refused("GET / HTTP/1.1\r\nHost: a\r\n\n", Refusal::LineEnding);
    refused("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::RequestLine);
    refused(
        "\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        Refusal::RequestLine,
    );
}

#[test]
fn http_1_1_names_exactly_one_host() {
    refused("GET / HTTP/1.1\r\n\r\n", Refusal::Host);
    refused(
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        Refusal::Host,
    );
    refused(
        "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n",
        Refusal::Host,
    );
    refused("GET http://a/ HTTP/1.1\r\n\r\n", Refusal::Host);
    for host in ["a b", "a/b", "c@a", "a\\b", "é", "a?"] {
        refused(
            &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Refusal::Host,
        );
    }
    one("GET / HTTP/1.0\r\n\r\n");
    one("GET / HTTP/1.1\r\nHost:\r\n\r\n");
    one("GET / HTTP/1.1\r\nhOST: [::1]:8080\r\n\r\n");
}

#[test]
fn the_connection_persists_by_version_and_tokens() {
    for (minor_version, lines, expected) in [
        (1, "", Persistence::Open),
        (1, "Connection: close\r\n", Persistence::Close),
        (1, "connection: x , CLOSE,y\r\n", Persistence::Close),
        (
            1,
            "Connection: keep-alive\r\nConnection: close\r\n",
            Persistence::Close,
        ),
        (1, "Connection: closed, \"close\"\r\n", Persistence::Open),
        (1, "Connection: keep-alive\r\n", Persistence::Open),
        (0, "", Persistence::Close),
        (0, "Connection: Keep-Alive\r\n", Persistence::OpenAnnounced),
        (0, "Connection: keep-alive, close\r\n", Persistence::Close),
        (0, "Keep-Alive: 5\r\n", Persistence::Close),
    ] {
        let request = one(&format!(
            "GET / HTTP/1.{minor_version}\r\nHost: a\r\n{lines}\r\n"
        ));
        assert_eq!(request.persistence, expected, "{minor_version} {lines:?}");
    }
}

#[test]
fn a_content_length_is_one_number() {
    for value in [
        "", "+1", "-1", "1 1", "1,1", "1, 1", "0x1", "1.0", "one", "١",
    ] {
        refused(
            &post(&format!("Content-Length: {value}\r\n"), "x"),
            Refusal::ContentLength,
        );
    }
    let two = |first, second| format!("Content-Length: {first}\r\ncontent-length: {second}\r\n");
    refused(&post(&two("1", "2"), "x"), Refusal::ContentLength);
    refused(&post(&two("0", "1"), "x"), Refusal::ContentLength);
    assert_eq!(one(&post(&two("1", "1"), "x")).body, b"x");
    assert_eq!(one(&post("Content-Length: 0002\r\n", "{}")).body, b"{}");
}

#[test]
fn a_body_has_one_framing() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let lines = format!("{chunked}Content-Length: 5\r\n");
    refused(&post(&lines, "0\r\n\r\n"), Refusal::TwoFramings);
    let lines = format!("Content-Length: 0\r\n{chunked}");
    refused(&post(&lines, "0\r\n\r\n"), Refusal::TwoFramings);
    let stream = format!("POST / HTTP/1.0\r\n{chunked}\r\n0\r\n\r\n");
    refused(&stream, Refusal::TransferEncoding);
}

#[test]
fn chunked_is_the_only_transfer_coding_and_comes_once() {
    for value in ["chunked", "Chunked", " CHUNKED\t"] {
        let lines = format!("transfer-encoding: {value}\r\n");
        assert_eq!(one(&post(&lines, "1\r\nx\r\n0\r\n\r\n")).body, b"x");
    }
    for value in [
        "chunked, chunked",
        "",
        ",",
        "chunked,",
        "chunked\r\nTransfer-Encoding: chunked",
    ] {
        let lines = format!("Transfer-Encoding: {value}\r\n");
        refused(&post(&lines, "0\r\n\r\n"), Refusal::TransferEncoding);
    }
    for value in [
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "identity",
        "xchunked",
        "chunked;a=b",
    ] {
        let lines = format!("Transfer-Encoding: {value}\r\n");
        refused(&post(&lines, "0\r\n\r\n"), Refusal::UnknownTransferCoding);
    }
}

#[test]
fn a_request_hidden_in_a_body_stays_there() {
    let hidden = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    let lines = format!("Content-Length: {}\r\n", hidden.len());
    assert_eq!(one(&post(&lines, hidden)).body, hidden.as_bytes());
    let body = format!("{:x};\"\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    assert_eq!(
        one(&post("Transfer-Encoding: chunked\r\n", &body)).body,
        hidden.as_bytes()
    );
    // Who reads the last chunk in this size sees a request behind it.
    let body = format!("0_1\r\n\r\n{hidden}");
    refused(
        &post("Transfer-Encoding: chunked\r\n", &body),
        Refusal::Chunk,
    );
    let body = format!("\r\n\r\n{hidden}");
    refused(
        &post("Transfer-Encoding: chunked\r\n", &body),
        Refusal::Chunk,
    );
}

#[test]
fn a_client_that_waits_is_told_once_to_go_on() {
    let stream = post("Expect: 100-Continue\r\nContent-Length: 3\r\n", "abc");
    let connection = receive_in_pieces(stream.as_bytes().chunks(1));
    assert_eq!((connection.continues, connection.requests.len()), (1, 1));
    let connection = receive_in_pieces([stream.repeat(2).as_bytes()]);
    assert_eq!((connection.continues, connection.requests.len()), (0, 2));

    let stream = post(
        "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
    );
    let connection = receive_in_pieces(stream.repeat(2).as_bytes().chunks(1));
    assert_eq!((connection.continues, connection.requests.len()), (2, 2));

    for stream in [
        post("Expect: 100-continue\r\n", ""),
        post("Expect: 200-ok\r\nContent-Length: 3\r\n", "abc"),
        "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
    ] {
        let connection = receive_in_pieces(stream.as_bytes().chunks(1));
        assert_eq!(
            (connection.continues, connection.requests.len()),
            (0, 1),
            "{stream:?}"
        );
    }
}

#[test]
fn a_client_that_waits_with_too_much_is_refused_instead() {
    let connection =
        receive(post("Expect: 100-continue\r\nContent-Length: 101\r\n", "").as_bytes());
    assert_eq!(connection.refusal, Some(Refusal::BodyTooLarge));
    assert_eq!(connection.continues, 0);
}

#[test]
fn a_websocket_handshake_has_no_body() {
    let handshake =
        |lines| format!("GET /app/k HTTP/1.1\r\nHost: a\r\nUpgrade: h2c, WebSocket\r\n{lines}\r\n");
    let upgrade = "Connection: keep-alive, Upgrade\r\n";
    let stream = handshake(upgrade.to_owned());
    let mut input = [stream.as_bytes(), b"\x81\x80frame"].concat();
    let parsed = parse(&mut input, &mut Progress::default(), &LIMITS);
    let Ok(Parsed::Whole { request, consumed }) = parsed else {
        panic!("{parsed:?}");
    };
    assert!(request.upgrades_to_websocket());
    assert_eq!((request.body(), consumed), (b"".as_slice(), stream.len()));

    for framing in ["Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n"] {
        let stream = handshake(format!("{upgrade}{framing}"));
        refused(&(stream + "0\r\n\r\n"), Refusal::UpgradeWithBody);
    }
    with_request(
        &handshake(format!("{upgrade}Content-Length: 0\r\n")),
        |request| {
            assert!(request.upgrades_to_websocket());
        },
    );
    with_request(&handshake("Connection: close\r\n".to_owned()), |request| {
        assert!(!request.upgrades_to_websocket());
    });
}

#[test]
fn an_offer_of_another_protocol_keeps_its_body() {
    let lines = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 2\r\n";
    with_request(&post(lines, "{}"), |request| {
        assert!(!request.upgrades_to_websocket());
        assert_eq!(request.body(), b"{}");
    });
}

#[test]
fn a_head_may_be_as_large_as_its_limit_and_no_larger() {
    let head = |excess: usize| {
        let stem = "GET / HTTP/1.1\r\nHost: a\r\nA: \r\n\r\n";
        let padding = "a".repeat(LIMITS.head_bytes_max - stem.len() + excess);
        stem.replace("A: ", &format!("A: {padding}"))
    };
    assert_eq!(head(0).len(), LIMITS.head_bytes_max);
    one(&head(0));
    refused(&head(1), Refusal::HeadTooLarge);
    refused(&head(1)[..LIMITS.head_bytes_max], Refusal::HeadTooLarge);
    let line = format!("GET /{} HTTP/1.1\r\n", "a".repeat(LIMITS.head_bytes_max));
    refused(&line, Refusal::TargetTooLong);
    refused(
        &"\r\n".repeat(LIMITS.head_bytes_max),
        Refusal::TargetTooLong,
    );
}

#[test]
fn header_lines_are_counted() {
    one(&post(&"A: b\r\n".repeat(HEADERS_MAX - 1), ""));
    refused(
        &post(&"A: b\r\n".repeat(HEADERS_MAX), ""),
        Refusal::TooManyHeaders,
    );
}

#[test]
fn a_body_may_be_as_large_as_its_limit_and_no_larger() {
    let body = "x".repeat(LIMITS.body_bytes_max);
    assert_eq!(
        one(&post("Content-Length: 100\r\n", &body)).body,
        body.as_bytes()
    );
    for length in [
        "101",
        "18446744073709551615",
        "18446744073709551616",
        &"9".repeat(500),
    ] {
        let lines = format!("Content-Length: {length}\r\n");
        refused(&post(&lines, ""), Refusal::BodyTooLarge);
    }
    let chunks = format!("32\r\n{}\r\n", "x".repeat(50)).repeat(2);
    let chunked = "Transfer-Encoding: chunked\r\n";
    let stream = post(chunked, &format!("{chunks}0\r\n\r\n"));
    assert_eq!(one(&stream).body, body.as_bytes());
    refused(
        &post(chunked, &format!("{chunks}1\r\n")),
        Refusal::BodyTooLarge,
    );
    refused(
        &post(chunked, "ffffffffffffffff\r\n"),
        Refusal::BodyTooLarge,
    );
    refused(&post(chunked, "10000000000000000\r\n"), Refusal::Chunk);
}

/// What was looked at is spoilt before the next byte arrives, and mended only where the head is
/// read as a whole: when it is complete, and when its body is. Whoever looks at it at any other
/// time refuses it. So the work for a request is linear in its bytes, however they arrive.
#[test]
fn bytes_that_were_looked_at_are_not_looked_at_again() {
    let limits = Limits {
        head_bytes_max: 16 << 10,
        body_bytes_max: 64 << 10,
    };
    let padding = format!("A: {}\r\n", "a".repeat(8 << 10));
    let body = "x".repeat(64 << 10);
    let lines = format!("{padding}Content-Length: {}\r\n", body.len());
    let stream = post(&lines, &body).into_bytes();
    let head_bytes = stream.len() - body.len();
    let mut progress = Progress::default();
    let mut input = Vec::new();
    for arrived in 1..stream.len() {
        input.push(stream[arrived - 1]);
        if arrived == head_bytes {
            input.copy_from_slice(&stream[..head_bytes]);
        }
        let parsed = parse(&mut input, &mut progress, &limits);
        assert!(matches!(parsed, Ok(Parsed::Partial { .. })), "{parsed:?}");
        // The first byte is asked for its protocol until its line ends, the last one when a line
        // feed comes behind it.
        if let [_, .., spoilt, _] = input.as_mut_slice() {
            *spoilt = b'\n';
        }
        if arrived == head_bytes {
            input[1..].fill(b'\n');
        }
    }
    input = stream;
    let parsed = parse(&mut input, &mut progress, &limits);
    assert!(matches!(parsed, Ok(Parsed::Whole { .. })), "{parsed:?}");
}

#[test]
fn chunks_that_were_decoded_are_not_looked_at_again() {
    let limits = Limits {
        head_bytes_max: 16 << 10,
        body_bytes_max: 64 << 10,
    };
    let head = post("Transfer-Encoding: chunked\r\n", "");
    let coded = "10\r\nsixteen bytes...\r\n".repeat(4 << 10) + "0\r\n\r";
    let mut progress = Progress::default();
    let mut input = head.clone().into_bytes();
    for byte in coded.bytes() {
        input.push(byte);
        match parse(&mut input, &mut progress, &limits) {
            Ok(Parsed::Partial { keep, .. }) => input.truncate(keep),
            other => panic!("{other:?}"),
        }
        let looked_bytes = input.len().saturating_sub(4);
        input[..looked_bytes].fill(b'\n');
    }
    assert!(input.len() < head.len() + (64 << 10) + 8);
    input[..head.len()].copy_from_slice(head.as_bytes());
    input.push(b'\n');
    match parse(&mut input, &mut progress, &limits) {
        Ok(Parsed::Whole { request, .. }) => assert_eq!(request.body().len(), 64 << 10),
        other => panic!("{other:?}"),
    }
}

#[derive(Clone, Debug)]
enum BodyOnTheWire {
    None,
    Length(Vec<u8>),
    Chunks(Vec<(Vec<u8>, String)>, Vec<String>),
}

fn body_on_the_wire() -> impl Strategy<Value = BodyOnTheWire> {
    let bytes = || vec(any::<u8>(), 0..30);
    let chunk = (
        vec(any::<u8>(), 1..30),
        "( ?;[a-z]{1,3}(=\"[ a-z;]{0,5}\")?){0,2}",
    );
    prop_oneof![
        Just(BodyOnTheWire::None),
        bytes().prop_map(BodyOnTheWire::Length),
        (vec(chunk, 0..4), vec("[A-Z][a-z]{0,5}: ?[ -~]{0,9}", 0..3))
            .prop_map(|(chunks, trailers)| BodyOnTheWire::Chunks(chunks, trailers)),
    ]
}

/// Requests as they have to come out, each with the bytes that say so.
fn request_on_the_wire() -> impl Strategy<Value = (Vec<u8>, Owned)> {
    let extra = ("X-[A-Za-z]{0,8}", "([!-~]([ -~]{0,12}[!-~])?)?");
    let parts = (
        "(\r\n){0,2}",
        "[A-BD-Z]{1,7}",
        "/[a-z0-9/%]{0,12}(\\?[a-z=&]{0,9})?",
        vec(extra, 0..4),
        any::<bool>(),
        body_on_the_wire(),
    );
    parts.prop_map(|(before, method, target, extras, closes, body)| {
        let mut headers = vec![("Host".to_owned(), b"a.example:80".to_vec())];
        headers.extend(
            extras
                .into_iter()
                .map(|(name, value)| (name, value.into_bytes())),
        );
        if closes {
            headers.push(("connection".to_owned(), b"x, Close".to_vec()));
        }
        let (framing, coded, decoded) = encode_body(body);
        headers.extend(framing);
        let mut bytes = format!("{before}{method} {target} HTTP/1.1\r\n").into_bytes();
        for (name, value) in &headers {
            bytes.extend([name.as_bytes(), b": ", value, b" \r\n"].concat());
        }
        bytes.extend([b"\r\n".as_slice(), &coded].concat());
        let request = Owned {
            method,
            target,
            minor_version: 1,
            headers,
            body: decoded,
            persistence: match closes {
                true => Persistence::Close,
                false => Persistence::Open,
            },
        };
        (bytes, request)
    })
}

type HeaderLine = (String, Vec<u8>);

/// The header line that announces a body, its bytes on the wire, and its bytes.
fn encode_body(body: BodyOnTheWire) -> (Option<HeaderLine>, Vec<u8>, Vec<u8>) {
    match body {
        BodyOnTheWire::None => (None, Vec::new(), Vec::new()),
        BodyOnTheWire::Length(bytes) => {
            let length = bytes.len().to_string().into_bytes();
            let line = ("Content-Length".to_owned(), length);
            (Some(line), bytes.clone(), bytes)
        }
        BodyOnTheWire::Chunks(chunks, trailers) => {
            let line = ("Transfer-Encoding".to_owned(), b"chunked".to_vec());
            let mut coded = Vec::new();
            for (bytes, extension) in &chunks {
                coded.extend(format!("{:X}{extension}\r\n", bytes.len()).bytes());
                coded.extend([bytes.as_slice(), b"\r\n"].concat());
            }
            coded.extend(b"0\r\n");
            for trailer in trailers {
                coded.extend(format!("{trailer}\r\n").bytes());
            }
            coded.extend(b"\r\n");
            let decoded = chunks.into_iter().flat_map(|(bytes, _)| bytes).collect();
            (Some(line), coded, decoded)
        }
    }
}

/// The stream between these cuts.
fn pieces<'a>(stream: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|pair| &stream[pair[0]..pair[1]])
        .collect()
}

proptest! {
    #[test]
    fn no_cut_changes_what_a_valid_stream_means(
        wire in vec(request_on_the_wire(), 1..4),
        cuts in vec(any::<Index>(), 0..8),
    ) {
        let (bytes, expected): (Vec<_>, Vec<_>) = wire.into_iter().unzip();
        let stream = bytes.concat();
        for pieces in [vec![&stream[..]], pieces(&stream, &cuts), stream.chunks(1).collect()] {
            let connection = receive_in_pieces(pieces);
            prop_assert_eq!(&connection.requests, &expected);
            prop_assert_eq!(connection.refusal, None);
            prop_assert_eq!(connection.input.len(), 0);
        }
    }

    #[test]
    fn no_cut_changes_what_a_damaged_stream_means(
        wire in vec(request_on_the_wire(), 1..4),
        damage in vec((any::<Index>(), prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n')]), 0..3),
        repeated in any::<(Index, Index)>(),
        cuts in vec(any::<Index>(), 0..8),
    ) {
        let mut stream: Vec<u8> = wire.into_iter().flat_map(|(bytes, _)| bytes).collect();
        for (place, byte) in damage {
            *place.get_mut(&mut stream) = byte;
        }
        let (from, to) = (repeated.0.index(stream.len()), repeated.1.index(stream.len()));
        stream.extend_from_within(from.min(to)..from.max(to));
        let whole = receive_in_pieces([&stream[..]]);
        let cut = receive_in_pieces(pieces(&stream, &cuts));
        prop_assert_eq!(whole.requests, cut.requests);
        prop_assert_eq!(whole.refusal, cut.refusal);
    }

    #[test]
    fn headers_are_the_ones_that_httparse_saw(wire in request_on_the_wire()) {
        let (bytes, _) = wire;
        let mut table = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut seen = httparse::Request::new(&mut table);
        prop_assert!(seen.parse(&bytes).unwrap().is_complete());
        let seen = seen.headers.iter().map(|header| (header.name, header.value));
        let mut input = bytes.clone();
        match parse(&mut input, &mut Progress::default(), &LIMITS) {
            Ok(Parsed::Whole { request, .. }) => prop_assert!(request.headers().eq(seen)),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        start in prop_oneof![
            Just(String::new()),
            Just("GET / HTTP/1.1\r\n".to_owned()),
            Just(post("Transfer-Encoding: chunked\r\n", "")),
        ],
        rest in vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0')], 0..200),
    ) {
        let stream = [start.as_bytes(), &rest].concat();
        let connection = receive(&stream);
        prop_assert!(connection.input.len() <= stream.len());
    }
}
