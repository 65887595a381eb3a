//! A run's messages, encoded before it starts, one behind the other as they go on the wire.
//!
//! The schedule is fixed, so each stamp is known beforehand and the clock alone says how far the
//! log's head is. A run then measures sending and nothing else.

use super::Schedule;
use crate::generator::{CHANNEL, EVENT};
use outpour::load::machine::monotonic_ns;
use outpour::load::stamp::Stamp;
use outpour::wire::websocket::{Opcode, encode_frame};

#[derive(Clone, Copy)]
pub struct Log {
    /// Leaked: a sender lives for a few runs, and runtimes want bytes that outlive their tasks.
    pub bytes: &'static [u8],
    pub messages: u64,
    pub start_ns: u64,
    frame_bytes: usize,
    interval_ns: f64,
    one_a_visit: bool,
}

impl Log {
    pub fn write(schedule: &Schedule) -> Log {
        let interval_ns = 1e9 / schedule.per_second;
        // Writing takes a good deal less than 2 us a message and 2 ns a byte.
        let writing_ns = schedule.messages * (2_000 + 2 * schedule.data_bytes as u64);
        let start_ns = monotonic_ns() + 100_000_000 + writing_ns;
        let mut bytes = Vec::new();
        let mut frame_bytes = 0;
        for sequence in 0..schedule.messages {
            let due_ns = start_ns + (sequence as f64 * interval_ns) as u64;
            let frame = event_frame(Stamp { sequence, due_ns }, schedule.data_bytes);
            frame_bytes = frame.len();
            bytes.extend_from_slice(&frame);
        }
        Log {
            bytes: bytes.leak(),
            messages: schedule.messages,
            start_ns,
            frame_bytes,
            interval_ns,
            one_a_visit: schedule.one_a_visit,
        }
    }

    /// The bytes that have arrived by now.
    pub fn head(&self, now_ns: u64) -> usize {
        let elapsed_ns = now_ns.saturating_sub(self.start_ns) as f64;
        let arrived = (elapsed_ns / self.interval_ns) as u64 + 1;
        arrived.min(self.messages) as usize * self.frame_bytes
    }

    /// How far a visit sends that finds a socket at `cursor`.
    pub fn visit_end(&self, cursor: usize, head: usize) -> usize {
        match self.one_a_visit {
            false => head,
            true => head.min((cursor / self.frame_bytes + 1) * self.frame_bytes),
        }
    }

    /// When the message behind this head arrives.
    pub fn due_ns(&self, head: usize) -> u64 {
        let sequence = (head / self.frame_bytes) as f64;
        self.start_ns + (sequence * self.interval_ns) as u64 + 1
    }
}

/// How long a message with so much data is on the wire, naked or from a server of the Pusher protocol.
pub fn frame_bytes(data_bytes: usize) -> u64 {
    let stamp = Stamp {
        sequence: 0,
        due_ns: 0,
    };
    event_frame(stamp, data_bytes).len() as u64
}

/// A whole server frame for one event, as it goes on the wire.
fn event_frame(stamp: Stamp, data_bytes: usize) -> Vec<u8> {
    let data = stamp.data(data_bytes);
    let text = format!(r#"{{"event":"{EVENT}","channel":"{CHANNEL}","data":"{data}"}}"#);
    let mut frame = Vec::new();
    encode_frame(Opcode::Text, text.as_bytes(), &mut frame);
    frame
}
