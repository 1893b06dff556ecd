//! 3DES one block at a time with tables: for single streams, which can not be bitsliced.
//!
//! Owns [`Schedule`], the round keys of three keys. **Not constant time**: eight tables of 2 KiB
//! are
//! read at addresses that depend on key and text. Halves are kept rotated right by one, so that
//! each S-box input is the upper six bits of an octet of the half, or of the half rotated by four;
//! the tables have 256 entries, so that no masking is needed. Source: FIPS 46-3.

use super::table::{P, PC1, PC2, ROTATIONS, substitute};
use zeroize::Zeroize;

/// Round keys: three keys of sixteen rounds, each for the even S-boxes above the odd ones.
pub(crate) struct Schedule([[u64; 16]; 3]);

impl Drop for Schedule {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Schedule {
    pub(crate) fn new(keys: &[u64; 3]) -> Self {
        Self(keys.map(expand))
    }

    /// Encrypts `N` blocks side by side, given as big-endian numbers.
    #[inline]
    pub(crate) fn encrypt<const N: usize>(&self, blocks: [u64; N]) -> [u64; N] {
        let [first, second, third] = &self.0;
        let halves = blocks.map(initial);
        let halves = pass(halves, first.iter());
        let halves = pass(halves, second.iter().rev());
        let halves = pass(halves, third.iter());
        halves.map(last)
    }

    /// Decrypts `N` blocks side by side, given as big-endian numbers.
    #[inline]
    pub(crate) fn decrypt<const N: usize>(&self, blocks: [u64; N]) -> [u64; N] {
        let [first, second, third] = &self.0;
        let halves = blocks.map(initial);
        let halves = pass(halves, third.iter().rev());
        let halves = pass(halves, second.iter());
        let halves = pass(halves, first.iter().rev());
        halves.map(last)
    }
}

/// Sixteen rounds; the halves come back exchanged, as the next pass or the end wants them.
#[inline(always)]
fn pass<'a, const N: usize>(
    mut halves: [(u64, u64); N],
    mut keys: impl Iterator<Item = &'a u64>,
) -> [(u64, u64); N] {
    while let (Some(one), Some(two)) = (keys.next(), keys.next()) {
        for (l, r) in &mut halves {
            *l = round(*l, *r, *one);
        }
        for (l, r) in &mut halves {
            *r = round(*r, *l, *two);
        }
    }
    halves.map(|(l, r)| (r, l))
}

/// The changed half. Each half is kept twice in one word, the upper copy rotated by four for the
/// even boxes, and the tables hold both forms: nothing but one exclusive or, one shift and one
/// look-up lies between two rounds.
#[inline(always)]
fn round(l: u64, r: u64, key: u64) -> u64 {
    let [g, e, c, a, h, f, d, b] = (r ^ key).to_le_bytes().map(usize::from);
    // The boxes change disjoint bits, so that or, plus and exclusive or are the same here. Mixed
    // they make a tree; eight exclusive ors would be compiled to a chain (15 % slower).
    let first = (SP[0][a] | SP[2][c]).wrapping_add(SP[4][e] | SP[6][g]);
    let second = (SP[1][b] | SP[3][d]).wrapping_add(SP[5][f] | SP[7][h]);
    (l ^ first) ^ second
}

/// A half, rotated right by one, in both forms.
const fn both(half: u32) -> u64 {
    let half = half.rotate_right(1);
    (half.rotate_left(4) as u64) << 32 | half as u64
}

/// Exchanges bits of two words: those of `a` under `mask << shift` with those of `b` under `mask`.
#[inline(always)]
fn exchange(a: u32, b: u32, shift: u32, mask: u32) -> (u32, u32) {
    let moved = ((a >> shift) ^ b) & mask;
    (a ^ (moved << shift), b ^ moved)
}

