//! PKCS#11 return codes: number, name, class, and the remedy in plain words.
//!
//! The one table behind every error text and every retry. *Source:* PKCS#11 v3.1 §5.1 for numbers
//! and names; the classes are by what recovers, as tried with real modules: a token that was
//! unplugged shows as 0x82, 0x30, 0x05 or a missing key, hardly ever as `CKR_TOKEN_NOT_PRESENT`.

use std::borrow::Cow;

use cryptoki::error::RvError;

use crate::error::{Class, Error, Fault};

macro_rules! codes {
    ($( $code:literal $variant:ident $name:literal $class:ident; )*) => {
        /// The number of a code as `cryptoki` names it.
        fn number(error: RvError) -> u64 {
            match error {
                $( RvError::$variant => $code, )*
                RvError::VendorDefined(code) | RvError::UnknownErrorCode(code) => code,
            }
        }

        /// The name in the standard.
        pub(crate) fn name(code: u64) -> &'static str {
            match code {
                $( $code => $name, )*
                0x8000_0000.. => "CKR_VENDOR_DEFINED",
                _ => "an unknown code",
            }
        }

        /// What recovers.
        pub(crate) fn class(code: u64) -> Class {
            match code {
                $( $code => Class::$class, )*
                // A vendor's own codes mostly say "device lost"; looking again is safe.
                _ => Class::Away,
            }
        }
    };
}

