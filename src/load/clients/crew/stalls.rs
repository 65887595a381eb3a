//! Slow readers: clients that read so many bytes a second and leave the rest in their sockets.

use std::collections::BTreeMap;

use crate::load::machine;
use crate::ring::{Operation, Ring};

use super::super::client::{Part, Reading, Stage, UNHEARD};
use super::Crew;

/// How often each of them may read. They take their turns in so many groups, so that they do not all
/// read at once and hold up those who are measured.
const ROUND_MS: u64 = 1_000;
const GROUPS: u32 = 50;
const TICK_MS: u64 = ROUND_MS / GROUPS as u64;

#[derive(Default)]
pub struct Stalls {
    bytes_per_second: u64,
    next_ns: u64,
    group: u32,
    /// What each may read by now, by slot.
    allowed: BTreeMap<u32, u64>,
}

impl Stalls {
    /// How long a turn may sleep, if somebody is to read some more.
    pub fn tick_ms(&self) -> Option<u64> {
        (self.bytes_per_second > 0 && !self.allowed.is_empty()).then_some(TICK_MS)
    }

    pub fn spend(&mut self, slot: u32, bytes: u32) {
        if let Some(allowed) = self.allowed.get_mut(&slot) {
            *allowed = allowed.saturating_sub(u64::from(bytes));
        }
    }
}

impl Crew {
    /// From now on the last so many open clients read slowly.
    pub(super) fn stall(&mut self, clients: usize, bytes_per_second: u64) {
        let open: Vec<u32> = (0..)
            .zip(&self.clients[..self.size])
            .filter(|(_, client)| client.stage == Stage::Open)
            .map(|(slot, _)| slot)
            .collect();
        self.stalls.bytes_per_second = bytes_per_second;
        self.stalls.next_ns = machine::monotonic_ns();
        let first = open.len() - clients.min(open.len());
        for &slot in &open[first..] {
            self.leave_run(slot);
            let client = &mut self.clients[slot as usize];
            client.part = Part::Stalled;
            client.bytes = 0;
            client.hush();
            client.spoken = UNHEARD;
            self.stalls.allowed.insert(slot, 0);
            let wanted = match bytes_per_second {
                0 => Reading::Nothing,
                _ => Reading::SkimSome,
            };
            self.aim(slot, wanted);
        }
    }

    pub(super) fn unstall(&mut self) {
        for slot in std::mem::take(&mut self.stalls.allowed).into_keys() {
            let client = &mut self.clients[slot as usize];
            if client.part == Part::Stalled {
                client.part = Part::Idle;
                client.bytes = 0;
                self.aim(slot, Reading::Skim);
            }
        }
    }

    /// Lets them read what has become theirs since the last time.
    pub(super) fn stall_on(&mut self) {
        if self.stalls.tick_ms().is_none() {
            return;
        }
        let now_ns = machine::monotonic_ns();
        if now_ns < self.stalls.next_ns {
            return;
        }
        self.stalls.next_ns = now_ns + TICK_MS * 1_000_000;
        let more = (self.stalls.bytes_per_second * ROUND_MS / 1_000).max(1);
        self.stalls.group = (self.stalls.group + 1) % GROUPS;
        let group = self.stalls.group;
        let allowed = self.stalls.allowed.iter_mut();
        for (&slot, allowed) in allowed.filter(|(slot, _)| **slot % GROUPS == group) {
            let client = &mut self.clients[slot as usize];
            // What was not used does not heap up.
            *allowed = more;
            let is_held = client.reading == Reading::Nothing
                && client.wanted == Reading::SkimSome
                && client.stage == Stage::Open;
            if is_held {
                client.reading = Reading::SkimSome;
                let socket = client.socket(slot);
                let bytes_max = u32::try_from(*allowed).unwrap_or(u32::MAX);
                self.ring.push(Operation::SkimSome { socket, bytes_max });
            }
        }
    }
}
