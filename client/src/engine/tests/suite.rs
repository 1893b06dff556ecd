//! Conversations under every suite, and where the legacy ones stop.

use protocol::suite::{Suite, Suites};

use super::world::World;
use crate::engine::{Config, Event, Notice, Status};
use crate::limits;
use crate::session::Generation;
use crate::state::Space;

const ALICE: usize = 0;
const BOB: usize = 1;

fn world(suites: &[Suite], policy: &[Suite]) -> World {
    let mut world = World::new();
    world.relay.policy.suites = Suites::new(policy);
    let config = Config { suites: suites.to_vec(), ..World::quick() };
    world.enrol("alice", config.clone());
    world.enrol("bob", config);
    world.settle();
    world
}

fn suites_used(world: &World) -> Vec<String> {
    let offers = world.relay.wire.iter().filter(|l| l.starts_with("700 ") || l.starts_with("702 "));
    offers
        .filter_map(|l| l.split(' ').find_map(|w| w.strip_prefix("SUITE=")))
        .map(Into::into)
        .collect()
}

#[test]
fn each_suite_carries_a_conversation_through_a_refresh() {
    for suite in Suite::ALL {
        let mut world = world(&[suite], &Suite::ALL);
        world.say(ALICE, BOB, "there");
        world.settle();
        world.say(BOB, ALICE, "and back");
        world.settle();
        world.pass(limits::REFRESH_AGE_MS);
        world.say(BOB, ALICE, "refreshed by the other side");
        world.settle();
        world.pass(limits::REFRESH_AGE_MS);
        let mid = world.say(ALICE, BOB, &"long ".repeat(2_000));
        world.settle();
        assert_eq!(world.stations[BOB].texts().len(), 2, "{suite}");
        assert_eq!(world.stations[ALICE].texts().len(), 2, "{suite}");
        let status = world.engine(ALICE).message_status(&mid).unwrap();
        assert_eq!(status, Some(Status::Delivered), "{suite}");
        assert!(suites_used(&world).len() >= 3);
        assert!(suites_used(&world).iter().all(|used| used == suite.name()), "{suite}");
        for notice in world.stations[BOB].notices() {
            let Notice::Message(message) = notice else { panic!("{notice:?}") };
            assert_eq!(message.is_legacy, suite.is_legacy(), "shown as legacy");
            assert!(message.is_signed);
        }
    }
}

#[test]
fn a_modern_suite_goes_before_a_legacy_one() {
    let mut world = world(&[Suite::L1, Suite::M2], &Suite::ALL);
    world.say(ALICE, BOB, "hello");
    world.settle();
    assert_eq!(suites_used(&world), ["M2"]);
}

#[test]
fn a_legacy_suite_that_the_policy_forbids_is_not_used() {
    let mut world = world(&[Suite::L1], &[Suite::M1, Suite::M2]);
    let mid = world.say(ALICE, BOB, "hello");
    world.settle();
    assert_eq!(world.engine(ALICE).message_status(&mid).unwrap(), Some(Status::Failed));
    assert!(matches!(world.stations[ALICE].notices()[..], [Notice::Failed { code: 504, .. }]));
    assert!(suites_used(&world).is_empty(), "no fallback, ever");
}

#[test]
fn people_without_a_common_suite_do_not_talk() {
    let mut world = World::new();
    world.relay.policy.suites = Suites::new(&Suite::ALL);
    world.enrol("alice", Config { suites: vec![Suite::M1, Suite::L1], ..World::quick() });
    world.enrol("bob", Config { suites: vec![Suite::M2], ..World::quick() });
    let mid = world.say(ALICE, BOB, "hello");
    world.settle();
    assert_eq!(world.engine(ALICE).message_status(&mid).unwrap(), Some(Status::Failed));
}

#[test]
fn a_legacy_generation_stops_at_its_volume() {
    let mut world = world(&[Suite::L2], &Suite::ALL);
    world.say(ALICE, BOB, "first");
    world.settle();
    let used = |world: &mut World, octets: u64| {
        let engine = world.engine(ALICE);
        let rows = engine.state.list::<Generation>(Space::Generation).unwrap();
        for (_, mut generation) in rows {
            generation.octets = octets;
            generation.store(&mut engine.state).unwrap();
        }
    };
    // Nobody gives out prekeys, so it cannot be refreshed.
    world.refuse(612, 450, u32::MAX, false);
    used(&mut world, limits::LEGACY_OCTETS_MAX - 1);
    let mid = world.say(ALICE, BOB, "the last that fits");
    world.settle();
    assert_eq!(world.engine(ALICE).message_status(&mid).unwrap(), Some(Status::Delivered));
    used(&mut world, limits::LEGACY_OCTETS_MAX);
    let mid = world.say(ALICE, BOB, "one more");
    world.settle();
    assert_eq!(world.engine(ALICE).message_status(&mid).unwrap(), Some(Status::Waiting));
    world.relay.refusals.clear();
    world.pass(limits::FETCH_RETRY_MS);
    assert_eq!(world.engine(ALICE).message_status(&mid).unwrap(), Some(Status::Delivered));
    assert_eq!(suites_used(&world), ["L2", "L2"]);
}

#[test]
fn legacy_sessions_carry_no_files() {
    let mut world = world(&[Suite::L1], &Suite::ALL);
    let path = world.stations[ALICE].folder().join("x");
    std::fs::write(&path, "content").unwrap();
    let mut random = crate::random::Seeded::new(1);
    let prepared = crate::file::prepare(&path, 4_096, "", &mut random, |_, _| ()).unwrap();
    let bob = world.stations[BOB].account();
    let now = world.now;
    world.engine(ALICE).file_offer(bob.as_address(), &prepared, now).unwrap();
    world.settle();
    assert!(matches!(world.stations[ALICE].notices()[..], [Notice::FileFailed { code: 504, .. }]));
    assert!(!world.relay.wire.iter().any(|line| line.starts_with("800 ")));
}

#[test]
fn unsigned_sessions_where_nobody_asks_for_signatures() {
    let mut world = World::pair_with(Config { signs: false, ..World::quick() });
    world.say(ALICE, BOB, "unsigned");
    world.settle();
    let Notice::Message(message) = world.stations[BOB].notices()[0] else { panic!() };
    assert!(!message.is_signed);
    let line = world.relay.wire.iter().find(|line| line.starts_with("100 ")).unwrap();
    assert!(!line.contains(" KC="));
    world.cut(BOB);
    world.say(ALICE, BOB, "changed");
    world.settle();
    let line = world.relay.wire.iter().rfind(|line| line.starts_with("100 ")).unwrap().clone();
    world.relay.clear("bob@a.example/d1");
    world.relay.inject("bob@a.example/d1", &line.replace(" SEQ=2 ", " SEQ=3 "));
    world.connect(BOB);
    world.settle();
    assert!(world.stations[BOB].has(|e| matches!(e, Event::Tampering { .. })));
    assert_eq!(world.stations[BOB].texts().len(), 1);
}

#[test]
fn a_wish_for_signatures_begins_a_signed_session() {
    let mut world = World::pair_with(Config { signs: false, ..World::quick() });
    world.say(ALICE, BOB, "unsigned");
    world.settle();
    world.kill(BOB);
    world.stations[BOB].config.signs = true;
    world.open(BOB);
    world.connect(BOB);
    world.pass(1_000);
    world.say(BOB, ALICE, "signed");
    world.settle();
    world.say(ALICE, BOB, "in the newest session");
    world.settle();
    let Some(Notice::Message(message)) = world.stations[BOB].notices().last().copied() else {
        panic!()
    };
    assert!(message.is_signed);
}
