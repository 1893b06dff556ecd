//! The files that the tiny relay keeps for devices that are away (SPEC.md §9).

use std::collections::BTreeMap;

use protocol::file::Shape;
use protocol::{Code, Command, ReplyBuilder};

use super::relay::Relay;

/// What is kept, and what is being sent of it.
pub(super) struct Depot {
    /// Whether there is room for another file.
    pub(super) has_room: bool,
    files: BTreeMap<String, Kept>,
    /// Device and file: the next chunk, and the first that is not granted.
    fetches: BTreeMap<(String, String), (usize, usize)>,
}

struct Kept {
    account: String,
    sender: String,
    count: u64,
    /// The lines of the chunks as they go out.
    lines: Vec<String>,
}

impl Depot {
    pub(super) const fn new() -> Self {
        Self { has_room: true, files: BTreeMap::new(), fetches: BTreeMap::new() }
    }

    pub(super) fn disconnected(&mut self, device: &str) {
        self.fetches.retain(|(other, _), _| other != device);
    }

    /// Forgets chunks from `first` on, as a relay restored from an old copy would.
    pub(super) fn lose(&mut self, fid: &str, first: usize) {
        self.files.get_mut(fid).unwrap().lines.truncate(first);
    }

    /// Gives a file up without a word.
    pub(super) fn forget(&mut self, fid: &str) {
        self.files.remove(fid);
    }

    pub(super) fn is_kept(&self, fid: &str) -> bool {
        self.files.contains_key(fid)
    }

    /// Keeps a file that a line offers.
    pub(super) fn offered(&mut self, command: &Command<'_>) {
        let kept = Kept {
            account: command.to().unwrap().to_string(),
            sender: command.from().unwrap().to_string(),
            count: chunk_count(command),
            lines: Vec::new(),
        };
        self.files.insert(fid(command), kept);
    }
}

fn fid(command: &Command<'_>) -> String {
    command.parameter("FID").unwrap().to_owned()
}

/// The number of chunks of the file that an 800 offers.
pub(super) fn chunk_count(command: &Command<'_>) -> u64 {
    let (size, chunk) = (command.need("SIZE").unwrap(), command.need("CHUNK").unwrap());
    Shape::new(size, chunk).unwrap().chunk_count()
}

impl Relay {
    /// Does what a line asks of a kept file; whether that is all there is to do.
    pub(super) fn serve_kept(&mut self, device: &str, command: &Command<'_>) -> bool {
        let name = fid(command);
        let Some(kept) = self.depot.files.get(&name) else { return false };
        let (from, to) = (command.from().unwrap(), command.to().unwrap());
        let from_sender = from.as_str() == kept.sender && to.as_str() == kept.account;
        let from_reader = from.account().as_str() == kept.account && to.as_str() == kept.sender;
        let next = kept.lines.len() as u64;
        match command.code() {
            Code::FILE_CHUNK if from_sender => self.keep_chunk(device, command, &name),
            Code::FILE_FINISH if from_sender && next < kept.count => {
                self.miss(device, command, next);
            }
            Code::FILE_ACCEPT if from_reader => {
                self.reply(device, 250, command);
                let first = command.need::<u64>("FROM-CHUNK").unwrap() as usize;
                let end = command.read::<u64>("TO-CHUNK").unwrap().unwrap_or(u64::MAX) as usize;
                self.depot.fetches.insert((device.into(), name), (first, end));
                self.send_kept();
            }
            Code::FILE_WINDOW if from_reader => {
                let end = command.need::<u64>("TO-CHUNK").unwrap() as usize;
                let fetch = self.depot.fetches.get_mut(&(device.into(), name));
                let Some((_, window_end)) = fetch else { return false };
                *window_end = end.max(*window_end);
                self.send_kept();
            }
            Code::FILE_CANCEL | Code::FILE_VERDICT if from_sender || from_reader => {
                self.depot.forget(&name);
                return false;
            }
            _ => return false,
        }
        true
    }

    fn keep_chunk(&mut self, device: &str, command: &Command<'_>, name: &str) {
        let number = command.need::<u64>("N").unwrap();
        let mut line = Vec::new();
        command.forward(&[], &mut line);
        let line = String::from_utf8(line).unwrap();
        let kept = self.depot.files.get_mut(name).unwrap();
        let next = kept.lines.len() as u64;
        match kept.lines.get(number as usize) {
            Some(held) if *held == line => self.reply(device, 250, command),
            Some(_) => self.reply(device, 554, command),
            None if number > next => self.miss(device, command, next),
            None => {
                kept.lines.push(line);
                self.reply(device, 250, command);
                self.send_kept();
            }
        }
    }

    fn miss(&mut self, device: &str, command: &Command<'_>, next: u64) {
        let reply = ReplyBuilder::last(450)
            .parameter_if("H-ID", command.parameter("H-ID"))
            .parameter("RETRY", "1")
            .parameter("FROM-CHUNK", next);
        self.send(device, reply.text("earlier chunks are missing"));
    }

    fn send_kept(&mut self) {
        let mut out = Vec::new();
        for ((device, name), (next, end)) in &mut self.depot.fetches {
            let Some(kept) = self.depot.files.get(name) else { continue };
            let end = kept.lines.len().min(*end);
            for line in kept.lines.get(*next..end).unwrap_or_default() {
                out.push((device.clone(), line.clone()));
            }
            *next = end.max(*next);
        }
        for (device, line) in out {
            self.send(&device, line);
        }
    }

    /// The relay gives a kept file up and says so to both sides.
    pub(super) fn end_kept(&mut self, name: &str, code: u16) {
        let kept = self.depot.files.remove(name).unwrap();
        let record = self.newest(&kept.account).unwrap();
        let own = record.devices().iter().map(|one| format!("{}/{}", kept.account, one.name));
        let devices: Vec<String> = own.chain([kept.sender.clone()]).collect();
        for device in devices {
            let to = if device == kept.sender { &kept.sender } else { &kept.account };
            let line = format!("805 TO {to} FROM {} FID={name} CODE={code}", self.domain);
            self.inject(&device, &line);
        }
    }
}
