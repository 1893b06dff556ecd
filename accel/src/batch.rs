//! Batches: many independent messages at once, each under its own key.
//!
//! A client that catches up, a gateway and the legacy suites meet many small messages with a fresh
//! key each; alone each would wait for its own key schedule. [`run`] takes any mix of jobs, any
//! lengths, and fills the lanes of the processor with them. The invariant: jobs do not influence
//! each other; a wrong tag fails its own job, wipes its own buffer and releases no plaintext.
//! Limits per job are those of [`crate::gcm`], [`crate::ctr`], [`crate::cbc`] and
//! [`crate::legacy`].

use crate::backend::{aes, blowfish, des};
use crate::legacy::{self, L1, L2};
use crate::{Error, capability, ctr, gcm, limits, padding};
use zeroize::Zeroize;

/// Whether a job encrypts or decrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Decrypt, after checking the tag where there is one.
    Open,
    /// Encrypt, and make the tag where there is one.
    Seal,
}

/// An AES key by size.
#[derive(Clone, Copy)]
pub enum AesKey<'a> {
    /// AES-128.
    Aes128(&'a [u8; 16]),
    /// AES-256.
    Aes256(&'a [u8; 32]),
}

/// Key and IV of a job in CBC or counter mode.
#[derive(Clone, Copy)]
pub enum KeyIv<'a> {
    /// AES with its 16-octet IV or first counter block.
    Aes(AesKey<'a>, &'a [u8; 16]),
    /// Blowfish, key of 4 to 56 octets.
    Blowfish(&'a [u8], &'a [u8; 8]),
    /// 3DES.
    TripleDes(&'a [u8; 24], &'a [u8; 8]),
}

/// A message key of a legacy suite.
#[derive(Clone, Copy)]
pub enum LegacyKey<'a> {
    /// 3DES-CBC with HMAC-SHA-256.
    L1(&'a [u8; L1::KEY_LEN]),
    /// Blowfish-128-CBC with HMAC-SHA-256.
    L2(&'a [u8; L2::KEY_LEN]),
}

/// One independent message.
pub struct Job<'a> {
    pub(crate) work: Work<'a>,
    pub(crate) direction: Direction,
    pub(crate) result: Result<(), Error>,
}

/// What a job does; the result stands beside it in [`Job`].
pub(crate) enum Work<'a> {
    Cbc { key: KeyIv<'a>, buffer: &'a mut [u8] },
    Ctr { key: KeyIv<'a>, buffer: &'a mut [u8] },
    Gcm { key: AesKey<'a>, nonce: &'a [u8; 12], aad: &'a [u8], buffer: &'a mut [u8], tag: [u8; 16] },
    Legacy { key: LegacyKey<'a>, aad: &'a [u8], body: &'a mut Vec<u8> },
}

impl<'a> Job<'a> {
    fn new(direction: Direction, work: Work<'a>) -> Self {
        Self { work, direction, result: Err(Error::NotRun) }
    }

    /// Encrypts `buffer` in place with AES-GCM; [`Job::tag`] gives the tag afterwards.
    #[must_use]
    pub fn gcm_seal(
        key: AesKey<'a>,
        nonce: &'a [u8; 12],
        aad: &'a [u8],
        buffer: &'a mut [u8],
    ) -> Self {
        let work = Work::Gcm { key, nonce, aad, buffer, tag: [0; 16] };
        Self::new(Direction::Seal, work)
    }

    /// Decrypts `buffer` in place if `tag` fits; if not, the buffer holds zeros afterwards.
    #[must_use]
    pub fn gcm_open(
        key: AesKey<'a>,
        nonce: &'a [u8; 12],
        aad: &'a [u8],
        buffer: &'a mut [u8],
        tag: &[u8; 16],
    ) -> Self {
        let work = Work::Gcm { key, nonce, aad, buffer, tag: *tag };
        Self::new(Direction::Open, work)
    }

