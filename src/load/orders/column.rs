//! Many times in few bytes: neighbours differ by little, so only the differences are written.
//!
//! In JSON it is a text: base64 of the differences, the lowest seven bits first, with the sign in the lowest bit
//! (LEB128 and zigzag, as Protocol Buffers have them). A run of a hundred thousand messages then takes some 300 KB
//! instead of 2 MB.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column(pub Vec<u64>);

impl Column {
    /// Joins two columns entry by entry; where one is shorter, its entries count as 0.
    pub fn merge(&mut self, other: &Column, join: impl Fn(u64, u64) -> u64) {
        let length = self.0.len().max(other.0.len());
        self.0.resize(length, 0);
        let others = other.0.iter().copied().chain(std::iter::repeat(0));
        for (mine, other) in self.0.iter_mut().zip(others) {
            *mine = join(*mine, other);
        }
    }
}

impl Serialize for Column {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(4 * self.0.len());
        let mut before = 0_u64;
        for &value in &self.0 {
            let difference = value.wrapping_sub(before) as i64;
            append(&mut bytes, ((difference << 1) ^ (difference >> 63)) as u64);
            before = value;
        }
        serializer.serialize_str(&STANDARD_NO_PAD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Column {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Column, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD_NO_PAD
            .decode(text)
            .map_err(|error| de::Error::custom(error.to_string()))?;
        let mut values = Vec::new();
        let mut before = 0_u64;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let zigzag = first(&mut rest).ok_or_else(|| de::Error::custom("a number is cut"))?;
            let difference = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
            before = before.wrapping_add(difference as u64);
            values.push(before);
        }
        Ok(Column(values))
    }
}

fn append(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes the first number off; `None` if it does not end.
fn first(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (place, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            *bytes = &bytes[place + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(values in prop::collection::vec(any::<u64>(), 0..100)) {
            let column = Column(values);
            let text = serde_json::to_string(&column).unwrap();
            prop_assert_eq!(serde_json::from_str::<Column>(&text).unwrap(), column);
        }

        #[test]
        fn what_is_no_column_is_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = serde_json::to_string(&STANDARD_NO_PAD.encode(&bytes)).unwrap();
            let read = serde_json::from_str::<Column>(&text);
            let is_cut = bytes.last().is_some_and(|last| last & 0x80 != 0);
            prop_assert!(!is_cut || read.is_err());
        }
    }

    #[test]
    fn neighbours_take_few_bytes() {
        let column = Column(
            (0..1_000)
                .map(|i| 5_000_000_000_000 + i * 200_000)
                .collect(),
        );
        assert!(serde_json::to_string(&column).unwrap().len() < 4_100);
    }

    #[test]
    fn a_short_column_is_joined_as_if_it_ended_in_zeros() {
        let mut one = Column(vec![1, 2]);
        one.merge(&Column(vec![5, 1, 7]), u64::max);
        assert_eq!(one, Column(vec![5, 2, 7]));
    }
}
