//! 600: an invited person becomes an account of the domain (SPEC.md §5).
//!
//! The record must list the very key that the link has proven. Invitation, account and record
//! change in one commit; the same line sent again gets the same answer. A link that broke before
//! the answer shows its outcome at the next login. Wrong invitations count as failures of the link.

use protocol::Command;
use protocol::registration::{Admission, Registration};
use protocol::role::Role;
use protocol::table::State;

use super::Domain;
use super::answer::Answer;
use super::failure::Caller;
use crate::clock::Now;
use crate::directory::{self, Account, Invitation, invitation_row, publish_operations};
use crate::event::Event;
use crate::store::{Operation, Outcome};

impl Domain {
    /// Handles 600.
    pub(super) fn register(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let Some(connection) = self.connections.get(&caller.id) else { return Ok(Answer::Later) };
        let registration = connection.handshake.registration(command)?;
        if self.is_registered(&registration)? {
            return self.registered(caller, &registration, now);
        }
        let record = &registration.record;
        if record.role() != Role::User {
            return Err(Answer::text(521, "only people register themselves"));
        }
        check_validity(record, now)?;
        let Admission::Invitation(code) = &registration.admission else {
            return Err(Answer::text(521, "registration is by invitation"));
        };
        let Some(invitation) = self.usable_invitation(code, &registration, now)? else {
            return Ok(self.invitation_failed(caller));
        };
        if self.directory.account(&*self.store, record.account())?.is_some() {
            return Err(Answer::text(551, "the name is taken"));
        }
        let account = Account::new(record.clone(), &registration.record_line, now.timestamp);
        let mut operations = publish_operations(&account, None);
        let used = Invitation { used_by: Some(record.name()), ..invitation.clone() };
        let row = invitation_row(code);
        operations.push(Operation::RequireEqual { row: row.clone(), value: invitation.encode() });
        operations.push(Operation::Put { row, value: used.encode() });
        let (caller, line) = (caller.clone(), command.as_str().to_owned());
        self.commit(operations, now, move |domain, outcome, now| {
            domain.directory.forget(registration.record.account());
            match outcome {
                Outcome::Durable => {
                    domain.emit(Event::Registered);
                    let answer = domain.registered(&caller, &registration, now);
                    domain.reply(&caller, answer.unwrap_or_else(|refusal| refusal));
                }
                // The same line was on its way twice, or somebody else has the name now.
                Outcome::Conflict { .. } => match domain.is_registered(&registration) {
                    Ok(true) => {
                        let answer = domain.registered(&caller, &registration, now);
                        domain.reply(&caller, answer.unwrap_or_else(|refusal| refusal));
                    }
                    _ => domain.run_again(Self::register, &caller, &line, now),
                },
                outcome => domain.reply_not_durable(&caller, outcome),
            }
        });
        Ok(Answer::Later)
    }

    /// Whether this very record is part of its account's history.
    fn is_registered(&self, registration: &Registration) -> Result<bool, Answer> {
        let record = &registration.record;
        let held = directory::record_named(&*self.store, record.account(), record.name())?;
        Ok(held.is_some())
    }

    /// Answers a registration that is durable; the link is logged in from now on.
    fn registered(
        &mut self,
        caller: &Caller,
        registration: &Registration,
        now: Now,
    ) -> Result<Answer, Answer> {
        let Some(connection) = self.connections.get(&caller.id) else { return Ok(Answer::Later) };
        let (State::Registering, Some(device)) =
            (connection.handshake.state(), connection.handshake.device())
        else {
            return Ok(Answer::text(250, "registered"));
        };
        let device = device.to_buf();
        let account = self.directory.account(&*self.store, device.as_address())?;
        if account.is_none_or(|account| account.record().name() != registration.record.name()) {
            return Err(Answer::text(455, "the account has another record since"));
        }
        let Some(connection) = self.connections.get_mut(&caller.id) else {
            return Ok(Answer::Later);
        };
        let line = connection.handshake.registered(caller.hop_id.as_deref());
        self.send(caller.id, line.into_bytes());
        self.logged_in(caller.id, &device, now);
        Ok(Answer::Later)
    }

    /// The invitation, if it lets this registration in.
    fn usable_invitation(
        &self,
        code: &str,
        registration: &Registration,
        now: Now,
    ) -> Result<Option<Invitation>, Answer> {
        let invitation = directory::invitation(&*self.store, code)?;
        Ok(invitation.filter(|invitation| {
            let account = registration.account();
            invitation.used_by.is_none()
                && now.timestamp < invitation.expires
                && invitation.account.as_ref().is_none_or(|only| *only == account)
        }))
    }

    fn invitation_failed(&mut self, caller: &Caller) -> Answer {
        self.emit(Event::InvitationRefused);
        let text = "the invitation is unknown, used, expired or for somebody else";
        self.reply(caller, Answer::text(535, text));
        if let Some(connection) = self.connections.get_mut(&caller.id) {
            connection.failures += 1;
        }
        self.close_if_exhausted(caller.id);
        Answer::Later
    }
}

/// Refuses a record that is expired, or that begins further ahead than clocks may differ.
pub(super) fn check_validity(record: &protocol::record::Record, now: Now) -> Result<(), Answer> {
    if record.not_after() <= now.timestamp {
        return Err(Answer::text(558, "the record has expired: NA"));
    }
    if record.not_before() > now.timestamp.plus_ms(protocol::limits::TIMESTAMP_AHEAD_MS_MAX) {
        return Err(Answer::text(501, "the record begins in the future: NB"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
