//! A server of the Pusher protocol that does wrong on purpose, to see whether the load generator
//! notices. A thread for each connection; it knows no channels, signatures or apps.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// What goes wrong. Messages of the warm-up are served well: only those of the load count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    /// The first subscriber misses one message.
    Drop,
    /// It gets one twice.
    Repeat,
    /// It gets two in the wrong order.
    Reorder,
    /// Everybody gets everything so late.
    Delay(Duration),
    /// The first subscriber is closed in the middle.
    Close,
}

/// Messages before this one are the warm-up's.
const WARM_UP_MESSAGES: usize = 20;
/// The message that the fault happens to.
const WRONG_MESSAGE: usize = WARM_UP_MESSAGES + 5;

struct State {
    fault: Fault,
    subscribers: Vec<WebSocket<TcpStream>>,
    published: usize,
    /// What the first subscriber gets after the next message.
    held: Option<String>,
}

/// Serves until the test ends.
pub fn serve(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(Mutex::new(State {
        fault,
        subscribers: Vec::new(),
        published: 0,
        held: None,
    }));
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (socket, state) = (socket.unwrap(), Arc::clone(&state));
            thread::spawn(move || {
                let mut first = [0; 4];
                while socket.peek(&mut first).unwrap_or(0) < first.len() {
                    thread::sleep(Duration::from_millis(1));
                }
                match &first {
                    b"POST" => take_publishes(socket, &state),
                    _ => subscribe(socket, &state),
                }
            });
        }
    });
    address
}

fn subscribe(socket: TcpStream, state: &Mutex<State>) {
    let mut socket = tungstenite::accept(socket).unwrap();
    let greeting = json!({"socket_id": "1.1", "activity_timeout": 120}).to_string();
    say(
        &mut socket,
        json!({"event": "pusher:connection_established", "data": greeting}),
    );
    let wish = socket.read().unwrap().into_text().unwrap();
    let wish: Value = serde_json::from_str(&wish).unwrap();
    let channel = &wish["data"]["channel"];
    say(
        &mut socket,
        json!({"event": "pusher_internal:subscription_succeeded", "channel": channel, "data": "{}"}),
    );
    state.lock().unwrap().subscribers.push(socket);
}

fn take_publishes(socket: TcpStream, state: &Mutex<State>) {
    let mut out = socket.try_clone().unwrap();
    let mut from = BufReader::new(socket);
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
        let event: Value = serde_json::from_slice(&body).unwrap();
        let text =
            json!({"event": event["name"], "channel": event["channel"], "data": event["data"]});
        state.lock().unwrap().relay(text.to_string());
        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            .unwrap();
    }
}

impl State {
    fn relay(&mut self, text: String) {
        let is_wrong = self.published == WRONG_MESSAGE;
        self.published += 1;
        if let Fault::Delay(delay) = self.fault {
            thread::sleep(delay);
        }
        for (number, subscriber) in self.subscribers.iter_mut().enumerate() {
            let mut send = |text: &str| subscriber.send(Message::text(text)).unwrap_or(());
            if number > 0 {
                send(&text);
                continue;
            }
            let held = self.held.take();
            match self.fault {
                Fault::Drop if is_wrong => {}
                Fault::Reorder if is_wrong => self.held = Some(text.clone()),
                Fault::Repeat if is_wrong => {
                    send(&text);
                    send(&text);
                }
                Fault::Close if is_wrong => subscriber
                    .get_mut()
                    .shutdown(std::net::Shutdown::Both)
                    .unwrap(),
                Fault::Nothing
                | Fault::Drop
                | Fault::Reorder
                | Fault::Repeat
                | Fault::Close
                | Fault::Delay(_) => send(&text),
            }
            if let Some(held) = held {
                subscriber.send(Message::text(held)).unwrap();
            }
        }
    }
}

fn say(socket: &mut WebSocket<TcpStream>, event: Value) {
    socket.send(Message::text(event.to_string())).unwrap();
}
