//! Which sessions promised signatures: learnt from the offers that pass (SPEC.md §7, §8).
//!
//! A session is named by the two accounts and SID, so that nobody else's offer can change it; once
//! signed it stays so. Rows stand under the number of a month, the epoch of their last offer, and
//! are looked up in the present and the last one: a session without an offer for that long is
//! over, since a key in use is refreshed. Owns a bounded memory of sessions asked for lately.

use std::collections::HashMap;

use protocol::Address;
use protocol::canonical::{push_lp, sha256};
use protocol::timestamp::Timestamp;

use crate::store::{Operation, Row, Store, StoreError, Table};

/// Milliseconds of an epoch: the life of the spool, so that no offer is forgotten in it.
pub const EPOCH_MS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// Sessions remembered; at more all are forgotten and read again.
const REMEMBERED_MAX: usize = 65_536;

/// Sessions by whether they are signed.
#[derive(Debug, Default)]
pub struct SignedSessions {
    remembered: HashMap<[u8; 32], bool>,
}

impl SignedSessions {
    /// Notes that an offer promised signatures, for the commit of that offer.
    pub fn promise(
        &mut self,
        (from, to): (Address<'_>, Address<'_>),
        session: &str,
        at: Timestamp,
    ) -> Operation {
        let name = name(from, to, session);
        self.remember(name, true);
        Operation::Put { row: row(at.0 / EPOCH_MS, &name), value: vec![1] }
    }

    /// Whether lines of this session must be signed.
    ///
    /// # Errors
    /// Those of [`Store::get`].
    pub fn is_signed(
        &mut self,
        store: &dyn Store,
        (from, to): (Address<'_>, Address<'_>),
        session: &str,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let name = name(from, to, session);
        if let Some(&is_signed) = self.remembered.get(&name) {
            return Ok(is_signed);
        }
        let epoch = at.0 / EPOCH_MS;
        let is_signed = store.get(&row(epoch, &name))?.is_some()
            || store.get(&row(epoch.saturating_sub(1), &name))?.is_some();
        self.remember(name, is_signed);
        Ok(is_signed)
    }

    fn remember(&mut self, name: [u8; 32], is_signed: bool) {
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.clear();
        }
        self.remembered.insert(name, is_signed);
    }
}

fn name(from: Address<'_>, to: Address<'_>, session: &str) -> [u8; 32] {
    let (one, other) = (from.account(), to.account());
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    let mut octets = Vec::with_capacity(128);
    for part in [first.as_str(), second.as_str(), session] {
        push_lp(&mut octets, part.as_bytes());
    }
    sha256(&[&octets])
}

fn row(epoch: u64, name: &[u8; 32]) -> Row {
    Row::new(Table::Session, &epoch.to_be_bytes(), name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::{CommitToken, MemoryStore};

    #[test]
    fn a_promise_holds_for_both_sides_and_nobody_else() {
        let mut store = MemoryStore::new();
        let address = |text| Address::parse(text).unwrap();
        let (alice, bob, eve) = (address("a@x/d1"), address("b@x"), address("e@x/d1"));
        let at = Timestamp(5 * EPOCH_MS - 1);
        let put = SignedSessions::default().promise((alice, bob), "s", at);
        store.submit(CommitToken(1), vec![put]).unwrap();
        store.completions(&mut Vec::new());
        for (from, to, session, at, expected) in [
            (alice, bob, "s", at, true),
            (bob, alice, "s", at, true),
            (alice, bob, "s", at.plus_ms(EPOCH_MS), true),
            (alice, bob, "s", at.plus_ms(EPOCH_MS + 1), false),
            (alice, bob, "t", at, false),
            (eve, bob, "s", at, false),
        ] {
            let mut sessions = SignedSessions::default();
            for _ in 0..2 {
                let found = sessions.is_signed(&store, (from, to), session, at);
                assert_eq!(found, Ok(expected), "{from} {to} {session} {at:?}");
            }
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut sessions = SignedSessions::default();
        for number in 0..=REMEMBERED_MAX {
            sessions.remember(sha256(&[&number.to_be_bytes()]), true);
            assert!(sessions.remembered.len() <= REMEMBERED_MAX);
        }
        assert_eq!(sessions.remembered.len(), 1);
    }
}
