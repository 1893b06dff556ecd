//! What an operator asks of the running domain: the state machine's side of `cipherim-relay ctl`.
//!
//! A request goes in with a ticket of the caller's choice and comes back as
//! [`Effect::Operated`](super::Effect::Operated) under it, at once or when a commit or the token is
//! done. What an operator does to an account is a statement signed by the domain's key, which
//! contacts are shown as an administrator's act.

use std::time::Duration;

use protocol::identifier::MessageId;
use protocol::policy::Policy;
use protocol::revocation::{Revocation, RevokedBy};
use protocol::timestamp::Timestamp;
use protocol::{Address, AddressBuf, Command};

use super::signing::SigningError;
use super::{Answer, Domain, Effect, Ticket, limits};
use crate::clock::Now;
use crate::directory::{self, Account, Invitation, invitation_row, next_policy, policy_operations};
use crate::event::Event;
use crate::keys::SigningKeyName;
use crate::store::{Cursor, Operation, Outcome, Statistics, StoreError, Table};

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
    /// The policy in force.
    Policy,
    /// Another policy: its version and times are decided here, all else is as given.
    PolicyPublish {
        /// What it allows.
        wanted: Box<Policy>,
    },
    /// Takes a key back in the domain's name.
    Revoke {
        /// Whose.
        account: AddressBuf,
        /// The device; `None` for the identity key, which suspends the account.
        device: Option<Box<str>>,
    },
    /// Figures.
    Status,
    /// An orderly stop.
    Stop,
    /// Accounts, in no particular order.
    Users {
        /// Where the answer before ended; `None` for the beginning.
        after: Option<Cursor>,
    },
}

/// What an operator gets.
pub type OperatorReply = Result<OperatorAnswer, OperatorError>;

/// The answer to a request.
#[derive(Clone, PartialEq, Eq)]
pub enum OperatorAnswer {
    /// The code of a new invitation. Shown once, stored only as a hash.
    Invited {
        /// The value of `INVITE=`, before percent encoding.
        code: String,
    },
    /// The policy in force, and its line without CRLF.
    Policy {
        /// What it says.
        policy: Box<Policy>,
        /// The signed line.
        line: String,
    },
    /// The key is revoked; so it was already if `is_new` is false.
    Revoked {
        /// Whether it was revoked by this request.
        is_new: bool,
    },
    /// Figures.
    Status(Box<Status>),
    /// The domain takes no new lines.
    Stopping,
    /// Accounts.
    Users {
        /// At most [`limits::USERS_SHOWN_MAX`].
        users: Vec<User>,
        /// Where the next answer goes on; `None` at the end.
        next: Option<Cursor>,
    },
}

impl std::fmt::Debug for OperatorAnswer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invited { .. } => formatter.write_str("Invited(..)"),
            Self::Policy { line, .. } => formatter.debug_tuple("Policy").field(line).finish(),
            Self::Revoked { is_new } => formatter.debug_tuple("Revoked").field(is_new).finish(),
            Self::Status(status) => status.fmt(formatter),
            Self::Stopping => formatter.write_str("Stopping"),
            Self::Users { users, .. } => formatter.debug_tuple("Users").field(users).finish(),
        }
    }
}

/// Figures about the running domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Links, logged in or not.
    pub links: usize,
    /// Devices that are logged in.
    pub devices_online: usize,
    /// Octets that wait in outboxes.
    pub outbox_octets: usize,
    /// Commits under way.
    pub commits_waiting: usize,
    /// Signatures under way.
    pub signatures_waiting: usize,
    /// VER of the policy in force; 0 if the domain is not provisioned.
    pub policy_version: u64,
    /// Whether a stop was asked for.
    pub is_stopping: bool,
    /// The store's own figures.
    pub store: Statistics,
}

/// An account as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The account.
    pub account: AddressBuf,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// VER of its record.
    pub record_version: u64,
    /// NA of its record.
    pub record_ends: Timestamp,
    /// Whether its identity key was revoked.
    pub is_suspended: bool,
    /// The devices that its record lists.
    pub devices: Vec<UserDevice>,
}

/// A device as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDevice {
    /// Its name.
    pub name: Box<str>,
    /// Whether it is logged in.
    pub is_online: bool,
    /// Whether its key was revoked.
    pub is_revoked: bool,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// The account lists no such device.
    #[error("{account} lists no device {device}")]
    NoDevice {
        /// The account.
        account: AddressBuf,
        /// What was named.
        device: Box<str>,
    },
    /// The address is not an account of this domain.
    #[error("{address} is not an account of this domain")]
    NotHere {
        /// What was named.
        address: AddressBuf,
    },
    /// The domain has no record or policy yet.
    #[error("the domain is not provisioned: run `cipherim-relay provision`")]
    NotProvisioned,
    /// Somebody changed the same thing at the same time.
    #[error("somebody else was faster: try again")]
    Raced,
    /// The statement does not hold against the account's record.
    #[error("{text}")]
    Refused {
        /// Why.
        text: String,
    },
    /// The statement was not signed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It may or may not have happened.
    #[error("the write was interrupted: look whether it happened")]
    Unknown,
}

