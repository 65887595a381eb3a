//! When to try again: twice as late after each failure, and never all at the same moment.

/// Later than this a retry is not put off.
const WAIT_MS_MAX: u64 = 60_000;

/// The waits between tries, from a first one; with jitter from a seed.
#[derive(Clone, Debug)]
pub struct Backoff {
    first_ms: u64,
    state: u64,
}

impl Backoff {
    pub fn new(first_ms: u64, seed: u64) -> Backoff {
        Backoff {
            first_ms,
            state: seed,
        }
    }

    /// The wait after so many failures in a row, at least one: between half of the full wait and
    /// all of it.
    pub fn wait_ms(&mut self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1).min(16);
        let full = (self.first_ms << doublings).min(WAIT_MS_MAX);
        full - self.draw() % (full / 2 + 1)
    }

    /// splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_differ() {
        let mut backoff = Backoff::new(1000, 7);
        for (failures, full) in [
            (1, 1000),
            (2, 2000),
            (5, 16_000),
            (9, 60_000),
            (900, 60_000),
        ] {
            let waits: Vec<u64> = (0..50).map(|_| backoff.wait_ms(failures)).collect();
            assert!(
                waits.iter().all(|wait| (full / 2..=full).contains(wait)),
                "{waits:?}"
            );
            assert!(waits.iter().any(|wait| *wait != waits[0]));
        }
    }
}
