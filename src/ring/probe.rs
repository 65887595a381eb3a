//! What this machine lets the server do: the facts that it looks at before it serves.
//!
//! Features are tested by what they do, on connections over loopback, for versions lie: vendors
//! move features into old kernels, and filters take them out of new ones. A fatal finding means
//! that the server would be wrong or could not run, a slow one that it would be poorer. There is no
//! fallback: each finding says how to get what is missing.
//!
//! Called at start-up and by the doctor. Takes a few milliseconds.

use super::kernel::{KernelRing, RingError, Settings};
use super::{Completion, End, Operation, Ring, Sends, ShortSend, Socket, Wait};
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Protocol, Type};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct Report {
    pub checks: Vec<Check>,
    pub limits: Limits,
}

/// One line of the checklist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub state: State,
    pub found: String,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Ok,
    /// It works, and would do better.
    Slow,
    /// There is no serving like this.
    Fatal,
}

/// The limits that bound a server; `None` where there is none or it cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub cores: usize,
    /// Open files of this process. The soft limit also bounds the direct descriptors of one ring.
    pub open_files_soft: Option<u64>,
    pub open_files_hard: Option<u64>,
    /// Since 6.14 each ring's list of receive buffers counts, 16 bytes a buffer.
    pub locked_bytes_soft: Option<u64>,
    pub locked_bytes_hard: Option<u64>,
    /// Connections that wait to be accepted, per listener.
    pub listen_backlog_max: Option<u64>,
    pub handshake_backlog_max: Option<u64>,
    /// First and last port that an outgoing connection gets; bounds a load generator.
    pub local_ports: Option<(u64, u64)>,
    /// Pages for all TCP sockets: relaxed below, under pressure above, the most.
    pub tcp_pages: Option<[u64; 3]>,
    /// Bytes of one socket's buffer: least, at first, most.
    pub tcp_send_bytes: Option<[u64; 3]>,
    pub tcp_receive_bytes: Option<[u64; 3]>,
    /// Open files of the whole machine, and the most that a process may be allowed.
    pub machine_files_max: Option<u64>,
    pub process_files_max: Option<u64>,
}

impl Report {
    pub fn is_fatal(&self) -> bool {
        self.fatal().next().is_some()
    }

    pub fn fatal(&self) -> impl Iterator<Item = &Check> {
        let checks = self.checks.iter();
        checks.filter(|check| check.state == State::Fatal)
    }
}

/// Looks at everything. A check that needs what an earlier one found missing is left out.
pub fn probe() -> Report {
    let limits = Limits::read();
    let mut checks = vec![kernel_release(&release())];
    match KernelRing::new(SETTINGS) {
        Err(error) => checks.push(refused(&error, &Guard::read())),
        Ok(ring) => {
            checks.push(ok("io_uring", "allowed"));
            let operations = operations(&ring);
            let is_complete = operations.state == State::Ok;
            checks.push(operations);
            drop(ring);
            if is_complete {
                checks.extend(BEHAVIOURS.iter().map(Behaviour::check));
            }
        }
    }
    checks.extend(limits.checks());
    Report { checks, limits }
}

/// The oldest kernel that has all of it: DEFER_TASKRUN, and partial sends that are not lost.
const KERNEL_MIN: (u32, u32) = (6, 1);

fn release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

fn kernel_release(release: &str) -> Check {
    const NAME: &str = "kernel";
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut number = || numbers.next().and_then(|digits| digits.parse::<u32>().ok());
    match (number(), number()) {
        (Some(major), Some(minor)) if (major, minor) >= KERNEL_MIN => ok(NAME, release),
        (Some(_), Some(_)) => fatal(NAME, release, "run Linux 6.1 or newer"),
        _ => slow(NAME, release, "the checks below tell whether it will do"),
    }
}

/// Who may have refused io_uring.
struct Guard {
    /// 0: nobody; 1: all but one group; 2: everybody. `None` before 6.6.
    is_disabled: Option<u64>,
    /// A seccomp filter sees this process's system calls.
    is_filtered: bool,
}

impl Guard {
    fn read() -> Guard {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut lines = status.lines();
        let mode = lines.find_map(|line| line.strip_prefix("Seccomp:"));
        Guard {
            is_disabled: number("/proc/sys/kernel/io_uring_disabled"),
            is_filtered: mode.is_some_and(|mode| mode.trim() == "2"),
        }
    }
}

