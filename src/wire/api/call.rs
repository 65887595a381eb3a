//! A call of the HTTP API, read once into what cannot be wrong.
//!
//! Source: Pusher Channels documentation, "HTTP API reference" and its "deprecated methods"; where
//! soketi answers otherwise, its `http-handler`.

use std::borrow::Cow;

use smallvec::{SmallVec, smallvec};

use super::attributes::{Attributes, USER_COUNT_NOT_APPLICABLE};
use super::endpoint::Endpoint;
use super::history::Page;
use super::idempotency;
use super::laggards::Search;
use super::publish::{self, Event, EventLimits};
use super::refusal::ApiError;
use crate::base::dialect::Dialect;
use crate::wire::channel::{self, ChannelKind};
use crate::wire::http;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// In order; of a batch perhaps none.
    Publish {
        events: SmallVec<[Event<'a>; 1]>,
        form: PublishForm,
    },
    /// The channels that are occupied.
    Channels {
        prefix: Option<Cow<'a, str>>,
        told: Attributes,
    },
    Channel {
        name: Cow<'a, str>,
        kind: ChannelKind,
        told: Attributes,
    },
    /// Retained events of a channel.
    History { name: Cow<'a, str>, page: Page },
    /// Who is furthest behind, of channels whose names begin so.
    Laggards {
        prefix: Option<Cow<'a, str>>,
        search: Search,
    },
    /// The members of a presence channel.
    Users {
        name: Cow<'a, str>,
        /// An extension of soketi's.
        with_user_info: bool,
    },
    /// The end of all connections of a user.
    Terminate { user_id: Cow<'a, str> },
}

/// The call that a publish came with, which decides how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishForm {
    Event,
    Batch,
    /// The deprecated one.
    ChannelEvent,
}

impl PublishForm {
    /// The status of its answer when it is accepted.
    pub fn status(self) -> u16 {
        match self {
            Self::Event | Self::Batch => 200,
            Self::ChannelEvent => 202,
        }
    }
}

impl<'a> Call<'a> {
    /// Reads the call of a request whose signature the caller has checked. `idempotency_key` is the
    /// value of its header of that name.
    pub fn parse(
        endpoint: Endpoint<'a>,
        query: Option<&'a str>,
        body: &'a [u8],
        idempotency_key: Option<&'a [u8]>,
        limits: &EventLimits,
        dialect: Dialect,
    ) -> Result<Self, ApiError> {
        let one = |mut event: Event<'a>, form| {
            if let Some(value) = idempotency_key {
                let of_request = idempotency::key_of_header(value)?;
                event.idempotency_key.get_or_insert(of_request);
            }
            Ok(Self::Publish {
                events: smallvec![event],
                form,
            })
        };
        match endpoint {
            Endpoint::Events => {
                let event = publish::parse_event(body, query, limits)?;
                one(event, PublishForm::Event)
            }
            Endpoint::BatchEvents => {
                let mut events = publish::parse_batch(body, limits)?;
                if let Some(value) = idempotency_key {
                    let of_request = idempotency::key_of_header(value)?;
                    for (place, event) in events.iter_mut().enumerate() {
                        let own = || idempotency::key_in_batch(&of_request, place).into();
                        event.idempotency_key.get_or_insert_with(own);
                    }
                }
                Ok(Self::Publish {
                    events: events.into(),
                    form: PublishForm::Batch,
                })
            }
            Endpoint::ChannelEvents { channel } => {
                let (channel, _) = channel_name(channel, limits)?;
                let event = publish::parse_channel_event(channel, body, query, limits)?;
                one(event, PublishForm::ChannelEvent)
            }
            Endpoint::ChannelHistory { channel } => {
                let (name, _) = channel_name(channel, limits)?;
                let page = Page::parse(query)?;
                Ok(Self::History { name, page })
            }
            Endpoint::Channels => channels(query, dialect),
            Endpoint::Laggards => {
                let (search, prefix) = Search::parse(query)?;
                Ok(Self::Laggards { prefix, search })
            }
            Endpoint::Channel { channel } => {
                let (name, kind) = channel_name(channel, limits)?;
                let told = told_of_channel(query, kind, dialect)?;
                Ok(Self::Channel { name, kind, told })
            }
            Endpoint::ChannelStats { channel } => {
                let (name, kind) = channel_name(channel, limits)?;
                let told = Attributes {
                    occupied: true,
                    user_count: kind.is_presence(),
                    ..Attributes::default()
                };
                Ok(Self::Channel { name, kind, told })
            }
            Endpoint::ChannelUsers { channel } => {
                let (name, kind) = channel_name(channel, limits)?;
                if !kind.is_presence() {
                    return Err(ApiError::bad_request(
                        "Users can only be retrieved for presence channels",
                    ));
                }
                let with_user_info = parameter(query, "with_user_info").as_deref() == Some("1");
                Ok(Self::Users {
                    name,
                    with_user_info,
                })
            }
            Endpoint::TerminateConnections { user } => Ok(Self::Terminate {
                user_id: decoded(user)?,
            }),
        }
    }
}

