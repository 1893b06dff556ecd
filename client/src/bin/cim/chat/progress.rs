//! How far things have come in a chat: who types, the last message, files.
//!
//! For a place that changes there is one status; where there is none (plain lines), a line at
//! each step worth one. Of messages only the last one's fate is told: what came before it has come
//! at least as far, or has failed, which is told always.

use std::collections::BTreeMap;
use std::path::Path;

use client::engine::{Event, Notice, Status};
use protocol::{AddressBuf, Timestamp};

use crate::driver::Happening;
use crate::text::one_line;

/// Files whose names are remembered; the first known go first.
const NAMES_MAX: usize = 256;
/// Parts of a file after which plain lines tell how far it has come.
const QUARTERS: u64 = 4;

/// What is under way.
pub(super) struct Progress {
    person: AddressBuf,
    /// Until when the person types, as last heard.
    typing: Option<Timestamp>,
    /// Whether that is news.
    is_typing_new: bool,
    /// The last message sent here, and how far it came.
    last: Option<(String, Status)>,
    /// Files by what they are known by here.
    names: BTreeMap<String, String>,
    /// Names of files that are being read, by ticket.
    offering: BTreeMap<u64, String>,
    last_ticket: u64,
    /// Files offered to us and not yet accepted, the last one last.
    offered: Vec<String>,
    /// The file that moved last: its id, chunks done and in all.
    moving: Option<(String, u64, u64)>,
}

impl Progress {
    /// Nothing is under way with this person.
    pub(super) fn new(person: &AddressBuf) -> Self {
        Self {
            person: person.clone(),
            typing: None,
            is_typing_new: false,
            last: None,
            names: BTreeMap::new(),
            offering: BTreeMap::new(),
            last_ticket: 0,
            offered: Vec::new(),
            moving: None,
        }
    }

    /// A message was given to the engine.
    pub(super) fn sent(&mut self, mid: &str) {
        self.last = Some((mid.to_owned(), Status::Waiting));
    }

    /// A file is read to be offered; its ticket.
    pub(super) fn offering(&mut self, path: &Path) -> u64 {
        self.last_ticket += 1;
        let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        self.offering.insert(self.last_ticket, one_line(&name));
        self.last_ticket
    }

    /// The file offered last and not accepted.
    pub(super) fn last_offer(&self) -> Option<&str> {
        self.offered.last().map(String::as_str)
    }

    /// A file was accepted here.
    pub(super) fn accepted(&mut self, fid: &str) {
        self.offered.retain(|offered| offered != fid);
    }

    /// Takes note of what happened, before it is shown.
    pub(super) fn settle(&mut self, happening: &Happening) {
        match happening {
            Happening::Offered { ticket, result: Ok(fid) } => {
                let name = self.offering.remove(ticket).unwrap_or_default();
                self.name(fid, name);
            }
            Happening::Event(Event::Status { mid, status, .. }) => {
                if let Some((last, held)) = &mut self.last
                    && last == mid
                    && *status > *held
                {
                    *held = *status;
                }
            }
            Happening::Event(Event::Typing { contact, until }) if *contact == self.person => {
                self.is_typing_new = self.typing.replace(*until).is_none();
            }
            Happening::Event(Event::TypingStopped { contact }) if *contact == self.person => {
                self.typing = None;
            }
            Happening::Event(Event::Notice { notice: Notice::Message(message), .. })
                if message.contact == self.person =>
            {
                self.typing = None;
            }
            Happening::Event(Event::Notice { notice: Notice::FileOffered(file), .. }) => {
                self.accepted(&file.fid);
                self.offered.push(file.fid.clone());
                self.name(&file.fid, one_line(&file.name));
            }
            Happening::Event(Event::Notice {
                notice: Notice::FileDone { fid, .. } | Notice::FileFailed { fid, .. },
                ..
            }) => {
                self.accepted(fid);
                if self.moving.as_ref().is_some_and(|(moving, ..)| moving == fid) {
                    self.moving = None;
                }
            }
            _ => {}
        }
    }

    fn name(&mut self, fid: &str, name: String) {
        if self.names.len() >= NAMES_MAX {
            self.names.pop_first();
        }
        self.names.insert(fid.to_owned(), name);
    }