fn refused(error: &RingError, guard: &Guard) -> Check {
    let found = error.to_string();
    let source = match error {
        RingError::Setup(source)
        | RingError::FileSlots { source, .. }
        | RingError::Buffers(source)
        | RingError::Waker(source) => source,
    };
    let remedy = match (source.raw_os_error(), guard.is_disabled) {
        (Some(libc::EPERM), Some(2)) => "sysctl -w kernel.io_uring_disabled=0",
        (Some(libc::EPERM), Some(1)) => {
            "sysctl -w kernel.io_uring_disabled=0, or run in the group that \
             kernel.io_uring_group names"
        }
        (Some(libc::EPERM | libc::ENOSYS | libc::EACCES), _) if guard.is_filtered => {
            "a seccomp filter forbids io_uring: docker run --security-opt seccomp=<profile that \
             allows io_uring_setup, io_uring_enter, io_uring_register>, or seccomp=unconfined; in \
             Kubernetes a Localhost seccompProfile; in systemd SystemCallFilter=@aio"
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "a security module forbids io_uring: allow it for this program"
        }
        (Some(libc::ENOSYS), _) => "run a kernel that was built with CONFIG_IO_URING",
        (Some(libc::EINVAL), _) => "run Linux 6.1 or newer",
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            "ulimit -n 1048576; in systemd LimitNOFILE=1048576; docker run --ulimit nofile=1048576"
        }
        (Some(libc::ENOMEM), _) => {
            "ulimit -l unlimited; in systemd LimitMEMLOCK=infinity; docker run --ulimit memlock=-1"
        }
        _ => "see the error",
    };
    fatal("io_uring", found, remedy)
}

fn operations(ring: &KernelRing) -> Check {
    const NAME: &str = "operations";
    let remedy = "run Linux 6.1 or newer";
    match ring.missing_operations() {
        Ok(missing) if missing.is_empty() => ok(NAME, "all known"),
        Ok(missing) => fatal(NAME, format!("missing: {}", missing.join(", ")), remedy),
        Err(error) => fatal(NAME, format!("cannot be asked for: {error}"), remedy),
    }
}

/// Something that the engine relies on the kernel to do.
struct Behaviour {
    name: &'static str,
    /// What it means if the kernel does otherwise.
    otherwise: State,
    remedy: &'static str,
    trial: fn() -> Result<(), Deviation>,
}

/// What the kernel did instead.
struct Deviation(String);

const BEHAVIOURS: [Behaviour; 8] = [
    Behaviour {
        name: "a whole send leaves no completion",
        otherwise: State::Fatal,
        remedy: "run Linux 6.1 or newer",
        trial: a_whole_send_is_silent,
    },
    Behaviour {
        name: "a short send tells what went out",
        otherwise: State::Fatal,
        remedy: "run Linux 6.1 or newer, where partial sends are reported",
        trial: || a_short_send_is_exact(&[SHORT_TRIAL_BYTES]),
    },
    Behaviour {
        name: "a short gathered send tells what went out",
        otherwise: State::Fatal,
        remedy: "run Linux 6.1 or newer, where partial sends are reported",
        trial: || a_short_send_is_exact(&[1, 900, SHORT_TRIAL_BYTES / 2, SHORT_TRIAL_BYTES / 2]),
    },
    Behaviour {
        name: "one receive goes on from buffer to buffer",
        otherwise: State::Fatal,
        remedy: "run Linux 6.1 or newer, which has multishot receives",
        trial: a_receive_goes_on,
    },
    Behaviour {
        name: "a full socket tells when it has room",
        otherwise: State::Fatal,
        remedy: "run Linux 6.1 or newer",
        trial: room_is_told,
    },
    Behaviour {
        name: "a ring wakes another",
        otherwise: State::Fatal,
        remedy: "run Linux 6.1 or newer, which has MSG_RING",
        trial: a_ring_wakes_another,
    },
    Behaviour {
        name: "a connection moves from ring to ring",
        otherwise: State::Fatal,
        remedy: "run Linux 6.1 or newer, where MSG_RING passes descriptors",
        trial: a_connection_moves,
    },
    Behaviour {
        name: "a closed socket is freed while others receive",
        otherwise: State::Slow,
        remedy: "run Linux 6.13 or newer: before, a closed socket keeps its memory until every \
                 receive that is older than the close has ended",
        trial: a_closed_socket_is_freed,
    },
];

