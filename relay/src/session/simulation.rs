//! The harness: a domain over the store in memory, with virtual time and people who really sign.
//!
//! [`Simulation`] plays everything around a [`Domain`]: links, the committer, the token, the clock.
//! Nothing happens by itself: a test sends lines, and [`Simulation::settle`] lets commits and
//! signatures complete until nothing is left to do. Faults are switches of
//! [`Simulation::store`] (full, held, failing) and [`Simulation::keys`] (away); a crash is
//! [`Simulation::crash`]: a new domain over what was durable. The same seed gives the same keys,
//! nonces and identifiers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::canonical::sha256;
use protocol::identifier::MessageId;
use protocol::policy::Policy;
use protocol::proof::{ALPN_CLIENT, Proof};
use protocol::record::RecordBuilder;
use protocol::registration::{Admission, Registration};
use protocol::signature::{Signer as _, SoftwareSigner};
use protocol::table::Row as CommandRow;
use protocol::timestamp::Timestamp;
use protocol::{AddressBuf, Code, Command, CommandBuilder, Reply};

use super::operator::{OperatorAnswer, OperatorReply, OperatorRequest};
use super::{ConnectionId, Domain, Effect, Peer, Settings, Ticket};
use crate::clock::Now;
use crate::directory::provision;
use crate::event::Event;
use crate::keys::KeyService as _;
use crate::keys::software::SoftwareKeys;
use crate::store::{
    CommitToken, Cursor, Direction, MemoryStore, Operation, Outcome, Row, Scanned, Sorted,
    Statistics, Store, StoreError, Table,
};

/// The domain of every simulation.
pub(super) const DOMAIN: &str = "a.example";
/// When every simulation begins: a time at which the vectors' records are valid.
pub(super) const START_MS: u64 = 1_795_470_000_000;
/// Turns of the loop after which a settling domain counts as stuck.
const TURNS_MAX: usize = 10_000;

/// A store in memory that the test keeps a hand on.
#[derive(Clone, Default)]
pub(super) struct SharedStore {
    store: Arc<Mutex<MemoryStore>>,
    is_busy: Arc<AtomicBool>,
    is_unreadable: Arc<AtomicBool>,
}

impl SharedStore {
    /// Works on the store itself: its faults, its rows.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut MemoryStore) -> T) -> T {
        work(&mut self.store.lock().unwrap())
    }

    /// Refuses every commit as a store whose queue is full, or no longer.
    pub(super) fn set_busy(&self, is_busy: bool) {
        self.is_busy.store(is_busy, Ordering::SeqCst);
    }

    /// Makes every read fail, or ends that.
    pub(super) fn set_unreadable(&self, is_unreadable: bool) {
        self.is_unreadable.store(is_unreadable, Ordering::SeqCst);
    }

    fn check_readable(&self) -> Result<(), StoreError> {
        if self.is_unreadable.load(Ordering::SeqCst) {
            return Err(StoreError::Stopped { text: "reads fail on demand".to_owned() });
        }
        Ok(())
    }
}

impl Store for SharedStore {
    fn get(&self, row: &Row) -> Result<Option<Vec<u8>>, StoreError> {
        self.check_readable()?;
        self.with(|store| store.get(row))
    }

    fn range(
        &self,
        table: Table,
        owner: &[u8],
        from_sort: &[u8],
        to_sort: &[u8],
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<Sorted>, StoreError> {
        self.check_readable()?;
        self.with(|store| store.range(table, owner, from_sort, to_sort, limit, direction))
    }

    fn scan(
        &self,
        table: Table,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<Scanned>, Option<Cursor>), StoreError> {
        self.with(|store| store.scan(table, after, limit))
    }

    fn submit(&mut self, token: CommitToken, operations: Vec<Operation>) -> Result<(), StoreError> {
        if self.is_busy.load(Ordering::SeqCst) {
            return Err(StoreError::Busy);
        }
        self.with(|store| store.submit(token, operations))
    }

    fn completions(&mut self, into: &mut Vec<(CommitToken, Outcome)>) {
        self.with(|store| store.completions(into));
    }

    fn statistics(&self) -> Statistics {
        self.with(|store| store.statistics())
    }
}

/// A person with an account and one device, and the keys of both.
pub(super) struct Person {
    /// The account.
    pub(super) account: AddressBuf,
    /// The device.
    pub(super) device: AddressBuf,
    /// The key that signs records.
    pub(super) identity: SoftwareSigner,
    /// The key that signs the device's lines.
    pub(super) key: SoftwareSigner,
    /// The record that was registered.
    pub(super) record_line: String,
}

impl Person {
    /// A person who has not registered yet. Keys come from the names, so that they can be made
    /// again.
    pub(super) fn new(name: &str) -> Self {
        Self::with_device(name, "d1")
    }

