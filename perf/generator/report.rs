//! A program's output: printed as it comes, and kept as a file when asked.
//!
//! Every report begins with the facts without which its figures mean nothing.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;

pub struct Report {
    name: &'static str,
    lines: Vec<String>,
    is_recorded: bool,
    /// Behind the name, where what was measured is not the machine's own loopback.
    suffix: &'static str,
}

impl Report {
    /// `steered_to` is the core that a namespace's loopback hands received packets to, if it does.
    pub fn begin(name: &'static str, is_recorded: bool, steered_to: Option<usize>) -> Report {
        let mut report = Report {
            name,
            lines: Vec::new(),
            is_recorded,
            suffix: match steered_to {
                None => "",
                Some(_) => "-netns",
            },
        };
        let mut words = std::env::args();
        let program = PathBuf::from(words.next().unwrap_or_default());
        let example = program.file_name().unwrap_or_default().to_string_lossy();
        let arguments: Vec<String> = words.collect();
        report.say(format_args!(
            "# {name}, {}",
            said("date", &["-u", "+%F %T UTC"])
        ));
        report.say(format_args!(
            "command   cargo run --release --example {example} -- {}",
            arguments.join(" ")
        ));
        report.say(format_args!("commit    {}", commit()));
        report.say(format_args!("kernel    {}", said("uname", &["-sr"])));
        report.say(format_args!("cores     {}", cores()));
        report.say(format_args!("load      {}", load_average()));
        match steered_to {
            None => report.say(
                "loopback  the receiver's TCP work runs inside the sender's call, on the sender's CPU: \
                 CPU per delivery holds both ends",
            ),
            Some(core) => report.say(format_args!(
                "loopback  of a private network namespace: the receiver's TCP work is steered to core {core}"
            )),
        }
        report.say("");
        report
    }

    pub fn say(&mut self, line: impl Display) {
        let line = line.to_string();
        println!("{line}");
        self.lines.push(line);
    }

    /// Keeps the raw output in `perf/results` if that was asked for.
    pub fn finish(self) -> io::Result<()> {
        if !self.is_recorded {
            return Ok(());
        }
        let root = PathBuf::from(said("git", &["rev-parse", "--show-toplevel"]));
        let directory = root.join("perf").join("results");
        fs::create_dir_all(&directory)?;
        let date = said("date", &["-u", "+%F"]);
        let name = format!("{date}-{}{}.txt", self.name, self.suffix);
        let file = directory.join(&name);
        let mut text = self.lines.join("\n");
        text.push('\n');
        fs::write(&file, text)?;
        println!("recorded as perf/results/{name}");
        Ok(())
    }
}

fn commit() -> String {
    let changed = said("git", &["status", "--porcelain", "--untracked-files=no"]);
    let state = if changed == "nothing" {
        ""
    } else {
        ", with changes"
    };
    format!("{}{state}", said("git", &["rev-parse", "HEAD"]))
}

fn cores() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(": ").nth(1))
        .unwrap_or("of an unnamed model");
    let count = text
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!("{count} x {model}")
}

/// How busy the machine was before: figures of a shared machine are worth less.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The first line that a program prints, or why there is none.
fn said(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout)
            .lines()
            .next()
            .unwrap_or("nothing")
            .to_owned(),
        Err(error) => format!("({program}: {error})"),
    }
}
