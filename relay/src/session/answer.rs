//! What a command is answered with: one reply, several lines of one reply, or nothing yet.

use protocol::reply::AnswerWriter;

/// An answer to one command. The last line ends it; all carry the `H-ID` of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The answer is written when a commit or a signature is done.
    Later,
    /// Entries of one reply, in order; never empty.
    Now(Vec<AnswerLine>),
}

/// One entry of an answer; cut into several lines where a link needs that. The code and the text
/// of the last one count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerLine {
    code: u16,
    parameters: Vec<(&'static str, String)>,
    text: String,
}

impl AnswerLine {
    /// A line with `code` and text for eyes.
    pub fn new(code: u16, text: &str) -> Self {
        Self { code, parameters: Vec::new(), text: text.to_owned() }
    }

    /// Adds a parameter whose value is in its wire form.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.parameters.push((name, value.to_string()));
        self
    }
}

impl From<AnswerLine> for Answer {
    fn from(line: AnswerLine) -> Self {
        Self::Now(vec![line])
    }
}

impl Answer {
    /// One line without parameters.
    pub fn text(code: u16, text: &str) -> Self {
        AnswerLine::new(code, text).into()
    }

    /// The reply that says why a line is not what its command asks for.
    pub fn error(error: protocol::Error) -> Self {
        Self::text(error.reply_code(), &error.to_string())
    }

    /// The text for eyes of the last line.
    pub(super) fn last_text(&self) -> &str {
        match self {
            Self::Later => "",
            Self::Now(lines) => lines.last().map_or("", |line| &line.text),
        }
    }

    /// The lines of the wire, CRLF included, none longer than the other side takes; `None` if
    /// the answer comes later.
    pub(super) fn to_lines(
        &self,
        hop_id: Option<&str>,
        line_octets_max: usize,
    ) -> Option<Vec<String>> {
        let Self::Now(lines) = self else { return None };
        let last = lines.last()?;
        let mut writer = AnswerWriter::new(last.code, hop_id, line_octets_max);
        for line in lines.iter().filter(|line| !line.parameters.is_empty()) {
            let values: Vec<(&str, &str)> =
                line.parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
            if let Err(error) = writer.entry(&values) {
                let code = error.reply_code();
                return Some(AnswerWriter::new(code, hop_id, line_octets_max).finish(error.text()));
            }
        }
        Some(writer.finish(&last.text))
    }
}
