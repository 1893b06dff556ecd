//! The conversation that shows the whole system: two people, one relay, every promise tried.
//!
//! Each step is a function that fails with what went wrong; the order is that of a day's use,
//! faults last. What each person sees is told to the [`Narrator`].

mod busy;
mod chat;
mod fault;
mod file;
mod narrator;
mod tamper;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::person::Person;
use crate::site::Site;

pub use narrator::Narrator;

/// Messages after which this site's policy asks for a new session key. Small, so that the
/// exchange passes the limit more than twice.
pub const REFRESH_MESSAGES: u64 = 10;
/// Octets of the file that is sent while both chat.
pub const FILE_OCTETS: u64 = 64 << 20;
/// How old a data key of the store may get here: short, so that an absent token is felt.
pub const DATA_KEY_AGE: Duration = Duration::from_secs(5);

/// One part of the exchange.
type Step = fn(&mut Exchange) -> Result<()>;

/// Two people at one site.
pub struct Exchange {
    /// The domain with its processes.
    pub site: Site,
    /// The one who begins.
    pub alice: Person,
    /// The other.
    pub bob: Person,
    narrator: Narrator,
    /// Words that must never be seen on the wire or on the relay's disk.
    secrets: Vec<String>,
}

impl Exchange {
    /// Builds the site in `folder` and enrols both people.
    ///
    /// # Errors
    /// If anything does not start.
    pub fn prepare(folder: &Path, narrator: Narrator) -> Result<Self> {
        narrator.step("a token, a domain and its relay");
        let overrides = format!(
            "data_key_age = \"{}s\"\n[policy]\nrefresh_messages = {REFRESH_MESSAGES}\n",
            DATA_KEY_AGE.as_secs()
        );
        let site = Site::build(folder, "demo.local", &overrides)?;
        narrator.says("relay", &format!("serves demo.local on {}", site.relay_address()));
        narrator.step("alice and bob enrol by invitation");
        let alice = Person::enrol(&site, "alice")?;
        let bob = Person::enrol(&site, "bob")?;
        Ok(Self { site, alice, bob, narrator, secrets: Vec::new() })
    }

    /// The whole exchange, in order.
    ///
    /// # Errors
    /// The first promise that was not kept.
    pub fn run(&mut self) -> Result<()> {
        let steps: &[(&str, Step)] = &[
            ("they add each other", Self::meet),
            ("alice types and sends 20 signed messages", Self::talk),
            ("bob goes away and offline; 5 messages wait for him", Self::wait_for_bob),
            ("bob is busy: alice is asked, holds one, sends one urgent", Self::disturb),
            ("the session key was refreshed by count", Self::count_refreshes),
            ("a 64 MiB file while both chat; the link is cut twice", Self::send_file),
            ("changed lines are refused by the relay", Self::change_lines),
            ("a relay that lies is noticed", Self::lie),
            ("the relay is killed in the middle and restarted", Self::kill_relay),
            ("the token is taken away and returned", Self::take_token_away),
            ("what the wire and the disk hold", Self::inspect),
        ];
        for (title, step) in steps {
            self.narrator.step(title);
            step(self).with_context(|| format!("step failed: {title}"))?;
        }
        self.alice.leave()?;
        self.bob.leave()?;
        Ok(())
    }

    /// Sends a text, tells it, and remembers that it must stay secret.
    fn say(&mut self, from_alice: bool, text: &str) -> Result<u16> {
        let (from, to) = if from_alice {
            (&mut self.alice, self.bob.address().to_owned())
        } else {
            (&mut self.bob, self.alice.address().to_owned())
        };
        let result = from.say(&to, text)?;
        let code = u16::try_from(result["code"].as_u64().unwrap_or_default())?;
        self.narrator.says(from.name(), &format!("\u{2192} {} [{code}]", shorten(text)));
        self.secrets.push(text.to_owned());
        Ok(code)
    }

    /// Waits for exactly this message and tells it.
    fn hear(&mut self, at_alice: bool, text: &str) -> Result<serde_json::Value> {
        let person = if at_alice { &mut self.alice } else { &mut self.bob };
        let message = person.hear()?;
        let heard = message["text"].as_str().unwrap_or_default();
        ensure!(heard == text, "{} should see {text:?}, saw {message}", person.name());
        ensure!(message["signed"] == true, "not shown as signed: {message}");
        self.narrator.says(person.name(), &format!("\u{2190} {}", shorten(text)));
        Ok(message)
    }

    /// The wire must hold no plaintext, and neither must anything that the relay wrote.
    fn inspect(&mut self) -> Result<()> {
        let needles: Vec<&[u8]> = self
            .secrets
            .iter()
            .filter(|secret| secret.len() >= 12)
            .map(|secret| secret.as_bytes())
            .collect();
        let found = self.site.wire().find(&needles)?;
        ensure!(found.is_empty(), "plaintext on the wire: {:?}", String::from_utf8_lossy(found[0]));
        for folder in ["store"] {
            for entry in walk(&self.site.folder().join(folder))? {
                let found = crate::wire::find_in_file(&entry, &needles)?;
                ensure!(found.is_empty(), "plaintext in {}", entry.display());
            }
        }
        let traced = crate::wire::find_in_file(&self.alice.trace(), &needles)?;
        ensure!(traced.is_empty(), "plaintext inside TLS");
        self.narrator.says(
            "wire",
            &format!(
                "{} octets captured, none of {} texts among them",
                self.site.wire().captured(),
                needles.len()
            ),
        );
        let lines = std::fs::read_to_string(self.alice.trace())?;
        if let Some(line) = lines.lines().find(|line| line.starts_with("C: 100 ")) {
            self.narrator.says("relay", &format!("saw inside TLS: {}", shorten_line(line)));
        }
        Ok(())
    }
}

/// The beginning of a text for one line of narration.
fn shorten(text: &str) -> String {
    let line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(60).collect();
    if text.chars().count() > 60 { format!("{line}\u{2026}") } else { line }
}

/// A protocol line with its long words cut.
fn shorten_line(line: &str) -> String {
    line.split(' ')
        .map(|word| match word.char_indices().nth(28) {
            Some((end, _)) => format!("{}\u{2026}", word.get(..end).unwrap_or(word)),
            None => word.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// All files below a folder.
fn walk(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(walk(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}
