//! How far subscribers are behind: one shard's figures, written by it once a second and read by
//! whoever asks.
//!
//! The figures are gauges of a moment. Which channels lag most is told by name, in a number of series
//! that does not grow with the channels.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::atomic::AtomicCell;

use super::limits;
use super::worst::Worst;

/// How far one subscriber is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Events and messages that it has not been given.
    pub messages: u64,
    /// As they go to it on the wire; nothing where that is not known without looking at each.
    pub bytes: Option<u64>,
    /// How long ago the oldest of them came.
    pub ms: u64,
}

impl Lag {
    /// Of both, what is more.
    pub fn most(self, other: Lag) -> Lag {
        Lag {
            messages: self.messages.max(other.messages),
            bytes: self.bytes.max(other.bytes),
            ms: self.ms.max(other.ms),
        }
    }
}

/// Why a subscriber is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum LagState {
    /// The sweep has not come to it yet.
    Sweeping,
    /// Its socket is full, or nothing receives for its session.
    Blocked,
    /// It gets retained events before live ones.
    CatchingUp,
}

impl LagState {
    pub const ALL: [LagState; 3] = [LagState::Sweeping, LagState::Blocked, LagState::CatchingUp];

    pub fn name(self) -> &'static str {
        match self {
            LagState::Sweeping => "sweeping",
            LagState::Blocked => "blocked",
            LagState::CatchingUp => "catching_up",
        }
    }
}

/// All subscribers of a shard together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LagTotals {
    /// Each figure of the subscriber for which it is highest.
    pub most: Lag,
    /// How many are behind, by [`LagState`].
    pub subscribers: [u64; LagState::ALL.len()],
}

impl LagTotals {
    pub fn add(&mut self, lag: Lag, state: LagState) {
        self.most = self.most.most(lag);
        self.subscribers[state as usize] += 1;
    }
}

/// One channel, as its label names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelLag {
    pub app: u16,
    name: [u8; limits::LAG_NAME_BYTES],
    name_bytes: u16,
    pub most: Lag,
    /// How many are behind.
    pub subscribers: u64,
}

/// Ends a name that was cut.
const CUT: &str = "\u{2026}";

impl ChannelLag {
    pub fn new(app: u16, name: &str, most: Lag, subscribers: u64) -> ChannelLag {
        let mut bytes = [0; limits::LAG_NAME_BYTES];
        let (kept, end) = match name.len() <= bytes.len() {
            true => (name, ""),
            false => {
                let room = bytes.len() - CUT.len();
                let ends = name.char_indices().map(|(end, _)| end);
                let end = ends.take_while(|end| *end <= room).last();
                (&name[..end.unwrap_or(0)], CUT)
            }
        };
        let name_bytes = kept.len() + end.len();
        bytes[..kept.len()].copy_from_slice(kept.as_bytes());
        bytes[kept.len()..name_bytes].copy_from_slice(end.as_bytes());
        ChannelLag {
            app,
            name: bytes,
            name_bytes: name_bytes as u16,
            most,
            subscribers,
        }
    }

    pub fn name(&self) -> &str {
        let name = &self.name[..usize::from(self.name_bytes)];
        std::str::from_utf8(name).expect("it was text, and is cut between characters")
    }
}

/// A shard's place for them. A reader may see some of one second and some of the next.
#[derive(Debug)]
pub struct LagCells {
    messages: AtomicU64,
    bytes: AtomicU64,
    ms: AtomicU64,
    subscribers: [AtomicU64; LagState::ALL.len()],
    channels: [AtomicCell<Option<ChannelLag>>; limits::LAG_CHANNELS_KEPT],
}

impl Default for LagCells {
    fn default() -> LagCells {
        LagCells {
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            ms: AtomicU64::new(0),
            subscribers: [const { AtomicU64::new(0) }; LagState::ALL.len()],
            channels: [const { AtomicCell::new(None) }; limits::LAG_CHANNELS_KEPT],
        }
    }
}

