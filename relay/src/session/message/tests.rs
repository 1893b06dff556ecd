//! Messages between people over a domain that plays by the rules, and what it refuses.

use protocol::identifier::{KeyCommitment, RecordName};
use protocol::signature::Signer as _;
use protocol::{Code, Command};

use super::super::ledger::{Talk, answer, befriend, friends, numbered, queued};
use super::super::simulation::{Person, Simulation, code, parameter};

#[test]
fn a_line_waits_until_its_device_takes_up_its_queue() {
    let mut simulation = Simulation::new(1);
    let (alice, at_alice) = simulation.enrol("alice");
    let (bob, at_bob) = simulation.enrol("bob");
    let mut talk = Talk::new(&alice, &bob.account);
    let (first, _) = talk.message(&mut simulation);
    simulation.expect(at_alice, &first, 252);
    assert!(simulation.take(at_bob).is_empty(), "nothing before 013");
    let got = simulation.say(at_bob, "013 H-Q=0 H-ID=7");
    assert_eq!((code(&got[0]), parameter(&got[0], "H-Q")), (250, Some("1".into())));
    assert_eq!(numbered(&got[1]), Some((1, first.clone())));
    let command = Command::parse(got[1].as_bytes()).unwrap();
    assert_eq!(command.parameter("H-DEV"), Some("d1"));
    assert!(command.parameter("H-RCVD").is_some());
    let (second, _) = talk.message(&mut simulation);
    simulation.expect(at_alice, &second, 252);
    let got = simulation.take(at_bob);
    assert_eq!(numbered(&got[0]), Some((2, second.clone())));
    simulation.expect(at_bob, "014 H-Q=1 H-ID=x", 250);
    simulation.crash();
    let at_bob = simulation.log_in(&bob);
    let got = simulation.say(at_bob, "013 H-Q=0");
    assert_eq!(got.len(), 2);
    assert_eq!(numbered(&got[1]), Some((2, second)));
    assert!(simulation.say(at_bob, "014 H-Q=2").is_empty(), "answered only if asked");
    assert_eq!(simulation.say(at_bob, "013 H-Q=0").len(), 1);
}

#[test]
fn a_repeat_gets_the_first_answer_and_another_line_554() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(2);
    let mut talk = Talk::new(&alice, &bob.account);
    let (line, _) = talk.message(&mut simulation);
    for _ in 0..3 {
        assert_eq!(answer(&mut simulation, at_alice, &line), 250);
    }
    assert_eq!(queued(&mut simulation, at_bob).len(), 1);
    assert_eq!(answer(&mut simulation, at_alice, &line.replace("SEQ=1", "SEQ=2")), 554);
    simulation.drop_link(at_bob);
    assert_eq!(answer(&mut simulation, at_alice, &line), 250, "though nobody is there now");
    let (second, _) = talk.message(&mut simulation);
    assert_eq!(answer(&mut simulation, at_alice, &second), 252);
    simulation.crash();
    let at_alice = simulation.log_in(&alice);
    assert_eq!(answer(&mut simulation, at_alice, &line), 250);
    assert_eq!(answer(&mut simulation, at_alice, &second), 252);
    assert_eq!(answer(&mut simulation, at_alice, &line.replace("SEQ=1", "SEQ=2")), 554);
    let at_bob = simulation.log_in(&bob);
    simulation.say(at_bob, "014 H-Q=2");
    assert_eq!(answer(&mut simulation, at_alice, &second), 252);
}

#[test]
fn a_device_that_leaves_before_the_commit_was_not_reached() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(3);
    let (line, _) = Talk::new(&alice, &bob.account).message(&mut simulation);
    simulation.store.with(|store| store.hold(true));
    assert!(simulation.say(at_alice, &line).is_empty(), "nothing is answered before it is true");
    assert!(queued(&mut simulation, at_bob).is_empty());
    simulation.drop_link(at_bob);
    simulation.store.with(|store| store.hold(false));
    simulation.settle();
    let codes: Vec<u16> = simulation.take(at_alice).iter().map(|line| code(line)).collect();
    assert!(codes.contains(&252) && !codes.contains(&250), "{codes:?}");
    assert_eq!(answer(&mut simulation, at_alice, &line), 252, "the first answer again");
}

