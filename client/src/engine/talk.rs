//! Sealed lines from others: messages, edits, retractions, reactions, receipts.
//!
//! Owns what is remembered of messages ([`Space::Sent`]) and the texts in parts that are not yet
//! whole ([`Space::Part`]). The invariants: a line is shown only if it opened, and its signature
//! held where the session is signed; an edit or retraction counts only from the account that sent
//! the message (SPEC.md §8).

use std::collections::BTreeMap;

use protocol::message::{Receipt, Sealed};
use protocol::{Address, AddressBuf, Code, Command, Timestamp};
use serde::{Deserialize, Serialize};

use super::inbound::{Arrival, Wait};
use super::{Engine, EngineError, Event, Message, Notice, Status};
use crate::directory::Contact;
use crate::limits;
use crate::mime::Entity;
use crate::session::line::{self, LineError, OpenedLine, Standing};
use crate::session::{Session, awaited};
use crate::state::Space;

/// What is remembered of a message, sent or received.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Known {
    /// The account that sent it.
    pub(super) author: String,
    /// The account on the other side.
    pub(super) contact: String,
    /// When it was sealed or opened here, in milliseconds since 1970.
    pub(super) at: u64,
    pub(super) status: Status,
    /// The MID under which its user knows it, if it was sealed anew.
    pub(super) shown_as: Option<String>,
    /// The MID under which it was sealed anew.
    pub(super) replaced_by: Option<String>,
}

/// The parts of a text that have come.
#[derive(Serialize, Deserialize)]
struct Partial {
    from: String,
    count: u32,
    since: u64,
    parts: BTreeMap<u32, String>,
}

/// A sealed line with where it stands.
struct Incoming<'a> {
    sealed: Sealed<'a>,
    relayed_at: Option<u64>,
    now: Timestamp,
}

impl Engine {
    pub(super) fn sealed_received(
        &mut self,
        command: &Command<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let sealed = match Sealed::parse(command) {
            Ok(sealed) => sealed,
            Err(error) => {
                self.tell(Event::Strange { what: format!("a message that is none: {error}") });
                return Ok(());
            }
        };
        if has_unknown_must(command) {
            self.tell(Event::Unopened {
                from: sealed.from.to_string(),
                what: "it needs a newer version of this program",
            });
            return Ok(());
        }
        let standing = Standing {
            to: sealed.to,
            from: sealed.from,
            place: sealed.place,
            id: sealed.id,
            commitment: sealed.commitment,
            body: &sealed.body,
            is_receipt: false,
        };
        let Some(opened) = self.open_line(command, &standing, arrival, now)? else {
            return Ok(());
        };
        let relayed_at = command.parameters().number("H-RCVD").ok().flatten();
        let incoming = Incoming { sealed: sealed.clone(), relayed_at, now };
        self.deliver(&incoming, &opened, arrival)
    }

