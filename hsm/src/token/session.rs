//! A worker's session on a PKCS#11 token: turns jobs into calls.
//!
//! Messages are hashed on the host, so a token sees 32 octets (RSA: the DigestInfo) whatever the
//! message. Signatures of the token are brought into low-`s` form and, by default, verified in
//! software before they leave: a token that answers wrongly is caught here.

use std::sync::Arc;

use aws_lc_rs::digest;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::session::Session as Pkcs11Session;

use crate::blob::{self, Blob};
use crate::error::Error;
use crate::job::{Algorithm, KeyKind, KeyName, Request, Response, Secret};
use crate::signature;
use crate::token::key::TokenKey;
use crate::token::module::Attached;
use crate::token::public::Cache;
use crate::token::wrap::Wrapper;
use crate::token::{Session, code};

/// `DigestInfo` of SHA-256 before the hash (RFC 8017 §9.2).
const DIGEST_INFO_SHA256: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// One session with the public keys it holds.
pub(super) struct TokenSession {
    pub(super) session: Pkcs11Session,
    pub(super) attached: Arc<Attached>,
    pub(super) cache: Cache,
    pub(super) answers: u64,
}

impl Session for TokenSession {
    fn execute(&mut self, request: &Request) -> Result<Response, Error> {
        request.check()?;
        match request {
            Request::Random { length } => self.random(*length),
            Request::Sign { key, algorithm, message } => self.sign(*key, *algorithm, message),
            Request::Unwrap { blob } => self.unwrap(blob).map(Response::Unwrapped),
            Request::Verify { algorithm, public_key, message, signature } => {
                if !self.attached.verifies.contains(algorithm) {
                    let what = format!("verify {} signatures", algorithm.name());
                    return Err(Error::MechanismMissing { what: what.into() });
                }
                self.verify(*algorithm, public_key, message, signature).map(Response::Verified)
            }
            Request::Wrap { kek, data_key } => self.wrap(*kek, data_key).map(Response::Wrapped),
            Request::Describe
            | Request::Generate { .. }
            | Request::Ping
            | Request::PublicKey { .. } => {
                Err(Error::malformed("this job is not done by a session"))
            }
        }
    }
}

impl TokenSession {
    fn error(&self, error: Pkcs11Error) -> Error {
        code::error(Some(self.attached.slot()), error)
    }

    fn key(&self, name: KeyName) -> Result<&TokenKey, Error> {
        let domain = &self.attached.domain;
        self.attached.found.get(name).ok_or_else(|| Error::KeyMissing {
            key: name.to_string().into(),
            domain: domain.clone().into(),
        })
    }

    fn random(&mut self, length: u32) -> Result<Response, Error> {
        let mut mixed = zeroize::Zeroizing::new(
            self.session.generate_random_vec(length).map_err(|error| self.error(error))?,
        );
        let mut own = zeroize::Zeroizing::new(vec![0_u8; length as usize]);
        aws_lc_rs::rand::fill(&mut own)
            .map_err(|_| Error::MechanismMissing { what: "be mixed: getrandom failed".into() })?;
        mixed.iter_mut().zip(own.iter()).for_each(|(octet, own)| *octet ^= own);
        Ok(Response::Random(Secret::new(std::mem::take(&mut *mixed))))
    }

    fn sign(
        &mut self,
        name: KeyName,
        algorithm: Algorithm,
        message: &[u8],
    ) -> Result<Response, Error> {
        let key = self.key(name)?;
        if key.public.kind != KeyKind::P256 || algorithm != Algorithm::P256 {
            return Err(Error::malformed("the algorithm does not suit the key: p256 does"));
        }
        let hash = digest::digest(&digest::SHA256, message);
        let raw = self
            .session
            .sign(&Mechanism::Ecdsa, key.handle, hash.as_ref())
            .map_err(|error| self.error(error))?;
        let normal = signature::normalise(&raw)?;
        if self.is_checked() && !signature::holds(&key.public.point, message, &normal) {
            let what = format!("a signature by {} does not hold", key.label);
            return Err(Error::WrongAnswer { what: what.into() });
        }
        self.answers += 1;
        Ok(Response::Signature(normal.to_vec()))
    }

