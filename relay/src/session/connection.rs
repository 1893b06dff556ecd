//! What the relay knows of one connection: who it is, what it may send, what waits for it.

use std::net::IpAddr;

use protocol::state::server::Handshake;
use protocol::{AddressBuf, LineBuffer};

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

/// One connection.
pub(super) struct Connection {
    pub(super) peer: Peer,
    /// How far it has come, and as whom.
    pub(super) handshake: Handshake,
    /// The device as which it speaks, once proven.
    pub(super) device: Option<AddressBuf>,
    /// Wrong invitations.
    pub(super) failures: u8,
    pub(super) lines: LineBuffer,
    pub(super) opened_at: Now,
    pub(super) heard_at: Now,
    /// Octets given to the outbox and not yet known to be sent.
    pub(super) outbox_octets: usize,
    /// Octets in the outbox at which lines of the queue stay in the spool.
    outbox_octets_max: usize,
    pub(super) is_closing: bool,
    pub(super) post: LinkPost,
}

impl Connection {
    pub(super) fn new(peer: Peer, handshake: Handshake, settings: &Settings, now: Now) -> Self {
        Self {
            peer,
            handshake,
            device: None,
            failures: 0,
            lines: LineBuffer::new(settings.line_octets_max),
            opened_at: now,
            heard_at: now,
            outbox_octets: 0,
            outbox_octets_max: settings.outbox_octets_max,
            is_closing: false,
            post: LinkPost::default(),
        }
    }

    /// Whether its outbox takes another line of a queue.
    pub(super) const fn has_room(&self) -> bool {
        self.outbox_octets < self.outbox_octets_max && !self.is_closing
    }

    /// Whether no more than half of what may wait in its outbox does.
    pub(super) const fn is_half_empty(&self) -> bool {
        self.outbox_octets <= self.outbox_octets_max / 2
    }

    /// The longest line that the other side takes, CRLF included.
    pub(super) fn line_octets_max(&self) -> usize {
        self.handshake.capabilities().line_octets_max
    }
}
