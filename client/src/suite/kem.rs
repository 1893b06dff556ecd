//! ML-KEM-768 with private keys as seeds of 64 octets (FIPS 203).
//!
//! Owns the two halves of a key. The invariant: an encapsulation key that fails the modulus check
//! of FIPS 203 §7.2 is never used. Decapsulation of a forged ciphertext gives an unrelated secret
//! (implicit rejection); the key wrap around it then refuses.

use ml_kem::{Decapsulate as _, KeyExport as _, MlKem768};
use zeroize::Zeroize as _;

use super::SuiteError;
use crate::random::{self, Random};
use crate::secret::{Secret, Secret32};

/// Octets of a public (encapsulation) key.
pub const ENCAPSULATION_KEY_OCTETS: usize = 1_184;
/// Octets of a ciphertext.
pub const CIPHERTEXT_OCTETS: usize = 1_088;
/// Octets of a private key: d ‖ z.
pub const SEED_OCTETS: usize = 64;

/// A public key that passed the modulus check.
#[derive(Clone)]
pub struct EncapsulationKey(ml_kem::EncapsulationKey<MlKem768>);

impl EncapsulationKey {
    /// Reads and checks a key of [`ENCAPSULATION_KEY_OCTETS`].
    ///
    /// # Errors
    /// [`SuiteError::Key`].
    pub fn parse(octets: &[u8]) -> Result<Self, SuiteError> {
        let octets = octets.try_into().map_err(|_| SuiteError::Key)?;
        ml_kem::EncapsulationKey::new(octets).map(Self).map_err(|_| SuiteError::Key)
    }

    /// A ciphertext for the holder of the seed, and the secret it carries.
    ///
    /// # Errors
    /// [`SuiteError::Random`].
    pub fn encapsulate(&self, random: &mut dyn Random) -> Result<(Vec<u8>, Secret32), SuiteError> {
        let message = random::secret::<32>(random)?;
        let mut message = ml_kem::B32::from(*message.expose());
        let (ciphertext, mut shared) = self.0.encapsulate_deterministic(&message);
        message.zeroize();
        let secret = Secret32::from_slice(&shared).ok_or(SuiteError::Key)?;
        shared.zeroize();
        Ok((ciphertext.to_vec(), secret))
    }
}

/// A private key.
pub struct KemSecret(ml_kem::DecapsulationKey<MlKem768>);

impl KemSecret {
    /// A new key and its seed.
    ///
    /// # Errors
    /// [`SuiteError::Random`].
    pub fn generate(random: &mut dyn Random) -> Result<(Self, Secret<SEED_OCTETS>), SuiteError> {
        let seed = random::secret(random)?;
        Ok((Self::from_seed(&seed), seed))
    }

    /// The key that `seed` makes.
    #[must_use]
    pub fn from_seed(seed: &Secret<SEED_OCTETS>) -> Self {
        let mut seed = ml_kem::Seed::from(*seed.expose());
        let key = Self(ml_kem::DecapsulationKey::from_seed(seed));
        seed.zeroize();
        key
    }

    /// The public half, [`ENCAPSULATION_KEY_OCTETS`].
    #[must_use]
    pub fn public(&self) -> Vec<u8> {
        self.0.encapsulation_key().to_bytes().to_vec()
    }

    /// The secret that `ciphertext` carries.
    ///
    /// # Errors
    /// [`SuiteError::Sealed`] for a ciphertext of another length.
    pub fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret32, SuiteError> {
        let mut shared = self.0.decapsulate_slice(ciphertext).map_err(|_| SuiteError::Sealed)?;
        let secret = Secret32::from_slice(&shared).ok_or(SuiteError::Sealed);
        shared.zeroize();
        secret
    }
}
