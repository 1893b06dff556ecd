//! libgcrypt through its cipher interface.
//!
//! Owns the declarations used. The invariant: every handle is closed by its owner's drop.

use super::{Operation, keys, ours::DES_KEY};
use crate::measure::Work;
use core::ffi::{c_char, c_int, c_uint, c_void};
use core::ptr::{null, null_mut};
use std::hint::black_box as done;

unsafe extern "C" {
    fn gcry_check_version(wanted: *const c_char) -> *const c_char;
    fn gcry_cipher_open(h: *mut *mut c_void, cipher: c_int, mode: c_int, flags: c_uint) -> c_uint;
    fn gcry_cipher_close(handle: *mut c_void);
    fn gcry_cipher_ctl(h: *mut c_void, command: c_int, p: *mut c_void, len: usize) -> c_uint;
    fn gcry_cipher_setkey(handle: *mut c_void, key: *const c_void, len: usize) -> c_uint;
    fn gcry_cipher_setiv(handle: *mut c_void, iv: *const c_void, len: usize) -> c_uint;
    fn gcry_cipher_setctr(handle: *mut c_void, counter: *const c_void, len: usize) -> c_uint;
    fn gcry_cipher_authenticate(handle: *mut c_void, aad: *const c_void, len: usize) -> c_uint;
    fn gcry_cipher_gettag(handle: *mut c_void, tag: *mut c_void, len: usize) -> c_uint;
    fn gcry_cipher_checktag(handle: *mut c_void, tag: *const c_void, len: usize) -> c_uint;
    fn gcry_cipher_encrypt(
        handle: *mut c_void,
        out: *mut c_void,
        out_len: usize,
        text: *const c_void,
        len: usize,
    ) -> c_uint;
    fn gcry_cipher_decrypt(
        handle: *mut c_void,
        out: *mut c_void,
        out_len: usize,
        text: *const c_void,
        len: usize,
    ) -> c_uint;
}

const TRIPLE_DES: c_int = 2;
const BLOWFISH: c_int = 4;
const AES_128: c_int = 7;
const AES_256: c_int = 9;
const CBC: c_int = 3;
const CTR: c_int = 6;
const GCM: c_int = 9;
/// The command that begins a new message under the same key.
const RESET: c_int = 4;

struct Handle(*mut c_void);

impl Handle {
    fn new(cipher: c_int, mode: c_int) -> Option<Self> {
        let mut handle = null_mut();
        // SAFETY: null asks for no version; the handle is written on success only.
        let code = unsafe {
            gcry_check_version(null());
            gcry_cipher_open(&mut handle, cipher, mode, 0)
        };
        (code == 0).then_some(Self(handle))
    }

    fn key(&self, key: &[u8]) {
        // SAFETY: the slice is as long as announced. A weak key is reported but set.
        unsafe { gcry_cipher_setkey(self.0, key.as_ptr().cast(), key.len()) };
    }

    fn iv(&self, iv: &[u8]) {
        // SAFETY: the slice is as long as announced.
        let code = unsafe { gcry_cipher_setiv(self.0, iv.as_ptr().cast(), iv.len()) };
        assert_eq!(code, 0);
    }

    fn counter(&self, counter: &[u8]) {
        // SAFETY: the slice is as long as announced.
        let code = unsafe { gcry_cipher_setctr(self.0, counter.as_ptr().cast(), counter.len()) };
        assert_eq!(code, 0);
    }

    fn update(&self, encrypt: bool, text: &mut [u8]) {
        let (pointer, len) = (text.as_mut_ptr().cast(), text.len());
        // SAFETY: a null input means in place.
        let code = unsafe {
            if encrypt {
                gcry_cipher_encrypt(self.0, pointer, len, null(), 0)
            } else {
                gcry_cipher_decrypt(self.0, pointer, len, null(), 0)
            }
        };
        assert_eq!(code, 0);
    }

    fn begin(&self) {
        // SAFETY: the reset takes no argument.
        unsafe { gcry_cipher_ctl(self.0, RESET, null_mut(), 0) };
        self.iv(&[1; 12]);
        // SAFETY: the slice is as long as announced.
        let code =
            unsafe { gcry_cipher_authenticate(self.0, b"0123456789abc".as_ptr().cast(), 13) };
        assert_eq!(code, 0);
    }

