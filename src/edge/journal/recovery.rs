//! What a start makes of a journal: everything that was confirmed, and a file to go on with.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use super::JournalError;
use super::continuity::{Continuity, Order};
use super::record::{Content, Entry};
use super::scan::Found;
use super::segment::{self, Lock};
use super::walk;

/// What is read, in order.
#[derive(Debug)]
pub enum Step<'a> {
    /// A segment with this first sequence begins.
    Segment(u64),
    Event(Replayed<'a>),
}

/// An event that was read, for those who replay it.
#[derive(Debug)]
pub struct Replayed<'a> {
    pub entry: Entry<'a>,
    /// The channel's number, as [`Continuity`] gives them.
    pub channel: u32,
    /// Whatever was read of this channel before does not count any more.
    pub is_beginning: bool,
}

/// A journal that can be gone on with.
#[derive(Debug)]
pub struct Recovered {
    pub directory: PathBuf,
    pub lock: Lock,
    /// The sequence of the next record.
    pub next: u64,
    /// The segment to go on with: its first sequence, and its length.
    pub active: Option<(u64, u64)>,
    pub records: u64,
    pub torn: Option<Torn>,
    pub continuity: Continuity,
}

/// What a crash cut off. Nobody was told that it is published.
#[derive(Debug, PartialEq, Eq)]
pub struct Torn {
    pub path: PathBuf,
    pub offset: u64,
    pub bytes: u64,
}

/// Reads the journal in `directory`, which is made if there is none, and hands its events to
/// `replay`. A torn end is cut off; damage is an error. When it returns, all that was read is on
/// the disk: after a crash of the process alone, some of it may have been in memory only.
pub fn recover(
    directory: &Path,
    mut replay: impl FnMut(Step<'_>),
) -> Result<Recovered, JournalError> {
    make(directory)?;
    let lock = Lock::take(directory)?;
    let (mut records, mut active, mut torn) = (0, None, None);
    let (mut continuity, mut begun) = (Continuity::default(), None);
    let next = walk::walk(directory, |segment, found| {
        let damaged = |offset: usize, what: String| JournalError::Damaged {
            directory: directory.into(),
            path: segment.path.clone(),
            offset: offset as u64,
            what,
        };
        if begun != Some(segment.first) {
            begun = Some(segment.first);
            replay(Step::Segment(segment.first));
        }
        match found {
            Found::Record { offset, record } => {
                records += 1;
                match record.content {
                    Content::Event(entry) => {
                        let (channel, order) = continuity.see(&entry);
                        if let Order::Jumps { expected } = order {
                            let what = jump(&entry, expected);
                            return Err(damaged(offset, what));
                        }
                        replay(Step::Event(Replayed {
                            entry,
                            channel,
                            is_beginning: order == Order::Begins,
                        }));
                    }
                    Content::Lost { .. } => continuity.see_lost(),
                    Content::End => {}
                }
            }
            Found::Damage {
                offset, lost, next, ..
            } => return Err(damaged(offset, loss(lost, next))),
            Found::Foreign { .. } => unreachable!("the walk ends with it"),
            Found::Torn { offset } => {
                let offset = offset as u64;
                torn = Some(Torn {
                    path: segment.path.clone(),
                    offset,
                    bytes: segment.bytes - offset,
                });
                active = Some((segment.first, offset));
            }
            Found::End { offset } => active = Some((segment.first, offset as u64)),
        }
        Ok(())
    })?;
    if let Some((first, length)) = active {
        settle(&segment::path(directory, first), length)?;
    }
    segment::sync_directory(directory)?;
    Ok(Recovered {
        directory: directory.into(),
        lock,
        next,
        active: active.filter(|(_, length)| *length > 0),
        records,
        torn,
        continuity,
    })
}

/// Words for records that are gone.
pub fn loss(lost: u64, next: u64) -> String {
    match next - lost {
        0 => "bytes that are no record stand here".to_string(),
        1 => format!("record {lost} cannot be read"),
        _ => format!("records {lost} to {} cannot be read", next - 1),
    }
}

/// Words for events that are gone.
pub fn jump(entry: &Entry<'_>, expected: u64) -> String {
    format!(
        "channel {:?} of app {:?} has serial {} where {expected} should be",
        entry.channel, entry.app_id, entry.serial
    )
}

/// Makes the directory if it is not there, and has its name on the disk.
fn make(directory: &Path) -> Result<(), JournalError> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = directory.ancestors().take_while(is_missing).collect();
    fs::create_dir_all(directory).map_err(|error| JournalError::io("make", directory, error))?;
    for made in missing {
        let parent = made
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        segment::sync_directory(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

fn settle(path: &Path, length: u64) -> Result<(), JournalError> {
    let failed = |error| JournalError::io("cut", path, error);
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() > length {
        file.set_len(length).map_err(failed)?;
    }
    file.sync_all()
        .map_err(|error| JournalError::io("sync", path, error))
}
