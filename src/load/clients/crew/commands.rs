//! Commands: how each begins, and when it is carried out.

use crate::load::machine;
use crate::load::orders::{Answer, Channels, Command, Effort, Glance, Manner, Sample, Settled};
use crate::ring::{Operation, Ring};

use super::super::client::{Client, Part, Reading, Stage, UNHEARD};
use super::super::ledger::Ledger;
use super::super::run::Run;
use super::super::unit::Numbered;
use super::Crew;

/// A command that makes no progress for so long has failed.
const PATIENCE_NS: u64 = 30_000_000_000;
/// Whoever said goodbye waits so long for the server's end of stream.
const GOODBYE_NS: u64 = 2_000_000_000;

/// A command that is being carried out.
pub struct Task {
    number: u64,
    from_ns: u64,
    /// CPU time of the crew's thread when it began.
    cpu_from_ns: u64,
    has_lost_patience: bool,
}

impl Crew {
    pub(super) fn number_of_task(&self) -> u64 {
        self.task.as_ref().map_or(0, |task| task.number)
    }

    /// When the command that is under way was begun.
    pub(super) fn begun_ns(&self) -> u64 {
        self.task.as_ref().map_or(self.now_ns, |task| task.from_ns)
    }

    /// Begins the next command, if none is under way. A report is answered at once.
    pub(super) fn begin_next(&mut self) -> Option<Numbered<Answer>> {
        if self.task.is_some() {
            return None;
        }
        let (number, command) = self.queue.pop_front()?;
        let now_ns = machine::monotonic_ns();
        self.task = Some(Task {
            number,
            from_ns: now_ns,
            cpu_from_ns: machine::thread_cpu_ns(),
            has_lost_patience: false,
        });
        self.now_ns = now_ns;
        self.progress_ns = now_ns;
        (self.handshakes, self.greeted_ns, self.failures) = (0, 0, 0);
        (self.opened, self.joined) = Default::default();
        match command {
            Command::Open {
                clients,
                per_second,
            } => self.begin_open(clients, per_second),
            Command::Close { clients, manner } => self.begin_close(clients, manner),
            Command::Reconnect {
                clients,
                per_second,
            } => self.begin_reconnect(clients, per_second),
            Command::Stall {
                clients,
                bytes_per_second,
            } => {
                let share = self.share(clients);
                self.stall(share, bytes_per_second);
            }
            Command::Unstall => self.unstall(),
            Command::Churn { per_second, guests } => {
                let share = self.share(guests);
                self.churn(per_second / self.crews as f64, share);
            }
            Command::Subscribe { per_client } => {
                for slot in self.open_slots() {
                    self.want(slot, per_client);
                }
            }
            Command::Begin { frame_bytes } => self.begin_run(frame_bytes),
            Command::Heartbeat => {
                for slot in self.open_slots() {
                    self.outbox.write(slot, |out| self.dialect.heartbeat(out));
                }
            }
            Command::Glance => unreachable!("a glance is answered when it is asked for"),
            Command::Report => {
                self.task = None;
                let clients = &self.clients[..self.size];
                let channel = |slot| self.channel(slot);
                let mut count = self.run.count(clients, channel, self.core);
                count.frame_bytes = count.frame_bytes.or(self.learnt.even());
                return Some((number, Answer::Count(Box::new(count))));
            }
        }
        None
    }

    /// The answer to the command that is under way, once nothing of it is left to do.
    pub(super) fn end_task(&mut self) -> Option<Numbered<Answer>> {
        let task = self.task.take()?;
        if self.is_carried_out() {
            return Some((task.number, Answer::Settled(self.settled(&task))));
        }
        self.task = Some(task);
        self.be_patient();
        None
    }

    /// Nothing of the command that is under way is left to do.
    pub(super) fn is_carried_out(&self) -> bool {
        let clients = self.to_open.len() + self.opening + self.closing;
        clients + self.switching + self.asking == 0
    }

    fn be_patient(&mut self) {
        let still_ns = self.now_ns.saturating_sub(self.progress_ns);
        if self.closing > 0 && still_ns > GOODBYE_NS {
            let task = self.task.as_mut().expect("it is under way");
            if !std::mem::replace(&mut task.has_lost_patience, true) {
                self.shut_those_that_close();
            }
        }
        if still_ns > PATIENCE_NS {
            self.failed = Some(format!(
                "stuck: {} clients are open, {} on their way, {} to be opened, {} closing, {} change how they read, \
                 {} wait for subscriptions; {} attempts failed, and the last words of the server were {:?}",
                self.open,
                self.opening,
                self.to_open.len(),
                self.closing,
                self.switching,
                self.asking,
                self.failures,
                self.run.last_words,
            ));
        }
    }

    /// The server does not end what was ended here.
    fn shut_those_that_close(&mut self) {
        for (slot, client) in (0..).zip(&self.clients) {
            if client.stage == Stage::Closing && client.reading != Reading::Nothing {
                let socket = client.socket(slot);
                self.ring.push(Operation::Shutdown { socket });
            }
        }
    }

