//! The directory: which accounts there are, their records, and which keys they may use.
//!
//! Owns the tables `Account`, `Record`, `Revocation`, `Invite`, `Prekey` and the domain's rows in
//! `Policy`, and a bounded memory of accounts
//! read lately. Invariants: every version of a record and every revocation is kept for good; a
//! revoked key is never listed again; what is remembered is what is durable, so whoever commits a
//! change calls [`Directory::forget`] when the outcome is known. Holds no connections. Limits:
//! [`limits`]. SPEC.md §6.

mod account;
mod invitation;
pub mod limits;
mod policy;
mod prekey;
mod provision;

use std::collections::HashMap;
use std::rc::Rc;

use protocol::identifier::RecordName;
use protocol::signature::PublicKey;
use protocol::{Address, AddressBuf};

pub use account::{Account, key_hash};
pub use invitation::{Invitation, expired_invitations, invitation_row};
pub use policy::{policy, policy_operations};
pub use prekey::{Offered, Plan, Prekeys, SignedPrekey, Taken, drop_operation};
pub(crate) use provision::next_policy;
pub use provision::{KeySigner, LOG_DEVICE, ProvisionError, Provisioned, provision};

use crate::store::{Operation, Row, Store, StoreError, Table};

/// The accounts of the domain, read through a bounded memory.
#[derive(Default)]
pub struct Directory {
    accounts: HashMap<AddressBuf, Rc<Account>>,
}

impl Directory {
    /// A directory that remembers nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The account that `address` names, or the account of that device; `None` if there is none.
    ///
    /// # Errors
    /// Those of [`Store::get`]; [`StoreError::Damaged`] if the row is not an account.
    pub fn account(
        &mut self,
        store: &dyn Store,
        address: Address<'_>,
    ) -> Result<Option<Rc<Account>>, StoreError> {
        let address = address.account();
        if let Some(account) = self.accounts.get(address.as_str()) {
            return Ok(Some(Rc::clone(account)));
        }
        let Some(value) = store.get(&account_row(address))? else { return Ok(None) };
        let account = Account::decode(address, &value)
            .ok_or_else(|| StoreError::Damaged { text: "an account's row".to_owned() })?;
        if self.accounts.len() >= limits::ACCOUNTS_REMEMBERED_MAX {
            self.accounts.clear();
        }
        let account = Rc::new(account);
        self.accounts.insert(address.to_buf(), Rc::clone(&account));
        Ok(Some(account))
    }

    /// Makes the next read of this account come from the store.
    pub fn forget(&mut self, account: Address<'_>) {
        self.accounts.remove(account.account().as_str());
    }
}

/// The row of an account. Owner: the account, or the bare domain.
#[must_use]
pub fn account_row(account: Address<'_>) -> Row {
    Row::new(Table::Account, account.as_str().as_bytes(), b"")
}

/// The line of the record with this name (KR), current or older.
///
/// # Errors
/// Those of [`Store::get`].
pub fn record_named(
    store: &dyn Store,
    account: Address<'_>,
    name: RecordName,
) -> Result<Option<String>, StoreError> {
    let Some(line) = store.get(&record_row(account, name))? else { return Ok(None) };
    String::from_utf8(line)
        .map(Some)
        .map_err(|_| StoreError::Damaged { text: "a record's row".to_owned() })
}

/// The invitation with this code.
///
/// # Errors
/// Those of [`Store::get`].
pub fn invitation(store: &dyn Store, code: &str) -> Result<Option<Invitation>, StoreError> {
    let Some(row) = store.get(&invitation_row(code))? else { return Ok(None) };
    Invitation::decode(&row)
        .map(Some)
        .ok_or_else(|| StoreError::Damaged { text: "an invitation's row".to_owned() })
}

/// The operations that make `account` the first or the next state after `before`; its record is
/// kept for good. A key that was revoked once makes them a conflict.
#[must_use]
pub fn publish_operations(account: &Account, before: Option<&Account>) -> Vec<Operation> {
    let address = account.address();
    let row = account_row(address);
    let mut operations = vec![match before {
        None => Operation::RequireAbsent { row: row.clone() },
        Some(before) => Operation::RequireEqual { row: row.clone(), value: before.encode() },
    }];
    let keys = account.record().devices().iter().map(|device| &device.key);
    for key in keys.chain([account.record().identity()]) {
        operations.push(Operation::RequireAbsent { row: revoked_row(address, &key_hash(key)) });
    }
    operations.push(Operation::Put { row, value: account.encode() });
    operations.push(Operation::Put {
        row: record_row(address, account.record().name()),
        value: account.record_line().into(),
    });
    operations
}

/// The operations that revoke `key` by the statement `line` with this hash, and make `after` the
/// state of its account in place of `before`. Both rows of the statement are kept for good.
#[must_use]
pub fn revoke_operations(
    before: &Account,
    after: &Account,
    key: &PublicKey,
    (hash, line): (&[u8; 32], &str),
) -> Vec<Operation> {
    let address = before.address();
    let row = account_row(address);
    vec![
        Operation::RequireEqual { row: row.clone(), value: before.encode() },
        Operation::Put { row, value: after.encode() },
        Operation::Put { row: revoked_row(address, &key_hash(key)), value: line.into() },
        Operation::Put { row: statement_row(address, hash), value: line.into() },
    ]
}

/// Whether the revocation with this hash is kept.
///
/// # Errors
/// Those of [`Store::get`].
pub fn is_revocation_kept(
    store: &dyn Store,
    account: Address<'_>,
    hash: &[u8; 32],
) -> Result<bool, StoreError> {
    Ok(store.get(&statement_row(account, hash))?.is_some())
}

/// The 602 lines that take back keys which the account's current record lists.
///
/// # Errors
/// Those of [`Store::get`].
pub fn revocations(store: &dyn Store, account: &Account) -> Result<Vec<String>, StoreError> {
    let listed = account.record().devices().iter().map(|device| &device.key);
    let revoked = listed.filter(|key| account.is_revoked(key));
    let identity = account.is_suspended().then(|| account.record().identity());
    let mut lines = Vec::new();
    for key in revoked.chain(identity) {
        if let Some(line) = store.get(&revoked_row(account.address(), &key_hash(key)))? {
            let line = String::from_utf8(line)
                .map_err(|_| StoreError::Damaged { text: "a revocation's row".to_owned() })?;
            lines.push(line);
        }
    }
    Ok(lines)
}

/// Where a record is kept for good, by its name.
fn record_row(account: Address<'_>, name: RecordName) -> Row {
    Row::new(Table::Record, account.as_str().as_bytes(), &name.to_octets())
}

/// Where it is written that a key was revoked, by the key's hash.
fn revoked_row(account: Address<'_>, key_hash: &[u8; 32]) -> Row {
    Row::new(Table::Revocation, account.as_str().as_bytes(), &[b"key:", &key_hash[..]].concat())
}

/// Where a revocation is kept for good, by its hash.
fn statement_row(account: Address<'_>, hash: &[u8; 32]) -> Row {
    Row::new(Table::Revocation, account.as_str().as_bytes(), &[b"line:", &hash[..]].concat())
}
