//! Finds the knee of a server: steps on the way, and one for longer that confirms it.

use std::io;

use super::knee::{self, Next};
use super::record::Record;
use super::settings;
use super::stand::Stand;
use super::step::{self, Offer};
use crate::load::result::StepKind;

/// Deliveries a second that every server of this field makes: where the search starts.
const DELIVERIES_AT_FIRST: f64 = 200_000.0;
/// Publishes a second to start with at most, however few subscribers there are.
const PUBLISHES_AT_FIRST_MAX: f64 = 1_000.0;
/// How often a knee that was not confirmed is tried again with somewhat less.
const CONFIRMATIONS_MAX: usize = 4;

/// The knee in messages a second, confirmed; its step is marked. None if there is none, or if the
/// run has failed.
pub fn find_knee(
    stand: &mut Stand,
    record: &mut Record,
    subscribers: u64,
    search: &settings::Search,
    confirm_seconds: f64,
) -> io::Result<Option<f64>> {
    let offer = |kind, per_second, seconds| Offer {
        kind,
        per_second: Some(per_second),
        seconds,
        p99_ms_max: Some(search.p99_ms_max),
        subscribers,
    };
    let per_message = subscribers as f64 / stand.channels as f64;
    let first = search.from_rate.unwrap_or_else(|| {
        let rate = DELIVERIES_AT_FIRST / per_message;
        rate.clamp(1.0, PUBLISHES_AT_FIRST_MAX).round()
    });
    let mut steps = knee::Search::new(first, search.precision);
    // Why the lowest rate above the knee was not kept, if that was the generator's fault.
    let mut generators_limit: Option<String> = None;
    let mut knee = loop {
        match steps.next() {
            Next::Try(rate) => {
                let measured = step::measure(
                    stand,
                    &offer(StepKind::Search, rate, search.step_seconds),
                    record,
                )?;
                if !measured.is_kept() {
                    generators_limit = measured.invalid().map(str::to_owned);
                }
                steps.note(measured.is_kept());
                let closed = measured.step.disorder.closed;
                record.push_on_the_way(measured);
                if record.has_failed() {
                    return Ok(None);
                }
                reopen(stand, record, closed)?;
            }
            Next::Found { knee, .. } => break knee,
            Next::Nothing => {
                if let Some(why) = generators_limit {
                    record.say_invalid(why);
                }
                return Ok(None);
            }
        }
    };
    for _ in 0..CONFIRMATIONS_MAX {
        let measured = step::measure(
            stand,
            &offer(StepKind::Confirm, knee, confirm_seconds),
            record,
        )?;
        let is_kept = measured.is_kept();
        let invalid = measured.invalid().map(str::to_owned);
        let closed = measured.step.disorder.closed;
        record.push_on_the_way(measured);
        if record.has_failed() {
            return Ok(None);
        }
        if is_kept {
            record.mark_knee();
            return Ok(Some(knee));
        }
        generators_limit = invalid;
        reopen(stand, record, closed)?;
        knee = steps.note_not_confirmed(knee);
    }
    if let Some(why) = generators_limit {
        record.say_invalid(why);
    }
    Ok(None)
}

/// A server may have ended connections that were too slow for it; the next step has all of them.
fn reopen(stand: &mut Stand, record: &mut Record, closed: u64) -> io::Result<()> {
    if closed > 0 {
        stand.open_all(record)?;
    }
    Ok(())
}
