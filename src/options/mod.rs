//! The options: what was typed in four layers, merged and checked into one [`Options`].
//!
//! ```text
//! defaults < file (--config PATH or OUTPOUR_CONFIG, TOML) < environment (OUTPOUR_*) < flags
//! ```
//!
//! What was typed is a list of [`layer::Given`]: texts and where they stand. What it means is
//! [`Options`], and a value that an `Options` from [`load`] holds is in range and fits the others.
//! Reading is pure: the environment, the file's reader and the flags are handed in.
//!
//! Invariants:
//! - A setting is stated once, in [`table`]; its key, variable, flag, help and documentation follow.
//! - A typed value that is wrong is refused even if a higher layer overrides it.
//! - No secret leaves through an error, a report or `Debug`.

use std::io;
use std::path::{Path, PathBuf};

pub mod channels;
pub mod command_line;
pub mod defaults;
pub mod error;
pub mod form;
pub mod layer;
pub mod report;
pub mod table;
pub mod webhooks;

pub use channels::ChannelPattern;
pub use error::OptionsError;
pub use form::{Automatic, Cores, Secret};
pub use layer::{Flags, Origin};
pub use table::{AppOptions, ChannelOptions, HookOptions, Options, WebhookOptions};
pub use webhooks::{EventType, EventTypes, OnFailure, Url};

use crate::base::dialect::Dialect;

use defaults::{SOKETI_DEFAULTS, listed_app, listed_channel};
use form::Kind;
use layer::{CONFIG_VARIABLE, Environment, File, Given, ListedApps, ListedTable};
use table::{
    APP_REQUIRED, APP_SETTINGS, BUILT_IN_SECRET, CHANNEL_REQUIRED, CHANNEL_SETTINGS, HOOK_SETTINGS,
    ONLY_APP, SETTINGS, Setting, WEBHOOK_REQUIRED, WEBHOOK_SETTINGS,
};

/// The options, and where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub options: Options,
    /// One for each of [`SETTINGS`].
    origins: Vec<Origin>,
    /// If the apps are listed: for each of them.
    app_origins: Option<Vec<AppOrigins>>,
}

#[derive(Clone, Debug)]
struct AppOrigins {
    /// One for each of [`APP_SETTINGS`].
    own: Vec<Origin>,
    /// For each table of channels one for each of [`CHANNEL_SETTINGS`].
    channels: Vec<Vec<Origin>>,
    /// For each webhook one for each of [`WEBHOOK_SETTINGS`].
    webhooks: Vec<Vec<Origin>>,
    /// If there is a hook: one for each of [`HOOK_SETTINGS`].
    before_publish: Option<Vec<Origin>>,
}

/// Merges the four layers. `environment` may hold foreign variables; `read_file` is called at most
/// once, with the path that a flag or a variable names.
pub fn load(
    flags: Flags,
    environment: impl IntoIterator<Item = (String, String)>,
    read_file: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<Loaded, OptionsError> {
    let environment = Environment::read(environment)?;
    let from_flag = flags
        .config
        .as_ref()
        .map(|path| (path, Origin::Flag("config".to_string())));
    let from_variable = || {
        let named_by = Origin::Environment(CONFIG_VARIABLE.to_string());
        environment.config.as_ref().map(|path| (path, named_by))
    };
    let file = match from_flag.or_else(from_variable) {
        Some((path, named_by)) => file(PathBuf::from(path), named_by, read_file)?,
        None => File::default(),
    };

    let mut loaded = Loaded::default();
    let layers = [file.settings, environment.settings, flags.given()];
    for given in layers.into_iter().flatten() {
        apply(SETTINGS, &mut loaded.options, &mut loaded.origins, given)?;
    }
    loaded.take_defaults_of_dialect();
    match file.apps {
        Some(listed) => loaded.take_listed_apps(listed)?,
        None => loaded.complete_only_app(),
    }
    loaded.check_sizes()?;
    loaded.check_secrets()?;
    loaded.check_journal()?;
    Ok(loaded)
}

impl Options {
    /// How many shards to run, on a machine that lets the process run on so many cores.
    pub fn shard_count(&self, cores_allowed: usize) -> u16 {
        let cores = match (&self.shards, &self.cores) {
            (Automatic::Exactly(shards), _) => return *shards,
            (Automatic::Auto, Cores::Listed(cores)) => cores.len(),
            (Automatic::Auto, Cores::All | Cores::Unpinned) => cores_allowed,
        };
        u16::try_from(cores.clamp(1, SHARDS_AUTO_MAX)).expect("the clamp is below 2^16")
    }

    /// Whether /metrics is served.
    pub fn metrics_are_served(&self) -> bool {
        match self.metrics {
            Automatic::Auto => self.is_loopback(),
            Automatic::Exactly(is_on) => is_on,
        }
    }

    /// Whether only this machine can reach the address.
    pub fn is_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }
}

