//! The turn: completions, letters, timers, sweeps, one system call, and what it left.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::base::limits;
use crate::base::metrics::{Latency, Metric};
use crate::base::socket::Socket;
use crate::ring::kernel::KernelRing;
use crate::ring::{Completion, End, Operation, Ring, Wait};
use crate::wire::pusher::CloseCode;

use super::connections::{Http, Protocol, State};
use super::{Control, Engine};

/// A shard: the engine and the ring that serves it.
pub struct Shard<R: Ring> {
    pub ring: R,
    pub engine: Engine,
}

/// A turn that has come to its system call, in which the shard may sleep.
#[must_use = "a turn that was begun is finished after the ring's enter"]
pub struct Begun {
    /// What the ring is to be entered with.
    pub wait: Wait,
    work: u64,
    is_idle: bool,
}

/// The time that a shard begins at, so that what is older than the process has a time too: as old as
/// anything that is retained.
pub const BEGIN_MS: u64 = limits::RETENTION_S_MAX * 1000;

/// Runs a shard, whose engine was made at [`BEGIN_MS`], on this thread until all shards are drained or told
/// to stop. The ring stays with the caller: other shards may wake it until they have returned too.
pub fn run(shard: &mut Shard<KernelRing>, control: &Control) {
    let spin_us = shard.engine.options.spin_us;
    let drain_ms = shard.engine.options.drain_ms;
    let begin = Duration::from_millis(BEGIN_MS);
    let start = Instant::now();
    let mut idle_since = begin;
    let (mut wall_s, mut wall_read) = (0, None);
    let mut was_counted = false;
    loop {
        // The one look at the clock of a turn. The wall clock is asked once a second.
        let now = begin + start.elapsed();
        if wall_read.replace(now.as_secs()) != Some(now.as_secs()) {
            let wall = SystemTime::now().duration_since(UNIX_EPOCH);
            wall_s = wall.map_or(0, |since| since.as_secs());
        }
        let phase = control.phase.load(Acquire);
        // Read before the turn, which then finds every letter that was posted before.
        let are_all_drained = control.drained.load(Acquire) == shard.engine.mesh.shards();
        if phase == Control::STOPPED {
            return;
        }
        if phase == Control::DRAINING {
            shard.engine.advance_to(now);
            shard.engine.begin_drain(drain_ms);
            if !was_counted && shard.engine.is_drained() {
                was_counted = true;
                control.drained.fetch_add(1, Release);
            }
        }
        let may_sleep = (now - idle_since).as_micros() as u64 >= spin_us;
        let work = match shard.turn(now, wall_s, may_sleep) {
            Ok(work) => work,
            Err(error) => panic!("the ring is unusable: {error}"),
        };
        if work.is_some() {
            idle_since = now;
        }
        if are_all_drained {
            return;
        }
    }
}

impl<R: Ring> Shard<R> {
    /// One turn, which begins `now`, counted from when the shard began, and at `wall_s` seconds
    /// since 1970. Gives the number of completions and sends, or nothing if there was nothing to do.
    pub fn turn(
        &mut self,
        now: Duration,
        wall_s: u64,
        may_sleep: bool,
    ) -> std::io::Result<Option<u64>> {
        let begun = self.begin(now, wall_s, may_sleep);
        self.ring.enter(&self.engine.batch(), begun.wait)?;
        Ok(self.finish(begun))
    }

    /// The turn up to its system call: [`Ring::enter`] with the engine's batch.
    pub fn begin(&mut self, now: Duration, wall_s: u64, may_sleep: bool) -> Begun {
        let engine = &mut self.engine;
        engine.advance_to(now);
        engine.wall_s = wall_s;
        let mut completions = self.ring.take_completions();
        let mut work = completions.len() as u64;
        for completion in completions.drain(..) {
            match completion {
                Completion::Received { socket, buffer } => {
                    let bytes = self.ring.received(&buffer);
                    if engine.connections.is_current(socket) {
                        engine.on_received(socket.slot, bytes);
                    }
                    self.ring.recycle(buffer);
                }
                Completion::Accepted { socket, peer } => engine.on_accepted(socket, peer),
                Completion::ReceiveEnded { socket, why } => engine.on_receive_ended(socket, why),
                Completion::Writable { socket } => {
                    if engine.connections.is_current(socket) {
                        engine.on_writable(socket.slot);
                    }
                }
                Completion::Closed { socket } => engine.on_closed(socket),
                Completion::Moved { socket, outcome } => engine.on_moved(socket, outcome),
                Completion::Arrived { socket } => engine.on_arrived(socket),
                Completion::Woken => {}
                Completion::Connected { .. } | Completion::Skimmed { .. } => {
                    unreachable!("a shard is no client")
                }
            }
        }
        self.ring.put_completions(completions);
        let queries = engine.queries.len();
        work += engine.read_letters();
        engine.answer_queries(queries);
        work += engine.read_verdicts();
        engine.conclude_here();
        engine.answer_own_asks();
        engine.fetch_backlogs();
        engine.read_flushed();
        engine.on_timers();
        engine.retry_parked();
        engine.review_delivered();
        engine.end_doomed();
        engine.free_vacated();
        engine.accept_more();
        engine.review_counts();
        // From here to the end of `settle` nobody may leave: what is planned names places.
        engine.sweep();
        engine.post_owed();
        engine.wake_sleepers();
        engine.wake_edge();
        work += engine.planned.len() as u64;
        for operation in engine.operations.drain(..) {
            self.ring.push(operation);
        }
        let is_idle = work == 0 && !engine.has_work();
        let sleeps = is_idle && may_sleep && engine.mesh.try_sleep();
        let wait = if sleeps {
            Wait::Milliseconds(engine.sleep_ms())
        } else {
            Wait::Poll
        };
        engine.last_turn = (!is_idle).then_some(engine.planned.len());
        Begun {
            wait,
            work,
            is_idle,
        }
    }

