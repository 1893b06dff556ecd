//! Signatures of lines: algorithms, the rules for keys, one verifier and software signers.
//!
//! The record gives the algorithm of a key and no line names it (SPEC.md §4). Keys that are
//! malformed, of small order or not canonical are refused when they are read; ECDSA signatures
//! with the larger of the two `s` are refused when they are verified. Verification works on
//! public values and makes no claim of constant time; signing is constant time as far as
//! AWS-LC says it is.

use core::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self as aws, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, ML_DSA_65, ML_DSA_65_SIGNING, PqdsaKeyPair,
    RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
};
use zeroize::Zeroizing;

use crate::canonical::push_lp;
use crate::limits::RSA_KEY_OCTETS_MAX;
use crate::parameter::WireValue;

/// Octets of an Ed25519 public key (RFC 8032).
pub const ED25519_KEY_OCTETS: usize = 32;
/// Octets of an Ed25519 signature.
pub const ED25519_SIGNATURE_OCTETS: usize = 64;
/// Octets of an uncompressed P-256 point (SEC 1 §2.3.3).
pub const P256_KEY_OCTETS: usize = 65;
/// Octets of an ECDSA P-256 signature as r‖s.
pub const P256_SIGNATURE_OCTETS: usize = 64;
/// Octets of an ML-DSA-65 public key (FIPS 204 table 2).
pub const ML_DSA_KEY_OCTETS: usize = 1_952;
/// Octets of an ML-DSA-65 signature (FIPS 204 table 2).
pub const ML_DSA_SIGNATURE_OCTETS: usize = 3_309;

/// An algorithm by its number in records and its name on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// 1 `ed25519`: RFC 8032, raw key of 32 octets.
    Ed25519,
    /// 2 `p256`: ECDSA with SHA-256, uncompressed point of 65 octets, signature r‖s.
    P256,
    /// 3 `pss`: RSA-PSS with SHA-256 and salt of 32 octets, SubjectPublicKeyInfo in DER,
    /// modulus of at least 3072 bits.
    Pss,
    /// 4 `hyb`: Ed25519 and ML-DSA-65, both of which must hold.
    Hybrid,
}

impl Algorithm {
    /// The algorithm with this number in a TLV.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Ed25519),
            2 => Some(Self::P256),
            3 => Some(Self::Pss),
            4 => Some(Self::Hybrid),
            _ => None,
        }
    }

    /// The number in TLVs.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::P256 => 2,
            Self::Pss => 3,
            Self::Hybrid => 4,
        }
    }

    /// The algorithm with this name in `IDA=` and `ALG=`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "ed25519" => Some(Self::Ed25519),
            "p256" => Some(Self::P256),
            "pss" => Some(Self::Pss),
            "hyb" => Some(Self::Hybrid),
            _ => None,
        }
    }

    /// The name in `IDA=` and `ALG=`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::P256 => "p256",
            Self::Pss => "pss",
            Self::Hybrid => "hyb",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl WireValue<'_> for Algorithm {
    fn read(value: &str) -> Option<Self> {
        Self::from_name(value)
    }
}

/// Why a key or a signature is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureError {
    /// The key is malformed, of small order, not canonical, too short or too long.
    Key,
    /// The signature does not hold, or has a second spelling.
    Signature,
    /// The signer refused; with a software key this means a failed self-check.
    Signer,
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "the public key is malformed or weak",
            Self::Signature => "the signature does not hold",
            Self::Signer => "the signer refused to sign",
        })
    }
}

impl core::error::Error for SignatureError {}

/// A public key whose encoding was checked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    algorithm: Algorithm,
    octets: Box<[u8]>,
}

