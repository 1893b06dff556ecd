//! Into the depot: an offer whose recipient is away is answered 354, and its chunks are kept.
//!
//! Only somebody whom the recipient has approved gets 354: a stranger would learn that nobody is
//! there. The room of the whole file is set aside in the commit of its offer; 250 to a chunk says
//! that it is durable, and so is all before it. A file that is kept stays kept, also when its
//! recipient comes while it is still on its way: its chunks then have one way and one order.
//! SPEC.md §9.

use protocol::Command;
use protocol::file::FileChunk;

use super::Domain;
use super::answer::{Answer, AnswerLine};
use super::failure::{Caller, retry};
use super::file::{if_asked, shape};
use super::message::Passage;
use crate::clock::Now;
use crate::depot::{Card, DepotError, Label, Room, Stored, Verdict};
use crate::route::FanOut;
use crate::store::{Operation, Outcome};

/// Whether the relay keeps the file that a line offers.
pub(super) enum Keeping {
    /// There is no room for it.
    NoRoom,
    /// The line offers none, or the file goes from device to device.
    Not,
    /// It does, once these operations are durable.
    Room(Room, Vec<Operation>),
}

impl Keeping {
    /// Adds its operations to those of a commit.
    pub(super) fn into_room(self, into: &mut Vec<Operation>) -> Option<Room> {
        match self {
            Self::Room(room, operations) => {
                into.extend(operations);
                Some(room)
            }
            Self::NoRoom | Self::Not => None,
        }
    }
}

impl Domain {
    /// Plans to keep the file that a line offers if no device of its recipient is there.
    pub(super) fn plan_keeping(&mut self, passage: Passage<'_>, devices: &FanOut) -> Keeping {
        let is_here = devices.recipients.iter().any(|device| self.online.contains_key(device));
        let (Some(shape), false, true) =
            (shape(passage.command), is_here, passage.relation.is_open())
        else {
            return Keeping::Not;
        };
        let Ok(file) = passage.command.need("FID") else { return Keeping::Not };
        let label = Label::new(passage.to, passage.from.as_address(), file);
        let expires_at = self.post.spool.expiry(passage.at, None);
        let card = Card { label, shape, next: 0, expires_at, is_doomed: false };
        let mut operations = Vec::new();
        match self.post.depot.set_aside(&*self.store, &card, &mut operations) {
            Ok(room) => Keeping::Room(room, operations),
            Err(DepotError::Full) => Keeping::NoRoom,
            // Whatever is wrong with the depot, the offer itself can be taken.
            Err(_) => Keeping::Not,
        }
    }

    /// The commit of an offer has an outcome, or was given up.
    pub(super) fn settle_room(&mut self, room: Option<&Room>, is_durable: bool) {
        if let Some(room) = room {
            self.post.depot.settle_room(room);
            self.post.counts.files_kept += u64::from(is_durable);
        }
    }

    /// Keeps a chunk; `None` if the relay does not keep its file.
    pub(super) fn keep_chunk(
        &mut self,
        caller: &Caller,
        label: &Label,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Option<Answer>, Answer> {
        if self.post.depot.card(&*self.store, label)?.is_none() {
            return Ok(None);
        }
        let chunk = FileChunk::parse(command)?;
        let chunk = (chunk.number, chunk.body);
        let planned = self.post.depot.add_chunk(&*self.store, label, chunk)?;
        let Some((stored, operations)) = planned else { return Ok(None) };
        let caller = caller.clone();
        self.commit(operations, now, move |domain, outcome, _| {
            domain.settle_chunk(&caller, &stored, outcome);
        });
        Ok(Some(Answer::Later))
    }

    fn settle_chunk(&mut self, caller: &Caller, stored: &Stored, outcome: Outcome) {
        match self.post.depot.settle_chunk(stored, outcome) {
            Verdict::Kept { is_new } => {
                self.post.counts.chunks_kept += u64::from(is_new);
                self.reply(caller, if_asked(caller, 250));
                self.kept_more(stored.label(), stored.number() + 1);
            }
            Verdict::Other => {
                self.reply(caller, Answer::text(554, "another chunk has this number"));
            }
            Verdict::Overtaken => {
                self.reply(caller, retry(450, 1, "something else came before: try again"));
            }
            Verdict::Failed(outcome) => self.reply_not_durable(caller, outcome),
        }
    }
}

impl From<DepotError> for Answer {
    fn from(error: DepotError) -> Self {
        match error {
            DepotError::Crowded => retry(450, 1, "too many chunks are on their way to the disk"),
            DepotError::Full => Self::text(452, "there is no room to keep the file"),
            DepotError::Known => Self::text(554, "another file has this FID"),
            DepotError::Misfit => Self::text(501, "the file has no chunk of this N and length"),
            DepotError::Missing { next } => {
                let line = AnswerLine::new(450, "earlier chunks are missing");
                line.with("RETRY", 1).with("FROM-CHUNK", next).into()
            }
            DepotError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
pub(super) mod tests;
