//! The test stand: server or target, clients and publisher, each on its cores.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::address::Address;
use super::crowd::Crowd;
use super::record::Record;
use super::settings::{Common, Decode, Load, PublishBy};
use crate::load::orders::{
    Access, CLIENTS_PER_RING, Channels, Glance, OPENING_MAX, Orders, Sample, Settled, Speech,
};
use crate::load::publisher::{self, Publisher};
use crate::load::result::{Core, Network, Role, Started, Target};
use crate::load::server::{self, Server};
use crate::load::{machine, netns};

/// Clients of one source address; each has some 28,000 ports of its own towards one target.
const CLIENTS_PER_SOURCE: usize = 4_000;
/// The event that is published over HTTP, and the one of clients, whose name is another length.
const EVENT: &str = "m";
const CLIENT_EVENT: &str = "client-m";
/// Data that a server takes without being told to.
const EVENT_BYTES_MAX: usize = 10 * 1024;
/// The first part of every channel's name.
const CHANNEL: &str = "fan";

/// What a scenario needs of its clients and publisher.
#[derive(Clone, Debug)]
pub struct Need {
    pub channels: Channels,
    /// The most clients that are ever open, guests not counted.
    pub clients_max: usize,
    /// Places for guests, beside the clients that count.
    pub guests: usize,
    /// Clients that are on their way at once, at most.
    pub opening_max: usize,
    pub receive_buffer_bytes: Option<u32>,
    pub publishing: Option<Publishing>,
}

/// How events are published.
#[derive(Clone, Debug)]
pub struct Publishing {
    pub by: PublishBy,
    pub publishers: usize,
    pub batch: usize,
    pub window: usize,
    pub data_bytes: usize,
}

impl Need {
    /// Everybody subscribes to one of the load's channels, and events are published to them.
    pub fn of_load(load: &Load) -> Need {
        let access = match load.publish_by {
            PublishBy::Http => Access::Public,
            // Client events exist on private and presence channels alone.
            PublishBy::Websocket | PublishBy::Both => Access::Private,
        };
        Need {
            channels: Channels::Shared {
                access,
                name: CHANNEL.to_owned(),
                count: load.channels,
            },
            clients_max: (load.channels * load.subscribers) as usize,
            guests: 0,
            opening_max: OPENING_MAX,
            receive_buffer_bytes: None,
            publishing: Some(Publishing {
                by: load.publish_by,
                publishers: load.publishers as usize,
                batch: load.batch as usize,
                window: load.window as usize,
                data_bytes: load.data_bytes as usize,
            }),
        }
    }

    /// Subscribers of one shared channel, so many of them on their way at once, and nothing published.
    pub fn silent(clients_max: usize, opening_max: usize) -> Need {
        Need {
            channels: Channels::Shared {
                access: Access::Public,
                name: CHANNEL.to_owned(),
                count: 1,
            },
            clients_max,
            guests: 0,
            opening_max,
            receive_buffer_bytes: None,
            publishing: None,
        }
    }
}

/// Places for so many guests and for those that are on their way in or out, for a second at most.
pub fn seats(guests: u64, joins_per_second: f64) -> usize {
    guests as usize + joins_per_second.ceil() as usize + 64
}

pub struct Stand {
    // The order is that of the end: first who talks to the server, then the server.
    pub publisher: Option<Publisher>,
    pub crowd: Crowd,
    pub server: Option<Server>,
    /// The server's processes, where they are known.
    pub pids: Vec<u32>,
    pub target: Target,
    pub network: Network,
    pub cores: Vec<Core>,
    pub publisher_core: Option<usize>,
    pub clients_max: usize,
    pub channels: u64,
    pub data_bytes: u64,
    pub publishers: u64,
}

impl Stand {
    pub fn build(common: &Common, need: &Need) -> io::Result<Stand> {
        let cores = Cores::choose(common)?;
        if common.server.netns {
            netns::enter(&cores.generator).map_err(io::Error::other)?;
        }
        // What this process does besides (reading counts, drawing) is the generator's too.
        machine::confine(&cores.generator)?;
        let (server, address) = match &common.target.target {
            Some(url) => (None, Address::of_target(url, &common.target)?),
            None => {
                let server = start_server(common, &cores, need)?;
                let address =
                    Address::of_own(server.address, &server::built_in_app(), &common.target);
                (Some(server), address)
            }
        };
        let pids = match &server {
            Some(server) => vec![server.pid()],
            None => common.target.pid.clone(),
        };
        let is_local = address.clients.ip().is_loopback();
        let orders = Orders {
            target: address.clients,
            sources: sources(common, &address, need.clients_max + need.guests),
            speech: address.speech.clone(),
            channels: need.channels.clone(),
            cores: cores.of_clients().to_vec(),
            first_client: 0,
            clients_max: need.clients_max + need.guests,
            opening_max: need.opening_max,
            sample: match common.generator.sample {
                Decode::All => Sample::All,
                Decode::Clients(clients) => Sample::Clients(clients),
            },
            receive_buffer_bytes: need.receive_buffer_bytes,
        };
        let crowd = Crowd::start(&orders, need.clients_max, need.guests)?;
        let publisher_core = cores.generator.last().copied();
        let publisher = match &need.publishing {
            Some(publishing) => {
                let orders = publisher_orders(publishing, need, &address, publisher_core)?;
                Some(Publisher::start(orders)?)
            }
            None => None,
        };
        Ok(Stand {
            publisher,
            crowd,
            pids,
            target: target(common, &address, server.as_ref(), &cores),
            network: match is_local {
                true if netns::is_steered_to(&cores.generator) => Network::Netns,
                true => Network::Loopback,
                false => Network::Remote,
            },
            cores: cores.watched(server.is_some()),
            publisher_core,
            clients_max: need.clients_max,
            channels: need.channels.shared(),
            data_bytes: need
                .publishing
                .as_ref()
                .map_or(0, |publishing| publishing.data_bytes as u64),
            publishers: need
                .publishing
                .as_ref()
                .map_or(0, |publishing| publishing.connections() as u64),
            server,
        })
    }

