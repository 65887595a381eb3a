//! One run of the publisher: what is due leaves, answers are counted, lateness is noted.

use std::io;

use super::http::{Event, Outcome};
use super::lane::{Answer, Batch, Lane};
use super::schedule::{Place, Schedule};
use super::{OfChannel, Orders, PLACES_MAX, Tally};
use crate::load::machine::monotonic_ns;
use crate::load::stamp::Stamp;

/// Answers may be missing for so long after the last message before they are given up.
const ANSWER_PATIENCE_NS: u64 = 10_000_000_000;
/// Without a schedule: a full window is then unanswered, whatever the server does, and what it holds is the flood's queue.
const FLOOD_PATIENCE_NS: u64 = 3_000_000_000;
/// Without a schedule: how long to hold back after the server had no room.
const REFUSED_PAUSE_NS: u64 = 10_000_000;
/// Calls that one connection makes in a turn, if it is late.
const CALLS_PER_TURN: usize = 64;

pub struct Run {
    schedule: Schedule,
    tally: Tally,
    cpu_before_ns: u64,
    /// All messages have left, or shall not any more.
    ended_ns: Option<u64>,
    paused_until_ns: u64,
    /// Events that were written to where nobody answers.
    written: Vec<Answer>,
}

impl Run {
    pub fn begin(schedule: Schedule, lanes: &mut [Lane], cpu_ns: u64) -> Run {
        for lane in lanes {
            lane.begin(&schedule);
        }
        let channels = vec![OfChannel::default(); schedule.channels as usize];
        Run {
            schedule,
            tally: Tally {
                channels,
                ..Tally::default()
            },
            cpu_before_ns: cpu_ns,
            ended_ns: None,
            paused_until_ns: 0,
            written: Vec::new(),
        }
    }

    /// Sends what is due. Returns when it is to be called again at the latest.
    pub fn turn(&mut self, lanes: &mut [Lane], orders: &Orders) -> io::Result<u64> {
        let mut wake_ns = u64::MAX;
        let mut is_all_out = true;
        for lane in lanes {
            // A lane that is far behind takes its share of a turn, so that answers are read meanwhile.
            for _ in 0..CALLS_PER_TURN {
                let now_ns = monotonic_ns();
                let Some(batch) = self.next_batch(lane, now_ns) else {
                    break;
                };
                is_all_out = false;
                let leaves_ns = batch.leaves_ns.max(self.paused_until_ns);
                let Some(open_since_ns) = lane.open_since_ns() else {
                    break;
                };
                wake_ns = wake_ns.min(leaves_ns);
                if leaves_ns > now_ns {
                    break;
                }
                self.publish(lane, &batch, orders, now_ns, open_since_ns)?;
            }
        }
        let now_ns = monotonic_ns();
        if is_all_out && self.ended_ns.is_none() {
            self.ended_ns = Some(now_ns);
        }
        Ok(wake_ns)
    }

    fn next_batch(&self, lane: &Lane, now_ns: u64) -> Option<Batch> {
        let is_over = self.schedule.per_second.is_none() && now_ns >= self.schedule.end_ns();
        if self.ended_ns.is_some() || is_over {
            return None;
        }
        lane.batch(&self.schedule)
    }

    fn publish(
        &mut self,
        lane: &mut Lane,
        batch: &Batch,
        orders: &Orders,
        now_ns: u64,
        open_since_ns: u64,
    ) -> io::Result<()> {
        let is_paced = self.schedule.per_second.is_some();
        let due_ns = |index: u64| {
            if is_paced {
                self.schedule.due_ns(index)
            } else {
                now_ns
            }
        };
        let events: Vec<Event> = batch
            .indexes
            .iter()
            .map(|index| {
                let place = self.schedule.place(*index);
                let stamp = Stamp {
                    sequence: place.sequence,
                    due_ns: due_ns(*index),
                };
                Event {
                    channel: orders.channels[place.channel as usize].clone(),
                    data: stamp.data(orders.data_bytes),
                }
            })
            .collect();
        let last = *batch.indexes.last().expect("a batch holds a message");
        if is_paced {
            let could_ns = batch.leaves_ns.max(open_since_ns);
            self.tally
                .slip
                .record_us(now_ns.saturating_sub(could_ns) / 1_000);
            self.tally
                .held
                .record_us((could_ns - batch.leaves_ns) / 1_000);
        }
        self.tally.published += batch.indexes.len() as u64;
        for index in &batch.indexes {
            let place = self.schedule.place(*index);
            self.tally.channels[place.channel as usize].published += 1;
        }
        let mut written = std::mem::take(&mut self.written);
        lane.publish(batch, &events, &self.schedule, due_ns(last), &mut written)?;
        for answer in written.drain(..) {
            self.take_in(answer);
        }
        self.written = written;
        Ok(())
    }

