//! Transcripts of conversations, readable by a person: read, filled in and matched.
//!
//! `dialogues/README.md` describes the format. A transcript has links, lines of the client
//! (`C:`) and lines of the relay (`S:`) with placeholders such as `<id:m1>`. Whoever runs one
//! gives the client's placeholders their values and lets the relay's lines be compared; a name
//! keeps its value to the end. Nothing but tests uses this; it is here so that the tests of
//! this crate and of the relay read transcripts alike.

use core::fmt;

use crate::parameter::number;
use crate::{Command, Line, base64};

/// A whole transcript.
#[derive(Clone, Debug)]
pub struct Dialogue {
    /// The domain that the relay serves.
    pub domain: String,
    /// The links in the order of the transcript.
    pub links: Vec<DialogueLink>,
    /// What is said, in order.
    pub steps: Vec<Step>,
}

/// A link between a client and the relay.
#[derive(Clone, Debug)]
pub struct DialogueLink {
    /// The short name.
    pub name: String,
    /// The device that speaks on it.
    pub device: String,
    /// Whether the login was gone through before the transcript begins.
    pub is_proven: bool,
}

/// One line that is said.
#[derive(Clone, Debug)]
pub struct Step {
    /// The number of the line in the transcript, from 1.
    pub number: usize,
    /// The short name of the link.
    pub link: String,
    /// Who says it.
    pub speaker: Speaker,
    /// The line with its placeholders.
    pub template: Template,
}

/// Who says a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// `C:`
    Client,
    /// `S:`
    Relay,
}

/// Why a transcript cannot be read, or a line is not the one it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The number of the line in the transcript.
    pub number: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.number, self.what)
    }
}

impl core::error::Error for Mismatch {}

impl Dialogue {
    /// Reads a transcript.
    ///
    /// # Errors
    /// [`Mismatch`] naming the line that does not follow the format.
    pub fn parse(text: &str) -> Result<Self, Mismatch> {
        let mut dialogue = Self { domain: String::new(), links: Vec::new(), steps: Vec::new() };
        let mut numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line)).peekable();
        while let Some((number, line)) = numbered.next() {
            let mut line = line.trim_end().to_owned();
            while let Some((_, more)) = numbered.next_if(|(_, next)| next.starts_with("    ")) {
                line.push(' ');
                line.push_str(more.trim());
            }
            dialogue.read(number, &line).ok_or_else(|| Mismatch {
                number,
                what: format!("neither a comment, a header nor a line that is said: {line}"),
            })?;
        }
        Ok(dialogue)
    }

    fn read(&mut self, number: usize, line: &str) -> Option<()> {
        if line.is_empty() || line.starts_with('#') {
            return Some(());
        }
        if let Some(domain) = line.strip_prefix("domain ") {
            self.domain = domain.into();
            return Some(());
        }
        if let Some(link) = line.strip_prefix("link ") {
            let (name, device) = link.split_once(' ')?;
            let (device, is_proven) = match device.split_once(' ') {
                Some((device, "proven")) => (device, true),
                Some(_) => return None,
                None => (device, false),
            };
            self.links.push(DialogueLink { name: name.into(), device: device.into(), is_proven });
            return Some(());
        }
        let (head, template) = line.split_once(": ")?;
        let (link, speaker) = match head.split_once(' ') {
            Some((link, speaker)) => (link, speaker),
            None => (self.links.first()?.name.as_str(), head),
        };
        let speaker = match speaker {
            "C" => Speaker::Client,
            "S" => Speaker::Relay,
            _ => return None,
        };
        self.links.iter().find(|known| known.name == link)?;
        let template = Template::parse(template)?;
        let link = link.into();
        self.steps.push(Step { number, link, speaker, template });
        Some(())
    }
}

/// A line with placeholders.
#[derive(Clone, Debug)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Placeholder(Placeholder),
}

/// `<kind>` or `<kind:name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// What the value is; see `dialogues/README.md`.
    pub kind: String,
    /// Equal names of one kind have equal values.
    pub name: Option<String>,
}

/// The values that names have so far.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    values: Vec<(Placeholder, String)>,
}

impl Bindings {
    /// The value of `<kind:name>`.
    #[must_use]
    pub fn get(&self, kind: &str, name: &str) -> Option<&str> {
        self.values
            .iter()
            .find(|(p, _)| p.kind == kind && p.name.as_deref() == Some(name))
            .map(|(_, value)| value.as_str())
    }

    /// Gives `<kind:name>` its value; a value given before stays.
    pub fn set(&mut self, kind: &str, name: &str, value: &str) {
        let placeholder = Placeholder { kind: kind.into(), name: Some(name.into()) };
        if self.get(kind, name).is_none() {
            self.values.push((placeholder, value.into()));
        }
    }
}

