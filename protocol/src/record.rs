//! Records (601): which keys an address has, signed by its identity key (SPEC.md §6).
//!
//! A [`Record`] exists only if its own signature holds. That it belongs to who it says comes
//! from the chain: [`Record::follow`] takes the next one only if VER rises, PREV names this one,
//! and the old identity or recovery key signs for its successor. The line itself is kept by the
//! caller, octet for octet; the record's name is the hash over it.

use crate::address::{Address, AddressBuf};
use crate::base64;
use crate::canonical::{canonical, push_lp, sha256};
use crate::code::Code;
use crate::command::{Command, CommandBuilder};
use crate::error::{Error, StatementError};
use crate::identifier::{RecordName, RecoveryHash};
use crate::limits::{DEVICE_OCTETS_MAX, RECORD_DEVICES_MAX};
use crate::role::Role;
use crate::signature::{Algorithm, PublicKey, Signer};
use crate::suite::{Suite, Suites};
use crate::timestamp::Timestamp;
use crate::tlv::{Reader, Writer, put_once};

/// TLV of the identity key.
const TLV_IDENTITY: u8 = 1;
/// TLV of a device: length and id, algorithm, signature key.
const TLV_DEVICE: u8 = 2;
/// TLV of the recovery key: algorithm, key.
pub(crate) const TLV_RECOVERY: u8 = 3;

/// One device and the key that signs its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The part of the address behind the slash.
    pub name: Box<str>,
    /// The signature key.
    pub key: PublicKey,
}

/// A record whose own signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    name: RecordName,
    account: AddressBuf,
    version: u64,
    previous: Option<RecordName>,
    identity: PublicKey,
    devices: Vec<Device>,
    recovery: Option<RecoveryHash>,
    shown_recovery_key: Option<PublicKey>,
    suites: Suites,
    not_before: Timestamp,
    not_after: Timestamp,
    role: Role,
    is_signed: bool,
}

impl Record {
    /// Reads a 601 line and checks the signature of its own identity key.
    ///
    /// # Errors
    /// [`Error::BadAddress`], [`Error::MissingParameter`], [`Error::BadParameter`],
    /// [`Error::UnknownCode`]; [`StatementError::Body`], [`StatementError::Key`],
    /// [`StatementError::Validity`], [`StatementError::Signature`], and
    /// [`StatementError::Recovery`] for a recovery key shown in a line that it does not sign.
    pub fn parse(command: &Command<'_>) -> Result<Self, Error> {
        if command.code() != Code::RECORD {
            return Err(Error::UnknownCode(command.code()));
        }
        let account = command.from().ok_or(Error::BadAddress)?;
        let role: Role = command.need("ROLE")?;
        if command.to().is_some() || !role.fits(account) {
            return Err(Error::BadAddress);
        }
        let previous = match command.need("PREV")? {
            "0" => None,
            text => Some(RecordName::parse(text).ok_or(Error::BadParameter("PREV"))?),
        };
        let (not_before, not_after) = (command.need("NB")?, command.need("NA")?);
        if not_after <= not_before {
            return Err(StatementError::Validity.into());
        }
        let keys = Keys::read(&command.body(), command.need("IDA")?)?;
        if keys.recovery.is_some() && command.parameter("RSIG").is_none() {
            return Err(StatementError::Recovery.into());
        }
        command.verify(&keys.identity)?;
        Ok(Self {
            name: RecordName::from_octets(&command.statement_hash()),
            account: account.to_buf(),
            version: command.need("VER")?,
            previous,
            identity: keys.identity,
            devices: keys.devices,
            recovery: command.read("REC")?,
            shown_recovery_key: keys.recovery,
            suites: command.need("SUITES")?,
            not_before,
            not_after,
            role,
            is_signed: command.read("SIGNED")?.unwrap_or(false),
        })
    }

