//! What happened in channels, for those outside who want to know: from a shard to the edge thread.
//!
//! Sources: Pusher Channels documentation, "Webhooks": the events, their members and their names.

use super::durable::{Append, Written};
use super::hook::{Consult, Verdict};
use crate::options::{AppOptions, EventType, EventTypes, WebhookOptions};
use crate::wire::json::{string_length, write_string};
use crate::wire::pusher::SocketId;

/// What a shard posts to the edge thread. The lane is full: a notice is dropped, a question is
/// answered as its hook has it for a failure, an event for the journal is refused, and all are counted.
#[derive(Debug)]
pub enum ToEdge {
    Notice(Box<Notice>),
    Consult(Box<Consult>),
    Append(Box<Append>),
}

/// What the edge thread posts to a shard: a word for what the shard posted, so that the lane has
/// room for each.
#[derive(Debug)]
pub enum FromEdge {
    Verdict(Verdict),
    Written(Written),
}

/// Something happened in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub app: u16,
    pub channel: Box<str>,
    pub kind: Kind<Box<str>>,
}

/// What happened. All texts are JSON tokens as they came: `event` is a string, `user_id` a string or
/// a number, `data` any value, and empty if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<T> {
    ChannelOccupied,
    ChannelVacated,
    MemberAdded {
        user_id: T,
    },
    MemberRemoved {
        user_id: T,
    },
    ClientEvent {
        event: T,
        data: T,
        socket_id: SocketId,
        user_id: Option<T>,
    },
    CacheMiss,
    SubscriptionCount {
        count: u64,
    },
}

impl<T> Kind<T> {
    pub fn event_type(&self) -> EventType {
        match self {
            Kind::ChannelOccupied => EventType::ChannelOccupied,
            Kind::ChannelVacated => EventType::ChannelVacated,
            Kind::MemberAdded { .. } => EventType::MemberAdded,
            Kind::MemberRemoved { .. } => EventType::MemberRemoved,
            Kind::ClientEvent { .. } => EventType::ClientEvent,
            Kind::CacheMiss => EventType::CacheMiss,
            Kind::SubscriptionCount { .. } => EventType::SubscriptionCount,
        }
    }
}

impl Kind<&str> {
    pub fn into_owned(self) -> Kind<Box<str>> {
        match self {
            Kind::ChannelOccupied => Kind::ChannelOccupied,
            Kind::ChannelVacated => Kind::ChannelVacated,
            Kind::MemberAdded { user_id } => Kind::MemberAdded {
                user_id: user_id.into(),
            },
            Kind::MemberRemoved { user_id } => Kind::MemberRemoved {
                user_id: user_id.into(),
            },
            Kind::ClientEvent {
                event,
                data,
                socket_id,
                user_id,
            } => Kind::ClientEvent {
                event: event.into(),
                data: data.into(),
                socket_id,
                user_id: user_id.map(Into::into),
            },
            Kind::CacheMiss => Kind::CacheMiss,
            Kind::SubscriptionCount { count } => Kind::SubscriptionCount { count },
        }
    }
}

impl Notice {
    /// The event as it stands in a webhook's body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENVELOPE_BYTES + string_length(&self.channel));
        out.extend_from_slice(b"{\"name\":\"");
        out.extend_from_slice(self.kind.event_type().name().as_bytes());
        out.extend_from_slice(b"\",\"channel\":");
        write_string(&self.channel, &mut out);
        let mut member = |name: &str, value: &str| {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            out.extend_from_slice(value.as_bytes());
        };
        match &self.kind {
            Kind::ChannelOccupied | Kind::ChannelVacated | Kind::CacheMiss => {}
            Kind::MemberAdded { user_id } | Kind::MemberRemoved { user_id } => {
                member("user_id", &as_string(user_id));
            }
            Kind::ClientEvent {
                event,
                data,
                socket_id,
                user_id,
            } => {
                member("event", event);
                if !data.is_empty() {
                    member("data", &as_string(data));
                }
                member("socket_id", &format!("\"{socket_id}\""));
                if let Some(user_id) = user_id {
                    member("user_id", &as_string(user_id));
                }
            }
            Kind::SubscriptionCount { count } => member("subscription_count", &count.to_string()),
        }
        out.push(b'}');
        out
    }
}

/// What an event without texts takes besides its channel's name.
const ENVELOPE_BYTES: usize = 64;

/// The vendor's libraries read the data of a client event and the id of a user as strings, so any
/// other value is put into one.
fn as_string(value: &str) -> String {
    if value.starts_with('"') {
        return value.to_string();
    }
    let mut token = Vec::with_capacity(string_length(value));
    write_string(value, &mut token);
    String::from_utf8(token).expect("escaping keeps UTF-8")
}

/// What one webhook wants to be told.
#[derive(Clone, Debug)]
pub struct Filter {
    types: EventTypes,
    starts: Vec<String>,
    ends: Vec<String>,
}

