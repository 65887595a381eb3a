//! `slow`: a share of the readers stalls. The others are measured without and with that.

use std::io;

use clap::Args;

use super::record::Record;
use super::settings::{Common, FixedPace, LOAD, Load, share};
use super::stand::{Need, Stand};
use super::step::{self, Offer};
use crate::load::result::StepKind;

#[derive(Clone, Debug, Args)]
pub struct Slow {
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub pace: FixedPace,
    /// The share of each channel's subscribers that stalls
    #[arg(long, help_heading = LOAD, default_value = "0.5", value_parser = share)]
    pub stalled_share: f64,
    /// What each of them still reads in a second
    #[arg(long, help_heading = LOAD, default_value_t = 0)]
    pub stalled_bytes_per_second: u64,
    /// Receive buffer of every client: a stalled one is noticed when it is full
    #[arg(long, help_heading = LOAD, default_value_t = 4096)]
    pub receive_buffer_bytes: u32,
    #[command(flatten)]
    pub common: Common,
}

impl Slow {
    pub fn need(&self) -> Need {
        Need {
            receive_buffer_bytes: Some(self.receive_buffer_bytes),
            ..Need::of_load(&self.load)
        }
    }

    pub fn run(&self, stand: &mut Stand, record: &mut Record) -> io::Result<()> {
        step::open_and_warm_up(stand, record)?;
        let offer = |subscribers| Offer {
            kind: StepKind::Fixed,
            per_second: Some(self.pace.rate),
            seconds: self.pace.seconds,
            p99_ms_max: None,
            drain_seconds: None,
            subscribers,
        };
        let all = self.load.channels * self.load.subscribers;
        let measured = step::measure(stand, &offer(all), record)?;
        record.push(measured);
        if record.has_failed() {
            return Ok(());
        }
        let before = stand.server_resident_bytes()?;
        let of_channel = (self.load.subscribers as f64 * self.stalled_share).round() as u64;
        let stalled = self.load.channels * of_channel.min(self.load.subscribers);
        stand.crowd.stall(
            stalled as usize,
            self.load.channels as usize,
            self.stalled_bytes_per_second,
        )?;
        let mut measured = step::measure(stand, &offer(all - stalled), record)?;
        let after = stand.server_resident_bytes()?;
        if let Some(told) = &mut measured.step.stalled
            && let (Some(before), Some(after)) = (before, after)
        {
            let grown = after as i64 - before as i64;
            told.server_bytes_each = Some(grown / told.clients.max(1) as i64);
        }
        record.push(measured);
        Ok(())
    }
}
