//! A disk that fills up: what was acknowledged is kept, what is new is refused with 452, and when
//! there is space again the relay goes on by itself.

use std::path::Path;
use std::time::{Duration, Instant};

use system::device::{Device, befriend};
use system::disk::SmallDisk;
use system::link::Link;
use system::person::PATIENCE;
use system::process::wait_for;
use system::site::Site;
use system::skip;
use system::stage::Stage;

/// Octets of the disk while all is well.
const DISK_OCTETS: u64 = 1 << 30;
/// Octets of a body: a line of almost the longest kind.
const BODY_OCTETS: usize = 45_000;
/// How long the relay may take to notice that a disk is full, or no longer.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(60);

/// A stage whose relay has its store on a small disk, with two more people on it.
struct Cellar {
    disk: SmallDisk,
    stage: Stage,
    carol: Device,
    dave: Device,
    /// Every line that the relay has acknowledged, in order.
    acknowledged: Vec<String>,
}

impl Cellar {
    fn dig(folder: &Path, reserve: &str) -> Option<Self> {
        let store = folder.join("store");
        std::fs::create_dir(&store).unwrap();
        let Some(disk) = SmallDisk::mount(&store, DISK_OCTETS).unwrap() else {
            skip("only root may mount a small disk: no relay was tried on a full one");
            return None;
        };
        let overrides = format!("reserve = \"{reserve}\"\n");
        let site = Site::build_within(folder, "demo.local", &overrides, &disk.prefix()).unwrap();
        let stage = Stage::at(site).unwrap();
        let carol = Device::enrol(&stage.site, &stage.dialer, "carol").unwrap();
        let dave = Device::enrol(&stage.site, &stage.dialer, "dave").unwrap();
        befriend(&stage.dialer, &carol, &dave).unwrap();
        Some(Self { disk, stage, carol, dave, acknowledged: Vec::new() })
    }

    /// Sends dave a message; the code of the answer.
    fn send(&mut self, link: &mut Link, octets: usize) -> u16 {
        let line = self.carol.message(&self.dave.account, &vec![7; octets]);
        self.send_line(link, &line)
    }

    fn send_line(&mut self, link: &mut Link, line: &str) -> u16 {
        link.say(line).unwrap();
        let reply = link.reply().unwrap();
        let code = reply[..3].parse().unwrap();
        if code == 250 || code == 252 {
            self.acknowledged.push(bare(line));
        }
        code
    }

    /// What waits for dave behind `after`: the numbers and the lines.
    fn waiting(&self, count: usize, after: u64) -> (Link, Vec<(u64, String)>) {
        let mut link = self.dave.resume(&self.stage.dialer, after).unwrap();
        let mut lines = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while lines.len() < count {
            assert!(Instant::now() < deadline, "only {} of {count} lines came", lines.len());
            let line = link.hear().unwrap().unwrap();
            if line.starts_with("100 ") {
                lines.push((number(&line), bare(&line)));
            }
        }
        (link, lines)
    }

    /// Everything acknowledged waits for dave, in order and once, and then the next line comes.
    fn check_all_waits(&mut self) {
        let count = self.acknowledged.len();
        let (mut at_dave, lines) = self.waiting(count, 0);
        assert!(lines.is_sorted_by(|(one, _), (next, _)| one < next), "out of order");
        for (place, (number, line)) in lines.iter().enumerate() {
            let sent = self.acknowledged.iter().position(|sent| sent == line);
            assert_eq!(sent, Some(place), "H-Q={number} at this place of {count}");
        }
        let mut link = self.carol.resume(&self.stage.dialer, 0).unwrap();
        assert_eq!(self.send(&mut link, 10), 250);
        let last = self.acknowledged.last().unwrap();
        loop {
            let line = at_dave.hear().unwrap().unwrap();
            if line.starts_with("100 ") {
                assert_eq!(&bare(&line), last, "something came twice");
                break;
            }
        }
    }
}

