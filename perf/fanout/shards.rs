//! More shards against one, each with as many subscribers: if nothing is shared but the lanes, the
//! CPU time of a delivery stays, and what is added is a letter for each shard and publish.
//!
//! Deliveries a CPU second speak of the shards alone; deliveries a second would speak of the cores,
//! which readers and publisher use too.

use std::io;

use crate::flood::{self, Manner};
use crate::generator::report::Report;
use crate::{Common, Load};

/// What more shards than one are to keep of the deliveries that one makes in a CPU second: 1.8
/// times as many with two shards.
const KEPT_LEAST: f64 = 0.9;

pub fn measure(
    common: &Common,
    load: Load,
    shard_counts: &[usize],
    seconds: u64,
    report: &mut Report,
) -> io::Result<()> {
    let pace = load.per_second;
    report.say(format_args!(
        "shards: {} subscribers each, {} messages a second, {} bytes of data, {seconds} s, on cores {}",
        load.subscribers,
        pace.map_or("as many as are taken".to_owned(), |pace| pace.to_string()),
        common.data_bytes,
        common.server.cores,
    ));
    report.say(
        "shards  CPU us/delivery  deliveries/CPU s  messages/visit  publishes  appends/publish  \
         encodes/publish  letters/publish  wakes/publish  enters/1,000 deliveries",
    );
    let mut first = None;
    for &shards in shard_counts {
        let mut common = common.clone();
        common.server.shards = shards;
        let load = Load {
            subscribers: load.subscribers * shards,
            ..load
        };
        let manner = Manner {
            seconds,
            batch: 1,
            window: 32,
        };
        let run = flood::flood_server(&common, &load, manner)?;
        let grown = |name: &str| run.after.sum(name) - run.before.sum(name);
        let deliveries = run.figures.count.messages.max(1) as f64;
        let publishes = grown("outpour_publishes_total").max(1.0);
        let per_cpu_second = deliveries / (run.figures.cpu_ns / 1e9);
        report.say(format_args!(
            "{shards:>6}  {:>15.3}  {per_cpu_second:>16.0}  {:>14.1}  {publishes:>9}  {:>15.2}  {:>15.2}  {:>15.2}  \
             {:>13.2}  {:>23.3}",
            run.figures.cpu_ns / 1e3 / deliveries,
            grown("outpour_deliveries_total") / grown("outpour_sends_total").max(1.0),
            grown("outpour_appends_total") / publishes,
            grown("outpour_encodes_total") / publishes,
            grown("outpour_letters_total") / publishes,
            grown("outpour_wakes_total") / publishes,
            grown("outpour_enters_total") / deliveries * 1e3,
        ));
        report.say(format_args!("threads: {}", run.threads));
        let of_one = *first.get_or_insert(per_cpu_second);
        let kept = per_cpu_second / of_one;
        let verdict = if kept >= KEPT_LEAST { "met" } else { "MISSED" };
        report.say(format_args!(
            "{shards} shards deliver {:.2} times as much in as many CPU seconds each, at least {:.1}: {verdict}",
            kept * shards as f64,
            KEPT_LEAST * shards as f64,
        ));
    }
    report.say("");
    Ok(())
}
