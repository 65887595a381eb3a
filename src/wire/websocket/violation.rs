//! What a client can do wrong after the handshake, and the close code that answers it.

use std::fmt;

/// The peer's fault: the connection is over, and the close frame that says so carries
/// [`Violation::close_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// One of the three bits that only a negotiated extension gives a meaning (section 5.2), or the
    /// first of them, which then says "compressed", on a frame that does not begin a message (RFC
    /// 7692, section 6).
    ReservedBit,
    /// An opcode that no standard defines (section 5.2).
    ReservedOpcode,
    /// A client masks every frame (section 5.1).
    UnmaskedFrame,
    /// A ping, pong or close in several frames (section 5.5).
    FragmentedControl,
    /// A ping, pong or close of more than 125 bytes (section 5.5).
    LongControl,
    /// A length in more bytes than it needs (section 5.2).
    PaddedLength,
    /// A length of 2^63 bytes or more (section 5.2).
    LengthOutOfRange,
    /// A continuation that continues nothing (section 5.4).
    StrayContinuation,
    /// A new text or binary message before the one under way ended (section 5.4).
    InterruptedMessage,
    /// A close frame with half a code (section 5.5.1).
    HalfCloseCode,
    /// A close frame with a code that none may carry (section 7.4).
    CloseCode,
    /// A text or a close reason that is not UTF-8 (section 8.1).
    NotUtf8,
    /// A message over [`Limits::message_bytes_max`](super::Limits::message_bytes_max), known from
    /// the header that announced the excess.
    LongMessage,
    /// A compressed message whose payload is over that limit, known while it is inflated.
    LongInflated,
    /// A compressed message that is not DEFLATE, or only the beginning of it.
    NotDeflate,
}

impl Violation {
    pub fn close_code(self) -> u16 {
        match self {
            Violation::ReservedBit
            | Violation::ReservedOpcode
            | Violation::UnmaskedFrame
            | Violation::FragmentedControl
            | Violation::LongControl
            | Violation::PaddedLength
            | Violation::LengthOutOfRange
            | Violation::StrayContinuation
            | Violation::InterruptedMessage
            | Violation::HalfCloseCode
            | Violation::CloseCode => 1002,
            Violation::NotUtf8 | Violation::NotDeflate => 1007,
            Violation::LongMessage | Violation::LongInflated => 1009,
        }
    }

    /// For the close frame and the log; fits into a close frame whole.
    pub fn reason(self) -> &'static str {
        match self {
            Violation::ReservedBit => "a reserved bit is set that no extension gave a meaning",
            Violation::ReservedOpcode => "the opcode is reserved",
            Violation::UnmaskedFrame => "a client's frame is not masked",
            Violation::FragmentedControl => "a control frame is fragmented",
            Violation::LongControl => "a control frame has more than 125 bytes",
            Violation::PaddedLength => "a length takes more bytes than it needs",
            Violation::LengthOutOfRange => "a length has its top bit set",
            Violation::StrayContinuation => "a continuation continues no message",
            Violation::InterruptedMessage => "a message began before the last one ended",
            Violation::HalfCloseCode => "a close frame has one byte",
            Violation::CloseCode => "a close frame has a code that none may carry",
            Violation::NotUtf8 => "a text is not UTF-8",
            Violation::LongMessage => "the message is too long",
            Violation::LongInflated => "the message is too long when it is inflated",
            Violation::NotDeflate => "a compressed message cannot be inflated",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.reason())
    }
}

impl std::error::Error for Violation {}
