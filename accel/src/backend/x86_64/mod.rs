//! x86-64 backends, each reached only through a token that proves its processor features.
//!
//! Owns the tokens and, with [`mod@engine`], nearly all `unsafe` of the crate: every wrapped
//! instruction is a safe method of a token, so the kernels above are safe code. The invariant: a
//! token's only constructor checks every feature that its methods use. AVX-512 would be a third
//! [`engine::Engine`] beside the two here; no kernel would change.

#![expect(unsafe_code, reason = "processor instructions behind feature tokens")]

pub(crate) mod aes;
mod des;
pub(crate) mod engine;
pub(crate) mod gcm;
pub(crate) mod lane;

use crate::capability::Mask;

/// Proof that AES-NI, PCLMULQDQ, SSSE3, SSE4.1 and AVX can be used.
#[derive(Clone, Copy)]
pub(crate) struct HaveAesNi(());

impl HaveAesNi {
    /// Checks the processor, less what `mask` hides.
    pub(crate) fn detect(mask: &Mask) -> Option<Self> {
        let present = std::is_x86_feature_detected!("aes")
            && std::is_x86_feature_detected!("pclmulqdq")
            && std::is_x86_feature_detected!("ssse3")
            && std::is_x86_feature_detected!("sse4.1")
            && std::is_x86_feature_detected!("avx");
        let hidden = mask.hides_any(&["aes", "pclmulqdq", "ssse3", "sse4.1", "avx"]);
        (present && !hidden).then_some(Self(()))
    }
}

/// Proof that VAES and VPCLMULQDQ on 256-bit registers, AVX2 and all of [`HaveAesNi`] can be used.
#[derive(Clone, Copy)]
pub(crate) struct HaveVaes256(());

impl HaveVaes256 {
    /// Checks the processor, less what `mask` hides.
    pub(crate) fn detect(mask: &Mask) -> Option<Self> {
        let present = std::is_x86_feature_detected!("vaes")
            && std::is_x86_feature_detected!("vpclmulqdq")
            && std::is_x86_feature_detected!("avx2");
        let hidden = mask.hides_any(&["vaes", "vpclmulqdq", "avx2"]);
        (HaveAesNi::detect(mask).is_some() && present && !hidden).then_some(Self(()))
    }
}

/// Proof that AVX2 can be used.
#[derive(Clone, Copy)]
pub(crate) struct HaveAvx2(());

impl HaveAvx2 {
    /// Checks the processor, less what `mask` hides.
    pub(crate) fn detect(mask: &Mask) -> Option<Self> {
        let present = std::is_x86_feature_detected!("avx2");
        (present && !mask.hides_any(&["avx", "avx2"])).then_some(Self(()))
    }
}
