//! What every fault is tried on: a site, two people who talk through it, and the look at them
//! afterwards.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::link::Dialer;
use crate::person::Person;
use crate::process::resident_kib;
use crate::site::{Site, http_get};

/// Memory that the relay may have after any fault here, in KiB. It starts with less than a
/// quarter of it; what grows without bound passes it soon.
pub const RELAY_KIB_MAX: u64 = 400 * 1_024;

/// A site and two friends.
pub struct Stage {
    /// The domain with its processes.
    pub site: Site,
    /// Makes links past the wire.
    pub dialer: Dialer,
    /// One who talks.
    pub alice: Person,
    /// The other.
    pub bob: Person,
    /// Texts said, so that each is another.
    said: u32,
}

impl Stage {
    /// Builds a site with these overrides of the relay's configuration, and brings two people
    /// together.
    ///
    /// # Errors
    /// If anything of it does not work without a fault.
    pub fn set(folder: &Path, overrides: &str) -> Result<Self> {
        Self::at(Site::build(folder, "demo.local", overrides)?)
    }

    /// The same at a site that is there.
    ///
    /// # Errors
    /// As [`Stage::set`].
    pub fn at(site: Site) -> Result<Self> {
        let dialer = Dialer::new(&site)?;
        let alice = Person::enrol(&site, "alice")?;
        let bob = Person::enrol(&site, "bob")?;
        let mut stage = Self { site, dialer, alice, bob, said: 0 };
        stage.alice.come()?;
        stage.bob.come()?;
        stage.meet()?;
        stage.talk()?;
        Ok(stage)
    }

    fn meet(&mut self) -> Result<()> {
        let (alice, bob) = (self.alice.address().to_owned(), self.bob.address().to_owned());
        self.alice.act(json!({"do": "add", "person": bob}))?;
        self.bob.expect("subscription", |event| event["person"] == json!(alice))?;
        self.bob.act(json!({"do": "approve", "person": alice}))?;
        self.alice.expect("approved", |event| event["person"] == json!(bob))?;
        self.bob.act(json!({"do": "add", "person": alice}))?;
        self.alice.expect("subscription", |event| event["person"] == json!(bob))?;
        self.alice.act(json!({"do": "approve", "person": bob}))?;
        self.bob.expect("approved", |event| event["person"] == json!(alice))?;
        Ok(())
    }

    /// Each says something to the other and is heard.
    ///
    /// # Errors
    /// If one is not.
    pub fn talk(&mut self) -> Result<()> {
        self.said += 1;
        let (to_bob, to_alice) = (format!("hear me, {}", self.said), format!("yes, {}", self.said));
        let (alice, bob) = (self.alice.address().to_owned(), self.bob.address().to_owned());
        self.alice.say(&bob, &to_bob)?;
        self.bob.expect("message", |event| event["text"] == json!(to_bob))?;
        self.bob.say(&alice, &to_alice)?;
        self.alice.expect("message", |event| event["text"] == json!(to_alice))?;
        Ok(())
    }

    /// What must hold after every fault: the relay runs and says that it is ready, nothing in it
    /// panicked, its memory is bounded, and two people talk through it.
    ///
    /// # Errors
    /// The first of it that does not hold.
    pub fn check(&mut self) -> Result<()> {
        self.talk()?;
        self.site.check_relay()?;
        let (status, body) = http_get(self.site.monitor(), "/ready")?;
        ensure!(status == 200, "the relay is not ready: {body}");
        let kib = self.relay_kib()?;
        ensure!(kib <= RELAY_KIB_MAX, "the relay has {kib} KiB of memory");
        self.site.check_logs()
    }

    /// The relay's memory in KiB.
    ///
    /// # Errors
    /// If it does not run.
    pub fn relay_kib(&self) -> Result<u64> {
        resident_kib(self.site.relay_pid().context("the relay does not run")?)
    }

    /// A figure of the relay's page `/metrics`, 0 if it is not there; `name` with its label, as
    /// `relay_handshakes_total{outcome="resumed"}`.
    ///
    /// # Errors
    /// If the relay does not answer.
    pub fn figure(&self, name: &str) -> Result<u64> {
        let (_, page) = http_get(self.site.monitor(), "/metrics")?;
        let found = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(found.map(str::parse).transpose()?.unwrap_or(0))
    }
}
