//! `cim` as a person uses it: on a terminal, with keys, interrupts and pipes that break.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::json;
use system::person::{PATIENCE, Person};
use system::process::wait_for;
use system::site::{Site, program_path};
use system::terminal::Terminal;

/// A site with alice and bob, who have approved each other; bob is there.
fn friends(folder: &Path) -> (Site, Person, Person) {
    let site = Site::build(folder, "demo.local", "").unwrap();
    let mut alice = Person::enrol(&site, "alice").unwrap();
    let mut bob = Person::enrol(&site, "bob").unwrap();
    alice.come().unwrap();
    bob.come().unwrap();
    befriend(&mut alice, &mut bob);
    befriend(&mut bob, &mut alice);
    alice.leave().unwrap();
    (site, alice, bob)
}

/// One asks to be the other's contact and is approved.
fn befriend(one: &mut Person, other: &mut Person) {
    // A name without a domain is of one's own, in a pipe as well.
    one.act(json!({"do": "add", "person": other.name()})).unwrap();
    other.expect("subscription", |_| true).unwrap();
    other.act(json!({"do": "approve", "person": one.name()})).unwrap();
    one.expect("approved", |_| true).unwrap();
}

/// Every notice of typing that bob saw so far: whether somebody types.
fn typing(bob: &mut Person) -> Vec<bool> {
    let history = bob.history().iter();
    let notices = history.filter(|event| event["event"] == json!("typing"));
    notices.map(|event| event["active"] == json!(true)).collect()
}

/// `cim chat bob` of alice on a terminal, connected.
fn chat(alice: &Person) -> Terminal {
    let mut command = alice.cim();
    command.args(["chat", "bob"]);
    let mut terminal = Terminal::start(command).unwrap();
    terminal.see("-- connected").unwrap();
    terminal.see_last(">").unwrap();
    terminal
}

#[test]
fn what_comes_in_leaves_the_line_being_typed_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (_site, alice, mut bob) = friends(folder.path());
    let mut terminal = chat(&alice);

    terminal.type_keys("half typed").unwrap();
    terminal.see_last("> half typed").unwrap();
    bob.expect("typing", |event| event["active"] == json!(true)).unwrap();
    bob.say("alice", "hello in between").unwrap();
    let rows = terminal.see("bob@demo.local: hello in between").unwrap();
    let place = rows.iter().position(|row| row == "bob@demo.local: hello in between").unwrap();
    assert_eq!(rows[place + 1..], ["> half typed"], "{rows:?}");
    terminal.type_keys(" and sent\r").unwrap();
    assert_eq!(bob.hear().unwrap()["text"], "half typed and sent");
    terminal.see("> half typed and sent").unwrap();

    // What a peer writes moves no cursor and passes for no line of the program's own.
    bob.say("alice", "red \u{1b}[2J\u{1b}[31m\u{9b}2J\nbob@demo.local: not from bob").unwrap();
    let rows = terminal.see("not from bob").unwrap();
    assert!(rows.iter().any(|row| row == "> half typed and sent"), "{rows:?}");
    assert!(rows.iter().any(|row| row == "    bob@demo.local: not from bob"), "{rows:?}");
    assert!(!terminal.written().contains("\u{1b}[2J"), "the escape reached the terminal");

    // Lines typed ahead are all taken, each once and in order.
    terminal.type_keys("one\rtwo\rthree\r").unwrap();
    for text in ["one", "two", "three"] {
        assert_eq!(bob.hear().unwrap()["text"], text);
    }
    // A text pasted with its line ends is one message.
    terminal.type_keys("\u{1b}[200~first\nsecond\u{1b}[201~\r").unwrap();
    assert_eq!(bob.hear().unwrap()["text"], "first\nsecond");

    terminal.type_keys("\u{4}").unwrap();
    assert_eq!(terminal.end_code().unwrap(), 0);
    bob.leave().unwrap();
}

