//! The errors of this crate: whose fault a refusal is, and what state the buffers are in.
//!
//! Owns one closed list; no variant carries a string, a key or message octets. Every function says
//! in its own documentation which variants it returns and what became of the buffer.

use core::fmt;

/// Why an operation was refused or failed.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Error {
    /// Misbehaved: the tag does not fit key, nonce, associated data and ciphertext. No plaintext
    /// was released.
    Authentication,
    /// Resource: the key of a cipher with 64-bit blocks has reached its budget
    /// ([`crate::limits::BLOCKS_64_MAX`] unless chosen otherwise). The buffer is untouched.
    Budget,
    /// Misuse: the counter would pass its largest value and repeat key stream. The buffer is
    /// untouched.
    CounterExhausted,
    /// Misuse: a key, or a slice taken for a key, has a length that the cipher does not know.
    KeyLength,
    /// Misuse: the length is not a multiple of the block. The buffer is untouched.
    Length,
    /// Malformed: the text is too short, or not whole blocks, to be what it claims to be.
    Malformed,
    /// Misuse: the result of a job was asked for before the batch ran.
    NotRun,
    /// Malformed: the padding under an authentic (or unauthenticated) CBC text is not PKCS#7.
    Padding,
    /// Resource: the text is longer than the algorithm or this crate allows. The buffer is
    /// untouched.
    TooLong,
    /// Incompatible: this processor lacks the backend, a mask hides it, or its self-test failed.
    Unavailable,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authentication => "the authentication tag does not match",
            Self::Budget => "the key has reached its volume limit",
            Self::CounterExhausted => "the block counter would wrap",
            Self::KeyLength => "the key has a length the cipher does not know",
            Self::Length => "the length is not a multiple of the block",
            Self::Malformed => "the ciphertext is too short or not whole blocks",
            Self::NotRun => "the batch has not run yet",
            Self::Padding => "the padding is not PKCS#7",
            Self::TooLong => "the text is longer than the algorithm allows",
            Self::Unavailable => "this backend is not available on this processor",
        })
    }
}

impl core::error::Error for Error {}
