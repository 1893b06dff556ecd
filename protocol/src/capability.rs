//! Capabilities: the words of `CAP=` in 010 and its answer (SPEC.md §3).
//!
//! They describe one hop and never decide an end-to-end property; records and policies do. A
//! list may be spread over several lines of an answer; the lines add up. In
//! `SUITES:M1,M2,FILES:9` the words behind `SUITES:` that are a letter and digits belong to it.

use core::fmt;

use crate::error::Error;
use crate::limits::{
    CAPABILITIES_MAX, LINE_OCTETS_DEFAULT, LINE_OCTETS_HYBSIG_MIN, LINE_OCTETS_MAX,
};
use crate::parameter::number;
use crate::suite::{Suite, Suites};

/// What one side of a hop can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// LINE: octets of the longest line it takes, CRLF included.
    pub line_octets_max: usize,
    /// SIGNED: a relay verifies signed sealed lines before it queues them.
    pub verifies_signed: bool,
    /// SUITES that it lets pass.
    pub suites: Suites,
    /// FILES: octets of the largest file; `None` for no files.
    pub file_octets_max: Option<u64>,
    /// HYBSIG: Ed25519 with ML-DSA-65; needs a LINE of at least 32,768.
    pub has_hybrid_signatures: bool,
}

impl Default for Capabilities {
    /// What a side that says nothing can do.
    fn default() -> Self {
        Self {
            line_octets_max: LINE_OCTETS_DEFAULT,
            verifies_signed: false,
            suites: Suites::default(),
            file_octets_max: None,
            has_hybrid_signatures: false,
        }
    }
}

impl Capabilities {
    /// All of version 1 with the longest lines and files of at most `file_octets_max`.
    #[must_use]
    pub fn full(file_octets_max: u64) -> Self {
        Self {
            line_octets_max: LINE_OCTETS_MAX,
            verifies_signed: true,
            suites: Suites::new(&[Suite::M1, Suite::M2]),
            file_octets_max: Some(file_octets_max),
            has_hybrid_signatures: true,
        }
    }

    /// What both sides can do: the shorter line, the smaller file, what both have.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        let line_octets_max = self.line_octets_max.min(other.line_octets_max);
        let suites = self.suites.as_slice().iter().copied();
        let suites: Vec<Suite> = suites.filter(|suite| other.suites.contains(*suite)).collect();
        Self {
            line_octets_max,
            verifies_signed: self.verifies_signed && other.verifies_signed,
            suites: Suites::new(&suites),
            file_octets_max: self
                .file_octets_max
                .zip(other.file_octets_max)
                .map(|(one, two)| one.min(two)),
            has_hybrid_signatures: self.has_hybrid_signatures
                && other.has_hybrid_signatures
                && line_octets_max >= LINE_OCTETS_HYBSIG_MIN,
        }
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LINE:{}", self.line_octets_max)?;
        if self.verifies_signed {
            f.write_str(",SIGNED")?;
        }
        if !self.suites.as_slice().is_empty() {
            write!(f, ",SUITES:{}", self.suites)?;
        }
        if let Some(octets) = self.file_octets_max {
            write!(f, ",FILES:{octets}")?;
        }
        if self.has_hybrid_signatures {
            f.write_str(",HYBSIG")?;
        }
        Ok(())
    }
}

/// Reads the `CAP=` values of one command or of all lines of one answer.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    capabilities: Capabilities,
    seen: Vec<Box<str>>,
    suites: Vec<Suite>,
}

