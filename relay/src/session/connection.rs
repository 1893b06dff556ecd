//! What the relay knows of one connection: who it is, what it may send, what waits for it.

use std::net::IpAddr;

use protocol::limits::LINE_OCTETS_DEFAULT;
use protocol::signature::PublicKey;
use protocol::{AddressBuf, LineBuffer};

use super::identity::{Candidate, Challenge};
use super::post::LinkPost;
use super::settings::Settings;
use crate::clock::Now;

/// Names a connection as long as the relay runs; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What TLS tells of the other side.
#[derive(Clone)]
pub struct Peer {
    /// Where it connects from.
    pub address: IpAddr,
    /// The TLS exporter for proofs of identity (SPEC.md §5). Not secret to the peer.
    pub exporter: [u8; 32],
}

/// How far a connection has come (SPEC.md §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Greeted; 010 is due.
    Connected,
    /// 010 was answered.
    Greeted,
    /// 011 was answered with a challenge; 012 is due.
    Challenged,
    /// Proof given for a key that no record lists yet: only 600 is taken.
    Registering,
    /// Proof given: the device is logged in.
    Proven,
}

/// One connection.
pub(super) struct Connection {
    pub(super) peer: Peer,
    pub(super) state: State,
    /// The device as which it speaks, once proven.
    pub(super) device: Option<AddressBuf>,
    /// The key that it has proven.
    pub(super) key: Option<PublicKey>,
    /// FROM of its 010.
    pub(super) hello_from: Option<AddressBuf>,
    /// What 334 asked for.
    pub(super) challenge: Option<Challenge>,
    /// Who it is, while it may only register.
    pub(super) candidate: Option<Candidate>,
    /// Failed proofs and invitations.
    pub(super) failures: u8,
    pub(super) lines: LineBuffer,
    /// The longest line that the other side takes, CRLF included.
    pub(super) peer_line_octets_max: usize,
    pub(super) heard_at: Now,
    /// Octets given to the outbox and not yet known to be sent.
    pub(super) outbox_octets: usize,
    pub(super) is_closing: bool,
    pub(super) post: LinkPost,
}

impl Connection {
    pub(super) fn new(peer: Peer, settings: &Settings, now: Now) -> Self {
        Self {
            peer,
            state: State::Connected,
            device: None,
            key: None,
            hello_from: None,
            challenge: None,
            candidate: None,
            failures: 0,
            lines: LineBuffer::new(settings.line_octets_max),
            peer_line_octets_max: LINE_OCTETS_DEFAULT,
            heard_at: now,
            outbox_octets: 0,
            is_closing: false,
            post: LinkPost::default(),
        }
    }
}
