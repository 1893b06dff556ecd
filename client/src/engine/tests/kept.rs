//! Files for somebody who is away: kept by the relay, taken later, over every cut and death.

use std::path::PathBuf;

use super::world::World;
use crate::engine::{Event, FileStage, Notice};
use crate::file::prepare;
use crate::limits;
use crate::random::Seeded;
use crate::state::Space;

const ALICE: usize = 0;
const BOB: usize = 1;
/// Octets of a chunk on the links of these tests.
const CHUNK: usize = 4_096;

struct Sent {
    fid: String,
    source: PathBuf,
    target: PathBuf,
    content: Vec<u8>,
}

/// Two people who know each other; bob has left.
fn bob_is_away() -> World {
    let mut world = World::pair();
    world.cut(BOB);
    world
}

/// Alice offers a file of so many chunks, the last of which is short; nothing moves yet.
fn offer(world: &mut World, chunks: usize) -> Sent {
    let size = chunks * CHUNK - 10;
    let content: Vec<u8> = (0..size).map(|n| (n * 31 % 251) as u8).collect();
    let source = world.stations[ALICE].folder().join(format!("file {size}"));
    std::fs::write(&source, &content).unwrap();
    let chunk = world.engine(ALICE).chunk_octets();
    let mut random = Seeded::new(size as u64);
    let prepared = prepare(&source, chunk, "text/plain", &mut random, |_, _| ()).unwrap();
    let (bob, now) = (world.stations[BOB].account(), world.now);
    let fid = world.engine(ALICE).file_offer(bob.as_address(), &prepared, now).unwrap();
    let target = world.stations[BOB].folder().join("arrived");
    Sent { fid, source, target, content }
}

fn accept(world: &mut World, sent: &Sent) {
    let now = world.now;
    world.engine(BOB).file_accept(&sent.fid, &sent.target, now).unwrap();
}

fn comes(world: &mut World, index: usize) {
    world.connect(index);
    world.settle();
}

fn is_done(world: &World, index: usize) -> bool {
    world.stations[index].notices().iter().any(|n| matches!(n, Notice::FileDone { .. }))
}

fn is_kept(world: &World) -> bool {
    let kept = |notice: &&Notice| matches!(notice, Notice::FileKept { .. });
    world.stations[ALICE].notices().iter().any(kept)
}

fn failures(world: &World, index: usize) -> Vec<(u16, String)> {
    let failed = |notice: &&Notice| match notice {
        Notice::FileFailed { code, text, .. } => Some((*code, text.clone())),
        _ => None,
    };
    world.stations[index].notices().iter().filter_map(failed).collect()
}

fn stage(world: &mut World) -> Option<FileStage> {
    world.engine(ALICE).files_sent().unwrap().first().map(|file| file.stage)
}

/// How many chunks left a station.
fn chunks_sent(world: &World) -> usize {
    world.relay.wire.iter().filter(|line| line.starts_with("802 ")).count()
}

/// Lets lines move, some at a time.
fn step(world: &mut World, lines: usize) {
    for _ in 0..lines {
        for index in [ALICE, BOB] {
            world.drive(index);
            world.carry(index);
        }
    }
}

#[test]
fn it_is_kept_the_sender_leaves_and_it_is_taken_later() {
    for chunks in [1, 2, 300] {
        let mut world = bob_is_away();
        let sent = offer(&mut world, chunks);
        assert_eq!(stage(&mut world), Some(FileStage::Offered));
        world.settle();
        assert!(is_kept(&world), "{chunks}");
        assert_eq!(stage(&mut world), Some(FileStage::Kept));
        let progress = world.stations[ALICE].events.iter().rev().find_map(|event| match event {
            Event::FileProgress { done, of, is_kept, .. } => Some((*done, *of, *is_kept)),
            _ => None,
        });
        assert_eq!(progress, Some((chunks as u64, chunks as u64, true)));
        world.kill(ALICE);
        comes(&mut world, BOB);
        accept(&mut world, &sent);
        world.settle();
        assert_eq!(std::fs::read(&sent.target).unwrap(), sent.content, "{chunks}");
        assert!(is_done(&world, BOB) && !world.relay.depot.is_kept(&sent.fid));
        assert_eq!(chunks_sent(&world), chunks, "each once");
        // What was sent need not be there any more.
        std::fs::remove_file(&sent.source).unwrap();
        world.open(ALICE);
        comes(&mut world, ALICE);
        assert!(is_done(&world, ALICE));
        assert_eq!(failures(&world, ALICE), []);
        assert!(world.engine(ALICE).files_sent().unwrap().is_empty());
    }
}

