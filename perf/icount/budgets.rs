//! The committed budgets: what each piece may take, and how far from it a count may be.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::process::Command;

use serde::Deserialize;

/// From the top of the repository, where cargo runs examples from.
pub const FILE: &str = "perf/icount/budgets.toml";

/// Counts with the compiler that the budgets were made with repeat to well under 1 %. What is left
/// is for other C libraries and, in the sweeps, for hash tables with other seeds.
const TOLERANCE: f64 = 0.05;

/// Another compiler chooses other instructions.
const TOLERANCE_OF_ANOTHER_COMPILER: f64 = 0.30;

/// Where they begin, for those who read them.
const HEAD: &str = "\
# Instructions per operation, counted by callgrind: cargo run --release --example icount
# A change that is meant to move them writes them anew, and says why in its commit:
#   cargo run --release --example icount -- --renew
# A count that fell is held against its budget too: renewed, it keeps the gain.
";

#[derive(Debug, Default, Deserialize)]
pub struct Budgets {
    /// What `rustc --version` says.
    compiler: String,
    instructions: BTreeMap<String, f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Kept,
    Over,
    /// So far below that a later slow-down would hide.
    Under,
    Unknown,
}

impl Budgets {
    pub fn read() -> io::Result<Budgets> {
        let text = fs::read_to_string(FILE)
            .map_err(|error| io::Error::other(format!("{FILE}: {error}")))?;
        toml::from_str(&text).map_err(|error| io::Error::other(format!("{FILE}: {error}")))
    }

    pub fn tolerance(&self, compiler: &str) -> f64 {
        match self.compiler == compiler {
            true => TOLERANCE,
            false => TOLERANCE_OF_ANOTHER_COMPILER,
        }
    }

    pub fn judge(&self, piece: &str, count: f64, tolerance: f64) -> Verdict {
        match self.instructions.get(piece) {
            None => Verdict::Unknown,
            Some(budget) if count > budget * (1.0 + tolerance) => Verdict::Over,
            Some(budget) if count < budget * (1.0 - tolerance) => Verdict::Under,
            Some(_) => Verdict::Kept,
        }
    }

    /// The rest of a line about a count.
    pub fn beside(&self, piece: &str, count: f64, verdict: Verdict) -> String {
        let Some(budget) = self.instructions.get(piece) else {
            return format!("{:>12}", "-");
        };
        let change = (count / budget - 1.0) * 100.0;
        let word = match verdict {
            Verdict::Kept | Verdict::Unknown => "",
            Verdict::Over => "  OVER",
            Verdict::Under => "  UNDER: renew, to keep the gain",
        };
        format!("{budget:>12.1}  {change:+.1} %{word}")
    }
}

pub fn write(counts: &[(String, f64)], compiler: &str) -> io::Result<()> {
    fs::write(FILE, render(counts, compiler))
}

fn render(counts: &[(String, f64)], compiler: &str) -> String {
    let mut text = format!("{HEAD}\ncompiler = \"{compiler}\"\n\n[instructions]\n");
    for (piece, count) in counts {
        writeln!(text, "\"{piece}\" = {count:.1}").expect("a string takes all");
    }
    text
}

/// What would compile this program.
pub fn compiler() -> io::Result<String> {
    let output = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets() -> Budgets {
        let counts = [("lane, a letter".to_owned(), 100.0)];
        toml::from_str(&render(&counts, "rustc 1")).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let budgets = budgets();
        assert_eq!(budgets.compiler, "rustc 1");
        assert_eq!(budgets.instructions["lane, a letter"], 100.0);
    }

    /// That a slow-down is caught was tried: with `unmask` byte by byte instead of word by word,
    /// `--check` said `unmask, 128 bytes 1051.0 70.0 +1401.4 % OVER` and `frame decode, 128 bytes
    /// 1398.0 436.0 +220.6 % OVER`, and ended with status 1.
    #[test]
    fn a_count_is_held_against_its_budget_from_both_sides() {
        let budgets = budgets();
        let judge = |count| budgets.judge("lane, a letter", count, 0.05);
        assert_eq!(judge(100.0), Verdict::Kept);
        assert_eq!(judge(104.9), Verdict::Kept);
        assert_eq!(judge(105.1), Verdict::Over);
        assert_eq!(judge(94.9), Verdict::Under);
        assert_eq!(budgets.judge("another", 1.0, 0.05), Verdict::Unknown);
    }

    #[test]
    fn another_compiler_is_held_less_strictly() {
        let budgets = budgets();
        assert!(budgets.tolerance("rustc 2") > budgets.tolerance("rustc 1"));
    }

    #[test]
    fn every_piece_has_a_committed_budget() {
        let committed = include_str!("budgets.toml");
        let budgets: Budgets = toml::from_str(committed).unwrap();
        let pieces: Vec<String> = crate::pieces::Piece::all()
            .iter()
            .map(|piece| piece.name())
            .collect();
        let mut budgeted: Vec<String> = budgets.instructions.into_keys().collect();
        let mut named = pieces;
        named.sort();
        budgeted.sort();
        assert_eq!(named, budgeted);
    }
}
