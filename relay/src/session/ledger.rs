//! The ledger: seeded random runs with every fault there is, after which the books must balance.
//!
//! People send, repeat, acknowledge, lose links and come back, while commits are held, fail, or
//! end unknown, the disk is full, the token away, readers stall and the relay crashes. At the end
//! everything heals. The ledger then proves: every line answered 250 or 252 reached every device
//! it was for; per sender and recipient they came in the order of their answers; a number of a
//! queue was never sent with two lines; no link was given more than its outbox may hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use protocol::identifier::{GenerationId, MessageId, SessionId};
use protocol::{AddressBuf, Code, Command, CommandBuilder};

use super::simulation::{DOMAIN, Person, Simulation, code};
use super::{ConnectionId, Settings};
use crate::store::Fault;

/// A session between two people, as far as the relay sees it.
pub(super) struct Talk<'a> {
    pub(super) from: &'a Person,
    pub(super) to: AddressBuf,
    pub(super) session: SessionId,
    pub(super) sequence: u64,
}

impl<'a> Talk<'a> {
    pub(super) fn new(from: &'a Person, to: &AddressBuf) -> Self {
        let session = SessionId::from_octets(&[7; 16]);
        Self { from, to: to.clone(), session, sequence: 0 }
    }

    /// Begins the next sealed line.
    pub(super) fn begin(
        &mut self,
        simulation: &mut Simulation,
        code: Code,
    ) -> (CommandBuilder, MessageId) {
        self.sequence += 1;
        let id = simulation.message_id();
        let line = self
            .from
            .line_to(code, &self.to)
            .parameter("SID", self.session)
            .parameter("GEN", GenerationId::from_octets(&[9; 32]))
            .parameter("SEQ", self.sequence)
            .parameter("TS", simulation.now.timestamp.0)
            .parameter("MID", id);
        (line, id)
    }

    /// The next message, unsigned; its body tells its sequence.
    pub(super) fn message(&mut self, simulation: &mut Simulation) -> (String, MessageId) {
        let (line, id) = self.begin(simulation, Code::MESSAGE);
        (line.body(format!("message {}", self.sequence).as_bytes()), id)
    }
}

/// A line of a queue as a device got it: its number, and the line without hop parameters.
pub(super) fn numbered(line: &str) -> Option<(u64, String)> {
    let command = Command::parse(line.as_bytes()).ok()?;
    let number = command.parameters().number("H-Q").ok()??;
    let mut bare = Vec::new();
    command.forward(&[], &mut bare);
    Some((number, String::from_utf8(bare).unwrap().trim_end().to_owned()))
}

/// Both approve each other.
pub(super) fn befriend(
    simulation: &mut Simulation,
    (one, at_one): (&Person, ConnectionId),
    (other, at_other): (&Person, ConnectionId),
) {
    for (from, link, to) in [(one, at_one, other), (other, at_other, one)] {
        let line = from.line_to(Code::APPROVE, &to.account).parameter("H-ID", "approve").finish();
        let answers = simulation.say(link, &line);
        assert!(answers.iter().any(|line| line.starts_with("250 H-ID=approve")), "{answers:?}");
    }
    for link in [at_one, at_other] {
        simulation.take(link);
    }
}

/// Two friends, both logged in, who have taken up their queues.
pub(super) fn friends(seed: u64) -> (Simulation, (Person, ConnectionId), (Person, ConnectionId)) {
    friends_with(seed, Settings::defaults(DOMAIN))
}

/// As [`friends`], in a domain with these settings.
pub(super) fn friends_with(
    seed: u64,
    settings: Settings,
) -> (Simulation, (Person, ConnectionId), (Person, ConnectionId)) {
    let mut simulation = Simulation::with_settings(seed, settings);
    let (alice, at_alice) = simulation.enrol("alice");
    let (bob, at_bob) = simulation.enrol("bob");
    befriend(&mut simulation, (&alice, at_alice), (&bob, at_bob));
    for link in [at_alice, at_bob] {
        simulation.say(link, "013 H-Q=0");
    }
    (simulation, (alice, at_alice), (bob, at_bob))
}

/// Sends a line and gives the code of its one answer, whatever else came.
pub(super) fn answer(simulation: &mut Simulation, link: ConnectionId, line: &str) -> u16 {
    let lines = simulation.say(link, line);
    let mut codes = lines.iter().filter(|line| (200..600).contains(&code(line)));
    let answer = codes.next().map(|line| code(line));
    assert_eq!(codes.next(), None);
    answer.unwrap_or_else(|| panic!("no answer to {line}"))
}

