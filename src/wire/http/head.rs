//! A request's head: where it ends, and what it says about the rest.

use std::mem::MaybeUninit;

use super::Refusal;
use super::body::{Chunks, Framing, admit};
use super::request::{HEADERS_MAX, Limits, Persistence};

/// The search for the end of a head, which is its first empty line. Each byte is looked at once,
/// however many pieces the head arrives in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Search {
    looked_bytes: usize,
    /// Where the line begins that has not ended yet.
    line: usize,
    has_request_line: bool,
}

impl Search {
    /// The length of the head, with the empty lines before it (RFC 9112 section 2.2 asks to pass
    /// over them) and the one after it; `None` when it has not all arrived.
    pub(super) fn end(
        &mut self,
        input: &[u8],
        head_bytes_max: usize,
    ) -> Result<Option<usize>, Refusal> {
        let window = &input[..input.len().min(head_bytes_max)];
        while let Some(&first) = window.get(self.line) {
            // Whoever speaks another protocol, such as TLS, hears of it without sending a line.
            if !self.has_request_line && first != b'\r' && !first.is_ascii_graphic() {
                return Err(Refusal::RequestLine);
            }
            let unseen = &window[self.looked_bytes..];
            let Some(distance) = unseen.iter().position(|&byte| byte == b'\n') else {
                self.looked_bytes = window.len();
                break;
            };
            let line_feed = self.looked_bytes + distance;
            if line_feed == self.line || window[line_feed - 1] != b'\r' {
                return Err(Refusal::LineEnding);
            }
            let is_empty = line_feed == self.line + 1;
            self.line = line_feed + 1;
            self.looked_bytes = self.line;
            match (is_empty, self.has_request_line) {
                (true, true) => return Ok(Some(self.line)),
                (true, false) => {}
                (false, _) => self.has_request_line = true,
            }
        }
        match (window.len() < head_bytes_max, self.has_request_line) {
            (true, _) => Ok(None),
            (false, true) => Err(Refusal::HeadTooLarge),
            (false, false) => Err(Refusal::TargetTooLong),
        }
    }
}

/// A complete head, understood.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) minor_version: u8,
    pub(super) fields: Fields<'a>,
    pub(super) framing: Framing,
    pub(super) persistence: Persistence,
    pub(super) expects_continue: bool,
    pub(super) upgrades_to_websocket: bool,
    pub(super) idempotency_key: Option<&'a [u8]>,
}

impl<'a> Head<'a> {
    /// Reads a head that [`Search::end`] has delimited.
    pub(super) fn read(bytes: &'a [u8], limits: &Limits) -> Result<Head<'a>, Refusal> {
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(bytes, &mut headers) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(Refusal::RequestLine),
            Err(error) => return Err(refusal_of(error)),
        }
        let (Some(method), Some(target), Some(minor_version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(Refusal::RequestLine);
        };
        let (path, query) = split_target(method, target)?;
        let claims = Claims::collect(parsed.headers)?;
        claims.check_host(minor_version)?;
        let framing = claims.framing(minor_version, limits)?;
        let upgrades_to_websocket = claims.upgrades_to_websocket(method, minor_version);
        if upgrades_to_websocket && framing != Framing::Length(0) {
            return Err(Refusal::UpgradeWithBody);
        }
        Ok(Head {
            method,
            target,
            path,
            query,
            minor_version,
            fields: Fields::of_head(bytes),
            framing,
            persistence: claims.persistence(minor_version),
            // RFC 9110 section 10.1.1: an HTTP/1.0 client does not wait for it.
            expects_continue: claims.expects_continue && minor_version == 1,
            upgrades_to_websocket,
            idempotency_key: claims.idempotency_key,
        })
    }
}

fn refusal_of(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Refusal::HeaderLine,
        httparse::Error::NewLine => Refusal::LineEnding,
        httparse::Error::Token | httparse::Error::Status => Refusal::RequestLine,
        httparse::Error::TooManyHeaders => Refusal::TooManyHeaders,
        httparse::Error::Version => Refusal::Version,
    }
}

/// Path and query of a target: `/path?query`, `http://host/path?query` (RFC 9112 section 3.2.2
/// asks a server to accept it), and `*` with OPTIONS.
fn split_target<'a>(method: &str, target: &'a str) -> Result<(&'a str, Option<&'a str>), Refusal> {
    if method == "CONNECT" {
        return Err(Refusal::Connect);
    }
    if target.contains('#') {
        return Err(Refusal::Target);
    }
    if target == "*" && method == "OPTIONS" {
        return Ok((target, None));
    }
    let origin_form = match target.starts_with('/') {
        true => target,
        false => {
            let after_scheme = strip_scheme(target).ok_or(Refusal::Target)?;
            let authority_bytes = after_scheme.find(['/', '?']).unwrap_or(after_scheme.len());
            let (authority, origin_form) = after_scheme.split_at(authority_bytes);
            if authority.is_empty() || !authority.bytes().all(is_host_byte) {
                return Err(Refusal::Target);
            }
            origin_form
        }
    };
    let (path, query) = match origin_form.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (origin_form, None),
    };
    match path {
        "" => Ok(("/", query)),
        _ => Ok((path, query)),
    }
}

fn strip_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// What the header lines claim about the framing and the connection, each line by itself.
#[derive(Debug, Default)]
struct Claims<'a> {
    hosts_count: usize,
    content_length: Option<u64>,
    chunked_count: usize,
    has_transfer_encoding: bool,
    has_unknown_coding: bool,
    has_empty_coding: bool,
    closes: bool,
    keeps_alive: bool,
    has_upgrade_option: bool,
    names_websocket: bool,
    expects_continue: bool,
    idempotency_key: Option<&'a [u8]>,
}

