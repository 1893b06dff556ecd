//! The server's TLS: certificate, the signer behind it, suites, groups, application protocols.
//!
//! TLS 1.3 only, X25519MLKEM768 preferred, no early data, tickets that only this process can open
//! (their keys rotate every six hours). The private key is never here: [`TlsSigner`] signs, as
//! slowly as its token likes. PROTOCOL §1.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, Ticketer, kx_group};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{ServerConfig, SignatureAlgorithm, SignatureScheme, version};
use rustls_pki_types::CertificateDer;

use super::TlsError;
use super::exporter::Tap;

/// The application protocol of clients.
pub const ALPN_CLIENT: &[u8] = b"cim1";

/// Signs the handshake with the key of the certificate. Called on a handshake worker, so it may
/// block for as long as the signer's own deadline.
pub trait TlsSigner: Send + Sync {
    /// ECDSA P-256 with SHA-256 over `message` (not hashed yet), DER encoded.
    ///
    /// # Errors
    /// [`SignError`].
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// Why there is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The signer has too much to do; a later handshake may succeed.
    #[error("the signer of the TLS key is busy")]
    Busy,
    /// The signer is away (token removed, its process gone).
    #[error("the signer of the TLS key is away")]
    Unavailable,
    /// The signer refused: wrong key, wrong mechanism.
    #[error("the signer refused to use the TLS key")]
    Refused,
}

/// The configuration of all sessions of a listener.
#[derive(Clone)]
pub struct Configuration {
    pub(super) server: Arc<ServerConfig>,
}

impl Configuration {
    /// Serves `certificate_chain` (leaf first, DER, its key P-256) with signatures by `signer`.
    ///
    /// # Errors
    /// [`TlsError::Certificate`] if the chain is empty or its leaf holds no P-256 key;
    /// [`TlsError::Library`] if the library refuses the set-up.
    pub fn new(
        certificate_chain: Vec<Vec<u8>>,
        signer: Arc<dyn TlsSigner>,
    ) -> Result<Configuration, TlsError> {
        let leaf = certificate_chain.first().ok_or(TlsError::Certificate)?;
        check_leaf(leaf)?;
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519];
        let chain = certificate_chain.into_iter().map(CertificateDer::from).collect();
        let key = Arc::new(CertifiedKey::new(chain, Arc::new(Key { signer })));
        let mut server = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver { key }));
        server.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.ticketer = Ticketer::new()?;
        server.send_tls13_tickets = 1;
        server.max_early_data_size = 0;
        server.key_log = Arc::new(Tap);
        Ok(Configuration { server: Arc::new(server) })
    }
}

fn check_leaf(leaf: &[u8]) -> Result<(), TlsError> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(leaf).map_err(|_| TlsError::Certificate)?;
    match certificate.public_key().parsed() {
        Ok(x509_parser::public_key::PublicKey::EC(point)) if point.key_size() == 256 => Ok(()),
        _ => Err(TlsError::Certificate),
    }
}

/// Refuses clients that name no application protocol: the library alone would let them in.
#[derive(Debug)]
struct Resolver {
    key: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.alpn()?.next()?;
        Some(Arc::clone(&self.key))
    }
}

struct Key {
    signer: Arc<dyn TlsSigner>,
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(|| Box::new(Key { signer: Arc::clone(&self.signer) }) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let failed = |error: SignError| rustls::Error::Other(rustls::OtherError(Arc::new(error)));
        self.signer.sign(message).map_err(failed)
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}
