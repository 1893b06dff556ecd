//! How a session's one-time key GS travels to a device: hybrid key wrap, or RSA-OAEP for L suites.
//!
//! Owns the KEK of SPEC.md §7: both shared secrets in, bound by a hash to the offer's AAD, to every
//! public key used and to the ciphertext. The invariant: GS never leaves unwrapped, and an offer
//! opens for one device, one set of prekeys and one text of the line. AES-KW is RFC 3394 with the
//! default IV.

use aws_lc_rs::hkdf;
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap as _};
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPrivateDecryptingKey,
    OaepPublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
};
use protocol::canonical::sha256;
use zeroize::Zeroizing;

use super::agreement::{Agreement, Curve, SoftwareKey};
use super::kem::{CIPHERTEXT_OCTETS, EncapsulationKey, KemSecret};
use super::{Suite, SuiteError};
use crate::limits;
use crate::random::Random;
use crate::secret::Secret32;

/// Octets of GS wrapped by AES-256-KW.
pub const WRAPPED_OCTETS: usize = 40;
/// The smallest RSA modulus that is used, in bits.
pub const RSA_BITS_MIN: usize = 3_072;

/// The public keys of a device that an offer is wrapped to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceKeys {
    /// TLV 16 (X25519) or, for M2, 18 (P-256): of the SPK, or of a 701.
    pub signed: Vec<u8>,
    /// TLV 32 or 34 of the one-time key, if one was handed out.
    pub one_time: Option<Vec<u8>>,
    /// TLV 33 of the one-time key if it has one, else 17: ML-KEM-768.
    pub kem: Vec<u8>,
}

/// The private keys that answer to [`DeviceKeys`].
pub struct OfferKeys<'a> {
    /// To [`DeviceKeys::signed`].
    pub signed: &'a dyn Agreement,
    /// To [`DeviceKeys::one_time`].
    pub one_time: Option<&'a dyn Agreement>,
    /// To [`DeviceKeys::kem`].
    pub kem: &'a KemSecret,
}

/// Wraps `seed` (GS) to a device; returns the body `epk ‖ ct ‖ wrapped`.
///
/// # Errors
/// [`SuiteError::Key`] for bad public keys, [`SuiteError::Unsupported`] for an L suite.
pub fn wrap_seed(
    suite: Suite,
    aad: &[u8],
    keys: &DeviceKeys,
    seed: &Secret32,
    random: &mut dyn Random,
) -> Result<Vec<u8>, SuiteError> {
    let curve = super::curve(suite).ok_or(SuiteError::Unsupported)?;
    let (ephemeral, _) = SoftwareKey::generate(curve, random)?;
    let (ciphertext, from_kem) = EncapsulationKey::parse(&keys.kem)?.encapsulate(random)?;
    let from_signed = ephemeral.agree(&keys.signed)?;
    let from_one_time =
        keys.one_time.as_deref().map(|public| ephemeral.agree(public)).transpose()?;
    let binding = binding(aad, ephemeral.public(), &ciphertext, keys);
    let kek = kek(&from_kem, &from_signed, from_one_time.as_ref(), &binding)?;

    let mut body = Vec::with_capacity(body_octets(curve));
    body.extend_from_slice(ephemeral.public());
    body.extend_from_slice(&ciphertext);
    let mut wrapped = [0; WRAPPED_OCTETS];
    AesKek::new(&AES_256, kek.expose())
        .and_then(|kek| kek.wrap(seed.expose(), &mut wrapped).map(|_| ()))
        .map_err(|_| SuiteError::Sealed)?;
    body.extend_from_slice(&wrapped);
    Ok(body)
}

/// Opens the body of an offer; returns GS.
///
/// # Errors
/// [`SuiteError::Sealed`] if the body was wrapped to other keys or bound to another line.
pub fn unwrap_seed(
    suite: Suite,
    aad: &[u8],
    keys: &OfferKeys<'_>,
    body: &[u8],
) -> Result<Secret32, SuiteError> {
    let curve = super::curve(suite).ok_or(SuiteError::Unsupported)?;
    if keys.signed.curve() != curve || body.len() != body_octets(curve) {
        return Err(SuiteError::Sealed);
    }
    let (ephemeral, rest) =
        body.split_at_checked(curve.public_octets()).ok_or(SuiteError::Sealed)?;
    let (ciphertext, wrapped) =
        rest.split_at_checked(CIPHERTEXT_OCTETS).ok_or(SuiteError::Sealed)?;
    let from_kem = keys.kem.decapsulate(ciphertext)?;
    let from_signed = keys.signed.agree(ephemeral)?;
    let from_one_time = keys.one_time.map(|key| key.agree(ephemeral)).transpose()?;
    let public = DeviceKeys {
        signed: keys.signed.public().to_vec(),
        one_time: keys.one_time.map(|key| key.public().to_vec()),
        kem: keys.kem.public(),
    };
    let binding = binding(aad, ephemeral, ciphertext, &public);
    let kek = kek(&from_kem, &from_signed, from_one_time.as_ref(), &binding)?;
    Secret32::filled(|seed| {
        // AWS-LC wants room for the integrity block beside the key.
        let mut output = Zeroizing::new([0; WRAPPED_OCTETS]);
        let key = AesKek::new(&AES_256, kek.expose())
            .and_then(|kek| kek.unwrap(wrapped, output.as_mut_slice()))
            .map_err(|_| SuiteError::Sealed)?;
        seed.copy_from_slice(key.get(..32).ok_or(SuiteError::Sealed)?);
        Ok(())
    })
}

