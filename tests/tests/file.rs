//! A file for somebody who is away, with real processes: kept by the relay over kill -9, taken
//! later, resumed over cuts; and what a person is told about it. SPEC.md §9.
#![allow(clippy::unwrap_used, missing_docs)]
#![allow(clippy::indexing_slicing, reason = "a JSON value gives null for what is not in it")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use system::person::Person;
use system::process::output;
use system::site::Site;

/// Octets of the large file: 512 chunks.
const LARGE: usize = 16 << 20;

/// Two people who know each other; bob's program does not run.
struct Pair {
    site: Site,
    alice: Person,
    bob: Person,
}

impl Pair {
    fn prepare(folder: &Path, overrides: &str) -> Self {
        let site = Site::build(folder, "demo.local", overrides).unwrap();
        let mut alice = Person::enrol(&site, "alice").unwrap();
        let mut bob = Person::enrol(&site, "bob").unwrap();
        alice.come().unwrap();
        bob.come().unwrap();
        alice.act(json!({"do": "add", "person": bob.address()})).unwrap();
        bob.expect("subscription", |event| event["person"] == json!(alice.address())).unwrap();
        bob.act(json!({"do": "approve", "person": alice.address()})).unwrap();
        alice.expect("roster", |event| event["approves_us"] == json!(true)).unwrap();
        bob.leave().unwrap();
        Self { site, alice, bob }
    }

    /// A file without repetition.
    fn sample(&self, name: &str, octets: usize) -> PathBuf {
        let path = self.site.folder().join(name);
        let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ octets as u64;
        let mut content = Vec::with_capacity(octets + 8);
        while content.len() < octets {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            content.extend_from_slice(&state.to_le_bytes());
        }
        content.truncate(octets);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn inbox(&self) -> PathBuf {
        let folder = self.site.folder().join("received");
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn restart_relay(&mut self) {
        self.site.kill_relay().unwrap();
        self.site.start_relay().unwrap();
    }

    /// Bob accepts the next file that he is offered; gives its id and where it will be.
    fn accept(&mut self) -> (Value, PathBuf) {
        let offer = self.bob.expect("file-offered", |_| true).unwrap();
        let (file, into) = (offer["file"].clone(), self.inbox());
        let accepted =
            self.bob.act(json!({"do": "file-accept", "file": file, "into": into})).unwrap();
        (file, PathBuf::from(accepted["path"].as_str().unwrap()))
    }
}

/// Whether a progress of a file has passed this percentage.
fn is_beyond(event: &Value, percent: u64) -> bool {
    let count = |name: &str| event[name].as_u64().unwrap_or_default();
    count("done_chunks") * 100 >= count("chunks") * percent
}

#[test]
fn a_file_for_somebody_away_survives_kills_and_cuts_and_is_taken_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(folder.path(), "");
    let source = pair.sample("holiday.bin", LARGE);
    let to = pair.bob.address().to_owned();

    // On its way to the relay the relay is killed, and the link is cut.
    pair.alice.act(json!({"do": "file-send", "to": to, "path": source})).unwrap();
    let kept =
        |percent| move |event: &Value| event["kept"] == json!(true) && is_beyond(event, percent);
    pair.alice.expect("file-progress", kept(25)).unwrap();
    pair.restart_relay();
    pair.alice.expect("online", |_| true).unwrap();
    pair.alice.expect("file-progress", kept(60)).unwrap();
    pair.site.wire().cut();
    pair.alice.expect("file-kept", |event| event["person"] == json!(to)).unwrap();
    let listed = pair.alice.act(json!({"do": "file-list"})).unwrap();
    assert_eq!(listed["sent"][0]["stage"], json!("kept"), "{listed}");

    // Alice leaves, and what she sent is not there any more.
    pair.alice.leave().unwrap();
    let content = std::fs::read(&source).unwrap();
    std::fs::remove_file(&source).unwrap();
    pair.restart_relay();

    // Bob comes; his link is cut, the relay is killed once more.
    pair.bob.come().unwrap();
    let (file, path) = pair.accept();
    pair.bob.expect("file-progress", |event| is_beyond(event, 25)).unwrap();
    pair.site.wire().cut();
    pair.bob.expect("online", |_| true).unwrap();
    pair.bob.expect("file-progress", |event| is_beyond(event, 60)).unwrap();
    pair.restart_relay();
    let done = pair.bob.expect("file-done", |event| event["file"] == file).unwrap();
    assert_eq!(done["verified"], json!(true));
    assert_eq!(std::fs::read(&path).unwrap(), content);

    // Nothing is left of it at the relay; alice learns of it when she comes.
    let figures = pair.site.ctl(&["spool"]).unwrap();
    pair.alice.come().unwrap();
    pair.alice.expect("file-done", |event| event["received"] == json!(false)).unwrap();
    let listed = pair.alice.act(json!({"do": "file-list"})).unwrap();
    assert_eq!(listed["sent"], json!([]), "{figures}");
    pair.alice.leave().unwrap();
    pair.bob.leave().unwrap();
}

#[test]
fn a_person_is_told_whether_the_relay_keeps_the_file() {
    let folder = tempfile::tempdir().unwrap();
    // Room for one file of a mebibyte, not for two.
    let mut pair = Pair::prepare(folder.path(), "[limits]\nfiles_size = \"1500 KiB\"\n");
    pair.alice.leave().unwrap();
    let first = pair.sample("first.bin", 1 << 20);
    let second = pair.sample("second.bin", 1_000_000);

    let mut send = pair.alice.cim();
    send.args(["file", "send", pair.bob.address()]).arg(&first);
    let told = output(&mut send).unwrap();
    assert!(told.contains("the relay keeps the file"), "{told}");
    let mut list = pair.alice.cim();
    let listed = output(list.args(["file", "list"])).unwrap();
    assert!(listed.contains("first.bin") && listed.contains("kept by the relay"), "{listed}");

    // For the second there is no room: it says so, and stays until bob takes it.
    let mut send = pair.alice.cim();
    send.args(["file", "send", pair.bob.address()]).arg(&second);
    let mut child = send.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = said.find(|line| line.as_ref().is_ok_and(|line| line.contains("no room")));
    let line = line.unwrap().unwrap();
    assert!(line.contains(pair.bob.address()) && line.contains("stay here"), "{line}");
    assert!(child.try_wait().unwrap().is_none(), "it waits");

    pair.bob.come().unwrap();
    for source in [&first, &second] {
        let (file, path) = pair.accept();
        pair.bob.expect("file-done", |event| event["file"] == file).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), std::fs::read(source).unwrap());
    }
    let ended = child.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success() && told.contains("The file is there"), "{told}");
    pair.bob.leave().unwrap();
}
