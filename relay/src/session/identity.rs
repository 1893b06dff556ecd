//! 011 and 012: identity, public key and the proof of it, bound to this very link (SPEC.md §5).
//!
//! Nothing is looked up before the proof holds, so 011 answers an unknown user as a known one. A
//! nonce serves one proof. A key that no record lists gets as far as registration, whether its
//! account exists or not; a revoked key gets 535.

use protocol::identifier::Nonce;
use protocol::proof::{ALPN_CLIENT, Proof};
use protocol::signature::{Algorithm, PublicKey};
use protocol::{AddressBuf, Code, Command, Error};

use super::Domain;
use super::answer::{Answer, AnswerLine};
use super::connection::{ConnectionId, State};
use super::failure::retry;
use super::limits;
use super::rate::network;
use crate::clock::Now;
use crate::event::Event;

/// What 334 asked for.
#[derive(Clone, Debug)]
pub(super) struct Challenge {
    nonce: Nonce,
    candidate: Candidate,
}

/// Who a link says it is, and with which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) device: AddressBuf,
    pub(super) key: PublicKey,
}

impl Domain {
    /// Handles 011 and 012.
    pub(super) fn identity(&mut self, id: ConnectionId, command: &Command<'_>, now: Now) -> Answer {
        let answer = match command.code() {
            Code::IDENTITY => self.challenge(id, command, now),
            _ => self.prove(id, command, now),
        };
        answer.unwrap_or_else(|refusal| refusal)
    }

    fn challenge(
        &mut self,
        id: ConnectionId,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let candidate = read_candidate(command)?;
        let mut nonce = [0; Nonce::OCTETS];
        (self.random)(&mut nonce);
        let nonce = Nonce::from_octets(&nonce);
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(Answer::Later) };
        if !matches!(connection.state, State::Greeted | State::Challenged) {
            return Err(Answer::error(Error::Order));
        }
        if connection.hello_from.as_ref() != Some(&candidate.device) {
            return Err(Answer::error(Error::NotYours));
        }
        if let Err(seconds) = self.logins.take(network(connection.peer.address), now) {
            self.effects.push(super::Effect::Event(Event::LoginsLimited));
            let text = format!("{} logins a minute from one network", limits::LOGINS_PER_MINUTE);
            return Err(retry(450, seconds, &text));
        }
        connection.state = State::Challenged;
        connection.challenge = Some(Challenge { nonce, candidate });
        Ok(AnswerLine::new(334, "prove it").with("NONCE", nonce).into())
    }

    fn prove(
        &mut self,
        id: ConnectionId,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(Answer::Later) };
        let Some(Challenge { nonce, candidate }) = connection.challenge.take() else {
            return Err(Answer::error(Error::Order));
        };
        connection.state = State::Greeted;
        let proof = Proof {
            exporter: &connection.peer.exporter,
            nonce: nonce.as_str(),
            alpn: ALPN_CLIENT,
            server_domain: &self.settings.domain,
            address: candidate.device.as_address(),
            key: &candidate.key,
        };
        let is_from_candidate = command.from() == Some(candidate.device.as_address());
        let signature = command.signature();
        if !is_from_candidate || candidate.key.verify(&proof.octets(), &signature).is_err() {
            return Ok(self.proof_failed(id, command));
        }
        let device = candidate.device.as_address();
        let account = self.directory.account(&*self.store, device)?;
        if let Some(account) = account {
            let name = device.device().unwrap_or_default();
            let listed = account.record().device(name).filter(|found| found.key == candidate.key);
            if listed.is_some() && account.device(name).is_none() {
                return Ok(self.proof_failed(id, command));
            }
            if listed.is_some() {
                self.log_in(id, candidate, now);
                return self.welcome(id, "welcome");
            }
        }
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(Answer::Later) };
        connection.state = State::Registering;
        connection.candidate = Some(candidate);
        Ok(Answer::text(250, "no record lists this key: register"))
    }

    /// Answers a failed proof, and closes the link after the last one allowed.
    fn proof_failed(&mut self, id: ConnectionId, command: &Command<'_>) -> Answer {
        self.emit(Event::ProofFailed);
        let answer = Answer::text(535, "the proof does not hold, or the key was revoked");
        if self.count_failure(id) {
            self.answer(id, command.parameter("H-ID"), answer);
            self.close(id, Answer::text(421, "too many failures on this link"));
            return Answer::Later;
        }
        answer
    }

    /// Counts a failed proof or invitation; whether it was the last one allowed.
    pub(super) fn count_failure(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        connection.failures += 1;
        connection.failures >= limits::FAILURES_MAX
    }

    /// The link now speaks as this device. Another link that did so is told and closed.
    pub(super) fn log_in(&mut self, id: ConnectionId, candidate: Candidate, _now: Now) {
        let Candidate { device, key } = candidate;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.state = State::Proven;
        connection.device = Some(device.clone());
        connection.key = Some(key);
        connection.candidate = None;
        let before = self.online.insert(device.clone(), id);
        if let Some(before) = before.filter(|before| *before != id) {
            self.log_out(before, "this device logged in on another link");
        }
        self.emit(Event::LoggedIn);
    }

    /// Takes a link's proof away and closes it.
    pub(super) fn log_out(&mut self, id: ConnectionId, text: &str) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.device = None;
            connection.state = State::Greeted;
        }
        self.close(id, Answer::text(421, text));
    }

    /// The answer that ends a login: the highest number in the device's queue.
    pub(super) fn welcome(&mut self, id: ConnectionId, text: &str) -> Result<Answer, Answer> {
        let device = self.proven(id)?;
        let number = self.post.spool.standing(&*self.store, &device)?.durable;
        Ok(AnswerLine::new(250, text).with("H-Q", number).into())
    }
}

/// Reads what 011 says.
fn read_candidate(command: &Command<'_>) -> Result<Candidate, Answer> {
    let device = command.from().filter(|from| from.is_device()).ok_or(Error::BadAddress)?;
    let algorithm: Algorithm = command.need("ALG")?;
    let key = PublicKey::parse(algorithm, &command.body()).map_err(Error::from)?;
    Ok(Candidate { device: device.to_buf(), key })
}
