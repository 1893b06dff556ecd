//! Files: offered, accepted, resumed after every cut, overtaken by chat, refused when wrong.

use std::path::PathBuf;

use super::world::World;
use crate::engine::{Event, FileOffered, Notice};
use crate::file::prepare;
use crate::random::Seeded;

const ALICE: usize = 0;
const BOB: usize = 1;

struct Sent {
    fid: String,
    source: PathBuf,
    target: PathBuf,
    content: Vec<u8>,
}

/// Alice offers a file of `size` octets to Bob.
fn offer(world: &mut World, size: usize) -> Sent {
    let content: Vec<u8> = (0..size).map(|n| (n * 31 % 251) as u8).collect();
    let source = world.stations[ALICE].folder().join(format!("file {size}"));
    std::fs::write(&source, &content).unwrap();
    let chunk = world.engine(ALICE).chunk_octets();
    assert_eq!(chunk, 4_096);
    let mut random = Seeded::new(size as u64);
    let prepared = prepare(&source, chunk, "text/plain", &mut random, |_, _| ()).unwrap();
    let bob = world.stations[BOB].account();
    let now = world.now;
    let fid = world.engine(ALICE).file_offer(bob.as_address(), &prepared, now).unwrap();
    world.settle();
    let target = world.stations[BOB].folder().join("arrived");
    Sent { fid, source, target, content }
}

fn accept(world: &mut World, sent: &Sent) {
    let now = world.now;
    world.engine(BOB).file_accept(&sent.fid, &sent.target, now).unwrap();
}

fn is_done(world: &World, index: usize) -> bool {
    world.stations[index].notices().iter().any(|n| matches!(n, Notice::FileDone { .. }))
}

fn failure(world: &World, index: usize) -> Option<u16> {
    world.stations[index].notices().iter().find_map(|notice| match notice {
        Notice::FileFailed { code, .. } => Some(*code),
        _ => None,
    })
}

#[test]
fn a_file_arrives_whole() {
    for size in [0, 1, 4_096, 4_097, 500_000] {
        let mut world = World::pair();
        let sent = offer(&mut world, size);
        let offered = world.stations[BOB].notices().iter().find_map(|notice| match notice {
            Notice::FileOffered(offered) => Some(offered.clone()),
            _ => None,
        });
        let expected = FileOffered {
            fid: sent.fid.clone(),
            contact: world.stations[ALICE].account(),
            name: format!("file {size}"),
            media_type: "text/plain".into(),
            size: size as u64,
        };
        assert_eq!(offered, Some(expected));
        accept(&mut world, &sent);
        world.settle();
        assert_eq!(std::fs::read(&sent.target).unwrap(), sent.content, "{size}");
        assert!(is_done(&world, ALICE) && is_done(&world, BOB), "{size}");
        assert!(world.engine(BOB).files().unwrap().is_empty());
        let folder = world.stations[BOB].folder();
        let parts = std::fs::read_dir(folder).unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part")
        });
        assert_eq!(parts.count(), 0);
    }
}

#[test]
fn it_resumes_after_every_cut_and_death() {
    let mut world = World::pair();
    let sent = offer(&mut world, 1_000_000);
    accept(&mut world, &sent);
    for round in 0..8 {
        for _ in 0..150 {
            for index in [ALICE, BOB] {
                world.drive(index);
                world.carry(index);
                world.carry(index);
            }
        }
        let victim = round % 2;
        if round % 4 < 2 {
            world.cut(victim);
        } else {
            world.kill(victim);
            world.open(victim);
        }
        world.connect(victim);
    }
    world.settle();
    world.pass(crate::limits::FILE_STALL_MS);
    assert_eq!(std::fs::read(&sent.target).unwrap(), sent.content);
    assert!(is_done(&world, ALICE) && is_done(&world, BOB));
    let chunks = world.relay.wire.iter().filter(|line| line.starts_with("802 ")).count();
    assert!(chunks < 2 * 245, "resumed, not begun anew: {chunks}");
}

#[test]
fn chat_overtakes_chunks() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "acquainted");
    world.settle();
    let sent = offer(&mut world, 400_000);
    accept(&mut world, &sent);
    for round in 0..20 {
        for _ in 0..20 {
            world.drive(ALICE);
            world.carry(ALICE);
            world.drive(BOB);
            world.carry(BOB);
        }
        let before = world.relay.wire.len();
        world.say(ALICE, BOB, &format!("meanwhile {round}"));
        world.drive(ALICE);
        let is_chat = |line: &String| line.starts_with("100 ");
        // The line may have to wait until the one of the last round is answered.
        while world.carry(ALICE) && !world.relay.wire[before..].iter().any(is_chat) {
            world.drive(ALICE);
        }
        let lines = &world.relay.wire[before..];
        let ahead = lines.iter().position(is_chat).map(|end| &lines[..end]);
        let chunks = ahead.map(|lines| lines.iter().filter(|l| l.starts_with("802 ")).count());
        assert!(chunks.is_some_and(|chunks| chunks <= 1), "at most one chunk ahead: {chunks:?}");
    }
    world.settle();
    assert_eq!(world.stations[BOB].texts().len(), 21);
    assert_eq!(std::fs::read(&sent.target).unwrap(), sent.content);
}

