//! A call to a session over HTTP, as plain data: it goes to the session's shard together with its
//! connection.

use std::net::SocketAddr;

use crate::base::socket::Socket;
use crate::wire::fallback::Call;
use crate::wire::http::Persistence;

/// One request of a client to its session.
#[derive(Debug)]
pub struct SessionCall {
    /// The key of the session's app; a SockJS session names it in its first message.
    pub key: Option<Box<str>>,
    /// The name that its client drew.
    pub drawn: Box<str>,
    pub call: Call,
    pub query: Box<str>,
    pub body: Box<[u8]>,
    pub origin: Option<Box<[u8]>>,
    pub persistence: Persistence,
}

impl SessionCall {
    /// What the session is known by.
    pub fn name(&self) -> Box<str> {
        let key = self.key.as_deref().unwrap_or("");
        format!("{key}/{}", self.drawn).into()
    }
}

/// A connection that goes to another shard, with the call that it goes for.
#[derive(Debug)]
pub struct Transfer {
    /// The connection on the shard that it leaves.
    pub from: Socket,
    pub peer: SocketAddr,
    pub call: SessionCall,
    /// Bytes that came behind the call.
    pub input: Vec<u8>,
    /// The peer sends no more.
    pub has_ended: bool,
}

/// Whether there is a slot for a connection that wants to come.
#[derive(Debug)]
pub enum Place {
    Kept(Socket),
    /// There is none: what it wanted to come with goes back.
    Full(Box<Transfer>),
}
