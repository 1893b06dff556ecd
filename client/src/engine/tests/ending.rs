//! Keys that are refused, late or out of use, and the texts that were sealed under them: each
//! arrives once, in its order, and nothing of it looks like tampering.

use super::world::World;
use crate::engine::{Event, Status};
use crate::limits;
use crate::session::{Generation, OfferState, Session};
use crate::state::Space;

const ALICE: usize = 0;
const BOB: usize = 1;

/// A pair whose keys are refreshed after four lines: texts, and receipts of texts that arrived.
fn hasty() -> World {
    let mut world = World::new();
    world.relay.policy.refresh_messages = 4;
    world.enrol("alice", World::quick());
    world.enrol("bob", World::quick());
    world.settle();
    world
}

fn say(world: &mut World, texts: &[&str]) {
    for text in texts {
        world.say(ALICE, BOB, text);
        world.settle();
    }
}

/// The lines of one code on the wire from one device.
fn sent<'w>(world: &'w World, code: &str, from: &str) -> Vec<&'w str> {
    let from = format!("FROM {from}@");
    let wire = world.relay.wire.iter().map(String::as_str);
    wire.filter(|line| line.starts_with(code) && line.contains(&from)).collect()
}

fn parameter<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    line.split(' ').find_map(|word| word.strip_prefix(name))
}

fn expect_calm(world: &World) {
    for station in &world.stations {
        let is_loud = |event: &&Event| {
            let is_alarm = matches!(event, Event::Tampering { .. } | Event::Strange { .. });
            is_alarm || matches!(event, Event::Unopened { .. })
        };
        assert_eq!(station.events.iter().find(is_loud), None, "{}", station.name);
    }
}

/// Erases the first `count` keys of a space at Bob's whose names begin so.
fn erase(world: &mut World, space: Space, prefix: &str, count: usize) {
    let state = &mut world.engine(BOB).state;
    for (name, _) in
        state.list_prefix::<serde_json::Value>(space, prefix).unwrap().iter().take(count)
    {
        state.remove(space, name).unwrap();
    }
}

#[test]
fn texts_of_before_a_restart_come_back_beside_those_of_after() {
    let mut world = World::pair();
    world.cut(BOB);
    say(&mut world, &["one", "two", "three"]);
    world.kill(ALICE);
    world.open(ALICE);
    world.connect(ALICE);
    world.settle();
    say(&mut world, &["four", "five"]);
    world.refuse_offers(BOB, 1);
    world.connect(BOB);
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["one", "two", "three", "four", "five"]);
}

#[test]
fn a_refresh_waits_for_the_key_that_it_follows_on() {
    let mut world = hasty();
    say(&mut world, &["1", "2"]);
    world.cut(BOB);
    say(&mut world, &["3", "4", "5", "6", "7"]);
    let refreshes = sent(&world, "702 ", "alice");
    assert_eq!(refreshes.len(), 2);
    assert_eq!(parameter(refreshes[1], "PGEN="), parameter(refreshes[0], "GEN="));
    assert!(parameter(refreshes[0], "NK=").is_some() && parameter(refreshes[1], "SPK=").is_some());
    // The keys that the first is wrapped to are gone, those of the second are not.
    erase(&mut world, Space::NextKey, "", usize::MAX);
    world.connect(BOB);
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["1", "2", "3", "4", "5", "6", "7"]);
    let codes: Vec<_> =
        sent(&world, "703 ", "bob").iter().map(|line| parameter(line, "CODE=")).collect();
    assert_eq!(codes, [Some("456")]);
    expect_calm(&world);
    assert_eq!(world.relay.waiting("bob@a.example/d1"), 0);
}

#[test]
fn a_device_may_refuse_an_offer_before_the_relay_has_answered_for_it() {
    let mut world = World::pair();
    erase(&mut world, Space::Prekey, "opk:", 1);
    world.refuse(700, 0, 1, true);
    world.say(ALICE, BOB, "hello");
    while sent(&world, "700 ", "alice").is_empty() {
        world.drive(ALICE);
        world.carry(ALICE);
    }
    // Nor does the relay give fresh prekeys on this link.
    world.refuse(612, 0, 1, false);
    world.settle();
    assert_eq!(sent(&world, "703 ", "bob").len(), 1);
    world.connect(ALICE);
    world.settle();
    world.pass(1_000);
    assert_eq!(world.stations[BOB].texts(), ["hello"]);
    expect_calm(&world);
}

#[test]
fn an_offer_is_made_again_even_if_the_link_breaks_meanwhile() {
    for is_killed in [false, true] {
        let mut world = World::pair();
        world.cut(BOB);
        say(&mut world, &["hello"]);
        erase(&mut world, Space::Prekey, "opk:", 1);
        // No prekeys come before the link breaks.
        world.refuse(612, 0, 1, false);
        world.connect(BOB);
        world.settle();
        assert!(world.stations[BOB].texts().is_empty());
        if is_killed {
            world.kill(ALICE);
            world.open(ALICE);
        }
        world.connect(ALICE);
        world.settle();
        world.pass(1_000);
        assert_eq!(world.stations[BOB].texts(), ["hello"]);
        expect_calm(&world);
    }
}

