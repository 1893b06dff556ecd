//! Vectors of 128-bit lanes with AES and carry-less multiplication: one trait, two widths.
//!
//! Owns the only `unsafe` under the AES kernels. The invariant: the trait is implemented by feature
//! tokens alone, so whoever holds an engine may execute its instructions. All methods are
//! `inline(always)`, because an instruction of a feature can only be inlined into a function that
//! has the feature enabled; the entry points in [`super::aes`] and [`super::gcm`] do.

use super::{HaveAesNi, HaveVaes256};
use core::arch::asm;
use core::arch::x86_64::*;
use zeroize::Zeroize;

/// A token together with the instructions it allows, on vectors of [`Engine::LANES`] blocks.
pub(crate) trait Engine: Copy {
    /// The vector register.
    type V: Copy + Zeroize;
    /// As many octets as a vector has.
    type Chunk: Copy;
    /// Blocks of 128 bits per vector.
    const LANES: usize;

    /// Splits a buffer into vectors and the rest.
    fn split(buffer: &mut [u8]) -> (&mut [Self::Chunk], &mut [u8]);

    /// Loads a vector.
    fn load(self, bytes: &Self::Chunk) -> Self::V;
    /// Stores a vector.
    fn store(self, bytes: &mut Self::Chunk, v: Self::V);
    /// All lanes hold `block`.
    fn broadcast(self, block: [u8; 16]) -> Self::V;
    /// Lane `i` holds `blocks[i]`; lanes beyond the width are dropped.
    fn gather(self, blocks: [[u8; 16]; 2]) -> Self::V;
    /// The reverse of [`Self::gather`]; lanes beyond the width are zero.
    fn scatter(self, v: Self::V) -> [[u8; 16]; 2];

    /// Exclusive or.
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;
    /// Adds 32-bit words.
    fn add_32(self, a: Self::V, b: Self::V) -> Self::V;
    /// Adds 64-bit words.
    fn add_64(self, a: Self::V, b: Self::V) -> Self::V;
    /// Reverses the octets of each lane.
    fn reverse(self, a: Self::V) -> Self::V;
    /// Exchanges the halves of each lane.
    fn swap(self, a: Self::V) -> Self::V;
    /// Bitwise and.
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    /// Each lane shifted left by 32 bits.
    fn shift_32(self, a: Self::V) -> Self::V;
    /// Each lane shifted left by 64 bits.
    fn shift_64(self, a: Self::V) -> Self::V;
    /// Each 32-bit word filled with its sign.
    fn signs(self, a: Self::V) -> Self::V;
    /// Words 3, 0, 1, 3 of each lane move to places 0, 1, 2, 3 as GHASH's doubling needs.
    fn rotate_words(self, a: Self::V) -> Self::V;
    /// The upper lanes in the lower half, zeros above.
    fn high_to_low(self, a: Self::V) -> Self::V;
    /// Lane 0 moved to the last lane, zeros in the others.
    fn last_lane(self, a: Self::V) -> Self::V;
    /// The last lane of `before`, then all lanes of `now` but the last.
    fn shift_in(self, before: Self::V, now: Self::V) -> Self::V;
    /// Lane 0, zeros in the others.
    fn low_lane(self, a: Self::V) -> Self::V;

    /// The same value, computed before whatever is pinned next.
    ///
    /// The compiler likes to finish one block's rounds before it begins the next block's, to save
    /// registers, and the processor's window is too small to overlap them again (26 % slower on
    /// Zen 3). Pinning each round's results keeps the blocks in step; it costs no instruction.
    fn pin(self, v: Self::V) -> Self::V;

    /// One middle round of AES encryption.
    fn enc(self, a: Self::V, key: Self::V) -> Self::V;
    /// The last round of AES encryption.
    fn enc_last(self, a: Self::V, key: Self::V) -> Self::V;
    /// One middle round of AES decryption (equivalent inverse cipher).
    fn dec(self, a: Self::V, key: Self::V) -> Self::V;
    /// The last round of AES decryption.
    fn dec_last(self, a: Self::V, key: Self::V) -> Self::V;

    /// Carry-less product of the low halves.
    fn mul_low(self, a: Self::V, b: Self::V) -> Self::V;
    /// Carry-less product of the high halves.
    fn mul_high(self, a: Self::V, b: Self::V) -> Self::V;

