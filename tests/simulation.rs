//! Two shards on one thread over a simulated network: what subscribers are promised has to hold
//! under every fault that a seed draws.
//!
//! The oracle: on each shard an observer that reads everything is subscribed to every channel
//! before the first publish. What the first of them sees of a channel is that channel's order;
//! everybody else has to see a run of it without a gap. No shard sleeps on letters unless a wake is
//! on its way. When the shards drain, what was accepted while a client was open comes to it before
//! its close frame.
//!
//! Of a presence channel everybody replays the roster that it was given and the changes that
//! follow: none of them contradicts what was there before, and in the end all have the same. Whoever
//! comes to a cache channel is told its last event, and goes on with exactly the one after it.
//!
//! Channels with serials: everybody who was there knows the same event by a serial. Clients that were
//! away, by their own will or reset, resume behind the last event that they read, on whatever shard
//! they come back to, while others publish; some go back in time. What a client gets begins behind
//! the serial that it was told when it came, and goes on without a gap or a repeat but for events that
//! it is excluded from and gaps that it was told of. (Tried: seeds fail with a last chunk that is
//! posted ahead of the frames before it, with a subscriber that then stands at its log's tail, with a
//! chunk that is sent again whole after a short send, and with a gap that is not told.)
//!
//! In three of four worlds those who are slow stay: what leaves the log before they read it comes to them
//! from what is retained, all of it, or its newest event, or the newest of each key, behind gaps that name
//! the rest. What newer events are said to have superseded has a newer event with its key. (Tried: seeds
//! fail with a subscriber that is parked a serial too far, and with a gap that begins a serial late.)

//! In half of the worlds one of these channels is durable. Its disk is simulated behind each shard's
//! way to the edge thread: it syncs what came after a while, some of it at a time, or fails. Serials
//! reach the disk without a hole, and nobody reads of one that it does not have. (Tried: with events
//! that are sequenced when they are posted, and with serials that go on behind refused ones, seeds fail.)

//! Publishes to channels with serials have keys, and publishers on any shard repeat some of them: while
//! the first is under way, after it was refused, and later. Everybody still has each event once. (Tried:
//! without the look for what waits for the disk, and without the key in the letter to the other shard,
//! seeds fail.)

#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use md5::{Digest, Md5};
use outpour::base::lane::{self, Receiver, Sender};
use outpour::base::limits;
use outpour::base::metrics::{Metric, Metrics};
use outpour::base::sleep::Doorbell;
use outpour::base::slow::Slow;
use outpour::base::socket::{GENERATION_BITS, Socket};
use outpour::hub::apps::Apps;
use outpour::hub::durable::{Append, Written};
use outpour::hub::notice::{FromEdge, ToEdge};
use outpour::options::channels::Durability;
use outpour::options::{ChannelOptions, ChannelPattern, Options};
use outpour::ring::simulated::{AMPLE_BYTES, Network, Peer, Random, Read, SimulatedRing};
use outpour::ring::{Ring, Wait};
use outpour::shard::Shard;
use outpour::shard::connections::State;
use outpour::shard::edge_link::EdgeLink;
use outpour::shard::turn::Begun;
use outpour::wire::signature::Signer;
use outpour::wire::websocket::Inflater;

mod simulated;

const CHANNELS: [&str; 9] = [
    "alpha", "beta", "gamma", KEPT[0], "delta", "epsilon", KEPT[1], CACHE, PRIVATE,
];
/// With serials.
const KEPT: [&str; 2] = ["kept-iota", "kept-kappa"];
/// The one that may be durable.
const DURABLE: &str = KEPT[1];
/// Whose last event those who come are told.
const CACHE: &str = "cache-eta";
/// Where clients see each other, and the users that they are.
const PRESENCE: &str = "presence-theta";
const USERS: usize = 5;
/// Where clients send events to each other.
const PRIVATE: &str = "private-zeta";
const WALL_S: u64 = 1_700_000_000;
const SEEDS: u64 = 200;
const SHARDS: u16 = 2;

/// Over what time drains close clients, and in what time they have to be over: a connection is
/// flushed for 10 seconds and its end is waited for.
const DRAIN_MS: u64 = 3_000;
const DRAINED_MS: u64 = DRAIN_MS + 20_000;

/// Steps for which a shard that is held up does nothing, and the time that they may take: shorter
/// than any timeout of a connection.
const STALL_STEPS_MAX: usize = 200;
const STALL_MS_MAX: usize = 3_000;

