//! The publisher: a thread that publishes on schedule, whatever the server and the readers do.
//!
//! Open loop: what is due when is fixed before the run ([`schedule`]), and no answer, stall or full
//! window moves it. A message that could not leave in time leaves as soon as it can, with the due
//! time it had; so the delay that subscribers see holds the stall. What the publisher itself was
//! late is told apart from that: it says whether the generator was fit to measure ([`Tally::slip`]).
//!
//! Messages go out over HTTP, as client events over WebSocket, or as both.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

mod events;
pub mod http;
mod lane;
mod run;
pub mod schedule;
#[cfg(test)]
mod tests;
mod thread_loop;

use super::orders::{Channels, Speech};
use super::result::LatencyHistogram;
use http::Form;
use schedule::{Place, Schedule};

/// What a publisher is made of.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Where its thread is pinned.
    pub core: Option<usize>,
    /// Names by number, as the schedule counts them.
    pub channels: Vec<String>,
    pub event: String,
    /// Length of an event's data.
    pub data_bytes: usize,
    pub http: Option<Http>,
    pub events: Option<Events>,
}

/// Publishing over HTTP.
#[derive(Clone, Debug)]
pub struct Http {
    pub address: SocketAddr,
    pub form: Form,
    pub connections: usize,
    /// Calls that may be unanswered at once, on each connection.
    pub window: usize,
    /// Events in one call. A call leaves when its last event is due.
    pub batch: usize,
}

/// Publishing as a client.
#[derive(Clone, Debug)]
pub struct Events {
    pub address: SocketAddr,
    pub speech: Speech,
    /// As clients subscribe to them.
    pub channels: Channels,
    pub connections: usize,
}

/// What became of a run's messages, so far or in the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Written to the server, or on the way.
    pub published: u64,
    pub accepted: u64,
    /// The server had no room, and said so.
    pub refused: u64,
    /// Failed in another way, and how the first of them did.
    pub failed: u64,
    pub failure: Option<String>,
    /// Those of the failed that had counted as accepted: the server said afterwards that it refuses one, and not which.
    pub taken_back: u64,
    /// Channel by channel, when the run is over.
    pub channels: Vec<OfChannel>,
    /// Not answered when patience ended: nobody knows what became of them.
    pub unanswered: u64,
    /// The places of messages that were not accepted, up to [`PLACES_MAX`] of them: a subscriber
    /// that misses one of these lost nothing.
    pub not_accepted: Vec<Place>,
    /// How late the publisher turned to a message that was due and could have left: its own delay,
    /// and not the time in which the server took no more.
    pub slip: LatencyHistogram,
    /// How late messages left because earlier ones were still unanswered or unsent.
    pub held: LatencyHistogram,
    /// From the due time of an HTTP call's last message to the answer.
    pub answer: LatencyHistogram,
    /// CPU time of the thread since the run began.
    pub cpu_ns: u64,
    /// From the run's start until now, or until the last answer.
    pub wall_ns: u64,
}

/// What became of the messages of one channel. One that was taken back is among the accepted here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfChannel {
    pub published: u64,
    pub accepted: u64,
    pub refused: u64,
}

impl OfChannel {
    /// Messages that may have been delivered: those too that were not answered, or failed in a way that says nothing of
    /// it.
    pub fn possible(&self) -> u64 {
        self.published - self.refused
    }
}

/// Places of refused messages that a tally keeps.
pub const PLACES_MAX: usize = 10_000;

/// What the thread is told.
enum Command {
    Run(Schedule),
    /// End the run now, as if its length were over.
    Stop,
}

/// What the thread tells.
enum News {
    Ready,
    /// Some ten times a second.
    Progress(Box<Tally>),
    Done(Box<Tally>),
    Failed(io::Error),
}

/// How a run stands.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Running,
    Done(Box<Tally>),
}

/// The handle of the thread. When it goes, the thread ends.
pub struct Publisher {
    commands: Option<Sender<Command>>,
    news: Receiver<News>,
    /// A byte in it ends the thread's sleep.
    waker: UnixStream,
    thread: Option<JoinHandle<()>>,
    progress: Tally,
}

impl Publisher {
    /// Connects, and returns when every connection may publish.
    pub fn start(orders: Orders) -> io::Result<Publisher> {
        let (commands, to_do) = mpsc::channel();
        let (tell, news) = mpsc::channel();
        let (waker, alarm) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        alarm.set_nonblocking(true)?;
        let thread = thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || thread_loop::run(&orders, &to_do, &alarm, &tell))?;
        let publisher = Publisher {
            commands: Some(commands),
            news,
            waker,
            thread: Some(thread),
            progress: Tally::default(),
        };
        match publisher.news.recv() {
            Ok(News::Ready) => Ok(publisher),
            Ok(News::Failed(error)) => Err(error),
            Ok(News::Progress(_) | News::Done(_)) => {
                Err(io::Error::other("a publisher ran before it was told to"))
            }
            Err(_) => Err(io::Error::other("the publisher's thread ended")),
        }
    }

    /// Starts a run. Its state is asked for with [`Publisher::wait`].
    pub fn begin(&mut self, schedule: Schedule) -> io::Result<()> {
        self.progress = Tally::default();
        self.tell(Command::Run(schedule))
    }

    /// Ends the run early; messages that have left are still answered.
    pub fn stop(&mut self) -> io::Result<()> {
        self.tell(Command::Stop)
    }

    /// Waits until the run is over, at most so long.
    pub fn wait(&mut self, patience: Duration) -> io::Result<State> {
        match self.news.recv_timeout(patience) {
            Ok(News::Progress(tally)) => self.progress = *tally,
            Ok(News::Done(tally)) => return Ok(State::Done(tally)),
            Ok(News::Failed(error)) => return Err(error),
            Ok(News::Ready) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("the publisher's thread ended"));
            }
        }
        Ok(State::Running)
    }

    /// A whole run, until every call is answered.
    pub fn run(&mut self, schedule: Schedule) -> io::Result<Tally> {
        self.begin(schedule)?;
        loop {
            if let State::Done(tally) = self.wait(Duration::from_secs(1))? {
                return Ok(*tally);
            }
        }
    }

    /// The counts as the thread told them last, without its histograms.
    pub fn progress(&self) -> &Tally {
        &self.progress
    }

    fn tell(&mut self, command: Command) -> io::Result<()> {
        let commands = self.commands.as_ref().expect("taken by drop alone");
        commands
            .send(command)
            .map_err(|_| io::Error::other("the publisher's thread ended"))?;
        self.wake();
        Ok(())
    }

    fn wake(&mut self) {
        // A full pipe wakes as well as another byte, and a closed one has nobody to wake.
        if let Err(error) = self.waker.write(&[0])
            && error.kind() != io::ErrorKind::WouldBlock
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            eprintln!("the publisher is not woken: {error}");
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.commands = None;
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the publisher's thread panicked");
        }
    }
}
