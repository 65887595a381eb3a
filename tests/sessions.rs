//! Sessions over HTTP on three shards over a simulated network: requests arrive on any of them, and
//! connections move, under every fault that a seed draws.
//!
//! The oracle: the events of a channel are numbered by one publisher, which waits for each answer. A
//! session that is open has a run of them without a gap, a repeat or a reorder, from the
//! confirmation of its subscription on; at the end each that is left has all of them.

#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::sync::Arc;
use std::time::Duration;

use md5::{Digest, Md5};
use outpour::base::metrics::{Metric, Metrics};
use outpour::hub::apps::Apps;
use outpour::options::Options;
use outpour::ring::simulated::{Network, Peer, Random, Read, SimulatedRing};
use outpour::shard::Shard;
use outpour::wire::fallback::STREAM_BODY_BYTES_MAX;
use outpour::wire::signature::Signer;

mod simulated;

const SHARDS: u16 = 3;
const CHANNELS: [&str; 2] = ["alpha", "beta"];
const WALL_S: u64 = 1_700_000_000;
const SEEDS: u64 = 60;
/// Well below the time that a session is kept without a receiver.
const GAP_MS_MAX: usize = 2_000;

#[test]
fn every_seed_keeps_the_promises() {
    let only = std::env::var("SIMULATION_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let mut sums = Counts::default();
    for seed in only.map_or(0..SEEDS, |seed: u64| seed..seed + 1) {
        eprintln!("seed {seed}");
        let counts = World::new(seed).run().1;
        sums.delivered += counts.delivered;
        sums.opened += counts.opened;
        sums.reopened += counts.reopened;
        sums.polled += counts.polled;
        sums.broken += counts.broken;
        sums.moved += counts.moved;
    }
    eprintln!("{sums:?}");
    if only.is_none() {
        let Counts {
            delivered,
            opened,
            reopened,
            polled,
            broken,
            moved,
        } = sums;
        let all = [delivered, opened, reopened, polled, broken, moved];
        assert!(all.iter().all(|count| *count > 0), "{sums:?}");
    }
}

#[test]
fn a_seed_can_be_had_again() {
    for seed in [1, 2, 3] {
        assert_eq!(World::new(seed).run().0, World::new(seed).run().0);
    }
}

#[derive(Debug, Default)]
struct Counts {
    delivered: usize,
    opened: usize,
    /// Streams that the client asked for because it had enough of the one before.
    reopened: usize,
    polled: usize,
    /// Requests that ended without an answer, and sessions that ended with them.
    broken: usize,
    moved: usize,
}

/// A connection of a client, kept for its next request.
struct Link {
    peer: Peer,
    input: Vec<u8>,
    asked: Option<Asked>,
}

/// What the connection's request is, while it is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Stream,
    Poll,
    Upload,
    Publish,
}

/// What a client has read of the answer of a connection.
#[derive(Debug)]
enum Piece {
    Head { status: u16 },
    Body(String),
    End,
}

#[derive(Default)]
struct Session {
    name: String,
    is_poll: bool,
    is_open: bool,
    links: Vec<Link>,
    /// The link that receives, and characters of its body; or when the client asks again.
    receiver: Option<usize>,
    body: usize,
    line: String,
    ask_ms: u64,
    to_subscribe: Vec<&'static str>,
    /// By channel: how many events there were at most at the confirmation, and those that came.
    confirmed: [Option<usize>; CHANNELS.len()],
    events: [Vec<usize>; CHANNELS.len()],
}

