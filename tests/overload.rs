//! What happens when there is too much: of publishes, of bytes for one client, of connections, or
//! of silence.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use outpour::base::limits;
use outpour::base::metrics::{Latency, Metric};
use outpour::options::Automatic;
use outpour::server::Running;
use socket2::{Domain, Socket, Type};
use tungstenite::Message;

#[allow(dead_code, reason = "each test program uses a part of it")]
mod raw;

use raw::{
    PATIENCE, PING, Publisher, Raw, TEXT, close_code, data_of, data_of_next, dial, masked,
    publish_request, serve, subscribe, subscription, sum, wait_until,
};

/// The smallest log that a channel may be given.
const LOG_BYTES_MAX: usize = 64 << 10;

#[test]
fn a_channel_that_is_quiet_between_publishes_is_never_taken_for_congested() {
    let running = serve(2, |options| options.log_bytes_max = LOG_BYTES_MAX);
    let address = running.address();
    let mut subscribers = Vec::new();
    while subscriptions_by_shard(&running).contains(&0) {
        subscribers.push(subscribe(address, "room"));
        let count = subscribers.len() as u64;
        wait_until("it is counted", || {
            sum(&running, Metric::Subscriptions) == count
        });
    }
    let mut publisher = Publisher::connect(address);
    let filling = "x".repeat(4000);
    for number in 0..8 * LOG_BYTES_MAX / filling.len() {
        let data = format!("{number} {filling}");
        publisher.publish("room", &data);
        for subscriber in &mut subscribers {
            assert_eq!(data_of_next(subscriber, "room"), data);
        }
    }
    assert_eq!(sum(&running, Metric::PublishesParked), 0);
    running.stop();
}

fn subscriptions_by_shard(running: &Running) -> Vec<u64> {
    let shards = running.metrics().iter();
    shards
        .map(|metrics| metrics.read(Metric::Subscriptions))
        .collect()
}

#[test]
fn while_the_engine_is_behind_a_publish_waits_and_is_then_refused_whole() {
    let (running, statuses) = fall_behind(0);
    assert!(
        statuses.contains(&503),
        "the engine was never behind: {statuses:?}"
    );
    running.stop();
}

#[test]
fn a_publish_that_may_wait_long_enough_is_not_refused() {
    let (running, statuses) = fall_behind(60_000);
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(
        sum(&running, Metric::PublishesParked) > 0,
        "the engine was never behind"
    );
    running.stop();
}

