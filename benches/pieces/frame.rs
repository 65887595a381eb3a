//! A client's frame: masked, as it comes in.

use outpour::wire::websocket::Limits;

pub const LIMITS: Limits = Limits {
    message_bytes_max: 1 << 20,
    takes_compressed: false,
};

pub const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

pub fn masked_text(payload_bytes: usize) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(payload_bytes).expect("the payload is short") {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(
        std::iter::repeat_n(b'x', payload_bytes)
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}
