//! Lines with every kind of fault, generated from the table of commands.
//!
//! Each is refused with the code that SPEC.md gives for its fault, and the link lives on.

use std::collections::BTreeMap;

use protocol::Code;
use protocol::limits::{LINE_OCTETS_MAX, PARAMETERS_MAX, VALUE_OCTETS_MAX};
use protocol::signature::Signer as _;
use protocol::table::{Constraint, Kind, ROWS, Row, Shape, Slot, State};
use system::device::Device;
use system::link::{Heard, Link};
use system::stage::Stage;

const ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const HASH: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// Lines sent before their answers are read.
const LINES_AT_ONCE: usize = 50;

/// A value that the kind takes, and one that it does not.
fn values(kind: Kind) -> (String, String) {
    let (good, bad) = match kind {
        Kind::Account => ("bob@demo.local", "bob@demo.local/d1"),
        Kind::Accounts => ("alice@demo.local", "bob@demo.local,alice@demo.local"),
        Kind::Algorithm => ("ed25519", "rsa"),
        Kind::Base64(_) | Kind::Signature => ("AAAA", "AAAAA"),
        Kind::Capabilities => ("LINE:65536", "line"),
        Kind::Device => ("d1", "D1"),
        Kind::Flag => ("1", "2"),
        Kind::Hash => (HASH, ID),
        Kind::Id => (ID, HASH),
        Kind::MessageIds => (ID, "x"),
        Kind::Numbers => ("1,3", "3,1"),
        Kind::Part => ("2/2", "3/2"),
        Kind::Previous => ("0", "1"),
        Kind::Range(first, _) => return (first.to_string(), "-1".to_owned()),
        Kind::ReplyCode => ("553", "100"),
        Kind::Role => ("user", "root"),
        Kind::Suite => ("M1", "M9"),
        Kind::Suites => ("M1,M2", "M1,M1"),
        Kind::Text(_) => ("x", ""),
        Kind::Time => ("1795469246123", "01"),
        Kind::Versions => ("1", "one"),
        Kind::Word(words) | Kind::Words(words) => return (words[0].to_owned(), "never".to_owned()),
        other => panic!("{other:?} is new: say here what it takes"),
    };
    (good.to_owned(), bad.to_owned())
}

/// The parts of a line.
#[derive(Clone)]
struct Parts {
    code: Code,
    to: Option<String>,
    from: Option<String>,
    parameters: Vec<(String, String)>,
    body: Option<String>,
    signature: Option<String>,
}

impl Parts {
    /// A line of this command with what it must have and nothing else, from `device`.
    fn new(row: &Row, device: &str) -> Self {
        let address = |shape: Shape| {
            let (account, _) = device.split_once('/').unwrap();
            let (_, domain) = account.split_once('@').unwrap();
            if shape.device {
                Some(device.to_owned())
            } else if shape.account {
                Some(account.to_owned())
            } else if shape.domain {
                Some(domain.to_owned())
            } else {
                None
            }
        };
        let has_signature = row.signature == Slot::Required;
        let has_body = row.body == Slot::Required;
        let is_wanted = |name: &str| {
            row.constraints.iter().any(|constraint| match constraint {
                Constraint::OneOf(names) => names.first() == Some(&name),
                Constraint::WithSignature(it) => *it == name && has_signature,
                Constraint::WithBody(it) => *it == name && has_body,
                Constraint::Needs(..) => false,
            })
        };
        let parameters = row
            .parameters
            .iter()
            .filter(|rule| rule.is_required || is_wanted(rule.name))
            .map(|rule| (rule.name.to_owned(), values(rule.kind).0))
            .collect();
        Self {
            code: row.code,
            to: address(row.to),
            from: address(row.from),
            parameters,
            body: has_body.then(|| "AAAA".to_owned()),
            signature: has_signature.then(|| "AAAA".to_owned()),
        }
    }

    fn text(&self) -> String {
        let mut words = vec![self.code.to_string()];
        for (keyword, address) in [("TO", &self.to), ("FROM", &self.from)] {
            words.extend(address.iter().map(|address| format!("{keyword} {address}")));
        }
        words.extend(self.parameters.iter().map(|(name, value)| format!("{name}={value}")));
        match (&self.body, &self.signature) {
            (None, None) => {}
            (body, signature) => {
                words.push(body.clone().unwrap_or_else(|| "-".to_owned()));
                words.extend(signature.clone());
            }
        }
        words.join(" ")
    }