impl PublicKey {
    /// Reads a key in the encoding of its algorithm (SPEC.md §4).
    ///
    /// # Errors
    /// [`SignatureError::Key`].
    pub fn parse(algorithm: Algorithm, octets: &[u8]) -> Result<Self, SignatureError> {
        let is_good = match algorithm {
            Algorithm::Ed25519 => is_good_ed25519(octets),
            Algorithm::P256 => is_good_p256(octets),
            Algorithm::Pss => is_good_rsa(octets),
            Algorithm::Hybrid => {
                octets.split_at_checked(ED25519_KEY_OCTETS).is_some_and(|(classic, lattice)| {
                    is_good_ed25519(classic)
                        && lattice.len() == ML_DSA_KEY_OCTETS
                        && aws::ParsedPublicKey::new(&ML_DSA_65, lattice).is_ok()
                })
            }
        };
        if is_good {
            Ok(Self { algorithm, octets: octets.into() })
        } else {
            Err(SignatureError::Key)
        }
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key in the encoding of its algorithm.
    #[must_use]
    pub fn as_octets(&self) -> &[u8] {
        &self.octets
    }

    /// Checks `signature` over `message`.
    ///
    /// # Errors
    /// [`SignatureError::Signature`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let holds = match self.algorithm {
            Algorithm::Ed25519 => verify(&ED25519, &self.octets, message, signature),
            Algorithm::P256 => {
                is_low_s(signature)
                    && verify(&ECDSA_P256_SHA256_FIXED, &self.octets, message, signature)
            }
            Algorithm::Pss => verify(&RSA_PSS_2048_8192_SHA256, &self.octets, message, signature),
            Algorithm::Hybrid => verify_hybrid(&self.octets, message, signature),
        };
        if holds { Ok(()) } else { Err(SignatureError::Signature) }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), crate::base64::encode(&self.octets))
    }
}

/// Whatever can sign: a software key, a token, a service that asks a token.
pub trait Signer {
    /// The public half.
    fn public_key(&self) -> &PublicKey;
    /// Signs `message` in the encoding of the key's algorithm.
    ///
    /// # Errors
    /// [`SignatureError::Signer`].
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError>;
}

/// A private key in memory. Wiped on drop by AWS-LC; prints nothing.
pub struct SoftwareSigner {
    public: PublicKey,
    secret: Secret,
}

#[allow(clippy::large_enum_variant, reason = "a process holds a handful of signers")]
enum Secret {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Hybrid(Ed25519KeyPair, PqdsaKeyPair),
}

impl SoftwareSigner {
    /// An Ed25519 key from its seed of 32 octets (RFC 8032 §5.1.5).
    ///
    /// # Errors
    /// [`SignatureError::Key`].
    pub fn ed25519(seed: &[u8; 32]) -> Result<Self, SignatureError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| SignatureError::Key)?;
        let public = PublicKey::parse(Algorithm::Ed25519, pair.public_key().as_ref())?;
        Ok(Self { public, secret: Secret::Ed25519(pair) })
    }

    /// A P-256 key from its PKCS#8 document.
    ///
    /// # Errors
    /// [`SignatureError::Key`].
    pub fn p256(pkcs8: &[u8]) -> Result<Self, SignatureError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .map_err(|_| SignatureError::Key)?;
        let public = PublicKey::parse(Algorithm::P256, pair.public_key().as_ref())?;
        Ok(Self { public, secret: Secret::P256(pair) })
    }

    /// A new P-256 key; returns it with its PKCS#8 document.
    ///
    /// # Errors
    /// [`SignatureError::Signer`] if the system gives no random octets.
    pub fn generate_p256() -> Result<(Self, Zeroizing<Vec<u8>>), SignatureError> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|_| SignatureError::Signer)?;
        let document = Zeroizing::new(document.as_ref().to_vec());
        Ok((Self::p256(&document)?, document))
    }

    /// A hybrid key from two seeds of 32 octets (RFC 8032 §5.1.5, FIPS 204 §5.1).
    ///
    /// # Errors
    /// [`SignatureError::Key`].
    pub fn hybrid(classic: &[u8; 32], lattice: &[u8; 32]) -> Result<Self, SignatureError> {
        let classic =
            Ed25519KeyPair::from_seed_unchecked(classic).map_err(|_| SignatureError::Key)?;
        let lattice = PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, lattice)
            .map_err(|_| SignatureError::Key)?;
        let mut octets = classic.public_key().as_ref().to_vec();
        octets.extend_from_slice(lattice.public_key().as_ref());
        let public = PublicKey::parse(Algorithm::Hybrid, &octets)?;
        Ok(Self { public, secret: Secret::Hybrid(classic, lattice) })
    }
}