    fn settled(&mut self, task: &Task) -> Settled {
        let subscriptions = match &self.orders.channels {
            Channels::None => 0,
            Channels::Shared { .. } => self.open as u64,
            Channels::Own { .. } => {
                let talks = self
                    .clients
                    .iter()
                    .filter_map(|client| client.talk.as_ref());
                talks.map(|talk| talk.confirmed).sum()
            }
        };
        Settled {
            clients: self.open as u64,
            subscriptions,
            from_ns: task.from_ns,
            until_ns: self.now_ns.max(task.from_ns),
            greeted_ns: self.greeted_ns,
            handshakes: self.handshakes,
            failures: self.failures,
            opened: std::mem::take(&mut self.opened),
            joined: std::mem::take(&mut self.joined),
            efforts: vec![Effort {
                core: self.core,
                cpu_ns: machine::thread_cpu_ns().saturating_sub(task.cpu_from_ns),
            }],
        }
    }

    pub(super) fn glance(&mut self) -> Glance {
        let mut glance = self.run.glance(&self.clients[..self.size]);
        glance.clients = self.open as u64;
        glance.opening = (self.opening + self.to_open.len()) as u64;
        glance
    }

    /// This crew's part of so many of the unit's clients.
    pub(super) fn share(&self, clients: usize) -> usize {
        let (crews, index) = (self.crews as usize, self.index as usize);
        (clients + crews - 1 - index) / crews
    }

    fn open_slots(&self) -> Vec<u32> {
        let clients = (0..).zip(&self.clients[..self.size]);
        clients
            .filter(|(_, client)| client.stage == Stage::Open)
            .map(|(slot, _)| slot)
            .collect()
    }

    fn set_pace(&mut self, per_second: Option<f64>) {
        let now_ns = machine::monotonic_ns();
        let own = per_second.map(|per_second| per_second / self.crews as f64);
        self.pace = own
            .filter(|per_second| *per_second > 0.0)
            .map(|per_second| (now_ns, 1e9 / per_second));
    }

    fn begin_open(&mut self, clients: usize, per_second: Option<f64>) {
        let share = self.share(clients);
        if share > self.clients.len() {
            self.failed = Some(format!("{clients} clients are more than were announced"));
            return;
        }
        self.set_pace(per_second);
        self.size = self.size.max(share);
        let vacant = (0..).zip(&self.clients[..share]);
        let vacant = vacant.filter(|(_, client)| client.stage == Stage::Vacant);
        self.to_open.extend(vacant.map(|(slot, _)| slot));
    }

    fn begin_close(&mut self, clients: usize, manner: Manner) {
        let share = self.share(clients);
        let leaving = self.open_slots().into_iter().skip(share);
        for slot in leaving.collect::<Vec<_>>() {
            self.depart(slot, manner);
        }
        self.size = self.size.min(share);
    }

    fn begin_reconnect(&mut self, clients: usize, per_second: Option<f64>) {
        self.set_pace(per_second);
        let open = self.open_slots();
        let staying = open.len() - self.share(clients).min(open.len());
        for slot in open.into_iter().skip(staying) {
            self.depart(slot, Manner::Abrupt);
            self.clients[slot as usize].comes_again = true;
        }
    }

    /// Everybody who is open and not stalled takes part from here on.
    fn begin_run(&mut self, frame_bytes: Option<u64>) {
        let known = frame_bytes.or(self.learnt.even());
        let known = known.filter(|_| self.dialect.is_even());
        if known.is_none() {
            self.learnt.forget();
        }
        self.run = Run::begin(self.orders.channels.shared(), known);
        let mut counted = Vec::new();
        for slot in 0..self.size as u32 {
            let channel = self.channel(slot);
            let client = &mut self.clients[slot as usize];
            let was_even = client.bytes.is_multiple_of(known.unwrap_or(1));
            client.begin(was_even);
            if client.part != Part::Counted {
                continue;
            }
            if let Some(channel) = channel {
                self.run.marks[channel as usize].join();
            }
            counted.push(slot);
        }
        let decodes = match (known, self.orders.sample) {
            (None, _) | (_, Sample::All) => counted.len(),
            (Some(_), Sample::Clients(clients)) => {
                let share = self.share(clients).max(1);
                share.min(counted.len())
            }
        };
        let mut is_sampled = vec![false; counted.len()];
        if let Some(stride) = counted.len().checked_div(decodes) {
            for sample in 0..decodes {
                // The offset walks, so that a stride that is a multiple of the channels does not
                // always hit the same one.
                is_sampled[sample * stride + sample % stride] = true;
            }
        }
        for (slot, is_sampled) in counted.into_iter().zip(is_sampled) {
            let client = &mut self.clients[slot as usize];
            let number = self.orders.first_client + u64::from(slot) * self.crews + self.index;
            if is_sampled && let Some(talk) = client.speak_again(number) {
                talk.ledger = Some(Ledger::default());
                self.aim(slot, Reading::Receive);
            } else {
                self.aim(slot, Reading::Skim);
            }
        }
    }
}

impl Client {
    /// A run begins. Whether the one before ended between two messages decides if it can decode.
    fn begin(&mut self, was_even: bool) {
        if self.talk.is_none() && !was_even {
            self.spoken = UNHEARD;
        }
        self.position = 0;
        self.bytes = 0;
        if let Some(talk) = &mut self.talk {
            talk.ledger = None;
        }
        if self.part != Part::Stalled {
            let is_open = self.stage == Stage::Open;
            self.part = if is_open { Part::Counted } else { Part::Idle };
        }
    }
}
