//! JSON as it comes in: the body of a publish, and the messages of clients.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use outpour::wire::api::{EventLimits, parse_event};
use outpour::wire::pusher::parse_client_message;

const LIMITS: EventLimits = EventLimits {
    data_bytes_max: 10_240,
    channels_per_event_max: 100,
    batch_events_max: 10,
    channel_name_bytes_max: 200,
    event_name_characters_max: 200,
};

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("envelope");
    let data = r#"{\"text\":\"hello\",\"number\":12345}"#;
    let body = format!(r#"{{"name":"message","channels":["room-12345"],"data":"{data}"}}"#);
    group.bench_function("publish", |bencher| {
        bencher.iter(|| {
            let event = parse_event(black_box(body.as_bytes()), None, &LIMITS);
            event.expect("the body is right").channels.len()
        });
    });
    let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"room-12345","auth":""}}"#;
    let trigger = r#"{"event":"client-typing","channel":"private-room","data":{"is":true}}"#;
    for (name, text) in [("subscribe", subscribe), ("client event", trigger)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| parse_client_message(black_box(text)).is_ok());
        });
    }
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
