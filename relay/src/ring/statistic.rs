//! Counters of one ring, for metrics: plain numbers that only grow.

/// What a ring has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Times the kernel was entered.
    pub enters: u64,
    /// Operations handed to the kernel.
    pub submissions: u64,
    /// Completions received.
    pub completions: u64,
    /// Receives ended because no buffer was free.
    pub enobufs: u64,
    /// Completions that found the completion queue full and waited in the kernel.
    pub overflows: u64,
    /// Sends that took more than one piece.
    pub short_sends: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed at once: file table or accept queue full.
    pub accept_refused: u64,
    /// Receives cancelled because their owner read too slowly or asked for a pause.
    pub pauses: u64,
    /// Received pieces copied out of their buffer to keep buffers for others.
    pub copied_out: u64,
    /// Enters the kernel refused; what they carried was submitted later.
    pub enter_failures: u64,
    /// Wakes from other threads that found the loop parked (one event written each).
    pub remote_wakes: u64,
    /// Times tasks were polled.
    pub polls: u64,
}
