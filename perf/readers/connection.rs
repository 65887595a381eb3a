//! One connection of the reader process, from its SYN to its last byte.
//!
//! ```text
//! Connecting -> Open                           Speech::Bytes
//! Connecting -> Upgrading -> Greeting -> Open  Speech::Pusher: 101, connection_established
//! any -> Closed                                the peer ended it
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};

use hdrhistogram::Histogram;
use rustix::net::{RecvFlags, SendFlags};
use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::sample::Sample;
use super::{Channels, Orders, Speech};
use crate::frames;

/// Connections per source address; each address has some 28,000 ports of its own.
const CONNECTIONS_PER_ADDRESS: usize = 4_000;
/// Subscriptions asked for and not yet confirmed, per connection.
const UNCONFIRMED_MAX: usize = 256;
/// The handshake's key, and the server's proof for it, from RFC 6455 section 1.3.
const UPGRADE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const UPGRADE_PROOF: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Upgrading,
    Greeting,
    Open,
    Closed,
}

pub struct Connection {
    number: usize,
    socket: Socket,
    stage: Stage,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    /// Subscriptions: how many there shall be, were asked for, and were confirmed.
    wanted: usize,
    asked: usize,
    confirmed: usize,
    /// Unsubscribing is not confirmed; a ping sent behind it is.
    awaits_pong: bool,
    /// Received bytes are counted and not looked at.
    skims: bool,
    pub bytes: u64,
    pub sample: Option<Box<Sample>>,
    /// Why the peer closed, as far as it said.
    pub parting_words: Option<String>,
}

/// What reading needs from the process around it.
pub struct Desk {
    pub scratch: Vec<u8>,
    pub latency_us: Histogram<u64>,
    pub receives: u64,
}

/// As much of an event as the handshake needs.
#[derive(Deserialize)]
struct Event<'a> {
    event: &'a str,
}

