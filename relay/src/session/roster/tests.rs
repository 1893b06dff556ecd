//! Tests of rosters: requests, approval, blocking, versions, pushes, limits.

use std::collections::BTreeMap;

use protocol::identifier::MessageId;
use protocol::record::{Record, RecordBuilder};
use protocol::reply::Assembler;
use protocol::signature::Signer as _;
use protocol::{AddressBuf, Code, Command, Reply};

use super::super::ConnectionId;
use super::super::simulation::{DOMAIN, Person, Simulation, code, parameter};
use super::*;

type Roster = (u64, BTreeMap<String, String>);

/// The roster of a person: version, and what each entry says.
fn roster(simulation: &mut Simulation, person: &Person, id: ConnectionId) -> Roster {
    let mut assembler = Assembler::new(Some("WHO"));
    let mut answer = None;
    let lines = simulation.say(id, &format!("630 FROM {}", person.device));
    for line in lines.iter().filter(|line| line.starts_with("25")) {
        answer = assembler.push(&Reply::parse(line.as_bytes()).unwrap()).unwrap();
    }
    let answer = answer.unwrap();
    let is_empty = answer.code.number() == 250;
    assert_eq!(is_empty, answer.first().unwrap().get("WHO").is_none());
    let version = answer.first().unwrap().get("VER").unwrap().parse().unwrap();
    let entries = answer.entries.iter().filter_map(|entry| {
        let rest = entry.iter().filter(|(name, _)| !matches!(*name, "WHO" | "VER"));
        let rest: Vec<String> = rest.map(|(name, value)| format!("{name}={value}")).collect();
        Some((entry.get("WHO")?.to_owned(), rest.join(" ")))
    });
    (version, entries.collect())
}

fn entry(simulation: &mut Simulation, person: &Person, id: ConnectionId, of: &Person) -> String {
    let (_, entries) = roster(simulation, person, id);
    entries.get(of.account.as_str()).cloned().unwrap_or_default()
}

#[test]
fn a_request_is_approved_and_withdrawn() {
    let mut simulation = Simulation::new(1);
    let (alice, a) = simulation.enrol("alice");
    let (bob, b) = simulation.enrol("bob");
    simulation.say(b, "013 H-Q=0");
    let ask = alice.line_to(Code::SUBSCRIBE, &bob.account).finish();
    simulation.expect(a, &ask, 252);
    let told = simulation.take(b);
    assert!(told.iter().any(|line| line.starts_with("633 TO bob@a.example FROM alice@")));
    assert!(told.iter().any(|line| line.starts_with("632 ") && line.contains("ASK=in")));
    assert_eq!(entry(&mut simulation, &alice, a, &bob), "SUB=none ASK=out");
    assert_eq!(entry(&mut simulation, &bob, b, &alice), "SUB=none ASK=in");
    simulation.expect(a, &ask, 252);
    assert!(simulation.take(b).is_empty(), "asked once");
    simulation.say(b, &bob.line_to(Code::APPROVE, &alice.account).finish());
    let told = simulation.take(a);
    assert!(told.iter().any(|line| line.starts_with("121 ") && line.contains("STATE=available")));
    assert_eq!(entry(&mut simulation, &alice, a, &bob), "SUB=to");
    assert_eq!(entry(&mut simulation, &bob, b, &alice), "SUB=from");
    simulation.say(b, &bob.line_to(Code::DENY, &alice.account).finish());
    let told = simulation.take(a);
    assert!(told.iter().any(|line| line.starts_with("121 ") && line.contains("STATE=offline")));
    assert_eq!(entry(&mut simulation, &alice, a, &bob), "SUB=none");
    let approved_first = simulation.say(b, &bob.line_to(Code::APPROVE, &alice.account).finish());
    assert_eq!(code(&approved_first[0]), 250);
    simulation.take(a);
    let answers = simulation.say(a, &ask);
    assert_eq!(code(&answers[0]), 250, "approved before it was asked: {answers:?}");
}