impl LagCells {
    /// Called by the owning thread only.
    pub fn set(&self, totals: &LagTotals, channels: impl IntoIterator<Item = ChannelLag>) {
        self.messages.store(totals.most.messages, Relaxed);
        self.bytes.store(totals.most.bytes.unwrap_or(0), Relaxed);
        self.ms.store(totals.most.ms, Relaxed);
        for (cell, count) in self.subscribers.iter().zip(totals.subscribers) {
            cell.store(count, Relaxed);
        }
        let mut channels = channels.into_iter();
        for cell in &self.channels {
            cell.store(channels.next());
        }
    }

    pub fn totals(&self) -> LagTotals {
        LagTotals {
            most: Lag {
                messages: self.messages.load(Relaxed),
                bytes: Some(self.bytes.load(Relaxed)),
                ms: self.ms.load(Relaxed),
            },
            subscribers: std::array::from_fn(|state| self.subscribers[state].load(Relaxed)),
        }
    }

    pub fn channels(&self) -> impl Iterator<Item = ChannelLag> {
        self.channels.iter().filter_map(AtomicCell::load)
    }
}

/// The lags of all shards in the Prometheus text format. `apps` are the ids of apps by number.
pub fn exposition(shards: &[&LagCells], apps: &[&str]) -> String {
    let mut text = String::new();
    let totals: Vec<LagTotals> = shards.iter().map(|shard| shard.totals()).collect();
    let figures: [Figure<LagTotals>; 3] = [
        (
            "outpour_lag_messages_max",
            "Messages that the subscriber lacks which lacks most of them.",
            |totals| totals.most.messages as f64,
        ),
        (
            "outpour_lag_bytes_max",
            "Bytes that the subscriber lacks which lacks most of them.",
            |totals| totals.most.bytes.unwrap_or(0) as f64,
        ),
        (
            "outpour_lag_seconds_max",
            "Age of the oldest message that any subscriber lacks.",
            |totals| totals.most.ms as f64 / 1e3,
        ),
    ];
    for (name, help, figure) in figures {
        head(&mut text, name, help);
        for (shard, totals) in totals.iter().enumerate() {
            line(
                &mut text,
                name,
                &format!("shard=\"{shard}\""),
                figure(totals),
            );
        }
    }
    let name = "outpour_subscribers_behind";
    head(&mut text, name, "Subscribers that lack messages, by why.");
    for (shard, totals) in totals.iter().enumerate() {
        for (state, count) in LagState::ALL.iter().zip(totals.subscribers) {
            let labels = format!("shard=\"{shard}\",state=\"{}\"", state.name());
            line(&mut text, name, &labels, count as f64);
        }
    }
    channels(&mut text, shards, apps);
    text
}

/// A gauge's name, help and value.
type Figure<T> = (&'static str, &'static str, fn(&T) -> f64);

/// The channels that lag most, whatever shards their subscribers are on.
fn channels(text: &mut String, shards: &[&LagCells], apps: &[&str]) {
    let mut by_name: BTreeMap<(u16, String), ChannelLag> = BTreeMap::new();
    for channel in shards.iter().flat_map(|shard| shard.channels()) {
        by_name
            .entry((channel.app, channel.name().to_owned()))
            .and_modify(|known| {
                known.most = known.most.most(channel.most);
                known.subscribers += channel.subscribers;
            })
            .or_insert(channel);
    }
    let mut worst = Worst::new(limits::LAG_CHANNELS_TOLD);
    for channel in by_name.into_values() {
        worst.add((channel.most.messages, channel.most.ms), channel);
    }
    let worst = worst.take();
    let figures: [Figure<ChannelLag>; 4] = [
        (
            "outpour_channel_lag_messages",
            "Messages that the furthest subscriber of a channel lacks, for the channels that lag most.",
            |channel| channel.most.messages as f64,
        ),
        (
            "outpour_channel_lag_bytes",
            "Bytes that the furthest subscriber of a channel lacks, for the channels that lag most.",
            |channel| channel.most.bytes.unwrap_or(0) as f64,
        ),
        (
            "outpour_channel_lag_seconds",
            "Age of the oldest message that a subscriber of a channel lacks, for the channels that lag most.",
            |channel| channel.most.ms as f64 / 1e3,
        ),
        (
            "outpour_channel_subscribers_behind",
            "Subscribers of a channel that lack messages, for the channels that lag most.",
            |channel| channel.subscribers as f64,
        ),
    ];
    for (name, help, figure) in figures {
        head(text, name, help);
        for (_, channel) in &worst {
            let app = apps.get(usize::from(channel.app)).copied().unwrap_or("");
            let (app, channel_name) = (escaped(app), escaped(channel.name()));
            let labels = format!("app=\"{app}\",channel=\"{channel_name}\"");
            line(text, name, &labels, figure(channel));
        }
    }
}