    /// Verifies without asking whether the token proved the algorithm.
    pub(super) fn verify(
        &mut self,
        algorithm: Algorithm,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, Error> {
        let slot = self.attached.slot();
        let object = self.cache.object(&self.session, slot, algorithm, public_key)?;
        let hash = || digest::digest(&digest::SHA256, message);
        let result = match algorithm {
            Algorithm::P256 => {
                if !signature::is_low(signature) {
                    return Ok(false);
                }
                self.session.verify(&Mechanism::Ecdsa, object, hash().as_ref(), signature)
            }
            Algorithm::Ed25519 => {
                if signature.len() != 64 {
                    return Ok(false);
                }
                let params = EddsaParams::new(EddsaSignatureScheme::Ed25519);
                self.session.verify(&Mechanism::Eddsa(params), object, message, signature)
            }
            Algorithm::Pss => {
                let params = PkcsPssParams {
                    hash_alg: MechanismType::SHA256,
                    mgf: PkcsMgfType::MGF1_SHA256,
                    s_len: 32.into(),
                };
                let mechanism = Mechanism::RsaPkcsPss(params);
                self.session.verify(&mechanism, object, hash().as_ref(), signature)
            }
            Algorithm::RsaPkcs1 => {
                let info = [&DIGEST_INFO_SHA256[..], hash().as_ref()].concat();
                self.session.verify(&Mechanism::RsaPkcs, object, &info, signature)
            }
        };
        match result {
            Ok(()) => Ok(true),
            Err(Pkcs11Error::Pkcs11(RvError::SignatureInvalid | RvError::SignatureLenRange, _)) => {
                Ok(false)
            }
            Err(error) => Err(self.error(error)),
        }
    }

    /// Whether the answer under way is one of those to be checked.
    fn is_checked(&self) -> bool {
        let every = self.attached.check_every;
        every != 0 && self.answers.is_multiple_of(every)
    }

    fn wrap(&mut self, name: KeyName, data_key: &Secret) -> Result<Vec<u8>, Error> {
        let key = self.key(name)?;
        let mechanism = self.attached.wrap.ok_or(Error::MechanismMissing {
            what: "wrap keys: no mechanism passed the self-test".into(),
        })?;
        let wrapper = Wrapper { session: &self.session, slot: self.attached.slot() };
        let (iv, data) = wrapper.wrap(mechanism, key.handle, data_key.expose())?;
        // What is sealed under a key that cannot be unwrapped again is lost: look now.
        if self.is_checked()
            && wrapper.unwrap(mechanism, key.handle, &iv, &data).ok().as_ref() != Some(data_key)
        {
            let what = format!("what {} wrapped does not open again", key.label);
            return Err(Error::WrongAnswer { what: what.into() });
        }
        let blob = Blob {
            mechanism,
            key: key.public.key,
            label: key.label.as_str().into(),
            serial: self.attached.view.token.serial.as_str().into(),
            iv: iv.into(),
            data: data.into(),
        };
        let bytes = blob.encode(data_key.expose());
        self.answers += 1;
        bytes
    }

    fn unwrap(&self, bytes: &[u8]) -> Result<Secret, Error> {
        let blob = Blob::decode(bytes)?;
        let present = &self.attached.view.token.serial;
        let is_ours = |serial: &str| {
            serial == present || self.attached.also_known_as.iter().any(|known| known == serial)
        };
        if !is_ours(&blob.serial) {
            return Err(Error::OtherToken {
                wrapped_by: blob.serial.into_owned().into(),
                present: present.clone().into(),
            });
        }
        let key = self.key(blob.key)?;
        if key.label != blob.label || key.public.kind != KeyKind::Aes256 {
            return Err(Error::KeyMissing {
                key: blob.label.into_owned().into(),
                domain: self.attached.domain.clone().into(),
            });
        }
        let wrapper = Wrapper { session: &self.session, slot: self.attached.slot() };
        let secret = wrapper.unwrap(blob.mechanism, key.handle, &blob.iv, &blob.data)?;
        if !blob::is_bound(bytes, secret.expose()) {
            return Err(Error::Damaged {
                what: "it does not open to the key it was made for".into(),
            });
        }
        Ok(secret)
    }
}
