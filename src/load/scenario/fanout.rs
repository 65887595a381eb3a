//! `fanout`: channels with subscribers, and messages to all of them.

use std::io;

use clap::Args;

use super::record::Record;
use super::search::find_knee;
use super::settings::{Common, Load, Pace, Rate, Search};
use super::stand::{Need, Stand};
use super::step::{self, Offer};
use crate::load::result::StepKind;

#[derive(Clone, Debug, Args)]
pub struct Fanout {
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub pace: Pace,
    #[command(flatten)]
    pub search: Search,
    #[command(flatten)]
    pub common: Common,
}

impl Fanout {
    pub fn need(&self) -> Need {
        Need::of_load(&self.load)
    }

    pub fn run(&self, stand: &mut Stand, record: &mut Record) -> io::Result<()> {
        let subscribers = self.load.channels * self.load.subscribers;
        step::open_and_warm_up(stand, record)?;
        let per_second = match self.pace.rate {
            Rate::Knee => {
                find_knee(stand, record, subscribers, &self.search, self.pace.seconds)?;
                return Ok(());
            }
            Rate::Max => None,
            Rate::PerSecond(per_second) => Some(per_second),
        };
        let offer = Offer {
            kind: StepKind::Fixed,
            per_second,
            seconds: self.pace.seconds,
            p99_ms_max: None,
            subscribers,
        };
        let measured = step::measure(stand, &offer, record)?;
        record.push(measured);
        Ok(())
    }
}
