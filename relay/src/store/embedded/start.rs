//! The start: looks at every file before the database does, and says what it found.
//!
//! Owns the order of the checks. Until all of them agree, or the loss is accepted, nothing is
//! changed but copies of damaged journals made aside. Only a torn last batch is cut off without
//! being asked. RELAY.md, "The store: facts and guards".

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::database::{Database, DatabaseError, Space};
use super::journal::{self, Chain, LINK_KEY, Link};
use super::report::{Finding, OpenError, StartReport};
use super::watermark::{self, Watermark};
use crate::store::limits;

/// The files of a store.
#[derive(Clone, Debug)]
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(super) fn keys(&self) -> PathBuf {
        self.folder.join("keys")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.folder.join("lock")
    }

    pub(super) fn watermark(&self) -> PathBuf {
        self.folder.join("watermark")
    }

    /// Exists after a write failed, until the last journal was written anew.
    fn failed(&self) -> PathBuf {
        self.folder.join("failed")
    }

    fn aside(&self) -> PathBuf {
        self.folder.join("damaged")
    }

    /// Losses that were accepted: lines of the first lost number and the one after the last.
    fn losses(&self) -> PathBuf {
        self.folder.join("losses")
    }
}

/// An opened database and where its numbers stand.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) database: Database,
    /// The number of the last batch.
    pub(super) number: u64,
    /// Per space: the number of its last batch.
    pub(super) previous: [u64; 3],
}

/// Checks the files, opens the database and checks that it agrees with them.
pub(super) fn start(
    files: &Files,
    accept_loss: bool,
    report: &mut StartReport,
) -> Result<Started, OpenError> {
    let mark = read_watermark(files, report)?;
    let mut accepted = read_losses(&files.losses())?;
    check_manifests(files, mark, report)?;
    let journals = read_journals(files, &accepted, report)?;
    check_tail(&journals, mark, report);
    refuse_loss(accept_loss, report)?;
    mend(files, &journals, &mut accepted, report)?;
    renew(files, &journals, report)?;
    let database = open_database(files, report)?;
    let (mut number, previous) = check_links(&database, &journals.chain, &accepted, report)?;
    let lost = Finding::BatchesLost { numbers: number + 1..mark + 1 };
    if mark > number && !report.findings.contains(&lost) {
        report.findings.push(lost);
    }
    refuse_loss(accept_loss, report)?;
    if mark > number {
        accept(files, number + 1..mark + 1, &mut accepted)?;
        number = mark;
    }
    report.commit_number = number;
    Ok(Started { database, number, previous })
}

fn refuse_loss(accept_loss: bool, report: &StartReport) -> Result<(), OpenError> {
    if report.is_loss() && !accept_loss {
        return Err(OpenError::Damaged(report.clone()));
    }
    Ok(())
}

/// Reads the watermark; 0 if it tells nothing.
fn read_watermark(files: &Files, report: &mut StartReport) -> Result<u64, OpenError> {
    let path = files.watermark();
    let reading = Watermark::read(&path).map_err(|error| io_error("reading", &path, &error))?;
    Ok(match reading {
        watermark::Reading::Number(number, damaged) => {
            if damaged {
                report.findings.push(Finding::WatermarkHalfDamaged);
            }
            report.watermark = Some(number);
            number
        }
        watermark::Reading::Damaged => {
            report.findings.push(Finding::WatermarkUnusable { missing: false });
            0
        }
        watermark::Reading::Missing => {
            if files.data().exists() {
                report.findings.push(Finding::WatermarkUnusable { missing: true });
            }
            0
        }
    })
}

