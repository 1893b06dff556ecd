//! What happened, as JSON for programs and as lines for eyes.

use client::engine::{Event, Message, Notice, RosterEntry, Status};
use serde_json::{Value, json};

use crate::driver::Happening;
use crate::text::{indented, one_line, size};

/// The JSON object of a happening; `None` for what only the program itself needs to know.
pub(crate) fn to_json(happening: &Happening) -> Option<Value> {
    match happening {
        Happening::Offline { reason, retry, .. } => Some(json!({
            "event": "offline", "reason": reason,
            "retry_ms": u64::try_from(retry.as_millis()).unwrap_or(u64::MAX),
        })),
        Happening::Offered { .. } => None,
        Happening::Event(event) => event_to_json(event),
    }
}

fn event_to_json(event: &Event) -> Option<Value> {
    Some(match event {
        Event::Notice { notice, is_repeated, .. } => {
            let mut value = notice_to_json(notice)?;
            if *is_repeated {
                value["repeated"] = json!(true);
            }
            value
        }
        Event::Online { is_new_account } => json!({ "event": "online", "new": is_new_account }),
        Event::CaughtUp => json!({ "event": "caught-up" }),
        Event::LoginFailed { code, text } => {
            json!({ "event": "error", "code": code, "text": format!("login refused: {text}") })
        }
        Event::Status { contact, mid, status } => {
            json!({ "event": status_name(*status)?, "person": contact.as_str(), "mid": mid })
        }
        Event::PutOff { contact, code, text } => {
            json!({ "event": "error", "person": contact.as_str(), "code": code, "text": text })
        }
        Event::Busy { contact, mid, alternatives, until } => json!({
            "event": "busy", "person": contact.as_str(), "mid": mid,
            "until": until.map(|until| until.0), "choices": choices(alternatives),
        }),
        Event::Presence { contact, state, until } => json!({
            "event": "presence", "person": contact.as_str(), "state": state.name(),
            "until": until.map(|until| until.0),
        }),
        Event::Typing { contact, .. } => {
            json!({ "event": "typing", "person": contact.as_str(), "active": true })
        }
        Event::TypingStopped { contact } => {
            json!({ "event": "typing", "person": contact.as_str(), "active": false })
        }
        other => return trust_to_json(other),
    })
}

/// Events about keys, sessions, contacts and files.
fn trust_to_json(event: &Event) -> Option<Value> {
    Some(match event {
        Event::IdentityChanged { contact } => {
            json!({ "event": "identity-changed", "person": contact.as_str() })
        }
        Event::Tampering { from, what } => {
            json!({ "event": "tampering", "person": from, "why": what })
        }
        Event::Unopened { from, what } => {
            json!({ "event": "unopened", "person": from, "why": what })
        }
        Event::Revoked { contact, device, is_by_domain } => json!({
            "event": "revoked", "person": contact.as_str(), "device": device,
            "by_domain": is_by_domain,
        }),
        Event::Session { contact, suite, is_signed, is_refresh, has_one_time_keys } => json!({
            "event": "session", "person": contact.as_str(), "suite": suite.name(),
            "signed": is_signed, "refresh": is_refresh, "one_time_keys": has_one_time_keys,
        }),
        Event::Roster(entry) => {
            let mut value = roster_to_json(entry);
            value["event"] = json!("roster");
            value
        }
        Event::RosterRemoved { contact } => {
            json!({ "event": "roster-removed", "person": contact.as_str() })
        }
        Event::Refused { what, contact, code, text } => json!({
            "event": "refused", "what": what, "code": code, "text": text,
            "person": contact.as_ref().map(|contact| contact.as_str().to_owned()),
        }),
        Event::FileProgress { fid, contact, done, of, is_kept } => json!({
            "event": "file-progress", "file": fid, "person": contact.as_str(),
            "done_chunks": done, "chunks": of, "kept": is_kept,
        }),
        Event::FileWaits { fid, contact, text } => json!({
            "event": "file-waits", "file": fid, "person": contact.as_str(), "text": text,
        }),
        Event::Strange { what } => json!({ "event": "strange", "what": what }),
        _ => return None,
    })
}

