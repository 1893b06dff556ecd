//! A device without a client: an account, its keys, and lines made by hand.
//!
//! The relay cannot tell it from a client. Bodies are not sealed, which no relay sees either.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use client::link::Link as Invitation;
use protocol::canonical::sha256;
use protocol::capability::Capabilities;
use protocol::command::CommandBuilder;
use protocol::identifier::{GenerationId, MessageId, SessionId};
use protocol::proof::ALPN_CLIENT;
use protocol::record::RecordBuilder;
use protocol::registration::Admission;
use protocol::signature::{Signer as _, SoftwareSigner};
use protocol::state::client::{Handshake, Step};
use protocol::{AddressBuf, Code, Command, Reply, Timestamp, base64};

use crate::link::{Dialer, Link};
use crate::site::Site;

/// How long the records of devices here are valid.
const VALIDITY_MS: u64 = 365 * 24 * 3_600_000;
/// The largest file that they offer to take.
const FILE_OCTETS_MAX: u64 = 1 << 30;

/// An account with one device.
pub struct Device {
    /// The account's address.
    pub account: AddressBuf,
    /// The device's address.
    pub device: AddressBuf,
    /// The device's key, made from its name.
    pub key: SoftwareSigner,
    record: String,
    last_sequence: u64,
}

impl Device {
    /// Registers `name` at the site.
    ///
    /// # Errors
    /// If the relay refuses.
    pub fn enrol(site: &Site, dialer: &Dialer, name: &str) -> Result<Self> {
        let (this, link) = Self::enrol_here(site, dialer, name)?;
        link.quit()?;
        Ok(this)
    }

    /// The same, and stays on the link on which it registered.
    ///
    /// # Errors
    /// If the relay refuses.
    pub fn enrol_here(site: &Site, dialer: &Dialer, name: &str) -> Result<(Self, Link)> {
        let account = AddressBuf::parse(&format!("{name}@{}", site.domain()))?;
        let device = AddressBuf::with_device(account.as_address(), "d1")?;
        let identity = signer(&format!("identity of {account}"))?;
        let key = signer(&format!("device {device}"))?;
        let now = now();
        let record = RecordBuilder::new(account.as_address(), now, now.plus_ms(VALIDITY_MS))
            .device("d1", key.public_key())
            .sign(&identity)?;
        let this = Self { account, device, key, record, last_sequence: 0 };
        let link = site.invite(this.account.as_str())?;
        let code = Invitation::parse(&link)?.invitation.context("a link without an invitation")?;
        let link = this.enter(dialer.dial()?, Some(code))?;
        Ok((this, link))
    }

    /// Logs in; the queue is not taken up.
    ///
    /// # Errors
    /// If the relay refuses.
    pub fn log_in(&self, dialer: &Dialer) -> Result<Link> {
        self.enter(dialer.dial()?, None)
    }

    /// Logs in from one of this machine's loopback addresses.
    ///
    /// # Errors
    /// If the relay refuses.
    pub fn log_in_from(&self, dialer: &Dialer, from: [u8; 4]) -> Result<Link> {
        self.enter(dialer.dial_from(from)?, None)
    }

    /// Logs in and takes up the queue behind `after`.
    ///
    /// # Errors
    /// If the relay refuses.
    pub fn resume(&self, dialer: &Dialer, after: u64) -> Result<Link> {
        let mut link = self.log_in(dialer)?;
        link.ask(&format!("013 H-Q={after}"), 250)?;
        Ok(link)
    }

    /// A link on which somebody proves possession of a key that is not this device's, in its
    /// name: it may register, and nothing else.
    ///
    /// # Errors
    /// If the relay refuses.
    pub fn impostor(&self, dialer: &Dialer) -> Result<Link> {
        let key = signer("an impostor")?;
        match self.shake(&key, dialer.dial()?, None)? {
            Shaken::Unknown(link) => Ok(link),
            Shaken::Proven(_) => bail!("the relay takes any key for {}", self.device),
        }
    }

    fn enter(&self, link: Link, invitation: Option<String>) -> Result<Link> {
        match self.shake(&self.key, link, invitation)? {
            Shaken::Proven(link) => Ok(link),
            Shaken::Unknown(_) => bail!("the relay does not know {}", self.device),
        }
    }

