//! How often something may happen: counts in windows of fixed length, for a bounded set of names.
//!
//! At the limit the answer is how long to wait. When more names than the limit are active, those
//! over it share one count, so that many names cannot buy more than many counts.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::clock::Now;

/// Counts for each `K`.
pub(super) struct Rate<K> {
    windows: HashMap<K, Window>,
    shared: Window,
    count_max: u32,
    length: Duration,
    names_max: usize,
}

#[derive(Clone, Copy, Default)]
struct Window {
    started: Duration,
    count: u32,
}

impl<K: Hash + Eq> Rate<K> {
    /// At most `count_max` in each `length`, for at most `names_max` names.
    pub(super) fn new(count_max: u32, length: Duration, names_max: usize) -> Self {
        Self { windows: HashMap::new(), shared: Window::default(), count_max, length, names_max }
    }

    /// Counts one more for `name`.
    ///
    /// # Errors
    /// The seconds after which it may happen again.
    pub(super) fn take(&mut self, name: K, now: Now) -> Result<(), u64> {
        let now = now.since_start;
        if self.windows.len() >= self.names_max && !self.windows.contains_key(&name) {
            self.sweep(now);
        }
        let has_room = self.windows.len() < self.names_max || self.windows.contains_key(&name);
        let window = if has_room {
            self.windows.entry(name).or_insert(Window { started: now, count: 0 })
        } else {
            &mut self.shared
        };
        if now.saturating_sub(window.started) >= self.length {
            *window = Window { started: now, count: 0 };
        }
        if window.count >= self.count_max {
            let wait = (window.started + self.length).saturating_sub(now);
            return Err(wait.as_secs().max(1));
        }
        window.count += 1;
        Ok(())
    }

    /// Drops the counts of windows that have passed.
    pub(super) fn sweep(&mut self, now: Duration) {
        self.windows.retain(|_, window| now.saturating_sub(window.started) < self.length);
    }
}

/// The network that counts as one peer: an IPv4 address, or the /64 of an IPv6 address.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use protocol::timestamp::Timestamp;

    use super::*;

    fn at(seconds: u64) -> Now {
        Now { timestamp: Timestamp(0), since_start: Duration::from_secs(seconds) }
    }

    #[test]
    fn limit_at_n_and_one_more_and_after_the_window() {
        let mut rate = Rate::new(2, Duration::from_secs(60), 10);
        assert_eq!(rate.take("a", at(5)), Ok(()));
        assert_eq!(rate.take("a", at(6)), Ok(()));
        assert_eq!(rate.take("a", at(15)), Err(50));
        assert_eq!(rate.take("b", at(15)), Ok(()));
        assert_eq!(rate.take("a", at(65)), Ok(()));
    }

    #[test]
    fn networks() {
        for (address, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(network(address.parse().unwrap()).to_string(), expected);
        }
    }

    #[test]
    fn names_over_the_limit_share_one_count() {
        let mut rate = Rate::new(1, Duration::from_secs(60), 2);
        assert_eq!(rate.take(1, at(100)), Ok(()));
        assert_eq!(rate.take(2, at(100)), Ok(()));
        assert_eq!(rate.take(3, at(100)), Ok(()));
        assert_eq!(rate.take(4, at(100)), Err(60));
        assert_eq!(rate.take(5, at(160)), Ok(()), "passed windows make room");
    }
}
