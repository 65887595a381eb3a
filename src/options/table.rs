//! The one table of settings: each has its name, type, default, form and help here and nowhere else.
//!
//! A line `name: type = default, form;` becomes a field of [`Options`] (or of [`AppOptions`]), the
//! key `name` of the file, the variable `OUTPOUR_NAME`, the flag `--name`, a line of `--help`, of
//! `outpour config` and of the documentation. Names end in their unit.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tracing::level_filters::LevelFilter;

use crate::base::dialect::Dialect;
use crate::base::slow::{SLOW_POLICIES, Slow};

use super::channels::{ChannelPattern, DURABILITIES, Durability, PatternList, PatternText};
use super::form::{
    Address, Auto, Automatic, CoreList, Cores, Directory, Form, Identifier, Kind, OwnPath,
    PathPrefix, Secret, SecretText, Switch, Whole, Words,
};
use super::webhooks::{
    EventList, EventTypes, HeaderTable, Headers, OnFailure, OptionalUrl, Texts, Url, UrlText,
};

/// One line of the table, for a struct `T`.
pub struct Setting<T: 'static> {
    /// The key in the file.
    pub name: &'static str,
    /// The heading that it stands under.
    pub group: &'static str,
    help: &'static str,
    place: &'static dyn Place<T>,
}

impl<T> Setting<T> {
    pub fn help(&self) -> &'static str {
        self.help.trim_start()
    }

    /// The flag's name, without its dashes.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The environment variable's name.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.to_uppercase())
    }

    pub fn accepts(&self) -> String {
        self.place.accepts()
    }

    pub fn takes(&self, kind: Kind) -> bool {
        kind == Kind::Free || self.place.takes(kind)
    }

    /// What the flag means when it stands without a value, if it may.
    pub fn bare(&self) -> Option<&'static str> {
        self.place.bare()
    }

    pub fn is_secret(&self) -> bool {
        self.place.is_secret()
    }

    /// Parses the text into its field; false, and nothing changed, if the form does not accept it.
    #[must_use]
    pub fn set(&self, target: &mut T, text: &str) -> bool {
        self.place.set(target, text)
    }

    pub fn print(&self, target: &T) -> String {
        self.place.print(target)
    }

    /// As [`Setting::print`], with round numbers of bytes also in KiB or MiB.
    pub fn print_for_reading(&self, target: &T) -> String {
        let printed = self.print(target);
        let is_bytes = self.name.contains("_bytes_");
        match printed.parse::<u64>() {
            Ok(bytes) if is_bytes && bytes >= 1 << 20 && bytes % (1 << 20) == 0 => {
                format!("{bytes} ({} MiB)", bytes >> 20)
            }
            Ok(bytes) if is_bytes && bytes >= 1 << 10 && bytes % (1 << 10) == 0 => {
                format!("{bytes} ({} KiB)", bytes >> 10)
            }
            Ok(_) | Err(_) => printed,
        }
    }
}

/// What every variable's name begins with.
pub const VARIABLE_PREFIX: &str = "OUTPOUR_";

/// A field of `T` and its form, with the field's type forgotten.
trait Place<T>: Sync {
    fn accepts(&self) -> String;
    fn takes(&self, kind: Kind) -> bool;
    fn bare(&self) -> Option<&'static str>;
    fn is_secret(&self) -> bool;
    fn set(&self, target: &mut T, text: &str) -> bool;
    fn print(&self, target: &T) -> String;
}

struct Field<T: 'static, F: Form> {
    form: F,
    read: fn(&T) -> &F::Value,
    write: fn(&mut T) -> &mut F::Value,
}

impl<T, F: Form> Place<T> for Field<T, F> {
    fn accepts(&self) -> String {
        self.form.accepts()
    }

    fn takes(&self, kind: Kind) -> bool {
        self.form.takes(kind)
    }

    fn bare(&self) -> Option<&'static str> {
        self.form.bare()
    }

    fn is_secret(&self) -> bool {
        self.form.is_secret()
    }

    fn set(&self, target: &mut T, text: &str) -> bool {
        let Some(value) = self.form.parse(text) else {
            return false;
        };
        *(self.write)(target) = value;
        true
    }

    fn print(&self, target: &T) -> String {
        self.form.print((self.read)(target))
    }
}

