//! Scenarios: what is offered to a server, in which order, and what is made of it.
//!
//! | file | what it holds |
//! |---|---|
//! | [`settings`], [`file`] | what can be told: flags, and the scenario file that stands for them |
//! | [`address`], [`stand`], [`crowd`] | target, clients and publisher, each on its cores |
//! | [`step`], [`conclusion`], [`saturation`], [`watch`] | one load, offered and judged |
//! | [`knee`], [`course`], [`search`] | the highest load that is kept: steps, confirmation, and both carried out |
//! | [`storm`] | as many handshakes as the server takes |
//! | [`record`], [`machine_facts`] | the results |
//! | the others | a scenario each |
//!
//! A scenario that publishes opens its clients, warms up, and measures steps. A step's messages are
//! numbered from 0; it is over when each has arrived everywhere or is given up, so that steps never
//! mix.

use std::io;

use clap::Subcommand;

mod address;
mod churn;
mod conclusion;
mod connect;
mod course;
mod crowd;
mod fanout;
pub mod file;
mod idle;
mod knee;
mod latency;
mod machine_facts;
mod presence;
mod record;
mod saturation;
mod search;
pub mod settings;
mod slow;
mod stand;
mod step;
mod storm;
mod watch;

use super::result::{self, Results};
use super::view::View;
use record::Record;
use settings::Common;
use stand::{Need, Stand};

/// A scenario with its settings.
#[derive(Clone, Debug, Subcommand)]
pub enum Scenario {
    /// Messages to many subscribers; by default the highest rate that keeps p99 under 100 ms
    Fanout(fanout::Fanout),
    /// Connection storm and reconnect storms: handshakes a second, time to all subscribed
    Connect(connect::Connect),
    /// Memory and CPU time of connections that do nothing
    Idle(idle::Idle),
    /// A share of the readers stalls: what the others notice
    Slow(slow::Slow),
    /// Joins and leaves under load
    Churn(churn::Churn),
    /// Presence channels: members that come and go, and messages to them
    Presence(presence::Presence),
    /// Latency at fixed shares of the knee, 10 % to 95 %
    Latency(latency::Latency),
}

/// Defaults of single scenarios that differ from what the flag has elsewhere.
pub const DEFAULTS: &[(&str, &str, &str)] = &[
    ("slow", "subscribers", "2000"),
    ("churn", "subscribers", "2000"),
    ("presence", "subscribers", "100"),
    ("presence", "channels", "10"),
];

impl Scenario {
    pub fn common(&self) -> &Common {
        match self {
            Scenario::Fanout(fanout) => &fanout.common,
            Scenario::Connect(connect) => &connect.common,
            Scenario::Idle(idle) => &idle.common,
            Scenario::Slow(slow) => &slow.common,
            Scenario::Churn(churn) => &churn.common,
            Scenario::Presence(presence) => &presence.common,
            Scenario::Latency(latency) => &latency.common,
        }
    }

    fn need(&self) -> Need {
        match self {
            Scenario::Fanout(fanout) => fanout.need(),
            Scenario::Connect(connect) => connect.need(),
            Scenario::Idle(idle) => idle.need(),
            Scenario::Slow(slow) => slow.need(),
            Scenario::Churn(churn) => churn.need(),
            Scenario::Presence(presence) => presence.need(),
            Scenario::Latency(latency) => latency.need(),
        }
    }

    /// Runs it, and gives what it found. `description` is what the results say it was.
    pub fn run(
        &self,
        description: result::Scenario,
        command_line: Vec<String>,
    ) -> io::Result<Results> {
        let common = self.common();
        let mut stand = Stand::build(common, &self.need())?;
        let freeze_ms = common.generator.freeze_ms;
        let view = (!common.output.quiet).then(View::new);
        let mut record = Record::begin(&stand, description, command_line, freeze_ms, view);
        match self {
            Scenario::Fanout(fanout) => fanout.run(&mut stand, &mut record),
            Scenario::Connect(connect) => connect.run(&mut stand, &mut record),
            Scenario::Idle(idle) => idle.run(&mut stand, &mut record),
            Scenario::Slow(slow) => slow.run(&mut stand, &mut record),
            Scenario::Churn(churn) => churn.run(&mut stand, &mut record),
            Scenario::Presence(presence) => presence.run(&mut stand, &mut record),
            Scenario::Latency(latency) => latency.run(&mut stand, &mut record),
        }?;
        Ok(record.finish())
    }
}
