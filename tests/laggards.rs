//! Who is furthest behind: what the API and the metrics tell of sockets that are full and of clients
//! that catch up, against what those clients lack when they are counted.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use outpour::base::limits;
use outpour::base::metrics::Metric;
use outpour::base::slow::Slow;
use outpour::options::{ChannelOptions, ChannelPattern};
use outpour::wire::signature::Signer;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod raw;

use raw::{Answer, PATIENCE, Publisher, Raw, TEXT, data_of, serve, subscribe, sum, wait_until};

#[test]
fn full_sockets_are_told_from_all_shards_the_worst_first_with_what_they_lack() {
    const EACH: usize = 3;
    let running = serve(2, |options| {
        options.log_bytes_max = 64 << 20;
        options.log_age_ms_max = 600_000;
    });
    let address = running.address();
    let mut api = Publisher::connect(address);
    assert!(laggards(&mut api, "").is_empty(), "nobody is behind");

    // Two channels with sockets on both shards that do not read, and in each one that does.
    let mut slow = Vec::new();
    let mut healthy = Vec::new();
    for channel in ["room-a", "room-b", "other"] {
        let mut by_shard = BTreeMap::<u64, usize>::new();
        while by_shard.len() < 2 || by_shard.values().any(|count| *count < EACH) {
            let (raw, socket_id) = narrow(address, channel);
            *by_shard.entry(shard_of(&socket_id)).or_default() += 1;
            slow.push((raw, socket_id, channel));
        }
        healthy.push(subscribe(address, channel));
    }
    let filling = "x".repeat(2000);
    let mut published = BTreeMap::<&str, Vec<String>>::new();
    let mut publisher = Publisher::connect(address);
    for (channel, events) in [("room-a", 3000), ("room-b", 2000), ("other", 2500)] {
        for number in 0..events {
            let data = format!("{number} {filling}");
            publisher.publish(channel, &data);
            published.entry(channel).or_default().push(data);
        }
    }
    for subscriber in &mut healthy {
        let mut got = 0;
        let channel_of_it = loop {
            let text = subscriber.read().expect("an event comes").to_string();
            let value: Value = serde_json::from_str(&text).expect("messages are JSON");
            got += 1;
            let channel = value["channel"].as_str().expect("it has a channel");
            if got == published[channel].len() {
                break channel.to_owned();
            }
        };
        assert!(published.contains_key(channel_of_it.as_str()));
    }
    wait_until("the sweep is over", || {
        let all = laggards(&mut api, "limit=1000");
        all.len() == slow.len() && all.iter().all(|one| one["state"] == "blocked")
    });
    // A full socket may still take a frame now and then: its peer's kernel makes room late.
    wait_until("answers agree", || {
        [("bytes", "bytes"), ("ms", "time"), ("messages", "messages")]
            .iter()
            .all(|(measure, parameter)| {
                let sorted = laggards(&mut api, &format!("by={parameter}&limit=1000"));
                assert_eq!(sorted.len(), slow.len());
                assert!(is_sorted(&sorted, measure), "{measure}: {sorted:?}");
                let first = laggards(&mut api, &format!("by={parameter}&limit=2"));
                assert_eq!(first.len(), 2);
                let mut pairs = first.iter().zip(&sorted);
                *measure == "ms" || pairs.all(|(one, other)| one[*measure] == other[*measure])
            })
    });
    let rooms = laggards(&mut api, "limit=1000&channel=room-");
    let expected = slow.iter().filter(|one| one.2.starts_with("room-")).count();
    assert_eq!(rooms.len(), expected);
    assert!(rooms.iter().all(|one| one["channel"] != "other"));
    assert!(laggards(&mut api, "channel=nowhere").is_empty());

    // The metrics are refreshed once a second.
    let mut all = Vec::new();
    wait_until("the metrics tell the same", || {
        all = laggards(&mut api, "limit=1000");
        is_told(&metrics(&mut api), &all)
    });

    // What is told is what they then get, but for what had gone into their sockets.
    for (mut raw, socket_id, channel) in slow {
        let one = all
            .iter()
            .find(|one| one["socket_id"] == socket_id.as_str());
        let one = one.unwrap_or_else(|| panic!("{socket_id} is not told of"));
        assert_eq!(one["channel"], channel);
        let messages = one["messages"].as_u64().expect("a number") as usize;
        let bytes = one["bytes"].as_u64().expect("a number") as usize;
        let lacked = &published[channel][published[channel].len() - messages..];
        let frames: usize = lacked.iter().map(|data| frame_bytes(channel, data)).sum();
        assert_eq!(bytes, frames, "of {channel}");
        for data in &published[channel] {
            let (opcode, text) = raw.next().expect("an event comes");
            assert_eq!(opcode, TEXT);
            assert_eq!(&data_of(&String::from_utf8_lossy(&text), channel), data);
        }
    }
    wait_until("nobody is behind any more", || {
        laggards(&mut api, "").is_empty()
            && metrics(&mut api)
                .iter()
                .filter(|(name, _)| name.starts_with("outpour_subscribers_behind{"))
                .all(|(_, value)| *value == 0.0)
    });
    assert!(!metrics(&mut api).keys().any(|name| name.contains("room-a")));
    assert_eq!(sum(&running, Metric::SlowClosed), 0);
    running.stop();
}

