//! The line editor of a chat in a terminal: what comes in appears above the line being typed.
//!
//! rustyline reads keys on a thread of its own; a second thread hands it what is to be shown.
//! History lives in memory only: on disk it would be plaintext. The invariants:
//!
//! - A `Token` comes back only when its text is on the terminal. rustyline's printer takes one
//!   text ahead, and a text that is followed by another has been printed: so each is followed by
//!   [`FENCE`], which prints nothing.
//! - What was not printed when the editor ends is given back to be printed by the caller.
//! - The terminal is as it was before when [`Editor::close`] returns.
//! - No text is printed here that was not made safe before ([`crate::text`]); of the line being
//!   typed the controls, which may have been pasted, are not shown.

use std::borrow::Cow;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc as queue};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::completion::Completer;
use rustyline::config::BellStyle;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::MemHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Cmd, CompletionType, ConditionalEventHandler, Context, Event, EventContext, EventHandler,
    ExternalPrinter, Helper, KeyEvent, Movement, RepeatCount,
};
use tokio::sync::{mpsc, watch};
use unicode_width::UnicodeWidthStr as _;

use crate::failure::Failure;
use crate::output;
use crate::text::is_hidden;

/// What stands before the line being typed.
const PROMPT: &str = "> ";
/// Columns of the status behind the line being typed, its two spaces included.
const STATUS_COLUMNS: usize = 32;
/// Lines that can be called back with the arrow keys; older ones are forgotten.
const HISTORY_LINES_MAX: usize = 100;
/// Texts that are printed together.
const BATCH_MAX: usize = 64;
/// Prints nothing: up one row and down again. A line end must be its end.
const FENCE: &str = "\x1b[A\n";
/// How long the editor's thread may take to give the terminal back.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// How often it is asked to.
const CLOSE_AGAIN: Duration = Duration::from_millis(10);

/// What the person did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Entered a line.
    Line(String),
    /// Typed what is no UTF-8.
    NoText,
    /// Wants to end, or the terminal is gone.
    End,
}

/// What happens at the terminal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stir<T> {
    /// The person did something.
    Typed(Typed),
    /// A text is on the terminal.
    Shown(Option<T>),
    /// The line being typed changed; whether it holds a text for the other.
    Draft(bool),
}

/// A text to be printed; `text` is empty if only the status changed.
struct Job<T> {
    text: String,
    token: Option<T>,
}

/// The line being typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Draft {
    is_text: bool,
    strokes: u64,
}

/// What the threads share.
struct Shared {
    gate: Mutex<Gate>,
    turned: Condvar,
    status: Mutex<String>,
    draft: watch::Sender<Draft>,
}

/// Whether the editor reads keys: only then what is printed goes above the line.
#[derive(Default)]
struct Gate {
    is_reading: bool,
    is_over: bool,
}

impl Shared {
    /// Lets texts through; false if the editor is to end.
    fn begin_reading(&self) -> bool {
        let mut gate = lock(&self.gate);
        gate.is_reading = !gate.is_over;
        self.turned.notify_all();
        gate.is_reading
    }

    fn end_reading(&self) {
        lock(&self.gate).is_reading = false;
    }

    fn finish(&self) {
        lock(&self.gate).is_over = true;
        self.turned.notify_all();
    }

    fn is_over(&self) -> bool {
        lock(&self.gate).is_over
    }

