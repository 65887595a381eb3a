//! Verdicts on runs that are made up.

use super::*;
use crate::load::orders::{Column, Order, Reached, Thread};

const SUBSCRIBERS: u64 = 4;
const MESSAGES: u64 = 10;

/// A run of ten messages, 10 ms apart, to four clients of one channel, each received after 1, 2 and
/// 3 ms by the first, half and all of them.
struct Case {
    offer: Offer,
    tally: Tally,
    count: Count,
    is_embedded: bool,
    is_given_up: bool,
}

impl Case {
    fn new(kind: StepKind) -> Case {
        let after = |delay_ms: u64| {
            let at_ns = |message| due_ns(message) + delay_ms * 1_000_000;
            Column((0..MESSAGES).map(at_ns).collect())
        };
        let mut deliveries = LatencyHistogram::new();
        deliveries.record_many_us(2_000, MESSAGES);
        Case {
            offer: Offer {
                kind,
                per_second: Some(100.0),
                seconds: 0.1,
                p99_ms_max: Some(100.0),
                drain_seconds: None,
                subscribers: SUBSCRIBERS,
            },
            tally: Tally {
                published: MESSAGES,
                accepted: MESSAGES,
                channels: vec![OfChannel {
                    published: MESSAGES,
                    accepted: MESSAGES,
                    refused: 0,
                }],
                wall_ns: 100_000_000,
                cpu_ns: 1_000_000,
                ..Tally::default()
            },
            count: Count {
                clients: SUBSCRIBERS,
                messages: MESSAGES * SUBSCRIBERS,
                messages_min: MESSAGES,
                messages_max: MESSAGES,
                deliveries,
                order: Order {
                    clients: 1,
                    messages: MESSAGES,
                    ..Order::default()
                },
                receipts: vec![Receipts {
                    channel: 0,
                    clients: SUBSCRIBERS,
                    messages: MESSAGES * SUBSCRIBERS,
                    reached: reached(&[MESSAGES; SUBSCRIBERS as usize]),
                    ended: Reached::default(),
                    due_ns: after(0),
                    first_ns: after(1),
                    median_ns: after(2),
                    last_ns: after(3),
                    beyond: 0,
                }],
                threads: vec![Thread {
                    core: 1,
                    cpu_ns: 10_000_000,
                    wall_ns: 100_000_000,
                    turns: LatencyHistogram::new(),
                }],
                ..Count::default()
            },
            is_embedded: true,
            is_given_up: false,
        }
    }

    /// Clients that stayed got so many messages, and those that the server ended so many.
    fn got(&mut self, stayed: &[u64], ended: &[u64]) {
        let count = &mut self.count;
        count.messages = stayed.iter().chain(ended).sum();
        count.messages_min = *stayed.iter().min().unwrap();
        count.messages_max = *stayed.iter().max().unwrap();
        count.closed = ended.len() as u64;
        let receipts = &mut count.receipts[0];
        receipts.clients = (stayed.len() + ended.len()) as u64;
        receipts.messages = count.messages;
        (receipts.reached, receipts.ended) = (reached(stayed), reached(ended));
    }

    fn concluded(&self) -> Measured {
        conclude(&Observed {
            offer: &self.offer,
            schedule: &schedule(),
            began_s: 0.0,
            drained_ns: due_ns(MESSAGES),
            is_given_up: self.is_given_up,
            is_embedded: self.is_embedded,
            subscribers: SUBSCRIBERS,
            data_bytes: 128,
            publisher_core: Some(1),
            tally: &self.tally,
            count: &self.count,
            server_cpu_ns: Some(8_000_000),
            server_threads: vec![("outpour".to_owned(), 0.0), ("shard-0".to_owned(), 0.25)],
            timeline: Vec::new(),
            answers: &LatencyHistogram::new(),
        })
    }
}

fn schedule() -> Schedule {
    Schedule {
        start_ns: 1_000_000_000,
        per_second: Some(100.0),
        length_ns: 100_000_000,
        channels: 1,
        publishers: 1,
    }
}

fn reached(got: &[u64]) -> Reached {
    let mut reached = Reached::default();
    got.iter().for_each(|messages| reached.note(*messages));
    reached
}

fn due_ns(message: u64) -> u64 {
    schedule().due_ns(message)
}

fn gap(expected: u64, seen: u64) -> orders::Evidence {
    orders::Evidence {
        what: Wrong::Gap,
        client: 2,
        channel: "fan".to_owned(),
        expected,
        seen,
        at_ns: 0,
        words: None,
    }
}