#[test]
fn one_who_catches_up_is_told_with_how_many_events_it_lacks() {
    const EVENTS: u64 = 3000;
    let running = serve(2, |options| {
        options.apps[0].channels = vec![ChannelOptions {
            name: ChannelPattern::Prefix("kept-".to_string()),
            serials: true,
            retention_messages_max: 2 * EVENTS,
            retention_bytes_max: 64 << 20,
            ..ChannelOptions::default()
        }];
    });
    let address = running.address();
    let mut publisher = Publisher::connect(address);
    let mut api = Publisher::connect(address);
    let filling = "x".repeat(2000);
    // Both of them have their homes on whatever shards they have.
    for channel in ["kept-1", "kept-2", "kept-3"] {
        for number in 0..EVENTS {
            publisher.publish(channel, &format!("{number} {filling}"));
        }
    }
    let mut readers = Vec::new();
    for channel in ["kept-1", "kept-2", "kept-3"] {
        for _ in 0..6 {
            let mut raw = Raw::over(narrow_stream(address));
            let socket_id = established(&mut raw);
            let text = format!(
                r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","rewind":{EVENTS}}}}}"#
            );
            raw.send(TEXT, text.as_bytes());
            readers.push((raw, socket_id, channel));
        }
    }
    wait_until("all of them are stuck", || {
        let all = laggards(&mut api, "limit=1000&by=messages");
        let before: Vec<Value> = all.clone();
        std::thread::sleep(std::time::Duration::from_millis(100));
        all.len() == readers.len()
            && all
                .iter()
                .all(|one| one["messages"].as_u64() > Some(EVENTS / 4))
            && messages_by_socket(&laggards(&mut api, "limit=1000")) == messages_by_socket(&before)
    });
    let all = laggards(&mut api, "limit=1000");
    for one in &all {
        assert_eq!(
            (&one["state"], &one["bytes"]),
            (&"catching_up".into(), &Value::Null),
            "{one}"
        );
    }
    for (mut raw, socket_id, channel) in readers {
        let told = messages_by_socket(&all)[&socket_id];
        assert!(
            told < EVENTS,
            "{told} of {EVENTS}: something went into its socket"
        );
        let mut got = 0;
        while got < EVENTS {
            let (opcode, text) = raw.next().expect("an event comes");
            assert_eq!(opcode, TEXT);
            let text = String::from_utf8_lossy(&text);
            if text.starts_with(r#"{"event":"n""#) {
                assert_eq!(data_of(&text, channel), format!("{got} {filling}"));
                got += 1;
            }
        }
    }
    wait_until("nobody is behind any more", || {
        laggards(&mut api, "").is_empty()
    });
    running.stop();
}

