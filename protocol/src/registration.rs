//! Registration (600): an invitation and the first record of an account (SPEC.md §5).
//!
//! The body is the 601 line without CRLF. The invitation is used once and never logged.

use core::fmt;

use crate::address::{Address, AddressBuf};
use crate::code::Code;
use crate::command::Command;
use crate::error::{Error, Malformed, StatementError};
use crate::limits::INVITATION_OCTETS_MAX;
use crate::record::Record;

/// What admits a new account. Prints nothing of its content.
#[derive(Clone, PartialEq, Eq)]
pub enum Admission {
    /// INVITE.
    Invitation(Box<str>),
    /// POW, where a domain opens itself.
    Work(Box<str>),
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invitation(_) => "INVITE=..",
            Self::Work(_) => "POW=..",
        })
    }
}

/// A 600 line whose record is a first one, well signed, for the same account.
#[derive(Clone, Debug)]
pub struct Registration {
    /// INVITE or POW.
    pub admission: Admission,
    /// The record.
    pub record: Record,
    /// The 601 line to be stored, without CRLF.
    pub record_line: String,
}

impl Registration {
    /// Reads a 600 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`], [`Error::BadSlot`]; those of the inner line;
    /// [`StatementError::Account`] for a record of another account,
    /// [`StatementError::Previous`] for one that is not the first.
    pub fn parse(command: &Command<'_>) -> Result<Self, Error> {
        if command.code() != Code::REGISTER {
            return Err(Error::UnknownCode(command.code()));
        }
        let account = command.from().filter(|from| from.is_account()).ok_or(Error::BadAddress)?;
        let admission = match (admission(command, "INVITE")?, admission(command, "POW")?) {
            (Some(text), None) => Admission::Invitation(text),
            (None, Some(text)) => Admission::Work(text),
            (None, None) => return Err(Error::MissingParameter("INVITE")),
            (Some(_), Some(_)) => return Err(Error::BadParameter("POW")),
        };
        if command.signature_text().is_some() || command.body_text().is_none() {
            return Err(Error::BadSlot);
        }
        let line = String::from_utf8(command.body()).map_err(|_| Malformed::Text)?;
        let record = Record::parse(&Command::parse(line.as_bytes())?)?;
        if record.account() != account {
            return Err(StatementError::Account.into());
        }
        if record.previous().is_some() {
            return Err(StatementError::Previous.into());
        }
        Ok(Self { admission, record, record_line: line })
    }

    /// Writes a 600 line with `hop_id` as H-ID.
    #[must_use]
    pub fn write(
        account: Address<'_>,
        admission: &Admission,
        hop_id: &str,
        record_line: &str,
    ) -> String {
        let (name, text) = match admission {
            Admission::Invitation(text) => ("INVITE", text),
            Admission::Work(text) => ("POW", text),
        };
        Command::builder(Code::REGISTER)
            .from(account)
            .text_parameter(name, text)
            .parameter("H-ID", hop_id)
            .body(record_line.as_bytes())
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> AddressBuf {
        self.record.account().to_buf()
    }
}

fn admission(command: &Command<'_>, name: &'static str) -> Result<Option<Box<str>>, Error> {
    let Some(value) = command.parameter(name) else { return Ok(None) };
    let text = crate::parameter::unescape(value)?;
    if (1..=INVITATION_OCTETS_MAX).contains(&text.len()) {
        Ok(Some(text.into()))
    } else {
        Err(Error::BadParameter(name))
    }
}
