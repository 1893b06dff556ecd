//! What a command is answered with: one reply, several lines of one reply, or nothing yet.

use protocol::ReplyBuilder;

/// An answer to one command. The last line ends it; all carry the `H-ID` of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The answer is written when a commit or a signature is done.
    Later,
    /// Lines of one reply, in order; never empty.
    Now(Vec<AnswerLine>),
}

/// One line of an answer.
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

    /// The lines of the wire, CRLF included; `None` if the answer comes later.
    pub(super) fn to_lines(&self, hop_id: Option<&str>) -> Option<String> {
        let Self::Now(lines) = self else { return None };
        let count = lines.len();
        let mut octets = String::new();
        for (index, line) in lines.iter().enumerate() {
            let mut reply = if index + 1 == count {
                ReplyBuilder::last(line.code)
            } else {
                ReplyBuilder::more(line.code)
            };
            reply = reply.parameter_if("H-ID", hop_id);
            for (name, value) in &line.parameters {
                reply = reply.parameter(name, value);
            }
            octets.push_str(&reply.text(&line.text));
        }
        Some(octets)
    }
}
