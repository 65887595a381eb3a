//! Carries out what [`super::commit`] says, with tokio-uring's file operations.
//!
//! Each step is waited for before the next begins, so that at a crash the files are one of the states
//! that [`super::scan`] knows: a new segment's head is synced, then its name, then a group is written
//! and synced. Opening, cutting and listing are rare; where tokio-uring has no operation for one of
//! them, the system call is made here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio_uring::fs::{File, OpenOptions, remove_file};
use tracing::warn;

use super::commit::Write;
use super::segment;

/// The files of a journal, while nobody else writes to them.
pub struct Files {
    directory: PathBuf,
    active: Option<(u64, File)>,
}

/// What a write came to.
pub struct Written {
    pub files: Files,
    /// The group's bytes, to be used again.
    pub bytes: Vec<u8>,
    pub result: io::Result<()>,
}

impl Files {
    pub fn new(directory: &Path) -> Files {
        Files {
            directory: directory.into(),
            active: None,
        }
    }

    /// Writes and syncs a group. If that fails, the file is cut back to what was there before, so
    /// that nothing that is refused comes to life at the next start, and it is not written to again.
    pub async fn write(mut self, write: Write) -> Written {
        let Write {
            first,
            offset,
            is_new,
            bytes,
        } = write;
        let opened = match (&self.active, is_new) {
            (Some((open, _)), false) if *open == first => Ok(()),
            (Some(_) | None, false) => self.open(first).await,
            (Some(_) | None, true) => self.create(first).await,
        };
        let (result, bytes) = match (opened, &self.active) {
            (Ok(()), Some((_, file))) => {
                let (written, bytes) = file.write_all_at(bytes, offset).await;
                match written {
                    Ok(()) => (file.sync_data().await, bytes),
                    Err(error) => (Err(error), bytes),
                }
            }
            (Ok(()), None) => unreachable!("a file was just opened"),
            (Err(error), _) => (Err(error), bytes),
        };
        if result.is_err() {
            self.cut(first, if is_new { 0 } else { offset }).await;
        }
        Written {
            files: self,
            bytes,
            result,
        }
    }

    /// Removes a segment. The directory is synced, so that after a crash no older one is there
    /// while a newer one is not.
    pub async fn remove(&self, first: u64) -> io::Result<()> {
        match remove_file(segment::path(&self.directory, first)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.sync_directory().await
    }

    async fn open(&mut self, first: u64) -> io::Result<()> {
        self.close().await?;
        let path = segment::path(&self.directory, first);
        let file = OpenOptions::new().write(true).open(path).await?;
        self.active = Some((first, file));
        Ok(())
    }

    async fn create(&mut self, first: u64) -> io::Result<()> {
        self.close().await?;
        let path = segment::path(&self.directory, first);
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true);
        let file = options.open(path).await?;
        let (written, _) = file.write_all_at(segment::encode_head(first), 0).await;
        written?;
        file.sync_all().await?;
        self.sync_directory().await?;
        self.active = Some((first, file));
        Ok(())
    }

    async fn close(&mut self) -> io::Result<()> {
        match self.active.take() {
            Some((_, file)) => file.close().await,
            None => Ok(()),
        }
    }

    async fn sync_directory(&self) -> io::Result<()> {
        let directory = File::open(&self.directory).await?;
        directory.sync_all().await?;
        directory.close().await
    }

    async fn cut(&mut self, first: u64, length: u64) {
        let path = segment::path(&self.directory, first);
        let closed = self.close().await;
        let cut = match closed.and_then(|()| fs::OpenOptions::new().write(true).open(&path)) {
            Ok(file) => match file.set_len(length) {
                Ok(()) => File::from_std(file).sync_all().await,
                Err(error) => Err(error),
            },
            // It was not even made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = cut {
            warn!(
                "cannot cut {} back to {length} bytes: {error}; if the server ends before the \
                 next event is journaled, an event that was refused may be replayed",
                path.display()
            );
        }
    }
}
