//! `fanout`: channels with subscribers, and messages to all of them.

use std::io;

use clap::Args;

use super::record::Record;
use super::search::{find_knee, find_sustained, revisit_knee};
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
        for rate in &self.pace.rate {
            let per_second = match rate {
                Rate::Knee => {
                    let seconds = self.pace.seconds;
                    find_knee(stand, record, subscribers, &self.search, seconds)?;
                    if self.search.sustained_p99_ms_max > 0.0 && !record.has_failed() {
                        find_sustained(stand, record, subscribers, &self.search, seconds)?;
                        if !record.has_failed() {
                            revisit_knee(stand, record, subscribers, &self.search, seconds)?;
                        }
                    }
                    continue;
                }
                Rate::Max => None,
                Rate::PerSecond(per_second) => Some(*per_second),
            };
            let offer = Offer {
                kind: StepKind::Fixed,
                per_second,
                seconds: self.pace.seconds,
                p99_ms_max: None,
                drain_seconds: self.pace.drain_seconds.filter(|_| per_second.is_none()),
                subscribers,
            };
            let measured = step::measure(stand, &offer, record)?;
            record.push(measured);
        }
        Ok(())
    }
}
