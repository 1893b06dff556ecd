//! 601 and 610: records are published and fetched (SPEC.md §6).
//!
//! The relay takes a record only if it follows the one that it holds, and keeps every version for
//! good. A device that a new record drops, or lists with another key, loses its link and its
//! prekeys. Who may not know that an account exists gets the very answer
//! of an account that does not.

use std::rc::Rc;

use protocol::record::Record;
use protocol::{Address, AddressBuf, Command, Error, base64};

use super::Domain;
use super::answer::{Answer, AnswerLine};
use super::failure::Caller;
use super::registration::check_validity;
use crate::clock::Now;
use crate::directory::{self, Account, drop_operation, publish_operations};
use crate::event::Event;
use crate::store::{Operation, Outcome};

impl Domain {
    /// Handles 601.
    pub(super) fn publish(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let device = self.proven(caller.id)?;
        let before = self.own_account(&device)?;
        let record = Record::parse(command)?;
        let held = directory::record_named(&*self.store, before.address(), record.name())?;
        if held.is_some() {
            return Ok(Answer::text(250, "the record is held"));
        }
        if before.is_suspended() {
            return Err(Answer::text(521, "the account is suspended"));
        }
        let record = match before.record().follow(command) {
            Ok(record) => record,
            Err(error) => return Err(refused_record(error, &before)),
        };
        if record.role() != before.record().role() {
            return Err(Answer::error(Error::BadParameter("ROLE")));
        }
        check_validity(&record, now)?;
        let after = before.with_record(record, &statement_line(command));
        let mut operations = publish_operations(&after, Some(&before));
        operations.extend(drop_operations(&before, &after));
        let (caller, line) = (caller.clone(), command.as_str().to_owned());
        self.commit(operations, now, move |domain, outcome, now| {
            domain.directory.forget(before.address());
            match outcome {
                Outcome::Durable => {
                    domain.emit(Event::RecordPublished);
                    domain.reply(&caller, Answer::text(250, "the record is published"));
                    domain.drop_devices(&before, &after, now);
                }
                Outcome::Conflict { index: 0, .. } => {
                    domain.run_again(Self::publish, &caller, &line, now);
                }
                Outcome::Conflict { .. } => {
                    domain.reply(&caller, Answer::text(553, "a key in the record was revoked"));
                }
                outcome => domain.reply_not_durable(&caller, outcome),
            }
        });
        Ok(Answer::Later)
    }

    /// Handles 610.
    pub(super) fn fetch_record(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        _now: Now,
    ) -> Result<Answer, Answer> {
        let device = self.proven(caller.id)?;
        let to = command.to().ok_or(Error::BadAddress)?;
        let account = self.visible_account(to, &device)?;
        let mut line = AnswerLine::new(251, "record");
        match command.read("KR")?.filter(|name| *name != account.record().name()) {
            None => {
                line = line.with("REC", base64::encode(account.record_line().as_bytes()));
                let revocations = directory::revocations(&*self.store, &account)?;
                if !revocations.is_empty() {
                    let lines = revocations.join("\r\n");
                    line = line.with("REV", base64::encode(lines.as_bytes()));
                }
            }
            Some(name) => {
                let older = directory::record_named(&*self.store, account.address(), name)?;
                let older = older.ok_or_else(|| Answer::text(550, "no such record"))?;
                line = line.with("REC", base64::encode(older.as_bytes()));
            }
        }
        Ok(line.into())
    }

    /// The account of a device that is logged in.
    pub(super) fn own_account(&mut self, device: &AddressBuf) -> Result<Rc<Account>, Answer> {
        let account = self.directory.account(&*self.store, device.as_address())?;
        account.ok_or_else(|| Answer::text(451, "local fault: the operator must look"))
    }

    /// The account or domain that `to` names, if `asker` may know of it.
    pub(super) fn visible_account(
        &mut self,
        to: Address<'_>,
        asker: &AddressBuf,
    ) -> Result<Rc<Account>, Answer> {
        let unknown = || Answer::text(550, "no such user");
        if to.domain() != self.settings.domain {
            return Err(Answer::text(550, "this relay does not know that domain"));
        }
        let account = self.directory.account(&*self.store, to)?.ok_or_else(unknown)?;
        let is_open = to.is_domain() || !self.settings.hides_users;
        if is_open || self.is_visible(to, asker.as_address())? {
            return Ok(account);
        }
        Err(unknown())
    }

    /// Whether the owner of `to` lets `asker` know that it exists.
    pub(super) fn is_visible(
        &mut self,
        to: Address<'_>,
        asker: Address<'_>,
    ) -> Result<bool, Answer> {
        let is_own = to.account() == asker.account();
        Ok(is_own || self.rosters.relation(&*self.store, to, asker)?.is_visible())
    }

    /// Closes the links of devices whose keys `after` does not list.
    fn drop_devices(&mut self, before: &Account, after: &Account, now: Now) {
        for device in dropped(before, after) {
            self.prekeys.forget(&device);
            if let Some(id) = self.online.get(&device).copied() {
                self.log_out(id, "the account's record lists another key or none", now);
            }
        }
    }
}

/// The devices of `before` that `after` does not list with the same key.
fn dropped(before: &Account, after: &Account) -> Vec<AddressBuf> {
    let listed = before.record().devices().iter();
    let gone = listed.filter(|device| {
        after.record().device(&device.name).is_none_or(|listed| listed.key != device.key)
    });
    gone.filter_map(|device| AddressBuf::with_device(before.address(), &device.name).ok()).collect()
}

/// What goes with the devices that a new record drops: their prekeys, which another key signed.
/// Lines that wait for them expire like any other.
fn drop_operations(before: &Account, after: &Account) -> Vec<Operation> {
    dropped(before, after).iter().map(|device| drop_operation(device.as_address())).collect()
}

/// A stale record is told which one is held.
fn refused_record(error: Error, held: &Account) -> Answer {
    if error.reply_code() == 455 {
        let line = AnswerLine::new(455, error.text());
        return line.with("KR", held.record().name()).into();
    }
    Answer::error(error)
}

/// A signed line as it is stored: without CRLF and without the hop parameters it came with.
pub(super) fn statement_line(command: &Command<'_>) -> String {
    let mut line = Vec::with_capacity(command.as_str().len() + 2);
    command.forward(&[], &mut line);
    line.truncate(line.len().saturating_sub(2));
    // Commands are ASCII.
    String::from_utf8(line).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
