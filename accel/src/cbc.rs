//! Cipher block chaining over AES, 3DES and Blowfish: whole blocks in place, or with PKCS#7.
//!
//! Owns the public types only. CBC does not authenticate: use it inside an encrypt-then-MAC
//! construction such as [`crate::legacy`], and never answer a peer differently for bad padding.
//! Ciphers with 64-bit blocks charge encryption to the budget of the key; decryption is free,
//! because it makes no new ciphertext. Source: NIST SP 800-38A §6.2.

use crate::backend::{aes::Aes, blowfish, budget::Budget, des};
use crate::{Backend, Error, capability, limits, padding};

/// AES-128 in CBC mode under one key.
pub struct Aes128Cbc {
    cipher: Aes,
}

/// AES-256 in CBC mode under one key.
pub struct Aes256Cbc {
    cipher: Aes,
}

/// 3DES (three keys, encrypt-decrypt-encrypt) in CBC mode under one key.
///
/// Decryption of many blocks is bitsliced and constant time; encryption is serial and uses tables.
pub struct TripleDesCbc {
    cipher: des::TripleDes,
    budget: Budget,
}

/// Blowfish in CBC mode under one key of 4 to 56 octets. Not constant time.
pub struct BlowfishCbc {
    cipher: blowfish::Blowfish,
    budget: Budget,
}

impl Aes128Cbc {
    /// Expands `key` on the best backend of this processor.
    #[must_use]
    pub fn new(key: &[u8; 16]) -> Self {
        Self { cipher: Aes::new_128(capability::selected().aes, key) }
    }

    /// Expands `key` on a chosen backend, for tests and measurements.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the processor lacks it or a mask hides it.
    pub fn with_backend(key: &[u8; 16], backend: Backend) -> Result<Self, Error> {
        Ok(Self { cipher: Aes::new_128(capability::aes(backend)?, key) })
    }

    fn charge(&self, _len: usize) -> Result<(), Error> {
        Ok(())
    }
}

impl Aes256Cbc {
    /// Expands `key` on the best backend of this processor.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self { cipher: Aes::new_256(capability::selected().aes, key) }
    }

    /// Expands `key` on a chosen backend, for tests and measurements.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the processor lacks it or a mask hides it.
    pub fn with_backend(key: &[u8; 32], backend: Backend) -> Result<Self, Error> {
        Ok(Self { cipher: Aes::new_256(capability::aes(backend)?, key) })
    }

    fn charge(&self, _len: usize) -> Result<(), Error> {
        Ok(())
    }
}

impl TripleDesCbc {
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

    /// Replaces the budget of this key by `blocks` blocks still to be encrypted; see
    /// [`limits::BLOCKS_64_MAX`].
    #[must_use]
    pub fn with_budget(mut self, blocks: u64) -> Self {
        self.budget = Budget::new(blocks);
        self
    }

    fn charge(&self, len: usize) -> Result<(), Error> {
        self.budget.charge(len)
    }
}

impl BlowfishCbc {
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

    /// Replaces the budget of this key by `blocks` blocks still to be encrypted; see
    /// [`limits::BLOCKS_64_MAX`].
    #[must_use]
    pub fn with_budget(mut self, blocks: u64) -> Self {
        self.budget = Budget::new(blocks);
        self
    }

    fn charge(&self, len: usize) -> Result<(), Error> {
        self.budget.charge(len)
    }
}

macro_rules! cbc {
    ($name:ident, $block:literal) => {
        impl $name {
            /// Octets of a block and of an IV.
            pub const BLOCK_LEN: usize = $block;

            /// Encrypts whole blocks in place. Returns the IV that continues the chain: the last
            /// ciphertext block, or `iv` if there was none.
            ///
            /// # Errors
            /// [`Error::Length`] if `buffer.len()` is not a multiple of the block,
            /// [`Error::Budget`] if the key has done its volume; `buffer` is untouched.
            pub fn encrypt(
                &self,
                iv: &[u8; $block],
                buffer: &mut [u8],
            ) -> Result<[u8; $block], Error> {
                let len = buffer.len();
                let (blocks, []) = buffer.as_chunks_mut::<$block>() else {
                    return Err(Error::Length);
                };
                self.charge(len)?;
                let mut chain = *iv;
                self.cipher.cbc_encrypt(&mut chain, blocks);
                Ok(chain)
            }

            /// Decrypts whole blocks in place. Returns the IV that continues the chain.
            ///
            /// # Errors
            /// [`Error::Length`] if `buffer.len()` is not a multiple of the block; `buffer` is
            /// untouched.
            pub fn decrypt(
                &self,
                iv: &[u8; $block],
                buffer: &mut [u8],
            ) -> Result<[u8; $block], Error> {
                let (blocks, []) = buffer.as_chunks_mut::<$block>() else {
                    return Err(Error::Length);
                };
                let mut chain = *iv;
                self.cipher.cbc_decrypt(&mut chain, blocks);
                Ok(chain)
            }

            /// Pads `text` with PKCS#7 and encrypts it in place; it grows by 1 to a block.
            ///
            /// # Errors
            /// [`Error::Budget`] if the key has done its volume; `text` is untouched.
            pub fn encrypt_padded(
                &self,
                iv: &[u8; $block],
                text: &mut Vec<u8>,
            ) -> Result<(), Error> {
                self.charge((text.len() / $block + 1) * $block)?;
                padding::pad(text, $block);
                let (blocks, _) = text.as_chunks_mut::<$block>();
                self.cipher.cbc_encrypt(&mut iv.clone(), blocks);
                Ok(())
            }

            /// Decrypts `text` in place and takes the padding away, in time that does not depend
            /// on the padding.
            ///
            /// # Errors
            /// [`Error::Malformed`] if `text` is empty or not whole blocks, `text` untouched;
            /// [`Error::Padding`] if the padding is wrong: `text` is then wiped and empty. Only an
            /// authenticated text may have its padding error told apart from others.
            pub fn decrypt_padded(
                &self,
                iv: &[u8; $block],
                text: &mut Vec<u8>,
            ) -> Result<(), Error> {
                if text.is_empty() || !text.len().is_multiple_of($block) {
                    return Err(Error::Malformed);
                }
                let (blocks, _) = text.as_chunks_mut::<$block>();
                self.cipher.cbc_decrypt(&mut iv.clone(), blocks);
                match padding::unpadded_len(text, $block) {
                    Ok(len) => {
                        text.truncate(len);
                        Ok(())
                    }
                    Err(error) => {
                        zeroize::Zeroize::zeroize(text);
                        Err(error)
                    }
                }
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

cbc!(Aes128Cbc, 16);
cbc!(Aes256Cbc, 16);
cbc!(TripleDesCbc, 8);
cbc!(BlowfishCbc, 8);
