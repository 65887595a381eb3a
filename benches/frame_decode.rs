//! A client's frame: header, unmasking in place and the check of its text.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use outpour::wire::websocket::{Decoder, Inflater, Limits};

const LIMITS: Limits = Limits {
    message_bytes_max: 1 << 20,
    takes_compressed: false,
};

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame decode");
    for payload_bytes in [32, 128, 1_024, 16_384] {
        let frame = masked_text(payload_bytes);
        group.throughput(Throughput::Bytes(payload_bytes as u64));
        group.bench_function(format!("{payload_bytes} bytes"), |bencher| {
            let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
            bencher.iter_batched_ref(
                || frame.clone(),
                |frame| {
                    let decoded = decoder.decode(frame, &LIMITS, &mut inflater);
                    black_box(decoded.expect("the frame is right").0)
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn masked_text(payload_bytes: usize) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = vec![0x81];
    match u16::try_from(payload_bytes).expect("the payload is short") {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(
        std::iter::repeat_n(b'x', payload_bytes)
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

criterion_group!(benches, decode);
criterion_main!(benches);
