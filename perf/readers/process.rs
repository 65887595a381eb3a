//! The reader process: one thread, one epoll set, and commands on its standard input.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::connection::{Connection, Desk, subscriptions_at_first};
use super::{Answer, Command, Count, Latency, Orders, SampleCount};
use crate::companion::{answer, next_command};
use crate::machine;

/// Connections on their way at once: far below the listener's backlog.
const OPENING_MAX: usize = 128;
/// Connection attempts that may fail in all.
const FAILURES_MAX: usize = 1_000;
/// A command that makes no progress for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const EVENTS_MAX: usize = 1_024;
/// One receive may take all that a socket holds.
const SCRATCH_BYTES: usize = 4 << 20;
const COMMANDS: u64 = u64::MAX;

struct Process {
    orders: Orders,
    epoll: std::os::fd::OwnedFd,
    connections: Vec<Connection>,
    target: usize,
    wanted: usize,
    /// Connections with something left to do.
    unsettled: usize,
    closed: usize,
    failures: usize,
    desk: Desk,
    cpu_start_ns: u64,
}

/// Runs the process until the program that started it is gone.
pub fn serve() -> io::Result<()> {
    let Some(orders) = next_command::<Orders>()? else {
        return Ok(());
    };
    machine::pin(orders.core);
    machine::lift_open_files();
    let mut process = Process::new(orders)?;
    // Commands may come from here on: none of them is already in a buffer of standard input,
    // where epoll would not see it.
    process.answer_settled(Instant::now())?;
    match process.run() {
        Ok(()) => Ok(()),
        Err(error) => answer(&Answer::Failed(error.to_string())),
    }
}