impl Template {
    fn parse(text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        // The text of a reply is for eyes and has no placeholders.
        while let Some((before, behind)) = rest.split_once('<') {
            let (inside, behind) = behind.split_once('>')?;
            pieces.push(Piece::Text(before.into()));
            let (kind, name) = match inside.split_once(':') {
                Some((kind, name)) => (kind, Some(name.to_owned())),
                None => (inside, None),
            };
            pieces.push(Piece::Placeholder(Placeholder { kind: kind.into(), name }));
            rest = behind;
        }
        pieces.push(Piece::Text(rest.into()));
        Some(Self { pieces })
    }

    /// The line with every placeholder replaced: by the value its name has, else by what
    /// `value` gives it, which its name then keeps.
    pub fn fill(
        &self,
        bindings: &mut Bindings,
        mut value: impl FnMut(&Placeholder, &str) -> String,
    ) -> String {
        let mut line = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => line.push_str(text),
                Piece::Placeholder(placeholder) => {
                    let name = placeholder.name.as_deref();
                    let bound = name.and_then(|name| bindings.get(&placeholder.kind, name));
                    let text = match bound {
                        Some(text) => text.to_owned(),
                        None => value(placeholder, &line),
                    };
                    if let Some(name) = name {
                        bindings.set(&placeholder.kind, name, &text);
                    }
                    line.push_str(&text);
                }
            }
        }
        line
    }

    /// Compares a line from the relay, without CRLF: code, whether more lines follow, TO,
    /// FROM, each parameter shown (in any order; others may stand beside them), body,
    /// signature. The text of a reply is not compared.
    ///
    /// # Errors
    /// What differs.
    pub fn matches(&self, line: &str, bindings: &mut Bindings) -> Result<(), String> {
        // Placeholders become marks that may stand in any word, so the template is a line.
        let mut marks: Vec<&Placeholder> = Vec::new();
        let mut shown = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => shown.push_str(text),
                Piece::Placeholder(placeholder) => {
                    shown.push_str(&mark(marks.len()));
                    marks.push(placeholder);
                }
            }
        }
        let expected =
            Line::parse(shown.as_bytes()).map_err(|error| format!("transcript: {error}"))?;
        let found = Line::parse(line.as_bytes()).map_err(|error| format!("{error}: {line}"))?;
        let mut pairs: Vec<(String, String)> = Vec::new();
        let parameters = match (&expected, &found) {
            (Line::Reply(expected), Line::Reply(found)) => {
                pairs.push((head(expected), head(found)));
                (expected.parameters(), found.parameters())
            }
            (Line::Command(expected), Line::Command(found)) => {
                pairs.extend(parts(expected).into_iter().zip(parts(found)));
                (expected.parameters(), found.parameters())
            }
            _ => return Err(format!("a command where a reply is due, or a reply: {line}")),
        };
        for parameter in parameters.0.iter() {
            let value = parameters.1.get(parameter.name);
            let value = value.ok_or_else(|| format!("no {}=: {line}", parameter.name))?;
            pairs.push((parameter.value.into(), value.into()));
        }
        for (expected, found) in pairs {
            compare(&expected, &found, &marks, bindings)
                .map_err(|what| format!("{what}: {line}"))?;
        }
        Ok(())
    }
}

/// Compares a word or value, a list item by item.
fn compare(
    expected: &str,
    found: &str,
    marks: &[&Placeholder],
    bindings: &mut Bindings,
) -> Result<(), String> {
    let at = (0..marks.len()).find(|at| expected == mark(*at));
    if let Some(placeholder) = at.and_then(|at| marks.get(at)) {
        return take(placeholder, found, bindings);
    }
    if expected == found {
        return Ok(());
    }
    let items = |list: &str| list.split(',').map(str::to_owned).collect::<Vec<_>>();
    let (one, other) = (items(expected), items(found));
    if one.len() < 2 || one.len() != other.len() {
        return Err(format!("{expected} expected, {found} found"));
    }
    one.iter().zip(&other).try_for_each(|(one, other)| compare(one, other, marks, bindings))
}

/// A word that stands for the placeholder at this position, valid as slot and as value.
fn mark(position: usize) -> String {
    format!("mark{position:04}")
}

fn head(reply: &crate::Reply<'_>) -> String {
    format!("{}{}", reply.code(), if reply.is_last() { ' ' } else { '-' })
}

/// Code, TO, FROM, body and signature, `-` for what is absent.
fn parts(command: &Command<'_>) -> [String; 5] {
    let address = |address: Option<crate::Address<'_>>| {
        address.map_or_else(|| "-".into(), |address| address.to_string())
    };
    let slot = |slot: Option<&str>| slot.unwrap_or("-").to_owned();
    [
        command.code().to_string(),
        address(command.to()),
        address(command.from()),
        slot(command.body_text()),
        slot(command.signature_text()),
    ]
}

