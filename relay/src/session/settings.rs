//! What the domain's operator decides: the part of the configuration that sessions obey.

use std::time::Duration;

use protocol::capability::Capabilities;
use protocol::limits::LINE_OCTETS_MAX;
use protocol::policy::Policy;
use protocol::{Address, Suite, Suites};

use crate::depot;
use crate::directory;
use crate::spool;
use crate::store::Store;

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
    /// 011 lines in a minute from one network (an IPv4 address, a /64 of IPv6): 453 with RETRY.
    pub logins_per_minute: u32,
    /// How long a link may take from its greeting to its proof or registration: 421.
    pub login_time_max: Duration,
    /// How long no line may come on a link that is logged in; its client pings every minute: 421.
    pub idle_time_max: Duration,
    /// Octets that may wait in a connection's outbox before lines stay in the spool instead.
    pub outbox_octets_max: usize,
    /// What queues may hold, and for how long.
    pub spool: spool::Settings,
    /// What may be kept of files for people who are away.
    pub depot: depot::Settings,
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
            logins_per_minute: 120,
            login_time_max: Duration::from_secs(30),
            idle_time_max: Duration::from_secs(10 * 60),
            outbox_octets_max: 256 * 1_024,
            spool: spool::Settings::defaults(),
            depot: depot::Settings::defaults(),
        }
    }

    /// These settings as the policy in force changes them. A policy that cannot be read is taken
    /// for a strict one.
    pub(super) fn under_policy_of(mut self, store: &dyn Store) -> Self {
        let held = match Address::parse(&self.domain) {
            Ok(domain) => directory::policy(store, domain),
            Err(_) => Ok(None),
        };
        match held {
            Ok(None) => {}
            Ok(Some((policy, _))) => self.obey(&policy),
            Err(_) => self.requires_signatures = true,
        }
        self
    }

    /// Takes over what a policy says.
    pub(super) fn obey(&mut self, policy: &Policy) {
        let suites = policy.suites.as_slice().iter();
        self.suites = suites.map(|suite| suite.name().to_owned()).collect();
        self.requires_signatures = policy.is_signed;
        self.file_octets_max = policy.file_octets_max;
        // Policies are read within the protocol's limits.
        self.line_octets_max = policy.line_octets_max as usize;
        self.spool.life_ms = u64::from(policy.spool_days) * 24 * 3_600_000;
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
