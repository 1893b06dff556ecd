//! Lines that one person's device has passed to another: 100–105, and the way that all lines of
//! 700–703 and 800–806 share with them.
//!
//! Durable first: one commit holds the message id and one row for each device, and only its
//! outcome is answered. 250 says that a device of somebody who approved the sender was given the
//! line; 252 that it waits, or that nothing is told. To strangers nothing is ever told: present,
//! away, busy, blocking and, if the domain hides its users, unknown are answered alike. SPEC.md §8.

use std::rc::Rc;

use protocol::canonical::sha256;
use protocol::limits::TIMESTAMP_AHEAD_MS_MAX;
use protocol::message::Via;
use protocol::timestamp::Timestamp;
use protocol::{Address, AddressBuf, Code, Command};

use super::Domain;
use super::answer::{Answer, AnswerLine};
use super::choice::Way;
use super::connection::{Connection, ConnectionId};
use super::delivery::Letter;
use super::failure::{Caller, retry};
use super::file::chunk_count;
use super::post::Batch;
use super::upload::Keeping;
use crate::clock::Now;
use crate::route::{FanOut, Relation, fan_out};
use crate::spool::dedupe::{Earlier, REQUIREMENTS, Statement};
use crate::spool::{Claim, Kind, SpoolError};
use crate::store::{Operation, Outcome, StoreError};

/// What a code asks of the relay.
#[derive(Clone, Copy)]
struct Manner {
    /// Whether a busy recipient's sender is asked first.
    asks: bool,
    /// Whether the sender's other devices get it too.
    copies: bool,
    signed: Signed,
}

/// When the relay checks the signature of the device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signed {
    Always,
    /// If the session or the domain asks for it.
    BySession,
    Never,
}

impl Manner {
    const fn of(code: Code) -> Self {
        let asks = matches!(code, Code::MESSAGE | Code::FILE_OFFER);
        let copies = matches!(code.number(), 100..=105 | 800);
        let signed = match code {
            Code::OFFER | Code::ACCEPT | Code::REFRESH | Code::CLOSE => Signed::Always,
            Code::FILE_OFFER | Code::FILE_FINISH | Code::FILE_VERDICT => Signed::Always,
            Code::FILE_ACCEPT | Code::FILE_WINDOW | Code::FILE_CANCEL => Signed::Never,
            _ => Signed::BySession,
        };
        Self { asks, copies, signed }
    }
}

/// A line on its way, once it is known to be good.
#[derive(Clone, Copy)]
pub(super) struct Passage<'a> {
    pub(super) command: &'a Command<'a>,
    pub(super) caller: &'a Caller,
    pub(super) from: &'a AddressBuf,
    pub(super) to: Address<'a>,
    pub(super) relation: Relation,
    /// `None` for a line without MID, which is not told from its repeats.
    pub(super) statement: Option<&'a Rc<Statement>>,
    pub(super) at: Timestamp,
    /// The number of chunks of the file that an 800 offers.
    pub(super) chunk_count: Option<u64>,
}

/// What a sender is to be told once its line is durable.
#[derive(Clone, Copy)]
pub(super) struct Promise {
    pub(super) code: u16,
    pub(super) text: &'static str,
    /// See [`Passage::chunk_count`].
    pub(super) chunk_count: Option<u64>,
}

impl Promise {
    /// The answer with this code to the line of a passage.
    pub(super) const fn new(code: u16, passage: Passage<'_>) -> Self {
        Self { code, text: text_of(code), chunk_count: passage.chunk_count }
    }

    fn answer(self) -> Answer {
        let line = AnswerLine::new(self.code, self.text);
        match self.chunk_count.filter(|_| self.code == 354) {
            Some(count) => line.with("TO-CHUNK", count).into(),
            None => line.into(),
        }
    }
}

impl Domain {
    /// Handles 100–105.
    pub(super) fn message(&mut self, id: ConnectionId, command: &Command<'_>, now: Now) -> Answer {
        let caller = Caller::new(id, command);
        self.pass(&caller, command, None, Vec::new(), now)
    }

    /// Passes a line on. `via` is the sender's choice after 350; `operations` join the commit.
    pub(super) fn pass(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        via: Option<Via>,
        operations: Vec<Operation>,
        now: Now,
    ) -> Answer {
        let result = self.try_pass(caller, command, via, operations, now);
        result.map_or_else(|refusal| refusal, |()| Answer::Later)
    }

