//! Kernel settings that bound so many connections, or make each of their packets dearer.
//!
//! What was not needed, tried with a million connections: `somaxconn` (each shard has a listener of its own),
//! `ip_local_port_range` (there are enough source addresses), `tcp_mem` (nothing lies unread for long), and connection
//! tracking, which does nothing where no rule asks for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};

pub struct Setting {
    file: &'static str,
    /// What so many connections want.
    wanted: fn(usize) -> u64,
    why: &'static str,
}

/// Of the machine, or for the namespaces that are made later.
pub const OF_THE_MACHINE: &[Setting] = &[
    Setting {
        file: "/proc/sys/fs/file-max",
        wanted: |connections| 2 * connections as u64 + 65_536,
        why: "both ends of a connection are open files",
    },
    Setting {
        // Of 1,000, the kernel's default, most are full when a million sockets are written to in a row: packets are
        // dropped and sent again after 200 ms and more (softnet_stat, second column).
        file: "/proc/sys/net/core/netdev_max_backlog",
        wanted: |connections| 2 * connections as u64,
        why: "the packets that wait for the core that they are steered to (--netns)",
    },
    Setting {
        // Two sockets a connection in a table that has 262,144 buckets on a machine of 24 GiB: every packet would
        // walk a chain of eight sockets that are in no cache. A new namespace gets a table of this size.
        file: "/proc/sys/net/ipv4/tcp_child_ehash_entries",
        wanted: |connections| (2 * connections as u64).next_power_of_two(),
        why: "the table of sockets of a namespace (--netns), so that packets find theirs at once",
    },
];

/// Of the namespace, once it is entered.
pub const OF_THE_NAMESPACE: &[Setting] = &[Setting {
    // One core works for seconds off what was sent to a million sockets. Their acknowledgements come late, the kernel
    // takes that for loss, and sends everything again up to six times (200 ms, 400 ms, ...), to the same core.
    file: "/proc/sys/net/ipv4/tcp_rto_min_us",
    wanted: |_| 60_000_000,
    why: "what is not acknowledged before the core that receives comes to it is sent again",
}];

/// What was set, to be put back.
pub struct Tuned {
    /// For the report.
    pub said: Vec<String>,
    /// Open, because a namespace that is entered meanwhile has settings of its own under the same names.
    before: Vec<(File, String)>,
}

/// Looks at the settings, and sets those that are too low if that is wanted.
pub fn tune(settings: &[Setting], connections: usize, is_wanted: bool) -> io::Result<Tuned> {
    let mut tuned = Tuned {
        said: Vec::new(),
        before: Vec::new(),
    };
    for setting in settings {
        let Setting { file, why, .. } = setting;
        let wanted = (setting.wanted)(connections);
        let Ok(text) = fs::read_to_string(file) else {
            tuned
                .said
                .push(format!("setting   {file} is not there: {why}"));
            continue;
        };
        let is: u64 = text.trim().parse().map_err(io::Error::other)?;
        if is >= wanted {
            continue;
        }
        if !is_wanted {
            tuned.said.push(format!(
                "setting   {file} is {is}, {wanted} would be better ({why}); --tune sets it for this run"
            ));
            continue;
        }
        let mut open = OpenOptions::new().write(true).open(file)?;
        open.write_all(wanted.to_string().as_bytes())?;
        tuned.said.push(format!(
            "setting   {file} set from {is} to {wanted} for this run"
        ));
        tuned.before.push((open, text));
    }
    Ok(tuned)
}

impl Drop for Tuned {
    fn drop(&mut self) {
        for (file, text) in &mut self.before {
            // The kernel takes the whole value from one write, wherever the file stands; older ones want the start.
            let put_back = io::Seek::rewind(file).and_then(|()| file.write_all(text.as_bytes()));
            if let Err(error) = put_back {
                eprintln!("a setting stays as it is, it was {}: {error}", text.trim());
            }
        }
    }
}
