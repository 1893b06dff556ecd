//! A tiny relay: directory, prekeys, queues, duplicate suppression, busy users; no disk, no TLS.
//!
//! It does what `SPEC.md` says of the serving side as far as the engine can see it, and notes what
//! it saw. Faults are asked for by the test: refusals by command, lost links.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use protocol::policy::Policy;
use protocol::proof::Proof;
use protocol::record::{Record, RecordBuilder};
use protocol::registration::Registration;
use protocol::reply::AnswerWriter;
use protocol::signature::{Algorithm, PublicKey, Signer as _, SoftwareSigner};
use protocol::{Address, Code, Command, Parameter, ReplyBuilder, Timestamp, base64};

use super::depot::{Depot, chunk_count};

pub(super) const LINE: usize = 8_192;

#[derive(Default)]
struct Queue {
    last: u64,
    /// Everything up to here is freed, but for the kept.
    freed: u64,
    rows: BTreeMap<u64, Vec<u8>>,
    kept: BTreeSet<u64>,
}

#[derive(Default)]
struct Link {
    nonce: Option<String>,
    key: Option<PublicKey>,
    is_proven: bool,
    /// Whether 013 has come; lines of the queue are pushed from then on.
    has_resumed: bool,
    exporter: [u8; 32],
}

#[derive(Clone)]
pub(super) struct Refusal {
    pub(super) command: u16,
    pub(super) reply: u16,
    pub(super) times: u32,
    /// Whether the line is taken all the same, so that only the answer is lost.
    pub(super) is_taken: bool,
}

pub(super) struct Relay {
    pub(super) domain: String,
    domain_key: SoftwareSigner,
    log_key: SoftwareSigner,
    pub(super) policy: Policy,
    domain_record: String,
    pub(super) records: HashMap<String, Vec<String>>,
    signed_prekeys: HashMap<String, String>,
    pub(super) one_time_prekeys: HashMap<String, VecDeque<String>>,
    queues: HashMap<String, Queue>,
    links: HashMap<String, Link>,
    seen: HashMap<String, ([u8; 32], u16)>,
    pub(super) busy: BTreeSet<String>,
    /// Lines that wait for a choice, by sender and MID.
    asked: HashMap<String, Vec<u8>>,
    held: Vec<(String, Vec<u8>)>,
    pub(super) refusals: Vec<Refusal>,
    /// Whether sealed lines are queued in disorder.
    pub(super) reorders: bool,
    late: Vec<(String, String)>,
    /// Files that are kept for who is away.
    pub(super) depot: Depot,
    /// The number of a chunk that is damaged on its way.
    pub(super) damages_chunk: Option<u64>,
    /// Whether chunks are answered as a stranger's are.
    pub(super) vanishes_chunks: bool,
    /// Whether the next 804 is damaged on its way.
    pub(super) damages_finish: bool,
    /// Every line that clients sent.
    pub(super) wire: Vec<String>,
    /// Lines to clients, in order.
    pub(super) outgoing: Vec<(String, Vec<u8>)>,
    nonce: u64,
}

impl Relay {
    pub(super) fn new(domain: &str, now: Timestamp) -> Self {
        let domain_key = SoftwareSigner::ed25519(&[101; 32]).unwrap();
        let log_key = SoftwareSigner::ed25519(&[102; 32]).unwrap();
        let address = Address::parse(domain).unwrap();
        let until = now.plus_ms(400 * crate::limits::DAY_MS);
        let domain_record = RecordBuilder::new(address, Timestamp(0), until)
            .device("log", log_key.public_key())
            .sign(&domain_key)
            .unwrap();
        Self {
            domain: domain.into(),
            domain_key,
            log_key,
            policy: Policy::new(address, Timestamp(0), until),
            domain_record,
            records: HashMap::new(),
            signed_prekeys: HashMap::new(),
            one_time_prekeys: HashMap::new(),
            queues: HashMap::new(),
            links: HashMap::new(),
            seen: HashMap::new(),
            busy: BTreeSet::new(),
            asked: HashMap::new(),
            held: Vec::new(),
            refusals: Vec::new(),
            reorders: false,
            late: Vec::new(),
            depot: Depot::new(),
            damages_chunk: None,
            vanishes_chunks: false,
            damages_finish: false,
            wire: Vec::new(),
            outgoing: Vec::new(),
            nonce: 0,
        }
    }