/// Checks a value against its placeholder and lets its name keep it.
fn take(placeholder: &Placeholder, found: &str, bindings: &mut Bindings) -> Result<(), String> {
    let octets = || base64::decode(found).map(|octets| octets.len()).ok();
    let is_good = match placeholder.kind.as_str() {
        "id" => octets() == Some(16),
        "hash" | "kr" | "nonce" => octets() == Some(32),
        "later" | "number" | "past" | "time" => number(found).is_some(),
        "text" => true,
        _ => octets().is_some(),
    };
    if !is_good {
        return Err(format!("{found} is no {}", placeholder.kind));
    }
    let Some(name) = &placeholder.name else { return Ok(()) };
    match bindings.get(&placeholder.kind, name) {
        Some(bound) if bound != found => Err(format!("{name} was {bound}, is {found}")),
        _ => {
            bindings.set(&placeholder.kind, name, found);
            Ok(())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn step(line: &str) -> Step {
        let text = format!("domain a.example\nlink a alice@a.example/d1\n{line}\n");
        Dialogue::parse(&text).unwrap().steps.remove(0)
    }

    #[test]
    fn reads_headers_comments_and_continued_lines() {
        let text = "# a title\n\ndomain a.example\n\
                    link a alice@a.example/d1\nlink b bob@a.example/d7\n\
                    C: 015 H-ID=1\na S: 250 H-ID=1 :done\nb C: 014\n    H-Q=1\n    KEEP=1\n";
        let dialogue = Dialogue::parse(text).unwrap();
        assert_eq!(dialogue.links.len(), 2);
        assert_eq!(dialogue.steps.len(), 3);
        let filled =
            dialogue.steps[2].template.fill(&mut Bindings::default(), |_, _| String::new());
        assert_eq!(filled, "014 H-Q=1 KEEP=1");
        assert_eq!(dialogue.steps[2].number, 8);
        for bad in ["hello", "c C: 015", "X: 015", "C: <id"] {
            let text = format!("domain a\nlink a a@a/d\n{bad}");
            assert_eq!(Dialogue::parse(&text).unwrap_err().number, 3, "{bad}");
        }
    }

    #[test]
    fn names_keep_their_values() {
        let mut bindings = Bindings::default();
        let sent = step("C: 130 TO b@a FROM alice@a.example/d1 RE=<id:m> VIA=HOLD").template;
        let line = sent.fill(&mut bindings, |_, _| "AAAAAAAAAAAAAAAAAAAAAA".into());
        assert!(line.contains("RE=AAAAAAAAAAAAAAAAAAAAAA "));
        let heard = step("S: 251 X=<id:m> Q=<number:q> R=<number:q> :text").template;
        let good = "251 R=7 X=AAAAAAAAAAAAAAAAAAAAAA MORE=1 Q=7 :another text";
        assert_eq!(heard.matches(good, &mut bindings.clone()), Ok(()));
        for bad in [
            "250 R=7 X=AAAAAAAAAAAAAAAAAAAAAA Q=7 :",
            "251-R=7 X=AAAAAAAAAAAAAAAAAAAAAA Q=7 :",
            "251 R=7 X=AAAAAAAAAAAAAAAAAAAAAQ Q=7 :",
            "251 R=8 X=AAAAAAAAAAAAAAAAAAAAAA Q=7 :",
            "251 R=x X=AAAAAAAAAAAAAAAAAAAAAA Q=x :",
            "251 X=AAAAAAAAAAAAAAAAAAAAAA Q=7 :",
            "190 R=7",
        ] {
            assert!(heard.matches(bad, &mut bindings.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_are_compared_item_by_item() {
        let heard = step("S: 251 RE=<number:a>,7,<number:a> :text").template;
        let matches = |line: &str| heard.matches(line, &mut Bindings::default());
        assert_eq!(matches("251 RE=1,7,1 :"), Ok(()));
        for bad in ["251 RE=1,7,2 :", "251 RE=1,8,1 :", "251 RE=1,7 :", "251 RE=1 :"] {
            assert!(matches(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_are_compared_part_by_part() {
        let heard = step("S: 100 TO b@a FROM c@a/d SEQ=1 <sealed> <signature>").template;
        let matches = |line: &str| heard.matches(line, &mut Bindings::default());
        assert_eq!(matches("100 TO b@a FROM c@a/d H-Q=9 SEQ=1 AAAA AAAA"), Ok(()));
        for bad in [
            "101 TO b@a FROM c@a/d SEQ=1 AAAA AAAA",
            "100 TO x@a FROM c@a/d SEQ=1 AAAA AAAA",
            "100 TO b@a FROM c@a/x SEQ=1 AAAA AAAA",
            "100 TO b@a FROM c@a/d SEQ=2 AAAA AAAA",
            "100 TO b@a FROM c@a/d SEQ=1 AAAA",
        ] {
            assert!(matches(bad).is_err(), "{bad}");
        }
    }
}