impl<'a> Claims<'a> {
    fn collect(headers: &[httparse::Header<'a>]) -> Result<Claims<'a>, Refusal> {
        let mut claims = Claims::default();
        for header in headers {
            // Most lines are passed over by the length of their name alone.
            match header.name.len() {
                4 if header.name.eq_ignore_ascii_case("host") => claims.host(header.value)?,
                6 if header.name.eq_ignore_ascii_case("expect") => {
                    claims.expects_continue |= has_token(header.value, "100-continue");
                }
                7 if header.name.eq_ignore_ascii_case("upgrade") => {
                    claims.names_websocket |= has_token(header.value, "websocket");
                }
                10 if header.name.eq_ignore_ascii_case("connection") => {
                    claims.closes |= has_token(header.value, "close");
                    claims.keeps_alive |= has_token(header.value, "keep-alive");
                    claims.has_upgrade_option |= has_token(header.value, "upgrade");
                }
                14 if header.name.eq_ignore_ascii_case("content-length") => {
                    claims.content_length(header.value)?;
                }
                15 if header.name.eq_ignore_ascii_case("idempotency-key") => {
                    claims.idempotency_key.get_or_insert(header.value);
                }
                17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                    claims.transfer_encoding(header.value);
                }
                _ => {}
            }
        }
        Ok(claims)
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        self.hosts_count += 1;
        match value.iter().all(|&byte| is_host_byte(byte)) {
            true => Ok(()),
            false => Err(Refusal::Host),
        }
    }

    /// RFC 9112 section 6.3 allows a number that is repeated as it was; anything else is refused,
    /// also the list that a recipient may read as a repetition.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Refusal::ContentLength);
        }
        let digits = str::from_utf8(value).map_err(|_| Refusal::ContentLength)?;
        // Digits fail to be a number only by being too many.
        let bytes = digits.parse::<u64>().unwrap_or(u64::MAX);
        match self.content_length.replace(bytes) {
            Some(earlier) if earlier != bytes => Err(Refusal::ContentLength),
            Some(_) | None => Ok(()),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) {
        self.has_transfer_encoding = true;
        for coding in list(value) {
            match coding {
                b"" => self.has_empty_coding = true,
                _ if coding.eq_ignore_ascii_case(b"chunked") => self.chunked_count += 1,
                _ => self.has_unknown_coding = true,
            }
        }
    }

    fn check_host(&self, minor_version: u8) -> Result<(), Refusal> {
        match (self.hosts_count, minor_version) {
            (1, _) | (0, 0) => Ok(()),
            (_, _) => Err(Refusal::Host),
        }
    }

    fn framing(&self, minor_version: u8, limits: &Limits) -> Result<Framing, Refusal> {
        if !self.has_transfer_encoding {
            let announced = self.content_length.unwrap_or(0);
            return Ok(Framing::Length(admit(announced, limits.body_bytes_max)?));
        }
        if self.content_length.is_some() {
            return Err(Refusal::TwoFramings);
        }
        if minor_version == 0 {
            return Err(Refusal::TransferEncoding);
        }
        if self.has_unknown_coding {
            return Err(Refusal::UnknownTransferCoding);
        }
        match (self.has_empty_coding, self.chunked_count) {
            (false, 1) => Ok(Framing::Chunked(Chunks::default())),
            (_, _) => Err(Refusal::TransferEncoding),
        }
    }

    /// RFC 9112 section 9.3.
    fn persistence(&self, minor_version: u8) -> Persistence {
        match (self.closes, minor_version, self.keeps_alive) {
            (true, _, _) | (false, 0, false) => Persistence::Close,
            (false, 0, true) => Persistence::OpenAnnounced,
            (false, _, _) => Persistence::Open,
        }
    }

    fn upgrades_to_websocket(&self, method: &str, minor_version: u8) -> bool {
        method == "GET" && minor_version == 1 && self.has_upgrade_option && self.names_websocket
    }
}

/// Header lines that httparse has accepted: each is a name of token characters, a colon, a value
/// without control bytes, and CR LF. They are taken apart again when somebody asks, because a
/// table of them would be the largest thing in a request that is asked for three of its lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    lines: &'a [u8],
}

impl<'a> Fields<'a> {
    fn of_head(head: &'a [u8]) -> Fields<'a> {
        let head = head.trim_ascii_start();
        let request_line_bytes = line_bytes(head);
        let lines = head[request_line_bytes..].strip_suffix(b"\r\n");
        Fields {
            lines: lines.expect("a head ends with an empty line"),
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.lines.is_empty() {
            return None;
        }
        let (line, rest) = self.lines.split_at(line_bytes(self.lines));
        self.lines = rest;
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = line.split_at(colon.expect("a header line has a colon"));
        let name = str::from_utf8(name).expect("a header name is ASCII");
        Some((name, value[1..].trim_ascii()))
    }
}

/// The length of the first line with its end.
fn line_bytes(lines: &[u8]) -> usize {
    let line_feed = lines.iter().position(|&byte| byte == b'\n');
    line_feed.expect("every line of a head has its end") + 1
}

fn has_token(value: &[u8], token: &str) -> bool {
    list(value).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

/// The elements of a comma-separated list (RFC 9110 section 5.6.1), empty ones included.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// The bytes of `uri-host [":" port]` (RFC 3986 section 3.2.2). User information is not among
/// them: RFC 9110 section 4.2.4 asks to treat it as an error.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}
