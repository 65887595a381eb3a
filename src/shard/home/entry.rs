//! Those whom a channel's home lets in one by one: members of presence channels, and subscribers of
//! cache channels, who are told the last event.

use std::cmp::Reverse;

use crate::base::socket::Address;
use crate::hub::ask::{Behind, Content, Refused};
use crate::hub::home::{Cached, Kept};
use crate::hub::letter::{Event, Exit, Origin};
use crate::hub::notice::Kind;
use crate::hub::roster::Entry;
use crate::hub::users;
use crate::hub::variant::{self, Variant};
use crate::wire::channel::ChannelKind;
use crate::wire::pusher;
use crate::wire::pusher::announcement::CACHE_MISS;
use crate::wire::pusher::delivery::{self, Begin};
use crate::wire::pusher::member::{MEMBER_ADDED, MEMBER_REMOVED, MemberText};

use crate::shard::Engine;

impl Engine {
    /// A subscriber comes to a channel whose home is here.
    pub(in crate::shard) fn enter(
        &mut self,
        app: u16,
        name: &str,
        address: Address,
        member: Option<MemberText>,
        begin: Begin,
    ) -> Content {
        if let Some(id) = users::watched_id(name) {
            let is_online = self.is_online(app, id);
            return Content::Watching { is_online };
        }
        let kind = ChannelKind::of(name);
        if kind == ChannelKind::ServerToUser {
            // It is the sign-in that is acknowledged.
            return Content::Entered {
                serial: None,
                replies: Vec::new(),
                behind: None,
            };
        }
        let stood = match self.open_retained(app, name) {
            Some(channel) => match self.stand(channel, begin) {
                Ok((position, behind)) => Some((position, behind)),
                Err(refused) => return refused,
            },
            None => None,
        };
        let position = stood.as_ref().map(|(position, _)| position);
        // A channel is occupied before it has a member or misses an event.
        self.review_occupied_of(app, name);
        let mut text = Vec::new();
        if let Some(member) = member {
            let members_max = self.apps.app(app).presence_members_max;
            let (user_id, added) = (member.id_token(), member.added_data());
            let roster = &mut self.kept(app, name).roster;
            match roster.enter(address, member, members_max) {
                Entry::First => {
                    let user_id = &user_id;
                    self.notify(app, name, Kind::MemberAdded { user_id });
                    self.tell_all(app, name, MEMBER_ADDED, &added);
                }
                Entry::Again => {}
                Entry::Full => return full(members_max),
            }
            let roster = &self.kept(app, name).roster;
            roster.acknowledge(name, position, &mut text);
        } else if let Some(position) = position {
            delivery::encode_subscription_succeeded_at(&mut text, name, position);
        } else {
            pusher::encode_subscription_succeeded(&mut text, name);
        }
        let mut replies = vec![text];
        // One who says where it begins gets the last event from there on, or has it.
        let begins_elsewhere = stood.is_some() && begin != Begin::Head;
        if kind.is_cache() && !begins_elsewhere {
            replies.push(self.cached_text(app, name));
        }
        let serial = position.map(|position| position.serial);
        let behind = stood.and_then(|(_, behind)| {
            let roster_changes = self.roster_changes(app, name);
            behind.map(|behind| Behind {
                roster_changes,
                ..behind
            })
        });
        Content::Entered {
            serial,
            replies,
            behind,
        }
    }

    /// One who had come leaves.
    pub(in crate::shard) fn on_exit(&mut self, from: u16, exit: &Exit) {
        let (app, name) = (exit.app, &*exit.channel);
        let address = Address {
            shard: from,
            socket: exit.socket,
        };
        let channel = self.channels.find(app, name, Variant::Plain);
        self.forget_waiter(address, channel);
        let Some(channel) = channel else { return };
        let home = self.channels[channel].home.as_mut();
        let kept = home.and_then(|home| home.kept.as_mut());
        if let Some(member) = kept.and_then(|kept| kept.roster.exit(address)) {
            let user_id = &member.id_token();
            self.notify(app, name, Kind::MemberRemoved { user_id });
            self.tell_all(app, name, MEMBER_REMOVED, &member.removed_data());
        }
        self.forget_over(channel);
    }

    pub(in crate::shard) fn tell_all(&mut self, app: u16, channel: &str, name: &str, data: &str) {
        self.sequence(&Event {
            app,
            origin: Origin::Server,
            channel,
            name,
            data,
            key: "",
            user_id: "",
            idempotency_key: "",
            excluded: None,
            serial: None,
        });
    }

    /// What the home of a channel, which is here, remembers.
    pub(in crate::shard) fn kept(&mut self, app: u16, name: &str) -> &mut Kept {
        let channel = self.channels.find_or_insert(app, name, Variant::Plain);
        let home = self.channels[channel].home.get_or_insert_default();
        home.kept.get_or_insert_default()
    }

    /// The message with the channel's last event, or the one that says that there is none.
    fn cached_text(&mut self, app: u16, name: &str) -> Vec<u8> {
        let channel = self.channels.find(app, name, Variant::Plain);
        let home = channel.and_then(|channel| self.channels[channel].home.as_ref());
        let cached = home.and_then(|home| home.cached(self.now_s));
        let event = Event {
            app,
            origin: Origin::Server,
            channel: name,
            name: cached.map_or(CACHE_MISS, |cached| &cached.name),
            data: cached.map_or("", |cached| &cached.data),
            key: "",
            user_id: "",
            idempotency_key: "",
            excluded: None,
            serial: None,
        };
        let mut text = Vec::new();
        variant::encode_text(&event, &mut text);
        if cached.is_none() {
            self.notify(app, name, Kind::CacheMiss);
        }
        text
    }

    /// A back end published an event to a cache channel.
    pub(in crate::shard) fn cache(&mut self, event: &Event<'_>) {
        let ttl_s = self.apps.app(event.app).cache_ttl_s;
        let over_s = self.now_s.saturating_add(ttl_s);
        let kept = self.kept(event.app, event.channel);
        kept.cached = Some(Cached {
            name: event.name.into(),
            data: event.data.into(),
            over_s,
        });
        if !std::mem::replace(&mut kept.is_listed, true) {
            let channel = self
                .channels
                .find(event.app, event.channel, Variant::Plain)
                .expect("its home was just used");
            let key = self.channels.key_of(channel);
            self.caching.push(Reverse((over_s, key)));
        }
    }

    /// Frees what cache channels remember longer than they may.
    pub(in crate::shard) fn forget_cached(&mut self) {
        while let Some(&Reverse((over_s, key))) = self.caching.peek()
            && over_s <= self.now_s
        {
            self.caching.pop();
            let Some(channel) = self.channels.resolve(key) else {
                continue;
            };
            let home = self.channels[channel].home.as_mut();
            let Some(kept) = home.and_then(|home| home.kept.as_mut()) else {
                continue;
            };
            match &kept.cached {
                // It was published again meanwhile.
                Some(cached) if cached.over_s > self.now_s => {
                    self.caching.push(Reverse((cached.over_s, key)));
                }
                Some(_) | None => {
                    kept.is_listed = false;
                    self.forget_over(channel);
                }
            }
        }
    }

    fn forget_over(&mut self, channel: u32) {
        if let Some(home) = self.channels[channel].home.as_mut() {
            home.forget_over(self.now_s);
        }
        self.drop_home_if_unused(channel);
    }
}

fn full(members_max: usize) -> Content {
    Content::Refused(Refused {
        kind: "LimitReached",
        error: format!("The channel has {members_max} members, and no more may join"),
        status: 4100,
    })
}
