//! Messages and what goes with them (100–105, 110, 111, 120–122, 130, 190), as typed views of
//! a command (SPEC.md §8).
//!
//! A view says that the parts are there and well-formed; seals and signatures are for the
//! receiver.

use core::fmt;

use crate::address::Address;
use crate::code::Code;
use crate::command::Command;
use crate::error::Error;
use crate::identifier::{GenerationId, KeyCommitment, MessageId, SessionId};
use crate::limits::{KEEP_MAX, PARTS_MAX, RECEIPTS_MAX, TTL_SECONDS_MAX};
use crate::offer::reply_code;
use crate::parameter::{WireValue, list};
use crate::timestamp::Timestamp;

/// The octets of the plaintext with its length: every sealed text has one of these sizes.
pub const PLAINTEXT_OCTETS: [usize; 3] = [256, 1_024, 4_096];
/// Octets of the tag of AES-256-GCM and ChaCha20-Poly1305.
pub const TAG_OCTETS: usize = 16;
/// Octets of the tag of the L suites: HMAC-SHA-256.
pub const LEGACY_TAG_OCTETS: usize = 32;

/// `PART=i/n`: the i-th of n parts, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// i.
    pub number: u32,
    /// n.
    pub count: u32,
}

impl WireValue<'_> for Part {
    fn read(value: &str) -> Option<Self> {
        let (number, count) = value.split_once('/')?;
        let part = Self { number: u32::read(number)?, count: u32::read(count)? };
        let is_good =
            (2..=PARTS_MAX).contains(&part.count) && (1..=part.count).contains(&part.number);
        is_good.then_some(part)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

/// Where a sealed line stands: session, generation, place in its sender's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// SID.
    pub session: SessionId,
    /// GEN.
    pub generation: GenerationId,
    /// SEQ, from 1.
    pub sequence: u64,
    /// PREV, in a device's first line of a generation: its last SEQ in the one before.
    pub previous: Option<u64>,
}

impl Place {
    pub(crate) fn read(command: &Command<'_>) -> Result<Self, Error> {
        let sequence = command.need("SEQ")?;
        if sequence == 0 {
            return Err(Error::BadParameter("SEQ"));
        }
        Ok(Self {
            session: command.need("SID")?,
            generation: command.need("GEN")?,
            sequence,
            previous: command.read("PREV")?,
        })
    }
}

/// 100, 103, 104 or 105: text sealed for the devices of a session.
#[derive(Clone, Debug)]
pub struct Sealed<'a> {
    /// MESSAGE, EDIT, RETRACT or REACTION.
    pub code: Code,
    /// The account it is for.
    pub to: Address<'a>,
    /// The device that sent it.
    pub from: Address<'a>,
    /// SID, GEN, SEQ, PREV.
    pub place: Place,
    /// TS.
    pub at: Timestamp,
    /// MID.
    pub id: MessageId,
    /// KC; present exactly if the line is signed.
    pub commitment: Option<KeyCommitment>,
    /// RE: the message that this one is about, answers, or is a part of.
    pub about: Option<MessageId>,
    /// PART.
    pub part: Option<Part>,
    /// TTL in seconds.
    pub life_seconds: Option<u64>,
    /// The sealed text.
    pub body: Vec<u8>,
}

impl<'a> Sealed<'a> {
    /// Reads a 100, 103, 104 or 105 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`], [`Error::BadSlot`].
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        let code = command.code();
        let is_about = match code {
            Code::MESSAGE => false,
            Code::EDIT | Code::RETRACT | Code::REACTION => true,
            code => return Err(Error::UnknownCode(code)),
        };
        let (to, from) = account_and_device(command)?;
        let about = command.read("RE")?;
        let part: Option<Part> = command.read("PART")?;
        let is_later_part = part.is_some_and(|part| part.number > 1);
        if (is_about || is_later_part) && about.is_none() {
            return Err(Error::MissingParameter("RE"));
        }
        if command.body_text().is_none() {
            return Err(Error::BadSlot);
        }
        Ok(Self {
            code,
            to,
            from,
            place: Place::read(command)?,
            at: command.need("TS")?,
            id: command.need("MID")?,
            commitment: commitment(command)?,
            about,
            part,
            life_seconds: life_seconds(command)?,
            body: command.body(),
        })
    }
}

/// KC, which stands in a sealed line exactly if a signature does.
pub(crate) fn commitment(command: &Command<'_>) -> Result<Option<KeyCommitment>, Error> {
    let commitment = command.read("KC")?;
    match (commitment.is_some(), command.signature_text().is_some()) {
        (false, true) => Err(Error::MissingParameter("KC")),
        (true, false) => Err(Error::BadSlot),
        _ => Ok(commitment),
    }
}

