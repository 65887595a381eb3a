//! `idle`: what connections cost that do nothing. Memory is a slope over several numbers of them,
//! so that what the server holds anyway is in none of it.

use std::io;
use std::thread;
use std::time::Duration;

use clap::Args;

use super::record::Record;
use super::settings::{Common, LOAD, positive};
use super::stand::{Need, Stand};
use crate::load::machine::{self, monotonic_ns};
use crate::load::orders::Manner;
use crate::load::result::{Memory, MemoryReading};

/// Connections that come and go before the first reading: what is allocated once is then there.
const WARM_UP: usize = 500;

#[derive(Clone, Debug, Args)]
pub struct Idle {
    /// Numbers of connections at which memory is read, ascending
    #[arg(
        long,
        help_heading = LOAD,
        value_delimiter = ',',
        default_value = "2500,5000,10000,15000,19000"
    )]
    pub connections: Vec<u64>,
    /// Memory is read so long after the last change
    #[arg(long, help_heading = LOAD, default_value = "2", value_parser = positive)]
    pub settle_seconds: f64,
    /// How long the silence of all connections is listened to
    #[arg(long, help_heading = LOAD, default_value = "10", value_parser = positive)]
    pub seconds: f64,
    #[command(flatten)]
    pub common: Common,
}

impl Idle {
    pub fn need(&self) -> Need {
        Need::silent(self.most())
    }

    fn most(&self) -> usize {
        self.connections.iter().copied().max().unwrap_or(0) as usize
    }

    pub fn run(&self, stand: &mut Stand, record: &mut Record) -> io::Result<()> {
        let settle = Duration::from_secs_f64(self.settle_seconds);
        let is_here = stand.is_local();
        stand.crowd.open(WARM_UP.min(self.most()), None, |_| {})?;
        stand.crowd.close(0, Manner::Orderly)?;
        thread::sleep(settle);
        let mut readings = Vec::new();
        for connections in &self.connections {
            stand.crowd.open(*connections as usize, None, |_| {})?;
            thread::sleep(settle);
            readings.push(MemoryReading {
                connections: *connections,
                server_rss_bytes: stand.server_resident_bytes()?,
                generator_rss_bytes: stand.generator_resident_bytes()?,
                kernel_slab_bytes: machine::slab_bytes().filter(|_| is_here),
            });
        }
        let idle_busy_share = listen(stand, Duration::from_secs_f64(self.seconds))?;
        record.keep_memory(Memory {
            server_bytes_per_connection: slope(&readings, |reading| reading.server_rss_bytes),
            generator_bytes_per_connection: slope(&readings, |reading| {
                Some(reading.generator_rss_bytes)
            })
            .unwrap_or(0.0),
            kernel_slab_bytes_per_connection: slope(&readings, |reading| reading.kernel_slab_bytes),
            idle_busy_share,
            readings,
        });
        Ok(())
    }
}

/// The server's share of one core while nothing happens.
fn listen(stand: &Stand, length: Duration) -> io::Result<Option<f64>> {
    let (before_ns, start_ns) = (stand.server_cpu_ns()?, monotonic_ns());
    thread::sleep(length);
    let cpu_ns = stand.server_cpu_ns()?.zip(before_ns);
    let wall_ns = monotonic_ns() - start_ns;
    Ok(cpu_ns.map(|(after, before)| after.saturating_sub(before) as f64 / wall_ns as f64))
}

/// The growth of a figure with connections, by least squares; none where it is not known, or with
/// one size alone.
fn slope(
    readings: &[MemoryReading],
    figure: impl Fn(&MemoryReading) -> Option<u64>,
) -> Option<f64> {
    let points: Option<Vec<(f64, f64)>> = readings
        .iter()
        .map(|reading| Some((reading.connections as f64, figure(reading)? as f64)))
        .collect();
    let points = points?;
    let count = points.len() as f64;
    let mean_x = points.iter().map(|point| point.0).sum::<f64>() / count;
    let mean_y = points.iter().map(|point| point.1).sum::<f64>() / count;
    let (mut rise, mut run) = (0.0, 0.0);
    for (x, y) in points {
        rise += (x - mean_x) * (y - mean_y);
        run += (x - mean_x) * (x - mean_x);
    }
    (run > 0.0).then(|| rise / run)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(connections: u64, server_rss_bytes: Option<u64>) -> MemoryReading {
        MemoryReading {
            connections,
            server_rss_bytes,
            generator_rss_bytes: 0,
            kernel_slab_bytes: None,
        }
    }

    #[test]
    fn the_slope_holds_nothing_of_what_is_there_anyway() {
        let readings = [
            reading(1_000, Some(5_200_000)),
            reading(2_000, Some(5_400_000)),
            reading(4_000, Some(5_800_000)),
        ];
        let bytes = slope(&readings, |reading| reading.server_rss_bytes).unwrap();
        assert!((bytes - 200.0).abs() < 1e-6);
        assert_eq!(slope(&readings, |reading| reading.kernel_slab_bytes), None);
        assert_eq!(
            slope(&readings[..1], |reading| reading.server_rss_bytes),
            None
        );
    }
}
