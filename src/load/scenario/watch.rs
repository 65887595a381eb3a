//! CPU time by core and by thread, read twice and compared.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use crate::load::machine::{self, ThreadTime, monotonic_ns};

/// How busy each of some cores was, from one reading to the next.
pub struct CoreWatch {
    cores: Vec<u32>,
    before: BTreeMap<u32, Ticks>,
}

#[derive(Clone, Copy, Default)]
struct Ticks {
    busy: u64,
    all: u64,
}

impl CoreWatch {
    pub fn start(cores: Vec<u32>) -> io::Result<CoreWatch> {
        Ok(CoreWatch {
            cores,
            before: core_ticks(&fs::read_to_string("/proc/stat")?),
        })
    }

    /// The share of each core, 0 to 1, since the last call.
    pub fn shares(&mut self) -> io::Result<Vec<f64>> {
        let now = core_ticks(&fs::read_to_string("/proc/stat")?);
        let share = |core: &u32| {
            let before = self.before.get(core).copied().unwrap_or_default();
            let now = now.get(core).copied().unwrap_or_default();
            let all = now.all.saturating_sub(before.all);
            now.busy.saturating_sub(before.busy) as f64 / all.max(1) as f64
        };
        let shares = self.cores.iter().map(share).collect();
        self.before = now;
        Ok(shares)
    }
}

/// `cpuN user nice system idle iowait irq softirq steal ...`, in ticks (proc_stat(5)). Stolen time
/// is busy: nobody here had it.
fn core_ticks(text: &str) -> BTreeMap<u32, Ticks> {
    let mut cores = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(core) = words
            .next()
            .and_then(|word| word.strip_prefix("cpu")?.parse().ok())
        else {
            continue;
        };
        let times: Vec<u64> = words
            .take(8)
            .map(|word| word.parse().unwrap_or(0))
            .collect();
        let all = times.iter().sum();
        let idle = times.iter().skip(3).take(2).sum::<u64>();
        let busy = all - idle;
        cores.insert(core, Ticks { busy, all });
    }
    cores
}

/// CPU time of some processes' threads so far.
#[derive(Clone, Debug)]
pub struct ThreadTimes {
    at_ns: u64,
    threads: Vec<ThreadTime>,
}

impl ThreadTimes {
    pub fn read(pids: &[u32]) -> io::Result<ThreadTimes> {
        let at_ns = monotonic_ns();
        let mut threads = Vec::new();
        for pid in pids {
            threads.extend(machine::threads(*pid)?);
        }
        Ok(ThreadTimes { at_ns, threads })
    }

    /// Each thread's name and its share of one core since `before`, in the order of their ids.
    pub fn since(&self, before: &ThreadTimes) -> Vec<(String, f64)> {
        let wall_ns = self.at_ns.saturating_sub(before.at_ns).max(1);
        let used = self.used_ns(before);
        let share = |(thread, used_ns): (&ThreadTime, u64)| {
            (thread.name.clone(), used_ns as f64 / wall_ns as f64)
        };
        used.map(share).collect()
    }

    /// What the busiest thread used since `before`; none where there is no thread.
    pub fn busiest_ns(&self, before: &ThreadTimes) -> Option<u64> {
        self.used_ns(before).map(|(_, used_ns)| used_ns).max()
    }

    fn used_ns<'a>(
        &'a self,
        before: &'a ThreadTimes,
    ) -> impl Iterator<Item = (&'a ThreadTime, u64)> {
        let used_before = |thread: u32| {
            let mut known = before.threads.iter();
            known
                .find(|known| known.thread == thread)
                .map_or(0, |known| known.cpu_ns)
        };
        self.threads.iter().map(move |thread| {
            let used_ns = thread.cpu_ns.saturating_sub(used_before(thread.thread));
            (thread, used_ns)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_busy_while_they_are_not_idle() {
        let text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 10 1 20 50 9 0 5 5 0 0\ncpu12 1 0 0 3 0 0 0 0 0 0\n\
                    intr 5\n";
        let cores = core_ticks(text);
        let figures: Vec<_> = cores
            .iter()
            .map(|(core, ticks)| (*core, ticks.busy, ticks.all))
            .collect();
        assert_eq!(figures, [(0, 41, 100), (12, 1, 4)]);
    }

    #[test]
    fn the_busiest_thread_is_that_which_used_the_most_since_and_not_in_all() {
        let read = |times: &[(u32, u64)]| ThreadTimes {
            at_ns: 0,
            threads: times
                .iter()
                .map(|(thread, cpu_ns)| ThreadTime {
                    thread: *thread,
                    name: String::new(),
                    cpu_ns: *cpu_ns,
                })
                .collect(),
        };
        let before = read(&[(1, 900), (2, 10)]);
        let after = read(&[(1, 950), (2, 70), (3, 20)]);
        assert_eq!(after.busiest_ns(&before), Some(60));
        assert_eq!(read(&[]).busiest_ns(&before), None);
    }

    #[test]
    fn this_thread_is_among_those_of_this_process() {
        let before = ThreadTimes::read(&[std::process::id()]).unwrap();
        let after = ThreadTimes::read(&[std::process::id()]).unwrap();
        assert!(!after.since(&before).is_empty());
    }
}
