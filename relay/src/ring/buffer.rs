//! The buffer ring: memory the kernel picks receive buffers from, and pieces received in it.
//!
//! Owns one table of descriptors (shared with the kernel) and the buffers behind it. Invariant: a
//! buffer is either offered to the kernel or held by exactly one [`Received`]; dropping that one
//! offers the buffer again. Limits: [`crate::limits::RECEIVE_BUFFERS`].

#![expect(unsafe_code, reason = "memory shared with the kernel")]

use std::alloc::{self, Layout};
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::error::RingError;

/// Page alignment, which the kernel asks of the table.
const ALIGNMENT: usize = 4_096;

/// The pool of receive buffers.
pub(super) struct BufferPool {
    /// `count` entries; the kernel reads them up to the tail that overlays the first one.
    table: NonNull<BufRingEntry>,
    table_layout: Layout,
    /// `count * bytes` octets.
    memory: NonNull<u8>,
    memory_layout: Layout,
    count: u16,
    bytes: u32,
    /// Our copy of the published tail.
    tail: Cell<u16>,
    /// Buffers offered to the kernel and not yet taken.
    offered: Cell<u16>,
}

impl BufferPool {
    /// Makes `count` buffers of `bytes` octets, all offered.
    ///
    /// # Errors
    /// [`RingError::Misuse`] unless `count` is a power of two up to 32,768 and `bytes` is at
    /// least 64; [`RingError::LockedMemory`] if there is no memory.
    pub(super) fn new(count: u16, bytes: u32) -> Result<Rc<BufferPool>, RingError> {
        if !count.is_power_of_two() || count > 32_768 || !(64..=1 << 20).contains(&bytes) {
            return Err(RingError::Misuse { what: "buffers: a power of two of 64 B to 1 MiB" });
        }
        let layout = |size: usize| {
            Layout::from_size_align(size, ALIGNMENT)
                .map_err(|_| RingError::Misuse { what: "buffers: too large" })
        };
        let table_layout = layout(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory_layout = layout(usize::from(count) * bytes as usize)?;
        let pool = BufferPool {
            table: allocate(table_layout)?.cast(),
            table_layout,
            memory: allocate(memory_layout)?,
            memory_layout,
            count,
            bytes,
            tail: Cell::new(0),
            offered: Cell::new(0),
        };
        for id in 0..count {
            pool.offer(id);
        }
        Ok(Rc::new(pool))
    }

    /// Address of the table, for registration.
    pub(super) fn table_address(&self) -> u64 {
        self.table.as_ptr() as u64
    }

    /// Number of buffers.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Buffers the kernel may still take.
    pub(super) fn available(&self) -> u16 {
        self.offered.get()
    }

    /// Takes note that the kernel filled buffer `id` with `length` octets.
    pub(super) fn take(self: &Rc<BufferPool>, id: u16, length: u32) -> Option<Received> {
        if id >= self.count || length > self.bytes {
            return None;
        }
        self.offered.set(self.offered.get().saturating_sub(1));
        let pool = Rc::clone(self);
        Some(Received { storage: Storage::Ring { pool, id, length } })
    }

    /// Offers buffer `id` to the kernel (again).
    fn offer(&self, id: u16) {
        let tail = self.tail.get();
        let position = usize::from(tail & (self.count - 1));
        // SAFETY: `position` is less than `count`, the length of the table.
        let slot = unsafe { self.table.as_ptr().add(position) };
        // SAFETY: the slot is inside the table, aligned and initialised (zeroed); the kernel does
        // not look at it before the tail passes it.
        let entry = unsafe { &mut *slot };
        entry.set_addr(self.start_of(id).as_ptr() as u64);
        entry.set_len(self.bytes);
        entry.set_bid(id);
        self.tail.set(tail.wrapping_add(1));
        self.offered.set(self.offered.get() + 1);
        // SAFETY: `table` is the address of the first, initialised entry.
        let shared = unsafe { BufRingEntry::tail(self.table.as_ptr()) };
        // SAFETY: the tail is an aligned u16 inside the first entry's reserved field, which
        // nothing else of ours touches; the kernel only reads it.
        let shared = unsafe { AtomicU16::from_ptr(shared.cast_mut()) };
        shared.store(tail.wrapping_add(1), Ordering::Release);
    }

    fn start_of(&self, id: u16) -> NonNull<u8> {
        // SAFETY: `id` is less than `count` (checked by `take`, or from the range in `new`), so
        // the offset is inside the memory.
        unsafe { self.memory.add(usize::from(id) * self.bytes as usize) }
    }
}

#[cfg(test)]
impl BufferPool {
    /// Plays the kernel: fills the buffer at position `head` with as much of `octets` as fits.
    /// Returns its identifier and how much fitted, or nothing if no buffer is offered there.
    pub(super) fn fill(&self, head: u16, octets: &[u8]) -> Option<(u16, usize)> {
        if head == self.tail.get() {
            return None;
        }
        let position = usize::from(head & (self.count - 1));
        // SAFETY: `position` is less than `count`, the length of the table.
        let slot = unsafe { self.table.as_ptr().add(position) };
        // SAFETY: all entries of the table are initialised.
        let entry = unsafe { &*slot };
        let fitted = octets.len().min(entry.len() as usize);
        let target = self.start_of(entry.bid()).as_ptr();
        // SAFETY: the buffer is offered, so nobody else holds it, and `fitted` fits its length.
        unsafe { std::ptr::copy_nonoverlapping(octets.as_ptr(), target, fitted) };
        Some((entry.bid(), fitted))
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the ring that knew the table is gone, since it and
        // every `Received` hold the pool by `Rc`.
        unsafe { alloc::dealloc(self.table.as_ptr().cast(), self.table_layout) };
        // SAFETY: as above.
        unsafe { alloc::dealloc(self.memory.as_ptr(), self.memory_layout) };
    }
}

fn allocate(layout: Layout) -> Result<NonNull<u8>, RingError> {
    // SAFETY: the layout's size is not zero: count and octets are at least one.
    let start = unsafe { alloc::alloc_zeroed(layout) };
    NonNull::new(start).ok_or(RingError::LockedMemory { part: "receive buffers" })
}

/// Octets received, at least one. Dropping it gives its buffer back to the kernel.
pub struct Received {
    storage: Storage,
}

enum Storage {
    /// In a buffer of the ring, which is ours until dropped.
    Ring { pool: Rc<BufferPool>, id: u16, length: u32 },
    /// Copied out.
    Owned(Vec<u8>),
}

impl Received {
    /// The same octets outside the buffer ring; the buffer is offered again.
    pub(super) fn copied_out(self) -> Received {
        match &self.storage {
            Storage::Ring { .. } => Received { storage: Storage::Owned(self.to_vec()) },
            Storage::Owned(_) => self,
        }
    }
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.storage {
            Storage::Ring { pool, id, length } => {
                let start = pool.start_of(*id).as_ptr();
                // SAFETY: the buffer was filled by the kernel with `length` octets (at most its
                // size, checked in `take`), belongs to this value alone and is not offered.
                unsafe { std::slice::from_raw_parts(start, *length as usize) }
            }
            Storage::Owned(octets) => octets,
        }
    }
}

