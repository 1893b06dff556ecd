//! Busy people: 350, HOLD, URGENT, and what is held across restarts.

use std::time::Duration;

use protocol::Code;
use protocol::identifier::MessageId;

use super::super::ConnectionId;
use super::super::ledger::{Talk, answer, friends, queued};
use super::super::limits;
use super::super::simulation::{Person, Simulation, code, parameter};

fn set(simulation: &mut Simulation, who: &Person, link: ConnectionId, state: &str) {
    simulation.send(link, &format!("120 FROM {} STATE={state}", who.device));
    simulation.settle();
}

fn choose(from: &Person, to: &Person, id: MessageId, via: &str) -> String {
    from.line_to(Code::CHOICE, &to.account).parameter("RE", id).parameter("VIA", via).finish()
}

#[test]
fn a_busy_friend_is_asked_about_and_gets_what_was_held_when_free() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(1);
    let until = simulation.now.timestamp.plus_ms(3_600_000);
    set(&mut simulation, &bob, at_bob, &format!("busy UNTIL={}", until.0));
    simulation.take(at_alice);
    let mut talk = Talk::new(&alice, &bob.account);
    let mut held = Vec::new();
    for _ in 0..3 {
        let (line, id) = talk.message(&mut simulation);
        let got = simulation.say(at_alice, &line);
        assert_eq!(code(&got[0]), 350);
        assert_eq!(parameter(&got[0], "UNTIL"), Some(until.0.to_string()));
        assert_eq!(answer(&mut simulation, at_alice, &choose(&alice, &bob, id, "SMS")), 504);
        assert_eq!(answer(&mut simulation, at_alice, &choose(&alice, &bob, id, "URGENT")), 521);
        assert_eq!(answer(&mut simulation, at_alice, &choose(&alice, &bob, id, "HOLD")), 252);
        assert_eq!(answer(&mut simulation, at_alice, &line), 252, "a repeat is not asked again");
        assert_eq!(answer(&mut simulation, at_alice, &choose(&alice, &bob, id, "HOLD")), 503);
        held.push(line);
    }
    assert!(queued(&mut simulation, at_bob).is_empty());
    set(&mut simulation, &bob, at_bob, "available");
    let (next, _) = talk.message(&mut simulation);
    simulation.take(at_alice);
    assert_eq!(answer(&mut simulation, at_alice, &next), 250);
    held.push(next);
    assert_eq!(queued(&mut simulation, at_bob), held);
}

#[test]
fn until_ends_and_a_restart_releases_too() {
    for crash in [false, true] {
        let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(2);
        let until = simulation.now.timestamp.plus_ms(60_000);
        set(&mut simulation, &bob, at_bob, &format!("dnd UNTIL={}", until.0));
        let mut talk = Talk::new(&alice, &bob.account);
        let (line, id) = talk.message(&mut simulation);
        simulation.say(at_alice, &line);
        assert_eq!(answer(&mut simulation, at_alice, &choose(&alice, &bob, id, "HOLD")), 252);
        let at_bob = if crash {
            simulation.crash();
            simulation.advance(Duration::from_secs(1));
            simulation.log_in(&bob)
        } else {
            simulation.advance(Duration::from_secs(59));
            assert!(queued(&mut simulation, at_bob).is_empty());
            simulation.advance(Duration::from_secs(2));
            at_bob
        };
        let mut got = queued(&mut simulation, at_bob);
        let replayed = simulation.say(at_bob, "013 H-Q=0");
        got.extend(
            replayed.iter().filter_map(|line| Some(super::super::ledger::numbered(line)?.1)),
        );
        got.dedup();
        assert_eq!(got, [line], "crash: {crash}");
    }
}

#[test]
fn urgent_passes_where_the_list_allows_it() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(3);
    let line = bob.line_to(Code::ROSTER_SET, &alice.account).parameter("URGENT", 1).finish();
    assert_eq!(answer(&mut simulation, at_bob, &line), 250);
    set(&mut simulation, &bob, at_bob, "busy");
    simulation.take(at_bob);
    let (line, id) = Talk::new(&alice, &bob.account).message(&mut simulation);
    simulation.take(at_alice);
    assert_eq!(answer(&mut simulation, at_alice, &line), 350);
    assert_eq!(answer(&mut simulation, at_alice, &choose(&alice, &bob, id, "URGENT")), 250);
    assert_eq!(queued(&mut simulation, at_bob), [line]);
}

#[test]
fn choices_are_remembered_up_to_their_limits() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(4);
    set(&mut simulation, &bob, at_bob, "busy");
    simulation.take(at_alice);
    let mut talk = Talk::new(&alice, &bob.account);
    let mut ids = Vec::new();
    for _ in 0..=limits::CHOICES_MAX {
        let (line, id) = talk.message(&mut simulation);
        assert_eq!(answer(&mut simulation, at_alice, &line), 350);
        ids.push(id);
    }
    let ask = |simulation: &mut Simulation, id| {
        answer(simulation, at_alice, &choose(&alice, &bob, id, "HOLD"))
    };
    assert_eq!(ask(&mut simulation, ids[0]), 503, "the oldest was forgotten");
    assert_eq!(ask(&mut simulation, ids[1]), 252);
    for link in [at_alice, at_bob] {
        simulation.advance(limits::CHOICE_TIME_MAX / 2 - Duration::from_millis(500));
        simulation.say(link, "015");
        simulation.say(at_alice, "015");
    }
    assert_eq!(ask(&mut simulation, ids[2]), 252);
    simulation.advance(Duration::from_secs(1));
    assert_eq!(ask(&mut simulation, ids[3]), 503);
    let mut large = Vec::new();
    for _ in 0..7 {
        let (line, id) = talk.begin(&mut simulation, Code::MESSAGE);
        assert_eq!(answer(&mut simulation, at_alice, &line.body(&[1; 40_000])), 350);
        large.push(id);
    }
    assert_eq!(ask(&mut simulation, large[0]), 503, "seven times 53 KiB are too much");
    assert_eq!(ask(&mut simulation, large[6]), 252);
}

#[test]
fn a_hold_is_not_lost_by_faults() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(5);
    set(&mut simulation, &bob, at_bob, "busy");
    simulation.take(at_alice);
    let (line, id) = Talk::new(&alice, &bob.account).message(&mut simulation);
    assert_eq!(answer(&mut simulation, at_alice, &line), 350);
    simulation.store.with(|store| store.set_full(true));
    let hold = choose(&alice, &bob, id, "HOLD");
    assert_eq!(answer(&mut simulation, at_alice, &hold), 452);
    simulation.store.with(|store| store.set_full(false));
    assert_eq!(answer(&mut simulation, at_alice, &hold), 252, "the choice was still there");
    simulation.store.with(|store| store.set_full(true));
    set(&mut simulation, &bob, at_bob, "available");
    assert!(queued(&mut simulation, at_bob).is_empty());
    simulation.store.with(|store| store.set_full(false));
    simulation.advance(Duration::from_secs(1));
    assert_eq!(queued(&mut simulation, at_bob), [line]);
    simulation.advance(Duration::from_secs(1));
    assert!(queued(&mut simulation, at_bob).is_empty(), "once");
}
