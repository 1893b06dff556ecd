//! A link of one's own to the relay: octets and lines over real TLS, with no client in between.
//!
//! For tests that say what no client would, and for load. Nothing waits longer than [`PATIENCE`].

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use protocol::LineBuffer;
use protocol::limits::LINE_OCTETS_MAX;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::line::{bare, word};
use crate::person::PATIENCE;
use crate::site::Site;

/// The label of the exporter that binds proofs to a link (SPEC.md §5).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-cipherim-identity";

/// The loopback address that links come from if nothing else is said.
const HERE: [u8; 4] = [127, 0, 0, 1];

/// Makes links to one relay. Keeps tickets, so that one of many links costs the token a signature.
#[derive(Clone)]
pub struct Dialer {
    relay: SocketAddr,
    name: ServerName<'static>,
    configuration: Arc<ClientConfig>,
}

impl Dialer {
    /// A dialer to the relay of `site`, past the wire. Believes the certificate that lies there.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(site: &Site) -> Result<Self> {
        Self::to(site, site.relay_address())
    }

    /// The same through the wire, which captures every octet and may cut the links.
    ///
    /// # Errors
    /// As [`Dialer::new`].
    pub fn through_wire(site: &Site) -> Result<Self> {
        Self::to(site, site.wire().address())
    }

    /// The same dialer without tickets: each of its handshakes is a full one.
    #[must_use]
    pub fn without_tickets(mut self) -> Self {
        Arc::make_mut(&mut self.configuration).resumption = Resumption::disabled();
        self
    }

    fn to(site: &Site, relay: SocketAddr) -> Result<Self> {
        let certificate = CertificateDer::from_pem_file(site.folder().join("tls.pem"))
            .context("the relay's certificate")?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut configuration = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        configuration.alpn_protocols = vec![b"cim1".to_vec()];
        Ok(Self {
            relay,
            name: ServerName::try_from(site.domain().to_owned())?,
            configuration: Arc::new(configuration),
        })
    }

    /// A TCP connection to the relay on which nothing was said.
    ///
    /// # Errors
    /// The system's.
    pub fn connect(&self) -> Result<TcpStream> {
        self.connect_from(HERE)
    }

    fn connect_from(&self, from: [u8; 4]) -> Result<TcpStream> {
        let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        if from != HERE {
            bind(&socket, &SocketAddr::from((from, 0)))?;
        }
        connect(&socket, &self.relay).context("the relay does not accept")?;
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(socket)
    }

    /// The first octets of a TLS handshake.
    ///
    /// # Errors
    /// If TLS gives none.
    pub fn client_hello(&self) -> Result<Vec<u8>> {
        let mut tls = self.session()?;
        let mut octets = Vec::new();
        tls.write_tls(&mut octets)?;
        Ok(octets)
    }

    /// A link with its handshake done; the greeting is not read yet.
    ///
    /// # Errors
    /// If the relay refuses or takes too long.
    pub fn dial(&self) -> Result<Link> {
        self.dial_from(HERE)
    }

    /// The same from one of this machine's loopback addresses.
    ///
    /// # Errors
    /// As [`Dialer::dial`].
    pub fn dial_from(&self, from: [u8; 4]) -> Result<Link> {
        let mut socket = self.connect_from(from)?;
        let mut tls = self.session()?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).context("the handshake failed")?;
        }
        Ok(Link { tls, socket, lines: LineBuffer::new(LINE_OCTETS_MAX) })
    }

    /// A link that was greeted.
    ///
    /// # Errors
    /// As [`Dialer::dial`], or if the relay does not greet.
    pub fn greeted(&self) -> Result<Link> {
        let mut link = self.dial()?;
        link.expect(220)?;
        Ok(link)
    }

    fn session(&self) -> Result<ClientConnection> {
        Ok(ClientConnection::new(Arc::clone(&self.configuration), self.name.clone())?)
    }
}

/// A TLS connection that is there.
pub struct Link {
    tls: ClientConnection,
    socket: TcpStream,
    lines: LineBuffer,
}

