//! The engine: everything a device does between its relay and its user, without I/O.
//!
//! # How to drive it
//!
//! ```text
//! let mut engine = Engine::open(state, identity, holder, config, pin)?;
//! loop {
//!     // 1. Do what it says, in order. take_output() first makes everything durable.
//!     for output in engine.take_output()? {
//!         match output {
//!             Output::Send(line) => /* write to the link; CRLF is included */,
//!             Output::Event(event) => /* tell the user */,
//!             Output::Disconnect(why) => /* close; call disconnected(); connect again later */,
//!         }
//!     }
//!     // 2. When the link has nothing left to write: one chunk of a file, if any waits.
//!     //    Calling it only then keeps chat lines ahead of chunks.
//!     if let Some(line) = engine.next_chunk(now)? { /* write it */ }
//!     // 3. Wait for one of these, then go on at 1:
//!     //    a connection is up       engine.connected(exporter, now)?
//!     //    it is gone               engine.disconnected()
//!     //    a line came (no CRLF)    engine.line_received(line, now)?
//!     //    time passed              engine.tick(now)?  at least every second
//!     //    the user wants something engine.send_text(...)? and the other commands
//! }
//! ```
//!
//! `exporter` is 32 octets of the TLS exporter (label `EXPORTER-cipherim-identity`, empty context);
//! the ALPN must be `cim1`. Lines are cut with [`protocol::LineBuffer`] of
//! [`Engine::line_octets_max`]. `now` is the wall clock in milliseconds since 1970; it may jump.
//! Several inputs may be given before one `take_output`: they become durable together.
//!
//! # What is promised
//!
//! - *Persist before showing, show before acknowledging.* A [`Notice`] is durable before
//!   `take_output` returns it. Show it, then call [`Engine::shown`]: only then may the relay free
//!   its line. After a crash every notice not confirmed is told again under the same
//!   [`NoticeId`], marked `is_repeated`. A driver whose screen remembers ids (a transcript file)
//!   shows each exactly once; others mark a repeated one as "perhaps seen before".
//! - *A line is written down before it is sent*, and sent again octet for octet until the relay
//!   answers for it.
//! - *After an error* of [`Engine::take_output`] nothing since the last success happened; drop the
//!   engine and open it again. Other errors leave it usable.
//!
//! # Where things are
//!
//! One file per concern: `link` (login, requests, signs of life), `answer` (replies to lines of
//! the outbox), `account` (own record, prekeys), `contact` (others' records, roster, presence),
//! `inbound` (lines for this device), `offering` (700–702 from others), `ending` (703), `talk`
//! (sealed lines), `compose` (texts from the user), `pump` (texts on their way out), `propose`
//! (new keys), `transfer`, `fate` and `receive` (files). What they work on stands in the modules of
//! this crate with the same nouns. Invariants and limits are theirs.

mod account;
mod answer;
mod compose;
mod config;
mod contact;
mod ending;
mod event;
mod fate;
mod inbound;
mod link;
mod offering;
mod propose;
mod pump;
mod receive;
mod talk;
mod transfer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::{Address, AddressBuf, Timestamp};
use serde::{Deserialize, Serialize};

pub use config::Config;
pub use event::{
    Event, FileOffered, FileSent, FileStage, Message, Notice, NoticeId, Output, RosterEntry, Status,
};

use crate::directory::DirectoryError;
use crate::identity::Identity;
use crate::limits;
use crate::outbox::Outbox;
use crate::prekey::PrekeyError;
use crate::queue::Queue;
use crate::session::{self, SessionError};
use crate::state::{Space, State, StateError};
use crate::suite::KeyHolder;
use contact::Fetches;
use link::Link;

/// Why the engine did not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Misbehaved: a record or policy.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Resource: as many texts or lines wait as may.
    #[error("too much is waiting to be sent")]
    Full,
    /// Misuse: the engine is not in a state for it; the text says why.
    #[error("{0}")]
    Misuse(&'static str),
    /// Malformed: an address, or what a signer gave back.
    #[error(transparent)]
    Protocol(#[from] protocol::Error),
    /// Sessions.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// The text is longer than [`limits::PARTS_MAX`] lines.
    #[error("the text is too long")]
    TooLong,
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] crate::file::FileError),
}

impl From<PrekeyError> for EngineError {
    fn from(error: PrekeyError) -> Self {
        Self::Session(error.into())
    }
}

