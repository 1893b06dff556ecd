//! Accounts: registration, rotation, revocation, restore, several devices, the pinned domain.

use protocol::record::RecordBuilder;
use protocol::signature::{Signer as _, SoftwareSigner};

use super::world::{World, address};
use crate::engine::{Event, Notice, Status};
use crate::limits;
use crate::state::Space;

const ALICE: usize = 0;
const BOB: usize = 1;

#[test]
fn without_an_invitation_there_is_no_account() {
    let mut world = World::new();
    let index = world.add("eve@a.example/d1", World::quick());
    world.connect(index);
    world.settle();
    let failed = |event: &Event| matches!(event, Event::LoginFailed { code: 550, .. });
    assert!(world.stations[index].has(failed));
    assert!(!world.is_linked(index));
}

#[test]
fn registration_happens_once() {
    let mut world = World::pair();
    let is_new = |event: &Event| *event == Event::Online { is_new_account: true };
    assert!(world.stations[ALICE].has(is_new));
    world.kill(ALICE);
    world.open(ALICE);
    world.stations[ALICE].events.clear();
    world.connect(ALICE);
    world.settle();
    assert!(world.stations[ALICE].has(|e| *e == Event::Online { is_new_account: false }));
    assert!(world.engine(ALICE).is_registered().unwrap());
    let now = world.now;
    assert!(world.engine(ALICE).register("again", None, now).is_err());
}

#[test]
fn a_registration_whose_answer_was_lost_is_complete() {
    let mut world = World::new();
    let index = world.add("carol@a.example/d1", World::quick());
    let now = world.now;
    world.engine(index).register("invitation", None, now).unwrap();
    world.refuse(600, 0, 1, true);
    world.connect(index);
    world.settle();
    world.kill(index);
    world.open(index);
    world.connect(index);
    world.settle();
    assert!(world.engine(index).is_registered().unwrap());
}

#[test]
fn another_domain_key_than_the_pinned_one_is_not_believed() {
    let mut world = World::new();
    world.pin = Some([9; 32]);
    let index = world.enrol("alice", World::quick());
    let seen =
        |event: &Event| matches!(event, Event::Tampering { from, .. } if from == "a.example");
    assert!(world.stations[index].has(seen));
    assert_eq!(world.engine(index).state.count(Space::Policy).unwrap(), 0);
}

#[test]
fn a_rotated_identity_is_shown_before_anything_is_sent_on() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "under the old key");
    world.settle();
    let (alice, bob) = (address("alice@a.example"), address("bob@a.example"));
    let before = world.engine(BOB).safety_number(alice).unwrap();
    let now = world.now;
    world.engine(ALICE).rotate(now).unwrap();
    assert!(world.engine(ALICE).rotate(now).is_err(), "one at a time");
    world.settle();
    assert!(world.stations[ALICE].has(|e| *e == Event::Done { what: "rotate", contact: None }));
    world.say(ALICE, BOB, "under the new key");
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["under the old key", "under the new key"]);
    let changed = |event: &Event| {
        matches!(event, Event::IdentityChanged { contact }
        if contact.as_address() == alice)
    };
    assert!(world.stations[BOB].has(changed));

    let mid = world.say(BOB, ALICE, "who are you?");
    world.settle();
    world.pass(limits::HOUR_MS);
    assert_eq!(world.engine(BOB).message_status(&mid).unwrap(), Some(Status::Waiting));
    world.kill(BOB);
    world.open(BOB);
    world.connect(BOB);
    world.settle();
    assert_eq!(world.engine(BOB).message_status(&mid).unwrap(), Some(Status::Waiting));
    let now = world.now;
    world.engine(BOB).identity_shown(alice, now).unwrap();
    world.settle();
    assert_eq!(world.stations[ALICE].texts(), ["who are you?"]);
    let after = world.engine(BOB).safety_number(alice).unwrap();
    assert_ne!(before, after);
    assert_eq!(after, world.engine(ALICE).safety_number(bob).unwrap());
}

#[test]
fn a_rotated_key_survives_a_restart() {
    let mut world = World::pair();
    for _ in 0..2 {
        let now = world.now;
        world.engine(ALICE).rotate(now).unwrap();
        world.settle();
        world.kill(ALICE);
        world.open(ALICE);
        world.connect(ALICE);
        world.settle();
    }
    assert_eq!(world.relay.records["alice@a.example"].len(), 3);
    let held = world.engine(ALICE).rotated_identity().unwrap().unwrap().to_signer().unwrap();
    let record = world.relay.newest("alice@a.example").unwrap();
    assert_eq!(record.identity(), held.public_key());
}