    fn try_pass(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        via: Option<Via>,
        operations: Vec<Operation>,
        now: Now,
    ) -> Result<(), Answer> {
        let manner = Manner::of(command.code());
        let from = self.proven(caller.id)?;
        let to = self.local_recipient(command)?;
        let at = self.post.clock.read(now);
        let time: Option<Timestamp> = command.read("TS")?;
        if time.is_some_and(|time| time.0 > at.0.saturating_add(TIMESTAMP_AHEAD_MS_MAX)) {
            return Err(Answer::text(501, "TS is ahead of the relay's clock"));
        }
        let hash = self.check_signature(caller.id, command, manner.signed, (&from, to), at)?;
        let relation = self.relation(to, from.as_address())?;
        let statement = command.parameter("MID").map(|message_id| {
            let addresses = (from.as_address(), to);
            Rc::new(Statement::new(command.code(), addresses, message_id, hash, at))
        });
        let statement = statement.as_ref();
        let chunk_count = chunk_count(command);
        let passage =
            Passage { command, caller, from: &from, to, relation, statement, at, chunk_count };
        match relation {
            Relation::Unknown if !self.settings.hides_users => {
                return Err(Answer::text(550, "no such user"));
            }
            Relation::Unknown | Relation::Blocked => {
                self.vanish(passage, now);
                return Ok(());
            }
            Relation::Approved | Relation::Own | Relation::Stranger => {}
        }
        if relation == Relation::Approved && manner.copies {
            match self.ask_or_hold(passage, via, manner.asks, now)? {
                Way::Done => return Ok(()),
                Way::Pass => {}
            }
        }
        self.queue_line(passage, manner.copies, operations, now)
    }