    /// As [`Person::new`], with another device.
    pub(super) fn with_device(name: &str, device: &str) -> Self {
        let account = AddressBuf::parse(&format!("{name}@{DOMAIN}")).unwrap();
        let device = AddressBuf::with_device(account.as_address(), device).unwrap();
        let identity = signer(&format!("identity of {account}"));
        let key = signer(&format!("device {device}"));
        let record_line = Self::record(&account)
            .device(device.as_address().device().unwrap(), key.public_key())
            .sign(&identity)
            .unwrap();
        Self { account, device, identity, key, record_line }
    }

    /// A first record without devices.
    pub(super) fn record(account: &AddressBuf) -> RecordBuilder {
        let (not_before, not_after) =
            (Timestamp(START_MS), Timestamp(START_MS).plus_ms(365 * 24 * 3_600_000));
        RecordBuilder::new(account.as_address(), not_before, not_after)
    }

    /// Ends a line that this person's device signs.
    pub(super) fn sign(&self, line: CommandBuilder, body: &[u8]) -> String {
        line.sign::<protocol::Error>(body, |tbs| Ok(self.key.sign(tbs)?)).unwrap()
    }

    /// Begins a line from this person's device.
    pub(super) fn line(&self, code: Code) -> CommandBuilder {
        Command::builder(code).from(self.device.as_address())
    }

    /// Begins a line from this person's device to `to`.
    pub(super) fn line_to(&self, code: Code, to: &AddressBuf) -> CommandBuilder {
        Command::builder(code).to(to.as_address()).from(self.device.as_address())
    }
}

/// A key that `name` always gives again.
pub(super) fn signer(name: &str) -> SoftwareSigner {
    SoftwareSigner::ed25519(&sha256(&[name.as_bytes()])).unwrap()
}

/// A domain and everything around it.
pub(super) struct Simulation {
    pub(super) domain: Domain,
    pub(super) store: SharedStore,
    pub(super) keys: Arc<SoftwareKeys>,
    pub(super) settings: Settings,
    pub(super) now: Now,
    /// What the domain reported, in order.
    pub(super) events: Vec<Event>,
    random: Random,
    received: BTreeMap<ConnectionId, Vec<u8>>,
    closed: BTreeSet<ConnectionId>,
    stalled: BTreeMap<ConnectionId, usize>,
    operated: BTreeMap<Ticket, OperatorReply>,
    last_id: u64,
    last_ticket: u64,
}

impl Simulation {
    /// A domain with default settings that nobody has joined.
    pub(super) fn new(seed: u64) -> Self {
        Self::with_settings(seed, Settings::defaults(DOMAIN))
    }

    /// A domain that nobody has joined.
    pub(super) fn with_settings(seed: u64, settings: Settings) -> Self {
        let store = SharedStore::default();
        let random = Random::new(seed);
        let domain = Self::domain(&settings, &store, &random);
        Self {
            domain,
            store,
            keys: Arc::new(SoftwareKeys::generate().unwrap()),
            settings,
            now: Now { timestamp: Timestamp(START_MS), since_start: Duration::ZERO },
            events: Vec::new(),
            random,
            received: BTreeMap::new(),
            closed: BTreeSet::new(),
            stalled: BTreeMap::new(),
            operated: BTreeMap::new(),
            last_id: 0,
            last_ticket: 0,
        }
    }

    fn domain(settings: &Settings, store: &SharedStore, random: &Random) -> Domain {
        let mut random = random.clone();
        let fill = move |octets: &mut [u8]| random.fill(octets);
        Domain::new(settings.clone(), Box::new(store.clone()), Box::new(fill))
    }

    // Links.

    /// Opens a link, each from an address of its own, and reads the greeting.
    pub(super) fn connect(&mut self) -> ConnectionId {
        let number = u32::try_from(self.last_id).unwrap() + 1;
        self.connect_from(Ipv4Addr::from_bits(0x0A00_0000 + number).into())
    }

    /// Opens a link from `address` and reads the greeting.
    pub(super) fn connect_from(&mut self, address: IpAddr) -> ConnectionId {
        let id = self.open_from(address);
        assert_eq!(self.take(id), [format!("220 :{DOMAIN} CIM/1 ready")]);
        id
    }

