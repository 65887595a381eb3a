//! What tests against a running server share: servers with small limits, tungstenite's client, one
//! that reads frame by frame when it is told to, and a publisher that signs.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use outpour::base::metrics::Metric;
use outpour::options::{Automatic, Cores, Options};
use outpour::server::{self, Running};
use outpour::wire::signature::Signer;
use tungstenite::{Message, WebSocket};

/// What no wait of a test may exceed. Nothing is concluded from how long something took.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server of so many shards on a free port of the loopback address.
pub fn serve(shards: u16, change: impl FnOnce(&mut Options)) -> Running {
    let mut options = Options {
        address: ([127, 0, 0, 1], 0).into(),
        shards: Automatic::Exactly(shards),
        cores: Cores::Unpinned,
        ..Options::default()
    };
    change(&mut options);
    server::start(options).unwrap_or_else(|error| panic!("{error}"))
}

/// Of all shards together.
pub fn sum(running: &Running, metric: Metric) -> u64 {
    let shards = running.metrics().iter();
    shards.map(|metrics| metrics.read(metric)).sum()
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A tungstenite client whose session has begun.
pub fn open(address: SocketAddr) -> WebSocket<TcpStream> {
    let url = format!("ws://{address}/app/app-key?protocol=7");
    let (mut socket, _) = tungstenite::client(url, dial(address)).expect("the handshake succeeds");
    let first = socket.read().expect("the first message comes").to_string();
    assert!(first.contains("pusher:connection_established"), "{first}");
    socket
}

/// The same, subscribed to a channel.
pub fn subscribe(address: SocketAddr, channel: &str) -> WebSocket<TcpStream> {
    let mut socket = open(address);
    let message = Message::text(subscription(channel));
    socket.send(message).expect("it can be sent");
    let answer = socket.read().expect("an answer comes").to_string();
    assert_eq!(answer, confirmation(channel));
    socket
}

/// The data of the next event, which is one of `channel`.
pub fn data_of_next(socket: &mut WebSocket<TcpStream>, channel: &str) -> String {
    let text = socket.read().expect("an event comes").to_string();
    data_of(&text, channel)
}

pub fn data_of(text: &str, channel: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(text).expect("messages are JSON");
    assert_eq!(
        (&value["event"], &value["channel"]),
        (&"n".into(), &channel.into()),
        "{text}"
    );
    value["data"]
        .as_str()
        .expect("data is a string")
        .to_string()
}

pub fn subscription(channel: &str) -> String {
    format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#)
}

pub fn confirmation(channel: &str) -> String {
    format!(
        r#"{{"event":"pusher_internal:subscription_succeeded","channel":"{channel}","data":"{{}}"}}"#
    )
}

pub fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    let timeout = stream.set_read_timeout(Some(PATIENCE));
    timeout.expect("a timeout can be set");
    stream
}

/// A client that reads when it is told to and answers nothing by itself.
pub struct Raw {
    pub stream: TcpStream,
    input: Vec<u8>,
    /// What of it was taken.
    taken: usize,
}

/// A frame: its opcode and its payload, inflated if it came compressed.
pub type Frame = (u8, Vec<u8>);

pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
const COMPRESSED: u8 = 0x40;

const EXTENSIONS: &str = "Sec-WebSocket-Extensions";
const NO_TAKEOVER: &str = "; server_no_context_takeover; client_no_context_takeover; ";

