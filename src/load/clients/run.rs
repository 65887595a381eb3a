//! What a crew has counted since the run began.

use std::collections::BTreeMap;

use crate::load::machine;
use crate::load::orders::{
    Churned, Column, Count, EVIDENCE_MAX, Evidence, Glance, Order, Reached, Receipts, Stalled,
    Thread, Wrong,
};
use crate::load::result::LatencyHistogram;

use super::client::{Client, Part};
use super::watermarks::{RECEIPTS_MAX, Watermarks};

/// How far clients came, by their shared channel; by none where channels are their own.
type ByChannel = BTreeMap<Option<u64>, Reached>;

#[derive(Default)]
pub struct Run {
    pub began_ns: u64,
    cpu_began_ns: u64,
    /// The length of a message, by which those that only count know what they have.
    pub frame_bytes: Option<u64>,
    pub bytes: u64,
    pub messages: u64,
    pub receives: u64,
    pub closed: u64,
    /// Clients that the server ended and that took no part.
    pub gone: u64,
    pub stalled_closed: u64,
    pub last_words: Option<String>,
    pub strays: u64,
    pub faults: u64,
    /// What ledgers of clients that left had seen.
    pub left: Order,
    pub evidence: Vec<Evidence>,
    /// Wrong places in the order so far, for glances.
    pub disorder: u64,
    /// Since the last glance, and before it.
    pub recent: LatencyHistogram,
    deliveries: LatencyHistogram,
    pub arrival_gap_ns_max: u64,
    /// By channel, where channels are shared.
    pub marks: Vec<Watermarks>,
    due_ns: Vec<Vec<u64>>,
    /// How far those came that the server ended.
    ended: ByChannel,
    pub churn: Churned,
    pub turns: LatencyHistogram,
}

impl Run {
    /// A run on so many shared channels.
    pub fn begin(channels: u64, frame_bytes: Option<u64>) -> Run {
        let channels = channels as usize;
        Run {
            began_ns: machine::monotonic_ns(),
            cpu_began_ns: machine::thread_cpu_ns(),
            frame_bytes,
            marks: (0..channels).map(|_| Watermarks::default()).collect(),
            due_ns: vec![Vec::new(); channels],
            ..Run::default()
        }
    }

    /// A client of a shared channel receives the messages `from..to`.
    pub fn advance(&mut self, channel: Option<u64>, from: u32, to: u32, now_ns: u64) {
        self.messages += u64::from(to - from);
        if let Some(marks) = channel.and_then(|channel| self.marks.get_mut(channel as usize)) {
            marks.advance(from, to, now_ns);
        }
    }

    /// The server ended a client that takes part.
    pub fn end(&mut self, channel: Option<u64>, client: &Client) {
        self.closed += 1;
        self.ended.entry(channel).or_default().note(got(client));
    }

    /// A message was due then, as its stamp says. Gives nothing where no receipt is kept.
    pub fn due(&mut self, channel: Option<u64>, sequence: u64, due_ns: u64) {
        let known = channel.and_then(|channel| self.due_ns.get_mut(channel as usize));
        let (Some(known), Ok(place)) = (known, usize::try_from(sequence)) else {
            return;
        };
        // A number beyond everything that came is a garbled one, and no reason to reserve memory.
        if place >= RECEIPTS_MAX || place > known.len() + (1 << 16) {
            return;
        }
        if known.len() <= place {
            known.resize(place + 1, 0);
        }
        if known[place] == 0 {
            known[place] = due_ns;
        }
    }

    pub fn note_evidence(&mut self, evidence: impl FnOnce() -> Evidence) {
        self.disorder += 1;
        if self.evidence.len() < EVIDENCE_MAX {
            self.evidence.push(evidence());
        }
    }

    /// Live figures but those of connections.
    pub fn glance(&mut self, clients: &[Client]) -> Glance {
        let recent = std::mem::take(&mut self.recent);
        self.deliveries.add(&recent);
        let (counted, messages_min, messages_max) = self.range(clients);
        Glance {
            closed: self.closed + self.gone,
            bytes: self.bytes,
            messages: self.messages,
            counted,
            messages_min,
            messages_max,
            disorder: self.disorder,
            deliveries: recent,
            cpu_ns: machine::thread_cpu_ns(),
            at_ns: machine::monotonic_ns(),
            ..Glance::default()
        }
    }

    /// How many clients take part, and what the last and the first of them have.
    fn range(&self, clients: &[Client]) -> (u64, u64, u64) {
        let with_clients = self.marks.iter().filter(|marks| marks.clients() > 0);
        if !self.marks.is_empty() {
            let counted = with_clients.clone().map(Watermarks::clients).sum();
            let min = with_clients.clone().map(|marks| marks.range().0).min();
            let max = with_clients.map(|marks| marks.range().1).max();
            return (counted, min.unwrap_or(0), max.unwrap_or(0));
        }
        let counted = clients.iter().filter(|client| client.part == Part::Counted);
        let positions = counted.map(|client| u64::from(client.position));
        let (min, max) = (positions.clone().min(), positions.clone().max());
        let counted = positions.count() as u64;
        (counted, min.unwrap_or(0), max.unwrap_or(0))
    }

