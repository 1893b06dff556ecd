//! The serving side of a login: 220, 010, 011, 012, and 600 for a new account.
//!
//! A nonce serves one proof. After a proof that fails the client begins again with 011, at most
//! [`PROOF_FAILURES_MAX`] times on one link. Whether a user exists does not show: 011 is
//! answered alike, and a good proof for an unknown key admits 600 only (SPEC.md §5).

use crate::address::{Address, AddressBuf};
use crate::capability::{Capabilities, Reader};
use crate::code::Code;
use crate::command::Command;
use crate::error::{Error, StatementError};
use crate::identifier::Nonce;
use crate::parameter::list;
use crate::proof::{EXPORTER_OCTETS, Proof};
use crate::registration::Registration;
use crate::reply::ReplyBuilder;
use crate::signature::{Algorithm, PublicKey, SignatureError};
use crate::table::{Link, Side, State, check};

/// Proofs that may fail on one link before the relay closes it.
pub const PROOF_FAILURES_MAX: u8 = 3;

/// The login of one link, seen by the relay.
#[derive(Clone, Debug)]
pub struct Handshake {
    domain: AddressBuf,
    alpn: &'static str,
    offered: Capabilities,
    agreed: Capabilities,
    state: State,
    device: Option<AddressBuf>,
    claim: Option<(PublicKey, Nonce)>,
    /// Between 012 and [`Handshake::settle`]: no other step of the login is taken.
    is_proving: bool,
    failures: u8,
}

/// What the relay does after a line of the login.
#[derive(Clone, Debug)]
pub enum Step {
    /// Send this line, CRLF included.
    Reply(String),
    /// Check this proof and look the key up, then call [`Handshake::settle`].
    Prove(Claim),
}

/// A proof of possession that waits for its check.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The device.
    pub device: AddressBuf,
    /// The key that it claims to hold.
    pub key: PublicKey,
    /// The octets of SPEC.md §5 that the signature is over.
    pub octets: Vec<u8>,
    /// The signature of 012.
    pub signature: Vec<u8>,
    /// H-ID of 012, for the reply.
    pub hop_id: Option<Box<str>>,
}

impl Claim {
    /// Checks the signature on this processor.
    ///
    /// # Errors
    /// [`SignatureError::Signature`].
    pub fn verify(&self) -> Result<(), SignatureError> {
        self.key.verify(&self.octets, &self.signature)
    }
}

/// What came of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The signature holds and the account's record lists the key for that device; the
    /// highest H-Q given to the device so far.
    Known {
        /// H-Q.
        queue: u64,
    },
    /// The signature does not hold, or the key is revoked.
    Refused,
    /// The signature holds, but no record lists the key.
    Unknown,
}

impl Handshake {
    /// A link that was just accepted for `domain` under this ALPN.
    #[must_use]
    pub fn new(domain: Address<'_>, alpn: &'static str, offered: Capabilities) -> Self {
        Self {
            domain: domain.to_buf(),
            alpn,
            offered,
            agreed: Capabilities::default(),
            state: State::Connected,
            device: None,
            claim: None,
            is_proving: false,
            failures: 0,
        }
    }

    /// The line that greets the client, CRLF included.
    #[must_use]
    pub fn greeting(&self) -> String {
        ReplyBuilder::last(220).text(&format!("{} CIM/1 ready", self.domain))
    }

