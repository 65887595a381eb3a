//! The applications that the server serves, with what each of them may do.

use std::collections::HashMap;

use super::hook::Hook;
use super::notice::Wanted;
use super::quota::Quota;
use super::repeats::Window;
use super::retained::Retention;
use crate::base::slow::Slow;
use crate::options::{ChannelOptions, ChannelPattern, Options};
use crate::wire::api::EventLimits;
use crate::wire::pusher::member::MemberLimits;
use crate::wire::pusher::user::UserLimits;
use crate::wire::signature::Signer;

#[derive(Debug)]
pub struct App {
    /// As in the URLs of its API.
    pub id: String,
    pub key: String,
    pub signer: Signer,
    pub takes_client_events: bool,
    pub is_enabled: bool,
    pub client_events_per_second_max: u32,
    pub limits: EventLimits,
    pub member_limits: MemberLimits,
    pub user_limits: UserLimits,
    /// Users of one presence channel.
    pub presence_members_max: usize,
    /// How long a cache channel's last event is kept.
    pub cache_ttl_s: u32,
    pub subscriptions_per_connection_max: u32,
    /// Whether subscribers are told how many they are.
    pub tells_counts: bool,
    /// How long a connection has to be authorized; 0 if it does not have to be.
    pub authorization_timeout_s: u32,
    pub quota: Quota,
    /// Which channels have serials, and how much they retain; the first that fits counts.
    pub channels: Vec<ChannelRule>,
    /// What its webhooks want to be told.
    pub wanted: Wanted,
    /// Who sees its events before they are published.
    pub hook: Option<Hook>,
}

/// All applications, by number, key and id.
#[derive(Debug)]
pub struct Apps {
    apps: Vec<App>,
    by_key: HashMap<String, u16>,
    by_id: HashMap<String, u16>,
}

/// What a table of channels says.
#[derive(Debug)]
pub struct ChannelRule {
    pattern: ChannelPattern,
    /// If their events have serials.
    retention: Option<Retention>,
    is_durable: bool,
    slow: Slow,
    slow_messages_max: u64,
    is_slow_chosen: bool,
}

fn rule(channels: &ChannelOptions) -> ChannelRule {
    let retention = Retention {
        messages_max: channels.retention_messages_max,
        bytes_max: channels.retention_bytes_max,
        age_s: channels.retention_age_s,
        window: Window {
            age_s: channels.idempotency_window_s,
            keys_max: channels.idempotency_keys_max,
        },
    };
    ChannelRule {
        pattern: channels.name.clone(),
        retention: channels.serials.then_some(retention),
        is_durable: channels.is_durable(),
        slow: match channels.serials {
            true => channels.slow,
            false => Slow::Disconnect,
        },
        slow_messages_max: channels.slow_messages_max,
        is_slow_chosen: channels.serials && channels.slow_by_subscription,
    }
}

impl App {
    /// How much a channel retains, if its events have serials.
    pub fn retention_of(&self, channel: &str) -> Option<Retention> {
        self.rule_of(channel)?.retention
    }

    /// Whether its events are on disk before anybody sees them.
    pub fn is_durable(&self, channel: &str) -> bool {
        self.rule_of(channel).is_some_and(|rule| rule.is_durable)
    }

    /// Whether a subscription to the channel may say what becomes of it when it is slow.
    pub fn lets_choose_slow(&self, channel: &str) -> bool {
        self.rule_of(channel)
            .is_some_and(|rule| rule.is_slow_chosen)
    }

    /// What becomes of its subscribers that are slow.
    pub fn slow_of(&self, channel: &str) -> Slow {
        self.rule_of(channel)
            .map_or(Slow::Disconnect, |rule| rule.slow)
    }

    /// By how many events a subscriber of a channel with serials may be behind and get all of them.
    pub fn slow_messages_max(&self, channel: &str) -> u64 {
        self.rule_of(channel)
            .map_or(u64::MAX, |rule| rule.slow_messages_max)
    }

    fn rule_of(&self, channel: &str) -> Option<&ChannelRule> {
        let mut rules = self.channels.iter();
        rules.find(|rule| rule.pattern.fits(channel))
    }
}

impl Apps {
    /// The ids of all apps, by number.
    pub fn ids(&self) -> Vec<&str> {
        self.apps.iter().map(|app| app.id.as_str()).collect()
    }

    pub fn new(options: &Options) -> Apps {
        let number = |place: usize| u16::try_from(place).expect("there are fewer than 2^16 apps");
        let apps = options.apps.iter().map(|app| App {
            id: app.id.clone(),
            key: app.key.clone(),
            signer: Signer::new(app.secret.as_bytes()),
            takes_client_events: app.client_events,
            is_enabled: app.enabled,
            client_events_per_second_max: app.client_events_per_second_max,
            member_limits: MemberLimits {
                user_bytes_max: app.presence_user_bytes_max,
                id_characters_max: app.user_id_characters_max,
            },
            user_limits: UserLimits {
                id_characters_max: app.user_id_characters_max,
                watchlist_users_max: app.watchlist_users_max,
            },
            presence_members_max: app.presence_members_max,
            cache_ttl_s: app.cache_ttl_s,
            subscriptions_per_connection_max: app.subscriptions_per_connection_max,
            tells_counts: app.subscription_counts,
            authorization_timeout_s: match app.authorized_connections {
                true => app.authorization_timeout_s as u32,
                false => 0,
            },
            quota: Quota::new(app.connections_max, app.publishes_per_second_max),
            channels: app.channels.iter().map(rule).collect(),
            wanted: Wanted::new(app),
            hook: app.before_publish.as_ref().map(Hook::new),
            limits: EventLimits {
                data_bytes_max: app.event_data_bytes_max,
                channels_per_event_max: options.event_channels_max,
                batch_events_max: options.batch_events_max,
                channel_name_bytes_max: app.channel_name_bytes_max,
                event_name_characters_max: app.event_name_bytes_max,
            },
        });
        let listed = options.apps.iter().enumerate();
        Apps {
            apps: apps.collect(),
            by_key: listed
                .clone()
                .map(|(place, app)| (app.key.clone(), number(place)))
                .collect(),
            by_id: listed
                .map(|(place, app)| (app.id.clone(), number(place)))
                .collect(),
        }
    }

    pub fn app(&self, number: u16) -> &App {
        &self.apps[usize::from(number)]
    }

    pub fn with_key(&self, key: &str) -> Option<u16> {
        self.by_key.get(key).copied()
    }

    pub fn with_id(&self, id: &str) -> Option<u16> {
        self.by_id.get(id).copied()
    }
}
