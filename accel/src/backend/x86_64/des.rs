//! Bitsliced 3DES in AVX2 words: 256 lanes.
//!
//! Owns the gates on 256-bit words and the entry points; the kernel is
//! [`crate::backend::des::bitslice`]. The invariant: constant time, as the kernel.

use super::HaveAvx2;
use crate::backend::des::bitslice::{Bits, KeyPlanes, blocks, crypt};
use crate::backend::des::sbox::round;
use core::arch::asm;
use core::arch::x86_64::*;

macro_rules! wrap {
    ($($name:ident($($arg:ident),*) = $body:expr;)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($arg: __m256i),*) -> __m256i {
                // SAFETY: `self` proves AVX2.
                unsafe { $body }
            }
        )*
    };
}

impl Bits for HaveAvx2 {
    type W = __m256i;
    type Chunk = [[u8; 8]; 4];
    const PARTS: usize = 4;

    #[inline(always)]
    fn split(blocks: &mut [[u8; 8]]) -> &mut [[[u8; 8]; 4]] {
        blocks.as_chunks_mut().0
    }

    #[inline(always)]
    fn load(self, chunk: &[[u8; 8]; 4]) -> __m256i {
        // SAFETY: the array has the 32 octets; the load needs no alignment; the token has AVX2.
        unsafe { _mm256_loadu_si256(chunk.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, chunk: &mut [[u8; 8]; 4], word: __m256i) {
        // SAFETY: the array has the 32 octets; the store needs no alignment; the token has AVX2.
        unsafe { _mm256_storeu_si256(chunk.as_mut_ptr().cast(), word) }
    }

    #[inline(always)]
    fn splat(self, bit: bool) -> __m256i {
        // SAFETY: the token has AVX2.
        unsafe { _mm256_set1_epi64x(i64::from(bit).wrapping_neg()) }
    }

    wrap! {
        xor(a, b) = _mm256_xor_si256(a, b);
        and(a, b) = _mm256_and_si256(a, b);
        or(a, b) = _mm256_or_si256(a, b);
        and_not(a, b) = _mm256_andnot_si256(b, a);
    }

    #[inline(always)]
    fn exchange<const SHIFT: i32>(self, a: __m256i, b: __m256i, mask: u64) -> (__m256i, __m256i) {
        // SAFETY: the token has AVX2.
        let mask = unsafe { _mm256_set1_epi64x(mask.cast_signed()) };
        let moved = self.and(self.xor(self.right::<SHIFT>(a), b), mask);
        (self.xor(a, self.left::<SHIFT>(moved)), self.xor(b, moved))
    }

    #[inline(always)]
    fn number(self, number: u16) -> usize {
        let mut number = usize::from(number);
        // SAFETY: no instruction.
        unsafe {
            asm!("/* {0} */", inout(reg) number, options(pure, nomem, nostack, preserves_flags))
        }
        number
    }

    #[inline(always)]
    fn one_round(
        self,
        l: &mut [__m256i; 32],
        r: &[__m256i; 32],
        key: &[__m256i; 128],
        one: &[u16; 48],
    ) {
        #[inline(never)]
        #[target_feature(enable = "avx2")]
        fn inner(
            have: HaveAvx2,
            l: &mut [__m256i; 32],
            r: &[__m256i; 32],
            key: &[__m256i; 128],
            one: &[u16; 48],
        ) {
            round(have, l, r, key, one);
        }
        // SAFETY: the token proves AVX2.
        unsafe { inner(self, l, r, key, one) }
    }
}

impl HaveAvx2 {
    #[inline(always)]
    fn right<const SHIFT: i32>(self, a: __m256i) -> __m256i {
        // SAFETY: the token has AVX2.
        unsafe { _mm256_srli_epi64::<SHIFT>(a) }
    }

    #[inline(always)]
    fn left<const SHIFT: i32>(self, a: __m256i) -> __m256i {
        // SAFETY: the token has AVX2.
        unsafe { _mm256_slli_epi64::<SHIFT>(a) }
    }

    /// Turns one key triple into planes, the same in every lane.
    pub(crate) fn des_key(self, keys: &[u64; 3]) -> Box<KeyPlanes<Self>> {
        #[target_feature(enable = "avx2")]
        fn inner(have: HaveAvx2, keys: &[u64; 3]) -> Box<KeyPlanes<HaveAvx2>> {
            Box::new(KeyPlanes::broadcast(have, keys))
        }
        // SAFETY: the token proves AVX2.
        unsafe { inner(self, keys) }
    }

    /// [`blocks`] with AVX2.
    pub(crate) fn des_blocks(
        self,
        planes: &KeyPlanes<Self>,
        decrypt: bool,
        least: usize,
        text: &mut [[u8; 8]],
    ) -> usize {
        #[target_feature(enable = "avx2")]
        fn inner(
            have: HaveAvx2,
            planes: &KeyPlanes<HaveAvx2>,
            decrypt: bool,
            least: usize,
            text: &mut [[u8; 8]],
        ) -> usize {
            blocks(have, planes, decrypt, least, text)
        }
        // SAFETY: the token proves AVX2.
        unsafe { inner(self, planes, decrypt, least, text) }
    }

    /// Turns one key triple per lane into planes.
    pub(crate) fn des_keys(self, keys: &[[[[u8; 8]; 4]; 64]; 3]) -> Box<KeyPlanes<Self>> {
        #[target_feature(enable = "avx2")]
        fn inner(have: HaveAvx2, keys: &[[[[u8; 8]; 4]; 64]; 3]) -> Box<KeyPlanes<HaveAvx2>> {
            Box::new(KeyPlanes::per_lane(have, keys))
        }
        // SAFETY: the token proves AVX2.
        unsafe { inner(self, keys) }
    }

    /// Encrypts or decrypts one group, each lane under its own key.
    pub(crate) fn des_lanes(
        self,
        planes: &KeyPlanes<Self>,
        decrypt: bool,
        group: &mut [[[u8; 8]; 4]; 64],
    ) {
        #[target_feature(enable = "avx2")]
        fn inner(
            have: HaveAvx2,
            planes: &KeyPlanes<HaveAvx2>,
            decrypt: bool,
            group: &mut [[[u8; 8]; 4]; 64],
        ) {
            crypt(have, planes, decrypt, group);
        }
        // SAFETY: the token proves AVX2.
        unsafe { inner(self, planes, decrypt, group) }
    }

    /// Overwrites planes.
    pub(crate) fn des_wipe(self, planes: &mut KeyPlanes<Self>) {
        #[target_feature(enable = "avx2")]
        fn inner(have: HaveAvx2, planes: &mut KeyPlanes<HaveAvx2>) {
            planes.wipe(have);
        }
        // SAFETY: the token proves AVX2.
        unsafe { inner(self, planes) }
    }
}