#[test]
fn typing_and_receipts_are_told_without_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let (_site, alice, mut bob) = friends(folder.path());
    let mut terminal = chat(&alice);
    bob.act(json!({"do": "presence", "state": "available"})).unwrap();
    terminal.see("-- bob@demo.local is available").unwrap();
    // The first message makes a session, which is told.
    terminal.type_keys("hello\r").unwrap();
    terminal.see_last(">   delivered").unwrap();
    terminal.type_keys("x").unwrap();
    terminal.see("> x ").unwrap();
    terminal.type_keys("\u{3}").unwrap();
    terminal.see_last(">   delivered").unwrap();
    let lines = terminal.rows().len();

    bob.act(json!({"do": "typing", "to": "alice", "active": true})).unwrap();
    terminal.see_last(">   bob is typing \u{2026}").unwrap();
    bob.act(json!({"do": "typing", "to": "alice", "active": false})).unwrap();
    terminal.see_last(">   delivered").unwrap();
    assert_eq!(terminal.rows().len(), lines, "nothing was left behind: {:?}", terminal.rows());

    // Bob's program confirms what it shows, and does not say that anybody read it.
    terminal.type_keys("did you get this?\r").unwrap();
    terminal
        .wait("the message, delivered", |rows| {
            rows.contains(&"> did you get this?".to_owned())
                && rows.last().is_some_and(|row| row == ">   delivered")
        })
        .unwrap();
    assert_eq!(terminal.rows().len(), lines + 1, "only the message itself: {:?}", terminal.rows());

    bob.expect("message", |event| event["text"] == "did you get this?").unwrap();

    // A line that is erased is not being typed any more.
    let before = typing(&mut bob);
    terminal.type_keys("x").unwrap();
    terminal.see("> x ").unwrap();
    terminal.type_keys("\u{7f}").unwrap();
    let stopped = wait_for("the end of typing", PATIENCE, || {
        Ok(Some(typing(&mut bob)).filter(|told| told.len() >= before.len() + 2))
    })
    .unwrap();
    assert_eq!(stopped[before.len()..], [true, false]);
    // A command is nobody else's business.
    terminal.type_keys("/help\r").unwrap();
    terminal.see("/hold  /urgent").unwrap();
    terminal.type_keys("behind the command\r").unwrap();
    bob.expect("message", |event| event["text"] == "behind the command").unwrap();
    let told = typing(&mut bob);
    let of_text = told[stopped.len()..].iter().filter(|active| **active).count();
    assert!(of_text <= 1, "only of the text behind the command: {told:?}");

    bob.leave().unwrap();
    terminal.see("-- bob@demo.local is offline").unwrap();
    terminal.type_keys("are you gone?\r").unwrap();
    terminal.see("-- with the relay: bob@demo.local is not connected").unwrap();
    terminal.type_keys("still?\r").unwrap();
    let rows = terminal.see_last(">   with the relay").unwrap();
    let told = rows.iter().filter(|row| row.starts_with("-- with the relay")).count();
    assert_eq!(told, 1, "once for each absence: {rows:?}");
    terminal.type_keys("/quit\r").unwrap();
    assert_eq!(terminal.end_code().unwrap(), 0);
}

