//! Where a chat is typed and shown: a line editor in a terminal, plain lines elsewhere.
//!
//! Both confirm what they have shown with the token that came with it.

use std::collections::VecDeque;
use std::io::IsTerminal as _;

use crate::editor::{Editor, Stir, Typed};
use crate::failure::Failure;
use crate::input::{Line, Lines};
use crate::output;

/// Texts that wait to be shown; beyond it the chat takes nothing from the link.
pub(crate) const TEXTS_WAITING_MAX: usize = 1_000;

/// What happens at the console.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Act<T> {
    /// A line was entered.
    Line(String),
    /// What came in is no line to be sent; why.
    Unusable(&'static str),
    /// Nothing more comes in.
    End,
    /// A text was shown.
    Shown(T),
    /// The line being typed changed; whether it holds a text for the other.
    Draft(bool),
}

/// The two ways to talk.
pub(crate) struct Console<T> {
    way: Way<T>,
    /// Tokens of what was shown and not yet told.
    shown: VecDeque<T>,
    /// What stands behind the line being typed.
    status: String,
}

enum Way<T> {
    Editor(Box<Editor<T>>),
    Lines(Lines),
    /// Nothing is read any more.
    Deaf,
}

impl<T: Send + 'static> Console<T> {
    /// An editor if both ends are a terminal that can move its cursor, else lines.
    pub(crate) fn open(is_plain: bool, commands: &'static [&'static str]) -> Result<Self, Failure> {
        let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        let way = match is_terminal && !is_dumb && !is_plain {
            true => Way::Editor(Box::new(Editor::open(commands)?)),
            false => Way::Lines(Lines::of_stdin()),
        };
        Ok(Self { way, shown: VecDeque::new(), status: String::new() })
    }

    /// Whether there is an editor, and with it a place for a status.
    pub(crate) fn has_status(&self) -> bool {
        matches!(self.way, Way::Editor(_))
    }

    /// Whether more may be shown now.
    pub(crate) fn has_room(&self) -> bool {
        match &self.way {
            Way::Editor(editor) => editor.waiting() < TEXTS_WAITING_MAX,
            Way::Lines(_) | Way::Deaf => true,
        }
    }

    /// Whether everything given is shown.
    pub(crate) fn is_idle(&self) -> bool {
        match &self.way {
            Way::Editor(editor) => editor.waiting() == 0 && self.shown.is_empty(),
            Way::Lines(_) | Way::Deaf => self.shown.is_empty(),
        }
    }

    /// Shows a text of one or more lines; [`Act::Shown`] gives the token back.
    pub(crate) fn show(&mut self, text: &str, token: Option<T>) -> Result<(), Failure> {
        match &mut self.way {
            Way::Editor(editor) => {
                let text = match text.starts_with("-- ") {
                    true => output::dim(text),
                    false => text.to_owned(),
                };
                editor.show(format!("{text}\n"), token);
            }
            Way::Lines(_) | Way::Deaf => {
                output::line(text)?;
                self.shown.extend(token);
            }
        }
        Ok(())
    }

    /// Shows this behind the line being typed, if there is a place for it.
    pub(crate) fn set_status(&mut self, status: String) {
        if let Way::Editor(editor) = &mut self.way
            && status != self.status
        {
            self.status.clone_from(&status);
            editor.set_status(status);
        }
    }

    /// What happens next. May be cancelled at any time.
    pub(crate) async fn next(&mut self) -> Result<Act<T>, Failure> {
        loop {
            if let Some(token) = self.shown.pop_front() {
                return Ok(Act::Shown(token));
            }
            let act = match &mut self.way {
                Way::Editor(editor) => match editor.next().await {
                    Stir::Typed(Typed::Line(line)) => Act::Line(line),
                    Stir::Typed(Typed::NoText) => Act::Unusable("that is no text (UTF-8)"),
                    Stir::Typed(Typed::End) => Act::End,
                    Stir::Shown(Some(token)) => Act::Shown(token),
                    Stir::Shown(None) => continue,
                    Stir::Draft(is_text) => Act::Draft(is_text),
                },
                Way::Lines(lines) => match lines.next().await? {
                    Some(Line::Whole(line)) => Act::Line(line),
                    Some(Line::NoText) => Act::Unusable("that is no text (UTF-8)"),
                    Some(Line::TooLong) => Act::Unusable("that line is too long"),
                    None => Act::End,
                },
                Way::Deaf => std::future::pending().await,
            };
            return Ok(act);
        }
    }

    /// Reads nothing more; the terminal is as it was before. What is shown from now on appears
    /// at once.
    pub(crate) async fn stop_reading(&mut self) -> Result<(), Failure> {
        let Way::Editor(editor) = std::mem::replace(&mut self.way, Way::Deaf) else {
            return Ok(());
        };
        let (shown, left) = editor.close().await;
        self.shown.extend(shown.into_iter().flatten());
        for (text, token) in left {
            output::raw(&text)?;
            self.shown.extend(token);
        }
        Ok(())
    }
}
