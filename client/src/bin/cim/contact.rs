//! `cim roster …` and `cim available|away|busy|dnd`: contacts and how they see you.

use std::time::Duration;

use client::engine::{Event, RosterEntry};
use protocol::Address;
use protocol::message::{Availability, Via};
use protocol::parameter::WireValue as _;
use serde_json::json;

use crate::arguments::{Global, Roster};
use crate::driver::{Driver, Happening};
use crate::failure::Failure;
use crate::home::Home;
use crate::text::one_line;
use crate::{output, present};

/// How long the relay may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The way of 130 that a person typed.
pub(crate) fn choice(via: &str) -> Result<Via, Failure> {
    match via {
        "hold" => Ok(Via::Hold),
        "urgent" => Ok(Via::Urgent),
        other => Err(Failure::usage(format!("`{other}` is not offered: hold or urgent"))),
    }
}

/// The state that a person or program named.
pub(crate) fn availability(name: &str) -> Result<Availability, Failure> {
    Availability::read(name)
        .ok_or_else(|| Failure::usage("a state is available, away, busy, dnd or offline"))
}

/// Does what is asked about contacts.
pub(crate) async fn roster(global: &Global, roster: Roster) -> Result<(), Failure> {
    let home = Home::open(global, false)?;
    let (what, person, outcome) = match &roster {
        Roster::List => return list(global, home).await,
        Roster::Add { person, .. } => ("ask", person, "is asked for approval"),
        Roster::Approve { person } => ("approve", person, "is approved and sees how you are"),
        Roster::Deny { person } => ("deny", person, "is denied"),
        Roster::Block { person } => ("block", person, "is blocked; they are not told"),
        Roster::Unblock { person } => ("block", person, "is not blocked"),
        Roster::Urgent { person, allow } => (
            "roster",
            person,
            match allow.as_str() {
                "yes" => "may disturb you with urgent messages while you are busy",
                _ => "may not disturb you while you are busy",
            },
        ),
        Roster::Remove { person } => ("remove", person, "is removed"),
    };
    let address = home.other(person)?;
    let mut driver = home.driver(global).await?;
    online(&mut driver).await?;
    let now = Driver::now();
    let person = address.as_address();
    let engine = &mut driver.engine;
    match &roster {
        Roster::Add { name, .. } => {
            if let Some(name) = name {
                engine.roster_set(person, Some(name), false, now)?;
            }
            engine.roster_ask(person, now)?;
        }
        Roster::Approve { .. } => engine.roster_approve(person, now)?,
        Roster::Deny { .. } => engine.roster_deny(person, now)?,
        Roster::Block { .. } => engine.roster_block(person, true, now),
        Roster::Unblock { .. } => engine.roster_block(person, false, now),
        Roster::Urgent { allow, .. } => engine.roster_set(person, None, allow == "yes", now)?,
        Roster::Remove { .. } | Roster::List => engine.roster_remove(person, now),
    }
    done(&mut driver, what, Some(person)).await?;
    driver.close().await?;
    match global.json {
        true => output::line(json!({ "event": "done", "what": what, "person": address.as_str() })),
        false => output::line(format_args!("{address} {outcome}.")),
    }
}

/// Says how the account wants to be met.
pub(crate) async fn presence(
    global: &Global,
    state: &str,
    until: Option<Duration>,
) -> Result<(), Failure> {
    let state = availability(state)?;
    let mut driver = Home::open(global, false)?.driver(global).await?;
    online(&mut driver).await?;
    let now = Driver::now();
    let until = until.map(|time| now.plus_ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
    driver.engine.set_presence(state, until, &[], now)?;
    done(&mut driver, "presence", None).await?;
    driver.close().await?;
    match global.json {
        true => output::line(json!({
            "event": "done", "what": "presence", "state": state.name(),
            "until": until.map(|until| until.0),
        })),
        false => output::line(format_args!(
            "Whenever this device is connected, you are {}.",
            state.name()
        )),
    }
}

/// Waits until the login is complete.
pub(crate) async fn online(driver: &mut Driver) -> Result<(), Failure> {
    let work = driver.until(|_, happening| match happening {
        Happening::Event(Event::CaughtUp) => Ok(Some(())),
        Happening::Event(Event::LoginFailed { code, text }) => {
            Err(Failure::reply(*code, format!("the relay refused the login: {text}")))
        }
        Happening::Offline { reason, is_trust: true, .. } => Err(Failure::trust(reason.clone())),
        Happening::Offline { reason, .. } => Err(Failure::temporary(reason.clone())),
        _ => Ok(None),
    });
    tokio::time::timeout(DEADLINE, work)
        .await
        .map_err(|_| Failure::temporary("the relay did not answer in time"))?
}

/// Waits until a command ended.
pub(crate) async fn done(
    driver: &mut Driver,
    wanted: &'static str,
    person: Option<Address<'_>>,
) -> Result<(), Failure> {
    let person = person.map(|person| person.to_buf());
    let work = driver.until(|_, happening| match happening {
        Happening::Event(Event::Done { what, contact })
            if *what == wanted && *contact == person =>
        {
            Ok(Some(()))
        }
        Happening::Event(Event::Refused { what, contact, code, text })
            if *what == wanted && *contact == person =>
        {
            Err(Failure::reply(*code, text.clone()))
        }
        Happening::Offline { reason, .. } => Err(Failure::temporary(reason.clone())),
        _ => Ok(None),
    });
    tokio::time::timeout(DEADLINE, work)
        .await
        .map_err(|_| Failure::temporary("the relay did not answer in time"))?
}

async fn list(global: &Global, home: Home) -> Result<(), Failure> {
    let mut driver = home.driver(global).await?;
    online(&mut driver).await?;
    let roster = driver.engine.roster()?;
    driver.close().await?;
    if global.json {
        return roster.iter().try_for_each(|entry| output::line(present::roster_to_json(entry)));
    }
    if roster.is_empty() {
        return output::line("No contacts yet: `cim roster add PERSON`.");
    }
    let width = roster.iter().map(|entry| entry.contact.as_str().chars().count()).max();
    roster.iter().try_for_each(|entry| output::line(row(entry, width.unwrap_or(0))))
}

fn row(entry: &RosterEntry, width: usize) -> String {
    let notes: Vec<&str> = [
        (entry.is_approved, "approved by you"),
        (entry.approves_us, "approved you"),
        (entry.has_asked, "asked by you"),
        (entry.was_asked, "asks you"),
        (entry.is_blocked, "blocked"),
        (entry.may_be_urgent, "may be urgent"),
    ]
    .into_iter()
    .filter_map(|(is_so, note)| is_so.then_some(note))
    .collect();
    let name = match &entry.name {
        Some(name) => format!("\"{}\"  ", one_line(name)),
        None => String::new(),
    };
    format!("{:<width$}  {name}{}", entry.contact.as_str(), notes.join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_all_and_stays_a_row() {
        let entry = RosterEntry {
            contact: protocol::AddressBuf::parse("bob@demo.local").unwrap(),
            is_approved: true,
            approves_us: false,
            has_asked: true,
            was_asked: false,
            is_blocked: false,
            may_be_urgent: true,
            name: Some("Bob\n\u{1b}[2J".into()),
        };
        assert_eq!(
            row(&entry, 16),
            "bob@demo.local    \"Bob \u{FFFD}[2J\"  approved by you, asked by you, may be urgent"
        );
    }
}
