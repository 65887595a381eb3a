//! The one encode of a publish: header and envelope around tokens.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use outpour::hub::variant::{Encoder, Variant};
use outpour::wire::websocket::Deflater;

#[path = "pieces/event.rs"]
mod event;

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame encode");
    for data_bytes in [32, 128, 1_024, 10_240] {
        let data = event::data(data_bytes);
        let event = event::event(&data);
        group.throughput(Throughput::Bytes(data_bytes as u64));
        group.bench_function(format!("{data_bytes} bytes"), |bencher| {
            let mut encoder = Encoder::new(Deflater::new(6, 512));
            let mut frame = Vec::new();
            bencher.iter(|| {
                frame.clear();
                encoder.encode(Variant::Plain, black_box(&event), &mut frame);
                frame.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
