//! From what was counted to a [`Step`]: what was lost, how late the rest was, and whether the
//! figures may be believed.

use super::saturation::{self, Conduct};
use super::step::Offer;
use crate::load::orders::{self, Count, Receipts, Wrong};
use crate::load::publisher::schedule::{Place, Schedule};
use crate::load::publisher::{OfChannel, Tally};
use crate::load::result::{
    Churn, Disorder, Evidence, Fault, Latencies, LatencyHistogram, Outcome, Second, ServerCpu,
    Stalled, Step, StepKind, ThreadCpu,
};

/// All that is known of a step when its last message has arrived.
pub struct Observed<'a> {
    pub offer: &'a Offer,
    pub schedule: &'a Schedule,
    pub began_s: f64,
    pub drained_ns: u64,
    /// Deliveries still arrived when the time for it was up.
    pub is_given_up: bool,
    pub is_embedded: bool,
    pub subscribers: u64,
    pub data_bytes: u64,
    pub publisher_core: Option<usize>,
    pub tally: &'a Tally,
    pub count: &'a Count,
    pub server_cpu_ns: Option<u64>,
    pub server_threads: Vec<(String, f64)>,
    pub timeline: Vec<Second>,
    /// How long clients took to say how far they are.
    pub answers: &'a LatencyHistogram,
}

/// A step, and what it means for the run.
#[derive(Clone, Debug)]
pub struct Measured {
    pub step: Step,
    /// What the server did wrong that no load excuses.
    pub evidence: Vec<Evidence>,
    /// Nothing but p99 was missed, and that by little: another try may keep it.
    pub is_near: bool,
}

/// p99 beyond its limit by less than this factor may be the noise of a machine.
const NEAR: f64 = 1.5;

impl Measured {
    pub fn is_kept(&self) -> bool {
        self.step.outcome == Outcome::Kept
    }

    /// Why the generator was not fit, if it was not.
    pub fn invalid(&self) -> Option<&str> {
        match &self.step.outcome {
            Outcome::Invalid { why } => Some(why),
            Outcome::Kept | Outcome::Missed { .. } => None,
        }
    }
}

pub fn conclude(seen: &Observed<'_>) -> Measured {
    let (tally, count) = (seen.tally, seen.count);
    let latency = latencies(seen);
    let last_ns = count
        .receipts
        .iter()
        .filter_map(|receipts| receipts.last_ns.0.iter().max())
        .max()
        .copied()
        // What was given up has arrived at some and not at all of them.
        .filter(|last_ns| *last_ns > seen.schedule.start_ns && !seen.is_given_up)
        .unwrap_or(seen.drained_ns);
    let lasted_s = last_ns.saturating_sub(seen.schedule.start_ns).max(1) as f64 / 1e9;
    let deliveries = count.messages;
    let disorder = disorder(seen);
    let generator_reasons = saturation::reasons(&Conduct {
        clients: &count.threads,
        publisher_busy_share: busy_share(tally),
        publisher_core: seen.publisher_core,
        slip: &tally.slip,
        answers: seen.answers,
        p99_us: latency.delivery.quantile_us(0.99),
    });
    let evidence = evidence(seen, &disorder);
    let outcome = outcome(seen, &latency, &disorder, &generator_reasons);
    let is_near = is_near(seen, &latency, &disorder);
    let step = Step {
        kind: seen.offer.kind,
        outcome,
        began_s: seen.began_s,
        lasted_s,
        offered_per_s: seen.offer.per_second,
        channels: seen.schedule.channels,
        subscribers: seen.subscribers,
        data_bytes: seen.data_bytes,
        published: tally.published,
        accepted: tally.accepted,
        refused: tally.refused + tally.failed,
        deliveries,
        deliveries_per_s: deliveries as f64 / lasted_s,
        server: seen.server_cpu_ns.map(|cpu_ns| ServerCpu {
            cpu_us_per_delivery: cpu_ns as f64 / 1e3 / deliveries.max(1) as f64,
            wall_us_per_delivery: lasted_s * 1e6 / deliveries.max(1) as f64,
            shards: server_threads(seen),
        }),
        generator: generator_threads(seen),
        slip: tally.slip.clone(),
        latency,
        disorder,
        stalled: (count.stalled.clients > 0).then_some(Stalled {
            clients: count.stalled.clients,
            closed: count.stalled.closed,
            received_bytes: count.stalled.bytes,
            server_bytes_each: None,
        }),
        churn: (count.churn.joins + count.churn.leaves + count.churn.failures > 0).then(|| Churn {
            joins: count.churn.joins,
            leaves: count.churn.leaves,
            failures: count.churn.failures,
            joined: count.churn.opened.clone(),
        }),
        timeline: seen.timeline.clone(),
    };
    let is_excused = match seen.offer.kind {
        StepKind::Search => !seen.is_embedded || is_lost_to_closed_alone(seen),
        StepKind::Confirm => is_lost_to_closed_alone(seen),
        StepKind::Fixed | StepKind::Share { .. } => false,
    };
    let evidence = match is_excused {
        // A peer that drops under a load that is too much has missed it, and so has our own server where
        // it ends clients that read too slowly. What no load excuses is disorder in what is delivered.
        true => evidence
            .into_iter()
            .filter(|evidence| is_disorder(evidence.fault))
            .collect(),
        false => evidence,
    };
    Measured {
        step,
        evidence,
        is_near,
    }
}

