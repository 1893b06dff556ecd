//! The transcripts of `dialogues/`, run against grammar, table and login.
//!
//! Every line must be a line (or be refused with the code shown), every command allowed in its
//! state, every reply possible for its command; logins are answered by the real state machine.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::HashMap;

use protocol::capability::Capabilities;
use protocol::dialogue::{Bindings, Dialogue, Mismatch, Placeholder, Speaker, Step};
use protocol::identifier::Nonce;
use protocol::proof::Proof;
use protocol::record::{Record, RecordBuilder};
use protocol::signature::{Signer as _, SoftwareSigner};
use protocol::state::server::{self, Handshake, Outcome};
use protocol::table::{Answered, Link, Row, Side, State, check};
use protocol::{Address, Code, Command, Error, Line, Reply, Timestamp, base64, canonical};

const NOW: u64 = 1_795_469_246_123;
const DAY: u64 = 24 * 60 * 60 * 1_000;
const EXPORTER: [u8; 32] = [3; 32];

/// The key of this purpose, the same in each run.
fn key(purpose: &str, address: &str) -> SoftwareSigner {
    let seed = canonical::sha256(&[purpose.as_bytes(), address.as_bytes()]);
    SoftwareSigner::ed25519(&seed).unwrap()
}

fn account(device: &str) -> &str {
    device.split_once('/').unwrap().0
}

fn first_record(device: &str) -> String {
    let address = Address::parse(device).unwrap();
    RecordBuilder::new(address.account(), Timestamp(NOW - DAY), Timestamp(NOW + 300 * DAY))
        .device(address.device().unwrap(), key("device", device).public_key())
        .sign(&key("identity", account(device)))
        .unwrap()
}

/// What may come as answer to a command.
enum Expected {
    /// A refusal with this code.
    Refusal(u16),
    /// This line.
    Reply(String),
    /// What the table says.
    Table(&'static Row),
}

/// One link while a transcript runs.
struct Wire {
    device: String,
    handshake: Handshake,
    is_proven: bool,
    nonce: Option<String>,
    /// H-ID and expectation of each command not yet answered.
    pending: Vec<(Option<String>, Expected)>,
}

struct Runner {
    wires: HashMap<String, Wire>,
    bindings: Bindings,
    fresh: u64,
}

impl Runner {
    fn new(dialogue: &Dialogue) -> Self {
        let domain = Address::parse(&dialogue.domain).unwrap();
        let wires = dialogue.links.iter().map(|link| {
            let wire = Wire {
                device: link.device.clone(),
                handshake: Handshake::new(domain, "cim1", Capabilities::full(1 << 31)),
                is_proven: link.is_proven,
                nonce: None,
                pending: Vec::new(),
            };
            (link.name.clone(), wire)
        });
        Self { wires: wires.collect(), bindings: Bindings::default(), fresh: 0 }
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step.speaker {
            Speaker::Client => self.client(step),
            Speaker::Relay => self.relay(step),
        }
    }

    /// The line of a step with a value for each placeholder.
    fn fill(&mut self, step: &Step) -> String {
        let wires = &self.wires;
        let wire = &wires[&step.link];
        let fresh = &mut self.fresh;
        step.template.fill(&mut self.bindings, |placeholder, before| {
            *fresh += 1;
            value(placeholder, before, wire, wires, *fresh)
        })
    }

    fn client(&mut self, step: &Step) -> Result<(), String> {
        let line = self.fill(step);
        let wire = self.wires.get_mut(&step.link).unwrap();
        let command = match Line::parse(line.as_bytes()) {
            Ok(Line::Command(command)) => command,
            Ok(Line::Reply(_)) => return Ok(()),
            Err(error) => {
                wire.pending.push((None, Expected::Refusal(error.reply_code())));
                return Ok(());
            }
        };
        let hop_id = command.parameter("H-ID").map(str::to_owned);
        let expected = wire.receive(&command);
        let is_silent =
            matches!(expected, Expected::Table(row) if row.answered != Answered::Always);
        if hop_id.is_some() || !is_silent {
            wire.pending.push((hop_id, expected));
        }
        Ok(())
    }

