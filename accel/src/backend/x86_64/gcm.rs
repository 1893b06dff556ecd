//! AES-GCM on any [`Engine`]: counter mode and GHASH interleaved, one reduction per group.
//!
//! Owns [`GcmKey`]: round keys and the powers of the hash key. Each loop pass encrypts
//! [`GROUP`] vectors while it hashes the [`GROUP`] before them, with three carry-less products per
//! vector (Karatsuba) and one reduction for all. The invariant: no branch and no address depends
//! on key or text. Mathematics and layout: `docs/vaes.md`. Source: NIST SP 800-38D.

use super::aes::{Expand, GROUP, Schedule, encrypt};
use super::engine::Engine;
use super::{HaveAesNi, HaveVaes256};
use crate::Error;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// One AES-GCM key.
pub(crate) struct GcmKey<E: Engine, const R: usize> {
    engine: E,
    schedule: Schedule<E, R>,
    powers: Powers<E>,
}

impl<E: Engine, const R: usize> GcmKey<E, R> {
    /// A key from round keys and descending powers of the hash key, in the order of [`Powers`].
    #[inline(always)]
    pub(super) fn from_parts(engine: E, keys: [E::V; R], powers: [E::V; GROUP]) -> Self {
        let powers = Powers::from_whole(engine, powers);
        Self { engine, schedule: Schedule(keys), powers }
    }
}

/// Descending powers of the hash key: lane `l` of vector `v` holds H^(8·LANES - v·LANES - l).
struct Powers<E: Engine> {
    /// The powers, doubled for the reflected representation.
    whole: [E::V; GROUP],
    /// Low half xor high half of each power, for Karatsuba's middle product.
    halves: [E::V; GROUP],
}

impl<E: Engine> Drop for Powers<E> {
    fn drop(&mut self) {
        for v in self.whole.iter_mut().chain(&mut self.halves) {
            v.zeroize();
        }
    }
}

/// An unreduced sum of products: low, middle (Karatsuba) and high parts.
#[derive(Clone, Copy)]
pub(crate) struct Product<E: Engine>([E::V; 3]);

impl<E: Engine> Product<E> {
    #[inline(always)]
    pub(crate) fn zero(e: E) -> Self {
        Self([e.broadcast([0; 16]); 3])
    }

    /// Adds x·h.
    #[inline(always)]
    pub(crate) fn add(&mut self, e: E, x: E::V, whole: E::V, halves: E::V) {
        let [low, middle, high] = self.0;
        self.0 = [
            e.xor(low, e.mul_low(x, whole)),
            e.xor(middle, e.mul_low(e.xor(x, e.swap(x)), halves)),
            e.xor(high, e.mul_high(x, whole)),
        ];
    }

    /// Reduces modulo the polynomial of GHASH, lane by lane: two folds of 64 bits.
    #[inline(always)]
    pub(crate) fn reduce(self, e: E) -> E::V {
        let polynomial = e.broadcast(POLYNOMIAL);
        let [low, middle, high] = self.0;
        let middle = e.xor(e.xor(middle, low), high);
        let middle = e.xor(middle, e.xor(e.swap(low), e.mul_low(low, polynomial)));
        e.xor(high, e.xor(e.swap(middle), e.mul_low(middle, polynomial)))
    }
}

/// x^63 + x^62 + x^57 reflected: the constant that folds 64 bits.
const POLYNOMIAL: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0xc2];

/// Product of two field elements, lane by lane; `y` is doubled.
#[inline(always)]
pub(crate) fn multiply<E: Engine>(e: E, x: E::V, y: E::V) -> E::V {
    let mut product = Product::zero(e);
    product.add(e, x, y, e.xor(y, e.swap(y)));
    product.reduce(e)
}

impl<E: Engine> Powers<E> {
    /// From the hash key H = AES(0) in every lane.
    #[inline(always)]
    fn new(e: E, hash_key: E::V) -> Self {
        // Both operands doubled would give 2·2·H^2; the reduction takes one factor away, so that
        // a product of doubled elements is again a doubled element.
        let first = e.double(e.reverse(hash_key));
        let mut step = multiply(e, first, first);
        // The last vector holds H^LANES .. H^1.
        let mut last = first;
        if E::LANES == 1 {
            step = first;
        } else {
            let ([one, _], [two, _]) = (e.scatter(first), e.scatter(step));
            last = e.gather([two, one]);
        }
        // Each pass doubles the number of vectors: times H^LANES, times H^2LANES, times H^4LANES.
        let mut whole = [last; GROUP];
        let mut known = 1;
        while known < GROUP {
            let (unknown, done) = whole.split_at_mut(GROUP - known);
            for (to, from) in unknown.iter_mut().rev().zip(done.iter().rev()) {
                *to = multiply(e, *from, step);
            }
            step = multiply(e, step, step);
            known *= 2;
        }
        Self::from_whole(e, whole)
    }

