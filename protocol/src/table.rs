//! The table of commands: who may send which, when, with which parts, and what may be answered.
//!
//! One constant drives the checks of both sides, the section "Commands" of `SPEC.md` and the
//! generated negative test, so they cannot disagree. [`check`] decides in a fixed order: code,
//! sender, state, addresses, whose FROM, parameters, slots. It looks at form only; typed views
//! (`message`, `offer`, `record` …) and signatures come after it.

mod document;
mod kind;
mod row;

pub use self::document::markdown;
pub use self::kind::Kind;
pub use self::row::{COMMON_REPLIES, REPLIES, ROWS};
use crate::address::Address;
use crate::code::Code;
use crate::command::Command;
use crate::error::Error;

/// A side of a link between client and relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The calling side.
    Client,
    /// The serving side.
    Relay,
}

/// How far a link between client and relay has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// TLS stands; nothing was said but 220.
    Connected,
    /// 010 was answered: version and capabilities are agreed.
    Greeted,
    /// 011 was answered with 334: a key is claimed, a nonce given.
    Identified,
    /// 012 held for a key that the relay does not know: 600 may follow.
    Registering,
    /// 012 held for a key of the directory.
    Proven,
}

impl State {
    /// All states in the order of a login.
    pub const ALL: [Self; 5] =
        [Self::Connected, Self::Greeted, Self::Identified, Self::Registering, Self::Proven];

    /// The name in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Greeted => "greeted",
            Self::Identified => "identified",
            Self::Registering => "registering",
            Self::Proven => "proven",
        }
    }
}

/// What a link knows when a command arrives.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// Who sent the command.
    pub sender: Side,
    /// The state of the link.
    pub state: State,
    /// The client's address: claimed by 010, proven by 012.
    pub device: Option<Address<'a>>,
}

/// Which addresses may stand as TO or as FROM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// None at all.
    pub none: bool,
    /// `user@domain`.
    pub account: bool,
    /// `user@domain/device`.
    pub device: bool,
    /// A bare domain.
    pub domain: bool,
}

impl Shape {
    /// No address.
    pub const NONE: Self = Self { none: true, account: false, device: false, domain: false };
    /// An account.
    pub const ACCOUNT: Self = Self { account: true, none: false, ..Self::NONE };
    /// A device.
    pub const DEVICE: Self = Self { device: true, none: false, ..Self::NONE };
    /// A domain.
    pub const DOMAIN: Self = Self { domain: true, none: false, ..Self::NONE };
    /// An account or a device.
    pub const PERSON: Self = Self { account: true, ..Self::DEVICE };
    /// An account or a domain.
    pub const RECORD: Self = Self { account: true, ..Self::DOMAIN };
    /// A device or a domain.
    pub const DEVICE_OR_DOMAIN: Self = Self { device: true, ..Self::DOMAIN };
    /// A device or no address.
    pub const DEVICE_OR_NONE: Self = Self { device: true, ..Self::NONE };

    /// Whether `address` has this shape.
    #[must_use]
    pub const fn takes(self, address: Option<Address<'_>>) -> bool {
        match address {
            None => self.none,
            Some(address) => {
                (self.account && address.is_account())
                    || (self.device && address.is_device())
                    || (self.domain && address.is_domain())
            }
        }
    }
}

/// Whether a body or signature stands in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Never.
    Absent,
    /// Either way.
    Optional,
    /// Always.
    Required,
}

impl Slot {
    const fn takes(self, is_present: bool) -> bool {
        match self {
            Self::Absent => !is_present,
            Self::Optional => true,
            Self::Required => is_present,
        }
    }
}

/// Whose signature the line carries. The table says only that it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// Nobody's: the line is the link's word.
    None,
    /// The device key, over the octets of 012.
    Proof,
    /// The device key of FROM.
    Device,
    /// The device key of FROM in a signed session.
    SignedSession,
    /// The identity key.
    Identity,
    /// The identity or recovery key of FROM, or its domain's key with `BY=domain`.
    Revoker,
    /// The log key of the domain in FROM.
    Log,
}

/// When a relay answers a command that it carried out. Refusals are always answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// Always.
    Always,
    /// If the command carries H-ID.
    IfAsked,
    /// Never: the relay sends it, and the client does not answer.
    Never,
}

/// A parameter of a command.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The name.
    pub name: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// Whether it must be there.
    pub is_required: bool,
}

