//! Key agreement on X25519 and P-256, with private keys that may sit elsewhere.
//!
//! Owns the two curves behind one trait, [`Agreement`]. The invariant: an agreed secret comes only
//! from a point on the curve, and is never all zeros (RFC 7748 §6.1, NIST SP 800-56A §5.6.2.3).
//! [`KeyHolder`] is how P-256 private keys of suite M2 may live in a token: the state file then
//! holds a handle and no key.

use aws_lc_rs::agreement::{self, ECDH_P256, UnparsedPublicKey, X25519};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::SuiteError;
use crate::limits;
use crate::random::{self, Random};
use crate::secret::Secret32;

/// Octets of an X25519 public key.
pub const X25519_PUBLIC_OCTETS: usize = 32;
/// Octets of an uncompressed P-256 point.
pub const P256_PUBLIC_OCTETS: usize = 65;

/// A curve for key agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Curve {
    /// RFC 7748.
    X25519,
    /// SEC 2 secp256r1.
    P256,
}

impl Curve {
    /// Octets of a public key as the wire has it.
    #[must_use]
    pub const fn public_octets(self) -> usize {
        match self {
            Self::X25519 => X25519_PUBLIC_OCTETS,
            Self::P256 => P256_PUBLIC_OCTETS,
        }
    }

    const fn algorithm(self) -> &'static agreement::Algorithm {
        match self {
            Self::X25519 => &X25519,
            Self::P256 => &ECDH_P256,
        }
    }
}

/// A private key that agrees on a secret with a public one.
pub trait Agreement {
    /// The public half as the wire has it.
    fn public(&self) -> &[u8];
    /// The curve of both halves.
    fn curve(&self) -> Curve;
    /// The secret shared with the holder of `peer`'s private half.
    ///
    /// # Errors
    /// [`SuiteError::Key`] for a point off the curve or an all-zero secret.
    fn agree(&self, peer: &[u8]) -> Result<Secret32, SuiteError>;
}

/// A private key in memory.
pub struct SoftwareKey {
    curve: Curve,
    private: agreement::PrivateKey,
    public: Box<[u8]>,
}

impl SoftwareKey {
    /// A new key and its 32 secret octets.
    ///
    /// # Errors
    /// [`SuiteError::Random`].
    pub fn generate(curve: Curve, random: &mut dyn Random) -> Result<(Self, Secret32), SuiteError> {
        // A P-256 scalar outside 1..n is refused; the chance of one is 2^-32.
        for _ in 0..limits::KEY_GENERATION_TRIES_MAX {
            let secret = random::secret(random)?;
            if let Ok(key) = Self::from_secret(curve, &secret) {
                return Ok((key, secret));
            }
        }
        Err(SuiteError::Random(random::NoRandom))
    }

    /// The key with these secret octets: an X25519 scalar, or a P-256 scalar big-endian.
    ///
    /// # Errors
    /// [`SuiteError::Key`] if P-256 has no such scalar.
    pub fn from_secret(curve: Curve, secret: &Secret32) -> Result<Self, SuiteError> {
        let private = agreement::PrivateKey::from_private_key(curve.algorithm(), secret.expose())
            .map_err(|_| SuiteError::Key)?;
        let public = private.compute_public_key().map_err(|_| SuiteError::Key)?;
        Ok(Self { curve, private, public: public.as_ref().into() })
    }
}

impl Agreement for SoftwareKey {
    fn public(&self) -> &[u8] {
        &self.public
    }

    fn curve(&self) -> Curve {
        self.curve
    }

    fn agree(&self, peer: &[u8]) -> Result<Secret32, SuiteError> {
        if peer.len() != self.curve.public_octets() {
            return Err(SuiteError::Key);
        }
        let peer = UnparsedPublicKey::new(self.curve.algorithm(), peer);
        let shared = agreement::agree(&self.private, peer, SuiteError::Key, |octets| {
            Secret32::from_slice(octets).ok_or(SuiteError::Key)
        })?;
        if shared.expose().ct_eq(&[0; 32]).into() {
            return Err(SuiteError::Key);
        }
        Ok(shared)
    }
}

/// Where the P-256 private keys of suite M2 are made, used and destroyed.
///
/// A handle is what the state file keeps, sealed: with [`SoftwareHolder`] the key itself, with a
/// token the name of an object in it.
pub trait KeyHolder {
    /// Makes a key; returns its handle and its uncompressed public point.
    ///
    /// # Errors
    /// [`SuiteError::Random`], or [`SuiteError::Key`] if the holder refuses.
    fn generate(
        &mut self,
        random: &mut dyn Random,
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), SuiteError>;

    /// The key that `handle` names.
    ///
    /// # Errors
    /// [`SuiteError::Key`] if there is none.
    fn open(&self, handle: &[u8]) -> Result<Box<dyn Agreement>, SuiteError>;

    /// Destroys the key that `handle` names.
    fn erase(&mut self, handle: &[u8]);
}

/// Keeps P-256 keys in the state file: the handle is the key, and erasing it erases the key.
#[derive(Debug, Default)]
pub struct SoftwareHolder;

impl KeyHolder for SoftwareHolder {
    fn generate(
        &mut self,
        random: &mut dyn Random,
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), SuiteError> {
        let (key, secret) = SoftwareKey::generate(Curve::P256, random)?;
        Ok((Zeroizing::new(secret.expose().to_vec()), key.public().to_vec()))
    }

    fn open(&self, handle: &[u8]) -> Result<Box<dyn Agreement>, SuiteError> {
        let secret = Secret32::from_slice(handle).ok_or(SuiteError::Key)?;
        Ok(Box::new(SoftwareKey::from_secret(Curve::P256, &secret)?))
    }

    fn erase(&mut self, _handle: &[u8]) {}
}