fn notice_to_json(notice: &Notice) -> Option<Value> {
    Some(match notice {
        Notice::Message(message) => message_to_json("message", message),
        Notice::Edited { about, message } => {
            let mut value = message_to_json("edited", message);
            value["about"] = json!(about);
            value
        }
        Notice::Reaction { about, message } => {
            let mut value = message_to_json("reaction", message);
            value["about"] = json!(about);
            value
        }
        Notice::Retracted { contact, about } => {
            json!({ "event": "retracted", "person": contact.as_str(), "about": about })
        }
        Notice::Failed { contact, mid, code, text, is_bounce } => json!({
            "event": if *is_bounce { "bounce" } else { "failed" },
            "person": contact.as_str(), "mid": mid, "code": code, "text": text,
        }),
        Notice::SubscriptionAsked { contact } => {
            json!({ "event": "subscription", "person": contact.as_str() })
        }
        Notice::Approved { contact } => {
            json!({ "event": "approved", "person": contact.as_str() })
        }
        Notice::Denied { contact } => json!({ "event": "denied", "person": contact.as_str() }),
        Notice::FileOffered(file) => json!({
            "event": "file-offered", "file": file.fid, "person": file.contact.as_str(),
            "name": file.name, "type": file.media_type, "size": file.size,
        }),
        Notice::FileDone { fid, contact, is_received } => json!({
            "event": "file-done", "file": fid, "person": contact.as_str(),
            "received": is_received, "verified": true,
        }),
        Notice::FileKept { fid, contact } => {
            json!({ "event": "file-kept", "file": fid, "person": contact.as_str() })
        }
        Notice::FileFailed { fid, contact, code, text } => json!({
            "event": "file-refused", "file": fid, "person": contact.as_str(),
            "code": code, "why": text,
        }),
        _ => return None,
    })
}

fn message_to_json(kind: &str, message: &Message) -> Value {
    json!({
        "event": kind, "person": message.contact.as_str(), "from": message.from.as_str(),
        "mid": message.mid, "text": message.text, "at": message.at, "own": message.is_own,
        "signed": message.is_signed, "legacy": message.is_legacy, "delayed": message.is_delayed,
        "answers": message.about,
    })
}

/// A contact as JSON.
pub(crate) fn roster_to_json(entry: &RosterEntry) -> Value {
    json!({
        "person": entry.contact.as_str(), "name": entry.name,
        "approved": entry.is_approved, "approves_us": entry.approves_us,
        "asked": entry.has_asked, "asks": entry.was_asked, "blocked": entry.is_blocked,
        "urgent": entry.may_be_urgent,
    })
}

/// What the user can choose for a busy person: the relay's own ways, then the gateways offered.
fn choices(alternatives: &[protocol::message::Alternative]) -> Vec<String> {
    let own = ["hold", "urgent"].map(str::to_owned);
    own.into_iter().chain(alternatives.iter().map(|way| way.to_string().to_lowercase())).collect()
}

const fn status_name(status: Status) -> Option<&'static str> {
    match status {
        Status::Delivered => Some("delivered"),
        Status::Read => Some("read"),
        _ => None,
    }
}

/// The line for eyes; `None` for what need not be shown.
pub(crate) fn to_text(happening: &Happening) -> Option<String> {
    match happening {
        Happening::Offline { reason, retry, .. } => {
            Some(format!("-- no link: {}; again in {:.1} s", one_line(reason), retry.as_secs_f64()))
        }
        Happening::Offered { result: Ok(fid), .. } => {
            Some(format!("-- the file is offered as {fid}"))
        }
        Happening::Offered { result: Err(failure), .. } => {
            Some(format!("!! {}", one_line(failure.text())))
        }
        Happening::Event(event) => event_to_text(event),
    }
}

