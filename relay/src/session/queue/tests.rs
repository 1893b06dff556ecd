//! Queues: acknowledgement with exceptions, slow readers, full queues, full disks.

use protocol::Code;

use super::super::ledger::{Talk, answer, friends, friends_with, numbered, queued};
use super::super::simulation::{DOMAIN, Simulation, code};
use super::super::{ConnectionId, Settings, limits};

/// More than the lines of 20,000 octets here have.
const LINE_OCTETS: usize = 30_000;

fn numbers(lines: &[String]) -> Vec<u64> {
    lines.iter().filter_map(|line| Some(numbered(line)?.0)).collect()
}

fn send_some(simulation: &mut Simulation, talk: &mut Talk<'_>, link: ConnectionId, count: usize) {
    for _ in 0..count {
        let (line, _) = talk.message(simulation);
        let code = answer(simulation, link, &line);
        assert!(matches!(code, 250 | 252), "{code}");
    }
}

#[test]
fn what_is_kept_comes_again_before_the_rest() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(1);
    let mut talk = Talk::new(&alice, &bob.account);
    send_some(&mut simulation, &mut talk, at_alice, 6);
    assert_eq!(numbers(&simulation.take(at_bob)), [1, 2, 3, 4, 5, 6]);
    for (line, expected) in [
        ("014 H-Q=4 KEEP=2,3 H-ID=a", 250),
        ("014 H-Q=4 KEEP=3,2 H-ID=a", 501),
        ("014 H-Q=4 KEEP=5 H-ID=a", 501),
        ("014 H-Q=7 H-ID=a", 501),
        ("014 H-Q=3 KEEP=2,3 H-ID=a", 250),
        ("014 H-Q=4 KEEP=1,3 H-ID=a", 250),
        ("014 H-ID=a", 501),
    ] {
        assert_eq!(answer(&mut simulation, at_bob, line), expected, "{line}");
    }
    simulation.crash();
    let at_bob = simulation.log_in(&bob);
    for after in [0, 4, 5, 6, 1_000] {
        let got = numbers(&simulation.say(at_bob, &format!("013 H-Q={after}")));
        let expected: Vec<u64> = [3, 5, 6].into_iter().filter(|n| *n == 3 || *n > after).collect();
        assert_eq!(got, expected, "after {after}");
    }
    let at_alice = simulation.log_in(&alice);
    send_some(&mut simulation, &mut talk, at_alice, 1);
    assert_eq!(numbers(&simulation.take(at_bob)), [7], "1,000 was never given");
    assert_eq!(answer(&mut simulation, at_bob, "014 H-Q=7 H-ID=b"), 250);
    assert!(numbers(&simulation.say(at_bob, "013 H-Q=0")).is_empty());
}

#[test]
fn as_many_as_allowed_are_kept_and_no_more() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(2);
    let mut talk = Talk::new(&alice, &bob.account);
    send_some(&mut simulation, &mut talk, at_alice, 65);
    simulation.take(at_bob);
    let list = |count: u64| (1..=count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let line = |count| format!("014 H-Q=65 KEEP={} H-ID=a", list(count));
    assert_eq!(answer(&mut simulation, at_bob, &line(65)), 501);
    assert_eq!(answer(&mut simulation, at_bob, &line(64)), 250);
    assert_eq!(numbers(&simulation.say(at_bob, "013 H-Q=65")).len(), 64);
}

#[test]
fn a_reader_that_never_reads_costs_no_more_than_its_outbox() {
    for outbox_octets_max in [128 << 10, 256 << 10, 512 << 10] {
        reads_never(outbox_octets_max);
    }
}

fn reads_never(outbox_octets_max: usize) {
    let settings = Settings { outbox_octets_max, ..Settings::defaults(DOMAIN) };
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends_with(3, settings);
    let mut talk = Talk::new(&alice, &bob.account);
    simulation.stall(at_bob, true);
    let body = vec![1; 20_000];
    let mut lines = Vec::new();
    for _ in 0..60 {
        let (line, _) = talk.begin(&mut simulation, Code::MESSAGE);
        let line = line.body(&body);
        answer(&mut simulation, at_alice, &line);
        lines.push(line);
        let octets = simulation.domain.connections[&at_bob].outbox_octets;
        assert!(octets < outbox_octets_max + LINE_OCTETS, "{octets}");
    }
    let mut got = queued(&mut simulation, at_bob);
    // The line that filled the outbox is the last.
    let given = got.iter().map(String::len).sum::<usize>();
    assert!(given < outbox_octets_max + LINE_OCTETS, "{given}");
    assert!(given + LINE_OCTETS > outbox_octets_max, "{given}");
    simulation.stall(at_bob, false);
    got.extend(queued(&mut simulation, at_bob));
    assert!(got == lines, "{} of {}", got.len(), lines.len());
    let (line, _) = talk.message(&mut simulation);
    let replayed = simulation.domain.post_counts().replayed;
    assert_eq!(answer(&mut simulation, at_alice, &line), 250);
    assert_eq!(queued(&mut simulation, at_bob), [line]);
    assert_eq!(simulation.domain.post_counts().replayed, replayed, "from memory again");
}

