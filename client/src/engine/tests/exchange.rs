//! Conversations: first contact, both ways, receipts, long texts, refresh, busy, tampering.

use protocol::message::Via;

use super::world::{World, address};
use crate::engine::{Event, Notice, Status};
use crate::limits;

const ALICE: usize = 0;
const BOB: usize = 1;

#[test]
fn a_first_message_arrives_and_is_confirmed() {
    let mut world = World::pair();
    let mid = world.say(ALICE, BOB, "hello Bob");
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["hello Bob"]);
    let status = world.engine(ALICE).message_status(&mid).unwrap();
    assert_eq!(status, Some(Status::Delivered));
    let Notice::Message(message) = world.stations[BOB].notices()[0] else { panic!() };
    assert_eq!(message.contact, world.stations[ALICE].account());
    assert!(message.is_signed && !message.is_legacy && !message.is_delayed && !message.is_own);
    assert_eq!(message.relayed_at, Some(1_795_469_250_000));
    assert_eq!(world.relay.waiting("bob@a.example/d1"), 0, "everything was acknowledged");
    let plain = world.relay.wire.iter().any(|line| line.contains("hello"));
    assert!(!plain);
}

#[test]
fn both_talk_many_times_in_order() {
    let mut world = World::pair();
    let mut said = [Vec::new(), Vec::new()];
    for number in 0..30 {
        for (from, to) in [(ALICE, BOB), (BOB, ALICE)] {
            let text = format!("{number} from {from}");
            world.say(from, to, &text);
            said[to].push(text);
        }
        if number % 3 == 0 {
            world.settle();
        }
    }
    world.settle();
    assert_eq!(world.stations[BOB].texts(), said[BOB]);
    assert_eq!(world.stations[ALICE].texts(), said[ALICE]);
    assert!(!world.stations[BOB].has(|event| matches!(event, Event::Tampering { .. })));
}

#[test]
fn long_texts_travel_in_parts_and_appear_whole() {
    let mut world = World::pair();
    let text = "Ein längerer Text 漢字 🙂. ".repeat(600);
    let mid = world.say(ALICE, BOB, &text);
    world.settle();
    assert_eq!(world.stations[BOB].texts(), [text]);
    assert_eq!(world.engine(ALICE).message_status(&mid).unwrap(), Some(Status::Delivered));
    let parts = world.relay.wire.iter().filter(|line| line.contains(" PART=")).count();
    assert!(parts > 3);
    let too_long = "x".repeat(crate::mime::TEXT_OCTETS_MAX * limits::PARTS_MAX + 1);
    let now = world.now;
    let bob = address("bob@a.example");
    assert!(world.engine(ALICE).send_text(bob, &too_long, None, now).is_err());
}

#[test]
fn somebody_away_gets_everything_later_in_order_and_once() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "before");
    world.settle();
    world.cut(BOB);
    let said: Vec<String> = (0..5).map(|number| format!("while away {number}")).collect();
    for text in &said {
        world.say(ALICE, BOB, text);
    }
    world.settle();
    assert_eq!(world.stations[BOB].texts().len(), 1);
    world.connect(BOB);
    world.settle();
    world.connect(BOB);
    world.settle();
    assert_eq!(world.stations[BOB].texts()[1..], said);
    assert!(world.stations[BOB].has(|event| *event == Event::CaughtUp));
}

#[test]
fn a_first_message_reaches_somebody_who_is_away() {
    let mut world = World::pair();
    world.cut(BOB);
    let mid = world.say(ALICE, BOB, "are you there?");
    world.settle();
    assert_eq!(world.engine(ALICE).message_status(&mid).unwrap(), Some(Status::Taken));
    world.connect(BOB);
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["are you there?"]);
}

#[test]
fn both_may_begin_at_once() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "from alice");
    world.say(BOB, ALICE, "from bob");
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["from alice"]);
    assert_eq!(world.stations[ALICE].texts(), ["from bob"]);
    let before = world.relay.wire.len();
    world.say(ALICE, BOB, "again");
    world.say(BOB, ALICE, "again");
    world.settle();
    let sids: std::collections::BTreeSet<&str> = world.relay.wire[before..]
        .iter()
        .filter(|line| line.starts_with("100 "))
        .filter_map(|line| line.split(' ').find(|word| word.starts_with("SID=")))
        .collect();
    assert_eq!(sids.len(), 1, "both went over to one session");
}

