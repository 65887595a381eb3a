//! What `outpour bench` makes of servers that do wrong: what is lost, repeated or reordered fails the run, with the
//! evidence, and what is late is as late in the percentiles as it was.

#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::BTreeMap;
use std::time::Duration;

use outpour::load::machine;
use outpour::load::result::{
    Disorder, Fault as Found, LatencyHistogram, Outcome, Results, Step, Verdict,
};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod measured;

mod faulty;

use faulty::{Fault, Faulty, Speech, Written};
use measured::{EXIT_FAILED, assert_not_failed, assert_whole, measured, valid};

/// Clients, messages a second, and for how long.
struct Load {
    clients: usize,
    rate: &'static str,
    seconds: &'static str,
    /// Further words, as about which clients decode.
    more: &'static [&'static str],
}

const FEW_THAT_DECODE: Load = Load {
    clients: 3,
    rate: "20",
    seconds: "1",
    more: &["--sample", "all"],
};

/// With the default sample the first 64 clients decode, since one thread has them all, and the last ones count.
const MANY: Load = Load {
    clients: 70,
    more: &[],
    ..FEW_THAT_DECODE
};
const ONE_THAT_COUNTS: usize = 66;

impl Load {
    /// The words for a load on this server.
    fn words(&self, server: &Faulty, speech: Speech) -> Vec<String> {
        let core = machine::cores()[0];
        let address = server.address;
        let mut words = format!(
            "fanout --target ws://{address} --sources {} --generator-cores {core} --subscribers {} --rate {} --seconds {}",
            faulty::sources(self.clients),
            self.clients,
            self.rate,
            self.seconds,
        );
        if speech == Speech::Plain {
            words.push_str(&format!(
                " --dialect plain --publish http://{address}/publish"
            ));
        }
        let words = words.split(' ').map(str::to_owned);
        words
            .chain(self.more.iter().map(|word| (*word).to_owned()))
            .collect()
    }

