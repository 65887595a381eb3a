//! The generator's watch over itself: when its figures speak of itself and not of the server.
//!
//! A generator that has no time left is late in publishing and late in reading, and both look like
//! a slow server. So a measurement is invalid
//! - if its threads together took more than [`GENERATOR_BUSY_MAX`] of one of its cores;
//! - if the publisher turned to due messages late: p99 of its slip is above [`SLIP_MS`] and above
//!   [`SLIP_SHARE`] of the measured p99. Of fewer than 100 messages p99 is the latest, and one may be late by chance:
//!   then it is the latest but one;
//! - if clients spent more than [`LATE_SHARE_MAX`] of the time in turns longer than [`TURN_MS`] and
//!   longer than [`TURN_SHARE`] of the measured p99: what they read last in such a turn looks that
//!   much later than it came;
//! - if clients, asked how far they are, once took longer than [`ANSWER_MS`] and longer than
//!   [`TURN_SHARE`] of the measured p99: they stood still, and do not know it themselves.
//!
//! A storm is not invalid where its clients took more than [`GENERATOR_BUSY_MAX`] of a core ([`busiest_core`]): they go as
//! fast as they can, so its rate is one that the server did take, and a lower bound of what it can.

use std::collections::BTreeMap;

use crate::load::orders::{Effort, Thread};
use crate::load::result::{GENERATOR_BUSY_MAX, LatencyHistogram};

const SLIP_MS: f64 = 5.0;
const SLIP_SHARE: f64 = 0.1;
const TURN_MS: f64 = 5.0;
const TURN_SHARE: f64 = 0.5;
const LATE_SHARE_MAX: f64 = 0.02;
const ANSWER_MS: f64 = 200.0;

/// What the generator did during a measurement.
#[derive(Clone, Debug)]
pub struct Conduct<'a> {
    pub clients: &'a [Thread],
    /// CPU time of the publisher over the time, and its core.
    pub publisher_busy_share: f64,
    pub publisher_core: Option<usize>,
    pub slip: &'a LatencyHistogram,
    /// How long clients took to say how far they are, whenever they were asked.
    pub answers: &'a LatencyHistogram,
    pub p99_us: Option<u64>,
}

/// The reasons why the measurement says nothing; none if it is fit.
pub fn reasons(conduct: &Conduct<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    for (core, share) in busy(conduct) {
        if share > GENERATOR_BUSY_MAX {
            reasons.push(format!(
                "the generator took {:.0} % of core {core}, more than {:.0} %",
                share * 100.0,
                GENERATOR_BUSY_MAX * 100.0
            ));
        }
    }
    let p99_ms = conduct.p99_us.unwrap_or(0) as f64 / 1e3;
    let slip_ms = slip_us(conduct.slip) as f64 / 1e3;
    let slip_ms_max = SLIP_MS.max(p99_ms * SLIP_SHARE);
    if slip_ms > slip_ms_max {
        reasons.push(format!(
            "the schedule slipped by {slip_ms:.1} ms at p99, more than {slip_ms_max:.1} ms"
        ));
    }
    let turn_ms_max = TURN_MS.max(p99_ms * TURN_SHARE);
    for thread in conduct.clients {
        let late = late_share(thread, turn_ms_max);
        if late > LATE_SHARE_MAX {
            reasons.push(format!(
                "clients on core {} read late for {:.0} % of the time: turns of up to {:.0} ms, \
                 longer than {turn_ms_max:.1} ms",
                thread.core,
                late * 100.0,
                thread.turns.max_us().unwrap_or(0) as f64 / 1e3,
            ));
        }
    }
    let answer_ms = conduct.answers.max_us().unwrap_or(0) as f64 / 1e3;
    if answer_ms > ANSWER_MS.max(p99_ms * TURN_SHARE) {
        reasons.push(format!("clients did not answer for {answer_ms:.0} ms"));
    }
    reasons
}

/// p99, or the latest message but one if that is less.
fn slip_us(slip: &LatencyHistogram) -> u64 {
    let messages = slip.count() as f64;
    // Half a message below the rank, so that rounding does not lift it to the next.
    let quantile = match slip.count() {
        0 | 1 => 1.0,
        _ => f64::min(0.99, (messages - 1.5) / messages),
    };
    slip.quantile_us(quantile).unwrap_or(0)
}

/// The generator's share of each of its cores.
fn busy(conduct: &Conduct<'_>) -> BTreeMap<usize, f64> {
    let mut shares = BTreeMap::new();
    for thread in conduct.clients {
        *shares.entry(thread.core).or_insert(0.0) += busy_share(thread);
    }
    if let Some(core) = conduct.publisher_core {
        *shares.entry(core).or_insert(0.0) += conduct.publisher_busy_share;
    }
    shares
}

