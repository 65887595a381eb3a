//! One shard over the simulated ring, with subscribers and a publisher: the engine without a kernel.

use std::sync::Arc;
use std::time::Duration;

use md5::{Digest, Md5};
use outpour::base::metrics::{Metric, Metrics};
use outpour::hub::apps::Apps;
use outpour::options::Options;
use outpour::ring::Ring;
use outpour::ring::simulated::{Network, Peer, SimulatedRing};
use outpour::shard::mesh::meshes;
use outpour::shard::turn::Begun;
use outpour::shard::{Engine, Setup, Shard};
use outpour::wire::signature::Signer;

const WALL_S: u64 = 1_700_000_000;
/// Of a socket: it takes everything between two reads.
const CAPACITY: usize = 1 << 20;

/// One shard with subscribers of one channel, and a publisher.
pub struct World {
    network: Network,
    shard: Shard<SimulatedRing>,
    metrics: Metrics,
    subscribers: Vec<Peer>,
    publisher: Peer,
    request: Vec<u8>,
    now_us: u64,
}

impl World {
    pub fn new(subscribers: usize) -> World {
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
        // The simulation refuses accepts now and then, and the shard then waits before it tries again.
        world.turn_until(Metric::Subscriptions, subscribers as u64, 1_000);
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
    pub fn publish(&mut self) {
        let subscribers = self.subscribers.len() as u64;
        let due = self.metrics.read(Metric::Deliveries) + subscribers;
        self.network.write(self.publisher, &self.request);
        // So slowly that nobody is idle for too long.
        self.turn_until(Metric::Deliveries, due, 1);
        for peer in &self.subscribers {
            self.network.read(*peer, usize::MAX);
        }
        self.network.read(self.publisher, usize::MAX);
    }

    fn turn_until(&mut self, metric: Metric, due: u64, turn_us: u64) {
        while self.metrics.read(metric) < due {
            self.now_us += turn_us;
            let begun = self.begin();
            let entered = self
                .shard
                .ring
                .enter(&self.shard.engine.batch(), begun.wait);
            entered.expect("the simulated ring does not fail");
            self.finish(begun);
        }
    }

    /// The engine's part of a turn before the ring's; apart, so that it can be counted by its name.
    #[inline(never)]
    fn begin(&mut self) -> Begun {
        let now = Duration::from_micros(self.now_us);
        self.shard.begin(now, WALL_S, false)
    }

    /// The engine's part after the ring's.
    #[inline(never)]
    fn finish(&mut self, begun: Begun) {
        self.shard.finish(begun);
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
