//! Tests of rosters over the store in memory.

use protocol::timestamp::Timestamp;

use super::*;
use crate::store::{CommitToken, MemoryStore, Outcome};

fn address(text: &str) -> AddressBuf {
    AddressBuf::parse(text).unwrap()
}

fn commit(store: &mut MemoryStore, operations: Vec<Operation>) -> Outcome {
    store.submit(CommitToken(1), operations).unwrap();
    let mut outcomes = Vec::new();
    store.completions(&mut outcomes);
    outcomes.pop().unwrap().1
}

fn approved(who: &str) -> Contact {
    let mut contact = Contact::new(address(who), Timestamp(1));
    contact.relation.approves = true;
    contact
}

#[test]
fn a_change_is_durable_once_and_versions_rise() {
    let mut store = MemoryStore::new();
    let mut rosters = Rosters::new();
    let alice = address("alice@a.example");
    let bob = approved("bob@a.example");
    let (first, one) = rosters.change_operations(&store, alice.as_address(), None, &bob).unwrap();
    let carol = approved("carol@a.example");
    let (second, two) =
        rosters.change_operations(&store, alice.as_address(), None, &carol).unwrap();
    assert_eq!((one, two), (1, 2), "the first is not durable yet");
    assert_eq!(commit(&mut store, first.clone()), Outcome::Durable);
    assert!(matches!(commit(&mut store, first), Outcome::Conflict { index: 0, .. }));
    assert_eq!(commit(&mut store, second), Outcome::Durable);
    let stale = rosters.roster(&store, alice.as_address()).unwrap();
    assert_eq!(stale.count(), 0, "remembered until forgotten");
    rosters.forget(alice.as_address());
    let roster = rosters.roster(&store, alice.as_address()).unwrap();
    assert_eq!((roster.count(), roster.version()), (2, 2));
    assert!(roster.relation(address("bob@a.example/d1").as_address()).approves);
    assert_eq!(roster.relation(alice.as_address()), Relation::default());
}

#[test]
fn a_contact_without_content_is_removed_and_the_version_rises() {
    let mut store = MemoryStore::new();
    let mut rosters = Rosters::new();
    let alice = address("alice@a.example");
    let bob = approved("bob@a.example");
    let owner = alice.as_address();
    let (operations, _) = rosters.change_operations(&store, owner, None, &bob).unwrap();
    commit(&mut store, operations);
    let gone = Contact::new(bob.address.clone(), Timestamp(2));
    let (operations, version) =
        rosters.change_operations(&store, owner, Some(&bob), &gone).unwrap();
    assert_eq!(commit(&mut store, operations), Outcome::Durable);
    rosters.forget(owner);
    rosters.settle();
    let roster = rosters.roster(&store, owner).unwrap();
    assert_eq!((roster.count(), roster.version(), version), (0, 2, 2));
    assert_eq!(contact(&store, owner, bob.address.as_address()), Ok(None));
}

#[test]
fn a_full_memory_starts_anew() {
    let mut store = MemoryStore::new();
    let mut rosters = Rosters::new();
    let alice = address("alice@a.example");
    let bob = approved("bob@a.example");
    let (operations, _) =
        rosters.change_operations(&store, alice.as_address(), None, &bob).unwrap();
    commit(&mut store, operations);
    rosters.forget(alice.as_address());
    rosters.roster(&store, alice.as_address()).unwrap();
    rosters.relation_count = limits::RELATIONS_REMEMBERED_MAX - 1;
    let other = address("other@a.example");
    rosters.roster(&store, other.as_address()).unwrap();
    assert_eq!(rosters.remembered.len(), 2, "n fits");
    rosters.forget(alice.as_address());
    rosters.relation_count = limits::RELATIONS_REMEMBERED_MAX;
    rosters.roster(&store, alice.as_address()).unwrap();
    assert_eq!(rosters.remembered.len(), 1, "one more does not");
}
