//! What shards write to each other.
//!
//! | letter | from, to | when the lane has no room |
//! |---|---|---|
//! | `Publish`, `Ask` | where it arrived, home | the request waits; there is credit for so many under way |
//! | `Published`, `Answer` | home, where it arrived | cannot be: all that is under way has its room |
//! | `Join`, `Leave`, `Exit`, `Progress` | audience, home | offered again in the next turn |
//! | `Joined`, `Except`, `Deliver`, `End` | home, audience | likewise |
//! | `Concluded` | home, where it arrived | likewise |
//! | `Congested` | home, everyone | likewise |
//! | `Transfer`, `Room`, `Stays` | any two | likewise |
//!
//! Letters of one lane arrive in the order they were posted, and that order is the protocol: a
//! `Joined` comes before the first `Deliver`, an `Except` before the `Deliver` with its frame, a
//! `Leave` before the next `Join` of the same channel, a `Join` before the first `Ask` of one who
//! enters, an `Exit` before the next one; and an `Answer` to one who enters, or who has caught up,
//! between the `Deliver` of what was sequenced before and the `Deliver` of what comes after.

use bytes::{Bytes, BytesMut};

use super::ask::{Answer, Ask};
use super::fallback::{Place, Transfer};
use super::variant::Variant;
use crate::base::slab::Key;
use crate::base::socket::{Address, Socket};
use crate::wire::pusher::delivery::Serial;

#[derive(Debug)]
pub enum Letter {
    /// Sequence this event.
    Publish(Publication),
    /// What became of the event. `requester` waits for it, unless nobody does.
    Published {
        requester: Option<Requester>,
        fate: Fate,
    },
    /// What became of an event that was held, how many have it, or that one has come for whoever waits
    /// for the next.
    Concluded {
        requester: Requester,
        outcome: Outcome,
    },
    /// A question to a channel's home, or to a shard about all of its channels.
    Ask(Box<Ask>),
    Answer(Box<Answer>),
    /// The channel has a subscriber here: from now on, its frames are wanted.
    Join(Box<Join>),
    /// The frames from this position on will come.
    Joined {
        audience: Key,
        home: Key,
        position: u64,
    },
    /// The channel has no subscriber here any more.
    Leave {
        home: Key,
        variant: Variant,
    },
    /// One who entered, or who waits for the next event, has left.
    Exit(Box<Exit>),
    /// The connection does not get the frame between these positions.
    Except {
        audience: Key,
        socket: Socket,
        start: u64,
        end: u64,
    },
    /// The frames that begin at this position, and the last serial that was given up to their end, if
    /// the channel has serials.
    Deliver {
        audience: Key,
        position: u64,
        serial: Option<u64>,
        frames: Bytes,
    },
    /// Every connection that is subscribed to the channel, which is a user's own, is to end.
    End {
        audience: Key,
    },
    /// Every subscriber here that takes its bytes has the frames up to this position, and there are
    /// so many.
    Progress {
        home: Key,
        variant: Variant,
        subscribers: u32,
        position: u64,
    },
    /// The engine is behind in the channel with this hash, or no longer.
    Congested {
        channel: u64,
        is_congested: bool,
    },
    /// A connection wants to come, for a session that has its home there.
    Transfer(Box<Transfer>),
    /// Whether a slot is kept for it.
    Room {
        socket: Socket,
        place: Place,
    },
    /// The connection that this slot was kept for does not come.
    Stays {
        there: Socket,
    },
}

/// The connection whose request waits for what becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester {
    pub socket: Socket,
    /// Which of the request's events it is, one for each channel.
    pub place: u16,
}

/// What becomes of an event when it reaches its channel's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in its channel's order, with a serial if the channel gives them.
    Sequenced(Option<Serial>),
    /// An app's hook has dropped it.
    Dropped,
    /// It waits for an app's hook or for the disk; a `Concluded` follows for whoever waits.
    Held,
    /// Too many wait for that.
    Refused(Refusal),
}

/// Who did not let an event be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Hook,
    /// It could not be written to the journal.
    Journal,
}

/// What became of an event that waited at its channel's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Published(Option<Serial>),
    Dropped,
    Refused(Refusal),
    /// A client's event could not be written. The client waits for nothing, but is told.
    ClientRefused,
    /// Not of an event of its own: the channel has one that it did not have.
    Appended,
    /// It was published, and so many subscribers have it of those who were to be counted; nothing if
    /// they could not be.
    Reached(Option<u32>),
}

