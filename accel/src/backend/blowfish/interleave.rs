//! Blowfish in portable code, several blocks or keys at a time.
//!
//! Owns [`State`], one key schedule. One Blowfish round waits for four dependent look-ups; a
//! processor can make them for several independent blocks meanwhile, so the kernels take `N` blocks
//! side by side: under one key ([`State::encrypt`]), or each under its own ([`encrypt_each`],
//! [`schedule`]). **Not constant time**: the tables are read at secret addresses.

use super::pi;
use zeroize::Zeroize;

/// The P-array and S-boxes of one key.
#[derive(Clone)]
pub(crate) struct State {
    s: [[u32; 256]; 4],
    p: [u32; 18],
}

impl Drop for State {
    fn drop(&mut self) {
        // Through the wide words of the compiler's memset, then pinned: 4 KiB octet by octet would
        // cost as much as encrypting a message.
        self.s = [[0; 256]; 4];
        self.p.zeroize();
        core::hint::black_box(&mut self.s);
    }
}

/// Left and right half of a block.
pub(crate) type Halves = [u32; 2];

/// A block as halves.
#[inline(always)]
pub(crate) fn halves(block: [u8; 8]) -> Halves {
    let block = u64::from_be_bytes(block);
    [(block >> 32) as u32, block as u32]
}

/// Halves as a block.
#[inline(always)]
pub(crate) fn block([l, r]: Halves) -> [u8; 8] {
    (u64::from(l) << 32 | u64::from(r)).to_be_bytes()
}

impl State {
    #[inline(always)]
    fn f(&self, half: u32) -> u32 {
        let [d, c, b, a] = half.to_le_bytes().map(usize::from);
        let sum = self.s[0][a].wrapping_add(self.s[1][b]);
        (sum ^ self.s[2][c]).wrapping_add(self.s[3][d])
    }

    /// Encrypts `N` blocks side by side.
    #[inline(always)]
    pub(crate) fn encrypt<const N: usize>(&self, mut x: [Halves; N]) -> [Halves; N] {
        let (pairs, _) = self.p.as_chunks::<2>();
        for [l, _] in &mut x {
            *l ^= self.p[0];
        }
        for i in 0..8 {
            let (odd, even) = (self.p[2 * i + 1], pairs[i + 1][0]);
            for [l, r] in &mut x {
                *r ^= self.f(*l) ^ odd;
            }
            for [l, r] in &mut x {
                *l ^= self.f(*r) ^ even;
            }
        }
        x.map(|[l, r]| [r ^ self.p[17], l])
    }

    /// Decrypts `N` blocks side by side.
    #[inline(always)]
    pub(crate) fn decrypt<const N: usize>(&self, mut x: [Halves; N]) -> [Halves; N] {
        for [l, _] in &mut x {
            *l ^= self.p[17];
        }
        for i in (0..8).rev() {
            let (even, odd) = (self.p[2 * i + 2], self.p[2 * i + 1]);
            for [l, r] in &mut x {
                *r ^= self.f(*l) ^ even;
            }
            for [l, r] in &mut x {
                *l ^= self.f(*r) ^ odd;
            }
        }
        x.map(|[l, r]| [r ^ self.p[0], l])
    }
}

/// Encrypts one block under each key.
#[inline(always)]
pub(crate) fn encrypt_each<const N: usize>(
    states: &[&State; N],
    mut x: [Halves; N],
) -> [Halves; N] {
    for (state, [l, _]) in states.iter().zip(&mut x) {
        *l ^= state.p[0];
    }
    for i in 0..8 {
        for (state, [l, r]) in states.iter().zip(&mut x) {
            *r ^= state.f(*l) ^ state.p[2 * i + 1];
        }
        for (state, [l, r]) in states.iter().zip(&mut x) {
            *l ^= state.f(*r) ^ state.p[2 * i + 2];
        }
    }
    for (state, [l, r]) in states.iter().zip(&mut x) {
        (*l, *r) = (*r ^ state.p[17], *l);
    }
    x
}

/// Keys whose schedules run side by side.
pub(crate) const SCHEDULES: usize = 4;

/// Runs the key schedules of `N` keys, each of 4 to 56 octets, side by side.
pub(crate) fn schedule<const N: usize>(keys: [&[u8]; N]) -> [Box<State>; N] {
    let mut states = keys.map(|key| {
        let mut state = Box::new(State { s: pi::S, p: pi::P });
        let mut octets = key.iter().cycle();
        for word in &mut state.p {
            let mut four = [0; 4];
            for (octet, key) in four.iter_mut().zip(octets.by_ref()) {
                *octet = *key;
            }
            *word ^= u32::from_be_bytes(four);
        }
        state
    });
    let mut x = [[0; 2]; N];
    for i in 0..9 {
        x = encrypt_each(&states.each_ref().map(AsRef::as_ref), x);
        for (state, [l, r]) in states.iter_mut().zip(x) {
            (state.p[2 * i], state.p[2 * i + 1]) = (l, r);
        }
    }
    for table in 0..4 {
        for i in 0..128 {
            x = encrypt_each(&states.each_ref().map(AsRef::as_ref), x);
            for (state, [l, r]) in states.iter_mut().zip(x) {
                (state.s[table][2 * i], state.s[table][2 * i + 1]) = (l, r);
            }
        }
    }
    states
}