/// Checks the files that say which tables there are: the library reads them without checking, and
/// takes a missing one for a keyspace that was never finished.
fn check_manifests(files: &Files, mark: u64, report: &mut StartReport) -> Result<(), OpenError> {
    let data = files.data();
    if !data.exists() {
        report.created = mark == 0;
        return Ok(());
    }
    let spaces = list(&data.join("keyspaces"))?;
    let begun = mark > 0 || list(&data)?.iter().any(|path| is_journal_with_batches(path));
    if !data.join("version").exists() {
        if begun || spaces.iter().any(|space| space.join("current").exists() && has_tables(space)) {
            push_manifest(report, data.join("version"), "missing");
            return Ok(());
        }
        // The creation was interrupted before anything was acknowledged.
        report.created = true;
        return fs::remove_dir_all(&data).map_err(|error| io_error("removing", &data, &error));
    }
    if begun && spaces.is_empty() {
        push_manifest(report, data.join("keyspaces"), "missing or empty");
    }
    for space in spaces {
        let current = space.join("current");
        match fs::read(&current) {
            Ok(octets) => {
                if let Some(text) = check_manifest(&space, &octets) {
                    push_manifest(report, current, text);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if begun || has_tables(&space) {
                    push_manifest(report, current, "missing");
                }
            }
            Err(error) => return Err(io_error("reading", &current, &error)),
        }
    }
    Ok(())
}

fn push_manifest(report: &mut StartReport, file: PathBuf, text: &str) {
    report.findings.push(Finding::ManifestDamaged { file, text: text.to_owned() });
}

/// Compares a version file with the checksum that `current` holds.
fn check_manifest(space: &Path, current: &[u8]) -> Option<&'static str> {
    let (Some(id), Some(sum), 25) = (current.first_chunk(), current.get(8..24), current.len())
    else {
        return Some("not of the form of a pointer");
    };
    let sum = <[u8; 16]>::try_from(sum).ok();
    let version = space.join(format!("v{}", u64::from_le_bytes(*id)));
    let Ok(octets) = fs::read(version) else {
        return Some("points to a file that cannot be read");
    };
    (sum.map(u128::from_le_bytes) != Some(xxh3_128(&octets)))
        .then_some("its checksum is not that of the file it points to")
}

fn has_tables(space: &Path) -> bool {
    list(&space.join("tables")).is_ok_and(|tables| !tables.is_empty())
}

fn is_journal_with_batches(path: &Path) -> bool {
    journal_number(path).is_some()
        && fs::read(path)
            .is_ok_and(|octets| journal::read(&octets, &mut Chain::default(), &[]).batches > 0)
}

/// What the journals hold.
struct Journals {
    chain: Chain,
    /// Path and reading of each, in order.
    files: Vec<(PathBuf, journal::Reading)>,
}

fn read_journals(
    files: &Files,
    accepted: &[Range<u64>],
    report: &mut StartReport,
) -> Result<Journals, OpenError> {
    let mut numbered: Vec<(u64, PathBuf)> = list(&files.data())?
        .into_iter()
        .filter_map(|path| Some((journal_number(&path)?, path)))
        .collect();
    numbered.sort_unstable();
    let mut journals = Journals { chain: Chain::default(), files: Vec::new() };
    for (_, path) in numbered {
        let octets = fs::read(&path).map_err(|error| io_error("reading", &path, &error))?;
        let reading = journal::read(&octets, &mut journals.chain, accepted);
        report.journal_batches += reading.batches;
        report.journal_octets += octets.len() as u64;
        for gap in &reading.gaps {
            if !gap.octets.is_empty() {
                push_damage(files, &path, &octets, gap.octets.clone(), report);
            }
            if !gap.numbers.is_empty() {
                report.findings.push(Finding::BatchesLost { numbers: gap.numbers.clone() });
            }
        }
        journals.files.push((path, reading));
    }
    // Only the last journal may end in a torn batch: the others were flushed when they were closed.
    if let Some((_, closed)) = journals.files.split_last() {
        for (path, reading) in closed.iter().filter(|(_, reading)| !reading.tail.is_empty()) {
            let octets = fs::read(path).map_err(|error| io_error("reading", path, &error))?;
            push_damage(files, path, &octets, reading.tail.clone(), report);
        }
    }
    Ok(journals)
}

