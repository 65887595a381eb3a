//! What homes retain for those who were away: serials, what one who comes is told of them, what one
//! who catches up is given, and what goes when there is too much of it.
//!
//! The other side, that of the one who catches up, is in `backlog`.

use std::cmp::Reverse;

use crate::base::metrics::Metric;
use crate::base::slow::Slow;
use crate::base::socket::Address;
use crate::hub::ask::{Behind, Content, Fetch, Fetched, Refused};
use crate::hub::holdings::Moved;
use crate::hub::letter::{Event, Origin};
use crate::hub::retained::{Forgotten, Reader, Retained, Unknown};
use crate::hub::variant::{self, Variant};
use crate::wire::api::{self, PAGE_BYTES_MAX, Page, PageFacts};
use crate::wire::channel::ChannelKind;
use crate::wire::pusher::announcement::{SUBSCRIPTION_COUNT, subscription_count_data};
use crate::wire::pusher::delivery::{Begin, Position, Recovery, Serial};
use crate::wire::websocket;

use crate::shard::Engine;

/// The messages of plain frames that lie one after the other.
fn texts(frames: &[u8]) -> impl Iterator<Item = &str> {
    let mut rest = frames;
    websocket::frame_lengths(frames).map(move |length| {
        let (frame, behind) = rest.split_at(length);
        rest = behind;
        websocket::text_of(frame)
    })
}

impl Engine {
    /// Whether the event gets a serial: those that are published do, where the channel has serials;
    /// what the server says of the channel's state does not, for it is said anew to those who come.
    pub(in crate::shard) fn gives_serial(&mut self, event: &Event<'_>) -> bool {
        let is_published = match event.origin {
            Origin::Api | Origin::Client => true,
            Origin::Server | Origin::Message => false,
        };
        is_published && self.open_retained(event.app, event.channel).is_some()
    }

    /// The channel whose home, which is here, retains its events, if it has serials.
    pub(in crate::shard) fn open_retained(&mut self, app: u16, name: &str) -> Option<u32> {
        let retention = self.apps.app(app).retention_of(name)?;
        let channel = self.channels.find_or_insert(app, name, Variant::Plain);
        let home = self.channels[channel].home.get_or_insert_default();
        if home.retained.is_none() {
            self.epochs += 1;
            let epoch = self.channels.epoch(app, name, self.epochs);
            let home = self.channels[channel].home.get_or_insert_default();
            let mut retained = Retained::new(epoch, retention);
            retained.used_s = self.now_s;
            home.retained = Some(Box::new(retained));
            let over_s = self.now_s.saturating_add(retention.age_s + 1);
            let key = self.channels.key_of(channel);
            self.retaining.push(Reverse((over_s, key)));
        }
        Some(channel)
    }

    pub(in crate::shard) fn retained_mut(&mut self, channel: u32) -> Option<&mut Retained> {
        let home = self.channels[channel].home.as_mut()?;
        home.retained.as_deref_mut()
    }

    /// A channel whose home is here is as it was when the server ended.
    pub fn restore(&mut self, app: u16, name: &str, retained: Retained) {
        let channel = self.channels.find_or_insert(app, name, Variant::Plain);
        let home = self.channels[channel].home.get_or_insert_default();
        home.retained = Some(Box::new(retained));
        let key = self.channels.key_of(channel);
        self.retaining.push(Reverse((self.now_s, key)));
        self.weigh(channel);
    }

    /// Where one who comes to a channel with serials stands. `Err` if it names a serial that was not
    /// given yet.
    pub(in crate::shard) fn stand(
        &mut self,
        channel: u32,
        begin: Begin,
    ) -> Result<(Position, Option<Behind>), Content> {
        let now_s = self.now_s;
        let retained = self.retained_mut(channel);
        let retained = retained.expect("its caller has just opened it");
        retained.used_s = now_s;
        let (position, after) = retained.begin(begin, now_s).map_err(|Unknown| {
            Content::Refused(Refused {
                kind: "InvalidResume",
                error: "The channel has given no such serial".to_string(),
                status: 400,
            })
        })?;
        let metric = match position.recovery {
            None => None,
            Some(Recovery::Whole) => Some(Metric::Recovered),
            Some(Recovery::Missed { .. }) => Some(Metric::RecoveredLate),
        };
        if let Some(metric) = metric {
            self.metrics.add(metric, 1);
        }
        let formerly = match begin {
            Begin::After(_, Some(id)) => self.address_of(id),
            Begin::After(_, None) | Begin::Head | Begin::Messages(_) | Begin::Seconds(_) => None,
        };
        let behind = after.map(|after| Behind {
            after,
            formerly,
            roster_changes: 0,
            is_slow: false,
        });
        Ok((position, behind))
    }

