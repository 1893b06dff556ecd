//! Offers to people who are away, their chunks, the limits, and what strangers learn: nothing.

use std::time::Duration;

use protocol::file::Shape;
use protocol::identifier::{FileId, KeyCommitment, TreeRoot};
use protocol::timestamp::Timestamp;
use protocol::{AddressBuf, Code, Command};

use super::super::ledger::{Talk, befriend};
use super::super::simulation::{DOMAIN, Person, Simulation, code, parameter};
use super::super::{ConnectionId, Settings};
use crate::depot::{Card, Label, limits, sealed_octets};
use crate::store::Fault;

pub(in super::super) const CHUNK: u32 = 4_096;

/// A file on its way from one person to another.
pub(in super::super) struct File<'a> {
    pub(in super::super) from: &'a Person,
    pub(in super::super) to: &'a Person,
    pub(in super::super) id: FileId,
    pub(in super::super) shape: Shape,
}

impl<'a> File<'a> {
    /// A file of some chunks, the last of which is short.
    pub(in super::super) fn new(
        (from, to): (&'a Person, &'a Person),
        number: u8,
        chunks: u64,
    ) -> Self {
        let size = chunks * u64::from(CHUNK) - 100;
        let shape = Shape::new(size, CHUNK).unwrap();
        Self { from, to, id: FileId::from_octets(&[number; 16]), shape }
    }

    pub(in super::super) fn label(&self) -> Label {
        Label::new(self.to.account.as_address(), self.from.device.as_address(), self.id)
    }

    fn octets(&self) -> u64 {
        let (label, shape, expires_at) = (self.label(), self.shape, Timestamp(0));
        Card { label, shape, next: 0, expires_at, is_doomed: false }.octets()
    }

    pub(in super::super) fn offer(&self, simulation: &mut Simulation) -> String {
        let (line, _) = Talk::new(self.from, &self.to.account).begin(simulation, Code::FILE_OFFER);
        let line = line
            .parameter("FID", self.id)
            .parameter("SIZE", self.shape.size_octets())
            .parameter("CHUNK", self.shape.chunk_octets())
            .parameter("ROOT", TreeRoot::from_octets(&[2; 32]))
            .parameter("KC", KeyCommitment::from_octets(&[2; 32]))
            .parameter("H-ID", "offer");
        self.from.sign(line, b"manifest")
    }

    pub(in super::super) fn sealed(&self, number: u64) -> Vec<u8> {
        let octets = sealed_octets(self.shape, number).unwrap_or(CHUNK as usize + 16);
        vec![number as u8 ^ self.id.as_str().as_bytes()[0]; octets]
    }

    pub(in super::super) fn chunk(&self, number: u64) -> String {
        self.chunk_of(number, &self.sealed(number))
    }

    fn chunk_of(&self, number: u64, sealed: &[u8]) -> String {
        self.from
            .line_to(Code::FILE_CHUNK, &self.to.account)
            .parameter("FID", self.id)
            .parameter("N", number)
            .parameter("H-ID", format!("n{number}"))
            .body(sealed)
    }

    pub(in super::super) fn finish(&self, simulation: &mut Simulation) -> String {
        let line = self
            .from
            .line_to(Code::FILE_FINISH, &self.to.account)
            .parameter("FID", self.id)
            .parameter("ROOT", TreeRoot::from_octets(&[2; 32]))
            .parameter("SIZE", self.shape.size_octets())
            .parameter("TS", simulation.now.timestamp.0)
            .parameter("MID", simulation.message_id())
            .parameter("H-ID", "end");
        self.from.sign(line, &[])
    }

    /// 801.
    pub(in super::super) fn accept(&self, from: u64, to: Option<u64>) -> String {
        self.to
            .line_to(Code::FILE_ACCEPT, &self.from.device)
            .parameter("FID", self.id)
            .parameter("FROM-CHUNK", from)
            .parameter_if("TO-CHUNK", to)
            .parameter("H-ID", "accept")
            .finish()
    }

    /// Offers the file and sends all its chunks, which must be kept.
    pub(in super::super) fn upload(&self, simulation: &mut Simulation, link: ConnectionId) {
        let offer = self.offer(simulation);
        assert_eq!(codes(simulation, link, &offer), [354]);
        for number in 0..self.shape.chunk_count() {
            assert_eq!(codes(simulation, link, &self.chunk(number)), [250], "{number}");
        }
    }
}

/// The codes of the replies to a line.
pub(in super::super) fn codes(
    simulation: &mut Simulation,
    link: ConnectionId,
    line: &str,
) -> Vec<u16> {
    let lines = simulation.say(link, line);
    replies(&lines).iter().map(|line| code(line)).collect()
}

