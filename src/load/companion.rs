//! A second process of the same program, told what to do by lines of JSON.
//!
//! Each measured part has a process to itself, so that its CPU time is its own. The program runs
//! itself again with a hidden first argument, the role. A companion ends with its handle, and by itself when the
//! program that started it is gone.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub struct Companion {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Companion {
    pub fn start(role: &str) -> io::Result<Companion> {
        Companion::start_program(&std::env::current_exe()?, role)
    }

    /// Starts another program that knows the role.
    pub fn start_program(program: &Path, role: &str) -> io::Result<Companion> {
        let mut child = Command::new(program)
            .arg(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = child.stdin.take().expect("its input is piped");
        let from = child.stdout.take().expect("its output is piped");
        Ok(Companion {
            child,
            to,
            from: BufReader::new(from),
        })
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    pub fn tell(&mut self, command: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        self.to.write_all(line.as_bytes())
    }

    pub fn hear<Answer: DeserializeOwned>(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            return Err(io::Error::other("the companion process ended early"));
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        // It may have ended by itself; both calls then only say so.
        if self.child.kill().is_err() {
            return;
        }
        if let Err(error) = self.child.wait() {
            eprintln!("a companion process is left behind: {error}");
        }
    }
}

/// The companion's side: one line out.
pub fn answer(value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

/// The companion's side: one line in; `None` when the program that started it is gone.
pub fn next_command<Command: DeserializeOwned>() -> io::Result<Option<Command>> {
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}
