//! `outpour journal`: looks at a journal or repairs it, while no server uses it.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::edge::journal::repair::Done;
use crate::edge::journal::{JournalError, inspect, repair};
use crate::options::command_line::JournalWork;

/// Does it, and succeeds if the journal can be used afterwards.
pub fn journal(work: JournalWork, directory: &Path) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match work {
        JournalWork::Verify => inspect::verify(directory, &mut out),
        JournalWork::Dump => inspect::dump(directory, &mut out).map(|()| true),
        JournalWork::Repair => repair::repair(directory).map(|done| {
            for done in &done {
                tell(done);
            }
            if done.is_empty() {
                eprintln!("nothing is damaged");
            }
            true
        }),
    };
    let flushed = out.flush();
    match (done, flushed) {
        (Ok(true), Ok(())) => ExitCode::SUCCESS,
        (Ok(false), _) => ExitCode::FAILURE,
        (Err(error), _) => fail(&error),
        (Ok(true), Err(error)) => {
            eprintln!("outpour: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fail(error: &JournalError) -> ExitCode {
    eprintln!("outpour: {error}");
    ExitCode::FAILURE
}

fn tell(done: &Done) {
    match done {
        Done::Cut { path, offset, what } => {
            eprintln!("{}, byte {offset}: {what}", path.display());
        }
        Done::SetAside { path, aside } => eprintln!(
            "{} is written anew without it; the old file is {}",
            path.display(),
            aside.display()
        ),
    }
}