/// The replies among lines.
pub(in super::super) fn replies(lines: &[String]) -> Vec<String> {
    lines.iter().filter(|line| (200..600).contains(&code(line))).cloned().collect()
}

/// Bob has approved alice, who is here, and is away.
pub(in super::super) fn away(seed: u64) -> (Simulation, (Person, ConnectionId), Person) {
    away_with(seed, Settings::defaults(DOMAIN))
}

pub(in super::super) fn away_with(
    seed: u64,
    settings: Settings,
) -> (Simulation, (Person, ConnectionId), Person) {
    let mut simulation = Simulation::with_settings(seed, settings);
    let (alice, at_alice) = simulation.enrol("alice");
    let (bob, at_bob) = simulation.enrol("bob");
    befriend(&mut simulation, (&alice, at_alice), (&bob, at_bob));
    simulation.drop_link(at_bob);
    simulation.take(at_alice);
    (simulation, (alice, at_alice), bob)
}

/// The numbers of the chunks among lines.
pub(in super::super) fn chunks(lines: &[String]) -> Vec<u64> {
    let commands = lines.iter().filter_map(|line| Command::parse(line.as_bytes()).ok());
    let chunks = commands.filter(|command| command.code() == Code::FILE_CHUNK);
    chunks.map(|command| command.need("N").unwrap()).collect()
}

#[test]
fn a_file_for_somebody_who_is_away_is_kept_and_the_answers_survive_a_crash() {
    let (mut simulation, (alice, mut at_alice), bob) = away(1);
    let file = File::new((&alice, &bob), 1, 3);
    let offer = file.offer(&mut simulation);
    let expected = "354 H-ID=offer TO-CHUNK=3 ";
    for is_again in [false, true, false] {
        let answers = replies(&simulation.say(at_alice, &offer));
        assert_eq!(answers.len(), 1);
        assert!(answers[0].starts_with(expected), "{is_again} {answers:?}");
        if is_again {
            simulation.crash();
            at_alice = simulation.log_in(&alice);
        }
    }
    let ahead = simulation.expect(at_alice, &file.chunk(1), 450);
    assert_eq!(parameter(&ahead, "FROM-CHUNK").as_deref(), Some("0"));
    for _ in 0..2 {
        simulation.expect(at_alice, &file.chunk(0), 250);
        simulation.expect(at_alice, &file.chunk_of(0, &file.sealed(1)), 554);
        simulation.crash();
        at_alice = simulation.log_in(&alice);
        let ahead = simulation.expect(at_alice, &file.chunk(2), 450);
        assert_eq!(parameter(&ahead, "FROM-CHUNK").as_deref(), Some("1"));
    }
    simulation.expect(at_alice, &file.chunk(1), 250);
    let end = file.finish(&mut simulation);
    let missing = simulation.expect(at_alice, &end, 450);
    assert_eq!(parameter(&missing, "FROM-CHUNK").as_deref(), Some("2"));
    simulation.expect(at_alice, &file.chunk(3), 501);
    simulation.expect(at_alice, &file.chunk_of(2, &[0; 100]), 501);
    let unasked = file.chunk(2).replace(" H-ID=n2", "");
    assert!(codes(&mut simulation, at_alice, &unasked).is_empty(), "answered only if asked");
    simulation.expect(at_alice, &end, 252);
    let counts = simulation.domain.post_counts();
    assert_eq!(counts.chunks_kept, 2, "since the last crash");
}

#[test]
fn another_file_under_a_used_id_is_not_kept() {
    let (mut simulation, (alice, at_alice), bob) = away(2);
    let file = File::new((&alice, &bob), 1, 3);
    let offer = file.offer(&mut simulation);
    simulation.expect(at_alice, &offer, 354);
    let offer = file.offer(&mut simulation);
    simulation.expect(at_alice, &offer, 252);
}

#[test]
fn who_is_here_gets_it_from_the_sender() {
    let (mut simulation, (alice, at_alice), bob) = away(3);
    let at_bob = simulation.log_in(&bob);
    let file = File::new((&alice, &bob), 1, 3);
    let offer = file.offer(&mut simulation);
    simulation.expect(at_alice, &offer, 252);
    simulation.say(at_bob, "013 H-Q=0");
    let offer = file.offer(&mut simulation);
    simulation.expect(at_alice, &offer, 250);
    simulation.expect(at_alice, &file.chunk(0), 252);
    assert_eq!(chunks(&simulation.take(at_bob)), [0]);
    assert_eq!(simulation.domain.post_counts().files_kept, 0);
}