#[test]
fn a_rotation_whose_answer_was_lost_is_finished_at_the_next_login() {
    for is_taken in [true, false] {
        let mut world = World::pair();
        world.refuse(601, 0, 1, is_taken);
        let now = world.now;
        world.engine(ALICE).rotate(now).unwrap();
        world.settle();
        world.kill(ALICE);
        world.open(ALICE);
        world.connect(ALICE);
        world.settle();
        let record = world.relay.newest("alice@a.example").unwrap();
        assert_eq!(record.version(), 2);
        let held = world.engine(ALICE).rotated_identity().unwrap().unwrap().to_signer().unwrap();
        assert_eq!(record.identity(), held.public_key(), "{is_taken}");
    }
}

#[test]
fn a_revoked_account_is_neither_believed_nor_written_to() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "before");
    world.settle();
    let now = world.now;
    world.engine(ALICE).revoke(None, None, now).unwrap();
    world.settle();
    let revoked = |event: &Event| matches!(event, Event::Revoked { device: None, .. });
    assert!(world.stations[BOB].has(revoked));
    world.say(ALICE, BOB, "after");
    let mid = world.say(BOB, ALICE, "are you still you?");
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["before"]);
    assert!(world.stations[BOB].has(|e| matches!(e, Event::Tampering { .. })));
    assert_eq!(world.engine(BOB).message_status(&mid).unwrap(), Some(Status::Failed));
}

#[test]
fn a_forged_revocation_is_not_believed() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "hello");
    world.settle();
    let now = world.now;
    let thief = SoftwareSigner::ed25519(&[77; 32]).unwrap();
    world.engine(ALICE).revoke(None, Some(&thief), now).unwrap();
    world.settle();
    assert!(world.stations[BOB].has(|e| matches!(e, Event::Tampering { .. })));
    assert!(!world.stations[BOB].has(|e| matches!(e, Event::Revoked { .. })));
}

#[test]
fn a_restored_device_begins_anew() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "one");
    world.say(BOB, ALICE, "two");
    world.settle();
    world.kill(ALICE);
    let copy = world.stations[ALICE].folder().join("copy");
    std::fs::copy(world.stations[ALICE].path(), &copy).unwrap();
    world.open(ALICE);
    world.connect(ALICE);
    world.say(ALICE, BOB, "three");
    world.settle();
    world.kill(ALICE);
    std::fs::copy(&copy, world.stations[ALICE].path()).unwrap();
    world.open(ALICE);
    world.pass(1_000);
    let now = world.now;
    world.engine(ALICE).restored(now).unwrap();
    let before = world.relay.wire.len();
    world.connect(ALICE);
    world.settle();
    world.say(ALICE, BOB, "four");
    world.settle();
    world.say(BOB, ALICE, "five");
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["one", "three", "four"]);
    assert!(world.stations[ALICE].texts().ends_with(&["five".into()]));
    let wire = &world.relay.wire[before..];
    let position = |code: &str| wire.iter().position(|line| line.starts_with(code));
    assert!(position("700 ") < position("100 "), "700 before anything else");
    let numbers =
        wire.iter().filter_map(|line| line.split(' ').find_map(|w| w.strip_prefix("SPK=")));
    assert!(numbers.clone().any(|number| number.parse::<u64>().unwrap() > 1_000_000));
}

#[test]
fn sessions_cover_every_device_of_both_sides() {
    let mut world = World::pair();
    let second = world.add("alice@a.example/d2", World::quick());
    let signer = |octet: u8| SoftwareSigner::ed25519(&[octet; 32]).unwrap();
    let owner = "alice@a.example".bytes().fold(0u8, |sum, octet| sum.wrapping_add(octet));
    let record = world.relay.newest("alice@a.example").unwrap();
    let key = signer(world.stations[second].seed() + 40);
    let line =
        RecordBuilder::after(&record).device("d2", key.public_key()).sign(&signer(owner)).unwrap();
    world.relay.records.get_mut("alice@a.example").unwrap().push(line);
    for index in [ALICE, second] {
        world.connect(index);
    }
    world.settle();
    world.say(BOB, ALICE, "to both of you");
    world.settle();
    assert_eq!(world.stations[ALICE].texts(), ["to both of you"]);
    assert_eq!(world.stations[second].texts(), ["to both of you"]);
    world.say(second, BOB, "from the second");
    world.say(ALICE, BOB, "from the first");
    world.settle();
    let mut texts = world.stations[BOB].texts();
    texts.sort();
    assert_eq!(texts, ["from the first", "from the second"]);
    let offer = world.relay.wire.iter().rev().find(|line| line.starts_with("700 ")).unwrap();
    assert!(offer.contains(" SIGNED=1 "), "three devices");
    for number in 0..110 {
        world.say(BOB, ALICE, &number.to_string());
    }
    world.settle();
    world.say(BOB, ALICE, "after the refresh");
    world.settle();
    assert!(world.relay.wire.iter().any(|line| line.starts_with("702 ")));
    assert_eq!(world.stations[second].texts().len(), 112);
    assert_eq!(world.stations[ALICE].texts().len(), 112);
}