/// Tells a torn last batch from damage by the watermark.
fn check_tail(journals: &Journals, mark: u64, report: &mut StartReport) {
    let last = journals.chain.last;
    let Some((path, reading)) = journals.files.last() else { return };
    if !reading.tail.is_empty() {
        report.findings.push(Finding::TornTailCut {
            journal: name(path),
            at: reading.tail.start,
            octets: reading.tail.end - reading.tail.start,
        });
    }
    if let Some(last) = last
        && mark > last
    {
        report.findings.push(Finding::BatchesLost { numbers: last + 1..mark + 1 });
    }
}

fn push_damage(
    files: &Files,
    path: &Path,
    octets: &[u8],
    range: Range<u64>,
    report: &mut StartReport,
) {
    let copy = copy_aside(files, path, octets).ok().flatten();
    let finding = Finding::JournalDamaged { journal: name(path), octets: range, copy };
    if !report.findings.contains(&finding) {
        report.findings.push(finding);
    }
}

/// Copies a damaged journal aside, once per content.
fn copy_aside(files: &Files, path: &Path, octets: &[u8]) -> io::Result<Option<PathBuf>> {
    let folder = files.aside();
    fs::create_dir_all(&folder)?;
    let copy = folder.join(format!("{}.{:016x}", name(path), xxh3_64(octets)));
    if copy.exists() {
        return Ok(Some(copy));
    }
    if fs::read_dir(&folder)?.count() >= limits::ASIDE_COPIES_MAX {
        return Ok(None);
    }
    let mut file = File::create(&copy)?;
    file.write_all(octets)?;
    file.sync_all()?;
    Ok(Some(copy))
}

/// Cuts a torn tail; where a loss was accepted, keeps only the whole batches of each journal.
fn mend(
    files: &Files,
    journals: &Journals,
    accepted: &mut Vec<Range<u64>>,
    report: &StartReport,
) -> Result<(), OpenError> {
    for (path, reading) in &journals.files {
        let end = reading.whole.last().map_or(0, |range| range.end);
        if reading.gaps.is_empty() {
            if !reading.tail.is_empty() {
                cut(path, end as u64).map_err(|error| io_error("cutting", path, &error))?;
            }
        } else {
            rewrite(path, &reading.whole).map_err(|error| io_error("mending", path, &error))?;
        }
    }
    for finding in &report.findings {
        if let Finding::BatchesLost { numbers } = finding {
            accept(files, numbers.clone(), accepted)?;
        }
    }
    Ok(())
}

/// Notes that a write failed, for the next start.
pub(super) fn note_failure(files: &Files) -> io::Result<()> {
    File::create(files.failed())?.sync_all()?;
    File::open(files.folder())?.sync_all()
}

/// After a failed write or flush the system may show octets that never reached the device, and
/// take them for written: so the last journal is written anew.
fn renew(files: &Files, journals: &Journals, report: &mut StartReport) -> Result<(), OpenError> {
    let failed = files.failed();
    if !failed.exists() {
        return Ok(());
    }
    if let Some((path, reading)) = journals.files.last() {
        let octets = fs::metadata(path).map(|metadata| metadata.len());
        let end = octets.map_err(|error| io_error("reading", path, &error))?;
        // Mending may have joined the whole batches already.
        let whole = if reading.gaps.is_empty() {
            reading.whole.clone()
        } else {
            std::iter::once(0..usize::try_from(end).unwrap_or(usize::MAX)).collect()
        };
        rewrite(path, &whole).map_err(|error| io_error("writing anew", path, &error))?;
        report.findings.push(Finding::JournalRewritten { journal: name(path) });
    }
    fs::remove_file(&failed).map_err(|error| io_error("removing", &failed, &error))
}

fn cut(path: &Path, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}