/// Has an engine fall behind in a channel, by the work of [`CROWD`] connections times
/// [`CHANNELS`] that stands before that channel's in the queue: some 300,000 deliveries, far more
/// than are done in the time that a publish may wait if it is 0. Gives how publishes to that
/// channel were answered, after it was checked that subscribers have exactly those accepted.
fn fall_behind(publish_wait_ms_max: u64) -> (Running, Vec<u16>) {
    const CROWD: usize = 500;
    const CHANNELS: usize = 600;
    const EVENTS: usize = 20;
    let running = serve(1, |options| {
        options.log_bytes_max = LOG_BYTES_MAX;
        options.publish_wait_ms_max = publish_wait_ms_max;
    });
    let address = running.address();
    let mut channels: Vec<String> = (0..CHANNELS).map(|number| format!("c{number}")).collect();
    channels.push("behind".to_string());
    let subscriptions: Vec<u8> = channels
        .iter()
        .flat_map(|channel| masked(TEXT, subscription(channel).as_bytes()))
        .collect();
    let mut crowd: Vec<_> = (0..CROWD).map(|_| Raw::connect(address)).collect();
    for member in &mut crowd {
        let sent = member.stream.write_all(&subscriptions);
        sent.expect("it can be sent");
    }
    let all = (CROWD * channels.len()) as u64;
    wait_until("all are subscribed", || {
        sum(&running, Metric::Subscriptions) == all
    });

    let filling = "x".repeat(9000);
    let data: Vec<String> = (0..EVENTS)
        .map(|number| format!("{number} {filling}"))
        .collect();
    let names: Vec<&str> = channels[..CHANNELS].iter().map(String::as_str).collect();
    let work = names
        .chunks(100)
        .map(|names| publish_request(names, "work"));
    let events = data.iter().map(|data| publish_request(&["behind"], data));
    let mut publisher = Publisher::connect(address);
    publisher.send(&work.chain(events).collect::<Vec<_>>().concat());
    for _ in 0..CHANNELS / 100 {
        assert_eq!(publisher.answer().expect("it is answered").status, 200);
    }
    let (mut statuses, mut accepted) = (Vec::new(), Vec::new());
    for data in &data {
        let answer = publisher.answer().expect("it is answered");
        match answer.status {
            200 => accepted.push(data.as_str()),
            503 => assert!(answer.head.contains("Retry-After: 1"), "{answer:?}"),
            _ => panic!("{answer:?}"),
        }
        statuses.push(answer.status);
    }
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert_eq!(sum(&running, Metric::PublishesRefused), refused as u64);
    wait_until("the engine has caught up", || {
        publisher.try_publish("behind", "relieved").status == 200
    });
    accepted.push("relieved");

    let (member, others) = crowd.split_first_mut().expect("it is a crowd");
    for member in [member, others.last_mut().expect("it is a crowd")] {
        let mut got = Vec::new();
        while got.last().is_none_or(|last| last != "relieved") {
            let (opcode, text) = member.next().expect("an event comes");
            let text = String::from_utf8_lossy(&text);
            assert_eq!(opcode, TEXT, "{text}");
            if text.starts_with(r#"{"event":"n","channel":"behind""#) {
                got.push(data_of(&text, "behind"));
            }
        }
        assert!(
            got == accepted,
            "got {} of {} accepted",
            got.len(),
            accepted.len()
        );
    }
    assert_eq!(
        sum(&running, Metric::ShortSends),
        0,
        "no subscriber was behind"
    );
    (running, statuses)
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_behind_whole_frames_and_nobody_else_notices() {
    let running = serve(1, |options| options.log_bytes_max = LOG_BYTES_MAX);
    let address = running.address();
    let mut slow = Raw::over(narrow_stream(address));
    slow.subscribe("room");
    let mut healthy = subscribe(address, "room");
    let mut publisher = Publisher::connect(address);
    let filling = "x".repeat(9000);
    let mut published = Vec::new();
    while sum(&running, Metric::SlowClosed) == 0 {
        assert!(published.len() < 5000, "its socket does not fill");
        let data = format!("{} {filling}", published.len());
        publisher.publish("room", &data);
        assert_eq!(data_of_next(&mut healthy, "room"), data);
        published.push(data);
    }
    wait_until("it is not subscribed any more", || {
        sum(&running, Metric::Subscriptions) == 1
    });
    publisher.publish("room", "after");
    assert_eq!(data_of_next(&mut healthy, "room"), "after");
    assert_eq!(sum(&running, Metric::PublishesParked), 0);
    assert_eq!(sum(&running, Metric::SlowClosed), 1);

    let mut got = Vec::new();
    let close = loop {
        match slow.next().expect("a close frame comes before the end") {
            (TEXT, payload) => got.push(data_of(&String::from_utf8_lossy(&payload), "room")),
            other => break other,
        }
    };
    assert!(got.len() < published.len(), "it was not behind");
    assert!(
        got == published[..got.len()],
        "what it got is what was published first"
    );
    assert_eq!(close_code(&close), 4100);
    assert_eq!(slow.next(), None);
    running.stop();
}

#[test]
fn a_slow_subscriber_of_many_channels_makes_no_publisher_wait() {
    const CHANNELS: usize = 40;
    let running = serve(1, |options| {
        options.log_bytes_max = LOG_BYTES_MAX;
        options.log_bytes_per_shard_max = CHANNELS * LOG_BYTES_MAX / 4;
    });
    let address = running.address();
    let mut slow = Raw::over(narrow_stream(address));
    let mut healthy = Raw::connect(address);
    let channels: Vec<String> = (0..CHANNELS).map(|number| format!("c{number}")).collect();
    for channel in &channels {
        slow.subscribe(channel);
        healthy.subscribe(channel);
    }
    let mut publisher = Publisher::connect(address);
    let filling = "x".repeat(9000);
    let mut published = 0;
    while sum(&running, Metric::SlowClosed) == 0 {
        assert!(published < 5000, "its socket does not fill");
        let channel = &channels[published % CHANNELS];
        let data = format!("{published} {filling}");
        publisher.publish(channel, &data);
        let (opcode, text) = healthy.next().expect("an event comes");
        assert_eq!(opcode, TEXT);
        assert_eq!(data_of(&String::from_utf8_lossy(&text), channel), data);
        published += 1;
    }
    assert_eq!(sum(&running, Metric::PublishesParked), 0);
    running.stop();
}

/// A connection whose client's kernel holds few bytes that were not read.
fn narrow_stream(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("it is a socket");
    socket.connect(&address.into()).expect("it listens");
    let timeout = socket.set_read_timeout(Some(PATIENCE));
    timeout.expect("a timeout can be set");
    socket.into()
}

#[test]
fn connections_without_a_slot_are_told_and_the_api_is_served_all_the_same() {
    const CONNECTIONS: u32 = 4;
    let running = serve(1, |options| {
        options.connections_per_shard_max = Automatic::Exactly(CONNECTIONS);
    });
    let address = running.address();
    let mut subscribers: Vec<_> = (0..CONNECTIONS)
        .map(|_| subscribe(address, "room"))
        .collect();
    for _ in 0..3 * limits::RESERVE_SLOTS {
        let mut refused = Raw::connect(address);
        let (opcode, error) = refused.next().expect("an error comes first");
        let error: serde_json::Value = serde_json::from_slice(&error).expect("as JSON");
        assert_eq!((opcode, &error["event"]), (TEXT, &"pusher:error".into()));
        assert_eq!(error["data"]["code"], 4100);
        assert_eq!(
            close_code(&refused.next().expect("then a close frame")),
            4100
        );
        assert_eq!(refused.next(), None);
    }
    let refused = sum(&running, Metric::ConnectionsRefused);
    assert_eq!(refused, u64::from(3 * limits::RESERVE_SLOTS));

    // The API is served on the reserve, one answer for each connection.
    let answer = Publisher::connect(address).try_publish("room", "first");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.contains("Connection: close"), "{answer:?}");

    // Connections that say nothing take the reserve too: the listener pauses until they are cut.
    let silent: Vec<_> = (0..limits::RESERVE_SLOTS)
        .map(|_| TcpStream::connect(address).expect("the backlog has room"))
        .collect();
    wait_until("the listener pauses", || {
        sum(&running, Metric::ListenerPauses) > 0
    });
    let answer = Publisher::connect(address).try_publish("room", "second");
    assert_eq!(answer.status, 200, "{answer:?}");
    drop(silent);
    for subscriber in &mut subscribers {
        assert_eq!(data_of_next(subscriber, "room"), "first");
        assert_eq!(data_of_next(subscriber, "room"), "second");
    }

    // Whoever leaves makes room for the next.
    subscribers.pop();
    let least = u64::from(CONNECTIONS) - 1;
    wait_until("there is room", || {
        sum(&running, Metric::Connections) == least
    });
    subscribers.push(subscribe(address, "room"));
    running.stop();
}

