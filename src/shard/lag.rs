//! Who is behind: the look at cursors that finds them, and the survey that keeps the metrics.
//!
//! Sweeping keeps no account of lags. Only in a channel whose sweep is not done, or that has
//! subscribers that were held back, can a cursor be before the head; so a survey looks at those
//! once a second, and at those who catch up or are parked, a part in each turn.
//!
//! ```text
//! nothing  -- a second has passed --> due
//! due      -- the turn's sends are settled, somebody may be behind --> channel by channel
//! channels -- all were looked at --> those who catch up, slot by slot --> told, nothing
//! ```
//!
//! A survey takes some turns, so its figures are of somewhat different moments, and one who moves in
//! its channel's array meanwhile may be missed or counted twice.

use std::collections::BTreeMap;

use crate::base::lag::{ChannelLag, Lag, LagState, LagTotals};
use crate::base::limits;
use crate::base::metrics::Metric;
use crate::base::worst::Worst;
use crate::hub::audience::{Standing, Subscriber};
use crate::hub::channels::Channel;
use crate::hub::lag::{Gauge, Place};
use crate::hub::retained::Retained;
use crate::hub::variant::Variant;

use super::Engine;

/// A subscriber that is behind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lagging {
    pub(super) channel: u32,
    pub(super) slot: u32,
    pub(super) lag: Lag,
    pub(super) state: LagState,
}

/// The look at all who are behind that the metrics tell of.
#[derive(Debug)]
pub struct Survey {
    is_due: bool,
    /// Whether what was told last is something else than nothing.
    has_told: bool,
    /// While it is under way.
    stage: Option<Stage>,
    /// The channels to be looked at, the next one last.
    channels: Vec<u32>,
    totals: LagTotals,
    /// Of the channel that is being looked at, and of those in which somebody catches up.
    found: Found,
    catching_up: BTreeMap<u32, Found>,
    worst: Worst<ChannelLag>,
    /// Scratch, kept for its memory.
    lagging: Vec<Lagging>,
}

/// What was found in one channel.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    most: Lag,
    subscribers: u64,
}

impl Found {
    fn add(&mut self, lag: Lag) {
        self.most = self.most.most(lag);
        self.subscribers += 1;
    }
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// From this subscriber on of the next channel.
    Channels { subscriber: u32 },
    /// From this slot on.
    CatchingUp { slot: u32 },
}

impl Default for Survey {
    fn default() -> Survey {
        Survey {
            is_due: false,
            has_told: false,
            stage: None,
            channels: Vec::new(),
            totals: LagTotals::default(),
            found: Found::default(),
            catching_up: BTreeMap::new(),
            worst: Worst::new(limits::LAG_CHANNELS_KEPT),
            lagging: Vec::new(),
        }
    }
}

impl Survey {
    /// A second has passed. A survey that takes longer is not disturbed.
    pub(super) fn begin(&mut self) {
        self.is_due = self.stage.is_none();
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.stage.is_some()
    }

    /// Whether what was told is to be told anew, even if nobody is behind any more.
    pub(super) fn is_needed(&self) -> bool {
        self.has_told
    }

    /// One channel was looked at whole. A channel may be named more than once: in several variants,
    /// and for those who catch up in it.
    fn name(&mut self, record: &Channel, found: Found) {
        let badness = (found.most.messages, found.most.ms);
        if found.subscribers > 0 && self.worst.has_room(badness) {
            let Found { most, subscribers } = found;
            let channel = ChannelLag::new(record.app, &record.name, most, subscribers);
            self.worst.add(badness, channel);
        }
    }
}

impl Engine {
    /// Looks at the next of all subscribers here in the channels that `is_wanted` names, and adds those
    /// who are behind. Gives where to go on, unless it is through.
    pub(super) fn look_on(
        &self,
        from: Place,
        lagging: &mut Vec<Lagging>,
        is_wanted: impl Fn(&Channel) -> bool,
    ) -> Option<Place> {
        let (from, mut subscriber) = match from {
            Place::Channel {
                channel,
                subscriber,
            } => (channel, subscriber),
            Place::CatchingUp { slot } => {
                let next = self.look_at_backlogs(slot, lagging);
                lagging.retain(|one| is_wanted(&self.channels[one.channel]));
                return next.map(|slot| Place::CatchingUp { slot });
            }
        };
        let mut looks = limits::LAG_LOOKS_PER_TURN;
        let (records, next) = self.channels.page(from, looks as u32);
        for (channel, record) in records {
            if looks == 0 {
                return Some(Place::Channel {
                    channel,
                    subscriber: 0,
                });
            }
            looks -= 1;
            if !is_wanted(record) {
                subscriber = 0;
                continue;
            }
            let stopped = self.look_at_channel(channel, subscriber, &mut looks, lagging);
            if let Some(subscriber) = stopped {
                return Some(Place::Channel {
                    channel,
                    subscriber,
                });
            }
            subscriber = 0;
        }
        Some(match next {
            Some(channel) => Place::Channel {
                channel,
                subscriber: 0,
            },
            None if self.is_anybody_beyond() => Place::CatchingUp { slot: 0 },
            None => return None,
        })
    }

