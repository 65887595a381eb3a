//! The outcome of a run in plain words, for the table and the report alike.

use crate::load::result::{
    LatencyHistogram, Memory, Outcome, Results, Step, Storm, StormKind, Verdict,
};

use super::numbers;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    pub tone: Tone,
    /// One word or a few: `valid`.
    pub headline: String,
    pub sentences: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// The figures stand.
    Good,
    /// They say nothing about the server.
    Doubtful,
    /// The server broke its promise.
    Bad,
}

/// Pieces of evidence that are told; the file has all of them.
const EVIDENCE_TOLD: usize = 8;
/// What is said where a knee was to be found.
pub const NO_KNEE: &str = "No knee was found: no rate was kept and confirmed.";
const NO_SHARES: &str = "Without it there are no shares of it to measure.";
/// A knee whose p99 is to so much one lap over the subscribers is bounded by that.
const LAP_SHARE: f64 = 0.66;

pub fn words(results: &Results) -> Words {
    match &results.verdict {
        Verdict::Valid => Words {
            tone: Tone::Good,
            headline: "valid".to_owned(),
            sentences: findings(results),
        },
        Verdict::Invalid { why } => Words {
            tone: Tone::Doubtful,
            headline: "invalid: generator saturated".to_owned(),
            sentences: [
                "The load generator did not keep up, so this run says nothing about the server."
                    .to_owned(),
            ]
            .into_iter()
            .chain(why.iter().map(|why| sentence(why)))
            .collect(),
        },
        Verdict::Failed { evidence } => {
            let disorder: Vec<String> = results
                .disorder()
                .kinds()
                .iter()
                .filter(|(_, count)| *count > 0)
                .map(|(kind, count)| format!("{} {kind}", numbers::count(*count)))
                .collect();
            let mut sentences = vec![match disorder.is_empty() {
                true => "The server broke its promise.".to_owned(),
                false => format!("The server broke its promise: {}.", disorder.join(", ")),
            }];
            sentences.extend(evidence.iter().take(EVIDENCE_TOLD).map(|evidence| {
                format!(
                    "Client {} on channel {}, {}: expected {}, saw {}.",
                    numbers::count(evidence.client),
                    evidence.channel,
                    evidence.fault.name(),
                    evidence.expected,
                    evidence.seen
                )
            }));
            if evidence.len() > EVIDENCE_TOLD {
                sentences.push(format!(
                    "{} more pieces of evidence are in the result's file.",
                    numbers::count((evidence.len() - EVIDENCE_TOLD) as u64)
                ));
            }
            sentences.extend(failed_attempts(results));
            Words {
                tone: Tone::Bad,
                headline: "failed".to_owned(),
                sentences,
            }
        }
    }
}

/// Whether figures of the run may be shown.
pub fn is_measured(results: &Results) -> bool {
    match results.verdict {
        Verdict::Valid | Verdict::Failed { .. } => true,
        Verdict::Invalid { .. } => false,
    }
}

/// Whether figures of a step may be shown.
pub fn has_figures(results: &Results, step: &Step) -> bool {
    let is_step_measured = match step.outcome {
        Outcome::Kept | Outcome::Missed { .. } => true,
        Outcome::Invalid { .. } => false,
    };
    is_step_measured && is_measured(results)
}

fn findings(results: &Results) -> Vec<String> {
    let mut sentences = Vec::new();
    match results.knee.and_then(|knee| results.steps.get(knee)) {
        Some(knee) => {
            sentences.push(kept(&results.target.name, knee));
            sentences.push(within(knee));
            sentences.extend(beyond(results, knee));
            match results.knee_is_lower_bound {
                true => sentences.push(
                    "The generator could offer no more: the server's knee may be higher."
                        .to_owned(),
                ),
                false => sentences.extend(lap(results, knee)),
            }
        }
        None => {
            if results.is_knee_missing() {
                sentences.push(NO_KNEE.to_owned());
                if results.scenario.name == "latency" {
                    sentences.push(NO_SHARES.to_owned());
                }
            }
            if !results.steps.is_empty() {
                sentences.push(without_knee(results));
            }
        }
    }
    if let Some(step) = results.sustained.and_then(|step| results.steps.get(step)) {
        sentences.push(sustained(step));
        if results.sustained_is_lower_bound {
            sentences.push(
                "The generator could offer no more: the server may sustain a higher rate."
                    .to_owned(),
            );
        }
    }
    sentences.extend(results.storms.iter().map(of_storm));
    sentences.extend(failed_attempts(results));
    sentences.extend(results.memory.as_ref().map(of_memory));
    sentences
}

