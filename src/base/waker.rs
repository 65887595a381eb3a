//! Wakes one thread: any number of others write an event, the one that sleeps polls it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::EventfdFlags;

/// Handed to other threads: wakes its owner if it sleeps, and its next sleep if it does not.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    pub fn new() -> io::Result<Waker> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = Arc::new(rustix::event::eventfd(0, flags)?);
        Ok(Waker { event })
    }

    /// The same by a pipe, for an owner that can only read: its end is the second.
    pub fn piped() -> io::Result<(Waker, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        let event = Arc::new(writer.into());
        Ok((Waker { event }, reader.into()))
    }

    pub fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&self.event, &one));
        match written {
            // A full counter or pipe was written to before, and that woke the owner.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => (),
            // The owner of the pipe has ended, and nobody sleeps there.
            Err(rustix::io::Errno::PIPE) => (),
            Err(error) => panic!("an event that we hold open takes no wake: {error}"),
        }
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_takes_any_number_of_wakes() {
        let (waker, reader) = Waker::piped().expect("a pipe");
        for _ in 0..100_000 {
            waker.wake();
        }
        drop(waker);
        let mut wakes = Vec::new();
        std::fs::File::from(reader)
            .read_to_end(&mut wakes)
            .expect("its writer is gone");
        assert!(!wakes.is_empty());
    }

    #[test]
    fn whoever_has_ended_may_be_woken() {
        let (waker, reader) = Waker::piped().expect("a pipe");
        drop(reader);
        waker.wake();
    }
}
