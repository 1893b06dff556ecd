//! The calling side of a login: 010, 011, 012, and 600 for a new account.
//!
//! One command is under way at a time; a refusal ends the login and is given to the caller with
//! its code and text (SPEC.md §5).

use core::fmt;

use crate::address::{Address, AddressBuf};
use crate::capability::{Capabilities, Reader};
use crate::code::Code;
use crate::command::Command;
use crate::error::Error;
use crate::identifier::Nonce;
use crate::proof::{EXPORTER_OCTETS, Proof};
use crate::registration::{Admission, Registration};
use crate::reply::Reply;
use crate::signature::PublicKey;
use crate::state::server::VERSION;

/// The login of one link, seen by the client.
#[derive(Clone, Debug)]
pub struct Handshake {
    device: AddressBuf,
    key: PublicKey,
    alpn: &'static str,
    exporter: [u8; EXPORTER_OCTETS],
    own: Capabilities,
    reader: Reader,
    offered: Capabilities,
    awaited: Awaited,
}

/// What the relay is to say next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Greeting,
    Hello,
    Challenge,
    /// Nothing: the caller signs.
    Signature,
    Verdict,
    /// Nothing: the caller registers.
    Registration,
    Registered,
    /// Nothing: the login is over.
    Nothing,
}

/// What the client does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for the next line.
    Wait,
    /// Send this line; CRLF is not included.
    Send(String),
    /// Sign these octets with the device key and call [`Handshake::signed`].
    Sign(Vec<u8>),
    /// The relay does not know the key: call [`Handshake::register`], or give up.
    Register,
    /// The link is proven.
    Ready {
        /// The highest H-Q that the relay gave to this device.
        queue: u64,
    },
}

/// Why a login ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The relay refused.
    Refused {
        /// The code: 4xx or 5xx.
        code: u16,
        /// The text for eyes, without controls.
        text: String,
    },
    /// The relay said something that has no place here.
    Unexpected {
        /// The code.
        code: u16,
    },
    /// A reply lacks what it must carry.
    Malformed(Error),
    /// The caller signed or registered when nothing asked for it.
    Misuse,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, text } => write!(f, "the relay refused: {code} {text}"),
            Self::Unexpected { code } => write!(f, "the relay answered {code} out of order"),
            Self::Malformed(error) => write!(f, "the relay's answer is malformed: {error}"),
            Self::Misuse => f.write_str("the login does not wait for this"),
        }
    }
}

impl core::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Malformed(error)
    }
}

impl Handshake {
    /// A login as `device` with `key`, over a TLS connection with this ALPN and exporter.
    #[must_use]
    pub fn new(
        device: Address<'_>,
        key: PublicKey,
        alpn: &'static str,
        exporter: [u8; EXPORTER_OCTETS],
        own: Capabilities,
    ) -> Self {
        Self {
            device: device.to_buf(),
            key,
            alpn,
            exporter,
            own,
            reader: Reader::new(),
            offered: Capabilities::default(),
            awaited: Awaited::Greeting,
        }
    }

    /// What both sides can do; before the answer to 010 the protocol's defaults.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.own.common(&self.offered)
    }

    /// What the relay offers.
    #[must_use]
    pub const fn offered(&self) -> &Capabilities {
        &self.offered
    }

    /// Takes a line from the relay.
    ///
    /// # Errors
    /// [`Failure`]; the login is over.
    pub fn receive(&mut self, reply: &Reply<'_>) -> Result<Step, Failure> {
        let code = reply.code().number();
        if code >= 400 {
            self.awaited = Awaited::Nothing;
            return Err(Failure::Refused { code, text: reply.display_text() });
        }
        let (expected, hop_id) = match self.awaited {
            Awaited::Greeting => (220, None),
            Awaited::Hello => (250, Some("1")),
            Awaited::Challenge => (334, Some("2")),
            Awaited::Verdict => (250, Some("3")),
            Awaited::Registered => (250, Some("4")),
            Awaited::Signature | Awaited::Registration | Awaited::Nothing => {
                return Err(Failure::Unexpected { code });
            }
        };
        if code != expected || reply.parameter("H-ID") != hop_id {
            self.awaited = Awaited::Nothing;
            return Err(Failure::Unexpected { code });
        }
        let offers = reply.parameter("CAP").filter(|_| self.awaited == Awaited::Hello);
        if let Some(value) = offers {
            self.reader.add(value)?;
        }
        if !reply.is_last() {
            return Ok(Step::Wait);
        }
        self.advance(reply)
    }

    fn advance(&mut self, reply: &Reply<'_>) -> Result<Step, Failure> {
        match self.awaited {
            Awaited::Greeting => {
                self.awaited = Awaited::Hello;
                let line = Command::builder(Code::HELLO)
                    .from(self.device.as_address())
                    .parameter("VER", VERSION)
                    .parameter("CAP", &self.own)
                    .parameter("H-ID", 1);
                Ok(Step::Send(line.finish()))
            }
            Awaited::Hello => {
                self.offered = core::mem::take(&mut self.reader).finish();
                self.awaited = Awaited::Challenge;
                let line = Command::builder(Code::IDENTITY)
                    .from(self.device.as_address())
                    .parameter("ALG", self.key.algorithm())
                    .parameter("H-ID", 2);
                Ok(Step::Send(line.body(self.key.as_octets())))
            }
            Awaited::Challenge => {
                let nonce: Nonce = reply.parameters().need("NONCE")?;
                self.awaited = Awaited::Signature;
                let proof = Proof {
                    exporter: &self.exporter,
                    nonce: nonce.as_str(),
                    alpn: self.alpn,
                    server_domain: self.device.as_address().domain(),
                    address: self.device.as_address(),
                    key: &self.key,
                };
                Ok(Step::Sign(proof.octets()))
            }
            Awaited::Verdict => match reply.parameters().number("H-Q")? {
                Some(queue) => {
                    self.awaited = Awaited::Nothing;
                    Ok(Step::Ready { queue })
                }
                None => {
                    self.awaited = Awaited::Registration;
                    Ok(Step::Register)
                }
            },
            Awaited::Registered => {
                self.awaited = Awaited::Nothing;
                let queue = reply.parameters().number("H-Q")?.unwrap_or(0);
                Ok(Step::Ready { queue })
            }
            Awaited::Signature | Awaited::Registration | Awaited::Nothing => Err(Failure::Misuse),
        }
    }

    /// Takes the signature over the octets of [`Step::Sign`]; gives the 012 line to send.
    ///
    /// # Errors
    /// [`Failure::Misuse`] if nothing asked for it.
    pub fn signed(&mut self, signature: &[u8]) -> Result<String, Failure> {
        if self.awaited != Awaited::Signature {
            return Err(Failure::Misuse);
        }
        self.awaited = Awaited::Verdict;
        Command::builder(Code::PROOF)
            .from(self.device.as_address())
            .parameter("H-ID", 3)
            .sign(&[], |_| Ok(signature.to_vec()))
            .map_err(Failure::Malformed)
    }

    /// After [`Step::Register`]: gives the 600 line to send. `record_line` is the first record
    /// without CRLF; it lists the device with its key.
    ///
    /// # Errors
    /// [`Failure::Misuse`] if the relay did not ask for it.
    pub fn register(
        &mut self,
        admission: &Admission,
        record_line: &str,
    ) -> Result<String, Failure> {
        if self.awaited != Awaited::Registration {
            return Err(Failure::Misuse);
        }
        self.awaited = Awaited::Registered;
        Ok(Registration::write(self.device.as_address().account(), admission, "4", record_line))
    }
}
