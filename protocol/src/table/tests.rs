//! Every command × side × state × authentication, and every way to spoil a part of it.

use std::collections::HashSet;

use super::*;
use crate::limits::{KEEP_MAX, RECEIPTS_MAX};
use crate::tlv::Writer;

const DEVICE: &str = "alice@a.example/d1";
const ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const HASH: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A value of this kind, and one that is not.
fn samples(kind: Kind) -> (String, String) {
    let (good, bad) = match kind {
        Kind::Account => ("bob@b.example", "bob@b.example/d7"),
        Kind::Accounts => ("alice@a.example,bob@b.example", "bob@b.example,alice@a.example"),
        Kind::Algorithm => ("p256", "rsa"),
        Kind::Base64(_) | Kind::Signature => ("AAAA", "AAAAA"),
        Kind::Capabilities => ("LINE:65536,SUITES:M1,M2", "line"),
        Kind::Device => ("d7", "D7"),
        Kind::Flag => ("1", "2"),
        Kind::Hash => (HASH, ID),
        Kind::Id => (ID, HASH),
        Kind::MessageIds => return (vec![ID; RECEIPTS_MAX].join(","), format!("{ID},")),
        Kind::Numbers => ("1,3", "3,1"),
        Kind::Part => ("2/2", "3/2"),
        Kind::Previous => ("0", "1"),
        Kind::Range(first, last) => {
            let bad = if last == u64::MAX { "-1".into() } else { (last + 1).to_string() };
            return (first.to_string(), bad);
        }
        Kind::ReplyCode => ("553", "100"),
        Kind::Role => ("user", "root"),
        Kind::Suite => ("M1", "M9"),
        Kind::Suites => ("M1,M2", "M1,M1"),
        Kind::Text(max) => return ("x".into(), "x".repeat(max + 1)),
        Kind::Time => ("1795469246123", "01"),
        Kind::Versions => ("1", "one"),
        Kind::Word(words) | Kind::Words(words) => return (words[0].into(), "never".into()),
    };
    (good.into(), bad.into())
}

