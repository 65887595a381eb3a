//! An io_uring loop as the engine uses it, without an engine around it.
//!
//! Sockets are direct descriptors. Sends complete inside `enter`, so the loop may assume that each
//! put everything in; those that did not are the only ones that come back as completions. A
//! blocked socket is polled for room and then sent to from its cursor.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use io_uring::types::{Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::log::Log;
use super::{Sends, Tally};
use outpour::load::machine::monotonic_ns;

/// Sends in one system call.
const BATCH: usize = 1_024;
/// Set in the `user_data` of polls; the rest is the socket's index.
const POLL: u64 = 1 << 32;

#[derive(Clone, Copy, Default)]
struct Cursor {
    position: usize,
    is_blocked: bool,
}

/// A send of the batch: which socket, and from where.
struct Sent {
    socket: usize,
    from: usize,
}

pub struct Naked {
    ring: IoUring,
    /// Direct descriptors, by socket.
    slots: Vec<u32>,
    cursors: Vec<Cursor>,
    batch: Vec<Sent>,
    polls: Vec<usize>,
    enters: u64,
}

impl Naked {
    pub fn accept(listener: &TcpListener, sockets: usize) -> io::Result<Naked> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(8 * BATCH as u32)
            .build(BATCH as u32)?;
        ring.submitter().register_files_sparse(sockets as u32)?;
        let mut naked = Naked {
            ring,
            slots: Vec::with_capacity(sockets),
            cursors: vec![Cursor::default(); sockets],
            batch: Vec::with_capacity(BATCH),
            polls: Vec::new(),
            enters: 0,
        };
        let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true);
        naked.push(&accept.build());
        while naked.slots.len() < sockets {
            naked.ring.submit_and_wait(1)?;
            let mut is_armed = true;
            for completion in naked.ring.completion() {
                let slot = outcome(&completion)?;
                naked.slots.push(slot as u32);
                is_armed = cqueue::more(completion.flags());
            }
            if !is_armed && naked.slots.len() < sockets {
                naked.push(&accept_again(listener));
            }
        }
        Ok(naked)
    }

    /// There is room: no batch is larger than the queue, and each is handed over before the next.
    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: entries name direct descriptors and bytes of a log that is never freed, so all
        // that they point to outlives them.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.expect("the queue holds a batch");
    }

    fn visit(&mut self, log: &Log, socket: usize, head: usize) {
        let from = self.cursors[socket].position;
        let end = log.visit_end(from, head);
        let bytes = &log.bytes[from..end];
        let slot = Fixed(self.slots[socket]);
        let entry = opcode::Send::new(slot, bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(self.batch.len() as u64);
        self.push(&entry);
        self.batch.push(Sent { socket, from });
        self.cursors[socket].position = end;
    }

    /// Hands the batch over and takes in what fell short, and which sockets have room again.
    fn enter(&mut self, wait_until_ns: Option<u64>, tally: &mut Tally) -> io::Result<()> {
        tally.visits += self.batch.len() as u64;
        self.enters += 1;
        let now_ns = monotonic_ns();
        match wait_until_ns {
            Some(due_ns) if due_ns > now_ns => {
                let timeout = Timespec::from(std::time::Duration::from_nanos(due_ns - now_ns));
                let arguments = SubmitArgs::new().timespec(&timeout);
                match self.ring.submitter().submit_with_args(1, &arguments) {
                    Ok(_) => {}
                    Err(error) if error.raw_os_error() == Some(libc::ETIME) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Some(_) | None => {
                let count = self.ring.submission().len() as u32;
                // io_uring_enter(2): run what was deferred, and wait for nothing.
                let flags = 1;
                // SAFETY: no argument structure is passed, so there is nothing to be valid.
                unsafe {
                    self.ring
                        .submitter()
                        .enter::<libc::sigset_t>(count, 0, flags, None)?
                };
            }
        }
        self.take_in(tally)
    }

    fn take_in(&mut self, tally: &mut Tally) -> io::Result<()> {
        for completion in self.ring.completion() {
            let user_data = completion.user_data();
            if user_data & POLL != 0 {
                outcome(&completion)?;
                self.cursors[(user_data & !POLL) as usize].is_blocked = false;
                continue;
            }
            let sent = &self.batch[user_data as usize];
            let taken = match outcome(&completion) {
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            tally.short_sends += 1;
            self.cursors[sent.socket] = Cursor {
                position: sent.from + taken,
                is_blocked: true,
            };
            self.polls.push(sent.socket);
        }
        self.batch.clear();
        Ok(())
    }

    fn poll_blocked(&mut self, tally: &mut Tally) -> io::Result<()> {
        while !self.polls.is_empty() {
            let first = self.polls.len().saturating_sub(BATCH);
            for socket in self.polls.split_off(first) {
                let poll = opcode::PollAdd::new(Fixed(self.slots[socket]), libc::POLLOUT as u32)
                    .build()
                    .user_data(POLL | socket as u64);
                self.push(&poll);
            }
            self.enter(None, tally)?;
        }
        Ok(())
    }
}

impl Sends for Naked {
    fn send(&mut self, log: &Log) -> io::Result<Tally> {
        let mut tally = Tally::default();
        self.cursors.fill(Cursor::default());
        self.enters = 0;
        loop {
            let lap_start_ns = monotonic_ns();
            let mut head = log.head(lap_start_ns);
            let mut is_idle = true;
            for socket in 0..self.slots.len() {
                let cursor = self.cursors[socket];
                if cursor.is_blocked || cursor.position == head {
                    continue;
                }
                is_idle = false;
                self.visit(log, socket, head);
                if self.batch.len() == BATCH {
                    self.enter(None, &mut tally)?;
                    head = log.head(monotonic_ns());
                }
            }
            if !self.batch.is_empty() {
                self.enter(None, &mut tally)?;
            }
            self.poll_blocked(&mut tally)?;
            if is_idle {
                let is_done = |cursor: &Cursor| cursor.position == log.bytes.len();
                if self.cursors.iter().all(is_done) {
                    break;
                }
                // The next message, or room in a blocked socket, whichever comes first.
                let due_ns = match head == log.bytes.len() {
                    true => lap_start_ns + 1_000_000_000,
                    false => log.due_ns(head),
                };
                self.enter(Some(due_ns), &mut tally)?;
            } else {
                let lap_us = (monotonic_ns() - lap_start_ns) / 1_000;
                tally.lap_us_max = tally.lap_us_max.max(lap_us);
            }
        }
        tally.deliveries = log.messages * self.slots.len() as u64;
        tally.system_calls = Some(self.enters);
        Ok(tally)
    }
}

fn accept_again(listener: &TcpListener) -> squeue::Entry {
    opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
        .allocate_file_index(true)
        .build()
}

fn outcome(completion: &cqueue::Entry) -> io::Result<usize> {
    match completion.result() {
        result if result < 0 => Err(io::Error::from_raw_os_error(-result)),
        result => Ok(result as usize),
    }
}