    /// Encrypts or decrypts whole blocks in place in CBC mode, without padding.
    #[must_use]
    pub fn cbc(direction: Direction, key: KeyIv<'a>, buffer: &'a mut [u8]) -> Self {
        Self::new(direction, Work::Cbc { key, buffer })
    }

    /// Encrypts or decrypts `buffer` in place in counter mode.
    #[must_use]
    pub fn ctr(key: KeyIv<'a>, buffer: &'a mut [u8]) -> Self {
        Self::new(Direction::Seal, Work::Ctr { key, buffer })
    }

    /// Turns the plaintext in `body` into `ct ‖ tag`.
    #[must_use]
    pub fn legacy_seal(key: LegacyKey<'a>, aad: &'a [u8], body: &'a mut Vec<u8>) -> Self {
        Self::new(Direction::Seal, Work::Legacy { key, aad, body })
    }

    /// Turns the `ct ‖ tag` in `body` into the plaintext. After a wrong tag or padding `body` is
    /// wiped and empty.
    #[must_use]
    pub fn legacy_open(key: LegacyKey<'a>, aad: &'a [u8], body: &'a mut Vec<u8>) -> Self {
        Self::new(Direction::Open, Work::Legacy { key, aad, body })
    }

    /// What became of the job.
    ///
    /// # Errors
    /// [`Error::NotRun`] before [`run`]; else what the single-message call would have returned.
    pub fn result(&self) -> Result<(), Error> {
        self.result
    }

    /// The tag of a sealed GCM job that has run; `None` for anything else.
    #[must_use]
    pub fn tag(&self) -> Option<[u8; 16]> {
        match (&self.work, self.direction, self.result) {
            (Work::Gcm { tag, .. }, Direction::Seal, Ok(())) => Some(*tag),
            _ => None,
        }
    }
}

impl core::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Job(..)")
    }
}

