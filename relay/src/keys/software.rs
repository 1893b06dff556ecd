//! Keys in this process's memory: tests, trials and machines without a token.
//!
//! Owns three P-256 keys and one AES-256 wrapping key (RFC 3394, as the token's `AES_KEY_WRAP`).
//! Invariant: [`SoftwareKeys::export`] is the only way out for them. The switch
//! [`SoftwareKeys::set_away`] imitates a token that was pulled. PROTOCOL §13.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use zeroize::Zeroizing;

use super::{
    DATA_KEY_LENGTH, KeyError, KeyService, MESSAGE_LENGTH_MAX, PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH,
    SigningKeyName, WrappedKey,
};

/// What an absent token suggests for the next attempt.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Octets of a data key wrapped by RFC 3394.
const WRAPPED_LENGTH: usize = DATA_KEY_LENGTH + 8;

/// First octets of an exported key set.
const EXPORT_MAGIC: &[u8; 8] = b"CIMKEYS1";

/// Half the order of P-256, big-endian: the largest s that counts as low.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xde, 0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

/// The order of P-256, big-endian.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// A [`KeyService`] whose keys live in memory.
pub struct SoftwareKeys {
    domain: EcdsaKeyPair,
    log: EcdsaKeyPair,
    tls: EcdsaKeyPair,
    wrapping: Zeroizing<[u8; 32]>,
    away: AtomicBool,
    calls: AtomicU64,
}

impl SoftwareKeys {
    /// Makes a fresh set of keys.
    ///
    /// # Errors
    /// [`KeyError::Refused`] if the system's generator fails.
    pub fn generate() -> Result<Self, KeyError> {
        let mut wrapping = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(wrapping.as_mut()).map_err(|_| refused("random octets"))?;
        let pair = || {
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
                .map_err(|_| refused("generating a P-256 key"))
        };
        Ok(Self::assemble([pair()?, pair()?, pair()?], wrapping))
    }

    /// Takes a set that [`SoftwareKeys::export`] wrote.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] if it is not such a set.
    pub fn import(octets: &[u8]) -> Result<Self, KeyError> {
        let mut rest =
            octets.strip_prefix(EXPORT_MAGIC).ok_or_else(|| malformed("not a set of keys"))?;
        let mut wrapping = Zeroizing::new([0; 32]);
        wrapping.copy_from_slice(take(&mut rest, 32)?);
        let mut pair = || {
            let length = take(&mut rest, 2)?;
            let length = length.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet));
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, take(&mut rest, length)?)
                .map_err(|_| malformed("a key is not PKCS#8 P-256"))
        };
        let pairs = [pair()?, pair()?, pair()?];
        if !rest.is_empty() {
            return Err(malformed("octets after the last key"));
        }
        Ok(Self::assemble(pairs, wrapping))
    }

    /// Writes the secret keys, unprotected, for a file that only the relay's user may read.
    ///
    /// # Errors
    /// [`KeyError::Refused`] if the provider cannot serialise a key.
    pub fn export(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let mut out = Zeroizing::new(Vec::with_capacity(1024));
        out.extend_from_slice(EXPORT_MAGIC);
        out.extend_from_slice(self.wrapping.as_ref());
        for name in SigningKeyName::ALL {
            let document =
                self.pair(name).to_pkcs8v1().map_err(|_| refused("serialising a key"))?;
            let length =
                u16::try_from(document.as_ref().len()).map_err(|_| refused("a key's length"))?;
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(document.as_ref());
        }
        Ok(out)
    }

    /// From now on answers every call but [`KeyService::random`] as a pulled token does, or no
    /// longer.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// How many wraps, unwraps and signatures were asked for so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn assemble(pairs: [EcdsaKeyPair; 3], wrapping: Zeroizing<[u8; 32]>) -> Self {
        let [domain, log, tls] = pairs;
        Self { domain, log, tls, wrapping, away: AtomicBool::new(false), calls: AtomicU64::new(0) }
    }

    const fn pair(&self, key: SigningKeyName) -> &EcdsaKeyPair {
        match key {
            SigningKeyName::Domain => &self.domain,
            SigningKeyName::Log => &self.log,
            SigningKeyName::Tls => &self.tls,
        }
    }

    fn present(&self) -> Result<(), KeyError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(KeyError::Away {
                retry_after: RETRY_AFTER,
                text: "the software keys are switched away".to_owned(),
            });
        }
        Ok(())
    }

    fn kek(&self) -> Result<AesKek, KeyError> {
        AesKek::new(&AES_256, self.wrapping.as_ref()).map_err(|_| refused("the wrapping key"))
    }
}

