//! Kept files on their way out: in order, in their window, behind chat, over cuts and crashes.

use std::collections::BTreeMap;

use protocol::{Code, Command};

use super::super::ledger::{Talk, numbered};
use super::super::limits;
use super::super::simulation::{Person, Simulation};
use super::super::upload::tests::{CHUNK, File, away, chunks, codes, replies};

fn window(file: &File<'_>, to: u64) -> String {
    file.to
        .line_to(Code::FILE_WINDOW, &file.from.device)
        .parameter("FID", file.id)
        .parameter("TO-CHUNK", to)
        .finish()
}

#[test]
fn a_kept_file_is_sent_within_its_window_after_a_crash_and_after_a_cut() {
    let (mut simulation, (alice, at_alice), bob) = away(1);
    let file = File::new((&alice, &bob), 1, 10);
    file.upload(&mut simulation, at_alice);
    simulation.crash();
    let at_bob = simulation.log_in(&bob);
    let got = simulation.say(at_bob, &file.accept(0, Some(3)));
    assert!(replies(&got)[0].starts_with("250 H-ID=accept "), "{got:?}");
    assert_eq!(chunks(&got), [0, 1, 2]);
    let line = got.iter().find(|line| line.starts_with("802 ")).unwrap();
    assert_eq!(line, &file.chunk(0).replace(" H-ID=n0", ""), "as its sender wrote it");
    assert_eq!(chunks(&simulation.say(at_bob, &window(&file, 5))), [3, 4]);
    assert!(chunks(&simulation.say(at_bob, &window(&file, 4))).is_empty(), "nothing is taken back");
    simulation.drop_link(at_bob);
    let at_bob = simulation.log_in(&bob);
    assert_eq!(chunks(&simulation.say(at_bob, &file.accept(4, None))), [4, 5, 6, 7, 8, 9]);
    assert!(chunks(&simulation.say(at_bob, &file.accept(10, None))).is_empty());
    assert_eq!(codes(&mut simulation, at_bob, &file.accept(11, None)), [501]);
    let at_alice = simulation.log_in(&alice);
    assert!(!simulation.take(at_alice).iter().any(|line| line.starts_with("80")));
}

#[test]
fn chunks_that_still_come_in_follow_as_they_are_kept() {
    let (mut simulation, (alice, at_alice), bob) = away(2);
    let file = File::new((&alice, &bob), 1, 5);
    let offer = file.offer(&mut simulation);
    simulation.expect(at_alice, &offer, 354);
    simulation.expect(at_alice, &file.chunk(0), 250);
    let at_bob = simulation.log_in(&bob);
    simulation.say(at_bob, "013 H-Q=0");
    assert_eq!(chunks(&simulation.say(at_bob, &file.accept(0, None))), [0]);
    simulation.take(at_alice);
    for number in 1..5 {
        simulation.store.with(|store| store.hold(true));
        simulation.say(at_alice, &file.chunk(number));
        assert!(simulation.take(at_bob).is_empty(), "it is not durable yet");
        simulation.store.with(|store| store.hold(false));
        simulation.settle();
        assert_eq!(codes(&mut simulation, at_alice, "015 H-ID=p"), [250, 250]);
        assert_eq!(chunks(&simulation.take(at_bob)), [number]);
    }
    let end = file.finish(&mut simulation);
    simulation.expect(at_alice, &end, 250);
}

#[test]
fn one_chunk_is_in_front_of_a_message() {
    let (mut simulation, (alice, at_alice), bob) = away(3);
    let file = File::new((&alice, &bob), 1, 5);
    file.upload(&mut simulation, at_alice);
    let at_bob = simulation.log_in(&bob);
    simulation.say(at_bob, "013 H-Q=0");
    simulation.take(at_alice);
    simulation.stall(at_bob, true);
    assert_eq!(chunks(&simulation.say(at_bob, &file.accept(0, None))), [0]);
    let (message, _) = Talk::new(&alice, &bob.account).message(&mut simulation);
    assert_eq!(codes(&mut simulation, at_alice, &message), [250]);
    let got = simulation.take(at_bob);
    assert_eq!(got.len(), 1);
    assert_eq!(numbered(&got[0]).map(|(_, line)| line), Some(message));
    simulation.stall(at_bob, false);
    assert_eq!(chunks(&simulation.take(at_bob)), [1, 2, 3, 4]);
}

#[test]
fn files_take_turns_with_each_other_and_with_chunks_that_pass() {
    let (mut simulation, (alice, at_alice), bob) = away(4);
    let files = [1, 2].map(|number| File::new((&alice, &bob), number, 4));
    for file in &files {
        file.upload(&mut simulation, at_alice);
    }
    let live = File::new((&alice, &bob), 3, 4);
    let at_bob = simulation.log_in(&bob);
    simulation.say(at_bob, "013 H-Q=0");
    simulation.stall(at_bob, true);
    let mut got = Vec::new();
    for file in &files {
        got.extend(simulation.say(at_bob, &file.accept(0, None)));
    }
    for number in 0..4 {
        simulation.say(at_alice, &live.chunk(number));
    }
    simulation.stall(at_bob, false);
    got.extend(simulation.take(at_bob));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for line in got.iter().filter(|line| line.starts_with("802 ")) {
        let command = Command::parse(line.as_bytes()).unwrap();
        *seen.entry(command.need::<&str>("FID").unwrap().to_owned()).or_default() += 1;
        let count = |file: &File<'_>| seen.get(file.id.as_str()).copied().unwrap_or_default();
        let kept = files.each_ref().map(count);
        let (passed, sum) = (count(&live), kept[0] + kept[1]);
        assert!(kept[0].abs_diff(kept[1]) <= 2, "{seen:?}");
        assert!(passed == 4 || passed.abs_diff(sum) <= 2, "{seen:?}");
    }
    assert_eq!(seen.values().copied().collect::<Vec<_>>(), [4, 4, 4]);
}

