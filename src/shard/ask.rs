//! Questions to homes: put by a connection that waits, answered by the home, carried out here.

use crate::base::metrics::Metric;
use crate::base::socket::{Address, Socket};
use crate::hub::ask::{Answer, Ask, Content, Fetch, Question, Refused};
use crate::hub::channels::Membership;
use crate::hub::letter::Letter;
use crate::hub::variant::Variant;
use crate::wire::pusher;
use crate::wire::pusher::delivery::Begin;
use crate::wire::pusher::member::MemberText;

use super::Engine;

impl Engine {
    /// Puts a question to a channel's home; the connection reads on when it is answered.
    pub(super) fn ask(&mut self, ask: Ask) {
        let home = self.home_of(self.channels.hash(ask.app, &ask.channel));
        self.ask_shard(home, ask);
    }

    pub(super) fn ask_shard(&mut self, home: u16, ask: Ask) {
        self.connections.waiting(ask.requester.slot).receipts += 1;
        if home == self.index {
            self.own_asks.push_back(Box::new(ask));
        } else {
            self.asks.push_back((home, Box::new(ask)));
        }
    }

    /// Adds a subscriber to a channel whose home decides on each, and has it ask to be let in.
    pub(super) fn come_in(
        &mut self,
        slot: u32,
        app: u16,
        channel: &str,
        member: Option<MemberText>,
        begin: Begin,
    ) {
        self.subscribe(slot, app, channel);
        let variant = self.connections[slot].variant;
        self.ask(Ask {
            requester: self.connections.socket(slot),
            app,
            channel: channel.into(),
            question: Question::Enter {
                variant,
                member,
                begin,
            },
        });
    }

    /// Takes back the question of one who asked to be let in. False if it was put already.
    pub(super) fn withdraw_ask(&mut self, requester: Socket, channel: &str) -> bool {
        let before = self.asks.len() + self.own_asks.len();
        let is_other = |ask: &Ask| ask.requester != requester || *ask.channel != *channel;
        self.asks.retain(|(_, ask)| is_other(ask));
        self.own_asks.retain(|ask| is_other(ask));
        self.asks.len() + self.own_asks.len() < before
    }

    /// Posts questions in the order in which they were put to each home, as far as there is credit.
    pub(super) fn post_asks(&mut self) {
        for _ in 0..self.asks.len() {
            let Some((home, ask)) = self.asks.pop_front() else {
                break;
            };
            if !self.connections.is_current(ask.requester) {
                continue;
            }
            if self.may_post(home, &ask) {
                self.mesh.post_publish(home, Letter::Ask(ask));
            } else {
                self.asks.push_back((home, ask));
            }
        }
    }

    /// Whether the question comes behind the letters that it has to come behind, and has credit.
    fn may_post(&mut self, home: u16, ask: &Ask) -> bool {
        if !self.mesh.has_credit(home, 1) {
            return false;
        }
        match ask.question {
            Question::Enter { variant, .. } => {
                let channel = self.channels.find(ask.app, &ask.channel, variant);
                let channel = channel.expect("who enters was added to the subscribers");
                let is_joining = matches!(
                    self.channels[channel].membership,
                    Membership::Joining | Membership::Joined
                );
                is_joining && self.exits.iter().all(|(to, _)| *to != home)
            }
            Question::Fetch(_)
            | Question::Facts { .. }
            | Question::Audiences { .. }
            | Question::Reached(_)
            | Question::Channel { .. }
            | Question::History(_)
            | Question::Users { .. }
            | Question::Terminate
            | Question::List { .. }
            | Question::Laggards { .. } => true,
        }
    }

    /// Answers the questions that connections here put to homes here.
    pub(super) fn answer_own_asks(&mut self) {
        for _ in 0..self.own_asks.len() {
            let Some(mut ask) = self.own_asks.pop_front() else {
                break;
            };
            let content = self.consider(self.index, &mut ask);
            self.on_answer(*ask.answer(content));
        }
    }

    /// A question of another shard. One about what there is waits for the next turn: what its asker
    /// may know of came in other lanes, and some of those were read before this one.
    pub(super) fn on_ask(&mut self, from: u16, mut ask: Box<Ask>) {
        match ask.question {
            Question::Enter { variant, .. } => {
                let content = self.consider(from, &mut ask);
                let channel = self.channels.find(ask.app, &ask.channel, Variant::Plain);
                let channel = channel.expect("a shard joins before anybody there enters");
                let home = self.channels[channel].home.as_mut();
                let home = home.expect("a shard joins before anybody there enters");
                let serial = home.serial();
                home.stream(variant)
                    .answer(from, serial, ask.answer(content));
                self.owe(channel);
            }
            Question::Fetch(Fetch { variant, .. }) => self.answer_fetch(from, ask, variant),
            Question::Facts { .. }
            | Question::Audiences { .. }
            | Question::Reached(_)
            | Question::Channel { .. }
            | Question::History(_)
            | Question::Users { .. }
            | Question::Terminate
            | Question::List { .. }
            | Question::Laggards { .. } => self.queries.push_back((from, ask)),
        }
    }

