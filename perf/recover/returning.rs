//! The process of those who are dropped and come back, and of one who is always there.
//!
//! One thread waits for whatever is readable and reads it with one buffer. It steps back for every
//! other process of its core, so that the delay of the live subscribers, who are read there too, is
//! the server's and not its own.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use outpour::load::companion::{answer, next_command};
use outpour::load::dialect::{Fault, upgrade};
use outpour::load::machine::{self, monotonic_ns};
use outpour::load::result::LatencyHistogram;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use serde::{Deserialize, Serialize};

use super::reader::{Numbered, Reader, Stage, Subject};

/// The hidden first argument that makes the program this process.
pub const ROLE: &str = "returning";

/// Bytes that one look at a socket takes at most.
const READ_BYTES: usize = 256 << 10;
/// Connections that are opened before the sockets are looked at again.
const OPENED_AT_ONCE: usize = 32;
/// As long as this nothing may arrive while something is awaited.
const PATIENCE_NS: u64 = 30_000_000_000;
/// How nice it is to the live subscribers' process: a tenth of the weight.
const STEPS_BACK: i32 = 10;
/// Faults that are told; the others are counted.
const TOLD_MAX: usize = 10;

#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    pub target: SocketAddr,
    pub key: String,
    pub channel: String,
    pub event: String,
    /// How many readers each group has. The reader beside them, who is never dropped, comes at once.
    pub groups: Vec<usize>,
    /// Reader `k` of a group is dropped when it has `1 + k % spread` events.
    pub spread: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Command {
    /// A group comes for the first time. Settled when all are subscribed.
    Come { group: usize },
    /// Settled when all of a group have been dropped.
    Dropped { group: usize },
    /// Everybody comes back. Answered when all have the event that is the newest now.
    Return,
    /// Answered when everybody has the event with this serial, or nothing comes any more.
    Compare { serial: u64 },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Settled,
    Returned(Returned),
    Compared(Compared),
    Failed(String),
}

/// What it took until all had what they had missed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Returned {
    /// For each group: from a reader's connecting until it has the event that was the newest when
    /// all began to come back.
    pub caught_up: Vec<LatencyHistogram>,
    /// Of those who came back, live events that came meanwhile included.
    pub bytes: u64,
    pub events: u64,
    pub wall_ns: u64,
    pub cpu_ns: u64,
}

/// Every reader against the one who was always there.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Compared {
    pub readers: u64,
    pub events: u64,
    /// Readers whose serials had a gap, a repeat or a reorder, who were told of a gap, who lack
    /// something, or whose checksum is another.
    pub wrong: u64,
    pub faults: Vec<String>,
}

/// Runs the process until the program that started it is gone.
pub fn serve() -> io::Result<()> {
    let Some(orders) = next_command::<Orders>()? else {
        return Ok(());
    };
    machine::lift_open_files();
    rustix::process::nice(STEPS_BACK)?;
    let (tell, commands) = mpsc::channel();
    let mut crowd = Crowd::new(&orders)?;
    thread::spawn(move || {
        loop {
            match next_command::<Command>() {
                Ok(Some(command)) if tell.send(command).is_ok() => {}
                Ok(_) | Err(_) => process::exit(0),
            }
        }
    });
    if let Err(error) = crowd.run(&commands) {
        answer(&Answer::Failed(error.to_string()))?;
    }
    Ok(())
}

/// One of those who read, and its connection while it has one.
struct Member {
    group: Option<usize>,
    reader: Reader,
    socket: Option<TcpStream>,
    /// The beginning of a frame whose rest has not come.
    rest: Vec<u8>,
    /// The event with which it is dropped, or, when it came back, has caught up; none if it just
    /// reads on.
    up_to: u64,
    connected_ns: u64,
    fault: Option<Fault>,
}

struct Crowd {
    target: SocketAddr,
    request: String,
    subject: Subject,
    spread: u64,
    /// The first is the one who is always there.
    members: Vec<Member>,
    numbered: Numbered,
    epoll: rustix::fd::OwnedFd,
    buffer: Vec<u8>,
    /// Those who are still to connect.
    coming: VecDeque<usize>,
    returned: Option<Returned>,
    returned_from_ns: u64,
    cpu_from_ns: u64,
    /// Those who have not caught up.
    behind: usize,
    heard_ns: u64,
}

