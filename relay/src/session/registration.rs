//! 600: an invited person becomes an account of the domain (SPEC.md §5).
//!
//! The record must list the very key that the link has proven. Invitation, account and record
//! change in one commit; the same line sent again gets the same answer, whatever happened to the
//! link in between. Wrong invitations count as failures of the link.

use protocol::registration::{Admission, Registration};
use protocol::role::Role;
use protocol::{Command, Error};

use super::Domain;
use super::answer::Answer;
use super::connection::{ConnectionId, State};
use super::failure::Caller;
use super::identity::Candidate;
use crate::clock::Now;
use crate::directory::{self, Account, Invitation, invitation_row, publish_operations};
use crate::event::Event;
use crate::store::{Operation, Outcome};

impl Domain {
    /// Handles 600.
    pub(super) fn register(&mut self, id: ConnectionId, command: &Command<'_>, now: Now) -> Answer {
        self.try_register(id, command, now).unwrap_or_else(|refusal| refusal)
    }

    fn try_register(
        &mut self,
        id: ConnectionId,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let registration = Registration::parse(command)?;
        let candidate = self.registering(id)?;
        if !lists(&registration, &candidate) {
            return Err(Answer::text(521, "the record does not list the key of this link"));
        }
        if self.is_registered(&registration)? {
            return self.registered(id, candidate, now);
        }
        let Some(connection) = self.connections.get(&id) else { return Ok(Answer::Later) };
        if connection.state != State::Registering {
            return Err(Answer::text(521, "the account has another record: use 601"));
        }
        let record = &registration.record;
        if record.role() != Role::User {
            return Err(Answer::text(521, "only people register themselves"));
        }
        self.check_validity(record, now)?;
        let Admission::Invitation(code) = &registration.admission else {
            return Err(Answer::text(521, "registration is by invitation"));
        };
        let Some(invitation) = self.usable_invitation(code, &registration, now)? else {
            return Ok(self.invitation_failed(id, command));
        };
        if self.directory.account(&*self.store, record.account())?.is_some() {
            return Err(Answer::text(521, "the name is taken"));
        }
        let account = Account::new(record.clone(), &registration.record_line, now.timestamp);
        let mut operations = publish_operations(&account, None);
        let used = Invitation { used_by: Some(record.name()), ..invitation.clone() };
        let row = invitation_row(code);
        operations.push(Operation::RequireEqual { row: row.clone(), value: invitation.encode() });
        operations.push(Operation::Put { row, value: used.encode() });
        let caller = Caller::new(id, command);
        self.commit(operations, now, move |domain, outcome, now| {
            domain.register_outcome(&caller, &registration, candidate, outcome, now);
        });
        Ok(Answer::Later)
    }

    fn register_outcome(
        &mut self,
        caller: &Caller,
        registration: &Registration,
        candidate: Candidate,
        outcome: Outcome,
        now: Now,
    ) {
        self.directory.forget(registration.record.account());
        let is_taken = matches!(outcome, Outcome::Conflict { .. });
        match outcome {
            Outcome::Durable => self.emit(Event::Registered),
            // The same line may have been on its way twice.
            Outcome::Conflict { .. } => {}
            other => return self.reply_not_durable(caller, other),
        }
        let answer = match self.is_registered(registration) {
            Ok(true) => self.registered(caller.id, candidate, now),
            Ok(false) if is_taken => {
                Err(Answer::text(521, "the name is taken, or the invitation was used"))
            }
            Ok(false) => Err(Answer::text(451, "local fault: the operator must look")),
            Err(refusal) => Err(refusal),
        };
        self.reply(caller, answer.unwrap_or_else(|refusal| refusal));
    }

    /// Who this link is while it registers, or once it has.
    fn registering(&self, id: ConnectionId) -> Result<Candidate, Answer> {
        let connection = self.connections.get(&id).ok_or(Answer::Later)?;
        let proven = connection.device.clone().zip(connection.key.clone());
        let proven = proven.map(|(device, key)| Candidate { device, key });
        connection.candidate.clone().or(proven).ok_or(Answer::error(Error::LogInFirst))
    }

    /// Whether this very record is part of its account's history.
    fn is_registered(&self, registration: &Registration) -> Result<bool, Answer> {
        let record = &registration.record;
        let held = directory::record_named(&*self.store, record.account(), record.name())?;
        Ok(held.is_some())
    }

    /// Answers a registration that is durable; the link becomes a login if it is not one yet.
    fn registered(
        &mut self,
        id: ConnectionId,
        candidate: Candidate,
        now: Now,
    ) -> Result<Answer, Answer> {
        let Some(connection) = self.connections.get(&id) else { return Ok(Answer::Later) };
        if connection.state == State::Registering {
            let device = candidate.device.as_address();
            let account = self.directory.account(&*self.store, device)?;
            let name = device.device().unwrap_or_default();
            let is_current = account.is_some_and(|account| {
                account.device(name).is_some_and(|device| device.key == candidate.key)
            });
            if !is_current {
                return Err(Answer::text(521, "the account has another record since"));
            }
            self.log_in(id, candidate, now);
        }
        self.welcome(id, "registered")
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

    fn invitation_failed(&mut self, id: ConnectionId, command: &Command<'_>) -> Answer {
        self.emit(Event::InvitationRefused);
        let text = "the invitation is unknown, used, expired or for somebody else";
        let answer = Answer::text(521, text);
        if self.count_failure(id) {
            self.answer(id, command.parameter("H-ID"), answer);
            self.close(id, Answer::text(421, "too many failures on this link"));
            return Answer::Later;
        }
        answer
    }
}

/// Whether the record lists the device of the link with the key that it has proven.
fn lists(registration: &Registration, candidate: &Candidate) -> bool {
    let device = candidate.device.as_address();
    let listed = registration.record.device(device.device().unwrap_or_default());
    registration.record.account() == device.account()
        && listed.is_some_and(|listed| listed.key == candidate.key)
}
