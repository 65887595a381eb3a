//! The journal: the events of durable channels, on disk before anybody sees them.
//!
//! A journal is a directory of segments ([`segment`]), each a file of records ([`record`]) in the
//! order in which they were written. There is one active segment for all shards, and one writer: one
//! sync confirms everything that waited, whichever channels it is for, and a disk has one queue anyway.
//!
//! What waits is written as a group, with one write and one sync; the next group gathers meanwhile
//! and is written when that one is synced. So only the last group can be torn by a crash, and a
//! journal that cannot be read elsewhere is damaged: it is not used until `outpour journal repair`
//! was run, which keeps what it replaces ([`repair`]).
//!
//! Invariants:
//! - Nothing is confirmed before a sync that began after its write has succeeded.
//! - After a write or sync that failed, what is on the disk is unknown: the file is cut back to what
//!   was confirmed and not written to again.
//! - Sequences are without a gap, and so are the serials of a channel within an epoch. Where a repair
//!   lost records, a record says so.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub mod commit;
pub mod continuity;
pub mod desk;
pub mod inspect;
pub mod ledger;
pub mod names;
pub mod record;
pub mod recovery;
pub mod repair;
pub mod restore;
pub mod scan;
pub mod segment;
pub mod walk;
pub mod writer;

#[cfg(test)]
mod tests;

/// Why a journal cannot be used.
#[derive(Debug)]
pub enum JournalError {
    Io {
        what: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    InUse {
        directory: PathBuf,
    },
    /// What was written once cannot be read.
    Damaged {
        directory: PathBuf,
        path: PathBuf,
        offset: u64,
        what: String,
    },
    /// A newer version wrote it.
    Foreign {
        path: PathBuf,
        offset: u64,
    },
}

impl JournalError {
    pub(super) fn io(what: &'static str, path: &Path, error: io::Error) -> JournalError {
        JournalError::Io {
            what,
            path: path.into(),
            error,
        }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Io { what, path, error } => {
                write!(out, "cannot {what} {}: {error}", path.display())
            }
            JournalError::InUse { directory } => write!(
                out,
                "the journal in {} is in use by another process",
                directory.display()
            ),
            JournalError::Damaged {
                directory,
                path,
                offset,
                what,
            } => write!(
                out,
                "the journal is damaged: {}, byte {offset}: {what}. `outpour journal verify {dir}` \
                 lists all damage, `outpour journal repair {dir}` keeps everything else and sets \
                 the damaged files aside",
                path.display(),
                dir = directory.display()
            ),
            JournalError::Foreign { path, offset } => write!(
                out,
                "{}, byte {offset}: a newer version of outpour wrote this",
                path.display()
            ),
        }
    }
}

impl std::error::Error for JournalError {}
