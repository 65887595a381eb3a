//! The stamp in a measured message: its number on its channel, and when it was due.
//!
//! `@SEQUENCE@DUE@`, both as 16 hexadecimal digits: every message of a run has the same length,
//! and a reader finds the stamp without reading what is around it.

/// `@`, 16 digits, `@`, 16 digits, `@`.
pub const STAMP_BYTES: usize = 35;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub sequence: u64,
    /// By [`monotonic_ns`](super::machine::monotonic_ns): when it was meant to be sent, not when it was.
    pub due_ns: u64,
}

impl Stamp {
    /// Data of `length` bytes (at least [`STAMP_BYTES`]) that carries the stamp. Needs no escape in JSON.
    pub fn data(self, length: usize) -> String {
        assert!(length >= STAMP_BYTES, "a stamp takes {STAMP_BYTES} bytes");
        let mut data = format!("@{:016x}@{:016x}@", self.sequence, self.due_ns);
        data.extend(std::iter::repeat_n('x', length - STAMP_BYTES));
        data
    }

    /// The first stamp in a message, if it carries one.
    pub fn find(message: &[u8]) -> Option<Stamp> {
        let mut from = 0;
        while let Some(start) = place_of(b'@', &message[from..]) {
            let stamp = message.get(from + start..from + start + STAMP_BYTES)?;
            if let Some(stamp) = Stamp::read(stamp) {
                return Some(stamp);
            }
            from += start + 1;
        }
        None
    }

    fn read(stamp: &[u8]) -> Option<Stamp> {
        let is_bounded = stamp[0] == b'@' && stamp[17] == b'@' && stamp[34] == b'@';
        if !is_bounded {
            return None;
        }
        Some(Stamp {
            sequence: number(&stamp[1..17])?,
            due_ns: number(&stamp[18..34])?,
        })
    }
}

fn place_of(byte: u8, bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|other| *other == byte)
}

fn number(digits: &[u8]) -> Option<u64> {
    let mut number = 0;
    for &digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u64::from(value);
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stamp_is_found_whatever_is_around_it(
            sequence: u64,
            due_ns: u64,
            before in "[ -?A-~]{0,60}@?",
            more in 0_usize..40,
        ) {
            let stamp = Stamp { sequence, due_ns };
            let data = stamp.data(STAMP_BYTES + more);
            prop_assert_eq!(data.len(), STAMP_BYTES + more);
            let message = format!("{before}{data}\"}}");
            prop_assert_eq!(Stamp::find(message.as_bytes()), Some(stamp));
            prop_assert_eq!(Stamp::find(&message.as_bytes()[..before.len() + 34]), None);
        }

        #[test]
        fn other_bytes_are_no_stamp_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(stamp) = Stamp::find(&bytes) {
                let data = stamp.data(STAMP_BYTES);
                prop_assert!(bytes.windows(STAMP_BYTES).any(|window| window == data.as_bytes()));
            }
        }
    }
}