    /// Waits until keys are read; false if they never will be again.
    fn wait_reading(&self) -> bool {
        let mut gate = lock(&self.gate);
        while !gate.is_reading && !gate.is_over {
            gate = self.turned.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
        !gate.is_over
    }
}

/// What a lock guards here is whole after every step, so a panic elsewhere harms nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The editor and its threads.
pub(super) struct Editor<T> {
    shared: Arc<Shared>,
    typed: mpsc::UnboundedReceiver<Typed>,
    jobs: queue::Sender<Job<T>>,
    shown: mpsc::UnboundedReceiver<Option<T>>,
    draft: watch::Receiver<Draft>,
    /// Texts given to the printer and not yet on the terminal.
    waiting: usize,
    reader: JoinHandle<()>,
    printer: JoinHandle<Vec<Job<T>>>,
    before: Termios,
}

impl<T: Send + 'static> Editor<T> {
    /// Starts to read; `commands` are completed by the tab key. Signals must be listened to
    /// already: [`Editor::close`] sends one.
    pub(super) fn open(commands: &'static [&'static str]) -> Result<Self, Failure> {
        let failed = |error: ReadlineError| Failure::internal(format!("no line editor: {error}"));
        let before = tcgetattr(std::io::stdin()).map_err(std::io::Error::from)?;
        let (draft, drafts) = watch::channel(Draft::default());
        let shared = Arc::new(Shared {
            gate: Mutex::default(),
            turned: Condvar::new(),
            status: Mutex::default(),
            draft,
        });
        let config = rustyline::Config::builder()
            .auto_add_history(true)
            .bell_style(BellStyle::None)
            .completion_type(CompletionType::List)
            .max_history_size(HISTORY_LINES_MAX)
            .map_err(failed)?
            .build();
        let history = MemHistory::with_config(&config);
        let mut editor = rustyline::Editor::with_history(config, history).map_err(failed)?;
        let printer = editor.create_external_printer().map_err(failed)?;
        let clear = EventHandler::Conditional(Box::new(Clear));
        editor.bind_sequence(KeyEvent::ctrl('C'), clear);
        editor.set_helper(Some(Assistant { shared: Arc::clone(&shared), commands }));
        let (typing, typed) = mpsc::unbounded_channel();
        let (jobs, waiting) = queue::channel();
        let (showing, shown) = mpsc::unbounded_channel();
        let reader = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || read(editor, &shared, &typing)
        });
        let printer = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || print(printer, &shared, &waiting, &showing)
        });
        let draft = drafts;
        Ok(Self { shared, typed, jobs, shown, draft, waiting: 0, reader, printer, before })
    }

    /// Texts given and not yet on the terminal.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Prints above the line being typed; [`Stir::Shown`] says when that is done.
    pub(super) fn show(&mut self, text: String, token: Option<T>) {
        self.waiting += 1;
        // The printer takes jobs until this is closed.
        let _ = self.jobs.send(Job { text, token });
    }

    /// Shows this behind the line being typed.
    pub(super) fn set_status(&mut self, status: String) {
        *lock(&self.shared.status) = status;
        self.show(String::new(), None);
    }

    /// What happens next. May be cancelled at any time.
    pub(super) async fn next(&mut self) -> Stir<T> {
        tokio::select! {
            // A line before the emptiness that follows it.
            biased;
            typed = self.typed.recv() => Stir::Typed(typed.unwrap_or(Typed::End)),
            Some(token) = self.shown.recv() => {
                self.waiting = self.waiting.saturating_sub(1);
                Stir::Shown(token)
            }
            Ok(()) = self.draft.changed() => Stir::Draft(self.draft.borrow_and_update().is_text),
        }
    }

    /// Gives the terminal back. Returns the tokens of what is on the terminal and was not told
    /// yet, and the texts that are not.
    pub(super) async fn close(mut self) -> (Vec<Option<T>>, Vec<(String, Option<T>)>) {
        self.shared.finish();
        drop(self.jobs);
        let end = tokio::time::Instant::now() + CLOSE_DEADLINE;
        while !self.reader.is_finished() && tokio::time::Instant::now() < end {
            // While it reads keys, rustyline takes this signal for Ctrl-C and leaves in order.
            let _ = kill_process(getpid(), Signal::INT);
            tokio::time::sleep(CLOSE_AGAIN).await;
        }
        // As it should be already, unless the thread is stuck.
        let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Drain, &self.before);
        let left = match self.reader.is_finished() {
            true => self.printer.join().unwrap_or_default(),
            false => Vec::new(),
        };
        let mut shown = Vec::new();
        while let Ok(token) = self.shown.try_recv() {
            shown.push(token);
        }
        (shown, left.into_iter().map(|job| (job.text, job.token)).collect())
    }
}

/// Reads lines until the person wants to end.
fn read(
    mut editor: rustyline::Editor<Assistant, MemHistory>,
    shared: &Shared,
    typed: &mpsc::UnboundedSender<Typed>,
) {
    while shared.begin_reading() {
        let line = editor.readline(PROMPT);
        shared.end_reading();
        let what = match line {
            Ok(line) => Typed::Line(line),
            Err(ReadlineError::Interrupted) if shared.is_over() => break,
            Err(ReadlineError::Io(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                Typed::NoText
            }
            // A terminal that gives errors is a terminal that is gone.
            Err(_) => Typed::End,
        };
        let is_end = what == Typed::End;
        if typed.send(what).is_err() || is_end {
            break;
        }
    }
    shared.finish();
}

/// Prints what is given until the editor ends; returns what was not printed.
fn print<T>(
    mut printer: impl ExternalPrinter,
    shared: &Shared,
    jobs: &queue::Receiver<Job<T>>,
    shown: &mpsc::UnboundedSender<Option<T>>,
) -> Vec<Job<T>> {
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        batch.extend(jobs.try_iter().take(BATCH_MAX - 1));
        let text: String = batch.iter().map(|job| job.text.as_str()).collect();
        let is_printed = shared.wait_reading()
            && (text.is_empty() || printer.print(text).is_ok())
            && printer.print(FENCE.to_owned()).is_ok();
        if !is_printed {
            batch.extend(jobs.iter());
            return batch;
        }
        for job in batch {
            // Nobody asks any more when the program ends.
            let _ = shown.send(job.token);
        }
    }
    Vec::new()
}

