//! Signatures that OpenSSL 3.0 made, checked by our verifier.
//!
//! `openssl dgst -sha256 -sign k.pem`, for PSS with `-sigopt rsa_padding_mode:pss -sigopt
//! rsa_pss_saltlen:32`; keys by `openssl pkey -pubout -outform DER`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use protocol::base64;
use protocol::signature::{Algorithm, PublicKey, SignatureError, normalise_s};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/openssl.json")).unwrap()
}

fn octets(value: &Value) -> Vec<u8> {
    base64::decode(value.as_str().unwrap()).unwrap()
}

#[test]
fn rsa_pss() {
    let vectors = vectors();
    let message = vectors["message"].as_str().unwrap().as_bytes();
    let part = &vectors["pss"];
    let key = PublicKey::parse(Algorithm::Pss, &octets(&part["key"])).unwrap();
    let signature = octets(&part["salt32"]);
    assert_eq!(key.verify(message, &signature), Ok(()));
    for position in (0..signature.len()).step_by(17) {
        let mut changed = signature.clone();
        changed[position] ^= 1;
        assert!(key.verify(message, &changed).is_err(), "octet {position}");
    }
    assert!(key.verify(b"another", &signature).is_err());
    assert!(key.verify(message, &signature[1..]).is_err());
    assert!(key.verify(message, &[&[0], &*signature].concat()).is_err());
    for other in ["salt20", "pkcs1"] {
        assert!(key.verify(message, &octets(&part[other])).is_err(), "{other}");
    }
}

#[test]
fn rsa_keys_that_are_too_short_or_malformed() {
    let vectors = vectors();
    let short = octets(&vectors["rsa2048"]["key"]);
    assert_eq!(PublicKey::parse(Algorithm::Pss, &short), Err(SignatureError::Key));
    let good = octets(&vectors["pss"]["key"]);
    for length in [0, 1, 40, good.len() - 1] {
        assert!(PublicKey::parse(Algorithm::Pss, &good[..length]).is_err(), "{length}");
    }
    let longer = [&*good, &[0]].concat();
    assert!(PublicKey::parse(Algorithm::Pss, &longer).is_err(), "octets behind the key");
    let padded = [vec![0x30, 0x82, 0xFF, 0xFF], vec![0; 2_000]].concat();
    assert!(PublicKey::parse(Algorithm::Pss, &padded).is_err());
}

#[test]
fn ecdsa_with_the_larger_s_is_refused_until_normalised() {
    let vectors = vectors();
    let message = vectors["message"].as_str().unwrap().as_bytes();
    let key = PublicKey::parse(Algorithm::P256, &octets(&vectors["p256"]["key"])).unwrap();
    let high = octets(&vectors["p256"]["signature"]);
    assert!(high[32] >= 0x80, "OpenSSL gave the larger s");
    assert_eq!(key.verify(message, &high), Err(SignatureError::Signature));
    let low = normalise_s(&high).unwrap();
    assert_eq!(key.verify(message, &low), Ok(()));
    assert_eq!(normalise_s(&low), Some(low));
}
