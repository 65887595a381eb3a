//! The ring that serves: a shard's batches through io_uring, one system call a turn.
//!
//! Owns the io_uring instance, the table of direct descriptors, the receive buffers, the listener
//! and whatever the kernel reads or writes while an operation waits. Made and used on the shard's
//! own thread, for the kernel takes submissions from no other.
//!
//! Invariants:
//! - A send executes inside the `enter` that carries it: `MSG_DONTWAIT` forbids the kernel to wait
//!   for room. A completion of a send that names another batch is our fault and stops the process.
//! - `enter` returns with the completion queue empty and nothing held back in the kernel, so no
//!   short send is reported late.
//! - What the kernel may still write to (buffers, peers' addresses) outlives the ring's descriptor.
//! - A slot is not closed while a shutdown of it runs. The kernel hands shutdowns to a worker, which
//!   looks the slot up when it gets there: it would find the next connection.
//! - A connection that moves is in two tables for a moment, and is told to both shards: here once
//!   this table has let go of it, there as soon as that table has it.
//!
//! The flags: SINGLE_ISSUER and DEFER_TASKRUN run completions when we ask and not when they
//! interrupt; TASKRUN_FLAG shows from user space whether any wait, so that spinning costs no system
//! call; SUBMIT_ALL goes on behind a submission that failed. All exist since 6.1. COOP_TASKRUN adds
//! nothing to DEFER_TASKRUN.
//!
//! An accept looks first whether a connection waits, where the kernel can (6.10): it would make a
//! file before it looks, and most accepts are pushed when none waits.

mod routes;
mod slots;
mod tag;
#[cfg(test)]
mod tests;

use self::routes::{CHAIN_MAX, Routes};
use self::slots::{Emptied, Slots};
use self::tag::{GENERATION_MASK, Kind, of_socket, parts, user_data};
use super::buffers::{self, Buffers};
use super::{
    Buffer, Completion, End, Operation, PIECES_MAX, Ring, Sends, ShortSend, Socket, Tally, Wait,
};
use io_uring::squeue::{self, Flags};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode};
use socket2::{SockAddr, SockAddrStorage};
use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

pub use self::routes::Route;
pub use crate::base::waker::Waker;

/// The sizes of a ring, all of them bounds.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Direct descriptors, so connections; bounded by the process's NOFILE limit and by 2^20.
    pub file_slots: u32,
    /// What one system call can hand over; a larger batch takes several.
    pub submission_entries: u32,
    /// At least `submission_entries`. When more completes, the kernel keeps it and multishot
    /// receives end.
    pub completion_entries: u32,
    /// A power of two, at most [`buffers::RECEIVE_BUFFERS_MAX`]. When none is left, receives end.
    pub receive_buffers: u16,
    pub receive_buffer_bytes: u32,
    /// Accepts that may wait at once. Pushing more is our fault.
    pub accepts: u32,
    /// What may be skimmed between two enters: a power of two as for `receive_buffers`, or 0 where
    /// nothing is skimmed.
    pub skims: u16,
}

/// Why there is no ring.
#[derive(Debug)]
pub enum RingError {
    /// The kernel, its settings or a seccomp filter refuse io_uring, or know too little of it.
    Setup(io::Error),
    /// The table of direct descriptors: above the NOFILE limit, or no memory.
    FileSlots { slots: u32, source: io::Error },
    /// The memory of the receive buffers, or their registration.
    Buffers(io::Error),
    /// The event that wakes a sleeping shard.
    Waker(io::Error),
}

/// A shard's io_uring. See [`Ring`].
pub struct KernelRing {
    /// First, so that it is closed before any memory that it knows is unmapped.
    ring: IoUring,
    desk: Desk,
    /// While an `enter` runs, and for good when it failed: the queue may then hold sends whose
    /// bytes are gone.
    is_entered: bool,
    /// Submissions belong to the thread that made the ring.
    _thread: PhantomData<*const ()>,
}

impl KernelRing {
    /// Called on the thread that will use the ring.
    pub fn new(settings: Settings) -> Result<KernelRing, RingError> {
        assert!(settings.file_slots > 0 && settings.submission_entries > 0);
        assert!(settings.completion_entries >= settings.submission_entries);
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(settings.completion_entries)
            .build(settings.submission_entries)
            .map_err(RingError::Setup)?;
        let desk = Desk::new(settings, ring.params().sq_entries() as usize)?;
        let submitter = ring.submitter();
        submitter
            .register_files_sparse(settings.file_slots)
            .map_err(|source| RingError::FileSlots {
                slots: settings.file_slots,
                source,
            })?;
        // SAFETY: `KernelRing` drops `ring` before `desk`, and so does this function when it fails.
        unsafe { desk.buffers.register(&submitter) }.map_err(RingError::Buffers)?;
        if let Some(skims) = &desk.skims {
            // SAFETY: as above.
            unsafe { skims.register(&submitter) }.map_err(RingError::Buffers)?;
        }
        let mut ring = KernelRing {
            ring,
            desk,
            is_entered: false,
            _thread: PhantomData,
        };
        // BIND came with 6.11, and has a number that can be asked for.
        let missing = ring.missing(&[("BIND", opcode::Bind::CODE)]);
        ring.desk.accepts_look_first = missing.map_err(RingError::Setup)?.is_empty();
        Ok(ring)
    }

