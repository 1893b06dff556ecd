//! The state file: nothing readable without the key, nothing left of what was erased.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::random::Seeded;

fn key(octet: u8) -> Secret32 {
    Secret32::from_slice(&[octet; 32]).unwrap()
}

fn open(path: &Path, octet: u8) -> Result<State, StateError> {
    State::open(path, &key(octet), Box::new(Seeded::new(1)))
}

/// All octets of all files in a folder.
fn octets(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        all.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    all
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn sealed(state: &State, space: Space, name: &str) -> Vec<u8> {
    let hidden = state.hide(space, name);
    state
        .connection
        .query_row(
            "SELECT sealed FROM item WHERE space = ?1 AND name = ?2",
            params![space.number(), hidden.as_slice()],
            |row| row.get(0),
        )
        .unwrap()
}

#[test]
fn values_survive_and_names_are_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut state = open(&path, 7).unwrap();
    state.put(Space::Contact, "bob@b.example", "a value of bob").unwrap();
    state.put(Space::Contact, "alice@a.example", "a value of alice").unwrap();
    state.commit().unwrap();
    drop(state);
    let all = octets(folder.path());
    assert!(!contains(&all, b"bob") && !contains(&all, b"value"));
    let mut state = open(&path, 7).unwrap();
    let list: Vec<(String, String)> = state.list(Space::Contact).unwrap();
    assert_eq!(list[0], ("alice@a.example".into(), "a value of alice".into()));
    assert_eq!((list.len(), state.count(Space::Contact).unwrap()), (2, 2));
    assert!(state.contains(Space::Contact, "bob@b.example").unwrap());
    assert!(state.remove(Space::Contact, "bob@b.example").unwrap());
    assert!(!state.remove(Space::Contact, "bob@b.example").unwrap());
    assert_eq!(state.get::<String>(Space::Contact, "bob@b.example").unwrap(), None);
    assert_eq!(state.get::<String>(Space::Policy, "alice@a.example").unwrap(), None);
}

#[test]
fn what_is_not_committed_is_lost_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut state = open(&path, 7).unwrap();
    state.put(Space::Meta, "a", "1").unwrap();
    state.put(Space::Meta, "b", "1").unwrap();
    state.commit().unwrap();
    state.put(Space::Meta, "a", "2").unwrap();
    state.remove(Space::Meta, "b").unwrap();
    assert!(state.is_changing());
    drop(state);
    let state = open(&path, 7).unwrap();
    assert_eq!(state.get::<String>(Space::Meta, "a").unwrap().as_deref(), Some("1"));
    assert_eq!(state.get::<String>(Space::Meta, "b").unwrap().as_deref(), Some("1"));
}

#[test]
fn erased_keys_are_in_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut state = open(&path, 7).unwrap();
    // Small rows, and one that needs overflow pages of its own.
    for (name, length) in [("small", 32), ("large", 20_000)] {
        for space in Space::ALL.iter().filter(|space| space.holds_keys()) {
            let value = "k".repeat(length);
            state.put(*space, name, &value).unwrap();
            state.commit().unwrap();
            let replaced = sealed(&state, *space, name);
            assert!(contains(&octets(folder.path()), &replaced[..replaced.len().min(64)]));
            state.put(*space, name, &"n".repeat(length)).unwrap();
            state.commit().unwrap();
            let removed = sealed(&state, *space, name);
            let all = octets(folder.path());
            for piece in replaced.chunks_exact(16) {
                assert!(!contains(&all, piece), "{space} {name}: replaced");
            }
            state.remove(*space, name).unwrap();
            state.commit().unwrap();
            let all = octets(folder.path());
            for piece in removed.chunks_exact(16) {
                assert!(!contains(&all, piece), "{space} {name}: removed");
            }
        }
    }
}

#[test]
fn a_log_left_by_a_crash_is_cut_when_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut state = open(&path, 7).unwrap();
    state.put(Space::Chain, "c", "first").unwrap();
    state.commit().unwrap();
    let erased = sealed(&state, Space::Chain, "c");
    state.put(Space::Chain, "c", "second").unwrap();
    // The crash comes between the commit and the cut.
    state.connection.execute_batch("COMMIT").unwrap();
    let image = tempfile::tempdir().unwrap();
    for name in ["state", "state-wal"] {
        std::fs::copy(folder.path().join(name), image.path().join(name)).unwrap();
    }
    assert!(contains(&octets(image.path()), &erased));
    let opened = open(&image.path().join("state"), 7).unwrap();
    assert_eq!(opened.get::<String>(Space::Chain, "c").unwrap().as_deref(), Some("second"));
    assert!(!contains(&octets(image.path()), &erased));
}

#[test]
fn wrong_keys_changed_and_moved_rows_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut state = open(&path, 7).unwrap();
    state.put(Space::Contact, "a", "1").unwrap();
    state.put(Space::Contact, "b", "2").unwrap();
    state.commit().unwrap();
    assert!(matches!(open(&path, 7), Err(StateError::InUse)));
    let (a, b) = (state.hide(Space::Contact, "a"), state.hide(Space::Contact, "b"));
    let swap = "UPDATE item SET sealed = (SELECT sealed FROM item WHERE name = ?1) WHERE name = ?2";
    state.connection.execute(swap, params![a.as_slice(), b.as_slice()]).unwrap();
    let moved = state.get::<String>(Space::Contact, "b");
    assert!(matches!(moved, Err(StateError::Damaged(Space::Contact))));
    let listed = state.list::<String>(Space::Contact);
    assert!(matches!(listed, Err(StateError::Damaged(Space::Contact))));
    let cut = "UPDATE item SET sealed = substr(sealed, 1, 11) WHERE name = ?1";
    state.connection.execute(cut, params![a.as_slice()]).unwrap();
    let short = state.get::<String>(Space::Contact, "a");
    assert!(matches!(short, Err(StateError::Damaged(Space::Contact))));
    drop(state);
    assert!(matches!(open(&path, 8), Err(StateError::Key)));
    assert!(open(&path, 7).is_ok());
}

#[test]
fn another_version_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    drop(open(&path, 7).unwrap());
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA user_version = 2").unwrap();
    drop(connection);
    assert!(matches!(open(&path, 7), Err(StateError::Version)));
}

#[test]
fn a_failed_commit_poisons() {
    let mut state = State::in_memory(&key(7), Box::new(Seeded::new(1))).unwrap();
    state.put(Space::Meta, "a", "1").unwrap();
    // The transaction ends behind the state's back, so its own COMMIT must fail.
    state.connection.execute_batch("ROLLBACK").unwrap();
    assert!(matches!(state.commit(), Err(StateError::Database(_))));
    assert!(matches!(state.put(Space::Meta, "a", "1"), Err(StateError::Poisoned)));
    assert!(matches!(state.commit(), Err(StateError::Poisoned)));
}

#[test]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let _state = open(&path, 7).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
