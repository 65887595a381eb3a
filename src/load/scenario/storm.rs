//! A storm: as many handshakes as a server takes, from the first packet to the last subscription.

use std::io;

use super::record::Record;
use super::stand::Stand;
use crate::load::machine::monotonic_ns;
use crate::load::orders::Glance;
use crate::load::result::{Joined, Storm, StormKind};

/// Opens all of `connections`, or breaks them and has them back.
pub fn raise(
    stand: &mut Stand,
    record: &mut Record,
    kind: StormKind,
    connections: usize,
) -> io::Result<Storm> {
    let cpu_before_ns = stand.server_cpu_ns()?;
    let began_ns = monotonic_ns();
    let mut progress = Vec::new();
    let watch = |glance: &Glance| {
        progress.push(Joined {
            at_ms: glance.at_ns.saturating_sub(began_ns) as f64 / 1e6,
            subscribed: glance.clients,
        });
        record.show_opening(kind.name(), glance, connections);
    };
    let settled = match kind {
        StormKind::Connect => stand.crowd.open(connections, None, watch)?,
        StormKind::Reconnect => stand.crowd.reconnect(connections, watch)?,
    };
    let cpu_ns = stand
        .server_cpu_ns()?
        .zip(cpu_before_ns)
        .map(|(after, before)| after.saturating_sub(before));
    Ok(Storm {
        kind,
        connections: settled.handshakes,
        failed: settled.failures,
        handshakes_per_s: settled.handshakes_per_second(),
        all_upgraded_ms: settled.greeted_ns.saturating_sub(settled.from_ns) as f64 / 1e6,
        all_subscribed_ms: settled.seconds() * 1e3,
        latency: settled.opened,
        server_cpu_us_per_handshake: cpu_ns
            .map(|ns| ns as f64 / 1e3 / settled.handshakes.max(1) as f64),
        progress,
    })
}