/// Makes the struct, its default and the static list of its settings. `besides` adds a field that
/// is no setting itself, and the settings whose values lie inside of it; `nested` adds fields that
/// are tables of their own.
macro_rules! settings {
    (
        $(#[$about:meta])*
        pub struct $target:ident in $table:ident {
            $( $group:literal { $(
                $(#[doc = $help:literal])+
                $name:ident: $type:ty = $default:expr, $form:expr;
            )+ } )+
        }
        $( besides {
            $(#[$inner_about:meta])*
            $inner:ident: $inner_type:ty = $inner_default:expr;
            $inner_group:literal { $(
                $(#[doc = $inner_help:literal])+
                $inner_name:ident in ($($inner_place:tt)+), $inner_form:expr;
            )+ }
        } )?
        $( nested { $(
            $(#[$nested_about:meta])*
            $nested:ident: $nested_type:ty = $nested_default:expr;
        )+ } )?
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $target {
            $($( $(#[doc = $help])+ pub $name: $type, )+)+
            $( $(#[$inner_about])* pub $inner: $inner_type, )?
            $($( $(#[$nested_about])* pub $nested: $nested_type, )+)?
        }

        impl Default for $target {
            fn default() -> Self {
                $target {
                    $($( $name: $default, )+)+
                    $( $inner: $inner_default, )?
                    $($( $nested: $nested_default, )+)?
                }
            }
        }

        pub static $table: &[Setting<$target>] = &[
            $($( Setting {
                name: stringify!($name),
                group: $group,
                help: concat!($($help),+),
                place: &Field {
                    form: $form,
                    read: |target: &$target| &target.$name,
                    write: |target: &mut $target| &mut target.$name,
                },
            }, )+)+
            $($( Setting {
                name: stringify!($inner_name),
                group: $inner_group,
                help: concat!($($inner_help),+),
                place: &Field {
                    form: $inner_form,
                    read: |target: &$target| &target.$($inner_place)+,
                    write: |target: &mut $target| &mut target.$($inner_place)+,
                },
            }, )+)?
        ];
    };
}

settings! {
    /// What the server was asked to do: every setting, after the layers are merged and checked.
    pub struct Options in SETTINGS {
        "Listening" {
            /// Where to listen.
            address: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6001), Address;
            /// Path that stands before /app and /apps in every URL. Signatures of API calls are
            /// over the path without it.
            path_prefix: String = String::new(), PathPrefix;
            /// Path of the HTTP fallbacks, which is httpPath in pusher-js; empty serves none.
            http_path: Option<String> = Some("/pusher".to_string()), OwnPath;
            /// Serve /metrics; auto serves it while the address is a loopback address.
            metrics: Automatic<bool> = Automatic::Auto, Auto(Switch);
            /// Connections that may wait to be accepted, per shard; the kernel caps it at
            /// net.core.somaxconn.
            backlog: i32 = 4096, Whole(1, 65_535);
            /// Whose shapes, limits and status endpoints are served where servers of the protocol
            /// differ; soketi has other defaults too.
            compat: Dialect = Dialect::Pusher, Words(&[
                ("pusher", Dialect::Pusher),
                ("soketi", Dialect::Soketi),
            ]);
        }
        "Shards" {
            /// Threads that serve connections; auto is one per listed core, or per core that the
            /// process may run on.
            shards: Automatic<u16> = Automatic::Auto, Auto(Whole(1, 1024));
            /// Cores to pin shards to, taken in turn; none leaves it to the scheduler.
            cores: Cores = Cores::All, CoreList;
            /// Time that an idle shard spins before it sleeps.
            spin_us: u64 = 0, Whole(0, 1_000_000);
            /// Connections that a shard holds before it refuses more (4100); auto is what the
            /// process's limit of open files allows.
            connections_per_shard_max: Automatic<u32> = Automatic::Auto, Auto(Whole(1, 1 << 20));
        }
        "Timeouts" {
            /// Silence after which a client, and then the server, asks whether the other is there.
            activity_timeout_s: u64 = 120, Whole(1, 86_400);
            /// Time that a client has to answer that before the server closes it (4201).
            pong_timeout_s: u64 = 30, Whole(1, 3600);
            /// Time from the accept to the end of the first HTTP head.
            handshake_timeout_ms: u64 = 10_000, Whole(100, 600_000);
            /// Time from the first byte of a message or an HTTP request to its last.
            message_timeout_ms: u64 = 60_000, Whole(100, 3_600_000);
            /// Time that sent bytes may stay unacknowledged before the peer counts as gone
            /// (TCP_USER_TIMEOUT).
            peer_timeout_ms: u32 = 30_000, Whole(1000, 3_600_000);
        }
        "HTTP fallbacks" {
            /// Sessions that a shard holds before it refuses more (4100).
            fallback_sessions_per_shard_max: u32 = 16_384, Whole(1, 1 << 20);
            /// Time that a session is kept while nobody receives.
            fallback_gap_ms_max: u64 = 10_000, Whole(100, 600_000);
            /// Time after which a sign of life is sent; proxies end a connection that is silent for
            /// longer than they like.
            fallback_heartbeat_ms: u64 = 25_000, Whole(100, 600_000);
            /// Answers and events for one client alone that wait while nobody receives.
            fallback_backlog_bytes_max: usize = 256 << 10, Whole(1024, 64 << 20);
        }
        "Sizes" {
            /// WebSocket message of a client, after its fragments are joined.
            message_bytes_max: usize = 64 << 10, Whole(1024, 64 << 20);
            /// Head of an HTTP request: request line and headers.
            http_head_bytes_max: usize = 16 << 10, Whole(1024, 1 << 20);
            /// Body of an HTTP request.
            http_body_bytes_max: usize = 1 << 20, Whole(1024, 256 << 20);
            /// Data of one event, published or from a client.
            event_data_bytes_max: usize = 10_240, Whole(1, 16 << 20);
            /// Channels that one publish may name.
            event_channels_max: usize = 100, Whole(1, 256);
            /// Events in one batch.
            batch_events_max: usize = 10, Whole(1, 256);
            /// Name of a channel, its prefix included.
            channel_name_bytes_max: usize = 200, Whole(1, 1024);
            /// Name of an event.
            event_name_bytes_max: usize = 200, Whole(1, 1024);
        }
        "Quotas" {
            /// Connections that one app may have; 0 for any number (beyond: 4004).
            connections_max: u32 = 0, Whole(0, 1 << 30);
            /// Channels that one connection may be subscribed to at once.
            subscriptions_per_connection_max: u32 = 16_384, Whole(1, 1 << 20);
            /// Client events that one connection may send in a second (beyond: error 4301).
            client_events_per_second_max: u32 = 10, Whole(1, 1_000_000);
            /// Events that one app may publish in a second, each channel of each counted; 0 for
            /// any number (beyond: 403, or 429 with compat = soketi).
            publishes_per_second_max: u32 = 0, Whole(0, 1_000_000_000);
        }
        "Presence, users and caches" {
            /// Members of one presence channel (beyond: 4100).
            presence_members_max: usize = 100, Whole(1, 1_000_000);
            /// User object of a member: its user_id and user_info as they came.
            presence_user_bytes_max: usize = 1024, Whole(16, 64 << 10);
            /// Id of a member or of a signed-in user.
            user_id_characters_max: usize = 128, Whole(1, 1024);
            /// Users that one connection may watch (beyond: error 4302).
            watchlist_users_max: usize = 100, Whole(0, 10_000);
            /// Close connections (4009) that have neither signed in nor joined a private or
            /// presence channel in time.
            authorized_connections: bool = false, Switch;
            /// Time that a connection has to do so.
            authorization_timeout_s: u64 = 30, Whole(1, 3600);
            /// Tell the subscribers of a channel how many they are, whenever that changes; of more
            /// than 100 every 5 seconds.
            subscription_counts: bool = false, Switch;
            /// Time for which a cache channel holds its last event.
            cache_ttl_s: u32 = 1800, Whole(1, 31_536_000);
        }
        "Compression" {
            /// Take permessage-deflate from clients that offer it, as browsers do. An event is
            /// compressed once for all of them.
            compression: bool = true, Switch;
            /// Event from which on it is compressed; shorter ones gain too little.
            compression_bytes_min: usize = 512, Whole(0, 1 << 30);
            /// How hard to try, from 1 (quick) to 9 (small), as zlib counts.
            compression_level: u8 = 6, Whole(1, 9);
        }
        "Logs" {
            /// Encoded frames that a channel keeps for subscribers that are behind.
            log_bytes_max: usize = 4 << 20, Whole(64 << 10, 1 << 30);
            /// Age at which a frame may be dropped, whether or not everybody has it.
            log_age_ms_max: u64 = 30_000, Whole(1, 86_400_000);
            /// Encoded frames of all channels of one shard together.
            log_bytes_per_shard_max: usize = 256 << 20, Whole(1 << 20, 1 << 40);
            /// Time that a publish waits for room while the engine is behind, before it is
            /// refused.
            publish_wait_ms_max: u64 = 2000, Whole(0, 60_000);
        }
        "Delivery" {
            /// Channels of the only app whose events have serials and are retained, so that clients
            /// that were away get what they missed.
            retained_channels: Vec<ChannelPattern> = Vec::new(), PatternList;
            /// Events that such a channel retains.
            retention_messages_max: u64 = 1000, Whole(1, 1_000_000_000);
            /// Encoded bytes of those events.
            retention_bytes_max: usize = 4 << 20, Whole(1024, 1 << 40);
            /// Age at which an event is no longer retained.
            retention_age_s: u32 = 120, Whole(1, 31_536_000);
            /// Time for which a publish that is repeated under its idempotency key is known.
            idempotency_window_s: u32 = 600, Whole(1, 31_536_000);
            /// Keys that such a channel knows; beyond it the oldest are free again before their time.
            idempotency_keys_max: usize = 10_000, Whole(1, 100_000_000);
            /// Retained events and keys of all channels of one shard together; beyond it the channels
            /// that hold most lose their oldest.
            retention_bytes_per_shard_max: usize = 256 << 20, Whole(64 << 10, 1 << 40);
            /// Where the events of such channels are when a publish is acknowledged: in memory, or
            /// in the journal too, so that they and their serials outlast a crash and a restart.
            durability: Durability = Durability::Memory, Words(DURABILITIES);
            /// What becomes of a subscriber of such a channel that does not read as fast as events
            /// come.
            slow: Slow = Slow::Lag, Words(SLOW_POLICIES);
            /// Events by which a subscriber may be behind before some are left out for it, where
            /// the policy is to do so.
            slow_messages_max: u64 = 100, Whole(1, 1_000_000_000);
            /// Let a subscription say itself what is to become of it ("slow" in its data).
            slow_by_subscription: bool = false, Switch;
            /// Directory of the journal; empty for none.
            journal_directory: Option<PathBuf> = None, Directory;
            /// Size at which the journal goes on in another file. What is no longer retained is
            /// removed a file at a time.
            journal_segment_bytes_max: u64 = 64 << 20, Whole(64 << 10, 1 << 30);
            /// Least time from one write of the journal to the next. More makes fewer syncs of the
            /// disk, and acknowledgements later.
            journal_gather_ms: u64 = 0, Whole(0, 1000);
        }
        "Webhooks" {
            /// Where the events of the only app are sent; empty for nowhere.
            webhook_url: Option<Url> = None, OptionalUrl;
            /// Events that are sent there.
            webhook_events: EventTypes = EventTypes::ALL, EventList;
            /// Time that channel_vacated and member_removed wait for the client's return, which
            /// cancels them.
            webhook_return_ms: u64 = 3000, Whole(0, 60_000);
            /// Time that a webhook has to answer a request.
            webhook_timeout_ms: u64 = 5000, Whole(10, 60_000);
            /// Time after which a request that failed is made again; it doubles with each failure,
            /// up to a minute.
            webhook_backoff_ms: u64 = 1000, Whole(10, 60_000);
            /// Age at which an event that failed is given up.
            webhook_retry_ms_max: u64 = 300_000, Whole(0, 86_400_000);
            /// Requests to one webhook at a time.
            webhook_connections_max: usize = 8, Whole(1, 256);
            /// Events that wait for one webhook; what comes when they are that many is dropped.
            webhook_queue_events_max: usize = 100_000, Whole(1, 10_000_000);
            /// Bytes of those events.
            webhook_queue_bytes_max: usize = 64 << 20, Whole(64 << 10, 4 << 30);
        }
        "Shutdown" {
            /// Time over which the closing of clients is spread, so that they do not all come back
            /// at once.
            drain_ms: u64 = 5000, Whole(0, 3_600_000);
            /// Time after which a shutdown no longer waits for anybody.
            drain_timeout_ms: u64 = 15_000, Whole(0, 3_600_000);
        }
        "Diagnosis" {
            /// What is written to standard error.
            log_level: LevelFilter = LevelFilter::INFO, Words(&[
                ("off", LevelFilter::OFF),
                ("error", LevelFilter::ERROR),
                ("warn", LevelFilter::WARN),
                ("info", LevelFilter::INFO),
                ("debug", LevelFilter::DEBUG),
                ("trace", LevelFilter::TRACE),
            ]);
            /// Path of a WebSocket endpoint that sends back what it receives, for conformance
            /// tests; empty for none.
            echo: Option<String> = None, OwnPath;
            /// WebSocket message at the echo endpoint.
            echo_message_bytes_max: usize = (16 << 20) + (64 << 10), Whole(1024, 256 << 20);
        }
    }
    besides {
        /// The apps, at least one; no two have the same id or the same key.
        apps: Vec<AppOptions> = vec![AppOptions::default()];
        "The app, if it is the only one" {
            /// Id of the app, as in the URLs of its API.
            app_id in (apps[0].id), Identifier;
            /// Key of the app, as clients name it.
            app_key in (apps[0].key), Identifier;
            /// Secret that signs subscriptions and API calls. The built-in one is accepted on
            /// loopback addresses only.
            app_secret in (apps[0].secret), SecretText;
            /// Let clients send events to each other; off by default for any other secret than
            /// the built-in one.
            client_events in (apps[0].client_events), Switch;
        }
    }
}

settings! {
    /// One app. The default is the built-in one, which is open to whoever reads this.
    pub struct AppOptions in APP_SETTINGS {
        "Apps" {
            /// Id of the app, as in the URLs of its API.
            id: String = "1001".to_string(), Identifier;
            /// Key of the app, as clients name it.
            key: String = "app-key".to_string(), Identifier;
            /// Secret that signs subscriptions and API calls.
            secret: Secret = Secret::new(BUILT_IN_SECRET), SecretText;
            /// Let clients send events to each other.
            client_events: bool = true, Switch;
            /// Serve the app; a disabled one is refused (4003).
            enabled: bool = true, Switch;
            /// Data of one event, published or from a client.
            event_data_bytes_max: usize = 10_240, Whole(1, 16 << 20);
            /// Name of a channel, its prefix included.
            channel_name_bytes_max: usize = 200, Whole(1, 1024);
            /// Name of an event.
            event_name_bytes_max: usize = 200, Whole(1, 1024);
            /// Connections; 0 for any number (beyond: 4004).
            connections_max: u32 = 0, Whole(0, 1 << 30);
            /// Channels that one connection may be subscribed to at once.
            subscriptions_per_connection_max: u32 = 16_384, Whole(1, 1 << 20);
            /// Client events that one connection may send in a second.
            client_events_per_second_max: u32 = 10, Whole(1, 1_000_000);
            /// Events published in a second; 0 for any number.
            publishes_per_second_max: u32 = 0, Whole(0, 1_000_000_000);
            /// Members of one presence channel.
            presence_members_max: usize = 100, Whole(1, 1_000_000);
            /// User object of a member.
            presence_user_bytes_max: usize = 1024, Whole(16, 64 << 10);
            /// Id of a member or of a signed-in user.
            user_id_characters_max: usize = 128, Whole(1, 1024);
            /// Users that one connection may watch.
            watchlist_users_max: usize = 100, Whole(0, 10_000);
            /// Close connections that are not authorized in time.
            authorized_connections: bool = false, Switch;
            /// Time that a connection has to do so.
            authorization_timeout_s: u64 = 30, Whole(1, 3600);
            /// Tell the subscribers of a channel how many they are.
            subscription_counts: bool = false, Switch;
            /// Time for which a cache channel holds its last event.
            cache_ttl_s: u32 = 1800, Whole(1, 31_536_000);
        }
    }
    nested {
        /// Channels whose events have serials and are retained.
        channels: Vec<ChannelOptions> = Vec::new();
        /// Where its events are sent.
        webhooks: Vec<WebhookOptions> = Vec::new();
        /// Whom its events are shown to before they are published.
        before_publish: Option<HookOptions> = None;
    }
}

settings! {
    /// Channels of an app that have serials and are retained, or are not: the first table whose name
    /// fits a channel counts.
    pub struct ChannelOptions in CHANNEL_SETTINGS {
        "Channels" {
            /// Which channels.
            name: ChannelPattern = ChannelPattern::Prefix(String::new()), PatternText;
            /// Give their events serials and retain them.
            serials: bool = true, Switch;
            /// Events that one of them retains.
            retention_messages_max: u64 = 1000, Whole(1, 1_000_000_000);
            /// Encoded bytes of those events.
            retention_bytes_max: usize = 4 << 20, Whole(1024, 1 << 40);
            /// Age at which an event is no longer retained.
            retention_age_s: u32 = 120, Whole(1, 31_536_000);
            /// Time for which a repeated publish is known.
            idempotency_window_s: u32 = 600, Whole(1, 31_536_000);
            /// Idempotency keys that one of them knows.
            idempotency_keys_max: usize = 10_000, Whole(1, 100_000_000);
            /// Where an event with a serial is when its publish is acknowledged.
            durability: Durability = Durability::Memory, Words(DURABILITIES);
            /// What becomes of a subscriber that does not read as fast as events come.
            slow: Slow = Slow::Lag, Words(SLOW_POLICIES);
            /// Events by which it may be behind before some are left out for it.
            slow_messages_max: u64 = 100, Whole(1, 1_000_000_000);
            /// Let a subscription say itself what is to become of it.
            slow_by_subscription: bool = false, Switch;
        }
    }
}

/// What a table of channels in the file must state.
pub const CHANNEL_REQUIRED: [&str; 1] = ["name"];

settings! {
    /// One webhook of an app.
    pub struct WebhookOptions in WEBHOOK_SETTINGS {
        "Webhooks" {
            /// Where the events are sent.
            url: Url = Url::default(), UrlText;
            /// Events that are sent.
            events: EventTypes = EventTypes::ALL, EventList;
            /// Only events of channels whose name begins with one of these; of all if there is none.
            channel_name_starts_with: Vec<String> = Vec::new(), Texts;
            /// Only events of channels whose name ends with one of these; of all if there is none.
            channel_name_ends_with: Vec<String> = Vec::new(), Texts;
            /// Headers that the requests carry besides their own.
            headers: Headers = Headers::default(), HeaderTable;
            /// Events that one request may carry.
            request_events_max: usize = 1, Whole(1, 1000);
            /// Time that an event waits for others, if a request may carry more than one.
            batch_ms: u64 = 50, Whole(0, 10_000);
        }
    }
}

/// What a webhook in the file must state, and a hook too.
pub const WEBHOOK_REQUIRED: [&str; 1] = ["url"];

settings! {
    /// The hook of an app: it sees events before they are published, and lets them pass, replaces
    /// or drops them.
    pub struct HookOptions in HOOK_SETTINGS {
        "Hooks" {
            /// Where events are sent, and what they are answered.
            url: Url = Url::default(), UrlText;
            /// Only events of channels whose name begins with one of these; of all if there is none.
            channel_name_starts_with: Vec<String> = Vec::new(), Texts;
            /// Only events whose name begins with one of these; all if there is none.
            event_name_starts_with: Vec<String> = Vec::new(), Texts;
            /// Headers that the requests carry besides their own.
            headers: Headers = Headers::default(), HeaderTable;
            /// Time that an event waits for its answer, the wait for a connection included.
            timeout_ms: u64 = 500, Whole(10, 30_000);
            /// What becomes of an event without an answer: publish lets it pass, refuse answers its
            /// publisher 503.
            on_failure: OnFailure = OnFailure::Publish, Words(&[
                ("publish", OnFailure::Publish),
                ("refuse", OnFailure::Refuse),
            ]);
            /// Requests at a time.
            connections_max: usize = 16, Whole(1, 256);
        }
    }
}

/// The secret of the built-in app. Everybody knows it.
pub const BUILT_IN_SECRET: &str = "app-secret";

/// What an app in the file must state.
pub const APP_REQUIRED: [&str; 3] = ["id", "key", "secret"];

/// The settings that describe the only app, where the file lists none.
pub const ONLY_APP: [&str; 7] = [
    "app_id",
    "app_key",
    "app_secret",
    "client_events",
    "retained_channels",
    "webhook_url",
    "webhook_events",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::defaults::listed_app;

    #[test]
    fn every_default_is_a_value_that_its_form_accepts() {
        let options = Options::default();
        for setting in SETTINGS.iter().filter(|setting| !setting.is_secret()) {
            let mut copy = options.clone();
            let printed = setting.print(&options);
            assert!(setting.set(&mut copy, &printed), "{}", setting.name);
            assert_eq!(copy, options, "{}", setting.name);
        }
    }

    #[test]
    fn names_do_not_collide_and_every_setting_has_help() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert!(
                SETTINGS[..index]
                    .iter()
                    .all(|other| other.name != setting.name)
            );
            assert!(setting.help().ends_with('.'), "{}", setting.name);
            assert!(!setting.help().contains("  "), "{}", setting.name);
        }
    }

    #[test]
    fn an_app_by_default_has_the_limits_of_the_server() {
        let options = Options::default();
        let app = AppOptions::default();
        let unlisted = AppOptions {
            client_events: true,
            ..listed_app(&options)
        };
        assert_eq!(app, unlisted);
    }
}
