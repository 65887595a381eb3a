//! One keep-alive connection to a server's HTTP API: calls out, pipelined, and answers back.
//!
//! The socket does not block. A call is taken while fewer than the window are unanswered and all
//! bytes of those before have left; who calls looks at [`HttpConnection::is_open`] first.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use crate::load::stamp::Stamp;
use crate::wire::signature::Signer;

/// Events that one call may carry: the limit of the hosted service for a batch.
pub const BATCH_MAX: usize = 10;

/// Who publishes, as a server of the Pusher HTTP API knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    pub id: String,
    pub key: String,
    pub secret: String,
}

/// How a publish is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// The Pusher HTTP API below this path prefix (often empty), signed.
    Pusher {
        prefix: String,
        app: App,
        /// The events have so many keys, in turns: the ones by which outpour knows which events are superseded. 0 for
        /// events without.
        keys: u32,
    },
    /// A POST. `{channel}` stands for the channel in path and body, and `{data}` in the body for the data.
    Raw { path: String, body: String },
}

/// One event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub channel: String,
    pub data: String,
}

/// What became of the events of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered<Tag> {
    pub tag: Tag,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// The server said that it has no room now: 429 or 503.
    Refused,
    /// Anything else, in the server's words.
    Failed(String),
    /// Written, where nothing is answered.
    Written,
    /// One event that was written is refused all the same, in the server's words.
    TakenBack(String),
}

/// The event's place in its channel, as its stamp says.
fn place_of(event: &Event) -> u64 {
    Stamp::find(event.data.as_bytes()).map_or(0, |stamp| stamp.sequence)
}

/// `Tag` is what the caller wants to be told with the answer.
pub struct HttpConnection<Tag> {
    socket: TcpStream,
    host: SocketAddr,
    form: Form,
    signer: Option<Signer>,
    event: String,
    /// Calls that may be unanswered at once.
    window: usize,
    /// What the server's last answer said: whether the connection stays. Nothing was answered yet where it is none.
    stays: Option<bool>,
    unanswered: VecDeque<Tag>,
    unsent: Vec<u8>,
    unread: Vec<u8>,
}

