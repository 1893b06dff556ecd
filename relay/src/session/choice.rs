//! 350 and 130: the recipient is busy, and the sender chooses: hold the line, or send it as urgent.
//!
//! The line waits in memory on the sender's link, bounded in number, octets and time; without it
//! 130 gets 503 and the client sends the line again. Held lines are durable, and move into the
//! queues in their order once the recipient is free. Nothing is sent on silently. SPEC.md §8.

use protocol::message::{self, Via};
use protocol::{Address, AddressBuf, Command};

use super::Domain;
use super::answer::{Answer, AnswerLine};
use super::connection::ConnectionId;
use super::delivery::Letter;
use super::failure::{Caller, retry};
use super::limits;
use super::message::{Passage, Promise};
use super::post::{Batch, Choice};
use crate::clock::Now;
use crate::route::fan_out;
use crate::spool::{Claim, Entry, Kind, SpoolError};
use crate::store::Outcome;

/// How a line goes on after its recipient's presence was looked at.
pub(super) enum Way {
    /// It was answered, or will be.
    Done,
    /// It goes into the queues.
    Pass,
}

impl Domain {
    /// Handles 130.
    pub(super) fn choose(&mut self, id: ConnectionId, command: &Command<'_>, now: Now) -> Answer {
        self.try_choose(id, command, now).unwrap_or_else(|refusal| refusal)
    }

