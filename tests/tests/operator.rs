//! `cipherim-relay ctl` as an administrator uses it: pages, exit status, and a reader that leaves.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use system::person::Person;
use system::site::Site;

fn ctl(site: &Site, arguments: &[&str]) -> Command {
    let mut command = site.program("cipherim-relay");
    command.arg("ctl").arg("--config").arg(site.relay_config()).args(arguments);
    command
}

fn run(site: &Site, arguments: &[&str]) -> Output {
    ctl(site, arguments).output().unwrap()
}

fn page(site: &Site, arguments: &[&str]) -> String {
    let output = run(site, arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_administrator_reads_pages_and_scripts_read_the_exit_status() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::build(folder.path(), "demo.local", "").unwrap();
    let mut alice = Person::enrol(&site, "alice").unwrap();
    alice.come().unwrap();

    let status = page(&site, &["status"]);
    assert!(status.starts_with("demo.local, relay 0.1.0: ready\n"), "{status}");
    assert!(status.contains("\nconnections     1, with 1 device\n"), "{status}");
    let users = page(&site, &["users"]);
    let lines: Vec<&str> = users.lines().collect();
    assert!(lines[0].starts_with("ACCOUNT           DEVICES"), "{users}");
    assert!(lines[1].starts_with("alice@demo.local  d1 (online)  record 1"), "{users}");
    assert!(lines[1].contains("Z (in 36"), "the record's end is a date: {users}");
    let invitation = page(&site, &["invite", "bob@demo.local"]);
    assert!(invitation.starts_with("cim:demo.local?relay="), "{invitation}");
    assert!(invitation.contains("lets bob@demo.local in, once, until 20"), "{invitation}");
    assert!(page(&site, &["spool"]).contains("lines taken and made durable"));
    assert!(page(&site, &["policy"]).contains("largest file    2.0 GiB\n"));

    let revoked = run(&site, &["revoke", "nobody@demo.local"]);
    assert_eq!(revoked.status.code(), Some(1), "{revoked:?}");
    assert_eq!(run(&site, &["revoke"]).status.code(), Some(2));
    let elsewhere = folder.path().join("elsewhere.sock");
    let unanswered = run(&site, &["--socket", elsewhere.to_str().unwrap(), "status"]);
    assert_eq!(unanswered.status.code(), Some(3), "{unanswered:?}");

    // Whoever reads only a line is no reason to fail.
    let mut child =
        ctl(&site, &["users"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");

    alice.leave().unwrap();
    let stopping = page(&site, &["shutdown"]);
    assert!(stopping.starts_with("The relay is stopping"), "{stopping}");
    site.stop_relay().unwrap();
    assert_eq!(run(&site, &["status"]).status.code(), Some(3));
}
