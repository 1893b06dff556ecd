//! Damage anywhere in the files: what was acknowledged is there, or the damage is told.

use std::path::PathBuf;
use std::time::Instant;

use super::*;
use crate::store::embedded::Finding;

/// How long the search for silent damage may take; the variable, in seconds, allows for all cases.
const BUDGET: Duration = Duration::from_secs(25);
const BUDGET_VARIABLE: &str = "CIPHERIM_STORE_DAMAGE_SECONDS";

/// All files of a folder, to go back to.
pub(super) struct Snapshot {
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Snapshot {
    pub(super) fn take(folder: &Path) -> Self {
        let mut files = Vec::new();
        let mut open = vec![folder.to_owned()];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                let octets = std::fs::read(&path).unwrap();
                files.push((path.strip_prefix(folder).unwrap().to_owned(), octets));
            }
        }
        files.sort();
        Self { files }
    }

    /// Makes `folder` hold these files and no others.
    pub(super) fn restore(&self, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir_all(&path).unwrap();
            } else {
                std::fs::remove_file(&path).unwrap();
            }
        }
        for (path, octets) in &self.files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Without the zeros at the end, which are most of a journal.
            let end = octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
            std::fs::write(&path, &octets[..end]).unwrap();
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(octets.len() as u64).unwrap();
        }
    }
}

/// What the store must hold: rows with values, and rows that were deleted.
struct Ledger {
    rows: Vec<(Row, Option<Vec<u8>>)>,
}

impl Ledger {
    /// A store with rows in tables, in the journal, and deleted ones in both.
    fn write(folder: &Path, keys: &Arc<SoftwareKeys>) -> Self {
        let mut rows = Vec::new();
        for part in 0..3_u8 {
            let mut opened = Opened::new(config(folder), keys).unwrap();
            for step in 0..12_u8 {
                let number = u64::from(part) * 100 + u64::from(step);
                let kept = Row::numbered(Table::Queue, b"bob@b.example/d1", number);
                let gone = Row::numbered(Table::Dedupe, b"bob@b.example/d1", number);
                let account = Row::new(Table::Account, &[b'a' + part, b'a' + step], b"");
                let contact = Row::new(Table::Roster, b"alice@a.example", &[part, step]);
                let value = vec![step; 90];
                let first = [&kept, &gone, &account, &contact].map(|row| put(row, &value));
                assert_eq!(opened.commit(first.to_vec()), Outcome::Durable);
                let second =
                    vec![Operation::Delete { row: gone.clone() }, put(&account, &[step; 9])];
                assert_eq!(opened.commit(second), Outcome::Durable);
                rows.push((kept, Some(value.clone())));
                rows.push((gone, None));
                rows.push((account, Some(vec![step; 9])));
                rows.push((contact, Some(value)));
            }
            if part < 2 {
                opened.store.shared.database().unwrap().settle(&Space::ALL).unwrap();
            }
        }
        Self { rows }
    }

