//! What an app tells others over HTTP: which events go where, and the forms that say so.

use std::fmt;

use http::Uri;
use http::header::{HeaderName, HeaderValue};

use super::form::{Form, Kind};

/// What a webhook can tell of, by the vendor's names (Pusher Channels documentation, "Webhooks").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    ChannelOccupied,
    ChannelVacated,
    MemberAdded,
    MemberRemoved,
    ClientEvent,
    CacheMiss,
    SubscriptionCount,
}

impl EventType {
    pub const ALL: [EventType; 7] = [
        EventType::ChannelOccupied,
        EventType::ChannelVacated,
        EventType::MemberAdded,
        EventType::MemberRemoved,
        EventType::ClientEvent,
        EventType::CacheMiss,
        EventType::SubscriptionCount,
    ];

    pub fn name(self) -> &'static str {
        match self {
            EventType::ChannelOccupied => "channel_occupied",
            EventType::ChannelVacated => "channel_vacated",
            EventType::MemberAdded => "member_added",
            EventType::MemberRemoved => "member_removed",
            EventType::ClientEvent => "client_event",
            EventType::CacheMiss => "cache_miss",
            EventType::SubscriptionCount => "subscription_count",
        }
    }
}

/// A set of event types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventTypes(u8);

impl EventTypes {
    pub const ALL: EventTypes = EventTypes((1 << EventType::ALL.len()) - 1);

    pub fn holds(self, kind: EventType) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    pub fn insert(&mut self, kind: EventType) {
        self.0 |= 1 << kind as u8;
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What becomes of an event that a hook did not answer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    Publish,
    Refuse,
}

/// Event types by name, or all of them.
pub struct EventList;

impl Form for EventList {
    type Value = EventTypes;

    fn accepts(&self) -> String {
        let names: Vec<&str> = EventType::ALL.iter().map(|kind| kind.name()).collect();
        format!("all, or a list of {}", names.join(", "))
    }

    fn takes(&self, kind: Kind) -> bool {
        matches!(kind, Kind::String | Kind::List)
    }

    fn parse(&self, text: &str) -> Option<EventTypes> {
        if text == "all" {
            return Some(EventTypes::ALL);
        }
        let mut types = EventTypes::default();
        for name in text.split(',') {
            let named = |kind: &EventType| kind.name() == name.trim();
            types.insert(EventType::ALL.into_iter().find(named)?);
        }
        Some(types)
    }

    fn print(&self, value: &EventTypes) -> String {
        if *value == EventTypes::ALL {
            return "all".to_string();
        }
        let held = EventType::ALL.into_iter().filter(|kind| value.holds(*kind));
        held.map(EventType::name).collect::<Vec<_>>().join(",")
    }
}

/// Where to POST to: scheme http or https, a host, and no user.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(Uri);

impl Url {
    pub fn parse(text: &str) -> Option<Url> {
        let uri: Uri = text.parse().ok()?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_user = uri.authority()?.as_str().contains('@');
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        (is_http && has_host && !has_user).then_some(Url(uri))
    }

    pub fn uri(&self) -> &Uri {
        &self.0
    }

    pub fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// The host, an IPv6 address without its brackets, and the port.
    pub fn host_and_port(&self) -> (&str, u16) {
        let host = self.0.host().expect("it was parsed with a host");
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let otherwise = if self.is_https() { 443 } else { 80 };
        (host, self.0.port_u16().unwrap_or(otherwise))
    }
}

impl Default for Url {
    fn default() -> Url {
        Url(Uri::from_static("http://127.0.0.1/"))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Url({})", self.0)
    }
}

const URL_ACCEPTS: &str = "a URL such as https://example.com/hook, without a user";

/// A [`Url`].
pub struct UrlText;

impl Form for UrlText {
    type Value = Url;

    fn accepts(&self) -> String {
        URL_ACCEPTS.to_string()
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::String
    }

    fn parse(&self, text: &str) -> Option<Url> {
        Url::parse(text)
    }

    fn print(&self, value: &Url) -> String {
        value.to_string()
    }
}

/// Nothing, or a [`Url`].
pub struct OptionalUrl;

impl Form for OptionalUrl {
    type Value = Option<Url>;

    fn accepts(&self) -> String {
        format!("nothing, or {URL_ACCEPTS}")
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::String
    }

    fn parse(&self, text: &str) -> Option<Option<Url>> {
        match text {
            "" => Some(None),
            text => Url::parse(text).map(Some),
        }
    }

    fn print(&self, value: &Option<Url>) -> String {
        value.as_ref().map(Url::to_string).unwrap_or_default()
    }
}

/// Any number of texts.
pub struct Texts;

impl Form for Texts {
    type Value = Vec<String>;

    fn accepts(&self) -> String {
        r"a list of texts (outside of the file: between commas, \, for a comma in one)".to_string()
    }

