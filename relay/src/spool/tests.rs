//! The spool over the store in memory: numbers, limits, acknowledgements, expiry.

use protocol::AddressBuf;
use protocol::timestamp::Timestamp;

use super::*;
use crate::store::{CommitToken, MemoryStore, Outcome};

const DAY: u64 = 24 * 60 * 60 * 1_000;

struct Bench {
    store: MemoryStore,
    spool: Spool,
}

fn device() -> AddressBuf {
    AddressBuf::parse("bob@a.example/d7").unwrap()
}

fn settings() -> Settings {
    Settings { lines_max: 10, line_octets_max: 1_000, life_ms: 30 * DAY }
}

impl Bench {
    fn new() -> Self {
        Self { store: MemoryStore::new(), spool: Spool::new(settings()) }
    }

    fn commit(&mut self, operations: Vec<Operation>) -> Outcome {
        self.store.submit(CommitToken(1), operations).unwrap();
        let mut outcomes = Vec::new();
        self.store.completions(&mut outcomes);
        outcomes.pop().unwrap().1
    }

    fn plan(
        &mut self,
        line: &str,
        claim: Claim,
        kind: Kind,
    ) -> Result<(Appended, Vec<Operation>), SpoolError> {
        let owner = device();
        let (received_at, expires_at) = (Timestamp(DAY), self.spool.expiry(Timestamp(DAY), None));
        let parcel = Parcel { owner: &owner, kind, claim, received_at, expires_at };
        let mut operations = Vec::new();
        let write = |_, value: &mut Vec<u8>| value.extend_from_slice(line.as_bytes());
        let appended = self.spool.append(&self.store, parcel, write, &mut operations)?;
        Ok((appended, operations))
    }

    fn append(&mut self, line: &str) -> Result<u64, SpoolError> {
        let (appended, operations) = self.plan(line, Claim::Known, Kind::Line)?;
        assert_eq!(self.commit(operations), Outcome::Durable);
        self.spool.settle(&appended, Settlement::Durable);
        Ok(appended.number)
    }

    fn acknowledge(&mut self, up_to: u64, kept: &[u64], at: u64) -> Result<(), SpoolError> {
        let mut operations = Vec::new();
        let (store, at) = (&self.store, Timestamp(at));
        let moved = self.spool.acknowledge(store, &device(), (up_to, kept), at, &mut operations)?;
        if let Some(moved) = moved {
            assert_eq!(self.commit(operations), Outcome::Durable);
            self.spool.moved(&self.store, moved)?;
        }
        Ok(())
    }

    fn lines(&mut self, after: u64) -> Vec<(u64, String)> {
        let rows = self.spool.read(&self.store, &device(), after).unwrap();
        let text = |entry: Entry| String::from_utf8(entry.into_line()).unwrap();
        rows.into_iter().map(|(number, entry)| (number, text(entry.unwrap()))).collect()
    }

    fn restart(&mut self) {
        self.store.crash();
        self.spool = Spool::new(settings());
    }

    fn standing(&mut self) -> Standing {
        self.spool.standing(&self.store, &device()).unwrap()
    }
}