impl Domain {
    /// Does what an operator asks; the answer comes as an effect under `ticket`.
    pub fn operate(&mut self, ticket: Ticket, request: OperatorRequest, now: Now) {
        let answer = match request {
            OperatorRequest::Invite { account, valid_for } => {
                self.invite(ticket, account, valid_for, now)
            }
            OperatorRequest::Policy => self.show_policy().map(Some),
            OperatorRequest::PolicyPublish { wanted } => self.publish_policy(ticket, &wanted, now),
            OperatorRequest::Revoke { account, device } => {
                self.revoke_as_domain(ticket, &account, device, now)
            }
            OperatorRequest::Status => self.status().map(Some),
            OperatorRequest::Stop => {
                self.stop();
                Ok(Some(OperatorAnswer::Stopping))
            }
            OperatorRequest::Users { after } => self.users(after).map(Some),
        };
        match answer {
            Ok(None) => {}
            Ok(Some(answer)) => self.operated(ticket, Ok(answer)),
            Err(error) => self.operated(ticket, Err(error)),
        }
    }

    fn invite(
        &mut self,
        ticket: Ticket,
        account: Option<AddressBuf>,
        valid_for: Duration,
        now: Now,
    ) -> Result<Option<OperatorAnswer>, OperatorError> {
        let is_ours = |account: &AddressBuf| {
            let address = account.as_address();
            address.is_account() && address.domain() == self.settings.domain
        };
        if let Some(address) = account.as_ref().filter(|account| !is_ours(account)) {
            return Err(OperatorError::NotHere { address: address.clone() });
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
        Ok(None)
    }

    fn show_policy(&self) -> Result<OperatorAnswer, OperatorError> {
        let (policy, line) = self.held_policy()?.ok_or(OperatorError::NotProvisioned)?;
        Ok(OperatorAnswer::Policy { policy: Box::new(policy), line })
    }

    fn publish_policy(
        &mut self,
        ticket: Ticket,
        wanted: &Policy,
        now: Now,
    ) -> Result<Option<OperatorAnswer>, OperatorError> {
        if wanted.domain.as_str() != self.settings.domain {
            return Err(OperatorError::NotHere { address: wanted.domain.clone() });
        }
        let (held, before) = self.held_policy()?.ok_or(OperatorError::NotProvisioned)?;
        let Some(next) = next_policy(wanted, Some(&held), now.timestamp) else {
            return self.show_policy().map(Some);
        };
        let key = (SigningKeyName::Domain, self.signing_key()?);
        let written = next.clone();
        let write = move |signer: &dyn protocol::signature::Signer| written.sign(signer);
        self.sign_line(key, write, now, move |domain, line, now| {
            let line = match line {
                Ok(line) => line,
                Err(error) => return domain.operated(ticket, Err(error.into())),
            };
            let operations = policy_operations(&next, &line, Some(&before));
            domain.commit(operations, now, move |domain, outcome, _| {
                let reply = durable(outcome).map(|()| {
                    domain.emit(Event::PolicyPublished);
                    domain.settings.obey(&next);
                    domain.post.spool.set_settings(domain.settings.spool);
                    domain.post.spool.set_life(domain.settings.spool.life_ms);
                    OperatorAnswer::Policy { policy: Box::new(next), line }
                });
                domain.operated(ticket, reply);
            });
        });
        Ok(None)
    }

    fn revoke_as_domain(
        &mut self,
        ticket: Ticket,
        address: &AddressBuf,
        device: Option<Box<str>>,
        now: Now,
    ) -> Result<Option<OperatorAnswer>, OperatorError> {
        let not_here = || OperatorError::NotHere { address: address.clone() };
        if !address.as_address().is_account() {
            return Err(not_here());
        }
        let account = self.directory.account(&*self.store, address.as_address())?;
        let account = account.ok_or_else(not_here)?;
        let record = account.record();
        let is_done = match &device {
            None => account.is_suspended(),
            Some(name) => {
                let listed = record.device(name).ok_or_else(|| OperatorError::NoDevice {
                    account: address.clone(),
                    device: name.clone(),
                })?;
                account.is_revoked(&listed.key)
            }
        };
        if is_done {
            return Ok(Some(OperatorAnswer::Revoked { is_new: false }));
        }
        let mut id = [0; MessageId::OCTETS];
        (self.random)(&mut id);
        let revocation = Revocation {
            account: address.clone(),
            record: record.name(),
            device,
            by: RevokedBy::Domain,
            at: now.timestamp,
            id: MessageId::from_octets(&id),
        };
        let key = (SigningKeyName::Domain, self.signing_key()?);
        let write = move |signer: &dyn protocol::signature::Signer| revocation.sign(signer);
        self.sign_line(key, write, now, move |domain, line, now| {
            let planned = line.map_err(OperatorError::from);
            match planned.and_then(|line| domain.commit_revocation(ticket, &line, now)) {
                Ok(None) => {}
                Ok(Some(answer)) => domain.operated(ticket, Ok(answer)),
                Err(error) => domain.operated(ticket, Err(error)),
            }
        });
        Ok(None)
    }

    fn commit_revocation(
        &mut self,
        ticket: Ticket,
        line: &str,
        now: Now,
    ) -> Result<Option<OperatorAnswer>, OperatorError> {
        let command = Command::parse(line.as_bytes()).map_err(SigningError::Content)?;
        let address = command.from().map(Address::to_buf).ok_or(OperatorError::NotProvisioned)?;
        let account = self.directory.account(&*self.store, address.as_address())?;
        let account = account.ok_or(OperatorError::NotHere { address })?;
        let planned = self.plan_revocation(&command, account).map_err(refused)?;
        let Some(planned) = planned else {
            return Ok(Some(OperatorAnswer::Revoked { is_new: false }));
        };
        let operations = planned.operations.clone();
        self.commit(operations, now, move |domain, outcome, now| {
            domain.directory.forget(planned.before.address());
            let reply = durable(outcome).map(|()| {
                domain.revoked(&planned, now);
                OperatorAnswer::Revoked { is_new: true }
            });
            domain.operated(ticket, reply);
        });
        Ok(None)
    }

    fn status(&self) -> Result<OperatorAnswer, OperatorError> {
        let policy_version = self.held_policy()?.map_or(0, |(policy, _)| policy.version);
        Ok(OperatorAnswer::Status(Box::new(Status {
            links: self.connections.len(),
            devices_online: self.online.len(),
            outbox_octets: self.connections.values().map(|it| it.outbox_octets).sum(),
            commits_waiting: self.commits.len(),
            signatures_waiting: self.signatures.len(),
            policy_version,
            is_stopping: self.is_stopping,
            store: self.store.statistics(),
        })))
    }

    fn users(&self, after: Option<Cursor>) -> Result<OperatorAnswer, OperatorError> {
        let (rows, next) = self.store.scan(Table::Account, after, limits::USERS_SHOWN_MAX)?;
        let damaged = || StoreError::Damaged { text: "an account's row".to_owned() };
        let mut users = Vec::with_capacity(rows.len());
        for row in rows {
            let owner = std::str::from_utf8(&row.owner).map_err(|_| damaged())?;
            let address = Address::parse(owner).map_err(|_| damaged())?;
            let account = Account::decode(address, &row.value).ok_or_else(damaged)?;
            if address.is_account() {
                users.push(self.user(&account));
            }
        }
        users.sort_unstable_by(|one, two| one.account.cmp(&two.account));
        Ok(OperatorAnswer::Users { users, next })
    }

    fn user(&self, account: &Account) -> User {
        let address = account.address();
        let record = account.record();
        let device = |name: &str| UserDevice {
            name: name.into(),
            is_online: AddressBuf::with_device(address, name)
                .is_ok_and(|device| self.online.contains_key(&device)),
            is_revoked: record.device(name).is_some_and(|listed| account.is_revoked(&listed.key)),
        };
        User {
            account: address.to_buf(),
            registered_at: account.registered_at(),
            record_version: record.version(),
            record_ends: record.not_after(),
            is_suspended: account.is_suspended(),
            devices: record.devices().iter().map(|listed| device(&listed.name)).collect(),
        }
    }

    fn held_policy(&self) -> Result<Option<(Policy, String)>, OperatorError> {
        let domain = Address::parse(&self.settings.domain).map_err(SigningError::Content)?;
        Ok(directory::policy(&*self.store, domain)?)
    }

    fn signing_key(&mut self) -> Result<protocol::signature::PublicKey, OperatorError> {
        self.domain_key().map_err(refused)?.ok_or(OperatorError::NotProvisioned)
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

/// The words of an answer that a client would get.
fn refused(answer: Answer) -> OperatorError {
    OperatorError::Refused { text: answer.last_text().to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
