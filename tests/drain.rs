//! A drain that begins while clients wait for a channel's home on another shard, over a simulated network: so
//! that the home can be kept from answering.

#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::sync::Arc;
use std::time::Duration;

use outpour::base::metrics::Metrics;
use outpour::hub::apps::Apps;
use outpour::options::Options;
use outpour::ring::simulated::{AMPLE_BYTES, Network, Peer, Read, SimulatedRing};
use outpour::shard::Shard;

#[allow(dead_code, reason = "each test uses its part")]
mod raw;
mod simulated;

use raw::{TEXT, masked, subscription};

const SHARDS: u16 = 2;
const WALL_S: u64 = 1_700_000_000;
const CHANNELS: usize = 16;
/// Turns in which everything that is under way arrives, whatever the seed draws.
const TURNS: usize = 400;
/// The close code 4200, as it stands in its frame.
const TOLD: &str = "\x10\x68";

/// Broken on purpose: with a drain that passes over those who wait, they were not told, and their timer of old held.
#[test]
fn whoever_waits_for_a_home_when_the_drain_begins_is_answered_and_then_told_to_come_back() {
    for by_address in [false, true] {
        let mut world = World::new();
        // Of so many cache channels, which ask their homes, some have it on the other shard.
        let peers: Vec<Peer> = (0..CHANNELS)
            .map(|number| world.subscribe(&format!("cache-{number}"), by_address))
            .collect();
        world.turn(&[0], 1);
        world.shards[0].engine.begin_drain(1_000);
        // The other shard stands still, for longer than the closing is spread over.
        world.turn(&[0], 10);
        let waiting: Vec<Peer> = peers
            .iter()
            .copied()
            .filter(|peer| !world.said(*peer).contains("subscription_succeeded"))
            .collect();
        assert!(!waiting.is_empty() && waiting.len() < peers.len());
        for peer in &waiting {
            assert!(!world.said(*peer).contains(TOLD), "it is answered first");
        }
        world.turn(&[0, 1], 2);
        for peer in waiting {
            let said = world.said(peer);
            let answered = said.find("subscription_succeeded").expect("it is answered");
            let told = said.find(TOLD).expect("it is told");
            assert!(answered < told, "{said}");
        }
    }
}

struct World {
    network: Network,
    shards: Vec<Shard<SimulatedRing>>,
    now_ms: u64,
    heard: Vec<(Peer, Vec<u8>)>,
}

impl World {
    fn new() -> World {
        let options = Arc::new(Options::default());
        let apps = Arc::new(Apps::new(&options));
        let metrics: Vec<Metrics> = (0..SHARDS).map(|_| Metrics::default()).collect();
        let metrics = Arc::<[Metrics]>::from(metrics);
        let network = Network::new(1, SHARDS);
        let shards = simulated::shards(&network, 1, &options, &apps, &metrics, Vec::new());
        World {
            shards,
            network,
            now_ms: 0,
            heard: Vec::new(),
        }
    }

    fn subscribe(&mut self, channel: &str, by_address: bool) -> Peer {
        let query = match by_address {
            true => format!("&subscribe={channel}"),
            false => String::new(),
        };
        let mut bytes = format!(
            "GET /app/app-key?protocol=7{query} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .into_bytes();
        if !by_address {
            bytes.extend(masked(TEXT, subscription(channel).as_bytes()));
        }
        let peer = self.network.connect_with_capacity(0, AMPLE_BYTES);
        self.network.write(peer, &bytes);
        self.heard.push((peer, Vec::new()));
        peer
    }

    /// So many seconds of these shards, while everybody reads.
    fn turn(&mut self, shards: &[usize], seconds: u64) {
        for _ in 0..TURNS {
            self.now_ms += seconds * 1000 / TURNS as u64;
            for shard in shards {
                let now = Duration::from_millis(self.now_ms);
                self.shards[*shard].turn(now, WALL_S, false).unwrap();
            }
            for (peer, heard) in &mut self.heard {
                if let Read::Bytes(bytes) = self.network.read(*peer, AMPLE_BYTES) {
                    heard.extend(bytes);
                }
            }
        }
    }

    fn said(&self, peer: Peer) -> String {
        let heard = self.heard.iter().find(|(other, _)| *other == peer);
        String::from_utf8_lossy(&heard.expect("it is one of them").1).into_owned()
    }
}