fn number(line: &str) -> u64 {
    line.split(' ').find_map(|word| word.strip_prefix("H-Q=")).unwrap().parse().unwrap()
}

/// A line without its hop parameters.
fn bare(line: &str) -> String {
    line.split(' ').filter(|word| !word.starts_with("H-")).collect::<Vec<_>>().join(" ")
}

#[test]
fn below_the_reserve_new_lines_are_refused_and_old_ones_are_read_and_freed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut cellar) = Cellar::dig(folder.path(), "64 MiB") else { return };
    let mut link = cellar.carol.resume(&cellar.stage.dialer, 0).unwrap();
    for _ in 0..20 {
        assert_eq!(cellar.send(&mut link, BODY_OCTETS), 252);
    }
    cellar.disk.leave_free(48 << 20).unwrap();
    wait_for("452", NOTICE_TIMEOUT, || Ok((cellar.send(&mut link, 10) == 452).then_some(())))
        .unwrap();
    for _ in 0..5 {
        assert_eq!(cellar.send(&mut link, 10), 452, "below the reserve");
    }
    // What is there is read, and the half that dave has is freed although nothing can be noted;
    // only the last of it stays, so that its number is not given again.
    let half = cellar.acknowledged.len() / 2;
    let (mut at_dave, lines) = cellar.waiting(cellar.acknowledged.len(), 0);
    assert!(lines.iter().map(|(_, line)| line).eq(&cellar.acknowledged));
    let (kept, _) = lines[half - 1];
    at_dave.ask(&format!("014 H-Q={kept} H-ID=a"), 452).unwrap();
    drop(at_dave);
    cellar.acknowledged.drain(..half - 1);

    cellar.disk.leave_free(512 << 20).unwrap();
    wait_for("an end of 452", NOTICE_TIMEOUT, || {
        Ok((cellar.send(&mut link, 10) != 452).then_some(()))
    })
    .unwrap();
    cellar.check_all_waits();
    cellar.stage.check().unwrap();

    cellar.stage.site.kill_relay().unwrap();
    cellar.stage.site.start_relay().unwrap();
    cellar.check_all_waits();
    cellar.stage.check().unwrap();
}

#[test]
fn a_disk_without_a_single_octet_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut cellar) = Cellar::dig(folder.path(), "0 B") else { return };
    let mut link = cellar.carol.resume(&cellar.stage.dialer, 0).unwrap();
    cellar.disk.leave_free(8 << 20).unwrap();
    // The write that fails has no answer but 421: whether its line is there is not known.
    let (unknown, code) = loop {
        let line = cellar.carol.message(&cellar.dave.account, &vec![7; BODY_OCTETS]);
        let code = cellar.send_line(&mut link, &line);
        if code != 252 {
            break (line, code);
        }
        assert!(cellar.acknowledged.len() < 2_000, "8 MiB hold more than that");
    };
    assert!(code == 421 || code == 452, "{code}");
    assert!(cellar.acknowledged.len() > 10, "{}", cellar.acknowledged.len());
    let mut link = cellar.carol.resume(&cellar.stage.dialer, 0).unwrap();
    for _ in 0..5 {
        assert_eq!(cellar.send(&mut link, BODY_OCTETS), 452);
    }

    cellar.disk.leave_free(512 << 20).unwrap();
    wait_for("an end of 452", NOTICE_TIMEOUT, || {
        Ok((cellar.send_line(&mut link, &unknown) != 452).then_some(()))
    })
    .unwrap();
    assert_eq!(cellar.acknowledged.last(), Some(&bare(&unknown)));
    cellar.check_all_waits();
    cellar.stage.check().unwrap();

    cellar.stage.site.kill_relay().unwrap();
    cellar.stage.site.start_relay().unwrap();
    cellar.check_all_waits();
    cellar.stage.check().unwrap();
}