/// As many shards as the setting itself accepts.
const SHARDS_AUTO_MAX: usize = 1024;

impl Default for Loaded {
    fn default() -> Self {
        Loaded {
            options: Options::default(),
            origins: vec![Origin::Default; SETTINGS.len()],
            app_origins: None,
        }
    }
}

fn file(
    path: PathBuf,
    named_by: Origin,
    read_file: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<File, OptionsError> {
    match read_file(&path) {
        Ok(text) => File::parse(&path, &text),
        Err(error) => Err(OptionsError::FileUnreadable {
            path,
            named_by,
            error,
        }),
    }
}

fn apply<T>(
    settings: &'static [Setting<T>],
    target: &mut T,
    origins: &mut [Origin],
    given: Given,
) -> Result<(), OptionsError> {
    let setting = &settings[given.index];
    let is_kind_taken = setting.takes(given.kind);
    if is_kind_taken && setting.set(target, &given.text) {
        origins[given.index] = given.origin;
        return Ok(());
    }
    let shown = match (setting.is_secret(), given.kind) {
        (true, _) => Secret::new(given.text).to_string(),
        // What it says is not for this setting, and may be a secret of another one.
        (false, Kind::Table) => "{...}".to_string(),
        (false, _) => given.text.chars().take(SHOWN_CHARACTERS_MAX).collect(),
    };
    Err(OptionsError::Refused {
        name: setting.name,
        shown,
        kind: given.kind,
        is_kind_taken,
        origin: given.origin,
        accepts: setting.accepts(),
    })
}

/// Reads a table of the file into `target`, which must state all that is required.
fn complete<T>(
    table: &'static str,
    settings: &'static [Setting<T>],
    required: &[&str],
    listed: ListedTable,
    target: &mut T,
) -> Result<Vec<Origin>, OptionsError> {
    let mut origins = vec![Origin::Default; settings.len()];
    for given in listed.settings {
        apply(settings, target, &mut origins, given)?;
    }
    let is_missing = |(setting, origin): &(&Setting<T>, &Origin)| {
        required.contains(&setting.name) && **origin == Origin::Default
    };
    match settings.iter().zip(&origins).find(is_missing) {
        None => Ok(origins),
        Some((setting, _)) => Err(OptionsError::Incomplete {
            table,
            missing: setting.name,
            origin: listed.origin,
        }),
    }
}

/// How much of a refused value an error repeats.
const SHOWN_CHARACTERS_MAX: usize = 100;

impl Loaded {
    fn origin(&self, name: &str) -> &Origin {
        let index = SETTINGS.iter().position(|setting| setting.name == name);
        &self.origins[index.expect("callers name settings of the table")]
    }

    /// What nobody stated has the default of the dialect.
    fn take_defaults_of_dialect(&mut self) {
        let defaults = match self.options.compat {
            Dialect::Pusher => &[],
            Dialect::Soketi => SOKETI_DEFAULTS,
        };
        for (setting, origin) in SETTINGS.iter().zip(&mut self.origins) {
            let default = defaults.iter().find(|(name, _)| *name == setting.name);
            if let Some((name, text)) = default.filter(|_| *origin == Origin::Default) {
                assert!(
                    setting.set(&mut self.options, text),
                    "{name} accepts {text}"
                );
                *origin = Origin::Compat;
            }
        }
    }

    fn take_listed_apps(&mut self, listed: ListedApps) -> Result<(), OptionsError> {
        for (setting, origin) in SETTINGS.iter().zip(&self.origins) {
            if ONLY_APP.contains(&setting.name) && *origin != Origin::Default {
                return Err(OptionsError::ListAndOnlyApp {
                    name: setting.name,
                    origin: origin.clone(),
                    list: listed.origin,
                });
            }
        }
        let mut apps = Vec::new();
        let mut app_origins = Vec::new();
        for entry in listed.apps {
            let mut app = listed_app(&self.options);
            let own = complete("app", APP_SETTINGS, &APP_REQUIRED, entry.own, &mut app)?;
            let mut channels = Vec::new();
            for table in entry.channels {
                let mut channel = listed_channel(&self.options);
                let (settings, required) = (CHANNEL_SETTINGS, &CHANNEL_REQUIRED);
                let name = "table of channels";
                channels.push(complete(name, settings, required, table, &mut channel)?);
                app.channels.push(channel);
            }
            let mut webhooks = Vec::new();
            for table in entry.webhooks {
                let mut webhook = WebhookOptions::default();
                let (settings, required) = (WEBHOOK_SETTINGS, &WEBHOOK_REQUIRED);
                webhooks.push(complete(
                    "webhook",
                    settings,
                    required,
                    table,
                    &mut webhook,
                )?);
                app.webhooks.push(webhook);
            }
            let mut before_publish = None;
            if let Some(table) = entry.before_publish {
                let mut hook = HookOptions::default();
                let (settings, required) = (HOOK_SETTINGS, &WEBHOOK_REQUIRED);
                let name = "before_publish hook";
                before_publish = Some(complete(name, settings, required, table, &mut hook)?);
                app.before_publish = Some(hook);
            }
            apps.push(app);
            app_origins.push(AppOrigins {
                own,
                channels,
                webhooks,
                before_publish,
            });
        }
        check_unique(&apps, &app_origins, "id", |app| &app.id)?;
        check_unique(&apps, &app_origins, "key", |app| &app.key)?;
        self.options.apps = apps;
        self.app_origins = Some(app_origins);
        Ok(())
    }

    /// The only app has the limits of the server; and whoever gave it a secret meant it for use,
    /// where client events are off unless asked for.
    fn complete_only_app(&mut self) {
        let is_client_events_stated = *self.origin("client_events") != Origin::Default;
        let mut app = self.options.apps[0].clone();
        app.take_limits(&self.options);
        if !is_client_events_stated {
            app.client_events = is_built_in(&app);
        }
        let events = self.options.webhook_events;
        let webhook = |url: &Url| WebhookOptions {
            url: url.clone(),
            events,
            ..WebhookOptions::default()
        };
        app.webhooks = self.options.webhook_url.iter().map(webhook).collect();
        let channel = |name: &ChannelPattern| ChannelOptions {
            name: name.clone(),
            ..listed_channel(&self.options)
        };
        let retained = &self.options.retained_channels;
        app.channels = retained.iter().map(channel).collect();
        self.options.apps[0] = app;
    }

    /// What is to be on disk has a place there.
    fn check_journal(&self) -> Result<(), OptionsError> {
        if self.options.journal_directory.is_some() {
            return Ok(());
        }
        for (index, app) in self.options.apps.iter().enumerate() {
            let durable = app.channels.iter().position(|channel| channel.is_durable());
            let Some(place) = durable else { continue };
            let own = self.app_origins.as_ref().map(|origins| {
                let mut settings = CHANNEL_SETTINGS.iter();
                let setting = settings.position(|setting| setting.name == "durability");
                &origins[index].channels[place][setting.expect("it is a setting of channels")]
            });
            let own = own.filter(|origin| **origin != Origin::Default);
            return Err(OptionsError::NoJournal {
                channels: app.channels[place].name.to_string(),
                origin: own.unwrap_or(self.origin("durability")).clone(),
            });
        }
        Ok(())
    }

    /// Bounds that are in range one by one, and of which one makes another unreachable.
    fn check_sizes(&self) -> Result<(), OptionsError> {
        let options = &self.options;
        let data = largest(options, |app| app.event_data_bytes_max);
        let user = largest(options, |app| app.presence_user_bytes_max);
        let frame = event_frame_bytes_max(options, data);
        let arrival = event_frame_bytes_max(options, user);
        self.check_least(
            "drain_timeout_ms",
            options.drain_timeout_ms,
            options.drain_ms,
            "as drain_ms is",
        )?;
        self.check_least(
            "log_bytes_per_shard_max",
            options.log_bytes_per_shard_max as u64,
            options.log_bytes_max as u64,
            "as log_bytes_max is",
        )?;
        self.check_least(
            "log_bytes_max",
            options.log_bytes_max as u64,
            frame as u64,
            &format!("as long as an event with {data} bytes of data (event_data_bytes_max) may be when it is encoded"),
        )?;
        self.check_least(
            "log_bytes_max",
            options.log_bytes_max as u64,
            arrival as u64,
            &format!("as long as the arrival of a user of {user} bytes (presence_user_bytes_max) may be when it is encoded"),
        )?;
        for (name, bytes, least, because) in [
            ("message_bytes_max", options.message_bytes_max, data, DATA),
            (
                "http_body_bytes_max",
                options.http_body_bytes_max,
                data,
                DATA,
            ),
            ("message_bytes_max", options.message_bytes_max, user, USER),
        ] {
            self.check_least(name, bytes as u64, least as u64, because)?;
        }
        Ok(())
    }

    fn check_least(
        &self,
        name: &'static str,
        value: u64,
        least: u64,
        because: &str,
    ) -> Result<(), OptionsError> {
        if value >= least {
            return Ok(());
        }
        Err(OptionsError::TooSmall {
            name,
            value,
            origin: self.origin(name).clone(),
            least,
            because: because.to_string(),
        })
    }

    fn check_secrets(&self) -> Result<(), OptionsError> {
        let exposed = self.options.apps.iter().position(is_built_in);
        let Some(index) = exposed.filter(|_| !self.options.is_loopback()) else {
            return Ok(());
        };
        let secret_origin = match &self.app_origins {
            Some(apps) => {
                let secret = APP_SETTINGS.iter().position(Setting::is_secret);
                &apps[index].own[secret.expect("an app has a secret")]
            }
            None => self.origin("app_secret"),
        };
        Err(OptionsError::BuiltInSecret {
            address: self.options.address,
            address_origin: self.origin("address").clone(),
            app: self.options.apps[index].id.clone(),
            secret_origin: secret_origin.clone(),
        })
    }
}

const DATA: &str = "as event_data_bytes_max is";
const USER: &str = "as presence_user_bytes_max is";

/// The largest value of a setting that each app has its own of.
fn largest(options: &Options, of: impl Fn(&AppOptions) -> usize) -> usize {
    let values = options.apps.iter().map(of);
    values.max().expect("there is at least one app")
}

fn is_built_in(app: &AppOptions) -> bool {
    app.secret.as_bytes() == BUILT_IN_SECRET.as_bytes()
}

fn check_unique(
    apps: &[AppOptions],
    origins: &[AppOrigins],
    name: &'static str,
    value: impl Fn(&AppOptions) -> &str,
) -> Result<(), OptionsError> {
    let column = APP_SETTINGS.iter().position(|setting| setting.name == name);
    let column = column.expect("callers name settings of an app");
    for (second, app) in apps.iter().enumerate() {
        let first = apps[..second]
            .iter()
            .position(|other| value(other) == value(app));
        if let Some(first) = first {
            return Err(OptionsError::Repeated {
                name,
                value: value(app).to_string(),
                first: origins[first].own[column].clone(),
                second: origins[second].own[column].clone(),
            });
        }
    }
    Ok(())
}

/// The longest frame of an event with so much data: JSON writes a byte as up to six (`\u0000`),
/// around it stand names and punctuation.
fn event_frame_bytes_max(options: &Options, data_bytes: usize) -> usize {
    let name_bytes = largest(options, |app| app.event_name_bytes_max);
    let user_id_characters = largest(options, |app| app.user_id_characters_max);
    let escaped = JSON_ESCAPE_BYTES_MAX * (data_bytes + name_bytes + user_id_characters);
    let channel_bytes = largest(options, |app| app.channel_name_bytes_max);
    escaped + channel_bytes + EVENT_ENVELOPE_BYTES_MAX
}

/// `\u0000` (RFC 8259, section 7).
const JSON_ESCAPE_BYTES_MAX: usize = 6;

/// The WebSocket header (14), the members' names and punctuation of an event (62), and what it may
/// carry besides: a serial.
const EVENT_ENVELOPE_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests;
