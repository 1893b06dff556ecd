//! One battery of tests for every store: a function per property, instantiated for each.

use super::limits;
use super::{
    CommitToken, Direction, Operation, Outcome, Row, Scanned, Sorted, Statistics, Store,
    StoreError, Table,
};

/// A store under test and how to wait until it has news.
pub(super) struct Subject {
    pub(super) store: Box<dyn Store>,
    wait: Box<dyn Fn()>,
    next: u64,
}

impl Subject {
    pub(super) fn new(store: Box<dyn Store>, wait: Box<dyn Fn()>) -> Self {
        Self { store, wait, next: 0 }
    }

    pub(super) fn submit(&mut self, operations: Vec<Operation>) -> CommitToken {
        self.next += 1;
        let token = CommitToken(self.next);
        self.store.submit(token, operations).unwrap();
        token
    }

    /// Waits for as many outcomes as were asked for; they must come in order.
    pub(super) fn settle(&mut self, tokens: &[CommitToken]) -> Vec<Outcome> {
        let mut done = Vec::new();
        while done.len() < tokens.len() {
            let before = done.len();
            self.store.completions(&mut done);
            if done.len() == before {
                (self.wait)();
            }
        }
        let (order, outcomes): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        assert_eq!(order, tokens);
        outcomes
    }

    pub(super) fn commit(&mut self, operations: Vec<Operation>) -> Outcome {
        let token = self.submit(operations);
        self.settle(&[token]).remove(0)
    }

    pub(super) fn put(&mut self, row: &Row, value: &[u8]) {
        assert_eq!(self.commit(vec![put(row, value)]), Outcome::Durable);
    }

    fn get(&self, row: &Row) -> Option<Vec<u8>> {
        self.store.get(row).unwrap()
    }

    fn all(&self, table: Table, owner: &[u8]) -> Vec<Sorted> {
        let last = [0xff; limits::SORT_LENGTH_MAX];
        self.store.range(table, owner, b"", &last, usize::MAX, Direction::Forward).unwrap()
    }

    fn statistics(&self) -> Statistics {
        self.store.statistics()
    }
}

pub(super) fn put(row: &Row, value: &[u8]) -> Operation {
    Operation::Put { row: row.clone(), value: value.to_vec() }
}

fn delete(row: &Row) -> Operation {
    Operation::Delete { row: row.clone() }
}

fn absent(row: &Row) -> Operation {
    Operation::RequireAbsent { row: row.clone() }
}

fn equal(row: &Row, value: &[u8]) -> Operation {
    Operation::RequireEqual { row: row.clone(), value: value.to_vec() }
}

fn queue(number: u64) -> Row {
    Row::numbered(Table::Queue, b"bob@b.example/d1", number)
}

fn free(owner: &[u8], from: u64, to: u64, keep: &[u64]) -> Operation {
    Operation::DeleteRange {
        table: Table::Queue,
        owner: owner.into(),
        from_sort: from.to_be_bytes().into(),
        to_sort: to.to_be_bytes().into(),
        keep: keep.iter().map(|number| number.to_be_bytes().into()).collect(),
    }
}

fn numbers(rows: &[Sorted]) -> Vec<u64> {
    rows.iter().map(|(sort, _)| u64::from_be_bytes(sort.as_ref().try_into().unwrap())).collect()
}

pub(super) fn a_durable_row_is_read_back_and_deleted(subject: &mut Subject) {
    for table in Table::ALL {
        let row = Row::new(table, b"alice@a.example", b"sort");
        assert_eq!(subject.get(&row), None);
        subject.put(&row, b"first");
        subject.put(&row, b"second");
        assert_eq!(subject.get(&row), Some(b"second".to_vec()));
        subject.put(&row, b"");
        assert_eq!(subject.get(&row), Some(Vec::new()));
        assert_eq!(subject.commit(vec![delete(&row)]), Outcome::Durable);
        assert_eq!(subject.get(&row), None);
        assert_eq!(subject.commit(vec![delete(&row)]), Outcome::Durable);
    }
}

pub(super) fn rows_of_tables_owners_and_sorts_are_distinct(subject: &mut Subject) {
    let mut rows = Vec::new();
    for table in [Table::Account, Table::Roster, Table::Queue, Table::Meta] {
        for owner in [&b""[..], b"a", b"ab", b"abc", b"\0", b"a\0"] {
            for sort in [&b""[..], b"a", b"b", b"bc", b"c", b"\0", b"\xff"] {
                rows.push(Row::new(table, owner, sort));
            }
        }
    }
    let operations =
        rows.iter().enumerate().map(|(index, row)| put(row, &index.to_be_bytes())).collect();
    assert_eq!(subject.commit(operations), Outcome::Durable);
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(subject.get(row), Some(index.to_be_bytes().to_vec()), "{row:?}");
    }
}

