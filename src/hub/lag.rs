//! How far a subscriber is behind its channel's log: the head minus its cursor, in messages, bytes
//! and time.
//!
//! Nothing is counted while frames are sent. Whoever asks looks at cursors, of which those that stand
//! next to each other are mostly the same.

use super::audience::Sweep;
use crate::base::lag::Lag;

/// Where a look at all subscribers of a shard goes on: through the channels first, then through those
/// who catch up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Channel { channel: u32, subscriber: u32 },
    CatchingUp { slot: u32 },
}

impl Place {
    pub const BEGIN: Place = Place::Channel {
        channel: 0,
        subscriber: 0,
    };
}

/// Tells how far cursors of one channel are behind.
#[derive(Debug)]
pub struct Gauge<'a> {
    sweep: &'a Sweep,
    now_ms: u64,
    /// The last cursor that was asked for.
    last: Option<(u64, Lag)>,
}

impl Gauge<'_> {
    pub fn new(sweep: &Sweep, now_ms: u64) -> Gauge<'_> {
        Gauge {
            sweep,
            now_ms,
            last: None,
        }
    }

    /// Of one who gets every frame behind `cursor`. Of those that have left the log, the bytes are
    /// known and their number is not.
    pub fn lag(&mut self, cursor: u64) -> Lag {
        if let Some((known, lag)) = self.last
            && known == cursor
        {
            return lag;
        }
        let lag = self.of_runs([(cursor, self.sweep.log.head())]);
        self.last = Some((cursor, lag));
        lag
    }

    /// Of the one in `slot`, which may not get some of the frames; nothing if it gets none of them.
    pub fn lag_with_exceptions(&self, slot: u32, cursor: u64) -> Option<Lag> {
        let lag = self.of_runs(self.sweep.pieces(slot, cursor));
        (lag.bytes != Some(0)).then_some(lag)
    }

    fn of_runs(&self, runs: impl IntoIterator<Item = (u64, u64)>) -> Lag {
        let log = &self.sweep.log;
        let (mut messages, mut bytes, mut since_ms) = (0, 0, None);
        for (start, end) in runs {
            messages += log.frames_between(start, end);
            bytes += end - start;
            since_ms = since_ms.or_else(|| log.came_ms(start));
        }
        Lag {
            messages,
            bytes: Some(bytes),
            ms: since_ms.map_or(0, |since_ms| self.now_ms.saturating_sub(since_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits;
    use crate::hub::audience::Exception;
    use proptest::prelude::*;

    const SLOT: u32 = 3;

    /// A frame, by its length; how long after the one before it came; whether [`SLOT`] gets it.
    type Frame = (usize, u64, bool);

    proptest! {
        /// Against a look at every frame.
        #[test]
        fn a_lag_is_what_a_look_at_every_frame_finds(
            frames in prop::collection::vec((1_usize..50, 0_u64..150, any::<bool>()), 1..100),
            cursors in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
            trimmed in 0_usize..100,
        ) {
            let mut sweep = Sweep::default();
            let mut starts = vec![0];
            let mut now_ms = 1_000;
            let mut came_ms = Vec::new();
            for (length, later_ms, is_for_slot) in &frames {
                now_ms += later_ms;
                came_ms.push(now_ms);
                let start = sweep.log.head();
                sweep.log.append(&vec![0; *length], [*length].into_iter(), now_ms);
                let end = sweep.log.head();
                if !is_for_slot {
                    sweep.except(Exception { slot: SLOT, start, end });
                }
                starts.push(end);
            }
            now_ms += 77;
            let first_held = trimmed.min(frames.len() - 1);
            sweep.log.trim(starts[first_held]);
            let mut gauge = Gauge::new(&sweep, now_ms);
            for cursor in cursors {
                let place = cursor.index(frames.len());
                let cursor = starts[place];
                let naive = |is_lacked: &dyn Fn(&Frame) -> bool| {
                    let lacked = (place..frames.len()).filter(|at| is_lacked(&frames[*at]));
                    let held = lacked.clone().filter(|at| *at >= first_held);
                    let bytes = lacked.map(|at| frames[at].0 as u64).sum::<u64>();
                    let oldest_ms = held.clone().next().map(|at| now_ms - came_ms[at]);
                    (held.count() as u64, bytes, oldest_ms.unwrap_or(0))
                };
                let check = |lag: Lag, (messages, bytes, ms): (u64, u64, u64)| {
                    prop_assert_eq!((lag.messages, lag.bytes), (messages, Some(bytes)));
                    prop_assert!((ms..ms + limits::LOG_AGE_STEP_MS).contains(&lag.ms), "{lag:?} {ms}");
                    Ok(())
                };
                check(gauge.lag(cursor), naive(&|_| true))?;
                if place >= first_held {
                    match gauge.lag_with_exceptions(SLOT, cursor) {
                        Some(lag) => check(lag, naive(&|frame| frame.2))?,
                        None => prop_assert_eq!(naive(&|frame| frame.2).1, 0),
                    }
                    let other = gauge.lag_with_exceptions(SLOT + 1, cursor);
                    prop_assert_eq!(other, Some(gauge.lag(cursor)));
                }
            }
        }
    }
}
