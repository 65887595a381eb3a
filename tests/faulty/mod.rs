//! A server that does wrong on purpose, to see whether the load generator notices: of the Pusher protocol, which takes
//! publishes over HTTP, or of plain WebSocket. A thread for each connection; it knows no channels, signatures or apps.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use outpour::load::machine::{monotonic_ns, sleep_until};
use outpour::load::stamp::Stamp;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// What the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    Pusher,
    Plain,
}

/// What goes wrong. Messages of the warm-up are served well: only those of the load count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    /// The wronged client misses one message.
    Drop,
    /// It gets one twice.
    Repeat,
    /// It misses one, which the next client gets twice.
    DropAndRepeat,
    /// It gets two in the wrong order.
    Reorder,
    /// It is closed in the middle.
    Close,
    /// Everybody gets everything so long after it was due, and the wronged client so long.
    Delay {
        all: Duration,
        wronged: Duration,
    },
    /// The wronged client gets everything so late, and the next one gets a message ten times.
    LateAndRepeat(Duration),
    /// Once, for so long, no publish is read or answered and nothing is sent.
    Stall(Duration),
    /// Each message takes so long.
    Work(Duration),
}

/// Messages before this one are the warm-up's.
const WARM_UP_MESSAGES: usize = 20;
/// The message that the fault happens to.
const WRONG_MESSAGE: usize = WARM_UP_MESSAGES + 5;
/// Clients connect from 127.0.0.2 and up, each from its own address, so that the server knows which is which.
const FIRST_HOST: u8 = 2;

pub struct Faulty {
    pub address: SocketAddr,
    written: Arc<Mutex<Vec<Written>>>,
}

/// A message of the load, about to be written to one client.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub sequence: u64,
    /// After it was due.
    pub late_us: u64,
}

impl Faulty {
    /// Serves until the test ends.
    pub fn serve(speech: Speech, fault: Fault, wronged: usize) -> Faulty {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let written: Arc<Mutex<Vec<Written>>> = Arc::default();
        let state = Arc::new(Mutex::new(State {
            speech,
            fault,
            wronged,
            clients: Vec::new(),
            published: 0,
            held: None,
        }));
        let faulty = Faulty {
            address,
            written: Arc::clone(&written),
        };
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (socket, state) = (socket.unwrap(), Arc::clone(&state));
                let written = Arc::clone(&written);
                thread::spawn(move || {
                    let mut first = [0; 4];
                    while socket.peek(&mut first).unwrap_or(0) < first.len() {
                        thread::sleep(Duration::from_millis(1));
                    }
                    match &first {
                        b"POST" => take_publishes(socket, &state),
                        _ => attend(socket, &state, &written),
                    }
                });
            }
        });
        faulty
    }

    /// All that was written of the load so far.
    pub fn written(&self) -> Vec<Written> {
        self.written.lock().unwrap().clone()
    }
}

/// Addresses of so many clients, for `--sources`.
pub fn sources(clients: usize) -> String {
    let hosts = (usize::from(FIRST_HOST)..).take(clients);
    let addresses: Vec<String> = hosts.map(|host| format!("127.0.0.{host}")).collect();
    addresses.join(",")
}

struct State {
    speech: Speech,
    fault: Fault,
    wronged: usize,
    clients: Vec<Client>,
    published: usize,
    /// What the wronged client gets after the next message.
    held: Option<String>,
}

struct Client {
    number: usize,
    dispatches: Sender<Dispatch>,
}

enum Dispatch {
    /// Not before this time, or at once: a message of the warm-up.
    Send(Option<u64>, String),
    Close,
}

/// One client, from its upgrade to the end of the test.
fn attend(socket: TcpStream, state: &Mutex<State>, written: &Mutex<Vec<Written>>) {
    let IpAddr::V4(from) = socket.peer_addr().unwrap().ip() else {
        panic!("a client of another family");
    };
    let number = usize::from(from.octets()[3] - FIRST_HOST);
    let speech = state.lock().unwrap().speech;
    socket.set_nodelay(true).unwrap();
    let mut socket = tungstenite::accept(socket).unwrap();
    match speech {
        Speech::Pusher => greet(&mut socket),
        Speech::Plain => {}
    }
    let (dispatches, told) = mpsc::channel();
    state
        .lock()
        .unwrap()
        .clients
        .push(Client { number, dispatches });
    obey(&mut socket, &told, written);
}

fn greet(socket: &mut WebSocket<TcpStream>) {
    let greeting = json!({"socket_id": "1.1", "activity_timeout": 120}).to_string();
    say(
        socket,
        json!({"event": "pusher:connection_established", "data": greeting}),
    );
    let wish = socket.read().unwrap().into_text().unwrap();
    let wish: Value = serde_json::from_str(&wish).unwrap();
    let channel = &wish["data"]["channel"];
    say(
        socket,
        json!({"event": "pusher_internal:subscription_succeeded", "channel": channel, "data": "{}"}),
    );
}

