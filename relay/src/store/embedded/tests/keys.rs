//! The life of data keys: change by age, absence of the token, erasure.

use super::*;
use crate::keys::KeyError;
use crate::store::StoreError;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Repeats `probe` until it gives something; the store's own threads make it so.
fn eventually<T>(mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "it did not happen");
        std::thread::yield_now();
    }
}

fn key_ids(opened: &Opened) -> Vec<u32> {
    opened.store.shared.seal.keys().iter().map(|key| key.id.0).collect()
}

#[test]
fn every_start_seals_with_a_key_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys();
    for round in 1..=3 {
        let mut opened = Opened::new(config(folder.path()), &keys).unwrap();
        assert_eq!(key_ids(&opened), (1..=round).collect::<Vec<_>>());
        opened.put(&row(u64::from(round)), b"x");
    }
}

#[test]
fn an_old_key_is_followed_by_one_made_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::default();
    let mut config = config(folder.path());
    clock.install(&mut config);
    let keys = keys();
    let mut opened = Opened::new(config.clone(), &keys).unwrap();
    opened.put(&row(1), b"first day");
    clock.advance(DAY / 8 * 7);
    opened.store.key_service_returned();
    eventually(|| opened.store.shared.desk.has_next().then_some(()));
    keys.set_away(true);
    clock.advance(DAY / 8);
    opened.put(&row(2), b"second day");
    assert_eq!(key_ids(&opened), [1, 2]);
    assert_eq!(opened.store.get(&row(1)).unwrap().unwrap(), b"first day");
    drop(opened);
    keys.set_away(false);
    let opened = Opened::new(config, &keys).unwrap();
    assert_eq!(opened.store.get(&row(2)).unwrap().unwrap(), b"second day");
}

#[test]
fn without_token_writes_wait_at_the_age_limit_and_go_on_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::default();
    let mut config = config(folder.path());
    clock.install(&mut config);
    let keys = keys();
    let mut opened = Opened::new(config, &keys).unwrap();
    opened.put(&row(1), b"x");
    keys.set_away(true);
    clock.advance(DAY - Duration::from_secs(1));
    opened.put(&row(2), b"the key in hand still serves");
    clock.advance(Duration::from_secs(2));
    opened.submit(vec![put(&row(3), b"x")]);
    let refused = opened.outcomes(1).remove(0);
    assert!(matches!(refused, Outcome::Refused(StoreError::KeyAway { .. })), "{refused:?}");
    let error = opened.store.submit(CommitToken(9), vec![put(&row(3), b"x")]).unwrap_err();
    assert!(error.retry_after().is_some_and(|wait| wait > Duration::ZERO), "{error}");
    assert!(error.to_string().contains("away") && !error.remedy().is_empty());
    assert_eq!(opened.commit(vec![Operation::Delete { row: row(1) }]), Outcome::Durable);
    assert_eq!(opened.store.get(&row(2)).unwrap().unwrap().len(), 28);
    keys.set_away(false);
    opened.store.key_service_returned();
    eventually(|| opened.store.submit(CommitToken(10), vec![put(&row(3), b"x")]).ok());
    assert_eq!(opened.outcomes(1), [Outcome::Durable]);
}

#[test]
fn a_start_without_token_fails_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys();
    keys.set_away(true);
    let error = Opened::new(config(folder.path()), &keys).err().unwrap();
    assert!(matches!(error, OpenError::Key(KeyError::Away { .. })), "{error}");
    keys.set_away(false);
    Opened::new(config(folder.path()), &keys).unwrap().put(&row(1), b"x");
    keys.set_away(true);
    let error = Opened::new(config(folder.path()), &keys).err().unwrap();
    assert!(matches!(error, OpenError::Key(KeyError::Away { .. })), "{error}");
    assert!(error.remedy().contains("token"));
    keys.set_away(false);
    let opened = Opened::new(config(folder.path()), &keys).unwrap();
    assert_eq!(opened.store.get(&row(1)).unwrap().unwrap(), b"x");
}

