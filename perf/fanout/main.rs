//! What a delivery costs the server: one channel, many subscribers, paced and flooded.
//!
//! Paced rounds alternate with the naked ring of perf/roofline over as many sockets, all of them
//! connected the whole time, and the answer is a ratio. Floods push as much as the server takes,
//! and the answer is CPU time per delivery with nothing lost.

use std::io;
use std::str::FromStr;

use clap::{Parser, Subcommand};

mod flood;
#[path = "../generator/mod.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod generator;
mod paced;
#[path = "../roofline/senders/mod.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod senders;
mod serials;
#[path = "../serving/mod.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod serving;
mod shards;

use generator::Generator;
use outpour::load::clients::Clients;
use outpour::load::machine::monotonic_ns;
use outpour::load::orders::Command;
use outpour::load::publisher::http::{BATCH_MAX, Form};
use outpour::load::publisher::schedule::Schedule;
use outpour::load::publisher::{self, Publisher};
use outpour::load::server::{Server, built_in_app};

/// Measures the server's CPU time per delivery.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    server: serving::Options,
    #[command(flatten)]
    generator: Generator,
    /// The event's data, in bytes.
    #[arg(long, default_value_t = 128)]
    data_bytes: usize,
    /// Connections whose every frame is decoded and checked.
    #[arg(long, default_value_t = 16)]
    sample: usize,
}

#[derive(Clone, Subcommand)]
enum Part {
    /// Each message is a visit to each subscriber; compared with naked sends.
    Paced {
        #[arg(long, value_delimiter = ',', default_value = "2000x20,9000x4")]
        loads: Vec<Load>,
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// Length of a round.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Messages come faster than subscribers can be visited.
    Flood {
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "1000x5000,5000x1500,1000xmax,5000xmax"
        )]
        loads: Vec<Load>,
        /// Length of a flood.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Events in one call.
        #[arg(long, default_value_t = 10)]
        batch: usize,
        /// Calls that may be unanswered at once.
        #[arg(long, default_value_t = 32)]
        window: usize,
        #[command(flatten)]
        common: Common,
    },
    /// The same load on a channel without serials and on one with them, retained; what they cost.
    Serials {
        /// Subscribers of each channel, and messages a second to all of them; from 1,000 messages on
        /// in calls of ten.
        #[arg(long, value_delimiter = ',', default_value = "2000x20,1000x5000")]
        loads: Vec<Load>,
        #[arg(long, default_value_t = 9)]
        rounds: usize,
        /// Length of a round.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
        #[command(flatten)]
        common: Common,
    },
    /// The same load for every shard, with one shard and with more: what they share.
    Shards {
        /// Subscribers of each shard, and messages a second to all of them.
        #[arg(long, value_delimiter = ',', default_value = "2000x20,1000x2000")]
        loads: Vec<Load>,
        #[arg(long, value_delimiter = ',', default_value = "1,2")]
        shard_counts: Vec<usize>,
        /// Length of a run.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        #[command(flatten)]
        common: Common,
    },
}

/// How many subscribers, and how many messages a second; `None` is as many as the server takes.
#[derive(Clone, Copy, Debug)]
struct Load {
    subscribers: usize,
    per_second: Option<f64>,
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Load, String> {
        let wrong = || format!("{text}: SUBSCRIBERSxPER_SECOND or SUBSCRIBERSxmax, please");
        let (subscribers, per_second) = text.split_once('x').ok_or_else(wrong)?;
        Ok(Load {
            subscribers: subscribers.parse().map_err(|_| wrong())?,
            per_second: match per_second {
                "max" => None,
                number => Some(number.parse().map_err(|_| wrong())?),
            },
        })
    }
}

