//! One thread's clients: a ring, and a turn that hands over what they send and reads what came.
//!
//! A slot of the ring is a client's place here. Client `slot` of crew `index` of `crews` has the number
//! `first_client + slot * crews + index`, so that every crew has clients on every channel. Regular clients hold the
//! lowest slots; guests use what is left above them.
//!
//! Counters of what is under way decide when a command is carried out: `opening`, `closing`, `switching` (what waits
//! in the kernel is not yet what shall) and `asking` (subscriptions that are not confirmed).

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

use crate::load::dialect::{Dialect, dialect};
use crate::load::machine;
use crate::load::orders::{Answer, Channels, Command, Manner, Orders, Wrong};
use crate::load::result::LatencyHistogram;
use crate::ring::kernel::{KernelRing, Route, Settings, Waker};
use crate::ring::{Completion, End, Operation, Ring, Socket, Wait};

use super::client::{Client, Part, Reading, Stage, Talk};
use super::outbox::Outbox;
use super::run::{Run, of_connection, order_of};
use super::unit::Numbered;

mod commands;
mod guests;
mod hearing;
mod stalls;

use commands::Task;
use guests::Guests;
use hearing::Learnt;
use stalls::Stalls;

/// Attempts to open that may fail between two commands.
const FAILURES_MAX: u64 = 1_000;
/// A client whose attempt failed tries again so much later, so that a server that has no room is not asked in a loop.
const RETRY_NS: u64 = 5_000_000;
/// How long a turn may sleep when nothing is due.
const SLEEP_MS: u64 = 1_000;

const SUBMISSION_ENTRIES: u32 = 2_048;
const RECEIVE_BUFFERS: u16 = 256;
const RECEIVE_BUFFER_BYTES: u32 = 16 << 10;
/// Skims that one turn can tell: a message to every client of the crew.
const SKIMS_MAX: usize = 1 << 15;

pub struct Crew {
    orders: Orders,
    core: usize,
    index: u64,
    crews: u64,
    dialect: Box<dyn Dialect>,
    /// Of shared channels.
    names: Vec<Box<str>>,
    ring: KernelRing,
    routes: Vec<u16>,
    clients: Vec<Client>,
    /// Regular clients: those that shall be open.
    size: usize,
    outbox: Outbox,
    scratch: Vec<u8>,
    reply: Vec<u8>,
    now_ns: u64,
    run: Run,
    learnt: Learnt,
    opening: usize,
    open: usize,
    closing: usize,
    switching: usize,
    asking: usize,
    to_open: VecDeque<u32>,
    /// Where a pace was asked for: when the next one may be opened, and how far they lie apart.
    pace: Option<(u64, f64)>,
    retry_ns: u64,
    failures: u64,
    opened: LatencyHistogram,
    /// As `opened`, from the beginning of the command.
    joined: LatencyHistogram,
    handshakes: u64,
    greeted_ns: u64,
    guests: Guests,
    stalls: Stalls,
    task: Option<Task>,
    queue: VecDeque<Numbered<Command>>,
    progress_ns: u64,
    failed: Option<String>,
}

