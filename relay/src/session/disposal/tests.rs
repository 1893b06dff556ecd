//! The end of kept files: by either side, by time, by damage, by revocation; over crashes.

use std::time::Duration;

use protocol::identifier::MessageId;
use protocol::{Code, Command};

use super::super::simulation::{DOMAIN, Person, Simulation};
use super::super::upload::tests::{File, away, away_with, chunks, codes};
use super::super::{ConnectionId, Settings};
use crate::clock::SETTLING;
use crate::depot::limits::CHUNKS_REMOVED_AT_ONCE;
use crate::store::{Direction, Store as _, Table};

fn is_kept(simulation: &Simulation, file: &File<'_>) -> bool {
    let label = file.label();
    simulation.domain.post.depot.card(&simulation.store, &label).unwrap().is_some()
}

/// Rows of kept files that are left for an account, and chunks of this one.
fn rows(simulation: &Simulation, file: &File<'_>) -> (usize, usize) {
    let (account, chunk) = (&file.to.account, file.label().chunk_row(0));
    let count = |table, owner: &[u8]| {
        let all = ([].as_slice(), [0xFF; 40].as_slice());
        let rows = simulation.store.range(table, owner, all.0, all.1, 4_096, Direction::Forward);
        rows.unwrap().len()
    };
    (count(Table::File, account.as_str().as_bytes()), count(Table::Chunk, &chunk.owner))
}

fn cancel(from: &Person, to: &protocol::AddressBuf, file: &File<'_>) -> String {
    let line = from.line_to(Code::FILE_CANCEL, to).parameter("FID", file.id);
    line.parameter("H-ID", "c").finish()
}

fn verdict(simulation: &mut Simulation, file: &File<'_>, code: u16) -> String {
    let line = file
        .to
        .line_to(Code::FILE_VERDICT, &file.from.device)
        .parameter("FID", file.id)
        .parameter("CODE", code)
        .parameter("TS", simulation.now.timestamp.0)
        .parameter("MID", simulation.message_id())
        .parameter("H-ID", "v");
    file.to.sign(line, &[])
}

/// The lines of a queue with this code.
fn lines(simulation: &mut Simulation, link: ConnectionId, code: u16) -> Vec<String> {
    let got = simulation.say(link, "013 H-Q=0");
    got.into_iter().filter(|line| line.starts_with(&format!("{code} "))).collect()
}

#[test]
fn either_side_gives_it_up_and_a_verdict_ends_it() {
    for way in 0..4 {
        let (mut simulation, (alice, at_alice), bob) = away(way);
        let file = File::new((&alice, &bob), 1, 5);
        let other = File::new((&alice, &bob), 2, 5);
        file.upload(&mut simulation, at_alice);
        other.upload(&mut simulation, at_alice);
        assert_eq!(rows(&simulation, &file), (2, 5));
        let at_bob = simulation.log_in(&bob);
        let (link, line) = match way {
            0 => (at_alice, cancel(&alice, &bob.account, &file)),
            1 => (at_bob, cancel(&bob, &alice.device, &file)),
            2 => (at_bob, verdict(&mut simulation, &file, 250)),
            _ => (at_bob, verdict(&mut simulation, &file, 553)),
        };
        simulation.stall(at_bob, true);
        simulation.say(at_bob, &file.accept(0, None));
        simulation.take(at_alice);
        assert_eq!(codes(&mut simulation, link, &line).len(), 1);
        assert!(!is_kept(&simulation, &file) && is_kept(&simulation, &other), "{way}");
        assert_eq!(rows(&simulation, &file), (1, 0), "{way}");
        simulation.stall(at_bob, false);
        assert!(chunks(&simulation.take(at_bob)).is_empty(), "nothing more is sent");
        simulation.drop_link(at_bob);
        simulation.take(at_alice);
        simulation.expect(at_alice, &file.chunk(0), 450);
        assert_eq!(simulation.domain.post_counts().files_removed, 1);
    }
}

#[test]
fn nobody_else_gives_it_up() {
    let (mut simulation, (alice, at_alice), bob) = away(10);
    let file = File::new((&alice, &bob), 1, 2);
    file.upload(&mut simulation, at_alice);
    let (carol, at_carol) = simulation.enrol("carol");
    for line in [
        cancel(&carol, &bob.account, &file),
        cancel(&carol, &bob.device, &file),
        cancel(&carol, &alice.device, &file),
        verdict(&mut simulation, &File { to: &carol, from: &alice, ..file }, 250),
    ] {
        assert_eq!(codes(&mut simulation, at_carol, &line), [252], "{line}");
    }
    assert!(is_kept(&simulation, &file));
}

