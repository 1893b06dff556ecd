//! `cim chat`: lines to a person and back, with presence, typing and questions.

use std::path::PathBuf;
use std::time::Duration;

use client::engine::{Event, Notice, Status};
use protocol::AddressBuf;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::arguments::Global;
use crate::driver::{Driver, Happening};
use crate::failure::Failure;
use crate::home::Home;
use crate::present;

const HELP: &str = "\
/away  /busy  /dnd  /available    how others see you
/hold  /urgent                    what to do with a message to a busy person
/approve  /deny  /block           about the person of this chat
/allow-urgent                     their urgent messages pass while you are busy
/file PATH                        send a file
/accept FILE [FOLDER]             take an offered file
/safety  /trust                   compare keys; accept a new one
/quit                             end (or Ctrl-D)
Anything else is sent. A line that begins with // is sent with one slash.";
/// How long answers are waited for after the input ended.
const FINISH_DEADLINE: Duration = Duration::from_secs(10);

/// Talks until the input ends.
pub(crate) async fn run(global: &Global, person: &str) -> Result<(), Failure> {
    let person = AddressBuf::parse(person)?;
    if !person.as_address().is_account() {
        return Err(Failure::usage(format!("{person} is not a person's address")));
    }
    let mut driver = Home::open(global, false)?.driver(global)?;
    driver.engine.query_presence(person.as_address(), Driver::now());
    println!("Talking with {person}. /help lists what else can be typed; Ctrl-D ends.");
    let chat = Chat { driver, person, is_json: global.json, waiting: Vec::new(), busy: Vec::new() };
    chat.run().await
}

struct Chat {
    driver: Driver,
    person: AddressBuf,
    is_json: bool,
    /// Messages that the relay has not answered for.
    waiting: Vec<String>,
    /// Messages that wait for a choice, the oldest first.
    busy: Vec<String>,
}

impl Chat {
    async fn run(mut self) -> Result<(), Failure> {
        let mut input = BufReader::new(tokio::io::stdin()).lines();
        let mut end = None;
        loop {
            self.show()?;
            let is_over = end.is_some_and(|end| tokio::time::Instant::now() > end);
            if end.is_some() && (self.waiting.is_empty() || is_over) {
                break;
            }
            tokio::select! {
                line = input.next_line(), if end.is_none() => {
                    let goes_on = match line? {
                        Some(line) => self.typed(&line)?,
                        None => false,
                    };
                    if !goes_on {
                        end = Some(tokio::time::Instant::now() + FINISH_DEADLINE);
                    }
                }
                result = self.driver.wait() => result?,
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        let unanswered = self.waiting.len();
        let busy = self.busy.len();
        self.driver.close().await?;
        if busy > 0 {
            return Err(Failure::busy(format!("{busy} messages wait for your choice")));
        }
        if unanswered > 0 {
            println!("{unanswered} messages are written down and go out when the relay is there.");
        }
        Ok(())
    }

    fn show(&mut self) -> Result<(), Failure> {
        loop {
            let happenings = self.driver.act()?;
            if happenings.is_empty() {
                return Ok(());
            }
            for happening in happenings {
                self.settle(&happening);
                if self.is_json {
                    if let Some(value) = present::to_json(&happening) {
                        println!("{value}");
                    }
                } else if let Some(text) = present::to_text(&happening) {
                    println!("{text}");
                }
                if let Happening::Event(Event::Notice { id, notice, .. }) = &happening {
                    self.driver.engine.shown(*id, Driver::now())?;
                    if let Notice::Message(message) = notice {
                        let from = message.contact.as_address();
                        self.driver.engine.read(from, &[&message.mid], Driver::now())?;
                    }
                }
            }
        }
    }

    fn settle(&mut self, happening: &Happening) {
        match happening {
            Happening::Event(Event::Status { mid, status, .. }) if *status >= Status::Taken => {
                self.waiting.retain(|waiting| waiting != mid);
                self.busy.retain(|busy| busy != mid);
            }
            Happening::Event(Event::Busy { mid, contact, .. }) => {
                self.waiting.retain(|waiting| waiting != mid);
                if !self.busy.contains(mid) {
                    self.busy.push(mid.clone());
                }
                println!(
                    "-- {contact} is busy. Your message waits: /hold delivers it when they are \
                     free, /urgent disturbs them now"
                );
            }
            Happening::Event(Event::Notice { notice: Notice::Failed { mid, .. }, .. }) => {
                self.waiting.retain(|waiting| waiting != mid);
            }
            _ => {}
        }
    }

    /// Does what was typed; false ends the chat.
    fn typed(&mut self, line: &str) -> Result<bool, Failure> {
        let result = match line.strip_prefix('/') {
            None if line.is_empty() => Ok(true),
            None => self.send(line),
            Some(text) if text.starts_with('/') => self.send(text),
            Some(command) => self.command(command),
        };
        match result {
            Ok(goes_on) => Ok(goes_on),
            Err(failure) => {
                println!("-- {}", failure.text());
                Ok(true)
            }
        }
    }

    fn send(&mut self, text: &str) -> Result<bool, Failure> {
        let person = self.person.as_address();
        let mid = self.driver.engine.send_text(person, text, None, Driver::now())?;
        self.waiting.push(mid);
        Ok(true)
    }

    fn command(&mut self, command: &str) -> Result<bool, Failure> {
        let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
        let now = Driver::now();
        let person = self.person.clone();
        let person = person.as_address();
        let engine = &mut self.driver.engine;
        match name {
            "help" => println!("{HELP}"),
            "quit" => return Ok(false),
            "away" | "busy" | "dnd" | "available" => {
                let state = crate::contact::availability(name)?;
                engine.set_presence(state, None, &[], now)?;
            }
            "hold" | "urgent" => return self.choose(name),
            "approve" => engine.roster_approve(person, now)?,
            "deny" => engine.roster_deny(person, now)?,
            "block" => engine.roster_block(person, true, now),
            "allow-urgent" => engine.roster_set(person, None, true, now)?,
            "file" => {
                self.driver.offer_file(0, self.person.clone(), PathBuf::from(rest.trim()));
            }
            "accept" => {
                let (fid, into) = rest.split_once(' ').unwrap_or((rest, "."));
                let path = crate::file::target(engine, fid, &PathBuf::from(into))?;
                engine.file_accept(fid, &path, now)?;
                println!("-- it will be {}", path.display());
            }
            "safety" => println!("{}", engine.safety_number(person)?),
            "trust" => engine.identity_shown(person, now)?,
            other => println!("-- /{other} is not a command: /help lists them"),
        }
        Ok(true)
    }

    fn choose(&mut self, via: &str) -> Result<bool, Failure> {
        let via = crate::contact::choice(via)?;
        if self.busy.is_empty() {
            println!("-- no message waits for a choice");
            return Ok(true);
        }
        let mid = self.busy.remove(0);
        self.driver.engine.answer_busy(&mid, Some(via), Driver::now())?;
        self.waiting.push(mid);
        Ok(true)
    }
}
