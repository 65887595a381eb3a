//! Instructions per operation of the pieces that `benches/` times, counted by callgrind.
//!
//! A count is the same on a busy machine and on an idle one, so a slow-down of a few percent shows
//! where time would not tell it from noise. `--check` holds the counts against the committed budgets,
//! `--renew` writes them anew.
//!
//! Each piece runs in a process of its own under valgrind, which starts this program again with the
//! piece's name.

use std::io;
use std::process::ExitCode;

use clap::Parser;

mod budgets;
mod callgrind;
#[path = "../../benches/pieces/mod.rs"]
mod inputs;
mod pieces;

use budgets::{Budgets, Verdict};
use pieces::Piece;

/// The server's allocator, so that what it costs is counted as it is there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Counts instructions per operation under callgrind.
#[derive(Parser)]
struct Options {
    /// Fail if a count is not within the tolerance of its budget.
    #[arg(long)]
    check: bool,
    /// Write the budgets anew.
    #[arg(long, conflicts_with = "check")]
    renew: bool,
    /// Only pieces whose name contains this.
    #[arg(long, default_value = "", conflicts_with = "renew")]
    only: String,
}

fn main() -> io::Result<ExitCode> {
    if let Some(order) = callgrind::order()? {
        pieces::run(order.piece, order.times);
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::parse();
    let compiler = budgets::compiler()?;
    let budgets = match options.renew {
        true => Budgets::default(),
        false => Budgets::read()?,
    };
    let tolerance = budgets.tolerance(&compiler);
    println!(
        "instructions per operation, tolerance {:.0} %\n",
        tolerance * 100.0
    );
    println!("{:<30} {:>12} {:>12}  change", "piece", "counted", "budget");
    let mut counts = Vec::new();
    let mut is_kept = true;
    for piece in Piece::all() {
        let name = piece.name();
        if !name.contains(&options.only) {
            continue;
        }
        let count = callgrind::count(piece)?;
        let verdict = budgets.judge(&name, count, tolerance);
        is_kept &= verdict == Verdict::Kept;
        println!(
            "{name:<30} {count:>12.1} {}",
            budgets.beside(&name, count, verdict)
        );
        counts.push((name, count));
    }
    if options.renew {
        budgets::write(&counts, &compiler)?;
        println!("\nwritten to {}", budgets::FILE);
    }
    if options.check && !is_kept {
        println!(
            "\nOVER BUDGET or off it. If that is meant: cargo run --release --example icount -- --renew"
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
