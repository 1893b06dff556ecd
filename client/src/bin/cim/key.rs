//! `cim keys …`: one's own keys, and what is known of others'.

use client::engine::Event;
use client::keyfile::{self, Cost};
use client::phrase::Phrase;
use client::random::System;
use protocol::record::Record;
use protocol::{AddressBuf, base64};
use std::path::Path;

use crate::arguments::{Global, Keys};
use crate::contact::{done, online};
use crate::driver::{Driver, Happening};
use crate::failure::Failure;
use crate::home::{self, Home};
use crate::terminal;

/// The lowest score of a new password.
const PASSWORD_FLOOR: u8 = 3;

/// Does what is asked about keys.
pub(crate) async fn run(global: &Global, keys: Keys) -> Result<(), Failure> {
    let home = Home::open(global, false)?;
    match keys {
        Keys::Password => change_password(global, &home),
        Keys::Show { person: None } => {
            let mut driver = home.driver(global)?;
            online(&mut driver).await?;
            let record = driver.engine.own_record()?;
            driver.close().await?;
            let record = record.ok_or_else(|| Failure::temporary("the account is not open yet"))?;
            show(global, &record);
            Ok(())
        }
        Keys::Show { person: Some(person) } => {
            let mut driver = home.driver(global)?;
            let record = fetch(&mut driver, &person).await?;
            driver.close().await?;
            show(global, &record);
            Ok(())
        }
        Keys::Safety { person } => {
            let mut driver = home.driver(global)?;
            fetch(&mut driver, &person).await?;
            let digits = driver.engine.safety_number(AddressBuf::parse(&person)?.as_address())?;
            driver.close().await?;
            println!("{digits}");
            Ok(())
        }
        Keys::Trust { person } => {
            let mut driver = home.driver(global)?;
            let person = AddressBuf::parse(&person)?;
            driver.engine.identity_shown(person.as_address(), Driver::now())?;
            driver.act()?;
            driver.close().await
        }
        Keys::Rotate => rotate(global, home).await,
        Keys::Revoke { device, recovery_file } => {
            revoke(global, home, device.as_deref(), recovery_file.as_deref()).await
        }
    }
}

/// Fetches a person's record, the newest that the relay has.
async fn fetch(driver: &mut Driver, person: &str) -> Result<Record, Failure> {
    let person = AddressBuf::parse(person)?;
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

fn show(global: &Global, record: &Record) {
    let identity = record.identity();
    let devices: Vec<String> = record
        .devices()
        .iter()
        .map(|device| format!("{} {}", device.name, device.key.algorithm().name()))
        .collect();
    if global.json {
        println!(
            "{}",
            serde_json::json!({
                "account": record.account().as_str(), "version": record.version(),
                "identity": base64::encode(identity.as_octets()),
                "algorithm": identity.algorithm().name(), "devices": devices,
                "valid_until": record.not_after().0,
            })
        );
        return;
    }
    println!("account       {}", record.account());
    println!("record        version {}", record.version());
    println!(
        "identity key  {} {}",
        identity.algorithm().name(),
        base64::encode(identity.as_octets())
    );
    println!("devices       {}", devices.join(", "));
}

async fn rotate(global: &Global, home: Home) -> Result<(), Failure> {
    let password = home::password(global, "Password: ")?;
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
    println!("Your identity key is new. Contacts are shown the change before they write to you.");
    Ok(())
}

async fn revoke(
    global: &Global,
    home: Home,
    device: Option<&str>,
    recovery_file: Option<&Path>,
) -> Result<(), Failure> {
    let mut driver = home.driver(global)?;
    online(&mut driver).await?;
    let account = driver.engine.device().account().to_buf();
    let signer = match recovery_file {
        Some(path) => {
            let words = zeroize::Zeroizing::new(std::fs::read_to_string(path)?);
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
    println!("Revoked. Contacts freeze what comes under that key.");
    Ok(())
}

fn change_password(global: &Global, home: &Home) -> Result<(), Failure> {
    let old = home::password(global, "Old password: ")?;
    let secrets = keyfile::open(&home.key_file(), &old)?;
    let address = secrets.account.clone();
    let known = [address.as_address().local().unwrap_or_default().to_owned()];
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let new = terminal::choose_password(PASSWORD_FLOOR, &known)?;
    let cost = Cost::RECOMMENDED;
    keyfile::replace(&home.key_file(), &secrets, &new, cost, &mut System::new())?;
    println!("The password is changed. Copies of the old key file still open with the old one.");
    Ok(())
}
