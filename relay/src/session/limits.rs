//! The named limits of sessions: what a connection, an account and a device may use.
//!
//! Each says what happens at the limit.

/// Octets that may wait in a connection's outbox before lines stay in the spool instead.
pub const OUTBOX_OCTETS_MAX: usize = 256 * 1_024;