    fn name_of<'a>(&'a self, fid: &'a str) -> &'a str {
        self.names.get(fid).filter(|name| !name.is_empty()).map_or(fid, String::as_str)
    }

    /// The one thing that is worth a glance now.
    pub(super) fn status(&mut self, now: Timestamp, is_online: bool) -> String {
        if self.typing.is_some_and(|until| super::is_past(until, now)) {
            self.typing = None;
        }
        if self.typing.is_some() {
            let name = self.person.as_address().local().unwrap_or_default().to_owned();
            return format!("{name} is typing \u{2026}");
        }
        if let Some((fid, done, of)) = &self.moving {
            return format!("{} {} %", self.name_of(fid), percent(*done, *of));
        }
        match self.last.as_ref().map(|(_, status)| *status) {
            Some(Status::Waiting | Status::Sent) if !is_online => "waits for the link",
            Some(Status::Waiting | Status::Sent | Status::Failed) | None => "",
            Some(Status::Taken) => "with the relay",
            Some(Status::Passed) => "sent",
            Some(Status::Delivered) => "delivered",
            Some(Status::Read) => "read",
        }
        .to_owned()
    }

    /// For plain lines: that the last message was delivered or read.
    pub(super) fn receipt_line(&self, happening: &Happening) -> Option<String> {
        let Happening::Event(Event::Status { mid, status, .. }) = happening else { return None };
        let (last, _) = self.last.as_ref()?;
        match status {
            Status::Delivered if last == mid => Some("-- delivered".to_owned()),
            Status::Read if last == mid => Some("-- read".to_owned()),
            _ => None,
        }
    }

    /// For plain lines: that the person began to type.
    pub(super) fn typing_line(&self, happening: &Happening) -> Option<String> {
        match happening {
            Happening::Event(Event::Typing { contact, .. })
                if *contact == self.person && self.is_typing_new =>
            {
                Some(format!("-- {contact} is typing a message"))
            }
            _ => None,
        }
    }

    /// What became of a file. Takes note of it for the status.
    pub(super) fn file_line(&mut self, happening: &Happening, has_status: bool) -> Option<String> {
        match happening {
            Happening::Offered { result: Ok(fid), .. } => {
                Some(format!("-- {} is offered; its id is {fid}", self.name_of(fid)))
            }
            Happening::Event(Event::FileProgress { fid, done, of, .. }) => {
                let before = self.moving.replace((fid.clone(), *done, *of));
                let before = before.filter(|(moving, ..)| moving == fid);
                let quarter = |done: u64, of: u64| (done * QUARTERS).checked_div(of).unwrap_or(0);
                let was = before.as_ref().map(|(_, done, of)| quarter(*done, *of));
                match was {
                    None => Some(format!("-- {} is on its way", self.name_of(fid))),
                    Some(was) if !has_status && quarter(*done, *of) > was => {
                        Some(format!("-- {} {} %", self.name_of(fid), percent(*done, *of)))
                    }
                    Some(_) => None,
                }
            }
            Happening::Event(Event::Notice {
                notice: Notice::FileDone { fid, contact, is_received },
                ..
            }) => Some(match is_received {
                true => format!("-- {} is here, whole and signed", self.name_of(fid)),
                false => format!("-- {contact} has {}, whole", self.name_of(fid)),
            }),
            Happening::Event(Event::Notice {
                notice: Notice::FileFailed { fid, text, .. },
                ..
            }) => Some(format!("!! {} did not arrive: {}", self.name_of(fid), one_line(text))),
            _ => None,
        }
    }
}

