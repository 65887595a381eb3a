//! One connection that publishes events of its own, in the dialect that clients speak.
//!
//! Nobody answers such an event: it counts as accepted when it is written, until the server says that
//! it refuses one. The sender hears none of its own events in the Pusher protocol; where a server
//! echoes them, they are thrown away.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::http::Event;
use crate::load::dialect::{Dialect, Heard, Speaker, dialect};
use crate::load::machine::monotonic_ns;
use crate::load::orders::{Channels, Speech};

/// Bytes that may wait for the socket before no further event is taken.
const UNSENT_BYTES_MAX: usize = 256 * 1024;
/// A server has so long to greet and to confirm subscriptions.
const START_MAX: Duration = Duration::from_secs(10);

pub struct EventConnection {
    socket: TcpStream,
    dialect: Box<dyn Dialect>,
    speaker: Speaker,
    unsent: Vec<u8>,
    unread: Vec<u8>,
    is_greeted: bool,
    subscribed: usize,
}

impl EventConnection {
    /// Connects, and subscribes to the channels that it will publish to where only subscribers may.
    pub fn connect(
        address: SocketAddr,
        speech: &Speech,
        channels: &Channels,
        own: &[String],
    ) -> io::Result<EventConnection> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut connection = EventConnection {
            socket,
            dialect: dialect(speech, address, channels),
            speaker: Speaker::default(),
            unsent: Vec::new(),
            unread: Vec::new(),
            is_greeted: false,
            subscribed: 0,
        };
        connection.is_greeted = connection.dialect.is_greeted_at_once();
        connection
            .dialect
            .open(&mut connection.speaker, &mut connection.unsent);
        let deadline_ns = monotonic_ns() + START_MAX.as_nanos() as u64;
        connection.until(deadline_ns, |connection| connection.is_greeted)?;
        if matches!(speech, Speech::Pusher(_)) {
            for channel in own {
                let (speaker, unsent) = (&mut connection.speaker, &mut connection.unsent);
                connection.dialect.subscribe(speaker, channel, unsent);
            }
            connection.until(deadline_ns, |connection| connection.subscribed == own.len())?;
        }
        Ok(connection)
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next event may be published.
    pub fn is_open(&self) -> bool {
        self.unsent.len() < UNSENT_BYTES_MAX
    }

    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub fn publish(&mut self, events: &[Event]) -> io::Result<()> {
        for event in events {
            self.dialect
                .publish(&event.channel, &event.data, &mut self.unsent);
        }
        self.flush()
    }

    pub fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes in what is there; each refusal of the server is told in its words.
    pub fn receive(&mut self, refusals: &mut Vec<String>) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => {
                    return Err(io::Error::other(
                        "the server ended a publisher's connection",
                    ));
                }
                Ok(length) => self.unread.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut taken = 0;
        loop {
            let (speaker, unsent) = (&mut self.speaker, &mut self.unsent);
            match self.dialect.take(speaker, &self.unread[taken..], unsent) {
                Ok(None) => break,
                Ok(Some((length, heard))) => {
                    taken += length;
                    match heard {
                        Heard::Greeted => self.is_greeted = true,
                        Heard::Subscribed => self.subscribed += 1,
                        Heard::Goodbye(words) => return Err(io::Error::other(words)),
                        Heard::Nothing | Heard::Answered | Heard::Message(_) | Heard::Joined(_) => {
                        }
                    }
                }
                Err(fault) => {
                    refusals.push(fault.0);
                    // What cannot be read hides where the next thing begins; a refusal is a whole
                    // frame, and all that is said to a publisher.
                    taken = self.unread.len();
                }
            }
        }
        self.unread.drain(..taken);
        self.flush()
    }

    /// Moves bytes until something is so.
    fn until(&mut self, deadline_ns: u64, is_so: impl Fn(&Self) -> bool) -> io::Result<()> {
        let mut refusals = Vec::new();
        self.flush()?;
        while !is_so(self) {
            if monotonic_ns() > deadline_ns {
                return Err(io::Error::other("the server lets a publisher wait"));
            }
            let mut flags = PollFlags::IN;
            if self.has_unsent() {
                flags |= PollFlags::OUT;
            }
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            };
            let mut polled = [PollFd::from_borrowed_fd(self.socket.as_fd(), flags)];
            match poll(&mut polled, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.flush()?;
            self.receive(&mut refusals)?;
            if let Some(words) = refusals.pop() {
                return Err(io::Error::other(words));
            }
        }
        Ok(())
    }
}
