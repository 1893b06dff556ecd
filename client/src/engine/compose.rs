//! Texts from the user: drafts until they are sealed, and what becomes of those that cannot be.
//!
//! Owns the rows of [`Space::Draft`], [`Space::Receipt`] and [`Space::Retained`]. The invariants:
//! texts to one account keep their order; a text that was sealed in a session which everybody it
//! was for refused is a draft again, under a new MID, in front of later ones; its user sees one
//! message throughout (SPEC.md §7, §8). Limits: [`limits::DRAFTS_MAX`], [`limits::PARTS_MAX`].

use std::collections::{BTreeMap, VecDeque};

use protocol::{Address, AddressBuf, Code, Timestamp};
use serde::{Deserialize, Serialize};

use super::talk::Known;
use super::{Engine, EngineError, Notice, Status};
use crate::limits;
use crate::mime;
use crate::session::offer;
use crate::state::{Space, StateError};

/// A text that is not sealed yet.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Draft {
    pub(super) contact: String,
    pub(super) mid: String,
    pub(super) code: u16,
    pub(super) about: Option<String>,
    pub(super) part: Option<(u32, u32)>,
    /// MID of part 1, for later parts.
    pub(super) first: Option<String>,
    pub(super) text: String,
    /// The file that an 800 offers.
    pub(super) fid: Option<String>,
}

/// Receipts that are still to be sent to an account.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Receipts {
    pub(super) delivered: Vec<String>,
    pub(super) read: Vec<String>,
}

/// The drafts of each account, by number, in order.
#[derive(Default)]
pub(super) struct Drafts {
    by_account: BTreeMap<String, VecDeque<u64>>,
    count: usize,
    last: u64,
}

impl Drafts {
    pub(super) fn add(&mut self, account: &str, number: u64) {
        let queue = self.by_account.entry(account.into()).or_default();
        let position = queue.partition_point(|other| *other < number);
        queue.insert(position, number);
        self.count += 1;
        self.last = self.last.max(number);
    }

    /// The accounts with drafts.
    pub(super) fn accounts(&self) -> impl Iterator<Item = &String> {
        self.by_account.keys()
    }

    pub(super) fn first(&self, account: &str) -> Option<u64> {
        self.by_account.get(account)?.front().copied()
    }

    pub(super) fn remove(&mut self, account: &str, number: u64) {
        if let Some(queue) = self.by_account.get_mut(account) {
            let before = queue.len();
            queue.retain(|other| *other != number);
            self.count -= before - queue.len();
            if queue.is_empty() {
                self.by_account.remove(account);
            }
        }
    }
}

impl Engine {
    /// Sends a text to a contact. Returns its MID; [`super::Event::Status`] and
    /// [`Notice::Failed`] tell its fate. `about` is the message that it answers.
    ///
    /// # Errors
    /// [`EngineError::TooLong`], [`EngineError::Full`], [`EngineError::Misuse`] for an address
    /// that is no other account.
    pub fn send_text(
        &mut self,
        contact: Address<'_>,
        text: &str,
        about: Option<&str>,
        now: Timestamp,
    ) -> Result<String, EngineError> {
        let pieces = mime::split(text).map_err(|_| EngineError::TooLong)?;
        self.check_room(contact, pieces.len())?;
        let count = pieces.len() as u32;
        let mut first: Option<String> = None;
        for (number, piece) in (1..).zip(pieces) {
            let mid = offer::new_mid(&mut self.state)?;
            let draft = Draft {
                contact: contact.as_str().into(),
                mid: mid.clone(),
                code: Code::MESSAGE.number(),
                about: first.clone().or(about.filter(|_| count == 1).map(Into::into)),
                part: (count > 1).then_some((number, count)),
                first: first.clone(),
                text: piece.into(),
                fid: None,
            };
            self.add_draft(&draft, now)?;
            first.get_or_insert(mid);
        }
        self.typing_ended(contact.as_str());
        self.pump_all(now)?;
        first.ok_or(EngineError::TooLong)
    }

    /// Gives a message of this account another text.
    ///
    /// # Errors
    /// As [`Self::send_text`]; the text must fit one line.
    pub fn edit(
        &mut self,
        contact: Address<'_>,
        about: &str,
        text: &str,
        now: Timestamp,
    ) -> Result<String, EngineError> {
        self.send_about(Code::EDIT, contact, about, text, now)
    }

