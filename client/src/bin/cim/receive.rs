//! `cim recv`: prints what has arrived, and with `--follow` what arrives.

use std::collections::VecDeque;

use client::engine::Event;

use crate::arguments::Global;
use crate::driver::{Driver, Happening};
use crate::failure::Failure;
use crate::home::Home;
use crate::stop::{Stop, unless_stopped};
use crate::{output, present};

/// Prints until the relay's queue is empty, or until Ctrl-C.
pub(crate) async fn run(global: &Global, follow: bool) -> Result<(), Failure> {
    let driver = unless_stopped(Home::open(global, false)?.viewer(global)).await?;
    let mut stop = Stop::listen()?;
    let mut reception = Reception { driver, pending: VecDeque::new(), is_caught_up: false };
    let result = tokio::select! {
        result = reception.receive(global, follow) => result,
        () = stop.asked() => Ok(()),
    };
    // What was shown is confirmed however it ended.
    reception.driver.close().await?;
    result
}

struct Reception {
    driver: Driver,
    /// What happened and was not shown yet, the oldest first; the engine bounds it.
    pending: VecDeque<Happening>,
    is_caught_up: bool,
}

impl Reception {
    async fn receive(&mut self, global: &Global, follow: bool) -> Result<(), Failure> {
        loop {
            self.pending.extend(self.driver.act()?);
            match self.pending.pop_front() {
                Some(happening) => self.show(global, follow, &happening).await?,
                None if self.is_caught_up && !follow => return Ok(()),
                None => self.driver.wait().await?,
            }
        }
    }

    /// Shows one thing; confirms a notice once whoever reads has it.
    async fn show(
        &mut self,
        global: &Global,
        follow: bool,
        happening: &Happening,
    ) -> Result<(), Failure> {
        match happening {
            _ if global.json => present::to_json(happening).map_or(Ok(()), output::line)?,
            Happening::Event(Event::Online { .. }) | Happening::Offline { .. } => {
                if let Some(text) = present::to_text(happening).filter(|_| follow) {
                    output::remark(text.trim_start_matches("-- "));
                }
            }
            // Comings and goings are for those who talk.
            Happening::Event(
                Event::Presence { .. } | Event::Session { .. } | Event::Typing { .. },
            ) => {}
            _ => present::to_text(happening).map_or(Ok(()), output::line)?,
        }
        match happening {
            Happening::Event(Event::Notice { id, .. }) => {
                self.hand_over().await?;
                Ok(self.driver.engine.shown(*id, Driver::now())?)
            }
            Happening::Event(Event::CaughtUp) => {
                self.is_caught_up = true;
                Ok(())
            }
            Happening::Event(Event::LoginFailed { code, text }) => {
                Err(Failure::reply(*code, format!("login refused: {text}")))
            }
            Happening::Offline { reason, is_trust: true, .. } => {
                Err(Failure::trust(reason.clone()))
            }
            Happening::Offline { reason, .. } if !follow => Err(Failure::temporary(reason.clone())),
            _ => Ok(()),
        }
    }

    /// Waits until what was written has been taken; the link lives on meanwhile.
    async fn hand_over(&mut self) -> Result<(), Failure> {
        loop {
            tokio::select! {
                biased;
                result = output::taken() => return result,
                result = self.driver.wait() => result?,
            }
            self.pending.extend(self.driver.act()?);
        }
    }
}
