//! Counter mode over AES, 3DES and Blowfish: bulk key stream with random access by block.
//!
//! Owns the public types only. The invariant: a call never wraps its counter, so one call never
//! repeats key stream; that two calls do not overlap is the caller's duty. Counter mode does not
//! authenticate. Ciphers with 64-bit blocks charge every block to the budget of the key. Source:
//! NIST SP 800-38A §6.5
//! with the whole block as a big-endian counter.

use crate::backend::{aes::Aes, blowfish, budget::Budget, des};
use crate::{Backend, Error, capability, limits};

macro_rules! aes_ctr {
    ($name:ident, $key_len:literal, $make:ident, $bits:literal) => {
        #[doc = concat!("AES-", $bits, " in counter mode under one key.")]
        pub struct $name(Aes);

        impl $name {
            /// Expands `key` on the best backend of this processor.
            #[must_use]
            pub fn new(key: &[u8; $key_len]) -> Self {
                Self(Aes::$make(capability::selected().aes, key))
            }

            /// Expands `key` on a chosen backend, for tests and measurements.
            ///
            /// # Errors
            /// [`Error::Unavailable`] if the processor lacks it or a mask hides it.
            pub fn with_backend(key: &[u8; $key_len], backend: Backend) -> Result<Self, Error> {
                Ok(Self(Aes::$make(capability::aes(backend)?, key)))
            }

            /// Encrypts or decrypts `buffer`, its first octet under counter block `iv`.
            ///
            /// # Errors
            /// [`Error::CounterExhausted`] if the 128-bit counter would wrap; `buffer` is
            /// untouched.
            pub fn apply(&self, iv: &[u8; 16], buffer: &mut [u8]) -> Result<(), Error> {
                self.apply_at(iv, 0, buffer)
            }

            /// As [`Self::apply`], beginning `first_block` blocks into the stream that `iv` begins.
            ///
            /// # Errors
            /// [`Error::CounterExhausted`] if the 128-bit counter would wrap; `buffer` is
            /// untouched.
            pub fn apply_at(
                &self,
                iv: &[u8; 16],
                first_block: u64,
                buffer: &mut [u8],
            ) -> Result<(), Error> {
                let counter = u128::from_be_bytes(*iv)
                    .checked_add(u128::from(first_block))
                    .ok_or(Error::CounterExhausted)?;
                check_counter(counter, buffer.len())?;
                self.0.ctr(counter, buffer);
                Ok(())
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

aes_ctr!(Aes128Ctr, 16, new_128, "128");
aes_ctr!(Aes256Ctr, 32, new_256, "256");

/// 3DES (three keys, encrypt-decrypt-encrypt) in counter mode under one key.
///
/// Constant time for buffers that reach the bitsliced backend, else not: see the crate's table.
pub struct TripleDesCtr {
    cipher: des::TripleDes,
    budget: Budget,
}

/// Blowfish in counter mode under one key of 4 to 56 octets. Not constant time.
pub struct BlowfishCtr {
    cipher: blowfish::Blowfish,
    budget: Budget,
}

impl TripleDesCtr {
    /// Expands `key` on the best backend of this processor. Parity bits are ignored.
    #[must_use]
    pub fn new(key: &[u8; 24]) -> Self {
        let cipher = des::TripleDes::new(capability::selected().triple_des, key);
        Self { cipher, budget: Budget::new(limits::BLOCKS_64_MAX) }
    }

    /// Expands `key` on a chosen backend, for tests and measurements.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the processor lacks it or a mask hides it.
    pub fn with_backend(key: &[u8; 24], backend: Backend) -> Result<Self, Error> {
        let cipher = des::TripleDes::new(capability::triple_des(backend)?, key);
        Ok(Self { cipher, budget: Budget::new(limits::BLOCKS_64_MAX) })
    }
}

impl BlowfishCtr {
    /// Runs the key schedule (521 encryptions) on the best backend of this processor.
    ///
    /// # Errors
    /// [`Error::KeyLength`] unless `key` has 4 to 56 octets.
    pub fn new(key: &[u8]) -> Result<Self, Error> {
        let cipher = blowfish::Blowfish::new(capability::selected().blowfish, key)?;
        Ok(Self { cipher, budget: Budget::new(limits::BLOCKS_64_MAX) })
    }

    /// As [`Self::new`] on a chosen backend, for tests and measurements.
    ///
    /// # Errors
    /// [`Error::KeyLength`] as for `new`; [`Error::Unavailable`] if the backend is not there.
    pub fn with_backend(key: &[u8], backend: Backend) -> Result<Self, Error> {
        let cipher = blowfish::Blowfish::new(capability::blowfish(backend)?, key)?;
        Ok(Self { cipher, budget: Budget::new(limits::BLOCKS_64_MAX) })
    }
}

macro_rules! ctr_64 {
    ($name:ident) => {
        impl $name {
            /// Replaces the budget of this key by `blocks` blocks still to be processed.
            ///
            /// More than [`limits::BLOCKS_64_MAX`] lets an observer find equal blocks; the caller
            /// answers for it.
            #[must_use]
            pub fn with_budget(mut self, blocks: u64) -> Self {
                self.budget = Budget::new(blocks);
                self
            }

            /// Encrypts or decrypts `buffer`, its first octet under counter block `iv`.
            ///
            /// # Errors
            /// [`Error::CounterExhausted`] if the 64-bit counter would wrap, [`Error::Budget`] if
            /// the key has done its volume; `buffer` is untouched.
            pub fn apply(&self, iv: &[u8; 8], buffer: &mut [u8]) -> Result<(), Error> {
                self.apply_at(iv, 0, buffer)
            }

            /// As [`Self::apply`], beginning `first_block` blocks into the stream of `iv`.
            ///
            /// # Errors
            /// As for `apply`.
            pub fn apply_at(
                &self,
                iv: &[u8; 8],
                first_block: u64,
                buffer: &mut [u8],
            ) -> Result<(), Error> {
                let counter = u64::from_be_bytes(*iv)
                    .checked_add(first_block)
                    .ok_or(Error::CounterExhausted)?;
                check_counter_64(counter, buffer.len())?;
                self.budget.charge(buffer.len())?;
                self.cipher.ctr(counter, buffer);
                Ok(())
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

ctr_64!(TripleDesCtr);
ctr_64!(BlowfishCtr);

/// Refuses a text whose last block would need a counter above `u128::MAX`.
pub(crate) fn check_counter(counter: u128, len: usize) -> Result<(), Error> {
    let steps = (len as u128).div_ceil(16).saturating_sub(1);
    counter.checked_add(steps).map(|_| ()).ok_or(Error::CounterExhausted)
}

/// Refuses a text whose last block would need a counter above `u64::MAX`.
pub(crate) fn check_counter_64(counter: u64, len: usize) -> Result<(), Error> {
    let steps = (len as u64).div_ceil(8).saturating_sub(1);
    counter.checked_add(steps).map(|_| ()).ok_or(Error::CounterExhausted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_stop_at_their_largest_value() {
        let rows: [(u64, usize, bool); 6] = [
            (u64::MAX, 0, true),
            (u64::MAX, 8, true),
            (u64::MAX, 9, false),
            (u64::MAX - 1, 16, true),
            (u64::MAX - 1, 17, false),
            (0, 1 << 30, true),
        ];
        for (counter, len, good) in rows {
            assert_eq!(check_counter_64(counter, len).is_ok(), good, "{counter} {len}");
        }
        assert!(check_counter(u128::MAX, 16).is_ok());
        assert_eq!(check_counter(u128::MAX, 17), Err(Error::CounterExhausted));
        let key = Aes128Ctr::new(&[1; 16]);
        let mut text = [9u8; 17];
        assert_eq!(key.apply_at(&[255; 16], 1, &mut text), Err(Error::CounterExhausted));
        assert_eq!(key.apply(&[255; 16], &mut text), Err(Error::CounterExhausted));
        assert_eq!(text, [9; 17]);
    }

    #[test]
    fn the_budget_of_a_key_is_a_hard_stop() {
        let key = TripleDesCtr::new(&[3; 24]).with_budget(4);
        let mut text = [5u8; 25];
        assert_eq!(key.apply(&[0; 8], &mut text[..24]), Ok(()));
        let before = text;
        assert_eq!(key.apply(&[0; 8], &mut text[..9]), Err(Error::Budget));
        assert_eq!(text, before);
        assert_eq!(key.apply(&[0; 8], &mut text[..8]), Ok(()));
        assert_eq!(key.apply(&[0; 8], &mut text[..1]), Err(Error::Budget));
        assert_eq!(key.apply(&[0; 8], &mut []), Ok(()));
    }
}
