//! The rivals: each module turns one library into [`Contender`]s for the cases it knows.

pub(crate) mod aws_lc;
pub(crate) mod gcrypt;
pub(crate) mod openssl;
pub(crate) mod ours;
pub(crate) mod ring;
pub(crate) mod rust_crypto;

use crate::measure::Contender;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Operation {
    /// AES-GCM seal, key ready; the key has this many octets.
    GcmSeal(usize),
    /// AES-GCM open, key ready.
    GcmOpen(usize),
    /// AES-256-GCM seal of `MESSAGES` messages, each under a fresh key.
    GcmFresh,
    /// AES-256-CTR.
    AesCtr,
    /// AES-256-CBC encryption of one stream.
    AesCbcEncrypt,
    /// AES-256-CBC decryption.
    AesCbcDecrypt,
    /// AES-256-CBC encryption of `MESSAGES` messages, each under a fresh key.
    AesCbcFresh,
    /// 3DES-CTR.
    DesCtr,
    /// 3DES-CBC encryption of one stream.
    DesCbcEncrypt,
    /// 3DES-CBC decryption.
    DesCbcDecrypt,
    /// 3DES-CBC encryption of `MESSAGES` messages, each under a fresh key.
    DesCbcFresh,
    /// Blowfish-CTR, 16-octet key.
    BlowfishCtr,
    /// Blowfish-CBC encryption of one stream.
    BlowfishCbcEncrypt,
    /// Blowfish-CBC decryption.
    BlowfishCbcDecrypt,
    /// Blowfish-CBC encryption of `MESSAGES` messages, each under a fresh key.
    BlowfishCbcFresh,
}

/// Messages of a batch with fresh keys.
pub(crate) const MESSAGES: usize = 256;

impl Operation {
    pub(crate) const ALL: [Self; 17] = [
        Self::GcmSeal(16),
        Self::GcmSeal(32),
        Self::GcmOpen(16),
        Self::GcmOpen(32),
        Self::GcmFresh,
        Self::AesCtr,
        Self::AesCbcEncrypt,
        Self::AesCbcDecrypt,
        Self::AesCbcFresh,
        Self::DesCtr,
        Self::DesCbcEncrypt,
        Self::DesCbcDecrypt,
        Self::DesCbcFresh,
        Self::BlowfishCtr,
        Self::BlowfishCbcEncrypt,
        Self::BlowfishCbcDecrypt,
        Self::BlowfishCbcFresh,
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Self::GcmSeal(key) => format!("aes-{}-gcm seal", key * 8),
            Self::GcmOpen(key) => format!("aes-{}-gcm open", key * 8),
            Self::GcmFresh => "aes-256-gcm seal, fresh keys".into(),
            Self::AesCtr => "aes-256-ctr".into(),
            Self::AesCbcEncrypt => "aes-256-cbc encrypt".into(),
            Self::AesCbcDecrypt => "aes-256-cbc decrypt".into(),
            Self::AesCbcFresh => "aes-256-cbc encrypt, fresh keys".into(),
            Self::DesCtr => "3des-ctr".into(),
            Self::DesCbcEncrypt => "3des-cbc encrypt".into(),
            Self::DesCbcDecrypt => "3des-cbc decrypt".into(),
            Self::DesCbcFresh => "3des-cbc encrypt, fresh keys".into(),
            Self::BlowfishCtr => "blowfish-ctr".into(),
            Self::BlowfishCbcEncrypt => "blowfish-cbc encrypt".into(),
            Self::BlowfishCbcDecrypt => "blowfish-cbc decrypt".into(),
            Self::BlowfishCbcFresh => "blowfish-cbc encrypt, fresh keys".into(),
        }
    }

    /// Messages per call.
    pub(crate) fn messages(self) -> usize {
        match self {
            Self::GcmFresh | Self::AesCbcFresh | Self::DesCbcFresh | Self::BlowfishCbcFresh => {
                MESSAGES
            }
            _ => 1,
        }
    }
}

/// All contenders for an operation on messages of `len` octets.
pub(crate) fn contenders(operation: Operation, len: usize) -> Vec<Contender> {
    let mut all = ours::contenders(operation, len);
    let rivals = [
        ("ring", ring::work(operation, len)),
        ("aws-lc", aws_lc::work(operation, len)),
        ("openssl", openssl::work(operation, len)),
        ("libgcrypt", gcrypt::work(operation, len)),
        ("rustcrypto", rust_crypto::work(operation, len)),
    ];
    for (name, work) in rivals {
        all.extend(work.map(|work| Contender { name: name.into(), work }));
    }
    all
}

/// Distinct keys for `MESSAGES` messages.
pub(crate) fn keys<const N: usize>() -> Vec<[u8; N]> {
    (0..MESSAGES)
        .map(|i| core::array::from_fn(|j| (i * 31 + j * 7 + (i * j) % 251) as u8))
        .collect()
}
