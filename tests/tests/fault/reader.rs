//! Peers that read late, or never.

use std::time::{Duration, Instant};

use system::device::{Device, befriend};
use system::link::{Heard, Link};
use system::person::PATIENCE;
use system::stage::Stage;

/// Octets of a body here: a line of almost the longest kind.
const BODY_OCTETS: usize = 45_000;
/// Messages to somebody who does not read: 480 MB, twice what all buffers on the way hold.
const MESSAGES: usize = 8_000;
/// Messages sent before their answers are read.
const MESSAGES_AT_ONCE: usize = 20;
/// Memory by which the relay may grow meanwhile, in KiB: the store's cache (64 MiB) and its tables
/// of 64 MiB, one that is filled and those that are being written to disk. If the messages waited
/// in memory as well, it would be 480 MB more.
const STORING_KIB_MAX: u64 = 320 * 1_024;
/// Memory by which the relay may grow for a peer that reads no answers, in KiB.
const UNREAD_KIB_MAX: u64 = 8 * 1_024;
/// How long a link that takes nothing more is tried.
const STUCK: Duration = Duration::from_secs(2);

/// The number of a queued line, and what is behind its hop parameters.
fn numbered(line: &str) -> (u64, String) {
    let number = line.split(' ').find_map(|word| word.strip_prefix("H-Q=")).unwrap();
    let rest: Vec<&str> = line.split(' ').filter(|word| !word.starts_with("H-")).collect();
    (number.parse().unwrap(), rest.join(" "))
}

/// The next queued line.
fn next(link: &mut Link) -> (u64, String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let line = link.hear().unwrap().expect("the link ended");
        if line.starts_with("100 ") {
            return numbered(&line);
        }
        assert!(Instant::now() < deadline, "no message came");
    }
}

#[test]
fn what_piles_up_for_a_reader_waits_in_the_spool_and_comes_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage =
        Stage::set(folder.path(), "[limits]\noutbox = \"128 KiB\"\nqueue_size = \"1 GiB\"\n")
            .unwrap();
    let mut carol = Device::enrol(&stage.site, &stage.dialer, "carol").unwrap();
    let dave = Device::enrol(&stage.site, &stage.dialer, "dave").unwrap();
    befriend(&stage.dialer, &carol, &dave).unwrap();
    let mut at_dave = dave.resume(&stage.dialer, 0).unwrap();
    let mut at_carol = carol.resume(&stage.dialer, 0).unwrap();
    let before = stage.relay_kib().unwrap();
    let mut most = before;

    let body = vec![7; BODY_OCTETS];
    let mut sent = Vec::new();
    let (mut passed, mut stored) = (0, 0);
    while sent.len() < MESSAGES {
        for _ in 0..MESSAGES_AT_ONCE {
            let line = carol.message(&dave.account, &body);
            at_carol.say(&line).unwrap();
            sent.push(numbered(&format!("{line} H-Q=0")).1);
        }
        for _ in 0..MESSAGES_AT_ONCE {
            let reply = at_carol.reply().unwrap();
            match &reply[..3] {
                "250" => passed += 1,
                "252" => stored += 1,
                _ => panic!("carol is told {reply}"),
            }
        }
        most = most.max(stage.relay_kib().unwrap());
        if sent.len() % 200 == 0 {
            // Others do not notice.
            stage.talk().unwrap();
        }
    }
    println!("{passed} passed, {stored} stored, memory {before} to {most} KiB");
    assert!(passed > 0 && stored > 0, "{passed} passed, {stored} stored");
    assert!(most < before + STORING_KIB_MAX, "from {before} to {most} KiB");

    // A part is read on the same link, the rest after a new login behind what was acknowledged.
    let mut got = Vec::new();
    for _ in 0..MESSAGES / 3 {
        got.push(next(&mut at_dave));
    }
    let (kept, _) = got[MESSAGES / 4];
    at_dave.ask(&format!("014 H-Q={kept} H-ID=a"), 250).unwrap();
    drop(at_dave);
    got.retain(|(number, _)| *number <= kept);
    let mut at_dave = dave.resume(&stage.dialer, kept).unwrap();
    while got.len() < MESSAGES {
        got.push(next(&mut at_dave));
    }
    assert!(got.is_sorted_by(|(one, _), (next, _)| one < next), "out of order");
    assert!(got.iter().map(|(_, line)| line).eq(&sent), "not what was sent");
    // Behind the last of them comes the next, and nothing again.
    let line = carol.message(&dave.account, b"the last");
    at_carol.ask(&line, 250).unwrap();
    assert_eq!(next(&mut at_dave).1, numbered(&format!("{line} H-Q=0")).1);
    stage.check().unwrap();
}

/// Sends `line` until the relay takes no more, or `count_max` times; how often.
fn press(link: &mut Link, line: &str, count_max: usize) -> usize {
    let line = format!("{line}\r\n");
    for count in 1..=count_max {
        if !link.offer(line.as_bytes(), STUCK).unwrap() {
            return count;
        }
    }
    panic!("the relay takes everything, although nothing is read");
}

#[test]
fn who_reads_no_answers_is_not_asked_for_more_and_gets_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let limits = "[limits]\noutbox = \"128 KiB\"\nlogin = \"10min\"\n";
    let mut stage = Stage::set(folder.path(), limits).unwrap();
    let carol = Device::enrol(&stage.site, &stage.dialer, "carol").unwrap();
    let before = stage.relay_kib().unwrap();
    let ping = format!("015 H-ID={}", "x".repeat(32));
    let links = [stage.dialer.greeted().unwrap(), carol.resume(&stage.dialer, 0).unwrap()];
    for mut link in links {
        let count = press(&mut link, &ping, 2_000_000);
        let kib = stage.relay_kib().unwrap();
        println!("{count} pings unread, memory {before} to {kib} KiB");
        assert!(stage.figure("relay_choked_total").unwrap() > 0, "all of it was taken");
        assert!(kib < before + UNREAD_KIB_MAX, "from {before} to {kib} KiB");
        stage.talk().unwrap();
        for number in 0..count {
            let line = match link.hear_within(STUCK).unwrap() {
                Heard::Line(line) => line,
                // The last pings are still on this side.
                Heard::Nothing => {
                    assert!(link.offer(b"", PATIENCE).unwrap());
                    link.hear().unwrap().unwrap()
                }
                Heard::End => panic!("closed after {number} answers"),
            };
            assert!(line.starts_with("250"), "{line}");
        }
        link.quit().unwrap();
    }
    stage.check().unwrap();
}

/// Contacts whose blobs are three times what may wait in memory for a slow reader.
const CONTACTS: usize = 200;

#[test]
fn a_roster_larger_than_the_outbox_reaches_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::set(folder.path(), "[limits]\noutbox = \"128 KiB\"\n").unwrap();
    let carol = Device::enrol(&stage.site, &stage.dialer, "carol").unwrap();
    let mut link = carol.resume(&stage.dialer, 0).unwrap();
    let (from, blob) = (&carol.device, "A".repeat(2_048));
    for number in 0..CONTACTS {
        link.ask(&format!("631 TO p{number}@demo.local FROM {from} BLOB={blob}"), 250).unwrap();
    }
    link.say(&format!("630 FROM {from} H-ID=all")).unwrap();
    let mut entries = 0;
    loop {
        let line = link.reply().unwrap();
        assert!(line.starts_with("251"), "{line}");
        entries += usize::from(line.contains(" WHO="));
        if line.starts_with("251 ") {
            break;
        }
    }
    assert_eq!(entries, CONTACTS);
    link.quit().unwrap();
    stage.check().unwrap();
}