#[test]
fn a_peer_that_does_not_answer_the_ping_is_closed() {
    let running = serve(1, |options| {
        options.activity_timeout_s = 1;
        options.pong_timeout_s = 1;
    });
    let mut silent = Raw::connect(running.address());
    silent.subscribe("room");
    assert_eq!(sum(&running, Metric::Subscriptions), 1);
    assert_eq!(silent.next(), Some((PING, Vec::new())));
    let close = silent.next().expect("a close frame comes");
    assert_eq!(close_code(&close), 4201);
    assert_eq!(sum(&running, Metric::Subscriptions), 0);
    assert_eq!(sum(&running, Metric::Unheard), 1);
    assert_eq!(silent.next(), None);
    running.stop();
}

/// The time that a request has was once counted from the answer to the one before, where that came
/// from another shard.
#[test]
fn a_connection_is_kept_for_its_next_request_wherever_the_last_was_answered() {
    let running = serve(2, |options| options.handshake_timeout_ms = 100);
    let mut publishers: Vec<Publisher> = (0..16)
        .map(|_| Publisher::connect(running.address()))
        .collect();
    for (number, publisher) in publishers.iter_mut().enumerate() {
        publisher.publish(&format!("room-{number}"), "one of both shards is its home");
    }
    std::thread::sleep(Duration::from_millis(600));
    for publisher in &mut publishers {
        publisher.publish("room", "the connection is still there");
    }
    running.stop();
}