    fn run(&self, speech: Speech, fault: Fault, wronged: usize) -> (i32, Results) {
        let server = Faulty::serve(speech, fault, wronged);
        let words = self.words(&server, speech);
        measured(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A valid run, and what the server of that run wrote.
    fn valid(&self, fault: Fault) -> (Vec<Written>, Results) {
        measured::until_valid(|| {
            let server = Faulty::serve(Speech::Pusher, fault, 0);
            let mut words = self.words(&server, Speech::Pusher);
            words.extend(["--quiet", "--json", "-"].map(str::to_owned));
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let (_, results) = measured::read(&measured::run(&words));
            (server.written(), results)
        })
    }
}

/// The run has failed, and its evidence names each of these.
#[track_caller]
fn assert_caught(status: i32, results: &Results, expected: &[Found]) {
    let Verdict::Failed { evidence } = &results.verdict else {
        panic!("{expected:?} went unseen: {:?}", results.verdict);
    };
    assert_eq!(status, EXIT_FAILED);
    assert_ne!(results.steps[0].outcome, Outcome::Kept);
    for found in expected {
        let is_told = evidence.iter().any(|evidence| evidence.fault == *found);
        assert!(is_told, "{found:?}: {evidence:?}");
    }
}

#[test]
fn a_server_that_does_wrong_is_caught_with_the_evidence() {
    for (fault, expected) in [
        (Fault::Drop, [Found::Lost, Found::Unannounced].as_slice()),
        (Fault::Repeat, &[Found::Repeated]),
        (
            Fault::DropAndRepeat,
            &[Found::Lost, Found::Unannounced, Found::Repeated],
        ),
        (Fault::Reorder, &[Found::Reordered]),
        (Fault::Close, &[Found::Closed]),
    ] {
        let (status, results) = FEW_THAT_DECODE.run(Speech::Pusher, fault, 0);
        assert_caught(status, &results, expected);
    }
    let (_, results) = FEW_THAT_DECODE.run(Speech::Pusher, Fault::Nothing, 0);
    assert_not_failed(&results);
    assert_whole(&results.steps[0], 20, 3);
}

/// What goes wrong at a client that only counts bytes, as most do. One that is dropped there is not made up for by one
/// that another client got twice, though the sum over all of them is what it should be.
#[test]
fn what_clients_lack_or_get_twice_is_seen_where_they_only_count() {
    for speech in [Speech::Pusher, Speech::Plain] {
        for (fault, (lost, repeated), expected) in [
            (Fault::Drop, (1, 0), [Found::Lost].as_slice()),
            (Fault::Repeat, (0, 1), &[Found::Repeated]),
            (
                Fault::DropAndRepeat,
                (1, 1),
                &[Found::Lost, Found::Repeated],
            ),
        ] {
            let (status, results) = MANY.run(speech, fault, ONE_THAT_COUNTS);
            assert_caught(status, &results, expected);
            let step = &results.steps[0];
            // No other sign: the sample has seen nothing.
            let disorder = Disorder {
                lost,
                repeated,
                ..Disorder::default()
            };
            assert_eq!(step.disorder, disorder, "{speech:?} {fault:?}");
            assert_eq!(step.deliveries, 20 * 70 + repeated - lost);
            assert_eq!(step.latency.delivery.count(), 20 * 64);
        }
        let (_, results) = MANY.run(speech, Fault::Nothing, ONE_THAT_COUNTS);
        assert_not_failed(&results);
        assert_whole(&results.steps[0], 20, 70);
    }
}

/// While a client still waits for its last messages, the sum over all of them is reached already by what another got too
/// often. Fails if the run ends at that: then these are lost, and are not.
#[test]
fn what_is_late_is_waited_for_though_another_client_got_too_much() {
    let fault = Fault::LateAndRepeat(Duration::from_secs(1));
    let (status, results) = FEW_THAT_DECODE.run(Speech::Pusher, fault, 0);
    assert_caught(status, &results, &[Found::Repeated]);
    let disorder = Disorder {
        repeated: 9,
        ..Disorder::default()
    };
    assert_eq!(results.steps[0].disorder, disorder);
}

#[test]
fn what_a_server_of_plain_websocket_does_wrong_is_seen_by_clients_that_decode() {
    for (fault, expected) in [
        (Fault::Drop, [Found::Lost, Found::Unannounced].as_slice()),
        (Fault::Repeat, &[Found::Repeated]),
        (Fault::Reorder, &[Found::Reordered]),
        (Fault::Close, &[Found::Closed]),
    ] {
        let (status, results) = FEW_THAT_DECODE.run(Speech::Plain, fault, 0);
        assert_caught(status, &results, expected);
    }
}

/// How late messages were when they were written, in order.
struct WrittenLate {
    delivery: Vec<u64>,
    first: Vec<u64>,
    median: Vec<u64>,
    last: Vec<u64>,
}

impl WrittenLate {
    fn of(written: &[Written]) -> WrittenLate {
        let mut by_message: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for one in written {
            let late = by_message.entry(one.sequence).or_default();
            late.push(one.late_us);
        }
        by_message
            .values_mut()
            .for_each(|late| late.sort_unstable());
        let sorted = |mut late: Vec<u64>| {
            late.sort_unstable();
            late
        };
        let each =
            |of: fn(&[u64]) -> u64| sorted(by_message.values().map(|late| of(late)).collect());
        WrittenLate {
            delivery: sorted(written.iter().map(|one| one.late_us).collect()),
            first: each(|late| late[0]),
            median: each(|late| late[late.len().div_ceil(2) - 1]),
            last: each(|late| late[late.len() - 1]),
        }
    }
}

fn quantile(sorted: &[u64], quantile: f64) -> u64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// A message cannot be received before it is written. How long after that it is read is the machine's matter; a valid
/// run is not late by far more than what it measures.
#[track_caller]
fn assert_as_late_as_written(step: &Step, written: &WrittenLate) {
    let check = |name: &str, told: &LatencyHistogram, written: &[u64]| {
        assert_eq!(told.count(), written.len() as u64, "{name}");
        for at in [0.5, 0.9, 0.99, 1.0] {
            let (told_us, written_us) = (told.quantile_us(at).unwrap(), quantile(written, at));
            let range = written_us..=3 * written_us + 100_000;
            assert!(
                range.contains(&told_us),
                "{name} {at}: {told_us} not in {range:?}"
            );
        }
    };
    let latency = &step.latency;
    check("delivery", &latency.delivery, &written.delivery);
    check("first", &latency.first, &written.first);
    check("median", &latency.median, &written.median);
    check("last", &latency.last, &written.last);
}

/// One of 50 clients, so 2 % of the deliveries, gets everything ten times as late as the others: that is p99, and p90 it
/// is not. Fails if a delay is told wrong by a factor of ten, either way.
#[test]
fn a_known_delay_is_in_every_percentile() {
    let (all, wronged) = (Duration::from_millis(30), Duration::from_millis(300));
    let load = Load {
        clients: 50,
        seconds: "2",
        ..FEW_THAT_DECODE
    };
    let (written, results) = load.valid(Fault::Delay { all, wronged });
    assert_whole(&results.steps[0], 40, 50);
    let written = WrittenLate::of(&written);
    assert!(quantile(&written.delivery, 0.5) >= 30_000);
    assert!(quantile(&written.delivery, 0.99) >= 300_000);
    assert!(written.first[0] >= 30_000 && written.last[0] >= 300_000);
    assert_as_late_as_written(&results.steps[0], &written);
}

/// A server that stands still for 600 ms makes all that was due in that time late, and not only the message that it
/// was busy with: the schedule goes on. 20 of these 200 messages are due in the first 200 ms of it, so they are 400 ms
/// late or more, and no message is left out for it. Fails if a message counts from when it left: with one call at a time
/// none leaves while the server stands still.
#[test]
fn a_stall_is_in_the_percentiles_with_all_that_was_due_meanwhile() {
    let load = Load {
        rate: "100",
        seconds: "2",
        more: &["--sample", "all", "--window", "1"],
        ..FEW_THAT_DECODE
    };
    let (written, results) = load.valid(Fault::Stall(Duration::from_millis(600)));
    let step = &results.steps[0];
    assert_whole(step, 200, 3);
    for late in [
        &step.latency.delivery,
        &step.latency.first,
        &step.latency.last,
    ] {
        assert!(late.quantile_us(0.95).unwrap() >= 400_000, "{late:?}");
        assert!(late.quantile_us(1.0).unwrap() >= 580_000, "{late:?}");
    }
    assert_as_late_as_written(step, &WrittenLate::of(&written));
}

/// A server that takes 5 ms for a message, of which there are 200 in a second: at 240 a second the last of a second
/// would be 200 ms late, twice what is kept.
#[test]
fn the_knee_of_a_server_of_known_speed_is_not_above_it() {
    let server = Faulty::serve(Speech::Pusher, Fault::Work(Duration::from_millis(5)), 0);
    let load = Load {
        rate: "knee",
        seconds: "1",
        ..FEW_THAT_DECODE
    };
    let mut words = load.words(&server, Speech::Pusher);
    let search =
        "--from-rate 50 --step-seconds 1 --precision 1.5 --p99-ms-max 100 --sustained-p99-ms-max 0";
    words.extend(search.split(' ').map(str::to_owned));
    let (status, results) = valid(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(status, 0);
    let knee = results.steps[results.knee.unwrap()].offered_per_s.unwrap();
    assert!(knee < 240.0, "{knee}");
    assert!(
        results
            .steps
            .iter()
            .any(|step| step.outcome != Outcome::Kept)
    );
}
