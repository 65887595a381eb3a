//! From a published request to the last subscriber, over the simulated ring: what the engine and the
//! simulation cost without a kernel.

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use md5::{Digest, Md5};
use outpour::base::metrics::{Metric, Metrics};
use outpour::hub::apps::Apps;
use outpour::options::Options;
use outpour::ring::simulated::{Network, Peer, SimulatedRing};
use outpour::shard::mesh::meshes;
use outpour::shard::{Engine, Setup, Shard};
use outpour::wire::signature::Signer;

const WALL_S: u64 = 1_700_000_000;
/// Of a socket: it takes everything between two reads.
const CAPACITY: usize = 1 << 20;

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

/// One shard with subscribers of one channel, and a publisher.
struct World {
    network: Network,
    shard: Shard<SimulatedRing>,
    metrics: Metrics,
    subscribers: Vec<Peer>,
    publisher: Peer,
    request: Vec<u8>,
    now_us: u64,
}

impl World {
    fn new(subscribers: usize) -> World {
        let options = Arc::new(Options::default());
        let metrics = Metrics::default();
        let network = Network::new(1, 1);
        let setup = Setup {
            index: 0,
            apps: Arc::new(Apps::new(&options)),
            options,
            seed: 1,
            connections_max: subscribers as u32 + 64,
            edge: None,
            mesh: meshes(1).remove(0),
            metrics: [metrics.clone()].into(),
        };
        let shard = Shard {
            ring: network.ring(0),
            engine: Engine::new(setup, 0),
        };
        let publisher = network.connect_with_capacity(0, CAPACITY);
        let mut world = World {
            network,
            shard,
            metrics,
            subscribers: Vec::new(),
            publisher,
            request: publish_request(),
            now_us: 0,
        };
        for _ in 0..subscribers {
            world.subscribe();
        }
        world.turn_until(Metric::Subscriptions, subscribers as u64);
        world
    }

    fn subscribe(&mut self) {
        let peer = self.network.connect_with_capacity(0, CAPACITY);
        let text = br#"{"event":"pusher:subscribe","data":{"channel":"room"}}"#;
        let mut bytes =
            b"GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                .to_vec();
        bytes.extend([0x81, 0x80 | text.len() as u8, 0, 0, 0, 0]);
        bytes.extend(text);
        self.network.write(peer, &bytes);
        self.subscribers.push(peer);
    }

    /// Publishes one event and turns until every subscriber has it.
    fn publish(&mut self) {
        let subscribers = self.subscribers.len() as u64;
        let due = self.metrics.read(Metric::Deliveries) + subscribers;
        self.network.write(self.publisher, &self.request);
        self.turn_until(Metric::Deliveries, due);
        for peer in &self.subscribers {
            self.network.read(*peer, usize::MAX);
        }
        self.network.read(self.publisher, usize::MAX);
    }

    fn turn_until(&mut self, metric: Metric, due: u64) {
        while self.metrics.read(metric) < due {
            // So slowly that nobody is idle for too long.
            self.now_us += 1;
            let now = Duration::from_micros(self.now_us);
            let turned = self.shard.turn(now, WALL_S, false);
            turned.expect("the simulated ring does not fail");
        }
    }
}

fn publish_request() -> Vec<u8> {
    let body = format!(
        r#"{{"name":"n","channel":"room","data":"{}"}}"#,
        "x".repeat(128)
    );
    let digest = Md5::digest(&body);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let query =
        format!("auth_key=app-key&auth_timestamp={WALL_S}&auth_version=1.0&body_md5={digest}");
    let signed = format!("POST\n/apps/1001/events\n{query}");
    let signature = Signer::new(b"app-secret").sign(&[signed.as_bytes()]);
    let signature = String::from_utf8_lossy(&signature);
    let length = body.len();
    format!(
        "POST /apps/1001/events?{query}&auth_signature={signature} HTTP/1.1\r\nHost: here\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

criterion_group!(benches, sweep);
criterion_main!(benches);
