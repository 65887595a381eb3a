//! The search for the knee: the highest rate that is kept. Upwards by a factor until a rate is not
//! kept, then halves of what is left, by ratio.
//!
//! A rate that is missed by little is tried again before that is believed: other guests of the machine make p99 waver. And
//! p99 need not grow with the rate: a server that sends several messages to a subscriber at once is as late at ten times
//! the load. So above a rate that was twice missed by little, higher ones are looked at before the search goes down. Nor is
//! it sent down by the first rate alone, before anything is known: that has to be missed twice, by however much.
//!
//! ```text
//! climbing --kept--> climbing, twice as high       climbing --missed--> halving (if one was kept)
//! climbing --missed--> falling, half as high       falling --kept--> halving
//! any --near--> the same again                     climbing --near twice--> looking up
//! looking up --kept--> climbing                    looking up --missed, or near often enough--> halving or falling
//! halving --kept or missed--> halving, until the rates are within the precision --> found
//! falling --below the lowest rate--> none
//! ```

/// So many higher rates are looked at when one was missed by little.
const LOOKS_UP_MAX: u32 = 2;
/// Nobody asks for less than a message in so many seconds.
const RATE_LEAST: f64 = 0.1;

#[derive(Clone, Debug)]
pub struct Search {
    next: f64,
    /// The highest rate that was kept, and the lowest above it that was not.
    kept: Option<f64>,
    missed: Option<f64>,
    /// The rate that was missed by little, twice, while higher ones are looked at.
    doubtful: Option<f64>,
    looks_up: u32,
    /// The next rate was tried already, and missed by little.
    is_again: bool,
    /// Each rate is so many times the one before, on the way up and down.
    factor: f64,
    precision: f64,
}

/// How a rate went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Kept,
    /// Missed by so little that it may be noise.
    Near,
    Missed,
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
    pub fn new(first: f64, factor: f64, precision: f64) -> Search {
        Search {
            next: first,
            kept: None,
            missed: None,
            doubtful: None,
            looks_up: 0,
            is_again: false,
            factor: factor.max(1.1),
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
    pub fn note(&mut self, how: How) {
        let rate = self.next;
        match how {
            How::Near if !self.is_again => {
                self.is_again = true;
                return;
            }
            How::Missed if !self.is_again && self.kept.is_none() && self.missed.is_none() => {
                self.is_again = true;
                return;
            }
            How::Near if self.missed.is_none() && self.looks_up < LOOKS_UP_MAX => {
                self.doubtful.get_or_insert(rate);
                self.looks_up += 1;
                self.next = round(rate * self.factor);
                return;
            }
            How::Kept => {
                self.kept = Some(rate);
                self.doubtful = None;
                self.looks_up = 0;
            }
            How::Near | How::Missed => self.missed = Some(self.doubtful.take().unwrap_or(rate)),
        }
        self.is_again = false;
        self.next = match (self.kept, self.missed) {
            (Some(kept), Some(missed)) => round((kept * missed).sqrt()),
            (Some(kept), None) => round(kept * self.factor),
            (None, Some(missed)) => round(missed / self.factor),
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
        let kept = |rate: f64| match rate <= knee {
            true => How::Kept,
            false => How::Missed,
        };
        follow(first, kept)
    }

    fn follow(first: f64, mut how: impl FnMut(f64) -> How) -> (Next, usize) {
        let mut search = Search::new(first, 2.0, 1.1);
        for steps in 0..100 {
            match search.next() {
                Next::Try(rate) => search.note(how(rate)),
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
    fn a_miss_by_little_is_tried_again_and_looked_beyond() {
        // Every second try of anything up to the knee is a little late.
        let mut tries = 0;
        let wavering = |rate: f64| {
            tries += 1;
            match rate <= 700.0 {
                true if tries % 2 == 1 => How::Near,
                true => How::Kept,
                false => How::Missed,
            }
        };
        let Next::Found { knee, .. } = follow(20.0, wavering).0 else {
            panic!("no knee");
        };
        assert!((640.0..=700.0).contains(&knee), "{knee}");
        // p99 is at the limit from 30 to 100 a second, and below it up to 700.
        let hump = |rate: f64| match rate {
            30.0..100.0 => How::Near,
            rate if rate <= 700.0 => How::Kept,
            _ => How::Missed,
        };
        let Next::Found { knee, .. } = follow(20.0, hump).0 else {
            panic!("no knee");
        };
        assert!((640.0..=700.0).contains(&knee), "{knee}");
        // It never gets better: the knee lies below what was doubtful.
        let flat = |rate: f64| match rate <= 25.0 {
            true => How::Kept,
            false => How::Near,
        };
        let (Next::Found { knee, missed }, steps) = follow(20.0, flat) else {
            panic!("no knee");
        };
        assert!(knee <= 25.0 && missed > 25.0, "{knee} {missed}");
        assert!(steps < 16, "{steps}");
    }

    #[test]
    fn a_first_rate_that_is_missed_once_sends_nobody_down() {
        let mut is_first = true;
        let disturbed = |rate: f64| match rate <= 700.0 && !std::mem::take(&mut is_first) {
            true => How::Kept,
            false => How::Missed,
        };
        let (Next::Found { knee, .. }, steps) = follow(20.0, disturbed) else {
            panic!("no knee");
        };
        assert!((640.0..=700.0).contains(&knee), "{knee}");
        assert!(steps <= 12, "{steps}");
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
