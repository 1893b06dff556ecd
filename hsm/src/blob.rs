//! The wrapped blob: a data key sealed by a key of the token, with what is needed to open it again.
//!
//! ```text
//! "CIMW" ‖ version 1 ‖ mechanism ‖ purpose ‖ key version (4) ‖ lp8(label) ‖ lp8(serial)
//!        ‖ lp8(iv) ‖ lp16(data) ‖ binding (16) ‖ checksum (8)
//! ```
//!
//! The binding is HMAC-SHA-256 under the data key over everything before it, cut to 16 octets: a
//! token that unwraps to another key, or a header that was exchanged, is noticed whatever the
//! mechanism authenticates. The checksum is SHA-256 over everything before it, cut to 8: a damaged
//! blob is told from a failing token without asking the token. Integers are big-endian.

use std::borrow::Cow;

use aws_lc_rs::{constant_time, digest, hmac};

use crate::error::Error;
use crate::job::{KeyName, Purpose};
use crate::limits;

const MAGIC: &[u8; 4] = b"CIMW";
const VERSION: u8 = 1;
const BINDING_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 8;

/// How a data key was sealed, in order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Mechanism {
    /// `CKM_AES_KEY_WRAP` (RFC 3394) by `C_WrapKey`.
    KeyWrap,
    /// `CKM_AES_KEY_WRAP_PAD` (RFC 5649) by `C_WrapKey`.
    KeyWrapPadded,
    /// `CKM_AES_GCM` by `C_Encrypt`, random nonce of 12 octets.
    Gcm,
    /// `CKM_AES_CBC_PAD` by `C_Encrypt`; authenticated by the binding.
    CbcPad,
}

impl Mechanism {
    /// All, best first.
    pub const ALL: [Self; 4] = [Self::KeyWrap, Self::KeyWrapPadded, Self::Gcm, Self::CbcPad];

    /// The standard's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeyWrap => "AES_KEY_WRAP",
            Self::KeyWrapPadded => "AES_KEY_WRAP_PAD",
            Self::Gcm => "AES_GCM",
            Self::CbcPad => "AES_CBC_PAD",
        }
    }

    /// The octet in the blob.
    pub const fn code(self) -> u8 {
        match self {
            Self::KeyWrap => 1,
            Self::KeyWrapPadded => 2,
            Self::Gcm => 3,
            Self::CbcPad => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.code() == code)
    }

    /// Octets of nonce or initialisation vector.
    pub const fn iv_bytes(self) -> usize {
        match self {
            Self::KeyWrap | Self::KeyWrapPadded => 0,
            Self::Gcm => 12,
            Self::CbcPad => 16,
        }
    }
}

/// A blob taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob<'a> {
    /// How it was sealed.
    pub mechanism: Mechanism,
    /// By which key; the version is always given.
    pub key: KeyName,
    /// The key's label in the token, at most 255 octets.
    pub label: Cow<'a, str>,
    /// Serial number of the token, at most 255 octets.
    pub serial: Cow<'a, str>,
    /// Nonce or initialisation vector.
    pub iv: Cow<'a, [u8]>,
    /// What the token gave.
    pub data: Cow<'a, [u8]>,
}

impl<'a> Blob<'a> {
    /// Puts a blob together, bound to its `data_key`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if a part is too long.
    pub fn encode(&self, data_key: &[u8]) -> Result<Vec<u8>, Error> {
        let too_long = |_| Error::malformed("a part of the wrapped key is too long");
        let mut bytes = Vec::with_capacity(160);
        bytes.extend(MAGIC);
        bytes.extend([VERSION, self.mechanism.code(), self.key.purpose.code()]);
        bytes.extend(self.key.version.unwrap_or_default().to_be_bytes());
        for part in [self.label.as_bytes(), self.serial.as_bytes(), &self.iv] {
            bytes.push(u8::try_from(part.len()).map_err(too_long)?);
            bytes.extend(part);
        }
        bytes.extend(u16::try_from(self.data.len()).map_err(too_long)?.to_be_bytes());
        bytes.extend(&*self.data);
        let binding = bind(data_key, &bytes);
        bytes.extend(binding);
        let checksum = checksum(&bytes);
        bytes.extend(checksum);
        if bytes.len() > limits::BLOB_BYTES_MAX {
            return Err(Error::malformed("the wrapped key would have more than 512 octets"));
        }
        Ok(bytes)
    }

