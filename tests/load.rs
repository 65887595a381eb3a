//! The load generator's clients against servers: one that is right, and one that is wrong on purpose.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use outpour::load::clients::Clients;
use outpour::load::machine::{monotonic_ns, sleep_until};
use outpour::load::orders::{
    Access, Channels, Command, Count, Manner, Orders, Pusher, Sample, Speech, Wrong,
};
use outpour::load::stamp::Stamp;
use tungstenite::{Message, WebSocket};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod raw;

use raw::{Publisher, serve};

const DATA_BYTES: usize = 64;
const DELAY_NS: u64 = 100_000_000;

fn orders(target: SocketAddr, access: Access, channels: u64, sample: Sample) -> Orders {
    Orders {
        target,
        sources: vec![[127, 0, 0, 1].into(), [127, 0, 0, 9].into()],
        speech: Speech::Pusher(Pusher::new("app-key", Some("app-secret"))),
        channels: Channels::Shared {
            access,
            name: "room".to_owned(),
            count: channels,
        },
        cores: Vec::new(),
        first_client: 0,
        clients_max: 100,
        opening_max: outpour::load::orders::OPENING_MAX,
        sample,
        receive_buffer_bytes: None,
    }
}

fn start(orders: &Orders) -> Clients {
    let program = Path::new(env!("CARGO_BIN_EXE_outpour"));
    Clients::start_program(program, orders).expect("the clients start")
}

fn open(clients: &mut Clients, count: usize) {
    let settled = clients.carry_out(Command::Open {
        clients: count,
        per_second: None,
    });
    let settled = settled.expect("they open");
    assert_eq!(settled.clients, count as u64);
    assert_eq!(settled.handshakes, settled.opened.count());
}

fn begin(clients: &mut Clients) {
    clients.quiet(200).expect("it becomes quiet");
    let begin = Command::Begin { frame_bytes: None };
    clients.carry_out(begin).expect("the run begins");
}

/// A stamp that is due now.
fn now(sequence: u64) -> Stamp {
    Stamp {
        sequence,
        due_ns: monotonic_ns(),
    }
}

/// A warm-up, and a run of `messages` on each channel of a correct server, counted.
fn run_on_outpour(access: Access, channels: u64, clients: usize, sample: Sample) -> Count {
    const MESSAGES: u64 = 30;
    let running = serve(2, |_| {});
    let orders = orders(running.address(), access, channels, sample);
    let names: Vec<String> = (0..channels)
        .map(|index| orders.channels.name(index))
        .collect();
    let mut unit = start(&orders);
    open(&mut unit, clients);
    let mut publisher = Publisher::connect(running.address());
    for name in &names {
        publisher.publish(name, &now(0).data(DATA_BYTES));
    }
    begin(&mut unit);
    for sequence in 0..MESSAGES {
        for name in &names {
            publisher.publish(name, &now(sequence).data(DATA_BYTES));
        }
    }
    let count = unit.drained(MESSAGES, 2_000).expect("they count");
    assert_eq!(count.wrong(MESSAGES), 0, "{count:?}");
    assert_eq!(count.messages, MESSAGES * clients as u64);
    assert_eq!(
        (count.messages_min, count.messages_max),
        (MESSAGES, MESSAGES)
    );
    assert_eq!(count.order.evidence, []);
    assert_eq!(count.deliveries.count(), count.order.clients * MESSAGES);
    assert_eq!(count.receipts.len(), channels as usize);
    for receipts in &count.receipts {
        assert_eq!(receipts.messages, MESSAGES * receipts.clients);
        let columns = [&receipts.first_ns, &receipts.median_ns, &receipts.last_ns];
        for column in columns {
            assert_eq!(column.0.len(), MESSAGES as usize);
            assert!(column.0.iter().all(|ns| *ns >= count.began_ns));
        }
        for place in 0..MESSAGES as usize {
            let [first, median, last] = columns.map(|column| column.0[place]);
            assert!(first <= median && median <= last);
            let due_ns = receipts.due_ns.0[place];
            assert!(due_ns == 0 || due_ns <= first, "before it was sent");
        }
    }
    let closed = unit.carry_out(Command::Close {
        clients: 0,
        manner: Manner::Orderly,
    });
    assert_eq!(closed.expect("they close").clients, 0);
    running.stop();
    count
}

