//! The RustCrypto crates, used as their documentation shows, with their own blocks in parallel.

use super::{Operation, keys, ours::DES_KEY};
use crate::measure::Work;
use aes_gcm::aead::{AeadInOut, inout::InOutBuf};
use blowfish::Blowfish;
use cipher::{
    Array, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit, KeyIvInit, StreamCipher,
};
use des::TdesEde3;

fn seal<A>(key: &A, text: &mut [u8])
where
    A: AeadInOut<NonceSize = cipher::consts::U12, TagSize = cipher::consts::U16>,
{
    let text = InOutBuf::from(text);
    key.encrypt_inout_detached(&[1; 12].into(), b"0123456789abc", text).expect("seals");
}

macro_rules! blocks {
    ($text:expr, $n:literal) => {
        Array::cast_slice_from_core_mut($text.as_chunks_mut::<$n>().0)
    };
}

pub(crate) fn work(operation: Operation, len: usize) -> Option<Work> {
    let mut text = vec![0x5au8; len];
    Some(match operation {
        Operation::GcmSeal(16) => {
            let key = aes_gcm::Aes128Gcm::new(&[7; 16].into());
            Box::new(move || seal(&key, &mut text))
        }
        Operation::GcmSeal(_) => {
            let key = aes_gcm::Aes256Gcm::new(&[7; 32].into());
            Box::new(move || seal(&key, &mut text))
        }
        Operation::GcmFresh => {
            let keys = keys::<32>();
            Box::new(move || {
                for key in &keys {
                    seal(&aes_gcm::Aes256Gcm::new(key.into()), &mut text);
                }
            })
        }
        Operation::AesCtr => {
            let mut stream = ctr::Ctr128BE::<aes::Aes256>::new(&[7; 32].into(), &[1; 16].into());
            Box::new(move || stream.apply_keystream(&mut text))
        }
        Operation::AesCbcEncrypt => {
            let key = aes::Aes256::new(&[7; 32].into());
            let mut mode = cbc::Encryptor::inner_iv_init(key, &[1; 16].into());
            Box::new(move || mode.encrypt_blocks(blocks!(text, 16)))
        }
        Operation::AesCbcDecrypt => {
            let key = aes::Aes256::new(&[7; 32].into());
            let mut mode = cbc::Decryptor::inner_iv_init(key, &[1; 16].into());
            Box::new(move || mode.decrypt_blocks(blocks!(text, 16)))
        }
        Operation::AesCbcFresh => {
            let keys = keys::<32>();
            Box::new(move || {
                for key in &keys {
                    cbc::Encryptor::<aes::Aes256>::new(key.into(), &[1; 16].into())
                        .encrypt_blocks(blocks!(text, 16));
                }
            })
        }
        Operation::DesCtr => {
            let mut stream = ctr::Ctr64BE::<TdesEde3>::new(&DES_KEY.into(), &[1; 8].into());
            Box::new(move || stream.apply_keystream(&mut text))
        }
        Operation::DesCbcEncrypt => {
            let mut mode = cbc::Encryptor::<TdesEde3>::new(&DES_KEY.into(), &[1; 8].into());
            Box::new(move || mode.encrypt_blocks(blocks!(text, 8)))
        }
        Operation::DesCbcDecrypt => {
            let mut mode = cbc::Decryptor::<TdesEde3>::new(&DES_KEY.into(), &[1; 8].into());
            Box::new(move || mode.decrypt_blocks(blocks!(text, 8)))
        }
        Operation::DesCbcFresh => {
            let keys = keys::<24>();
            Box::new(move || {
                for key in &keys {
                    cbc::Encryptor::<TdesEde3>::new(key.into(), &[1; 8].into())
                        .encrypt_blocks(blocks!(text, 8));
                }
            })
        }
        Operation::BlowfishCtr => {
            let key: Blowfish = Blowfish::new_from_slice(&[7; 16]).expect("key length");
            let core = ctr::CtrCore::<_, ctr::flavors::Ctr64BE>::inner_iv_init(key, &[1; 8].into());
            let mut stream = cipher::StreamCipherCoreWrapper::from_core(core);
            Box::new(move || stream.apply_keystream(&mut text))
        }
        Operation::BlowfishCbcEncrypt => {
            let key: Blowfish = Blowfish::new_from_slice(&[7; 16]).expect("key length");
            let mut mode = cbc::Encryptor::inner_iv_init(key, &[1; 8].into());
            Box::new(move || mode.encrypt_blocks(blocks!(text, 8)))
        }
        Operation::BlowfishCbcDecrypt => {
            let key: Blowfish = Blowfish::new_from_slice(&[7; 16]).expect("key length");
            let mut mode = cbc::Decryptor::inner_iv_init(key, &[1; 8].into());
            Box::new(move || mode.decrypt_blocks(blocks!(text, 8)))
        }
        Operation::BlowfishCbcFresh => {
            let keys = keys::<16>();
            Box::new(move || {
                for key in &keys {
                    let key: Blowfish = Blowfish::new_from_slice(key).expect("key length");
                    cbc::Encryptor::inner_iv_init(key, &[1; 8].into())
                        .encrypt_blocks(blocks!(text, 8));
                }
            })
        }
        Operation::GcmOpen(_) => return None,
    })
}
