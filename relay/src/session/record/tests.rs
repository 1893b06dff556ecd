//! Tests of records: the chain, what a change drops, and who may look.

use std::time::Duration;

use protocol::record::RecordBuilder;
use protocol::signature::Signer as _;
use protocol::{Code, Suite};

use super::super::connection::ConnectionId;
use super::super::simulation::{Person, Simulation, code, parameter, signer};
use super::*;

fn record_of(person: &Person) -> Record {
    Record::parse(&Command::parse(person.record_line.as_bytes()).unwrap()).unwrap()
}

fn fetch(simulation: &mut Simulation, id: ConnectionId, from: &Person, query: &str) -> String {
    let line = format!("610 TO {} FROM {}{query}", from.account, from.device);
    let answer = simulation.expect(id, &line, 251);
    let record = parameter(&answer, "REC").unwrap();
    String::from_utf8(base64::decode(&record).unwrap()).unwrap()
}

#[test]
fn a_record_follows_the_one_held_and_every_version_is_kept() {
    let mut simulation = Simulation::new(1);
    let (alice, id) = simulation.enrol("alice");
    let first = record_of(&alice);
    let next = RecordBuilder::after(&first).suites(&[Suite::M2]).sign(&alice.identity).unwrap();
    simulation.expect(id, &next, 250);
    assert_eq!(fetch(&mut simulation, id, &alice, ""), next);
    let older = format!(" KR={}", first.name());
    assert_eq!(fetch(&mut simulation, id, &alice, &older), alice.record_line);
    let unknown = format!("610 TO {} FROM {} KR={}", alice.account, alice.device, "A".repeat(43));
    simulation.expect(id, &unknown, 550);
    simulation.expect(id, &next, 250);
    simulation.expect(id, &alice.record_line, 250);
    assert_eq!(
        fetch(&mut simulation, id, &alice, ""),
        next,
        "an older one sent again changes nothing"
    );
}

#[test]
fn violations_of_the_chain_are_refused() {
    let mut simulation = Simulation::new(2);
    let (alice, id) = simulation.enrol("alice");
    let first = record_of(&alice);
    let thief = signer("thief");
    let held = RecordBuilder::after(&first).sign(&alice.identity).unwrap();
    let held_record = Record::parse(&Command::parse(held.as_bytes()).unwrap()).unwrap();
    simulation.expect(id, &held, 250);
    let next = || RecordBuilder::after(&held_record);
    let fork = RecordBuilder::after(&first).suites(&[Suite::M2]).sign(&alice.identity).unwrap();
    let answer = simulation.expect(id, &fork, 455);
    assert_eq!(parameter(&answer, "KR").unwrap(), held_record.name().to_string());
    let start = Person::record(&alice.account).suites(&[Suite::M3]).sign(&alice.identity).unwrap();
    simulation.expect(id, &start, 455);
    let hijacked = next().sign(&thief).unwrap();
    simulation.expect(id, &hijacked, 553);
    let hijacked = next().sign_with(&thief, Some(&thief), None).unwrap();
    simulation.expect(id, &hijacked, 553);
    let now = simulation.now.timestamp;
    let past = protocol::Timestamp(now.0 - 1);
    let expired = next().validity(protocol::Timestamp(0), past).sign(&alice.identity).unwrap();
    simulation.expect(id, &expired, 558);
    let group = next().role(protocol::role::Role::Group).sign(&alice.identity).unwrap();
    simulation.expect(id, &group, 501);
    let broken = next().sign(&alice.identity).unwrap().replace("VER=3", "VER=4");
    simulation.expect(id, &broken, 553);
    let rotated = next().sign_with(&thief, Some(&alice.identity), None).unwrap();
    simulation.expect(id, &rotated, 250);
}

