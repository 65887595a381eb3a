//! The kernel boundary: what a shard asks of its ring and what the ring answers.
//!
//! A shard talks to a [`Ring`] in whole batches, once a turn: operations and sends go down with
//! [`Ring::enter`], completions and short sends come up. Nothing here knows a protocol.
//!
//! Invariants:
//! - The bytes of a send are borrowed only for the length of one `enter`: the ring executes sends
//!   inside that call and returns when each of them is accounted for.
//! - A send that put every byte into the socket produces nothing. Any other is reported exactly
//!   once, by the same `enter`, in [`Ring::take_short_sends`].
//! - A socket's slot is its direct descriptor's index. The shard chooses it, so that a connection
//!   needs no table between its state and its socket.

use std::io;
use std::net::SocketAddr;

pub use crate::base::socket::Socket;

pub mod buffers;
pub mod kernel;
pub mod probe;
pub mod simulated;

/// What a shard asks of its ring, besides sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Accept one connection from the ring's listener into this slot, which must be empty.
    /// Any number may wait at once. Ends with [`Completion::Accepted`].
    Accept { socket: Socket },
    /// Withdraw every accept that waits: each ends with an error.
    StopAccepting,
    /// Receive until told otherwise. Yields any number of [`Completion::Received`] and ends with
    /// one [`Completion::ReceiveEnded`].
    Receive { socket: Socket },
    /// End the receive of this socket early.
    StopReceiving { socket: Socket },
    /// Tell once when the socket takes bytes again (or is broken): [`Completion::Writable`].
    AwaitWritable { socket: Socket },
    /// No more bytes will be sent: the peer reads an end of stream. Not reported.
    ShutdownWrite { socket: Socket },
    /// Neither direction carries bytes any more; a waiting receive or poll ends. Not reported.
    Shutdown { socket: Socket },
    /// Give the slot back, after any shutdown that was asked for. Ends with [`Completion::Closed`];
    /// until then the slot takes no other operation. A receive or a poll that still waits keeps
    /// the socket open until it ends, so [`Operation::Shutdown`] comes first.
    Close { socket: Socket },
    /// Wake the ring of this shard, which said that it sleeps. Not reported here; there it is
    /// [`Completion::Woken`].
    Wake { shard: u16 },
    /// Give the connection to the ring of this shard, into the slot `there`, which that shard keeps
    /// empty for it. No receive or poll waits and no shutdown runs; bytes that came are read, or
    /// lie in the socket and move with it. Ends with [`Completion::Moved`]; until then the slot
    /// takes no other operation and no send. There it is [`Completion::Arrived`], which may come
    /// earlier or later.
    Move {
        socket: Socket,
        shard: u16,
        there: Socket,
    },
    /// Wake the edge thread, which said that it sleeps. Not reported.
    WakeEdge,
    /// Open a connection along one of the ring's routes, in this slot, which must be empty. Ends
    /// with [`Completion::Connected`]; until then the slot takes no other operation and no send.
    ///
    /// This and what follows is for clients. The engine connects to nobody, so a simulated network
    /// has nobody who could be called, and refuses these.
    Connect { socket: Socket, route: u16 },
    /// As [`Operation::Receive`], but the kernel throws the bytes away: [`Completion::Skimmed`]
    /// tells how many they were. Ends with one [`Completion::ReceiveEnded`].
    Skim { socket: Socket },
    /// End the skimming of this socket early, of all or of some.
    StopSkimming { socket: Socket },
    /// Throw away at most so many bytes, once they are there; those behind them stay in the socket.
    /// Ends with one [`Completion::Skimmed`] or one [`Completion::ReceiveEnded`].
    SkimSome { socket: Socket, bytes_max: u32 },
}

