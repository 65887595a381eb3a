//! What a scenario can be told, as flags and as keys of a scenario file.
//!
//! The heading of a flag says what it is about. Those under [`LOAD`] shape the load: two results
//! compare if these are equal.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use crate::load::orders::{CLIENTS_PER_RING, OPENING_MAX};

/// The heading of what shapes the load.
pub const LOAD: &str = "Load";
const SEARCH: &str = "Search";
const TARGET: &str = "Target";
const SERVER: &str = "Embedded server";
const GENERATOR: &str = "Generator";
const OUTPUT: &str = "Output";

/// The longest data that an event of the server may have.
const DATA_BYTES_MAX: u64 = 16 << 20;

/// How many messages a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// The highest that the server keeps within the limits, to be searched.
    Knee,
    /// As many as the server takes.
    Max,
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        match text {
            "knee" => Ok(Rate::Knee),
            "max" => Ok(Rate::Max),
            number => positive(number)
                .map(Rate::PerSecond)
                .map_err(|_| "a number of messages a second, knee or max, please".to_owned()),
        }
    }
}

/// A number greater than 0.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        Ok(_) | Err(_) => Err("a number greater than 0, please".to_owned()),
    }
}

/// A number from 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err("a number from 0 to 1, please".to_owned()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PublishBy {
    /// Calls of the HTTP API.
    Http,
    /// Client events of WebSocket connections that subscribe to nothing else.
    Websocket,
    /// Both, on channels in turn.
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// The Pusher Channels protocol.
    Pusher,
    /// Nothing: connect and read.
    Bytes,
    /// WebSocket and nothing in it; {channel} in the target's path is replaced.
    Plain,
    /// NATS over WebSocket.
    Nats,
    /// MQTT 3.1.1 over WebSocket, messages at most once.
    Mqtt,
    /// socket.io over WebSocket, channels as rooms.
    #[value(name = "socketio")]
    SocketIo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SubscribeBy {
    /// A message after the greeting.
    Message,
    /// The query of the address (outpour alone); private and presence channels by a message.
    Address,
}

/// How many clients decode every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decode {
    All,
    Clients(usize),
}

impl FromStr for Decode {
    type Err = String;

    fn from_str(text: &str) -> Result<Decode, String> {
        match text {
            "all" => Ok(Decode::All),
            number => match number.parse() {
                Ok(0) | Err(_) => Err("a number of clients or all, please".to_owned()),
                Ok(clients) => Ok(Decode::Clients(clients)),
            },
        }
    }
}

/// Who subscribes to what, and what is published.
#[derive(Clone, Debug, Args)]
#[group(skip)]
#[command(next_help_heading = LOAD)]
pub struct Load {
    /// Channels that are published to in turn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub channels: u64,
    /// Subscribers of each channel, a connection each
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub subscribers: u64,
    /// Length of an event's data
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(35..=DATA_BYTES_MAX))]
    pub data_bytes: u64,
    /// How events are published
    #[arg(long, value_enum, default_value_t = PublishBy::Http)]
    pub publish_by: PublishBy,
    /// Connections of each kind that publish. A channel has one of them, so that its order is known
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub publishers: u64,
    /// Events in one HTTP call; it leaves when the last of them is due
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10))]
    pub batch: u64,
    /// HTTP calls that may be unanswered at once, on each connection
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    pub window: u64,
}

/// How a storm comes.
#[derive(Clone, Debug, Args)]
#[group(skip)]
#[command(next_help_heading = LOAD)]
pub struct Haste {
    /// Connections that are on their way at once, from SYN to subscription: the next one leaves when one of them is
    /// subscribed. As many as there are connections is everybody at once
    #[arg(
        long,
        default_value_t = OPENING_MAX as u64,
        value_parser = clap::value_parser!(u64).range(1..=CLIENTS_PER_RING as u64)
    )]
    pub at_once: u64,
}

/// How much is published, and for how long.
#[derive(Clone, Debug, Args)]
#[group(skip)]
#[command(next_help_heading = LOAD)]
pub struct Pace {
    /// Messages a second over all channels: a number, max for as many as are taken, or knee for the
    /// highest that keeps the limits of the search. Several are offered one after the other
    #[arg(long, value_delimiter = ',', default_value = "knee")]
    pub rate: Vec<Rate>,
    /// Length of a measurement; at the knee, of the one that confirms it
    #[arg(long, default_value = "15", value_parser = positive)]
    pub seconds: f64,
    /// What rate max left in the server's queues is waited for so long at most; what is under way then is told, and
    /// not lost [default: as long as something arrives]
    #[arg(long, value_parser = positive)]
    pub drain_seconds: Option<f64>,
}

/// A rate that has to be given.
#[derive(Clone, Debug, Args)]
#[group(skip)]
#[command(next_help_heading = LOAD)]
pub struct FixedPace {
    /// Messages a second over all channels
    #[arg(long, default_value = "20", value_parser = positive)]
    pub rate: f64,
    /// Length of a measurement
    #[arg(long, default_value = "10", value_parser = positive)]
    pub seconds: f64,
}

