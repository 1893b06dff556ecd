//! Named limits: how much one key, one call and one batch may process.
//!
//! Owns the constants only; the modules that enforce them say what happens at the limit.

/// Longest AES-GCM text in octets: 2^32 - 2 blocks. Longer: [`crate::Error::TooLong`].
///
/// Source: NIST SP 800-38D §5.2.1.1.
pub const GCM_TEXT_MAX: u64 = ((1 << 32) - 2) * 16;

/// Longest associated data in octets (2^61 - 1). Longer: [`crate::Error::TooLong`].
///
/// Source: NIST SP 800-38D §5.2.1.1.
pub const GCM_AAD_MAX: u64 = (1 << 61) - 1;

/// Blocks that one key of a cipher with 64-bit blocks encrypts before [`crate::Error::Budget`]:
/// 2^20 blocks, 8 MiB, far below the birthday bound of 2^32.
///
/// Source: NIST SP 800-67 rev. 2 §3.3; CIM/1 §7 sets the same figure for L suites.
pub const BLOCKS_64_MAX: u64 = 1 << 20;

/// Longest plaintext of one L1 or L2 message in octets: one padding block below the budget of its
/// key. Longer: [`crate::Error::TooLong`].
pub const LEGACY_TEXT_MAX: usize = (BLOCKS_64_MAX as usize - 1) * 8;

/// Shortest Blowfish key in octets (32 bits).
pub const BLOWFISH_KEY_MIN: usize = 4;

/// Longest Blowfish key in octets (448 bits).
pub const BLOWFISH_KEY_MAX: usize = 56;

const _: () = assert!(BLOCKS_64_MAX * 8 <= 8 << 20);
const _: () = assert!(LEGACY_TEXT_MAX.is_multiple_of(8));
