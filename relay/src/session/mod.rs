//! What the relay does for its domain: a deterministic state machine over lines and commits.
//!
//! [`Domain`] receives `(connection, octets, now)` and outcomes of commits, and answers with
//! [`Effect`]s; it has no sockets, clock, threads or randomness of its own, so that a failing run
//! can be replayed. One file per command family holds the policy of that family; a line's way is
//! [`Domain::received`] → `dispatch` → family → [`Domain::commit`] → reply. A reply that promises
//! something is written in the continuation of a commit, never before it. Limits: [`limits`].

mod answer;
mod choice;
mod connection;
mod delivery;
mod disposal;
mod download;
mod failure;
mod file;
mod hello;
mod identity;
pub mod limits;
mod message;
mod offer;
pub mod operator;
mod policy;
mod post;
mod prekey;
mod presence;
mod queue;
mod rate;
mod recipient;
mod record;
mod registration;
mod revocation;
mod roster;
mod settings;
pub mod signing;
mod stop;
mod sweep;
mod tick;
mod typing;
mod upload;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod dialogue;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod ledger;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod simulation;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use protocol::proof::ALPN_CLIENT;
use protocol::state::server::Handshake;
use protocol::table::check;
use protocol::{Address, AddressBuf, Code, Command, Line};

pub use answer::Answer;
pub use connection::{ConnectionId, Peer};
pub use hello::crowded;
pub use post::PostCounts;
pub use settings::Settings;

use crate::clock::Now;
use crate::directory::{Directory, Prekeys};
use crate::event::Event;
use crate::keys::{KeyError, SigningKeyName};
use crate::presence::Presences;
use crate::roster::Rosters;
use crate::store::{CommitToken, Cursor, Operation, Outcome, Store};
use connection::Connection;
use failure::Handler;
use file::chunk_not_passed;
use operator::OperatorReply;
use post::{Fetch, Post};
use rate::Rate;

/// What the outside has to do for the state machine.
#[derive(Debug)]
pub enum Effect {
    /// Close the connection once everything sent before is out.
    Close(ConnectionId),
    /// Count and, by its level, log what happened.
    Event(Event),
    /// What an operator asked for; see [`operator`].
    Operated(Ticket, OperatorReply),
    /// Put these octets (whole lines) into the connection's outbox.
    Send(ConnectionId, Vec<u8>),
    /// Let a key of the token sign; the answer goes to [`Domain::signed`].
    Sign(Ticket, SigningKeyName, Vec<u8>),
}

/// The name of work done outside, such as a signature; comes back with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What happens when a commit has an outcome.
type AfterCommit = Box<dyn FnOnce(&mut Domain, Outcome, Now)>;
/// What happens when the token has signed or refused to.
type AfterSigning = Box<dyn FnOnce(&mut Domain, Result<Vec<u8>, KeyError>, Now)>;

/// Fills a buffer with unpredictable octets.
pub type Random = Box<dyn FnMut(&mut [u8])>;

/// Everything one relay knows and does for its domain.
pub struct Domain {
    settings: Settings,
    store: Box<dyn Store>,
    connections: HashMap<ConnectionId, Connection>,
    /// The connection of each device that has proven itself.
    online: HashMap<AddressBuf, ConnectionId>,
    directory: Directory,
    post: Post,
    prekeys: Prekeys,
    presences: Presences,
    rosters: Rosters,
    /// 011 lines, by network.
    logins: Rate<IpAddr>,
    /// Subscription requests, by account.
    requests: Rate<AddressBuf>,
    /// One-time prekeys handed out, by asking and asked account.
    takes: Rate<(AddressBuf, AddressBuf)>,
    /// When rates and the like were swept last.
    swept_at: Duration,
    /// Where the sweep of invitations goes on.
    invitations_swept: Option<Cursor>,
    is_stopping: bool,
    commits: HashMap<CommitToken, AfterCommit>,
    signatures: HashMap<Ticket, AfterSigning>,
    last_token: u64,
    last_ticket: u64,
    random: Random,
    effects: Vec<Effect>,
}

impl Domain {
    /// A domain over `store`. `random` fills a buffer with unpredictable octets. Where the store
    /// holds a signed policy, that goes before what `settings` say of the same things.
    #[must_use]
    pub fn new(settings: Settings, store: Box<dyn Store>, random: Random) -> Self {
        let settings = settings.under_policy_of(&*store);
        Self {
            post: Post::new(&settings),
            logins: Rate::new(
                settings.logins_per_minute,
                Duration::from_secs(60),
                limits::NETWORKS_COUNTED_MAX,
            ),
            settings,
            store,
            connections: HashMap::new(),
            online: HashMap::new(),
            directory: Directory::new(),
            prekeys: Prekeys::new(),
            presences: Presences::new(),
            rosters: Rosters::new(),
            requests: Rate::new(
                limits::REQUESTS_PER_HOUR,
                Duration::from_secs(3_600),
                limits::REQUESTERS_COUNTED_MAX,
            ),
            takes: Rate::new(
                limits::PREKEYS_TAKEN_PER_HOUR,
                Duration::from_secs(3_600),
                limits::PREKEY_PAIRS_COUNTED_MAX,
            ),
            swept_at: Duration::ZERO,
            invitations_swept: None,
            is_stopping: false,
            commits: HashMap::new(),
            signatures: HashMap::new(),
            last_token: 0,
            last_ticket: 0,
            random,
            effects: Vec::new(),
        }
    }

