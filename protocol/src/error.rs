//! What can be wrong with a line, sorted by whose fault it is, and the reply that says so.
//!
//! [`Error::reply_code`] is the one place where an error becomes what the peer sees.

use core::fmt;

use crate::code::Code;
use crate::signature::SignatureError;

/// Why octets are not a line of CIM/1 (SPEC.md §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// The address does not follow the grammar or its length limits.
    Address,
    /// A CR or LF that is not part of the CRLF at the end.
    BareLineBreak,
    /// The first word is not a code of a command or reply.
    Code,
    /// A colon before the text of a reply is missing.
    Colon,
    /// Nothing between two CRLF.
    Empty,
    /// A name of a parameter outside the grammar.
    Name,
    /// A NUL octet.
    Nul,
    /// The same parameter twice.
    ParameterTwice,
    /// A percent sign that does not stand for an octet that needs it.
    Percent,
    /// A body or signature outside the base64 alphabet, padded, or with non-zero spare bits.
    Slot,
    /// A doubled, leading or trailing space.
    Space,
    /// More words after the signature, or a word where none may stand.
    Surplus,
    /// Text that is not UTF-8, or octets outside ASCII where only ASCII may occur.
    Text,
    /// More than [`crate::limits::PARAMETERS_MAX`] parameters.
    TooManyParameters,
    /// A value with an octet that may not stand for itself.
    Value,
    /// A value longer than [`crate::limits::VALUE_OCTETS_MAX`].
    ValueTooLong,
}

/// An error about a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The octets are not a line.
    Malformed(Malformed),
    /// The line is longer than the link allows.
    LineTooLong,
    /// A well-formed command with a code that nobody here knows.
    UnknownCode(Code),
    /// A parameter that the command needs is absent.
    MissingParameter(&'static str),
    /// A parameter's value is not what the command asks for.
    BadParameter(&'static str),
    /// A body or signature is absent, or present where none may be.
    BadSlot,
    /// TO or FROM is absent, or has a device where none may be, or lacks one.
    BadAddress,
    /// A command that this state of the link, or this side of it, does not take.
    Order,
    /// A command that needs the proof of 012 first.
    LogInFirst,
    /// FROM is not what the link has proven.
    NotYours,
    /// A signed line whose form is good but which does not hold.
    Statement(StatementError),
}

/// Why a signed line (record, revocation, prekeys, policy …) is refused (SPEC.md §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatementError {
    /// It speaks for another account.
    Account,
    /// The TLVs are cut, missing, given twice or do not fit each other.
    Body,
    /// It is no longer valid.
    Expired,
    /// A key in it is malformed or weak.
    Key,
    /// PREV does not name the record held.
    Previous,
    /// It changes REC and the old recovery key does not sign for it.
    Recovery,
    /// It changes the identity key and the old one does not sign for it.
    Rotation,
    /// The signature does not hold.
    Signature,
    /// Our own signer refused.
    Signer,
    /// The device that should have signed is not in the record.
    UnknownDevice,
    /// NB, NA or TS are not in order or too far apart.
    Validity,
    /// VER is not above what is held.
    Version,
}

impl Error {
    /// The reply code by which the peer learns of this error (SPEC.md §3).
    #[must_use]
    pub const fn reply_code(self) -> u16 {
        match self {
            Self::LineTooLong => 556,
            Self::UnknownCode(_) => 502,
            Self::BadAddress | Self::Malformed(Malformed::Address) => 510,
            Self::MissingParameter(_) | Self::BadParameter(_) => 501,
            Self::Malformed(
                Malformed::Name
                | Malformed::ParameterTwice
                | Malformed::Percent
                | Malformed::TooManyParameters
                | Malformed::Value
                | Malformed::ValueTooLong,
            ) => 501,
            Self::BadSlot | Self::Malformed(_) => 500,
            Self::Order => 503,
            Self::LogInFirst => 530,
            Self::NotYours => 521,
            Self::Statement(what) => what.reply_code(),
        }
    }

    /// A short sentence for the text of a reply: ASCII, without a full stop.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::LineTooLong => "line too long",
            Self::UnknownCode(_) => "unknown command",
            Self::MissingParameter(_) => "a parameter is missing",
            Self::BadParameter(_) => "bad value of a parameter",
            Self::BadSlot => "body or signature missing or not allowed here",
            Self::BadAddress => "TO or FROM missing or not allowed here",
            Self::Malformed(what) => what.text(),
            Self::Order => "not now and not here",
            Self::LogInFirst => "prove who you are first",
            Self::NotYours => "FROM is not who you are",
            Self::Statement(what) => what.text(),
        }
    }
}

impl StatementError {
    /// The reply code by which the peer learns of this error (SPEC.md §3).
    #[must_use]
    pub const fn reply_code(self) -> u16 {
        match self {
            Self::Account => 521,
            Self::Body | Self::Key | Self::Validity => 501,
            Self::Expired => 558,
            Self::Previous | Self::Version => 455,
            Self::Recovery | Self::Rotation | Self::Signature | Self::UnknownDevice => 553,
            Self::Signer => 451,
        }
    }

    /// A short sentence for the text of a reply: ASCII, without a full stop.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Account => "statement of another account",
            Self::Body => "keys in the body are cut, missing, doubled or do not fit",
            Self::Expired => "no longer valid",
            Self::Key => "a key is malformed or weak",
            Self::Previous => "PREV is not the record held",
            Self::Recovery => "the old recovery key does not sign for the new one",
            Self::Rotation => "the old identity key does not sign for the new one",
            Self::Signature => "bad signature",
            Self::Signer => "the signer refused",
            Self::UnknownDevice => "the record does not list that device",
            Self::Validity => "NB, NA or TS out of order",
            Self::Version => "VER is not above what is held",
        }
    }
}

impl Malformed {
    /// A short sentence for the text of a reply: ASCII, without a full stop.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Address => "bad address",
            Self::BareLineBreak => "CR or LF alone",
            Self::Code => "not a code",
            Self::Colon => "no colon before the text",
            Self::Empty => "empty line",
            Self::Name => "bad name of a parameter",
            Self::Nul => "NUL octet",
            Self::ParameterTwice => "parameter given twice",
            Self::Percent => "needless or broken percent encoding",
            Self::Slot => "body or signature is not unpadded base64",
            Self::Space => "doubled, leading or trailing space",
            Self::Surplus => "words where none may stand",
            Self::Text => "octets outside UTF-8 or ASCII",
            Self::TooManyParameters => "too many parameters",
            Self::Value => "value has an octet that needs percent encoding",
            Self::ValueTooLong => "value too long",
        }
    }
}

impl From<SignatureError> for StatementError {
    fn from(what: SignatureError) -> Self {
        match what {
            SignatureError::Key => Self::Key,
            SignatureError::Signature => Self::Signature,
            SignatureError::Signer => Self::Signer,
        }
    }
}

impl From<SignatureError> for Error {
    fn from(what: SignatureError) -> Self {
        Self::Statement(what.into())
    }
}

impl From<StatementError> for Error {
    fn from(what: StatementError) -> Self {
        Self::Statement(what)
    }
}

impl From<Malformed> for Error {
    fn from(what: Malformed) -> Self {
        Self::Malformed(what)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCode(code) => write!(f, "{} {code}", self.text()),
            Self::MissingParameter(name) | Self::BadParameter(name) => {
                write!(f, "{}: {name}", self.text())
            }
            _ => f.write_str(self.text()),
        }
    }
}

impl core::error::Error for Error {}
