//! Prekeys: the newest signed one of each device, and a stock of one-time ones.
//!
//! Owns the table `Prekey`. A one-time prekey is handed out once: its row turns into a note that
//! remembers the hash of its line until the key would have expired, so that the same line sent
//! again is neither refused nor stocked again. A bounded memory keeps what each stock has; it is
//! forgotten whenever an outcome is not what was hoped. SPEC.md §6.

use std::collections::{BTreeMap, HashMap};

use protocol::canonical::sha256;
use protocol::timestamp::Timestamp;
use protocol::{Address, AddressBuf};

use super::limits;
use crate::store::{Direction, Operation, Row, Store, StoreError, Table};

const SIGNED: &[u8] = b"s";
const ONE_TIME: u8 = b'o';
const FREE: u8 = 1;
const SPENT: u8 = 2;

/// What a device has published and nobody has taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stock {
    signed: Option<SignedPrekey>,
    /// Numbers that may be handed out, with their NA.
    free: BTreeMap<u64, Timestamp>,
    /// Numbers whose commit is under way.
    promised: usize,
    /// Numbers that were handed out, with their NA.
    spent: BTreeMap<u64, Timestamp>,
    /// The most that was free since the stock was read.
    full: usize,
}

/// A signed prekey as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedPrekey {
    /// SPK.
    pub number: u64,
    /// NA.
    pub not_after: Timestamp,
    /// The 611 line without CRLF.
    pub line: Box<str>,
}

/// What is to be published.
#[derive(Clone, Copy, Debug)]
pub struct Offered<'a> {
    /// SPK or OPK.
    pub number: u64,
    /// NA.
    pub not_after: Timestamp,
    /// The 611 line without CRLF and hop parameters.
    pub line: &'a str,
}

/// What becomes of a prekey that is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// This very line is durable already.
    Held,
    /// The number is not above the newest signed one, or stood for another line.
    Stale,
    /// The stock is full.
    Full,
    /// These operations publish it.
    Commit(Vec<Operation>),
}

/// A one-time prekey that was taken from the stock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The device.
    pub device: AddressBuf,
    /// OPK.
    pub number: u64,
    /// NA.
    pub not_after: Timestamp,
    /// The 611 line without CRLF.
    pub line: String,
    /// How many are left.
    pub left: usize,
}

/// The prekeys of the domain's devices.
#[derive(Debug, Default)]
pub struct Prekeys {
    stocks: HashMap<AddressBuf, Stock>,
}

impl Prekeys {
    /// Stocks of which none is remembered yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The newest signed prekey of `device`.
    ///
    /// # Errors
    /// Those of the store.
    pub fn signed(
        &mut self,
        store: &dyn Store,
        device: &AddressBuf,
    ) -> Result<Option<SignedPrekey>, StoreError> {
        Ok(self.stock(store, device)?.signed.clone())
    }

    /// How many one-time prekeys of `device` are free.
    ///
    /// # Errors
    /// Those of the store.
    pub fn free_count(
        &mut self,
        store: &dyn Store,
        device: &AddressBuf,
    ) -> Result<usize, StoreError> {
        Ok(self.stock(store, device)?.free.len())
    }

    /// Plans the publication of a signed prekey. After the outcome comes [`Prekeys::forget`].
    ///
    /// # Errors
    /// Those of the store.
    pub fn publish_signed(
        &mut self,
        store: &dyn Store,
        device: &AddressBuf,
        offered: Offered<'_>,
    ) -> Result<Plan, StoreError> {
        let row = signed_row(device);
        let mut operations = Vec::with_capacity(2);
        match &self.stock(store, device)?.signed {
            Some(held) if *held.line == *offered.line => return Ok(Plan::Held),
            Some(held) if held.number >= offered.number => return Ok(Plan::Stale),
            Some(held) => {
                let line = held.line.as_bytes();
                let value = encode_signed(held.number, held.not_after, line);
                operations.push(Operation::RequireEqual { row: row.clone(), value });
            }
            None => operations.push(Operation::RequireAbsent { row: row.clone() }),
        }
        let value = encode_signed(offered.number, offered.not_after, offered.line.as_bytes());
        operations.push(Operation::Put { row, value });
        Ok(Plan::Commit(operations))
    }

