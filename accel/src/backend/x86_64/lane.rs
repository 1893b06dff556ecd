//! Many AES messages at once, each under its own key: one message per 128-bit lane.
//!
//! Owns the kernels behind [`crate::batch`]. Key expansion, counter mode, GHASH and CBC run for
//! `8 · LANES` messages side by side, so that nothing waits for the chain inside one message. The
//! invariant: lanes never mix; which lanes are active depends on lengths only, so no branch and no
//! address depends on key or text. Layout: `docs/vaes.md`. Source: FIPS 197, NIST SP 800-38A and
//! 800-38D.

use super::aes::{GROUP, ROUND_CONSTANTS, next};
use super::engine::Engine;
use super::gcm::{GcmKey, Product, lengths, multiply, run};
use super::{HaveAesNi, HaveVaes256};
use crate::backend::aes::{CbcLane, GcmLane};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Round keys of a group: `[round][vector]`, one key per lane.
struct Keys<E: Engine, const R: usize>([[E::V; GROUP]; R]);

impl<E: Engine, const R: usize> Drop for Keys<E, R> {
    fn drop(&mut self) {
        for v in self.0.as_flattened_mut() {
            v.zeroize();
        }
    }
}

/// Longest text that is hashed in its lane; longer ones gain more from aggregated reduction.
const SHORT_MAX: usize = 160;

/// Block `i` of `text`, zero-padded; zeros beyond the end.
#[inline(always)]
fn fetch(text: &[u8], i: usize) -> [u8; 16] {
    let mut block = [0; 16];
    if let Some(rest) = text.get(16 * i..) {
        if let Some(whole) = rest.first_chunk::<16>() {
            return *whole;
        }
        for (to, from) in block.iter_mut().zip(rest) {
            *to = *from;
        }
    }
    block
}

/// Overwrites block `i` of `text` as far as there is one.
#[inline(always)]
fn put(text: &mut [u8], i: usize, block: [u8; 16]) {
    if let Some(rest) = text.get_mut(16 * i..) {
        if let Some(whole) = rest.first_chunk_mut::<16>() {
            *whole = block;
            return;
        }
        for (to, from) in rest.iter_mut().zip(block) {
            *to = from;
        }
    }
}

/// Gathers a block of every lane into vectors.
macro_rules! gather {
    ($e:expr, $lanes:expr, |$lane:ident| $block:expr) => {{
        let mut vectors = [$e.broadcast([0; 16]); GROUP];
        for (v, lanes) in vectors.iter_mut().zip($lanes.chunks(E::LANES)) {
            let mut pair = [[0u8; 16]; 2];
            for (slot, $lane) in pair.iter_mut().zip(lanes) {
                *slot = $block;
            }
            *v = $e.gather(pair);
        }
        vectors
    }};
}

/// Expands one key per lane, all in step.
#[inline(always)]
fn expand<E: Engine, const R: usize>(e: E, low: [E::V; GROUP], high: [E::V; GROUP]) -> Keys<E, R> {
    let mut keys = Keys([low; R]);
    let long = R == 15;
    let (mut even, mut odd) = (low, if long { high } else { low });
    let mut constants = ROUND_CONSTANTS.iter();
    for (round, slot) in keys.0.iter_mut().enumerate() {
        if round == 0 {
            continue;
        }
        if !long {
            let constant = constants.next().copied().unwrap_or(0);
            for v in &mut even {
                *v = e.pin(next(e, *v, e.column_3_rotated(*v), constant));
            }
            *slot = even;
        } else if round == 1 {
            *slot = odd;
        } else if round.is_multiple_of(2) {
            let constant = constants.next().copied().unwrap_or(0);
            for (v, w) in even.iter_mut().zip(&odd) {
                *v = e.pin(next(e, *v, e.column_3_rotated(*w), constant));
            }
            *slot = even;
        } else {
            for (v, w) in odd.iter_mut().zip(&even) {
                *v = e.pin(next(e, *v, e.column_3(*w), 0));
            }
            *slot = odd;
        }
    }
    keys
}

/// Expands the keys of up to a group of messages.
macro_rules! expand_lanes {
    ($e:expr, $lanes:expr) => {{
        let low = gather!($e, $lanes, |lane| fetch(lane.key, 0));
        let high = gather!($e, $lanes, |lane| fetch(lane.key, 1));
        expand::<E, R>($e, low, high)
    }};
}

