//! The journal as the edge holds it: appends in, words for the shards out, one task at a time on the
//! files between them.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::JournalError;
use super::commit::{Active, Commit, Pace, Taken, Told};
use super::ledger::{Keep, Ledger, Note};
use super::recovery::{self, Replayed, Step};
use super::segment::Lock;
use super::writer::{Files, Written};
use crate::base::limits;
use crate::base::metrics::{Metric, Metrics};
use crate::hub::durable::Append;

/// A journal that is written to.
pub struct Desk {
    commit: Commit,
    /// Here while no task has them.
    files: Option<Files>,
    told: VecDeque<Told>,
    /// No segment is removed before this moment.
    removals_from_ms: u64,
    has_ended: bool,
    metrics: Metrics,
    _lock: Lock,
}

/// A journal that can be gone on with, on whichever thread that is to be.
pub struct Opened {
    commit: Commit,
    directory: PathBuf,
    metrics: Metrics,
    lock: Lock,
}

/// What a start found, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    pub records: u64,
    pub channels: usize,
}

/// Something to be done with the files, in a task of its own.
pub enum Task {
    Write(Files, super::commit::Write),
    Remove(Files, u64),
}

/// What a task came to.
pub enum Outcome {
    Written(Written),
    Removed {
        files: Files,
        first: u64,
        result: io::Result<()>,
    },
}

impl Task {
    pub async fn run(self) -> Outcome {
        match self {
            Task::Write(files, write) => Outcome::Written(files.write(write).await),
            Task::Remove(files, first) => {
                let result = files.remove(first).await;
                Outcome::Removed {
                    files,
                    first,
                    result,
                }
            }
        }
    }
}

impl Opened {
    /// Recovers what is in `directory`, handing every event to `replay`, and goes on behind it. The
    /// channels that may have lost their newest events are to be begun anew: `forget` gets them.
    pub fn open(
        directory: &Path,
        pace: Pace,
        shards: u16,
        metrics: Metrics,
        mut replay: impl FnMut(&Replayed<'_>),
        mut forget: impl FnMut(&str, &str),
    ) -> Result<(Opened, Tally), JournalError> {
        let mut ledger = Ledger::default();
        let recovered = recovery::recover(directory, |step| match step {
            Step::Segment(first) => ledger.begin(first),
            Step::Event(replayed) => {
                let entry = &replayed.entry;
                let channel = ledger.channel(entry.app_id, entry.channel);
                ledger.note(Note {
                    channel,
                    bytes: (entry.name.len() + entry.data.len()) as u64,
                    time_ms: entry.time_ms,
                    has_key: !entry.idempotency_key.is_empty(),
                });
                replay(&replayed);
            }
        })?;
        for (app_id, channel) in recovered.continuity.uncertain() {
            forget(app_id, channel);
        }
        if let Some(torn) = &recovered.torn {
            warn!(
                "{}: {} bytes at byte {} of a write that a crash cut off are gone; nobody was told \
                 that they are published",
                torn.path.display(),
                torn.bytes,
                torn.offset
            );
        }
        let tally = Tally {
            records: recovered.records,
            channels: recovered.continuity.channels(),
        };
        let active = recovered
            .active
            .map(|(first, length)| Active { first, length });
        let opened = Opened {
            commit: Commit::new(pace, shards, recovered.next, active, ledger),
            directory: directory.into(),
            metrics,
            lock: recovered.lock,
        };
        Ok((opened, tally))
    }

    /// On the thread that writes it.
    pub fn into_desk(self) -> Desk {
        let desk = Desk {
            commit: self.commit,
            files: Some(Files::new(&self.directory)),
            told: VecDeque::new(),
            removals_from_ms: 0,
            has_ended: false,
            metrics: self.metrics,
            _lock: self.lock,
        };
        desk.count_segments();
        desk
    }
}

impl Desk {
    /// An event that a shard wants to have written. `time_ms` counts from 1970.
    pub fn append(&mut self, shard: u16, append: &Append, app_id: &str, time_ms: u64, now_ms: u64) {
        match self.commit.append(shard, append, app_id, time_ms, now_ms) {
            Taken::Waits | Taken::Late => {}
            Taken::Refused(told) => self.told.push_back(told),
        }
    }

    /// The server ends, and everything that was to be written is.
    pub fn end(&mut self) {
        if self.is_idle() && !std::mem::replace(&mut self.has_ended, true) {
            self.commit.end();
        }
    }

    /// The next that is to be done, if nothing is being done.
    pub fn next_task(
        &mut self,
        now_ms: u64,
        time_ms: u64,
        keep: impl Fn(&str, &str) -> Keep,
    ) -> Option<Task> {
        let files = self.files.take()?;
        if let Some(write) = self.commit.next_write(now_ms) {
            return Some(Task::Write(files, write));
        }
        // Nobody waits for this, and whoever comes now waits for one removal at most.
        if self.commit.is_idle() && now_ms >= self.removals_from_ms {
            if let Some(first) = self.commit.expired(time_ms, keep) {
                return Some(Task::Remove(files, first));
            }
            self.removals_from_ms = now_ms + limits::JOURNAL_REMOVAL_LOOK_MS;
        }
        self.files = Some(files);
        None
    }

    /// When there will be something to write, or perhaps to remove.
    pub fn next_ms(&self) -> Option<u64> {
        self.files.as_ref()?;
        let may_remove = self.segments() > 1 && self.commit.is_idle();
        let removal_ms = may_remove.then_some(self.removals_from_ms);
        self.commit.next_ms().into_iter().chain(removal_ms).min()
    }

    fn count_segments(&self) {
        let segments = self.segments() as u64;
        self.metrics.set(Metric::JournalSegments, segments);
    }

    /// A task has ended. Returns what failed, if anything did.
    pub fn settle(&mut self, outcome: Outcome, now_ms: u64) -> Option<io::Error> {
        match outcome {
            Outcome::Written(written) => {
                let Written {
                    files,
                    bytes,
                    result,
                } = written;
                self.files = Some(files);
                let was_broken = self.commit.is_broken();
                let (mut told, events) = (Vec::new(), self.commit.events_writing());
                self.commit.settle(&result, bytes, now_ms, &mut told);
                self.count_segments();
                self.told.extend(told);
                if result.is_ok() {
                    self.metrics.add(Metric::JournalSyncs, 1);
                    self.metrics.add(Metric::JournalEvents, events);
                } else {
                    self.metrics.add(Metric::JournalFailures, 1);
                }
                match &result {
                    Ok(()) if was_broken => info!("the journal is written again"),
                    Err(error) if !was_broken => {
                        warn!("the journal cannot be written, durable channels refuse: {error}");
                    }
                    Ok(()) | Err(_) => {}
                }
                result.err()
            }
            Outcome::Removed {
                files,
                first,
                result,
            } => {
                self.files = Some(files);
                match result {
                    Ok(()) => {
                        self.commit.forget_oldest();
                        self.count_segments();
                    }
                    // Newer ones have to wait for it.
                    Err(error) => {
                        self.removals_from_ms = now_ms + limits::JOURNAL_REMOVAL_RETRY_MS;
                        warn!("segment {first} of the journal is not removed: {error}");
                    }
                }
                None
            }
        }
    }

    /// The next word for a shard.
    pub fn next_told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    pub fn is_idle(&self) -> bool {
        self.files.is_some() && self.commit.is_idle()
    }

    pub fn segments(&self) -> usize {
        self.commit.segments()
    }
}

#[cfg(test)]
mod tests;
