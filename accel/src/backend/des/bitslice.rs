//! Bitsliced 3DES: one word per bit position, one lane per block, S-boxes as gates.
//!
//! Owns the kernel over any [`Bits`]: portable 64-bit words and AVX2 words use the same circuits
//! (`sbox.rs`, generated from `circuits/`). The invariant: no branch and no address depends on key
//! or text, key set-up included, so these paths are constant time. Layout and mathematics:
//! `docs/bitslice.md`. Source: FIPS 46-3; E. Biham, "A fast new DES implementation in software",
//! 1997.

use super::sbox::{INVERTED, round};
use super::table::{IP, P, PC1, PC2, ROTATIONS};

/// Words of parallel lanes and the gates on them, as methods of a token that allows them.
pub(crate) trait Bits: Copy {
    /// One bit of every lane.
    type W: Copy;
    /// The octets of as many blocks as a word has 64-bit parts.
    type Chunk: Copy;
    /// Blocks per [`Bits::Chunk`]; a group has 64 chunks.
    const PARTS: usize;

    /// Blocks as whole chunks; what is shorter than a chunk is left out.
    fn split(blocks: &mut [[u8; 8]]) -> &mut [Self::Chunk];
    fn load(self, chunk: &Self::Chunk) -> Self::W;
    fn store(self, chunk: &mut Self::Chunk, word: Self::W);
    /// All lanes hold `bit`.
    fn splat(self, bit: bool) -> Self::W;
    fn xor(self, a: Self::W, b: Self::W) -> Self::W;
    fn and(self, a: Self::W, b: Self::W) -> Self::W;
    fn or(self, a: Self::W, b: Self::W) -> Self::W;
    /// `a` and not `b`.
    fn and_not(self, a: Self::W, b: Self::W) -> Self::W;
    /// Exchanges, in every 64-bit part, the bits of `a` under `mask << SHIFT` with those of `b`
    /// under `mask`.
    fn exchange<const SHIFT: i32>(self, a: Self::W, b: Self::W, mask: u64) -> (Self::W, Self::W);
    /// A number, in a general register: without this the compiler gathers the numbers of many key
    /// planes in a vector, only to take them apart again.
    fn number(self, number: u16) -> usize;
    /// [`two_rounds`], never inlined: the halves are to stay in memory, which the gates read for
    /// nothing; as 64 values in a loop they would be copied about.
    fn one_round(
        self,
        l: &mut [Self::W; 32],
        r: &[Self::W; 32],
        key: &[Self::W; 128],
        one: &[u16; 48],
    );
}

/// Portable 64-bit words: 64 lanes.
#[derive(Clone, Copy)]
pub(crate) struct Word64;

impl Bits for Word64 {
    type W = u64;
    type Chunk = [u8; 8];
    const PARTS: usize = 1;

    fn split(blocks: &mut [[u8; 8]]) -> &mut [[u8; 8]] {
        blocks
    }

    #[inline(always)]
    fn load(self, chunk: &[u8; 8]) -> u64 {
        u64::from_le_bytes(*chunk)
    }

    #[inline(always)]
    fn store(self, chunk: &mut [u8; 8], word: u64) {
        *chunk = word.to_le_bytes();
    }

    #[inline(always)]
    fn splat(self, bit: bool) -> u64 {
        u64::from(bit).wrapping_neg()
    }

    #[inline(always)]
    fn xor(self, a: u64, b: u64) -> u64 {
        a ^ b
    }

    #[inline(always)]
    fn and(self, a: u64, b: u64) -> u64 {
        a & b
    }

    #[inline(always)]
    fn or(self, a: u64, b: u64) -> u64 {
        a | b
    }

    #[inline(always)]
    fn and_not(self, a: u64, b: u64) -> u64 {
        a & !b
    }

    #[inline(always)]
    fn exchange<const SHIFT: i32>(self, a: u64, b: u64, mask: u64) -> (u64, u64) {
        let moved = ((a >> SHIFT) ^ b) & mask;
        (a ^ (moved << SHIFT), b ^ moved)
    }

    #[inline(always)]
    fn number(self, number: u16) -> usize {
        number.into()
    }

    #[inline(never)]
    fn one_round(self, l: &mut [u64; 32], r: &[u64; 32], key: &[u64; 128], one: &[u16; 48]) {
        round(self, l, r, key, one);
    }
}

/// The bits of three keys: bit `n` of a key (0 the most significant) at `n`, inverted at `64 + n`.
pub(crate) struct KeyPlanes<B: Bits>([[B::W; 128]; 3]);

