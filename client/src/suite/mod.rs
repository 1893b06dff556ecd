//! The cipher suites: how a session key travels to a device and how a message is sealed.
//!
//! Owns the table of suites and nothing that changes: every function takes keys and octets. The
//! invariant: nothing here falls back; a suite is what the signed record and the offer say
//! (SPEC.md §7). Legacy suites have no chunk cipher and a hard volume limit.

mod agreement;
mod kem;
mod message;
mod wrap;

pub use agreement::{
    Agreement, Curve, KeyHolder, P256_PUBLIC_OCTETS, SoftwareHolder, SoftwareKey,
    X25519_PUBLIC_OCTETS,
};
pub use kem::{
    CIPHERTEXT_OCTETS, ENCAPSULATION_KEY_OCTETS, EncapsulationKey, KemSecret, SEED_OCTETS,
};
pub use message::{
    COMMITMENT_OCTETS, MessageKey, commitment, is_commitment, open, open_receipt, seal,
    seal_receipt,
};
pub use wrap::{
    DeviceKeys, LegacyKey, LegacySecret, OfferKeys, RSA_BITS_MIN, WRAPPED_OCTETS, unwrap_legacy,
    unwrap_seed, wrap_legacy, wrap_seed,
};

pub use protocol::suite::Suite;

use protocol::message::LEGACY_TAG_OCTETS;
pub use protocol::message::TAG_OCTETS;

use crate::random::NoRandom;

/// The curve of a suite's key transport; legacy suites have none.
#[must_use]
pub const fn curve(suite: Suite) -> Option<Curve> {
    match suite {
        Suite::M1 | Suite::M3 => Some(Curve::X25519),
        Suite::M2 => Some(Curve::P256),
        _ => None,
    }
}

/// Octets of the tag that is the body of a receipt.
#[must_use]
pub const fn receipt_octets(suite: Suite) -> usize {
    if suite.is_legacy() { LEGACY_TAG_OCTETS } else { TAG_OCTETS }
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
