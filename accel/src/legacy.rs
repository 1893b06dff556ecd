//! The message transform of the legacy suites: CBC with PKCS#7, then HMAC-SHA-256 over all of it.
//!
//! Owns [`L1`] (3DES) and [`L2`] (Blowfish-128), each one message key as the HKDF gives it:
//! cipher key, MAC key, IV. The body is `ct ‖ tag`, the tag over `AAD ‖ u32(len ct) ‖ ct`. The
//! invariant: the tag is compared in constant time before anything is decrypted, so nobody can ask
//! about padding. A key opens and seals one message; its volume is bounded by
//! [`limits::LEGACY_TEXT_MAX`]. Source: CIM/1 §7.

use crate::backend::{blowfish::Blowfish, des::TripleDes};
use crate::{Error, capability, limits, padding};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Octets of a tag.
pub const TAG_LEN: usize = 32;
/// Octets of a MAC key.
pub(crate) const MAC_KEY_LEN: usize = 32;
/// Octets of a block and of the IV.
pub(crate) const BLOCK_LEN: usize = 8;

/// Suite L1: one message key for 3DES-CBC and HMAC-SHA-256.
pub struct L1 {
    cipher: TripleDes,
    mac_key: Zeroizing<[u8; MAC_KEY_LEN]>,
    iv: Zeroizing<[u8; BLOCK_LEN]>,
}

/// Suite L2: one message key for Blowfish-128-CBC and HMAC-SHA-256.
pub struct L2 {
    cipher: Blowfish,
    mac_key: Zeroizing<[u8; MAC_KEY_LEN]>,
    iv: Zeroizing<[u8; BLOCK_LEN]>,
}

impl L1 {
    /// Octets of a message key: cipher key 24 ‖ MAC key 32 ‖ IV 8.
    pub const KEY_LEN: usize = 64;

    /// Takes a message key apart and expands it.
    #[must_use]
    pub fn new(key: &[u8; Self::KEY_LEN]) -> Self {
        let (cipher_key, mac_key, iv) = split_l1(key);
        let cipher = TripleDes::new(capability::selected().triple_des, cipher_key);
        Self { cipher, mac_key: Zeroizing::new(*mac_key), iv: Zeroizing::new(*iv) }
    }
}

impl L2 {
    /// Octets of a message key: cipher key 16 ‖ MAC key 32 ‖ IV 8.
    pub const KEY_LEN: usize = 56;

    /// Takes a message key apart and runs Blowfish's key schedule.
    ///
    /// # Errors
    /// None in practice: the length of the cipher key is fixed by the type.
    pub fn new(key: &[u8; Self::KEY_LEN]) -> Result<Self, Error> {
        let (cipher_key, mac_key, iv) = split_l2(key);
        let cipher = Blowfish::new(capability::selected().blowfish, cipher_key)?;
        Ok(Self { cipher, mac_key: Zeroizing::new(*mac_key), iv: Zeroizing::new(*iv) })
    }
}

