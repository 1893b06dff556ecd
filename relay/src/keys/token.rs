//! Keys in a PKCS#11 token, reached through `cipherim-hsmd`.
//!
//! Owns a handle on the client's connection and a pool of octets from the token's generator. Every
//! call blocks for at most the client's deadline; while the token is away calls end early with
//! [`KeyError::Away`]. Invariant: no key of the token passes through here. PROTOCOL §13.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::hmac;
use hsm::{Class, Client, Error, Purpose};
use zeroize::Zeroizing;

use super::{
    DATA_KEY_LENGTH, KeyError, KeyService, MESSAGE_LENGTH_MAX, PUBLIC_KEY_LENGTH, SigningKeyName,
    WrappedKey,
};

/// Octets kept from the token's generator.
const POOL_LENGTH: usize = 32;

/// When to ask again, where the client names no time.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(5);

/// A [`KeyService`] over the token's client.
pub struct TokenKeys {
    client: Client,
    /// Octets of the token and how often they were used; mixed into every draw.
    pool: Mutex<(Zeroizing<[u8; POOL_LENGTH]>, u64)>,
}

impl TokenKeys {
    /// Uses `client` for everything. Does not wait for the token.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, pool: Mutex::new((Zeroizing::new([0; POOL_LENGTH]), 0)) }
    }

    /// The client, for its health.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Takes fresh octets from the token into the pool. Without them the old ones serve: the
    /// system's generator is part of every draw.
    fn refill(&self) {
        let Ok(fresh) = self.client.random(POOL_LENGTH as u32) else { return };
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        for (octet, fresh) in pool.0.iter_mut().zip(fresh.expose()) {
            *octet ^= fresh;
        }
    }
}

impl KeyService for TokenKeys {
    fn sign(&self, key: SigningKeyName, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        if message.len() > MESSAGE_LENGTH_MAX {
            return Err(KeyError::Malformed { text: "the message is too long to sign".to_owned() });
        }
        let signature = self.client.sign(purpose(key), message).map_err(|error| told(&error))?;
        Ok(signature.to_vec())
    }

    fn public_key(&self, key: SigningKeyName) -> Result<[u8; PUBLIC_KEY_LENGTH], KeyError> {
        let public = self.client.public_key(purpose(key)).map_err(|error| told(&error))?;
        public.point.try_into().map_err(|_| KeyError::Refused {
            text: format!("the token's key {key} is no P-256 key"),
        })
    }

    fn wrap(&self, key: &[u8; DATA_KEY_LENGTH]) -> Result<WrappedKey, KeyError> {
        let blob = self.client.wrap(key).map_err(|error| told(&error))?;
        // The token is there now: the next key has fresh octets of its generator.
        self.refill();
        WrappedKey::new(&blob)
    }

    fn unwrap(&self, key: &WrappedKey) -> Result<Zeroizing<[u8; DATA_KEY_LENGTH]>, KeyError> {
        let secret = self.client.unwrap(key.octets()).map_err(|error| told(&error))?;
        let mut opened = Zeroizing::new([0; DATA_KEY_LENGTH]);
        if secret.len() != opened.len() {
            return Err(KeyError::Malformed {
                text: format!("the wrapped key holds {} octets", secret.len()),
            });
        }
        opened.copy_from_slice(secret.expose());
        Ok(opened)
    }

    #[expect(clippy::expect_used, reason = "the system's generator fails only before it is seeded")]
    fn random(&self, octets: &mut [u8]) {
        aws_lc_rs::rand::fill(octets).expect("the system has random octets");
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let key = hmac::Key::new(hmac::HMAC_SHA256, pool.0.as_ref());
        for chunk in octets.chunks_mut(POOL_LENGTH) {
            pool.1 = pool.1.wrapping_add(1);
            let mask = hmac::sign(&key, &pool.1.to_be_bytes());
            for (octet, mask) in chunk.iter_mut().zip(mask.as_ref()) {
                *octet ^= mask;
            }
        }
    }
}

const fn purpose(key: SigningKeyName) -> Purpose {
    match key {
        SigningKeyName::Domain => Purpose::Domain,
        SigningKeyName::Log => Purpose::Log,
        SigningKeyName::Tls => Purpose::Tls,
    }
}

