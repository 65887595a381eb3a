//! A frame into a channel's log, and out of it when everybody has it.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use outpour::hub::log::Log;

/// Bytes that subscribers still need, so that the log has to move on.
const HELD_BYTES: u64 = 64 << 10;

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log append");
    for frame_bytes in [174, 1_024, 10_240] {
        let frame = vec![7; frame_bytes];
        group.throughput(Throughput::Bytes(frame_bytes as u64));
        group.bench_function(format!("{frame_bytes} bytes"), |bencher| {
            let mut log = Log::default();
            bencher.iter(|| {
                log.append(&frame, [frame.len()].into_iter(), 0);
                log.trim(log.head().saturating_sub(HELD_BYTES));
                log.tail()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