fn is_near(seen: &Observed<'_>, latency: &Latencies, disorder: &Disorder) -> bool {
    let tally = seen.tally;
    let is_whole = disorder.is_none() && tally.accepted == tally.published;
    let is_all_out = seen.schedule.messages() == Some(tally.published);
    let limits = seen
        .offer
        .p99_ms_max
        .zip(latency.delivery.quantile_us(0.99));
    let is_by_little = limits.is_some_and(|(p99_ms_max, p99_us)| {
        p99_us as f64 > p99_ms_max * 1e3 && p99_us as f64 <= NEAR * p99_ms_max * 1e3
    });
    is_whole && is_all_out && is_by_little
}

/// Whether all that is missing is missing at clients that the server ended.
fn is_lost_to_closed_alone(seen: &Observed<'_>) -> bool {
    let mut receipts = seen.count.receipts.iter();
    let lacks_nothing = |receipts: &Receipts| {
        receipts
            .reached
            .lacking(of_channel(seen, receipts).accepted)
            == 0
    };
    seen.count.closed > 0 && receipts.all(lacks_nothing)
}

fn is_disorder(fault: Fault) -> bool {
    match fault {
        Fault::Repeated | Fault::Reordered | Fault::Stray | Fault::Garbled => true,
        Fault::Lost | Fault::Unannounced | Fault::Closed => false,
    }
}

/// Deliveries that were due: every accepted message, once for each subscriber of its channel.
fn expected(seen: &Observed<'_>) -> u64 {
    seen.tally.accepted * per_channel(seen)
}

/// Deliveries that were due and were not made. Client by client: what one got twice makes up for nothing that another
/// lacks, as it would in a sum.
fn missing(seen: &Observed<'_>) -> u64 {
    let (mut there, mut due, mut lacking, mut clients_max) = (0, 0, 0, 0);
    for receipts in &seen.count.receipts {
        let accepted = of_channel(seen, receipts).accepted;
        there += receipts.clients;
        due += receipts.clients * accepted;
        lacking += receipts.lacking(accepted);
        clients_max = clients_max.max(receipts.clients);
    }
    // Those that were gone before the load began lack all of it.
    if there < seen.subscribers {
        lacking += expected(seen).saturating_sub(due);
    }
    // A message that was taken back was for all clients of one channel, nobody knows of which.
    lacking.saturating_sub(seen.tally.taken_back * clients_max)
}

/// What became of the messages that these are the receipts of.
fn of_channel(seen: &Observed<'_>, receipts: &Receipts) -> OfChannel {
    let channels = &seen.tally.channels;
    let channel = channels.get(receipts.channel as usize);
    channel.copied().unwrap_or_default()
}

/// Clients whose bytes are no whole number of messages. While more arrives, any may be in the middle of one.
fn uneven(seen: &Observed<'_>) -> u64 {
    match seen.is_given_up {
        true => 0,
        false => seen.count.uneven,
    }
}

fn per_channel(seen: &Observed<'_>) -> u64 {
    seen.subscribers / seen.schedule.channels.max(1)
}

fn disorder(seen: &Observed<'_>) -> Disorder {
    let (count, order) = (seen.count, &seen.count.order);
    Disorder {
        lost: match seen.is_given_up {
            true => 0,
            false => missing(seen),
        },
        repeated: order.repeated + surplus(seen),
        reordered: order.reordered,
        unannounced: match is_every_gap_explained(seen) {
            true => 0,
            false => order.missing,
        },
        garbled: order.strays + order.faults + uneven(seen),
        closed: count.closed,
    }
}

