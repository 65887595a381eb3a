//! Segments: the files that a journal is made of, each a head and then records.
//!
//! A segment is named by the sequence of its first record, in digits that sort as text: a directory
//! in order is the journal in order. Its head, little-endian: `outpourj` (8 bytes), the version of
//! the format (4), that sequence again (8), CRC-32C of these (4). Segments follow each other without
//! a break: the next one's name is the sequence that comes after the last record that counts.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::JournalError;

pub const HEAD_BYTES: usize = 24;

const MAGIC: &[u8; 8] = b"outpourj";
const VERSION: u32 = 1;
const ENDING: &str = ".journal";
const DIGITS: usize = 20;
const LOCK: &str = "lock";

/// What a segment begins with.
pub fn encode_head(first: u64) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&first.to_le_bytes());
    head.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
    head
}

/// What the bytes of a segment begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    Good,
    /// Cut short or changed.
    Bad,
    /// Whole, and of a version that this one does not know.
    Foreign {
        version: u32,
    },
}

impl Head {
    pub fn read(bytes: &[u8], first: u64) -> Head {
        let Some(head) = bytes.get(..HEAD_BYTES) else {
            return Head::Bad;
        };
        if *head == encode_head(first)[..] {
            return Head::Good;
        }
        let (fields, checksum) = head.split_at(HEAD_BYTES - 4);
        match crc32c::crc32c(fields).to_le_bytes() == checksum && fields.starts_with(MAGIC) {
            true => {
                let version = fields[8..12].try_into().expect("these are four bytes");
                let version = u32::from_le_bytes(version);
                match version == VERSION {
                    // Right in itself, but it is another segment's.
                    true => Head::Bad,
                    false => Head::Foreign { version },
                }
            }
            false => Head::Bad,
        }
    }
}

pub fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:0DIGITS$}{ENDING}"))
}

fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(ENDING)?;
    let is_number = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// The first sequences of the segments in a directory, in order. Other files are left alone.
pub fn list(directory: &Path) -> Result<Vec<u64>, JournalError> {
    let failed = |error| JournalError::io("read", directory, error);
    let mut firsts = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        firsts.extend(name.to_str().and_then(first_of));
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Has the directory's entries on the disk: a file that is synced can still be nameless.
pub fn sync_directory(directory: &Path) -> Result<(), JournalError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| JournalError::io("sync", directory, error))
}

/// The right to change a journal: one process has it, until it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    pub fn take(directory: &Path) -> Result<Lock, JournalError> {
        let path = directory.join(LOCK);
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true);
        let file = options
            .open(&path)
            .map_err(|error| JournalError::io("open", &path, error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(JournalError::InUse {
                directory: directory.into(),
            }),
            Err(error) => Err(JournalError::io("lock", &path, error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_order_are_sequences_in_order_and_others_are_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let firsts = [1, 9, 10, 4_000_000_000_000, u64::MAX];
        for first in firsts.iter().rev() {
            fs::write(path(directory.path(), *first), "").unwrap();
        }
        for name in ["lock", "1.journal", "00000000000000000001.journal.damaged"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(list(directory.path()).unwrap(), firsts);
    }

    #[test]
    fn a_head_is_of_its_segment_alone() {
        let head = encode_head(7);
        assert_eq!(head.len(), HEAD_BYTES);
        assert_eq!(Head::read(&head, 7), Head::Good);
        assert_eq!(Head::read(&head, 8), Head::Bad);
        for length in 0..HEAD_BYTES {
            assert_eq!(Head::read(&head[..length], 7), Head::Bad);
        }
        for bit in 0..8 * HEAD_BYTES {
            let mut changed = head.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::read(&changed, 7), Head::Bad);
        }
        let mut later = head[..HEAD_BYTES - 4].to_vec();
        later[8] = 2;
        later.extend_from_slice(&crc32c::crc32c(&later).to_le_bytes());
        assert_eq!(Head::read(&later, 7), Head::Foreign { version: 2 });
    }

    #[test]
    fn one_holds_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take(directory.path()).unwrap();
        assert!(matches!(
            Lock::take(directory.path()),
            Err(JournalError::InUse { .. })
        ));
        drop(lock);
        assert!(Lock::take(directory.path()).is_ok());
    }
}
