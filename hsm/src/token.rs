//! Tokens: what the pool needs of one, and the PKCS#11 implementation of it.
//!
//! A [`Module`] is owned by one thread, the pool's keeper, and is the only one to initialise, log
//! in and look for keys. What it finds is an [`Attachment`], one per generation; each worker opens
//! one [`Session`] on it. When anything is in doubt all sessions are closed and the module attaches
//! anew, at a [`Depth`] the keeper chooses.

pub(crate) mod code;
mod init;
pub mod key;
pub mod module;
mod public;
mod selftest;
mod session;
mod wrap;

use std::sync::Arc;

use crate::error::Error;
use crate::job::{KeyName, PublicKey, Request, Response, TokenInfo};

pub use init::init_token;
pub use module::{Pkcs11, Seen, Settings};

/// How far down the ladder to go when attaching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// New sessions and new handles; the library keeps its state.
    Sessions,
    /// Finalise and initialise the library first.
    Module,
}

/// A token as the keeper sees it.
pub trait Module: Send {
    /// Finds the token, logs in unless logged in, finds the keys, compares their public parts with
    /// those seen before, and tests what the token can do.
    ///
    /// # Errors
    /// [`Error::Away`] and [`Error::Token`] if it is not there; [`Error::PinRefused`];
    /// [`Error::KeyChanged`]; others where a person must act.
    fn attach(&mut self, depth: Depth) -> Result<Arc<dyn Attachment>, Error>;

    /// Whether the token is still there, as cheaply as this module can tell.
    ///
    /// # Errors
    /// Whatever the token said.
    fn check(&mut self) -> Result<(), Error>;

    /// Makes that key or finds it. The caller attaches again afterwards.
    ///
    /// # Errors
    /// As the token says.
    fn generate(&mut self, key: KeyName) -> Result<PublicKey, Error>;

    /// Closes what this module holds open.
    fn detach(&mut self);

    /// Whether the PIN's source changed since the token refused it.
    fn is_pin_changed(&self) -> bool;

    /// Attempts to log in so far.
    fn pin_attempts(&self) -> u64;
}

/// A token of one generation.
pub trait Attachment: Send + Sync {
    /// Opens a session for one worker.
    ///
    /// # Errors
    /// As the token says.
    fn open(self: Arc<Self>) -> Result<Box<dyn Session>, Error>;

    /// What was found.
    fn view(&self) -> &View;
}

/// A session: one job at a time.
pub trait Session {
    /// Does a job. Requests that need no token never come here.
    ///
    /// # Errors
    /// Whatever went wrong; [`Error::class`] says whether the session can be used further.
    fn execute(&mut self, request: &Request) -> Result<Response, Error>;
}

/// What an attachment found.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The token.
    pub token: TokenInfo,
    /// The keys, public parts of those that have one.
    pub keys: Vec<PublicKey>,
    /// What the self-test proved.
    pub proven: Vec<String>,
    /// Plain words about what should be looked after; nothing that stops the service.
    pub warnings: Vec<String>,
}

impl View {
    /// The public part of a key; the newest without a version.
    pub fn find(&self, name: KeyName) -> Option<&PublicKey> {
        self.keys
            .iter()
            .filter(|key| key.key.purpose == name.purpose)
            .filter(|key| name.version.is_none() || key.key.version == name.version)
            .max_by_key(|key| key.key.version)
    }
}
