//! Tests of what an operator may do while the domain serves.

use protocol::{Suite, Suites};

use super::super::simulation::{DOMAIN, Person, Simulation, code};
use super::*;
use crate::keys::KeyError;

fn wanted() -> Policy {
    let domain = AddressBuf::parse(DOMAIN).unwrap();
    Policy::new(domain.as_address(), Timestamp(0), Timestamp(1))
}

fn revoke(account: &str, device: Option<&str>) -> OperatorRequest {
    let account = AddressBuf::parse(account).unwrap();
    OperatorRequest::Revoke { account, device: device.map(Into::into) }
}

#[test]
fn a_policy_is_signed_in_the_token_and_in_force_when_durable() {
    let mut simulation = Simulation::new(1);
    let unprovisioned = simulation.operate(OperatorRequest::Policy);
    assert_eq!(unprovisioned, Err(OperatorError::NotProvisioned));
    simulation.provision();
    let same = OperatorRequest::PolicyPublish { wanted: Box::new(wanted()) };
    let Ok(OperatorAnswer::Policy { policy, .. }) = simulation.operate(same) else { panic!() };
    assert_eq!(policy.version, 1, "nothing changed");
    let strict = Policy { suites: Suites::new(&[Suite::M2]), is_signed: true, ..wanted() };
    let publish = OperatorRequest::PolicyPublish { wanted: Box::new(strict) };
    simulation.keys.set_away(true);
    let away = simulation.operate(publish.clone());
    let is_away =
        matches!(away, Err(OperatorError::Signing(SigningError::Token(KeyError::Away { .. }))));
    assert!(is_away, "{away:?}");
    simulation.keys.set_away(false);
    let Ok(OperatorAnswer::Policy { policy, line }) = simulation.operate(publish) else { panic!() };
    assert_eq!((policy.version, policy.is_signed), (2, true));
    let hello = "010 FROM eve@a.example/d1 VER=1";
    let id = simulation.connect();
    assert!(simulation.expect(id, hello, 250).contains("SUITES:M2,"), "in force at once");
    simulation.crash();
    let id = simulation.connect();
    assert!(simulation.expect(id, hello, 250).contains("SUITES:M2,"), "and after a restart");
    let Ok(OperatorAnswer::Policy { line: held, .. }) = simulation.operate(OperatorRequest::Policy)
    else {
        panic!()
    };
    assert_eq!(held, line);
    let foreign = Policy { domain: AddressBuf::parse("b.example").unwrap(), ..wanted() };
    let foreign = OperatorRequest::PolicyPublish { wanted: Box::new(foreign) };
    assert!(matches!(simulation.operate(foreign), Err(OperatorError::NotHere { .. })));
}

#[test]
fn another_token_signs_nothing() {
    let mut simulation = Simulation::new(2);
    simulation.provision();
    simulation.enrol("alice");
    simulation.keys = std::sync::Arc::new(crate::keys::software::SoftwareKeys::generate().unwrap());
    let refused = simulation.operate(revoke("alice@a.example", None));
    assert_eq!(refused, Err(OperatorError::Signing(SigningError::OtherKey)));
}

