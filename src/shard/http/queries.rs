//! Calls of the HTTP API that homes answer: what channels and users there are, and the end of a
//! user's connections.
//!
//! A list of channels is asked of each shard in pages, so that no turn is longer for the number of
//! channels.

use crate::base::limits;
use crate::base::metrics::Metric;
use crate::hub::ask::{Ask, Content, Facts, Question};
use crate::hub::letter::Requester;
use crate::hub::query::{Entry, PollState, Publish, Query};
use crate::hub::variant::Variant;
use crate::wire::api::{self, Attributes};
use crate::wire::pusher::CloseCode;
use crate::wire::pusher::delivery::Serial;
use crate::wire::pusher::user;

use super::Answer;
use crate::shard::Engine;
use crate::shard::connections::Pending;

impl Engine {
    /// Puts a question about one channel; the home's answer is the body.
    pub(in crate::shard) fn query(
        &mut self,
        slot: u32,
        app: u16,
        channel: &str,
        question: Question,
    ) {
        let query = Query::One(Vec::new());
        self.connections.waiting(slot).pending = Some(Pending::Query(Box::new(query)));
        self.ask(Ask {
            requester: self.connections.socket(slot),
            app,
            channel: channel.into(),
            question,
        });
    }

    /// Has every shard tell the channels whose home it is.
    pub(in crate::shard) fn query_list(
        &mut self,
        slot: u32,
        app: u16,
        prefix: &str,
        told: Attributes,
    ) {
        let query = Query::List {
            app,
            prefix: prefix.into(),
            told,
            pieces: Vec::new(),
        };
        self.connections.waiting(slot).pending = Some(Pending::Query(Box::new(query)));
        for shard in 0..self.mesh.shards() as u16 {
            self.ask_for_page(slot, shard, 0);
        }
    }

    /// Asks one shard for its next channels.
    fn ask_for_page(&mut self, slot: u32, shard: u16, from: u32) {
        let waiting = self.connections[slot].waiting.as_ref();
        let pending = waiting.and_then(|waiting| waiting.pending.as_ref());
        let Some(Pending::Query(query)) = pending else {
            return;
        };
        let Query::List {
            app, prefix, told, ..
        } = &**query
        else {
            return;
        };
        let ask = Ask {
            requester: self.connections.socket(slot),
            app: *app,
            channel: prefix.clone(),
            question: Question::List { told: *told, from },
        };
        self.ask_shard(shard, ask);
    }

    /// Takes a part of an answer.
    pub(in crate::shard) fn on_told(&mut self, slot: u32, content: Content) {
        let waiting = self.connections[slot].waiting.as_mut();
        let pending = waiting.and_then(|waiting| waiting.pending.as_mut());
        let Some(Pending::Query(query)) = pending else {
            return;
        };
        match (&mut **query, content) {
            (Query::One(body), Content::Body(whole)) => *body = whole,
            (Query::Page(poll), Content::Body(whole)) => poll.state = PollState::Told(whole),
            (Query::Page(poll), Content::Waits) => poll.state = PollState::Waits,
            (Query::Publish(publish), Content::Facts { place, facts }) => {
                publish.entries[place as usize].facts = facts;
            }
            (Query::Publish(publish), Content::Audiences { place, audiences }) => {
                let app = publish.app;
                let entry = &publish.entries[usize::from(place)];
                let (channel, excluded) = (entry.channel.clone(), entry.excluded);
                self.ask_reach(slot, app, &channel, excluded, place, &audiences);
            }
            (Query::Publish(_), Content::Waits) => self.connections.waiting(slot).receipts += 1,
            (
                Query::List { pieces, .. },
                Content::Listed {
                    entries,
                    shard,
                    next,
                },
            ) => {
                pieces.push(entries);
                if let Some(from) = next {
                    self.ask_for_page(slot, shard, from);
                }
            }
            (
                Query::Laggards { worst, search, .. },
                Content::Laggards {
                    laggards,
                    shard,
                    next,
                },
            ) => {
                for laggard in laggards {
                    worst.add(search.by.badness(&laggard.lag), laggard);
                }
                if let Some(from) = next {
                    self.ask_for_laggards(slot, shard, from);
                }
            }
            (query, content) => unreachable!("{query:?} asked for something else than {content:?}"),
        }
    }