    /// Takes a message of this account back.
    ///
    /// # Errors
    /// As [`Self::send_text`].
    pub fn retract(
        &mut self,
        contact: Address<'_>,
        about: &str,
        now: Timestamp,
    ) -> Result<String, EngineError> {
        self.send_about(Code::RETRACT, contact, about, "", now)
    }

    /// Reacts to a message.
    ///
    /// # Errors
    /// As [`Self::send_text`]; the text must fit one line.
    pub fn react(
        &mut self,
        contact: Address<'_>,
        about: &str,
        text: &str,
        now: Timestamp,
    ) -> Result<String, EngineError> {
        self.send_about(Code::REACTION, contact, about, text, now)
    }

    fn send_about(
        &mut self,
        code: Code,
        contact: Address<'_>,
        about: &str,
        text: &str,
        now: Timestamp,
    ) -> Result<String, EngineError> {
        if text.len() > mime::TEXT_OCTETS_MAX {
            return Err(EngineError::TooLong);
        }
        self.check_room(contact, 1)?;
        let mid = offer::new_mid(&mut self.state)?;
        let about = match self.known_message(about)?.and_then(|known| known.replaced_by) {
            Some(newer) => newer,
            None => about.to_owned(),
        };
        let draft = Draft {
            contact: contact.as_str().into(),
            mid: mid.clone(),
            code: code.number(),
            about: Some(about),
            part: None,
            first: None,
            text: text.into(),
            fid: None,
        };
        self.add_draft(&draft, now)?;
        self.pump_all(now)?;
        Ok(mid)
    }