#[test]
fn what_is_not_taken_in_time_is_said_to_both() {
    let mut settings = Settings::defaults(DOMAIN);
    settings.spool.life_ms = 24 * 3_600_000;
    let (mut simulation, (alice, at_alice), bob) = away_with(11, settings);
    let file = File::new((&alice, &bob), 1, 3);
    file.upload(&mut simulation, at_alice);
    // Bob has seen the offer, and does not want it.
    let at_bob = simulation.log_in(&bob);
    let last = lines(&mut simulation, at_bob, 800);
    let number: u64 = Command::parse(last[0].as_bytes()).unwrap().need("H-Q").unwrap();
    simulation.say(at_bob, &format!("014 H-Q={number}"));
    for link in [at_alice, at_bob] {
        simulation.drop_link(link);
    }
    simulation.advance(SETTLING);
    // In steps: a clock that jumps is not believed.
    for _ in 0..24 * 60 - 11 {
        simulation.advance(Duration::from_secs(60));
    }
    assert!(is_kept(&simulation, &file));
    for _ in 0..2 {
        simulation.advance(Duration::from_secs(60));
    }
    assert!(!is_kept(&simulation, &file));
    assert_eq!(rows(&simulation, &file), (0, 0));
    assert_eq!(simulation.domain.post_counts().files_ended, 1);
    let ends = format!("805 TO {} FROM {DOMAIN} FID={} CODE=558 H-Q=", alice.device, file.id);
    let at_alice = simulation.log_in(&alice);
    let told = lines(&mut simulation, at_alice, 805);
    assert!(told.len() == 1 && told[0].starts_with(&ends), "{told:?}");
    let at_bob = simulation.log_in(&bob);
    assert_eq!(lines(&mut simulation, at_bob, 805).len(), 1);
}

#[test]
fn a_damaged_chunk_ends_the_file_and_is_said() {
    let (mut simulation, (alice, at_alice), bob) = away(12);
    let file = File::new((&alice, &bob), 1, 3);
    file.upload(&mut simulation, at_alice);
    simulation.put(file.label().chunk_row(1), vec![1, 2, 3]);
    let at_bob = simulation.log_in(&bob);
    assert_eq!(chunks(&simulation.say(at_bob, &file.accept(0, None))), [0]);
    simulation.advance(Duration::from_secs(1));
    assert_eq!(rows(&simulation, &file), (0, 0));
    let told = lines(&mut simulation, at_bob, 805);
    assert!(told.len() == 1 && told[0].contains(" CODE=451 "), "{told:?}");
    assert_eq!(lines(&mut simulation, at_alice, 805).len(), 1);
    assert_eq!(simulation.domain.post_counts().damaged, 1);
}

fn revoke(simulation: &mut Simulation, person: &Person, link: ConnectionId) {
    let record = Command::parse(person.record_line.as_bytes()).unwrap();
    let line = Command::builder(Code::REVOKE)
        .from(person.account.as_address())
        .parameter("KR", protocol::identifier::RecordName::from_octets(&record.statement_hash()))
        .parameter("DEV", "d1")
        .parameter("TS", simulation.now.timestamp.0)
        .parameter("MID", MessageId::from_octets(&[5; 16]))
        .parameter("H-ID", "r");
    let sign = |tbs: &[u8]| {
        use protocol::signature::Signer as _;
        Ok::<_, protocol::Error>(person.identity.sign(tbs)?)
    };
    let line = line.sign(&[], sign).unwrap();
    assert!(codes(simulation, link, &line).contains(&250));
}

#[test]
fn files_go_with_the_last_device_of_either_side() {
    let (mut simulation, (alice, at_alice), bob) = away(13);
    let file = File::new((&alice, &bob), 1, 3);
    file.upload(&mut simulation, at_alice);
    let at_bob = simulation.log_in(&bob);
    revoke(&mut simulation, &bob, at_bob);
    assert_eq!(rows(&simulation, &file), (0, 0), "at once");

    let (mut simulation, (alice, at_alice), bob) = away(14);
    let file = File::new((&alice, &bob), 1, 3);
    file.upload(&mut simulation, at_alice);
    revoke(&mut simulation, &alice, at_alice);
    assert!(is_kept(&simulation, &file));
    simulation.advance(SETTLING);
    assert_eq!(rows(&simulation, &file), (0, 0), "with the next sweep");
}

#[test]
fn a_removal_goes_on_after_a_crash_and_on_a_full_disk() {
    let (mut simulation, (alice, at_alice), bob) = away(15);
    let mut file = File::new((&alice, &bob), 1, 1);
    let chunks = CHUNKS_REMOVED_AT_ONCE + 2;
    file.shape = protocol::file::Shape::new(chunks * 1_024, 1_024).unwrap();
    file.upload(&mut simulation, at_alice);
    simulation.store.with(|store| store.hold(true));
    simulation.say(at_alice, &cancel(&alice, &bob.account, &file));
    // The mark becomes durable, and nothing else.
    simulation.store.with(|store| store.hold(false));
    simulation.domain.committed(simulation.now);
    simulation.crash();
    assert!(!is_kept(&simulation, &file));
    assert_eq!(rows(&simulation, &file).0, 1);
    simulation.store.with(|store| store.set_full(true));
    simulation.advance(SETTLING);
    assert_eq!(rows(&simulation, &file), (0, 0));
}

#[test]
fn a_removal_that_is_refused_is_tried_again() {
    let (mut simulation, (alice, at_alice), bob) = away(16);
    let file = File::new((&alice, &bob), 1, 3);
    file.upload(&mut simulation, at_alice);
    simulation.store.with(|store| store.hold(true));
    simulation.send(at_alice, &cancel(&alice, &bob.account, &file));
    simulation.store.with(|store| store.hold(false));
    simulation.store.set_busy(true);
    simulation.settle();
    assert_eq!(rows(&simulation, &file), (1, 3));
    simulation.store.set_busy(false);
    simulation.advance(Duration::from_secs(1));
    assert_eq!(rows(&simulation, &file), (0, 0));
}
