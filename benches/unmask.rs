//! A client's payload, unmasked where it lies.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use outpour::wire::websocket;

#[path = "pieces/frame.rs"]
#[allow(dead_code, reason = "each program uses its part")]
mod frame;

fn unmask(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    for payload_bytes in [32, 128, 1_024, 16_384] {
        let mut payload = vec![b'x'; payload_bytes];
        group.throughput(Throughput::Bytes(payload_bytes as u64));
        group.bench_function(format!("{payload_bytes} bytes"), |bencher| {
            bencher.iter(|| {
                websocket::unmask(black_box(&mut payload), frame::MASK);
                payload[0]
            });
        });
    }
    group.finish();
}

criterion_group!(benches, unmask);
criterion_main!(benches);