    /// The user has read these messages of a contact; the contact is told if the settings say so.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn read(
        &mut self,
        contact: Address<'_>,
        mids: &[&str],
        now: Timestamp,
    ) -> Result<(), EngineError> {
        if self.config.tells_reading {
            for mid in mids {
                self.owe_receipt(contact, mid, true)?;
            }
        }
        self.pump_all(now)
    }

    pub(super) fn check_room(&self, contact: Address<'_>, count: usize) -> Result<(), EngineError> {
        if !contact.is_account() || self.is_own_account(contact) {
            return Err(EngineError::Misuse("texts go to another account"));
        }
        if self.outbox.is_full() || self.drafts.count + count > limits::DRAFTS_MAX {
            return Err(EngineError::Full);
        }
        Ok(())
    }

    pub(super) fn add_draft(&mut self, draft: &Draft, now: Timestamp) -> Result<(), EngineError> {
        let number = self.drafts.last + 1;
        self.state.put(Space::Draft, &draft_name(number), draft)?;
        self.drafts.add(&draft.contact, number);
        self.to_pump.insert(draft.contact.clone());
        if draft.first.is_some() {
            // A later part has no fate of its own.
            return Ok(());
        }
        let known = Known {
            author: self.identity.account().as_str().into(),
            contact: draft.contact.clone(),
            at: now.0,
            status: Status::Waiting,
            shown_as: None,
            replaced_by: None,
        };
        self.remember_message(&draft.mid, &known)
    }

    /// Notes that a receipt is to be sent.
    pub(super) fn owe_receipt(
        &mut self,
        contact: Address<'_>,
        mid: &str,
        is_read: bool,
    ) -> Result<(), EngineError> {
        let name = contact.as_str();
        let mut owed: Receipts = self.state.get(Space::Receipt, name)?.unwrap_or_default();
        let list = if is_read { &mut owed.read } else { &mut owed.delivered };
        if !list.iter().any(|owed| owed == mid) {
            list.push(mid.into());
        }
        let surplus = list.len().saturating_sub(limits::RECEIPTS_OWED_MAX);
        list.drain(..surplus);
        self.state.put(Space::Receipt, name, &owed)?;
        self.to_pump.insert(name.into());
        Ok(())
    }

    /// Gives every waiting text of an account back as failed.
    pub(super) fn fail_drafts(
        &mut self,
        account: &str,
        code: u16,
        text: &str,
    ) -> Result<(), EngineError> {
        while let Some(number) = self.drafts.first(account) {
            let name = draft_name(number);
            let draft: Option<Draft> = self.state.get(Space::Draft, &name)?;
            self.state.remove(Space::Draft, &name)?;
            self.drafts.remove(account, number);
            let Some(draft) = draft else { continue };
            match &draft.fid {
                Some(fid) => self.file_refused(&fid.clone(), code, text)?,
                None => {
                    let mid = draft.first.as_ref().unwrap_or(&draft.mid);
                    self.fail_message(mid, code, text)?;
                }
            }
        }
        Ok(())
    }

    /// A message will not arrive; later parts of a text are silent about it.
    pub(super) fn fail_message(
        &mut self,
        mid: &str,
        code: u16,
        text: &str,
    ) -> Result<(), EngineError> {
        let Some(mut known) = self.known_message(mid)? else { return Ok(()) };
        if known.status == Status::Failed {
            return Ok(());
        }
        known.status = Status::Failed;
        self.remember_message(mid, &known)?;
        let shown = known.shown_as.unwrap_or_else(|| mid.to_owned());
        let contact = AddressBuf::parse(&known.contact)?;
        let notice =
            Notice::Failed { contact, mid: shown, code, text: text.into(), is_bounce: false };
        self.notify(None, notice)
    }

    /// A device of the other side has the generation: its texts need not be kept any more.
    pub(super) fn release_retained(&mut self, generation: &str) -> Result<(), EngineError> {
        for (name, _) in self.state.list_prefix::<Draft>(Space::Retained, generation)? {
            self.state.remove(Space::Retained, &name)?;
        }
        Ok(())
    }

    /// Draft numbers go on above those of retained texts, which may become drafts again.
    pub(super) fn count_retained(&mut self) -> Result<(), EngineError> {
        for (name, _) in self.state.list::<Draft>(Space::Retained)? {
            let number = retained_number(&name).ok_or(StateError::Damaged(Space::Retained))?;
            self.drafts.last = self.drafts.last.max(number);
        }
        Ok(())
    }

    /// Forgets texts whose generation is gone: nobody will answer for them any more.
    pub(super) fn expire_retained(&mut self) -> Result<(), EngineError> {
        for (name, _) in self.state.list::<Draft>(Space::Retained)? {
            let generation = name.split(' ').next().unwrap_or_default();
            if !self.state.contains(Space::Generation, generation)? {
                self.state.remove(Space::Retained, &name)?;
            }
        }
        Ok(())
    }

    /// Nobody on the other side ever had this generation: its texts are drafts again, under new
    /// MIDs, in front of those made later. Files are given up: the key of a file serves one offer.
    pub(super) fn draft_retained(
        &mut self,
        generation: &str,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let mut newer_of: BTreeMap<String, String> = BTreeMap::new();
        for (name, mut draft) in self.state.list_prefix::<Draft>(Space::Retained, generation)? {
            self.state.remove(Space::Retained, &name)?;
            let number = retained_number(&name).ok_or(StateError::Damaged(Space::Retained))?;
            let known = self.known_message(&draft.mid)?;
            if known.as_ref().is_some_and(|known| known.status >= Status::Delivered) {
                continue;
            }
            if let Some((waiting, _)) = self.outbox.find(&draft.mid) {
                self.outbox.remove(&mut self.state, waiting)?;
            }
            if let Some(fid) = &draft.fid {
                self.offer_lost(fid, now)?;
                continue;
            }
            let old = std::mem::replace(&mut draft.mid, offer::new_mid(&mut self.state)?);
            if let Some(first) = &draft.first {
                let newer = newer_of.get(first).cloned();
                draft.first.clone_from(&newer);
                draft.about = newer;
            }
            newer_of.insert(old.clone(), draft.mid.clone());
            if let Some(mut known) = known {
                let shown = known.shown_as.clone().unwrap_or_else(|| old.clone());
                let newer = Known {
                    status: Status::Waiting,
                    at: now.0,
                    shown_as: Some(shown.clone()),
                    ..known.clone()
                };
                known.replaced_by = Some(draft.mid.clone());
                self.remember_message(&old, &known)?;
                self.remember_message(&draft.mid, &newer)?;
                // The MID that the user knows leads to the newest at once.
                if let Some(mut first) = self.known_message(&shown)? {
                    first.replaced_by = Some(draft.mid.clone());
                    self.remember_message(&shown, &first)?;
                }
            }
            self.state.put(Space::Draft, &draft_name(number), &draft)?;
            self.drafts.add(&draft.contact, number);
            self.to_pump.insert(draft.contact.clone());
        }
        Ok(())
    }
}

pub(super) fn draft_name(number: u64) -> String {
    format!("{number:020}")
}

pub(super) fn retained_name(generation: &str, number: u64) -> String {
    format!("{generation} {number:020}")
}

fn retained_number(name: &str) -> Option<u64> {
    name.rsplit(' ').next()?.parse().ok()
}
