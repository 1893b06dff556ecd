//! Tests of prekeys: handed out once, to whom, and how many.

use std::time::Duration;

use protocol::Timestamp;
use protocol::prekey::{CurveKey, ML_KEM_KEY_OCTETS, MlKemKey, OneTimeKeys, SignedKeys};

use super::super::ConnectionId;
use super::super::simulation::{Person, Simulation, code, parameter};
use super::*;

const DAY_MS: u64 = 24 * 3_600_000;

fn line(person: &Person, number: u64, now: Timestamp, keys: PrekeyKeys) -> String {
    let prekey = Prekey {
        device: person.device.clone(),
        number,
        made: now,
        not_after: now.plus_ms(30 * DAY_MS),
        keys,
    };
    prekey.sign(&person.key).unwrap()
}

pub(in super::super) fn signed(person: &Person, number: u64, now: Timestamp) -> String {
    let keys = SignedKeys {
        x25519: [9; 32],
        ml_kem: MlKemKey::parse(&[0; ML_KEM_KEY_OCTETS]).unwrap(),
        p256: None,
        rsa: None,
    };
    line(person, number, now, PrekeyKeys::Signed(keys))
}

pub(in super::super) fn one_time(person: &Person, number: u64, now: Timestamp) -> String {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    let keys = OneTimeKeys { curve: CurveKey::X25519(key), ml_kem: None };
    line(person, number, now, PrekeyKeys::OneTime(keys))
}

fn stock(simulation: &mut Simulation, person: &Person, id: ConnectionId, count: u64) {
    let now = simulation.now.timestamp;
    simulation.expect(id, &signed(person, 1, now), 250);
    for number in 1..=count {
        let answer = simulation.expect(id, &one_time(person, number, now), 250);
        assert_eq!(parameter(&answer, "COUNT").unwrap(), number.to_string());
    }
}

fn decoded(answer: &str, name: &str) -> Option<String> {
    let value = parameter(answer, name)?;
    Some(String::from_utf8(base64::decode(&value).unwrap()).unwrap())
}

#[test]
fn each_one_time_prekey_is_given_once_in_order() {
    let mut simulation = Simulation::new(1);
    let [(alice, a), (bob, b)] = simulation.friends();
    stock(&mut simulation, &bob, b, 3);
    let now = simulation.now.timestamp;
    let take = alice.line_to(Code::PREKEYS_TAKE, &bob.account).finish();
    for number in 1..=3 {
        let answer = simulation.expect(a, &take, 251);
        assert_eq!(parameter(&answer, "DEV").as_deref(), Some("d1"));
        assert_eq!(decoded(&answer, "PRE").unwrap(), signed(&bob, 1, now));
        assert_eq!(decoded(&answer, "ONE").unwrap(), one_time(&bob, number, now));
    }
    let answer = simulation.expect(a, &take, 251);
    assert_eq!(decoded(&answer, "ONE"), None);
    let told: Vec<String> = simulation.take(b);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[2].starts_with("613 ") && told[2].contains("COUNT=0"), "{told:?}");
    simulation.expect(b, &one_time(&bob, 2, now), 250);
    let answer = simulation.expect(a, &take, 251);
    assert_eq!(decoded(&answer, "ONE"), None, "sent again, it is not stocked again");
}

#[test]
fn ten_an_hour_for_one_target() {
    let mut simulation = Simulation::new(2);
    let [(alice, a), (bob, b)] = simulation.friends();
    stock(&mut simulation, &bob, b, 30);
    let take = alice.line_to(Code::PREKEYS_TAKE, &bob.account).finish();
    for number in 0..limits::PREKEYS_TAKEN_PER_HOUR {
        let answer = simulation.expect(a, &take, 251);
        assert!(decoded(&answer, "ONE").is_some(), "{number}");
    }
    let answer = simulation.expect(a, &take, 251);
    assert!(decoded(&answer, "ONE").is_none() && decoded(&answer, "PRE").is_some());
    assert!(answer.contains("10 an hour"), "{answer}");
    for _ in 0..7 {
        simulation.advance(Duration::from_secs(9 * 60));
        simulation.expect(a, "015", 250);
        simulation.expect(b, "015", 250);
    }
    let answer = simulation.expect(a, &take, 251);
    assert!(decoded(&answer, "ONE").is_some(), "the hour is over");
}