fn life_seconds(command: &Command<'_>) -> Result<Option<u64>, Error> {
    let life = command.read("TTL")?;
    if life.is_some_and(|life| !(1..=TTL_SECONDS_MAX).contains(&life)) {
        return Err(Error::BadParameter("TTL"));
    }
    Ok(life)
}

/// 101 or 102: messages that were delivered or read.
#[derive(Clone, Debug)]
pub struct Receipt<'a> {
    /// DELIVERED or READ.
    pub code: Code,
    /// The account that sent them.
    pub to: Address<'a>,
    /// The device that confirms.
    pub from: Address<'a>,
    /// RE: 1 to 50 messages.
    pub about: Vec<MessageId>,
    /// SID, GEN, SEQ, PREV.
    pub place: Place,
    /// TS.
    pub at: Timestamp,
    /// MID.
    pub id: MessageId,
    /// KC; present exactly if the line is signed.
    pub commitment: Option<KeyCommitment>,
    /// The tag of the suite over the empty text.
    pub tag: Vec<u8>,
}

impl<'a> Receipt<'a> {
    /// Reads a 101 or 102 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`], [`Error::BadSlot`].
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        let code = command.code();
        if !matches!(code, Code::DELIVERED | Code::READ) {
            return Err(Error::UnknownCode(code));
        }
        let (to, from) = account_and_device(command)?;
        let tag = command.body();
        if !matches!(tag.len(), TAG_OCTETS | LEGACY_TAG_OCTETS) {
            return Err(Error::BadSlot);
        }
        let about = list(command.need("RE")?, RECEIPTS_MAX).ok_or(Error::BadParameter("RE"))?;
        Ok(Self {
            code,
            to,
            from,
            about,
            place: Place::read(command)?,
            at: command.need("TS")?,
            id: command.need("MID")?,
            commitment: commitment(command)?,
            tag,
        })
    }
}

/// 110 or 111: somebody types, or stopped. Never queued, dropped first under load.
#[derive(Clone, Copy, Debug)]
pub struct Typing<'a> {
    /// The account it is shown to.
    pub to: Address<'a>,
    /// The device that types.
    pub from: Address<'a>,
    /// TTL of 110 in seconds; `None` for 111.
    pub life_seconds: Option<u64>,
}

impl<'a> Typing<'a> {
    /// Reads a 110 or 111 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`], [`Error::BadSlot`].
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        let (to, from) = account_and_device(command)?;
        no_slots(command)?;
        let life_seconds = life_seconds(command)?;
        match (command.code(), life_seconds) {
            (Code::TYPING, None) => Err(Error::MissingParameter("TTL")),
            (Code::TYPING, Some(_)) => Ok(Self { to, from, life_seconds }),
            (Code::TYPING_STOPPED, _) => Ok(Self { to, from, life_seconds: None }),
            (code, _) => Err(Error::UnknownCode(code)),
        }
    }
}

/// `STATE=`: how somebody wants to be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Availability {
    /// Here.
    Available,
    /// Logged in, not here.
    Away,
    /// Asks senders to choose (350).
    Busy,
    /// Do not disturb: as busy, and only URGENT may ring.
    DoNotDisturb,
    /// Not logged in, or wants to look so.
    Offline,
}

impl Availability {
    const ALL: [Self; 5] =
        [Self::Available, Self::Away, Self::Busy, Self::DoNotDisturb, Self::Offline];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Away => "away",
            Self::Busy => "busy",
            Self::DoNotDisturb => "dnd",
            Self::Offline => "offline",
        }
    }

    /// Whether senders get 350.
    #[must_use]
    pub const fn asks_senders(self) -> bool {
        matches!(self, Self::Busy | Self::DoNotDisturb)
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl WireValue<'_> for Availability {
    fn read(value: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == value)
    }
}

/// A way around a busy recipient: a word of `ALT=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alternative {
    /// By mail (stage 2).
    Email,
    /// By SMS (stage 2).
    Sms,
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Email => "EMAIL",
            Self::Sms => "SMS",
        })
    }
}

impl WireValue<'_> for Alternative {
    fn read(value: &str) -> Option<Self> {
        match value {
            "EMAIL" => Some(Self::Email),
            "SMS" => Some(Self::Sms),
            _ => None,
        }
    }
}

/// What 120 sets, 121 tells and the answer to 122 carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// STATE.
    pub state: Availability,
    /// UNTIL.
    pub until: Option<Timestamp>,
    /// ALT.
    pub alternatives: Vec<Alternative>,
}

impl Presence {
    /// Reads a 120 or 121 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::MissingParameter`], [`Error::BadParameter`].
    pub fn parse(command: &Command<'_>) -> Result<Self, Error> {
        if !matches!(command.code(), Code::PRESENCE_SET | Code::PRESENCE) {
            return Err(Error::UnknownCode(command.code()));
        }
        Self::read(command.parameters())
    }

