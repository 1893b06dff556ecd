//! 010 to 012: hello, identity, public key and the proof of it, bound to this very link (SPEC.md
//! §5).
//!
//! The order of the steps is [`protocol::state::server::Handshake`]'s. Nothing is looked up before
//! the proof holds, so 011 answers an unknown user as a known one. A key that no record lists gets
//! as far as registration, whether its account exists or not; a revoked key gets 535.

use protocol::identifier::Nonce;
use protocol::signature::PublicKey;
use protocol::state::server::{Claim, Outcome, Step};
use protocol::{AddressBuf, Code, Command, Error};

use super::Domain;
use super::answer::Answer;
use super::connection::ConnectionId;
use super::failure::retry;
use super::limits;
use super::rate::network;
use crate::clock::Now;
use crate::event::Event;

impl Domain {
    /// Handles 010, 011 and 012.
    pub(super) fn identity(&mut self, id: ConnectionId, command: &Command<'_>, now: Now) -> Answer {
        self.step(id, command, now).unwrap_or_else(|refusal| refusal)
    }

    fn step(
        &mut self,
        id: ConnectionId,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let mut nonce = [0; Nonce::OCTETS];
        if command.code() == Code::IDENTITY {
            self.count_login(id, now)?;
            (self.random)(&mut nonce);
        }
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(Answer::Later) };
        let exporter = connection.peer.exporter;
        let nonce = Nonce::from_octets(&nonce);
        match connection.handshake.receive(command, nonce, &exporter)? {
            Step::Reply(line) => {
                self.send(id, line.into_bytes());
                Ok(Answer::Later)
            }
            Step::Prove(claim) => {
                let answer = self.prove(id, &claim, now);
                self.close_if_exhausted(id);
                answer
            }
        }
    }

    /// Counts a login for the network that it comes from.
    fn count_login(&mut self, id: ConnectionId, now: Now) -> Result<(), Answer> {
        let Some(connection) = self.connections.get(&id) else { return Ok(()) };
        self.logins.take(network(connection.peer.address), now).map_err(|seconds| {
            self.effects.push(super::Effect::Event(Event::LoginsLimited));
            let count = self.settings.logins_per_minute;
            let text = format!("{count} logins a minute from one network");
            retry(453, seconds, &text)
        })
    }

    fn prove(&mut self, id: ConnectionId, claim: &Claim, now: Now) -> Result<Answer, Answer> {
        let outcome = match claim.verify() {
            Ok(()) => self.outcome_of_proof(&claim.device, &claim.key),
            Err(_) => Ok(Outcome::Refused),
        };
        let told = *outcome.as_ref().unwrap_or(&Outcome::Refused);
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(Answer::Later) };
        let line = connection.handshake.settle(claim, told);
        let outcome = outcome?;
        self.send(id, line.into_bytes());
        match outcome {
            Outcome::Known { .. } => self.logged_in(id, &claim.device, now),
            Outcome::Refused => self.emit(Event::ProofFailed),
            Outcome::Unknown => {}
        }
        Ok(Answer::Later)
    }

    /// What a proof that holds is worth: the directory decides.
    fn outcome_of_proof(
        &mut self,
        device: &AddressBuf,
        key: &PublicKey,
    ) -> Result<Outcome, Answer> {
        let address = device.as_address();
        let name = address.device().unwrap_or_default();
        let Some(account) = self.directory.account(&*self.store, address)? else {
            return Ok(Outcome::Unknown);
        };
        if account.record().device(name).is_none_or(|listed| listed.key != *key) {
            return Ok(Outcome::Unknown);
        }
        if account.device(name).is_none() {
            return Ok(Outcome::Refused);
        }
        let standing = self.post.spool.standing(&*self.store, device)?;
        Ok(Outcome::Known { queue: standing.durable })
    }

    /// Closes a link that has used up its failed proofs and invitations.
    pub(super) fn close_if_exhausted(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.handshake.is_exhausted() || connection.failures >= limits::FAILURES_MAX {
            self.close(id, Answer::text(421, "too many failures on this link"));
        }
    }

    /// The link now speaks as this device. Another link that did so is told and closed.
    pub(super) fn logged_in(&mut self, id: ConnectionId, device: &AddressBuf, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.device = Some(device.clone());
        let before = self.online.insert(device.clone(), id);
        if let Some(before) = before.filter(|before| *before != id) {
            self.log_out(before, "this device logged in on another link", now);
        }
        self.emit(Event::LoggedIn);
        self.device_came(device, now);
    }

    /// Takes a link's proof away and closes it.
    pub(super) fn log_out(&mut self, id: ConnectionId, text: &str, now: Now) {
        let connection = self.connections.get_mut(&id);
        if let Some(device) = connection.and_then(|connection| connection.device.take()) {
            self.leave(id, &device, now);
        }
        self.close(id, Answer::text(421, text));
    }

    /// The device has no link any more, unless another one has taken its place.
    pub(super) fn leave(&mut self, id: ConnectionId, device: &AddressBuf, now: Now) {
        if self.online.get(device) == Some(&id) {
            self.online.remove(device);
            self.device_left(device, now);
        }
    }

    /// The device that sends on this link; refuses a link without proof.
    pub(super) fn proven(&self, id: ConnectionId) -> Result<AddressBuf, Answer> {
        let device = self.connections.get(&id).and_then(|connection| connection.device.clone());
        device.ok_or(Answer::error(Error::LogInFirst))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
