//! Connections: what stands between a socket of the ring and a line of the protocol.
