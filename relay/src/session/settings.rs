//! What the domain's operator decides: the part of the configuration that sessions obey.

use protocol::capability::Capabilities;
use protocol::limits::LINE_OCTETS_MAX;
use protocol::{Suite, Suites};

use crate::spool;

/// Settings of a domain, validated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The domain's name.
    pub domain: String,
    /// Octets of a line that this relay takes and offers, CRLF included.
    pub line_octets_max: usize,
    /// Octets of the largest file that may be offered.
    pub file_octets_max: u64,
    /// Suites that the domain allows, in the spelling of `SUITES=`.
    pub suites: Vec<String>,
    /// Whether every line from person to person must be signed.
    pub requires_signatures: bool,
    /// Whether unknown users are answered as known ones who told nothing.
    pub hides_users: bool,
    /// What queues may hold, and for how long.
    pub spool: spool::Settings,
}

impl Settings {
    /// Settings as the annotated default configuration has them.
    #[must_use]
    pub fn defaults(domain: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            line_octets_max: LINE_OCTETS_MAX,
            file_octets_max: 2 << 30,
            suites: vec!["M1".into(), "M2".into()],
            requires_signatures: false,
            hides_users: true,
            spool: spool::Settings::defaults(),
        }
    }

    /// What this relay offers in the answer to 010 (SPEC.md §3).
    pub(super) fn capabilities(&self) -> Capabilities {
        let suites: Vec<Suite> =
            self.suites.iter().filter_map(|name| Suite::from_name(name)).collect();
        Capabilities {
            line_octets_max: self.line_octets_max,
            suites: Suites::new(&suites),
            ..Capabilities::full(self.file_octets_max)
        }
    }
}
