//! What an address is: the `ROLE=` of its record (SPEC.md §6).

use core::fmt;

use crate::address::Address;
use crate::parameter::WireValue;

/// Who or what a record speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Role {
    /// A domain; FROM is the bare domain.
    Domain,
    /// A gateway to mail.
    GatewayMail,
    /// A gateway to SMS.
    GatewaySms,
    /// A gateway to XMPP.
    GatewayXmpp,
    /// A group.
    Group,
    /// A person.
    User,
}

impl Role {
    const ALL: [Self; 6] = [
        Self::Domain,
        Self::GatewayMail,
        Self::GatewaySms,
        Self::GatewayXmpp,
        Self::Group,
        Self::User,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::GatewayMail => "gateway-mail",
            Self::GatewaySms => "gateway-sms",
            Self::GatewayXmpp => "gateway-xmpp",
            Self::Group => "group",
            Self::User => "user",
        }
    }

    /// Whether an address of this shape can have this role.
    #[must_use]
    pub const fn fits(self, address: Address<'_>) -> bool {
        match self {
            Self::Domain => address.is_domain(),
            _ => address.is_account(),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl WireValue<'_> for Role {
    fn read(value: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == value)
    }
}