/// Blocks of a group.
pub(crate) const fn lanes<B: Bits>() -> usize {
    64 * B::PARTS
}

impl<B: Bits> KeyPlanes<B> {
    /// One key for all lanes, as big-endian numbers.
    #[inline(always)]
    pub(crate) fn broadcast(b: B, keys: &[u64; 3]) -> Self {
        let mut planes = [[b.splat(false); 128]; 3];
        for (planes, key) in planes.iter_mut().zip(keys) {
            let (plain, inverted) = planes.split_at_mut(64);
            for ((n, plain), inverted) in plain.iter_mut().enumerate().zip(inverted) {
                let bit = (key >> (63 - n)) & 1 == 1;
                (*plain, *inverted) = (b.splat(bit), b.splat(!bit));
            }
        }
        Self(planes)
    }

    /// One key triple per lane: `groups[i]` holds key `i` of every lane.
    #[inline(always)]
    pub(crate) fn per_lane(b: B, groups: &[[B::Chunk; 64]; 3]) -> Self {
        let mut planes = [[b.splat(false); 128]; 3];
        for (planes, group) in planes.iter_mut().zip(groups) {
            let bits = load(b, group);
            let (plain, inverted) = planes.split_at_mut(64);
            for ((n, plain), inverted) in plain.iter_mut().enumerate().zip(inverted) {
                let bit = bits[(n ^ 7) & 63];
                (*plain, *inverted) = (bit, b.xor(bit, b.splat(true)));
            }
        }
        Self(planes)
    }

    /// Overwrites the planes.
    #[inline(always)]
    pub(crate) fn wipe(&mut self, b: B) {
        for planes in &mut self.0 {
            *planes = [b.splat(false); 128];
        }
        core::hint::black_box(&mut self.0);
    }
}

/// Encrypts or decrypts a group of blocks in place.
#[inline(always)]
pub(crate) fn crypt<B: Bits>(b: B, keys: &KeyPlanes<B>, decrypt: bool, group: &mut [B::Chunk; 64]) {
    let bits = load(b, group);
    let (mut l, mut r) = ([b.splat(false); 32], [b.splat(false); 32]);
    for (i, word) in l.iter_mut().chain(&mut r).enumerate() {
        // Loads are little-endian in octets, so bit n of the standard is bit n ^ 7 of the load.
        *word = bits[((IP[i & 63] - 1) ^ 7) as usize & 63];
    }
    let [first, second, third] = &keys.0;
    let passes = if decrypt {
        [(third, &BACKWARD), (second, &FORWARD), (first, &BACKWARD)]
    } else {
        [(first, &FORWARD), (second, &BACKWARD), (third, &FORWARD)]
    };
    for (key, schedule) in passes {
        let (rounds, _) = schedule.as_chunks::<2>();
        for [one, two] in rounds {
            b.one_round(&mut l, &r, key, one);
            b.one_round(&mut r, &l, key, two);
        }
        // The inversions of the circuits that have piled up, and the exchange of the halves.
        let ones = b.splat(true);
        for (half, inverted) in [(&mut l, &LAST[0]), (&mut r, &LAST[1])] {
            for (word, inverted) in half.iter_mut().zip(inverted) {
                if *inverted {
                    *word = b.xor(*word, ones);
                }
            }
        }
        core::mem::swap(&mut l, &mut r);
    }
    let mut bits = bits;
    for (i, word) in l.iter().chain(&r).enumerate() {
        bits[((IP[i & 63] - 1) ^ 7) as usize & 63] = *word;
    }
    store(b, group, bits);
}

/// Encrypts or decrypts the leading blocks that fill groups, and a last group of at least `least`
/// blocks, under one key. Returns how many.
#[inline(always)]
pub(crate) fn blocks<B: Bits>(
    b: B,
    planes: &KeyPlanes<B>,
    decrypt: bool,
    least: usize,
    blocks: &mut [[u8; 8]],
) -> usize {
    let bulk = blocks.len() / lanes::<B>() * lanes::<B>();
    let (groups, rest) = blocks.split_at_mut(bulk);
    for group in B::split(groups).as_chunks_mut().0 {
        crypt(b, planes, decrypt, group);
    }
    if rest.len() < least {
        return bulk;
    }
    let mut last = [[0; 8]; LANES_MAX];
    last[..rest.len()].copy_from_slice(rest);
    if let Some(group) = B::split(&mut last).first_chunk_mut() {
        crypt(b, planes, decrypt, group);
    }
    rest.copy_from_slice(&last[..rest.len()]);
    bulk + rest.len()
}

