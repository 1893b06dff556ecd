//! The terminal: secrets without an echo, the password's live strength bar, questions.
//!
//! Asks on the terminal itself, so that standard input and output can be pipes. A thread of its
//! own waits for the keys: the link goes on meanwhile, and a signal ends the program. The
//! invariant: whoever leaves this module, or calls [`restore`], leaves the terminal as it was.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use client::password::{self, Assessment};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, read};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::text::visible;

/// Characters of one answer; more are not taken.
const ANSWER_CHARACTERS_MAX: usize = 256;
/// Cells of the bar.
const BAR_CELLS: usize = 20;
/// Columns of a terminal that does not tell.
const COLUMNS: usize = 80;

/// Begins the row anew.
const ROW: &str = "\r\x1b[2K";

/// Asks for a secret without showing it.
pub(crate) async fn ask_secret(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let prompt = visible(prompt);
    beside(move || {
        let mut terminal = open("a password")?;
        type_line(&mut terminal, |terminal, _| write!(terminal, "{ROW}{prompt}"))
    })
    .await
}

/// Asks a question and returns the line that is typed.
pub(crate) async fn ask(prompt: &str) -> Result<String, Failure> {
    let prompt = visible(prompt);
    beside(move || {
        let mut terminal = open("an answer")?;
        let line = type_line(&mut terminal, |terminal, line| {
            write!(terminal, "{ROW}{prompt}{}", visible(line))
        })?;
        Ok(line.trim().to_owned())
    })
    .await
}

/// Asks for a new password twice, with a bar that tells its strength while it is typed. Takes
/// none below `floor`.
pub(crate) async fn choose_password(
    floor: u8,
    known: Vec<String>,
) -> Result<Zeroizing<String>, Failure> {
    beside(move || {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let mut terminal = open("a new password")?;
        writeln!(terminal, "{INTRODUCTION}")?;
        loop {
            let password = type_line(&mut terminal, |terminal, password| {
                let columns =
                    crossterm::terminal::size().map_or(COLUMNS, |(columns, _)| columns.into());
                let assessment = password::assess(password, &known);
                let bar = bar(&assessment, password.chars().count(), floor, columns);
                write!(terminal, "{ROW}{bar}")
            })?;
            let assessment = password::assess(&password, &known);
            if !assessment.meets(floor) {
                writeln!(terminal, "{}", explain(&assessment, floor))?;
                continue;
            }
            let again = type_line(&mut terminal, |terminal, _| write!(terminal, "{ROW}Again: "))?;
            if *again == *password {
                return Ok(password);
            }
            writeln!(terminal, "These were two different passwords.")?;
        }
    })
    .await
}

const INTRODUCTION: &str =
    "Choose a password for your key file. It never leaves this machine; nobody can reset it.";

/// What is wrong with a password, and what would help.
pub(crate) fn explain(assessment: &Assessment, floor: u8) -> String {
    let mut text = format!(
        "Too weak: score {} of 4, this domain asks for {floor}. About 10^{:.0} guesses, {} for an \
         attacker with your key file.",
        assessment.score, assessment.guesses_log10, assessment.time
    );
    for line in assessment.warning.iter().chain(&assessment.advice) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    text
}

/// Returns the terminal to what it was before a question, whoever asks there still.
pub(crate) fn restore() {
    if crossterm::terminal::is_raw_mode_enabled().unwrap_or(false) {
        // There is no better terminal to return to.
        let _ = disable_raw_mode();
        let _ = open("nothing").map(|mut terminal| writeln!(terminal));
    }
}

/// Asks on a thread that may wait for keys. If it is still waiting when the program ends, it ends
/// with the process.
async fn beside<T: Send + 'static>(
    question: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(question)
        .await
        .map_err(|error| Failure::internal(format!("asking ended badly: {error}")))?
}

/// The terminal to write to: the process's own, else standard input if that is one.
fn open(what: &str) -> Result<File, Failure> {
    if let Ok(terminal) = File::options().read(true).write(true).open("/dev/tty") {
        return Ok(terminal);
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(stdin.as_fd().try_clone_to_owned()?.into());
    }
    Err(Failure::usage(format!(
        "{what} is needed and there is no terminal to ask on; for scripts there are --password-file \
         and --address"
    )))
}

/// Raw mode as long as it lives.
struct Raw;

impl Raw {
    fn enter() -> Result<Self, Failure> {
        enable_raw_mode()?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is no better terminal to return to.
        let _ = disable_raw_mode();
    }
}

/// What a key does to the line.
#[derive(Debug, PartialEq, Eq)]
enum Edit {
    Done,
    End,
    Erase,
    Insert(char),
    Nothing,
    Shorten,
}

