//! A slow reader that decodes: does it get every serial, or is it told which it does not get?
//!
//! It reads so many bytes a second through a small receive buffer, on a thread of its own.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tungstenite::{Message, WebSocket};

/// How often it may read.
const TICK: Duration = Duration::from_millis(100);

/// What one of them saw, or all of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub readers: u64,
    pub events: u64,
    /// Gaps that were told, and the events in them.
    pub gaps: u64,
    pub told: u64,
    /// Serials that did not follow the one before, or the gap that was told.
    pub unannounced: u64,
    /// It was closed by the server.
    pub closed: u64,
}

impl Seen {
    pub fn add(&mut self, other: Seen) {
        self.readers += other.readers;
        self.events += other.events;
        self.gaps += other.gaps;
        self.told += other.told;
        self.unannounced += other.unannounced;
        self.closed += other.closed;
    }
}

/// The readers of a run.
pub struct Witnesses {
    are_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<Seen>>>,
}

impl Witnesses {
    /// So many of them, subscribed when this returns.
    pub fn start(
        count: usize,
        address: SocketAddr,
        key: &str,
        channel: &str,
        bytes_per_second: u64,
        receive_buffer_bytes: usize,
    ) -> io::Result<Witnesses> {
        let are_over = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for _ in 0..count {
            let mut witness = Witness::connect(address, key, receive_buffer_bytes, &are_over)?;
            witness.subscribe(channel)?;
            witness.socket.get_mut().bytes_a_tick =
                (bytes_per_second as f64 * TICK.as_secs_f64()).ceil() as usize;
            threads.push(thread::spawn(move || witness.read()));
        }
        Ok(Witnesses { are_over, threads })
    }

    /// They stop where they are.
    pub fn end(self) -> io::Result<Seen> {
        self.are_over.store(true, Relaxed);
        let mut all = Seen::default();
        for thread in self.threads {
            let seen = thread
                .join()
                .map_err(|_| io::Error::other("a reader panicked"))?;
            all.add(seen?);
        }
        Ok(all)
    }
}

struct Witness {
    socket: WebSocket<Paced>,
    expected: Option<u64>,
    seen: Seen,
}

impl Witness {
    fn connect(
        address: SocketAddr,
        key: &str,
        receive_buffer_bytes: usize,
        is_over: &Arc<AtomicBool>,
    ) -> io::Result<Witness> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_recv_buffer_size(receive_buffer_bytes)?;
        socket.connect(&address.into())?;
        socket.set_read_timeout(Some(TICK))?;
        let stream = Paced {
            stream: socket.into(),
            bytes_a_tick: usize::MAX,
            left: 0,
            is_over: Arc::clone(is_over),
        };
        let url = format!("ws://{address}/app/{key}?protocol=7");
        let (socket, _) = tungstenite::client(url, stream).map_err(io::Error::other)?;
        let seen = Seen {
            readers: 1,
            ..Seen::default()
        };
        Ok(Witness {
            socket,
            expected: None,
            seen,
        })
    }

    fn subscribe(&mut self, channel: &str) -> io::Result<()> {
        let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#);
        self.socket
            .send(Message::text(text))
            .map_err(io::Error::other)?;
        while self.expected.is_none() {
            let message = self.socket.read().map_err(io::Error::other)?;
            self.note(&message);
        }
        Ok(())
    }

    fn read(mut self) -> io::Result<Seen> {
        loop {
            match self.socket.read() {
                Ok(Message::Close(_)) => {
                    self.seen.closed = 1;
                    return Ok(self.seen);
                }
                Ok(message) => self.note(&message),
                Err(_) if self.socket.get_ref().is_over.load(Relaxed) => return Ok(self.seen),
                Err(_) => {
                    self.seen.closed = 1;
                    return Ok(self.seen);
                }
            }
        }
    }

    fn note(&mut self, message: &Message) {
        let Ok(text) = message.to_text() else { return };
        let Ok(value) = serde_json::from_str::<Value>(text) else {
            return;
        };
        let data = || {
            value["data"]
                .as_str()
                .and_then(|data| serde_json::from_str(data).ok())
        };
        match value["event"].as_str() {
            Some("pusher_internal:subscription_succeeded") => {
                let data: Value = data().unwrap_or_default();
                self.expected = Some(data["serial"].as_u64().unwrap_or(0) + 1);
            }
            Some("outpour:gap") => {
                let data: Value = data().unwrap_or_default();
                let (from, to) = (data["from"].as_u64(), data["to"].as_u64());
                if let (Some(from), Some(to)) = (from, to) {
                    self.seen.unannounced += u64::from(self.expected != Some(from));
                    self.seen.gaps += 1;
                    self.seen.told += to + 1 - from;
                    self.expected = Some(to + 1);
                }
            }
            Some(_) | None => {
                if let Some(serial) = value["serial"].as_u64() {
                    self.seen.events += 1;
                    self.seen.unannounced += u64::from(self.expected != Some(serial));
                    self.expected = Some(serial + 1);
                }
            }
        }
    }
}

/// A stream of which so many bytes are read in each tick.
struct Paced {
    stream: TcpStream,
    bytes_a_tick: usize,
    left: usize,
    is_over: Arc<AtomicBool>,
}

impl Read for Paced {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.is_over.load(Relaxed) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if self.left == 0 {
                self.left = self.bytes_a_tick;
                if self.bytes_a_tick < usize::MAX {
                    thread::sleep(TICK);
                }
            }
            let room = bytes.len().min(self.left);
            match self.stream.read(&mut bytes[..room]) {
                Ok(length) => {
                    self.left -= length;
                    return Ok(length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
