//! A storm: as many handshakes as a server takes, from the first packet to the last subscription.
//!
//! So many clients as the stand was told (`--at-once`) are on their way at a time, and the next one leaves when one of them
//! is subscribed: the server sets the pace, as long as the generator has time left. Where it has not, the rate is a lower
//! bound, and the storm's result says so ([`Storm::is_lower_bound`]).

use std::io;

use super::record::Record;
use super::saturation;
use super::stand::Stand;
use super::step;
use crate::load::machine::monotonic_ns;
use crate::load::orders::{Glance, Settled};
use crate::load::result::{Joined, Storm, StormKind};

/// The share of the connections whose time is told beside that of all.
const MOST: f64 = 0.95;

/// Opens all of `connections`, or breaks them and has them back.
pub fn raise(
    stand: &mut Stand,
    record: &mut Record,
    kind: StormKind,
    connections: usize,
) -> io::Result<Storm> {
    let cpu_before_ns = stand.server_cpu_ns()?;
    let threads_before = step::server_threads(stand)?;
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
    let busiest_ns = step::server_threads(stand)?
        .zip(threads_before)
        .and_then(|(after, before)| after.busiest_ns(&before));
    Ok(conclude(kind, &settled, cpu_ns, busiest_ns, progress))
}

/// `server_cpu_ns` and `busiest_ns` are the server's CPU time and that of its busiest thread, where they are known.
fn conclude(
    kind: StormKind,
    settled: &Settled,
    server_cpu_ns: Option<u64>,
    busiest_ns: Option<u64>,
    progress: Vec<Joined>,
) -> Storm {
    let wall_ns = settled.until_ns.saturating_sub(settled.from_ns);
    Storm {
        kind,
        connections: settled.handshakes,
        failed: settled.failures,
        handshakes_per_s: settled.handshakes_per_second(),
        all_upgraded_ms: settled.greeted_ns.saturating_sub(settled.from_ns) as f64 / 1e6,
        most_subscribed_ms: settled.joined.quantile_us(MOST).map(|us| us as f64 / 1e3),
        all_subscribed_ms: settled.seconds() * 1e3,
        latency: settled.opened.clone(),
        server_cpu_us_per_handshake: server_cpu_ns
            .map(|ns| ns as f64 / 1e3 / settled.handshakes.max(1) as f64),
        // The kernel tells a thread's time as of its last tick, and it is read some time after the end.
        server_busy_share: busiest_ns.map(|ns| (ns as f64 / wall_ns.max(1) as f64).min(1.0)),
        generator_busy_share: saturation::busiest_core(&settled.efforts, wall_ns),
        progress,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::orders::Effort;
    use crate::load::result::LatencyHistogram;

    /// 1,000 handshakes within a second, one a millisecond, but the last twenty of them at its end.
    fn settled(cpu_ns: u64) -> Settled {
        let mut joined = LatencyHistogram::new();
        for client in 1..=980 {
            joined.record_us(client * 500);
        }
        joined.record_many_us(1_000_000, 20);
        Settled {
            clients: 1_000,
            from_ns: 5_000_000_000,
            until_ns: 6_000_000_000,
            greeted_ns: 5_900_000_000,
            handshakes: 1_000,
            failures: 3,
            joined,
            efforts: vec![Effort { core: 1, cpu_ns }],
            ..Settled::default()
        }
    }

    fn concluded(cpu_ns: u64, busiest_ns: Option<u64>) -> Storm {
        let settled = settled(cpu_ns);
        conclude(
            StormKind::Connect,
            &settled,
            Some(20_000_000),
            busiest_ns,
            Vec::new(),
        )
    }

    #[test]
    fn a_generator_without_time_makes_the_rate_a_lower_bound_and_leaves_the_cpu_time() {
        let storm = concluded(960_000_000, Some(700_000_000));
        assert!(storm.is_lower_bound());
        assert_eq!(storm.generator_busy_share, Some(0.96));
        assert_eq!(storm.server_busy_share, Some(0.7));
        assert_eq!(storm.handshakes_per_s, 1_000.0);
        assert_eq!(storm.server_cpu_us_per_handshake, Some(20.0));
        assert_eq!(storm.failed, 3);
        let storm = concluded(940_000_000, None);
        assert!(!storm.is_lower_bound());
        assert_eq!(storm.server_busy_share, None);
    }

    #[test]
    fn most_are_in_long_before_the_few_that_were_sent_again() {
        let storm = concluded(100_000_000, Some(1_200_000_000));
        let most_ms = storm.most_subscribed_ms.unwrap();
        assert!((most_ms - 475.0).abs() < 1.0, "{most_ms}");
        assert_eq!(storm.all_subscribed_ms, 1_000.0);
        assert_eq!(storm.all_upgraded_ms, 900.0);
        assert_eq!(storm.server_busy_share, Some(1.0));
    }
}
