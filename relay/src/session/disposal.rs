//! The end of a kept file: 805, 806, expiry, damage, and people who are gone.
//!
//! First a mark that survives a crash, then the chunks, a part at a time. A file that the relay
//! itself gives up is said to both sides by 805 from the domain. The sweep finds what nobody
//! ended, and what a crash or a full disk left marked. SPEC.md §9.

use protocol::file::FileVerdict;
use protocol::timestamp::Timestamp;
use protocol::{Address, AddressBuf, Command};

use super::Domain;
use super::answer::Answer;
use super::delivery::Letter;
use super::limits;
use super::post::Batch;
use crate::clock::Now;
use crate::depot::{Card, Label};
use crate::spool::{Claim, Kind, SpoolError};
use crate::store::Outcome;

impl Domain {
    /// 806: whatever the receiver thinks of a kept file, it need not be kept any more.
    pub(super) fn end_kept(
        &mut self,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Option<Answer>, Answer> {
        let verdict = FileVerdict::parse(command)?;
        self.dispose(&Label::new(verdict.from, verdict.to, verdict.file), now)?;
        Ok(None)
    }

    /// Removes a file if it is kept.
    pub(super) fn dispose(&mut self, label: &Label, now: Now) -> Result<(), Answer> {
        let Some((card, mark)) = self.post.depot.doom(&*self.store, label)? else {
            return Ok(());
        };
        self.drop_fetches(label);
        self.commit(vec![mark], now, move |domain, outcome, now| {
            if outcome == Outcome::Durable {
                domain.clear(&card, now);
            }
        });
        Ok(())
    }

    /// Removes the files kept for an account that has no device any more.
    pub(super) fn dispose_all(&mut self, account: Address<'_>, now: Now) {
        // What cannot be read now is found by the sweep.
        let cards = self.post.depot.cards(&*self.store, account).unwrap_or_default();
        for card in cards {
            let _ = self.dispose(&card.label, now);
        }
    }

    /// Gives up a kept file and tells both sides why.
    pub(super) fn end_file(&mut self, label: &Label, code: u16, now: Now) {
        let Ok(Some((card, mark))) = self.post.depot.doom(&*self.store, label) else { return };
        self.drop_fetches(label);
        let mut batch = Batch { operations: vec![mark], lines: Vec::new() };
        if self.tell_end(&mut batch, label, code, now).is_err() {
            // The mark is left out, too: the next round begins again.
            return self.abandon(&batch);
        }
        self.commit_batch(batch, now, move |domain, outcome, _, now| {
            if outcome == Outcome::Durable {
                domain.post.counts.files_ended += 1;
                domain.clear(&card, now);
            }
        });
    }

    /// Adds 805 lines for both sides of a file to a batch.
    fn tell_end(
        &mut self,
        batch: &mut Batch,
        label: &Label,
        code: u16,
        now: Now,
    ) -> Result<(), Answer> {
        let at = self.post.clock.read(now);
        let expires_at = self.post.spool.expiry(at, None);
        let domain = self.settings.domain.clone();
        let line =
            |to: &AddressBuf| format!("805 TO {to} FROM {domain} FID={} CODE={code}", label.file);
        let (text, claim) = (line(&label.account), Claim::Known);
        let command = Command::parse(text.as_bytes())?;
        self.enqueue_for_account(batch, (&command, claim), label.account.as_address(), now)?;
        if self.is_gone(&label.sender) {
            return Ok(());
        }
        let text = line(&label.sender);
        let command = Command::parse(text.as_bytes())?;
        let kind = Kind::Line;
        let letter = Letter { command: &command, kind, claim, received_at: at, expires_at };
        match self.enqueue(batch, letter, &label.sender, false) {
            // A sender whose own queue is full is not told.
            Ok(()) | Err(SpoolError::Full) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Begins to remove a file whose mark is durable.
    fn clear(&mut self, card: &Card, now: Now) {
        self.post.depot.remove(card);
        self.clear_on(now);
    }

    /// Removes the next part of what is to be removed.
    fn clear_on(&mut self, now: Now) {
        let Some((removal, operations)) = self.post.depot.next_removal() else { return };
        self.commit(operations, now, move |domain, outcome, now| {
            let is_durable = outcome == Outcome::Durable;
            if domain.post.depot.settle_removal(removal, is_durable).is_some() {
                domain.post.counts.files_removed += 1;
            }
            if is_durable {
                domain.clear_on(now);
            }
        });
    }

    /// Gives up files that were found damaged, and goes on with removals that failed.
    pub(super) fn tick_removals(&mut self, now: Now) {
        for label in std::mem::take(&mut self.post.spoilt) {
            self.end_file(&label, 451, now);
        }
        self.clear_on(now);
    }

    /// Looks at some of the cards.
    pub(super) fn tick_cards(&mut self, at: Timestamp, now: Now) {
        if now.since_start.saturating_sub(self.post.depot_swept_at) < limits::SWEEP_INTERVAL {
            return;
        }
        self.post.depot_swept_at = now.since_start;
        let after = self.post.depot_cursor.take();
        let Ok((cards, next)) = self.post.depot.sweep(&*self.store, after) else { return };
        self.post.depot_cursor = next;
        for card in cards {
            if card.is_doomed {
                self.clear(&card, now);
            } else if card.expires_at <= at {
                self.end_file(&card.label, 558, now);
            } else if self.is_orphan(&card.label) {
                // If that cannot be done now, a later round does it.
                let _ = self.dispose(&card.label, now);
            }
        }
    }

    /// Whether one side of a file is gone for good.
    fn is_orphan(&mut self, label: &Label) -> bool {
        let devices = self.devices_of(label.account.as_address());
        let is_recipient_gone = devices.is_ok_and(|devices| devices.is_empty());
        is_recipient_gone || self.is_gone(&label.sender)
    }

    /// Whether a device is known to be revoked, or to have been replaced.
    fn is_gone(&mut self, device: &AddressBuf) -> bool {
        self.devices_of(device.as_address()).is_ok_and(|devices| !devices.contains(device))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
