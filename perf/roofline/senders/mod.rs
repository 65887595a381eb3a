//! Naked senders: what it costs to write one log to N connected sockets, and nothing else.
//!
//! A sender is a process of its own that accepts N connections, and then, run by run, sends a log
//! of messages that arrive on schedule. Every visit to a socket sends all from its cursor to the
//! log's head in one send: at a slow pace that is one message a visit, flat out it is many. Hot, a
//! visit sends one message and the next visit to the same socket follows at once.

use std::io;
use std::net::{SocketAddr, TcpListener};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use outpour::load::companion::{Companion, answer, next_command};
use outpour::load::machine;

mod log;
mod plain;
mod ring;
mod tokio_tasks;
mod tokio_uring_tasks;

pub use log::frame_bytes;

/// The hidden first argument that makes a program this process.
pub const ROLE: &str = "sender";

/// How a sender reaches the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Method {
    /// io_uring as the engine uses it: direct descriptors, sends that complete inside `enter`
    /// and are silent when they succeed, up to 1,024 of them a system call.
    Ring,
    /// One thread, one `send` a visit.
    Send,
    /// tokio-uring, a task per socket.
    TokioUring,
    /// tokio's current-thread runtime, a task per socket.
    Tokio,
}

impl Method {
    pub const ALL: [Method; 4] = [
        Method::Ring,
        Method::Send,
        Method::TokioUring,
        Method::Tokio,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Method::Ring => "io_uring",
            Method::Send => "send",
            Method::TokioUring => "tokio-uring",
            Method::Tokio => "tokio",
        }
    }
}

/// What the process is told first.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Orders {
    pub method: Method,
    pub core: usize,
    pub sockets: usize,
}

/// One run: so many messages, so many a second.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Schedule {
    pub messages: u64,
    pub per_second: f64,
    /// The event's data; the frame around it takes 43 to 51 bytes more.
    pub data_bytes: usize,
    /// A visit takes one message, however many have arrived.
    pub one_a_visit: bool,
}

/// What one run took.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    pub deliveries: u64,
    /// Sends that were tried.
    pub visits: u64,
    /// Sends that a full socket cut short or refused.
    pub short_sends: u64,
    /// `None` where a runtime makes them out of sight.
    pub system_calls: Option<u64>,
    pub cpu_ns: u64,
    pub wall_ns: u64,
    /// The longest sweep over all sockets; 0 where sockets have tasks of their own.
    pub lap_us_max: u64,
}

impl Tally {
    pub fn cpu_us_per_delivery(&self) -> f64 {
        self.cpu_ns as f64 / 1_000.0 / self.deliveries as f64
    }

    pub fn deliveries_per_second(&self) -> f64 {
        self.deliveries as f64 / (self.wall_ns as f64 / 1e9)
    }

    pub fn messages_per_visit(&self) -> f64 {
        self.deliveries as f64 / self.visits as f64
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Listening(SocketAddr),
    Accepted,
    Ran(Tally),
    Failed(String),
}

/// The handle of whoever started the process.
pub struct Sender {
    companion: Companion,
    pub address: SocketAddr,
}

impl Sender {
    pub fn start(orders: &Orders) -> io::Result<Sender> {
        let mut companion = Companion::start(ROLE)?;
        companion.tell(orders)?;
        match companion.hear()? {
            Answer::Listening(address) => Ok(Sender { companion, address }),
            other => Err(unexpected(other)),
        }
    }

    /// Waits until all of the sockets are connected.
    pub fn accepted(&mut self) -> io::Result<()> {
        match self.companion.hear()? {
            Answer::Accepted => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    pub fn run(&mut self, schedule: &Schedule) -> io::Result<Tally> {
        self.companion.tell(schedule)?;
        match self.companion.hear()? {
            Answer::Ran(tally) => Ok(tally),
            other => Err(unexpected(other)),
        }
    }
}

fn unexpected(answer: Answer) -> io::Error {
    match answer {
        Answer::Failed(why) => io::Error::other(why),
        Answer::Listening(_) | Answer::Accepted | Answer::Ran(_) => {
            io::Error::other(format!("the sender answers {answer:?} out of turn"))
        }
    }
}

/// Runs the process until the program that started it is gone.
pub fn serve() -> io::Result<()> {
    let Some(orders) = next_command::<Orders>()? else {
        return Ok(());
    };
    machine::pin(orders.core)?;
    machine::lift_open_files();
    let listener = listen()?;
    answer(&Answer::Listening(listener.local_addr()?))?;
    let served = match orders.method {
        Method::Ring => runs(ring::Naked::accept(&listener, orders.sockets)?),
        Method::Send => runs(plain::Naked::accept(&listener, orders.sockets)?),
        Method::TokioUring => tokio_uring_tasks::serve(&listener, orders.sockets),
        Method::Tokio => tokio_tasks::serve(&listener, orders.sockets),
    };
    served.or_else(|error| answer(&Answer::Failed(error.to_string())))
}

/// A sender that holds its sockets and sends one log at a time.
trait Sends {
    fn send(&mut self, log: &log::Log) -> io::Result<Tally>;
}

fn runs(mut sender: impl Sends) -> io::Result<()> {
    accepted()?;
    while let Some(run) = next_run()? {
        let before = run.begin();
        let tally = sender.send(&run.log)?;
        run.end(before, tally)?;
    }
    Ok(())
}

fn accepted() -> io::Result<()> {
    answer(&Answer::Accepted)
}

/// A run whose log is written and whose start is near.
struct Run {
    log: log::Log,
}

fn next_run() -> io::Result<Option<Run>> {
    let schedule = next_command::<Schedule>()?;
    Ok(schedule.map(|schedule| Run {
        log: log::Log::write(&schedule),
    }))
}

impl Run {
    /// Waits for the start; CPU time counts from here.
    fn begin(&self) -> u64 {
        machine::sleep_until(self.log.start_ns);
        machine::own_cpu_ns()
    }

    fn end(&self, cpu_before_ns: u64, tally: Tally) -> io::Result<()> {
        let wall_ns = machine::monotonic_ns() - self.log.start_ns;
        let cpu_ns = machine::own_cpu_ns() - cpu_before_ns;
        answer(&Answer::Ran(Tally {
            cpu_ns,
            wall_ns,
            ..tally
        }))
    }
}

fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}
