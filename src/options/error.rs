//! Why the options were refused, in words that name the setting, the value, the place and the way
//! out. No secret is in them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::form::Kind;
use super::layer::Origin;

#[derive(Debug)]
pub enum OptionsError {
    FileUnreadable {
        path: PathBuf,
        /// Who named the file: a flag or a variable.
        named_by: Origin,
        error: io::Error,
    },
    FileNotToml {
        origin: Origin,
        message: String,
    },
    UnknownKey {
        name: String,
        origin: Origin,
        nearest: String,
    },
    UnknownVariable {
        name: String,
        nearest: String,
    },
    /// The value has the wrong type or is out of range.
    Refused {
        name: &'static str,
        /// As typed, or a secret's prefix and length.
        shown: String,
        kind: Kind,
        is_kind_taken: bool,
        origin: Origin,
        accepts: String,
    },
    /// The value is in range, and another setting asks for more.
    TooSmall {
        name: &'static str,
        value: u64,
        origin: Origin,
        least: u64,
        /// Completes the sentence "must be at least LEAST, ...".
        because: String,
    },
    /// Something else than a table, or a list of at least one.
    NotTables {
        name: &'static str,
        origin: Origin,
        accepts: &'static str,
    },
    /// The apps are listed, and a setting of the only app is stated as well.
    ListAndOnlyApp {
        name: &'static str,
        origin: Origin,
        list: Origin,
    },
    /// A table of a list lacks what it must state.
    Incomplete {
        /// What the table describes.
        table: &'static str,
        missing: &'static str,
        origin: Origin,
    },
    /// Channels are to be on disk, and there is no journal.
    NoJournal {
        channels: String,
        origin: Origin,
    },
    /// Two apps have the same id, or the same key.
    Repeated {
        name: &'static str,
        value: String,
        first: Origin,
        second: Origin,
    },
    /// Everybody knows the built-in secret, and everybody could reach the address.
    BuiltInSecret {
        address: SocketAddr,
        address_origin: Origin,
        app: String,
        secret_origin: Origin,
    },
}

impl OptionsError {
    /// What to type to get further, where that is known: it holds `fresh_secret` as a new secret.
    pub fn remedy(&self, fresh_secret: &str) -> Option<String> {
        match self {
            OptionsError::BuiltInSecret { secret_origin, .. } => Some(match secret_origin {
                Origin::File { path, line } => {
                    let path = path.display();
                    format!("write in {path}:{line}, for example: secret = \"{fresh_secret}\"")
                }
                Origin::Flag(flag) => format!("for example: --{flag} {fresh_secret}"),
                Origin::Default | Origin::Compat | Origin::Environment(_) => {
                    format!(
                        "for example, before the same command: export OUTPOUR_APP_SECRET={fresh_secret}"
                    )
                }
            }),
            OptionsError::FileUnreadable { .. }
            | OptionsError::FileNotToml { .. }
            | OptionsError::UnknownKey { .. }
            | OptionsError::UnknownVariable { .. }
            | OptionsError::Refused { .. }
            | OptionsError::TooSmall { .. }
            | OptionsError::NotTables { .. }
            | OptionsError::ListAndOnlyApp { .. }
            | OptionsError::Incomplete { .. }
            | OptionsError::NoJournal { .. }
            | OptionsError::Repeated { .. } => None,
        }
    }
}

impl fmt::Display for OptionsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionsError::FileUnreadable {
                path,
                named_by,
                error,
            } => {
                write!(out, "cannot read {} ({named_by}): {error}", path.display())
            }
            OptionsError::FileNotToml { origin, message } => {
                write!(out, "{origin} is not TOML: {message}")
            }
            OptionsError::UnknownKey {
                name,
                origin,
                nearest,
            } => {
                write!(
                    out,
                    "unknown key {name} ({origin}); the nearest known one is {nearest}"
                )
            }
            OptionsError::UnknownVariable { name, nearest } => write!(
                out,
                "unknown variable {name} in the environment; the nearest known one is {nearest}"
            ),
            OptionsError::Refused {
                name,
                shown,
                kind,
                is_kind_taken,
                origin,
                accepts,
            } => {
                write!(
                    out,
                    "{name} = {shown:?} ({origin}) is refused: it accepts {accepts}"
                )?;
                if *is_kind_taken {
                    Ok(())
                } else {
                    write!(out, "; this is {kind}")
                }
            }
            OptionsError::TooSmall {
                name,
                value,
                origin,
                least,
                because,
            } => {
                write!(
                    out,
                    "{name} = {value} ({origin}) must be at least {least}, {because}"
                )
            }
            OptionsError::NotTables {
                name,
                origin,
                accepts,
            } => write!(out, "{name} ({origin}) accepts {accepts}"),
            OptionsError::ListAndOnlyApp { name, origin, list } => write!(
                out,
                "{name} ({origin}) is for a server with one app, and apps are listed ({list}): use one of the two"
            ),
            OptionsError::Incomplete {
                table,
                missing,
                origin,
            } => write!(out, "the {table} at {origin} has no {missing}"),
            OptionsError::NoJournal { channels, origin } => write!(
                out,
                "channels {channels} are to be on disk ({origin}), and there is no \
                 journal_directory: name one, or set durability = \"memory\""
            ),
            OptionsError::Repeated {
                name,
                value,
                first,
                second,
            } => {
                write!(
                    out,
                    "two apps have the {name} {value}: {first} and {second}"
                )
            }
            OptionsError::BuiltInSecret {
                address,
                address_origin,
                app,
                secret_origin,
            } => write!(
                out,
                "app {app} has the built-in secret ({secret_origin}), which everybody knows, so the address must be a loopback one and not {address} ({address_origin}): set a secret of your own"
            ),
        }
    }
}

impl std::error::Error for OptionsError {}