/// Lanes of the widest engine.
pub(crate) const LANES_MAX: usize = 256;

#[inline(always)]
fn load<B: Bits>(b: B, group: &[B::Chunk; 64]) -> [B::W; 64] {
    let mut words = [b.splat(false); 64];
    for (word, chunk) in words.iter_mut().zip(group) {
        *word = b.load(chunk);
    }
    transpose(b, &mut words);
    words
}

#[inline(always)]
fn store<B: Bits>(b: B, group: &mut [B::Chunk; 64], mut words: [B::W; 64]) {
    transpose(b, &mut words);
    for (word, chunk) in words.iter().zip(group) {
        b.store(chunk, *word);
    }
}

/// In every 64-bit part: bit `j` of word `i` becomes bit `i` of word `j`.
///
/// Two passes of three exchanges on eight words each: what fits in registers at once.
#[inline(always)]
fn transpose<B: Bits>(b: B, words: &mut [B::W; 64]) {
    for k in 0..8 {
        let mut eight = [words[k]; 8];
        for (i, word) in eight.iter_mut().enumerate() {
            *word = words[(k + 8 * i) & 63];
        }
        step::<B, 32, 4>(b, &mut eight, 0x0000_0000_ffff_ffff);
        step::<B, 16, 2>(b, &mut eight, 0x0000_ffff_0000_ffff);
        step::<B, 8, 1>(b, &mut eight, 0x00ff_00ff_00ff_00ff);
        for (i, word) in eight.iter().enumerate() {
            words[(k + 8 * i) & 63] = *word;
        }
    }
    for eight in words.as_chunks_mut::<8>().0 {
        step::<B, 4, 4>(b, eight, 0x0f0f_0f0f_0f0f_0f0f);
        step::<B, 2, 2>(b, eight, 0x3333_3333_3333_3333);
        step::<B, 1, 1>(b, eight, 0x5555_5555_5555_5555);
    }
}

#[inline(always)]
fn step<B: Bits, const SHIFT: i32, const DISTANCE: usize>(b: B, words: &mut [B::W; 8], mask: u64) {
    for part in words.chunks_exact_mut(2 * DISTANCE) {
        let (low, high) = part.split_at_mut(DISTANCE);
        for (x, y) in low.iter_mut().zip(high) {
            (*x, *y) = b.exchange::<SHIFT>(*x, *y, mask);
        }
    }
}

/// Which key plane meets each S-box input, by round, when encrypting.
///
/// Entries are plane numbers times 32: that is the offset of a plane of AVX2 words, which saves
/// the shift.
static FORWARD: [[u16; 48]; 16] = schedule(false);
/// The same when decrypting.
static BACKWARD: [[u16; 48]; 16] = schedule(true);

/// Whether the words of the left and right half are inverted after sixteen rounds.
const LAST: [[bool; 32]; 2] = inversions(16);

/// Whether each word of the half that a round changes, and of the other, is inverted before it.
///
/// An S-box circuit may give an output inverted; the inversion stays in the state and is undone
/// by an inverted key bit, so it costs no gate.
const fn inversions(rounds: usize) -> [[bool; 32]; 2] {
    let mut halves = [[false; 32]; 2];
    let mut round = 0;
    while round < rounds {
        let mut place = 0;
        while place < 32 {
            let source = P[place] as usize - 1;
            halves[round % 2][place] ^= INVERTED[source / 4][source % 4];
            place += 1;
        }
        round += 1;
    }
    halves
}

const fn schedule(decrypt: bool) -> [[u16; 48]; 16] {
    let mut rounds = [[0; 48]; 16];
    let mut round = 0;
    while round < 16 {
        let inverted = inversions(round)[(round + 1) % 2];
        let turns = ROTATIONS[if decrypt { 15 - round } else { round }] as usize;
        let mut input = 0;
        while input < 48 {
            let place = PC2[input] as usize - 1;
            let half = place / 28 * 28;
            let source = half + (place - half + turns) % 28;
            // Expansion E: six inputs per box, beginning one bit before its four.
            let half_bit = (input / 6 * 4 + input % 6 + 31) % 32;
            let plane = PC1[source] - 1;
            rounds[round][input] =
                32 * (if inverted[half_bit] { plane + 64 } else { plane }) as u16;
            input += 1;
        }
        round += 1;
    }
    rounds
}