    /// An event is published; if its publisher waits for an answer that tells serials, this is its.
    pub(in crate::shard) fn note_serial(&mut self, requester: Requester, serial: Option<Serial>) {
        if serial.is_none() {
            return;
        }
        if let Some(entry) = self.entry_mut(requester) {
            entry.serial = serial;
        }
    }

    pub(in crate::shard) fn note_dropped(&mut self, requester: Requester) {
        if let Some(entry) = self.entry_mut(requester) {
            entry.is_dropped = true;
        }
    }

    /// One audience of an event was counted.
    pub(in crate::shard) fn note_reached(
        &mut self,
        requester: Requester,
        subscribers: Option<u32>,
    ) {
        if let Some(entry) = self.entry_mut(requester) {
            let before = entry.delivered.zip(subscribers);
            entry.delivered = before.map(|(before, more)| before + u64::from(more));
        }
    }

    /// What is to be told of an event, if its publisher waits for that.
    fn entry_mut(&mut self, requester: Requester) -> Option<&mut Entry> {
        let Requester { socket, place } = requester;
        if !self.connections.is_current(socket) {
            return None;
        }
        let waiting = self.connections[socket.slot].waiting.as_mut();
        let pending = waiting.and_then(|waiting| waiting.pending.as_mut());
        let Some(Pending::Query(query)) = pending else {
            return None;
        };
        match &mut **query {
            Query::Publish(publish) => Some(&mut publish.entries[usize::from(place)]),
            Query::One(_) | Query::Page(_) | Query::List { .. } | Query::Laggards { .. } => None,
        }
    }

    /// The last answer that a query waited for is there. Gives what its requester is told, unless
    /// there is more to ask.
    pub(in crate::shard) fn conclude_query(
        &mut self,
        slot: u32,
        mut query: Box<Query>,
    ) -> Option<Answer> {
        match &mut *query {
            Query::One(body) => Some(Answer::json(200, std::mem::take(body))),
            Query::Page(poll) => match &mut poll.state {
                PollState::Told(body) => Some(Answer::json(200, std::mem::take(body))),
                PollState::Waits | PollState::Asked => {
                    self.wait_for_event(slot, query);
                    None
                }
            },
            Query::List { pieces, .. } => {
                let mut answer = Answer::json(200, Vec::new());
                answer.more = api::channel_list(std::mem::take(pieces));
                Some(answer)
            }
            Query::Laggards { worst, .. } => {
                let worst = worst.take();
                let mut body = Vec::new();
                api::encode_laggards(&mut body, worst.iter().map(|(_, laggard)| laggard));
                Some(Answer::json(200, body))
            }
            Query::Publish(publish) => {
                if self.ask_facts(slot, publish) {
                    self.connections.waiting(slot).pending = Some(Pending::Query(query));
                    return None;
                }
                let mut body = Vec::new();
                publish.encode(self.options.compat, &mut body);
                Some(Answer::json(publish.form.status(), body))
            }
        }
    }

    /// Asks the homes of the channels that a publish wants to be told of, once.
    fn ask_facts(&mut self, slot: u32, publish: &mut Publish) -> bool {
        if std::mem::replace(&mut publish.is_asked, true) {
            return false;
        }
        let mut asks = false;
        for (place, entry) in (0..).zip(&publish.entries) {
            let told = entry.told.unwrap_or_default();
            let is_counted = told.delivered && !entry.is_dropped;
            let facts = told.asks_home().then_some(Question::Facts {
                place: u32::from(place),
            });
            let audiences = is_counted.then_some(Question::Audiences { place });
            for question in facts.into_iter().chain(audiences) {
                asks = true;
                self.ask(Ask {
                    requester: self.connections.socket(slot),
                    app: publish.app,
                    channel: entry.channel.clone(),
                    question,
                });
            }
        }
        asks
    }

    pub(in crate::shard) fn facts(&self, app: u16, name: &str) -> Facts {
        let channel = self.channels.find(app, name, Variant::Plain);
        channel.map_or(Facts::default(), |channel| self.facts_of(channel))
    }

