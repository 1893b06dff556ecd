//! `cim pipe`: JSON lines in, JSON lines out, for programs.
//!
//! Every command has an `id` and gets one result with it; events come as they happen. A result of
//! `send` comes when the relay has answered for the message. The end of the input ends the
//! program once what was asked is answered, at most [`FINISH_DEADLINE`] later.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use client::engine::{Engine, Event, Notice, Status};
use protocol::{AddressBuf, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arguments::Global;
use crate::driver::{Driver, Happening};
use crate::failure::Failure;
use crate::home::Home;
use crate::input::{Line, Lines};
use crate::stop::{Stop, unless_stopped};
use crate::{output, person, present};

/// How long answers are waited for after the input ended.
const FINISH_DEADLINE: Duration = Duration::from_secs(10);

/// What a program can ask for.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
enum Wish {
    Add { person: String, name: Option<String> },
    Approve { person: String },
    Block { person: String },
    Choose { mid: String, via: String },
    Deny { person: String },
    Edit { to: String, mid: String, text: String },
    FileAccept { file: String, into: PathBuf },
    FileCancel { file: String },
    FileList,
    FileSend { to: String, path: PathBuf },
    Presence { state: String, until: Option<u64> },
    Query { person: String },
    Quit,
    React { to: String, mid: String, text: String },
    Retract { to: String, mid: String },
    Roster,
    Rotate,
    Safety { person: String },
    Send { to: String, text: String, answers: Option<String> },
    Status,
    Trust { person: String },
    Typing { to: String, active: bool },
    Unblock { person: String },
    Urgent { person: String, allow: bool },
}

#[derive(Deserialize)]
struct Asked {
    id: u64,
    #[serde(flatten)]
    wish: Wish,
}

/// What a command waits for.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Awaited {
    /// The relay's word about a message.
    Message(String),
    /// The end of a command about somebody, or about nobody.
    Done(&'static str, Option<String>),
}

/// Runs until the input ends.
pub(crate) async fn run(global: &Global) -> Result<(), Failure> {
    let driver = unless_stopped(Home::open(global, false)?.viewer(global)).await?;
    Pipe { driver, awaited: HashMap::new(), is_ending: false }.run(Lines::of_stdin()).await
}

struct Pipe {
    driver: Driver,
    awaited: HashMap<Awaited, Vec<u64>>,
    is_ending: bool,
}

impl Pipe {
    async fn run(mut self, mut input: Lines) -> Result<(), Failure> {
        let mut stop = Stop::listen()?;
        let mut end = None;
        loop {
            self.show()?;
            if self.is_ending && end.is_none() {
                end = Some(tokio::time::Instant::now() + FINISH_DEADLINE);
            }
            let is_done = self.awaited.is_empty() || !self.driver.engine.is_online();
            if end.is_some_and(|end| is_done || tokio::time::Instant::now() > end) {
                return self.driver.close().await;
            }
            tokio::select! {
                line = input.next(), if !self.is_ending => self.line(line?)?,
                result = self.driver.wait() => result?,
                () = stop.asked() => return self.driver.close().await,
            }
        }
    }

    /// Prints what happened; confirms notices once they are printed.
    fn show(&mut self) -> Result<(), Failure> {
        loop {
            let happenings = self.driver.act()?;
            if happenings.is_empty() {
                return Ok(());
            }
            for happening in happenings {
                self.settle(&happening);
                if let Some(value) = present::to_json(&happening) {
                    output::line(&value)?;
                }
                if let Happening::Event(Event::Notice { id, .. }) = happening {
                    self.driver.engine.shown(id, Driver::now())?;
                }
            }
        }
    }

    /// Gives results to the commands that waited for this.
    fn settle(&mut self, happening: &Happening) {
        let event = match happening {
            Happening::Event(event) => event,
            Happening::Offered { ticket, result } => {
                let result = match result {
                    Ok(file) => json!({ "id": ticket, "ok": true, "file": file }),
                    Err(failure) => json!({
                        "id": ticket, "ok": false, "code": failure.code(), "error": failure.text(),
                    }),
                };
                // A reader that is gone shows at the next event.
                let _ = output::line(&result);
                return;
            }
            Happening::Offline { .. } => return,
        };
        match event {
            Event::Status { mid, status, .. } => {
                let code = match status {
                    Status::Taken => 252,
                    Status::Passed | Status::Delivered | Status::Read => 250,
                    Status::Waiting | Status::Sent | Status::Failed => return,
                };
                self.answer(
                    &Awaited::Message(mid.clone()),
                    &json!({ "ok": true, "mid": mid, "code": code }),
                );
            }
            Event::Busy { mid, .. } => self.answer(
                &Awaited::Message(mid.clone()),
                &json!({ "ok": true, "mid": mid, "code": 350 }),
            ),
            Event::Notice { notice: Notice::Failed { mid, code, text, .. }, .. } => self.answer(
                &Awaited::Message(mid.clone()),
                &json!({ "ok": false, "mid": mid, "code": code, "error": text }),
            ),
            Event::Done { what, contact } => {
                let contact = contact.as_ref().map(|contact| contact.as_str().to_owned());
                self.answer(&Awaited::Done(what, contact), &json!({ "ok": true }));
            }
            Event::Refused { what, contact, code, text } => {
                let contact = contact.as_ref().map(|contact| contact.as_str().to_owned());
                self.answer(
                    &Awaited::Done(what, contact),
                    &json!({ "ok": false, "code": code, "error": text }),
                );
            }
            _ => {}
        }
    }

    fn answer(&mut self, awaited: &Awaited, result: &Value) {
        for id in self.awaited.remove(awaited).unwrap_or_default() {
            let mut result = result.clone();
            result["id"] = json!(id);
            // A reader that is gone shows at the next event.
            let _ = output::line(&result);
        }
    }

    fn line(&mut self, line: Option<Line>) -> Result<(), Failure> {
        let told = |text: &str| output::line(json!({ "event": "error", "text": text }));
        let line = match line {
            Some(Line::Whole(line)) => line,
            Some(Line::NoText) => return told("the command is not UTF-8"),
            Some(Line::TooLong) => return told("the command is too long"),
            None => {
                self.is_ending = true;
                return Ok(());
            }
        };
        if line.trim().is_empty() {
            return Ok(());
        }
        let asked: Asked = match serde_json::from_str(&line) {
            Ok(asked) => asked,
            Err(error) => {
                let id = serde_json::from_str::<Value>(&line).ok().and_then(|v| v["id"].as_u64());
                return output::line(json!({
                    "id": id, "ok": false, "error": format!("not a command: {error}"),
                }));
            }
        };
        match self.wish(asked.id, asked.wish) {
            Ok(Some(mut result)) => {
                result["id"] = json!(asked.id);
                result["ok"] = json!(true);
                output::line(&result)
            }
            Ok(None) => Ok(()),
            Err(failure) => output::line(json!({
                "id": asked.id, "ok": false, "code": failure.code(), "error": failure.text(),
            })),
        }
    }

    /// Does a command; its result, or `None` if that comes later.
    fn wish(&mut self, id: u64, wish: Wish) -> Result<Option<Value>, Failure> {
        match wish {
            Wish::Send { .. } | Wish::Edit { .. } | Wish::Retract { .. } | Wish::React { .. } => {
                self.talk(id, wish)
            }
            Wish::FileAccept { .. }
            | Wish::FileCancel { .. }
            | Wish::FileList
            | Wish::FileSend { .. } => self.file(id, wish),
            Wish::Choose { .. } | Wish::Presence { .. } | Wish::Typing { .. } => {
                self.signal(id, wish)
            }
            Wish::Quit => {
                self.is_ending = true;
                Ok(Some(json!({})))
            }
            Wish::Roster | Wish::Safety { .. } | Wish::Status => self.look(&wish).map(Some),
            other => self.contact(id, other),
        }
    }

    fn talk(&mut self, id: u64, wish: Wish) -> Result<Option<Value>, Failure> {
        let now = Driver::now();
        let engine = &mut self.driver.engine;
        let mid = match wish {
            Wish::Send { to, text, answers } => {
                let to = other(engine, &to)?;
                engine.send_text(to.as_address(), &text, answers.as_deref(), now)?
            }
            Wish::Edit { to, mid, text } => {
                engine.edit(other(engine, &to)?.as_address(), &mid, &text, now)?
            }
            Wish::Retract { to, mid } => {
                engine.retract(other(engine, &to)?.as_address(), &mid, now)?
            }
            Wish::React { to, mid, text } => {
                engine.react(other(engine, &to)?.as_address(), &mid, &text, now)?
            }
            _ => return Err(Failure::internal("not a command that talks")),
        };
        self.awaited.entry(Awaited::Message(mid)).or_default().push(id);
        Ok(None)
    }

    fn file(&mut self, id: u64, wish: Wish) -> Result<Option<Value>, Failure> {
        let now = Driver::now();
        let engine = &mut self.driver.engine;
        match wish {
            Wish::FileSend { to, path } => {
                let to = other(engine, &to)?;
                self.driver.offer_file(id, to, path);
                Ok(None)
            }
            Wish::FileAccept { file, into } => {
                let path = crate::file::target(engine, &file, &into)?;
                engine.file_accept(&file, &path, now)?;
                Ok(Some(json!({ "file": file, "path": path })))
            }
            Wish::FileCancel { file } => {
                engine.file_cancel(&file, now)?;
                Ok(Some(json!({ "file": file })))
            }
            _ => Ok(Some(json!({ "files": engine.files()?, "sent": engine.files_sent()? }))),
        }
    }

    fn signal(&mut self, id: u64, wish: Wish) -> Result<Option<Value>, Failure> {
        let now = Driver::now();
        let engine = &mut self.driver.engine;
        match wish {
            Wish::Choose { mid, via } => {
                engine.answer_busy(&mid, Some(crate::contact::choice(&via)?), now)?;
                self.awaited.entry(Awaited::Message(mid)).or_default().push(id);
                Ok(None)
            }
            Wish::Presence { state, until } => {
                let state = crate::contact::availability(&state)?;
                engine.set_presence(state, until.map(Timestamp), &[], now)?;
                self.awaited.entry(Awaited::Done("presence", None)).or_default().push(id);
                Ok(None)
            }
            Wish::Typing { to, active } => {
                let to = other(engine, &to)?;
                if active {
                    engine.typing(to.as_address(), now);
                } else {
                    engine.stop_typing(to.as_address(), now);
                }
                Ok(Some(json!({})))
            }
            _ => Err(Failure::internal("not a signal")),
        }
    }

    fn look(&self, wish: &Wish) -> Result<Value, Failure> {
        let engine = &self.driver.engine;
        match wish {
            Wish::Safety { person } => {
                let person = other(engine, person)?;
                Ok(json!({ "digits": engine.safety_number(person.as_address())? }))
            }
            Wish::Roster => {
                let rows: Vec<Value> =
                    engine.roster()?.iter().map(present::roster_to_json).collect();
                Ok(json!({ "roster": rows }))
            }
            _ => Ok(json!({
                "device": engine.device().as_str(), "online": engine.is_online(),
            })),
        }
    }

    /// Commands about somebody that end with `Done` or `Refused`.
    fn contact(&mut self, id: u64, wish: Wish) -> Result<Option<Value>, Failure> {
        let now = Driver::now();
        let engine = &mut self.driver.engine;
        let (what, person) = match &wish {
            Wish::Add { person, .. } => ("ask", Some(person)),
            Wish::Approve { person } => ("approve", Some(person)),
            Wish::Deny { person } => ("deny", Some(person)),
            Wish::Block { person } | Wish::Unblock { person } => ("block", Some(person)),
            Wish::Urgent { person, .. } => ("roster", Some(person)),
            Wish::Trust { person } | Wish::Query { person } => ("", Some(person)),
            _ => ("rotate", None),
        };
        let address = person.map(|person| other(engine, person)).transpose()?;
        let Some(address) = &address else {
            engine.rotate(now)?;
            self.awaited.entry(Awaited::Done("rotate", None)).or_default().push(id);
            return Ok(None);
        };
        let person = address.as_address();
        match &wish {
            Wish::Add { name, .. } => {
                if let Some(name) = name {
                    engine.roster_set(person, Some(name), false, now)?;
                }
                engine.roster_ask(person, now)?;
            }
            Wish::Approve { .. } => engine.roster_approve(person, now)?,
            Wish::Deny { .. } => engine.roster_deny(person, now)?,
            Wish::Block { .. } => engine.roster_block(person, true, now),
            Wish::Unblock { .. } => engine.roster_block(person, false, now),
            Wish::Urgent { allow, .. } => engine.roster_set(person, None, *allow, now)?,
            Wish::Query { .. } => engine.query_presence(person, now),
            _ => engine.identity_shown(person, now)?,
        }
        if what.is_empty() {
            return Ok(Some(json!({})));
        }
        let awaited = Awaited::Done(what, Some(address.as_str().to_owned()));
        self.awaited.entry(awaited).or_default().push(id);
        Ok(None)
    }
}

fn other(engine: &Engine, person: &str) -> Result<AddressBuf, Failure> {
    person::other(person, engine.device().account())
}