/// A person's account, device and domain.
type Person = [&'static str; 3];
const ALICE: Person = ["alice@a.example", DEVICE, "a.example"];
const BOB: Person = ["bob@b.example", "bob@b.example/d7", "b.example"];

/// Who sends a row's line, and to whom.
fn people(row: &Row) -> (Person, Person) {
    if row.from_client { (ALICE, BOB) } else { (BOB, ALICE) }
}

type Texts = Vec<Option<&'static str>>;

/// The addresses of `person` that have this shape, and those that have not.
fn addresses(shape: Shape, [account, device, domain]: Person) -> (Texts, Texts) {
    let all = [
        (shape.account, Some(account)),
        (shape.device, Some(device)),
        (shape.domain, Some(domain)),
        (shape.none, None),
    ];
    let (good, bad): (Vec<_>, Vec<_>) = all.into_iter().partition(|(is_good, _)| *is_good);
    let texts = |all: Vec<(bool, Option<&'static str>)>| all.into_iter().map(|(_, text)| text);
    (texts(good).collect(), texts(bad).collect())
}

/// The parts of a line, so that a test can spoil one.
#[derive(Clone)]
struct Parts {
    code: Code,
    to: Option<&'static str>,
    from: Option<&'static str>,
    parameters: Vec<(&'static str, String)>,
    body: bool,
    signature: bool,
}

impl Parts {
    /// A good line for `row`, with all the parts it can have or only those it must have.
    fn new(row: &Row, is_full: bool) -> Self {
        let (own, other) = people(row);
        let one_of: Vec<&str> = row
            .constraints
            .iter()
            .filter_map(|constraint| match constraint {
                Constraint::OneOf(names) => Some(names.iter().copied()),
                _ => None,
            })
            .flatten()
            .collect();
        let has_signature =
            row.signature == Slot::Required || (is_full && row.signature == Slot::Optional);
        let has_body = row.body == Slot::Required || (is_full && row.body == Slot::Optional);
        let wants = |rule: &Rule| {
            let follows = row.constraints.iter().find_map(|constraint| match constraint {
                Constraint::WithSignature(name) if *name == rule.name => Some(has_signature),
                Constraint::WithBody(name) if *name == rule.name => Some(has_body),
                Constraint::Needs(name, other) if *name == rule.name => {
                    Some(is_full && one_of.first().is_none_or(|first| first == other))
                }
                Constraint::OneOf(names) if names.contains(&rule.name) => {
                    Some(names[0] == rule.name)
                }
                _ => None,
            });
            rule.is_required || follows.unwrap_or(is_full)
        };
        let parameters = row
            .parameters
            .iter()
            .filter(|rule| wants(rule))
            .map(|rule| (rule.name, samples(rule.kind).0))
            .collect();
        Self {
            code: row.code,
            to: addresses(row.to, other).0[0],
            from: addresses(row.from, own).0[0],
            parameters,
            body: has_body,
            signature: has_signature,
        }
    }

    fn text(&self) -> String {
        let mut line = self.code.to_string();
        for (keyword, address) in [("TO", self.to), ("FROM", self.from)] {
            if let Some(address) = address {
                line.push_str(&format!(" {keyword} {address}"));
            }
        }
        for (name, value) in &self.parameters {
            line.push_str(&format!(" {name}={value}"));
        }
        match (self.body, self.signature) {
            (false, false) => {}
            (true, false) => line.push_str(&format!(" {}", body(self.code))),
            (false, true) => line.push_str(" - c2ln"),
            (true, true) => line.push_str(&format!(" {} c2ln", body(self.code))),
        }
        line
    }

    fn reply(&self, link: &Link<'_>) -> Option<u16> {
        reply(&self.text(), link)
    }
}

/// A body that the typed view of `code` takes.
fn body(code: Code) -> String {
    let octets = match code {
        Code::OFFER | Code::REFRESH => vec![7; 32 + 1_088 + 40],
        Code::DELIVERED | Code::READ => vec![7; 16],
        Code::ACCEPT => {
            let mut body = Writer::new();
            body.push(16, &[9; 32]).unwrap();
            body.push(17, &[0; 1_184]).unwrap();
            body.finish()
        }
        Code::FILE_CHUNK => vec![7; 1_040],
        _ => b"hello".to_vec(),
    };
    crate::base64::encode(&octets)
}

/// Whether the typed view of the command takes it; `None` if there is no view, or if the view
/// reads parameters only, or needs keys and signatures that these lines have not.
fn view(command: &Command<'_>) -> Option<Result<(), Error>> {
    use crate::{file, message, offer};
    Some(match command.code() {
        Code::MESSAGE | Code::EDIT | Code::RETRACT | Code::REACTION => {
            message::Sealed::parse(command).map(|_| ())
        }
        Code::DELIVERED | Code::READ => message::Receipt::parse(command).map(|_| ()),
        Code::TYPING | Code::TYPING_STOPPED => message::Typing::parse(command).map(|_| ()),
        Code::CHOICE => message::Choice::parse(command).map(|_| ()),
        Code::BOUNCE => message::Bounce::parse(command).map(|_| ()),
        Code::OFFER | Code::REFRESH => offer::Offer::parse(command).map(|_| ()),
        Code::ACCEPT => offer::Accept::parse(command).map(|_| ()),
        Code::CLOSE => offer::Close::parse(command).map(|_| ()),
        Code::FILE_OFFER => file::FileOffer::parse(command).map(|_| ()),
        Code::FILE_ACCEPT => file::FileAccept::parse(command).map(|_| ()),
        Code::FILE_CHUNK => file::FileChunk::parse(command).map(|_| ()),
        Code::FILE_WINDOW => file::FileWindow::parse(command).map(|_| ()),
        Code::FILE_CANCEL => file::FileCancel::parse(command).map(|_| ()),
        Code::FILE_FINISH => file::FileFinish::parse(command).map(|_| ()),
        Code::FILE_VERDICT => file::FileVerdict::parse(command).map(|_| ()),
        _ => return None,
    })
}

/// The code by which a line is refused; `None` if it is taken. Where the line itself decides,
/// the typed view must decide alike.
fn reply(line: &str, link: &Link<'_>) -> Option<u16> {
    let command = match Command::parse(line.as_bytes()) {
        Ok(command) => command,
        Err(error) => return Some(error.reply_code()),
    };
    let own_hop_id = command.parameter("H-ID").is_none_or(|id| id.len() < 33);
    let form = Row::find(command.code()).map(|row| row.check_form(&command));
    if let (Some(form), Some(view), true) = (form, view(&command), own_hop_id) {
        assert_eq!(form.is_ok(), view.is_ok(), "{form:?} {view:?} {line}");
    }
    check(&command, link).err().map(Error::reply_code)
}

fn link(row: &Row, state: State) -> Link<'static> {
    let sender = if row.from_client { Side::Client } else { Side::Relay };
    Link { sender, state, device: Some(Address::parse(DEVICE).unwrap()) }
}

#[test]
fn rows_are_sorted_and_found() {
    assert!(ROWS.is_sorted_by_key(|row| row.code));
    for row in ROWS {
        assert_eq!(Row::find(row.code).unwrap().name, row.name);
        assert!(!row.name.is_empty() && !row.meaning.is_empty() && !row.states.is_empty());
        let names: HashSet<&str> = row.parameters.iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), row.parameters.len(), "{}", row.code);
        assert_eq!(row.replies.is_empty(), row.answered == Answered::Never, "{}", row.code);
    }
    for number in 0..1_000 {
        let code = Code::new(number).unwrap();
        assert_eq!(Row::find(code).is_some(), ROWS.iter().any(|row| row.code == code));
    }
}