#[test]
fn the_key_is_refreshed_by_count_and_by_time() {
    let mut world = World::pair();
    let count =
        |world: &World| world.relay.wire.iter().filter(|line| line.starts_with("702 ")).count();
    for number in 0..250 {
        world.say(ALICE, BOB, &number.to_string());
        world.settle();
    }
    let by_count = count(&world);
    assert!((3..=6).contains(&by_count), "{by_count}");
    assert!(world.relay.wire.iter().any(|line| line.starts_with("702 ") && line.contains(" NK=")));
    world.pass(limits::REFRESH_AGE_MS);
    world.say(BOB, ALICE, "later");
    world.settle();
    assert_eq!(count(&world), by_count + 1);
    assert_eq!(world.stations[BOB].texts().len(), 250);
    assert_eq!(world.stations[ALICE].texts(), ["later"]);
    // One generation in use and at most one that is being left.
    let generations: usize =
        world.engine(ALICE).state.count(crate::state::Space::Generation).unwrap();
    assert!(generations <= 2, "{generations}");
}

#[test]
fn a_policy_may_ask_for_more_refreshes() {
    let mut world = World::new();
    world.relay.policy.refresh_messages = 4;
    world.enrol("alice", World::quick());
    world.enrol("bob", World::quick());
    for number in 0..20 {
        world.say(ALICE, BOB, &number.to_string());
        world.settle();
    }
    let refreshes = world.relay.wire.iter().filter(|line| line.starts_with("702 ")).count();
    assert!(refreshes >= 5, "{refreshes}");
    assert_eq!(world.stations[BOB].texts().len(), 20);
}

#[test]
fn read_edit_retract_react_and_typing() {
    let mut world = World::pair();
    let mid = world.say(ALICE, BOB, "draft");
    world.settle();
    let now = world.now;
    let (alice, bob) = (address("alice@a.example"), address("bob@a.example"));
    world.engine(BOB).read(alice, &[&mid], now).unwrap();
    world.engine(BOB).react(alice, &mid, "👍", now).unwrap();
    world.engine(BOB).typing(alice, now);
    world.engine(BOB).typing(alice, now);
    world.engine(ALICE).edit(bob, &mid, "better", now).unwrap();
    world.settle();
    world.engine(ALICE).retract(bob, &mid, now).unwrap();
    // Bob tries to change what Alice said.
    world.engine(BOB).edit(alice, &mid, "forged", now).unwrap();
    world.engine(BOB).stop_typing(alice, now);
    world.settle();
    assert_eq!(world.engine(ALICE).message_status(&mid).unwrap(), Some(Status::Read));
    let notices = world.stations[BOB].notices();
    assert!(matches!(notices[1], Notice::Edited { about, message }
        if *about == mid && message.text == "better"));
    assert!(matches!(notices[2], Notice::Retracted { about, .. } if *about == mid));
    let alice = &world.stations[ALICE];
    assert!(matches!(alice.notices()[..], [Notice::Reaction { message, .. }]
        if message.text == "👍"));
    let typing = alice.events.iter().filter(|e| matches!(e, Event::Typing { .. })).count();
    assert_eq!(typing, 1);
    assert!(alice.has(|event| matches!(event, Event::TypingStopped { .. })));
    assert!(alice.has(|event| matches!(event, Event::Tampering { what, .. }
        if what.contains("somebody else"))));
}

#[test]
fn a_busy_recipient_makes_the_sender_choose() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "before");
    world.settle();
    world.relay.busy.insert("bob@a.example".into());
    let held = world.say(ALICE, BOB, "hold this");
    let urgent = world.say(ALICE, BOB, "urgent");
    let back = world.say(ALICE, BOB, "never mind");
    world.settle();
    let asked: Vec<&str> = world.stations[ALICE]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Busy { mid, alternatives, until, .. } => {
                assert_eq!((alternatives.len(), until.is_some()), (1, true));
                Some(mid.as_str())
            }
            _ => None,
        })
        .collect();
    assert_eq!(asked, [&held, &urgent, &back]);
    assert_eq!(world.stations[BOB].texts().len(), 1, "nothing was sent on silently");
    let now = world.now;
    world.engine(ALICE).answer_busy(&held, Some(Via::Hold), now).unwrap();
    world.engine(ALICE).answer_busy(&urgent, Some(Via::Urgent), now).unwrap();
    world.engine(ALICE).answer_busy(&back, None, now).unwrap();
    assert!(world.engine(ALICE).answer_busy(&back, None, now).is_err());
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["before", "urgent"]);
    world.relay.set_free("bob@a.example");
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["before", "urgent", "hold this"]);
    assert_eq!(world.engine(ALICE).message_status(&back).unwrap(), Some(Status::Failed));
}

