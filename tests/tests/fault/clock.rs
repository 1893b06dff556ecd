//! A clock that is wrong: while the relay runs, and when it starts.
//!
//! libfaketime moves the wall clock of the relay's process alone; time since the start stays true.

use std::path::{Path, PathBuf};
use std::time::Duration;

use system::device::{Device, befriend};
use system::process::wait_for;
use system::site::Site;
use system::stage::Stage;

/// How long the relay may take to notice a jump.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(30);

/// The hands of the relay's clock.
struct Hands {
    file: PathBuf,
}

impl Hands {
    /// Words that start a program under these hands.
    fn prefix(&self) -> Vec<String> {
        let library = ["x86_64", "aarch64"]
            .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"))
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("libfaketime is missing: install the Debian package libfaketime");
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={library}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }

    /// Moves them by so many days from the true time.
    fn set(&self, days: i32) {
        // In one step, so that the relay never reads half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{days:+}d\n")).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }
}

/// A line without its hop parameters.
fn bare(line: &str) -> String {
    line.split(' ').filter(|word| !word.starts_with("H-")).collect::<Vec<_>>().join(" ")
}

/// A stage under a clock that can be moved, and two devices, of which dave is away.
fn set_stage(folder: &Path) -> (Hands, Stage, Device, Device) {
    let hands = Hands { file: folder.join("clock") };
    hands.set(0);
    let site = Site::build_within(folder, "demo.local", "", &hands.prefix()).unwrap();
    let stage = Stage::at(site).unwrap();
    let carol = Device::enrol(&stage.site, &stage.dialer, "carol").unwrap();
    let dave = Device::enrol(&stage.site, &stage.dialer, "dave").unwrap();
    befriend(&stage.dialer, &carol, &dave).unwrap();
    (hands, stage, carol, dave)
}

/// Sends dave, who is away, a message, and remembers it.
fn leave(stage: &Stage, carol: &mut Device, dave: &Device, lines: &mut Vec<String>) {
    let mut link = carol.log_in(&stage.dialer).unwrap();
    let line = carol.message(&dave.account, b"for later");
    link.ask(&line, 252).unwrap();
    lines.push(bare(&line));
    link.quit().unwrap();
}

/// Everything waits for dave, in order.
fn check_waiting(stage: &Stage, dave: &Device, lines: &[String]) {
    let mut link = dave.resume(&stage.dialer, 0).unwrap();
    let mut got = Vec::new();
    while got.len() < lines.len() {
        let line = link.hear().unwrap().unwrap();
        if line.starts_with("100 ") {
            got.push(bare(&line));
        }
    }
    assert!(got == lines, "not what was sent");
    link.quit().unwrap();
}

#[test]
fn a_clock_that_jumps_while_the_relay_runs_or_rests_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (hands, mut stage, mut carol, dave) = set_stage(folder.path());
    let mut lines = Vec::new();
    leave(&stage, &mut carol, &dave, &mut lines);
    for (jumps, days) in [40, -40, 400, 0].into_iter().enumerate() {
        hands.set(days);
        wait_for("the relay to notice the jump", NOTICE_TIMEOUT, || {
            let seen = stage.figure("relay_events_total{event=\"clock_jumped\"}")?;
            Ok((seen > jumps as u64).then_some(()))
        })
        .unwrap();
        // Clients whose clocks are right are not refused once the relay's is right or ahead; and
        // nobody loses anything in any case.
        if days >= 0 {
            leave(&stage, &mut carol, &dave, &mut lines);
            stage.talk().unwrap();
        }
        check_waiting(&stage, &dave, &lines);
    }
    stage.check().unwrap();

    // It starts with a clock that is wrong, which is set right after a while.
    for days in [40, -40] {
        hands.set(days);
        stage.site.kill_relay().unwrap();
        stage.site.start_relay().unwrap();
        check_waiting(&stage, &dave, &lines);
        if days > 0 {
            leave(&stage, &mut carol, &dave, &mut lines);
        } else {
            // To this relay she writes from the future (SPEC.md §8).
            let mut link = carol.log_in(&stage.dialer).unwrap();
            link.ask(&carol.message(&dave.account, b"from the future"), 501).unwrap();
        }
        hands.set(0);
        wait_for("the relay to notice the true time", NOTICE_TIMEOUT, || {
            Ok((stage.figure("relay_events_total{event=\"clock_jumped\"}")? > 0).then_some(()))
        })
        .unwrap();
        leave(&stage, &mut carol, &dave, &mut lines);
        check_waiting(&stage, &dave, &lines);
        stage.check().unwrap();
    }
}
