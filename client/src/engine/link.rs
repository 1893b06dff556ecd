//! The link: login, requests under way, their answers, and signs of life.
//!
//! Owns what lasts as long as one connection. The invariant: each request has its own H-ID and is
//! answered at most once; on a dead link every request is forgotten, and what must not be
//! forgotten stands in the state (outbox, prekeys, drafts). Limits: [`limits::REQUESTS_MAX`],
//! [`limits::ANSWER_MS_MAX`].

use std::collections::BTreeMap;

use protocol::capability::Capabilities;
use protocol::command::CommandBuilder;
use protocol::limits::LINE_OCTETS_DEFAULT;
use protocol::proof::ALPN_CLIENT;
use protocol::registration::Admission;
use protocol::reply::{Answer, Assembler};
use protocol::state::client::{Failure, Handshake, Step};
use protocol::{Address, Code, Command, Line, Reply, Timestamp};

use super::{Engine, EngineError, Event, Output};
use crate::limits;
use crate::outbox;

/// What a connection knows.
pub(super) struct Link {
    phase: Phase,
    last_hop_id: u64,
    requests: BTreeMap<u64, Pending>,
    heard_at: Timestamp,
    said_at: Timestamp,
    is_new_account: bool,
    /// The highest queue number when the link came up.
    pub(super) top: u64,
    pub(super) capabilities: Capabilities,
    pub(super) is_caught_up: bool,
    /// Whether the relay said that the replay has begun.
    pub(super) is_resumed: bool,
    /// When a line of the queue last came.
    pub(super) last_queue_line: Timestamp,
    /// Set when queue lines are no longer taken on this link.
    pub(super) is_deaf: bool,
}

enum Phase {
    LoggingIn(Box<Handshake>),
    Ready,
    Failed,
}

struct Pending {
    request: Request,
    assembler: Assembler,
    since: Timestamp,
}

/// What was asked of the relay.
#[derive(Clone, Debug)]
pub(super) enum Request {
    /// 130 for this line of the outbox.
    Choice(u64),
    /// 802: this chunk of this file.
    Chunk(String, u64),
    /// 610 for this account or domain.
    Fetch(String),
    /// A line of the outbox.
    Outbox(u64),
    /// 015.
    Ping,
    /// 920.
    Policy,
    /// 120.
    Presence,
    /// 122 for this account.
    PresenceQuery(String),
    /// 611 of this prekey.
    Publish(String),
    /// 601.
    Record,
    /// 013.
    Resume,
    /// 602.
    Revoke,
    /// 630.
    Roster,
    /// 631 or 636 about this account.
    RosterChange(&'static str, String),
    /// 612 for this account.
    Take(String),
}

impl Request {
    /// The parameter that opens each entry of the answer.
    const fn key(&self) -> Option<&'static str> {
        match self {
            Self::Roster => Some("WHO"),
            Self::Take(_) => Some("DEV"),
            _ => None,
        }
    }
}

/// Hop ids that the login uses up.
const LOGIN_HOP_IDS: u64 = 9;

impl Link {
    pub(super) const fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Whether the login is complete and every request was answered.
    pub(super) fn is_answered(&self) -> bool {
        self.is_ready() && self.requests.is_empty()
    }

    /// Whether something like `is_same` is under way.
    fn has(&self, is_same: impl Fn(&Request) -> bool) -> bool {
        self.requests.values().any(|pending| is_same(&pending.request))
    }
}

