//! All units of clients together: a command is shared out, and the answers are added up.

use std::io;
use std::thread;
use std::time::Duration;

use crate::load::clients::Clients;
use crate::load::machine::monotonic_ns;
use crate::load::orders::{
    Answer, CLIENTS_PER_RING, Command, Count, Glance, Manner, Orders, Settled,
};

/// Clients of one process: as many rings as that take, each with a thread.
const CLIENTS_PER_UNIT: usize = 4 * CLIENTS_PER_RING;
/// How often a command that takes its time is looked after.
const GLANCE_EVERY: Duration = Duration::from_millis(100);

pub struct Crowd {
    units: Vec<Unit>,
    /// When every client last gave a sign of life.
    said_ns: u64,
}

struct Unit {
    process: Clients,
    /// Its share of the clients that count, at most.
    clients_max: usize,
}

impl Unit {
    /// Why it is gone, if it said so before it went.
    fn last_words(&mut self) -> Option<io::Error> {
        loop {
            match self.process.hear() {
                Ok(Answer::Failed(why)) => return Some(io::Error::other(why)),
                Ok(Answer::Settled(_) | Answer::Glance(_) | Answer::Count(_)) => {}
                Err(_) => return None,
            }
        }
    }
}

impl Crowd {
    /// Starts as many units as `clients_max` clients and their `guests` take. The orders are those
    /// of one unit for all of them.
    pub fn start(orders: &Orders, clients_max: usize, guests: usize) -> io::Result<Crowd> {
        let count = (clients_max + guests).div_ceil(CLIENTS_PER_UNIT).max(1);
        // A whole number of rounds over the channels, so that each unit has as many clients of each.
        let channels = usize::try_from(orders.channels.shared().max(1)).unwrap_or(usize::MAX);
        let clients_each = clients_max.div_ceil(count).next_multiple_of(channels);
        let mut units = Vec::with_capacity(count);
        for number in 0..count {
            let first = (number * clients_each).min(clients_max);
            let share = clients_each.min(clients_max - first);
            let orders = Orders {
                first_client: first as u64,
                clients_max: share + guests.div_ceil(count),
                opening_max: orders.opening_max.div_ceil(count),
                ..orders.clone()
            };
            units.push(Unit {
                process: Clients::start(&orders)?,
                clients_max: share,
            });
        }
        Ok(Crowd {
            units,
            said_ns: monotonic_ns(),
        })
    }

    /// Opens clients until there are so many in all.
    pub fn open(
        &mut self,
        clients: usize,
        per_second: Option<f64>,
        watch: impl FnMut(&Glance),
    ) -> io::Result<Settled> {
        let shares = self.first_units_first(clients);
        let pace = self.pace(per_second);
        self.tell_each(|unit| Command::Open {
            clients: shares[unit],
            per_second: pace,
        })?;
        self.settle(watch)
    }

    /// Closes the last clients until so many are left in all.
    pub fn close(&mut self, clients: usize, manner: Manner) -> io::Result<Settled> {
        let shares = self.first_units_first(clients);
        self.carry_out(|unit| Command::Close {
            clients: shares[unit],
            manner,
        })
    }

    /// Drops so many clients, all in one turn, and has them back.
    pub fn reconnect(&mut self, clients: usize, watch: impl FnMut(&Glance)) -> io::Result<Settled> {
        let shares = self.evenly(clients);
        self.tell_each(|unit| Command::Reconnect {
            clients: shares[unit],
            per_second: None,
        })?;
        self.settle(watch)
    }

    /// So many clients stall, on each of `channels` as many.
    pub fn stall(
        &mut self,
        clients: usize,
        channels: usize,
        bytes_per_second: u64,
    ) -> io::Result<Settled> {
        // A unit's last clients are on the channels in turn.
        let shares = self.evenly(clients / channels);
        let shares: Vec<usize> = shares.iter().map(|share| share * channels).collect();
        self.carry_out(|unit| Command::Stall {
            clients: shares[unit],
            bytes_per_second,
        })
    }

    pub fn churn(&mut self, per_second: f64, guests: usize) -> io::Result<Settled> {
        let shares = self.evenly(guests);
        let pace = per_second / self.units.len() as f64;
        self.carry_out(|unit| Command::Churn {
            per_second: pace,
            guests: shares[unit],
        })
    }