#[test]
fn somebody_busy_is_disturbed_only_by_choice() {
    let folder = tempfile::tempdir().unwrap();
    let (_site, alice, mut bob) = friends(folder.path());
    bob.act(json!({"do": "urgent", "person": "alice", "allow": true})).unwrap();
    bob.act(json!({"do": "presence", "state": "busy"})).unwrap();
    let mut terminal = chat(&alice);
    let asked = |rows: &[String]| rows.iter().filter(|row| row.contains("is busy: /hold")).count();

    terminal.type_keys("this can wait\r").unwrap();
    terminal.wait("the question", |rows| asked(rows) == 1).unwrap();
    terminal.type_keys("/hold\r").unwrap();
    terminal.see("-- with the relay").unwrap();
    terminal.type_keys("/hold\r").unwrap();
    terminal.see("-- no message waits for a choice").unwrap();
    terminal.type_keys("the house is on fire\r").unwrap();
    terminal.wait("the second question", |rows| asked(rows) == 2).unwrap();
    terminal.type_keys("/urgent\r").unwrap();
    assert_eq!(bob.hear().unwrap()["text"], "the house is on fire");
    bob.act(json!({"do": "presence", "state": "available"})).unwrap();
    assert_eq!(bob.hear().unwrap()["text"], "this can wait");

    // Whoever ends without a choice is told so, and asked again the next time.
    bob.act(json!({"do": "presence", "state": "busy"})).unwrap();
    terminal.type_keys("undecided\r").unwrap();
    terminal.wait("the third question", |rows| asked(rows) == 3).unwrap();
    terminal.type_keys("\u{4}").unwrap();
    assert_eq!(terminal.end_code().unwrap(), 6);
    terminal.see("1 message waits for your choice").unwrap();
    let mut terminal = chat(&alice);
    terminal.wait("the question again", |rows| asked(rows) == 1).unwrap();
    terminal.type_keys("/urgent\r").unwrap();
    assert_eq!(bob.hear().unwrap()["text"], "undecided");
    terminal.type_keys("\u{4}").unwrap();
    assert_eq!(terminal.end_code().unwrap(), 0);
    bob.leave().unwrap();
}

#[test]
fn interrupts_clear_the_line_or_end_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (_site, alice, mut bob) = friends(folder.path());
    let mut terminal = chat(&alice);
    assert!(!terminal.is_as_before().unwrap(), "keys are read one by one");

    terminal.type_keys("not for bob").unwrap();
    terminal.see_last("> not for bob").unwrap();
    terminal.type_keys("\u{3}").unwrap();
    terminal.see_last(">").unwrap();
    terminal.type_keys("for bob\r").unwrap();
    assert_eq!(bob.hear().unwrap()["text"], "for bob");
    terminal.type_keys("\u{3}").unwrap();
    assert_eq!(terminal.end_code().unwrap(), 0);
    assert_eq!(bob.heard(), ["for bob"]);

    // Asked from outside, in the middle of a line, it ends as cleanly.
    for signal in [Signal::TERM, Signal::HUP] {
        let mut terminal = chat(&alice);
        terminal.type_keys("half").unwrap();
        terminal.see_last("> half").unwrap();
        terminal.signal(signal).unwrap();
        assert_eq!(terminal.end_code().unwrap(), 0, "{signal:?}");
    }

    // At a prompt for the password the echo comes back.
    for (keys, signal, code) in [("\u{3}", None, 130), ("", Some(Signal::TERM), 130)] {
        let mut command = Command::new(program_path("cim"));
        command.arg("--home").arg(alice.home()).args(["chat", "bob"]);
        let mut terminal = Terminal::start(command).unwrap();
        terminal.see("Password of alice@demo.local:").unwrap();
        assert!(!terminal.is_as_before().unwrap(), "keys are read without an echo");
        terminal.type_keys("secret").unwrap();
        terminal.type_keys(keys).unwrap();
        if let Some(signal) = signal {
            terminal.signal(signal).unwrap();
        }
        assert_eq!(terminal.end_code().unwrap(), code);
        assert!(!terminal.written().contains("secret"));
    }
    bob.leave().unwrap();
}

