//! How many subscribers have an event when its publish is answered, with `info=delivered`, against what
//! those subscribers read.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};

use outpour::base::limits;
use outpour::base::metrics::Metric;
use outpour::base::slow::Slow;
use outpour::options::{ChannelOptions, ChannelPattern};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod raw;

use raw::{PATIENCE, Publisher, Raw, TEXT, confirmation, data_of, dial, serve, signed_post, sum};

const EVENTS: &str = "/apps/1001/events";
const BATCH: &str = "/apps/1001/batch_events";

/// More than a socket's send buffer may hold (the kernel's `tcp_wmem`).
const LARGE_BYTES: usize = 12 << 20;

/// (Tried: fails on two shards if the home names only those who listen on its own shard, and on both
/// if the connection that an event excludes is counted.)
#[test]
fn all_who_read_are_counted() {
    for shards in [1, 2] {
        let running = serve(shards, |_| {});
        let address = running.address();
        // Of more than one home, with subscribers on every shard.
        let channels = ["room-a", "room-b", "room-c", "room-d"];
        let mut readers = BTreeMap::<&str, Vec<(Raw, String)>>::new();
        for channel in channels {
            let readers = readers.entry(channel).or_default();
            let is_everywhere = |readers: &[(Raw, String)]| {
                (0..u64::from(shards)).all(|shard| {
                    let there = readers.iter().filter(|(_, id)| shard_of(id) == shard);
                    there.count() > 2
                })
            };
            while !is_everywhere(readers) {
                readers.push(subscriber(dial(address), channel));
            }
        }
        let expected = |channel: &str| json!({ "delivered": readers[channel].len() });

        // Publishers on every shard.
        for number in 0..12 {
            let answer = post(
                &mut Publisher::connect(address),
                EVENTS,
                &json!({
                    "name": "n", "data": number.to_string(), "info": "delivered",
                    "channels": [channels[0], channels[1], channels[2], channels[3], "nobody"],
                }),
            );
            let of_all = channels.map(|channel| (channel.to_owned(), expected(channel)));
            let mut of_all: serde_json::Map<String, Value> = of_all.into_iter().collect();
            of_all.insert("nobody".to_owned(), json!({ "delivered": 0 }));
            assert_eq!(answer["channels"], Value::Object(of_all));
        }

        let event = |channel: &str, info: Value| json!({ "name": "n", "data": "batch", "channel": channel, "info": info });
        for _ in 0..6 {
            let batch = json!({ "batch": [
                event("room-a", json!("delivered")),
                event("room-b", Value::Null),
                event("room-a", json!("subscription_count,delivered")),
                event("nobody", json!("delivered")),
            ]});
            let answer = post(&mut Publisher::connect(address), BATCH, &batch);
            let count = readers["room-a"].len();
            let both = json!({ "subscription_count": count, "delivered": count });
            let nobody = json!({ "delivered": 0 });
            assert_eq!(
                answer,
                json!({ "batch": [expected("room-a"), {}, both, nobody] })
            );
        }

        // The one that an event is not for does not have it.
        for (_, socket_id) in &readers["room-c"] {
            let body = json!({
                "name": "n", "data": "without", "channel": "room-c",
                "socket_id": socket_id, "info": "delivered",
            });
            let answer = post(&mut Publisher::connect(address), EVENTS, &body);
            let others = readers["room-c"].len() - 1;
            assert_eq!(answer["channels"]["room-c"], json!({ "delivered": others }));
        }

        // They were counted before they read anything.
        for (channel, readers) in &mut readers {
            for (reader, _) in readers {
                for number in 0..12 {
                    assert_eq!(data_of_next(reader, channel), number.to_string());
                }
            }
        }
        running.stop();
    }
}

/// (Tried: fails if the count does not wait for the sweep.)
#[test]
fn a_sweep_of_several_turns_is_waited_for() {
    const SUBSCRIBERS: usize = 2 * limits::VISITS_PER_TURN_MOST + 100;
    let running = serve(1, |_| {});
    let address = running.address();
    let readers: Vec<_> = (0..SUBSCRIBERS)
        .map(|_| subscriber(dial(address), "room"))
        .collect();
    let mut publisher = Publisher::connect(address);
    for number in 0..5 {
        let event = json!({ "name": "n", "data": number.to_string(), "channel": "room", "info": "delivered" });
        let answer = post(&mut publisher, EVENTS, &event);
        assert_eq!(answer["channels"]["room"]["delivered"], SUBSCRIBERS);
    }
    drop(readers);
    running.stop();
}