#[test]
fn offers_again_at_n_and_one_more() {
    let mut world = World::pair();
    // Whatever is offered, its keys are gone.
    erase(&mut world, Space::Prekey, "", usize::MAX);
    let mid = world.say(ALICE, BOB, "hello");
    world.settle();
    let offers = sent(&world, "700 ", "alice");
    let mut generations: Vec<_> = offers.iter().map(|line| parameter(line, "GEN=")).collect();
    let count = generations.len();
    generations.dedup();
    assert_eq!(generations.len(), 1 + limits::REFUSALS_MAX as usize);
    assert_eq!(count, generations.len() * (1 + limits::OFFERS_AGAIN_MAX as usize));
    assert_eq!(world.engine(ALICE).message_status(&mid).unwrap(), Some(Status::Failed));
}

/// Alice's texts from the third on are sealed under a key that Bob, who is away, does not have yet,
/// when the relay refuses the next key for good.
fn ended_in_doubt() -> World {
    let mut world = hasty();
    say(&mut world, &["1", "2"]);
    world.cut(BOB);
    say(&mut world, &["3", "4", "5", "6"]);
    assert_eq!(sent(&world, "702 ", "alice").len(), 1);
    world.refuse(702, 552, 1, false);
    say(&mut world, &["7"]);
    assert_eq!(sent(&world, "703 ", "alice").len(), 1, "the other side is told");
    world
}

#[test]
fn texts_that_may_still_open_are_not_sealed_again() {
    let mut world = ended_in_doubt();
    world.connect(BOB);
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["1", "2", "3", "4", "5", "6", "7"]);
    expect_calm(&world);
    let ends = sent(&world, "703 ", "bob");
    assert_eq!(ends.len(), 1, "each side ends a session once");
    assert_eq!(parameter(ends[0], "CODE="), None);
}

#[test]
fn texts_that_never_opened_come_first_in_the_next_session() {
    let mut world = ended_in_doubt();
    world.refuse_offers(BOB, 1);
    world.connect(BOB);
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["1", "2", "3", "4", "5", "6", "7"]);
    expect_calm(&world);
}

#[test]
fn the_answer_to_an_end_is_waited_for_at_n_and_one_more() {
    let mut world = ended_in_doubt();
    let ended = world.engine(ALICE).state.list::<Session>(Space::Session).unwrap();
    let ended = ended.iter().map(|(_, session)| session.closed_at).max().unwrap();
    let left = limits::END_ANSWER_MS_MAX - (world.now.0 - ended);
    world.pass(left - 1);
    assert_eq!(sent(&world, "700 ", "alice").len(), 1, "the answer may still come");
    world.pass(1);
    assert_eq!(sent(&world, "700 ", "alice").len(), 2, "the text goes on in a new session");
    world.connect(BOB);
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["1", "2", "3", "4", "5", "6", "7"]);
    expect_calm(&world);
}

#[test]
fn an_offer_that_crosses_an_end_is_no_tampering() {
    let mut world = hasty();
    say(&mut world, &["1", "2"]);
    world.cut(ALICE);
    world.say(BOB, ALICE, "sealed under a key that comes too late");
    world.settle();
    assert_eq!(sent(&world, "702 ", "bob").len(), 1);
    let now = world.now;
    let engine = world.engine(ALICE);
    let (_, mut session) = engine.state.list::<Session>(Space::Session).unwrap().remove(0);
    engine.end_session(&mut session, None, now).unwrap();
    world.connect(ALICE);
    world.settle();
    world.pass(1_000);
    assert_eq!(world.stations[ALICE].texts(), ["sealed under a key that comes too late"]);
    expect_calm(&world);
}

#[test]
fn a_parked_offer_that_ages_is_refused_and_its_texts_come_again() {
    let mut world = World::pair();
    world.cut(BOB);
    say(&mut world, &["hello"]);
    // Bob cannot get alice's record for a day.
    world.refuse(610, 450, u32::MAX, false);
    world.connect(BOB);
    world.settle();
    assert_eq!(world.engine(BOB).state.count(Space::Parked).unwrap(), 2);
    world.pass(limits::PARKED_AGE_MS_MAX + 2 * limits::MINUTE_MS);
    assert_eq!(world.engine(BOB).state.count(Space::Parked).unwrap(), 0);
    assert_eq!(sent(&world, "703 ", "bob").len(), 1);
    world.relay.refusals.clear();
    world.connect(ALICE);
    world.connect(BOB);
    world.settle();
    world.pass(2 * limits::FETCH_RETRY_MS);
    assert_eq!(world.stations[BOB].texts(), ["hello"]);
}

#[test]
fn retained_texts_go_with_their_key() {
    let mut world = World::pair();
    world.cut(BOB);
    say(&mut world, &["hello"]);
    assert_eq!(world.engine(ALICE).state.count(Space::Retained).unwrap(), 1);
    let state = &mut world.engine(ALICE).state;
    let (_, generation) = state.list::<Generation>(Space::Generation).unwrap().remove(0);
    assert_eq!(generation.offers.values().next(), Some(&OfferState::Taken));
    crate::session::erase_session(state, &generation.sid).unwrap();
    world.jump(limits::HOUR_MS);
    assert_eq!(world.engine(ALICE).state.count(Space::Retained).unwrap(), 0);
}