    /// Column 3 of the round key in all columns, for the key expansion.
    fn column_3(self, a: Self::V) -> Self::V;
    /// Column 3, its octets rotated, in all columns.
    fn column_3_rotated(self, a: Self::V) -> Self::V;

    /// The exclusive or of all lanes in lane 0, zeros in the others.
    #[inline(always)]
    fn fold(self, a: Self::V) -> Self::V {
        self.low_lane(self.xor(a, self.high_to_low(a)))
    }

    /// Each column becomes the exclusive or of itself and all before it.
    #[inline(always)]
    fn prefix_xor(self, a: Self::V) -> Self::V {
        let b = self.xor(a, self.shift_32(a));
        self.xor(b, self.shift_64(b))
    }

    /// The field element doubled, for GHASH's reflected representation.
    #[inline(always)]
    fn double(self, a: Self::V) -> Self::V {
        let carries = self.and(self.signs(self.rotate_words(a)), self.broadcast(DOUBLE));
        self.xor(self.add_64(a, a), carries)
    }
}

/// Octet order for `pshufb`: the lane reversed.
const REVERSE: [u8; 16] = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];
/// Octet order for `pshufb`: column 3 rotated by one octet, four times.
const COLUMN_3_ROTATED: [u8; 16] = [13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12];
/// x^128 + x^127 + x^126 + x^121 + 1 reflected, and the carry between the halves: see `double`.
const DOUBLE: [u8; 16] = [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc2];

/// [`Engine::pin`] where the compiler knows of the registers.
#[inline]
#[target_feature(enable = "avx")]
fn pin_256(mut v: __m256i) -> __m256i {
    // SAFETY: no instruction; the operand is a register that the feature brings.
    unsafe { asm!("/* {0} */", inout(ymm_reg) v, options(nomem, nostack, preserves_flags)) }
    v
}

macro_rules! wrap {
    ($e:ident: $($name:ident($($arg:ident),*) = $body:expr;)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($arg: Self::V),*) -> Self::V {
                #[allow(unused_variables)]
                let $e = self;
                // SAFETY: `self` proves every feature that this instruction needs.
                unsafe { $body }
            }
        )*
    };
}

impl Engine for HaveAesNi {
    type V = __m128i;
    type Chunk = [u8; 16];
    const LANES: usize = 1;

    #[inline(always)]
    fn split(buffer: &mut [u8]) -> (&mut [[u8; 16]], &mut [u8]) {
        buffer.as_chunks_mut()
    }

    #[inline(always)]
    fn load(self, bytes: &[u8; 16]) -> __m128i {
        // SAFETY: the array has the 16 octets; the load needs no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn pin(self, v: __m128i) -> __m128i {
        let mut v = v;
        // SAFETY: no instruction; the operand is a register that the token allows.
        unsafe { asm!("/* {0} */", inout(xmm_reg) v, options(nomem, nostack, preserves_flags)) }
        v
    }

    #[inline(always)]
    fn store(self, bytes: &mut [u8; 16], v: __m128i) {
        // SAFETY: the array has the 16 octets; the store needs no alignment.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn broadcast(self, block: [u8; 16]) -> __m128i {
        self.load(&block)
    }

    #[inline(always)]
    fn gather(self, blocks: [[u8; 16]; 2]) -> __m128i {
        let [first, _] = blocks;
        self.load(&first)
    }

    #[inline(always)]
    fn scatter(self, v: __m128i) -> [[u8; 16]; 2] {
        let mut first = [0; 16];
        self.store(&mut first, v);
        [first, [0; 16]]
    }

    #[inline(always)]
    fn high_to_low(self, a: __m128i) -> __m128i {
        self.xor(a, a)
    }

    #[inline(always)]
    fn last_lane(self, a: __m128i) -> __m128i {
        a
    }

    #[inline(always)]
    fn shift_in(self, before: __m128i, _now: __m128i) -> __m128i {
        before
    }

    #[inline(always)]
    fn low_lane(self, a: __m128i) -> __m128i {
        a
    }

