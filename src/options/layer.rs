//! What was typed: the settings that the file, the environment and the flags state, as text with
//! the place where each stands.
//!
//! Reading a layer finds out which setting is meant and nothing more; what a text means is decided
//! when it is applied. An unknown name is an error here, with the nearest known one.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::OptionsError;
use super::form::Kind;
use super::table::{
    APP_SETTINGS, CHANNEL_SETTINGS, HOOK_SETTINGS, SETTINGS, Setting, VARIABLE_PREFIX,
    WEBHOOK_SETTINGS,
};
use super::webhooks;

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// The default of the dialect that `compat` names.
    Compat,
    /// Lines count from 1.
    File {
        path: PathBuf,
        line: usize,
    },
    /// The variable's name.
    Environment(String),
    /// The flag's name, without its dashes.
    Flag(String),
}

/// One setting as it was typed. It may be a secret, so neither this nor what holds it has `Debug`.
#[derive(Clone)]
pub struct Given {
    /// Its place in the table: of [`SETTINGS`], or of the table's own inside of a nested one.
    pub index: usize,
    pub text: String,
    pub kind: Kind,
    pub origin: Origin,
}

/// What the command line states.
#[derive(Clone, Default)]
pub struct Flags {
    pub config: Option<String>,
    /// Places in [`SETTINGS`], and the texts.
    pub settings: Vec<(usize, String)>,
}

impl Flags {
    pub fn given(self) -> Vec<Given> {
        let given = |(index, text): (usize, String)| Given {
            index,
            text,
            kind: Kind::Free,
            origin: Origin::Flag(SETTINGS[index].flag()),
        };
        self.settings.into_iter().map(given).collect()
    }
}

/// What the environment states.
#[derive(Default)]
pub struct Environment {
    pub config: Option<String>,
    pub settings: Vec<Given>,
}

/// Names the file of the second layer, in the environment.
pub const CONFIG_VARIABLE: &str = "OUTPOUR_CONFIG";

impl Environment {
    pub fn read(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, OptionsError> {
        let is_ours = |(name, _): &(String, String)| name.starts_with(VARIABLE_PREFIX);
        let mut ours: Vec<(String, String)> = variables.into_iter().filter(is_ours).collect();
        ours.sort();
        let mut environment = Environment::default();
        for (name, text) in ours {
            if name == CONFIG_VARIABLE {
                environment.config = Some(text);
            } else if let Some(index) = SETTINGS.iter().position(|s| s.variable() == name) {
                environment.settings.push(Given {
                    index,
                    text,
                    kind: Kind::Free,
                    origin: Origin::Environment(name),
                });
            } else if !is_service_link(&name, &text) {
                let mut known: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
                known.push(CONFIG_VARIABLE.to_string());
                return Err(OptionsError::UnknownVariable {
                    nearest: nearest(&name, known),
                    name,
                });
            }
        }
        Ok(environment)
    }
}

/// Whether a container platform made this variable to tell of a service whose name begins with
/// "outpour": `OUTPOUR_SERVICE_HOST`, `OUTPOUR_SERVICE_PORT[_NAME]`, `OUTPOUR_PORT=tcp://...` and
/// `OUTPOUR_PORT_6001_TCP[_PROTO|_PORT|_ADDR]`, each with the rest of the service's name after
/// OUTPOUR. Kubernetes puts these into every container beside the service, so they are no typing
/// errors; no setting's name has such a form.
fn is_service_link(name: &str, text: &str) -> bool {
    let ends = |suffix: &str| name.ends_with(suffix);
    let is_service =
        ends("_SERVICE_HOST") || ends("_SERVICE_PORT") || name.contains("_SERVICE_PORT_");
    let is_port = ends("_PORT") && text.contains("://");
    let is_protocol = |part: &str| matches!(part, "TCP" | "UDP" | "SCTP");
    let is_port_detail = name.rsplit_once("_PORT_").is_some_and(|(_, detail)| {
        let mut parts = detail.split('_');
        let number = parts.next().unwrap_or_default();
        number.bytes().all(|byte| byte.is_ascii_digit()) && parts.next().is_some_and(is_protocol)
    });
    is_service || is_port || is_port_detail
}

/// What the file states.
#[derive(Default)]
pub struct File {
    pub settings: Vec<Given>,
    /// The list of apps, if there is one.
    pub apps: Option<ListedApps>,
}

pub struct ListedApps {
    pub origin: Origin,
    pub apps: Vec<ListedApp>,
}

pub struct ListedApp {
    pub own: ListedTable,
    pub channels: Vec<ListedTable>,
    pub webhooks: Vec<ListedTable>,
    pub before_publish: Option<ListedTable>,
}

/// One table of a list, its settings in the order of the file.
pub struct ListedTable {
    pub origin: Origin,
    pub settings: Vec<Given>,
}

/// The key of the list of apps, and those of the tables in an app.
const APPS_KEY: &str = "apps";
const CHANNELS_KEY: &str = "channels";
const WEBHOOKS_KEY: &str = "webhooks";
const HOOK_KEY: &str = "before_publish";
const TABLE_KEYS: [&str; 3] = [CHANNELS_KEY, WEBHOOKS_KEY, HOOK_KEY];

impl File {
    pub fn parse(path: &Path, text: &str) -> Result<Self, OptionsError> {
        let source = Source { path, text };
        // The parser's own report quotes the line, which may hold a secret: only its message and
        // the line's number are taken.
        let table = DeTable::parse(text).map_err(|error| OptionsError::FileNotToml {
            origin: source.origin(error.span().map_or(0, |span| span.start)),
            message: error.message().to_string(),
        })?;
        let mut file = File::default();
        for (key, origin, value) in source.entries(table.get_ref()) {
            if key == APPS_KEY {
                file.apps = Some(source.apps(origin, value)?);
                continue;
            }
            let index = known(SETTINGS, key, &origin, &[APPS_KEY])?;
            file.settings.push(given(index, origin, value));
        }
        Ok(file)
    }
}

struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn origin(&self, offset: usize) -> Origin {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        Origin::File {
            path: self.path.to_path_buf(),
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
        }
    }