impl Filter {
    pub fn new(options: &WebhookOptions) -> Filter {
        Filter {
            types: options.events,
            starts: options.channel_name_starts_with.clone(),
            ends: options.channel_name_ends_with.clone(),
        }
    }

    pub fn takes(&self, kind: EventType, channel: &str) -> bool {
        self.types.holds(kind) && self.takes_channel(channel)
    }

    fn takes_channel(&self, channel: &str) -> bool {
        let any = |texts: &[String], holds: &dyn Fn(&str) -> bool| {
            texts.is_empty() || texts.iter().any(|text| holds(text))
        };
        any(&self.starts, &|text| channel.starts_with(text))
            && any(&self.ends, &|text| channel.ends_with(text))
    }
}

/// What an app's webhooks want to be told: the question that a shard asks before it says anything.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    types: EventTypes,
    filters: Vec<Filter>,
}

impl Wanted {
    pub fn new(app: &AppOptions) -> Wanted {
        let mut wanted = Wanted::default();
        for webhook in &app.webhooks {
            let mut filter = Filter::new(webhook);
            // A return cancels a departure, so whoever wants one of the two needs both.
            for (one, other) in PAIRS {
                if filter.types.holds(one) || filter.types.holds(other) {
                    filter.types.insert(one);
                    filter.types.insert(other);
                }
            }
            for kind in EventType::ALL {
                if filter.types.holds(kind) {
                    wanted.types.insert(kind);
                }
            }
            wanted.filters.push(filter);
        }
        wanted
    }

    pub fn takes(&self, kind: EventType, channel: &str) -> bool {
        self.types.holds(kind)
            && self
                .filters
                .iter()
                .any(|filter| filter.takes(kind, channel))
    }
}

const PAIRS: [(EventType, EventType); 2] = [
    (EventType::ChannelOccupied, EventType::ChannelVacated),
    (EventType::MemberAdded, EventType::MemberRemoved),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(kind: Kind<&str>) -> String {
        let notice = Notice {
            app: 0,
            channel: "a\"b".into(),
            kind: kind.into_owned(),
        };
        String::from_utf8(notice.encode()).expect("JSON is text")
    }

    #[test]
    fn each_kind_has_the_members_of_the_documentation() {
        assert_eq!(
            encoded(Kind::ChannelOccupied),
            r#"{"name":"channel_occupied","channel":"a\"b"}"#
        );
        assert_eq!(
            encoded(Kind::MemberRemoved { user_id: "7" }),
            r#"{"name":"member_removed","channel":"a\"b","user_id":"7"}"#
        );
        assert_eq!(
            encoded(Kind::SubscriptionCount { count: 12 }),
            r#"{"name":"subscription_count","channel":"a\"b","subscription_count":12}"#
        );
    }

    #[test]
    fn the_data_of_a_client_event_is_a_string() {
        let client_event = |data, user_id| {
            encoded(Kind::ClientEvent {
                event: r#""client-a""#,
                data,
                socket_id: SocketId {
                    first: 1,
                    second: 2,
                },
                user_id,
            })
        };
        let head = r#"{"name":"client_event","channel":"a\"b","event":"client-a""#;
        assert_eq!(
            client_event(r#"{"x":1}"#, Some(r#""7""#)),
            format!(r#"{head},"data":"{{\"x\":1}}","socket_id":"1.2","user_id":"7"}}"#)
        );
        assert_eq!(
            client_event(r#""text""#, None),
            format!(r#"{head},"data":"text","socket_id":"1.2"}}"#)
        );
        assert_eq!(
            client_event("", None),
            format!(r#"{head},"socket_id":"1.2"}}"#)
        );
    }

    #[test]
    fn whoever_wants_a_departure_or_a_return_is_told_of_both() {
        let mut events = EventTypes::default();
        events.insert(EventType::ChannelVacated);
        events.insert(EventType::MemberAdded);
        let webhook = WebhookOptions {
            events,
            channel_name_starts_with: vec!["private-".into(), "presence-".into()],
            channel_name_ends_with: vec!["-x".into()],
            ..WebhookOptions::default()
        };
        let exact = Filter::new(&webhook);
        let app = AppOptions {
            webhooks: vec![webhook],
            ..AppOptions::default()
        };
        let wanted = Wanted::new(&app);
        for kind in EventType::ALL {
            let is_of_a_pair = PAIRS.iter().any(|(a, b)| kind == *a || kind == *b);
            assert_eq!(wanted.takes(kind, "presence-x"), is_of_a_pair);
            assert_eq!(exact.takes(kind, "presence-x"), events.holds(kind));
            assert!(!wanted.takes(kind, "public-x") && !wanted.takes(kind, "private-y"));
        }
        assert!(!Wanted::new(&AppOptions::default()).takes(EventType::CacheMiss, "a"));
    }
}
