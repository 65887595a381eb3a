//! The memory that the process uses, for pages that tell it.

use std::fs;

/// In bytes: resident memory of this process, and what the machine has. Nothing if the kernel does
/// not tell.
pub fn in_use() -> Option<(u64, u64)> {
    // The second field is the resident set in pages (proc(5)).
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    let machine = rustix::system::sysinfo();
    let total = machine.totalram as u64 * u64::from(machine.mem_unit);
    Some((pages * rustix::param::page_size() as u64, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_some_of_the_machine() {
        let (used, total) = in_use().unwrap();
        assert!(used > 100_000 && used < total, "{used} of {total}");
    }
}
