//! What the directory believes and what it refuses.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use protocol::record::RecordBuilder;
use protocol::signature::{Signer as _, SoftwareSigner};

use super::*;
use crate::random::Seeded;
use crate::secret::Secret32;

const NOW: Timestamp = Timestamp(1_795_469_246_123);

fn state() -> State {
    let key = Secret32::from_slice(&[1; 32]).unwrap();
    State::in_memory(&key, Box::new(Seeded::new(1))).unwrap()
}

fn signer(seed: u8) -> SoftwareSigner {
    SoftwareSigner::ed25519(&[seed; 32]).unwrap()
}

fn alice() -> Address<'static> {
    Address::parse("alice@a.example").unwrap()
}

fn first() -> RecordBuilder {
    RecordBuilder::new(alice(), Timestamp(0), NOW.plus_ms(limits::DAY_MS))
        .device("d1", signer(11).public_key())
}

/// A chain of records, oldest first; each turn of `rotate` brings another identity key.
fn chain(rotate: &[bool]) -> Vec<String> {
    let mut identity = 1;
    let mut lines = vec![first().sign(&signer(identity)).unwrap()];
    for &rotate in rotate {
        let last = parse(lines.last().unwrap()).unwrap();
        let next = RecordBuilder::after(&last);
        let old = signer(identity);
        identity += u8::from(rotate);
        lines.push(next.sign_with(&signer(identity), rotate.then_some(&old as _), None).unwrap());
    }
    lines
}

fn newest_first(lines: &[String]) -> Vec<String> {
    lines.iter().rev().cloned().collect()
}

#[test]
fn the_first_record_is_believed_and_the_chain_followed() {
    let mut state = state();
    let lines = chain(&[false, false, true, false]);
    let learn = |state: &mut State, lines: &[String]| learn(state, alice(), lines, None, NOW);
    assert_eq!(learn(&mut state, &lines[..1]).unwrap(), Learned::New);
    assert_eq!(learn(&mut state, &lines[..1]).unwrap(), Learned::Same);
    assert_eq!(learn(&mut state, &lines[1..2]).unwrap(), Learned::Updated);
    // Two records were missed: the relay is asked for the one between.
    let needed = parse(&lines[4]).unwrap().previous().unwrap();
    let newest = newest_first(&lines[4..]);
    assert_eq!(learn(&mut state, &newest).unwrap(), Learned::NeedsOlder(needed));
    let all = newest_first(&lines[2..]);
    assert_eq!(learn(&mut state, &all).unwrap(), Learned::IdentityChanged);
    assert!(shown(&mut state, alice()).unwrap());
    assert!(!shown(&mut state, alice()).unwrap());
    let older = learn(&mut state, &lines[3..4]);
    assert!(matches!(older, Err(DirectoryError::Chain(_))), "a lower VER");
}

#[test]
fn broken_chains_are_refused() {
    let mut state = state();
    let lines = chain(&[false]);
    learn(&mut state, alice(), &lines[..1], None, NOW).unwrap();
    let foreign = first().sign(&signer(9)).unwrap();
    let stolen = RecordBuilder::after(&parse(&lines[0]).unwrap()).sign(&signer(9)).unwrap();
    let bob = Address::parse("bob@a.example").unwrap();
    for (name, account, line) in
        [("no rotation", alice(), &stolen), ("lower", alice(), &foreign), ("bob", bob, &lines[1])]
    {
        let refused = learn(&mut state, account, std::slice::from_ref(line), None, NOW);
        assert!(refused.is_err(), "{name}");
    }
    let held = Contact::load(&state, alice()).unwrap().unwrap();
    assert_eq!(held.record, lines[0]);
}

#[test]
fn chains_at_n_and_one_more() {
    let mut state = state();
    let lines = chain(&[false; limits::RECORD_CHAIN_MAX + 1]);
    learn(&mut state, alice(), &lines[..1], None, NOW).unwrap();
    let all = newest_first(&lines[2..]);
    assert_eq!(all.len(), limits::RECORD_CHAIN_MAX);
    assert!(learn(&mut state, alice(), &all, None, NOW).is_err(), "one more would be needed");
    let fewer = newest_first(&lines[2..lines.len() - 1]);
    let asked = learn(&mut state, alice(), &fewer, None, NOW);
    assert!(matches!(asked.unwrap(), Learned::NeedsOlder(_)));
    let enough = newest_first(&lines[1..lines.len() - 1]);
    assert_eq!(learn(&mut state, alice(), &enough, None, NOW).unwrap(), Learned::Updated);
}

#[test]
fn replaced_records_serve_for_a_day_if_nothing_was_taken_away() {
    let mut state = state();
    let lines = chain(&[false]);
    let name = parse(&lines[0]).unwrap().name();
    learn(&mut state, alice(), &lines[..1], None, NOW).unwrap();
    learn(&mut state, alice(), &lines[1..], None, NOW).unwrap();
    let contact = Contact::load(&state, alice()).unwrap().unwrap();
    let day = limits::REPLACED_RECORD_AGE_MS_MAX;
    assert!(contact.record_named(name, NOW.plus_ms(day - 1)).unwrap().is_some());
    assert!(contact.record_named(name, NOW.plus_ms(day)).unwrap().is_none());
    let last = parse(&lines[1]).unwrap();
    let without = RecordBuilder::after(&last).without_device("d1").sign(&signer(1)).unwrap();
    learn(&mut state, alice(), &[without], None, NOW).unwrap();
    let contact = Contact::load(&state, alice()).unwrap().unwrap();
    assert!(contact.record_named(last.name(), NOW).unwrap().is_none(), "a device was taken away");
}

#[test]
fn domains_are_pinned_and_their_policies_only_rise() {
    let mut state = state();
    let domain = Address::parse("a.example").unwrap();
    let record = RecordBuilder::new(domain, Timestamp(0), NOW.plus_ms(1)).sign(&signer(5)).unwrap();
    let pin = key_hash(signer(5).public_key());
    let wrong = learn(&mut state, domain, std::slice::from_ref(&record), Some(&[0; 32]), NOW);
    assert!(matches!(wrong, Err(DirectoryError::Pin)));
    assert_eq!(learn(&mut state, domain, &[record], Some(&pin), NOW).unwrap(), Learned::New);
    let mut policy = Policy::new(domain, Timestamp(0), NOW.plus_ms(1));
    policy.version = 2;
    let line = policy.sign(&signer(5)).unwrap();
    assert_eq!(learn_policy(&mut state, domain, &line).unwrap(), policy);
    assert_eq!(held_policy(&state, domain).unwrap(), Some(policy.clone()));
    policy.version = 1;
    let lower = policy.sign(&signer(5)).unwrap();
    policy.version = 3;
    let forged = policy.sign(&signer(6)).unwrap();
    for line in [lower, forged] {
        assert!(learn_policy(&mut state, domain, &line).is_err());
    }
}

#[test]
fn safety_numbers_are_the_same_on_both_sides() {
    let one = parse(&first().sign(&signer(1)).unwrap()).unwrap();
    let bob = Address::parse("bob@a.example").unwrap();
    let record = |seed| {
        let builder = RecordBuilder::new(bob, Timestamp(0), Timestamp(9));
        parse(&builder.sign(&signer(seed)).unwrap()).unwrap()
    };
    let number = safety_number(&one, &record(2));
    assert_eq!(number, safety_number(&record(2), &one));
    assert_ne!(number, safety_number(&one, &record(3)));
    assert_eq!((number.len(), number.bytes().all(|digit| digit.is_ascii_digit())), (60, true));
}
