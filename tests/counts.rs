//! What a publish costs, counted: encodes, sends, system calls and completions.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use outpour::base::metrics::Metric;
use outpour::options::{Automatic, Cores, Options};
use outpour::server::{self, Running};
use outpour::wire::signature::Signer;
use tungstenite::{Message, WebSocket};

const SUBSCRIBERS: u64 = 400;
const EVENTS: u64 = 25;
/// Of a frame that a server sends with a payload below 126 bytes.
const FRAME_HEADER_BYTES: u64 = 2;

#[test]
fn a_publish_is_encoded_once_and_a_healthy_delivery_completes_nothing() {
    let options = Options {
        address: ([127, 0, 0, 1], 0).into(),
        shards: Automatic::Exactly(1),
        cores: Cores::Unpinned,
        ..Options::default()
    };
    let running = server::start(options).expect("the server starts");
    let mut subscribers: Vec<_> = (0..SUBSCRIBERS).map(|_| subscribe(&running)).collect();
    let mut publisher = TcpStream::connect(running.address()).expect("it listens");
    let read = |metric| running.metrics()[0].read(metric);
    let before = [
        Metric::Encodes,
        Metric::Deliveries,
        Metric::Completions,
        Metric::Enters,
        Metric::SentBytes,
    ]
    .map(read);
    let mut bytes = 0;
    for number in 0..EVENTS {
        bytes += publish(&mut publisher, number);
        for subscriber in &mut subscribers {
            let text = subscriber
                .read()
                .expect("an event comes")
                .into_text()
                .expect("as text");
            assert_eq!(
                text.as_str(),
                format!(r#"{{"event":"n","channel":"room","data":"{number}"}}"#)
            );
            bytes += FRAME_HEADER_BYTES + text.len() as u64;
        }
    }
    let after = [
        Metric::Encodes,
        Metric::Deliveries,
        Metric::Completions,
        Metric::Enters,
        Metric::SentBytes,
    ]
    .map(read);
    let spent: Vec<u64> = after
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect();
    assert_eq!(spent[0], EVENTS, "encodes");
    assert_eq!(spent[1], EVENTS * SUBSCRIBERS, "deliveries");
    // The publisher's requests arrive as one completion each; nothing else may complete.
    assert!(
        spent[2] <= EVENTS + 2,
        "{} completions for {EVENTS} publishes",
        spent[2]
    );
    assert!(
        spent[3] <= 4 * EVENTS,
        "{} system calls for {EVENTS} publishes",
        spent[3]
    );
    assert_eq!(spent[4], bytes, "bytes of frames and answers");
    assert_eq!(read(Metric::ShortSends), 0);
    running.stop();
}

fn subscribe(running: &Running) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(running.address()).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout can be set");
    let url = format!("ws://{}/app/app-key?protocol=7", running.address());
    let (mut socket, _) = tungstenite::client(url, stream).expect("the handshake succeeds");
    let first = socket.read().expect("the first message comes").to_string();
    assert!(first.contains("pusher:connection_established"), "{first}");
    let text = r#"{"event":"pusher:subscribe","data":{"channel":"room"}}"#;
    socket.send(Message::text(text)).expect("it can be sent");
    let answer = socket.read().expect("an answer comes").to_string();
    assert!(
        answer.contains("pusher_internal:subscription_succeeded"),
        "{answer}"
    );
    socket
}

/// Publishes, and returns how many bytes the answer had.
fn publish(stream: &mut TcpStream, number: u64) -> u64 {
    let body = format!(r#"{{"name":"n","channel":"room","data":"{number}"}}"#);
    let digest: String = Md5::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is past 1970")
        .as_secs();
    let query = format!("auth_key=app-key&auth_timestamp={now}&auth_version=1.0&body_md5={digest}");
    let signed = format!("POST\n/apps/1001/events\n{query}");
    let signature = Signer::new(b"app-secret").sign(&[signed.as_bytes()]);
    let signature = String::from_utf8_lossy(&signature);
    let request = format!(
        "POST /apps/1001/events?{query}&auth_signature={signature} HTTP/1.1\r\nHost: a\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream
        .write_all(request.as_bytes())
        .expect("the request can be sent");
    let mut answer = Vec::new();
    let began = Instant::now();
    while !answer.ends_with(b"{}") {
        assert!(began.elapsed() < Duration::from_secs(20), "an answer comes");
        let mut bytes = [0; 512];
        let length = stream.read(&mut bytes).expect("the answer can be read");
        assert!(length > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&bytes[..length]);
    }
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    answer.len() as u64
}
