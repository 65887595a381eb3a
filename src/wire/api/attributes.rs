//! What an answer tells of a channel: the attributes that were asked for and that apply to it.
//!
//! Source: Pusher Channels documentation, "HTTP API reference" (`info` of each call, and which
//! attribute applies to which channels). That a publish drops the user count of a channel without
//! members, where a query refuses it, is in the acceptance tests of the official PHP library, which
//! run against the vendor's service.

use super::refusal::ApiError;
use crate::wire::channel::ChannelKind;

/// The attributes that an answer tells of a channel. No more than these: further ones fail the
/// acceptance tests of official libraries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub occupied: bool,
    pub user_count: bool,
    pub subscription_count: bool,
    pub cache: bool,
    /// Of a published event. An extension, as the next.
    pub serial: bool,
    /// How many subscribers' sockets had taken a published event when it was answered.
    pub delivered: bool,
}

impl Attributes {
    /// What a query asks for, `info=user_count,subscription_count`. Refused if one of them does not
    /// exist.
    pub(super) fn parse(info: &str) -> Result<Self, ApiError> {
        let mut asked = Self::default();
        for attribute in attributes_of(info) {
            if !asked.add(attribute) {
                let beginning: String = attribute.chars().take(SHOWN_CHARACTERS_MAX).collect();
                return Err(ApiError::bad_request(format!(
                    "The info attribute {beginning:?} does not exist"
                )));
            }
        }
        Ok(asked)
    }

    /// What a publish asks for. It is not refused for the sake of its answer: what does not exist is
    /// left out.
    pub(super) fn parse_of_publish(info: &str) -> Self {
        let mut asked = Self::default();
        for attribute in attributes_of(info) {
            asked.serial |= attribute == "serial";
            asked.delivered |= attribute == "delivered";
            asked.add(attribute);
        }
        asked.cache = false;
        asked
    }

    /// Whether the channel's home is to be asked for something of this once the event is published.
    pub fn asks_home(self) -> bool {
        let Self {
            occupied,
            user_count,
            subscription_count,
            cache,
            serial: _,
            delivered: _,
        } = self;
        occupied || user_count || subscription_count || cache
    }

    /// What of this a publish tells of a channel of this kind.
    pub fn applicable_to(self, kind: ChannelKind) -> Self {
        Self {
            user_count: self.user_count && kind.is_presence(),
            cache: self.cache && kind.is_cache(),
            ..self
        }
    }

    /// The same if all of it applies to a channel of this kind.
    pub(super) fn checked_for(self, kind: ChannelKind) -> Result<Self, ApiError> {
        if self.user_count && !kind.is_presence() {
            return Err(ApiError::bad_request(USER_COUNT_NOT_APPLICABLE));
        }
        if self.cache && !kind.is_cache() {
            return Err(ApiError::bad_request(
                "Cannot retrieve the cache unless the channel is a cache channel",
            ));
        }
        Ok(self)
    }

    /// Takes note of one attribute; false if there is none of this name.
    fn add(&mut self, attribute: &str) -> bool {
        match attribute {
            "user_count" => self.user_count = true,
            "subscription_count" => self.subscription_count = true,
            "cache" => self.cache = true,
            _ => return false,
        }
        true
    }
}

pub(super) const USER_COUNT_NOT_APPLICABLE: &str =
    "Cannot retrieve the user count unless the channel is a presence channel";

/// How much of an unknown attribute an error repeats.
const SHOWN_CHARACTERS_MAX: usize = 100;

fn attributes_of(info: &str) -> impl Iterator<Item = &str> {
    info.split(',')
        .map(str::trim)
        .filter(|attribute| !attribute.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Attributes = Attributes {
        occupied: false,
        user_count: false,
        subscription_count: false,
        cache: false,
        serial: false,
        delivered: false,
    };

    #[test]
    fn a_query_asks_for_attributes_that_exist() {
        assert_eq!(Attributes::parse(""), Ok(NONE));
        let all = Attributes {
            occupied: false,
            user_count: true,
            subscription_count: true,
            cache: true,
            serial: false,
            delivered: false,
        };
        assert_eq!(
            Attributes::parse("user_count, subscription_count,,cache,cache"),
            Ok(all)
        );
        for info in [
            "users",
            "occupied",
            "serial",
            "delivered",
            "user_count;cache",
            "user_count,User_count",
        ] {
            assert_eq!(Attributes::parse(info).unwrap_err().status, 400, "{info}");
        }
    }

    #[test]
    fn a_publish_is_told_what_there_is_and_applies() {
        let asked = Attributes::parse_of_publish("user_count,nonsense,subscription_count,cache");
        let both = Attributes {
            user_count: true,
            subscription_count: true,
            ..NONE
        };
        assert_eq!(asked, both);
        assert_eq!(asked.applicable_to(ChannelKind::Presence), both);
        assert_eq!(asked.applicable_to(ChannelKind::PresenceCache), both);
        let of_public = Attributes {
            user_count: false,
            ..both
        };
        assert_eq!(asked.applicable_to(ChannelKind::Public), of_public);

        let serial = Attributes::parse_of_publish("serial");
        assert_eq!(
            serial,
            Attributes {
                serial: true,
                ..NONE
            }
        );
        assert!(!serial.asks_home() && asked.asks_home());
        let delivered = Attributes::parse_of_publish("delivered");
        assert_eq!(
            delivered,
            Attributes {
                delivered: true,
                ..NONE
            }
        );
    }

    #[test]
    fn a_query_is_refused_what_does_not_apply() {
        let of = |info: &str| Attributes::parse(info).unwrap();
        for (info, kind, is_good) in [
            ("user_count", ChannelKind::Presence, true),
            ("user_count", ChannelKind::PresenceCache, true),
            ("user_count", ChannelKind::Public, false),
            ("user_count", ChannelKind::Private, false),
            ("subscription_count", ChannelKind::Public, true),
            ("subscription_count", ChannelKind::Presence, true),
            ("cache", ChannelKind::Cache, true),
            ("cache", ChannelKind::PrivateEncryptedCache, true),
            ("cache", ChannelKind::PresenceCache, true),
            ("cache", ChannelKind::Presence, false),
        ] {
            let checked = of(info).checked_for(kind);
            assert_eq!(checked.is_ok(), is_good, "{info} {kind:?}");
            if let Err(error) = checked {
                assert_eq!(error.status, 400);
            }
        }
    }
}
