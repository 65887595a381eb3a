//! Makes a damaged journal one that can be used: keeps every record that can be read, and says in it
//! where others were lost.
//!
//! A segment with damage is written anew beside the old one, which stays as `NAME.damaged`; when the
//! new one is on the disk it takes the name, in one step. What a start makes of the places where
//! records were lost is in [`super::continuity`]: a channel keeps what came after them, so that no
//! client is told that it missed nothing.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::JournalError;
use super::continuity::{Continuity, Order};
use super::record::{Content, Record};
use super::recovery::{jump, loss};
use super::scan::Found;
use super::segment::{self, Lock};
use super::walk::{self, Segment};

/// Something that was done, in the order of the journal.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// Damage was taken out of the new file.
    Cut {
        path: PathBuf,
        offset: u64,
        what: String,
    },
    /// The old file was set aside.
    SetAside { path: PathBuf, aside: PathBuf },
}

/// Repairs, and returns what was done: nothing if nothing was damaged.
pub fn repair(directory: &Path) -> Result<Vec<Done>, JournalError> {
    let _lock = Lock::take(directory)?;
    let mut done = Vec::new();
    let mut continuity = Continuity::default();
    let mut copy = Copy::default();
    walk::walk(directory, |segment, found| {
        let mut cut = |offset: usize, what| {
            done.push(Done::Cut {
                path: segment.path.clone(),
                offset: offset as u64,
                what,
            });
        };
        copy.begin(segment);
        match found {
            Found::Record { offset, record } => {
                match record.content {
                    Content::Event(entry) => {
                        let (_, order) = continuity.see(&entry);
                        if let Order::Jumps { expected } = order {
                            cut(offset, jump(&entry, expected));
                            copy.lose(record.sequence, record.sequence);
                            continuity.see_lost();
                            continuity.see(&entry);
                        }
                    }
                    Content::Lost { .. } => continuity.see_lost(),
                    Content::End => {}
                }
                record.encode(&mut copy.bytes);
            }
            Found::Damage {
                offset, lost, next, ..
            } => {
                cut(offset, loss(lost, next));
                copy.is_changed = true;
                if lost < next {
                    copy.lose(lost, next);
                    continuity.see_lost();
                }
            }
            Found::Foreign { .. } => unreachable!("the walk ends with it"),
            Found::Torn { .. } | Found::End { .. } => {
                if copy.is_changed {
                    let aside = copy.replace(directory, segment)?;
                    let path = segment.path.clone();
                    done.push(Done::SetAside { path, aside });
                }
            }
        }
        Ok(())
    })?;
    Ok(done)
}

/// A segment without its damage.
#[derive(Default)]
struct Copy {
    first: Option<u64>,
    bytes: Vec<u8>,
    is_changed: bool,
}

impl Copy {
    fn begin(&mut self, segment: &Segment) {
        if self.first != Some(segment.first) {
            *self = Copy {
                first: Some(segment.first),
                bytes: segment::encode_head(segment.first),
                is_changed: false,
            };
        }
    }

    fn lose(&mut self, sequence: u64, next: u64) {
        self.is_changed = true;
        let lost = Record {
            sequence,
            place: 0,
            content: Content::Lost { next },
        };
        lost.encode(&mut self.bytes);
    }

    /// Returns where the old file is now.
    fn replace(&self, directory: &Path, segment: &Segment) -> Result<PathBuf, JournalError> {
        let path = &segment.path;
        let new = with_ending(path, "new");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&self.bytes)?;
            file.sync_all()
        });
        written.map_err(|error| JournalError::io("write", &new, error))?;
        let aside = (1..)
            .map(|number| match number {
                1 => with_ending(path, "damaged"),
                _ => with_ending(path, &format!("damaged.{number}")),
            })
            .find(|aside| !aside.exists())
            .expect("there are more numbers than files");
        // The old file has both names until the new one takes its own, so none is ever missing.
        fs::hard_link(path, &aside).map_err(|error| JournalError::io("keep", path, error))?;
        fs::rename(&new, path).map_err(|error| JournalError::io("rename", &new, error))?;
        segment::sync_directory(directory)?;
        Ok(aside)
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
