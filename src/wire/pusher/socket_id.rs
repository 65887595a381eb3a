//! The name of a connection, as its client and the publishers know it.

use std::fmt;
use std::str::FromStr;

/// Names a connection to its client and to the publishers who leave it out. Reads `first.second`
/// in decimal: the server libraries accept digits, a dot and digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    pub first: u64,
    pub second: u64,
}

impl fmt::Display for SocketId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.first, self.second)
    }
}

impl FromStr for SocketId {
    type Err = InvalidSocketId;

    fn from_str(text: &str) -> Result<Self, InvalidSocketId> {
        let (first, second) = text.split_once('.').ok_or(InvalidSocketId)?;
        Ok(Self {
            first: parse_digits(first)?,
            second: parse_digits(second)?,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSocketId;

impl fmt::Display for InvalidSocketId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Invalid socket id")
    }
}

impl std::error::Error for InvalidSocketId {}

fn parse_digits(text: &str) -> Result<u64, InvalidSocketId> {
    // The number parser alone would take a sign.
    if !is_digits(text) {
        return Err(InvalidSocketId);
    }
    text.parse().map_err(|_| InvalidSocketId)
}

pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_socket_id_is_digits_a_dot_and_digits() {
        assert_eq!(
            "123.456".parse(),
            Ok(SocketId {
                first: 123,
                second: 456
            })
        );
        for text in [
            "",
            ".",
            "1",
            "1.",
            ".1",
            "1.2.3",
            "+1.2",
            "1.-2",
            " 1.2",
            "1.2 ",
            "1.2\n",
            "a.b",
            "1.٣",
            "1.18446744073709551616",
        ] {
            assert_eq!(text.parse::<SocketId>(), Err(InvalidSocketId), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_socket_id_reads_back_the_same(first: u64, second: u64) {
            let id = SocketId { first, second };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn random_text_never_panics(text in any::<String>()) {
            text.parse::<SocketId>().ok();
        }
    }
}
