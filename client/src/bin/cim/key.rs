//! `cim keys …`: one's own keys, and what is known of others'.

use client::engine::Event;
use client::keyfile::{self, Cost};
use client::phrase::Phrase;
use client::random::System;
use protocol::record::Record;
use protocol::{AddressBuf, base64};
use serde_json::json;
use std::path::Path;

use crate::arguments::{Global, Keys};
use crate::contact::{done, online};
use crate::driver::{Driver, Happening};
use crate::failure::Failure;
use crate::home::{self, Home};
use crate::text::grouped;
use crate::{output, person, terminal};

/// The lowest score of a new password.
const PASSWORD_FLOOR: u8 = 3;

/// Does what is asked about keys.
pub(crate) async fn run(global: &Global, keys: Keys) -> Result<(), Failure> {
    let home = Home::open(global, false)?;
    match keys {
        Keys::Password => change_password(global, &home).await,
        Keys::Show { person: None } => {
            let mut driver = home.driver(global).await?;
            online(&mut driver).await?;
            let record = driver.engine.own_record()?;
            driver.close().await?;
            let record = record.ok_or_else(|| Failure::temporary("the account is not open yet"))?;
            show(global, &record)
        }
        Keys::Show { person: Some(person) } => {
            let person = person::account(&person, home.account()?.as_address())?;
            let mut driver = home.driver(global).await?;
            let record = fetch(&mut driver, &person).await?;
            driver.close().await?;
            show(global, &record)
        }
        Keys::Safety { person } => safety(global, home, &person).await,
        Keys::Trust { person } => trust(global, home, &person).await,
        Keys::Rotate => rotate(global, home).await,
        Keys::Revoke { device, recovery_file } => {
            revoke(global, home, device.as_deref(), recovery_file.as_deref()).await
        }
    }
}

async fn safety(global: &Global, home: Home, person: &str) -> Result<(), Failure> {
    let person = home.other(person)?;
    let mut driver = home.driver(global).await?;
    fetch(&mut driver, &person).await?;
    let digits = driver.engine.safety_number(person.as_address())?;
    driver.close().await?;
    if global.json {
        return output::line(json!({ "person": person.as_str(), "digits": digits }));
    }
    output::line(grouped(&digits))?;
    output::remark(format_args!(
        "if {person} sees the same digits, nobody is between you; compare by voice, not by chat"
    ));
    Ok(())
}

async fn trust(global: &Global, home: Home, person: &str) -> Result<(), Failure> {
    let person = home.other(person)?;
    let mut driver = home.driver(global).await?;
    if driver.engine.contact(person.as_address())?.is_none() {
        return Err(Failure::usage(format!(
            "nothing is known of {person} yet: write to them first"
        )));
    }
    driver.engine.identity_shown(person.as_address(), Driver::now())?;
    driver.act()?;
    driver.close().await?;
    told(global, "trust", format_args!("The identity key of {person} is accepted."))
}

/// Says that something is done.
fn told(global: &Global, what: &str, text: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    match global.json {
        true => output::line(json!({ "event": "done", "what": what })),
        false => output::line(text),
    }
}

/// Fetches a person's record, the newest that the relay has.
async fn fetch(driver: &mut Driver, person: &AddressBuf) -> Result<Record, Failure> {
    online(driver).await?;
    driver.engine.refresh_contact(person.as_address(), Driver::now())?;
    let deadline = tokio::time::Instant::now() + crate::contact::DEADLINE;
    loop {
        driver.act()?;
        if driver.engine.is_settled()? || tokio::time::Instant::now() > deadline {
            break;
        }
        driver.wait().await?;
    }
    let contact = driver.engine.contact(person.as_address())?;
    let contact = contact.ok_or_else(|| {
        Failure::reply(550, format!("{person} is not known here, or has not approved you"))
    })?;
    Ok(contact.record()?)
}

