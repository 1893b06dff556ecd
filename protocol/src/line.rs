//! One line, read: a command or a reply (SPEC.md §2).

use crate::code::Code;
use crate::command::Command;
use crate::error::{Error, Malformed};
use crate::reply::Reply;

/// A line without its CRLF, borrowed from the octets it was read from.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "both variants hold the same parameter table")]
pub enum Line<'a> {
    /// A command: code 0xx, 1xx, 6xx to 9xx.
    Command(Command<'a>),
    /// A reply: code 2xx to 5xx.
    Reply(Reply<'a>),
}

impl<'a> Line<'a> {
    /// Reads the octets between two CRLF.
    ///
    /// # Errors
    /// [`Error::Malformed`] saying what does not follow the grammar.
    pub fn parse(octets: &'a [u8]) -> Result<Self, Error> {
        let text = check_octets(octets)?;
        let is_reply =
            text.get(..3).and_then(|c| Code::parse(c.as_bytes())).is_some_and(Code::is_reply);
        if is_reply {
            Reply::parse_text(text).map(Self::Reply)
        } else {
            Command::parse_text(text).map(Self::Command)
        }
    }
}

/// Checks what holds for every line: UTF-8, no NUL, no CR or LF, not empty.
pub(crate) fn check_octets(octets: &[u8]) -> Result<&str, Error> {
    if octets.is_empty() {
        return Err(Malformed::Empty.into());
    }
    let text = core::str::from_utf8(octets).map_err(|_| Malformed::Text)?;
    // The smallest octet tells for nearly every line that none of them is there; the compiler
    // looks at 16 octets at once.
    if octets.iter().fold(u8::MAX, |least, &octet| least.min(octet)) >= b' ' {
        return Ok(text);
    }
    match octets.iter().find(|&&octet| matches!(octet, 0 | b'\r' | b'\n')) {
        None => Ok(text),
        Some(0) => Err(Malformed::Nul.into()),
        Some(_) => Err(Malformed::BareLineBreak.into()),
    }
}