    /// Reads the 601 line that is to take the place of this record.
    ///
    /// A PSIG or RSIG that is present must hold even where none is needed. A record that names
    /// no recovery key yet may name one without RSIG.
    ///
    /// # Errors
    /// As [`Record::parse`], and [`StatementError::Account`], [`StatementError::Version`],
    /// [`StatementError::Previous`], [`StatementError::Rotation`],
    /// [`StatementError::Recovery`].
    pub fn follow(&self, next: &Command<'_>) -> Result<Self, Error> {
        let record = Self::parse(next)?;
        if record.account != self.account {
            return Err(StatementError::Account.into());
        }
        if record.version <= self.version {
            return Err(StatementError::Version.into());
        }
        if record.previous != Some(self.name) {
            return Err(StatementError::Previous.into());
        }
        let is_rotation = record.identity != self.identity;
        if is_rotation || next.parameter("PSIG").is_some() {
            check_successor(next, "PSIG", &self.identity).ok_or(StatementError::Rotation)?;
        }
        let drops_recovery_key = self.recovery.is_some() && record.recovery != self.recovery;
        if drops_recovery_key || next.parameter("RSIG").is_some() {
            record
                .shown_recovery_key
                .as_ref()
                .filter(|key| Some(recovery_hash(key)) == self.recovery)
                .and_then(|key| check_successor(next, "RSIG", key))
                .ok_or(StatementError::Recovery)?;
        }
        Ok(record)
    }

    /// Checks that a device in this record signed `command`, whose FROM names it.
    ///
    /// # Errors
    /// [`StatementError::Account`] if FROM is another account, or has no device;
    /// [`StatementError::UnknownDevice`]; [`StatementError::Signature`].
    pub fn verify_device_line(&self, command: &Command<'_>) -> Result<(), Error> {
        let from = command.from().ok_or(Error::BadAddress)?;
        let Some(device) = from.device().filter(|_| from.account() == self.account()) else {
            return Err(StatementError::Account.into());
        };
        let device = self.device(device).ok_or(StatementError::UnknownDevice)?;
        Ok(command.verify(&device.key)?)
    }

    /// The record's name `KR`: SHA-256 of TBS and signature.
    #[must_use]
    pub const fn name(&self) -> RecordName {
        self.name
    }

    /// The account, or the domain of a record with [`Role::Domain`].
    #[must_use]
    pub fn account(&self) -> Address<'_> {
        self.account.as_address()
    }

    /// VER.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// PREV: the name of the record before this one; `None` for the first.
    #[must_use]
    pub const fn previous(&self) -> Option<RecordName> {
        self.previous
    }

    /// The identity key (TLV 1).
    #[must_use]
    pub const fn identity(&self) -> &PublicKey {
        &self.identity
    }

    /// The devices (TLV 2) in the order of the body.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The device of this name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| *device.name == *name)
    }

    /// REC: the hash of the recovery key's TLV.
    #[must_use]
    pub const fn recovery(&self) -> Option<RecoveryHash> {
        self.recovery
    }

    /// The suites that this account takes, in order of preference.
    #[must_use]
    pub const fn suites(&self) -> &Suites {
        &self.suites
    }

    /// NB: not valid before.
    #[must_use]
    pub const fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// NA: not valid from then on.
    #[must_use]
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Whether new offers may be made to this record at `now` (NB ≤ now < NA).
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// ROLE.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Whether this account asks for signed sessions.
    #[must_use]
    pub const fn is_signed(&self) -> bool {
        self.is_signed
    }
}

/// Checks `PSIG=` or `RSIG=`: `key` signs `C("CIM1-…") lp(body)` of the line without both.
fn check_successor(command: &Command<'_>, name: &'static str, key: &PublicKey) -> Option<()> {
    let signature = base64::decode(command.parameter(name)?).ok()?;
    key.verify(&successor_octets(command, name, &command.body()), &signature).ok()
}

fn successor_octets(command: &Command<'_>, name: &str, body: &[u8]) -> Vec<u8> {
    let label = if name == "PSIG" { "CIM1-PSIG" } else { "CIM1-RSIG" };
    let mut octets = canonical(label, command, &["PSIG", "RSIG"]);
    push_lp(&mut octets, body);
    octets
}