    /// Reads the parameters of a line or of a reply.
    ///
    /// # Errors
    /// [`Error::MissingParameter`], [`Error::BadParameter`].
    pub fn read(parameters: &crate::parameter::Parameters<'_>) -> Result<Self, Error> {
        let alternatives = match parameters.get("ALT") {
            Some(value) => list(value, 2).ok_or(Error::BadParameter("ALT"))?,
            None => Vec::new(),
        };
        Ok(Self {
            state: parameters.need("STATE")?,
            until: parameters.read("UNTIL")?,
            alternatives,
        })
    }
}

/// `VIA=` of 130: what to do with a message to a busy recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// By mail (stage 2).
    Email,
    /// Deliver when free.
    Hold,
    /// By SMS (stage 2).
    Sms,
    /// Deliver now, if the recipient's list allows it.
    Urgent,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Email => "EMAIL",
            Self::Hold => "HOLD",
            Self::Sms => "SMS",
            Self::Urgent => "URGENT",
        })
    }
}

impl WireValue<'_> for Via {
    fn read(value: &str) -> Option<Self> {
        match value {
            "EMAIL" => Some(Self::Email),
            "HOLD" => Some(Self::Hold),
            "SMS" => Some(Self::Sms),
            "URGENT" => Some(Self::Urgent),
            _ => None,
        }
    }
}

/// 130: the sender's choice after 350.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The busy recipient.
    pub to: Address<'a>,
    /// The device that sent the message.
    pub from: Address<'a>,
    /// RE: the message that got 350.
    pub about: MessageId,
    /// VIA.
    pub via: Via,
}

impl<'a> Choice<'a> {
    /// Reads a 130 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`].
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        if command.code() != Code::CHOICE {
            return Err(Error::UnknownCode(command.code()));
        }
        let (to, from) = account_and_device(command)?;
        no_slots(command)?;
        Ok(Self { to, from, about: command.need("RE")?, via: command.need("VIA")? })
    }
}

/// 190: a domain says that a line did not arrive. A notice: nothing is sent again because of it.
#[derive(Clone, Copy, Debug)]
pub struct Bounce<'a> {
    /// The device that sent the line.
    pub to: Address<'a>,
    /// The domain that signs, with its log key.
    pub from: Address<'a>,
    /// RE: the line that did not arrive.
    pub about: MessageId,
    /// CODE: why.
    pub code: Code,
    /// TS.
    pub at: Timestamp,
}

impl<'a> Bounce<'a> {
    /// Reads a 190 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`], [`Error::BadSlot`].
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        if command.code() != Code::BOUNCE {
            return Err(Error::UnknownCode(command.code()));
        }
        let to = command.to().filter(|to| to.is_device()).ok_or(Error::BadAddress)?;
        let from = command.from().filter(|from| from.is_domain()).ok_or(Error::BadAddress)?;
        if command.body_text().is_some() || command.signature_text().is_none() {
            return Err(Error::BadSlot);
        }
        Ok(Self {
            to,
            from,
            about: command.need("RE")?,
            code: reply_code(command)?.ok_or(Error::MissingParameter("CODE"))?,
            at: command.need("TS")?,
        })
    }
}

/// 014: what a device has safely stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// H-Q: everything up to here …
    pub up_to: u64,
    /// KEEP: … but these, rising.
    pub kept: Vec<u64>,
}

impl Acknowledgement {
    /// Reads a 014 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::MissingParameter`], [`Error::BadParameter`] for KEEP
    /// that does not rise, is too long, or names a number above H-Q.
    pub fn parse(command: &Command<'_>) -> Result<Self, Error> {
        if command.code() != Code::ACKNOWLEDGE {
            return Err(Error::UnknownCode(command.code()));
        }
        let up_to = command.need("H-Q")?;
        let kept: Vec<u64> = match command.parameter("KEEP") {
            Some(value) => list(value, KEEP_MAX).ok_or(Error::BadParameter("KEEP"))?,
            None => Vec::new(),
        };
        let is_good = kept.is_sorted_by(|one, next| one < next)
            && kept.last().is_none_or(|&last| last <= up_to);
        if is_good { Ok(Self { up_to, kept }) } else { Err(Error::BadParameter("KEEP")) }
    }
}

/// That neither body nor signature is there.
pub(crate) fn no_slots(command: &Command<'_>) -> Result<(), Error> {
    if command.body_text().is_none() && command.signature_text().is_none() {
        Ok(())
    } else {
        Err(Error::BadSlot)
    }
}

/// TO, which must be an account, and FROM, which must be a device.
pub(crate) fn account_and_device<'a>(
    command: &Command<'a>,
) -> Result<(Address<'a>, Address<'a>), Error> {
    let to = command.to().filter(|to| to.is_account()).ok_or(Error::BadAddress)?;
    let from = command.from().filter(|from| from.is_device()).ok_or(Error::BadAddress)?;
    Ok((to, from))
}