#[test]
fn the_upload_resumes_after_every_cut_and_death() {
    let mut world = bob_is_away();
    let sent = offer(&mut world, 200);
    for round in 0..8 {
        step(&mut world, 60);
        if round % 2 == 0 {
            world.cut(ALICE);
        } else {
            world.kill(ALICE);
            world.open(ALICE);
        }
        world.connect(ALICE);
    }
    world.settle();
    assert!(is_kept(&world));
    let surplus = chunks_sent(&world) - 200;
    let noted = limits::FILE_PROGRESS_CHUNKS as usize + limits::CHUNKS_IN_FLIGHT_MAX;
    assert!(surplus <= 8 * noted, "resumed, not begun anew: {surplus}");
    comes(&mut world, BOB);
    accept(&mut world, &sent);
    world.settle();
    assert_eq!(std::fs::read(&sent.target).unwrap(), sent.content);
}

#[test]
fn the_download_resumes_after_every_cut_and_death() {
    let mut world = bob_is_away();
    let sent = offer(&mut world, 300);
    world.settle();
    world.kill(ALICE);
    comes(&mut world, BOB);
    accept(&mut world, &sent);
    for round in 0..6 {
        for _ in 0..50 {
            world.drive(BOB);
            world.carry(BOB);
        }
        if round % 2 == 0 {
            world.cut(BOB);
        } else {
            world.kill(BOB);
            world.open(BOB);
        }
        world.connect(BOB);
    }
    world.settle();
    assert_eq!(std::fs::read(&sent.target).unwrap(), sent.content);
    assert!(is_done(&world, BOB));
}

#[test]
fn who_comes_during_the_upload_gets_it_through_the_relay() {
    let mut world = bob_is_away();
    let sent = offer(&mut world, 200);
    step(&mut world, 60);
    assert!(chunks_sent(&world) > 0 && !is_kept(&world));
    world.connect(BOB);
    world.sort_out();
    for _ in 0..1_000 {
        if !world.engine(BOB).files().unwrap().is_empty() {
            break;
        }
        world.drive(BOB);
        world.carry(BOB);
    }
    assert!(!is_kept(&world), "still on its way");
    accept(&mut world, &sent);
    world.settle();
    assert_eq!(std::fs::read(&sent.target).unwrap(), sent.content);
    assert!(is_done(&world, ALICE) && is_done(&world, BOB));
    assert_eq!(chunks_sent(&world), 200);
    assert!(world.relay.wire.iter().all(|line| !line.starts_with("802 TO bob@a.example/")));
}

#[test]
fn without_room_it_waits_and_says_why() {
    let mut world = bob_is_away();
    world.relay.depot.has_room = false;
    let sent = offer(&mut world, 20);
    world.settle();
    assert!(world.stations[ALICE].has(|event| matches!(event, Event::FileWaits { .. })));
    assert_eq!((stage(&mut world), chunks_sent(&world)), (Some(FileStage::Offered), 0));
    comes(&mut world, BOB);
    accept(&mut world, &sent);
    world.settle();
    assert_eq!(std::fs::read(&sent.target).unwrap(), sent.content);
    assert!(!is_kept(&world) && is_done(&world, ALICE));
}

#[test]
fn chunks_that_are_not_kept_are_not_called_kept() {
    let mut world = bob_is_away();
    let sent = offer(&mut world, 50);
    step(&mut world, 30);
    // The approval was withdrawn: from now on nothing is told.
    world.relay.depot.forget(&sent.fid);
    world.relay.vanishes_chunks = true;
    world.settle();
    assert!(!is_kept(&world));
    assert_eq!(stage(&mut world), Some(FileStage::Offered));
    assert!(world.stations[ALICE].has(|event| matches!(event, Event::FileWaits { .. })));
    // The other side can still ask for it.
    world.relay.vanishes_chunks = false;
    comes(&mut world, BOB);
    accept(&mut world, &sent);
    world.settle();
    assert_eq!(std::fs::read(&sent.target).unwrap(), sent.content);
}

