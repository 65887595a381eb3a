//! A URL that signed JSON is posted to, and the connections to it.
//!
//! A connection goes down with a request and comes back with its answer, so it has one owner at any
//! time and nothing is locked. What fails for whatever reason is a [`Failure`]: the caller decides
//! whether it is tried again.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tracing::debug;

use super::trust::{TrustError, trust};
use super::{consults, webhooks};
use crate::base::limits;
use crate::hub::apps::{App, Apps};
use crate::options::webhooks::Headers;
use crate::options::{Options, Url};
use crate::wire::signature::Signer;

/// Where to post, and as whom.
pub struct Target {
    url: Url,
    path: Uri,
    headers: HeaderMap,
    signer: Signer,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    answer_bytes_max: usize,
}

/// The targets of all apps, in the order of their webhooks and of their hooks.
pub struct Targets {
    pub webhooks: Vec<Target>,
    pub hooks: Vec<Target>,
    /// How long a webhook may take; a hook has as long as an event waits.
    pub webhook_timeout_ms: u64,
}

impl Targets {
    pub fn new(options: &Options, apps: &Apps) -> Result<Targets, TrustError> {
        let (webhooks, hooks) = (webhooks::listed(options), consults::listed(options));
        let webhooks = webhooks.map(|(app, webhook)| {
            let settings = Settings {
                url: &webhook.url,
                headers: &webhook.headers,
                answer_bytes_max: limits::WEBHOOK_ANSWER_BYTES_MAX,
            };
            (app, settings)
        });
        let hooks = hooks.map(|(app, hook)| {
            let settings = Settings {
                url: &hook.url,
                headers: &hook.headers,
                answer_bytes_max: limits::HOOK_ANSWER_BYTES_MAX,
            };
            (app, settings)
        });
        let is_https = |(_, settings): (u16, Settings<'_>)| settings.url.is_https();
        let needs_trust = webhooks.clone().any(is_https) || hooks.clone().any(is_https);
        let trust = needs_trust.then(trust).transpose()?;
        let target = |(app, settings)| Target::new(settings, apps.app(app), trust.as_ref());
        Ok(Targets {
            webhooks: webhooks.map(target).collect::<Result<_, _>>()?,
            hooks: hooks.map(target).collect::<Result<_, _>>()?,
            webhook_timeout_ms: options.webhook_timeout_ms,
        })
    }
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    Timeout,
    Connect(io::Error),
    Http(hyper::Error),
    /// The answer is longer than its bound, or ended before its time.
    Body {
        status: u16,
        error: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A connection that takes one request after the other.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

/// What became of a request, and the connection if it takes another one.
pub struct Posted {
    pub answer: Result<Answer, Failure>,
    pub connection: Option<Connection>,
}

const KEY: HeaderName = HeaderName::from_static("x-pusher-key");
const SIGNATURE: HeaderName = HeaderName::from_static("x-pusher-signature");

/// What a target is made of, besides its app.
struct Settings<'a> {
    url: &'a Url,
    headers: &'a Headers,
    answer_bytes_max: usize,
}

impl Target {
    /// `trust` is there if any URL needs it.
    fn new(
        settings: Settings<'_>,
        app: &App,
        trust: Option<&Arc<ClientConfig>>,
    ) -> Result<Target, TrustError> {
        let Settings { url, .. } = settings;
        let authority = url.uri().authority().expect("it was parsed with a host");
        let path = url.uri().path_and_query().cloned();
        let path = path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
        let value = |text: &str| HeaderValue::from_str(text);
        let mut headers = HeaderMap::new();
        let agent = concat!("outpour/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        for (name, value) in settings.headers.iter() {
            headers.insert(name.clone(), value.clone());
        }
        headers.insert(
            HOST,
            value(authority.as_str()).expect("a URL's host is ASCII"),
        );
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(KEY, value(&app.key).expect("a key is ASCII"));
        let tls = match url.is_https() {
            true => {
                let trust = trust.expect("it is loaded if any URL is https");
                let name = ServerName::try_from(url.host_and_port().0.to_string());
                let unnamed = |_| TrustError::Host {
                    url: url.to_string(),
                };
                let name = name.map_err(unnamed)?;
                Some((TlsConnector::from(trust.clone()), name))
            }
            false => None,
        };
        Ok(Target {
            url: url.clone(),
            path: Uri::from(path),
            headers,
            signer: app.signer.clone(),
            tls,
            answer_bytes_max: settings.answer_bytes_max,
        })
    }

    /// Posts the body, over `connection` if it is still open, else over a new one. The whole of it
    /// may take `timeout_ms`.
    pub async fn post(
        &self,
        connection: Option<Connection>,
        body: Bytes,
        timeout_ms: u64,
    ) -> Posted {
        let timeout = Duration::from_millis(timeout_ms);
        match tokio::time::timeout(timeout, self.exchange(connection, body)).await {
            Ok(Ok((answer, connection))) => Posted {
                answer: Ok(answer),
                connection: Some(connection).filter(Connection::is_open),
            },
            Ok(Err(failure)) => Posted::failed(failure),
            Err(_) => Posted::failed(Failure::Timeout),
        }
    }

    async fn exchange(
        &self,
        connection: Option<Connection>,
        body: Bytes,
    ) -> Result<(Answer, Connection), Failure> {
        let request = self.request(body);
        let (response, connection) = match connection.filter(Connection::is_open) {
            Some(mut connection) => match connection.sender.try_send_request(request).await {
                Ok(response) => (response, connection),
                // The peer closed while the connection was idle, and saw nothing of the request.
                Err(mut error) => match error.take_message() {
                    Some(request) => self.send(request).await?,
                    None => return Err(Failure::Http(error.into_error())),
                },
            },
            None => self.send(request).await?,
        };
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), self.answer_bytes_max);
        let body = body.collect().await;
        let body = body.map_err(|error| Failure::Body { status, error })?;
        let body = body.to_bytes();
        Ok((Answer { status, body }, connection))
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let signature = self.signer.sign(&[&body]);
        let signature = HeaderValue::from_bytes(&signature).expect("hexadecimal is ASCII");
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(SIGNATURE, signature);
        request
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(http::Response<Incoming>, Connection), Failure> {
        let mut connection = self.connect().await?;
        let response = connection.sender.send_request(request).await;
        Ok((response.map_err(Failure::Http)?, connection))
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let tcp = TcpStream::connect(self.url.host_and_port()).await;
        let tcp = tcp.map_err(Failure::Connect)?;
        tcp.set_nodelay(true).map_err(Failure::Connect)?;
        match &self.tls {
            None => handshake(tcp).await,
            Some((connector, name)) => {
                let tls = connector.connect(name.clone(), tcp).await;
                handshake(tls.map_err(Failure::Connect)?).await
            }
        }
    }
}

/// Speaks HTTP over the stream, on a task that ends with the connection.
async fn handshake<S>(stream: S) -> Result<Connection, Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let made = http1::handshake(TokioIo::new(stream)).await;
    let (sender, driver) = made.map_err(Failure::Http)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = driver.await {
            debug!("a connection to a webhook ended: {error}");
        }
    });
    Ok(Connection { sender })
}

impl Connection {
    fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}

impl Posted {
    fn failed(failure: Failure) -> Posted {
        Posted {
            answer: Err(failure),
            connection: None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(out)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Timeout => out.write_str("no answer in time"),
            Failure::Connect(error) => write!(out, "no connection: {error}"),
            Failure::Http(error) => write!(out, "no answer: {error}"),
            Failure::Body { error, .. } => write!(out, "no whole answer: {error}"),
        }
    }
}
