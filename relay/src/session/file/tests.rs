//! Files: chunks past the store and into queues, their limits, and what stays in order.

use protocol::identifier::FileId;
use protocol::{AddressBuf, Code};

use super::super::ledger::{Talk, answer, friends, numbered, queued};
use super::super::simulation::{Person, Simulation, code};
use super::super::{ConnectionId, limits};

const CHUNK_OCTETS: usize = 4_096;

fn chunk(from: &Person, to: &Person, number: u64, octets: usize) -> String {
    chunk_to(from, &to.device, number, octets)
}

fn chunk_to(from: &Person, to: &AddressBuf, number: u64, octets: usize) -> String {
    from.line_to(Code::FILE_CHUNK, to)
        .parameter("FID", FileId::from_octets(&[1; 16]))
        .parameter("N", number)
        .parameter("H-ID", format!("n{number}"))
        .body(&vec![7; octets])
}

fn finish(simulation: &mut Simulation, from: &Person, to: &Person) -> String {
    let id = simulation.message_id();
    let line = from
        .line_to(Code::FILE_FINISH, &to.device)
        .parameter("FID", FileId::from_octets(&[1; 16]))
        .parameter("ROOT", protocol::identifier::TreeRoot::from_octets(&[2; 32]))
        .parameter("SIZE", 10)
        .parameter("TS", simulation.now.timestamp.0)
        .parameter("MID", id);
    from.sign(line, &[])
}

fn chunks(lines: &[String]) -> Vec<u64> {
    let commands = lines.iter().filter_map(|line| protocol::Command::parse(line.as_bytes()).ok());
    let chunks = commands.filter(|command| command.code() == Code::FILE_CHUNK);
    chunks.map(|command| command.need("N").unwrap()).collect()
}

fn codes(simulation: &mut Simulation, link: ConnectionId, line: &str) -> Vec<u16> {
    let lines = simulation.say(link, line);
    lines.iter().map(|line| code(line)).filter(|code| (200..600).contains(code)).collect()
}

#[test]
fn chunks_pass_without_being_stored() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(1);
    let rows = simulation.store.with(|store| store.row_count());
    for number in 0..10 {
        let line = chunk(&alice, &bob, number, CHUNK_OCTETS);
        assert_eq!(codes(&mut simulation, at_alice, &line), [252]);
        assert_eq!(chunks(&simulation.take(at_bob)), [number]);
    }
    let unasked = chunk(&alice, &bob, 10, CHUNK_OCTETS).replace(" H-ID=n10", "");
    assert!(codes(&mut simulation, at_alice, &unasked).is_empty(), "answered only if asked");
    assert_eq!(chunks(&simulation.take(at_bob)), [10]);
    assert_eq!(simulation.store.with(|store| store.row_count()), rows);
}

#[test]
fn one_chunk_is_in_front_of_a_message_and_the_last_line_behind_them_all() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(2);
    simulation.stall(at_bob, true);
    for number in 0..=limits::CHUNKS_WAITING_MAX as u64 {
        let line = chunk(&alice, &bob, number, CHUNK_OCTETS);
        let expected = if number == 0 { vec![252] } else { vec![] };
        assert_eq!(codes(&mut simulation, at_alice, &line), expected, "{number}");
    }
    let over = chunk(&alice, &bob, 99, CHUNK_OCTETS);
    assert_eq!(codes(&mut simulation, at_alice, &over), [450]);
    let last = finish(&mut simulation, &alice, &bob);
    assert_eq!(codes(&mut simulation, at_alice, &last), [450]);
    let (message, _) = Talk::new(&alice, &bob.account).message(&mut simulation);
    assert_eq!(codes(&mut simulation, at_alice, &message), [250]);
    let got = simulation.take(at_bob);
    assert_eq!(chunks(&got), [0]);
    assert_eq!(numbered(&got[1]).map(|(_, line)| line), Some(message));
    let octets = simulation.domain.post.waiting_octets;
    assert!(octets > limits::CHUNKS_WAITING_MAX * CHUNK_OCTETS, "{octets}");
    simulation.stall(at_bob, false);
    let expected: Vec<u64> = (1..=limits::CHUNKS_WAITING_MAX as u64).collect();
    assert_eq!(chunks(&simulation.take(at_bob)), expected);
    assert_eq!(simulation.domain.post.waiting_octets, 0);
    let paced = simulation.take(at_alice);
    assert!(paced.iter().all(|line| line.starts_with("252 H-ID=n")), "{paced:?}");
    assert_eq!(paced.len(), limits::CHUNKS_WAITING_MAX);
    assert_eq!(codes(&mut simulation, at_alice, &last), [250]);
}