impl Connection {
    /// Starts to connect. Non-blocking: the socket becomes writable when it is connected.
    pub fn start(number: usize, wanted: usize, orders: &Orders) -> io::Result<Connection> {
        let socket = Socket::new(
            Domain::IPV4,
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )?;
        let host = 2 + (number / CONNECTIONS_PER_ADDRESS) as u8;
        let source = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0));
        socket.bind(&source.into())?;
        socket.set_tcp_nodelay(true)?;
        if let Err(error) = socket.connect(&orders.address.into())
            && error.raw_os_error() != Some(libc::EINPROGRESS)
        {
            return Err(error);
        }
        Ok(Connection {
            number,
            socket,
            stage: Stage::Connecting,
            unread: Vec::new(),
            unsent: Vec::new(),
            wanted,
            asked: 0,
            confirmed: 0,
            awaits_pong: false,
            skims: false,
            bytes: 0,
            sample: None,
            parting_words: None,
        })
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    pub fn subscriptions(&self) -> usize {
        self.confirmed
    }

    /// Nothing that was asked of it is left to do.
    pub fn is_settled(&self) -> bool {
        match self.stage {
            Stage::Open => {
                self.asked == self.wanted
                    && self.confirmed == self.wanted
                    && !self.awaits_pong
                    && self.unsent.is_empty()
            }
            Stage::Closed => true,
            Stage::Connecting | Stage::Upgrading | Stage::Greeting => false,
        }
    }

    /// From now on messages of a run arrive.
    pub fn count_from_here(&mut self, is_sampled: bool) {
        self.bytes = 0;
        self.sample = is_sampled.then(Box::default);
        self.skims = !is_sampled && self.unread.is_empty();
    }

    pub fn want(&mut self, subscriptions: usize, orders: &Orders) -> io::Result<()> {
        self.wanted = subscriptions;
        if self.asked > subscriptions {
            for index in subscriptions..self.asked {
                let name = channel_name(orders, self.number, index);
                let text =
                    format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{name}"}}}}"#);
                self.append_text(&text);
            }
            self.append_text(r#"{"event":"pusher:ping","data":{}}"#);
            self.asked = subscriptions;
            self.confirmed = subscriptions;
            self.awaits_pong = true;
        }
        self.ask(orders);
        self.flush()
    }

    pub fn heartbeat(&mut self) -> io::Result<()> {
        frames::append_masked(&mut self.unsent, OpCode::Control(Control::Pong), b"");
        self.flush()
    }

    /// The socket takes bytes; the first time this happens it is connected.
    pub fn on_writable(&mut self, orders: &Orders) -> io::Result<()> {
        if self.stage == Stage::Connecting {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            match &orders.speech {
                Speech::Bytes => {
                    self.stage = Stage::Open;
                }
                Speech::Pusher { key, .. } => {
                    self.stage = Stage::Upgrading;
                    let request = format!(
                        "GET /app/{key}?protocol=7&client=perf&version=1.0 HTTP/1.1\r\n\
                         Host: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Key: {UPGRADE_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n",
                        orders.address
                    );
                    self.unsent.extend_from_slice(request.as_bytes());
                }
            }
        }
        self.flush()
    }

    /// Reads until the socket is empty.
    pub fn on_readable(&mut self, orders: &Orders, desk: &mut Desk) -> io::Result<()> {
        if self.stage == Stage::Connecting {
            return Ok(());
        }
        let is_silent = matches!(orders.speech, Speech::Bytes) && self.sample.is_none();
        if self.skims || is_silent {
            self.skim(desk)
        } else {
            self.read(orders, desk)
        }
    }

    fn skim(&mut self, desk: &mut Desk) -> io::Result<()> {
        loop {
            let room = desk.scratch.len();
            match rustix::net::recv(&self.socket, &mut desk.scratch[..], RecvFlags::TRUNC) {
                Ok((_, 0)) => {
                    self.stage = Stage::Closed;
                    return Ok(());
                }
                Ok((_, length)) => {
                    desk.receives += 1;
                    self.bytes += length as u64;
                    if length < room {
                        return Ok(());
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    self.stage = Stage::Closed;
                    self.parting_words = Some(error.to_string());
                    return Ok(());
                }
            }
        }
    }

    fn read(&mut self, orders: &Orders, desk: &mut Desk) -> io::Result<()> {
        loop {
            let room = desk.scratch.len();
            match rustix::net::recv(&self.socket, &mut desk.scratch[..], RecvFlags::empty()) {
                Ok((_, 0)) => {
                    self.stage = Stage::Closed;
                    return Ok(());
                }
                Ok((_, length)) => {
                    desk.receives += 1;
                    self.bytes += length as u64;
                    self.unread.extend_from_slice(&desk.scratch[..length]);
                    self.take_in(orders, desk)?;
                    if length < room {
                        return Ok(());
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    self.stage = Stage::Closed;
                    self.parting_words = Some(error.to_string());
                    return Ok(());
                }
            }
        }
    }

    /// Decodes what is complete of the unread bytes.
    fn take_in(&mut self, orders: &Orders, desk: &mut Desk) -> io::Result<()> {
        let now_ns = crate::machine::monotonic_ns();
        let unread = std::mem::take(&mut self.unread);
        let mut taken = 0;
        if self.stage == Stage::Upgrading {
            match head_end(&unread) {
                Some(end) => {
                    check_upgrade(&unread[..end])?;
                    self.stage = Stage::Greeting;
                    taken = end;
                }
                None => {
                    self.unread = unread;
                    return Ok(());
                }
            }
        }
        while let Some((opcode, start, end)) = frames::first_frame(&unread[taken..]) {
            let payload = &unread[taken + start..taken + end];
            match opcode {
                OpCode::Data(Data::Text) => match (frames::stamp(payload), &mut self.sample) {
                    (Some(stamp), Some(sample)) => {
                        let delay_ns = sample.note(stamp, end as u64, now_ns);
                        desk.latency_us.saturating_record(delay_ns / 1_000);
                    }
                    (Some(_), None) => {}
                    (None, _) => self.on_event(payload)?,
                },
                OpCode::Control(Control::Ping) => {
                    let pong = OpCode::Control(Control::Pong);
                    frames::append_masked(&mut self.unsent, pong, payload);
                }
                OpCode::Control(Control::Close) => {
                    self.parting_words = Some(close_words(payload));
                }
                OpCode::Control(Control::Pong)
                | OpCode::Data(Data::Continue | Data::Binary | Data::Reserved(_))
                | OpCode::Control(Control::Reserved(_)) => {
                    return Err(io::Error::other(format!("an unexpected frame: {opcode:?}")));
                }
            }
            taken += end;
        }
        if taken < unread.len() {
            self.unread = unread[taken..].to_vec();
        }
        self.ask(orders);
        self.flush()
    }

    fn on_event(&mut self, payload: &[u8]) -> io::Result<()> {
        let event: Event<'_> = serde_json::from_slice(payload)?;
        match event.event {
            "pusher:connection_established" => self.stage = Stage::Open,
            "pusher_internal:subscription_succeeded" => self.confirmed += 1,
            "pusher:pong" => self.awaits_pong = false,
            "pusher:ping" => self.append_text(r#"{"event":"pusher:pong","data":{}}"#),
            _ => {
                let text = String::from_utf8_lossy(payload);
                return Err(io::Error::other(format!("the server says {text}")));
            }
        }
        Ok(())
    }

    /// Asks for as many of the wanted subscriptions as may be unconfirmed at once.
    fn ask(&mut self, orders: &Orders) {
        if self.stage != Stage::Open {
            return;
        }
        let limit = self.wanted.min(self.confirmed + UNCONFIRMED_MAX);
        while self.asked < limit {
            let name = channel_name(orders, self.number, self.asked);
            let text = format!(
                r#"{{"event":"pusher:subscribe","data":{{"auth":"","channel":"{name}"}}}}"#
            );
            self.append_text(&text);
            self.asked += 1;
        }
    }

    fn append_text(&mut self, text: &str) {
        frames::append_masked(&mut self.unsent, OpCode::Data(Data::Text), text.as_bytes());
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match rustix::net::send(&self.socket, &self.unsent, SendFlags::NOSIGNAL) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    self.stage = Stage::Closed;
                    self.parting_words = Some(error.to_string());
                    self.unsent.clear();
                }
            }
        }
        // Thousands of idle connections shall not hold buffers that they once needed.
        self.unsent.shrink_to(1024);
        Ok(())
    }
}

