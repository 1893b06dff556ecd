//! Tests of registration: invitations, keys, and what a crash leaves.

use std::time::Duration;

use protocol::signature::Signer as _;

use super::super::operator::{OperatorAnswer, OperatorRequest};
use super::super::simulation::{Person, Simulation, code, parameter, signer};
use super::super::{ConnectionId, limits};
use super::*;

/// Proves `person` on a new link, which then may register.
fn ready(simulation: &mut Simulation, person: &Person) -> ConnectionId {
    let id = simulation.connect();
    let answer = simulation.prove(id, person);
    assert!(code(&answer) == 250 && parameter(&answer, "H-Q").is_none(), "{answer}");
    id
}

#[test]
fn an_invitation_works_once_in_time_and_for_whom_it_is() {
    let mut simulation = Simulation::new(1);
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(Person::new);
    let code = simulation.invite(Some(&alice.account));
    let id = ready(&mut simulation, &bob);
    let line = simulation.registration(&bob, &code);
    simulation.expect(id, &line, 535);
    let line = simulation.registration(&bob, "never-given");
    simulation.expect(id, &line, 535);
    let id = ready(&mut simulation, &alice);
    let line = simulation.registration(&alice, &code);
    let answer = simulation.expect(id, &line, 250);
    assert_eq!(parameter(&answer, "H-Q").as_deref(), Some("0"));
    let anybody = simulation.invite(None);
    let id = ready(&mut simulation, &bob);
    let line = simulation.registration(&bob, &anybody);
    simulation.expect(id, &line, 250);
    let id = ready(&mut simulation, &carol);
    let line = simulation.registration(&carol, &anybody);
    simulation.expect(id, &line, 535);
    let late = simulation.invite(None);
    simulation.advance(Duration::from_secs(24 * 3_600));
    let id = ready(&mut simulation, &carol);
    let line = simulation.registration(&carol, &late);
    simulation.expect(id, &line, 535);
}

#[test]
fn wrong_invitations_close_the_link() {
    let mut simulation = Simulation::new(2);
    let alice = Person::new("alice");
    let id = ready(&mut simulation, &alice);
    let line = simulation.registration(&alice, "wrong");
    for failure in 1..=limits::FAILURES_MAX {
        let answers = simulation.say(id, &line);
        assert_eq!(code(&answers[0]), 535);
        assert_eq!(simulation.is_closed(id), failure == limits::FAILURES_MAX);
    }
}

#[test]
fn the_record_must_list_the_key_of_the_link() {
    let mut simulation = Simulation::new(3);
    let alice = Person::new("alice");
    let thief = Person { key: signer("thief"), ..Person::new("alice") };
    let id = ready(&mut simulation, &thief);
    let code = simulation.invite(None);
    let line = simulation.registration(&alice, &code);
    simulation.expect(id, &line, 553);
    let bob = Person::new("bob");
    let line = simulation.registration(&bob, &code);
    simulation.expect(id, &line, 521);
    let id = ready(&mut simulation, &alice);
    let line = simulation.registration(&alice, &code);
    simulation.expect(id, &line, 250);
}

#[test]
fn a_taken_name_is_not_given_again_and_keeps_the_invitation() {
    let mut simulation = Simulation::new(4);
    simulation.enrol("alice");
    let mut other = Person { key: signer("other"), ..Person::new("alice") };
    other.record_line = Person::record(&other.account)
        .device("d1", other.key.public_key())
        .sign(&signer("other identity"))
        .unwrap();
    let code = simulation.invite(None);
    let id = ready(&mut simulation, &other);
    let line = simulation.registration(&other, &code);
    simulation.expect(id, &line, 551);
    let bob = Person::new("bob");
    let id = ready(&mut simulation, &bob);
    let line = simulation.registration(&bob, &code);
    simulation.expect(id, &line, 250);
}