impl Signer for SoftwareSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        match &self.secret {
            Secret::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Secret::P256(pair) => {
                let signature =
                    pair.sign(&SystemRandom::new(), message).map_err(|_| SignatureError::Signer)?;
                normalise_s(signature.as_ref()).ok_or(SignatureError::Signer)
            }
            Secret::Hybrid(classic, lattice) => {
                let message = hybrid_message(message);
                let mut signature = classic.sign(&message).as_ref().to_vec();
                let mut second = vec![0; ML_DSA_SIGNATURE_OCTETS];
                lattice.sign(&message, &mut second).map_err(|_| SignatureError::Signer)?;
                signature.append(&mut second);
                Ok(signature)
            }
        }
    }
}

fn verify(
    algorithm: &'static dyn aws::VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
}

fn hybrid_message(message: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(message.len() + 12);
    push_lp(&mut octets, b"CIM1-HYB");
    octets.extend_from_slice(message);
    octets
}

fn verify_hybrid(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Some((classic_key, lattice_key)), Some((classic, lattice))) = (
        key.split_at_checked(ED25519_KEY_OCTETS),
        signature.split_at_checked(ED25519_SIGNATURE_OCTETS),
    ) else {
        return false;
    };
    let message = hybrid_message(message);
    lattice.len() == ML_DSA_SIGNATURE_OCTETS
        && verify(&ED25519, classic_key, &message, classic)
        && verify(&ML_DSA_65, lattice_key, &message, lattice)
}

/// n of P-256 (FIPS 186-5, SP 800-186 §3.2.1.3), big-endian.
const P256_ORDER: [u8; 32] = [
    0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xBC, 0xE6, 0xFA, 0xAD, 0xA7, 0x17, 0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51,
];
/// (n − 1) / 2, big-endian.
const P256_ORDER_HALF: [u8; 32] = [
    0x7F, 0xFF, 0xFF, 0xFF, 0x80, 0x00, 0x00, 0x00, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xDE, 0x73, 0x7D, 0x56, 0xD3, 0x8B, 0xCF, 0x42, 0x79, 0xDC, 0xE5, 0x61, 0x7E, 0x31, 0x92, 0xA8,
];

/// Whether r‖s has the smaller of the two possible `s`.
fn is_low_s(signature: &[u8]) -> bool {
    signature.len() == P256_SIGNATURE_OCTETS
        && signature.get(32..).is_some_and(|s| s <= P256_ORDER_HALF.as_slice())
}

/// r‖s with the smaller `s`; `None` unless `signature` has 64 octets and `s` is below n.
#[must_use]
pub fn normalise_s(signature: &[u8]) -> Option<Vec<u8>> {
    let mut octets: [u8; P256_SIGNATURE_OCTETS] = signature.try_into().ok()?;
    let (_, s) = octets.split_at_mut(32);
    if *s >= *P256_ORDER.as_slice() {
        return None;
    }
    if *s > *P256_ORDER_HALF.as_slice() {
        let mut borrow = 0;
        for (digit, order) in s.iter_mut().zip(P256_ORDER).rev() {
            let difference = i16::from(order) - i16::from(*digit) - borrow;
            borrow = i16::from(difference < 0);
            *digit = difference.rem_euclid(256) as u8;
        }
    }
    Some(octets.to_vec())
}

/// Encodings of points of order 1, 2, 4 and 8, sign bit cleared (RFC 7748, curve25519 in
/// Edwards form); those not below p are refused by the canonical check already.
const ED25519_SMALL_ORDER: [[u8; 32]; 5] = [
    // y = 0, order 4
    [0; 32],
    // y = 1, order 1
    [
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0,
    ],
    // y = -1, order 2
    [
        0xEC, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
        0xFF, 0x7F,
    ],
    // order 8
    [
        0x26, 0xE8, 0x95, 0x8F, 0xC2, 0xB2, 0x27, 0xB0, 0x45, 0xC3, 0xF4, 0x89, 0xF2, 0xEF, 0x98,
        0xF0, 0xD5, 0xDF, 0xAC, 0x05, 0xD3, 0xC6, 0x33, 0x39, 0xB1, 0x38, 0x02, 0x88, 0x6D, 0x53,
        0xFC, 0x05,
    ],
    // order 8
    [
        0xC7, 0x17, 0x6A, 0x70, 0x3D, 0x4D, 0xD8, 0x4F, 0xBA, 0x3C, 0x0B, 0x76, 0x0D, 0x10, 0x67,
        0x0F, 0x2A, 0x20, 0x53, 0xFA, 0x2C, 0x39, 0xCC, 0xC6, 0x4E, 0xC7, 0xFD, 0x77, 0x92, 0xAC,
        0x03, 0x7A,
    ],
];