/// How many subscriptions a connection starts with.
pub fn subscriptions_at_first(speech: &Speech) -> usize {
    match speech {
        Speech::Bytes => 0,
        Speech::Pusher { channels, .. } => match channels {
            Channels::Shared { .. } => 1,
            Channels::Own { .. } => 0,
        },
    }
}

fn channel_name(orders: &Orders, number: usize, index: usize) -> String {
    match &orders.speech {
        Speech::Bytes => unreachable!("nothing is subscribed where nothing is spoken"),
        Speech::Pusher { channels, .. } => match channels {
            Channels::Shared { name } => name.clone(),
            Channels::Own { per_connection_max } => {
                assert!(
                    index < *per_connection_max,
                    "more channels than were announced"
                );
                format!("own-{:07}", number * per_connection_max + index)
            }
        },
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(end + 4)
}

fn check_upgrade(head: &[u8]) -> io::Result<()> {
    let head = String::from_utf8_lossy(head);
    if head.starts_with("HTTP/1.1 101") && head.contains(UPGRADE_PROOF) {
        return Ok(());
    }
    Err(io::Error::other(format!("no WebSocket upgrade: {head}")))
}

fn close_words(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => format!(
            "close {} {}",
            u16::from_be_bytes([*high, *low]),
            String::from_utf8_lossy(reason)
        ),
        _ => "close without a code".to_owned(),
    }
}
