//! What clients hear: the talk until they are open, and messages.

use crate::load::dialect::{Fault, Heard};
use crate::load::orders::{Channels, Evidence, Wrong};
use crate::load::stamp::Stamp;
use crate::ring::{Buffer, Operation, Ring, Socket};

use super::super::client::{Part, Reading, Stage, Talk};
use super::Crew;

/// Own subscriptions asked for and not yet confirmed, per client.
const UNCONFIRMED_MAX: u64 = 256;

/// The length of messages on the wire, as far as decoded ones have told.
#[derive(Default)]
pub struct Learnt {
    frame_bytes: Option<u64>,
    is_uneven: bool,
}

impl Learnt {
    fn note(&mut self, length: u64) {
        let first = *self.frame_bytes.get_or_insert(length);
        self.is_uneven |= first != length;
    }

    /// The one length that there is.
    pub fn even(&self) -> Option<u64> {
        self.frame_bytes.filter(|_| !self.is_uneven)
    }

    /// Lengths that differed belonged to other runs.
    pub fn forget(&mut self) {
        *self = Learnt::default();
    }
}

impl Crew {
    pub(super) fn on_received(&mut self, socket: Socket, buffer: Buffer) {
        let slot = socket.slot;
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let is_heard = self.is_current(socket)
            && matches!(
                self.clients[slot as usize].stage,
                Stage::Greeting | Stage::Open
            );
        let talk = match is_heard {
            true => self.clients[slot as usize].talk.take(),
            false => None,
        };
        if let Some(mut talk) = talk {
            bytes.append(&mut talk.unread);
            bytes.extend_from_slice(self.ring.received(&buffer));
            let taken = self.hear(slot, &mut talk, &bytes);
            let taken = taken.map(|taken| talk.unread.extend_from_slice(&bytes[taken..]));
            if talk.unread.is_empty() {
                // Thousands of idle clients shall not hold buffers that they once needed.
                talk.unread = Vec::new();
            }
            self.clients[slot as usize].talk = Some(talk);
            if let Err(Fault(words)) = taken {
                self.end_by_server(slot, Wrong::Fault, words);
            }
        }
        self.ring.recycle(buffer);
        self.scratch = bytes;
    }

    /// Takes what is whole of the bytes; gives how many these are.
    fn hear(&mut self, slot: u32, talk: &mut Talk, bytes: &[u8]) -> Result<usize, Fault> {
        let from = self.clients[slot as usize].position;
        let mut reply = std::mem::take(&mut self.reply);
        let mut taken = 0;
        let outcome = loop {
            let next = self
                .dialect
                .take(&mut talk.speaker, &bytes[taken..], &mut reply);
            match next {
                Ok(Some((length, heard))) => {
                    self.on_heard(slot, talk, length as u64, heard);
                    taken += length;
                }
                Ok(None) => break Ok(taken),
                Err(fault) => break Err(fault),
            }
        };
        if !reply.is_empty() {
            self.outbox.write(slot, |out| out.append(&mut reply));
        }
        self.reply = reply;
        let client = &self.clients[slot as usize];
        if client.part == Part::Counted {
            self.run.receives += 1;
            if client.position > from {
                let (channel, to) = (self.channel(slot), client.position);
                self.run.advance(channel, from, to, self.now_ns);
            }
        }
        outcome
    }

    fn on_heard(&mut self, slot: u32, talk: &mut Talk, length: u64, heard: Heard<'_>) {
        match heard {
            Heard::Nothing => {}
            Heard::Greeted => self.on_greeted(slot, talk),
            Heard::Subscribed => {
                talk.confirmed += 1;
                self.on_confirmed(slot, talk);
            }
            Heard::Answered => {
                talk.awaits_answer = false;
                self.on_confirmed(slot, talk);
            }
            Heard::Message(payload) => self.on_message(slot, talk, length, payload),
            Heard::Joined(payload) => self.on_message(slot, talk, length, &payload),
            Heard::Goodbye(words) => talk.words = Some(words),
        }
    }

