//! Which channels a setting speaks of: names, beginnings and ends of names.

use std::fmt;

use super::form::{Form, Kind};
use super::table::ChannelOptions;

/// A channel by its name, or all whose names begin or end alike. Channels of users, whose names
/// begin with `#`, are in none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelPattern {
    Exact(String),
    /// `text*`; nothing before the star stands for every channel.
    Prefix(String),
    /// `*text`
    Suffix(String),
}

impl ChannelPattern {
    pub fn parse(text: &str) -> Option<ChannelPattern> {
        let (make, name): (fn(String) -> ChannelPattern, &str) = match text {
            text if text.ends_with('*') => (ChannelPattern::Prefix, &text[..text.len() - 1]),
            text if text.starts_with('*') => (ChannelPattern::Suffix, &text[1..]),
            "" => return None,
            text => (ChannelPattern::Exact, text),
        };
        let is_of_names = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte);
        name.bytes()
            .all(is_of_names)
            .then(|| make(name.to_string()))
    }

    pub fn fits(&self, channel: &str) -> bool {
        let fits = match self {
            ChannelPattern::Exact(name) => channel == name,
            ChannelPattern::Prefix(start) => channel.starts_with(start.as_str()),
            ChannelPattern::Suffix(end) => channel.ends_with(end.as_str()),
        };
        fits && !channel.starts_with('#')
    }
}

impl fmt::Display for ChannelPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChannelPattern::Exact(name) => out.write_str(name),
            ChannelPattern::Prefix(start) => write!(out, "{start}*"),
            ChannelPattern::Suffix(end) => write!(out, "*{end}"),
        }
    }
}

/// Where an event is when its publish is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Memory,
    /// In the journal as well.
    Disk,
}

/// Each with its name.
pub const DURABILITIES: &[(&str, Durability)] =
    &[("memory", Durability::Memory), ("disk", Durability::Disk)];

impl ChannelOptions {
    /// Whether events are on disk before anybody sees them.
    pub fn is_durable(&self) -> bool {
        self.serials && self.durability == Durability::Disk
    }
}

/// One [`ChannelPattern`].
pub struct PatternText;

impl Form for PatternText {
    type Value = ChannelPattern;

    fn accepts(&self) -> String {
        "a channel's name, start* or *end".to_string()
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::String
    }

    fn parse(&self, text: &str) -> Option<ChannelPattern> {
        ChannelPattern::parse(text)
    }

    fn print(&self, value: &ChannelPattern) -> String {
        value.to_string()
    }
}

/// Any number of [`ChannelPattern`]s, between blanks outside of the file.
pub struct PatternList;

impl Form for PatternList {
    type Value = Vec<ChannelPattern>;

    fn accepts(&self) -> String {
        "nothing, or channels' names, start* or *end (between blanks)".to_string()
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::String
    }

    fn parse(&self, text: &str) -> Option<Vec<ChannelPattern>> {
        text.split_whitespace().map(ChannelPattern::parse).collect()
    }

    fn print(&self, value: &Vec<ChannelPattern>) -> String {
        let texts: Vec<String> = value.iter().map(ChannelPattern::to_string).collect();
        texts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_has_one_star_at_an_end() {
        for (text, fitting, other) in [
            ("room", "room", "room-2"),
            ("chat-*", "chat-a", "a-chat-"),
            ("*-log", "a-log", "a-log-b"),
            ("*", "anything", "#server-to-user-7"),
        ] {
            let pattern = ChannelPattern::parse(text).unwrap();
            assert!(pattern.fits(fitting) && !pattern.fits(other), "{pattern:?}");
            assert_eq!(pattern.to_string(), text);
        }
        for text in ["", "a*b", "*a*", "#a", "a b"] {
            assert_eq!(ChannelPattern::parse(text), None, "{text}");
        }
        let two = PatternList.parse(" a  b* ").unwrap();
        assert_eq!(PatternList.print(&two), "a b*");
        assert_eq!(PatternList.parse("a b*c"), None);
        assert_eq!(PatternList.parse(""), Some(Vec::new()));
    }
}