#[test]
fn requests_and_answers_wait_for_devices_that_are_away() {
    let mut simulation = Simulation::new(2);
    let (alice, a) = simulation.enrol("alice");
    let (bob, b) = simulation.enrol("bob");
    simulation.drop_link(b);
    simulation.expect(a, &alice.line_to(Code::SUBSCRIBE, &bob.account).finish(), 252);
    simulation.drop_link(a);
    simulation.crash();
    let b = simulation.log_in(&bob);
    let replayed = simulation.say(b, "013 H-Q=0");
    assert!(replayed.iter().any(|line| line.starts_with("633 ") && line.contains("H-Q=1")));
    simulation.expect(b, &bob.line_to(Code::APPROVE, &alice.account).finish(), 250);
    let a = simulation.log_in(&alice);
    let lines = simulation.take(a);
    assert!(lines.iter().any(|line| line.starts_with("121 ")), "bob is here: {lines:?}");
    let replayed = simulation.say(a, "013 H-Q=0");
    assert!(replayed.iter().any(|line| line.starts_with("634 ")), "{replayed:?}");
}

#[test]
fn the_blocked_learn_nothing() {
    let mut simulation = Simulation::new(3);
    let [(alice, a), (bob, b)] = simulation.friends();
    simulation.expect(b, &bob.line_to(Code::BLOCK, &alice.account).finish(), 250);
    let told = simulation.take(a);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("121 ") && told[0].contains("STATE=offline"));
    let query = alice.line_to(Code::PRESENCE_QUERY, &bob.account).finish();
    let answer = simulation.expect(a, &query, 251);
    assert_eq!(parameter(&answer, "STATE").as_deref(), Some("offline"));
    simulation.expect(a, &alice.line_to(Code::RECORD_FETCH, &bob.account).finish(), 251);
    simulation.expect(b, &format!("120 FROM {} STATE=busy", bob.device), 250);
    assert!(simulation.take(a).is_empty());
    assert_eq!(entry(&mut simulation, &alice, a, &bob), "SUB=both");
    assert_eq!(entry(&mut simulation, &bob, b, &alice), "SUB=both BLOCK=1");
    simulation.expect(b, &format!("636 TO {} FROM {} OFF=1", alice.account, bob.device), 250);
    let told = simulation.take(a);
    assert!(told[0].contains("STATE=busy"), "{told:?}");
}

#[test]
fn entries_are_set_with_versions_and_pushed_to_other_devices() {
    let mut simulation = Simulation::new(4);
    let (alice, a) = simulation.enrol("alice");
    let record = Record::parse(&Command::parse(alice.record_line.as_bytes()).unwrap()).unwrap();
    let two = Person::with_device("alice", "d2");
    let next = RecordBuilder::after(&record).device("d2", two.key.public_key());
    simulation.expect(a, &next.sign(&alice.identity).unwrap(), 250);
    let other = simulation.log_in(&two);
    let set = |rest: &str| format!("631 TO bob@b.example FROM {}{rest}", alice.device);
    let answer = simulation.expect(a, &set(" VER=0 BLOB=AAAA URGENT=1"), 250);
    assert_eq!(parameter(&answer, "VER").as_deref(), Some("1"));
    let told = simulation.take(other);
    assert_eq!(told.len(), 1);
    for part in ["632 ", "WHO=bob@b.example", "VER=1", "SUB=none", "URGENT=1", "BLOB=AAAA"] {
        assert!(told[0].contains(part), "{part}: {told:?}");
    }
    assert!(simulation.take(a).is_empty());
    simulation.expect(a, &set(" VER=0 BLOB=AAAA URGENT=1"), 250);
    let answer = simulation.expect(a, &set(" VER=0 BLOB=BBBB"), 455);
    assert_eq!(parameter(&answer, "VER").as_deref(), Some("1"));
    simulation.expect(a, &set(" BLOB=BBBB"), 250);
    let (version, entries) = roster(&mut simulation, &alice, a);
    assert_eq!(version, 2);
    assert_eq!(entries["bob@b.example"], "SUB=none URGENT=1 BLOB=BBBB");
    let line = format!("630 FROM {} VER=2", alice.device);
    let answer = simulation.expect(a, &line, 250);
    assert_eq!(parameter(&answer, "VER").as_deref(), Some("2"));
    simulation.expect(a, &set(" DEL=1"), 250);
    let told = simulation.take(other);
    assert!(told.last().unwrap().contains("DEL=1"), "{told:?}");
    simulation.expect(a, &set(" DEL=1"), 250);
    assert_eq!(roster(&mut simulation, &alice, a), (3, BTreeMap::new()));
    simulation.expect(a, &format!("631 TO {} FROM {}", alice.account, alice.device), 510);
}