impl Behaviour {
    fn check(&self) -> Check {
        match (self.trial)() {
            Ok(()) => ok(self.name, "yes"),
            Err(Deviation(found)) => Check {
                name: self.name,
                state: self.otherwise,
                found,
                remedy: self.remedy.to_owned(),
            },
        }
    }
}

const SETTINGS: Settings = Settings {
    file_slots: 4,
    submission_entries: 8,
    completion_entries: 16,
    receive_buffers: 8,
    receive_buffer_bytes: 64,
    accepts: 2,
    skims: 0,
};

const SMALL_BUFFER_BYTES: usize = 16 << 10;

/// Several times what two sockets with small buffers hold.
const SHORT_TRIAL_BYTES: usize = 256 << 10;

/// What the kernel does at once on loopback, or never.
const PATIENCE: Duration = Duration::from_millis(500);

fn a_whole_send_is_silent() -> Result<(), Deviation> {
    let mut trial = Trial::new()?;
    let mut client = trial.accept(FIRST)?;
    let before = trial.ring.tally().completions;
    let short = trial.send(&[b"whole".to_vec()])?;
    let completions = trial.ring.tally().completions - before;
    if !short.is_empty() || completions > 0 {
        return Err(Deviation(format!("{completions} completions, {short:?}")));
    }
    let mut bytes = [0; 5];
    client.read_exact(&mut bytes)?;
    expect_equal("the peer read", &bytes[..], &b"whole"[..])
}

fn a_short_send_is_exact(pieces: &[usize]) -> Result<(), Deviation> {
    let mut trial = Trial::new()?;
    let mut client = trial.accept(FIRST)?;
    let bytes = pattern(pieces.iter().sum());
    let mut rest = &bytes[..];
    let split = pieces.iter().map(|&length| {
        let (piece, behind) = rest.split_at(length);
        rest = behind;
        piece.to_vec()
    });
    let split: Vec<Vec<u8>> = split.collect();
    let taken = trial.send_short(&split)?;
    // A full socket has no room for more, and says so.
    let again = trial.send_short(&[bytes[taken..].to_vec()])?;
    trial.push(Operation::ShutdownWrite { socket: FIRST });
    trial.enter(Wait::Poll)?;
    let mut arrived = Vec::new();
    client.read_to_end(&mut arrived)?;
    expect_equal("bytes arrived", arrived.len(), taken + again)?;
    if arrived != bytes[..taken + again] {
        return Err(Deviation("other bytes arrived".to_owned()));
    }
    Ok(())
}

fn a_receive_goes_on() -> Result<(), Deviation> {
    let mut trial = Trial::new()?;
    let mut client = trial.accept(FIRST)?;
    trial.push(Operation::Receive { socket: FIRST });
    let buffer_bytes = SETTINGS.receive_buffer_bytes as usize;
    let bytes = pattern(4 * buffer_bytes);
    let mut arrived = Vec::new();
    for part in bytes.chunks(2 * buffer_bytes) {
        client.write_all(part)?;
        let enough = arrived.len() + part.len();
        trial.until(|ring, completion| match completion {
            Completion::Received { buffer, .. } => {
                arrived.extend_from_slice(ring.received(&buffer));
                ring.recycle(buffer);
                Ok((arrived.len() == enough).then_some(()))
            }
            other => Err(Deviation(format!("{other:?}"))),
        })?;
    }
    expect_equal("arrived", arrived, bytes)?;
    drop(client);
    trial.until(|_, completion| match completion {
        Completion::ReceiveEnded {
            why: End::EndOfStream,
            ..
        } => Ok(Some(())),
        other => Err(Deviation(format!("{other:?}"))),
    })
}

fn room_is_told() -> Result<(), Deviation> {
    let mut trial = Trial::new()?;
    let mut client = trial.accept(FIRST)?;
    let taken = trial.send_short(&[pattern(SHORT_TRIAL_BYTES)])?;
    trial.push(Operation::AwaitWritable { socket: FIRST });
    let mut bytes = vec![0; taken];
    client.read_exact(&mut bytes)?;
    trial.until(|_, completion| match completion {
        Completion::Writable { .. } => Ok(Some(())),
        other => Err(Deviation(format!("{other:?}"))),
    })
}

