//! The pieces: what `benches/` times, with the same inputs.

use std::hint::black_box;

use outpour::base::lane::lane;
use outpour::base::limits::LANE_LETTERS;
use outpour::hub::letter::Event;
use outpour::hub::log::Log;
use outpour::hub::repeats::Window;
use outpour::hub::retained::{Retained, Retention};
use outpour::hub::variant::{Encoder, Variant};
use outpour::wire::api::parse_event;
use outpour::wire::pusher::delivery::Serial;
use outpour::wire::pusher::parse_client_message;
use outpour::wire::signature::{Signer, check_request};
use outpour::wire::websocket::{Decoder, Deflater, Inflater, Opcode, encode_frame, unmask};

use crate::inputs::envelope::{CLIENT_EVENT, LIMITS, PUBLISH, SUBSCRIBE};
use crate::inputs::world::World;
use crate::inputs::{event, frame, request};

/// As large as the largest letter.
type Letter = [u64; 10];
/// Letters that are posted before any is read.
const LETTERS: usize = 64;
/// Bytes that subscribers still need, so that the log has to move on.
const HELD_BYTES: u64 = 64 << 10;
/// Subscribers of a sweep.
const SUBSCRIBERS: usize = 1_000;

/// Of six digits.
const SERIAL: Serial = Serial {
    epoch: 1,
    number: 123_456,
};
/// What a channel retains by default.
const RETENTION: Retention = Retention {
    messages_max: 1_000,
    bytes_max: 4 << 20,
    age_s: 120,
    window: Window {
        age_s: 600,
        keys_max: 10_000,
    },
};

/// What is counted. A number is a payload's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    FrameEncode(usize),
    /// The same of a channel with serials.
    FrameEncodeWithSerial(usize),
    FrameDecode(usize),
    Unmask(usize),
    EnvelopePublish,
    EnvelopeSubscribe,
    EnvelopeClientEvent,
    SignatureCheck,
    /// One letter into a lane and out.
    Lane,
    LogAppend(usize),
    /// To what a channel retains, which is as much as it may.
    RetainedAppend(usize),
    /// One delivery of a publish to [`SUBSCRIBERS`], the simulation of the kernel included.
    Sweep,
    /// The same without the simulation.
    SweepOfEngine,
}

/// Which instructions belong to a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Those inside of [`repeat`].
    Everything,
    /// Those of the engine between two calls of the ring.
    Engine,
}

impl Piece {
    pub fn all() -> Vec<Piece> {
        vec![
            Piece::FrameEncode(128),
            Piece::FrameEncode(1_024),
            Piece::FrameEncodeWithSerial(128),
            Piece::FrameDecode(128),
            Piece::FrameDecode(1_024),
            Piece::Unmask(128),
            Piece::Unmask(16_384),
            Piece::EnvelopePublish,
            Piece::EnvelopeSubscribe,
            Piece::EnvelopeClientEvent,
            Piece::SignatureCheck,
            Piece::Lane,
            Piece::LogAppend(174),
            Piece::LogAppend(1_024),
            Piece::RetainedAppend(190),
            Piece::Sweep,
            Piece::SweepOfEngine,
        ]
    }

    pub fn name(self) -> String {
        match self {
            Piece::FrameEncode(bytes) => format!("frame encode, {bytes} bytes"),
            Piece::FrameEncodeWithSerial(bytes) => format!("encode with serial, {bytes} bytes"),
            Piece::FrameDecode(bytes) => format!("frame decode, {bytes} bytes"),
            Piece::Unmask(bytes) => format!("unmask, {bytes} bytes"),
            Piece::EnvelopePublish => "envelope, publish".to_owned(),
            Piece::EnvelopeSubscribe => "envelope, subscribe".to_owned(),
            Piece::EnvelopeClientEvent => "envelope, client event".to_owned(),
            Piece::SignatureCheck => "signature check".to_owned(),
            Piece::Lane => "lane, a letter".to_owned(),
            Piece::LogAppend(bytes) => format!("log append, {bytes} bytes"),
            Piece::RetainedAppend(bytes) => format!("retained append, {bytes} bytes"),
            Piece::Sweep => "sweep, a delivery".to_owned(),
            Piece::SweepOfEngine => "sweep, the engine alone".to_owned(),
        }
    }

    /// How often a run repeats it: enough that the rare steps (a log that moves on) come in
    /// proportion.
    pub fn times(self) -> usize {
        match self {
            Piece::Sweep | Piece::SweepOfEngine => 40,
            Piece::LogAppend(_) | Piece::RetainedAppend(_) => 20_000,
            Piece::FrameEncode(_)
            | Piece::FrameEncodeWithSerial(_)
            | Piece::FrameDecode(_)
            | Piece::Unmask(_)
            | Piece::EnvelopePublish
            | Piece::EnvelopeSubscribe
            | Piece::EnvelopeClientEvent
            | Piece::SignatureCheck
            | Piece::Lane => 2_000,
        }
    }