macro_rules! suite {
    ($name:ident) => {
        impl $name {
            /// Seals `plaintext`; returns `ct ‖ tag`.
            ///
            /// # Errors
            /// [`Error::TooLong`] beyond [`limits::LEGACY_TEXT_MAX`].
            pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Error> {
                let mut body = Vec::with_capacity(sealed_len(plaintext.len())?);
                body.extend_from_slice(plaintext);
                padding::pad(&mut body, BLOCK_LEN as u8);
                let (blocks, _) = body.as_chunks_mut::<BLOCK_LEN>();
                self.cipher.cbc_encrypt(&mut self.iv.clone(), blocks);
                let tag = tag(&self.mac_key, aad, &body)?;
                body.extend_from_slice(&tag);
                Ok(body)
            }

            /// Opens `ct ‖ tag`; returns the plaintext.
            ///
            /// # Errors
            /// [`Error::Malformed`] if `body` is not 1 or more blocks and a tag,
            /// [`Error::TooLong`] beyond the volume of a key, [`Error::Authentication`] if the tag
            /// is wrong, before anything is decrypted, and [`Error::Padding`] if an authentic
            /// sender padded wrongly.
            pub fn open(&self, aad: &[u8], body: &[u8]) -> Result<Vec<u8>, Error> {
                let (ciphertext, theirs) = split_body(body)?;
                check_tag(&self.mac_key, aad, ciphertext, theirs)?;
                let mut text = ciphertext.to_vec();
                let (blocks, _) = text.as_chunks_mut::<BLOCK_LEN>();
                self.cipher.cbc_decrypt(&mut self.iv.clone(), blocks);
                match padding::unpadded_len(&text, BLOCK_LEN as u8) {
                    Ok(len) => {
                        text.truncate(len);
                        Ok(text)
                    }
                    Err(error) => {
                        text.zeroize();
                        Err(error)
                    }
                }
            }

            /// The tag of a receipt: over `aad` and the empty ciphertext.
            ///
            /// # Errors
            /// None in practice: the MAC takes any key.
            pub fn seal_receipt(&self, aad: &[u8]) -> Result<[u8; TAG_LEN], Error> {
                tag(&self.mac_key, aad, &[])
            }

            /// Checks the tag of a receipt in constant time.
            ///
            /// # Errors
            /// [`Error::Authentication`] if it is wrong.
            pub fn open_receipt(&self, aad: &[u8], theirs: &[u8; TAG_LEN]) -> Result<(), Error> {
                check_tag(&self.mac_key, aad, &[], theirs)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

suite!(L1);
suite!(L2);

/// Cipher key, MAC key and IV of suite L1.
pub(crate) fn split_l1(key: &[u8; L1::KEY_LEN]) -> (&[u8; 24], &[u8; MAC_KEY_LEN], &[u8; 8]) {
    split(key)
}

/// Cipher key, MAC key and IV of suite L2.
pub(crate) fn split_l2(key: &[u8; L2::KEY_LEN]) -> (&[u8; 16], &[u8; MAC_KEY_LEN], &[u8; 8]) {
    split(key)
}

#[expect(clippy::expect_used, reason = "LEN = CIPHER + 32 + 8, asserted when compiled")]
fn split<const LEN: usize, const CIPHER: usize>(
    key: &[u8; LEN],
) -> (&[u8; CIPHER], &[u8; MAC_KEY_LEN], &[u8; 8]) {
    const { assert!(LEN == CIPHER + MAC_KEY_LEN + 8) }
    let (cipher_key, rest) = key.split_first_chunk().expect("LEN >= CIPHER");
    let (mac_key, iv) = rest.split_first_chunk().expect("LEN - CIPHER >= 32");
    (cipher_key, mac_key, iv.first_chunk().expect("LEN - CIPHER - 32 = 8"))
}

/// Octets of the body that seals `plaintext_len` octets.
pub(crate) fn sealed_len(plaintext_len: usize) -> Result<usize, Error> {
    if plaintext_len > limits::LEGACY_TEXT_MAX {
        return Err(Error::TooLong);
    }
    Ok((plaintext_len / BLOCK_LEN + 1) * BLOCK_LEN + TAG_LEN)
}

/// Ciphertext and tag of a body; refuses what can not be one.
pub(crate) fn split_body(body: &[u8]) -> Result<(&[u8], &[u8; TAG_LEN]), Error> {
    let (ciphertext, tag) = body.split_last_chunk().ok_or(Error::Malformed)?;
    if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(BLOCK_LEN) {
        return Err(Error::Malformed);
    }
    if ciphertext.len() > limits::LEGACY_TEXT_MAX + BLOCK_LEN {
        return Err(Error::TooLong);
    }
    Ok((ciphertext, tag))
}

/// HMAC-SHA-256 over `AAD ‖ u32(len ct) ‖ ct`.
pub(crate) fn tag(key: &[u8; 32], aad: &[u8], ciphertext: &[u8]) -> Result<[u8; TAG_LEN], Error> {
    let len = u32::try_from(ciphertext.len()).map_err(|_| Error::TooLong)?;
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).map_err(|_| Error::KeyLength)?;
    mac.update(aad);
    mac.update(&len.to_be_bytes());
    mac.update(ciphertext);
    Ok(mac.finalize().into_bytes().into())
}

/// Compares the tag of `ciphertext` with `theirs` in constant time.
pub(crate) fn check_tag(
    key: &[u8; 32],
    aad: &[u8],
    ciphertext: &[u8],
    theirs: &[u8; TAG_LEN],
) -> Result<(), Error> {
    let ours = tag(key, aad, ciphertext)?;
    if bool::from(ours.ct_eq(theirs)) { Ok(()) } else { Err(Error::Authentication) }
}

#[cfg(test)]
mod tests;
