//! Finds the knee of a server: carries out what a [`Course`] says, steps on the way and one for longer that confirms.

use std::io;

use super::conclusion::Measured;
use super::course::{Ahead, Course, Tried};
use super::knee::How;
use super::record::Record;
use super::settings;
use super::stand::Stand;
use super::step::{self, Offer};
use crate::load::result::StepKind;

/// Deliveries a second that every server of this field makes: where the search starts.
const DELIVERIES_AT_FIRST: f64 = 200_000.0;
/// Publishes a second to start with at most, however few subscribers there are.
const PUBLISHES_AT_FIRST_MAX: f64 = 1_000.0;
/// What is sustained is found less exactly than the knee, and confirmed for so long at most.
const SUSTAINED_PRECISION: f64 = 1.25;
const SUSTAINED_SECONDS_MAX: f64 = 8.0;

/// The knee in messages a second, confirmed; its step is marked. None if there is none, or if the
/// run has failed.
pub fn find_knee(
    stand: &mut Stand,
    record: &mut Record,
    subscribers: u64,
    search: &settings::Search,
    confirm_seconds: f64,
) -> io::Result<Option<f64>> {
    let per_message = subscribers as f64 / stand.channels as f64;
    let first = search.from_rate.unwrap_or_else(|| {
        let rate = DELIVERIES_AT_FIRST / per_message;
        rate.clamp(1.0, PUBLISHES_AT_FIRST_MAX).round()
    });
    let wanted = Wanted::knee(search, subscribers, first, confirm_seconds);
    match wanted.find(stand, record)? {
        Found::Rate {
            per_second,
            is_lower_bound,
        } => {
            record.mark_knee(is_lower_bound);
            Ok(Some(per_second))
        }
        Found::Nothing { generators_fault } => {
            if let Some(why) = generators_fault {
                record.say_invalid(why);
            }
            Ok(None)
        }
        Found::Failure => Ok(None),
    }
}

/// A search for what is sustained may have met rates above the knee that keep the knee's limit all the same: p99 wavers,
/// and need not grow with the rate. Then the knee is looked for again, from there, and moves if a higher one is confirmed.
pub fn revisit_knee(
    stand: &mut Stand,
    record: &mut Record,
    subscribers: u64,
    search: &settings::Search,
    confirm_seconds: f64,
) -> io::Result<()> {
    let Some(knee) = record.knee_per_s() else {
        return Ok(());
    };
    let higher = record.highest_whole(search.p99_ms_max);
    let Some(first) = higher.filter(|rate| *rate > knee * search.precision) else {
        return Ok(());
    };
    let wanted = Wanted::knee(search, subscribers, first, confirm_seconds);
    match wanted.find(stand, record)? {
        Found::Rate {
            per_second,
            is_lower_bound,
        } if per_second > knee => record.mark_knee(is_lower_bound),
        Found::Rate { .. } | Found::Nothing { .. } | Found::Failure => {}
    }
    Ok(())
}

/// The highest rate at which nothing is lost, though p99 is beyond the knee's limit; its step is marked. If none is
/// confirmed there is none to tell, whoever's fault that was.
pub fn find_sustained(
    stand: &mut Stand,
    record: &mut Record,
    subscribers: u64,
    search: &settings::Search,
    seconds: f64,
) -> io::Result<()> {
    let p99_ms_max = search.sustained_p99_ms_max;
    let Some(first) = record.highest_whole(p99_ms_max) else {
        return Ok(());
    };
    let wanted = Wanted {
        p99_ms_max,
        subscribers,
        first,
        factor: search.factor,
        precision: search.precision.max(SUSTAINED_PRECISION),
        step_seconds: search.step_seconds,
        confirm_seconds: seconds.min(SUSTAINED_SECONDS_MAX),
    };
    match wanted.find(stand, record)? {
        Found::Rate { is_lower_bound, .. } => record.mark_sustained(is_lower_bound),
        Found::Nothing { .. } | Found::Failure => {}
    }
    Ok(())
}

/// What a search is to find: the highest rate whose p99 is not above so much, and nothing lost.
struct Wanted {
    p99_ms_max: f64,
    subscribers: u64,
    first: f64,
    factor: f64,
    precision: f64,
    step_seconds: f64,
    confirm_seconds: f64,
}

enum Found {
    /// Confirmed, by the last step.
    Rate {
        per_second: f64,
        is_lower_bound: bool,
    },
    Nothing {
        generators_fault: Option<String>,
    },
    /// The server did what nothing excuses.
    Failure,
}

impl Wanted {
    fn knee(
        search: &settings::Search,
        subscribers: u64,
        first: f64,
        confirm_seconds: f64,
    ) -> Wanted {
        Wanted {
            p99_ms_max: search.p99_ms_max,
            subscribers,
            first,
            factor: search.factor,
            precision: search.precision,
            step_seconds: search.step_seconds,
            confirm_seconds,
        }
    }

    fn find(&self, stand: &mut Stand, record: &mut Record) -> io::Result<Found> {
        let mut course = Course::new(self.first, self.factor, self.precision);
        loop {
            let (kind, rate) = match course.ahead() {
                Ahead::Try { kind, rate } => (kind, rate),
                Ahead::Found {
                    rate,
                    is_lower_bound,
                } => {
                    return Ok(Found::Rate {
                        per_second: rate,
                        is_lower_bound,
                    });
                }
                Ahead::Nothing { generators_fault } => {
                    return Ok(Found::Nothing { generators_fault });
                }
            };
            let tried = self.attempt(stand, record, kind, rate)?;
            if record.has_failed() {
                return Ok(Found::Failure);
            }
            course.note(tried);
        }
    }

    /// One step, all clients there again after it.
    fn attempt(
        &self,
        stand: &mut Stand,
        record: &mut Record,
        kind: StepKind,
        rate: f64,
    ) -> io::Result<Tried> {
        let offer = Offer {
            kind,
            per_second: Some(rate),
            seconds: match kind {
                StepKind::Confirm => self.confirm_seconds,
                StepKind::Search | StepKind::Fixed | StepKind::Share { .. } => self.step_seconds,
            },
            p99_ms_max: Some(self.p99_ms_max),
            drain_seconds: None,
            subscribers: self.subscribers,
        };
        let measured = step::measure(stand, &offer, record)?;
        let tried = Tried {
            how: how(&measured),
            generators_fault: measured.invalid().map(str::to_owned),
        };
        let closed = measured.step.disorder.closed;
        record.push_on_the_way(measured);
        if !record.has_failed() {
            reopen(stand, record, closed)?;
        }
        Ok(tried)
    }
}

fn how(measured: &Measured) -> How {
    match (measured.is_kept(), measured.is_near) {
        (true, _) => How::Kept,
        (false, true) => How::Near,
        (false, false) => How::Missed,
    }
}

/// A server may have ended connections that were too slow for it; the next step has all of them.
fn reopen(stand: &mut Stand, record: &mut Record, closed: u64) -> io::Result<()> {
    if closed > 0 {
        stand.open_all(record)?;
    }
    Ok(())
}
