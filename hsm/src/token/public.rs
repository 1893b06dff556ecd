//! Public keys of others, on their way into the token: checked first, then kept as session objects.
//!
//! What no token should see never reaches it: points off the curve, RSA moduli below 2,048 bits or
//! above 8,192, even or absurd exponents. Importing costs about as much as a third of a
//! verification, so each session keeps its last [`limits::PUBLIC_KEYS_CACHED_MAX`] keys, found by
//! a hash of algorithm and key; `C_FindObjects` is never called for a verification.

use std::collections::HashMap;

use aws_lc_rs::digest;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::error::Error;
use crate::job::Algorithm;
use crate::token::{code, key};
use crate::{limits, signature};

/// The object identifier of Ed25519 as most modules take it for `CKA_EC_PARAMS`: a PrintableString
/// of the curve's name (PKCS#11 v3.1 §6.3.5, and SoftHSM).
const ED25519_PARAMS: [u8; 14] =
    [0x13, 0x0c, b'e', b'd', b'w', b'a', b'r', b'd', b's', b'2', b'5', b'5', b'1', b'9'];

/// A public key that passed the checks.
#[derive(Debug, PartialEq, Eq)]
enum Checked {
    Ed25519([u8; 32]),
    P256(Vec<u8>),
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
}

fn check(algorithm: Algorithm, bytes: &[u8]) -> Result<Checked, Error> {
    match algorithm {
        Algorithm::Ed25519 => match <[u8; 32]>::try_from(bytes) {
            Ok(key) => Ok(Checked::Ed25519(key)),
            Err(_) => Err(Error::malformed("an Ed25519 key has 32 octets")),
        },
        Algorithm::P256 => {
            signature::check_point(bytes)?;
            Ok(Checked::P256(bytes.to_vec()))
        }
        Algorithm::Pss => check_rsa(bytes, 3_072),
        Algorithm::RsaPkcs1 => check_rsa(bytes, 2_048),
    }
}

fn check_rsa(spki: &[u8], bits_min: usize) -> Result<Checked, Error> {
    const EXPONENT_MIN: u64 = 65_537;
    const EXPONENT_MAX: u64 = (1 << 32) - 1;
    let malformed = |what| Err(Error::malformed(what));
    let Ok((rest, info)) = SubjectPublicKeyInfo::from_der(spki) else {
        return malformed("the RSA key is not a SubjectPublicKeyInfo");
    };
    if !rest.is_empty() {
        return malformed("there is something behind the RSA key");
    }
    let Ok(PublicKey::RSA(rsa)) = info.parsed() else {
        return malformed("the key is not an RSA key");
    };
    let bare = |number: &[u8]| {
        let first = number.iter().position(|&octet| octet != 0).unwrap_or(number.len());
        number.get(first..).unwrap_or_default().to_vec()
    };
    let (modulus, exponent) = (bare(rsa.modulus), bare(rsa.exponent));
    let bits =
        modulus.len() * 8 - modulus.first().map_or(0, |octet| octet.leading_zeros() as usize);
    if bits < bits_min || bits > 8_192 {
        return malformed("the RSA modulus has too few or too many bits");
    }
    if modulus.last().is_none_or(|octet| octet.is_multiple_of(2)) {
        return malformed("the RSA modulus is even");
    }
    let value = exponent.iter().take(9).fold(0_u64, |value, octet| value << 8 | u64::from(*octet));
    if exponent.len() > 4 || !(EXPONENT_MIN..=EXPONENT_MAX).contains(&value) || value % 2 == 0 {
        return malformed("the RSA exponent is not an odd number from 65537 to 2^32");
    }
    Ok(Checked::Rsa { modulus, exponent })
}

fn template(key: Checked) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::Token(false),
        Attribute::Private(false),
        Attribute::Verify(true),
    ];
    template.extend(match key {
        Checked::Ed25519(point) => [
            Attribute::KeyType(KeyType::EC_EDWARDS),
            Attribute::EcParams(ED25519_PARAMS.to_vec()),
            Attribute::EcPoint([&[0x04, 32][..], &point].concat()),
        ],
        Checked::P256(point) => [
            Attribute::KeyType(KeyType::EC),
            Attribute::EcParams(key::P256_OID.to_vec()),
            Attribute::EcPoint([&[0x04, 65][..], &point].concat()),
        ],
        Checked::Rsa { modulus, exponent } => [
            Attribute::KeyType(KeyType::RSA),
            Attribute::Modulus(modulus),
            Attribute::PublicExponent(exponent),
        ],
    });
    template
}

