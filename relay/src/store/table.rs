//! The closed set of tables and how each is kept.
//!
//! The numbers are on disk: they never change their meaning and are never used again.

/// A table. What its owner and sort are is the convention of the module that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// The relay's own counters and state. Owner empty, sort a name.
    Meta = 1,
    /// One row per account. Owner account, sort empty.
    Account = 2,
    /// Directory records. Owner account or device, sort number.
    Record = 3,
    /// Revocations. Owner account, sort hash or number.
    Revocation = 4,
    /// One-time prekeys. Owner device, sort id.
    Prekey = 5,
    /// Contacts. Owner account, sort the contact's address (hidden).
    Roster = 6,
    /// Lines waiting for a device. Owner device, sort H-Q.
    Queue = 7,
    /// Where a device's queue stands. Owner device, sort empty.
    Cursor = 8,
    /// Messages seen. Owner device, sort hash of (code, FROM, TO, MID).
    Dedupe = 9,
    /// Sessions between devices. Owner device, sort SID.
    Session = 10,
    /// Files that are kept for somebody. Owner account, sort a hash of the file's label.
    File = 11,
    /// Invitations. Owner empty, sort hash of the invitation.
    Invite = 12,
    /// Rules of an account or of the domain. Owner account, sort name or address (hidden).
    Policy = 13,
    /// What is due when. Owner empty, sort time then a hash.
    Due = 14,
    /// Last known presence. Owner account, sort device.
    Presence = 15,
    /// Lines waiting for another domain. Owner domain, sort number.
    Outbound = 16,
    /// Chunks of kept files. Owner the hash of the file's label, sort number.
    Chunk = 17,
    /// Audit and log entries. Owner empty, sort number.
    Log = 18,
}

impl Table {
    /// Every table, by number.
    pub const ALL: [Self; 18] = [
        Self::Meta,
        Self::Account,
        Self::Record,
        Self::Revocation,
        Self::Prekey,
        Self::Roster,
        Self::Queue,
        Self::Cursor,
        Self::Dedupe,
        Self::Session,
        Self::File,
        Self::Invite,
        Self::Policy,
        Self::Due,
        Self::Presence,
        Self::Outbound,
        Self::Chunk,
        Self::Log,
    ];

    /// The number on disk.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The table of a number on disk.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.number() == number)
    }

    /// Whether the sort is text about people, which then is kept off the disk like the owner.
    /// Reading a range of such a table reads all rows of the owner.
    #[must_use]
    pub const fn hides_sort(self) -> bool {
        matches!(self, Self::Roster | Self::Policy)
    }

    /// Whether rows come and go with the messages (and so live in the part of the store that is
    /// tuned for that).
    #[must_use]
    pub const fn is_spool(self) -> bool {
        matches!(self, Self::Queue | Self::Dedupe | Self::Due | Self::Outbound | Self::Chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct_and_lead_back() {
        for (index, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(table.number()), index + 1);
            assert_eq!(Table::from_number(table.number()), Some(table));
        }
        assert_eq!(Table::from_number(0), None);
        assert_eq!(Table::from_number(19), None);
    }
}