/// The value of TLV 3: algorithm, key.
fn recovery_value(key: &PublicKey) -> Vec<u8> {
    let mut value = vec![key.algorithm().number()];
    value.extend_from_slice(key.as_octets());
    value
}

/// REC of a recovery key: SHA-256 of the value of its TLV 3.
#[must_use]
pub fn recovery_hash(key: &PublicKey) -> RecoveryHash {
    RecoveryHash::from_octets(&sha256(&[&recovery_value(key)]))
}

/// Adds TLV 3.
pub(crate) fn push_recovery_key(body: &mut Writer, key: &PublicKey) -> Result<(), Error> {
    Ok(body.push(TLV_RECOVERY, &recovery_value(key))?)
}

/// Reads algorithm and key.
pub(crate) fn read_key(value: &[u8]) -> Result<PublicKey, StatementError> {
    let (&algorithm, key) = value.split_first().ok_or(StatementError::Body)?;
    let algorithm = Algorithm::from_number(algorithm).ok_or(StatementError::Key)?;
    Ok(PublicKey::parse(algorithm, key)?)
}

/// What the body of a record holds.
struct Keys {
    identity: PublicKey,
    devices: Vec<Device>,
    recovery: Option<PublicKey>,
}

impl Keys {
    fn read(body: &[u8], algorithm: Algorithm) -> Result<Self, StatementError> {
        let (mut identity, mut recovery) = (None, None);
        let mut devices: Vec<Device> = Vec::new();
        for tlv in Reader::new(body) {
            let tlv = tlv?;
            match tlv.kind {
                TLV_IDENTITY => {
                    put_once(&mut identity, PublicKey::parse(algorithm, tlv.value)?)?;
                }
                TLV_DEVICE => {
                    let device = read_device(tlv.value)?;
                    let is_known = devices.iter().any(|other| other.name == device.name);
                    if is_known || devices.len() == RECORD_DEVICES_MAX {
                        return Err(StatementError::Body);
                    }
                    devices.push(device);
                }
                TLV_RECOVERY => put_once(&mut recovery, read_key(tlv.value)?)?,
                _ => {}
            }
        }
        Ok(Self { identity: identity.ok_or(StatementError::Body)?, devices, recovery })
    }
}

fn read_device(value: &[u8]) -> Result<Device, StatementError> {
    let (&length, rest) = value.split_first().ok_or(StatementError::Body)?;
    let (name, key) = rest.split_at_checked(usize::from(length)).ok_or(StatementError::Body)?;
    let name = core::str::from_utf8(name).ok().filter(|name| crate::address::is_device(name));
    Ok(Device { name: name.ok_or(StatementError::Body)?.into(), key: read_key(key)? })
}

/// Writes a 601 line.
#[derive(Clone, Debug)]
#[must_use]
pub struct RecordBuilder {
    account: AddressBuf,
    role: Role,
    version: u64,
    previous: Option<RecordName>,
    devices: Vec<Device>,
    recovery: Option<RecoveryHash>,
    suites: Suites,
    not_before: Timestamp,
    not_after: Timestamp,
    is_signed: bool,
}

impl RecordBuilder {
    /// The first record (VER 1, PREV 0) of a user: suite M1, no devices, valid from
    /// `not_before` until before `not_after`.
    pub fn new(account: Address<'_>, not_before: Timestamp, not_after: Timestamp) -> Self {
        let role = if account.is_domain() { Role::Domain } else { Role::User };
        Self {
            account: account.to_buf(),
            role,
            version: 1,
            previous: None,
            devices: Vec::new(),
            recovery: None,
            suites: Suites::new(&[Suite::M1]),
            not_before,
            not_after,
            is_signed: false,
        }
    }

    /// What follows `record`: its content with VER one higher and PREV naming it.
    pub fn after(record: &Record) -> Self {
        Self {
            account: record.account.clone(),
            role: record.role,
            version: record.version.saturating_add(1),
            previous: Some(record.name),
            devices: record.devices.clone(),
            recovery: record.recovery,
            suites: record.suites.clone(),
            not_before: record.not_before,
            not_after: record.not_after,
            is_signed: record.is_signed,
        }
    }

