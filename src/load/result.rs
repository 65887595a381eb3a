//! What a run of `outpour bench` found: everything that its table, its files and its reports show.
//!
//! A result that is written is read again by `outpour bench compare`, perhaps by a later version, so it says
//! in which [`FORMAT`] it is. Names end in their units. Unknown fields are refused: a figure that is dropped
//! unseen would compare as absent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub mod latency;
#[cfg(test)]
pub mod samples;

pub use latency::LatencyHistogram;

/// The shape of [`Results`]; raised with every change that older readers would misread.
pub const FORMAT: u32 = 1;

/// A generator that took more than this share of one of its cores was the limit itself.
pub const GENERATOR_BUSY_MAX: f64 = 0.95;

/// One run of a scenario against one server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// When the run began: `2026-11-25T16:47:06Z`.
    pub began_utc: String,
    pub machine: Machine,
    /// Of the load generator.
    pub outpour: Build,
    /// As it was typed, word by word.
    pub command_line: Vec<String>,
    pub target: Target,
    pub network: Network,
    pub scenario: Scenario,
    pub verdict: Verdict,
    /// The cores that were watched. Each [`Second`] has their shares in this order.
    pub cores: Vec<Core>,
    /// Loads that were offered, in the order of time.
    pub steps: Vec<Step>,
    /// The step in `steps` that counts: the highest load that was kept, confirmed.
    pub knee: Option<usize>,
    /// The generator and not the server ended the search for the knee: the server's own may be higher.
    #[serde(default)]
    pub knee_is_lower_bound: bool,
    /// The step in `steps` with the highest load that was sustained with nothing lost, however late it came.
    #[serde(default)]
    pub sustained: Option<usize>,
    /// As for the knee.
    #[serde(default)]
    pub sustained_is_lower_bound: bool,
    /// Connection storms, in the order of time.
    pub storms: Vec<Storm>,
    pub memory: Option<Memory>,
}

impl Results {
    /// The steps that the figures of the run are taken from: the knee, or without one all of them.
    pub fn steps_that_count(&self) -> &[Step] {
        match self.knee {
            Some(knee) => self.steps.get(knee..=knee).unwrap_or_default(),
            None => &self.steps,
        }
    }

    /// A knee was to be searched for, and no load was kept.
    pub fn is_knee_missing(&self) -> bool {
        let parameters = &self.scenario.parameters;
        let is_asked_for = match parameters.get("rate") {
            Some(Value::Array(rates)) => rates.contains(&Value::from("knee")),
            Some(rate) => rate == "knee",
            // Shares of a knee that was not given are shares of one that is searched for.
            None => self.scenario.name == "latency" && !parameters.contains_key("knee"),
        };
        is_asked_for && self.knee.is_none()
    }

    /// Attempts of clients that came to nothing, in storms and of guests; none where there were neither.
    pub fn failed_attempts(&self) -> Option<u64> {
        let storms = self.storms.iter().map(|storm| storm.failed);
        let guests = self.steps.iter().filter_map(|step| step.churn.as_ref());
        let guests = guests.map(|churn| churn.failures);
        storms
            .chain(guests)
            .reduce(|one, another| one.saturating_add(another))
    }

    /// Over all steps: a promise that breaks beyond the knee is broken too.
    pub fn disorder(&self) -> Disorder {
        let mut sum = Disorder::default();
        for step in &self.steps {
            sum.add(&step.disorder);
        }
        sum
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// `Linux 6.18.44`.
    pub kernel: String,
    pub cpu_model: String,
    pub cores: u32,
    pub memory_bytes: u64,
    /// Over 1, 5 and 15 minutes before the run: figures of a busy machine are worth less.
    pub load_average: [f64; 3],
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    pub version: String,
    /// Where it is known.
    pub commit: Option<String>,
}

/// The server that the load went to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `ws://127.0.0.1:6001`.
    pub url: String,
    /// What runs there, as the user knows it: `outpour 0.1.0`, `sockudo`.
    pub name: String,
    pub started: Started,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Started {
    /// By the load generator, for this run.
    Embedded {
        command_line: Vec<String>,
        cores: Vec<u32>,
    },
    /// By somebody else. CPU time and memory are known by its processes, if they were given.
    Elsewhere { pids: Vec<u32> },
}

/// What lies between the generator and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    Loopback,
    /// Loopback of a namespace of its own, whose receive work is steered to the generator's cores.
    Netns,
    /// A server on another machine.
    Remote,
}

impl Network {
    pub fn name(self) -> &'static str {
        match self {
            Network::Loopback => "loopback",
            Network::Netns => "loopback of a network namespace, receive work steered (RPS)",
            Network::Remote => "network",
        }
    }

    /// What has to be known to read CPU figures.
    pub fn remark(self) -> &'static str {
        match self {
            Network::Loopback => {
                "the receiver's TCP work runs inside the sender's call, on the sender's CPU: \
                 the server's CPU time holds both ends"
            }
            Network::Netns => {
                "the receiver's TCP work runs on the generator's cores, as it would behind a network card: \
                 the server's CPU time holds its own end"
            }
            Network::Remote => "the server's CPU time holds its own end",
        }
    }
}

