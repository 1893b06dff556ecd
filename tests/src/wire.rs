//! The link between people and relay: a TCP relay that captures every octet and can be cut.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

/// Octets read at once from a file that is searched.
const SEARCH_CHUNK: usize = 1 << 20;

/// A wire with a tap and a cutter.
pub struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    relay: SocketAddr,
    capture: Mutex<File>,
    path: PathBuf,
    captured: AtomicU64,
    links: Mutex<Vec<TcpStream>>,
    is_blocked: AtomicBool,
    accepted: AtomicU64,
}

impl Wire {
    /// Listens on a free loopback port and passes everything to `relay`, writing all octets of
    /// both directions to the file `capture`.
    ///
    /// # Errors
    /// If the port or the file cannot be opened.
    pub fn lay(relay: SocketAddr, capture: &Path) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port for the wire")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            relay,
            capture: Mutex::new(File::create(capture)?),
            path: capture.to_path_buf(),
            captured: AtomicU64::new(0),
            links: Mutex::new(Vec::new()),
            is_blocked: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
        });
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A relay that is down refuses: the client then sees its connection close.
                let _ = server.connect(client);
            }
        });
        Ok(Self { address, shared })
    }

    /// Where people connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every link that is open now; new ones can be made at once.
    pub fn cut(&self) {
        let mut links = self.shared.links.lock().unwrap_or_else(PoisonError::into_inner);
        for link in links.drain(..) {
            // A link that is gone already needs no cutting.
            let _ = link.shutdown(Shutdown::Both);
        }
    }

    /// Cuts every link and refuses new ones until [`Wire::unblock`].
    pub fn block(&self) {
        self.shared.is_blocked.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// Lets new links be made again.
    pub fn unblock(&self) {
        self.shared.is_blocked.store(false, Ordering::SeqCst);
    }

    /// Links made since the start.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Octets captured so far, both directions.
    #[must_use]
    pub fn captured(&self) -> u64 {
        self.shared.captured.load(Ordering::SeqCst)
    }

    /// Which of `needles` occur anywhere in the capture.
    ///
    /// # Errors
    /// If the capture cannot be read.
    pub fn find<'a>(&self, needles: &[&'a [u8]]) -> Result<Vec<&'a [u8]>> {
        find_in_file(&self.shared.path, needles)
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, client: TcpStream) -> Result<()> {
        self.accepted.fetch_add(1, Ordering::SeqCst);
        if self.is_blocked.load(Ordering::SeqCst) {
            return Ok(client.shutdown(Shutdown::Both)?);
        }
        let relay = TcpStream::connect(self.relay)?;
        for stream in [&client, &relay] {
            stream.set_nodelay(true)?;
        }
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.push(client.try_clone()?);
        links.push(relay.try_clone()?);
        drop(links);
        for (from, to) in [(client.try_clone()?, relay.try_clone()?), (relay, client)] {
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.copy(from, to));
        }
        Ok(())
    }

    fn record(&self, octets: &[u8]) -> std::io::Result<()> {
        self.captured.fetch_add(octets.len() as u64, Ordering::SeqCst);
        self.capture.lock().unwrap_or_else(PoisonError::into_inner).write_all(octets)
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 * 1_024];
        while let Ok(count) = from.read(&mut buffer) {
            let octets = buffer.get(..count).unwrap_or_default();
            // Captured first: whatever has arrived is in the capture.
            if octets.is_empty() || self.record(octets).is_err() || to.write_all(octets).is_err() {
                break;
            }
        }
        for stream in [&from, &to] {
            // Either side may be gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Which of `needles` occur in the file at `path`, read in pieces that overlap.
///
/// # Errors
/// If the file cannot be read.
pub fn find_in_file<'a>(path: &Path, needles: &[&'a [u8]]) -> Result<Vec<&'a [u8]>> {
    let overlap = needles.iter().map(|needle| needle.len()).max().unwrap_or(1);
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut found: Vec<&[u8]> = Vec::new();
    let mut window: Vec<u8> = Vec::new();
    let mut chunk = vec![0; SEARCH_CHUNK];
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            return Ok(found);
        }
        window.extend_from_slice(chunk.get(..count).unwrap_or_default());
        for needle in needles {
            if !found.contains(needle) && memchr::memmem::find(&window, needle).is_some() {
                found.push(needle);
            }
        }
        window.drain(..window.len().saturating_sub(overlap));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_both_ways_and_cuts() {
        let relay = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let wire = Wire::lay(relay.local_addr().unwrap(), &folder.path().join("wire")).unwrap();
        let mut client = TcpStream::connect(wire.address()).unwrap();
        let (mut server, _) = relay.accept().unwrap();
        client.write_all(b"from client").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(server.read(&mut buffer).unwrap(), 11);
        server.write_all(b"from server").unwrap();
        assert_eq!(client.read(&mut buffer).unwrap(), 11);
        let found = wire.find(&[b"client", b"server", b"nobody"]).unwrap();
        assert_eq!(found, vec![&b"client"[..], b"server"]);
        wire.cut();
        assert_eq!(client.read(&mut buffer).unwrap_or(0), 0);
    }
}