/// What rustyline asks while a line is typed.
struct Assistant {
    shared: Arc<Shared>,
    commands: &'static [&'static str],
}

impl Helper for Assistant {}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..position).unwrap_or_default();
        let fits = |command: &&&str| !typed.is_empty() && command.starts_with(typed);
        Ok((0, self.commands.iter().filter(fits).map(|command| format!("{command} ")).collect()))
    }
}

impl Hinter for Assistant {
    type Hint = Status;

    /// Called whenever the line changed: tells the chat, and makes room for the status.
    fn hint(&self, line: &str, _: usize, _: &Context<'_>) -> Option<Status> {
        self.shared.draft.send_modify(|draft| {
            let is_text = is_text(line);
            let strokes = draft.strokes + 1;
            *draft = Draft { is_text, strokes };
        });
        let (columns, _) = crossterm::terminal::size().ok()?;
        let used = PROMPT.width() + line.width() + STATUS_COLUMNS;
        let has_room = !line.contains(['\n', '\t']) && used < usize::from(columns);
        has_room.then(|| Status(fitted(&lock(&self.shared.status))))
    }
}

impl Highlighter for Assistant {
    /// Controls have no width for rustyline and must have none on the terminal.
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        match line.contains(is_hidden) {
            true => Cow::Owned(line.chars().filter(|&c| !is_hidden(c)).collect()),
            false => Cow::Borrowed(line),
        }
    }

    /// The status of now, not of when the line changed: it has the same width.
    fn highlight_hint<'h>(&self, _: &'h str) -> Cow<'h, str> {
        Cow::Owned(output::dim(&fitted(&lock(&self.shared.status))))
    }
}

impl Validator for Assistant {
    /// Called when a line is entered: what comes now has to wait for the next.
    fn validate(&self, _: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        self.shared.end_reading();
        Ok(ValidationResult::Valid(None))
    }
}

/// Ctrl-C on a line that is not empty: throws it away, where it would end the editor.
struct Clear;

impl ConditionalEventHandler for Clear {
    fn handle(
        &self,
        _: &Event,
        _: RepeatCount,
        _: bool,
        context: &EventContext<'_>,
    ) -> Option<Cmd> {
        (!context.line().is_empty()).then_some(Cmd::Kill(Movement::WholeLine))
    }
}

/// A status of fixed width.
struct Status(String);

impl Hint for Status {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

/// Whether a line, were it entered, would be sent to the other.
fn is_text(line: &str) -> bool {
    !line.trim().is_empty() && (!line.starts_with('/') || line.starts_with("//"))
}

/// A status in exactly [`STATUS_COLUMNS`], so that it can change without a new layout.
fn fitted(status: &str) -> String {
    let mut row = "  ".to_owned();
    let mut columns = row.width();
    for c in status.chars() {
        let next = unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
        if columns + next > STATUS_COLUMNS {
            break;
        }
        row.push(c);
        columns += next;
    }
    row.extend(std::iter::repeat_n(' ', STATUS_COLUMNS - columns));
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_one_width_whatever_it_says() {
        for status in ["", "read", "\u{6771}\u{4eac} is typing \u{2026}", &"x".repeat(100)] {
            assert_eq!(fitted(status).width(), STATUS_COLUMNS, "{status:?}");
        }
        let wide = "\u{6771}".repeat(40);
        assert_eq!(fitted(&wide).width(), STATUS_COLUMNS);
    }

    #[test]
    fn a_command_is_no_text() {
        for (line, wanted) in
            [("", false), ("  ", false), ("hi", true), ("/quit", false), ("//usr", true)]
        {
            assert_eq!(is_text(line), wanted, "{line:?}");
        }
    }
}
