//! Tests of revocations: at once, for good, by whom it may be.

use protocol::identifier::MessageId;
use protocol::record::{RecordBuilder, recovery_hash};
use protocol::signature::Signer;
use protocol::{AddressBuf, Code, Timestamp};

use super::super::ConnectionId;
use super::super::simulation::{Person, Simulation, code, parameter, signer};
use super::*;

fn record_of(line: &str) -> Record {
    Record::parse(&Command::parse(line.as_bytes()).unwrap()).unwrap()
}

fn revocation(
    simulation: &mut Simulation,
    record: &str,
    device: Option<&str>,
    by: RevokedBy,
    key: &dyn Signer,
) -> String {
    let record = record_of(record);
    let revocation = Revocation {
        account: record.account().to_buf(),
        record: record.name(),
        device: device.map(Into::into),
        by,
        at: simulation.now.timestamp,
        id: simulation.message_id(),
    };
    revocation.sign(key).unwrap()
}

/// Alice with two devices, both logged in.
fn two_devices(simulation: &mut Simulation) -> ([Person; 2], [ConnectionId; 2], String) {
    let (one, a) = simulation.enrol("alice");
    let two = Person::with_device("alice", "d2");
    let line = RecordBuilder::after(&record_of(&one.record_line))
        .device("d2", two.key.public_key())
        .sign(&one.identity)
        .unwrap();
    simulation.expect(a, &line, 250);
    let b = simulation.log_in(&two);
    ([one, two], [a, b], line)
}

#[test]
fn a_revoked_device_is_out_at_once_and_for_good() {
    let mut simulation = Simulation::new(1);
    let ([one, two], [a, b], record) = two_devices(&mut simulation);
    let line = revocation(&mut simulation, &record, Some("d2"), RevokedBy::Identity, &one.identity);
    let answers = simulation.say(a, &line);
    assert!(answers.iter().any(|answer| code(answer) == 250), "{answers:?}");
    assert!(simulation.is_closed(b));
    assert_eq!(simulation.take(b).last().map(|line| code(line)), Some(421));
    let id = simulation.connect();
    let answer = simulation.prove(id, &two);
    assert_eq!(code(&answer), 535);
    simulation.crash();
    let id = simulation.connect();
    let answer = simulation.prove(id, &two);
    assert_eq!(code(&answer), 535);
    let a = simulation.log_in(&one);
    simulation.expect(a, &line, 250);
    let again = RecordBuilder::after(&record_of(&record)).sign(&one.identity).unwrap();
    simulation.expect(a, &again, 553);
    let without = RecordBuilder::after(&record_of(&record)).without_device("d2");
    let without = without.sign(&one.identity).unwrap();
    simulation.expect(a, &without, 250);
    let renamed = RecordBuilder::after(&record_of(&without))
        .device("d3", two.key.public_key())
        .sign(&one.identity)
        .unwrap();
    simulation.expect(a, &renamed, 553);
}

#[test]
fn a_revoked_identity_suspends_the_account() {
    let mut simulation = Simulation::new(2);
    let ([one, two], [a, b], record) = two_devices(&mut simulation);
    let line = revocation(&mut simulation, &record, None, RevokedBy::Identity, &one.identity);
    let answers = simulation.say(b, &line);
    assert_eq!(code(&answers[0]), 250);
    assert!(simulation.is_closed(a) && simulation.is_closed(b));
    for person in [&one, &two] {
        let id = simulation.connect();
        let answer = simulation.prove(id, person);
        assert_eq!(code(&answer), 535);
    }
}

#[test]
fn the_recovery_key_revokes_and_others_do_not() {
    let mut simulation = Simulation::new(3);
    let (alice, a) = simulation.enrol("alice");
    let recovery = signer("recovery");
    let thief = signer("thief");
    let line = RecordBuilder::after(&record_of(&alice.record_line))
        .recovery(Some(recovery_hash(recovery.public_key())))
        .sign(&alice.identity)
        .unwrap();
    simulation.expect(a, &line, 250);
    let record = line.as_str();
    let by = |key: &dyn Signer| RevokedBy::Recovery(key.public_key().clone());
    for (name, by, key, expected) in [
        ("thief as identity", RevokedBy::Identity, &thief, 553),
        ("thief as recovery", by(&thief), &thief, 553),
        ("device as identity", RevokedBy::Identity, &alice.key, 553),
        ("client as domain", RevokedBy::Domain, &thief, 553),
        ("recovery", by(&recovery), &recovery, 250),
    ] {
        let line = revocation(&mut simulation, record, None, by, key);
        let answers = simulation.say(a, &line);
        assert_eq!(code(&answers[0]), expected, "{name}: {answers:?}");
    }
    assert!(simulation.is_closed(a));
}

#[test]
fn nobody_revokes_for_others_or_from_the_future() {
    let mut simulation = Simulation::new(4);
    let (alice, a) = simulation.enrol("alice");
    let (bob, _) = simulation.enrol("bob");
    let record = bob.record_line.clone();
    let line = revocation(&mut simulation, &record, None, RevokedBy::Identity, &bob.identity);
    simulation.expect(a, &line, 521);
    let ahead = protocol::limits::TIMESTAMP_AHEAD_MS_MAX;
    for (ahead, expected) in [(ahead + 1, 501), (ahead, 250)] {
        let own = record_of(&alice.record_line);
        let revocation = Revocation {
            account: alice.account.clone(),
            record: own.name(),
            device: Some("d1".into()),
            by: RevokedBy::Identity,
            at: Timestamp(simulation.now.timestamp.0 + ahead),
            id: MessageId::from_octets(&[1; 16]),
        };
        let line = revocation.sign(&alice.identity).unwrap();
        let answers = simulation.say(a, &line);
        assert_eq!(code(&answers[0]), expected, "{answers:?}");
    }
    let unknown = Revocation {
        account: alice.account.clone(),
        record: protocol::identifier::RecordName::from_octets(&[1; 32]),
        device: None,
        by: RevokedBy::Identity,
        at: simulation.now.timestamp,
        id: MessageId::from_octets(&[2; 16]),
    };
    let mut simulation = Simulation::new(5);
    let (alice, a) = simulation.enrol("alice");
    simulation.expect(a, &unknown.sign(&alice.identity).unwrap(), 455);
}

#[test]
fn contacts_get_the_statement_also_when_they_were_away() {
    let mut simulation = Simulation::new(6);
    let [(alice, a), (bob, b)] = simulation.friends();
    simulation.drop_link(b);
    let record = alice.record_line.clone();
    let line =
        revocation(&mut simulation, &record, Some("d1"), RevokedBy::Identity, &alice.identity);
    simulation.take(a);
    assert_eq!(code(&simulation.say(a, &line)[0]), 250);
    simulation.crash();
    let b = simulation.log_in(&bob);
    let replayed = simulation.say(b, "013 H-Q=0");
    let got = replayed.iter().any(|replayed| replayed.starts_with("602 FROM alice@a.example KR="));
    assert!(got, "{replayed:?}");
    let fetch = bob.line_to(Code::RECORD_FETCH, &alice.account).finish();
    let answer = simulation.expect(b, &fetch, 251);
    let shown = protocol::base64::decode(&parameter(&answer, "REV").unwrap()).unwrap();
    assert_eq!(String::from_utf8(shown).unwrap(), line);
    let stranger = AddressBuf::parse("alice@b.example").unwrap();
    simulation.expect(b, &bob.line_to(Code::RECORD_FETCH, &stranger).finish(), 550);
}
