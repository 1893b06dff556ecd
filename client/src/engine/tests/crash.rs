//! The program dies at every commit, before or after it reached the disk: no message is lost,
//! none is on the screen twice; and what was erased stays erased.

use std::collections::BTreeSet;

use protocol::Command;

use super::world::World;
use crate::chain::{ChainKey, RootKey};
use crate::engine::Notice;
use crate::limits;
use crate::secret::Secret32;
use crate::session::Generation;
use crate::state::{Crash, Space, State};
use crate::suite;

const ALICE: usize = 0;
const BOB: usize = 1;

/// A conversation in which `victim` dies at its commit number `at`; `false` once the conversation
/// has fewer commits.
fn conversation(victim: usize, at: u64, is_durable: bool) -> bool {
    let mut world = World::pair();
    world.crash_at(victim, Crash { commits_left: at, is_durable });
    let said = [(ALICE, "one"), (BOB, "two"), (ALICE, "three"), (ALICE, "four"), (BOB, "five")];
    let mut has_died = false;
    let mut unsaid = said.iter();
    let mut waiting: Option<&(usize, &str)> = None;
    let mut relinks = 2;
    loop {
        world.settle();
        if world.is_dead(victim) {
            has_died = true;
            world.open(victim);
            world.connect(victim);
            // What the user typed and the dead program never wrote down is typed again.
            if let Some((from, text)) = waiting.filter(|(from, _)| *from == victim)
                && !world.has_said(*from, text)
            {
                world.say(*from, 1 - *from, text);
            }
            continue;
        }
        waiting = unsaid.next();
        if let Some((from, text)) = waiting {
            world.say(*from, 1 - *from, text);
        } else if relinks > 0 {
            relinks -= 1;
            world.connect(ALICE);
            world.connect(BOB);
        } else {
            break;
        }
    }
    assert_eq!(world.stations[BOB].texts(), ["one", "three", "four"], "{victim} {at} {is_durable}");
    assert_eq!(world.stations[ALICE].texts(), ["two", "five"], "{victim} {at} {is_durable}");
    for index in [ALICE, BOB] {
        let waiting = world.relay.waiting(&world.stations[index].name);
        assert_eq!(waiting, 0, "all is acknowledged");
        let count = world.engine(index).state.count(Space::Inbox).unwrap();
        assert_eq!(count, 0, "all is confirmed");
    }
    has_died
}

#[test]
fn a_death_at_any_commit_neither_loses_nor_repeats() {
    for victim in [ALICE, BOB] {
        for is_durable in [false, true] {
            let mut at = 0;
            while conversation(victim, at, is_durable) {
                at += 1;
            }
            assert!(at > 15, "{at}");
        }
    }
}

#[test]
fn notices_are_told_until_they_are_confirmed() {
    let mut world = World::pair();
    world.stations[BOB].confirms = false;
    world.say(ALICE, BOB, "hello");
    world.settle();
    assert_eq!(world.relay.waiting("bob@a.example/d1"), 1, "shown before acknowledged");
    world.kill(BOB);
    world.open(BOB);
    world.stations[BOB].confirms = true;
    world.settle();
    let repeated = world.stations[BOB]
        .events
        .iter()
        .filter(|event| matches!(event, crate::engine::Event::Notice { is_repeated: true, .. }));
    assert_eq!(repeated.count(), 1, "before any link is up");
    world.connect(BOB);
    world.settle();
    assert_eq!(world.relay.waiting("bob@a.example/d1"), 0);
    assert_eq!(world.stations[BOB].texts(), ["hello"]);
}

