//! A private network namespace, whose loopback hands received packets to a core of our choice.
//!
//! On loopback nearly half of a send is the receiver's TCP work, and it runs on the sender's core. A real network
//! card brings packets to another core; so does this, by receive packet steering (RPS, `rps_cpus`,
//! Documentation/networking/scaling.rst of the kernel). The machine's own loopback is not touched.
//!
//! What is entered is left by ending: the kernel takes namespace, mounts and loopback down with the last process in
//! them, however it ended. One setting is the machine's: how many packets may wait for the core that they are steered
//! to. A shell waits for this process's end to put it back.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Why there is no such namespace. Each says what would help.
#[derive(Debug)]
pub enum NetnsError {
    /// The rights for a namespace of one's own.
    Rights(Errno),
    Mount(Errno),
    /// The loopback stays down.
    Loopback(String),
    /// The loopback does not steer, or too few packets may wait for the core that it steers to.
    Steering {
        file: &'static str,
        source: io::Error,
    },
}

impl fmt::Display for NetnsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetnsError::Rights(errno) => write!(
                formatter,
                "no network namespace of our own: {errno}; --netns needs CAP_SYS_ADMIN and CAP_NET_ADMIN: run as root \
                 (in a container with --privileged), or leave it out"
            ),
            NetnsError::Mount(errno) => write!(
                formatter,
                "no /sys of the namespace: {errno}; a container may forbid mounts: run it with --privileged, or \
                 leave --netns out"
            ),
            NetnsError::Loopback(why) => write!(
                formatter,
                "`ip link set lo up` in the namespace: {why}; Debian's iproute2 has it"
            ),
            NetnsError::Steering { file, source } => write!(
                formatter,
                "{file}: {source}; the kernel needs CONFIG_RPS, and we the right to write"
            ),
        }
    }
}

impl std::error::Error for NetnsError {}

const STEERED_TO: &str = "/sys/class/net/lo/queues/rx-0/rps_cpus";
/// Flow steering would send packets after the thread that reads them, whatever `rps_cpus` says.
const FLOWS: &str = "/sys/class/net/lo/queues/rx-0/rps_flow_cnt";

/// How many packets may wait for a core that they are steered to. Of 1,000, the kernel's default, a fan-out to thousands has
/// most dropped and sent again 200 ms later (softnet_stat, second column), which no network card does.
const QUEUE: &str = "/proc/sys/net/core/netdev_max_backlog";
const QUEUE_PACKETS: u64 = 100_000;
/// Its standard input ends with the process that started it, and its standard output is the setting.
const PUT_BACK: &str = r#"trap "" INT TERM HUP; read -r nothing; echo "$1""#;

/// Moves this thread into a namespace of its own, and with it every thread and process that it starts from now on.
/// Those that were there before stay where they are, so this comes before any thread. What is received there is
/// processed on `cores`.
pub fn enter(cores: &[usize]) -> Result<(), NetnsError> {
    // The namespace has no such file.
    let queue = Queue::open();
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(NetnsError::Rights)?;
    // The /sys below is to be seen here and nowhere else.
    let nothing = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, private, nothing).map_err(NetnsError::Mount)?;
    let sealed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("sysfs"), "/sys", Some("sysfs"), sealed, nothing).map_err(NetnsError::Mount)?;
    let lengthened = queue.and_then(Queue::lengthen);
    lengthened.map_err(|source| NetnsError::Steering {
        file: QUEUE,
        source,
    })?;
    lift_loopback()?;
    write(FLOWS, "0")?;
    write(STEERED_TO, &mask(cores))
}

/// The machine's setting, open where the namespace does not reach.
struct Queue {
    before: String,
    now: File,
    /// A file of its own: only a write to a setting's beginning is one to the setting.
    at_the_end: File,
}

impl Queue {
    fn open() -> io::Result<Queue> {
        let writable = || OpenOptions::new().write(true).open(QUEUE);
        Ok(Queue {
            before: fs::read_to_string(QUEUE)?,
            now: writable()?,
            at_the_end: writable()?,
        })
    }