#[test]
fn files_on_one_link_at_n_and_one_more() {
    let (mut simulation, (alice, at_alice), bob) = away(5);
    let (carol, at_carol) = simulation.enrol("carol");
    let at_bob = simulation.log_in(&bob);
    let approve = bob.line_to(Code::APPROVE, &carol.account).parameter("H-ID", "a").finish();
    assert_eq!(codes(&mut simulation, at_bob, &approve), [250]);
    simulation.drop_link(at_bob);
    simulation.take(at_alice);
    simulation.take(at_carol);
    let kept = crate::depot::limits::FILES_KEPT_MAX;
    assert_eq!(kept, limits::FETCHES_MAX, "else people wait for each other");
    for number in 0..kept {
        let (from, link): (&Person, _) =
            if number.is_multiple_of(2) { (&alice, at_alice) } else { (&carol, at_carol) };
        let offer = File::new((from, &bob), number as u8, 1).offer(&mut simulation);
        simulation.expect(link, &offer, 354);
    }
    let at_bob = simulation.log_in(&bob);
    let accept = |simulation: &mut Simulation, number: usize| {
        let from = if number.is_multiple_of(2) { &alice } else { &carol };
        codes(simulation, at_bob, &File::new((from, &bob), number as u8, 1).accept(0, None))
    };
    for number in 0..kept {
        assert_eq!(accept(&mut simulation, number), [250], "{number}");
    }
    assert_eq!(accept(&mut simulation, 0), [250], "the same again");
    let extra = File::new((&alice, &bob), 0xFF, 1);
    let label = extra.label();
    let fetches = |simulation: &mut Simulation| {
        let link = simulation.domain.connections.get_mut(&at_bob).unwrap();
        link.post.fetches.len()
    };
    assert_eq!(fetches(&mut simulation), kept);
    // One more can only come while an earlier one is under removal.
    let file = File::new((&alice, &bob), 0, 1);
    let link = simulation.domain.connections.get_mut(&at_bob).unwrap();
    link.post.fetches[0].label = label;
    assert_eq!(codes(&mut simulation, at_bob, &file.accept(0, None)).len(), 1);
    assert_eq!(fetches(&mut simulation), kept, "no more than that");
}

#[test]
fn a_store_that_cannot_be_read_delays_and_loses_nothing() {
    let (mut simulation, (alice, at_alice), bob) = away(6);
    let file = File::new((&alice, &bob), 1, 5);
    file.upload(&mut simulation, at_alice);
    let at_bob = simulation.log_in(&bob);
    simulation.stall(at_bob, true);
    assert_eq!(chunks(&simulation.say(at_bob, &file.accept(0, None))), [0]);
    simulation.store.set_unreadable(true);
    simulation.stall(at_bob, false);
    assert!(chunks(&simulation.take(at_bob)).is_empty());
    simulation.store.set_unreadable(false);
    simulation.advance(std::time::Duration::from_secs(1));
    assert_eq!(chunks(&simulation.take(at_bob)), [1, 2, 3, 4]);
}

#[test]
fn chunks_that_fit_no_line_of_the_link_are_not_promised() {
    let (mut simulation, (alice, at_alice), bob) = away(7);
    let mut file = File::new((&alice, &bob), 1, 2);
    file.shape = protocol::file::Shape::new(20_000, 4 * CHUNK).unwrap();
    file.upload(&mut simulation, at_alice);
    let at_bob = simulation.connect();
    let hello = bob.line(Code::HELLO).parameter("VER", 1).finish();
    simulation.expect(at_bob, &hello, 250);
    let nonce = simulation.challenge(at_bob, &bob);
    let proof = simulation.proof(at_bob, &bob, &nonce);
    simulation.expect(at_bob, &proof, 250);
    assert_eq!(codes(&mut simulation, at_bob, &file.accept(0, None)), [556]);
    let at_bob = simulation.log_in(&bob);
    assert_eq!(chunks(&simulation.say(at_bob, &file.accept(0, None))), [0, 1]);
}

#[test]
fn what_is_not_kept_is_asked_of_the_sender() {
    let (mut simulation, (alice, at_alice), bob) = away(8);
    simulation.say(at_alice, "013 H-Q=0");
    let at_bob = simulation.log_in(&bob);
    let file = File::new((&alice, &bob), 1, 5);
    assert_eq!(codes(&mut simulation, at_bob, &file.accept(0, None)), [250]);
    simulation.say(at_bob, &window(&file, 3));
    let got: Vec<String> =
        simulation.take(at_alice).iter().filter_map(|line| Some(numbered(line)?.1)).collect();
    assert!(got[0].starts_with("801 ") && got[1].starts_with("803 "), "{got:?}");
    // Another account's file is not given to whoever asks for it.
    let (carol, at_carol) = simulation.enrol("carol");
    simulation.drop_link(at_bob);
    file.upload(&mut simulation, at_alice);
    let theirs = File { to: &carol, ..file };
    let got = simulation.say(at_carol, &theirs.accept(0, None));
    assert!(chunks(&got).is_empty(), "{got:?}");
}
