//! The memory that received bytes land in: a ring of buffers that the kernel takes from, one a receive.
//!
//! An idle connection owns no buffer: the kernel takes one when bytes have come, the shard reads
//! them in place and gives the buffer back. A buffer is at any moment either the kernel's or on
//! loan to the shard, and [`Buffers`] knows which. When all are on loan a receive ends with
//! ENOBUFS, and the shard asks again once it has given some back.
//!
//! Both mappings are anonymous and untouched until used, so that a buffer costs memory from the
//! first time that bytes came into it. Called by the kernel ring alone.

use super::Buffer;
use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// The limit that the kernel sets for the entries of one buffer ring.
pub const RECEIVE_BUFFERS_MAX: u16 = 32_768;

/// The groups of buffers that a ring registers: those that bytes land in, and those that stand for
/// bytes which the kernel throws away.
pub(super) const GROUP: u16 = 0;
pub(super) const SKIM_GROUP: u16 = 1;

/// What one skim can throw away: more than a socket holds.
const SKIM_BYTES: u32 = 16 << 20;

pub(super) struct Buffers {
    /// `BufRingEntry` times `count`; the kernel reads it, so it is written only behind the tail.
    entries: Mapping,
    bytes: Mapping,
    count: u16,
    buffer_bytes: u32,
    /// How far one buffer lies behind the one before.
    stride: usize,
    group: u16,
    /// Where the next returned buffer goes; runs ahead of the published tail within a turn.
    tail: u16,
    published: u16,
    on_loan: Box<[bool]>,
}

impl Buffers {
    /// `count` is a power of two and at most [`RECEIVE_BUFFERS_MAX`].
    pub(super) fn new(count: u16, buffer_bytes: u32) -> io::Result<Buffers> {
        assert!(count.is_power_of_two() && count <= RECEIVE_BUFFERS_MAX);
        assert!(buffer_bytes > 0);
        let bytes = buffer_bytes as usize * usize::from(count);
        let bytes = Mapping::new(bytes, libc::PROT_READ | libc::PROT_WRITE)?;
        Buffers::over(bytes, count, buffer_bytes, buffer_bytes as usize, GROUP)
    }

    /// Buffers that no byte ever comes into: all of them are the same pages, which nobody may
    /// touch. For receives with MSG_TRUNC, which TCP answers by dropping the bytes.
    pub(super) fn for_skims(count: u16) -> io::Result<Buffers> {
        let bytes = Mapping::new(SKIM_BYTES as usize, libc::PROT_NONE)?;
        Buffers::over(bytes, count, SKIM_BYTES, 0, SKIM_GROUP)
    }

    fn over(
        bytes: Mapping,
        count: u16,
        buffer_bytes: u32,
        stride: usize,
        group: u16,
    ) -> io::Result<Buffers> {
        assert!(count.is_power_of_two() && count <= RECEIVE_BUFFERS_MAX);
        let entries = size_of::<BufRingEntry>() * usize::from(count);
        let entries = Mapping::new(entries, libc::PROT_READ | libc::PROT_WRITE)?;
        let mut buffers = Buffers {
            entries,
            bytes,
            count,
            buffer_bytes,
            stride,
            group,
            tail: 0,
            published: 0,
            on_loan: vec![false; usize::from(count)].into_boxed_slice(),
        };
        for id in 0..count {
            buffers.append(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Hands the buffers to the kernel.
    ///
    /// # Safety
    /// The ring's descriptor must be closed before `self` is dropped.
    pub(super) unsafe fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let address = self.entries.start.as_ptr().addr() as u64;
        // SAFETY: the entries are page-aligned and `count` long; the caller keeps them mapped for
        // as long as the ring lives.
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, self.group, 0) }
    }

    /// The kernel has put `length` bytes into buffer `id`, which is now the shard's.
    pub(super) fn lend(&mut self, id: u16, length: u32) -> Buffer {
        assert!(
            id < self.count,
            "the kernel named a buffer that is not ours"
        );
        assert!(length <= self.buffer_bytes, "a receive overran its buffer");
        let on_loan = &mut self.on_loan[usize::from(id)];
        assert!(!*on_loan, "the kernel used a buffer that it did not have");
        *on_loan = true;
        Buffer { id, length }
    }