#[test]
fn replies_are_from_the_closed_list() {
    assert!(REPLIES.is_sorted_by_key(|(code, ..)| *code));
    let known: HashSet<u16> = REPLIES.iter().map(|(code, ..)| *code).collect();
    for row in ROWS {
        for code in row.replies.iter().chain(COMMON_REPLIES) {
            assert!(known.contains(code), "{} {code}", row.code);
        }
        for code in row.replies {
            assert!(!COMMON_REPLIES.contains(code) || *code == 451, "{} {code}", row.code);
        }
    }
}

#[test]
fn every_command_in_every_state() {
    let mut count = 0;
    for row in ROWS {
        for is_full in [false, true] {
            let parts = Parts::new(row, is_full);
            for sender in [Side::Client, Side::Relay] {
                for state in State::ALL {
                    let link = Link { sender, ..link(row, state) };
                    let expected = if !row.may_send(sender) {
                        Some(503)
                    } else if row.states.contains(&state) {
                        None
                    } else if state == State::Proven || row.code <= Code::PROOF {
                        Some(503)
                    } else {
                        Some(530)
                    };
                    let line = parts.text();
                    assert_eq!(parts.reply(&link), expected, "{sender:?} {state:?} {line}");
                    count += 1;
                }
            }
        }
    }
    assert_eq!(count, ROWS.len() * 20);
}

#[test]
fn unknown_codes_and_codes_of_later_stages() {
    let link = Link { sender: Side::Client, state: State::Proven, device: None };
    for code in ["016", "131", "140", "603", "604", "620", "640", "650", "704", "900", "999"] {
        assert_eq!(reply(code, &link), Some(502), "{code}");
    }
}

#[test]
fn somebody_elses_from_is_refused() {
    for row in ROWS.iter().filter(|row| row.from_client) {
        let parts = Parts::new(row, true);
        for from in ["alice@a.example/d2", "mallory@a.example/d1", "alice@b.example/d1"] {
            let Some(own) = parts.from else { continue };
            let from = if own.contains('/') { from } else { from.split_once('/').unwrap().0 };
            let link = link(row, row.states[0]);
            let spoilt = Parts { from: Some(from), ..parts.clone() };
            let expected = (from != ALICE[0]).then_some(521);
            let first = reply(&spoilt.text(), &Link { device: None, ..link });
            assert_eq!(first, None, "nothing is claimed yet: {}", spoilt.text());
            assert_eq!(spoilt.reply(&link), expected, "{}", spoilt.text());
        }
        if row.from.domain {
            let spoilt = Parts { from: Some("a.example"), ..parts };
            assert_eq!(spoilt.reply(&link(row, row.states[0])), Some(521));
        }
    }
}

#[test]
fn every_shape_of_address() {
    for row in ROWS {
        let (own, other) = people(row);
        let parts = Parts::new(row, false);
        let link = Link { device: None, ..link(row, row.states[0]) };
        let (good, bad) = addresses(row.to, other);
        for (to, expected) in
            good.iter().map(|to| (to, None)).chain(bad.iter().map(|to| (to, Some(510))))
        {
            let line = Parts { to: *to, ..parts.clone() };
            assert_eq!(line.reply(&link), expected, "{}", line.text());
        }
        let (good, bad) = addresses(row.from, own);
        for (from, expected) in
            good.iter().map(|from| (from, None)).chain(bad.iter().map(|from| (from, Some(510))))
        {
            let line = Parts { from: *from, ..parts.clone() };
            // A line without FROM has no slots, so it is not even a line.
            let no_line = from.is_none() && (line.body || line.signature);
            let expected = if no_line { Some(500) } else { expected };
            assert_eq!(line.reply(&link), expected, "{}", line.text());
        }
    }
}

