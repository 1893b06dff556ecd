//! What an engine refuses, how it says so, and how the other side goes on.

use protocol::{AddressBuf, Timestamp};

use super::world::{World, address};
use crate::engine::{Event, Notice, Status};
use crate::limits;
use crate::prekey::Fetched;
use crate::session::offer::{self, Target};
use crate::session::{Generation, OfferState, Session, awaited};
use crate::state::Space;
use crate::suite::Suite;

const ALICE: usize = 0;
const BOB: usize = 1;

/// The code of the last 703 on the wire.
fn refusal(world: &World) -> Option<String> {
    let line = world.relay.wire.iter().rev().find(|line| line.starts_with("703 "))?;
    line.split(' ').find_map(|word| word.strip_prefix("CODE=")).map(Into::into)
}

/// An offer by alice to bob, signed by her device, whose session was changed by `change`.
fn crafted(world: &mut World, suite: Suite, change: impl FnOnce(&mut Session)) -> String {
    let now = world.now;
    let bob = AddressBuf::parse("bob@a.example/d1").unwrap();
    let bob_record = world.relay.newest("bob@a.example").unwrap();
    let prekeys = world.relay.prekeys("bob@a.example/d1");
    let engine = world.engine(ALICE);
    let own = engine.own_record().unwrap().unwrap();
    let sid = offer::new_sid(&mut engine.state).unwrap();
    let mut session = Session::new(sid, suite, true, &[&own, &bob_record], now).unwrap();
    change(&mut session);
    let mut contact = crate::directory::Contact::default();
    let fetched = Fetched::check(&mut contact, &bob_record, "d1", &prekeys.0, None, now).unwrap();
    let target = Target::from_prekeys(&fetched, bob_record.name(), suite).unwrap().unwrap();
    assert_eq!(target.device, bob);
    let birth = (&session, None, limits::DAY_MS);
    let made = offer::make(&mut engine.state, &engine.identity, birth, own.name(), &[target], now);
    made.unwrap().lines.remove(0).line
}

#[test]
fn offers_that_do_not_hold_are_refused_with_their_code() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "acquainted");
    world.settle();
    type Change = fn(&mut Session);
    let cases: [(&str, Suite, Change, Option<&str>); 4] = [
        ("good", Suite::M1, |_| (), None),
        ("other members", Suite::M1, |session| session.mem = "A".repeat(43), Some("553")),
        ("a suite of nobody's record", Suite::M3, |_| (), Some("504")),
        ("accounts", Suite::M1, |s| s.accounts.push("carol@a.example".into()), Some("555")),
    ];
    for (name, suite, change, code) in cases {
        let line = crafted(&mut world, suite, change);
        let before = world.relay.wire.len();
        world.relay.inject("bob@a.example/d1", &line);
        world.settle();
        let refused = world.relay.wire[before..].iter().any(|line| line.starts_with("703 "));
        assert_eq!(refused, code.is_some(), "{name}");
        if code.is_some() {
            assert_eq!(refusal(&world).as_deref(), code, "{name}");
        }
    }
}

#[test]
fn an_unsigned_session_is_refused_where_signing_is_the_rule() {
    let mut world = World::new();
    world.relay.policy.is_signed = true;
    world.enrol("alice", World::quick());
    world.enrol("bob", World::quick());
    let line = crafted(&mut world, Suite::M1, |session| session.is_signed = false);
    world.relay.inject("bob@a.example/d1", &line);
    world.settle();
    assert_eq!(refusal(&world).as_deref(), Some("553"));
    assert!(world.stations[BOB].has(|e| matches!(e, Event::Tampering { .. })));
}

#[test]
fn a_prekey_that_is_gone_is_offered_anew_and_nothing_is_lost() {
    let mut world = World::pair();
    // Bob loses the private halves of his one-time keys.
    let engine = world.engine(BOB);
    let names = engine.state.list_prefix::<serde_json::Value>(Space::Prekey, "opk:").unwrap();
    for (name, _) in &names[1..] {
        engine.state.put(Space::Prekey, &format!("lost {name}"), &0u8).unwrap();
    }
    let first = names[0].0.clone();
    engine.state.remove(Space::Prekey, &first).unwrap();
    world.say(ALICE, BOB, "sealed before the key arrived");
    world.settle();
    assert_eq!(refusal(&world).as_deref(), Some("456"));
    let generations: Vec<&str> = world
        .relay
        .wire
        .iter()
        .filter(|line| line.starts_with("700 "))
        .filter_map(|line| line.split(' ').find(|word| word.starts_with("GEN=")))
        .collect();
    assert_eq!(generations.len(), 2);
    assert_eq!(generations[0], generations[1], "the same generation to fresh prekeys");
    assert!(world.relay.wire.iter().any(|line| line.contains(" KEEP=")), "kept at the relay");
    assert_eq!(world.stations[BOB].texts(), ["sealed before the key arrived"]);
    assert_eq!(world.relay.waiting("bob@a.example/d1"), 0);
    world.connect(BOB);
    world.settle();
    assert_eq!(world.stations[BOB].texts().len(), 1);
}