#[test]
fn a_choice_after_the_relay_forgot_the_line_sends_it_again() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "before");
    world.settle();
    world.relay.busy.insert("bob@a.example".into());
    let mid = world.say(ALICE, BOB, "later");
    world.settle();
    world.kill(ALICE);
    world.open(ALICE);
    world.connect(ALICE);
    world.settle();
    let asked = |event: &&Event| matches!(event, Event::Busy { .. });
    assert_eq!(world.stations[ALICE].events.iter().filter(asked).count(), 2, "asked again");
    let now = world.now;
    world.engine(ALICE).answer_busy(&mid, Some(Via::Hold), now).unwrap();
    world.settle();
    assert_eq!(world.engine(ALICE).message_status(&mid).unwrap(), Some(Status::Taken));
    world.relay.set_free("bob@a.example");
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["before", "later"]);
}

#[test]
fn long_texts_to_busy_people_are_asked_about_once() {
    let mut world = World::pair();
    world.relay.busy.insert("bob@a.example".into());
    let mid = world.say(ALICE, BOB, &"long ".repeat(3_000));
    world.settle();
    let asked = |event: &&Event| matches!(event, Event::Busy { .. });
    assert_eq!(world.stations[ALICE].events.iter().filter(asked).count(), 1);
    let now = world.now;
    world.engine(ALICE).answer_busy(&mid, Some(Via::Urgent), now).unwrap();
    world.settle();
    assert_eq!(world.stations[BOB].texts(), ["long ".repeat(3_000)]);
}

#[test]
fn lines_put_off_are_sent_again_octet_for_octet() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "first");
    world.settle();
    for (reply, is_taken) in [(450, false), (452, false), (451, false), (0, true)] {
        let before = world.relay.wire.len();
        world.refuse(100, reply, 1, is_taken);
        let text = format!("again after {reply}");
        world.say(ALICE, BOB, &text);
        world.settle();
        if reply == 0 {
            // The relay took the line and its answer was lost with the link.
            world.connect(ALICE);
            world.settle();
        } else {
            world.pass(limits::RETRY_MS_MIN);
        }
        let sent: Vec<Vec<&str>> = world.relay.wire[before..]
            .iter()
            .filter(|line| line.starts_with("100 "))
            .map(|line| line.split(' ').filter(|word| !word.starts_with("H-ID=")).collect())
            .collect();
        assert_eq!(sent.len(), 2, "{reply}");
        assert_eq!(sent[0], sent[1], "{reply}");
        assert_eq!(world.stations[BOB].texts().last(), Some(&text), "{reply}");
    }
    assert_eq!(world.stations[BOB].texts().len(), 5);
}

#[test]
fn refusals_are_told_and_nothing_else_is_tried() {
    for code in [550, 552, 553, 554, 558] {
        let mut world = World::pair();
        world.say(ALICE, BOB, "first");
        world.settle();
        world.refuse(100, code, 9, false);
        let before = world.relay.wire.len();
        let mid = world.say(ALICE, BOB, "second");
        world.settle();
        world.pass(limits::HOUR_MS);
        let failed = world.stations[ALICE].notices().into_iter().find_map(|notice| match notice {
            Notice::Failed { mid, code, .. } => Some((mid.clone(), *code)),
            _ => None,
        });
        assert_eq!(failed, Some((mid, code)));
        let tried = world.relay.wire[before..].iter().filter(|line| line.starts_with("100 "));
        assert_eq!(tried.count(), 1);
    }
}

#[test]
fn an_unknown_recipient_is_told_at_once() {
    let mut world = World::new();
    world.enrol("alice", World::quick());
    let now = world.now;
    let nobody = address("nobody@a.example");
    let mid = world.engine(ALICE).send_text(nobody, "hello?", None, now).unwrap();
    world.settle();
    assert_eq!(world.engine(ALICE).message_status(&mid).unwrap(), Some(Status::Failed));
    assert!(matches!(world.stations[ALICE].notices()[..], [Notice::Failed { code: 550, .. }]));
    let own = address("alice@a.example");
    assert!(world.engine(ALICE).send_text(own, "me", None, now).is_err());
}
