//! The world of a test: stations with an engine, a disk and a screen; a relay; a clock.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use protocol::signature::SoftwareSigner;
use protocol::{Address, AddressBuf, Timestamp};

use super::relay::{Refusal, Relay};
use crate::engine::{Config, Engine, Event, Notice, NoticeId, Output};
use crate::identity::Identity;
use crate::random::Seeded;
use crate::secret::Secret32;
use crate::state::{Crash, Space, State};
use crate::suite::SoftwareHolder;

pub(super) const START: Timestamp = Timestamp(1_795_469_246_123);

pub(super) struct Station {
    pub(super) name: String,
    pub(super) engine: Option<Engine>,
    folder: tempfile::TempDir,
    seed: u8,
    opened: u64,
    pub(super) config: Config,
    /// What the user has seen, by the name of the notice: a screen that remembers.
    pub(super) screen: BTreeMap<NoticeId, Notice>,
    pub(super) events: Vec<Event>,
    /// The texts its user typed, in order.
    said: Vec<String>,
    /// Whether the driver confirms what it shows.
    pub(super) confirms: bool,
    is_linked: bool,
    to_relay: VecDeque<Vec<u8>>,
    to_engine: VecDeque<Vec<u8>>,
}

impl Station {
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(super) const fn seed(&self) -> u8 {
        self.seed
    }

    pub(super) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(super) fn account(&self) -> AddressBuf {
        AddressBuf::parse(&self.name).unwrap().account()
    }

    /// The texts on the screen, in the order in which they came there.
    pub(super) fn texts(&self) -> Vec<String> {
        let text = |notice: &Notice| match notice {
            Notice::Message(message) => Some(message.text.clone()),
            _ => None,
        };
        self.screen.values().filter_map(text).collect()
    }

    pub(super) fn has(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(wanted)
    }

    pub(super) fn notices(&self) -> Vec<&Notice> {
        self.screen.values().collect()
    }
}

