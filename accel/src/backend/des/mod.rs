//! 3DES engines: one key expanded on one backend, bitsliced where blocks are independent.
//!
//! Owns the choice between the bitsliced kernel and the scalar tables. The invariant: whether the
//! constant-time kernel runs depends on lengths and mode only ([`SLICED_MIN`]). Source: FIPS 46-3,
//! NIST SP 800-67 rev. 2.

#![expect(
    clippy::indexing_slicing,
    reason = "indices are masked or loop counters below the constant length of an array"
)]

pub(crate) mod bitslice;
pub(crate) mod lane;

pub(crate) mod sbox;
mod scalar;
pub(crate) mod table;

use super::soft;
#[cfg(target_arch = "x86_64")]
use super::x86_64::HaveAvx2;
use crate::Backend;
use crate::capability::Mask;
use bitslice::{KeyPlanes, LANES_MAX, Word64};
use scalar::Schedule;
use zeroize::Zeroizing;

/// The 3DES implementation to use, with the proof that it can run.
#[derive(Clone, Copy)]
pub(crate) enum Choice {
    Soft,
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(HaveAvx2),
}

impl Choice {
    pub(crate) fn backend(self) -> Backend {
        match self {
            Self::Soft => Backend::Soft,
            Self::Portable => Backend::Portable,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Backend::Avx2,
        }
    }

    /// Every implementation that can run here, best first.
    pub(crate) fn all(mask: &Mask) -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        all.extend(HaveAvx2::detect(mask).map(Self::Avx2));
        let _ = mask;
        all.extend([Self::Portable, Self::Soft]);
        all
    }
}

/// An expanded 3DES key.
pub(crate) enum TripleDes {
    Soft(Box<::des::TdesEde3>),
    Own(Box<Own>),
}

/// The key for this crate's code: tables for single blocks, the plain keys for bitslicing.
pub(crate) struct Own {
    schedule: Schedule,
    keys: Zeroizing<[u64; 3]>,
    engine: Engine,
}

/// A bitsliced engine.
#[derive(Clone, Copy)]
enum Engine {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(HaveAvx2),
}

/// Fewest independent blocks for which the bitsliced kernel, which costs the same however many
/// lanes are filled, is faster than the tables.
const SLICED_MIN: usize = 24;

/// Blocks that counter mode and CBC decryption treat at a time: one group of the widest engine.
const SPAN: usize = LANES_MAX;

/// The three keys of a 3DES key as big-endian numbers.
fn numbers(key: &[u8; 24]) -> Zeroizing<[u64; 3]> {
    let mut numbers = Zeroizing::new([0; 3]);
    for (number, octets) in numbers.iter_mut().zip(key.as_chunks().0) {
        *number = u64::from_be_bytes(*octets);
    }
    numbers
}

impl TripleDes {
    pub(crate) fn new(choice: Choice, key: &[u8; 24]) -> Self {
        let engine = match choice {
            Choice::Soft => return Self::Soft(Box::new(cipher::KeyInit::new(key.into()))),
            Choice::Portable => Engine::Portable,
            #[cfg(target_arch = "x86_64")]
            Choice::Avx2(have) => Engine::Avx2(have),
        };
        let keys = numbers(key);
        Self::Own(Box::new(Own { schedule: Schedule::new(&keys), keys, engine }))
    }

    pub(crate) fn ctr(&self, counter: u64, buffer: &mut [u8]) {
        match self {
            Self::Soft(key) => soft::ctr_64(key.as_ref(), counter, buffer),
            Self::Own(key) => key.ctr(counter, buffer),
        }
    }

    pub(crate) fn cbc_encrypt(&self, chain: &mut [u8; 8], blocks: &mut [[u8; 8]]) {
        match self {
            Self::Soft(key) => soft::cbc_encrypt(key.as_ref(), chain, blocks),
            Self::Own(key) => {
                for block in blocks {
                    let text = u64::from_be_bytes(*block) ^ u64::from_be_bytes(*chain);
                    [*block] = key.schedule.encrypt([text]).map(u64::to_be_bytes);
                    *chain = *block;
                }
            }
        }
    }

