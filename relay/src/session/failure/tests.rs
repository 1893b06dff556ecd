//! Every command that commits, against every way in which a commit does not happen.

use std::time::Duration;

use protocol::Code;
use protocol::Command;
use protocol::identifier::MessageId;
use protocol::record::{Record, RecordBuilder};
use protocol::revocation::{Revocation, RevokedBy};

use super::super::ConnectionId;
use super::super::prekey::tests::{one_time, signed};
use super::super::simulation::{Person, Simulation, code, parameter};
use crate::store::{Fault, Store as _};

/// A domain in which alice may send the line of each case, and the line.
struct Case {
    simulation: Simulation,
    alice: Person,
    link: ConnectionId,
    line: String,
    code: u16,
}

const NAMES: [&str; 10] =
    ["600", "601", "602", "611 SPK", "611 OPK", "631", "633", "634", "635", "636"];

fn case(name: &str) -> Case {
    let mut simulation = Simulation::new(1);
    let (bob, _) = simulation.enrol("bob");
    if name == "600" {
        let alice = Person::new("alice");
        let code = simulation.invite(None);
        let link = simulation.connect();
        simulation.prove(link, &alice);
        let line = simulation.registration(&alice, &code);
        return Case { simulation, alice, link, line, code: 250 };
    }
    let (alice, link) = simulation.enrol("alice");
    let record = Record::parse(&Command::parse(alice.record_line.as_bytes()).unwrap()).unwrap();
    let to = |code| alice.line_to(code, &bob.account).finish();
    let now = simulation.now.timestamp;
    let mut code = 250;
    let line = match name {
        "601" => RecordBuilder::after(&record).sign(&alice.identity).unwrap(),
        "602" => Revocation {
            account: alice.account.clone(),
            record: record.name(),
            device: Some("d1".into()),
            by: RevokedBy::Identity,
            at: now,
            id: MessageId::from_octets(&[1; 16]),
        }
        .sign(&alice.identity)
        .unwrap(),
        "611 SPK" => signed(&alice, 1, now),
        "611 OPK" => one_time(&alice, 1, now),
        "631" => to(Code::ROSTER_SET),
        "633" => {
            code = 252;
            to(Code::SUBSCRIBE)
        }
        "634" => to(Code::APPROVE),
        "635" => {
            simulation.expect(link, &to(Code::APPROVE), 250);
            to(Code::DENY)
        }
        _ => to(Code::BLOCK),
    };
    Case { simulation, alice, link, line, code }
}

impl Case {
    /// The line is answered as if nothing had happened before.
    fn succeeds(&mut self, what: &str) {
        let answers = self.simulation.say(self.link, &self.line);
        assert_eq!(code(&answers[0]), self.code, "{what}: {} got {answers:?}", self.line);
    }

    /// Logs in again, or proves the key again where it is not registered.
    fn reconnect(&mut self) -> bool {
        self.link = self.simulation.connect();
        let answer = self.simulation.prove(self.link, &self.alice);
        self.simulation.take(self.link);
        parameter(&answer, "H-Q").is_some()
    }
}

#[test]
fn refusals_are_told_and_nothing_has_happened() {
    for name in NAMES {
        let mut case = case(name);
        for (what, expected, retry) in
            [("busy", 450, true), ("full", 452, false), ("away", 451, true)]
        {
            let store = case.simulation.store.clone();
            let set = |on: bool| match what {
                "busy" => store.set_busy(on),
                "full" => store.with(|store| store.set_full(on)),
                _ => store.with(|store| {
                    store.set_key_away(on.then_some(Duration::from_secs(7)));
                }),
            };
            set(true);
            let answer = case.simulation.expect(case.link, &case.line, expected);
            assert_eq!(parameter(&answer, "RETRY").is_some(), retry, "{name} {what} {answer}");
            set(false);
        }
        case.succeeds(name);
    }
}

#[test]
fn an_unknown_outcome_closes_the_link_and_the_line_sent_again_is_answered_the_same() {
    for name in NAMES {
        for fault in [Fault::UnknownDone, Fault::UnknownUndone] {
            let mut case = case(name);
            case.simulation.store.with(|store| store.fail_next(fault));
            let answers = case.simulation.say(case.link, &case.line);
            assert_eq!(answers.len(), 1, "{name}");
            assert_eq!(code(&answers[0]), 421, "{name}");
            assert!(case.simulation.is_closed(case.link), "{name}");
            case.simulation.store.with(|store| store.reopen());
            // A device that has revoked itself and a person who is registered send nothing again.
            let is_in = case.reconnect();
            match (name, fault) {
                ("602", Fault::UnknownDone) => assert!(!is_in),
                ("600", Fault::UnknownDone) => assert!(is_in),
                _ => case.succeeds(name),
            }
        }
    }
}

#[test]
fn a_crash_between_commit_and_answer_changes_no_answer() {
    for name in NAMES {
        for is_durable in [true, false] {
            let mut case = case(name);
            case.simulation.send(case.link, &case.line);
            if is_durable {
                case.simulation.store.with(|store| store.completions(&mut Vec::new()));
            }
            case.simulation.crash();
            let is_in = case.reconnect();
            match (name, is_durable) {
                ("602", true) => assert!(!is_in),
                ("600", true) => assert!(is_in),
                _ => {
                    case.succeeds(name);
                    if name != "602" && name != "600" {
                        case.succeeds(name);
                    }
                }
            }
        }
    }
}

#[test]
fn a_link_that_is_gone_is_not_answered() {
    let mut case = case("631");
    case.simulation.store.with(|store| store.hold(true));
    case.simulation.send(case.link, &case.line);
    case.simulation.drop_link(case.link);
    case.simulation.store.with(|store| store.hold(false));
    case.simulation.settle();
    assert!(case.simulation.take(case.link).is_empty());
}
