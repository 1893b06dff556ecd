//! Both sides of a login, speaking to each other and to strangers.

use super::{client, server};
use crate::capability::Capabilities;
use crate::identifier::Nonce;
use crate::record::RecordBuilder;
use crate::registration::{Admission, Registration};
use crate::signature::{Signer as _, SoftwareSigner};
use crate::table::State;
use crate::{Address, Command, Error, Reply, Suite, Timestamp};

const EXPORTER: [u8; 32] = [9; 32];

fn address(text: &str) -> Address<'_> {
    Address::parse(text).unwrap()
}

fn key(seed: u8) -> SoftwareSigner {
    SoftwareSigner::ed25519(&[seed; 32]).unwrap()
}

fn relay() -> server::Handshake {
    server::Handshake::new(address("a.example"), "cim1", Capabilities::full(1 << 31))
}

fn caller() -> client::Handshake {
    let device = address("alice@a.example/d1");
    let own = Capabilities { line_octets_max: 32_768, ..Capabilities::full(1 << 20) };
    client::Handshake::new(device, key(1).public_key().clone(), "cim1", EXPORTER, own)
}

fn hear(caller: &mut client::Handshake, line: &str) -> Result<client::Step, client::Failure> {
    caller.receive(&Reply::parse(line.trim_end().as_bytes()).unwrap())
}

fn say(relay: &mut server::Handshake, line: &str) -> Result<server::Step, Error> {
    let nonce = Nonce::from_octets(&[5; 32]);
    relay.receive(&Command::parse(line.as_bytes()).unwrap(), nonce, &EXPORTER)
}

/// Runs a login up to the proof; gives the claim.
fn up_to_proof(relay: &mut server::Handshake, caller: &mut client::Handshake) -> server::Claim {
    let mut line = relay.greeting();
    loop {
        let spoken = match hear(caller, &line).unwrap() {
            client::Step::Send(spoken) => spoken,
            client::Step::Sign(octets) => caller.signed(&key(1).sign(&octets).unwrap()).unwrap(),
            step => panic!("{step:?}"),
        };
        match say(relay, &spoken).unwrap() {
            server::Step::Reply(reply) => line = reply,
            server::Step::Prove(claim) => return claim,
        }
    }
}

#[test]
fn a_known_device_gets_in() {
    let (mut relay, mut caller) = (relay(), caller());
    let claim = up_to_proof(&mut relay, &mut caller);
    assert_eq!(claim.verify(), Ok(()));
    let reply = relay.settle(&claim, server::Outcome::Known { queue: 1_041 });
    assert_eq!(hear(&mut caller, &reply), Ok(client::Step::Ready { queue: 1_041 }));
    assert_eq!(relay.state(), State::Proven);
    assert_eq!(*relay.capabilities(), caller.capabilities());
    assert_eq!(caller.capabilities().line_octets_max, 32_768);
    assert_eq!(caller.capabilities().suites.as_slice(), [Suite::M1, Suite::M2]);
}

#[test]
fn an_unknown_device_may_register_and_nothing_else() {
    let (mut relay, mut caller) = (relay(), caller());
    let claim = up_to_proof(&mut relay, &mut caller);
    let reply = relay.settle(&claim, server::Outcome::Unknown);
    assert_eq!(hear(&mut caller, &reply), Ok(client::Step::Register));
    let record = |device: &str, seed: u8| {
        RecordBuilder::new(address("alice@a.example"), Timestamp(1), Timestamp(2))
            .device(device, key(seed).public_key())
            .sign(&key(7))
            .unwrap()
    };
    let admission = Admission::Invitation("let me in".into());
    let line = caller.register(&admission, &record("d1", 1)).unwrap();
    let registration = relay.registration(&Command::parse(line.as_bytes()).unwrap()).unwrap();
    assert_eq!(registration.admission, admission);
    assert_eq!(registration.record_line, record("d1", 1));
    for (device, seed) in [("d2", 1), ("d1", 2)] {
        let alice = address("alice@a.example");
        let line = Registration::write(alice, &admission, "4", &record(device, seed));
        let refused = relay.registration(&Command::parse(line.as_bytes()).unwrap());
        assert_eq!(refused.map(|_| ()).map_err(Error::reply_code), Err(553), "{device} {seed}");
    }
    let refused = crate::table::check(
        &Command::parse(b"630 FROM alice@a.example/d1").unwrap(),
        &relay.link(),
    );
    assert_eq!(refused.map(|_| ()), Err(Error::LogInFirst));
    let reply = relay.registered(Some("4"));
    assert_eq!(hear(&mut caller, &reply), Ok(client::Step::Ready { queue: 0 }));
    assert_eq!(relay.state(), State::Proven);
}

#[test]
fn a_proof_holds_on_its_own_link_only() {
    let (mut first, mut caller_of_first) = (relay(), caller());
    let claim = up_to_proof(&mut first, &mut caller_of_first);
    let stolen = crate::base64::encode(&claim.signature);
    let mut second = relay();
    say(&mut second, "010 FROM alice@a.example/d1 VER=1").unwrap();
    let body = crate::base64::encode(key(1).public_key().as_octets());
    let identity = format!("011 FROM alice@a.example/d1 ALG=ed25519 {body}");
    let nonce = Nonce::from_octets(&[6; 32]);
    second.receive(&Command::parse(identity.as_bytes()).unwrap(), nonce, &EXPORTER).unwrap();
    let proof = format!("012 FROM alice@a.example/d1 - {stolen}");
    let server::Step::Prove(claim) = say(&mut second, &proof).unwrap() else { panic!() };
    assert!(claim.verify().is_err(), "another nonce");
}