    /// Takes a blob apart after checking its checksum.
    ///
    /// # Errors
    /// [`Error::Damaged`] for anything that [`Blob::encode`] did not make.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Error> {
        let damaged = |what: &'static str| Error::Damaged { what: what.into() };
        let (rest, sum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(|| damaged("it is too short"))?;
        let rest = rest.strip_prefix(MAGIC).ok_or_else(|| damaged("it does not begin as one"))?;
        if checksum(bytes.get(..bytes.len() - CHECKSUM_BYTES).unwrap_or_default()) != *sum {
            return Err(damaged("its checksum does not hold"));
        }
        let shape = || damaged("its parts do not fit");
        let ([version, mechanism, purpose], rest) = rest.split_first_chunk().ok_or_else(shape)?;
        if *version != VERSION {
            return Err(damaged("its version is unknown to this program"));
        }
        let (key_version, rest) = rest.split_first_chunk::<4>().ok_or_else(shape)?;
        let (label, rest) = short(rest).ok_or_else(shape)?;
        let (serial, rest) = short(rest).ok_or_else(shape)?;
        let (iv, rest) = short(rest).ok_or_else(shape)?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(shape)?;
        let data_length = usize::from(u16::from_be_bytes(*length));
        let (data, binding) = rest.split_at_checked(data_length).ok_or_else(shape)?;
        let mechanism = Mechanism::from_code(*mechanism).ok_or_else(shape)?;
        if binding.len() != BINDING_BYTES || iv.len() != mechanism.iv_bytes() {
            return Err(shape());
        }
        let text = |bytes| std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| shape());
        Ok(Self {
            mechanism,
            key: KeyName::exact(
                Purpose::from_code(*purpose).ok_or_else(shape)?,
                u32::from_be_bytes(*key_version),
            ),
            label: text(label)?,
            serial: text(serial)?,
            iv: Cow::Borrowed(iv),
            data: Cow::Borrowed(data),
        })
    }
}

/// Whether `data_key` is the one that `bytes` was made for.
pub fn is_bound(bytes: &[u8], data_key: &[u8]) -> bool {
    let tail = BINDING_BYTES + CHECKSUM_BYTES;
    let Some((head, tail)) = bytes.len().checked_sub(tail).map(|at| bytes.split_at(at)) else {
        return false;
    };
    let binding = tail.get(..BINDING_BYTES).unwrap_or_default();
    constant_time::verify_slices_are_equal(&bind(data_key, head), binding).is_ok()
}

fn bind(data_key: &[u8], bytes: &[u8]) -> [u8; BINDING_BYTES] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, data_key);
    let mut context = hmac::Context::with_key(&key);
    context.update(b"cipherim-hsm blob");
    context.update(bytes);
    cut(context.sign().as_ref())
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    cut(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// The first `N` octets of a longer hash.
fn cut<const N: usize>(hash: &[u8]) -> [u8; N] {
    hash.first_chunk().copied().unwrap_or([0; N])
}

fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(mechanism: Mechanism) -> Blob<'static> {
        Blob {
            mechanism,
            key: KeyName::exact(Purpose::Spool, 3),
            label: "cipherim/a.example/spool/3".into(),
            serial: "842f9e3562565c0d".into(),
            iv: vec![5; mechanism.iv_bytes()].into(),
            data: vec![9; 40].into(),
        }
    }

    #[test]
    fn round_trip_of_every_mechanism() {
        for mechanism in Mechanism::ALL {
            let bytes = sample(mechanism).encode(&[1; 32]).unwrap();
            assert_eq!(Blob::decode(&bytes).unwrap(), sample(mechanism));
            assert!(is_bound(&bytes, &[1; 32]));
            assert!(!is_bound(&bytes, &[2; 32]));
        }
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let bytes = sample(Mechanism::KeyWrap).encode(&[1; 32]).unwrap();
        for at in 0..bytes.len() {
            assert!(matches!(Blob::decode(&bytes[..at]), Err(Error::Damaged { .. })), "cut {at}");
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(Blob::decode(&changed).is_err(), "octet {at} bit {bit}");
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend(&bytes);
            let sum = checksum(&with_magic);
            with_magic.extend(sum);
            let _ = Blob::decode(&with_magic);
            let _ = is_bound(&bytes, &bytes);
            prop_assert!(Blob::decode(&bytes).is_err());
        }
    }
}
