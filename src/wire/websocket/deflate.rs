//! permessage-deflate (RFC 7692) without context takeover: what is agreed on, and by which header.
//!
//! Every message is compressed by itself: a frame that was compressed once is right for each client
//! that has agreed to at least its window, and a connection keeps no window in either direction.
//! The engine's two halves are the [`Deflater`] and the [`Inflater`]; a shard has one of each.

use super::handshake::Refusal;

mod deflater;
mod inflater;
mod offers;

#[cfg(test)]
mod tests;

pub use deflater::Deflater;
pub use inflater::{Inflater, deflated_bytes_max};
use offers::Offer;

/// How far back a server may refer in what it compresses for one client: 2 to this power, in bytes.
///
/// RFC 7692 knows windows from 8 bits. zlib compresses with no fewer than 9 (its manual says so of
/// raw streams in `deflateInit2`), so an offer of 8 is one that this server declines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowBits(Bits);

/// An enum, so that there are values left which mean no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
enum Bits {
    Nine = 9,
    Ten,
    Eleven,
    Twelve,
    Thirteen,
    Fourteen,
    Fifteen,
}

impl WindowBits {
    pub const LEAST: u8 = 9;
    /// What a client reads that does not ask for less (section 7.1.2.1).
    pub const MOST: u8 = 15;
    /// How many sizes there are.
    pub const SIZES: usize = (Self::MOST - Self::LEAST + 1) as usize;

    /// Nothing for bits that are not from [`WindowBits::LEAST`] to [`WindowBits::MOST`].
    pub fn new(bits: u8) -> Option<WindowBits> {
        let all = [
            Bits::Nine,
            Bits::Ten,
            Bits::Eleven,
            Bits::Twelve,
            Bits::Thirteen,
            Bits::Fourteen,
            Bits::Fifteen,
        ];
        let place = bits.checked_sub(Self::LEAST)?;
        all.get(usize::from(place)).copied().map(WindowBits)
    }

    pub fn bits(self) -> u8 {
        self.0 as u8
    }

    /// The place of this size among all, from 0.
    pub fn index(self) -> usize {
        usize::from(self.bits() - Self::LEAST)
    }
}

/// An offer that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    pub window: WindowBits,
    /// The client asked for a window, and is told which one it gets.
    is_window_asked: bool,
}

impl Agreement {
    /// The value of the `Sec-WebSocket-Extensions` that answers the offer. It always forbids the
    /// client to refer to earlier messages, which it must be able to obey (section 7.1.1.2), and
    /// leaves its window alone: the [`Inflater`] has the largest.
    pub fn answer(self) -> String {
        let window = match self.is_window_asked {
            true => format!("; {SERVER_WINDOW}={}", self.window.bits()),
            false => String::new(),
        };
        format!("{EXTENSION}; {SERVER_NO_TAKEOVER}; {CLIENT_NO_TAKEOVER}{window}")
    }
}

/// How a stream that was flushed ends, and the end of an empty block, which a message leaves off
/// (section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

const EXTENSION: &str = "permessage-deflate";
const SERVER_NO_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_WINDOW: &str = "server_max_window_bits";
const CLIENT_WINDOW: &str = "client_max_window_bits";

/// Takes the first offer of an upgrade request's headers that can be taken: offers stand in the
/// order of the client's preference, on one line or several (RFC 6455, section 11.3.2). A header
/// that is none by its grammar fails the handshake (RFC 6455, section 9.1).
pub fn agree<'a>(
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<Option<Agreement>, Refusal> {
    let mut agreement = None;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("sec-websocket-extensions") {
            let offers = offers::parse(value).ok_or(Refusal::Extensions)?;
            agreement = agreement.or_else(|| offers.iter().find_map(take));
        }
    }
    Ok(agreement)
}

/// What an offer comes to. Nothing if it is of another extension, or has a parameter that RFC 7692
/// does not define, twice or with a value that it does not define (section 7.1): such an offer is
/// declined, and the next may be taken.
fn take(offer: &Offer<'_>) -> Option<Agreement> {
    if offer.name != EXTENSION {
        return None;
    }
    let mut agreement = Agreement {
        window: WindowBits::new(WindowBits::MOST)?,
        is_window_asked: false,
    };
    for (place, (name, value)) in offer.parameters.iter().enumerate() {
        if offer.parameters[..place]
            .iter()
            .any(|(other, _)| other == name)
        {
            return None;
        }
        match (*name, value.as_deref()) {
            // Without takeover it is whatever the client asks.
            (SERVER_NO_TAKEOVER | CLIENT_NO_TAKEOVER, None) => {}
            // The client says how small its window can be made, or is; any is right.
            (CLIENT_WINDOW, None) => {}
            (CLIENT_WINDOW, Some(value)) => {
                window_bits(value)?;
            }
            (SERVER_WINDOW, Some(value)) => {
                agreement.window = WindowBits::new(window_bits(value)?)?;
                agreement.is_window_asked = true;
            }
            (_, _) => return None,
        }
    }
    Some(agreement)
}

/// A whole number from 8 to 15, without leading zeros (section 7.1.2.1).
fn window_bits(value: &str) -> Option<u8> {
    match value {
        "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15" => value.parse().ok(),
        _ => None,
    }
}