fn main() -> io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some(outpour::load::orders::ROLE) => return outpour::load::clients::serve(),
        Some(senders::ROLE) => return senders::serve(),
        Some(_) | None => {}
    }
    let options = Options::parse();
    let parts = match options.part {
        Some(part) => vec![part],
        None => all_parts(&options.common),
    };
    let common = match &parts[0] {
        Part::Paced { common, .. }
        | Part::Flood { common, .. }
        | Part::Serials { common, .. }
        | Part::Shards { common, .. } => common.clone(),
    };
    let name = match parts.as_slice() {
        [Part::Paced { .. }] => "fanout-paced",
        [Part::Flood { .. }] => "fanout-flood",
        [Part::Serials { .. }] => "fanout-serials",
        [Part::Shards { .. }] => "fanout-shards",
        _ => "fanout",
    };
    let mut report = common.generator.begin(name)?;
    for part in parts {
        match part {
            Part::Paced {
                loads,
                rounds,
                seconds,
                common,
            } => paced::measure(&common, &loads, rounds, seconds, &mut report)?,
            Part::Flood {
                loads,
                seconds,
                batch,
                window,
                common,
            } => {
                let manner = flood::Manner {
                    seconds,
                    batch: batch.clamp(1, BATCH_MAX),
                    window,
                };
                flood::measure(&common, &loads, manner, &mut report)?;
            }
            Part::Serials {
                loads,
                rounds,
                seconds,
                common,
            } => serials::measure(&common, &loads, rounds, seconds, &mut report)?,
            Part::Shards {
                loads,
                shard_counts,
                seconds,
                common,
            } => {
                for load in loads {
                    shards::measure(&common, load, &shard_counts, seconds, &mut report)?;
                }
            }
        }
    }
    report.finish()
}

/// Both parts with the loads of the project's targets.
fn all_parts(common: &Common) -> Vec<Part> {
    let load = |subscribers, per_second| Load {
        subscribers,
        per_second,
    };
    vec![
        Part::Paced {
            loads: vec![load(2_000, Some(20.0)), load(9_000, Some(4.0))],
            rounds: 7,
            seconds: 5,
            common: common.clone(),
        },
        Part::Flood {
            loads: vec![
                load(1_000, Some(5_000.0)),
                load(5_000, Some(1_500.0)),
                load(1_000, None),
                load(5_000, None),
            ],
            seconds: 10,
            batch: BATCH_MAX,
            window: 32,
            common: common.clone(),
        },
    ]
}

/// A server's subscribers, all of them connected.
fn subscribe(common: &Common, server: &Server, clients: usize) -> io::Result<Clients> {
    let channels = generator::shared();
    let (target, sample) = (server.address, common.sample);
    let generator = &common.generator;
    let mut unit =
        generator.start_pusher(target, &built_in_app().key, channels, clients, sample)?;
    unit.carry_out(Command::Open {
        clients,
        per_second: None,
    })?;
    Ok(unit)
}

/// The beginning of a run of messages that carry so many bytes of data each.
fn begin(data_bytes: usize) -> Command {
    Command::Begin {
        frame_bytes: Some(senders::frame_bytes(data_bytes)),
    }
}

/// A back end that publishes over one connection.
fn publisher(
    common: &Common,
    server: &Server,
    batch: usize,
    window: usize,
) -> io::Result<Publisher> {
    publisher_to(generator::CHANNEL, common, server, batch, window)
}

fn publisher_to(
    channel: &str,
    common: &Common,
    server: &Server,
    batch: usize,
    window: usize,
) -> io::Result<Publisher> {
    Publisher::start(publisher::Orders {
        core: Some(common.generator.readers_core),
        channels: vec![channel.to_owned()],
        event: generator::EVENT.to_owned(),
        data_bytes: common.data_bytes,
        http: Some(publisher::Http {
            address: server.address,
            form: Form::Pusher {
                prefix: String::new(),
                app: built_in_app(),
                keys: 0,
            },
            connections: 1,
            window,
            batch,
        }),
        events: None,
    })
}

/// What one publisher sends to one channel, from now on.
fn schedule(per_second: Option<f64>, seconds: f64) -> Schedule {
    Schedule {
        start_ns: monotonic_ns() + 10_000_000,
        per_second,
        length_ns: (seconds * 1e9) as u64,
        channels: 1,
        publishers: 1,
    }
}
