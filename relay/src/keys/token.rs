//! Keys in a PKCS#11 token, reached through `cipherim-hsmd`.
//!
//! Translates between the relay's words and the jobs of `hsm`; which faults pass by themselves is
//! decided by [`hsm::Error::class`] alone. Random octets come from the system and, while the token
//! answers quickly, are mixed with a stock that the token gave ahead of time.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use hsm::{Class, Client, Purpose};
use zeroize::Zeroizing;

use super::{
    DATA_KEY_LENGTH, KeyError, KeyService, MESSAGE_LENGTH_MAX, PUBLIC_KEY_LENGTH, SigningKeyName,
    WrappedKey,
};

/// Octets that the token adds to the pool at the start.
const TOKEN_RANDOM_LENGTH: u32 = 32;
/// When to try again if hsmd does not say.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The keys of one token.
pub struct TokenKeys {
    client: Client,
    system: SystemRandom,
    /// What the token's generator gave at the start; empty if it has none or was away.
    stock: Zeroizing<Vec<u8>>,
}

impl TokenKeys {
    /// The keys behind `client`. Asks the token once for random octets.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let stock = client
            .random(TOKEN_RANDOM_LENGTH)
            .map(|octets| Zeroizing::new(octets.expose().to_vec()))
            .unwrap_or_default();
        Self { client, system: SystemRandom::new(), stock }
    }
}

impl KeyService for TokenKeys {
    fn sign(&self, key: SigningKeyName, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        if message.len() > MESSAGE_LENGTH_MAX {
            let text = format!("{} octets to sign, at most {MESSAGE_LENGTH_MAX}", message.len());
            return Err(KeyError::Malformed { text });
        }
        Ok(self.client.sign(purpose(key), message).map_err(key_error)?.to_vec())
    }

    fn public_key(&self, key: SigningKeyName) -> Result<[u8; PUBLIC_KEY_LENGTH], KeyError> {
        let public = self.client.public_key(purpose(key)).map_err(key_error)?;
        public.point.try_into().map_err(|point: Vec<u8>| KeyError::Malformed {
            text: format!("the token's key {key} has {} octets, not a P-256 point", point.len()),
        })
    }

    fn wrap(&self, key: &[u8; DATA_KEY_LENGTH]) -> Result<WrappedKey, KeyError> {
        WrappedKey::new(&self.client.wrap(key).map_err(key_error)?)
    }

    fn unwrap(&self, key: &WrappedKey) -> Result<Zeroizing<[u8; DATA_KEY_LENGTH]>, KeyError> {
        let secret = self.client.unwrap(key.octets()).map_err(key_error)?;
        let octets: [u8; DATA_KEY_LENGTH] =
            secret.expose().try_into().map_err(|_| KeyError::Malformed {
                text: format!("a data key of {} octets came out of its wrapping", secret.len()),
            })?;
        Ok(Zeroizing::new(octets))
    }

    fn random(&self, octets: &mut [u8]) {
        // The system's generator fails only before it was seeded, once, early at boot; nothing
        // here may go on with predictable octets.
        while self.system.fill(octets).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.stock.is_empty() {
            return;
        }
        for (counter, chunk) in octets.chunks_mut(32).enumerate() {
            let mut input = Zeroizing::new(self.stock.to_vec());
            input.extend_from_slice(&(counter as u64).to_be_bytes());
            input.extend_from_slice(chunk);
            let mixed = digest(&SHA256, &input);
            for (octet, mask) in chunk.iter_mut().zip(mixed.as_ref()) {
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

fn key_error(error: hsm::Error) -> KeyError {
    let text = error.to_string();
    match error.class() {
        Class::Away | Class::Retry => {
            KeyError::Away { retry_after: error.retry_after().unwrap_or(RETRY_AFTER), text }
        }
        Class::Misuse => KeyError::Malformed { text },
        // Classes that hsm adds later are not known to pass by themselves.
        _ => KeyError::Refused { text },
    }
}
