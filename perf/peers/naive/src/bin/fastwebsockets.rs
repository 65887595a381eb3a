//! fastwebsockets, a task per connection, a broadcast channel.

use std::io;

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload, WebSocketError, upgrade};
use hyper::Request;
use hyper::body::Incoming;
use naive::{Answer, Publishes};
use tokio::sync::broadcast::error::RecvError;

#[tokio::main]
async fn main() -> io::Result<()> {
    naive::serve(answer).await
}

async fn answer(mut request: Request<Incoming>, publishes: Publishes<Bytes>) -> Answer {
    let (answer, client) = upgrade::upgrade(&mut request).map_err(io::Error::other)?;
    tokio::spawn(subscriber(client, publishes));
    Ok(answer)
}

async fn subscriber(
    client: upgrade::UpgradeFut,
    mut publishes: Publishes<Bytes>,
) -> Result<(), WebSocketError> {
    let (mut read, mut write) = client.await?.split(tokio::io::split);
    let (replies, mut to_reply) = tokio::sync::mpsc::channel::<(OpCode, Vec<u8>)>(16);
    tokio::spawn(async move {
        let mut reply = async |frame: Frame<'_>| {
            replies
                .send((frame.opcode, frame.payload.to_vec()))
                .await
                .map_err(|_| WebSocketError::ConnectionClosed)
        };
        while let Ok(frame) = read.read_frame(&mut reply).await {
            if frame.opcode == OpCode::Close {
                break;
            }
        }
    });
    loop {
        tokio::select! {
            message = publishes.recv() => match message {
                Ok(message) => write.write_frame(Frame::text(Payload::Borrowed(&message))).await?,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            reply = to_reply.recv() => match reply {
                Some((opcode, payload)) => write.write_frame(Frame::new(true, opcode, None, payload.into())).await?,
                None => return Ok(()),
            },
        }
    }
}