impl<Tag> HttpConnection<Tag> {
    pub fn connect(
        host: SocketAddr,
        form: Form,
        event: &str,
        window: usize,
    ) -> io::Result<HttpConnection<Tag>> {
        let socket = open(host)?;
        let signer = match &form {
            Form::Pusher { app, .. } => Some(Signer::new(app.secret.as_bytes())),
            Form::Raw { .. } => None,
        };
        Ok(HttpConnection {
            socket,
            host,
            form,
            signer,
            event: event.to_owned(),
            window: window.max(1),
            stays: None,
            unanswered: VecDeque::new(),
            unsent: Vec::new(),
            unread: Vec::new(),
        })
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next call may be made.
    pub fn is_open(&self) -> bool {
        self.unsent.is_empty() && self.unanswered.len() < self.window_now()
    }

    /// What is pipelined behind an answer that ends the connection is lost, and nobody knows whether it was carried out.
    /// So calls are pipelined when the server has shown that it keeps connections.
    fn window_now(&self) -> usize {
        match self.stays {
            Some(true) => self.window,
            Some(false) | None => 1,
        }
    }

    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Calls without an answer.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// How many events one call can carry.
    pub fn events_per_call_max(&self) -> usize {
        match self.form {
            Form::Pusher { .. } => BATCH_MAX,
            Form::Raw { .. } => 1,
        }
    }

    /// Makes one call that publishes these events, and writes what the socket takes of it.
    pub fn publish(&mut self, events: &[Event], tag: Tag) -> io::Result<()> {
        assert!(!events.is_empty() && events.len() <= self.events_per_call_max());
        let request = match (&self.form, &self.signer) {
            (Form::Pusher { prefix, app, keys }, Some(signer)) => {
                let (call, body) = self.call(events, *keys);
                signed(app, signer, self.host, "POST", prefix, call, &body)
            }
            (Form::Raw { path, body }, _) => {
                let [event] = events else {
                    unreachable!("a raw call carries one event");
                };
                let path = path.replace("{channel}", &event.channel);
                let body = body
                    .replace("{channel}", &event.channel)
                    .replace("{data}", &event.data);
                format!(
                    "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\n\
                     Content-Length: {}\r\n\r\n{body}",
                    self.host,
                    body.len()
                )
            }
            (Form::Pusher { .. }, None) => unreachable!("connect made a signer for it"),
        };
        self.unsent.extend_from_slice(request.as_bytes());
        self.unanswered.push_back(tag);
        self.flush()
    }

    fn call(&self, events: &[Event], keys: u32) -> (&'static str, String) {
        let object = |event: &Event| {
            let key = match keys {
                0 => String::new(),
                keys => format!(r#","key":"{}""#, place_of(event) % u64::from(keys)),
            };
            format!(
                r#"{{"name":"{}","channel":"{}","data":"{}"{key}}}"#,
                self.event, event.channel, event.data
            )
        };
        match events {
            [event] => ("events", object(event)),
            batch => {
                let objects: Vec<String> = batch.iter().map(object).collect();
                let body = format!(r#"{{"batch":[{}]}}"#, objects.join(","));
                ("batch_events", body)
            }
        }
    }

    /// Writes what is left of calls, as far as the socket takes it.
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

    /// Takes in the answers that are there, in the order of their calls.
    pub fn receive(&mut self, answers: &mut Vec<Answered<Tag>>) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => {
                    return Err(io::Error::other(
                        "the server ended a publisher's connection",
                    ));
                }
                Ok(length) => {
                    self.unread.extend_from_slice(&bytes[..length]);
                    if length < bytes.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut taken = 0;
        while let Some(answer) = first_answer(&self.unread[taken..])? {
            let tag = self
                .unanswered
                .pop_front()
                .ok_or_else(|| io::Error::other("an answer to no call"))?;
            let outcome = match answer.status {
                200..=204 => Outcome::Accepted,
                429 | 503 => Outcome::Refused,
                status => {
                    let body = &self.unread[taken + answer.body_start..taken + answer.end];
                    let words = String::from_utf8_lossy(body);
                    Outcome::Failed(format!("a publish got {status}: {}", words.trim()))
                }
            };
            answers.push(Answered { tag, outcome });
            taken += answer.end;
            self.stays = Some(answer.stays);
        }
        self.unread.drain(..taken);
        if taken > 0 && self.stays == Some(false) {
            self.socket = open(self.host)?;
            self.unread.clear();
        }
        Ok(())
    }
}

fn open(host: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(host)?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Asks the HTTP API on a connection of its own; gives the body of a 200.
pub fn get(host: SocketAddr, app: &App, call: &str) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(host)?;
    let signer = Signer::new(app.secret.as_bytes());
    socket.write_all(signed(app, &signer, host, "GET", "", call, "").as_bytes())?;
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

/// A call of the Pusher HTTP API as it goes on the wire. Source: "Generating authentication
/// signatures" of the vendor's HTTP API reference; the parameters stand in their order already.
fn signed(
    app: &App,
    signer: &Signer,
    host: SocketAddr,
    method: &str,
    prefix: &str,
    call: &str,
    body: &str,
) -> String {
    let path = format!("{prefix}/apps/{}/{call}", app.id);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let timestamp = now.expect("it is later than 1970").as_secs();
    let mut query = format!(
        "auth_key={}&auth_timestamp={timestamp}&auth_version=1.0&body_md5=",
        app.key
    );
    for byte in Md5::digest(body) {
        query.push(char::from_digit(u32::from(byte >> 4), 16).expect("four bits are a digit"));
        query.push(char::from_digit(u32::from(byte & 15), 16).expect("four bits are a digit"));
    }
    let signature = signer.sign(&[format!("{method}\n{path}\n{query}").as_bytes()]);
    let signature = std::str::from_utf8(&signature).expect("hexadecimal digits are ASCII");
    format!(
        "{method} {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: {host}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The head of an answer: where its body starts and where the next answer does.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body_start: usize,
    end: usize,
    /// The server keeps the connection.
    stays: bool,
}

/// The first answer in `bytes`, if it is whole. Its body has a length, is chunked, or there is none
/// (RFC 9112 section 6.3; a body that ends with the connection is not for a keep-alive one).
fn first_answer(bytes: &[u8]) -> io::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(bytes).map_err(io::Error::other)?;
    let httparse::Status::Complete(body_start) = parsed else {
        return Ok(None);
    };
    let status = head.code.unwrap_or(0);
    let value = |name: &str| {
        let header = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let is_chunked = value("transfer-encoding")
        .is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"));
    let body_bytes = if is_chunked {
        match chunks_end(&bytes[body_start..])? {
            Some(end) => end,
            None => return Ok(None),
        }
    } else if matches!(status, 204 | 304) {
        0
    } else {
        value("content-length")
            .and_then(|length| length.trim().parse().ok())
            .ok_or_else(|| io::Error::other("an answer without a length"))?
    };
    let stays =
        !value("connection").is_some_and(|words| words.trim().eq_ignore_ascii_case("close"));
    let end = body_start + body_bytes;
    Ok((end <= bytes.len()).then_some(Answer {
        status,
        body_start,
        end,
        stays,
    }))
}

/// Where a chunked body ends, if all of it is there. No trailers: nobody here asks for any.
fn chunks_end(bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut offset = 0;
    loop {
        let parsed = httparse::parse_chunk_size(&bytes[offset..])
            .map_err(|_| io::Error::other("an answer with a wrong chunk"))?;
        let httparse::Status::Complete((head, size)) = parsed else {
            return Ok(None);
        };
        let size = usize::try_from(size).map_err(io::Error::other)?;
        offset += head + size + 2;
        if offset > bytes.len() {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(offset));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_where_the_next_one_begins() {
        let check = |bytes: &[u8], expected: Option<(u16, usize)>| {
            let answer = first_answer(bytes).unwrap();
            assert_eq!(answer.map(|answer| (answer.status, answer.end)), expected);
        };
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        let followed = [plain.as_slice(), b"HTTP/1.1 503"].concat();
        check(plain, Some((200, plain.len())));
        check(&followed, Some((200, plain.len())));
        for length in 0..plain.len() {
            check(&plain[..length], None);
        }
        let chunked = b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        for length in 0..chunked.len() {
            check(&chunked[..length], None);
        }
        check(chunked, Some((503, chunked.len())));
        let empty = b"HTTP/1.1 204 No Content\r\n\r\n";
        check(empty, Some((204, empty.len())));
        assert!(first_answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