    /// Opens a link whose greeting nobody has read yet.
    pub(super) fn open(&mut self) -> ConnectionId {
        self.open_from(Ipv4Addr::LOCALHOST.into())
    }

    fn open_from(&mut self, address: IpAddr) -> ConnectionId {
        self.last_id += 1;
        let id = ConnectionId(self.last_id);
        self.received.insert(id, Vec::new());
        self.domain.opened(id, Peer { address, exporter: exporter(id) }, self.now);
        self.settle();
        id
    }

    /// Hands a line to the domain and does nothing else.
    pub(super) fn send(&mut self, id: ConnectionId, line: &str) {
        self.domain.received(id, format!("{line}\r\n").as_bytes(), self.now);
    }

    /// Sends a line, settles, and gives all lines that this link got.
    pub(super) fn say(&mut self, id: ConnectionId, line: &str) -> Vec<String> {
        self.send(id, line);
        self.settle();
        self.take(id)
    }

    /// Sends a line that must be answered with exactly one reply. Commands that come with it stay
    /// for [`Simulation::take`].
    pub(super) fn ask(&mut self, id: ConnectionId, line: &str) -> String {
        let (mut replies, commands): (Vec<String>, Vec<String>) =
            self.say(id, line).into_iter().partition(|line| (200..600).contains(&code(line)));
        assert_eq!(replies.len(), 1, "{line} got {replies:?}");
        if let Some(row) =
            Command::parse(line.as_bytes()).ok().and_then(|it| CommandRow::find(it.code()))
        {
            let is_known = row.may_answer(code(&replies[0]));
            assert!(is_known, "the table does not know {} for {line}", replies[0]);
        }
        let waiting = self.received.entry(id).or_default();
        for command in commands {
            waiting.extend_from_slice(format!("{command}\r\n").as_bytes());
        }
        replies.remove(0)
    }

    /// Sends a line that must be answered with exactly one, of this code.
    pub(super) fn expect(&mut self, id: ConnectionId, line: &str, code: u16) -> String {
        let answer = self.ask(id, line);
        assert_eq!(self::code(&answer), code, "{line} got {answer}");
        answer
    }

    /// The lines that this link got since the last time, without CRLF.
    pub(super) fn take(&mut self, id: ConnectionId) -> Vec<String> {
        let octets = std::mem::take(self.received.entry(id).or_default());
        let text = String::from_utf8(octets).unwrap();
        assert!(text.is_empty() || text.ends_with("\r\n"), "half a line: {text:?}");
        text.split_terminator("\r\n").map(str::to_owned).collect()
    }

    /// Whether the domain has closed this link.
    pub(super) fn is_closed(&self, id: ConnectionId) -> bool {
        self.closed.contains(&id)
    }

    /// The other side drops this link.
    pub(super) fn drop_link(&mut self, id: ConnectionId) {
        self.closed.insert(id);
        self.domain.closed(id, self.now);
        self.settle();
    }

    /// From now on nothing given to this link counts as sent, or again everything.
    pub(super) fn stall(&mut self, id: ConnectionId, stalled: bool) {
        if stalled {
            self.stalled.insert(id, 0);
        } else if self.stalled.remove(&id).is_some() {
            self.domain.flushed(id, 0, self.now);
            self.settle();
        }
    }

    /// Octets that a stalled link has been given and has not taken.
    pub(super) fn pending(&self, id: ConnectionId) -> usize {
        self.stalled.get(&id).copied().unwrap_or_default()
    }

    // People.

    /// Registers a new person through an invitation; the link that it took stays open.
    pub(super) fn enrol(&mut self, name: &str) -> (Person, ConnectionId) {
        let person = Person::new(name);
        let id = self.register(&person);
        (person, id)
    }

    /// Registers `person` through an invitation.
    pub(super) fn register(&mut self, person: &Person) -> ConnectionId {
        let code = self.invite(Some(&person.account));
        let id = self.connect();
        let answer = self.prove(id, person);
        assert!(answer.starts_with("250 ") && !answer.contains("H-Q="), "{answer}");
        let line = self.registration(person, &code);
        self.expect(id, &line, 250);
        id
    }

    /// The 600 line of `person`.
    pub(super) fn registration(&self, person: &Person, code: &str) -> String {
        let admission = Admission::Invitation(code.into());
        Registration::write(person.account.as_address(), &admission, "r", &person.record_line)
    }

