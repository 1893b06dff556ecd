//! The terminal: secrets without an echo, the password's live strength bar, questions.

use std::io::{IsTerminal as _, Write as _};

use client::password::{self, Assessment};
use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, read};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Characters that a password may have.
const PASSWORD_CHARACTERS_MAX: usize = 256;
/// Cells of the bar.
const BAR_CELLS: usize = 20;

/// Asks for a secret without showing it.
pub(crate) fn ask_secret(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    need_terminal("a password")?;
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|error| Failure::usage(format!("cannot read from the terminal: {error}")))
}

/// Asks a question and returns the line that is typed.
pub(crate) fn ask(prompt: &str) -> Result<String, Failure> {
    need_terminal("an answer")?;
    print!("{prompt}");
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Asks for a new password twice, with a bar that tells its strength while it is typed. Takes
/// none below `floor`.
pub(crate) fn choose_password(floor: u8, known: &[&str]) -> Result<Zeroizing<String>, Failure> {
    need_terminal("a new password")?;
    loop {
        let password = type_with_bar(floor, known)?;
        let assessment = password::assess(&password, known);
        if !assessment.meets(floor) {
            println!("{}", explain(&assessment, floor));
            continue;
        }
        let again = ask_secret("Again: ")?;
        if *again == *password {
            return Ok(password);
        }
        println!("These were two different passwords.");
    }
}

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

fn need_terminal(what: &str) -> Result<(), Failure> {
    if std::io::stdin().is_terminal() {
        return Ok(());
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

fn type_with_bar(floor: u8, known: &[&str]) -> Result<Zeroizing<String>, Failure> {
    println!(
        "Choose a password for your key file. It never leaves this machine; nobody can reset it."
    );
    let raw = Raw::enter()?;
    // Room for every character from the start, so that growing leaves no copies behind.
    let mut password = Zeroizing::new(String::with_capacity(PASSWORD_CHARACTERS_MAX * 4));
    loop {
        show_bar(&password::assess(&password, known), password.chars().count(), floor)?;
        let Event::Key(key) = read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match key.code {
            KeyCode::Enter => break,
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                drop(raw);
                println!();
                return Err(Failure::usage("ended before a password was chosen"));
            }
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => password.clear(),
            KeyCode::Char(c) if password.chars().count() < PASSWORD_CHARACTERS_MAX => {
                password.push(c);
            }
            KeyCode::Backspace => {
                password.pop();
            }
            _ => {}
        }
    }
    drop(raw);
    println!();
    Ok(password)
}

fn show_bar(assessment: &Assessment, characters: usize, floor: u8) -> std::io::Result<()> {
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
    let mut out = std::io::stdout();
    write!(
        out,
        "\r\x1b[2KPassword: {}{} {verdict}  10^{:.0} guesses, {}  {advice}",
        "#".repeat(cells),
        ".".repeat(BAR_CELLS - cells),
        assessment.guesses_log10,
        assessment.time,
    )?;
    out.flush()
}
