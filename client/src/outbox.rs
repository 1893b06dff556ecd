//! Lines on their way to the relay, kept octet for octet until it answers for them.
//!
//! Owns the rows of [`Space::Outbox`] and what the relay's answers do to them. The invariants: a
//! line is written down before it is sent; a retry is the stored line, only its H-ID differs;
//! lines to one account arrive at the relay in the order in which they were made, each only once
//! the one before is answered for. Limit: [`limits::OUTBOX_LINES_MAX`].

use std::collections::BTreeMap;

use protocol::parameter::Parameter;
use protocol::{Command, Timestamp};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::state::{Space, State, StateError};

/// What a line in the outbox is, for whoever handles its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// 100, 103, 104, 105: its fate is shown.
    Message,
    /// 700, 702 of this generation to this device.
    Offer { generation: String, device: String },
    /// 800, 804 of this file.
    File { fid: String },
    /// A later part of the text whose first part has this MID.
    Part { first: String },
    /// Everything whose fate is shown to nobody: 101, 102, 701, 703, 801, 803, 805, 806.
    Silent,
    /// 633, 634, 635.
    Subscription,
}

/// A line on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Item {
    /// The line without CRLF and H-ID.
    pub(crate) line: String,
    pub(crate) kind: Kind,
    /// The account it is for; its lines keep their order.
    pub(crate) account: String,
    /// MID; empty if it has none.
    pub(crate) mid: String,
    /// How often the relay put it off.
    pub(crate) attempts: u32,
    /// When it may be sent again, in milliseconds since 1970.
    pub(crate) retry_at: u64,
    /// Whether the relay asked for a choice (350).
    pub(crate) is_asked: bool,
    /// VIA of the choice that was made.
    pub(crate) choice: Option<String>,
    /// Whether the choice goes out next, and not the line.
    pub(crate) is_chosen: bool,
}

/// All lines on their way.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    items: BTreeMap<u64, Item>,
    /// Lines that were sent on this link and not yet answered.
    in_flight: BTreeMap<u64, ()>,
    last: u64,
}

impl Outbox {
    pub(crate) fn load(state: &State) -> Result<Self, StateError> {
        let mut items = BTreeMap::new();
        for (name, item) in state.list(Space::Outbox)? {
            let number = name.parse().map_err(|_| StateError::Damaged(Space::Outbox))?;
            items.insert(number, item);
        }
        let last = items.last_key_value().map_or(0, |(number, _)| *number);
        Ok(Self { items, in_flight: BTreeMap::new(), last })
    }

