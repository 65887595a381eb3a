//! The server under test: the release binary, in a process of its own, on cores of its own.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outpour::load::machine;

pub const KEY: &str = "app-key";
pub const SECRET: &str = "app-secret";
pub const APP: &str = "1001";

/// Where a server is started, and how.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Options {
    #[command(flatten)]
    pub binary: Binary,
    #[arg(long, default_value_t = 1)]
    pub shards: usize,
    /// The server's cores, as its own option takes them.
    #[arg(long, default_value = "0")]
    pub cores: String,
    /// Further arguments.
    #[arg(skip)]
    pub settings: Vec<String>,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Binary {
    /// The server's binary; by default the one beside this program's directory.
    #[arg(long)]
    pub server: Option<PathBuf>,
}

pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server on a free port and waits until it takes connections.
    pub fn start(options: &Options) -> io::Result<Server> {
        let binary = match &options.binary.server {
            Some(binary) => binary.clone(),
            None => beside_this_program()?,
        };
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        // This program is pinned to the generator's core, and a child would inherit that.
        let child = Command::new("taskset")
            .args(["--cpu-list", &options.cores])
            .arg(&binary)
            .arg("serve")
            .args(["--address", &address.to_string()])
            .args(["--shards", &options.shards.to_string()])
            .args(["--cores", &options.cores])
            .args(&options.settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| {
                io::Error::other(format!(
                    "{}: {error}; `cargo build --release` makes it",
                    binary.display()
                ))
            })?;
        let mut server = Server { child, address };
        let start = Instant::now();
        while let Err(error) = TcpStream::connect(address) {
            if let Some(status) = server.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended: {status}")));
            }
            if start.elapsed() > Duration::from_secs(10) {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// CPU time that the server's process has used.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        machine::cpu_ns(self.child.id())
    }

    pub fn resident_bytes(&self) -> io::Result<u64> {
        machine::resident_bytes(self.child.id())
    }

    /// What each thread has used: equal shards show equal figures.
    pub fn cpu_by_thread(&self) -> io::Result<String> {
        let mut text = String::new();
        let mut tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()))?
            .map(|task| task.map(|task| task.path()))
            .collect::<io::Result<Vec<_>>>()?;
        tasks.sort();
        for task in tasks {
            let name = fs::read_to_string(task.join("comm"))?;
            let times = fs::read_to_string(task.join("schedstat"))?;
            let ran_ns: f64 = times
                .split_ascii_whitespace()
                .next()
                .and_then(|ran| ran.parse().ok())
                .ok_or_else(|| io::Error::other("schedstat is empty"))?;
            write!(text, "{} {:.2} s  ", name.trim(), ran_ns / 1e9).map_err(io::Error::other)?;
        }
        Ok(text)
    }

    pub fn metrics(&self) -> io::Result<Metrics> {
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        );
        socket.write_all(request.as_bytes())?;
        let mut text = String::new();
        socket.read_to_string(&mut text)?;
        Ok(Metrics { text })
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

/// One reading of the server's own counters, all shards.
pub struct Metrics {
    text: String,
}

impl Metrics {
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

fn beside_this_program() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(|examples| examples.parent());
    let target = target.ok_or_else(|| io::Error::other("this program lies in no directory"))?;
    Ok(target.join("outpour"))
}
