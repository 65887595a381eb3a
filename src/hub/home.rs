//! A channel at its home: the one place that puts its events in order.
//!
//! The home knows which shards have subscribers, gives each event its position in every variant
//! that somebody gets, and keeps the encoded frames only until they are posted to those shards. It
//! counts how far each shard's sweep has come; when one stays too far behind, the channel is
//! congested and publishers wait.

use smallvec::SmallVec;

use super::ask::Answer;
use super::audience::Exception;
use super::letter::{Event, Origin};
use super::retained::Retained;
use super::roster::Roster;
use super::variant::Variant;
use crate::base::slab::Key;
use crate::wire::pusher::member::MemberText;

/// What a home keeps of a channel that somebody is interested in.
#[derive(Debug, Default)]
pub struct Home {
    /// One for each variant with subscribers anywhere, in the order of variants.
    pub streams: SmallVec<[Stream; 1]>,
    /// How many subscribers everybody was told of who is told such things.
    pub subscribers_told: u32,
    pub is_congested: bool,
    /// What channels of some kinds remember.
    pub kept: Option<Box<Kept>>,
    /// The channel's last events, if they have serials.
    pub retained: Option<Box<Retained>>,
}

/// What presence and cache channels remember.
#[derive(Debug, Default)]
pub struct Kept {
    pub roster: Roster,
    pub cached: Option<Cached>,
    /// The home is in the list of those whose cached event will be over.
    pub is_listed: bool,
    /// If subscribers are told how many they are.
    pub counted: Counted,
}

/// How many subscribers there were when they were last told, and when that was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    pub told: u32,
    pub at_s: u32,
    /// The home is in the list of those that have to tell.
    pub is_due: bool,
}

/// The last event that a back end published: its name and data, as JSON tokens.
#[derive(Debug)]
pub struct Cached {
    pub name: Box<str>,
    pub data: Box<str>,
    /// The second from which on it is over.
    pub over_s: u32,
}

/// The channel's events in one variant, as a sequence of bytes.
#[derive(Debug)]
pub struct Stream {
    pub variant: Variant,
    /// The position of the next event.
    pub head: u64,
    /// The subscribers on this shard, while there are any.
    pub local: Option<u32>,
    /// Other shards with subscribers.
    pub interests: SmallVec<[Interest; 1]>,
    /// Frames on their way to other shards.
    pub outgoing: Option<Box<Outgoing>>,
}

/// Another shard's interest in a stream.
#[derive(Clone, Copy, Debug)]
pub struct Interest {
    /// The channel on that shard.
    pub audience: Key,
    /// The position up to which frames were posted.
    pub posted: u64,
    /// The position up to which that shard said its sweep has come.
    pub swept: u64,
    pub subscribers: u32,
    pub shard: u16,
    /// The shard does not know yet that it has joined.
    pub owes_joined: bool,
    /// The shard is to end the connections of the user whose channel this is.
    pub owes_end: bool,
}

/// What at least one shard has not been posted yet.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// The position of the first byte.
    pub base: u64,
    pub frames: Vec<u8>,
    /// What single connections on other shards do not get.
    pub exceptions: Vec<(u16, u32, Exception)>,
    /// One for each question, so the credit of those who ask bounds them.
    pub answers: Vec<DueAnswer>,
}

/// What a shard is told between the frames before a position and those from it on: the one let in
/// gets exactly the latter.
#[derive(Debug)]
pub struct DueAnswer {
    pub shard: u16,
    pub position: u64,
    /// The last serial that was given before that position.
    pub serial: Option<u64>,
    pub answer: Box<Answer>,
}

impl Home {
    /// Whether nobody would miss it.
    pub fn is_unused(&self) -> bool {
        self.streams.is_empty()
            && !self.is_congested
            && self.subscribers_told == 0
            && self.kept.is_none()
            && self.retained.is_none()
    }

    /// The last serial that was given, if events have serials.
    pub fn serial(&self) -> Option<u64> {
        let retained = self.retained.as_ref()?;
        Some(retained.next().number - 1)
    }

    /// The id of the member who triggered an event, as a JSON token.
    pub fn user_id_of(&self, event: &Event<'_>) -> Option<String> {
        let kept = self.kept.as_ref()?;
        let sender = event.excluded.filter(|_| event.origin == Origin::Client)?;
        kept.roster.member_of(sender).map(MemberText::id_token)
    }

