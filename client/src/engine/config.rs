//! What the user wishes of the engine; the protocol's rules come before wishes.

use protocol::suite::Suite;

/// The engine's settings. They may differ from run to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether sessions begun here are signed even where nobody asks for it.
    pub signs: bool,
    /// Whether senders learn that their messages arrived (101).
    pub tells_delivery: bool,
    /// Whether senders learn that their messages were read (102).
    pub tells_reading: bool,
    /// Whether the driver shows every notice. If not, one that it leaves unconfirmed was seen by
    /// nobody, and is told later without [`is_repeated`](super::Event::Notice::is_repeated).
    pub shows_notices: bool,
    /// Suites that this device takes and offers, most wanted first. L suites are used only if no
    /// other suite is common, and only where every policy and record allows them.
    pub suites: Vec<Suite>,
    /// Whether one-time prekeys bring an ML-KEM key of their own.
    pub has_one_time_kem: bool,
    /// One-time prekeys to keep at the relay.
    pub one_time_stock: usize,
    /// How long a record of this account is valid, in milliseconds.
    pub record_life_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            signs: true,
            tells_delivery: true,
            tells_reading: true,
            shows_notices: true,
            suites: vec![Suite::M1, Suite::M2],
            has_one_time_kem: true,
            one_time_stock: crate::limits::ONE_TIME_STOCK,
            record_life_ms: 365 * crate::limits::DAY_MS,
        }
    }
}