/// 2^255 − 19, little-endian: canonical encodings of y are below it.
const ED25519_PRIME: [u8; 32] = [
    0xED, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F,
];

fn is_good_ed25519(octets: &[u8]) -> bool {
    let Ok(mut y) = <[u8; ED25519_KEY_OCTETS]>::try_from(octets) else {
        return false;
    };
    y[31] &= 0x7F;
    let is_canonical = y.iter().rev().lt(ED25519_PRIME.iter().rev());
    is_canonical && !ED25519_SMALL_ORDER.contains(&y)
}

fn is_good_p256(octets: &[u8]) -> bool {
    octets.len() == P256_KEY_OCTETS
        && octets.first() == Some(&4)
        && aws::ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, octets).is_ok()
}

/// RSA keys of 3072 to 8192 bits in a SubjectPublicKeyInfo.
fn is_good_rsa(octets: &[u8]) -> bool {
    if octets.len() > RSA_KEY_OCTETS_MAX {
        return false;
    }
    let Ok(key) = aws_lc_rs::rsa::PublicEncryptingKey::from_der(octets) else {
        return false;
    };
    // AWS-LC reads past-the-end octets and other spellings; a key has one.
    let has_one_spelling =
        AsDer::<PublicKeyX509Der<'_>>::as_der(&key).is_ok_and(|der| der.as_ref() == octets);
    has_one_spelling && (3_072..=8_192).contains(&key.key_size_bits())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn software_signers_and_the_verifier_agree() {
        let signers = [
            SoftwareSigner::ed25519(&[7; 32]).unwrap(),
            SoftwareSigner::generate_p256().unwrap().0,
            SoftwareSigner::hybrid(&[7; 32], &[8; 32]).unwrap(),
        ];
        for signer in signers {
            let signature = signer.sign(b"message").unwrap();
            let key = signer.public_key();
            assert_eq!(key.verify(b"message", &signature), Ok(()));
            assert_eq!(key.verify(b"massage", &signature), Err(SignatureError::Signature));
            for position in 0..signature.len() {
                if position > 64 && position % 97 != 0 {
                    continue;
                }
                let mut changed = signature.clone();
                changed[position] ^= 1;
                assert!(key.verify(b"message", &changed).is_err(), "octet {position}");
            }
        }
    }

    #[test]
    fn weak_ed25519_keys_are_refused() {
        for mut key in ED25519_SMALL_ORDER {
            assert!(PublicKey::parse(Algorithm::Ed25519, &key).is_err());
            key[31] |= 0x80;
            assert!(PublicKey::parse(Algorithm::Ed25519, &key).is_err());
        }
        assert!(PublicKey::parse(Algorithm::Ed25519, &ED25519_PRIME).is_err());
        assert!(PublicKey::parse(Algorithm::Ed25519, &[9; 31]).is_err());
    }

    #[test]
    fn the_larger_s_is_refused_and_normalised_away() {
        let (signer, _) = SoftwareSigner::generate_p256().unwrap();
        let signature = signer.sign(b"m").unwrap();
        let mut high = signature.clone();
        let mut borrow = 0i16;
        for index in (32..64).rev() {
            let difference = i16::from(P256_ORDER[index - 32]) - i16::from(high[index]) - borrow;
            borrow = i16::from(difference < 0);
            high[index] = difference.rem_euclid(256) as u8;
        }
        assert!(signer.public_key().verify(b"m", &high).is_err());
        assert_eq!(normalise_s(&high), Some(signature));
        assert_eq!(normalise_s(&[0xFF; 64]), None);
    }

    #[test]
    fn points_off_the_curve_are_refused() {
        let (signer, _) = SoftwareSigner::generate_p256().unwrap();
        let mut point = signer.public_key().as_octets().to_vec();
        point[40] ^= 1;
        assert_eq!(PublicKey::parse(Algorithm::P256, &point), Err(SignatureError::Key));
    }
}
