//! A back end that publishes over HTTP: one keep-alive connection, signed requests, pipelined up
//! to a window of unanswered ones.
//!
//! It runs in the generator's process; its CPU time is not the server's.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use rustix::net::RecvFlags;
use sha2::Sha256;

use crate::generator::{CHANNEL, EVENT};
use crate::server::{APP, KEY, SECRET};

/// Events that one call may carry.
pub const BATCH_MAX: usize = 10;

pub struct Publisher {
    socket: TcpStream,
    address: SocketAddr,
    /// Calls that may be unanswered at once.
    window: usize,
    /// How many events each unanswered call carries.
    unanswered: VecDeque<u64>,
    unread: Vec<u8>,
    pub accepted: u64,
    /// Events of calls that the server answered with 503.
    pub refused: u64,
}

/// The head of an answer, and where the next one starts.
struct Answer {
    status: u16,
    body_start: usize,
    end: usize,
}

impl Publisher {
    pub fn connect(address: SocketAddr, window: usize) -> io::Result<Publisher> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        Ok(Publisher {
            socket,
            address,
            window,
            unanswered: VecDeque::new(),
            unread: Vec::new(),
            accepted: 0,
            refused: 0,
        })
    }

    /// Publishes one event by itself, or several as a batch. Waits while the window is full.
    pub fn publish(&mut self, events: &[String]) -> io::Result<()> {
        assert!(!events.is_empty() && events.len() <= BATCH_MAX);
        let (call, body) = match events {
            [data] => ("events", event(data)),
            batch => {
                let events: Vec<String> = batch.iter().map(|data| event(data)).collect();
                (
                    "batch_events",
                    format!(r#"{{"batch":[{}]}}"#, events.join(",")),
                )
            }
        };
        self.socket
            .write_all(request(self.address, "POST", call, &body).as_bytes())?;
        self.unanswered.push_back(events.len() as u64);
        self.collect()?;
        while self.unanswered.len() >= self.window {
            self.wait()?;
        }
        Ok(())
    }

    /// Takes in the answers that are there.
    pub fn collect(&mut self) -> io::Result<()> {
        self.receive(RecvFlags::DONTWAIT)
    }

    /// Waits for the answers to all calls.
    pub fn finish(&mut self) -> io::Result<()> {
        while !self.unanswered.is_empty() {
            self.wait()?;
        }
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        self.receive(RecvFlags::empty())
    }

    fn receive(&mut self, flags: RecvFlags) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        match rustix::net::recv(&self.socket, &mut bytes[..], flags) {
            Ok((_, 0)) => {
                return Err(io::Error::other(
                    "the server ended the publisher's connection",
                ));
            }
            Ok((_, length)) => self.unread.extend_from_slice(&bytes[..length]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        while let Some(answer) = first_answer(&self.unread)? {
            let events = self
                .unanswered
                .pop_front()
                .ok_or_else(|| io::Error::other("an answer to no call"))?;
            match answer.status {
                200 => self.accepted += events,
                503 => self.refused += events,
                status => {
                    let body = &self.unread[answer.body_start..answer.end];
                    let body = String::from_utf8_lossy(body);
                    return Err(io::Error::other(format!("a publish got {status}: {body}")));
                }
            }
            self.unread.drain(..answer.end);
        }
        Ok(())
    }
}

/// A call of the HTTP API, signed, as it goes on the wire.
fn request(address: SocketAddr, method: &str, call: &str, body: &str) -> String {
    let path = format!("/apps/{APP}/{call}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let timestamp = now.expect("it is later than 1970").as_secs();
    let query = format!(
        "auth_key={KEY}&auth_timestamp={timestamp}&auth_version=1.0&body_md5={}",
        hexadecimal(&Md5::digest(body))
    );
    let mut signature =
        Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key of any length will do");
    signature.update(format!("{method}\n{path}\n{query}").as_bytes());
    format!(
        "{method} {path}?{query}&auth_signature={} HTTP/1.1\r\nHost: {address}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        hexadecimal(&signature.finalize().into_bytes()),
        body.len()
    )
}

/// Asks the HTTP API on a connection of its own; gives the body of a 200.
pub fn get(address: SocketAddr, call: &str) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(address)?;
    socket.write_all(request(address, "GET", call, "").as_bytes())?;
    let mut unread = Vec::new();
    let mut bytes = vec![0; 1 << 20];
    loop {
        match socket.read(&mut bytes)? {
            0 => return Err(io::Error::other("the connection ended before the answer")),
            length => unread.extend_from_slice(&bytes[..length]),
        }
        if let Some(answer) = first_answer(&unread)? {
            let body = unread[answer.body_start..answer.end].to_vec();
            return match answer.status {
                200 => Ok(body),
                status => Err(io::Error::other(format!("{call} got {status}"))),
            };
        }
    }
}

fn event(data: &str) -> String {
    format!(r#"{{"name":"{EVENT}","channel":"{CHANNEL}","data":"{data}"}}"#)
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes every write");
    }
    text
}

fn first_answer(bytes: &[u8]) -> io::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(bytes).map_err(io::Error::other)?;
    let httparse::Status::Complete(body_start) = parsed else {
        return Ok(None);
    };
    let length = head
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| {
            std::str::from_utf8(header.value)
                .ok()?
                .parse::<usize>()
                .ok()
        })
        .ok_or_else(|| io::Error::other("an answer without a length"))?;
    let end = body_start + length;
    Ok((end <= bytes.len()).then_some(Answer {
        status: head.code.unwrap_or(0),
        body_start,
        end,
    }))
}
