//! One connection of the publisher, and the messages that are its own.

use std::io;
use std::os::fd::BorrowedFd;

use super::http::{Answered, Event, HttpConnection};
use super::schedule::{Place, Schedule};

/// A call as it was made, told again with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub places: Vec<Place>,
    /// When its last message was due.
    pub due_ns: u64,
}

pub type Answer = Answered<Call>;

pub struct Lane {
    pub number: u64,
    connection: HttpConnection<Call>,
    /// Messages in a call.
    batch: usize,
    /// Its next message; none without a channel or a run.
    next: Option<u64>,
    /// Since when a call could have been made; none while none can.
    open_since_ns: Option<u64>,
}

/// Messages that leave together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub indexes: Vec<u64>,
    /// When they are to leave: when the last of them is due.
    pub leaves_ns: u64,
}

impl Lane {
    pub fn new(number: u64, connection: HttpConnection<Call>, batch: usize) -> Lane {
        let batch = batch.clamp(1, connection.events_per_call_max());
        Lane {
            number,
            connection,
            batch,
            next: None,
            open_since_ns: None,
        }
    }

    pub fn begin(&mut self, schedule: &Schedule) {
        self.next = schedule.first(self.number);
        self.open_since_ns = Some(schedule.start_ns);
    }

    /// What leaves next; nothing when all of the schedule has left.
    pub fn batch(&self, schedule: &Schedule) -> Option<Batch> {
        let mut indexes = Vec::with_capacity(self.batch);
        let mut next = self.next?;
        while indexes.len() < self.batch && schedule.messages().is_none_or(|all| next < all) {
            indexes.push(next);
            next = schedule.next(self.number, next);
        }
        let last = *indexes.last()?;
        Some(Batch {
            indexes,
            leaves_ns: schedule.due_ns(last),
        })
    }

    /// Since when it could make a call, if it can.
    pub fn open_since_ns(&self) -> Option<u64> {
        self.open_since_ns
    }

    pub fn publish(
        &mut self,
        batch: &Batch,
        events: &[Event],
        schedule: &Schedule,
        due_ns: u64,
    ) -> io::Result<()> {
        let places = batch.indexes.iter().map(|index| schedule.place(*index));
        let call = Call {
            places: places.collect(),
            due_ns,
        };
        self.connection.publish(events, call)?;
        let last = *batch.indexes.last().expect("a batch holds a message");
        self.next = Some(schedule.next(self.number, last));
        if !self.connection.is_open() {
            self.open_since_ns = None;
        }
        Ok(())
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.connection.descriptor()
    }

    pub fn has_unsent(&self) -> bool {
        self.connection.has_unsent()
    }

    pub fn unanswered(&self) -> usize {
        self.connection.unanswered()
    }

    pub fn flush(&mut self, now_ns: u64) -> io::Result<()> {
        self.connection.flush()?;
        self.note_open(now_ns);
        Ok(())
    }

    pub fn receive(&mut self, answers: &mut Vec<Answer>, now_ns: u64) -> io::Result<()> {
        self.connection.receive(answers)?;
        self.note_open(now_ns);
        Ok(())
    }

    fn note_open(&mut self, now_ns: u64) {
        if self.connection.is_open() {
            self.open_since_ns.get_or_insert(now_ns);
        }
    }
}
