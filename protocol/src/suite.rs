//! Cipher suites by their names, and lists of them in order of preference (SPEC.md §7).
//!
//! A suite is never negotiated down: the sender picks from the signed record. Names not known
//! here are skipped when a list is read; they stay authenticated in the line they stand in.

use core::fmt;

use crate::limits::SUITES_MAX;
use crate::parameter::WireValue;

/// A suite: how session keys are wrapped and messages sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Suite {
    /// RSA-OAEP, 3DES-CBC with HMAC-SHA-256: legacy.
    L1,
    /// RSA-OAEP, Blowfish-128-CBC with HMAC-SHA-256: legacy.
    L2,
    /// X25519 and ML-KEM-768, AES-256-GCM: the default.
    M1,
    /// P-256 and ML-KEM-768, AES-256-GCM.
    M2,
    /// As M1 with ChaCha20-Poly1305.
    M3,
}

impl Suite {
    /// All suites, the default first and the legacy ones last.
    pub const ALL: [Self; 5] = [Self::M1, Self::M2, Self::M3, Self::L1, Self::L2];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::M1 => "M1",
            Self::M2 => "M2",
            Self::M3 => "M3",
        }
    }

    /// The suite of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }

    /// Whether it is shown as "legacy" and used only where everybody allows it.
    #[must_use]
    pub const fn is_legacy(self) -> bool {
        matches!(self, Self::L1 | Self::L2)
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl WireValue<'_> for Suite {
    fn read(value: &str) -> Option<Self> {
        Self::from_name(value)
    }
}

/// Suites in order of preference, each at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suites(Vec<Suite>);

impl Suites {
    /// The list of these suites; later repeats are dropped.
    #[must_use]
    pub fn new(suites: &[Suite]) -> Self {
        let mut list = Vec::with_capacity(suites.len());
        for &suite in suites {
            if !list.contains(&suite) {
                list.push(suite);
            }
        }
        Self(list)
    }

    /// The suites in order of preference.
    #[must_use]
    pub fn as_slice(&self) -> &[Suite] {
        &self.0
    }

    /// Whether `suite` is in the list.
    #[must_use]
    pub fn contains(&self, suite: Suite) -> bool {
        self.0.contains(&suite)
    }
}

impl fmt::Display for Suites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, suite) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            f.write_str(suite.name())?;
        }
        Ok(())
    }
}

impl WireValue<'_> for Suites {
    fn read(value: &str) -> Option<Self> {
        let mut list = Vec::new();
        for (position, name) in value.split(',').enumerate() {
            let is_name = (1..=8).contains(&name.len())
                && name.bytes().all(|o| o.is_ascii_uppercase() || o.is_ascii_digit());
            if position >= SUITES_MAX || !is_name {
                return None;
            }
            match Suite::from_name(name) {
                Some(suite) if list.contains(&suite) => return None,
                Some(suite) => list.push(suite),
                None => {}
            }
        }
        Some(Self(list))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let suites = Suites::read("M2,Q9,M1").unwrap();
        assert_eq!(suites.as_slice(), [Suite::M2, Suite::M1]);
        assert_eq!(suites.to_string(), "M2,M1");
        for text in ["", "M1,", ",M1", "M1,M1", "m1", "M1;M2", "LONGERNAME"] {
            assert_eq!(Suites::read(text), None, "{text}");
        }
    }

    #[test]
    fn limit_at_n_and_one_more() {
        let list = |count: usize| vec!["X"; count].join(",");
        assert!(Suites::read(&list(SUITES_MAX)).is_some());
        assert!(Suites::read(&list(SUITES_MAX + 1)).is_none());
    }
}
