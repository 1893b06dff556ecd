//! AES, 3DES and Blowfish as fast as the processor allows, for one message, for bulk and in
//! batches.
//!
//! Three doors:
//!
//! - one message or bulk under one key: [`gcm`], [`ctr`], [`cbc`];
//! - the message transform of the legacy suites L1 and L2: [`legacy`];
//! - many independent messages, each under its own key: [`batch`].
//!
//! The backend is chosen once, at run time, from what the processor offers ([`capability`]); each
//! passes a known-answer self-test before its first use. Every backend gives the same octets.
//!
//! Bad input is a value of [`Error`], never a panic. Keys and key schedules are wiped on drop and
//! have no `Debug` that shows them.
//!
//! # Constant time
//!
//! | path | constant time |
//! |---|---|
//! | AES, GHASH on `aes-ni` and `vaes-256` | yes: no secret-dependent branch or address |
//! | AES on `soft` | yes (the `aes` crate is bitsliced, or uses the processor's instructions) |
//! | 3DES CTR and CBC decryption, bitsliced (`portable`, `avx2`) | yes, key set-up included |
//! | 3DES, few blocks or CBC encryption of few messages | **no**: table look-ups |
//! | 3DES on `soft` | **no**: table look-ups |
//! | Blowfish, every path and its key schedule | **no**: its S-boxes are secret tables |
//! | comparison of tags, removal of padding | yes |

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod backend;
pub mod batch;
pub mod capability;
pub mod cbc;
pub mod ctr;
mod error;
pub mod gcm;
pub mod legacy;
pub mod limits;
mod padding;
#[cfg(test)]
mod testing;

pub use capability::Backend;
pub use error::Error;