impl Crew {
    /// Called on the crew's own thread.
    pub fn new(orders: Orders, index: usize, crews: usize) -> io::Result<Crew> {
        let core = match orders.cores.as_slice() {
            [] => machine::cores().first().copied().unwrap_or(0),
            cores => cores[index % cores.len()],
        };
        machine::pin(core)?;
        let slots = orders.clients_max.div_ceil(crews).max(1);
        let skims = slots.next_power_of_two().clamp(64, SKIMS_MAX);
        let mut ring = KernelRing::new(Settings {
            file_slots: slots as u32,
            submission_entries: SUBMISSION_ENTRIES,
            completion_entries: (skims as u32).max(SUBMISSION_ENTRIES),
            receive_buffers: RECEIVE_BUFFERS,
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
            accepts: 1,
            skims: skims as u16,
        })
        .map_err(io::Error::other)?;
        let missing = ring.missing_to_connect()?;
        if !missing.is_empty() {
            let why = format!("this kernel cannot {}; 6.11 can", missing.join(", "));
            return Err(io::Error::other(why));
        }
        let routes = routes(&orders, &mut ring);
        let names = match &orders.channels {
            Channels::None | Channels::Own { .. } => Vec::new(),
            Channels::Shared { count, .. } => (0..*count)
                .map(|channel| orders.channels.name(channel).into())
                .collect(),
        };
        Ok(Crew {
            dialect: dialect(&orders.speech, orders.target, &orders.channels),
            orders,
            core,
            index: index as u64,
            crews: crews as u64,
            names,
            ring,
            routes,
            clients: (0..slots).map(|_| Client::new()).collect(),
            size: 0,
            outbox: Outbox::default(),
            scratch: Vec::new(),
            reply: Vec::new(),
            now_ns: machine::monotonic_ns(),
            run: Run::default(),
            learnt: Learnt::default(),
            opening: 0,
            open: 0,
            closing: 0,
            switching: 0,
            asking: 0,
            to_open: VecDeque::new(),
            pace: None,
            retry_ns: 0,
            failures: 0,
            opened: LatencyHistogram::new(),
            joined: LatencyHistogram::new(),
            handshakes: 0,
            greeted_ns: 0,
            guests: Guests::default(),
            stalls: Stalls::default(),
            task: None,
            queue: VecDeque::new(),
            progress_ns: 0,
            failed: None,
        })
    }

    pub fn waker(&self) -> Waker {
        self.ring.waker()
    }

