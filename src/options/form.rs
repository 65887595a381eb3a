//! What a setting accepts: one form per kind of value, from text to a type that cannot be wrong.
//!
//! A form parses, prints what it parsed, and says in words what it accepts, so that an error, the
//! help and the documentation cannot disagree. The same form reads the file, the environment and
//! the flags; the file's value arrives with the [`Kind`] that TOML gave it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// How a value was written: freely, as in flags and the environment, or as one of TOML's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Free,
    String,
    Integer,
    Boolean,
    /// An array; its elements come joined by commas.
    List,
    Float,
    Date,
    Table,
}

pub trait Form: Sync {
    type Value;

    /// Completes the sentence "the setting accepts ...".
    fn accepts(&self) -> String;

    /// Whether the file may write the value as this kind. Free text is always taken.
    fn takes(&self, kind: Kind) -> bool;

    fn parse(&self, text: &str) -> Option<Self::Value>;

    /// The text that parses to this value; of a secret only what [`Secret`] shows.
    fn print(&self, value: &Self::Value) -> String;

    /// What a flag without a value means, where that is allowed.
    fn bare(&self) -> Option<&'static str> {
        None
    }

    fn is_secret(&self) -> bool {
        false
    }
}

/// A value, or the server's own choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Automatic<T> {
    Auto,
    Exactly(T),
}

/// The cores that shards are pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Every core that the process may run on.
    All,
    /// The scheduler decides.
    Unpinned,
    /// These, in this order, none of them twice.
    Listed(Vec<usize>),
}

/// A signing secret. It is never printed whole: `Debug` and `Display` show at most a quarter of
/// it, and no more than four characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.0.chars().count();
        let prefix: String = self.0.chars().take((length / 4).min(4)).collect();
        write!(out, "{prefix}... ({length} characters)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Secret({self})")
    }
}

/// A whole number from the first to the second, both included.
pub struct Whole<T>(pub T, pub T);

impl<T> Form for Whole<T>
where
    T: Copy + PartialOrd + fmt::Display + TryFrom<u64> + Sync,
{
    type Value = T;

    fn accepts(&self) -> String {
        format!("a whole number from {} to {}", self.0, self.1)
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::Integer
    }

    fn parse(&self, text: &str) -> Option<T> {
        let number: u64 = text.parse().ok()?;
        let value = T::try_from(number).ok()?;
        (self.0 <= value && value <= self.1).then_some(value)
    }

    fn print(&self, value: &T) -> String {
        value.to_string()
    }
}

/// `auto`, or what the inner form accepts.
pub struct Auto<F>(pub F);

impl<F: Form> Form for Auto<F> {
    type Value = Automatic<F::Value>;

    fn accepts(&self) -> String {
        format!("auto, or {}", self.0.accepts())
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::String || self.0.takes(kind)
    }

    fn parse(&self, text: &str) -> Option<Self::Value> {
        if text == "auto" {
            return Some(Automatic::Auto);
        }
        self.0.parse(text).map(Automatic::Exactly)
    }

    fn print(&self, value: &Self::Value) -> String {
        match value {
            Automatic::Auto => "auto".to_string(),
            Automatic::Exactly(value) => self.0.print(value),
        }
    }

    fn bare(&self) -> Option<&'static str> {
        self.0.bare()
    }
}

/// On or off; the file may also write TOML's booleans, the flag may stand alone.
pub struct Switch;

impl Form for Switch {
    type Value = bool;

    fn accepts(&self) -> String {
        "one of on, off, true, false".to_string()
    }

    fn takes(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Boolean | Kind::String)
    }

    fn parse(&self, text: &str) -> Option<bool> {
        match text {
            "on" | "true" => Some(true),
            "off" | "false" => Some(false),
            _ => None,
        }
    }

    fn print(&self, value: &bool) -> String {
        if *value { "on" } else { "off" }.to_string()
    }

    fn bare(&self) -> Option<&'static str> {
        Some("on")
    }
}

/// One of these words.
pub struct Words<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Copy + PartialEq + Sync> Form for Words<T> {
    type Value = T;

    fn accepts(&self) -> String {
        let words: Vec<&str> = self.0.iter().map(|(word, _)| *word).collect();
        format!("one of {}", words.join(", "))
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::String
    }

    fn parse(&self, text: &str) -> Option<T> {
        let (_, value) = self.0.iter().find(|(word, _)| *word == text)?;
        Some(*value)
    }