#[test]
fn strangers_learn_nothing() {
    let mut simulation = Simulation::new(4);
    let (alice, at_alice) = simulation.enrol("alice");
    let (bob, at_bob) = simulation.enrol("bob");
    simulation.say(at_bob, "013 H-Q=0");
    let nobody = Person::new("nobody");
    let mut talk = Talk::new(&alice, &bob.account);
    let mut send = |simulation: &mut Simulation, to: &Person| {
        talk.to = to.account.clone();
        let (line, _) = talk.message(simulation);
        simulation.say(at_alice, &line)
    };
    let expected = send(&mut simulation, &bob);
    assert_eq!(queued(&mut simulation, at_bob).len(), 1);
    for state in ["away", "busy", "dnd", "available"] {
        let line = format!("120 FROM {} STATE={state}", bob.device);
        assert_eq!(answer(&mut simulation, at_bob, &line), 250);
        assert_eq!(send(&mut simulation, &bob), expected, "{state}");
    }
    simulation.drop_link(at_bob);
    assert_eq!(send(&mut simulation, &bob), expected, "offline");
    assert_eq!(send(&mut simulation, &nobody), expected, "unknown");
    let at_bob = simulation.log_in(&bob);
    let block = bob.line_to(Code::BLOCK, &alice.account).finish();
    assert_eq!(answer(&mut simulation, at_bob, &block), 250);
    assert_eq!(send(&mut simulation, &bob), expected, "blocked");
    let got = simulation.say(at_bob, "013 H-Q=0");
    assert_eq!(got.len(), 1 + 6, "six lines reached the queue, the blocked one did not");
}

#[test]
fn a_domain_that_hides_nobody_says_so() {
    let mut settings = super::super::Settings::defaults(super::super::simulation::DOMAIN);
    settings.hides_users = false;
    let mut simulation = Simulation::with_settings(5, settings);
    let (alice, at_alice) = simulation.enrol("alice");
    let nobody = Person::new("nobody");
    let (line, _) = Talk::new(&alice, &nobody.account).message(&mut simulation);
    simulation.expect(at_alice, &line, 550);
    let elsewhere = line.replace("@a.example FROM", "@b.example FROM");
    simulation.expect(at_alice, &elsewhere, 550);
}

#[test]
fn lines_that_are_wrong_are_refused() {
    let (mut simulation, (alice, at_alice), (bob, _)) = friends(6);
    let (line, _) = Talk::new(&alice, &bob.account).message(&mut simulation);
    let now = simulation.now.timestamp.0;
    let at = |ms: u64| line.replace(&format!("TS={now}"), &format!("TS={ms}"));
    assert_eq!(answer(&mut simulation, at_alice, &at(now + 300_001)), 501);
    assert_eq!(answer(&mut simulation, at_alice, &at(now + 300_000)), 250);
    for (from, to, expected) in [
        (" FROM alice", " FROM bob", 521),
        (" MID=", " MIX=", 501),
        (" SEQ=1", " SEQ=0", 501),
        (" TO bob@a.example", " TO bob@a.example/d1", 510),
    ] {
        let wrong = line.replace(from, to);
        assert_eq!(answer(&mut simulation, at_alice, &wrong), expected, "{wrong}");
    }
}

/// A 700 line from one person's device to another's.
fn offer(simulation: &mut Simulation, from: &Person, to: &Person, is_signed: u8) -> String {
    let hash = RecordName::from_octets(&[3; 32]);
    let line = Talk::new(from, &to.device).begin(simulation, Code::OFFER).0.finish();
    let (head, tail) = line.split_once(" SEQ=1").unwrap();
    let with = format!("{},{}", from.account, to.account);
    let line = format!(
        "{head} SUITE=M1 WITH={with} MEM={hash} SIGNED={is_signed} KR={hash} KF={hash} SPK=1{tail}"
    );
    signed(from, &line, &[5; 32 + 1_088 + 40])
}

