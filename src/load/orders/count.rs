//! What a unit of clients has counted: how many messages, in which order, and when.

use serde::{Deserialize, Serialize};

use super::{Column, Reached};
use crate::load::result::LatencyHistogram;

/// Pieces of evidence that a unit keeps; what comes after them is only counted.
pub const EVIDENCE_MAX: usize = 32;

/// What was received since [`Command::Begin`](super::Command::Begin).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// Clients that take part in the run: open when it began, neither stalled nor guests.
    pub clients: u64,
    /// Those of them that the server ended, and what the last of them heard.
    pub closed: u64,
    pub last_words: Option<String>,
    /// Of the clients that take part.
    pub bytes: u64,
    pub receives: u64,
    /// The length of a message on the wire; none if none came, or if lengths differ.
    pub frame_bytes: Option<u64>,
    pub messages: u64,
    /// The client with the fewest, and the one with the most.
    pub messages_min: u64,
    pub messages_max: u64,
    /// Clients whose bytes are no whole number of messages: one is cut, or something else was sent between.
    pub uneven: u64,
    pub order: Order,
    /// Every message of every client of the sample, from its due time to the moment that its bytes were read.
    pub deliveries: LatencyHistogram,
    /// The longest time between two arrivals on one client of the sample: a lap of the server's sweep.
    pub arrival_gap_us_max: u64,
    /// Message by message, for each shared channel that the unit has clients on.
    pub receipts: Vec<Receipts>,
    /// How far those came whose channels are their own, the ones that the server ended included.
    pub own: Reached,
    pub stalled: Stalled,
    pub churn: Churned,
    /// The unit's threads.
    pub threads: Vec<Thread>,
    /// CPU time of the unit's process since [`Command::Begin`](super::Command::Begin), and since when that is.
    pub cpu_ns: u64,
    pub began_ns: u64,
}

impl Count {
    /// Signs that not every client got exactly `messages`, once each and in order. Client by client: what one got
    /// twice makes up for nothing that another lacks.
    pub fn wrong(&self, messages: u64) -> u64 {
        self.lacking(messages) + self.surplus(messages) + self.disorder()
    }

    /// What clients lack, all together, of so many messages for each of them.
    pub fn lacking(&self, messages: u64) -> u64 {
        let shared = self.receipts.iter();
        let shared = shared.map(|receipts| receipts.lacking(messages));
        shared.sum::<u64>() + self.own.lacking(messages)
    }

    /// What clients got above so many messages each, all together.
    pub fn surplus(&self, messages: u64) -> u64 {
        let shared = self.receipts.iter();
        let shared = shared.map(|receipts| receipts.surplus(messages));
        shared.sum::<u64>() + self.own.surplus(messages)
    }

    /// Signs that what was received is not one run, complete and in order.
    pub fn disorder(&self) -> u64 {
        self.order.signs() + self.uneven + self.closed
    }

    /// Takes in what another unit or thread counted. Receipts of one channel become one: first is the earlier, last
    /// the later, and the median lies between the two medians, by their numbers of clients.
    pub fn add(&mut self, other: &Count) {
        if other.clients > 0 {
            let is_first = self.clients == 0;
            self.messages_min = match is_first {
                true => other.messages_min,
                false => self.messages_min.min(other.messages_min),
            };
            self.messages_max = self.messages_max.max(other.messages_max);
        }
        self.frame_bytes = match (self.messages, other.messages) {
            (_, 0) => self.frame_bytes,
            (0, _) => other.frame_bytes,
            (_, _) => self
                .frame_bytes
                .filter(|bytes| other.frame_bytes == Some(*bytes)),
        };
        self.clients += other.clients;
        self.closed += other.closed;
        self.last_words = self.last_words.take().or_else(|| other.last_words.clone());
        self.bytes += other.bytes;
        self.receives += other.receives;
        self.messages += other.messages;
        self.uneven += other.uneven;
        self.order.add(&other.order);
        self.deliveries.add(&other.deliveries);
        self.arrival_gap_us_max = self.arrival_gap_us_max.max(other.arrival_gap_us_max);
        for receipts in &other.receipts {
            let mut known = self.receipts.iter_mut();
            match known.find(|known| known.channel == receipts.channel) {
                Some(known) => known.add(receipts),
                None => self.receipts.push(receipts.clone()),
            }
        }
        self.own.add(&other.own);
        self.stalled.add(&other.stalled);
        self.churn.add(&other.churn);
        self.threads.extend_from_slice(&other.threads);
        self.cpu_ns += other.cpu_ns;
        self.began_ns = self.began_ns.max(other.began_ns);
    }
}

/// What the sample saw of the order of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Clients that decode.
    pub clients: u64,
    pub messages: u64,
    /// Places where numbers were left out, and how many numbers are still missing.
    pub gaps: u64,
    pub missing: u64,
    pub repeated: u64,
    pub reordered: u64,
    /// Messages of another channel than the client's, and stamps from before the run.
    pub strays: u64,
    /// Frames that the dialect does not allow.
    pub faults: u64,
    /// The first [`EVIDENCE_MAX`] of all these.
    pub evidence: Vec<Evidence>,
}

