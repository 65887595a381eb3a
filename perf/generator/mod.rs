//! What every program takes: where its own work runs, and whether its output is kept; and the
//! clients that it measures with.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use outpour::load::clients::Clients;
use outpour::load::machine;
use outpour::load::netns;
use outpour::load::orders::{
    Access, Channels, Command, OPENING_MAX, Orders, Pusher, Sample, Speech,
};

use report::Report;

pub mod figures;
pub mod report;

pub const CHANNEL: &str = "fan";
pub const EVENT: &str = "m";

/// Clients per source address; each address has some 28,000 ports of its own.
const CLIENTS_PER_ADDRESS: usize = 4_000;

#[derive(Clone, Debug, clap::Args)]
pub struct Generator {
    /// The core of the clients and the publisher.
    #[arg(long, default_value_t = 1)]
    pub readers_core: usize,
    /// Run in a private network namespace whose loopback processes what is received on the readers'
    /// core, as a network card would. Needs root.
    #[arg(long)]
    pub netns: bool,
    /// Keep the output in perf/results.
    #[arg(long)]
    record: bool,
}

impl Generator {
    /// Begins the program's report, with as many files as it may open and on the generator's core.
    pub fn begin(&self, name: &'static str) -> io::Result<Report> {
        let steered_to = self.netns.then_some(self.readers_core);
        if let Some(core) = steered_to {
            netns::enter(&[core]).map_err(|error| io::Error::other(error.to_string()))?;
        }
        machine::lift_open_files();
        let report = Report::begin(name, self.record, steered_to);
        machine::pin(self.readers_core)?;
        Ok(report)
    }

    /// Clients of a naked sender, all of them connected.
    pub fn silent(&self, target: SocketAddr, clients: usize, sample: usize) -> io::Result<Clients> {
        let mut unit = self.start(target, Speech::Bytes, Channels::None, clients, sample)?;
        unit.carry_out(Command::Open {
            clients,
            per_second: None,
        })?;
        Ok(unit)
    }

    /// A unit that can have so many clients of a server of the Pusher protocol.
    pub fn start_pusher(
        &self,
        target: SocketAddr,
        key: &str,
        channels: Channels,
        clients_max: usize,
        sample: usize,
    ) -> io::Result<Clients> {
        let speech = Speech::Pusher(Pusher::new(key, None));
        self.start(target, speech, channels, clients_max, sample)
    }

    /// The same, but of clients whose kernel holds few bytes that they did not read.
    pub fn start_narrow(
        &self,
        target: SocketAddr,
        key: &str,
        channels: Channels,
        clients_max: usize,
        receive_buffer_bytes: u32,
    ) -> io::Result<Clients> {
        let speech = Speech::Pusher(Pusher::new(key, None));
        Clients::start(&Orders {
            receive_buffer_bytes: Some(receive_buffer_bytes),
            ..self.orders(target, speech, channels, clients_max, 1)
        })
    }

    fn start(
        &self,
        target: SocketAddr,
        speech: Speech,
        channels: Channels,
        clients_max: usize,
        sample: usize,
    ) -> io::Result<Clients> {
        Clients::start(&self.orders(target, speech, channels, clients_max, sample))
    }

    fn orders(
        &self,
        target: SocketAddr,
        speech: Speech,
        channels: Channels,
        clients_max: usize,
        sample: usize,
    ) -> Orders {
        let addresses = clients_max.div_ceil(CLIENTS_PER_ADDRESS);
        let source = |host: usize| Ipv4Addr::new(127, 0, (host >> 8) as u8, host as u8).into();
        Orders {
            target,
            sources: (2..2 + addresses).map(source).collect(),
            speech,
            channels,
            cores: vec![self.readers_core],
            first_client: 0,
            clients_max,
            opening_max: OPENING_MAX,
            sample: Sample::Clients(sample),
            receive_buffer_bytes: None,
        }
    }
}

/// One channel for everybody.
pub fn shared() -> Channels {
    Channels::Shared {
        access: Access::Public,
        name: CHANNEL.to_owned(),
        count: 1,
    }
}
