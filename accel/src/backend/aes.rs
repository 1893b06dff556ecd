//! AES engines: one key expanded on one backend, as block modes ([`Aes`]) and as GCM ([`Gcm`]).
//!
//! Owns the dispatch only. The branch is on the backend and the key size, never on data. Schedules
//! are wiped on drop.

use super::soft;
use crate::{Backend, Error};

/// The AES implementation to use, with the proof that it can run.
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
}

/// An expanded AES key for counter mode and CBC.
pub(crate) enum Aes {
    Soft128(Box<::aes::Aes128>),
    Soft256(Box<::aes::Aes256>),
}

impl Aes {
    pub(crate) fn new_128(choice: Choice, key: &[u8; 16]) -> Self {
        match choice {
            Choice::Soft => Self::Soft128(Box::new(cipher::KeyInit::new(key.into()))),
        }
    }

    pub(crate) fn new_256(choice: Choice, key: &[u8; 32]) -> Self {
        match choice {
            Choice::Soft => Self::Soft256(Box::new(cipher::KeyInit::new(key.into()))),
        }
    }

    pub(crate) fn ctr(&self, counter: u128, buffer: &mut [u8]) {
        match self {
            Self::Soft128(key) => soft::ctr_128(key.as_ref(), counter, buffer),
            Self::Soft256(key) => soft::ctr_128(key.as_ref(), counter, buffer),
        }
    }

    pub(crate) fn cbc_encrypt(&self, chain: &mut [u8; 16], blocks: &mut [[u8; 16]]) {
        match self {
            Self::Soft128(key) => soft::cbc_encrypt(key.as_ref(), chain, blocks),
            Self::Soft256(key) => soft::cbc_encrypt(key.as_ref(), chain, blocks),
        }
    }

    pub(crate) fn cbc_decrypt(&self, chain: &mut [u8; 16], blocks: &mut [[u8; 16]]) {
        match self {
            Self::Soft128(key) => soft::cbc_decrypt(key.as_ref(), chain, blocks),
            Self::Soft256(key) => soft::cbc_decrypt(key.as_ref(), chain, blocks),
        }
    }
}

/// An expanded AES-GCM key.
pub(crate) enum Gcm {
    Soft128(Box<soft::Gcm128>),
    Soft256(Box<soft::Gcm256>),
}

impl Gcm {
    pub(crate) fn new_128(choice: Choice, key: &[u8; 16]) -> Self {
        match choice {
            Choice::Soft => Self::Soft128(Box::new(cipher::KeyInit::new(key.into()))),
        }
    }

    pub(crate) fn new_256(choice: Choice, key: &[u8; 32]) -> Self {
        match choice {
            Choice::Soft => Self::Soft256(Box::new(cipher::KeyInit::new(key.into()))),
        }
    }

    pub(crate) fn seal(&self, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> [u8; 16] {
        match self {
            Self::Soft128(key) => soft::seal(key.as_ref(), nonce, aad, buffer),
            Self::Soft256(key) => soft::seal(key.as_ref(), nonce, aad, buffer),
        }
    }

    /// The buffer's content after a failure is the caller's to wipe.
    pub(crate) fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), Error> {
        match self {
            Self::Soft128(key) => soft::open(key.as_ref(), nonce, aad, buffer, tag),
            Self::Soft256(key) => soft::open(key.as_ref(), nonce, aad, buffer, tag),
        }
    }
}
