//! The engines behind the public types: one enum per cipher family over its implementations.
//!
//! Owns the choice tokens ([`aes::Choice`], [`des::Choice`], [`blowfish::Choice`]). The invariant:
//! a variant that needs a processor feature carries a token whose only constructor has checked the
//! feature, so no kernel can run where it would fault.

pub(crate) mod aes;
pub(crate) mod blowfish;
pub(crate) mod budget;
pub(crate) mod des;
mod soft;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;
