//! What a crew knows of one client.
//!
//! ```text
//! Vacant -> Connecting -> Greeting -> Open -> Closing -> Vacant
//!           Connecting -> Vacant                 the connection failed
//!                         Greeting -> Closing    the server ended it, or refused
//! ```

use crate::base::socket::Socket;
use crate::load::dialect::Speaker;

use super::ledger::Ledger;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The slot is empty.
    Vacant,
    Connecting,
    /// Connected, and not yet open: greeting, subscription.
    Greeting,
    Open,
    /// Its slot is on the way to being empty.
    Closing,
}

/// No dialect has such a stage.
pub const UNHEARD: u8 = u8::MAX;

/// What waits in the kernel for a client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Nothing,
    /// Bytes are read.
    Receive,
    /// Bytes are thrown away and counted.
    Skim,
    /// So are some, when they are allowed.
    SkimSome,
}

/// How a client takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It is there.
    Idle,
    /// It belongs to the run that is counted.
    Counted,
    Stalled,
    Guest,
}

#[derive(Debug)]
pub struct Client {
    pub stage: Stage,
    /// What waits, and what shall wait.
    pub reading: Reading,
    pub wanted: Reading,
    pub part: Part,
    /// It ends by itself or by command; it is opened again when its slot is empty.
    pub comes_again: bool,
    /// How far the talk had come when it was dropped; [`UNHEARD`] if nobody knows where the next message begins.
    pub spoken: u8,
    pub generation: u32,
    /// Messages of the run.
    pub position: u32,
    /// Bytes of the run.
    pub bytes: u64,
    pub talk: Option<Box<Talk>>,
}

/// While a client talks, or decodes.
#[derive(Debug, Default)]
pub struct Talk {
    pub speaker: Speaker,
    pub began_ns: u64,
    pub unread: Vec<u8>,
    /// Own subscriptions: how many there shall be, were asked for, and were confirmed.
    pub wanted: u64,
    pub asked: u64,
    pub confirmed: u64,
    /// Unsubscribing is not confirmed; what was asked behind it is.
    pub awaits_answer: bool,
    pub ledger: Option<Ledger>,
    /// Where the channel's name stood in the last message.
    pub name_at: usize,
    pub words: Option<String>,
}

impl Talk {
    /// Nothing that was asked of it is left to do.
    pub fn is_settled(&self) -> bool {
        self.asked == self.wanted && self.confirmed == self.wanted && !self.awaits_answer
    }
}

impl Client {
    pub fn new() -> Client {
        Client {
            stage: Stage::Vacant,
            reading: Reading::Nothing,
            wanted: Reading::Nothing,
            part: Part::Idle,
            comes_again: false,
            spoken: 0,
            generation: 0,
            position: 0,
            bytes: 0,
            talk: None,
        }
    }

    /// Nothing more is to be said or decoded.
    pub fn hush(&mut self) {
        if let Some(talk) = self.talk.take() {
            let is_between = talk.unread.is_empty();
            self.spoken = if is_between {
                talk.speaker.stage
            } else {
                UNHEARD
            };
        }
    }

    /// Its talk, as it was or begun anew; none if it lies in the middle of a message.
    pub fn speak_again(&mut self, number: u64) -> Option<&mut Talk> {
        if self.talk.is_none() && self.spoken == UNHEARD {
            return None;
        }
        let talk = self.talk.get_or_insert_with(|| {
            let mut talk = Box::<Talk>::default();
            talk.speaker.client = number;
            talk.speaker.stage = self.spoken;
            talk
        });
        Some(talk)
    }

    pub fn socket(&self, slot: u32) -> Socket {
        Socket {
            slot,
            generation: self.generation,
        }
    }

    /// What waits is not yet what shall. A stalled client waits for leave to read.
    pub fn is_switching(&self) -> bool {
        let is_held = self.reading == Reading::Nothing && self.wanted == Reading::SkimSome;
        self.reading != self.wanted && !is_held
    }
}

// A million of them are to fit beside a million sockets.
const _: () = assert!(size_of::<Client>() <= 40);