    /// Whether no further text should be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.items.len() >= limits::OUTBOX_LINES_MAX
    }

    /// Writes a line down.
    pub(crate) fn push(
        &mut self,
        state: &mut State,
        kind: Kind,
        account: &str,
        mid: &str,
        line: String,
    ) -> Result<u64, StateError> {
        self.last += 1;
        let item = Item {
            line,
            kind,
            account: account.into(),
            mid: mid.into(),
            attempts: 0,
            retry_at: 0,
            is_asked: false,
            choice: None,
            is_chosen: false,
        };
        state.put(Space::Outbox, &name(self.last), &item)?;
        self.items.insert(self.last, item);
        Ok(self.last)
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Item> {
        self.items.get(&number)
    }

    /// The line with this MID.
    pub(crate) fn find(&self, mid: &str) -> Option<(u64, &Item)> {
        self.items.iter().find(|(_, item)| item.mid == mid).map(|(number, item)| (*number, item))
    }

    /// The relay has answered for the line; it is forgotten.
    pub(crate) fn remove(
        &mut self,
        state: &mut State,
        number: u64,
    ) -> Result<Option<Item>, StateError> {
        self.in_flight.remove(&number);
        let item = self.items.remove(&number);
        if item.is_some() {
            state.remove(Space::Outbox, &name(number))?;
        }
        Ok(item)
    }

    /// The numbers of the lines that `is_wanted` says, in order.
    pub(crate) fn numbers(&self, is_wanted: impl Fn(&Item) -> bool) -> Vec<u64> {
        let wanted = self.items.iter().filter(|(_, item)| is_wanted(item));
        wanted.map(|(number, _)| *number).collect()
    }

    /// The accounts with a line under way, and whether another one waits for its answer.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = (&str, bool)> {
        self.in_flight.keys().filter_map(|number| self.items.get(number)).map(|item| {
            let is_other = |other: &&Item| other.account == item.account && !other.is_asked;
            (item.account.as_str(), self.items.values().filter(is_other).nth(1).is_some())
        })
    }

    /// The number of lines on their way to an account.
    pub(crate) fn count_of(&self, account: &str) -> usize {
        self.items.values().filter(|item| item.account == account).count()
    }

    /// Removes every line that `is_gone` says.
    pub(crate) fn remove_if(
        &mut self,
        state: &mut State,
        is_gone: impl Fn(&Item) -> bool,
    ) -> Result<(), StateError> {
        for number in self.numbers(is_gone) {
            self.remove(state, number)?;
        }
        Ok(())
    }

    /// Changes a line's fate and writes it down.
    pub(crate) fn update(
        &mut self,
        state: &mut State,
        number: u64,
        change: impl FnOnce(&mut Item),
    ) -> Result<(), StateError> {
        self.in_flight.remove(&number);
        let Some(item) = self.items.get_mut(&number) else { return Ok(()) };
        change(item);
        state.put(Space::Outbox, &name(number), item)
    }

    /// The relay put the line off: it is sent again after `retry_seconds` or a pause that doubles.
    pub(crate) fn put_off(
        &mut self,
        state: &mut State,
        number: u64,
        retry_seconds: Option<u64>,
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.update(state, number, |item| {
            let pause = pause_ms(item.attempts);
            let asked = retry_seconds.unwrap_or(0).saturating_mul(1_000);
            item.attempts = item.attempts.saturating_add(1);
            item.retry_at = now.plus_ms(pause.max(asked.min(limits::RETRY_MS_MAX))).0;
        })
    }

    /// The link is gone: everything unanswered is sent again on the next.
    pub(crate) fn disconnected(&mut self) {
        self.in_flight.clear();
    }

    /// The numbers that may be sent now, in order; they count as under way from here on.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Vec<u64> {
        let mut due = Vec::new();
        let mut waiting: Vec<&str> = Vec::new();
        for (number, item) in &self.items {
            if self.in_flight.len() + due.len() >= limits::LINES_IN_FLIGHT_MAX {
                break;
            }
            if item.is_asked {
                continue;
            }
            let account = item.account.as_str();
            let is_under_way = self.in_flight.contains_key(number);
            if waiting.contains(&account) {
                continue;
            }
            // One line at a time to an account: were the relay to put it off, none behind it
            // would be there before it.
            waiting.push(account);
            if !is_under_way && item.retry_at <= now.0 {
                due.push(*number);
            }
        }
        self.in_flight.extend(due.iter().map(|number| (*number, ())));
        due
    }
}

/// The pause before attempt `attempts + 1`.
fn pause_ms(attempts: u32) -> u64 {
    limits::RETRY_MS_MIN.saturating_mul(1 << attempts.min(16)).min(limits::RETRY_MS_MAX)
}

fn name(number: u64) -> String {
    format!("{number:020}")
}

