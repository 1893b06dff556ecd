//! `cim` when something is in its way: what is there is not overwritten, the exit status says
//! what kind of trouble it is, and a crash neither loses a message nor repeats more than one.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use system::person::{PATIENCE, Person};
use system::process::wait_for;
use system::site::{Site, program_path};
use system::stage::Stage;

/// Messages that come while their reader is killed again and again.
const MESSAGES: usize = 60;
/// Times that it is killed.
const KILLS: usize = 6;

/// The exit status, and everything that was printed.
fn outcome(command: &mut Command) -> (i32, String) {
    read(&command.stdin(Stdio::null()).output().unwrap())
}

fn read(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    (output.status.code().unwrap_or(-1), text)
}

/// A command must end with this status and say this.
fn expect(command: &mut Command, status: i32, words: &str) {
    let (ended, text) = outcome(command);
    assert!(ended == status && text.contains(words), "{command:?} ended with {ended}: {text}");
}

/// `cim init` into `home`, with alice's password.
fn init(site: &Site, link: &str, home: &Path, recovery: &Path) -> Command {
    let mut command = Command::new(program_path("cim"));
    command.arg("--home").arg(home);
    command.arg("--password-file").arg(site.folder().join("alice.password"));
    command.args(["init", link, "--address", "carol@demo.local", "--recovery-file"]);
    command.arg(recovery);
    command
}

#[test]
fn enrolling_overwrites_nothing_and_leaves_nothing_behind_when_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::build(folder.path(), "demo.local", "").unwrap();
    let alice = Person::enrol(&site, "alice").unwrap();
    let link = site.invite("carol@demo.local").unwrap();
    let key = std::fs::read(alice.home().join("key.json")).unwrap();
    let state = std::fs::read(alice.home().join("state.db")).unwrap();
    let phrase = folder.path().join("phrase");
    expect(&mut init(&site, &link, alice.home(), &phrase), 2, "they are not overwritten");
    assert_eq!(std::fs::read(alice.home().join("key.json")).unwrap(), key);
    assert_eq!(std::fs::read(alice.home().join("state.db")).unwrap(), state);
    assert!(!phrase.exists(), "a phrase for keys that were not made");

    // A phrase that is there belongs to other keys.
    let home = folder.path().join("carol");
    std::fs::write(&phrase, "another phrase").unwrap();
    expect(&mut init(&site, &link, &home, &phrase), 2, "cannot write the phrase");
    assert_eq!(std::fs::read(&phrase).unwrap(), b"another phrase");
    assert!(!home.join("key.json").exists());
    let phrase = folder.path().join("carol.phrase");

    // A wrong invitation is refused, and what was made for it goes away again.
    let (before, after) = link.split_once("invite=").unwrap();
    let wrong = format!("{before}invite=wrong{}", after.find('&').map_or("", |end| &after[end..]));
    expect(&mut init(&site, &wrong, &home, &phrase), 5, "refused");
    assert!(!home.join("key.json").exists() && !home.join("state.db").exists());
    assert!(!phrase.exists());
    // The right one then works, once.
    expect(&mut init(&site, &link, &home, &phrase), 0, "You are carol@demo.local");
    assert_eq!(std::fs::metadata(&phrase).unwrap().permissions().mode() & 0o777, 0o600);
    let other = folder.path().join("other");
    let phrase = folder.path().join("other.phrase");
    expect(&mut init(&site, &link, &other, &phrase), 5, "refused");
    site.check_logs().unwrap();
}

#[test]
fn the_exit_status_says_what_kind_of_trouble_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::set(folder.path(), "").unwrap();
    let help = outcome(Command::new(program_path("cim")).arg("--help")).1;
    let words = "Exit status: 0 done, 2 wrong usage, 4 try later, 5 refused, 6 the person is busy,\n\
                 7 a key or signature does not hold, 70 a fault in this program, 130 stopped";
    assert!(help.contains(words), "{help}");
    let page = outcome(Command::new(program_path("cim")).arg("manual")).1;
    assert!(page.contains("Exit status: 0 done, 2 wrong usage"), "{page}");

    // 4: another process uses the device.
    expect(stage.alice.cim().arg("recv"), 4, "uses this device");
    stage.alice.leave().unwrap();
    // 0.
    expect(stage.alice.cim().args(["send", "bob@demo.local", "hello"]), 0, "");
    stage.bob.expect("message", |event| event["text"] == json!("hello")).unwrap();
    expect(stage.alice.cim().arg("doctor"), 0, "Nothing is wrong.");
    // 2: usage, and what is on this machine.
    expect(stage.alice.cim().args(["send", "Not@An@Address", "x"]), 2, "");
    expect(stage.alice.cim().args(["send", "bob@demo.local", ""]), 2, "nothing to send");
    expect(stage.alice.cim().arg("--no-such-option"), 2, "unexpected argument");
    let nowhere = folder.path().join("nowhere");
    expect(Command::new(program_path("cim")).arg("--home").arg(&nowhere).arg("recv"), 2, "no keys");
    let password = folder.path().join("wrong");
    let with_password = |text: &str, mode: u32, words: &str| {
        std::fs::write(&password, text).unwrap();
        std::fs::set_permissions(&password, Permissions::from_mode(mode)).unwrap();
        let mut command = Command::new(program_path("cim"));
        command.arg("--home").arg(stage.alice.home());
        command.arg("--password-file").arg(&password).arg("recv");
        expect(&mut command, 2, words);
    };
    with_password("not the password at all", 0o600, "the password is wrong");
    with_password("not the password at all", 0o644, "others may read it");
    with_password("\n", 0o600, "is empty");
    // 5: the relay refuses.
    expect(stage.alice.cim().args(["send", "nobody@demo.local", "x"]), 5, "no such user");
    expect(stage.alice.cim().args(["send", "bob@elsewhere.example", "x"]), 5, "");
    // 6: busy, and nobody to choose.
    stage.bob.act(json!({"do": "presence", "state": "busy"})).unwrap();
    expect(stage.alice.cim().args(["send", "bob@demo.local", "later?"]), 6, "busy");
    stage.bob.act(json!({"do": "presence", "state": "available"})).unwrap();
    stage.site.check_relay().unwrap();
    stage.site.check_logs().unwrap();

    // 4: no relay; 7: one with another key.
    stage.bob.leave().unwrap();
    stage.site.stop_relay().unwrap();
    expect(stage.alice.cim().arg("recv"), 4, "");
    let stranger = TcpListener::bind(stage.site.relay_address()).unwrap();
    std::thread::spawn(move || serve_with_another_key(&stranger));
    expect(stage.alice.cim().arg("recv"), 7, "another key than the one pinned");
    // 70: what only this program writes is not what it wrote.
    std::fs::write(stage.alice.home().join("state.db"), [7; 8_192]).unwrap();
    expect(stage.alice.cim().arg("recv"), 70, "the state file");
}

