//! The events of one webhook, from when they happened to when they were delivered or given up.
//!
//! Events stand in one line for each channel. A request takes events from the front of lines, and
//! each of those lines is busy until the request is settled: so a channel's events arrive in order,
//! and a request that fails holds up the channels that it carries and no others.
//!
//! Invariants:
//! - A line exists while it has events or is busy. It stands in `ready` exactly if it has events and
//!   is not busy.
//! - A busy line belongs to exactly one request.
//! - A request carries the same body each time it is made.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;

use super::backoff::Backoff;
use crate::base::limits;

/// An event as its webhooks share it.
#[derive(Clone, Debug)]
pub struct Event {
    pub channel: Rc<str>,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Its JSON object.
    pub json: Bytes,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Events that wait, those under way included. Full: what comes is dropped.
    pub events_max: usize,
    pub bytes_max: usize,
    pub requests_max: usize,
    pub request_events_max: usize,
    /// How long an event waits for others, if a request may carry more than one.
    pub batch_ms: u64,
    /// Age at which events that failed are given up.
    pub retry_ms_max: u64,
}

/// A request that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub id: u64,
    pub body: Bytes,
    pub is_retry: bool,
}

/// What became of a request's events, and how many they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Delivered {
        events: usize,
    },
    /// The request is made again, later.
    Kept,
    GivenUp {
        events: usize,
    },
}

#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    backoff: Backoff,
    lines: HashMap<Rc<str>, Line>,
    ready: VecDeque<Rc<str>>,
    ready_events: usize,
    /// When what is ready need not wait for more.
    batch_ends_ms: u64,
    carried: HashMap<u64, Carried>,
    /// Requests that failed: when they are made again, and their ids.
    retries: BTreeSet<(u64, u64)>,
    /// Whose turn it is when both a retry and ready events wait.
    is_retry_next: bool,
    under_way: usize,
    next_id: u64,
    events: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Line {
    /// With the moment at which each was queued.
    events: VecDeque<(u64, Event)>,
    is_busy: bool,
}

/// What a request carries.
#[derive(Debug)]
struct Carried {
    body: Bytes,
    channels: Vec<Rc<str>>,
    events: usize,
    bytes: usize,
    oldest_ms: u64,
    failures: u32,
}

impl Queue {
    pub fn new(limits: Limits, backoff: Backoff) -> Queue {
        Queue {
            limits,
            backoff,
            lines: HashMap::new(),
            ready: VecDeque::new(),
            ready_events: 0,
            batch_ends_ms: 0,
            carried: HashMap::new(),
            retries: BTreeSet::new(),
            is_retry_next: false,
            under_way: 0,
            next_id: 0,
            events: 0,
            bytes: 0,
        }
    }

    /// Puts the event behind those of its channel. False if there is no room.
    #[must_use = "an event without room is dropped, which is counted"]
    pub fn push(&mut self, now_ms: u64, event: Event) -> bool {
        let bytes = cost(&event);
        if self.events >= self.limits.events_max || self.bytes + bytes > self.limits.bytes_max {
            return false;
        }
        self.events += 1;
        self.bytes += bytes;
        let channel = event.channel.clone();
        let line = self.lines.entry(channel.clone()).or_default();
        line.events.push_back((now_ms, event));
        if line.is_busy {
            return true;
        }
        self.ready_events += 1;
        if line.events.len() == 1 {
            if self.ready.is_empty() {
                self.batch_ends_ms = now_ms + self.limits.batch_ms;
            }
            self.ready.push_back(channel);
        }
        true
    }

