//! Batches: many independent messages at once, each under its own key.
//!
//! A client that catches up, a gateway and the legacy suites meet many small messages with a fresh
//! key each; alone each would wait for its own key schedule. [`run`] takes any mix of jobs, any
//! lengths, and fills the lanes of the processor with them. The invariant: jobs do not influence
//! each other; a wrong tag fails its own job, wipes its own buffer and releases no plaintext.
//! Limits per job are those of [`crate::gcm`], [`crate::ctr`], [`crate::cbc`] and
//! [`crate::legacy`].

use crate::backend::aes::{CbcLane, GcmLane};
use crate::backend::blowfish::lane::Mode as BlowfishMode;
use crate::backend::des::lane::Mode as DesMode;
use crate::backend::{aes, blowfish, des};
use crate::capability::Selected;
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
    /// Entered in a plan; `result` is not yet final.
    pending: bool,
}

/// What a job does; the result stands beside it in [`Job`].
pub(crate) enum Work<'a> {
    Cbc {
        key: KeyIv<'a>,
        buffer: &'a mut [u8],
    },
    Ctr {
        key: KeyIv<'a>,
        buffer: &'a mut [u8],
    },
    Gcm {
        key: AesKey<'a>,
        nonce: &'a [u8; 12],
        aad: &'a [u8],
        buffer: &'a mut [u8],
        tag: [u8; 16],
        good: bool,
    },
    Legacy {
        key: LegacyKey<'a>,
        aad: &'a [u8],
        body: &'a mut Vec<u8>,
    },
}

impl<'a> Job<'a> {
    fn new(direction: Direction, work: Work<'a>) -> Self {
        Self { work, direction, result: Err(Error::NotRun), pending: false }
    }