#[test]
fn what_the_relay_misses_is_sent_again() {
    let mut world = bob_is_away();
    let sent = offer(&mut world, 50);
    step(&mut world, 40);
    assert!(chunks_sent(&world) > 10);
    world.relay.depot.lose(&sent.fid, 3);
    world.settle();
    world.pass(5_000);
    assert!(is_kept(&world));
    // Behind the last chunk, too: 804 is then for something that is not there.
    let mut world = bob_is_away();
    let sent = offer(&mut world, 50);
    while !world.relay.wire.iter().any(|line| line.contains(" N=49 ")) {
        step(&mut world, 1);
    }
    world.relay.depot.lose(&sent.fid, 7);
    world.settle();
    world.pass(5_000);
    assert!(is_kept(&world));
    comes(&mut world, BOB);
    accept(&mut world, &sent);
    world.settle();
    assert_eq!(std::fs::read(&sent.target).unwrap(), sent.content);
    assert!(is_done(&world, BOB));
}

#[test]
fn a_repeated_offer_gets_the_same_answer() {
    let mut world = bob_is_away();
    world.refuse(800, 0, 1, true);
    offer(&mut world, 10);
    world.settle();
    assert!(!is_kept(&world), "the answer was lost");
    comes(&mut world, ALICE);
    assert!(is_kept(&world));
}

#[test]
fn a_file_that_is_given_up_is_gone_everywhere() {
    for by_sender in [true, false] {
        let mut world = bob_is_away();
        let sent = offer(&mut world, 10);
        world.settle();
        comes(&mut world, BOB);
        let now = world.now;
        if by_sender {
            world.engine(ALICE).file_cancel(&sent.fid, now).unwrap();
        } else {
            world.engine(BOB).file_decline(&sent.fid, now).unwrap();
        }
        world.settle();
        assert!(!world.relay.depot.is_kept(&sent.fid));
        let other = if by_sender { BOB } else { ALICE };
        assert_eq!(failures(&world, other).len(), 1, "{by_sender}");
        assert!(world.engine(ALICE).files_sent().unwrap().is_empty());
        assert!(world.engine(BOB).files().unwrap().is_empty());
    }
}

#[test]
fn the_end_of_a_kept_file_is_said_in_words() {
    for (code, word) in [(558, "time"), (451, "lost")] {
        let mut world = bob_is_away();
        let sent = offer(&mut world, 10);
        world.settle();
        comes(&mut world, BOB);
        world.relay.end_kept(&sent.fid, code);
        world.settle();
        for index in [ALICE, BOB] {
            let failures = failures(&world, index);
            assert_eq!(failures.len(), 1);
            assert!(failures[0].0 == code && failures[0].1.contains(word), "{failures:?}");
        }
    }
}