fn upgrade_request(query: &str, headers: &str) -> String {
    format!(
        "GET /app/app-key?protocol=7{query} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{headers}\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Raw {
        Raw::over(dial(address))
    }

    /// One that takes compressed messages if they refer no further back than so many bits.
    pub fn compressing(address: SocketAddr, window_bits: u8) -> Raw {
        Raw::compressing_over(dial(address), window_bits)
    }

    pub fn compressing_over(stream: TcpStream, window_bits: u8) -> Raw {
        let offer = format!("permessage-deflate; server_max_window_bits={window_bits}");
        let (raw, head) = Raw::ask(stream, "", &format!("{EXTENSIONS}: {offer}\r\n"), &[]);
        assert!(head.contains(&offer.replace("; ", NO_TAKEOVER)), "{head}");
        raw
    }

    /// The upgrade is asked for and answered; what it was answered with is not read yet.
    pub fn over(stream: TcpStream) -> Raw {
        Raw::ask(stream, "", "", &[]).0
    }

    /// Subscribes in its address to what the query names, and sends these bytes behind the request.
    pub fn subscribing(address: SocketAddr, query: &str, behind: &[u8]) -> Raw {
        Raw::ask(dial(address), query, "", behind).0
    }

    /// Likewise, and takes compressed messages; its request goes out byte by byte.
    pub fn subscribing_in_pieces(address: SocketAddr, query: &str, window_bits: u8) -> Raw {
        let mut stream = dial(address);
        stream.set_nodelay(true).expect("it is a socket");
        let offer = format!("permessage-deflate; server_max_window_bits={window_bits}");
        let request = upgrade_request(query, &format!("{EXTENSIONS}: {offer}\r\n"));
        for byte in request.as_bytes() {
            stream.write_all(&[*byte]).expect("it can be sent");
        }
        Raw::answered(stream).0
    }

    /// The same with more headers, and the head of the answer.
    fn ask(mut stream: TcpStream, query: &str, headers: &str, behind: &[u8]) -> (Raw, String) {
        let request = upgrade_request(query, headers);
        let sent = stream.write_all(&[request.as_bytes(), behind].concat());
        sent.expect("it can be sent");
        Raw::answered(stream)
    }

    fn answered(stream: TcpStream) -> (Raw, String) {
        let mut raw = Raw {
            stream,
            input: Vec::new(),
            taken: 0,
        };
        let head = read_head(&mut raw.stream, &mut raw.input);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        (raw, head)
    }

    pub fn subscribe(&mut self, channel: &str) {
        self.send(TEXT, subscription(channel).as_bytes());
        let is_established = |frame: &Frame| {
            String::from_utf8_lossy(&frame.1).contains("pusher:connection_established")
        };
        let mut answer = self.next().expect("an answer comes");
        if is_established(&answer) {
            answer = self.next().expect("an answer comes");
        }
        assert_eq!(answer, (TEXT, confirmation(channel).into_bytes()));
    }

    /// Sends one frame, masked with zeros.
    pub fn send(&mut self, opcode: u8, payload: &[u8]) {
        let frame = masked(opcode, payload);
        self.stream.write_all(&frame).expect("it can be sent");
    }

    /// The next frame, or nothing at the end of the stream, which must not come within a frame.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            self.input.drain(..self.taken);
            self.taken = 0;
            let mut bytes = [0; 65_536];
            let length = self.stream.read(&mut bytes).expect("the stream is whole");
            if length == 0 {
                assert!(self.input.is_empty(), "the stream ended within a frame");
                return None;
            }
            self.input.extend_from_slice(&bytes[..length]);
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let input = &self.input[self.taken..];
        let &[first, second, ..] = input else {
            return None;
        };
        assert_eq!(second & 0x80, 0, "a server masks nothing");
        let (start, length) = match second {
            126 => (
                4,
                usize::from(u16::from_be_bytes(*input[2..].first_chunk()?)),
            ),
            127 => (10, u64::from_be_bytes(*input[2..].first_chunk()?) as usize),
            _ => (2, usize::from(second)),
        };
        let mut payload = input.get(start..start + length)?.to_vec();
        if first & COMPRESSED != 0 {
            // What a message leaves off (RFC 7692, section 7.2.1), and an empty last block.
            payload.extend(b"\x00\x00\xFF\xFF\x03\x00");
            let inflated = miniz_oxide::inflate::decompress_to_vec(&payload);
            payload = inflated.expect("it is compressed");
        }
        self.taken += start + length;
        Some((first & 0x0F, payload))
    }
}

/// A whole frame of a client, masked with zeros.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            let length = u16::try_from(length).expect("tests send short messages");
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The code of a close frame.
pub fn close_code((opcode, payload): &Frame) -> u16 {
    assert_eq!(*opcode, CLOSE, "{}", String::from_utf8_lossy(payload));
    u16::from_be_bytes([payload[0], payload[1]])
}

/// A back end that publishes over one connection.
pub struct Publisher {
    pub stream: TcpStream,
    input: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Publisher {
    pub fn connect(address: SocketAddr) -> Publisher {
        Publisher {
            stream: dial(address),
            input: Vec::new(),
        }
    }

    /// Publishes one event called `n`, and expects that it is accepted.
    pub fn publish(&mut self, channel: &str, data: &str) {
        let answer = self.try_publish(channel, data);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "{}"),
            "{answer:?}"
        );
    }

    pub fn try_publish(&mut self, channel: &str, data: &str) -> Answer {
        self.send(&publish_request(&[channel], data));
        self.answer().expect("an answer comes")
    }

    pub fn send(&mut self, request: &[u8]) {
        self.stream.write_all(request).expect("it can be sent");
    }

    /// The next answer, or why there is none.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let head = read_head(&mut self.stream, &mut self.input);
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let is_it = name.eq_ignore_ascii_case("content-length");
            is_it.then(|| value.parse::<usize>().ok())?
        });
        let (status, length) = status.zip(length).ok_or(ErrorKind::UnexpectedEof)?;
        let mut rest = vec![0; length.saturating_sub(self.input.len())];
        self.stream.read_exact(&mut rest)?;
        self.input.extend(rest);
        let body = self.input.drain(..length).collect();
        let body = String::from_utf8(body).expect("bodies are text");
        Ok(Answer { status, head, body })
    }
}

/// A signed request that publishes one event called `n`.
pub fn publish_request(channels: &[&str], data: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"name":"n","channels":["{}"],"data":"{data}"}}"#,
        channels.join(r#"",""#)
    );
    signed_post("/apps/1001/events", &body)
}

/// A signed request with this body.
pub fn signed_post(path: &str, body: &str) -> Vec<u8> {
    let digest: String = Md5::digest(body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("it is past 1970").as_secs();
    let query = format!("auth_key=app-key&auth_timestamp={now}&auth_version=1.0&body_md5={digest}");
    let signed = format!("POST\n{path}\n{query}");
    let signature = Signer::new(b"app-secret").sign(&[signed.as_bytes()]);
    let signature = String::from_utf8_lossy(&signature);
    let request = format!(
        "POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: a\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    request.into_bytes()
}

/// Reads up to the end of an HTTP head, or of the stream; what came behind it stays in `input`.
fn read_head(stream: &mut TcpStream, input: &mut Vec<u8>) -> String {
    loop {
        let end = input.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if let Some(end) = end {
            let head = input.drain(..end + 4).collect();
            return String::from_utf8(head).expect("heads are text");
        }
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes).expect("an answer comes") {
            0 => return String::new(),
            length => input.extend_from_slice(&bytes[..length]),
        }
    }
}
