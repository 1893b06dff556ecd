//! AES engines: one key expanded on one backend, as block modes ([`Aes`]) and as GCM ([`Gcm`]).
//!
//! Owns the dispatch only. The branch is on the backend and the key size, never on data. Schedules
//! are boxed, so that moving a key leaves no copy behind, and wiped on drop.

use super::soft;
#[cfg(target_arch = "x86_64")]
use super::x86_64::{HaveAesNi, HaveVaes256, aes::Key, gcm::GcmKey, lane::Lanes};
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

/// One GCM message of a batch.
pub(crate) struct GcmLane<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) nonce: &'a [u8; 12],
    pub(crate) aad: &'a [u8],
    pub(crate) text: &'a mut [u8],
    /// Decrypt and check `tag`; else encrypt and set it.
    pub(crate) open: bool,
    pub(crate) tag: &'a mut [u8; 16],
    /// Whether the tag was right; always true when sealing.
    pub(crate) good: &'a mut bool,
}

/// One CBC encryption of a batch.
pub(crate) struct CbcLane<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) iv: &'a [u8; 16],
    pub(crate) blocks: &'a mut [[u8; 16]],
}

/// What [`crate::batch`] runs side by side; on the software engine nothing is.
impl Choice {
    /// Seals or opens many messages with keys of one size; longest messages side by side.
    pub(crate) fn gcm_lanes(self, long: bool, messages: &mut [GcmLane<'_>]) {
        messages.sort_unstable_by_key(|message| (message.open, message.text.len()));
        match self {
            Self::Soft => messages.iter_mut().for_each(|message| self.gcm_alone(long, message)),
            #[cfg(target_arch = "x86_64")]
            Self::AesNi(have) => self.gcm_groups(have, long, messages),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes256(have) => self.gcm_groups(have, long, messages),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn gcm_groups<L: Lanes>(self, lanes: L, long: bool, messages: &mut [GcmLane<'_>]) {
        for group in messages.chunks_mut(L::COUNT) {
            let longest = group.iter().map(|message| message.text.len()).max().unwrap_or(0);
            if group.len() * 2 < L::COUNT || longest > LANE_TEXT_MAX {
                group.iter_mut().for_each(|message| self.gcm_alone(long, message));
            } else {
                lanes.gcm(long, group);
            }
        }
    }

    fn gcm_alone(self, long: bool, message: &mut GcmLane<'_>) {
        let key = match (long, message.key.first_chunk(), message.key.first_chunk()) {
            (true, Some(key), _) => Gcm::new_256(self, key),
            (false, _, Some(key)) => Gcm::new_128(self, key),
            _ => return,
        };
        if message.open {
            let opened = key.open(message.nonce, message.aad, message.text, message.tag);
            *message.good = opened.is_ok();
        } else {
            *message.tag = key.seal(message.nonce, message.aad, message.text);
            *message.good = true;
        }
    }

    /// Encrypts many messages in CBC mode with keys of one size.
    pub(crate) fn cbc_lanes(self, long: bool, messages: &mut [CbcLane<'_>]) {
        messages.sort_unstable_by_key(|message| message.blocks.len());
        match self {
            Self::Soft => messages.iter_mut().for_each(|message| self.cbc_alone(long, message)),
            #[cfg(target_arch = "x86_64")]
            Self::AesNi(have) => self.cbc_groups(have, long, messages),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes256(have) => self.cbc_groups(have, long, messages),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn cbc_groups<L: Lanes>(self, lanes: L, long: bool, messages: &mut [CbcLane<'_>]) {
        for group in messages.chunks_mut(L::COUNT) {
            if group.len() < 3 {
                group.iter_mut().for_each(|message| self.cbc_alone(long, message));
            } else {
                lanes.cbc_encrypt(long, group);
            }
        }
    }

    fn cbc_alone(self, long: bool, message: &mut CbcLane<'_>) {
        let key = match (long, message.key.first_chunk(), message.key.first_chunk()) {
            (true, Some(key), _) => Aes::new_256(self, key),
            (false, _, Some(key)) => Aes::new_128(self, key),
            _ => return,
        };
        key.cbc_encrypt(&mut message.iv.clone(), message.blocks);
    }
}

/// Longest text that is treated in a lane: beyond it, the kernels for one key win.
#[cfg(target_arch = "x86_64")]
const LANE_TEXT_MAX: usize = 4096;

#[cfg(test)]
mod tests;
