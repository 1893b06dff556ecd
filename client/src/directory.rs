//! What is known of other accounts and domains: records in an unbroken chain from the first seen.
//!
//! Owns the rows of [`Space::Contact`]. The invariants: a record is taken only if the one held
//! names it as its successor (VER, PREV, PSIG: [`Record::follow`]), or as the first of an account
//! never seen before; a change of identity key is remembered until it was shown, and until then
//! nothing is sent on (SPEC.md §6, "Trust, stage 1"). Safety numbers are for people who compare by
//! hand: 60 digits from both identity keys, the same on both sides.

use std::collections::BTreeMap;

use protocol::canonical::{push_lp, sha256};
use protocol::identifier::RecordName;
use protocol::policy::Policy;
use protocol::record::Record;
use protocol::signature::PublicKey;
use protocol::{Address, Command, Timestamp};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::state::{Space, State, StateError};

/// What is kept of an account or a domain.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Contact {
    /// The newest record, the whole line.
    pub(crate) record: String,
    /// Records that it replaced, newest first, at most [`limits::REPLACED_RECORDS_MAX`].
    pub(crate) replaced: Vec<Replaced>,
    /// The identity key before a change that was not shown yet.
    pub(crate) unseen_change_from: Option<String>,
    /// Whether a revocation of the identity key was seen; nothing is sent then.
    pub(crate) is_frozen: bool,
    /// Devices whose keys were revoked.
    pub(crate) revoked_devices: Vec<String>,
    /// The highest SPK seen of each device.
    pub(crate) spk_seen: BTreeMap<String, u64>,
    /// When the relay was last asked for the record, in milliseconds since 1970.
    pub(crate) checked_at: u64,
}

/// A record that another one replaced.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Replaced {
    /// The line.
    pub(crate) record: String,
    /// When this device learned of the other one.
    pub(crate) at: u64,
}

/// What came of a record line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The identity key changed; it must be shown before anything is sent.
    IdentityChanged,
    /// The account was never seen before.
    New,
    /// There are records between the one held and this one; ask for this one and try again.
    NeedsOlder(RecordName),
    /// The record held is the newest.
    Same,
    /// The record changed, the identity key did not.
    Updated,
}

/// Why a record is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// Misbehaved: the relay answered with another account's record.
    #[error("the record is another account's")]
    Account,
    /// Misbehaved: the chain of records is broken, too long, or a signature in it fails.
    #[error("the record does not follow from the one held: {0}")]
    Chain(protocol::Error),
    /// Misbehaved: the domain's key is not the one that the invitation named.
    #[error("the domain's key is not the one that the invitation named")]
    Pin,
    /// Resource: the state file.
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<protocol::Error> for DirectoryError {
    fn from(error: protocol::Error) -> Self {
        Self::Chain(error)
    }
}

impl Contact {
    /// Everything kept of `account` (or of a domain).
    ///
    /// # Errors
    /// [`StateError`].
    pub fn load(state: &State, account: Address<'_>) -> Result<Option<Self>, StateError> {
        state.get(Space::Contact, account.as_str())
    }

    pub(crate) fn store(&self, state: &mut State, account: Address<'_>) -> Result<(), StateError> {
        state.put(Space::Contact, account.as_str(), self)
    }

    /// The newest record.
    ///
    /// # Errors
    /// [`StateError::Damaged`]: the line was checked before it was stored.
    pub fn record(&self) -> Result<Record, StateError> {
        parse(&self.record).map_err(|_| StateError::Damaged(Space::Contact))
    }

    /// The record of this name: the newest, or one that it replaced within
    /// [`limits::REPLACED_RECORD_AGE_MS_MAX`] and from which it took no device and no key.
    ///
    /// # Errors
    /// [`StateError::Damaged`].
    pub fn record_named(
        &self,
        name: RecordName,
        now: Timestamp,
    ) -> Result<Option<Record>, StateError> {
        let newest = self.record()?;
        if newest.name() == name {
            return Ok(Some(newest));
        }
        for replaced in &self.replaced {
            let record =
                parse(&replaced.record).map_err(|_| StateError::Damaged(Space::Contact))?;
            let is_recent =
                now.ms_since(Timestamp(replaced.at)) < limits::REPLACED_RECORD_AGE_MS_MAX;
            if record.name() == name {
                return Ok((is_recent && keeps_all(&record, &newest)).then_some(record));
            }
        }
        Ok(None)
    }

    /// Whether this device's key was revoked.
    #[must_use]
    pub(crate) fn is_revoked(&self, device: &str) -> bool {
        self.is_frozen || self.revoked_devices.iter().any(|revoked| revoked == device)
    }
}

/// Whether `newer` still lists every device of `older` with its key, and the same identity key.
fn keeps_all(older: &Record, newer: &Record) -> bool {
    older.identity() == newer.identity()
        && older
            .devices()
            .iter()
            .all(|device| newer.device(&device.name).is_some_and(|same| same.key == device.key))
}

fn parse(line: &str) -> Result<Record, protocol::Error> {
    Record::parse(&Command::parse(line.as_bytes())?)
}

