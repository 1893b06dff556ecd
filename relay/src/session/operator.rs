//! What an operator asks of the running domain: the state machine's side of `cipherim-relay ctl`.
//!
//! A request goes in with a ticket of the caller's choice and comes back as
//! [`Effect::Operated`](super::Effect::Operated) under it, at once or when a commit or the token is
//! done.

use std::time::Duration;

use protocol::AddressBuf;

use super::{Domain, Effect, Ticket};
use crate::clock::Now;
use crate::directory::{Invitation, invitation_row};
use crate::store::{Operation, Outcome, StoreError};

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorRequest {
    /// A code that lets somebody register.
    Invite {
        /// The only account that it lets in; `None` for any.
        account: Option<AddressBuf>,
        /// How long it counts.
        valid_for: Duration,
    },
}

/// What an operator gets.
pub type OperatorReply = Result<OperatorAnswer, OperatorError>;

/// The answer to a request.
#[derive(Clone, PartialEq, Eq)]
pub enum OperatorAnswer {
    /// The code of a new invitation. Shown once, stored only as a hash.
    Invited {
        /// The value of `INVITE=`.
        code: String,
    },
}

impl std::fmt::Debug for OperatorAnswer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invited { .. } => formatter.write_str("Invited(..)"),
        }
    }
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// The address is not an account of this domain.
    #[error("{address} is not an account of this domain")]
    NotHere {
        /// What was named.
        address: AddressBuf,
    },
    /// Somebody changed the same thing at the same time.
    #[error("somebody else was faster: try again")]
    Raced,
    /// The store did not do it.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// It may or may not have happened.
    #[error("the write was interrupted: look whether it happened")]
    Unknown,
}

impl Domain {
    /// Does what an operator asks; the answer comes as an effect under `ticket`.
    pub fn operate(&mut self, ticket: Ticket, request: OperatorRequest, now: Now) {
        match request {
            OperatorRequest::Invite { account, valid_for } => {
                self.invite(ticket, account, valid_for, now);
            }
        }
    }

    fn invite(
        &mut self,
        ticket: Ticket,
        account: Option<AddressBuf>,
        valid_for: Duration,
        now: Now,
    ) {
        if let Some(address) = account.clone().filter(|account| {
            !account.as_address().is_account()
                || account.as_address().domain() != self.settings.domain
        }) {
            return self.operated(ticket, Err(OperatorError::NotHere { address }));
        }
        let mut secret = [0; 16];
        (self.random)(&mut secret);
        let code = protocol::base64::encode(&secret);
        let valid_ms = u64::try_from(valid_for.as_millis()).unwrap_or(u64::MAX);
        let expires = now.timestamp.plus_ms(valid_ms);
        let invitation = Invitation { expires, account, used_by: None };
        let row = invitation_row(&code);
        let operations = vec![
            Operation::RequireAbsent { row: row.clone() },
            Operation::Put { row, value: invitation.encode() },
        ];
        self.commit(operations, now, move |domain, outcome, _| {
            let reply = durable(outcome).map(|()| OperatorAnswer::Invited { code });
            domain.operated(ticket, reply);
        });
    }

    fn operated(&mut self, ticket: Ticket, reply: OperatorReply) {
        self.effects.push(Effect::Operated(ticket, reply));
    }
}

fn durable(outcome: Outcome) -> Result<(), OperatorError> {
    match outcome {
        Outcome::Durable => Ok(()),
        Outcome::Conflict { .. } => Err(OperatorError::Raced),
        Outcome::Refused(error) => Err(error.into()),
        Outcome::Unknown => Err(OperatorError::Unknown),
    }
}
