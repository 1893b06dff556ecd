//! Everything that needs a PKCS#11 token, offloaded to a process of its own.
//!
//! `cipherim-hsmd` ([`service`]) is the only process that loads the vendor's library and knows the
//! PIN; others speak to it over a Unix socket with [`Client`], or with the codec [`wire`] from
//! their own event loop. Private keys never leave the token. Jobs are owned values ([`Request`],
//! [`Response`]) with deadlines; queues are bounded; what went wrong says whose fault it is and
//! what to type ([`Error`]). Design: `HSM.md`; keys: `PROTOCOL.md` §13.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod blob;
pub mod client;
pub mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;

pub mod job;
pub mod limits;
pub mod pin;
pub mod service;
pub mod signature;
pub mod token;
pub mod wire;

pub use client::Client;
pub use error::{Class, Error, Fault};
pub use job::{
    Algorithm, Description, KeyKind, KeyName, Operation, Phase, PublicKey, Purpose, Request,
    Response, Secret, State,
};