#[test]
fn lines_come_back_in_order_until_they_are_acknowledged() {
    let mut bench = Bench::new();
    for number in 1..=5 {
        assert_eq!(bench.append(&format!("line {number}")), Ok(number));
    }
    for _ in 0..2 {
        let lines = bench.lines(2);
        assert_eq!(lines.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(lines[0].1, "line 3");
        assert_eq!(bench.standing().held.line_octets, 30);
        bench.restart();
    }
    bench.acknowledge(4, &[2], 1).unwrap();
    for _ in 0..2 {
        assert_eq!(bench.lines(0).len(), 2, "the kept one and the last");
        assert_eq!(bench.spool.kept(&bench.store, &device()), Ok(vec![2]));
        let standing = bench.standing();
        assert_eq!((standing.freed, standing.durable), (4, 5));
        assert_eq!((standing.held.rows, standing.held.line_octets), (1, 6));
        bench.restart();
    }
    bench.acknowledge(5, &[], 1).unwrap();
    assert_eq!(bench.lines(0), []);
    bench.restart();
    assert_eq!(bench.append("after"), Ok(6), "numbers are never given again");
    assert_eq!(bench.acknowledge(7, &[], 1), Err(SpoolError::NeverGiven));
}

#[test]
fn limits_hold_at_n_and_one_more() {
    let mut bench = Bench::new();
    for _ in 0..settings().lines_max {
        bench.append("x").unwrap();
    }
    assert_eq!(bench.append("x"), Err(SpoolError::Full));
    assert!(bench.plan("x", Claim::Promised, Kind::Line).is_ok(), "a promise is kept");
    bench.restart();
    assert_eq!(bench.append("x"), Err(SpoolError::Full));
    bench.acknowledge(1, &[], 1).unwrap();
    bench.append("x").unwrap();
    assert_eq!(bench.append("x"), Err(SpoolError::Full));

    let mut bench = Bench::new();
    bench.append(&"x".repeat(999)).unwrap();
    assert_eq!(bench.append("xx"), Err(SpoolError::Full));
    bench.append("x").unwrap();
    bench.acknowledge(2, &[], 1).unwrap();
    bench.append(&"x".repeat(1_000)).unwrap();
}

#[test]
fn strangers_fill_half_a_queue() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.plan("x", Claim::Stranger, Kind::Line).unwrap();
    }
    assert_eq!(bench.plan("x", Claim::Stranger, Kind::Line), Err(SpoolError::Full));
    bench.plan("x", Claim::Known, Kind::Line).unwrap();
}

#[test]
fn room_taken_by_failed_commits_comes_back() {
    let mut bench = Bench::new();
    for _ in 0..50 {
        let planned: Vec<_> =
            (0..3).map(|_| bench.plan("x", Claim::Known, Kind::Line).unwrap().0).collect();
        for appended in &planned {
            bench.spool.settle(appended, Settlement::Failed);
        }
        let number = bench.append("y").unwrap();
        bench.acknowledge(number, &[], 1).unwrap();
        assert_eq!(bench.standing().held, Totals::default());
    }
}

#[test]
fn acknowledging_twice_before_the_first_is_durable_is_once() {
    let mut bench = Bench::new();
    for _ in 0..6 {
        bench.append("x").unwrap();
    }
    let mut plans = Vec::new();
    for (up_to, kept) in [(3, vec![2]), (5, vec![2, 4])] {
        let mut operations = Vec::new();
        let ask = (up_to, &kept[..]);
        let moved = bench
            .spool
            .acknowledge(&bench.store, &device(), ask, Timestamp(1), &mut operations)
            .unwrap()
            .unwrap();
        plans.push((moved, operations));
    }
    for (moved, operations) in plans {
        bench.commit(operations);
        bench.spool.moved(&bench.store, moved).unwrap();
    }
    for _ in 0..2 {
        let numbers: Vec<u64> = bench.lines(0).into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [2, 4, 6]);
        assert_eq!(bench.spool.kept(&bench.store, &device()), Ok(vec![2, 4]));
        bench.restart();
    }
}

#[test]
fn what_is_due_is_found_until_it_is_given_up() {
    let mut bench = Bench::new();
    bench.append("old").unwrap();
    bench.append("old too").unwrap();
    let due = DAY + 30 * DAY;
    assert_eq!(bench.spool.due(&bench.store, Timestamp(due - 1), None), Ok(None));
    let found = bench.spool.due(&bench.store, Timestamp(due), None).unwrap().unwrap();
    assert_eq!(found.owner, device());
    assert_eq!(bench.spool.due(&bench.store, Timestamp(due), Some(&found)), Ok(None));
    let rows = bench.spool.sweep_rows(&bench.store, &found, 0, 10).unwrap();
    assert!(rows.iter().all(|(_, entry)| entry.as_ref().unwrap().expires_at.0 <= due));
    let mut operations = Vec::new();
    let moved = bench.spool.give_up(&bench.store, &device(), &[1, 2], &mut operations);
    let moved = moved.unwrap().unwrap();
    let again = bench.spool.give_up(&bench.store, &device(), &[1, 2], &mut Vec::new());
    assert_eq!(again, Ok(None), "one move at a time");
    bench.commit(operations);
    bench.spool.moved(&bench.store, moved).unwrap();
    assert_eq!(bench.spool.sweep_rows(&bench.store, &found, 0, 10), Ok(vec![]));
    assert_eq!(bench.standing().held, Totals::default());
    let done = bench.spool.done(&found);
    bench.commit(vec![done]);
    bench.restart();
    assert_eq!(bench.append("new"), Ok(3));
}

