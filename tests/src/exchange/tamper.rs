//! Lines that somebody changed: on their way to the relay, and by a relay that lies.

use anyhow::{Context as _, Result, ensure};
use client::engine::{Event, Notice};

use super::Exchange;
use crate::line::word;
use crate::link::Dialer;
use crate::puppet::Puppet;

/// What is changed in a line, and what the relay must answer if its owner sends it so.
const CHANGES: &[(&str, Change, &[u16])] = &[
    ("signature", change_signature, &[553]),
    ("text", change_text, &[553]),
    ("sequence number", |line| raise(line, "SEQ="), &[553]),
    ("time stamp", |line| raise(line, "TS="), &[553]),
    ("sender", change_sender, &[521, 553]),
];

/// Another line from a line; `None` if it has not what is to be changed.
type Change = fn(&str) -> Option<String>;

impl Exchange {
    /// Alice's device sends changed lines: the relay refuses each and takes the true one once.
    pub(super) fn change_lines(&mut self) -> Result<()> {
        let text = "only this text was signed by alice";
        self.secrets.push(text.to_owned());
        let heard = self.bob.heard().len();
        self.alice.leave()?;
        let mut alice = Puppet::open(&Dialer::through_wire(&self.site)?, &self.alice)?;
        alice.say(self.bob.address(), text)?;
        let line = alice.step_to(is_message)?;
        for (what, change, codes) in CHANGES {
            let changed = change(&line).with_context(|| format!("no {what} in {line}"))?;
            ensure!(changed != line, "the {what} is as it was");
            let code = answer(&mut alice, &changed)?;
            ensure!(codes.contains(&code), "another {what} was answered {code}");
            self.narrator.says("relay", &format!("{code} to another {what}"));
        }
        let first = answer(&mut alice, &line)?;
        ensure!(first == 250, "the line itself was answered {first}");
        let again = answer(&mut alice, &line)?;
        ensure!(again == 250, "the line again was answered {again}");
        // The engine learns by itself: it sends the line once more after its next login.
        alice.close()?;
        self.alice.come()?;
        self.hear(false, text)?;
        let after = "and this one was not changed";
        self.say(true, after)?;
        self.hear(false, after)?;
        ensure!(self.bob.heard().len() == heard + 2, "bob saw more: {:?}", self.bob.heard());
        self.narrator.says("bob", "saw the true line once, and none of the others");
        Ok(())
    }

    /// The relay changes what waits for bob: his device refuses each and shows the true line.
    pub(super) fn lie(&mut self) -> Result<()> {
        self.bob.leave()?;
        let text = "this text waits at a relay that lies";
        self.say(true, text)?;
        let mut bob = Puppet::open(&Dialer::through_wire(&self.site)?, &self.bob)?;
        let line = bob.step_to(is_message)?;
        // The queue's number stays with the true line: each changed one is one more line.
        let bare = without(&line, "H-Q=");
        bob.take_events()?;
        for (what, change, _) in CHANGES {
            let changed = change(&bare).with_context(|| format!("no {what} in {bare}"))?;
            bob.read(&changed)?;
            let events = bob.take_events()?;
            ensure!(texts(&events).is_empty(), "with another {what} it is shown: {events:?}");
            let noticed = events.iter().find_map(|event| match event {
                Event::Tampering { what, .. } => Some(*what),
                _ => None,
            });
            let noticed = noticed.with_context(|| format!("another {what}: {events:?}"))?;
            self.narrator.says("bob", &format!("refuses another {what}: {noticed}"));
        }
        bob.read(&line)?;
        let events = bob.take_events()?;
        ensure!(texts(&events) == [text], "the true line: {events:?}");
        bob.close()?;
        self.bob.come()?;
        let after = "and this text came to bob unharmed";
        self.say(true, after)?;
        self.hear(false, after)?;
        Ok(())
    }
}

/// Sends a line and waits for the code of its answer; the engine sees everything else.
fn answer(puppet: &mut Puppet, line: &str) -> Result<u16> {
    let id = word(line, "H-ID=").context("a line that is answered has an H-ID")?.to_owned();
    puppet.put(line)?;
    let reply = puppet.step_to(|reply| is_reply(reply) && word(reply, "H-ID=") == Some(&id))?;
    Ok(reply.get(..3).unwrap_or_default().parse()?)
}

fn is_message(line: &str) -> bool {
    line.starts_with("100 TO ")
}

fn is_reply(line: &str) -> bool {
    line.as_bytes().first().is_some_and(|first| (b'2'..=b'5').contains(first))
        && !line.contains(" TO ")
}

fn texts(events: &[Event]) -> Vec<&str> {
    let text = |event| match event {
        &Event::Notice { notice: Notice::Message(ref message), .. } => Some(message.text.as_str()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

fn without(line: &str, name: &str) -> String {
    let words: Vec<&str> = line.split(' ').filter(|word| !word.starts_with(name)).collect();
    words.join(" ")
}

/// The same line with a number raised by one.
fn raise(line: &str, name: &str) -> Option<String> {
    let value = word(line, name)?;
    let raised = value.parse::<u64>().ok()? + 1;
    Some(line.replacen(&format!("{name}{value}"), &format!("{name}{raised}"), 1))
}

fn change_sender(line: &str) -> Option<String> {
    line.contains("/d1 ").then(|| line.replacen("/d1 ", "/d2 ", 1))
}

fn change_signature(line: &str) -> Option<String> {
    let (rest, signature) = line.rsplit_once(' ')?;
    Some(format!("{rest} {}", with_other_start(signature)?))
}

fn change_text(line: &str) -> Option<String> {
    let (rest, signature) = line.rsplit_once(' ')?;
    let (head, body) = rest.rsplit_once(' ')?;
    Some(format!("{head} {} {signature}", with_other_start(body)?))
}

/// Another base64 word of the same length.
fn with_other_start(word: &str) -> Option<String> {
    let rest = word.get(1..)?;
    Some(format!("{}{rest}", if word.starts_with('A') { 'B' } else { 'A' }))
}
