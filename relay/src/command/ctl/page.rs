//! The relay's answers as pages for eyes.
//!
//! Works on the JSON that `--json` prints, so both say the same. A field that this file does not
//! know is printed as it stands at the end of its page: an older `ctl` hides nothing of a newer
//! relay. What is in an answer can come from users; controls in it are shown, not obeyed.

use serde_json::{Map, Value};

use super::Question;
use super::figure::{moment, size, span};

/// What each counter of the spool counts, in the order of the life of a line, then of a file.
const COUNTERS: &[(&str, &str)] = &[
    ("taken", "lines taken and made durable"),
    ("queued", "put into queues, one for each device"),
    ("passed", "given to a device at once"),
    ("replayed", "given to a device when it came"),
    ("acknowledged", "acknowledgements of devices made durable"),
    ("repeated", "repeats of lines taken before, not taken twice"),
    ("held", "held for people who are busy"),
    ("released", "of these moved into queues when they were free"),
    ("vanished", "dropped without a word: blocked, unknown, or a stranger over the limit"),
    ("over_quota", "refused because a queue was full"),
    ("expired", "given up because nobody fetched them in time"),
    ("bounced", "told to their senders as undeliverable"),
    ("files_kept", "files taken to be kept for people who are away"),
    ("files_ended", "of these given up: not fetched in time, or damaged"),
    ("files_removed", "kept files removed, for whatever reason"),
    ("chunks_passed", "chunks of files passed on without storing them"),
    ("chunks_kept", "chunks made durable for kept files"),
    ("chunks_fetched", "chunks of kept files given to a device"),
];
/// Columns between two of a table.
const GAP: &str = "  ";

/// The answer to a question; `now_ms` is the present in milliseconds since 1970.
pub(super) fn page(question: &Question, answer: &Value, now_ms: u64) -> String {
    let Value::Object(fields) = answer else { return format!("{}\n", plain(answer)) };
    let mut page = Page { fields: fields.clone(), text: String::new(), now_ms };
    match question {
        Question::Invite { account, .. } => page.invite(account.as_deref()),
        Question::Policy { .. } => page.policy(),
        Question::Revoke { account, device } => page.revoke(account, device.as_deref()),
        Question::Shutdown => {
            page.fields.remove("stopping");
            page.line("The relay is stopping: commits finish, clients are told, then it ends.");
        }
        Question::Spool { action: None } => page.spool(),
        Question::Spool { .. } => {
            page.fields.remove("rekeyed");
            page.line("A new data key seals what is stored from now on.");
        }
        Question::Status => page.status(),
        Question::Users => page.users(),
    }
    page.rest();
    page.text
}

