//! 630 to 636: rosters, subscription requests, approval and blocking (SPEC.md §6, §8).
//!
//! A relation that concerns two people is committed for both at once. Whoever asks learns nothing
//! from the answer: 633 gets 252 whether the other side exists, has been asked before, or blocks.
//! Every device of an account that is here is told what changed in its roster (632).

use protocol::{Address, AddressBuf, Code, Command, CommandBuilder, Error, parameter};

use super::Domain;
use super::answer::{Answer, AnswerLine};
use super::connection::ConnectionId;
use super::failure::{Caller, Handler, retry};
use super::limits;
use super::post::Batch;
use crate::clock::Now;
use crate::roster::limits::{CONTACTS_MAX, REQUESTS_MAX};
use crate::roster::{self, Contact, Relation};
use crate::spool::Claim;
use crate::store::Outcome;

/// A change of one contact in one roster.
pub(super) struct Change {
    owner: AddressBuf,
    before: Relation,
    after: Contact,
    version: u64,
}

/// What a command changes, once the operations are durable.
#[derive(Default)]
struct Plan {
    batch: Batch,
    changes: Vec<Change>,
}

impl Domain {
    /// Handles 630.
    pub(super) fn fetch_roster(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        _now: Now,
    ) -> Result<Answer, Answer> {
        let device = self.proven(caller.id)?;
        let version = self.rosters.roster(&*self.store, device.as_address())?.version();
        if command.read("VER")? == Some(version) {
            return Ok(AnswerLine::new(250, "unchanged").with("VER", version).into());
        }
        let mut contacts = roster::contacts(&*self.store, device.as_address())?;
        contacts.sort_unstable_by(|one, two| one.address.cmp(&two.address));
        if contacts.is_empty() {
            return Ok(AnswerLine::new(250, "empty").with("VER", version).into());
        }
        let entry = |contact: &Contact| {
            let line = AnswerLine::new(251, "roster");
            let described = describe(contact).into_iter();
            described.fold(line, |line, (name, value)| line.with(name, value)).with("VER", version)
        };
        Ok(Answer::Now(contacts.iter().map(entry).collect()))
    }

    /// Handles 631.
    pub(super) fn set_contact(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let device = self.proven(caller.id)?;
        let to = other(command, &device)?;
        let owner = device.account();
        let roster = self.rosters.roster(&*self.store, owner.as_address())?;
        let version = roster.version();
        let before = roster::contact(&*self.store, owner.as_address(), to.as_address())?;
        let wished = self.wished(command, before.as_ref(), &to, now)?;
        if before.as_ref().is_some_and(|before| is_same(before, &wished)) {
            return Ok(AnswerLine::new(250, "as it is").with("VER", version).into());
        }
        if command.read("VER")?.is_some_and(|base: u64| base != version) {
            let text = "the roster has changed since";
            return Err(AnswerLine::new(455, text).with("VER", version).into());
        }
        let mut plan = Plan::default();
        let is_removed = command.read("DEL")?.unwrap_or(false);
        self.change(&mut plan, &owner, &to, now, |contact| {
            contact.relation = wished.relation;
            contact.blob.clone_from(&wished.blob);
        })?;
        if is_removed {
            self.change_if_known(&mut plan, &to, &owner, now, |contact| {
                contact.relation.is_approved = false;
            })?;
        }
        self.commit_changes(plan, caller, (command, Self::set_contact), now, 250)
    }

    /// What 631 makes of a contact.
    fn wished(
        &self,
        command: &Command<'_>,
        before: Option<&Contact>,
        to: &AddressBuf,
        now: Now,
    ) -> Result<Contact, Answer> {
        let stranger = || Contact::new(to.clone(), now.timestamp);
        let mut contact = before.cloned().unwrap_or_else(stranger);
        if command.read("DEL")?.unwrap_or(false) {
            let blocks = contact.relation.blocks;
            contact = Contact::new(to.clone(), now.timestamp);
            contact.relation.blocks = blocks;
            return Ok(contact);
        }
        contact.relation.is_listed = true;
        if let Some(allows) = command.read("URGENT")? {
            contact.relation.allows_urgent = allows;
        }
        if let Some(blob) = command.parameter("BLOB") {
            blob.clone_into(&mut contact.blob);
        }
        Ok(contact)
    }