    /// The state of the link.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// What [`check`] needs to know of a line from the client.
    #[must_use]
    pub fn link(&self) -> Link<'_> {
        Link {
            sender: Side::Client,
            state: self.state,
            device: self.device.as_ref().map(AddressBuf::as_address),
        }
    }

    /// The device: claimed from 010 on, proven in [`State::Proven`].
    #[must_use]
    pub fn device(&self) -> Option<Address<'_>> {
        self.device.as_ref().map(AddressBuf::as_address)
    }

    /// The key that 011 claimed.
    #[must_use]
    pub fn key(&self) -> Option<&PublicKey> {
        self.claim.as_ref().map(|(key, _)| key)
    }

    /// What both sides can do; before 010 the protocol's defaults.
    #[must_use]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.agreed
    }

    /// Whether too many proofs failed: the relay answers 421 and closes.
    #[must_use]
    pub const fn is_exhausted(&self) -> bool {
        self.failures >= PROOF_FAILURES_MAX
    }

    /// Takes 010, 011 or 012. `nonce` is fresh; it is used for 011 only.
    ///
    /// # Errors
    /// As [`check`]; [`Error::NotYours`] for an address of another domain;
    /// [`Error::BadParameter`] for VER without 1; [`StatementError::Key`]; [`Error::Order`]
    /// for any other command, and while a proof waits for its check. The state does not change.
    pub fn receive(
        &mut self,
        command: &Command<'_>,
        nonce: Nonce,
        exporter: &[u8; EXPORTER_OCTETS],
    ) -> Result<Step, Error> {
        check(command, &self.link())?;
        match command.code() {
            Code::HELLO => self.hello(command).map(Step::Reply),
            Code::IDENTITY => self.identity(command, nonce).map(Step::Reply),
            Code::PROOF => self.proof(command, exporter).map(Step::Prove),
            _ => Err(Error::Order),
        }
    }

    fn hello(&mut self, command: &Command<'_>) -> Result<String, Error> {
        let device = command.from().ok_or(Error::BadAddress)?;
        if device.domain() != self.domain.as_str() {
            return Err(Error::NotYours);
        }
        let versions: Vec<u32> = list(command.need("VER")?, 8).unwrap_or_default();
        if !versions.contains(&VERSION) {
            return Err(Error::BadParameter("VER"));
        }
        let mut reader = Reader::new();
        if let Some(value) = command.parameter("CAP") {
            reader.add(value)?;
        }
        self.agreed = self.offered.common(&reader.finish());
        self.device = Some(device.to_buf());
        self.state = State::Greeted;
        Ok(ReplyBuilder::last(250)
            .parameter_if("H-ID", command.parameter("H-ID"))
            .parameter("VER", VERSION)
            .parameter("CAP", &self.offered)
            .text("hello"))
    }

    fn identity(&mut self, command: &Command<'_>, nonce: Nonce) -> Result<String, Error> {
        let algorithm: Algorithm = command.need("ALG")?;
        let key = PublicKey::parse(algorithm, &command.body())?;
        self.claim = Some((key, nonce));
        self.state = State::Identified;
        Ok(ReplyBuilder::last(334)
            .parameter("NONCE", nonce)
            .parameter_if("H-ID", command.parameter("H-ID"))
            .text("prove it"))
    }

    fn proof(
        &mut self,
        command: &Command<'_>,
        exporter: &[u8; EXPORTER_OCTETS],
    ) -> Result<Claim, Error> {
        let (Some((key, nonce)), Some(device), false) =
            (&self.claim, &self.device, self.is_proving)
        else {
            return Err(Error::Order);
        };
        let proof = Proof {
            exporter,
            nonce: nonce.as_str(),
            alpn: self.alpn,
            server_domain: self.domain.as_str(),
            address: device.as_address(),
            key,
        };
        let claim = Claim {
            device: device.clone(),
            key: key.clone(),
            octets: proof.octets(),
            signature: command.signature(),
            hop_id: command.parameter("H-ID").map(Into::into),
        };
        self.is_proving = true;
        Ok(claim)
    }

    /// Ends a proof; gives the reply to 012, CRLF included. The nonce is spent either way.
    pub fn settle(&mut self, claim: &Claim, outcome: Outcome) -> String {
        debug_assert!(self.is_proving);
        self.is_proving = false;
        let reply = |code| ReplyBuilder::last(code).parameter_if("H-ID", claim.hop_id.as_ref());
        match outcome {
            Outcome::Known { queue } => {
                self.state = State::Proven;
                reply(250).parameter("H-Q", queue).text("welcome")
            }
            Outcome::Unknown => {
                self.state = State::Registering;
                reply(250).text("not known here yet")
            }
            Outcome::Refused => {
                self.claim = None;
                self.state = State::Greeted;
                self.failures = self.failures.saturating_add(1);
                reply(535).text("proof failed")
            }
        }
    }

    /// Reads a 600 line of this link: its record must be the account's and list the device
    /// with the key just proven.
    ///
    /// # Errors
    /// As [`check`] and [`Registration::parse`]; [`StatementError::UnknownDevice`].
    pub fn registration(&self, command: &Command<'_>) -> Result<Registration, Error> {
        check(command, &self.link())?;
        let registration = Registration::parse(command)?;
        let device = self.device().and_then(Address::device).ok_or(Error::Order)?;
        let listed = registration.record.device(device).map(|device| &device.key);
        if listed.is_none() || listed != self.key() {
            return Err(StatementError::UnknownDevice.into());
        }
        Ok(registration)
    }

    /// Ends a registration that is durable: the link is proven, its queue is empty.
    /// Gives the reply to 600, CRLF included.
    pub fn registered(&mut self, hop_id: Option<&str>) -> String {
        debug_assert_eq!(self.state, State::Registering);
        self.state = State::Proven;
        ReplyBuilder::last(250).parameter_if("H-ID", hop_id).parameter("H-Q", 0).text("welcome")
    }
}

/// The version of the protocol.
pub const VERSION: u32 = 1;
