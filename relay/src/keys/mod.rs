//! The key service: signatures, key wrapping and random octets, wherever the keys live.
//!
//! Owns the trait [`KeyService`] and what passes through it; the adapters are [`software`] (keys in
//! this process: tests and machines without a token) and [`token`] (keys in a PKCS#11 token,
//! reached through `cipherim-hsmd`). Invariant: no private or wrapping key crosses this interface,
//! only signatures, wrapped blobs and the 32-octet data keys that the caller has wrapped or opened.
//! Every call blocks, within the adapter's deadline, and so belongs on a thread that may block.
//! Limits: [`WrappedKey::LENGTH_MAX`], [`MESSAGE_LENGTH_MAX`]. PROTOCOL §13.

pub mod software;
pub mod token;

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

/// Octets of an uncompressed P-256 point: `04`, x, y.
pub const PUBLIC_KEY_LENGTH: usize = 65;

/// Octets of a P-256 signature in the form used by the protocol: r, then s, 32 each, s low.
pub const SIGNATURE_LENGTH: usize = 64;

/// Octets of a data key.
pub const DATA_KEY_LENGTH: usize = 32;

/// Longest message that [`KeyService::sign`] takes, in octets.
pub const MESSAGE_LENGTH_MAX: usize = hsm::limits::MESSAGE_BYTES_MAX;

/// The relay's keys that sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SigningKeyName {
    /// The domain's identity: records and federation.
    Domain,
    /// Bounces and, later, the directory's log.
    Log,
    /// The key of the TLS certificate.
    Tls,
}

impl SigningKeyName {
    /// Every name, in order.
    pub const ALL: [Self; 3] = [Self::Domain, Self::Log, Self::Tls];

    /// The name that people and configuration files use.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Log => "log",
            Self::Tls => "tls",
        }
    }
}

impl fmt::Display for SigningKeyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text())
    }
}

/// A data key that only the service can open again. Safe to write to disk.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey(Box<[u8]>);

impl WrappedKey {
    /// Longest blob that a service may hand out, in octets.
    pub const LENGTH_MAX: usize = hsm::limits::BLOB_BYTES_MAX;

    /// Takes a blob that [`WrappedKey::octets`] gave out earlier.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] if it is empty or longer than [`WrappedKey::LENGTH_MAX`].
    pub fn new(octets: &[u8]) -> Result<Self, KeyError> {
        if octets.is_empty() || octets.len() > Self::LENGTH_MAX {
            return Err(KeyError::Malformed {
                text: format!(
                    "a wrapped key has 1 to {} octets, this one {}",
                    Self::LENGTH_MAX,
                    octets.len()
                ),
            });
        }
        Ok(Self(octets.into()))
    }

    /// The blob.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WrappedKey(..)")
    }
}

/// Why the service did not do it, by what helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The token is away or too slow; the same call may succeed later.
    #[error("the key service is away: {text}")]
    Away {
        /// When to try again.
        retry_after: Duration,
        /// What was seen: slot, function, code.
        text: String,
    },
    /// A blob or a message has not the form it should have. Trying again does not help.
    #[error("malformed input for the key service: {text}")]
    Malformed {
        /// What is wrong with it.
        text: String,
    },
    /// The service will not do this: key missing, mechanism forbidden, PIN refused.
    #[error("the key service refused: {text}")]
    Refused {
        /// What was asked and the answer: slot, function, code.
        text: String,
    },
}

impl KeyError {
    /// What a person can do about it, one sentence.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Away { .. } => {
                "plug the token in and check that cipherim-hsmd runs; the relay goes on by itself"
            }
            Self::Malformed { .. } => {
                "the blob was damaged or was wrapped by another token: check which token is in use"
            }
            Self::Refused { .. } => "check the token's keys and PIN (`cipherim-hsmd doctor`)",
        }
    }

    /// When the same call is worth trying again; `None` if it is not.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Away { retry_after, .. } => Some(*retry_after),
            Self::Malformed { .. } | Self::Refused { .. } => None,
        }
    }
}

/// What the relay asks of its keys. Every call blocks for at most the adapter's deadline.
pub trait KeyService: Send + Sync {
    /// Signs `message` with ECDSA P-256 over SHA-256: r ‖ s, 64 octets, s at most half the order.
    ///
    /// # Errors
    /// [`KeyError`]; [`KeyError::Malformed`] if `message` exceeds [`MESSAGE_LENGTH_MAX`].
    fn sign(&self, key: SigningKeyName, message: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// The public part of `key`, an uncompressed point.
    ///
    /// # Errors
    /// [`KeyError`].
    fn public_key(&self, key: SigningKeyName) -> Result<[u8; PUBLIC_KEY_LENGTH], KeyError>;

    /// Wraps a data key under the spool key.
    ///
    /// # Errors
    /// [`KeyError`].
    fn wrap(&self, key: &[u8; DATA_KEY_LENGTH]) -> Result<WrappedKey, KeyError>;

    /// Opens what [`KeyService::wrap`] made.
    ///
    /// # Errors
    /// [`KeyError`]; [`KeyError::Malformed`] if the blob is damaged or another key made it.
    fn unwrap(&self, key: &WrappedKey) -> Result<Zeroizing<[u8; DATA_KEY_LENGTH]>, KeyError>;

    /// Fills `octets` with random octets. Never waits for the token: where the token has a
    /// generator, its octets are mixed with the system's.
    fn random(&self, octets: &mut [u8]);
}