    /// The next request that is to be made now. It is under way until it is settled.
    pub fn next_request(&mut self, now_ms: u64) -> Option<Request> {
        if self.under_way >= self.limits.requests_max {
            return None;
        }
        let retry = self.retries.first().copied();
        let retry = retry.filter(|(due_ms, _)| *due_ms <= now_ms);
        let has_batch = self.has_batch(now_ms);
        // By turns, so that neither a webhook's failures nor its successes hold up the other.
        self.is_retry_next = !self.is_retry_next;
        match retry {
            Some(due) if self.is_retry_next || !has_batch => {
                self.retries.remove(&due);
                self.under_way += 1;
                let (_, id) = due;
                let body = self.carried[&id].body.clone();
                Some(Request {
                    id,
                    body,
                    is_retry: true,
                })
            }
            Some(_) | None => has_batch.then(|| self.take_batch()),
        }
    }

    /// A request has been answered with success, or has failed.
    pub fn settle(&mut self, now_ms: u64, id: u64, is_delivered: bool) -> Settled {
        self.under_way -= 1;
        let carried = self.carried.get_mut(&id).expect("it was under way");
        let given_up_ms = carried.oldest_ms + self.limits.retry_ms_max;
        if !is_delivered && now_ms < given_up_ms {
            carried.failures += 1;
            let wait_ms = self.backoff.wait_ms(carried.failures);
            // The last try comes when the time is up, not before.
            self.retries
                .insert(((now_ms + wait_ms).min(given_up_ms), id));
            return Settled::Kept;
        }
        let carried = self.carried.remove(&id).expect("it was just seen");
        let events = carried.events;
        self.events -= events;
        self.bytes -= carried.bytes;
        for channel in carried.channels {
            self.free(channel);
        }
        match is_delivered {
            true => Settled::Delivered { events },
            false => Settled::GivenUp { events },
        }
    }

    /// From now on nothing waits for more to come with it.
    pub fn end_waits(&mut self) {
        self.limits.batch_ms = 0;
        self.batch_ends_ms = 0;
    }

    /// The next moment at which there is a request to make, if nothing else happens.
    pub fn next_ms(&self) -> Option<u64> {
        if self.under_way >= self.limits.requests_max {
            return None;
        }
        let retry = self.retries.first().map(|(due_ms, _)| *due_ms);
        let batch = (!self.ready.is_empty()).then_some(self.batch_ends_ms);
        retry.into_iter().chain(batch).min()
    }

    /// Events that wait, those under way included.
    pub fn length(&self) -> usize {
        self.events
    }

    fn has_batch(&self, now_ms: u64) -> bool {
        let is_full = self.ready_events >= self.limits.request_events_max;
        !self.ready.is_empty() && (is_full || now_ms >= self.batch_ends_ms)
    }

    /// Takes ready events into a new request, as many as fit.
    fn take_batch(&mut self) -> Request {
        let (mut taken, mut channels) = (Vec::new(), Vec::new());
        let mut json_bytes = 0;
        while let Some(channel) = self.ready.front().cloned() {
            let line = self.lines.get_mut(&channel);
            let line = line.expect("what is ready has a line");
            let before = taken.len();
            while let Some((_, event)) = line.events.front() {
                let fits = taken.len() < self.limits.request_events_max
                    && json_bytes + event.json.len() <= limits::WEBHOOK_BODY_BYTES_MAX;
                if !fits && !taken.is_empty() {
                    break;
                }
                json_bytes += event.json.len();
                taken.extend(line.events.pop_front());
            }
            if taken.len() == before {
                break;
            }
            self.ready.pop_front();
            self.ready_events -= taken.len() - before + line.events.len();
            line.is_busy = true;
            channels.push(channel);
        }
        let (id, body) = (self.next_id, encode(&taken));
        let queued = taken.iter().map(|(queued_ms, _)| *queued_ms);
        let carried = Carried {
            body: body.clone(),
            channels,
            events: taken.len(),
            bytes: taken.iter().map(|(_, event)| cost(event)).sum(),
            oldest_ms: queued.min().expect("a request carries an event"),
            failures: 0,
        };
        self.carried.insert(id, carried);
        self.next_id += 1;
        self.under_way += 1;
        Request {
            id,
            body,
            is_retry: false,
        }
    }

