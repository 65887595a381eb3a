//! Made results for tests: a canonical run with all its figures, and less.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use serde_json::json;

use super::*;

/// A fan-out whose knee was found at 1,200 messages a second to 10,000 subscribers.
pub fn fanout() -> Results {
    let mut steps: Vec<Step> = [
        (100.0, "kept"),
        (200.0, "kept"),
        (400.0, "kept"),
        (800.0, "kept"),
        (1_600.0, "missed"),
        (1_200.0, "kept"),
        (1_400.0, "missed"),
    ]
    .iter()
    .enumerate()
    .map(|(index, (rate, outcome))| {
        step(
            StepKind::Search,
            *rate,
            *outcome == "kept",
            4.0 * index as f64,
            4,
        )
    })
    .collect();
    steps.push(step(StepKind::Confirm, 1_200.0, true, 28.0, 20));
    Results {
        format: FORMAT,
        began_utc: "2026-11-25T16:47:06Z".to_owned(),
        machine: Machine {
            kernel: "Linux 6.18.44".to_owned(),
            cpu_model: "AMD EPYC".to_owned(),
            cores: 2,
            memory_bytes: 24 << 30,
            load_average: [0.42, 0.67, 1.01],
        },
        outpour: Build {
            version: "0.1.0".to_owned(),
            commit: Some("08faa1234b6a31cd8747326419341409ace0ae23".to_owned()),
        },
        command_line: vec!["outpour".to_owned(), "bench".to_owned()],
        target: Target {
            url: "ws://127.0.0.1:40001".to_owned(),
            name: "outpour 0.1.0".to_owned(),
            started: Started::Embedded {
                command_line: vec![
                    "outpour".to_owned(),
                    "serve".to_owned(),
                    "--cores".to_owned(),
                    "0".to_owned(),
                ],
                cores: vec![0],
            },
        },
        network: Network::Loopback,
        scenario: Scenario {
            name: "fanout".to_owned(),
            parameters: BTreeMap::from([
                ("channels".to_owned(), json!(1)),
                ("subscribers".to_owned(), json!(10_000)),
                ("data_bytes".to_owned(), json!(128)),
                ("publishers".to_owned(), json!("http")),
                ("p99_ms_max".to_owned(), json!(100)),
            ]),
        },
        verdict: Verdict::Valid,
        cores: vec![
            Core {
                number: 0,
                role: Role::Server,
            },
            Core {
                number: 1,
                role: Role::Generator,
            },
        ],
        knee: Some(steps.len() - 1),
        knee_is_lower_bound: false,
        sustained: None,
        sustained_is_lower_bound: false,
        steps,
        storms: Vec::new(),
        memory: None,
    }
}

/// The same run, `factor` times as dear for the server and as slow.
pub fn fanout_times(factor: f64) -> Results {
    let mut results = fanout();
    for step in &mut results.steps {
        if let Some(server) = &mut step.server {
            server.cpu_us_per_delivery *= factor;
        }
        step.deliveries_per_s /= factor;
        let mut slower = LatencyHistogram::new();
        for value in step.latency.delivery.values().iter_recorded() {
            let us = value.value_iterated_to() as f64 * factor;
            slower.record_many_us(us as u64, value.count_at_value());
        }
        step.latency.delivery = slower;
    }
    results
}

/// A storm of connections and one of reconnections.
pub fn connect() -> Results {
    let storm = |kind, ms: f64| {
        let mut latency = LatencyHistogram::new();
        for connection in 0..10_000 {
            latency.record_us(800 + (connection * 7919 % 10_000) * 30);
        }
        Storm {
            kind,
            connections: 10_000,
            failed: 0,
            handshakes_per_s: 10_000.0 / (ms / 1e3),
            all_upgraded_ms: ms * 0.97,
            most_subscribed_ms: Some(ms * 0.95),
            all_subscribed_ms: ms,
            latency,
            server_cpu_us_per_handshake: Some(31.0),
            server_busy_share: Some(0.88),
            generator_busy_share: Some(0.61),
            progress: (0..=20)
                .map(|tick| Joined {
                    at_ms: ms * f64::from(tick) / 20.0,
                    subscribed: (10_000.0 * (f64::from(tick) / 20.0).powf(1.2)) as u64,
                })
                .collect(),
        }
    };
    Results {
        scenario: scenario("connect"),
        steps: Vec::new(),
        knee: None,
        storms: vec![
            storm(StormKind::Connect, 812.0),
            storm(StormKind::Reconnect, 655.0),
        ],
        ..fanout()
    }
}

/// Guests, three of whom failed.
pub fn churn() -> Churn {
    let mut joined = LatencyHistogram::new();
    joined.record_many_us(4_000, 200);
    Churn {
        joins: 200,
        leaves: 190,
        failures: 3,
        joined,
    }
}