/// The error of the client in the words of this layer.
fn told(error: &Error) -> KeyError {
    let text = error.to_string();
    match (error, error.class()) {
        (Error::Damaged { .. }, _) | (Error::Malformed { .. }, _) => KeyError::Malformed { text },
        (_, Class::Away | Class::Retry) => {
            KeyError::Away { retry_after: error.retry_after().unwrap_or(RETRY_AFTER), text }
        }
        _ => KeyError::Refused { text },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::Arc;
    use std::time::Duration;

    use hsm::client::Settings;
    use hsm::wire::{Decoder, encode_response};
    use hsm::{Algorithm, KeyKind, KeyName, PublicKey, Request, Response, Secret};

    use super::*;
    use crate::keys::software::SoftwareKeys;

    /// A service that speaks the socket's language and keeps its keys in memory.
    fn serve(mut stream: UnixStream, keys: &SoftwareKeys) {
        let mut decoder = Decoder::new();
        let mut buffer = [0; 4_096];
        loop {
            let Ok(length @ 1..) = stream.read(&mut buffer) else { return };
            decoder.push(&buffer[..length]);
            while let Some(frame) = decoder.next_request().unwrap() {
                let mut out = Vec::new();
                encode_response(&mut out, frame.id, &answer(frame.request, keys));
                stream.write_all(&out).unwrap();
            }
        }
    }

    fn name(purpose: Purpose) -> SigningKeyName {
        match purpose {
            Purpose::Domain => SigningKeyName::Domain,
            Purpose::Log => SigningKeyName::Log,
            _ => SigningKeyName::Tls,
        }
    }

    fn answer(request: Request, keys: &SoftwareKeys) -> Result<Response, Error> {
        let away = |_| Error::Away {
            reason: "slot 3 is empty; plug the token in".into(),
            retry_after: Duration::from_secs(7),
        };
        match request {
            Request::Sign { key, algorithm: Algorithm::P256, message } => {
                keys.sign(name(key.purpose), &message).map(Response::Signature).map_err(away)
            }
            Request::PublicKey { key } => {
                let point = keys.public_key(name(key.purpose)).map_err(away)?.to_vec();
                let key = KeyName::exact(key.purpose, 1);
                Ok(Response::PublicKey(PublicKey { key, kind: KeyKind::P256, point }))
            }
            Request::Wrap { data_key, .. } => {
                let key = data_key.expose().try_into().unwrap();
                let blob = keys.wrap(key).map_err(away)?;
                Ok(Response::Wrapped(blob.octets().to_vec()))
            }
            Request::Unwrap { blob } => match keys.unwrap(&WrappedKey::new(&blob).unwrap()) {
                Ok(key) => Ok(Response::Unwrapped(Secret::from(&key[..]))),
                Err(KeyError::Malformed { .. }) => Err(Error::Damaged { what: "checksum".into() }),
                Err(error) => Err(away(error)),
            },
            Request::Random { length } => {
                Ok(Response::Random(Secret::new(vec![0x5a; length as usize])))
            }
            other => panic!("{other:?}"),
        }
    }

    fn token(patience: Duration) -> (TokenKeys, Arc<SoftwareKeys>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let keys = Arc::new(SoftwareKeys::generate().unwrap());
        let served = keys.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &served);
            }
        });
        let settings = Settings { patience, ..Settings::new(path) };
        (TokenKeys::new(Client::start(settings).unwrap()), keys, folder)
    }

    #[test]
    fn the_token_signs_wraps_and_unwraps() {
        let (token, keys, _folder) = token(Duration::from_secs(30));
        for name in SigningKeyName::ALL {
            let public = token.public_key(name).unwrap();
            assert_eq!(public, keys.public_key(name).unwrap());
            let signature = token.sign(name, b"message").unwrap();
            let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
            aws_lc_rs::signature::UnparsedPublicKey::new(algorithm, public)
                .verify(b"message", &signature)
                .unwrap();
        }
        let wrapped = token.wrap(&[9; 32]).unwrap();
        assert_eq!(*token.unwrap(&wrapped).unwrap(), [9; 32]);
        assert_ne!(*token.pool.lock().unwrap().0, [0; POOL_LENGTH]);
        let mut damaged = wrapped.octets().to_vec();
        damaged[3] ^= 1;
        let damaged = WrappedKey::new(&damaged).unwrap();
        assert!(matches!(token.unwrap(&damaged), Err(KeyError::Malformed { .. })));
        let long = vec![0; MESSAGE_LENGTH_MAX + 1];
        let error = token.sign(SigningKeyName::Log, &long).unwrap_err();
        assert!(matches!(error, KeyError::Malformed { .. }));
        assert!(token.sign(SigningKeyName::Log, &long[1..]).is_ok());
    }

    #[test]
    fn an_absent_token_is_away_and_comes_back() {
        let (token, keys, _folder) = token(Duration::from_secs(30));
        let wrapped = token.wrap(&[9; 32]).unwrap();
        keys.set_away(true);
        let errors = [
            token.sign(SigningKeyName::Tls, b"x").unwrap_err(),
            token.wrap(&[9; 32]).unwrap_err(),
            token.unwrap(&wrapped).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
            assert!(error.to_string().contains("slot 3"), "{error}");
        }
        let mut octets = [0; 100];
        token.random(&mut octets);
        assert_ne!(octets[..32], octets[32..64]);
        keys.set_away(false);
        assert!(token.unwrap(&wrapped).is_ok());
    }

    #[test]
    fn an_absent_service_is_away_too() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            patience: Duration::from_millis(1),
            ..Settings::new(folder.path().join("nobody"))
        };
        let token = TokenKeys::new(Client::start(settings).unwrap());
        let error = token.wrap(&[1; 32]).unwrap_err();
        assert!(error.retry_after().is_some_and(|wait| !wait.is_zero()), "{error}");
    }

    #[test]
    fn errors_that_time_does_not_heal_say_so() {
        let refused = [
            Error::KeyMissing { key: "tls".into(), domain: "a.example".into() },
            Error::OtherToken { wrapped_by: "1".into(), present: "2".into() },
            Error::WrongAnswer { what: "a signature".into() },
            Error::Forbidden { what: "x".into() },
        ];
        for error in refused {
            let told = told(&error);
            assert!(matches!(told, KeyError::Refused { .. }), "{error}");
            assert_eq!(told.retry_after(), None);
        }
    }
}