#[test]
fn who_is_removed_is_no_longer_approved() {
    let mut simulation = Simulation::new(5);
    let [(alice, a), (bob, b)] = simulation.friends();
    simulation.expect(b, &format!("631 TO {} FROM {} DEL=1", alice.account, bob.device), 250);
    let told = simulation.take(a);
    assert_eq!(entry(&mut simulation, &bob, b, &alice), "");
    assert_eq!(entry(&mut simulation, &alice, a, &bob), "SUB=from");
    assert!(told.iter().any(|line| line.contains("STATE=offline")), "{told:?}");
}

#[test]
fn pipelined_changes_of_one_contact_all_happen() {
    let mut simulation = Simulation::new(6);
    let (alice, a) = simulation.enrol("alice");
    for blob in ["AAAA", "BBBB", "CCCC"] {
        simulation.send(a, &format!("631 TO bob@a.example FROM {} BLOB={blob}", alice.device));
    }
    simulation.send(a, &format!("631 TO carol@a.example FROM {} BLOB=AAAA", alice.device));
    simulation.settle();
    let answers = simulation.take(a);
    assert!(answers.iter().all(|answer| code(answer) == 250), "{answers:?}");
    let (version, entries) = roster(&mut simulation, &alice, a);
    assert_eq!(entries.len(), 2);
    assert!(version >= 4);
}

#[test]
fn contacts_and_requests_have_limits() {
    let mut simulation = Simulation::new(7);
    let (alice, a) = simulation.enrol("alice");
    let (bob, b) = simulation.enrol("bob");
    let kept = |number: usize, relation: Relation| {
        let address = AddressBuf::parse(&format!("c{number}@{DOMAIN}")).unwrap();
        let mut contact = Contact::new(address, protocol::Timestamp(1));
        contact.relation = relation;
        contact
    };
    let listed = Relation { is_listed: true, ..Relation::default() };
    let request = Relation { was_asked: true, ..Relation::default() };
    let owner = alice.account.as_str().as_bytes();
    for number in 0..CONTACTS_MAX + REQUESTS_MAX - 2 {
        let relation = if number < CONTACTS_MAX - 1 { listed } else { request };
        let contact = kept(number, relation);
        let sort = contact.address.as_str().as_bytes();
        let row = crate::store::Row::new(crate::store::Table::Roster, owner, sort);
        simulation.put(row, contact.encode());
    }
    simulation.crash();
    let [a, b] = [(&alice, a), (&bob, b)].map(|(person, _)| simulation.log_in(person));
    simulation.expect(b, &bob.line_to(Code::SUBSCRIBE, &alice.account).finish(), 252);
    let told = simulation.take(a);
    assert!(told.iter().any(|line| line.contains("ASK=in")), "the last request: {told:?}");
    let (carol, c) = simulation.enrol("carol");
    simulation.expect(c, &carol.line_to(Code::SUBSCRIBE, &alice.account).finish(), 252);
    assert!(simulation.take(a).is_empty(), "one more is dropped");
    let set = |name: &str| format!("631 TO {name}@a.example FROM {}", alice.device);
    simulation.expect(a, &set("last"), 250);
    simulation.expect(a, &set("more"), 452);
    simulation.expect(a, &format!("631 TO c0@a.example FROM {} DEL=1", alice.device), 250);
    simulation.expect(a, &set("more"), 250);
    let (_, entries) = roster(&mut simulation, &alice, a);
    assert_eq!(entries.len(), CONTACTS_MAX + REQUESTS_MAX);
}

