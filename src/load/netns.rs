//! A private network namespace, whose loopback hands received packets to a core of our choice.
//!
//! On loopback nearly half of a send is the receiver's TCP work, and it runs on the sender's core. A real network
//! card brings packets to another core; so does this, by receive packet steering (RPS, `rps_cpus`,
//! Documentation/networking/scaling.rst of the kernel). The machine's own loopback is not touched.
//!
//! What is entered is left by ending: the kernel takes namespace, mounts and loopback down with the last process in
//! them, however it ended.

use std::fmt;
use std::fs;
use std::io;
use std::process::Command;

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
    /// The loopback does not steer.
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

/// Moves this thread into a namespace of its own, and with it every thread and process that it starts from now on.
/// Those that were there before stay where they are, so this comes before any thread. What is received there is
/// processed on `cores`.
pub fn enter(cores: &[usize]) -> Result<(), NetnsError> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(NetnsError::Rights)?;
    // The /sys below is to be seen here and nowhere else.
    let nothing = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, private, nothing).map_err(NetnsError::Mount)?;
    let sealed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("sysfs"), "/sys", Some("sysfs"), sealed, nothing).map_err(NetnsError::Mount)?;
    lift_loopback()?;
    write(FLOWS, "0")?;
    write(STEERED_TO, &mask(cores))
}

/// Whether the loopback of this thread's namespace steers, whoever had it do so.
pub fn is_steered() -> bool {
    fs::read_to_string(STEERED_TO).is_ok_and(|mask| {
        mask.chars()
            .any(|digit| digit.is_ascii_hexdigit() && digit != '0')
    })
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
    use std::io::{Read, Write};
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
            assert!(is_steered());
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
