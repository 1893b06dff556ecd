//! 602: a key is taken back, at once and for good (SPEC.md §6).
//!
//! The statement proves itself: by the identity or recovery key of the record that it names, or by
//! the domain's key. Once it is durable the links of that key are closed, or all of the account's
//! if it names the identity key. Contacts get the line.

use std::rc::Rc;

use protocol::record::Record;
use protocol::revocation::{Revocation, RevokedBy};
use protocol::signature::PublicKey;
use protocol::{Address, Command, Error};

use super::Domain;
use super::answer::Answer;
use super::failure::Caller;
use super::limits;
use super::post::Batch;
use super::record::statement_line;
use crate::clock::Now;
use crate::directory::{self, Account, drop_operation, revoke_operations};
use crate::event::Event;
use crate::spool::Claim;
use crate::store::{Operation, Outcome};

/// A revocation that holds, and what it does.
pub(super) struct Planned {
    pub(super) line: String,
    pub(super) before: Rc<Account>,
    pub(super) after: Account,
    pub(super) operations: Vec<Operation>,
}

impl Domain {
    /// Handles 602.
    pub(super) fn revoke(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let device = self.proven(caller.id)?;
        let ahead = protocol::limits::TIMESTAMP_AHEAD_MS_MAX;
        if Revocation::parse(command)?.at > now.timestamp.plus_ms(ahead) {
            return Err(Answer::error(Error::BadParameter("TS")));
        }
        let account = self.own_account(&device)?;
        let Some(planned) = self.plan_revocation(command, account)? else {
            return Ok(Answer::text(250, "the revocation is held"));
        };
        let (caller, line) = (caller.clone(), command.as_str().to_owned());
        let operations = planned.operations.clone();
        self.commit(operations, now, move |domain, outcome, now| {
            domain.directory.forget(planned.before.address());
            match outcome {
                Outcome::Durable => {
                    domain.reply(&caller, Answer::text(250, "revoked"));
                    domain.revoked(&planned, now);
                }
                Outcome::Conflict { .. } => {
                    domain.run_again(Self::revoke, &caller, &line, now);
                }
                outcome => domain.reply_not_durable(&caller, outcome),
            }
        });
        Ok(Answer::Later)
    }

    /// Checks a revocation of `account` and says what it changes; `None` if it is held already.
    pub(super) fn plan_revocation(
        &mut self,
        command: &Command<'_>,
        account: Rc<Account>,
    ) -> Result<Option<Planned>, Answer> {
        let revocation = Revocation::parse(command)?;
        let address = account.address();
        let hash = command.statement_hash();
        if directory::is_revocation_kept(&*self.store, address, &hash)? {
            return Ok(None);
        }
        let named = directory::record_named(&*self.store, address, revocation.record)?;
        let named = named.ok_or_else(|| Answer::text(455, "KR is not a record of the account"))?;
        let record = Record::parse(&Command::parse(named.as_bytes())?)?;
        let domain_key = match revocation.by {
            RevokedBy::Domain => self.domain_key()?,
            _ => None,
        };
        Revocation::verify(command, &record, domain_key.as_ref())?;
        let listed = revocation.device.as_deref().and_then(|device| record.device(device));
        let key = listed.map_or(record.identity(), |device| &device.key);
        let after = account.with_revoked(key);
        let line = statement_line(command);
        let mut operations = revoke_operations(&account, &after, key, (&hash, &line));
        if let Some(device) = &revocation.device {
            let device = protocol::AddressBuf::with_device(address, device)?;
            let name = device.as_address().device().unwrap_or_default();
            if account.record().device(name).is_some_and(|listed| listed.key == *key) {
                operations.push(drop_operation(device.as_address()));
            }
        }
        Ok(Some(Planned { line, before: account, after, operations }))
    }

    /// Does what follows from a revocation that has become durable.
    pub(super) fn revoked(&mut self, planned: &Planned, now: Now) {
        self.emit(Event::KeyRevoked);
        let usable = planned.after.device_addresses();
        if usable.is_empty() {
            self.dispose_all(planned.before.address(), now);
        }
        for device in planned.before.device_addresses() {
            self.prekeys.forget(&device);
            if let Some(id) = self.online.get(&device).filter(|_| !usable.contains(&device)) {
                self.log_out(*id, "the key of this device was revoked", now);
            }
        }
        self.tell_contacts(planned.before.address(), &planned.line, now);
    }

    /// The domain's own key, once the domain is provisioned.
    pub(super) fn domain_key(&mut self) -> Result<Option<PublicKey>, Answer> {
        let domain = Address::parse(&self.settings.domain)?;
        let account = self.directory.account(&*self.store, domain)?;
        Ok(account.map(|account| account.record().identity().clone()))
    }

    /// Queues a statement of `account` for its own devices and those of its contacts, in several
    /// commits where they are many. What a crash cuts off is in the answer to 610.
    fn tell_contacts(&mut self, account: Address<'_>, line: &str, now: Now) {
        let Ok(roster) = self.rosters.roster(&*self.store, account) else { return };
        let Ok(command) = Command::parse(line.as_bytes()) else { return };
        let contacts = roster.relations().filter(|(_, relation)| relation.is_visible());
        let contacts = contacts.map(|(contact, _)| contact.as_address());
        let mut batch = Batch::default();
        for contact in contacts.chain([account]) {
            let letter = (&command, Claim::Known);
            if self.enqueue_for_account(&mut batch, letter, contact, now).is_err() {
                // The store does not read; what is planned so far may still be written.
                break;
            }
            let count = batch.lines.len();
            let octets = count * command.as_str().len();
            if count >= limits::LINES_TOLD_AT_ONCE || octets >= limits::OCTETS_TOLD_AT_ONCE {
                self.commit_batch(std::mem::take(&mut batch), now, |_, _, _, _| {});
            }
        }
        if !batch.lines.is_empty() {
            self.commit_batch(batch, now, |_, _, _, _| {});
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