    fn print(&self, value: &T) -> String {
        let named = self.0.iter().find(|(_, listed)| listed == value);
        let (word, _) = named.expect("a form of words lists every value of its setting");
        word.to_string()
    }
}

/// Where to listen. Names are not looked up: `localhost` is 127.0.0.1 and nothing else is a name.
pub struct Address;

impl Form for Address {
    type Value = SocketAddr;

    fn accepts(&self) -> String {
        "IP:PORT, [IPv6]:PORT, localhost:PORT, or PORT alone for 127.0.0.1".to_string()
    }

    fn takes(&self, kind: Kind) -> bool {
        matches!(kind, Kind::String | Kind::Integer)
    }

    fn parse(&self, text: &str) -> Option<SocketAddr> {
        let port = text.strip_prefix("localhost:").unwrap_or(text);
        if port.bytes().all(|byte| byte.is_ascii_digit()) {
            let port = port.parse().ok()?;
            return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        }
        text.parse().ok()
    }

    fn print(&self, value: &SocketAddr) -> String {
        value.to_string()
    }
}

/// Nothing, or the beginning of a URL's path, which ends before a slash.
pub struct PathPrefix;

impl Form for PathPrefix {
    type Value = String;

    fn accepts(&self) -> String {
        format!("nothing, or a path such as /realtime that ends without a slash, of {URL_SAFE}")
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::String
    }

    fn parse(&self, text: &str) -> Option<String> {
        (text.is_empty() || is_path(text)).then(|| text.to_string())
    }

    fn print(&self, value: &String) -> String {
        value.clone()
    }
}

/// Nothing, or a path of its own, beside those of the protocol.
pub struct OwnPath;

impl Form for OwnPath {
    type Value = Option<String>;

    fn accepts(&self) -> String {
        format!("nothing, or a path such as /echo that is not /app or /apps, of {URL_SAFE}")
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::String
    }

    fn parse(&self, text: &str) -> Option<Option<String>> {
        if text.is_empty() {
            return Some(None);
        }
        let first = text.split('/').nth(1)?;
        (is_path(text) && first != "app" && first != "apps").then(|| Some(text.to_string()))
    }

    fn print(&self, value: &Option<String>) -> String {
        value.clone().unwrap_or_default()
    }
}

/// A directory of the machine.
pub struct Directory;

impl Form for Directory {
    type Value = Option<PathBuf>;

    fn accepts(&self) -> String {
        "nothing, or the path of a directory".to_string()
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::String
    }

    fn parse(&self, text: &str) -> Option<Option<PathBuf>> {
        Some((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn print(&self, value: &Option<PathBuf>) -> String {
        let path = value.as_ref().map(|path| path.display().to_string());
        path.unwrap_or_default()
    }
}

fn is_path(text: &str) -> bool {
    let is_segment = |segment: &str| !segment.is_empty() && segment.bytes().all(is_url_safe);
    text.strip_prefix('/')
        .is_some_and(|rest| rest.split('/').all(is_segment))
}

/// The cores to pin shards to. Numbers go as far as the kernel's largest CPU set, 8192.
pub struct CoreList;

const CORE_NUMBER_MAX: usize = 8191;

impl Form for CoreList {
    type Value = Cores;

    fn accepts(&self) -> String {
        "all, none, or numbers and ranges of cores such as 0,2,4-7, none of them twice".to_string()
    }

    fn takes(&self, kind: Kind) -> bool {
        matches!(kind, Kind::String | Kind::Integer | Kind::List)
    }

    fn parse(&self, text: &str) -> Option<Cores> {
        match text {
            "all" => return Some(Cores::All),
            "none" => return Some(Cores::Unpinned),
            _ => {}
        }
        let mut listed = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().ok()?;
            let last: usize = last.trim().parse().ok()?;
            if first > last || last > CORE_NUMBER_MAX {
                return None;
            }
            for core in first..=last {
                if listed.contains(&core) {
                    return None;
                }
                listed.push(core);
            }
        }
        Some(Cores::Listed(listed))
    }

    fn print(&self, value: &Cores) -> String {
        match value {
            Cores::All => "all".to_string(),
            Cores::Unpinned => "none".to_string(),
            Cores::Listed(cores) => {
                let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
                cores.join(",")
            }
        }
    }
}

/// An app's id or key: part of URLs, and followed by a colon in signatures, so it holds neither.
pub struct Identifier;

const IDENTIFIER_BYTES_MAX: usize = 128;

impl Form for Identifier {
    type Value = String;

    fn accepts(&self) -> String {
        format!("1 to {IDENTIFIER_BYTES_MAX} characters of {URL_SAFE}")
    }

    /// Ids are mostly digits, so a bare number is as good as a string.
    fn takes(&self, kind: Kind) -> bool {
        matches!(kind, Kind::String | Kind::Integer)
    }

    fn parse(&self, text: &str) -> Option<String> {
        let fits = (1..=IDENTIFIER_BYTES_MAX).contains(&text.len());
        (fits && text.bytes().all(is_url_safe)).then(|| text.to_string())
    }

    fn print(&self, value: &String) -> String {
        value.clone()
    }
}

const URL_SAFE: &str = "A-Z a-z 0-9 - _ . ~";

/// The characters that a URL leaves unreserved (RFC 3986, section 2.3).
fn is_url_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)
}