    /// Handles 633: asks to be approved.
    pub(super) fn subscribe(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let device = self.proven(caller.id)?;
        let (to, owner) = (self.local_other(command, &device)?, device.account());
        let exists = self.directory.account(&*self.store, to.as_address())?.is_some();
        if !exists && !self.settings.hides_users {
            return Err(Answer::text(550, "no such user"));
        }
        let theirs = self.rosters.roster(&*self.store, to.as_address())?;
        let found = roster::contact(&*self.store, to.as_address(), owner.as_address())?;
        let relation = found.map(|found| found.relation).unwrap_or_default();
        let is_approved = relation.approves && !relation.blocks;
        let mut plan = Plan::default();
        let has_changed = self.change(&mut plan, &owner, &to, now, |contact| {
            contact.relation.is_listed = true;
            contact.relation.is_approved = is_approved;
            contact.relation.asks = !is_approved;
        })?;
        if has_changed && let Err(seconds) = self.requests.take(owner.clone(), now) {
            let text = format!("{} requests an hour", limits::REQUESTS_PER_HOUR);
            return Err(retry(453, seconds, &text));
        }
        let requests = theirs.relations().filter(|(_, relation)| relation.is_request()).count();
        let is_heard = exists && !relation.approves && !relation.blocks && !relation.was_asked;
        let is_heard = is_heard && requests < REQUESTS_MAX;
        self.change(&mut plan, &to, &owner, now, |contact| {
            contact.relation.was_asked |= is_heard;
        })?;
        if is_heard {
            self.pass_on(&mut plan, (command, Claim::Stranger), &to, now)?;
        }
        let code = if is_approved { 250 } else { 252 };
        self.commit_changes(plan, caller, (command, Self::subscribe), now, code)
    }

    /// Handles 634: approves somebody, asked or not.
    pub(super) fn approve(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let device = self.proven(caller.id)?;
        let (to, owner) = (self.local_other(command, &device)?, device.account());
        let mut plan = Plan::default();
        self.change(&mut plan, &owner, &to, now, |contact| {
            contact.relation.approves = true;
            contact.relation.was_asked = false;
            contact.relation.is_listed = true;
        })?;
        let is_told = self.change_if_known(&mut plan, &to, &owner, now, |contact| {
            contact.relation.is_approved = true;
            contact.relation.asks = false;
        })?;
        if is_told {
            self.pass_on(&mut plan, (command, Claim::Known), &to, now)?;
        }
        self.commit_changes(plan, caller, (command, Self::approve), now, 250)
    }

    /// Handles 635: denies a request, or takes an approval back.
    pub(super) fn deny(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let device = self.proven(caller.id)?;
        let (to, owner) = (self.local_other(command, &device)?, device.account());
        let mut plan = Plan::default();
        self.change_if_known(&mut plan, &owner, &to, now, |contact| {
            contact.relation.approves = false;
            contact.relation.was_asked = false;
        })?;
        let is_told = self.change_if_known(&mut plan, &to, &owner, now, |contact| {
            contact.relation.is_approved = false;
            contact.relation.asks = false;
        })?;
        if is_told {
            self.pass_on(&mut plan, (command, Claim::Known), &to, now)?;
        }
        self.commit_changes(plan, caller, (command, Self::deny), now, 250)
    }

