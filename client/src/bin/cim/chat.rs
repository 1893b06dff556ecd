//! `cim chat`: lines to a person and back, with presence, typing, receipts, files and questions.
//!
//! What has to be seen once is a line; what changes by itself (who types, how far the last message
//! or a file has come) is a status behind the line being typed, so that talk is not drowned.
//! A notice is confirmed to the engine once it is on the screen, and a message is then told to its
//! sender as read.

mod command;
mod progress;

use std::time::Duration;

use client::engine::{Event, Notice, NoticeId, Status};
use protocol::message::Availability;
use protocol::{AddressBuf, Timestamp};
use tokio::time::{Instant, sleep_until};

use crate::arguments::Global;
use crate::console::{Act, Console};
use crate::driver::{Driver, Happening};
use crate::failure::Failure;
use crate::home::Home;
use crate::present;
use crate::stop::{Stop, unless_stopped};
use crate::text::one_line;
use progress::Progress;

/// How long answers are waited for after the input ended.
const FINISH_DEADLINE: Duration = Duration::from_secs(10);
/// How long texts may take to reach the screen at the end.
const SHOW_DEADLINE: Duration = Duration::from_secs(1);

/// Talks until the input ends.
pub(crate) async fn run(global: &Global, person: &str) -> Result<(), Failure> {
    let home = Home::open(global, false)?;
    let person = home.other(person)?;
    let driver = unless_stopped(home.viewer(global)).await?;
    // Before the editor, which keeps its hands on Ctrl-C only while it reads.
    let stop = Stop::listen()?;
    let console = Console::open(global.json, command::NAMES)?;
    let mut chat = Chat {
        driver,
        console,
        progress: Progress::new(&person),
        person,
        is_json: global.json,
        waiting: Vec::new(),
        busy: Vec::new(),
        presence: None,
        trouble: None,
        is_absence_told: false,
        end: None,
    };
    let person = &chat.person;
    let welcome =
        format!("Talking with {person}. /help lists what else can be typed; Ctrl-D ends.");
    chat.say(&welcome)?;
    let result = chat.talk(stop).await;
    chat.leave().await.and(result)
}

/// What is confirmed once its text is on the screen.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    notice: NoticeId,
    /// The message that was then read, and whose it is.
    read: Option<(AddressBuf, String)>,
}

/// A message or a file's offer to a busy person.
struct Busy {
    mid: String,
    /// Whether it is a message of this chat: the relay's word for it is waited for.
    is_awaited: bool,
}

struct Chat {
    driver: Driver,
    console: Console<Token>,
    person: AddressBuf,
    is_json: bool,
    progress: Progress,
    /// Messages that the relay has not answered for.
    waiting: Vec<String>,
    /// What waits for a choice, the oldest first.
    busy: Vec<Busy>,
    /// How the person was last seen.
    presence: Option<Availability>,
    /// What is wrong with the link or a line, told once.
    trouble: Option<String>,
    /// Whether it was told that messages wait at the relay.
    is_absence_told: bool,
    /// Until when answers are waited for, once the input has ended.
    end: Option<Instant>,
}

impl Chat {
    async fn talk(&mut self, mut stop: Stop) -> Result<(), Failure> {
        loop {
            if self.console.has_room() {
                self.take()?;
            }
            let status = self.progress.status(Driver::now(), self.driver.engine.is_online());
            self.console.set_status(status);
            let end = self.end.unwrap_or_else(|| Instant::now() + FINISH_DEADLINE);
            if self.end.is_some() && self.waiting.is_empty() && self.console.is_idle() {
                return Ok(());
            }
            tokio::select! {
                biased;
                act = self.console.next() => self.acted(act?).await?,
                result = self.driver.wait(), if self.console.has_room() => result?,
                () = stop.asked() => return Ok(()),
                () = sleep_until(end), if self.end.is_some() => return Ok(()),
            }
        }
    }