    /// Where [`Operation::Accept`] takes connections from. The listener's options are inherited by
    /// what it accepts.
    pub fn listen(&mut self, listener: TcpListener) {
        assert!(self.desk.listener.is_none(), "a ring has one listener");
        self.desk.listener = Some(listener);
    }

    /// The descriptor that other rings send their wakes to.
    pub fn descriptor(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// The descriptors of all shards' rings, by shard. Each stays open until no shard can push a
    /// wake for it any more, or a later file with its number would get the wake.
    pub fn set_peers(&mut self, peers: Vec<RawFd>) {
        self.desk.peers = peers;
    }

    /// The operations that a shard uses and this kernel does not know, by name.
    pub fn missing_operations(&self) -> io::Result<Vec<&'static str>> {
        self.missing(&[
            ("ACCEPT", opcode::Accept::CODE),
            ("ASYNC_CANCEL", opcode::AsyncCancel2::CODE),
            ("CLOSE", opcode::Close::CODE),
            ("MSG_RING", opcode::MsgRingData::CODE),
            ("POLL_ADD", opcode::PollAdd::CODE),
            ("RECV", opcode::RecvMulti::CODE),
            ("SEND", opcode::Send::CODE),
            ("SENDMSG", opcode::SendMsg::CODE),
            ("SHUTDOWN", opcode::Shutdown::CODE),
        ])
    }

