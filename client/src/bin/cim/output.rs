//! What the program writes: lines on standard output, remarks on standard error.
//!
//! The invariant: a line that did not get out is an error and never a panic, so that nothing is
//! confirmed to the engine that nobody can have seen. A reader that is gone ends the program
//! quietly.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;

use crate::failure::Failure;
use crate::text::visible;

/// How often it is looked whether a pipe's reader has taken what was written.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Writes one line to standard output.
pub(crate) fn line(text: impl Display) -> Result<(), Failure> {
    raw(&format!("{text}\n"))
}

/// Writes text to standard output as it is.
pub(crate) fn raw(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::unread(),
        _ => Failure::temporary(format!("cannot write the output: {error}")),
    })
}

/// Text of less weight, where the person wants colours.
pub(crate) fn dim(text: &str) -> String {
    // https://no-color.org
    match std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        true => text.to_owned(),
        false => format!("\x1b[2m{text}\x1b[0m"),
    }
}

/// Says something to the person on standard error. Who closed it does not want to know.
pub(crate) fn remark(text: impl Display) {
    let text = visible(&text.to_string());
    let _ = writeln!(std::io::stderr(), "cim: {text}");
}

/// Waits, where standard output is a pipe, until its reader has taken everything. What is in a
/// pipe when its reader goes away was seen by nobody; a file or a terminal has what it was given.
pub(crate) async fn taken() -> Result<(), Failure> {
    if !is_pipe() {
        return Ok(());
    }
    loop {
        if rustix::io::ioctl_fionread(std::io::stdout()).map_err(std::io::Error::from)? == 0 {
            return Ok(());
        }
        if is_reader_gone() {
            return Err(Failure::unread());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn is_pipe() -> bool {
    rustix::fs::fstat(std::io::stdout())
        .is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Fifo)
}

fn is_reader_gone() -> bool {
    let stdout = std::io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok()
        && polled.iter().any(|fd| fd.revents().contains(PollFlags::ERR))
}