#[test]
fn keys_of_a_701_that_are_gone_do_not_stop_a_refresh() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "first");
    world.settle();
    let engine = world.engine(BOB);
    let names = engine.state.list::<serde_json::Value>(Space::NextKey).unwrap();
    assert_eq!(names.len(), 1);
    engine.state.remove(Space::NextKey, &names[0].0).unwrap();
    world.pass(limits::REFRESH_AGE_MS);
    world.say(ALICE, BOB, "second");
    world.settle();
    assert_eq!(refusal(&world).as_deref(), Some("456"));
    let refreshes: Vec<&String> =
        world.relay.wire.iter().filter(|line| line.starts_with("702 ")).collect();
    assert!(refreshes[0].contains(" NK=") && refreshes[1].contains(" SPK="));
    assert_eq!(world.stations[BOB].texts(), ["first", "second"]);
}

#[test]
fn a_record_that_changed_under_way_costs_no_message() {
    let mut world = World::pair();
    world.cut(BOB);
    let mids = [world.say(ALICE, BOB, "one"), world.say(ALICE, BOB, "two")];
    world.settle();
    // Bob's device gets another key in a new record, so the offer names a stale one.
    let record = world.relay.newest("bob@a.example").unwrap();
    let owner = "bob@a.example".bytes().fold(0u8, |sum, octet| sum.wrapping_add(octet));
    let owner = protocol::signature::SoftwareSigner::ed25519(&[owner; 32]).unwrap();
    let other = protocol::signature::SoftwareSigner::ed25519(&[200; 32]).unwrap();
    use protocol::signature::Signer as _;
    let next = protocol::record::RecordBuilder::after(&record)
        .device("d9", other.public_key())
        .sign(&owner)
        .unwrap();
    let command = protocol::Command::parse(next.as_bytes()).unwrap();
    let record = record.follow(&command).unwrap();
    let last = protocol::record::RecordBuilder::after(&record)
        .without_device("d9")
        .validity(Timestamp(1), world.now.plus_ms(limits::DAY_MS))
        .sign(&owner)
        .unwrap();
    let records = world.relay.records.get_mut("bob@a.example").unwrap();
    records.extend([next, last]);
    // The first offer is older than a day when Bob comes back.
    world.now = world.now.plus_ms(limits::REPLACED_RECORD_AGE_MS_MAX / 2);
    world.connect(BOB);
    world.settle();
    world.pass(1_000);
    assert_eq!(world.stations[BOB].texts(), ["one", "two"]);
    for mid in mids {
        let status = world.engine(ALICE).message_status(&mid).unwrap();
        assert_eq!(status, Some(Status::Delivered));
    }
}

#[test]
fn a_refused_generation_gives_its_texts_to_the_next_session() {
    let mut world = World::pair();
    world.cut(BOB);
    let mids = [world.say(ALICE, BOB, "one"), world.say(ALICE, BOB, "two")];
    world.settle();
    // Bob cannot open the offer for a reason that fresh prekeys do not cure.
    world.refuse_offers(BOB, 2);
    world.connect(BOB);
    world.settle();
    assert_eq!(refusal(&world).as_deref(), Some("553"));
    assert_eq!(world.stations[BOB].texts(), ["one", "two"], "in order, once");
    for mid in &mids {
        let status = world.engine(ALICE).message_status(mid).unwrap();
        assert_eq!(status, Some(Status::Delivered), "told under the MID its user knows");
    }
    assert!(world.stations[ALICE].has(
        |e| matches!(e, Event::Status { mid, status: Status::Delivered, .. } if *mid == mids[0])
    ));
}

#[test]
fn endless_refusals_end() {
    let mut world = World::pair();
    world.refuse_offers(BOB, u32::MAX);
    let mid = world.say(ALICE, BOB, "no way");
    world.settle();
    world.pass(limits::HOUR_MS);
    assert_eq!(world.engine(ALICE).message_status(&mid).unwrap(), Some(Status::Failed));
    let offers = world.relay.wire.iter().filter(|line| line.starts_with("700 ")).count();
    assert_eq!(offers, 1 + limits::REFUSALS_MAX as usize);
    assert!(matches!(world.stations[ALICE].notices()[..], [Notice::Failed { code: 553, .. }]));
}