    /// Completes the table from the powers.
    #[inline(always)]
    fn from_whole(e: E, whole: [E::V; GROUP]) -> Self {
        let mut halves = whole;
        for h in &mut halves {
            *h = e.xor(*h, e.swap(*h));
        }
        Self { whole, halves }
    }
}

/// Adds a group of vectors, each times its power, the running hash added to the first.
#[inline(always)]
fn hash_group<E: Engine>(e: E, powers: &Powers<E>, hash: E::V, group: &[E::Chunk; GROUP]) -> E::V {
    let mut product = Product::zero(e);
    let mut carried = hash;
    for ((chunk, whole), halves) in group.iter().zip(&powers.whole).zip(&powers.halves) {
        let x = e.xor(carried, e.reverse(e.load(chunk)));
        carried = e.broadcast([0; 16]);
        product.add(e, x, *whole, *halves);
    }
    e.fold(product.reduce(e))
}

/// Hashes `head`, then `last`: 1 to `GROUP · LANES` whole blocks with one reduction.
#[inline(always)]
fn hash_blocks<E: Engine>(
    e: E,
    powers: &Powers<E>,
    hash: E::V,
    head: &[[u8; 16]],
    last: &[[u8; 16]],
) -> E::V {
    let mut product = Product::zero(e);
    let mut blocks = head.iter().chain(last);
    let count = head.len() + last.len();
    let skip = GROUP.saturating_sub(count.div_ceil(E::LANES));
    let mut table = powers.whole.iter().zip(&powers.halves).skip(skip);
    let mut carried = hash;
    if !count.is_multiple_of(E::LANES)
        && let (Some(first), Some((whole, halves))) = (blocks.next(), table.next())
    {
        // An odd block goes alone into the last lane; the lane before it counts for nothing.
        let x = e.xor(e.last_lane(hash), e.reverse(e.gather([[0; 16], *first])));
        product.add(e, x, *whole, *halves);
        carried = e.broadcast([0; 16]);
    }
    for (whole, halves) in table {
        let Some(first) = blocks.next() else { break };
        let second = if E::LANES == 1 { first } else { blocks.next().unwrap_or(first) };
        let x = e.xor(carried, e.reverse(e.gather([*first, *second])));
        carried = e.broadcast([0; 16]);
        product.add(e, x, *whole, *halves);
    }
    e.fold(product.reduce(e))
}

/// Hashes `text`, zero-padded to whole blocks.
#[inline(always)]
fn hash_padded<E: Engine>(e: E, powers: &Powers<E>, hash: E::V, text: &[u8]) -> E::V {
    let mut hash = hash;
    let (blocks, tail) = text.as_chunks::<16>();
    let bulk = blocks.len() / (GROUP * E::LANES) * (GROUP * E::LANES);
    let (bulk, rest) = blocks.split_at(bulk);
    for some in bulk.chunks(GROUP * E::LANES) {
        hash = hash_blocks(e, powers, hash, some, &[]);
    }
    let mut last = [[0; 16]];
    copy(last.as_flattened_mut(), tail);
    let last: &[[u8; 16]] = if tail.is_empty() { &[] } else { &last };
    if rest.is_empty() && last.is_empty() {
        return hash;
    }
    hash_blocks(e, powers, hash, rest, last)
}

/// Counter vectors: the nonce with a 32-bit counter, kept least significant octet first.
#[derive(Clone, Copy)]
struct Counter<E: Engine> {
    next: E::V,
    step: E::V,
}

