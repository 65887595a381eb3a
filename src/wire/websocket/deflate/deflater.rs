//! Payloads to compressed frames, each by itself.
//!
//! One frame serves every client that agreed to its window, so what a publish costs here is paid
//! once for each window in use, however many subscribers there are.

use flate2::{Compress, Compression, FlushCompress};

use super::super::encoder::{encode_frame, header};
use super::super::frame::Opcode;
use super::{TAIL, WindowBits};

/// The compressors of one shard. Each takes some 300 KB for the largest window, from when it is
/// first used.
#[derive(Debug)]
pub struct Deflater {
    level: Compression,
    bytes_min: usize,
    compressors: [Option<Box<Compress>>; WindowBits::SIZES],
    deflated: Vec<u8>,
}

impl Deflater {
    /// Payloads of less than `bytes_min` bytes are not compressed. The level is one of zlib's, from
    /// 1, which is quick, to 9, which is thorough.
    pub fn new(level: u8, bytes_min: usize) -> Deflater {
        assert!((1..=9).contains(&level), "zlib has no level {level}");
        Deflater {
            level: Compression::new(u32::from(level)),
            bytes_min,
            compressors: Default::default(),
            deflated: Vec::new(),
        }
    }

    /// Appends one frame that is a whole message, compressed if that is worth it: the payload is
    /// long enough and gets shorter. Tells whether it is. A frame that is not compressed is the one
    /// that [`encode_frame`] lays down.
    pub fn encode_frame(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        window: WindowBits,
        out: &mut Vec<u8>,
    ) -> bool {
        if payload.len() >= self.bytes_min && !opcode.is_control() {
            self.deflate(payload, window);
            if self.deflated.len() < payload.len() {
                self.append_frame(opcode, out);
                return true;
            }
        }
        encode_frame(opcode, payload, out);
        false
    }

    /// Appends one frame that is a whole message and compressed, whatever comes of it. Panics for a
    /// control frame.
    pub fn encode_compressed_frame(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        window: WindowBits,
        out: &mut Vec<u8>,
    ) {
        self.deflate(payload, window);
        self.append_frame(opcode, out);
    }

    fn append_frame(&self, opcode: Opcode, out: &mut Vec<u8>) {
        let header = header(opcode, self.deflated.len()).compressed();
        out.reserve(header.as_ref().len() + self.deflated.len());
        out.extend_from_slice(header.as_ref());
        out.extend_from_slice(&self.deflated);
    }

    /// Leaves the compressed payload in `deflated` (RFC 7692, section 7.2.1).
    fn deflate(&mut self, payload: &[u8], window: WindowBits) {
        let level = self.level;
        let compressor = self.compressors[window.index()].get_or_insert_with(|| {
            let compressor = Compress::new_with_window_bits(level, false, window.bits());
            Box::new(compressor)
        });
        compressor.reset();
        self.deflated.clear();
        let mut rest = payload;
        loop {
            self.deflated.reserve(rest.len() + FLUSH_BYTES);
            let before = compressor.total_in();
            compressor
                .compress_vec(rest, &mut self.deflated, FlushCompress::Sync)
                .expect("a stream that was reset takes any bytes");
            rest = &rest[(compressor.total_in() - before) as usize..];
            let has_room = self.deflated.len() < self.deflated.capacity();
            if rest.is_empty() && has_room {
                break;
            }
        }
        let flushed = self.deflated.len() - TAIL.len();
        assert_eq!(self.deflated[flushed..], TAIL, "a flush ends so");
        self.deflated.truncate(flushed);
    }
}

/// More room than a flush takes for itself; with less, zlib repeats it (its manual, `deflate`).
const FLUSH_BYTES: usize = 64;
