//! Who a line is for, as far as every family asks: the address, its devices, its owner's opinion.

use protocol::timestamp::Timestamp;
use protocol::{Address, AddressBuf, Command, Error};

use super::Domain;
use super::answer::Answer;
use super::delivery::Letter;
use super::post::Batch;
use crate::clock::Now;
use crate::route::Relation;
use crate::spool::{Claim, Kind, SpoolError};

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
        let relation = self.rosters.relation(&*self.store, to, from)?;
        Ok(match relation {
            relation if relation.blocks => Relation::Blocked,
            relation if relation.approves => Relation::Approved,
            _ => Relation::Stranger,
        })
    }

    /// Whether `account` is busy now, and until when.
    pub(super) fn busy(&self, account: Address<'_>, now: Now) -> Option<Busy> {
        let presence = self.presences.presence(account, now.timestamp);
        presence.state.asks_senders().then_some(Busy { until: presence.until })
    }

    /// Whether the owner of `account` takes urgent lines from `from` while busy.
    pub(super) fn allows_urgent(
        &mut self,
        account: Address<'_>,
        from: Address<'_>,
    ) -> Result<bool, Answer> {
        Ok(self.rosters.relation(&*self.store, account, from)?.allows_urgent)
    }

    /// Adds a line to a batch for every device of `account`. A device whose queue is full goes
    /// without it.
    pub(super) fn enqueue_for_account(
        &mut self,
        batch: &mut Batch,
        (command, claim): (&Command<'_>, Claim),
        account: Address<'_>,
        now: Now,
    ) -> Result<(), Answer> {
        let at = self.post.clock.read(now);
        let expires_at = self.post.spool.expiry(at, None);
        let letter = Letter { command, kind: Kind::Line, claim, received_at: at, expires_at };
        for device in self.devices_of(account)? {
            match self.enqueue(batch, letter, &device, false) {
                Ok(()) | Err(SpoolError::Full) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Somebody whose senders are asked to choose.
pub(super) struct Busy {
    pub(super) until: Option<Timestamp>,
}
