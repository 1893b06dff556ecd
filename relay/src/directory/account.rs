//! One account: its current record and what was taken back from it.
//!
//! The row holds format 1: flags, time of registration, hashes of revoked keys, then the line of
//! the current record. Invariant: a revoked key named here is listed by the current record; all
//! others are rows of their own. SPEC.md §6.

use protocol::canonical::sha256;
use protocol::record::{Device, Record};
use protocol::signature::PublicKey;
use protocol::timestamp::Timestamp;
use protocol::{Address, AddressBuf, Command};

const FORMAT: u8 = 1;
const FLAG_SUSPENDED: u8 = 1;

/// An account with its current record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    record: Record,
    record_line: Box<str>,
    registered_at: Timestamp,
    is_suspended: bool,
    revoked: Vec<[u8; 32]>,
}

impl Account {
    /// A new account. `line` is the 601 line that `record` was read from, without CRLF.
    #[must_use]
    pub fn new(record: Record, line: &str, now: Timestamp) -> Self {
        Self {
            record,
            record_line: line.into(),
            registered_at: now,
            is_suspended: false,
            revoked: Vec::new(),
        }
    }

    /// The same account with its next record.
    #[must_use]
    pub fn with_record(&self, record: Record, line: &str) -> Self {
        Self { record, record_line: line.into(), revoked: Vec::new(), ..self.clone() }
    }

    /// The same account after a revocation: of a device's key, or of the identity key, which
    /// suspends the account.
    #[must_use]
    pub fn with_revoked(&self, key: &PublicKey) -> Self {
        let mut account = self.clone();
        if *key == *self.record.identity() {
            account.is_suspended = true;
        }
        let hash = key_hash(key);
        let is_listed = self.record.devices().iter().any(|device| device.key == *key);
        if is_listed && !account.revoked.contains(&hash) {
            account.revoked.push(hash);
        }
        account
    }

    /// Reads a row that [`Account::encode`] wrote; `None` if it is not one of `address`.
    #[must_use]
    pub fn decode(address: Address<'_>, row: &[u8]) -> Option<Self> {
        let (&[FORMAT, flags], rest) = row.split_first_chunk()? else { return None };
        let (registered_at, rest) = rest.split_first_chunk::<8>()?;
        let (&count, rest) = rest.split_first()?;
        let (revoked, line) = rest.split_at_checked(usize::from(count) * 32)?;
        let (revoked, _) = revoked.as_chunks::<32>();
        let record = Record::parse(&Command::parse(line).ok()?).ok()?;
        if record.account() != address {
            return None;
        }
        Some(Self {
            record,
            record_line: core::str::from_utf8(line).ok()?.into(),
            registered_at: Timestamp(u64::from_be_bytes(*registered_at)),
            is_suspended: flags & FLAG_SUSPENDED != 0,
            revoked: revoked.to_vec(),
        })
    }

    /// The row.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut row = vec![FORMAT, if self.is_suspended { FLAG_SUSPENDED } else { 0 }];
        row.extend_from_slice(&self.registered_at.0.to_be_bytes());
        // At most one for each device of a record, of which there are 32.
        row.push(u8::try_from(self.revoked.len()).unwrap_or(u8::MAX));
        for hash in &self.revoked {
            row.extend_from_slice(hash);
        }
        row.extend_from_slice(self.record_line.as_bytes());
        row
    }

    /// Its address, without a device.
    #[must_use]
    pub fn address(&self) -> Address<'_> {
        self.record.account()
    }

    /// The current record.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// The current record's line, octet for octet, without CRLF.
    #[must_use]
    pub fn record_line(&self) -> &str {
        &self.record_line
    }

    /// When it was registered.
    #[must_use]
    pub const fn registered_at(&self) -> Timestamp {
        self.registered_at
    }

    /// Whether its identity key was revoked: nobody logs in, no offers are taken.
    #[must_use]
    pub const fn is_suspended(&self) -> bool {
        self.is_suspended
    }

    /// Whether `key` is one that the current record lists and that was revoked since.
    #[must_use]
    pub fn is_revoked(&self, key: &PublicKey) -> bool {
        !self.revoked.is_empty() && self.revoked.contains(&key_hash(key))
    }

    /// The listed devices whose keys were not revoked; none if the account is suspended.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.record
            .devices()
            .iter()
            .filter(|device| !self.is_suspended && !self.is_revoked(&device.key))
    }

    /// The device of this name, if it may be used.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices().find(|device| *device.name == *name)
    }

    /// The addresses of [`Account::devices`].
    #[must_use]
    pub fn device_addresses(&self) -> Vec<AddressBuf> {
        self.devices()
            .filter_map(|device| AddressBuf::with_device(self.address(), &device.name).ok())
            .collect()
    }
}

/// What names a key in rows about revocation.
#[must_use]
pub fn key_hash(key: &PublicKey) -> [u8; 32] {
    sha256(&[&[key.algorithm().number()], key.as_octets()])
}