impl Crowd {
    fn new(orders: &Orders) -> io::Result<Crowd> {
        let member = |group| Member {
            group,
            reader: Reader::new(),
            socket: None,
            rest: Vec::new(),
            up_to: u64::MAX,
            connected_ns: 0,
            fault: None,
        };
        let mut members = vec![member(None)];
        for (group, readers) in orders.groups.iter().enumerate() {
            members.extend((0..*readers).map(|_| member(Some(group))));
        }
        let path = format!("/app/{}?protocol=7&client=recover&version=1.0", orders.key);
        Ok(Crowd {
            target: orders.target,
            request: upgrade::request(&path, orders.target, None),
            subject: Subject::new(&orders.channel, &orders.event),
            spread: orders.spread,
            members,
            numbered: Numbered::default(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            buffer: vec![0; 2 * READ_BYTES],
            coming: VecDeque::from([0]),
            returned: None,
            returned_from_ns: 0,
            cpu_from_ns: 0,
            behind: 0,
            heard_ns: 0,
        })
    }

    fn run(&mut self, commands: &Receiver<Command>) -> io::Result<()> {
        let mut events = Vec::with_capacity(1024);
        self.turn(&mut events, |crowd| {
            crowd.members[0].reader.stage == Stage::Reading
        })?;
        answer(&Answer::Settled)?;
        loop {
            match commands.try_recv() {
                Ok(command) => self.carry_out(command, &mut events)?,
                Err(TryRecvError::Empty) => {
                    self.look(&mut events)?;
                }
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    fn carry_out(&mut self, command: Command, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        match command {
            Command::Come { group } => {
                let ours = self.of_group(group);
                self.coming.extend(&ours);
                self.turn(events, |crowd| {
                    ours.iter().all(|place| {
                        let member = &crowd.members[*place];
                        member.reader.stage == Stage::Reading || member.fault.is_some()
                    })
                })?;
                for (number, place) in ours.into_iter().enumerate() {
                    let member = &mut self.members[place];
                    member.up_to = member.reader.began_at + 1 + number as u64 % self.spread;
                }
                answer(&Answer::Settled)
            }
            Command::Dropped { group } => {
                let ours = self.of_group(group);
                self.turn(events, |crowd| {
                    let mut ours = ours.iter().map(|place| &crowd.members[*place]);
                    ours.all(|member| member.socket.is_none())
                })?;
                answer(&Answer::Settled)
            }
            Command::Return => {
                self.come_back();
                self.turn(events, |crowd| crowd.behind == 0)?;
                let mut returned = self.returned.take().expect("it was just begun");
                returned.wall_ns = monotonic_ns() - self.returned_from_ns;
                returned.cpu_ns = machine::own_cpu_ns() - self.cpu_from_ns;
                answer(&Answer::Returned(returned))
            }
            Command::Compare { serial } => {
                self.turn(events, |crowd| {
                    let mut members = crowd.members.iter();
                    members.all(|member| member.reader.serial == serial || member.fault.is_some())
                })?;
                answer(&Answer::Compared(self.compare(serial)))
            }
        }
    }

    fn of_group(&self, group: usize) -> Vec<usize> {
        let members = self.members.iter().enumerate();
        let ours = members.filter(|(_, member)| member.group == Some(group));
        ours.map(|(place, _)| place).collect()
    }

    fn come_back(&mut self) {
        let newest = self.members[0].reader.serial;
        let groups = self.members.iter().filter_map(|member| member.group).max();
        self.returned = Some(Returned {
            caught_up: vec![LatencyHistogram::new(); groups.map_or(0, |last| last + 1)],
            ..Returned::default()
        });
        self.returned_from_ns = monotonic_ns();
        self.cpu_from_ns = machine::own_cpu_ns();
        // In turns of all groups: who was away for long is not the first to come.
        let mut places: Vec<usize> = (1..self.members.len()).collect();
        let share = |place: usize| {
            let group = self.members[place].group;
            let of_group = |member: &&Member| member.group == group;
            let before = self.members[..place].iter().filter(of_group).count();
            before * 1_000_000 / self.members.iter().filter(of_group).count()
        };
        places.sort_by_cached_key(|place| share(*place));
        for place in places {
            let member = &mut self.members[place];
            if member.fault.is_none() {
                member.up_to = newest;
                self.behind += 1;
                self.coming.push_back(place);
            }
        }
    }

    /// Reads on until something holds, or until nothing has come for long.
    fn turn(
        &mut self,
        events: &mut Vec<epoll::Event>,
        is_over: impl Fn(&Crowd) -> bool,
    ) -> io::Result<()> {
        self.heard_ns = monotonic_ns();
        while !is_over(self) {
            if self.look(events)? {
                self.heard_ns = monotonic_ns();
            } else if monotonic_ns() - self.heard_ns > PATIENCE_NS {
                let faults = self.compare(0).faults.join("; ");
                let why = format!(
                    "nothing has come for long; {} are behind; {faults}",
                    self.behind
                );
                return Err(io::Error::other(why));
            }
        }
        Ok(())
    }

    /// Connects some of those who come, and reads what there is. Tells whether anything was.
    fn look(&mut self, events: &mut Vec<epoll::Event>) -> io::Result<bool> {
        for _ in 0..self.coming.len().min(OPENED_AT_ONCE) {
            let Some(place) = self.coming.pop_front() else {
                break;
            };
            self.connect(place)?;
        }
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: if self.coming.is_empty() { 5_000_000 } else { 0 },
        };
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &*events {
            let place = event.data.u64() as usize;
            if let Err(fault) = self.receive(place)? {
                let member = &mut self.members[place];
                member.fault = Some(fault);
                member.socket = None;
                if self.returned.is_some() && member.up_to != u64::MAX {
                    self.behind -= 1;
                }
            }
        }
        Ok(!events.is_empty())
    }

    fn connect(&mut self, place: usize) -> io::Result<()> {
        let member = &mut self.members[place];
        member.connected_ns = monotonic_ns();
        let mut socket = TcpStream::connect(self.target)?;
        socket.write_all(self.request.as_bytes())?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        // Dropped is a reset: nothing of it waits to be used again.
        socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO))?;
        let data = epoll::EventData::new_u64(place as u64);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
        member.socket = Some(socket);
        Ok(())
    }

    /// Reads once from a socket, and everything that is whole of it.
    fn receive(&mut self, place: usize) -> io::Result<Result<(), Fault>> {
        let member = &mut self.members[place];
        let Some(socket) = &mut member.socket else {
            return Ok(Ok(()));
        };
        let kept = member.rest.len();
        self.buffer[..kept].copy_from_slice(&member.rest);
        let got = match socket.read(&mut self.buffer[kept..kept + READ_BYTES]) {
            Ok(0) => return Ok(Err(Fault("the server ended the connection".to_owned()))),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Ok(())),
            Err(error) => return Ok(Err(Fault(error.to_string()))),
        };
        let (mut start, end) = (0, kept + got);
        let before = member.reader.events;
        loop {
            let history = (place == 0).then_some(&mut self.numbered);
            let bytes = &self.buffer[start..end];
            let read = match member
                .reader
                .read(bytes, &self.subject, member.up_to, history)
            {
                Ok(read) => read,
                Err(fault) => return Ok(Err(fault)),
            };
            start += read.bytes;
            if let Some(say) = read.say {
                socket.write_all(&say)?;
            }
            if !read.is_there {
                break;
            }
            member.up_to = u64::MAX;
            let Some(returned) = &mut self.returned else {
                // Dropped: what came with this event is lost with the connection.
                member.reader.cut();
                member.rest.clear();
                member.socket = None;
                return Ok(Ok(()));
            };
            let us = (monotonic_ns() - member.connected_ns) / 1_000;
            let group = member.group.expect("those who come back have groups");
            returned.caught_up[group].record_us(us);
            self.behind -= 1;
        }
        if let (Some(returned), Some(_)) = (&mut self.returned, member.group) {
            returned.bytes += got as u64;
            returned.events += member.reader.events - before;
        }
        member.rest.clear();
        member.rest.extend_from_slice(&self.buffer[start..end]);
        Ok(Ok(()))
    }

    fn compare(&self, serial: u64) -> Compared {
        let mut compared = Compared::default();
        for (number, member) in self.members.iter().enumerate() {
            let reader = &member.reader;
            compared.readers += 1;
            compared.events += reader.events;
            let expected = self.numbered.history.between(reader.began_at, serial);
            let fault = match &member.fault {
                Some(Fault(fault)) => fault.clone(),
                None if reader.serial != serial => format!("it ends at {}", reader.serial),
                None if Some(reader.checksum) != expected => "another checksum".to_owned(),
                None => continue,
            };
            compared.wrong += 1;
            if compared.faults.len() < TOLD_MAX {
                compared.faults.push(format!("reader {number}: {fault}"));
            }
        }
        compared
    }
}