    /// A TLS connection is ready; greets it.
    pub fn opened(&mut self, id: ConnectionId, peer: Peer, now: Now) {
        // The settings were validated; a domain that is none gets links that nobody can log in on.
        let domain = Address::parse(&self.settings.domain);
        let Ok(domain) = domain else { return self.effects.push(Effect::Close(id)) };
        let handshake = Handshake::new(domain, ALPN_CLIENT, self.settings.capabilities());
        let greeting = handshake.greeting();
        self.connections.insert(id, Connection::new(peer, handshake, &self.settings, now));
        self.send(id, greeting.into_bytes());
        if self.is_stopping {
            self.close(id, Answer::text(421, "the relay stops"));
        }
    }

    /// Octets arrived, cut anywhere.
    pub fn received(&mut self, id: ConnectionId, octets: &[u8], now: Now) {
        // The buffer leaves the connection while its lines are handled, so that a line can
        // borrow from it.
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.is_closing || self.is_stopping {
            return;
        }
        let mut lines = std::mem::take(&mut connection.lines);
        lines.push(octets);
        let mut is_heard = false;
        while let Some(line) = lines.next_line() {
            is_heard = true;
            match line.and_then(Line::parse) {
                Ok(Line::Command(command)) => self.dispatch(id, &command, now),
                Ok(Line::Reply(_)) => self.emit(Event::ReplyIgnored),
                Err(error) => self.refuse_line(id, error),
            }
            let is_over = |connection: &Connection| connection.is_closing;
            if self.is_stopping || self.connections.get(&id).is_none_or(is_over) {
                return;
            }
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.lines = lines;
            // Octets of a line that does not end are no sign of life.
            if is_heard {
                connection.heard_at = now;
            }
        }
    }

    /// The connection is gone.
    pub fn closed(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.remove(&id) else { return };
        for chunk in connection.post.chunks {
            self.post.waiting_octets -= chunk.line.len();
            self.reply_for_chunk(chunk.caller.as_ref(), chunk_not_passed());
        }
        if let Some(device) = connection.device {
            self.leave(id, &device, now);
        }
    }

