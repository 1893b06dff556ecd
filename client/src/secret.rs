//! Octets that must not outlive their use: wiped on drop, compared in constant time, never shown.
//!
//! Owns one type; everything that is a key travels in it. In the state file a secret is base64
//! inside a sealed value, see [`crate::state`].

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

/// `N` secret octets, in one place on the heap so that a move leaves no copy behind.
#[derive(Clone)]
pub struct Secret<const N: usize>(Box<[u8; N]>);

/// The usual length of a key.
pub type Secret32 = Secret<32>;

impl<const N: usize> Secret<N> {
    /// Takes `octets`; the caller's copy is wiped.
    #[must_use]
    pub fn take(octets: &mut [u8; N]) -> Self {
        let secret = Self(Box::new(*octets));
        octets.zeroize();
        secret
    }

    /// Octets that `fill` writes straight into their place.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn filled<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// A copy of `octets` if there are exactly `N`.
    #[must_use]
    pub fn from_slice(octets: &[u8]) -> Option<Self> {
        let octets: &[u8; N] = octets.try_into().ok()?;
        Some(Self(Box::new(*octets)))
    }

    /// The octets, to be used and not kept.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
impl<const N: usize> ZeroizeOnDrop for Secret<N> {}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_slice().ct_eq(other.expose().as_slice()).into()
    }
}
impl<const N: usize> Eq for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl<const N: usize> Serialize for Secret<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(protocol::base64::encode(self.expose()));
        serializer.serialize_str(&text)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Secret<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const N: usize>;
        impl<const N: usize> de::Visitor<'_> for Visitor<N> {
            type Value = Secret<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{N} octets in base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let octets = protocol::base64::decode(text).map(Zeroizing::new);
                octets
                    .ok()
                    .and_then(|octets| Secret::from_slice(&octets))
                    .ok_or_else(|| E::invalid_length(text.len(), &self))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn shows_nothing_and_survives_the_state_file() {
        let secret = Secret::<32>::from_slice(&[7; 32]).unwrap();
        assert_eq!(format!("{secret:?}"), "..");
        let text = serde_json::to_string(&secret).unwrap();
        assert_eq!(serde_json::from_str::<Secret<32>>(&text).unwrap(), secret);
        assert!(serde_json::from_str::<Secret<31>>(&text).is_err());
    }

    #[test]
    fn taking_wipes_the_source() {
        let mut octets = [9; 16];
        let secret = Secret::take(&mut octets);
        assert_eq!((octets, secret.expose()), ([0; 16], &[9; 16]));
    }
}
