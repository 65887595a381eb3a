//! Where a target is, and where it takes publishes: what its URLs say.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use http::Uri;

use super::settings::{Dialect, SubscribeBy, Target};
use crate::load::orders::{Pusher, Speech};
use crate::load::publisher::http::{App, Form};

/// A server, as clients and publishers find it.
#[derive(Clone, Debug)]
pub struct Address {
    pub url: String,
    pub clients: SocketAddr,
    pub speech: Speech,
    /// None where nothing is published over HTTP.
    pub publish: Option<(SocketAddr, Form)>,
}

impl Address {
    /// What the flags say of a server that runs already.
    pub fn of_target(url: &str, settings: &Target) -> io::Result<Address> {
        let place = Place::parse(url, "ws")?;
        let app = app(settings);
        let (speech, prefix) = match settings.dialect {
            Dialect::Bytes => (Speech::Bytes, String::new()),
            Dialect::Plain => (
                Speech::Plain {
                    path: place.path.clone(),
                },
                String::new(),
            ),
            Dialect::Nats => (
                Speech::Nats {
                    path: place.path.clone(),
                },
                String::new(),
            ),
            Dialect::Mqtt => (
                Speech::Mqtt {
                    path: place.path.clone(),
                },
                String::new(),
            ),
            Dialect::SocketIo => (
                Speech::SocketIo {
                    path: place.path.clone(),
                },
                String::new(),
            ),
            Dialect::Pusher => {
                let (prefix, path) = pusher_path(&place.path, &app.key);
                let mut pusher = pusher(&app, settings);
                if let Some(path) = path {
                    pusher.path = path;
                } else {
                    pusher.path.insert_str(0, &prefix);
                }
                (Speech::Pusher(pusher), prefix)
            }
        };
        let publish = match (&settings.publish, settings.dialect) {
            (Some(url), Dialect::Pusher) => {
                let place = Place::parse(url, "http")?;
                let prefix = place.path.trim_end_matches('/').to_owned();
                Some((
                    place.socket,
                    Form::Pusher {
                        prefix,
                        app,
                        keys: 0,
                    },
                ))
            }
            (None, Dialect::Pusher) => Some((
                place.socket,
                Form::Pusher {
                    prefix,
                    app,
                    keys: 0,
                },
            )),
            (
                Some(url),
                Dialect::Bytes | Dialect::Plain | Dialect::Nats | Dialect::Mqtt | Dialect::SocketIo,
            ) => {
                let Place { socket, path } = Place::parse(url, "http")?;
                let body = settings.publish_body.clone();
                Some((socket, Form::Raw { path, body }))
            }
            (
                None,
                Dialect::Bytes | Dialect::Plain | Dialect::Nats | Dialect::Mqtt | Dialect::SocketIo,
            ) => None,
        };
        Ok(Address {
            url: url.to_owned(),
            clients: place.socket,
            speech,
            publish,
        })
    }

    /// A server that was started for this run.
    pub fn of_own(socket: SocketAddr, app: &App, settings: &Target) -> Address {
        Address {
            url: format!("ws://{socket}"),
            clients: socket,
            speech: Speech::Pusher(pusher(app, settings)),
            publish: Some((
                socket,
                Form::Pusher {
                    prefix: String::new(),
                    app: app.clone(),
                    keys: 0,
                },
            )),
        }
    }
}

fn pusher(app: &App, settings: &Target) -> Pusher {
    let mut pusher = Pusher::new(&app.key, Some(&app.secret));
    pusher.subscribes_in_address = settings.subscribe_by == SubscribeBy::Address;
    pusher
}

fn app(settings: &Target) -> App {
    App {
        id: settings.app_id.clone(),
        key: settings.app_key.clone(),
        secret: settings.app_secret.clone(),
    }
}

/// A URL, resolved.
struct Place {
    socket: SocketAddr,
    /// With the query; empty where there is neither.
    path: String,
}

