//! How a program starts the server under test: the release binary, on cores of its own.

use std::io;
use std::path::PathBuf;

use outpour::load::server::{Plan, Server};

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Options {
    #[command(flatten)]
    pub binary: Binary,
    #[arg(long, default_value_t = 1)]
    pub shards: usize,
    /// The server's cores, separated by commas.
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

impl Options {
    pub fn start(&self) -> io::Result<Server> {
        let binary = match &self.binary.server {
            Some(binary) => binary.clone(),
            None => beside_this_program()?,
        };
        Server::start(&Plan {
            binary,
            shards: self.shards,
            cores: self.core_numbers()?,
            settings: self.settings.clone(),
        })
    }

    pub fn core_numbers(&self) -> io::Result<Vec<usize>> {
        let numbers = self.cores.split(',').map(|core| core.trim().parse());
        let numbers: Result<Vec<usize>, _> = numbers.collect();
        numbers.map_err(|_| io::Error::other(format!("{}: cores, as 0,1, please", self.cores)))
    }
}

fn beside_this_program() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(|examples| examples.parent());
    let target = target.ok_or_else(|| io::Error::other("this program lies in no directory"))?;
    Ok(target.join("outpour"))
}