/// A line without slots, signed with a body.
fn signed(from: &Person, line: &str, body: &[u8]) -> String {
    let with_body = format!("{line} {}", protocol::base64::encode(body));
    let tbs = Command::parse(with_body.as_bytes()).unwrap().tbs();
    let signature = from.key.sign(&tbs).unwrap();
    format!("{with_body} {}", protocol::base64::encode(&signature))
}

#[test]
fn signed_sessions_take_only_signed_lines() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(7);
    let line = offer(&mut simulation, &alice, &bob, 1);
    let bad = line.replace("SPK=1", "SPK=2");
    assert_eq!(answer(&mut simulation, at_alice, &bad), 553);
    assert_eq!(answer(&mut simulation, at_alice, &line.replace("SUITE=M1", "SUITE=L1")), 504);
    assert_eq!(answer(&mut simulation, at_alice, &line), 250);
    for crash in [false, true] {
        if crash {
            simulation.crash();
        }
        let at_alice = if crash { simulation.log_in(&alice) } else { at_alice };
        let at_bob = if crash { simulation.log_in(&bob) } else { at_bob };
        for (from, to, link) in [(&alice, &bob, at_alice), (&bob, &alice, at_bob)] {
            let mut talk = Talk::new(from, &to.account);
            let (plain, _) = talk.message(&mut simulation);
            assert_eq!(answer(&mut simulation, link, &plain), 553);
            let commitment = KeyCommitment::from_octets(&[4; 32]);
            let (line, _) = talk.begin(&mut simulation, Code::MESSAGE);
            let line = signed(from, &line.parameter("KC", commitment).finish(), b"sealed");
            assert_eq!(answer(&mut simulation, link, &line.replace("SEQ=2", "SEQ=3")), 553);
            let code = answer(&mut simulation, link, &line);
            assert!(matches!(code, 250 | 252), "{code}");
            talk.session = protocol::identifier::SessionId::from_octets(&[8; 16]);
            let (other, _) = talk.message(&mut simulation);
            let code = answer(&mut simulation, link, &other);
            assert!(matches!(code, 250 | 252), "another session: {code}");
        }
    }
}

#[test]
fn a_domain_may_ask_for_signatures_always() {
    let mut settings = super::super::Settings::defaults(super::super::simulation::DOMAIN);
    settings.requires_signatures = true;
    let mut simulation = Simulation::with_settings(8, settings);
    let (alice, at_alice) = simulation.enrol("alice");
    let (bob, _) = simulation.enrol("bob");
    let (line, _) = Talk::new(&alice, &bob.account).message(&mut simulation);
    simulation.expect(at_alice, &line, 553);
}

#[test]
fn the_senders_other_devices_get_copies() {
    let mut simulation = Simulation::new(9);
    let mut phone = Person::new("alice");
    let desk = Person::with_device("alice", "d2");
    phone.record_line = Person::record(&phone.account)
        .device("d1", phone.key.public_key())
        .device("d2", desk.key.public_key())
        .sign(&phone.identity)
        .unwrap();
    let at_phone = simulation.register(&phone);
    let at_desk = simulation.log_in(&desk);
    let (bob, at_bob) = simulation.enrol("bob");
    befriend(&mut simulation, (&phone, at_phone), (&bob, at_bob));
    for link in [at_phone, at_desk, at_bob] {
        simulation.say(link, "013 H-Q=0");
    }
    let (line, _) = Talk::new(&phone, &bob.account).message(&mut simulation);
    assert_eq!(answer(&mut simulation, at_phone, &line), 250);
    assert_eq!(queued(&mut simulation, at_bob), std::slice::from_ref(&line));
    assert_eq!(queued(&mut simulation, at_desk), [line]);
    let (line, _) = Talk::new(&bob, &phone.account).message(&mut simulation);
    assert_eq!(answer(&mut simulation, at_bob, &line), 250);
    for link in [at_phone, at_desk] {
        assert_eq!(queued(&mut simulation, link), std::slice::from_ref(&line));
    }
    simulation.drop_link(at_bob);
    let (line, _) = Talk::new(&phone, &bob.account).message(&mut simulation);
    assert_eq!(answer(&mut simulation, at_phone, &line), 252, "a copy reaches nobody");
    let (line, _) = Talk::new(&phone, &phone.account).message(&mut simulation);
    assert_eq!(answer(&mut simulation, at_phone, &line), 250, "to oneself");
}

