//! AES in Galois/Counter Mode with 96-bit nonces and 128-bit tags, in place.
//!
//! Owns the public types [`Aes128Gcm`] and [`Aes256Gcm`]; the arithmetic is in the backends. The
//! invariant: no plaintext leaves an `open` whose tag is wrong; the buffer is wiped instead. A
//! nonce must never be used twice with a key; this module can not check that. Limits:
//! [`limits::GCM_TEXT_MAX`]. Source: NIST SP 800-38D.

use crate::backend::aes::Gcm;
use crate::{Backend, Error, capability, limits};
use zeroize::Zeroize;

/// Octets of a nonce.
pub const NONCE_LEN: usize = 12;
/// Octets of a tag.
pub const TAG_LEN: usize = 16;

macro_rules! aes_gcm {
    ($name:ident, $key_len:literal, $make:ident, $bits:literal) => {
        #[doc = concat!("AES-", $bits, "-GCM under one key, its key schedule ready.")]
        pub struct $name(Gcm);

        impl $name {
            /// Octets of a key.
            pub const KEY_LEN: usize = $key_len;

            /// Expands `key` on the best backend of this processor.
            #[must_use]
            pub fn new(key: &[u8; $key_len]) -> Self {
                Self(Gcm::$make(capability::selected().aes, key))
            }

            /// Expands `key` on a chosen backend, for tests and measurements.
            ///
            /// # Errors
            /// [`Error::Unavailable`] if the processor lacks it or a mask hides it.
            pub fn with_backend(key: &[u8; $key_len], backend: Backend) -> Result<Self, Error> {
                Ok(Self(Gcm::$make(capability::aes(backend)?, key)))
            }

            /// Encrypts `buffer` in place and returns the tag over `aad` and ciphertext.
            ///
            /// # Errors
            /// [`Error::TooLong`] beyond [`limits::GCM_TEXT_MAX`] or [`limits::GCM_AAD_MAX`]; the
            /// buffer is untouched.
            pub fn seal_in_place(
                &self,
                nonce: &[u8; NONCE_LEN],
                aad: &[u8],
                buffer: &mut [u8],
            ) -> Result<[u8; TAG_LEN], Error> {
                check_lengths(aad.len(), buffer.len())?;
                Ok(self.0.seal(nonce, aad, buffer))
            }

            /// Decrypts `buffer` in place if `tag` fits.
            ///
            /// # Errors
            /// [`Error::Authentication`] if the tag is wrong: `buffer` then holds zeros only, no
            /// plaintext is released. [`Error::TooLong`] as for sealing, `buffer` untouched.
            pub fn open_in_place(
                &self,
                nonce: &[u8; NONCE_LEN],
                aad: &[u8],
                buffer: &mut [u8],
                tag: &[u8; TAG_LEN],
            ) -> Result<(), Error> {
                check_lengths(aad.len(), buffer.len())?;
                let opened = self.0.open(nonce, aad, buffer, tag);
                if opened.is_err() {
                    buffer.zeroize();
                }
                opened
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

aes_gcm!(Aes128Gcm, 16, new_128, "128");
aes_gcm!(Aes256Gcm, 32, new_256, "256");

/// Refuses lengths beyond the limits of the mode.
pub(crate) fn check_lengths(aad_len: usize, text_len: usize) -> Result<(), Error> {
    let fits = text_len as u64 <= limits::GCM_TEXT_MAX && aad_len as u64 <= limits::GCM_AAD_MAX;
    if fits { Ok(()) } else { Err(Error::TooLong) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::unhex;

    #[test]
    fn a_wrong_tag_wipes_the_buffer() {
        let key = Aes256Gcm::new(&[7; 32]);
        let mut text = *b"attack at dawn, says the general";
        let tag = key.seal_in_place(&[1; 12], b"aad", &mut text).unwrap();
        let sealed = text;
        assert_eq!(key.open_in_place(&[1; 12], b"aad", &mut text, &tag), Ok(()));
        assert_eq!(&text, b"attack at dawn, says the general");
        for bit in 0..128 {
            let mut wrong = tag;
            wrong[bit / 8] ^= 1 << (bit % 8);
            let mut text = sealed;
            let opened = key.open_in_place(&[1; 12], b"aad", &mut text, &wrong);
            assert_eq!((opened, text), (Err(Error::Authentication), [0; 32]));
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let (text, aad) = (limits::GCM_TEXT_MAX as usize, limits::GCM_AAD_MAX as usize);
        assert_eq!(check_lengths(aad, text), Ok(()));
        assert_eq!(check_lengths(aad, text + 1), Err(Error::TooLong));
        assert_eq!(check_lengths(aad + 1, text), Err(Error::TooLong));
    }

    #[test]
    fn published_vectors_hold() {
        // McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 4 and 16.
        let nonce: [u8; 12] = unhex("cafebabefacedbaddecaf888").try_into().unwrap();
        let aad = unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plain = unhex(concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ));
        let key: [u8; 32] =
            unhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
                .try_into()
                .unwrap();
        let mut text = plain.clone();
        let half: [u8; 16] = key[..16].try_into().unwrap();
        let tag = Aes128Gcm::new(&half).seal_in_place(&nonce, &aad, &mut text).unwrap();
        assert_eq!(tag.to_vec(), unhex("5bc94fbc3221a5db94fae95ae7121a47"));
        let mut text = plain;
        let tag = Aes256Gcm::new(&key).seal_in_place(&nonce, &aad, &mut text).unwrap();
        assert_eq!(tag.to_vec(), unhex("76fc6ece0f4e1768cddf8853bb2d551b"));
        assert_eq!(
            text,
            unhex(concat!(
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
                "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
            ))
        );
    }
}
