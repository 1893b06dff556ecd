//! The domain's policies: the line in force, and every one before it (SPEC.md §10).

use protocol::policy::Policy;
use protocol::{Address, Command};

use crate::store::{Operation, Row, Store, StoreError, Table};

/// The policy in force and its line without CRLF; `None` before a domain is provisioned.
///
/// # Errors
/// Those of [`Store::get`]; [`StoreError::Damaged`] if the row is not a policy.
pub fn policy(
    store: &dyn Store,
    domain: Address<'_>,
) -> Result<Option<(Policy, String)>, StoreError> {
    let Some(value) = store.get(&current_row(domain))? else { return Ok(None) };
    let line = String::from_utf8(value).map_err(|_| damaged())?;
    let command = Command::parse(line.as_bytes()).map_err(|_| damaged())?;
    let policy = Policy::parse(&command).map_err(|_| damaged())?;
    Ok(Some((policy, line)))
}

/// The operations that put the policy of `line` in the place of the line `before`; both are kept.
#[must_use]
pub fn policy_operations(policy: &Policy, line: &str, before: Option<&str>) -> Vec<Operation> {
    let domain = policy.domain.as_address();
    let row = current_row(domain);
    let version = [b"version:", &policy.version.to_be_bytes()[..]].concat();
    vec![
        match before {
            None => Operation::RequireAbsent { row: row.clone() },
            Some(before) => Operation::RequireEqual { row: row.clone(), value: before.into() },
        },
        Operation::Put { row, value: line.into() },
        Operation::Put {
            row: Row::new(Table::Policy, domain.as_str().as_bytes(), &version),
            value: line.into(),
        },
    ]
}

fn current_row(domain: Address<'_>) -> Row {
    Row::new(Table::Policy, domain.as_str().as_bytes(), b"current")
}

fn damaged() -> StoreError {
    StoreError::Damaged { text: "the policy's row".to_owned() }
}
