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

mod self_test;

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
    failed: Vec<Backend>,
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
    /// Backends that the processor offers but whose self-test failed; none on a sound machine.
    pub failed: Vec<Backend>,
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
        for backend in &self.failed {
            writeln!(f, "failed its self-test: {backend}")?;
        }
        for word in &self.ignored {
            writeln!(f, "ignored in {ENVIRONMENT}: {word}")?;
        }
        Ok(())
    }
}

/// What the environment hides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mask {
    hidden: Vec<String>,
    soft: bool,
    ignored: Vec<String>,
}

impl Mask {
    /// Parses the value of [`ENVIRONMENT`].
    pub(crate) fn parse(text: &str) -> Self {
        let mut mask = Self::default();
        for directive in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            match directive.split_once('=') {
                Some(("mask", names)) => {
                    for name in names.split(',').map(str::trim) {
                        let known = FEATURES.iter().any(|(known, _)| *known == name);
                        let list = if known { &mut mask.hidden } else { &mut mask.ignored };
                        list.push(name.to_owned());
                    }
                }
                Some(("force", "soft")) => mask.soft = true,
                _ => mask.ignored.push(directive.to_owned()),
            }
        }
        mask
    }

    /// The mask of this process, read once.
    fn of_process() -> &'static Self {
        static MASK: OnceLock<Mask> = OnceLock::new();
        MASK.get_or_init(|| Self::parse(&std::env::var(ENVIRONMENT).unwrap_or_default()))
    }

    /// Whether any of these features is to be treated as absent.
    pub(crate) fn hides_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.hidden.iter().any(|hidden| hidden == name))
    }
}

/// The name of a feature, and whether the processor has it.
type Probe = (&'static str, fn() -> bool);

/// The features that backends of this build use, and how to find them.
#[cfg(target_arch = "x86_64")]
const FEATURES: &[Probe] = &[
    ("aes", || std::is_x86_feature_detected!("aes")),
    ("avx", || std::is_x86_feature_detected!("avx")),
    ("avx2", || std::is_x86_feature_detected!("avx2")),
    ("pclmulqdq", || std::is_x86_feature_detected!("pclmulqdq")),
    ("sse4.1", || std::is_x86_feature_detected!("sse4.1")),
    ("ssse3", || std::is_x86_feature_detected!("ssse3")),
    ("vaes", || std::is_x86_feature_detected!("vaes")),
    ("vpclmulqdq", || std::is_x86_feature_detected!("vpclmulqdq")),
];
#[cfg(not(target_arch = "x86_64"))]
const FEATURES: &[Probe] = &[];

/// Reports the features of this processor and the backends chosen.
#[must_use]
pub fn capability() -> Report {
    let (selected, mask) = (selected(), Mask::of_process());
    let features = FEATURES.iter().map(|(name, present)| Feature {
        name,
        present: present(),
        masked: mask.hides_any(&[name]),
    });
    Report {
        features: features.collect(),
        aes: selected.aes.backend(),
        blowfish: selected.blowfish.backend(),
        triple_des: selected.triple_des.backend(),
        failed: selected.failed.clone(),
        ignored: mask.ignored.clone(),
    }
}

/// The engines to use, chosen at the first call.
pub(crate) fn selected() -> &'static Selected {
    static SELECTED: OnceLock<Selected> = OnceLock::new();
    SELECTED.get_or_init(|| Selected::choose(Mask::of_process()))
}

impl Selected {
    /// The best engine of each family that passes its self-test, and the names of those that fail.
    fn choose(mask: &Mask) -> Self {
        let mut failed = Vec::new();
        let mut good = |backend: Backend, passed: bool| {
            if !passed {
                failed.push(backend);
            }
            passed && (!mask.soft || backend == Backend::Soft)
        };
        // The software engines end each list, so that the fallback is only a formality.
        let aes = aes::Choice::all(mask)
            .into_iter()
            .find(|choice| good(choice.backend(), self_test::aes(*choice)))
            .unwrap_or(aes::Choice::Soft);
        let triple_des = des::Choice::all(mask)
            .into_iter()
            .find(|choice| good(choice.backend(), self_test::triple_des(*choice)))
            .unwrap_or(des::Choice::Soft);
        let blowfish = blowfish::Choice::all(mask)
            .into_iter()
            .find(|choice| good(choice.backend(), self_test::blowfish(*choice)))
            .unwrap_or(blowfish::Choice::Soft);
        Self { aes, triple_des, blowfish, failed }
    }
}

/// The AES engine of a named backend, if it can run here.
pub(crate) fn aes(backend: Backend) -> Result<aes::Choice, Error> {
    let all = aes::Choice::all(Mask::of_process());
    let found = all.into_iter().find(|choice| choice.backend() == backend);
    found.filter(|choice| self_test::aes(*choice)).ok_or(Error::Unavailable)
}

/// The 3DES engine of a named backend, if it can run here.
pub(crate) fn triple_des(backend: Backend) -> Result<des::Choice, Error> {
    let all = des::Choice::all(Mask::of_process());
    let found = all.into_iter().find(|choice| choice.backend() == backend);
    found.filter(|choice| self_test::triple_des(*choice)).ok_or(Error::Unavailable)
}

/// The Blowfish engine of a named backend, if it can run here.
pub(crate) fn blowfish(backend: Backend) -> Result<blowfish::Choice, Error> {
    let all = blowfish::Choice::all(Mask::of_process());
    let found = all.into_iter().find(|choice| choice.backend() == backend);
    found.filter(|choice| self_test::blowfish(*choice)).ok_or(Error::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_strictly() {
        let mask = Mask::parse("mask=vaes,sse9; force=soft;nonsense; force=fpga");
        assert!(mask.soft);
        assert_eq!(mask.ignored, ["sse9", "nonsense", "force=fpga"]);
        let known = cfg!(target_arch = "x86_64");
        assert_eq!(mask.hides_any(&["avx2", "vaes"]), known);
        assert!(!mask.hides_any(&["avx2"]));
        assert!(Mask::parse("").ignored.is_empty());
    }

    #[test]
    fn each_feature_masked_leaves_working_engines() {
        for (name, _) in FEATURES {
            let mask = Mask::parse(&format!("mask={name}"));
            let selected = Selected::choose(&mask);
            assert!(selected.failed.is_empty(), "{name}: {:?}", selected.failed);
            #[cfg(target_arch = "x86_64")]
            if ["aes", "avx", "pclmulqdq", "sse4.1", "ssse3"].contains(name) {
                assert_eq!(selected.aes.backend(), Backend::Soft, "{name}");
            } else {
                assert_ne!(selected.aes.backend(), Backend::Vaes256, "{name}");
            }
        }
    }

    #[test]
    fn software_can_be_forced() {
        let selected = Selected::choose(&Mask::parse("force=soft"));
        assert_eq!(selected.aes.backend(), Backend::Soft);
        assert_eq!(selected.triple_des.backend(), Backend::Soft);
        assert_eq!(selected.blowfish.backend(), Backend::Soft);
    }

    #[test]
    fn the_report_names_what_was_chosen() {
        let report = capability();
        assert!(report.to_string().contains(&format!("aes: {}", report.aes)));
        assert!(report.failed.is_empty());
    }
}
