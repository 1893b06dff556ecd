//! The three-digit codes: the first digit tells who speaks (SPEC.md §3).

use core::fmt;

/// A code of three digits, of a command (0, 1, 6–9) or of a reply (2–5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u16);

impl Code {
    /// HELLO.
    pub const HELLO: Self = Self(10);
    /// Identity and public key.
    pub const IDENTITY: Self = Self(11);
    /// Proof of possession.
    pub const PROOF: Self = Self(12);
    /// Resume the queue from `H-Q`.
    pub const RESUME: Self = Self(13);
    /// Acknowledge the queue up to `H-Q`.
    pub const ACKNOWLEDGE: Self = Self(14);
    /// Ping.
    pub const PING: Self = Self(15);
    /// Quit.
    pub const QUIT: Self = Self(19);
    /// Message.
    pub const MESSAGE: Self = Self(100);
    /// Delivered.
    pub const DELIVERED: Self = Self(101);
    /// Read.
    pub const READ: Self = Self(102);
    /// Edit.
    pub const EDIT: Self = Self(103);
    /// Retract.
    pub const RETRACT: Self = Self(104);
    /// Reaction.
    pub const REACTION: Self = Self(105);
    /// "…is typing a message".
    pub const TYPING: Self = Self(110);
    /// Typing stopped.
    pub const TYPING_STOPPED: Self = Self(111);
    /// Set one's presence.
    pub const PRESENCE_SET: Self = Self(120);
    /// Presence push.
    pub const PRESENCE: Self = Self(121);
    /// Presence query.
    pub const PRESENCE_QUERY: Self = Self(122);
    /// Choice after 350.
    pub const CHOICE: Self = Self(130);
    /// Bounce, signed by a domain.
    pub const BOUNCE: Self = Self(190);
    /// Register an account.
    pub const REGISTER: Self = Self(600);
    /// Publish or rotate a record.
    pub const RECORD: Self = Self(601);
    /// Revoke a key.
    pub const REVOKE: Self = Self(602);
    /// Fetch a record.
    pub const RECORD_FETCH: Self = Self(610);
    /// Publish prekeys.
    pub const PREKEYS: Self = Self(611);
    /// Take prekeys.
    pub const PREKEYS_TAKE: Self = Self(612);
    /// Prekeys low.
    pub const PREKEYS_LOW: Self = Self(613);
    /// Roster get.
    pub const ROSTER_GET: Self = Self(630);
    /// Roster set.
    pub const ROSTER_SET: Self = Self(631);
    /// Roster push.
    pub const ROSTER_PUSH: Self = Self(632);
    /// Ask subscription.
    pub const SUBSCRIBE: Self = Self(633);
    /// Approve a subscription.
    pub const APPROVE: Self = Self(634);
    /// Deny a subscription.
    pub const DENY: Self = Self(635);
    /// Block.
    pub const BLOCK: Self = Self(636);
    /// Session key offer.
    pub const OFFER: Self = Self(700);
    /// Session accept.
    pub const ACCEPT: Self = Self(701);
    /// Session key refresh.
    pub const REFRESH: Self = Self(702);
    /// Session close, or refusal when it has `CODE=`.
    pub const CLOSE: Self = Self(703);
    /// File offer.
    pub const FILE_OFFER: Self = Self(800);
    /// File accept or resume.
    pub const FILE_ACCEPT: Self = Self(801);
    /// File chunk.
    pub const FILE_CHUNK: Self = Self(802);
    /// File window.
    pub const FILE_WINDOW: Self = Self(803);
    /// File finish with signature.
    pub const FILE_FINISH: Self = Self(804);
    /// File cancel.
    pub const FILE_CANCEL: Self = Self(805);
    /// File verdict.
    pub const FILE_VERDICT: Self = Self(806);
    /// Policy fetch, or the signed policy.
    pub const POLICY: Self = Self(920);

    /// The code with this number, 0 to 999.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number < 1_000 { Some(Self(number)) } else { None }
    }

    /// The code that three ASCII digits spell.
    #[must_use]
    pub fn parse(word: &[u8]) -> Option<Self> {
        let &[a, b, c] = word else { return None };
        if !(a.is_ascii_digit() && b.is_ascii_digit() && c.is_ascii_digit()) {
            return None;
        }
        let digit = |octet: u8| u16::from(octet - b'0');
        Some(Self(digit(a) * 100 + digit(b) * 10 + digit(c)))
    }

    /// The number, 0 to 999.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Whether this is a code of a reply (2xx to 5xx).
    #[must_use]
    pub const fn is_reply(self) -> bool {
        self.0 >= 200 && self.0 < 600
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}