impl KeyService for SoftwareKeys {
    fn sign(&self, key: SigningKeyName, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.present()?;
        if message.len() > MESSAGE_LENGTH_MAX {
            return Err(malformed("the message is too long to sign"));
        }
        let signature = self
            .pair(key)
            .sign(&SystemRandom::new(), message)
            .map_err(|_| refused("signing with P-256"))?;
        let mut signature = signature.as_ref().to_vec();
        if signature.len() != SIGNATURE_LENGTH {
            return Err(refused("a P-256 signature of another length"));
        }
        lower_s(&mut signature);
        Ok(signature)
    }

    fn public_key(&self, key: SigningKeyName) -> Result<[u8; PUBLIC_KEY_LENGTH], KeyError> {
        self.present()?;
        self.pair(key)
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| refused("a public key of another length"))
    }

    fn wrap(&self, key: &[u8; DATA_KEY_LENGTH]) -> Result<WrappedKey, KeyError> {
        self.present()?;
        let mut out = [0; WRAPPED_LENGTH];
        let wrapped = self.kek()?.wrap(key, &mut out).map_err(|_| refused("wrapping"))?;
        WrappedKey::new(wrapped)
    }

    fn unwrap(&self, key: &WrappedKey) -> Result<Zeroizing<[u8; DATA_KEY_LENGTH]>, KeyError> {
        self.present()?;
        let mut out = Zeroizing::new([0; WRAPPED_LENGTH]);
        let opened = self
            .kek()?
            .unwrap(key.octets(), out.as_mut())
            .map_err(|_| malformed("a wrapped key does not open"))?;
        let opened = <&[u8; DATA_KEY_LENGTH]>::try_from(&*opened)
            .map_err(|_| malformed("a wrapped key of another length"))?;
        Ok(Zeroizing::new(*opened))
    }

    #[expect(clippy::expect_used, reason = "the system's generator fails only before it is seeded")]
    fn random(&self, octets: &mut [u8]) {
        aws_lc_rs::rand::fill(octets).expect("the system has random octets");
    }
}