#[test]
fn bounces_are_heeded_only_when_signed_and_for_open_lines() {
    let mut world = World::pair();
    world.cut(BOB);
    let open = world.say(ALICE, BOB, "never fetched");
    world.settle();
    let now = world.now;
    world.relay.bounce("alice@a.example/d1", &open, now, true);
    world.settle();
    assert!(world.stations[ALICE].has(|e| matches!(e, Event::Tampering { .. })));
    assert_eq!(world.engine(ALICE).message_status(&open).unwrap(), Some(Status::Taken));
    world.relay.bounce("alice@a.example/d1", &open, now, false);
    world.relay.bounce("alice@a.example/d1", "AAAAAAAAAAAAAAAAAAAAAA", now, false);
    world.settle();
    let bounced = |notice: &&Notice| matches!(notice, Notice::Failed { is_bounce: true, .. });
    assert_eq!(world.stations[ALICE].notices().into_iter().filter(bounced).count(), 1);
    world.connect(BOB);
    world.settle();
    let delivered = world.engine(ALICE).message_status(&open).unwrap();
    assert_eq!(delivered, Some(Status::Delivered), "it came after all");
    world.relay.bounce("alice@a.example/d1", &open, now, false);
    world.settle();
    assert_eq!(world.engine(ALICE).message_status(&open).unwrap(), delivered);
}

#[test]
fn prekeys_are_kept_in_stock_and_rotated() {
    let mut world = World::pair();
    let stock = |world: &World| world.relay.one_time_prekeys["bob@a.example/d1"].len();
    let wanted = world.stations[BOB].config.one_time_stock;
    assert_eq!(stock(&world), wanted);
    world.say(ALICE, BOB, "takes one");
    world.settle();
    assert_eq!(stock(&world), wanted - 1);
    let mine = crate::prekey::one_time_count(&world.engine(BOB).state).unwrap();
    assert_eq!(mine, wanted - 1, "the private half is gone once used");
    world.relay.tell("bob@a.example/d1", "613 COUNT=2");
    world.settle();
    assert_eq!(stock(&world), wanted - 1 + wanted - 2);
    let numbers = |world: &World| -> Vec<u64> {
        let lines = world.relay.wire.iter().filter(|line| line.contains("bob@a.example/d1 SPK="));
        let numbers = lines.filter(|line| line.starts_with("611 "));
        numbers.filter_map(|l| l.split("SPK=").nth(1)?.split(' ').next()?.parse().ok()).collect()
    };
    assert_eq!(numbers(&world), [1]);
    for _ in 0..3 {
        world.now = world.now.plus_ms(limits::SIGNED_KEY_AGE_MS);
        world.connect(BOB);
        world.settle();
        world.pass(2_000);
    }
    assert_eq!(numbers(&world), [1, 2, 3, 4]);
    let kept = world.engine(BOB).state.list_prefix::<serde_json::Value>(Space::Prekey, "spk:");
    assert_eq!(kept.unwrap().len(), limits::SIGNED_KEYS_KEPT);
}

#[test]
fn presence_and_roster_pass_through() {
    use protocol::message::Availability;
    let mut world = World::pair();
    let now = world.now;
    let (alice, bob) = (address("alice@a.example"), address("bob@a.example"));
    world.engine(ALICE).set_presence(Availability::Busy, None, &[], now).unwrap();
    world.engine(ALICE).roster_set(bob, Some("Bobby"), true, now).unwrap();
    world.engine(ALICE).roster_ask(bob, now).unwrap();
    world.engine(ALICE).query_presence(bob, now);
    world.settle();
    assert!(world.relay.wire.iter().any(|line| line.contains("STATE=busy")));
    let set = world.relay.wire.iter().find(|line| line.starts_with("631 ")).unwrap().clone();
    assert!(!set.contains("Bobby"));
    assert!(matches!(world.stations[BOB].notices()[..],
        [Notice::SubscriptionAsked { contact }] if contact.as_address() == alice));
    let blob = set.split("BLOB=").nth(1).unwrap().split(' ').next().unwrap();
    world.relay.tell(
        "alice@a.example/d1",
        &format!("632 WHO=bob@a.example VER=7 SUB=both URGENT=1 BLOB={blob}"),
    );
    world.relay.tell("alice@a.example/d1", "121 FROM bob@a.example STATE=away");
    world.settle();
    let roster = world.engine(ALICE).roster().unwrap();
    assert_eq!(roster[0].name.as_deref(), Some("Bobby"));
    assert!(roster[0].approves_us && roster[0].is_approved && roster[0].may_be_urgent);
    assert!(world.stations[ALICE].has(|e| matches!(e, Event::Presence { state, .. }
        if *state == Availability::Away)));
    world.relay.tell("alice@a.example/d1", "632 WHO=bob@a.example VER=8 SUB=none DEL=1");
    world.settle();
    assert!(world.engine(ALICE).roster().unwrap().is_empty());
    world.connect(ALICE);
    world.settle();
    let said = world.relay.wire.iter().filter(|line| line.contains("STATE=busy")).count();
    assert_eq!(said, 2, "said again at each login");
}
