//! The named limits of sessions: what a connection, an account and a device may use.
//!
//! Each says what happens at the limit.

/// Octets that may wait in a connection's outbox before lines stay in the spool instead.
pub const OUTBOX_OCTETS_MAX: usize = 256 * 1_024;

/// 011 lines in a minute from one network (an IPv4 address, a /64 of IPv6): 450 with RETRY.
pub const LOGINS_PER_MINUTE: u32 = 60;

/// Networks whose logins are counted apart; those beyond share one count.
pub const NETWORKS_COUNTED_MAX: usize = 65_536;

/// Failed proofs and invitations on one link: the last one is answered, then 421 closes the link.
pub const FAILURES_MAX: u8 = 3;