#[test]
fn a_dropped_device_loses_link_and_login() {
    let mut simulation = Simulation::new(3);
    let (alice, first) = simulation.enrol("alice");
    let second = Person::with_device("alice", "d2");
    let both = RecordBuilder::after(&record_of(&alice))
        .device("d2", second.key.public_key())
        .sign(&alice.identity)
        .unwrap();
    simulation.expect(first, &both, 250);
    let other = simulation.log_in(&second);
    let both = Record::parse(&Command::parse(both.as_bytes()).unwrap()).unwrap();
    let without = RecordBuilder::after(&both).without_device("d1").sign(&alice.identity).unwrap();
    simulation.expect(other, &without, 250);
    assert_eq!(code(&simulation.take(first)[0]), 421);
    assert!(simulation.is_closed(first) && !simulation.is_closed(other));
    let id = simulation.connect();
    let answer = simulation.prove(id, &alice);
    assert!(code(&answer) == 250 && parameter(&answer, "H-Q").is_none(), "{answer}");
    let line = format!("610 TO {} FROM {}", alice.account, alice.device);
    simulation.expect(id, &line, 530);
}

#[test]
fn two_records_at_once_and_a_retry_after_a_crash() {
    let mut simulation = Simulation::new(4);
    let (alice, id) = simulation.enrol("alice");
    let first = record_of(&alice);
    let [one, two] = [Suite::M2, Suite::M3]
        .map(|suite| RecordBuilder::after(&first).suites(&[suite]).sign(&alice.identity).unwrap());
    simulation.send(id, &one);
    simulation.send(id, &two);
    simulation.send(id, &one);
    simulation.settle();
    let codes: Vec<u16> = simulation.take(id).iter().map(|answer| code(answer)).collect();
    assert_eq!(codes, [250, 455, 250]);
    let held = Record::parse(&Command::parse(one.as_bytes()).unwrap()).unwrap();
    let next = RecordBuilder::after(&held).sign(&alice.identity).unwrap();
    simulation.send(id, &next);
    simulation.store.with(|store| crate::store::Store::completions(store, &mut Vec::new()));
    simulation.crash();
    let id = simulation.log_in(&alice);
    simulation.expect(id, &next, 250);
    assert_eq!(fetch(&mut simulation, id, &alice, ""), next);
}

#[test]
fn the_domain_shows_its_record_and_policy_to_everybody() {
    let mut simulation = Simulation::new(5);
    let (alice, id) = simulation.enrol("alice");
    simulation.expect(id, &format!("920 FROM {}", alice.device), 451);
    let line = format!("610 TO a.example FROM {}", alice.device);
    simulation.expect(id, &line, 550);
    simulation.provision();
    let answer = simulation.expect(id, &line, 251);
    let record = base64::decode(&parameter(&answer, "REC").unwrap()).unwrap();
    let record = Record::parse(&Command::parse(&record).unwrap()).unwrap();
    assert!(record.device(crate::directory::LOG_DEVICE).is_some());
    let answer = simulation.expect(id, &format!("920 FROM {}", alice.device), 251);
    let policy = base64::decode(&parameter(&answer, "POL").unwrap()).unwrap();
    let policy = Command::parse(&policy).unwrap();
    protocol::policy::Policy::verify(&policy, record.identity()).unwrap();
    let id = simulation.connect();
    simulation.greet(id, &alice);
    simulation.expect(id, "920", 251);
}

/// What a stranger sends to learn about `to`, all with the same H-ID.
fn probes(stranger: &Person, to: &str, id: &str, time: u64) -> Vec<String> {
    let from = &stranger.device;
    let hash = "A".repeat(43);
    let ids = "B".repeat(21) + "A";
    vec![
        format!("610 TO {to} FROM {from} H-ID=x"),
        format!("610 TO {to} FROM {from} KR={hash} H-ID=x"),
        format!("612 TO {to} FROM {from} H-ID=x"),
        format!("122 TO {to} FROM {from} H-ID=x"),
        format!("110 TO {to} FROM {from} TTL=6 H-ID=x"),
        format!("111 TO {to} FROM {from} H-ID=x"),
        format!(
            "100 TO {to} FROM {from} SID={ids} GEN={hash} SEQ=1 TS={time} MID={id} H-ID=x aGVsbG8"
        ),
        format!("130 TO {to} FROM {from} RE={id} VIA=HOLD H-ID=x"),
        format!("633 TO {to} FROM {from} H-ID=x"),
        format!("633 TO {to} FROM {from} H-ID=x"),
        format!("122 TO {to} FROM {from} H-ID=x"),
        format!("610 TO {to} FROM {from} H-ID=x"),
    ]
}

