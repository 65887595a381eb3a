//! A call of the HTTP API that waits for what homes have to tell.

use crate::base::dialect::Dialect;
use crate::base::socket::Address;
use crate::base::worst::Worst;
use crate::hub::ask::Facts;
use crate::wire::api::{self, Attributes, Laggard, Page, PublishForm, Search};
use crate::wire::channel::ChannelKind;
use crate::wire::pusher::delivery::Serial;

/// What the answer will be made of.
#[derive(Debug)]
pub enum Query {
    /// One home's answer is the body.
    One(Vec<u8>),
    /// A page of a channel's events, for which its requester perhaps waits.
    Page(Box<Poll>),
    /// The entries of all shards.
    List {
        app: u16,
        prefix: Box<str>,
        told: Attributes,
        pieces: Vec<Vec<u8>>,
    },
    /// The worst of all shards.
    Laggards {
        app: u16,
        prefix: Box<str>,
        search: Search,
        worst: Worst<Laggard>,
    },
    /// Events that are published, and then asked about.
    Publish(Publish),
}

/// A page that is asked for.
#[derive(Debug)]
pub struct Poll {
    pub app: u16,
    pub channel: Box<str>,
    pub page: Page,
    /// Until when its requester waits for the first event; 0 if it does not.
    pub until_ms: u64,
    pub state: PollState,
}

/// ```text
/// Asked -- there is something, or it does not wait --> Told
/// Asked -- there is nothing yet --> Waits -- an event came, or the time is over --> Asked
/// ```
#[derive(Debug)]
pub enum PollState {
    Asked,
    Waits,
    Told(Vec<u8>),
}

/// A publish whose answer is not the plain one.
#[derive(Debug)]
pub struct Publish {
    pub app: u16,
    pub form: PublishForm,
    /// For each channel of an event, or for each event of a batch.
    pub entries: Vec<Entry>,
    /// The homes were asked.
    pub is_asked: bool,
}

#[derive(Debug)]
pub struct Entry {
    pub channel: Box<str>,
    /// What is to be told of it, if anything.
    pub told: Option<Attributes>,
    pub facts: Facts,
    /// What its event has, as the home said.
    pub serial: Option<Serial>,
    /// The connection that its event is not for.
    pub excluded: Option<Address>,
    /// A hook has dropped its event.
    pub is_dropped: bool,
    /// How many subscribers have its event, as far as shards have said; nothing if one could not say.
    pub delivered: Option<u64>,
}

impl Publish {
    /// Nothing if the plain answer will do.
    pub fn new(app: u16, form: PublishForm, events: &[api::Event<'_>]) -> Option<Publish> {
        let is_plain = events.iter().all(|event| event.info.is_none());
        if is_plain && form.status() == PublishForm::Event.status() {
            return None;
        }
        let entries = events.iter().flat_map(|event| {
            event.channels.iter().map(|channel| Entry {
                channel: channel.as_ref().into(),
                told: event
                    .info
                    .map(|info| info.applicable_to(ChannelKind::of(channel))),
                facts: Facts::default(),
                serial: None,
                excluded: None,
                is_dropped: false,
                delivered: Some(0),
            })
        });
        Some(Publish {
            app,
            form,
            entries: entries.collect(),
            is_asked: false,
        })
    }

    pub fn encode(&self, dialect: Dialect, body: &mut Vec<u8>) {
        let told = |entry: &Entry| {
            let Facts {
                users,
                subscriptions,
            } = entry.facts;
            let facts = api::Facts {
                users,
                subscriptions,
                cached: None,
                serial: entry.serial,
                delivered: entry.delivered,
            };
            entry.told.map(|told| (told, facts))
        };
        if self.entries.iter().all(|entry| entry.told.is_none()) {
            return api::encode_accepted(body, dialect);
        }
        match self.form {
            PublishForm::Batch => api::encode_batch_answer(body, self.entries.iter().map(told)),
            PublishForm::Event | PublishForm::ChannelEvent => {
                let entries = self.entries.iter();
                let told = entries.filter_map(|entry| {
                    told(entry).map(|(told, facts)| (&*entry.channel, told, facts))
                });
                api::encode_event_answer(body, told);
            }
        }
    }
}