#[test]
fn offers_the_relay_refuses_are_begun_anew_a_few_times() {
    for (code, times, arrives) in [(555, 2, true), (553, limits::REFUSALS_MAX + 1, false)] {
        let mut world = World::pair();
        world.refuse(700, code, times, false);
        let mid = world.say(ALICE, BOB, "hello");
        world.settle();
        world.pass(limits::FETCH_RETRY_MS);
        let texts = world.stations[BOB].texts();
        assert_eq!(texts.len(), usize::from(arrives), "{code}");
        let status = world.engine(ALICE).message_status(&mid).unwrap().unwrap();
        assert_eq!(status == Status::Failed, !arrives, "{code}");
    }
}

#[test]
fn no_line_is_shown_twice_however_often_it_comes() {
    let mut world = World::pair();
    for number in 0..5 {
        world.say(ALICE, BOB, &number.to_string());
        world.settle();
    }
    let lines: Vec<String> = world
        .relay
        .wire
        .iter()
        .filter(|line| ["700 ", "100 ", "702 "].iter().any(|code| line.starts_with(code)))
        .cloned()
        .collect();
    for line in lines.iter().chain(lines.iter().rev()) {
        world.relay.inject("bob@a.example/d1", line);
    }
    world.settle();
    assert_eq!(world.stations[BOB].texts().len(), 5);
    assert!(!world.stations[BOB].has(|e| matches!(e, Event::Tampering { .. })));
    assert_eq!(refusal(&world), None);
}

#[test]
fn every_change_of_a_line_is_noticed_and_shown() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "first");
    world.settle();
    world.cut(BOB);
    world.say(ALICE, BOB, "the line");
    world.settle();
    let line = world.relay.wire.iter().rfind(|line| line.starts_with("100 ")).unwrap().clone();
    let changed = |from: &str, to: &str| {
        assert!(line.contains(from), "{from}");
        line.replacen(from, to, 1)
    };
    let mut flipped = line.clone().into_bytes();
    let last = flipped.len() - 4;
    flipped[last] = if flipped[last] == b'A' { b'B' } else { b'A' };
    let body = line.rfind(' ').unwrap() - 20;
    let mut resealed = line.clone().into_bytes();
    resealed[body] = if resealed[body] == b'A' { b'B' } else { b'A' };
    let (head, _) = line.rsplit_once(' ').unwrap();
    for (name, line) in [
        ("sequence", changed(" SEQ=2 ", " SEQ=3 ")),
        ("time", changed(" TS=1", " TS=2")),
        ("sender", changed("FROM alice@a.example/d1", "FROM bob@a.example/d1")),
        ("another device", changed("FROM alice@a.example/d1", "FROM alice@a.example/d2")),
        ("recipient", changed("TO bob@a.example", "TO carol@a.example")),
        ("signature", String::from_utf8(flipped).unwrap()),
        ("body", String::from_utf8(resealed).unwrap()),
        ("no signature", head.to_owned()),
        ("a parameter more", changed(" TS=", " TTL=60 TS=")),
    ] {
        world.stations[BOB].events.clear();
        world.relay.clear("bob@a.example/d1");
        world.relay.inject("bob@a.example/d1", &line);
        world.connect(BOB);
        world.settle();
        assert_eq!(world.stations[BOB].texts(), ["first"], "{name}");
        let is_told = world.stations[BOB]
            .has(|event| matches!(event, Event::Tampering { .. } | Event::Strange { .. }));
        assert!(is_told, "{name}");
        world.cut(BOB);
    }
    world.relay.inject("bob@a.example/d1", &line);
    world.connect(BOB);
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["first", "the line"]);
}

#[test]
fn lines_far_ahead_are_refused_unopened() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "first");
    world.settle();
    world.cut(BOB);
    for ahead in [limits::SEQUENCE_AHEAD_MAX, limits::SEQUENCE_AHEAD_MAX + 1] {
        // Alice's chain moves on without anything being sent.
        let engine = world.engine(ALICE);
        let (sid, _) = engine.state.list::<Session>(Space::Session).unwrap().remove(0);
        let session = Session::load(&engine.state, &sid).unwrap().unwrap();
        let name = format!("{} alice@a.example/d1", session.generations[0]);
        let held: crate::chain::SendingChain =
            engine.state.get(Space::Chain, &name).unwrap().unwrap();
        let mut chain = held.clone();
        while chain.last() < 1 + ahead {
            chain.step();
        }
        engine.state.put(Space::Chain, &name, &chain).unwrap();
        world.say(ALICE, BOB, &format!("{ahead} ahead"));
        world.settle();
        world.engine(ALICE).state.put(Space::Chain, &name, &held).unwrap();
        let line = world.relay.wire.iter().rfind(|line| line.starts_with("100 ")).unwrap().clone();
        world.relay.clear("bob@a.example/d1");
        if ahead > limits::SEQUENCE_AHEAD_MAX {
            world.relay.inject("bob@a.example/d1", &line);
            world.connect(BOB);
            world.settle();
            assert!(world.stations[BOB].has(|e| matches!(e, Event::Unopened { what, .. }
                if what.contains("ahead"))));
            assert_eq!(world.stations[BOB].texts(), ["first"]);
            return;
        }
    }
}