/// Half of the channels are at home on the other shard. Fails if answers overtake each other (try
/// it: answer at once in `answer_in_turn`), and if publishes wait for each other's answers (try it:
/// let `lets_follow` say no).
#[test]
fn requests_of_one_connection_are_answered_in_their_order_and_publishes_do_not_wait_for_answers() {
    const ROUNDS: usize = 100;
    let running = serve(2, |_| {});
    let mut subscribers: Vec<_> = (0..8)
        .map(|room| subscribe(running.address(), &format!("room-{room}")))
        .collect();
    let mut publisher = Publisher::connect(running.address());
    let (mut requests, mut expected) = (Vec::new(), Vec::new());
    let mut ask = |request: &[u8], status: u16| {
        requests.extend_from_slice(request);
        expected.push(status);
    };
    for round in 0..ROUNDS {
        for room in 0..8 {
            let channel = format!("room-{room}");
            ask(&publish_request(&[&channel], &round.to_string()), 200);
        }
        match round % 8 {
            1 => ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            3 => ask(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404),
            5 => {
                let head = "POST /apps/1001/events HTTP/1.1\r\nHost: a\r\nContent-Length: 2";
                ask(format!("{head}\r\n\r\n{{}}").as_bytes(), 401);
            }
            7 => {
                let head = "POST /apps/1001/nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 2";
                ask(format!("{head}\r\n\r\n{{}}").as_bytes(), 404);
            }
            _ => {}
        }
    }
    ask(b"POST /apps/1001/events HTTP/1.1\r\n\r\n", 400);
    let mut writer = publisher
        .stream
        .try_clone()
        .expect("a socket can be shared");
    let writing = std::thread::spawn(move || writer.write_all(&requests));
    let statuses: Vec<u16> = expected
        .iter()
        .map(|_| publisher.answer().expect("each is answered").status)
        .collect();
    let mut pairs = statuses.iter().zip(&expected);
    let first_wrong = pairs.position(|(status, expected)| status != expected);
    assert_eq!(first_wrong, None, "of {}", expected.len());
    publisher
        .answer()
        .expect_err("a broken request is the last");
    writing
        .join()
        .expect("it does not panic")
        .expect("it is read");
    for (room, subscriber) in subscribers.iter_mut().enumerate() {
        for round in 0..ROUNDS {
            let data = data_of_next(subscriber, &format!("room-{room}"));
            assert_eq!(data, round.to_string());
        }
    }
    // They are summed up once a second.
    std::thread::sleep(Duration::from_secs(2));
    let waits: u64 = running
        .metrics()
        .iter()
        .map(|metrics| metrics.summary(Latency::PublishWait).count)
        .sum();
    assert!(waits > 0, "no home is on the other shard");
    assert!(waits < ROUNDS as u64 * 2, "{waits} waits");
    running.stop();
}

/// Fails if a call may follow one behind which the connection closes.
#[test]
fn behind_a_request_that_closes_the_connection_nothing_is_published() {
    let running = serve(2, |_| {});
    // Half of them are at home on the other shard, so that the answer comes later.
    for room in 0..8 {
        let channel = format!("room-{room}");
        let mut subscriber = subscribe(running.address(), &channel);
        let mut publisher = Publisher::connect(running.address());
        let request = |data| String::from_utf8(publish_request(&[&channel], data)).expect("text");
        let closing = request("last").replace("Host: a", "Host: a\r\nConnection: close");
        publisher.send((request("first") + &closing + &request("behind")).as_bytes());
        for _ in 0..2 {
            assert_eq!(publisher.answer().expect("it is answered").status, 200);
        }
        publisher.answer().expect_err("it was the last");
        Publisher::connect(running.address()).publish(&channel, "after");
        for data in ["first", "last", "after"] {
            assert_eq!(data_of_next(&mut subscriber, &channel), data);
        }
    }
    running.stop();
}

#[test]
fn a_close_frame_and_an_end_of_stream_each_free_the_subscriptions_at_once() {
    let running = serve(1, |_| {});
    let address = running.address();
    let mut closing = subscribe(address, "room");
    let mut ending = Raw::connect(address);
    ending.subscribe("room");
    ending.subscribe("other");
    let subscriptions = || sum(&running, Metric::Subscriptions);
    assert_eq!(subscriptions(), 3);

    // The answer to the close comes from a server that has freed them already.
    closing.close(None).expect("it can be sent");
    let answer = closing.read().expect("it is answered");
    assert!(matches!(answer, Message::Close(None)), "{answer}");
    assert_eq!(subscriptions(), 2);

    // The client's own end of stream, while it would still read.
    let shutdown = ending.stream.shutdown(std::net::Shutdown::Write);
    shutdown.expect("it is connected");
    assert_eq!(ending.next(), None);
    assert_eq!(subscriptions(), 0);

    // A reset has no answer to wait for.
    let mut reset = Raw::connect(address);
    reset.subscribe("room");
    let linger = socket2::SockRef::from(&reset.stream).set_linger(Some(Duration::ZERO));
    linger.expect("it is a socket");
    drop(reset);
    wait_until("the reset is noticed", || subscriptions() == 0);
    running.stop();
}

