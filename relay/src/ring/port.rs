//! What the loop asks of a ring and what that answers: the seam between our state and the kernel.
//!
//! [`Port`] is implemented by the kernel's io_uring and, in tests, by a fake with a seed which
//! shortens sends, runs out of buffers, reorders and delays completions and refuses to submit.
//! Invariant: each pushed operation gets exactly one final completion (one without `more`).

#![expect(unsafe_code, reason = "operations carry addresses")]

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::PeerAddress;

/// A file as operations name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    /// A slot of the registered file table.
    Direct(u32),
    /// An ordinary descriptor, owned by the socket that holds it.
    Plain(RawFd),
}

/// The kinds of operations; a completion carries its kind back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Accept,
    Cancel,
    Close,
    Connect,
    Receive,
    Send,
    Shutdown,
    Wake,
}

const KINDS: [Kind; 8] = [
    Kind::Accept,
    Kind::Cancel,
    Kind::Close,
    Kind::Connect,
    Kind::Receive,
    Kind::Send,
    Kind::Shutdown,
    Kind::Wake,
];

/// The user data of an operation: its kind, and which generation of which slot it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) kind: Kind,
    /// Only the low 24 bits travel.
    pub(super) generation: u32,
    pub(super) index: u32,
}

impl Tag {
    /// Bits of the generation that travel.
    pub(super) const GENERATION_MASK: u32 = 0x00FF_FFFF;

    pub(super) fn new(kind: Kind, generation: u32, index: u32) -> Tag {
        Tag { kind, generation: generation & Tag::GENERATION_MASK, index }
    }

    /// The tag as 64 bits of user data.
    pub(super) fn to_bits(self) -> u64 {
        let kind = self.kind as u64;
        (kind << 56) | (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    /// The tag in `bits`, or nothing if they are not ours.
    pub(super) fn from_bits(bits: u64) -> Option<Tag> {
        let kind = *KINDS.get(usize::try_from(bits >> 56).ok()?)?;
        let generation = u32::try_from((bits >> 32) & u64::from(Tag::GENERATION_MASK)).ok()?;
        let index = u32::try_from(bits & u64::from(u32::MAX)).ok()?;
        Some(Tag { kind, generation, index })
    }
}

/// An operation for the ring. Pointers stay valid until the final completion ([`Port::push`]).
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    /// Accept connections until told otherwise, each as an ordinary descriptor.
    Accept { listener: RawFd },
    /// Cancel the operation with this tag.
    Cancel { target: Tag },
    /// Close a file.
    Close { file: File },
    /// Connect to the address of `length` octets at `address`.
    Connect { file: File, address: *const libc::sockaddr, length: libc::socklen_t },
    /// Receive into provided buffers until told otherwise.
    Receive { file: File },
    /// Send `length` octets at `start`.
    Send { file: File, start: *const u8, length: u32 },
    /// Shut down one or both directions.
    Shutdown { file: File, how: i32 },
    /// Read the eight octets of an event counter to `start`.
    Wake { event: RawFd, start: *mut u8 },
}

/// One entry of the completion queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) tag: Tag,
    /// Octets, a descriptor, or a negated error number.
    pub(super) result: i32,
    /// The receive buffer that came with it.
    pub(super) buffer: Option<u16>,
    /// Whether further completions of the same operation follow.
    pub(super) more: bool,
}

/// How long an enter may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Not at all.
    No,
    /// Until a completion arrives.
    Forever,
    /// Until a completion arrives, at most this long.
    AtMost(Duration),
}

/// A ring: takes operations, gives completions, tells the time.
pub(super) trait Port {
    /// Queues `operation`; it starts at the next [`Port::enter`] at the latest.
    ///
    /// # Safety
    /// Memory that `operation` points to stays valid, and is not written (for `Wake`: not
    /// touched) by anyone else until the final completion with `tag` was reaped.
    unsafe fn push(&mut self, tag: Tag, operation: Operation);

    /// Submits what is queued, and waits as told. Returns whether the kernel was entered.
    ///
    /// # Errors
    /// The system's; what was not submitted stays queued and is submitted by a later enter.
    fn enter(&mut self, wait: Wait) -> io::Result<bool>;

    /// Appends the completions that have arrived to `into`.
    fn reap(&mut self, into: &mut Vec<Completion>);

    /// Completions that found their queue full and waited in the kernel, so far.
    fn overflows(&self) -> u64;

    /// The time.
    fn now(&self) -> Instant;

    /// Who is at the other end of the accepted descriptor.
    fn peer(&mut self, accepted: RawFd) -> io::Result<PeerAddress>;

    /// Moves an accepted descriptor to `slot` of the registered table.
    fn install(&mut self, accepted: RawFd, slot: u32) -> io::Result<()>;

    /// Closes an accepted descriptor nobody wants.
    fn discard(&mut self, accepted: RawFd);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_their_bits() {
        for kind in KINDS {
            for (generation, index) in [(0, 0), (1, 7), (Tag::GENERATION_MASK, u32::MAX)] {
                let tag = Tag::new(kind, generation, index);
                assert_eq!(Tag::from_bits(tag.to_bits()), Some(tag));
            }
        }
        assert_eq!(Tag::from_bits(u64::MAX), None);
    }

    #[test]
    fn kinds_are_listed_in_their_order() {
        for (position, kind) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, position);
        }
    }
}