fn obey(
    socket: &mut WebSocket<TcpStream>,
    told: &Receiver<Dispatch>,
    written: &Mutex<Vec<Written>>,
) {
    for dispatch in told {
        match dispatch {
            Dispatch::Send(at_ns, text) => {
                if let Some(at_ns) = at_ns {
                    sleep_until(at_ns);
                    let stamp = Stamp::find(text.as_bytes()).unwrap();
                    written.lock().unwrap().push(Written {
                        sequence: stamp.sequence,
                        late_us: (monotonic_ns() - stamp.due_ns) / 1_000,
                    });
                }
                // A client that is gone is the generator's matter.
                if socket.send(Message::text(text)).is_err() {
                    return;
                }
            }
            Dispatch::Close => return socket.get_mut().shutdown(Shutdown::Both).unwrap(),
        }
    }
}

fn take_publishes(socket: TcpStream, state: &Mutex<State>) {
    let mut out = socket.try_clone().unwrap();
    let mut from = BufReader::new(socket);
    let speech = state.lock().unwrap().speech;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if from.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head.split("Content-Length: ").nth(1).unwrap();
        let length = length.split("\r\n").next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        from.read_exact(&mut body).unwrap();
        let text = match speech {
            Speech::Pusher => {
                let event: Value = serde_json::from_slice(&body).unwrap();
                json!({"event": event["name"], "channel": event["channel"], "data": event["data"]})
                    .to_string()
            }
            Speech::Plain => String::from_utf8(body).unwrap(),
        };
        state.lock().unwrap().relay(&text);
        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            .unwrap();
    }
}

impl State {
    /// One message to everybody, as the fault has it.
    fn relay(&mut self, text: &str) {
        let message = self.published;
        self.published += 1;
        if message < WARM_UP_MESSAGES {
            return self
                .clients
                .iter()
                .for_each(|client| client.send(None, text));
        }
        let due_ns = Stamp::find(text.as_bytes()).unwrap().due_ns;
        let held = self.held.take();
        for client in &self.clients {
            let place = client.number.checked_sub(self.wronged);
            let at_ns = Some(due_ns + self.fault.delay(place).as_nanos() as u64);
            let copies = match message == WRONG_MESSAGE {
                true => self.fault.copies(place),
                false => 1,
            };
            (0..copies).for_each(|_| client.send(at_ns, text));
            if let (Some(0), Some(held)) = (place, &held) {
                client.send(at_ns, held);
            }
            if (message, place, self.fault) == (WRONG_MESSAGE, Some(0), Fault::Close) {
                client.tell(Dispatch::Close);
            }
        }
        if (message, self.fault) == (WRONG_MESSAGE, Fault::Reorder) {
            self.held = Some(text.to_owned());
        }
        // Whoever holds the lock holds everybody up.
        match self.fault {
            Fault::Stall(pause) if message == WRONG_MESSAGE => thread::sleep(pause),
            Fault::Work(pause) => thread::sleep(pause),
            Fault::Stall(_)
            | Fault::LateAndRepeat(_)
            | Fault::Nothing
            | Fault::Drop
            | Fault::Repeat
            | Fault::DropAndRepeat
            | Fault::Reorder
            | Fault::Close
            | Fault::Delay { .. } => {}
        }
    }
}

impl Fault {
    /// How often a client gets the wrong message; the wronged one has place 0, the next one place 1.
    fn copies(self, place: Option<usize>) -> usize {
        match (self, place) {
            (Fault::Drop | Fault::DropAndRepeat | Fault::Reorder | Fault::Close, Some(0)) => 0,
            (Fault::Repeat, Some(0)) | (Fault::DropAndRepeat, Some(1)) => 2,
            (Fault::LateAndRepeat(_), Some(1)) => 10,
            (_, _) => 1,
        }
    }

    fn delay(self, place: Option<usize>) -> Duration {
        match self {
            Fault::Delay { wronged, .. } if place == Some(0) => wronged,
            Fault::Delay { all, .. } => all,
            Fault::LateAndRepeat(late) if place == Some(0) => late,
            Fault::LateAndRepeat(_)
            | Fault::Nothing
            | Fault::Drop
            | Fault::Repeat
            | Fault::DropAndRepeat
            | Fault::Reorder
            | Fault::Close
            | Fault::Stall(_)
            | Fault::Work(_) => Duration::ZERO,
        }
    }
}

impl Client {
    fn send(&self, at_ns: Option<u64>, text: &str) {
        self.tell(Dispatch::Send(at_ns, text.to_owned()));
    }

    fn tell(&self, dispatch: Dispatch) {
        // Whoever was closed is told nothing any more.
        self.dispatches.send(dispatch).unwrap_or(());
    }
}

fn say(socket: &mut WebSocket<TcpStream>, event: Value) {
    socket.send(Message::text(event.to_string())).unwrap();
}
