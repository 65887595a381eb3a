//! The course of a search: its steps, and the attempts for longer that confirm what they found. It knows what was tried and
//! how that went, says what is to be offered next, and in the end what was found. Nothing is measured here.
//!
//! A rate that is not kept for the generator's sake is one that the server may have kept. The search goes on as if it had been
//! missed, for there is nothing else to offer, and what it finds below is a lower bound.
//!
//! ```text
//! stepping --found--> confirming                stepping --nothing kept--> over: nothing
//! confirming --kept--> over: a rate             confirming --near--> the same again
//! confirming --missed, or near twice--> confirming somewhat less, or over: nothing
//! ```

use super::knee::{How, Next, Search};
use crate::load::result::StepKind;

/// How often a knee is tried for longer, with somewhat less each time that it was clearly not confirmed.
const CONFIRMATIONS_MAX: usize = 5;

pub struct Course {
    steps: Search,
    confirmation: Option<Confirmation>,
    /// What was not kept, in the order of time.
    failed: Vec<Attempt>,
    found: Option<f64>,
}

struct Confirmation {
    rate: f64,
    attempts: usize,
    /// The rate was tried for longer already, and missed by little.
    is_again: bool,
}

/// A rate that was not kept, and why if that was the generator's fault.
struct Attempt {
    rate: f64,
    generators_fault: Option<String>,
}

/// How an attempt went.
#[derive(Clone, Debug)]
pub struct Tried {
    pub how: How,
    /// Why the generator was not fit, if it was not.
    pub generators_fault: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Ahead {
    Try {
        kind: StepKind,
        rate: f64,
    },
    /// The rate of the last attempt is confirmed.
    Found {
        rate: f64,
        /// The lowest rate above it that was not kept was too much for the generator, and perhaps not for the server.
        is_lower_bound: bool,
    },
    Nothing {
        /// Why the rate that was tried last was not kept, if that was the generator's fault.
        generators_fault: Option<String>,
    },
}

impl Course {
    pub fn new(first: f64, factor: f64, precision: f64) -> Course {
        Course {
            steps: Search::new(first, factor, precision),
            confirmation: None,
            failed: Vec::new(),
            found: None,
        }
    }

    pub fn ahead(&self) -> Ahead {
        if let Some(rate) = self.found {
            return Ahead::Found {
                rate,
                is_lower_bound: self.is_bounded_by_generator(rate),
            };
        }
        match (&self.confirmation, self.steps.next()) {
            (Some(confirmation), _) if confirmation.attempts < CONFIRMATIONS_MAX => Ahead::Try {
                kind: StepKind::Confirm,
                rate: confirmation.rate,
            },
            (None, Next::Try(rate)) => Ahead::Try {
                kind: StepKind::Search,
                rate,
            },
            (None, Next::Found { knee, .. }) => Ahead::Try {
                kind: StepKind::Confirm,
                rate: knee,
            },
            (Some(_), _) | (None, Next::Nothing) => Ahead::Nothing {
                generators_fault: self
                    .failed
                    .last()
                    .and_then(|attempt| attempt.generators_fault.clone()),
            },
        }
    }

    /// How the attempt went that lay ahead.
    pub fn note(&mut self, tried: Tried) {
        let Ahead::Try { kind, rate } = self.ahead() else {
            unreachable!("what is over is not tried");
        };
        if tried.how != How::Kept {
            self.failed.push(Attempt {
                rate,
                generators_fault: tried.generators_fault,
            });
        }
        match kind {
            StepKind::Search => self.steps.note(tried.how),
            StepKind::Confirm => self.note_confirmation(rate, tried.how),
            StepKind::Fixed | StepKind::Share { .. } => {
                unreachable!("a course has steps and confirmations")
            }
        }
    }

    fn note_confirmation(&mut self, rate: f64, how: How) {
        let before = self.confirmation.take();
        let (attempts, is_again) = before.map_or((0, false), |confirmation| {
            (confirmation.attempts, confirmation.is_again)
        });
        let (rate, is_again) = match how {
            How::Kept => {
                self.found = Some(rate);
                return;
            }
            How::Near if !is_again => (rate, true),
            How::Near | How::Missed => (self.steps.note_not_confirmed(rate), false),
        };
        self.confirmation = Some(Confirmation {
            rate,
            attempts: attempts + 1,
            is_again,
        });
    }