    pub(super) fn pin(&self) -> [u8; 32] {
        crate::directory::key_hash(self.domain_key.public_key())
    }

    pub(super) fn connect(&mut self, device: &str, exporter: [u8; 32]) {
        self.links.insert(device.into(), Link { exporter, ..Link::default() });
        self.send(device, ReplyBuilder::last(220).text("ready"));
    }

    pub(super) fn disconnect(&mut self, device: &str) {
        self.links.remove(device);
        self.depot.disconnected(device);
        self.outgoing.retain(|(to, _)| to != device);
        self.asked.retain(|name, _| !name.starts_with(&format!("{device} ")));
    }

    pub(super) fn send(&mut self, device: &str, line: impl Into<Vec<u8>>) {
        self.outgoing.push((device.into(), line.into()));
    }

    pub(super) fn reply(&mut self, device: &str, code: u16, command: &Command<'_>) {
        if code == 354 {
            let count = chunk_count(command).to_string();
            return self.reply_with(device, code, command, &[("TO-CHUNK", &count)]);
        }
        self.reply_with(device, code, command, &[]);
    }

    fn reply_with(
        &mut self,
        device: &str,
        code: u16,
        command: &Command<'_>,
        parameters: &[(&str, &str)],
    ) {
        let mut reply = ReplyBuilder::last(code).parameter_if("H-ID", command.parameter("H-ID"));
        for (name, value) in parameters {
            reply = reply.parameter(name, value);
        }
        self.send(device, reply.text("as you say"));
    }

    fn answer(&mut self, device: &str, command: &Command<'_>, entries: &[Vec<(&str, String)>]) {
        let mut writer = AnswerWriter::new(251, command.parameter("H-ID"), LINE);
        for entry in entries {
            let values: Vec<(&str, &str)> =
                entry.iter().map(|(name, value)| (*name, value.as_str())).collect();
            writer.entry(&values).unwrap();
        }
        for line in writer.finish("data") {
            self.send(device, line);
        }
    }

    pub(super) fn received(&mut self, device: &str, octets: &[u8]) {
        assert!(octets.ends_with(b"\r\n") && octets.len() <= LINE, "a line that fits");
        let text = String::from_utf8(octets[..octets.len() - 2].to_vec()).unwrap();
        self.wire.push(text.clone());
        if !self.links.contains_key(device) {
            return;
        }
        let command = Command::parse(text.as_bytes()).unwrap();
        let code = command.code().number();
        let refusal =
            self.refusals.iter_mut().find(|refusal| refusal.command == code && refusal.times > 0);
        if let Some(refusal) = refusal {
            refusal.times -= 1;
            let refusal = refusal.clone();
            if refusal.is_taken {
                let before = self.outgoing.len();
                self.take(device, &command);
                let own = |(to, _): &(String, Vec<u8>)| to != device;
                let kept: Vec<_> =
                    self.outgoing.split_off(before).into_iter().filter(own).collect();
                self.outgoing.extend(kept);
            }
            if refusal.reply != 0 {
                return self.reply(device, refusal.reply, &command);
            }
            return;
        }
        self.take(device, &command);
    }