fn channels<'a>(query: Option<&'a str>, dialect: Dialect) -> Result<Call<'a>, ApiError> {
    let prefix = parameter(query, "filter_by_prefix").filter(|prefix| !prefix.is_empty());
    let told = match dialect {
        Dialect::Soketi => SOKETI,
        Dialect::Pusher => {
            let asked = asked(query)?;
            let is_presence = |prefix: &Cow<'_, str>| prefix.starts_with("presence-");
            if asked.user_count && !prefix.as_ref().is_some_and(is_presence) {
                return Err(ApiError::bad_request(USER_COUNT_NOT_APPLICABLE));
            }
            if asked.cache {
                return Err(ApiError::bad_request(
                    "The cache can only be retrieved of one channel",
                ));
            }
            asked
        }
    };
    Ok(Call::Channels { prefix, told })
}

/// What soketi tells of every channel, asked or not.
const SOKETI: Attributes = Attributes {
    occupied: true,
    user_count: false,
    subscription_count: true,
    cache: false,
    serial: false,
    delivered: false,
};

fn told_of_channel(
    query: Option<&str>,
    kind: ChannelKind,
    dialect: Dialect,
) -> Result<Attributes, ApiError> {
    match dialect {
        Dialect::Pusher => Ok(Attributes {
            occupied: true,
            ..asked(query)?.checked_for(kind)?
        }),
        Dialect::Soketi => Ok(Attributes {
            user_count: kind.is_presence(),
            ..SOKETI
        }),
    }
}

fn asked(query: Option<&str>) -> Result<Attributes, ApiError> {
    Attributes::parse(&parameter(query, "info").unwrap_or_default())
}

/// The last value that the query gives to a parameter.
fn parameter<'a>(query: Option<&'a str>, key: &str) -> Option<Cow<'a, str>> {
    http::query_pairs(query.unwrap_or(""))
        .filter(|(name, _)| name == key)
        .map(|(_, value)| value)
        .last()
}

fn channel_name<'a>(
    segment: &'a str,
    limits: &EventLimits,
) -> Result<(Cow<'a, str>, ChannelKind), ApiError> {
    let name = decoded(segment)?;
    match channel::check_channel_name(&name, limits.channel_name_bytes_max) {
        Ok(kind) => Ok((name, kind)),
        Err(error) => Err(ApiError::bad_name("channel", &name, error)),
    }
}