#[test]
fn strangers_learn_nothing() {
    let mut simulation = Simulation::new(6);
    let (mallory, m) = simulation.enrol("mallory");
    let (_, _) = simulation.enrol("available");
    let (busy, b) = simulation.enrol("busy");
    simulation.expect(b, &format!("120 FROM {} STATE=dnd", busy.device), 250);
    let (_, gone) = simulation.enrol("offline");
    simulation.drop_link(gone);
    let (blocker, k) = simulation.enrol("blocker");
    simulation.expect(k, &blocker.line_to(Code::BLOCK, &mallory.account).finish(), 250);
    let (denier, d) = simulation.enrol("denier");
    simulation.expect(d, &denier.line_to(Code::DENY, &mallory.account).finish(), 250);
    let (asker, q) = simulation.enrol("listing");
    simulation.expect(q, &asker.line_to(Code::ROSTER_SET, &mallory.account).finish(), 250);
    simulation.take(m);
    let mut seen: Option<Vec<Vec<String>>> = None;
    for name in ["nobody", "available", "busy", "offline", "blocker", "denier", "listing"] {
        let to = format!("{name}@a.example");
        let id = simulation.message_id().to_string();
        let time = simulation.now.timestamp.0;
        let answers: Vec<Vec<String>> =
            probes(&mallory, &to, &id, time).iter().map(|line| simulation.say(m, line)).collect();
        match &seen {
            None => seen = Some(answers),
            Some(first) => assert_eq!(&answers, first, "{name}"),
        }
    }
    simulation.advance(Duration::from_secs(1));
    assert!(simulation.take(m).is_empty(), "nor later");
}

#[test]
fn where_users_are_not_hidden_strangers_fetch_records_but_see_no_presence() {
    let mut settings = super::super::Settings::defaults("a.example");
    settings.hides_users = false;
    let mut simulation = Simulation::with_settings(7, settings);
    let (mallory, m) = simulation.enrol("mallory");
    let (alice, _) = simulation.enrol("alice");
    simulation.expect(m, &mallory.line_to(Code::RECORD_FETCH, &alice.account).finish(), 251);
    simulation.expect(m, &mallory.line_to(Code::PREKEYS_TAKE, &alice.account).finish(), 251);
    let answer =
        simulation.expect(m, &mallory.line_to(Code::PRESENCE_QUERY, &alice.account).finish(), 251);
    assert_eq!(parameter(&answer, "STATE").as_deref(), Some("offline"));
    let nobody = AddressBuf::parse("nobody@a.example").unwrap();
    simulation.expect(m, &mallory.line_to(Code::RECORD_FETCH, &nobody).finish(), 550);
}

#[test]
fn who_asks_shows_its_record_to_whom_it_asks() {
    let mut simulation = Simulation::new(8);
    let (alice, a) = simulation.enrol("alice");
    let (bob, b) = simulation.enrol("bob");
    let fetch = bob.line_to(Code::RECORD_FETCH, &alice.account).finish();
    simulation.expect(b, &fetch, 550);
    simulation.expect(a, &alice.line_to(Code::SUBSCRIBE, &bob.account).finish(), 252);
    simulation.take(b);
    simulation.expect(b, &fetch, 251);
    simulation.expect(a, &alice.line_to(Code::RECORD_FETCH, &bob.account).finish(), 550);
    let foreign = AddressBuf::parse("bob@b.example").unwrap();
    simulation.expect(a, &alice.line_to(Code::RECORD_FETCH, &foreign).finish(), 550);
}
