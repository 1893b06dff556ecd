//! Tests of the store on disk: the battery, keys, space, crashes and damage.

mod crash;
mod damage;
mod keys;
mod space;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use protocol::timestamp::Timestamp;

use super::database::Space;
use super::{Config, EmbeddedStore, OpenError, StartReport};
use crate::clock::Now;
use crate::keys::software::SoftwareKeys;
use crate::store::battery::{Subject, battery, put};
use crate::store::{CommitToken, Operation, Outcome, Row, Store, Table};

/// Longest wait for an outcome, far beyond what a slow disk needs.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(folder: &Path) -> Config {
    Config { reserve_octets: 0, ..Config::new(folder) }
}

/// A clock that stands still until it is moved.
#[derive(Clone, Default)]
struct HandClock(Arc<AtomicU64>);

impl HandClock {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }

    fn install(&self, config: &mut Config) {
        let clock = self.clone();
        config.clock = Arc::new(move || {
            let now_ms = clock.0.load(Ordering::SeqCst);
            Now { timestamp: Timestamp(now_ms), since_start: Duration::from_millis(now_ms) }
        });
    }
}

/// A store and the bell that it rings.
struct Opened {
    store: EmbeddedStore,
    news: Receiver<()>,
    report: StartReport,
    next: u64,
}

impl Opened {
    fn new(config: Config, keys: &Arc<SoftwareKeys>) -> Result<Self, OpenError> {
        let (ring, news) = channel();
        let wake = Box::new(move || {
            let _ = ring.send(());
        });
        let (store, report) = EmbeddedStore::open(config, keys.clone(), wake)?;
        Ok(Self { store, news, report, next: 0 })
    }

    fn submit(&mut self, operations: Vec<Operation>) {
        self.next += 1;
        self.store.submit(CommitToken(self.next), operations).unwrap();
    }

    /// Waits for `count` outcomes.
    fn outcomes(&mut self, count: usize) -> Vec<Outcome> {
        let mut done = Vec::new();
        self.store.completions(&mut done);
        while done.len() < count {
            self.news.recv_timeout(PATIENCE).unwrap();
            self.store.completions(&mut done);
        }
        done.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn commit(&mut self, operations: Vec<Operation>) -> Outcome {
        self.submit(operations);
        self.outcomes(1).remove(0)
    }

    fn put(&mut self, row: &Row, value: &[u8]) {
        assert_eq!(self.commit(vec![put(row, value)]), Outcome::Durable);
    }
}

fn keys() -> Arc<SoftwareKeys> {
    Arc::new(SoftwareKeys::generate().unwrap())
}

fn row(number: u64) -> Row {
    Row::numbered(Table::Queue, b"bob@b.example/d1", number)
}

fn subject() -> Subject {
    let folder = tempfile::tempdir().unwrap();
    let opened = Opened::new(config(folder.path()), &keys()).unwrap();
    let Opened { store, news, .. } = opened;
    let wait = move || {
        let _folder = &folder;
        news.recv_timeout(PATIENCE).unwrap();
    };
    Subject::new(Box::new(store), Box::new(wait))
}

battery!(subject);

#[test]
fn a_store_opened_again_holds_what_was_durable() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys();
    for round in 0..4_u64 {
        let mut opened = Opened::new(config(folder.path()), &keys).unwrap();
        assert_eq!(opened.report.created, round == 0);
        assert_eq!(opened.report.findings, []);
        for earlier in 0..round {
            assert_eq!(opened.store.get(&row(earlier)).unwrap().unwrap(), earlier.to_be_bytes());
        }
        assert_eq!(opened.store.get(&row(round)).unwrap(), None);
        opened.put(&row(round), &round.to_be_bytes());
    }
}

#[test]
fn what_was_submitted_before_the_drop_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys();
    let mut opened = Opened::new(config(folder.path()), &keys).unwrap();
    for number in 0..500 {
        opened.submit(vec![put(&row(number), b"x")]);
    }
    drop(opened);
    let opened = Opened::new(config(folder.path()), &keys).unwrap();
    assert!((0..500).all(|number| opened.store.get(&row(number)).unwrap().is_some()));
}

#[test]
fn one_process_at_a_time_has_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys();
    let opened = Opened::new(config(folder.path()), &keys).unwrap();
    let second = Opened::new(config(folder.path()), &keys).err();
    assert!(matches!(second, Some(OpenError::Locked(_))));
    drop(opened);
    assert!(Opened::new(config(folder.path()), &keys).is_ok());
}

#[test]
fn nothing_on_disk_names_people_or_messages() {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = Opened::new(config(folder.path()), &keys()).unwrap();
    let row = Row::new(Table::Roster, b"alice-the-owner", b"bob-the-contact");
    opened.put(&row, b"a-secret-value");
    opened.put(&Row::numbered(Table::Queue, b"alice-the-owner", 1), b"a-secret-value");
    opened.store.shared.database().unwrap().settle(&Space::ALL).unwrap();
    drop(opened);
    let mut files = vec![folder.path().to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let octets = std::fs::read(&path).unwrap();
        for word in [&b"alice"[..], b"contact", b"secret"] {
            let found = octets.windows(word.len()).any(|window| window == word);
            assert!(!found, "{} holds {word:?}", path.display());
        }
    }
}