    pub fn take_in(&mut self, answer: Answer) {
        // A call of an earlier run, which told it as not answered.
        if answer.tag.due_ns < self.schedule.start_ns {
            return;
        }
        let now_ns = monotonic_ns();
        let events = answer.tag.places.len() as u64;
        let waited_ns = now_ns.saturating_sub(answer.tag.due_ns);
        match answer.outcome {
            Outcome::Accepted => {
                self.tally.answer.record_us(waited_ns / 1_000);
                return self.accept(&answer.tag.places);
            }
            Outcome::Written => return self.accept(&answer.tag.places),
            Outcome::TakenBack(words) => {
                self.tally.accepted = self.tally.accepted.saturating_sub(1);
                self.tally.failed += 1;
                self.tally.taken_back += 1;
                self.tally.failure.get_or_insert(words);
                return;
            }
            Outcome::Refused => {
                self.tally.refused += events;
                for place in &answer.tag.places {
                    self.tally.channels[place.channel as usize].refused += 1;
                }
                if self.schedule.per_second.is_none() {
                    self.paused_until_ns = now_ns + REFUSED_PAUSE_NS;
                }
            }
            Outcome::Failed(words) => {
                self.tally.failed += events;
                self.tally.failure.get_or_insert(words);
            }
        }
        let room = PLACES_MAX - self.tally.not_accepted.len().min(PLACES_MAX);
        let places = answer.tag.places.into_iter().take(room);
        self.tally.not_accepted.extend(places);
    }

    fn accept(&mut self, places: &[Place]) {
        self.tally.accepted += places.len() as u64;
        for place in places {
            self.tally.channels[place.channel as usize].accepted += 1;
        }
    }

    /// No further message leaves.
    pub fn stop(&mut self) {
        self.ended_ns.get_or_insert_with(monotonic_ns);
    }

    /// Every message has left and every answer is there, or was waited for long enough.
    pub fn is_over(&self, lanes: &[Lane]) -> bool {
        let waited_ns = match self.ended_ns {
            Some(ended_ns) => monotonic_ns() - ended_ns,
            None => return false,
        };
        let is_settled = lanes
            .iter()
            .all(|lane| lane.unanswered() == 0 && !lane.has_unsent());
        let patience_ns = match self.schedule.per_second {
            Some(_) => ANSWER_PATIENCE_NS,
            None => FLOOD_PATIENCE_NS,
        };
        is_settled || waited_ns > patience_ns
    }

    pub fn tally(&mut self, cpu_ns: u64) -> Tally {
        let tally = &mut self.tally;
        tally.unanswered = tally.published - tally.accepted - tally.refused - tally.failed;
        tally.cpu_ns = cpu_ns - self.cpu_before_ns;
        tally.wall_ns = monotonic_ns().saturating_sub(self.schedule.start_ns);
        tally.clone()
    }

    /// The counts alone: histograms are too large to be told ten times a second.
    pub fn counts(&self, cpu_ns: u64) -> Tally {
        let tally = &self.tally;
        Tally {
            published: tally.published,
            accepted: tally.accepted,
            refused: tally.refused,
            failed: tally.failed,
            failure: tally.failure.clone(),
            cpu_ns: cpu_ns - self.cpu_before_ns,
            wall_ns: monotonic_ns().saturating_sub(self.schedule.start_ns),
            ..Tally::default()
        }
    }
}