pub(super) struct World {
    pub(super) pin: Option<[u8; 32]>,
    pub(super) relay: Relay,
    pub(super) stations: Vec<Station>,
    pub(super) now: Timestamp,
    exporter: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            pin: None,
            relay: Relay::new("a.example", START),
            stations: Vec::new(),
            now: START,
            exporter: 0,
        }
    }

    /// Settings with few prekeys: making and publishing them takes most of a test's time.
    pub(super) fn quick() -> Config {
        Config { one_time_stock: 4, ..Config::default() }
    }

    /// A world with alice and bob, registered and online.
    pub(super) fn pair() -> Self {
        Self::pair_with(Self::quick())
    }

    pub(super) fn pair_with(config: Config) -> Self {
        let mut world = Self::new();
        world.enrol("alice", config.clone());
        world.enrol("bob", config);
        world.settle();
        world
    }

    /// Lets the relay answer the next `times` commands of this number with `reply`, or with
    /// nothing if that is 0.
    pub(super) fn refuse(&mut self, command: u16, reply: u16, times: u32, is_taken: bool) {
        self.relay.refusals.push(Refusal { command, reply, times, is_taken });
    }

    /// Lets a station refuse the next offers, as if their members did not hold.
    pub(super) fn refuse_offers(&mut self, index: usize, count: u32) {
        self.engine(index).refuses_offers = count;
    }

    pub(super) fn enrol(&mut self, local: &str, config: Config) -> usize {
        let index = self.add(&format!("{local}@a.example/d1"), config);
        let now = self.now;
        self.engine(index).register("invitation", None, now).unwrap();
        self.connect(index);
        self.settle();
        index
    }

    pub(super) fn add(&mut self, device: &str, config: Config) -> usize {
        let index = self.stations.len();
        self.stations.push(Station {
            name: device.into(),
            engine: None,
            folder: tempfile::tempdir().unwrap(),
            seed: index as u8 + 1,
            opened: 0,
            config,
            screen: BTreeMap::new(),
            events: Vec::new(),
            said: Vec::new(),
            confirms: true,
            is_linked: false,
            to_relay: VecDeque::new(),
            to_engine: VecDeque::new(),
        });
        self.open(index);
        index
    }

    /// Opens a station's engine over its disk.
    pub(super) fn open(&mut self, index: usize) {
        let pin = self.pin.unwrap_or_else(|| self.relay.pin());
        let station = &mut self.stations[index];
        station.opened += 1;
        let random = Seeded::new(u64::from(station.seed) * 1_000_000 + station.opened);
        let key = Secret32::from_slice(&[station.seed; 32]).unwrap();
        let state = State::open(&station.path(), &key, Box::new(random)).unwrap();
        let signer = |octet: u8| Box::new(SoftwareSigner::ed25519(&[octet; 32]).unwrap());
        let address = AddressBuf::parse(&station.name).unwrap();
        let device = address.as_address().device().unwrap().to_owned();
        // Devices of one account share its identity key, and have a key of their own.
        let owner = address.account().as_str().bytes().fold(0u8, |sum, b| sum.wrapping_add(b));
        let identity = Identity::new(
            address.as_address().account(),
            &device,
            signer(station.seed + 40),
            Some(signer(owner)),
        )
        .unwrap();
        let holder = Box::new(SoftwareHolder);
        let config = station.config.clone();
        station.engine = Some(Engine::open(state, identity, holder, config, Some(pin)).unwrap());
    }

    /// The program ends without warning.
    pub(super) fn kill(&mut self, index: usize) {
        self.stations[index].engine = None;
        self.cut(index);
    }

    pub(super) fn cut(&mut self, index: usize) {
        let station = &mut self.stations[index];
        station.is_linked = false;
        station.to_relay.clear();
        station.to_engine.clear();
        if let Some(engine) = &mut station.engine {
            engine.disconnected();
        }
        let name = station.name.clone();
        self.relay.disconnect(&name);
    }

    pub(super) fn connect(&mut self, index: usize) {
        self.cut(index);
        self.exporter += 1;
        let mut exporter = [0; 32];
        exporter[..8].copy_from_slice(&self.exporter.to_be_bytes());
        let station = &mut self.stations[index];
        station.is_linked = true;
        let now = self.now;
        station.engine.as_mut().unwrap().connected(exporter, now).unwrap();
        let name = station.name.clone();
        self.relay.connect(&name, exporter);
    }

    pub(super) fn is_dead(&self, index: usize) -> bool {
        self.stations[index].engine.is_none()
    }

    /// Whether a text of a station was written down: it waits, or it went out.
    pub(super) fn has_said(&mut self, index: usize, text: &str) -> bool {
        let drafts = self.engine(index).state.list::<serde_json::Value>(Space::Draft).unwrap();
        let waits = drafts.iter().any(|(_, draft)| draft["text"] == text);
        let sent = self.engine(index).state.list::<serde_json::Value>(Space::Sent).unwrap();
        let own = self.stations[index].account();
        let count = sent.iter().filter(|(_, row)| row["author"] == own.as_str()).count();
        let before = self.stations[index].said.iter().position(|said| said == text);
        waits || before.is_some_and(|before| count > before)
    }

    pub(super) fn is_linked(&self, index: usize) -> bool {
        self.stations[index].is_linked
    }

    pub(super) fn engine(&mut self, index: usize) -> &mut Engine {
        self.stations[index].engine.as_mut().unwrap()
    }

    pub(super) fn say(&mut self, from: usize, to: usize, text: &str) -> String {
        let contact = self.stations[to].account();
        let now = self.now;
        let said = &mut self.stations[from].said;
        if !said.iter().any(|said| said == text) {
            said.push(text.into());
        }
        self.engine(from).send_text(contact.as_address(), text, None, now).unwrap()
    }

    /// Lets a station do what its engine says; `false` if the engine died.
    pub(super) fn drive(&mut self, index: usize) -> bool {
        let now = self.now;
        let station = &mut self.stations[index];
        let Some(engine) = &mut station.engine else { return true };
        let mut is_closed = false;
        loop {
            let Ok(outputs) = engine.take_output() else {
                self.kill(index);
                return false;
            };
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                match output {
                    Output::Send(line) if station.is_linked => station.to_relay.push_back(line),
                    Output::Send(_) => {}
                    Output::Disconnect(_) => is_closed = true,
                    Output::Event(event) => {
                        if let Event::Notice { id, is_repeated, notice } = &event {
                            let seen = station.screen.insert(*id, notice.clone());
                            assert!(seen.is_none() || *is_repeated, "told twice: {event:?}");
                            if station.confirms {
                                engine.shown(*id, now).unwrap();
                            }
                        }
                        station.events.push(event);
                    }
                }
            }
        }
        if station.to_relay.is_empty()
            && let Some(chunk) = engine.next_chunk(now).unwrap()
        {
            station.to_relay.push_back(chunk);
        }
        if is_closed {
            self.cut(index);
        }
        true
    }

    /// Carries one line between a station and the relay; `false` if there was none.
    pub(super) fn carry(&mut self, index: usize) -> bool {
        let name = self.stations[index].name.clone();
        if let Some(line) = self.stations[index].to_relay.pop_front() {
            self.relay.received(&name, &line);
        } else if let Some(line) = self.stations[index].to_engine.pop_front() {
            let now = self.now;
            let line = line.strip_suffix(b"\r\n").unwrap().to_vec();
            if let Some(engine) = &mut self.stations[index].engine {
                engine.line_received(&line, now).unwrap();
            }
        } else {
            return false;
        }
        for (to, line) in std::mem::take(&mut self.relay.outgoing) {
            let station = self.stations.iter_mut().find(|station| station.name == to).unwrap();
            if station.is_linked {
                station.to_engine.push_back(line);
            }
        }
        true
    }

    pub(super) fn sort_out(&mut self) {
        for (to, line) in std::mem::take(&mut self.relay.outgoing) {
            let station = self.stations.iter_mut().find(|station| station.name == to).unwrap();
            if station.is_linked {
                station.to_engine.push_back(line);
            }
        }
    }

    /// Runs until nothing moves.
    pub(super) fn settle(&mut self) {
        self.sort_out();
        for _ in 0..1_000_000 {
            let mut has_moved = false;
            for index in 0..self.stations.len() {
                self.drive(index);
                has_moved |= self.carry(index);
            }
            if !has_moved {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// Lets time pass, in steps in which a link stays alive.
    pub(super) fn pass(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let step = left.min(30_000);
            self.jump(step);
            left -= step;
        }
    }

    /// Lets the clocks jump ahead.
    pub(super) fn jump(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        let now = self.now;
        for station in &mut self.stations {
            if let Some(engine) = &mut station.engine {
                engine.tick(now).unwrap();
            }
        }
        self.settle();
    }

    pub(super) fn crash_at(&mut self, index: usize, crash: Crash) {
        self.engine(index).state.crash = Some(crash);
    }
}

pub(super) fn address(text: &str) -> Address<'_> {
    Address::parse(text).unwrap()
}
