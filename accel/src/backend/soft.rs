//! The RustCrypto implementations: the reference for every other backend, and the last resort.
//!
//! Owns the adapters from the crates `aes`, `aes-gcm`, `des` and `blowfish` to this crate's shapes.
//! `aes` and `ghash` choose constant-time code, or the processor's instructions, by themselves;
//! `des` and `blowfish` look tables up and are not constant time.

use crate::Error;
use aes_gcm::aead::{AeadInOut, inout::InOutBuf};
use cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit,
    KeyInit, StreamCipher,
    array::{ArraySize, AssocArraySize},
    consts::U8,
    consts::U16,
};

/// AES-128-GCM.
pub(crate) type Gcm128 = aes_gcm::Aes128Gcm;
/// AES-256-GCM.
pub(crate) type Gcm256 = aes_gcm::Aes256Gcm;

/// A block cipher of RustCrypto in this crate's shape.
pub(crate) trait Key: KeyInit {
    /// Expands a key whose length the caller's types have fixed.
    ///
    /// # Errors
    /// [`Error::KeyLength`] if the cipher refuses the length.
    fn expand(key: &[u8]) -> Result<Self, Error> {
        Self::new_from_slice(key).map_err(|_| Error::KeyLength)
    }
}

impl<C: KeyInit> Key for C {}

/// Seals with a RustCrypto AEAD. The lengths were checked by the caller.
pub(crate) fn seal<A>(key: &A, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> [u8; 16]
where
    A: AeadInOut<NonceSize = cipher::consts::U12, TagSize = U16>,
{
    key.encrypt_inout_detached(nonce.into(), aad, InOutBuf::from(buffer))
        .map_or([0; 16], Into::into)
}

/// Opens with a RustCrypto AEAD, which checks the tag before it decrypts.
pub(crate) fn open<A>(
    key: &A,
    nonce: &[u8; 12],
    aad: &[u8],
    buffer: &mut [u8],
    tag: &[u8; 16],
) -> Result<(), Error>
where
    A: AeadInOut<NonceSize = cipher::consts::U12, TagSize = U16>,
{
    key.decrypt_inout_detached(nonce.into(), aad, InOutBuf::from(buffer), tag.into())
        .map_err(|_| Error::Authentication)
}

/// Counter mode over 128-bit blocks; the caller has checked that the counter does not wrap.
pub(crate) fn ctr_128<C>(key: &C, counter: u128, buffer: &mut [u8])
where
    C: BlockCipherEncrypt<BlockSize = U16> + Clone,
{
    let core = ctr::CtrCore::<C, ctr::flavors::Ctr128BE>::inner_iv_init(
        key.clone(),
        &counter.to_be_bytes().into(),
    );
    cipher::StreamCipherCoreWrapper::from_core(core).apply_keystream(buffer);
}

/// Counter mode over 64-bit blocks; the caller has checked that the counter does not wrap.
pub(crate) fn ctr_64<C>(key: &C, counter: u64, buffer: &mut [u8])
where
    C: BlockCipherEncrypt<BlockSize = U8> + Clone,
{
    let core = ctr::CtrCore::<C, ctr::flavors::Ctr64BE>::inner_iv_init(
        key.clone(),
        &counter.to_be_bytes().into(),
    );
    cipher::StreamCipherCoreWrapper::from_core(core).apply_keystream(buffer);
}

/// CBC encryption of whole blocks; `chain` is the IV and becomes the last ciphertext block.
pub(crate) fn cbc_encrypt<C, const N: usize>(key: &C, chain: &mut [u8; N], blocks: &mut [[u8; N]])
where
    C: BlockCipherEncrypt + Clone,
    [u8; N]: AssocArraySize<Size = C::BlockSize>,
    C::BlockSize: ArraySize<ArrayType<u8> = [u8; N]>,
{
    let iv = Array(*chain);
    let mut mode = cbc::Encryptor::<C>::inner_iv_init(key.clone(), &iv);
    mode.encrypt_blocks(Array::cast_slice_from_core_mut(blocks));
    if let Some(last) = blocks.last() {
        *chain = *last;
    }
}

/// CBC decryption of whole blocks; `chain` is the IV and becomes the last ciphertext block.
pub(crate) fn cbc_decrypt<C, const N: usize>(key: &C, chain: &mut [u8; N], blocks: &mut [[u8; N]])
where
    C: BlockCipherDecrypt + Clone,
    [u8; N]: AssocArraySize<Size = C::BlockSize>,
    C::BlockSize: ArraySize<ArrayType<u8> = [u8; N]>,
{
    let iv = Array(*chain);
    let mut mode = cbc::Decryptor::<C>::inner_iv_init(key.clone(), &iv);
    if let Some(last) = blocks.last() {
        *chain = *last;
    }
    mode.decrypt_blocks(Array::cast_slice_from_core_mut(blocks));
}