    /// Goes on with the survey, after the turn's sends are settled: who is at the head then is not
    /// behind.
    pub(super) fn survey_lag(&mut self) {
        if std::mem::take(&mut self.survey.is_due) {
            self.channels.list_unsettled(&mut self.survey.channels);
            let is_anybody = !self.survey.channels.is_empty() || self.is_anybody_beyond();
            if is_anybody || self.survey.has_told {
                self.survey.stage = Some(Stage::Channels { subscriber: 0 });
            }
        }
        let Some(stage) = self.survey.stage else {
            return;
        };
        let mut survey = std::mem::take(&mut self.survey);
        survey.stage = match stage {
            Stage::Channels { subscriber } => self.survey_channels(&mut survey, subscriber),
            Stage::CatchingUp { slot } => self.survey_backlogs(&mut survey, slot),
        };
        if survey.stage.is_none() {
            self.tell_lag(&mut survey);
        }
        self.survey = survey;
    }

    fn survey_channels(&self, survey: &mut Survey, mut subscriber: u32) -> Option<Stage> {
        let mut looks = limits::LAG_LOOKS_PER_TURN;
        while let Some(channel) = survey.channels.pop() {
            looks = looks.saturating_sub(1);
            if self.channels.is_live(channel) {
                let lagging = &mut survey.lagging;
                let stopped = self.look_at_channel(channel, subscriber, &mut looks, lagging);
                for one in survey.lagging.drain(..) {
                    survey.totals.add(one.lag, one.state);
                    survey.found.add(one.lag);
                }
                if let Some(subscriber) = stopped {
                    survey.channels.push(channel);
                    return Some(Stage::Channels { subscriber });
                }
                let found = std::mem::take(&mut survey.found);
                survey.name(&self.channels[channel], found);
            }
            subscriber = 0;
            if looks == 0 {
                return Some(Stage::Channels { subscriber });
            }
        }
        let is_anybody = self.is_anybody_beyond();
        is_anybody.then_some(Stage::CatchingUp { slot: 0 })
    }

    fn survey_backlogs(&self, survey: &mut Survey, slot: u32) -> Option<Stage> {
        let next = self.look_at_backlogs(slot, &mut survey.lagging);
        for one in survey.lagging.drain(..) {
            survey.totals.add(one.lag, one.state);
            let found = survey.catching_up.entry(one.channel).or_default();
            found.add(one.lag);
        }
        next.map(|slot| Stage::CatchingUp { slot })
    }

    fn tell_lag(&self, survey: &mut Survey) {
        for (channel, found) in std::mem::take(&mut survey.catching_up) {
            if self.channels.is_live(channel) {
                survey.name(&self.channels[channel], found);
            }
        }
        let totals = std::mem::take(&mut survey.totals);
        survey.has_told = totals != LagTotals::default();
        let channels = survey.worst.take().into_iter().map(|(_, channel)| channel);
        self.metrics.lag().set(&totals, channels);
    }

    /// Looks at the subscribers of one channel from `first` on, as many as there are looks left. Gives
    /// where it stopped before it was through.
    fn look_at_channel(
        &self,
        channel: u32,
        first: u32,
        looks: &mut usize,
        lagging: &mut Vec<Lagging>,
    ) -> Option<u32> {
        let sweep = self.channels.sweep(channel)?;
        let record = &self.channels[channel];
        let rest = record.subscribers.get(first as usize..)?;
        let count = rest.len().min(*looks);
        *looks -= count;
        let mut gauge = Gauge::new(sweep, self.now_ms);
        for subscriber in &rest[..count] {
            if let Standing::Behind(cursor) = subscriber.standing(record.head)
                && let Some((lag, state)) = self.lag_of(channel, subscriber, cursor, &mut gauge)
            {
                lagging.push(Lagging {
                    channel,
                    slot: subscriber.slot,
                    lag,
                    state,
                });
            }
        }
        (count < rest.len()).then_some(first + count as u32)
    }