    fn facts_of(&self, channel: u32) -> Facts {
        let home = self.channels[channel].home.as_ref();
        let kept = home.and_then(|home| home.kept.as_ref());
        Facts {
            users: kept.map_or(0, |kept| kept.roster.len() as u64),
            subscriptions: u64::from(self.subscribers(channel)),
        }
    }

    pub(in crate::shard) fn describe(&self, app: u16, name: &str, told: Attributes) -> Content {
        let Facts {
            users,
            subscriptions,
        } = self.facts(app, name);
        let channel = self.channels.find(app, name, Variant::Plain);
        let home = channel.and_then(|channel| self.channels[channel].home.as_ref());
        let cached = home.and_then(|home| home.cached(self.now_s));
        let cached = cached.map(|cached| api::Cached {
            data: &cached.data,
            ttl_s: u64::from(cached.over_s - self.now_s),
        });
        let facts = api::Facts {
            users,
            subscriptions,
            cached,
            serial: None,
            delivered: None,
        };
        let mut body = Vec::new();
        api::encode_channel(&mut body, told, &facts);
        Content::Body(body)
    }

    pub(in crate::shard) fn list_users(
        &self,
        app: u16,
        name: &str,
        with_user_info: bool,
    ) -> Content {
        let channel = self.channels.find(app, name, Variant::Plain);
        let home = channel.and_then(|channel| self.channels[channel].home.as_ref());
        let kept = home.and_then(|home| home.kept.as_ref());
        let members = kept.into_iter().flat_map(|kept| kept.roster.members());
        let users: Vec<(String, Option<String>)> = members
            .map(|member| {
                let user_info = with_user_info.then(|| member.user_info_token());
                (member.id_token(), user_info)
            })
            .collect();
        let mut body = Vec::new();
        let users = users.iter().map(|(id, info)| (&**id, info.as_deref()));
        api::encode_users(&mut body, users);
        Content::Body(body)
    }

    /// One page of the channels whose home is here.
    pub(in crate::shard) fn list(
        &self,
        app: u16,
        prefix: &str,
        told: Attributes,
        from: u32,
    ) -> Content {
        let mut entries = Vec::new();
        let (records, next) = self.channels.page(from, limits::LISTED_PER_PAGE);
        for (channel, record) in records {
            let is_listed = record.app == app
                && record.home.is_some()
                && record.name.starts_with(prefix)
                && !record.name.starts_with('#');
            let facts = if is_listed {
                self.facts_of(channel)
            } else {
                Facts::default()
            };
            if facts.subscriptions > 0 {
                let facts = api::Facts {
                    users: facts.users,
                    subscriptions: facts.subscriptions,
                    cached: None,
                    serial: None,
                    delivered: None,
                };
                api::write_channel_entry(&mut entries, &record.name, told, &facts);
            }
        }
        Content::Listed {
            entries,
            shard: self.index,
            next,
        }
    }

    /// Ends the connections of a user whose home is here.
    pub(in crate::shard) fn terminate(&mut self, app: u16, name: &str) -> Content {
        let channel = self.channels.find(app, name, Variant::Plain);
        let home = channel.and_then(|channel| self.channels[channel].home.as_mut());
        let mut local = Vec::new();
        if let Some(home) = home {
            for stream in &mut home.streams {
                local.extend(stream.local);
                for interest in &mut stream.interests {
                    interest.owes_end = true;
                }
            }
        }
        for audience in local {
            self.end_audience(audience);
        }
        if let Some(channel) = channel
            && self.channels.is_live(channel)
        {
            self.owe(channel);
        }
        let mut body = Vec::new();
        api::encode_accepted(&mut body, self.options.compat);
        Content::Body(body)
    }

    /// Ends the connections that are subscribed to a user's own channel here.
    pub(in crate::shard) fn end_audience(&mut self, audience: u32) {
        let record = &self.channels[audience];
        let slots: Vec<u32> = record.subscribers.iter().map(|one| one.slot).collect();
        for slot in slots {
            self.metrics.add(Metric::Terminated, 1);
            self.refuse_session(slot, CloseCode::Unauthorized, user::TERMINATED);
        }
    }
}
