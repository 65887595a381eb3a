//! What durability costs: acknowledged publishes a second and their delay, without serials, with
//! serials in memory, and with the journal, beside what the disk does in the same run; and how fast
//! a start reads a journal.
//!
//! Each publisher is a connection that publishes one event and waits for its answer, as a back end
//! does that wants to know. So publishers are what one group of the journal can hold.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use outpour::base::metrics::Metrics;
use outpour::edge::journal::record::{Content, Entry, Record};
use outpour::edge::journal::{restore, segment};
use outpour::hub::apps::Apps;
use outpour::hub::letter::Origin;
use outpour::options::channels::Durability;
use outpour::options::{self, ChannelOptions, ChannelPattern};

#[path = "../generator/mod.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod generator;
#[path = "../serving/mod.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod serving;

use generator::Generator;
use generator::report::Report;
use outpour::load::machine;
use outpour::load::publisher::http::Form;
use outpour::load::publisher::schedule::Schedule;
use outpour::load::publisher::{self, Publisher};
use outpour::load::result::LatencyHistogram;
use outpour::load::server::{Server, built_in_app};

/// Records a second that a start is to read.
const READ_LEAST: f64 = 1e6;
/// Records of one segment that is read.
const SEGMENT_RECORDS: u64 = 250_000;
/// Channels that they are spread over.
const CHANNELS: u64 = 100;

/// Measures the journal.
#[derive(Parser)]
struct Options {
    /// Numbers of publishers, each with one event under way.
    #[arg(long, value_delimiter = ',', default_value = "1,16,128")]
    publishers: Vec<usize>,
    /// How long each row is measured.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Records that a start reads.
    #[arg(long, default_value_t = 4_000_000)]
    records: u64,
    /// Where the journals are, on the disk to be measured; by default the directory of builds.
    #[arg(long, default_value = "target")]
    directory: PathBuf,
    #[command(flatten)]
    server: serving::Options,
    #[command(flatten)]
    generator: Generator,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let mut report = options.generator.begin("journal")?;
    let scratch = Scratch::new(&options.directory)?;
    sync_alone(&options, &scratch.0, &mut report)?;
    publish(&options, &scratch.0, &mut report)?;
    read(&options, &scratch.0, &mut report)?;
    report.finish()
}