    fn take(&mut self, device: &str, command: &Command<'_>) {
        let is_proven = self.links[device].is_proven;
        match command.code().number() {
            10 => self.reply_with(
                device,
                250,
                command,
                &[("VER", "1"), ("CAP", "LINE:8192,SIGNED,SUITES:M1,M2,M3,FILES:2147483648")],
            ),
            11 => self.challenge(device, command),
            12 => self.proven(device, command),
            600 => self.register(device, command),
            _ if !is_proven => self.reply(device, 530, command),
            13 => self.resume(device, command),
            14 => self.free(device, command),
            15 | 120 | 631 | 636 => self.reply(device, 250, command),
            110 | 111 => self.forward_live(command),
            122 => self.answer(device, command, &[vec![("STATE", "available".into())]]),
            130 => self.choose(device, command),
            601 => self.record(device, command),
            602 => {
                self.reply(device, 250, command);
                let everybody: Vec<String> = self.queues.keys().cloned().collect();
                for other in everybody {
                    self.enqueue(&other, command);
                }
            }
            610 => self.fetch(device, command),
            611 => self.publish(device, command),
            612 => self.hand_out(device, command),
            630 => self.reply_with(device, 250, command, &[("VER", "0")]),
            801..=806 if self.serve_kept(device, command) => {}
            802 => self.forward_chunk(device, command),
            920 => {
                let policy = self.policy.sign(&self.domain_key).unwrap();
                let record = base64::encode(self.domain_record.as_bytes());
                let entry = vec![("POL", base64::encode(policy.as_bytes())), ("REC", record)];
                self.answer(device, command, &[entry]);
            }
            _ => self.route(device, command),
        }
    }

    fn challenge(&mut self, device: &str, command: &Command<'_>) {
        let algorithm: Algorithm = command.need("ALG").unwrap();
        self.nonce += 1;
        let mut octets = [0; 32];
        octets[..8].copy_from_slice(&self.nonce.to_be_bytes());
        let nonce = base64::encode(&octets);
        let link = self.links.get_mut(device).unwrap();
        link.key = Some(PublicKey::parse(algorithm, &command.body()).unwrap());
        link.nonce = Some(nonce.clone());
        self.reply_with(device, 334, command, &[("NONCE", &nonce)]);
    }

    fn proven(&mut self, device: &str, command: &Command<'_>) {
        let address = Address::parse(device).unwrap();
        let link = self.links.get_mut(device).unwrap();
        let (key, nonce) = (link.key.clone().unwrap(), link.nonce.take().unwrap());
        let proof = Proof {
            exporter: &link.exporter,
            nonce: &nonce,
            alpn: "cim1",
            server_domain: &self.domain,
            address,
            key: &key,
        };
        key.verify(&proof.octets(), &command.signature()).unwrap();
        let record = self.newest(address.account().as_str());
        let is_known = record.is_some_and(|record| {
            record.device(address.device().unwrap()).is_some_and(|device| device.key == key)
        });
        if is_known {
            self.links.get_mut(device).unwrap().is_proven = true;
            let top = self.queues.entry(device.into()).or_default().last.to_string();
            self.reply_with(device, 250, command, &[("H-Q", &top)]);
        } else {
            self.reply(device, 250, command);
        }
    }

    fn register(&mut self, device: &str, command: &Command<'_>) {
        let registration = Registration::parse(command).unwrap();
        let account = registration.account().to_string();
        self.records.insert(account, vec![registration.record_line]);
        self.links.get_mut(device).unwrap().is_proven = true;
        self.queues.entry(device.into()).or_default();
        self.reply_with(device, 250, command, &[("H-Q", "0")]);
    }

    pub(super) fn newest(&self, account: &str) -> Option<Record> {
        let line = self.records.get(account)?.last()?;
        Record::parse(&Command::parse(line.as_bytes()).unwrap()).ok()
    }

    fn record(&mut self, device: &str, command: &Command<'_>) {
        let account = command.from().unwrap().as_str().to_owned();
        match self.newest(&account).unwrap().follow(command) {
            Ok(_) => {
                let mut line = Vec::new();
                command.forward(&[], &mut line);
                let line = String::from_utf8(line).unwrap().trim_end().to_owned();
                self.records.get_mut(&account).unwrap().push(line);
                self.reply(device, 250, command);
            }
            Err(error) => self.reply(device, error.reply_code(), command),
        }
    }

