//! Replies: `250-H-ID=1 CAP=LINE:65536 :hello` (SPEC.md §2, §3).

mod assembler;

use core::fmt::Write as _;

pub use self::assembler::{Answer, AnswerWriter, Assembler, Entry};
use crate::code::Code;
use crate::error::{Error, Malformed};
use crate::limits::LINE_OCTETS_MAX;
use crate::line::check_octets;
use crate::parameter::{Parameter, Parameters, escape};

/// A reply that follows the grammar.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    code: Code,
    is_last: bool,
    parameters: Parameters<'a>,
    text: &'a str,
}

impl<'a> Reply<'a> {
    /// Reads a reply from the octets of a line without its CRLF.
    ///
    /// # Errors
    /// [`Error::Malformed`] saying what does not follow the grammar.
    pub fn parse(octets: &'a [u8]) -> Result<Self, Error> {
        Self::parse_text(check_octets(octets)?)
    }

    pub(crate) fn parse_text(line: &'a str) -> Result<Self, Error> {
        let code = line
            .get(..3)
            .and_then(|word| Code::parse(word.as_bytes()))
            .filter(|code| code.is_reply())
            .ok_or(Malformed::Code)?;
        let is_last = match line.as_bytes().get(3) {
            Some(b' ') => true,
            Some(b'-') => false,
            _ => return Err(Malformed::Space.into()),
        };
        let mut rest = line.get(4..).ok_or(Malformed::Colon)?;
        let mut parameters = Parameters::new();
        loop {
            if let Some(text) = rest.strip_prefix(':') {
                if text.bytes().any(|octet| octet < 0x20 || octet == 0x7F) {
                    return Err(Malformed::Text.into());
                }
                return Ok(Self { code, is_last, parameters, text });
            }
            let (word, behind) = rest.split_once(' ').ok_or(Malformed::Colon)?;
            if word.is_empty() {
                return Err(Malformed::Space.into());
            }
            parameters.push(Parameter::parse(word, LINE_OCTETS_MAX)?)?;
            rest = behind;
        }
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Whether no further line of this answer follows.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.is_last
    }

    /// The parameters.
    #[must_use]
    pub const fn parameters(&self) -> &Parameters<'a> {
        &self.parameters
    }

    /// The value of a parameter as on the wire.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.get(name)
    }

    /// The text for eyes, as on the wire.
    #[must_use]
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// The text for eyes without C0, C1 and bidirectional controls.
    #[must_use]
    pub fn display_text(&self) -> String {
        self.text.chars().filter(|&c| !is_hidden(c)).collect()
    }
}

/// Controls that could make text show other than it is.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2066}'..='\u{2069}')
}

/// Writes one line of a reply.
#[derive(Clone, Debug)]
#[must_use]
pub struct ReplyBuilder {
    line: String,
}

impl ReplyBuilder {
    /// Starts the last (or only) line of an answer.
    pub fn last(code: u16) -> Self {
        Self { line: format!("{code:03} ") }
    }

    /// Starts a line that others of the same answer follow.
    pub fn more(code: u16) -> Self {
        Self { line: format!("{code:03}-") }
    }

    /// Adds a parameter whose value is already in its wire form.
    pub fn parameter(mut self, name: &str, value: impl core::fmt::Display) -> Self {
        // Writing to a String cannot fail.
        let _ = write!(self.line, "{name}={value} ");
        self
    }

    /// Adds a parameter unless `value` is `None`.
    pub fn parameter_if(self, name: &str, value: Option<impl core::fmt::Display>) -> Self {
        match value {
            Some(value) => self.parameter(name, value),
            None => self,
        }
    }

    /// Adds a parameter, percent-encoding what may not stand for itself.
    pub fn text_parameter(self, name: &str, text: &str) -> Self {
        self.parameter(name, escape(text))
    }

    /// Ends the line with the text for eyes; controls in it become spaces. CRLF included.
    #[must_use]
    pub fn text(mut self, text: &str) -> String {
        self.line.push(':');
        self.line.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
        self.line.push_str("\r\n");
        self.line
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_part() {
        let reply = Reply::parse("250-H-ID=1 CAP=LINE:65536,SIGNED :h\u{e9}llo :x".as_bytes());
        let reply = reply.unwrap();
        assert_eq!(reply.code().number(), 250);
        assert!(!reply.is_last());
        assert_eq!(reply.parameter("CAP"), Some("LINE:65536,SIGNED"));
        assert_eq!(reply.text(), "h\u{e9}llo :x");
    }

    #[test]
    fn builder_round_trip() {
        let line = ReplyBuilder::last(350).parameter("H-ID", 8).text("bob is\r\nbusy");
        assert_eq!(line, "350 H-ID=8 :bob is  busy\r\n");
        assert!(Reply::parse(line.trim_end().as_bytes()).is_ok());
    }

    #[test]
    fn refused() {
        for line in
            ["250", "250 ", "250 x", "250  :x", "250 A=1  :x", "250_:x", "100 :x", "250 A=1:x"]
        {
            assert!(Reply::parse(line.as_bytes()).is_err(), "{line:?}");
        }
        assert!(Reply::parse(b"250 :a\x7f").is_err());
        assert!(Reply::parse(b"250 :a\xff").is_err());
    }

    #[test]
    fn hidden_characters_are_dropped_for_eyes() {
        let reply = Reply::parse("550 :a\u{202E}b\u{85}c".as_bytes()).unwrap();
        assert_eq!(reply.display_text(), "abc");
    }
}