#[test]
fn a_correct_server_gives_nothing_wrong_and_most_clients_only_count() {
    let count = run_on_outpour(Access::Public, 1, 50, Sample::Clients(5));
    assert_eq!((count.clients, count.order.clients), (50, 5));
    assert!(count.frame_bytes.is_some());
    assert!(count.receipts[0].due_ns.0.iter().all(|due_ns| *due_ns > 0));
}

#[test]
fn clients_on_several_private_channels_are_all_served() {
    let count = run_on_outpour(Access::Private, 7, 50, Sample::Clients(9));
    assert_eq!(
        count
            .receipts
            .iter()
            .map(|receipts| receipts.clients)
            .sum::<u64>(),
        50
    );
}

#[test]
fn members_of_a_presence_channel_all_decode() {
    let count = run_on_outpour(Access::Presence { users: 10 }, 1, 20, Sample::Clients(1));
    assert_eq!(count.order.clients, 20);
}

#[test]
fn storms_stalls_and_guests_leave_the_run_of_the_others_alone() {
    const MESSAGES: u64 = 20;
    let running = serve(1, |_| {});
    let mut unit = start(&orders(
        running.address(),
        Access::Public,
        1,
        Sample::Clients(2),
    ));
    open(&mut unit, 40);
    let storm = unit.carry_out(Command::Reconnect {
        clients: 30,
        per_second: None,
    });
    assert_eq!(storm.expect("they come back").handshakes, 30);
    let mut publisher = Publisher::connect(running.address());
    publisher.publish("room", &now(0).data(DATA_BYTES));
    unit.quiet(200).expect("it becomes quiet");
    let stall = Command::Stall {
        clients: 10,
        bytes_per_second: 50,
    };
    unit.carry_out(stall).expect("they stall");
    begin(&mut unit);
    let churn = Command::Churn {
        per_second: 200.0,
        guests: 5,
    };
    unit.carry_out(churn).expect("guests come");
    for sequence in 0..MESSAGES {
        publisher.publish("room", &now(sequence).data(DATA_BYTES));
        thread::sleep(Duration::from_millis(10));
    }
    let count = unit.drained(MESSAGES, 2_000).expect("they count");
    assert_eq!(count.wrong(MESSAGES), 0, "{count:?}");
    assert_eq!((count.clients, count.stalled.clients), (30, 10));
    let all_bytes = 10 * MESSAGES * count.frame_bytes.expect("it is known");
    assert!(
        count.stalled.bytes < all_bytes,
        "they read as if nothing held them"
    );
    assert!(
        count.churn.joins > 5 && count.churn.leaves > 0,
        "{:?}",
        count.churn
    );
    assert_eq!(count.churn.failures, 0);
    let no_churn = Command::Churn {
        per_second: 0.0,
        guests: 0,
    };
    unit.carry_out(no_churn).expect("guests leave");
    unit.carry_out(Command::Unstall).expect("they read again");
    begin(&mut unit);
    publisher.publish("room", &now(0).data(DATA_BYTES));
    let count = unit.drained(1, 2_000).expect("they count");
    assert_eq!((count.clients, count.wrong(1)), (40, 0), "{count:?}");
    running.stop();
}

#[test]
fn own_channels_come_and_go_and_heartbeats_change_nothing() {
    let running = serve(1, |_| {});
    let mut orders = orders(running.address(), Access::Public, 1, Sample::Clients(1));
    orders.channels = Channels::Own {
        access: Access::Public,
        name: "own".to_owned(),
        per_client_max: 600,
    };
    let mut unit = start(&orders);
    open(&mut unit, 3);
    for per_client in [600, 1, 0, 300] {
        let settled = unit.carry_out(Command::Subscribe { per_client });
        assert_eq!(
            settled.expect("they subscribe").subscriptions,
            3 * per_client
        );
        unit.carry_out(Command::Heartbeat).expect("they live");
    }
    running.stop();
}