    /// The request that a line was busy with is settled.
    fn free(&mut self, channel: Rc<str>) {
        let line = self.lines.get_mut(&channel);
        let line = line.expect("a busy line exists");
        line.is_busy = false;
        let Some((queued_ms, _)) = line.events.front() else {
            self.lines.remove(&channel);
            return;
        };
        let ends_ms = queued_ms + self.limits.batch_ms;
        self.batch_ends_ms = match self.ready.is_empty() {
            true => ends_ms,
            false => self.batch_ends_ms.min(ends_ms),
        };
        self.ready_events += line.events.len();
        self.ready.push_back(channel);
    }
}

fn cost(event: &Event) -> usize {
    event.json.len() + event.channel.len() + limits::WEBHOOK_EVENT_OVERHEAD_BYTES
}

/// The body of a request (Pusher Channels documentation, "Webhooks"). Its time is that of the last
/// event, so that receivers can tell which of two requests speaks of the later state.
fn encode(events: &[(u64, Event)]) -> Bytes {
    let time_ms = events.iter().map(|(_, event)| event.time_ms).max();
    let time_ms = time_ms.expect("a request carries an event");
    let mut body = format!("{{\"time_ms\":{time_ms},\"events\":[").into_bytes();
    for (place, (_, event)) in events.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&event.json);
    }
    body.extend_from_slice(b"]}");
    body.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        events_max: 100,
        bytes_max: 1 << 20,
        requests_max: 2,
        request_events_max: 1,
        batch_ms: 0,
        retry_ms_max: 10_000,
    };

    fn queue(limits: Limits) -> Queue {
        Queue::new(limits, Backoff::new(1000, 1))
    }

    fn event(channel: &str, json: &str) -> Event {
        Event {
            channel: channel.into(),
            time_ms: 7,
            json: Bytes::copy_from_slice(json.as_bytes()),
        }
    }

    fn push(queue: &mut Queue, now_ms: u64, channel: &str, json: &str) {
        assert!(queue.push(now_ms, event(channel, json)), "it has room");
    }

    /// The events of a request that is to be made now, and its id.
    fn next(queue: &mut Queue, now_ms: u64) -> Option<(u64, String)> {
        let request = queue.next_request(now_ms)?;
        let body = std::str::from_utf8(&request.body).unwrap();
        let events = body.strip_prefix(r#"{"time_ms":7,"events":["#).unwrap();
        Some((request.id, events.strip_suffix("]}").unwrap().to_string()))
    }

    #[test]
    fn a_later_event_of_a_channel_waits_and_other_channels_go_on() {
        let mut queue = queue(LIMITS);
        push(&mut queue, 0, "a", "1");
        push(&mut queue, 0, "a", "2");
        push(&mut queue, 0, "b", "3");
        let (first, events) = next(&mut queue, 0).unwrap();
        assert_eq!(events, "1");
        let (second, events) = next(&mut queue, 0).unwrap();
        assert_eq!(events, "3");
        assert_eq!(
            queue.settle(0, second, true),
            Settled::Delivered { events: 1 }
        );
        assert_eq!(next(&mut queue, 0), None);
        assert_eq!(queue.settle(0, first, false), Settled::Kept);
        assert_eq!(next(&mut queue, 0), None);
        let again_ms = queue.next_ms().unwrap();
        assert!((500..=1000).contains(&again_ms));
        assert_eq!(next(&mut queue, again_ms - 1), None);
        assert_eq!(next(&mut queue, again_ms), Some((first, "1".to_string())));
        assert_eq!(
            queue.settle(again_ms, first, true),
            Settled::Delivered { events: 1 }
        );
        let (third, events) = next(&mut queue, again_ms).unwrap();
        assert_eq!(events, "2");
        assert_eq!(
            queue.settle(again_ms, third, true),
            Settled::Delivered { events: 1 }
        );
        assert_eq!((queue.length(), queue.bytes, queue.lines.len()), (0, 0, 0));
        assert_eq!(queue.next_ms(), None);
    }

    #[test]
    fn an_event_is_given_up_when_it_has_failed_for_too_long() {
        let mut queue = queue(LIMITS);
        push(&mut queue, 0, "a", "1");
        push(&mut queue, 0, "a", "2");
        let (mut now_ms, mut tries) = (0, 0);
        let given_up = loop {
            let (id, events) = next(&mut queue, now_ms).unwrap();
            assert_eq!(events, "1");
            tries += 1;
            match queue.settle(now_ms, id, false) {
                Settled::Kept => now_ms = queue.next_ms().unwrap(),
                settled => break settled,
            }
        };
        assert_eq!(given_up, Settled::GivenUp { events: 1 });
        assert_eq!(now_ms, 10_000);
        // Waits of at most 1, 2, 4 and 8 seconds, and the last one cut short.
        assert!((5..=7).contains(&tries), "{tries} tries");
        assert_eq!(next(&mut queue, now_ms).unwrap().1, "2");
    }

    #[test]
    fn a_batch_is_made_when_it_is_full_or_its_time_is_up() {
        let mut queue = queue(Limits {
            request_events_max: 3,
            batch_ms: 50,
            ..LIMITS
        });
        push(&mut queue, 0, "a", "1");
        push(&mut queue, 10, "b", "2");
        assert_eq!((next(&mut queue, 49), queue.next_ms()), (None, Some(50)));
        push(&mut queue, 49, "a", "3");
        let (full, events) = next(&mut queue, 49).unwrap();
        assert_eq!(events, "1,3,2");
        push(&mut queue, 60, "a", "4");
        push(&mut queue, 60, "c", "5");
        assert_eq!(next(&mut queue, 100), None);
        let (other, events) = next(&mut queue, 110).unwrap();
        assert_eq!(events, "5");
        assert_eq!(
            queue.settle(111, full, true),
            Settled::Delivered { events: 3 }
        );
        let (last, events) = next(&mut queue, 111).unwrap();
        assert_eq!(events, "4");
        for id in [other, last] {
            assert_eq!(
                queue.settle(112, id, true),
                Settled::Delivered { events: 1 }
            );
        }
        assert!(queue.lines.is_empty());
    }

    #[test]
    fn what_has_no_room_is_refused_and_room_comes_back() {
        let mut queue = queue(Limits {
            events_max: 2,
            ..LIMITS
        });
        push(&mut queue, 0, "a", "1");
        push(&mut queue, 0, "a", "2");
        assert!(!queue.push(0, event("b", "3")));
        let (id, _) = next(&mut queue, 0).unwrap();
        assert!(
            !queue.push(0, event("b", "3")),
            "what is under way takes room"
        );
        queue.settle(0, id, true);
        push(&mut queue, 0, "b", "3");
        let bytes_max = cost(&event("a", "1"));
        let mut queue = self::queue(Limits {
            bytes_max,
            ..LIMITS
        });
        push(&mut queue, 0, "a", "1");
        assert!(!queue.push(0, event("a", "2")));
    }

    #[test]
    fn a_body_is_bounded_and_a_single_event_is_not() {
        let mut queue = queue(Limits {
            request_events_max: 10,
            ..LIMITS
        });
        let long = "1".repeat(limits::WEBHOOK_BODY_BYTES_MAX + 1);
        push(&mut queue, 0, "a", &long);
        push(&mut queue, 0, "b", "2");
        push(&mut queue, 0, "c", "3");
        assert_eq!(next(&mut queue, 0).unwrap().1, long);
        assert_eq!(next(&mut queue, 0).unwrap().1, "2,3");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Start,
        /// The request at this place among those under way succeeds or fails.
        Settle(usize, bool),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..4_usize).prop_map(Step::Push),
            4 => Just(Step::Start),
            4 => (0..4_usize, any::<bool>()).prop_map(|(place, is)| Step::Settle(place, is)),
            2 => (0..4000_u64).prop_map(Step::Pass),
        ]
    }

    /// The channels and numbers that a body holds.
    fn carried(body: &[u8]) -> Vec<(usize, u32)> {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        let pair = |event: &serde_json::Value| {
            let number = event.as_u64().unwrap();
            ((number % 10) as usize, (number / 10) as u32)
        };
        body["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(pair)
            .collect()
    }

    proptest! {
        /// Against what was accepted: everything leaves once, delivered or given up, in the order
        /// of its channel, and no two requests hold events of one channel.
        #[test]
        fn every_event_leaves_once_and_in_order(
            steps in prop::collection::vec(step(), 0..200),
            request_events_max in 1..4_usize,
            batch_ms in prop_oneof![Just(0_u64), Just(100)],
            events_max in 1..20_usize,
        ) {
            let mut queue = queue(Limits { request_events_max, batch_ms, events_max, ..LIMITS });
            let (mut now_ms, mut number) = (0, 0);
            let mut waiting: [VecDeque<u32>; 4] = Default::default();
            let mut under_way: Vec<u64> = Vec::new();
            let mut bodies: BTreeMap<u64, Bytes> = BTreeMap::new();
            let finish = (0..2000).flat_map(|_| [Step::Start, Step::Settle(0, true), Step::Pass(500)]);
            for step in steps.into_iter().chain(finish) {
                match step {
                    Step::Push(channel) => {
                        number += 1;
                        let json = (number * 10 + channel as u32).to_string();
                        let held: usize = waiting.iter().map(VecDeque::len).sum();
                        let is_taken = queue.push(now_ms, event(&channel.to_string(), &json));
                        prop_assert_eq!(is_taken, held < events_max);
                        if is_taken {
                            waiting[channel].push_back(number);
                        }
                    }
                    Step::Start => {
                        let is_due = queue.next_ms().is_some_and(|next_ms| next_ms <= now_ms);
                        let Some(request) = queue.next_request(now_ms) else {
                            prop_assert!(!is_due, "a request is due and not made");
                            continue;
                        };
                        let known = bodies.insert(request.id, request.body.clone());
                        prop_assert_eq!(known.is_some(), request.is_retry);
                        prop_assert!(known.is_none_or(|body| body == request.body));
                        under_way.push(request.id);
                        prop_assert!(under_way.len() <= LIMITS.requests_max);
                        let mut taken = [0; 4];
                        for (channel, number) in carried(&request.body) {
                            prop_assert_eq!(waiting[channel][taken[channel]], number);
                            taken[channel] += 1;
                        }
                        prop_assert!(taken.iter().sum::<usize>() <= request_events_max);
                        for (id, body) in bodies.iter().filter(|(id, _)| **id != request.id) {
                            let held = carried(body).into_iter().any(|(channel, _)| taken[channel] > 0);
                            prop_assert!(!held, "requests {} and {} share a channel", id, request.id);
                        }
                    }
                    Step::Settle(place, is_delivered) if place < under_way.len() => {
                        let id = under_way.remove(place);
                        let settled = queue.settle(now_ms, id, is_delivered);
                        let events = match settled {
                            Settled::Kept => {
                                prop_assert!(!is_delivered);
                                continue;
                            }
                            Settled::Delivered { events } => {
                                prop_assert!(is_delivered);
                                events
                            }
                            Settled::GivenUp { events } => {
                                prop_assert!(!is_delivered);
                                events
                            }
                        };
                        let body = bodies.remove(&id).unwrap();
                        let left = carried(&body);
                        prop_assert_eq!(left.len(), events);
                        for (channel, number) in left {
                            prop_assert_eq!(waiting[channel].pop_front(), Some(number));
                        }
                    }
                    Step::Settle(..) => {}
                    Step::Pass(ms) => now_ms += ms,
                }
            }
            prop_assert!(waiting.iter().all(VecDeque::is_empty), "{:?} are left", waiting);
            prop_assert_eq!((queue.length(), queue.bytes, queue.lines.len()), (0, 0, 0));
            prop_assert_eq!(queue.ready_events, 0);
        }
    }
}