    pub(super) fn bytes(&mut self, buffer: &Buffer) -> &mut [u8] {
        assert!(self.on_loan[usize::from(buffer.id)]);
        assert!(buffer.length <= self.buffer_bytes);
        assert!(self.group == GROUP, "what was skimmed is gone");
        let offset = usize::from(buffer.id) * self.buffer_bytes as usize;
        // SAFETY: an id on loan is below `count`, so the offset lies within the mapping.
        let start = unsafe { self.bytes.start.add(offset) };
        // SAFETY: the kernel initialised these bytes and writes to no buffer on loan; `&mut self`
        // keeps everybody else away from them.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), buffer.length as usize) }
    }

    /// Takes a buffer back. The kernel sees it with the next [`Buffers::publish`].
    pub(super) fn take_back(&mut self, buffer: Buffer) {
        let on_loan = &mut self.on_loan[usize::from(buffer.id)];
        assert!(*on_loan, "a buffer came back twice");
        *on_loan = false;
        self.append(buffer.id);
    }

    /// Lets the kernel see what came back: one store, however many buffers.
    pub(super) fn publish(&mut self) {
        if self.published == self.tail {
            return;
        }
        let first: *const BufRingEntry = self.entries.start.as_ptr().cast();
        // SAFETY: the first entry is mapped; its unused field is where the kernel looks for the
        // tail.
        let tail = unsafe { BufRingEntry::tail(first) };
        // SAFETY: the field is aligned and mapped, this thread is its only writer, and nothing
        // holds a reference to the entry meanwhile.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
        self.published = self.tail;
    }

    fn append(&mut self, id: u16) {
        assert!(id < self.count);
        let index = usize::from(self.tail & (self.count - 1));
        let offset = usize::from(id) * self.stride;
        let address = (self.bytes.start.as_ptr().addr() + offset) as u64;
        let entries: NonNull<BufRingEntry> = self.entries.start.cast();
        // SAFETY: the index is below `count`.
        let mut entry = unsafe { entries.add(index) };
        // SAFETY: zeroed memory is an entry. The kernel looks at no entry between the tail and the
        // head, and there is one entry for each buffer, so this one is not the kernel's.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }
}

/// Private anonymous pages, zero until touched.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(length: usize, protection: i32) -> io::Result<Mapping> {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing
        // that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap never places a mapping at zero");
        Ok(Mapping { start, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and whole; whoever drops it has closed the ring.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        assert_eq!(result, 0, "the mapping was ours");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_either_the_kernels_or_on_loan() {
        let mut buffers = Buffers::new(4, 64).expect("memory");
        let first = buffers.lend(3, 64);
        let second = buffers.lend(0, 1);
        buffers.bytes(&first).fill(7);
        buffers.bytes(&second).fill(9);
        assert_eq!(buffers.bytes(&first), [7; 64]);
        assert_eq!(buffers.bytes(&second), [9]);
        buffers.take_back(second);
        assert_eq!(buffers.tail, 5);
        assert_eq!(buffers.published, 4);
        buffers.publish();
        assert_eq!(buffers.published, 5);
        let again = buffers.lend(0, 64);
        buffers.take_back(again);
        buffers.take_back(first);
    }

    #[test]
    fn the_tail_wraps() {
        let mut buffers = Buffers::new(2, 8).expect("memory");
        for turn in 0..40_000_u32 {
            let buffer = buffers.lend((turn % 2) as u16, 8);
            buffers.take_back(buffer);
            buffers.publish();
        }
        assert_eq!(buffers.tail, 40_002_u32 as u16);
    }

    #[test]
    #[should_panic(expected = "a buffer came back twice")]
    fn a_buffer_that_is_not_on_loan_is_refused() {
        let mut buffers = Buffers::new(2, 8).expect("memory");
        buffers.take_back(Buffer { id: 1, length: 8 });
    }

    #[test]
    #[should_panic(expected = "overran")]
    fn a_length_beyond_the_buffer_is_refused() {
        let mut buffers = Buffers::new(2, 8).expect("memory");
        let _buffer = buffers.lend(1, 9);
    }
}