/// Replaces s by order − s where s is high. `signature` is r ‖ s.
fn lower_s(signature: &mut [u8]) {
    let Some(s) = signature.last_chunk_mut::<32>() else {
        return;
    };
    if *s <= HALF_ORDER {
        return;
    }
    let mut borrow = false;
    for (digit, order) in s.iter_mut().zip(ORDER).rev() {
        let (difference, first) = order.overflowing_sub(*digit);
        let (difference, second) = difference.overflowing_sub(u8::from(borrow));
        borrow = first || second;
        *digit = difference;
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], KeyError> {
    let (taken, left) =
        rest.split_at_checked(length).ok_or_else(|| malformed("a set of keys ends early"))?;
    *rest = left;
    Ok(taken)
}

fn malformed(text: &str) -> KeyError {
    KeyError::Malformed { text: text.to_owned() }
}

fn refused(text: &str) -> KeyError {
    KeyError::Refused { text: text.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    #[test]
    fn signatures_verify_and_are_low() {
        let keys = SoftwareKeys::generate().unwrap();
        for name in SigningKeyName::ALL {
            let public = keys.public_key(name).unwrap();
            for round in 0..16_u8 {
                let message = [round; 40];
                let signature = keys.sign(name, &message).unwrap();
                assert!(signature[32..] <= HALF_ORDER[..]);
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public)
                    .verify(&message, &signature)
                    .unwrap();
            }
        }
        assert_ne!(
            keys.public_key(SigningKeyName::Domain).unwrap(),
            keys.public_key(SigningKeyName::Tls).unwrap()
        );
    }

    #[test]
    fn low_s_is_the_negative_of_high_s() {
        let mut low = [0; 64];
        low[63] = 1;
        let kept = low;
        lower_s(&mut low);
        assert_eq!(low, kept);
        // order − 1 becomes 1; half the order stays; half plus one becomes half.
        let mut high = [0; 64];
        high[32..].copy_from_slice(&ORDER);
        high[63] -= 1;
        lower_s(&mut high);
        assert_eq!(high, kept);
        let mut half = [0; 64];
        half[32..].copy_from_slice(&HALF_ORDER);
        let kept = half;
        lower_s(&mut half);
        assert_eq!(half, kept);
        half[63] += 1;
        lower_s(&mut half);
        assert_eq!(half, kept);
    }

    #[test]
    fn wrapped_keys_open_and_damaged_ones_do_not() {
        let keys = SoftwareKeys::generate().unwrap();
        let wrapped = keys.wrap(&[7; 32]).unwrap();
        assert_eq!(*keys.unwrap(&wrapped).unwrap(), [7; 32]);
        for position in 0..wrapped.octets().len() {
            let mut damaged = wrapped.octets().to_vec();
            damaged[position] ^= 1;
            let damaged = WrappedKey::new(&damaged).unwrap();
            assert!(matches!(keys.unwrap(&damaged), Err(KeyError::Malformed { .. })));
        }
        for length in [1, 8, 16, 24, 39, 41, 48, WrappedKey::LENGTH_MAX] {
            let wrong = WrappedKey::new(&vec![1; length]).unwrap();
            assert!(matches!(keys.unwrap(&wrong), Err(KeyError::Malformed { .. })), "{length}");
        }
        assert!(WrappedKey::new(&[]).is_err());
        assert!(WrappedKey::new(&[0; WrappedKey::LENGTH_MAX + 1]).is_err());
        let other = SoftwareKeys::generate().unwrap();
        assert!(matches!(other.unwrap(&wrapped), Err(KeyError::Malformed { .. })));
    }

    #[test]
    fn away_refuses_all_but_random_and_says_when_to_retry() {
        let keys = SoftwareKeys::generate().unwrap();
        let wrapped = keys.wrap(&[1; 32]).unwrap();
        keys.set_away(true);
        let errors = [
            keys.sign(SigningKeyName::Tls, b"x").unwrap_err(),
            keys.public_key(SigningKeyName::Tls).unwrap_err(),
            keys.wrap(&[1; 32]).unwrap_err(),
            keys.unwrap(&wrapped).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.retry_after(), Some(RETRY_AFTER));
            assert!(!error.remedy().is_empty());
        }
        let mut octets = [0; 32];
        keys.random(&mut octets);
        assert_ne!(octets, [0; 32]);
        keys.set_away(false);
        assert!(keys.unwrap(&wrapped).is_ok());
    }

    #[test]
    fn an_exported_set_works_like_the_first() {
        let keys = SoftwareKeys::generate().unwrap();
        let wrapped = keys.wrap(&[9; 32]).unwrap();
        let exported = keys.export().unwrap();
        let again = SoftwareKeys::import(&exported).unwrap();
        assert_eq!(*again.unwrap(&wrapped).unwrap(), [9; 32]);
        for name in SigningKeyName::ALL {
            assert_eq!(keys.public_key(name).unwrap(), again.public_key(name).unwrap());
        }
        for length in 0..exported.len() {
            assert!(SoftwareKeys::import(&exported[..length]).is_err(), "{length}");
        }
        let mut long = exported.to_vec();
        long.push(0);
        assert!(SoftwareKeys::import(&long).is_err());
    }

    #[test]
    fn a_message_of_the_limit_signs_and_one_more_does_not() {
        let keys = SoftwareKeys::generate().unwrap();
        assert!(keys.sign(SigningKeyName::Log, &vec![0; MESSAGE_LENGTH_MAX]).is_ok());
        let error = keys.sign(SigningKeyName::Log, &vec![0; MESSAGE_LENGTH_MAX + 1]).unwrap_err();
        assert!(matches!(error, KeyError::Malformed { .. }));
    }
}
