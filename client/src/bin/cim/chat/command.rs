//! What can be typed in a chat besides text: lines that begin with a slash.

use std::path::PathBuf;

use super::Chat;
use crate::driver::Driver;
use crate::failure::Failure;
use crate::text::{grouped, one_line};

/// Every command with its slash.
pub(super) const NAMES: &[&str] = &[
    "/accept",
    "/allow-urgent",
    "/approve",
    "/available",
    "/away",
    "/block",
    "/busy",
    "/deny",
    "/dnd",
    "/file",
    "/help",
    "/hold",
    "/quit",
    "/safety",
    "/trust",
    "/urgent",
];
const HELP: &str = "\
/away  /busy  /dnd  /available    how others see you
/hold  /urgent                    what to do with a message to a busy person
/approve  /deny  /block           about the person of this chat
/allow-urgent                     their urgent messages pass while you are busy
/file PATH                        send a file
/accept [FILE [FOLDER]]           take an offered file, the last one if not named
/safety  /trust                   compare keys; accept a new one
/quit                             end (or Ctrl-D, or Ctrl-C on an empty line)
Anything else is sent. A line that begins with // is sent with one slash.";

impl Chat {
    /// Does a command, given without its slash; false ends the chat.
    pub(super) fn command(&mut self, command: &str) -> Result<bool, Failure> {
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let now = Driver::now();
        let person = self.person.clone();
        let person = person.as_address();
        let engine = &mut self.driver.engine;
        match name {
            "help" => self.say(HELP)?,
            "quit" => return Ok(false),
            "away" | "busy" | "dnd" | "available" => {
                let state = crate::contact::availability(name)?;
                engine.set_presence(state, None, &[], now)?;
                self.say(&format!("-- you are {name}"))?;
            }
            "hold" | "urgent" => self.choose(name)?,
            "approve" => engine.roster_approve(person, now)?,
            "deny" => engine.roster_deny(person, now)?,
            "block" => engine.roster_block(person, true, now),
            "allow-urgent" => engine.roster_set(person, None, true, now)?,
            "file" => self.offer(rest)?,
            "accept" => self.accept(rest)?,
            "safety" => {
                let digits = engine.safety_number(person)?;
                self.say(&grouped(&digits))?;
            }
            "trust" => {
                engine.identity_shown(person, now)?;
                self.say("-- accepted")?;
            }
            other => self.say(&format!(
                "-- /{} is not a command: /help lists them, and // sends a text that begins with /",
                one_line(other)
            ))?,
        }
        Ok(true)
    }

    fn choose(&mut self, via: &str) -> Result<(), Failure> {
        let via = crate::contact::choice(via)?;
        if self.busy.is_empty() {
            return self.say("-- no message waits for a choice");
        }
        let busy = self.busy.remove(0);
        self.driver.engine.answer_busy(&busy.mid, Some(via), Driver::now())?;
        self.waiting.extend(busy.is_awaited.then_some(busy.mid));
        Ok(())
    }

    fn offer(&mut self, path: &str) -> Result<(), Failure> {
        if path.is_empty() {
            return self.say("-- name a file: /file PATH");
        }
        let path = in_home(path);
        let ticket = self.progress.offering(&path);
        self.driver.offer_file(ticket, self.person.clone(), path);
        Ok(())
    }

    /// `[FILE [FOLDER]]`: the last file offered here if none is named.
    fn accept(&mut self, rest: &str) -> Result<(), Failure> {
        let (named, into) = rest.split_once(char::is_whitespace).unwrap_or((rest, "."));
        let fid = match (named, self.progress.last_offer()) {
            ("", Some(fid)) => fid.to_owned(),
            ("", None) => {
                let offered = self.driver.engine.files()?;
                let mut theirs = offered.into_iter().filter(|file| file.contact == self.person);
                match (theirs.next(), theirs.next()) {
                    (Some(file), None) => file.fid,
                    (None, _) => return self.say("-- no file is offered"),
                    _ => {
                        return self.say(
                            "-- several files are offered: /accept FILE, with an id that \
                             `cim file list` shows",
                        );
                    }
                }
            }
            (named, _) => named.to_owned(),
        };
        let into = in_home(into.trim());
        let path = crate::file::target(&self.driver.engine, &fid, &into)?;
        self.driver.engine.file_accept(&fid, &path, Driver::now())?;
        self.progress.accepted(&fid);
        let path = std::path::absolute(&path).unwrap_or(path);
        self.say(&format!("-- it will be {}", one_line(&path.display().to_string())))
    }
}

/// A path as a shell would take it: `~/` is the home of whoever types.
fn in_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_command() {
        for name in NAMES.iter().filter(|name| **name != "/help") {
            assert!(HELP.contains(name), "{name}");
        }
    }

    #[test]
    fn a_path_is_as_in_a_shell() {
        assert_eq!(in_home("a b.pdf"), PathBuf::from("a b.pdf"));
        assert_eq!(in_home("~bob"), PathBuf::from("~bob"));
        if let Some(home) = std::env::var_os("HOME") {
            assert_eq!(in_home("~/a"), PathBuf::from(home).join("a"));
        }
    }
}