/// The lines of queues that a link got, bare.
pub(super) fn queued(simulation: &mut Simulation, link: ConnectionId) -> Vec<String> {
    simulation.take(link).iter().filter_map(|line| Some(numbered(line)?.1)).collect()
}

/// A line that one person's client wants to be taken.
struct Sent {
    hop_id: u64,
    line: String,
    /// Whether it is on the present link and has no answer there.
    is_out: bool,
    /// When it was first put on a link, and when its last answer came. Counted in events.
    first_at: u64,
    answered_at: u64,
    /// Whether it was ever answered with a refusal, seen by the client or not, or overtook another.
    may_move: bool,
}

/// One person's client.
struct Client {
    person: Person,
    link: Option<ConnectionId>,
    /// Lines without a final answer, in the order of sending.
    pending: VecDeque<Sent>,
    /// Everything that was answered with 250 or 252.
    accepted: Vec<Sent>,
    /// Counts what happens.
    events: u64,
    /// Every line of the queue ever received, by number.
    queue: BTreeMap<u64, String>,
    acknowledged: u64,
    /// The highest number on this link.
    highest: u64,
    last_hop_id: u64,
}

impl Client {
    fn new(person: Person) -> Self {
        Self {
            person,
            link: None,
            pending: VecDeque::new(),
            accepted: Vec::new(),
            events: 0,
            queue: BTreeMap::new(),
            acknowledged: 0,
            highest: 0,
            last_hop_id: 0,
        }
    }

    fn log_in(&mut self, simulation: &mut Simulation) {
        let link = simulation.log_in(&self.person);
        self.link = Some(link);
        self.highest = 0;
        let after = self.acknowledged;
        simulation.send(link, &format!("013 H-Q={after} H-ID=resume"));
        self.put_out(simulation);
    }

    fn send(&mut self, simulation: &mut Simulation, line: String) {
        self.last_hop_id += 1;
        let (hop_id, is_out, may_move) = (self.last_hop_id, false, false);
        let (first_at, answered_at) = (0, 0);
        self.pending.push_back(Sent { hop_id, line, is_out, first_at, answered_at, may_move });
        // A client that has refused lines may go on, or wait with everything behind them.
        let is_eager = simulation.below(2) == 0;
        if self.pending.iter().all(|sent| sent.is_out || sent.hop_id == hop_id) || is_eager {
            self.put_one(simulation, self.pending.len() - 1);
        }
    }

    /// Sends what is not on the link: new lines, and those that were refused for now.
    fn put_out(&mut self, simulation: &mut Simulation) {
        for place in 0..self.pending.len() {
            self.put_one(simulation, place);
        }
    }

    fn put_one(&mut self, simulation: &mut Simulation, place: usize) {
        // What overtakes an earlier line may find itself behind it on the next link.
        let overtakes = self.pending.iter().take(place).any(|earlier| !earlier.is_out);
        let sent = &mut self.pending[place];
        let Some(link) = self.link.filter(|_| !sent.is_out) else { return };
        sent.may_move |= overtakes;
        self.events += 1;
        sent.is_out = true;
        sent.first_at = if sent.first_at == 0 { self.events } else { sent.first_at };
        simulation.send(link, &sent.line.replace("H-ID=x", &format!("H-ID={}", sent.hop_id)));
    }

    fn acknowledge(&mut self, simulation: &mut Simulation) {
        if let Some(link) = self.link
            && self.highest > 0
        {
            self.acknowledged = self.acknowledged.max(self.highest);
            simulation.send(link, &format!("014 H-Q={}", self.acknowledged));
        }
    }

    fn read(&mut self, simulation: &mut Simulation) {
        let Some(link) = self.link else { return };
        for line in simulation.take(link) {
            match numbered(&line) {
                Some((number, _)) => self.receive(number, line),
                None => self.hear(&line),
            }
        }
        if simulation.is_closed(link) {
            self.lose(&[]);
        }
    }

    fn receive(&mut self, number: u64, line: String) {
        assert!(number > self.highest, "{number} after {}", self.highest);
        self.highest = number;
        if let Some(before) = self.queue.insert(number, line.clone()) {
            assert_eq!(before, line, "two lines under number {number}");
        }
    }

    fn hear(&mut self, line: &str) {
        let Some(place) = self.answered(line) else { return };
        self.events += 1;
        let sent = &mut self.pending[place];
        match code(line) {
            250 | 252 => {
                sent.answered_at = self.events;
                let sent = self.pending.remove(place).unwrap();
                self.accepted.push(sent);
            }
            450..=452 => {
                sent.is_out = false;
                sent.may_move = true;
            }
            _ => panic!("{line} to {}", sequence(&sent.line)),
        }
    }