    fn try_choose(
        &mut self,
        id: ConnectionId,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let choice = message::Choice::parse(command)?;
        if matches!(choice.via, Via::Email | Via::Sms) {
            return Err(Answer::text(504, "this domain has no such gateway"));
        }
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(Answer::Later) };
        let choices = &mut connection.post.choices;
        choices.retain(|choice| {
            now.since_start.saturating_sub(choice.asked_at) < limits::CHOICE_TIME_MAX
        });
        let waiting = choices.iter().find(|waiting| {
            waiting.to.as_address() == choice.to && *waiting.message_id == *choice.about.as_str()
        });
        let line = waiting.map(|waiting| waiting.line.clone());
        let line = line.ok_or_else(|| Answer::text(503, "send that line again"))?;
        let held = Command::parse(line.as_bytes())?;
        let caller = Caller::new(id, command);
        Ok(self.pass(&caller, &held, Some(choice.via), Vec::new(), now))
    }

    /// Decides by the recipient's presence and the sender's choice.
    pub(super) fn ask_or_hold(
        &mut self,
        passage: Passage<'_>,
        via: Option<Via>,
        asks: bool,
        now: Now,
    ) -> Result<Way, Answer> {
        self.post.holders.load(&*self.store)?;
        let account = passage.to.account();
        let Some(busy) = self.busy(account, now) else {
            self.forget_choice(passage);
            return self.go_behind_held(account, now);
        };
        match via {
            None if !asks => Ok(Way::Pass),
            None => {
                if let Some(answer) = self.first_answer(passage) {
                    return Err(answer);
                }
                self.remember_choice(passage, now);
                let mut line = AnswerLine::new(350, "busy: hold, urgent, or not at all");
                if let Some(until) = busy.until {
                    line = line.with("UNTIL", until.0);
                }
                Err(line.into())
            }
            Some(Via::Urgent) if self.allows_urgent(account, passage.from.as_address())? => {
                self.forget_choice(passage);
                Ok(Way::Pass)
            }
            Some(Via::Urgent) => Err(Answer::text(521, "the recipient takes nothing urgent")),
            Some(_) => self.hold(passage, now),
        }
    }

    /// A line for a free account goes behind those held for it while it was busy.
    fn go_behind_held(&mut self, account: Address<'_>, now: Now) -> Result<Way, Answer> {
        if self.post.holders.contains(account.as_str()) {
            self.release_held(&account.to_buf(), now);
            if self.post.holders.contains(account.as_str()) {
                return Err(retry(450, 1, "held lines go first: try again"));
            }
        }
        Ok(Way::Pass)
    }

    /// Commits a line that waits until its recipient is free.
    fn hold(&mut self, passage: Passage<'_>, now: Now) -> Result<Way, Answer> {
        let account = passage.to.account().to_buf();
        let mut batch = Batch::default();
        if let Some(statement) = passage.statement {
            batch.operations = statement.operations(252);
        }
        batch.operations.push(self.post.holders.add(&account));
        let letter = Letter { kind: Kind::Held, ..self.letter(passage, Claim::Known) };
        if let Err(error) = self.enqueue(&mut batch, letter, &account, false) {
            let answer = match error {
                SpoolError::Full => Answer::text(452, "too many lines are held for this user"),
                error => error.into(),
            };
            return Err(self.first_answer(passage).unwrap_or(answer));
        }
        self.post.holders.begin(&account);
        let (caller, statement) = (passage.caller.clone(), passage.statement.cloned());
        let message_id: Box<str> = passage.command.parameter("MID").unwrap_or_default().into();
        let promise = Promise::new(252, passage);
        self.commit_batch(batch, now, move |domain, outcome, _, now| {
            domain.post.holders.end(&account);
            if outcome == Outcome::Durable {
                domain.post.counts.held += 1;
                domain.drop_choice(caller.id, account.as_address(), &message_id);
            }
            domain.answer_passage(&caller, statement.as_deref(), outcome, (promise, 0), now);
            domain.release_held(&account, now);
        });
        Ok(Way::Done)
    }

    fn remember_choice(&mut self, passage: Passage<'_>, now: Now) {
        let Some(connection) = self.connections.get_mut(&passage.caller.id) else { return };
        let Some(message_id) = passage.command.parameter("MID") else { return };
        let choices = &mut connection.post.choices;
        let to = passage.to.to_buf();
        choices.retain(|choice| choice.to != to || *choice.message_id != *message_id);
        choices.push_back(Choice {
            to,
            message_id: message_id.into(),
            line: passage.command.as_str().into(),
            asked_at: now.since_start,
        });
        let octets = |choices: &std::collections::VecDeque<Choice>| -> usize {
            choices.iter().map(|choice| choice.line.len()).sum()
        };
        while choices.len() > limits::CHOICES_MAX
            || (choices.len() > 1 && octets(choices) > limits::CHOICE_OCTETS_MAX)
        {
            choices.pop_front();
        }
    }

    fn forget_choice(&mut self, passage: Passage<'_>) {
        if let Some(message_id) = passage.command.parameter("MID") {
            self.drop_choice(passage.caller.id, passage.to, message_id);
        }
    }

    fn drop_choice(&mut self, id: ConnectionId, to: Address<'_>, message_id: &str) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let choices = &mut connection.post.choices;
            choices
                .retain(|choice| choice.to.as_address() != to || *choice.message_id != *message_id);
        }
    }

    /// Moves the lines held for an account into its devices' queues, unless it is busy. To be
    /// called whenever its presence changes; the tick does so too, for whatever failed.
    pub(super) fn release_held(&mut self, account: &AddressBuf, now: Now) {
        let is_held = self.post.holders.contains(account.as_str());
        let is_moving = self.post.holders.is_moving(account.as_str());
        if !is_held || is_moving || self.post.is_doubtful {
            return;
        }
        if self.busy(account.as_address(), now).is_some() {
            return;
        }
        let Ok(held) = self.post.spool.held_lines(&*self.store, account) else { return };
        if held.is_empty() {
            let operation = self.post.holders.remove(account);
            return self.commit(vec![operation], now, |_, _, _| {});
        }
        let mut batch = Batch::default();
        let mut octets = 0;
        let mut count = 0;
        for (number, entry) in held {
            let is_much = octets > limits::RELEASE_OCTETS_MAX
                || batch.operations.len() > limits::RELEASE_OPERATIONS_MAX;
            if is_much {
                break;
            }
            octets += entry.line().len();
            count += 1;
            if self.release_one(&mut batch, account, &entry).is_err() {
                return self.abandon(&batch);
            }
            batch.operations.push(self.post.spool.unhold(account, number));
        }
        self.post.holders.begin(account);
        let account = account.clone();
        self.commit_batch(batch, now, move |domain, outcome, _, now| {
            domain.post.holders.end(&account);
            if outcome == Outcome::Durable {
                domain.post.counts.released += count;
                // If it cannot be measured now, it counts more than it holds for a while.
                let _ = domain.post.spool.released(&*domain.store, &account);
                domain.release_held(&account, now);
            }
        });
    }

    /// Plans one held line for the devices that its account has now.
    fn release_one(
        &mut self,
        batch: &mut Batch,
        account: &AddressBuf,
        entry: &Entry,
    ) -> Result<(), Answer> {
        let line = entry.line().strip_suffix(b"\r\n").unwrap_or_default();
        // The spool holds only lines that were read before; one that is not is dropped with it.
        let Ok(command) = Command::parse(line) else { return Ok(()) };
        let Some(from) = command.from() else { return Ok(()) };
        let listed = self.devices_of(account.as_address())?;
        let own = self.devices_of(from)?;
        let devices = fan_out(account.as_address(), from, listed, own);
        let letter = Letter {
            command: &command,
            kind: Kind::Line,
            claim: Claim::Promised,
            received_at: entry.received_at,
            expires_at: entry.expires_at,
        };
        for device in &devices.recipients {
            self.enqueue(batch, letter, device, false)?;
        }
        for device in &devices.copies {
            self.enqueue(batch, letter, device, true)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
