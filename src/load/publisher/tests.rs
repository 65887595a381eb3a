//! The publisher against a server of a few lines, whose delays and refusals are known.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use super::http::{App, Form};
use super::schedule::{Place, Schedule};
use super::{Http, OfChannel, Orders, Publisher, Tally};
use crate::load::machine::monotonic_ns;
use crate::load::stamp::Stamp;

/// What a server does with the call of this number.
type Manners = fn(usize) -> (u16, Duration);

/// One call, as it came.
struct Call {
    head: String,
    body: String,
}

/// Serves every connection on a thread; tells each call, and answers as told.
fn server(manners: Manners) -> (SocketAddr, Receiver<Call>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, calls) = mpsc::channel();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (socket, tell) = (socket.unwrap(), tell.clone());
            thread::spawn(move || {
                let mut out = socket.try_clone().unwrap();
                let mut from = BufReader::new(socket);
                for number in 0.. {
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
                    let body = String::from_utf8(body).unwrap();
                    let (status, delay) = manners(number);
                    thread::sleep(delay);
                    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}");
                    if tell.send(Call { head, body }).is_err()
                        || out.write_all(answer.as_bytes()).is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    (address, calls)
}

fn orders(address: SocketAddr, channels: u64, connections: usize, batch: usize) -> Orders {
    Orders {
        core: None,
        channels: (0..channels).map(|number| format!("c{number}")).collect(),
        event: "m".to_owned(),
        data_bytes: 40,
        http: Some(Http {
            address,
            form: Form::Pusher {
                prefix: "/up".to_owned(),
                app: App {
                    id: "1".to_owned(),
                    key: "k".to_owned(),
                    secret: "s".to_owned(),
                },
                keys: 3,
            },
            connections,
            window: 2,
            batch,
        }),
        events: None,
    }
}

fn schedule(messages: u64, channels: u64, publishers: u64) -> Schedule {
    Schedule {
        start_ns: monotonic_ns(),
        per_second: Some(1_000.0),
        length_ns: messages * 1_000_000,
        channels,
        publishers,
    }
}

fn run(manners: Manners, batch: usize, schedule: Schedule) -> (Tally, Vec<Call>) {
    let (address, calls) = server(manners);
    let orders = orders(
        address,
        schedule.channels,
        schedule.publishers as usize,
        batch,
    );
    let mut publisher = Publisher::start(orders).unwrap();
    let tally = publisher.run(schedule).unwrap();
    (tally, calls.try_iter().collect())
}

fn at_once(_: usize) -> (u16, Duration) {
    (200, Duration::ZERO)
}

#[test]
fn every_message_leaves_once_in_order_and_with_the_time_it_was_due() {
    let schedule = schedule(60, 3, 2);
    let (tally, calls) = run(at_once, 1, schedule);
    assert_eq!((tally.published, tally.accepted), (60, 60));
    assert_eq!(tally.answer.count(), 60);
    let mut next = [0; 3];
    for call in calls {
        assert!(
            call.head.starts_with("POST /up/apps/1/events?auth_key=k&"),
            "{}",
            call.head
        );
        let channel = call.body.split(r#""channel":"c"#).nth(1).unwrap();
        let channel: u64 = channel[..1].parse().unwrap();
        let stamp = Stamp::find(call.body.as_bytes()).unwrap();
        assert_eq!(stamp.sequence, next[channel as usize]);
        let key = format!(r#","key":"{}"}}"#, stamp.sequence % 3);
        assert!(call.body.ends_with(&key), "{}", call.body);
        next[channel as usize] += 1;
        assert_eq!(stamp.due_ns, schedule.due_ns(stamp.sequence * 3 + channel));
    }
    assert_eq!(next, [20; 3]);
    let accepted = tally.channels.iter().map(|channel| channel.accepted);
    assert_eq!(accepted.collect::<Vec<u64>>(), [20; 3]);
}

#[test]
fn a_batch_carries_as_many_events_as_it_is_told() {
    let (tally, calls) = run(at_once, 4, schedule(10, 1, 1));
    assert_eq!(tally.accepted, 10);
    let sizes: Vec<usize> = calls
        .iter()
        .map(|call| call.body.matches(r#""name":"m""#).count())
        .collect();
    assert_eq!(sizes, [4, 4, 2]);
    assert!(calls[0].head.contains("/batch_events?"));
}

/// A server that takes 20 ms for a call, and two calls at a time: the rest waits, and its due time
/// stays what it was.
#[test]
fn what_a_slow_server_holds_up_is_told_apart_from_the_publishers_own_delay() {
    let schedule = schedule(20, 1, 1);
    let (tally, calls) = run(|_| (200, Duration::from_millis(20)), 1, schedule);
    assert_eq!(tally.accepted, 20);
    for (number, call) in calls.iter().enumerate() {
        let stamp = Stamp::find(call.body.as_bytes()).unwrap();
        assert_eq!(stamp.due_ns, schedule.due_ns(number as u64));
    }
    // The last of 20 messages was due after 19 ms and could not leave before 17 others were answered.
    assert!(tally.held.max_us().unwrap() > 200_000);
    assert!(tally.answer.max_us().unwrap() > 300_000);
}

#[test]
fn what_was_not_accepted_is_told_place_by_place() {
    let manners = |number| match number {
        3 => (503, Duration::ZERO),
        5 => (400, Duration::ZERO),
        _ => (200, Duration::ZERO),
    };
    let (tally, _) = run(manners, 1, schedule(8, 1, 1));
    assert_eq!((tally.accepted, tally.refused, tally.failed), (6, 1, 1));
    let place = |sequence| Place {
        channel: 0,
        sequence,
    };
    assert_eq!(tally.not_accepted, [place(3), place(5)]);
    let channel = OfChannel {
        published: 8,
        accepted: 6,
        refused: 1,
    };
    assert_eq!((tally.channels, channel.possible()), (vec![channel], 7));
    assert!(tally.failure.unwrap().contains("400"));
    assert_eq!(tally.unanswered, 0);
}

#[test]
fn without_a_rate_as_much_leaves_as_is_answered() {
    let schedule = Schedule {
        per_second: None,
        length_ns: 50_000_000,
        ..schedule(0, 1, 1)
    };
    let (tally, calls) = run(at_once, 1, schedule);
    assert!(tally.accepted > 0);
    assert_eq!(tally.accepted, tally.published);
    assert_eq!(calls.len() as u64, tally.published);
}

/// The first call is answered when the flood that it belongs to has been given up and the next run is under way.
#[test]
fn an_answer_to_an_earlier_run_is_not_counted_in_the_next() {
    let manners: Manners = |number| match number {
        0 => (200, Duration::from_secs(5)),
        _ => (200, Duration::ZERO),
    };
    let (address, _calls) = server(manners);
    let mut publisher = Publisher::start(orders(address, 1, 1, 1)).unwrap();
    let flood = Schedule {
        per_second: None,
        length_ns: 500_000_000,
        ..schedule(0, 1, 1)
    };
    let tally = publisher.run(flood).unwrap();
    assert_eq!((tally.published, tally.unanswered), (1, 1));
    let tally = publisher.run(schedule(10, 1, 1)).unwrap();
    assert_eq!((tally.published, tally.accepted), (10, 10));
    assert_eq!((tally.unanswered, tally.answer.count()), (0, 10));
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let gone = TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap();
    assert!(Publisher::start(orders(gone, 1, 1, 1)).is_err());
}