    fn without(&self, name: &str) -> Self {
        let mut parts = self.clone();
        parts.parameters.retain(|(it, _)| it != name);
        parts
    }

    fn with(&self, name: &str, value: &str) -> Self {
        let mut parts = self.without(name);
        parts.parameters.push((name.to_owned(), value.to_owned()));
        parts
    }
}

/// A line with a fault, and the code of its answer.
type Case = (Vec<u8>, u16);

/// Every fault in the parts of a command.
fn faults_of_parts(row: &Row, device: &str) -> Vec<Case> {
    let good = Parts::new(row, device);
    let mut cases: Vec<(Parts, u16)> = Vec::new();
    for rule in row.parameters {
        let (value, bad) = values(rule.kind);
        let has = good.parameters.iter().any(|(name, _)| name == rule.name);
        cases.push((good.with(rule.name, &bad), 501));
        cases.push((good.with(rule.name, &"A".repeat(VALUE_OCTETS_MAX * 3)), 501));
        cases.push((good.with(rule.name, "%41"), 501));
        cases.push((good.with(rule.name, "\"quoted\""), 501));
        let mut twice = good.with(rule.name, &value);
        twice.parameters.push((rule.name.to_owned(), value));
        cases.push((twice, 501));
        if has {
            cases.push((good.without(rule.name), 501));
        }
    }
    let mut many = good.clone();
    for number in 0..=PARAMETERS_MAX - good.parameters.len() {
        many.parameters.push((format!("X-{number}"), "1".to_owned()));
    }
    cases.push((many, 501));
    cases.push((good.with("lower", "1"), 501));
    cases.push((good.with("H-ID", &"x".repeat(33)), 501));
    cases.push((good.with("H-ID", ""), 501));

    if !row.to.none {
        cases.push((Parts { to: None, ..good.clone() }, 510));
    } else if good.to.is_none() {
        cases.push((Parts { to: Some("demo.local".to_owned()), ..good.clone() }, 510));
    }
    if !row.from.none && good.body.is_none() && good.signature.is_none() {
        cases.push((Parts { from: None, ..good.clone() }, 510));
    }
    for bad in ["Alice@demo.local", "alice@", "@demo.local", "alice@demo..local/d1"] {
        if good.from.is_some() {
            cases.push((Parts { from: Some(bad.to_owned()), ..good.clone() }, 510));
        }
    }
    let is_login = row.states.iter().all(|state| *state < State::Registering);
    if good.from.is_some() && !is_login {
        let other = good.from.clone().map(|from| from.replace("carol", "alice"));
        if other != good.from {
            cases.push((Parts { from: other, ..good.clone() }, 521));
        }
    }

    match row.body {
        Slot::Required => cases.push((Parts { body: None, ..good.clone() }, 500)),
        Slot::Absent if row.signature == Slot::Absent && good.from.is_some() => {
            cases.push((Parts { body: Some("AAAA".to_owned()), ..good.clone() }, 500));
        }
        _ => {}
    }
    if row.signature == Slot::Required {
        cases.push((Parts { signature: None, ..good.clone() }, 500));
    }
    if good.from.is_some() && (good.body.is_some() || good.signature.is_some()) {
        for bad in ["AAAA=", "AAA-", "AB", "A"] {
            let mut parts = good.clone();
            if parts.body.is_some() {
                parts.body = Some(bad.to_owned());
            } else {
                parts.signature = Some(bad.to_owned());
            }
            cases.push((parts, 500));
        }
    }
    cases.into_iter().map(|(parts, code)| (parts.text().into_bytes(), code)).collect()
}

/// Faults in the octets of a line that would be good.
fn faults_of_octets(good: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let middle = good.find(' ').unwrap_or(good.len());
    for octets in [&b"\0"[..], b"\n", b"\r", b"\xFF", b"\xC3\xA9", b" "] {
        for place in [0, middle, good.len()] {
            let mut line = good.as_bytes().to_vec();
            line.splice(place..place, octets.iter().copied());
            cases.push((line, 500));
        }
    }
    cases.push((format!("\t{good}").into_bytes(), 500));
    cases
}

/// The codes that no command has.
fn unknown_codes() -> Vec<Case> {
    (0..1_000)
        .filter_map(Code::new)
        .filter(|code| !code.is_reply() && Row::find(*code).is_none())
        .map(|code| (format!("{code} FROM carol@demo.local/d1").into_bytes(), 502))
        .collect()
}

