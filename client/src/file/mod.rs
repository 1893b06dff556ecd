//! Files: cut, sealed and hashed on their way out; opened, checked and put together on their way
//! in.
//!
//! Owns the chunk cipher and both ends on disk. The invariants: a file is read and written chunk
//! by chunk and never held in memory; a sealed chunk that differs from the leaf it was announced
//! with does not leave; a chunk that does not open, or a root that differs, is refused; the target
//! appears under its name only when it is whole (SPEC.md §9). Limits:
//! [`protocol::limits::CHUNKS_MAX`], [`limits::FILE_NAME_OCTETS_MAX`].

mod sink;
mod source;

use std::io;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use protocol::file::{Shape, chunk_aad, chunk_nonce};
use protocol::identifier::FileId;
use zeroize::Zeroizing;

pub(crate) use sink::{Progress, Sink};
pub(crate) use source::{LEAVES_PER_PAGE, Source};
pub use source::{Prepared, prepare};

use crate::limits;
use crate::mime::Entity;
use crate::random::NoRandom;
use crate::secret::Secret32;

/// The media type of a manifest's plaintext.
const MANIFEST_TYPE: &str = "application/vnd.cim.file";

/// Why a file cannot be sent or received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Misuse: the file changed while it was being sent.
    #[error("the file has changed since it was offered")]
    Changed,
    /// Misuse: there is a file of that name.
    #[error("there is a file of that name already")]
    Exists,
    /// Resource: reading or writing failed.
    #[error("the file cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// Misbehaved: a chunk does not open or stands in the wrong place.
    #[error("a chunk of the file does not hold")]
    Chunk,
    /// Misbehaved: the manifest cannot be read.
    #[error("the offer of the file cannot be read")]
    Manifest,
    /// Resource: no random octets.
    #[error(transparent)]
    Random(#[from] NoRandom),
    /// Misbehaved: the whole differs from what was announced and signed.
    #[error("the file differs from what its sender signed")]
    Root,
    /// Resource: larger than the protocol or the policy allows.
    #[error("the file is too large")]
    TooLarge,
}

/// Seals and opens the chunks of one file.
pub(crate) struct ChunkCipher {
    key: LessSafeKey,
    fid: FileId,
    shape: Shape,
}

impl ChunkCipher {
    pub(crate) fn new(key: &Secret32, fid: FileId, shape: Shape) -> Result<Self, FileError> {
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| FileError::Chunk)?;
        Ok(Self { key: LessSafeKey::new(key), fid, shape })
    }

    /// Seals chunk `number`, which must have its place's length.
    pub(crate) fn seal(&self, number: u64, chunk: &mut Vec<u8>) -> Result<(), FileError> {
        if self.shape.octets_of(number).map(|octets| octets as usize) != Some(chunk.len()) {
            return Err(FileError::Changed);
        }
        let aad = chunk_aad(self.fid, number, self.shape.is_last(number));
        let nonce = Nonce::assume_unique_for_key(chunk_nonce(number));
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(aad), chunk)
            .map_err(|_| FileError::Chunk)
    }

    /// Opens chunk `number`.
    pub(crate) fn open(&self, number: u64, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, FileError> {
        let expected = self.shape.octets_of(number).ok_or(FileError::Chunk)?;
        let aad = chunk_aad(self.fid, number, self.shape.is_last(number));
        let nonce = Nonce::assume_unique_for_key(chunk_nonce(number));
        let mut text = Zeroizing::new(sealed.to_vec());
        let length = self
            .key
            .open_in_place(nonce, Aad::from(aad), &mut text)
            .map_err(|_| FileError::Chunk)?
            .len();
        if length != expected as usize {
            return Err(FileError::Chunk);
        }
        text.truncate(length);
        Ok(text)
    }
}

/// What the plaintext of an 800 says.
pub(crate) struct Manifest {
    pub(crate) name: String,
    pub(crate) media_type: String,
    pub(crate) key: Secret32,
}

impl Manifest {
    pub(crate) fn to_entity(&self) -> Entity {
        let name = protocol::parameter::escape(&self.name);
        let media_type = protocol::parameter::escape(&self.media_type);
        // `;` separates parameters here and stands for itself on the wire.
        let quote = |value: String| value.replace(';', "%3B");
        Entity {
            content_type: format!(
                "{MANIFEST_TYPE}; name={}; type={}",
                quote(name),
                quote(media_type)
            ),
            content: Zeroizing::new(self.key.expose().to_vec()),
        }
    }

    pub(crate) fn from_entity(entity: &Entity) -> Result<Self, FileError> {
        let key = Secret32::from_slice(&entity.content).ok_or(FileError::Manifest)?;
        let name = entity.parameter("name").ok_or(FileError::Manifest)?;
        if entity.media_type() != MANIFEST_TYPE {
            return Err(FileError::Manifest);
        }
        let media_type = entity.parameter("type").unwrap_or_default();
        Ok(Self { name: safe_name(&name), media_type, key })
    }
}

/// A name that names a file in its folder and nothing else: no path, no control characters, not
/// hidden, not empty, at most [`limits::FILE_NAME_OCTETS_MAX`] octets.
#[must_use]
pub(crate) fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut safe: String = last
        .chars()
        .filter(|c| {
            !c.is_control() && !matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
        })
        .collect();
    safe = safe.trim().trim_start_matches('.').to_owned();
    safe.truncate(safe.floor_char_boundary(limits::FILE_NAME_OCTETS_MAX));
    if safe.is_empty() { "file".into() } else { safe }
}

#[cfg(test)]
mod tests;