    fn fetch(&mut self, device: &str, command: &Command<'_>) {
        let to = command.to().unwrap().as_str();
        let line = if to == self.domain {
            Some(self.domain_record.clone())
        } else {
            let wanted = command.parameter("KR");
            let name = |line: &&String| {
                let command = Command::parse(line.as_bytes()).unwrap();
                base64::encode(&command.statement_hash())
            };
            let lines = self.records.get(to).into_iter().flatten();
            lines.rev().find(|line| wanted.is_none_or(|kr| name(line) == kr)).cloned()
        };
        match line {
            Some(line) => {
                let entry = vec![("REC", base64::encode(line.as_bytes()))];
                self.answer(device, command, &[entry]);
            }
            None => self.reply(device, 550, command),
        }
    }

    fn publish(&mut self, device: &str, command: &Command<'_>) {
        let mut line = Vec::new();
        command.forward(&[], &mut line);
        let line = String::from_utf8(line).unwrap().trim_end().to_owned();
        let stock = self.one_time_prekeys.entry(device.into()).or_default();
        if command.parameter("SPK").is_some() {
            self.signed_prekeys.insert(device.into(), line);
        } else if !stock.contains(&line) {
            stock.push_back(line);
        }
        let count = self.one_time_prekeys[device].len().to_string();
        self.reply_with(device, 250, command, &[("COUNT", &count)]);
    }

    fn hand_out(&mut self, device: &str, command: &Command<'_>) {
        let account = command.to().unwrap().as_str();
        let Some(record) = self.newest(account) else {
            return self.reply(device, 550, command);
        };
        let mut entries = Vec::new();
        for listed in record.devices() {
            let address = format!("{account}/{}", listed.name);
            let Some(signed) = self.signed_prekeys.get(&address) else { continue };
            let mut entry =
                vec![("DEV", listed.name.to_string()), ("PRE", base64::encode(signed.as_bytes()))];
            let one = self.one_time_prekeys.entry(address).or_default().pop_front();
            entry.extend(one.map(|line| ("ONE", base64::encode(line.as_bytes()))));
            entries.push(entry);
        }
        self.answer(device, command, &entries);
    }

    /// Stores a line for everybody it is for, once, and passes it on.
    fn route(&mut self, device: &str, command: &Command<'_>) {
        let name = |part: &str| command.parameter(part).unwrap_or_default().to_owned();
        let (from, to) = (command.from().unwrap(), command.to().unwrap());
        assert_eq!(from.as_str(), device, "FROM is the proven device");
        let key = format!("{} {from} {to} {}", command.code(), name("MID"));
        let hash = command.statement_hash();
        if let Some((known, code)) =
            self.seen.get(&key).copied().filter(|_| !name("MID").is_empty())
        {
            let code = if known == hash { code } else { 554 };
            return self.reply(device, code, command);
        }
        let account = to.account().as_str().to_owned();
        if !self.records.contains_key(&account) {
            return self.reply(device, 550, command);
        }
        let is_message = matches!(command.code().number(), 100 | 103..=105 | 800);
        if is_message && self.busy.contains(&account) {
            let mut line = Vec::new();
            command.forward(&[], &mut line);
            self.asked.insert(format!("{device} {}", name("MID")), line);
            let until = [("UNTIL", "1795470000000"), ("ALT", "SMS")];
            return self.reply_with(device, 350, command, &until);
        }
        let is_live = self.deliver(&account, to, command);
        let keeps = command.code() == Code::FILE_OFFER && !is_live && self.depot.has_room;
        if keeps {
            self.depot.offered(command);
        }
        let code = if keeps { 354 } else { 252 - 2 * u16::from(is_live) };
        self.seen.insert(key, (hash, code));
        self.reply(device, code, command);
    }

    fn deliver(&mut self, account: &str, to: Address<'_>, command: &Command<'_>) -> bool {
        let devices: Vec<String> = match to.device() {
            Some(_) => vec![to.as_str().into()],
            None => {
                let record = self.newest(account).unwrap();
                record.devices().iter().map(|device| format!("{account}/{}", device.name)).collect()
            }
        };
        let mut is_live = false;
        for device in devices {
            is_live |= self.enqueue(&device, command);
        }
        is_live
    }