#[track_caller]
fn assert_missed(measured: &Measured, part: &str) {
    match &measured.step.outcome {
        Outcome::Missed { why } => assert!(why.contains(part), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_known_delay_comes_out_as_it_is() {
    let measured = Case::new(StepKind::Fixed).concluded();
    assert_eq!(measured.step.outcome, Outcome::Kept);
    assert_eq!(measured.evidence, []);
    let latency = &measured.step.latency;
    for (histogram, expected_us) in [
        (&latency.first, 1_000),
        (&latency.median, 2_000),
        (&latency.last, 3_000),
        (&latency.delivery, 2_000),
    ] {
        let us = histogram.quantile_us(0.5).unwrap();
        assert!(us.abs_diff(expected_us) <= 3, "{us}, not {expected_us}");
    }
    assert!((measured.step.lasted_s - 0.093).abs() < 1e-9);
    let server = measured.step.server.unwrap();
    assert_eq!(server.cpu_us_per_delivery, 200.0);
    assert_eq!(server.shards.len(), 1);
    assert_eq!(server.shards[0].name, "shard 0");
}

#[test]
fn a_loss_is_shown_with_what_was_expected() {
    let mut case = Case::new(StepKind::Fixed);
    case.got(&[10, 7, 10, 10], &[]);
    let measured = case.concluded();
    assert_missed(&measured, "3 deliveries lost");
    assert_eq!(measured.step.disorder.lost, 3);
    assert_eq!(measured.evidence.len(), 1);
    assert_eq!(measured.evidence[0].fault, Fault::Lost);
    assert_eq!(measured.evidence[0].expected, "40 deliveries");
}

/// Fails if a sum over clients is held against what was due: it is 40, as it should be.
#[test]
fn what_one_client_gets_twice_makes_up_for_nothing_that_another_lacks() {
    let mut case = Case::new(StepKind::Fixed);
    case.got(&[10, 9, 10, 11], &[]);
    let measured = case.concluded();
    assert_missed(&measured, "1 deliveries lost; 1 deliveries repeated");
    let faults: Vec<Fault> = measured.evidence.iter().map(|one| one.fault).collect();
    assert_eq!(faults, [Fault::Lost, Fault::Repeated]);
    assert!(measured.evidence[0].seen.contains("1 lacking in 40"));
}

/// The client that the sample saw get one twice lacks none of the others, and one of those lacks one.
#[test]
fn a_repeat_in_the_sample_makes_up_for_no_loss_either() {
    let mut case = Case::new(StepKind::Fixed);
    case.got(&[10, 9, 10, 10], &[]);
    case.count.messages += 1;
    case.count.messages_max += 1;
    case.count.order.repeated = 1;
    let disorder = case.concluded().step.disorder;
    assert_eq!((disorder.lost, disorder.repeated), (1, 1));
}

/// Ten messages on channel 0 and nine on channel 1, two clients each: what is wrong on one is wrong there.
#[test]
fn each_channel_is_held_against_what_was_accepted_on_it() {
    let two_channels = |first: &[u64], second: &[u64]| {
        let mut case = Case::new(StepKind::Fixed);
        case.tally.accepted = 19;
        case.tally.published = 19;
        let nine = OfChannel {
            published: 9,
            accepted: 9,
            refused: 0,
        };
        case.tally.channels.push(nine);
        let mut other = case.count.receipts[0].clone();
        (other.channel, other.clients) = (1, 2);
        other.reached = reached(second);
        case.got(first, &[]);
        case.count.receipts.push(other);
        let disorder = case.concluded().step.disorder;
        (disorder.lost, disorder.repeated)
    };
    assert_eq!(two_channels(&[10, 10], &[9, 9]), (0, 0));
    assert_eq!(two_channels(&[10, 9], &[9, 10]), (1, 1));
}

#[test]
fn a_message_that_was_taken_back_is_lost_to_nobody() {
    let mut case = Case::new(StepKind::Fixed);
    case.tally.accepted -= 1;
    (case.tally.failed, case.tally.taken_back) = (1, 1);
    case.got(&[9; 4], &[]);
    assert_eq!(case.concluded().step.disorder.lost, 0);
    case.got(&[9, 9, 8, 9], &[]);
    assert_eq!(case.concluded().step.disorder.lost, 1);
}

#[test]
fn a_client_that_was_gone_before_the_load_lacks_all_of_it() {
    let mut case = Case::new(StepKind::Fixed);
    case.got(&[10; 3], &[]);
    assert_eq!(case.concluded().step.disorder.lost, 10);
}

#[test]
fn a_search_may_drive_a_peer_to_losses_and_never_our_own_server() {
    let mut case = Case::new(StepKind::Search);
    case.got(&[10, 10, 10, 7], &[]);
    assert_eq!(case.concluded().evidence.len(), 1);
    case.is_embedded = false;
    let measured = case.concluded();
    assert_missed(&measured, "3 deliveries lost");
    assert_eq!(measured.evidence, []);
    // Disorder is excused by no load.
    case.count.order.repeated = 1;
    case.count.order.evidence.push(orders::Evidence {
        what: Wrong::Repeat,
        ..gap(5, 4)
    });
    assert_eq!(case.concluded().evidence.len(), 1);
}

/// Fails if any close excuses a loss: one that stayed lacks a message, and nobody told it.
#[test]
fn a_search_may_have_our_own_server_end_slow_clients_if_those_who_stay_lack_nothing() {
    for kind in [StepKind::Search, StepKind::Confirm] {
        let mut case = Case::new(kind);
        case.got(&[10; 3], &[7]);
        let measured = case.concluded();
        assert_missed(&measured, "3 deliveries lost");
        assert_eq!(measured.evidence, []);
        case.got(&[10, 10, 9], &[7]);
        assert_eq!(case.concluded().evidence.len(), 2);
    }
}

#[test]
fn more_deliveries_than_publishes_are_repeats() {
    let mut case = Case::new(StepKind::Fixed);
    case.got(&[10, 12, 10, 10], &[]);
    let measured = case.concluded();
    assert_eq!(measured.step.disorder.repeated, 2);
    assert_eq!(measured.evidence[0].fault, Fault::Repeated);
}

#[test]
fn a_refused_message_is_missing_by_right_and_no_other() {
    let mut case = Case::new(StepKind::Fixed);
    case.tally.accepted -= 1;
    case.tally.refused = 1;
    case.tally.channels[0].accepted -= 1;
    case.tally.channels[0].refused = 1;
    case.tally.not_accepted = vec![Place {
        channel: 0,
        sequence: 6,
    }];
    case.got(&[9; 4], &[]);
    case.count.order.missing = 1;
    case.count.order.gaps = 1;
    case.count.order.evidence = vec![gap(6, 7)];
    let measured = case.concluded();
    assert_missed(&measured, "1 publishes refused");
    assert_eq!(measured.step.disorder, Disorder::default());
    assert_eq!(measured.evidence, []);

    case.count.order.evidence = vec![gap(5, 6)];
    let measured = case.concluded();
    assert_eq!(measured.step.disorder.unannounced, 1);
    assert_eq!(measured.evidence[0].fault, Fault::Unannounced);
    assert_eq!(measured.evidence[0].expected, "sequence 5");
}

#[test]
fn a_saturated_generator_has_no_figures_but_a_limit_that_was_kept_all_the_same() {
    let saturated = |kind| {
        let mut case = Case::new(kind);
        case.count.threads[0].cpu_ns = 99_000_000;
        case
    };
    let measured = saturated(StepKind::Fixed).concluded();
    assert!(
        measured
            .invalid()
            .is_some_and(|why| why.contains("of core 1"))
    );
    assert!(saturated(StepKind::Search).concluded().is_kept());
    let mut case = saturated(StepKind::Search);
    case.count.deliveries.record_many_us(200_000, 5);
    assert!(case.concluded().invalid().is_some());
    case.count.threads[0].cpu_ns = 1;
    assert_missed(&case.concluded(), "p99 200 ms, more than 100 ms");
}

#[test]
fn connections_that_the_server_ended_are_told_with_its_words() {
    let mut case = Case::new(StepKind::Fixed);
    case.count.closed = 1;
    case.count.last_words = Some("4100 over capacity".to_owned());
    let measured = case.concluded();
    assert_missed(&measured, "1 connections ended");
    assert!(measured.evidence[0].seen.contains("4100 over capacity"));
}

#[test]
fn what_is_under_way_when_time_is_up_is_not_lost_and_not_kept() {
    let mut case = Case::new(StepKind::Fixed);
    case.offer.drain_seconds = Some(2.0);
    case.got(&[10, 7, 10, 7], &[]);
    case.count.uneven = 2;
    case.is_given_up = true;
    let measured = case.concluded();
    assert!(measured.evidence.is_empty(), "{:?}", measured.evidence);
    assert_eq!(measured.step.disorder.lost, 0);
    let Outcome::Missed { why } = &measured.step.outcome else {
        panic!("{:?}", measured.step.outcome);
    };
    assert_eq!(
        why,
        "6 deliveries were under way 2 s after the last publish"
    );
    // The rate is what came, over all of the time until then.
    let step = &measured.step;
    let lasted_s = (due_ns(MESSAGES) - due_ns(0)) as f64 / 1e9;
    assert_eq!(step.lasted_s, lasted_s);
    assert_eq!(step.deliveries_per_s, 34.0 / lasted_s);
}

#[test]
fn a_p99_that_is_missed_by_little_is_near() {
    let near = |p99_ms: u64, change: &dyn Fn(&mut Case)| {
        let mut case = Case::new(StepKind::Search);
        case.count.deliveries = LatencyHistogram::new();
        case.count
            .deliveries
            .record_many_us(p99_ms * 1_000, MESSAGES);
        change(&mut case);
        case.concluded().is_near
    };
    assert!(near(120, &|_| {}));
    assert!(!near(99, &|_| {}));
    assert!(!near(200, &|_| {}));
    assert!(!near(120, &|case| case.got(&[10, 10, 10, 9], &[])));
    assert!(!near(120, &|case| case.tally.published -= 1));
}