    /// Has every client open that counts, those too that the server ended.
    pub fn open_all(&mut self, record: &mut Record) -> io::Result<Settled> {
        let clients = self.clients_max;
        let watch = |glance: &Glance| record.show_opening("connect", glance, clients);
        self.crowd.open(clients, None, watch)
    }

    /// Both ends are on this machine.
    pub fn is_local(&self) -> bool {
        match self.network {
            Network::Loopback | Network::Netns => true,
            Network::Remote => false,
        }
    }

    /// CPU time of the server's process so far.
    pub fn server_cpu_ns(&self) -> io::Result<Option<u64>> {
        self.sum_over_processes(machine::cpu_ns)
    }

    /// Memory of the server that is no file's.
    pub fn server_own_bytes(&self) -> io::Result<Option<u64>> {
        self.sum_over_processes(machine::own_bytes)
    }

    pub fn server_resident_bytes(&self) -> io::Result<Option<u64>> {
        self.sum_over_processes(machine::resident_bytes)
    }

    fn sum_over_processes(&self, figure: fn(u32) -> io::Result<u64>) -> io::Result<Option<u64>> {
        let mut sum = None;
        for pid in &self.pids {
            sum = Some(sum.unwrap_or(0) + figure(*pid)?);
        }
        Ok(sum)
    }

    pub fn generator_resident_bytes(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for pid in self.crowd.pids() {
            bytes += machine::resident_bytes(pid)?;
        }
        Ok(bytes)
    }
}

impl Publishing {
    /// Connections that publish, of both kinds.
    pub fn connections(&self) -> usize {
        match self.by {
            PublishBy::Http | PublishBy::Websocket => self.publishers,
            PublishBy::Both => 2 * self.publishers,
        }
    }
}

/// Who runs where.
struct Cores {
    server: Vec<usize>,
    generator: Vec<usize>,
    all: usize,
}

impl Cores {
    /// The server has the first half of the machine and the generator the rest; where the target
    /// runs by itself, the generator has all that was not said otherwise.
    fn choose(common: &Common) -> io::Result<Cores> {
        let ids = machine::cores();
        if ids.is_empty() {
            return Err(io::Error::other("the cores of this machine are not known"));
        }
        for core in [
            &common.server.server_cores,
            &common.generator.generator_cores,
        ]
        .into_iter()
        .flatten()
        {
            if !ids.contains(core) {
                return Err(io::Error::other(format!(
                    "core {core} is not there, or not allowed"
                )));
            }
        }
        let is_embedded = common.target.target.is_none();
        let server = match common.server.server_cores.as_slice() {
            [] if is_embedded => ids[..ids.len().div_ceil(2)].to_vec(),
            given => given.to_vec(),
        };
        let generator = match common.generator.generator_cores.as_slice() {
            [] => {
                let rest: Vec<usize> = ids
                    .iter()
                    .copied()
                    .filter(|core| !server.contains(core))
                    .collect();
                if rest.is_empty() { ids.clone() } else { rest }
            }
            given => given.to_vec(),
        };
        Ok(Cores {
            server,
            generator,
            all: ids.len(),
        })
    }

    /// With cores to spare the publisher has one to itself, the last.
    fn of_clients(&self) -> &[usize] {
        match self.generator.as_slice() {
            [clients @ .., _] if clients.len() >= 2 => clients,
            all => all,
        }
    }

    fn watched(&self, is_embedded: bool) -> Vec<Core> {
        let numbers: BTreeSet<usize> = self.server.iter().chain(&self.generator).copied().collect();
        let others = if is_embedded { 0 } else { self.all };
        let numbers: BTreeSet<usize> = numbers.into_iter().chain(0..others).collect();
        let role = |core: &usize| match (self.server.contains(core), self.generator.contains(core))
        {
            (true, true) => Role::Shared,
            (true, false) => Role::Server,
            (false, true) => Role::Generator,
            (false, false) => Role::Other,
        };
        numbers
            .iter()
            .map(|core| Core {
                number: *core as u32,
                role: role(core),
            })
            .collect()
    }
}

