//! Why a request was refused, and the status that says so.

use std::fmt;

/// A request that cannot be read, or that announces more than is allowed.
///
/// Nothing after it on the connection can be trusted: answer with [`Refusal::status`], end the
/// sending direction and close. Closing while unread bytes wait makes the kernel send a reset that
/// can overtake the answer (RFC 9112 section 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A line of the head ends with a bare line feed.
    LineEnding,
    /// The request line is not `method SP target SP version`.
    RequestLine,
    /// A header line is no `name: value`: a folded line, a space before the colon, a bare carriage
    /// return, a NUL or another control byte.
    HeaderLine,
    /// The target is none of the forms that this server serves, or has a fragment.
    Target,
    /// The method is CONNECT, whose answer is a tunnel.
    Connect,
    /// The version is neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// The request line alone is larger than a head may be.
    TargetTooLong,
    /// The head is larger than a head may be.
    HeadTooLarge,
    /// There are more header lines than [`super::HEADERS_MAX`].
    TooManyHeaders,
    /// HTTP/1.1 without Host, more than one Host, or a Host that cannot be one.
    Host,
    /// A Content-Length that is not a number, or two that differ.
    ContentLength,
    /// Content-Length and Transfer-Encoding at once.
    TwoFramings,
    /// Transfer-Encoding in HTTP/1.0, empty, or chunked more than once.
    TransferEncoding,
    /// A transfer coding other than chunked.
    UnknownTransferCoding,
    /// A request to become a WebSocket that announces a body.
    UpgradeWithBody,
    /// The body is larger than a body may be.
    BodyTooLarge,
    /// A chunk's size line, its end or a trailer line is not what it has to be.
    Chunk,
    /// The chunk extensions and trailers of one body are larger than they may be together.
    ChunkExtrasTooLarge,
}

impl Refusal {
    /// The status of the answer (RFC 9110 section 15; 431 is RFC 6585 section 5).
    pub fn status(self) -> u16 {
        match self {
            Refusal::LineEnding
            | Refusal::RequestLine
            | Refusal::HeaderLine
            | Refusal::Target
            | Refusal::Host
            | Refusal::ContentLength
            | Refusal::TwoFramings
            | Refusal::TransferEncoding
            | Refusal::UpgradeWithBody
            | Refusal::Chunk
            | Refusal::ChunkExtrasTooLarge => 400,
            Refusal::BodyTooLarge => 413,
            Refusal::TargetTooLong => 414,
            Refusal::HeadTooLarge | Refusal::TooManyHeaders => 431,
            Refusal::Connect | Refusal::UnknownTransferCoding => 501,
            Refusal::Version => 505,
        }
    }

    /// One line for the person who reads the answer. It repeats nothing that the peer sent.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::LineEnding => "a line of the head does not end with CR LF",
            Refusal::RequestLine => "the request line is malformed",
            Refusal::HeaderLine => "a header line is malformed",
            Refusal::Target => "the request target is malformed",
            Refusal::Connect => "CONNECT is not served",
            Refusal::Version => "only HTTP/1.1 and HTTP/1.0 are spoken here",
            Refusal::TargetTooLong => "the request line is too long",
            Refusal::HeadTooLarge => "the request head is too large",
            Refusal::TooManyHeaders => "the request has too many header lines",
            Refusal::Host => "exactly one valid Host is needed",
            Refusal::ContentLength => "Content-Length is malformed or contradicts itself",
            Refusal::TwoFramings => "Content-Length and Transfer-Encoding exclude each other",
            Refusal::TransferEncoding => "Transfer-Encoding is malformed",
            Refusal::UnknownTransferCoding => "the only transfer coding known here is chunked",
            Refusal::UpgradeWithBody => "a WebSocket handshake has no body",
            Refusal::BodyTooLarge => "the request body is too large",
            Refusal::Chunk => "the chunked body is malformed",
            Refusal::ChunkExtrasTooLarge => "chunk extensions and trailers are too large",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.reason())
    }
}

impl std::error::Error for Refusal {}