impl<E: Engine> Counter<E> {
    /// Lane `l` of the first vector holds counter `first + l`.
    #[inline(always)]
    fn new(e: E, nonce: &[u8; 12], first: u32) -> Self {
        let block = |counter: u32| {
            let [a, b, c, d, e, f, g, h, i, j, k, l] = *nonce;
            let [m, n, o, p] = counter.to_be_bytes();
            [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
        };
        let next = e.reverse(e.gather([block(first), block(first.wrapping_add(1))]));
        let step = e.gather([(E::LANES as u128).to_le_bytes(); 2]);
        Self { next, step }
    }

    #[inline(always)]
    fn take(&mut self, e: E) -> E::V {
        let now = e.reverse(self.next);
        self.next = e.add_32(self.next, self.step);
        now
    }
}

/// Encrypts the next `GROUP` counters; meanwhile hashes `group` if there is one.
#[inline(always)]
fn stream_and_hash<E: Engine, const R: usize>(
    e: E,
    key: &GcmKey<E, R>,
    counter: &mut Counter<E>,
    hash: E::V,
    group: &[E::Chunk; GROUP],
) -> ([E::V; GROUP], E::V) {
    let mut x = [hash; GROUP];
    let [first, middle @ .., last] = key.schedule.0.as_slice() else { return (x, hash) };
    for v in &mut x {
        *v = e.xor(counter.take(e), *first);
    }
    let mut product = Product::zero(e);
    let mut carried = hash;
    let mut table = group.iter().zip(&key.powers.whole).zip(&key.powers.halves);
    for round in middle {
        for v in &mut x {
            *v = e.pin(e.enc(*v, *round));
        }
        if let Some(((chunk, whole), halves)) = table.next() {
            let y = e.xor(carried, e.reverse(e.load(chunk)));
            carried = e.broadcast([0; 16]);
            product.add(e, y, *whole, *halves);
        }
    }
    for v in &mut x {
        *v = e.enc_last(*v, *last);
    }
    (x, e.fold(product.reduce(e)))
}

#[inline(always)]
fn apply<E: Engine>(e: E, group: &mut [E::Chunk; GROUP], stream: [E::V; GROUP]) {
    for (chunk, v) in group.iter_mut().zip(stream) {
        e.store(chunk, e.xor(e.load(chunk), v));
    }
}

/// The tag's last block: lengths of associated data and text in bits.
pub(super) fn lengths(aad_len: usize, text_len: usize) -> [u8; 16] {
    ((aad_len as u128 * 8) << 64 | (text_len as u128 * 8)).to_be_bytes()
}

/// Encrypts or decrypts the last octets, fewer than a group, hashes them with the lengths, and
/// returns the tag. `N` vectors of key stream reach, one more is the tag's mask.
#[inline(always)]
fn finish<E: Engine, const R: usize, const N: usize>(
    e: E,
    key: &GcmKey<E, R>,
    mut counter: Counter<E>,
    hash: E::V,
    tail: &mut [u8],
    state: &Tail<'_>,
) -> [u8; 16] {
    let mut x = [hash; N];
    let [mask, stream @ ..] = x.as_mut_slice() else { return [0; 16] };
    *mask = Counter::<E>::new(e, state.nonce, 1).take(e);
    for v in stream {
        *v = counter.take(e);
    }
    let x = encrypt(e, &key.schedule.0, x);
    let [mask, stream @ ..] = x.as_slice() else { return [0; 16] };
    let mut hash = hash;
    if state.open {
        hash = hash_tail(e, key, hash, tail, state);
    }
    let mut stream = stream.iter();
    let (chunks, octets) = E::split(tail);
    for (chunk, v) in chunks.iter_mut().zip(stream.by_ref()) {
        e.store(chunk, e.xor(e.load(chunk), *v));
    }
    if let (false, Some(v)) = (octets.is_empty(), stream.next()) {
        let mut last = [[0u8; 16]; 2];
        copy(last.as_flattened_mut(), octets);
        last = e.scatter(e.xor(e.gather(last), *v));
        copy(octets, last.as_flattened());
        last = [[0; 16]; 2];
        core::hint::black_box(&mut last);
    }
    if !state.open {
        hash = hash_tail(e, key, hash, tail, state);
    }
    let ([tag, _], [mask, _]) = (e.scatter(e.reverse(hash)), e.scatter(*mask));
    (u128::from_le_bytes(tag) ^ u128::from_le_bytes(mask)).to_le_bytes()
}

/// Hashes the last ciphertext, zero-padded, and the lengths.
#[inline(always)]
fn hash_tail<E: Engine, const R: usize>(
    e: E,
    key: &GcmKey<E, R>,
    hash: E::V,
    tail: &[u8],
    state: &Tail<'_>,
) -> E::V {
    let (blocks, octets) = tail.as_chunks::<16>();
    if octets.is_empty() {
        return hash_blocks(e, &key.powers, hash, blocks, &[state.lengths]);
    }
    let mut last = [[0; 16], state.lengths];
    copy(last.as_flattened_mut(), octets);
    if blocks.len() + 2 <= GROUP * E::LANES {
        return hash_blocks(e, &key.powers, hash, blocks, &last);
    }
    let [partial, lengths] = last;
    let hash = hash_blocks(e, &key.powers, hash, blocks, &[partial]);
    hash_blocks(e, &key.powers, hash, &[], &[lengths])
}

/// Copies as many octets as both have.
#[inline(always)]
fn copy(to: &mut [u8], from: &[u8]) {
    let len = to.len().min(from.len());
    if let (Some(to), Some(from)) = (to.get_mut(..len), from.get(..len)) {
        to.copy_from_slice(from);
    }
}

/// What the end of a message needs besides the key.
struct Tail<'a> {
    nonce: &'a [u8; 12],
    lengths: [u8; 16],
    open: bool,
}

