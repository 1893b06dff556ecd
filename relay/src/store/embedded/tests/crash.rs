//! The process dies in the middle: by SIGKILL under load, and by every cut of the last batch.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;
use crate::store::embedded::Finding;

const FOLDER_VARIABLE: &str = "CIPHERIM_STORE_CRASH_FOLDER";
const ROUNDS: u64 = 12;
const OWNERS: u64 = 8;

fn crash_row(owner: u64, number: u64) -> Row {
    Row::numbered(Table::Queue, format!("device{owner}").as_bytes(), number)
}

/// The keys of the crash test: the same in every process.
fn crash_keys(folder: &Path) -> Arc<SoftwareKeys> {
    let path = folder.join("software-keys");
    if let Ok(octets) = std::fs::read(&path) {
        return Arc::new(SoftwareKeys::import(&octets).unwrap());
    }
    let keys = keys();
    std::fs::write(&path, &*keys.export().unwrap()).unwrap();
    keys
}

/// Not a test: the process that is killed. It announces each durable commit on its output.
#[test]
#[ignore = "run by the test beside it"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE) else { return };
    let folder = Path::new(&folder);
    let keys = crash_keys(folder);
    let mut opened = Opened::new(config(&folder.join("store")), &keys).unwrap();
    let mut out = std::io::stdout().lock();
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for owner in 0..OWNERS {
        let last = opened.store.range(
            Table::Queue,
            format!("device{owner}").as_bytes(),
            &[],
            &[0xff; 8],
            1,
            crate::store::Direction::Backward,
        );
        let from_queue = last
            .unwrap()
            .first()
            .map_or(0, |(sort, _)| u64::from_be_bytes(sort.as_ref().try_into().unwrap()));
        let counter = opened.store.get(&Row::new(Table::Cursor, &[owner as u8], b"")).unwrap();
        let counter =
            counter.map_or(0, |value| u64::from_be_bytes(value.as_slice().try_into().unwrap()));
        assert!(counter >= from_queue, "a counter is behind its queue");
        next.insert(owner, counter + 1);
    }
    let mut meaning: BTreeMap<CommitToken, String> = BTreeMap::new();
    let mut done = Vec::new();
    for turn in 0_u64.. {
        let owner = turn * 7 % OWNERS;
        let number = next[&owner];
        next.insert(owner, number + 1);
        let value = vec![number as u8; 100 + (turn * 131 % 1_500) as usize];
        let mut operations = vec![
            put(&crash_row(owner, number), &value),
            put(&Row::new(Table::Cursor, &[owner as u8], b""), &number.to_be_bytes()),
        ];
        let mut word = format!("put {owner} {number}");
        if turn % 5 == 0 && number > 20 {
            operations.push(Operation::DeleteRange {
                table: Table::Queue,
                owner: format!("device{owner}").into_bytes().into(),
                from_sort: Box::default(),
                to_sort: (number - 20).to_be_bytes().into(),
                keep: Vec::new(),
            });
            word.push_str(&format!(" freed {}", number - 20));
        }
        let token = CommitToken(turn);
        while opened.store.submit(token, operations.clone()).is_err() {
            let _ = opened.news.recv_timeout(PATIENCE);
        }
        meaning.insert(token, word);
        if meaning.len() < 64 {
            continue;
        }
        opened.news.recv_timeout(PATIENCE).unwrap();
        opened.store.completions(&mut done);
        for (token, outcome) in done.drain(..) {
            assert_eq!(outcome, Outcome::Durable);
            writeln!(out, "ack {}", meaning.remove(&token).unwrap()).unwrap();
        }
        out.flush().unwrap();
    }
}

/// What the killed processes acknowledged, by owner: the last number and the last freed.
type Ledger = BTreeMap<u64, (u64, u64)>;

