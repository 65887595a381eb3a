//! WebSocket frames as a client writes and reads them.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, OpCode};

use super::Fault;

/// The longest frame that a server may send; nothing that is measured comes near.
const FRAME_BYTES_MAX: u64 = 16 << 20;

/// A client's frame. Its mask is zero, so that masking costs the client nothing; the server has to unmask it all
/// the same.
pub fn append_masked(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let header = FrameHeader {
        opcode,
        mask: Some([0; 4]),
        ..FrameHeader::default()
    };
    let length = payload.len() as u64;
    header
        .format(length, out)
        .expect("a vector takes every write");
    out.extend_from_slice(payload);
}

/// A client's close frame: all is well (RFC 6455, section 7.4.1).
pub fn append_close(out: &mut Vec<u8>) {
    append_masked(
        out,
        OpCode::Control(Control::Close),
        &1000_u16.to_be_bytes(),
    );
}

/// A whole frame of a server.
pub struct Frame<'a> {
    pub opcode: OpCode,
    pub payload: &'a [u8],
    /// Header and payload.
    pub length: usize,
}

/// The first frame in `bytes`; `None` while it is incomplete.
pub fn first(bytes: &[u8]) -> Result<Option<Frame<'_>>, Fault> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|error| Fault(error.to_string()))?;
    let Some((header, length)) = parsed else {
        return Ok(None);
    };
    if header.mask.is_some() || header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(Fault(
            "a server's frame that is masked or has reserved bits".to_owned(),
        ));
    }
    if !header.is_final || length > FRAME_BYTES_MAX {
        return Err(Fault(format!("a fragment, or too long: {length} bytes")));
    }
    let start = cursor.position() as usize;
    let end = start + length as usize;
    Ok(bytes.get(start..end).map(|payload| Frame {
        opcode: header.opcode,
        payload,
        length: end,
    }))
}

/// Why a server closes, from the payload of its close frame.
pub fn close_words(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => format!(
            "close {} {}",
            u16::from_be_bytes([*high, *low]),
            String::from_utf8_lossy(reason)
        ),
        _ => "close without a code".to_owned(),
    }
}