fn percent(done: u64, of: u64) -> u64 {
    done.saturating_mul(100).checked_div(of).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn bob() -> AddressBuf {
        AddressBuf::parse("bob@demo.local").unwrap()
    }

    fn progress() -> Progress {
        Progress::new(&bob())
    }

    fn settle(progress: &mut Progress, event: Event) -> Happening {
        let happening = Happening::Event(event);
        progress.settle(&happening);
        happening
    }

    fn status(mid: &str, status: Status) -> Event {
        Event::Status { contact: bob(), mid: mid.into(), status }
    }

    #[test]
    fn the_status_is_that_of_the_last_message() {
        let mut progress = progress();
        assert_eq!(progress.status(NOW, true), "");
        progress.sent("one");
        assert_eq!(progress.status(NOW, false), "waits for the link");
        assert_eq!(progress.status(NOW, true), "");
        settle(&mut progress, status("one", Status::Taken));
        assert_eq!(progress.status(NOW, true), "with the relay");
        progress.sent("two");
        settle(&mut progress, status("one", Status::Read));
        assert_eq!(progress.status(NOW, true), "");
        settle(&mut progress, status("two", Status::Delivered));
        assert_eq!(progress.status(NOW, true), "delivered");
        settle(&mut progress, status("two", Status::Passed));
        assert_eq!(progress.status(NOW, true), "delivered");
    }

    #[test]
    fn plain_lines_tell_of_the_last_message_only() {
        let mut progress = progress();
        progress.sent("one");
        progress.sent("two");
        let one = settle(&mut progress, status("one", Status::Read));
        assert_eq!(progress.receipt_line(&one), None);
        let two = settle(&mut progress, status("two", Status::Read));
        assert_eq!(progress.receipt_line(&two).as_deref(), Some("-- read"));
    }

    #[test]
    fn typing_is_one_line_an_episode_and_ends_by_itself() {
        let mut progress = progress();
        let typing = |until| Event::Typing { contact: bob(), until: Timestamp(until) };
        let first = settle(&mut progress, typing(2_000));
        assert!(progress.typing_line(&first).is_some());
        assert_eq!(progress.status(NOW, true), "bob is typing \u{2026}");
        let again = settle(&mut progress, typing(5_000));
        assert_eq!(progress.typing_line(&again), None);
        assert_eq!(progress.status(Timestamp(4_999), true), "bob is typing \u{2026}");
        assert_eq!(progress.status(Timestamp(5_000), true), "");
        let next = settle(&mut progress, typing(9_000));
        assert!(progress.typing_line(&next).is_some());
        settle(&mut progress, Event::TypingStopped { contact: bob() });
        assert_eq!(progress.status(NOW, true), "");
    }

    #[test]
    fn somebody_elses_typing_is_no_news_here() {
        let mut progress = progress();
        let carol = AddressBuf::parse("carol@demo.local").unwrap();
        let event = Event::Typing { contact: carol, until: Timestamp(9_000) };
        let happening = settle(&mut progress, event);
        assert_eq!(progress.typing_line(&happening), None);
        assert_eq!(progress.status(NOW, true), "");
    }

    #[test]
    fn the_last_offer_is_the_one_to_accept() {
        let mut progress = progress();
        let offer = |fid: &str| Event::Notice {
            id: client::engine::NoticeId(1),
            is_repeated: false,
            notice: Notice::FileOffered(client::engine::FileOffered {
                fid: fid.into(),
                contact: bob(),
                name: "plan\u{1b}[2J.pdf".into(),
                media_type: String::new(),
                size: 9,
            }),
        };
        assert_eq!(progress.last_offer(), None);
        settle(&mut progress, offer("one"));
        settle(&mut progress, offer("two"));
        assert_eq!(progress.last_offer(), Some("two"));
        progress.accepted("two");
        assert_eq!(progress.last_offer(), Some("one"));
        assert_eq!(progress.name_of("one"), "plan\u{FFFD}[2J.pdf");
    }

    #[test]
    fn a_file_is_told_at_its_begin_and_in_plain_lines_by_quarters() {
        for (has_status, lines) in [(true, 1), (false, 4)] {
            let mut progress = progress();
            let told = (1..=16).filter_map(|done| {
                let moved = Event::FileProgress {
                    fid: "f".into(),
                    contact: bob(),
                    done,
                    of: 16,
                    is_kept: false,
                };
                progress.file_line(&Happening::Event(moved), has_status)
            });
            assert_eq!(told.count(), lines + usize::from(!has_status));
            assert_eq!(progress.status(NOW, true), "f 100 %");
        }
    }

    #[test]
    fn names_are_bounded() {
        let mut progress = progress();
        for number in 0..=NAMES_MAX {
            progress.name(&format!("{number:04}"), "name".into());
        }
        assert_eq!(progress.names.len(), NAMES_MAX);
        assert_eq!(progress.name_of("0000"), "0000");
        assert_eq!(progress.name_of("0001"), "name");
    }
}
