//! The machine that a measurement runs on: its clocks, its limits, and what processes take of it.
//!
//! CPU time of a process is read from its own CPU clock, in nanoseconds, ended threads included. On
//! loopback it holds the receiver's TCP work too: the kernel runs that inside the sender's call.

use std::fs;
use std::io;
use std::process;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Binds this thread, and the threads it starts later, to one core.
pub fn pin(core: usize) -> io::Result<()> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        return Ok(());
    }
    let why = format!("core {core} is not there, or not allowed");
    Err(io::Error::other(why))
}

/// Binds this thread, and the threads and processes that it starts later, to some cores.
pub fn confine(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        if *core >= CpuSet::MAX_CPU {
            return Err(io::Error::other(format!("there is no core {core}")));
        }
        set.set(*core);
    }
    sched_setaffinity(None, &set)?;
    Ok(())
}

/// The cores that this thread may run on.
pub fn cores() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.into_iter().map(|core| core.id).collect()
}

/// The clock of every timestamp here; processes of one machine share it.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

pub fn sleep_until(due_ns: u64) {
    let now = monotonic_ns();
    if due_ns > now {
        std::thread::sleep(Duration::from_nanos(due_ns - now));
    }
}

/// The CPU time that a process has used so far, all of its threads together.
pub fn cpu_ns(process: u32) -> io::Result<u64> {
    let clock = nix::time::clock_getcpuclockid(Pid::from_raw(process.cast_signed()))?;
    time_ns(clock)
}

/// As [`cpu_ns`], of this process.
pub fn own_cpu_ns() -> u64 {
    cpu_ns(process::id()).expect("a process may always read its own clock")
}

/// The CPU time of this thread.
pub fn thread_cpu_ns() -> u64 {
    time_ns(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a thread may always read its own clock")
}

fn time_ns(clock: ClockId) -> io::Result<u64> {
    let time = nix::time::clock_gettime(clock)?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// What a thread of a process has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadTime {
    pub thread: u32,
    pub name: String,
    /// As of its last tick or switch, some milliseconds ago.
    pub cpu_ns: u64,
}

/// The living threads of a process, by their numbers.
pub fn threads(process: u32) -> io::Result<Vec<ThreadTime>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?;
        let number = task
            .file_name()
            .to_str()
            .and_then(|number| number.parse().ok());
        let ended = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let name = match fs::read_to_string(task.path().join("comm")) {
            Err(error) if ended(&error) => continue,
            name => name?,
        };
        let times = match fs::read_to_string(task.path().join("schedstat")) {
            Err(error) if ended(&error) => continue,
            times => times?,
        };
        let ran_ns = times
            .split_ascii_whitespace()
            .next()
            .and_then(|ran| ran.parse().ok());
        threads.push(ThreadTime {
            thread: number.ok_or_else(|| io::Error::other("a task without a number"))?,
            name: name.trim().to_owned(),
            cpu_ns: ran_ns.ok_or_else(|| io::Error::other("schedstat is empty"))?,
        });
    }
    threads.sort_by_key(|thread| thread.thread);
    Ok(threads)
}

/// What a process keeps resident, in bytes.
pub fn resident_bytes(process: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    kilobytes(&text, "Rss:").ok_or_else(|| io::Error::other("smaps_rollup names no Rss"))
}

/// What a process keeps resident that is no file's: its anonymous memory, and its share of what it shares with others.
pub fn own_bytes(process: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let own = ["Pss_Anon:", "Pss_Shmem:"].map(|name| kilobytes(&text, name));
    let sum = own.into_iter().sum::<Option<u64>>();
    sum.ok_or_else(|| io::Error::other("smaps_rollup names no Pss_Anon"))
}

/// Memory that the kernel could still give out, in bytes.
pub fn available_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    kilobytes(&text, "MemAvailable:").ok_or_else(|| io::Error::other("no MemAvailable"))
}

/// What the kernel's slab caches hold, in bytes; `None` where only root may look.
pub fn slab_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/slabinfo").ok()?;
    let mut total = 0;
    for line in text.lines().skip(2) {
        let mut words = line.split_ascii_whitespace().skip(1);
        let active: u64 = words.next()?.parse().ok()?;
        let object_bytes: u64 = words.nth(1)?.parse().ok()?;
        total += active * object_bytes;
    }
    Some(total)
}

/// Lifts this process's limit of open files to its hard limit, and says what that is.
pub fn lift_open_files() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("the limit of open files stays as it is: {error}");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let amount: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(amount * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_reads_its_own_figures() {
        let before_ns = own_cpu_ns();
        let until_ns = thread_cpu_ns() + 20_000_000;
        while thread_cpu_ns() < until_ns {}
        assert!(own_cpu_ns() - before_ns >= 19_000_000);
        let threads = threads(process::id()).unwrap();
        assert!(threads.iter().map(|thread| thread.cpu_ns).sum::<u64>() > 0);
        assert!(resident_bytes(process::id()).unwrap() > 100_000);
        assert!(available_bytes().unwrap() > 0);
        // Above the highest number that the kernel gives a process.
        assert!(cpu_ns(1 << 23).is_err());
    }
}
