//! The domain's policy (920): what it allows, in one line signed by the domain key
//! (SPEC.md §10).
//!
//! Clients keep the newest VER they saw and refuse a lower one. Durations and sizes that a
//! policy leaves out take the defaults of [`Policy::new`].

use crate::address::{Address, AddressBuf};
use crate::code::Code;
use crate::command::Command;
use crate::error::{Error, StatementError};
use crate::identifier::KeyPin;
use crate::limits::{LINE_OCTETS_DEFAULT, LINE_OCTETS_MAX, PINS_MAX};
use crate::parameter::{WireValue, list};
use crate::signature::{PublicKey, Signer};
use crate::suite::{Suite, Suites};
use crate::timestamp::Timestamp;

/// Hours that an offerer may keep a session's seed at most (`REPAIR=`).
const REPAIR_HOURS_MAX: u32 = 7 * 24;
/// Days that a relay may keep a line for an absent device at most (`SPOOL=`).
const SPOOL_DAYS_MAX: u32 = 30;
/// The highest zxcvbn score, so the highest floor for passwords (`PASSWORD=`).
const PASSWORD_SCORE_MAX: u32 = 4;

/// A policy. What [`Policy::verify`] returns holds; what it was built from may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The domain.
    pub domain: AddressBuf,
    /// VER; rises with each policy.
    pub version: u64,
    /// NB.
    pub not_before: Timestamp,
    /// NA.
    pub not_after: Timestamp,
    /// SUITES that accounts of this domain may use.
    pub suites: Suites,
    /// SIGNED: whether every session with this domain's accounts is signed.
    pub is_signed: bool,
    /// LINE: the longest line, CRLF included.
    pub line_octets_max: u32,
    /// FILES: the largest file in octets; 0 for no files.
    pub file_octets_max: u64,
    /// REPAIR: hours that an offerer keeps a session's seed; 0 for never.
    pub repair_hours: u32,
    /// SPOOL: days that lines are kept for an absent device.
    pub spool_days: u32,
    /// REFRESH: seconds of use after which a generation is due for refresh.
    pub refresh_seconds: u32,
    /// REFRESH-N: messages after which it is due.
    pub refresh_messages: u32,
    /// REFRESH-B: octets after which it is due.
    pub refresh_octets: u64,
    /// PASSWORD: the lowest zxcvbn score of a password for the local key file, 0 to 4.
    pub password_score_min: u32,
    /// PIN: SHA-256 of the SubjectPublicKeyInfo of each TLS key the domain uses.
    pub pins: Vec<KeyPin>,
}

impl Policy {
    /// The first policy of a domain: suites M1 and M2, unsigned sessions allowed, 2 GiB files,
    /// everything else as the protocol's defaults.
    #[must_use]
    pub fn new(domain: Address<'_>, not_before: Timestamp, not_after: Timestamp) -> Self {
        Self {
            domain: domain.to_buf(),
            version: 1,
            not_before,
            not_after,
            suites: Suites::new(&[Suite::M1, Suite::M2]),
            is_signed: false,
            line_octets_max: LINE_OCTETS_MAX as u32,
            file_octets_max: 2 << 30,
            repair_hours: 24,
            spool_days: 30,
            refresh_seconds: 15 * 60,
            refresh_messages: 100,
            refresh_octets: 32 << 20,
            password_score_min: 3,
            pins: Vec::new(),
        }
    }

