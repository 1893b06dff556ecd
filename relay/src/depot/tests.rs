//! The depot over the store in memory: room, order, repeats, removal, restarts.

use protocol::file::Shape;
use protocol::identifier::FileId;
use protocol::timestamp::Timestamp;
use protocol::{Address, AddressBuf};

use super::*;
use crate::store::{CommitToken, Fault, MemoryStore};

const OCTETS: u32 = 1_024;

struct Bench {
    store: MemoryStore,
    depot: Depot,
}

fn account() -> Address<'static> {
    Address::parse("bob@a.example").unwrap()
}

/// A file of `chunks` full chunks.
fn card(number: u8, chunks: u64) -> Card {
    let sender = Address::parse("alice@a.example/d1").unwrap();
    Card {
        label: Label::new(account(), sender, FileId::from_octets(&[number; 16])),
        shape: Shape::new(chunks * u64::from(OCTETS), OCTETS).unwrap(),
        next: 0,
        expires_at: Timestamp(1_000),
        is_doomed: false,
    }
}

fn sealed(number: u64) -> Vec<u8> {
    vec![number as u8; OCTETS as usize + 16]
}

impl Bench {
    fn new(octets_max: u64) -> Self {
        Self { store: MemoryStore::new(), depot: Depot::new(Settings { octets_max }) }
    }

    fn restart(&mut self) {
        self.store.crash();
        self.depot = Depot::new(self.depot.settings);
    }

    fn submit(&mut self, operations: Vec<Operation>) {
        self.store.submit(CommitToken(1), operations).unwrap();
    }