fn kept(name: &str, step: &Step) -> String {
    let rate = step
        .offered_per_s
        .unwrap_or(step.accepted as f64 / step.lasted_s.max(1e-9));
    let channels = match step.channels {
        1 => "of one channel".to_owned(),
        channels => format!("on {} channels", numbers::count(channels)),
    };
    format!(
        "{name} kept {} messages a second for {} subscribers {channels}: {} deliveries a second.",
        numbers::decimal(rate),
        numbers::count(step.subscribers),
        numbers::large(step.deliveries_per_s)
    )
}

fn within(step: &Step) -> String {
    let order = match step.disorder.is_none() {
        true => "nothing was lost, repeated or reordered",
        false => "not all of them as they should be",
    };
    match step.latency.delivery.quantile_us(0.99) {
        Some(p99_us) => format!(
            "99 % of them came within {} of the time that their publish was due; {order}.",
            numbers::duration_us(p99_us as f64)
        ),
        None => sentence(order),
    }
}

/// What ended the search: the lowest load above the knee that was not kept. Where both were at fault there, at one time and
/// another, it was the server.
fn beyond(results: &Results, knee: &Step) -> Option<String> {
    let failed = results.steps.iter().filter_map(|step| {
        let rate = step
            .offered_per_s
            .filter(|rate| Some(*rate) > knee.offered_per_s)?;
        match &step.outcome {
            Outcome::Kept => None,
            Outcome::Missed { why } => Some((rate, false, why)),
            Outcome::Invalid { why } => Some((rate, true, why)),
        }
    });
    let (rate, is_generators_fault, why) =
        failed.min_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)))?;
    let rate = numbers::decimal(rate);
    Some(match is_generators_fault {
        true => format!("{rate} a second were too many for the generator: {why}."),
        false => format!("{rate} a second were too many: {why}."),
    })
}

/// Where a single message takes most of the limit from its first subscriber to its last, the knee is a matter of that lap
/// over the subscribers and of the machine's noise, and not of the load.
fn lap(results: &Results, knee: &Step) -> Option<String> {
    let steps = results.steps.iter();
    let searched = steps.filter(|step| step.offered_per_s.is_some());
    let lowest = searched.min_by(|one, other| {
        let rate = |step: &Step| step.offered_per_s.unwrap_or(f64::INFINITY);
        rate(one).total_cmp(&rate(other))
    })?;
    let median_us = |latency: &LatencyHistogram| latency.quantile_us(0.5);
    let lap_us = median_us(&lowest.latency.last)?.saturating_sub(median_us(&lowest.latency.first)?);
    let is_missed_by_p99 = results.steps.iter().any(|step| {
        let is_above = step.offered_per_s > knee.offered_per_s;
        is_above && step.disorder.is_none() && step.outcome != Outcome::Kept
    });
    let p99_us = knee.latency.delivery.quantile_us(0.99)?;
    (is_missed_by_p99 && lap_us as f64 >= LAP_SHARE * p99_us as f64).then(|| {
        format!(
            "It is bounded by one lap over the subscribers: a message on its own is at the last of them {} after the first.",
            numbers::duration_us(lap_us as f64)
        )
    })
}

fn sustained(step: &Step) -> String {
    let p99_us = step.latency.delivery.quantile_us(0.99).unwrap_or(0);
    format!(
        "With nothing lost {} messages a second were sustained, {} deliveries a second, 99 % of them within {}.",
        numbers::decimal(step.offered_per_s.unwrap_or(0.0)),
        numbers::large(step.deliveries_per_s),
        numbers::duration_us(p99_us as f64)
    )
}