impl Link {
    /// What binds a proof to this link.
    ///
    /// # Errors
    /// If TLS refuses.
    pub fn exporter(&self) -> Result<[u8; 32]> {
        Ok(self.tls.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[]))?)
    }

    /// Sends octets as they are and waits until the system has taken them.
    ///
    /// # Errors
    /// If the relay does not read, or is gone.
    pub fn send(&mut self, octets: &[u8]) -> Result<()> {
        self.push(octets)?;
        ensure!(!self.tls.wants_write(), "the relay does not read");
        Ok(())
    }

    /// Sends octets as far as the system takes them within `patience`; false if not all of them.
    /// What is left goes out with the next.
    ///
    /// # Errors
    /// If the relay is gone.
    pub fn offer(&mut self, octets: &[u8], patience: Duration) -> Result<bool> {
        self.socket.set_write_timeout(Some(patience))?;
        let result = self.push(octets);
        self.socket.set_write_timeout(Some(PATIENCE))?;
        result?;
        Ok(!self.tls.wants_write())
    }

    fn push(&mut self, octets: &[u8]) -> Result<()> {
        // More than rustls holds unsent would be cut.
        for piece in octets.chunks(16_384) {
            self.tls.writer().write_all(piece)?;
            self.flush()?;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if is_timeout(&error) => break,
                Err(error) => return Err(error).context("the relay is gone"),
            }
        }
        Ok(())
    }

    /// Sends a line.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn say(&mut self, line: &str) -> Result<()> {
        self.send(format!("{line}\r\n").as_bytes())
    }

    /// The next line without its CRLF; `None` at the orderly end of the link.
    ///
    /// # Errors
    /// If nothing comes, if the link breaks, or ends without a word.
    pub fn hear(&mut self) -> Result<Option<String>> {
        match self.hear_within(PATIENCE)? {
            Heard::Line(line) => Ok(Some(line)),
            Heard::End => Ok(None),
            Heard::Nothing => bail!("the relay said nothing for {} s", PATIENCE.as_secs()),
        }
    }

    /// As [`Link::hear`], but nothing is no error.
    ///
    /// # Errors
    /// If the link breaks, or ends without a word.
    pub fn hear_within(&mut self, patience: Duration) -> Result<Heard> {
        let deadline = Instant::now() + patience;
        loop {
            match self.hear_read()? {
                Heard::Nothing => {}
                heard => return Ok(heard),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Heard::Nothing);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.tls.read_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if is_timeout(&error) => return Ok(Heard::Nothing),
                Err(error) => return Err(error).context("the link broke"),
            }
            self.tls.process_new_packets()?;
        }
    }

    /// A line that was read already, behind another one. Does not ask the system for more; the
    /// end is left to [`Link::hear`].
    ///
    /// # Errors
    /// As [`Link::hear`].
    pub fn hear_ready(&mut self) -> Result<Option<String>> {
        Ok(match self.hear_read()? {
            Heard::Line(line) => Some(line),
            Heard::Nothing | Heard::End => None,
        })
    }

    /// What has come in and was not heard yet.
    fn hear_read(&mut self) -> Result<Heard> {
        loop {
            if let Some(line) = self.lines.next_line() {
                return Ok(Heard::Line(String::from_utf8(line?.to_vec())?));
            }
            let mut buffer = [0; 16_384];
            match self.tls.reader().read(&mut buffer) {
                Ok(0) => return Ok(Heard::End),
                Ok(count) => self.lines.push(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Heard::Nothing),
                Err(error) => return Err(error).context("the link ended without a word"),
            }
        }
    }

    /// The next queued message: its number in the queue, and the line without hop parameters.
    /// Other lines before it are dropped.
    ///
    /// # Errors
    /// As [`Link::hear`], or if none comes.
    pub fn next_message(&mut self) -> Result<(u64, String)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.hear()?.context("the link ended before a message")?;
            if line.starts_with("100 ") {
                let number = word(&line, "H-Q=").context("a message without H-Q")?;
                return Ok((number.parse()?, bare(&line)));
            }
            ensure!(Instant::now() < deadline, "waited in vain for a message");
        }
    }

    /// The next line, which must be a reply of this code.
    ///
    /// # Errors
    /// As [`Link::hear`], or if it is another one.
    pub fn expect(&mut self, code: u16) -> Result<String> {
        let line = self.hear()?.with_context(|| format!("the link ended before {code}"))?;
        ensure!(line.starts_with(&code.to_string()), "not {code} but {line}");
        Ok(line)
    }

    /// The next reply; commands of the relay that come before it are dropped.
    ///
    /// # Errors
    /// As [`Link::hear`], or if the link ends.
    pub fn reply(&mut self) -> Result<String> {
        loop {
            let line = self.hear()?.context("the link ended before an answer")?;
            if line.starts_with(['2', '3', '4', '5']) {
                return Ok(line);
            }
        }
    }

    /// Sends a line whose answer must have this code.
    ///
    /// # Errors
    /// As [`Link::reply`], or with another answer.
    pub fn ask(&mut self, line: &str, code: u16) -> Result<String> {
        self.say(line)?;
        let reply = self.reply()?;
        ensure!(reply.starts_with(&code.to_string()), "{line} got not {code} but {reply}");
        Ok(reply)
    }

    /// Ends the link without a word of the protocol: TLS says that nothing more comes.
    ///
    /// # Errors
    /// If the link is gone.
    pub fn close(mut self) -> Result<()> {
        self.tls.send_close_notify();
        self.flush()?;
        ensure!(!self.tls.wants_write(), "the relay does not read");
        Ok(self.socket.shutdown(Shutdown::Write)?)
    }

    /// Ends the link and waits for the relay's goodbye.
    ///
    /// # Errors
    /// If the end is not an orderly one.
    pub fn quit(mut self) -> Result<()> {
        self.ask("019", 221)?;
        ensure!(self.hear()?.is_none(), "something came after 221");
        Ok(())
    }

    /// Waits for 421 and the orderly end behind it; gives the 421. Other lines before it are
    /// dropped.
    ///
    /// # Errors
    /// If the link ends otherwise.
    pub fn goodbye(&mut self) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            ensure!(Instant::now() < deadline, "waited in vain for 421");
            let line = self.hear()?.context("the link ended without 421")?;
            if line.starts_with("421") {
                ensure!(self.hear()?.is_none(), "something came after 421");
                return Ok(line);
            }
        }
    }
}

/// What came on a link.
#[derive(Debug)]
pub enum Heard {
    /// A line without its CRLF.
    Line(String),
    /// The orderly end.
    End,
    /// Nothing in the time given.
    Nothing,
}

/// Whether a socket's own time limit ended the call.
fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