    wrap! { e:
        xor(a, b) = _mm_xor_si128(a, b);
        add_32(a, b) = _mm_add_epi32(a, b);
        add_64(a, b) = _mm_add_epi64(a, b);
        reverse(a) = _mm_shuffle_epi8(a, e.load(&REVERSE));
        swap(a) = _mm_shuffle_epi32::<0x4e>(a);
        enc(a, key) = _mm_aesenc_si128(a, key);
        enc_last(a, key) = _mm_aesenclast_si128(a, key);
        dec(a, key) = _mm_aesdec_si128(a, key);
        dec_last(a, key) = _mm_aesdeclast_si128(a, key);
        mul_low(a, b) = _mm_clmulepi64_si128::<0x00>(a, b);
        mul_high(a, b) = _mm_clmulepi64_si128::<0x11>(a, b);
        column_3(a) = _mm_shuffle_epi32::<0xff>(a);
        column_3_rotated(a) = _mm_shuffle_epi8(a, e.load(&COLUMN_3_ROTATED));
        and(a, b) = _mm_and_si128(a, b);
        shift_32(a) = _mm_slli_si128::<4>(a);
        shift_64(a) = _mm_slli_si128::<8>(a);
        signs(a) = _mm_srai_epi32::<31>(a);
        rotate_words(a) = _mm_shuffle_epi32::<0xd3>(a);
    }
}

impl Engine for HaveVaes256 {
    type V = __m256i;
    type Chunk = [u8; 32];
    const LANES: usize = 2;

    #[inline(always)]
    fn split(buffer: &mut [u8]) -> (&mut [[u8; 32]], &mut [u8]) {
        buffer.as_chunks_mut()
    }

    #[inline(always)]
    fn load(self, bytes: &[u8; 32]) -> __m256i {
        // SAFETY: the array has the 32 octets; the load needs no alignment; the token has AVX.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn pin(self, v: __m256i) -> __m256i {
        // SAFETY: the token proves AVX.
        unsafe { pin_256(v) }
    }

    #[inline(always)]
    fn store(self, bytes: &mut [u8; 32], v: __m256i) {
        // SAFETY: the array has the 32 octets; the store needs no alignment; the token has AVX.
        unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn broadcast(self, block: [u8; 16]) -> __m256i {
        self.gather([block, block])
    }

    #[inline(always)]
    fn gather(self, blocks: [[u8; 16]; 2]) -> __m256i {
        let [low, high] = blocks;
        // SAFETY: both arrays have the 16 octets that an unaligned load reads; the token has AVX.
        unsafe { _mm256_loadu2_m128i(high.as_ptr().cast(), low.as_ptr().cast()) }
    }

    #[inline(always)]
    fn scatter(self, v: __m256i) -> [[u8; 16]; 2] {
        let (mut low, mut high) = ([0u8; 16], [0u8; 16]);
        // SAFETY: both arrays have the 16 octets that an unaligned store writes.
        unsafe { _mm256_storeu2_m128i(high.as_mut_ptr().cast(), low.as_mut_ptr().cast(), v) }
        [low, high]
    }

    wrap! { e:
        xor(a, b) = _mm256_xor_si256(a, b);
        add_32(a, b) = _mm256_add_epi32(a, b);
        add_64(a, b) = _mm256_add_epi64(a, b);
        reverse(a) = _mm256_shuffle_epi8(a, e.broadcast(REVERSE));
        swap(a) = _mm256_shuffle_epi32::<0x4e>(a);
        shift_in(before, now) = _mm256_permute2x128_si256::<0x21>(before, now);
        last_lane(a) = _mm256_permute2x128_si256::<0x08>(a, a);
        high_to_low(a) = _mm256_permute2x128_si256::<0x81>(a, a);
        low_lane(a) = _mm256_blend_epi32::<0xf0>(a, e.xor(a, a));
        enc(a, key) = _mm256_aesenc_epi128(a, key);
        enc_last(a, key) = _mm256_aesenclast_epi128(a, key);
        dec(a, key) = _mm256_aesdec_epi128(a, key);
        dec_last(a, key) = _mm256_aesdeclast_epi128(a, key);
        mul_low(a, b) = _mm256_clmulepi64_epi128::<0x00>(a, b);
        mul_high(a, b) = _mm256_clmulepi64_epi128::<0x11>(a, b);
        column_3(a) = _mm256_shuffle_epi32::<0xff>(a);
        column_3_rotated(a) = _mm256_shuffle_epi8(a, e.broadcast(COLUMN_3_ROTATED));
        and(a, b) = _mm256_and_si256(a, b);
        shift_32(a) = _mm256_slli_si256::<4>(a);
        shift_64(a) = _mm256_slli_si256::<8>(a);
        signs(a) = _mm256_srai_epi32::<31>(a);
        rotate_words(a) = _mm256_shuffle_epi32::<0xd3>(a);
    }
}
