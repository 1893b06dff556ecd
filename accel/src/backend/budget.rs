//! The volume budget of a key whose cipher has 64-bit blocks.
//!
//! Owns one counter per key, shared by all threads that use the key. The invariant: the sum of
//! all charges granted never exceeds the budget. Source: NIST SP 800-67 rev. 2 §3.3.

use crate::Error;
use core::sync::atomic::{AtomicU64, Ordering};

/// Blocks that may still be processed.
pub(crate) struct Budget(AtomicU64);

impl Budget {
    pub(crate) fn new(blocks: u64) -> Self {
        Self(AtomicU64::new(blocks))
    }

    /// Takes the blocks that `len` octets need.
    ///
    /// # Errors
    /// [`Error::Budget`] if fewer are left; nothing is taken.
    pub(crate) fn charge(&self, len: usize) -> Result<(), Error> {
        let blocks = (len as u64).div_ceil(8);
        // Relaxed: the counter orders nothing but itself.
        self.0
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(blocks))
            .map(|_| ())
            .map_err(|_| Error::Budget)
    }
}
