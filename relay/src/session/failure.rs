//! What the peer is told when the store or the token did not do it: one mapping for all families.
//!
//! A commit whose outcome is not known is answered neither way: the link closes with 421, and the
//! peer sends the line again on its next one, where duplicates are met by what is durable.

use protocol::Command;

use super::Domain;
use super::answer::{Answer, AnswerLine};
use super::connection::ConnectionId;
use super::limits;
use crate::clock::Now;
use crate::event::Event;
use crate::keys::KeyError;
use crate::store::{Outcome, StoreError};

/// Whom to answer once an outcome is known.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) id: ConnectionId,
    pub(super) hop_id: Option<Box<str>>,
    /// How often the command met a conflict.
    conflicts: u8,
}

impl Caller {
    pub(super) fn new(id: ConnectionId, command: &Command<'_>) -> Self {
        Self { id, hop_id: command.parameter("H-ID").map(Into::into), conflicts: 0 }
    }
}

/// What handles a command and may have to do so again, with what is durable by then.
pub(super) type Handler = fn(&mut Domain, &Caller, &Command<'_>, Now) -> Result<Answer, Answer>;

impl Domain {
    /// Handles a command.
    pub(super) fn run(
        &mut self,
        handler: Handler,
        id: ConnectionId,
        command: &Command<'_>,
        now: Now,
    ) -> Answer {
        handler(self, &Caller::new(id, command), command, now).unwrap_or_else(|refusal| refusal)
    }

    /// Handles the command of `line` again, because something else was committed before it.
    pub(super) fn run_again(&mut self, handler: Handler, caller: &Caller, line: &str, now: Now) {
        let conflicts = caller.conflicts + 1;
        if conflicts > limits::CONFLICTS_MAX {
            return self.reply(caller, retry(450, 1, "somebody else was faster: try again"));
        }
        let caller = Caller { conflicts, ..caller.clone() };
        let answer = match Command::parse(line.as_bytes()) {
            Ok(command) => handler(self, &caller, &command, now),
            Err(error) => Err(error.into()),
        };
        self.reply(&caller, answer.unwrap_or_else(|refusal| refusal));
    }

    /// Answers the command that `caller` sent.
    pub(super) fn reply(&mut self, caller: &Caller, answer: Answer) {
        self.answer(caller.id, caller.hop_id.as_deref(), answer);
    }

    /// Tells `caller` that its commit did not become durable. A conflict that means nothing else
    /// to the family is a lost race.
    pub(super) fn reply_not_durable(&mut self, caller: &Caller, outcome: Outcome) {
        match outcome {
            Outcome::Refused(error) => {
                self.emit(Event::StoreRefused);
                self.reply(caller, error.into());
            }
            Outcome::Unknown => {
                self.emit(Event::OutcomeUnknown);
                self.close(caller.id, Answer::text(421, "send that line again on a new link"));
            }
            Outcome::Conflict { .. } | Outcome::Durable => {
                self.reply(caller, retry(450, 1, "somebody else was faster: try again"));
            }
        }
    }
}

/// An answer that says when to try again.
pub(super) fn retry(code: u16, seconds: u64, text: &str) -> Answer {
    AnswerLine::new(code, text).with("RETRY", seconds.max(1)).into()
}

impl From<protocol::Error> for Answer {
    fn from(error: protocol::Error) -> Self {
        Self::error(error)
    }
}

impl From<StoreError> for Answer {
    fn from(error: StoreError) -> Self {
        let seconds = error.retry_after().map(|after| after.as_secs());
        match (error, seconds) {
            (StoreError::Busy, seconds) => {
                retry(450, seconds.unwrap_or(1), "the store is busy: try again")
            }
            (StoreError::Full { .. }, _) => Self::text(452, "the relay's disk is full"),
            (_, Some(seconds)) => retry(451, seconds, "the relay's keys are away: try again"),
            (_, None) => Self::text(451, "local fault: the operator must look"),
        }
    }
}

impl From<KeyError> for Answer {
    fn from(error: KeyError) -> Self {
        match error.retry_after() {
            Some(after) => retry(451, after.as_secs(), "the relay's keys are away: try again"),
            None => Self::text(451, "the relay's keys refuse: the operator must look"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
