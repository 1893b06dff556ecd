//! A program on a pseudo-terminal, with a screen that shows what a person would see.

use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use pty_process::Size;
use pty_process::blocking::{Pts, Pty, open};
use rustix::process::{Signal, kill_process};
use rustix::termios::{InputModes, LocalModes, OutputModes, Termios, tcgetattr};

use crate::person::PATIENCE;
use crate::process::{POLL, pid_of};

/// Rows and columns of the screen.
const ROWS: NonZero<u16> = NonZero::new(30).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(100).unwrap();
/// Rows kept that have left the screen.
const SCROLLBACK: usize = 1_000;
/// Octets read at once.
const READ_OCTETS: usize = 4_096;

/// A running program with its terminal.
pub struct Terminal {
    child: Child,
    keys: Pty,
    /// Kept open so that the settings can be read after the program has ended.
    _line: Pts,
    display: Arc<Mutex<Display>>,
    before: Termios,
}

struct Display {
    screen: vt100::Parser,
    /// Everything written, as it came.
    octets: Vec<u8>,
}

impl Terminal {
    /// Starts `command` with the terminal as input, output and controlling terminal.
    ///
    /// # Errors
    /// If there is no terminal or the program cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let (keys, line) = open()?;
        keys.resize(Size::new(ROWS.get(), COLUMNS.get()))?;
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let before = tcgetattr(&keys)?;
        let child = pty_process::blocking::Command::from(command).spawn_borrowed(&line)?;
        let display = Arc::new(Mutex::new(Display {
            screen: vt100::Parser::new(ROWS, COLUMNS, SCROLLBACK),
            octets: Vec::new(),
        }));
        let mut output = std::fs::File::from(rustix::io::dup(&keys)?);
        std::thread::spawn({
            let display = Arc::clone(&display);
            move || {
                let mut octets = vec![0; READ_OCTETS];
                while let Ok(count) = output.read(&mut octets) {
                    let read = octets.get(..count).unwrap_or_default();
                    if read.is_empty() {
                        break;
                    }
                    let mut display = display.lock().unwrap_or_else(PoisonError::into_inner);
                    display.screen.process(read);
                    display.octets.extend_from_slice(read);
                }
            }
        });
        Ok(Self { child, keys, _line: line, display, before })
    }

    /// Types these keys.
    ///
    /// # Errors
    /// If the terminal takes none.
    pub fn type_keys(&mut self, keys: &str) -> Result<()> {
        Ok(self.keys.write_all(keys.as_bytes())?)
    }

    /// The rows with something on them, from the top.
    #[must_use]
    pub fn rows(&self) -> Vec<String> {
        let display = self.display.lock().unwrap_or_else(PoisonError::into_inner);
        let screen = display.screen.screen();
        let rows = screen.rows(0, COLUMNS.get()).map(|row| row.trim_end().to_owned());
        rows.filter(|row| !row.is_empty()).collect()
    }

    /// Everything that was written so far, escape sequences included.
    #[must_use]
    pub fn written(&self) -> String {
        let display = self.display.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&display.octets).into_owned()
    }

    /// Waits until the rows are as wanted.
    ///
    /// # Errors
    /// If they do not become so; with what is there.
    pub fn wait(&mut self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rows = self.rows();
            if wanted(&rows) {
                return Ok(rows);
            }
            if let Some(status) = self.child.try_wait()? {
                // What was written last may still be on its way to the screen.
                std::thread::sleep(POLL);
                let rows = self.rows();
                ensure!(wanted(&rows), "ended with {status} before {what}:\n{}", rows.join("\n"));
                return Ok(rows);
            }
            ensure!(Instant::now() < deadline, "waited in vain for {what}:\n{}", rows.join("\n"));
            std::thread::sleep(POLL);
        }
    }

    /// Waits until a row contains this.
    ///
    /// # Errors
    /// As [`Terminal::wait`].
    pub fn see(&mut self, text: &str) -> Result<Vec<String>> {
        self.wait(text, |rows| rows.iter().any(|row| row.contains(text)))
    }

    /// Waits until the last row is exactly this.
    ///
    /// # Errors
    /// As [`Terminal::wait`].
    pub fn see_last(&mut self, row: &str) -> Result<Vec<String>> {
        self.wait(row, |rows| rows.last().is_some_and(|last| last == row))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the program has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        Ok(kill_process(pid_of(&self.child)?, signal)?)
    }

    /// Whether keys are echoed, lines are edited by the system and signals are sent, as before.
    ///
    /// # Errors
    /// If the terminal does not tell.
    pub fn is_as_before(&self) -> Result<bool> {
        let now = tcgetattr(&self.keys)?;
        let modes = |termios: &Termios| -> (LocalModes, InputModes, OutputModes) {
            (termios.local_modes, termios.input_modes, termios.output_modes)
        };
        Ok(modes(&now) == modes(&self.before))
    }

    /// Waits until the program has ended by itself and checks that the terminal is as it was.
    ///
    /// # Errors
    /// If it does not end, or leaves the terminal otherwise.
    pub fn end(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(self.is_as_before()?, "the terminal is not as it was before");
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("it does not end:\n{}", self.rows().join("\n"));
            }
            std::thread::sleep(POLL);
        }
    }

    /// The same, with the exit code.
    ///
    /// # Errors
    /// As [`Terminal::end`], or if a signal ended it.
    pub fn end_code(&mut self) -> Result<i32> {
        let status = self.end()?;
        status.code().with_context(|| format!("ended with {status}"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing is left running, whatever the test did.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
