//! Churn: guests that come, stay for a while and leave, beside the clients that are counted.

use std::collections::VecDeque;

use crate::load::machine;
use crate::load::orders::Manner;

use super::super::client::{Part, Reading, Stage};
use super::Crew;

#[derive(Default)]
pub struct Guests {
    /// When the next one comes, and how far they lie apart; none while there is no churn.
    next: Option<(u64, f64)>,
    most: usize,
    /// Slots of those that are in, the oldest first.
    seated: VecDeque<u32>,
    free: Vec<u32>,
}

impl Guests {
    pub fn are_coming(&self) -> bool {
        self.next.is_some()
    }
}

impl Crew {
    pub(super) fn churn(&mut self, per_second: f64, guests: usize) {
        self.guests.most = guests;
        if per_second > 0.0 {
            let start_ns = machine::monotonic_ns();
            self.guests.next = Some((start_ns, 1e9 / per_second));
            let above = (self.size as u32)..(self.clients.len() as u32);
            let vacant = above.filter(|slot| self.clients[*slot as usize].stage == Stage::Vacant);
            self.guests.free = vacant.rev().collect();
            return;
        }
        self.guests.next = None;
        while let Some(slot) = self.guests.seated.pop_front() {
            self.show_out(slot);
        }
    }

    /// Those whose time has come.
    pub(super) fn invite(&mut self) {
        while let Some((next_ns, apart_ns)) = &mut self.guests.next {
            let now_ns = machine::monotonic_ns();
            if now_ns < *next_ns {
                return;
            }
            *next_ns += *apart_ns as u64;
            match self.guests.free.pop() {
                Some(slot) => {
                    self.clients[slot as usize].part = Part::Guest;
                    self.connect(slot, now_ns);
                }
                // All places are taken by guests that are still on their way.
                None => self.run.churn.failures += 1,
            }
        }
    }

    /// A guest is in: the oldest makes room.
    pub(super) fn seat_guest(&mut self, slot: u32) {
        self.aim(slot, Reading::Skim);
        self.guests.seated.push_back(slot);
        let most = if self.guests.are_coming() {
            self.guests.most
        } else {
            0
        };
        while self.guests.seated.len() > most {
            let oldest = self.guests.seated.pop_front().expect("there is one");
            self.show_out(oldest);
        }
    }

    fn show_out(&mut self, slot: u32) {
        // The server may have ended it in the meantime.
        if self.clients[slot as usize].stage == Stage::Open {
            self.run.churn.leaves += 1;
            self.depart(slot, Manner::Abrupt);
        }
    }

    pub(super) fn free_guest(&mut self, slot: u32) {
        self.clients[slot as usize].part = Part::Idle;
        self.guests.seated.retain(|seated| *seated != slot);
        self.guests.free.push(slot);
    }
}
