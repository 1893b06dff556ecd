//! Identifiers and hashes as they stand on the wire: unpadded base64 of a fixed length.
//!
//! They enter hashes and key derivations as text (SPEC.md §4), so each type holds its text and
//! compares, orders and hashes by it. Copies freely; none of them is secret.

use core::fmt;

use crate::base64;
use crate::parameter::WireValue;

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident: $octets:literal octets, $characters:literal characters;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name([u8; $characters]);

            impl $name {
                /// The number of octets that the text stands for.
                pub const OCTETS: usize = $octets;
                /// The number of characters on the wire.
                pub const CHARACTERS: usize = $characters;

                /// The identifier of these octets.
                #[must_use]
                pub fn from_octets(octets: &[u8; $octets]) -> Self {
                    let mut text = [b'A'; $characters];
                    base64::encode_array(octets, &mut text);
                    Self(text)
                }

                /// The identifier that `text` spells; `None` for any other length or alphabet.
                #[must_use]
                pub fn parse(text: &str) -> Option<Self> {
                    let text: [u8; $characters] = text.as_bytes().try_into().ok()?;
                    base64::is_slot(&text).then_some(Self(text))
                }

                /// The text on the wire.
                #[must_use]
                pub fn as_str(&self) -> &str {
                    // Only ASCII gets in.
                    core::str::from_utf8(&self.0).unwrap_or_default()
                }

                /// The octets that the text stands for.
                #[must_use]
                pub fn to_octets(&self) -> [u8; $octets] {
                    // The constructors take only the base64 of that many octets.
                    base64::decode_array(self.as_str()).unwrap_or([0; $octets])
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(self.as_str())
                }
            }

            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(self.as_str())
                }
            }

            impl<'a> WireValue<'a> for $name {
                fn read(value: &'a str) -> Option<Self> {
                    Self::parse(value)
                }
            }
        )*
    };
}

identifiers! {
    /// `SID=`: one session.
    SessionId: 16 octets, 22 characters;
    /// `GEN=`, `PGEN=`: one generation of a session's key; commits to key and members.
    GenerationId: 32 octets, 43 characters;
    /// `MID=`: one line; random.
    MessageId: 16 octets, 22 characters;
    /// `MEM=`: the devices that a generation covers.
    MemberHash: 32 octets, 43 characters;
    /// `KR=`, `KF=`, `PREV=` of a record: SHA-256 of TBS and signature.
    RecordName: 32 octets, 43 characters;
    /// `REC=` of a record: SHA-256 of the value of TLV 3.
    RecoveryHash: 32 octets, 43 characters;
    /// `KC=`: commits a signed sealed line to its message key.
    KeyCommitment: 32 octets, 43 characters;
    /// `NK=`: the keys in a 701 that the next 702 may use.
    NextKeyId: 16 octets, 22 characters;
    /// `FID=`: one offered file.
    FileId: 16 octets, 22 characters;
    /// `ROOT=`: the RFC 9162 root over sealed chunks.
    TreeRoot: 32 octets, 43 characters;
    /// `PIN=`: SHA-256 of a SubjectPublicKeyInfo.
    KeyPin: 32 octets, 43 characters;
    /// `NONCE=`: what 334 asks to have signed.
    Nonce: 32 octets, 43 characters;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn text_and_octets_agree() {
        let octets = core::array::from_fn(|n| n as u8 * 7);
        let id = MessageId::from_octets(&octets);
        assert_eq!(id.to_octets(), octets);
        assert_eq!(id.as_str(), base64::encode(&octets));
        assert_eq!(MessageId::parse(id.as_str()), Some(id));
    }

    #[test]
    fn refused() {
        let good = MessageId::from_octets(&[0xFF; 16]).to_string();
        for text in ["", &good[1..], &format!("{good}A"), &good.replace('/', "-")] {
            assert_eq!(MessageId::parse(text), None, "{text}");
        }
        assert_eq!(MessageId::parse(&format!("{}B", &good[..21])), None, "spare bits");
    }
}
