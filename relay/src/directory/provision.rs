//! Provisioning: the domain's own record and its first policy, before the relay serves.
//!
//! The record (FROM the bare domain, ROLE=domain) names the token's domain key and, as device
//! `log`, its log key; the policy says what the domain allows. Both are signed in the token. Doing
//! it again changes nothing that still holds; it renews what ends soon, and refuses to go on under
//! another domain key, which no contact would follow. Blocks. SPEC.md §4, §6, §10.

use protocol::policy::Policy;
use protocol::record::{Record, RecordBuilder};
use protocol::signature::{Algorithm, PublicKey, SignatureError, Signer};
use protocol::timestamp::Timestamp;
use protocol::{AddressBuf, Command};

use super::{Account, Directory, policy, policy_operations, publish_operations};
use crate::keys::{KeyError, KeyService, SigningKeyName};
use crate::store::{CommitToken, Operation, Outcome, Store, StoreError};

/// The name of the device that holds the log key in a domain's record.
pub const LOG_DEVICE: &str = "log";
/// How long a domain's record and policy hold.
const VALID_MS: u64 = 2 * 365 * 24 * 3_600_000;
/// When they are renewed: this long before their end.
const RENEW_MS: u64 = 180 * 24 * 3_600_000;
/// Looks at the store's completions before provisioning gives up.
const LOOKS_MAX: usize = 100_000;

/// A key of the token, as a signer of lines.
pub struct KeySigner<'a> {
    keys: &'a dyn KeyService,
    name: SigningKeyName,
    public: PublicKey,
    /// What the token said when it did not sign.
    failure: std::cell::RefCell<Option<KeyError>>,
}

impl<'a> KeySigner<'a> {
    /// The token's key of this name.
    ///
    /// # Errors
    /// Those of the token; [`ProvisionError::Key`] if its public key is not a P-256 point.
    pub fn new(keys: &'a dyn KeyService, name: SigningKeyName) -> Result<Self, ProvisionError> {
        let public = keys.public_key(name)?;
        let public =
            PublicKey::parse(Algorithm::P256, &public).map_err(|_| ProvisionError::Key { name })?;
        Ok(Self { keys, name, public, failure: std::cell::RefCell::new(None) })
    }

    fn explain(&self, error: protocol::Error) -> ProvisionError {
        match self.failure.borrow_mut().take() {
            Some(failure) => failure.into(),
            None => ProvisionError::Content(error),
        }
    }
}

impl Signer for KeySigner<'_> {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        self.keys.sign(self.name, message).map_err(|error| {
            *self.failure.borrow_mut() = Some(error);
            SignatureError::Signer
        })
    }
}

/// What provisioning found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provisioned {
    /// VER of the domain's record.
    pub record_version: u64,
    /// VER of the policy.
    pub policy_version: u64,
    /// Whether anything was written.
    pub has_changed: bool,
}