struct World {
    seed: u64,
    network: Network,
    shards: Vec<Shard<SimulatedRing>>,
    metrics: Arc<[Metrics]>,
    random: Random,
    turn_ms: usize,
    data_bytes: usize,
    break_one_in: usize,
    now_ms: u64,
    sessions: Vec<Session>,
    names: usize,
    publisher: Link,
    published: [usize; CHANNELS.len()],
    under_way: Option<usize>,
    is_over: bool,
    signer: Signer,
    counts: Counts,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed, 200);
        let options = Arc::new(Options::default());
        let apps = Arc::new(Apps::new(&options));
        let metrics: Vec<Metrics> = (0..SHARDS).map(|_| Metrics::default()).collect();
        let metrics = Arc::<[Metrics]>::from(metrics);
        let network = Network::new(seed, SHARDS);
        let shards = simulated::shards(&network, seed, &options, &apps, &metrics, Vec::new());
        World {
            seed,
            shards,
            metrics,
            turn_ms: [2, 20, 50][random.below(3)],
            data_bytes: [200, 4000, 9000][random.below(3)],
            break_one_in: [200, 2000][random.below(2)],
            now_ms: 0,
            sessions: Vec::new(),
            names: 0,
            publisher: Link::new(network.connect(0)),
            published: [0; CHANNELS.len()],
            under_way: None,
            is_over: false,
            signer: Signer::new(b"app-secret"),
            counts: Counts::default(),
            network,
            random,
        }
    }

    fn run(mut self) -> (u64, Counts) {
        for number in 0..10 {
            self.sessions.push(Session {
                is_poll: number % 2 == 0,
                ..Session::default()
            });
            self.open(number);
        }
        for _ in 0..2_000 {
            if self.under_way.is_none() && self.random.one_in(2) {
                self.publish();
            }
            if self.random.one_in(self.break_one_in) {
                self.break_a_link();
            }
            self.step();
        }
        self.run_until("everybody has everything", |world| {
            let published = world.published;
            world.under_way.is_none()
                && world.sessions.iter().all(|session| {
                    session.to_subscribe.is_empty()
                        && (0..CHANNELS.len()).all(|channel| session.has_all(channel, published))
                })
        });
        self.check();
        for session in std::mem::take(&mut self.sessions) {
            for link in session.links {
                self.network.end(link.peer);
            }
        }
        self.network.end(self.publisher.peer);
        self.is_over = true;
        self.turn_ms = 200;
        self.run_until("everybody has gone", |world| {
            let mut shards = world.shards.iter();
            shards.all(|shard| shard.ring.is_empty() && shard.engine.channels.is_empty())
        });
        let sum = |metric| world_sum(&self.metrics, metric);
        assert_eq!(sum(Metric::FallbackSessions), 0, "seed {}", self.seed);
        assert_eq!(sum(Metric::Connections), 0, "seed {}", self.seed);
        self.counts.moved = sum(Metric::Transfers) as usize;
        (self.network.trace(), self.counts)
    }

    /// A session begins anew, under another name.
    fn open(&mut self, number: usize) {
        self.check_session(number);
        self.names += 1;
        self.counts.opened += 1;
        let session = &mut self.sessions[number];
        for link in session.links.drain(..) {
            self.network.reset(link.peer);
        }
        *session = Session {
            name: format!("s{:07}", self.names),
            is_poll: session.is_poll,
            ask_ms: self.now_ms,
            ..Session::default()
        };
    }

    /// Whatever the link was for is lost, and the client gives its session up, as pusher-js does.
    fn break_a_link(&mut self) {
        let number = self.random.below(self.sessions.len());
        let links = self.sessions[number].links.len();
        if links > 0 {
            let link = self.random.below(links);
            let link = self.sessions[number].links.swap_remove(link);
            self.network.reset(link.peer);
            self.counts.broken += 1;
            self.open(number);
        }
    }

    fn publish(&mut self) {
        let channel = self.random.below(CHANNELS.len());
        let number = self.published[channel];
        let filling = "x".repeat(self.random.below(self.data_bytes));
        let name = CHANNELS[channel];
        let body = format!(r#"{{"name":"tick","channel":"{name}","data":"{number}:{filling}"}}"#);
        let md5 = Md5::digest(body.as_bytes());
        let md5: String = md5.iter().map(|byte| format!("{byte:02x}")).collect();
        let query =
            format!("auth_key=app-key&auth_timestamp={WALL_S}&auth_version=1.0&body_md5={md5}");
        let signed = format!("POST\n/apps/1001/events\n{query}");
        let signature = self.signer.sign(&[signed.as_bytes()]);
        let signature = std::str::from_utf8(&signature).unwrap();
        let path = format!("/apps/1001/events?{query}&auth_signature={signature}");
        self.network
            .write(self.publisher.peer, &request(&path, &body));
        self.publisher.asked = Some(Asked::Publish);
        self.under_way = Some(channel);
    }

    /// Asks on a connection that is free, or on a new one to any shard.
    fn ask(&mut self, session: usize, asked: Asked, body: &str) -> usize {
        let free: Vec<usize> = (0..self.sessions[session].links.len())
            .filter(|link| self.sessions[session].links[*link].asked.is_none())
            .collect();
        let place = match free.is_empty() || self.random.one_in(4) {
            true => {
                let shard = self.random.below(usize::from(SHARDS)) as u16;
                let peer = self.network.connect(shard);
                self.sessions[session].links.push(Link::new(peer));
                self.sessions[session].links.len() - 1
            }
            false => free[self.random.below(free.len())],
        };
        let name = &self.sessions[session].name;
        let call = match asked {
            Asked::Stream => "xhr_streaming?protocol=7",
            Asked::Poll => "xhr?protocol=7",
            Asked::Upload | Asked::Publish => "xhr_send?t=1",
        };
        let path = format!("/pusher/app/app-key/1/{name}/{call}");
        let link = &mut self.sessions[session].links[place];
        link.asked = Some(asked);
        self.network.write(link.peer, &request(&path, body));
        place
    }

    /// One turn of each shard, and everybody reads and asks.
    fn step(&mut self) {
        self.now_ms += self.random.below(self.turn_ms) as u64;
        for shard in &mut self.shards {
            let now = Duration::from_millis(self.now_ms);
            shard.turn(now, WALL_S, false).unwrap();
        }
        if !self.is_over {
            self.read_publisher();
        }
        for number in 0..self.sessions.len() {
            self.act(number);
            self.read_links(number);
        }
    }

    fn act(&mut self, number: usize) {
        let session = &mut self.sessions[number];
        if session.receiver.is_none() && self.now_ms >= session.ask_ms {
            let asked = match session.is_poll {
                true => Asked::Poll,
                false => Asked::Stream,
            };
            let link = self.ask(number, asked, "");
            let session = &mut self.sessions[number];
            session.receiver = Some(link);
            (session.body, session.line) = (0, String::new());
        }
        if self.random.one_in(8)
            && let Some(channel) = self.sessions[number].to_subscribe.pop()
        {
            let message =
                format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#);
            let body = serde_json::to_string(&[message]).unwrap();
            self.ask(number, Asked::Upload, &body);
        }
    }

    fn read_publisher(&mut self) {
        let Read::Bytes(bytes) = self.network.read(self.publisher.peer, usize::MAX) else {
            assert_eq!(self.under_way, None, "seed {}", self.seed);
            self.publisher = Link::new(self.network.connect(0));
            return;
        };
        self.publisher.input.extend(bytes);
        while let Some(piece) = self.publisher.next_piece() {
            match piece {
                Piece::Head { status } => assert_eq!(status, 200, "seed {}", self.seed),
                Piece::Body(_) => {}
                Piece::End => {
                    let channel = self.under_way.take().expect("an answer has its request");
                    self.published[channel] += 1;
                }
            }
        }
    }

    fn read_links(&mut self, number: usize) {
        let mut place = 0;
        while place < self.sessions[number].links.len() {
            let bytes_max = 1 + self.random.below(8 << 10);
            let link = &mut self.sessions[number].links[place];
            match self.network.read(link.peer, bytes_max) {
                Read::Bytes(bytes) => link.input.extend(bytes),
                Read::EndOfStream | Read::Broken if link.asked.is_none() => {
                    // It was idle for too long. The last takes its place.
                    let last = self.sessions[number].links.len() - 1;
                    let session = &mut self.sessions[number];
                    let gone = session.links.swap_remove(place);
                    self.network.end(gone.peer);
                    if session.receiver == Some(last) {
                        session.receiver = Some(place);
                    }
                    continue;
                }
                Read::EndOfStream | Read::Broken => {
                    self.counts.broken += 1;
                    return self.open(number);
                }
            }
            while let Some(piece) = self.sessions[number].links[place].next_piece() {
                if !self.on_piece(number, place, piece) {
                    return;
                }
            }
            place += 1;
        }
    }

    /// False if the session began anew.
    fn on_piece(&mut self, number: usize, place: usize, piece: Piece) -> bool {
        let asked = self.sessions[number].links[place].asked;
        match (piece, asked) {
            (Piece::Head { status: 204 }, _) => {
                assert_eq!(asked, Some(Asked::Upload), "seed {}", self.seed);
            }
            // The session that an upload was for is gone, and the client hears of it there too.
            (Piece::Head { status }, Some(Asked::Upload)) => assert_eq!(status, 404),
            (Piece::Head { status }, _) => assert_eq!(status, 200, "seed {}", self.seed),
            (Piece::Body(text), Some(Asked::Stream | Asked::Poll)) => {
                return self.on_body(number, &text);
            }
            (Piece::Body(_), _) => {}
            (Piece::End, _) => {
                let session = &mut self.sessions[number];
                session.links[place].asked = None;
                if session.receiver == Some(place) {
                    assert!(session.is_poll, "seed {}: a stream ended", self.seed);
                    self.counts.polled += 1;
                    session.receiver = None;
                    let gap_ms = match self.random.one_in(8) {
                        true => self.random.below(GAP_MS_MAX),
                        false => 0,
                    };
                    session.ask_ms = self.now_ms + gap_ms as u64;
                }
            }
        }
        true
    }

    fn on_body(&mut self, number: usize, text: &str) -> bool {
        for character in text.chars() {
            let session = &mut self.sessions[number];
            session.body += 1;
            if character != '\n' {
                session.line.push(character);
                continue;
            }
            let line = std::mem::take(&mut session.line);
            if !self.on_line(number, &line) {
                return false;
            }
        }
        let session = &mut self.sessions[number];
        let is_long = session.body as u64 > STREAM_BODY_BYTES_MAX && session.line.is_empty();
        if is_long && let Some(place) = session.receiver.take() {
            // As pusher-js does: the stream is dropped, with whatever is on its way.
            let dropped = session.links.swap_remove(place);
            self.network.reset(dropped.peer);
            session.ask_ms = self.now_ms;
            self.counts.reopened += 1;
            return false;
        }
        true
    }

    fn on_line(&mut self, number: usize, line: &str) -> bool {
        let seed = self.seed;
        let session = &mut self.sessions[number];
        match line.as_bytes()[0] {
            b'h' => {}
            b'o' if session.is_open => {
                panic!("seed {seed}: {} was opened twice", session.name)
            }
            b'o' => session.is_open = true,
            b'c' => {
                self.open(number);
                return false;
            }
            _ => {
                let messages: Vec<String> = serde_json::from_str(&line[1..]).unwrap();
                for message in messages {
                    self.on_message(number, &message);
                }
            }
        }
        true
    }

    fn on_message(&mut self, number: usize, text: &str) {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let session = &mut self.sessions[number];
        let channel = value["channel"].as_str().unwrap_or_default();
        let channel = CHANNELS.iter().position(|name| *name == channel);
        match (value["event"].as_str().unwrap(), channel) {
            ("pusher:connection_established", None) => session.to_subscribe = CHANNELS.to_vec(),
            ("pusher_internal:subscription_succeeded", Some(channel)) => {
                let under_way = usize::from(self.under_way == Some(channel));
                session.confirmed[channel] = Some(self.published[channel] + under_way);
            }
            ("tick", Some(channel)) => {
                let event = value["data"].as_str().unwrap().split_once(':').unwrap().0;
                session.events[channel].push(event.parse().unwrap());
                self.counts.delivered += 1;
            }
            _ => panic!("seed {}: {} read {text}", self.seed, session.name),
        }
    }

    fn run_until(&mut self, what: &str, is_so: impl Fn(&World) -> bool) {
        for _ in 0..20_000 {
            if is_so(self) {
                return;
            }
            self.step();
        }
        panic!("seed {}: not within 20,000 turns: {what}", self.seed);
    }

    fn check(&self) {
        for number in 0..self.sessions.len() {
            self.check_session(number);
        }
    }

    fn check_session(&self, number: usize) {
        let session = &self.sessions[number];
        for (channel, events) in session.events.iter().enumerate() {
            let about = format!("seed {}: {}, {channel}", self.seed, session.name);
            let Some(first) = events.first() else {
                continue;
            };
            let confirmed = session.confirmed[channel].expect("what is subscribed is confirmed");
            assert!(*first <= confirmed, "{about}: begins late");
            let run: Vec<usize> = (*first..*first + events.len()).collect();
            assert_eq!(*events, run, "{about}");
        }
    }
}

