//! An orderly stop: everybody is told, what was taken is finished, nothing is lost.

use std::io::Write as _;

use system::device::{Device, befriend};
use system::link::Heard;
use system::person::PATIENCE;
use system::stage::Stage;

/// Messages that are on their way when the relay is asked to stop.
const MESSAGES: usize = 2_000;
/// Octets of a message to somebody who does not read.
const BODY_OCTETS: usize = 45_000;
/// Such messages: more than all buffers on the way hold.
const UNREAD: usize = 300;

/// A line without its hop parameters.
fn bare(line: &str) -> String {
    line.split(' ').filter(|word| !word.starts_with("H-")).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_was_taken_before_a_stop_is_answered_and_there_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::set(folder.path(), "").unwrap();
    let mut carol = Device::enrol(&stage.site, &stage.dialer, "carol").unwrap();
    let dave = Device::enrol(&stage.site, &stage.dialer, "dave").unwrap();
    befriend(&stage.dialer, &carol, &dave).unwrap();
    let mut idle = carol.impostor(&stage.dialer).unwrap();
    let mut greeted = stage.dialer.greeted().unwrap();
    let mut half = stage.dialer.connect().unwrap();
    half.write_all(&stage.dialer.client_hello().unwrap()).unwrap();

    let mut link = carol.resume(&stage.dialer, 0).unwrap();
    let lines: Vec<String> =
        (0..MESSAGES).map(|_| carol.message(&dave.account, b"on its way")).collect();
    let octets: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    // The relay is in the middle of them when it is asked to stop.
    let all_sent = link.offer(octets.as_bytes(), PATIENCE).unwrap();
    assert!(all_sent);
    assert!(link.reply().unwrap().starts_with("252"));
    let mut answered = 1;
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| stage.site.stop_relay());
        let goodbye = loop {
            let line = link.reply().unwrap();
            if line.starts_with("421") {
                break line;
            }
            assert!(line.starts_with("252"), "{line}");
            answered += 1;
        };
        assert_eq!(goodbye, "421 :the relay stops");
        assert!(matches!(link.hear_within(PATIENCE), Ok(Heard::End)));
        for link in [&mut idle, &mut greeted] {
            assert_eq!(link.goodbye().unwrap(), "421 :the relay stops");
        }
        drop((link, idle, greeted, half));
        stopping.join().unwrap().unwrap();
    });
    println!("{answered} of {MESSAGES} were answered before the stop");

    stage.site.start_relay().unwrap();
    let mut at_dave = dave.resume(&stage.dialer, 0).unwrap();
    let mut got = Vec::new();
    while got.len() < answered {
        let line = at_dave.hear().unwrap().unwrap();
        if line.starts_with("100 ") {
            got.push(bare(&line));
        }
    }
    let expected: Vec<String> = lines.iter().take(answered).map(|line| bare(line)).collect();
    assert!(got == expected, "not what was answered");
    // Nothing is there that was not answered: the next line comes right behind.
    let mut link = carol.resume(&stage.dialer, 0).unwrap();
    let next = carol.message(&dave.account, b"after the stop");
    link.ask(&next, 250).unwrap();
    loop {
        let line = at_dave.hear().unwrap().unwrap();
        if line.starts_with("100 ") {
            assert_eq!(bare(&line), bare(&next), "taken, but not answered");
            break;
        }
    }
    stage.check().unwrap();
}

#[test]
fn a_stop_does_not_wait_for_somebody_who_does_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::set(folder.path(), "").unwrap();
    let mut carol = Device::enrol(&stage.site, &stage.dialer, "carol").unwrap();
    let dave = Device::enrol(&stage.site, &stage.dialer, "dave").unwrap();
    befriend(&stage.dialer, &carol, &dave).unwrap();
    let deaf = dave.resume(&stage.dialer, 0).unwrap();
    let mut link = carol.resume(&stage.dialer, 0).unwrap();
    let mut lines = Vec::new();
    for _ in 0..UNREAD {
        let line = carol.message(&dave.account, &[7; BODY_OCTETS]);
        link.say(&line).unwrap();
        assert!(link.reply().unwrap().starts_with("25"));
        lines.push(bare(&line));
    }
    stage.site.stop_relay().unwrap();
    link.goodbye().unwrap();
    drop(deaf);
    stage.site.start_relay().unwrap();
    let mut at_dave = dave.resume(&stage.dialer, 0).unwrap();
    let mut got = Vec::new();
    while got.len() < UNREAD {
        let line = at_dave.hear().unwrap().unwrap();
        if line.starts_with("100 ") {
            got.push(bare(&line));
        }
    }
    assert!(got == lines, "not what was sent");
    stage.check().unwrap();
}
