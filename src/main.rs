//! argv to a command.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::process::ExitCode;

use outpour::options::command_line::{self, Command};
use outpour::options::{self, Flags, Loaded, OptionsError, report};
use outpour::{load, server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(role) = std::env::args_os()
        .nth(1)
        .and_then(|name| load::Role::named(&name))
    {
        return told(role.act());
    }
    match command_line::parse(std::env::args_os()) {
        Ok(Command::Serve(flags)) => with_options(flags, |loaded| server::serve(loaded.options)),
        Ok(Command::Config(flags)) => with_options(flags, |loaded| print(&loaded.report())),
        Ok(Command::ConfigMarkdown) => print(&report::markdown()),
        Ok(Command::Doctor(flags)) => with_options(flags, |loaded| server::doctor(&loaded.options)),
        Ok(Command::Bench(words)) => load::command_line::run(words),
        Ok(Command::Journal { work, directory }) => server::journal(work, &directory),
        Err(help_or_error) => help_or_error.exit(),
    }
}

/// The end of a process that another one of this program started.
fn told(outcome: io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outpour: {error}");
            ExitCode::FAILURE
        }
    }
}

fn with_options(flags: Flags, run: impl FnOnce(Loaded) -> ExitCode) -> ExitCode {
    match options::load(flags, environment(), |path| fs::read_to_string(path)) {
        Ok(loaded) => run(loaded),
        Err(error) => refuse(&error),
    }
}

/// The environment, where a name that is not Unicode is not ours and a value that is not Unicode
/// is one that no setting accepts.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        Some((name, value.to_string_lossy().into_owned()))
    })
}

/// What a shell reports for a wrong command line.
const EXIT_USAGE: u8 = 2;

fn refuse(error: &OptionsError) -> ExitCode {
    eprintln!("outpour: {error}");
    if let Some(remedy) = fresh_secret().ok().and_then(|secret| error.remedy(&secret)) {
        eprintln!("{remedy}");
    }
    ExitCode::from(EXIT_USAGE)
}

/// 192 bits from the kernel, in hexadecimal.
fn fresh_secret() -> io::Result<String> {
    let mut bytes = [0; 24];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