/// A TLS server in the relay's place.
fn serve_with_another_key(listener: &TcpListener) {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["demo.local".to_owned()]).unwrap();
    let certificate = parameters.self_signed(&pair).unwrap().der().clone();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(pair.serialize_der());
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut configuration = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    configuration.alpn_protocols = vec![b"cim1".to_vec()];
    let configuration = std::sync::Arc::new(configuration);
    for mut socket in listener.incoming().flatten() {
        let mut tls = rustls::ServerConnection::new(configuration.clone()).unwrap();
        // The client hangs up as soon as it sees the key.
        while tls.is_handshaking() && tls.complete_io(&mut socket).is_ok() {}
    }
}

#[test]
fn without_a_relay_a_message_and_an_enrolment_wait_and_then_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::set(folder.path(), "").unwrap();
    let link = stage.site.invite("carol@demo.local").unwrap();
    stage.alice.leave().unwrap();
    stage.site.stop_relay().unwrap();
    let (home, phrase) = (folder.path().join("carol"), folder.path().join("carol.phrase"));
    let start = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // Both give up only after a minute, so they wait together.
    let enrolling = start(&mut init(&stage.site, &link, &home, &phrase));
    let sending = start(stage.alice.cim().args(["send", "bob@demo.local", "into the void"]));
    let (status, text) = read(&enrolling.wait_with_output().unwrap());
    assert!(status == 4 && text.contains("Your keys are kept"), "{status}: {text}");
    let (status, text) = read(&sending.wait_with_output().unwrap());
    assert!(status == 4 && text.contains("written down"), "{status}: {text}");

    stage.site.start_relay().unwrap();
    let mut command = Command::new(program_path("cim"));
    command.arg("--home").arg(&home);
    command.arg("--password-file").arg(folder.path().join("alice.password")).arg("doctor");
    expect(&mut command, 0, "Nothing is wrong.");
    stage.alice.come().unwrap();
    stage.bob.expect("message", |event| event["text"] == json!("into the void")).unwrap();
    stage.check().unwrap();
}

/// The lines of messages in what a reader printed; a last line that was cut is none.
fn messages(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|value| value["event"] == json!("message"))
        .collect()
}

#[test]
fn a_reader_that_is_killed_loses_nothing_and_repeats_at_most_what_it_showed_last() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::set(folder.path(), "").unwrap();
    stage.bob.leave().unwrap();
    let texts: Vec<String> = (0..MESSAGES).map(|number| format!("number {number:02}")).collect();
    for text in &texts {
        stage.alice.say("bob@demo.local", text).unwrap();
    }
    let mut shown: Vec<Vec<Value>> = Vec::new();
    for kill in 0..=KILLS {
        let path = folder.path().join(format!("shown.{kill}"));
        let output = File::create(&path).unwrap();
        let mut command = stage.bob.cim();
        // Every other reader is a program that keeps its pipe open.
        let words: &[&str] =
            if kill % 2 == 0 { &["recv", "--json", "--follow"] } else { &["pipe"] };
        command.args(words).stdin(Stdio::piped()).stdout(output);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let before: usize = shown.iter().map(Vec::len).sum();
        let wanted = if kill == KILLS { MESSAGES.saturating_sub(before) } else { 1 };
        wait_for("messages", PATIENCE, || Ok((messages(&path).len() >= wanted).then_some(())))
            .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        shown.push(messages(&path));
    }
    // The last look, in order: nothing is left but what the last kill may have made uncertain.
    let last = folder.path().join("shown.last");
    let mut command = stage.bob.cim();
    command.args(["recv", "--json"]).stdout(File::create(&last).unwrap());
    assert!(command.status().unwrap().success());
    shown.push(messages(&last));

    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut end_of_run: Option<String> = None;
    for run in &shown {
        for (place, value) in run.iter().enumerate() {
            let text = value["text"].as_str().unwrap().to_owned();
            let is_repeat = seen.contains_key(&text);
            let may_repeat = place == 0 && end_of_run.as_ref() == Some(&text);
            assert!(!is_repeat || may_repeat, "{text} was shown again: {shown:?}");
            *seen.entry(text).or_default() += 1;
        }
        if let Some(value) = run.last() {
            end_of_run = value["text"].as_str().map(str::to_owned);
        }
    }
    let all: Vec<&String> = seen.keys().collect();
    assert!(all.iter().copied().eq(&texts), "lost: {shown:?}");
    std::io::stdout().flush().unwrap();
    println!("shown in runs of {:?}", shown.iter().map(Vec::len).collect::<Vec<_>>());
    stage.bob.come().unwrap();
    stage.check().unwrap();
}
