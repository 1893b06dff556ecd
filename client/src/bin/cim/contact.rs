//! `cim roster …` and `cim available|away|busy|dnd`: contacts and how they see you.

use std::time::Duration;

use client::engine::Event;
use protocol::message::{Availability, Via};
use protocol::parameter::WireValue as _;
use protocol::{Address, AddressBuf};

use crate::arguments::{Global, Roster};
use crate::driver::{Driver, Happening};
use crate::failure::Failure;
use crate::home::Home;
use crate::present;

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
    let mut driver = Home::open(global, false)?.driver(global)?;
    online(&mut driver).await?;
    let now = Driver::now();
    let (what, person) = match &roster {
        Roster::List => return list(global, driver).await,
        Roster::Add { person, .. } => ("ask", person),
        Roster::Approve { person } => ("approve", person),
        Roster::Deny { person } => ("deny", person),
        Roster::Block { person } | Roster::Unblock { person } => ("block", person),
        Roster::Urgent { person, .. } => ("roster", person),
        Roster::Remove { person } => ("remove", person),
    };
    let address = AddressBuf::parse(person)?;
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
    driver.close().await
}

/// Says how the account wants to be met.
pub(crate) async fn presence(
    global: &Global,
    state: &str,
    until: Option<Duration>,
) -> Result<(), Failure> {
    let state = availability(state)?;
    let mut driver = Home::open(global, false)?.driver(global)?;
    online(&mut driver).await?;
    let now = Driver::now();
    let until = until.map(|time| now.plus_ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
    driver.engine.set_presence(state, until, &[], now)?;
    done(&mut driver, "presence", None).await?;
    driver.close().await
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

async fn list(global: &Global, driver: Driver) -> Result<(), Failure> {
    let roster = driver.engine.roster()?;
    driver.close().await?;
    for entry in &roster {
        if global.json {
            println!("{}", present::roster_to_json(entry));
            continue;
        }
        let mut notes = Vec::new();
        for (is_so, note) in [
            (entry.is_approved, "approved by you"),
            (entry.approves_us, "approved you"),
            (entry.has_asked, "asked by you"),
            (entry.was_asked, "asks you"),
            (entry.is_blocked, "blocked"),
            (entry.may_be_urgent, "may be urgent"),
        ] {
            if is_so {
                notes.push(note);
            }
        }
        let name = entry.name.as_deref().unwrap_or_default();
        println!("{:<32} {:<16} {}", entry.contact, crate::text::visible(name), notes.join(", "));
    }
    if roster.is_empty() && !global.json {
        println!("No contacts yet: `cim roster add PERSON`.");
    }
    Ok(())
}
