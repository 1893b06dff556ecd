//! AES key expansion, counter mode and CBC on any [`Engine`].
//!
//! Owns [`Schedule`] (round keys of one key in every lane), [`CbcKey`] and the counter kernel.
//! The invariant: no branch and no address depends on key or text. Source: FIPS 197, NIST SP
//! 800-38A.

use super::engine::Engine;
use super::{HaveAesNi, HaveVaes256};
use zeroize::Zeroize;

/// Vectors processed side by side in bulk: enough to cover the latency of an AES round.
pub(crate) const GROUP: usize = 8;

/// Round keys in every lane: `R` is 11 for AES-128 and 15 for AES-256.
pub(crate) struct Schedule<E: Engine, const R: usize>(pub(crate) [E::V; R]);

impl<E: Engine, const R: usize> Drop for Schedule<E, R> {
    fn drop(&mut self) {
        for key in &mut self.0 {
            key.zeroize();
        }
    }
}

/// Expands one AES-128 key per lane.
#[inline(always)]
pub(crate) fn expand_128<E: Engine>(e: E, key: E::V) -> Schedule<E, 11> {
    let mut keys = [key; 11];
    let mut last = key;
    for (slot, constant) in keys.iter_mut().skip(1).zip(ROUND_CONSTANTS) {
        last = next(e, last, e.column_3_rotated(last), constant);
        *slot = last;
    }
    Schedule(keys)
}

/// Expands one AES-256 key per lane, given as its halves.
#[inline(always)]
pub(crate) fn expand_256<E: Engine>(e: E, low: E::V, high: E::V) -> Schedule<E, 15> {
    let mut keys = [low; 15];
    let (mut even, mut odd) = (low, high);
    let (pairs, last) = keys.as_chunks_mut::<2>();
    for (i, (pair, constant)) in pairs.iter_mut().zip(ROUND_CONSTANTS).enumerate() {
        if i > 0 {
            odd = next(e, odd, e.column_3(even), 0);
        }
        *pair = [even, odd];
        even = next(e, even, e.column_3_rotated(odd), constant);
    }
    for slot in last {
        *slot = even;
    }
    Schedule(keys)
}

/// One round key from the one a key length before and the column that drives it. All columns of
/// `driver` are equal, so the row shift in `enc_last` moves nothing and leaves SubWord.
#[inline(always)]
pub(super) fn next<E: Engine>(e: E, previous: E::V, driver: E::V, constant: u8) -> E::V {
    let mut round = [0u8; 16];
    for word in round.as_chunks_mut::<4>().0 {
        *word = [constant, 0, 0, 0];
    }
    e.xor(e.prefix_xor(previous), e.enc_last(driver, e.broadcast(round)))
}

pub(super) const ROUND_CONSTANTS: [u8; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 27, 54];

/// A key in the form that expansion starts from.
pub(crate) trait Expand<E: Engine, const R: usize> {
    /// Expands the key into every lane.
    fn expand(&self, e: E) -> Schedule<E, R>;
}

impl<E: Engine> Expand<E, 11> for [u8; 16] {
    #[inline(always)]
    fn expand(&self, e: E) -> Schedule<E, 11> {
        expand_128(e, e.broadcast(*self))
    }
}

impl<E: Engine> Expand<E, 15> for [u8; 32] {
    #[inline(always)]
    fn expand(&self, e: E) -> Schedule<E, 15> {
        let (halves, _) = self.as_chunks::<16>();
        match halves {
            [low, high] => expand_256(e, e.broadcast(*low), e.broadcast(*high)),
            _ => expand_256(e, e.broadcast([0; 16]), e.broadcast([0; 16])),
        }
    }
}

/// Encrypts `N` vectors side by side.
#[inline(always)]
pub(crate) fn encrypt<E: Engine, const R: usize, const N: usize>(
    e: E,
    keys: &[E::V; R],
    mut x: [E::V; N],
) -> [E::V; N] {
    let [first, middle @ .., last] = keys.as_slice() else { return x };
    for v in &mut x {
        *v = e.xor(*v, *first);
    }
    for key in middle {
        for v in &mut x {
            *v = e.pin(e.enc(*v, *key));
        }
    }
    for v in &mut x {
        *v = e.enc_last(*v, *last);
    }
    x
}

/// Decrypts `N` vectors side by side with the keys of the equivalent inverse cipher.
#[inline(always)]
fn decrypt<E: Engine, const R: usize, const N: usize>(
    e: E,
    keys: &[E::V; R],
    mut x: [E::V; N],
) -> [E::V; N] {
    let [first, middle @ .., last] = keys.as_slice() else { return x };
    for v in &mut x {
        *v = e.xor(*v, *first);
    }
    for key in middle {
        for v in &mut x {
            *v = e.pin(e.dec(*v, *key));
        }
    }
    for v in &mut x {
        *v = e.dec_last(*v, *last);
    }
    x
}

