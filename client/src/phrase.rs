//! The recovery phrase: 24 words from which the recovery key follows.
//!
//! Owns the way from words to key: BIP 39 (English list, 256 bits with a checksum) gives the
//! entropy, HKDF-SHA-256 with the account as context gives the seed of an Ed25519 key. Nothing of
//! it is stored: the record holds only the hash of the public key (SPEC.md §6), and whoever loses
//! the words loses the recovery.

use aws_lc_rs::hkdf;
use bip39::{Language, Mnemonic};
use protocol::Address;
use protocol::canonical::push_lp;
use protocol::signature::{SignatureError, SoftwareSigner};
use zeroize::Zeroizing;

use crate::random::{self, NoRandom, Random};
use crate::secret::Secret32;

/// Words of a phrase.
pub const WORDS: usize = 24;

/// The words are not a recovery phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these are not the 24 words of a recovery phrase, or one of them is mistyped")]
pub struct NotAPhrase;

/// A recovery phrase, as its entropy.
pub struct Phrase(Secret32);

impl Phrase {
    /// A new phrase.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn generate(random: &mut dyn Random) -> Result<Self, NoRandom> {
        random::secret(random).map(Self)
    }

    /// The phrase that `words` spell, however they are spaced and cased.
    ///
    /// # Errors
    /// [`NotAPhrase`] for a word off the list, a wrong count or a wrong checksum.
    pub fn parse(words: &str) -> Result<Self, NotAPhrase> {
        let mut text = Zeroizing::new(String::with_capacity(words.len()));
        for word in words.split_whitespace() {
            if !text.is_empty() {
                text.push(' ');
            }
            text.extend(word.chars().map(|letter| letter.to_ascii_lowercase()));
        }
        let mnemonic =
            Mnemonic::parse_in_normalized(Language::English, &text).map_err(|_| NotAPhrase)?;
        let entropy = Zeroizing::new(mnemonic.to_entropy());
        Secret32::from_slice(&entropy).map(Self).ok_or(NotAPhrase)
    }

    /// The words, for paper.
    ///
    /// # Errors
    /// None in practice: 32 octets always make 24 words.
    pub fn words(&self) -> Result<Zeroizing<String>, NotAPhrase> {
        let mnemonic = Mnemonic::from_entropy(self.0.expose()).map_err(|_| NotAPhrase)?;
        Ok(Zeroizing::new(mnemonic.to_string()))
    }

    /// The recovery key of `account`.
    ///
    /// # Errors
    /// [`SignatureError::Key`] in no known case.
    pub fn signer(&self, account: Address<'_>) -> Result<SoftwareSigner, SignatureError> {
        let mut info = Vec::new();
        push_lp(&mut info, account.account().as_str().as_bytes());
        let seed = Secret32::filled(|seed| {
            hkdf::Salt::new(hkdf::HKDF_SHA256, &[0; 32])
                .extract(self.0.expose())
                .expand(&[b"CIM1-RECOVERY", &info], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(seed))
                .map_err(|_| SignatureError::Key)
        })?;
        SoftwareSigner::ed25519(seed.expose())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use protocol::signature::Signer as _;

    use super::*;
    use crate::random::Seeded;

    #[test]
    fn words_make_the_same_key_for_the_same_account() {
        let phrase = Phrase::generate(&mut Seeded::new(1)).unwrap();
        let words = phrase.words().unwrap();
        assert_eq!(words.split(' ').count(), WORDS);
        let typed = format!("  {}\n", words.to_uppercase().replace(' ', "  "));
        let again = Phrase::parse(&typed).unwrap();
        let key = |phrase: &Phrase, account: &str| {
            phrase.signer(Address::parse(account).unwrap()).unwrap().public_key().clone()
        };
        assert_eq!(key(&phrase, "alice@a.example"), key(&again, "alice@a.example/d1"));
        assert_ne!(key(&phrase, "alice@a.example"), key(&phrase, "bob@a.example"));
    }

    #[test]
    fn mistyped_words_are_noticed() {
        let words = Phrase::generate(&mut Seeded::new(2)).unwrap().words().unwrap();
        let (_, rest) = words.split_once(' ').unwrap();
        let swapped = words.split(' ').rev().collect::<Vec<_>>().join(" ");
        for text in ["", rest, &format!("{rest} zzz"), &swapped, "abandon abandon abandon"] {
            assert!(Phrase::parse(text).is_err(), "{text}");
        }
        // A word off the list, and every exchange of the first word for its neighbour.
        assert!(Phrase::parse(&format!("cipherim {rest}")).is_err());
        let twelve = "legal winner thank year wave sausage worth useful legal winner thank yellow";
        assert!(Phrase::parse(twelve).is_err(), "only 24 words");
    }
}
