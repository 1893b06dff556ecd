//! 120 to 122: presence is set, told to contacts, and asked for (SPEC.md §8).
//!
//! Only contacts whom the owner has approved are told anything; to everybody else an account is
//! offline, as one that does not exist. What is told is never queued, and dropped when a link has
//! more than half of its outbox waiting.

use protocol::message::{Availability, Presence};
use protocol::{Address, AddressBuf, Code, Command, CommandBuilder, Error};

use super::Domain;
use super::answer::{Answer, AnswerLine};
use super::connection::ConnectionId;
use super::failure::Caller;
use crate::clock::Now;
use crate::presence::offline;

impl Domain {
    /// Handles 120.
    pub(super) fn set_presence(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let device = self.proven(caller.id)?;
        self.presences.set(device.as_address(), Presence::parse(command)?);
        self.presence_changed(device.as_address(), now);
        Ok(Answer::text(250, "presence is set"))
    }

    /// Handles 122.
    pub(super) fn ask_presence(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let device = self.proven(caller.id)?;
        let to = command.to().ok_or(Error::BadAddress)?;
        let presence = self.presence_for(to, device.as_address(), now)?;
        let mut line = AnswerLine::new(251, "presence").with("STATE", presence.state);
        if let Some(until) = presence.until {
            line = line.with("UNTIL", until);
        }
        if let Some(alternatives) = alternatives(&presence) {
            line = line.with("ALT", alternatives);
        }
        Ok(line.into())
    }

    /// The presence of `account` as `asker` may see it.
    fn presence_for(
        &mut self,
        account: Address<'_>,
        asker: Address<'_>,
        now: Now,
    ) -> Result<Presence, Answer> {
        if account.domain() != self.settings.domain {
            return Ok(offline());
        }
        let is_own = account.account() == asker.account();
        let relation = self.rosters.relation(&*self.store, account, asker)?;
        if is_own || relation.shows_presence() {
            return Ok(self.presences.presence(account, now.timestamp));
        }
        Ok(offline())
    }

    /// A device has logged in: its contacts are told, and it is told who of them is here.
    pub(super) fn device_came(&mut self, device: &AddressBuf, now: Now) {
        self.presences.came(device.as_address());
        self.presence_changed(device.as_address(), now);
        self.tell_who_is_here(device, now);
        // Who has published none yet knows it.
        if let Ok(Some(_)) = self.prekeys.signed(&*self.store, device)
            && let Ok(left) = self.prekeys.free_count(&*self.store, device)
        {
            self.tell_low(device, left);
        }
    }

    /// A device has no link any more.
    pub(super) fn device_left(&mut self, device: &AddressBuf, now: Now) {
        self.presences.left(device.as_address(), now);
        self.presence_changed(device.as_address(), now);
    }

    /// Tells the contacts of an account what changed since they were told last.
    pub(super) fn presence_changed(&mut self, account: Address<'_>, now: Now) {
        let Some((_, presence)) = self.presences.change(account, now.timestamp) else { return };
        self.release_held(&account.account().to_buf(), now);
        let Ok(roster) = self.rosters.roster(&*self.store, account) else { return };
        for (contact, relation) in roster.relations() {
            if relation.shows_presence() {
                for device in self.presences.online(contact.as_address()) {
                    self.tell_presence(&device, account, &presence);
                }
            }
        }
    }

    /// Tells a device the presence of those contacts that are not offline.
    fn tell_who_is_here(&mut self, device: &AddressBuf, now: Now) {
        let Ok(roster) = self.rosters.roster(&*self.store, device.as_address()) else { return };
        for (contact, relation) in roster.relations() {
            if !relation.is_approved {
                continue;
            }
            let contact = contact.as_address();
            let presence = self.presence_for(contact, device.as_address(), now);
            let is_here = |presence: &Presence| presence.state != Availability::Offline;
            if let Some(presence) = presence.ok().filter(is_here) {
                self.tell_presence(device, contact, &presence);
            }
        }
    }

    /// Tells one pair what changed between them: `contact`'s devices see `account` as it is now.
    pub(super) fn tell_contact(&mut self, account: Address<'_>, contact: Address<'_>, now: Now) {
        let Ok(presence) = self.presence_for(account, contact, now) else { return };
        for device in self.presences.online(contact) {
            self.tell_presence(&device, account, &presence);
        }
    }

    fn tell_presence(&mut self, device: &AddressBuf, account: Address<'_>, presence: &Presence) {
        let Some(id) = self.online.get(device).copied() else { return };
        let line = Command::builder(Code::PRESENCE)
            .from(account.account())
            .parameter("STATE", presence.state)
            .parameter_if("UNTIL", presence.until)
            .parameter_if("ALT", alternatives(presence));
        self.tell(id, line);
    }

    /// Sends a line that nobody misses: dropped if half of the link's outbox is waiting.
    pub(super) fn tell(&mut self, id: ConnectionId, line: CommandBuilder) {
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.is_half_empty() {
            self.send(id, format!("{}\r\n", line.finish()).into_bytes());
        }
    }
}

/// The value of ALT.
fn alternatives(presence: &Presence) -> Option<String> {
    let words: Vec<String> = presence.alternatives.iter().map(ToString::to_string).collect();
    (!words.is_empty()).then(|| words.join(","))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
