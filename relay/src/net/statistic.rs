//! Counters of the network layer, for metrics: plain numbers that only grow.

/// What happened to connections since the start. Every connection that is accepted is refused,
/// fails its handshake, or is opened and later closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetStatistics {
    /// Connections accepted.
    pub accepted: u64,
    /// Turned away: too many connections.
    pub refused_connections: u64,
    /// Turned away: too many connections from one source.
    pub refused_source: u64,
    /// Turned away and told why; of the others some had no time for that, or would not hear it.
    pub told_away: u64,
    /// Closed: too many handshakes waiting for a worker.
    pub refused_busy: u64,
    /// Closed: the first octets were not TLS.
    pub failed_not_tls: u64,
    /// Closed: the peer broke or left the handshake.
    pub failed_handshake: u64,
    /// Closed: the handshake took too long.
    pub failed_deadline: u64,
    /// Closed: the token gave no signature.
    pub failed_signature: u64,
    /// Handshakes completed.
    pub opened: u64,
    /// Of these, resumed sessions, which cost no signature.
    pub resumed: u64,
    /// Opened connections that are closed again.
    pub closed: u64,
    /// Times an outbox went over its limit.
    pub outbox_over: u64,
    /// Times a peer had to read before anything was received from it.
    pub choked: u64,
    /// Pushes not taken because an outbox held all that is kept for one peer.
    pub outbox_refused: u64,
    /// Batches sealed and sent.
    pub batches: u64,
    /// Octets of plaintext received.
    pub plaintext_received: u64,
    /// Octets of plaintext sent.
    pub plaintext_sent: u64,
}
