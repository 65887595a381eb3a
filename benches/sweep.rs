//! From a published request to the last subscriber, over the simulated ring: what the engine and the
//! simulation cost without a kernel.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[path = "pieces/world.rs"]
mod world;

use world::World;

fn sweep(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sweep");
    group.sample_size(20);
    for subscribers in [100, 1_000] {
        let mut world = World::new(subscribers);
        group.throughput(Throughput::Elements(subscribers as u64));
        group.bench_function(format!("{subscribers} subscribers"), |bencher| {
            bencher.iter(|| world.publish());
        });
    }
    group.finish();
}

criterion_group!(benches, sweep);
criterion_main!(benches);
