//! What has to be known of a machine to read figures that were taken on it.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::load::result::{Build, Machine};

pub fn machine() -> Machine {
    let system = rustix::system::uname();
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = text("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(": ").nth(1))
        .unwrap_or("of an unnamed model");
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory_kib: u64 = text("/proc/meminfo")
        .lines()
        .find(|line| line.starts_with("MemTotal:"))
        .and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0);
    let load = text("/proc/loadavg");
    let mut loads = load
        .split_ascii_whitespace()
        .map(|number| number.parse().unwrap_or(0.0));
    let mut next_load = || loads.next().unwrap_or(0.0);
    Machine {
        kernel: format!(
            "{} {}",
            system.sysname().to_string_lossy(),
            system.release().to_string_lossy()
        ),
        cpu_model: model.to_owned(),
        cores: cores as u32,
        memory_bytes: memory_kib * 1024,
        load_average: [next_load(), next_load(), next_load()],
    }
}

/// The commit is told by whoever builds, or by whoever runs a build that does not know it.
pub fn build() -> Build {
    let commit = option_env!("OUTPOUR_COMMIT").map(str::to_owned);
    Build {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: commit.or_else(|| std::env::var("BENCH_COMMIT").ok()),
    }
}

/// Now, as `2026-11-25T16:47:06Z`.
pub fn now_utc() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    utc(since.expect("it is later than 1970").as_secs())
}

/// Seconds since 1970 as a date and a time. The days are counted in eras of 400 years that begin on
/// a first of March, so that the leap day is the last one of a year (Howard Hinnant, "chrono-compatible
/// low-level date algorithms", `civil_from_days`).
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_764_089_226, "2025-11-25T16:47:06Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }
}
