//! The spaces of the state file: one for each kind of row.
//!
//! Owns the numbers, which are part of the file's format and never reused.

use core::fmt;

macro_rules! spaces {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $holds_keys:literal;)*) => {
        /// A kind of row.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Space {
            $($(#[$doc])* $name,)*
        }

        impl Space {
            /// Every space.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The number in the file.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self { $(Self::$name => $number,)* }
            }

            /// Whether its rows hold keys, so that what is replaced must be gone at once.
            #[must_use]
            pub const fn holds_keys(self) -> bool {
                match self { $(Self::$name => $holds_keys,)* }
            }
        }

        impl fmt::Display for Space {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

spaces! {
    /// What there is one of: counters, own record, settings.
    Meta = 1, "the account", false;
    /// Signature keys that took the place of the key file's.
    Identity = 2, "the identity keys", true;
    /// What is known of other accounts and domains, by address.
    Contact = 3, "the contacts", false;
    /// Policies, by domain.
    Policy = 4, "the policies", false;
    /// Own prekeys, by form and number.
    Prekey = 5, "the prekeys", true;
    /// Own keys for the next refresh, by NK.
    NextKey = 6, "the refresh keys", true;
    /// Others' keys for the next refresh, by SID and device.
    PeerKey = 7, "the others' refresh keys", false;
    /// Sessions, by SID.
    Session = 8, "the sessions", false;
    /// Generations with their EX and GS, by GEN.
    Generation = 9, "the generations", true;
    /// Chains, by GEN and device.
    Chain = 10, "the message chains", true;
    /// Conversations, by account.
    Conversation = 11, "the conversations", false;
    /// Texts not yet sealed, by a rising number.
    Draft = 12, "the drafts", false;
    /// Sealed lines to be sent, by a rising number.
    Outbox = 13, "the outbox", false;
    /// Messages opened and not yet shown, by a rising number.
    Inbox = 14, "the inbox", false;
    /// Lines that cannot be opened yet, by queue number.
    Parked = 15, "the parked lines", false;
    /// Messages sent, by MID, for receipts.
    Sent = 16, "the sent messages", false;
    /// Parts of texts not yet whole, by MID of the first.
    Part = 17, "the parts", false;
    /// Files being sent, by FID.
    FileOut = 18, "the files being sent", true;
    /// Files being received, by FID.
    FileIn = 19, "the files being received", true;
    /// Leaf hashes of files being sent, by FID and page.
    Leaf = 20, "the leaf hashes", false;
    /// Ids of offers seen, so that none opens twice.
    Seen = 21, "the offers seen", false;
    /// The roster, by account.
    Roster = 22, "the roster", false;
    /// Receipts not yet sent, by account.
    Receipt = 23, "the receipts", false;
    /// Texts sealed in a generation that nobody on the other side has confirmed, by GEN.
    Retained = 24, "the unconfirmed texts", false;
    /// How far files have come, by FID.
    Progress = 25, "the progress of files", false;
    /// Generations whose offer may still bring their key, by GEN.
    Awaited = 26, "the awaited keys", false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct() {
        let mut numbers: Vec<u8> = Space::ALL.iter().map(|space| space.number()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), Space::ALL.len());
    }
}
