//! Connections: what stands between a socket of the ring and a line of the protocol.
//!
//! [`Server`] accepts, admits and shakes hands; [`tls::Session`] is TLS without I/O; a driver per
//! connection gives plaintext to the [`Service`]; [`Outbox`] gathers what a turn has to say to
//! each peer. Knows no lines and no accounts. PROTOCOL §1.

pub mod tls;

mod connection;
mod handshake;
mod outbox;
mod server;
mod statistic;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::limits;

pub use self::connection::{Peer, Reason, Service};
pub use self::handshake::{HandshakePool, Step};
pub use self::outbox::{ConnectionId, Outbox, Pressure};
pub use self::server::{Crowd, Server};
pub use self::statistic::NetStatistics;

/// Limits of the connections of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfiguration {
    /// TLS connections at a time, handshakes included.
    pub connections_max: usize,
    /// TLS connections at a time from one IPv4 address or IPv6 /64.
    pub connections_per_source_max: usize,
    /// Time for a whole handshake, from accept.
    pub handshake_deadline: Duration,
    /// Threads for handshake steps.
    pub handshake_workers: usize,
    /// Handshake steps waiting for a thread; more are refused.
    pub handshake_queue_max: usize,
    /// Octets waiting for one peer above which its owner is told to stop; at twice as many nothing
    /// is received from it.
    pub outbox_bytes_max: usize,
    /// Octets waiting for one peer above which nothing more is taken for it.
    pub outbox_bytes_refused: usize,
}

impl Default for NetConfiguration {
    fn default() -> NetConfiguration {
        NetConfiguration {
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_source_max: limits::CONNECTIONS_PER_SOURCE_MAX,
            handshake_deadline: limits::HANDSHAKE_DEADLINE,
            handshake_workers: 2,
            handshake_queue_max: limits::HANDSHAKE_QUEUE_MAX,
            outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
            outbox_bytes_refused: limits::OUTBOX_BYTES_REFUSED,
        }
    }
}