#[test]
fn every_seed_keeps_the_promises() {
    let only = std::env::var("SIMULATION_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let seeds = std::env::var("SIMULATION_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let mut sums = Counts::default();
    for seed in only.map_or(0..seeds, |seed: u64| seed..seed + 1) {
        eprintln!("seed {seed}");
        let counts = World::new(seed).run().1;
        sums.delivered += counts.delivered;
        sums.inflated += counts.inflated;
        sums.accepted += counts.accepted;
        sums.refused += counts.refused;
        sums.closed += counts.closed;
        sums.slept += counts.slept;
        sums.woken += counts.woken;
        sums.drained += counts.drained;
        sums.kept += counts.kept;
        sums.rejected += counts.rejected;
        sums.entered += counts.entered;
        sums.changed += counts.changed;
        sums.cached += counts.cached;
        sums.missed += counts.missed;
        sums.resumed += counts.resumed;
        sums.late += counts.late;
        sums.rewound += counts.rewound;
        sums.gaps += counts.gaps;
        sums.parked += counts.parked;
        sums.leaps += counts.leaps;
        sums.superseded += counts.superseded;
        sums.synced += counts.synced;
        sums.failed += counts.failed;
        sums.repeated += counts.repeated;
    }
    eprintln!("{sums:?}");
    if only.is_none() {
        sums.assert_that_everything_occurred();
    }
}

#[test]
fn a_seed_can_be_had_again() {
    for seed in [1, 2, 3] {
        assert_eq!(
            World::new(seed).run().0,
            World::new(seed).run().0,
            "seed {seed}"
        );
    }
}

#[derive(Debug, Default)]
struct Counts {
    delivered: usize,
    inflated: usize,
    accepted: usize,
    refused: usize,
    closed: usize,
    /// Turns in which a shard slept, and those of them that a completion ended.
    slept: usize,
    woken: usize,
    /// Worlds that ended by a drain, and events that clients got in it.
    drained: usize,
    kept: usize,
    /// Events of clients that were refused.
    rejected: usize,
    /// Rosters, and changes to them, that clients were told of.
    entered: usize,
    changed: usize,
    /// Those who came to a cache channel, with an event and without.
    cached: usize,
    missed: usize,
    /// Those who resumed and missed nothing or something, those who went back and got events that
    /// were published before they came, and gaps that were told.
    resumed: usize,
    late: usize,
    rewound: usize,
    gaps: usize,
    /// Times that a subscriber's next frame left its shard's log and it stayed.
    parked: usize,
    /// Gaps for the sake of the newest event.
    leaps: usize,
    /// Gaps of what newer events with the same key superseded.
    superseded: usize,
    /// Events that a disk has synced, and those that it did not take.
    synced: usize,
    failed: usize,
    /// Publishes that were repeated, and accepted.
    repeated: usize,
}

impl Counts {
    fn assert_that_everything_occurred(&self) {
        let Counts {
            delivered,
            inflated,
            accepted,
            refused,
            closed,
            slept,
            woken,
            drained,
            kept,
            rejected,
            entered,
            changed,
            cached,
            missed,
            resumed,
            late,
            rewound,
            gaps,
            parked,
            leaps,
            superseded,
            synced,
            failed,
            repeated,
        } = *self;
        let all = [
            delivered, inflated, accepted, refused, closed, slept, woken, drained, kept, rejected,
            entered, changed, cached, missed, resumed, late, rewound, gaps, parked, leaps,
            superseded, synced, failed, repeated,
        ];
        assert!(all.iter().all(|count| *count > 0), "{self:?}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Observer,
    Quick,
    Slow,
}

/// What a client saw between one confirmation and the next.
#[derive(Debug, Default)]
struct Period {
    /// Events with this number and higher were posted after the confirmation was read.
    posted_after: usize,
    /// What a cache channel told first, once it has: its last event, or that there is none.
    cached: Option<Option<usize>>,
    events: Vec<usize>,
    /// Of a channel with serials: where it stood first, and what it was told since.
    stand: Option<Stand>,
    told: Vec<Told>,
}

/// Where one who comes to a channel with serials stands.
#[derive(Debug)]
struct Stand {
    asked: Asked,
    epoch: String,
    serial: u64,
    recovered: Option<bool>,
    missed: Option<(u64, u64)>,
}

/// What it asked for.
#[derive(Clone, Debug, Default)]
enum Asked {
    #[default]
    Head,
    Resume(u64),
    Rewind,
}

#[derive(Clone, Copy, Debug)]
enum Told {
    Event {
        serial: u64,
        event: usize,
    },
    Gap {
        from: u64,
        to: u64,
        is_superseded: bool,
    },
}

#[derive(Debug, Default)]
struct Subscription {
    /// What was last asked for, and whether there is an answer to wait for.
    is_wanted: bool,
    is_awaited: bool,
    asked: Asked,
    periods: Vec<Period>,
    /// Events of the last period that had come when the drain began, if it was confirmed then.
    before_drain: Option<usize>,
}

struct Client {
    peer: Peer,
    shard: u16,
    kind: Kind,
    input: Vec<u8>,
    is_open: bool,
    is_gone: bool,
    socket_id: Option<String>,
    close_code: Option<u16>,
    /// How many of the answers had come before the turn in which its shard closed it.
    promised: usize,
    /// Who is in the presence channel, as it was told.
    roster: BTreeSet<String>,
    /// Of channels with serials the epoch and the last serial that it or the one whose place it took
    /// has read of.
    reached: BTreeMap<String, (String, u64)>,
    subscriptions: BTreeMap<String, Subscription>,
}

struct Publisher {
    peer: Peer,
    shard: u16,
    input: Vec<u8>,
    under_way: Option<usize>,
    /// It was under way before, or is elsewhere.
    is_repeat: bool,
    /// When its connection was made or last answered.
    quiet_since_ms: u64,
}

#[derive(Debug, Default)]
struct Event {
    channels: Vec<String>,
    excluded: Option<String>,
    /// Of one that may be repeated.
    body: Option<String>,
    key: Option<usize>,
    /// Nothing if the publisher never learned.
    status: Option<u16>,
}

/// How hard a seed presses: once in how many turns, or how many at most.
struct Weights {
    publish: usize,
    data_bytes: usize,
    large: usize,
    slow_read: usize,
    turn_ms: usize,
    stall: usize,
    /// Nearly all publishes go to this channel, so that they come to outrun a shard that is held up.
    favourite: Option<usize>,
}

/// A turn within its system call.
struct Sleep {
    begun: Begun,
    until_ms: u64,
}

/// What stands in for the edge thread and the journal of one shard's homes.
struct Disk {
    letters: Receiver<ToEdge>,
    words: Sender<FromEdge>,
    waiting: VecDeque<Append>,
    failed_round: Option<u32>,
    /// The last epoch and serial of the durable channel, if its home is here.
    synced: Option<(u64, u64)>,
}

impl Disk {
    fn new() -> (Disk, EdgeLink) {
        let (sender, letters) = lane::lane(limits::EDGE_LANE_LETTERS);
        let (words, words_of_shard) = lane::lane(limits::EDGE_WORDS);
        let doorbell = Arc::new(Doorbell::default());
        let link = EdgeLink::new(sender, words_of_shard, doorbell, Metrics::default());
        let disk = Disk {
            letters,
            words,
            waiting: VecDeque::new(),
            failed_round: None,
            synced: None,
        };
        (disk, link)
    }

    fn read_letters(&mut self) {
        while let Some(letter) = self.letters.pop() {
            match letter {
                ToEdge::Append(append) if self.failed_round >= Some(append.round) => {}
                ToEdge::Append(append) => self.waiting.push_back(*append),
                ToEdge::Notice(_) | ToEdge::Consult(_) => panic!("no app wants to be told"),
            }
        }
    }

    /// So many events are on the disk.
    fn sync(&mut self, count: usize) {
        let mut ticket = 0;
        for append in self.waiting.drain(..count) {
            assert_eq!(&*append.channel, DURABLE);
            let (epoch, serial) = self.synced.unwrap_or((append.epoch, 0));
            assert_eq!(
                (append.epoch, append.serial),
                (epoch, serial + 1),
                "no hole"
            );
            self.synced = Some((epoch, append.serial));
            ticket = append.ticket;
        }
        self.tell(Written::Synced { ticket });
    }

    fn fail(&mut self) {
        let round = self.waiting[0].round;
        self.waiting.clear();
        self.failed_round = Some(round);
        self.tell(Written::Failed { round });
    }

    fn tell(&mut self, written: Written) {
        let word = FromEdge::Written(written);
        assert!(self.words.push(word).is_ok(), "there is room for each");
    }
}

struct World {
    seed: u64,
    network: Network,
    shards: Vec<Shard<SimulatedRing>>,
    asleep: Vec<Option<Sleep>>,
    is_draining: Vec<bool>,
    has_returned: Vec<bool>,
    /// For how many more steps a shard is held up: its core is taken by somebody else.
    stalled: Vec<usize>,
    overload: Random,
    triggers: Random,
    members: Random,
    resumes: Random,
    keys: Random,
    /// By shard; none where no channel is durable.
    disks: Vec<Disk>,
    syncs: Random,
    repeats: Random,
    random: Random,
    weights: Weights,
    relies_on_keys: bool,
    now_ms: u64,
    clients: Vec<Client>,
    publishers: Vec<Publisher>,
    events: Vec<Event>,
    /// Events that were accepted, in the order in which publishers learned of it.
    answered: Vec<usize>,
    signer: Signer,
    metrics: Arc<[Metrics]>,
    /// Slow subscribers of channels with serials stay subscribed.
    lags: bool,
    /// Logs lose what is a second old.
    forgets: bool,
    counts: Counts,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed, 100);
        let mut options = Options::default();
        options.apps[0].client_events_per_second_max = 1_000_000;
        if random.one_in(2) {
            options.log_bytes_max = 64 << 10;
        }
        let mut weights = Weights {
            publish: [2, 8, 30][random.below(3)],
            data_bytes: [300, 2000, 9000][random.below(3)],
            large: [1, 8][random.below(2)],
            slow_read: [4, 12, 100, 1000][random.below(4)],
            turn_ms: [2, 20, 100][random.below(3)],
            stall: 1000,
            favourite: None,
        };
        let mut resumes = Random::new(seed, 105);
        let mut policies = Random::new(seed, 109);
        let slow = [
            Slow::Lag,
            Slow::Latest,
            Slow::LatestPerKey,
            Slow::Disconnect,
        ][policies.below(4)];
        let slow_messages_max = [2, 20][policies.below(2)];
        let kept = ChannelOptions {
            name: ChannelPattern::parse("kept-*").unwrap(),
            retention_messages_max: [3, 40, 1000][resumes.below(3)],
            retention_bytes_max: [4096, 1 << 20][resumes.below(2)],
            retention_age_s: 20,
            slow,
            slow_messages_max,
            ..ChannelOptions::default()
        };
        let durable = ChannelOptions {
            name: ChannelPattern::parse(DURABLE).unwrap(),
            durability: Durability::Disk,
            ..kept.clone()
        };
        let mut syncs = Random::new(seed, 106);
        let is_durable = syncs.one_in(2);
        options.apps[0].channels = match is_durable {
            true => vec![durable, kept],
            false => vec![kept],
        };
        // Where room is so short that keys go for it, nobody relies on them.
        let mut relies_on_keys = true;
        if resumes.one_in(4) {
            options.retention_bytes_per_shard_max = 16 << 10;
            relies_on_keys = false;
        }
        let mut overload = Random::new(seed, 102);
        if overload.one_in(4) {
            options.log_bytes_max = 64 << 10;
            options.publish_wait_ms_max = [0, 100, 2000][overload.below(3)];
            // In half of them the last, which is the clients' own.
            let favourite = overload.below(2 * CHANNELS.len()).min(CHANNELS.len() - 1);
            weights.favourite = Some(favourite);
            (weights.publish, weights.data_bytes, weights.large) = (2, 9000, 1);
            weights.stall = 100;
        }
        let lags = slow != Slow::Disconnect;
        // So that logs lose what slow readers lack, and not only while the engine is behind.
        let forgets = lags && weights.favourite.is_none() && policies.one_in(2);
        if forgets {
            options.log_age_ms_max = 1;
        }
        let (options, metrics) = (
            Arc::new(options),
            vec![Metrics::default(), Metrics::default()],
        );
        let (apps, metrics) = (
            Arc::new(Apps::new(&options)),
            Arc::<[Metrics]>::from(metrics),
        );
        let network = Network::new(seed, SHARDS);
        let (mut disks, mut links) = (Vec::new(), Vec::new());
        for _ in (0..SHARDS).filter(|_| is_durable) {
            let (disk, link) = Disk::new();
            disks.push(disk);
            links.push(link);
        }
        let shards = simulated::shards(&network, seed, &options, &apps, &metrics, links);
        World {
            seed,
            shards,
            asleep: (0..SHARDS).map(|_| None).collect(),
            is_draining: vec![false; usize::from(SHARDS)],
            has_returned: vec![false; usize::from(SHARDS)],
            stalled: vec![0; usize::from(SHARDS)],
            overload,
            triggers: Random::new(seed, 103),
            members: Random::new(seed, 104),
            resumes,
            keys: Random::new(seed, 108),
            disks,
            syncs,
            repeats: Random::new(seed, 107),
            relies_on_keys,
            network,
            random,
            weights,
            now_ms: 0,
            clients: Vec::new(),
            publishers: Vec::new(),
            events: Vec::new(),
            answered: Vec::new(),
            signer: Signer::new(b"app-secret"),
            metrics,
            lags,
            forgets,
            counts: Counts::default(),
        }
    }

    fn run(mut self) -> (u64, Counts) {
        for shard in 0..SHARDS {
            self.connect(shard, Kind::Observer);
        }
        self.run_until("the observers are connected", |world| {
            let mut clients = world.clients.iter();
            clients.all(|client| client.socket_id.is_some())
        });
        for observer in 0..self.clients.len() {
            for channel in CHANNELS {
                self.subscribe(observer, channel);
            }
            self.subscribe(observer, PRESENCE);
        }
        self.run_until("the observers are subscribed", |world| {
            let mut all = world
                .clients
                .iter()
                .flat_map(|client| client.subscriptions.values());
            all.all(|subscription| !subscription.periods.is_empty())
        });
        self.connect_publishers(4);
        for number in 0..14 {
            let kind = if number % 3 == 0 {
                Kind::Slow
            } else {
                Kind::Quick
            };
            self.connect(number % 2, kind);
        }
        for _ in 0..1500 {
            self.disturb();
            self.step();
        }
        for client in &mut self.clients {
            client.kind = if client.kind == Kind::Slow {
                Kind::Quick
            } else {
                client.kind
            };
        }
        self.run_until("every publish is answered", |world| {
            world
                .publishers
                .iter()
                .all(|publisher| publisher.under_way.is_none())
        });
        // What a peer that was evicted left behind goes with the next look once a second.
        self.weights.turn_ms = 100;
        self.run_until(
            "every subscription is answered, every log drained and every outbox sent",
            |world| {
                let mut open = world.clients.iter().filter(|client| !client.is_gone);
                let mut engines = world.shards.iter().map(|shard| &shard.engine);
                open.all(|client| client.subscriptions.values().all(|one| !one.is_awaited))
                    && engines.all(|engine| {
                        // The rest of a frame that went out in part is in no log any more.
                        let connections = &engine.connections;
                        let mut slots = 0..connections.slots_in_use();
                        engine.channels.log_bytes() == 0
                            && slots.all(|slot| {
                                let connection = &connections[slot];
                                connection.outbox.is_none()
                                    && !connection.is_behind
                                    && !connection.is_blocked
                            })
                    })
            },
        );
        for _ in 0..200 {
            self.step();
        }
        self.check();
        self.check_kept(false);
        if Random::new(self.seed, 101).one_in(2) {
            self.drain();
        } else {
            self.leave();
        }
        let parked = self.metrics.iter().map(|of| of.read(Metric::SlowParked));
        self.counts.parked = parked.sum::<u64>() as usize;
        assert!(self.lags || self.counts.parked == 0, "seed {}", self.seed);
        (self.network.trace(), self.counts)
    }

    fn connect_publishers(&mut self, count: u16) {
        for number in 0..count {
            let shard = number % SHARDS;
            let publisher = Publisher {
                peer: self.network.connect(shard),
                shard,
                input: Vec::new(),
                under_way: None,
                is_repeat: false,
                quiet_since_ms: self.now_ms,
            };
            self.publishers.push(publisher);
        }
    }

    fn connect(&mut self, shard: u16, kind: Kind) -> usize {
        let peer = match kind {
            // One that is held back while its shard is held up may rightly come to be too slow.
            Kind::Observer if self.weights.favourite.is_some() || self.lags => {
                self.network.connect_with_capacity(shard, AMPLE_BYTES)
            }
            Kind::Observer => self.network.connect_with_capacity(shard, 64 << 10),
            Kind::Quick | Kind::Slow => self.network.connect(shard),
        };
        // Of three clients one gets what is published as it is; the others have different windows.
        let offer = match self.clients.len() % 3 {
            0 => "",
            1 => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            _ => "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n",
        };
        let request = format!(
            "GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{offer}\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        self.network.write(peer, request.as_bytes());
        self.clients.push(Client {
            peer,
            shard,
            kind,
            input: Vec::new(),
            is_open: false,
            is_gone: false,
            socket_id: None,
            close_code: None,
            promised: 0,
            roster: BTreeSet::new(),
            reached: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
        });
        self.clients.len() - 1
    }

    fn send(&mut self, client: usize, first: u8, payload: &[u8]) {
        let mask = (self.random.draw() as u32).to_le_bytes();
        let mut frame = vec![first];
        match u8::try_from(payload.len()) {
            Ok(length) if length < 126 => frame.push(0x80 | length),
            _ => {
                frame.push(0x80 | 126);
                frame.extend((payload.len() as u16).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(
            payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        self.network.write(self.clients[client].peer, &frame);
    }

    fn subscribe(&mut self, client: usize, channel: &str) {
        let held = self.clients[client]
            .subscriptions
            .entry(channel.to_string())
            .or_default();
        (held.is_wanted, held.is_awaited) = (true, true);
        let mut text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"#);
        if channel == PRIVATE || channel == PRESENCE {
            let id = self.clients[client].socket_id.as_ref().unwrap();
            let mut signed = format!("{id}:{channel}");
            if channel == PRESENCE {
                let data = format!(r#"{{"user_id":"{}"}}"#, user_of(client));
                write!(signed, ":{data}").unwrap();
                let data = data.replace('"', r#"\""#);
                write!(text, r#"","channel_data":"{data}"#).unwrap();
            }
            let signature = self.signer.sign(&[signed.as_bytes()]);
            let signature = std::str::from_utf8(&signature).unwrap();
            write!(text, r#"","auth":"app-key:{signature}"#).unwrap();
        }
        text.push('"');
        if KEPT.contains(&channel) {
            self.ask_for_more(client, channel, &mut text);
        }
        text.push_str("}}");
        self.send(client, 0x81, text.as_bytes());
    }

    /// Says where it wants to begin.
    fn ask_for_more(&mut self, client: usize, channel: &str, text: &mut String) {
        let client = &mut self.clients[client];
        let held = client.subscriptions.get_mut(channel).unwrap();
        held.asked = match client.reached.get(channel) {
            Some((epoch, serial)) if !self.resumes.one_in(4) => {
                let resume = format!(r#","resume":{{"epoch":"{epoch}","serial":{serial}}}"#);
                text.push_str(&resume);
                Asked::Resume(*serial)
            }
            Some(_) | None if client.kind != Kind::Observer && self.resumes.one_in(2) => {
                let rewind = [r#""1s""#, r#""1m""#, "1", "30", "2000"][self.resumes.below(5)];
                write!(text, r#","rewind":{rewind}"#).unwrap();
                Asked::Rewind
            }
            Some(_) | None => Asked::Head,
        };
    }

    /// Another one, perhaps on another shard, takes the place of one that was cut off.
    fn come_back(&mut self, client: usize, shard: u16) {
        let kind = self.clients[client].kind;
        let reached = self.clients[client].reached.clone();
        let again = self.connect(shard, kind);
        self.clients[again].reached = reached;
    }

    /// An event from one client to the others, if it is subscribed. Nobody tells it what became of
    /// the event.
    fn trigger(&mut self, client: usize) {
        let from = &self.clients[client];
        let held = from.subscriptions.get(PRIVATE);
        if !held.is_some_and(|held| held.is_wanted && !held.is_awaited) {
            return;
        }
        let number = self.events.len();
        self.events.push(Event {
            channels: vec![PRIVATE.to_string()],
            excluded: from.socket_id.clone(),
            body: None,
            key: None,
            status: None,
        });
        let filling = "x".repeat(self.triggers.below(self.weights.data_bytes));
        let text = format!(
            r#"{{"event":"client-tick","channel":"{PRIVATE}","data":"{number}:{filling}"}}"#
        );
        self.send(client, 0x81, text.as_bytes());
    }

    fn unsubscribe(&mut self, client: usize, channel: &str) {
        let held = self.clients[client].subscriptions.get_mut(channel).unwrap();
        (held.is_wanted, held.is_awaited) = (false, false);
        let text = format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{channel}"}}}}"#);
        self.send(client, 0x81, text.as_bytes());
    }

    fn disturb(&mut self) {
        for number in 0..self.publishers.len() {
            if self.publishers[number].under_way.is_none()
                && self.random.one_in(self.weights.publish)
            {
                self.publish(number);
            }
            if self.random.one_in(400) {
                let publisher = &mut self.publishers[number];
                self.network.reset(publisher.peer);
                publisher.peer = self.network.connect(publisher.shard);
                publisher.input.clear();
                publisher.under_way = None;
                publisher.quiet_since_ms = self.now_ms;
            }
        }
        let client = self.random.below(self.clients.len());
        if self.clients[client].kind == Kind::Observer || self.clients[client].is_gone {
            return;
        }
        let presses = self.weights.favourite == Some(CHANNELS.len() - 1);
        if self.triggers.one_in(if presses { 1 } else { 6 }) {
            self.trigger(client);
        }
        if self.members.one_in(3) {
            self.come_or_go(client, PRESENCE);
            if self.members.one_in(40) {
                // It ends its side behind what it said last, and reads no more.
                self.network.end(self.clients[client].peer);
                self.clients[client].is_gone = true;
                self.come_back(client, self.clients[client].shard);
                return;
            }
        }
        if self.random.one_in(150) {
            self.network.reset(self.clients[client].peer);
            self.clients[client].is_gone = true;
            let shard = self.random.below(2) as u16;
            self.come_back(client, shard);
        } else if self.resumes.one_in(6) {
            let channel = KEPT[self.resumes.below(2)];
            self.come_or_go(client, channel);
        } else if self.random.one_in(4) {
            // Every other client stays with one channel, and is sent to straight from its log.
            let place = if client.is_multiple_of(2) {
                client
            } else {
                self.random.below(CHANNELS.len())
            };
            self.come_or_go(client, CHANNELS[place % CHANNELS.len()]);
        }
    }

    fn come_or_go(&mut self, client: usize, channel: &str) {
        let client_is_known = self.clients[client].socket_id.is_some();
        match self.clients[client].subscriptions.get(channel) {
            _ if !client_is_known => {}
            Some(held) if held.is_awaited => {}
            Some(held) if held.is_wanted => {
                self.unsubscribe(client, channel);
                if self.random.one_in(2) {
                    self.subscribe(client, channel);
                }
            }
            Some(_) | None => self.subscribe(client, channel),
        }
    }

    fn publish(&mut self, publisher: usize) {
        if self.relies_on_keys && self.repeats.one_in(6) && self.repeat(publisher) {
            return;
        }
        let number = self.events.len();
        let mut first = self.random.below(CHANNELS.len());
        let mut count = if self.random.one_in(4) { 2 } else { 1 };
        if let Some(favourite) = self.weights.favourite
            && !self.overload.one_in(16)
        {
            (first, count) = (favourite, 1);
        }
        let names = (first..first + count).map(|place| CHANNELS[place % CHANNELS.len()]);
        let channels: Vec<String> = names.map(str::to_string).collect();
        let client = &self.clients[2 + self.random.below(self.clients.len() - 2)];
        let excluded = client.socket_id.clone().filter(|_| self.random.one_in(3));
        let most = if self.random.one_in(self.weights.large) {
            self.weights.data_bytes
        } else {
            200
        };
        let mut body = format!(
            r#"{{"name":"tick","channels":["{}"],"data":"{number}:{}""#,
            channels.join(r#"",""#),
            "x".repeat(self.random.below(most)),
        );
        if let Some(id) = &excluded {
            write!(body, r#","socket_id":"{id}""#).unwrap();
        }
        let is_kept = channels.iter().all(|name| KEPT.contains(&name.as_str()));
        if is_kept {
            write!(body, r#","idempotency_key":"key-{number}""#).unwrap();
        }
        let key = Some(self.keys.below(3)).filter(|_| !self.keys.one_in(8));
        if let Some(key) = key {
            write!(body, r#","key":"{key}""#).unwrap();
        }
        body.push('}');
        self.post(publisher, number, &body);
        self.publishers[publisher].is_repeat = false;
        self.events.push(Event {
            channels,
            excluded,
            body: Some(body).filter(|_| is_kept),
            key,
            status: None,
        });
    }

    /// One of the latest publishes is made once more. False if there is none that may be.
    fn repeat(&mut self, publisher: usize) -> bool {
        let latest = self.events.iter().enumerate().rev();
        let repeatable = latest.filter(|(_, event)| event.body.is_some()).take(8);
        let repeatable: Vec<usize> = repeatable.map(|(number, _)| number).collect();
        if repeatable.is_empty() {
            return false;
        }
        let number = repeatable[self.repeats.below(repeatable.len())];
        let body = self.events[number].body.clone().unwrap();
        self.post(publisher, number, &body);
        self.publishers[publisher].is_repeat = true;
        true
    }

    fn post(&mut self, publisher: usize, number: usize, body: &str) {
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let md5 = hex(&Md5::digest(body.as_bytes()));
        let query =
            format!("auth_key=app-key&auth_timestamp={WALL_S}&auth_version=1.0&body_md5={md5}");
        let signed = format!("POST\n/apps/1001/events\n{query}");
        let signature = self.signer.sign(&[signed.as_bytes()]);
        let signature = std::str::from_utf8(&signature).unwrap();
        let request = format!(
            "POST /apps/1001/events?{query}&auth_signature={signature} HTTP/1.1\r\nHost: here\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let from = &mut self.publishers[publisher];
        if self.now_ms > from.quiet_since_ms + 5_000 {
            // The server may be about to close a connection that was idle for so long.
            self.network.end(from.peer);
            from.peer = self.network.connect(from.shard);
            from.quiet_since_ms = self.now_ms;
        }
        self.network
            .write(self.publishers[publisher].peer, request.as_bytes());
        self.publishers[publisher].under_way = Some(number);
    }

    /// One turn of each shard, or a look at its sleep, and everybody reads.
    fn step(&mut self) {
        self.now_ms += self.random.below(self.weights.turn_ms) as u64;
        for shard in 0..SHARDS {
            let stalled = &mut self.stalled[usize::from(shard)];
            if *stalled > 0 {
                *stalled -= 1;
                continue;
            }
            if self.overload.one_in(self.weights.stall) {
                let most = STALL_STEPS_MAX.min(STALL_MS_MAX / self.weights.turn_ms);
                *stalled = self.overload.below(most);
            }
            self.run_shard(shard);
        }
        self.run_disks();
        for shard in 0..SHARDS {
            let place = usize::from(shard);
            let has_letters = self.shards[place].engine.has_letters();
            assert!(
                self.asleep[place].is_none() || !has_letters || self.network.is_waking(shard),
                "seed {}: shard {shard} sleeps on letters",
                self.seed
            );
        }
        self.check_connections();
        for number in 0..self.publishers.len() {
            self.read_answers(number);
        }
        for number in 0..self.clients.len() {
            self.read_frames(number);
        }
    }

    /// Each disk syncs some of what waits for it, or fails.
    fn run_disks(&mut self) {
        for (shard, disk) in (0..).zip(&mut self.disks) {
            disk.read_letters();
            if disk.waiting.is_empty() || !self.syncs.one_in(4) {
                continue;
            }
            if self.syncs.one_in(12) {
                self.counts.failed += disk.waiting.len();
                disk.fail();
            } else {
                let count = 1 + self.syncs.below(disk.waiting.len());
                self.counts.synced += count;
                disk.sync(count);
            }
            self.network.wake(shard);
        }
    }

    /// Whoever is only told the last words has left its channels, so that nobody leaves while sends
    /// are accounted for.
    fn check_connections(&self) {
        for shard in &self.shards {
            let connections = &shard.engine.connections;
            for slot in 0..connections.slots_in_use() {
                let connection = &connections[slot];
                let is_there = connection.state == State::Open;
                assert!(
                    is_there || connection.subscriptions.is_empty(),
                    "seed {}: slot {slot} is {:?} and subscribed",
                    self.seed,
                    connection.state
                );
            }
        }
    }

    fn run_shard(&mut self, number: u16) {
        let place = usize::from(number);
        let shard = &mut self.shards[place];
        let begun = match self.asleep[place].take() {
            Some(sleep) => {
                let is_woken = shard.ring.rest();
                if !is_woken && self.now_ms < sleep.until_ms {
                    self.asleep[place] = Some(sleep);
                    return;
                }
                self.counts.woken += usize::from(is_woken);
                sleep.begun
            }
            None => {
                if self.is_draining[place] {
                    shard.engine.begin_drain(DRAIN_MS);
                    self.has_returned[place] |= shard.engine.is_drained();
                    // When all have returned their rings are taken apart, which here is to go on.
                    if self.has_returned[place] && self.has_returned.contains(&false) {
                        return;
                    }
                }
                let begun = shard.begin(Duration::from_millis(self.now_ms), WALL_S, true);
                let entered = shard.ring.enter(&shard.engine.batch(), begun.wait);
                entered.unwrap();
                if let Wait::Milliseconds(most) = begun.wait
                    && !shard.ring.rest()
                {
                    self.counts.slept += 1;
                    let until_ms = self.now_ms + most;
                    self.asleep[place] = Some(Sleep { begun, until_ms });
                    return;
                }
                begun
            }
        };
        shard.finish(begun);
    }

    fn read_answers(&mut self, number: usize) {
        let is_draining = self.is_draining.contains(&true);
        let publisher = &mut self.publishers[number];
        match self.network.read(publisher.peer, usize::MAX) {
            Read::Bytes(bytes) => publisher.input.extend(bytes),
            Read::EndOfStream | Read::Broken if is_draining => {
                // It never learns what became of a request that was not read any more.
                self.network.end(publisher.peer);
                publisher.under_way = None;
                return;
            }
            Read::EndOfStream | Read::Broken => {
                // An idle connection ends after a while; a publish under way never does that.
                assert_eq!(publisher.under_way, None, "seed {}", self.seed);
                publisher.peer = self.network.connect(publisher.shard);
                publisher.input.clear();
                publisher.quiet_since_ms = self.now_ms;
            }
        }
        let text = String::from_utf8(publisher.input.clone()).unwrap();
        let Some((head, rest)) = text.split_once("\r\n\r\n") else {
            return;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse::<usize>().unwrap())
        });
        let length = length.unwrap();
        if rest.len() < length {
            return;
        }
        assert_eq!(
            rest.len(),
            length,
            "one answer to one request, seed {}",
            self.seed
        );
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(status == 200 || status == 503, "seed {}: {text}", self.seed);
        match status {
            200 => self.counts.accepted += 1,
            _ => self.counts.refused += 1,
        }
        publisher.input.clear();
        publisher.quiet_since_ms = self.now_ms;
        let event = publisher
            .under_way
            .take()
            .expect("an answer has its request");
        let known = &mut self.events[event].status;
        // Under one key it is published if one of the publishes was accepted.
        if *known != Some(200) {
            *known = Some(status);
        }
        if status == 200 && publisher.is_repeat {
            self.counts.repeated += 1;
        } else if status == 200 {
            self.answered.push(event);
        }
    }

    fn read_frames(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.is_gone {
            return;
        }
        let bytes_max = match client.kind {
            Kind::Observer => usize::MAX,
            Kind::Quick => 1 + self.random.below(16 << 10),
            Kind::Slow if self.random.one_in(self.weights.slow_read) => 1 + self.random.below(2000),
            Kind::Slow => 0,
        };
        match self.network.read(client.peer, bytes_max) {
            Read::Bytes(bytes) => client.input.extend(bytes),
            Read::EndOfStream | Read::Broken => {
                assert_ne!(
                    client.kind,
                    Kind::Observer,
                    "seed {}: an observer stays, and was closed with {:?}",
                    self.seed,
                    client.close_code
                );
                client.is_gone = true;
                self.counts.closed += 1;
                self.network.end(client.peer);
            }
        }
        if !client.is_open {
            let end = client
                .input
                .windows(4)
                .position(|bytes| bytes == b"\r\n\r\n");
            let Some(end) = end else { return };
            assert!(client.input.starts_with(b"HTTP/1.1 101 "));
            client.input.drain(..end + 4);
            client.is_open = true;
        }
        while let Some((first, payload)) = take_frame(&mut self.clients[number].input) {
            let text = String::from_utf8_lossy(&payload).into_owned();
            match first {
                0x81 => self.on_message(number, &text),
                0xC1 => {
                    let mut inflater = Inflater::default();
                    let inflated = inflater.inflate(&payload, usize::MAX).unwrap();
                    let text = String::from_utf8_lossy(inflated).into_owned();
                    self.counts.inflated += 1;
                    self.on_message(number, &text);
                }
                0x88 => {
                    let code = payload.first_chunk().copied().map(u16::from_be_bytes);
                    self.clients[number].close_code = code;
                }
                0x89 => self.send(number, 0x8A, &payload),
                _ => panic!(
                    "seed {}: client {number} read a frame {first:#x} {text}",
                    self.seed
                ),
            }
        }
    }

    fn on_message(&mut self, number: usize, text: &str) {
        let seed = self.seed;
        let value: serde_json::Value = serde_json::from_str(text)
            .unwrap_or_else(|error| panic!("seed {seed}: client {number} read {text}: {error}"));
        let posted = self.events.len();
        let client = &mut self.clients[number];
        let channel = value["channel"].as_str().unwrap_or_default();
        match value["event"].as_str().unwrap() {
            "pusher:connection_established" => {
                let data = value["data"].as_str().unwrap();
                let data: serde_json::Value = serde_json::from_str(data).unwrap();
                client.socket_id = Some(data["socket_id"].as_str().unwrap().to_string());
            }
            "pusher_internal:subscription_succeeded" => {
                let held = client.subscriptions.get_mut(channel).unwrap();
                held.is_awaited = false;
                held.periods.push(Period {
                    posted_after: posted,
                    ..Period::default()
                });
                if KEPT.contains(&channel) {
                    let data = inner(&value);
                    let epoch = data["epoch"].as_str().unwrap().to_string();
                    let serial = data["serial"].as_u64().unwrap();
                    let missed = &data["missed"];
                    let missed = missed["from"].as_u64().zip(missed["to"].as_u64());
                    client
                        .reached
                        .insert(channel.to_string(), (epoch.clone(), serial));
                    held.periods.last_mut().unwrap().stand = Some(Stand {
                        asked: held.asked.clone(),
                        epoch,
                        serial,
                        recovered: data["recovered"].as_bool(),
                        missed,
                    });
                }
                if channel == PRESENCE {
                    let presence = &inner(&value)["presence"];
                    let ids = presence["ids"].as_array().unwrap().iter();
                    client.roster = ids.map(|id| id.as_str().unwrap().to_string()).collect();
                    assert!(
                        client.roster.contains(&user_of(number)),
                        "seed {seed}: {text}"
                    );
                    self.counts.entered += 1;
                }
            }
            "pusher_internal:member_added" => {
                let user = inner(&value)["user_id"].as_str().unwrap().to_string();
                assert!(
                    client.roster.insert(user),
                    "seed {seed}: client {number} read {text}"
                );
                self.counts.changed += 1;
            }
            "pusher_internal:member_removed" => {
                let user = inner(&value)["user_id"].as_str().unwrap().to_string();
                assert_ne!(user, user_of(number), "seed {seed}: it is there itself");
                assert!(
                    client.roster.remove(&user),
                    "seed {seed}: client {number} read {text}"
                );
                self.counts.changed += 1;
            }
            "outpour:gap" => {
                let data = inner(&value);
                let (epoch, reached) = client.reached.get_mut(channel).unwrap();
                assert_eq!(
                    data["epoch"].as_str().unwrap(),
                    epoch,
                    "seed {seed}: {text}"
                );
                let (from, to) = data["from"].as_u64().zip(data["to"].as_u64()).unwrap();
                *reached = to;
                let held = client.subscriptions.get_mut(channel).unwrap();
                let period = held.periods.last_mut().unwrap();
                let reason = data["reason"].as_str().unwrap();
                let is_superseded = reason == "superseded";
                period.told.push(Told::Gap {
                    from,
                    to,
                    is_superseded,
                });
                match reason {
                    "evicted" => self.counts.gaps += 1,
                    "latest" => self.counts.leaps += 1,
                    "superseded" => self.counts.superseded += 1,
                    _ => panic!("seed {seed}: {text}"),
                }
            }
            "pusher:cache_miss" => {
                let held = client.subscriptions.get_mut(channel).unwrap();
                let period = held.periods.last_mut().unwrap();
                assert!(period.cached.replace(None).is_none(), "seed {seed}: {text}");
                self.counts.missed += 1;
            }
            "pusher:error" if channel == PRIVATE => {
                assert_eq!(value["data"]["code"], 4301, "seed {seed}: {text}");
                self.counts.rejected += 1;
            }
            "tick" | "client-tick" => {
                let event = value["data"].as_str().unwrap().split_once(':').unwrap().0;
                let held = client
                    .subscriptions
                    .get_mut(channel)
                    .expect("it subscribed");
                let period = held.periods.last_mut();
                let period = period.unwrap_or_else(|| {
                    panic!("seed {seed}: client {number} read of {channel} before it was confirmed")
                });
                let event = event.parse().unwrap();
                assert_eq!(
                    KEPT.contains(&channel),
                    value["serial"].is_u64(),
                    "seed {seed}: {text}"
                );
                if let Some(serial) = value["serial"].as_u64() {
                    let mut disks = self.disks.iter();
                    let is_synced = disks.any(|disk| disk.synced.is_some_and(|at| at.1 >= serial));
                    assert!(
                        channel != DURABLE || self.disks.is_empty() || is_synced,
                        "seed {seed}: {text} is not on disk"
                    );
                    client.reached.get_mut(channel).unwrap().1 = serial;
                    period.told.push(Told::Event { serial, event });
                }
                if channel == CACHE && period.cached.is_none() {
                    period.cached = Some(Some(event));
                    self.counts.cached += 1;
                } else {
                    period.events.push(event);
                    self.counts.delivered += 1;
                }
            }
            _ => panic!("seed {seed}: client {number} read {text}"),
        }
    }

    fn run_until(&mut self, what: &str, is_so: impl Fn(&World) -> bool) {
        for _ in 0..5000 {
            if is_so(self) {
                return;
            }
            self.step();
        }
        panic!("seed {}: not within 5000 turns: {what}", self.seed);
    }

    fn check(&self) {
        for channel in CHANNELS {
            let order = &self.clients[0].subscriptions[channel].periods[0].events;
            let seen: BTreeSet<usize> = order.iter().copied().collect();
            assert_eq!(
                seen.len(),
                order.len(),
                "seed {}: {channel} has each once",
                self.seed
            );
            for (number, event) in self.events.iter().enumerate() {
                let is_of_channel = event.channels.iter().any(|name| name == channel);
                let has_durable = event.channels.iter().any(|name| name == DURABLE);
                let refused_elsewhere = has_durable && channel != DURABLE && !self.disks.is_empty();
                match event.status {
                    Some(200) if is_of_channel => {
                        assert!(
                            seen.contains(&number),
                            "seed {}: {number} is lost",
                            self.seed
                        );
                    }
                    // It may have been refused in its durable channel alone.
                    Some(503) if refused_elsewhere => {}
                    Some(503) => assert!(!seen.contains(&number), "seed {}: {number}", self.seed),
                    Some(_) | None => {}
                }
                assert!(is_of_channel || !seen.contains(&number));
            }
            if KEPT.contains(&channel) {
                continue;
            }
            for number in 0..self.clients.len() {
                self.check_client(number, channel, order);
            }
        }
        self.check_rosters();
    }

    /// Everybody knows the same events by their serials, and has all of them from where it stood.
    fn check_kept(&mut self, is_drained: bool) {
        for channel in KEPT {
            let mut by_serial = BTreeMap::new();
            let mut epochs = BTreeSet::new();
            for period in self.periods_of(channel) {
                let stand = period.stand.as_ref().unwrap();
                epochs.insert(stand.epoch.clone());
                for told in &period.told {
                    if let Told::Event { serial, event } = *told {
                        let known = *by_serial.entry(serial).or_insert(event);
                        assert_eq!(known, event, "seed {}: {channel} {serial}", self.seed);
                    }
                }
            }
            assert_eq!(epochs.len(), 1, "seed {}: {channel}", self.seed);
            let events: BTreeSet<usize> = by_serial.values().copied().collect();
            assert_eq!(
                events.len(),
                by_serial.len(),
                "seed {}: {channel}",
                self.seed
            );
            assert!(
                is_drained || by_serial.keys().copied().eq(1..=by_serial.len() as u64),
                "seed {}: {channel}: the observers had all of them",
                self.seed
            );
            for number in 0..self.clients.len() {
                self.check_serials(number, channel, &by_serial, is_drained);
            }
        }
    }

    fn periods_of(&self, channel: &str) -> impl Iterator<Item = &Period> {
        let held = self.clients.iter();
        let held = held.filter_map(move |client| client.subscriptions.get(channel));
        held.flat_map(|held| &held.periods)
    }

    fn check_serials(
        &mut self,
        number: usize,
        channel: &str,
        by_serial: &BTreeMap<u64, usize>,
        is_drained: bool,
    ) {
        let client = &self.clients[number];
        let Some(held) = client.subscriptions.get(channel) else {
            return;
        };
        let is_for_it = |serial: u64| match by_serial.get(&serial) {
            Some(event) => {
                let excluded = self.events[*event].excluded.as_ref();
                excluded.is_none() || excluded != client.socket_id.as_ref()
            }
            // Of a drain nobody may be left who could have seen it.
            None => !is_drained,
        };
        let (mut resumed, mut late, mut rewound) = (0, 0, 0);
        for (place, period) in held.periods.iter().enumerate() {
            let about = format!(
                "seed {}: client {number}, {channel}, period {place}",
                self.seed
            );
            let stand = period.stand.as_ref().unwrap();
            match (&stand.asked, stand.recovered) {
                (Asked::Resume(serial), Some(true)) => {
                    assert_eq!((stand.serial, stand.missed), (*serial, None), "{about}");
                    resumed += 1;
                }
                (Asked::Resume(serial), Some(false)) => {
                    let missed = Some((serial + 1, stand.serial));
                    assert_eq!(stand.missed, missed, "{about}");
                    late += 1;
                }
                (Asked::Head | Asked::Rewind, None) => {}
                _ => panic!("{about}: {stand:?}"),
            }
            // What was published after it was let in comes, whatever it asked for.
            let due = by_serial
                .iter()
                .find(|(_, event)| **event >= period.posted_after);
            assert!(
                due.is_none_or(|(serial, _)| stand.serial < *serial),
                "{about}: late"
            );
            let mut next = stand.serial + 1;
            let pass = |to: u64, next: &mut u64| {
                while *next < to && !is_for_it(*next) {
                    *next += 1;
                }
                assert_eq!(*next, to, "{about}: {period:?}");
            };
            for told in &period.told {
                match *told {
                    Told::Event { serial, event } => {
                        assert!(is_for_it(serial), "{about}: {serial} is not for it");
                        pass(serial, &mut next);
                        next += 1;
                        let is_old = event < period.posted_after;
                        rewound += usize::from(is_old && matches!(stand.asked, Asked::Rewind));
                    }
                    Told::Gap {
                        from,
                        to,
                        is_superseded,
                    } => {
                        pass(from, &mut next);
                        assert!(to >= from, "{about}");
                        for serial in
                            (from..=to).filter(|serial| is_superseded && is_for_it(*serial))
                        {
                            let key_of = |serial| {
                                let event: Option<&usize> = by_serial.get(&serial);
                                event.and_then(|event| self.events[*event].key)
                            };
                            let key = key_of(serial);
                            let mut later = by_serial.range(serial + 1..);
                            assert!(
                                key.is_some() && later.any(|(later, _)| key_of(*later) == key),
                                "{about}: {serial} is the newest of its key"
                            );
                        }
                        next = to + 1;
                    }
                }
            }
            let is_last = place + 1 == held.periods.len();
            if is_last && held.is_wanted && !client.is_gone {
                let end = by_serial.last_key_value().map_or(0, |(serial, _)| *serial) + 1;
                pass(end.max(next), &mut next);
            }
        }
        self.counts.resumed += resumed;
        self.counts.late += late;
        self.counts.rewound += rewound;
    }

    /// All who are in the presence channel know of exactly those who are.
    fn check_rosters(&self) {
        let members = (0..self.clients.len()).filter(|number| {
            let client = &self.clients[*number];
            let held = client.subscriptions.get(PRESENCE);
            !client.is_gone
                && client.close_code.is_none()
                && held.is_some_and(|held| held.is_wanted)
        });
        let users: BTreeSet<String> = members.clone().map(user_of).collect();
        for number in members {
            let roster = &self.clients[number].roster;
            assert_eq!(*roster, users, "seed {}: client {number}", self.seed);
        }
    }

    fn check_client(&self, number: usize, channel: &str, order: &[usize]) {
        let (client, seed) = (&self.clients[number], self.seed);
        let Some(held) = client.subscriptions.get(channel) else {
            return;
        };
        let is_for_it = |event: &usize| {
            let excluded = self.events[*event].excluded.as_ref();
            excluded.is_none() || excluded != client.socket_id.as_ref()
        };
        if channel == CACHE {
            for (place, period) in held.periods.iter().enumerate() {
                let Some(cached) = period.cached else {
                    continue;
                };
                let next = cached.map_or(Some(0), |cached| {
                    let place = order.iter().position(|event| *event == cached);
                    place.map(|place| place + 1)
                });
                let next = next.expect("what is cached is in the channel's order");
                let mut due = order[next..].iter().filter(|event| is_for_it(event));
                assert!(
                    period.events.iter().all(|event| due.next() == Some(event)),
                    "seed {seed}: client {number}, period {place}: behind {cached:?}"
                );
            }
        }
        let order: Vec<usize> = order.iter().copied().filter(is_for_it).collect();
        let mut least = 0;
        for (place, period) in held.periods.iter().enumerate() {
            let about = format!("seed {seed}: client {number}, {channel}, period {place}");
            let is_last = place + 1 == held.periods.len();
            let stays = is_last && held.is_wanted && !client.is_gone;
            let due = order.iter().position(|event| *event >= period.posted_after);
            let Some(first) = period.events.first() else {
                assert!(!stays || due.is_none(), "{about}: nothing came");
                continue;
            };
            let start = order.iter().position(|event| event == first);
            let start = start.unwrap_or_else(|| panic!("{about}: {first} is not for it"));
            assert!(start >= least, "{about}: {first} came twice");
            assert!(due.is_none_or(|due| start <= due), "{about}: begins late");
            least = start + period.events.len();
            assert_eq!(
                order.get(start..least),
                Some(&period.events[..]),
                "{about}: order"
            );
            assert!(
                !stays || least == order.len(),
                "{about}: the last events are missing"
            );
        }
    }

    /// The shards drain, one a little later than the other, while publishes are under way and
    /// clients come to a channel and go.
    fn drain(&mut self) {
        let is_pressed = self.weights.favourite.is_some();
        if !is_pressed {
            (self.weights.data_bytes, self.weights.large) = (300, 1);
        }
        self.connect_publishers(16);
        // A shard without a connection is still the home of what the other one publishes.
        let is_deserted = self.random.one_in(3);
        for client in self.clients.iter_mut().filter(|client| client.shard == 0) {
            if is_deserted && !client.is_gone {
                self.network.end(client.peer);
                client.is_gone = true;
            }
        }
        for _ in 0..40 {
            self.step();
        }
        for client in self.clients.iter_mut().filter(|client| client.is_open) {
            client.kind = Kind::Quick;
            for held in client.subscriptions.values_mut() {
                let period = held.periods.last();
                let is_held = held.is_wanted && !held.is_awaited;
                let confirmed = period.filter(|_| is_held && !client.is_gone);
                held.before_drain = confirmed.map(|period| period.events.len());
            }
        }
        let first = self.answered.len();
        let mut places: Vec<usize> = (0..self.publishers.len()).collect();
        places.rotate_left(self.random.below(16));
        if is_pressed {
            // What the other shard takes in meanwhile waits until it goes on, in the drain.
            let stalled = self.random.below(usize::from(SHARDS));
            self.stalled[stalled] = STALL_STEPS_MAX.min(STALL_MS_MAX / self.weights.turn_ms);
        }
        for publisher in places {
            let Publisher {
                under_way, shard, ..
            } = self.publishers[publisher];
            if under_way.is_none() && !(is_deserted && shard == 0) {
                self.publish(publisher);
            }
            // Not of an observer, who would not see it.
            let client = 2 + self.random.below(self.clients.len() - 2);
            if !self.clients[client].is_gone {
                self.trigger(client);
            }
            if self.random.one_in(3) {
                self.step();
            }
        }
        let began_ms = self.now_ms;
        for shard in 0..SHARDS {
            self.is_draining[usize::from(shard)] = true;
            self.network.wake(shard);
            for _ in 0..self.random.below(4) {
                self.note_promises();
                self.step();
            }
        }
        while self.has_returned.contains(&false) {
            let taken_ms = self.now_ms - began_ms;
            assert!(taken_ms < DRAINED_MS, "seed {}: not drained", self.seed);
            self.note_promises();
            let client = self.random.below(self.clients.len());
            if !self.clients[client].is_gone && self.clients[client].close_code.is_none() {
                self.come_or_go(client, "drain");
            }
            self.step();
        }
        self.outlive_caches();
        self.run_until("everybody knows", |world| {
            let mut shards = world.shards.iter();
            world.clients.iter().all(|client| client.is_gone)
                && shards.all(|shard| shard.ring.is_empty() && shard.engine.channels.is_empty())
        });
        self.counts.drained += 1;
        self.check_drained(first);
        self.check_kept(true);
    }

    /// What cache channels remember is over.
    fn outlive_caches(&mut self) {
        self.now_ms += u64::from(Options::default().apps[0].cache_ttl_s + 1) * 1000;
    }

    /// What publishers have been told by now is promised to every client that is open now.
    fn note_promises(&mut self) {
        for client in &mut self.clients {
            let Some(id) = &client.socket_id else {
                continue;
            };
            let second: u64 = id.split_once('.').unwrap().1.parse().unwrap();
            let socket = Socket {
                slot: (second & ((1 << GENERATION_BITS) - 1)) as u32,
                generation: (second >> GENERATION_BITS) as u32,
            };
            let connections = &self.shards[usize::from(client.shard)].engine.connections;
            if connections.is_current(socket) && connections[socket.slot].state == State::Open {
                client.promised = self.answered.len();
            }
        }
    }

    /// Everybody was told to come back, behind all that it was promised and in one order.
    fn check_drained(&mut self, first: usize) {
        for (number, client) in self.clients.iter().enumerate() {
            for (channel, held) in &client.subscriptions {
                let Some(before) = held.before_drain else {
                    continue;
                };
                // One who still catches up comes back for the rest.
                if KEPT.contains(&channel.as_str()) {
                    continue;
                }
                let about = format!("seed {}: client {number}, {channel}, drain", self.seed);
                let may_lose = self.weights.favourite.is_some() || self.forgets;
                if may_lose && client.close_code == Some(4100) {
                    continue;
                }
                assert_eq!(client.close_code, Some(4200), "{about}");
                let got = &held.periods.last().unwrap().events[before..];
                let is_for_it = |event: &usize| {
                    let excluded = self.events[*event].excluded.as_ref();
                    excluded.is_none() || excluded != client.socket_id.as_ref()
                };
                let answers = &self.answered[first..client.promised.max(first)];
                for event in answers.iter().filter(|event| is_for_it(event)) {
                    let is_of_channel = self.events[*event].channels.contains(channel);
                    assert!(
                        !is_of_channel || got.contains(event),
                        "{about}: {event} is lost"
                    );
                }
                // The observer of the shard that is never deserted.
                let observed = &self.clients[1].subscriptions[channel];
                let order = &observed.periods[0].events[observed.before_drain.unwrap()..];
                let order = order.iter().copied().filter(is_for_it);
                assert!(
                    order.zip(got).all(|(event, got)| event == *got),
                    "{about}: order"
                );
                self.counts.kept += got.len();
            }
        }
    }

    /// Everybody goes, and nothing is left.
    fn leave(&mut self) {
        for number in 0..self.clients.len() {
            if self.clients[number].is_gone {
                continue;
            }
            match number % 3 {
                0 => self.send(number, 0x88, &[0x03, 0xE8]),
                1 => self.network.end(self.clients[number].peer),
                _ => self.network.reset(self.clients[number].peer),
            }
            self.clients[number].is_gone = true;
        }
        for publisher in std::mem::take(&mut self.publishers) {
            self.network.end(publisher.peer);
        }
        self.outlive_caches();
        self.run_until("everybody has gone", |world| {
            let mut shards = world.shards.iter();
            shards.all(|shard| shard.ring.is_empty() && shard.engine.channels.is_empty())
        });
        for shard in &self.shards {
            assert_eq!(shard.engine.channels.len(), 0);
            assert_eq!(shard.engine.channels.log_bytes(), 0);
        }
    }
}

/// The first whole frame, which a server sends without a mask.
fn take_frame(input: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let second = usize::from(*input.get(1)?);
    let (start, length) = match second {
        0..126 => (2, second),
        126 => (
            4,
            usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?])),
        ),
        _ => panic!("a frame longer than any event: {second}"),
    };
    let payload = input.get(start..start + length)?.to_vec();
    let first = input[0];
    input.drain(..start + length);
    Some((first, payload))
}

/// Who a client is in the presence channel: some are the same user.
fn user_of(client: usize) -> String {
    format!("u{}", client % USERS)
}

/// The value that the text in an event's data stands for.
fn inner(event: &serde_json::Value) -> serde_json::Value {
    serde_json::from_str(event["data"].as_str().unwrap()).unwrap()
}
