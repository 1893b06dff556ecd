//! A person whose device runs inside this process, line by line, so that lines can be changed.
//!
//! Opens the keys and the state of a [`Person`] who is not here, with the client's own engine.
//! Whoever holds the puppet sees every line before it goes out and before the engine reads it. What
//! it did is durable in the person's state: they may come back afterwards.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use client::engine::{Config, Engine, Event, Output};
use client::identity::Identity;
use client::keyfile;
use client::random::System;
use client::state::State;
use client::suite::SoftwareHolder;
use protocol::{AddressBuf, base64};

use crate::device::now;
use crate::link::{Dialer, Heard, Link};
use crate::person::{PATIENCE, Person};

/// How often the engine is told the time while a line is waited for.
const TICK: Duration = Duration::from_millis(200);

/// A device in this process with its link to the relay.
pub struct Puppet {
    engine: Engine,
    link: Link,
    /// Lines that the engine wants to send.
    outgoing: VecDeque<String>,
    /// What the engine told, oldest first.
    events: Vec<Event>,
}

impl Puppet {
    /// Opens the device of `person`, dials the relay and says hello. The login goes on with
    /// [`Puppet::step_to`].
    ///
    /// # Errors
    /// If the person is here, the keys do not open or the relay does not answer.
    pub fn open(dialer: &Dialer, person: &Person) -> Result<Self> {
        ensure!(!person.is_here(), "{} is here", person.name());
        let key_file = person.home().join("key.json");
        let secrets = keyfile::open(&key_file, person.password())?;
        let state =
            State::open(&person.home().join("state.db"), &secrets.state, Box::new(System::new()))?;
        let signer = Box::new(secrets.device.to_signer()?);
        let identity =
            Identity::new(secrets.account.as_address(), &secrets.device_name, signer, None)?;
        let pin =
            secrets.domain.key.as_ref().map(|text| {
                base64::decode_array(text).ok().context("the key file has a damaged pin")
            });
        let holder = Box::new(SoftwareHolder);
        let mut engine =
            Engine::open(state, identity, holder, Config::default(), pin.transpose()?)?;
        let link = dialer.dial()?;
        engine.connected(link.exporter()?, now())?;
        Ok(Self { engine, link, outgoing: VecDeque::new(), events: Vec::new() })
    }

    /// Gives a text to the engine.
    ///
    /// # Errors
    /// The engine's.
    pub fn say(&mut self, to: &str, text: &str) -> Result<()> {
        let to = AddressBuf::parse(to)?;
        self.engine.send_text(to.as_address(), text, None, now())?;
        Ok(())
    }

    /// The next line that the engine wants to send, without its CRLF, not yet sent.
    ///
    /// # Errors
    /// The engine's.
    pub fn next_outgoing(&mut self) -> Result<Option<String>> {
        for output in self.engine.take_output()? {
            match output {
                Output::Send(line) => {
                    let line = String::from_utf8(line)?;
                    self.outgoing.push_back(line.trim_end_matches("\r\n").to_owned());
                }
                Output::Event(event) => self.events.push(event),
                Output::Disconnect(why) => bail!("the engine hangs up: {why}"),
            }
        }
        Ok(self.outgoing.pop_front())
    }

    /// Puts a line on the link, whatever it is.
    ///
    /// # Errors
    /// If the link is gone.
    pub fn put(&mut self, line: &str) -> Result<()> {
        self.link.say(line)
    }

    /// The next line from the relay, not yet seen by the engine; time passes meanwhile.
    ///
    /// # Errors
    /// If none comes, or the link ends.
    pub fn next_incoming(&mut self) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.link.hear_within(TICK)? {
                Heard::Line(line) => return Ok(line),
                Heard::End => bail!("the relay hung up"),
                Heard::Nothing => {}
            }
            self.engine.tick(now())?;
            while let Some(line) = self.next_outgoing()? {
                self.put(&line)?;
            }
        }
        bail!("no line came in {} s", PATIENCE.as_secs())
    }

    /// Lets the engine read a line.
    ///
    /// # Errors
    /// The engine's.
    pub fn read(&mut self, line: &str) -> Result<()> {
        self.engine.line_received(line.as_bytes(), now())?;
        Ok(())
    }

    /// Sends what the engine wants to send, then lets it read one line from the relay. Stops
    /// before a line that `is_wanted`, in either direction, and returns it untouched.
    ///
    /// # Errors
    /// As [`Puppet::next_incoming`].
    pub fn step_to(&mut self, is_wanted: impl Fn(&str) -> bool) -> Result<String> {
        loop {
            while let Some(line) = self.next_outgoing()? {
                if is_wanted(&line) {
                    return Ok(line);
                }
                self.put(&line)?;
            }
            let line = self.next_incoming()?;
            if is_wanted(&line) {
                return Ok(line);
            }
            self.read(&line)?;
        }
    }

    /// What the engine told since the last call. Notices count as shown.
    ///
    /// # Errors
    /// The engine's.
    pub fn take_events(&mut self) -> Result<Vec<Event>> {
        let mut held = VecDeque::new();
        while let Some(line) = self.next_outgoing()? {
            held.push_back(line);
        }
        self.outgoing = held;
        let events = std::mem::take(&mut self.events);
        for event in &events {
            if let Event::Notice { id, .. } = event {
                self.engine.shown(*id, now())?;
            }
        }
        Ok(events)
    }

    /// Sends what is left and hangs up.
    ///
    /// # Errors
    /// If the link is gone.
    pub fn close(mut self) -> Result<()> {
        while let Some(line) = self.next_outgoing()? {
            self.put(&line)?;
        }
        self.link.close()
    }
}