/// Sends all lines and compares the codes of the answers, in order.
fn try_all(link: &mut Link, cases: &[Case]) {
    for cases in cases.chunks(LINES_AT_ONCE) {
        let octets: Vec<u8> =
            cases.iter().flat_map(|(line, _)| [&line[..], b"\r\n"].concat()).collect();
        link.send(&octets).unwrap();
        for (line, code) in cases {
            let reply = link.reply().unwrap();
            let shown: String = String::from_utf8_lossy(line).chars().take(200).collect::<String>();
            assert!(reply.starts_with(&code.to_string()), "{shown:?} got not {code} but {reply}");
        }
    }
    link.ask("015 H-ID=alive", 250).unwrap();
}

/// A link in each state of a login.
fn links(stage: &Stage, carol: &Device) -> BTreeMap<State, Link> {
    let mut links = BTreeMap::new();
    let key = protocol::base64::encode(carol.key.public_key().as_octets());
    let hello = |link: &mut Link, device: &str| {
        link.ask(&format!("010 FROM {device} VER=1"), 250).unwrap();
    };
    let device = carol.device.as_str();
    links.insert(State::Connected, stage.dialer.greeted().unwrap());
    let mut link = stage.dialer.greeted().unwrap();
    hello(&mut link, device);
    links.insert(State::Greeted, link);
    let mut link = stage.dialer.greeted().unwrap();
    hello(&mut link, device);
    link.ask(&format!("011 FROM {device} ALG=ed25519 {key}"), 334).unwrap();
    links.insert(State::Identified, link);
    links.insert(State::Registering, carol.impostor(&stage.dialer).unwrap());
    links.insert(State::Proven, carol.resume(&stage.dialer, 0).unwrap());
    links
}

#[test]
fn every_fault_of_a_line_is_answered_with_its_code_and_the_link_lives() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::set(folder.path(), "[limits]\nlogin = \"10min\"\n").unwrap();
    let carol = Device::enrol(&stage.site, &stage.dialer, "carol").unwrap();
    let device = carol.device.as_str().to_owned();
    let mut count = 0;
    for (state, mut link) in links(&stage, &carol) {
        let mut cases = unknown_codes();
        for row in ROWS {
            let good = Parts::new(row, &device).text();
            if !row.from_client {
                cases.push((good.into_bytes(), 503));
            } else if !row.states.contains(&state) {
                let is_login = row.states.iter().all(|state| *state < State::Registering);
                let is_early = state != State::Proven && !is_login;
                cases.push((good.into_bytes(), if is_early { 530 } else { 503 }));
            } else {
                cases.extend(faults_of_parts(row, &device));
                cases.extend(faults_of_octets(&good));
            }
        }
        count += cases.len();
        try_all(&mut link, &cases);
        // An empty line, and one of a space.
        try_all(&mut link, &[(Vec::new(), 500), (b" ".to_vec(), 500)]);
        // A reply has no place here, and is not answered.
        link.send(b"250 :done\r\n250-H-ID=1 :more\r\n").unwrap();
        link.ask("015 H-ID=behind", 250).unwrap();
    }
    println!("{count} lines with a fault");
    stage.check().unwrap();
}

#[test]
fn lines_up_to_the_limit_are_read_and_longer_ones_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::set(folder.path(), "").unwrap();
    let carol = Device::enrol(&stage.site, &stage.dialer, "carol").unwrap();
    let mut link = carol.resume(&stage.dialer, 0).unwrap();
    let line = |octets: usize| {
        let mut line = b"015 ".to_vec();
        line.resize(octets - 2, b'x');
        line.extend_from_slice(b"\r\n");
        line
    };
    // At the limit the line is read, and its fault is another one.
    link.send(&line(LINE_OCTETS_MAX)).unwrap();
    link.expect(500).unwrap();
    for octets in [LINE_OCTETS_MAX + 1, 2 * LINE_OCTETS_MAX, 4 << 20] {
        link.send(&line(octets)).unwrap();
        link.expect(556).unwrap();
        link.ask("015 H-ID=behind", 250).unwrap();
    }
    // Cut anywhere, a line is the same line.
    for piece in [1, 2, 3, 7] {
        for octets in b"015 H-ID=slow\r\n".chunks(piece) {
            link.send(octets).unwrap();
        }
        link.expect(250).unwrap();
    }
    // Half a line is no line when the link ends.
    link.send(b"019").unwrap();
    assert!(matches!(
        link.hear_within(std::time::Duration::from_millis(200)).unwrap(),
        Heard::Nothing
    ));
    drop(link);
    stage.check().unwrap();
}
