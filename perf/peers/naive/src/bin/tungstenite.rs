//! tokio-tungstenite, a task per connection, a broadcast channel.

use std::error::Error;
use std::io;

use futures_util::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use naive::{Answer, Publishes};
use tokio::sync::broadcast::error::RecvError;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

#[derive(Clone)]
struct Text(Utf8Bytes);

impl From<naive::Message> for Text {
    fn from(message: naive::Message) -> Text {
        // The publisher's text is checked once, not by each connection.
        Text(Utf8Bytes::try_from(message.0).unwrap_or_default())
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    naive::serve(answer).await
}

async fn answer(mut request: Request<Incoming>, publishes: Publishes<Text>) -> Answer {
    let upgrade = hyper::upgrade::on(&mut request);
    let answer = create_response_with_body(&request, Empty::new).map_err(io::Error::other)?;
    tokio::spawn(subscriber(upgrade, publishes));
    Ok(answer)
}

async fn subscriber(
    upgrade: hyper::upgrade::OnUpgrade,
    mut publishes: Publishes<Text>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let stream = TokioIo::new(upgrade.await?);
    let mut client = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    loop {
        tokio::select! {
            message = publishes.recv() => match message {
                Ok(Text(message)) => client.send(Message::Text(message)).await?,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            // Reading answers pings, and ends with the connection.
            received = client.next() => if received.transpose()?.is_none() { return Ok(()) },
        }
    }
}