/// The counter blocks `counter ..` as a vector, most significant octet first.
#[inline(always)]
fn counters<E: Engine>(e: E, counter: u128) -> E::V {
    e.gather([counter.to_be_bytes(), counter.wrapping_add(1).to_be_bytes()])
}

/// Counter mode with a 128-bit counter that the caller has checked not to wrap.
#[inline(always)]
fn ctr<E: Engine, const R: usize>(e: E, keys: &[E::V; R], counter: u128, buffer: &mut [u8]) {
    let mut counter = counter;
    let (chunks, tail) = E::split(buffer);
    let (groups, rest) = chunks.as_chunks_mut::<GROUP>();
    let step = e.gather([E::LANES as u128, E::LANES as u128].map(u128::to_le_bytes));
    for group in groups {
        let mut x = [e.broadcast([0; 16]); GROUP];
        if (counter as u64).checked_add((GROUP * E::LANES) as u64).is_some() {
            let mut little = e.reverse(counters(e, counter));
            for v in &mut x {
                *v = e.reverse(little);
                little = e.add_64(little, step);
            }
        } else {
            for (i, v) in (0u128..).zip(&mut x) {
                *v = counters(e, counter.wrapping_add(i * E::LANES as u128));
            }
        }
        let x = encrypt(e, keys, x);
        for (chunk, v) in group.iter_mut().zip(x) {
            e.store(chunk, e.xor(e.load(chunk), v));
        }
        counter = counter.wrapping_add((GROUP * E::LANES) as u128);
    }
    ctr_tail(e, keys, counter, rest, tail);
}

/// The last vectors, fewer than a group, and the last octets, fewer than a vector.
#[inline(always)]
fn ctr_tail<E: Engine, const R: usize>(
    e: E,
    keys: &[E::V; R],
    counter: u128,
    rest: &mut [E::Chunk],
    tail: &mut [u8],
) {
    if rest.is_empty() && tail.is_empty() {
        return;
    }
    if rest.len() < 4 {
        ctr_some::<E, R, 4>(e, keys, counter, rest, tail);
    } else {
        ctr_some::<E, R, GROUP>(e, keys, counter, rest, tail);
    }
}

#[inline(always)]
fn ctr_some<E: Engine, const R: usize, const N: usize>(
    e: E,
    keys: &[E::V; R],
    counter: u128,
    rest: &mut [E::Chunk],
    tail: &mut [u8],
) {
    let mut x = [e.broadcast([0; 16]); N];
    for (i, v) in (0u128..).zip(&mut x) {
        *v = counters(e, counter.wrapping_add(i * E::LANES as u128));
    }
    let x = encrypt(e, keys, x);
    let mut stream = x.iter();
    for (chunk, v) in rest.iter_mut().zip(stream.by_ref()) {
        e.store(chunk, e.xor(e.load(chunk), *v));
    }
    if let Some(v) = stream.next() {
        let octets = e.scatter(*v);
        for (octet, key) in tail.iter_mut().zip(octets.as_flattened()) {
            *octet ^= key;
        }
    }
}

/// Inverse round keys from the forward ones.
#[inline(always)]
fn invert<E: Engine, const R: usize>(e: E, forward: &Schedule<E, R>) -> Schedule<E, R> {
    let zero = e.broadcast([0; 16]);
    let mut keys = forward.0;
    keys.reverse();
    if let [_, middle @ .., _] = keys.as_mut_slice() {
        for key in middle {
            // The last encryption round substitutes, the decryption round substitutes back and
            // mixes: what is left is the inverse MixColumns that the equivalent cipher wants (the
            // two row shifts cancel as well).
            *key = e.dec(e.enc_last(*key, zero), zero);
        }
    }
    Schedule(keys)
}

/// Decrypts groups of vectors, then what is left.
#[inline(always)]
fn cbc_decrypt<E: Engine, const R: usize>(
    e: E,
    keys: &[E::V; R],
    chain: &mut [u8; 16],
    blocks: &mut [[u8; 16]],
) {
    let bulk = blocks.len() / (GROUP * E::LANES) * (GROUP * E::LANES);
    let (bulk, rest) = blocks.split_at_mut(bulk);
    let (groups, _) = E::split(bulk.as_flattened_mut()).0.as_chunks_mut::<GROUP>();
    // The vector of blocks before each vector: shifted by one block, the first from the chain.
    let mut carried = e.last_lane(e.gather([*chain, [0; 16]]));
    for group in groups {
        let mut x = [carried; GROUP];
        let mut before = [carried; GROUP];
        for ((chunk, v), w) in group.iter().zip(&mut x).zip(&mut before) {
            *v = e.load(chunk);
            *w = e.shift_in(carried, *v);
            carried = *v;
        }
        for ((chunk, v), w) in group.iter_mut().zip(decrypt(e, keys, x)).zip(before) {
            e.store(chunk, e.xor(v, w));
        }
    }
    if !bulk.is_empty() {
        let [low, high] = e.scatter(carried);
        *chain = if E::LANES == 1 { low } else { high };
    }
    if rest.len() <= 4 * E::LANES {
        cbc_decrypt_rest::<E, R, 4>(e, keys, chain, rest);
    } else {
        cbc_decrypt_rest::<E, R, GROUP>(e, keys, chain, rest);
    }
}