/// The same storms, the second of which took all that the generator had.
pub fn connect_at_the_limit() -> Results {
    let mut results = connect();
    results.storms[1].generator_busy_share = Some(0.971);
    results
}

/// Memory of idle connections.
pub fn idle() -> Results {
    Results {
        scenario: scenario("idle"),
        steps: Vec::new(),
        knee: None,
        memory: Some(Memory {
            server_bytes_per_connection: Some(100.4),
            server_bytes_per_connection_from_none: Some(131.0),
            generator_bytes_per_connection: 312.0,
            kernel_slab_bytes_per_connection: Some(8_412.0),
            idle_busy_share: Some(0.0004),
            readings: (1..=5)
                .map(|size| MemoryReading {
                    connections: size * 3_000,
                    server_rss_bytes: Some(24_000_000 + size * 301_200),
                    server_own_bytes: Some(14_000_000 + size * 301_200),
                    generator_rss_bytes: 9_000_000 + size * 936_000,
                    kernel_slab_bytes: Some(90_000_000 + size * 25_236_000),
                })
                .collect(),
        }),
        ..fanout()
    }
}

pub fn evidence() -> Evidence {
    Evidence {
        fault: Fault::Lost,
        client: 4_711,
        channel: "bench".to_owned(),
        expected: "sequence 17".to_owned(),
        seen: "sequence 19".to_owned(),
    }
}

fn scenario(name: &str) -> Scenario {
    Scenario {
        name: name.to_owned(),
        parameters: BTreeMap::from([
            ("connections".to_owned(), json!(10_000)),
            ("at_once".to_owned(), json!(512)),
        ]),
    }
}

fn step(kind: StepKind, rate: f64, is_kept: bool, began_s: f64, seconds: u64) -> Step {
    let subscribers = 10_000;
    let published = rate as u64 * seconds;
    let deliveries = published * subscribers;
    let lap_us = if is_kept {
        40_000.0 + rate * 22.0
    } else {
        160_000.0
    };
    let busy = (rate / 1_300.0).min(0.99);
    let mut latency = Latencies::default();
    for message in 0..published {
        // A wobble with a long period, as of a machine with other guests, and a rare stall.
        let wobble = 1.0 + 0.15 * (message as f64 / 97.0 * TAU).sin();
        let stall = if message % 997 == 0 { 1.6 } else { 1.0 };
        let last_us = lap_us * wobble * stall;
        latency.first.record_us((last_us * 0.01) as u64 + 60);
        latency.median.record_us((last_us * 0.5) as u64);
        latency.last.record_us(last_us as u64);
        for client in 0..16 {
            latency
                .delivery
                .record_us((last_us * f64::from(client) / 16.0) as u64 + 60);
        }
    }
    let mut slip = LatencyHistogram::new();
    for message in 0..published {
        slip.record_us(20 + message * 31 % 400);
    }
    Step {
        kind,
        outcome: if is_kept {
            Outcome::Kept
        } else {
            Outcome::Missed {
                why: "p99 189 ms, more than 100 ms".to_owned(),
            }
        },
        began_s,
        lasted_s: seconds as f64 + 0.1,
        offered_per_s: Some(rate),
        channels: 1,
        subscribers,
        data_bytes: 128,
        published,
        accepted: published,
        refused: 0,
        deliveries,
        deliveries_per_s: deliveries as f64 / (seconds as f64 + 0.1),
        server: Some(ServerCpu {
            cpu_us_per_delivery: 0.08 + 20.0 / rate,
            wall_us_per_delivery: 1e6 / (rate * 10_000.0),
            shards: vec![ThreadCpu {
                name: "shard 0".to_owned(),
                core: Some(0),
                busy_share: busy,
            }],
        }),
        generator: vec![
            ThreadCpu {
                name: "publisher".to_owned(),
                core: Some(1),
                busy_share: 0.07,
            },
            ThreadCpu {
                name: "clients 0".to_owned(),
                core: Some(1),
                busy_share: busy * 0.7,
            },
        ],
        slip,
        latency,
        disorder: Disorder::default(),
        stalled: None,
        churn: None,
        timeline: (1..=seconds)
            .map(|second| {
                let wobble = 1.0 + 0.1 * (second as f64 * 0.9).sin();
                Second {
                    at_s: began_s + second as f64,
                    published: rate as u64,
                    delivered: (rate * 10_000.0 * (0.95 + 0.05 * wobble)) as u64,
                    lag_deliveries: (rate * 10_000.0 * lap_us / 1e6 * 0.5 * wobble) as u64,
                    p50_us: Some((lap_us * 0.5 * wobble) as u64),
                    p99_us: Some((lap_us * 1.1 * wobble) as u64),
                    core_busy_shares: vec![busy * (1.0 - 0.04 * wobble), busy * 0.77 * wobble],
                }
            })
            .collect(),
    }
}