    /// Plans the publication of a one-time prekey. After success comes [`Prekeys::stocked`], after
    /// anything else [`Prekeys::forget`].
    ///
    /// # Errors
    /// Those of the store.
    pub fn publish_one_time(
        &mut self,
        store: &dyn Store,
        device: &AddressBuf,
        offered: Offered<'_>,
        now: Timestamp,
    ) -> Result<Plan, StoreError> {
        let row = one_time_row(device, offered.number);
        if let Some(value) = store.get(&row)? {
            let is_same = match value.split_first_chunk::<9>() {
                Some((&[FREE, ..], line)) => line == offered.line.as_bytes(),
                Some((&[SPENT, ..], hash)) => hash == sha256(&[offered.line.as_bytes()]),
                _ => return Err(damaged()),
            };
            return Ok(if is_same { Plan::Held } else { Plan::Stale });
        }
        let stock = self.stock(store, device)?;
        let mut operations = vec![Operation::RequireAbsent { row: row.clone() }];
        let expired: Vec<u64> = stock
            .spent
            .iter()
            .chain(&stock.free)
            .filter(|(_, not_after)| **not_after <= now)
            .map(|(number, _)| *number)
            .take(limits::EXPIRED_PREKEYS_CLEARED)
            .collect();
        for number in expired {
            stock.spent.remove(&number);
            stock.free.remove(&number);
            operations.push(Operation::Delete { row: one_time_row(device, number) });
        }
        if stock.free.len() + stock.promised >= limits::ONE_TIME_PREKEYS_MAX {
            self.forget(device);
            return Ok(Plan::Full);
        }
        stock.promised += 1;
        let value = encode_one_time(FREE, offered.not_after, offered.line.as_bytes());
        operations.push(Operation::Put { row, value });
        Ok(Plan::Commit(operations))
    }

    /// A one-time prekey has become durable; how many are free now.
    pub fn stocked(&mut self, device: &AddressBuf, number: u64, not_after: Timestamp) -> usize {
        let Some(stock) = self.stocks.get_mut(device) else { return 0 };
        stock.promised = stock.promised.saturating_sub(1);
        stock.free.insert(number, not_after);
        stock.full = stock.full.max(stock.free.len());
        stock.free.len()
    }

    /// Takes the one-time prekey with the lowest number that is valid at `now`, and appends what
    /// makes that durable; nothing if there is none, or, with `spares_half`, once half of the
    /// stock is gone. After anything but success comes [`Prekeys::forget`].
    ///
    /// # Errors
    /// Those of the store.
    pub fn take(
        &mut self,
        store: &dyn Store,
        device: &AddressBuf,
        spares_half: bool,
        now: Timestamp,
        operations: &mut Vec<Operation>,
    ) -> Result<Option<Taken>, StoreError> {
        let stock = self.stock(store, device)?;
        if spares_half && stock.free.len() <= stock.full / 2 {
            return Ok(None);
        }
        let valid = stock.free.iter().find(|(_, not_after)| now < **not_after);
        let Some((&number, &not_after)) = valid else { return Ok(None) };
        let row = one_time_row(device, number);
        let value = store.get(&row)?.ok_or_else(damaged)?;
        let Some((&[FREE, ..], line)) = value.split_first_chunk::<9>() else {
            return Err(damaged());
        };
        let line = String::from_utf8(line.to_vec()).map_err(|_| damaged())?;
        stock.free.remove(&number);
        stock.spent.insert(number, not_after);
        let note = encode_one_time(SPENT, not_after, &sha256(&[line.as_bytes()]));
        operations.push(Operation::RequireEqual { row: row.clone(), value });
        operations.push(Operation::Put { row, value: note });
        let left = stock.free.len();
        Ok(Some(Taken { device: device.clone(), number, not_after, line, left }))
    }

    /// Makes the next look at this device's stock read the store.
    pub fn forget(&mut self, device: &AddressBuf) {
        self.stocks.remove(device);
    }

    fn stock(&mut self, store: &dyn Store, device: &AddressBuf) -> Result<&mut Stock, StoreError> {
        if !self.stocks.contains_key(device) && self.stocks.len() >= limits::STOCKS_REMEMBERED_MAX {
            self.stocks.clear();
        }
        match self.stocks.entry(device.clone()) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                Ok(entry.insert(load(store, device)?))
            }
        }
    }
}