    /// Logs a registered person in on a new link.
    pub(super) fn log_in(&mut self, person: &Person) -> ConnectionId {
        let id = self.connect();
        let answer = self.prove(id, person);
        assert!(answer.starts_with("250 ") && answer.contains("H-Q="), "{answer}");
        id
    }

    /// Runs 010 to 012 on a fresh link; gives the answer to 012.
    pub(super) fn prove(&mut self, id: ConnectionId, person: &Person) -> String {
        self.greet(id, person);
        let nonce = self.challenge(id, person);
        let line = self.proof(id, person, &nonce);
        self.ask(id, &line)
    }

    /// Runs 010.
    pub(super) fn greet(&mut self, id: ConnectionId, person: &Person) {
        let hello = person.line(Code::HELLO).parameter("VER", 1).parameter("CAP", "LINE:65536");
        self.expect(id, &hello.finish(), 250);
    }

    /// Runs 011; gives the nonce.
    pub(super) fn challenge(&mut self, id: ConnectionId, person: &Person) -> String {
        let key = person.key.public_key();
        let line = person.line(Code::IDENTITY).parameter("ALG", key.algorithm().name());
        let answer = self.expect(id, &line.body(key.as_octets()), 334);
        parameter(&answer, "NONCE").unwrap()
    }

    /// The 012 line of `person` for this link and nonce.
    pub(super) fn proof(&self, id: ConnectionId, person: &Person, nonce: &str) -> String {
        let proof = Proof {
            exporter: &exporter(id),
            nonce,
            alpn: ALPN_CLIENT,
            server_domain: DOMAIN,
            address: person.device.as_address(),
            key: person.key.public_key(),
        };
        let signature = person.key.sign(&proof.octets()).unwrap();
        format!("012 FROM {} - {}", person.device, protocol::base64::encode(&signature))
    }

    /// Two people who have approved each other, with the links that they enrolled on.
    pub(super) fn friends(&mut self) -> [(Person, ConnectionId); 2] {
        let friends = [self.enrol("alice"), self.enrol("bob")];
        let [(alice, a), (bob, b)] = &friends;
        for (from, id, to) in [(alice, *a, bob), (bob, *b, alice)] {
            self.expect(id, &from.line_to(Code::SUBSCRIBE, &to.account).finish(), 252);
        }
        for (from, id, to) in [(alice, *a, bob), (bob, *b, alice)] {
            self.expect(id, &from.line_to(Code::APPROVE, &to.account).finish(), 250);
        }
        self.take(*a);
        self.take(*b);
        friends
    }

    // The operator.

    /// Makes the domain's own record and policy, as before serving.
    pub(super) fn provision(&mut self) {
        let domain = AddressBuf::parse(DOMAIN).unwrap();
        let wanted = Policy::new(domain.as_address(), Timestamp(0), Timestamp(1));
        let mut store = self.store.clone();
        provision(&mut store, &*self.keys, &wanted, self.now.timestamp, &mut || ()).unwrap();
    }

    /// Makes an invitation.
    pub(super) fn invite(&mut self, account: Option<&AddressBuf>) -> String {
        let request = OperatorRequest::Invite {
            account: account.cloned(),
            valid_for: Duration::from_secs(24 * 3_600),
        };
        match self.operate(request) {
            Ok(OperatorAnswer::Invited { code }) => code,
            other => panic!("{other:?}"),
        }
    }

    /// Has the domain do what an operator asks.
    pub(super) fn operate(&mut self, request: OperatorRequest) -> OperatorReply {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.domain.operate(ticket, request, self.now);
        self.settle();
        self.operated.remove(&ticket).expect("the operator is answered")
    }

    /// Writes a row behind the domain's back.
    pub(super) fn put(&mut self, row: Row, value: Vec<u8>) {
        self.store.with(|store| {
            store.submit(CommitToken(u64::MAX), vec![Operation::Put { row, value }]).unwrap();
            store.completions(&mut Vec::new());
        });
    }

    // Time, commits, faults.

    /// Lets `duration` pass on both clocks.
    pub(super) fn advance(&mut self, duration: Duration) {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap();
        self.now = Now {
            timestamp: self.now.timestamp.plus_ms(milliseconds),
            since_start: self.now.since_start + duration,
        };
        self.domain.tick(self.now);
        self.settle();
    }