/// At most `N` vectors of blocks.
#[inline(always)]
fn cbc_decrypt_rest<E: Engine, const R: usize, const N: usize>(
    e: E,
    keys: &[E::V; R],
    chain: &mut [u8; 16],
    blocks: &mut [[u8; 16]],
) {
    let Some(last) = blocks.last().copied() else { return };
    let (chunks, tail) = E::split(blocks.as_flattened_mut());
    let mut carried = e.last_lane(e.gather([*chain, [0; 16]]));
    *chain = last;
    let mut x = [carried; N];
    let mut before = [carried; N];
    for ((chunk, v), w) in chunks.iter().zip(&mut x).zip(&mut before) {
        *v = e.load(chunk);
        *w = e.shift_in(carried, *v);
        carried = *v;
    }
    // An odd block is alone in its vector.
    let odd = chunks.len();
    if let (false, Some(v), Some(w)) = (tail.is_empty(), x.get_mut(odd), before.get_mut(odd)) {
        *v = e.gather([last, [0; 16]]);
        *w = e.shift_in(carried, *v);
    }
    let x = decrypt(e, keys, x);
    let mut texts = x.into_iter().zip(before);
    for (chunk, (v, w)) in chunks.iter_mut().zip(texts.by_ref()) {
        e.store(chunk, e.xor(v, w));
    }
    if let (Some(block), Some((v, w))) = (tail.first_chunk_mut(), texts.next()) {
        [*block, _] = e.scatter(e.xor(v, w));
    }
}

/// CBC encryption is one chain: one lane of one vector works.
#[inline(always)]
fn cbc_encrypt<E: Engine, const R: usize>(
    e: E,
    keys: &[E::V; R],
    chain: &mut [u8; 16],
    blocks: &mut [[u8; 16]],
) {
    let mut last = e.broadcast(*chain);
    for block in blocks {
        [last] = encrypt(e, keys, [e.xor(last, e.broadcast(*block))]);
        let [first, _] = e.scatter(last);
        *block = first;
        *chain = first;
    }
}

/// A key for counter mode and CBC.
pub(crate) struct Key<E: Engine, const R: usize> {
    engine: E,
    forward: Schedule<E, R>,
    inverse: Schedule<E, R>,
}

macro_rules! entry {
    ($engine:ty, $features:literal) => {
        impl<const R: usize> Key<$engine, R> {
            pub(crate) fn new(engine: $engine, key: &impl Expand<$engine, R>) -> Self {
                #[target_feature(enable = $features)]
                fn inner<const R: usize>(
                    e: $engine,
                    key: &impl Expand<$engine, R>,
                ) -> (Schedule<$engine, R>, Schedule<$engine, R>) {
                    let forward = key.expand(e);
                    let inverse = invert(e, &forward);
                    (forward, inverse)
                }
                // SAFETY: the token proves the features.
                let (forward, inverse) = unsafe { inner(engine, key) };
                Self { engine, forward, inverse }
            }

            pub(crate) fn ctr(&self, counter: u128, buffer: &mut [u8]) {
                #[target_feature(enable = $features)]
                fn inner<const R: usize>(key: &Key<$engine, R>, counter: u128, buffer: &mut [u8]) {
                    ctr(key.engine, &key.forward.0, counter, buffer);
                }
                // SAFETY: the token in `self` proves the features.
                unsafe { inner(self, counter, buffer) }
            }

            pub(crate) fn cbc_encrypt(&self, chain: &mut [u8; 16], blocks: &mut [[u8; 16]]) {
                #[target_feature(enable = $features)]
                fn inner<const R: usize>(
                    key: &Key<$engine, R>,
                    chain: &mut [u8; 16],
                    blocks: &mut [[u8; 16]],
                ) {
                    cbc_encrypt(key.engine, &key.forward.0, chain, blocks);
                }
                // SAFETY: the token in `self` proves the features.
                unsafe { inner(self, chain, blocks) }
            }

            pub(crate) fn cbc_decrypt(&self, chain: &mut [u8; 16], blocks: &mut [[u8; 16]]) {
                #[target_feature(enable = $features)]
                fn inner<const R: usize>(
                    key: &Key<$engine, R>,
                    chain: &mut [u8; 16],
                    blocks: &mut [[u8; 16]],
                ) {
                    cbc_decrypt(key.engine, &key.inverse.0, chain, blocks);
                }
                // SAFETY: the token in `self` proves the features.
                unsafe { inner(self, chain, blocks) }
            }
        }
    };
}

entry!(HaveAesNi, "aes,pclmulqdq,ssse3,sse4.1,avx");
entry!(HaveVaes256, "aes,pclmulqdq,ssse3,sse4.1,avx,avx2,vaes,vpclmulqdq");