    /// Checks the signature where one is asked for; gives the hash that names the line.
    fn check_signature(
        &mut self,
        id: ConnectionId,
        command: &Command<'_>,
        signed: Signed,
        (from, to): (&AddressBuf, Address<'_>),
        at: Timestamp,
    ) -> Result<[u8; 32], Answer> {
        let is_required = match (signed, command.parameter("SID")) {
            (Signed::Always, _) => true,
            (Signed::Never, _) => false,
            (Signed::BySession, _) if self.settings.requires_signatures => true,
            (Signed::BySession, None) => false,
            (Signed::BySession, Some(session)) => {
                let accounts = (from.as_address(), to);
                self.post.sessions.is_signed(&*self.store, accounts, session, at)?
            }
        };
        let (tbs, signature) = (command.tbs(), command.signature());
        if is_required {
            let key = self.connections.get(&id).and_then(|connection| connection.handshake.key());
            if key.is_none_or(|key| key.verify(&tbs, &signature).is_err()) {
                return Err(Answer::text(553, "the signature of this device does not hold"));
            }
        }
        // At most a line long.
        let length = (signature.len() as u32).to_be_bytes();
        Ok(sha256(&[&tbs, &length, &signature]))
    }

    /// Commits a line into the queues it is for.
    fn queue_line(
        &mut self,
        passage: Passage<'_>,
        copies: bool,
        operations: Vec<Operation>,
        now: Now,
    ) -> Result<(), Answer> {
        let devices = self.devices_for(passage, copies)?;
        if devices.recipients.is_empty() && passage.relation != Relation::Own {
            return self.no_device(passage, now);
        }
        let keeping = self.plan_keeping(passage, &devices);
        let promise = match &keeping {
            Keeping::Room(_, _) => Promise::new(354, passage),
            Keeping::NoRoom => Promise { text: NO_ROOM, ..Promise::new(252, passage) },
            Keeping::Not if passage.relation.is_open() && self.is_any_ready(&devices) => {
                Promise::new(250, passage)
            }
            Keeping::Not => Promise::new(252, passage),
        };
        let mut batch = Batch::default();
        if let Some(statement) = passage.statement {
            batch.operations = statement.operations(promise.code);
        }
        batch.operations.extend(operations);
        let room = keeping.into_room(&mut batch.operations);
        let filled = self.fill(&mut batch, passage, &devices);
        if filled.is_err() {
            self.abandon(&batch);
            self.settle_room(room.as_ref(), false);
        }
        match filled {
            Ok(()) => {}
            Err(SpoolError::Full) if passage.relation == Relation::Stranger => {
                self.vanish(passage, now);
                return Ok(());
            }
            Err(error) => {
                self.post.counts.over_quota += u64::from(error == SpoolError::Full);
                return Err(self.first_answer(passage).unwrap_or_else(|| error.into()));
            }
        }
        let (caller, statement) = (passage.caller.clone(), passage.statement.cloned());
        self.commit_batch(batch, now, move |domain, outcome, reached, now| {
            domain.settle_room(room.as_ref(), outcome == Outcome::Durable);
            domain.answer_passage(&caller, statement.as_deref(), outcome, (promise, reached), now);
        });
        Ok(())
    }

    /// Puts a line into a batch for each device.
    fn fill(
        &mut self,
        batch: &mut Batch,
        passage: Passage<'_>,
        devices: &FanOut,
    ) -> Result<(), SpoolError> {
        let stranger = passage.relation == Relation::Stranger;
        let letter = self.letter(passage, if stranger { Claim::Stranger } else { Claim::Known });
        for device in &devices.recipients {
            self.enqueue(batch, letter, device, false)?;
        }
        for device in &devices.copies {
            match self.enqueue(batch, letter, device, true) {
                // A device of the sender's own that nobody uses does not stop the sender.
                Ok(()) | Err(SpoolError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The line of a passage as it goes into queues.
    pub(super) fn letter<'a>(&self, passage: Passage<'a>, claim: Claim) -> Letter<'a> {
        let life_seconds = passage.command.read::<u64>("TTL").ok().flatten();
        Letter {
            command: passage.command,
            kind: Kind::Line,
            claim,
            received_at: passage.at,
            expires_at: self.post.spool.expiry(passage.at, life_seconds),
        }
    }

    fn devices_for(&mut self, passage: Passage<'_>, copies: bool) -> Result<FanOut, Answer> {
        let from = passage.from.as_address();
        let listed = self.devices_of(passage.to)?;
        let own = if copies { self.devices_of(from)? } else { Vec::new() };
        Ok(fan_out(passage.to, from, listed, own))
    }

    /// Whether one of the recipients will be given the line as soon as it is durable.
    fn is_any_ready(&self, devices: &FanOut) -> bool {
        devices.recipients.iter().any(|device| {
            let link = self.online.get(device).and_then(|id| self.connections.get(id));
            link.is_some_and(Connection::may_take_next)
        })
    }

    /// The account exists and has no such device, or none at all.
    fn no_device(&mut self, passage: Passage<'_>, now: Now) -> Result<(), Answer> {
        if passage.relation.is_open() || !self.settings.hides_users {
            return Err(Answer::text(550, "no such device"));
        }
        self.vanish(passage, now);
        Ok(())
    }

    /// Answers a line that goes nowhere as one that was queued for a stranger.
    pub(super) fn vanish(&mut self, passage: Passage<'_>, now: Now) {
        self.post.counts.vanished += 1;
        let operations = passage.statement.map(|s| s.operations(252)).unwrap_or_default();
        let (caller, statement) = (passage.caller.clone(), passage.statement.cloned());
        let promise = Promise::new(252, passage);
        self.commit(operations, now, move |domain, outcome, now| {
            domain.answer_passage(&caller, statement.as_deref(), outcome, (promise, 0), now);
        });
    }

    /// Answers a passage once its commit has an outcome.
    pub(super) fn answer_passage(
        &mut self,
        caller: &Caller,
        statement: Option<&Statement>,
        outcome: Outcome,
        (promise, reached): (Promise, usize),
        now: Now,
    ) {
        match (outcome, statement) {
            (Outcome::Durable, _) => {
                self.post.counts.taken += 1;
                if promise.code == 250 && reached == 0 {
                    // The device left meanwhile. A repeat is to get the same answer.
                    if let Some(statement) = statement {
                        self.commit(vec![statement.remember(252)], now, |_, _, _| {});
                    }
                    let promise = Promise { code: 252, text: text_of(252), ..promise };
                    return self.reply(caller, promise.answer());
                }
                self.reply(caller, promise.answer());
            }
            (Outcome::Conflict { index, found }, Some(statement)) if index < REQUIREMENTS => {
                let earlier = found.and_then(|found| statement.compare(&found));
                self.post.counts.repeated += 1;
                self.reply(caller, repeated(earlier, promise.chunk_count));
            }
            (Outcome::Refused(error), statement) => {
                self.post.counts.over_quota += u64::from(matches!(error, StoreError::Full { .. }));
                let count = promise.chunk_count;
                let first = statement.and_then(|statement| self.look_up(statement, count));
                match first {
                    Some(answer) => self.reply(caller, answer),
                    None => self.reply_not_durable(caller, Outcome::Refused(error)),
                }
            }
            (outcome, _) => self.reply_not_durable(caller, outcome),
        }
    }

    /// The answer that this line got before, if it did.
    pub(super) fn first_answer(&mut self, passage: Passage<'_>) -> Option<Answer> {
        self.look_up(passage.statement?, passage.chunk_count)
    }

    fn look_up(&mut self, statement: &Statement, chunk_count: Option<u64>) -> Option<Answer> {
        if self.post.is_doubtful {
            return None;
        }
        let earlier = statement.look_up(&*self.store).ok()??;
        self.post.counts.repeated += 1;
        Some(repeated(Some(earlier), chunk_count))
    }
}

/// The text for eyes of an answer to a line that was taken.
const fn text_of(code: u16) -> &'static str {
    match code {
        250 => "delivered",
        354 => "the recipient is away: send the chunks, they are kept",
        _ => "taken",
    }
}

const NO_ROOM: &str = "taken; there is no room to keep the file until the recipient comes";

fn repeated(earlier: Option<Earlier>, chunk_count: Option<u64>) -> Answer {
    match earlier {
        Some(Earlier::Same { answer: code }) => {
            Promise { code, text: text_of(code), chunk_count }.answer()
        }
        Some(Earlier::Other) => Answer::text(554, "another line had this MID"),
        None => retry(451, 60, "local fault: the operator must look"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