/// A parked subscriber's cursor is no position any more, and still it is told of.
#[test]
fn one_whose_frames_have_left_the_log_is_told_with_all_that_it_lacks() {
    const EVENTS: u64 = 3000;
    const EACH: usize = 2;
    let running = serve(2, |options| {
        options.log_bytes_max = 64 << 10;
        options.apps[0].channels = vec![ChannelOptions {
            name: ChannelPattern::Prefix("kept-".to_string()),
            serials: true,
            retention_messages_max: 2 * EVENTS,
            retention_bytes_max: 64 << 20,
            slow: Slow::Lag,
            ..ChannelOptions::default()
        }];
    });
    let address = running.address();
    let mut api = Publisher::connect(address);
    let mut slow = Vec::new();
    let mut by_shard = BTreeMap::<u64, usize>::new();
    while by_shard.len() < 2 || by_shard.values().any(|count| *count < EACH) {
        let mut raw = Raw::over(narrow_stream(address));
        let socket_id = established(&mut raw);
        raw.send(TEXT, raw::subscription("kept-1").as_bytes());
        let answer = text_of_next(&mut raw);
        assert!(answer.contains("subscription_succeeded"), "{answer}");
        *by_shard.entry(shard_of(&socket_id)).or_default() += 1;
        slow.push((raw, socket_id));
    }
    let mut publisher = Publisher::connect(address);
    let filling = "x".repeat(2000);
    for number in 0..EVENTS {
        publisher.publish("kept-1", &format!("{number} {filling}"));
    }
    let mut all = Vec::new();
    wait_until("all of them are told as parked", || {
        all = laggards(&mut api, "limit=1000");
        all.len() == slow.len() && all.iter().all(|one| one["bytes"].is_null())
    });
    assert!(sum(&running, Metric::SlowParked) >= slow.len() as u64);
    for one in &all {
        assert_eq!(one["state"], "blocked", "{one}");
        let messages = one["messages"].as_u64().expect("a number");
        assert!((EVENTS / 4..EVENTS).contains(&messages), "{one}");
    }
    wait_until("the metrics tell of them", || {
        let metrics = metrics(&mut api);
        let blocked = metrics.iter().filter(|(name, _)| {
            name.starts_with("outpour_subscribers_behind{") && name.contains("blocked")
        });
        blocked.map(|(_, value)| *value).sum::<f64>() == slow.len() as f64
    });
    for (raw, _) in &mut slow {
        for number in 0..EVENTS {
            let text = text_of_next(raw);
            assert_eq!(data_of(&text, "kept-1"), format!("{number} {filling}"));
        }
    }
    wait_until("nobody is behind any more", || {
        laggards(&mut api, "").is_empty()
    });
    running.stop();
}

#[test]
fn a_question_that_is_none_is_refused_and_so_is_one_without_a_signature() {
    let running = serve(1, |_| {});
    let mut api = Publisher::connect(running.address());
    for query in ["limit=0", "limit=1001", "by=age"] {
        assert_eq!(
            ask(&mut api, "/apps/1001/laggards", query).status,
            400,
            "{query}"
        );
    }
    assert_eq!(ask(&mut api, "/apps/1002/laggards", "").status, 404);
    api.send(b"GET /apps/1001/laggards HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(api.answer().expect("it is answered").status, 401);
    running.stop();
}

/// A crowd takes more than one page, with whatever stands between its members.
#[test]
fn a_look_takes_as_many_pages_as_it_needs() {
    let running = serve(1, |options| {
        options.log_bytes_max = 64 << 20;
        options.log_age_ms_max = 600_000;
        options.apps[0].subscriptions_per_connection_max = 10_000;
    });
    let address = running.address();
    let channels: Vec<String> = (0..limits::LAG_LOOKS_PER_TURN + 100)
        .map(|number| format!("c{number}"))
        .collect();
    let mut crowd = Raw::connect(address);
    let subscriptions: Vec<u8> = channels
        .iter()
        .flat_map(|channel| raw::masked(TEXT, raw::subscription(channel).as_bytes()))
        .collect();
    crowd
        .stream
        .write_all(&subscriptions)
        .expect("it can be sent");
    wait_until("it is subscribed", || {
        sum(&running, Metric::Subscriptions) == channels.len() as u64
    });
    // The last channel of all is the one in which somebody is behind.
    let (mut slow, socket_id) = narrow(address, "last");
    let mut publisher = Publisher::connect(address);
    let filling = "x".repeat(9000);
    let mut api = Publisher::connect(address);
    let mut events = 0;
    while laggards(&mut api, "").is_empty() {
        publisher.publish("last", &filling);
        events += 1;
        assert!(events < 5000, "its socket does not fill");
    }
    let all = laggards(&mut api, "");
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["socket_id"], socket_id.as_str());
    for _ in 0..events {
        assert_eq!(data_of(&text_of_next(&mut slow), "last"), filling);
    }
    running.stop();
}

fn messages_by_socket(laggards: &[Value]) -> BTreeMap<String, u64> {
    let pairs = laggards.iter().map(|one| {
        let socket_id = one["socket_id"].as_str().expect("it has a name");
        let messages = one["messages"].as_u64().expect("a number");
        (socket_id.to_owned(), messages)
    });
    pairs.collect()
}

fn is_sorted(laggards: &[Value], measure: &str) -> bool {
    let values: Vec<u64> = laggards
        .iter()
        .map(|one| one[measure].as_u64().expect("a number"))
        .collect();
    values.is_sorted_by(|one, other| one >= other)
}

/// A subscriber whose kernel holds few bytes that it did not read, and its name.
fn narrow(address: SocketAddr, channel: &str) -> (Raw, String) {
    let mut raw = Raw::over(narrow_stream(address));
    let socket_id = established(&mut raw);
    raw.subscribe(channel);
    (raw, socket_id)
}

