//! `outpour bench` from its command line to its results. Counts are exact; times are not asserted,
//! and on a busy machine a run may call itself invalid, which changes no count. What it makes of servers that do wrong
//! is seen in tests/faults.rs.

#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use outpour::load::report::json;
use outpour::load::result::{Outcome, Results, StepKind, StormKind};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod measured;

use measured::{
    EXIT_FAILED, EXIT_INVALID, EXIT_USAGE, assert_not_failed, assert_whole, bench, measured, run,
    until_valid, valid,
};

#[test]
fn a_fanout_delivers_every_message_to_every_subscriber() {
    let (_, results) = measured(&[
        "fanout",
        "--channels",
        "2",
        "--subscribers",
        "50",
        "--rate",
        "100",
        "--seconds",
        "1",
    ]);
    assert_not_failed(&results);
    assert_whole(&results.steps[0], 100, 100);
    assert_eq!(results.scenario.name, "fanout");
    assert_eq!(results.scenario.parameters["subscribers"], 50);
    assert_eq!(results.scenario.parameters["data_bytes"], 128);
    let server = results.steps[0].server.as_ref().unwrap();
    assert!(!server.shards.is_empty());
    assert!(
        results
            .command_line
            .ends_with(&["--json".to_owned(), "-".to_owned()])
    );
}

#[test]
fn all_clients_may_decode_and_batches_be_published() {
    let (_, results) = measured(&[
        "fanout",
        "--subscribers",
        "30",
        "--rate",
        "200",
        "--seconds",
        "1",
        "--sample",
        "all",
        "--batch",
        "5",
    ]);
    assert_not_failed(&results);
    assert_whole(&results.steps[0], 200, 30);
    assert_eq!(results.steps[0].latency.delivery.count(), 200 * 30);
}

/// Fails if nothing is ever found valid: all other tests let a busy machine excuse a run.
#[test]
fn a_modest_load_is_valid() {
    let words = [
        "fanout",
        "--subscribers",
        "20",
        "--rate",
        "50",
        "--seconds",
        "2",
    ];
    let (status, results) = valid(&words);
    assert_eq!(status, 0);
    assert_eq!(results.steps[0].outcome, Outcome::Kept);
    assert_whole(&results.steps[0], 100, 20);
}

#[test]
fn client_events_and_http_can_publish_together() {
    let (_, results) = measured(&[
        "fanout",
        "--channels",
        "4",
        "--subscribers",
        "10",
        "--rate",
        "100",
        "--seconds",
        "1",
        "--publish-by",
        "both",
    ]);
    assert_not_failed(&results);
    assert_whole(&results.steps[0], 100, 40);
    let (_, results) = measured(&[
        "fanout",
        "--subscribers",
        "10",
        "--rate",
        "100",
        "--seconds",
        "1",
        "--publish-by",
        "websocket",
    ]);
    assert_not_failed(&results);
    assert_whole(&results.steps[0], 100, 10);
}

#[test]
fn the_knee_is_searched_and_confirmed() {
    let (status, results) = valid(&[
        "--subscribers",
        "20",
        "--from-rate",
        "500",
        "--step-seconds",
        "0.3",
        "--seconds",
        "0.5",
        "--precision",
        "1.9",
    ]);
    assert_eq!(status, 0);
    let knee = results.knee.expect("it was found");
    let of_kind = |kind: StepKind| results.steps.iter().filter(move |step| step.kind == kind);
    assert_eq!(results.steps[knee].kind, StepKind::Confirm);
    assert_eq!(results.steps[knee].outcome, Outcome::Kept);
    let rate = results.steps[knee].offered_per_s;
    let kept = of_kind(StepKind::Search).filter(|step| step.outcome == Outcome::Kept);
    assert!(kept.clone().count() > 0);
    assert!(kept.map(|step| step.offered_per_s).any(|kept| kept >= rate));
    assert!(of_kind(StepKind::Search).any(|step| step.outcome != Outcome::Kept));
}

