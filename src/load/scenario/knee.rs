//! The search for the knee: the highest rate that is kept. Upwards by a factor until a rate is not
//! kept, then halves of what is left, by ratio.
//!
//! ```text
//! climbing --kept--> climbing, twice as high       climbing --missed--> halving (if one was kept)
//! climbing --missed--> falling, half as high       falling --kept--> halving
//! halving --kept or missed--> halving, until the rates are within the precision --> found
//! falling --below the lowest rate--> none
//! ```

/// Each rate is so many times the one before, on the way up and down.
const FACTOR: f64 = 2.0;
/// Nobody asks for less than a message in so many seconds.
const RATE_LEAST: f64 = 0.1;

#[derive(Clone, Debug)]
pub struct Search {
    next: f64,
    /// The highest rate that was kept, and the lowest above it that was not.
    kept: Option<f64>,
    missed: Option<f64>,
    precision: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    Try(f64),
    /// The knee, and the lowest rate above it that was not kept.
    Found {
        knee: f64,
        missed: f64,
    },
    /// Not even the lowest rate was kept.
    Nothing,
}

impl Search {
    pub fn new(first: f64, precision: f64) -> Search {
        Search {
            next: first,
            kept: None,
            missed: None,
            precision: precision.max(1.01),
        }
    }

    pub fn next(&self) -> Next {
        match (self.kept, self.missed) {
            (Some(knee), Some(missed)) if missed <= knee * self.precision => {
                Next::Found { knee, missed }
            }
            (None, Some(_)) if self.next < RATE_LEAST => Next::Nothing,
            (_, _) => Next::Try(self.next),
        }
    }

    /// How the rate of [`Next::Try`] went.
    pub fn note(&mut self, is_kept: bool) {
        match is_kept {
            true => self.kept = Some(self.next),
            false => self.missed = Some(self.next),
        }
        self.next = match (self.kept, self.missed) {
            (Some(kept), Some(missed)) => round((kept * missed).sqrt()),
            (Some(kept), None) => round(kept * FACTOR),
            (None, Some(missed)) => round(missed / FACTOR),
            (None, None) => self.next,
        };
    }

    /// The knee was not kept when it was tried again, for longer: somewhat less may be.
    pub fn note_not_confirmed(&mut self, knee: f64) -> f64 {
        self.missed = Some(knee);
        round(knee / self.precision)
    }
}

/// To three digits: a rate that people can read.
fn round(rate: f64) -> f64 {
    let digits = 10_f64.powf(2.0 - rate.log10().floor());
    (rate * digits).round() / digits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches for the knee of a server that keeps `knee`; returns it and how many steps it took.
    fn search(knee: f64, first: f64) -> (Next, usize) {
        let mut search = Search::new(first, 1.1);
        for steps in 0..100 {
            match search.next() {
                Next::Try(rate) => search.note(rate <= knee),
                over => return (over, steps),
            }
        }
        panic!("the search does not end");
    }

    #[test]
    fn the_knee_is_found_from_below_and_from_above() {
        for knee in [0.5, 3.0, 20.0, 333.0, 700.0, 45_678.0] {
            for first in [0.2, 20.0, 1_000.0, 100_000.0] {
                let (found, steps) = search(knee, first);
                let Next::Found { knee: low, missed } = found else {
                    panic!("{knee} from {first}: {found:?}");
                };
                assert!(low <= knee && knee < missed && missed <= low * 1.1);
                assert!(steps < 30, "{knee} from {first}: {steps} steps");
            }
        }
        assert!(search(700.0, 20.0).1 <= 11);
    }

    #[test]
    fn a_server_that_keeps_nothing_has_no_knee() {
        assert_eq!(search(0.0, 20.0).0, Next::Nothing);
    }

    #[test]
    fn rates_have_three_digits() {
        assert_eq!(
            [round(1_234.5), round(0.123_45), round(99.96)],
            [1_230.0, 0.123, 100.0]
        );
    }
}
