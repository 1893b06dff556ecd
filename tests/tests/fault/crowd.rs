//! Many connections, and one too many.

use std::io::Read as _;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use system::device::Device;
use system::link::{Dialer, Link};
use system::process::wait_for;
use system::stage::Stage;

/// Connections that are open at once.
const CONNECTIONS: usize = 10_000;
/// Threads that open them.
const CALLERS: usize = 4;
/// File descriptors of this process beside them.
const FILES_BESIDE: u64 = 1_000;
/// Memory of the relay with all of them, in KiB.
const CROWDED_KIB_MAX: u64 = 700 * 1_024;
/// How long the relay may take to notice that all of them are gone.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(60);

/// Lets this process have so many files, as far as the system allows.
fn allow_files(count: u64) {
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= count) {
        return;
    }
    let maximum = now.maximum.map(|maximum| maximum.max(count));
    let wanted = Rlimit { current: Some(count), maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        panic!(
            "this test needs {count} file descriptors; the hard limit is {:?} and cannot be \
             raised ({error}): raise it with `ulimit -Hn {count}` as root",
            now.maximum
        );
    }
}

fn call(dialer: &Dialer, count: usize) -> Vec<Link> {
    (0..count).map(|_| dialer.greeted().unwrap()).collect()
}

#[test]
fn ten_thousand_idle_connections_are_carried() {
    allow_files(CONNECTIONS as u64 + FILES_BESIDE);
    let folder = tempfile::tempdir().unwrap();
    let limits = "[limits]\nconnections_per_address = 20000\nlogin = \"10min\"\n";
    let mut stage = Stage::set(folder.path(), limits).unwrap();
    let before = stage.relay_kib().unwrap();
    let dialer = &stage.dialer;
    let mut links: Vec<Link> = std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..CALLERS).map(|_| scope.spawn(|| call(dialer, CONNECTIONS / CALLERS))).collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    assert_eq!(links.len(), CONNECTIONS);
    let kib = stage.relay_kib().unwrap();
    let resumed = stage.figure("relay_handshakes_total{outcome=\"resumed\"}").unwrap();
    println!(
        "{CONNECTIONS} connections, {resumed} resumed: {before} to {kib} KiB, {:.1} KiB each",
        (kib - before) as f64 / CONNECTIONS as f64
    );
    assert!(kib < CROWDED_KIB_MAX, "{kib} KiB");
    let open = stage.figure("relay_connections").unwrap();
    assert!(open >= CONNECTIONS as u64 + 2, "{open} are open");
    stage.talk().unwrap();
    // Not one of them was dropped on the way.
    for link in &mut links {
        link.ask("015", 250).unwrap();
    }
    drop(links);
    wait_for("the relay to be empty", EMPTY_TIMEOUT, || {
        Ok((stage.figure("relay_connections")? <= 2).then_some(()))
    })
    .unwrap();
    stage.check().unwrap();
}

/// As many as there is room for, of which the two people have two places already.
fn fill(stage: &Stage, from: [u8; 4], count: usize) -> Vec<Link> {
    (0..count)
        .map(|number| {
            // A place that somebody left is free once the farewell is over.
            wait_for("a place", EMPTY_TIMEOUT, || {
                let mut link = stage.dialer.dial_from(from)?;
                let greeting = link.hear()?.unwrap_or_default();
                Ok(greeting.starts_with("220").then_some(link))
            })
            .unwrap_or_else(|error| panic!("number {number}: {error}"))
        })
        .collect()
}

/// One more is told `goodbye`, those that are there live on, and a place that is left is taken.
fn overfill(stage: &mut Stage, from: [u8; 4], mut links: Vec<Link>, goodbye: &str) {
    for _ in 0..5 {
        let mut link = stage.dialer.dial_from(from).unwrap();
        assert_eq!(link.goodbye().unwrap(), goodbye);
    }
    for link in &mut links {
        link.ask("015", 250).unwrap();
    }
    stage.talk().unwrap();
    links.pop().unwrap().quit().unwrap();
    links.extend(fill(stage, from, 1));
    let mut link = stage.dialer.dial_from(from).unwrap();
    assert_eq!(link.goodbye().unwrap(), goodbye);
}

const HOME: [u8; 4] = [127, 0, 0, 1];
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

#[test]
fn one_connection_too_many_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let limits = "[limits]\nconnections = 8\nlogin = \"10min\"\n";
    let mut stage = Stage::set(folder.path(), limits).unwrap();
    let links = fill(&stage, ELSEWHERE, 6);
    overfill(&mut stage, ELSEWHERE, links, "421 :too many connections");
    stage.check().unwrap();
}

#[test]
fn one_connection_too_many_from_an_address_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let limits = "[limits]\nconnections_per_address = 5\nlogin = \"10min\"\n";
    let mut stage = Stage::set(folder.path(), limits).unwrap();
    let elsewhere = fill(&stage, ELSEWHERE, 5);
    let goodbye = "421 :too many connections from your address";
    overfill(&mut stage, ELSEWHERE, elsewhere, goodbye);
    let here = fill(&stage, HOME, 3);
    overfill(&mut stage, HOME, here, goodbye);
    stage.check().unwrap();
}

#[test]
fn a_flood_of_connections_leaves_those_who_are_there_alone() {
    const FLOOD: usize = 2_000;
    allow_files(FLOOD as u64 + FILES_BESIDE);
    let folder = tempfile::tempdir().unwrap();
    let limits = "[limits]\nconnections = 50\nhandshake = \"1s\"\n";
    let mut stage = Stage::set(folder.path(), limits).unwrap();
    let mut sockets: Vec<_> = (0..FLOOD).map(|_| stage.dialer.connect().unwrap()).collect();
    stage.talk().unwrap();
    for socket in &mut sockets {
        // Each is closed, with or without a handshake's alert.
        let _ = socket.read_to_end(&mut Vec::new());
    }
    let refused = "relay_handshakes_total{outcome=\"refused_connections\"}";
    let refused = stage.figure(refused).unwrap();
    assert!(refused > 0, "nobody was turned away");
    stage.check().unwrap();
}

#[test]
fn one_login_too_many_is_told_when_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    // Two people and carol enrol with one login each, and come with another.
    let mut stage = Stage::set(folder.path(), "[limits]\nlogins_per_minute = 30\n").unwrap();
    let carol = Device::enrol(&stage.site, &stage.dialer, "carol").unwrap();
    let mut logins = 0;
    let refusal = loop {
        match carol.log_in_from(&stage.dialer, ELSEWHERE) {
            Ok(link) => link.quit().unwrap(),
            Err(error) => break error.to_string(),
        }
        logins += 1;
    };
    assert_eq!(logins, 30, "{refusal}");
    assert!(refusal.contains("453 30 logins a minute from one network"), "{refusal}");
    carol.log_in(&stage.dialer).unwrap().quit().unwrap();
    stage.check().unwrap();
}