#[test]
fn the_domain_revokes_a_device_or_an_account() {
    let mut simulation = Simulation::new(3);
    simulation.provision();
    let [(_, a), (bob, b)] = simulation.friends();
    simulation.say(b, "013 H-Q=0");
    let unknown = simulation.operate(revoke("nobody@a.example", None));
    assert!(matches!(unknown, Err(OperatorError::NotHere { .. })));
    let unknown = simulation.operate(revoke("alice@a.example", Some("d9")));
    assert!(matches!(unknown, Err(OperatorError::NoDevice { .. })));
    let done = simulation.operate(revoke("alice@a.example", Some("d1")));
    assert_eq!(done, Ok(OperatorAnswer::Revoked { is_new: true }));
    assert!(simulation.is_closed(a));
    let told = simulation.take(b);
    let statement = told.iter().find(|line| line.starts_with("602 ")).unwrap();
    assert!(statement.contains("BY=domain") && statement.contains("DEV=d1"), "{statement}");
    let Ok(OperatorAnswer::Status(status)) = simulation.operate(OperatorRequest::Status) else {
        panic!()
    };
    assert_eq!((status.links, status.devices_online), (1, 1));
    let again = simulation.operate(revoke("alice@a.example", Some("d1")));
    assert_eq!(again, Ok(OperatorAnswer::Revoked { is_new: false }));
    let done = simulation.operate(revoke("bob@a.example", None));
    assert_eq!(done, Ok(OperatorAnswer::Revoked { is_new: true }));
    assert!(simulation.is_closed(b));
    let id = simulation.connect();
    let answer = simulation.prove(id, &bob);
    assert_eq!(code(&answer), 535);
    let users = simulation.operate(OperatorRequest::Users { after: None });
    let Ok(OperatorAnswer::Users { users, next: None }) = users else { panic!() };
    let states: Vec<(&str, bool, bool)> = users
        .iter()
        .map(|user| (user.account.as_str(), user.is_suspended, user.devices[0].is_revoked))
        .collect();
    assert_eq!(states, [("alice@a.example", false, true), ("bob@a.example", true, false)]);
}

#[test]
fn users_come_in_pages_and_the_status_counts() {
    let mut simulation = Simulation::new(4);
    simulation.provision();
    let count = limits::USERS_SHOWN_MAX + 1;
    for number in 0..count {
        let person = Person::new(&format!("p{number}"));
        let command = Command::parse(person.record_line.as_bytes()).unwrap();
        let record = protocol::record::Record::parse(&command).unwrap();
        let account = Account::new(record, &person.record_line, Timestamp(number as u64));
        let row = crate::directory::account_row(person.account.as_address());
        simulation.put(row, account.encode());
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let users = simulation.operate(OperatorRequest::Users { after });
        let Ok(OperatorAnswer::Users { users, next }) = users else { panic!() };
        assert!(users.len() <= limits::USERS_SHOWN_MAX);
        seen.extend(users.into_iter().map(|user| user.account));
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen.len(), count, "the domain itself is no user");
    let p0 = Person::new("p0");
    simulation.log_in(&p0);
    simulation.connect();
    let Ok(OperatorAnswer::Status(status)) = simulation.operate(OperatorRequest::Status) else {
        panic!()
    };
    assert_eq!((status.links, status.devices_online, status.policy_version), (2, 1, 1));
}

#[test]
fn invitations_are_for_this_domain() {
    let mut simulation = Simulation::new(5);
    for address in ["eve@b.example", "a.example", "eve@a.example/d1"] {
        let account = Some(AddressBuf::parse(address).unwrap());
        let request = OperatorRequest::Invite { account, valid_for: Duration::from_secs(1) };
        assert!(matches!(simulation.operate(request), Err(OperatorError::NotHere { .. })));
    }
}

#[test]
fn a_stop_finishes_what_is_under_way_and_tells_everybody() {
    let mut simulation = Simulation::new(6);
    let (alice, a) = simulation.enrol("alice");
    let silent = simulation.connect();
    simulation.store.with(|store| store.hold(true));
    simulation.send(a, &format!("631 TO bob@a.example FROM {}", alice.device));
    let stopping = simulation.operate(OperatorRequest::Stop);
    assert_eq!(stopping, Ok(OperatorAnswer::Stopping));
    simulation.send(a, "015");
    simulation.settle();
    assert!(simulation.take(a).is_empty() && !simulation.domain.is_stopped());
    simulation.store.with(|store| store.hold(false));
    simulation.settle();
    let codes: Vec<u16> = simulation.take(a).iter().map(|line| code(line)).collect();
    assert_eq!(codes, [250, 421]);
    assert_eq!(simulation.take(silent).len(), 1);
    assert!(simulation.domain.is_stopped());
}
