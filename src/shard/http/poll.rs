//! Pages of a channel's events that are waited for: the long-poll form of history.
//!
//! ```text
//! ask_for_events   the home is asked; without an event to tell it remembers who asked
//! wake_waiters     at home: an event is there, all who wait are told, and forgotten
//! ask_again        the one who waited asks again, and is answered
//! on_poll_timer    its time is over: it asks without waiting, and is told that there is nothing
//! leave_poll       it has left: the home is told
//! ```
//!
//! While one waits, nothing is under way between its shard and the home, so no number of them takes
//! from the credit of publishes; a connection waits for one page at most, so connections bound them.

use std::collections::BTreeSet;

use crate::base::limits;
use crate::base::metrics::Metric;
use crate::base::socket::{Address, Socket};
use crate::hub::ask::{Ask, Question};
use crate::hub::letter::{Exit, Outcome, Requester};
use crate::hub::query::{Poll, PollState, Query};
use crate::wire::api::Page;

use crate::shard::Engine;
use crate::shard::connections::Pending;
use crate::shard::home::hold::Conclusion;

impl Engine {
    pub(in crate::shard) fn ask_for_events(
        &mut self,
        slot: u32,
        app: u16,
        channel: &str,
        mut page: Page,
    ) {
        if self.is_draining {
            page.wait_ms = 0;
        }
        let poll = Poll {
            app,
            channel: channel.into(),
            page,
            until_ms: match page.wait_ms {
                0 => 0,
                wait_ms => self.now_ms + wait_ms,
            },
            state: PollState::Asked,
        };
        let query = Box::new(Query::Page(Box::new(poll)));
        self.connections.waiting(slot).pending = Some(Pending::Query(query));
        self.ask_for_page_of_events(slot);
    }

    fn ask_for_page_of_events(&mut self, slot: u32) {
        let requester = self.connections.socket(slot);
        let poll = self.connections[slot].poll().expect("it was just seen");
        let (app, channel, page) = (poll.app, poll.channel.clone(), poll.page);
        self.ask(Ask {
            requester,
            app,
            channel,
            question: Question::History(page),
        });
    }

    /// The home has no event to tell: it will say when there is one, which is what the connection
    /// waits for now.
    pub(in crate::shard) fn wait_for_event(&mut self, slot: u32, query: Box<Query>) {
        let waiting = self.connections.waiting(slot);
        waiting.pending = Some(Pending::Query(query));
        waiting.receipts = 1;
        if self.is_draining || self.connections[slot].has_ended {
            self.hurry_poll(slot);
        } else {
            self.on_poll_timer(slot);
        }
    }

    /// A home here has an event that those did not have who wait for one.
    pub(in crate::shard) fn wake_waiters(&mut self, waiters: BTreeSet<Address>) {
        self.metrics
            .subtract(Metric::PageWaiters, waiters.len() as u64);
        for Address { shard, socket } in waiters {
            self.conclusions.push_back(Conclusion {
                shard,
                requester: Requester { socket, place: 0 },
                outcome: Outcome::Appended,
            });
        }
    }

    /// An event has come. It may be one before the first that is waited for: then the home says so.
    pub(in crate::shard) fn ask_again(&mut self, socket: Socket) {
        if self.connections.is_current(socket) && self.is_told_nothing(socket.slot) {
            self.resume_poll(socket.slot);
        }
    }

    /// The time to look after one who waits for an event.
    pub(in crate::shard) fn on_poll_timer(&mut self, slot: u32) {
        let poll = self.connections[slot].poll().expect("it was just seen");
        let until_ms = match poll.state {
            PollState::Waits => poll.until_ms,
            // The answer is under way.
            PollState::Asked | PollState::Told(_) => self.now_ms + limits::KEEP_ALIVE_MS,
        };
        match self.now_ms < until_ms {
            true => self.wheel.set(slot, until_ms),
            false => self.hurry_poll(slot),
        }
    }

    /// One who waits for an event is told that there is none: its time is over, or it says no more.
    pub(in crate::shard) fn hurry_poll(&mut self, slot: u32) {
        if self.is_told_nothing(slot) {
            self.poll_mut(slot).page.wait_ms = 0;
            self.resume_poll(slot);
        }
    }

    /// One who waits for an event may have left: then its home forgets it.
    pub(in crate::shard) fn leave_poll(&mut self, slot: u32) {
        let socket = self.connections.socket(slot);
        let Some(poll) = self.connections[slot].poll() else {
            return;
        };
        if poll.until_ms == 0 {
            return;
        }
        let exit = Exit {
            app: poll.app,
            channel: poll.channel.clone(),
            socket,
        };
        self.withdraw_ask(socket, &exit.channel);
        let home = self.home_of(self.channels.hash(exit.app, &exit.channel));
        if home == self.index {
            self.on_exit(home, &exit);
        } else {
            self.exits.push_back((home, Box::new(exit)));
        }
    }

    /// One who perhaps waits for an event of a channel whose home is here has left.
    pub(in crate::shard) fn forget_waiter(&mut self, address: Address, channel: Option<u32>) {
        // Its question may have come in the same turn.
        for (from, ask) in &mut self.queries {
            if let Question::History(page) = &mut ask.question
                && (*from, ask.requester) == (address.shard, address.socket)
            {
                page.wait_ms = 0;
            }
        }
        let retained = channel.and_then(|channel| self.retained_mut(channel));
        if retained.is_some_and(|retained| retained.waiters.remove(&address)) {
            self.metrics.subtract(Metric::PageWaiters, 1);
        }
    }

    /// It waits neither for an answer of the home nor is it answered.
    fn is_told_nothing(&self, slot: u32) -> bool {
        let poll = self.connections[slot].poll();
        poll.is_some_and(|poll| matches!(poll.state, PollState::Waits))
    }

    /// The home is asked anew: what was waited for becomes the answer.
    fn resume_poll(&mut self, slot: u32) {
        self.poll_mut(slot).state = PollState::Asked;
        self.connections.waiting(slot).receipts = 0;
        self.ask_for_page_of_events(slot);
        self.refresh_timer(slot);
    }

    fn poll_mut(&mut self, slot: u32) -> &mut Poll {
        let pending = self.connections.waiting(slot).pending.as_mut();
        match pending {
            Some(Pending::Query(query)) => match &mut **query {
                Query::Page(poll) => poll,
                Query::One(_) | Query::List { .. } | Query::Laggards { .. } | Query::Publish(_) => {
                    unreachable!("it was just seen")
                }
            },
            Some(Pending::SignIn(_) | Pending::Repeat(_) | Pending::Turn(_)) | None => {
                unreachable!("it was just seen")
            }
        }
    }
}