#[test]
fn room_at_n_and_one_more() {
    for (missing, expected) in [(0, 354), (1, 252)] {
        let [alice, bob] = ["alice", "bob"].map(Person::new);
        let file = File::new((&alice, &bob), 1, 3);
        let mut settings = Settings::defaults(DOMAIN);
        settings.depot.octets_max = file.octets() - missing;
        let (mut simulation, (_, at_alice), _) = away_with(4, settings);
        let offer = file.offer(&mut simulation);
        let answer = simulation.expect(at_alice, &offer, expected);
        assert_eq!(answer.contains("no room"), missing > 0, "{answer}");
        let chunk = file.chunk(0);
        simulation.expect(at_alice, &chunk, if missing > 0 { 450 } else { 250 });
    }
}

#[test]
fn files_for_one_account_at_n_and_one_more() {
    let (mut simulation, (alice, at_alice), bob) = away(5);
    for number in 0..=limits::FILES_KEPT_MAX {
        let file = File::new((&alice, &bob), number as u8, 1);
        let offer = file.offer(&mut simulation);
        let expected = if number < limits::FILES_KEPT_MAX { 354 } else { 252 };
        simulation.expect(at_alice, &offer, expected);
    }
}

#[test]
fn strangers_learn_nothing() {
    let (mut simulation, (alice, _), bob) = away(6);
    let (carol, at_carol) = simulation.enrol("carol");
    let nobody = Person::new("nobody");
    let rows = |simulation: &mut Simulation| simulation.store.with(|store| store.row_count());
    let mut answers = Vec::new();
    // Away, here, blocking, and not there at all.
    for state in 0..4 {
        let to = if state == 3 { &nobody } else { &bob };
        if state == 1 {
            let at_bob = simulation.log_in(&bob);
            simulation.say(at_bob, "013 H-Q=0");
        }
        if state == 2 {
            let at_bob = simulation.log_in(&bob);
            let block = bob.line_to(Code::BLOCK, &carol.account).parameter("H-ID", "b");
            simulation.say(at_bob, &block.finish());
            simulation.drop_link(at_bob);
        }
        let file = File::new((&carol, to), 1, 1);
        let offer = file.offer(&mut simulation);
        answers.push(replies(&simulation.say(at_carol, &offer)));
        let before = rows(&mut simulation);
        answers.push(replies(&simulation.say(at_carol, &file.chunk(0))));
        assert_eq!(rows(&mut simulation), before);
        let end = file.finish(&mut simulation);
        answers.push(replies(&simulation.say(at_carol, &end)));
    }
    for state in answers.chunks(3) {
        assert_eq!(state, &answers[..3]);
        assert!(state.iter().all(|lines| lines.len() == 1 && code(&lines[0]) == 252));
    }
    assert_eq!(simulation.domain.post_counts().files_kept, 0);
    // Nor does somebody who is a friend no longer.
    let (at_bob, at_alice) = (simulation.log_in(&bob), simulation.log_in(&alice));
    simulation.drop_link(at_bob);
    let file = File::new((&alice, &bob), 9, 2);
    let offer = file.offer(&mut simulation);
    simulation.expect(at_alice, &offer, 354);
    let at_bob = simulation.log_in(&bob);
    let deny = bob.line_to(Code::DENY, &alice.account).parameter("H-ID", "d").finish();
    assert!(codes(&mut simulation, at_bob, &deny).contains(&250));
    simulation.drop_link(at_bob);
    let before = rows(&mut simulation);
    simulation.take(at_alice);
    simulation.expect(at_alice, &file.chunk(0), 252);
    assert_eq!(rows(&mut simulation), before);
    let end = file.finish(&mut simulation);
    simulation.expect(at_alice, &end, 252);
}

#[test]
fn chunks_on_their_way_to_the_disk_at_n_and_one_more() {
    let (mut simulation, (alice, at_alice), bob) = away(7);
    let file = File::new((&alice, &bob), 1, 40);
    let offer = file.offer(&mut simulation);
    simulation.expect(at_alice, &offer, 354);
    simulation.store.with(|store| store.hold(true));
    let window = limits::CHUNKS_STORING_MAX as u64;
    for number in 0..window {
        assert!(codes(&mut simulation, at_alice, &file.chunk(number)).is_empty(), "{number}");
    }
    simulation.expect(at_alice, &file.chunk(window), 450);
    simulation.store.with(|store| store.hold(false));
    simulation.settle();
    let answers = simulation.take(at_alice);
    assert_eq!(answers.len() as u64, window);
    assert!(answers.iter().all(|line| line.starts_with("250 H-ID=n")), "{answers:?}");
    simulation.expect(at_alice, &file.chunk(window), 250);
}

