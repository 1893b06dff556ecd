//! Which generation is used, and when one is erased.

use std::collections::BTreeMap;

use super::*;
use crate::random::Seeded;

const NOW: Timestamp = Timestamp(1_795_469_246_123);
const ALICE: &str = "alice@a.example/d1";
const BOB: &str = "bob@a.example/d1";

fn own() -> Address<'static> {
    Address::parse(ALICE).unwrap()
}

fn state() -> State {
    let key = Secret32::from_slice(&[1; 32]).unwrap();
    State::in_memory(&key, Box::new(Seeded::new(1))).unwrap()
}

/// A session of alice and bob, as alice sees it.
fn session(generations: &[&Generation], state: &mut State) -> Session {
    let member = |device: &str| Member {
        device: device.into(),
        record: String::new(),
        algorithm: 1,
        key: String::new(),
    };
    for generation in generations {
        generation.store(state).unwrap();
    }
    let session = Session {
        sid: "sid".into(),
        accounts: vec!["alice@a.example".into(), "bob@a.example".into()],
        suite: "M1".into(),
        is_signed: true,
        members: vec![member(ALICE), member(BOB)],
        mem: String::new(),
        offered_at: NOW.0,
        is_closed: false,
        closed_at: 0,
        generations: generations.iter().map(|one| one.name.clone()).collect(),
    };
    session.store(state).unwrap();
    session
}

fn offered_by(offerer: &str, name: &str, depth: u32) -> Generation {
    Generation {
        name: name.into(),
        sid: "sid".into(),
        parent: None,
        depth,
        offerer: offerer.into(),
        offered_at: NOW.0,
        first_used_at: None,
        exporter: Secret32::from_slice(&[2; 32]).unwrap(),
        seed: None,
        seed_until: 0,
        offers: BTreeMap::new(),
        lines: 0,
        octets: 0,
        last_sent: 0,
        superseded_at: None,
        offers_again: BTreeMap::new(),
    }
}

fn offered_to_bob(name: &str, depth: u32, offer: OfferState, last_sent: u64) -> Generation {
    let offers = BTreeMap::from([(BOB.to_owned(), offer)]);
    Generation { offers, last_sent, ..offered_by(ALICE, name, depth) }
}

/// The name of the generation in use; "wait" or "none".
fn chosen(generations: &[&Generation]) -> String {
    let mut state = state();
    let session = session(generations, &mut state);
    match choose(&state, &session, own()).unwrap() {
        Choice::Use(generation) => generation.name,
        Choice::Wait => "wait".into(),
        Choice::None => "none".into(),
    }
}

#[test]
fn the_longest_chain_then_the_smaller_name() {
    let (first, theirs) = (offered_by(BOB, "m", 0), offered_by(BOB, "b", 1));
    let mine = offered_to_bob("a", 1, OfferState::Taken, 0);
    assert_eq!(chosen(&[]), "none");
    assert_eq!(chosen(&[&first]), "m");
    assert_eq!(chosen(&[&first, &theirs]), "b");
    assert_eq!(chosen(&[&first, &theirs, &mine]), "a");
    let pending = offered_to_bob("a", 1, OfferState::Queued, 0);
    assert_eq!(chosen(&[&first, &pending]), "wait");
    assert_eq!(chosen(&[&first, &pending, &theirs]), "b", "nothing was sealed in a yet");
}

#[test]
fn lines_in_doubt_hold_their_sender() {
    let theirs = offered_by(BOB, "a", 1);
    let deeper = offered_by(BOB, "c", 2);
    let child = offered_to_bob("d", 2, OfferState::Taken, 0);
    for (offer, expected) in [
        (OfferState::Queued, "wait"),
        (OfferState::Refused, "wait"),
        (OfferState::Taken, "b"),
        (OfferState::Accepted, "a"),
        (OfferState::Void, "a"),
    ] {
        let mine = offered_to_bob("b", 1, offer, 3);
        assert_eq!(chosen(&[&mine, &theirs]), expected, "{offer:?}");
    }
    let mine = offered_to_bob("b", 1, OfferState::Taken, 3);
    assert_eq!(chosen(&[&mine, &theirs, &deeper]), "b");
    assert_eq!(chosen(&[&mine, &theirs, &deeper, &child]), "d", "its own go in order");
}

/// Whether a superseded generation without chains is still there at a time.
fn survives(generation: &Generation, at: Timestamp, awaited: Option<&str>) -> bool {
    let mut state = state();
    let session = session(&[generation], &mut state);
    if let Some(parent) = awaited {
        awaited::note(&mut state, "child", ("sid", Some(parent)), true, at).unwrap();
    }
    expire(&mut state, own(), &session.sid, at).unwrap();
    Generation::load(&state, &generation.name).unwrap().is_some()
}

#[test]
fn a_spent_generation_stays_while_it_is_needed() {
    let superseded = Some(NOW.0);
    let spent = Generation { superseded_at: superseded, ..offered_by(BOB, "g", 0) };
    assert!(!survives(&spent, NOW, None));
    assert!(survives(&spent, NOW, Some("g")), "a refresh that follows on it is awaited");
    assert!(!survives(&spent, NOW, Some("another")));
    let doubted = offered_to_bob("g", 0, OfferState::Taken, 1);
    let doubted = Generation { superseded_at: superseded, ..doubted };
    assert!(survives(&doubted, NOW.plus_ms(limits::OFFER_MEMORY_MS - 1), None));
    assert!(!survives(&doubted, NOW.plus_ms(limits::OFFER_MEMORY_MS), None));
}
