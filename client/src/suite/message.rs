//! How one message key seals one line: AEAD for M suites, encrypt-then-MAC for L suites.
//!
//! Owns the expansion of a message key by the line's MID. The invariant: a message key seals one
//! text under one MID; the callers ([`crate::chain`]) hand each key out once. KC commits to the
//! key, because GCM and ChaCha20-Poly1305 do not (SPEC.md §7).
//!
//! `tests/foreign.rs` opens lines of the L suites with OpenSSL's command line alone, from the
//! session key on.

use accel::legacy::{L1, L2};
use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use aws_lc_rs::hkdf;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{Suite, SuiteError};
use crate::secret::{Secret, Secret32};

/// The key of one sealed line, before its MID is mixed in.
pub type MessageKey = Secret32;
/// Octets of KC, the commitment to a message key.
pub const COMMITMENT_OCTETS: usize = 32;

/// Seals `plaintext` under the message key of the line with this `mid` and `aad`.
///
/// # Errors
/// [`SuiteError::Unsupported`] for a text longer than the cipher takes.
pub fn seal(
    suite: Suite,
    key: &MessageKey,
    mid: &str,
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, SuiteError> {
    match suite {
        Suite::L1 => l1(key, mid)?.seal(aad, plaintext).map_err(|_| SuiteError::Unsupported),
        Suite::L2 => l2(key, mid)?.seal(aad, plaintext).map_err(|_| SuiteError::Unsupported),
        _ => {
            let (key, nonce) = aead(suite, key, mid)?;
            let mut body = Vec::with_capacity(plaintext.len() + super::TAG_OCTETS);
            body.extend_from_slice(plaintext);
            key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut body)
                .map_err(|_| SuiteError::Unsupported)?;
            Ok(body)
        }
    }
}

/// Opens `body`; returns the plaintext, wiped on drop.
///
/// # Errors
/// [`SuiteError::Sealed`] if body, key, MID and AAD do not belong together.
pub fn open(
    suite: Suite,
    key: &MessageKey,
    mid: &str,
    aad: &[u8],
    body: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SuiteError> {
    match suite {
        Suite::L1 => l1(key, mid)?.open(aad, body).map(Zeroizing::new),
        Suite::L2 => l2(key, mid)?.open(aad, body).map(Zeroizing::new),
        _ => {
            let (key, nonce) = aead(suite, key, mid)?;
            let mut text = Zeroizing::new(body.to_vec());
            let length = key
                .open_in_place(nonce, Aad::from(aad), &mut text)
                .map_err(|_| SuiteError::Sealed)?
                .len();
            text.truncate(length);
            return Ok(text);
        }
    }
    .map_err(|_| SuiteError::Sealed)
}

/// The body of a receipt: the suite's tag over the empty text (SPEC.md §8).
///
/// # Errors
/// As [`seal`].
pub fn seal_receipt(
    suite: Suite,
    key: &MessageKey,
    mid: &str,
    aad: &[u8],
) -> Result<Vec<u8>, SuiteError> {
    match suite {
        Suite::L1 => l1(key, mid)?.seal_receipt(aad).map(Vec::from),
        Suite::L2 => l2(key, mid)?.seal_receipt(aad).map(Vec::from),
        _ => return seal(suite, key, mid, aad, &[]),
    }
    .map_err(|_| SuiteError::Unsupported)
}

/// Checks the body of a receipt.
///
/// # Errors
/// [`SuiteError::Sealed`].
pub fn open_receipt(
    suite: Suite,
    key: &MessageKey,
    mid: &str,
    aad: &[u8],
    body: &[u8],
) -> Result<(), SuiteError> {
    let tag = || body.try_into().map_err(|_| SuiteError::Sealed);
    match suite {
        Suite::L1 => l1(key, mid)?.open_receipt(aad, tag()?).map_err(|_| SuiteError::Sealed),
        Suite::L2 => l2(key, mid)?.open_receipt(aad, tag()?).map_err(|_| SuiteError::Sealed),
        _ => {
            let text = open(suite, key, mid, aad, body)?;
            if text.is_empty() { Ok(()) } else { Err(SuiteError::Sealed) }
        }
    }
}

/// `KC` of a signed sealed line: `HKDF-Expand(MK, "CIM1-KC" ‖ lp(MID), 32)`.
///
/// # Errors
/// None in practice: the length is within what HKDF gives.
pub fn commitment(key: &MessageKey, mid: &str) -> Result<[u8; COMMITMENT_OCTETS], SuiteError> {
    let expanded = expand::<COMMITMENT_OCTETS>(key, b"CIM1-KC", mid)?;
    Ok(*expanded.expose())
}

/// Whether `theirs` is the commitment to `key`, in constant time.
#[must_use]
pub fn is_commitment(key: &MessageKey, mid: &str, theirs: &[u8]) -> bool {
    commitment(key, mid).is_ok_and(|ours| ours.as_slice().ct_eq(theirs).into())
}

fn expand<const N: usize>(
    key: &MessageKey,
    label: &[u8],
    mid: &str,
) -> Result<Secret<N>, SuiteError> {
    struct Octets(usize);
    impl hkdf::KeyType for Octets {
        fn len(&self) -> usize {
            self.0
        }
    }
    // A MID is a value of a line and far shorter than 4 GiB.
    let mid_length = (mid.len() as u32).to_be_bytes();
    Secret::filled(|octets| {
        hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key.expose())
            .expand(&[label, &mid_length, mid.as_bytes()], Octets(N))
            .and_then(|okm| okm.fill(octets))
            .map_err(|_| SuiteError::Unsupported)
    })
}

fn aead(suite: Suite, key: &MessageKey, mid: &str) -> Result<(LessSafeKey, Nonce), SuiteError> {
    let algorithm: &'static Algorithm = match suite {
        Suite::M1 | Suite::M2 => &AES_256_GCM,
        Suite::M3 => &CHACHA20_POLY1305,
        _ => return Err(SuiteError::Unsupported),
    };
    let expanded = expand::<44>(key, b"CIM1-MSG", mid)?;
    let (key, nonce) = expanded.expose().split_at(32);
    let key = UnboundKey::new(algorithm, key).map_err(|_| SuiteError::Unsupported)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SuiteError::Unsupported)?;
    Ok((LessSafeKey::new(key), nonce))
}

fn l1(key: &MessageKey, mid: &str) -> Result<L1, SuiteError> {
    Ok(L1::new(expand::<{ L1::KEY_LEN }>(key, b"CIM1-LEG", mid)?.expose()))
}

fn l2(key: &MessageKey, mid: &str) -> Result<L2, SuiteError> {
    L2::new(expand::<{ L2::KEY_LEN }>(key, b"CIM1-LEG", mid)?.expose())
        .map_err(|_| SuiteError::Unsupported)
}
