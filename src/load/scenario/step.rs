//! One load, offered for some seconds and watched until its last message has arrived.

use std::io;
use std::thread;
use std::time::Duration;

use super::conclusion::{self, Measured, Observed};
use super::record::Record;
use super::stand::Stand;
use super::watch::{CoreWatch, ThreadTimes};
use crate::load::machine::monotonic_ns;
use crate::load::orders::{Command, Glance};
use crate::load::publisher::schedule::Schedule;
use crate::load::publisher::{State, Tally};
use crate::load::report::numbers;
use crate::load::report::table::step_name;
use crate::load::result::{LatencyHistogram, Second, StepKind};
use crate::load::view::{Errors, Moment};

/// A run begins so long after it was decided, so that everybody is ready.
const LEAD_NS: u64 = 50_000_000;
/// How often clients are asked how far they are.
const GLANCE_EVERY: Duration = Duration::from_millis(100);
/// What has not arrived after so long without any arrival is lost.
const PATIENCE_NS: u64 = 3_000_000_000;
/// The same in a search, once the server has lost something there: it need not be waited for each time anew.
const PATIENCE_AFTER_LOSS_NS: u64 = 700_000_000;
/// After the last message, time for what should not come.
const AFTERMATH: Duration = Duration::from_millis(100);
/// Clients that were silent for so long give a sign of life between two runs, where it disturbs nothing, and after
/// twice as long within one.
const SILENT_BETWEEN: Duration = Duration::from_secs(30);
pub const SILENT_WITHIN: Duration = Duration::from_secs(60);
/// A load is given up when deliveries are so many times the limit of p99 late, and so long at least.
const HOPELESS_FACTOR: f64 = 5.0;
const HOPELESS_S: f64 = 1.0;
const SECOND_NS: u64 = 1_000_000_000;
/// Messages that make sure that nothing of a run is the first of its kind, and their rate.
const WARM_UP_MESSAGES: u64 = 20;
const WARM_UP_PER_S: f64 = 200.0;

/// What is offered.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub kind: StepKind,
    /// Messages a second over all channels; none is as many as are taken.
    pub per_second: Option<f64>,
    pub seconds: f64,
    /// p99 of deliveries that is still kept. A load that is far beyond is given up early.
    pub p99_ms_max: Option<f64>,
    /// After the last publish, what arrives is waited for so long at most.
    pub drain_seconds: Option<f64>,
    /// Clients whose messages count; others are told to stall.
    pub subscribers: u64,
}

/// All clients open, and nothing to come is the first of its kind.
pub fn open_and_warm_up(stand: &mut Stand, record: &mut Record) -> io::Result<()> {
    stand.open_all(record)?;
    warm_up(stand)
}

/// Publishes a few messages and forgets them.
pub fn warm_up(stand: &mut Stand) -> io::Result<()> {
    stand.crowd.all(Command::Begin { frame_bytes: None })?;
    let messages = WARM_UP_MESSAGES.max(stand.channels.min(1_000));
    let per_second = WARM_UP_PER_S.max(messages as f64);
    let schedule = Schedule {
        start_ns: monotonic_ns() + LEAD_NS,
        per_second: Some(per_second),
        length_ns: (messages as f64 / per_second * 1e9) as u64,
        channels: stand.channels,
        publishers: stand.publishers,
    };
    let tally = publisher(stand)?.run(schedule)?;
    if let Some(failure) = tally.failure {
        return Err(io::Error::other(failure));
    }
    // All of it has to be in before the next run begins.
    let mut last = stand.crowd.glance()?;
    let mut still = 0;
    while still < 3 {
        thread::sleep(GLANCE_EVERY);
        let now = stand.crowd.glance()?;
        still = if now.bytes == last.bytes {
            still + 1
        } else {
            0
        };
        last = now;
    }
    Ok(())
}