fn decoded(segment: &str) -> Result<Cow<'_, str>, ApiError> {
    http::percent_decode(segment)
        .ok_or_else(|| ApiError::bad_request("The path holds an escape that is none"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: EventLimits = EventLimits {
        data_bytes_max: 10_240,
        channels_per_event_max: 100,
        batch_events_max: 10,
        channel_name_bytes_max: 200,
        event_name_characters_max: 200,
    };

    const NONE: Attributes = Attributes {
        occupied: false,
        user_count: false,
        subscription_count: false,
        cache: false,
        serial: false,
        delivered: false,
    };

    fn get(path: &'static str, dialect: Dialect) -> Result<Call<'static>, ApiError> {
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let endpoint = Endpoint::find("GET", path).unwrap();
        Call::parse(endpoint, query, b"", None, &LIMITS, dialect)
    }

    fn told(path: &'static str, dialect: Dialect) -> Result<Attributes, u16> {
        match get(path, dialect) {
            Ok(Call::Channels { told, .. } | Call::Channel { told, .. }) => Ok(told),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.status),
        }
    }

    #[test]
    fn a_publish_is_answered_by_the_form_it_came_in() {
        let event = br#"{"name":"n","data":"d","channel":"room"}"#;
        let batch = br#"{"batch":[{"name":"n","data":"d","channel":"room"}]}"#;
        for (endpoint, query, body, form, status) in [
            (Endpoint::Events, None, &event[..], PublishForm::Event, 200),
            (
                Endpoint::BatchEvents,
                None,
                &batch[..],
                PublishForm::Batch,
                200,
            ),
            (
                Endpoint::ChannelEvents { channel: "room" },
                Some("name=n"),
                b"d",
                PublishForm::ChannelEvent,
                202,
            ),
        ] {
            let call = Call::parse(endpoint, query, body, None, &LIMITS, Dialect::Pusher).unwrap();
            let Call::Publish { events, form: read } = call else {
                panic!("{call:?}");
            };
            assert_eq!((read, read.status()), (form, status));
            assert_eq!(events.len(), 1);
            assert_eq!(events[0].channels[..], ["room"]);
            assert_eq!(events[0].data.decoded(), "d");
        }
    }

    fn keys(
        endpoint: Endpoint<'_>,
        body: &str,
        header: Option<&str>,
    ) -> Result<Vec<String>, ApiError> {
        let query = matches!(endpoint, Endpoint::ChannelEvents { .. }).then_some("name=n");
        let header = header.map(str::as_bytes);
        let limits = &LIMITS;
        let call = Call::parse(
            endpoint,
            query,
            body.as_bytes(),
            header,
            limits,
            Dialect::Pusher,
        )?;
        let Call::Publish { events, .. } = call else {
            panic!("{call:?}");
        };
        let keys = events.into_iter().map(|event| event.idempotency_key);
        Ok(keys
            .map(|key| key.unwrap_or_default().into_owned())
            .collect())
    }

    #[test]
    fn an_event_has_its_own_key_or_that_of_its_request() {
        let event = r#"{"name":"n","data":"d","channel":"room"}"#;
        let keyed = r#"{"name":"n","data":"d","channel":"room","idempotency_key":"own"}"#;
        let batch = format!(r#"{{"batch":[{event},{keyed},{event}]}}"#);
        let of = |endpoint, body: &str, header| keys(endpoint, body, header).unwrap();
        assert_eq!(of(Endpoint::Events, event, None), [""]);
        assert_eq!(of(Endpoint::Events, event, Some("\"a\"")), ["a"]);
        assert_eq!(of(Endpoint::Events, keyed, Some("a")), ["own"]);
        assert_eq!(
            of(Endpoint::ChannelEvents { channel: "room" }, "d", Some("a")),
            ["a"]
        );
        assert_eq!(of(Endpoint::BatchEvents, &batch, None), ["", "own", ""]);
        assert_eq!(
            of(Endpoint::BatchEvents, &batch, Some("a")),
            ["a\n0", "own", "a\n2"]
        );
        let long = "k".repeat(201);
        for (body, header) in [
            (event.to_string(), Some(long.as_str())),
            (event.to_string(), Some("")),
            (keyed.replace("own", &long), None),
            (keyed.replace("own", ""), None),
            (keyed.replace("own", "a\\n0"), None),
        ] {
            let error = keys(Endpoint::Events, &body, header).unwrap_err();
            assert_eq!(error.status, 400, "{body} {header:?}");
            let batch = format!(r#"{{"batch":[{body}]}}"#);
            assert_eq!(
                keys(Endpoint::BatchEvents, &batch, header).unwrap_err(),
                error
            );
        }
    }

    #[test]
    fn channels_are_listed_with_what_was_asked_for() {
        let pusher = |path| told(path, Dialect::Pusher);
        assert_eq!(pusher("/channels"), Ok(NONE));
        assert_eq!(
            pusher("/channels?info=subscription_count"),
            Ok(Attributes {
                subscription_count: true,
                ..NONE
            })
        );
        let both = Attributes {
            user_count: true,
            subscription_count: true,
            ..NONE
        };
        for prefix in ["presence-", "presence-a", "presence-cache-"] {
            let path =
                format!("/channels?filter_by_prefix={prefix}&info=user_count,subscription_count");
            assert_eq!(pusher(path.leak()), Ok(both));
        }
        for path in [
            "/channels?info=user_count",
            "/channels?info=user_count&filter_by_prefix=",
            "/channels?info=user_count&filter_by_prefix=presence",
            "/channels?info=user_count&filter_by_prefix=private-",
            "/channels?info=cache",
            "/channels?info=unknown",
        ] {
            assert_eq!(pusher(path), Err(400), "{path}");
        }
        let Ok(Call::Channels { prefix, .. }) = get(
            "/channels?filter_by_prefix=%23server&auth_key=k",
            Dialect::Pusher,
        ) else {
            panic!();
        };
        assert_eq!(prefix.as_deref(), Some("#server"));
    }

    #[test]
    fn a_channel_tells_whether_it_is_occupied_and_what_was_asked_for() {
        let pusher = |path| told(path, Dialect::Pusher);
        let occupied = Attributes {
            occupied: true,
            ..NONE
        };
        assert_eq!(pusher("/channels/room"), Ok(occupied));
        assert_eq!(
            pusher("/channels/presence-cache-a?info=user_count%2Csubscription_count,cache"),
            Ok(Attributes {
                user_count: true,
                subscription_count: true,
                cache: true,
                ..occupied
            })
        );
        for path in [
            "/channels/room?info=user_count",
            "/channels/private-a?info=subscription_count,user_count",
            "/channels/room?info=cache",
            "/channels/presence-a?info=cache",
            "/channels/room?info=unknown",
            "/channels/a%20b",
            "/channels/a%2",
            "/channels/%ff",
        ] {
            assert_eq!(pusher(path), Err(400), "{path}");
        }
    }

    #[test]
    fn the_deprecated_statistics_tell_of_members_where_there_are_any() {
        let occupied = Attributes {
            occupied: true,
            ..NONE
        };
        assert_eq!(
            told("/channels/room/stats?info=cache", Dialect::Pusher),
            Ok(occupied)
        );
        assert_eq!(
            told("/channels/presence-a/stats", Dialect::Pusher),
            Ok(Attributes {
                user_count: true,
                ..occupied
            })
        );
    }

    #[test]
    fn soketi_tells_the_same_of_every_channel() {
        let soketi = |path| told(path, Dialect::Soketi);
        let every = Attributes {
            occupied: true,
            subscription_count: true,
            ..NONE
        };
        assert_eq!(soketi("/channels?info=user_count"), Ok(every));
        assert_eq!(soketi("/channels/room?info=user_count,unknown"), Ok(every));
        assert_eq!(
            soketi("/channels/presence-a"),
            Ok(Attributes {
                user_count: true,
                ..every
            })
        );
    }

    #[test]
    fn users_are_those_of_presence_channels() {
        let users = |path| get(path, Dialect::Pusher);
        for (path, with_user_info) in [
            ("/channels/presence-a/users", false),
            ("/channels/presence-a/users?with_user_info=1", true),
            ("/channels/presence-a/users?with_user_info=0", false),
        ] {
            let expected = Call::Users {
                name: "presence-a".into(),
                with_user_info,
            };
            assert_eq!(users(path), Ok(expected));
        }
        for path in ["/channels/room/users", "/channels/private-a/users"] {
            assert_eq!(users(path).unwrap_err().status, 400, "{path}");
        }
    }

    #[test]
    fn a_user_is_named_in_the_path() {
        let terminate = |user| {
            let endpoint = Endpoint::TerminateConnections { user };
            Call::parse(endpoint, None, b"{}", None, &LIMITS, Dialect::Pusher)
        };
        let user_id = "a@b/c".into();
        assert_eq!(terminate("a%40b%2Fc"), Ok(Call::Terminate { user_id }));
        assert_eq!(terminate("%zz").unwrap_err().status, 400);
    }

    proptest! {
        #[test]
        fn random_calls_never_panic(
            segment in "\\PC{0,20}",
            query in any::<String>(),
            info in "(user_count|cache|,|x){0,4}",
        ) {
            let query = format!("info={info}&{query}");
            let value = Some(query.as_bytes());
            for dialect in [Dialect::Pusher, Dialect::Soketi] {
                for endpoint in [
                    Endpoint::Channels,
                    Endpoint::Laggards,
                    Endpoint::Channel { channel: &segment },
                    Endpoint::ChannelEvents { channel: &segment },
                    Endpoint::ChannelUsers { channel: &segment },
                    Endpoint::ChannelStats { channel: &segment },
                    Endpoint::TerminateConnections { user: &segment },
                ] {
                    Call::parse(endpoint, Some(&query), b"d", value, &LIMITS, dialect).ok();
                }
            }
        }
    }
}