impl Process {
    fn new(orders: Orders) -> io::Result<Process> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let commands = io::stdin();
        let data = EventData::new_u64(COMMANDS);
        epoll::add(&epoll, commands.as_fd(), data, EventFlags::IN)?;
        Ok(Process {
            wanted: subscriptions_at_first(&orders.speech),
            orders,
            epoll,
            connections: Vec::new(),
            target: 0,
            unsettled: 0,
            closed: 0,
            failures: 0,
            desk: Desk {
                scratch: vec![0; SCRATCH_BYTES],
                latency_us: Histogram::new_with_max(600_000_000, 3)
                    .expect("ten minutes with three digits is a valid range"),
                receives: 0,
            },
            cpu_start_ns: machine::own_cpu_ns(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            self.wait(&mut events, None)?;
            let mut is_commanded = false;
            for event in &events {
                is_commanded |= event.data.u64() == COMMANDS;
            }
            self.handle(&events)?;
            if is_commanded {
                let Some(command) = next_command::<Command>()? else {
                    return Ok(());
                };
                self.carry_out(command)?;
            }
        }
    }

    fn wait(&self, events: &mut Vec<Event>, limit: Option<Duration>) -> io::Result<()> {
        let limit = limit.map(|limit| rustix::event::Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        events.clear();
        let room = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.epoll, room, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn carry_out(&mut self, command: Command) -> io::Result<()> {
        let start = Instant::now();
        match command {
            Command::Connect { connections } => self.target = connections,
            Command::Disconnect { connections } => {
                self.target = connections;
                self.connections.truncate(connections);
                self.unsettled = 0;
            }
            Command::Subscribe { per_connection } => {
                self.wanted = per_connection;
                for connection in &mut self.connections {
                    let was_settled = connection.is_settled();
                    connection.want(per_connection, &self.orders)?;
                    self.unsettled += usize::from(was_settled && !connection.is_settled());
                }
            }
            Command::Count => self.count_from_here(),
            Command::Report => {
                let count = self.count();
                return answer(&Answer::Counted(Box::new(count)));
            }
            Command::Heartbeat => {
                for connection in &mut self.connections {
                    connection.heartbeat()?;
                }
            }
        }
        self.settle()?;
        self.answer_settled(start)
    }

    fn answer_settled(&self, since: Instant) -> io::Result<()> {
        answer(&Answer::Settled {
            connections: self.connections.len(),
            subscriptions: self.connections.iter().map(Connection::subscriptions).sum(),
            seconds: since.elapsed().as_secs_f64(),
        })
    }

    /// Works until every connection has done what was asked of it.
    fn settle(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut last_progress = Instant::now();
        loop {
            self.open_more()?;
            if self.unsettled == 0 && self.connections.len() == self.target {
                return Ok(());
            }
            self.wait(&mut events, Some(Duration::from_millis(100)))?;
            let is_progress = events.iter().any(|event| event.data.u64() != COMMANDS);
            if is_progress {
                last_progress = Instant::now();
            }
            self.handle(&events)?;
            if last_progress.elapsed() > PATIENCE {
                return Err(io::Error::other(format!(
                    "stuck: {} of {} connections opened, {} of them not settled, {} failures",
                    self.connections.len(),
                    self.target,
                    self.unsettled,
                    self.failures
                )));
            }
            if self.closed > 0 {
                return Err(io::Error::other(format!(
                    "the server closed {} connections; the last words were {:?}",
                    self.closed,
                    self.connections
                        .iter()
                        .find_map(|closed| closed.parting_words.as_ref())
                )));
            }
        }
    }

    fn open_more(&mut self) -> io::Result<()> {
        while self.connections.len() < self.target && self.unsettled < OPENING_MAX {
            let index = self.connections.len();
            let connection = self.start(index)?;
            self.connections.push(connection);
            self.unsettled += 1;
        }
        Ok(())
    }

    fn start(&mut self, index: usize) -> io::Result<Connection> {
        let number = self.orders.first_number + index;
        let connection = Connection::start(number, self.wanted, &self.orders)?;
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let data = EventData::new_u64(index as u64);
        epoll::add(&self.epoll, connection.descriptor(), data, interest)?;
        Ok(connection)
    }

    fn handle(&mut self, events: &[Event]) -> io::Result<()> {
        for event in events {
            let data = event.data;
            if data.u64() == COMMANDS {
                continue;
            }
            let flags = event.flags;
            self.handle_one(data.u64() as usize, flags)?;
        }
        Ok(())
    }

    fn handle_one(&mut self, index: usize, flags: EventFlags) -> io::Result<()> {
        let ended = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        let connection = &mut self.connections[index];
        if connection.is_closed() {
            return Ok(());
        }
        let was_settled = connection.is_settled();
        if flags.intersects(EventFlags::OUT | EventFlags::ERR)
            && let Err(error) = connection.on_writable(&self.orders)
        {
            return self.retry(index, error);
        }
        if flags.intersects(EventFlags::IN | ended) {
            connection.on_readable(&self.orders, &mut self.desk)?;
        }
        self.closed += usize::from(connection.is_closed());
        match (was_settled, connection.is_settled()) {
            (false, true) => self.unsettled -= 1,
            (true, false) => self.unsettled += 1,
            (true, true) | (false, false) => {}
        }
        Ok(())
    }

    /// A connection attempt failed: a new one takes its place.
    fn retry(&mut self, index: usize, error: io::Error) -> io::Result<()> {
        self.failures += 1;
        if self.failures > FAILURES_MAX {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(1));
        self.connections[index] = self.start(index)?;
        Ok(())
    }

    fn count_from_here(&mut self) {
        let sample = self.orders.sample.clamp(1, self.connections.len().max(1));
        let stride = (self.connections.len() / sample).max(1);
        let mut sampled = 0;
        for (index, connection) in self.connections.iter_mut().enumerate() {
            let is_sampled = index % stride == 0 && sampled < sample;
            sampled += usize::from(is_sampled);
            connection.count_from_here(is_sampled);
        }
        self.desk.latency_us.reset();
        self.desk.receives = 0;
        self.cpu_start_ns = machine::own_cpu_ns();
    }

    fn count(&self) -> Count {
        let mut sample = SampleCount::default();
        let mut frame_bytes = None;
        let mut is_uneven = false;
        for seen in self
            .connections
            .iter()
            .filter_map(|one| one.sample.as_ref())
        {
            sample.connections += 1;
            sample.messages += seen.messages;
            sample.gaps += seen.gaps;
            sample.missing += seen.missing();
            sample.repeated += seen.repeated;
            sample.reordered += seen.reordered;
            sample.arrival_gap_us_max = sample
                .arrival_gap_us_max
                .max(seen.arrival_gap_ns_max / 1_000);
            is_uneven |= seen.is_uneven
                || (frame_bytes.is_some()
                    && seen.frame_bytes.is_some()
                    && frame_bytes != seen.frame_bytes);
            frame_bytes = frame_bytes.or(seen.frame_bytes);
        }
        let latency = |quantile| self.desk.latency_us.value_at_quantile(quantile);
        sample.latency_us = Latency {
            p50: latency(0.5),
            p90: latency(0.9),
            p99: latency(0.99),
            p999: latency(0.999),
            max: self.desk.latency_us.max(),
        };
        let frame_bytes = if is_uneven { None } else { frame_bytes };
        let length = frame_bytes.unwrap_or(u64::MAX);
        let messages = || {
            self.connections
                .iter()
                .map(|connection| connection.bytes / length)
        };
        Count {
            connections: self.connections.len(),
            closed: self.closed,
            bytes: self
                .connections
                .iter()
                .map(|connection| connection.bytes)
                .sum(),
            receives: self.desk.receives,
            cpu_ns: machine::own_cpu_ns() - self.cpu_start_ns,
            frame_bytes,
            messages: messages().sum(),
            messages_min: messages().min().unwrap_or(0),
            messages_max: messages().max().unwrap_or(0),
            uneven: match frame_bytes {
                Some(length) => self
                    .connections
                    .iter()
                    .filter(|one| one.bytes % length != 0)
                    .count(),
                None => 0,
            },
            sample,
        }
    }
}
