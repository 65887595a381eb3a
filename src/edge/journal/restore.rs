//! Makes of a journal what homes retained when the server ended: the same events, with the same
//! epochs and serials, so that clients go on where they were.
//!
//! What was excluded from an event is not known any more: the one who sent it has another socket id
//! now, and gets it if it resumes from before it.

use std::time::{SystemTime, UNIX_EPOCH};

use tracing::info;

use super::JournalError;
use super::commit::Pace;
use super::desk::Opened;
use super::recovery::Replayed;
use crate::base::limits;
use crate::base::metrics::Metrics;
use crate::base::slab::Key;
use crate::hub::apps::Apps;
use crate::hub::holdings::{Holding, Holdings, Moved};
use crate::hub::letter::Event;
use crate::hub::retained::Retained;
use crate::hub::variant;
use crate::options::Options;
use crate::wire::pusher::delivery::Serial;
use crate::wire::websocket::{self, Opcode};

/// A channel as it was.
#[derive(Debug)]
pub struct Restored {
    pub app: u16,
    pub channel: Box<str>,
    pub retained: Retained,
}

/// The journal that the options name, and what it has; nothing if they name none.
pub fn open(
    options: &Options,
    apps: &Apps,
    shards: u16,
    metrics: &Metrics,
) -> Result<Option<(Opened, Vec<Restored>)>, JournalError> {
    let Some(directory) = options.journal_directory.as_deref() else {
        return Ok(None);
    };
    let pace = Pace {
        segment_bytes_max: options.journal_segment_bytes_max,
        gather_ms: options.journal_gather_ms,
    };
    let bytes_max = options.retention_bytes_per_shard_max * usize::from(shards);
    let mut channels = Channels::new(apps, bytes_max);
    let mut uncertain = Vec::new();
    let (opened, found) = Opened::open(
        directory,
        pace,
        shards,
        metrics.clone(),
        |replayed| channels.replay(replayed),
        |app_id, channel| uncertain.push((app_id.to_string(), channel.to_string())),
    )?;
    let mut restored = channels.into_restored();
    restored.retain(|channel| {
        let app_id = &apps.app(channel.app).id;
        !uncertain
            .iter()
            .any(|(app, name)| app == app_id && **name == *channel.channel)
    });
    info!(
        "the journal in {} has {} records; {} channels go on",
        directory.display(),
        found.records,
        restored.len()
    );
    Ok(Some((opened, restored)))
}

/// The channels that were read so far. Together they hold no more than shards may retain; beyond it those
/// that hold most lose their oldest, as they do while a server runs.
pub struct Channels<'a> {
    apps: &'a Apps,
    bytes_max: usize,
    holdings: Holdings,
    /// By their numbers; those that are not durable any more are none.
    channels: Vec<Option<Restored>>,
    now_ms: u64,
    text: Vec<u8>,
    frame: Vec<u8>,
}

impl<'a> Channels<'a> {
    pub fn new(apps: &'a Apps, bytes_max: usize) -> Channels<'a> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Channels {
            apps,
            bytes_max,
            holdings: Holdings::default(),
            channels: Vec::new(),
            now_ms: since.map_or(0, |since| since.as_millis() as u64),
            text: Vec::new(),
            frame: Vec::new(),
        }
    }

    pub fn replay(&mut self, replayed: &Replayed<'_>) {
        let entry = &replayed.entry;
        let place = replayed.channel as usize;
        if place >= self.channels.len() {
            self.channels.resize_with(place + 1, || None);
        }
        if replayed.is_beginning {
            self.forget(place);
            self.channels[place] = self.begin(replayed);
        }
        let Some(restored) = self.channels[place].as_mut() else {
            return;
        };
        let event = Event {
            app: restored.app,
            origin: entry.origin,
            channel: entry.channel,
            name: entry.name,
            data: entry.data,
            user_id: entry.user_id,
            idempotency_key: entry.idempotency_key,
            // The journal keeps none.
            key: "",
            excluded: None,
            serial: Some(Serial {
                epoch: entry.epoch,
                number: entry.serial,
            }),
        };
        self.text.clear();
        variant::encode_text(&event, &mut self.text);
        self.frame.clear();
        websocket::encode_frame(Opcode::Text, &self.text, &mut self.frame);
        // A clock that was set back makes an event new, not one of the future or one before the last.
        let age_s = self.now_ms.saturating_sub(entry.time_ms) / 1000;
        let second = limits::RETENTION_S_MAX.saturating_sub(age_s) as u32;
        let retained = &mut restored.retained;
        let second = second.max(retained.used_s);
        if !entry.idempotency_key.is_empty() {
            retained.note_key(entry.idempotency_key, second);
        }
        retained.append(&self.frame, None, second);
        self.weigh(place);
    }

    pub fn into_restored(self) -> Vec<Restored> {
        let mut restored: Vec<Restored> = self.channels.into_iter().flatten().collect();
        for channel in &mut restored {
            // Its home weighs it anew.
            channel.retained.holding = Holding::default();
        }
        restored
    }

    fn weigh(&mut self, place: usize) {
        self.reweigh(place);
        while self.holdings.bytes() > self.bytes_max
            && let Some(heaviest) = self.holdings.heaviest()
        {
            let place = heaviest.index as usize;
            let restored = self.channels[place].as_mut();
            let restored = restored.expect("what is weighed is there");
            restored.retained.forget_oldest();
            self.reweigh(place);
        }
    }