impl Order {
    /// A gap that closed later was a reorder, and counts as that.
    pub fn signs(&self) -> u64 {
        self.missing + self.repeated + self.reordered + self.strays + self.faults
    }

    pub fn add(&mut self, other: &Order) {
        self.clients += other.clients;
        self.messages += other.messages;
        self.gaps += other.gaps;
        self.missing += other.missing;
        self.repeated += other.repeated;
        self.reordered += other.reordered;
        self.strays += other.strays;
        self.faults += other.faults;
        let room = EVIDENCE_MAX - self.evidence.len().min(EVIDENCE_MAX);
        self.evidence
            .extend(other.evidence.iter().take(room).cloned());
    }
}

/// One thing that went wrong, so that it can be looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub what: Wrong,
    pub client: u64,
    pub channel: String,
    /// The message that should have come next, and the one that came.
    pub expected: u64,
    pub seen: u64,
    pub at_ns: u64,
    /// What else is known: what a frame said that is none, a server's last words.
    pub words: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    Gap,
    Repeat,
    Reorder,
    Stray,
    Fault,
    Closed,
}

/// When messages of one channel were received by the unit's clients on it: entry `i` of each column is message `i`,
/// and 0 where that has not happened. Clients that only count are here too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipts {
    pub channel: u64,
    /// Clients on it that took part until now.
    pub clients: u64,
    /// Messages that they received, all together.
    pub messages: u64,
    /// How far those came that are still there, and those that the server ended.
    pub reached: Reached,
    pub ended: Reached,
    /// When each was due, where the sample has a client on the channel.
    pub due_ns: Column,
    pub first_ns: Column,
    /// When half of the clients had it.
    pub median_ns: Column,
    pub last_ns: Column,
    /// Messages beyond what a unit keeps receipts of.
    pub beyond: u64,
}

impl Receipts {
    /// What clients lack, all together, of so many messages for each of them.
    pub fn lacking(&self, messages: u64) -> u64 {
        self.reached.lacking(messages) + self.ended.lacking(messages)
    }

    /// What clients got above so many messages each, all together.
    pub fn surplus(&self, messages: u64) -> u64 {
        self.reached.surplus(messages) + self.ended.surplus(messages)
    }

    /// Takes in what another unit or thread saw of the same channel.
    pub fn add(&mut self, other: &Receipts) {
        let (one, another) = (self.clients, other.clients);
        self.due_ns.merge(&other.due_ns, |a, b| match (a, b) {
            (0, due) | (due, 0) => due,
            (a, b) => a.min(b),
        });
        self.first_ns.merge(&other.first_ns, |a, b| match (a, b) {
            (0, first) | (first, 0) => first,
            (a, b) => a.min(b),
        });
        self.median_ns.merge(&other.median_ns, |a, b| match (a, b) {
            (0, _) if one > 0 => 0,
            (_, 0) if another > 0 => 0,
            (a, b) => {
                let share = (a as u128 * one as u128 + b as u128 * another as u128)
                    .checked_div((one + another) as u128);
                share.unwrap_or(0) as u64
            }
        });
        self.last_ns.merge(&other.last_ns, |a, b| match (a, b) {
            (0, _) if one > 0 => 0,
            (_, 0) if another > 0 => 0,
            (a, b) => a.max(b),
        });
        self.clients += another;
        self.messages += other.messages;
        self.reached.add(&other.reached);
        self.ended.add(&other.ended);
        self.beyond = self.beyond.max(other.beyond);
    }
}

/// What the stalled clients received since [`Command::Begin`](super::Command::Begin).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stalled {
    pub clients: u64,
    /// Those that the server ended.
    pub closed: u64,
    pub bytes: u64,
}

impl Stalled {
    pub fn add(&mut self, other: &Stalled) {
        self.clients += other.clients;
        self.closed += other.closed;
        self.bytes += other.bytes;
    }
}

/// What came and went since [`Command::Begin`](super::Command::Begin).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Churned {
    /// Guests that came and were subscribed, and those that left.
    pub joins: u64,
    pub leaves: u64,
    /// Guests that did not get in, or that the server ended.
    pub failures: u64,
    /// From SYN to the confirmed subscription.
    pub opened: LatencyHistogram,
}

impl Churned {
    pub fn add(&mut self, other: &Churned) {
        self.joins += other.joins;
        self.leaves += other.leaves;
        self.failures += other.failures;
        self.opened.add(&other.opened);
    }
}

/// How one thread of the unit kept up since [`Command::Begin`](super::Command::Begin). A thread that is busy all the time, or whose turns
/// are long against the latencies that it measures, measures itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    pub core: usize,
    pub cpu_ns: u64,
    pub wall_ns: u64,
    /// From the moment that a batch of completions is taken to the next: how late the last of a batch is read.
    pub turns: LatencyHistogram,
}