#[test]
fn two_askers_at_once_get_different_ones_and_a_lost_answer_loses_one() {
    let mut simulation = Simulation::new(3);
    let [(alice, a), (bob, b)] = simulation.friends();
    stock(&mut simulation, &bob, b, 3);
    let take = alice.line_to(Code::PREKEYS_TAKE, &bob.account).finish();
    simulation.send(a, &take);
    simulation.send(a, &take);
    simulation.settle();
    let answers = simulation.take(a);
    assert_ne!(decoded(&answers[0], "ONE").unwrap(), decoded(&answers[1], "ONE").unwrap());
    simulation.send(a, &take);
    simulation.store.with(|store| crate::store::Store::completions(store, &mut Vec::new()));
    simulation.crash();
    let a = simulation.log_in(&alice);
    let answer = simulation.expect(a, &take, 251);
    assert_eq!(decoded(&answer, "ONE"), None, "the third may have been seen");
}

#[test]
fn what_is_not_good_is_not_taken() {
    let mut simulation = Simulation::new(4);
    let (alice, a) = simulation.enrol("alice");
    let (bob, _) = simulation.enrol("bob");
    let now = simulation.now.timestamp;
    simulation.expect(a, &signed(&bob, 1, now), 521);
    simulation.expect(a, &signed(&alice, 1, now).replace("SPK=1", "SPK=2"), 553);
    let old = Timestamp(now.0 - 30 * DAY_MS);
    simulation.expect(a, &signed(&alice, 1, old), 558);
    let ahead = protocol::limits::TIMESTAMP_AHEAD_MS_MAX;
    simulation.expect(a, &signed(&alice, 1, now.plus_ms(ahead + 1)), 501);
    simulation.expect(a, &signed(&alice, 5, now.plus_ms(ahead)), 250);
    simulation.expect(a, &signed(&alice, 5, now.plus_ms(ahead)), 250);
    simulation.expect(a, &signed(&alice, 5, now), 455);
    simulation.expect(a, &signed(&alice, 4, now), 455);
    simulation.expect(a, &signed(&alice, 6, now), 250);
    simulation.expect(a, &one_time(&alice, 1, now), 250);
    simulation.expect(a, &one_time(&alice, 1, now.plus_ms(1)), 455);
}

#[test]
fn a_pipelined_upload_is_taken_whole() {
    let mut simulation = Simulation::new(5);
    let (alice, a) = simulation.enrol("alice");
    let now = simulation.now.timestamp;
    for number in 1..=5 {
        simulation.send(a, &signed(&alice, number, now));
    }
    for number in 1..=100 {
        simulation.send(a, &one_time(&alice, number, now));
    }
    simulation.settle();
    let answers = simulation.take(a);
    assert_eq!(answers.len(), 105);
    let codes: Vec<u16> = answers.iter().map(|answer| code(answer)).collect();
    assert!(codes[5..].iter().all(|code| *code == 250), "{codes:?}");
    let answer = simulation.expect(a, &one_time(&alice, 101, now), 250);
    assert_eq!(parameter(&answer, "COUNT").as_deref(), Some("101"));
}

#[test]
fn the_stock_is_full_at_its_limit() {
    let mut simulation = Simulation::new(6);
    let (alice, a) = simulation.enrol("alice");
    let now = simulation.now.timestamp;
    let max = crate::directory::limits::ONE_TIME_PREKEYS_MAX as u64;
    for number in 1..=max {
        simulation.expect(a, &one_time(&alice, number, now), 250);
    }
    simulation.expect(a, &one_time(&alice, max + 1, now), 452);
    simulation.expect(a, &one_time(&alice, max, now), 250);
}

#[test]
fn a_new_key_of_the_device_drops_its_prekeys() {
    let mut simulation = Simulation::new(7);
    let [(alice, a), (bob, b)] = simulation.friends();
    stock(&mut simulation, &bob, b, 2);
    let record = Command::parse(bob.record_line.as_bytes()).unwrap();
    let record = protocol::record::Record::parse(&record).unwrap();
    let key = super::super::simulation::signer("new key");
    use protocol::signature::Signer as _;
    let next = protocol::record::RecordBuilder::after(&record)
        .device("d1", key.public_key())
        .sign(&bob.identity)
        .unwrap();
    assert_eq!(code(&simulation.say(b, &next)[0]), 250);
    assert!(simulation.is_closed(b));
    simulation.take(a);
    let answer =
        simulation.expect(a, &alice.line_to(Code::PREKEYS_TAKE, &bob.account).finish(), 251);
    assert_eq!(parameter(&answer, "DEV"), None, "{answer}");
}