pub(super) fn a_conflict_leaves_no_trace(subject: &mut Subject) {
    let (there, other) = (queue(1), queue(2));
    subject.put(&there, b"here");
    let cases = [
        (vec![put(&other, b"x"), absent(&there)], 1, Some(b"here".to_vec())),
        (vec![equal(&there, b"her"), put(&other, b"x")], 0, Some(b"here".to_vec())),
        (vec![put(&other, b"x"), delete(&there), equal(&other, b"x")], 2, None),
        (vec![free(b"bob@b.example/d1", 0, 9, &[]), equal(&there, b"")], 1, Some(b"here".to_vec())),
    ];
    for (operations, index, found) in cases {
        let outcome = subject.commit(operations);
        assert_eq!(outcome, Outcome::Conflict { index, found });
        assert_eq!(subject.get(&there), Some(b"here".to_vec()));
        assert_eq!(subject.get(&other), None);
    }
    assert_eq!(subject.statistics().conflicts, 4);
}

pub(super) fn requirements_see_every_earlier_commit(subject: &mut Subject) {
    let row = queue(7);
    let tokens = [
        subject.submit(vec![absent(&row), put(&row, b"1")]),
        subject.submit(vec![absent(&row), put(&row, b"no")]),
        subject.submit(vec![equal(&row, b"1"), put(&row, b"2")]),
        subject.submit(vec![equal(&row, b"1"), put(&row, b"no")]),
        subject.submit(vec![equal(&row, b"2"), delete(&row)]),
        subject.submit(vec![equal(&row, b"2"), put(&row, b"no")]),
        subject.submit(vec![absent(&row), put(&row, b"3")]),
        subject.submit(vec![free(b"bob@b.example/d1", 7, 7, &[])]),
        subject.submit(vec![absent(&row), put(&row, b"4")]),
    ];
    let conflict =
        |index, found: Option<&[u8]>| Outcome::Conflict { index, found: found.map(<[u8]>::to_vec) };
    assert_eq!(
        subject.settle(&tokens),
        [
            Outcome::Durable,
            conflict(0, Some(b"1")),
            Outcome::Durable,
            conflict(0, Some(b"2")),
            Outcome::Durable,
            conflict(0, None),
            Outcome::Durable,
            Outcome::Durable,
            Outcome::Durable,
        ]
    );
    assert_eq!(subject.get(&row), Some(b"4".to_vec()));
}

pub(super) fn steps_of_one_commit_apply_in_order(subject: &mut Subject) {
    let (row, next) = (queue(1), queue(2));
    let owner = b"bob@b.example/d1";
    let cases = [
        (vec![put(&row, b"a"), put(&row, b"b")], Some(b"b".to_vec())),
        (vec![put(&row, b"c"), delete(&row)], None),
        (vec![delete(&row), put(&row, b"d")], Some(b"d".to_vec())),
        (vec![put(&row, b"e"), free(owner, 0, 9, &[])], None),
        (vec![put(&next, b"n"), free(owner, 0, 9, &[]), put(&row, b"f")], Some(b"f".to_vec())),
        (vec![free(owner, 0, 9, &[1]), put(&next, b"n")], Some(b"f".to_vec())),
    ];
    for (operations, expected) in cases {
        assert_eq!(subject.commit(operations), Outcome::Durable);
        assert_eq!(subject.get(&row), expected);
    }
    assert_eq!(subject.get(&next), Some(b"n".to_vec()));
}

pub(super) fn ranges_have_order_bounds_limit_and_direction(subject: &mut Subject) {
    let owner = b"bob@b.example/d1";
    let many: Vec<_> =
        (1..=300_u64).map(|number| put(&queue(number), &number.to_be_bytes())).collect();
    subject.put(&Row::numbered(Table::Queue, b"bob@b.example/d", 5), b"other");
    subject.put(&Row::numbered(Table::Queue, b"bob@b.example/d11", 5), b"other");
    subject.put(&Row::numbered(Table::Dedupe, owner, 5), b"other");
    assert_eq!(subject.commit(many), Outcome::Durable);
    let range = |from: u64, to: u64, limit, direction| {
        let (from, to) = (from.to_be_bytes(), to.to_be_bytes());
        let rows = subject.store.range(Table::Queue, owner, &from, &to, limit, direction).unwrap();
        for (sort, value) in &rows {
            assert_eq!(**sort, **value);
        }
        numbers(&rows)
    };
    let (up, down) = (Direction::Forward, Direction::Backward);
    assert_eq!(range(0, u64::MAX, usize::MAX, up), (1..=300).collect::<Vec<_>>());
    assert_eq!(range(0, u64::MAX, 3, down), [300, 299, 298]);
    assert_eq!(range(255, 257, 9, up), [255, 256, 257]);
    assert_eq!(range(255, 257, 2, up), [255, 256]);
    assert_eq!(range(255, 257, 2, down), [257, 256]);
    assert_eq!(range(7, 7, 2, up), [7]);
    assert_eq!(range(301, 900, 2, up), [0; 0]);
    assert_eq!(range(9, 8, 2, up), [0; 0]);
    assert_eq!(range(1, 8, 0, up), [0; 0]);
}

