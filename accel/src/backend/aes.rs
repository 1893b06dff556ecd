//! AES engines: one key expanded on one backend, as block modes ([`Aes`]) and as GCM ([`Gcm`]).
//!
//! Owns the dispatch only. The branch is on the backend and the key size, never on data. Schedules
//! are boxed, so that moving a key leaves no copy behind, and wiped on drop.

use super::soft;
#[cfg(target_arch = "x86_64")]
use super::x86_64::{HaveAesNi, HaveVaes256, aes::Key, gcm::GcmKey};
use crate::capability::Mask;
use crate::{Backend, Error};

/// The AES implementation to use, with the proof that it can run.
#[derive(Clone, Copy)]
pub(crate) enum Choice {
    Soft,
    #[cfg(target_arch = "x86_64")]
    AesNi(HaveAesNi),
    #[cfg(target_arch = "x86_64")]
    Vaes256(HaveVaes256),
}

impl Choice {
    pub(crate) fn backend(self) -> Backend {
        match self {
            Self::Soft => Backend::Soft,
            #[cfg(target_arch = "x86_64")]
            Self::AesNi(_) => Backend::AesNi,
            #[cfg(target_arch = "x86_64")]
            Self::Vaes256(_) => Backend::Vaes256,
        }
    }

    /// Every implementation that can run here, best first.
    pub(crate) fn all(mask: &Mask) -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(HaveVaes256::detect(mask).map(Self::Vaes256));
            all.extend(HaveAesNi::detect(mask).map(Self::AesNi));
        }
        let _ = mask;
        all.push(Self::Soft);
        all
    }
}

/// An expanded AES key for counter mode and CBC.
pub(crate) enum Aes {
    Soft128(Box<::aes::Aes128>),
    Soft256(Box<::aes::Aes256>),
    #[cfg(target_arch = "x86_64")]
    Ni128(Box<Key<HaveAesNi, 11>>),
    #[cfg(target_arch = "x86_64")]
    Ni256(Box<Key<HaveAesNi, 15>>),
    #[cfg(target_arch = "x86_64")]
    Vaes128(Box<Key<HaveVaes256, 11>>),
    #[cfg(target_arch = "x86_64")]
    Vaes256(Box<Key<HaveVaes256, 15>>),
}

impl Aes {
    pub(crate) fn new_128(choice: Choice, key: &[u8; 16]) -> Self {
        match choice {
            Choice::Soft => Self::Soft128(Box::new(cipher::KeyInit::new(key.into()))),
            #[cfg(target_arch = "x86_64")]
            Choice::AesNi(have) => Self::Ni128(Box::new(Key::<HaveAesNi, 11>::new(have, key))),
            #[cfg(target_arch = "x86_64")]
            Choice::Vaes256(have) => {
                Self::Vaes128(Box::new(Key::<HaveVaes256, 11>::new(have, key)))
            }
        }
    }

    pub(crate) fn new_256(choice: Choice, key: &[u8; 32]) -> Self {
        match choice {
            Choice::Soft => Self::Soft256(Box::new(cipher::KeyInit::new(key.into()))),
            #[cfg(target_arch = "x86_64")]
            Choice::AesNi(have) => Self::Ni256(Box::new(Key::<HaveAesNi, 15>::new(have, key))),
            #[cfg(target_arch = "x86_64")]
            Choice::Vaes256(have) => {
                Self::Vaes256(Box::new(Key::<HaveVaes256, 15>::new(have, key)))
            }
        }
    }

    pub(crate) fn ctr(&self, counter: u128, buffer: &mut [u8]) {
        match self {
            Self::Soft128(key) => soft::ctr_128(key.as_ref(), counter, buffer),
            Self::Soft256(key) => soft::ctr_128(key.as_ref(), counter, buffer),
            #[cfg(target_arch = "x86_64")]
            Self::Ni128(key) => key.ctr(counter, buffer),
            #[cfg(target_arch = "x86_64")]
            Self::Ni256(key) => key.ctr(counter, buffer),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes128(key) => key.ctr(counter, buffer),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes256(key) => key.ctr(counter, buffer),
        }
    }

