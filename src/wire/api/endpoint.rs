//! Which call a method and a path make.
//!
//! Source: Pusher Channels documentation, "HTTP API reference" and its "deprecated methods".

use std::fmt;

/// A call, before its query and its body are read. Segments of the path are as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint<'a> {
    /// `POST /events`
    Events,
    /// `POST /batch_events`
    BatchEvents,
    /// `POST /channels/C/events`, deprecated.
    ChannelEvents { channel: &'a str },
    /// `GET /channels/C/events` where it asks for a page; else it opens a stream, which is none of
    /// these calls.
    ChannelHistory { channel: &'a str },
    /// `GET /channels`
    Channels,
    /// `GET /channels/C`
    Channel { channel: &'a str },
    /// `GET /channels/C/users`
    ChannelUsers { channel: &'a str },
    /// `GET /channels/C/stats`, deprecated.
    ChannelStats { channel: &'a str },
    /// `GET /laggards`, an extension.
    Laggards,
    /// `POST /users/U/terminate_connections`
    TerminateConnections { user: &'a str },
}

impl<'a> Endpoint<'a> {
    /// `path` is what follows `/apps/ID`, with its first slash.
    pub fn find(method: &str, path: &'a str) -> Result<Self, NoEndpoint> {
        let endpoint = Self::at(path).ok_or(NoEndpoint::Unknown)?;
        let allowed = endpoint.methods();
        match allowed.split(", ").any(|known| known == method) {
            true => Ok(endpoint),
            false => Err(NoEndpoint::OtherMethod { allowed }),
        }
    }

    fn at(path: &'a str) -> Option<Self> {
        let mut segments = [""; 3];
        let mut count = 0;
        for segment in path.strip_prefix('/')?.split('/') {
            *segments.get_mut(count)? = segment;
            count += 1;
        }
        if segments[..count].contains(&"") {
            return None;
        }
        Some(match segments[..count] {
            ["events"] => Self::Events,
            ["batch_events"] => Self::BatchEvents,
            ["channels"] => Self::Channels,
            ["channels", channel] => Self::Channel { channel },
            ["channels", channel, "events"] => Self::ChannelEvents { channel },
            ["channels", channel, "users"] => Self::ChannelUsers { channel },
            ["channels", channel, "stats"] => Self::ChannelStats { channel },
            ["laggards"] => Self::Laggards,
            ["users", user, "terminate_connections"] => Self::TerminateConnections { user },
            _ => return None,
        })
    }

    /// As the header `Allow` lists them (RFC 9110, section 10.2.1).
    fn methods(self) -> &'static str {
        match self {
            Self::Events
            | Self::BatchEvents
            | Self::ChannelEvents { .. }
            | Self::TerminateConnections { .. } => "POST",
            Self::ChannelHistory { .. }
            | Self::Channels
            | Self::Channel { .. }
            | Self::ChannelUsers { .. }
            | Self::ChannelStats { .. }
            | Self::Laggards => "GET, HEAD",
        }
    }
}

/// Why there is no such call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEndpoint {
    /// 404
    Unknown,
    /// 405, which names the methods that there are in the header `Allow`.
    OtherMethod { allowed: &'static str },
}

impl NoEndpoint {
    pub fn status(self) -> u16 {
        match self {
            Self::Unknown => 404,
            Self::OtherMethod { .. } => 405,
        }
    }
}

impl fmt::Display for NoEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => formatter.write_str("Not found"),
            Self::OtherMethod { .. } => formatter.write_str("Method not allowed"),
        }
    }
}

impl std::error::Error for NoEndpoint {}

/// A page of soketi's that tells how the server is. It stands beside `/apps`, and needs no
/// signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusPage {
    /// `GET /ready`: `OK`, or 500 while the server drains.
    Ready,
    /// `GET /accept-traffic`: the memory in use, or 500 while the server drains or has little left.
    AcceptTraffic,
    /// `GET /usage`: the memory in use.
    Usage,
}

impl StatusPage {
    pub fn at(path: &str) -> Option<Self> {
        match path {
            "/ready" => Some(Self::Ready),
            "/accept-traffic" => Some(Self::AcceptTraffic),
            "/usage" => Some(Self::Usage),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_call_has_its_method_and_its_path() {
        let channel = "presence-a%20b";
        for (method, path, endpoint) in [
            ("POST", "/events", Endpoint::Events),
            ("POST", "/batch_events", Endpoint::BatchEvents),
            (
                "POST",
                "/channels/presence-a%20b/events",
                Endpoint::ChannelEvents { channel },
            ),
            ("GET", "/channels", Endpoint::Channels),
            ("GET", "/laggards", Endpoint::Laggards),
            (
                "GET",
                "/channels/presence-a%20b",
                Endpoint::Channel { channel },
            ),
            (
                "GET",
                "/channels/presence-a%20b/users",
                Endpoint::ChannelUsers { channel },
            ),
            (
                "GET",
                "/channels/presence-a%20b/stats",
                Endpoint::ChannelStats { channel },
            ),
            (
                "GET",
                "/channels/users",
                Endpoint::Channel { channel: "users" },
            ),
            (
                "POST",
                "/users/u1/terminate_connections",
                Endpoint::TerminateConnections { user: "u1" },
            ),
        ] {
            assert_eq!(Endpoint::find(method, path), Ok(endpoint), "{path}");
            let is_query = method == "GET";
            assert_eq!(Endpoint::find("HEAD", path).is_ok(), is_query, "{path}");
            let other = if is_query { "POST" } else { "GET" };
            let error = Endpoint::find(other, path).unwrap_err();
            let allowed = if is_query { "GET, HEAD" } else { "POST" };
            assert_eq!(error, NoEndpoint::OtherMethod { allowed }, "{path}");
            assert_eq!(error.status(), 405);
        }
    }

    #[test]
    fn what_is_no_call_is_not_found_with_any_method() {
        for path in [
            "",
            "/",
            "events",
            "/events/",
            "//events",
            "/Events",
            "/channels/",
            "/channels//users",
            "/channels/a/b",
            "/channels/a/users/b",
            "/users",
            "/users/u1",
            "/users//terminate_connections",
        ] {
            for method in ["GET", "POST", "DELETE"] {
                let error = Endpoint::find(method, path).unwrap_err();
                assert_eq!(
                    (error, error.status()),
                    (NoEndpoint::Unknown, 404),
                    "{path}"
                );
            }
        }
    }

    #[test]
    fn status_pages_are_found() {
        assert_eq!(StatusPage::at("/ready"), Some(StatusPage::Ready));
        assert_eq!(StatusPage::at("/usage"), Some(StatusPage::Usage));
        assert_eq!(
            StatusPage::at("/accept-traffic"),
            Some(StatusPage::AcceptTraffic)
        );
        assert_eq!(StatusPage::at("/"), None);
    }

    proptest! {
        #[test]
        fn random_paths_never_panic(path in any::<String>(), segments in "(/(events|a|)){0,6}") {
            Endpoint::find("GET", &path).ok();
            Endpoint::find("GET", &segments).ok();
        }
    }
}
