//! Lines for this device: which family they belong to, and those that must wait.
//!
//! Owns the way of a line from the relay's queue to its family, and the rows of [`Space::Parked`]:
//! lines that cannot be judged or opened yet, because a record is being fetched or a session key
//! is still to come. The invariants: a line is written down, finished or parked before its number
//! may be acknowledged; a parked line is tried again in the order of the queue. Limits:
//! [`limits::PARKED_MAX`], [`limits::PARKED_AGE_MS_MAX`], [`limits::INBOX_MAX`].

use protocol::message::{Bounce, Typing};
use protocol::revocation::{Revocation, RevokedBy};
use protocol::{Address, AddressBuf, Code, Command, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Engine, EngineError, Event, Notice, Status};
use crate::directory::Contact;
use crate::limits;
use crate::state::Space;

/// How a line came here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Its number in the relay's queue.
    pub(super) queue: Option<u64>,
    /// When it first came.
    pub(super) since: Timestamp,
    /// How often it was parked.
    pub(super) attempts: u32,
}

/// A line that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Parked {
    line: String,
    since: u64,
    attempts: u32,
    wait: Wait,
}

/// What a parked line waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Wait {
    /// The newest record of this account.
    Record(String),
    /// This generation.
    Generation(String),
}

/// Records that one line may have to wait for, one after the other.
const ATTEMPTS_MAX: u32 = 4;

impl Engine {
    pub(super) fn command_received(
        &mut self,
        command: &Command<'_>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let queue = command.parameters().number("H-Q").ok().flatten();
        if let Some(number) = queue {
            let Some(link) = &mut self.link else { return Ok(()) };
            if link.is_deaf {
                return Ok(());
            }
            if self.unconfirmed >= limits::INBOX_MAX as u64 {
                link.is_deaf = true;
                self.disconnect("too many messages wait to be shown");
                return Ok(());
            }
            link.last_queue_line = now;
            if !self.queue.arrive(number) {
                return Ok(());
            }
        }
        self.dispatch(command, Arrival { queue, since: now, attempts: 0 }, now)?;
        self.check_caught_up(now)?;
        self.pump_all(now)?;
        self.flush(now)
    }

    fn dispatch(
        &mut self,
        command: &Command<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        match command.code() {
            Code::MESSAGE | Code::EDIT | Code::RETRACT | Code::REACTION => {
                self.sealed_received(command, arrival, now)
            }
            Code::DELIVERED | Code::READ => self.receipt_received(command, arrival, now),
            Code::TYPING | Code::TYPING_STOPPED => {
                self.typing_received(command, now);
                Ok(())
            }
            Code::PRESENCE => {
                self.presence_received(command);
                Ok(())
            }
            Code::BOUNCE => self.bounce_received(command, arrival),
            Code::REVOKE => self.revocation_received(command),
            Code::PREKEYS_LOW => {
                let count = command.parameters().number("COUNT").ok().flatten();
                self.prekeys_low(count.unwrap_or(0), now)
            }
            Code::ROSTER_PUSH => self.roster_pushed(command),
            Code::SUBSCRIBE | Code::APPROVE | Code::DENY => {
                self.subscription_received(command, arrival, now)
            }
            Code::OFFER | Code::REFRESH => self.offer_received(command, arrival, now),
            Code::ACCEPT => self.accept_received(command, arrival, now),
            Code::CLOSE => self.close_received(command, now),
            Code::FILE_OFFER
            | Code::FILE_ACCEPT
            | Code::FILE_CHUNK
            | Code::FILE_WINDOW
            | Code::FILE_FINISH
            | Code::FILE_CANCEL
            | Code::FILE_VERDICT => self.file_line_received(command, arrival, now),
            code => {
                let what = format!("a command that clients do not take: {code}");
                self.tell(Event::Strange { what });
                Ok(())
            }
        }
    }

    /// Parks a line until what it waits for is there; `false` if it is given up instead. With
    /// `keep` the relay keeps it as well.
    pub(super) fn park(
        &mut self,
        command: &Command<'_>,
        arrival: Arrival,
        wait: Wait,
        keep: bool,
        now: Timestamp,
    ) -> Result<bool, EngineError> {
        let from = command.from().map_or("", |from| from.as_str()).to_owned();
        let is_full = self.state.count(Space::Parked)? >= limits::PARKED_MAX;
        let (Some(number), false) = (arrival.queue, is_full) else {
            self.tell(Event::Unopened { from, what: "too many lines wait for their key" });
            return Ok(false);
        };
        if keep {
            self.queue.keep(number, now);
        }
        let row = Parked {
            line: command.as_str().into(),
            since: arrival.since.0,
            attempts: arrival.attempts + 1,
            wait,
        };
        self.state.put(Space::Parked, &parked_name(number), &row)?;
        Ok(true)
    }

