//! `cim send`: one message, and the relay's word for it.

use std::io::{ErrorKind, IsTerminal as _, Read as _};
use std::time::Duration;

use client::engine::{EngineError, Event, Notice, NoticeId, Status};
use protocol::AddressBuf;
use protocol::message::Via;
use serde_json::json;

use crate::arguments::Global;
use crate::driver::{Driver, Happening};
use crate::failure::Failure;
use crate::home::Home;
use crate::{output, terminal};

/// How long the relay's word is waited for. The message stays written down and is sent by the
/// next command if it takes longer.
const DEADLINE: Duration = Duration::from_secs(60);
/// Octets read from standard input.
const TEXT_OCTETS_MAX: u64 = 1 << 20;

/// Sends `text`, or standard input, to `person`.
pub(crate) async fn run(
    global: &Global,
    person: &str,
    text: Option<String>,
) -> Result<(), Failure> {
    let home = Home::open(global, false)?;
    let person = home.other(person)?;
    let text = match text {
        Some(text) => text,
        None => read_input()?,
    };
    if text.is_empty() {
        return Err(Failure::usage("there is nothing to send"));
    }
    let mut driver = home.driver(global).await?;
    let mid = driver
        .engine
        .send_text(person.as_address(), &text, None, Driver::now())
        .map_err(too_long)?;
    let fate = fate(global, &mut driver, &person, &mid).await;
    driver.close().await?;
    let code = fate?;
    match global.json {
        true => output::line(json!({ "event": "sent", "mid": mid, "code": code })),
        false => Ok(()),
    }
}

/// What the relay said about a message, or what has to be asked before it says more.
enum Word {
    Taken(u16),
    Busy,
    Failed(NoticeId, Failure),
}

/// Waits until the relay has answered for a message; asks the user if the person is busy. A
/// failure that is told here is confirmed: it is not told again.
async fn fate(
    global: &Global,
    driver: &mut Driver,
    person: &AddressBuf,
    mid: &str,
) -> Result<u16, Failure> {
    loop {
        let word = tokio::time::timeout(DEADLINE, word(driver, person, mid)).await;
        let word = word.map_err(|_| {
            Failure::temporary(
                "the relay did not answer in time; the message is written down and is sent when \
                 the relay is reached again",
            )
        })?;
        match word? {
            Word::Taken(code) => return Ok(code),
            Word::Failed(id, mut failure) => {
                failure.print(global.json);
                driver.engine.shown(id, Driver::now())?;
                return Err(failure);
            }
            Word::Busy => {
                let via = choose(driver, person).await?;
                driver.engine.answer_busy(mid, Some(via), Driver::now())?;
            }
        }
    }
}

async fn word(driver: &mut Driver, person: &AddressBuf, mid: &str) -> Result<Word, Failure> {
    let mut told = String::new();
    driver
        .until(|_, happening| match happening {
            Happening::Event(Event::Status { mid: about, status, .. }) if about == mid => {
                Ok(match status {
                    Status::Taken => Some(Word::Taken(252)),
                    Status::Passed | Status::Delivered | Status::Read => Some(Word::Taken(250)),
                    _ => None,
                })
            }
            Happening::Event(Event::Busy { mid: about, .. }) if about == mid => {
                Ok(Some(Word::Busy))
            }
            Happening::Event(Event::Notice {
                id,
                notice: Notice::Failed { mid: about, code, text, .. },
                ..
            }) if about == mid => Ok(Some(Word::Failed(*id, Failure::reply(*code, text.clone())))),
            Happening::Event(Event::IdentityChanged { contact }) if contact == person => {
                Err(Failure::trust(format!(
                    "the identity key of {contact} has changed: compare `cim keys safety \
                     {contact}`, then type `cim keys trust {contact}`"
                )))
            }
            Happening::Event(Event::LoginFailed { code, text }) => {
                Err(Failure::reply(*code, format!("the relay refused the login: {text}")))
            }
            Happening::Offline { reason, is_trust: true, .. } => {
                Err(Failure::trust(reason.clone()))
            }
            Happening::Offline { reason, .. } => {
                // The same reason once, however often it is tried.
                if told != *reason {
                    output::remark(format_args!("{reason}; trying again"));
                    told.clone_from(reason);
                }
                Ok(None)
            }
            _ => Ok(None),
        })
        .await
}

/// Asks what to do about a busy person; the link lives on meanwhile.
async fn choose(driver: &mut Driver, person: &AddressBuf) -> Result<Via, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::busy(format!(
            "{person} is busy; the message waits for your choice: `cim chat {person}` asks for it"
        )));
    }
    let prompt = format!("{person} is busy. [h]old until free, send as [u]rgent? ");
    loop {
        let mut answer = std::pin::pin!(terminal::ask(&prompt));
        let answer = loop {
            tokio::select! {
                answer = &mut answer => break answer?,
                result = driver.wait() => result?,
            }
        };
        match answer.as_str() {
            "h" | "hold" => return Ok(Via::Hold),
            "u" | "urgent" => return Ok(Via::Urgent),
            "" => return Err(Failure::busy("nothing was chosen; the message waits")),
            _ => {}
        }
    }
}

fn too_long(error: EngineError) -> Failure {
    match error {
        EngineError::TooLong => Failure::usage("the text is too long; send it as a file"),
        error => error.into(),
    }
}

fn read_input() -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        output::remark("type the message; Ctrl-D ends it");
    }
    let mut text = String::new();
    std::io::stdin().take(TEXT_OCTETS_MAX + 1).read_to_string(&mut text).map_err(|error| {
        match error.kind() {
            ErrorKind::InvalidData => {
                Failure::usage("this is no text (UTF-8); send it with `cim file send`")
            }
            _ => Failure::usage(format!("the text cannot be read: {error}")),
        }
    })?;
    if text.len() as u64 > TEXT_OCTETS_MAX {
        return Err(Failure::usage("the text is too long; send it as a file"));
    }
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    Ok(text)
}
