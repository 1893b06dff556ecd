//! Who is in a session: `WITH=`, the accounts, and `MEM=`, the hash over their devices
//! (SPEC.md §7).
//!
//! Both sides compute MEM from the records; an offer whose MEM differs is refused, so nobody
//! adds a silent listener.

use core::fmt;

use crate::address::{Address, AddressBuf};
use crate::canonical::{push_lp, sha256};
use crate::error::StatementError;
use crate::identifier::{MemberHash, RecordName};
use crate::limits::{ACCOUNTS_MAX, MEMBERS_MAX, VALUE_OCTETS_MAX};
use crate::parameter::{WireValue, escape, list};
use crate::record::Record;

/// The accounts of a session, sorted, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts(Vec<AddressBuf>);

impl Accounts {
    /// These accounts, sorted; `None` for none, too many, one that is no account, or a list
    /// longer than a value may be.
    #[must_use]
    pub fn new(accounts: &[Address<'_>]) -> Option<Self> {
        let mut sorted: Vec<AddressBuf> = accounts.iter().map(|account| account.to_buf()).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let accounts = Self(sorted);
        accounts.is_good().then_some(accounts)
    }

    fn is_good(&self) -> bool {
        (1..=ACCOUNTS_MAX).contains(&self.0.len())
            && self.0.iter().all(|account| account.as_address().is_account())
            && self.0.is_sorted_by(|one, next| one < next)
            && self.to_string().len() <= VALUE_OCTETS_MAX
    }

    /// The accounts in order.
    #[must_use]
    pub fn as_slice(&self) -> &[AddressBuf] {
        &self.0
    }

    /// Whether `account` is one of them.
    #[must_use]
    pub fn contains(&self, account: Address<'_>) -> bool {
        self.0.iter().any(|member| member.as_address() == account)
    }
}

impl fmt::Display for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, account) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            f.write_str(&escape(account.as_str()))?;
        }
        Ok(())
    }
}

/// Sorted and without repeats, or it is not read.
impl WireValue<'_> for Accounts {
    fn read(value: &str) -> Option<Self> {
        let accounts = Self(list(value, ACCOUNTS_MAX)?);
        accounts.is_good().then_some(accounts)
    }
}

/// The devices that a generation covers, with the record that lists each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members(Vec<(AddressBuf, RecordName)>);

impl Members {
    /// Every device that `records` list, sorted by address.
    ///
    /// # Errors
    /// [`StatementError::Body`] for more than [`MEMBERS_MAX`] devices, none, or two records
    /// of one account.
    pub fn new<'r>(records: impl IntoIterator<Item = &'r Record>) -> Result<Self, StatementError> {
        let mut members = Vec::new();
        for record in records {
            for device in record.devices() {
                let address = AddressBuf::with_device(record.account(), &device.name)
                    .map_err(|_| StatementError::Body)?;
                if members.len() == MEMBERS_MAX {
                    return Err(StatementError::Body);
                }
                members.push((address, record.name()));
            }
        }
        members.sort_unstable();
        let are_distinct = members.is_sorted_by(|(one, _), (next, _)| one < next);
        if are_distinct && !members.is_empty() {
            Ok(Self(members))
        } else {
            Err(StatementError::Body)
        }
    }

    /// Device addresses with the names of their records, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[(AddressBuf, RecordName)] {
        &self.0
    }

    /// Whether `device` is covered.
    #[must_use]
    pub fn contains(&self, device: Address<'_>) -> bool {
        self.0.iter().any(|(member, _)| member.as_address() == device)
    }

    /// MEM.
    #[must_use]
    pub fn hash(&self) -> MemberHash {
        let mut octets = Vec::new();
        for (device, record) in &self.0 {
            push_lp(&mut octets, device.as_str().as_bytes());
            push_lp(&mut octets, record.as_str().as_bytes());
        }
        MemberHash::from_octets(&sha256(&[&octets]))
    }
}
