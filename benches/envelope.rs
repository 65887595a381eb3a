//! JSON as it comes in: the body of a publish, and the messages of clients.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use outpour::wire::api::parse_event;
use outpour::wire::pusher::parse_client_message;

#[path = "pieces/envelope.rs"]
mod envelope;

use envelope::{CLIENT_EVENT, LIMITS, PUBLISH, SUBSCRIBE};

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("envelope");
    group.bench_function("publish", |bencher| {
        bencher.iter(|| {
            let event = parse_event(black_box(PUBLISH.as_bytes()), None, &LIMITS);
            event.expect("the body is right").channels.len()
        });
    });
    for (name, text) in [("subscribe", SUBSCRIBE), ("client event", CLIENT_EVENT)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| parse_client_message(black_box(text)).is_ok());
        });
    }
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