/// Why a domain was not provisioned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// What was to be signed does not follow the protocol.
    #[error("the record or policy would not follow the protocol: {0}")]
    Content(protocol::Error),
    /// The token's public key has another form.
    #[error("the token's {name} key is not a P-256 key")]
    Key {
        /// Which key.
        name: SigningKeyName,
    },
    /// The domain's record names another domain key than the token has.
    #[error("the token holds another domain key than the domain's record names")]
    OtherKey,
    /// Somebody else wrote at the same time, or the store does not say what became of the write.
    #[error("the store did not take the domain's record: {0}")]
    Outcome(&'static str),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The token did not do it.
    #[error(transparent)]
    Token(#[from] KeyError),
}

/// Makes sure that `store` has a record and a policy of the domain that hold at `now`. `wanted`
/// says what the policy allows; its version and times are decided here. `pause` is called between
/// two looks for the store's outcome.
///
/// # Errors
/// [`ProvisionError`]; what was written before it stays and is found the next time.
pub fn provision(
    store: &mut dyn Store,
    keys: &dyn KeyService,
    wanted: &Policy,
    now: Timestamp,
    pause: &mut dyn FnMut(),
) -> Result<Provisioned, ProvisionError> {
    let domain_key = KeySigner::new(keys, SigningKeyName::Domain)?;
    let log_key = KeySigner::new(keys, SigningKeyName::Log)?;
    let domain = &wanted.domain;
    let held = Directory::new().account(store, domain.as_address())?;
    let record = next_record(domain, held.as_deref(), &domain_key, log_key.public_key(), now)?;
    let has_record = record.is_some();
    let record_version = match (record, &held) {
        (Some((record, line)), held) => {
            let account = match held {
                Some(held) => held.with_record(record, &line),
                None => Account::new(record, &line, now),
            };
            commit(store, publish_operations(&account, held.as_deref()), pause)?;
            account.record().version()
        }
        (None, held) => held.as_ref().map_or(0, |held| held.record().version()),
    };
    let held = policy(store, domain.as_address())?;
    let Some(next) = next_policy(wanted, held.as_ref().map(|(policy, _)| policy), now) else {
        let policy_version = held.map_or(0, |(policy, _)| policy.version);
        return Ok(Provisioned { record_version, policy_version, has_changed: has_record });
    };
    let line = next.sign(&domain_key).map_err(|error| domain_key.explain(error))?;
    let before = held.as_ref().map(|(_, line)| line.as_str());
    commit(store, policy_operations(&next, &line, before), pause)?;
    Ok(Provisioned { record_version, policy_version: next.version, has_changed: true })
}

/// The record that should take the place of the one held; `None` if that still serves.
fn next_record(
    domain: &AddressBuf,
    held: Option<&Account>,
    domain_key: &KeySigner<'_>,
    log_key: &PublicKey,
    now: Timestamp,
) -> Result<Option<(Record, String)>, ProvisionError> {
    let end = now.plus_ms(VALID_MS);
    let builder = match held.map(Account::record) {
        None => RecordBuilder::new(domain.as_address(), now, end),
        Some(record) if record.identity() != domain_key.public_key() => {
            return Err(ProvisionError::OtherKey);
        }
        Some(record) => {
            let names_log_key =
                record.device(LOG_DEVICE).is_some_and(|device| device.key == *log_key);
            if names_log_key && record.not_after() > now.plus_ms(RENEW_MS) {
                return Ok(None);
            }
            RecordBuilder::after(record).validity(now, end)
        }
    };
    let line = builder
        .device(LOG_DEVICE, log_key)
        .sign(domain_key)
        .map_err(|error| domain_key.explain(error))?;
    let command = Command::parse(line.as_bytes()).map_err(ProvisionError::Content)?;
    let record = Record::parse(&command).map_err(ProvisionError::Content)?;
    Ok(Some((record, line)))
}

/// The policy that should take the place of the one held; `None` if that says the same for long
/// enough.
pub(crate) fn next_policy(
    wanted: &Policy,
    held: Option<&Policy>,
    now: Timestamp,
) -> Option<Policy> {
    let version = held.map_or(1, |held| held.version + 1);
    let next =
        Policy { version, not_before: now, not_after: now.plus_ms(VALID_MS), ..wanted.clone() };
    let holds = held.is_some_and(|held| {
        let same = Policy {
            version: held.version,
            not_before: held.not_before,
            not_after: held.not_after,
            ..wanted.clone()
        };
        *held == same && held.not_after > now.plus_ms(RENEW_MS)
    });
    (!holds).then_some(next)
}

fn commit(
    store: &mut dyn Store,
    operations: Vec<Operation>,
    pause: &mut dyn FnMut(),
) -> Result<(), ProvisionError> {
    let token = CommitToken(0);
    store.submit(token, operations)?;
    let mut outcomes = Vec::new();
    for _ in 0..LOOKS_MAX {
        store.completions(&mut outcomes);
        match outcomes.pop() {
            None => pause(),
            Some((_, Outcome::Durable)) => return Ok(()),
            Some((_, Outcome::Refused(error))) => return Err(error.into()),
            Some((_, Outcome::Conflict { .. })) => {
                return Err(ProvisionError::Outcome("somebody else wrote it at the same time"));
            }
            Some((_, Outcome::Unknown)) => {
                return Err(ProvisionError::Outcome("the write was interrupted: try again"));
            }
        }
    }
    Err(ProvisionError::Outcome("it does not answer"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::time::Duration;

    use protocol::{Suite, Suites};

    use super::*;
    use crate::keys::software::SoftwareKeys;
    use crate::store::{Fault, MemoryStore};

    const NOW: Timestamp = Timestamp(1_795_470_000_000);

    fn wanted() -> Policy {
        let domain = AddressBuf::parse("a.example").unwrap();
        Policy::new(domain.as_address(), Timestamp(0), Timestamp(1))
    }

    fn run(
        store: &mut MemoryStore,
        keys: &SoftwareKeys,
        wanted: &Policy,
        now: Timestamp,
    ) -> Result<Provisioned, ProvisionError> {
        provision(store, keys, wanted, now, &mut || panic!("nothing is held"))
    }

    #[test]
    fn doing_it_again_changes_nothing_and_other_wishes_do() {
        let (mut store, keys) = (MemoryStore::new(), SoftwareKeys::generate().unwrap());
        let first = run(&mut store, &keys, &wanted(), NOW).unwrap();
        assert_eq!(first, Provisioned { record_version: 1, policy_version: 1, has_changed: true });
        let again = run(&mut store, &keys, &wanted(), NOW.plus_ms(1_000)).unwrap();
        assert_eq!(again, Provisioned { has_changed: false, ..first });
        let other = Policy { suites: Suites::new(&[Suite::M2]), ..wanted() };
        let changed = run(&mut store, &keys, &other, NOW.plus_ms(2_000)).unwrap();
        assert_eq!((changed.record_version, changed.policy_version), (1, 2));
        let late = NOW.plus_ms(VALID_MS - RENEW_MS);
        let renewed = run(&mut store, &keys, &other, late).unwrap();
        assert_eq!((renewed.record_version, renewed.policy_version), (2, 2));
        let renewed = run(&mut store, &keys, &other, late.plus_ms(2_000)).unwrap();
        assert_eq!((renewed.record_version, renewed.policy_version), (2, 3));
    }

    #[test]
    fn the_domain_key_signs_record_and_policy() {
        let (mut store, keys) = (MemoryStore::new(), SoftwareKeys::generate().unwrap());
        run(&mut store, &keys, &wanted(), NOW).unwrap();
        let domain = wanted().domain;
        let account = Directory::new().account(&store, domain.as_address()).unwrap().unwrap();
        let domain_key = keys.public_key(SigningKeyName::Domain).unwrap();
        let log_key = keys.public_key(SigningKeyName::Log).unwrap();
        assert_eq!(account.record().identity().as_octets(), domain_key);
        assert_eq!(account.device(LOG_DEVICE).unwrap().key.as_octets(), log_key);
        let (_, line) = policy(&store, domain.as_address()).unwrap().unwrap();
        let command = Command::parse(line.as_bytes()).unwrap();
        Policy::verify(&command, account.record().identity()).unwrap();
    }

    #[test]
    fn another_token_and_faults_are_told_apart() {
        let (mut store, keys) = (MemoryStore::new(), SoftwareKeys::generate().unwrap());
        keys.set_away(true);
        let away = run(&mut store, &keys, &wanted(), NOW);
        assert!(matches!(away, Err(ProvisionError::Token(KeyError::Away { .. }))));
        keys.set_away(false);
        store.set_key_away(Some(Duration::from_secs(1)));
        let away = run(&mut store, &keys, &wanted(), NOW);
        assert!(matches!(away, Err(ProvisionError::Store(StoreError::KeyAway { .. }))));
        store.set_key_away(None);
        store.fail_next(Fault::UnknownDone);
        let unknown = run(&mut store, &keys, &wanted(), NOW);
        assert!(matches!(unknown, Err(ProvisionError::Outcome(_))));
        store.reopen();
        let found = run(&mut store, &keys, &wanted(), NOW).unwrap();
        assert_eq!((found.record_version, found.policy_version), (1, 1));
        let other = SoftwareKeys::generate().unwrap();
        let refused = run(&mut store, &other, &wanted(), NOW);
        assert!(matches!(refused, Err(ProvisionError::OtherKey)));
    }
}