fn edit(key: &KeyEvent) -> Edit {
    if key.kind == KeyEventKind::Release {
        return Edit::Nothing;
    }
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Enter => Edit::Done,
        KeyCode::Char('c' | 'd') if is_control => Edit::End,
        KeyCode::Char('u') if is_control => Edit::Erase,
        KeyCode::Char('h') if is_control => Edit::Shorten,
        KeyCode::Char('j' | 'm') if is_control => Edit::Done,
        KeyCode::Char(_) if is_control || key.modifiers.contains(KeyModifiers::ALT) => {
            Edit::Nothing
        }
        KeyCode::Char(c) if !c.is_control() => Edit::Insert(c),
        KeyCode::Backspace => Edit::Shorten,
        _ => Edit::Nothing,
    }
}

/// Reads a line key by key; `show` is called after every change, and at the beginning: what it
/// shows there appears when nothing is echoed any more.
fn type_line(
    terminal: &mut File,
    mut show: impl FnMut(&mut File, &str) -> std::io::Result<()>,
) -> Result<Zeroizing<String>, Failure> {
    // Room for every character from the start, so that growing leaves no copies behind.
    let mut line = Zeroizing::new(String::with_capacity(ANSWER_CHARACTERS_MAX * 4));
    let raw = Raw::enter()?;
    let is_done = loop {
        show(terminal, &line)?;
        let Event::Key(key) = read()? else { continue };
        match edit(&key) {
            Edit::Done => break true,
            Edit::End => break false,
            Edit::Erase => line.clear(),
            Edit::Insert(c) if line.chars().count() < ANSWER_CHARACTERS_MAX => line.push(c),
            Edit::Shorten => drop(line.pop()),
            Edit::Insert(_) | Edit::Nothing => {}
        }
    };
    drop(raw);
    writeln!(terminal)?;
    match is_done {
        true => Ok(line),
        false => Err(Failure::stopped("ended without an answer")),
    }
}

/// One row that tells how strong a password is, at most `columns` wide: a longer one would wrap,
/// and each key would leave a row behind.
fn bar(assessment: &Assessment, characters: usize, floor: u8, columns: usize) -> String {
    let cells =
        if characters == 0 { 0 } else { (usize::from(assessment.score) + 1) * BAR_CELLS / 5 };
    let verdict = match assessment.score {
        _ if characters == 0 => "type",
        score if score < floor => "too weak",
        3 => "good",
        4 => "strong",
        _ => "enough here",
    };
    let advice = assessment
        .warning
        .as_deref()
        .or(assessment.advice.first().map(String::as_str))
        .unwrap_or_default();
    let row = format!(
        "Password: {}{} {verdict}  10^{:.0} guesses, {}  {advice}",
        "#".repeat(cells),
        ".".repeat(BAR_CELLS - cells),
        assessment.guesses_log10,
        assessment.time,
    );
    // The last column stays free: some terminals wrap when it is filled.
    row.chars().take(columns.saturating_sub(1)).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_one_row_and_shows_no_password() {
        for columns in [0, 1, 20, 80, 200] {
            for password in ["", "alice", "seven quiet otters map the harbour"] {
                let assessment = password::assess(password, &[]);
                let row = bar(&assessment, password.chars().count(), 3, columns);
                assert!(row.chars().count() < columns.max(1), "{columns}: {row:?}");
                assert!(password.is_empty() || !row.contains(password), "{row:?}");
            }
        }
        let strong = password::assess("seven quiet otters map the harbour", &[]);
        assert!(bar(&strong, 34, 3, 80).starts_with("Password: #################### strong"));
        let weak = password::assess("alice", &[]);
        assert!(bar(&weak, 5, 3, 80).contains(" too weak "));
    }

    #[test]
    fn keys_do_what_they_do_elsewhere() {
        let key = |code, modifiers| edit(&KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('x'), KeyModifiers::NONE), Edit::Insert('x'));
        assert_eq!(key(KeyCode::Char('X'), KeyModifiers::SHIFT), Edit::Insert('X'));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Edit::End);
        assert_eq!(key(KeyCode::Char('d'), KeyModifiers::CONTROL), Edit::End);
        assert_eq!(key(KeyCode::Char('u'), KeyModifiers::CONTROL), Edit::Erase);
        assert_eq!(key(KeyCode::Char('a'), KeyModifiers::CONTROL), Edit::Nothing);
        assert_eq!(key(KeyCode::Char('\u{1b}'), KeyModifiers::NONE), Edit::Nothing);
        assert_eq!(key(KeyCode::Backspace, KeyModifiers::NONE), Edit::Shorten);
        assert_eq!(key(KeyCode::Enter, KeyModifiers::NONE), Edit::Done);
        assert_eq!(key(KeyCode::Esc, KeyModifiers::NONE), Edit::Nothing);
    }
}
