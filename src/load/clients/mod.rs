//! Virtual clients: a process full of connections, and the handle of whoever tells it what to do.
//!
//! ```text
//! Clients (coordinator)  lines of JSON  ->  unit: reads commands, gives each to all crews, joins their answers
//!                                           crew: one thread, one ring, up to 19,000 clients
//! ```
//!
//! A crew's turn is a shard's: one system call hands over what clients want to send and fetches what came. A client is
//! 32 bytes while it only counts; what it needs to talk or to decode lies in a box that is there as long as it does.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::companion::Companion;
use super::orders::{Answer, Command, Count, Glance, Orders, ROLE, Settled};

mod client;
mod crew;
mod ledger;
mod outbox;
mod run;
mod unit;
mod watermarks;

pub use unit::serve;

/// How often a count is looked at again while it is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A unit of clients, as a coordinator holds it. It ends with its handle.
pub struct Clients {
    companion: Companion,
}

impl Clients {
    /// Starts this program again as a unit.
    pub fn start(orders: &Orders) -> io::Result<Clients> {
        Clients::begin(Companion::start(ROLE)?, orders)
    }

    /// Starts another program that knows [`ROLE`].
    pub fn start_program(program: &Path, orders: &Orders) -> io::Result<Clients> {
        Clients::begin(Companion::start_program(program, ROLE)?, orders)
    }

    fn begin(mut companion: Companion, orders: &Orders) -> io::Result<Clients> {
        companion.tell(orders)?;
        let mut clients = Clients { companion };
        clients.settled()?;
        Ok(clients)
    }

    /// The unit's process, for those who watch its memory.
    pub fn process(&self) -> u32 {
        self.companion.process()
    }

    /// Gives a command; its answer is read with [`Clients::hear`] or one of those below.
    pub fn tell(&mut self, command: Command) -> io::Result<()> {
        self.companion.tell(&command)
    }

    pub fn hear(&mut self) -> io::Result<Answer> {
        self.companion.hear()
    }

    pub fn settled(&mut self) -> io::Result<Settled> {
        match self.hear()? {
            Answer::Settled(settled) => Ok(settled),
            other => Err(unexpected(other)),
        }
    }

    pub fn carry_out(&mut self, command: Command) -> io::Result<Settled> {
        self.tell(command)?;
        self.settled()
    }

    pub fn glance(&mut self) -> io::Result<Glance> {
        self.tell(Command::Glance)?;
        match self.hear()? {
            Answer::Glance(glance) => Ok(glance),
            other => Err(unexpected(other)),
        }
    }

    pub fn count(&mut self) -> io::Result<Count> {
        self.tell(Command::Report)?;
        match self.hear()? {
            Answer::Count(count) => Ok(*count),
            other => Err(unexpected(other)),
        }
    }

    /// Waits until nothing has arrived for a while: all that comes later belongs to a run.
    pub fn quiet(&mut self, still_ms: u64) -> io::Result<()> {
        self.await_messages(u64::MAX, still_ms)
    }

    /// Waits until every client has got `messages`, or until nothing has arrived for `patience_ms`; then counts.
    pub fn drained(&mut self, messages: u64, patience_ms: u64) -> io::Result<Count> {
        self.await_messages(messages, patience_ms)?;
        self.count()
    }

    fn await_messages(&mut self, messages: u64, patience_ms: u64) -> io::Result<()> {
        let mut last = self.glance()?;
        let mut still = Duration::ZERO;
        while last.messages_min < messages && still < Duration::from_millis(patience_ms) {
            std::thread::sleep(LOOK_EVERY);
            let next = self.glance()?;
            let is_still = next.bytes == last.bytes;
            still = if is_still {
                still + LOOK_EVERY
            } else {
                Duration::ZERO
            };
            last = next;
        }
        Ok(())
    }
}

fn unexpected(answer: Answer) -> io::Error {
    match answer {
        Answer::Failed(why) => io::Error::other(why),
        Answer::Settled(_) | Answer::Glance(_) | Answer::Count(_) => {
            io::Error::other("the clients' answer is one to another command")
        }
    }
}
