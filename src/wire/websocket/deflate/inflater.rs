//! Compressed messages to their payloads, each by itself, however long they claim to be.

use flate2::{Decompress, FlushDecompress, Status};

use super::super::violation::Violation;
use crate::base::limits;

/// The window of one shard and the last payload that came out of it; nothing until the first
/// compressed message. Connections have no part of it, because no message refers to another.
#[derive(Debug, Default)]
pub struct Inflater(Option<Box<Scratch>>);

#[derive(Debug)]
struct Scratch {
    window: Decompress,
    /// The payload and room behind it, all of it initialized.
    room: Vec<u8>,
    payload_bytes: usize,
}

/// The longest that a message may be while it is compressed. Compressing makes some messages
/// longer, by less than an eighth and a hundredth with zlib's worst settings (`deflateBound`).
pub fn deflated_bytes_max(bytes_max: usize) -> usize {
    bytes_max.saturating_add(bytes_max / 4 + 64)
}

/// [`TAIL`](super::TAIL), which the client has left off, and an empty last block, by whose end it is
/// known that the message is whole.
const END: [u8; 6] = [0x00, 0x00, 0xFF, 0xFF, 0x03, 0x00];

impl Inflater {
    /// The payload of a compressed message (RFC 7692, section 7.2.2). Inflating stops when there
    /// are more than `bytes_max` bytes, whatever is left to come.
    pub fn inflate(&mut self, message: &[u8], bytes_max: usize) -> Result<&[u8], Violation> {
        let scratch = self.0.get_or_insert_with(|| {
            Box::new(Scratch {
                window: Decompress::new(false),
                room: Vec::new(),
                payload_bytes: 0,
            })
        });
        scratch.inflate(message, bytes_max)?;
        Ok(&scratch.room[..scratch.payload_bytes])
    }

    /// Memory that payloads take here, besides the window.
    pub fn held_bytes(&self) -> usize {
        let scratch = self.0.as_deref();
        scratch.map_or(0, |scratch| scratch.room.capacity())
    }
}

impl Scratch {
    fn inflate(&mut self, message: &[u8], bytes_max: usize) -> Result<(), Violation> {
        self.payload_bytes = 0;
        self.room.truncate(limits::SPARE_INFLATED_BYTES_MAX);
        self.room.shrink_to(limits::SPARE_INFLATED_BYTES_MAX);
        let mut rest = message;
        // A stream may end within the message or with it (section 7.2.3.4); then another begins. One
        // takes at least two bytes and some 25 ns, less than bytes that mean something.
        while !rest.is_empty() {
            self.window.reset(false);
            match self.push(rest, bytes_max)? {
                End::OfInput => return self.finish(bytes_max),
                End::OfStream { left_bytes } => rest = &rest[rest.len() - left_bytes..],
            }
        }
        Ok(())
    }

    /// Ends the stream, which must be where its message ends.
    fn finish(&mut self, bytes_max: usize) -> Result<(), Violation> {
        match self.push(&END, bytes_max)? {
            End::OfStream { left_bytes: 0 } => Ok(()),
            End::OfStream { .. } | End::OfInput => Err(Violation::NotDeflate),
        }
    }

    /// Inflates all of `input`, or up to where its stream ends.
    fn push(&mut self, mut input: &[u8], bytes_max: usize) -> Result<End, Violation> {
        loop {
            // The one byte more shows that there are too many.
            let room_bytes = self.make_room(bytes_max.saturating_add(1));
            let room = &mut self.room[self.payload_bytes..room_bytes];
            let (in_before, out_before) = (self.window.total_in(), self.window.total_out());
            let status = self
                .window
                .decompress(input, room, FlushDecompress::None)
                .map_err(|_| Violation::NotDeflate)?;
            input = &input[(self.window.total_in() - in_before) as usize..];
            self.payload_bytes += (self.window.total_out() - out_before) as usize;
            if self.payload_bytes > bytes_max {
                return Err(Violation::LongInflated);
            }
            match status {
                Status::StreamEnd => {
                    let left_bytes = input.len();
                    return Ok(End::OfStream { left_bytes });
                }
                Status::Ok | Status::BufError if self.payload_bytes == room_bytes => {}
                // With room left, zlib stops for nothing but the end of its input.
                Status::Ok | Status::BufError => return Ok(End::OfInput),
            }
        }
    }

    /// Sees that there is room behind the payload, for twice as much as there was, up to `most`.
    /// Returns where it ends.
    fn make_room(&mut self, most: usize) -> usize {
        if self.payload_bytes == self.room.len() {
            let more = self.room.len().max(limits::INFLATE_STEP_BYTES);
            let room_bytes = self.room.len().saturating_add(more).min(most);
            self.room.reserve_exact(room_bytes - self.room.len());
            self.room.resize(room_bytes, 0);
        }
        self.room.len().min(most)
    }
}

/// Where a piece of input ended.
enum End {
    /// All of it is taken, and its stream goes on.
    OfInput,
    /// With so many bytes behind it.
    OfStream { left_bytes: usize },
}