    /// Has as many packets wait as a fan-out needs, until this process ends.
    fn lengthen(mut self) -> io::Result<()> {
        let before = self.before.trim();
        let packets: u64 = before.parse().map_err(io::Error::other)?;
        if packets >= QUEUE_PACKETS {
            return Ok(());
        }
        let keeper = Command::new("sh")
            .args(["-c", PUT_BACK, "sh", before])
            .stdin(Stdio::piped())
            .stdout(self.at_the_end)
            .spawn()?;
        // Its input stays open for as long as this process lives.
        std::mem::forget(keeper);
        self.now.write_all(QUEUE_PACKETS.to_string().as_bytes())
    }
}

/// Whether the loopback of this thread's namespace hands what is received to these cores alone, whoever had it do so.
pub fn is_steered_to(cores: &[usize]) -> bool {
    fs::read_to_string(STEERED_TO).is_ok_and(|mask| is_within(mask.trim(), cores))
}

/// Whether a mask names some of the cores and no other.
fn is_within(mask: &str, cores: &[usize]) -> bool {
    let mut named = Vec::new();
    for (group, text) in mask.rsplit(',').enumerate() {
        let Ok(bits) = u32::from_str_radix(text, 16) else {
            return false;
        };
        named.extend(
            (0..32)
                .filter(|bit| bits >> bit & 1 == 1)
                .map(|bit| 32 * group + bit),
        );
    }
    !named.is_empty() && named.iter().all(|core| cores.contains(core))
}

fn lift_loopback() -> Result<(), NetnsError> {
    let ip = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .output();
    let output = ip.map_err(|error| NetnsError::Loopback(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(NetnsError::Loopback(said.trim().to_owned()))
        }
    }
}

fn write(file: &'static str, text: &str) -> Result<(), NetnsError> {
    fs::write(file, text).map_err(|source| NetnsError::Steering { file, source })
}

/// Cores as the kernel reads masks: hexadecimal, 32 cores a group, the highest first.
fn mask(cores: &[usize]) -> String {
    let groups = cores.iter().max().map_or(1, |most| most / 32 + 1);
    let mut bits = vec![0_u32; groups];
    for core in cores {
        bits[core / 32] |= 1 << (core % 32);
    }
    let groups = bits.iter().rev().map(|group| format!("{group:08x}"));
    groups.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn masks_are_groups_of_32_cores() {
        assert_eq!(mask(&[0]), "00000001");
        assert_eq!(mask(&[1, 3]), "0000000a");
        assert_eq!(mask(&[31]), "80000000");
        assert_eq!(mask(&[32]), "00000001,00000000");
        assert_eq!(mask(&[70, 0]), "00000040,00000000,00000001");
    }

    #[test]
    fn a_mask_is_within_cores_if_it_names_no_other() {
        assert!(is_within("00000002", &[1]) && is_within("2", &[0, 1]));
        assert!(!is_within("00000003", &[1]) && !is_within("00000000", &[1]));
        assert!(is_within("00000040,00000000,00000001", &[0, 70]));
        assert!(!is_within("", &[0]));
    }

    /// Where the rights are there; where they are not, that the message says so.
    #[test]
    fn a_thread_in_a_namespace_has_a_loopback_of_its_own_that_steers() {
        let outside = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = outside.local_addr().unwrap();
        let inside = std::thread::spawn(move || {
            enter(&[0])?;
            // Nobody listens there, although somebody does outside.
            let refused = TcpStream::connect(address).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let listener = TcpListener::bind(address).unwrap();
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"steered").unwrap();
            let mut bytes = [0; 7];
            listener.accept().unwrap().0.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"steered");
            assert!(is_steered_to(&[0, 1]) && !is_steered_to(&[1]));
            Ok(fs::read_to_string(STEERED_TO).unwrap())
        });
        match inside.join().unwrap() {
            Ok(steered_to) => {
                let low = steered_to.trim().trim_start_matches(['0', ',']);
                assert_eq!(low, "1");
            }
            Err(error @ (NetnsError::Rights(_) | NetnsError::Mount(_))) => {
                assert!(error.to_string().contains("--privileged"), "{error}");
            }
            Err(NetnsError::Loopback(why)) => panic!("the loopback: {why}"),
            Err(error @ NetnsError::Steering { .. }) => {
                assert!(!rustix::process::geteuid().is_root(), "{error}");
            }
        }
        // The test's own thread has stayed outside.
        assert!(TcpStream::connect(address).is_ok());
    }
}