impl From<crate::random::NoRandom> for EngineError {
    fn from(error: crate::random::NoRandom) -> Self {
        Self::Session(error.into())
    }
}

/// One device of one account.
pub struct Engine {
    state: State,
    identity: Identity,
    holder: Box<dyn KeyHolder + Send>,
    config: Config,
    /// SHA-256 of the domain's identity key, if an invitation named it.
    pin: Option<[u8; 32]>,
    queue: Queue,
    outbox: Outbox,
    link: Option<Link>,
    fetches: Fetches,
    drafts: compose::Drafts,
    /// Accounts with something to be sealed or offered.
    to_pump: BTreeSet<String>,
    /// Accounts with something that could not be done yet: looked at again as time passes.
    unfinished: BTreeSet<String>,
    /// Failures in a row of sessions with an account.
    refusals: BTreeMap<String, u32>,
    chunks: transfer::Lane,
    receiving: receive::Receiving,
    has_remains: bool,
    output: VecDeque<Output>,
    /// Notices told and not confirmed.
    unconfirmed: u64,
    last_notice: u64,
    last_expiry: u64,
    last_forgetting: u64,
    /// Offers that a test lets this engine refuse.
    #[cfg(test)]
    refuses_offers: u32,
}

/// A notice that was not confirmed yet.
#[derive(Serialize, Deserialize)]
struct Unshown {
    /// The line in the relay's queue that it came from.
    queue: Option<u64>,
    /// Whether a driver that shows notices was told.
    #[serde(default = "is_so")]
    is_told: bool,
    notice: Notice,
}

/// What rows say that were written before there was a field for it.
fn is_so() -> bool {
    true
}