/// Deliveries that nobody published, client by client: more than may have been accepted on its channel.
/// What the sample saw twice is not among them: it is told as such already.
fn surplus(seen: &Observed<'_>) -> u64 {
    let receipts = seen.count.receipts.iter();
    receipts
        .map(|receipts| receipts.surplus(of_channel(seen, receipts).possible()))
        .sum()
}

/// A message that was refused is missing by right.
fn is_every_gap_explained(seen: &Observed<'_>) -> bool {
    let tally = seen.tally;
    if seen.count.order.missing == 0 {
        return true;
    }
    let not_accepted = tally.refused + tally.failed + tally.unanswered;
    let gaps = seen.count.order.evidence.iter();
    not_accepted > 0
        && seen.count.order.missing <= not_accepted * seen.count.order.clients
        && gaps
            .filter(|evidence| evidence.what == Wrong::Gap)
            .all(|evidence| is_explained(seen, evidence))
}

fn is_explained(seen: &Observed<'_>, evidence: &orders::Evidence) -> bool {
    if seen.tally.unanswered > 0 {
        return true;
    }
    let channel = channel_number(&evidence.channel);
    (evidence.expected..evidence.seen).all(|sequence| {
        seen.tally
            .not_accepted
            .contains(&Place { channel, sequence })
    })
}

/// `fan-0000017` is channel 17; without a number there is but channel 0.
fn channel_number(name: &str) -> u64 {
    name.rsplit_once('-')
        .and_then(|(_, number)| number.parse().ok())
        .unwrap_or(0)
}

fn evidence(seen: &Observed<'_>, disorder: &Disorder) -> Vec<Evidence> {
    let count = seen.count;
    let mut all: Vec<Evidence> = Vec::new();
    for evidence in &count.order.evidence {
        let fault = match evidence.what {
            Wrong::Gap if disorder.unannounced == 0 => continue,
            Wrong::Gap => Fault::Unannounced,
            Wrong::Repeat => Fault::Repeated,
            Wrong::Reorder => Fault::Reordered,
            Wrong::Stray => Fault::Stray,
            Wrong::Fault => Fault::Garbled,
            Wrong::Closed => Fault::Closed,
        };
        let words = evidence
            .words
            .as_ref()
            .map_or(String::new(), |words| format!(": {words}"));
        all.push(Evidence {
            fault,
            client: evidence.client,
            channel: evidence.channel.clone(),
            expected: format!("sequence {}", evidence.expected),
            seen: format!("sequence {}{words}", evidence.seen),
        });
    }
    let range = format!(
        "{} deliveries; the client with the fewest got {}, the one with the most {}",
        count.messages, count.messages_min, count.messages_max
    );
    let mut of_all = |fault: Fault, expected: String, seen: String| {
        all.push(Evidence {
            fault,
            client: 0,
            channel: "all channels".to_owned(),
            expected,
            seen,
        });
    };
    if disorder.lost > 0 {
        of_all(
            Fault::Lost,
            format!("{} deliveries", expected(seen)),
            format!("{} lacking in {range}", disorder.lost),
        );
    }
    let surplus = surplus(seen);
    if surplus > 0 {
        of_all(
            Fault::Repeated,
            format!("{} deliveries", expected(seen)),
            format!("{surplus} too many in {range}"),
        );
    }
    let uneven = uneven(seen);
    if uneven > 0 {
        of_all(
            Fault::Garbled,
            "whole messages".to_owned(),
            format!("{uneven} clients whose bytes are no whole number of messages"),
        );
    }
    if count.closed > 0 {
        let words = count.last_words.as_deref().unwrap_or("nothing was said");
        of_all(
            Fault::Closed,
            "open connections".to_owned(),
            format!("{} that the server ended: {words}", count.closed),
        );
    }
    all
}

