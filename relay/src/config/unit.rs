//! Sizes and times as people write them: `64 MiB`, `30s`, `5min`, `24h`, `30d`.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _};

/// A number of octets, written with a unit of `B`, `KiB`, `MiB`, `GiB` or `TiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A length of time, written with a unit of `ms`, `s`, `min`, `h` or `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

const SIZE_UNITS: &[(&str, u64)] =
    &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const SPAN_UNITS_MS: &[(&str, u64)] =
    &[("ms", 1), ("min", 60_000), ("s", 1_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Size {
    /// Reads a size with its unit.
    ///
    /// # Errors
    /// A sentence that says what a size looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        quantity(text, SIZE_UNITS)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a size: write for example \"64 MiB\""))
    }

    /// A size of so many octets.
    #[must_use]
    pub const fn of(octets: usize) -> Self {
        Self(octets as u64)
    }

    /// The number of octets, for lengths in memory.
    #[must_use]
    pub fn octets(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Span {
    /// Reads a time with its unit.
    ///
    /// # Errors
    /// A sentence that says what a time looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        quantity(text, SPAN_UNITS_MS).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(|| {
            format!("`{text}` is not a time: write for example \"30s\", \"5min\", \"24h\", \"30d\"")
        })
    }

    /// The whole milliseconds.
    #[must_use]
    pub fn milliseconds(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = SIZE_UNITS
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        write!(f, "{} {unit}", self.0 / factor)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.milliseconds();
        let (unit, factor) = SPAN_UNITS_MS
            .iter()
            .filter(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor))
            .max_by_key(|(_, factor)| *factor)
            .unwrap_or(&("ms", 1));
        write!(f, "{}{unit}", ms / factor)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A whole number and a unit, with or without one space between.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_write_them() {
        for (text, octets) in
            [("0 B", 0), ("1KiB", 1_024), ("64 MiB", 64 << 20), ("2 GiB", 2 << 30)]
        {
            assert_eq!(Size::parse(text), Ok(Size(octets)), "{text}");
        }
        for (text, ms) in [("5ms", 5), ("30s", 30_000), ("2 min", 120_000), ("1d", 86_400_000)] {
            assert_eq!(Span::parse(text).map(Span::milliseconds), Ok(ms), "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in ["", "5", "KiB", "-5 KiB", "5  KiB", "5 kb", "1.5 MiB", "99999999999 TiB"] {
            assert!(Size::parse(text).is_err(), "{text:?}");
        }
        for text in ["", "5", "s", "5 sec", "5 m", "-5s", "18446744073709551615d"] {
            assert!(Span::parse(text).is_err(), "{text:?}");
        }
    }
}
