//! `connect`: all connections come as fast as the server takes them, and come back so after all of them broke. So many
//! are on their way at a time as `--at-once` says; with that many it is everybody at once.

use std::io;

use clap::Args;

use super::record::Record;
use super::settings::{Common, Haste, LOAD};
use super::stand::{Need, Stand};
use super::storm;
use crate::load::result::StormKind;

#[derive(Clone, Debug, Args)]
pub struct Connect {
    /// Connections, each with a subscription to one shared channel
    #[arg(long, help_heading = LOAD, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub connections: u64,
    /// How often all of them break and come back
    #[arg(long, help_heading = LOAD, default_value_t = 3)]
    pub reconnects: u64,
    #[command(flatten)]
    pub haste: Haste,
    #[command(flatten)]
    pub common: Common,
}

impl Connect {
    pub fn need(&self) -> Need {
        Need::silent(self.connections as usize, self.haste.at_once as usize)
    }

    pub fn run(&self, stand: &mut Stand, record: &mut Record) -> io::Result<()> {
        let connections = self.connections as usize;
        let storm = storm::raise(stand, record, StormKind::Connect, connections)?;
        record.push_storm(storm);
        for _ in 0..self.reconnects {
            let storm = storm::raise(stand, record, StormKind::Reconnect, connections)?;
            record.push_storm(storm);
        }
        Ok(())
    }
}
