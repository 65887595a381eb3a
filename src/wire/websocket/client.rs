//! A naive client for the tests: lays out masked frames, right or wrong, and collects what the
//! decoder makes of them.

use miniz_oxide::deflate::core::{
    self, CompressorOxide, TDEFLFlush, create_comp_flags_from_zip_params,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::frame::{COMPRESSED, Opcode};
use super::{Decoder, Inflater, Limits, Message, Violation};

pub const LIMITS: Limits = Limits {
    message_bytes_max: 1 << 20,
    takes_compressed: false,
};

/// A message that owns what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Message<'_>> for Owned {
    fn from(message: Message<'_>) -> Owned {
        match message {
            Message::Text(text) => Owned::Text(text.into()),
            Message::Binary(bytes) => Owned::Binary(bytes.into()),
            Message::Ping(payload) => Owned::Ping(payload.into()),
            Message::Pong(payload) => Owned::Pong(payload.into()),
            Message::Close(close) => {
                Owned::Close(close.map(|(code, reason)| (code, reason.into())))
            }
        }
    }
}

impl Owned {
    pub fn opcode(&self) -> Opcode {
        match self {
            Owned::Text(_) => Opcode::Text,
            Owned::Binary(_) => Opcode::Binary,
            Owned::Ping(_) => Opcode::Ping,
            Owned::Pong(_) => Opcode::Pong,
            Owned::Close(_) => Opcode::Close,
        }
    }

    pub fn payload(&self) -> Vec<u8> {
        match self {
            Owned::Text(text) => text.clone().into_bytes(),
            Owned::Binary(bytes) | Owned::Ping(bytes) | Owned::Pong(bytes) => bytes.clone(),
            Owned::Close(None) => Vec::new(),
            Owned::Close(Some((code, reason))) => [&code.to_be_bytes(), reason.as_bytes()].concat(),
        }
    }
}

/// One masked frame; `first` is its first byte: FIN, reserved bits, opcode.
pub fn frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend((0..length).map(|at| payload[at] ^ mask[at % 4]));
    bytes
}

/// A stream's bytes and the messages in it, in the order in which they end.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub bytes: Vec<u8>,
    pub messages: Vec<Owned>,
}

/// Any messages but closes, the data ones cut into any frames with control frames between.
pub fn streams() -> impl Strategy<Value = Stream> {
    streams_of(Just(false))
}

/// The same with some of the messages compressed.
pub fn compressed_streams() -> impl Strategy<Value = Stream> {
    streams_of(any::<bool>())
}

fn streams_of(is_compressed: impl Strategy<Value = bool>) -> impl Strategy<Value = Stream> {
    let message = (
        message(),
        is_compressed,
        vec((any::<prop::sample::Index>(), vec(control(), 0..3)), 0..5),
        any::<[u8; 4]>(),
    );
    vec(message, 0..8).prop_map(|messages| {
        let mut stream = Stream::default();
        for (message, is_compressed, cuts, mask) in messages {
            stream.push(message, is_compressed, cuts, mask);
        }
        stream
    })
}

impl Stream {
    fn push(
        &mut self,
        message: Owned,
        is_compressed: bool,
        cuts: Vec<(prop::sample::Index, Vec<Owned>)>,
        mask: [u8; 4],
    ) {
        let mut payload = message.payload();
        let mut opcode = message.opcode() as u8;
        if is_compressed && !message.opcode().is_control() {
            payload = compress(&payload);
            opcode |= COMPRESSED;
        }
        let mut begun_bytes = 0;
        if !message.opcode().is_control() {
            for (cut, controls) in cuts {
                let end = begun_bytes + cut.index(payload.len() - begun_bytes + 1);
                self.bytes
                    .extend(frame(opcode, mask, &payload[begun_bytes..end]));
                for control in controls {
                    self.push(control, false, Vec::new(), mask);
                }
                begun_bytes = end;
                opcode = 0;
            }
        }
        self.bytes
            .extend(frame(0x80 | opcode, mask, &payload[begun_bytes..]));
        self.messages.push(message);
    }
}

/// As a client compresses a message, by another encoder than the server's.
fn compress(payload: &[u8]) -> Vec<u8> {
    let mut compressor = CompressorOxide::new(create_comp_flags_from_zip_params(6, 0, 0));
    let mut compressed = vec![0; 2 * payload.len() + 64];
    let flush = TDEFLFlush::Sync;
    let (_, taken_bytes, bytes) = core::compress(&mut compressor, payload, &mut compressed, flush);
    assert_eq!(taken_bytes, payload.len());
    compressed.truncate(bytes);
    let message = compressed.strip_suffix(&[0x00, 0x00, 0xFF, 0xFF]);
    message.expect("it was flushed").to_vec()
}

fn message() -> impl Strategy<Value = Owned> {
    prop_oneof![
        any::<String>().prop_map(Owned::Text),
        "[a-z\u{e9}\u{20ac}\u{1f980}]{100,300}".prop_map(Owned::Text),
        vec(any::<u8>(), 0..300).prop_map(Owned::Binary),
        (65_500..66_000_usize, any::<u8>())
            .prop_map(|(length, byte)| Owned::Binary(vec![byte; length])),
        control(),
    ]
}

fn control() -> impl Strategy<Value = Owned> {
    prop_oneof![
        vec(any::<u8>(), 0..=125).prop_map(Owned::Ping),
        vec(any::<u8>(), 0..=125).prop_map(Owned::Pong),
    ]
}

/// What a decoder makes of these bytes, given in pieces of these lengths, over and over.
pub fn decode_in_pieces(
    decoder: &mut Decoder,
    bytes: &[u8],
    piece_lengths: &[usize],
    limits: &Limits,
) -> (Vec<Owned>, Result<(), Violation>) {
    let mut messages = Vec::new();
    let mut inflater = Inflater::default();
    let mut bytes = bytes.to_vec();
    let mut rest = &mut bytes[..];
    for &piece_length in piece_lengths.iter().cycle() {
        let piece = rest.split_off_mut(..piece_length.min(rest.len())).unwrap();
        if let Err(violation) = decode(decoder, piece, limits, &mut inflater, &mut messages) {
            return (messages, Err(violation));
        }
        if rest.is_empty() {
            break;
        }
    }
    (messages, Ok(()))
}

fn decode(
    decoder: &mut Decoder,
    mut piece: &mut [u8],
    limits: &Limits,
    inflater: &mut Inflater,
    messages: &mut Vec<Owned>,
) -> Result<(), Violation> {
    loop {
        let (taken_bytes, message) = decoder.decode(piece, limits, inflater)?;
        let is_last = message.is_none();
        messages.extend(message.map(Owned::from));
        piece = &mut piece[taken_bytes..];
        if is_last {
            assert!(piece.is_empty(), "no message, and bytes left");
            assert_eq!(decoder.is_mid_message(), decoder.held_bytes() > 0);
            return Ok(());
        }
    }
}

/// What a new decoder makes of these bytes at once.
pub fn decode_at_once(bytes: &[u8]) -> (Vec<Owned>, Result<(), Violation>) {
    decode_in_pieces(&mut Decoder::default(), bytes, &[bytes.len()], &LIMITS)
}