#[test]
fn a_line_of_an_unknown_session_is_counted_and_freed() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "first");
    world.settle();
    let line = world.relay.wire.iter().rfind(|line| line.starts_with("100 ")).unwrap().clone();
    let sid = line.split(' ').find(|word| word.starts_with("SID=")).unwrap().to_owned();
    let other = line.replace(&sid, "SID=AAAAAAAAAAAAAAAAAAAAAA");
    world.relay.inject("bob@a.example/d1", &other);
    world.settle();
    assert!(world.stations[BOB].has(|e| matches!(e, Event::Unopened { .. })));
    assert_eq!(world.relay.waiting("bob@a.example/d1"), 0);
}

#[test]
fn parked_lines_at_n_and_one_more() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "first");
    world.settle();
    let now = world.now;
    let generation = "B".repeat(42) + "A";
    let engine = world.engine(ALICE);
    let (sid, _) = engine.state.list::<Session>(Space::Session).unwrap().remove(0);
    let line = protocol::Command::builder(protocol::Code::MESSAGE)
        .to(address("bob@a.example"))
        .from(engine.identity.device())
        .parameter("SID", &sid)
        .parameter("GEN", &generation)
        .parameter("SEQ", 1)
        .parameter("TS", now)
        .parameter("MID", "A".repeat(22))
        .parameter("KC", "A".repeat(43));
    let line = engine.identity.sign(line, &[7; 272]).unwrap();
    let place = (sid.as_str(), None);
    awaited::note(&mut world.engine(BOB).state, &generation, place, true, now).unwrap();
    for _ in 0..=limits::PARKED_MAX {
        world.relay.inject("bob@a.example/d1", &line);
    }
    world.settle();
    let count = world.engine(BOB).state.count(Space::Parked).unwrap();
    assert_eq!(count, limits::PARKED_MAX);
    let given_up = |e: &&Event| matches!(e, Event::Unopened { .. });
    assert_eq!(world.stations[BOB].events.iter().filter(given_up).count(), 1);
    assert_eq!(world.relay.waiting("bob@a.example/d1"), protocol::limits::KEEP_MAX);
    world.now = world.now.plus_ms(limits::PARKED_AGE_MS_MAX);
    world.connect(BOB);
    world.settle();
    world.pass(1_000);
    assert_eq!(world.engine(BOB).state.count(Space::Parked).unwrap(), 0);
    assert_eq!(world.relay.waiting("bob@a.example/d1"), 0);
}

#[test]
fn a_703_without_code_closes_the_session() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "first");
    world.settle();
    let now = world.now;
    let engine = world.engine(BOB);
    let (sid, session) = engine.state.list::<Session>(Space::Session).unwrap().remove(0);
    let closing =
        crate::session::accept::Closing { sid: &sid, generation: None, code: None, record: None };
    let alice = address("alice@a.example/d1");
    let line =
        crate::session::accept::close(&mut engine.state, &engine.identity, alice, &closing, now);
    let (_, line) = line.unwrap();
    assert!(!session.is_closed);
    world.relay.inject("alice@a.example/d1", &line);
    world.settle();
    world.say(ALICE, BOB, "second");
    world.settle();
    let sids = world.relay.wire.iter().filter(|line| line.starts_with("700 ")).count();
    assert_eq!(sids, 2);
    assert_eq!(world.stations[BOB].texts(), ["first", "second"]);
}

#[test]
fn the_seed_is_kept_until_every_device_accepted() {
    let mut world = World::pair();
    world.cut(BOB);
    world.say(ALICE, BOB, "hello");
    world.settle();
    let seed = |world: &mut World| -> Option<OfferState> {
        let rows = world.engine(ALICE).state.list::<Generation>(Space::Generation).unwrap();
        let (_, generation) = rows.into_iter().next().unwrap();
        generation.seed.map(|_| *generation.offers.values().next().unwrap())
    };
    assert_eq!(seed(&mut world), Some(OfferState::Taken));
    world.now = world.now.plus_ms(limits::REPAIR_AGE_MS - 1);
    world.connect(ALICE);
    world.settle();
    world.pass(1);
    assert_eq!(seed(&mut world), None, "REPAIR hours are over");
    world.connect(BOB);
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["hello"]);
    world.say(BOB, ALICE, "reply");
    world.settle();
    assert_eq!(seed(&mut world), None);
}