    /// Shows what is left, says goodbye, and tells what remains undone.
    async fn leave(mut self) -> Result<(), Failure> {
        self.driver.engine.stop_typing(self.person.as_address(), Driver::now());
        let is_shown = async {
            while !self.console.is_idle() {
                if let Act::Shown(token) = self.console.next().await? {
                    self.confirm(&token)?;
                }
            }
            Ok::<(), Failure>(())
        };
        // A terminal that takes nothing is not waited for; what it did not show is told again.
        tokio::time::timeout(SHOW_DEADLINE, is_shown).await.unwrap_or(Ok(()))?;
        self.console.stop_reading().await?;
        while !self.console.is_idle() {
            if let Act::Shown(token) = self.console.next().await? {
                self.confirm(&token)?;
            }
        }
        let (busy, unanswered) = (self.busy.len(), self.waiting.len());
        self.driver.close().await?;
        if busy > 0 {
            return Err(Failure::busy(format!(
                "{} for your choice: `cim chat {}` asks again",
                counted(busy, "message waits", "messages wait"),
                self.person
            )));
        }
        if unanswered > 0 && !self.is_json {
            crate::output::line(format_args!(
                "-- {} written down and sent when the relay is there",
                counted(unanswered, "message is", "messages are")
            ))?;
        }
        Ok(())
    }

    /// Takes what happened from the engine and shows it.
    fn take(&mut self) -> Result<(), Failure> {
        loop {
            let happenings = self.driver.act()?;
            if happenings.is_empty() {
                return Ok(());
            }
            for happening in happenings {
                self.settle(&happening);
                self.show(&happening)?;
            }
        }
    }

    fn settle(&mut self, happening: &Happening) {
        self.progress.settle(happening);
        match happening {
            Happening::Event(Event::Status { mid, status, .. }) if *status >= Status::Taken => {
                self.waiting.retain(|waiting| waiting != mid);
                self.busy.retain(|busy| busy.mid != *mid);
            }
            Happening::Event(Event::Busy { mid, .. }) => {
                let is_awaited = self.waiting.contains(mid);
                self.waiting.retain(|waiting| waiting != mid);
                if self.busy.iter().all(|busy| busy.mid != *mid) {
                    self.busy.push(Busy { mid: mid.clone(), is_awaited });
                }
            }
            Happening::Event(Event::Notice { notice: Notice::Failed { mid, .. }, .. }) => {
                self.waiting.retain(|waiting| waiting != mid);
                self.busy.retain(|busy| busy.mid != *mid);
            }
            Happening::Event(Event::Online { .. }) => {
                self.driver.engine.query_presence(self.person.as_address(), Driver::now());
            }
            _ => {}
        }
    }

    fn show(&mut self, happening: &Happening) -> Result<(), Failure> {
        let token = match happening {
            Happening::Event(Event::Notice { id, notice, .. }) => {
                let read = match notice {
                    Notice::Message(message) => {
                        Some((message.contact.clone(), message.mid.clone()))
                    }
                    _ => None,
                };
                Some(Token { notice: *id, read })
            }
            _ => None,
        };
        let text = match self.is_json {
            true => present::to_json(happening).map(|value| value.to_string()),
            false => self.line_for(happening)?,
        };
        match (text, token) {
            (Some(text), token) => self.console.show(&text, token),
            // What nobody needs to see is seen by that.
            (None, Some(token)) => self.confirm(&token),
            (None, None) => Ok(()),
        }
    }

    /// The line of a happening for eyes, if it is worth one.
    fn line_for(&mut self, happening: &Happening) -> Result<Option<String>, Failure> {
        let has_status = self.console.has_status();
        Ok(match happening {
            Happening::Offline { reason, is_trust, .. } => {
                let text = match is_trust {
                    true => format!("!! {}", one_line(reason)),
                    false => format!("-- no link: {}; it is tried again", one_line(reason)),
                };
                self.once(text)
            }
            Happening::Event(Event::PutOff { .. }) => {
                present::to_text(happening).and_then(|text| self.once(text))
            }
            Happening::Event(Event::Online { .. }) => {
                self.trouble = None;
                Some("-- connected".to_owned())
            }
            Happening::Event(Event::Busy { contact, .. }) => Some(format!(
                "-- {contact} is busy: /hold delivers when they are free, /urgent disturbs them now"
            )),
            Happening::Event(Event::Presence { contact, state, .. }) => {
                let is_news = *contact == self.person && self.presence != Some(*state);
                if is_news {
                    self.presence = Some(*state);
                }
                is_news.then(|| present::to_text(happening)).flatten()
            }
            Happening::Event(Event::Status { contact, status, .. })
                if *contact == self.person && *status != Status::Waiting =>
            {
                match self.absence(*status)? {
                    Some(text) => Some(text),
                    None if has_status => None,
                    None => self.progress.receipt_line(happening),
                }
            }
            Happening::Event(Event::Typing { .. } | Event::TypingStopped { .. }) => {
                if has_status {
                    None
                } else {
                    self.progress.typing_line(happening)
                }
            }
            other => match self.progress.file_line(other, has_status) {
                Some(text) => Some(text),
                None => present::to_text(other),
            },
        })
    }