impl Engine {
    /// A TLS connection with ALPN `cim1` is up; `exporter` binds the login to it.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn connected(&mut self, exporter: [u8; 32], now: Timestamp) -> Result<(), EngineError> {
        self.disconnected();
        let key = self.identity.signer().public_key().clone();
        let mut own = Capabilities::full(u64::MAX);
        own.suites = protocol::suite::Suites::new(&self.config.suites);
        let device = self.identity.device();
        let handshake = Handshake::new(device, key, ALPN_CLIENT, exporter, own);
        self.link = Some(Link {
            phase: Phase::LoggingIn(Box::new(handshake)),
            last_hop_id: LOGIN_HOP_IDS,
            requests: BTreeMap::new(),
            heard_at: now,
            said_at: now,
            is_new_account: false,
            top: 0,
            capabilities: Capabilities::default(),
            is_caught_up: false,
            is_resumed: false,
            last_queue_line: now,
            is_deaf: false,
        });
        Ok(())
    }

    /// The connection is gone; everything unanswered is sent again on the next. Lines that were
    /// not taken yet by [`Self::take_output`] were for this connection and are dropped.
    pub fn disconnected(&mut self) {
        self.link = None;
        self.output.retain(|output| matches!(output, Output::Event(_)));
        self.outbox.disconnected();
        self.fetches.disconnected();
        self.chunks.disconnected();
    }

    /// Octets of the longest line that may come, CRLF included.
    #[must_use]
    pub fn line_octets_max(&self) -> usize {
        // What this side offers holds from its HELLO on.
        protocol::limits::LINE_OCTETS_MAX
    }

    /// Octets of the longest line that may be sent, CRLF included.
    pub(super) fn sendable_octets_max(&self) -> usize {
        self.link.as_ref().map_or(LINE_OCTETS_DEFAULT, |link| link.capabilities.line_octets_max)
    }

    /// Takes a line from the relay, without its CRLF.
    ///
    /// # Errors
    /// [`EngineError`]: the engine itself failed. A line that is wrong is an event, no error.
    pub fn line_received(&mut self, line: &[u8], now: Timestamp) -> Result<(), EngineError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        link.heard_at = now;
        let line = match Line::parse(line) {
            Ok(line) => line,
            Err(error) => {
                self.tell(Event::Strange { what: format!("a line that is none: {error}") });
                return Ok(());
            }
        };
        match line {
            Line::Reply(reply) => self.reply_received(&reply, now),
            Line::Command(command) if command.code() == Code::PING => {
                self.pong(&command);
                Ok(())
            }
            Line::Command(command) if self.is_online() => self.command_received(&command, now),
            Line::Command(_) => Ok(()),
        }
    }

    fn reply_received(&mut self, reply: &Reply<'_>, now: Timestamp) -> Result<(), EngineError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        if let Phase::LoggingIn(handshake) = &mut link.phase {
            let step = handshake.receive(reply);
            return self.advance_login(step, now);
        }
        let hop_id = reply.parameters().number("H-ID").ok().flatten();
        let Some((hop_id, pending)) =
            hop_id.and_then(|id| link.requests.get_mut(&id).map(|pending| (id, pending)))
        else {
            return self.unasked_reply(reply);
        };
        match pending.assembler.push(reply) {
            Ok(None) => Ok(()),
            Ok(Some(answer)) => {
                let Some(pending) = link.requests.remove(&hop_id) else { return Ok(()) };
                self.answered(pending.request, &answer, now)
            }
            Err(error) => {
                link.requests.remove(&hop_id);
                self.tell(Event::Strange { what: format!("an answer that is none: {error}") });
                self.disconnect("the relay's answer cannot be read");
                Ok(())
            }
        }
    }

    fn unasked_reply(&mut self, reply: &Reply<'_>) -> Result<(), EngineError> {
        match reply.code().number() {
            421 => self.disconnect("the relay closes the link"),
            220 | 221 | 250 => {}
            code => {
                let what = format!("an answer that nothing asked for: {code}");
                self.tell(Event::Strange { what });
            }
        }
        Ok(())
    }

    fn advance_login(
        &mut self,
        step: Result<Step, Failure>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        match step {
            Ok(Step::Wait) => {}
            Ok(Step::Send(line)) => self.send_line(&line, now),
            Ok(Step::Sign(octets)) => {
                let signature = self.identity.signer().sign(&octets);
                let signature = signature.map_err(protocol::Error::from)?;
                let signed = self.handshake(|handshake| handshake.signed(&signature));
                self.login_line(signed, now);
            }
            Ok(Step::Register) => self.register_now(now)?,
            Ok(Step::Ready { queue }) => self.logged_in(queue, now)?,
            Err(failure) => self.login_failed(failure),
        }
        Ok(())
    }

    /// Sends 600 if there is an invitation, else gives up.
    fn register_now(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let Some((invitation, record)) = self.registration()? else {
            self.login_failed(Failure::Refused {
                code: 550,
                text: "the relay does not know this account, and there is no invitation".into(),
            });
            return Ok(());
        };
        if let Some(link) = &mut self.link {
            link.is_new_account = true;
        }
        let admission = Admission::Invitation(invitation.into());
        let line = self.handshake(|handshake| handshake.register(&admission, &record));
        self.login_line(line, now);
        Ok(())
    }

    fn handshake(
        &mut self,
        act: impl FnOnce(&mut Handshake) -> Result<String, Failure>,
    ) -> Result<String, Failure> {
        match self.link.as_mut().map(|link| &mut link.phase) {
            Some(Phase::LoggingIn(handshake)) => act(handshake),
            _ => Err(Failure::Misuse),
        }
    }

    fn login_line(&mut self, line: Result<String, Failure>, now: Timestamp) {
        match line {
            Ok(line) => self.send_line(&line, now),
            Err(failure) => self.login_failed(failure),
        }
    }

    fn login_failed(&mut self, failure: Failure) {
        if let Some(link) = &mut self.link {
            link.phase = Phase::Failed;
        }
        let event = match failure {
            Failure::Refused { code, text } => Event::LoginFailed { code, text },
            failure => Event::LoginFailed { code: 0, text: failure.to_string() },
        };
        self.tell(event);
        self.disconnect("the login failed");
    }

    fn logged_in(&mut self, top: u64, now: Timestamp) -> Result<(), EngineError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        if let Phase::LoggingIn(handshake) = &link.phase {
            link.capabilities = handshake.capabilities();
        }
        link.phase = Phase::Ready;
        link.top = top;
        let is_new_account = link.is_new_account;
        self.registered()?;
        self.tell(Event::Online { is_new_account });
        let from = self.queue.connect(top);
        let resume = Command::builder(Code::RESUME).parameter("H-Q", from);
        self.request(Request::Resume, resume, now);
        self.fetch_own(now);
        self.keep_prekeys(now)?;
        self.publish_prekeys(now)?;
        self.fetch_roster(now)?;
        self.announce_presence(now)?;
        self.retry_all_parked(now)?;
        self.ask_missing_chunks(true, now)?;
        self.flush(now)?;
        self.pump_all(now)
    }

    /// Asks something of the relay; nothing happens while the link is down.
    pub(super) fn request(&mut self, request: Request, line: CommandBuilder, now: Timestamp) {
        let Some(hop_id) = self.expect(request, now) else { return };
        self.send_line(&line.parameter("H-ID", hop_id).finish(), now);
    }

    /// Sends a line that ends in slots; H-ID is put in its place.
    pub(super) fn request_line(
        &mut self,
        request: Request,
        line: &str,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Some(hop_id) = self.expect(request, now) else { return Ok(()) };
        let octets = outbox::with_hop_id(line, hop_id)?;
        self.output.push_back(Output::Send(octets));
        Ok(())
    }

    pub(super) fn expect(&mut self, request: Request, now: Timestamp) -> Option<u64> {
        let link = self.link.as_mut().filter(|link| link.is_ready())?;
        if link.requests.len() >= limits::REQUESTS_MAX {
            self.disconnect("the relay leaves too much unanswered");
            return None;
        }
        link.last_hop_id += 1;
        link.said_at = now;
        let assembler = Assembler::new(request.key());
        link.requests.insert(link.last_hop_id, Pending { request, assembler, since: now });
        Some(link.last_hop_id)
    }

    /// Whether something like `is_same` was asked and not yet answered.
    pub(super) fn is_asked(&self, is_same: impl Fn(&Request) -> bool) -> bool {
        self.link.as_ref().is_some_and(|link| link.has(is_same))
    }

    /// Sends a line as it is.
    pub(super) fn send_line(&mut self, line: &str, now: Timestamp) {
        if let Some(link) = &mut self.link {
            link.said_at = now;
        }
        let mut octets = Vec::with_capacity(line.len() + 2);
        octets.extend_from_slice(line.as_bytes());
        octets.extend_from_slice(b"\r\n");
        self.output.push_back(Output::Send(octets));
    }

    fn pong(&mut self, command: &Command<'_>) {
        let reply = protocol::ReplyBuilder::last(250)
            .parameter_if("H-ID", command.parameter("H-ID"))
            .text("here");
        self.output.push_back(Output::Send(reply.into_bytes()));
    }

    pub(super) fn disconnect(&mut self, why: &'static str) {
        self.output.push_back(Output::Disconnect(why));
    }

    /// Pings a silent link and gives up a dead one.
    pub(super) fn watch_link(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        if now < link.heard_at {
            // The clock was set back: count from here.
            link.heard_at = now;
            link.requests.values_mut().for_each(|pending| pending.since = now);
        }
        let is_stuck = link
            .requests
            .values()
            .any(|pending| now.ms_since(pending.since) >= limits::ANSWER_MS_MAX);
        let silence = now.ms_since(link.heard_at);
        let is_silent = silence >= limits::PING_AFTER_MS + limits::ANSWER_MS_MAX;
        if is_stuck || is_silent {
            self.disconnect("the relay does not answer");
            return Ok(());
        }
        if silence >= limits::PING_AFTER_MS && !self.is_asked(|r| matches!(r, Request::Ping)) {
            self.request(Request::Ping, Command::builder(Code::PING), now);
        }
        self.flush(now)
    }

    /// Sends what is due of the outbox.
    pub(super) fn flush(&mut self, now: Timestamp) -> Result<(), EngineError> {
        if !self.is_online() {
            return Ok(());
        }
        for number in self.outbox.take_due(now) {
            self.chunks.line_left();
            let Some(line) = self.outbox.get(number).map(|item| item.line.clone()) else {
                continue;
            };
            let chosen = self.outbox.get(number).filter(|item| item.is_chosen);
            match chosen.and_then(|item| item.choice.clone()) {
                Some(via) => self.send_choice(number, &via, now)?,
                None => self.request_line(Request::Outbox(number), &line, now)?,
            }
        }
        Ok(())
    }

    /// Does what the answer to a request asks for.
    fn answered(
        &mut self,
        request: Request,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        match request {
            Request::Choice(number) => self.choice_answered(number, answer, now)?,
            Request::Chunk(fid, number) => self.chunk_answered(&fid, number, answer, now)?,
            Request::Fetch(account) => self.record_fetched(&account, answer, now)?,
            Request::Outbox(number) => self.line_answered(number, answer, now)?,
            Request::Ping => {}
            Request::Policy => self.policy_fetched(answer, now)?,
            Request::Presence => self.told("presence", None, answer),
            Request::PresenceQuery(account) => self.presence_fetched(&account, answer)?,
            Request::Publish(name) => self.prekey_answered(&name, answer, now)?,
            Request::Record => self.record_answered(answer, now)?,
            Request::Resume => self.resumed(now)?,
            Request::Revoke => self.told("revoke", None, answer),
            Request::Roster => self.roster_fetched(answer)?,
            Request::RosterChange(what, account) => {
                let contact = Address::parse(&account)?.to_buf();
                self.told(what, Some(contact), answer);
            }
            Request::Take(account) => self.prekeys_taken(&account, answer, now)?,
        }
        self.flush(now)
    }

    /// Tells the driver how a command ended.
    pub(super) fn told(
        &mut self,
        what: &'static str,
        contact: Option<protocol::AddressBuf>,
        answer: &Answer,
    ) {
        let code = answer.code.number();
        let event = if code < 400 {
            Event::Done { what, contact }
        } else {
            Event::Refused { what, contact, code, text: answer.text.clone() }
        };
        self.tell(event);
    }

    fn resumed(&mut self, now: Timestamp) -> Result<(), EngineError> {
        if let Some(link) = &mut self.link {
            link.is_resumed = true;
            link.last_queue_line = now;
        }
        self.check_caught_up(now)
    }
}
