//! 3DES engines: one key expanded on one backend.
//!
//! Owns the dispatch only. Source: FIPS 46-3, NIST SP 800-67 rev. 2.

use super::soft;
use crate::Backend;
use crate::capability::Mask;

/// The 3DES implementation to use, with the proof that it can run.
#[derive(Clone, Copy)]
pub(crate) enum Choice {
    Soft,
}

impl Choice {
    pub(crate) fn backend(self) -> Backend {
        match self {
            Self::Soft => Backend::Soft,
        }
    }

    /// Every implementation that can run here, best first.
    pub(crate) fn all(_mask: &Mask) -> Vec<Self> {
        vec![Self::Soft]
    }
}

/// An expanded 3DES key.
pub(crate) enum TripleDes {
    Soft(Box<::des::TdesEde3>),
}

impl TripleDes {
    pub(crate) fn new(choice: Choice, key: &[u8; 24]) -> Self {
        match choice {
            Choice::Soft => Self::Soft(Box::new(cipher::KeyInit::new(key.into()))),
        }
    }

    pub(crate) fn ctr(&self, counter: u64, buffer: &mut [u8]) {
        match self {
            Self::Soft(key) => soft::ctr_64(key.as_ref(), counter, buffer),
        }
    }

    pub(crate) fn cbc_encrypt(&self, chain: &mut [u8; 8], blocks: &mut [[u8; 8]]) {
        match self {
            Self::Soft(key) => soft::cbc_encrypt(key.as_ref(), chain, blocks),
        }
    }

    pub(crate) fn cbc_decrypt(&self, chain: &mut [u8; 8], blocks: &mut [[u8; 8]]) {
        match self {
            Self::Soft(key) => soft::cbc_decrypt(key.as_ref(), chain, blocks),
        }
    }
}