#[test]
fn what_nobody_was_shown_is_not_told_as_repeated() {
    let mut world = World::pair();
    world.kill(BOB);
    world.stations[BOB].config.shows_notices = false;
    world.stations[BOB].confirms = false;
    world.open(BOB);
    world.connect(BOB);
    world.say(ALICE, BOB, "hello");
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["hello"], "it came to a driver that shows nothing");
    world.stations[BOB].config.shows_notices = true;
    for is_known in [false, true] {
        world.kill(BOB);
        world.stations[BOB].screen.clear();
        world.stations[BOB].events.clear();
        world.open(BOB);
        world.settle();
        let told: Vec<bool> = world.stations[BOB]
            .events
            .iter()
            .filter_map(|event| match event {
                crate::engine::Event::Notice { is_repeated, .. } => Some(*is_repeated),
                _ => None,
            })
            .collect();
        assert_eq!(told, [is_known]);
    }
}

#[test]
fn too_many_unconfirmed_notices_close_the_link() {
    let mut world = World::pair();
    world.stations[BOB].confirms = false;
    world.say(ALICE, BOB, "first");
    world.settle();
    world.engine(BOB).unconfirmed = limits::INBOX_MAX as u64 - 1;
    world.say(ALICE, BOB, "the last that fits");
    world.settle();
    assert!(world.is_linked(BOB));
    world.say(ALICE, BOB, "one more");
    world.settle();
    assert!(!world.is_linked(BOB));
    world.kill(BOB);
    world.stations[BOB].confirms = true;
    world.open(BOB);
    world.connect(BOB);
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["first", "the last that fits", "one more"]);
}

/// Every way in which somebody with all of a state could try to open captured lines.
fn openable(
    state: &mut State,
    offers: &[String],
    lines: &[String],
    device: &str,
) -> BTreeSet<usize> {
    let mut chains: Vec<ChainKey> = Vec::new();
    let mut keys: Vec<Secret32> = Vec::new();
    for (_, value) in state.list::<serde_json::Value>(Space::Chain).unwrap() {
        if let Ok(key) = serde_json::from_value(value["key"].clone()) {
            chains.push(key);
        }
        for (_, skipped) in value["skipped"].as_object().into_iter().flatten() {
            keys.push(serde_json::from_value(skipped["key"].clone()).unwrap());
        }
    }
    let mut exporters = vec![None];
    let mut seeds: Vec<Secret32> = Vec::new();
    for (_, generation) in state.list::<Generation>(Space::Generation).unwrap() {
        exporters.push(Some(generation.exporter));
        seeds.extend(generation.seed);
    }
    // Every private key that is left, against every offer.
    for line in offers {
        let command = Command::parse(line.as_bytes()).unwrap();
        seeds.extend(unwrapped(state, &command));
    }
    for seed in &seeds {
        for parent in &exporters {
            chains.push(RootKey::new(parent.as_ref(), seed).chain(device));
        }
    }
    for mut chain in chains {
        keys.extend((0..200).map(|_| chain.step()));
    }
    let opens = |line: &String| {
        let command = Command::parse(line.as_bytes()).unwrap();
        let mid = command.parameter("MID").unwrap();
        let (aad, body) = (command.aad(), command.body());
        keys.iter().any(|key| suite::open(suite::Suite::M1, key, mid, &aad, &body).is_ok())
    };
    lines.iter().enumerate().filter(|(_, line)| opens(line)).map(|(number, _)| number).collect()
}

/// GS of an offer under each pair of private keys in a state.
fn unwrapped(state: &State, command: &Command<'_>) -> Vec<Secret32> {
    let mut curves: Vec<Secret32> = Vec::new();
    let mut kems = Vec::new();
    for space in [Space::Prekey, Space::NextKey] {
        for (_, value) in state.list::<serde_json::Value>(space).unwrap() {
            for name in ["x25519", "curve"] {
                let secret = value[name]["X25519"].clone();
                curves.extend(serde_json::from_value::<Secret32>(secret).ok());
            }
            let seed = serde_json::from_value(value["kem"].clone());
            kems.extend(seed.ok().map(|seed| suite::KemSecret::from_seed(&seed)));
        }
    }
    let keys: Vec<suite::SoftwareKey> = curves
        .iter()
        .map(|secret| suite::SoftwareKey::from_secret(suite::Curve::X25519, secret).unwrap())
        .collect();
    let mut seeds = Vec::new();
    for signed in &keys {
        for one_time in std::iter::once(None).chain(keys.iter().map(Some)) {
            for kem in &kems {
                let one_time = one_time.map(|key| key as &dyn suite::Agreement);
                let offer = suite::OfferKeys { signed, one_time, kem };
                let suite = suite::Suite::M1;
                seeds.extend(suite::unwrap_seed(suite, &command.aad(), &offer, &command.body()));
            }
        }
    }
    seeds
}

