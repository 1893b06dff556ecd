//! 013 and 014: a device takes up its queue again, and says what it has safely stored.
//!
//! Lines of the queue flow only after 013, which says from where; so the first of them is never
//! out of order. 014 is durable before it is answered, and while the disk is full or the token
//! away it still makes room. SPEC.md §5.

use protocol::message::Acknowledgement;
use protocol::{Code, Command};

use super::Domain;
use super::answer::{Answer, AnswerLine};
use super::connection::ConnectionId;
use super::failure::{Caller, retry};
use super::post::Feed;
use crate::clock::Now;
use crate::spool::SpoolError;
use crate::store::{Outcome, StoreError};

impl Domain {
    /// Handles 013 and 014.
    pub(super) fn queue(&mut self, id: ConnectionId, command: &Command<'_>, now: Now) -> Answer {
        let answer = match command.code() {
            Code::RESUME => self.resume(id, command),
            _ => self.acknowledge(id, command, now),
        };
        answer.unwrap_or_else(|refusal| refusal)
    }

    fn resume(&mut self, id: ConnectionId, command: &Command<'_>) -> Result<Answer, Answer> {
        let device = self.proven(id)?;
        let after: u64 = command.need("H-Q")?;
        let standing = self.post.spool.standing(&*self.store, &device)?;
        let kept = self.post.spool.kept(&*self.store, &device)?;
        let answer = AnswerLine::new(250, "what waits follows").with("H-Q", standing.durable);
        self.answer(id, command.parameter("H-ID"), answer.into());
        if let Some(connection) = self.connections.get_mut(&id) {
            // A number that was never given would hide the lines to come.
            let sent_up_to = after.min(standing.durable).max(standing.freed);
            let feed = Feed { sent_up_to, kept: kept.into(), is_behind: true };
            connection.post.feed = Some(feed);
        }
        self.pump(id);
        Ok(Answer::Later)
    }

    fn acknowledge(
        &mut self,
        id: ConnectionId,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let device = self.proven(id)?;
        let asked = Acknowledgement::parse(command)?;
        let at = self.post.clock.read(now);
        let mut operations = Vec::new();
        let ask = (asked.up_to, &asked.kept[..]);
        let moved = self.post.spool.acknowledge(&*self.store, &device, ask, at, &mut operations)?;
        let caller = Caller::new(id, command);
        let Some(moved) = moved else {
            self.acknowledged(&caller);
            return Ok(Answer::Later);
        };
        self.commit(operations, now, move |domain, outcome, now| match outcome {
            Outcome::Durable => {
                // If the queue cannot be measured now, it counts more than it holds for a while.
                let _ = domain.post.spool.moved(&*domain.store, moved);
                domain.post.counts.acknowledged += 1;
                domain.acknowledged(&caller);
            }
            Outcome::Refused(error @ (StoreError::Full { .. } | StoreError::KeyAway { .. })) => {
                domain.post.spool.not_moved(&moved);
                domain.make_room(&caller, &device, &asked, error, now);
            }
            outcome => {
                domain.post.spool.not_moved(&moved);
                domain.reply_not_durable(&caller, outcome);
            }
        });
        Ok(Answer::Later)
    }

    /// 014 is answered only if the client asked for it.
    fn acknowledged(&mut self, caller: &Caller) {
        if caller.hop_id.is_some() {
            self.reply(caller, Answer::text(250, "freed"));
        }
    }

    /// Frees what an acknowledgement covers without writing anything, and tells why the
    /// acknowledgement itself could not be noted.
    fn make_room(
        &mut self,
        caller: &Caller,
        device: &protocol::AddressBuf,
        asked: &Acknowledgement,
        error: StoreError,
        now: Now,
    ) {
        let mut operations = Vec::new();
        let ask = (asked.up_to, &asked.kept[..]);
        let at = self.post.clock.read(now);
        let freed = self.post.spool.free_only(&*self.store, device, ask, at, &mut operations);
        let (Ok(Some(freed)), caller) = (freed, caller.clone()) else {
            return self.reply(caller, error.into());
        };
        self.commit(operations, now, move |domain, outcome, _| {
            match outcome {
                Outcome::Durable => {
                    let _ = domain.post.spool.moved(&*domain.store, freed);
                }
                _ => domain.post.spool.not_moved(&freed),
            }
            domain.reply(&caller, error.into());
        });
    }
}

impl From<SpoolError> for Answer {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Crowded => retry(450, 1, "too many queues are in use: try again"),
            SpoolError::Full => Self::text(452, "the queue of this device is full"),
            SpoolError::NeverGiven => Self::text(501, "H-Q is above what was sent"),
            SpoolError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
