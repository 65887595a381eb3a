//! Runs `outpour bench` and reads what it found.
//!
//! A machine that others use too makes the generator late now and then, and it says so: the run is invalid. Where a
//! test needs a valid one, it runs alone in its program, and is tried again while it is invalid.

use std::process::{Command, Output};
use std::sync::{PoisonError, RwLock};

use outpour::load::report::json;
use outpour::load::result::{Results, Step, Verdict};

pub const EXIT_FAILED: i32 = 1;
pub const EXIT_USAGE: i32 = 2;
pub const EXIT_INVALID: i32 = 3;

/// So often a run is tried that has to be valid.
const TRIES_MAX: usize = 5;

/// Held for writing by whoever wants the machine for itself.
static MACHINE: RwLock<()> = RwLock::new(());

/// Runs `outpour bench` with these words.
pub fn bench(words: &[&str]) -> Output {
    let _among_others = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    run(words)
}

/// As [`bench`], and reads what it found.
pub fn measured(words: &[&str]) -> (i32, Results) {
    read(&bench(&with_json(words)))
}

/// As [`measured`]; what it found is valid.
pub fn valid(words: &[&str]) -> (i32, Results) {
    let words = with_json(words);
    until_valid(|| read(&run(&words)))
}

/// Does something, alone, until what it found is valid.
pub fn until_valid<Found>(mut attempt: impl FnMut() -> (Found, Results)) -> (Found, Results) {
    let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let mut reasons = Vec::new();
    for _ in 0..TRIES_MAX {
        let (found, results) = attempt();
        match &results.verdict {
            Verdict::Valid => return (found, results),
            Verdict::Invalid { why } => reasons.push(why.join("; ")),
            Verdict::Failed { evidence } => panic!("{evidence:?}"),
        }
    }
    panic!("invalid {TRIES_MAX} times: {reasons:#?}");
}

/// Without the lock of [`until_valid`], which holds it.
pub fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outpour"))
        .arg("bench")
        .args(words)
        .output()
        .unwrap()
}

fn with_json<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [words, &["--quiet", "--json", "-"]].concat()
}

pub fn read(output: &Output) -> (i32, Results) {
    let text = String::from_utf8_lossy(&output.stdout);
    let results = json::read(&text).unwrap_or_else(|error| {
        let words = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {text}{words}");
    });
    (output.status.code().unwrap(), results)
}

/// Every message was accepted and reached every subscriber once.
#[track_caller]
pub fn assert_whole(step: &Step, published: u64, subscribers: u64) {
    assert_eq!(
        (step.published, step.accepted, step.refused),
        (published, published, 0)
    );
    assert_eq!(step.subscribers, subscribers);
    assert_eq!(step.deliveries, published * (subscribers / step.channels));
    assert!(step.disorder.is_none(), "{:?}", step.disorder);
    for latencies in [
        &step.latency.first,
        &step.latency.median,
        &step.latency.last,
    ] {
        assert_eq!(latencies.count(), published);
    }
    assert!(step.latency.delivery.count() >= published / step.channels);
    assert!(!step.timeline.is_empty());
    let delivered: u64 = step.timeline.iter().map(|second| second.delivered).sum();
    assert_eq!(delivered, step.deliveries);
}

#[track_caller]
pub fn assert_not_failed(results: &Results) {
    assert!(
        !matches!(results.verdict, Verdict::Failed { .. }),
        "{:?}",
        results.verdict
    );
}