#[test]
fn nothing_overtakes_what_cannot_be_read_now() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(7);
    let mut talk = Talk::new(&alice, &bob.account);
    simulation.stall(at_bob, true);
    let mut lines = Vec::new();
    for _ in 0..12 {
        let (line, _) = talk.begin(&mut simulation, Code::MESSAGE);
        lines.push(line.body(&[1; 40_000]));
        answer(&mut simulation, at_alice, &lines[lines.len() - 1]);
    }
    let mut got = queued(&mut simulation, at_bob);
    assert!(got.len() < lines.len());
    simulation.store.set_unreadable(true);
    simulation.stall(at_bob, false);
    let (line, _) = talk.message(&mut simulation);
    assert_eq!(answer(&mut simulation, at_alice, &line), 252);
    lines.push(line);
    assert!(queued(&mut simulation, at_bob).is_empty());
    simulation.store.set_unreadable(false);
    simulation.advance(std::time::Duration::from_secs(1));
    got.extend(queued(&mut simulation, at_bob));
    assert!(got == lines, "{} of {}", got.len(), lines.len());
}

#[test]
fn a_client_that_reads_no_answers_is_closed() {
    let (mut simulation, (_, at_alice), _) = friends(4);
    simulation.stall(at_alice, true);
    for _ in 0..limits::OUTBOX_OCTETS_CLOSE / 10 {
        simulation.send(at_alice, "015");
        if simulation.domain.connections[&at_alice].is_closing {
            break;
        }
    }
    let octets = simulation.domain.connections[&at_alice].outbox_octets;
    assert!(octets <= limits::OUTBOX_OCTETS_CLOSE, "{octets}");
    assert!(simulation.domain.connections[&at_alice].is_closing);
    simulation.settle();
    let goodbye = simulation.take(at_alice).pop().unwrap();
    assert_eq!(code(&goodbye), 421, "{goodbye}");
    assert!(simulation.is_closed(at_alice));
}

#[test]
fn a_full_queue_is_refused_and_empties() {
    let mut settings = Settings::defaults(DOMAIN);
    settings.spool.lines_max = 4;
    let mut simulation = Simulation::with_settings(5, settings);
    let (alice, at_alice) = simulation.enrol("alice");
    let (bob, at_bob) = simulation.enrol("bob");
    let (carol, at_carol) = simulation.enrol("carol");
    super::super::ledger::befriend(&mut simulation, (&alice, at_alice), (&bob, at_bob));
    simulation.say(at_bob, "014 H-Q=2");
    let room = simulation.domain.post.spool.standing(&simulation.store, &bob.device).unwrap();
    let mut talk = Talk::new(&alice, &bob.account);
    let mut stranger = Talk::new(&carol, &bob.account);
    let free = 4 - room.held.rows;
    for count in 0..free {
        if count < 2 {
            let (line, _) = stranger.message(&mut simulation);
            assert_eq!(answer(&mut simulation, at_carol, &line), 252);
        } else {
            send_some(&mut simulation, &mut talk, at_alice, 1);
        }
    }
    let (line, _) = talk.message(&mut simulation);
    assert_eq!(answer(&mut simulation, at_alice, &line), 452);
    let (over, _) = stranger.message(&mut simulation);
    assert_eq!(answer(&mut simulation, at_carol, &over), 252, "strangers are told nothing");
    let got = numbers(&simulation.say(at_bob, "013 H-Q=0"));
    assert_eq!(got.len() as u64, free + room.held.rows);
    let ask = format!("014 H-Q={} H-ID=a", got[0]);
    assert_eq!(answer(&mut simulation, at_bob, &ask), 250);
    assert_eq!(answer(&mut simulation, at_alice, &line), 250);
    assert_eq!(queued(&mut simulation, at_bob), [line]);
}

#[test]
fn an_acknowledgement_makes_room_on_a_full_disk() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(6);
    let mut talk = Talk::new(&alice, &bob.account);
    send_some(&mut simulation, &mut talk, at_alice, 5);
    simulation.take(at_bob);
    let before = simulation.store.with(|store| store.row_count());
    simulation.store.with(|store| store.set_full(true));
    assert_eq!(answer(&mut simulation, at_bob, "014 H-Q=5 KEEP=2 H-ID=a"), 452);
    let after = simulation.store.with(|store| store.row_count());
    assert_eq!(before - after, 3, "1, 3 and 4 are gone, 2 is kept, 5 bears the number");
    simulation.crash();
    let at_bob = simulation.log_in(&bob);
    assert_eq!(numbers(&simulation.say(at_bob, "013 H-Q=0")), [2, 5]);
    let at_alice = simulation.log_in(&alice);
    send_some(&mut simulation, &mut talk, at_alice, 1);
    assert_eq!(numbers(&simulation.take(at_bob)), [6]);
    assert_eq!(answer(&mut simulation, at_bob, "014 H-Q=6 H-ID=a"), 250);
    assert_eq!(
        simulation.say(at_bob, "013 H-Q=0").iter().map(|l| code(l)).collect::<Vec<_>>(),
        [250]
    );
}
