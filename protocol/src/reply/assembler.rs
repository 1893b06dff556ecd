//! Answers of several lines: entries read back from pieces, and cut into pieces (SPEC.md §2).
//!
//! A value that does not fit is cut; its pieces travel under one name in successive lines of
//! one code and H-ID, joined in order, at most [`REPLY_PIECES_MAX`]. Where an answer has several
//! entries (612 a device each, 630 a contact each), a line with the entry's key (`DEV`, `WHO`)
//! opens the next one, and lines without it go on with the last.

use crate::code::Code;
use crate::error::{Error, Malformed};
use crate::limits::{
    LINE_OCTETS_DEFAULT, PARAMETERS_MAX, REPLY_ENTRIES_MAX, REPLY_OCTETS_MAX, REPLY_PIECES_MAX,
    REPLY_TEXT_OCTETS_MAX,
};
use crate::reply::{Reply, ReplyBuilder};

/// One entry of an answer: names with their whole values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    values: Vec<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Value {
    name: Box<str>,
    text: String,
    pieces: usize,
}

impl Entry {
    /// The whole value of `name`, as on the wire.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|value| *value.name == *name).map(|value| value.text.as_str())
    }

    /// The whole value of `name`, which must be present.
    ///
    /// # Errors
    /// [`Error::MissingParameter`].
    pub fn required(&self, name: &'static str) -> Result<&str, Error> {
        self.get(name).ok_or(Error::MissingParameter(name))
    }

    /// The line that the base64 value of `name` stands for (REC, PRE, ONE, POL), without CRLF.
    ///
    /// # Errors
    /// [`Error::MissingParameter`], [`Error::BadParameter`] unless it is base64 of UTF-8.
    pub fn line(&self, name: &'static str) -> Result<String, Error> {
        self.required(name).and_then(|value| {
            let octets = crate::base64::decode(value).map_err(|_| Error::BadParameter(name))?;
            String::from_utf8(octets).map_err(|_| Error::BadParameter(name))
        })
    }

    /// Names and values in the order of the answer.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|value| (&*value.name, value.text.as_str()))
    }

    fn add(&mut self, name: &str, piece: &str) -> Result<(), Error> {
        let is_full = self.values.len() == PARAMETERS_MAX;
        match self.values.iter_mut().find(|value| *value.name == *name) {
            Some(value) if value.pieces == REPLY_PIECES_MAX => Err(Malformed::ValueTooLong.into()),
            Some(value) => {
                value.text.push_str(piece);
                value.pieces += 1;
                Ok(())
            }
            None if is_full => Err(Malformed::TooManyParameters.into()),
            None => {
                self.values.push(Value { name: name.into(), text: piece.into(), pieces: 1 });
                Ok(())
            }
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The code of all its lines.
    pub code: Code,
    /// H-ID of all its lines.
    pub hop_id: Option<Box<str>>,
    /// The entries; one for an answer without a key.
    pub entries: Vec<Entry>,
    /// The text of the last line, without controls.
    pub text: String,
}

impl Answer {
    /// The first entry; of an answer without a key, the only one.
    #[must_use]
    pub fn first(&self) -> Option<&Entry> {
        self.entries.first()
    }
}

/// Joins the lines of one answer.
#[derive(Clone, Debug)]
pub struct Assembler {
    key: Option<&'static str>,
    head: Option<(Code, Option<Box<str>>)>,
    entries: Vec<Entry>,
    octets: usize,
}

impl Assembler {
    /// For an answer whose entries each begin with the parameter `key`, or with one entry.
    #[must_use]
    pub const fn new(key: Option<&'static str>) -> Self {
        Self { key, head: None, entries: Vec::new(), octets: 0 }
    }

    /// Adds a line; gives the answer with the last one.
    ///
    /// # Errors
    /// [`Error::Order`] for a line of another code or H-ID, and the limits of an answer as
    /// [`Malformed::TooManyParameters`] and [`Malformed::ValueTooLong`]. The assembler is then
    /// of no more use.
    pub fn push(&mut self, reply: &Reply<'_>) -> Result<Option<Answer>, Error> {
        let hop_id = reply.parameter("H-ID");
        let head = self.head.get_or_insert_with(|| (reply.code(), hop_id.map(Into::into)));
        if head.0 != reply.code() || head.1.as_deref() != hop_id {
            return Err(Error::Order);
        }
        let opens_entry = self.key.is_some_and(|key| reply.parameter(key).is_some());
        for parameter in reply.parameters().iter().filter(|parameter| parameter.name != "H-ID") {
            self.octets += parameter.value.len();
            if self.octets > REPLY_OCTETS_MAX {
                return Err(Malformed::ValueTooLong.into());
            }
            // The key opens the entry even if it is not the first parameter of its line.
            if self.entries.is_empty() || (opens_entry && self.is_first_of_line(reply, parameter)) {
                if self.entries.len() == REPLY_ENTRIES_MAX {
                    return Err(Malformed::TooManyParameters.into());
                }
                self.entries.push(Entry::default());
            }
            if let Some(entry) = self.entries.last_mut() {
                entry.add(parameter.name, parameter.value)?;
            }
        }
        if !reply.is_last() {
            return Ok(None);
        }
        let (code, hop_id) = self.head.take().unwrap_or((reply.code(), None));
        Ok(Some(Answer {
            code,
            hop_id,
            entries: core::mem::take(&mut self.entries),
            text: reply.display_text(),
        }))
    }

    fn is_first_of_line(
        &self,
        reply: &Reply<'_>,
        parameter: crate::parameter::Parameter<'_>,
    ) -> bool {
        let first = reply.parameters().iter().find(|other| other.name != "H-ID");
        first.is_some_and(|first| first.name == parameter.name)
    }
}

/// Cuts an answer into lines that fit the link.
#[derive(Clone, Debug)]
pub struct AnswerWriter<'a> {
    code: u16,
    hop_id: Option<&'a str>,
    line_octets_max: usize,
    /// Parameters of each line; at least one line.
    lines: Vec<Vec<(&'a str, String)>>,
}

impl<'a> AnswerWriter<'a> {
    /// An answer of this code with the command's H-ID, for lines of at most
    /// `line_octets_max` octets, CRLF included.
    #[must_use]
    pub fn new(code: u16, hop_id: Option<&'a str>, line_octets_max: usize) -> Self {
        debug_assert!(line_octets_max >= LINE_OCTETS_DEFAULT);
        Self { code, hop_id, line_octets_max, lines: Vec::new() }
    }

    /// Adds an entry, its key first; values in their wire form.
    ///
    /// # Errors
    /// [`Error::LineTooLong`] for a value that does not fit [`REPLY_PIECES_MAX`] lines.
    pub fn entry(&mut self, values: &[(&'a str, &str)]) -> Result<(), Error> {
        self.lines.push(Vec::new());
        let room_of_line = self.room();
        let mut room = room_of_line;
        for (name, value) in values {
            let mut rest = *value;
            let mut pieces = 0;
            loop {
                // Name, equals sign and space stand around the value.
                let free = room.saturating_sub(name.len() + 2);
                let fits_whole = rest.len() <= free;
                // A value that fits a line of its own is not cut for what stands before it.
                let waits = !fits_whole && room < room_of_line;
                if waits {
                    self.lines.push(Vec::new());
                    room = room_of_line;
                    continue;
                }
                pieces += 1;
                if pieces > REPLY_PIECES_MAX {
                    return Err(Error::LineTooLong);
                }
                // Values are ASCII, so any length is a boundary.
                let (piece, behind) =
                    rest.split_at_checked(free.min(rest.len())).unwrap_or((rest, ""));
                if let Some(line) = self.lines.last_mut() {
                    line.push((name, piece.into()));
                }
                room = room.saturating_sub(name.len() + 2 + piece.len());
                rest = behind;
                if rest.is_empty() {
                    break;
                }
                self.lines.push(Vec::new());
                room = room_of_line;
            }
        }
        Ok(())
    }

    /// The lines, each with CRLF. `text` stands in the last one.
    #[must_use]
    pub fn finish(mut self, text: &str) -> Vec<String> {
        if self.lines.is_empty() {
            self.lines.push(Vec::new());
        }
        let last = self.lines.len() - 1;
        let mut written = Vec::with_capacity(self.lines.len());
        for (position, line) in self.lines.iter().enumerate() {
            let is_last = position == last;
            let mut reply =
                if is_last { ReplyBuilder::last(self.code) } else { ReplyBuilder::more(self.code) };
            reply = reply.parameter_if("H-ID", self.hop_id);
            for (name, piece) in line {
                reply = reply.parameter(name, piece);
            }
            let mut end = text.len().min(REPLY_TEXT_OCTETS_MAX);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let text = if is_last { text.get(..end).unwrap_or_default() } else { "more" };
            written.push(reply.text(text));
        }
        written
    }

    /// Octets of a line for parameters, the space behind each included.
    fn room(&self) -> usize {
        // Code and separator 4, colon 1, CRLF 2; "H-ID=" and its space 6.
        let hop_id = self.hop_id.map_or(0, |id| id.len() + 6);
        self.line_octets_max.saturating_sub(7 + REPLY_TEXT_OCTETS_MAX + hop_id)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn assemble(key: Option<&'static str>, lines: &[String]) -> Result<Answer, Error> {
        let mut assembler = Assembler::new(key);
        let mut answer = None;
        for line in lines {
            assert!(answer.is_none());
            let line = line.strip_suffix("\r\n").unwrap();
            answer = assembler.push(&Reply::parse(line.as_bytes()).unwrap())?;
        }
        Ok(answer.unwrap())
    }

    #[test]
    fn values_of_any_length_come_back() {
        let limit = 8_192;
        for length in [0, 1, 7_000, 8_000, 8_050, 8_192, 17_119, 100_000] {
            let value = "x".repeat(length);
            let mut writer = AnswerWriter::new(251, Some("7"), limit);
            writer.entry(&[("DEV", "d1"), ("PRE", &value), ("ONE", "short")]).unwrap();
            writer.entry(&[("DEV", "d2"), ("PRE", "y")]).unwrap();
            let lines = writer.finish("two");
            assert!(lines.iter().all(|line| line.len() <= limit));
            let answer = assemble(Some("DEV"), &lines).unwrap();
            assert_eq!(answer.entries.len(), 2);
            assert_eq!(answer.entries[0].get("PRE"), Some(value.as_str()), "{length}");
            assert_eq!(answer.entries[0].get("ONE"), Some("short"));
            assert_eq!(answer.entries[1].get("DEV"), Some("d2"));
            assert_eq!(answer.hop_id.as_deref(), Some("7"));
            assert_eq!(answer.text, "two");
        }
    }

    #[test]
    fn sixteen_pieces_and_one_more() {
        let piece = 8_192 - 7 - REPLY_TEXT_OCTETS_MAX - "REC".len() - 2;
        let write = |length: usize| {
            let value = "x".repeat(length);
            let mut writer = AnswerWriter::new(251, None, 8_192);
            writer.entry(&[("REC", &value)]).map(|()| writer.finish("record"))
        };
        let lines = write(piece * REPLY_PIECES_MAX).unwrap();
        assert_eq!(lines.len(), REPLY_PIECES_MAX);
        assert_eq!(lines[0].len() + REPLY_TEXT_OCTETS_MAX - "more".len(), 8_192);
        assert!(assemble(None, &lines).is_ok());
        assert_eq!(write(piece * REPLY_PIECES_MAX + 1), Err(Error::LineTooLong));
        let mut lines = vec!["251-REC=x :\r\n".to_owned(); REPLY_PIECES_MAX];
        lines.push("251 REC=x :\r\n".into());
        assert!(assemble(None, &lines).is_err());
    }

    #[test]
    fn refused() {
        for lines in [["251-H-ID=1 :", "250 H-ID=1 :"], ["251-H-ID=1 :", "251 H-ID=2 :"]] {
            let mut assembler = Assembler::new(None);
            assert_eq!(assembler.push(&Reply::parse(lines[0].as_bytes()).unwrap()), Ok(None));
            let second = Reply::parse(lines[1].as_bytes()).unwrap();
            assert_eq!(assembler.push(&second), Err(Error::Order));
        }
    }

    #[test]
    fn an_answer_without_values_has_no_entries() {
        let answer = assemble(Some("WHO"), &["250 H-ID=1 :none\r\n".into()]).unwrap();
        assert!(answer.entries.is_empty());
        assert_eq!(answer.code.number(), 250);
    }
}