    fn seal(&self, text: &mut [u8]) -> [u8; 16] {
        let mut tag = [0u8; 16];
        self.begin();
        self.update(true, text);
        // SAFETY: the tag has 16 octets.
        let code = unsafe { gcry_cipher_gettag(self.0, tag.as_mut_ptr().cast(), 16) };
        assert_eq!(code, 0);
        tag
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: opened by the constructor, closed once.
        unsafe { gcry_cipher_close(self.0) }
    }
}

pub(crate) fn work(operation: Operation, len: usize) -> Option<Work> {
    let mut text = vec![0x5au8; len];
    Some(match operation {
        Operation::GcmSeal(octets) => {
            let handle = Handle::new(if octets == 16 { AES_128 } else { AES_256 }, GCM)?;
            handle.key(&vec![7; octets]);
            Box::new(move || {
                done(handle.seal(&mut text));
            })
        }
        Operation::GcmOpen(octets) => {
            let handle = Handle::new(if octets == 16 { AES_128 } else { AES_256 }, GCM)?;
            handle.key(&vec![7; octets]);
            let tag = handle.seal(&mut text);
            let (sealed, mut text) = (text.clone(), text);
            Box::new(move || {
                text.copy_from_slice(&sealed);
                handle.begin();
                handle.update(false, &mut text);
                // SAFETY: the tag has 16 octets.
                let code = unsafe { gcry_cipher_checktag(handle.0, tag.as_ptr().cast(), 16) };
                assert_eq!(code, 0);
            })
        }
        Operation::GcmFresh => {
            let (handle, keys) = (Handle::new(AES_256, GCM)?, keys::<32>());
            Box::new(move || {
                for key in &keys {
                    handle.key(key);
                    handle.seal(&mut text);
                }
            })
        }
        Operation::AesCtr => counter(AES_256, &[7; 32], 16, text)?,
        Operation::AesCbcEncrypt => chain(AES_256, &[7; 32], 16, true, text)?,
        Operation::AesCbcDecrypt => chain(AES_256, &[7; 32], 16, false, text)?,
        Operation::AesCbcFresh => fresh(AES_256, keys::<32>(), 16, text)?,
        Operation::DesCtr => counter(TRIPLE_DES, &DES_KEY, 8, text)?,
        Operation::DesCbcEncrypt => chain(TRIPLE_DES, &DES_KEY, 8, true, text)?,
        Operation::DesCbcDecrypt => chain(TRIPLE_DES, &DES_KEY, 8, false, text)?,
        Operation::DesCbcFresh => fresh(TRIPLE_DES, keys::<24>(), 8, text)?,
        Operation::BlowfishCtr => counter(BLOWFISH, &[7; 16], 8, text)?,
        Operation::BlowfishCbcEncrypt => chain(BLOWFISH, &[7; 16], 8, true, text)?,
        Operation::BlowfishCbcDecrypt => chain(BLOWFISH, &[7; 16], 8, false, text)?,
        Operation::BlowfishCbcFresh => fresh(BLOWFISH, keys::<16>(), 8, text)?,
    })
}

fn counter(cipher: c_int, key: &[u8], block: usize, mut text: Vec<u8>) -> Option<Work> {
    let handle = Handle::new(cipher, CTR)?;
    handle.key(key);
    Some(Box::new(move || {
        handle.counter(&[1; 16][..block]);
        handle.update(true, &mut text);
    }))
}

fn chain(c: c_int, key: &[u8], block: usize, encrypt: bool, mut text: Vec<u8>) -> Option<Work> {
    let handle = Handle::new(c, CBC)?;
    handle.key(key);
    Some(Box::new(move || {
        handle.iv(&[1; 16][..block]);
        handle.update(encrypt, &mut text);
    }))
}

fn fresh<const N: usize>(
    cipher: c_int,
    keys: Vec<[u8; N]>,
    block: usize,
    mut text: Vec<u8>,
) -> Option<Work> {
    let handle = Handle::new(cipher, CBC)?;
    Some(Box::new(move || {
        for key in &keys {
            handle.key(key);
            handle.iv(&[1; 16][..block]);
            handle.update(true, &mut text);
        }
    }))
}