    /// Opens a sealed line; what cannot be opened is told, dropped or parked.
    pub(super) fn open_line(
        &mut self,
        command: &Command<'_>,
        standing: &Standing<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<Option<OpenedLine>, EngineError> {
        let from = standing.from.to_string();
        let device = standing.from.device().unwrap_or_default();
        let contact = Contact::load(&self.state, standing.from.account())?;
        if contact.is_some_and(|contact| contact.is_revoked(device)) {
            self.tell(Event::Tampering { from, what: "a line under a revoked key" });
            return Ok(None);
        }
        let what = match line::open(&mut self.state, &self.identity, command, standing, now) {
            Ok(opened) => {
                self.to_pump.insert(standing.from.account().as_str().into());
                return Ok(Some(opened));
            }
            Err(LineError::Failed(error)) => return Err(error.into()),
            Err(LineError::Repeat) => return Ok(None),
            Err(LineError::NoSession | LineError::NoGeneration) => {
                return self.park_sealed(command, standing, arrival, now);
            }
            Err(LineError::Ahead) => {
                self.tell(Event::Unopened { from, what: "its sequence number is too far ahead" });
                return Ok(None);
            }
            Err(LineError::Foreign) => "a line from outside its session",
            Err(LineError::Tampered) => "a line whose signature or seal does not hold",
        };
        self.tell(Event::Tampering { from, what });
        Ok(None)
    }

    /// A line whose session key is not here: it waits if a valid offer may still bring the key.
    fn park_sealed(
        &mut self,
        command: &Command<'_>,
        standing: &Standing<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<Option<OpenedLine>, EngineError> {
        let generation = standing.place.generation.as_str();
        if let Some(awaited) = awaited::get(&self.state, generation)? {
            let wait = Wait::Generation(generation.into());
            self.park(command, arrival, wait, awaited.is_judged, now)?;
        } else if !self.has_ended(standing.place.session.as_str())? {
            let from = standing.from.to_string();
            self.tell(Event::Unopened { from, what: "its session is not known here" });
        }
        Ok(None)
    }

    /// Whether a session has ended here. What its sender sealed in a generation that was never
    /// accepted comes again in another session.
    fn has_ended(&self, sid: &str) -> Result<bool, EngineError> {
        Ok(Session::load(&self.state, sid)?.is_some_and(|session| session.is_closed))
    }

    fn deliver(
        &mut self,
        incoming: &Incoming<'_>,
        opened: &OpenedLine,
        arrival: Arrival,
    ) -> Result<(), EngineError> {
        let sealed = &incoming.sealed;
        let text = Entity::from_plaintext(&opened.plaintext).and_then(|entity| entity.to_text());
        let Ok(text) = text else {
            let from = sealed.from.to_string();
            self.tell(Event::Unopened { from, what: "its content has an unknown form" });
            return Ok(());
        };
        let Some((mid, text)) = self.whole_text(incoming, &text)? else { return Ok(()) };
        let author = sealed.from.account();
        let is_own = author == self.identity.account();
        let contact = if is_own { sealed.to.account() } else { author };
        let about = sealed.about.map(|about| about.as_str().to_owned());
        let is_part = sealed.part.is_some();
        let message = Message {
            contact: contact.to_buf(),
            from: sealed.from.to_buf(),
            mid: mid.clone(),
            text,
            about: about.clone().filter(|_| !is_part),
            at: sealed.at.0,
            relayed_at: incoming.relayed_at,
            is_own,
            is_signed: opened.is_signed,
            is_legacy: opened.session.suite()?.is_legacy(),
            is_delayed: incoming.now.ms_since(sealed.at) > limits::DELAYED_MS,
        };
        let notice = match (sealed.code, about) {
            (Code::MESSAGE, _) => {
                let known = Known {
                    author: author.as_str().into(),
                    contact: contact.as_str().into(),
                    at: incoming.now.0,
                    status: Status::Delivered,
                    shown_as: None,
                    replaced_by: None,
                };
                self.remember_message(&mid, &known)?;
                Notice::Message(message)
            }
            (Code::REACTION, Some(about)) => Notice::Reaction { about, message },
            (code, Some(about)) => {
                let known = self.known_message(&about)?;
                if known.is_some_and(|known| known.author != author.as_str()) {
                    let from = sealed.from.to_string();
                    let what = "a change of a message that somebody else sent";
                    self.tell(Event::Tampering { from, what });
                    return Ok(());
                }
                match code {
                    Code::EDIT => Notice::Edited { about, message },
                    _ => Notice::Retracted { contact: contact.to_buf(), about },
                }
            }
            (_, None) => return Ok(()),
        };
        self.notify(arrival.queue, notice)
    }

    /// MID and text of a message that is whole; parts are kept until all are there.
    fn whole_text(
        &mut self,
        incoming: &Incoming<'_>,
        text: &str,
    ) -> Result<Option<(String, String)>, EngineError> {
        let sealed = &incoming.sealed;
        let Some(part) = sealed.part else {
            return Ok(Some((sealed.id.as_str().into(), text.into())));
        };
        let first = sealed.about.filter(|_| part.number > 1).unwrap_or(sealed.id);
        let from = sealed.from.as_str();
        let name = format!("{from} {first}");
        let held: Option<Partial> = self.state.get(Space::Part, &name)?;
        let mut partial = match held {
            Some(partial) if partial.count == part.count && partial.from == from => partial,
            Some(_) => return Ok(None),
            None => {
                self.bound_partials()?;
                Partial {
                    from: from.into(),
                    count: part.count,
                    since: incoming.now.0,
                    parts: BTreeMap::new(),
                }
            }
        };
        partial.parts.insert(part.number, text.into());
        if partial.parts.len() < part.count as usize {
            self.state.put(Space::Part, &name, &partial)?;
            return Ok(None);
        }
        self.state.remove(Space::Part, &name)?;
        let whole: String = partial.parts.into_values().collect();
        Ok(Some((first.as_str().into(), whole)))
    }

    /// Gives up the oldest text in parts if there are too many.
    fn bound_partials(&mut self) -> Result<(), EngineError> {
        let partials = self.state.list::<Partial>(Space::Part)?;
        if partials.len() < limits::PARTIAL_TEXTS_MAX {
            return Ok(());
        }
        if let Some((name, oldest)) = partials.into_iter().min_by_key(|(_, one)| one.since) {
            self.state.remove(Space::Part, &name)?;
            let what = "parts of its text never came";
            self.tell(Event::Unopened { from: oldest.from, what });
        }
        Ok(())
    }

    pub(super) fn receipt_received(
        &mut self,
        command: &Command<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Ok(receipt) = Receipt::parse(command) else {
            self.tell(Event::Strange { what: "a receipt that is none".into() });
            return Ok(());
        };
        let standing = Standing {
            to: receipt.to,
            from: receipt.from,
            place: receipt.place,
            id: receipt.id,
            commitment: receipt.commitment,
            body: &receipt.tag,
            is_receipt: true,
        };
        if self.open_line(command, &standing, arrival, now)?.is_none() {
            return Ok(());
        }
        let status = if receipt.code == Code::READ { Status::Read } else { Status::Delivered };
        for mid in &receipt.about {
            let Some(known) = self.known_message(mid.as_str())? else { continue };
            let is_theirs = known.author == self.identity.account().as_str()
                && known.contact == receipt.from.account().as_str();
            if is_theirs {
                self.raise_status(mid.as_str(), status)?;
            }
        }
        Ok(())
    }

    /// Raises what is known of a sent message and tells it; it never goes back.
    pub(super) fn raise_status(&mut self, mid: &str, status: Status) -> Result<(), EngineError> {
        let Some(mut known) = self.known_message(mid)? else { return Ok(()) };
        if known.status >= status && known.status != Status::Failed {
            return Ok(());
        }
        known.status = status;
        self.remember_message(mid, &known)?;
        let contact = AddressBuf::parse(&known.contact)?;
        let mid = known.shown_as.unwrap_or_else(|| mid.to_owned());
        self.tell(Event::Status { contact, mid, status });
        Ok(())
    }

    /// How far a message of this device came; `None` if it is not (or no longer) known.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn message_status(&self, mid: &str) -> Result<Option<Status>, EngineError> {
        let mut known = self.known_message(mid)?;
        // A text may be sealed anew more than once, but not endlessly.
        for _ in 0..=limits::REFUSALS_MAX {
            match known.as_ref().and_then(|known| known.replaced_by.as_deref()) {
                Some(newer) => known = self.known_message(newer)?,
                None => break,
            }
        }
        Ok(known.map(|known| known.status))
    }

    pub(super) fn known_message(&self, mid: &str) -> Result<Option<Known>, EngineError> {
        Ok(self.state.get(Space::Sent, mid)?)
    }

    pub(super) fn remember_message(&mut self, mid: &str, known: &Known) -> Result<(), EngineError> {
        Ok(self.state.put(Space::Sent, mid, known)?)
    }

    /// Forgets messages of long ago.
    pub(super) fn expire_messages(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let mut rows = self.state.list::<Known>(Space::Sent)?;
        rows.sort_by_key(|(_, known)| known.at);
        let surplus = rows.len().saturating_sub(limits::MESSAGES_REMEMBERED_MAX);
        for (position, (mid, known)) in rows.iter().enumerate() {
            let is_old = now.ms_since(Timestamp(known.at)) >= limits::MESSAGE_MEMORY_MS;
            if position < surplus || is_old {
                self.state.remove(Space::Sent, mid)?;
            }
        }
        Ok(())
    }

    /// Whose receipts are wanted: those of others than this account.
    pub(super) fn is_own_account(&self, account: Address<'_>) -> bool {
        account == self.identity.account()
    }
}

/// Whether a line carries a parameter that must be understood and is not (`M-…`).
fn has_unknown_must(command: &Command<'_>) -> bool {
    command.parameters().iter().any(|parameter| parameter.name.starts_with("M-"))
}