#[test]
fn an_old_state_file_opens_no_earlier_line() {
    let mut world = World::pair();
    for number in 0..6 {
        world.say(ALICE, BOB, &number.to_string());
        world.settle();
    }
    let to_bob = |world: &World, code: &str| -> Vec<String> {
        let wire = world.relay.wire.iter();
        wire.filter(|l| l.starts_with(code) && l.contains("TO bob")).cloned().collect()
    };
    world.kill(BOB);
    let copy = world.stations[BOB].folder().join("copy");
    std::fs::copy(world.stations[BOB].path(), &copy).unwrap();
    world.open(BOB);
    world.connect(BOB);
    world.say(ALICE, BOB, "after the theft");
    world.settle();
    world.pass(limits::REFRESH_AGE_MS);
    world.say(ALICE, BOB, "after the refresh");
    world.settle();

    let key = Secret32::from_slice(&[world.stations[BOB].seed(); 32]).unwrap();
    let open = |path: &std::path::Path| {
        State::open(path, &key, Box::new(crate::random::Seeded::new(99))).unwrap()
    };
    let mut offers = to_bob(&world, "700 ");
    offers.extend(to_bob(&world, "702 "));
    let lines = to_bob(&world, "100 ");
    assert_eq!(lines.len(), 8);
    let mut stolen = open(&copy);
    let opened = openable(&mut stolen, &offers, &lines, "alice@a.example/d1");
    // What was sent before the theft stays closed; the thief of all keys reads on, through one
    // refresh whose NK it stole as well (SPEC.md §7, "What is achieved").
    assert!(opened.iter().all(|number| *number >= 6), "{opened:?}");
    assert!(opened.contains(&6), "the thief's tools work");

    world.kill(BOB);
    let mut now = open(&world.stations[BOB].path());
    let opened = openable(&mut now, &offers, &lines, "alice@a.example/d1");
    assert!(opened.is_empty(), "{opened:?}");
}

#[test]
fn the_senders_state_opens_nothing_either() {
    let mut world = World::pair();
    for number in 0..4 {
        world.say(ALICE, BOB, &number.to_string());
        world.settle();
    }
    world.kill(ALICE);
    let key = Secret32::from_slice(&[world.stations[ALICE].seed(); 32]).unwrap();
    let path = world.stations[ALICE].path();
    let mut state = State::open(&path, &key, Box::new(crate::random::Seeded::new(99))).unwrap();
    let lines: Vec<String> =
        world.relay.wire.iter().filter(|line| line.starts_with("100 ")).cloned().collect();
    let opened = openable(&mut state, &[], &lines, "alice@a.example/d1");
    assert!(opened.is_empty(), "{opened:?}");
}

#[test]
fn failed_texts_are_notices_too() {
    let mut world = World::pair();
    world.stations[ALICE].confirms = false;
    let now = world.now;
    let nobody = super::world::address("nobody@a.example");
    world.engine(ALICE).send_text(nobody, "hello?", None, now).unwrap();
    world.settle();
    world.kill(ALICE);
    world.open(ALICE);
    world.settle();
    assert!(matches!(world.stations[ALICE].notices()[..], [Notice::Failed { code: 550, .. }]));
}