#[test]
fn what_the_disk_refuses_is_not_called_kept() {
    let (mut simulation, (alice, mut at_alice), bob) = away(8);
    let file = File::new((&alice, &bob), 1, 10);
    simulation.store.with(|store| store.set_full(true));
    let offer = file.offer(&mut simulation);
    simulation.expect(at_alice, &offer, 452);
    simulation.store.with(|store| store.set_full(false));
    simulation.expect(at_alice, &offer, 354);
    simulation.store.with(|store| store.set_full(true));
    simulation.expect(at_alice, &file.chunk(0), 452);
    simulation.store.with(|store| store.set_full(false));
    simulation.store.with(|store| store.set_key_away(Some(Duration::from_secs(3))));
    simulation.expect(at_alice, &file.chunk(0), 451);
    simulation.store.with(|store| store.set_key_away(None));
    simulation.store.set_busy(true);
    simulation.expect(at_alice, &file.chunk(0), 450);
    simulation.store.set_busy(false);
    simulation.expect(at_alice, &file.chunk(0), 250);
    for (number, fault) in [(1, Fault::UnknownDone), (2, Fault::UnknownUndone)] {
        simulation.store.with(|store| store.fail_next(fault));
        let told = codes(&mut simulation, at_alice, &file.chunk(number));
        assert_eq!(told, [421], "neither yes nor no");
        simulation.store.with(|store| store.reopen());
        at_alice = simulation.log_in(&alice);
        simulation.expect(at_alice, &file.chunk(number), 250);
        let ahead = simulation.expect(at_alice, &file.chunk(number + 2), 450);
        assert_eq!(parameter(&ahead, "FROM-CHUNK"), Some((number + 1).to_string()));
    }
}

#[test]
fn offers_that_are_not_taken_leave_no_room_set_aside() {
    let [alice, bob] = ["alice", "bob"].map(Person::new);
    let file = File::new((&alice, &bob), 1, 3);
    let mut settings = Settings::defaults(DOMAIN);
    settings.depot.octets_max = file.octets();
    settings.spool.lines_max = 3;
    let (mut simulation, (_, at_alice), bob) = away_with(9, settings);
    let mut talk = Talk::new(&alice, &bob.account);
    while let (line, _) = talk.message(&mut simulation)
        && codes(&mut simulation, at_alice, &line) == [252]
    {}
    let offer = file.offer(&mut simulation);
    simulation.expect(at_alice, &offer, 452);
    let at_bob = simulation.log_in(&bob);
    let got = simulation.say(at_bob, "013 H-Q=0");
    let numbers = got.iter().filter_map(|line| Command::parse(line.as_bytes()).ok());
    let last: u64 = numbers.filter_map(|it| it.need("H-Q").ok()).max().unwrap();
    simulation.say(at_bob, &format!("014 H-Q={last}"));
    simulation.drop_link(at_bob);
    simulation.take(at_alice);
    simulation.expect(at_alice, &offer, 354);
}

/// Everything there is at once: whatever was called kept arrives as it was, in whatever way the
/// store, the links and the relay fail.
#[test]
fn whatever_fails_a_file_that_was_called_kept_arrives() {
    for seed in 0..60 {
        run(seed);
    }
}

fn run(seed: u64) {
    let (mut simulation, (alice, link), bob) = away(1_000 + seed);
    let file = File::new((&alice, &bob), 1, 30);
    let offer = file.offer(&mut simulation);
    simulation.expect(link, &offer, 354);
    let mut uploader = Uploader { link: Some(link), next: 0, kept: 0 };
    let mut reader = Reader { link: None, next: 0 };
    let mut is_held = false;
    for _ in 0..400 {
        match simulation.below(100) {
            0..=44 => uploader.send(&mut simulation, &file),
            45..=49 => uploader.lose(&mut simulation),
            50..=59 => uploader.come(&mut simulation, &alice),
            60..=64 => reader.lose(&mut simulation),
            65..=74 => reader.come(&mut simulation, &file),
            75..=79 => {
                is_held = !is_held;
                simulation.store.with(|store| store.hold(is_held));
            }
            80 => {
                is_held = false;
                simulation.crash();
                uploader.link = None;
                reader.link = None;
            }
            81..=83 => {
                let done = simulation.below(2) == 0;
                let fault = if done { Fault::UnknownDone } else { Fault::UnknownUndone };
                simulation.store.with(|store| store.fail_next(fault));
            }
            84..=86 => simulation.store.with(|store| store.set_full(true)),
            87..=88 => simulation.store.set_busy(true),
            89 => simulation.store.set_unreadable(true),
            90..=95 => heal(&mut simulation),
            _ => simulation.advance(Duration::from_secs(5)),
        }
        simulation.settle();
        uploader.hear(&mut simulation, &file);
        reader.hear(&mut simulation, &file);
    }
    simulation.store.with(|store| store.hold(false));
    for _ in 0..200 {
        heal(&mut simulation);
        uploader.come(&mut simulation, &alice);
        reader.come(&mut simulation, &file);
        uploader.send(&mut simulation, &file);
        simulation.advance(Duration::from_secs(1));
        uploader.hear(&mut simulation, &file);
        reader.hear(&mut simulation, &file);
    }
    let count = file.shape.chunk_count();
    assert_eq!((uploader.kept, reader.next), (count, count), "seed {seed}");
}