codes! {
    0x001 Cancel "CKR_CANCEL" Retry;
    0x002 HostMemory "CKR_HOST_MEMORY" Away;
    0x003 SlotIdInvalid "CKR_SLOT_ID_INVALID" Away;
    0x005 GeneralError "CKR_GENERAL_ERROR" Away;
    0x006 FunctionFailed "CKR_FUNCTION_FAILED" Away;
    0x007 ArgumentsBad "CKR_ARGUMENTS_BAD" Permanent;
    0x008 NoEvent "CKR_NO_EVENT" Retry;
    0x009 NeedToCreateThreads "CKR_NEED_TO_CREATE_THREADS" Permanent;
    0x00A CantLock "CKR_CANT_LOCK" Permanent;
    0x010 AttributeReadOnly "CKR_ATTRIBUTE_READ_ONLY" Permanent;
    0x011 AttributeSensitive "CKR_ATTRIBUTE_SENSITIVE" Permanent;
    0x012 AttributeTypeInvalid "CKR_ATTRIBUTE_TYPE_INVALID" Permanent;
    0x013 AttributeValueInvalid "CKR_ATTRIBUTE_VALUE_INVALID" Permanent;
    0x01B ActionProhibited "CKR_ACTION_PROHIBITED" Permanent;
    0x020 DataInvalid "CKR_DATA_INVALID" Permanent;
    0x021 DataLenRange "CKR_DATA_LEN_RANGE" Permanent;
    0x030 DeviceError "CKR_DEVICE_ERROR" Away;
    0x031 DeviceMemory "CKR_DEVICE_MEMORY" Away;
    0x032 DeviceRemoved "CKR_DEVICE_REMOVED" Away;
    0x040 EncryptedDataInvalid "CKR_ENCRYPTED_DATA_INVALID" Permanent;
    0x041 EncryptedDataLenRange "CKR_ENCRYPTED_DATA_LEN_RANGE" Permanent;
    0x050 FunctionCanceled "CKR_FUNCTION_CANCELED" Retry;
    0x051 FunctionNotParallel "CKR_FUNCTION_NOT_PARALLEL" Permanent;
    0x054 FunctionNotSupported "CKR_FUNCTION_NOT_SUPPORTED" Permanent;
    0x060 KeyHandleInvalid "CKR_KEY_HANDLE_INVALID" Retry;
    0x062 KeySizeRange "CKR_KEY_SIZE_RANGE" Permanent;
    0x063 KeyTypeInconsistent "CKR_KEY_TYPE_INCONSISTENT" Permanent;
    0x064 KeyNotNeeded "CKR_KEY_NOT_NEEDED" Permanent;
    0x065 KeyChanged "CKR_KEY_CHANGED" Permanent;
    0x066 KeyNeeded "CKR_KEY_NEEDED" Permanent;
    0x067 KeyIndigestible "CKR_KEY_INDIGESTIBLE" Permanent;
    0x068 KeyFunctionNotPermitted "CKR_KEY_FUNCTION_NOT_PERMITTED" Permanent;
    0x069 KeyNotWrappable "CKR_KEY_NOT_WRAPPABLE" Permanent;
    0x06A KeyUnextractable "CKR_KEY_UNEXTRACTABLE" Permanent;
    0x070 MechanismInvalid "CKR_MECHANISM_INVALID" Permanent;
    0x071 MechanismParamInvalid "CKR_MECHANISM_PARAM_INVALID" Permanent;
    0x082 ObjectHandleInvalid "CKR_OBJECT_HANDLE_INVALID" Retry;
    0x090 OperationActive "CKR_OPERATION_ACTIVE" Retry;
    0x091 OperationNotInitialized "CKR_OPERATION_NOT_INITIALIZED" Retry;
    0x0A0 PinIncorrect "CKR_PIN_INCORRECT" Permanent;
    0x0A1 PinInvalid "CKR_PIN_INVALID" Permanent;
    0x0A2 PinLenRange "CKR_PIN_LEN_RANGE" Permanent;
    0x0A3 PinExpired "CKR_PIN_EXPIRED" Permanent;
    0x0A4 PinLocked "CKR_PIN_LOCKED" Permanent;
    0x0B0 SessionClosed "CKR_SESSION_CLOSED" Retry;
    0x0B1 SessionCount "CKR_SESSION_COUNT" Away;
    0x0B3 SessionHandleInvalid "CKR_SESSION_HANDLE_INVALID" Retry;
    0x0B4 SessionParallelNotSupported "CKR_SESSION_PARALLEL_NOT_SUPPORTED" Permanent;
    0x0B5 SessionReadOnly "CKR_SESSION_READ_ONLY" Permanent;
    0x0B6 SessionExists "CKR_SESSION_EXISTS" Permanent;
    0x0B7 SessionReadOnlyExists "CKR_SESSION_READ_ONLY_EXISTS" Permanent;
    0x0B8 SessionReadWriteSoExists "CKR_SESSION_READ_WRITE_SO_EXISTS" Permanent;
    0x0C0 SignatureInvalid "CKR_SIGNATURE_INVALID" Permanent;
    0x0C1 SignatureLenRange "CKR_SIGNATURE_LEN_RANGE" Permanent;
    0x0D0 TemplateIncomplete "CKR_TEMPLATE_INCOMPLETE" Permanent;
    0x0D1 TemplateInconsistent "CKR_TEMPLATE_INCONSISTENT" Permanent;
    0x0E0 TokenNotPresent "CKR_TOKEN_NOT_PRESENT" Away;
    0x0E1 TokenNotRecognized "CKR_TOKEN_NOT_RECOGNIZED" Away;
    0x0E2 TokenWriteProtected "CKR_TOKEN_WRITE_PROTECTED" Permanent;
    0x0F0 UnwrappingKeyHandleInvalid "CKR_UNWRAPPING_KEY_HANDLE_INVALID" Retry;
    0x0F1 UnwrappingKeySizeRange "CKR_UNWRAPPING_KEY_SIZE_RANGE" Permanent;
    0x0F2 UnwrappingKeyTypeInconsistent "CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT" Permanent;
    0x100 UserAlreadyLoggedIn "CKR_USER_ALREADY_LOGGED_IN" Retry;
    0x101 UserNotLoggedIn "CKR_USER_NOT_LOGGED_IN" Retry;
    0x102 UserPinNotInitialized "CKR_USER_PIN_NOT_INITIALIZED" Permanent;
    0x103 UserTypeInvalid "CKR_USER_TYPE_INVALID" Permanent;
    0x104 UserAnotherAlreadyLoggedIn "CKR_USER_ANOTHER_ALREADY_LOGGED_IN" Permanent;
    0x105 UserTooManyTypes "CKR_USER_TOO_MANY_TYPES" Permanent;
    0x110 WrappedKeyInvalid "CKR_WRAPPED_KEY_INVALID" Permanent;
    0x112 WrappedKeyLenRange "CKR_WRAPPED_KEY_LEN_RANGE" Permanent;
    0x113 WrappingKeyHandleInvalid "CKR_WRAPPING_KEY_HANDLE_INVALID" Retry;
    0x114 WrappingKeySizeRange "CKR_WRAPPING_KEY_SIZE_RANGE" Permanent;
    0x115 WrappingKeyTypeInconsistent "CKR_WRAPPING_KEY_TYPE_INCONSISTENT" Permanent;
    0x120 RandomSeedNotSupported "CKR_RANDOM_SEED_NOT_SUPPORTED" Permanent;
    0x121 RandomNoRng "CKR_RANDOM_NO_RNG" Permanent;
    0x130 DomainParamsInvalid "CKR_DOMAIN_PARAMS_INVALID" Permanent;
    0x140 CurveNotSupported "CKR_CURVE_NOT_SUPPORTED" Permanent;
    0x150 BufferTooSmall "CKR_BUFFER_TOO_SMALL" Retry;
    0x160 SavedStateInvalid "CKR_SAVED_STATE_INVALID" Permanent;
    0x170 InformationSensitive "CKR_INFORMATION_SENSITIVE" Permanent;
    0x180 StateUnsaveable "CKR_STATE_UNSAVEABLE" Permanent;
    0x190 CryptokiNotInitialized "CKR_CRYPTOKI_NOT_INITIALIZED" Away;
    0x191 CryptokiAlreadyInitialized "CKR_CRYPTOKI_ALREADY_INITIALIZED" Away;
    0x1A0 MutexBad "CKR_MUTEX_BAD" Permanent;
    0x1A1 MutexNotLocked "CKR_MUTEX_NOT_LOCKED" Permanent;
    0x1B0 NewPinMode "CKR_NEW_PIN_MODE" Permanent;
    0x1B1 NextOtp "CKR_NEXT_OTP" Permanent;
    0x1B5 ExceededMaxIterations "CKR_EXCEEDED_MAX_ITERATIONS" Retry;
    0x1B6 FipsSelfTestFailed "CKR_FIPS_SELF_TEST_FAILED" Permanent;
    0x1B7 LibraryLoadFailed "CKR_LIBRARY_LOAD_FAILED" Permanent;
    0x1B8 PinTooWeak "CKR_PIN_TOO_WEAK" Permanent;
    0x1B9 PublicKeyInvalid "CKR_PUBLIC_KEY_INVALID" Permanent;
    0x200 FunctionRejected "CKR_FUNCTION_REJECTED" Permanent;
}

