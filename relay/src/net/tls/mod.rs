//! TLS sessions without I/O: ciphertext in, plaintext out, over the caller's buffers.
//!
//! [`Session`] hides rustls 0.23's unbuffered server (whose interface its next version replaces)
//! in this one file. Owns the octets of an incomplete record, and nothing while idle. Limits:
//! [`limits::INCOMING_TLS_BYTES_MAX`], [`limits::HANDSHAKE_BYTES_MAX`]. PROTOCOL §1, RFC 8446.

mod configuration;
mod exporter;

pub use self::configuration::{ALPN_CLIENT, Configuration, SignError, TlsSigner};
pub use self::exporter::{EXPORTER_LABEL, EXPORTER_LENGTH};

use rustls::HandshakeKind;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use crate::limits;

/// Why a session failed; it is of no further use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The configured chain is empty, unreadable, or its key is not P-256.
    #[error("the TLS certificate chain needs a leaf with a P-256 key")]
    Certificate,
    /// More octets were sealed under one key than is safe, and it could not be changed.
    #[error("the connection's key is used up")]
    Exhausted,
    /// The session has failed before.
    #[error("the TLS session has failed before")]
    Failed,
    /// The handshake is not complete.
    #[error("the TLS handshake is not complete")]
    Handshaking,
    /// The library says the peer broke the protocol, or that we did.
    #[error("TLS: {0}")]
    Library(#[from] rustls::Error),
    /// The first octets are not a TLS handshake.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// The signer gave no signature.
    #[error("TLS: {0}")]
    Sign(#[from] SignError),
    /// An incomplete record, or a handshake, is longer than allowed.
    #[error("a TLS record or handshake is longer than allowed")]
    TooLong,
}

/// What the peer has said about the end of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More may come.
    Open,
    /// The peer has said that nothing more will come.
    PeerClosed,
}

/// One server-side TLS session.
pub struct Session {
    connection: UnbufferedServerConnection,
    /// An incomplete record, with what the library wants to see again.
    incoming: Vec<u8>,
    handshake_bytes: usize,
    exporter: Option<[u8; EXPORTER_LENGTH]>,
    peer_closed: bool,
    /// Set by the first error; the library alone would go on after some.
    failed: bool,
}

impl Session {
    /// A session that waits for its ClientHello.
    ///
    /// # Errors
    /// [`TlsError::Library`] if the library refuses its configuration.
    pub fn new(configuration: &Configuration) -> Result<Session, TlsError> {
        Ok(Session {
            connection: UnbufferedServerConnection::new(configuration.server.clone())?,
            incoming: Vec::new(),
            handshake_bytes: 0,
            exporter: None,
            peer_closed: false,
            failed: false,
        })
    }

    /// Keeps handshake octets for a step elsewhere, without working on them. True when a record
    /// is complete, so that a step is worth its while.
    ///
    /// # Errors
    /// [`TlsError::NotTls`] if they do not begin like a handshake; [`TlsError::TooLong`].
    pub fn accumulate(&mut self, ciphertext: &[u8]) -> Result<bool, TlsError> {
        self.incoming.extend_from_slice(ciphertext);
        self.handshake_bytes += ciphertext.len();
        if self.handshake_bytes > limits::HANDSHAKE_BYTES_MAX {
            return Err(TlsError::TooLong);
        }
        record_is_complete(&self.incoming)
    }

    /// Works on ciphertext (and on what was kept before), in place: its content is undefined
    /// afterwards. Each piece of plaintext is given to `plaintext` in order; what the peer has to
    /// be told is appended to `outgoing`, also after an error (an alert).
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn feed(
        &mut self,
        ciphertext: &mut [u8],
        outgoing: &mut Vec<u8>,
        plaintext: impl FnMut(&[u8]),
    ) -> Result<Progress, TlsError> {
        if self.failed {
            return Err(TlsError::Failed);
        }
        if self.is_handshaking() {
            self.handshake_bytes += ciphertext.len();
            if self.handshake_bytes > limits::HANDSHAKE_BYTES_MAX {
                return Err(TlsError::TooLong);
            }
        }
        let consumed = if self.incoming.is_empty() {
            let consumed = self.process(ciphertext, outgoing, plaintext)?;
            self.incoming.extend_from_slice(ciphertext.get(consumed..).unwrap_or_default());
            0
        } else {
            let mut incoming = std::mem::take(&mut self.incoming);
            incoming.extend_from_slice(ciphertext);
            let result = self.process(&mut incoming, outgoing, plaintext);
            self.incoming = incoming;
            result?
        };
        if consumed >= self.incoming.len() {
            self.incoming = Vec::new();
        } else {
            self.incoming.drain(..consumed);
        }
        if self.incoming.len() > limits::INCOMING_TLS_BYTES_MAX {
            return Err(TlsError::TooLong);
        }
        Ok(if self.peer_closed { Progress::PeerClosed } else { Progress::Open })
    }

    /// Appends `plaintext`, sealed, to `outgoing`. Empty plaintext seals nothing, but writes out
    /// what the library has to say.
    ///
    /// # Errors
    /// [`TlsError::Handshaking`] before the end of the handshake, [`TlsError::Exhausted`],
    /// [`TlsError::Library`].
    pub fn seal(&mut self, plaintext: &[u8], outgoing: &mut Vec<u8>) -> Result<(), TlsError> {
        self.write(
            outgoing,
            |writer, space| {
                if plaintext.is_empty() { Ok(0) } else { writer.encrypt(plaintext, space) }
            },
            sealed_length(plaintext.len()),
        )
    }