fn a_ring_wakes_another() -> Result<(), Deviation> {
    let mut waking = Trial::new()?;
    let mut sleeping = Trial::new()?;
    waking.ring.set_peers(vec![sleeping.ring.descriptor()]);
    waking.push(Operation::Wake { shard: 0 });
    waking.enter(Wait::Poll)?;
    sleeping.until(|_, completion| match completion {
        Completion::Woken => Ok(Some(())),
        other => Err(Deviation(format!("{other:?}"))),
    })
}

fn a_connection_moves() -> Result<(), Deviation> {
    let mut leaving = Trial::new()?;
    let mut arriving = Trial::new()?;
    let mut client = leaving.accept(SECOND)?;
    leaving.ring.set_peers(vec![arriving.ring.descriptor()]);
    client.write_all(b"before")?;
    leaving.push(Operation::Move {
        socket: SECOND,
        shard: 0,
        there: FIRST,
    });
    leaving.enter(Wait::Poll)?;
    arriving.until(|_, completion| match completion {
        Completion::Arrived { socket: FIRST } => Ok(Some(())),
        other => Err(Deviation(format!("{other:?}"))),
    })?;
    leaving.until(|_, completion| match completion {
        Completion::Moved {
            outcome: Ok(()), ..
        } => Ok(Some(())),
        other => Err(Deviation(format!("{other:?}"))),
    })?;
    arriving.push(Operation::Receive { socket: FIRST });
    let arrived = arriving.until(|ring, completion| match completion {
        Completion::Received { buffer, .. } => {
            let bytes = ring.received(&buffer).to_vec();
            ring.recycle(buffer);
            Ok(Some(bytes))
        }
        other => Err(Deviation(format!("{other:?}"))),
    })?;
    expect_equal("arrived", &arrived[..], &b"before"[..])?;
    let short = arriving.send(&[b"after".to_vec()])?;
    expect_equal("short sends", short.len(), 0)?;
    let mut bytes = [0; 5];
    client.read_exact(&mut bytes)?;
    expect_equal("the peer read", &bytes[..], &b"after"[..])
}

fn a_closed_socket_is_freed() -> Result<(), Deviation> {
    let mut trial = Trial::new()?;
    let _idle = trial.accept(FIRST)?;
    let mut client = trial.accept(SECOND)?;
    trial.push(Operation::Receive { socket: FIRST });
    trial.enter(Wait::Poll)?;
    trial.push(Operation::Close { socket: SECOND });
    trial.until(|_, completion| match completion {
        Completion::Closed { .. } => Ok(Some(())),
        other => Err(Deviation(format!("{other:?}"))),
    })?;
    client.set_read_timeout(Some(Duration::from_millis(50)))?;
    match client.read_to_end(&mut Vec::new()) {
        Ok(_) => Ok(()),
        Err(error) => Err(Deviation(format!("it stays open ({error})"))),
    }
}

const FIRST: Socket = Socket {
    slot: 0,
    generation: 0,
};
const SECOND: Socket = Socket {
    slot: 1,
    generation: 0,
};

/// A ring of its own, and a listener whose connections have small buffers.
struct Trial {
    ring: KernelRing,
    address: SocketAddr,
}

impl Trial {
    fn new() -> Result<Trial, Deviation> {
        let mut ring = KernelRing::new(SETTINGS).map_err(|error| Deviation(error.to_string()))?;
        let socket = small_socket()?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        socket.listen(2)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        ring.listen(listener);
        Ok(Trial { ring, address })
    }

    fn accept(&mut self, socket: Socket) -> Result<TcpStream, Deviation> {
        self.push(Operation::Accept { socket });
        let client = small_socket()?;
        client.connect_timeout(&self.address.into(), PATIENCE)?;
        client.set_read_timeout(Some(PATIENCE))?;
        let client = TcpStream::from(client);
        let peer = self.until(|_, completion| match completion {
            Completion::Accepted { peer, .. } => Ok(Some(peer?)),
            other => Err(Deviation(format!("{other:?}"))),
        })?;
        expect_equal("the peer is", peer, client.local_addr()?)?;
        Ok(client)
    }

