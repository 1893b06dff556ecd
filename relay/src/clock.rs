//! Time as a value: read once per turn of the loop and passed to whoever needs it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocol::timestamp::Timestamp;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall time; may jump. For time stamps, expiry and whatever survives a restart.
    pub timestamp: Timestamp,
    /// Time since the start; never goes back. For idle limits and rates.
    pub since_start: Duration,
}

/// The clocks of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts counting.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Reads both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            timestamp: Timestamp(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
            since_start: self.start.elapsed(),
        }
    }
}