    /// Sets ROLE.
    pub const fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// Adds a device, or replaces the one of that name.
    pub fn device(mut self, name: &str, key: &PublicKey) -> Self {
        debug_assert!(name.len() <= DEVICE_OCTETS_MAX);
        self = self.without_device(name);
        self.devices.push(Device { name: name.into(), key: key.clone() });
        self
    }

    /// Drops a device.
    pub fn without_device(mut self, name: &str) -> Self {
        self.devices.retain(|device| *device.name != *name);
        self
    }

    /// Sets REC.
    pub const fn recovery(mut self, hash: Option<RecoveryHash>) -> Self {
        self.recovery = hash;
        self
    }

    /// Sets SUITES, the most wanted first.
    pub fn suites(mut self, suites: &[Suite]) -> Self {
        self.suites = Suites::new(suites);
        self
    }

    /// Sets NB and NA.
    pub const fn validity(mut self, not_before: Timestamp, not_after: Timestamp) -> Self {
        self.not_before = not_before;
        self.not_after = not_after;
        self
    }

    /// Asks for signed sessions, or no longer.
    pub const fn signed(mut self, is_signed: bool) -> Self {
        self.is_signed = is_signed;
        self
    }

    /// Ends the line, signed by `identity`.
    ///
    /// # Errors
    /// [`StatementError::Signer`], or as [`Record::parse`] for content outside its rules.
    pub fn sign(&self, identity: &dyn Signer) -> Result<String, Error> {
        self.sign_with(identity, None, None)
    }

    /// Ends the line, signed by `identity`; the old identity key signs for another one
    /// (PSIG), the old recovery key for a change of REC (RSIG).
    ///
    /// # Errors
    /// As [`RecordBuilder::sign`].
    pub fn sign_with(
        &self,
        identity: &dyn Signer,
        old_identity: Option<&dyn Signer>,
        old_recovery: Option<&dyn Signer>,
    ) -> Result<String, Error> {
        let body = self.body(identity.public_key(), old_recovery.map(Signer::public_key))?;
        let mut line = self.parameters(identity.public_key().algorithm());
        let plain = line.clone().finish();
        for (name, signer) in [("PSIG", old_identity), ("RSIG", old_recovery)] {
            if let Some(signer) = signer {
                let plain = Command::parse(plain.as_bytes())?;
                let signature = signer.sign(&successor_octets(&plain, name, &body))?;
                line = line.octets_parameter(name, &signature);
            }
        }
        let line = line.sign(&body, |tbs| identity.sign(tbs).map_err(Error::from))?;
        Record::parse(&Command::parse(line.as_bytes())?)?;
        Ok(line)
    }

    fn parameters(&self, algorithm: Algorithm) -> CommandBuilder {
        let line = Command::builder(Code::RECORD)
            .from(self.account.as_address())
            .parameter("VER", self.version);
        let line = match self.previous {
            Some(name) => line.parameter("PREV", name),
            None => line.parameter("PREV", 0),
        };
        line.parameter("IDA", algorithm)
            .parameter("SUITES", &self.suites)
            .parameter("NB", self.not_before)
            .parameter("NA", self.not_after)
            .parameter("ROLE", self.role)
            .parameter_if("SIGNED", self.is_signed.then_some(1))
            .parameter_if("REC", self.recovery)
    }

    fn body(&self, identity: &PublicKey, recovery: Option<&PublicKey>) -> Result<Vec<u8>, Error> {
        let mut body = Writer::new();
        body.push(TLV_IDENTITY, identity.as_octets())?;
        for device in &self.devices {
            // `Record::parse` refuses a name outside the grammar afterwards.
            let length = u8::try_from(device.name.len()).map_err(|_| StatementError::Body)?;
            let mut value = vec![length];
            value.extend_from_slice(device.name.as_bytes());
            value.push(device.key.algorithm().number());
            value.extend_from_slice(device.key.as_octets());
            body.push(TLV_DEVICE, &value)?;
        }
        if let Some(key) = recovery {
            push_recovery_key(&mut body, key)?;
        }
        Ok(body.finish())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