/// What to do about `code` from `function`, in plain words.
pub(crate) fn remedy(function: &str, code: u64) -> &'static str {
    match (function, code) {
        ("C_Initialize", 0x005 | 0x006 | 0x030) => {
            "the module finds no tokens: check its own configuration (SoftHSM: SOFTHSM2_CONF and \
             the token directory) and that the device is plugged in"
        }
        (_, 0x0A0) => "the PIN is wrong: correct the PIN file; it is not tried again before",
        (_, 0x0A1 | 0x0A2 | 0x1B8) => "the token does not accept such a PIN: see its rules",
        (_, 0x0A3) => "the PIN has expired: set a new one with the vendor's tool",
        (_, 0x0A4) => "the PIN is locked: unlock it with the SO PIN and the vendor's tool",
        (_, 0x102) => "the user PIN was never set: cipherim-hsmd init-token, or the vendor's tool",
        (_, 0x003 | 0x030 | 0x032 | 0x0E0 | 0x0E1) => {
            "plug the token in, or look after its connection; it is found again by itself"
        }
        (_, 0x005 | 0x006 | 0x082 | 0x060 | 0x113 | 0x0F0) => {
            "the token may have been taken away: plug it in; it is found again by itself"
        }
        (_, 0x002 | 0x031) => "memory is short in host or token: remove objects, or restart it",
        (_, 0x0B0 | 0x0B3 | 0x090 | 0x091 | 0x101) => "the session was lost: it is opened again",
        (_, 0x0B1) => "the token allows no more sessions: lower service.sessions",
        (_, 0x0B5 | 0x0E2) => "the token is write-protected: allow writing with the vendor's tool",
        (_, 0x054 | 0x070 | 0x071 | 0x140) => {
            "the token cannot do this: see `cipherim-hsmd doctor` for what it proved"
        }
        (_, 0x068) => "the key does not permit this use: make keys with `cipherim-hsmd provision`",
        (_, 0x040 | 0x041 | 0x110 | 0x112) => {
            "the wrapped key is damaged or was wrapped by another key"
        }
        (_, 0x190 | 0x191) => "the module lost its state: it is initialised again",
        (_, 0x1B6) => "the token failed its own self-test: take it out of service",
        (_, 0x8000_0000..) => "a code of the vendor's own: see its manual",
        _ => "see the module's manual",
    }
}

/// Turns an error of `cryptoki` into ours.
pub(crate) fn error(slot: Option<u64>, error: cryptoki::error::Error) -> Error {
    use cryptoki::error::Error as E;
    let module = |reason: Cow<'static, str>| Error::Module { path: "PKCS#11".into(), reason };
    match error {
        E::Pkcs11(code, function) => {
            let fault =
                Fault { slot, function: Cow::Owned(format!("C_{function:?}")), code: number(code) };
            match class(fault.code) {
                Class::Permanent | Class::Misuse => Error::Refused { fault },
                Class::Away | Class::Retry => Error::Token { fault },
            }
        }
        E::LibraryLoading(error) => module(error.to_string().into()),
        E::MissingSymbol(name) => module(format!("it has no function {name}").into()),
        E::NullFunctionPointer => module("it lacks a function that is needed".into()),
        other => module(format!("an answer that makes no sense ({other})").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree() {
        assert_eq!(number(RvError::PinIncorrect), 0xA0);
        assert_eq!(name(0xA0), "CKR_PIN_INCORRECT");
        assert_eq!(name(0x8000_0042), "CKR_VENDOR_DEFINED");
        assert_eq!(number(RvError::VendorDefined(0x8000_0042)), 0x8000_0042);
    }

    #[test]
    fn a_wrong_pin_is_never_retried() {
        for code in 0xA0..=0xA4 {
            assert_eq!(class(code), Class::Permanent);
            assert!(remedy("C_Login", code).contains("PIN"));
        }
    }
}