    fn reweigh(&mut self, place: usize) {
        let restored = self.channels[place].as_mut();
        let retained = &mut restored.expect("it was just looked at").retained;
        let bytes = retained.bytes();
        let moved = self
            .holdings
            .weigh(key(place), &mut retained.holding, bytes);
        self.tell_moved(moved);
    }

    fn forget(&mut self, place: usize) {
        if let Some(mut restored) = self.channels[place].take() {
            let moved = self.holdings.forget(&mut restored.retained.holding);
            self.tell_moved(moved);
        }
    }

    fn tell_moved(&mut self, moved: Option<Moved>) {
        let Some(moved) = moved else { return };
        let restored = self.channels[moved.home.index as usize].as_mut();
        let restored = restored.expect("what is weighed is there");
        restored.retained.holding.moved(moved);
    }

    fn begin(&self, replayed: &Replayed<'_>) -> Option<Restored> {
        let entry = &replayed.entry;
        let app = self.apps.with_id(entry.app_id)?;
        let rule = self.apps.app(app);
        let retention = rule.retention_of(entry.channel)?;
        let is_durable = rule.is_durable(entry.channel);
        is_durable.then(|| Restored {
            app,
            channel: entry.channel.into(),
            retained: Retained::resumed(entry.epoch, retention, entry.serial),
        })
    }
}

fn key(place: usize) -> Key {
    Key {
        index: place as u32,
        generation: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::socket::{Address, Socket};
    use crate::edge::journal::record::Entry;
    use crate::hub::letter::Origin;
    use crate::hub::retained::Reader;
    use crate::options::{AppOptions, ChannelOptions, ChannelPattern, channels::Durability};

    const HOUR_MS: u64 = 3_600_000;

    fn apps() -> Apps {
        let rule = |name: &str, durability| ChannelOptions {
            name: ChannelPattern::parse(name).unwrap(),
            durability,
            retention_age_s: 100,
            idempotency_window_s: 150,
            ..ChannelOptions::default()
        };
        let app = AppOptions {
            id: "1".to_string(),
            channels: vec![
                rule("disk*", Durability::Disk),
                rule("*", Durability::Memory),
            ],
            ..AppOptions::default()
        };
        Apps::new(&Options {
            apps: vec![app],
            ..Options::default()
        })
    }

    fn replay(channels: &mut Channels<'_>, channel: (u32, &str), serial: u64, age_s: u64) {
        channels.now_ms = HOUR_MS;
        let key = format!("key-{serial}");
        let entry = Entry {
            app_id: "1",
            channel: channel.1,
            epoch: 7,
            serial,
            time_ms: HOUR_MS - age_s * 1000,
            origin: Origin::Api,
            name: r#""said""#,
            data: r#""abc""#,
            user_id: "",
            idempotency_key: &key,
        };
        channels.replay(&Replayed {
            entry,
            channel: channel.0,
            is_beginning: serial % 100 == 1,
        });
    }

    fn read(retained: &mut Retained, after: u64) -> (String, u64, Option<(u64, u64)>) {
        let socket = Socket {
            slot: 0,
            generation: 0,
        };
        let reader = Reader {
            address: Address { shard: 0, socket },
            formerly: None,
        };
        let chunk = retained.read(after, reader, 1 << 20);
        let text = String::from_utf8_lossy(&chunk.frames).into_owned();
        let missed = chunk.missed.map(|gap| (gap.first, gap.last));
        (text, chunk.reached, missed)
    }

    #[test]
    fn a_channel_goes_on_with_its_serials_and_without_what_is_too_old() {
        let apps = apps();
        let mut channels = Channels::new(&apps, 1 << 20);
        // Its beginning went with a segment.
        replay(&mut channels, (0, "disk-a"), 101, 200);
        replay(&mut channels, (1, "memory"), 1, 0);
        replay(&mut channels, (0, "disk-a"), 102, 50);
        replay(&mut channels, (0, "disk-a"), 103, 10);
        let [restored] = &mut channels.into_restored()[..] else {
            panic!("not one channel");
        };
        assert_eq!((restored.app, &*restored.channel), (0, "disk-a"));
        let retained = &mut restored.retained;
        let next = retained.next();
        assert_eq!((next.epoch, next.number, retained.tail()), (7, 104, 102));
        let now_s = limits::RETENTION_S_MAX as u32;
        let serial_of = |key| retained.serial_of(key, now_s).map(|serial| serial.number);
        let known = ["key-101", "key-102", "key-103"].map(serial_of);
        assert_eq!(known, [None, Some(102), Some(103)]);
        let (text, reached, missed) = read(retained, 100);
        assert_eq!((reached, missed), (103, Some((101, 101))));
        assert!(
            text.contains(r#""serial":102}"#) && text.contains(r#""serial":103}"#),
            "{text}"
        );
    }

    #[test]
    fn all_together_hold_no_more_than_they_may() {
        let apps = apps();
        let mut channels = Channels::new(&apps, 10_000);
        for serial in 1..=90 {
            replay(&mut channels, (0, "disk-a"), serial, 0);
            replay(&mut channels, (1, "disk-b"), serial, 0);
            assert!(channels.holdings.bytes() <= 10_000);
        }
        let restored = channels.into_restored();
        assert!(
            restored
                .iter()
                .all(|channel| channel.retained.next().number == 91)
        );
        assert!(restored.iter().any(|channel| channel.retained.tail() > 1));
    }
}