    /// Lets commits and signatures complete until nothing is left to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let before = self.outcomes();
            self.domain.committed(self.now);
            if !self.turn() && self.outcomes() == before {
                return;
            }
        }
        panic!("the domain does not settle");
    }

    /// How many commits have an outcome.
    fn outcomes(&self) -> u64 {
        let figures = self.store.with(|store| store.statistics());
        figures.commits + figures.conflicts + figures.refused + figures.unknown
    }

    /// Does what the domain asks for; whether there was anything.
    fn turn(&mut self) -> bool {
        let effects = self.domain.take_effects();
        let is_busy = !effects.is_empty();
        let mut touched = BTreeSet::new();
        for effect in effects {
            match effect {
                Effect::Close(id) => {
                    if self.closed.insert(id) {
                        self.domain.closed(id, self.now);
                    }
                }
                Effect::Event(event) => self.events.push(event),
                Effect::Operated(ticket, reply) => {
                    self.operated.insert(ticket, reply);
                }
                Effect::Send(id, octets) => {
                    self.deliver(id, &octets);
                    touched.insert(id);
                }
                Effect::Sign(ticket, key, message) => {
                    let signature = self.keys.sign(key, &message);
                    self.domain.signed(ticket, signature, self.now);
                }
            }
        }
        for id in touched {
            let pending = self.stalled.get(&id).copied().unwrap_or_default();
            self.domain.flushed(id, pending, self.now);
        }
        is_busy
    }

    fn deliver(&mut self, id: ConnectionId, octets: &[u8]) {
        assert!(!self.closed.contains(&id), "sent to a closed link");
        self.received.entry(id).or_default().extend_from_slice(octets);
        if let Some(pending) = self.stalled.get_mut(&id) {
            *pending += octets.len();
        }
    }

    /// Loses everything but the durable rows: a new domain starts over the same store, without
    /// links. Returns what the old links had received and nobody has read.
    pub(super) fn crash(&mut self) -> BTreeMap<ConnectionId, Vec<String>> {
        self.store.with(MemoryStore::crash);
        let links: Vec<ConnectionId> = self.received.keys().copied().collect();
        let unread = links.into_iter().map(|id| (id, self.take(id))).collect();
        self.closed.extend(self.received.keys());
        self.stalled.clear();
        self.random.skip();
        self.domain = Self::domain(&self.settings, &self.store, &self.random);
        unread
    }

    /// A random message id.
    pub(super) fn message_id(&mut self) -> MessageId {
        let mut octets = [0; MessageId::OCTETS];
        self.random.fill(&mut octets);
        MessageId::from_octets(&octets)
    }

    /// A random number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        let mut octets = [0; 8];
        self.random.fill(&mut octets);
        u64::from_be_bytes(octets) % end
    }
}

/// The TLS exporter of a link.
pub(super) fn exporter(id: ConnectionId) -> [u8; 32] {
    sha256(&[b"exporter", &id.0.to_be_bytes()])
}

/// The code of a line.
pub(super) fn code(line: &str) -> u16 {
    line[..3].parse().unwrap()
}

/// The value of a parameter in an answer.
pub(super) fn parameter(answer: &str, name: &str) -> Option<String> {
    Reply::parse(answer.as_bytes()).unwrap().parameter(name).map(str::to_owned)
}

/// Octets that a seed always gives again.
#[derive(Clone)]
struct Random {
    state: [u8; 32],
}

impl Random {
    fn new(seed: u64) -> Self {
        Self { state: sha256(&[b"seed", &seed.to_be_bytes()]) }
    }

    /// What follows has nothing in common with what a clone gives.
    fn skip(&mut self) {
        self.state = sha256(&[b"skip", &self.state]);
    }

    fn fill(&mut self, octets: &mut [u8]) {
        for chunk in octets.chunks_mut(32) {
            self.state = sha256(&[b"next", &self.state]);
            let block = sha256(&[b"block", &self.state]);
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }
}

#[test]
fn a_person_registers_and_logs_in_again_after_a_crash() {
    let mut simulation = Simulation::new(1);
    let (alice, first) = simulation.enrol("alice");
    let second = simulation.log_in(&alice);
    let goodbye = simulation.take(first);
    assert_eq!(goodbye.len(), 1);
    assert_eq!(code(&goodbye[0]), 421);
    assert!(simulation.is_closed(first) && !simulation.is_closed(second));
    simulation.crash();
    let third = simulation.log_in(&alice);
    simulation.expect(third, "015", 250);
}
