//! 611 to 613: prekeys are published, taken, and run out (SPEC.md §6).
//!
//! A one-time prekey leaves only after it is durable that it left. An asker gets
//! [`limits::PREKEYS_TAKEN_PER_HOUR`] of one target in an hour, then the signed ones alone, and the
//! text of the answer says so; strangers get none once half of a stock is gone.

use protocol::prekey::{Prekey, PrekeyKeys};
use protocol::{AddressBuf, Code, Command, Error, StatementError, base64};

use super::Domain;
use super::answer::{Answer, AnswerLine};
use super::failure::Caller;
use super::limits;
use super::record::statement_line;
use crate::clock::Now;
use crate::directory::limits::ONE_TIME_PREKEYS_LOW;
use crate::directory::{Account, Offered, Plan, SignedPrekey, Taken};
use crate::event::Event;
use crate::store::{Operation, Outcome};

impl Domain {
    /// Handles 611.
    pub(super) fn publish_prekey(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let device = self.proven(caller.id)?;
        let account = self.own_account(&device)?;
        let prekey = Prekey::verify(command, account.record())?;
        if !prekey.is_valid_at(now.timestamp) {
            return Err(Answer::error(StatementError::Expired.into()));
        }
        if prekey.made > now.timestamp.plus_ms(protocol::limits::TIMESTAMP_AHEAD_MS_MAX) {
            return Err(Answer::error(Error::BadParameter("TS")));
        }
        let line = statement_line(command);
        let offered = Offered { number: prekey.number, not_after: prekey.not_after, line: &line };
        let is_signed = matches!(prekey.keys, PrekeyKeys::Signed(_));
        let plan = if is_signed {
            self.prekeys.publish_signed(&*self.store, &device, offered)?
        } else {
            self.prekeys.publish_one_time(&*self.store, &device, offered, now.timestamp)?
        };
        let operations = match plan {
            Plan::Commit(operations) => operations,
            Plan::Held => return Ok(self.prekey_published(&device)?.into()),
            Plan::Stale => return Err(Answer::text(455, "the number was used, or is too low")),
            Plan::Full => return Err(Answer::text(452, "the stock of one-time prekeys is full")),
        };
        let caller = caller.clone();
        self.commit(operations, now, move |domain, outcome, now| {
            if outcome == Outcome::Durable && !is_signed {
                domain.prekeys.stocked(&device, prekey.number, prekey.not_after);
            } else {
                domain.prekeys.forget(&device);
            }
            match outcome {
                Outcome::Durable => {
                    let answer = domain.prekey_published(&device).map(Answer::from);
                    domain.reply(&caller, answer.unwrap_or_else(|refusal| refusal));
                }
                Outcome::Conflict { .. } => {
                    domain.run_again(Self::publish_prekey, &caller, &line, now);
                }
                outcome => domain.reply_not_durable(&caller, outcome),
            }
        });
        Ok(Answer::Later)
    }

    fn prekey_published(&mut self, device: &AddressBuf) -> Result<AnswerLine, Answer> {
        let count = self.prekeys.free_count(&*self.store, device)?;
        Ok(AnswerLine::new(250, "published").with("COUNT", count))
    }

    /// Handles 612.
    pub(super) fn take_prekeys(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let asker = self.proven(caller.id)?;
        let to = command.to().ok_or(Error::BadAddress)?;
        let account = self.visible_account(to, &asker)?;
        if account.is_suspended() || !account.record().is_valid_at(now.timestamp) {
            return Err(Answer::text(521, "the record has expired or is frozen: no offers"));
        }
        let is_known = self.is_visible(to, asker.as_address())?;
        let is_own = to.account() == asker.as_address().account();
        let pair = (asker.account(), to.to_buf());
        let may_take = is_own || self.takes.take(pair, now).is_ok();
        let given = self.collect_prekeys(&account, &asker, (may_take, !is_known), now)?;
        let text = if may_take { "prekeys" } else { TAKEN_TEXT };
        if given.operations.is_empty() {
            return Ok(given.answer(text));
        }
        let (caller, line) = (caller.clone(), command.as_str().to_owned());
        let operations = given.operations.clone();
        self.commit(operations, now, move |domain, outcome, now| match outcome {
            Outcome::Durable => {
                domain.reply(&caller, given.answer(text));
                for taken in given.devices.iter().filter_map(|(_, _, taken)| taken.as_ref()) {
                    domain.tell_low(&taken.device, taken.left);
                }
            }
            outcome => {
                for (device, _, _) in &given.devices {
                    domain.prekeys.forget(device);
                }
                if matches!(outcome, Outcome::Conflict { .. }) {
                    return domain.run_again(Self::take_prekeys, &caller, &line, now);
                }
                domain.reply_not_durable(&caller, outcome);
            }
        });
        Ok(Answer::Later)
    }

    /// The prekeys of every device that has a valid signed one, but the asker's own.
    fn collect_prekeys(
        &mut self,
        account: &Account,
        asker: &AddressBuf,
        (may_take, spares_half): (bool, bool),
        now: Now,
    ) -> Result<Given, Answer> {
        let mut given = Given { devices: Vec::new(), operations: Vec::new() };
        for device in account.device_addresses() {
            let signed = self.prekeys.signed(&*self.store, &device)?;
            let signed = signed.filter(|signed| now.timestamp < signed.not_after);
            let Some(signed) = signed.filter(|_| device != *asker) else { continue };
            let mut taken = None;
            if may_take {
                let operations = &mut given.operations;
                let (at, store) = (now.timestamp, &*self.store);
                taken = self.prekeys.take(store, &device, spares_half, at, operations)?;
            }
            given.devices.push((device, signed, taken));
        }
        Ok(given)
    }

    /// Tells a device that is here how many one-time prekeys it has left, once they are few.
    pub(super) fn tell_low(&mut self, device: &AddressBuf, left: usize) {
        if left > ONE_TIME_PREKEYS_LOW {
            return;
        }
        let Some(id) = self.online.get(device).copied() else { return };
        self.emit(Event::PrekeysLow);
        let line = Command::builder(Code::PREKEYS_LOW).parameter("COUNT", left).finish();
        self.send(id, format!("{line}\r\n").into_bytes());
    }
}

const TAKEN_TEXT: &str = "no one-time prekeys: 10 an hour of one account";
const _: () = assert!(limits::PREKEYS_TAKEN_PER_HOUR == 10);

/// What 612 gives, once the operations are durable.
struct Given {
    devices: Vec<(AddressBuf, SignedPrekey, Option<Taken>)>,
    operations: Vec<Operation>,
}

impl Given {
    fn answer(&self, text: &str) -> Answer {
        let mut lines = Vec::with_capacity(self.devices.len());
        for (device, signed, taken) in &self.devices {
            let name = device.as_address().device().unwrap_or_default();
            let mut line = AnswerLine::new(251, text)
                .with("DEV", name)
                .with("PRE", base64::encode(signed.line.as_bytes()));
            if let Some(taken) = taken {
                line = line.with("ONE", base64::encode(taken.line.as_bytes()));
            }
            lines.push(line);
        }
        if lines.is_empty() {
            return Answer::text(251, "no device has prekeys");
        }
        Answer::Now(lines)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
pub(super) mod tests;