    fn push(&mut self, operation: Operation) {
        self.ring.push(operation);
    }

    fn enter(&mut self, wait: Wait) -> Result<(), Deviation> {
        Ok(self.ring.enter(&Pieces(&[]), wait)?)
    }

    fn send(&mut self, pieces: &[Vec<u8>]) -> Result<Vec<ShortSend>, Deviation> {
        self.ring.enter(&Pieces(pieces), Wait::Poll)?;
        Ok(self.ring.take_short_sends())
    }

    /// The bytes that a socket without room for all of them took.
    fn send_short(&mut self, pieces: &[Vec<u8>]) -> Result<usize, Deviation> {
        let short = self.send(pieces)?;
        match short[..] {
            [
                ShortSend {
                    index: 0,
                    taken: Ok(taken),
                },
            ] => Ok(taken as usize),
            _ => Err(Deviation(format!("reported were {short:?}"))),
        }
    }

    /// Turns until `look` finds what it looks for.
    fn until<T>(
        &mut self,
        mut look: impl FnMut(&mut KernelRing, Completion) -> Result<Option<T>, Deviation>,
    ) -> Result<T, Deviation> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            self.enter(Wait::Milliseconds(PATIENCE.as_millis() as u64))?;
            for completion in self.ring.take_completions() {
                if let Some(found) = look(&mut self.ring, completion)? {
                    return Ok(found);
                }
            }
        }
        Err(Deviation("nothing happened".to_owned()))
    }
}

/// One send to the first slot, or none.
struct Pieces<'a>(&'a [Vec<u8>]);

impl Sends for Pieces<'_> {
    fn count(&self) -> usize {
        usize::from(!self.0.is_empty())
    }

    fn slot(&self, _index: usize) -> u32 {
        FIRST.slot
    }

    fn piece(&self, _index: usize, piece: usize) -> Option<&[u8]> {
        self.0.get(piece).map(Vec::as_slice)
    }
}

impl From<io::Error> for Deviation {
    fn from(error: io::Error) -> Deviation {
        Deviation(error.to_string())
    }
}

fn small_socket() -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // Not the least that the kernel allows: with windows below a segment a trial waits 200 ms for a
    // timer.
    socket.set_send_buffer_size(SMALL_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(SMALL_BUFFER_BYTES)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

fn expect_equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: T,
    expected: T,
) -> Result<(), Deviation> {
    if found == expected {
        return Ok(());
    }
    Err(Deviation(format!("{what} {found:?}, not {expected:?}")))
}

/// Below this a server of one shard holds few connections.
const OPEN_FILES_WISHED: u64 = 65_536;

/// Below this connections are refused when a crowd comes back at once.
const LISTEN_BACKLOG_WISHED: u64 = 4_096;

/// The list of 4,096 receive buffers for each of 16 shards.
const LOCKED_BYTES_WISHED: u64 = 16 * 4_096 * 16;

impl Limits {
    pub fn read() -> Limits {
        let files = getrlimit(Resource::Nofile);
        let locked = getrlimit(Resource::Memlock);
        let ports = numbers("/proc/sys/net/ipv4/ip_local_port_range");
        Limits {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            open_files_soft: files.current,
            open_files_hard: files.maximum,
            locked_bytes_soft: locked.current,
            locked_bytes_hard: locked.maximum,
            listen_backlog_max: number("/proc/sys/net/core/somaxconn"),
            handshake_backlog_max: number("/proc/sys/net/ipv4/tcp_max_syn_backlog"),
            local_ports: ports.map(|[first, last]| (first, last)),
            tcp_pages: numbers("/proc/sys/net/ipv4/tcp_mem"),
            tcp_send_bytes: numbers("/proc/sys/net/ipv4/tcp_wmem"),
            tcp_receive_bytes: numbers("/proc/sys/net/ipv4/tcp_rmem"),
            machine_files_max: number("/proc/sys/fs/file-max"),
            process_files_max: number("/proc/sys/fs/nr_open"),
        }
    }