    /// The connection's outbox now holds `pending_octets`. To be told when the effects taken
    /// before are carried out: what is still on its way to the outbox is not counted.
    pub fn flushed(&mut self, id: ConnectionId, pending_octets: usize, _now: Now) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.outbox_octets = pending_octets;
            if connection.is_half_empty() {
                self.pump(id);
            }
        }
    }

    /// Whether something waits for room in the outbox of a connection: the outside then calls
    /// [`Domain::flushed`] as soon as there is some.
    #[must_use]
    pub fn awaits_room(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|connection| {
            let is_behind = connection.post.feed.as_ref().is_some_and(|feed| feed.is_behind);
            let has_kept = connection.post.fetches.iter().any(Fetch::has_chunk);
            let has_chunks = connection.has_chunk_pending() || !connection.post.chunks.is_empty();
            is_behind || has_chunks || has_kept
        })
    }

    /// Takes the outcomes that the store has ready and does what waited for them.
    pub fn committed(&mut self, now: Now) {
        let mut outcomes = Vec::new();
        self.store.completions(&mut outcomes);
        for (token, outcome) in outcomes {
            match outcome {
                Outcome::Unknown => self.post.is_doubtful = true,
                Outcome::Conflict { .. } | Outcome::Durable if self.post.is_doubtful => {
                    self.end_doubt();
                }
                _ => {}
            }
            if let Some(then) = self.commits.remove(&token) {
                then(self, outcome, now);
            }
        }
        self.stop_if_settled();
    }

    /// The token answered what [`Effect::Sign`] asked.
    pub fn signed(&mut self, ticket: Ticket, result: Result<Vec<u8>, KeyError>, now: Now) {
        if let Some(then) = self.signatures.remove(&ticket) {
            then(self, result, now);
        }
        self.stop_if_settled();
    }

    /// What there is to do outside, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Sends a command to the file of its family.
    fn dispatch(&mut self, id: ConnectionId, command: &Command<'_>, now: Now) {
        let answer = match self.permit(id, command) {
            Ok(()) => self.handle(id, command, now),
            Err(error) => {
                self.emit(Event::LineRefused { code: error.reply_code() });
                Answer::error(error)
            }
        };
        self.answer(id, command.parameter("H-ID"), answer);
    }

    /// Checks a line against the table of commands. The steps of a login are checked where they
    /// are taken.
    fn permit(&self, id: ConnectionId, command: &Command<'_>) -> Result<(), protocol::Error> {
        let Some(connection) = self.connections.get(&id) else { return Ok(()) };
        if matches!(command.code(), Code::HELLO | Code::IDENTITY | Code::PROOF) {
            return Ok(());
        }
        check(command, &connection.handshake.link()).map(|_| ())
    }

    /// Hands a line that this link may send to its family.
    fn handle(&mut self, id: ConnectionId, command: &Command<'_>, now: Now) -> Answer {
        let handler: Handler = match command.code() {
            Code::HELLO | Code::IDENTITY | Code::PROOF => return self.identity(id, command, now),
            Code::PING | Code::QUIT => return self.hello(id, command),
            Code::RESUME | Code::ACKNOWLEDGE => return self.queue(id, command, now),
            Code::TYPING | Code::TYPING_STOPPED => return self.typing(id, command),
            Code::CHOICE => return self.choose(id, command, now),
            code if (100..=105).contains(&code.number()) => return self.message(id, command, now),
            code if (700..=703).contains(&code.number()) => return self.offer(id, command, now),
            code if (800..=806).contains(&code.number()) => return self.file(id, command, now),
            Code::PRESENCE_SET => Self::set_presence,
            Code::PRESENCE_QUERY => Self::ask_presence,
            Code::REGISTER => Self::register,
            Code::RECORD => Self::publish,
            Code::REVOKE => Self::revoke,
            Code::RECORD_FETCH => Self::fetch_record,
            Code::PREKEYS => Self::publish_prekey,
            Code::PREKEYS_TAKE => Self::take_prekeys,
            Code::ROSTER_GET => Self::fetch_roster,
            Code::ROSTER_SET => Self::set_contact,
            Code::SUBSCRIBE => Self::subscribe,
            Code::APPROVE => Self::approve,
            Code::DENY => Self::deny,
            Code::BLOCK => Self::block,
            Code::POLICY => Self::fetch_policy,
            _ => return Answer::text(502, "unknown command"),
        };
        self.run(handler, id, command, now)
    }

    /// Writes `answer` to the connection; [`Answer::Later`] writes nothing.
    fn answer(&mut self, id: ConnectionId, hop_id: Option<&str>, answer: Answer) {
        let Some(connection) = self.connections.get(&id) else { return };
        if let Some(lines) = answer.to_lines(hop_id, connection.line_octets_max()) {
            self.send(id, lines.concat().into_bytes());
        }
    }

    fn refuse_line(&mut self, id: ConnectionId, error: protocol::Error) {
        self.emit(Event::LineRefused { code: error.reply_code() });
        self.answer(id, None, Answer::text(error.reply_code(), error.text()));
    }

    /// Commits `operations` and goes on with `then` once the outcome is known.
    fn commit(
        &mut self,
        operations: Vec<Operation>,
        now: Now,
        then: impl FnOnce(&mut Self, Outcome, Now) + 'static,
    ) {
        self.last_token += 1;
        let token = CommitToken(self.last_token);
        match self.store.submit(token, operations) {
            Ok(()) => {
                self.commits.insert(token, Box::new(then));
            }
            Err(error) => then(self, Outcome::Refused(error), now),
        }
    }

    /// Has a key of the token sign `message` and goes on with `then`.
    fn sign(
        &mut self,
        key: SigningKeyName,
        message: Vec<u8>,
        then: impl FnOnce(&mut Self, Result<Vec<u8>, KeyError>, Now) + 'static,
    ) {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.signatures.insert(ticket, Box::new(then));
        self.effects.push(Effect::Sign(ticket, key, message));
    }

    /// Puts whole lines into the outbox of a connection.
    fn send(&mut self, id: ConnectionId, octets: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.is_closing {
            return;
        }
        if connection.outbox_octets + octets.len() > limits::OUTBOX_OCTETS_CLOSE {
            connection.is_closing = true;
            let goodbye = format!("421 :{} octets wait unread\r\n", connection.outbox_octets);
            self.effects.push(Effect::Send(id, goodbye.into_bytes()));
            self.effects.push(Effect::Close(id));
            return self.emit(Event::OutboxOverflowed);
        }
        connection.outbox_octets += octets.len();
        connection.post.given_octets += octets.len() as u64;
        self.effects.push(Effect::Send(id, octets));
    }

    /// Says goodbye with `answer` and closes once it is out.
    fn close(&mut self, id: ConnectionId, answer: Answer) {
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.is_closing {
            return;
        }
        self.answer(id, None, answer);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_closing = true;
            self.effects.push(Effect::Close(id));
        }
    }

    fn emit(&mut self, event: Event) {
        self.effects.push(Effect::Event(event));
    }
}