impl Outcome {
    /// Of an event that does not wait any more.
    pub fn of(fate: Fate) -> Outcome {
        match fate {
            Fate::Sequenced(serial) => Outcome::Published(serial),
            Fate::Held => Outcome::Published(None),
            Fate::Dropped => Outcome::Dropped,
            Fate::Refused(refusal) => Outcome::Refused(refusal),
        }
    }
}

/// Names the channel to its home.
#[derive(Debug)]
pub struct Join {
    pub app: u16,
    pub variant: Variant,
    pub subscribers: u32,
    pub name: Box<str>,
    pub audience: Key,
}

/// Names the connection that left, and the channel.
#[derive(Debug)]
pub struct Exit {
    pub app: u16,
    pub channel: Box<str>,
    pub socket: Socket,
}

/// Who made an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A back end.
    Api,
    /// A client that is subscribed to the channel.
    Client,
    /// The server itself.
    Server,
    /// The server, and `data` is the whole message: it names no channel.
    Message,
}

/// An event for one channel, as it was understood where it arrived. `name`, `data` and `user_id`
/// are JSON tokens, kept as they came.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub app: u16,
    pub origin: Origin,
    pub channel: &'a str,
    pub name: &'a str,
    /// Empty if the event has none.
    pub data: &'a str,
    /// The member who triggered it, as the home found it; empty if nobody is named.
    pub user_id: &'a str,
    /// Under which a back end may repeat its publish; empty if there is none.
    pub idempotency_key: &'a str,
    /// What it is the newest of, until another event has the same; empty if it is never superseded.
    pub key: &'a str,
    /// The connection that does not get it.
    pub excluded: Option<Address>,
    /// What the home gave it, if its channel has serials.
    pub serial: Option<Serial>,
}

/// An [`Event`] that owns its text.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The channel, the event's name, its two keys and its data, one after the other.
    text: Bytes,
    channel_bytes: u16,
    name_bytes: u16,
    key_bytes: u8,
    idempotency_key_bytes: u8,
    app: u16,
    origin: Origin,
    pub excluded: Option<Address>,
    pub requester: Option<Requester>,
}

impl Publication {
    /// Copies the event's text into `arena`, from which the publication keeps a share.
    pub fn new(
        event: &Event<'_>,
        requester: Option<Requester>,
        arena: &mut BytesMut,
    ) -> Publication {
        let (key, idempotency_key) = (event.key, event.idempotency_key);
        for text in [event.channel, event.name, key, idempotency_key, event.data] {
            arena.extend_from_slice(text.as_bytes());
        }
        let checked = |text: &str| u16::try_from(text.len()).expect("names were held to a limit");
        let short = |key: &str| u8::try_from(key.len()).expect("keys were held to a limit");
        Publication {
            text: arena.split().freeze(),
            channel_bytes: checked(event.channel),
            name_bytes: checked(event.name),
            key_bytes: short(key),
            idempotency_key_bytes: short(idempotency_key),
            app: event.app,
            origin: event.origin,
            excluded: event.excluded,
            requester,
        }
    }

    /// Bytes of its text.
    pub fn length(&self) -> usize {
        self.text.len()
    }

    pub fn event(&self) -> Event<'_> {
        let text = std::str::from_utf8(&self.text).expect("it was put together from text");
        let (channel, rest) = text.split_at(usize::from(self.channel_bytes));
        let (name, rest) = rest.split_at(usize::from(self.name_bytes));
        let (key, rest) = rest.split_at(usize::from(self.key_bytes));
        let (idempotency_key, data) = rest.split_at(usize::from(self.idempotency_key_bytes));
        Event {
            app: self.app,
            origin: self.origin,
            channel,
            name,
            data,
            key,
            user_id: "",
            idempotency_key,
            excluded: self.excluded,
            serial: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_gives_back_the_event() {
        let event = Event {
            app: 3,
            origin: Origin::Client,
            channel: "room",
            name: "\"täg\"",
            data: "",
            key: "seven",
            user_id: "",
            idempotency_key: "order-7",
            excluded: Some(Address {
                shard: 1,
                socket: Socket {
                    slot: 2,
                    generation: 3,
                },
            }),
            serial: None,
        };
        let mut arena = BytesMut::new();
        let publication = Publication::new(&event, None, &mut arena);
        let back = publication.event();
        assert_eq!(
            (back.app, back.channel, back.name, back.key, back.data),
            (3, "room", "\"täg\"", "seven", "")
        );
        assert_eq!(back.idempotency_key, "order-7");
        assert_eq!(back.origin, Origin::Client);
        assert_eq!(back.excluded, event.excluded);
        assert!(size_of::<Letter>() <= 80);
    }
}
