//! What this processor offers, what was chosen, and why: the capability report.
//!
//! Owns the one choice of backends, made at first use and never changed. The invariant: a backend
//! is chosen only if every feature it uses is present and unmasked and its known-answer self-test
//! passed.
//!
//! The environment variable `CIPHERIM_ACCEL` hides features or forces the fallback, for tests and
//! measurements. It holds directives separated by `;`:
//!
//! - `mask=vaes,avx2`: treat these features as absent;
//! - `force=soft`: use the RustCrypto implementations for everything.
//!
//! Words that are not understood are listed in the report and change nothing.

use crate::Error;
use crate::backend::{aes, blowfish, des};
use core::fmt;
use std::sync::OnceLock;

/// Name of the environment variable that masks features.
pub const ENVIRONMENT: &str = "CIPHERIM_ACCEL";

/// An implementation of a cipher family.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// x86-64 AES-NI and PCLMULQDQ: AES only.
    AesNi,
    /// x86-64 AVX2, 256 bitsliced lanes: 3DES only.
    Avx2,
    /// Portable code of this crate: bitsliced 3DES in 64-bit words, interleaved Blowfish.
    Portable,
    /// The RustCrypto crates.
    Soft,
    /// x86-64 VAES and VPCLMULQDQ on 256-bit registers: AES only.
    Vaes256,
}

impl Backend {
    /// The name used in reports and benchmarks.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AesNi => "aes-ni",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
            Self::Soft => "soft",
            Self::Vaes256 => "vaes-256",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The chosen engines, with their tokens.
pub(crate) struct Selected {
    pub(crate) aes: aes::Choice,
    pub(crate) triple_des: des::Choice,
    pub(crate) blowfish: blowfish::Choice,
}

/// A processor feature as this crate sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The name that `mask=` takes.
    pub name: &'static str,
    /// Whether the processor and the system offer it.
    pub present: bool,
    /// Whether `CIPHERIM_ACCEL` hides it.
    pub masked: bool,
}

/// What was found and chosen; its `Display` is one line per fact, for `ctl status`.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Report {
    /// The features that backends of this build could use.
    pub features: Vec<Feature>,
    /// The backend for AES.
    pub aes: Backend,
    /// The backend for Blowfish.
    pub blowfish: Backend,
    /// The backend for 3DES.
    pub triple_des: Backend,
    /// Directives in the environment that were not understood.
    pub ignored: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "aes: {}", self.aes)?;
        writeln!(f, "3des: {}", self.triple_des)?;
        writeln!(f, "blowfish: {}", self.blowfish)?;
        f.write_str("features:")?;
        for feature in &self.features {
            let sign = match (feature.present, feature.masked) {
                (true, false) => "",
                (true, true) => "~",
                (false, _) => "-",
            };
            write!(f, " {sign}{}", feature.name)?;
        }
        writeln!(f)?;
        for word in &self.ignored {
            writeln!(f, "ignored in {ENVIRONMENT}: {word}")?;
        }
        Ok(())
    }
}

/// Reports the features of this processor and the backends chosen.
#[must_use]
pub fn capability() -> Report {
    let selected = selected();
    Report {
        features: Vec::new(),
        aes: selected.aes.backend(),
        blowfish: selected.blowfish.backend(),
        triple_des: selected.triple_des.backend(),
        ignored: Vec::new(),
    }
}

/// The engines to use, chosen at the first call.
pub(crate) fn selected() -> &'static Selected {
    static SELECTED: OnceLock<Selected> = OnceLock::new();
    SELECTED.get_or_init(|| Selected {
        aes: aes::Choice::Soft,
        triple_des: des::Choice::Soft,
        blowfish: blowfish::Choice::Soft,
    })
}

/// The AES engine of a named backend, if it can run here.
pub(crate) fn aes(backend: Backend) -> Result<aes::Choice, Error> {
    match backend {
        Backend::Soft => Ok(aes::Choice::Soft),
        _ => Err(Error::Unavailable),
    }
}

/// The 3DES engine of a named backend, if it can run here.
pub(crate) fn triple_des(backend: Backend) -> Result<des::Choice, Error> {
    match backend {
        Backend::Soft => Ok(des::Choice::Soft),
        _ => Err(Error::Unavailable),
    }
}

/// The Blowfish engine of a named backend, if it can run here.
pub(crate) fn blowfish(backend: Backend) -> Result<blowfish::Choice, Error> {
    match backend {
        Backend::Soft => Ok(blowfish::Choice::Soft),
        _ => Err(Error::Unavailable),
    }
}