    /// Whether the store in `folder` is true to the ledger or tells of damage; an error names what
    /// it hid.
    fn check(&self, folder: &Path, keys: &Arc<SoftwareKeys>) -> Result<Told, String> {
        let opened = match Opened::new(config(folder), keys) {
            Ok(opened) => opened,
            Err(OpenError::Damaged(_) | OpenError::Io { .. } | OpenError::Key(_)) => {
                return Ok(Told::AtStart);
            }
            Err(other) => return Err(format!("unexpected: {other}")),
        };
        let mut told = if opened.report.findings.is_empty() { Told::Whole } else { Told::AtStart };
        for (row, expected) in &self.rows {
            match opened.store.get(row) {
                Ok(found) if found == *expected => {}
                Ok(found) => {
                    let report = &opened.report;
                    return Err(format!(
                        "{row:?} holds {found:?}, expected {expected:?}: {report}"
                    ));
                }
                Err(_) => told = Told::AtRead,
            }
        }
        let rows = opened.store.range(
            Table::Queue,
            b"bob@b.example/d1",
            &[],
            &[0xff; 8],
            usize::MAX,
            crate::store::Direction::Forward,
        );
        match rows {
            Ok(rows) if rows.len() != 36 => return Err(format!("{} rows of 36", rows.len())),
            Ok(_) => {}
            Err(_) => told = Told::AtRead,
        }
        Ok(told)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    /// The damage touched nothing that matters.
    Whole,
    AtStart,
    AtRead,
}

#[derive(Clone, Copy, Debug)]
enum Harm {
    Cut,
    Flip(u8),
    Sector,
    Page,
    Remove,
}

impl Harm {
    fn apply(self, octets: &[u8], at: usize) -> Option<Vec<u8>> {
        let mut octets = octets.to_vec();
        let size = match self {
            Self::Cut => {
                octets.truncate(at);
                return Some(octets);
            }
            Self::Flip(bit) => {
                octets[at] ^= 1 << bit;
                return Some(octets);
            }
            Self::Remove => return None,
            Self::Sector => 512,
            Self::Page => 4_096,
        };
        let start = at / size * size;
        let end = (start + size).min(octets.len());
        octets[start..end].fill(0);
        Some(octets)
    }
}

#[test]
fn no_damage_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys();
    let ledger = Ledger::write(folder.path(), &keys);
    let snapshot = Snapshot::take(folder.path());
    assert_eq!(ledger.check(folder.path(), &keys), Ok(Told::Whole));
    let mut cases = Vec::new();
    for (path, octets) in &snapshot.files {
        let length = octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
        cases.push((path.clone(), Harm::Remove, 0));
        for at in (0..length).step_by((length / 40).max(1)) {
            cases.push((path.clone(), Harm::Cut, at));
            cases.push((path.clone(), Harm::Sector, at));
            cases.push((path.clone(), Harm::Page, at));
        }
        for at in (0..length).step_by((length / 300).max(1)) {
            cases.push((path.clone(), Harm::Flip((at % 8) as u8), at));
        }
    }
    // Every case is as likely as any other to be met within the budget.
    let count = cases.len();
    let stride = (count * 5 / 8) | 1;
    let seconds = std::env::var(BUDGET_VARIABLE).ok().and_then(|text| text.parse().ok());
    let budget = seconds.map_or(BUDGET, Duration::from_secs);
    let begun = Instant::now();
    let mut told = std::collections::BTreeMap::new();
    let mut silent = Vec::new();
    for step in 0..count {
        let (path, harm, at) = &cases[step * stride % count];
        if begun.elapsed() > budget {
            break;
        }
        snapshot.restore(folder.path());
        let octets = &snapshot.files.iter().find(|(file, _)| file == path).unwrap().1;
        match harm.apply(octets, *at) {
            Some(damaged) if damaged == *octets => continue,
            Some(damaged) => std::fs::write(folder.path().join(path), damaged).unwrap(),
            None => std::fs::remove_file(folder.path().join(path)).unwrap(),
        }
        match ledger.check(folder.path(), &keys) {
            Ok(how) => *told.entry(how).or_insert(0) += 1,
            Err(text) => silent.push(format!("{} {harm:?} at {at}: {text}", path.display())),
        }
    }
    println!("damage told: {told:?} of {count} cases");
    assert!(silent.is_empty(), "{} silent:\n{}", silent.len(), silent.join("\n"));
}

fn accepting(folder: &Path) -> Config {
    Config { accept_loss: true, ..config(folder) }
}

fn damage_report(folder: &Path, keys: &Arc<SoftwareKeys>) -> StartReport {
    match Opened::new(config(folder), keys) {
        Err(OpenError::Damaged(report)) => report,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the damage was not noticed"),
    }
}