/// Runs the child until it acknowledged `patience` commits, then kills it; notes every word of it.
fn run_and_kill(folder: &Path, patience: u64, ledger: &mut Ledger) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["store::embedded::tests::crash::child", "--exact", "--ignored", "--nocapture"])
        .args(["--test-threads", "1"])
        .env(FOLDER_VARIABLE, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = 0;
    for line in output.split(b'\n') {
        let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
        let words: Vec<_> = line.split(' ').collect();
        let Some(["put", owner, number, rest @ ..]) =
            words.split_first().and_then(|(first, rest)| first.ends_with("ack").then_some(rest))
        else {
            continue;
        };
        // The last line may be cut off by the kill: a number then reads smaller, which is safe.
        let (Ok(owner), Ok(number)) = (owner.parse(), number.parse::<u64>()) else { continue };
        let entry: &mut (u64, u64) = ledger.entry(owner).or_default();
        entry.0 = entry.0.max(number);
        if let ["freed", freed] = rest
            && let Ok(freed) = freed.parse::<u64>()
        {
            entry.1 = entry.1.max(freed);
        }
        acknowledged += 1;
        if acknowledged == patience {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(!status.success() && acknowledged >= patience, "the child ended by itself: {status}");
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_freed_returns_after_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let keys = crash_keys(folder.path());
    let mut ledger = Ledger::new();
    for round in 0..ROUNDS {
        run_and_kill(folder.path(), 50 + round * 977 % 3_000, &mut ledger);
        let opened = Opened::new(config(&folder.path().join("store")), &keys).unwrap();
        assert!(!opened.report.is_loss(), "{}", opened.report);
        for (owner, (last, freed)) in &ledger {
            for number in freed + 1..=*last {
                let value = opened.store.get(&crash_row(*owner, number)).unwrap();
                // A commit that was not acknowledged may have freed more.
                let Some(value) = value else {
                    let first = first_number(&opened, *owner);
                    assert!(number < first && first <= *last, "round {round}: {owner} {number}");
                    continue;
                };
                assert!(value.iter().all(|octet| *octet == number as u8));
            }
            assert!(first_number(&opened, *owner) > *freed, "round {round}: {owner} returned");
        }
    }
    assert_eq!(ledger.len() as u64, OWNERS);
}

fn first_number(opened: &Opened, owner: u64) -> u64 {
    let owner = format!("device{owner}");
    let rows = opened.store.range(
        Table::Queue,
        owner.as_bytes(),
        &[],
        &[0xff; 8],
        1,
        crate::store::Direction::Forward,
    );
    let rows = rows.unwrap();
    u64::from_be_bytes(rows[0].0.as_ref().try_into().unwrap())
}

#[test]
fn a_last_batch_torn_at_any_octet_is_cut_and_only_it() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys();
    let mut opened = Opened::new(config(folder.path()), &keys).unwrap();
    opened.put(&row(1), &[1; 10]);
    opened.put(&row(2), &[2; 10]);
    drop(opened);
    let journal = folder.path().join("data/0.jnl");
    let watermark = folder.path().join("watermark");
    let whole = std::fs::read(&journal).unwrap();
    let before = std::fs::read(&watermark).unwrap();
    let start = whole.iter().rposition(|octet| *octet != 0).unwrap() + 1;
    let mut opened = Opened::new(config(folder.path()), &keys).unwrap();
    opened.put(&row(3), &[3; 10]);
    drop(opened);
    let longer = std::fs::read(&journal).unwrap();
    let end = longer.iter().rposition(|octet| *octet != 0).unwrap() + 1;
    assert!(end > start);
    let files = super::damage::Snapshot::take(folder.path());
    // By zeros after the cut as in a preallocated file, and by the end of the file.
    for cut in start..end {
        for zeros in [0, 4_096] {
            if zeros > 0 && cut % 7 != 0 {
                continue;
            }
            files.restore(folder.path());
            let mut torn = longer[..cut].to_vec();
            torn.resize(cut + zeros, 0);
            std::fs::write(&journal, torn).unwrap();
            // The power went before the batch was acknowledged: the watermark is the older one.
            std::fs::write(&watermark, &before).unwrap();
            let mut opened = Opened::new(config(folder.path()), &keys).unwrap();
            let cut_off = opened
                .report
                .findings
                .iter()
                .any(|finding| matches!(finding, Finding::TornTailCut { .. }));
            assert!(cut_off || cut == start || longer[start..cut].iter().all(|octet| *octet == 0));
            assert!(!opened.report.is_loss(), "{cut}: {}", opened.report);
            assert_eq!(opened.store.get(&row(2)).unwrap().unwrap(), [2; 10]);
            assert_eq!(opened.store.get(&row(3)).unwrap(), None);
            if cut % 16 == 0 {
                opened.put(&row(4), b"goes on");
            }
        }
    }
    // With the watermark of the acknowledged batch the same cut is a loss, and is said to be one.
    files.restore(folder.path());
    std::fs::write(&journal, &longer[..end - 1]).unwrap();
    let error = Opened::new(config(folder.path()), &keys).err().unwrap();
    assert!(matches!(&error, OpenError::Damaged(report) if report.is_loss()), "{error}");
    assert_eq!(std::fs::read(&journal).unwrap(), &longer[..end - 1]);
    let accepting = Config { accept_loss: true, ..config(folder.path()) };
    let mut opened = Opened::new(accepting, &keys).unwrap();
    assert!(opened.report.is_loss());
    opened.put(&row(5), b"after the loss");
    drop(opened);
    let opened = Opened::new(config(folder.path()), &keys).unwrap();
    assert_eq!(opened.report.findings, []);
    assert_eq!(opened.store.get(&row(5)).unwrap().unwrap(), b"after the loss");
}

#[test]
fn after_a_failed_write_the_journal_is_written_anew() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let keys = keys();
    let mut opened = Opened::new(config(folder.path()), &keys).unwrap();
    opened.put(&row(1), &[1; 100]);
    super::super::start::note_failure(&opened.store.shared.files).unwrap();
    drop(opened);
    let journal = folder.path().join("data/0.jnl");
    let before = std::fs::metadata(&journal).unwrap().ino();
    let mut opened = Opened::new(config(folder.path()), &keys).unwrap();
    assert!(matches!(opened.report.findings[..], [Finding::JournalRewritten { .. }]));
    assert!(!opened.report.is_loss());
    assert_ne!(std::fs::metadata(&journal).unwrap().ino(), before);
    assert_eq!(opened.store.get(&row(1)).unwrap().unwrap(), [1; 100]);
    opened.put(&row(2), &[2; 100]);
    drop(opened);
    let opened = Opened::new(config(folder.path()), &keys).unwrap();
    assert_eq!(opened.report.findings, []);
    assert_eq!(opened.store.get(&row(2)).unwrap().unwrap(), [2; 100]);
}