/// Runs every job that has not run yet; the order of completion is not defined.
pub fn run(jobs: &mut [Job<'_>]) {
    for job in jobs.iter_mut().filter(|job| job.result == Err(Error::NotRun)) {
        job.result = single(job);
    }
}

/// Runs one job alone.
fn single(job: &mut Job<'_>) -> Result<(), Error> {
    let direction = job.direction;
    match &mut job.work {
        Work::Cbc { key, buffer } => cbc(direction, *key, buffer),
        Work::Ctr { key, buffer } => ctr(*key, buffer),
        Work::Gcm { key, nonce, aad, buffer, tag } => {
            gcm::check_lengths(aad.len(), buffer.len())?;
            let choice = capability::selected().aes;
            let key = match key {
                AesKey::Aes128(key) => aes::Gcm::new_128(choice, key),
                AesKey::Aes256(key) => aes::Gcm::new_256(choice, key),
            };
            match direction {
                Direction::Seal => *tag = key.seal(nonce, aad, buffer),
                Direction::Open => {
                    let opened = key.open(nonce, aad, buffer, tag);
                    if opened.is_err() {
                        buffer.zeroize();
                    }
                    opened?;
                }
            }
            Ok(())
        }
        Work::Legacy { key, aad, body } => legacy(direction, *key, aad, body),
    }
}

fn expand_aes(key: AesKey<'_>) -> aes::Aes {
    let choice = capability::selected().aes;
    match key {
        AesKey::Aes128(key) => aes::Aes::new_128(choice, key),
        AesKey::Aes256(key) => aes::Aes::new_256(choice, key),
    }
}

fn ctr(key: KeyIv<'_>, buffer: &mut [u8]) -> Result<(), Error> {
    match key {
        KeyIv::Aes(key, iv) => {
            let counter = u128::from_be_bytes(*iv);
            ctr::check_counter(counter, buffer.len())?;
            expand_aes(key).ctr(counter, buffer);
        }
        KeyIv::Blowfish(key, iv) => {
            let counter = check_ctr_64(iv, buffer.len())?;
            blowfish::Blowfish::new(capability::selected().blowfish, key)?.ctr(counter, buffer);
        }
        KeyIv::TripleDes(key, iv) => {
            let counter = check_ctr_64(iv, buffer.len())?;
            des::TripleDes::new(capability::selected().triple_des, key).ctr(counter, buffer);
        }
    }
    Ok(())
}

fn check_ctr_64(iv: &[u8; 8], len: usize) -> Result<u64, Error> {
    let counter = u64::from_be_bytes(*iv);
    ctr::check_counter_64(counter, len)?;
    check_budget(len)?;
    Ok(counter)
}

fn check_budget(len: usize) -> Result<(), Error> {
    if (len as u64).div_ceil(8) > limits::BLOCKS_64_MAX { Err(Error::Budget) } else { Ok(()) }
}

fn cbc(direction: Direction, key: KeyIv<'_>, buffer: &mut [u8]) -> Result<(), Error> {
    match key {
        KeyIv::Aes(key, iv) => {
            let (blocks, []) = buffer.as_chunks_mut() else {
                return Err(Error::Length);
            };
            let key = expand_aes(key);
            match direction {
                Direction::Open => key.cbc_decrypt(&mut iv.clone(), blocks),
                Direction::Seal => key.cbc_encrypt(&mut iv.clone(), blocks),
            }
        }
        KeyIv::Blowfish(key, iv) => {
            let blocks = check_cbc_64(direction, buffer)?;
            let key = blowfish::Blowfish::new(capability::selected().blowfish, key)?;
            match direction {
                Direction::Open => key.cbc_decrypt(&mut iv.clone(), blocks),
                Direction::Seal => key.cbc_encrypt(&mut iv.clone(), blocks),
            }
        }
        KeyIv::TripleDes(key, iv) => {
            let blocks = check_cbc_64(direction, buffer)?;
            let key = des::TripleDes::new(capability::selected().triple_des, key);
            match direction {
                Direction::Open => key.cbc_decrypt(&mut iv.clone(), blocks),
                Direction::Seal => key.cbc_encrypt(&mut iv.clone(), blocks),
            }
        }
    }
    Ok(())
}

fn check_cbc_64(direction: Direction, buffer: &mut [u8]) -> Result<&mut [[u8; 8]], Error> {
    if direction == Direction::Seal {
        check_budget(buffer.len())?;
    }
    let (blocks, []) = buffer.as_chunks_mut() else {
        return Err(Error::Length);
    };
    Ok(blocks)
}

fn legacy(
    direction: Direction,
    key: LegacyKey<'_>,
    aad: &[u8],
    body: &mut Vec<u8>,
) -> Result<(), Error> {
    let (key_iv, mac_key) = match key {
        LegacyKey::L1(key) => {
            let (key, mac_key, iv) = legacy::split_l1(key);
            (KeyIv::TripleDes(key, iv), mac_key)
        }
        LegacyKey::L2(key) => {
            let (key, mac_key, iv) = legacy::split_l2(key);
            (KeyIv::Blowfish(key, iv), mac_key)
        }
    };
    match direction {
        Direction::Seal => {
            let sealed_len = legacy::sealed_len(body.len())?;
            body.reserve_exact(sealed_len - body.len());
            padding::pad(body, legacy::BLOCK_LEN as u8);
            cbc(direction, key_iv, body)?;
            let tag = legacy::tag(mac_key, aad, body)?;
            body.extend_from_slice(&tag);
            Ok(())
        }
        Direction::Open => {
            let opened = legacy_open(key_iv, mac_key, aad, body);
            if opened.is_err() {
                body.zeroize();
            }
            opened
        }
    }
}

fn legacy_open(
    key: KeyIv<'_>,
    mac_key: &[u8; 32],
    aad: &[u8],
    body: &mut Vec<u8>,
) -> Result<(), Error> {
    let (ciphertext, theirs) = legacy::split_body(body)?;
    legacy::check_tag(mac_key, aad, ciphertext, theirs)?;
    body.truncate(body.len() - legacy::TAG_LEN);
    cbc(Direction::Open, key, body)?;
    let len = padding::unpadded_len(body, legacy::BLOCK_LEN as u8)?;
    body.truncate(len);
    Ok(())
}

#[cfg(test)]
mod tests;