#[test]
fn requests_are_counted() {
    let mut simulation = Simulation::new(8);
    let (alice, a) = simulation.enrol("alice");
    let ask = |number: u32| format!("633 TO p{number}@{DOMAIN} FROM {}", alice.device);
    for number in 0..limits::REQUESTS_PER_HOUR {
        simulation.expect(a, &ask(number), 252);
    }
    let answer = simulation.expect(a, &ask(limits::REQUESTS_PER_HOUR), 453);
    assert!(parameter(&answer, "RETRY").is_some());
    simulation.expect(a, &ask(0), 252);
    let foreign = format!("633 TO bob@b.example FROM {}", alice.device);
    simulation.expect(a, &foreign, 550);
    let id = MessageId::from_octets(&[0; 16]);
    let line = format!("634 TO {} FROM {} MID={id}", alice.account, alice.device);
    simulation.expect(a, &line, 510);
}

/// People who ask, approve, deny, block and remove each other at random, over lost links, crashes
/// and writes that fail: what one side holds of the other's approval is always true.
#[test]
fn both_sides_agree_whatever_happens() {
    for seed in 100..130 {
        println!("seed {seed}");
        let mut simulation = Simulation::new(seed);
        let people: Vec<Person> =
            ["alice", "bob", "carol"].map(|name| simulation.enrol(name).0).into();
        let mut links: Vec<ConnectionId> =
            people.iter().map(|person| simulation.log_in(person)).collect();
        for _ in 0..120 {
            let one = simulation.below(3) as usize;
            let other = &people[(one + 1 + simulation.below(2) as usize) % 3];
            let codes = [
                Code::SUBSCRIBE,
                Code::APPROVE,
                Code::DENY,
                Code::SUBSCRIBE,
                Code::APPROVE,
                Code::BLOCK,
                Code::ROSTER_SET,
            ];
            let code = codes[simulation.below(codes.len() as u64) as usize];
            let mut line = people[one].line_to(code, &other.account);
            match code {
                Code::BLOCK => line = line.parameter("OFF", simulation.below(2)),
                Code::ROSTER_SET => line = line.parameter("DEL", simulation.below(2)),
                _ => {}
            }
            simulation.send(links[one], &line.finish());
            match simulation.below(20) {
                0 => {
                    simulation.crash();
                    links = people.iter().map(|person| simulation.log_in(person)).collect();
                }
                1 => {
                    let fault = match simulation.below(2) {
                        0 => crate::store::Fault::UnknownDone,
                        _ => crate::store::Fault::UnknownUndone,
                    };
                    simulation.store.with(|store| store.fail_next(fault));
                    simulation.settle();
                    simulation.store.with(|store| store.reopen());
                    links = people.iter().map(|person| simulation.log_in(person)).collect();
                }
                2..9 => simulation.settle(),
                9 => simulation.advance(std::time::Duration::from_secs(61)),
                _ => {}
            }
        }
        simulation.settle();
        simulation.crash();
        for one in &people {
            for two in people.iter().filter(|two| two.account != one.account) {
                let look = |owner: &Person, of: &Person| {
                    let of = of.account.as_address();
                    roster::contact(&simulation.store, owner.account.as_address(), of)
                        .unwrap()
                        .map(|contact| contact.relation)
                        .unwrap_or_default()
                };
                let (mine, theirs) = (look(one, two), look(two, one));
                assert!(!mine.is_approved || theirs.approves, "{mine:?} {theirs:?}");
                assert!(!(mine.asks && theirs.shows_presence()), "{mine:?} {theirs:?}");
            }
        }
    }
}