#[test]
fn every_parameter_spoilt_and_every_required_one_missing() {
    for row in ROWS {
        let link = link(row, row.states[0]);
        for is_full in [false, true] {
            let parts = Parts::new(row, is_full);
            for (position, (name, _)) in parts.parameters.iter().enumerate() {
                let rule = row.parameters.iter().find(|rule| rule.name == *name).unwrap();
                let mut spoilt = parts.clone();
                spoilt.parameters[position].1 = samples(rule.kind).1;
                assert_eq!(spoilt.reply(&link), Some(501), "{}", spoilt.text());
                spoilt.parameters[position].1 = String::new();
                assert_eq!(spoilt.reply(&link), Some(501), "{}", spoilt.text());
                let mut twice = parts.clone();
                twice.parameters.push(parts.parameters[position].clone());
                assert_eq!(twice.reply(&link), Some(501), "{}", twice.text());
                if rule.is_required {
                    let mut without = parts.clone();
                    without.parameters.remove(position);
                    assert_eq!(without.reply(&link), Some(501), "{}", without.text());
                }
            }
            let mut unknown = parts.clone();
            unknown.parameters.push(("X-NEW", "1".into()));
            unknown.parameters.push(("H-ID", "7".into()));
            assert_eq!(unknown.reply(&link), None, "{}", unknown.text());
            unknown.parameters.last_mut().unwrap().1 = "x".repeat(33);
            assert_eq!(unknown.reply(&link), Some(501), "{}", unknown.text());
        }
    }
}

#[test]
fn every_slot_missing_or_too_many() {
    for row in ROWS {
        let link = link(row, row.states[0]);
        for is_full in [false, true] {
            let parts = Parts::new(row, is_full);
            let bound = |is_it: fn(&Constraint) -> bool| row.constraints.iter().any(is_it);
            let with_body = bound(|constraint| matches!(constraint, Constraint::WithBody(_)));
            let with_signature =
                bound(|constraint| matches!(constraint, Constraint::WithSignature(_)));
            let flipped = Parts { body: !parts.body, ..parts.clone() };
            let is_good = row.body == Slot::Optional && !with_body;
            let reply = flipped.reply(&link);
            assert_eq!(reply.is_none(), is_good, "{} {reply:?}", flipped.text());
            let flipped = Parts { signature: !parts.signature, ..parts.clone() };
            let is_good = row.signature == Slot::Optional && !with_signature;
            let reply = flipped.reply(&link);
            assert_eq!(reply.is_none(), is_good, "{} {reply:?}", flipped.text());
        }
    }
}

#[test]
fn constraints() {
    let refresh = Row::find(Code::REFRESH).unwrap();
    let link = link(refresh, State::Proven);
    let with = |names: &[&'static str]| {
        let mut parts = Parts::new(refresh, false);
        parts.parameters.retain(|(name, _)| !matches!(*name, "NK" | "SPK" | "OPK"));
        for name in names {
            let rule = refresh.parameters.iter().find(|rule| rule.name == *name).unwrap();
            parts.parameters.push((name, samples(rule.kind).0));
        }
        parts.reply(&link)
    };
    assert_eq!(with(&["NK"]), None);
    assert_eq!(with(&["SPK"]), None);
    assert_eq!(with(&["SPK", "OPK"]), None);
    assert_eq!(with(&[]), Some(501));
    assert_eq!(with(&["NK", "SPK"]), Some(501));
    assert_eq!(with(&["NK", "OPK"]), Some(501));
}

#[test]
fn lists_at_n_and_one_more() {
    assert!(Kind::MessageIds.accepts(&vec![ID; RECEIPTS_MAX].join(",")));
    assert!(!Kind::MessageIds.accepts(&vec![ID; RECEIPTS_MAX + 1].join(",")));
    let numbers = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    assert!(Kind::Numbers.accepts(&numbers(KEEP_MAX)));
    assert!(!Kind::Numbers.accepts(&numbers(KEEP_MAX + 1)));
}

#[test]
fn kinds_take_their_samples() {
    for row in ROWS {
        for rule in row.parameters {
            let (good, bad) = samples(rule.kind);
            assert!(rule.kind.accepts(&good), "{} {good}", rule.name);
            assert!(!rule.kind.accepts(&bad), "{} {bad}", rule.name);
            assert!(!rule.kind.accepts(""), "{}", rule.name);
        }
    }
}