/// What happened, as a shard reads it.
#[derive(Debug)]
pub enum Completion {
    /// The socket is in its slot and this is who connected; or the slot is still empty.
    Accepted {
        socket: Socket,
        peer: io::Result<SocketAddr>,
    },
    /// Bytes arrived; read them with [`Ring::received`], once. If the socket is stale the buffer
    /// goes back all the same.
    Received { socket: Socket, buffer: Buffer },
    /// The receive is over and no buffer comes with it.
    ReceiveEnded { socket: Socket, why: End },
    /// The socket takes bytes again, or is broken: the next send tells.
    Writable { socket: Socket },
    /// The slot is empty.
    Closed { socket: Socket },
    /// The connection is another ring's and the slot is empty; or nothing happened, for the reason
    /// that the errno tells, and the connection is still here.
    Moved {
        socket: Socket,
        outcome: Result<(), i32>,
    },
    /// The slot, which was kept for it, holds a connection that another ring gave.
    Arrived { socket: Socket },
    /// Somebody woke this ring.
    Woken,
    /// The slot holds a connection; or it is empty, for the reason that the errno tells.
    Connected {
        socket: Socket,
        outcome: Result<(), i32>,
    },
    /// So many bytes came and are gone.
    Skimmed { socket: Socket, bytes: u32 },
}

/// Why a receive ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer sends no more.
    EndOfStream,
    /// Nothing is wrong with the socket: the shard has to ask again. The buffers ran out, the
    /// completion queue was full, or the shard itself stopped the receive.
    Rearm,
    /// The connection is broken; the errno says how.
    Broken(i32),
}

/// A received buffer on loan; it goes back when its bytes have been read.
#[derive(Debug, PartialEq, Eq)]
pub struct Buffer {
    pub(crate) id: u16,
    pub(crate) length: u32,
}

/// A send of the batch that did not put all of its bytes into the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortSend {
    /// Its place in the batch.
    pub index: u32,
    /// How many bytes the socket took before it was full, 0 included; or the errno that says how
    /// the connection is broken.
    pub taken: Result<u32, i32>,
}

/// The sends of one batch, resolved to bytes when the ring asks, so that a batch is plain data and
/// the bytes stay where they were encoded.
pub trait Sends {
    fn count(&self) -> usize;
    /// The slot that send `index` goes to.
    fn slot(&self, index: usize) -> u32;
    /// The `piece`-th run of bytes of send `index`, in order; `None` after the last. Piece 0
    /// exists. A send has at most [`PIECES_MAX`] pieces, and none of them is empty.
    fn piece(&self, index: usize, piece: usize) -> Option<&[u8]>;
}

/// Pieces of one send: the limit that the kernel sets for a gathered write (UIO_MAXIOV is 1024).
pub const PIECES_MAX: usize = 1024;

/// How long `enter` may sleep when nothing has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Poll,
    /// At most so many milliseconds.
    Milliseconds(u64),
}

/// A shard's way to the kernel, or to a simulation of it.
pub trait Ring {
    /// Adds an operation to the batch of the next `enter`.
    fn push(&mut self, operation: Operation);

    /// Executes `sends` in order, then hands over the pushed operations, and collects what
    /// completed; sleeps as `wait` allows while there is nothing. An interrupted system call is
    /// not an error. An error means that the ring itself is unusable.
    fn enter(&mut self, sends: &impl Sends, wait: Wait) -> io::Result<()>;

    /// The sends of the last `enter` that fell short, in the order of their indexes. The vector
    /// is given back empty with [`Ring::put_short_sends`], so that its memory is used again.
    fn take_short_sends(&mut self) -> Vec<ShortSend>;
    fn put_short_sends(&mut self, spent: Vec<ShortSend>);

    /// What completed since the last call, in order. Given back as above.
    fn take_completions(&mut self) -> Vec<Completion>;
    fn put_completions(&mut self, spent: Vec<Completion>);

    /// The bytes of a received buffer, to be read (and unmasked) in place.
    fn received(&mut self, buffer: &Buffer) -> &mut [u8];

    /// Gives a received buffer back to the kernel.
    fn recycle(&mut self, buffer: Buffer);

    /// How often this ring entered the kernel, and how many completions it was given.
    fn tally(&self) -> Tally;
}

/// What a ring counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub enters: u64,
    pub completions: u64,
}
