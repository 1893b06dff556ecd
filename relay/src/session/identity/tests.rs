//! Tests of logins: what a thief, a replay and a stranger get.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use protocol::proof::{ALPN_CLIENT, Proof};
use protocol::signature::Signer as _;
use protocol::{AddressBuf, Code};

use super::super::Settings;
use super::super::simulation::{DOMAIN, Person, Simulation, code, exporter, signer};
use super::*;

#[test]
fn the_proof_holds_for_one_nonce_one_link_one_server_and_one_name() {
    let mut simulation = Simulation::new(1);
    let (alice, _) = simulation.enrol("alice");
    let bob = Person::new("bob");
    let other = simulation.connect();
    simulation.greet(other, &alice);
    let other_nonce = simulation.challenge(other, &alice);
    type Proving<'a> = Proof<'a>;
    let id = simulation.connect();
    simulation.greet(id, &alice);
    let nonce = simulation.challenge(id, &alice);
    let own = exporter(id);
    let foreign = exporter(other);
    let right = Proving {
        exporter: &own,
        nonce: &nonce,
        alpn: ALPN_CLIENT,
        server_domain: DOMAIN,
        address: alice.device.as_address(),
        key: alice.key.public_key(),
    };
    let wrong = [
        ("exporter", Proof { exporter: &foreign, ..right }),
        ("nonce", Proof { nonce: &other_nonce, ..right }),
        ("alpn", Proof { alpn: "cim1-d", ..right }),
        ("domain", Proof { server_domain: "b.example", ..right }),
        ("address", Proof { address: bob.device.as_address(), ..right }),
        ("key", Proof { key: bob.key.public_key(), ..right }),
    ];
    for (what, proof) in wrong {
        let id = simulation.connect();
        simulation.greet(id, &alice);
        // The same nonce for every link would need the same randomness: the proof of the first
        // link's nonce is what a replay would be.
        simulation.challenge(id, &alice);
        let signature = protocol::base64::encode(&alice.key.sign(&proof.octets()).unwrap());
        let answer = simulation.ask(id, &format!("012 FROM {} - {signature}", alice.device));
        assert_eq!(code(&answer), 535, "{what}");
    }
    let signature = protocol::base64::encode(&alice.key.sign(&right.octets()).unwrap());
    let line = format!("012 FROM {} - {signature}", alice.device);
    let again = simulation.connect();
    simulation.greet(again, &alice);
    simulation.challenge(again, &alice);
    simulation.expect(again, &line, 535);
    simulation.expect(id, &line, 250);
    simulation.expect(id, &line, 503);
}

#[test]
fn a_nonce_serves_one_proof() {
    let mut simulation = Simulation::new(2);
    let (alice, _) = simulation.enrol("alice");
    let id = simulation.connect();
    simulation.greet(id, &alice);
    let nonce = simulation.challenge(id, &alice);
    let bad = format!("012 FROM {} - {}", alice.device, "A".repeat(86));
    simulation.expect(id, &bad, 535);
    let good = simulation.proof(id, &alice, &nonce);
    simulation.expect(id, &good, 503);
    let nonce = simulation.challenge(id, &alice);
    let good = simulation.proof(id, &alice, &nonce);
    simulation.expect(id, &good, 250);
}

#[test]
fn nobody_claims_another_device_midway() {
    let mut simulation = Simulation::new(3);
    let (alice, _) = simulation.enrol("alice");
    let (bob, _) = simulation.enrol("bob");
    let id = simulation.connect();
    simulation.greet(id, &alice);
    let key = bob.key.public_key();
    let line = bob.line(Code::IDENTITY).parameter("ALG", key.algorithm().name());
    simulation.expect(id, &line.body(key.as_octets()), 521);
    let nonce = simulation.challenge(id, &alice);
    let proof = simulation.proof(id, &bob, &nonce);
    simulation.expect(id, &proof, 521);
    let other = simulation.connect();
    simulation.expect(other, "010 FROM eve@b.example/d1 VER=1", 521);
    simulation.expect(other, "010 FROM eve@a.example/d1 VER=2", 501);
    simulation.expect(other, "010 FROM eve@a.example VER=1", 510);
}

#[test]
fn a_device_sends_only_as_itself() {
    let mut simulation = Simulation::new(4);
    let (alice, a) = simulation.enrol("alice");
    let (bob, _) = simulation.enrol("bob");
    let second = AddressBuf::with_device(alice.account.as_address(), "d2").unwrap();
    for from in [bob.device.as_str(), bob.account.as_str(), second.as_str(), "a.example"] {
        for line in [
            format!("120 FROM {from} STATE=busy"),
            format!("610 TO {} FROM {from}", bob.account),
            format!("612 TO {} FROM {from}", bob.account),
            format!("630 FROM {from}"),
            format!("633 TO {} FROM {from}", bob.account),
            format!("110 TO {} FROM {from} TTL=6", bob.account),
        ] {
            let code = code(&simulation.ask(a, &line));
            assert!(code == 521 || code == 510, "{line} got {code}");
        }
    }
    let record = bob.record_line.clone();
    simulation.expect(a, &record, 521);
}

#[test]
fn before_the_proof_nothing_else_is_taken() {
    let mut simulation = Simulation::new(5);
    let (alice, _) = simulation.enrol("alice");
    let id = simulation.connect();
    let lines = [
        "013 H-Q=0".to_owned(),
        format!("120 FROM {} STATE=busy", alice.device),
        format!("610 TO {} FROM {}", alice.account, alice.device),
        format!("630 FROM {}", alice.device),
        alice.record_line.clone(),
    ];
    for step in 0..3 {
        for line in &lines {
            simulation.expect(id, line, 530);
        }
        match step {
            0 => simulation.greet(id, &alice),
            1 => drop(simulation.challenge(id, &alice)),
            _ => {}
        }
    }
    simulation.expect(id, "015", 250);
    simulation.expect(id, "999 FROM a@b", 502);
}