/// Takes the answer to a fetch: the account's newest record and, behind it, older ones as far as
/// they were asked for, newest first.
///
/// # Errors
/// [`DirectoryError`]; what is held is then untouched.
pub fn learn(
    state: &mut State,
    account: Address<'_>,
    lines: &[String],
    pin: Option<&[u8; 32]>,
    now: Timestamp,
) -> Result<Learned, DirectoryError> {
    let newest_line = lines.first().ok_or(DirectoryError::Account)?;
    let newest = parse(newest_line)?;
    if newest.account() != account {
        return Err(DirectoryError::Account);
    }
    let Some(mut contact) = Contact::load(state, account)? else {
        // The first record seen of a domain is believed only if the invitation vouches for it.
        if pin.is_some_and(|pin| *pin != key_hash(newest.identity())) {
            return Err(DirectoryError::Pin);
        }
        let contact =
            Contact { record: newest_line.clone(), checked_at: now.0, ..Contact::default() };
        contact.store(state, account)?;
        return Ok(Learned::New);
    };
    let held = contact.record()?;
    contact.checked_at = now.0;
    if newest.name() == held.name() {
        contact.store(state, account)?;
        return Ok(Learned::Same);
    }
    if newest.version() <= held.version() {
        return Err(DirectoryError::Chain(protocol::error::StatementError::Version.into()));
    }
    let Some(chain) = chain_from(held.name(), lines)? else {
        let oldest = lines.last().ok_or(DirectoryError::Account)?;
        let older = parse(oldest)?.previous();
        let is_within = lines.len() < limits::RECORD_CHAIN_MAX;
        let broken = DirectoryError::Chain(protocol::error::StatementError::Previous.into());
        return older.filter(|_| is_within).map(Learned::NeedsOlder).ok_or(broken);
    };
    let mut last = held.clone();
    for line in chain {
        last = last.follow(&Command::parse(line.as_bytes())?)?;
    }
    let is_changed = last.identity() != held.identity();
    contact.replaced.insert(0, Replaced { record: contact.record.clone(), at: now.0 });
    contact.replaced.truncate(limits::REPLACED_RECORDS_MAX);
    contact.record.clone_from(newest_line);
    if is_changed {
        contact.unseen_change_from.get_or_insert_with(|| format!("{:?}", held.identity()));
    }
    contact.store(state, account)?;
    Ok(if is_changed { Learned::IdentityChanged } else { Learned::Updated })
}

/// The lines that lead from the record named `held` to the newest, oldest first; `None` if the
/// oldest line does not follow from it.
fn chain_from(
    held: RecordName,
    lines: &[String],
) -> Result<Option<impl Iterator<Item = &String>>, DirectoryError> {
    for (position, line) in lines.iter().enumerate() {
        if parse(line)?.previous() == Some(held) {
            return Ok(Some(lines.iter().take(position + 1).rev()));
        }
    }
    Ok(None)
}

/// Takes note that the change of identity key was shown; says whether there was one.
///
/// # Errors
/// [`StateError`].
pub fn shown(state: &mut State, account: Address<'_>) -> Result<bool, StateError> {
    let Some(mut contact) = Contact::load(state, account)? else { return Ok(false) };
    let was_unseen = contact.unseen_change_from.take().is_some();
    if was_unseen {
        contact.store(state, account)?;
    }
    Ok(was_unseen)
}

/// SHA-256 of a key as invitations name it.
#[must_use]
pub fn key_hash(key: &PublicKey) -> [u8; 32] {
    sha256(&[key.as_octets()])
}

/// Takes a policy line of `domain`, whose record must be known.
///
/// # Errors
/// [`DirectoryError::Chain`] for a bad signature, another domain or a lower VER.
pub fn learn_policy(
    state: &mut State,
    domain: Address<'_>,
    line: &str,
) -> Result<Policy, DirectoryError> {
    let contact = Contact::load(state, domain)?.ok_or(DirectoryError::Account)?;
    let key = contact.record()?.identity().clone();
    let command = Command::parse(line.as_bytes())?;
    let policy = match held_policy(state, domain)? {
        Some(held) => held.follow(&command, &key)?,
        None => Policy::verify(&command, &key)?,
    };
    if policy.domain.as_address() != domain {
        return Err(DirectoryError::Account);
    }
    state.put(Space::Policy, domain.as_str(), line)?;
    Ok(policy)
}

/// The policy held of `domain`.
///
/// # Errors
/// [`StateError`].
pub fn held_policy(state: &State, domain: Address<'_>) -> Result<Option<Policy>, StateError> {
    let Some(line) = state.get::<String>(Space::Policy, domain.as_str())? else { return Ok(None) };
    let damaged = |_| StateError::Damaged(Space::Policy);
    let command = Command::parse(line.as_bytes()).map_err(damaged)?;
    Policy::parse(&command).map(Some).map_err(damaged)
}

/// Sixty digits that are the same on both sides exactly if both hold the same two identity keys.
///
/// Each side gives 30 digits: SHA-256 over account and key, hashed on
/// [`limits::SAFETY_ROUNDS`] times so that near misses cost an attacker as much.
#[must_use]
pub fn safety_number(one: &Record, other: &Record) -> String {
    let mut halves = [half(one), half(other)];
    halves.sort_unstable();
    halves.concat()
}

fn half(record: &Record) -> String {
    let mut text = Vec::new();
    push_lp(&mut text, b"CIM1-SAFETY");
    push_lp(&mut text, record.account().as_str().as_bytes());
    push_lp(&mut text, record.identity().algorithm().name().as_bytes());
    push_lp(&mut text, record.identity().as_octets());
    let mut hash = sha256(&[&text]);
    for _ in 1..limits::SAFETY_ROUNDS {
        hash = sha256(&[&hash, &text]);
    }
    let (groups, _) = hash.as_chunks::<5>();
    groups
        .iter()
        .map(|group| {
            let number = group.iter().fold(0u64, |sum, &octet| (sum << 8) | u64::from(octet));
            format!("{:05}", number % 100_000)
        })
        .collect()
}

#[cfg(test)]
mod tests;
