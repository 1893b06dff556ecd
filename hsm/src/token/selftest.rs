//! The self-test of an attachment: tries everything that will be asked, before it is asked.
//!
//! What a token lists is not what it can do, so only what it proves is used: a signature by each
//! newest key, a verification of a good and of a changed message per algorithm, a wrapping that
//! comes back, random octets. An algorithm that fails is not served; a signature that does not hold
//! stops the attachment. The RSA vectors were made with OpenSSL over [`MESSAGE`].

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};

use crate::error::{Class, Error};
use crate::job::{Algorithm, KeyKind, Purpose, Request, Response};
use crate::signature;
use crate::token::Session;
use crate::token::module::Attached;
use crate::token::session::TokenSession;
use crate::token::wrap::{self, Wrapper};

const MESSAGE: &[u8] = b"cipherim-hsm self-test";
const RSA_KEY: &[u8] = include_bytes!("vectors/rsa3072.spki");
const RSA_PSS: &[u8] = include_bytes!("vectors/rsa3072.pss");
const RSA_PKCS1: &[u8] = include_bytes!("vectors/rsa3072.pkcs1");

/// Tests `attached` and completes it with what it proved.
pub(super) fn run(attached: Attached) -> Result<Attached, Error> {
    let mut session = Arc::new(attached).session()?;
    let mut proven = vec!["random".to_owned()];
    session.execute(&Request::Random { length: 32 })?;
    proven.extend(signatures(&mut session)?);
    let mut mechanism = None;
    if let Some(key) = session.attached.found.get(Purpose::Spool.into()) {
        let slot = session.attached.slot();
        mechanism = wrap::choose(Wrapper { session: &session.session, slot }, key.handle)?;
        proven.extend(mechanism.map(|mechanism| format!("wrap {}", mechanism.name())));
    }
    let verifies = verifications(&mut session)?;
    proven.extend(verifies.iter().map(|algorithm| format!("verify {}", algorithm.name())));
    let TokenSession { session, attached, .. } = session;
    drop(session);
    let mut attached = Arc::into_inner(attached).ok_or(Error::malformed("still shared"))?;
    attached.wrap = mechanism;
    attached.verifies = verifies;
    attached.view.proven = proven;
    Ok(attached)
}

fn signatures(session: &mut TokenSession) -> Result<Vec<String>, Error> {
    let mut proven = Vec::new();
    for purpose in Purpose::ALL {
        let Some(key) = session.attached.found.get(purpose.into()) else {
            continue;
        };
        let public = key.public.clone();
        if public.kind != KeyKind::P256 {
            continue;
        }
        let message = MESSAGE.to_vec();
        let sign = Request::Sign { key: public.key, algorithm: Algorithm::P256, message };
        let holds = match session.execute(&sign)? {
            Response::Signature(made) => signature::holds(&public.point, MESSAGE, &made),
            _ => false,
        };
        if !holds {
            let what = format!("the self-test signature by {} does not hold", public.key);
            return Err(Error::WrongAnswer { what: what.into() });
        }
        proven.push(format!("sign {} p256", public.key));
    }
    Ok(proven)
}

fn verifications(session: &mut TokenSession) -> Result<Vec<Algorithm>, Error> {
    let mut proven = Vec::new();
    for algorithm in Algorithm::ALL {
        let Some((key, made)) = example(algorithm) else {
            continue;
        };
        let good = session.verify(algorithm, &key, MESSAGE, &made);
        let bad = session.verify(algorithm, &key, b"cipherim-hsm another", &made);
        match (good, bad) {
            (Ok(true), Ok(false)) => proven.push(algorithm),
            (Err(error), _) | (_, Err(error)) if error.class() == Class::Retry => {
                return Err(error);
            }
            _ => tracing::debug!(algorithm = algorithm.name(), "verification is not proven"),
        }
    }
    Ok(proven)
}

/// A public key and its signature over [`MESSAGE`], made afresh where that is cheap.
fn example(algorithm: Algorithm) -> Option<(Vec<u8>, Vec<u8>)> {
    match algorithm {
        Algorithm::Ed25519 => {
            let pair = Ed25519KeyPair::generate().ok()?;
            Some((pair.public_key().as_ref().to_vec(), pair.sign(MESSAGE).as_ref().to_vec()))
        }
        Algorithm::P256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
            let made = pair.sign(&SystemRandom::new(), MESSAGE).ok()?;
            let made = signature::normalise(made.as_ref()).ok()?;
            Some((pair.public_key().as_ref().to_vec(), made.to_vec()))
        }
        Algorithm::Pss => Some((RSA_KEY.to_vec(), RSA_PSS.to_vec())),
        Algorithm::RsaPkcs1 => Some((RSA_KEY.to_vec(), RSA_PKCS1.to_vec())),
    }
}
