//! Session lines: offers and refreshes of a key (700, 702), their acceptance (701) and refusal
//! or close (703), as typed views of a command (SPEC.md §7).
//!
//! A view says that the parts are there and well-formed. Whether signature, members and suite
//! hold is for the receiver, who checks them before any private key is touched.

use crate::address::Address;
use crate::code::Code;
use crate::command::Command;
use crate::error::Error;
use crate::identifier::{GenerationId, MemberHash, MessageId, NextKeyId, RecordName, SessionId};
use crate::member::Accounts;
use crate::prekey::{ML_KEM_KEY_OCTETS, NextKeys};
use crate::suite::Suite;
use crate::timestamp::Timestamp;

/// Octets of an ML-KEM-768 ciphertext (FIPS 203 table 3).
pub const ML_KEM_CIPHERTEXT_OCTETS: usize = 1_088;
/// Octets of a wrapped session seed: AES-KW of 32 octets (RFC 3394).
pub const WRAPPED_SEED_OCTETS: usize = 40;

const _: () = assert!(ML_KEM_CIPHERTEXT_OCTETS < ML_KEM_KEY_OCTETS);

/// The keys to which an offer is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// NK: the keys that the receiver put into a 701 (702 only).
    Next(NextKeyId),
    /// SPK and, if the directory still had one, OPK.
    Prekeys {
        /// SPK.
        signed: u64,
        /// OPK.
        one_time: Option<u64>,
    },
}

/// 700 or 702: a session key wrapped to one device.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
    /// The device it is wrapped to.
    pub to: Address<'a>,
    /// The device that offers.
    pub from: Address<'a>,
    /// SID.
    pub session: SessionId,
    /// GEN.
    pub generation: GenerationId,
    /// PGEN: the parent generation; `None` for 700.
    pub parent: Option<GenerationId>,
    /// SUITE.
    pub suite: Suite,
    /// WITH.
    pub accounts: Accounts,
    /// MEM.
    pub members: MemberHash,
    /// SIGNED.
    pub is_signed: bool,
    /// KR: the recipient's record that the offerer holds.
    pub recipient_record: RecordName,
    /// KF: the offerer's own record.
    pub sender_record: RecordName,
    /// SPK and OPK, or NK.
    pub wrap: Wrap,
    /// NOGW: whether gateways are refused.
    pub refuses_gateways: bool,
    /// TS.
    pub at: Timestamp,
    /// MID.
    pub id: MessageId,
    /// The wrapped key with what it takes to unwrap it.
    pub body: Vec<u8>,
}

impl<'a> Offer<'a> {
    /// Reads a 700 or 702 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`], [`Error::BadSlot`] for a body whose length is not the suite's.
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        let is_refresh = match command.code() {
            Code::OFFER => false,
            Code::REFRESH => true,
            code => return Err(Error::UnknownCode(code)),
        };
        let (to, from) = devices(command)?;
        let parent = command.read("PGEN")?;
        match (is_refresh, parent) {
            (true, None) => return Err(Error::MissingParameter("PGEN")),
            (false, Some(_)) => return Err(Error::BadParameter("PGEN")),
            _ => {}
        }
        let suite: Suite = command.need("SUITE")?;
        let body = command.body();
        if command.signature_text().is_none() || !body_fits(suite, body.len()) {
            return Err(Error::BadSlot);
        }
        Ok(Self {
            to,
            from,
            session: command.need("SID")?,
            generation: command.need("GEN")?,
            parent,
            suite,
            accounts: command.need("WITH")?,
            members: command.need("MEM")?,
            is_signed: command.need("SIGNED")?,
            recipient_record: command.need("KR")?,
            sender_record: command.need("KF")?,
            wrap: Wrap::read(command, is_refresh)?,
            refuses_gateways: command.read("NOGW")?.unwrap_or(false),
            at: command.need("TS")?,
            id: command.need("MID")?,
            body,
        })
    }
}

impl Wrap {
    fn read(command: &Command<'_>, is_refresh: bool) -> Result<Self, Error> {
        match (command.read("NK")?, command.read("SPK")?, command.read("OPK")?) {
            (Some(next), None, None) if is_refresh => Ok(Self::Next(next)),
            (Some(_), _, _) => Err(Error::BadParameter("NK")),
            (None, Some(signed), one_time) => Ok(Self::Prekeys { signed, one_time }),
            (None, None, _) => Err(Error::MissingParameter("SPK")),
        }
    }
}