#[test]
fn typing_is_passed_to_friends_and_never_queued() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(10);
    let line = alice.line_to(Code::TYPING, &bob.account).parameter("TTL", 6).finish();
    assert!(simulation.say(at_alice, &line).is_empty(), "answered only if asked");
    assert_eq!(simulation.take(at_bob), std::slice::from_ref(&line));
    let asked = format!("{line} H-ID=1");
    assert_eq!(answer(&mut simulation, at_alice, &asked), 252);
    simulation.take(at_bob);
    let (carol, at_carol) = simulation.enrol("carol");
    let stranger = carol.line_to(Code::TYPING, &bob.account).parameter("TTL", 6);
    let stranger = stranger.parameter("H-ID", 1).finish();
    assert_eq!(answer(&mut simulation, at_carol, &stranger), 252);
    assert!(simulation.take(at_bob).is_empty());
    simulation.drop_link(at_bob);
    assert_eq!(answer(&mut simulation, at_alice, &asked), 252);
    let at_bob = simulation.log_in(&bob);
    let got = simulation.say(at_bob, "013 H-Q=0");
    assert!(got.iter().all(|line| !line.starts_with("110")), "{got:?}");
}

#[test]
fn disk_full_and_token_away_are_said_and_end() {
    let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(11);
    let mut talk = Talk::new(&alice, &bob.account);
    let (first, _) = talk.message(&mut simulation);
    let (second, _) = talk.message(&mut simulation);
    assert_eq!(answer(&mut simulation, at_alice, &first), 250);
    simulation.store.with(|store| store.set_full(true));
    assert_eq!(answer(&mut simulation, at_alice, &second), 452);
    assert_eq!(answer(&mut simulation, at_alice, &first), 250, "a repeat is still known");
    simulation.store.with(|store| store.set_full(false));
    simulation.store.with(|store| store.set_key_away(Some(std::time::Duration::from_secs(9))));
    let got = simulation.say(at_alice, &second);
    assert_eq!((code(&got[0]), parameter(&got[0], "RETRY")), (451, Some("9".into())));
    simulation.store.with(|store| store.set_key_away(None));
    assert_eq!(answer(&mut simulation, at_alice, &second), 250);
    assert_eq!(queued(&mut simulation, at_bob), [first, second]);
}

#[test]
fn an_unknown_outcome_closes_the_link_and_the_repeat_tells() {
    use crate::store::Fault;
    for (fault, expected) in [(Fault::UnknownDone, 252), (Fault::UnknownUndone, 250)] {
        let (mut simulation, (alice, at_alice), (bob, at_bob)) = friends(12);
        let mut talk = Talk::new(&alice, &bob.account);
        let (line, _) = talk.message(&mut simulation);
        simulation.drop_link(at_bob);
        simulation.store.with(|store| store.fail_next(fault));
        assert_eq!(answer(&mut simulation, at_alice, &line), 421);
        assert!(simulation.is_closed(at_alice));
        let at_alice = simulation.log_in(&alice);
        assert_eq!(answer(&mut simulation, at_alice, &line), 451, "the store has stopped");
        let at_bob = simulation.log_in(&bob);
        simulation.say(at_bob, "013 H-Q=0");
        simulation.take(at_bob);
        simulation.store.with(|store| store.reopen());
        assert_eq!(answer(&mut simulation, at_alice, &line), expected);
        simulation.settle();
        let (next, _) = talk.message(&mut simulation);
        answer(&mut simulation, at_alice, &next);
        let got = queued(&mut simulation, at_bob);
        assert!(got == [line, next.clone()] || got == [next], "{got:?}");
    }
}
