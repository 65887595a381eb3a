//! How long things take on one shard: recorded by its thread alone, and told once a second.
//!
//! Each latency is recorded in histograms with a resolution of 1 % (10 KiB each) that nobody else
//! sees: no atomic, some 5 ns a value. Once a second the shard works out a few quantiles and stores
//! them among its [`Metrics`], where another thread reads them without a lock. Buckets in atomics
//! would let readers work out any quantile at any time; they would be as coarse as there are few of
//! them, and a reader would fetch cache lines that the shard is writing.
//!
//! Quantiles speak of the last 30 to 60 seconds, counts and sums of all the time, as summaries do in
//! Prometheus.

use hdrhistogram::Histogram;

use super::limits::{LATENCY_US_MAX, LATENCY_WINDOW_S};
use super::metrics::{LATENCIES, Latency, Metrics, QUANTILES, Summary};

/// The latencies of one shard.
#[derive(Debug)]
pub struct Latencies {
    kinds: [Recorded; LATENCIES],
    /// Scratch: both halves of a window together.
    window: Histogram<u32>,
    /// When the window's newer half began.
    began_s: u32,
}

#[derive(Debug)]
struct Recorded {
    /// The two halves of the window.
    newer: Histogram<u32>,
    older: Histogram<u32>,
    count: u64,
    sum_us: u64,
}

impl Latencies {
    pub fn new(now_s: u32) -> Latencies {
        Latencies {
            kinds: std::array::from_fn(|_| Recorded {
                newer: histogram(),
                older: histogram(),
                count: 0,
                sum_us: 0,
            }),
            window: histogram(),
            began_s: now_s,
        }
    }

    /// Called once for a turn, a lap or a wait, never for a delivery.
    pub fn record(&mut self, latency: Latency, us: u64) {
        let kind = &mut self.kinds[latency as usize];
        // What takes longer than the highest value counts as that.
        kind.newer.saturating_record(us);
        kind.count += 1;
        kind.sum_us += us;
    }

    /// Whether quantiles are known, so that they have to be told anew as time goes by.
    pub fn has_values(&self) -> bool {
        let mut kinds = self.kinds.iter();
        kinds.any(|kind| !kind.newer.is_empty() || !kind.older.is_empty())
    }

    /// Stores what is known among the shard's metrics. Called about once a second.
    pub fn tell(&mut self, now_s: u32, metrics: &Metrics) {
        while now_s - self.began_s >= LATENCY_WINDOW_S / 2 && self.has_values() {
            self.began_s += LATENCY_WINDOW_S / 2;
            for kind in &mut self.kinds {
                std::mem::swap(&mut kind.newer, &mut kind.older);
                kind.newer.reset();
            }
        }
        if !self.has_values() {
            self.began_s = now_s;
        }
        for latency in Latency::ALL {
            let kind = &self.kinds[latency as usize];
            self.window.reset();
            for half in [&kind.newer, &kind.older] {
                self.window
                    .add(half)
                    .expect("all histograms have the same bounds");
            }
            let quantile =
                |at| (!self.window.is_empty()).then(|| self.window.value_at_quantile(at));
            let summary = Summary {
                quantiles_us: QUANTILES.map(quantile),
                count: kind.count,
                sum_us: kind.sum_us,
            };
            metrics.set_summary(latency, &summary);
        }
    }
}

fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 2).expect("the bounds are in order")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The median and the maximum that are told, in microseconds.
    fn told(latencies: &mut Latencies, now_s: u32) -> Option<(u64, u64)> {
        let metrics = Metrics::default();
        latencies.tell(now_s, &metrics);
        let summary = metrics.summary(Latency::Lap);
        Some((summary.quantiles_us[0]?, summary.quantiles_us[4]?))
    }

    #[test]
    fn quantiles_are_right_to_a_hundredth() {
        let mut latencies = Latencies::new(0);
        for us in 1..=10_000 {
            latencies.record(Latency::Lap, us);
        }
        let (median, longest) = told(&mut latencies, 1).unwrap();
        assert!(median.abs_diff(5_000) <= 50, "{median}");
        assert!(longest.abs_diff(10_000) <= 100, "{longest}");
    }

    #[test]
    fn quantiles_forget_and_counts_do_not() {
        let mut latencies = Latencies::new(0);
        latencies.record(Latency::Lap, 100);
        assert_eq!(told(&mut latencies, 29), Some((100, 100)));
        latencies.record(Latency::Lap, 10);
        assert_eq!(told(&mut latencies, 30), Some((10, 100)));
        latencies.record(Latency::Lap, 10);
        assert_eq!(told(&mut latencies, 60), Some((10, 10)));
        assert_eq!(told(&mut latencies, 1_000), None);
        assert!(!latencies.has_values());
        let metrics = Metrics::default();
        latencies.tell(1_001, &metrics);
        assert_eq!(metrics.summary(Latency::Lap).count, 3);
        assert_eq!(metrics.summary(Latency::Lap).sum_us, 120);
    }

    #[test]
    fn what_takes_for_ever_counts_as_the_longest_time_there_is() {
        let mut latencies = Latencies::new(0);
        latencies.record(Latency::Lap, u64::MAX / 2);
        let (_, longest) = told(&mut latencies, 1).unwrap();
        assert!(longest >= LATENCY_US_MAX);
    }
}
