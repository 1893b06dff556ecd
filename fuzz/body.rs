//! What the fuzz targets do with octets. Each body panics where a property does not hold.
//!
//! `protocol/tests/fuzz.rs` runs the same bodies on the committed corpora and on random octets,
//! so that they are tried wherever tests run.
#![allow(dead_code, reason = "each target uses one body")]

use protocol::capability;
use protocol::frame::LineBuffer;
use protocol::message::{self, Presence};
use protocol::policy::Policy;
use protocol::prekey::{NextKeys, Prekey};
use protocol::record::Record;
use protocol::registration::Registration;
use protocol::reply::Assembler;
use protocol::revocation::Revocation;
use protocol::table::{Kind, Link, Row, Side, State, check};
use protocol::{Address, Command, Line, Reply, base64, file, offer};

/// However a stream is cut into chunks, the same lines come out, and none is over the limit.
pub(crate) fn line(octets: &[u8]) {
    let Some((&chunk, stream)) = octets.split_first() else { return };
    let limit = 64 + usize::from(chunk);
    let whole = lines(stream, stream.len().max(1), limit);
    assert_eq!(lines(stream, usize::from(chunk).max(1), limit), whole);
    for line in whole.into_iter().flatten() {
        assert!(line.len() + 2 <= limit);
        match Line::parse(&line) {
            Ok(Line::Command(read)) => assert_eq!(read.as_str().as_bytes(), line),
            Ok(Line::Reply(read)) => assert!(line.ends_with(read.text().as_bytes())),
            Err(error) => assert!((500..600).contains(&error.reply_code())),
        }
    }
}

fn lines(stream: &[u8], chunk: usize, limit: usize) -> Vec<Option<Vec<u8>>> {
    let mut buffer = LineBuffer::new(limit);
    let mut found = Vec::new();
    for piece in stream.chunks(chunk) {
        buffer.push(piece);
        while let Some(line) = buffer.next_line() {
            found.push(line.ok().map(<[u8]>::to_vec));
        }
    }
    found
}

/// A command that is read is written again as it was, and means the same when passed on.
pub(crate) fn command(octets: &[u8]) {
    let Ok(command) = Command::parse(octets) else { return };
    let mut forwarded = Vec::new();
    command.forward(&[], &mut forwarded);
    let forwarded = forwarded.strip_suffix(b"\r\n").unwrap_or_default();
    let again = Command::parse(forwarded).ok().map(|again| (again.tbs(), again.aad()));
    assert_eq!(again, Some((command.tbs(), command.aad())));

    let device = Address::parse("alice@a.example/d1").ok();
    for sender in [Side::Client, Side::Relay] {
        for state in State::ALL {
            if let Ok(row) = check(&command, &Link { sender, state, device }) {
                assert!(row.may_send(sender) && row.states.contains(&state));
                assert_eq!(row.check_form(&command), Ok(()));
            }
        }
    }
    let form = Row::find(command.code()).map(|row| row.check_form(&command).is_ok());
    // H-ID is the link's business: the table looks at it, the views do not.
    if command.parameter("H-ID").is_some_and(|id| !Kind::HOP_ID.accepts(id)) {
        return;
    }
    for is_read in views(&command) {
        // A view may ask more of a body than the table, never less of a line.
        assert!(!is_read || form == Some(true), "{}", command.as_str());
    }
}

fn views(command: &Command<'_>) -> [bool; 15] {
    [
        message::Sealed::parse(command).is_ok(),
        message::Receipt::parse(command).is_ok(),
        message::Typing::parse(command).is_ok(),
        message::Choice::parse(command).is_ok(),
        message::Bounce::parse(command).is_ok(),
        offer::Offer::parse(command).is_ok(),
        offer::Accept::parse(command).is_ok(),
        offer::Close::parse(command).is_ok(),
        file::FileOffer::parse(command).is_ok(),
        file::FileAccept::parse(command).is_ok(),
        file::FileChunk::parse(command).is_ok(),
        file::FileWindow::parse(command).is_ok(),
        file::FileFinish::parse(command).is_ok(),
        file::FileCancel::parse(command).is_ok(),
        file::FileVerdict::parse(command).is_ok(),
    ]
}

/// A reply that is read shows no controls, and any series of replies can be assembled.
pub(crate) fn reply(octets: &[u8]) {
    let mut assembler = Assembler::new(Some("DEV"));
    let mut reader = capability::Reader::new();
    for line in octets.split(|&octet| octet == b'\n') {
        let Ok(reply) = Reply::parse(line) else { continue };
        assert!(reply.display_text().chars().all(|c| !c.is_control()));
        let _ = Presence::read(reply.parameters());
        if let Some(value) = reply.parameter("CAP") {
            let _ = reader.add(value);
        }
        match assembler.push(&reply) {
            Ok(None) => assert!(!reply.is_last()),
            Ok(Some(answer)) => {
                assert_eq!(answer.code, reply.code());
                assembler = Assembler::new(Some("DEV"));
            }
            Err(_) => assembler = Assembler::new(None),
        }
    }
    let common = reader.finish();
    let mut again = capability::Reader::new();
    assert_eq!(again.add(&common.to_string()).map(|()| again.finish()), Ok(common));
}

/// Signed lines and their bodies are read or refused; a record's name is its line's hash.
pub(crate) fn record(octets: &[u8]) {
    statements(octets);
    let _ = NextKeys::read(octets);
    let Some((&shape, body)) = octets.split_first() else { return };
    let head = match shape % 4 {
        0 => "601 FROM a@b VER=1 PREV=0 IDA=ed25519 SUITES=M1 NB=1 NA=2 ROLE=user RSIG=AA",
        1 => "611 FROM a@b/d SPK=1 TS=1 NA=2",
        2 => "611 FROM a@b/d OPK=1 TS=1 NA=2",
        _ => {
            "602 FROM a@b KR=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA TS=1 \
             MID=AAAAAAAAAAAAAAAAAAAAAA"
        }
    };
    let body = if body.is_empty() { "-".into() } else { base64::encode(body) };
    statements(format!("{head} {body} AAAA").as_bytes());
}

fn statements(line: &[u8]) {
    let Ok(command) = Command::parse(line) else { return };
    if let Ok(record) = Record::parse(&command) {
        assert_eq!(record.name().to_octets(), command.statement_hash());
        assert!(record.follow(&command).is_err(), "no record follows itself");
    }
    if let Ok(prekey) = Prekey::parse(&command) {
        assert!(prekey.not_after > prekey.made);
    }
    let _ = Revocation::parse(&command);
    let _ = Policy::parse(&command);
    let _ = Registration::parse(&command);
}