    /// The same for [`Operation::Connect`]; all are there since 6.11.
    pub fn missing_to_connect(&self) -> io::Result<Vec<&'static str>> {
        self.missing(&[
            ("BIND", opcode::Bind::CODE),
            ("CONNECT", opcode::Connect::CODE),
            ("SOCKET", opcode::Socket::CODE),
            ("URING_CMD", opcode::SetSockOpt::CODE),
        ])
    }

    fn missing(&self, needed: &[(&'static str, u8)]) -> io::Result<Vec<&'static str>> {
        let mut known = Probe::new();
        self.ring.submitter().register_probe(&mut known)?;
        let missing = needed.iter().filter(|(_, code)| !known.is_supported(*code));
        Ok(missing.map(|(name, _)| *name).collect())
    }

    /// A way for [`Operation::Connect`], which names it by this number.
    pub fn add_route(&mut self, route: Route) -> u16 {
        self.desk.routes.add(route)
    }

    /// Wakes this ring from any thread; there it is [`Completion::Woken`].
    pub fn waker(&self) -> Waker {
        self.desk.event.clone()
    }

    /// Whom [`Operation::WakeEdge`] wakes.
    pub fn set_edge(&mut self, edge: Waker) {
        self.desk.edge = Some(edge);
    }
}

impl Ring for KernelRing {
    fn push(&mut self, operation: Operation) {
        self.desk.push(operation);
    }

    fn enter(&mut self, sends: &impl Sends, wait: Wait) -> io::Result<()> {
        assert!(!self.is_entered, "this ring has failed");
        assert!(self.desk.short_sends.is_empty(), "short sends were left");
        self.is_entered = true;
        self.desk.batch = (self.desk.batch + 1) & GENERATION_MASK;
        self.desk.buffers.publish();
        if let Some(skims) = &mut self.desk.skims {
            skims.publish();
        }
        self.queue_sends(sends)?;
        self.queue_operations()?;
        self.submit_and_wait(wait)?;
        self.collect()?;
        // The kernel reports sends that it gave up and sends that failed by different ways, which
        // older kernels drain one after the other.
        self.desk
            .short_sends
            .sort_unstable_by_key(|send| send.index);
        self.is_entered = false;
        Ok(())
    }

    fn take_short_sends(&mut self) -> Vec<ShortSend> {
        std::mem::take(&mut self.desk.short_sends)
    }

    fn put_short_sends(&mut self, spent: Vec<ShortSend>) {
        assert!(spent.is_empty());
        if self.desk.short_sends.is_empty() {
            self.desk.short_sends = spent;
        }
    }

    fn take_completions(&mut self) -> Vec<Completion> {
        std::mem::take(&mut self.desk.completions)
    }

    fn put_completions(&mut self, spent: Vec<Completion>) {
        assert!(spent.is_empty());
        if self.desk.completions.is_empty() {
            self.desk.completions = spent;
        }
    }

    fn received(&mut self, buffer: &Buffer) -> &mut [u8] {
        self.desk.buffers.bytes(buffer)
    }

    fn recycle(&mut self, buffer: Buffer) {
        self.desk.buffers.take_back(buffer);
    }

    fn tally(&self) -> Tally {
        self.desk.tally
    }
}

/// Times in a row that the kernel may take no submission, for want of memory, before the ring
/// counts as unusable. Each is a system call that also runs what completed and so frees memory.
const REFUSALS_MAX: u32 = 10_000;

impl KernelRing {
    /// Puts the sends into the submission queue. All but the last queueful are executed here.
    fn queue_sends(&mut self, sends: &impl Sends) -> io::Result<()> {
        let count = sends.count();
        let mut index = 0;
        while index < count {
            self.desk.gather.clear();
            let mut queue = self.ring.submission();
            while index < count && !queue.is_full() && self.desk.gather.has_room() {
                let entry = self.desk.send(sends, index);
                // SAFETY: the bytes are borrowed and the gather lists untouched until they have
                // been submitted, and a send executes when it is submitted.
                unsafe { queue.push(&entry) }.expect("the queue is not full");
                index += 1;
            }
            drop(queue);
            if index < count {
                self.submit()?;
            }
        }
        Ok(())
    }

    /// Puts the pushed operations behind the sends.
    fn queue_operations(&mut self) -> io::Result<()> {
        let mut next = 0;
        while let Some(&request) = self.desk.requests.get(next) {
            next += 1;
            if let Request::Operation(Operation::Connect { socket, route }) = request {
                self.queue_chain(socket, route)?;
                continue;
            }
            let Some(entry) = self.desk.operation(request) else {
                continue;
            };
            if self.ring.submission().is_full() {
                self.submit()?;
            }
            // SAFETY: operations refer to descriptors that we hold open, and to addresses in
            // `Accepts`, which outlive the ring.
            unsafe { self.ring.submission().push(&entry) }.expect("there is room");
        }
        self.desk.requests.clear();
        Ok(())
    }

    /// Puts the submissions of one connection next to each other: a chain ends with its batch.
    fn queue_chain(&mut self, socket: Socket, route: u16) -> io::Result<()> {
        let queue = self.ring.submission();
        let room = queue.capacity() - queue.len();
        drop(queue);
        if room < CHAIN_MAX {
            self.submit()?;
        }
        for entry in self.desk.routes.chain(socket, route) {
            // SAFETY: the addresses and values lie in `Routes`, which outlive the ring.
            unsafe { self.ring.submission().push(&entry) }.expect("there is room");
        }
        Ok(())
    }

    /// Hands over what is queued, so that the queue is empty.
    fn submit(&mut self) -> io::Result<()> {
        self.call(EnterFlags::empty(), 0, None)?;
        self.submit_rest()
    }

    /// The system call that ends a turn's batch: submits the rest and runs what completed, and
    /// sleeps if it may and there is nothing to report.
    fn submit_and_wait(&mut self, wait: Wait) -> io::Result<()> {
        let milliseconds = match wait {
            Wait::Milliseconds(milliseconds) if !self.has_news() => milliseconds,
            Wait::Milliseconds(_) | Wait::Poll => 0,
        };
        if milliseconds > 0 {
            let time = Timespec::from(Duration::from_millis(milliseconds));
            self.call(EnterFlags::GETEVENTS, 1, Some(&time))?;
        } else if self.has_work() {
            self.call(EnterFlags::GETEVENTS, 0, None)?;
        }
        self.submit_rest()
    }

    /// Submits again what a call left over because the kernel was short of memory or was
    /// interrupted.
    fn submit_rest(&mut self) -> io::Result<()> {
        let mut refusals = 0;
        loop {
            self.reap();
            let left = self.ring.submission().len();
            if left == 0 {
                return Ok(());
            }
            if refusals == REFUSALS_MAX {
                return Err(io::Error::from_raw_os_error(libc::EAGAIN));
            }
            self.call(EnterFlags::GETEVENTS, 0, None)?;
            let is_stuck = self.ring.submission().len() == left;
            refusals = if is_stuck { refusals + 1 } else { 0 };
        }
    }

    /// Fetches what the kernel still holds: completions that did not fit into the queue, all of
    /// them, for a short send may be among them; and work that one call left undone. The kernel
    /// does some 20 pieces a call since 6.13; one turn takes no more than a queueful of them.
    fn collect(&mut self) -> io::Result<()> {
        let enough = self.desk.tally.completions + u64::from(self.ring.params().cq_entries());
        loop {
            let before = self.desk.tally.completions;
            let queue = self.ring.submission();
            let has_overflowed = queue.cq_overflow();
            let is_unfinished = has_overflowed || (queue.taskrun() && before < enough);
            drop(queue);
            if !is_unfinished {
                return Ok(());
            }
            self.call(EnterFlags::GETEVENTS, 0, None)?;
            self.reap();
            if !has_overflowed && self.desk.tally.completions == before {
                return Ok(());
            }
        }
    }

    fn call(&mut self, flags: EnterFlags, least: u32, time: Option<&Timespec>) -> io::Result<()> {
        let queued = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        self.desk.tally.enters += 1;
        let result = match time {
            Some(time) => {
                let flags = (flags | EnterFlags::EXT_ARG).bits();
                let arguments = SubmitArgs::new().timespec(time);
                // SAFETY: EXT_ARG says that the argument is this structure; it and the time live
                // across the call.
                unsafe { submitter.enter(queued, least, flags, Some(&arguments)) }
            }
            // SAFETY: without an argument the call reads only the queues.
            None => unsafe { submitter.enter::<libc::sigset_t>(queued, least, flags.bits(), None) },
        };
        let Err(error) = result else { return Ok(()) };
        match error.raw_os_error() {
            // The time is over; a signal came; the kernel is short of memory, or wants its
            // completions fetched first. Nothing is lost: what is queued stays queued.
            Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
            Some(_) | None => Err(error),
        }
    }

    fn reap(&mut self) {
        for entry in self.ring.completion() {
            self.desk.complete(&entry);
        }
    }

    /// Whether the shard has something to do, so that it must not sleep.
    fn has_news(&mut self) -> bool {
        !self.desk.completions.is_empty()
            || !self.desk.short_sends.is_empty()
            || !self.ring.completion().is_empty()
    }

    /// Whether a system call would do anything.
    fn has_work(&mut self) -> bool {
        let queue = self.ring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }
}

/// Everything of a ring but the queues: it writes submissions and reads completions.
struct Desk {
    requests: Vec<Request>,
    completions: Vec<Completion>,
    short_sends: Vec<ShortSend>,
    buffers: Buffers,
    skims: Option<Buffers>,
    accepts: Accepts,
    accepts_look_first: bool,
    gather: Gather,
    slots: Slots,
    routes: Routes,
    /// Why the connections failed whose slots are being closed.
    failed: BTreeMap<u32, i32>,
    listener: Option<TcpListener>,
    peers: Vec<RawFd>,
    /// The connections that move, by slot.
    moving: BTreeMap<u32, Moving>,
    event: Waker,
    edge: Option<Waker>,
    /// Counts the enters, modulo 2^24; sends carry it.
    batch: u32,
    tally: Tally,
}

/// What goes behind the sends of the next `enter`. Bounded by what the shard pushes in a turn, and
/// by one for each slot and each peer of what is asked again.
#[derive(Clone, Copy, Debug)]
enum Request {
    Operation(Operation),
    Cancel {
        user_data: u64,
    },
    /// The connection that moves from this slot has arrived, and the other ring was not told.
    Tell {
        socket: Socket,
    },
    ListenToWaker,
}

/// Where a connection moves to.
#[derive(Clone, Copy, Debug)]
struct Moving {
    shard: u16,
    there: Socket,
}

/// IORING_ACCEPT_POLL_FIRST of the kernel's include/uapi/linux/io_uring.h.
const ACCEPT_POLL_FIRST: u16 = 1 << 2;

const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

impl Desk {
    fn new(settings: Settings, submission_entries: usize) -> Result<Desk, RingError> {
        let buffers = Buffers::new(settings.receive_buffers, settings.receive_buffer_bytes)
            .map_err(RingError::Buffers)?;
        let skims = match settings.skims {
            0 => None,
            count => Some(Buffers::for_skims(count).map_err(RingError::Buffers)?),
        };
        let event = Waker::new().map_err(RingError::Waker)?;
        Ok(Desk {
            requests: vec![Request::ListenToWaker],
            completions: Vec::new(),
            short_sends: Vec::new(),
            buffers,
            skims,
            routes: Routes::default(),
            failed: BTreeMap::new(),
            accepts: Accepts::new(settings.accepts),
            accepts_look_first: false,
            gather: Gather::new(submission_entries),
            slots: Slots::new(settings.file_slots),
            listener: None,
            peers: Vec::new(),
            moving: BTreeMap::new(),
            event,
            edge: None,
            batch: 0,
            tally: Tally::default(),
        })
    }

    fn push(&mut self, operation: Operation) {
        match operation {
            Operation::Accept { socket } => {
                assert!(self.listener.is_some(), "there is no listener");
                self.slots.assert_open(socket);
            }
            Operation::Receive { socket } | Operation::AwaitWritable { socket } => {
                self.slots.assert_open(socket);
            }
            Operation::ShutdownWrite { socket } | Operation::Shutdown { socket } => {
                self.slots.begin_shutdown(socket);
            }
            Operation::Close { socket } => self.slots.begin_close(socket),
            Operation::Move {
                socket,
                shard,
                there,
            } => {
                assert!(usize::from(shard) < self.peers.len());
                assert!(there.generation <= GENERATION_MASK);
                self.slots.begin_move(socket);
                let under_way = Moving { shard, there };
                self.moving.insert(socket.slot, under_way);
            }
            Operation::Wake { shard } => assert!(usize::from(shard) < self.peers.len()),
            Operation::Connect { socket, route } => {
                assert!(self.routes.has(route), "there is no route {route}");
                self.slots.begin_connect(socket);
            }
            Operation::Skim { socket } | Operation::SkimSome { socket, .. } => {
                assert!(self.skims.is_some(), "nothing was set aside for skims");
                self.slots.assert_open(socket);
            }
            Operation::StopReceiving { .. }
            | Operation::StopSkimming { .. }
            | Operation::StopAccepting => (),
            Operation::WakeEdge => assert!(self.edge.is_some(), "there is no edge"),
        }
        self.requests.push(Request::Operation(operation));
    }

    /// The submission for send `index` of the batch.
    fn send(&mut self, sends: &impl Sends, index: usize) -> squeue::Entry {
        let slot = Fixed(sends.slot(index));
        let first = sends.piece(index, 0).expect("a send has a piece");
        let number = u32::try_from(index).expect("a batch has less than 2^32 sends");
        let entry = match sends.piece(index, 1) {
            None => {
                let length = u32::try_from(first.len()).expect("a piece is below 4 GiB");
                assert!(length > 0, "a piece has bytes");
                opcode::Send::new(slot, first.as_ptr(), length)
                    .flags(SEND_FLAGS)
                    .build()
            }
            Some(_) => opcode::SendMsg::new(slot, self.gather.list(sends, index))
                .flags(SEND_FLAGS as u32)
                .build(),
        };
        entry
            .flags(Flags::SKIP_SUCCESS)
            .user_data(user_data(Kind::Send, self.batch, number))
    }

    /// The submission for a request; none if it became several requests or has to wait.
    fn operation(&mut self, request: Request) -> Option<squeue::Entry> {
        match request {
            Request::ListenToWaker => Some(
                opcode::PollAdd::new(Fd(self.event.as_raw_fd()), libc::POLLIN as u32)
                    .multi(true)
                    .build()
                    .user_data(user_data(Kind::Waker, 0, 0)),
            ),
            Request::Cancel { user_data } => Some(cancel(user_data)),
            Request::Tell { socket } => {
                let Moving { shard, there } = self.moving[&socket.slot];
                let peer = Fd(self.peers[usize::from(shard)]);
                let message = of_socket(Kind::Arrived, there);
                let entry = opcode::MsgRingData::new(peer, 0, message, None).build();
                Some(entry.user_data(of_socket(Kind::Tell, socket)))
            }
            Request::Operation(operation) => self.asked(operation),
        }
    }

    fn asked(&mut self, operation: Operation) -> Option<squeue::Entry> {
        let entry = match operation {
            Operation::Accept { socket } => self.accept(socket),
            // They go behind everything pushed so far, so the accepts of this batch are found too.
            Operation::StopAccepting => {
                let waiting = self.accepts.waiting();
                let cancels = waiting.map(|user_data| Request::Cancel { user_data });
                self.requests.extend(cancels);
                return None;
            }
            Operation::Receive { socket } => {
                opcode::RecvMulti::new(Fixed(socket.slot), buffers::GROUP)
                    .build()
                    .user_data(of_socket(Kind::Receive, socket))
            }
            Operation::StopReceiving { socket } => cancel(of_socket(Kind::Receive, socket)),
            Operation::Connect { .. } => unreachable!("it is queued as a chain"),
            Operation::Skim { socket } => {
                opcode::RecvMulti::new(Fixed(socket.slot), buffers::SKIM_GROUP)
                    .flags(libc::MSG_TRUNC)
                    .build()
                    .user_data(of_socket(Kind::Skim, socket))
            }
            Operation::StopSkimming { socket } => {
                let user_data = of_socket(Kind::SkimSome, socket);
                self.requests.push(Request::Cancel { user_data });
                cancel(of_socket(Kind::Skim, socket))
            }
            Operation::SkimSome { socket, bytes_max } => {
                opcode::Recv::new(Fixed(socket.slot), std::ptr::null_mut(), bytes_max)
                    .buf_group(buffers::SKIM_GROUP)
                    .flags(libc::MSG_TRUNC)
                    .build()
                    .flags(Flags::BUFFER_SELECT)
                    .user_data(of_socket(Kind::SkimSome, socket))
            }
            Operation::AwaitWritable { socket } => {
                opcode::PollAdd::new(Fixed(socket.slot), libc::POLLOUT as u32)
                    .build()
                    .user_data(of_socket(Kind::Writable, socket))
            }
            Operation::ShutdownWrite { socket } => shutdown(socket, libc::SHUT_WR),
            Operation::Shutdown { socket } => shutdown(socket, libc::SHUT_RDWR),
            // The last shutdown to end asks again.
            Operation::Close { socket } if self.slots.is_shutting_down(socket.slot) => return None,
            Operation::Close { socket } => opcode::Close::new(Fixed(socket.slot))
                .build()
                .user_data(of_socket(Kind::Close, socket)),
            Operation::Move {
                socket,
                shard,
                there,
            } => {
                let peer = Fd(self.peers[usize::from(shard)]);
                let slot = DestinationSlot::try_from_slot_target(there.slot);
                let slot = slot.expect("slots are below 2^20");
                let message = of_socket(Kind::Arrived, there);
                opcode::MsgRingSendFd::new(peer, Fixed(socket.slot), slot, message)
                    .build()
                    .user_data(of_socket(Kind::Move, socket))
            }
            // A system call of its own, at most once for every sleep of the edge, which sleeps
            // because there is little to do.
            Operation::WakeEdge => {
                self.edge.as_ref().expect("asserted when pushed").wake();
                return None;
            }
            Operation::Wake { shard } => {
                let peer = Fd(self.peers[usize::from(shard)]);
                let message = user_data(Kind::Woken, 0, 0);
                opcode::MsgRingData::new(peer, 0, message, None)
                    .build()
                    .flags(Flags::SKIP_SUCCESS)
                    .user_data(user_data(Kind::Wake, 0, u32::from(shard)))
            }
        };
        Some(entry)
    }

    fn accept(&mut self, socket: Socket) -> squeue::Entry {
        let listener = self.listener.as_ref().expect("checked when pushed");
        let (index, peer) = self.accepts.begin(socket);
        let slot = DestinationSlot::try_from_slot_target(socket.slot);
        let mut entry = opcode::Accept::new(Fd(listener.as_raw_fd()), peer.address, peer.length)
            .file_index(Some(slot.expect("slots are below 2^20")))
            .build()
            .user_data(user_data(Kind::Accept, index, socket.slot));
        if self.accepts_look_first {
            let ioprio = (&raw mut entry).cast::<u16>().wrapping_add(1);
            // SAFETY: an entry is the kernel's `struct io_uring_sqe`, whose third and fourth bytes
            // are `ioprio`, aligned; there an accept has its own flags. The crate sets no such flag.
            unsafe { ioprio.write(ACCEPT_POLL_FIRST) };
        }
        entry
    }

    fn complete(&mut self, entry: &cqueue::Entry) {
        self.tally.completions += 1;
        let (kind, high, low) = parts(entry.user_data());
        let socket = Socket {
            slot: low,
            generation: high,
        };
        let result = entry.result();
        match kind {
            Kind::Send => self.complete_send(high, low, result),
            Kind::Receive => self.complete_receive(socket, result, entry.flags()),
            Kind::Accept => {
                let (socket, peer) = self.accepts.end(high, result);
                assert_eq!(socket.slot, low);
                self.completions.push(Completion::Accepted { socket, peer });
            }
            Kind::Writable => self.completions.push(Completion::Writable { socket }),
            Kind::Shutdown => {
                if self.slots.end_shutdown(socket.slot) {
                    self.ask_again(Operation::Close { socket });
                }
            }
            Kind::Close if result == -libc::ENOMEM => {
                self.ask_again(Operation::Close { socket });
            }
            Kind::Close => {
                assert_eq!(result, 0, "an empty slot was closed");
                let completion = match self.slots.end_close(socket.slot) {
                    Emptied::Closed => match self.failed.remove(&socket.slot) {
                        Some(errno) => Completion::Connected {
                            socket,
                            outcome: Err(errno),
                        },
                        None => Completion::Closed { socket },
                    },
                    Emptied::Moved => Completion::Moved {
                        socket,
                        outcome: Ok(()),
                    },
                };
                self.completions.push(completion);
            }
            Kind::Move => self.complete_move(socket, result),
            Kind::Tell => self.complete_tell(socket, -result),
            Kind::Arrived => self.completions.push(Completion::Arrived { socket }),
            Kind::Dial | Kind::Connect => self.complete_connect(socket, kind, result),
            Kind::Skim | Kind::SkimSome => {
                self.complete_skim(socket, kind, result, entry.flags());
            }
            Kind::Wake => self.complete_wake(low, -result),
            Kind::Woken => self.completions.push(Completion::Woken),
            Kind::Waker => {
                self.completions.push(Completion::Woken);
                if !cqueue::more(entry.flags()) {
                    self.requests.push(Request::ListenToWaker);
                }
            }
            // Found or not found: either way what was cancelled reports its own end.
            Kind::Cancel => (),
        }
    }

    fn complete_send(&mut self, batch: u32, index: u32, result: i32) {
        assert_eq!(batch, self.batch, "a send outlived its enter");
        let taken = match result {
            0.. => Ok(result as u32),
            _ if result == -libc::EAGAIN => Ok(0),
            _ => Err(-result),
        };
        self.short_sends.push(ShortSend { index, taken });
    }

    fn complete_receive(&mut self, socket: Socket, result: i32, flags: u32) {
        let buffer = cqueue::buffer_select(flags)
            .map(|id| self.buffers.lend(id, u32::try_from(result).unwrap_or(0)));
        let has_more = cqueue::more(flags);
        let why = match (buffer, result) {
            (Some(buffer), 1..) => {
                self.completions
                    .push(Completion::Received { socket, buffer });
                if has_more {
                    return;
                }
                End::Rearm
            }
            (None, 1..) => panic!("a receive put its bytes into no buffer"),
            (unused, _) => {
                if let Some(unused) = unused {
                    self.buffers.take_back(unused);
                }
                assert!(!has_more, "a receive goes on after its end");
                end(result)
            }
        };
        self.completions
            .push(Completion::ReceiveEnded { socket, why });
    }

    /// The end of a chain, or the submission that broke it. Without a socket the slot is empty.
    fn complete_connect(&mut self, socket: Socket, kind: Kind, result: i32) {
        if !self.slots.end_connect(socket.slot) {
            return;
        }
        if result < 0 && kind == Kind::Connect {
            self.failed.insert(socket.slot, -result);
            self.slots.begin_close(socket);
            self.ask_again(Operation::Close { socket });
            return;
        }
        let outcome = if result < 0 { Err(-result) } else { Ok(()) };
        self.completions
            .push(Completion::Connected { socket, outcome });
    }

    fn complete_skim(&mut self, socket: Socket, kind: Kind, result: i32, flags: u32) {
        let skims = self.skims.as_mut().expect("asserted when pushed");
        if let Some(id) = cqueue::buffer_select(flags) {
            let buffer = skims.lend(id, u32::try_from(result).unwrap_or(0));
            skims.take_back(buffer);
        }
        let why = match u32::try_from(result) {
            Ok(bytes @ 1..) => {
                self.completions.push(Completion::Skimmed { socket, bytes });
                if kind == Kind::SkimSome || cqueue::more(flags) {
                    return;
                }
                End::Rearm
            }
            Ok(0) | Err(_) => end(result),
        };
        self.completions
            .push(Completion::ReceiveEnded { socket, why });
    }

    /// A wake that failed. A lost wake leaves letters with a shard that sleeps, so it may be
    /// dropped only if nobody sleeps there: the ring is closed, or its thread is gone.
    fn complete_wake(&mut self, shard: u32, errno: i32) {
        let shard = u16::try_from(shard).expect("as it was pushed");
        match errno {
            libc::EBADF | libc::EBADFD | libc::EOWNERDEAD => (),
            libc::ENOMEM | libc::EAGAIN | libc::EOVERFLOW => {
                self.ask_again(Operation::Wake { shard });
            }
            errno => panic!("shard {shard} is woken through no ring: errno {errno}"),
        }
    }

    /// The other table has the connection: what this one has of it goes. Or it was not taken.
    fn complete_move(&mut self, socket: Socket, result: i32) {
        let moving = self.moving[&socket.slot];
        match -result {
            ..=0 => {
                self.moving.remove(&socket.slot);
                self.ask_again(Operation::Close { socket });
            }
            // It is there, and the kernel found no memory to say so.
            libc::EOVERFLOW => self.requests.push(Request::Tell { socket }),
            libc::EAGAIN => {
                let Moving { shard, there } = moving;
                self.ask_again(Operation::Move {
                    socket,
                    shard,
                    there,
                });
            }
            errno => {
                self.moving.remove(&socket.slot);
                self.slots.fail_move(socket.slot);
                self.completions.push(Completion::Moved {
                    socket,
                    outcome: Err(errno),
                });
            }
        }
    }

    /// Whether the other ring heard of the connection that it has. Its own end needs no telling.
    fn complete_tell(&mut self, socket: Socket, errno: i32) {
        match errno {
            libc::ENOMEM | libc::EAGAIN | libc::EOVERFLOW => {
                self.requests.push(Request::Tell { socket });
            }
            ..=0 | libc::EBADF | libc::EBADFD | libc::EOWNERDEAD => {
                self.moving.remove(&socket.slot);
                self.ask_again(Operation::Close { socket });
            }
            errno => panic!("a connection moved to no ring: errno {errno}"),
        }
    }

    /// For the next `enter`, past the checks of `push`.
    fn ask_again(&mut self, operation: Operation) {
        self.requests.push(Request::Operation(operation));
    }
}

/// Why a receive that brought no bytes is over.
fn end(result: i32) -> End {
    match -result {
        0 => End::EndOfStream,
        libc::ENOBUFS | libc::ECANCELED | libc::EINTR => End::Rearm,
        errno => End::Broken(errno),
    }
}

fn cancel(target: u64) -> squeue::Entry {
    // By user data, which the kernel finds in a hash table; by descriptor it would look at every
    // operation that waits, a million of them.
    opcode::AsyncCancel2::new(CancelBuilder::user_data(target))
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(user_data(Kind::Cancel, 0, 0))
}

fn shutdown(socket: Socket, how: i32) -> squeue::Entry {
    opcode::Shutdown::new(Fixed(socket.slot), how)
        .build()
        .user_data(of_socket(Kind::Shutdown, socket))
}

/// The accepts that wait, and the memory that the kernel writes each peer's address to.
///
/// A multishot accept knows no address and a direct descriptor has none to ask, so each accept
/// waits with an entry of its own.
struct Accepts {
    peers: Box<[UnsafeCell<Peer>]>,
    sockets: Box<[Option<Socket>]>,
    free: Vec<u32>,
}

struct Peer {
    address: SockAddrStorage,
    length: libc::socklen_t,
}

struct PeerPlace {
    address: *mut libc::sockaddr,
    length: *mut libc::socklen_t,
}

impl Accepts {
    fn new(count: u32) -> Accepts {
        assert!(count <= GENERATION_MASK);
        let nobody = |_| {
            UnsafeCell::new(Peer {
                address: SockAddrStorage::zeroed(),
                length: 0,
            })
        };
        Accepts {
            peers: (0..count).map(nobody).collect(),
            sockets: vec![None; count as usize].into_boxed_slice(),
            free: (0..count).rev().collect(),
        }
    }

    /// An entry's index, and where the kernel may write until [`Accepts::end`].
    fn begin(&mut self, socket: Socket) -> (u32, PeerPlace) {
        let index = self.free.pop().expect("more accepts than were settled");
        self.sockets[index as usize] = Some(socket);
        let peer = self.peers[index as usize].get();
        // SAFETY: the entry exists, and the kernel does not have it: it was free.
        let length = unsafe { &raw mut (*peer).length };
        // SAFETY: as above.
        unsafe { length.write(size_of::<SockAddrStorage>() as libc::socklen_t) };
        // SAFETY: as above.
        let address = unsafe { &raw mut (*peer).address };
        let address = address.cast();
        (index, PeerPlace { address, length })
    }

    fn end(&mut self, index: u32, result: i32) -> (Socket, io::Result<SocketAddr>) {
        let waited = self.sockets[index as usize].take();
        let socket = waited.expect("an accept ended twice");
        self.free.push(index);
        if result < 0 {
            return (socket, Err(io::Error::from_raw_os_error(-result)));
        }
        // SAFETY: the accept has completed, so the kernel writes here no more.
        let peer = unsafe { self.peers[index as usize].get().read() };
        // SAFETY: the kernel filled the address and told its length.
        let address = unsafe { SockAddr::new(peer.address, peer.length) };
        let address = address.as_socket().expect("the listener speaks TCP");
        (socket, Ok(as_the_peer_writes_it(address)))
    }

    /// The user data of each accept that waits.
    fn waiting(&self) -> impl Iterator<Item = u64> + '_ {
        let sockets = self.sockets.iter().zip(0_u32..);
        sockets.filter_map(|(socket, index)| {
            socket.map(|socket| user_data(Kind::Accept, index, socket.slot))
        })
    }
}

/// A listener of both families names an IPv4 peer by a mapped address; the peer does not.
fn as_the_peer_writes_it(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(mapped) if mapped.ip().to_ipv4_mapped().is_some() => {
            SocketAddr::new(address.ip().to_canonical(), address.port())
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => address,
    }
}

/// The lists of pieces that gathered sends point to, until the queue that they are in has been
/// submitted. The memory never moves: nothing is appended beyond what was reserved.
struct Gather {
    headers: Vec<libc::msghdr>,
    pieces: Vec<libc::iovec>,
}

/// Room for this many pieces is touched by a queueful of gathered sends; one send's most is kept
/// free, so that a list is never begun that does not fit.
const GATHERED_PIECES_MAX: usize = 4 * PIECES_MAX;

impl Gather {
    fn new(sends: usize) -> Gather {
        Gather {
            headers: Vec::with_capacity(sends),
            pieces: Vec::with_capacity(GATHERED_PIECES_MAX),
        }
    }

    fn clear(&mut self) {
        self.headers.clear();
        self.pieces.clear();
    }

    fn has_room(&self) -> bool {
        self.pieces.len() + PIECES_MAX <= GATHERED_PIECES_MAX
    }

    fn list(&mut self, sends: &impl Sends, index: usize) -> *const libc::msghdr {
        let start = self.pieces.len();
        assert!(self.headers.len() < self.headers.capacity());
        while let Some(piece) = sends.piece(index, self.pieces.len() - start) {
            assert!(!piece.is_empty(), "a piece has bytes");
            assert!(self.pieces.len() - start < PIECES_MAX, "too many pieces");
            self.pieces.push(libc::iovec {
                iov_base: piece.as_ptr().cast_mut().cast(),
                iov_len: piece.len(),
            });
        }
        let pieces = &mut self.pieces[start..];
        // SAFETY: a header of zeros is one of nothing.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = pieces.as_mut_ptr();
        header.msg_iovlen = pieces.len() as _;
        self.headers.push(header);
        self.headers.last().expect("just pushed")
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RingError::Setup(source) => write!(formatter, "io_uring is refused: {source}"),
            RingError::FileSlots { slots, source } => {
                write!(
                    formatter,
                    "no table of {slots} direct descriptors: {source}"
                )
            }
            RingError::Buffers(source) => write!(formatter, "no receive buffers: {source}"),
            RingError::Waker(source) => write!(formatter, "no event to wake by: {source}"),
        }
    }
}

impl std::error::Error for RingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RingError::Setup(source)
            | RingError::FileSlots { source, .. }
            | RingError::Buffers(source)
            | RingError::Waker(source) => Some(source),
        }
    }
}