    fn takes(&self, kind: Kind) -> bool {
        matches!(kind, Kind::String | Kind::List)
    }

    fn parse(&self, text: &str) -> Option<Vec<String>> {
        Some(split(text))
    }

    fn print(&self, value: &Vec<String>) -> String {
        join(value.iter().map(String::as_str))
    }
}

/// Headers of a request, in their order. Their values may be credentials, so they are shown nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(HeaderName, HeaderValue)>);

impl Headers {
    pub fn iter(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.0.iter()
    }
}

/// Headers that are the request's own business.
const HEADERS_TAKEN: [&str; 7] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "x-pusher-key",
    "x-pusher-signature",
];

/// A table of headers; outside of the file `Name: value` between commas.
pub struct HeaderTable;

impl Form for HeaderTable {
    type Value = Headers;

    fn accepts(&self) -> String {
        format!(
            "a table such as {{ Authorization = \"Bearer ...\" }}, without {}",
            HEADERS_TAKEN.join(", ")
        )
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::Table
    }

    fn parse(&self, text: &str) -> Option<Headers> {
        let header = |entry: String| {
            let (name, value) = entry.split_once(':')?;
            let name: HeaderName = name.trim().parse().ok()?;
            let mut value: HeaderValue = value.trim().parse().ok()?;
            value.set_sensitive(true);
            (!HEADERS_TAKEN.contains(&name.as_str())).then_some((name, value))
        };
        let headers: Option<Vec<_>> = split(text).into_iter().map(header).collect();
        headers.map(Headers)
    }

    fn print(&self, value: &Headers) -> String {
        let names: Vec<String> = value
            .0
            .iter()
            .map(|(name, _)| format!("{name}: ..."))
            .collect();
        names.join(",")
    }

    fn is_secret(&self) -> bool {
        true
    }
}

/// One text out of many: commas between them, a backslash before a comma or a backslash in one.
pub fn join<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let escaped = texts
        .into_iter()
        .map(|text| text.replace('\\', r"\\").replace(',', r"\,"));
    escaped.collect::<Vec<_>>().join(",")
}

/// What [`join`] put together. Nothing gives no texts.
fn split(joined: &str) -> Vec<String> {
    if joined.is_empty() {
        return Vec::new();
    }
    let mut texts = vec![String::new()];
    let mut characters = joined.chars();
    while let Some(character) = characters.next() {
        let text = texts.last_mut().expect("there is always a last one");
        match character {
            ',' => texts.push(String::new()),
            '\\' => text.extend(characters.next()),
            character => text.push(character),
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_no_user() {
        for text in [
            "http://127.0.0.1:80/a?b=c",
            "https://example.com",
            "http://[::1]:7/",
        ] {
            assert!(Url::parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "/path",
            "ftp://a/",
            "http://",
            "http://a:b@c/",
            "example.com/",
        ] {
            assert!(Url::parse(text).is_none(), "{text}");
        }
        let place = |text: &str| {
            let url = Url::parse(text).expect("the test gives a URL");
            let (host, port) = url.host_and_port();
            format!("{host} {port}")
        };
        assert_eq!(place("http://[::1]/"), "::1 80");
        assert_eq!(place("https://example.com/"), "example.com 443");
        assert_eq!(place("https://example.com:8/"), "example.com 8");
    }

    #[test]
    fn texts_keep_their_commas() {
        for texts in [vec![], vec!["a"], vec!["a,b", r"c\", ""], vec!["", ""]] {
            let back = split(&join(texts.iter().copied()));
            assert_eq!(back, texts);
        }
    }

    #[test]
    fn event_lists_print_what_they_parse() {
        assert_eq!(EventList.parse("all"), Some(EventTypes::ALL));
        let two = EventList
            .parse("channel_vacated, channel_occupied")
            .unwrap();
        assert_eq!(EventList.print(&two), "channel_occupied,channel_vacated");
        assert!(two.holds(EventType::ChannelVacated) && !two.holds(EventType::MemberAdded));
        assert_eq!(EventList.parse("channel_occupied,other"), None);
        assert_eq!(EventList.parse(""), None);
    }

    #[test]
    fn headers_show_no_values_and_leave_the_request_s_own_alone() {
        let headers = HeaderTable
            .parse(r"Authorization: a:b\,c,X-Env: prod")
            .unwrap();
        let values: Vec<_> = headers
            .iter()
            .map(|(_, value)| value.to_str().unwrap())
            .collect();
        assert_eq!(values, ["a:b,c", "prod"]);
        assert_eq!(HeaderTable.print(&headers), "authorization: ...,x-env: ...");
        assert!(!format!("{headers:?}").contains("prod"));
        assert_eq!(HeaderTable.parse("Host: a"), None);
        assert_eq!(HeaderTable.parse("X-A"), None);
        assert_eq!(HeaderTable.parse("X-A: b\nc"), None);
    }
}
