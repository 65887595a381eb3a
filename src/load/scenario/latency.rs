//! `latency`: how late deliveries are at shares of the knee.

use std::io;

use clap::Args;

use super::record::Record;
use super::search::find_knee;
use super::settings::{Common, LOAD, Load, Search, positive, share};
use super::stand::{Need, Stand};
use super::step::{self, Offer};
use crate::load::result::StepKind;

#[derive(Clone, Debug, Args)]
pub struct Latency {
    #[command(flatten)]
    pub load: Load,
    /// Messages a second at the knee, if it is known; otherwise it is searched first
    #[arg(long, help_heading = LOAD, value_parser = positive)]
    pub knee: Option<f64>,
    /// The shares of the knee that are measured
    #[arg(
        long,
        help_heading = LOAD,
        value_delimiter = ',',
        default_value = "0.1,0.25,0.5,0.75,0.9,0.95",
        value_parser = share
    )]
    pub shares: Vec<f64>,
    /// Length of each measurement
    #[arg(long, help_heading = LOAD, default_value = "10", value_parser = positive)]
    pub seconds: f64,
    #[command(flatten)]
    pub search: Search,
    #[command(flatten)]
    pub common: Common,
}

impl Latency {
    pub fn need(&self) -> Need {
        Need::of_load(&self.load)
    }

    pub fn run(&self, stand: &mut Stand, record: &mut Record) -> io::Result<()> {
        let subscribers = self.load.channels * self.load.subscribers;
        step::open_and_warm_up(stand, record)?;
        let knee = match self.knee {
            Some(knee) => Some(knee),
            None => find_knee(stand, record, subscribers, &self.search, self.seconds)?,
        };
        let Some(knee) = knee else {
            return Ok(());
        };
        for of_knee in &self.shares {
            let offer = Offer {
                kind: StepKind::Share { of_knee: *of_knee },
                per_second: Some(knee * of_knee),
                seconds: self.seconds,
                p99_ms_max: None,
                drain_seconds: None,
                subscribers,
            };
            let measured = step::measure(stand, &offer, record)?;
            record.push(measured);
            if record.has_failed() {
                break;
            }
        }
        Ok(())
    }
}