/// Set in the process that has a network of its own.
const INSIDE: &str = "OUTPOUR_TEST_INSIDE";

#[test]
fn a_peer_that_vanished_is_noticed_while_publishes_go_on() {
    if std::env::var_os(INSIDE).is_some() {
        return a_peer_vanishes();
    }
    let test = std::env::current_exe().expect("this program has a path");
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--kill-child"]);
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let name = "a_peer_that_vanished_is_noticed_while_publishes_go_on";
    unshare.arg(test).args(["--exact", name, "--nocapture"]);
    let output = unshare.env(INSIDE, "1").output().expect("unshare runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// In a network of its own: the server and one client each have an address of the loopback device,
/// until the client's packets take a wire at whose end nobody has the address that they bear.
fn a_peer_vanishes() {
    const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    ip("link set lo up");
    ip("link add wire type veth peer name nowhere");
    ip("link set wire up");
    ip("link set nowhere up");
    ip("address add 192.0.2.1/32 dev lo");
    ip("address add 192.0.2.2/32 dev lo");
    let running = serve(1, |options| {
        options.address = (SERVER, 0).into();
        // The shortest; pings have two minutes, and TCP by itself a quarter of an hour.
        options.peer_timeout_ms = 1000;
    });
    let address = running.address();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let bound = socket.bind(&SocketAddr::from((CLIENT, 0)).into());
    bound.expect("the address is there");
    socket.connect(&address.into()).expect("it listens");
    let mut vanished = Raw::over(socket.into());
    vanished.subscribe("room");
    let mut healthy = subscribe(address, "room");
    let mut publisher = Publisher::connect(address);
    publisher.publish("room", "before");
    assert_eq!(data_of_next(&mut healthy, "room"), "before");
    assert!(vanished.next().is_some());

    ip("address delete 192.0.2.2/32 dev lo");
    ip("route add 192.0.2.2/32 dev wire src 192.0.2.1");
    ip("neighbour add 192.0.2.2 lladdr 02:00:00:00:00:01 nud permanent dev wire");
    let mut number = 0;
    wait_until("its subscription has ended", || {
        publisher.publish("room", &number.to_string());
        assert_eq!(data_of_next(&mut healthy, "room"), number.to_string());
        number += 1;
        sum(&running, Metric::Subscriptions) == 1
    });
    wait_until("its slot is free", || {
        sum(&running, Metric::Connections) == 2
    });
    assert_eq!(sum(&running, Metric::SlowClosed), 0);
    assert_eq!(sum(&running, Metric::Unheard), 0);
    running.stop();
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.expect("iproute2 is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
}

#[test]
fn requests_wait_while_the_answers_to_those_before_do() {
    const REQUESTS: u64 = 3_000;
    let running = serve(1, |_| {});
    let mut stream = dial(running.address());
    let mut writer = stream.try_clone().expect("a socket can be shared");
    let asking = std::thread::spawn(move || {
        for _ in 0..REQUESTS {
            let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
            writer.write_all(request).expect("it is read in the end");
        }
    });
    // Nobody reads: the sockets fill up, and no more is answered than they take and may wait.
    let answered = || sum(&running, Metric::Requests);
    wait_until("some are answered", || answered() > 0);
    let mut before = 0;
    wait_until("no more are answered", || {
        std::thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut before, answered()) == answered()
    });
    assert!(before < REQUESTS, "{before} answers were made for nobody");
    let (mut unread, mut bytes) = (Vec::new(), vec![0; 1 << 20]);
    let (mut ended, mut found) = (0, 0);
    while ended < REQUESTS {
        let length = stream.read(&mut bytes).expect("answers come");
        assert!(length > 0, "the connection ended after {ended} answers");
        unread.extend_from_slice(&bytes[..length]);
        while let Some(head) = find(&unread[found..], b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&unread[found..found + head]).into_owned();
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
            let (_, rest) = text.split_once("Content-Length: ").expect("a length");
            let body: usize = rest
                .lines()
                .next()
                .and_then(|line| line.parse().ok())
                .expect("a number");
            if unread.len() < found + head + 4 + body {
                break;
            }
            found += head + 4 + body;
            ended += 1;
        }
        unread.drain(..found);
        found = 0;
    }
    asking.join().expect("all were sent");
    running.stop();
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