#[test]
fn a_damaged_journal_is_kept_aside_and_mended_only_with_consent() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys();
    let journal = folder.path().join("data/0.jnl");
    let length = |path: &Path| {
        let octets = std::fs::read(path).unwrap();
        octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1)
    };
    let mut opened = Opened::new(config(folder.path()), &keys).unwrap();
    opened.put(&row(1), &[1; 500]);
    drop(opened);
    let start = length(&journal);
    let mut opened = Opened::new(config(folder.path()), &keys).unwrap();
    opened.put(&row(2), &[2; 500]);
    drop(opened);
    let end = length(&journal);
    let mut opened = Opened::new(config(folder.path()), &keys).unwrap();
    for number in 3..6 {
        opened.put(&row(number), &[3; 500]);
    }
    drop(opened);
    let mut octets = std::fs::read(&journal).unwrap();
    octets[start + 100..end - 100].fill(0);
    std::fs::write(&journal, &octets).unwrap();

    let report = damage_report(folder.path(), &keys);
    let [Finding::JournalDamaged { octets: range, copy: Some(copy), .. }, lost] =
        &report.findings[..]
    else {
        panic!("{report}");
    };
    assert_eq!(*range, start as u64..end as u64);
    assert!(matches!(lost, Finding::BatchesLost { numbers } if numbers.end - numbers.start == 1));
    assert_eq!(std::fs::read(copy).unwrap(), octets);
    assert_eq!(std::fs::read(&journal).unwrap(), octets);
    // Once more: the same words, no second copy.
    assert_eq!(damage_report(folder.path(), &keys), report);
    assert_eq!(std::fs::read_dir(folder.path().join("damaged")).unwrap().count(), 1);

    let mut opened = Opened::new(accepting(folder.path()), &keys).unwrap();
    assert!(opened.report.is_loss() && opened.report.to_string().contains("loss: "));
    assert_eq!(opened.store.get(&row(2)).unwrap(), None);
    for number in [1, 3, 4, 5] {
        assert!(opened.store.get(&row(number)).unwrap().is_some(), "{number}");
    }
    opened.put(&row(9), b"goes on");
    drop(opened);
    let opened = Opened::new(config(folder.path()), &keys).unwrap();
    assert_eq!(opened.report.findings, []);
    assert!(opened.store.get(&row(9)).unwrap().is_some());
}

#[test]
fn journals_that_vanish_or_end_early_are_missed() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys();
    let mut opened = Opened::new(config(folder.path()), &keys).unwrap();
    let account = Row::new(Table::Account, b"alice@a.example", b"");
    opened.put(&account, b"only in the first journal");
    let large = vec![5; 1 << 20];
    for round in 0..2 {
        // More than a journal's worth; the account's keyspace is not flushed, so that no journal
        // may go.
        for number in 0..66 {
            opened.submit(vec![put(&row(round * 100 + number), &large)]);
        }
        assert!(opened.outcomes(66).iter().all(|outcome| *outcome == Outcome::Durable));
        opened.store.shared.database().unwrap().settle(&[Space::Spool]).unwrap();
    }
    opened.put(&row(500), b"in the last journal");
    drop(opened);
    let data = folder.path().join("data");
    let mut journals: Vec<PathBuf> = std::fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    journals.sort();
    assert!(journals.len() >= 3, "{journals:?}");
    let aside = folder.path().join("aside");
    for journal in &journals {
        std::fs::rename(journal, &aside).unwrap();
        let report = damage_report(folder.path(), &keys);
        assert!(report.is_loss(), "without {}: {report}", journal.display());
        // A file cut to nothing is as bad as one that is not there.
        std::fs::write(journal, []).unwrap();
        assert!(damage_report(folder.path(), &keys).is_loss(), "empty {}", journal.display());
        std::fs::rename(&aside, journal).unwrap();
    }
    let opened = Opened::new(config(folder.path()), &keys).unwrap();
    assert_eq!(opened.report.findings, []);
    assert!(opened.store.get(&account).unwrap().is_some());
    assert_eq!(opened.store.get(&row(165)).unwrap().unwrap(), large);
}