/// Seals or opens one message and returns the right tag.
#[inline(always)]
pub(super) fn run<E: Engine, const R: usize>(
    e: E,
    key: &GcmKey<E, R>,
    nonce: &[u8; 12],
    aad: &[u8],
    buffer: &mut [u8],
    open: bool,
) -> [u8; 16] {
    let state = Tail { nonce, lengths: lengths(aad.len(), buffer.len()), open };
    let mut hash = hash_padded(e, &key.powers, e.broadcast([0; 16]), aad);
    let mut counter = Counter::<E>::new(e, nonce, 2);
    let bulk = buffer.len() / (16 * GROUP * E::LANES) * (16 * GROUP * E::LANES);
    let (body, tail) = buffer.split_at_mut(bulk);
    let (groups, _) = E::split(body).0.as_chunks_mut::<GROUP>();
    if open {
        for group in groups {
            let (stream, next) = stream_and_hash(e, key, &mut counter, hash, group);
            hash = next;
            apply(e, group, stream);
        }
    } else if let Some((first, rest)) = groups.split_first_mut() {
        let mut x = [hash; GROUP];
        for v in &mut x {
            *v = counter.take(e);
        }
        apply(e, first, encrypt(e, &key.schedule.0, x));
        let mut before = first;
        for group in rest {
            let (stream, next) = stream_and_hash(e, key, &mut counter, hash, before);
            hash = next;
            apply(e, group, stream);
            before = group;
        }
        hash = hash_group(e, &key.powers, hash, before);
    }
    if tail.len() <= 32 * E::LANES {
        finish::<E, R, 3>(e, key, counter, hash, tail, &state)
    } else if tail.len() <= 64 * E::LANES {
        finish::<E, R, 5>(e, key, counter, hash, tail, &state)
    } else {
        finish::<E, R, 9>(e, key, counter, hash, tail, &state)
    }
}

macro_rules! entry {
    ($engine:ty, $features:literal) => {
        impl<const R: usize> GcmKey<$engine, R> {
            pub(crate) fn new(engine: $engine, key: &impl Expand<$engine, R>) -> Self {
                #[target_feature(enable = $features)]
                fn inner<const R: usize>(
                    e: $engine,
                    key: &impl Expand<$engine, R>,
                ) -> GcmKey<$engine, R> {
                    let schedule = key.expand(e);
                    let [hash_key] = encrypt(e, &schedule.0, [e.broadcast([0; 16])]);
                    GcmKey { engine: e, schedule, powers: Powers::new(e, hash_key) }
                }
                // SAFETY: the token proves the features.
                unsafe { inner(engine, key) }
            }

            fn run(&self, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8], open: bool) -> [u8; 16] {
                #[target_feature(enable = $features)]
                fn seal<const R: usize>(
                    key: &GcmKey<$engine, R>,
                    nonce: &[u8; 12],
                    aad: &[u8],
                    buffer: &mut [u8],
                ) -> [u8; 16] {
                    run(key.engine, key, nonce, aad, buffer, false)
                }
                #[target_feature(enable = $features)]
                fn unseal<const R: usize>(
                    key: &GcmKey<$engine, R>,
                    nonce: &[u8; 12],
                    aad: &[u8],
                    buffer: &mut [u8],
                ) -> [u8; 16] {
                    run(key.engine, key, nonce, aad, buffer, true)
                }
                if open {
                    // SAFETY: the token in `self` proves the features.
                    unsafe { unseal(self, nonce, aad, buffer) }
                } else {
                    // SAFETY: the token in `self` proves the features.
                    unsafe { seal(self, nonce, aad, buffer) }
                }
            }

            pub(crate) fn seal(&self, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> [u8; 16] {
                self.run(nonce, aad, buffer, false)
            }

            /// Decrypts while it hashes; after a wrong tag the caller wipes `buffer`.
            pub(crate) fn open(
                &self,
                nonce: &[u8; 12],
                aad: &[u8],
                buffer: &mut [u8],
                tag: &[u8; 16],
            ) -> Result<(), Error> {
                let ours = self.run(nonce, aad, buffer, true);
                if bool::from(ours.ct_eq(tag)) { Ok(()) } else { Err(Error::Authentication) }
            }
        }
    };
}

entry!(HaveAesNi, "aes,pclmulqdq,ssse3,sse4.1,avx");
entry!(HaveVaes256, "aes,pclmulqdq,ssse3,sse4.1,avx,avx2,vaes,vpclmulqdq");
