//! Goes through the segments of a directory in order.

use std::fs;
use std::path::{Path, PathBuf};

use super::JournalError;
use super::scan::{Found, Scan};
use super::segment;

/// The segment that something was found in.
#[derive(Debug)]
pub struct Segment {
    pub first: u64,
    pub path: PathBuf,
    pub bytes: u64,
}

/// Hands everything that is found to `visit`, damage included, and returns the sequence that comes
/// next. Errors are those of `visit`, of the files, and what a newer version wrote.
///
/// A segment is read whole: its bytes are held once, and reading ahead is the kernel's.
pub fn walk(
    directory: &Path,
    mut visit: impl FnMut(&Segment, Found<'_>) -> Result<(), JournalError>,
) -> Result<u64, JournalError> {
    let firsts = segment::list(directory)?;
    let mut next_sequence = 1;
    for (place, first) in firsts.iter().enumerate() {
        let until = firsts.get(place + 1).copied();
        let path = segment::path(directory, *first);
        let bytes = fs::read(&path).map_err(|error| JournalError::io("read", &path, error))?;
        let segment = Segment {
            first: *first,
            path,
            bytes: bytes.len() as u64,
        };
        let mut scan = Scan::new(&bytes, *first, until);
        loop {
            let found = scan.find();
            let is_over = match found {
                Found::Record { .. } | Found::Damage { .. } => false,
                Found::Torn { .. } | Found::End { .. } => true,
                Found::Foreign { offset } => {
                    return Err(JournalError::Foreign {
                        path: segment.path,
                        offset: offset as u64,
                    });
                }
            };
            visit(&segment, found)?;
            if is_over {
                break;
            }
        }
        next_sequence = scan.next_sequence();
    }
    Ok(next_sequence)
}
