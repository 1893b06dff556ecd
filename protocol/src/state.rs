//! How a link between client and relay comes up: the serving and the calling side.
//!
//! Both are pure: lines in, lines out. The serving side is given nonces and the outcome of the
//! proof, the calling side signatures; neither reads a clock, a socket or random octets. After
//! the login, [`crate::table::check`] says what either side may send (SPEC.md §5).

pub mod client;
pub mod server;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
