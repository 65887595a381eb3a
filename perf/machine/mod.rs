//! The machine that a measurement runs on: its facts, its clocks, and what processes take of it.
//!
//! CPU time is read from a process's own CPU clock, in nanoseconds, ended threads included. On
//! loopback it holds the receiver's TCP work too: the kernel runs that inside the sender's call.

use std::fs;
use std::io;
use std::process::{self, Command};
use std::time::Duration;

pub mod generator;
pub mod report;

/// Binds this thread, and the threads it starts later, to one core.
pub fn pin(core: usize) {
    let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: core });
    assert!(pinned, "core {core} is not there, or not allowed");
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
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` outlives the call and is the only memory that it writes.
    let outcome = unsafe { libc::clock_getcpuclockid(process as libc::pid_t, &mut clock) };
    if outcome != 0 {
        return Err(io::Error::from_raw_os_error(outcome));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` outlives the call and is the only memory that it writes.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// As [`cpu_ns`], of this process.
pub fn own_cpu_ns() -> u64 {
    cpu_ns(process::id()).expect("a process may always read its own clock")
}

/// What a process keeps resident, in bytes.
pub fn resident_bytes(process: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    kilobytes(&text, "Rss:").ok_or_else(|| io::Error::other("smaps_rollup names no Rss"))
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

/// The first line that a program prints, or why there is none.
pub fn said(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout)
            .lines()
            .next()
            .unwrap_or("nothing")
            .to_owned(),
        Err(error) => format!("({program}: {error})"),
    }
}

/// The middle of some figures, and the lowest and highest of them.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl Spread {
    pub fn of(figures: &[f64]) -> Spread {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        };
        Spread {
            median,
            lowest: sorted[0],
            highest: sorted[sorted.len() - 1],
        }
    }
}

/// The growth of `y` with `x`, by least squares: what one more costs, whatever the start costs.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|point| point.0).sum::<f64>() / count;
    let mean_y = points.iter().map(|point| point.1).sum::<f64>() / count;
    let (mut rise, mut run) = (0.0, 0.0);
    for (x, y) in points {
        rise += (x - mean_x) * (y - mean_y);
        run += (x - mean_x) * (x - mean_x);
    }
    rise / run
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let amount: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(amount * 1024)
}