/// Octets of an offer's body.
const fn body_octets(curve: Curve) -> usize {
    curve.public_octets() + CIPHERTEXT_OCTETS + WRAPPED_OCTETS
}

/// `th` of SPEC.md §7.
fn binding(aad: &[u8], ephemeral: &[u8], ciphertext: &[u8], keys: &DeviceKeys) -> [u8; 32] {
    let one_time = keys.one_time.as_deref().unwrap_or_default();
    sha256(&[aad, ephemeral, ciphertext, &keys.signed, one_time, &keys.kem])
}

/// `KEK = HKDF(zeros, ss_mlkem ‖ DH(e, SPK) ‖ DH(e, OPK), "CIM1-WRAP" ‖ th)`.
pub(super) fn kek(
    from_kem: &Secret32,
    from_signed: &Secret32,
    from_one_time: Option<&Secret32>,
    binding: &[u8; 32],
) -> Result<Secret32, SuiteError> {
    let mut input = Zeroizing::new(Vec::with_capacity(96));
    input.extend_from_slice(from_kem.expose());
    input.extend_from_slice(from_signed.expose());
    if let Some(from_one_time) = from_one_time {
        input.extend_from_slice(from_one_time.expose());
    }
    Secret32::filled(|kek| {
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[0; 32])
            .extract(&input)
            .expand(&[b"CIM1-WRAP", binding], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(kek))
            .map_err(|_| SuiteError::Unsupported)
    })
}

/// A device's RSA key for legacy offers (TLV 19), checked when read.
#[derive(Debug)]
pub struct LegacyKey {
    key: OaepPublicEncryptingKey,
    hash: &'static OaepAlgorithm,
}

impl LegacyKey {
    /// Reads a SubjectPublicKeyInfo in DER. `uses_sha1` follows `OAEPH=SHA1`, which a device
    /// declares only if its token can do no other.
    ///
    /// # Errors
    /// [`SuiteError::Key`] for anything but an RSA key of [`RSA_BITS_MIN`] to 8192 bits.
    pub fn parse(spki: &[u8], uses_sha1: bool) -> Result<Self, SuiteError> {
        let key = PublicEncryptingKey::from_der(spki).map_err(|_| SuiteError::Key)?;
        if !(RSA_BITS_MIN..=limits::RSA_BITS_MAX).contains(&key.key_size_bits()) {
            return Err(SuiteError::Key);
        }
        let key = OaepPublicEncryptingKey::new(key).map_err(|_| SuiteError::Key)?;
        let hash = if uses_sha1 { &OAEP_SHA1_MGF1SHA1 } else { &OAEP_SHA256_MGF1SHA256 };
        Ok(Self { key, hash })
    }
}

/// A device's RSA private key for legacy offers.
pub struct LegacySecret(OaepPrivateDecryptingKey);

impl LegacySecret {
    /// A new key of 3072 bits; returns its PKCS#8 document and its SubjectPublicKeyInfo.
    ///
    /// AWS-LC draws the primes from its own generator.
    ///
    /// # Errors
    /// [`SuiteError::Key`] if AWS-LC refuses.
    pub fn generate() -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), SuiteError> {
        use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
        let key = PrivateDecryptingKey::generate(aws_lc_rs::rsa::KeySize::Rsa3072)
            .map_err(|_| SuiteError::Key)?;
        let document: Pkcs8V1Der<'_> = key.as_der().map_err(|_| SuiteError::Key)?;
        let document = Zeroizing::new(document.as_ref().to_vec());
        let spki: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(|_| SuiteError::Key)?;
        Ok((document, spki.as_ref().to_vec()))
    }

    /// The key in a PKCS#8 document.
    ///
    /// # Errors
    /// [`SuiteError::Key`].
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, SuiteError> {
        let key = PrivateDecryptingKey::from_pkcs8(document).map_err(|_| SuiteError::Key)?;
        OaepPrivateDecryptingKey::new(key).map(Self).map_err(|_| SuiteError::Key)
    }
}

/// Encrypts `seed` (GS) to a legacy key; returns the body.
///
/// # Errors
/// [`SuiteError::Key`].
pub fn wrap_legacy(key: &LegacyKey, seed: &Secret32) -> Result<Vec<u8>, SuiteError> {
    let mut body = vec![0; key.key.ciphertext_size()];
    let length = key
        .key
        .encrypt(key.hash, seed.expose(), &mut body, None)
        .map_err(|_| SuiteError::Key)?
        .len();
    body.truncate(length);
    Ok(body)
}

/// Decrypts the body of a legacy offer; returns GS.
///
/// # Errors
/// [`SuiteError::Sealed`].
pub fn unwrap_legacy(key: &LegacySecret, body: &[u8]) -> Result<Secret32, SuiteError> {
    let mut output = Zeroizing::new(vec![0; key.0.min_output_size()]);
    let seed = key
        .0
        .decrypt(&OAEP_SHA256_MGF1SHA256, body, &mut output, None)
        .map_err(|_| SuiteError::Sealed)?;
    Secret32::from_slice(seed).ok_or(SuiteError::Sealed)
}