impl Reader {
    /// Nothing read yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one value. Words that nobody here knows are skipped.
    ///
    /// # Errors
    /// [`Error::BadParameter`] for a word given twice, a malformed argument, LINE outside
    /// 8,192 to 65,536, or more than [`CAPABILITIES_MAX`] words.
    pub fn add(&mut self, value: &str) -> Result<(), Error> {
        const BAD: Error = Error::BadParameter("CAP");
        let mut is_in_suites = false;
        for word in value.split(',') {
            if is_in_suites && is_suite_name(word) {
                self.suites.extend(Suite::from_name(word));
                continue;
            }
            let (name, argument) = match word.split_once(':') {
                Some((name, argument)) => (name, Some(argument)),
                None => (word, None),
            };
            let is_name = name.starts_with(|first: char| first.is_ascii_uppercase());
            let is_twice = self.seen.iter().any(|seen| **seen == *name);
            if !is_name || is_twice || self.seen.len() == CAPABILITIES_MAX {
                return Err(BAD);
            }
            self.seen.push(name.into());
            is_in_suites = name == "SUITES";
            match (name, argument) {
                ("LINE", Some(argument)) => {
                    let octets = number(argument).and_then(|octets| usize::try_from(octets).ok());
                    self.capabilities.line_octets_max = octets
                        .filter(|octets| (LINE_OCTETS_DEFAULT..=LINE_OCTETS_MAX).contains(octets))
                        .ok_or(BAD)?;
                }
                ("SIGNED", None) => self.capabilities.verifies_signed = true,
                ("SUITES", Some(first)) if is_suite_name(first) => {
                    self.suites.extend(Suite::from_name(first));
                }
                ("FILES", Some(argument)) => {
                    self.capabilities.file_octets_max = Some(number(argument).ok_or(BAD)?);
                }
                ("HYBSIG", None) => self.capabilities.has_hybrid_signatures = true,
                ("LINE" | "SIGNED" | "SUITES" | "FILES" | "HYBSIG", _) => return Err(BAD),
                _ => {}
            }
        }
        Ok(())
    }

    /// What was read.
    #[must_use]
    pub fn finish(self) -> Capabilities {
        Capabilities { suites: Suites::new(&self.suites), ..self.capabilities }
    }
}

/// A letter and digits, as in `M1`.
fn is_suite_name(word: &str) -> bool {
    let mut octets = word.bytes();
    octets.next().is_some_and(|first| first.is_ascii_uppercase())
        && octets.len() > 0
        && octets.all(|octet| octet.is_ascii_digit())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Capabilities, Error> {
        let mut reader = Reader::new();
        for value in values {
            reader.add(value)?;
        }
        Ok(reader.finish())
    }

    #[test]
    fn round_trip() {
        for capabilities in [Capabilities::default(), Capabilities::full(1 << 31)] {
            assert_eq!(read(&[&capabilities.to_string()]), Ok(capabilities));
        }
    }

    #[test]
    fn several_lines_add_up() {
        let both = read(&["LINE:65536,SIGNED,SUITES:M1,M2", "FILES:2147483648"]).unwrap();
        assert_eq!(both.suites.as_slice(), [Suite::M1, Suite::M2]);
        assert_eq!(both.file_octets_max, Some(2_147_483_648));
        let mixed = read(&["SUITES:M1,Q9,M2,X-NEW:1,HYBSIG"]).unwrap();
        assert_eq!(mixed.suites.as_slice(), [Suite::M1, Suite::M2]);
        assert!(mixed.has_hybrid_signatures);
    }

    #[test]
    fn refused() {
        for value in [
            "",
            "line:9000",
            "LINE",
            "LINE:",
            "LINE:8191",
            "LINE:65537",
            "LINE:08192",
            "SIGNED:1",
            "SIGNED,SIGNED",
            "SUITES",
            "SUITES:",
            "SUITES:m1",
            "FILES:x",
            "M1,",
        ] {
            assert_eq!(read(&[value]), Err(Error::BadParameter("CAP")), "{value:?}");
        }
        assert!(read(&["SIGNED", "SIGNED"]).is_err());
        let words =
            |count: usize| (0..count).map(|n| format!("X{n}-")).collect::<Vec<_>>().join(",");
        assert!(read(&[&words(CAPABILITIES_MAX)]).is_ok());
        assert!(read(&[&words(CAPABILITIES_MAX + 1)]).is_err());
    }

    #[test]
    fn what_both_can_do() {
        let full = Capabilities::full(1_000);
        let other = Capabilities { line_octets_max: 16_384, ..Capabilities::full(10) };
        let common = full.common(&other);
        assert_eq!((common.line_octets_max, common.file_octets_max), (16_384, Some(10)));
        assert!(!common.has_hybrid_signatures, "lines are too short for them");
        assert_eq!(full.common(&Capabilities::default()), Capabilities::default());
    }
}
