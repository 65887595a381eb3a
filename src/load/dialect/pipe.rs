//! Packets that run through WebSocket frames as through a pipe: a frame may hold many of them, or a piece of one.

use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::frames::{self, append_masked};
use super::{Fault, Heard, Speaker};

/// A packet that takes more frames than this many bytes is none of a measurement.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// How far one client's pipe has been read.
#[derive(Debug, Default)]
pub struct Pipe {
    /// Bytes of the frame that was begun and not yet taken. They are all there: a frame begins when it is whole.
    left: usize,
    /// The beginning of a packet; the next frame has more of it.
    piece: Vec<u8>,
}

/// What came out of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Flow<'a> {
    /// A whole packet.
    Packet(&'a [u8]),
    /// A whole packet that came in pieces.
    Joined(Vec<u8>),
    /// Something of WebSocket's own.
    Heard(Heard<'a>),
}

impl Pipe {
    /// Takes the next bytes, and what they complete. `packet_bytes` tells the length of the packet that some bytes begin
    /// with, if all of it is there.
    pub fn take<'a>(
        &mut self,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
        packet_bytes: impl Fn(&[u8]) -> Result<Option<usize>, Fault>,
    ) -> Result<Option<(usize, Flow<'a>)>, Fault> {
        if self.left == 0 {
            return self.begin_frame(bytes, out);
        }
        let payload = &bytes[..self.left];
        if self.piece.is_empty()
            && let Some(length) = packet_bytes(payload)?
        {
            self.left -= length;
            return Ok(Some((length, Flow::Packet(&payload[..length]))));
        }
        let before = self.piece.len();
        self.piece.extend_from_slice(payload);
        if before > 0
            && let Some(length) = packet_bytes(&self.piece)?
        {
            self.piece.truncate(length);
            self.left -= length - before;
            let joined = std::mem::take(&mut self.piece);
            return Ok(Some((length - before, Flow::Joined(joined))));
        }
        if self.piece.len() > PIECE_BYTES_MAX {
            return Err(Fault("a packet without end".to_owned()));
        }
        self.left = 0;
        Ok(Some((payload.len(), Flow::Heard(Heard::Nothing))))
    }

    fn begin_frame<'a>(
        &mut self,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<(usize, Flow<'a>)>, Fault> {
        let Some(frame) = frames::first(bytes)? else {
            return Ok(None);
        };
        if matches!(frame.opcode, OpCode::Data(Data::Binary | Data::Text)) {
            self.left = frame.payload.len();
            let header_bytes = frame.length - self.left;
            return Ok(Some((header_bytes, Flow::Heard(Heard::Nothing))));
        }
        let heard = beside_messages(&frame, out)?;
        Ok(Some((frame.length, Flow::Heard(heard))))
    }
}

/// Takes the next thing out of a client's pipe. `heard` tells what a whole packet says.
pub fn take<'a>(
    speaker: &mut Speaker,
    bytes: &'a [u8],
    out: &mut Vec<u8>,
    packet_bytes: impl Fn(&[u8]) -> Result<Option<usize>, Fault>,
    heard: impl for<'b> Fn(&mut Speaker, &'b [u8], &mut Vec<u8>) -> Result<Heard<'b>, Fault>,
) -> Result<Option<(usize, Heard<'a>)>, Fault> {
    let Some((length, flow)) = speaker.pipe.take(bytes, out, packet_bytes)? else {
        return Ok(None);
    };
    let heard = match flow {
        Flow::Packet(packet) => heard(speaker, packet, out)?,
        Flow::Joined(packet) => match heard(speaker, &packet, out)? {
            Heard::Message(_) | Heard::Joined(_) => Heard::Joined(packet),
            Heard::Nothing => Heard::Nothing,
            Heard::Greeted => Heard::Greeted,
            Heard::Subscribed => Heard::Subscribed,
            Heard::Answered => Heard::Answered,
            Heard::Goodbye(why) => Heard::Goodbye(why),
        },
        Flow::Heard(heard) => heard,
    };
    Ok(Some((length, heard)))
}

/// What a frame says that carries no message. A ping is answered.
pub fn beside_messages(
    frame: &frames::Frame<'_>,
    out: &mut Vec<u8>,
) -> Result<Heard<'static>, Fault> {
    match frame.opcode {
        OpCode::Control(Control::Ping) => {
            append_masked(out, OpCode::Control(Control::Pong), frame.payload);
            Ok(Heard::Nothing)
        }
        OpCode::Control(Control::Pong) => Ok(Heard::Nothing),
        OpCode::Control(Control::Close) => Ok(Heard::Goodbye(frames::close_words(frame.payload))),
        OpCode::Data(_) | OpCode::Control(Control::Reserved(_)) => {
            Err(Fault(format!("an unexpected frame: {:?}", frame.opcode)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::websocket::{Opcode, encode_frame};

    /// Packets of a test: a length, and so many bytes.
    fn packet_bytes(bytes: &[u8]) -> Result<Option<usize>, Fault> {
        Ok(bytes
            .first()
            .map(|length| 1 + usize::from(*length))
            .filter(|length| *length <= bytes.len()))
    }

    proptest! {
        #[test]
        fn packets_come_out_as_they_went_in_however_they_are_framed_and_cut(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..12),
            frame_bytes in 1_usize..300,
            cut in 1_usize..100,
        ) {
            let mut stream = Vec::new();
            for packet in &packets {
                stream.push(packet.len() as u8);
                stream.extend(packet);
            }
            let mut wire = Vec::new();
            for payload in stream.chunks(frame_bytes) {
                encode_frame(Opcode::Binary, payload, &mut wire);
                encode_frame(Opcode::Ping, b"?", &mut wire);
            }
            let (mut pipe, mut unread, mut out) = (Pipe::default(), Vec::new(), Vec::new());
            let mut heard = Vec::new();
            for bytes in wire.chunks(cut) {
                unread.extend_from_slice(bytes);
                while let Some((length, flow)) = pipe.take(&unread, &mut out, packet_bytes).unwrap() {
                    match flow {
                        Flow::Packet(packet) => heard.push(packet[1..].to_vec()),
                        Flow::Joined(packet) => heard.push(packet[1..].to_vec()),
                        Flow::Heard(heard) => prop_assert_eq!(heard, Heard::Nothing),
                    }
                    unread.drain(..length);
                }
            }
            prop_assert_eq!(heard, packets);
            prop_assert!(unread.is_empty());
            let pong_bytes = 7;
            prop_assert_eq!(out.len(), stream.chunks(frame_bytes).count() * pong_bytes);
        }
    }

    #[test]
    fn a_packet_that_never_ends_is_a_fault() {
        let mut wire = Vec::new();
        encode_frame(Opcode::Binary, &vec![0; PIECE_BYTES_MAX + 1], &mut wire);
        let mut pipe = Pipe::default();
        let header = pipe.take(&wire, &mut Vec::new(), |_| Ok(None)).unwrap();
        let (length, _) = header.expect("the frame is whole");
        let taken = pipe.take(&wire[length..], &mut Vec::new(), |_| Ok(None));
        assert!(taken.is_err());
    }
}