    /// Nothing of one who gets none of the frames that it is behind with, and of one who still gets
    /// retained events: that one's backlog tells it.
    fn lag_of(
        &self,
        channel: u32,
        subscriber: &Subscriber,
        cursor: u64,
        gauge: &mut Gauge<'_>,
    ) -> Option<(Lag, LagState)> {
        let slot = subscriber.slot;
        // Of most the record, which lies in no cache, need not be read.
        if self.connections.direct.contains(slot) {
            return Some((gauge.lag(cursor), LagState::Sweeping));
        }
        if self.connections.backlog(slot, channel).is_some() {
            return None;
        }
        let connection = &self.connections[slot];
        let lag = match connection.exceptions {
            0 => gauge.lag(cursor),
            _ => gauge.lag_with_exceptions(slot, cursor)?,
        };
        let state = match connection.is_blocked {
            true => LagState::Blocked,
            false => LagState::Sweeping,
        };
        Some((lag, state))
    }

    /// Looks at the connections from `first` on for those who catch up. Gives where it stopped before
    /// it was through.
    fn look_at_backlogs(&self, first: u32, lagging: &mut Vec<Lagging>) -> Option<u32> {
        if !self.is_anybody_beyond() {
            return None;
        }
        let mut looks = limits::LAG_LOOKS_PER_TURN;
        for slot in first..self.connections.slots_in_use() {
            if looks == 0 {
                return Some(slot);
            }
            looks -= 1;
            for backlog in self.connections.backlogs(slot) {
                looks = looks.saturating_sub(limits::LAG_LOOKS_PER_BACKLOG);
                let channel = backlog.channel;
                let lag = backlog.lag(self.head_serial(channel), self.now_s);
                let live = self.live_lag(slot, channel);
                lagging.push(Lagging {
                    channel,
                    slot,
                    lag: Lag {
                        messages: lag.messages + live.messages,
                        ..lag.most(Lag {
                            bytes: None,
                            ..live
                        })
                    },
                    state: LagState::CatchingUp,
                });
            }
            if self.connections[slot].is_blocked {
                self.look_for_parked(slot, lagging);
            }
        }
        None
    }

    /// Whether some who are behind may have cursors beyond the head: those who catch up, and those that
    /// were parked, of whom none can be on a shard that never parked one.
    fn is_anybody_beyond(&self) -> bool {
        self.connections.is_anybody_behind() || self.metrics.read(Metric::SlowParked) > 0
    }

    /// How old what they lack is, only their channel's home knows; if that is elsewhere, it is as old as
    /// the oldest frame here at least.
    fn look_for_parked(&self, slot: u32, lagging: &mut Vec<Lagging>) {
        for held in &self.connections[slot].subscriptions {
            let record = &self.channels[held.channel];
            let subscriber = record.subscribers[held.index as usize];
            let Standing::Parked(serial) = subscriber.standing(record.head) else {
                continue;
            };
            let retained = self.retained_here(record);
            let since_s = retained.map_or(0, |retained| retained.came_s(serial + 1));
            let since_ms = match since_s {
                0 => {
                    let sweep = self.channels.sweep(held.channel);
                    sweep.and_then(|sweep| sweep.log.came_ms(sweep.log.tail()))
                }
                since_s => Some(u64::from(since_s) * 1000),
            };
            lagging.push(Lagging {
                channel: held.channel,
                slot,
                lag: Lag {
                    messages: self.head_serial(held.channel).saturating_sub(serial),
                    bytes: None,
                    ms: since_ms.map_or(0, |since_ms| self.now_ms.saturating_sub(since_ms)),
                },
                state: LagState::Blocked,
            });
        }
    }

    /// What one who was given the last retained events is behind with in the live log.
    fn live_lag(&self, slot: u32, channel: u32) -> Lag {
        let record = &self.channels[channel];
        let mut held = self.connections[slot].subscriptions.iter();
        let place = held.find(|held| held.channel == channel);
        let subscriber = place.map(|place| record.subscribers[place.index as usize]);
        match subscriber.map(|subscriber| subscriber.standing(record.head)) {
            Some(Standing::Behind(cursor)) => {
                let sweep = self.channels.sweep(channel);
                sweep.map_or(Lag::default(), |sweep| {
                    Gauge::new(sweep, self.now_ms).lag(cursor)
                })
            }
            Some(
                Standing::AtHead | Standing::Waiting | Standing::CatchingUp | Standing::Parked(_),
            )
            | None => Lag::default(),
        }
    }

    /// The last serial of the channel, as far as is known here; 0 if it has none.
    fn head_serial(&self, channel: u32) -> u64 {
        let retained = self.retained_here(&self.channels[channel]);
        let at_home = retained.map_or(0, |retained| retained.next().number - 1);
        at_home.max(self.channels.serial(channel))
    }

    /// What the channel retains, if its home is here.
    fn retained_here(&self, record: &Channel) -> Option<&Retained> {
        let plain = self
            .channels
            .find(record.app, &record.name, Variant::Plain)?;
        self.channels[plain].home.as_ref()?.retained.as_deref()
    }
}