    pub(super) fn on_greeted(&mut self, slot: u32, talk: &mut Talk) {
        self.progress_ns = self.now_ns;
        // Where the upgrade is the subscription, it is known when that is answered.
        if !self.is_guest(slot) && !self.dialect.is_greeted_at_once() {
            self.greeted_ns = self.now_ns;
        }
        let is_first = self.orders.channels.at_first(self.number(slot)).is_some();
        if !is_first {
            return self.on_open(slot, talk);
        }
        let channel = self.channel(slot).unwrap_or(0);
        let name = self.names[channel as usize].as_ref();
        let (dialect, speaker) = (&self.dialect, &mut talk.speaker);
        self.outbox
            .write(slot, |out| dialect.subscribe(speaker, name, out));
        (talk.wanted, talk.asked) = (1, 1);
    }

    fn on_confirmed(&mut self, slot: u32, talk: &mut Talk) {
        self.progress_ns = self.now_ns;
        match self.clients[slot as usize].stage {
            Stage::Greeting if talk.is_settled() => self.on_open(slot, talk),
            Stage::Open => {
                self.ask(slot, talk);
                if talk.is_settled() {
                    self.asking = self.asking.saturating_sub(1);
                }
            }
            Stage::Greeting | Stage::Vacant | Stage::Connecting | Stage::Closing => {}
        }
    }

    fn on_open(&mut self, slot: u32, talk: &mut Talk) {
        let client = &mut self.clients[slot as usize];
        client.stage = Stage::Open;
        let us = self.now_ns.saturating_sub(talk.began_ns) / 1_000;
        if client.part == Part::Guest {
            self.run.churn.joins += 1;
            self.run.churn.opened.record_us(us);
            return self.seat_guest(slot);
        }
        if self.dialect.is_greeted_at_once() {
            self.greeted_ns = self.now_ns;
        }
        self.opening -= 1;
        self.open += 1;
        self.handshakes += 1;
        self.opened.record_us(us);
        let since_begun_ns = self.now_ns.saturating_sub(self.begun_ns());
        self.joined.record_us(since_begun_ns / 1_000);
    }

    /// Asks for as many of the wanted subscriptions as may be unconfirmed at once.
    fn ask(&mut self, slot: u32, talk: &mut Talk) {
        let limit = talk.wanted.min(talk.confirmed + UNCONFIRMED_MAX);
        while talk.asked < limit {
            let Some(name) = self.own_name(slot, talk.asked) else {
                return;
            };
            let (dialect, speaker) = (&self.dialect, &mut talk.speaker);
            self.outbox
                .write(slot, |out| dialect.subscribe(speaker, &name, out));
            talk.asked += 1;
        }
    }

    /// From now on a client shall have so many channels of its own.
    pub(super) fn want(&mut self, slot: u32, subscriptions: u64) {
        let Some(mut talk) = self.clients[slot as usize].talk.take() else {
            return;
        };
        let was_settled = talk.is_settled();
        talk.wanted = subscriptions;
        if talk.asked > subscriptions {
            for place in subscriptions..talk.asked {
                let name = self.own_name(slot, place).expect("it was subscribed");
                let (dialect, speaker) = (&self.dialect, &mut talk.speaker);
                self.outbox
                    .write(slot, |out| dialect.unsubscribe(speaker, &name, out));
            }
            let (dialect, speaker) = (&self.dialect, &mut talk.speaker);
            self.outbox.write(slot, |out| dialect.ask(speaker, out));
            (talk.asked, talk.confirmed) = (subscriptions, subscriptions);
            talk.awaits_answer = true;
        }
        self.ask(slot, &mut talk);
        self.asking += usize::from(was_settled && !talk.is_settled());
        self.clients[slot as usize].talk = Some(talk);
    }

    fn own_name(&self, slot: u32, place: u64) -> Option<String> {
        let channel = self.orders.channels.own(self.number(slot), place)?;
        Some(self.orders.channels.name(channel))
    }

