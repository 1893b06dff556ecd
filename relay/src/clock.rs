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

/// The wall clock as far as it can be believed: a jump is not followed until it has lasted.
///
/// Expiry, message ids and the check of `TS=` follow this time, so that a clock set wrong for a
/// while neither empties the spool nor refuses every line. While the clock settles, after the
/// start, a jump is more likely the end of a wrong time than its beginning: it is followed at
/// once, and settling begins anew. Nothing is to be given up meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    /// The last reading that was believed.
    believed: Option<Now>,
    /// Since when readings do not fit it.
    doubted_since: Option<Duration>,
    /// When it has settled, if it does not jump before.
    settled_at: Duration,
    /// Whether there was a jump that [`SteadyClock::take_jump`] has not told.
    has_jumped: bool,
}

impl Default for SteadyClock {
    fn default() -> Self {
        Self { believed: None, doubted_since: None, settled_at: SETTLING, has_jumped: false }
    }
}

/// How long the wall clock settles after the start, and after a jump meanwhile: time for a machine
/// without a clock of its own to be told the time.
pub const SETTLING: Duration = Duration::from_secs(10 * 60);

/// How far the wall clock may be from where it should be before it has jumped.
pub const JUMP_MAX: Duration = Duration::from_secs(5 * 60);
/// How long a jump must last to be believed.
pub const JUMP_BELIEVED_AFTER: Duration = Duration::from_secs(60 * 60);

impl SteadyClock {
    /// The wall time to go by.
    pub fn read(&mut self, now: Now) -> Timestamp {
        let Some(believed) = self.believed else {
            self.believed = Some(now);
            return now.timestamp;
        };
        let elapsed = now.since_start.saturating_sub(believed.since_start);
        let expected =
            believed.timestamp.plus_ms(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        let apart_ms = now.timestamp.0.abs_diff(expected.0);
        if u128::from(apart_ms) <= JUMP_MAX.as_millis() {
            self.believed = Some(now);
            self.doubted_since = None;
            return now.timestamp;
        }
        if self.is_settling(now) {
            self.settled_at = now.since_start.saturating_add(SETTLING);
            self.has_jumped = true;
            self.believed = Some(now);
            return now.timestamp;
        }
        let since = *self.doubted_since.get_or_insert_with(|| {
            self.has_jumped = true;
            now.since_start
        });
        if now.since_start.saturating_sub(since) < JUMP_BELIEVED_AFTER {
            return expected;
        }
        self.believed = Some(now);
        self.doubted_since = None;
        now.timestamp
    }

    /// Whether the wall clock may still be about to be set right.
    #[must_use]
    pub const fn is_settling(&self, now: Now) -> bool {
        now.since_start.as_nanos() < self.settled_at.as_nanos()
    }

    /// Whether the wall clock has jumped since the last call.
    pub const fn take_jump(&mut self) -> bool {
        std::mem::replace(&mut self.has_jumped, false)
    }

    /// Whether the wall clock has jumped and is not yet believed.
    #[must_use]
    pub const fn is_doubted(&self) -> bool {
        self.doubted_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(wall_s: u64, start_s: u64) -> Now {
        Now { timestamp: Timestamp(wall_s * 1_000), since_start: Duration::from_secs(start_s) }
    }

    #[test]
    fn a_jump_is_followed_at_once_only_while_the_clock_settles() {
        let mut clock = SteadyClock::default();
        let read = |clock: &mut SteadyClock, wall, start| clock.read(now(wall, start)).0 / 1_000;
        assert_eq!(read(&mut clock, 5, 0), 5);
        assert!(!clock.take_jump());
        assert_eq!(read(&mut clock, 10_000, 599), 10_000, "one second before it has settled");
        assert!(clock.take_jump() && !clock.take_jump());
        assert!(!clock.is_doubted());
        assert_eq!(read(&mut clock, 5, 1_198), 5, "a jump begins the time anew");
        assert!(clock.take_jump());
        assert!(clock.is_settling(now(5, 1_797)) && !clock.is_settling(now(5, 1_798)));
        assert_eq!(read(&mut clock, 10_000, 1_798), 605, "it has settled");
        assert!(clock.is_doubted() && clock.take_jump());
        assert_eq!(read(&mut clock, 10_001, 1_799), 606);
        assert!(!clock.take_jump(), "one jump is told once");
    }

    #[test]
    fn a_jump_is_followed_only_when_it_lasts() {
        let mut clock = SteadyClock { settled_at: Duration::ZERO, ..SteadyClock::default() };
        let read = |clock: &mut SteadyClock, wall, start| clock.read(now(wall, start)).0 / 1_000;
        assert_eq!(read(&mut clock, 10_000, 0), 10_000);
        assert_eq!(read(&mut clock, 10_310, 10), 10_310, "300 s are drift");
        assert_eq!(read(&mut clock, 10_621, 20), 10_320, "301 s are a jump");
        assert!(clock.is_doubted());
        assert_eq!(read(&mut clock, 10_330, 30), 10_330, "and it went away");
        assert!(!clock.is_doubted());
        assert_eq!(read(&mut clock, 1_000, 40), 10_340, "back is a jump too");
        assert_eq!(read(&mut clock, 4_599, 3_639), 13_939, "one second before it is believed");
        assert_eq!(read(&mut clock, 4_600, 3_640), 4_600);
        assert_eq!(read(&mut clock, 4_601, 3_641), 4_601);
        assert!(!clock.is_doubted());
    }
}