    fn shake(
        &self,
        key: &SoftwareSigner,
        mut link: Link,
        invitation: Option<String>,
    ) -> Result<Shaken> {
        let own = Capabilities::full(FILE_OCTETS_MAX);
        let device = self.device.as_address();
        let public = key.public_key().clone();
        let mut handshake = Handshake::new(device, public, ALPN_CLIENT, link.exporter()?, own);
        loop {
            let line = link.hear()?.context("the link ended during the login")?;
            let line = match handshake.receive(&Reply::parse(line.as_bytes())?)? {
                Step::Wait => continue,
                Step::Ready { .. } => return Ok(Shaken::Proven(link)),
                Step::Send(line) => line,
                Step::Sign(octets) => handshake.signed(&key.sign(&octets)?)?,
                Step::Register => match &invitation {
                    None => return Ok(Shaken::Unknown(link)),
                    Some(code) => {
                        let admission = Admission::Invitation(code.as_str().into());
                        handshake.register(&admission, &self.record)?
                    }
                },
            };
            link.say(&line)?;
        }
    }

    /// Approves `other` on a link of this device: what they write to it is then answered truly.
    ///
    /// # Errors
    /// If the relay refuses.
    pub fn approve(&self, link: &mut Link, other: &Self) -> Result<()> {
        self.speak(link, Code::APPROVE, other)
    }

    /// Sends `other` a line that needs nothing but an address.
    fn speak(&self, link: &mut Link, code: Code, other: &Self) -> Result<()> {
        link.say(&format!("{code} TO {} FROM {}", other.account, self.device))?;
        let reply = link.reply()?;
        ensure!(reply.starts_with("250") || reply.starts_with("252"), "{code} got {reply}");
        Ok(())
    }

    /// The next message to `to`, with these octets as body. Its H-ID is unique for this device.
    #[must_use]
    pub fn message(&mut self, to: &AddressBuf, body: &[u8]) -> String {
        let line = self.next_message(to);
        line.parameter("H-ID", self.last_sequence).body(body)
    }

    /// The same, signed by the device.
    ///
    /// # Errors
    /// If the key does not sign.
    pub fn signed_message(&mut self, to: &AddressBuf, body: &[u8]) -> Result<String> {
        let commitment = base64::encode(&[9; 32]);
        let line = self.next_message(to).parameter("KC", commitment);
        let line = line.parameter("H-ID", self.last_sequence);
        line.sign(body, |octets| self.key.sign(octets).map_err(anyhow::Error::from))
    }

    /// The next message up to its hop parameters.
    fn next_message(&mut self, to: &AddressBuf) -> CommandBuilder {
        self.last_sequence += 1;
        let id = sha256(&[self.device.as_str().as_bytes(), &self.last_sequence.to_be_bytes()]);
        let id = id.first_chunk().copied().unwrap_or([0; 16]);
        Command::builder(Code::MESSAGE)
            .to(to.as_address())
            .from(self.device.as_address())
            .parameter("SID", SessionId::from_octets(&[7; 16]))
            .parameter("GEN", GenerationId::from_octets(&[9; 32]))
            .parameter("SEQ", self.last_sequence)
            .parameter("TS", now().0)
            .parameter("MID", MessageId::from_octets(&id))
    }
}

/// How far a login came.
enum Shaken {
    Proven(Link),
    Unknown(Link),
}

/// Lets both approve each other, so that a message is answered 250 where its device is there.
///
/// # Errors
/// If the relay refuses.
pub fn befriend(dialer: &Dialer, one: &Device, other: &Device) -> Result<()> {
    for (asking, asked) in [(one, other), (other, one)] {
        let mut link = asking.log_in(dialer)?;
        asking.speak(&mut link, Code::SUBSCRIBE, asked)?;
        link.quit()?;
        let mut link = asked.log_in(dialer)?;
        asked.approve(&mut link, asking)?;
        link.quit()?;
    }
    Ok(())
}

/// The wall clock.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn signer(name: &str) -> Result<SoftwareSigner> {
    Ok(SoftwareSigner::ed25519(&sha256(&[name.as_bytes()]))?)
}
