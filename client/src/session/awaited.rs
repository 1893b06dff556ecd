//! Generations that are not here yet although their offer came: it is parked, or it was refused
//! only for want of its prekey (456) and will be made again.
//!
//! Owns the rows of [`Space::Awaited`], by GEN. The invariants: lines of an awaited generation, and
//! refreshes that follow on it, wait instead of being given up; the generation that it follows on
//! is not erased, because its EX is still needed (SPEC.md §5, §7). Limits:
//! [`limits::AWAITED_MAX`], [`limits::PARKED_AGE_MS_MAX`].

use protocol::Timestamp;
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::state::{Space, State, StateError};

/// What is known of a generation that may still come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Awaited {
    /// SID.
    pub(crate) sid: String,
    /// PGEN.
    pub(crate) parent: Option<String>,
    /// Whether its offer was found good, so that the relay may be asked to keep its lines.
    pub(crate) is_judged: bool,
    /// Until when it is awaited, in milliseconds since 1970.
    until: u64,
}

/// Awaits a generation; `false` if as many are awaited as may be.
pub(crate) fn note(
    state: &mut State,
    generation: &str,
    (sid, parent): (&str, Option<&str>),
    is_judged: bool,
    now: Timestamp,
) -> Result<bool, StateError> {
    let held = get(state, generation)?;
    if held.is_none() && state.count(Space::Awaited)? >= limits::AWAITED_MAX {
        return Ok(false);
    }
    let row = Awaited {
        sid: sid.into(),
        parent: parent.map(Into::into),
        is_judged: is_judged || held.is_some_and(|held| held.is_judged),
        until: now.plus_ms(limits::PARKED_AGE_MS_MAX).0,
    };
    state.put(Space::Awaited, generation, &row)?;
    Ok(true)
}

/// What is known of an awaited generation.
pub(crate) fn get(state: &State, generation: &str) -> Result<Option<Awaited>, StateError> {
    state.get(Space::Awaited, generation)
}

/// The generation came, or never will.
pub(crate) fn forget(state: &mut State, generation: &str) -> Result<(), StateError> {
    state.remove(Space::Awaited, generation).map(drop)
}

/// Nothing more is taken in this session.
pub(crate) fn forget_session(state: &mut State, sid: &str) -> Result<(), StateError> {
    forget_where(state, |row| row.sid == sid)
}

/// Gives up what was awaited too long.
pub(crate) fn expire(state: &mut State, now: Timestamp) -> Result<(), StateError> {
    forget_where(state, |row| now.0 >= row.until)
}

/// Whether an awaited generation follows on this one.
pub(crate) fn is_parent(state: &State, generation: &str) -> Result<bool, StateError> {
    let rows = state.list::<Awaited>(Space::Awaited)?;
    Ok(rows.iter().any(|(_, row)| row.parent.as_deref() == Some(generation)))
}

fn forget_where(state: &mut State, is_gone: impl Fn(&Awaited) -> bool) -> Result<(), StateError> {
    for (generation, row) in state.list::<Awaited>(Space::Awaited)? {
        if is_gone(&row) {
            forget(state, &generation)?;
        }
    }
    Ok(())
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

    #[test]
    fn awaited_at_n_and_one_more() {
        let mut state = state();
        for number in 0..limits::AWAITED_MAX {
            let is_noted = note(&mut state, &number.to_string(), ("sid", None), false, NOW);
            assert!(is_noted.unwrap());
        }
        assert!(!note(&mut state, "one more", ("sid", None), true, NOW).unwrap());
        assert!(note(&mut state, "0", ("sid", None), true, NOW).unwrap(), "known already");
        forget(&mut state, "1").unwrap();
        assert!(note(&mut state, "one more", ("sid", None), true, NOW).unwrap());
    }

    #[test]
    fn a_good_offer_stays_good_and_ages() {
        let mut state = state();
        note(&mut state, "child", ("sid", Some("parent")), true, NOW).unwrap();
        note(&mut state, "child", ("sid", Some("parent")), false, NOW).unwrap();
        assert!(get(&state, "child").unwrap().unwrap().is_judged);
        assert!(is_parent(&state, "parent").unwrap() && !is_parent(&state, "child").unwrap());
        expire(&mut state, NOW.plus_ms(limits::PARKED_AGE_MS_MAX - 1)).unwrap();
        assert!(get(&state, "child").unwrap().is_some());
        expire(&mut state, NOW.plus_ms(limits::PARKED_AGE_MS_MAX)).unwrap();
        assert_eq!(get(&state, "child").unwrap(), None);
    }

    #[test]
    fn an_ended_session_awaits_nothing() {
        let mut state = state();
        note(&mut state, "a", ("one", None), true, NOW).unwrap();
        note(&mut state, "b", ("other", None), true, NOW).unwrap();
        forget_session(&mut state, "one").unwrap();
        assert_eq!(get(&state, "a").unwrap(), None);
        assert!(get(&state, "b").unwrap().is_some());
    }
}
