//! Lines that a key of the token signs: written twice, around an answer that comes later.
//!
//! A line is written once to learn what is to be signed and, when the token has signed, again with
//! the signature, which is checked with the public key that the domain's record names before the
//! line goes anywhere.

use std::cell::RefCell;

use protocol::signature::{PublicKey, SignatureError, Signer};

use super::Domain;
use crate::clock::Now;
use crate::keys::{KeyError, SigningKeyName};

/// Why a line was not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SigningError {
    /// What was to be signed does not follow the protocol.
    #[error("the line would not follow the protocol: {0}")]
    Content(protocol::Error),
    /// The token signed with another key than the domain's record names.
    #[error("the token holds another key than the domain's record names")]
    OtherKey,
    /// The token did not sign.
    #[error(transparent)]
    Token(#[from] KeyError),
}

/// Learns what is to be signed.
struct Recorder {
    public: PublicKey,
    message: RefCell<Vec<u8>>,
}

impl Signer for Recorder {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        *self.message.borrow_mut() = message.to_vec();
        // Takes the place of a signature; never leaves this file.
        Ok(vec![0; crate::keys::SIGNATURE_LENGTH])
    }
}

/// Gives the signature that the token made.
struct Replay {
    public: PublicKey,
    signature: Vec<u8>,
}

impl Signer for Replay {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        self.public.verify(message, &self.signature)?;
        Ok(self.signature.clone())
    }
}

impl Domain {
    /// Has the token's `key`, whose public half is `public`, sign the line that `write` writes, and
    /// goes on with `then`. `write` is called twice and must write the same.
    pub(super) fn sign_line(
        &mut self,
        (key, public): (SigningKeyName, PublicKey),
        write: impl Fn(&dyn Signer) -> Result<String, protocol::Error> + 'static,
        now: Now,
        then: impl FnOnce(&mut Self, Result<String, SigningError>, Now) + 'static,
    ) {
        let recorder = Recorder { public, message: RefCell::default() };
        if let Err(error) = write(&recorder) {
            return then(self, Err(SigningError::Content(error)), now);
        }
        let Recorder { public, message } = recorder;
        self.sign(key, message.into_inner(), move |domain, signature, now| {
            let line = signature.map_err(SigningError::from).and_then(|signature| {
                write(&Replay { public, signature }).map_err(|_| SigningError::OtherKey)
            });
            then(domain, line, now);
        });
    }
}