    fn outcomes(&mut self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        self.store.completions(&mut outcomes);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn commit(&mut self, operations: Vec<Operation>) -> Outcome {
        self.submit(operations);
        self.outcomes().pop().unwrap()
    }

    fn keep(&mut self, card: &Card) -> Result<(), DepotError> {
        let mut operations = Vec::new();
        let room = self.depot.set_aside(&self.store, card, &mut operations)?;
        assert_eq!(self.commit(operations), Outcome::Durable);
        self.depot.settle_room(&room);
        Ok(())
    }

    fn plan(&mut self, card: &Card, number: u64) -> Result<Stored, DepotError> {
        let chunk = (number, sealed(number));
        let planned = self.depot.add_chunk(&self.store, &card.label, chunk)?;
        let (stored, operations) = planned.unwrap();
        self.submit(operations);
        Ok(stored)
    }

    fn add(&mut self, card: &Card, number: u64) -> Result<Verdict, DepotError> {
        let stored = self.plan(card, number)?;
        let outcome = self.outcomes().pop().unwrap();
        Ok(self.depot.settle_chunk(&stored, outcome))
    }

    fn doom(&mut self, card: &Card) {
        let (card, operation) = self.depot.doom(&self.store, &card.label).unwrap().unwrap();
        assert_eq!(self.commit(vec![operation]), Outcome::Durable);
        self.depot.remove(&card);
    }

    /// Does all removals; gives how many commits they took.
    fn clear(&mut self) -> usize {
        let mut count = 0;
        while let Some((removal, operations)) = self.depot.next_removal() {
            let is_durable = self.commit(operations) == Outcome::Durable;
            self.depot.settle_removal(removal, is_durable);
            count += 1;
        }
        count
    }
}

const NEW: Verdict = Verdict::Kept { is_new: true };
const AGAIN: Verdict = Verdict::Kept { is_new: false };

#[test]
fn room_for_a_whole_file_at_n_and_one_more() {
    let one = card(1, 3);
    for (octets_max, fits) in [(one.octets(), true), (one.octets() - 1, false)] {
        let mut bench = Bench::new(octets_max);
        assert_eq!(bench.keep(&one), if fits { Ok(()) } else { Err(DepotError::Full) });
    }
    let mut bench = Bench::new(2 * one.octets());
    let mut operations = Vec::new();
    let room = bench.depot.set_aside(&bench.store, &one, &mut operations).unwrap();
    bench.keep(&card(2, 3)).unwrap();
    assert_eq!(bench.keep(&card(3, 1)), Err(DepotError::Full), "the first is on its way");
    bench.depot.settle_room(&room);
    bench.keep(&card(3, 3)).unwrap();
    bench.restart();
    assert_eq!(bench.keep(&card(4, 1)), Err(DepotError::Full));
    bench.doom(&card(2, 3));
    assert_eq!(bench.keep(&card(4, 1)), Err(DepotError::Full), "its chunks are still there");
    bench.clear();
    bench.keep(&card(4, 3)).unwrap();
    assert_eq!(bench.keep(&card(4, 3)), Err(DepotError::Known));
}

#[test]
fn files_of_an_account_at_n_and_one_more() {
    let mut bench = Bench::new(u64::MAX);
    for number in 0..limits::FILES_KEPT_MAX as u8 {
        bench.keep(&card(number, 1)).unwrap();
    }
    assert_eq!(bench.keep(&card(0xFF, 1)), Err(DepotError::Full));
    let elsewhere = Card {
        label: Label {
            account: AddressBuf::parse("carol@a.example").unwrap(),
            ..card(0xFF, 1).label
        },
        ..card(0xFF, 1)
    };
    bench.keep(&elsewhere).unwrap();
}

#[test]
fn chunks_come_in_order_and_stay_as_they_are() {
    let mut bench = Bench::new(u64::MAX);
    let one = card(1, 3);
    bench.keep(&one).unwrap();
    let label = &one.label;
    assert_eq!(bench.add(&one, 1), Err(DepotError::Missing { next: 0 }));
    assert_eq!(bench.add(&one, 0), Ok(NEW));
    assert_eq!(bench.add(&one, 0), Ok(AGAIN));
    bench.restart();
    assert_eq!(bench.add(&one, 2), Err(DepotError::Missing { next: 1 }));
    assert_eq!(bench.add(&one, 0), Ok(AGAIN));
    assert_eq!(bench.add(&one, 1), Ok(NEW));
    for (number, octets) in [(2, 1_039), (2, 1_041), (3, 1_040)] {
        let chunk = (number, vec![0; octets]);
        let refused = bench.depot.add_chunk(&bench.store, label, chunk);
        assert_eq!(refused.unwrap_err(), DepotError::Misfit, "{number} {octets}");
    }
    let planned = bench.depot.add_chunk(&bench.store, label, (1, sealed(9))).unwrap();
    let (stored, operations) = planned.unwrap();
    let outcome = bench.commit(operations);
    assert_eq!(bench.depot.settle_chunk(&stored, outcome), Verdict::Other);
    assert_eq!(bench.add(&one, 2), Ok(NEW));
    assert!(bench.depot.card(&bench.store, label).unwrap().unwrap().is_whole());
    for number in 0..3 {
        let chunk = bench.depot.chunk(&bench.store, label, (one.shape, number)).unwrap();
        assert_eq!(chunk, Some(sealed(number)));
    }
    assert_eq!(bench.depot.chunk(&bench.store, label, (one.shape, 3)), Ok(None));
    bench.commit(vec![Operation::Put { row: label.chunk_row(0), value: vec![1] }]);
    let damaged = bench.depot.chunk(&bench.store, label, (one.shape, 0));
    assert!(matches!(damaged, Err(StoreError::Damaged { .. })), "{damaged:?}");
    let other = card(2, 3);
    let chunk = (0, sealed(0));
    assert_eq!(bench.depot.add_chunk(&bench.store, &other.label, chunk), Ok(None), "not kept");
}

#[test]
fn chunks_under_way_at_n_and_one_more() {
    let mut bench = Bench::new(u64::MAX);
    let one = card(1, 100);
    bench.keep(&one).unwrap();
    let window = limits::CHUNKS_STORING_MAX as u64;
    let mut stored: Vec<_> = (0..window).map(|number| bench.plan(&one, number).unwrap()).collect();
    assert_eq!(bench.plan(&one, window), Err(DepotError::Crowded));
    assert_eq!(bench.plan(&one, 0), Err(DepotError::Crowded), "repeats count, too");
    for (stored, outcome) in stored.drain(..).zip(bench.outcomes()) {
        assert_eq!(bench.depot.settle_chunk(&stored, outcome), NEW);
    }
    assert_eq!(bench.add(&one, window), Ok(NEW));
}

#[test]
fn a_chunk_that_fails_leaves_no_gap_behind_it() {
    for fault in [Fault::UnknownDone, Fault::UnknownUndone] {
        let mut bench = Bench::new(u64::MAX);
        let one = card(1, 10);
        bench.keep(&one).unwrap();
        bench.add(&one, 0).unwrap();
        let first = bench.plan(&one, 1).unwrap();
        let second = bench.plan(&one, 2).unwrap();
        let repeat = bench.plan(&one, 1).unwrap();
        bench.store.fail_next(fault);
        let mut outcomes = bench.outcomes().into_iter();
        let mut settle = |bench: &mut Bench, stored: &Stored| {
            bench.depot.settle_chunk(stored, outcomes.next().unwrap())
        };
        assert_eq!(settle(&mut bench, &first), Verdict::Failed(Outcome::Unknown));
        let crowded = bench.depot.add_chunk(&bench.store, &one.label, (3, sealed(3)));
        assert_eq!(crowded, Err(DepotError::Crowded), "nothing is built on what failed");
        for stored in [&second, &repeat] {
            assert!(matches!(settle(&mut bench, stored), Verdict::Failed(_)));
        }
        bench.store.reopen();
        let next = if fault == Fault::UnknownDone { 2 } else { 1 };
        assert_eq!(bench.plan(&one, 5), Err(DepotError::Missing { next }));
        assert_eq!(bench.add(&one, next), Ok(NEW));
    }
}

#[test]
fn a_repeat_of_a_chunk_that_did_not_arrive_is_not_called_kept() {
    let mut bench = Bench::new(u64::MAX);
    let one = card(1, 10);
    bench.keep(&one).unwrap();
    let lost = bench.depot.add_chunk(&bench.store, &one.label, (0, sealed(0))).unwrap().unwrap();
    let repeat = bench.plan(&one, 0).unwrap();
    let next = bench.plan(&one, 1).unwrap();
    let refused = Outcome::Refused(StoreError::Busy);
    assert_eq!(bench.depot.settle_chunk(&lost.0, refused.clone()), Verdict::Failed(refused));
    let outcomes = bench.outcomes();
    assert_eq!(bench.depot.settle_chunk(&repeat, outcomes[0].clone()), Verdict::Overtaken);
    assert_eq!(bench.depot.settle_chunk(&next, outcomes[1].clone()), Verdict::Overtaken);
    assert_eq!(bench.add(&one, 0), Ok(NEW));
}

#[test]
fn a_marked_file_is_gone_and_its_rows_follow() {
    let mut bench = Bench::new(u64::MAX);
    let chunks = limits::CHUNKS_REMOVED_AT_ONCE + 1;
    let large = Card { label: card(2, 1).label, ..card(2, chunks) };
    for (card, steps) in [(card(1, limits::CHUNKS_REMOVED_AT_ONCE), 1), (large, 2)] {
        bench.keep(&card).unwrap();
        for number in 0..5 {
            bench.add(&card, number).unwrap();
        }
        let under_way = bench.plan(&card, 5).unwrap();
        let (doomed, operation) = bench.depot.doom(&bench.store, &card.label).unwrap().unwrap();
        let crowded = bench.depot.add_chunk(&bench.store, &card.label, (6, sealed(6)));
        assert_eq!(crowded, Err(DepotError::Crowded));
        bench.submit(vec![operation]);
        let outcomes = bench.outcomes();
        assert_eq!(bench.depot.settle_chunk(&under_way, outcomes[0].clone()), NEW);
        bench.restart();
        assert_eq!(bench.depot.card(&bench.store, &card.label), Ok(None));
        assert_eq!(bench.depot.doom(&bench.store, &card.label), Ok(None));
        let chunk = (6, sealed(6));
        assert_eq!(bench.depot.add_chunk(&bench.store, &card.label, chunk), Ok(None));
        assert_eq!(bench.keep(&card), Err(DepotError::Known), "it is not gone for good");
        let (cards, next) = bench.depot.sweep(&bench.store, None).unwrap();
        assert_eq!(cards, [doomed]);
        assert_eq!(next, None);
        bench.store.set_full(true);
        bench.depot.remove(&cards[0]);
        bench.depot.remove(&cards[0]);
        assert_eq!(bench.depot.removal_count(), 1, "once is enough");
        assert_eq!(bench.clear(), steps);
        assert_eq!(bench.store.row_count(), 0);
        bench.store.set_full(false);
    }
}

#[test]
fn a_chunk_planned_before_the_mark_and_submitted_behind_it_is_not_kept() {
    let mut bench = Bench::new(u64::MAX);
    let one = card(1, 10);
    bench.keep(&one).unwrap();
    let (_, mark) = bench.depot.doom(&bench.store, &one.label).unwrap().unwrap();
    let late = bench.depot.add_chunk(&bench.store, &one.label, (0, sealed(0)));
    let (stored, operations) = late.unwrap().unwrap();
    assert_eq!(bench.commit(vec![mark]), Outcome::Durable);
    let outcome = bench.commit(operations);
    assert_eq!(bench.depot.settle_chunk(&stored, outcome), Verdict::Overtaken);
    assert_eq!(bench.store.row_count(), 1, "only the marked card");
}

#[test]
fn a_removal_that_fails_goes_on_where_it_was() {
    let mut bench = Bench::new(u64::MAX);
    let one = card(1, limits::CHUNKS_REMOVED_AT_ONCE + 1);
    bench.keep(&one).unwrap();
    bench.doom(&one);
    let (removal, _) = bench.depot.next_removal().unwrap();
    assert!(bench.depot.next_removal().is_none(), "one part at a time");
    assert_eq!(bench.depot.settle_removal(removal, false), None);
    assert_eq!(bench.clear(), 2);
    assert_eq!(bench.store.row_count(), 0);
}

#[test]
fn removals_that_wait_at_n_and_one_more() {
    let mut bench = Bench::new(u64::MAX);
    let file = |number: usize| {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&number.to_be_bytes());
        let base = card(1, 1);
        Card { label: Label { file: FileId::from_octets(&octets), ..base.label }, ..base }
    };
    for number in 0..=limits::REMOVALS_MAX {
        bench.depot.remove(&file(number));
    }
    assert_eq!(bench.depot.removal_count(), limits::REMOVALS_MAX);
    bench.clear();
    bench.depot.remove(&file(limits::REMOVALS_MAX));
    assert_eq!(bench.depot.removal_count(), 1, "the sweep brings it again");
}