    /// The turn after its system call.
    pub fn finish(&mut self, begun: Begun) -> Option<u64> {
        let engine = &mut self.engine;
        match begun.wait {
            Wait::Milliseconds(_) => engine.mesh.wake_up(),
            Wait::Poll => {}
        }
        let mut short_sends = self.ring.take_short_sends();
        engine.settle(&short_sends);
        engine.relieve_logs();
        engine.survey_lag();
        engine.count_reached();
        short_sends.clear();
        self.ring.put_short_sends(short_sends);
        engine.count_turn(self.ring.tally());
        (!begun.is_idle).then_some(begun.work)
    }
}

impl Engine {
    /// It is `now`: what the last turn did has taken until here.
    fn advance_to(&mut self, now: Duration) {
        let now_us = now.as_micros() as u64;
        let spent_us = now_us - self.now_us;
        self.now_us = now_us;
        self.now_ms = now_us / 1_000;
        self.now_s = now.as_secs() as u32;
        if let Some(visits) = self.last_turn.take() {
            self.pace.learn(visits, spent_us);
            self.latencies.record(Latency::Turn, spent_us);
            if spent_us > self.metrics.read(Metric::LongestTurn) {
                self.metrics.set(Metric::LongestTurn, spent_us);
            }
        }
        for began_us in self.laps.drain(..) {
            self.latencies.record(Latency::Lap, now_us - began_us);
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.channels.is_moving()
            || !self.gather.is_empty()
            || !self.owing.is_empty()
            || !self.congestion_news.is_empty()
            || !self.asks.is_empty()
            || !self.own_asks.is_empty()
            || !self.fetches.is_empty()
            || !self.flushed.is_empty()
            || !self.queries.is_empty()
            || !self.reach_counts.is_empty()
            || !self.exits.is_empty()
            || !self.conclusions.is_empty()
            || !self.transfers.is_empty()
            || !self.delivered.is_empty()
            || !self.doomed.is_empty()
            || !self.broken.is_empty()
            || self.survey.is_under_way()
    }

    /// Whether something is to be looked at once a second.
    fn needs_housekeeping(&self) -> bool {
        self.channels.log_bytes() > 0
            || !self.parked.is_empty()
            || !self.counts_due.is_empty()
            || !self.retaining.is_empty()
            || self.latencies.has_values()
            || self.survey.is_needed()
            || self.connections.is_anybody_behind()
    }

    /// Time until something is due.
    fn sleep_ms(&self) -> u64 {
        let housekeeping = match self.needs_housekeeping() {
            true => self.housekeeping_ms + limits::HOUSEKEEPING_MS,
            false => self.now_ms + 60_000,
        };
        let accepts = match self.accepts_paused_until_ms > self.now_ms {
            true => self.accepts_paused_until_ms,
            false => u64::MAX,
        };
        let drained = match self.is_draining {
            true => self.now_ms + limits::DRAINED_LOOK_MS,
            false => u64::MAX,
        };
        let timer = self.wheel.next_deadline_ms().unwrap_or(u64::MAX);
        timer
            .min(housekeeping)
            .min(accepts)
            .min(drained)
            .saturating_sub(self.now_ms)
            .max(1)
    }

    fn read_letters(&mut self) -> u64 {
        let mut letters = 0;
        for shard in 0..self.mesh.shards() as u16 {
            for _ in 0..limits::LANE_LETTERS {
                let Some(letter) = self.mesh.pop(shard) else {
                    break;
                };
                self.read_letter(shard, letter);
                letters += 1;
            }
        }
        letters
    }

    fn wake_sleepers(&mut self) {
        self.mesh.take_sleepers(&mut self.sleepers);
        for shard in self.sleepers.drain(..) {
            self.metrics.add(Metric::Wakes, 1);
            self.operations.push(Operation::Wake { shard });
        }
    }

    fn count_turn(&mut self, tally: crate::ring::Tally) {
        self.metrics.add(Metric::Turns, 1);
        self.metrics.set(Metric::Enters, tally.enters);
        self.metrics.set(Metric::Completions, tally.completions);
        self.metrics
            .set(Metric::LogBytes, self.channels.log_bytes() as u64);
        self.metrics
            .set(Metric::RetainedBytes, self.holdings.bytes() as u64);
        self.metrics
            .set(Metric::Channels, self.channels.len() as u64);
    }

    /// Has as many accepts waiting as there is room for.
    fn accept_more(&mut self) {
        if self.is_draining || self.now_ms < self.accepts_paused_until_ms {
            return;
        }
        while self.accepts_waiting < limits::ACCEPTS_WAITING {
            let Some(socket) = self.connections.take_slot() else {
                if !self.is_table_full && self.accepts_waiting == 0 {
                    self.metrics.add(Metric::ListenerPauses, 1);
                    self.is_table_full = true;
                }
                return;
            };
            self.is_table_full = false;
            self.accepts_waiting += 1;
            self.operations.push(Operation::Accept { socket });
        }
    }

    fn on_accepted(&mut self, socket: Socket, peer: std::io::Result<std::net::SocketAddr>) {
        self.accepts_waiting -= 1;
        let slot = socket.slot;
        match peer {
            Ok(peer) => {
                self.metrics.add(Metric::Accepted, 1);
                self.metrics.add(Metric::Connections, 1);
                let connection = &mut self.connections[slot];
                connection.state = State::Open;
                connection.peer = peer.into();
                connection.heard_s = self.now_s;
                let http = Http {
                    begun_ms: Some(self.now_ms),
                    ..Http::default()
                };
                connection.protocol = Protocol::Http(Box::new(http));
                self.wheel
                    .set(slot, self.now_ms + self.handshake_timeout_ms());
                self.receive(slot);
            }
            Err(_) => {
                self.connections.free_slot(slot);
                if !self.is_draining {
                    self.metrics.add(Metric::AcceptsFailed, 1);
                    self.accepts_paused_until_ms = self.now_ms + limits::ACCEPT_RETRY_MS;
                }
            }
        }
    }

    /// Whether connections beyond those that are served are open: the last to come are there to be
    /// answered and to go.
    pub(super) fn is_over_capacity(&self) -> bool {
        self.metrics.read(Metric::Connections) > u64::from(self.connections_max)
    }

    pub(super) fn handshake_timeout_ms(&self) -> u64 {
        let timeout_ms = self.options.handshake_timeout_ms;
        match self.is_over_capacity() {
            true => timeout_ms.min(limits::RESERVE_HANDSHAKE_MS),
            false => timeout_ms,
        }
    }

    pub fn receive(&mut self, slot: u32) {
        self.connections[slot].is_receiving = true;
        let socket = self.connections.socket(slot);
        self.operations.push(Operation::Receive { socket });
    }

    fn on_receive_ended(&mut self, socket: Socket, why: End) {
        if !self.connections.is_current(socket) {
            return;
        }
        let slot = socket.slot;
        self.connections[slot].is_receiving = false;
        match self.connections[slot].state {
            State::Ending => return self.close_slot(slot),
            State::Departing => return self.on_departing_receive_ended(slot, why),
            State::Open | State::Flushing | State::Lingering => {}
            State::Free | State::Accepting | State::Closing | State::Moving | State::Arriving => {
                return;
            }
        }
        match why {
            End::Rearm => {
                let waiting = self.connections[slot].waiting.as_ref();
                if !waiting.is_some_and(|waiting| waiting.is_full()) {
                    self.receive(slot);
                }
            }
            End::Broken(errno) => {
                self.tell(
                    slot,
                    format_args!("the connection is broken: errno {errno}"),
                );
                self.end(slot);
            }
            End::EndOfStream => self.on_ended(slot),
        }
    }

    /// The peer sends no more.
    pub(super) fn on_ended(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        connection.has_ended = true;
        let is_receiver = matches!(connection.protocol, Protocol::Receiver { .. });
        if connection.state == State::Lingering || is_receiver {
            self.end(slot);
        } else if !connection.is_waiting() {
            self.close_after_flush(slot);
        } else {
            self.hurry_poll(slot);
        }
    }

    /// No more is written than what is in the outbox; then the connection ends. Its subscriptions
    /// end at once: what follows happens while nobody may leave.
    pub fn close_after_flush(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        if connection.state != State::Open {
            return;
        }
        self.end_subscriptions(slot);
        let connection = &mut self.connections[slot];
        connection.state = State::Flushing;
        connection.protocol = Protocol::Absent;
        self.leave_quota(slot);
        self.leave_poll(slot);
        let connection = &mut self.connections[slot];
        if let Some(waiting) = connection.waiting.take() {
            self.connections.put_back(waiting);
        }
        self.gather.push((slot, 0));
        self.connections.refresh_direct(slot);
        let limit = limits::LINGER_MS.max(self.options.handshake_timeout_ms);
        self.wheel.set(slot, self.now_ms + limit);
        if self.connections[slot].outbox.is_none() {
            self.linger(slot);
        }
    }

    /// The connection does not count for its app any more.
    pub(super) fn leave_quota(&mut self, slot: u32) {
        if let Some(app) = self.connections[slot].counted_for.take() {
            self.apps.app(app).quota.give_connection_back();
        }
    }

    /// Everything is sent: the peer is told, and may end its side.
    fn linger(&mut self, slot: u32) {
        if self.connections[slot].has_ended {
            return self.end(slot);
        }
        self.connections[slot].state = State::Lingering;
        let socket = self.connections.socket(slot);
        self.operations.push(Operation::ShutdownWrite { socket });
        if !self.connections[slot].is_receiving {
            self.receive(slot);
        }
        self.wheel.set(slot, self.now_ms + limits::LINGER_MS);
    }

    /// A gathered send is accounted for: what the outbox held has gone, or waits.
    pub fn on_gathered_sent(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        if let Some(outbox) = connection.outbox.as_ref()
            && outbox.sent == outbox.bytes.len()
        {
            let is_flushed = connection.state == State::Flushing;
            let waiting = connection.waiting.as_ref();
            if waiting.is_some_and(|waiting| waiting.is_flushing) {
                self.flushed.push(self.connections.socket(slot));
            }
            self.connections.empty_outbox(slot);
            if is_flushed {
                self.linger(slot);
            }
        }
        self.connections.refresh_direct(slot);
        self.review_backlogs(slot);
        self.on_carried(slot);
    }

    /// Ends the connection now, whatever was to be sent.
    pub(super) fn end(&mut self, slot: u32) {
        match self.connections[slot].state {
            State::Open | State::Flushing | State::Lingering | State::Departing => {}
            State::Free
            | State::Accepting
            | State::Ending
            | State::Closing
            | State::Moving
            | State::Arriving => return,
        }
        if self.connections[slot].is_session() {
            return self.end_session(slot);
        }
        self.end_subscriptions(slot);
        self.leave_quota(slot);
        self.leave_poll(slot);
        let connection = &mut self.connections[slot];
        connection.state = State::Ending;
        let protocol = std::mem::replace(&mut connection.protocol, Protocol::Absent);
        if let Some(waiting) = connection.waiting.take() {
            self.connections.put_back(waiting);
        }
        self.connections.empty_outbox(slot);
        if let Protocol::Receiver { session } = protocol {
            self.on_receiver_lost(session);
        }
        self.connections.refresh_direct(slot);
        self.wheel.clear(slot);
        self.metrics.subtract(Metric::Connections, 1);
        let connection = &self.connections[slot];
        if connection.is_receiving || connection.is_blocked {
            let socket = self.connections.socket(slot);
            self.operations.push(Operation::Shutdown { socket });
        }
        if !self.connections[slot].is_receiving {
            self.close_slot(slot);
        }
    }

    fn close_slot(&mut self, slot: u32) {
        self.connections[slot].state = State::Closing;
        let socket = self.connections.socket(slot);
        self.operations.push(Operation::Close { socket });
    }

    fn on_closed(&mut self, socket: Socket) {
        self.connections.free_slot(socket.slot);
    }

    /// Closes those that fell behind their log, with the code behind what they were sent; ends those whose socket is broken.
    fn end_doomed(&mut self) {
        while let Some(slot) = self.doomed.pop() {
            if self.connections[slot].state == State::Open {
                self.metrics.add(Metric::SlowClosed, 1);
                self.tell(slot, "the subscriber's next frame has left the log");
                let code = CloseCode::OverCapacity;
                self.close_websocket(slot, code.number(), code.reason());
            }
        }
        while let Some(slot) = self.broken.pop() {
            self.end(slot);
        }
    }

    fn on_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.now_ms, &mut due);
        for slot in due.drain(..) {
            self.on_timer(slot);
        }
        self.due = due;
        if self.now_ms >= self.housekeeping_ms + limits::HOUSEKEEPING_MS {
            self.housekeeping_ms = self.now_ms;
            self.has_relief = true;
            self.review_held();
            self.forget_cached();
            self.forget_retained();
            self.tell_due_counts();
            self.latencies.tell(self.now_s, &self.metrics);
            self.shrink_queues();
            self.survey.begin();
        }
    }
}