impl Engine {
    /// Opens the engine over its state. Notices that were not confirmed before are told again.
    ///
    /// `pin` is the SHA-256 of the domain's identity key, from the invitation.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn open(
        state: State,
        identity: Identity,
        holder: Box<dyn KeyHolder + Send>,
        config: Config,
        pin: Option<[u8; 32]>,
    ) -> Result<Self, EngineError> {
        let mut engine = Self {
            queue: Queue::load(&state)?,
            outbox: Outbox::load(&state)?,
            state,
            identity,
            holder,
            config,
            pin,
            link: None,
            fetches: Fetches::default(),
            drafts: compose::Drafts::default(),
            to_pump: BTreeSet::new(),
            unfinished: BTreeSet::new(),
            refusals: BTreeMap::new(),
            chunks: transfer::Lane::default(),
            receiving: receive::Receiving::default(),
            has_remains: false,
            output: VecDeque::new(),
            unconfirmed: 0,
            last_notice: 0,
            last_expiry: 0,
            last_forgetting: 0,
            #[cfg(test)]
            refuses_offers: 0,
        };
        engine.restore()?;
        Ok(engine)
    }

    /// Takes up what was left when the program ended.
    fn restore(&mut self) -> Result<(), EngineError> {
        let engine = self;
        engine.restore_identity()?;
        for (name, mut unshown) in engine.state.list::<Unshown>(Space::Inbox)? {
            let id = name.parse().map_err(|_| StateError::Damaged(Space::Inbox))?;
            engine.last_notice = engine.last_notice.max(id);
            engine.unconfirmed += 1;
            engine.output.push_back(Output::Event(Event::Notice {
                id: NoticeId(id),
                is_repeated: unshown.is_told,
                notice: unshown.notice.clone(),
            }));
            if engine.config.shows_notices && !unshown.is_told {
                unshown.is_told = true;
                engine.state.put(Space::Inbox, &name, &unshown)?;
            }
        }
        engine.last_notice =
            engine.last_notice.max(engine.state.get(Space::Meta, LAST_NOTICE)?.unwrap_or(0));
        for (name, draft) in engine.state.list::<compose::Draft>(Space::Draft)? {
            let number = name.parse().map_err(|_| StateError::Damaged(Space::Draft))?;
            engine.drafts.add(&draft.contact, number);
        }
        engine.count_retained()?;
        for (account, _) in engine.state.list::<compose::Receipts>(Space::Receipt)? {
            engine.to_pump.insert(account);
        }
        let own = engine.own_account();
        for (_, session) in engine.state.list::<session::Session>(Space::Session)? {
            engine.to_pump.extend(session.peer(own.as_address()).map(Into::into));
        }
        engine.pump_drafts();
        engine.ask_open_choices()?;
        engine.resume_files()
    }

    /// This device.
    #[must_use]
    pub fn device(&self) -> Address<'_> {
        self.identity.device()
    }

    /// Makes everything so far durable, then gives what the driver has to do, in order.
    ///
    /// # Errors
    /// [`EngineError::State`]: nothing since the last call happened; drop this engine and open it
    /// again. Nothing of what was to be done may be done.
    pub fn take_output(&mut self) -> Result<Vec<Output>, EngineError> {
        if self.is_online()
            && let Some(line) = self.queue.acknowledgement()
        {
            self.output.push_back(Output::Send(format!("{line}\r\n").into_bytes()));
        }
        self.note_dirty_files()?;
        self.queue.store(&mut self.state)?;
        self.state.commit()?;
        if std::mem::take(&mut self.has_remains) {
            self.remove_remains()?;
        }
        Ok(self.output.drain(..).collect())
    }

    /// The notice was shown: its line at the relay may be freed.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn shown(&mut self, id: NoticeId, now: Timestamp) -> Result<(), EngineError> {
        let name = notice_name(id.0);
        let Some(unshown) = self.state.get::<Unshown>(Space::Inbox, &name)? else {
            return Ok(());
        };
        self.state.remove(Space::Inbox, &name)?;
        self.unconfirmed = self.unconfirmed.saturating_sub(1);
        if let Some(number) = unshown.queue {
            self.queue.finish(number);
        }
        if let Notice::Message(message) = &unshown.notice
            && !message.is_own
            && self.config.tells_delivery
        {
            self.owe_receipt(message.contact.as_address(), &message.mid, false)?;
        }
        self.pump_all(now)
    }

    /// Lets time pass: retries, refreshes, ends what has aged. Call it at least every second.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn tick(&mut self, now: Timestamp) -> Result<(), EngineError> {
        self.watch_link(now)?;
        let since = now.0.abs_diff(self.last_expiry);
        if since >= limits::MINUTE_MS {
            self.last_expiry = now.0;
            self.expire(now)?;
        }
        if self.is_online() {
            self.keep_prekeys(now)?;
            self.check_caught_up(now)?;
            self.ask_missing_chunks(false, now)?;
            self.retry_all_parked(now)?;
            self.pump_drafts();
            self.pump_all(now)?;
        }
        Ok(())
    }

    /// Whether the login is complete and the link up.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_ready)
    }

    /// Ends what time has ended.
    fn expire(&mut self, now: Timestamp) -> Result<(), EngineError> {
        self.queue.expire(now);
        session::accept::expire(&mut self.state, &mut *self.holder, now)?;
        let own = self.identity.device().to_buf();
        for (sid, _) in self.state.list::<session::Session>(Space::Session)? {
            session::expire(&mut self.state, own.as_address(), &sid, now)?;
        }
        for (name, until) in self.state.list::<u64>(Space::Seen)? {
            if now.0 >= until {
                self.state.remove(Space::Seen, &name)?;
            }
        }
        self.expire_parked(now)?;
        session::awaited::expire(&mut self.state, now)?;
        if now.0.abs_diff(self.last_forgetting) >= limits::HOUR_MS {
            self.last_forgetting = now.0;
            self.expire_messages(now)?;
            self.expire_retained()?;
        }
        Ok(())
    }

    /// Writes a notice down and tells it.
    fn notify(&mut self, queue: Option<u64>, notice: Notice) -> Result<(), EngineError> {
        self.last_notice += 1;
        let id = self.last_notice;
        self.state.put(Space::Meta, LAST_NOTICE, &id)?;
        if let Some(number) = queue {
            self.queue.hold(number);
        }
        let unshown = Unshown { queue, is_told: self.config.shows_notices, notice };
        self.state.put(Space::Inbox, &notice_name(id), &unshown)?;
        self.unconfirmed += 1;
        self.output.push_back(Output::Event(Event::Notice {
            id: NoticeId(id),
            is_repeated: false,
            notice: unshown.notice,
        }));
        Ok(())
    }

    fn tell(&mut self, event: Event) {
        self.output.push_back(Output::Event(event));
    }

    fn own_account(&self) -> AddressBuf {
        self.identity.account().to_buf()
    }
}

const LAST_NOTICE: &str = "notice";

fn notice_name(id: u64) -> String {
    format!("{id:020}")
}

#[cfg(test)]
mod tests;