#[test]
fn files_in_memory_at_n_and_one_more() {
    let mut bench = Bench::new(u64::MAX);
    let file = |number: usize| {
        let account = AddressBuf::parse(&format!("p{number}@a.example")).unwrap();
        let base = card(1, 10);
        Card { label: Label { account, ..base.label }, ..base }
    };
    for number in 0..=limits::FILES_OPEN_MAX + 1 {
        bench.keep(&file(number)).unwrap();
    }
    let stored = bench.plan(&file(0), 0).unwrap();
    for number in 1..limits::FILES_OPEN_MAX {
        bench.plan(&file(number), 0).unwrap();
    }
    assert_eq!(bench.plan(&file(limits::FILES_OPEN_MAX), 0), Err(DepotError::Crowded));
    bench.depot.settle_chunk(&stored, Outcome::Durable);
    bench.plan(&file(limits::FILES_OPEN_MAX), 0).unwrap();
    assert_eq!(bench.depot.open.len(), limits::FILES_OPEN_MAX);
}

#[test]
fn the_sweep_walks_over_all_cards() {
    let mut bench = Bench::new(u64::MAX);
    for number in 0..=limits::CARDS_SWEPT {
        let account = AddressBuf::parse(&format!("p{number}@a.example")).unwrap();
        let base = card(1, 1);
        bench.keep(&Card { label: Label { account, ..base.label }, ..base }).unwrap();
    }
    let (first, next) = bench.depot.sweep(&bench.store, None).unwrap();
    let (second, end) = bench.depot.sweep(&bench.store, next).unwrap();
    assert_eq!((first.len(), second.len(), end), (limits::CARDS_SWEPT, 1, None));
}