pub(super) fn ranges_work_where_the_sort_is_hidden(subject: &mut Subject) {
    let names = ["zoe@z", "amy@a", "bob@b", "bob@bb", "carl@c"];
    for name in names {
        let row = Row::new(Table::Roster, b"alice@a.example", name.as_bytes());
        subject.put(&row, name.as_bytes());
        subject.put(&Row::new(Table::Roster, b"other@a.example", name.as_bytes()), b"other");
    }
    let range = |from: &str, to: &str, limit, direction| {
        let (from, to) = (from.as_bytes(), to.as_bytes());
        let rows =
            subject.store.range(Table::Roster, b"alice@a.example", from, to, limit, direction);
        rows.unwrap()
            .into_iter()
            .map(|(sort, value)| {
                assert_eq!(*sort, *value);
                String::from_utf8(value).unwrap()
            })
            .collect::<Vec<_>>()
    };
    let (up, down) = (Direction::Forward, Direction::Backward);
    assert_eq!(range("", "~", 9, up), ["amy@a", "bob@b", "bob@bb", "carl@c", "zoe@z"]);
    assert_eq!(range("bob@b", "carl@c", 2, up), ["bob@b", "bob@bb"]);
    assert_eq!(range("", "~", 2, down), ["zoe@z", "carl@c"]);
    let deletion = Operation::DeleteRange {
        table: Table::Roster,
        owner: b"alice@a.example"[..].into(),
        from_sort: b"b"[..].into(),
        to_sort: b"~"[..].into(),
        keep: vec![b"carl@c"[..].into()],
    };
    assert_eq!(subject.commit(vec![deletion]), Outcome::Durable);
    let left: Vec<_> = subject.all(Table::Roster, b"alice@a.example");
    assert_eq!(
        left.iter().map(|(sort, _)| &**sort).collect::<Vec<_>>(),
        [b"amy@a", &b"carl@c"[..]]
    );
    assert_eq!(subject.all(Table::Roster, b"other@a.example").len(), names.len());
}

pub(super) fn a_range_deletion_spares_the_kept_and_the_others(subject: &mut Subject) {
    let (owner, other) = (b"bob@b.example/d1", b"bob@b.example/d2");
    let mut operations: Vec<_> = (1..=100).map(|number| put(&queue(number), b"x")).collect();
    operations.push(put(&Row::numbered(Table::Queue, other, 50), b"x"));
    let tokens = [
        subject.submit(operations),
        subject.submit(vec![put(&queue(101), b"x")]),
        subject.submit(vec![free(owner, 1, 101, &[3, 64, 99, 500])]),
        subject.submit(vec![put(&queue(102), b"x"), put(&queue(64), b"y")]),
    ];
    assert!(subject.settle(&tokens).iter().all(|outcome| *outcome == Outcome::Durable));
    assert_eq!(numbers(&subject.all(Table::Queue, owner)), [3, 64, 99, 102]);
    assert_eq!(numbers(&subject.all(Table::Queue, other)), [50]);
    assert_eq!(subject.commit(vec![free(owner, 200, 100, &[])]), Outcome::Durable);
    assert_eq!(subject.all(Table::Queue, owner).len(), 4);
}

