//! `cim send`: one message, and the relay's word for it.

use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;

use client::engine::{Event, Notice, Status};
use protocol::AddressBuf;
use protocol::message::Via;

use crate::arguments::Global;
use crate::driver::{Driver, Happening};
use crate::failure::Failure;
use crate::home::Home;
use crate::terminal;

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
    let person = AddressBuf::parse(person)?;
    let text = match text {
        Some(text) => text,
        None => read_input()?,
    };
    if text.is_empty() {
        return Err(Failure::usage("there is nothing to send"));
    }
    let mut driver = Home::open(global, false)?.driver(global)?;
    let mid = driver.engine.send_text(person.as_address(), &text, None, Driver::now())?;
    let code = tokio::time::timeout(DEADLINE, fate(&mut driver, &mid)).await.map_err(|_| {
        Failure::temporary(
            "the relay did not answer in time; the message is written down and is sent when the \
             relay is reached again",
        )
    })??;
    driver.close().await?;
    if global.json {
        println!("{}", serde_json::json!({ "event": "sent", "mid": mid, "code": code }));
    }
    Ok(())
}

/// Waits until the relay has answered for a message; asks the user if the person is busy.
pub(crate) async fn fate(driver: &mut Driver, mid: &str) -> Result<u16, Failure> {
    driver
        .until(|driver, happening| match happening {
            Happening::Event(Event::Status { mid: about, status, .. }) if about == mid => {
                Ok(match status {
                    Status::Taken => Some(252),
                    Status::Passed | Status::Delivered | Status::Read => Some(250),
                    _ => None,
                })
            }
            Happening::Event(Event::Busy { mid: about, contact, .. }) if about == mid => {
                let via = ask_busy(contact.as_str())?;
                driver.engine.answer_busy(mid, Some(via), Driver::now())?;
                Ok(None)
            }
            Happening::Event(Event::Notice {
                notice: Notice::Failed { mid: about, code, text, .. },
                ..
            }) if about == mid => Err(Failure::reply(*code, text.clone())),
            Happening::Event(Event::IdentityChanged { contact }) => Err(Failure::trust(format!(
                "the identity key of {contact} has changed: compare `cim keys safety {contact}`, \
                 then type `cim keys trust {contact}`"
            ))),
            Happening::Event(Event::LoginFailed { code, text }) => {
                Err(Failure::reply(*code, format!("the relay refused the login: {text}")))
            }
            Happening::Offline { reason, is_trust: true, .. } => {
                Err(Failure::trust(reason.clone()))
            }
            Happening::Offline { reason, .. } => {
                eprintln!("cim: {reason}; trying again");
                Ok(None)
            }
            _ => Ok(None),
        })
        .await
}

fn ask_busy(person: &str) -> Result<Via, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::busy(format!(
            "{person} is busy; nothing was sent. Talk with `cim chat {person}` to choose"
        )));
    }
    let prompt = format!("{person} is busy. [h]old until free, send as [u]rgent? ");
    loop {
        match terminal::ask(&prompt)?.as_str() {
            "h" | "hold" => return Ok(Via::Hold),
            "u" | "urgent" => return Ok(Via::Urgent),
            "" => return Err(Failure::busy("nothing was chosen; the message waits")),
            _ => {}
        }
    }
}

fn read_input() -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        eprintln!("Type the message; Ctrl-D ends it.");
    }
    let mut text = String::new();
    std::io::stdin()
        .take(TEXT_OCTETS_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("the text cannot be read: {error}")))?;
    if text.len() as u64 > TEXT_OCTETS_MAX {
        return Err(Failure::usage("the text is too long; send it as a file"));
    }
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    Ok(text)
}