fn without_knee(results: &Results) -> String {
    let kept = results
        .steps
        .iter()
        .filter(|step| step.outcome == Outcome::Kept)
        .count();
    let order = match results.disorder().is_none() {
        true => "nothing was lost, repeated or reordered",
        false => "not everything arrived as it should",
    };
    match (results.steps.as_slice(), kept) {
        ([step], 1) => format!(
            "{} {}",
            self::kept(&results.target.name, step),
            within(step)
        ),
        (steps, kept) => format!("{kept} of {} loads were kept; {order}.", steps.len()),
    }
}

fn of_storm(storm: &Storm) -> String {
    let done = match storm.kind {
        StormKind::Connect => "were connected and subscribed",
        StormKind::Reconnect => "that were dropped were back and subscribed",
    };
    let rate = numbers::decimal(storm.handshakes_per_s);
    let rate = match storm.generator_busy_share {
        Some(share) if storm.is_lower_bound() => format!(
            "at least {rate} handshakes a second, for the generator's core was {} busy{}",
            numbers::share(share),
            storm
                .server_busy_share
                .map_or_else(String::new, |share| format!(
                    " (the server's busiest thread {})",
                    numbers::share(share)
                ))
        ),
        Some(_) | None => format!("{rate} handshakes a second"),
    };
    format!(
        "{} connections {done} after {}: {rate}.",
        numbers::count(storm.connections),
        numbers::duration_us(storm.all_subscribed_ms * 1e3),
    )
}

/// What came to nothing and lost no message: it fails no run, and nobody shall have to look for it.
fn failed_attempts(results: &Results) -> Vec<String> {
    let of_storms: u64 = results.storms.iter().map(|storm| storm.failed).sum();
    let guests = results.steps.iter().filter_map(|step| step.churn.as_ref());
    let of_guests: u64 = guests.map(|churn| churn.failures).sum();
    let told = [
        (of_storms, "attempts to connect failed and were made again."),
        (
            of_guests,
            "times a guest failed: it did not get in, or the server ended it.",
        ),
    ];
    let told = told.iter().filter(|(count, _)| *count > 0);
    told.map(|(count, what)| format!("{} {what}", numbers::count(*count)))
        .collect()
}

fn of_memory(memory: &Memory) -> String {
    let shares = [
        (memory.server_bytes_per_connection, "of the server"),
        (
            memory.server_bytes_per_connection_from_none,
            "of the server with what it takes for the first of them",
        ),
        (
            memory.kernel_slab_bytes_per_connection,
            "of the kernel for both ends",
        ),
        (
            Some(memory.generator_bytes_per_connection),
            "of the generator",
        ),
    ];
    let shares: Vec<String> = shares
        .iter()
        .filter_map(|(bytes, whose)| {
            bytes.map(|bytes| format!("{} {whose}", numbers::bytes(bytes)))
        })
        .collect();
    format!("An idle connection takes {}.", shares.join(", "))
}

fn sentence(text: &str) -> String {
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{}{end}", capital(text))
}

