//! Blowfish engines: one key schedule on one backend.
//!
//! Owns the dispatch only. No Blowfish path is constant time: the S-boxes are secret tables.
//! Source: B. Schneier, "Description of a New Variable-Length Key, 64-Bit Block Cipher", 1993.

use super::soft::{self, Key as _};
use crate::capability::Mask;
use crate::{Backend, Error};

/// The Blowfish implementation to use.
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

/// An expanded Blowfish key.
pub(crate) enum Blowfish {
    Soft(Box<::blowfish::Blowfish>),
}

impl Blowfish {
    pub(crate) fn new(choice: Choice, key: &[u8]) -> Result<Self, Error> {
        match choice {
            Choice::Soft => Ok(Self::Soft(Box::new(::blowfish::Blowfish::expand(key)?))),
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