    pub(crate) fn cbc_encrypt(&self, chain: &mut [u8; 16], blocks: &mut [[u8; 16]]) {
        match self {
            Self::Soft128(key) => soft::cbc_encrypt(key.as_ref(), chain, blocks),
            Self::Soft256(key) => soft::cbc_encrypt(key.as_ref(), chain, blocks),
            #[cfg(target_arch = "x86_64")]
            Self::Ni128(key) => key.cbc_encrypt(chain, blocks),
            #[cfg(target_arch = "x86_64")]
            Self::Ni256(key) => key.cbc_encrypt(chain, blocks),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes128(key) => key.cbc_encrypt(chain, blocks),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes256(key) => key.cbc_encrypt(chain, blocks),
        }
    }

    pub(crate) fn cbc_decrypt(&self, chain: &mut [u8; 16], blocks: &mut [[u8; 16]]) {
        match self {
            Self::Soft128(key) => soft::cbc_decrypt(key.as_ref(), chain, blocks),
            Self::Soft256(key) => soft::cbc_decrypt(key.as_ref(), chain, blocks),
            #[cfg(target_arch = "x86_64")]
            Self::Ni128(key) => key.cbc_decrypt(chain, blocks),
            #[cfg(target_arch = "x86_64")]
            Self::Ni256(key) => key.cbc_decrypt(chain, blocks),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes128(key) => key.cbc_decrypt(chain, blocks),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes256(key) => key.cbc_decrypt(chain, blocks),
        }
    }
}

/// An expanded AES-GCM key.
pub(crate) enum Gcm {
    Soft128(Box<soft::Gcm128>),
    Soft256(Box<soft::Gcm256>),
    #[cfg(target_arch = "x86_64")]
    Ni128(Box<GcmKey<HaveAesNi, 11>>),
    #[cfg(target_arch = "x86_64")]
    Ni256(Box<GcmKey<HaveAesNi, 15>>),
    #[cfg(target_arch = "x86_64")]
    Vaes128(Box<GcmKey<HaveVaes256, 11>>),
    #[cfg(target_arch = "x86_64")]
    Vaes256(Box<GcmKey<HaveVaes256, 15>>),
}

impl Gcm {
    pub(crate) fn new_128(choice: Choice, key: &[u8; 16]) -> Self {
        match choice {
            Choice::Soft => Self::Soft128(Box::new(cipher::KeyInit::new(key.into()))),
            #[cfg(target_arch = "x86_64")]
            Choice::AesNi(have) => Self::Ni128(Box::new(GcmKey::<HaveAesNi, 11>::new(have, key))),
            #[cfg(target_arch = "x86_64")]
            Choice::Vaes256(have) => {
                Self::Vaes128(Box::new(GcmKey::<HaveVaes256, 11>::new(have, key)))
            }
        }
    }

    pub(crate) fn new_256(choice: Choice, key: &[u8; 32]) -> Self {
        match choice {
            Choice::Soft => Self::Soft256(Box::new(cipher::KeyInit::new(key.into()))),
            #[cfg(target_arch = "x86_64")]
            Choice::AesNi(have) => Self::Ni256(Box::new(GcmKey::<HaveAesNi, 15>::new(have, key))),
            #[cfg(target_arch = "x86_64")]
            Choice::Vaes256(have) => {
                Self::Vaes256(Box::new(GcmKey::<HaveVaes256, 15>::new(have, key)))
            }
        }
    }

    pub(crate) fn seal(&self, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> [u8; 16] {
        match self {
            Self::Soft128(key) => soft::seal(key.as_ref(), nonce, aad, buffer),
            Self::Soft256(key) => soft::seal(key.as_ref(), nonce, aad, buffer),
            #[cfg(target_arch = "x86_64")]
            Self::Ni128(key) => key.seal(nonce, aad, buffer),
            #[cfg(target_arch = "x86_64")]
            Self::Ni256(key) => key.seal(nonce, aad, buffer),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes128(key) => key.seal(nonce, aad, buffer),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes256(key) => key.seal(nonce, aad, buffer),
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
            #[cfg(target_arch = "x86_64")]
            Self::Ni128(key) => key.open(nonce, aad, buffer, tag),
            #[cfg(target_arch = "x86_64")]
            Self::Ni256(key) => key.open(nonce, aad, buffer, tag),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes128(key) => key.open(nonce, aad, buffer, tag),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes256(key) => key.open(nonce, aad, buffer, tag),
        }
    }
}

#[cfg(test)]
mod tests;
