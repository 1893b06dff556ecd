//! `cim recv`: prints what has arrived, and with `--follow` what arrives.

use client::engine::Event;

use crate::arguments::Global;
use crate::driver::{Driver, Happening};
use crate::failure::Failure;
use crate::home::Home;
use crate::present;

/// Prints until the relay's queue is empty, or until Ctrl-C.
pub(crate) async fn run(global: &Global, follow: bool) -> Result<(), Failure> {
    let mut driver = Home::open(global, false)?.driver(global)?;
    loop {
        let mut is_caught_up = false;
        for happening in driver.act()? {
            show(global, &happening);
            match happening {
                Happening::Event(Event::Notice { id, .. }) => {
                    driver.engine.shown(id, Driver::now())?;
                }
                Happening::Event(Event::CaughtUp) => is_caught_up = true,
                Happening::Event(Event::LoginFailed { code, text }) => {
                    return Err(Failure::reply(code, format!("login refused: {text}")));
                }
                Happening::Offline { reason, is_trust: true, .. } => {
                    return Err(Failure::trust(reason));
                }
                Happening::Offline { reason, .. } if !follow => {
                    return Err(Failure::temporary(reason));
                }
                _ => {}
            }
        }
        if is_caught_up && !follow {
            return driver.close().await;
        }
        tokio::select! {
            result = driver.wait() => result?,
            _ = tokio::signal::ctrl_c() => return driver.close().await,
        }
    }
}

/// Messages and what belongs to them; comings and goings only for programs.
fn show(global: &Global, happening: &Happening) {
    if global.json {
        if let Some(value) = present::to_json(happening) {
            println!("{value}");
        }
    } else if let Some(text) = present::to_text(happening) {
        println!("{text}");
    }
}
