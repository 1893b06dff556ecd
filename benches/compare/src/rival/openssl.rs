//! OpenSSL's libcrypto through its EVP interface, the legacy provider loaded for Blowfish.
//!
//! Owns the declarations used. The invariant: every context is freed by its owner's drop.

use super::{Operation, keys, ours::DES_KEY};
use crate::measure::Work;
use core::ffi::{c_char, c_int, c_uchar, c_void};
use core::ptr::{null, null_mut};
use std::hint::black_box as done;

unsafe extern "C" {
    fn EVP_CIPHER_CTX_new() -> *mut c_void;
    fn EVP_CIPHER_CTX_free(context: *mut c_void);
    fn EVP_CIPHER_CTX_ctrl(c: *mut c_void, kind: c_int, n: c_int, p: *mut c_void) -> c_int;
    fn EVP_CIPHER_CTX_set_padding(context: *mut c_void, padding: c_int) -> c_int;
    fn EVP_CIPHER_fetch(
        library: *mut c_void,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut c_void;
    fn EVP_CipherInit_ex(
        context: *mut c_void,
        cipher: *const c_void,
        engine: *mut c_void,
        key: *const c_uchar,
        iv: *const c_uchar,
        encrypt: c_int,
    ) -> c_int;
    fn EVP_CipherUpdate(
        context: *mut c_void,
        out: *mut c_uchar,
        out_len: *mut c_int,
        text: *const c_uchar,
        len: c_int,
    ) -> c_int;
    fn EVP_CipherFinal_ex(context: *mut c_void, out: *mut c_uchar, len: *mut c_int) -> c_int;
    fn OSSL_PROVIDER_load(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

const GET_TAG: c_int = 0x10;
const SET_TAG: c_int = 0x11;

struct Context {
    context: *mut c_void,
    cipher: *mut c_void,
}

impl Context {
    fn new(name: &core::ffi::CStr) -> Option<Self> {
        // SAFETY: plain constructors; the name is a C string; null means the default library.
        let (context, cipher) = unsafe {
            OSSL_PROVIDER_load(null_mut(), c"default".as_ptr());
            OSSL_PROVIDER_load(null_mut(), c"legacy".as_ptr());
            (EVP_CIPHER_CTX_new(), EVP_CIPHER_fetch(null_mut(), name.as_ptr(), null()))
        };
        (!context.is_null() && !cipher.is_null()).then_some(Self { context, cipher })
    }

    fn init(&self, key: Option<&[u8]>, iv: &[u8], encrypt: bool) {
        let key = key.map_or(null(), <[u8]>::as_ptr);
        // SAFETY: key and IV have the lengths of the cipher, fixed by the callers below; the
        // cipher is kept from a former call when the key is.
        let good = unsafe {
            let cipher = if key.is_null() { null() } else { self.cipher.cast_const() };
            let good = EVP_CipherInit_ex(
                self.context,
                cipher,
                null_mut(),
                key,
                iv.as_ptr(),
                c_int::from(encrypt),
            );
            EVP_CIPHER_CTX_set_padding(self.context, 0);
            good
        };
        assert_eq!(good, 1);
    }

    fn update(&self, text: &mut [u8]) {
        let (mut len, text_len) = (0, text.len() as c_int);
        // SAFETY: in place, whole blocks or a stream, so the output has the length of the input.
        let good = unsafe {
            EVP_CipherUpdate(self.context, text.as_mut_ptr(), &mut len, text.as_ptr(), text_len)
        };
        assert_eq!(good, 1);
    }

    fn aad(&self, aad: &[u8]) {
        let mut len = 0;
        // SAFETY: a null output makes the octets associated data.
        let good = unsafe {
            EVP_CipherUpdate(self.context, null_mut(), &mut len, aad.as_ptr(), aad.len() as c_int)
        };
        assert_eq!(good, 1);
    }

    fn control(&self, kind: c_int, tag: &mut [u8; 16]) {
        // SAFETY: the tag has the 16 octets that are announced.
        let good = unsafe { EVP_CIPHER_CTX_ctrl(self.context, kind, 16, tag.as_mut_ptr().cast()) };
        assert_eq!(good, 1);
    }

    fn finish(&self) {
        let (mut rest, mut len) = ([0; 32], 0);
        // SAFETY: the rest is at most one block.
        let good = unsafe { EVP_CipherFinal_ex(self.context, rest.as_mut_ptr(), &mut len) };
        assert_eq!(good, 1);
    }

    fn seal(&self, key: Option<&[u8]>, text: &mut [u8]) -> [u8; 16] {
        let mut tag = [0; 16];
        self.init(key, &[1; 12], true);
        self.aad(b"0123456789abc");
        self.update(text);
        self.finish();
        self.control(GET_TAG, &mut tag);
        tag
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by the matching constructor, freed once.
        unsafe { EVP_CIPHER_CTX_free(self.context) }
    }
}

pub(crate) fn work(operation: Operation, len: usize) -> Option<Work> {
    let mut text = vec![0x5au8; len];
    Some(match operation {
        Operation::GcmSeal(octets) => {
            let context = Context::new(gcm(octets))?;
            context.seal(Some(&vec![7; octets]), &mut text);
            Box::new(move || {
                done(context.seal(None, &mut text));
            })
        }
        Operation::GcmOpen(octets) => {
            let context = Context::new(gcm(octets))?;
            let mut tag = context.seal(Some(&vec![7; octets]), &mut text);
            let (sealed, mut text) = (text.clone(), text);
            Box::new(move || {
                text.copy_from_slice(&sealed);
                context.init(None, &[1; 12], false);
                context.control(SET_TAG, &mut tag);
                context.aad(b"0123456789abc");
                context.update(&mut text);
                context.finish();
            })
        }
        Operation::GcmFresh => {
            let (context, keys) = (Context::new(gcm(32))?, keys::<32>());
            Box::new(move || {
                for key in &keys {
                    context.seal(Some(key), &mut text);
                }
            })
        }
        Operation::AesCtr => stream(c"AES-256-CTR", &[7; 32], 16, true, text)?,
        Operation::AesCbcEncrypt => stream(c"AES-256-CBC", &[7; 32], 16, true, text)?,
        Operation::AesCbcDecrypt => stream(c"AES-256-CBC", &[7; 32], 16, false, text)?,
        Operation::DesCbcEncrypt => stream(c"DES-EDE3-CBC", &DES_KEY, 8, true, text)?,
        Operation::DesCbcDecrypt => stream(c"DES-EDE3-CBC", &DES_KEY, 8, false, text)?,
        Operation::BlowfishCbcEncrypt => stream(c"BF-CBC", &[7; 16], 8, true, text)?,
        Operation::BlowfishCbcDecrypt => stream(c"BF-CBC", &[7; 16], 8, false, text)?,
        Operation::AesCbcFresh => fresh(c"AES-256-CBC", keys::<32>(), text)?,
        Operation::DesCbcFresh => fresh(c"DES-EDE3-CBC", keys::<24>(), text)?,
        Operation::BlowfishCbcFresh => fresh(c"BF-CBC", keys::<16>(), text)?,
        Operation::DesCtr | Operation::BlowfishCtr => return None,
    })
}

fn gcm(octets: usize) -> &'static core::ffi::CStr {
    if octets == 16 { c"AES-128-GCM" } else { c"AES-256-GCM" }
}

fn stream(
    name: &core::ffi::CStr,
    key: &[u8],
    iv_len: usize,
    encrypt: bool,
    mut text: Vec<u8>,
) -> Option<Work> {
    let context = Context::new(name)?;
    context.init(Some(key), &vec![1; iv_len], encrypt);
    Some(Box::new(move || context.update(&mut text)))
}

fn fresh<const N: usize>(
    name: &core::ffi::CStr,
    keys: Vec<[u8; N]>,
    mut text: Vec<u8>,
) -> Option<Work> {
    let context = Context::new(name)?;
    Some(Box::new(move || {
        for key in &keys {
            context.init(Some(key), &[1; 16], true);
            context.update(&mut text);
        }
    }))
}
