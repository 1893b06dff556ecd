//! What 012 signs: a proof of the device key that holds on one link only (SPEC.md §5).

use crate::address::Address;
use crate::canonical::push_lp;
use crate::signature::PublicKey;

/// The label of the TLS exporter; its context is empty (RFC 8446 §7.5).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-cipherim-identity";
/// Octets of the exporter.
pub const EXPORTER_OCTETS: usize = 32;
/// ALPN between client and relay.
pub const ALPN_CLIENT: &str = "cim1";

/// Where and as whom a device proves itself.
#[derive(Clone, Copy, Debug)]
pub struct Proof<'a> {
    /// The exporter of this TLS connection.
    pub exporter: &'a [u8; EXPORTER_OCTETS],
    /// `NONCE=` of 334 as on the wire.
    pub nonce: &'a str,
    /// The ALPN of this TLS connection.
    pub alpn: &'a str,
    /// The domain that the server serves.
    pub server_domain: &'a str,
    /// FROM of 011.
    pub address: Address<'a>,
    /// The key in the body of 011.
    pub key: &'a PublicKey,
}

impl Proof<'_> {
    /// The octets that the device key signs.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(512);
        push_lp(&mut octets, b"CIM1-PROVE");
        push_lp(&mut octets, self.exporter);
        push_lp(&mut octets, self.nonce.as_bytes());
        push_lp(&mut octets, self.alpn.as_bytes());
        push_lp(&mut octets, self.server_domain.as_bytes());
        push_lp(&mut octets, self.address.as_str().as_bytes());
        push_lp(&mut octets, self.key.as_octets());
        octets
    }
}