/// A directory that goes with the run.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> io::Result<Scratch> {
        let path = parent.join(format!("journal-{}", process::id()));
        fs::create_dir_all(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

/// The disk's own rate: a small write and its sync, again and again.
fn sync_alone(options: &Options, scratch: &Path, report: &mut Report) -> io::Result<()> {
    let mut file = File::create(scratch.join("alone"))?;
    let mut delays = delays();
    let end = Instant::now() + Duration::from_secs(options.seconds);
    while Instant::now() < end {
        let start = Instant::now();
        file.write_all(&[b'x'; 300])?;
        file.sync_data()?;
        note(&mut delays, start);
    }
    let rate = delays.len() as f64 / options.seconds as f64;
    report.say(format_args!(
        "the disk alone: {rate:.0} writes of 300 B with a sync each, a second; {}",
        quantiles(&delays)
    ));
    report.say("");
    Ok(())
}

fn publish(options: &Options, scratch: &Path, report: &mut Report) -> io::Result<()> {
    report.say("channels              publishers  acknowledged/s  syncs/s  events/sync  delay");
    let rows: [(&str, &[&str]); 3] = [
        ("without serials", &[]),
        ("serials, in memory", &["--retained-channels", "*"]),
        (
            "on disk",
            &["--retained-channels", "*", "--durability", "disk"],
        ),
    ];
    for publishers in &options.publishers {
        for (name, flags) in rows {
            let directory = scratch.join(format!("{name} {publishers}"));
            let mut server = options.server.clone();
            server.settings = flags.iter().map(|flag| flag.to_string()).collect();
            server.settings.extend([
                "--journal-directory".to_string(),
                directory.display().to_string(),
            ]);
            let server = server.start()?;
            let delays = acknowledged(options, &server, *publishers)?;
            let metrics = server.metrics()?;
            let syncs = metrics.sum("outpour_journal_syncs_total");
            let events = metrics.sum("outpour_journal_events_total");
            let seconds = options.seconds as f64;
            report.say(format_args!(
                "{name:<20}  {publishers:>10}  {:>14.0}  {:>7.0}  {:>11.1}  {}",
                delays.count() as f64 / seconds,
                syncs / seconds,
                events / syncs.max(1.0),
                quantiles(delays.values())
            ));
        }
    }
    report.say("");
    Ok(())
}

/// How long each answer took. Every publisher has a connection and a channel of its own, and one
/// event under way.
fn acknowledged(
    options: &Options,
    server: &Server,
    publishers: usize,
) -> io::Result<LatencyHistogram> {
    let mut publisher = Publisher::start(publisher::Orders {
        core: Some(options.generator.readers_core),
        channels: (0..publishers)
            .map(|number| format!("room-{number}"))
            .collect(),
        event: generator::EVENT.to_owned(),
        data_bytes: 100,
        http: Some(publisher::Http {
            address: server.address,
            form: Form::Pusher {
                prefix: String::new(),
                app: built_in_app(),
                keys: 0,
            },
            connections: publishers,
            window: 1,
            batch: 1,
        }),
        events: None,
    })?;
    let tally = publisher.run(Schedule {
        start_ns: machine::monotonic_ns(),
        per_second: None,
        length_ns: options.seconds * 1_000_000_000,
        channels: publishers as u64,
        publishers: publishers as u64,
    })?;
    match tally.published - tally.accepted {
        0 => Ok(tally.answer),
        refused => Err(io::Error::other(format!(
            "{refused} publishes were not accepted"
        ))),
    }
}

/// How fast a start reads a journal of small events that the page cache holds.
fn read(options: &Options, scratch: &Path, report: &mut Report) -> io::Result<()> {
    let directory = scratch.join("read");
    fs::create_dir_all(&directory)?;
    let names: Vec<String> = (0..CHANNELS)
        .map(|number| format!("room-{number}"))
        .collect();
    let (mut bytes_all, mut first) = (0, 1);
    while first <= options.records {
        let end = (first + SEGMENT_RECORDS).min(options.records + 1);
        let mut bytes = segment::encode_head(first);
        for sequence in first..end {
            let channel = &names[(sequence % CHANNELS) as usize];
            record(sequence, channel).encode(&mut bytes);
        }
        bytes_all += bytes.len();
        fs::write(segment::path(&directory, first), &bytes)?;
        first = end;
    }
    let mut apps = options::Options::default();
    apps.apps[0].channels = vec![ChannelOptions {
        name: ChannelPattern::Prefix(String::new()),
        durability: Durability::Disk,
        ..ChannelOptions::default()
    }];
    apps.journal_directory = Some(directory);
    let numbered = Apps::new(&apps);
    report.say("a start reads      records  bytes each  records/s      MB/s");
    for round in 1..=3 {
        let start = Instant::now();
        let opened = restore::open(&apps, &numbered, 2, &Metrics::default());
        let taken = start.elapsed().as_secs_f64();
        let (_, restored) = opened
            .map_err(io::Error::other)?
            .expect("a journal is named");
        assert_eq!(restored.len() as u64, CHANNELS, "all channels are there");
        report.say(format_args!(
            "round {round}      {:>12}  {:>10.0}  {:>9.0}  {:>8.0}",
            options.records,
            bytes_all as f64 / options.records as f64,
            options.records as f64 / taken,
            bytes_all as f64 / taken / 1e6
        ));
        if round == 3 {
            let rate = options.records as f64 / taken;
            let verdict = if rate > READ_LEAST { "met" } else { "MISSED" };
            report.say(format_args!("at least {READ_LEAST:.0}: {verdict}"));
        }
    }
    Ok(())
}

fn record(sequence: u64, channel: &str) -> Record<'_> {
    Record {
        sequence,
        // The groups have 50 records, as those of a busy server.
        place: ((sequence - 1) % 50) as u32,
        content: Content::Event(Entry {
            app_id: "1001",
            channel,
            epoch: 7,
            serial: sequence / CHANNELS + 1,
            // Of the future, so that none is too old.
            time_ms: u64::MAX / 2,
            origin: Origin::Api,
            name: "\"tick\"",
            data: "\"{\\\"price\\\":1234.5,\\\"size\\\":10}\"",
            user_id: "",
            idempotency_key: "",
        }),
    }
}

fn delays() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are right")
}

fn note(delays: &mut Histogram<u64>, start: Instant) {
    delays.saturating_record((start.elapsed().as_micros() as u64).max(1));
}

fn quantiles(delays: &Histogram<u64>) -> String {
    let ms = |quantile| delays.value_at_quantile(quantile) as f64 / 1e3;
    format!(
        "p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms",
        ms(0.5),
        ms(0.99),
        ms(1.0)
    )
}