impl Session {
    fn has_all(&self, channel: usize, published: [usize; CHANNELS.len()]) -> bool {
        let Some(confirmed) = self.confirmed[channel] else {
            return false;
        };
        match self.events[channel].last() {
            Some(last) => last + 1 == published[channel],
            None => confirmed >= published[channel],
        }
    }
}

impl Link {
    fn new(peer: Peer) -> Link {
        Link {
            peer,
            input: Vec::new(),
            asked: None,
        }
    }

    /// The next piece of an answer. After a head whose body is chunked come its chunks; a body of
    /// known length is one piece.
    fn next_piece(&mut self) -> Option<Piece> {
        if self.input.starts_with(b"HTTP/1.1 ") {
            let end = self.input.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
            let head = String::from_utf8(self.input[..end].to_vec()).unwrap();
            let status: u16 = head[9..12].parse().unwrap();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "));
            let length = length.map(|length| length.parse::<usize>().unwrap());
            let body = match (length, status) {
                (Some(length), _) => Some(length),
                (None, 204) => Some(0),
                (None, _) => None,
            };
            if let Some(body) = body {
                // It is turned into chunks, so that there is one way to read on.
                let bytes = self.input.get(end..end + body)?.to_vec();
                self.input.drain(..end + body);
                let mut chunks = Vec::new();
                if !bytes.is_empty() {
                    chunks.extend_from_slice(format!("{body:x}\r\n").as_bytes());
                    chunks.extend_from_slice(&bytes);
                    chunks.extend_from_slice(b"\r\n");
                }
                chunks.extend_from_slice(b"0\r\n\r\n");
                self.input.splice(..0, chunks);
            } else {
                self.input.drain(..end);
            }
            return Some(Piece::Head { status });
        }
        let line = self.input.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&self.input[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let body = self.input.get(line + 2..line + 4 + size)?;
        let body = String::from_utf8(body[..size].to_vec()).unwrap();
        self.input.drain(..line + 4 + size);
        Some(match size {
            0 => Piece::End,
            _ => Piece::Body(body),
        })
    }
}

fn request(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n{body}").into()
}

fn world_sum(metrics: &[Metrics], metric: Metric) -> u64 {
    metrics.iter().map(|metrics| metrics.read(metric)).sum()
}
