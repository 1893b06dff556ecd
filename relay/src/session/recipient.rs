//! Who a line is for, as far as every family asks: the address, its devices, its owner's opinion.

use protocol::timestamp::Timestamp;
use protocol::{Address, AddressBuf, Command, Error};

use super::Domain;
use super::answer::Answer;
use crate::clock::Now;
use crate::route::Relation;

impl Domain {
    /// TO, which must be of this domain.
    pub(super) fn local_recipient<'a>(&self, command: &Command<'a>) -> Result<Address<'a>, Answer> {
        let to = command.to().ok_or(Error::BadAddress)?;
        if to.domain() == self.settings.domain {
            Ok(to)
        } else {
            Err(Answer::text(550, "this relay does not know that domain"))
        }
    }

    /// The devices that the account of `address` lists; none if there is no such account.
    pub(super) fn devices_of(&mut self, address: Address<'_>) -> Result<Vec<AddressBuf>, Answer> {
        let account = self.directory.account(&*self.store, address)?;
        Ok(account.map(|account| account.device_addresses()).unwrap_or_default())
    }

    /// What the owner of `to` is to `from`.
    pub(super) fn relation(
        &mut self,
        to: Address<'_>,
        from: Address<'_>,
    ) -> Result<Relation, Answer> {
        if to.account() == from.account() {
            return Ok(Relation::Own);
        }
        if self.directory.account(&*self.store, to)?.is_none() {
            return Ok(Relation::Unknown);
        }
        Ok(Relation::Stranger)
    }

    /// Whether `account` is busy now, and until when.
    pub(super) fn busy(&self, _account: Address<'_>, _now: Now) -> Option<Busy> {
        None
    }

    /// Whether the owner of `account` takes urgent lines from `from` while busy.
    pub(super) fn allows_urgent(
        &mut self,
        _account: Address<'_>,
        _from: Address<'_>,
    ) -> Result<bool, Answer> {
        Ok(false)
    }
}

/// Somebody whose senders are asked to choose.
pub(super) struct Busy {
    pub(super) until: Option<Timestamp>,
}
