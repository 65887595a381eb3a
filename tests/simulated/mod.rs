//! Shards over one simulated network, for tests that drive them turn by turn.

use std::sync::Arc;

use outpour::base::metrics::Metrics;
use outpour::hub::apps::Apps;
use outpour::options::Options;
use outpour::ring::simulated::{Network, SimulatedRing};
use outpour::shard::edge_link::EdgeLink;
use outpour::shard::mesh::meshes;
use outpour::shard::{Engine, Setup, Shard};

const CONNECTIONS_MAX: u32 = 128;

/// As many shards as there are `metrics`; the first of them have the `links` to the edge thread.
pub fn shards(
    network: &Network,
    seed: u64,
    options: &Arc<Options>,
    apps: &Arc<Apps>,
    metrics: &Arc<[Metrics]>,
    links: Vec<EdgeLink>,
) -> Vec<Shard<SimulatedRing>> {
    let mut links = links.into_iter();
    let shards = meshes(metrics.len()).into_iter().zip(0..);
    let shards = shards.map(|(mesh, index)| {
        let setup = Setup {
            index,
            options: options.clone(),
            apps: apps.clone(),
            seed: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            connections_max: CONNECTIONS_MAX,
            edge: links.next(),
            mesh,
            metrics: metrics.clone(),
        };
        Shard {
            ring: network.ring(index),
            engine: Engine::new(setup, 0),
        }
    });
    shards.collect()
}
