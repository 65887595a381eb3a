//! What a setting is that nobody stated, where that is not simply its default in the table: an app
//! and its channels have the server's values, and a dialect has its own.

use super::table::{
    APP_SETTINGS, AppOptions, CHANNEL_SETTINGS, ChannelOptions, ONLY_APP, Options, SETTINGS,
    Setting,
};

/// The setting of the whole server that an app's setting of this name has its default from.
pub fn server_wide(name: &str) -> Option<&'static Setting<Options>> {
    SETTINGS
        .iter()
        .find(|setting| setting.name == name && !ONLY_APP.contains(&name))
}

/// An app of the file before its own lines are read: client events are off, as the vendor has it,
/// and its limits are those of the server.
pub fn listed_app(options: &Options) -> AppOptions {
    let mut app = AppOptions {
        client_events: false,
        ..AppOptions::default()
    };
    app.take_limits(options);
    app
}

/// Channels of an app before the table's own lines are read: what they retain is the server's.
pub fn listed_channel(options: &Options) -> ChannelOptions {
    let mut channel = ChannelOptions::default();
    take_server_wide(CHANNEL_SETTINGS, &mut channel, options);
    channel
}

/// Gives `target` the server's value of every setting that both have.
fn take_server_wide<T>(settings: &'static [Setting<T>], target: &mut T, options: &Options) {
    for setting in settings {
        if let Some(server_wide) = server_wide(setting.name) {
            let is_taken = setting.set(target, &server_wide.print(options));
            assert!(is_taken, "both settings {} accept the same", setting.name);
        }
    }
}

impl AppOptions {
    /// Gives the app the server's value of every setting that both have.
    pub fn take_limits(&mut self, options: &Options) {
        take_server_wide(APP_SETTINGS, self, options);
    }
}

/// What soketi has as defaults where they differ, and the sizes of messages that follow from them.
///
/// Source: soketi 1.6, its documentation of environment variables.
pub const SOKETI_DEFAULTS: &[(&str, &str)] = &[
    ("activity_timeout_s", "30"),
    ("event_data_bytes_max", "102400"),
    ("presence_user_bytes_max", "2048"),
    ("cache_ttl_s", "3600"),
    ("message_bytes_max", "1048576"),
    ("http_body_bytes_max", "8388608"),
];
