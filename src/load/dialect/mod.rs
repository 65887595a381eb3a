//! What clients speak: bytes to send and bytes that came, and nothing of sockets.
//!
//! One [`Dialect`] serves all clients of a thread; what it has to remember of a single one is that client's
//! [`Speaker`]. A client goes through
//!
//! ```text
//! connected --open--> Heard::Greeted --subscribe--> Heard::Subscribed (once for each channel) -> open
//! ```
//!
//! and is open at once where [`Dialect::is_greeted_at_once`] and it subscribes to nothing. From then on it hears
//! [`Heard::Message`]. A message is anything that carries a [`Stamp`](super::stamp::Stamp); the stamp's owner looks
//! for it, not the dialect.

mod bytes;
pub mod frames;
mod mqtt;
mod nats;
mod pipe;
mod plain;
mod pusher;
mod socketio;
pub mod upgrade;

pub use bytes::Bytes;
pub use mqtt::Mqtt;
pub use nats::Nats;
pub use plain::Plain;
pub use pusher::PusherDialect;
pub use socketio::SocketIo;

use tungstenite::protocol::frame::coding::{Control, OpCode};

use super::orders::{Channels, Speech};

/// What a dialect remembers of one client.
#[derive(Debug, Default)]
pub struct Speaker {
    /// The client's number between all units.
    pub client: u64,
    /// How far the talk has come, in the dialect's own count; 0 when it has just connected.
    pub stage: u8,
    /// What the server called the client, where that is needed later.
    pub name: Option<Box<str>>,
    /// How far frames have been read, where packets do not end with them.
    pipe: pipe::Pipe,
}

/// One thing that was heard.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// Nothing that a client has to act on: a ping that was answered, news of others.
    Nothing,
    /// The server is ready for subscriptions. Once.
    Greeted,
    /// The oldest subscription that was asked for is confirmed.
    Subscribed,
    /// What [`Dialect::ask`] asked for: everything before it has been done.
    Answered,
    /// An event on a channel; the text or the bytes around its data.
    Message(&'a [u8]),
    /// The same, put together from several frames.
    Joined(Vec<u8>),
    /// The server says that it will close, and why.
    Goodbye(String),
}

/// The server said what the dialect does not allow, or refused; in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub String);

pub trait Dialect: Send {
    /// A client is greeted when it is connected: there is nothing to say first.
    fn is_greeted_at_once(&self) -> bool {
        false
    }

    /// Whether all messages of one run are of one length on the wire, so that clients may count bytes.
    fn is_even(&self) -> bool;

    /// Whether a message names its channel, so that one of another channel can be told.
    fn names_channels(&self) -> bool {
        true
    }

    /// What to send as soon as the client is connected.
    fn open(&self, speaker: &mut Speaker, out: &mut Vec<u8>);

    /// Takes the first whole thing off `bytes`: how many bytes it is, and what it says. `None` if it is not all there.
    /// Answers that the server waits for go to `out`.
    fn take<'a>(
        &self,
        speaker: &mut Speaker,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<(usize, Heard<'a>)>, Fault>;

    fn subscribe(&self, speaker: &mut Speaker, channel: &str, out: &mut Vec<u8>);

    /// Not confirmed; [`Dialect::ask`] behind it is.
    fn unsubscribe(&self, speaker: &mut Speaker, channel: &str, out: &mut Vec<u8>);

    /// Something that the server answers in turn: [`Heard::Answered`].
    fn ask(&self, speaker: &mut Speaker, out: &mut Vec<u8>);

    /// A sign of life that is not answered.
    fn heartbeat(&self, out: &mut Vec<u8>) {
        frames::append_masked(out, OpCode::Control(Control::Pong), b"");
    }

    /// The last words before an end of stream.
    fn goodbye(&self, out: &mut Vec<u8>) {
        frames::append_close(out);
    }

    /// An event of the client's own, to the others on the channel.
    fn publish(&self, channel: &str, data: &str, out: &mut Vec<u8>);
}

/// The dialect that was asked for.
pub fn dialect(
    speech: &Speech,
    host: std::net::SocketAddr,
    channels: &Channels,
) -> Box<dyn Dialect> {
    match speech {
        Speech::Bytes => Box::new(Bytes),
        Speech::Plain { path } => Box::new(Plain::new(path, host)),
        Speech::Nats { path } => Box::new(Nats::new(path, host)),
        Speech::Mqtt { path } => Box::new(Mqtt::new(path, host)),
        Speech::SocketIo { path } => Box::new(SocketIo::new(path, host)),
        Speech::Pusher(pusher) => Box::new(PusherDialect::new(pusher, host, channels)),
    }
}
