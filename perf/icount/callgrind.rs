//! One piece under valgrind's callgrind, which counts instructions between the entry and the return
//! of the functions that it is told by name.

use std::io;
use std::process::Command;

use crate::pieces::{Counted, Piece};

/// The hidden first argument that makes this program the one that is counted.
const ROLE: &str = "counted";

/// Which copies of memory glibc chooses, and above what size it goes around the caches, follows the
/// processor; here it is told to take what every processor has. (Valgrind itself shows a processor of
/// its own, without SHA instructions.)
const PLAIN_PROCESSOR: &str = "glibc.cpu.hwcaps=-AVX2,-AVX,-AVX512F,-AVX512VL,-AVX512BW,-ERMS,-FSRM,-BMI2,-SSE4_2,-SSSE3\
    :glibc.cpu.x86_non_temporal_threshold=0x1000000:glibc.cpu.x86_rep_movsb_threshold=0x1000000\
    :glibc.cpu.x86_rep_stosb_threshold=0x1000000";

pub struct Order {
    pub piece: Piece,
    pub times: usize,
}

/// What this process is to run, if it was started to be counted.
pub fn order() -> io::Result<Option<Order>> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(ROLE) {
        return Ok(None);
    }
    let (name, times) = (arguments.next(), arguments.next());
    let piece = Piece::all()
        .into_iter()
        .find(|piece| Some(piece.name()) == name);
    let times = times.and_then(|times| times.parse().ok());
    match (piece, times) {
        (Some(piece), Some(times)) => Ok(Some(Order { piece, times })),
        (None, _) | (_, None) => Err(io::Error::other("PIECE TIMES, please")),
    }
}

/// Instructions per operation. The difference of two runs of different length: what happens before
/// the first operation and after the last is in neither.
pub fn count(piece: Piece) -> io::Result<f64> {
    let times = piece.times();
    let operations = times * piece.operations_a_time();
    let (once, twice) = (instructions(piece, times)?, instructions(piece, 2 * times)?);
    Ok((twice as f64 - once as f64) / operations as f64)
}

fn instructions(piece: Piece, times: usize) -> io::Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .env("GLIBC_TUNABLES", PLAIN_PROCESSOR);
    for function in names(piece.counted()) {
        valgrind.arg(format!("--toggle-collect={function}"));
    }
    let output = valgrind
        .arg(std::env::current_exe()?)
        .args([ROLE, &piece.name(), &times.to_string()])
        .output()
        .map_err(|error| io::Error::other(format!("valgrind, which counts: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match collected {
        Some(0) => Err(io::Error::other(format!(
            "{}: valgrind knows none of {:?}",
            piece.name(),
            names(piece.counted())
        ))),
        Some(instructions) if output.status.success() => Ok(instructions),
        Some(_) | None => Err(io::Error::other(format!("{}: {said}", piece.name()))),
    }
}

/// As valgrind knows them; `*` stands for what the compiler adds.
fn names(counted: Counted) -> &'static [&'static str] {
    match counted {
        Counted::Everything => &["*pieces*repeat*"],
        Counted::Engine => &["*World*begin*", "*World*finish*"],
    }
}
