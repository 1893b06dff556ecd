//! Tests of presence: who is told, when, and what wins.

use std::time::Duration;

use protocol::Code;

use super::super::simulation::{Simulation, code, parameter};

#[test]
fn approved_contacts_are_told_of_each_change_once() {
    let mut simulation = Simulation::new(1);
    let [(alice, a), (bob, b)] = simulation.friends();
    simulation.expect(b, &format!("120 FROM {} STATE=away", bob.device), 250);
    assert_eq!(simulation.take(a), [format!("121 FROM {} STATE=away", bob.account)]);
    simulation.expect(b, &format!("120 FROM {} STATE=away", bob.device), 250);
    assert!(simulation.take(a).is_empty());
    simulation.drop_link(b);
    assert!(simulation.take(a)[0].contains("STATE=offline"));
    let b = simulation.log_in(&bob);
    assert!(simulation.take(a)[0].contains("STATE=away"), "as it was");
    let seen = simulation.take(b);
    assert!(seen.iter().any(|line| line.starts_with("121 ") && line.contains("available")));
    let until = simulation.now.timestamp.plus_ms(60_000);
    let line = format!("120 FROM {} STATE=busy UNTIL={until} ALT=SMS,EMAIL", bob.device);
    simulation.expect(b, &line, 250);
    let told = simulation.take(a);
    assert!(told[0].contains(&format!("STATE=busy UNTIL={until} ALT=SMS,EMAIL")), "{told:?}");
    let query = alice.line_to(Code::PRESENCE_QUERY, &bob.account).finish();
    let answer = simulation.expect(a, &query, 251);
    assert_eq!(parameter(&answer, "UNTIL").unwrap(), until.to_string());
    simulation.advance(Duration::from_secs(60));
    assert!(simulation.take(a)[0].contains("STATE=available"));
}

#[test]
fn presence_is_dropped_where_half_an_outbox_waits() {
    let mut simulation = Simulation::new(2);
    let [(_, a), (bob, b)] = simulation.friends();
    simulation.stall(a, true);
    let query = format!("015 H-ID={}", "x".repeat(32));
    while simulation.pending(a) <= simulation.settings.outbox_octets_max / 2 {
        assert_eq!(code(&simulation.ask(a, &query)), 250);
    }
    simulation.expect(b, &format!("120 FROM {} STATE=away", bob.device), 250);
    assert!(simulation.take(a).is_empty());
    simulation.stall(a, false);
    simulation.expect(b, &format!("120 FROM {} STATE=busy", bob.device), 250);
    assert!(simulation.take(a)[0].contains("STATE=busy"));
}

#[test]
fn invisible_is_offline_but_still_reached() {
    let mut simulation = Simulation::new(3);
    let [(alice, a), (bob, b)] = simulation.friends();
    simulation.expect(b, &format!("120 FROM {} STATE=offline", bob.device), 250);
    assert!(simulation.take(a)[0].contains("STATE=offline"));
    let query = alice.line_to(Code::PRESENCE_QUERY, &bob.account).finish();
    let answer = simulation.expect(a, &query, 251);
    assert_eq!(parameter(&answer, "STATE").as_deref(), Some("offline"));
    simulation.say(b, "013 H-Q=0");
    simulation.expect(
        a,
        &format!("110 TO {} FROM {} TTL=6 H-ID=1", bob.account, alice.device),
        252,
    );
    assert!(simulation.take(b)[0].starts_with("110 "));
}