#[test]
fn failed_proofs_are_counted_and_burn_the_nonce() {
    let mut relay = relay();
    say(&mut relay, "010 FROM alice@a.example/d1 VER=1").unwrap();
    let body = crate::base64::encode(key(1).public_key().as_octets());
    for _ in 0..server::PROOF_FAILURES_MAX {
        assert!(!relay.is_exhausted());
        say(&mut relay, &format!("011 FROM alice@a.example/d1 ALG=ed25519 {body}")).unwrap();
        let server::Step::Prove(claim) =
            say(&mut relay, "012 FROM alice@a.example/d1 - c2ln").unwrap()
        else {
            panic!()
        };
        assert!(claim.verify().is_err());
        for meanwhile in [
            "012 FROM alice@a.example/d1 - c2ln",
            "011 FROM alice@a.example/d1 ALG=ed25519 AAAA",
            "010 FROM alice@a.example/d1 VER=1",
        ] {
            assert_eq!(say(&mut relay, meanwhile).map(|_| ()), Err(Error::Order), "{meanwhile}");
        }
        assert!(relay.settle(&claim, server::Outcome::Refused).starts_with("535 "));
        let again = say(&mut relay, "012 FROM alice@a.example/d1 - c2ln");
        assert_eq!(again.map(|_| ()), Err(Error::Order), "the nonce is spent");
    }
    assert!(relay.is_exhausted());
}

#[test]
fn hostile_callers() {
    let body = crate::base64::encode(key(1).public_key().as_octets());
    let hello = "010 FROM alice@a.example/d1 VER=1";
    for (lines, reply) in [
        (vec!["011 FROM alice@a.example/d1 ALG=ed25519 AAAA"], 503),
        (vec!["012 FROM alice@a.example/d1 - c2ln"], 503),
        (vec!["010 FROM alice@a.example VER=1"], 510),
        (vec!["010 FROM alice@b.example/d1 VER=1"], 521),
        (vec!["010 FROM alice@a.example/d1 VER=2"], 501),
        (vec!["010 FROM alice@a.example/d1 VER=1 CAP=LINE:1"], 501),
        (vec![hello, hello], 503),
        (vec![hello, "011 FROM alice@a.example/d1 ALG=ed25519 AAAA"], 501),
        (vec![hello, "011 FROM alice@a.example/d2 ALG=ed25519 AAAA"], 521),
        (vec![hello, "012 FROM alice@a.example/d1 - c2ln"], 503),
        (vec![hello, "100 TO b@b FROM alice@a.example/d1 AAAA"], 530),
        (vec![hello, "015"], 503),
    ] {
        let mut relay = relay();
        let (last, before) = lines.split_last().unwrap();
        for line in before {
            say(&mut relay, line).unwrap();
        }
        let refused = say(&mut relay, last).map(|_| ()).map_err(Error::reply_code);
        assert_eq!(refused, Err(reply), "{lines:?}");
    }
    let mut relay = relay();
    let good = "010 FROM alice@a.example/d1 VER=2,1 CAP=X-NEW";
    say(&mut relay, good).unwrap();
    say(&mut relay, &format!("011 FROM alice@a.example/d1 ALG=ed25519 {body}")).unwrap();
}

#[test]
fn hostile_relays() {
    use client::Failure::{Malformed, Refused, Unexpected};
    for (lines, failure) in [
        (vec!["250 :hello"], Unexpected { code: 250 }),
        (vec!["421 :full"], Refused { code: 421, text: "full".into() }),
        (vec!["220 :x", "220 :x"], Unexpected { code: 220 }),
        (vec!["220 :x", "250 H-ID=2 :x"], Unexpected { code: 250 }),
        (vec!["220 :x", "250 H-ID=1 CAP=LINE:9 :x"], Malformed(Error::BadParameter("CAP"))),
        (vec!["220 :x", "250 H-ID=1 :x", "250 H-ID=2 :x"], Unexpected { code: 250 }),
        (
            vec!["220 :x", "250 H-ID=1 :x", "334 H-ID=2 :x"],
            Malformed(Error::MissingParameter("NONCE")),
        ),
        (
            vec!["220 :x", "250 H-ID=1 :x", "334 H-ID=2 NONCE=AAAA :x"],
            Malformed(Error::BadParameter("NONCE")),
        ),
    ] {
        let mut caller = caller();
        let (last, before) = lines.split_last().unwrap();
        for line in before {
            hear(&mut caller, line).unwrap();
        }
        assert_eq!(hear(&mut caller, last), Err(failure), "{lines:?}");
    }
    let mut caller = caller();
    assert_eq!(caller.signed(&[]), Err(client::Failure::Misuse));
    let admission = Admission::Work("x".into());
    assert_eq!(caller.register(&admission, ""), Err(client::Failure::Misuse));
}