/// A client that counts would count a ping, and not answer it. Without the signs of life it fails.
#[test]
fn who_gives_a_sign_of_life_in_time_is_not_asked_for_one() {
    let running = serve(1, |options| options.activity_timeout_s = 2);
    let orders = orders(running.address(), Access::Public, 1, Sample::Clients(1));
    let mut unit = start(&orders);
    open(&mut unit, 10);
    let mut publisher = Publisher::connect(running.address());
    begin(&mut unit);
    for sequence in 0..12 {
        unit.carry_out(Command::Heartbeat).expect("they live");
        publisher.publish("room", &now(sequence).data(DATA_BYTES));
        std::thread::sleep(Duration::from_millis(300));
    }
    let count = unit.drained(12, 2_000).expect("they count");
    assert_eq!((count.clients, count.wrong(12)), (10, 0), "{count:?}");
    running.stop();
}

/// What the bad server does with one message for one client.
enum Dispatch {
    Send(String),
    /// At this time.
    SendAt(u64, String),
    Close,
}

/// A server that does to each client what it is told, and nothing by itself.
struct BadServer {
    address: SocketAddr,
    subscribed: Receiver<Sender<Dispatch>>,
    clients: Vec<Sender<Dispatch>>,
}

impl BadServer {
    fn start() -> BadServer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (subscriptions, subscribed) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let subscriptions = subscriptions.clone();
                let stream = stream.expect("a client comes");
                thread::spawn(move || attend(stream, &subscriptions));
            }
        });
        BadServer {
            address,
            subscribed,
            clients: Vec::new(),
        }
    }

    fn gather(&mut self, count: usize) {
        while self.clients.len() < count {
            let next = self.subscribed.recv_timeout(raw::PATIENCE);
            self.clients.push(next.expect("a client subscribes"));
        }
    }

    fn tell(&self, client: usize, dispatch: Dispatch) {
        self.clients[client].send(dispatch).expect("it is attended");
    }

    /// A message to everybody.
    fn publish(&self, stamp: Stamp) {
        for client in 0..self.clients.len() {
            self.tell(client, Dispatch::Send(event(stamp)));
        }
    }
}

fn event(stamp: Stamp) -> String {
    let data = stamp.data(DATA_BYTES);
    format!(r#"{{"event":"n","channel":"room","data":"{data}"}}"#)
}

fn attend(stream: TcpStream, subscriptions: &Sender<Sender<Dispatch>>) {
    stream.set_nodelay(true).expect("an option");
    let mut socket = tungstenite::accept(stream).expect("it upgrades");
    let hello = r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.1\",\"activity_timeout\":120}"}"#;
    socket.send(Message::text(hello)).expect("sent");
    let asked = socket.read().expect("it subscribes").to_string();
    assert!(asked.contains("pusher:subscribe"), "{asked}");
    let confirmed = raw::confirmation("room");
    socket.send(Message::text(confirmed)).expect("sent");
    let (dispatches, told) = mpsc::channel();
    subscriptions.send(dispatches).expect("the test goes on");
    obey(&mut socket, &told);
}

fn obey(socket: &mut WebSocket<TcpStream>, told: &Receiver<Dispatch>) {
    for dispatch in told {
        match dispatch {
            Dispatch::Send(text) => socket.send(Message::text(text)).expect("sent"),
            Dispatch::SendAt(at_ns, text) => {
                sleep_until(at_ns);
                socket.send(Message::text(text)).expect("sent");
            }
            Dispatch::Close => {
                socket.close(None).expect("closed");
                return;
            }
        }
    }
}

/// Clients of a bad server, at the beginning of a run.
fn on_bad_server(clients: usize, sample: Sample) -> (BadServer, Clients) {
    let mut server = BadServer::start();
    let mut unit = start(&orders(server.address, Access::Public, 1, sample));
    // One after the other, so that the server knows which is which.
    for count in 1..=clients {
        open(&mut unit, count);
        server.gather(count);
    }
    server.publish(now(0));
    begin(&mut unit);
    (server, unit)
}

/// All but the first client get everything; the first one gets these, in this order.
fn run_with_first_client(sequences: &[u64]) -> Count {
    let (server, mut unit) = on_bad_server(4, Sample::All);
    for sequence in 0..10 {
        let stamp = now(sequence);
        for client in 1..4 {
            server.tell(client, Dispatch::Send(event(stamp)));
        }
    }
    for &sequence in sequences {
        server.tell(0, Dispatch::Send(event(now(sequence))));
    }
    unit.quiet(500).expect("it becomes quiet");
    unit.count().expect("they count")
}