/// Encrypts one block in every lane.
#[inline(always)]
fn encrypt<E: Engine, const R: usize>(
    e: E,
    keys: &Keys<E, R>,
    mut x: [E::V; GROUP],
) -> [E::V; GROUP] {
    let [first, middle @ .., last] = keys.0.as_slice() else { return x };
    for (v, key) in x.iter_mut().zip(first) {
        *v = e.xor(*v, *key);
    }
    for keys in middle {
        for (v, key) in x.iter_mut().zip(keys) {
            *v = e.pin(e.enc(*v, *key));
        }
    }
    for (v, key) in x.iter_mut().zip(last) {
        *v = e.enc_last(*v, *key);
    }
    x
}

/// The hash of every lane and the key it is multiplied with.
struct Hashes<E: Engine> {
    whole: [E::V; GROUP],
    halves: [E::V; GROUP],
    sum: [E::V; GROUP],
}

impl<E: Engine> Drop for Hashes<E> {
    fn drop(&mut self) {
        for v in self.whole.iter_mut().chain(&mut self.halves) {
            v.zeroize();
        }
    }
}

impl<E: Engine> Hashes<E> {
    #[inline(always)]
    fn new(e: E, hash_keys: [E::V; GROUP]) -> Self {
        let (mut whole, mut halves) = (hash_keys, hash_keys);
        for (w, h) in whole.iter_mut().zip(&mut halves) {
            *w = e.double(e.reverse(*w));
            *h = e.xor(*w, e.swap(*w));
        }
        Self { whole, halves, sum: [e.broadcast([0; 16]); GROUP] }
    }

    /// Takes one block in every lane.
    #[inline(always)]
    fn update(&mut self, e: E, blocks: &[E::V; GROUP]) {
        let keys = self.whole.iter().zip(&self.halves);
        for ((sum, block), (whole, halves)) in self.sum.iter_mut().zip(blocks).zip(keys) {
            let mut product = Product::zero(e);
            product.add(e, e.xor(*sum, e.reverse(*block)), *whole, *halves);
            *sum = product.reduce(e);
        }
    }

    /// Takes one block in the lanes whose mask is all ones.
    #[inline(always)]
    fn update_some(&mut self, e: E, blocks: &[E::V; GROUP], masks: &[E::V; GROUP]) {
        let before = self.sum;
        self.update(e, blocks);
        for ((sum, before), mask) in self.sum.iter_mut().zip(before).zip(masks) {
            *sum = e.xor(before, e.and(e.xor(*sum, before), *mask));
        }
    }
}

/// All ones in the lanes for which the condition holds.
macro_rules! mask {
    ($e:expr, $lanes:expr, |$lane:ident| $condition:expr) => {
        gather!($e, $lanes, |$lane| [if $condition { 0xff } else { 0 }; 16])
    };
}