    /// Reads a signed 920 line without checking its signature.
    ///
    /// # Errors
    /// [`Error::BadAddress`], [`Error::MissingParameter`], [`Error::BadParameter`],
    /// [`Error::BadSlot`], [`Error::UnknownCode`], [`StatementError::Validity`].
    pub fn parse(command: &Command<'_>) -> Result<Self, Error> {
        if command.code() != Code::POLICY {
            return Err(Error::UnknownCode(command.code()));
        }
        let domain = command.from().filter(|from| from.is_domain() && command.to().is_none());
        if command.body_text().is_some() || command.signature_text().is_none() {
            return Err(Error::BadSlot);
        }
        let domain = domain.ok_or(Error::BadAddress)?;
        let default = Self::new(domain, command.need("NB")?, command.need("NA")?);
        if default.not_after <= default.not_before {
            return Err(StatementError::Validity.into());
        }
        let pins = match command.parameter("PIN") {
            Some(value) => list(value, PINS_MAX).ok_or(Error::BadParameter("PIN"))?,
            None => Vec::new(),
        };
        Ok(Self {
            version: command.need("VER")?,
            suites: command.need("SUITES")?,
            is_signed: command.need("SIGNED")?,
            line_octets_max: within(
                command,
                "LINE",
                LINE_OCTETS_DEFAULT as u32..=LINE_OCTETS_MAX as u32,
                default.line_octets_max,
            )?,
            file_octets_max: command.read("FILES")?.unwrap_or(default.file_octets_max),
            repair_hours: within(command, "REPAIR", 0..=REPAIR_HOURS_MAX, default.repair_hours)?,
            spool_days: within(command, "SPOOL", 0..=SPOOL_DAYS_MAX, default.spool_days)?,
            refresh_seconds: within(
                command,
                "REFRESH",
                1..=default.refresh_seconds,
                default.refresh_seconds,
            )?,
            refresh_messages: within(
                command,
                "REFRESH-N",
                1..=default.refresh_messages,
                default.refresh_messages,
            )?,
            refresh_octets: within(
                command,
                "REFRESH-B",
                1..=default.refresh_octets,
                default.refresh_octets,
            )?,
            password_score_min: within(
                command,
                "PASSWORD",
                0..=PASSWORD_SCORE_MAX,
                default.password_score_min,
            )?,
            pins,
            ..default
        })
    }

    /// Reads a 920 line signed by the domain key.
    ///
    /// # Errors
    /// As [`Policy::parse`], and [`StatementError::Signature`].
    pub fn verify(command: &Command<'_>, domain_key: &PublicKey) -> Result<Self, Error> {
        let policy = Self::parse(command)?;
        command.verify(domain_key)?;
        Ok(policy)
    }

    /// Reads the policy that is to take the place of this one.
    ///
    /// # Errors
    /// As [`Policy::verify`]; [`StatementError::Account`] for another domain's policy,
    /// [`StatementError::Version`] for a VER below the one held.
    pub fn follow(&self, next: &Command<'_>, domain_key: &PublicKey) -> Result<Self, Error> {
        let policy = Self::verify(next, domain_key)?;
        if policy.domain != self.domain {
            return Err(StatementError::Account.into());
        }
        let is_same = policy == *self;
        if policy.version < self.version || (policy.version == self.version && !is_same) {
            return Err(StatementError::Version.into());
        }
        Ok(policy)
    }

    /// Whether it is in force at `now`.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// Writes the line, signed by the domain key. All parameters are written out.
    ///
    /// # Errors
    /// [`StatementError::Signer`]; as [`Policy::parse`] for content outside its rules.
    pub fn sign(&self, domain_key: &dyn Signer) -> Result<String, Error> {
        let pins: Vec<&str> = self.pins.iter().map(KeyPin::as_str).collect();
        let line = Command::builder(Code::POLICY)
            .from(self.domain.as_address())
            .parameter("VER", self.version)
            .parameter("NB", self.not_before)
            .parameter("NA", self.not_after)
            .parameter("SUITES", &self.suites)
            .parameter("SIGNED", u8::from(self.is_signed))
            .parameter("LINE", self.line_octets_max)
            .parameter("FILES", self.file_octets_max)
            .parameter("REPAIR", self.repair_hours)
            .parameter("SPOOL", self.spool_days)
            .parameter("REFRESH", self.refresh_seconds)
            .parameter("REFRESH-N", self.refresh_messages)
            .parameter("REFRESH-B", self.refresh_octets)
            .parameter("PASSWORD", self.password_score_min)
            .parameter_if("PIN", (!pins.is_empty()).then(|| pins.join(",")))
            .sign(&[], |tbs| domain_key.sign(tbs).map_err(Error::from))?;
        Self::parse(&Command::parse(line.as_bytes())?)?;
        Ok(line)
    }
}