impl DerefMut for Received {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.storage {
            Storage::Ring { pool, id, length } => {
                let start = pool.start_of(*id).as_ptr();
                // SAFETY: as in `deref`; `&mut self` makes the access unique.
                unsafe { std::slice::from_raw_parts_mut(start, *length as usize) }
            }
            Storage::Owned(octets) => octets,
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Storage::Ring { pool, id, .. } = &self.storage {
            pool.offer(*id);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn impossible_pools_are_refused() {
        for (count, bytes) in [(0, 4_096), (3, 4_096), (256, 63), (256, (1 << 20) + 1)] {
            assert!(BufferPool::new(count, bytes).is_err(), "{count} of {bytes}");
        }
        assert!(BufferPool::new(1, 64).is_ok());
    }

    #[test]
    fn a_buffer_goes_round() {
        let pool = BufferPool::new(4, 64).unwrap();
        for turn in 0..70_000_u32 {
            let (id, fitted) = pool.fill(turn as u16, &turn.to_be_bytes()).unwrap();
            let received = pool.take(id, fitted as u32).unwrap();
            assert_eq!(pool.available(), 3);
            assert_eq!(*received, turn.to_be_bytes());
            drop(received);
            assert_eq!(pool.available(), 4);
        }
    }

    #[test]
    fn copies_leave_the_ring_and_foreign_numbers_are_refused() {
        let pool = BufferPool::new(2, 64).unwrap();
        let (id, fitted) = pool.fill(0, &[7; 100]).unwrap();
        assert_eq!(fitted, 64);
        let copied = pool.take(id, 64).unwrap().copied_out();
        assert_eq!(pool.available(), 2);
        assert_eq!(*copied, [7; 64]);
        assert!(pool.take(2, 1).is_none());
        assert!(pool.take(0, 65).is_none());
    }
}
