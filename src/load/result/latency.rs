//! A histogram of latencies in microseconds: recorded, added up, asked for quantiles, and kept whole in JSON.
//!
//! In JSON it is a text: HdrHistogram's V2 encoding, not compressed, in base64. So every tool that reads
//! HdrHistogram reads it, and histograms of several runs can be added where their percentiles could not.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize, de, ser};

/// Latencies between 1 us and [`LatencyHistogram::US_MAX`], right to a thousandth.
#[derive(Clone, PartialEq)]
pub struct LatencyHistogram(Histogram<u64>);

impl LatencyHistogram {
    /// An hour. What takes longer counts as that.
    pub const US_MAX: u64 = 3_600_000_000;
    const SIGNIFICANT_DIGITS: u8 = 3;

    pub fn new() -> LatencyHistogram {
        let histogram = Histogram::new_with_bounds(1, Self::US_MAX, Self::SIGNIFICANT_DIGITS);
        LatencyHistogram(histogram.expect("the bounds are in order"))
    }

    pub fn record_us(&mut self, us: u64) {
        self.record_many_us(us, 1);
    }

    pub fn record_many_us(&mut self, us: u64, count: u64) {
        self.0.saturating_record_n(us.min(Self::US_MAX), count);
    }

    /// Takes in what another one recorded.
    pub fn add(&mut self, other: &LatencyHistogram) {
        self.0
            .add(&other.0)
            .expect("a histogram that was read has no value above the hour");
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The latency that a share of `quantile` (0.99 for p99) does not exceed; none of none.
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        (!self.is_empty()).then(|| self.0.value_at_quantile(quantile))
    }

    pub fn mean_us(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.0.mean())
    }

    pub fn max_us(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.0.max())
    }

    /// The histogram itself, for those who walk over its values.
    pub fn values(&self) -> &Histogram<u64> {
        &self.0
    }

    fn to_base64(&self) -> Result<String, String> {
        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(&self.0, &mut bytes)
            .map_err(|error| error.to_string())?;
        Ok(STANDARD.encode(bytes))
    }

    fn from_base64(text: &str) -> Result<LatencyHistogram, String> {
        let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
        let read: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| format!("no histogram: {error}"))?;
        // Into bounds of our own: those that were read may hold more than the hour, or less.
        let mut latencies = LatencyHistogram::new();
        for step in read.iter_recorded() {
            latencies.record_many_us(step.value_iterated_to(), step.count_at_value());
        }
        Ok(latencies)
    }
}

/// Its count and ends: its values would fill pages.
impl fmt::Debug for LatencyHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} latencies", self.count())?;
        match (self.quantile_us(0.5), self.max_us()) {
            (Some(p50), Some(max)) => write!(f, " (p50 {p50} us, longest {max} us)"),
            (None, _) | (_, None) => Ok(()),
        }
    }
}

impl Default for LatencyHistogram {
    fn default() -> LatencyHistogram {
        LatencyHistogram::new()
    }
}

impl Serialize for LatencyHistogram {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.to_base64().map_err(ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for LatencyHistogram {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        LatencyHistogram::from_base64(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(values in prop::collection::vec(0u64..10_000_000_000, 0..200)) {
            let mut written = LatencyHistogram::new();
            for value in values {
                written.record_us(value);
            }
            let text = serde_json::to_string(&written).unwrap();
            let read: LatencyHistogram = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read, written);
        }

        #[test]
        fn what_is_no_histogram_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let text = serde_json::to_string(&STANDARD.encode(bytes)).unwrap();
            prop_assert!(serde_json::from_str::<LatencyHistogram>(&text).is_err());
        }
    }

    #[test]
    fn quantiles_are_right_to_a_thousandth() {
        let mut latencies = LatencyHistogram::new();
        assert_eq!(latencies.quantile_us(0.5), None);
        for us in 1..=100_000 {
            latencies.record_us(us);
        }
        for (quantile, expected_us) in [(0.5, 50_000), (0.99, 99_000), (0.999, 99_900)] {
            let us = latencies.quantile_us(quantile).unwrap();
            assert!(us.abs_diff(expected_us) <= expected_us / 1000, "{us}");
        }
    }

    #[test]
    fn two_halves_make_the_whole() {
        let (mut half, mut whole) = (LatencyHistogram::new(), LatencyHistogram::new());
        let mut other = half.clone();
        for us in 1..1_000 {
            whole.record_us(us);
            if us % 2 == 0 {
                half.record_us(us);
            } else {
                other.record_us(us);
            }
        }
        half.add(&other);
        assert_eq!(half, whole);
    }
}