    /// Handles 636: blocks somebody, or no longer. The other side is told nothing.
    pub(super) fn block(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let device = self.proven(caller.id)?;
        let (to, owner) = (other(command, &device)?, device.account());
        let blocks = !command.read("OFF")?.unwrap_or(false);
        let mut plan = Plan::default();
        let mut approves = false;
        self.change(&mut plan, &owner, &to, now, |contact| {
            contact.relation.blocks = blocks;
            contact.relation.was_asked &= !blocks;
            approves = contact.relation.approves;
        })?;
        if approves && !blocks {
            // Whoever asked meanwhile was approved all the time.
            self.change_if_known(&mut plan, &to, &owner, now, |contact| {
                contact.relation.is_approved |= contact.relation.asks;
                contact.relation.asks = false;
            })?;
        }
        self.commit_changes(plan, caller, (command, Self::block), now, 250)
    }

    /// TO, which must be another account of this domain.
    fn local_other(
        &self,
        command: &Command<'_>,
        device: &AddressBuf,
    ) -> Result<AddressBuf, Answer> {
        let to = other(command, device)?;
        if to.as_address().domain() == self.settings.domain {
            return Ok(to);
        }
        Err(Answer::text(550, "this relay does not know that domain"))
    }

    /// Adds to `plan` what `edit` makes of `contact` in `owner`'s roster; whether that is a change.
    fn change(
        &mut self,
        plan: &mut Plan,
        owner: &AddressBuf,
        contact: &AddressBuf,
        now: Now,
        edit: impl FnOnce(&mut Contact),
    ) -> Result<bool, Answer> {
        let before = roster::contact(&*self.store, owner.as_address(), contact.as_address())?;
        let stranger = || Contact::new(contact.clone(), now.timestamp);
        let mut after = before.clone().unwrap_or_else(stranger);
        edit(&mut after);
        if is_same(&before.clone().unwrap_or_else(stranger), &after) {
            // What was read and left as it is must still be so when the rest is committed.
            plan.batch.operations.push(roster::unchanged_operation(
                owner.as_address(),
                contact.as_address(),
                before.as_ref(),
            ));
            return Ok(false);
        }
        after.changed_at = now.timestamp;
        let was_kept = before.as_ref().is_some_and(|before| !before.relation.is_request());
        let is_kept = !after.is_empty() && !after.relation.is_request();
        if is_kept && !was_kept {
            let roster = self.rosters.roster(&*self.store, owner.as_address())?;
            let kept = roster.relations().filter(|(_, relation)| !relation.is_request()).count();
            if kept >= CONTACTS_MAX {
                let text = format!("{CONTACTS_MAX} contacts in one roster");
                return Err(Answer::text(452, &text));
            }
        }
        let (operations, version) = self.rosters.change_operations(
            &*self.store,
            owner.as_address(),
            before.as_ref(),
            &after,
        )?;
        plan.batch.operations.extend(operations);
        let before = before.map(|before| before.relation).unwrap_or_default();
        plan.changes.push(Change { owner: owner.clone(), before, after, version });
        Ok(true)
    }

    /// As [`Domain::change`], but only for a contact that `owner` has an entry for.
    fn change_if_known(
        &mut self,
        plan: &mut Plan,
        owner: &AddressBuf,
        contact: &AddressBuf,
        now: Now,
        edit: impl FnOnce(&mut Contact),
    ) -> Result<bool, Answer> {
        let known = roster::contact(&*self.store, owner.as_address(), contact.as_address())?;
        if known.is_some() {
            return self.change(plan, owner, contact, now, edit);
        }
        self.change(plan, owner, contact, now, |_| {})
    }