    /// Whether a line may wait for a newer record of `account`; asks for it if so.
    pub(super) fn may_wait_for_record(
        &mut self,
        account: Address<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<bool, EngineError> {
        let contact = Contact::load(&self.state, account)?;
        let is_fresh = contact.is_some_and(|contact| {
            Timestamp(contact.checked_at) >= arrival.since && arrival.attempts > 0
        });
        if is_fresh || arrival.attempts >= ATTEMPTS_MAX || arrival.queue.is_none() {
            return Ok(false);
        }
        Ok(self.fetch_record(account, now) || self.fetches.is_record_late(account.as_str()))
    }

    /// The record of `account` was fetched, or refused: tries the lines that wait for it.
    pub(super) fn retry_parked(
        &mut self,
        account: &str,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        self.retry_where(|wait| matches!(wait, Wait::Record(one) if one == account), now)
    }

    /// A generation was opened, or never will be: tries the lines that wait for it.
    pub(super) fn retry_generation(
        &mut self,
        generation: &str,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        self.retry_where(|wait| matches!(wait, Wait::Generation(one) if one == generation), now)
    }

    fn retry_where(
        &mut self,
        is_due: impl Fn(&Wait) -> bool,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        for (name, parked) in self.state.list::<Parked>(Space::Parked)? {
            // A line before it may have ended what this one waits in.
            if is_due(&parked.wait) && self.state.contains(Space::Parked, &name)? {
                let number = self.unpark(&name)?;
                let command = Command::parse(parked.line.as_bytes())?;
                let arrival = Arrival {
                    queue: number,
                    since: Timestamp(parked.since),
                    attempts: parked.attempts,
                };
                self.dispatch(&command, arrival, now)?;
            }
        }
        Ok(())
    }

    /// Parks a line about a file behind its offer, if that is parked; whether it is.
    pub(super) fn park_behind_offer(
        &mut self,
        command: &Command<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<bool, EngineError> {
        let file = command.parameter("FID");
        for (_, parked) in self.state.list::<Parked>(Space::Parked)? {
            let offer = Command::parse(parked.line.as_bytes())?;
            if offer.code() == Code::FILE_OFFER && offer.parameter("FID") == file {
                self.park(command, arrival, parked.wait, false, now)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn unpark(&mut self, name: &str) -> Result<Option<u64>, EngineError> {
        self.state.remove(Space::Parked, name)?;
        let number = name.trim_start_matches('0').parse().ok();
        if let Some(number) = number {
            self.queue.finish(number);
        }
        Ok(number)
    }

    /// A link is up, or time has passed: asks again for the records that parked lines wait for.
    pub(super) fn retry_all_parked(&mut self, now: Timestamp) -> Result<(), EngineError> {
        for (_, parked) in self.state.list::<Parked>(Space::Parked)? {
            if let Wait::Record(account) = parked.wait {
                self.fetch_record(Address::parse(&account)?, now);
            }
        }
        Ok(())
    }

    /// A session has ended: its parked lines are sealed anew by who sent them.
    pub(super) fn drop_parked(&mut self, sid: &str) -> Result<(), EngineError> {
        for (name, parked) in self.state.list::<Parked>(Space::Parked)? {
            let command = Command::parse(parked.line.as_bytes())?;
            if command.parameter("SID") == Some(sid) {
                self.unpark(&name)?;
            }
        }
        Ok(())
    }

    /// Gives up lines that waited too long. Who made an offer is told, and seals its texts anew.
    pub(super) fn expire_parked(&mut self, now: Timestamp) -> Result<(), EngineError> {
        for (name, parked) in self.state.list::<Parked>(Space::Parked)? {
            let is_old = now.ms_since(Timestamp(parked.since)) >= limits::PARKED_AGE_MS_MAX;
            if !is_old || !self.state.contains(Space::Parked, &name)? {
                continue;
            }
            self.unpark(&name)?;
            let command = Command::parse(parked.line.as_bytes())?;
            let from = command.from().map_or("", |from| from.as_str()).to_owned();
            self.tell(Event::Unopened { from, what: "its key never came" });
            if matches!(command.code(), Code::OFFER | Code::REFRESH) {
                self.offer_expired(&command, now)?;
            }
        }
        Ok(())
    }

    /// Tells once for each link when everything that waited at the relay is here: the highest
    /// number of the login has come, or the relay has gone quiet after the replay began.
    pub(super) fn check_caught_up(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let is_there = self.link.as_ref().is_some_and(|link| {
            let is_quiet =
                link.is_resumed && now.ms_since(link.last_queue_line) >= limits::CATCH_UP_QUIET_MS;
            !link.is_caught_up && (self.queue.has_received(link.top) || is_quiet)
        });
        if is_there {
            if let Some(link) = &mut self.link {
                link.is_caught_up = true;
            }
            self.tell(Event::CaughtUp);
        }
        Ok(())
    }

    fn typing_received(&mut self, command: &Command<'_>, now: Timestamp) {
        let Ok(typing) = Typing::parse(command) else { return };
        let contact = typing.from.account().to_buf();
        self.tell(match typing.life_seconds {
            Some(life) => {
                let life = life.min(limits::TYPING_SECONDS_MAX) * 1_000;
                Event::Typing { contact, until: now.plus_ms(life) }
            }
            None => Event::TypingStopped { contact },
        });
    }

    /// 190: heeded only from one's own domain, and only for a line still unanswered by its
    /// recipient (SPEC.md §8).
    fn bounce_received(
        &mut self,
        command: &Command<'_>,
        arrival: Arrival,
    ) -> Result<(), EngineError> {
        let Ok(bounce) = Bounce::parse(command) else {
            self.tell(Event::Strange { what: "a bounce that is none".into() });
            return Ok(());
        };
        let domain = Contact::load(&self.state, bounce.from)?;
        let record = domain.as_ref().map(Contact::record).transpose()?;
        let log_key = record.as_ref().and_then(|record| record.device("log"));
        let holds = log_key.is_some_and(|log| command.verify(&log.key).is_ok());
        let is_own_domain = bounce.from == self.identity.domain().as_address();
        if !holds || !is_own_domain || bounce.to != self.identity.device() {
            let from = bounce.from.to_string();
            self.tell(Event::Tampering { from, what: "a bounce whose signature does not hold" });
            return Ok(());
        }
        let mid = bounce.about.as_str();
        let Some(mut known) = self.known_message(mid)? else { return Ok(()) };
        let is_open =
            known.author == self.identity.account().as_str() && known.status < Status::Delivered;
        if !is_open {
            return Ok(());
        }
        known.status = Status::Failed;
        let contact = AddressBuf::parse(&known.contact)?;
        self.remember_message(mid, &known)?;
        if self.offer_bounced(mid, bounce.code.number(), arrival)? {
            return Ok(());
        }
        let notice = Notice::Failed {
            contact,
            mid: mid.into(),
            code: bounce.code.number(),
            text: "it did not arrive".into(),
            is_bounce: true,
        };
        self.notify(arrival.queue, notice)
    }

    /// 602: a key that must no longer be trusted.
    fn revocation_received(&mut self, command: &Command<'_>) -> Result<(), EngineError> {
        let Some(account) = command.from().map(|from| from.account().to_buf()) else {
            return Ok(());
        };
        let Some(mut contact) = Contact::load(&self.state, account.as_address())? else {
            return Ok(());
        };
        let domain =
            Contact::load(&self.state, Self::domain_of(account.as_address())?.as_address())?;
        let domain = domain.as_ref().map(Contact::record).transpose()?;
        let record = contact.record()?;
        let domain_key = domain.as_ref().map(|record| record.identity());
        let Ok(revocation) = Revocation::verify(command, &record, domain_key) else {
            let from = account.to_string();
            self.tell(Event::Tampering { from, what: "a revocation that does not hold" });
            return Ok(());
        };
        let device = revocation.device.map(String::from);
        match &device {
            Some(device) if !contact.revoked_devices.contains(device) => {
                contact.revoked_devices.push(device.clone());
            }
            Some(_) => return Ok(()),
            None if contact.is_frozen => return Ok(()),
            None => contact.is_frozen = true,
        }
        contact.store(&mut self.state, account.as_address())?;
        let is_by_domain = revocation.by == RevokedBy::Domain;
        self.tell(Event::Revoked { contact: account, device, is_by_domain });
        Ok(())
    }

    /// 633 to 635: the relay's word about who asks, approves or denies.
    fn subscription_received(
        &mut self,
        command: &Command<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Some(contact) = command.from().map(|from| from.account().to_buf()) else {
            return Ok(());
        };
        let notice = match command.code() {
            Code::SUBSCRIBE => Notice::SubscriptionAsked { contact },
            Code::APPROVE => {
                self.fetch_record(contact.as_address(), now);
                Notice::Approved { contact }
            }
            _ => Notice::Denied { contact },
        };
        self.notify(arrival.queue, notice)
    }
}

fn parked_name(number: u64) -> String {
    format!("{number:020}")
}