/// What removes all prekeys of `device`: its key has changed, or it is listed no longer.
#[must_use]
pub fn drop_operation(device: Address<'_>) -> Operation {
    Operation::DeleteRange {
        table: Table::Prekey,
        owner: device.as_str().as_bytes().into(),
        from_sort: Box::default(),
        to_sort: [0xFF].into(),
        keep: Vec::new(),
    }
}

fn load(store: &dyn Store, device: &AddressBuf) -> Result<Stock, StoreError> {
    let owner = device.as_str().as_bytes();
    let mut stock = Stock::default();
    if let Some(value) = store.get(&signed_row(device))? {
        stock.signed = Some(decode_signed(&value).ok_or_else(damaged)?);
    }
    let last = one_time_sort(u64::MAX);
    let mut from = one_time_sort(0).to_vec();
    loop {
        let limit = limits::PREKEYS_READ_AT_ONCE;
        let forward = Direction::Forward;
        let rows = store.range(Table::Prekey, owner, &from, &last, limit, forward)?;
        let count = rows.len();
        for (sort, value) in rows {
            let number = sort.last_chunk::<8>().map(|number| u64::from_be_bytes(*number));
            let number = number.ok_or_else(damaged)?;
            let (&[state, ref not_after @ ..], _) =
                value.split_first_chunk::<9>().ok_or_else(damaged)?;
            let not_after = Timestamp(u64::from_be_bytes(*not_after));
            match state {
                FREE => stock.free.insert(number, not_after),
                SPENT => stock.spent.insert(number, not_after),
                _ => return Err(damaged()),
            };
            from = [&sort[..], &[0]].concat();
        }
        if count < limit {
            stock.full = stock.free.len();
            return Ok(stock);
        }
    }
}

fn encode_signed(number: u64, not_after: Timestamp, line: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &not_after.0.to_be_bytes(), line].concat()
}

fn decode_signed(row: &[u8]) -> Option<SignedPrekey> {
    let (number, rest) = row.split_first_chunk::<8>()?;
    let (not_after, line) = rest.split_first_chunk::<8>()?;
    Some(SignedPrekey {
        number: u64::from_be_bytes(*number),
        not_after: Timestamp(u64::from_be_bytes(*not_after)),
        line: core::str::from_utf8(line).ok()?.into(),
    })
}

fn encode_one_time(state: u8, not_after: Timestamp, content: &[u8]) -> Vec<u8> {
    [&[state][..], &not_after.0.to_be_bytes(), content].concat()
}

fn signed_row(device: &AddressBuf) -> Row {
    Row::new(Table::Prekey, device.as_str().as_bytes(), SIGNED)
}

fn one_time_row(device: &AddressBuf, number: u64) -> Row {
    Row::new(Table::Prekey, device.as_str().as_bytes(), &one_time_sort(number))
}

fn one_time_sort(number: u64) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [ONE_TIME, a, b, c, d, e, f, g, h]
}