    fn checks(&self) -> Vec<Check> {
        vec![
            at_least(
                "open files",
                self.open_files_soft,
                OPEN_FILES_WISHED,
                "bounds the connections of each shard: ulimit -n 1048576; in systemd \
                 LimitNOFILE=1048576; docker run --ulimit nofile=1048576; or more shards",
            ),
            at_least(
                "locked memory",
                self.locked_bytes_soft,
                LOCKED_BYTES_WISHED,
                "ulimit -l unlimited; in systemd LimitMEMLOCK=infinity; docker run --ulimit \
                 memlock=-1",
            ),
            at_least(
                "listen backlog",
                self.listen_backlog_max,
                LISTEN_BACKLOG_WISHED,
                "sysctl -w net.core.somaxconn=4096",
            ),
        ]
    }
}

fn at_least(name: &'static str, limit: Option<u64>, wished: u64, remedy: &str) -> Check {
    match limit {
        None => ok(name, "unlimited"),
        Some(limit) if limit >= wished => ok(name, limit.to_string()),
        Some(limit) => slow(name, limit.to_string(), remedy),
    }
}

fn number(path: &str) -> Option<u64> {
    numbers(path).map(|[number]| number)
}

/// The first numbers of a file that holds them between blanks.
fn numbers<const COUNT: usize>(path: &str) -> Option<[u64; COUNT]> {
    let text = fs::read_to_string(path).ok()?;
    let mut words = text.split_whitespace();
    let mut numbers = [0; COUNT];
    for number in &mut numbers {
        *number = words.next()?.parse().ok()?;
    }
    Some(numbers)
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    check(name, State::Ok, found, "")
}

fn slow(name: &'static str, found: impl Into<String>, remedy: &str) -> Check {
    check(name, State::Slow, found, remedy)
}

fn fatal(name: &'static str, found: impl Into<String>, remedy: &str) -> Check {
    check(name, State::Fatal, found, remedy)
}

fn check(name: &'static str, state: State, found: impl Into<String>, remedy: &str) -> Check {
    Check {
        name,
        state,
        found: found.into(),
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_serves() {
        let report = probe();
        let fatal: Vec<&Check> = report.fatal().collect();
        assert!(fatal.is_empty(), "{fatal:#?}");
        assert!(report.checks.len() > BEHAVIOURS.len());
        for check in &report.checks {
            assert_eq!(check.state == State::Ok, check.remedy.is_empty());
        }
        assert!(report.limits.cores > 0);
        assert!(report.limits.open_files_soft.is_some());
    }

    #[test]
    fn releases_are_read_as_vendors_write_them() {
        let state = |release| kernel_release(release).state;
        for release in ["6.1.0-18-amd64", "6.1", "6.18.44-cloud", "7.0-rc1"] {
            assert_eq!(state(release), State::Ok, "{release}");
        }
        for release in ["5.15.0-91-generic", "6.0.19", "4.18.0-553.el8"] {
            assert_eq!(state(release), State::Fatal, "{release}");
        }
        assert_eq!(state("unknown"), State::Slow);
    }

    #[test]
    fn a_refusal_names_who_refused() {
        let remedy = |errno, is_disabled, is_filtered| {
            let error = RingError::Setup(io::Error::from_raw_os_error(errno));
            let guard = Guard {
                is_disabled,
                is_filtered,
            };
            let check = refused(&error, &guard);
            assert_eq!(check.state, State::Fatal);
            check.remedy
        };
        assert!(remedy(libc::EPERM, Some(2), true).contains("sysctl"));
        assert!(remedy(libc::EPERM, Some(1), false).contains("io_uring_group"));
        assert!(remedy(libc::EPERM, Some(0), true).contains("--security-opt seccomp"));
        assert!(remedy(libc::ENOSYS, None, true).contains("--security-opt seccomp"));
        assert!(remedy(libc::ENOSYS, None, false).contains("CONFIG_IO_URING"));
        assert!(remedy(libc::EINVAL, Some(0), false).contains("6.1"));
        assert!(remedy(libc::EMFILE, Some(0), false).contains("ulimit -n"));
        assert!(remedy(libc::ENOMEM, Some(0), false).contains("ulimit -l"));
    }

    #[test]
    fn a_low_limit_is_slow_and_says_how_to_raise_it() {
        let limits = Limits {
            open_files_soft: Some(1_024),
            locked_bytes_soft: None,
            listen_backlog_max: Some(128),
            ..Limits::read()
        };
        let states: Vec<State> = limits.checks().iter().map(|check| check.state).collect();
        assert_eq!(states, [State::Slow, State::Ok, State::Slow]);
    }
}