/// How the knee is searched.
#[derive(Clone, Debug, Args)]
#[group(skip)]
#[command(next_help_heading = SEARCH)]
pub struct Search {
    /// p99 of deliveries that still counts as kept, in milliseconds
    #[arg(long, default_value = "100", value_parser = positive)]
    pub p99_ms_max: f64,
    /// Length of a step on the way
    #[arg(long, default_value = "3", value_parser = positive)]
    pub step_seconds: f64,
    /// The first rate that is tried [default: 200,000 deliveries a second]
    #[arg(long, value_parser = positive)]
    pub from_rate: Option<f64>,
    /// Each rate is so many times the one before, until one is not kept
    #[arg(long, default_value = "2", value_parser = positive)]
    pub factor: f64,
    /// The search ends when the next higher rate that was not kept is at most so many times the knee
    #[arg(long, default_value = "1.1", value_parser = positive)]
    pub precision: f64,
    /// A second search, for the highest rate at which nothing is lost and p99 stays below so many milliseconds; 0 for none
    #[arg(long, default_value = "500")]
    pub sustained_p99_ms_max: f64,
}

/// Where the load goes.
#[derive(Clone, Debug, Args)]
#[group(skip)]
#[command(next_help_heading = TARGET)]
pub struct Target {
    /// A server that runs already, ws://host:port[/path]; without it, one is started
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
    /// What the target speaks
    #[arg(long, value_enum, default_value_t = Dialect::Pusher)]
    pub dialect: Dialect,
    /// How clients of the pusher dialect ask for the channel that they open with
    #[arg(long, value_enum, default_value_t = SubscribeBy::Message)]
    pub subscribe_by: SubscribeBy,
    /// Where events are published, http://host:port[/path] [default: the target's HTTP API]. For
    /// another dialect than pusher it takes the data as the body of a POST; {channel} in it is replaced
    #[arg(long, value_name = "URL")]
    pub publish: Option<String>,
    /// The body of a publish where the dialect is not pusher; {data} and {channel} in it are replaced
    #[arg(long, value_name = "TEXT", default_value = "{data}")]
    pub publish_body: String,
    #[arg(long, default_value = "1001")]
    pub app_id: String,
    #[arg(long, default_value = "app-key")]
    pub app_key: String,
    #[arg(long, default_value = "app-secret")]
    pub app_secret: String,
    /// The target's processes, if it is on this machine: their CPU time and memory are shown
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub pid: Vec<u32>,
    /// What to call the target in reports
    #[arg(long)]
    pub name: Option<String>,
}

/// The server that is started if there is no target.
#[derive(Clone, Debug, Args)]
#[group(skip)]
#[command(next_help_heading = SERVER)]
pub struct Server {
    /// Its cores [default: the first half of those of this machine]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub server_cores: Vec<usize>,
    /// Its shards [default: one for each of its cores]
    #[arg(long)]
    pub shards: Option<usize>,
    /// Run it, and the generator, in a network namespace of their own, whose loopback has received
    /// packets processed on the generator's cores, as a network card would. Needs root
    #[arg(long, conflicts_with = "target")]
    pub netns: bool,
    /// A setting of the server, as in its file; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub set: Vec<(String, String)>,
}

/// The generator's own means.
#[derive(Clone, Debug, Args)]
#[group(skip)]
#[command(next_help_heading = GENERATOR)]
pub struct Generator {
    /// Its cores [default: those that the server has not]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub generator_cores: Vec<usize>,
    /// Local addresses to connect from [default: 127.0.0.2 and up for a target on loopback]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub sources: Vec<IpAddr>,
    /// Clients that decode every frame and check the order: a number or all. The others count: a message that one of
    /// them lacks or gets twice is seen, and not a wrong order, nor one that it lacks while another came twice
    #[arg(long, default_value = "64")]
    pub sample: Decode,
    /// For tests of the watch over itself: the clients' first unit stands still for so long, once
    #[arg(long, hide = true, default_value_t = 0)]
    pub freeze_ms: u64,
}

/// What is shown and kept.
#[derive(Clone, Debug, Args)]
#[group(skip)]
#[command(next_help_heading = OUTPUT)]
pub struct Output {
    /// Keep all figures as JSON; - is standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Keep the latencies as HdrHistogram's text
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Keep a report with plots: one HTML file that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// What has to hold for exit status 0: 'p99<50ms,lost=0'
    #[arg(long, value_name = "LIST")]
    pub require: Option<String>,
    /// Show no live view
    #[arg(long)]
    pub quiet: bool,
}

/// All that every scenario takes.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Common {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub server: Server,
    #[command(flatten)]
    pub generator: Generator,
    #[command(flatten)]
    pub output: Output,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("NAME=VALUE, please".to_owned()),
    }
}
