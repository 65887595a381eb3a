//! Requests, one at a time, out of the bytes of a connection.

use std::mem;

use super::Refusal;
use super::body::{Framing, Gathered};
use super::head::{Head, Search};

/// Header lines of one request. A browser behind two proxies sends about 40.
pub const HEADERS_MAX: usize = 64;

/// What a request may take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The head: request line, header lines, and the empty lines around them.
    pub head_bytes_max: usize,
    /// The body, decoded.
    pub body_bytes_max: usize,
}

/// How far a connection is in its current request. `Progress::default()` is the beginning of one.
///
/// head -> body -> (whole: head again). After a refusal it means nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    search: Search,
    /// Known once the head is complete.
    body: Option<BodyProgress>,
}

#[derive(Clone, Copy, Debug)]
struct BodyProgress {
    head_bytes: usize,
    framing: Framing,
    owes_continue: bool,
}

/// What the input held.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// The request goes on. The caller keeps the first `keep` bytes of the input, drops the others
    /// (they are decoded chunks' framing), appends what arrives and asks again, with no other
    /// change. `keep` never exceeds the limits by more than an unfinished chunk size or trailer.
    ///
    /// `continue_wanted` is true once a request, when its client waits for [`super::CONTINUE`]
    /// before it sends the body.
    Partial { keep: usize, continue_wanted: bool },
    /// A request, and how many bytes of the input it took; the next one begins behind them.
    Whole {
        request: Request<'a>,
        consumed: usize,
    },
}

/// What the client expects of the connection behind the answer (RFC 9112 section 9.3). The server
/// may always choose [`Persistence::Close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It stays open, and HTTP/1.1 need not say so.
    Open,
    /// It stays open if the answer says so: HTTP/1.0 with `Connection: keep-alive`.
    OpenAnnounced,
    /// It closes.
    Close,
}

/// A request whose length was certain, borrowed from the connection's input.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    head: Head<'a>,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The method as received; methods are case-sensitive.
    pub fn method(&self) -> &'a str {
        self.head.method
    }

    /// The target as received: a path with its query, or a whole URL, or `*`.
    pub fn target(&self) -> &'a str {
        self.head.target
    }

    /// The target's path, escapes and all; `/` if a whole URL has none. It is not normalized.
    pub fn path(&self) -> &'a str {
        self.head.path
    }

    /// What follows the first `?` of the target.
    pub fn query(&self) -> Option<&'a str> {
        self.head.query
    }

    /// 0 or 1, of HTTP/1.0 or HTTP/1.1.
    pub fn minor_version(&self) -> u8 {
        self.head.minor_version
    }

    /// The value of the first header line of this name, whatever its case, without the space
    /// around it. Each call walks the head.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers()
            .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Every header line in its order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.head.fields
    }

    /// The value of the first `Idempotency-Key`, which every publish is asked for.
    pub fn idempotency_key(&self) -> Option<&'a [u8]> {
        self.head.idempotency_key
    }

    /// The body, decoded.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// What becomes of the connection behind the answer, as far as the client is concerned.
    pub fn persistence(&self) -> Persistence {
        self.head.persistence
    }

    /// The request is the opening of a WebSocket (RFC 6455 section 4.1) as far as HTTP is
    /// concerned: GET, HTTP/1.1, `Connection: upgrade` and `Upgrade: websocket`. It has no body;
    /// what follows it on the connection is frames if the answer is 101. An upgrade to anything
    /// else, which a server may ignore (RFC 9110 section 7.8), is an ordinary request with an
    /// ordinary body: Java's client offers h2c with every POST.
    pub fn upgrades_to_websocket(&self) -> bool {
        self.head.upgrades_to_websocket
    }
}

/// Takes the first request from `input`: everything of the connection that has arrived and was
/// not consumed, as the last [`Parsed::Partial`] asked for it. Chunks are decoded where they lie,
/// so the input changes behind the head, but never behind what is consumed.
///
/// The head is read once if the request is whole when it is complete, else twice.
pub fn parse<'a>(
    input: &'a mut [u8],
    progress: &mut Progress,
    limits: &Limits,
) -> Result<Parsed<'a>, Refusal> {
    let head_bytes = match progress.body {
        Some(body) => body.head_bytes,
        None => match progress.search.end(input, limits.head_bytes_max)? {
            Some(head_bytes) => head_bytes,
            None => {
                return Ok(Parsed::Partial {
                    keep: input.len(),
                    continue_wanted: false,
                });
            }
        },
    };
    let (head_input, body_input) = input.split_at_mut(head_bytes);
    let head_input: &'a [u8] = head_input;
    let mut head = None;
    let body = match &mut progress.body {
        Some(body) => body,
        body @ None => {
            let read = head.insert(Head::read(head_input, limits)?);
            body.insert(BodyProgress {
                head_bytes,
                framing: read.framing,
                owes_continue: read.expects_continue,
            })
        }
    };
    match body.framing.gather(body_input, limits.body_bytes_max)? {
        Gathered::Partial { keep } => Ok(Parsed::Partial {
            keep: head_bytes + keep,
            continue_wanted: mem::take(&mut body.owes_continue),
        }),
        Gathered::Whole {
            body_bytes,
            consumed,
        } => {
            let head = match head {
                Some(head) => head,
                None => Head::read(head_input, limits)?,
            };
            *progress = Progress::default();
            Ok(Parsed::Whole {
                request: Request {
                    head,
                    body: &body_input[..body_bytes],
                },
                consumed: head_bytes + consumed,
            })
        }
    }
}

#[cfg(test)]
mod tests;