    pub(crate) fn cbc_decrypt(&self, chain: &mut [u8; 8], blocks: &mut [[u8; 8]]) {
        match self {
            Self::Soft(key) => soft::cbc_decrypt(key.as_ref(), chain, blocks),
            Self::Own(key) => key.cbc_decrypt(chain, blocks),
        }
    }
}

/// Key planes of an engine, wiped on drop.
enum Planes {
    Portable(Box<KeyPlanes<Word64>>),
    #[cfg(target_arch = "x86_64")]
    Avx2(HaveAvx2, Box<KeyPlanes<HaveAvx2>>),
}

impl Drop for Planes {
    fn drop(&mut self) {
        match self {
            Self::Portable(planes) => planes.wipe(Word64),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(have, planes) => have.des_wipe(planes),
        }
    }
}

impl Planes {
    /// Bitslices as many blocks as pay; returns how many.
    fn blocks(&self, decrypt: bool, blocks: &mut [[u8; 8]]) -> usize {
        match self {
            Self::Portable(planes) => bitslice::blocks(Word64, planes, decrypt, SLICED_MIN, blocks),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(have, planes) => have.des_blocks(planes, decrypt, SLICED_MIN, blocks),
        }
    }
}

impl Own {
    /// Key planes if `count` blocks are worth it.
    fn planes(&self, count: usize) -> Option<Planes> {
        (count >= SLICED_MIN).then(|| match self.engine {
            Engine::Portable => {
                Planes::Portable(Box::new(KeyPlanes::broadcast(Word64, &self.keys)))
            }
            #[cfg(target_arch = "x86_64")]
            Engine::Avx2(have) => Planes::Avx2(have, have.des_key(&self.keys)),
        })
    }

    /// Encrypts or decrypts independent blocks in place.
    fn blocks(&self, planes: Option<&Planes>, decrypt: bool, blocks: &mut [[u8; 8]]) {
        let sliced = planes.map_or(0, |planes| planes.blocks(decrypt, blocks));
        let (threes, rest) = blocks[sliced..].as_chunks_mut::<3>();
        for three in threes {
            self.side_by_side(decrypt, three);
        }
        for one in rest.as_chunks_mut::<1>().0 {
            self.side_by_side(decrypt, one);
        }
    }

    #[inline]
    fn side_by_side<const N: usize>(&self, decrypt: bool, blocks: &mut [[u8; 8]; N]) {
        let text = blocks.map(u64::from_be_bytes);
        let text = if decrypt { self.schedule.decrypt(text) } else { self.schedule.encrypt(text) };
        *blocks = text.map(u64::to_be_bytes);
    }

    fn ctr(&self, counter: u64, buffer: &mut [u8]) {
        let planes = self.planes(buffer.len().div_ceil(8));
        let mut counter = counter;
        let mut stream = [[0u8; 8]; SPAN];
        for span in buffer.chunks_mut(8 * SPAN) {
            let blocks = &mut stream[..span.len().div_ceil(8)];
            for block in blocks.iter_mut() {
                *block = counter.to_be_bytes();
                counter = counter.wrapping_add(1);
            }
            self.blocks(planes.as_ref(), false, blocks);
            let (whole, tail) = span.as_chunks_mut::<8>();
            for (block, key) in whole.iter_mut().zip(blocks.iter()) {
                *block = (u64::from_ne_bytes(*block) ^ u64::from_ne_bytes(*key)).to_ne_bytes();
            }
            let key = blocks.last().copied().unwrap_or_default();
            for (octet, key) in tail.iter_mut().zip(key) {
                *octet ^= key;
            }
        }
    }

    fn cbc_decrypt(&self, chain: &mut [u8; 8], blocks: &mut [[u8; 8]]) {
        let planes = self.planes(blocks.len());
        let mut before = [[0u8; 8]; SPAN + 1];
        for span in blocks.chunks_mut(SPAN) {
            before[0] = *chain;
            before[1..=span.len()].copy_from_slice(span);
            *chain = before[span.len()];
            self.blocks(planes.as_ref(), true, span);
            for (block, previous) in span.iter_mut().zip(&before) {
                *block = (u64::from_ne_bytes(*block) ^ u64::from_ne_bytes(*previous)).to_ne_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests;