    /// A rate that the server missed once, with a generator that was fit, is the server's limit.
    fn is_bounded_by_generator(&self, found: f64) -> bool {
        let above = self.failed.iter().filter(|attempt| attempt.rate > found);
        let lowest = above
            .clone()
            .map(|attempt| attempt.rate)
            .reduce(f64::min)
            .unwrap_or(found);
        let mut at_lowest = above.filter(|attempt| attempt.rate == lowest).peekable();
        at_lowest.peek().is_some() && at_lowest.all(|attempt| attempt.generators_fault.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: &str = "the generator took 97 % of core 1, more than 95 %";

    fn kept() -> Tried {
        Tried {
            how: How::Kept,
            generators_fault: None,
        }
    }

    fn near() -> Tried {
        Tried {
            how: How::Near,
            generators_fault: None,
        }
    }

    fn missed() -> Tried {
        Tried {
            how: How::Missed,
            generators_fault: None,
        }
    }

    fn invalid() -> Tried {
        Tried {
            how: How::Missed,
            generators_fault: Some(FAULT.to_owned()),
        }
    }

    /// Follows a course from 100, doubling, to a precision of 1.1; gives its end and what was confirmed on the way.
    fn follow(mut how: impl FnMut(StepKind, f64) -> Tried) -> (Ahead, Vec<f64>) {
        let mut course = Course::new(100.0, 2.0, 1.1);
        let mut confirmed = Vec::new();
        for _ in 0..100 {
            match course.ahead() {
                Ahead::Try { kind, rate } => {
                    if kind == StepKind::Confirm {
                        confirmed.push(rate);
                    }
                    course.note(how(kind, rate));
                }
                over @ (Ahead::Found { .. } | Ahead::Nothing { .. }) => return (over, confirmed),
            }
        }
        panic!("the course does not end");
    }

    #[track_caller]
    fn assert_found(over: &Ahead, at_most: f64, expected: bool) {
        let Ahead::Found {
            rate,
            is_lower_bound,
        } = over
        else {
            panic!("{over:?}");
        };
        assert!(*rate <= at_most && *rate * 1.1 * 1.1 >= at_most, "{rate}");
        assert_eq!(*is_lower_bound, expected);
    }

    #[test]
    fn what_the_steps_found_is_confirmed_and_the_servers() {
        let (over, confirmed) = follow(|_, rate| match rate <= 700.0 {
            true => kept(),
            false => missed(),
        });
        assert_found(&over, 700.0, false);
        assert_eq!(confirmed.len(), 1);
    }

    #[test]
    fn what_is_not_confirmed_goes_lower_and_what_is_near_is_tried_twice() {
        let (over, confirmed) = follow(|kind, rate| match rate <= 600.0 {
            true => kept(),
            false if kind == StepKind::Search && rate <= 700.0 => kept(),
            false => missed(),
        });
        assert_found(&over, 600.0, false);
        assert!(confirmed.len() > 1 && confirmed.is_sorted_by(|one, other| one > other));
        let mut confirmations = 0;
        let (over, confirmed) = follow(|kind, rate| {
            confirmations += usize::from(kind == StepKind::Confirm);
            match rate <= 700.0 {
                true if kind == StepKind::Confirm && confirmations == 1 => near(),
                true => kept(),
                false => missed(),
            }
        });
        assert_found(&over, 700.0, false);
        assert!(matches!(confirmed.as_slice(), [one, other] if one == other));
    }

    #[test]
    fn what_is_never_confirmed_is_nothing_after_so_many_attempts() {
        for (tried, fault) in [(missed(), None), (invalid(), Some(FAULT.to_owned()))] {
            let (over, confirmed) = follow(|kind, rate| match rate <= 700.0 {
                true if kind == StepKind::Confirm => tried.clone(),
                true => kept(),
                false => missed(),
            });
            let expected = Ahead::Nothing {
                generators_fault: fault,
            };
            assert_eq!(over, expected);
            assert_eq!(confirmed.len(), CONFIRMATIONS_MAX);
        }
    }

    #[test]
    fn a_generator_that_ends_the_search_makes_a_lower_bound() {
        let (over, _) = follow(|_, rate| match rate <= 700.0 {
            true => kept(),
            false => invalid(),
        });
        assert_found(&over, 700.0, true);
        // It could not offer more than 700, and the server is known to miss 1,000: between them nothing is known.
        let (over, _) = follow(|_, rate| match rate {
            _ if rate <= 700.0 => kept(),
            _ if rate <= 1_000.0 => invalid(),
            _ => missed(),
        });
        assert_found(&over, 700.0, true);
        // The generator had trouble far above what the server misses.
        let (over, _) = follow(|_, rate| match rate {
            _ if rate <= 700.0 => kept(),
            _ if rate <= 1_000.0 => missed(),
            _ => invalid(),
        });
        assert_found(&over, 700.0, false);
    }

    #[test]
    fn a_confirmation_that_the_generator_spoilt_makes_a_lower_bound() {
        let mut confirmations = 0;
        let (over, confirmed) = follow(|kind, rate| {
            confirmations += usize::from(kind == StepKind::Confirm);
            match rate <= 700.0 {
                true if kind == StepKind::Confirm && confirmations == 1 => invalid(),
                true => kept(),
                false => missed(),
            }
        });
        let [spoilt, found] = confirmed.as_slice() else {
            panic!("{confirmed:?}");
        };
        assert!(found < spoilt);
        let expected = Ahead::Found {
            rate: *found,
            is_lower_bound: true,
        };
        assert_eq!(over, expected);
    }

    #[test]
    fn a_rate_that_the_server_missed_too_is_the_servers_limit() {
        // Each rate above 700 is missed by little twice: once by the generator's fault, once by the server's.
        let mut tries = 0;
        let (over, _) = follow(|_, rate| match rate <= 700.0 {
            true => kept(),
            false => {
                tries += 1;
                Tried {
                    how: How::Near,
                    generators_fault: (tries % 2 == 1).then(|| FAULT.to_owned()),
                }
            }
        });
        assert_found(&over, 700.0, false);
    }

    #[test]
    fn a_search_that_finds_nothing_says_whether_the_generator_was_fit() {
        for (tried, fault) in [(missed(), None), (invalid(), Some(FAULT.to_owned()))] {
            let (over, confirmed) = follow(|_, _| tried.clone());
            let expected = Ahead::Nothing {
                generators_fault: fault,
            };
            assert_eq!(over, expected);
            assert!(confirmed.is_empty());
        }
    }
}