#[test]
fn a_bounce_of_the_offer_ends_the_file_once() {
    let mut world = bob_is_away();
    let sent = offer(&mut world, 10);
    world.settle();
    let line = world.relay.wire.iter().find(|line| line.starts_with("800 ")).unwrap().clone();
    let mid = line.split(" MID=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let (alice, now) = (world.stations[ALICE].name.clone(), world.now);
    world.relay.bounce(&alice, &mid, now, true);
    world.settle();
    assert_eq!(failures(&world, ALICE), [], "a forged one does nothing");
    world.relay.bounce(&alice, &mid, now, false);
    world.relay.end_kept(&sent.fid, 558);
    world.settle();
    assert_eq!(failures(&world, ALICE), [(558, "nobody took it in time".to_owned())]);
    assert!(world.engine(ALICE).files_sent().unwrap().is_empty());
}

#[test]
fn a_file_that_changes_under_way_is_taken_back_from_the_relay() {
    let mut world = bob_is_away();
    let sent = offer(&mut world, 50);
    step(&mut world, 20);
    let mut changed = sent.content.clone();
    changed[45 * CHUNK] ^= 1;
    std::fs::write(&sent.source, changed).unwrap();
    world.settle();
    assert_eq!(failures(&world, ALICE).len(), 1);
    assert!(!world.relay.depot.is_kept(&sent.fid));
    comes(&mut world, BOB);
    assert_eq!(failures(&world, BOB).len(), 1);
}

#[test]
fn the_line_that_ends_a_file_waits_for_an_offer_that_cannot_be_opened_yet() {
    let mut world = bob_is_away();
    let sent = offer(&mut world, 10);
    world.settle();
    // Alice's record comes late: her key, and so her offer, wait for it.
    world.refuse(610, 450, 3, false);
    world.connect(BOB);
    world.settle();
    assert!(world.engine(BOB).files().unwrap().is_empty(), "not opened yet");
    let parked = world.engine(BOB).state.list::<serde_json::Value>(Space::Parked).unwrap();
    let codes: Vec<&str> =
        parked.iter().map(|(_, row)| &row["line"].as_str().unwrap()[..3]).collect();
    assert_eq!(codes, ["700", "800", "804"]);
    world.pass(2 * limits::FETCH_RETRY_MS);
    assert_eq!(world.engine(BOB).files().unwrap().len(), 1);
    accept(&mut world, &sent);
    world.settle();
    assert_eq!(std::fs::read(&sent.target).unwrap(), sent.content);
    assert!(is_done(&world, BOB));
}

#[test]
fn an_offer_that_nobody_can_open_ends_its_file() {
    let mut world = bob_is_away();
    let sent = offer(&mut world, 10);
    world.say(ALICE, BOB, "with a text beside it");
    world.settle();
    assert!(is_kept(&world));
    world.refuse_offers(BOB, 1);
    comes(&mut world, BOB);
    world.pass(5_000);
    let told = failures(&world, ALICE);
    assert!(told.len() == 1 && told[0].1.contains("send the file again"), "{told:?}");
    assert!(!world.relay.depot.is_kept(&sent.fid));
    assert!(world.engine(ALICE).files_sent().unwrap().is_empty());
    assert_eq!(world.stations[BOB].texts(), ["with a text beside it"], "texts go again");
}

#[test]
fn a_long_pause_is_told_once_and_concerns_one_file() {
    let mut world = bob_is_away();
    offer(&mut world, 20);
    step(&mut world, 20);
    world.refuse(802, 452, 3, false);
    world.settle();
    assert!(!is_kept(&world));
    let told = |world: &World| {
        let put_off = |event: &&Event| matches!(event, Event::PutOff { code: 452, .. });
        world.stations[ALICE].events.iter().filter(put_off).count()
    };
    assert_eq!(told(&world), 1);
    for _ in 0..5 {
        world.pass(1_000);
    }
    assert_eq!(told(&world), 1);
    assert!(is_kept(&world));
}

#[test]
fn a_receiver_asks_ever_more_rarely_and_at_once_after_a_cut() {
    let mut world = bob_is_away();
    let sent = offer(&mut world, 50);
    step(&mut world, 30);
    world.kill(ALICE);
    comes(&mut world, BOB);
    accept(&mut world, &sent);
    world.settle();
    let asks =
        |world: &World| world.relay.wire.iter().filter(|line| line.starts_with("801 ")).count();
    let before = asks(&world);
    world.pass(limits::FILE_STALL_MS - 1_000);
    assert_eq!(asks(&world), before);
    world.pass(30_000);
    assert_eq!(asks(&world), before + 1);
    world.pass(30 * limits::DAY_MS);
    let in_a_month = asks(&world) - before;
    let at_least = (30 * limits::DAY_MS / limits::FILE_STALL_MS_MAX) as usize;
    assert!((at_least - 2..at_least + 15).contains(&in_a_month), "{in_a_month}");
    let before = asks(&world);
    world.cut(BOB);
    comes(&mut world, BOB);
    assert_eq!(asks(&world), before + 1);
}