/// Whether the load was kept. The generator is looked at first: if it was not fit, the server may
/// have been better than it looked, never worse, so only a limit that was kept stands.
fn outcome(
    seen: &Observed<'_>,
    latency: &Latencies,
    disorder: &Disorder,
    generator: &[String],
) -> Outcome {
    let tally = seen.tally;
    let is_search = matches!(seen.offer.kind, StepKind::Search);
    let mut missed = Vec::new();
    if let (Some(p99_ms_max), Some(p99_us)) =
        (seen.offer.p99_ms_max, latency.delivery.quantile_us(0.99))
        && p99_us as f64 > p99_ms_max * 1e3
    {
        let p99_ms = p99_us as f64 / 1e3;
        missed.push(format!("p99 {p99_ms:.0} ms, more than {p99_ms_max:.0} ms"));
    }
    if seen
        .schedule
        .messages()
        .is_some_and(|all| tally.published < all)
    {
        missed.push("deliveries fell too far behind the schedule".to_owned());
    }
    if !generator.is_empty() && (!is_search || !missed.is_empty()) {
        return Outcome::Invalid {
            why: generator.join("; "),
        };
    }
    let mut counted = |count: u64, what: &str| {
        if count > 0 {
            missed.push(format!("{count} {what}"));
        }
    };
    if seen.schedule.per_second.is_some() {
        counted(tally.refused, "publishes refused");
    }
    counted(tally.unanswered, "publishes not answered");
    counted(disorder.lost, "deliveries lost");
    counted(disorder.repeated, "deliveries repeated");
    counted(disorder.reordered, "deliveries out of order");
    counted(disorder.unannounced, "deliveries missing without notice");
    counted(disorder.garbled, "frames garbled");
    counted(disorder.closed, "connections ended by the server");
    if tally.failed > 0 {
        let words = tally.failure.as_deref().unwrap_or("no reason given");
        missed.push(format!("{} publishes failed: {words}", tally.failed));
    }
    if seen.is_given_up {
        let (missing, seconds) = (missing(seen), seen.offer.drain_seconds.unwrap_or(0.0));
        missed.push(format!(
            "{missing} deliveries were under way {seconds} s after the last publish"
        ));
    }
    match missed.is_empty() {
        true => Outcome::Kept,
        false => Outcome::Missed {
            why: missed.join("; "),
        },
    }
}

fn latencies(seen: &Observed<'_>) -> Latencies {
    let mut latencies = Latencies {
        delivery: seen.count.deliveries.clone(),
        ..Latencies::default()
    };
    for receipts in &seen.count.receipts {
        for (message, due_ns) in due_times(seen, receipts).enumerate() {
            if due_ns == 0 {
                continue;
            }
            let note = |histogram: &mut LatencyHistogram, column: &[u64]| {
                if let Some(at_ns) = column.get(message).filter(|at_ns| **at_ns > 0) {
                    histogram.record_us(at_ns.saturating_sub(due_ns) / 1_000);
                }
            };
            note(&mut latencies.first, &receipts.first_ns.0);
            note(&mut latencies.median, &receipts.median_ns.0);
            note(&mut latencies.last, &receipts.last_ns.0);
        }
    }
    latencies
}

/// When the messages of a channel were due: by the schedule, as long as all of them were accepted;
/// otherwise as the sample read it.
fn due_times<'a>(
    seen: &'a Observed<'_>,
    receipts: &'a Receipts,
) -> Box<dyn Iterator<Item = u64> + 'a> {
    let tally = seen.tally;
    let is_whole = tally.accepted == tally.published && seen.schedule.per_second.is_some();
    match is_whole {
        true => {
            let messages = receipts.first_ns.0.len() as u64;
            let channels = seen.schedule.channels;
            let due = move |message| seen.schedule.due_ns(message * channels + receipts.channel);
            Box::new((0..messages).map(due))
        }
        false => Box::new(receipts.due_ns.0.iter().copied()),
    }
}

fn busy_share(tally: &Tally) -> f64 {
    tally.cpu_ns as f64 / (tally.wall_ns as f64).max(1.0)
}

/// Threads by name, those of outpour that are no shard left out where there are shards.
fn server_threads(seen: &Observed<'_>) -> Vec<ThreadCpu> {
    let is_shard = |name: &str| name.starts_with("shard-");
    let has_shards = seen.server_threads.iter().any(|(name, _)| is_shard(name));
    let threads = seen.server_threads.iter();
    threads
        .filter(|(name, _)| !has_shards || is_shard(name))
        .map(|(name, busy_share)| ThreadCpu {
            name: name.replace("shard-", "shard "),
            core: None,
            busy_share: *busy_share,
        })
        .collect()
}

fn generator_threads(seen: &Observed<'_>) -> Vec<ThreadCpu> {
    let mut threads: Vec<ThreadCpu> = seen
        .count
        .threads
        .iter()
        .enumerate()
        .map(|(number, thread)| ThreadCpu {
            name: format!("clients {number}"),
            core: Some(thread.core as u32),
            busy_share: saturation::busy_share(thread),
        })
        .collect();
    threads.push(ThreadCpu {
        name: "publisher".to_owned(),
        core: seen.publisher_core.map(|core| core as u32),
        busy_share: busy_share(seen.tally),
    });
    threads
}

#[cfg(test)]
mod tests;