    /// All that is known. `channel` is the shared channel of the client at a place.
    pub fn count(
        &self,
        clients: &[Client],
        channel: impl Fn(u32) -> Option<u64>,
        core: usize,
    ) -> Count {
        let mut count = Count {
            closed: self.closed,
            last_words: self.last_words.clone(),
            bytes: self.bytes,
            receives: self.receives,
            frame_bytes: self.frame_bytes,
            messages: self.messages,
            deliveries: self.deliveries.clone(),
            churn: self.churn.clone(),
            cpu_ns: machine::thread_cpu_ns() - self.cpu_began_ns,
            began_ns: self.began_ns,
            order: self.left.clone(),
            ..Count::default()
        };
        count.deliveries.add(&self.recent);
        count.order.strays += self.strays;
        count.order.faults += self.faults;
        count.order.evidence = self.evidence.clone();
        count.stalled.closed = self.stalled_closed;
        let mut arrival_gap_ns = self.arrival_gap_ns_max;
        let mut range: Option<(u32, u32)> = None;
        let mut reached = ByChannel::new();
        for (slot, client) in (0..).zip(clients) {
            match client.part {
                Part::Idle | Part::Guest => continue,
                Part::Stalled => {
                    count.stalled.add(&Stalled {
                        clients: 1,
                        closed: 0,
                        bytes: client.bytes,
                    });
                    continue;
                }
                Part::Counted => {}
            }
            count.clients += 1;
            let (min, max) = range.unwrap_or((client.position, client.position));
            range = Some((min.min(client.position), max.max(client.position)));
            reached.entry(channel(slot)).or_default().note(got(client));
            match &client.talk {
                Some(talk) => {
                    count.uneven += u64::from(!talk.unread.is_empty());
                    if let Some(ledger) = &talk.ledger {
                        arrival_gap_ns = arrival_gap_ns.max(ledger.arrival_gap_ns_max);
                        count.order.add(&order_of(ledger, client.position));
                    }
                }
                None => {
                    let frame_bytes = self.frame_bytes.unwrap_or(1);
                    count.uneven += u64::from(client.bytes % frame_bytes != 0);
                }
            }
        }
        // Those that the server ended took part too.
        count.clients += self.closed;
        if let Some((min, max)) = range {
            (count.messages_min, count.messages_max) = (u64::from(min), u64::from(max));
        }
        count.arrival_gap_us_max = arrival_gap_ns / 1_000;
        for own in [reached.get(&None), self.ended.get(&None)] {
            count.own.add(own.unwrap_or(&Reached::default()));
        }
        count.receipts = self.receipts(&reached);
        count.threads = vec![Thread {
            core,
            cpu_ns: count.cpu_ns,
            wall_ns: machine::monotonic_ns() - self.began_ns,
            turns: self.turns.clone(),
        }];
        count
    }

    fn receipts(&self, reached: &ByChannel) -> Vec<Receipts> {
        let channels = (0..).zip(self.marks.iter().zip(&self.due_ns));
        let used = channels.filter(|(_, (marks, _))| marks.joined() > 0);
        used.map(|(channel, (marks, due_ns))| {
            let [first, median, last] = marks.receipts();
            let padded = |times: &[u64]| {
                let mut column = times.to_vec();
                column.resize(first.len(), 0);
                Column(column)
            };
            let of = |all: &ByChannel| all.get(&Some(channel)).cloned().unwrap_or_default();
            Receipts {
                channel,
                clients: marks.joined(),
                messages: marks.messages(),
                reached: of(reached),
                ended: of(&self.ended),
                due_ns: padded(due_ns),
                first_ns: padded(first),
                median_ns: padded(median),
                last_ns: padded(last),
                beyond: marks.beyond(),
            }
        })
        .collect()
    }
}

/// Messages that a client has. One that decodes knows which of them came again: these are told as repeats.
fn got(client: &Client) -> u64 {
    let ledger = client.talk.as_ref().and_then(|talk| talk.ledger.as_ref());
    let repeated = ledger.map_or(0, |ledger| ledger.repeated);
    u64::from(client.position).saturating_sub(repeated)
}

/// What one client's ledger says.
pub fn order_of(ledger: &super::ledger::Ledger, position: u32) -> Order {
    Order {
        clients: 1,
        messages: u64::from(position),
        gaps: ledger.gaps,
        missing: ledger.missing(),
        repeated: ledger.repeated,
        reordered: ledger.reordered,
        ..Order::default()
    }
}

/// A piece of evidence that is about a connection and not about a message.
pub fn of_connection(
    what: Wrong,
    client: u64,
    channel: String,
    position: u32,
    words: String,
) -> Evidence {
    Evidence {
        what,
        client,
        channel,
        expected: u64::from(position),
        seen: u64::from(position),
        at_ns: machine::monotonic_ns(),
        words: Some(words),
    }
}
