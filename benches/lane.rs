//! A letter through a lane, beside crossbeam's bounded queue as the yardstick.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use outpour::base::lane::lane;
use outpour::base::limits::LANE_LETTERS;

/// As large as the largest letter.
type Letter = [u64; 10];

/// Letters that are posted before any is read.
const LETTERS: usize = 64;

fn pass(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lane");
    group.throughput(Throughput::Elements(LETTERS as u64));
    let (mut sender, mut receiver) = lane::<Letter>(LANE_LETTERS);
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            for number in 0..LETTERS {
                assert!(sender.push([number as u64; 10]).is_ok());
            }
            while let Some(letter) = receiver.pop() {
                black_box(letter);
            }
        });
    });
    let queue = ArrayQueue::<Letter>::new(LANE_LETTERS);
    group.bench_function("crossbeam", |bencher| {
        bencher.iter(|| {
            for number in 0..LETTERS {
                assert!(queue.push([number as u64; 10]).is_ok());
            }
            while let Some(letter) = queue.pop() {
                black_box(letter);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, pass);
criterion_main!(benches);