#[test]
fn another_token_does_not_open_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let first = keys();
    Opened::new(config(folder.path()), &first).unwrap().put(&row(1), b"x");
    let error = Opened::new(config(folder.path()), &keys()).err().unwrap();
    assert!(matches!(error, OpenError::Damaged(_)), "{error}");
    assert!(error.to_string().contains("index key"), "{error}");
    assert!(Opened::new(config(folder.path()), &first).is_ok());
}

#[test]
fn a_changed_key_is_erased_when_no_row_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys();
    let mut opened = Opened::new(config(folder.path()), &keys).unwrap();
    opened.put(&row(1), b"stays");
    opened.put(&Row::new(Table::Account, b"alice", b""), b"stays too");
    for number in 2..=4 {
        opened.store.rekey_now().unwrap();
        opened.put(&row(number), b"goes");
    }
    assert_eq!(key_ids(&opened), [1, 2, 3, 4]);
    for number in [2, 3] {
        assert_eq!(opened.commit(vec![Operation::Delete { row: row(number) }]), Outcome::Durable);
    }
    opened.store.sweep_now();
    eventually(|| (key_ids(&opened) == [1, 4]).then_some(()));
    eventually(|| (opened.store.statistics().data_keys_erased == 2).then_some(()));
    drop(opened);
    let opened = Opened::new(config(folder.path()), &keys).unwrap();
    assert_eq!(key_ids(&opened), [1, 4, 5]);
    assert_eq!(opened.store.get(&row(1)).unwrap().unwrap(), b"stays");
    assert_eq!(opened.store.get(&row(4)).unwrap().unwrap(), b"goes");
}

#[test]
fn rows_under_a_very_old_key_are_sealed_anew() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::default();
    let mut config = config(folder.path());
    clock.install(&mut config);
    let keys = keys();
    let mut opened = Opened::new(config.clone(), &keys).unwrap();
    let many = 3 * crate::store::limits::SWEEP_ROWS as u64 + 7;
    for number in 0..many {
        opened.submit(vec![put(&row(number), &number.to_be_bytes())]);
    }
    let contact = Row::new(Table::Roster, b"alice", b"bob");
    opened.submit(vec![put(&contact, b"friend")]);
    opened.outcomes(many as usize + 1);
    clock.advance(33 * DAY);
    opened.store.rekey_now().unwrap();
    opened.put(&row(0), b"new");
    opened.store.sweep_now();
    eventually(|| (key_ids(&opened) == [2]).then_some(()));
    assert_eq!(opened.store.statistics().resealed, many);
    assert_eq!(opened.store.get(&row(0)).unwrap().unwrap(), b"new");
    drop(opened);
    let opened = Opened::new(config, &keys).unwrap();
    for number in 1..many {
        assert_eq!(opened.store.get(&row(number)).unwrap().unwrap(), number.to_be_bytes());
    }
    assert_eq!(opened.store.get(&contact).unwrap().unwrap(), b"friend");
}

#[test]
fn the_keys_survive_the_loss_of_one_home() {
    let folder = tempfile::tempdir().unwrap();
    let keys = keys();
    Opened::new(config(folder.path()), &keys).unwrap().put(&row(1), b"x");
    let path = folder.path().join("keys");
    let whole = std::fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[40] ^= 1;
    for content in [Some(damaged), Some(Vec::new()), None] {
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let opened = Opened::new(config(folder.path()), &keys).unwrap();
        assert_eq!(opened.report.findings, [super::super::Finding::KeyFileRestored]);
        assert_eq!(opened.store.get(&row(1)).unwrap().unwrap(), b"x");
        drop(opened);
        let opened = Opened::new(config(folder.path()), &keys).unwrap();
        assert_eq!(opened.report.findings, []);
    }
}