fn head(text: &mut String, name: &str, help: &str) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge").expect("text takes it");
}

fn line(text: &mut String, name: &str, labels: &str, value: f64) {
    writeln!(text, "{name}{{{labels}}} {value}").expect("text takes it");
}

/// As the value of a label.
fn escaped(value: &str) -> String {
    value
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(messages: u64, bytes: Option<u64>, ms: u64) -> Lag {
        Lag {
            messages,
            bytes,
            ms,
        }
    }

    #[test]
    fn shards_have_their_figures_and_channels_those_of_all_shards() {
        let (one, other) = (LagCells::default(), LagCells::default());
        let mut totals = LagTotals::default();
        totals.add(lag(7, Some(700), 250), LagState::Blocked);
        totals.add(lag(2, None, 1500), LagState::CatchingUp);
        one.set(
            &totals,
            [ChannelLag::new(0, "room", lag(7, Some(700), 1500), 2)],
        );
        other.set(
            &LagTotals::default(),
            [
                ChannelLag::new(0, "room", lag(3, Some(900), 10), 1),
                ChannelLag::new(1, "other", lag(9, None, 1000), 4),
            ],
        );
        let text = exposition(&[&one, &other], &["1001", "a\"b\\"]);
        for line in [
            "# TYPE outpour_lag_seconds_max gauge",
            "outpour_lag_messages_max{shard=\"0\"} 7",
            "outpour_lag_bytes_max{shard=\"0\"} 700",
            "outpour_lag_seconds_max{shard=\"0\"} 1.5",
            "outpour_lag_seconds_max{shard=\"1\"} 0",
            "outpour_subscribers_behind{shard=\"0\",state=\"sweeping\"} 0",
            "outpour_subscribers_behind{shard=\"0\",state=\"blocked\"} 1",
            "outpour_subscribers_behind{shard=\"0\",state=\"catching_up\"} 1",
            "outpour_channel_lag_messages{app=\"1001\",channel=\"room\"} 7",
            "outpour_channel_lag_bytes{app=\"1001\",channel=\"room\"} 900",
            "outpour_channel_lag_seconds{app=\"1001\",channel=\"room\"} 1.5",
            "outpour_channel_subscribers_behind{app=\"1001\",channel=\"room\"} 3",
            "outpour_channel_lag_seconds{app=\"a\\\"b\\\\\",channel=\"other\"} 1",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
        let messages = text.lines().filter(|line| line.contains("lag_messages{"));
        let channels: Vec<&str> = messages.collect();
        assert!(channels[0].contains("other"), "{channels:?}");
    }

    #[test]
    fn the_number_of_series_is_bounded_and_what_was_told_goes() {
        let shards: [LagCells; 2] = Default::default();
        for (number, cells) in shards.iter().enumerate() {
            let channels = (0..100).map(|channel| {
                let name = format!("room-{number}-{channel}");
                ChannelLag::new(0, &name, lag(channel, None, 0), 1)
            });
            cells.set(&LagTotals::default(), channels);
        }
        let all = [&shards[0], &shards[1]];
        let text = exposition(&all, &["1001"]);
        let series = text.matches("outpour_channel_lag_messages{").count();
        assert_eq!(series, limits::LAG_CHANNELS_TOLD);
        for cells in all {
            cells.set(&LagTotals::default(), []);
        }
        assert!(!exposition(&all, &["1001"]).contains("room"));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let name = "\u{e4}".repeat(limits::LAG_NAME_BYTES);
        let channel = ChannelLag::new(0, &name, Lag::default(), 1);
        assert!(channel.name().starts_with("\u{e4}\u{e4}"));
        assert!(channel.name().ends_with(CUT));
        assert!(channel.name().len() <= limits::LAG_NAME_BYTES);
        let whole = "x".repeat(limits::LAG_NAME_BYTES);
        assert_eq!(ChannelLag::new(0, &whole, Lag::default(), 1).name(), whole);
    }
}