/// The initial permutation; the halves in both forms.
#[inline(always)]
fn initial(block: u64) -> (u64, u64) {
    let (l, r) = ((block >> 32) as u32, block as u32);
    let (l, r) = exchange(l, r, 4, 0x0f0f_0f0f);
    let (l, r) = exchange(l, r, 16, 0x0000_ffff);
    let (r, l) = exchange(r, l, 2, 0x3333_3333);
    let (r, l) = exchange(r, l, 8, 0x00ff_00ff);
    let (l, r) = exchange(l, r, 1, 0x5555_5555);
    (both(l), both(r))
}

/// The inverse of [`initial`].
#[inline(always)]
fn last((l, r): (u64, u64)) -> u64 {
    let (l, r) = ((l as u32).rotate_left(1), (r as u32).rotate_left(1));
    let (l, r) = exchange(l, r, 1, 0x5555_5555);
    let (r, l) = exchange(r, l, 8, 0x00ff_00ff);
    let (r, l) = exchange(r, l, 2, 0x3333_3333);
    let (l, r) = exchange(l, r, 16, 0x0000_ffff);
    let (l, r) = exchange(l, r, 4, 0x0f0f_0f0f);
    u64::from(l) << 32 | u64::from(r)
}

/// S-box and permutation P in one table per box, the result in both forms.
static SP: [[u64; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut number = 0;
    while number < 8 {
        let mut octet = 0;
        while octet < 256 {
            let four = substitute(number, octet >> 2);
            let mut place = 0;
            let mut word = 0u32;
            while place < 32 {
                let source = P[place] as usize - 1;
                if source / 4 == number && (four >> (3 - source % 4)) & 1 == 1 {
                    word |= 0x8000_0000 >> place;
                }
                place += 1;
            }
            tables[number][octet] = both(word);
            octet += 1;
        }
        number += 1;
    }
    tables
};

/// Where seven bits of C or D go in a round key: `[octet][value]`, the four octets of C (seven bits
/// each), then those of D; the two words of the round key side by side, even boxes above.
static CHOICE: [[u64; 128]; 8] = {
    let mut tables = [[0u64; 128]; 8];
    let mut bit = 0;
    while bit < 48 {
        let source = PC2[bit] as usize - 1;
        let (number, place) = (bit / 6, bit % 6);
        // S-box 1 is the upper octet of the odd word, 2 of the even word, and so on.
        let octet = 3 - number / 2;
        let shift = octet * 8 + 7 - place + if number.is_multiple_of(2) { 0 } else { 32 };
        let mut value = 0;
        while value < 128 {
            if (value >> (6 - source % 7)) & 1 == 1 {
                tables[source / 7][value] |= 1 << shift;
            }
            value += 1;
        }
        bit += 1;
    }
    tables
};

/// Where an octet of the key goes in C and D: `[octet][value]`, C in bits 55 to 28, D below.
static PERMUTED: [[u64; 256]; 8] = {
    let mut tables = [[0u64; 256]; 8];
    let mut place = 0;
    while place < 56 {
        let source = PC1[place] as usize - 1;
        let mut value = 0;
        while value < 256 {
            if (value >> (7 - source % 8)) & 1 == 1 {
                tables[source / 8][value] |= 1 << (55 - place);
            }
            value += 1;
        }
        place += 1;
    }
    tables
};

fn expand(key: u64) -> [u64; 16] {
    let octets = PERMUTED.iter().zip(key.to_be_bytes());
    let both = octets.fold(0, |sum, (table, octet)| sum | table[usize::from(octet)]);
    let (c, d) = ((both >> 28) as u32, (both & 0x0fff_ffff) as u32);
    ROTATIONS.map(|count| {
        let turn = |half: u32| ((half << count) | (half >> (28 - count))) & 0x0fff_ffff;
        let (c, d) = (turn(c), turn(d));
        let sevens = [c >> 21, c >> 14, c >> 7, c, d >> 21, d >> 14, d >> 7, d];
        let sevens = CHOICE.iter().zip(sevens);
        sevens.fold(0, |sum, (table, seven)| sum | table[(seven & 127) as usize])
    })
}