/// The one client that saw anything wrong, and what it saw: kind, expected, seen.
fn evidence(count: &Count) -> Vec<(Wrong, u64, u64)> {
    let evidence = &count.order.evidence;
    let who = evidence.first().map(|evidence| evidence.client);
    assert!(evidence.iter().all(|evidence| Some(evidence.client) == who));
    assert!(evidence.iter().all(|evidence| evidence.channel == "room"));
    let seen = evidence.iter();
    seen.map(|evidence| (evidence.what, evidence.expected, evidence.seen))
        .collect()
}

#[test]
fn a_message_that_is_dropped_is_missed() {
    let count = run_with_first_client(&[0, 1, 2, 3, 4, 6, 7, 8, 9]);
    assert_eq!(evidence(&count), [(Wrong::Gap, 5, 6)]);
    let order = &count.order;
    assert_eq!((order.gaps, order.missing), (1, 1));
    assert_eq!((count.messages, count.messages_min), (39, 9));
    assert_eq!(
        count.wrong(10),
        2,
        "one that is lost, and the gap that shows it"
    );
}

#[test]
fn a_message_that_comes_twice_is_noticed() {
    let count = run_with_first_client(&[0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9]);
    assert_eq!(evidence(&count), [(Wrong::Repeat, 5, 4)]);
    assert_eq!((count.order.repeated, count.order.missing), (1, 0));
    assert_eq!((count.messages_max, count.wrong(10)), (11, 1));
}

#[test]
fn messages_in_another_order_are_noticed_though_none_is_missing() {
    let count = run_with_first_client(&[0, 1, 3, 2, 4, 5, 6, 7, 8, 9]);
    assert_eq!(
        evidence(&count),
        [(Wrong::Gap, 2, 3), (Wrong::Reorder, 4, 2)]
    );
    let order = &count.order;
    assert_eq!((order.missing, order.reordered, count.messages), (0, 1, 40));
    assert_eq!(count.wrong(10), 1);
}

#[test]
fn a_drop_shows_at_a_client_that_only_counts() {
    let (server, mut unit) = on_bad_server(4, Sample::Clients(1));
    for sequence in 0..10 {
        for client in 0..4 {
            // Whichever decodes, two others get one message less.
            if sequence != 5 || client < 2 {
                server.tell(client, Dispatch::Send(event(now(sequence))));
            }
        }
    }
    let count = unit.drained(10, 500).expect("they count");
    assert_eq!((count.order.clients, count.messages), (1, 38));
    assert!(count.wrong(10) >= 2);
    let receipts = &count.receipts[0];
    let [median, last] = [&receipts.median_ns, &receipts.last_ns].map(|times| &times.0);
    assert!(median[9] > 0 && last[8] > 0, "half of them have all");
    assert_eq!(last[9], 0, "and two of them have not");
}

/// Fails if a sum over clients is held against what was due.
#[test]
fn a_drop_at_one_client_that_counts_is_not_made_up_for_by_a_repeat_at_another() {
    let (server, mut unit) = on_bad_server(4, Sample::Clients(1));
    for sequence in 0..10 {
        let stamp = now(sequence);
        for client in 0..4 {
            let copies = match (client, sequence) {
                (2, 5) => 0,
                (3, 7) => 2,
                _ => 1,
            };
            for _ in 0..copies {
                server.tell(client, Dispatch::Send(event(stamp)));
            }
        }
    }
    let count = unit.drained(10, 500).expect("they count");
    assert_eq!((count.order.clients, count.order.signs()), (1, 0));
    assert_eq!((count.messages, count.clients), (40, 4));
    assert_eq!((count.messages_min, count.messages_max), (9, 11));
    let receipts = &count.receipts[0];
    assert_eq!((receipts.lacking(10), receipts.surplus(10)), (1, 1));
    assert_eq!(count.wrong(10), 2);
}