fn damaged() -> StoreError {
    StoreError::Damaged { text: "a prekey's row".to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::{CommitToken, MemoryStore, Outcome};

    fn device() -> AddressBuf {
        AddressBuf::parse("bob@a.example/d1").unwrap()
    }

    fn offered(number: u64, line: &str) -> Offered<'_> {
        Offered { number, not_after: Timestamp(100), line }
    }

    fn commit(store: &mut MemoryStore, operations: Vec<Operation>) {
        store.submit(CommitToken(1), operations).unwrap();
        let mut outcomes = Vec::new();
        store.completions(&mut outcomes);
        assert_eq!(outcomes, [(CommitToken(1), Outcome::Durable)]);
    }

    fn publish(prekeys: &mut Prekeys, store: &mut MemoryStore, number: u64, line: &str) -> Plan {
        let offered = offered(number, line);
        let plan = prekeys.publish_one_time(store, &device(), offered, Timestamp(1)).unwrap();
        if let Plan::Commit(operations) = &plan {
            commit(store, operations.clone());
            prekeys.stocked(&device(), number, Timestamp(100));
        }
        plan
    }

    #[test]
    fn a_one_time_prekey_is_handed_out_once_and_never_stocked_again() {
        let (mut prekeys, mut store) = (Prekeys::new(), MemoryStore::new());
        publish(&mut prekeys, &mut store, 7, "seven");
        publish(&mut prekeys, &mut store, 8, "eight");
        assert_eq!(publish(&mut prekeys, &mut store, 7, "seven"), Plan::Held);
        assert_eq!(publish(&mut prekeys, &mut store, 7, "other"), Plan::Stale);
        let take = |prekeys: &mut Prekeys, store: &mut MemoryStore| {
            let mut operations = Vec::new();
            let taken =
                prekeys.take(store, &device(), false, Timestamp(1), &mut operations).unwrap();
            commit(store, operations);
            taken.map(|taken| (taken.number, taken.line, taken.left))
        };
        assert_eq!(take(&mut prekeys, &mut store), Some((7, "seven".to_owned(), 1)));
        assert_eq!(publish(&mut prekeys, &mut store, 7, "seven"), Plan::Held);
        prekeys.forget(&device());
        assert_eq!(publish(&mut prekeys, &mut store, 7, "other"), Plan::Stale);
        assert_eq!(take(&mut prekeys, &mut store), Some((8, "eight".to_owned(), 0)));
        assert_eq!(take(&mut prekeys, &mut store), None);
    }

    #[test]
    fn the_stock_is_full_at_its_limit() {
        let (mut prekeys, mut store) = (Prekeys::new(), MemoryStore::new());
        let max = limits::ONE_TIME_PREKEYS_MAX as u64;
        for number in 0..max {
            let plan = publish(&mut prekeys, &mut store, number, "line");
            assert!(matches!(plan, Plan::Commit(_)), "{number}");
        }
        assert_eq!(publish(&mut prekeys, &mut store, max, "line"), Plan::Full);
        prekeys.forget(&device());
        assert_eq!(publish(&mut prekeys, &mut store, max, "line"), Plan::Full);
    }

    #[test]
    fn strangers_leave_half_of_the_stock() {
        let (mut prekeys, mut store) = (Prekeys::new(), MemoryStore::new());
        for number in 0..5 {
            publish(&mut prekeys, &mut store, number, "line");
        }
        let mut operations = Vec::new();
        for expected in [true, true, true, false] {
            let taken =
                prekeys.take(&store, &device(), true, Timestamp(1), &mut operations).unwrap();
            assert_eq!(taken.is_some(), expected);
        }
        let taken = prekeys.take(&store, &device(), false, Timestamp(1), &mut operations).unwrap();
        assert!(taken.is_some());
    }

    #[test]
    fn expired_ones_are_not_handed_out_and_make_room() {
        let (mut prekeys, mut store) = (Prekeys::new(), MemoryStore::new());
        publish(&mut prekeys, &mut store, 1, "one");
        publish(&mut prekeys, &mut store, 3, "three");
        let mut operations = Vec::new();
        let late = prekeys.take(&store, &device(), false, Timestamp(100), &mut operations);
        assert_eq!(late, Ok(None), "expired");
        prekeys.take(&store, &device(), false, Timestamp(99), &mut operations).unwrap().unwrap();
        commit(&mut store, operations);
        let offered = Offered { number: 2, not_after: Timestamp(300), line: "two" };
        let plan = prekeys.publish_one_time(&store, &device(), offered, Timestamp(100)).unwrap();
        let Plan::Commit(operations) = plan else { unreachable!("{plan:?}") };
        commit(&mut store, operations);
        assert_eq!(store.row_count(), 1, "the others are gone");
    }

    #[test]
    fn signed_prekeys_rise() {
        let (mut prekeys, mut store) = (Prekeys::new(), MemoryStore::new());
        for (number, line, is_taken) in
            [(3, "a", true), (3, "a", false), (3, "b", false), (2, "c", false), (4, "d", true)]
        {
            let plan = prekeys.publish_signed(&store, &device(), offered(number, line)).unwrap();
            assert_eq!(matches!(plan, Plan::Commit(_)), is_taken, "{number} {line}");
            if let Plan::Commit(operations) = plan {
                commit(&mut store, operations);
                prekeys.forget(&device());
            }
        }
        assert_eq!(prekeys.signed(&store, &device()).unwrap().unwrap().number, 4);
    }
}