    fn enqueue(&mut self, device: &str, command: &Command<'_>) -> bool {
        let is_sealed = matches!(command.code().number(), 100..=105);
        let line = command.as_str().to_owned();
        if self.reorders && is_sealed && self.late.len() < 5 {
            self.late.push((device.into(), line));
            return false;
        }
        let is_live = self.enqueue_now(device, command);
        if is_sealed {
            self.release();
        }
        is_live
    }

    /// Queues what was held back, the newest first.
    pub(super) fn release(&mut self) {
        for (device, line) in std::mem::take(&mut self.late).into_iter().rev() {
            self.enqueue_now(&device, &Command::parse(line.as_bytes()).unwrap());
        }
    }

    /// Queues the newest line for a device once more.
    pub(super) fn repeat(&mut self, device: &str) {
        let newest = self.queues.get(device).and_then(|queue| queue.rows.last_key_value());
        if let Some(line) = newest.map(|(_, line)| line.clone()) {
            let command = Command::parse(&line[..line.len() - 2]).unwrap();
            self.enqueue_now(device, &command);
        }
    }

    fn enqueue_now(&mut self, device: &str, command: &Command<'_>) -> bool {
        let damaged;
        let mut command = *command;
        if command.code() == Code::FILE_FINISH && std::mem::take(&mut self.damages_finish) {
            damaged = command.as_str().replacen(" TS=1", " TS=2", 1);
            command = Command::parse(damaged.as_bytes()).unwrap();
        }
        let command = &command;
        let queue = self.queues.entry(device.into()).or_default();
        queue.last += 1;
        let number = queue.last.to_string();
        let hops = [
            Parameter { name: "H-Q", value: &number },
            Parameter { name: "H-RCVD", value: "1795469250000" },
        ];
        let mut line = Vec::new();
        command.forward(&hops, &mut line);
        queue.rows.insert(queue.last, line.clone());
        let is_live = self.links.get(device).is_some_and(|link| link.has_resumed);
        if is_live {
            self.send(device, line);
        }
        is_live
    }

    fn choose(&mut self, device: &str, command: &Command<'_>) {
        let mid = command.parameter("RE").unwrap();
        let Some(line) = self.asked.remove(&format!("{device} {mid}")) else {
            return self.reply(device, 503, command);
        };
        let account = command.to().unwrap().as_str().to_owned();
        let octets = &line[..line.len() - 2];
        let message = Command::parse(octets).unwrap();
        let key = format!("{} {device} {} {mid}", message.code(), message.to().unwrap());
        self.seen.insert(key, (message.statement_hash(), 252));
        match command.parameter("VIA").unwrap() {
            "HOLD" => {
                self.held.push((account, octets.to_vec()));
                self.reply(device, 252, command);
            }
            _ => {
                self.deliver(&account, message.to().unwrap(), &message);
                self.reply(device, 250, command);
            }
        }
    }

    pub(super) fn set_free(&mut self, account: &str) {
        self.busy.remove(account);
        for (to, line) in std::mem::take(&mut self.held) {
            let command = Command::parse(&line).unwrap();
            if to == account {
                self.deliver(account, command.to().unwrap(), &command);
            } else {
                self.held.push((to, line));
            }
        }
    }

    fn resume(&mut self, device: &str, command: &Command<'_>) {
        let from = command.parameters().required_number("H-Q").unwrap();
        let queue = &self.queues[device];
        let after = from.min(queue.last).max(queue.freed);
        let is_due = |number: u64| number > after || queue.kept.contains(&number);
        let due: Vec<Vec<u8>> = queue
            .rows
            .iter()
            .filter(|(number, _)| is_due(**number))
            .map(|(_, line)| line.clone())
            .collect();
        let last = queue.last.to_string();
        self.reply_with(device, 250, command, &[("H-Q", &last)]);
        self.links.get_mut(device).unwrap().has_resumed = true;
        for line in due {
            self.send(device, line);
        }
    }

