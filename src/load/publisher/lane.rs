//! One connection of the publisher, and the messages that are its own.

use std::io;
use std::os::fd::BorrowedFd;

use super::events::EventConnection;
use super::http::{Answered, Event, HttpConnection, Outcome};
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
    connection: Connection,
    /// Messages in a call.
    batch: usize,
    /// Its next message; none without a channel or a run.
    next: Option<u64>,
    /// Since when a call could have been made; none while none can.
    open_since_ns: Option<u64>,
}

pub enum Connection {
    Http(Box<HttpConnection<Call>>),
    Events(EventConnection),
}

/// Messages that leave together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub indexes: Vec<u64>,
    /// When they are to leave: when the last of them is due.
    pub leaves_ns: u64,
}

impl Lane {
    pub fn new(number: u64, connection: Connection, batch: usize) -> Lane {
        let batch = match &connection {
            Connection::Http(http) => batch.clamp(1, http.events_per_call_max()),
            Connection::Events(_) => 1,
        };
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
        answers: &mut Vec<Answer>,
    ) -> io::Result<()> {
        let places = batch.indexes.iter().map(|index| schedule.place(*index));
        let call = Call {
            places: places.collect(),
            due_ns,
        };
        match &mut self.connection {
            Connection::Http(http) => http.publish(events, call)?,
            Connection::Events(connection) => {
                connection.publish(events)?;
                answers.push(Answer {
                    tag: call,
                    outcome: Outcome::Written,
                });
            }
        }
        let last = *batch.indexes.last().expect("a batch holds a message");
        self.next = Some(schedule.next(self.number, last));
        if !self.is_open() {
            self.open_since_ns = None;
        }
        Ok(())
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.connection {
            Connection::Http(http) => http.descriptor(),
            Connection::Events(events) => events.descriptor(),
        }
    }

    pub fn has_unsent(&self) -> bool {
        match &self.connection {
            Connection::Http(http) => http.has_unsent(),
            Connection::Events(events) => events.has_unsent(),
        }
    }

    pub fn unanswered(&self) -> usize {
        match &self.connection {
            Connection::Http(http) => http.unanswered(),
            Connection::Events(_) => 0,
        }
    }

    pub fn flush(&mut self, now_ns: u64) -> io::Result<()> {
        match &mut self.connection {
            Connection::Http(http) => http.flush()?,
            Connection::Events(events) => events.flush()?,
        }
        self.note_open(now_ns);
        Ok(())
    }

    pub fn receive(&mut self, answers: &mut Vec<Answer>, now_ns: u64) -> io::Result<()> {
        match &mut self.connection {
            Connection::Http(http) => http.receive(answers)?,
            Connection::Events(events) => {
                let mut refusals = Vec::new();
                events.receive(&mut refusals)?;
                let taken_back = |words| Answer {
                    tag: Call {
                        places: Vec::new(),
                        due_ns: now_ns,
                    },
                    outcome: Outcome::TakenBack(words),
                };
                answers.extend(refusals.into_iter().map(taken_back));
            }
        }
        self.note_open(now_ns);
        Ok(())
    }

    fn is_open(&self) -> bool {
        match &self.connection {
            Connection::Http(http) => http.is_open(),
            Connection::Events(events) => events.is_open(),
        }
    }

    fn note_open(&mut self, now_ns: u64) {
        if self.is_open() {
            self.open_since_ns.get_or_insert(now_ns);
        }
    }
}
