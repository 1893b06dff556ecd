//! Expiry, bounces, clocks that jump.

use std::time::Duration;

use protocol::message::Bounce;
use protocol::signature::{Algorithm, PublicKey};
use protocol::{Code, Command};

use super::super::ledger::{Talk, answer, friends, numbered};
use super::super::simulation::{Person, Simulation};
use super::super::{ConnectionId, limits};
use crate::event::Event;
use crate::keys::{KeyService as _, SigningKeyName};

/// Sends a message that lives for a minute.
fn short_lived(simulation: &mut Simulation, talk: &mut Talk<'_>, link: ConnectionId) -> String {
    let (line, _) = talk.begin(simulation, Code::MESSAGE);
    let line = line.parameter("TTL", 60).body(b"short");
    let code = answer(simulation, link, &line);
    assert!(matches!(code, 250 | 252), "{code}");
    line
}

/// Lets minutes pass with the ticks of a relay, keeping a link alive; gives what came on it.
fn pass(simulation: &mut Simulation, minutes: u64, link: ConnectionId) -> Vec<String> {
    let mut got = Vec::new();
    for _ in 0..minutes * 2 {
        simulation.advance(Duration::from_secs(30));
        got.extend(simulation.say(link, "015"));
    }
    got
}

fn bounces(lines: &[String]) -> Vec<String> {
    lines.iter().filter(|line| line.starts_with("190 ")).cloned().collect()
}

fn waiting(simulation: &mut Simulation, person: &Person) -> u64 {
    let standing = simulation.domain.post.spool.standing(&simulation.store, &person.device);
    standing.unwrap().held.rows
}

#[test]
fn a_line_nobody_fetches_bounces_with_the_log_keys_signature() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(1);
    simulation.say(at_bob, "014 H-Q=100");
    simulation.drop_link(at_bob);
    let mut talk = Talk::new(&alice, &bob.account);
    let before = waiting(&mut simulation, &bob);
    let line = short_lived(&mut simulation, &mut talk, at_alice);
    let (long, _) = talk.message(&mut simulation);
    answer(&mut simulation, at_alice, &long);
    simulation.take(at_alice);
    let got = pass(&mut simulation, 9, at_alice);
    assert!(bounces(&got).is_empty(), "nothing early after the start");
    let got = bounces(&pass(&mut simulation, 5, at_alice));
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(numbered(&got[0]).is_some(), "a bounce stands in the queue");
    let command = Command::parse(got[0].as_bytes()).unwrap();
    let bounce = Bounce::parse(&command).unwrap();
    let sent = Command::parse(line.as_bytes()).unwrap();
    assert_eq!(Some(bounce.about.as_str()), sent.parameter("MID"));
    assert_eq!(bounce.code.number(), 558);
    let key = simulation.keys.public_key(SigningKeyName::Log).unwrap();
    command.verify(&PublicKey::parse(Algorithm::P256, &key).unwrap()).unwrap();
    assert_eq!(waiting(&mut simulation, &bob), before + 1, "the other line still waits");
    let at_bob = simulation.log_in(&bob);
    let got = simulation.say(at_bob, "013 H-Q=0");
    let got: Vec<String> = got.iter().filter_map(|line| Some(numbered(line)?.1)).collect();
    assert!(got.contains(&long) && !got.contains(&line));
}

#[test]
fn five_bounces_a_minute_are_signed_and_the_rest_counted() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(2);
    pass(&mut simulation, 11, at_alice);
    simulation.drop_link(at_bob);
    let mut talk = Talk::new(&alice, &bob.account);
    for _ in 0..8 {
        short_lived(&mut simulation, &mut talk, at_alice);
    }
    simulation.take(at_alice);
    let got = pass(&mut simulation, 4, at_alice);
    assert_eq!(bounces(&got).len(), limits::BOUNCES_PER_MINUTE as usize);
    let counts = simulation.domain.post_counts();
    assert_eq!((counts.expired, counts.bounced, counts.bounces_counted), (8, 5, 3));
}

#[test]
fn a_token_that_is_away_puts_bounces_off() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(3);
    pass(&mut simulation, 11, at_alice);
    simulation.drop_link(at_bob);
    let mut talk = Talk::new(&alice, &bob.account);
    short_lived(&mut simulation, &mut talk, at_alice);
    simulation.keys.set_away(true);
    simulation.take(at_alice);
    let got = pass(&mut simulation, 5, at_alice);
    assert!(bounces(&got).is_empty());
    simulation.keys.set_away(false);
    let got = pass(&mut simulation, 3, at_alice);
    assert_eq!(bounces(&got).len(), 1);
}

#[test]
fn a_clock_that_jumps_empties_nothing() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(4);
    pass(&mut simulation, 11, at_alice);
    simulation.drop_link(at_bob);
    let mut talk = Talk::new(&alice, &bob.account);
    let (line, _) = talk.message(&mut simulation);
    assert_eq!(answer(&mut simulation, at_alice, &line), 252);
    let year_ms = 365 * 24 * 3_600_000;
    for (step, forward) in [(1, true), (2, false)] {
        let timestamp = simulation.now.timestamp.0;
        let jumped = if forward { timestamp + year_ms } else { timestamp - year_ms };
        simulation.now.timestamp = protocol::timestamp::Timestamp(jumped);
        pass(&mut simulation, 30, at_alice);
        let events = simulation.events.iter().filter(|event| **event == Event::ClockJumped);
        assert_eq!(events.count(), 1, "{step}");
        assert_eq!(answer(&mut simulation, at_alice, &line), 252, "still known");
    }
    let at_bob = simulation.log_in(&bob);
    let got = simulation.say(at_bob, "013 H-Q=0");
    assert!(got.iter().any(|got| numbered(got).is_some_and(|(_, got)| got == line)), "{got:?}");
}

#[test]
fn lines_live_for_thirty_days_and_message_ids_for_seven() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(5);
    simulation.drop_link(at_bob);
    let mut talk = Talk::new(&alice, &bob.account);
    let (line, _) = talk.message(&mut simulation);
    let id = Command::parse(line.as_bytes()).unwrap().parameter("MID").unwrap().to_owned();
    assert_eq!(answer(&mut simulation, at_alice, &line), 252);
    simulation.drop_link(at_alice);
    let mut known = true;
    for days in 1..=33 {
        // Every few minutes, so that no step is a jump.
        for _ in 0..24 * 15 {
            simulation.advance(Duration::from_secs(240));
        }
        let at_alice = simulation.log_in(&alice);
        let again = line.replace("SEQ=1", "SEQ=2");
        if known {
            known = answer(&mut simulation, at_alice, &again) == 554;
            assert!(known || days > 7, "forgotten after {days} days");
        }
        let got = simulation.say(at_alice, "013 H-Q=0");
        let is_bounced = bounces(&got).iter().any(|line| line.contains(&id));
        assert!(!is_bounced || days > 30, "bounced after {days} days");
        simulation.drop_link(at_alice);
    }
    assert!(!known, "message ids are forgotten in the end");
    assert!(simulation.domain.post_counts().expired >= 1, "and lines given up");
}