    /// The same command for each unit.
    pub fn all(&mut self, command: Command) -> io::Result<Settled> {
        self.carry_out(|_| command)
    }

    /// Every client gives a sign of life, if none did for so long; says whether they did. A server asks a client that is
    /// silent whether it is there, after two minutes in the Pusher protocol, and one that only counts would count the
    /// question, and not answer it.
    pub fn keep_alive(&mut self, silent: Duration) -> io::Result<bool> {
        let now_ns = monotonic_ns();
        if u128::from(now_ns.saturating_sub(self.said_ns)) < silent.as_nanos() {
            return Ok(false);
        }
        self.all(Command::Heartbeat)?;
        self.said_ns = now_ns;
        Ok(true)
    }

    pub fn glance(&mut self) -> io::Result<Glance> {
        self.tell_each(|_| Command::Glance)?;
        let mut all = Glance::default();
        for unit in &mut self.units {
            match unit.process.hear()? {
                Answer::Glance(glance) => all.add(&glance),
                Answer::Failed(why) => return Err(io::Error::other(why)),
                Answer::Settled(_) | Answer::Count(_) => return Err(out_of_turn()),
            }
        }
        Ok(all)
    }

    pub fn report(&mut self) -> io::Result<Count> {
        self.tell_each(|_| Command::Report)?;
        let mut all = Count::default();
        for unit in &mut self.units {
            match unit.process.hear()? {
                Answer::Count(count) => all.add(&count),
                Answer::Failed(why) => return Err(io::Error::other(why)),
                Answer::Settled(_) | Answer::Glance(_) => return Err(out_of_turn()),
            }
        }
        Ok(all)
    }

    /// The processes, for whoever reads their memory.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.units.iter().map(|unit| unit.process.process())
    }

    fn carry_out(&mut self, command: impl Fn(usize) -> Command) -> io::Result<Settled> {
        self.tell_each(command)?;
        self.settle(|_| {})
    }

    fn tell_each(&mut self, command: impl Fn(usize) -> Command) -> io::Result<()> {
        for (number, unit) in self.units.iter_mut().enumerate() {
            unit.process.tell(command(number))?;
        }
        Ok(())
    }

    /// Waits until every unit has carried out what it was told, and lets `watch` see how far they
    /// all are meanwhile.
    fn settle(&mut self, mut watch: impl FnMut(&Glance)) -> io::Result<Settled> {
        let mut all = Settled::default();
        let mut open: Vec<bool> = vec![true; self.units.len()];
        while open.contains(&true) {
            thread::sleep(Duration::from_millis(1));
            let mut glances = Glance::default();
            for (unit, is_open) in self.units.iter_mut().zip(&mut open) {
                if let Err(error) = unit.process.tell(Command::Glance) {
                    return Err(unit.last_words().unwrap_or(error));
                }
                // What it had to do may be done before it looks at this: then that is told first.
                loop {
                    match unit.process.hear()? {
                        Answer::Settled(settled) => {
                            all.add(&settled);
                            *is_open = false;
                        }
                        Answer::Glance(glance) => {
                            glances.add(&glance);
                            break;
                        }
                        Answer::Failed(why) => return Err(io::Error::other(why)),
                        Answer::Count(_) => return Err(out_of_turn()),
                    }
                }
            }
            watch(&glances);
            if open.contains(&true) {
                thread::sleep(GLANCE_EVERY);
            }
        }
        Ok(all)
    }

    /// The first units are filled first, so that a client keeps its number.
    fn first_units_first(&self, clients: usize) -> Vec<usize> {
        let mut left = clients;
        let share = |unit: &Unit| {
            let share = left.min(unit.clients_max);
            left -= share;
            share
        };
        self.units.iter().map(share).collect()
    }

    fn evenly(&self, clients: usize) -> Vec<usize> {
        let count = self.units.len();
        (0..count)
            .map(|number| clients / count + usize::from(number < clients % count))
            .collect()
    }

    fn pace(&self, per_second: Option<f64>) -> Option<f64> {
        per_second.map(|pace| pace / self.units.len() as f64)
    }
}

fn out_of_turn() -> io::Error {
    io::Error::other("a unit of clients answered what it was not asked")
}
