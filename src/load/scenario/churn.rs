//! `churn`: guests come and go while the others are served. Measured without and with them.

use std::io;

use clap::Args;

use super::record::Record;
use super::settings::{Common, FixedPace, LOAD, Load, positive};
use super::stand::{self, Need, Stand};
use super::step::{self, Offer};
use crate::load::result::StepKind;

#[derive(Clone, Debug, Args)]
pub struct Churn {
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub pace: FixedPace,
    /// Guests that come in a second; as many leave
    #[arg(long, help_heading = LOAD, default_value = "200", value_parser = positive)]
    pub joins_per_second: f64,
    /// Guests that are there at once
    #[arg(long, help_heading = LOAD, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub guests: u64,
    #[command(flatten)]
    pub common: Common,
}

impl Churn {
    pub fn need(&self) -> Need {
        Need {
            guests: stand::seats(self.guests, self.joins_per_second),
            ..Need::of_load(&self.load)
        }
    }

    pub fn run(&self, stand: &mut Stand, record: &mut Record) -> io::Result<()> {
        step::open_and_warm_up(stand, record)?;
        let offer = Offer {
            kind: StepKind::Fixed,
            per_second: Some(self.pace.rate),
            seconds: self.pace.seconds,
            p99_ms_max: None,
            drain_seconds: None,
            subscribers: self.load.channels * self.load.subscribers,
        };
        let measured = step::measure(stand, &offer, record)?;
        record.push(measured);
        if record.has_failed() {
            return Ok(());
        }
        stand
            .crowd
            .churn(self.joins_per_second, self.guests as usize)?;
        let measured = step::measure(stand, &offer, record)?;
        stand.crowd.churn(0.0, 0)?;
        record.push(measured);
        Ok(())
    }
}