/// A rule about several parts of a line.
#[derive(Clone, Copy, Debug)]
pub enum Constraint {
    /// Exactly one of these parameters.
    OneOf(&'static [&'static str]),
    /// The first parameter only together with the second.
    Needs(&'static str, &'static str),
    /// This parameter exactly if there is a signature.
    WithSignature(&'static str),
    /// This parameter exactly if there is a body.
    WithBody(&'static str),
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The code.
    pub code: Code,
    /// A short name.
    pub name: &'static str,
    /// What it does, in half a sentence.
    pub meaning: &'static str,
    /// Whether clients may send it.
    pub from_client: bool,
    /// Whether relays may send it to clients.
    pub from_relay: bool,
    /// The states in which it may be sent.
    pub states: &'static [State],
    /// TO.
    pub to: Shape,
    /// FROM.
    pub from: Shape,
    /// The parameters, hop parameters only where the command needs one.
    pub parameters: &'static [Rule],
    /// Rules about several parts.
    pub constraints: &'static [Constraint],
    /// The body.
    pub body: Slot,
    /// The signature.
    pub signature: Slot,
    /// Whose signature it is.
    pub authority: Authority,
    /// When the relay answers.
    pub answered: Answered,
    /// Codes that may answer it, besides [`COMMON_REPLIES`].
    pub replies: &'static [u16],
}

impl Row {
    /// The command with this code.
    #[must_use]
    pub fn find(code: Code) -> Option<&'static Self> {
        let position = INDEX.get(usize::from(code.number()))?;
        ROWS.get(usize::from(*position))
    }

    /// Whether `side` may send it.
    #[must_use]
    pub const fn may_send(&self, side: Side) -> bool {
        match side {
            Side::Client => self.from_client,
            Side::Relay => self.from_relay,
        }
    }

    /// Whether `code` may answer it.
    #[must_use]
    pub fn may_answer(&self, code: u16) -> bool {
        self.replies.contains(&code) || COMMON_REPLIES.contains(&code)
    }

    /// Whether it is a step of the login itself: at another time it is out of order rather
    /// than too early.
    fn is_login(&self) -> bool {
        self.states.iter().all(|state| *state < State::Registering)
    }

    /// Checks everything about the line that does not depend on the link.
    ///
    /// # Errors
    /// [`Error::BadAddress`], [`Error::MissingParameter`], [`Error::BadParameter`],
    /// [`Error::BadSlot`].
    pub fn check_form(&self, command: &Command<'_>) -> Result<(), Error> {
        self.check_addresses(command)?;
        self.check_parts(command)
    }

    fn check_addresses(&self, command: &Command<'_>) -> Result<(), Error> {
        if self.to.takes(command.to()) && self.from.takes(command.from()) {
            Ok(())
        } else {
            Err(Error::BadAddress)
        }
    }

    fn check_parts(&self, command: &Command<'_>) -> Result<(), Error> {
        for rule in self.parameters {
            match command.parameter(rule.name) {
                Some(value) if !rule.kind.accepts(value) => {
                    return Err(Error::BadParameter(rule.name));
                }
                None if rule.is_required => return Err(Error::MissingParameter(rule.name)),
                _ => {}
            }
        }
        if command.parameter("H-ID").is_some_and(|value| !Kind::HOP_ID.accepts(value)) {
            return Err(Error::BadParameter("H-ID"));
        }
        for constraint in self.constraints {
            constraint.check(command)?;
        }
        let slots_fit = self.body.takes(command.body_text().is_some())
            && self.signature.takes(command.signature_text().is_some());
        if slots_fit { Ok(()) } else { Err(Error::BadSlot) }
    }
}

impl Constraint {
    fn check(self, command: &Command<'_>) -> Result<(), Error> {
        let has = |name: &str| command.parameter(name).is_some();
        match self {
            Self::OneOf(names) => {
                let mut present = names.iter().filter(|name| has(name));
                match (present.next(), present.next()) {
                    (Some(_), None) => Ok(()),
                    (Some(_), Some(second)) => Err(Error::BadParameter(second)),
                    (None, _) => Err(Error::MissingParameter(names.first().unwrap_or(&""))),
                }
            }
            Self::Needs(name, other) if has(name) && !has(other) => {
                Err(Error::MissingParameter(other))
            }
            Self::Needs(..) => Ok(()),
            Self::WithSignature(name) => match (has(name), command.signature_text().is_some()) {
                (false, true) => Err(Error::MissingParameter(name)),
                (true, false) => Err(Error::BadSlot),
                _ => Ok(()),
            },
            Self::WithBody(name) => match (has(name), command.body_text().is_some()) {
                (false, true) => Err(Error::MissingParameter(name)),
                (true, false) => Err(Error::BadSlot),
                _ => Ok(()),
            },
        }
    }
}

/// Checks a command that arrived on `link` against the table.
///
/// # Errors
/// In this order: [`Error::UnknownCode`]; [`Error::Order`] if that side never sends it or a
/// login command comes at the wrong time; [`Error::LogInFirst`] if it needs a proof first;
/// [`Error::BadAddress`]; [`Error::NotYours`] if a client's FROM is not its device or account;
/// [`Error::MissingParameter`], [`Error::BadParameter`], [`Error::BadSlot`].
pub fn check(command: &Command<'_>, link: &Link<'_>) -> Result<&'static Row, Error> {
    let row = Row::find(command.code()).ok_or(Error::UnknownCode(command.code()))?;
    if !row.may_send(link.sender) {
        return Err(Error::Order);
    }
    if !row.states.contains(&link.state) {
        let is_too_early = link.state != State::Proven && !row.is_login();
        return Err(if is_too_early { Error::LogInFirst } else { Error::Order });
    }
    row.check_addresses(command)?;
    if link.sender == Side::Client && !is_own(command.from(), link.device) {
        return Err(Error::NotYours);
    }
    row.check_parts(command)?;
    Ok(row)
}

/// Whether FROM is the client's device, or the bare account of it where the table takes one.
fn is_own(from: Option<Address<'_>>, device: Option<Address<'_>>) -> bool {
    match (from, device) {
        (None, _) | (_, None) => true,
        (Some(from), Some(device)) => from == device || from == device.account(),
    }
}

/// Position in [`ROWS`] by code; `u8::MAX` where there is none.
const INDEX: [u8; 1_000] = {
    let mut index = [u8::MAX; 1_000];
    let mut position = 0;
    while position < ROWS.len() {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, not at run time")]
        {
            index[ROWS[position].code.number() as usize] = position as u8;
        }
        position += 1;
    }
    index
};

const _: () = assert!(ROWS.len() < u8::MAX as usize);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