/// It lacks what came after it was gone, and what it had is not forgotten.
#[test]
fn a_client_that_the_server_ended_lacks_the_rest() {
    for sample in [Sample::All, Sample::Clients(1)] {
        let (server, mut unit) = on_bad_server(3, sample);
        for sequence in 0..10 {
            let stamp = now(sequence);
            for client in 0..3 {
                match (client, sequence) {
                    (2, 0..4) | (0 | 1, _) => server.tell(client, Dispatch::Send(event(stamp))),
                    (2, 4) => server.tell(client, Dispatch::Close),
                    (_, _) => {}
                }
            }
        }
        let count = unit.drained(10, 500).expect("they count");
        assert_eq!((count.clients, count.closed), (3, 1));
        let receipts = &count.receipts[0];
        assert_eq!(
            (receipts.reached.lacking(10), receipts.ended.lacking(10)),
            (0, 6)
        );
    }
}

#[test]
fn strange_messages_and_closed_connections_are_told_with_words() {
    let (server, mut unit) = on_bad_server(3, Sample::All);
    let before_the_run = Stamp {
        sequence: 0,
        due_ns: 1,
    };
    server.tell(0, Dispatch::Send(event(before_the_run)));
    let elsewhere = event(now(0)).replace("room", "loft");
    server.tell(0, Dispatch::Send(elsewhere));
    server.tell(1, Dispatch::Close);
    let error = r#"{"event":"pusher:error","data":{"code":4301,"message":"too much"}}"#;
    server.tell(2, Dispatch::Send(error.to_owned()));
    unit.quiet(500).expect("it becomes quiet");
    let count = unit.count().expect("they count");
    let mut kinds: Vec<Wrong> = count.order.evidence.iter().map(|one| one.what).collect();
    kinds.sort_by_key(|kind| *kind as u8);
    assert_eq!(
        kinds,
        [Wrong::Stray, Wrong::Stray, Wrong::Fault, Wrong::Closed]
    );
    assert_eq!(
        (count.order.strays, count.order.faults, count.closed),
        (2, 1, 2)
    );
    let words: Vec<&str> = count
        .order
        .evidence
        .iter()
        .filter_map(|one| one.words.as_deref())
        .collect();
    assert!(
        words.iter().any(|words| words.contains("too much")),
        "{words:?}"
    );
    assert!(
        words.iter().any(|words| words.contains("loft")),
        "{words:?}"
    );
}

/// A tenth of the deliveries take 100 ms. What a busy machine adds comes on top; nothing may come out below.
#[test]
fn a_known_delay_shows_in_the_percentiles_and_in_the_last_receipts() {
    const CLIENTS: usize = 10;
    const MESSAGES: u64 = 100;
    let (server, mut unit) = on_bad_server(CLIENTS, Sample::All);
    let start_ns = monotonic_ns();
    for sequence in 0..MESSAGES {
        let stamp = Stamp {
            sequence,
            due_ns: start_ns + sequence * 2_000_000,
        };
        sleep_until(stamp.due_ns);
        for client in 0..CLIENTS {
            let dispatch = match client {
                0 => Dispatch::SendAt(stamp.due_ns + DELAY_NS, event(stamp)),
                _ => Dispatch::Send(event(stamp)),
            };
            server.tell(client, dispatch);
        }
    }
    let count = unit.drained(MESSAGES, 5_000).expect("they count");
    assert_eq!(count.wrong(MESSAGES), 0, "{count:?}");
    let deliveries = &count.deliveries;
    assert_eq!(deliveries.count(), MESSAGES * CLIENTS as u64);
    let delay_us = DELAY_NS / 1_000;
    let quantile = |at| deliveries.quantile_us(at).expect("there are some");
    assert!(quantile(0.901) >= delay_us, "{}", quantile(0.901));
    assert!(quantile(0.999) >= delay_us);
    assert!(quantile(0.5) < delay_us, "the others were not delayed");
    let receipts = &count.receipts[0];
    for place in 0..MESSAGES as usize {
        let due_ns = receipts.due_ns.0[place];
        assert_eq!(due_ns, start_ns + place as u64 * 2_000_000);
        assert!(receipts.last_ns.0[place] >= due_ns + DELAY_NS);
        assert!(receipts.first_ns.0[place] >= due_ns);
    }
}