/// An answer while it is put into words.
struct Page {
    /// What is not in words yet.
    fields: Map<String, Value>,
    text: String,
    now_ms: u64,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.text.push_str(text.trim_end());
        self.text.push('\n');
    }

    /// A name and its value, aligned with the others.
    fn entry(&mut self, name: &str, value: &str) {
        self.line(&format!("{name:<16}{value}"));
    }

    fn take_text(&mut self, name: &str) -> String {
        self.fields.remove(name).map_or_else(String::new, |value| plain(&value))
    }

    fn take_number(&mut self, name: &str) -> u64 {
        self.fields.remove(name).and_then(|value| value.as_u64()).unwrap_or(0)
    }

    fn take_moment(&mut self, name: &str) -> String {
        let at = self.take_number(name);
        moment(at, self.now_ms)
    }

    fn take_map(&mut self, name: &str) -> Map<String, Value> {
        match self.fields.remove(name) {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        }
    }

    fn take_list(&mut self, name: &str) -> Vec<Value> {
        match self.fields.remove(name) {
            Some(Value::Array(values)) => values,
            _ => Vec::new(),
        }
    }

    /// Entries for all that was not put into words.
    fn rest(&mut self) {
        for (name, value) in std::mem::take(&mut self.fields) {
            self.entry(&format!("{} ", name.replace('_', " ")), &plain(&value));
        }
    }

    fn invite(&mut self, account: Option<&str>) {
        let (link, expires) = (self.take_text("link"), self.take_moment("expires"));
        self.line(&link);
        let whom = account.map_or("anybody who has it".to_owned(), shown);
        self.line(&format!("It lets {whom} in, once, until {expires}."));
        self.line("Give it over a channel you trust: it vouches for the domain's keys.");
    }

    fn policy(&mut self) {
        let (version, line) = (self.take_text("version"), self.take_text("line"));
        let (from, until) = (self.take_moment("valid_from"), self.take_moment("valid_until"));
        let is_signed = self.fields.remove("signed_sessions_only") == Some(Value::Bool(true));
        let file = size(self.take_number("file_octets_max"));
        self.entry("version", &version);
        self.entry("valid from", &from);
        self.entry("valid until", &until);
        self.entry(
            "sessions",
            if is_signed { "signed only" } else { "signed, or unsigned where both allow it" },
        );
        self.entry("largest file", &file);
        self.rest();
        self.line(&format!("\nAs it is signed and published:\n{line}"));
    }

    fn revoke(&mut self, account: &str, device: Option<&str>) {
        self.fields.remove("revoked");
        let is_new = self.fields.remove("new") == Some(Value::Bool(true));
        let whose = match device {
            Some(device) => format!("The device {} of {}", shown(device), shown(account)),
            None => format!("The identity key of {}", shown(account)),
        };
        self.line(&match is_new {
            true => format!("{whose} is revoked. Contacts are told that the domain did it."),
            false => format!("{whose} was revoked before; nothing has changed."),
        });
    }

    fn spool(&mut self) {
        self.line("Since the relay started:");
        for (name, meaning) in COUNTERS {
            if let Some(value) = self.fields.remove(*name) {
                self.line(&format!("{:>12}{GAP}{meaning}", plain(&value)));
            }
        }
        for (name, value) in std::mem::take(&mut self.fields) {
            self.line(&format!("{:>12}{GAP}{}", plain(&value), shown(&name).replace('_', " ")));
        }
    }

    fn status(&mut self) {
        let (domain, version) = (self.take_text("domain"), self.take_text("version"));
        let is_ready = self.fields.remove("ready") == Some(Value::Bool(true));
        let hindrance = self.take_text("hindrance");
        self.line(&match is_ready {
            true => format!("{domain}, relay {version}: ready"),
            false => format!("{domain}, relay {version}: NOT READY: {hindrance}"),
        });
        let token = self.take_text("token");
        self.entry("token", &token);
        let (links, devices) =
            (self.take_number("connections"), self.take_number("devices_online"));
        self.entry("connections", &format!("{links}, with {}", counted(devices, "device")));
        let policy = self.take_text("policy_version");
        self.entry("policy", &format!("version {policy}"));
        let waiting = [
            (self.take_number("commits_waiting"), "commit"),
            (self.take_number("signatures_waiting"), "signature"),
            (self.take_number("handshakes_waiting"), "handshake"),
        ];
        let waiting: Vec<String> =
            waiting.into_iter().map(|(count, what)| counted(count, what)).collect();
        self.entry("under way", &waiting.join(", "));
        let store = self.take_map("store");
        if !store.is_empty() {
            self.store(store);
        }
        let ciphers = self.take_list("ciphers");
        for (position, cipher) in ciphers.iter().enumerate() {
            self.entry(if position == 0 { "ciphers" } else { "" }, &plain(cipher));
        }
    }

    fn store(&mut self, fields: Map<String, Value>) {
        let mut inner = Page { fields, text: String::new(), now_ms: self.now_ms };
        let commits = counted(inner.take_number("commits"), "commit");
        let (refused, unknown) = (inner.take_number("refused"), inner.take_number("unknown"));
        let queued = inner.take_number("queued_commits");
        let flush = inner.take_number("flush_us_max");
        let keys = counted(inner.take_number("data_keys"), "data key");
        self.entry(
            "store",
            &format!(
                "{commits} since the start, {refused} refused, {unknown} of unknown outcome, \
                 {queued} waiting"
            ),
        );
        self.entry("", &format!("longest flush {}, {keys}", fine_span(flush)));
        for (name, value) in inner.fields {
            let value = match value.as_u64().filter(|_| name.ends_with("octets")) {
                Some(octets) => size(octets),
                None => plain(&value),
            };
            self.entry("", &format!("{}: {value}", shown(&name).replace('_', " ")));
        }
    }

    fn users(&mut self) {
        let users = self.take_list("users");
        let is_complete = self.fields.remove("complete") != Some(Value::Bool(false));
        if users.is_empty() {
            self.line("Nobody is registered: `ctl invite` lets somebody in.");
            return;
        }
        let header = ["ACCOUNT", "DEVICES", "STATE", "REGISTERED", "RECORD ENDS"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        rows.extend(users.iter().map(|user| self.user(user)));
        let table = table(&rows);
        self.text.push_str(&table);
        if !is_complete {
            self.line(&format!("These are the first {}; there are more.", users.len()));
        }
    }

    fn user(&self, user: &Value) -> Vec<String> {
        let field = |name: &str| user.get(name).cloned().unwrap_or(Value::Null);
        let time = |name: &str| moment(field(name).as_u64().unwrap_or(0), self.now_ms);
        let devices = match field("devices") {
            Value::Array(devices) => devices.iter().map(plain).collect::<Vec<_>>().join(", "),
            other => plain(&other),
        };
        let state = match field("suspended") == Value::Bool(true) {
            true => "revoked".to_owned(),
            false => format!("record {}", plain(&field("record_version"))),
        };
        vec![plain(&field("account")), devices, state, time("registered_at"), time("record_ends")]
    }
}

/// Rows with their columns aligned; the last one is as long as it is.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join(GAP).trim_end());
        text.push('\n');
    }
    text
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A length of time given in microseconds.
fn fine_span(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} \u{b5}s"),
        1_000..2_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => span(us / 1_000).unwrap_or_default(),
    }
}

/// A value without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => shown(text),
        Value::Null => "none".to_owned(),
        other => shown(&other.to_string()),
    }
}

/// A text on one line without controls.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

#[cfg(test)]
mod tests;