pub(super) fn a_scan_meets_every_row_once(subject: &mut Subject) {
    let mut expected = Vec::new();
    for owner in 0..40_u8 {
        let mut operations = Vec::new();
        for number in 0..7_u64 {
            let row = Row::numbered(Table::Session, &vec![b'o'; usize::from(owner)], number);
            operations.push(put(&row, &[owner]));
            let Row { owner: of, sort, .. } = row;
            expected.push((of, sort, vec![owner]));
        }
        assert_eq!(subject.commit(operations), Outcome::Durable);
    }
    subject.put(&Row::new(Table::File, b"o", b"x"), b"other table");
    subject.put(&Row::new(Table::Presence, b"o", b"x"), b"other table");
    expected.sort();
    for limit in [1, 2, 7, 100, 279, 280, 281, usize::MAX] {
        let mut met = Vec::new();
        let mut cursor = None;
        loop {
            let (rows, next) = subject.store.scan(Table::Session, cursor, limit).unwrap();
            assert!(rows.len() <= limit);
            met.extend(rows.into_iter().map(|Scanned { owner, sort, value }| (owner, sort, value)));
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        met.sort();
        assert_eq!(met, expected, "{limit}");
    }
    assert_eq!(subject.store.scan(Table::Invite, None, 9).unwrap(), (vec![], None));
}

pub(super) fn limits_hold_at_the_limit_and_one_beyond(subject: &mut Subject) {
    let refused = |subject: &mut Subject, operations| {
        let error = subject.store.submit(CommitToken(0), operations).unwrap_err();
        assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    };
    let owner = vec![b'o'; limits::OWNER_LENGTH_MAX];
    let sort = vec![b's'; limits::SORT_LENGTH_MAX];
    for table in [Table::Roster, Table::Queue] {
        let row = Row::new(table, &owner, &sort);
        subject.put(&row, &vec![b'v'; limits::VALUE_LENGTH_MAX]);
        assert_eq!(subject.get(&row).unwrap().len(), limits::VALUE_LENGTH_MAX);
        refused(subject, vec![put(&row, &vec![b'v'; limits::VALUE_LENGTH_MAX + 1])]);
        refused(subject, vec![equal(&row, &vec![b'v'; limits::VALUE_LENGTH_MAX + 1])]);
        let long_owner = Row::new(table, &[&owner[..], b"o"].concat(), b"");
        let long_sort = Row::new(table, b"", &[&sort[..], b"s"].concat());
        for row in [long_owner, long_sort] {
            refused(subject, vec![delete(&row)]);
            refused(subject, vec![absent(&row)]);
            assert!(matches!(subject.store.get(&row), Err(StoreError::TooLarge { .. })));
        }
    }
    let row = queue(1);
    let most = vec![delete(&row); limits::COMMIT_OPERATIONS_MAX];
    assert_eq!(subject.commit(most), Outcome::Durable);
    refused(subject, vec![delete(&row); limits::COMMIT_OPERATIONS_MAX + 1]);
    let keep: Vec<_> = (0..limits::DELETE_RANGE_KEEP_MAX as u64).collect();
    assert_eq!(subject.commit(vec![free(b"x", 0, 1, &keep)]), Outcome::Durable);
    let keep: Vec<_> = (0..=limits::DELETE_RANGE_KEEP_MAX as u64).collect();
    refused(subject, vec![free(b"x", 0, 1, &keep)]);
    let large = vec![b'v'; limits::VALUE_LENGTH_MAX];
    refused(subject, vec![put(&row, &large); limits::COMMIT_OCTETS_MAX / large.len()]);
    let large = put(&row, &large);
    let fits = vec![large; limits::COMMIT_OCTETS_MAX / limits::VALUE_LENGTH_MAX - 1];
    assert_eq!(subject.commit(fits), Outcome::Durable);
}

pub(super) fn many_commits_complete_in_order_and_are_counted(subject: &mut Subject) {
    let before = subject.statistics();
    let mut tokens = Vec::new();
    for number in 0..3_000 {
        tokens.push(subject.submit(vec![absent(&queue(number)), put(&queue(number), b"value")]));
    }
    let outcomes = subject.settle(&tokens);
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Durable));
    let after = subject.statistics();
    assert_eq!(after.commits - before.commits, 3_000);
    assert_eq!((after.queued_commits, after.queued_octets), (0, 0));
    assert_eq!(subject.all(Table::Queue, b"bob@b.example/d1").len(), 3_000);
    assert_eq!(subject.commit(vec![]), Outcome::Durable);
}

/// Instantiates the battery for a store that `$make` creates.
macro_rules! battery {
    ($make:path) => {
        $crate::store::battery::battery!($make;
            a_durable_row_is_read_back_and_deleted,
            rows_of_tables_owners_and_sorts_are_distinct,
            a_conflict_leaves_no_trace,
            requirements_see_every_earlier_commit,
            steps_of_one_commit_apply_in_order,
            ranges_have_order_bounds_limit_and_direction,
            ranges_work_where_the_sort_is_hidden,
            a_range_deletion_spares_the_kept_and_the_others,
            a_scan_meets_every_row_once,
            limits_hold_at_the_limit_and_one_beyond,
            many_commits_complete_in_order_and_are_counted,
        );
    };
    ($make:path; $($property:ident,)*) => {
        $(#[test]
        fn $property() {
            $crate::store::battery::$property(&mut $make());
        })*
    };
}
pub(super) use battery;
