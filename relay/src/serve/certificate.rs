//! The TLS certificate: self-signed by the token's key `tls`, pinned by invitations and policy.

use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyUsagePurpose, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::keys::{KeyError, KeyService, SigningKeyName};
use crate::net::tls::{SignError, TlsSigner};

/// Octets of the largest certificate file that is read.
const FILE_OCTETS_MAX: u64 = 1 << 20;

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The token did not give its public key or did not sign.
    #[error("the token does not serve the key `tls`: {0}")]
    Key(#[from] KeyError),
    /// The certificate cannot be made.
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The file cannot be read or holds no certificate.
    #[error("{path}: {text}; run `cipherim-relay provision`, or put the chain there in PEM")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        text: String,
    },
}

/// The key `tls` of the token, as certificates and handshakes use it.
struct TlsKey {
    keys: Arc<dyn KeyService>,
    public: [u8; 65],
}

impl PublicKeyData for TlsKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.keys.sign(SigningKeyName::Tls, message);
        signature.map(|fixed| der(&fixed)).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl TlsSigner for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        match self.keys.sign(SigningKeyName::Tls, message) {
            Ok(fixed) => Ok(der(&fixed)),
            Err(KeyError::Away { .. }) => Err(SignError::Unavailable),
            Err(_) => Err(SignError::Refused),
        }
    }
}

/// What signs handshakes.
///
/// # Errors
/// [`CertificateError::Key`] if the token does not know the key.
pub(super) fn tls_signer(
    keys: Arc<dyn KeyService>,
) -> Result<Arc<dyn TlsSigner>, CertificateError> {
    let public = keys.public_key(SigningKeyName::Tls)?;
    Ok(Arc::new(TlsKey { keys, public }))
}

/// A self-signed certificate for `domain` in PEM, and the SHA-256 of its public key.
///
/// # Errors
/// [`CertificateError::Key`] or [`CertificateError::Make`].
pub fn self_signed(domain: &str, keys: Arc<dyn KeyService>) -> Result<String, CertificateError> {
    let public = keys.public_key(SigningKeyName::Tls)?;
    let mut parameters = CertificateParams::new(vec![domain.to_owned()])?;
    parameters.distinguished_name.push(DnType::CommonName, domain);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Clients trust the pin, not the dates; the pin's own life is the policy's.
    parameters.not_after = rcgen::date_time_ymd(2100, 1, 1);
    Ok(parameters.self_signed(&TlsKey { keys, public })?.pem())
}

/// Reads a certificate chain.
///
/// # Errors
/// [`CertificateError::File`].
pub fn read_chain(path: &Path) -> Result<Vec<Vec<u8>>, CertificateError> {
    let failed = |text: String| CertificateError::File { path: path.to_path_buf(), text };
    let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > FILE_OCTETS_MAX {
        return Err(failed("is too large to be a certificate".to_owned()));
    }
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| failed(error.to_string()))?
        .map(|certificate| certificate.map(|der| der.to_vec()))
        .collect();
    let chain = certificates.map_err(|error| failed(error.to_string()))?;
    if chain.is_empty() { Err(failed("holds no certificate".to_owned())) } else { Ok(chain) }
}

/// SHA-256 of the SubjectPublicKeyInfo of a chain's leaf: what clients pin.
///
/// # Errors
/// [`CertificateError::File`] if the leaf does not parse.
pub fn pin(path: &Path, chain: &[Vec<u8>]) -> Result<[u8; 32], CertificateError> {
    let failed = |text: String| CertificateError::File { path: path.to_path_buf(), text };
    let leaf = chain.first().ok_or_else(|| failed("holds no certificate".to_owned()))?;
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| failed(format!("does not parse: {error}")))?;
    Ok(protocol::canonical::sha256(&[certificate.public_key().raw]))
}

/// r‖s as the SEQUENCE of two INTEGERs that TLS and X.509 use (SEC 1 §C.8).
fn der(fixed: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(70);
    for half in fixed.chunks(32) {
        let start = half.iter().position(|&octet| octet != 0).unwrap_or(half.len() - 1);
        let digits = half.get(start..).unwrap_or_default();
        let needs_zero = digits.first().is_some_and(|first| first & 0x80 != 0);
        body.extend_from_slice(&[2, (digits.len() + usize::from(needs_zero)) as u8]);
        body.extend(needs_zero.then_some(0));
        body.extend_from_slice(digits);
    }
    let mut sequence = vec![0x30, body.len() as u8];
    sequence.append(&mut body);
    sequence
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

    use super::*;
    use crate::keys::software::SoftwareKeys;

    #[test]
    fn a_certificate_from_a_software_key_parses_and_holds() {
        let keys: Arc<dyn KeyService> = Arc::new(SoftwareKeys::generate().unwrap());
        let key = keys.public_key(SigningKeyName::Tls).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tls.pem");
        std::fs::write(&path, self_signed("demo.local", keys).unwrap()).unwrap();
        let chain = read_chain(&path).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        let signed = certificate.tbs_certificate.as_ref();
        let signature = &certificate.signature_value.data;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(signed, signature).unwrap();
        assert_eq!(pin(&path, &chain).unwrap().len(), 32);
    }

    #[test]
    fn der_has_no_needless_zeros() {
        let mut fixed = [0; 64];
        fixed[31] = 0x80;
        fixed[63] = 1;
        assert_eq!(der(&fixed), [0x30, 7, 2, 2, 0, 0x80, 2, 1, 1]);
    }
}