    fn relay(&mut self, step: &Step) -> Result<(), String> {
        // A first reading shows which command it answers.
        let mut bindings = self.bindings.clone();
        let sketch = {
            let wires = &self.wires;
            let wire = &wires[&step.link];
            let fresh = self.fresh + 1;
            step.template.fill(&mut bindings, |placeholder, before| {
                value(placeholder, before, wire, wires, fresh)
            })
        };
        let line = Line::parse(sketch.as_bytes()).map_err(|error| format!("{error}: {sketch}"))?;
        let reply = match line {
            Line::Command(command) => {
                let link = Link { sender: Side::Relay, state: State::Proven, device: None };
                // A transcript shows the parameters that matter.
                match check(&command, &link) {
                    Ok(_) | Err(Error::MissingParameter(_)) => {}
                    Err(error) => return Err(format!("{error}: {sketch}")),
                }
                self.fill(step);
                return Ok(());
            }
            Line::Reply(reply) => reply,
        };
        if reply.code().number() == 220 {
            let greeting = self.wires[&step.link].handshake.greeting();
            return step.template.matches(greeting.trim_end(), &mut self.bindings);
        }
        self.answer(step, &reply)
    }

    fn answer(&mut self, step: &Step, reply: &Reply<'_>) -> Result<(), String> {
        let wire = self.wires.get_mut(&step.link).unwrap();
        let hop_id = reply.parameter("H-ID");
        let at = wire.pending.iter().position(|(id, _)| id.as_deref() == hop_id);
        let at = at.ok_or("answers no command")?;
        let code = reply.code().number();
        match &wire.pending[at].1 {
            Expected::Refusal(refusal) if *refusal != code => {
                return Err(format!("the line is refused with {refusal}"));
            }
            Expected::Reply(line) => {
                let line = line.trim_end();
                step.template.matches(line, &mut self.bindings)?;
                let actual = Reply::parse(line.as_bytes()).unwrap();
                if let Some(nonce) = actual.parameter("NONCE") {
                    wire.nonce = Some(nonce.to_owned());
                }
            }
            Expected::Table(row) if !row.may_answer(code) => {
                return Err(format!("{code} is no answer to {}", row.code));
            }
            _ => {}
        }
        if reply.is_last() {
            wire.pending.remove(at);
        }
        self.fill(step);
        Ok(())
    }

