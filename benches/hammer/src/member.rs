//! One person: keys made here, an account opened by invitation, logins over real TLS.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use client::connection::{Connection, Dialer};
use client::link::Link;
use client::random::System;
use protocol::capability::Capabilities;
use protocol::proof::ALPN_CLIENT;
use protocol::record::RecordBuilder;
use protocol::registration::Admission;
use protocol::signature::{Signer as _, SoftwareSigner};
use protocol::state::client::{Handshake, Step};
use protocol::{AddressBuf, Line, Timestamp, base64};
use system::site::Site;

/// How long a record made here holds.
const RECORD_LIFE_MS: u64 = 24 * 60 * 60 * 1_000;

/// A person with one device.
pub(crate) struct Member {
    /// The device.
    pub(crate) device: AddressBuf,
    /// Signs for the device.
    pub(crate) signer: Arc<SoftwareSigner>,
    /// The way to the relay itself, past the wire that captures.
    relay: String,
    pin: [u8; 32],
}

impl Member {
    /// Makes keys and opens the account `local` at the site. Gives the member and its link.
    pub(crate) async fn enrol(site: &Site, local: &str) -> Result<(Self, Connection)> {
        let account = format!("{local}@{}", site.domain());
        let link = Link::parse(&site.invite(&account)?)?;
        let pin = link.to_pin().tls.context("the invitation pins the relay's key")?;
        let random = &mut System::new();
        let identity = client::keyfile::SigningSecret::generate_ed25519(random).ok();
        let device = client::keyfile::SigningSecret::generate_ed25519(random).ok();
        let identity = identity.context("random octets")?.to_signer()?;
        let member = Self {
            device: AddressBuf::parse(&format!("{account}/d1"))?,
            signer: Arc::new(device.context("random octets")?.to_signer()?),
            relay: site.relay_address().to_string(),
            pin: base64::decode_array(&pin).ok().context("a pin of 32 octets")?,
        };
        // The relay's clock may be a little behind.
        let from = Timestamp(now().0.saturating_sub(protocol::limits::TIMESTAMP_AHEAD_MS_MAX));
        let account = member.device.as_address().account();
        let record = RecordBuilder::new(account, from, now().plus_ms(RECORD_LIFE_MS))
            .device("d1", member.signer.public_key())
            .sign(&identity)?;
        let invitation = link.invitation.context("the link has an invitation")?;
        let admission = Admission::Invitation(invitation.into());
        let connection = member.connect(Some((&admission, &record))).await?;
        Ok((member, connection))
    }

    /// A new connection with a full handshake and a login.
    pub(crate) async fn log_in(&self) -> Result<Connection> {
        self.connect(None).await
    }

    async fn connect(&self, registration: Option<(&Admission, &str)>) -> Result<Connection> {
        let domain = self.device.as_address().domain();
        // A dialer of its own has no tickets: the handshake is a full one.
        let dialer = Dialer::new(domain, &self.relay, &[self.pin])?;
        let mut connection = dialer.dial().await?;
        let mut handshake = Handshake::new(
            self.device.as_address(),
            self.signer.public_key().clone(),
            ALPN_CLIENT,
            connection.exporter,
            Capabilities::full(u64::MAX),
        );
        loop {
            let line = connection.receiver.receive().await?.context("the relay hung up")?;
            let Line::Reply(reply) = Line::parse(&line)? else { bail!("a command before login") };
            let answer = match handshake.receive(&reply)? {
                Step::Wait => continue,
                Step::Send(line) => line,
                Step::Sign(octets) => handshake.signed(&self.signer.sign(&octets)?)?,
                Step::Register => {
                    let (admission, record) = registration.context("the account is not known")?;
                    handshake.register(admission, record)?
                }
                Step::Ready { .. } => return Ok(connection),
            };
            connection.sender.send(format!("{answer}\r\n").as_bytes()).await?;
        }
    }

    /// A command line that is sent and answered before anything else. The reply's code.
    pub(crate) async fn ask(connection: &mut Connection, line: &str) -> Result<u16> {
        connection.sender.send(format!("{line}\r\n").as_bytes()).await?;
        loop {
            let line = connection.receiver.receive().await?.context("the relay hung up")?;
            if let Line::Reply(reply) = Line::parse(&line)? {
                return Ok(reply.code().number());
            }
        }
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
