//! Values as JSON in buffers that are wiped, growth included.
//!
//! Owns the form of a row's plaintext: `u32` length and name, then the value.

use std::io;

use serde::Serialize;
use zeroize::Zeroizing;

/// `value` as JSON, in a buffer that is wiped on drop.
///
/// # Errors
/// Those of [`serde_json`]: a value that has no JSON.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    let mut buffer = Buffer::default();
    serde_json::to_writer(&mut buffer, value)?;
    Ok(buffer.octets)
}

/// The plaintext of a row.
pub(super) fn to_json_after<T: Serialize + ?Sized>(
    name: &str,
    value: &T,
) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    let mut buffer = Buffer::default();
    // Names are addresses and identifiers, far shorter than 4 GiB.
    buffer.push(&(name.len() as u32).to_be_bytes());
    buffer.push(name.as_bytes());
    serde_json::to_writer(&mut buffer, value)?;
    Ok(buffer.octets)
}

/// Name and JSON of a row's plaintext.
pub(super) fn split(plaintext: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = plaintext.split_first_chunk()?;
    let (name, json) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    Some((core::str::from_utf8(name).ok()?, json))
}

/// A buffer that wipes what it leaves behind when it grows.
struct Buffer {
    octets: Zeroizing<Vec<u8>>,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { octets: Zeroizing::new(Vec::with_capacity(1_024)) }
    }
}

impl Buffer {
    fn push(&mut self, octets: &[u8]) {
        let needed = self.octets.len() + octets.len();
        // Room for a tag behind the last octet, so that sealing in place moves nothing.
        if needed + 16 > self.octets.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity((needed + 16) * 2));
            larger.extend_from_slice(&self.octets);
            self.octets = larger;
        }
        self.octets.extend_from_slice(octets);
    }
}

impl io::Write for Buffer {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.push(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