    fn on_message(&mut self, slot: u32, talk: &mut Talk, length: u64, payload: &[u8]) {
        let stamp = Stamp::find(payload);
        if stamp.is_some() {
            self.learnt.note(length);
        }
        if self.clients[slot as usize].part != Part::Counted {
            return;
        }
        let is_of_channel = self.is_of_channel(slot, talk, payload);
        let stamp = stamp.filter(|stamp| is_of_channel && stamp.due_ns >= self.run.began_ns);
        let Some(stamp) = stamp else {
            self.run.strays += 1;
            let words = String::from_utf8_lossy(payload).into_owned();
            return self.note_wrong(slot, (Wrong::Stray, 0), 0, Some(words));
        };
        let client = &mut self.clients[slot as usize];
        client.position += 1;
        client.bytes += length;
        self.run.bytes += length;
        let delay_us = self.now_ns.saturating_sub(stamp.due_ns) / 1_000;
        self.run.recent.record_us(delay_us);
        let channel = self.channel(slot);
        self.run.due(channel, stamp.sequence, stamp.due_ns);
        // Channels of a client's own have numbers of their own each, and are only counted.
        if channel.is_none() {
            return;
        }
        let ledger = talk.ledger.as_mut();
        let wrong = ledger.and_then(|ledger| ledger.note(stamp.sequence, self.now_ns));
        if let Some(wrong) = wrong {
            self.note_wrong(slot, wrong, stamp.sequence, None);
        }
    }

    /// Whether the message names the client's channel, where the dialect names any.
    fn is_of_channel(&self, slot: u32, talk: &mut Talk, payload: &[u8]) -> bool {
        let is_named = matches!(self.orders.channels, Channels::Shared { .. });
        if !is_named || !self.dialect.names_channels() {
            return true;
        }
        let name = self.channel_name(slot).as_bytes();
        let there = payload.get(talk.name_at..talk.name_at + name.len());
        if there == Some(name) {
            return true;
        }
        let found = payload
            .windows(name.len())
            .position(|window| window == name);
        talk.name_at = found.unwrap_or(0);
        found.is_some()
    }

    fn note_wrong(&mut self, slot: u32, wrong: (Wrong, u64), seen: u64, words: Option<String>) {
        let client = self.number(slot);
        let channel = self.channel_name(slot).to_owned();
        let at_ns = self.now_ns;
        self.run.note_evidence(|| Evidence {
            what: wrong.0,
            client,
            channel,
            expected: wrong.1,
            seen,
            at_ns,
            words,
        });
    }

    pub(super) fn on_skimmed(&mut self, socket: Socket, bytes: u32) {
        if !self.is_current(socket) {
            return;
        }
        let slot = socket.slot;
        let channel = self.channel(slot);
        let client = &mut self.clients[slot as usize];
        if client.reading == Reading::SkimSome {
            client.reading = Reading::Nothing;
            client.bytes += u64::from(bytes);
            self.stalls.spend(slot, bytes);
            match client.stage {
                Stage::Closing => self.ring.push(Operation::Close { socket }),
                _ if client.wanted != Reading::SkimSome => {
                    self.arm(slot);
                    self.note_switch(slot, true);
                }
                Stage::Vacant | Stage::Connecting | Stage::Greeting | Stage::Open => {}
            }
            return;
        }
        match client.part {
            Part::Idle | Part::Guest => {}
            Part::Stalled => client.bytes += u64::from(bytes),
            Part::Counted => {
                client.bytes += u64::from(bytes);
                self.run.bytes += u64::from(bytes);
                self.run.receives += 1;
                let Some(frame_bytes) = self.run.frame_bytes else {
                    return;
                };
                let (from, to) = (client.position, (client.bytes / frame_bytes) as u32);
                if to > from {
                    client.position = to;
                    self.run.advance(channel, from, to, self.now_ns);
                }
            }
        }
    }
}