/// What was asked for. Two results compare if their scenarios are equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// `fanout`, `connect`, `idle`, `slow`, `churn`, `presence`, `latency`.
    pub name: String,
    /// All that shapes the load, defaults included: `channels`, `subscribers`, `data_bytes`, ...
    pub parameters: BTreeMap<String, Value>,
}

/// Whether the figures may be believed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verdict {
    Valid,
    /// Not the server was measured: the generator was saturated or late.
    Invalid {
        why: Vec<String>,
    },
    /// The server broke its promise.
    Failed {
        evidence: Vec<Evidence>,
    },
}

/// One message that was not as it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    pub fault: Fault,
    /// The connection's number within the run.
    pub client: u64,
    pub channel: String,
    /// `sequence 17`, `1,000 messages`.
    pub expected: String,
    /// `sequence 19`, `998 messages`.
    pub seen: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    Lost,
    Repeated,
    Reordered,
    /// A gap that no event announced.
    Unannounced,
    /// A message of another channel or another run.
    Stray,
    /// Bytes that are no message.
    Garbled,
    /// A connection that the server ended.
    Closed,
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Fault::Lost => "lost",
            Fault::Repeated => "repeated",
            Fault::Reordered => "reordered",
            Fault::Unannounced => "unannounced gap",
            Fault::Stray => "stray",
            Fault::Garbled => "garbled",
            Fault::Closed => "connection closed",
        }
    }
}

/// A core that was watched, and who ran on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Core {
    pub number: u32,
    pub role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Server,
    Generator,
    /// Server and generator: there was no other core.
    Shared,
    Other,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Generator => "generator",
            Role::Shared => "server and generator",
            Role::Other => "other",
        }
    }
}

/// One load, offered for some seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub kind: StepKind,
    pub outcome: Outcome,
    /// Since the run began.
    pub began_s: f64,
    /// From the first publish to the last delivery.
    pub lasted_s: f64,
    /// Messages a second, over all channels; none: as fast as they were taken.
    pub offered_per_s: Option<f64>,
    pub channels: u64,
    /// Subscriptions over all channels.
    pub subscribers: u64,
    pub data_bytes: u64,
    /// Written to the server.
    pub published: u64,
    /// Answered with success.
    pub accepted: u64,
    /// Answered with anything else.
    pub refused: u64,
    pub deliveries: u64,
    pub deliveries_per_s: f64,
    /// None where the server's process is not known.
    pub server: Option<ServerCpu>,
    /// The generator's own threads.
    pub generator: Vec<ThreadCpu>,
    /// How late publishes were written, against the schedule.
    pub slip: LatencyHistogram,
    pub latency: Latencies,
    pub disorder: Disorder,
    /// Readers that were told to stall, where there were any.
    pub stalled: Option<Stalled>,
    /// Guests that came and went, where there were any.
    pub churn: Option<Churn>,
    pub timeline: Vec<Second>,
}

/// Why a step was made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StepKind {
    /// On the way to the knee.
    Search,
    /// At the knee, for longer.
    Confirm,
    /// At a load that was given.
    Fixed,
    /// At a share of the knee: 0.1 to 0.95.
    Share { of_knee: f64 },
}

/// Whether a step's load was kept within the scenario's limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    Kept,
    /// By the server: `p99 181 ms, more than 100 ms`.
    Missed {
        why: String,
    },
    /// By the generator: `core 1 was busy for 97 %`.
    Invalid {
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerCpu {
    /// All threads, kernel work inside their calls included.
    pub cpu_us_per_delivery: f64,
    /// Time of the clock, however many threads shared the work.
    pub wall_us_per_delivery: f64,
    /// Shards of outpour; threads of another server.
    pub shards: Vec<ThreadCpu>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThreadCpu {
    /// `shard 0`, `clients 1`, `publisher`.
    pub name: String,
    /// Where it is pinned, if it is.
    pub core: Option<u32>,
    /// Of one core, 0 to 1.
    pub busy_share: f64,
}

/// From the due time of a publish, not from when it left: a stall of the generator or the server is in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latencies {
    /// Of single deliveries, at the clients that decode every frame.
    pub delivery: LatencyHistogram,
    /// Of messages, until their first subscriber has them.
    pub first: LatencyHistogram,
    /// Until half of their subscribers have them.
    pub median: LatencyHistogram,
    /// Until all of them have.
    pub last: LatencyHistogram,
}

/// Deliveries that went wrong. All must be 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disorder {
    /// Accepted and not delivered.
    pub lost: u64,
    pub repeated: u64,
    pub reordered: u64,
    /// Gaps that no event announced.
    pub unannounced: u64,
    /// Frames that are no message of the run.
    pub garbled: u64,
    /// Connections that the server ended.
    pub closed: u64,
}