fn narrow_stream(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("it is a socket");
    socket.connect(&address.into()).expect("it listens");
    let timeout = socket.set_read_timeout(Some(PATIENCE));
    timeout.expect("a timeout can be set");
    socket.into()
}

fn established(raw: &mut Raw) -> String {
    let text = text_of_next(raw);
    let value: Value = serde_json::from_str(&text).expect("messages are JSON");
    let data = value["data"].as_str().expect("data is a string");
    let data: Value = serde_json::from_str(data).expect("which holds JSON");
    data["socket_id"]
        .as_str()
        .expect("it has a name")
        .to_owned()
}

fn text_of_next(raw: &mut Raw) -> String {
    let (opcode, text) = raw.next().expect("a message comes");
    assert_eq!(opcode, TEXT);
    String::from_utf8(text).expect("messages are text")
}

/// The low bits of a socket id's first number are the shard's.
fn shard_of(socket_id: &str) -> u64 {
    let first = socket_id.split('.').next().expect("it has two numbers");
    first.parse::<u64>().expect("a number") & 0x3FF
}

/// Of an event as [`Publisher::publish`] makes it, on the wire.
fn frame_bytes(channel: &str, data: &str) -> usize {
    let text = format!(r#"{{"event":"n","channel":"{channel}","data":"{data}"}}"#);
    text.len() + 4
}

fn laggards(api: &mut Publisher, query: &str) -> Vec<Value> {
    let answer = ask(api, "/apps/1001/laggards", query);
    assert_eq!(answer.status, 200, "{answer:?}");
    let value: Value = serde_json::from_str(&answer.body).expect("answers are JSON");
    value["laggards"].as_array().expect("a list").clone()
}

/// A signed question.
fn ask(api: &mut Publisher, path: &str, query: &str) -> Answer {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("it is past 1970").as_secs();
    let mut pairs = vec![
        "auth_key=app-key".to_owned(),
        format!("auth_timestamp={now}"),
        "auth_version=1.0".to_owned(),
    ];
    pairs.extend(
        query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(str::to_owned),
    );
    pairs.sort();
    let query = pairs.join("&");
    let signed = format!("GET\n{path}\n{query}");
    let signature = Signer::new(b"app-secret").sign(&[signed.as_bytes()]);
    let signature = String::from_utf8_lossy(&signature);
    let request =
        format!("GET {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: a\r\n\r\n");
    api.send(request.as_bytes());
    api.answer().expect("it is answered")
}

/// Whether the metrics tell of these laggards, all of whom are blocked.
fn is_told(metrics: &BTreeMap<String, f64>, laggards: &[Value]) -> bool {
    let most = |name: &str, channel: Option<&str>| {
        let of_channel = laggards
            .iter()
            .filter(|one| channel.is_none_or(|channel| one["channel"] == channel));
        let values = of_channel.map(|one| one[name].as_u64().expect("a number"));
        values.max().expect("there are some") as f64
    };
    let of_name = |name: &'static str| {
        let samples = metrics.iter();
        samples
            .filter(move |(known, _)| known.starts_with(name))
            .map(|(_, value)| *value)
    };
    let blocked = metrics.iter().filter(|(name, _)| {
        name.starts_with("outpour_subscribers_behind{") && name.contains("blocked")
    });
    let blocked: f64 = blocked.map(|(_, value)| value).sum();
    let are_channels_told = ["room-a", "room-b", "other"].into_iter().all(|channel| {
        let of_channel = laggards.iter().filter(|one| one["channel"] == channel);
        let labels = format!("{{app=\"1001\",channel=\"{channel}\"}}");
        let value = |name: &str| metrics.get(&format!("{name}{labels}")).copied();
        value("outpour_channel_lag_messages") == Some(most("messages", Some(channel)))
            && value("outpour_channel_lag_bytes") == Some(most("bytes", Some(channel)))
            && value("outpour_channel_lag_seconds") > Some(0.0)
            && value("outpour_channel_subscribers_behind") == Some(of_channel.count() as f64)
    });
    are_channels_told
        && blocked == laggards.len() as f64
        && of_name("outpour_lag_messages_max{").fold(0.0, f64::max) == most("messages", None)
        && of_name("outpour_lag_bytes_max{").fold(0.0, f64::max) == most("bytes", None)
        && of_name("outpour_lag_seconds_max{").all(|seconds| seconds > 0.0)
}

/// The samples of `/metrics`.
fn metrics(api: &mut Publisher) -> BTreeMap<String, f64> {
    api.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    let text = api.answer().expect("it is answered").body;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.filter_map(|line| line.rsplit_once(' '));
    samples
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
        .collect()
}