fn show(global: &Global, record: &Record) -> Result<(), Failure> {
    let identity = record.identity();
    let devices: Vec<String> = record
        .devices()
        .iter()
        .map(|device| format!("{} {}", device.name, device.key.algorithm().name()))
        .collect();
    if global.json {
        return output::line(json!({
            "account": record.account().as_str(), "version": record.version(),
            "identity": base64::encode(identity.as_octets()),
            "algorithm": identity.algorithm().name(), "devices": devices,
            "valid_until": record.not_after().0,
        }));
    }
    output::line(format_args!("account       {}", record.account()))?;
    output::line(format_args!("record        version {}", record.version()))?;
    output::line(format_args!(
        "identity key  {} {}",
        identity.algorithm().name(),
        base64::encode(identity.as_octets())
    ))?;
    output::line(format_args!("devices       {}", devices.join(", ")))
}

async fn rotate(global: &Global, home: Home) -> Result<(), Failure> {
    let password = home::password(global, "Password: ").await?;
    let mut secrets = keyfile::open(&home.key_file(), &password)?;
    let path = home.key_file();
    let mut driver = home.driver_with(global, &secrets)?;
    online(&mut driver).await?;
    driver.engine.rotate(Driver::now())?;
    done(&mut driver, "rotate", None).await?;
    if let Some(identity) = driver.engine.rotated_identity()? {
        secrets.identity = Some(identity);
        keyfile::replace(&path, &secrets, &password, Cost::RECOMMENDED, &mut System::new())?;
    }
    driver.close().await?;
    told(
        global,
        "rotate",
        format_args!(
            "Your identity key is new. Contacts are shown the change before they write to you."
        ),
    )
}

async fn revoke(
    global: &Global,
    home: Home,
    device: Option<&str>,
    recovery_file: Option<&Path>,
) -> Result<(), Failure> {
    let mut driver = home.driver(global).await?;
    online(&mut driver).await?;
    let account = driver.engine.device().account().to_buf();
    let signer = match recovery_file {
        Some(path) => {
            let words = std::fs::read_to_string(path).map(zeroize::Zeroizing::new);
            let words = words.map_err(|error| {
                Failure::usage(format!("cannot read {}: {error}", path.display()))
            })?;
            let phrase = Phrase::parse(&words)
                .map_err(|_| Failure::usage("that is not a recovery phrase of 24 words"))?;
            let signer = phrase.signer(account.as_address());
            Some(signer.map_err(|error| Failure::usage(error.to_string()))?)
        }
        None => None,
    };
    let signer = signer.as_ref().map(|signer| signer as &dyn protocol::signature::Signer);
    driver.engine.revoke(device, signer, Driver::now())?;
    let work = driver.until(|_, happening| match happening {
        Happening::Event(Event::Done { what: "revoke", .. }) => Ok(Some(())),
        Happening::Event(Event::Refused { what: "revoke", code, text, .. }) => {
            Err(Failure::reply(*code, text.clone()))
        }
        // The relay closes the link of a device that was revoked.
        Happening::Offline { .. } => Ok(Some(())),
        _ => Ok(None),
    });
    tokio::time::timeout(crate::contact::DEADLINE, work)
        .await
        .map_err(|_| Failure::temporary("the relay did not answer in time"))??;
    told(global, "revoke", format_args!("Revoked. Contacts freeze what comes under that key."))
}

async fn change_password(global: &Global, home: &Home) -> Result<(), Failure> {
    let old = home::password(global, "Old password: ").await?;
    let secrets = keyfile::open(&home.key_file(), &old)?;
    let local = secrets.account.as_address().local().unwrap_or_default().to_owned();
    let new = terminal::choose_password(PASSWORD_FLOOR, vec![local]).await?;
    let cost = Cost::RECOMMENDED;
    keyfile::replace(&home.key_file(), &secrets, &new, cost, &mut System::new())?;
    told(
        global,
        "password",
        format_args!(
            "The password is changed. Copies of the old key file still open with the old one."
        ),
    )
}