    /// A trouble that goes on is told once.
    fn once(&mut self, text: String) -> Option<String> {
        if self.trouble.as_ref() == Some(&text) {
            return None;
        }
        self.trouble = Some(text.clone());
        Some(text)
    }

    /// Once for each absence of the person, what the relay's word about a message means.
    fn absence(&mut self, status: Status) -> Result<Option<String>, Failure> {
        match status {
            Status::Taken if !self.is_absence_told => {
                self.is_absence_told = true;
                let roster = self.driver.engine.roster()?;
                let is_told =
                    roster.iter().any(|entry| entry.contact == self.person && entry.approves_us);
                let person = &self.person;
                Ok(Some(match is_told {
                    true => format!(
                        "-- with the relay: {person} is not connected, or gets it when free"
                    ),
                    false => format!(
                        "-- with the relay, which tells no more: {person} has not approved you"
                    ),
                }))
            }
            Status::Passed | Status::Delivered | Status::Read => {
                self.is_absence_told = false;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    async fn acted(&mut self, act: Act<Token>) -> Result<(), Failure> {
        let goes_on = match act {
            Act::Line(line) => self.typed(&line),
            Act::Shown(token) => self.confirm(&token).map(|()| true),
            Act::Draft(true) => {
                self.driver.engine.typing(self.person.as_address(), Driver::now());
                Ok(true)
            }
            Act::Draft(false) => {
                self.driver.engine.stop_typing(self.person.as_address(), Driver::now());
                Ok(true)
            }
            Act::Unusable(why) => self.say(&format!("-- {why}; nothing was sent")).map(|()| true),
            Act::End => Ok(false),
        };
        if !goes_on? {
            self.console.stop_reading().await?;
            self.end = Some(Instant::now() + FINISH_DEADLINE);
        }
        Ok(())
    }

    fn confirm(&mut self, token: &Token) -> Result<(), Failure> {
        self.driver.engine.shown(token.notice, Driver::now())?;
        if let Some((from, mid)) = &token.read {
            self.driver.engine.read(from.as_address(), &[mid], Driver::now())?;
        }
        Ok(())
    }

    /// Says something of this program's own.
    fn say(&mut self, text: &str) -> Result<(), Failure> {
        match self.is_json {
            true => Ok(()),
            false => self.console.show(text, None),
        }
    }

    /// Does what was typed; false ends the chat.
    fn typed(&mut self, line: &str) -> Result<bool, Failure> {
        let result = match line.strip_prefix('/') {
            None if line.trim().is_empty() => Ok(true),
            None => self.send(line),
            Some(text) if text.starts_with('/') => self.send(text),
            Some(command) => self.command(command),
        };
        match result {
            Ok(goes_on) => Ok(goes_on),
            Err(failure) if self.is_json => {
                let text = failure.text();
                let value = serde_json::json!({ "event": "error", "text": text });
                self.console.show(&value.to_string(), None).map(|()| true)
            }
            Err(failure) => self.say(&format!("-- {}", one_line(failure.text()))).map(|()| true),
        }
    }

    fn send(&mut self, text: &str) -> Result<bool, Failure> {
        let now = Driver::now();
        let mid = self.driver.engine.send_text(self.person.as_address(), text, None, now)?;
        self.progress.sent(&mid);
        self.waiting.push(mid);
        Ok(true)
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Whether a moment has come.
fn is_past(moment: Timestamp, now: Timestamp) -> bool {
    now.0 >= moment.0
}