    /// Commands that should have been answered and were not.
    fn unanswered(&self) -> Vec<String> {
        let wires = self.wires.iter().flat_map(|(name, wire)| {
            wire.pending.iter().map(move |(hop_id, _)| format!("{name} {hop_id:?}"))
        });
        wires.collect()
    }
}

impl Wire {
    /// What the relay answers.
    fn receive(&mut self, command: &Command<'_>) -> Expected {
        let own = Address::parse(&self.device).unwrap();
        let link = match self.is_proven {
            true => Link { sender: Side::Client, state: State::Proven, device: Some(own) },
            false => self.handshake.link(),
        };
        let row = match check(command, &link) {
            Ok(row) => row,
            Err(error) => return Expected::Refusal(error.reply_code()),
        };
        if self.is_proven || command.code() > Code::PROOF && command.code() != Code::REGISTER {
            return Expected::Table(row);
        }
        if command.code() == Code::REGISTER {
            return match self.handshake.registration(command) {
                Ok(_) => Expected::Reply(self.handshake.registered(command.parameter("H-ID"))),
                Err(error) => Expected::Refusal(error.reply_code()),
            };
        }
        let nonce = Nonce::from_octets(&canonical::sha256(&[command.as_str().as_bytes()]));
        match self.handshake.receive(command, nonce, &EXPORTER) {
            Ok(server::Step::Reply(line)) => Expected::Reply(line),
            Ok(server::Step::Prove(claim)) => {
                let is_known = !self.device.starts_with("carol");
                let outcome = match (claim.verify(), is_known) {
                    (Err(_), _) => Outcome::Refused,
                    (Ok(()), true) => Outcome::Known { queue: 7 },
                    (Ok(()), false) => Outcome::Unknown,
                };
                Expected::Reply(self.handshake.settle(&claim, outcome))
            }
            Err(error) => Expected::Refusal(error.reply_code()),
        }
    }
}

/// A value for a placeholder; `before` is the line up to it.
fn value(
    placeholder: &Placeholder,
    before: &str,
    wire: &Wire,
    wires: &HashMap<String, Wire>,
    fresh: u64,
) -> String {
    let octets = |length: usize| {
        let hash = canonical::sha256(&[&fresh.to_be_bytes()]);
        let octets: Vec<u8> = hash.iter().copied().cycle().take(length).collect();
        base64::encode(&octets)
    };
    let device = wire.device.as_str();
    let sign = |signer: &SoftwareSigner| {
        let before = before.trim_end().trim_end_matches(" -");
        let command = Command::parse(before.as_bytes()).unwrap();
        base64::encode(&signer.sign(&command.tbs()).unwrap())
    };
    match placeholder.kind.as_str() {
        "id" => octets(16),
        "hash" | "nonce" => octets(32),
        "number" => fresh.to_string(),
        "time" => NOW.to_string(),
        "later" => (NOW + 7 * DAY).to_string(),
        "past" => (NOW - DAY).to_string(),
        "text" | "invitation" => "text".into(),
        "line" => base64::encode(first_record(device).as_bytes()),
        "key" => base64::encode(key("device", device).public_key().as_octets()),
        "proof" => {
            let key = key("device", device);
            let proof = Proof {
                exporter: &EXPORTER,
                nonce: wire.nonce.as_deref().unwrap(),
                alpn: "cim1",
                server_domain: "a.example",
                address: Address::parse(device).unwrap(),
                key: key.public_key(),
            };
            base64::encode(&key.sign(&proof.octets()).unwrap())
        }
        "signature" => sign(&key("device", device)),
        "identity" => sign(&key("identity", account(device))),
        "record" => base64::encode(first_record(device).as_bytes()),
        "keys" => {
            let record = first_record(device);
            base64::encode(&Command::parse(record.as_bytes()).unwrap().body())
        }
        "kr" => {
            let device = &wires[placeholder.name.as_deref().unwrap()].device;
            let record = first_record(device);
            let record = Record::parse(&Command::parse(record.as_bytes()).unwrap()).unwrap();
            record.name().to_string()
        }
        "wrapped" => octets(32 + 1_088 + 40),
        "sealed" => octets(4 + 256 + 16),
        "tag" => octets(16),
        "chunk" => octets(4_096 + 16),
        "next" | "spk" => base64::encode(&body(&[(16, 32), (17, 1_184)])),
        "opk" => base64::encode(&body(&[(32, 32)])),
        other => panic!("no such placeholder: {other}"),
    }
}

fn body(tlvs: &[(u8, usize)]) -> Vec<u8> {
    let mut body = protocol::tlv::Writer::new();
    for (kind, length) in tlvs {
        body.push(*kind, &vec![0; *length]).unwrap();
    }
    body.finish()
}

fn run(text: &str) -> Result<(), Mismatch> {
    let dialogue = Dialogue::parse(text)?;
    let mut runner = Runner::new(&dialogue);
    for step in &dialogue.steps {
        runner.step(step).map_err(|what| Mismatch { number: step.number, what })?;
    }
    match runner.unanswered() {
        unanswered if unanswered.is_empty() => Ok(()),
        unanswered => Err(Mismatch { number: 0, what: format!("unanswered: {unanswered:?}") }),
    }
}

#[test]
fn every_transcript_follows_the_protocol() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogues");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "dialogue") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        run(&text).unwrap_or_else(|mismatch| panic!("{name} {mismatch}"));
        count += 1;
    }
    assert_eq!(count, 14);
}

#[test]
fn a_transcript_that_is_wrong_is_noticed() {
    let login = include_str!("../dialogues/login.dialogue");
    run(login).unwrap();
    for (from, to) in [
        ("S: 250 H-ID=4", "S: 221 H-ID=4"),
        ("S: 250 H-ID=4 :alive\n", ""),
        ("S: 250 H-ID=4", "S: 250 H-ID=5"),
        ("C: 015 H-ID=4", "C: 630 H-ID=4"),
        ("<proof>", "<signature>"),
        ("S: 334 H-ID=2", "S: 250 H-ID=2"),
        ("H-Q=<number:q>", "H-Q=8"),
        ("C: 019 H-ID=5\n", "C: 019 H-ID=5 \u{e4}\n"),
    ] {
        let changed = login.replacen(from, to, 1);
        assert_ne!(changed, login, "{from}");
        assert!(run(&changed).is_err(), "{from} to {to}");
    }
}