    /// By what those who are told the roster now know it.
    pub(in crate::shard) fn roster_changes(&self, app: u16, name: &str) -> u64 {
        let channel = self.channels.find(app, name, Variant::Plain);
        let home = channel.and_then(|channel| self.channels[channel].home.as_ref());
        let kept = home.and_then(|home| home.kept.as_ref());
        kept.map_or(0, |kept| kept.roster.changes())
    }

    /// The next events for one who catches up. With the last of them it is told anew what the
    /// channel's state is, as far as that changed meanwhile.
    pub(in crate::shard) fn fetch(
        &mut self,
        app: u16,
        name: &str,
        address: Address,
        fetch: &Fetch,
    ) -> Content {
        let reader = Reader {
            address,
            formerly: fetch.formerly,
        };
        let channel = self.channels.find(app, name, Variant::Plain);
        let channel = channel.expect("whoever catches up is subscribed");
        let now_s = self.now_s;
        let retained = self.retained_mut(channel);
        let retained = retained.expect("it is kept while there are subscribers");
        retained.used_s = now_s;
        let epoch = retained.epoch;
        let behind = retained.next().number - 1 - fetch.after;
        let slow = match behind > fetch.slow_messages_max {
            true => fetch.slow,
            false => Slow::Lag,
        };
        let chunk = match slow {
            Slow::Disconnect | Slow::Lag => retained.read(fetch.after, reader, fetch.bytes_max),
            Slow::Latest => retained.read_newest(fetch.after, reader, fetch.bytes_max),
            Slow::LatestPerKey => {
                retained.read_newest_of_keys(name, fetch.after, reader, fetch.bytes_max)
            }
        };
        self.metrics.add(Metric::GapsSuperseded, chunk.gaps);
        self.weigh(channel);
        let mut replies = Vec::new();
        if chunk.is_last {
            let number = chunk.missed.map_or(fetch.after, |gap| gap.last);
            let position = Position {
                serial: Serial { epoch, number },
                recovery: None,
            };
            replies.extend(self.told_anew(app, channel, position, fetch.roster_changes));
        }
        Content::Fetched(Box::new(Fetched {
            number: fetch.number,
            epoch,
            chunk,
            replies,
        }))
    }

    /// A page of what a channel with serials retains, for one who perhaps waits for its first event.
    pub(in crate::shard) fn history(
        &mut self,
        app: u16,
        name: &str,
        asker: Address,
        page: Page,
    ) -> Content {
        let channel = self.open_retained(app, name);
        let channel = channel.expect("only channels with serials are asked for pages");
        let retained = self.retained_mut(channel);
        let retained = retained.expect("it was just opened");
        let (tail, head) = (retained.tail(), retained.next().number - 1);
        let epoch = retained.epoch;
        if page.wait_ms > 0 && page.from.unwrap_or(tail) > head {
            if retained.waiters.insert(asker) {
                self.metrics.add(Metric::PageWaiters, 1);
            }
            return Content::Waits;
        }
        if retained.waiters.remove(&asker) {
            self.metrics.subtract(Metric::PageWaiters, 1);
        }
        let mut facts = PageFacts {
            epoch,
            next: None,
            tail,
            head,
            missed: None,
        };
        let (first, stop) = match page.is_backward {
            false => {
                let first = page.from.unwrap_or(tail);
                facts.missed = (first < tail).then(|| (first, tail - 1));
                let first = first.max(tail);
                (first, first.saturating_add(page.limit))
            }
            true => {
                let last = page.from.unwrap_or(head).min(head);
                let first = (last + 1).saturating_sub(page.limit).max(tail);
                (first, last + 1)
            }
        };
        let bytes_max = match page.is_backward {
            false => PAGE_BYTES_MAX,
            // The newest of them are not known before all were looked at.
            true => usize::MAX,
        };
        let retained = self.retained_mut(channel).expect("it was just opened");
        let runs = retained.frames(first, stop, bytes_max);
        let mut events: Vec<&str> = runs.iter().flat_map(|run| texts(run)).collect();
        if page.is_backward {
            events.reverse();
            let mut bytes = 0;
            let fitting = events.iter().take_while(|event| {
                bytes += event.len();
                bytes <= PAGE_BYTES_MAX || bytes == event.len()
            });
            events.truncate(fitting.count());
            let next = stop - 1 - events.len() as u64;
            facts.next = (next >= tail).then_some(next);
        } else {
            facts.next = Some(first.min(head + 1) + events.len() as u64);
        }
        let mut body = Vec::new();
        api::encode_page(&mut body, &facts, events);
        self.weigh(channel);
        Content::Body(body)
    }