#[test]
fn waiting_chunks_go_with_a_cancel_or_the_link() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(3);
    let cancel = alice
        .line_to(Code::FILE_CANCEL, &bob.device)
        .parameter("FID", FileId::from_octets(&[1; 16]))
        .finish();
    simulation.stall(at_bob, true);
    for number in 0..3 {
        codes(&mut simulation, at_alice, &chunk(&alice, &bob, number, CHUNK_OCTETS));
    }
    assert_eq!(codes(&mut simulation, at_alice, &cancel), [250]);
    assert_eq!(simulation.domain.post.waiting_octets, 0);
    for number in 0..3 {
        codes(&mut simulation, at_alice, &chunk(&alice, &bob, number, CHUNK_OCTETS));
    }
    assert_ne!(simulation.domain.post.waiting_octets, 0);
    simulation.take(at_alice);
    simulation.drop_link(at_bob);
    assert_eq!(simulation.domain.post.waiting_octets, 0);
    let told = simulation.take(at_alice);
    let told: Vec<u16> = told.iter().map(|l| code(l)).filter(|code| *code != 121).collect();
    assert!(told.len() >= 2 && told.iter().all(|code| *code == 450), "{told:?}");
}

#[test]
fn chunks_for_a_device_that_is_away_or_not_ready_stay_with_their_sender() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(4);
    simulation.drop_link(at_bob);
    let rows = simulation.store.with(|store| store.row_count());
    for to in [&bob.device, &bob.account] {
        let line = chunk_to(&alice, to, 0, CHUNK_OCTETS);
        let lines = simulation.say(at_alice, &line);
        let away = format!("450 H-ID=n0 RETRY={} ", limits::AWAY_RETRY_SECONDS);
        assert!(lines.iter().any(|line| line.starts_with(&away)), "{lines:?}");
    }
    assert_eq!(simulation.store.with(|store| store.row_count()), rows);
    let at_bob = simulation.log_in(&bob);
    let line = chunk(&alice, &bob, 0, CHUNK_OCTETS);
    assert_eq!(codes(&mut simulation, at_alice, &line), [450], "he has not taken up his queue");
    simulation.say(at_bob, "013 H-Q=0");
    assert_eq!(codes(&mut simulation, at_alice, &line), [252]);
    assert_eq!(chunks(&simulation.take(at_bob)), [0]);
}

#[test]
fn files_that_are_too_large_and_chunks_of_strangers() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(6);
    let (line, _) = Talk::new(&alice, &bob.account).begin(&mut simulation, Code::FILE_OFFER);
    let offer = |size: u64| {
        let line = line
            .clone()
            .parameter("FID", FileId::from_octets(&[1; 16]))
            .parameter("SIZE", size)
            .parameter("CHUNK", 4_096)
            .parameter("ROOT", protocol::identifier::TreeRoot::from_octets(&[2; 32]))
            .parameter("KC", protocol::identifier::KeyCommitment::from_octets(&[2; 32]));
        alice.sign(line, b"manifest")
    };
    let max = simulation.settings.file_octets_max;
    assert_eq!(answer(&mut simulation, at_alice, &offer(max + 1)), 552);
    let too_many = offer(max).replace("CHUNK=4096", "CHUNK=1000");
    assert_eq!(answer(&mut simulation, at_alice, &too_many), 501);
    let unsigned = offer(max).replace("SIZE=", "PREV=1 SIZE=");
    assert_eq!(answer(&mut simulation, at_alice, &unsigned), 553);
    assert_eq!(answer(&mut simulation, at_alice, &offer(max)), 250);
    assert_eq!(queued(&mut simulation, at_bob).len(), 1);
    let (carol, at_carol) = simulation.enrol("carol");
    assert_eq!(codes(&mut simulation, at_carol, &chunk(&carol, &bob, 0, 100)), [252]);
    assert!(chunks(&simulation.take(at_bob)).is_empty());
}
