//! Questions to a channel's home, or to a shard about all channels whose home it is, and the answers.
//!
//! Whoever asks waits: its connection reads no further message until the answer is there, so there
//! are never more questions under way than connections and channels in one request.

use super::variant::Variant;
use crate::base::socket::Socket;
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
    },
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
    Entered { replies: Vec<Vec<u8>> },
    /// The requester is told of what the watched user does from here on; so it stands now.
    Watching { is_online: bool },
    /// The requester is not let in, for this reason.
    Refused(Refused),
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