/// Offers a load, and says how it went.
pub fn measure(stand: &mut Stand, offer: &Offer, record: &mut Record) -> io::Result<Measured> {
    if stand.crowd.keep_alive(SILENT_BETWEEN)? {
        thread::sleep(AFTERMATH);
    }
    stand.crowd.all(Command::Begin { frame_bytes: None })?;
    let cpu_before_ns = stand.server_cpu_ns()?;
    let threads_before = server_threads(stand)?;
    let schedule = Schedule {
        start_ns: monotonic_ns() + LEAD_NS,
        per_second: offer.per_second,
        length_ns: (offer.seconds * 1e9) as u64,
        channels: stand.channels,
        publishers: stand.publishers,
    };
    let patience_ns = match (offer.kind, record.has_seen_loss()) {
        (StepKind::Search, true) => PATIENCE_AFTER_LOSS_NS,
        (StepKind::Search | StepKind::Confirm | StepKind::Fixed | StepKind::Share { .. }, _) => {
            PATIENCE_NS
        }
    };
    let mut running = Running {
        offer,
        patience_ns,
        schedule,
        per_channel: offer.subscribers / stand.channels,
        cores: CoreWatch::start(stand.cores.iter().map(|core| core.number).collect())?,
        timeline: Vec::new(),
        second: LatencyHistogram::new(),
        second_ends_ns: schedule.start_ns + SECOND_NS,
        before: (0, 0),
        run_began_ns: record.began_ns(),
        answers: LatencyHistogram::new(),
    };
    publisher(stand)?.begin(schedule)?;
    let tally = running.publish(stand, record)?;
    let is_given_up = running.drain(stand, record, &tally)?;
    let drained_ns = monotonic_ns();
    let cpu_ns = stand.server_cpu_ns()?;
    let threads = server_threads(stand)?;
    thread::sleep(AFTERMATH);
    let count = stand.crowd.report()?;
    running.end_second(stand, &tally, count.messages, drained_ns)?;
    Ok(conclusion::conclude(&Observed {
        offer,
        schedule: &schedule,
        began_s: schedule.start_ns.saturating_sub(record.began_ns()) as f64 / 1e9,
        drained_ns,
        is_given_up,
        is_embedded: stand.server.is_some(),
        subscribers: offer.subscribers,
        data_bytes: stand.data_bytes,
        publisher_core: stand.publisher_core,
        tally: &tally,
        count: &count,
        server_cpu_ns: cpu_ns
            .zip(cpu_before_ns)
            .map(|(after, before)| after.saturating_sub(before)),
        server_threads: threads
            .zip(threads_before)
            .map(|(after, before)| after.since(&before))
            .unwrap_or_default(),
        timeline: running.timeline,
        answers: &running.answers,
    }))
}

pub fn server_threads(stand: &Stand) -> io::Result<Option<ThreadTimes>> {
    match stand.pids.as_slice() {
        [] => Ok(None),
        pids => ThreadTimes::read(pids).map(Some),
    }
}

struct Running<'a> {
    offer: &'a Offer,
    patience_ns: u64,
    schedule: Schedule,
    /// Subscribers of one channel.
    per_channel: u64,
    cores: CoreWatch,
    timeline: Vec<Second>,
    /// Deliveries of the second that runs.
    second: LatencyHistogram,
    second_ends_ns: u64,
    /// Published and delivered at the last second's end.
    before: (u64, u64),
    run_began_ns: u64,
    /// How long clients took to say how far they are.
    answers: LatencyHistogram,
}