/// The value of `name` within `range`, or `default` if absent.
fn within<'a, T: WireValue<'a> + PartialOrd>(
    command: &Command<'a>,
    name: &'static str,
    range: core::ops::RangeInclusive<T>,
    default: T,
) -> Result<T, Error> {
    match command.read::<T>(name)? {
        Some(value) if range.contains(&value) => Ok(value),
        Some(_) => Err(Error::BadParameter(name)),
        None => Ok(default),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::signature::SoftwareSigner;

    fn example() -> (SoftwareSigner, Policy) {
        let (signer, _) = SoftwareSigner::generate_p256().unwrap();
        let domain = Address::parse("a.example").unwrap();
        let mut policy = Policy::new(domain, Timestamp(1_000), Timestamp(2_000));
        policy.pins = vec![KeyPin::from_octets(&[1; 32]), KeyPin::from_octets(&[2; 32])];
        (signer, policy)
    }

    #[test]
    fn round_trip() {
        let (signer, policy) = example();
        let line = policy.sign(&signer).unwrap();
        let command = Command::parse(line.as_bytes()).unwrap();
        assert_eq!(Policy::verify(&command, signer.public_key()), Ok(policy.clone()));
        assert_eq!(policy.follow(&command, signer.public_key()), Ok(policy.clone()));
        let (other, _) = SoftwareSigner::generate_p256().unwrap();
        let refused = Policy::verify(&command, other.public_key());
        assert_eq!(refused, Err(StatementError::Signature.into()));
    }

    #[test]
    fn what_a_policy_leaves_out_is_the_default() {
        let line = b"920 FROM a.example VER=1 NB=1 NA=2 SUITES=M1 SIGNED=1 - c2ln";
        let policy = Policy::parse(&Command::parse(line).unwrap()).unwrap();
        assert_eq!(policy.refresh_messages, 100);
        assert!(policy.is_signed);
    }

    #[test]
    fn a_lower_version_or_another_text_of_the_same_is_refused() {
        let (signer, policy) = example();
        let higher = Policy { version: 2, ..policy.clone() };
        let line = policy.sign(&signer).unwrap();
        let command = Command::parse(line.as_bytes()).unwrap();
        let refused = higher.follow(&command, signer.public_key());
        assert_eq!(refused, Err(StatementError::Version.into()));
        let other = Policy { is_signed: true, ..policy };
        let refused = other.follow(&command, signer.public_key());
        assert_eq!(refused, Err(StatementError::Version.into()));
    }

    #[test]
    fn refused() {
        let (signer, policy) = example();
        for policy in [
            Policy { not_after: Timestamp(1_000), ..policy.clone() },
            Policy { line_octets_max: 8_191, ..policy.clone() },
            Policy { line_octets_max: 65_537, ..policy.clone() },
            Policy { repair_hours: 169, ..policy.clone() },
            Policy { spool_days: 31, ..policy.clone() },
            Policy { refresh_seconds: 901, ..policy.clone() },
            Policy { refresh_messages: 101, ..policy.clone() },
            Policy { refresh_messages: 0, ..policy.clone() },
            Policy { refresh_octets: (32 << 20) + 1, ..policy.clone() },
            Policy { password_score_min: 5, ..policy.clone() },
            Policy { pins: vec![KeyPin::from_octets(&[0; 32]); PINS_MAX + 1], ..policy.clone() },
        ] {
            assert!(policy.sign(&signer).is_err(), "{policy:?}");
        }
    }
}