    /// Encrypts `buffer` in place with AES-GCM; [`Job::tag`] gives the tag afterwards.
    #[must_use]
    pub fn gcm_seal(
        key: AesKey<'a>,
        nonce: &'a [u8; 12],
        aad: &'a [u8],
        buffer: &'a mut [u8],
    ) -> Self {
        let work = Work::Gcm { key, nonce, aad, buffer, tag: [0; 16], good: false };
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
        let work = Work::Gcm { key, nonce, aad, buffer, tag: *tag, good: false };
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
///
/// Small batches run as single messages would; from a few messages of a kind on, the lanes of the
/// processor are shared: AES by the 128-bit lane, 3DES by the bit, Blowfish by the table.
pub fn run(jobs: &mut [Job<'_>]) {
    run_on(capability::selected(), jobs);
}

fn run_on(selected: &Selected, jobs: &mut [Job<'_>]) {
    let mut plan = Plan::default();
    for job in jobs.iter_mut().filter(|job| job.result == Err(Error::NotRun)) {
        job.result = plan.add(selected, job.direction, &mut job.work);
        job.pending = job.result == Ok(());
    }
    let blowfish = plan.run(selected);
    for job in jobs.iter_mut().filter(|job| job.pending) {
        job.pending = false;
        job.result = finish(job.direction, &mut job.work, blowfish);
    }
}

/// The jobs of a batch by kernel.
#[derive(Default)]
struct Plan<'b> {
    /// AES-128, then AES-256.
    gcm: [Vec<GcmLane<'b>>; 2],
    aes_cbc: [Vec<CbcLane<'b>>; 2],
    triple_des: Vec<des::lane::Lane<'b>>,
    blowfish: Vec<blowfish::lane::Lane<'b>>,
}

impl<'b> Plan<'b> {
    /// Checks a job and enters it, or does it at once where a batch has nothing to gain.
    fn add(
        &mut self,
        selected: &Selected,
        direction: Direction,
        work: &'b mut Work<'_>,
    ) -> Result<(), Error> {
        match work {
            Work::Cbc { key, buffer } => self.add_cbc(selected, direction, *key, buffer),
            Work::Ctr { key, buffer } => self.add_ctr(selected, *key, buffer),
            Work::Gcm { key, nonce, aad, buffer, tag, good } => {
                gcm::check_lengths(aad.len(), buffer.len())?;
                let (list, key) = match key {
                    AesKey::Aes128(key) => (0, key.as_slice()),
                    AesKey::Aes256(key) => (1, key.as_slice()),
                };
                let open = direction == Direction::Open;
                let lane = GcmLane { key, nonce, aad, text: buffer, open, tag, good };
                let [short, long] = &mut self.gcm;
                if list == 0 {
                    short.push(lane)
                } else {
                    long.push(lane)
                }
                Ok(())
            }
            Work::Legacy { key, aad, body } => {
                let (key, mac_key) = split_legacy(*key);
                match direction {
                    Direction::Open => {
                        let ciphertext = match checked(mac_key, aad, body) {
                            Ok(ciphertext) => ciphertext,
                            Err(error) => {
                                if error == Error::Authentication {
                                    body.zeroize();
                                }
                                return Err(error);
                            }
                        };
                        body.truncate(ciphertext);
                    }
                    Direction::Seal => {
                        let sealed_len = legacy::sealed_len(body.len())?;
                        body.reserve_exact(sealed_len - body.len());
                        padding::pad(body, legacy::BLOCK_LEN as u8);
                    }
                }
                self.add_cbc(selected, direction, key, body)
            }
        }
    }

    fn add_cbc(
        &mut self,
        selected: &Selected,
        direction: Direction,
        key: KeyIv<'b>,
        buffer: &'b mut [u8],
    ) -> Result<(), Error> {
        let seal = direction == Direction::Seal;
        match key {
            KeyIv::Aes(key, iv) => {
                let (blocks, []) = buffer.as_chunks_mut() else { return Err(Error::Length) };
                if !seal {
                    expand_aes(selected, key).cbc_decrypt(&mut iv.clone(), blocks);
                    return Ok(());
                }
                let [short, long] = &mut self.aes_cbc;
                match key {
                    AesKey::Aes128(key) => short.push(CbcLane { key, iv, blocks }),
                    AesKey::Aes256(key) => long.push(CbcLane { key, iv, blocks }),
                }
            }
            KeyIv::Blowfish(key, iv) => {
                blowfish::check_key(key)?;
                check_cbc_64(seal, buffer.len())?;
                let mode = if seal { BlowfishMode::CbcEncrypt } else { BlowfishMode::CbcDecrypt };
                self.blowfish.push(blowfish::lane::Lane { key, iv, mode, text: buffer });
            }
            KeyIv::TripleDes(key, iv) => {
                check_cbc_64(seal, buffer.len())?;
                let mode = if seal { DesMode::CbcEncrypt } else { DesMode::CbcDecrypt };
                self.triple_des.push(des::lane::Lane { key, iv, mode, text: buffer });
            }
        }
        Ok(())
    }

    fn add_ctr(
        &mut self,
        selected: &Selected,
        key: KeyIv<'b>,
        buffer: &'b mut [u8],
    ) -> Result<(), Error> {
        match key {
            KeyIv::Aes(key, iv) => {
                let counter = u128::from_be_bytes(*iv);
                ctr::check_counter(counter, buffer.len())?;
                expand_aes(selected, key).ctr(counter, buffer);
            }
            KeyIv::Blowfish(key, iv) => {
                blowfish::check_key(key)?;
                check_ctr_64(iv, buffer.len())?;
                let mode = BlowfishMode::Ctr;
                self.blowfish.push(blowfish::lane::Lane { key, iv, mode, text: buffer });
            }
            KeyIv::TripleDes(key, iv) => {
                check_ctr_64(iv, buffer.len())?;
                let mode = DesMode::Ctr;
                self.triple_des.push(des::lane::Lane { key, iv, mode, text: buffer });
            }
        }
        Ok(())
    }

    /// Runs all that was entered; returns what became of the Blowfish jobs.
    fn run(&mut self, selected: &Selected) -> Result<(), Error> {
        let [short, long] = &mut self.gcm;
        selected.aes.gcm_lanes(false, short);
        selected.aes.gcm_lanes(true, long);
        let [short, long] = &mut self.aes_cbc;
        selected.aes.cbc_lanes(false, short);
        selected.aes.cbc_lanes(true, long);
        des::lane::run(selected.triple_des, &mut self.triple_des);
        blowfish::lane::run(selected.blowfish, &mut self.blowfish)
    }
}

/// What is left to do after the kernels.
fn finish(
    direction: Direction,
    work: &mut Work<'_>,
    blowfish: Result<(), Error>,
) -> Result<(), Error> {
    match work {
        Work::Cbc { key: KeyIv::Blowfish(..), .. } | Work::Ctr { key: KeyIv::Blowfish(..), .. } => {
            blowfish
        }
        Work::Cbc { .. } | Work::Ctr { .. } => Ok(()),
        Work::Gcm { buffer, good, .. } => {
            if *good {
                return Ok(());
            }
            buffer.zeroize();
            Err(Error::Authentication)
        }
        Work::Legacy { key, aad, body } => {
            if matches!(key, LegacyKey::L2(_)) {
                blowfish?;
            }
            if direction == Direction::Seal {
                let tag = legacy::tag(split_legacy(*key).1, aad, body)?;
                body.extend_from_slice(&tag);
                return Ok(());
            }
            match padding::unpadded_len(body, legacy::BLOCK_LEN as u8) {
                Ok(len) => {
                    body.truncate(len);
                    Ok(())
                }
                Err(error) => {
                    body.zeroize();
                    Err(error)
                }
            }
        }
    }
}

/// Checks the tag of a legacy body; returns the length of its ciphertext.
fn checked(mac_key: &[u8; 32], aad: &[u8], body: &[u8]) -> Result<usize, Error> {
    let (ciphertext, theirs) = legacy::split_body(body)?;
    legacy::check_tag(mac_key, aad, ciphertext, theirs)?;
    Ok(ciphertext.len())
}

/// Cipher key with IV, and MAC key.
fn split_legacy(key: LegacyKey<'_>) -> (KeyIv<'_>, &[u8; 32]) {
    match key {
        LegacyKey::L1(key) => {
            let (key, mac_key, iv) = legacy::split_l1(key);
            (KeyIv::TripleDes(key, iv), mac_key)
        }
        LegacyKey::L2(key) => {
            let (key, mac_key, iv) = legacy::split_l2(key);
            (KeyIv::Blowfish(key, iv), mac_key)
        }
    }
}

fn expand_aes(selected: &Selected, key: AesKey<'_>) -> aes::Aes {
    match key {
        AesKey::Aes128(key) => aes::Aes::new_128(selected.aes, key),
        AesKey::Aes256(key) => aes::Aes::new_256(selected.aes, key),
    }
}

fn check_ctr_64(iv: &[u8; 8], len: usize) -> Result<(), Error> {
    ctr::check_counter_64(u64::from_be_bytes(*iv), len)?;
    check_budget(len)
}

fn check_cbc_64(seal: bool, len: usize) -> Result<(), Error> {
    if !len.is_multiple_of(8) {
        return Err(Error::Length);
    }
    if seal { check_budget(len) } else { Ok(()) }
}

fn check_budget(len: usize) -> Result<(), Error> {
    if (len as u64).div_ceil(8) > limits::BLOCKS_64_MAX { Err(Error::Budget) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
