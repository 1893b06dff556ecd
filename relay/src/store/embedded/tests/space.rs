//! A disk that fills up.

use super::*;
use crate::store::{StoreError, limits};

#[test]
fn a_full_disk_refuses_writes_lets_deletes_pass_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(1_000));
    let seen = free.clone();
    let config = Config {
        reserve_octets: 100,
        free_space: Arc::new(move |_| Ok(seen.load(Ordering::SeqCst))),
        ..config(folder.path())
    };
    let mut opened = Opened::new(config, &keys()).unwrap();
    opened.put(&row(1), b"x");
    free.store(99, Ordering::SeqCst);
    // The first commit after the change may be met by either check.
    let error = match opened.store.submit(CommitToken(7), vec![put(&row(2), b"x")]) {
        Ok(()) => match opened.outcomes(1).remove(0) {
            Outcome::Refused(error) => error,
            other => panic!("{other:?}"),
        },
        Err(error) => error,
    };
    assert_eq!(error, StoreError::Full { free: 99, reserve: 100 });
    let error = opened.store.submit(CommitToken(7), vec![put(&row(2), b"x")]).unwrap_err();
    assert_eq!(error, StoreError::Full { free: 99, reserve: 100 });
    let delete = vec![Operation::Delete { row: row(1) }];
    assert_eq!(opened.commit(delete.clone()), Outcome::Durable);
    free.store(49, Ordering::SeqCst);
    opened.submit(delete.clone());
    assert!(matches!(opened.outcomes(1)[..], [Outcome::Refused(StoreError::Full { .. })]));
    free.store(100, Ordering::SeqCst);
    loop {
        match opened.store.submit(CommitToken(8), vec![put(&row(2), b"x")]) {
            Ok(()) => break,
            Err(StoreError::Full { .. }) => std::thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(opened.outcomes(1), [Outcome::Durable]);
}

/// A small file system of its own, where the process may mount one.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let path = folder.path().to_str().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "cipherim-test", path])
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self { folder })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.folder.path()).status();
    }
}

#[test]
fn a_disk_that_is_really_full_loses_nothing_acknowledged() {
    let Some(disk) = SmallDisk::mount("24m") else {
        let why = "this process may not mount a tmpfs; a really full disk was not tried";
        assert!(std::env::var_os("CIPHERIM_SKIP_NOTHING").is_none(), "{why}");
        eprintln!("SKIPPED: {why}");
        return;
    };
    let folder = disk.folder.path().join("store");
    let clock = HandClock::default();
    clock.advance(Duration::from_secs(1_000));
    let mut config = config(&folder);
    clock.install(&mut config);
    let keys = keys();
    let mut opened = Opened::new(config.clone(), &keys).unwrap();
    let value = vec![7; 64 << 10];
    let mut durable = Vec::new();
    let mut unknown = Vec::new();
    for number in 0..1_000 {
        opened.submit(vec![put(&row(number), &value)]);
        match opened.outcomes(1).remove(0) {
            Outcome::Durable => durable.push(number),
            Outcome::Unknown => {
                unknown.push(number);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(durable.len() > 100 && unknown.len() == 1, "{} {unknown:?}", durable.len());
    let error = opened.store.submit(CommitToken(1), vec![]).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    for number in &durable {
        assert_eq!(opened.store.get(&row(*number)).unwrap().unwrap(), value);
    }
    // More room: the store opens again by itself.
    let path = disk.folder.path().to_str().unwrap().to_owned();
    let grown = std::process::Command::new("mount")
        .args(["-o", "remount,size=200m", &path])
        .status()
        .unwrap();
    assert!(grown.success());
    clock.advance(Duration::from_secs(5));
    loop {
        match opened.store.submit(CommitToken(2), vec![put(&row(5_000), b"again")]) {
            Ok(()) => break,
            Err(StoreError::Full { .. }) => std::thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(opened.outcomes(1), [Outcome::Durable]);
    assert_eq!(opened.store.statistics().reopened, 1);
    drop(opened);
    let opened = Opened::new(config, &keys).unwrap();
    for number in durable {
        assert_eq!(opened.store.get(&row(number)).unwrap().unwrap(), value);
    }
    assert_eq!(opened.store.get(&row(5_000)).unwrap().unwrap(), b"again");
}

#[test]
fn the_queue_is_busy_at_its_limits() {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = Opened::new(config(folder.path()), &keys()).unwrap();
    // The committer is held off while the queue fills: it waits for this lock.
    let shared = opened.store.shared.clone();
    let weight = crate::store::commit::Weight { octets: 1 << 20, only_deletes: false };
    let mut queued = 0;
    let error = loop {
        match shared.submit(CommitToken(queued), vec![], weight) {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
        assert!(queued < 1 << 20, "the queue has no end");
    };
    assert_eq!(error, StoreError::Busy);
    assert!(queued as usize >= limits::QUEUE_OCTETS_MAX >> 20);
    opened.outcomes(queued as usize);
    assert_eq!(opened.commit(vec![put(&row(1), b"x")]), Outcome::Durable);
}