    /// The place of the line that an answer is for.
    fn answered(&self, line: &str) -> Option<usize> {
        let (_, rest) = line.split_once(" H-ID=")?;
        let hop_id: u64 = rest.split(' ').next()?.parse().ok()?;
        self.pending.iter().position(|sent| sent.hop_id == hop_id)
    }

    /// The link is gone, with what it brought and nobody read.
    fn lose(&mut self, unread: &[String]) {
        for line in unread {
            if let Some(place) = self.answered(line)
                && (450..=452).contains(&code(line))
            {
                self.pending[place].may_move = true;
            }
        }
        self.link = None;
        for sent in &mut self.pending {
            sent.is_out = false;
        }
    }
}

fn bare(line: &str) -> String {
    let mut bare = Vec::new();
    Command::parse(line.as_bytes()).unwrap().forward(&[], &mut bare);
    String::from_utf8(bare).unwrap().trim_end().to_owned()
}

/// SEQ, which in a run names a line.
fn sequence(line: &str) -> u64 {
    Command::parse(line.as_bytes()).unwrap().need("SEQ").unwrap()
}

/// A run of many steps.
struct Run {
    simulation: Simulation,
    clients: Vec<Client>,
    sequence: u64,
    held: bool,
    unreadable: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut simulation = Simulation::new(seed);
        let enrolled: Vec<_> =
            ["alice", "bob", "carol"].into_iter().map(|name| simulation.enrol(name)).collect();
        // Carol stays a stranger to both.
        let [(alice, at_alice), (bob, at_bob), _] = &enrolled[..] else { panic!("three people") };
        befriend(&mut simulation, (alice, *at_alice), (bob, *at_bob));
        for (_, link) in &enrolled {
            simulation.drop_link(*link);
            simulation.take(*link);
        }
        let clients = enrolled.into_iter().map(|(person, _)| Client::new(person)).collect();
        Self { simulation, clients, sequence: 0, held: false, unreadable: false }
    }

    fn pick(&mut self, end: usize) -> usize {
        usize::try_from(self.simulation.below(end as u64)).unwrap()
    }

    fn step(&mut self) {
        let who = self.pick(self.clients.len());
        let what = self.pick(100);
        let simulation = &mut self.simulation;
        match what {
            0..=39 => self.send(who),
            40..=54 => self.clients[who].acknowledge(simulation),
            55..=59 => {
                if let Some(link) = self.clients[who].link {
                    simulation.drop_link(link);
                    let unread = simulation.take(link);
                    self.clients[who].lose(&unread);
                }
            }
            60..=69 => {
                if self.clients[who].link.is_none() && !self.unreadable {
                    self.clients[who].log_in(simulation);
                }
            }
            70..=74 => self.clients[who].put_out(simulation),
            75..=78 => {
                if let Some(link) = self.clients[who].link {
                    let stalled = simulation.below(2) == 0;
                    simulation.stall(link, stalled);
                }
            }
            79..=82 => {
                self.held = !self.held;
                let held = self.held;
                simulation.store.with(|store| store.hold(held));
            }
            83 => self.crash(),
            84..=90 => self.fault(what),
            91..=94 => self.heal(),
            95 => self.repeat(who),
            96 => {
                self.unreadable = !self.unreadable;
                simulation.store.set_unreadable(self.unreadable);
            }
            _ => {
                let seconds = simulation.below(30);
                simulation.advance(Duration::from_secs(seconds));
            }
        }
        self.turn();
    }

    fn turn(&mut self) {
        self.simulation.settle();
        for client in &mut self.clients {
            client.read(&mut self.simulation);
        }
        for connection in self.simulation.domain.connections.values() {
            let max =
                self.simulation.settings.outbox_octets_max + protocol::limits::LINE_OCTETS_MAX;
            assert!(connection.outbox_octets < max, "{} octets", connection.outbox_octets);
        }
    }

    fn send(&mut self, who: usize) {
        let others = [(who + 1) % 3, (who + 2) % 3];
        let other = others[self.pick(2)];
        let to = self.clients[other].person.account.clone();
        self.sequence += 1;
        let size = if self.simulation.below(3) == 0 { 30_000 } else { 40 };
        let person = &self.clients[who].person;
        let (id, session) = (self.simulation.message_id(), SessionId::from_octets(&[1; 16]));
        let line = person
            .line_to(Code::MESSAGE, &to)
            .parameter("SID", session)
            .parameter("GEN", GenerationId::from_octets(&[9; 32]))
            .parameter("SEQ", self.sequence)
            .parameter("TS", self.simulation.now.timestamp.0)
            .parameter("MID", id)
            .parameter("H-ID", "x")
            .body(&vec![7; size]);
        self.clients[who].send(&mut self.simulation, line);
    }

    /// A line that was accepted is sent once more and must be accepted again.
    fn repeat(&mut self, who: usize) {
        let count = self.clients[who].accepted.len();
        if count == 0 || self.clients[who].link.is_none() {
            return;
        }
        let place = self.pick(count);
        let line = self.clients[who].accepted[place].line.clone();
        if let Some(link) = self.clients[who].link {
            self.simulation.send(link, &line.replace("H-ID=x", "H-ID=again"));
        }
    }

    fn fault(&mut self, what: usize) {
        if what == 90 {
            return self.simulation.store.set_busy(true);
        }
        self.simulation.store.with(|store| match what {
            84 => store.fail_next(Fault::UnknownDone),
            85 => store.fail_next(Fault::UnknownUndone),
            86..=88 => store.set_full(true),
            _ => store.set_key_away(Some(Duration::from_secs(3))),
        });
    }

    fn heal(&mut self) {
        self.unreadable = false;
        self.simulation.store.set_unreadable(false);
        self.simulation.store.set_busy(false);
        self.simulation.store.with(|store| {
            store.reopen();
            store.set_full(false);
            store.set_key_away(None);
        });
    }

    fn crash(&mut self) {
        // What the links had received before the crash may have been read, or not.
        let is_read = self.simulation.below(2) == 0;
        if is_read {
            for client in &mut self.clients {
                client.read(&mut self.simulation);
            }
        }
        // A domain that cannot read its policy at the start takes the strictest.
        self.unreadable = false;
        self.simulation.store.set_unreadable(false);
        let mut unread = self.simulation.crash();
        self.held = false;
        for client in &mut self.clients {
            let unread = client.link.and_then(|link| unread.remove(&link)).unwrap_or_default();
            client.lose(&unread);
        }
    }

    /// Everything works again; everybody comes and stays until nothing is left to do.
    fn finish(&mut self) {
        self.heal();
        self.simulation.store.with(|store| store.hold(false));
        self.turn();
        for _ in 0..50 {
            for client in &mut self.clients {
                if client.link.is_none() {
                    client.log_in(&mut self.simulation);
                }
                if let Some(link) = client.link {
                    self.simulation.stall(link, false);
                }
                client.put_out(&mut self.simulation);
            }
            self.turn();
            for client in &mut self.clients {
                client.acknowledge(&mut self.simulation);
            }
            self.heal();
            self.simulation.advance(Duration::from_secs(1));
            self.turn();
        }
    }

    fn audit(&self) {
        for client in &self.clients {
            assert!(client.pending.is_empty(), "a line is not answered");
            assert!(client.accepted.len() > 20, "only {} lines", client.accepted.len());
            for other in &self.clients {
                self.audit_pair(client, other);
            }
            let distinct: BTreeSet<String> = client.queue.values().map(|line| bare(line)).collect();
            assert!(distinct.len() == client.queue.len(), "a line under two numbers");
        }
    }

    /// Everything from one to another arrived, in order: a line comes before those that were
    /// first sent after its answer, and, unless it was refused in between, before those that
    /// were first sent after it.
    fn audit_pair(&self, client: &Client, other: &Client) {
        let to = format!(" TO {} ", other.person.account);
        let from = format!(" FROM {} ", client.person.device);
        let received: Vec<u64> = other
            .queue
            .values()
            .filter(|line| line.starts_with("100 ") && line.contains(&from))
            .map(|line| sequence(line))
            .collect();
        let mut accepted: Vec<&Sent> =
            client.accepted.iter().filter(|sent| sent.line.contains(&to)).collect();
        let place = |sent: &Sent| {
            let wanted = sequence(&sent.line);
            let place = received.iter().position(|received| *received == wanted);
            place.unwrap_or_else(|| panic!("line {wanted} {from}{to} is lost"))
        };
        assert!(received.len() == accepted.len(), "{from}{to}: {received:?}");
        accepted.sort_by_key(|sent| place(sent));
        for (index, later) in accepted.iter().enumerate() {
            for earlier in &accepted[..index] {
                let is_wrong = later.answered_at < earlier.first_at
                    || (!later.may_move && later.first_at < earlier.first_at);
                let (one, two) = (sequence(&earlier.line), sequence(&later.line));
                assert!(!is_wrong, "{from}{to}: {one} came before {two}");
            }
        }
    }
}

#[test]
fn what_was_answered_is_neither_lost_nor_moved() {
    let seeds = std::env::var("LEDGER_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
    for seed in 1..=seeds {
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for _ in 0..600 {
            run.step();
        }
        run.finish();
        run.audit();
    }
}