#[test]
fn an_unknown_user_logs_in_like_one_whose_key_is_wrong() {
    let mut simulation = Simulation::new(6);
    simulation.enrol("alice");
    let known = Person { key: signer("another key"), ..Person::new("alice") };
    let unknown = Person { key: signer("another key"), ..Person::new("nobody") };
    let [first, second] = [known, unknown].map(|person| {
        let id = simulation.connect();
        simulation.greet(id, &person);
        let key = person.key.public_key();
        let line = person.line(Code::IDENTITY).parameter("ALG", key.algorithm().name());
        let answer = simulation.ask(id, &line.body(key.as_octets()));
        let nonce = super::super::simulation::parameter(&answer, "NONCE").unwrap();
        let proof = simulation.proof(id, &person, &nonce);
        (answer.replace(&nonce, ""), simulation.ask(id, &proof))
    });
    assert_eq!(first, second);
    assert!(!first.1.contains("H-Q="));
}

#[test]
fn failures_close_the_link_at_their_limit() {
    let mut simulation = Simulation::new(7);
    let (alice, _) = simulation.enrol("alice");
    let id = simulation.connect();
    simulation.greet(id, &alice);
    let bad = format!("012 FROM {} - {}", alice.device, "A".repeat(86));
    for failure in 1..=limits::FAILURES_MAX {
        assert!(!simulation.is_closed(id), "{failure}");
        simulation.challenge(id, &alice);
        let answers = simulation.say(id, &bad);
        assert_eq!(code(&answers[0]), 535);
        assert_eq!(answers.len() == 2, failure == limits::FAILURES_MAX);
    }
    assert!(simulation.is_closed(id));
}

#[test]
fn logins_are_counted_for_each_network() {
    let settings = Settings { logins_per_minute: 7, ..Settings::defaults(DOMAIN) };
    let mut simulation = Simulation::with_settings(8, settings);
    let (alice, _) = simulation.enrol("alice");
    let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let key = alice.key.public_key();
    let line = alice.line(Code::IDENTITY).parameter("ALG", key.algorithm().name());
    let line = line.body(key.as_octets());
    for login in 0..7 {
        let id = simulation.connect_from(address);
        simulation.greet(id, &alice);
        let answer = simulation.ask(id, &line);
        assert_eq!(code(&answer), 334, "{login}");
    }
    let id = simulation.connect_from(address);
    simulation.greet(id, &alice);
    let answer = simulation.expect(id, &line, 453);
    assert!(answer.contains("RETRY=60") && answer.contains("7 logins"), "{answer}");
    let elsewhere = simulation.connect();
    simulation.greet(elsewhere, &alice);
    simulation.expect(elsewhere, &line, 334);
    simulation.advance(Duration::from_secs(20));
    let answer = simulation.expect(id, &line, 453);
    assert!(answer.contains("RETRY=40"), "{answer}");
    simulation.advance(Duration::from_secs(40));
    let id = simulation.connect_from(address);
    simulation.greet(id, &alice);
    simulation.expect(id, &line, 334);
}

#[test]
fn links_close_when_nothing_comes() {
    let (login, idle) = (Duration::from_secs(5), Duration::from_secs(40));
    let settings =
        Settings { login_time_max: login, idle_time_max: idle, ..Settings::defaults(DOMAIN) };
    let mut simulation = Simulation::with_settings(9, settings);
    let (_, a) = simulation.enrol("alice");
    let slow = simulation.connect();
    simulation.advance(login - Duration::from_millis(1));
    simulation.say(slow, "015");
    assert!(!simulation.is_closed(slow));
    simulation.advance(Duration::from_millis(1));
    assert_eq!(simulation.take(slow), ["421 :no login in 5 s"]);
    assert!(simulation.is_closed(slow), "a ping does not make it longer");
    simulation.expect(a, "015", 250);
    simulation.advance(idle - Duration::from_millis(1));
    assert!(!simulation.is_closed(a));
    simulation.advance(Duration::from_millis(1));
    assert_eq!(simulation.take(a), ["421 :no line came for 40 s"]);
    assert!(simulation.is_closed(a));
}

#[test]
fn octets_of_a_line_without_end_are_no_sign_of_life() {
    let settings =
        Settings { idle_time_max: Duration::from_secs(40), ..Settings::defaults(DOMAIN) };
    let mut simulation = Simulation::with_settings(11, settings);
    let (_, a) = simulation.enrol("alice");
    simulation.expect(a, "015", 250);
    for _ in 0..39 {
        simulation.advance(Duration::from_secs(1));
        simulation.domain.received(a, b"0", simulation.now);
        simulation.settle();
        assert!(!simulation.is_closed(a));
    }
    simulation.advance(Duration::from_secs(1));
    assert_eq!(simulation.take(a), ["421 :no line came for 40 s"]);
    assert!(simulation.is_closed(a));
}

#[test]
fn a_store_that_does_not_read_is_no_failed_proof() {
    let mut simulation = Simulation::new(10);
    let (alice, _) = simulation.enrol("alice");
    simulation.crash();
    let row = crate::directory::account_row(alice.account.as_address());
    let good = simulation.store.with(|store| crate::store::Store::get(store, &row)).unwrap();
    simulation.put(row.clone(), b"damaged".to_vec());
    let id = simulation.connect();
    let answer = simulation.prove(id, &alice);
    assert_eq!(code(&answer), 451);
    simulation.put(row, good.unwrap());
    simulation.crash();
    simulation.log_in(&alice);
}
