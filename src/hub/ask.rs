//! Questions to a channel's home, or to a shard about all channels whose home it is, and the answers.
//!
//! Whoever asks waits: its connection reads no further message until the answer is there, so there
//! are never more questions under way than connections and channels in one request.

use super::lag::Place;
use super::retained::Chunk;
use super::variant::Variant;
use crate::base::slab::Key;
use crate::base::slow::Slow;
use crate::base::socket::{Address, Socket};
use crate::wire::api::{Attributes, Laggard, Page, Search};
use crate::wire::pusher::delivery::{Begin, Serial};
use crate::wire::pusher::member::MemberText;

#[derive(Debug)]
pub struct Ask {
    pub requester: Socket,
    pub app: u16,
    pub channel: Box<str>,
    pub question: Question,
}

#[derive(Debug)]
pub enum Question {
    /// The requester was added to the channel's subscribers on its shard, and stands there until
    /// it is let in.
    Enter {
        variant: Variant,
        /// Who it is, where that matters.
        member: Option<MemberText>,
        /// From where on, if the channel has serials.
        begin: Begin,
    },
    /// The next events for one who was let in and catches up. No connection waits for the answer.
    Fetch(Fetch),
    /// What there is to tell of the channel.
    Facts { place: u32 },
    /// Who listens to the channel, and up to where its events go now.
    Audiences { place: u16 },
    /// How many subscribers have those events, of the channel on the shard that is asked. That is not
    /// known yet; whoever asks is told when it is.
    Reached(Reach),
    /// The answer to the API's question about the channel.
    Channel { told: Attributes },
    /// A page of what is retained. One who waits for its first event is remembered until that comes, it
    /// asks without waiting, or it has left.
    History(Page),
    /// The answer to the API's question about its members.
    Users { with_user_info: bool },
    /// All connections of the user whose channel it is are to end.
    Terminate,
    /// The next of the channels whose home is the shard that is asked, and whose names begin with
    /// `channel`; from this number on.
    List { told: Attributes, from: u32 },
    /// The next of the subscribers on the shard that is asked who are behind in channels whose names
    /// begin with `channel`; from this place on.
    Laggards { search: Search, from: Place },
}

#[derive(Debug)]
pub struct Answer {
    pub requester: Socket,
    pub app: u16,
    pub channel: Box<str>,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    /// The requester gets what is sequenced from here on, after these messages.
    Entered {
        /// Where it stands, if the channel has serials.
        serial: Option<Serial>,
        replies: Vec<Vec<u8>>,
        /// What it has to fetch before that, if anything.
        behind: Option<Behind>,
    },
    Fetched(Box<Fetched>),
    /// The requester is told of what the watched user does from here on; so it stands now.
    Watching {
        is_online: bool,
    },
    Facts {
        place: u32,
        facts: Facts,
    },
    /// One for each shard and variant with subscribers.
    Audiences {
        place: u16,
        audiences: Vec<Audience>,
    },
    /// The body of an answer, whole.
    Body(Vec<u8>),
    /// What is asked for is not there yet; the requester will be told when it is.
    Waits,
    /// Entries of a list, and where the shard would go on, unless it is through.
    Listed {
        entries: Vec<u8>,
        shard: u16,
        next: Option<u32>,
    },
    /// The worst of those who were looked at, and where the shard would go on, unless it is through.
    Laggards {
        laggards: Vec<Laggard>,
        shard: u16,
        next: Option<Place>,
    },
    /// The requester is not let in, for this reason.
    Refused(Refused),
}

/// What a subscriber has of a channel with serials, and what it was told of the channel's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The last serial that it has. The epoch is the home's: it lasts while there are subscribers.
    pub after: u64,
    /// The connection over which it had the channel before, if it resumes and said so.
    pub formerly: Option<Address>,
    pub roster_changes: u64,
    /// It had caught up before and was too slow, so that its policy holds.
    pub is_slow: bool,
}

/// Of one that lacks changes to the roster, so that it is told the roster anew.
pub const ROSTER_UNKNOWN: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
pub struct Fetch {
    pub variant: Variant,
    /// Comes back with the answer.
    pub number: u32,
    pub after: u64,
    pub formerly: Option<Address>,
    pub roster_changes: u64,
    /// What is left out for it if it is behind by more events than these: nothing for one who says itself
    /// where it begins.
    pub slow: Slow,
    pub slow_messages_max: u64,
    pub bytes_max: usize,
}

#[derive(Debug)]
pub struct Fetched {
    pub number: u32,
    pub epoch: u64,
    /// With the last one, the requester gets what is sequenced from here on after it.
    pub chunk: Chunk,
    /// Messages that go before its events.
    pub replies: Vec<Vec<u8>>,
}

/// The subscribers of a channel on one shard, in one variant.
#[derive(Clone, Copy, Debug)]
pub struct Audience {
    pub shard: u16,
    /// The channel on that shard.
    pub key: Key,
    /// Where its events end, at home.
    pub position: u64,
}

/// A count of the subscribers who have the frames before a position.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    pub place: u16,
    pub audience: Key,
    pub position: u64,
    /// The connection there that the event was not for.
    pub excluded: Option<Socket>,
}

/// How many a channel has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub users: u64,
    pub subscriptions: u64,
}

/// Why somebody is not let in: the parts of a `pusher:subscription_error`.
#[derive(Debug)]
pub struct Refused {
    pub kind: &'static str,
    pub error: String,
    pub status: u16,
}

impl Ask {
    pub fn answer(self, content: Content) -> Box<Answer> {
        Box::new(Answer {
            requester: self.requester,
            app: self.app,
            channel: self.channel,
            content,
        })
    }
}