    /// Turns until nobody tells it anything any more, or until it has failed.
    pub fn work(&mut self, told: &Receiver<Numbered<Command>>, answers: &Sender<Numbered<Answer>>) {
        loop {
            loop {
                match told.try_recv() {
                    Ok((number, Command::Glance)) => {
                        let glance = self.glance();
                        if answers.send((number, Answer::Glance(glance))).is_err() {
                            return;
                        }
                    }
                    Ok(command) => self.queue.push_back(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let turned = self.turn();
            let answer = match (turned, self.failed.take()) {
                (Err(error), _) => Some((self.number_of_task(), Answer::Failed(error.to_string()))),
                (Ok(_), Some(why)) => Some((self.number_of_task(), Answer::Failed(why))),
                (Ok(answer), None) => answer,
            };
            let Some(answer) = answer else { continue };
            let has_failed = matches!(answer.1, Answer::Failed(_));
            if answers.send(answer).is_err() || has_failed {
                return;
            }
        }
    }

    /// One system call and what follows from it; gives the answer to a command that is carried out by now.
    fn turn(&mut self) -> io::Result<Option<Numbered<Answer>>> {
        if let Some(answer) = self.begin_next() {
            return Ok(Some(answer));
        }
        self.open_more();
        self.stall_on();
        self.invite();
        self.outbox.seal();
        let wait = self.wait();
        if self.now_ns > 0 {
            let us = (machine::monotonic_ns() - self.now_ns) / 1_000;
            self.run.turns.record_us(us);
        }
        self.ring.enter(&self.outbox, wait)?;
        self.now_ns = machine::monotonic_ns();
        self.look_after_short_sends();
        self.outbox.clear();
        let mut completions = self.ring.take_completions();
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.ring.put_completions(completions);
        Ok(self.end_task())
    }

    fn wait(&self) -> Wait {
        let has_next = self.task.is_none() && !self.queue.is_empty();
        let has_answer = self.task.is_some() && self.is_carried_out();
        if has_next || has_answer {
            return Wait::Poll;
        }
        let is_paced = self.pace.is_some() && !self.to_open.is_empty();
        let soon = is_paced || self.guests.are_coming() || !self.to_open.is_empty();
        let milliseconds = match (soon, self.stalls.tick_ms()) {
            (true, _) => 1,
            (false, Some(tick_ms)) => tick_ms,
            (false, None) => SLEEP_MS,
        };
        Wait::Milliseconds(milliseconds)
    }

    fn look_after_short_sends(&mut self) {
        let mut short = self.ring.take_short_sends();
        for send in short.drain(..) {
            let slot = crate::ring::Sends::slot(&self.outbox, send.index as usize);
            if self.outbox.keep(send) {
                let socket = self.clients[slot as usize].socket(slot);
                self.ring.push(Operation::AwaitWritable { socket });
            }
        }
        self.ring.put_short_sends(short);
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Skimmed { socket, bytes } => self.on_skimmed(socket, bytes),
            Completion::Received { socket, buffer } => self.on_received(socket, buffer),
            Completion::ReceiveEnded { socket, why } => self.on_receive_ended(socket, why),
            Completion::Connected { socket, outcome } => self.on_connected(socket, outcome),
            Completion::Closed { socket } => self.on_closed(socket),
            Completion::Writable { socket } => {
                if self.is_current(socket) {
                    self.outbox.release(socket.slot);
                }
            }
            Completion::Woken => {}
            Completion::Accepted { .. } | Completion::Moved { .. } | Completion::Arrived { .. } => {
                unreachable!("a crew neither listens nor moves connections")
            }
        }
    }

    fn is_current(&self, socket: Socket) -> bool {
        self.clients[socket.slot as usize].generation == socket.generation
    }

    /// The client's number between all units.
    fn number(&self, slot: u32) -> u64 {
        self.orders.first_client + u64::from(slot) * self.crews + self.index
    }

    /// The shared channel that a client is on.
    fn channel(&self, slot: u32) -> Option<u64> {
        match &self.orders.channels {
            Channels::None => Some(0),
            Channels::Shared { count, .. } => Some(self.number(slot) % count),
            Channels::Own { .. } => None,
        }
    }

    fn channel_name(&self, slot: u32) -> &str {
        let channel = self.channel(slot).unwrap_or(0);
        self.names.get(channel as usize).map_or("", |name| name)
    }

    fn is_guest(&self, slot: u32) -> bool {
        self.clients[slot as usize].part == Part::Guest
    }

    /// Opens as many as may be on their way and as the pace allows.
    fn open_more(&mut self) {
        let opening_max = self.share(self.orders.opening_max).max(1);
        while !self.to_open.is_empty() && self.opening < opening_max {
            let now_ns = machine::monotonic_ns();
            if now_ns < self.retry_ns {
                return;
            }
            if let Some((next_ns, apart_ns)) = &mut self.pace {
                if now_ns < *next_ns {
                    return;
                }
                *next_ns += *apart_ns as u64;
            }
            let Some(slot) = self.to_open.pop_front() else {
                return;
            };
            self.opening += 1;
            self.connect(slot, now_ns);
        }
    }

    fn connect(&mut self, slot: u32, now_ns: u64) {
        let number = self.number(slot);
        let route = self.routes[(number % self.routes.len() as u64) as usize];
        let client = &mut self.clients[slot as usize];
        assert_eq!(client.stage, Stage::Vacant, "a client is opened once");
        client.stage = Stage::Connecting;
        let mut talk = Box::<Talk>::default();
        talk.speaker.client = number;
        talk.began_ns = now_ns;
        client.talk = Some(talk);
        let socket = client.socket(slot);
        self.ring.push(Operation::Connect { socket, route });
    }

    fn on_connected(&mut self, socket: Socket, outcome: Result<(), i32>) {
        let slot = socket.slot;
        if let Err(errno) = outcome {
            let words = io::Error::from_raw_os_error(errno).to_string();
            self.leave_slot(slot);
            return self.note_failure(slot, words);
        }
        self.progress_ns = self.now_ns;
        let client = &mut self.clients[slot as usize];
        client.stage = Stage::Greeting;
        let mut talk = client.talk.take().expect("it is about to talk");
        self.outbox
            .write(slot, |out| self.dialect.open(&mut talk.speaker, out));
        self.clients[slot as usize].talk = Some(talk);
        self.aim(slot, Reading::Receive);
        if self.dialect.is_greeted_at_once() {
            let mut talk = self.clients[slot as usize].talk.take();
            self.on_greeted(slot, talk.as_mut().expect("it was just there"));
            self.clients[slot as usize].talk = talk;
        }
    }

    /// An attempt to open came to nothing; the slot is empty, or will be.
    fn note_failure(&mut self, slot: u32, words: String) {
        if self.is_guest(slot) {
            self.run.churn.failures += 1;
            if self.clients[slot as usize].stage == Stage::Vacant {
                self.free_guest(slot);
            }
            return;
        }
        self.opening -= 1;
        self.failures += 1;
        self.retry_ns = self.now_ns + RETRY_NS;
        if self.failures > FAILURES_MAX {
            self.failed = Some(format!(
                "{} attempts to open a client failed, the last one with: {words}",
                self.failures
            ));
        }
        match self.clients[slot as usize].stage {
            Stage::Vacant => self.to_open.push_back(slot),
            Stage::Connecting | Stage::Greeting | Stage::Open | Stage::Closing => {
                self.clients[slot as usize].comes_again = true;
            }
        }
    }

    /// What shall wait in the kernel for this client from now on.
    fn aim(&mut self, slot: u32, wanted: Reading) {
        let client = &mut self.clients[slot as usize];
        let was_switching = client.is_switching();
        client.wanted = wanted;
        let socket = client.socket(slot);
        match client.reading {
            Reading::Nothing => self.arm(slot),
            reading if reading == wanted => {}
            Reading::Receive => self.ring.push(Operation::StopReceiving { socket }),
            Reading::Skim | Reading::SkimSome => self.ring.push(Operation::StopSkimming { socket }),
        }
        self.note_switch(slot, was_switching);
    }

    fn note_switch(&mut self, slot: u32, was_switching: bool) {
        match (was_switching, self.clients[slot as usize].is_switching()) {
            (false, true) => self.switching += 1,
            (true, false) => self.switching -= 1,
            (true, true) | (false, false) => {}
        }
    }

    /// Nothing waits: now that which shall.
    fn arm(&mut self, slot: u32) {
        let keeps_talk = matches!(self.orders.channels, Channels::Own { .. });
        let client = &mut self.clients[slot as usize];
        let socket = client.socket(slot);
        let is_mid_frame = client
            .talk
            .as_ref()
            .is_some_and(|talk| !talk.unread.is_empty());
        if client.wanted == Reading::Skim && is_mid_frame && client.part != Part::Guest {
            // A message has begun: this client reads on to see its end.
            client.wanted = Reading::Receive;
        }
        match client.wanted {
            Reading::Nothing | Reading::SkimSome => return,
            Reading::Receive => self.ring.push(Operation::Receive { socket }),
            Reading::Skim => self.ring.push(Operation::Skim { socket }),
        }
        client.reading = client.wanted;
        if client.reading == Reading::Skim && !keeps_talk {
            client.hush();
        }
    }

    fn on_receive_ended(&mut self, socket: Socket, why: End) {
        if !self.is_current(socket) {
            return;
        }
        let slot = socket.slot;
        let client = &mut self.clients[slot as usize];
        let was_switching = client.is_switching();
        client.reading = Reading::Nothing;
        if client.stage == Stage::Closing {
            self.ring.push(Operation::Close { socket });
            return;
        }
        let words = match why {
            End::Rearm => {
                self.arm(slot);
                return self.note_switch(slot, was_switching);
            }
            End::EndOfStream => "end of stream".to_owned(),
            End::Broken(errno) => io::Error::from_raw_os_error(errno).to_string(),
        };
        client.wanted = Reading::Nothing;
        self.note_switch(slot, was_switching);
        let said = self.clients[slot as usize]
            .talk
            .as_mut()
            .and_then(|talk| talk.words.take());
        self.end_by_server(slot, Wrong::Closed, said.unwrap_or(words));
    }

    /// The server ended the connection, or what it said ended it.
    fn end_by_server(&mut self, slot: u32, what: Wrong, words: String) {
        let client = &self.clients[slot as usize];
        let (stage, part, position) = (client.stage, client.part, client.position);
        let channel = self.channel(slot);
        let name = self.channel_name(slot).to_owned();
        let number = self.number(slot);
        self.run.last_words = Some(words.clone());
        match part {
            Part::Counted => {
                self.run.end(channel, &self.clients[slot as usize]);
                self.run.faults += u64::from(what == Wrong::Fault);
                let evidence = || of_connection(what, number, name, position, words.clone());
                self.run.note_evidence(evidence);
            }
            Part::Stalled => self.run.stalled_closed += 1,
            Part::Guest if stage == Stage::Open => self.run.churn.failures += 1,
            Part::Idle | Part::Guest => self.run.gone += 1,
        }
        self.close(slot);
        if stage == Stage::Greeting {
            self.note_failure(slot, words);
        }
    }

    /// A client goes as it was told.
    fn depart(&mut self, slot: u32, manner: Manner) {
        let client = &self.clients[slot as usize];
        let socket = client.socket(slot);
        if manner == Manner::Orderly && client.stage == Stage::Open && !self.outbox.is_blocked(slot)
        {
            self.outbox.write(slot, |out| self.dialect.goodbye(out));
            self.ring.push(Operation::ShutdownWrite { socket });
            self.mark_closing(slot);
            // Its reading ends with the server's end of stream.
            if self.clients[slot as usize].reading == Reading::Nothing {
                self.ring.push(Operation::Close { socket });
            }
            return;
        }
        self.close(slot);
    }

    /// Takes the connection down from this side, whatever is under way.
    fn close(&mut self, slot: u32) {
        let client = &self.clients[slot as usize];
        let socket = client.socket(slot);
        let reading = client.reading;
        if self.outbox.forget(slot) {
            // A poll waits too, and only a shutdown ends it.
            self.ring.push(Operation::Shutdown { socket });
        }
        match reading {
            Reading::Nothing => self.ring.push(Operation::Close { socket }),
            Reading::Receive => self.ring.push(Operation::StopReceiving { socket }),
            Reading::Skim | Reading::SkimSome => self.ring.push(Operation::StopSkimming { socket }),
        }
        self.mark_closing(slot);
    }

    fn mark_closing(&mut self, slot: u32) {
        self.leave_run(slot);
        let is_guest = self.is_guest(slot);
        let client = &mut self.clients[slot as usize];
        let was_switching = client.is_switching();
        client.wanted = client.reading;
        let was_open = client.stage == Stage::Open && !is_guest;
        let was_asking = was_open && client.talk.as_ref().is_some_and(|talk| !talk.is_settled());
        client.stage = Stage::Closing;
        self.open -= usize::from(was_open);
        self.asking -= usize::from(was_asking);
        self.closing += 1;
        self.note_switch(slot, was_switching);
    }

    /// The client takes no further part in what is counted.
    fn leave_run(&mut self, slot: u32) {
        let channel = self.channel(slot);
        let client = &mut self.clients[slot as usize];
        if client.part != Part::Counted {
            return;
        }
        client.part = Part::Idle;
        let position = client.position;
        if let Some(ledger) = client.talk.as_mut().and_then(|talk| talk.ledger.take()) {
            let gap_ns = ledger.arrival_gap_ns_max;
            self.run.arrival_gap_ns_max = self.run.arrival_gap_ns_max.max(gap_ns);
            self.run.left.add(&order_of(&ledger, position));
        }
        if let Some(marks) = channel.and_then(|channel| self.run.marks.get_mut(channel as usize)) {
            marks.leave(position, self.now_ns);
        }
    }

    fn on_closed(&mut self, socket: Socket) {
        let slot = socket.slot;
        self.closing -= 1;
        self.progress_ns = self.now_ns;
        self.leave_slot(slot);
        if self.is_guest(slot) {
            return self.free_guest(slot);
        }
        let client = &mut self.clients[slot as usize];
        client.part = Part::Idle;
        if std::mem::take(&mut client.comes_again) {
            self.to_open.push_back(slot);
        }
    }

    fn leave_slot(&mut self, slot: u32) {
        let client = &mut self.clients[slot as usize];
        client.stage = Stage::Vacant;
        client.reading = Reading::Nothing;
        client.wanted = Reading::Nothing;
        client.talk = None;
        client.generation = (client.generation + 1) % (1 << crate::base::socket::GENERATION_BITS);
    }
}

/// One route for each source address.
fn routes(orders: &Orders, ring: &mut KernelRing) -> Vec<u16> {
    let mut add = |from| {
        ring.add_route(Route {
            from,
            to: orders.target,
            receive_buffer_bytes: orders.receive_buffer_bytes,
        })
    };
    match orders.sources.as_slice() {
        [] => vec![add(None)],
        sources => sources.iter().map(|source| add(Some(*source))).collect(),
    }
}