/// Whether a body of `octets` can be a wrapped key of `suite`.
const fn body_fits(suite: Suite, octets: usize) -> bool {
    match suite {
        Suite::M1 | Suite::M3 => octets == 32 + ML_KEM_CIPHERTEXT_OCTETS + WRAPPED_SEED_OCTETS,
        Suite::M2 => octets == 65 + ML_KEM_CIPHERTEXT_OCTETS + WRAPPED_SEED_OCTETS,
        // One block of RSA with 3072 to 8192 bits.
        Suite::L1 | Suite::L2 => octets >= 384 && octets <= 1_024,
    }
}

/// 701: the receiver confirms a generation and offers keys for the next refresh.
#[derive(Clone, Debug)]
pub struct Accept<'a> {
    /// The device that offered.
    pub to: Address<'a>,
    /// The device that accepts.
    pub from: Address<'a>,
    /// SID.
    pub session: SessionId,
    /// GEN.
    pub generation: GenerationId,
    /// NK and the keys it names; L suites have neither.
    pub next: Option<(NextKeyId, NextKeys)>,
    /// TS.
    pub at: Timestamp,
    /// MID.
    pub id: MessageId,
}

impl<'a> Accept<'a> {
    /// Reads a 701 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`], [`Error::BadSlot`],
    /// [`Error::Statement`] for keys that are malformed.
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        if command.code() != Code::ACCEPT {
            return Err(Error::UnknownCode(command.code()));
        }
        let (to, from) = devices(command)?;
        let next = match (command.read("NK")?, command.body_text()) {
            (Some(name), Some(_)) => Some((name, NextKeys::read(&command.body())?)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(Error::BadSlot),
        };
        if command.signature_text().is_none() {
            return Err(Error::BadSlot);
        }
        Ok(Self {
            to,
            from,
            session: command.need("SID")?,
            generation: command.need("GEN")?,
            next,
            at: command.need("TS")?,
            id: command.need("MID")?,
        })
    }
}

/// 703: a generation is refused, or a session closed.
#[derive(Clone, Debug)]
pub struct Close<'a> {
    /// The device it is for.
    pub to: Address<'a>,
    /// The device that refuses or closes.
    pub from: Address<'a>,
    /// SID.
    pub session: SessionId,
    /// GEN: what is refused; `None` when the session is closed.
    pub generation: Option<GenerationId>,
    /// CODE: why (504, 553, 555, 456 …); `None` closes the session.
    pub code: Option<Code>,
    /// KR: the record that would have been right.
    pub record: Option<RecordName>,
    /// TS.
    pub at: Timestamp,
    /// MID.
    pub id: MessageId,
}

impl<'a> Close<'a> {
    /// Reads a 703 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`], [`Error::BadSlot`].
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        if command.code() != Code::CLOSE {
            return Err(Error::UnknownCode(command.code()));
        }
        let (to, from) = devices(command)?;
        if command.body_text().is_some() || command.signature_text().is_none() {
            return Err(Error::BadSlot);
        }
        let generation = command.read("GEN")?;
        let code = reply_code(command)?;
        if code.is_some() && generation.is_none() {
            return Err(Error::MissingParameter("GEN"));
        }
        Ok(Self {
            to,
            from,
            session: command.need("SID")?,
            generation,
            code,
            record: command.read("KR")?,
            at: command.need("TS")?,
            id: command.need("MID")?,
        })
    }
}

/// TO and FROM, both of which must be devices.
pub(crate) fn devices<'a>(command: &Command<'a>) -> Result<(Address<'a>, Address<'a>), Error> {
    let to = command.to().filter(|to| to.is_device()).ok_or(Error::BadAddress)?;
    let from = command.from().filter(|from| from.is_device()).ok_or(Error::BadAddress)?;
    Ok((to, from))
}

/// `CODE=`: a code of a reply.
pub(crate) fn reply_code(command: &Command<'_>) -> Result<Option<Code>, Error> {
    command
        .parameter("CODE")
        .map(|value| {
            Code::parse(value.as_bytes())
                .filter(|code| code.is_reply())
                .ok_or(Error::BadParameter("CODE"))
        })
        .transpose()
}
