//! Canonical octets: what is signed and what the AEAD binds (SPEC.md §4).
//!
//! `C(label)` takes label, code, TO, FROM and every parameter but the hop parameters, sorted by
//! name. Altering any of them, or adding one, changes the octets.

use aws_lc_rs::digest;

use crate::command::Command;
use crate::parameter::Parameter;

/// `C(label)` of a command, without the parameters named in `without`.
#[must_use]
pub fn canonical(label: &str, command: &Command<'_>, without: &[&str]) -> Vec<u8> {
    let mut signed: Vec<Parameter<'_>> = command
        .parameters()
        .iter()
        .filter(|parameter| !parameter.is_hop() && !without.contains(&parameter.name))
        .collect();
    signed.sort_unstable_by_key(|parameter| parameter.name);

    let mut octets = Vec::with_capacity(64 + command.as_str().len() * 2);
    push_lp(&mut octets, label.as_bytes());
    push_lp(&mut octets, command.code().to_string().as_bytes());
    push_lp(&mut octets, command.to().map_or("", |address| address.as_str()).as_bytes());
    push_lp(&mut octets, command.from().map_or("", |address| address.as_str()).as_bytes());
    // At most `limits::PARAMETERS_MAX` parameters.
    octets.extend_from_slice(&(signed.len() as u16).to_be_bytes());
    for parameter in signed {
        push_lp(&mut octets, parameter.name.as_bytes());
        push_lp(&mut octets, parameter.value.as_bytes());
    }
    octets
}

/// Appends `lp(x)`: a 32-bit big-endian length, then `x`.
///
/// `x` is part of a line or a key and so shorter than 4 GiB.
pub fn push_lp(octets: &mut Vec<u8>, x: &[u8]) {
    octets.extend_from_slice(&(x.len() as u32).to_be_bytes());
    octets.extend_from_slice(x);
}

/// SHA-256 of the concatenation of `parts`. Source: FIPS 180-4.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
