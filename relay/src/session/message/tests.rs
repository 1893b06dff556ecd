//! Messages between two people over a domain that plays by the rules.

use protocol::Command;

use super::super::ledger::{Talk, numbered};
use super::super::simulation::{Simulation, code, parameter};

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
    let mut simulation = Simulation::new(2);
    let (alice, at_alice) = simulation.enrol("alice");
    let (bob, at_bob) = simulation.enrol("bob");
    let mut talk = Talk::new(&alice, &bob.account);
    let (line, _) = talk.message(&mut simulation);
    simulation.say(at_bob, "013 H-Q=0");
    for _ in 0..3 {
        simulation.expect(at_alice, &line, 252);
    }
    assert_eq!(simulation.take(at_bob).len(), 1);
    simulation.expect(at_alice, &line.replace("SEQ=1", "SEQ=2"), 554);
    simulation.crash();
    let at_alice = simulation.log_in(&alice);
    simulation.expect(at_alice, &line, 252);
    simulation.expect(at_alice, &line.replace("SEQ=1", "SEQ=2"), 554);
    let at_bob = simulation.log_in(&bob);
    assert_eq!(simulation.say(at_bob, "013 H-Q=0").len(), 2);
}
