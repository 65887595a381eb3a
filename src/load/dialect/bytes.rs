//! Nothing is spoken: whoever connects is sent WebSocket frames, as a server of the Pusher protocol would frame them.
//!
//! The other end is a naked sender, which measures what writing alone costs.

use super::{Dialect, Fault, Heard, Speaker, frames};

pub struct Bytes;

impl Dialect for Bytes {
    fn is_greeted_at_once(&self) -> bool {
        true
    }

    fn is_even(&self) -> bool {
        true
    }

    fn open(&self, _: &mut Speaker, _: &mut Vec<u8>) {}

    fn take<'a>(
        &self,
        _: &mut Speaker,
        bytes: &'a [u8],
        _: &mut Vec<u8>,
    ) -> Result<Option<(usize, Heard<'a>)>, Fault> {
        let frame = frames::first(bytes)?;
        Ok(frame.map(|frame| (frame.length, Heard::Message(frame.payload))))
    }

    fn subscribe(&self, _: &mut Speaker, _: &str, _: &mut Vec<u8>) {
        unreachable!("nothing is subscribed where nothing is spoken");
    }

    fn unsubscribe(&self, _: &mut Speaker, _: &str, _: &mut Vec<u8>) {
        unreachable!("nothing is subscribed where nothing is spoken");
    }

    fn ask(&self, _: &mut Speaker, _: &mut Vec<u8>) {
        unreachable!("nothing is asked where nothing is spoken");
    }

    fn heartbeat(&self, _: &mut Vec<u8>) {}

    fn goodbye(&self, _: &mut Vec<u8>) {}

    fn publish(&self, _: &str, _: &str, _: &mut Vec<u8>) {
        unreachable!("nothing is published where nothing is spoken");
    }
}
