//! Measures durable commits per second of the store on disk, with a number of them outstanding.
//!
//! `cargo run --release -p cipherim-benches --example durable -- FOLDER [SECONDS]`
//!
//! Four loads: `fjall` writes 1 KiB rows to the bare database, in batches of the number
//! outstanding,
//! as the floor; `line` writes 1 KiB per commit; `message` does what a routed message does
//! (requires
//! that it was not seen, writes the line and the note that it was seen); `mixed` also reads back
//! and frees, so that the store stays small. The folder must be on the device to be measured.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use relay::keys::software::SoftwareKeys;
use relay::store::embedded::{Config, EmbeddedStore};
use relay::store::{CommitToken, Direction, Operation, Outcome, Row, Store, StoreError, Table};

const VALUE_LENGTH: usize = 1_024;
const DEVICES: u64 = 1_000;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("which folder?")?);
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    println!(
        "{:8} {:>11} {:>11} {:>9} {:>9}",
        "load", "outstanding", "commits/s", "p50 ms", "p99 ms"
    );
    let length = Duration::from_secs(seconds);
    for outstanding in [16, 256, 1_024] {
        floor(&folder, outstanding, length)?;
    }
    for load in ["line", "message", "mixed"] {
        for outstanding in [16, 256, 1_024] {
            measure(&folder, load, outstanding, length)?;
        }
    }
    Ok(())
}

/// The bare database: one thread, one flushed batch of `outstanding` rows after the other.
fn floor(folder: &Path, outstanding: usize, length: Duration) -> anyhow::Result<()> {
    let folder = folder.join(format!("durable-fjall-{outstanding}"));
    let _ = std::fs::remove_dir_all(&folder);
    let database = fjall::Database::builder(&folder).manual_journal_persist(true).open()?;
    let rows = database.keyspace("rows", fjall::KeyspaceCreateOptions::default)?;
    let begun = Instant::now();
    let processor = processor_time()?;
    let mut waits = Vec::new();
    let mut number = 0_u64;
    while begun.elapsed() < length {
        let start = Instant::now();
        let mut batch = database.batch().durability(Some(fjall::PersistMode::SyncData));
        for _ in 0..outstanding {
            number += 1;
            let key = [&device(number)[..], &number.to_be_bytes()].concat();
            batch.insert(&rows, key, vec![number as u8; VALUE_LENGTH]);
        }
        batch.commit()?;
        waits.extend(std::iter::repeat_n(start.elapsed(), outstanding));
    }
    print("fjall", outstanding, &mut waits, begun.elapsed(), processor_time()? - processor);
    drop((rows, database));
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn print(
    load: &str,
    outstanding: usize,
    waits: &mut [Duration],
    elapsed: Duration,
    processor: Duration,
) {
    let rate = waits.len() as f64 / elapsed.as_secs_f64();
    let processor = processor.as_secs_f64() * 1e6 / waits.len() as f64;
    waits.sort_unstable();
    let at = |share: usize| {
        waits.get(waits.len() * share / 100).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
    };
    println!(
        "{load:8} {outstanding:>11} {rate:>11.0} {:>9.2} {:>9.2} {processor:>13.2}",
        at(50),
        at(99)
    );
}

fn measure(folder: &Path, load: &str, outstanding: usize, length: Duration) -> anyhow::Result<()> {
    let folder = folder.join(format!("durable-{load}-{outstanding}"));
    let _ = std::fs::remove_dir_all(&folder);
    let keys = Arc::new(SoftwareKeys::generate()?);
    let loop_thread = thread::current();
    let wake = Box::new(move || loop_thread.unpark());
    let (mut store, _) = EmbeddedStore::open(Config::new(&folder), keys, wake)?;
    let begun = Instant::now();
    let processor = processor_time()?;
    let mut waits: Vec<Duration> = Vec::new();
    let mut sent: Vec<Instant> = Vec::new();
    let mut done = Vec::new();
    let mut pending = 0;
    while begun.elapsed() < length || pending > 0 {
        while pending < outstanding && begun.elapsed() < length {
            let number = sent.len() as u64;
            match store.submit(CommitToken(number), operations(load, number)) {
                Ok(()) => {}
                Err(StoreError::Busy) => break,
                Err(error) => bail!("{error}"),
            }
            sent.push(Instant::now());
            pending += 1;
        }
        store.completions(&mut done);
        if done.is_empty() {
            thread::park_timeout(Duration::from_secs(1));
        }
        for (CommitToken(number), outcome) in done.drain(..) {
            if outcome != Outcome::Durable {
                bail!("commit {number}: {outcome:?}");
            }
            let index = usize::try_from(number)?;
            waits.push(sent.get(index).context("an unknown token")?.elapsed());
            pending -= 1;
            if load == "mixed" && number.is_multiple_of(4) {
                let (owner, number) = (device(number), number.to_be_bytes());
                store.range(Table::Queue, &owner, &number, &[0xff; 8], 16, Direction::Forward)?;
            }
        }
    }
    print(load, outstanding, &mut waits, begun.elapsed(), processor_time()? - processor);
    drop(store);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Time that all threads of this process spent on a processor, in steps of 10 ms.
fn processor_time() -> anyhow::Result<Duration> {
    let status = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = status.rsplit_once(')').context("the form of /proc/self/stat")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn device(number: u64) -> Vec<u8> {
    format!("device{}@b.example/d1", number % DEVICES).into_bytes()
}

fn operations(load: &str, number: u64) -> Vec<Operation> {
    let owner = device(number);
    let line = Operation::Put {
        row: Row::numbered(Table::Queue, &owner, number),
        value: vec![number as u8; VALUE_LENGTH],
    };
    if load == "line" {
        return vec![line];
    }
    // A hash stands for (code, FROM, TO, MID): spread over the whole range.
    let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let seen = Row::new(Table::Dedupe, &owner, &hash);
    let mut operations = vec![
        Operation::RequireAbsent { row: seen.clone() },
        line,
        Operation::Put { row: seen, value: vec![0; 40] },
    ];
    if load == "mixed" && number / DEVICES >= 8 && number.is_multiple_of(8) {
        operations.push(Operation::DeleteRange {
            table: Table::Queue,
            owner: owner.into(),
            from_sort: 0_u64.to_be_bytes().into(),
            to_sort: (number - DEVICES * 8).to_be_bytes().into(),
            keep: Vec::new(),
        });
    }
    operations
}