impl Disorder {
    pub fn is_none(&self) -> bool {
        *self == Disorder::default()
    }

    pub fn add(&mut self, other: &Disorder) {
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.reordered += other.reordered;
        self.unannounced += other.unannounced;
        self.garbled += other.garbled;
        self.closed += other.closed;
    }

    /// Each kind with its name, in the order in which they are shown.
    pub fn kinds(&self) -> [(&'static str, u64); 6] {
        [
            ("lost", self.lost),
            ("repeated", self.repeated),
            ("reordered", self.reordered),
            ("unannounced", self.unannounced),
            ("garbled", self.garbled),
            ("closed", self.closed),
        ]
    }
}

/// Readers that took less than was sent to them; their deliveries are in no other figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stalled {
    pub clients: u64,
    /// Those that the server ended.
    pub closed: u64,
    pub received_bytes: u64,
    /// By how much the server's resident memory had grown for each of them at the end of the run,
    /// its logs included; none where its process is not known.
    #[serde(default)]
    pub server_bytes_each: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    pub joins: u64,
    pub leaves: u64,
    /// Guests that did not get in, or that the server ended.
    pub failures: u64,
    /// From a guest's first packet to its subscription.
    pub joined: LatencyHistogram,
}

/// What happened within a second of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Second {
    /// Its end, since the run began.
    pub at_s: f64,
    pub published: u64,
    pub delivered: u64,
    /// Deliveries that were due and not made by then.
    pub lag_deliveries: u64,
    /// Of the deliveries within it; none without any.
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    /// Of one core, 0 to 1, in the order of [`Results::cores`].
    pub core_busy_shares: Vec<f64>,
}

/// Many connections, as fast as the server takes them. The scenario's `at_once` says how many were on their way at a
/// time; the next one leaves when one of them is subscribed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    pub kind: StormKind,
    pub connections: u64,
    /// Attempts that failed and were made again.
    pub failed: u64,
    pub handshakes_per_s: f64,
    pub all_upgraded_ms: f64,
    /// Until 95 % of them were subscribed: a few whose SYN the kernel had to send again, a second later, are not in it.
    #[serde(default)]
    pub most_subscribed_ms: Option<f64>,
    pub all_subscribed_ms: f64,
    /// From a connection's own SYN to its subscription: what it waited for its turn to leave is not in it.
    pub latency: LatencyHistogram,
    /// Of the server's process, where it is known.
    pub server_cpu_us_per_handshake: Option<f64>,
    /// Of the server's busiest thread, of one core, 0 to 1; none where its processes are not known.
    #[serde(default)]
    pub server_busy_share: Option<f64>,
    /// Of the busiest core of the clients, 0 to 1: their threads on one core are added up. None in results of versions
    /// that did not watch it.
    #[serde(default)]
    pub generator_busy_share: Option<f64>,
    pub progress: Vec<Joined>,
}

impl Storm {
    /// The generator had no time left, so that the server may take more handshakes a second than it was offered. CPU time
    /// of a handshake is right all the same.
    pub fn is_lower_bound(&self) -> bool {
        self.generator_busy_share
            .is_some_and(|share| share > GENERATOR_BUSY_MAX)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StormKind {
    Connect,
    /// All of them dropped and back again.
    Reconnect,
}

impl StormKind {
    pub fn name(self) -> &'static str {
        match self {
            StormKind::Connect => "connect",
            StormKind::Reconnect => "reconnect",
        }
    }
}

/// How far a storm had come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// Since the storm began.
    pub at_ms: f64,
    pub subscribed: u64,
}

/// Memory of connections that do nothing: slopes over several numbers of them, and for the server the growth from none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Slope of the memory of the server's processes, outpour's or a peer's, without pages of files; none where it is not
    /// known.
    pub server_bytes_per_connection: Option<f64>,
    /// The same from the server without any connection to the most of them, for each of these: what its allocator takes
    /// at the first of them is in it.
    #[serde(default)]
    pub server_bytes_per_connection_from_none: Option<f64>,
    /// RSS of the generator's processes.
    pub generator_bytes_per_connection: f64,
    /// Slab of both ends, where both are on this machine and it can be read.
    pub kernel_slab_bytes_per_connection: Option<f64>,
    /// Of the server, while all connections are silent, of one core.
    pub idle_busy_share: Option<f64>,
    pub readings: Vec<MemoryReading>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryReading {
    pub connections: u64,
    pub server_rss_bytes: Option<u64>,
    /// The part of it that is no file's: anonymous and shared memory, the latter divided among its processes.
    #[serde(default)]
    pub server_own_bytes: Option<u64>,
    pub generator_rss_bytes: u64,
    pub kernel_slab_bytes: Option<u64>,
}
