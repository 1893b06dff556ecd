//! The cipher suites: how a session key travels to a device and how a message is sealed.
//!
//! Owns the table of suites and nothing that changes: every function takes keys and octets. The
//! invariant: nothing here falls back; a suite is what the signed record and the offer say
//! (SPEC.md §7). Legacy suites have no chunk cipher and a hard volume limit.

mod agreement;
mod kem;
mod message;
mod wrap;

use core::fmt;

pub use agreement::{
    Agreement, Curve, KeyHolder, P256_PUBLIC_OCTETS, SoftwareHolder, SoftwareKey,
    X25519_PUBLIC_OCTETS,
};
pub use kem::{
    CIPHERTEXT_OCTETS, ENCAPSULATION_KEY_OCTETS, EncapsulationKey, KemSecret, SEED_OCTETS,
};
pub use message::{
    COMMITMENT_OCTETS, MessageKey, TAG_OCTETS, commitment, is_commitment, open, open_receipt, seal,
    seal_receipt,
};
pub use wrap::{
    DeviceKeys, LegacyKey, LegacySecret, OfferKeys, RSA_BITS_MIN, WRAPPED_OCTETS, unwrap_legacy,
    unwrap_seed, wrap_legacy, wrap_seed,
};

use crate::random::NoRandom;

/// A cipher suite by its name in `SUITE=` and `SUITES=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// X25519 + ML-KEM-768, AES-256-GCM.
    M1,
    /// P-256 + ML-KEM-768, AES-256-GCM.
    M2,
    /// X25519 + ML-KEM-768, ChaCha20-Poly1305.
    M3,
    /// RSA-OAEP, 3DES-CBC with HMAC-SHA-256: legacy.
    L1,
    /// RSA-OAEP, Blowfish-128-CBC with HMAC-SHA-256: legacy.
    L2,
}

impl Suite {
    /// All suites, the one most worth choosing first.
    pub const ALL: [Self; 5] = [Self::M1, Self::M2, Self::M3, Self::L1, Self::L2];

    /// The suite with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::M1 => "M1",
            Self::M2 => "M2",
            Self::M3 => "M3",
            Self::L1 => "L1",
            Self::L2 => "L2",
        }
    }

    /// Whether the suite is offered only for old times' sake, and shown so.
    #[must_use]
    pub const fn is_legacy(self) -> bool {
        matches!(self, Self::L1 | Self::L2)
    }

    /// The curve of the key transport; legacy suites have none.
    #[must_use]
    pub const fn curve(self) -> Option<Curve> {
        match self {
            Self::M1 | Self::M3 => Some(Curve::X25519),
            Self::M2 => Some(Curve::P256),
            Self::L1 | Self::L2 => None,
        }
    }

    /// Octets of the tag that is the body of a receipt.
    #[must_use]
    pub const fn receipt_octets(self) -> usize {
        if self.is_legacy() { 32 } else { TAG_OCTETS }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a key or a sealed text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SuiteError {
    /// Malformed: a public key off its curve, of the wrong length or form.
    #[error("a public key is malformed")]
    Key,
    /// Misbehaved: the body does not open under the key it names.
    #[error("the sealed body does not open")]
    Sealed,
    /// Misuse: the suite has no such operation.
    #[error("the suite cannot do that")]
    Unsupported,
    /// Resource: no random octets.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

#[cfg(test)]
mod tests;