#[test]
fn expired_and_foreign_records_are_refused() {
    let mut simulation = Simulation::new(5);
    let mut alice = Person::new("alice");
    let code = simulation.invite(None);
    let now = simulation.now.timestamp;
    let id = ready(&mut simulation, &alice);
    let hour = 3_600_000;
    for (from, to, expected) in [
        (now.0 - 2 * hour, now.0 - hour, 558),
        (now.0 - 2 * hour, now.0, 558),
        (now.0 + hour, now.0 + 2 * hour, 501),
    ] {
        let (from, to) = (protocol::Timestamp(from), protocol::Timestamp(to));
        alice.record_line = Person::record(&alice.account)
            .validity(from, to)
            .device("d1", alice.key.public_key())
            .sign(&alice.identity)
            .unwrap();
        let line = simulation.registration(&alice, &code);
        simulation.expect(id, &line, expected);
    }
    alice.record_line = Person::record(&alice.account)
        .role(Role::Group)
        .device("d1", alice.key.public_key())
        .sign(&alice.identity)
        .unwrap();
    let line = simulation.registration(&alice, &code);
    simulation.expect(id, &line, 521);
    let work = line.replace("INVITE=", "POW=");
    simulation.expect(id, &work, 521);
}

#[test]
fn the_same_line_twice_at_once_registers_once() {
    let mut simulation = Simulation::new(6);
    let alice = Person::new("alice");
    let code = simulation.invite(None);
    let id = ready(&mut simulation, &alice);
    let line = simulation.registration(&alice, &code);
    simulation.send(id, &line);
    simulation.send(id, &line);
    simulation.settle();
    let answers = simulation.take(id);
    assert!(answers.iter().all(|answer| super::super::simulation::code(answer) == 250));
    assert_eq!(answers.len(), 2, "{answers:?}");
    let registered = simulation.events.iter().filter(|event| **event == Event::Registered);
    assert_eq!(registered.count(), 1);
}

#[test]
fn a_crash_between_commit_and_answer_shows_at_the_next_login() {
    for is_durable in [true, false] {
        let mut simulation = Simulation::new(7);
        let alice = Person::new("alice");
        let code = simulation.invite(None);
        let id = ready(&mut simulation, &alice);
        let line = simulation.registration(&alice, &code);
        simulation.send(id, &line);
        if is_durable {
            simulation.store.with(|store| {
                crate::store::Store::completions(store, &mut Vec::new());
            });
        }
        simulation.crash();
        if is_durable {
            simulation.log_in(&alice);
        } else {
            let id = ready(&mut simulation, &alice);
            simulation.expect(id, &line, 250);
        }
    }
}

#[test]
fn two_people_race_for_one_invitation() {
    let mut simulation = Simulation::new(8);
    let [alice, bob] = ["alice", "bob"].map(Person::new);
    let code = simulation.invite(None);
    let [a, b] = [&alice, &bob].map(|person| ready(&mut simulation, person));
    let lines = [&alice, &bob].map(|person| simulation.registration(person, &code));
    simulation.send(a, &lines[0]);
    simulation.send(b, &lines[1]);
    simulation.settle();
    assert!(simulation.take(a)[0].starts_with("250 "));
    assert!(simulation.take(b)[0].starts_with("535 "));
}

#[test]
fn old_invitations_are_swept() {
    let mut simulation = Simulation::new(9);
    let count = |simulation: &Simulation| {
        let scan = |store: &mut crate::store::MemoryStore| {
            crate::store::Store::scan(store, crate::store::Table::Invite, None, 100)
        };
        simulation.store.with(scan).unwrap().0.len()
    };
    simulation.invite(None);
    let request = OperatorRequest::Invite { account: None, valid_for: Duration::ZERO };
    assert!(matches!(simulation.operate(request), Ok(OperatorAnswer::Invited { .. })));
    let kept = Duration::from_millis(crate::directory::limits::INVITATION_KEPT_MS);
    simulation.advance(kept - Duration::from_millis(1));
    assert_eq!(count(&simulation), 2);
    simulation.advance(limits::SWEEP_INTERVAL);
    assert_eq!(count(&simulation), 1);
}
