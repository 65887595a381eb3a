//! `presence`: channels whose members are told of each other. How long it takes until all are in,
//! how messages fare, and how they fare while members come and go.

use std::io;

use clap::Args;

use super::record::Record;
use super::settings::{Common, FixedPace, LOAD, Load, PublishBy};
use super::stand::{self, Need, Stand};
use super::step::{self, Offer};
use super::storm;
use crate::load::orders::{Access, Channels};
use crate::load::result::{StepKind, StormKind};

#[derive(Clone, Debug, Args)]
pub struct Presence {
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub pace: FixedPace,
    /// Members that come in a second while as many leave, over all channels
    #[arg(long, help_heading = LOAD, default_value = "20", value_parser = super::settings::positive)]
    pub joins_per_second: f64,
    /// Members that are there at once of those that come and go
    #[arg(long, help_heading = LOAD, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub guests: u64,
    #[command(flatten)]
    pub common: Common,
}

impl Presence {
    pub fn need(&self) -> Need {
        let need = Need::of_load(&self.load);
        let seats = stand::seats(self.guests, self.joins_per_second);
        let users = (need.clients_max + seats) as u64;
        let access = Access::Presence { users };
        let channels = match need.channels {
            Channels::Shared { name, count, .. } => Channels::Shared {
                access,
                name,
                count,
            },
            other @ (Channels::None | Channels::Own { .. }) => other,
        };
        Need {
            channels,
            guests: seats,
            ..need
        }
    }

    pub fn run(&self, stand: &mut Stand, record: &mut Record) -> io::Result<()> {
        if self.load.publish_by != PublishBy::Http {
            return Err(io::Error::other(
                "presence publishes over HTTP: client events carry a user there, and are of another length",
            ));
        }
        let members = self.load.channels * self.load.subscribers;
        let storm = storm::raise(stand, record, StormKind::Connect, members as usize)?;
        record.push_storm(storm);
        step::warm_up(stand)?;
        let offer = Offer {
            kind: StepKind::Fixed,
            per_second: Some(self.pace.rate),
            seconds: self.pace.seconds,
            p99_ms_max: None,
            drain_seconds: None,
            subscribers: members,
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
