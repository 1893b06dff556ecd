//! The link to a relay: TCP, TLS 1.3 with a pinned key, lines in both directions.
//!
//! The relay's certificate is believed because its key is pinned: by the invitation first, by the
//! domain's signed policy later. Names and dates of the certificate are not looked at; its
//! handshake signature is. Sessions are resumed where the relay hands out tickets, so that a
//! relay whose token is away still lets known clients in. SPEC.md §1. Limits:
//! [`LINE_OCTETS_MAX`], [`CONNECT_DEADLINE`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocol::canonical::sha256;
use protocol::limits::LINE_OCTETS_MAX;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long connecting and the TLS handshake may take together.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// Octets read from the link at once.
const READ_OCTETS: usize = 16 * 1_024;
/// The label of the exporter that binds proofs to this link (SPEC.md §5).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-cipherim-identity";

/// Why there is no link. Shown to a person; says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// Incompatible: the relay speaks TLS, but not this protocol.
    #[error("{relay} does not speak CIM/1: is this the right port?")]
    Alpn {
        /// Where it was tried.
        relay: String,
    },
    /// Resource: nobody answered in time.
    #[error("{relay} did not answer in {} s", CONNECT_DEADLINE.as_secs())]
    Deadline {
        /// Where it was tried.
        relay: String,
    },
    /// Resource: no TCP connection, or it broke.
    #[error("{relay} cannot be reached: {source}")]
    Network {
        /// Where it was tried.
        relay: String,
        /// What the system said.
        source: io::Error,
    },
    /// Misuse: nothing says which key the relay must have.
    #[error("nothing vouches for the relay of {domain}: ask for an invitation link with `tls=`")]
    NoPin {
        /// The domain.
        domain: String,
    },
    /// Misbehaved: the relay has another key than the one that is pinned.
    #[error(
        "{relay} shows another key than the one pinned for {domain}: someone may be in between, \
         or the domain changed its key without announcing it"
    )]
    Pin {
        /// Where it was tried.
        relay: String,
        /// The domain.
        domain: String,
    },
    /// The handshake failed otherwise.
    #[error(
        "the secure link to {relay} was not made: {source}; if the relay's token is away, it \
         cannot prove who it is until the token is back"
    )]
    Tls {
        /// Where it was tried.
        relay: String,
        /// What TLS said.
        source: io::Error,
    },
}

/// Makes links to the relay of one domain. Keeps tickets, so reuse it.
#[derive(Clone)]
pub struct Dialer {
    domain: String,
    relay: String,
    configuration: Arc<ClientConfig>,
}

impl Dialer {
    /// A dialer to `relay` (`host:port`), whose TLS key must be one of `pins` (SHA-256 of the
    /// SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// [`ConnectionError::NoPin`] without pins; [`ConnectionError::Tls`] if TLS cannot be set up.
    pub fn new(domain: &str, relay: &str, pins: &[[u8; 32]]) -> Result<Self, ConnectionError> {
        if pins.is_empty() {
            return Err(ConnectionError::NoPin { domain: domain.to_owned() });
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = PinVerifier { pins: pins.to_vec(), provider: Arc::clone(&provider) };
        let mut configuration = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| ConnectionError::Tls {
                relay: relay.to_owned(),
                source: io::Error::other(error),
            })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        configuration.alpn_protocols = vec![b"cim1".to_vec()];
        Ok(Self {
            domain: domain.to_owned(),
            relay: relay.to_owned(),
            configuration: Arc::new(configuration),
        })
    }

    /// Makes a link.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub async fn dial(&self) -> Result<Connection, ConnectionError> {
        let relay = || self.relay.clone();
        match tokio::time::timeout(CONNECT_DEADLINE, self.handshake()).await {
            Ok(result) => result,
            Err(_) => Err(ConnectionError::Deadline { relay: relay() }),
        }
    }

    async fn handshake(&self) -> Result<Connection, ConnectionError> {
        let relay = || self.relay.clone();
        let network = |source| ConnectionError::Network { relay: relay(), source };
        let stream = TcpStream::connect(&self.relay).await.map_err(network)?;
        stream.set_nodelay(true).map_err(network)?;
        let name = ServerName::try_from(self.domain.clone())
            .map_err(|error| network(io::Error::other(error)))?;
        let connector = TlsConnector::from(Arc::clone(&self.configuration));
        let stream = connector.connect(name, stream).await.map_err(|source| {
            if is_pin_failure(&source) {
                ConnectionError::Pin { relay: relay(), domain: self.domain.clone() }
            } else {
                ConnectionError::Tls { relay: relay(), source }
            }
        })?;
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(b"cim1") {
            return Err(ConnectionError::Alpn { relay: relay() });
        }
        let exporter = session
            .export_keying_material([0; 32], EXPORTER_LABEL, Some(&[]))
            .map_err(|error| network(io::Error::other(error)))?;
        let (reader, writer) = tokio::io::split(stream);
        Ok(Connection {
            exporter,
            receiver: LineReceiver { reader, lines: protocol::LineBuffer::new(LINE_OCTETS_MAX) },
            sender: LineSender { writer },
        })
    }
}

/// A link that is ready for lines.
pub struct Connection {
    /// The TLS exporter for proofs of identity.
    pub exporter: [u8; 32],
    /// Gives lines from the relay.
    pub receiver: LineReceiver,
    /// Takes lines to the relay.
    pub sender: LineSender,
}

/// The reading half.
pub struct LineReceiver {
    reader: ReadHalf<TlsStream<TcpStream>>,
    lines: protocol::LineBuffer,
}

impl LineReceiver {
    /// The next line without its CRLF; `None` at the end of the link. Safe to cancel.
    ///
    /// # Errors
    /// The system's, or [`io::ErrorKind::InvalidData`] for a line over [`LINE_OCTETS_MAX`].
    pub async fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match self.lines.next_line() {
                Some(Ok(line)) => return Ok(Some(line.to_vec())),
                Some(Err(error)) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
                None => {}
            }
            let mut octets = [0; READ_OCTETS];
            let count = self.reader.read(&mut octets).await?;
            if count == 0 {
                return Ok(None);
            }
            self.lines.push(octets.get(..count).unwrap_or_default());
        }
    }
}

/// The writing half.
pub struct LineSender {
    writer: WriteHalf<TlsStream<TcpStream>>,
}

impl LineSender {
    /// Sends whole lines, each with its CRLF.
    ///
    /// # Errors
    /// The system's; how much was sent is then unknown.
    pub async fn send(&mut self, lines: &[u8]) -> io::Result<()> {
        self.writer.write_all(lines).await?;
        self.writer.flush().await
    }

    /// Says that nothing more will come.
    ///
    /// # Errors
    /// The system's.
    pub async fn close(&mut self) -> io::Result<()> {
        self.writer.shutdown().await
    }
}

/// Believes a certificate because of its key.
#[derive(Debug)]
struct PinVerifier {
    pins: Vec<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unpinned = rustls::CertificateError::ApplicationVerificationFailure;
        let Some(key) = subject_public_key(leaf) else {
            return Err(rustls::CertificateError::BadEncoding.into());
        };
        if self.pins.contains(&sha256(&[key])) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(unpinned.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn is_pin_failure(error: &io::Error) -> bool {
    let wanted = rustls::Error::from(rustls::CertificateError::ApplicationVerificationFailure);
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|inner| *inner == wanted)
}

/// The SubjectPublicKeyInfo of a certificate (RFC 5280 §4.1), its octets in DER.
fn subject_public_key<'a>(certificate: &'a CertificateDer<'_>) -> Option<&'a [u8]> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.tbs_certificate.subject_pki.raw)
}