    fn told_anew(
        &self,
        app: u16,
        channel: u32,
        position: Position,
        roster_changes: u64,
    ) -> Option<Vec<u8>> {
        let record = &self.channels[channel];
        let kept = record.home.as_ref()?.kept.as_ref()?;
        let mut text = Vec::new();
        if ChannelKind::of(&record.name).is_presence() {
            if kept.roster.changes() == roster_changes {
                return None;
            }
            kept.roster
                .acknowledge(&record.name, Some(&position), &mut text);
        } else {
            let count = u64::from(kept.counted.told);
            if count == 0 {
                return None;
            }
            let event = Event {
                app,
                origin: Origin::Server,
                channel: &record.name,
                name: SUBSCRIPTION_COUNT,
                data: &subscription_count_data(count),
                key: "",
                user_id: "",
                idempotency_key: "",
                excluded: None,
                serial: None,
            };
            variant::encode_text(&event, &mut text);
        }
        Some(text)
    }

    /// What a channel retains has grown or shrunk. Beyond what all may retain together, those that
    /// hold most lose their oldest segment.
    pub(in crate::shard) fn weigh(&mut self, channel: u32) {
        self.reweigh(channel);
        while self.holdings.bytes() > self.options.retention_bytes_per_shard_max
            && let Some(home) = self.holdings.heaviest()
        {
            let heaviest = self.channels.resolve(home);
            let heaviest = heaviest.expect("what is weighed is there");
            let retained = self.retained_mut(heaviest);
            let retained = retained.expect("what is weighed is there");
            match retained.forget_oldest() {
                Forgotten::Segment => self.metrics.add(Metric::RetainedEvicted, 1),
                Forgotten::Keys(count) => self.metrics.add(Metric::KeysEvicted, count),
            }
            self.reweigh(heaviest);
        }
    }

    fn reweigh(&mut self, channel: u32) {
        let key = self.channels.key_of(channel);
        let home = self.channels[channel].home.as_mut();
        let retained = home.and_then(|home| home.retained.as_mut());
        if let Some(retained) = retained {
            let bytes = retained.bytes();
            let moved = self.holdings.weigh(key, &mut retained.holding, bytes);
            self.tell_moved(moved);
        }
    }

    fn tell_moved(&mut self, moved: Option<Moved>) {
        let Some(moved) = moved else { return };
        let channel = self.channels.resolve(moved.home);
        let channel = channel.expect("what is weighed is there");
        let retained = self.retained_mut(channel);
        let retained = retained.expect("what is weighed is there");
        retained.holding.moved(moved);
    }

    /// Frees events that are too old, and epochs that nobody can come back to.
    pub(in crate::shard) fn forget_retained(&mut self) {
        while let Some(&Reverse((over_s, key))) = self.retaining.peek()
            && over_s <= self.now_s
        {
            self.retaining.pop();
            let Some(channel) = self.channels.resolve(key) else {
                continue;
            };
            let now_s = self.now_s;
            let record = &self.channels[channel];
            let line = self.channels.hash(record.app, &record.name);
            // What waits for the disk has been given serials of this epoch.
            let is_awaited = self.durable.of_line(line) > 0;
            let Some(home) = self.channels[channel].home.as_mut() else {
                continue;
            };
            let is_heard = !home.streams.is_empty() || is_awaited;
            let Some(retained) = home.retained.as_mut() else {
                continue;
            };
            if is_heard || !retained.waiters.is_empty() {
                retained.used_s = now_s;
            }
            retained.trim(now_s);
            let unused_s = retained.used_s.saturating_add(retained.age_s() + 1);
            if retained.is_empty() && !retained.knows_keys() && unused_s <= now_s {
                let moved = self.holdings.forget(&mut retained.holding);
                home.retained = None;
                self.tell_moved(moved);
                self.drop_home_if_unused(channel);
                continue;
            }
            let next_s = retained.over_s().unwrap_or(unused_s).max(now_s + 1);
            self.retaining.push(Reverse((next_s, key)));
            self.weigh(channel);
        }
    }
}