    /// Appends the word that we will send nothing more.
    ///
    /// # Errors
    /// As [`Session::seal`].
    pub fn close_notify(&mut self, outgoing: &mut Vec<u8>) -> Result<(), TlsError> {
        self.write(outgoing, |writer, space| writer.queue_close_notify(space), sealed_length(2))
    }

    /// Whether the handshake is not complete.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether the next step computes keys or a signature, and so belongs on a worker.
    pub fn next_step_is_long(&self) -> bool {
        self.exporter.is_none()
    }

    /// Whether the session resumed an earlier one.
    pub fn resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The application protocol, once chosen.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// `TLS-Exporter("EXPORTER-cipherim-identity", "", 32)`, after the handshake.
    pub fn exporter(&self) -> Option<[u8; EXPORTER_LENGTH]> {
        if self.is_handshaking() { None } else { self.exporter }
    }

    /// Octets kept of an incomplete record.
    pub fn buffered(&self) -> usize {
        self.incoming.len()
    }

    /// Works through `buffer`; returns how many octets of its front are done with.
    fn process(
        &mut self,
        buffer: &mut [u8],
        outgoing: &mut Vec<u8>,
        mut plaintext: impl FnMut(&[u8]),
    ) -> Result<usize, TlsError> {
        let mut consumed = 0;
        loop {
            let rest = buffer.get_mut(consumed..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state, .. } =
                self.connection.process_tls_records(rest);
            let mut done = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut records)) => {
                    while let Some(record) = records.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plaintext(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, outgoing)?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(_) => done = true,
                Err(error) => {
                    self.failed = true;
                    self.drain_alert(outgoing);
                    return Err(told(error));
                }
            }
            if self.exporter.is_none() {
                self.exporter = exporter::take();
            }
            consumed += discard;
            if done || self.peer_closed {
                return Ok(consumed);
            }
        }
    }

    /// After an error the library may still have an alert for the peer. It is not shown any
    /// octets again: it would stumble over them a second time.
    fn drain_alert(&mut self, outgoing: &mut Vec<u8>) {
        for _ in 0..limits::ALERT_STEPS_MAX {
            if !self.connection.wants_write() {
                return;
            }
            match self.connection.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    if encode(&mut data, outgoing).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    fn write(
        &mut self,
        outgoing: &mut Vec<u8>,
        mut seal: impl FnMut(
            &mut rustls::unbuffered::WriteTraffic<'_, rustls::server::ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
        expected: usize,
    ) -> Result<(), TlsError> {
        if self.failed {
            return Err(TlsError::Failed);
        }
        loop {
            // The library wants to see an incomplete record again, whatever it is asked for.
            let state = self.connection.process_tls_records(&mut self.incoming).state;
            match state.map_err(told)? {
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, outgoing)?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.peer_closed = true,
                ConnectionState::WriteTraffic(mut writer) => {
                    return append(outgoing, expected, |space| seal(&mut writer, space));
                }
                _ => return Err(TlsError::Handshaking),
            }
        }
    }
}

/// Octets of the header and tag around each record.
const RECORD_OVERHEAD: usize = 5 + 1 + 16;
/// Plaintext octets of the longest record.
const RECORD_PLAINTEXT_MAX: usize = 1 << 14;

/// Octets that `length` octets of plaintext become.
fn sealed_length(length: usize) -> usize {
    length + length.div_ceil(RECORD_PLAINTEXT_MAX).max(1) * RECORD_OVERHEAD
}

/// Whether `octets` hold a whole handshake record.
fn record_is_complete(octets: &[u8]) -> Result<bool, TlsError> {
    const HANDSHAKE: u8 = 22;
    const VERSION_MAJOR: u8 = 3;
    match octets {
        [] | [HANDSHAKE] => Ok(false),
        [HANDSHAKE, VERSION_MAJOR, _, length @ ..] => match length {
            [high, low, body @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length > RECORD_PLAINTEXT_MAX + 256 {
                    return Err(TlsError::NotTls);
                }
                Ok(body.len() >= length)
            }
            _ => Ok(false),
        },
        [HANDSHAKE, VERSION_MAJOR] => Ok(false),
        _ => Err(TlsError::NotTls),
    }
}

/// Appends up to `expected` octets, or as many as the library asks for.
fn append(
    outgoing: &mut Vec<u8>,
    expected: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), TlsError> {
    let start = outgoing.len();
    let mut needed = expected;
    for _ in 0..2 {
        outgoing.resize(start + needed, 0);
        match write(outgoing.get_mut(start..).unwrap_or_default()) {
            Ok(written) => {
                outgoing.truncate(start + written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(size)) => needed = size.required_size,
            Err(EncryptError::EncryptExhausted) => break,
        }
    }
    outgoing.truncate(start);
    Err(TlsError::Exhausted)
}

fn encode<Data>(
    data: &mut rustls::unbuffered::EncodeTlsData<'_, Data>,
    outgoing: &mut Vec<u8>,
) -> Result<(), TlsError> {
    let start = outgoing.len();
    let needed = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Ok(_) | Err(EncodeError::AlreadyEncoded) => return Ok(()),
    };
    outgoing.resize(start + needed, 0);
    let written = data.encode(outgoing.get_mut(start..).unwrap_or_default()).unwrap_or(0);
    outgoing.truncate(start + written);
    Ok(())
}

/// The library's error as ours: a failed signature is nobody's fault but the signer's.
fn told(error: rustls::Error) -> TlsError {
    if let rustls::Error::Other(other) = &error
        && let Some(sign) = other.0.downcast_ref::<SignError>()
    {
        return TlsError::Sign(*sign);
    }
    TlsError::Library(error)
}

#[cfg(test)]
mod tests;