    /// Commits what is planned, tells everybody concerned and answers with `code`.
    fn commit_changes(
        &mut self,
        plan: Plan,
        caller: &Caller,
        (command, handler): (&Command<'_>, Handler),
        now: Now,
        code: u16,
    ) -> Result<Answer, Answer> {
        let Plan { batch, changes } = plan;
        if changes.is_empty() {
            return Ok(Answer::text(code, "as it is"));
        }
        let (caller, line) = (caller.clone(), command.as_str().to_owned());
        self.commit_batch(batch, now, move |domain, outcome, _, now| {
            for change in &changes {
                domain.rosters.forget(change.owner.as_address());
            }
            match outcome {
                Outcome::Durable => {
                    domain.reply(&caller, done(code, changes.first()));
                    domain.tell_changes(&changes, caller.id, now);
                }
                Outcome::Conflict { .. } => domain.run_again(handler, &caller, &line, now),
                outcome => domain.reply_not_durable(&caller, outcome),
            }
        });
        Ok(Answer::Later)
    }

    /// Tells the devices of each roster's owner what changed in it, but not the link that is
    /// answered; and contacts how the owner is, if they begin or cease to see it.
    fn tell_changes(&mut self, changes: &[Change], answered: ConnectionId, now: Now) {
        for change in changes {
            for device in self.presences.online(change.owner.as_address()) {
                let id = self.online.get(&device).copied();
                if let Some(id) = id.filter(|id| *id != answered) {
                    self.tell(id, push(change));
                }
            }
        }
        for Change { owner, before, after, .. } in changes {
            // Whoever saw nothing and sees nothing is not told that somebody thought of it.
            if before.shows_presence() != after.relation.shows_presence() {
                self.tell_contact(owner.as_address(), after.address.as_address(), now);
            }
        }
    }

    /// Adds the line itself to what is committed, for all devices of `to`.
    fn pass_on(
        &mut self,
        plan: &mut Plan,
        line: (&Command<'_>, Claim),
        to: &AddressBuf,
        now: Now,
    ) -> Result<(), Answer> {
        let result = self.enqueue_for_account(&mut plan.batch, line, to.as_address(), now);
        if result.is_err() {
            self.abandon(&plan.batch);
        }
        result
    }
}

/// TO, which must be another account than the device's.
fn other(command: &Command<'_>, device: &AddressBuf) -> Result<AddressBuf, Answer> {
    let to = command.to().filter(|to| *to != device.as_address().account());
    Ok(to.map(Address::to_buf).ok_or(Error::BadAddress)?)
}

/// Whether two states of a contact are the same but for their time.
fn is_same(one: &Contact, two: &Contact) -> bool {
    one.relation == two.relation && one.blob == two.blob
}

fn done(code: u16, change: Option<&Change>) -> Answer {
    let line = AnswerLine::new(code, "done");
    match change.filter(|_| code == 250) {
        Some(change) => line.with("VER", change.version).into(),
        None => line.into(),
    }
}

/// The 632 line that tells of a change.
fn push(change: &Change) -> CommandBuilder {
    let mut line = Command::builder(Code::ROSTER_PUSH);
    for (name, value) in describe(&change.after) {
        line = line.parameter(name, value);
    }
    line.parameter_if("DEL", change.after.is_empty().then_some(1)).parameter("VER", change.version)
}

/// The parameters that describe a contact in 251 and 632.
fn describe(contact: &Contact) -> Vec<(&'static str, String)> {
    let Relation { approves, is_approved, asks, was_asked, blocks, allows_urgent, .. } =
        contact.relation;
    let subscription = match (is_approved, approves) {
        (false, false) => "none",
        (true, false) => "to",
        (false, true) => "from",
        (true, true) => "both",
    };
    let mut described = vec![
        ("WHO", parameter::escape(contact.address.as_str())),
        ("SUB", subscription.to_owned()),
    ];
    let asked = match (asks, was_asked) {
        (false, false) => None,
        (true, false) => Some("out"),
        (false, true) => Some("in"),
        (true, true) => Some("both"),
    };
    described.extend(asked.map(|asked| ("ASK", asked.to_owned())));
    described.extend(blocks.then(|| ("BLOCK", "1".to_owned())));
    described.extend(allows_urgent.then(|| ("URGENT", "1".to_owned())));
    if !contact.blob.is_empty() {
        described.push(("BLOB", contact.blob.clone()));
    }
    described
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
