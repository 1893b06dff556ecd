//! Blowfish engines: one key schedule on one backend.
//!
//! Owns the dispatch and the modes over the interleaved kernels. No Blowfish path is constant time:
//! the S-boxes are secret tables. Source: B. Schneier, "Description of a New Variable-Length Key,
//! 64-Bit Block Cipher", 1993.

#![expect(
    clippy::indexing_slicing,
    reason = "indices are octets, masked or loop counters below the constant length of an array"
)]

pub(crate) mod interleave;
pub(crate) mod lane;
mod pi;

use super::soft::{self, Key as _};
use crate::capability::Mask;
use crate::{Backend, Error, limits};
use interleave::{State, block, halves, schedule};

/// The Blowfish implementation to use.
#[derive(Clone, Copy)]
pub(crate) enum Choice {
    Soft,
    Portable,
}

impl Choice {
    pub(crate) fn backend(self) -> Backend {
        match self {
            Self::Soft => Backend::Soft,
            Self::Portable => Backend::Portable,
        }
    }

    /// Every implementation that can run here, best first.
    pub(crate) fn all(_mask: &Mask) -> Vec<Self> {
        vec![Self::Portable, Self::Soft]
    }
}

/// An expanded Blowfish key.
pub(crate) enum Blowfish {
    Soft(Box<::blowfish::Blowfish>),
    Own(Box<State>),
}

/// Does the same to groups of six blocks, then of four, two and one: six hide the latency of the
/// look-ups best, and eight blocks are better done as four and four than as six and two.
macro_rules! abreast {
    ($blocks:expr, |$group:ident| $work:expr) => {
        let len = $blocks.len();
        let sixes = if matches!(len % 6, 2 | 3) && len >= 8 { len / 6 - 1 } else { len / 6 } * 6;
        let (sixes, rest) = $blocks.split_at_mut(sixes);
        for $group in sixes.as_chunks_mut::<6>().0 {
            $work;
        }
        let (fours, rest) = rest.as_chunks_mut::<4>();
        for $group in fours {
            $work;
        }
        let (twos, rest) = rest.as_chunks_mut::<2>();
        for $group in twos {
            $work;
        }
        for $group in rest.as_chunks_mut::<1>().0 {
            $work;
        }
    };
}

/// Refuses keys that Blowfish does not take.
///
/// # Errors
/// [`Error::KeyLength`] unless `key` has 4 to 56 octets.
pub(crate) fn check_key(key: &[u8]) -> Result<(), Error> {
    let good = (limits::BLOWFISH_KEY_MIN..=limits::BLOWFISH_KEY_MAX).contains(&key.len());
    if good { Ok(()) } else { Err(Error::KeyLength) }
}

impl Blowfish {
    pub(crate) fn new(choice: Choice, key: &[u8]) -> Result<Self, Error> {
        check_key(key)?;
        match choice {
            Choice::Soft => Ok(Self::Soft(Box::new(::blowfish::Blowfish::expand(key)?))),
            Choice::Portable => {
                let [state] = schedule([key]);
                Ok(Self::Own(state))
            }
        }
    }

    pub(crate) fn ctr(&self, counter: u64, buffer: &mut [u8]) {
        match self {
            Self::Soft(key) => soft::ctr_64(key.as_ref(), counter, buffer),
            Self::Own(key) => ctr(key, counter, buffer),
        }
    }

    pub(crate) fn cbc_encrypt(&self, chain: &mut [u8; 8], blocks: &mut [[u8; 8]]) {
        match self {
            Self::Soft(key) => soft::cbc_encrypt(key.as_ref(), chain, blocks),
            Self::Own(key) => {
                let [mut l, mut r] = halves(*chain);
                for text in blocks {
                    let [a, b] = halves(*text);
                    [[l, r]] = key.encrypt([[l ^ a, r ^ b]]);
                    *text = block([l, r]);
                }
                *chain = block([l, r]);
            }
        }
    }

    pub(crate) fn cbc_decrypt(&self, chain: &mut [u8; 8], blocks: &mut [[u8; 8]]) {
        match self {
            Self::Soft(key) => soft::cbc_decrypt(key.as_ref(), chain, blocks),
            Self::Own(key) => cbc_decrypt(key, chain, blocks),
        }
    }
}

#[inline(always)]
fn decrypt_chained<const N: usize>(key: &State, chain: &mut [u8; 8], group: &mut [[u8; 8]; N]) {
    let texts = key.decrypt(group.map(halves));
    for (text, [l, r]) in group.iter_mut().zip(texts) {
        let [a, b] = halves(*chain);
        *chain = *text;
        *text = block([l ^ a, r ^ b]);
    }
}

pub(crate) fn cbc_decrypt(key: &State, chain: &mut [u8; 8], blocks: &mut [[u8; 8]]) {
    abreast!(blocks, |group| decrypt_chained(key, chain, group));
}

pub(crate) fn ctr(key: &State, counter: u64, buffer: &mut [u8]) {
    let mut counter = counter;
    let (blocks, tail) = buffer.as_chunks_mut::<8>();
    abreast!(blocks, |group| counter = ctr_group(key, counter, group));
    if !tail.is_empty() {
        let [stream] = key.encrypt([halves(counter.to_be_bytes())]);
        for (octet, key) in tail.iter_mut().zip(block(stream)) {
            *octet ^= key;
        }
    }
}

#[inline(always)]
fn ctr_group<const N: usize>(key: &State, counter: u64, group: &mut [[u8; 8]; N]) -> u64 {
    let mut stream = [[0; 2]; N];
    let mut next = counter;
    for slot in &mut stream {
        *slot = halves(next.to_be_bytes());
        next = next.wrapping_add(1);
    }
    for (text, [l, r]) in group.iter_mut().zip(key.encrypt(stream)) {
        let [a, b] = halves(*text);
        *text = block([l ^ a, r ^ b]);
    }
    next
}

#[cfg(test)]
mod tests;