/// The share of the busiest core that threads took within so many nanoseconds; none without a thread.
pub fn busiest_core(efforts: &[Effort], wall_ns: u64) -> Option<f64> {
    let mut cores: BTreeMap<usize, u64> = BTreeMap::new();
    for effort in efforts {
        *cores.entry(effort.core).or_insert(0) += effort.cpu_ns;
    }
    let busiest_ns = cores.into_values().max()?;
    Some(busiest_ns as f64 / wall_ns.max(1) as f64)
}

pub fn busy_share(thread: &Thread) -> f64 {
    thread.cpu_ns as f64 / (thread.wall_ns as f64).max(1.0)
}

/// The share of its time that a thread spent in turns longer than so many milliseconds.
fn late_share(thread: &Thread, turn_ms_max: f64) -> f64 {
    let turn_us_max = (turn_ms_max * 1e3) as u64;
    let late_us: u64 = thread
        .turns
        .values()
        .iter_recorded()
        .filter(|step| step.value_iterated_to() > turn_us_max)
        .map(|step| step.value_iterated_to() * step.count_since_last_iteration())
        .sum();
    late_us as f64 * 1e3 / (thread.wall_ns as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(cpu_ns: u64, turns_us: &[u64]) -> Thread {
        let mut turns = LatencyHistogram::new();
        for us in turns_us {
            turns.record_us(*us);
        }
        Thread {
            core: 1,
            cpu_ns,
            wall_ns: 1_000_000_000,
            turns,
        }
    }

    fn check(clients: &[Thread], publisher: f64, slip_us: u64, p99_us: u64, expected: &[&str]) {
        let mut slip = LatencyHistogram::new();
        slip.record_us(slip_us);
        let found = reasons(&Conduct {
            clients,
            publisher_busy_share: publisher,
            publisher_core: Some(1),
            slip: &slip,
            answers: &LatencyHistogram::new(),
            p99_us: Some(p99_us),
        });
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (reason, part) in found.iter().zip(expected) {
            assert!(reason.contains(part), "{reason}");
        }
    }

    #[test]
    fn a_generator_with_time_to_spare_is_fit() {
        check(&[thread(500_000_000, &[900; 1_000])], 0.2, 300, 2_000, &[]);
        check(&[], 0.0, 0, 0, &[]);
    }

    #[test]
    fn threads_share_a_core_and_saturate_it_together() {
        let clients = [thread(500_000_000, &[]), thread(300_000_000, &[])];
        check(&clients, 0.1, 0, 0, &[]);
        check(&clients, 0.2, 0, 0, &["100 % of core 1"]);
    }

    #[test]
    fn of_a_storm_the_busiest_core_counts_and_not_the_busiest_thread() {
        let effort = |core, cpu_ns| Effort { core, cpu_ns };
        let efforts = [effort(1, 500), effort(2, 700), effort(1, 450)];
        assert_eq!(busiest_core(&efforts, 1_000), Some(0.95));
        assert_eq!(busiest_core(&efforts[..2], 1_000), Some(0.7));
        assert_eq!(busiest_core(&[], 1_000), None);
    }

    #[test]
    fn a_schedule_may_slip_by_a_tenth_of_what_is_measured() {
        check(&[], 0.0, 9_000, 100_000, &[]);
        check(&[], 0.0, 9_000, 80_000, &["slipped by 9.0 ms"]);
        check(&[], 0.0, 4_900, 1_000, &[]);
    }

    #[test]
    fn one_late_message_of_few_is_no_slip_and_two_are() {
        let slip_us_of = |late: u64, messages: u64| {
            let mut slip = LatencyHistogram::new();
            for message in 0..messages {
                slip.record_us(if message < late { 9_000 } else { 100 });
            }
            slip_us(&slip)
        };
        for messages in [2, 3, 30, 99, 100, 150] {
            assert!(slip_us_of(1, messages) < 200, "1 of {messages}");
            assert!(slip_us_of(2, messages) > 8_000, "2 of {messages}");
        }
        assert!(slip_us_of(1, 1) > 8_000);
        assert!(slip_us_of(2, 250) < 200);
        assert!(slip_us_of(3, 250) > 8_000);
        assert_eq!(slip_us(&LatencyHistogram::new()), 0);
    }

    #[test]
    fn a_clients_process_that_stood_still_is_noticed() {
        let stood = thread(1_000_000, &[500, 700, 400_000]);
        check(
            &[stood],
            0.0,
            0,
            390_000,
            &["read late for 40 % of the time"],
        );
        let mut answers = LatencyHistogram::new();
        answers.record_us(600_000);
        let found = reasons(&Conduct {
            clients: &[],
            publisher_busy_share: 0.0,
            publisher_core: None,
            slip: &LatencyHistogram::new(),
            answers: &answers,
            p99_us: Some(590_000),
        });
        assert_eq!(found, ["clients did not answer for 600 ms"]);
        // Long turns that are short against what is measured.
        let busy = thread(1_000_000, &[20_000; 30]);
        check(&[busy], 0.0, 0, 90_000, &[]);
    }
}
