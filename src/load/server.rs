//! The embedded server: this program's own `serve`, in a process of its own on cores of its own.
//!
//! A process, so that its CPU time, its memory and its limit of open files are nobody else's. It
//! ends with the process that started it, however that ends.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::machine;
use super::publisher::http::App;

/// The hidden first argument of a process that becomes the server. Its others are the cores that
/// it may use, separated by commas, and the server's own arguments.
pub const ROLE: &str = "bench-server";

/// A server takes so long to start at most.
const START_MAX: Duration = Duration::from_secs(10);

/// The app that every server has which is started without settings.
pub fn built_in_app() -> App {
    App {
        id: "1001".to_owned(),
        key: "app-key".to_owned(),
        secret: "app-secret".to_owned(),
    }
}

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A binary of outpour.
    pub binary: PathBuf,
    pub shards: usize,
    /// One for each shard, or fewer that they share.
    pub cores: Vec<usize>,
    /// Further arguments of `serve`.
    pub settings: Vec<String>,
}

pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// As it was started, without what only hands it on.
    pub command_line: Vec<String>,
}

impl Server {
    /// Starts a server on a free port and waits until it takes connections.
    pub fn start(plan: &Plan) -> io::Result<Server> {
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let cores = comma_separated(&plan.cores);
        let mut arguments = vec!["serve".to_owned()];
        for (flag, value) in [
            ("--address", address.to_string()),
            ("--shards", plan.shards.to_string()),
            ("--cores", cores.clone()),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        arguments.extend(plan.settings.iter().cloned());
        let child = Command::new(&plan.binary)
            .args([ROLE, &cores])
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| {
                let binary = plan.binary.display();
                io::Error::other(format!(
                    "{binary}: {error}; `cargo build --release` makes it"
                ))
            })?;
        let mut command_line = vec!["outpour".to_owned()];
        command_line.extend(arguments);
        let mut server = Server {
            child,
            address,
            command_line,
        };
        server.wait_for_start()?;
        Ok(server)
    }

    fn wait_for_start(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while let Err(error) = TcpStream::connect(self.address) {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended: {status}")));
            }
            if start.elapsed() > START_MAX {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time that the server's process has used.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        machine::cpu_ns(self.pid())
    }

    pub fn resident_bytes(&self) -> io::Result<u64> {
        machine::resident_bytes(self.pid())
    }

    pub fn metrics(&self) -> io::Result<Metrics> {
        Metrics::read(self.address)
    }
}

impl Drop for Server {
    /// Ends it without ceremony: draining thousands of clients takes longer than a measurement.
    fn drop(&mut self) {
        if self.child.kill().is_err() {
            return;
        }
        if let Err(error) = self.child.wait() {
            eprintln!("the server's process is left behind: {error}");
        }
    }
}

/// This process becomes the server: it takes its cores, agrees to end with its parent, and goes on
/// as `outpour serve`.
pub fn become_server(mut arguments: impl Iterator<Item = OsString>) -> io::Result<()> {
    let wrong = || io::Error::other("the role of a server takes cores and a command");
    let cores = arguments.next().ok_or_else(wrong)?;
    let cores = cores.to_str().ok_or_else(wrong)?.split(',');
    let cores: Result<Vec<usize>, _> = cores.map(str::parse).collect();
    machine::confine(&cores.map_err(|_| wrong())?)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Err(Command::new(std::env::current_exe()?)
        .args(arguments)
        .exec())
}

fn comma_separated(cores: &[usize]) -> String {
    let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
    cores.join(",")
}

/// One reading of the server's own counters, all shards.
#[derive(Clone, Debug)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    pub fn read(address: SocketAddr) -> io::Result<Metrics> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes())?;
        let mut text = String::new();
        socket.read_to_string(&mut text)?;
        Ok(Metrics { text })
    }

    /// A counter or gauge, summed over shards; 0 where the server does not know it.
    pub fn sum(&self, name: &str) -> f64 {
        self.samples(name).fold(0.0, |sum, sample| sum + sample)
    }

    /// The highest of all shards.
    pub fn highest(&self, name: &str) -> f64 {
        self.samples(name).fold(0.0, f64::max)
    }

    /// A quantile of a latency, in seconds: the highest of all shards.
    pub fn quantile(&self, name: &str, quantile: &str) -> f64 {
        let label = format!("quantile=\"{quantile}\"");
        let lines = self.text.lines();
        let of_it = lines.filter(|line| line.starts_with(name) && line.contains(&label));
        of_it
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .fold(0.0, f64::max)
    }

    fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = f64> + 'a {
        self.text.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with([' ', '{']) {
                return None;
            }
            rest.rsplit(' ').next()?.parse().ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_added_up_over_shards_and_not_over_names() {
        let metrics = Metrics {
            text: "a_total{shard=\"0\"} 3\na_total{shard=\"1\"} 4\na_total_more 90\nb 2\n\
                   t_seconds{shard=\"0\",quantile=\"0.5\"} 0.25\n"
                .to_owned(),
        };
        assert_eq!(
            (metrics.sum("a_total"), metrics.highest("a_total")),
            (7.0, 4.0)
        );
        assert_eq!((metrics.sum("b"), metrics.sum("c")), (2.0, 0.0));
        assert_eq!(metrics.quantile("t_seconds", "0.5"), 0.25);
    }
}
