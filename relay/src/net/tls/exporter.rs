//! Keying material exporters (RFC 8446 §7.5) for a TLS library that hands out only its secret.
//!
//! rustls 0.23 has no exporter on its unbuffered connections, but tells a key log the exporter
//! secret. [`Tap`] is such a log: it takes that one secret, derives our one value from it at once,
//! and forgets it. Nothing is written anywhere. Owns, per thread, the value of the handshake step
//! that is just running; [`take`] empties it.

use std::cell::Cell;

use aws_lc_rs::{digest, hkdf};
use rustls::KeyLog;

/// Octets of our exported value.
pub const EXPORTER_LENGTH: usize = 32;

/// The label under which a login is bound to its connection (PROTOCOL §6).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-cipherim-identity";

const SECRET_LABEL: &str = "EXPORTER_SECRET";

thread_local! {
    static EXPORTED: Cell<Option<[u8; EXPORTER_LENGTH]>> = const { Cell::new(None) };
}

/// What the handshake step that just ran on this thread exported, if it came so far.
pub(super) fn take() -> Option<[u8; EXPORTER_LENGTH]> {
    EXPORTED.take()
}

/// A key log that keeps no keys.
#[derive(Debug)]
pub(super) struct Tap;

impl KeyLog for Tap {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == SECRET_LABEL {
            EXPORTED.set(export(secret, EXPORTER_LABEL, &[]));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == SECRET_LABEL
    }
}

/// `TLS-Exporter(label, context, 32)` under `secret`; its length tells the suite's hash.
fn export(secret: &[u8], label: &[u8], context: &[u8]) -> Option<[u8; EXPORTER_LENGTH]> {
    let (algorithm, hash) = match secret.len() {
        digest::SHA256_OUTPUT_LEN => (hkdf::HKDF_SHA256, &digest::SHA256),
        digest::SHA384_OUTPUT_LEN => (hkdf::HKDF_SHA384, &digest::SHA384),
        _ => return None,
    };
    let nothing = digest::digest(hash, &[]);
    let secret = hkdf::Prk::new_less_safe(algorithm, secret);
    let mut derived = [0; digest::SHA384_OUTPUT_LEN];
    let derived = derived.get_mut(..hash.output_len())?;
    expand_label(&secret, label, nothing.as_ref(), derived)?;
    let derived = hkdf::Prk::new_less_safe(algorithm, derived);
    let mut value = [0; EXPORTER_LENGTH];
    let context = digest::digest(hash, context);
    expand_label(&derived, b"exporter", context.as_ref(), &mut value)?;
    Some(value)
}

/// `HKDF-Expand-Label` (RFC 8446 §7.1) of `output.len()` octets.
fn expand_label(secret: &hkdf::Prk, label: &[u8], context: &[u8], output: &mut [u8]) -> Option<()> {
    const PREFIX: &[u8] = b"tls13 ";
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let length = u16::try_from(output.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    let context_length = [u8::try_from(context.len()).ok()?];
    let info = [&length[..], &label_length, PREFIX, label, &context_length, context];
    let expanded = secret.expand(&info, Length(output.len())).ok()?;
    expanded.fill(output).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exporter_secret_is_looked_at() {
        let tap = Tap;
        assert!(!tap.will_log("SERVER_TRAFFIC_SECRET_0"));
        tap.log("SERVER_TRAFFIC_SECRET_0", &[], &[1; 32]);
        assert_eq!(take(), None);
        tap.log(SECRET_LABEL, &[], &[1; 48]);
        assert!(take().is_some());
        assert_eq!(take(), None, "taken once");
        tap.log(SECRET_LABEL, &[], &[1; 33]);
        assert_eq!(take(), None, "no hash has this length");
    }
}