    /// The event that those who come are told, at a time in seconds.
    pub fn cached(&self, now_s: u32) -> Option<&Cached> {
        let cached = self.kept.as_ref()?.cached.as_ref()?;
        (cached.over_s > now_s).then_some(cached)
    }

    /// Forgets what is over, at a time in seconds.
    pub fn forget_over(&mut self, now_s: u32) {
        if let Some(kept) = self.kept.as_mut() {
            kept.cached.take_if(|cached| cached.over_s <= now_s);
            let is_counted = kept.counted.told > 0 || kept.counted.is_due;
            let is_caching = kept.cached.is_some() || kept.is_listed;
            if kept.roster.is_empty() && !is_caching && !is_counted {
                self.kept = None;
            }
        }
    }

    /// The stream of a variant that gets its first subscribers here or anywhere.
    pub fn stream(&mut self, variant: Variant) -> &mut Stream {
        let before = self.streams.iter();
        let place = before.take_while(|stream| stream.variant < variant).count();
        let is_there = self.streams.get(place).map(|stream| stream.variant) == Some(variant);
        if !is_there {
            let stream = Stream {
                variant,
                head: 0,
                local: None,
                interests: SmallVec::new(),
                outgoing: None,
            };
            self.streams.insert(place, stream);
        }
        &mut self.streams[place]
    }

    pub fn stream_mut(&mut self, variant: Variant) -> Option<&mut Stream> {
        let mut streams = self.streams.iter_mut();
        streams.find(|stream| stream.variant == variant)
    }

    /// Forgets the streams that nobody gets any more.
    pub fn forget_unheard(&mut self) {
        self.streams.retain(|stream| {
            let outgoing = stream.outgoing.as_ref();
            stream.local.is_some()
                || !stream.interests.is_empty()
                || outgoing.is_some_and(|outgoing| !outgoing.answers.is_empty())
        });
    }
}

impl Stream {
    /// The position up to which every other shard's sweep has come.
    pub fn swept_elsewhere(&self) -> u64 {
        self.interests
            .iter()
            .map(|interest| interest.swept)
            .min()
            .unwrap_or(self.head)
    }

    /// Gives a frame its place. Returns where it begins.
    pub fn sequence(&mut self, frame: &[u8]) -> u64 {
        let start = self.head;
        self.head += frame.len() as u64;
        if !self.interests.is_empty() {
            let outgoing = self.outgoing.get_or_insert_default();
            if outgoing.frames.is_empty() {
                outgoing.base = start;
            }
            outgoing.frames.extend_from_slice(frame);
        }
        start
    }

    /// The shard no longer listens.
    pub fn leave(&mut self, shard: u16) {
        self.interests.retain(|interest| interest.shard != shard);
        // What is sequenced while nobody listens is not kept, so what was kept would not adjoin what
        // the next to come is sent.
        if self.interests.is_empty()
            && let Some(outgoing) = self.outgoing.as_mut()
        {
            outgoing.frames.clear();
            outgoing.exceptions.clear();
        }
    }

    /// Has the shard told this after all that was sequenced so far, and before what will be.
    pub fn answer(&mut self, shard: u16, serial: Option<u64>, answer: Box<Answer>) {
        let position = self.head;
        let outgoing = self.outgoing.get_or_insert_default();
        outgoing.answers.push(DueAnswer {
            shard,
            position,
            serial,
            answer,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interest(stream: &Stream, shard: u16) -> Interest {
        Interest {
            audience: Key {
                index: 0,
                generation: 0,
            },
            posted: stream.head,
            swept: stream.head,
            subscribers: 1,
            shard,
            owes_joined: true,
            owes_end: false,
        }
    }

    #[test]
    fn frames_for_one_who_comes_adjoin_although_others_left_theirs_behind() {
        let mut home = Home::default();
        // The local subscriber keeps the stream while nobody else listens.
        home.stream(Variant::Plain).local = Some(0);
        let stream = home.stream(Variant::Plain);
        stream.interests.push(interest(stream, 1));
        stream.sequence(b"one");
        stream.leave(1);
        stream.sequence(b"three");
        stream.interests.push(interest(stream, 2));
        let start = stream.sequence(b"five");
        let outgoing = stream.outgoing.as_ref().unwrap();
        assert_eq!((outgoing.base, &*outgoing.frames), (start, &b"five"[..]));
        assert_eq!(stream.interests[0].posted, start);
    }
}