impl Place {
    fn parse(url: &str, scheme: &str) -> io::Result<Place> {
        let wrong = |what: &str| io::Error::other(format!("{url}: {what}"));
        // A brace is no character of a URL, but a place for the channel's name is.
        let plain = url.replace(['{', '}'], "");
        let uri: Uri = plain.parse().map_err(|_| wrong("this is no URL"))?;
        if uri.scheme_str() != Some(scheme) {
            return Err(wrong(&format!("{scheme}://host:port[/path], please")));
        }
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(80);
        let socket = (host, port)
            .to_socket_addrs()
            .map_err(|error| wrong(&error.to_string()))?
            .next()
            .ok_or_else(|| wrong("the host has no address"))?;
        let after_host = url
            .split_once("://")
            .and_then(|(_, rest)| rest.find(['/', '?']).map(|start| &rest[start..]));
        let path = after_host.filter(|path| *path != "/").unwrap_or_default();
        Ok(Place {
            socket,
            path: path.to_owned(),
        })
    }
}

/// What stands before `/app/KEY`, and the whole path if it was given.
fn pusher_path(path: &str, key: &str) -> (String, Option<String>) {
    match path.find("/app/") {
        Some(start) => {
            let whole = match path.contains('?') {
                true => path.to_owned(),
                false => format!("{path}?protocol=7&client=outpour-bench&version=1.0"),
            };
            (path[..start].to_owned(), Some(whole))
        }
        None if key.is_empty() => (String::new(), Some(path.to_owned())),
        None => (path.trim_end_matches('/').to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn target(words: &[&str]) -> Target {
        let command = Target::augment_args(clap::Command::new("test").no_binary_name(true));
        let matches = command.try_get_matches_from(words).unwrap();
        Target::from_arg_matches(&matches).unwrap()
    }

    fn check(url: &str, words: &[&str], path: &str, prefix: &str) {
        let address = Address::of_target(url, &target(words)).unwrap();
        assert_eq!(address.clients, "127.0.0.1:7001".parse().unwrap());
        let Speech::Pusher(pusher) = address.speech else {
            panic!("{url} speaks another dialect");
        };
        assert!(pusher.path.starts_with(path), "{}", pusher.path);
        let (_, Form::Pusher { prefix: found, .. }) = address.publish.unwrap() else {
            panic!("{url} publishes in another form");
        };
        assert_eq!(found, prefix);
    }

    #[test]
    fn the_path_of_a_target_is_a_prefix_or_all_of_it() {
        check("ws://127.0.0.1:7001", &[], "/app/app-key?protocol=7", "");
        check(
            "ws://127.0.0.1:7001/",
            &["--app-key", "k"],
            "/app/k?protocol=7",
            "",
        );
        check(
            "ws://127.0.0.1:7001/up",
            &[],
            "/up/app/app-key?protocol=7",
            "/up",
        );
        check(
            "ws://127.0.0.1:7001/up/app/x",
            &[],
            "/up/app/x?protocol=7",
            "/up",
        );
        check("ws://127.0.0.1:7001/app/x?a=1", &[], "/app/x?a=1", "");
        let elsewhere = &["--publish", "http://127.0.0.1:9000/api/"];
        check("ws://127.0.0.1:7001", elsewhere, "/app/app-key", "/api");
    }

    #[test]
    fn another_dialect_is_published_to_as_the_url_says() {
        let words = [
            "--dialect",
            "bytes",
            "--publish",
            "http://127.0.0.1:9000/pub?id={channel}",
        ];
        let address = Address::of_target("ws://127.0.0.1:7001", &target(&words)).unwrap();
        let (socket, form) = address.publish.unwrap();
        assert_eq!(socket, "127.0.0.1:9000".parse().unwrap());
        let path = "/pub?id={channel}".to_owned();
        let body = "{data}".to_owned();
        assert_eq!(form, Form::Raw { path, body });
    }

    #[test]
    fn what_is_no_such_url_is_refused() {
        for url in [
            "127.0.0.1:7001",
            "http://127.0.0.1:7001",
            "ws://",
            "ws:// x",
        ] {
            assert!(Address::of_target(url, &target(&[])).is_err(), "{url}");
        }
    }
}