#[test]
fn a_text_that_waits_for_an_answer_holds_the_chunks() {
    let mut world = World::pair();
    world.say(ALICE, BOB, "acquainted");
    world.settle();
    let sent = offer(&mut world, 400_000);
    accept(&mut world, &sent);
    let rounds = |world: &mut World| {
        let chunks =
            |world: &World| world.relay.wire.iter().filter(|line| line.starts_with("802 ")).count();
        let before = chunks(world);
        for _ in 0..40 {
            for index in [ALICE, BOB] {
                world.drive(index);
                world.carry(index);
                world.carry(index);
            }
        }
        chunks(world) - before
    };
    // The relay takes the text, but its answer does not come on this link.
    world.refuse(100, 0, 1, true);
    world.say(ALICE, BOB, "unanswered");
    assert!(rounds(&mut world) > 10, "nothing waits");
    world.say(ALICE, BOB, "waits behind it");
    assert!(rounds(&mut world) <= 1, "at most one goes ahead of it");
    world.connect(ALICE);
    world.settle();
    world.pass(crate::limits::FILE_STALL_MS);
    assert_eq!(world.stations[BOB].texts(), ["acquainted", "unanswered", "waits behind it"]);
    assert_eq!(std::fs::read(&sent.target).unwrap(), sent.content);
}

#[test]
fn a_wrong_chunk_is_refused_and_said() {
    let mut world = World::pair();
    let sent = offer(&mut world, 50_000);
    world.relay.damages_chunk = Some(5);
    accept(&mut world, &sent);
    world.settle();
    assert!(!sent.target.exists());
    assert_eq!((failure(&world, ALICE), failure(&world, BOB)), (Some(553), Some(553)));
}

#[test]
fn a_wrong_signature_over_the_whole_is_refused_and_said() {
    let mut world = World::pair();
    let sent = offer(&mut world, 50_000);
    world.relay.damages_finish = true;
    accept(&mut world, &sent);
    world.settle();
    assert!(!sent.target.exists());
    assert_eq!((failure(&world, ALICE), failure(&world, BOB)), (Some(553), Some(553)));
    assert!(world.stations[BOB].has(|e| matches!(e, Event::Tampering { .. })));
}

#[test]
fn a_file_that_changes_under_way_does_not_leave() {
    let mut world = World::pair();
    let sent = offer(&mut world, 50_000);
    let mut changed = sent.content.clone();
    changed[20_000] ^= 1;
    std::fs::write(&sent.source, changed).unwrap();
    accept(&mut world, &sent);
    world.settle();
    assert_eq!(failure(&world, ALICE), Some(451));
    assert_eq!(failure(&world, BOB), Some(451));
    assert!(!sent.target.exists());
    let before = world.relay.wire.iter().filter(|line| line.starts_with("802 ")).count();
    assert_eq!(before, 4, "only what was still the announced file");
}

#[test]
fn declined_cancelled_and_given_up() {
    let mut world = World::pair();
    let sent = offer(&mut world, 50_000);
    let now = world.now;
    world.engine(BOB).file_decline(&sent.fid, now).unwrap();
    world.settle();
    assert!(failure(&world, ALICE).is_some());
    let sent = offer(&mut world, 60_000);
    world.engine(ALICE).file_cancel(&sent.fid, now).unwrap();
    world.settle();
    assert!(failure(&world, BOB).is_some());
    assert!(world.engine(BOB).file_accept(&sent.fid, &sent.target, now).is_err());
    assert!(world.engine(ALICE).file_cancel(&sent.fid, now).is_err());
}

#[test]
fn existing_files_and_too_large_ones() {
    let mut world = World::pair();
    let sent = offer(&mut world, 10);
    std::fs::write(&sent.target, "mine").unwrap();
    let now = world.now;
    assert!(world.engine(BOB).file_accept(&sent.fid, &sent.target, now).is_err());
    assert_eq!(std::fs::read(&sent.target).unwrap(), b"mine");

    let mut world = World::new();
    world.relay.policy.file_octets_max = 100;
    world.enrol("alice", World::quick());
    world.enrol("bob", World::quick());
    let path = world.stations[ALICE].folder().join("x");
    let bob = world.stations[BOB].account();
    for (size, fits) in [(100, true), (101, false)] {
        std::fs::write(&path, vec![0; size]).unwrap();
        let prepared = prepare(&path, 4_096, "", &mut Seeded::new(9), |_, _| ()).unwrap();
        let now = world.now;
        let offered = world.engine(ALICE).file_offer(bob.as_address(), &prepared, now);
        assert_eq!(offered.is_ok(), fits, "{size}");
    }
}