/// The stored line as it goes out: H-ID added, CRLF behind it.
///
/// # Errors
/// [`StateError::Damaged`]: the line was good when it was stored.
pub(crate) fn with_hop_id(line: &str, hop_id: u64) -> Result<Vec<u8>, StateError> {
    let command = Command::parse(line.as_bytes());
    let command = command.map_err(|_| StateError::Damaged(Space::Outbox))?;
    let value = hop_id.to_string();
    let mut octets = Vec::with_capacity(line.len() + 24);
    command.forward(&[Parameter { name: "H-ID", value: &value }], &mut octets);
    Ok(octets)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::random::Seeded;
    use crate::secret::Secret32;

    const NOW: Timestamp = Timestamp(1_795_469_246_123);

    fn state() -> State {
        let key = Secret32::from_slice(&[1; 32]).unwrap();
        State::in_memory(&key, Box::new(Seeded::new(1))).unwrap()
    }

    fn push(outbox: &mut Outbox, state: &mut State, account: &str, mid: &str) -> u64 {
        let line = format!("100 TO {account} FROM alice@a.example/d1 MID={mid} aGVsbG8");
        outbox.push(state, Kind::Message, account, mid, line).unwrap()
    }

    #[test]
    fn retries_are_the_stored_line() {
        let line = "100 TO b@c FROM a@b/d SEQ=1 MID=m aGVsbG8 c2ln";
        let sent = with_hop_id(line, 7).unwrap();
        assert_eq!(sent, b"100 TO b@c FROM a@b/d SEQ=1 MID=m H-ID=7 aGVsbG8 c2ln\r\n");
        let again = with_hop_id(line, 8).unwrap();
        let tbs = |octets: &[u8]| Command::parse(octets.trim_ascii_end()).unwrap().statement_hash();
        assert_eq!(tbs(&sent), tbs(&again));
    }

    #[test]
    fn one_account_waits_the_others_do_not() {
        let (mut state, mut outbox) = (state(), Outbox::default());
        let first = push(&mut outbox, &mut state, "b@x", "1");
        let second = push(&mut outbox, &mut state, "b@x", "2");
        let other = push(&mut outbox, &mut state, "c@x", "3");
        assert_eq!(outbox.take_due(NOW), [first, other]);
        assert!(outbox.take_due(NOW).is_empty(), "each account has one under way");
        outbox.put_off(&mut state, first, None, NOW).unwrap();
        outbox.disconnected();
        assert_eq!(outbox.take_due(NOW), [other], "the second waits behind the first");
        let retry = NOW.plus_ms(limits::RETRY_MS_MIN);
        assert_eq!(outbox.take_due(retry), [first]);
        outbox.remove(&mut state, first).unwrap();
        assert_eq!(outbox.take_due(retry), [second]);
    }

    #[test]
    fn who_waits_for_an_answer() {
        let (mut state, mut outbox) = (state(), Outbox::default());
        let first = push(&mut outbox, &mut state, "b@x", "1");
        push(&mut outbox, &mut state, "c@x", "2");
        assert_eq!(outbox.under_way().count(), 0, "nothing was sent");
        outbox.take_due(NOW);
        assert_eq!(outbox.under_way().collect::<Vec<_>>(), [("b@x", false), ("c@x", false)]);
        push(&mut outbox, &mut state, "b@x", "3");
        assert_eq!(outbox.under_way().collect::<Vec<_>>(), [("b@x", true), ("c@x", false)]);
        outbox.put_off(&mut state, first, None, NOW).unwrap();
        assert_eq!(outbox.under_way().collect::<Vec<_>>(), [("c@x", false)], "b's is put off");
    }

    #[test]
    fn what_is_written_down_survives() {
        let (mut state, mut outbox) = (state(), Outbox::default());
        push(&mut outbox, &mut state, "b@x", "1");
        let second = push(&mut outbox, &mut state, "b@x", "2");
        outbox.put_off(&mut state, second, Some(60), NOW).unwrap();
        let mut again = Outbox::load(&state).unwrap();
        assert_eq!(again.get(second).unwrap().retry_at, NOW.0 + 60_000);
        assert_eq!(again.find("1").unwrap().0, 1);
        assert_eq!(push(&mut again, &mut state, "b@x", "3"), 3);
        again.remove(&mut state, 1).unwrap();
        assert!(Outbox::load(&state).unwrap().get(1).is_none());
    }

    #[test]
    fn pauses_double_up_to_the_limit() {
        assert_eq!(pause_ms(0), limits::RETRY_MS_MIN);
        assert_eq!(pause_ms(1), 2 * limits::RETRY_MS_MIN);
        assert_eq!(pause_ms(u32::MAX), limits::RETRY_MS_MAX);
    }

    #[test]
    fn in_flight_at_n_and_one_more() {
        let (mut state, mut outbox) = (state(), Outbox::default());
        for mid in 0..=limits::LINES_IN_FLIGHT_MAX {
            push(&mut outbox, &mut state, &format!("b{mid}@x"), "1");
        }
        assert_eq!(outbox.take_due(NOW).len(), limits::LINES_IN_FLIGHT_MAX);
        outbox.remove(&mut state, 1).unwrap();
        assert_eq!(outbox.take_due(NOW).len(), 1);
    }

    #[test]
    fn full_at_n() {
        let (mut state, mut outbox) = (state(), Outbox::default());
        for mid in 0..limits::OUTBOX_LINES_MAX {
            assert!(!outbox.is_full());
            push(&mut outbox, &mut state, "b@x", &mid.to_string());
        }
        assert!(outbox.is_full());
    }
}