impl Running<'_> {
    /// Watches until the publisher has done its part.
    fn publish(&mut self, stand: &mut Stand, record: &mut Record) -> io::Result<Tally> {
        let mut is_stopped = false;
        loop {
            if let State::Done(tally) = publisher(stand)?.wait(GLANCE_EVERY)? {
                return Ok(*tally);
            }
            record.freeze_once(stand, self.schedule.start_ns);
            let glance = self.glance(stand)?;
            let tally = publisher(stand)?.progress().clone();
            self.note(stand, record, &tally, &glance)?;
            if !is_stopped && self.is_hopeless(&glance) {
                publisher(stand)?.stop()?;
                is_stopped = true;
            }
        }
    }

    /// Waits until everything has arrived, or until nothing does any more; true if more was still arriving when the
    /// time for it was up.
    fn drain(&mut self, stand: &mut Stand, record: &mut Record, tally: &Tally) -> io::Result<bool> {
        let expected = tally.accepted * self.per_channel;
        // The sum alone may hold what one got twice and lack what another waits for.
        let accepted = tally.channels.iter().map(|channel| channel.accepted);
        let least = accepted.min().unwrap_or(0);
        let least = least.saturating_sub(tally.taken_back);
        let mut last_bytes = None;
        let mut still_since_ns = monotonic_ns();
        let until_ns = self
            .offer
            .drain_seconds
            .map_or(u64::MAX, |seconds| still_since_ns + (seconds * 1e9) as u64);
        loop {
            let glance = self.glance(stand)?;
            self.note(stand, record, tally, &glance)?;
            let is_last_there = glance.counted == 0 || glance.messages_min >= least;
            if glance.messages >= expected && is_last_there {
                return Ok(false);
            }
            if last_bytes != Some(glance.bytes) {
                last_bytes = Some(glance.bytes);
                still_since_ns = glance.at_ns;
            }
            if glance.at_ns.saturating_sub(still_since_ns) > self.patience_ns {
                return Ok(false);
            }
            if glance.at_ns > until_ns {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn glance(&mut self, stand: &mut Stand) -> io::Result<Glance> {
        stand.crowd.keep_alive(SILENT_WITHIN)?;
        let asked_ns = monotonic_ns();
        let glance = stand.crowd.glance()?;
        self.answers.record_us((monotonic_ns() - asked_ns) / 1_000);
        Ok(glance)
    }

    fn note(
        &mut self,
        stand: &mut Stand,
        record: &mut Record,
        tally: &Tally,
        glance: &Glance,
    ) -> io::Result<()> {
        self.second.add(&glance.deliveries);
        record.show(&self.moment(stand, tally, glance));
        if glance.at_ns >= self.second_ends_ns {
            self.end_second(stand, tally, glance.messages, glance.at_ns)?;
            self.second_ends_ns += SECOND_NS;
        }
        Ok(())
    }

    /// What is to be seen: rates and percentiles of the last whole second.
    fn moment(&self, stand: &Stand, tally: &Tally, glance: &Glance) -> Moment {
        let last = self.timeline.last();
        let elapsed_ns = glance.at_ns.saturating_sub(self.schedule.start_ns);
        let busy = last.map_or(Vec::new(), |second| {
            let shares = second.core_busy_shares.iter();
            let cores = stand.cores.iter().zip(shares);
            cores
                .map(|(core, share)| {
                    (
                        format!("core {} ({})", core.number, core.role.name()),
                        *share,
                    )
                })
                .collect()
        });
        let rate = self
            .offer
            .per_second
            .map_or("all that is taken".to_owned(), |per_second| {
                format!("{} messages a second", numbers::decimal(per_second))
            });
        Moment {
            phase: format!("{}: {rate}", step_name(self.offer.kind)),
            done_share: elapsed_ns as f64 / self.schedule.length_ns.max(1) as f64,
            at_s: glance.at_ns.saturating_sub(self.run_began_ns) as f64 / 1e9,
            connections: glance.clients,
            published_per_s: last.map(|second| second.published as f64),
            delivered_per_s: last.map(|second| second.delivered as f64),
            lag_deliveries: self.lag(glance.at_ns, tally, glance.messages),
            p50_us: last.and_then(|second| second.p50_us),
            p99_us: last.and_then(|second| second.p99_us),
            errors: Errors {
                refused: tally.refused + tally.failed,
                disorder: glance.disorder,
                closed: glance.closed,
            },
            busy,
        }
    }

    fn end_second(
        &mut self,
        stand: &mut Stand,
        tally: &Tally,
        delivered: u64,
        at_ns: u64,
    ) -> io::Result<()> {
        // What came back in the meantime is looked at once more by whoever is asked last.
        self.second.add(&stand.crowd.glance()?.deliveries);
        self.timeline.push(Second {
            at_s: at_ns.saturating_sub(self.run_began_ns) as f64 / 1e9,
            published: tally.published.saturating_sub(self.before.0),
            delivered: delivered.saturating_sub(self.before.1),
            lag_deliveries: self.lag(at_ns, tally, delivered),
            p50_us: self.second.quantile_us(0.5),
            p99_us: self.second.quantile_us(0.99),
            core_busy_shares: self.cores.shares()?,
        });
        self.before = (tally.published, delivered);
        self.second = LatencyHistogram::new();
        Ok(())
    }

    /// Deliveries that were due by then and not made.
    fn lag(&self, now_ns: u64, tally: &Tally, delivered: u64) -> u64 {
        let due = match self.schedule.per_second {
            Some(per_second) => {
                let elapsed_ns = now_ns.saturating_sub(self.schedule.start_ns);
                let due = (elapsed_ns as f64 * per_second / 1e9) as u64;
                due.min(self.schedule.messages().unwrap_or(due))
            }
            None => tally.accepted,
        };
        let not_to_come = tally.refused + tally.failed;
        (due.saturating_sub(not_to_come) * self.per_channel).saturating_sub(delivered)
    }

    /// The server is so far behind the schedule that the limit will not be kept.
    fn is_hopeless(&self, glance: &Glance) -> bool {
        let (Some(per_second), Some(p99_ms_max)) = (self.offer.per_second, self.offer.p99_ms_max)
        else {
            return false;
        };
        let lag = self.lag(glance.at_ns, &Tally::default(), glance.messages) as f64;
        let lag_s = lag / (per_second * self.per_channel as f64);
        lag_s > HOPELESS_S.max(HOPELESS_FACTOR * p99_ms_max / 1e3)
    }
}

fn publisher(stand: &mut Stand) -> io::Result<&mut crate::load::publisher::Publisher> {
    stand
        .publisher
        .as_mut()
        .ok_or_else(|| io::Error::other("this scenario publishes nothing"))
}
