//! Invitations: each lets one account register, once, until it expires (SPEC.md §5).
//!
//! The code itself is never stored, only its hash; the row says for whom it is and, once used,
//! by which record, so that the same registration sent again gets the same answer.

use protocol::AddressBuf;
use protocol::canonical::sha256;
use protocol::identifier::RecordName;
use protocol::timestamp::Timestamp;

use super::limits;
use crate::store::{Cursor, Operation, Row, Scanned, Store, StoreError, Table};

const FORMAT: u8 = 1;

/// An invitation as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// From when on it no longer counts.
    pub expires: Timestamp,
    /// The only account that it lets in; `None` for any.
    pub account: Option<AddressBuf>,
    /// The record that used it.
    pub used_by: Option<RecordName>,
}

impl Invitation {
    /// Reads a row that [`Invitation::encode`] wrote.
    #[must_use]
    pub fn decode(row: &[u8]) -> Option<Self> {
        let (&[FORMAT, is_used], rest) = row.split_first_chunk()? else { return None };
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let (record, account) = rest.split_first_chunk::<32>()?;
        let account = match account {
            [] => None,
            text => Some(AddressBuf::parse(core::str::from_utf8(text).ok()?).ok()?),
        };
        Some(Self {
            expires: Timestamp(u64::from_be_bytes(*expires)),
            account,
            used_by: (is_used != 0).then(|| RecordName::from_octets(record)),
        })
    }

    /// The row.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut row = vec![FORMAT, u8::from(self.used_by.is_some())];
        row.extend_from_slice(&self.expires.0.to_be_bytes());
        row.extend_from_slice(&self.used_by.map_or([0; 32], |name| name.to_octets()));
        row.extend_from_slice(self.account.as_ref().map_or("", AddressBuf::as_str).as_bytes());
        row
    }
}

/// Where the invitation with this code is kept.
#[must_use]
pub fn invitation_row(code: &str) -> Row {
    Row::new(Table::Invite, b"", &sha256(&[b"CIM1-INVITE", code.as_bytes()]))
}

/// The operations that remove invitations which ended long ago, of those that stand behind `after`
/// in the table, and from where to go on the next time.
///
/// # Errors
/// Those of [`Store::scan`].
pub fn expired_invitations(
    store: &dyn Store,
    after: Option<Cursor>,
    now: Timestamp,
) -> Result<(Vec<Operation>, Option<Cursor>), StoreError> {
    let (rows, next) = store.scan(Table::Invite, after, limits::INVITATIONS_SWEPT)?;
    let is_old = |row: &Scanned| {
        let invitation = Invitation::decode(&row.value);
        let kept_until = invitation.map(|it| it.expires.plus_ms(limits::INVITATION_KEPT_MS));
        kept_until.is_some_and(|until| until <= now)
    };
    let old = rows.into_iter().filter(is_old);
    let delete = |row: Scanned| Operation::Delete {
        row: Row { table: Table::Invite, owner: row.owner, sort: row.sort },
    };
    Ok((old.map(delete).collect(), next))
}