    /// The entries of a table in the order of the file.
    fn entries<'t, 'i>(
        &self,
        table: &'t DeTable<'i>,
    ) -> Vec<(&'t str, Origin, &'t Spanned<DeValue<'i>>)> {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries
            .into_iter()
            .map(|(key, value)| {
                let origin = self.origin(key.span().start);
                (key.get_ref().as_ref(), origin, value)
            })
            .collect()
    }

    fn apps(
        &self,
        origin: Origin,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<ListedApps, OptionsError> {
        let tables = self.tables(APPS_KEY, "[[apps]] tables, at least one", &origin, value)?;
        let apps = tables.into_iter().map(|(origin, table)| {
            let mut own = Vec::new();
            let (mut channels, mut webhooks) = (Vec::new(), Vec::new());
            let mut before_publish = None;
            for (key, origin, value) in self.entries(table) {
                if key == CHANNELS_KEY {
                    let accepts = "[[apps.channels]] tables, at least one";
                    let tables = self.tables(CHANNELS_KEY, accepts, &origin, value)?;
                    channels = self.all_listed(CHANNEL_SETTINGS, tables)?;
                    continue;
                }
                if key == WEBHOOKS_KEY {
                    let accepts = "[[apps.webhooks]] tables, at least one";
                    let tables = self.tables(WEBHOOKS_KEY, accepts, &origin, value)?;
                    webhooks = self.all_listed(WEBHOOK_SETTINGS, tables)?;
                    continue;
                }
                if key == HOOK_KEY {
                    before_publish = Some(self.hook(origin, value)?);
                    continue;
                }
                let index = known(APP_SETTINGS, key, &origin, &TABLE_KEYS)?;
                own.push(given(index, origin, value));
            }
            let own = ListedTable {
                origin,
                settings: own,
            };
            Ok(ListedApp {
                own,
                channels,
                webhooks,
                before_publish,
            })
        });
        let apps = apps.collect::<Result<_, _>>()?;
        Ok(ListedApps { origin, apps })
    }

    fn all_listed<T>(
        &self,
        known_settings: &[Setting<T>],
        tables: Vec<(Origin, &DeTable<'_>)>,
    ) -> Result<Vec<ListedTable>, OptionsError> {
        let listed = tables.into_iter();
        listed
            .map(|(origin, table)| self.listed(known_settings, origin, table))
            .collect()
    }

    fn hook(
        &self,
        origin: Origin,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<ListedTable, OptionsError> {
        match value.get_ref().as_table() {
            Some(table) => self.listed(HOOK_SETTINGS, origin, table),
            None => Err(OptionsError::NotTables {
                name: HOOK_KEY,
                origin,
                accepts: "one table, [apps.before_publish]",
            }),
        }
    }

    fn listed<T>(
        &self,
        known_settings: &[Setting<T>],
        origin: Origin,
        table: &DeTable<'_>,
    ) -> Result<ListedTable, OptionsError> {
        let entries = self.entries(table).into_iter();
        let settings = entries.map(|(key, origin, value)| {
            let index = known(known_settings, key, &origin, &[])?;
            Ok(given(index, origin, value))
        });
        let settings = settings.collect::<Result<_, _>>()?;
        Ok(ListedTable { origin, settings })
    }

    /// The tables of a list, each with its place.
    fn tables<'t, 'i>(
        &self,
        name: &'static str,
        accepts: &'static str,
        origin: &Origin,
        value: &'t Spanned<DeValue<'i>>,
    ) -> Result<Vec<(Origin, &'t DeTable<'i>)>, OptionsError> {
        let not_tables = |origin: &Origin| OptionsError::NotTables {
            name,
            origin: origin.clone(),
            accepts,
        };
        let list = value.get_ref().as_array();
        let list = list.filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| not_tables(origin))?;
        let tables = list.iter().map(|element| {
            let origin = self.origin(element.span().start);
            let table = element.get_ref().as_table();
            let table = table.ok_or_else(|| not_tables(&origin))?;
            Ok((origin, table))
        });
        tables.collect()
    }
}

fn given(index: usize, origin: Origin, value: &Spanned<DeValue<'_>>) -> Given {
    let (kind, text) = written(value.get_ref());
    Given {
        index,
        text,
        kind,
        origin,
    }
}

/// A value of TOML as the text that the forms read.
fn written(value: &DeValue<'_>) -> (Kind, String) {
    match value {
        DeValue::String(text) => (Kind::String, text.to_string()),
        DeValue::Integer(integer) => {
            let decimal = i128::from_str_radix(integer.as_str(), integer.radix());
            let text = decimal.map_or_else(|_| integer.to_string(), |number| number.to_string());
            (Kind::Integer, text)
        }
        DeValue::Boolean(boolean) => (Kind::Boolean, boolean.to_string()),
        DeValue::Array(elements) => {
            let texts: Vec<String> = elements.iter().map(|e| written(e.get_ref()).1).collect();
            (Kind::List, webhooks::join(texts.iter().map(String::as_str)))
        }
        DeValue::Float(float) => (Kind::Float, float.to_string()),
        DeValue::Datetime(date) => (Kind::Date, date.to_string()),
        DeValue::Table(entries) => {
            let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                format!("{}: {}", key.get_ref(), written(value.get_ref()).1)
            };
            let texts: Vec<String> = entries.iter().map(entry).collect();
            (
                Kind::Table,
                webhooks::join(texts.iter().map(String::as_str)),
            )
        }
    }
}

fn known<T>(
    settings: &[Setting<T>],
    key: &str,
    origin: &Origin,
    besides: &[&str],
) -> Result<usize, OptionsError> {
    if let Some(index) = settings.iter().position(|setting| setting.name == key) {
        return Ok(index);
    }
    let names = settings.iter().map(|setting| setting.name);
    let names = names.chain(besides.iter().copied()).map(str::to_string);
    Err(OptionsError::UnknownKey {
        name: key.to_string(),
        origin: origin.clone(),
        nearest: nearest(key, names),
    })
}

/// The name with the fewest letters to add, drop, change or swap; the first of equals.
fn nearest(name: &str, known: impl IntoIterator<Item = String>) -> String {
    known
        .into_iter()
        .min_by_key(|candidate| strsim::osa_distance(name, candidate))
        .expect("the table of settings is not empty")
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => out.write_str("default"),
            Origin::Compat => out.write_str("default of compat"),
            Origin::File { path, line } => write!(out, "file {}:{line}", path.display()),
            Origin::Environment(name) => write!(out, "environment {name}"),
            Origin::Flag(name) => write!(out, "flag --{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_a_service_named_outpour_are_nobody_s_typing_error() {
        let links = [
            ("OUTPOUR_SERVICE_HOST", "10.0.0.1"),
            ("OUTPOUR_SERVICE_PORT", "6001"),
            ("OUTPOUR_SERVICE_PORT_WS", "6001"),
            ("OUTPOUR_PORT", "tcp://10.0.0.1:6001"),
            ("OUTPOUR_PORT_6001_TCP", "tcp://10.0.0.1:6001"),
            ("OUTPOUR_PORT_6001_TCP_PROTO", "tcp"),
            ("OUTPOUR_PORT_6001_TCP_PORT", "6001"),
            ("OUTPOUR_PORT_6001_TCP_ADDR", "10.0.0.1"),
            ("OUTPOUR_EDGE_SERVICE_HOST", "10.0.0.1"),
            ("OUTPOUR_EDGE_PORT_6001_TCP_PORT", "6001"),
        ];
        for (name, text) in links {
            assert!(is_service_link(name, text), "{name}");
        }
        assert!(!is_service_link("OUTPOUR_PORT", "6001"));
        for setting in SETTINGS {
            assert!(
                !is_service_link(&setting.variable(), ""),
                "{}",
                setting.name
            );
        }
    }

    #[test]
    fn the_nearest_name_counts_a_swap_as_one() {
        let names = ["address", "cores", "shards"].map(str::to_string);
        assert_eq!(nearest("sahrds", names.clone()), "shards");
        assert_eq!(nearest("adress", names), "address");
    }
}
