//! Private signature keys as the key file holds them.
//!
//! Owns the forms in which a software key can be written down; each makes a
//! [`SoftwareSigner`]. A key in a token has no such form: its signer comes from elsewhere.

use protocol::signature::{SignatureError, SoftwareSigner};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::random::{self, NoRandom, Random};
use crate::secret::{Secret, Secret32};

/// A private signature key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SigningSecret {
    /// The seed of an Ed25519 key.
    Ed25519(Secret32),
    /// The PKCS#8 document of a P-256 key.
    P256(Document),
    /// The seeds of a hybrid key: Ed25519, then ML-DSA-65.
    Hybrid(Secret<64>),
}

/// A PKCS#8 document, in base64 where it is written down; prints nothing.
#[derive(Clone)]
pub struct Document(Zeroizing<Vec<u8>>);

impl SigningSecret {
    /// A new Ed25519 key.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn generate_ed25519(random: &mut dyn Random) -> Result<Self, NoRandom> {
        random::secret(random).map(Self::Ed25519)
    }

    /// A new P-256 key; AWS-LC draws it from its own generator.
    ///
    /// # Errors
    /// [`SignatureError::Signer`].
    pub fn generate_p256() -> Result<Self, SignatureError> {
        let (_, document) = SoftwareSigner::generate_p256()?;
        Ok(Self::P256(Document(document)))
    }

    /// A new hybrid key.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn generate_hybrid(random: &mut dyn Random) -> Result<Self, NoRandom> {
        random::secret(random).map(Self::Hybrid)
    }

    /// The key, ready to sign.
    ///
    /// # Errors
    /// [`SignatureError::Key`] for octets that are no such key.
    pub fn to_signer(&self) -> Result<SoftwareSigner, SignatureError> {
        match self {
            Self::Ed25519(seed) => SoftwareSigner::ed25519(seed.expose()),
            Self::P256(document) => SoftwareSigner::p256(&document.0),
            Self::Hybrid(seeds) => {
                let halves = seeds.expose().as_chunks::<32>();
                let ([classic, lattice], []) = halves else { return Err(SignatureError::Key) };
                SoftwareSigner::hybrid(classic, lattice)
            }
        }
    }
}

impl core::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SigningSecret(..)")
    }
}

impl Serialize for Document {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(protocol::base64::encode(&self.0)))
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let octets = protocol::base64::decode(&text);
        octets
            .map(|octets| Self(Zeroizing::new(octets)))
            .map_err(|what| serde::de::Error::custom(what.text()))
    }
}
