//! Where random octets come from: the one place of this crate that asks the system for them.
//!
//! Everything else takes a [`Random`], so that a simulated conversation can be replayed from its
//! seed.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use thiserror::Error;

use crate::secret::Secret;

/// The system gave no random octets; nothing may go on with weaker ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the system gives no random octets")]
pub struct NoRandom;

/// A source of random octets fit for keys.
pub trait Random {
    /// Fills `octets`.
    ///
    /// # Errors
    /// [`NoRandom`]; `octets` must then not be used.
    fn fill(&mut self, octets: &mut [u8]) -> Result<(), NoRandom>;
}

/// The generator of AWS-LC, seeded by the system.
#[derive(Debug)]
pub struct System(SystemRandom);

impl System {
    /// The generator of this process.
    #[must_use]
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

impl Random for System {
    fn fill(&mut self, octets: &mut [u8]) -> Result<(), NoRandom> {
        self.0.fill(octets).map_err(|_| NoRandom)
    }
}

/// `N` random octets that are no secret: an identifier or a nonce.
///
/// # Errors
/// [`NoRandom`].
pub fn octets<const N: usize>(random: &mut dyn Random) -> Result<[u8; N], NoRandom> {
    let mut octets = [0; N];
    random.fill(&mut octets)?;
    Ok(octets)
}

/// `N` random octets that are a secret.
///
/// # Errors
/// [`NoRandom`].
pub fn secret<const N: usize>(random: &mut dyn Random) -> Result<Secret<N>, NoRandom> {
    Secret::filled(|octets| random.fill(octets))
}

/// A generator whose octets follow from its seed: for tests, never for a person's keys.
#[cfg(test)]
pub(crate) struct Seeded {
    key: aws_lc_rs::hmac::Key,
    count: u64,
}

#[cfg(test)]
impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &seed.to_be_bytes());
        Self { key, count: 0 }
    }
}

#[cfg(test)]
impl Random for Seeded {
    fn fill(&mut self, octets: &mut [u8]) -> Result<(), NoRandom> {
        for piece in octets.chunks_mut(32) {
            self.count += 1;
            let block = aws_lc_rs::hmac::sign(&self.key, &self.count.to_be_bytes());
            piece.copy_from_slice(block.as_ref().get(..piece.len()).ok_or(NoRandom)?);
        }
        Ok(())
    }
}
