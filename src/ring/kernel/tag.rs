//! What each submission carries so that its completion finds home: 64 bits of user data.
//!
//! Above the low 32 bits (a slot, a send's index or a shard) lie 24 bits (a generation, a batch or
//! the index of an accept that waits), above these the kind.

use crate::ring::Socket;

/// What a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Send = 1,
    Accept,
    Receive,
    Writable,
    Shutdown,
    Close,
    Cancel,
    /// A wake that we sent.
    Wake,
    /// A wake that another ring sent.
    Woken,
    /// The poll of our own event.
    Waker,
    /// A connection that we give to another ring.
    Move,
    /// A connection that another ring gave.
    Arrived,
    /// Our telling another ring again what it was given.
    Tell,
    /// The making of a socket that is to connect.
    Dial,
    /// What follows until it is connected.
    Connect,
    Skim,
    SkimSome,
}

pub(super) const GENERATION_MASK: u32 = (1 << 24) - 1;

pub(super) fn user_data(kind: Kind, high: u32, low: u32) -> u64 {
    assert!(high <= GENERATION_MASK);
    ((kind as u64) << 56) | (u64::from(high) << 32) | u64::from(low)
}

pub(super) fn of_socket(kind: Kind, socket: Socket) -> u64 {
    user_data(kind, socket.generation, socket.slot)
}

pub(super) fn parts(user_data: u64) -> (Kind, u32, u32) {
    let kind = match user_data >> 56 {
        1 => Kind::Send,
        2 => Kind::Accept,
        3 => Kind::Receive,
        4 => Kind::Writable,
        5 => Kind::Shutdown,
        6 => Kind::Close,
        7 => Kind::Cancel,
        8 => Kind::Wake,
        9 => Kind::Woken,
        10 => Kind::Waker,
        11 => Kind::Move,
        12 => Kind::Arrived,
        13 => Kind::Tell,
        14 => Kind::Dial,
        15 => Kind::Connect,
        16 => Kind::Skim,
        17 => Kind::SkimSome,
        kind => panic!("a completion of unknown kind {kind}"),
    };
    let high = (user_data >> 32) as u32 & GENERATION_MASK;
    (kind, high, user_data as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let socket = Socket {
            slot: u32::MAX,
            generation: GENERATION_MASK,
        };
        for kind in (1..=17).map(|kind| parts(kind << 56).0) {
            assert_eq!(
                parts(of_socket(kind, socket)),
                (kind, GENERATION_MASK, u32::MAX)
            );
            assert_eq!(parts(user_data(kind, 0, 1)), (kind, 0, 1));
            assert_eq!(parts(user_data(kind, 1, 0)), (kind, 1, 0));
        }
    }
}