#[test]
fn a_kept_line_is_due_after_a_day() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.append("x").unwrap();
    }
    bench.acknowledge(3, &[2], 5 * DAY).unwrap();
    let found = bench.spool.due(&bench.store, Timestamp(6 * DAY), None).unwrap();
    assert_eq!(found.map(|due| due.owner), Some(device()));
    let too_long = |bench: &mut Bench, at| {
        bench.spool.kept_too_long(&bench.store, &device(), Timestamp(at)).unwrap()
    };
    assert_eq!(too_long(&mut bench, 6 * DAY - 1), [] as [u64; 0]);
    assert_eq!(too_long(&mut bench, 6 * DAY), [2]);
    let mut operations = Vec::new();
    let moved = bench.spool.give_up(&bench.store, &device(), &[2], &mut operations).unwrap();
    bench.commit(operations);
    bench.spool.moved(&bench.store, moved.unwrap()).unwrap();
    assert_eq!(bench.spool.kept(&bench.store, &device()), Ok(vec![]));
    assert_eq!(bench.lines(0), []);
}

#[test]
fn queues_in_memory_have_a_limit() {
    let mut bench = Bench::new();
    for number in 0..limits::QUEUES_LOADED_MAX {
        let owner = AddressBuf::parse(&format!("u{number}@a/d")).unwrap();
        bench.spool.turn(Duration::from_secs(number as u64));
        bench.spool.standing(&bench.store, &owner).unwrap();
    }
    assert_eq!(bench.spool.loaded_count(), limits::QUEUES_LOADED_MAX);
    let (appended, _) = bench.plan("x", Claim::Known, Kind::Line).unwrap();
    assert!(bench.spool.loaded_count() <= limits::QUEUES_LOADED_MAX / 2 + 1);
    bench.spool.unload(&device());
    bench.spool.settle(&appended, Settlement::Durable);
    assert_eq!(bench.standing().durable, 1, "it was not forgotten with a commit under way");
}

#[test]
fn held_lines_are_listed_until_they_are_taken_out() {
    let mut bench = Bench::new();
    let account = AddressBuf::parse("bob@a.example").unwrap();
    let mut holders = Holders::default();
    holders.load(&bench.store).unwrap();
    let expires_at = bench.spool.expiry(Timestamp(DAY), Some(60));
    let parcel = Parcel {
        owner: &account,
        kind: Kind::Held,
        claim: Claim::Known,
        received_at: Timestamp(DAY),
        expires_at,
    };
    for count in 0..=limits::HELD_LINES_MAX {
        let mut operations = vec![holders.add(&account)];
        let write = |_, value: &mut Vec<u8>| value.push(b'x');
        let appended = bench.spool.append(&bench.store, parcel, write, &mut operations);
        if count == limits::HELD_LINES_MAX {
            assert_eq!(appended, Err(SpoolError::Full));
        } else {
            bench.commit(operations);
            bench.spool.settle(&appended.unwrap(), Settlement::Durable);
        }
    }
    bench.restart();
    let mut holders = Holders::default();
    holders.load(&bench.store).unwrap();
    assert_eq!(holders.next(None), Some(account.clone()));
    assert_eq!(holders.next(Some(&account)), None);
    let held = bench.spool.held_lines(&bench.store, &account).unwrap();
    assert_eq!(held.len() as u64, limits::HELD_LINES_MAX);
    let mut operations: Vec<_> =
        held.iter().map(|(number, _)| bench.spool.unhold(&account, *number)).collect();
    operations.push(holders.remove(&account));
    bench.commit(operations);
    bench.spool.released(&bench.store, &account).unwrap();
    let standing = bench.spool.standing(&bench.store, &account).unwrap();
    assert_eq!(standing.held, Totals::default());
    let mut holders = Holders::default();
    holders.load(&bench.store).unwrap();
    assert_eq!(holders.next(None), None);
}
