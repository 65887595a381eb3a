//! `idle`: what connections cost that do nothing. Memory is a slope over several numbers of them,
//! so that what the server holds anyway is in none of it, and the growth from the server without any connection, in which
//! all is that they make it hold. Each growth of their number is a storm.

use std::io;
use std::thread;
use std::time::Duration;

use clap::Args;

use super::record::Record;
use super::settings::{Common, Haste, LOAD, positive};
use super::stand::{Need, Stand};
use super::step::SILENT_WITHIN;
use super::storm;
use crate::load::machine::{self, monotonic_ns};
use crate::load::result::{Memory, MemoryReading, StormKind};

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
    /// How often so many connections as the first number break then, all in one turn, and come back
    #[arg(long, help_heading = LOAD, default_value_t = 0)]
    pub reconnects: u64,
    #[command(flatten)]
    pub haste: Haste,
    #[command(flatten)]
    pub common: Common,
}

impl Idle {
    pub fn need(&self) -> Need {
        Need::silent(self.most(), self.haste.at_once as usize)
    }

    fn most(&self) -> usize {
        self.connections.iter().copied().max().unwrap_or(0) as usize
    }

    pub fn run(&self, stand: &mut Stand, record: &mut Record) -> io::Result<()> {
        let settle = Duration::from_secs_f64(self.settle_seconds);
        thread::sleep(settle);
        let mut readings = vec![read(stand, 0)?];
        for connections in &self.connections {
            let storm = storm::raise(stand, record, StormKind::Connect, *connections as usize)?;
            record.push_storm(storm);
            thread::sleep(settle);
            readings.push(read(stand, *connections)?);
        }
        let idle_busy_share = listen(stand, Duration::from_secs_f64(self.seconds))?;
        let first = self.connections.first().copied().unwrap_or(0) as usize;
        for _ in 0..self.reconnects {
            let storm = storm::raise(stand, record, StormKind::Reconnect, first)?;
            record.push_storm(storm);
        }
        record.keep_memory(Memory {
            server_bytes_per_connection: slope(&readings, |reading| reading.server_own_bytes),
            server_bytes_per_connection_from_none: growth(&readings),
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
fn listen(stand: &mut Stand, length: Duration) -> io::Result<Option<f64>> {
    let (before_ns, start_ns) = (stand.server_cpu_ns()?, monotonic_ns());
    let mut left = length;
    while !left.is_zero() {
        let part = left.min(SILENT_WITHIN);
        thread::sleep(part);
        stand.crowd.keep_alive(SILENT_WITHIN)?;
        left -= part;
    }
    let cpu_ns = stand.server_cpu_ns()?.zip(before_ns);
    let wall_ns = monotonic_ns() - start_ns;
    Ok(cpu_ns.map(|(after, before)| after.saturating_sub(before) as f64 / wall_ns as f64))
}

fn read(stand: &Stand, connections: u64) -> io::Result<MemoryReading> {
    Ok(MemoryReading {
        connections,
        server_rss_bytes: stand.server_resident_bytes()?,
        server_own_bytes: stand.server_own_bytes()?,
        generator_rss_bytes: stand.generator_resident_bytes()?,
        kernel_slab_bytes: machine::slab_bytes().filter(|_| stand.is_local()),
    })
}

/// The server's growth from no connection to the most of them, for each of these.
fn growth(readings: &[MemoryReading]) -> Option<f64> {
    let (none, most) = (readings.first()?, readings.last()?);
    let grown = most.server_own_bytes? as f64 - none.server_own_bytes? as f64;
    (most.connections > 0).then(|| grown / most.connections as f64)
}

/// The growth of a figure with connections, by least squares; none where it is not known, or with
/// one size alone. What comes with the first of them is in none of it.
fn slope(
    readings: &[MemoryReading],
    figure: impl Fn(&MemoryReading) -> Option<u64>,
) -> Option<f64> {
    let points: Option<Vec<(f64, f64)>> = readings
        .iter()
        .filter(|reading| reading.connections > 0)
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

    fn reading(connections: u64, own_bytes: u64) -> MemoryReading {
        MemoryReading {
            connections,
            server_rss_bytes: None,
            server_own_bytes: Some(own_bytes),
            generator_rss_bytes: 0,
            kernel_slab_bytes: None,
        }
    }

    #[test]
    fn the_slope_holds_nothing_of_what_is_there_anyway_and_the_growth_what_the_first_bring() {
        let readings = [
            reading(0, 3_000_000),
            reading(1_000, 5_200_000),
            reading(2_000, 5_400_000),
            reading(4_000, 5_800_000),
        ];
        let bytes = slope(&readings, |reading| reading.server_own_bytes).unwrap();
        assert!((bytes - 200.0).abs() < 1e-6);
        assert_eq!(slope(&readings, |reading| reading.kernel_slab_bytes), None);
        let one_size = slope(&readings[..2], |reading| reading.server_own_bytes);
        assert_eq!(one_size, None);
        assert_eq!(growth(&readings), Some(700.0));
        assert_eq!(growth(&readings[..1]), None);
    }
}