fn heal(simulation: &mut Simulation) {
    simulation.store.set_unreadable(false);
    simulation.store.set_busy(false);
    simulation.store.with(|store| {
        store.reopen();
        store.set_full(false);
    });
}

/// Sends chunks in a window, and goes back where it is told to.
struct Uploader {
    link: Option<ConnectionId>,
    next: u64,
    /// Chunks below were answered 250, so they must never be asked for again.
    kept: u64,
}

impl Uploader {
    fn come(&mut self, simulation: &mut Simulation, alice: &Person) {
        if self.link.is_none() {
            simulation.store.set_unreadable(false);
            self.link = Some(simulation.log_in(alice));
            self.next = simulation.below(self.kept + 1);
        }
    }

    fn lose(&mut self, simulation: &mut Simulation) {
        if let Some(link) = self.link.take() {
            simulation.drop_link(link);
        }
    }

    fn send(&mut self, simulation: &mut Simulation, file: &File<'_>) {
        let Some(link) = self.link else { return };
        if self.next < file.shape.chunk_count() {
            simulation.send(link, &file.chunk(self.next));
            self.next += 1;
        }
    }

    fn hear(&mut self, simulation: &mut Simulation, file: &File<'_>) {
        let Some(link) = self.link else { return };
        let mut kept = self.kept;
        for line in replies(&simulation.take(link)) {
            let number = line.split(" H-ID=n").nth(1).and_then(|it| it.split(' ').next());
            let Some(number) = number.and_then(|it| it.parse::<u64>().ok()) else { continue };
            match code(&line) {
                250 => kept = kept.max(number + 1),
                450..=452 => {
                    let first = parameter(&line, "FROM-CHUNK").map(|it| it.parse().unwrap());
                    assert!(first.is_none_or(|first: u64| first >= self.kept), "{line}");
                    self.next = self.next.min(first.unwrap_or(number));
                }
                _ => panic!("{line}"),
            }
        }
        assert!(kept <= file.shape.chunk_count());
        self.kept = kept;
        if simulation.is_closed(link) {
            self.link = None;
        }
    }
}

/// Takes chunks in order; each must be the one that was sent.
struct Reader {
    link: Option<ConnectionId>,
    next: u64,
}

impl Reader {
    fn come(&mut self, simulation: &mut Simulation, file: &File<'_>) {
        simulation.store.set_unreadable(false);
        let link = match self.link {
            Some(link) => link,
            None => simulation.log_in(file.to),
        };
        self.link = Some(link);
        simulation.send(link, &file.accept(self.next, None));
    }

    fn lose(&mut self, simulation: &mut Simulation) {
        if let Some(link) = self.link.take() {
            simulation.drop_link(link);
        }
    }

    fn hear(&mut self, simulation: &mut Simulation, file: &File<'_>) {
        let Some(link) = self.link else { return };
        for line in simulation.take(link) {
            let Ok(command) = Command::parse(line.as_bytes()) else { continue };
            if command.code() != Code::FILE_CHUNK {
                continue;
            }
            let number: u64 = command.need("N").unwrap();
            assert_eq!(command.body(), file.sealed(number));
            assert_eq!(command.to(), Some(file.to.account.as_address()));
            assert_eq!(
                command.from().map(|it| it.to_buf()),
                Some(AddressBuf::clone(&file.from.device))
            );
            if number == self.next {
                self.next += 1;
            }
            assert!(number < self.next, "chunks do not jump ahead");
        }
        if simulation.is_closed(link) {
            self.link = None;
        }
    }
}