/// The public keys imported into one session, at most [`limits::PUBLIC_KEYS_CACHED_MAX`].
#[derive(Debug, Default)]
pub(super) struct Cache {
    held: HashMap<[u8; 32], (ObjectHandle, u64)>,
    clock: u64,
}

impl Cache {
    /// The object for a key; imports it if it is new.
    pub(super) fn object(
        &mut self,
        session: &Session,
        slot: u64,
        algorithm: Algorithm,
        bytes: &[u8],
    ) -> Result<ObjectHandle, Error> {
        self.clock += 1;
        let hash = Self::hash(algorithm, bytes);
        if let Some((handle, used)) = self.held.get_mut(&hash) {
            *used = self.clock;
            return Ok(*handle);
        }
        let template = template(check(algorithm, bytes)?);
        if self.held.len() >= limits::PUBLIC_KEYS_CACHED_MAX {
            let oldest = self.held.iter().min_by_key(|(_, (_, used))| *used).map(|(hash, _)| *hash);
            if let Some((handle, _)) = oldest.and_then(|hash| self.held.remove(&hash)) {
                session.destroy_object(handle).map_err(|error| code::error(Some(slot), error))?;
            }
        }
        let handle =
            session.create_object(&template).map_err(|error| code::error(Some(slot), error))?;
        self.held.insert(hash, (handle, self.clock));
        Ok(handle)
    }

    fn hash(algorithm: Algorithm, bytes: &[u8]) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&[algorithm.code()]);
        context.update(bytes);
        context.finish().as_ref().first_chunk().copied().unwrap_or([0; 32])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// SubjectPublicKeyInfo of an RSA key with this modulus and exponent.
    fn spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
        fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
            let body = parts.concat();
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            let length = match body.len() {
                0..128 => vec![length[1]],
                128..256 => vec![0x81, length[1]],
                _ => vec![0x82, length[0], length[1]],
            };
            [&[tag][..], &length, &body].concat()
        }
        fn integer(digits: &[u8]) -> Vec<u8> {
            let is_high = digits.first().is_none_or(|octet| octet & 0x80 != 0);
            tlv(2, &[if is_high { &[0] } else { &[] }, digits])
        }
        let key = tlv(0x30, &[&integer(modulus), &integer(exponent)]);
        let algorithm = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
        tlv(0x30, &[&algorithm, &tlv(3, &[&[0], &key])])
    }

    #[test]
    fn rsa_keys() {
        let modulus = |octets: usize| vec![0xc1; octets];
        let even = [&[0xc1; 255][..], &[0xc0]].concat();
        for (name, key, pkcs1, pss) in [
            ("2048", spki(&modulus(256), &[1, 0, 1]), true, false),
            ("3072", spki(&modulus(384), &[1, 0, 1]), true, true),
            ("8192", spki(&modulus(1024), &[1, 0, 1]), true, true),
            ("2040", spki(&modulus(255), &[1, 0, 1]), false, false),
            ("8200", spki(&modulus(1025), &[1, 0, 1]), false, false),
            ("even modulus", spki(&even, &[1, 0, 1]), false, false),
            ("zero modulus", spki(&[0; 256], &[1, 0, 1]), false, false),
            ("exponent 1", spki(&modulus(384), &[1]), false, false),
            ("exponent 3", spki(&modulus(384), &[3]), false, false),
            ("exponent 65536", spki(&modulus(384), &[1, 0, 0]), false, false),
            ("exponent 2^32+1", spki(&modulus(384), &[1, 0, 0, 0, 1]), false, false),
            ("exponent of 384 octets", spki(&modulus(384), &modulus(384)), false, false),
            ("no exponent", spki(&modulus(384), &[]), false, false),
            ("nothing", vec![], false, false),
            ("half", spki(&modulus(384), &[1, 0, 1])[..200].to_vec(), false, false),
            ("more", [&spki(&modulus(384), &[1, 0, 1])[..], &[0]].concat(), false, false),
        ] {
            assert_eq!(check(Algorithm::RsaPkcs1, &key).is_ok(), pkcs1, "{name}");
            assert_eq!(check(Algorithm::Pss, &key).is_ok(), pss, "{name}");
        }
    }

    #[test]
    fn other_keys() {
        assert!(check(Algorithm::Ed25519, &[1; 32]).is_ok());
        assert!(check(Algorithm::Ed25519, &[1; 33]).is_err());
        assert!(check(Algorithm::Ed25519, &[]).is_err());
        assert!(check(Algorithm::P256, &[4; 65]).is_err());
    }
}