    /// Frees what an acknowledgement covers. What it does not keep is gone, and what was freed
    /// cannot be kept any more.
    fn free(&mut self, device: &str, command: &Command<'_>) {
        let asked = protocol::message::Acknowledgement::parse(command).unwrap();
        let queue = self.queues.get_mut(device).unwrap();
        assert!(asked.up_to <= queue.last, "nothing is acknowledged that was never sent");
        let freed = asked.up_to.max(queue.freed);
        let may_stay = |number: &u64| {
            queue.kept.contains(number) || (queue.freed + 1..=freed).contains(number)
        };
        queue.kept = asked.kept.iter().copied().filter(may_stay).collect();
        queue.freed = freed;
        let kept = &queue.kept;
        queue.rows.retain(|number, _| *number > freed || kept.contains(number));
        if command.parameter("H-ID").is_some() {
            self.reply(device, 250, command);
        }
    }

    fn forward_live(&mut self, command: &Command<'_>) {
        let account = command.to().unwrap().as_str().to_owned();
        let mut line = Vec::new();
        command.forward(&[], &mut line);
        let devices: Vec<String> = self
            .links
            .iter()
            .filter(|(device, link)| link.is_proven && device.starts_with(&format!("{account}/")))
            .map(|(device, _)| device.clone())
            .collect();
        for device in devices {
            self.send(&device, line.clone());
        }
    }

    /// Chunks pass live or not at all.
    fn forward_chunk(&mut self, device: &str, command: &Command<'_>) {
        let to = command.to().unwrap().as_str().to_owned();
        if self.vanishes_chunks {
            return self.reply(device, 252, command);
        }
        if self.links.get(&to).is_some_and(|link| link.is_proven) {
            let mut line = Vec::new();
            command.forward(&[], &mut line);
            if command.read::<u64>("N").unwrap() == self.damages_chunk {
                let at = line.len() - 30;
                line[at] = if line[at] == b'A' { b'B' } else { b'A' };
            }
            self.send(&to, line);
            self.reply(device, 250, command);
        } else {
            self.reply_with(device, 450, command, &[("RETRY", "1")]);
        }
    }

    /// Lines that wait for a device, for looks.
    pub(super) fn waiting(&self, device: &str) -> usize {
        self.queues.get(device).map_or(0, |queue| queue.rows.len())
    }

    /// A bounce, signed by the log key.
    pub(super) fn bounce(&mut self, device: &str, mid: &str, now: Timestamp, is_forged: bool) {
        let signer = if is_forged { &self.domain_key } else { &self.log_key };
        let line = Command::builder(Code::BOUNCE)
            .to(Address::parse(device).unwrap())
            .from(Address::parse(&self.domain).unwrap())
            .parameter("RE", mid)
            .parameter("CODE", 558)
            .parameter("TS", now)
            .sign(&[], |tbs| signer.sign(tbs).map_err(protocol::Error::from))
            .unwrap();
        self.enqueue(device, &Command::parse(line.as_bytes()).unwrap());
    }

    /// Says something to a device that is not queued.
    pub(super) fn tell(&mut self, device: &str, line: &str) {
        self.send(device, format!("{line}\r\n"));
    }

    /// Forgets what waits for a device.
    pub(super) fn clear(&mut self, device: &str) {
        self.queues.get_mut(device).unwrap().rows.clear();
    }

    /// The signed prekey of a device, and one of its one-time keys.
    pub(super) fn prekeys(&self, device: &str) -> (String, Option<String>) {
        let one = self.one_time_prekeys.get(device).and_then(|stock| stock.front().cloned());
        (self.signed_prekeys[device].clone(), one)
    }

    /// Puts a line into a device's queue as it is.
    pub(super) fn inject(&mut self, device: &str, line: &str) {
        self.enqueue(device, &Command::parse(line.as_bytes()).unwrap());
    }
}
