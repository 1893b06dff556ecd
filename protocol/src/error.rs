//! What can be wrong with a line, sorted by whose fault it is, and the reply that says so.
//!
//! [`Error::reply_code`] is the one place where an error becomes what the peer sees.

use core::fmt;

use crate::code::Code;

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