/// A secret of an app.
pub struct SecretText;

const SECRET_BYTES_MAX: usize = 256;

impl Form for SecretText {
    type Value = Secret;

    fn accepts(&self) -> String {
        format!("a text of 1 to {SECRET_BYTES_MAX} bytes without spaces")
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::String
    }

    /// A space or a line's end in a secret is an accident of copying, and a signature that never
    /// matches does not tell of it.
    fn parse(&self, text: &str) -> Option<Secret> {
        let fits = (1..=SECRET_BYTES_MAX).contains(&text.len());
        let is_solid = !text.contains(|c: char| c.is_whitespace() || c.is_control());
        (fits && is_solid).then(|| Secret::new(text))
    }

    fn print(&self, value: &Secret) -> String {
        value.to_string()
    }

    fn is_secret(&self) -> bool {
        true
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Kind::Free => "text",
            Kind::String => "a string",
            Kind::Integer => "an integer",
            Kind::Boolean => "a boolean",
            Kind::List => "an array",
            Kind::Float => "a float",
            Kind::Date => "a date",
            Kind::Table => "a table",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<F: Form>(form: F, accepted: &[(&str, &str)], refused: &[&str]) {
        for (text, printed) in accepted {
            let value = form.parse(text).unwrap_or_else(|| panic!("{text:?}"));
            assert_eq!(form.print(&value), *printed);
        }
        for text in refused {
            assert!(form.parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn every_form_takes_what_it_says_and_nothing_else() {
        check(
            Whole(1u16, 1024),
            &[("1", "1"), ("1024", "1024")],
            &["0", "1025", "70000", "-1", "1.5", "", " 1", "auto"],
        );
        check(
            Auto(Whole(1u16, 4)),
            &[("auto", "auto"), ("4", "4")],
            &["5", "Auto"],
        );
        check(Switch, &[("on", "on"), ("false", "off")], &["yes", "1", ""]);
        check(
            Address,
            &[
                ("6001", "127.0.0.1:6001"),
                ("localhost:80", "127.0.0.1:80"),
                ("0.0.0.0:6001", "0.0.0.0:6001"),
                ("[::1]:6001", "[::1]:6001"),
            ],
            &[
                "",
                "70000",
                "localhost:",
                "example.org:80",
                "1.2.3.4",
                "::1:6001",
                ":6001",
            ],
        );
        check(
            PathPrefix,
            &[("", ""), ("/a", "/a"), ("/a/b-1", "/a/b-1")],
            &["/", "a", "/a/", "/a//b", "/a b", "/a?b", "/%41"],
        );
        check(
            OwnPath,
            &[("", ""), ("/echo", "/echo")],
            &["/app", "/apps/x", "/", "echo"],
        );
        check(
            CoreList,
            &[
                ("all", "all"),
                ("none", "none"),
                ("0,2,4-6", "0,2,4,5,6"),
                ("3, 1", "3,1"),
            ],
            &[
                "",
                "0,0",
                "1-3,2",
                "5-4",
                "8192",
                "a",
                "1,,2",
                "0-99999999999",
            ],
        );
        check(
            Identifier,
            &[("1001", "1001"), ("a-_.~Z", "a-_.~Z")],
            &["", "a b", "a:b", "a/b"],
        );
        check(
            SecretText,
            &[
                ("abc", "... (3 characters)"),
                ("app-secret", "ap... (10 characters)"),
            ],
            &["", "a b", "a\n"],
        );
    }

    #[test]
    fn a_secret_shows_at_most_four_characters() {
        let secret = Secret::new("0123456789abcdef0123456789abcdef");
        assert_eq!(secret.to_string(), "0123... (32 characters)");
        assert_eq!(format!("{secret:?}"), "Secret(0123... (32 characters))");
    }
}