/// Key set-up in lanes, the messages one after the other: for texts longer than a few blocks.
#[inline(always)]
fn gcm_long<E: Engine, const R: usize>(e: E, lanes: &mut [GcmLane<'_>]) {
    let keys = expand_lanes!(e, lanes);
    let hash_keys = encrypt(e, &keys, [e.broadcast([0; 16]); GROUP]);
    for (v, (pair, hash_key)) in lanes.chunks_mut(E::LANES).zip(hash_keys).enumerate() {
        let powers = powers(e, e.double(e.reverse(hash_key)));
        for (place, lane) in pair.iter_mut().enumerate() {
            let mut schedule = [hash_key; R];
            for (to, keys) in schedule.iter_mut().zip(&keys.0) {
                let from = keys.get(v).copied().unwrap_or(hash_key);
                *to = e.broadcast(pick(e, from, place));
            }
            let mut table = [hash_key; GROUP];
            for (to, some) in table.iter_mut().rev().zip(powers.chunks(E::LANES)) {
                let low = some.last().map_or([0; 16], |power| pick(e, *power, place));
                let high = some.first().map_or([0; 16], |power| pick(e, *power, place));
                *to = e.gather([low, high]);
            }
            let key = GcmKey::<E, R>::from_parts(e, schedule, table);
            let tag = if lane.open {
                run(e, &key, lane.nonce, lane.aad, lane.text, true)
            } else {
                run(e, &key, lane.nonce, lane.aad, lane.text, false)
            };
            settle(lane, tag);
        }
    }
}

/// Lane `place` of a vector.
#[inline(always)]
fn pick<E: Engine>(e: E, v: E::V, place: usize) -> [u8; 16] {
    let [low, high] = e.scatter(v);
    if place == 0 { low } else { high }
}

/// H^1, H^2, ... as many as a group of one key has blocks; those beyond the width stay unused.
#[inline(always)]
fn powers<E: Engine>(e: E, first: E::V) -> [E::V; 2 * GROUP] {
    let mut powers = [first; 2 * GROUP];
    let mut known = 1;
    while known < GROUP * E::LANES {
        let (done, unknown) = powers.split_at_mut(known);
        if let Some(step) = done.last().copied() {
            for (to, from) in unknown.iter_mut().zip(done) {
                *to = multiply(e, *from, step);
            }
        }
        known *= 2;
    }
    powers
}

/// Gives the tag of a sealed message, or the verdict on that of an opened one.
fn settle(lane: &mut GcmLane<'_>, tag: [u8; 16]) {
    if lane.open {
        *lane.good = bool::from(tag.ct_eq(lane.tag));
    } else {
        (*lane.tag, *lane.good) = (tag, true);
    }
}

/// Everything in lanes: for short texts.
#[inline(always)]
fn gcm<E: Engine, const R: usize>(e: E, lanes: &mut [GcmLane<'_>]) {
    let keys = expand_lanes!(e, lanes);
    let mut hashes = Hashes::new(e, encrypt(e, &keys, [e.broadcast([0; 16]); GROUP]));
    let mut counters = gather!(e, lanes, |lane| {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *lane.nonce;
        [a, b, c, d, e, f, g, h, i, j, k, l, 0, 0, 0, 1]
    });
    let tag_masks = encrypt(e, &keys, counters);
    for v in &mut counters {
        *v = e.reverse(*v);
    }
    let aad_len = lanes.iter().map(|lane| lane.aad.len()).max().unwrap_or(0);
    for i in 0..aad_len.div_ceil(16) {
        let blocks = gather!(e, lanes, |lane| fetch(lane.aad, i));
        let masks = mask!(e, lanes, |lane| lane.aad.len() > 16 * i);
        hashes.update_some(e, &blocks, &masks);
    }
    let whole = lanes.iter().map(|lane| lane.text.len() / 16).min().unwrap_or(0);
    let full = lanes.len() == GROUP * E::LANES;
    let same = lanes.iter().all(|lane| lane.open) || lanes.iter().all(|lane| !lane.open);
    let whole = if full && same { whole } else { 0 };
    let open = lanes.first().is_some_and(|lane| lane.open);
    for i in 0..whole {
        let stream = next_stream(e, &keys, &mut counters);
        let mut blocks = gather!(e, lanes, |lane| fetch(lane.text, i));
        if open {
            hashes.update(e, &blocks);
        }
        for (block, stream) in blocks.iter_mut().zip(stream) {
            *block = e.xor(*block, stream);
        }
        for (pair, block) in lanes.chunks_mut(E::LANES).zip(&blocks) {
            for (lane, block) in pair.iter_mut().zip(e.scatter(*block)) {
                put(lane.text, i, block);
            }
        }
        if !open {
            hashes.update(e, &blocks);
        }
    }
    let text_len = lanes.iter().map(|lane| lane.text.len()).max().unwrap_or(0);
    for i in whole..text_len.div_ceil(16) {
        let stream = next_stream(e, &keys, &mut counters);
        let before = gather!(e, lanes, |lane| fetch(lane.text, i));
        for ((pair, block), stream) in lanes.chunks_mut(E::LANES).zip(&before).zip(stream) {
            for (lane, block) in pair.iter_mut().zip(e.scatter(e.xor(*block, stream))) {
                put(lane.text, i, block);
            }
        }
        let after = gather!(e, lanes, |lane| fetch(lane.text, i));
        let opening = mask!(e, lanes, |lane| lane.open);
        let mut blocks = after;
        for ((block, before), mask) in blocks.iter_mut().zip(before).zip(opening) {
            *block = e.xor(*block, e.and(e.xor(*block, before), mask));
        }
        let masks = mask!(e, lanes, |lane| lane.text.len() > 16 * i);
        hashes.update_some(e, &blocks, &masks);
    }
    let last = gather!(e, lanes, |lane| lengths(lane.aad.len(), lane.text.len()));
    hashes.update(e, &last);
    let tags = hashes.sum.iter().zip(tag_masks);
    for (pair, (sum, mask)) in lanes.chunks_mut(E::LANES).zip(tags) {
        for (lane, tag) in pair.iter_mut().zip(e.scatter(e.xor(e.reverse(*sum), mask))) {
            settle(lane, tag);
        }
    }
}

/// Advances every counter and encrypts it.
#[inline(always)]
fn next_stream<E: Engine, const R: usize>(
    e: E,
    keys: &Keys<E, R>,
    counters: &mut [E::V; GROUP],
) -> [E::V; GROUP] {
    let one = e.broadcast(1u128.to_le_bytes());
    let mut x = *counters;
    for (v, counter) in x.iter_mut().zip(counters) {
        *counter = e.add_32(*counter, one);
        *v = e.reverse(*counter);
    }
    encrypt(e, keys, x)
}

#[inline(always)]
fn cbc<E: Engine, const R: usize>(e: E, lanes: &mut [CbcLane<'_>]) {
    let keys = expand_lanes!(e, lanes);
    let mut chain = gather!(e, lanes, |lane| *lane.iv);
    let count = lanes.iter().map(|lane| lane.blocks.len()).max().unwrap_or(0);
    for i in 0..count {
        let blocks = gather!(e, lanes, |lane| lane.blocks.get(i).copied().unwrap_or_default());
        for (v, block) in chain.iter_mut().zip(blocks) {
            *v = e.xor(*v, block);
        }
        chain = encrypt(e, &keys, chain);
        for (pair, v) in lanes.chunks_mut(E::LANES).zip(&chain) {
            for (lane, text) in pair.iter_mut().zip(e.scatter(*v)) {
                if let Some(block) = lane.blocks.get_mut(i) {
                    *block = text;
                }
            }
        }
    }
}

/// Kernels of an engine on at most [`Lanes::COUNT`] messages with keys of one length.
pub(crate) trait Lanes: Copy {
    /// Messages side by side.
    const COUNT: usize;
    /// Seals or opens each message; AES-256 if `long`, else AES-128.
    fn gcm(self, long: bool, lanes: &mut [GcmLane<'_>]);
    /// Encrypts each message.
    fn cbc_encrypt(self, long: bool, lanes: &mut [CbcLane<'_>]);
}

macro_rules! entry {
    ($engine:ty, $features:literal) => {
        impl Lanes for $engine {
            const COUNT: usize = GROUP * <$engine as Engine>::LANES;

            fn gcm(self, long: bool, lanes: &mut [GcmLane<'_>]) {
                #[target_feature(enable = $features)]
                fn inner<const R: usize>(e: $engine, lanes: &mut [GcmLane<'_>]) {
                    if lanes.iter().all(|lane| lane.text.len() <= SHORT_MAX) {
                        gcm::<$engine, R>(e, lanes);
                    } else {
                        gcm_long::<$engine, R>(e, lanes);
                    }
                }
                if long {
                    // SAFETY: the token proves the features.
                    unsafe { inner::<15>(self, lanes) }
                } else {
                    // SAFETY: the token proves the features.
                    unsafe { inner::<11>(self, lanes) }
                }
            }

            fn cbc_encrypt(self, long: bool, lanes: &mut [CbcLane<'_>]) {
                #[target_feature(enable = $features)]
                fn inner<const R: usize>(e: $engine, lanes: &mut [CbcLane<'_>]) {
                    cbc::<$engine, R>(e, lanes);
                }
                if long {
                    // SAFETY: the token proves the features.
                    unsafe { inner::<15>(self, lanes) }
                } else {
                    // SAFETY: the token proves the features.
                    unsafe { inner::<11>(self, lanes) }
                }
            }
        }
    };
}

entry!(HaveAesNi, "aes,pclmulqdq,ssse3,sse4.1,avx");
entry!(HaveVaes256, "aes,pclmulqdq,ssse3,sse4.1,avx,avx2,vaes,vpclmulqdq");