fn rewrite(path: &Path, whole: &[Range<usize>]) -> io::Result<()> {
    let octets = fs::read(path)?;
    let fresh = path.with_extension("mended");
    let mut file = File::create(&fresh)?;
    for range in whole {
        file.write_all(octets.get(range.clone()).unwrap_or_default())?;
    }
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn open_database(files: &Files, report: &mut StartReport) -> Result<Database, OpenError> {
    match Database::open(&files.data()) {
        Ok(database) => Ok(database),
        Err(DatabaseError::Locked) => Err(OpenError::Locked(files.data())),
        Err(DatabaseError::NoSpace(text)) => {
            Err(OpenError::Io { what: "opening the database".to_owned(), text })
        }
        Err(error) => {
            report.findings.push(Finding::DatabaseDamaged { text: error.to_string() });
            Err(OpenError::Damaged(report.clone()))
        }
    }
}

/// Compares the links in the database with each other and with those in the journals.
fn check_links(
    database: &Database,
    chain: &Chain,
    accepted: &[Range<u64>],
    report: &mut StartReport,
) -> Result<(u64, [u64; 3]), OpenError> {
    let tolerated = |number: u64| accepted.iter().any(|range| range.contains(&number));
    let mut links = [None; 3];
    for (space, link) in Space::ALL.into_iter().zip(&mut links) {
        *link = match database.get(space, LINK_KEY) {
            Ok(row) => row.as_deref().and_then(Link::parse),
            Err(error) => {
                report.findings.push(Finding::DatabaseDamaged { text: error.to_string() });
                return Err(OpenError::Damaged(report.clone()));
            }
        };
    }
    let last = links.iter().flatten().max_by_key(|link| link.number).copied();
    let previous = links.map(|link| link.map_or(0, |link| link.number));
    for space in Space::ALL {
        let [number, expected] = [previous, last.map_or([0; 3], |last| last.previous)]
            .map(|numbers| numbers.get(space.index()).copied().unwrap_or_default());
        let is_last = last.is_some_and(|last| last.number == number);
        let replayed = chain.ends.get(&database.number(space)).copied();
        let behind = replayed.is_some_and(|replayed| replayed != number)
            || (!is_last && number != expected && !tolerated(expected))
            || lacks_older(database, space, chain)?.is_some_and(|number| !tolerated(number));
        if behind {
            report.findings.push(Finding::TablesBehind { space: format!("{space:?}"), expected });
        }
    }
    Ok((last.map_or(0, |last| last.number), previous))
}

/// The number of the batch that the tables of `space` should hold from before the journals and do
/// not.
fn lacks_older(database: &Database, space: Space, chain: &Chain) -> Result<Option<u64>, OpenError> {
    let Some(first) = chain.first else { return Ok(None) };
    let [meta, spool, state] = first.link.previous;
    let expected = match space {
        Space::Meta => meta,
        Space::Spool => spool,
        Space::State => state,
    };
    let (older, highest) = database.tables(space, first.sequence).map_err(|error| {
        OpenError::Io { what: "reading the tables".to_owned(), text: error.to_string() }
    })?;
    let number = older.as_deref().and_then(Link::parse).map_or(0, |link| link.number);
    // Where the tables go beyond the journals' beginning, the older link may be gone from them.
    let beyond = highest.is_some_and(|highest| highest >= first.sequence);
    Ok((number < expected && !beyond).then_some(expected))
}

fn read_losses(path: &Path) -> Result<Vec<Range<u64>>, OpenError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("reading", path, &error)),
    };
    Ok(text
        .lines()
        .filter_map(|line| {
            let (start, end) = line.split_once(' ')?;
            Some(start.parse().ok()?..end.parse().ok()?)
        })
        .collect())
}

/// Writes down that the batches of these numbers are lost and that this was accepted.
fn accept(
    files: &Files,
    numbers: Range<u64>,
    accepted: &mut Vec<Range<u64>>,
) -> Result<(), OpenError> {
    if accepted.contains(&numbers) {
        return Ok(());
    }
    let path = files.losses();
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        writeln!(file, "{} {}", numbers.start, numbers.end)?;
        file.sync_all()
    };
    write().map_err(|error| io_error("writing", &path, &error))?;
    accepted.push(numbers);
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("listing", folder, &error)),
    };
    entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()
        .map_err(|error| io_error("listing", folder, &error))
}

fn journal_number(path: &Path) -> Option<u64> {
    if path.extension()? != "jnl" {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub(super) fn io_error(what: &str, path: &Path, error: &io::Error) -> OpenError {
    OpenError::io(format!("{what} {}", path.display()), error)
}