#[test]
fn storms_count_every_handshake() {
    for way in ["message", "address"] {
        count_handshakes(way);
    }
}

fn count_handshakes(way: &str) {
    let storm = ["connect", "--connections", "200", "--reconnects", "1"];
    let (_, results) = measured(&[&storm[..], &["--subscribe-by", way]].concat());
    assert_not_failed(&results);
    let storms: Vec<_> = results
        .storms
        .iter()
        .map(|storm| (storm.kind, storm.connections))
        .collect();
    assert_eq!(
        storms,
        [(StormKind::Connect, 200), (StormKind::Reconnect, 200)]
    );
    assert_eq!(results.scenario.parameters["at_once"], 512);
    for storm in &results.storms {
        assert_eq!(storm.latency.count(), 200);
        assert!(storm.server_cpu_us_per_handshake.is_some());
        assert!(storm.generator_busy_share.is_some_and(|share| share > 0.0));
        assert!(storm.server_busy_share.is_some());
        let most_ms = storm.most_subscribed_ms.unwrap();
        assert!(most_ms > 0.0 && most_ms <= storm.all_subscribed_ms * 1.001);
    }
}

#[test]
fn no_more_clients_than_were_asked_for_are_on_their_way_at_once() {
    // It takes connections and says nothing, so that everybody stays on the way.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    silent.set_nonblocking(true).unwrap();
    let target = format!("ws://{}", silent.local_addr().unwrap());
    let mut storm = Command::new(env!("CARGO_BIN_EXE_outpour"))
        .args(["bench", "connect", "--connections", "10"])
        .args(["--at-once", "3", "--quiet", "--target", &target])
        .spawn()
        .unwrap();
    let mut taken: Vec<TcpStream> = Vec::new();
    while taken.len() < 3 {
        assert_eq!(storm.try_wait().unwrap(), None, "it ended by itself");
        match silent.accept() {
            Ok((socket, _)) => taken.push(socket),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        thread::sleep(Duration::from_millis(1));
    }
    // The fourth would have left in the same turn as the third.
    thread::sleep(Duration::from_millis(300));
    let fourth = silent.accept().map_err(|error| error.kind());
    storm.kill().unwrap();
    storm.wait().unwrap();
    assert_eq!(fourth.unwrap_err(), ErrorKind::WouldBlock);
}

#[test]
fn memory_of_idle_connections_is_read_at_each_size() {
    let (_, results) = measured(&[
        "idle",
        "--connections",
        "100,200,300",
        "--settle-seconds",
        "0.1",
        "--seconds",
        "0.2",
    ]);
    assert_not_failed(&results);
    let memory = results.memory.unwrap();
    let sizes: Vec<u64> = memory
        .readings
        .iter()
        .map(|reading| reading.connections)
        .collect();
    assert_eq!(sizes, [0, 100, 200, 300]);
    assert_eq!(results.storms.len(), 3);
    assert!(memory.server_bytes_per_connection_from_none.is_some());
    assert!(
        memory
            .readings
            .iter()
            .all(|reading| reading.server_rss_bytes.is_some())
    );
    assert!(memory.idle_busy_share.is_some());
}

#[test]
fn readers_that_stall_take_nothing_from_the_others() {
    let (_, results) = measured(&[
        "slow",
        "--subscribers",
        "40",
        "--rate",
        "50",
        "--seconds",
        "1",
        "--stalled-share",
        "0.25",
    ]);
    assert_not_failed(&results);
    assert_whole(&results.steps[0], 50, 40);
    assert_whole(&results.steps[1], 50, 30);
    let stalled = results.steps[1].stalled.unwrap();
    assert_eq!(stalled.clients, 10);
    assert!(stalled.server_bytes_each.is_some());
}

#[test]
fn guests_come_and_go_under_load() {
    let (_, results) = measured(&[
        "churn",
        "--subscribers",
        "40",
        "--rate",
        "50",
        "--seconds",
        "1",
        "--joins-per-second",
        "50",
        "--guests",
        "10",
    ]);
    assert_not_failed(&results);
    assert_whole(&results.steps[0], 50, 40);
    assert_whole(&results.steps[1], 50, 40);
    let churn = results.steps[1].churn.as_ref().unwrap();
    assert!(churn.joins > 10 && churn.leaves > 0, "{churn:?}");
    assert_eq!(churn.failures, 0);
}

#[test]
fn members_of_presence_channels_get_every_message() {
    let (_, results) = measured(&[
        "presence",
        "--channels",
        "2",
        "--subscribers",
        "10",
        "--rate",
        "50",
        "--seconds",
        "1",
        "--guests",
        "4",
    ]);
    assert_not_failed(&results);
    assert_eq!(results.storms[0].connections, 20);
    assert_whole(&results.steps[0], 50, 20);
    assert_whole(&results.steps[1], 50, 20);
}

#[test]
fn latency_is_measured_at_shares_of_the_knee() {
    let (_, results) = measured(&[
        "latency",
        "--subscribers",
        "10",
        "--knee",
        "200",
        "--shares",
        "0.1,0.5",
        "--seconds",
        "1",
    ]);
    assert_not_failed(&results);
    assert_whole(&results.steps[0], 20, 10);
    assert_whole(&results.steps[1], 100, 10);
}

#[test]
fn shares_of_a_knee_that_is_not_there_are_a_failure() {
    let words = [
        "latency",
        "--subscribers",
        "5",
        "--from-rate",
        "0.4",
        "--step-seconds",
        "0.2",
        "--p99-ms-max",
        "0.0001",
    ];
    let output = bench(&[&words[..], &["--quiet", "--json", "-"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    // On a machine that is too busy nothing is known of the server.
    let status = output.status.code().unwrap();
    assert!([EXIT_FAILED, EXIT_INVALID].contains(&status), "{said}");
    assert!(said.contains("No knee was found"), "{said}");
}

#[test]
fn clients_that_stood_still_make_a_run_invalid() {
    let words = [
        "fanout",
        "--subscribers",
        "20",
        "--rate",
        "100",
        "--seconds",
        "1.5",
        "--freeze-ms",
        "600",
        "--quiet",
    ];
    let output = bench(&words);
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert_eq!(output.status.code(), Some(EXIT_INVALID), "{text}");
    assert!(text.contains("invalid: generator saturated"), "{text}");
}

#[test]
fn a_scenario_file_stands_for_flags_and_a_flag_wins() {
    let path = written(
        "scenario.toml",
        "scenario = 'fanout'\nsubscribers = 7\nrate = 30\nseconds = 1\ndata_bytes = 200\n",
    );
    let (_, results) = measured(&["--scenario", path.to_str().unwrap(), "--subscribers", "9"]);
    assert_not_failed(&results);
    assert_whole(&results.steps[0], 30, 9);
    assert_eq!(results.steps[0].data_bytes, 200);
}

#[test]
fn a_scenario_file_that_is_wrong_names_the_key() {
    for (number, (text, parts)) in [
        ("subscriber = 7", ["`subscriber`", "`subscribers` meant"]),
        ("subscribers = 'many'", ["`subscribers`", "invalid value"]),
        ("data_bytes = 3", ["`data_bytes`", "3"]),
        ("scenario = 'fan'", ["`fan`", "no scenario"]),
        ("connections = 5", ["`connections`", "no setting of fanout"]),
        ("rate = ", ["line 1", "rate"]),
    ]
    .iter()
    .enumerate()
    {
        let path = written(&format!("wrong-{number}.toml"), text);
        let output = bench(&["--scenario", path.to_str().unwrap()]);
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(EXIT_USAGE), "{text}: {words}");
        for part in parts {
            assert!(words.contains(part), "{text}: {words}");
        }
    }
}

/// Of a valid run: what is required of another is not looked at.
#[test]
fn a_requirement_sets_the_exit_status() {
    let load = [
        "fanout",
        "--subscribers",
        "5",
        "--rate",
        "20",
        "--seconds",
        "0.5",
    ];
    let with = |requirement: &str| valid(&[&load[..], &["--require", requirement]].concat()).0;
    assert_eq!(with("p99<0.000001us"), EXIT_FAILED);
    assert_eq!(with("lost=0,p99<1s,repeated<1"), 0);
    let nonsense = bench(&[&load[..], &["--require", "nonsense"]].concat());
    assert_eq!(nonsense.status.code(), Some(EXIT_USAGE));
}

/// Runs a load, and keeps all that can be kept of it: `NAME.json`, `NAME.html` and `NAME.*.hgrm`.
fn kept(name: &str, subscribers: &str) -> (String, Results) {
    let file = |extension: &str| {
        let path = directory().join(format!("{name}.{extension}"));
        path.to_str().unwrap().to_owned()
    };
    let (json, hgrm, report) = (file("json"), file("hgrm"), file("html"));
    let load = ["fanout", "--rate", "20", "--seconds", "1", "--quiet"];
    let files = ["--json", &json, "--hgrm", &hgrm, "--report", &report];
    let words = [&load[..], &["--subscribers", subscribers], &files].concat();
    let (output, results) = until_valid(|| {
        let output = run(&words);
        let text = fs::read_to_string(&json).unwrap();
        (output, json::read(&text).unwrap())
    });
    assert_eq!(output.status.code(), Some(0));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("p99"), "{table}");
    (json, results)
}

#[test]
fn results_that_were_kept_are_read_and_compared() {
    let (one, results) = kept("one", "5");
    let (another, _) = kept("another", "5");
    let (larger, _) = kept("larger", "6");
    assert_whole(&results.steps[0], 20, 5);

    for (series, count) in [
        ("delivery", 100),
        ("first", 20),
        ("median", 20),
        ("last", 20),
    ] {
        let path = directory().join(format!("one.{series}.hgrm"));
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("Percentile"), "{text}");
        let total = text.split("Total count    =").nth(1).unwrap();
        let total: u64 = total.split(']').next().unwrap().trim().parse().unwrap();
        assert_eq!(total, count, "{series}");
    }
    let page = fs::read_to_string(directory().join("one.html")).unwrap();
    for outside in ["http://", "https://", "src="] {
        assert!(!page.contains(outside), "{outside}");
    }
    for part in ["p50", "p90", "p99", "p99.9"] {
        assert!(page.contains(part), "{part}");
    }

    let told = |words: &[&str]| {
        let output = bench(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().unwrap(), text)
    };
    let (status, text) = told(&["report", &one, "--require", "lost=0,deliveries>0"]);
    assert!(status == 0 && text.contains("p99"), "{text}");
    let (status, _) = told(&["report", &one, "--require", "lost>0"]);
    assert_eq!(status, EXIT_FAILED);

    // The same runs on both sides: there is a spread, and no difference.
    let (status, text) = told(&["compare", "--a", &one, &another, "--b", &another, &one]);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("no difference beyond the spread"), "{text}");
    let (status, text) = told(&["compare", &one, &another]);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("one run shows no spread"), "{text}");
    let (status, text) = told(&["compare", &one, &larger]);
    assert_eq!(status, EXIT_FAILED, "{text}");
    assert!(text.contains("not comparable"), "{text}");
    assert_eq!(told(&["compare", &one, "nowhere.json"]).0, EXIT_FAILED);
    assert_eq!(told(&["compare", "--a", &one]).0, EXIT_USAGE);
}

#[test]
fn help_lists_the_scenarios() {
    let output = bench(&["--help"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for scenario in [
        "fanout", "connect", "idle", "slow", "churn", "presence", "latency",
    ] {
        assert!(text.contains(scenario), "{text}");
    }
}

fn written(name: &str, text: &str) -> PathBuf {
    let path = directory().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn directory() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    fs::create_dir_all(&directory).unwrap();
    directory
}
