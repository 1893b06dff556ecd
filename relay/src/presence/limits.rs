//! The named limits of presence. Accounts are bounded by those who have registered.

use std::time::Duration;

/// How long the state of a device without a link is remembered; then it is available anew.
pub const REMEMBERED: Duration = Duration::from_secs(10 * 60);
