//! What both servers have: a port that takes publishes over HTTP and upgrades everything else to WebSocket.

use std::future::Future;
use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

/// A reader further behind loses what it missed; `tokio::sync::broadcast` tells it how much.
const MESSAGES_MAX: usize = 65_536;

pub type Answer = io::Result<Response<Empty<Bytes>>>;
pub type Publishes<T> = broadcast::Receiver<T>;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves 127.0.0.1 at the port that is the first argument. `upgrade` answers a client's request, and sends it all messages.
pub async fn serve<T, F>(upgrade: fn(Request<Incoming>, Publishes<T>) -> F) -> io::Result<()>
where
    T: Clone + From<Message> + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let port: u16 = std::env::args()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| io::Error::other("usage: PORT"))?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let (sender, _) = broadcast::channel::<T>(MESSAGES_MAX);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let sender = sender.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let sender = sender.clone();
            async move {
                if request.method() != Method::POST {
                    return upgrade(request, sender.subscribe()).await;
                }
                let body = request
                    .into_body()
                    .collect()
                    .await
                    .map_err(io::Error::other)?
                    .to_bytes();
                // Nobody may be there to receive it: that is no failure of a publish.
                sender.send(Message(body).into()).ok();
                let mut answer = Response::new(Empty::new());
                *answer.status_mut() = StatusCode::ACCEPTED;
                Ok(answer)
            }
        });
        tokio::spawn(async move {
            // A connection that ends is no failure of the server.
            http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await
                .ok();
        });
    }
}

/// The body of a publish, to be turned into what a library sends.
pub struct Message(pub Bytes);

impl From<Message> for Bytes {
    fn from(message: Message) -> Bytes {
        message.0
    }
}
