//! A client's frame: header, unmasking in place and the check of its text.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use outpour::wire::websocket::{Decoder, Inflater};

#[path = "pieces/frame.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod frame;

use frame::{LIMITS, masked_text};

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

criterion_group!(benches, decode);
criterion_main!(benches);