fn event_to_text(event: &Event) -> Option<String> {
    Some(match event {
        Event::Notice { notice, is_repeated, .. } => {
            let mark = if *is_repeated { " (perhaps seen before)" } else { "" };
            format!("{}{mark}", notice_to_text(notice)?)
        }
        Event::Online { .. } => "-- connected".to_owned(),
        Event::LoginFailed { code, text } => {
            format!("-- login refused ({code}): {}", one_line(text))
        }
        Event::PutOff { contact, code, text } => format!(
            "-- the relay puts a line to {contact} off ({code} {}); it is sent again by itself",
            one_line(text)
        ),
        Event::Presence { contact, state, .. } => format!("-- {contact} is {}", state.name()),
        Event::Typing { contact, .. } => format!("-- {contact} is typing a message"),
        Event::IdentityChanged { contact } => format!(
            "!! the identity key of {contact} has changed. Nothing is sent until you accept it: \
             compare `/safety`, then type `/trust`"
        ),
        Event::Tampering { from, what } => {
            format!("!! a line that claims to be from {} was dropped: {what}", one_line(from))
        }
        Event::Unopened { from, what } => {
            format!("!! a line from {} cannot be opened: {what}", one_line(from))
        }
        Event::Revoked { contact, device, is_by_domain } => {
            let what = device.as_ref().map_or("identity key".to_owned(), |d| format!("device {d}"));
            let who = if *is_by_domain { ", by the domain's administrator" } else { "" };
            format!("!! the {what} of {contact} was revoked{who}")
        }
        Event::Session { contact, suite, is_signed, is_refresh: false, .. } => format!(
            "-- a new session with {contact}: suite {}{}",
            suite.name(),
            if *is_signed { ", signed" } else { "" }
        ),
        Event::Refused { what, code, text, .. } => {
            format!("-- {what}: refused ({code}): {}", one_line(text))
        }
        Event::FileWaits { fid, contact, text } => {
            format!("-- the file {fid} goes when {contact} takes it ({})", one_line(text))
        }
        Event::Strange { what } => {
            format!("!! the relay said something strange: {}", one_line(what))
        }
        _ => return None,
    })
}

fn notice_to_text(notice: &Notice) -> Option<String> {
    Some(match notice {
        Notice::Message(message) => message_to_text(message),
        Notice::Edited { message, .. } => format!("{} (edited)", message_to_text(message)),
        Notice::Reaction { message, .. } => {
            format!("-- {} reacts: {}", message.contact, indented(&message.text))
        }
        Notice::Retracted { contact, .. } => format!("-- {contact} took a message back"),
        Notice::Failed { contact, code, text, .. } => {
            format!("!! a message to {contact} will not arrive ({code}): {}", one_line(text))
        }
        Notice::SubscriptionAsked { contact } => {
            format!("-- {contact} asks to be your contact: /approve or /deny")
        }
        Notice::Approved { contact } => format!("-- {contact} approved you"),
        Notice::Denied { contact } => format!("-- {contact} denied you"),
        Notice::FileOffered(file) => format!(
            "-- {} offers a file: {} ({}); /accept takes it, its id is {}",
            file.contact,
            one_line(&file.name),
            size(file.size),
            file.fid
        ),
        Notice::FileDone { fid, is_received, .. } => {
            let what = if *is_received { "is here, whole and signed" } else { "has arrived" };
            format!("-- the file {fid} {what}")
        }
        Notice::FileKept { fid, contact } => {
            format!("-- the relay keeps the file {fid} whole; {contact} gets it from there")
        }
        Notice::FileFailed { fid, text, .. } => {
            format!("!! the file {fid} did not arrive: {}", one_line(text))
        }
        _ => return None,
    })
}

fn message_to_text(message: &Message) -> String {
    let mut marks = String::new();
    for (is_so, mark) in [
        (!message.is_signed, " [unsigned]"),
        (message.is_legacy, " [legacy]"),
        (message.is_delayed, " [delayed]"),
    ] {
        if is_so {
            marks.push_str(mark);
        }
    }
    let who = if message.is_own { "you" } else { message.contact.as_str() };
    format!("{who}{marks}: {}", indented(&message.text))
}