#[test]
fn enrolling_shows_the_strength_of_a_password_and_never_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::build(folder.path(), "demo.local", "").unwrap();
    let home = folder.path().join("carol");
    let init = |home: &Path, link: &str| {
        let mut command = Command::new(program_path("cim"));
        command.arg("--home").arg(home).args(["init", link]);
        Terminal::start(command).unwrap()
    };
    let link = site.invite("carol@demo.local").unwrap();

    // Nothing is left behind by somebody who changes their mind.
    let mut terminal = init(&home, &link);
    terminal.see("Your address, such as alice@demo.local:").unwrap();
    terminal.type_keys("carol\r").unwrap();
    terminal.see("Password: ").unwrap();
    terminal.type_keys("\u{3}").unwrap();
    assert_eq!(terminal.end_code().unwrap(), 130);
    assert!(!home.join("key.json").exists());

    let mut terminal = init(&home, &link);
    terminal.see("Your address").unwrap();
    terminal.type_keys("carol\r").unwrap();
    terminal.see("Password: .................... type").unwrap();
    terminal.type_keys("kettle").unwrap();
    terminal.see("too weak").unwrap();
    terminal.type_keys("\r").unwrap();
    terminal.see("Too weak: score").unwrap();
    let password = "nine brass kettles hum at dusk";
    terminal.type_keys(password).unwrap();
    terminal.see("#################### strong").unwrap();
    terminal.type_keys("\r").unwrap();
    terminal.see("Again:").unwrap();
    terminal.type_keys("something else\r").unwrap();
    terminal.see("These were two different passwords.").unwrap();
    terminal.type_keys(&format!("{password}\r")).unwrap();
    terminal
        .wait("the second question", |rows| {
            rows.iter().filter(|row| row.starts_with("Again:")).count() == 2
        })
        .unwrap();
    terminal.type_keys(&format!("{password}\r")).unwrap();
    terminal.see("Your recovery phrase.").unwrap();
    terminal.see("You are carol@demo.local.").unwrap();
    assert_eq!(terminal.end_code().unwrap(), 0);
    let written = terminal.written();
    // None of these is a word of the recovery phrase, which is shown.
    for hidden in [password, "kettles", "at dusk", "something else"] {
        assert!(!written.contains(hidden), "{hidden:?} is on the screen");
    }
}

#[test]
fn what_nobody_read_or_was_told_comes_once_more_and_only_that() {
    let folder = tempfile::tempdir().unwrap();
    let (_site, mut alice, mut bob) = friends(folder.path());
    for text in ["one", "two", "three"] {
        assert_eq!(bob.say("alice", text).unwrap()["code"], 252);
    }
    // As `cim recv | head -1` does: it takes one line and goes.
    let mut child =
        alice.cim().arg("recv").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "bob@demo.local: one\n");
    drop(reader);
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    let rest = alice.cim().arg("recv").output().unwrap();
    let rest = String::from_utf8(rest.stdout).unwrap();
    let texts: Vec<&str> = rest.lines().collect();
    // Of the second nobody knows whether it was seen: it stood in a pipe that broke.
    assert_eq!(texts.len(), 2, "{rest}");
    assert!(texts[0].starts_with("bob@demo.local: two"), "{rest}");
    assert!(texts[1].starts_with("bob@demo.local: three"), "{rest}");

    // A refusal that was told is not told again.
    let refused = alice.cim().args(["send", "nobody", "hello?"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    assert_eq!(String::from_utf8_lossy(&refused.stderr), "cim: no such user\n");
    let again = alice.cim().arg("recv").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&again.stdout), "");
    // What arrives while another command runs is news to whoever looks next.
    assert_eq!(bob.say("alice", "while you list").unwrap()["code"], 252);
    assert!(alice.cim().args(["roster", "list"]).output().unwrap().status.success());
    let seen = alice.cim().arg("recv").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "bob@demo.local: while you list\n");

    // Ctrl-C ends what follows, with success.
    let mut command = alice.cim();
    command.args(["recv", "--follow"]);
    let mut terminal = Terminal::start(command).unwrap();
    terminal.see("connected").unwrap();
    terminal.type_keys("\u{3}").unwrap();
    assert_eq!(terminal.end_code().unwrap(), 0);
    bob.leave().unwrap();
    alice.come().unwrap();
    alice.leave().unwrap();
}