/// (Tried: with the look at what is left of a frame left out, those count that took a part.)
#[test]
fn one_whose_socket_took_an_event_in_part_is_not_counted() {
    for shards in [1, 2] {
        let running = serve_large(shards);
        let address = running.address();
        let mut slow = Vec::new();
        for _ in 0..6 {
            slow.push(subscriber(narrow_stream(address), "room").0);
        }
        let large = "x".repeat(LARGE_BYTES);
        let mut publisher = Publisher::connect(address);
        let event = |data: &str| json!({ "name": "n", "data": data, "channel": "room", "info": "serial,delivered" });
        let answer = post(&mut publisher, EVENTS, &event(&large));
        let told = &answer["channels"]["room"];
        assert_eq!(
            (&told["serial"], &told["delivered"]),
            (&json!(1), &json!(0))
        );

        // Nor has one that comes then and reads the event before, but it has what is published now.
        let (_reader, _) = subscriber(dial(address), "room");
        let answer = post(&mut publisher, EVENTS, &event("small"));
        let told = &answer["channels"]["room"];
        assert_eq!(
            (&told["serial"], &told["delivered"]),
            (&json!(2), &json!(1))
        );

        // Those that have read on are at the head again.
        for client in &mut slow {
            assert_eq!(data_of_next(client, "room"), large);
            assert_eq!(data_of_next(client, "room"), "small");
        }
        let answer = post(&mut publisher, EVENTS, &event("last"));
        assert_eq!(answer["channels"]["room"]["delivered"], slow.len() + 1);
        running.stop();
    }
}

/// (Tried: with all counted that are subscribed, wherever they stand, the count never falls.)
#[test]
fn full_sockets_are_not_counted_and_those_beside_them_are() {
    for shards in [1, 2] {
        let running = serve_large(shards);
        let address = running.address();
        let mut slow = Vec::new();
        for _ in 0..6 {
            slow.push(subscriber(narrow_stream(address), "room").0);
        }
        let mut readers = Vec::new();
        for _ in 0..6 {
            let (mut reader, _) = subscriber(dial(address), "room");
            readers.push(std::thread::spawn(move || {
                let mut got = 0;
                while data_of_next(&mut reader, "room") != "end" {
                    got += 1;
                }
                (reader, got)
            }));
        }
        let all = (slow.len() + readers.len()) as u64;
        let data = "x".repeat(100_000);
        let mut publisher = Publisher::connect(address);
        let mut publish = |data: &str| {
            let body = json!({ "name": "n", "data": data, "channel": "room", "info": "delivered" });
            let answer = post(&mut publisher, EVENTS, &body);
            let delivered = answer["channels"]["room"]["delivered"].as_u64();
            delivered.expect("they can be counted")
        };
        assert_eq!(publish("first"), all);
        let mut events = 1;
        while publish(&data) != readers.len() as u64 {
            events += 1;
            assert!(events < 1000, "sockets do not fill");
        }
        events += 1;
        assert_eq!(sum(&running, Metric::Subscriptions), all);

        // What was not counted was not lost either.
        assert_eq!(publish("end"), readers.len() as u64);
        for reader in readers {
            let (reader, got) = reader.join().expect("it got everything");
            assert_eq!(got, events);
            drop(reader);
        }
        for client in &mut slow {
            let mut got = 0;
            while data_of_next(client, "room") != "end" {
                got += 1;
            }
            assert_eq!(got, events);
        }
        running.stop();
    }
}

/// A server whose events may be large, and whose channels have serials.
fn serve_large(shards: u16) -> outpour::server::Running {
    let room = ChannelOptions {
        name: ChannelPattern::parse("room").expect("it is a name"),
        retention_messages_max: 1000,
        retention_bytes_max: 1 << 30,
        slow: Slow::Lag,
        ..ChannelOptions::default()
    };
    serve(shards, |options| {
        options.log_bytes_max = 64 << 20;
        options.log_age_ms_max = 600_000;
        options.http_body_bytes_max = 64 << 20;
        options.apps[0].event_data_bytes_max = 2 * LARGE_BYTES;
        options.retention_bytes_per_shard_max = 1 << 30;
        options.apps[0].channels = vec![room];
    })
}

/// A subscriber, and its socket id.
fn subscriber(stream: TcpStream, channel: &str) -> (Raw, String) {
    let mut raw = Raw::over(stream);
    let (opcode, text) = raw.next().expect("a greeting comes");
    assert_eq!(opcode, TEXT);
    let greeting: Value = serde_json::from_slice(&text).expect("it is JSON");
    let data = greeting["data"].as_str().expect("data is a string");
    let data: Value = serde_json::from_str(data).expect("it is JSON");
    let socket_id = data["socket_id"].as_str().expect("it has one").to_owned();
    raw.send(TEXT, raw::subscription(channel).as_bytes());
    let (_, answer) = raw.next().expect("an answer comes");
    let answer = String::from_utf8(answer).expect("it is text");
    assert!(
        answer == confirmation(channel) || answer.contains("subscription_succeeded"),
        "{answer}"
    );
    (raw, socket_id)
}

/// The low bits of a socket id's first number are the shard's.
fn shard_of(socket_id: &str) -> u64 {
    let first = socket_id.split('.').next().expect("it has two numbers");
    first.parse::<u64>().expect("a number") & 0x3FF
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

fn data_of_next(client: &mut Raw, channel: &str) -> String {
    let (_, text) = client.next().expect("an event comes");
    data_of(&String::from_utf8_lossy(&text), channel)
}

fn post(publisher: &mut Publisher, path: &str, body: &Value) -> Value {
    publisher.send(&signed_post(path, &body.to_string()));
    let answer = publisher.answer().expect("an answer comes");
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).expect("it is JSON")
}