    pub fn operations_a_time(self) -> usize {
        match self {
            Piece::Sweep | Piece::SweepOfEngine => SUBSCRIBERS,
            Piece::Lane => LETTERS,
            Piece::FrameEncode(_)
            | Piece::FrameEncodeWithSerial(_)
            | Piece::FrameDecode(_)
            | Piece::Unmask(_)
            | Piece::EnvelopePublish
            | Piece::EnvelopeSubscribe
            | Piece::EnvelopeClientEvent
            | Piece::SignatureCheck
            | Piece::LogAppend(_)
            | Piece::RetainedAppend(_) => 1,
        }
    }

    pub fn counted(self) -> Counted {
        match self {
            Piece::SweepOfEngine => Counted::Engine,
            Piece::FrameEncode(_)
            | Piece::FrameEncodeWithSerial(_)
            | Piece::FrameDecode(_)
            | Piece::Unmask(_)
            | Piece::EnvelopePublish
            | Piece::EnvelopeSubscribe
            | Piece::EnvelopeClientEvent
            | Piece::SignatureCheck
            | Piece::Lane
            | Piece::LogAppend(_)
            | Piece::RetainedAppend(_)
            | Piece::Sweep => Counted::Everything,
        }
    }
}

/// Repeats a piece. Callgrind knows this function by its name, so it is not inlined.
#[inline(never)]
fn repeat(times: usize, step: &mut dyn FnMut(usize)) {
    for time in 0..times {
        step(time);
    }
}

/// Runs a piece in this process.
pub fn run(piece: Piece, times: usize) {
    match piece {
        Piece::FrameEncode(bytes) => encode_frames(bytes, None, times),
        Piece::FrameEncodeWithSerial(bytes) => encode_frames(bytes, Some(SERIAL), times),
        Piece::FrameDecode(bytes) => decode_frames(bytes, times),
        Piece::Unmask(bytes) => {
            let mut payload = vec![b'x'; bytes];
            repeat(times, &mut |_| unmask(black_box(&mut payload), frame::MASK));
        }
        Piece::EnvelopePublish => repeat(times, &mut |_| {
            let event = parse_event(black_box(PUBLISH.as_bytes()), None, &LIMITS);
            black_box(event.expect("the body is right").channels.len());
        }),
        Piece::EnvelopeSubscribe => parse_messages(SUBSCRIBE, times),
        Piece::EnvelopeClientEvent => parse_messages(CLIENT_EVENT, times),
        Piece::SignatureCheck => {
            let signer = Signer::new(request::SECRET);
            let (signed, now_s) = (request::request(), request::NOW_S);
            repeat(times, &mut |_| {
                let checked = check_request(request::KEY, &signer, black_box(signed), now_s, 600);
                checked.expect("the signature is right");
            });
        }
        Piece::Lane => pass_letters(times),
        Piece::LogAppend(bytes) => append(bytes, times),
        Piece::RetainedAppend(bytes) => retain(bytes, times),
        Piece::Sweep | Piece::SweepOfEngine => {
            let mut world = World::new(SUBSCRIBERS);
            repeat(times, &mut |_| world.publish());
        }
    }
}

fn encode_frames(bytes: usize, serial: Option<Serial>, times: usize) {
    let data = event::data(bytes);
    let event = Event {
        serial,
        ..event::event(&data)
    };
    let mut encoder = Encoder::new(Deflater::new(6, 512));
    let mut frame = Vec::new();
    repeat(times, &mut |_| {
        frame.clear();
        encoder.encode(Variant::Plain, black_box(&event), &mut frame);
    });
}

fn decode_frames(bytes: usize, times: usize) {
    // Decoding unmasks in place, so each time has a frame of its own.
    let mut frames = vec![frame::masked_text(bytes); times];
    let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
    repeat(times, &mut |time| {
        let decoded = decoder.decode(&mut frames[time], &frame::LIMITS, &mut inflater);
        black_box(decoded.expect("the frame is right").0);
    });
}

fn parse_messages(text: &str, times: usize) {
    repeat(times, &mut |_| {
        black_box(parse_client_message(black_box(text)).is_ok());
    });
}

fn pass_letters(times: usize) {
    let (mut sender, mut receiver) = lane::<Letter>(LANE_LETTERS);
    repeat(times, &mut |_| {
        for number in 0..LETTERS {
            assert!(sender.push([number as u64; 10]).is_ok());
        }
        while let Some(letter) = receiver.pop() {
            black_box(letter);
        }
    });
}

fn append(bytes: usize, times: usize) {
    let frame = vec![7; bytes];
    let mut log = Log::default();
    repeat(times, &mut |_| {
        log.append(&frame, [frame.len()].into_iter(), 0);
        log.trim(log.head().saturating_sub(HELD_BYTES));
        black_box(log.tail());
    });
}

fn retain(bytes: usize, times: usize) {
    let mut frame = Vec::new();
    encode_frame(Opcode::Text, &vec![b'x'; bytes], &mut frame);
    let mut retained = Retained::new(1, RETENTION);
    for _ in 0..2 * RETENTION.messages_max {
        retained.append(&frame, None, 0);
    }
    repeat(times, &mut |time| {
        // A thousand events a second.
        retained.append(&frame, None, (time / 1_000) as u32);
        black_box(retained.tail());
    });
}