    /// Answers the first questions of other shards, which came before the letters of this turn.
    pub(super) fn answer_queries(&mut self, count: usize) {
        for _ in 0..count {
            let Some((from, mut ask)) = self.queries.pop_front() else {
                break;
            };
            let content = self.consider(from, &mut ask);
            self.mesh
                .post_receipt(from, Letter::Answer(ask.answer(content)));
        }
    }

    pub(super) fn consider(&mut self, from: u16, ask: &mut Ask) -> Content {
        let address = Address {
            shard: from,
            socket: ask.requester,
        };
        match &mut ask.question {
            Question::Enter { member, begin, .. } => {
                self.enter(ask.app, &ask.channel, address, member.take(), *begin)
            }
            Question::Fetch(fetch) => self.fetch(ask.app, &ask.channel, address, fetch),
            Question::Facts { place } => Content::Facts {
                place: *place,
                facts: self.facts(ask.app, &ask.channel),
            },
            Question::Audiences { place } => Content::Audiences {
                place: *place,
                audiences: self.audiences(ask.app, &ask.channel),
            },
            Question::Reached(reach) => self.begin_count(address, *reach),
            Question::Channel { told } => self.describe(ask.app, &ask.channel, *told),
            Question::History(page) => self.history(ask.app, &ask.channel, address, *page),
            Question::Users { with_user_info } => {
                self.list_users(ask.app, &ask.channel, *with_user_info)
            }
            Question::Terminate => self.terminate(ask.app, &ask.channel),
            Question::List { told, from } => self.list(ask.app, &ask.channel, *told, *from),
            Question::Laggards { search, from } => {
                self.laggards(ask.app, &ask.channel, *search, *from)
            }
        }
    }

    /// What a home here or elsewhere answered.
    pub(super) fn on_answer(&mut self, answer: Answer) {
        if !self.connections.is_current(answer.requester) {
            return;
        }
        let slot = answer.requester.slot;
        let place = self.place_of(slot, answer.app, &answer.channel);
        match answer.content {
            Content::Entered {
                serial,
                replies,
                behind,
            } => {
                // A session that was closed meanwhile has been told the last that it is told.
                if let Some(place) = self.let_in(slot, place) {
                    for (number, reply) in replies.iter().enumerate() {
                        // A reader comes back to where it stood, even if no event came.
                        match serial.filter(|_| number == 0 && self.is_reader(slot)) {
                            Some(serial) => self.reply_to_reader(slot, reply, Some(serial)),
                            None => self.reply_text(slot, reply),
                        }
                    }
                    if let Some(behind) = behind {
                        self.fall_behind(slot, place, behind);
                    }
                }
            }
            Content::Fetched(fetched) => {
                return self.on_fetched(answer.requester, answer.app, &answer.channel, *fetched);
            }
            Content::Watching { is_online } => {
                let _has_left = self.let_in(slot, place).is_none();
                self.on_watching(slot, &answer.channel, is_online);
            }
            content @ (Content::Facts { .. }
            | Content::Audiences { .. }
            | Content::Body(_)
            | Content::Waits
            | Content::Listed { .. }
            | Content::Laggards { .. }) => {
                self.on_told(slot, content);
            }
            Content::Refused(Refused {
                kind,
                error,
                status,
            }) => {
                let Some(place) = place else { return };
                self.unsubscribe(slot, place);
                let mut text = Vec::new();
                pusher::encode_subscription_error(&mut text, &answer.channel, kind, &error, status);
                self.reply_text(slot, &text);
                self.metrics.add(Metric::MessagesRefused, 1);
            }
        }
        self.on_receipt(answer.requester);
    }

    /// The home's frames up to here are those that the subscriber does not get. Nothing if it has
    /// left.
    fn let_in(&mut self, slot: u32, place: Option<usize>) -> Option<usize> {
        let place = place?;
        let held = self.connections[slot].subscriptions[place];
        let record = &mut self.channels[held.channel];
        record.subscribers[held.index as usize].cursor = record.head;
        Some(place)
    }
}