/// The same text with its first letter large.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|first| first.to_uppercase().collect::<String>());
    format!("{}{}", first.unwrap_or_default(), letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::result::samples;

    fn told(results: &Results) -> String {
        let words = words(results);
        format!(
            "{:?} {}\n{}",
            words.tone,
            words.headline,
            words.sentences.join("\n")
        )
    }

    #[test]
    fn a_knee_is_told_with_what_lies_beyond_it() {
        let expected = "\
Good valid
outpour 0.1.0 kept 1,200 messages a second for 10,000 subscribers of one channel: 11.9 million deliveries a second.
99 % of them came within 70.5 ms of the time that their publish was due; nothing was lost, repeated or reordered.
1,400 a second were too many: p99 189 ms, more than 100 ms.";
        assert_eq!(told(&samples::fanout()), expected);
    }

    #[test]
    fn storms_and_memory_are_told() {
        let expected = "\
Good valid
10,000 connections were connected and subscribed after 812 ms: 12,315 handshakes a second.
10,000 connections that were dropped were back and subscribed after 655 ms: 15,267 handshakes a second.";
        assert_eq!(told(&samples::connect()), expected);
        let expected = "\
Good valid
10,000 connections were connected and subscribed after 812 ms: 12,315 handshakes a second.
10,000 connections that were dropped were back and subscribed after 655 ms: at least 15,267 handshakes a second, \
for the generator's core was 97 % busy (the server's busiest thread 88 %).";
        assert_eq!(told(&samples::connect_at_the_limit()), expected);
        let expected = "\
Good valid
An idle connection takes 100 B of the server, 131 B of the server with what it takes for the first of them, 8.21 KiB of the kernel for both ends, 312 B of the generator.";
        assert_eq!(told(&samples::idle()), expected);
    }

    #[test]
    fn a_knee_that_the_generator_bounds_is_told_as_such() {
        let mut results = samples::fanout();
        // 1,400 a second, twice: the second time it was the server's fault.
        results.steps[4].offered_per_s = Some(1_400.0);
        results.steps[6].outcome = Outcome::Invalid {
            why: "the generator took 97 % of core 1, more than 95 %".to_owned(),
        };
        let text = told(&results);
        let beyond = "1,400 a second were too many: p99 189 ms, more than 100 ms.";
        assert!(text.ends_with(beyond), "{text}");
        results.steps[4].offered_per_s = Some(1_600.0);
        results.knee_is_lower_bound = true;
        results.sustained = Some(3);
        results.sustained_is_lower_bound = true;
        let text = told(&results);
        let expected = "
1,400 a second were too many for the generator: the generator took 97 % of core 1, more than 95 %.
The generator could offer no more: the server's knee may be higher.
With nothing lost 800 messages a second were sustained, 7.80 million deliveries a second, 99 % of them within 61.2 ms.
The generator could offer no more: the server may sustain a higher rate.";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn a_knee_that_is_missing_is_told_first() {
        let mut results = samples::fanout();
        results.knee = None;
        results
            .scenario
            .parameters
            .insert("rate".to_owned(), "knee".into());
        let expected = "\
Good valid
No knee was found: no rate was kept and confirmed.
6 of 8 loads were kept; nothing was lost, repeated or reordered.";
        assert_eq!(told(&results), expected);
        results.scenario.parameters.remove("rate");
        assert!(!told(&results).contains(NO_KNEE));
        results.scenario.name = "latency".to_owned();
        assert!(told(&results).contains(&format!("{NO_KNEE}\n{NO_SHARES}\n")));
        results
            .scenario
            .parameters
            .insert("knee".to_owned(), 200.into());
        assert!(!told(&results).contains(NO_KNEE));
    }

    #[test]
    fn attempts_that_failed_are_told_whatever_the_verdict() {
        let mut results = samples::connect();
        results.storms[0].failed = 1_200;
        results.storms[1].failed = 34;
        let storms = "\n1,234 attempts to connect failed and were made again.";
        assert!(told(&results).ends_with(storms));
        results.steps = samples::fanout().steps;
        results.steps[0].churn = Some(samples::churn());
        let both =
            format!("{storms}\n3 times a guest failed: it did not get in, or the server ended it.");
        assert!(told(&results).ends_with(&both));
        results.verdict = Verdict::Failed {
            evidence: vec![samples::evidence()],
        };
        assert!(told(&results).ends_with(&both));
    }

    #[test]
    fn a_saturated_generator_is_told_instead_of_a_number() {
        let mut results = samples::fanout();
        results.verdict = Verdict::Invalid {
            why: vec!["core 1 was busy for 97 %".to_owned()],
        };
        let expected = "\
Doubtful invalid: generator saturated
The load generator did not keep up, so this run says nothing about the server.
Core 1 was busy for 97 %.";
        assert_eq!(told(&results), expected);
        assert!(
            results
                .steps
                .iter()
                .all(|step| !has_figures(&results, step))
        );
    }

    #[test]
    fn a_failure_is_told_with_its_evidence() {
        let mut results = samples::fanout();
        results.verdict = Verdict::Failed {
            evidence: vec![samples::evidence(); 10],
        };
        results.steps[2].disorder.lost = 1_234;
        let text = told(&results);
        let expected = "\
Bad failed
The server broke its promise: 1,234 lost.
Client 4,711 on channel bench, lost: expected sequence 17, saw sequence 19.
";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.ends_with("\n2 more pieces of evidence are in the result's file."),
            "{text}"
        );
    }
}
