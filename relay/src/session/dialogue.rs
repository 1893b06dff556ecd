//! The transcripts of `protocol/dialogues`, run against the domain.
//!
//! Presence, roster pushes and low stocks (121, 632, 613) may come where a transcript does not show
//! them; every other line must be the one shown.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use protocol::canonical::sha256;
use protocol::dialogue::{Bindings, Dialogue, Placeholder, Speaker, Step};
use protocol::signature::{Signer, SoftwareSigner};
use protocol::{AddressBuf, Command, base64};

use super::ConnectionId;
use super::prekey::tests::{one_time, signed};
use super::simulation::{Person, Simulation, code, parameter};

/// One link of a transcript.
struct Wire {
    person: Person,
    id: ConnectionId,
    heard: VecDeque<String>,
    nonce: String,
}

struct Runner {
    simulation: Simulation,
    wires: BTreeMap<String, Wire>,
    bindings: Bindings,
}

impl Runner {
    fn new(dialogue: &Dialogue, is_registration: bool) -> Self {
        let mut simulation = Simulation::new(1);
        simulation.provision();
        let mut wires = BTreeMap::new();
        let mut registered = BTreeSet::new();
        for link in &dialogue.links {
            let device = AddressBuf::parse(&link.device).unwrap();
            let device = device.as_address();
            let name = device.local().unwrap();
            let person = Person::with_device(name, device.device().unwrap());
            if !is_registration && registered.insert(person.device.clone()) {
                let id = simulation.register(&person);
                simulation.drop_link(id);
            }
            let id = if link.is_proven {
                let id = simulation.log_in(&person);
                simulation.say(id, "013 H-Q=0");
                id
            } else {
                simulation.open()
            };
            let wire = Wire { person, id, heard: VecDeque::new(), nonce: String::new() };
            wires.insert(link.name.clone(), wire);
        }
        Self { simulation, wires, bindings: Bindings::default() }
    }

    fn run(&mut self, step: &Step) -> Result<(), String> {
        // No two lines have the same time stamp.
        self.simulation.advance(Duration::from_millis(1));
        self.listen();
        match step.speaker {
            Speaker::Client => {
                let line = self.fill(step);
                let id = self.wires[&step.link].id;
                self.simulation.send(id, &line);
                self.simulation.settle();
                Ok(())
            }
            Speaker::Relay => self.hear(step),
        }
    }

    fn listen(&mut self) {
        for wire in self.wires.values_mut() {
            for line in self.simulation.take(wire.id) {
                if let Some(nonce) = Some(&line)
                    .filter(|line| line.starts_with("334"))
                    .and_then(|line| parameter(line, "NONCE"))
                {
                    wire.nonce = nonce;
                }
                wire.heard.push_back(line);
            }
        }
    }

    fn hear(&mut self, step: &Step) -> Result<(), String> {
        let wire = self.wires.get_mut(&step.link).unwrap();
        let mut skipped = Vec::new();
        while let Some(line) = wire.heard.pop_front() {
            match step.template.matches(&line, &mut self.bindings) {
                Ok(()) => return Ok(()),
                Err(_) if is_aside(&line) => skipped.push(line),
                Err(what) => return Err(what),
            }
        }
        Err(format!("nothing more came but {skipped:?}"))
    }

    fn fill(&mut self, step: &Step) -> String {
        let Self { simulation, wires, bindings } = self;
        let records: BTreeMap<String, String> =
            wires.iter().map(|(name, wire)| (name.clone(), record_name(&wire.person))).collect();
        let wire = &wires[&step.link];
        step.template.fill(bindings, |placeholder, line| {
            if placeholder.kind == "kr" {
                return records[placeholder.name.as_deref().unwrap()].clone();
            }
            value(simulation, wire, placeholder, line)
        })
    }
}

fn value(simulation: &mut Simulation, wire: &Wire, what: &Placeholder, line: &str) -> String {
    let person = &wire.person;
    let now = simulation.now.timestamp;
    let day = 24 * 3_600_000;
    let octets = |simulation: &mut Simulation, count: usize| {
        let id = simulation.message_id();
        let block = sha256(&[id.as_str().as_bytes()]);
        base64::encode(&block.repeat(count.div_ceil(32))[..count])
    };
    let body =
        |line: String| Command::parse(line.as_bytes()).unwrap().body_text().unwrap().to_owned();
    match what.kind.as_str() {
        "id" => octets(simulation, 16),
        "hash" => octets(simulation, 32),
        "time" => now.to_string(),
        "later" => now.plus_ms(7 * day).to_string(),
        "past" => (now.0 - day).to_string(),
        "invitation" => simulation.invite(None),
        "key" => base64::encode(person.key.public_key().as_octets()),
        "proof" => {
            let proof = simulation.proof(wire.id, person, &wire.nonce);
            proof.rsplit(' ').next().unwrap().to_owned()
        }
        "signature" => signature(&person.key, line),
        "identity" => signature(&person.identity, line),
        "record" => base64::encode(person.record_line.as_bytes()),
        "keys" => body(person.record_line.clone()),
        "spk" => body(signed(person, 1, now)),
        "opk" => body(one_time(person, 1, now)),
        "wrapped" => octets(simulation, 1_160),
        "next" => octets(simulation, 1_222),
        "sealed" => octets(simulation, 4 + 256 + 16),
        "tag" => octets(simulation, 16),
        "chunk" => octets(simulation, 4_112),
        other => panic!("nothing is known of <{other}>"),
    }
}

/// The signature over a line that ends where the signature is to stand.
fn signature(key: &SoftwareSigner, line: &str) -> String {
    let line = line.trim_end();
    let line = line.strip_suffix(" -").unwrap_or(line);
    let command = Command::parse(line.as_bytes()).unwrap();
    base64::encode(&key.sign(&command.tbs()).unwrap())
}

fn record_name(person: &Person) -> String {
    let command = Command::parse(person.record_line.as_bytes()).unwrap();
    base64::encode(&command.statement_hash())
}

/// Lines that a transcript may leave out.
fn is_aside(line: &str) -> bool {
    matches!(code(line), 121 | 613 | 632)
}

#[test]
fn every_transcript_runs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/dialogues");
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "dialogue") {
            continue;
        }
        count += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let dialogue = Dialogue::parse(&text).unwrap();
        let mut runner = Runner::new(&dialogue, text.contains("INVITE="));
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let failure = dialogue.steps.iter().find_map(|step| {
            runner.run(step).err().map(|what| format!("{name}:{}: {what}", step.number))
        });
        wrong.extend(failure);
        runner.listen();
        for line in runner.wires.values().flat_map(|wire| &wire.heard) {
            if !is_aside(line) && !wrong.iter().any(|wrong| wrong.starts_with(&name)) {
                wrong.push(format!("{name}: not shown: {line}"));
            }
        }
    }
    assert!(count > 10, "the transcripts are where they should be");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