fn start_server(common: &Common, cores: &Cores, need: &Need) -> io::Result<Server> {
    // A shard's table of files is as large as the limit of open files, however many cores there are.
    let connections = need.clients_max + need.guests + 64;
    let shards_least = connections.div_ceil(CLIENTS_PER_RING);
    let shards = common
        .server
        .shards
        .unwrap_or(cores.server.len().max(shards_least));
    let mut settings = Vec::new();
    for (name, value) in [
        ("client-events-per-second-max", "1000000"),
        ("presence-members-max", "1000000"),
        ("log-level", "warn"),
    ] {
        settings.extend([format!("--{name}"), value.to_owned()]);
    }
    let data_bytes = need
        .publishing
        .as_ref()
        .map_or(0, |publishing| publishing.data_bytes);
    if data_bytes > EVENT_BYTES_MAX {
        for (name, value) in [
            ("event-data-bytes-max", data_bytes),
            ("message-bytes-max", 2 * data_bytes),
            ("http-body-bytes-max", (20 * data_bytes).min(256 << 20)),
            // A log holds an event as long as it may be when its quotes are escaped, six times over.
            ("log-bytes-max", (8 * data_bytes).max(4 << 20)),
        ] {
            settings.extend([format!("--{name}"), value.to_string()]);
        }
    }
    for (name, value) in &common.server.set {
        let flag = format!("--{}", name.replace('_', "-"));
        // The server takes a flag once, and what was set wins.
        if let Some(known) = settings.iter().position(|word| *word == flag) {
            settings.drain(known..known + 2);
        }
        settings.extend([flag, value.clone()]);
    }
    Server::start(&server::Plan {
        binary: std::env::current_exe()?,
        shards,
        cores: cores.server.clone(),
        settings,
    })
}

fn sources(common: &Common, address: &Address, clients: usize) -> Vec<IpAddr> {
    if !common.generator.sources.is_empty() {
        return common.generator.sources.clone();
    }
    match address.clients.ip() {
        IpAddr::V4(target) if target.is_loopback() => {
            let count = clients.div_ceil(CLIENTS_PER_SOURCE).clamp(1, 250 * 250);
            let host = |number: usize| {
                Ipv4Addr::new(127, 0, (number / 250) as u8, (2 + number % 250) as u8)
            };
            (0..count).map(|number| IpAddr::V4(host(number))).collect()
        }
        IpAddr::V4(_) | IpAddr::V6(_) => Vec::new(),
    }
}

fn publisher_orders(
    publishing: &Publishing,
    need: &Need,
    address: &Address,
    core: Option<usize>,
) -> io::Result<publisher::Orders> {
    let count = need.channels.shared();
    if publishing.by == PublishBy::Both && count < 2 {
        return Err(io::Error::other(
            "publishing both ways takes 2 channels at least: each has one publisher, so that its \
             order is known",
        ));
    }
    let http = match (publishing.by, &address.publish) {
        (PublishBy::Websocket, _) => None,
        (PublishBy::Http | PublishBy::Both, Some((socket, form))) => Some(publisher::Http {
            address: *socket,
            form: form.clone(),
            connections: publishing.publishers,
            window: publishing.window,
            batch: publishing.batch,
        }),
        (PublishBy::Http | PublishBy::Both, None) => {
            return Err(io::Error::other(
                "where are events published? --publish http://host:port/path tells",
            ));
        }
    };
    let has_events = match &address.speech {
        Speech::Bytes | Speech::Plain { .. } => false,
        Speech::Pusher(_) | Speech::Nats { .. } | Speech::Mqtt { .. } | Speech::SocketIo { .. } => {
            true
        }
    };
    if publishing.by != PublishBy::Http && !has_events {
        return Err(io::Error::other(
            "clients of this dialect cannot publish: --publish-by http",
        ));
    }
    Ok(publisher::Orders {
        core,
        channels: (0..count).map(|index| need.channels.name(index)).collect(),
        event: match publishing.by {
            PublishBy::Http => EVENT.to_owned(),
            PublishBy::Websocket | PublishBy::Both => CLIENT_EVENT.to_owned(),
        },
        data_bytes: publishing.data_bytes,
        http,
        events: match publishing.by {
            PublishBy::Http => None,
            PublishBy::Websocket | PublishBy::Both => Some(publisher::Events {
                address: address.clients,
                speech: address.speech.clone(),
                channels: need.channels.clone(),
                connections: publishing.publishers,
            }),
        },
    })
}

fn target(common: &Common, address: &Address, server: Option<&Server>, cores: &Cores) -> Target {
    let (name, started) = match server {
        Some(server) => (
            format!("outpour {}", env!("CARGO_PKG_VERSION")),
            Started::Embedded {
                command_line: server.command_line.clone(),
                cores: cores.server.iter().map(|core| *core as u32).collect(),
            },
        ),
        None => (
            address.clients.to_string(),
            Started::Elsewhere {
                pids: common.target.pid.clone(),
            },
        ),
    };
    Target {
        url: address.url.clone(),
        name: common.target.name.clone().unwrap_or(name),
        started,
    }
}
